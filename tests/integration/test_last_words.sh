#!/usr/bin/env bash
# A guest prints much and powers off, its reader is slow, and the process of its console is killed while
# it delivers what is left.
. "$(dirname "$0")/lib.sh"

daemon_start
events_begin "$work/events"
mkfifo "$work/console"
"$vmctl" create box --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
    --append "quiet script=words" --memory 128M >/dev/null && "$vmctl" start box >/dev/null
first=$("$vmctl" --json show box | tr -d ' \n' | sed -nE 's/.*"role":"devd\/serial0","pid":([1-9][0-9]*).*/\1/p;t
    s/.*"pid":([1-9][0-9]*),"role":"devd\/serial0".*/\1/p')
"$vmctl" --quiet console box </dev/null >"$work/console" 2>/dev/null &
exec 9<"$work/console" # and nobody reads

state_is() {
    "$vmctl" show box | grep -q "^State: *$1"
}
died() {
    grep -q "device-died devd/serial0" "$work/events"
}
check "the guest powers off, and its console delivers" wait_for 120 state_is stopping
kill -9 "$first" # before it gives its reader up
tr -d '\r' <&9 >"$work/words"
check "its process dies over that" wait_for 20 died
seq 1 120000 >"$work/expected"
check "every word arrives, once" sh -c "grep -x '[0-9]*' '$work/words' | cmp - '$work/expected'"
check "and the machine ends" wait_for 30 state_is stopped
check "by the guest's power-off" sh -c "'$vmctl' show box | grep -q power-off"
