#!/usr/bin/env bash
# Interrupts of a stock guest: message-signalled ones with a vector a queue, moved from CPU to CPU
# under load, while devices are killed; and the PLIC where that is asked for.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

kills=8 moves=20
slow_build && kills=3 moves=5
web=$(free_port)

up() { # NAME OPTION...: a machine whose shell answers
    append=nodhcp machine "$@" && wait_for 120 answered "$1" 1
}
kill_device() { # NAME ROLE: true when another process took its place
    local pid
    pid=$(pid_of "$1" "$2")
    [ -n "$pid" ] && kill -9 "$pid" && wait_for 20 replaced "$1" "$2" "$pid"
}
count_of() { # NAME COUNTER: of vmctl stats
    "$vmctl" --json stats "$1" | tr -d ' \n' | sed -nE "s/.*\"$2\":([0-9]+).*/\1/p"
}
clean_dmesg() { # NAME
    ! ask "$1" 'dmesg | grep -iE "virtio|BUG|WARN|nobody cared|lockup|unexpected|imsic.*fail|vector not found" | grep -vE "input: |enabling device|virtio_blk virtio[0-9]: "'
}
has() { # TEXT PATTERN COUNT: that many lines match
    [ "$(grep -cE "$2" <<<"$1")" -eq "$3" ]
}

daemon_start
truncate -s 16M "$work/disk.img"
head -c 4M /dev/urandom >"$work/data"
dd if="$work/data" of="$work/disk.img" conv=notrunc status=none
sum=$(head -c 4M "$work/disk.img" | sha256sum | cut -d' ' -f1)

(cd "$work" && exec python3 -u -m http.server --bind 127.0.0.1 "$web" >"$work/http.log" 2>&1) &
holders+=($!)
disown $!

# ---- Four CPUs, a card with four pairs of queues ----

check "a machine with messages is up" \
    up many --cpus 4 --net user,queues=4 --disk "path=$work/disk.img,format=raw" --machine irqchip=aia
interrupts=$(ask many 'cat /proc/interrupts')
check "wired devices come by the APLIC" has "$interrupts" 'APLIC-MSI.*ttyS0' 1
check "nothing comes by a PLIC or INTx" has "$interrupts" 'SiFive PLIC|APLIC-MSI.* virtio' 0
check "each receive queue has a vector" has "$interrupts" 'PCI-MSIX.*virtio[0-9]+-input\.[0-3]$' 4
check "each send queue has one" has "$interrupts" 'PCI-MSIX.*virtio[0-9]+-output\.[0-3]$' 4
check "the disk's queues have some, too" has "$interrupts" 'PCI-MSIX.*virtio[0-9]+-req\.' "$(
    ask many 'ls -1d /sys/block/vda/mq/*' | wc -l)"
check "so has the configuration of each that has a driver" has "$interrupts" 'PCI-MSIX.*virtio[0-9]+-config' "$(
    ask many 'ls -1d /sys/bus/virtio/devices/*/driver' | wc -l)"
check "processors have Ssaia" ask many 'grep -q _ssaia /proc/cpuinfo'
ipis() {
    ask many 'cat /proc/interrupts' | awk '/IPI[01]:/ { for (i = 2; i <= 5; i++) n += $i } END { print n + 0 }'
}
before=$(ipis)
ask many 'for i in 1 2 3 4 5 6 7 8; do (i=0; while [ $i -lt 30 ]; do /bin/true; i=$((i+1)); done) & done; wait' >/dev/null
check "processors interrupt each other" test "$(ipis)" -gt "$before"
ask many 'ip address add 10.0.2.15/24 dev eth0; ip link set eth0 up' >/dev/null
# One after the other: answers that come together are one interrupt.
ask many 'pings() { p=0; while [ $p -lt $1 ] && ping -c 1 -W 60 10.0.2.2 >/dev/null; do p=$((p+1)); done; [ $p -eq $1 ]; }' >/dev/null
messages=$(count_of many device_messages)
check "the network works" ask many 'pings 20'
check "by messages, which vmctl stats counts" test "$(count_of many device_messages)" -gt "$((messages + 10))"
check "and kicks" test "$(count_of many kicks)" -gt 20
check "processors got those and each other's" \
    test "$(count_of many messages)" -gt "$(count_of many device_messages)"

# ---- Affinity ----

# (Linux manages that of a disk's queues itself, so it is the card's that is moved.)
ask many "irq_of() { sed -n \"s/^ *\\([0-9]*\\):.*\$1\\\$/\\1/p\" /proc/interrupts; }" >/dev/null
ask many "per_cpu() { sed -n \"s/^ *\$1: *\\([0-9 ]*[0-9]\\) *PCI.*/\\1/p\" /proc/interrupts; }" >/dev/null
ask many 'for q in 0 1 2 3; do eval "in$q=$(irq_of input.$q) out$q=$(irq_of output.$q)"; done; good=0' >/dev/null
# What the four receive queues' interrupts come to on one processor.
ask many 'arrived() { n=0; for i in $in0 $in1 $in2 $in3; do set -- $1 $(per_cpu $i); shift $1; n=$((n+$1)); shift $#; set -- $c; done; }' >/dev/null
for cpu in 0 1 2 3; do
    ask many "c=$((cpu + 1)); for i in \$in0 \$in1 \$in2 \$in3; do echo $((1 << cpu)) >/proc/irq/\$i/smp_affinity; done; pings 3; arrived \$c; old=\$n; pings 20; arrived \$c; [ \$n -ge \$((old+10)) ] && good=\$((good+1))" >/dev/null
done
check "interrupts follow their affinity to each of four processors" ask many '[ $good -eq 4 ]'
tell many "(i=0; moved=0; while [ \$i -lt $moves ]; do for q in \$in0 \$in1 \$in2 \$in3 \$out0 \$out1 \$out2 \$out3; do echo \$((1 << (i % 4))) 2>/dev/null >/proc/irq/\$q/smp_affinity && moved=\$((moved+1)); done; i=\$((i+1)); done; [ \$moved -gt $((moves * 2)) ] && echo moved) & (j=0; while [ \$j -lt 6 ]; do wget -q -O - http://10.0.2.2:$web/data | sha256sum; j=\$((j+1)); done) | sort | uniq -c; wait"
load=$(outcome many)
check "they move under load" has "$load" '^moved$' 1
check "and nothing gets lost" has "$load" "^ *6 $sum" 1

# ---- Devices die ----

tell many "(j=0; while [ \$j -lt $((kills * 4)) ]; do dd if=/dev/vda bs=64k count=64 iflag=direct 2>/dev/null | sha256sum; j=\$((j+1)); done) | sort | uniq -c"
replaced=0
for _ in $(seq $kills); do
    kill_device many devd/disk0 && replaced=$((replaced + 1))
    sleep 0.$((RANDOM % 3))
done
check "$kills killed disk processes are replaced" test $replaced -eq $kills
load=$(outcome many)
check "the load ended right: no message was lost" test "$(tr -s ' ' <<<"$load")" = " $((kills * 4)) $sum -"
replaced=0
for _ in 1 2 3; do
    kill_device many devd/net0 && replaced=$((replaced + 1))
done
check "so are the card's" test $replaced -eq 3
check "the network goes on" ask many 'ping -c 3 -W 5 10.0.2.2 >/dev/null'
check "the kernel has nothing to complain of" clean_dmesg many
end many

# ---- Which controllers a machine has ----

check "a machine with a PLIC is up" up plain --disk "path=$work/disk.img,format=raw" --machine irqchip=plic
interrupts=$(ask plain 'cat /proc/interrupts')
check "its devices come by the PLIC" has "$interrupts" 'PLIC.*(ttyS0|virtio|rtc)' "$(grep -c PLIC <<<"$interrupts")"
check "no message is sent" has "$interrupts" 'MSI' 0
check "nor counted" test "$(count_of plain messages)" -eq 0
check "its kicks and interrupts are" test "$(count_of plain kicks)" -gt 0 -a "$(count_of plain device_interrupts)" -gt 0
check "its disk works" test "$(ask plain 'dd if=/dev/vda bs=64k count=64 2>/dev/null | sha256sum')" = "$sum  -"
end plain
check "a machine of one CPU, left to itself, is up" up single --disk "path=$work/disk.img,format=raw"
interrupts=$(ask single 'cat /proc/interrupts')
check "this kernel gets messages" has "$interrupts" 'PCI-MSIX.*virtio[0-9]+-req' 1
check "its disk works, too" test "$(ask single 'dd if=/dev/vda bs=64k count=64 2>/dev/null | sha256sum')" = "$sum  -"
before=$(answers single)
echo 'reboot -f' >"$work/single.in"
check "and after a reset" wait_for 120 answered single $((before + 1))
check "its disk works again" test "$(ask single 'dd if=/dev/vda bs=64k count=64 2>/dev/null | sha256sum')" = "$sum  -"
end single
check "firmware has no messages" refused bad-config . "$vmctl" create both --firmware "$guest/vmlinux" --machine irqchip=aia

shells_end
