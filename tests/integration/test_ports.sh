#!/usr/bin/env bash
# Several ports of the virtio console, both ways at once, while their process is killed: nothing is lost, nothing
# comes twice, and the guest knows who is there.
. "$(dirname "$0")/lib.sh"

kills=${KILLS:-8}
slow_build && kills=${KILLS:-3}
ports=$top/tests/integration/ports.py
export PYTHONDONTWRITEBYTECODE=1

answers() { tr -d '\r' <"$work/out" 2>/dev/null | grep -c '^status '; }
answered() { [ "$(answers)" -ge "$1" ]; }
ask() { # COMMAND: its status
    local count=$(($(answers) + 1))
    echo "$1" >"$work/in"
    wait_for 240 answered "$count" || return 99
    tr -d '\r' <"$work/out" | grep '^status ' | sed -n "${count}s/status //p" | grep -qx 0
}
field() { # of its device; never 0, which would be a signal for all of us
    field_of "$1" | grep -vx 0
}
field_of() { "$vmctl" --json device list m | tr -d ' \n' | sed 's/},{/\n/g' | grep '"console0"' | sed -nE "s/.*\"$1\":\"?([a-z0-9]+).*/\1/p"; }
size() { stat -c %s "$work/$1.out"; }
grew() { [ "$(size "$1")" -gt "$2" ]; }
back() { [ "$(field state)" = running ] && [ "$(field pid)" != "$1" ]; }
refuses() { ! "$vmctl" create x --kernel "$guest/vmlinux" "$@" >/dev/null 2>&1; }

daemon_start
"$vmctl" create m --arch riscv64 --kernel "$guest/vmlinux" --memory 192M --initrd "$guest/test-initrd.cpio.gz" \
    --append "quiet script=commands" --console-port one --console-port org.test.two --console-port \
    "plain,path=$work/plain.sock" --console-port screen,console >/dev/null && "$vmctl" start m >/dev/null
mkfifo "$work/in"
sleep 10000 >"$work/in" 2>/dev/null &
holders=$!
"$vmctl" console m <"$work/in" >"$work/out" 2>/dev/null &
for port in one org.test.two; do
    python3 "$ports" write "$work/stop" | "$vmctl" console m --port $port >"$work/$port.out" 2>"$work/$port.err" &
    holders="$holders $!"
done
wait_for 240 answered 1 || { not_ok "the guest starts"; exit; }
check "the guest has a port of each name" ask 'cat /sys/class/virtio-ports/*/name >/names; grep -qx one /names && grep -qx org.test.two /names && grep -qx screen /names'
check "two are used both ways" ask 'for n in one org.test.two; do ports both $n /r.$n & done; ports echo plain & true'
check "the bytes of one are on a socket of the host's" test "$(python3 "$ports" talk "$work/plain.sock" "Hello")" = "Hello"
for port in one org.test.two; do
    wait_for 240 grew $port 0
done

for i in $(seq "$kills"); do
    pid=$(field pid)
    before=$(size one) other=$(size org.test.two)
    kill -9 "$pid"
    wait_for 60 back "$pid" || not_ok "the process is back after kill $i"
    # Both go on before the next one.
    wait_for 120 grew one "$before" && wait_for 120 grew org.test.two "$other" || not_ok "the ports go on after kill $i"
done
touch "$work/stop"
check "the guest gets what the host wrote: nothing is lost, nothing twice" ask 'while [ ! -s /r.one ] || [ ! -s /r.org.test.two ]; do sleep 0.2; done; cat /r.*; grep -q ^good: /r.one && grep -q ^good: /r.org.test.two'
for port in one org.test.two; do
    ended() { tail -c 4 "$work/$port.out" | grep -q end; }
    wait_for 120 ended
    check "the host gets what the guest wrote to $port" python3 "$ports" check "$work/$port.out"
done
grep lines "$work/out" | tail -2
check "the socket is the same after the kills" test "$(python3 "$ports" talk "$work/plain.sock" "Again")" = "Again"

# A terminal.
echo "(while :; do sh -i </dev/hvc1 >/dev/hvc1 2>&1; done) &" >"$work/in"
mkfifo "$work/screen.in"
sleep 10000 >"$work/screen.in" 2>/dev/null &
holders="$holders $!"
"$vmctl" console m --port screen <"$work/screen.in" >"$work/screen.out" 2>/dev/null &
echo 'echo $((6*7))' >"$work/screen.in"
check "a port is a terminal of the guest" wait_for 120 grep -q '^42' "$work/screen.out"
kill -9 "$(field pid)"
echo 'echo $((7*8))' >"$work/screen.in"
check "also after its process died" wait_for 120 grep -q '^56' "$work/screen.out"
check "its guest hears how large the terminal is that looks at it, and when that changes" \
    python3 "$ports" sizes "$vmctl" console m --port screen
ask '(while :; do sh -i </dev/hvc0 >/dev/hvc0 2>&1; done) &'
check "so does that of the main virtio console" python3 "$ports" sizes "$vmctl" console m --device console0
kill -9 "$(field pid)"
check "and a new process still knows" ask 'test "$(stty size </dev/hvc0)" = "7 300" && test "$(stty size </dev/hvc1)" = "7 300"'

check "show names them" sh -c "'$vmctl' show m | grep -q 'Console ports: *one'"
check "a port that is not there is told" sh -c "'$vmctl' console m --port three 2>&1 </dev/null | grep -q 'no console port .three'"
check "two of one name are refused" refuses --console-port a --console-port a
check "so is the name of the first port" refuses --console-port polyvisor.console
check "so are more than five" refuses $(printf -- '--console-port p%s ' 1 2 3 4 5 6)
"$vmctl" kill m >/dev/null
"$vmctl" rm m
check "its socket goes with it" test ! -e "$work/plain.sock"
kill $holders 2>/dev/null
