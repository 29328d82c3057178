#!/usr/bin/env bash
# vmctl stop asks first: the guest's own power-off through the power key, force when it does not
# listen. And the power key's process may die at any time.
. "$(dirname "$0")/lib.sh"

machine() { # NAME SCRIPT
    "$vmctl" create "$1" --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
        --append "quiet script=$2" --memory 256M >/dev/null && "$vmctl" start "$1" >/dev/null
}
watch() { # NAME: its console to $work/NAME.out until it ends
    : >"$work/$1.out" # an earlier life's is not to be taken for this one's
    "$vmctl" console "$1" >"$work/$1.out" 2>/dev/null </dev/null &
}
is_up() { # NAME
    grep -q '^guest up' "$work/$1.out"
}
ended_by() { # NAME REASON
    "$vmctl" --json show "$1" | grep -q "\"end_reason\": *\"$2\""
}
stopped_by() { # WORD OPTION... NAME: stop it, and it says so
    local word=$1
    shift
    "$vmctl" --json stop "$@" | grep -q "\"stopped_by\": *\"$word\""
}
was_told() { # NAME TEXT: an event
    grep "$1" "$work/events" | grep -q "$2"
}
pid_of() { # NAME ROLE
    "$vmctl" --json show "$1" | tr -d ' \n' | sed -nE "s/.*\"role\":\"${2//\//\\/}\",\"pid\":([0-9]+).*/\1/p;t
        s/.*\"pid\":([0-9]+),\"role\":\"${2//\//\\/}\".*/\1/p"
}

daemon_start
events_begin "$work/events"

# A guest that listens.
machine polite busy
watch polite
check "the guest comes up" wait_for 120 is_up polite
check "stop succeeds, and says that the key did it" stopped_by power-key --timeout 600s polite
check "the guest powered off by itself" ended_by polite power-off
wait_for 10 grep -q 'reboot: Power down' "$work/polite.out"
check "it said so on its console" grep -q 'reboot: Power down' "$work/polite.out"
check "the event says that it was asked" wait_for 10 was_told polite 'pressed the guest.s power key'
check "and how it ended" wait_for 10 was_told polite 'stopped power-off'

# The same again, after the key's process was killed: its successor has a driver to talk to.
"$vmctl" start polite >/dev/null
watch polite
wait_for 120 is_up polite
kill -9 "$(pid_of polite devd/power0)"
check "stop succeeds with a key that has just died" "$vmctl" stop --timeout 600s polite
check "that guest powered off by itself, too" ended_by polite power-off
check "on the key of a new process" wait_for 30 was_told polite 'device-restarted devd/power0'

# A guest with a driver and nobody who heeds the key.
machine rude deaf
watch rude
wait_for 120 is_up rude
check "stop of a deaf guest succeeds, and says that force did it" stopped_by force --timeout 2s rude
check "it was ended by force" ended_by rude stopped
check "the event says why" wait_for 10 was_told rude 'did not power off in time'
check "its console knows of no power-off" sh -c "! grep -q 'Power down' '$work/rude.out'"

# A guest that has no driver yet is not waited for: a minute would be noticed.
# (One that never will: how far a guest has come by the time it is asked depends on the host.)
{ printf '\157\0\0\0'; head -c 4092 /dev/zero; } >"$work/loops" # j .
"$vmctl" create early --firmware "$work/loops" --memory 64M >/dev/null && "$vmctl" start early >/dev/null
start=$SECONDS
check "stop of a booting guest succeeds" "$vmctl" stop --timeout 600s early
check "it is ended by force" ended_by early stopped
check "at once" test $((SECONDS - start)) -lt 500
check "and the event says why" wait_for 10 was_told early 'no driver for its power key'

# Asked not to wait.
"$vmctl" start polite >/dev/null
check "stop --timeout 0 succeeds" "$vmctl" stop --timeout 0 polite
check "without the guest" ended_by polite stopped

kill $listener
wait $listener 2>/dev/null || true
