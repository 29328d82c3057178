#!/usr/bin/env bash
# A guest prints much and powers off, its reader is slow, and the process of its console is killed while
# it delivers what is left.
. "$(dirname "$0")/lib.sh"

daemon_start
mkfifo "$work/console"
"$vmctl" create box --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
    --append "quiet script=words" --memory 128M >/dev/null && "$vmctl" start box >/dev/null
"$vmctl" --quiet console box </dev/null >"$work/console" 2>/dev/null &
exec 9<"$work/console" # and nobody reads

state_is() {
    "$vmctl" show box | grep -q "^State: *$1"
}
console_process() {
    pgrep -f "^devd .*$work/run/vms/box/serial0[.](next[.])?sock"
}
is_replaced() { # PID
    local now
    now=$(console_process)
    [ -n "$now" ] && [ "$now" != "$1" ]
}
check "the guest powers off, and its console delivers" wait_for 120 state_is stopping
wait_for 5 test -n "$(console_process)"
first=$(console_process)
kill -9 "$first"
check "its process is replaced even now" wait_for 20 is_replaced "$first"
tr -d '\r' <&9 >"$work/words"
seq 1 120000 >"$work/expected"
check "every word arrives, once" sh -c "grep -x '[0-9]*' '$work/words' | cmp - '$work/expected'"
check "and the machine ends" wait_for 30 state_is stopped
check "by the guest's power-off" sh -c "'$vmctl' show box | grep -q power-off"
