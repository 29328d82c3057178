#!/usr/bin/env bash
# kill -9 of any process: the others notice, and the next start finds a clean house.
. "$(dirname "$0")/lib.sh"

pid_of() { # MACHINE ROLE
    "$vmctl" --json show "$1" | tr -d ' \n' | sed -nE "s/.*\"role\":\"${2//\//\\/}\",\"pid\":([0-9]+).*/\1/p;t
        s/.*\"pid\":([0-9]+),\"role\":\"${2//\//\\/}\".*/\1/p"
}
state_is() { # MACHINE STATE
    "$vmctl" --json show "$1" | tr -d ' \n' | grep -q "\"state\":\"$2\""
}
machine() { # NAME
    "$vmctl" create "$1" --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" --append quiet \
        --memory 128M >/dev/null && "$vmctl" start "$1" >/dev/null
}

daemon_start
machine one
machine two
kill -9 "$(pid_of one vcpud)"
check "a killed vcpud is a crash of its machine" wait_for 20 state_is one crashed
check "another machine does not notice" state_is two running
check "a crashed machine starts again" "$vmctl" start one
check "and runs" wait_for 20 state_is one running
kill -9 "$(pid_of two devd/rng0)"
check "a killed device does not end the machine" sleep 1
check "it still runs" state_is two running

# vmmd itself: its machines go on; the next vmmd cleans up what it cannot adopt.
kill -9 "$daemon"
wait "$daemon" 2>/dev/null
daemon_start
check "a new vmmd starts over the old one's remains" "$vmctl" list
no_guests() {
    ! our_processes | grep -qE ' (vcpud|devd) '
}
check "no process of the former life is left" wait_for 20 no_guests
for name in one two; do
    "$vmctl" rm $name >/dev/null
done
check "vmmd ends cleanly" daemon_stop

# A private vmmd of `vmctl run`, and vmctl itself.
"$vmctl" run --name private --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" --append quiet \
    >"$work/private.out" 2>"$work/private.err" </dev/null &
client=$!
vmmd_pid() {
    pgrep -P "$client" vmmd >"$work/pid"
}
wait_for 20 vmmd_pid
wait_for 60 test -s "$work/private.out"
kill -9 "$(cat "$work/pid")"
wait "$client"
check "vmctl run reports that vmmd died" test $? -ne 0
boot again idle
check "the next start cleans up after it" nothing_left

"$vmctl" run --name orphan --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" --append quiet \
    >"$work/orphan.out" 2>/dev/null </dev/null &
client=$!
wait_for 60 test -s "$work/orphan.out"
kill -9 $client
wait $client 2>/dev/null
check "a killed vmctl run takes its machine along" wait_for 20 nothing_left
