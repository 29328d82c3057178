#!/usr/bin/env bash
# Sockets between guest and host: both directions, many at once, refusals, and the death of the device.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

mib=4 many=20 kills=${KILLS:-10}
slow_build && mib=1 many=5 kills=3
data=$work/data socket=$work/v.sock
head -c "${mib}M" /dev/urandom >"$data"
head -c 64K /dev/urandom >"$work/small"
peer() { timeout 600 python3 "$top/tests/integration/vsock_peer.py" "$@"; }


daemon_start
machine m --vsock "path=$socket,cid=7" && ok "a machine with a vsock starts" || { not_ok "a machine with a vsock starts"; exit; }
wait_for 120 answered m 1
check "its driver loads" ask m "load-modules vsock"
ask m "(vsock echo 1000 &) 2>/dev/null" >/dev/null
check "a program of the guest listens" wait_for 60 peer echo "$socket" 1000 "$work/small"

check "the host connects, $mib MiB come back" peer echo "$socket" 1000 "$data"
check "$many connections at once" peer echo "$socket" 1000 "$work/small" "$many"
turned_away() { [ "$(peer greet "$socket" "$1")" = "b''" ]; }
check "a port that nobody listens on is refused" turned_away $'CONNECT 1001\n'
check "a greeting that makes no sense is refused" turned_away $'HELLO\n'
check "a number that is none is refused" turned_away $'CONNECT 99999999999999999999\n'
check "an endless greeting is refused" turned_away "CONNECT 00000000000000000000000000000000000000001"

timeout 600 python3 "$top/tests/integration/vsock_peer.py" serve "${socket}_77" & # no function: it is killed at the end
server=$!
wait_for 10 test -S "${socket}_77"
sum=$(ask m "head -c 3000000 /dev/urandom >/tmp/f; vsock send 77 </tmp/f >/tmp/g; cmp /tmp/f /tmp/g && echo same")
check "the guest connects, 3 MB come back" test "$sum" = same
check "where nobody listens it is refused" test "$(ask m "vsock send 78 </dev/null; echo \$?")" != 0

# The device's death ends connections, and nothing else.
peer hold "$socket" 1000 >"$work/hold" &
hold=$!
wait_for 20 grep -q ready "$work/hold"
pid=$(pid_of m devd/vsock0)
kill -9 "$pid"
check "a killed device is replaced" wait_for 20 replaced m devd/vsock0 "$pid"
check "a connection through it ends" wait "$hold"
check "new connections work" peer echo "$socket" 1000 "$work/small"
check "also from the guest" test "$(ask m "vsock send 77 </tmp/f >/tmp/g; cmp /tmp/f /tmp/g && echo same")" = same
killed=0
for ((i = 0; i < kills; i++)); do
    peer echo "$socket" 1000 "$data" >/dev/null 2>&1 &
    load=$!
    pid=$(pid_of m devd/vsock0)
    kill -9 "$pid" && wait_for 20 replaced m devd/vsock0 "$pid" && killed=$((killed + 1))
    wait "$load"
done
check "$kills times under load" test "$killed" -eq "$kills"
check "and it serves as before" peer echo "$socket" 1000 "$data"
check "the guest's log has no complaint" test -z "$(ask m 'dmesg | grep -iE "vsock|virtio" | grep -iE "error|fail|bug|warn"')"

busy() { "$vmctl" create n --arch riscv64 --kernel "$guest/vmlinux" --vsock "path=$socket" >/dev/null 2>"$work/busy" &&
    ! "$vmctl" start n >>"$work/busy" 2>&1 && grep -q "another machine" "$work/busy"; }
check "a second machine cannot have the same socket" busy
"$vmctl" rm n >/dev/null 2>&1
end m
gone() { [ ! -e "$socket" ]; }
check "the socket goes with the machine" wait_for 10 gone
kill "$server" 2>/dev/null
shells_end
