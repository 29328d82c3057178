#!/usr/bin/env bash
# A guest whose kernel panics: an event, and the machine's end if that is wanted; also when the console's process
# dies at the same time.
. "$(dirname "$0")/lib.sh"

answers() { tr -d '\r' <"$work/out" 2>/dev/null | grep -c '^status '; }
answered() { [ "$(answers)" -ge "$1" ]; }
ask() { # COMMAND: its status
    local count=$(($(answers) + 1))
    echo "$1" >"$work/in"
    wait_for 240 answered "$count" || return 99
    tr -d '\r' <"$work/out" | grep '^status ' | sed -n "${count}s/status //p" | grep -qx 0
}
told() { grep -q "guest-panic.*$1" "$work/events"; }
shown() { "$vmctl" show --json goes-on | tr -d '\n' | grep -q "$1"; }
kill_console() {
    kill -9 "$("$vmctl" --json show goes-on | tr -d ' \n' |
        sed -nE 's/.*"role":"devd\/serial0","pid":([0-9]+).*/\1/p;t
            s/.*"pid":([0-9]+),"role":"devd\/serial0".*/\1/p')"
}

# Without a root file system.
"$vmctl" run --name ends --arch riscv64 --kernel "$guest/vmlinux" --memory 192M --append "quiet panic=0" \
    </dev/null >"$work/ends.out" 2>"$work/ends.err" &
ends=$!

daemon_start
events_begin "$work/events"
mkfifo "$work/in"
sleep 10000 >"$work/in" 2>/dev/null &
holder=$!
"$vmctl" create goes-on --on-panic report --arch riscv64 --kernel "$guest/vmlinux" --memory 192M --initrd "$guest/test-initrd.cpio.gz" \
    --console-port screen,console --console-port data --append "quiet script=commands panic=0" >/dev/null && "$vmctl" start goes-on >/dev/null
"$vmctl" console goes-on <"$work/in" >"$work/out" 2>/dev/null &
wait_for 240 answered 1
ask "echo Kernel panic - not syncing: not at all"
check "whoever writes to the console can say that the kernel panicked" wait_for 60 told "not at all"
ask "echo Kernel panic - not syncing: on a port >/dev/hvc1"
check "on any of its terminals" wait_for 60 told "on a port"
kill_console
echo "echo c >/proc/sysrq-trigger" >"$work/in"
check "when it does there is an event, though the console's process dies" wait_for 120 told "sysrq triggered crash"
kill_console
check "the machine tells of it" wait_for 60 shown '"guest_panic": "sysrq triggered crash"'
check "and how often it was" shown '"guest_panics": 3'
check "it runs on: it was not to be stopped" shown '"state": "running"'
check "each is told once" test "$(grep -c guest-panic "$work/events")" = 3

wait $ends
check "vmctl run without a terminal ends then, with the guest's failure" test $? -eq 20
check "and says why" grep -q "panicked: VFS: Unable to mount root fs.*guest-failure" "$work/ends.err"
check "after all that the kernel had to say" grep -q -- "---\[ end Kernel panic" "$work/ends.out"
check "nothing else can be wanted" sh -c "! '$vmctl' create x --kernel '$guest/vmlinux' --on-panic dance 2>/dev/null"
"$vmctl" kill goes-on >/dev/null
"$vmctl" rm goes-on
kill $holder $listener 2>/dev/null
