#!/usr/bin/env bash
# The watchdog: a guest that does not feed it is reset or held, as its owner wants, also when the watchdog's
# process died meanwhile.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

told() { grep -q "$1.*$2" "$work/events"; }
is_in_state() { "$vmctl" --json show "$1" 2>/dev/null | grep -q "\"state\": \"$2\""; }

daemon_start
events_begin "$work/events"
machine held --watchdog sunxi,action=pause && ok "a machine with a watchdog starts" ||
    { not_ok "a machine with a watchdog starts"; exit; }
machine again --watchdog action=reset
wait_for 240 answered held 1
check "a stock driver finds it" ask held "load-modules watchdog && [ -c /dev/watchdog ]"
check "it is fed" ask held "watchdog -F -T 16 -t 1 /dev/watchdog & sleep 1"
wait_for 240 answered again 1
check "in the other machine, too" ask again "load-modules watchdog && watchdog -F -T 16 -t 1 /dev/watchdog & sleep 1"
check "a guest that lives is left alone" sh -c "! grep -q 'watchdog.*fed' '$work/events'"
check "one that does not feed it" ask held "killall -9 watchdog; watchdog -F -T 5 -t 1000 /dev/watchdog & sleep 1"
kill -9 "$(pid_of held devd/watchdog0)"
check "is held, though the watchdog's process died" wait_for 120 told held "it was not fed in time"
check "and is ready to go on" wait_for 60 is_in_state held ready
check "on request" "$vmctl" start held
check "it does" ask held "true"
count=$(answers again)
check "another is reset" ask again "killall -9 watchdog; watchdog -F -T 3 -t 1000 /dev/watchdog & sleep 1"
check "by an event" wait_for 120 told again "is reset"
check "and starts anew" wait_for 240 answered again $((count + 2))
check "without a watchdog that runs" is_in_state again running
mkfifo "$work/ended.in"
sleep 10000 >"$work/ended.in" 2>/dev/null &
holders+=($!)
"$vmctl" run --name ended --arch riscv64 --kernel "$guest/vmlinux" --memory 192M --watchdog action=poweroff \
    --initrd "$guest/test-initrd.cpio.gz" --append "quiet script=commands" \
    <"$work/ended.in" >"$work/ended.out" 2>"$work/ended.err" &
client=$!
wait_for 240 answered ended 1
echo 'load-modules watchdog && watchdog -F -T 2 -t 60 /dev/watchdog' >"$work/ended.in"
wait $client
check "a machine that it ends tells that by its exit status" test $? -eq 20
check "a wrong setting is refused" sh -c "! '$vmctl' create x --kernel '$guest/vmlinux' --watchdog i6300esb,action=reset 2>/dev/null"
end held
end again
shells_end
kill "$listener" 2>/dev/null
