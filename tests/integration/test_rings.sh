#!/usr/bin/env bash
# A stock guest with packed and with split rings: what goes through is right while the disk's process is
# killed, and while ethtool makes the network card's rings smaller and larger under load.
. "$(dirname "$0")/lib.sh"

mib=4 rounds=4 kills=5
slow_build && mib=1 rounds=1 kills=2
head -c "${mib}M" /dev/urandom >"$work/data"
sum=$(sha256sum <"$work/data" | cut -d' ' -f1)

answers() { # how many
    tr -d '\r' <"$work/$machine.out" 2>/dev/null | grep -c '^status '
}
answered() { # COUNT
    [ "$(answers)" -ge "$1" ]
}
ask() { # COMMAND: run it in the guest, print its output; its status
    local asked=$(($(answers) + 1))
    echo "$1" >"$work/$machine.in"
    wait_for 240 answered "$asked" || return 99
    tr -d '\r' <"$work/$machine.out" | awk -v n="$asked" '/^status /{c++; if (c == n) {s = $2; exit}; next}
        c == n - 1 {print} END {exit s}'
}
pid_of_disk() {
    "$vmctl" --json show "$machine" | tr -d ' \n' | sed -nE 's/.*"role":"devd\/disk1","pid":([0-9]+).*/\1/p;t
        s/.*"pid":([0-9]+),"role":"devd\/disk1".*/\1/p'
}
disk_replaced() { # PID
    local now
    now=$(pid_of_disk)
    [ -n "$now" ] && [ "$now" != "$1" ]
}
kill_disk() {
    local pid
    pid=$(pid_of_disk)
    [ -n "$pid" ] && kill -9 "$pid" && wait_for 20 disk_replaced "$pid"
}
negotiated() { # PATTERN-OF-DEVICE BIT: its value in the features of each such device, on one line
    ask "for d in $1; do cut -c$(($2 + 1)) \$d/features; done | sort -u | tr '\n' ' '; echo" | tr -d ' '
}

daemon_start
web=$(free_port)
(cd "$work" && exec python3 -u -m http.server --bind 127.0.0.1 "$web" >"$work/http.log" 2>&1) &
holders=($!)

for packed in on off; do
    machine=rings-$packed bit=$([ $packed = on ] && echo 1 || echo 0)
    truncate -s 16M "$work/$machine.img"
    "$vmctl" create "$machine" --arch riscv64 --kernel "$guest/vmlinux" --memory 192M --cpus 2 \
        --initrd "$guest/test-initrd.cpio.gz" --append "quiet script=commands" \
        --disk "path=$guest/fio.img,readonly,packed=$packed" --disk "path=$work/$machine.img,packed=$packed" \
        --net "user,packed=$packed" >/dev/null && "$vmctl" start "$machine" >/dev/null
    : >"$work/$machine.out"
    mkfifo "$work/$machine.in"
    sleep 10000 >"$work/$machine.in" &
    holders+=($!)
    "$vmctl" console "$machine" <"$work/$machine.in" >"$work/$machine.out" 2>/dev/null &
    check "packed=$packed: the guest is up" wait_for 120 answered 1
    ask 'load-modules ext4; mount -t ext4 -o ro /dev/vda /mnt' >/dev/null
    check "packed=$packed: disks use such rings" test "$(negotiated '/sys/block/vd?/device' 34)" = $bit
    check "packed=$packed: so does the card" test "$(negotiated /sys/class/net/eth0/device 34)" = $bit
    check "packed=$packed: all devices take indirect descriptors" test "$(negotiated '/sys/bus/virtio/drivers/*/virtio*' 28)" = 1
    check "packed=$packed: all devices take the event index" test "$(negotiated '/sys/bus/virtio/drivers/*/virtio*' 29)" = 1
    check "packed=$packed: all devices' queues can be reset" test "$(negotiated '/sys/bus/virtio/drivers/*/virtio*' 40)" = 1

    # A disk whose process is killed.
    ask "(for i in \$(seq $((rounds * 3))); do dd if=/dev/urandom of=/tmp/data bs=64k count=32 2>/dev/null; \
        dd if=/tmp/data of=/dev/vdb bs=64k conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; \
        dd if=/dev/vdb bs=64k count=32 2>/dev/null | cmp -s - /tmp/data && echo good || echo BAD; \
        done >/tmp/rounds; echo end >>/tmp/rounds) &" >/dev/null
    replaced=0
    for _ in $(seq $kills); do
        kill_disk && replaced=$((replaced + 1))
        sleep 0.$((RANDOM % 5))
    done
    check "packed=$packed: $kills killed disks are replaced" test $replaced -eq $kills
    got=$(ask 'while ! grep -q end /tmp/rounds; do sleep 1; done; sort /tmp/rounds | uniq -c | tr -s " "' | tr -d '\n')
    check "packed=$packed: what was written is read" test "$got" = " 1 end $((rounds * 3)) good"

    # Rings of another size, under load.
    check "packed=$packed: ethtool sees the rings" \
        sh -c "echo '$(ask 'chroot /mnt /usr/sbin/ethtool -g eth0')' | grep -A4 Current | grep -q 'TX:.*256'"
    ask "(for i in \$(seq $rounds); do wget -q -O - http://10.0.2.2:$web/data | sha256sum; done | \
        sort | uniq -c >/tmp/sums; echo end >>/tmp/sums) &" >/dev/null
    ask "n=0; while ! grep -qs end /tmp/sums || [ \$n -lt 8 ]; do \
        for size in 64 256 32 128; do chroot /mnt /usr/sbin/ethtool -G eth0 rx \$size tx \$size || echo FAILED; \
        n=\$((n + 1)); done; sleep 0.2; done; echo resized \$n times" >"$work/resized"
    check "packed=$packed: the rings change their size while data comes" \
        sh -c "grep -q 'resized [1-9]' '$work/resized' && ! grep -q FAILED '$work/resized'"
    echo "# $(tr -d '\n' <"$work/resized")"
    got=$(ask 'grep -v end /tmp/sums')
    check "packed=$packed: and the data is right" test "$got" = "$(printf '%7d %s  -' $rounds "$sum")"
    check "packed=$packed: ethtool sees the last size" \
        sh -c "echo '$(ask 'chroot /mnt /usr/sbin/ethtool -g eth0')' | grep -A4 Current | grep -q 'TX:.*128'"
    check "packed=$packed: the guest's kernel has nothing to complain of" \
        sh -c "! echo '$(ask 'dmesg')' | tr -d \"'\" | grep -iE 'virtio.*(error|fail|id|broken)|BUG|not a head|lockup|blocked for'"
    "$vmctl" kill "$machine" >/dev/null
    "$vmctl" rm "$machine" >/dev/null
done
kill "${holders[@]}" 2>/dev/null
finish
