#!/usr/bin/env bash
# A guest's network: user networking both ways, links between machines, cards whose process is
# killed meanwhile. What is transferred is compared by checksum.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

# More with NET_KILLS=200 NET_STOPS=20.
mib=4 kills=${NET_KILLS:-20} stops=${NET_STOPS:-1}
slow_build && mib=1 kills=4 stops=1
data=$work/data
head -c "${mib}M" /dev/urandom >"$data"
sum=$(sha256sum <"$data" | cut -d' ' -f1)

listening() { # PORT: somebody of the host does, by TCP and IPv4
    grep -qE ": [0-9A-F]{8}:$(printf %04X "$1") 0{8}:0000 0A " /proc/net/tcp
}
kill_card() { # NAME: its network card's process; true when another one took its place
    local pid
    pid=$(pid_of "$1" devd/net0)
    [ -n "$pid" ] && kill -9 "$pid" && wait_for 10 replaced "$1" devd/net0 "$pid"
}
stop_card() { # NAME: the same by hanging
    local pid
    pid=$(pid_of "$1" devd/net0)
    [ -n "$pid" ] && kill -STOP "$pid" && wait_for 30 replaced "$1" devd/net0 "$pid"
}
sum_is() { # OUTPUT: of sha256sum
    case $1 in "$sum"*) true ;; *) echo "    got: $1"; false ;; esac
}
clean_dmesg() { # NAME
    ! ask "$1" 'dmesg | grep -iE "virtio|net eth|BUG|not a head|lockup|unexpected" | grep -vE "input: |enabling device"'
}

daemon_start

# ---- User networking ----

web=$(free_port) tcp=$(free_port) udp=$(free_port) tcp6=$(free_port) udp6=$(free_port)
(cd "$work" && exec python3 -u -m http.server --bind 127.0.0.1 "$web" >"$work/http.log" 2>&1) &
holders+=($!)
disown $!
wait_for 60 listening "$web"
machine user --net "user,hostfwd=tcp:127.0.0.1:$tcp-:80,hostfwd=udp:127.0.0.1:$udp-:9,hostfwd=tcp:[::1]:$tcp6-:80,hostfwd=udp:[::1]:$udp6-:9"
check "the guest is up" wait_for 120 answered user 1
check "it got its address by DHCP" sh -c "echo '$(ask user 'ip -4 address show eth0')' | grep -q 'inet 10.0.2.15/24'"
check "and a route and a name server" \
    sh -c "echo '$(ask user 'ip route; cat /etc/resolv.conf')' | tr '\n' ' ' | grep -q 'via 10.0.2.2 .*nameserver 10.0.2.3'"
check "it reaches the host" ask user 'ping -c 2 -W 5 10.0.2.2 >/dev/null'
check "$mib MiB come from a server on the host" \
    sum_is "$(ask user "wget -q -O - http://10.0.2.2:$web/data | sha256sum")"

ask user 'mkdir /tmp/www; httpd -p 80 -h /tmp/www' >/dev/null
ask user "wget -q -O /tmp/www/data http://10.0.2.2:$web/data"
from_guest() { # URL: its checksum
    python3 - "$1" <<'END'
import hashlib, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(hashlib.sha256(opener.open(sys.argv[1], timeout=400).read()).hexdigest())
END
}
check "$mib MiB go out by a forwarded port" sum_is "$(from_guest "http://127.0.0.1:$tcp/data")"
has_ip6() {
    ask user 'ip -6 address show eth0' | grep -q 'inet6 fec0'
}
check "the guest has an IPv6 address" wait_for 30 has_ip6
check "a port of the host's IPv6 leads to the guest's" sum_is "$(from_guest "http://[::1]:$tcp6/data")"

# Its name server is the host's, where that has one that answers at all.
cat >"$work/names.py" <<'END'
import re, socket, sys
servers = re.findall(r"^nameserver\s+([0-9.]+)\s*$", open("/etc/resolv.conf").read(), re.M)
if not servers:
    sys.exit(1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x04none\x07invalid\0\0\x01\0\x01", (servers[0], 53))
sys.exit(0 if s.recv(4096)[:2] == b"\x12\x34" else 1)
END
if python3 "$work/names.py" 2>/dev/null; then
    names=$(ask user 'nslookup none.invalid 10.0.2.3 2>&1')
    check "the guest's name server answers" sh -c "echo '$(tr -d "'" <<<"$names")' | grep -qi 'cant find\|name:\|refused'"
else
    echo "skip - the guest's name server (the host has none that answers)"
fi

# A datagram there and back, large enough to be cut in pieces on the guest's side.
cat >"$work/datagram.py" <<'END'
import os, socket, sys
host, port, size = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
data = os.urandom(int(size))
for _ in range(240):
    s.sendto(data, (host, int(port)))
    try:
        sys.exit(0 if s.recv(65536) == data else 1)
    except TimeoutError:
        pass
sys.exit(1)
END
# (It serves again and again: what the host said twice because the answer came late is no harm then.)
ask user '(while :; do datagram 9; done >/dev/null 2>&1 &)' >/dev/null
for bytes in 6 1472 1473 9000; do
    check "a datagram of $bytes bytes goes there and back by a forwarded UDP port" \
        python3 "$work/datagram.py" 127.0.0.1 "$udp" $bytes
done
for bytes in 6 1400; do # libslirp does not join what the guest cuts
    check "one of $bytes bytes also by IPv6" python3 "$work/datagram.py" ::1 "$udp6" $bytes
done

# The other direction of data, by the guest's own connection: the host listens.
sink=$(free_port)
socat -u "TCP4-LISTEN:$sink,bind=127.0.0.1" "CREATE:$work/sunk" &
sinker=$!
wait_for 60 listening "$sink"
ask user "nc 10.0.2.2 $sink </tmp/www/data"
wait $sinker
check "$mib MiB go to a server on the host" sum_is "$(sha256sum <"$work/sunk")"

# Its process dies: the interface, its address and new connections go on.
replaced=0
for _ in $(seq 3); do
    kill_card user && replaced=$((replaced + 1))
done
check "its process is replaced three times" test $replaced -eq 3
check "the guest still has its address" sh -c "echo '$(ask user 'ip -4 address show eth0')' | grep -q 'inet 10.0.2.15/24'"
check "a new connection works" sum_is "$(ask user "wget -q -O - http://10.0.2.2:$web/data | sha256sum")"
check "so does a forwarded port" sum_is "$(from_guest "http://127.0.0.1:$tcp/data")"
check "and a renewal of the lease" ask user 'udhcpc -q -n -i eth0 -r 10.0.2.15 >/dev/null 2>&1'
check "the guest's kernel has nothing to complain of" clean_dmesg user

# ---- Several queues, a larger MTU, and the cable ----

append=nodhcp machine many --cpus 2 --net user,queues=2,mtu=9000,mac=52:54:00:12:34:56 --net user
check "a machine with two cards is up" wait_for 120 answered many 1
check "the card has the address and MTU it was given" \
    sh -c "echo '$(ask many 'ip link show eth0')' | tr '\n' ' ' | grep -q 'mtu 9000 .*52:54:00:12:34:56'"
check "and two pairs of queues" test "$(ask many 'ls -d /sys/class/net/eth0/queues/?x-* | wc -l')" = 4
check "there is a second card" ask many 'test -e /sys/class/net/eth1'
ask many 'ip address add 10.0.2.15/24 dev eth0; ip link set eth0 up' >/dev/null
check "it works" ask many 'ping -c 2 -W 5 10.0.2.2 >/dev/null'
check "vmctl show lists the cards" sh -c "'$vmctl' show many | grep -q 'user,mac=52:54:00:12:34:56,mtu=9000,queues=2'"
carrier_is() { # 0 or 1
    [ "$(ask many 'cat /sys/class/net/eth0/carrier')" = "$1" ]
}
check "the cable is pulled" "$vmctl" link many net0 down
check "the guest notices" wait_for 20 carrier_is 0
check "show says so" sh -c "'$vmctl' show many | grep -q 'net0.*down'"
kill_card many
check "it stays pulled when the process is replaced" carrier_is 0
check "the cable is plugged in again" "$vmctl" link many net0 up
check "the guest notices that, too" wait_for 20 carrier_is 1
check "and the network goes on" ask many 'ping -c 2 -W 5 10.0.2.2 >/dev/null'
check "a card that is not there" sh -c "! '$vmctl' link many net7 up 2>/dev/null"
end many
end user

# ---- A link between two machines ----

append=nodhcp machine left --net "link,path=$work/cable"
append=nodhcp machine right --net "link,path=$work/cable"
wait_for 120 answered left 1
wait_for 120 answered right 1
"$vmctl" create third --kernel "$guest/vmlinux" --net "link,path=$work/cable" >/dev/null
third=$("$vmctl" start third 2>&1)
check "a third machine finds no end of the link" sh -c "echo '$third' | grep -q 'has two ends already.*in-use'"
ask left 'ip address add 192.168.7.1/24 dev eth0; ip link set eth0 up' >/dev/null
ask right 'ip address add 192.168.7.2/24 dev eth0; ip link set eth0 up' >/dev/null
check "two linked machines reach each other" ask left 'ping -c 3 -W 5 192.168.7.2 >/dev/null'
ask left "dd if=/dev/urandom of=/tmp/data bs=1M count=$((mib * 4)) 2>/dev/null; httpd -p 80 -h /tmp"
guest_sum=$(ask left 'sha256sum </tmp/data')
far_sum=$(ask right 'wget -q -O - http://192.168.7.1/data | sha256sum')
check "$((mib * 4)) MiB cross the link" test -n "$far_sum" -a "$far_sum" = "$guest_sum"

# The same again and again, while both ends' processes are killed in turn.
tell right 'until wget -q -O /dev/null http://192.168.7.1/enough 2>/dev/null; do wget -q -O - http://192.168.7.1/data | sha256sum; done | sort -u'
replaced=0
for i in $(seq $kills); do
    if [ $((i % 2)) -eq 0 ]; then kill_card left; else kill_card right; fi && replaced=$((replaced + 1))
    sleep 0.$((RANDOM % 5))
done
check "$kills killed processes are replaced" test $replaced -eq $kills
stopped=0
for i in $(seq "$stops"); do
    if [ $((i % 2)) -eq 0 ]; then stop_card left; else stop_card right; fi && stopped=$((stopped + 1))
done
check "$stops that hang are found and replaced" test $stopped -eq "$stops"
check "while data crossed the link" test "$(answers right)" -lt "$asked"
: "$(ask left 'echo enough >/tmp/enough')" # in a shell of its own: what was told last is the right one's
far_sum=$(outcome right)
check "all that crossed the link meanwhile is right" test "$far_sum" = "$guest_sum"
check "the left guest's kernel has nothing to complain of" clean_dmesg left
check "nor has the right one's" clean_dmesg right

# One machine ends: the other's cable has no other end, until there is one again.
carrier() { # NAME 0|1
    [ "$(ask "$1" 'cat /sys/class/net/eth0/carrier')" = "$2" ]
}
"$vmctl" kill right >/dev/null
check "when one machine ends, the other has no carrier" wait_for 20 carrier left 0
"$vmctl" start right >/dev/null
check "when it is back, the carrier is" wait_for 60 carrier left 1
end third
end left
end right
check "nothing is left of the link" test ! -e "$work/cable" -a ! -e "$work/cable.lock"

# ---- A tap, where this user may make one ----

tap=pvt$$
if ip tuntap add "$tap" mode tap 2>/dev/null; then
    ip address add 192.168.213.1/24 dev "$tap" && ip link set "$tap" up
    append=nodhcp machine tapped --net "tap,ifname=$tap"
    wait_for 120 answered tapped 1
    ask tapped 'ip address add 192.168.213.2/24 dev eth0; ip link set eth0 up' >/dev/null
    check "the host answers on a tap" ask tapped 'ping -c 3 -W 5 192.168.213.1 >/dev/null'
    second=$("$vmctl" create rival --kernel "$guest/vmlinux" --net "tap,ifname=$tap" 2>&1)
    check "a second machine cannot have it" sh -c "echo '$second' | grep -q in-use"
    port=$(free_port)
    (cd "$work" && exec python3 -u -m http.server --bind 192.168.213.1 "$port" >>"$work/http.log" 2>&1) &
    holders+=($!)
    wait_for 60 listening "$port"
    tell tapped "wget -q -O - http://192.168.213.1:$port/data | sha256sum"
    kill_card tapped
    check "$mib MiB come by the tap, whose process is killed meanwhile" sum_is "$(outcome tapped)"
    end tapped
    ip link delete "$tap"
else
    echo "skip - a tap (this user may not make one)"
fi

# ---- What cannot be ----

card_refused() { # NAME CODE PATTERN OPTION...
    local name=$1 code=$2 pattern=$3
    shift 3
    check "$name" refused "$code" "$pattern" "$vmctl" create refused --kernel "$guest/vmlinux" "$@"
    "$vmctl" rm refused >/dev/null 2>&1
}
card_refused "a port that is in use" in-use "TCP port 127.0.0.1:$web is in use" --net "user,hostfwd=tcp:127.0.0.1:$web-:80"
card_refused "an address of another host" bad-config 'no address of this host' --net user,hostfwd=tcp:203.0.113.9:8080-:80
card_refused "an interface that is not there" bad-config "no interface 'pvnone'" --net tap,ifname=pvnone
card_refused "an unknown kind" usage "unknown kind of network 'bridge'" --net bridge
card_refused "a group's address" usage "group's address" --net user,mac=01:00:5e:00:00:01
"$vmctl" create nowhere --kernel "$guest/vmlinux" --net "link,path=$work/none/cable" >/dev/null
check "a link in a folder that is not there" sh -c "'$vmctl' start nowhere 2>&1 | grep -q 'cannot make link.*bad-config'"
end nowhere

kill "${holders[@]}" 2>/dev/null
