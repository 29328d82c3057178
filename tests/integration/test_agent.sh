#!/usr/bin/env bash
# What the guest's agent does besides commands and files: it tells of itself, keeps the guest's clock,
# and ends the guest.
. "$(dirname "$0")/lib.sh"

socket=$work/v.sock
gx() { timeout 600 "$vmctl" exec -n "$@"; }
is() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "got: $3"; fi
}
machine() { # NAME SCRIPT OPTION...
    local name=$1 script=$2
    shift 2
    "$vmctl" create "$name" --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" --memory 256M \
        --append "quiet script=$script" --vsock "path=$socket.$name" "$@" >/dev/null && "$vmctl" start "$name" >/dev/null || return
    "$vmctl" console "$name" >"$work/$name.out" 2>/dev/null </dev/null &
}
is_up() { # NAME
    timeout 600 "$vmctl" exec -n --wait 400s "$1" -- true
}
field() { # NAME: of a JSON object on standard input
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}
stopped_by() { # OPTION... NAME
    timeout 900 "$vmctl" --json stop "$@" | field stopped_by
}
pid_of() { # NAME ROLE
    "$vmctl" --json show "$1" | python3 -c '
import json, sys
print(next(p["pid"] for p in json.load(sys.stdin)["processes"] if p["role"] == sys.argv[1]))' "$2"
}
# How many seconds the guest's clock is ahead of ours: at least, at most.
ahead() { # NAME
    local before guests
    before=$(date +%s)
    guests=$(gx "$1" -- date +%s)
    echo $((guests - $(date +%s))) $((guests - before))
}
is_ahead() { # NAME SECONDS, give or take three
    local least most
    read -r least most < <(ahead "$1")
    [ "$most" -ge $(($2 - 3)) ] && [ "$least" -le $(($2 + 3)) ]
}
said() { # NAME TEXT: its console
    grep -q "$2" "$work/$1.out"
}

daemon_start

# A guest without an init: process 1 is a script, to which no signal of `poweroff` is anything.
truncate -s 16M "$work/disk"
mkfs.ext4 -q "$work/disk"
machine plain busy --disk "path=$work/disk"
is_up plain
check "a disk is mounted in a guest" gx plain -- sh -c \
    'load-modules ext4; mkdir /d && mount -t ext4 /dev/vda /d && (trap "echo ended >/d/ended; exit" TERM; echo >/d/there; setsid sleep 1000 & wait) >/dev/null 2>&1 &
    until [ -e /d/there ]; do sleep 0.1; done'

# What it tells of itself.
check "ping" "$vmctl" agent ping plain
told=$("$vmctl" --json agent plain)
is "it answers" True "$(field answers <<<"$told")"
is "its version is vmctl's" "$("$vmctl" --json version | field vmctl)" "$(field version <<<"$told")"
is "its architecture" riscv64 "$(field isa <<<"$told")"
is "its kernel" "Linux $(gx plain -- uname -r)" "$(field kernel <<<"$told")"
is "how it keeps the clock" "1 0" "$(field clock_interval_s <<<"$told") $(field clock_steps <<<"$told")"
check "for people, too" grep -q '^ISA: *riscv64' <("$vmctl" agent status plain)
"$vmctl" agent pong plain 2>/dev/null
is "an unknown question" 2 $?

# Who is in the guest is nobody to its agent: HELLO over the guest's own loopback gets no WELCOME.
gx plain -- sh -c '(vsock echo 7000 & echo $! >/tmp/echo) >/dev/null 2>&1'
loops() { [ "$(gx plain -- sh -c 'echo through | vsock send 7000 1' 2>/dev/null)" = through ]; }
check "the guest has a loopback" wait_for 60 loops
is "the agent listens to the host alone" 0 "$(gx plain -- sh -c \
    '{ printf "\050\000\000\000\001\000\000\000PVAG\001\000\000\000"; head -c 32 /dev/zero; } | vsock send 5056 1 2>/dev/null | wc -c')"
gx plain -- sh -c 'kill $(cat /tmp/echo)'

# While this one waits, the next one boots.
machine init init --append "quiet script=init clock=0"

# The clock. A pause does not part it from the host's: the time counter goes on. What does is the host's
# sleep, as when the real-time clock moves alone.
check "the guest's clock is the host's" is_ahead plain 0
vcpud=$(pid_of plain vcpud)
kill -STOP "$vcpud"
sleep 4
kill -CONT "$vcpud"
check "and is after a pause" is_ahead plain 0
kill -9 "$(pid_of plain devd/rtc0)"
gx plain -- rtc-shift 1000
check "after the host's sleep it follows the real-time clock, whose process had just died" wait_for 60 is_ahead plain 1000
is "it tells that it set it" 1 "$("$vmctl" --json agent plain | field clock_steps)"
gx plain -- sh -c 'date -s "@$(($(date +%s) + 5000))" >/dev/null; sleep 2'
check "what the guest sets itself is left alone" is_ahead plain 6000

is "a guest without an init is stopped through its agent" agent "$(stopped_by --timeout 300s plain)"
check "it powered off by itself" wait_for 10 said plain 'reboot: Power down'
check "its file system is clean" sh -c "dumpe2fs -h '$work/disk' 2>/dev/null | grep -q 'state: *clean' && e2fsck -fn '$work/disk' >/dev/null 2>&1"
is "its processes were told" ended "$(debugfs -R 'cat ended' "$work/disk" 2>/dev/null)"

# A guest with one.
is_up init
gx init -- sh -c 'rtc-shift 1000; sleep 2'
is "it tells that it is off" 0 "$("$vmctl" --json agent init | field clock_interval_s)"
check "an agent that is told to leaves the clock alone" is_ahead init 0
is "a guest with an init is stopped through its agent" agent "$(stopped_by --timeout 300s init)"
check "by its init" wait_for 10 said init 'The system is going down'
check "and that powered off" wait_for 10 said init 'reboot: Power down'

# An agent that is gone: the power key is pressed.
"$vmctl" start plain >/dev/null
timeout 600 "$vmctl" agent ping --wait 400s plain >/dev/null
gx plain -- sh -c '(sleep 0.2; kill $(pidof polyvisor-agent)) >/dev/null 2>&1 &'
no_agent() { ! "$vmctl" --timeout 1s agent ping plain >/dev/null 2>&1; }
check "an agent that is gone does not answer" wait_for 60 no_agent
is "that is told" False "$("$vmctl" --timeout 1s --json agent plain | field answers)"
is "then the power key is pressed" power-key "$(stopped_by --timeout 300s plain)"
"$vmctl" agent plain >/dev/null 2>&1
is "a machine that does not run" 5 $?
