#!/usr/bin/env bash
# Disks of a running machine: queues, cache modes, resizing, who may use an image, and what becomes of
# the host's errors: a full file system, an image that shrinks or vanishes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

mounted=() loops=()
clean() {
    local place
    for place in "${loops[@]}"; do losetup -d "$place" 2>/dev/null; done
    for place in "${mounted[@]}"; do umount "$place" 2>/dev/null; done
}
trap 'clean; finish' EXIT

create() { # NAME OPTION...
    local name=$1
    shift
    "$vmctl" create "$name" --kernel "$guest/vmlinux" --memory 160M "$@"
}
told() { # PATTERN: among the events
    grep -qE "$1" "$work/events"
}
asks() { # NAME COMMAND PATTERN
    local said
    said=$(ask "$1" "$2")
    echo "$said" | grep -qE "$3" || { echo "    said: $said"; false; }
}
quiet_kernel() { # NAME: it says nothing of its disks but their sizes
    local said
    said=$(ask "$1" "dmesg | grep -iE 'virtio_blk|vd[a-z]|BUG|I/O error|lockup' | grep -vE 'detected capacity|new size|logical blocks|default/read/poll queues'; echo end")
    [ "$said" = end ] || { echo "    said: $said"; false; }
}

daemon_start
events_begin "$work/events" --json
holders+=("$listener")

# ---- What it is ----
truncate -s 32M "$work/a.img" "$work/b.img" "$work/c.img" "$work/d.img"
machine one --cpus 2 --disk "path=$work/a.img,serial=SERIAL-01" \
    --disk "path=$work/b.img,cache=writethrough,aio=threads,queues=1" --disk "path=$work/c.img,readonly"
wait_for 90 answered one 1
check "a disk has the serial number it was given" asks one 'echo $(cat /sys/block/vda/serial)' 'SERIAL-01'
check "or one of our own" asks one 'echo $(cat /sys/block/vdb/serial)' 'polyvisor-disk1'
check "it has a queue for each processor" asks one 'ls /sys/block/vda/mq | wc -l' '2'
check "or as many as was said" asks one 'ls /sys/block/vdb/mq | wc -l' '1'
check "it can be flushed" asks one 'cat /sys/block/vda/cache_type' 'write back'
check "write-through needs no flush" asks one 'cat /sys/block/vdb/cache_type' 'write through'
check "the guest may choose" asks one 'echo "write through" >/sys/block/vda/cache_type; cat /sys/block/vda/cache_type' \
    'write through'
check "it can be discarded" asks one 'cat /sys/block/vda/queue/discard_max_bytes' '1073741824'
check "zeroes can be written" asks one 'cat /sys/block/vda/queue/write_zeroes_max_bytes' '33554432'
check "it says how large its blocks are" asks one 'cat /sys/block/vda/queue/physical_block_size' '4096'
check "a read-only one is that" asks one 'cat /sys/block/vdc/ro' '1'
check "and is not written" asks one 'dd if=/dev/zero of=/dev/vdc count=1 2>&1 || true' 'not permitted|Read-only|rror'
check "show says how each works" sh -c \
    "'$vmctl' show one | grep -qE 'disk1: file, threads, 1 queue, write-through'"
check "device list has it as JSON" sh -c "'$vmctl' --json device list one | grep -q 'description.*read-only'"

ask one 'dd if=/dev/urandom of=/tmp/data bs=64k count=128 2>/dev/null; dd if=/tmp/data of=/dev/vda bs=64k conv=fsync 2>/dev/null' >/dev/null
used=$(stat -c %b "$work/a.img")
ask one 'blkdiscard -o 0 -l 4194304 /dev/vda' >/dev/null
check "what is discarded is given back to the host" test "$(stat -c %b "$work/a.img")" -lt "$used"

# ---- Size ----
"$vmctl" disk resize one disk0 48M >/dev/null
size_is() { # NAME DISK SECTORS
    asks "$1" "cat /sys/block/$2/size" "^$3\$"
}
check "a disk grows while the guest runs" wait_for 20 size_is one vda 98304
check "so does the image" test "$(stat -c %s "$work/a.img")" -eq $((48 << 20))
check "what is new can be used" asks one \
    'dd if=/tmp/data of=/dev/vda bs=1M seek=40 count=8 conv=fsync 2>/dev/null && echo good' good
check "it does not shrink by mistake" refused bad-config shrink "$vmctl" disk resize one disk0 16M
check "but on purpose" "$vmctl" disk resize one disk0 16M --shrink
check "the guest knows" wait_for 20 size_is one vda 32768
check "a read-only disk keeps its size" sh -c "! '$vmctl' disk resize one disk2 64M 2>/dev/null"
check "there is no other disk" refused not-found "disk9" "$vmctl" disk resize one disk9 64M
check "a size is one" refused usage "no size" "$vmctl" disk resize one disk0 big
kill -9 "$(pid_of one devd/disk0)"
resize() { "$vmctl" disk resize one disk0 64M; }
check "a resize meets the next process, or says that there is none" wait_for 60 resize
check "and holds" wait_for 20 size_is one vda 131072

# ---- Who may use it ----
check "a second machine may not write to it" refused in-use "disk0 of machine 'one'" \
    create two --disk "path=$work/a.img"
check "nor read it" refused in-use "disk0 of machine 'one'" create two --disk "path=$work/a.img,readonly"
check "readers share" create two --disk "path=$work/c.img,readonly"
"$vmctl" rm two >/dev/null
check "one machine has it once" refused in-use "in use" \
    create two --disk "path=$work/d.img" --disk "path=$work/d.img"
: >"$work/locks"
for _ in 1 2 3 4 5 6; do
    kill -9 "$(pid_of one devd/disk0)" 2>/dev/null
    for _ in 1 2 3 4; do
        create two --disk "path=$work/a.img" >/dev/null 2>&1 && echo "taken" >>"$work/locks"
    done
    wait_for 10 sh -c "'$vmctl' device list one | grep -q '^disk0 .*running'"
done
check "the lock outlives the device's process" test ! -s "$work/locks"
if command -v qemu-system-riscv64 >/dev/null; then
    qemu() { # IMAGE: a machine that never runs
        exec timeout 900 qemu-system-riscv64 -M virt -S -display none -monitor none -serial none \
            -drive "file=$1,format=raw,if=none,id=d" -device virtio-blk-pci,drive=d
    }
    check "QEMU sees that it is in use" sh -c "! timeout 300 qemu-system-riscv64 -M virt -S -display none -monitor none \
        -serial none -drive 'file=$work/a.img,format=raw,if=none,id=d' -device virtio-blk-pci,drive=d 2>'$work/qemu' &&
        grep -q 'lock' '$work/qemu'"
    truncate -s 1M "$work/q.img"
    qemu "$work/q.img" &
    peer=$!
    in_qemu() { # has locked it; who tries to have it meanwhile could be in QEMU's way
        grep -q ":$(stat -c %i "$work/q.img") " /proc/locks
    }
    wait_for 60 in_qemu
    check "we see what QEMU uses" refused in-use "qemu-system" create two --disk "path=$work/q.img"
    check "also when we would only read" refused in-use "qemu-system" create two --disk "path=$work/q.img,readonly"
    kill "$peer"
    wait "$peer" 2>/dev/null
fi
check "the guest's kernel has nothing to complain of" quiet_kernel one
end one
check "afterwards it is free" create two --disk "path=$work/a.img"
"$vmctl" rm two >/dev/null

# ---- Images that are no good ----
truncate -s 1M "$work/protected.img"
chmod 444 "$work/protected.img"
check "a read-only image is not opened for writing" refused bad-disk "cannot be written" \
    create two --disk "path=$work/protected.img"
check "but for reading" create two --disk "path=$work/protected.img,readonly"
"$vmctl" rm two >/dev/null
check "an unknown word is refused" refused usage "unknown cache" create two --disk "path=$work/a.img,cache=some"

# ---- An image that becomes shorter, then vanishes ----
machine short --disk "path=$work/a.img" --disk "path=$work/b.img,aio=threads"
wait_for 90 answered short 1
truncate -s 4K "$work/a.img" "$work/b.img"
for disk in vda vdb; do
    check "$disk: what is missing is an I/O error" asks short \
        "dd if=/dev/$disk of=/dev/null bs=4k skip=1000 count=1 iflag=direct 2>&1 || true" 'rror'
    check "$disk: what is left is read" asks short \
        "dd if=/dev/$disk of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && echo good" good
done
rm "$work/b.img"
check "a deleted image goes on to work" asks short \
    'dd if=/dev/zero of=/dev/vdb bs=4k seek=10 count=1 oflag=direct 2>/dev/null && echo good' good
check "an event tells of the error" wait_for 10 told 'disk-error'
check "no process died of it" sh -c "'$vmctl' device list short | grep -E '^disk[01]' | grep -cE 'running *0 ' | grep -q 2"
end short

# ---- A full file system ----
mkdir "$work/small"
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=6m polyvisor-test "$work/small" 2>/dev/null; then
    mounted+=("$work/small")
    truncate -s 32M "$work/small/a.img"
    machine full --disk "path=$work/small/a.img"
    wait_for 90 answered full 1
    check "no space is an I/O error" asks full \
        'dd if=/dev/zero of=/dev/vda bs=1M count=16 oflag=direct 2>&1 || true' 'rror'
    check "that is told" wait_for 10 told 'disk-error.*No space'
    check "the machine goes on" asks full 'echo good' good
    end full

    rm "$work/small/a.img"
    truncate -s 32M "$work/small/a.img"
    head -c 3M /dev/zero >"$work/small/ballast"
    machine waiting --disk "path=$work/small/a.img,werror=enospc"
    wait_for 90 answered waiting 1
    ask waiting 'dd if=/dev/urandom of=/tmp/data bs=64k count=80 2>/dev/null' >/dev/null
    before=$(grep -c 'disk-error' "$work/events")
    tell waiting 'dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>&1; cmp /tmp/data /dev/vda 2>&1'
    more_errors() {
        [ "$(grep -c 'disk-error' "$work/events")" -gt "$before" ]
    }
    check "with werror=enospc the error is told" wait_for 60 more_errors
    check "and the guest waits" sh -c "! '$vmctl' device list waiting | grep -q 'given up'"
    kill -9 "$(pid_of waiting devd/disk0)"
    wait_for 10 sh -c "'$vmctl' device list waiting | grep -q '^disk0 .*running'"
    rm "$work/small/ballast"
    outcome waiting >"$work/waited"
    check "until there is space, whatever died meanwhile" sh -c "! grep -qiE 'rror|differ' '$work/waited'"
    check "which is told, too" wait_for 10 told 'disk-well'
    end waiting

    # A block device, which changes its size and then vanishes below the guest.
    truncate -s 8M "$work/small/loop.img"
    loop=$(losetup -f --show "$work/small/loop.img" 2>/dev/null)
    if [ -n "$loop" ]; then
        loops+=("$loop")
        machine block --disk "path=$loop,cache=none"
        wait_for 90 answered block 1
        check "a block device is a disk" asks block \
            'dd if=/dev/urandom of=/dev/vda bs=64k count=2 conv=fsync 2>/dev/null && echo good' good
        truncate -s 16M "$work/small/loop.img"
        losetup -c "$loop"
        check "its size must be what it has" refused bad-config "16777216" "$vmctl" disk resize block disk0 12M
        check "and then is the guest's" "$vmctl" disk resize block disk0 16M
        check "who sees it" wait_for 20 size_is block vda 32768
        truncate -s 0 "$work/small/loop.img"
        check "when it vanishes there are I/O errors" asks block \
            'dd if=/dev/vda of=/dev/null bs=4k skip=500 count=1 iflag=direct 2>&1 || true' 'rror'
        check "and the machine goes on" asks block 'echo good' good
        end block
        truncate -s 8M "$work/small/loop.img"
        losetup -c "$loop"
        mkdir "$work/mounted"
        if mke2fs -q "$loop" 2>/dev/null && mount "$loop" "$work/mounted"; then
            mounted=("$work/mounted" "${mounted[@]}")
            check "a mounted block device is in use" refused in-use "by the host" create two --disk "path=$loop"
            umount "$work/mounted"
        fi
    fi
else
    echo "# not root, or no tmpfs: a full file system is only imitated (test_device_disk)"
fi
shells_end
