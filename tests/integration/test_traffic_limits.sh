#!/usr/bin/env bash
# Limits of disks and cards: no stretch of time sees more than the burst and what the rate allows, they
# are changed while the machine runs, and neither deaths nor resets of a device get around them.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

# The guest's own clock is the host's: bytes moved, and no more than BURST + RATE * time.
bounded() { # BYTES RATE BURST NANOSECONDS
    [ "$1" -le $(($3 + $2 * ($4 / 1000) / 1000000)) ] ||
        { echo "    $1 bytes in $4 ns at $2 bytes a second"; false; }
}
now() { date +%s%N; }

daemon_start
truncate -s 32M "$work/a.img" "$work/b.img"
check "a wrong limit is refused" refused usage "burst" "$vmctl" create x --kernel "$guest/vmlinux" \
    --disk "path=$work/a.img,bps-burst=1M"
check "so is an unknown one" refused usage "unknown word" "$vmctl" create x --kernel "$guest/vmlinux" \
    --net user,bips=1M
machine one --cpus 2 --disk "path=$work/a.img,cache=none,bps=2M,bps-burst=1M" --disk "path=$work/b.img" \
    --net user,pps=5K
wait_for 90 answered one 1
check "show has them" sh -c "'$vmctl' show one | grep -q 'a.img (raw, bps=2M,bps-burst=1M)'"
check "so has device list, as numbers" sh -c \
    "'$vmctl' --json device list one | tr -d ' \n' | grep -q '\"bps\":2097152,\"bps-burst\":1048576'"
check "and device limit" test "$("$vmctl" device limit one net0)" = pps=5K

# ---- A rate ----
from=$(now)
ask one 'dd if=/dev/zero of=/dev/vda bs=256k count=16 oflag=direct 2>/dev/null' >/dev/null
check "a disk writes no faster than it may" bounded $((4 << 20)) $((2 << 20)) $((1 << 20)) $(($(now) - from))
from=$(now)
ask one 'dd if=/dev/vda of=/dev/null bs=4k count=768 iflag=direct 2>/dev/null' >/dev/null
check "nor does it read" bounded $((3 << 20)) $((2 << 20)) $((1 << 20)) $(($(now) - from))

# ---- What waits holds up nothing else; changes; deaths ----
"$vmctl" device limit one disk0 bps=256K bps-burst=256K >/dev/null
check "the new one is shown" test "$("$vmctl" device limit one disk0)" = bps=256K,bps-burst=256K
from=$(now)
tell one 'dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null; dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null; dd if=/dev/zero of=/dev/vdb bs=1M count=8 oflag=direct 2>/dev/null; cmp /tmp/data /dev/vda 2>&1 | grep -v EOF; echo end'
for _ in 1 2 3 4 5; do
    sleep 0.3
    kill -9 "$(pid_of one devd/disk0)" 2>/dev/null
    wait_for 30 sh -c "'$vmctl' device list one | grep -q '^disk0 .*running'"
done
check "a new process has the limits of the old one" test "$("$vmctl" device limit one disk0)" = bps=256K,bps-burst=256K
check "a disk that waits answers" sh -c "'$vmctl' disk resize one disk0 48M && '$vmctl' disk resize one disk0 32M --shrink"
written() { # how far the image has been written: direct writes in order
    python3 -c 'import sys; print(len(open(sys.argv[1],"rb").read(2<<20).rstrip(b"\0")))' "$work/a.img"
}
check "deaths give no new bursts" bounded "$(written)" $((256 << 10)) $((256 << 10)) $(($(now) - from))
"$vmctl" device limit one disk0 off >/dev/null
check "without limits it goes on, and all is right" test "$(outcome one)" = end
check "off is off" test "$("$vmctl" device limit one disk0)" = off
check "the disk's process was killed, not given up" sh -c "'$vmctl' device list one | grep -qE '^disk0 .*running *[1-9]'"

# ---- A card ----
python3 - "$work" <<'END' &
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
open(sys.argv[1] + "/port.new", "w").write(str(listener.getsockname()[1]))
os.rename(sys.argv[1] + "/port.new", sys.argv[1] + "/port")
connection, _ = listener.accept()
with open(sys.argv[1] + "/sunk", "wb", 0) as sunk:
    while data := connection.recv(65536):
        sunk.write(data)
END
wait_for 60 test -s "$work/port"
sunk() { # SIZE
    [ "$(stat -c %s "$work/sunk" 2>/dev/null)" = "$1" ]
}
"$vmctl" device limit one net0 off >/dev/null
"$vmctl" device limit one net0 bps-tx=200K bps-tx-burst=100K >/dev/null
from=$(now)
ask one "dd if=/tmp/data bs=64k count=8 2>/dev/null | nc 10.0.2.2 $(cat "$work/port")" >/dev/null
wait_for 60 sunk $((8 * 65536))
check "a card sends no faster than it may" bounded "$(stat -c %s "$work/sunk")" $((200 << 10)) $((100 << 10)) $(($(now) - from))
check "and loses nothing" cmp -n $((8 * 65536)) "$work/sunk" "$work/a.img"

# ---- A machine that does not run ----
end one
"$vmctl" create idle --kernel "$guest/vmlinux" --disk "path=$work/a.img,iops=7" --net user >/dev/null
check "limits of a machine that does not run" "$vmctl" device limit idle disk0 iops=9 iops-write=5
check "are kept" sh -c "'$vmctl' show idle | grep -q 'iops-write=5,iops=9'"
check "a card's too" sh -c "'$vmctl' device limit idle net0 bps=1MB && '$vmctl' show idle | grep -q 'bps=1000000'"
check "there is no other device" refused not-found "serial0" "$vmctl" device limit idle serial0 bps=1M
check "a card has no iops" refused bad-config "unknown word" "$vmctl" device limit idle net0 iops=5
end idle
shells_end
