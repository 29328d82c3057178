#!/usr/bin/env bash
# A stock Debian riscv64 kernel boots, in each way that we promise.
. "$(dirname "$0")/lib.sh"

boots() { # NAME OPTION...: boots to the script's line, exits 0, leaves nothing
    local name=$1 status=0
    shift
    boot "$name" idle "$@" || status=$?
    if [ $status -eq 0 ] && grep -q '^guest up' "$work/$name.out" && nothing_left; then
        ok "boot $name"
    else
        not_ok "boot $name" "exit status $status" "$(tail -n 20 "$work/$name.out")" \
            "$(tail -n 5 "$work/$name.err")" "left: $(our_processes) $(find "$work/run" 2>/dev/null)"
    fi
}

boots plain --cpus 1
boots interp --engine interp --cpus 1
boots four-harts --cpus 4
check "all four harts come up" grep -q 'smp: Brought up 1 node, 4 CPUs' <(
    boot harts idle --cpus 4 --append "script=idle" && cat "$work/harts.out")
# The guest's OpenSBI, not this host's: 1.1 may start a second hart at the wrong address
# (docs/design/machine-riscv64.md). One hart boots with any.
opensbi=usr/lib/riscv64-linux-gnu/opensbi/generic
boots opensbi-dynamic --cpus 2 --firmware "$guest/root/$opensbi/fw_dynamic.bin"
check "OpenSBI spoke" grep -q 'OpenSBI v' "$work/opensbi-dynamic.out"
boots opensbi-jump --cpus 2 --firmware "$guest/root/$opensbi/fw_jump.bin"
boots opensbi-host --cpus 1 --firmware "/$opensbi/fw_jump.bin"

# OpenSBI hands on to U-Boot, which finds the kernel on a partition of a virtio disk.
uboot_disk() { # IMAGE: one bootable partition of 127 MiB at 1 MiB, with an extlinux configuration
    local root=$work/uboot
    mkdir -p "$root/boot/extlinux"
    cp "$guest/vmlinux" "$guest/test-initrd.cpio.gz" "$root/boot/"
    printf '%s\n' 'default linux' 'timeout 1' 'label linux' '    kernel /boot/vmlinux' \
        '    initrd /boot/test-initrd.cpio.gz' '    append quiet script=idle' \
        >"$root/boot/extlinux/extlinux.conf"
    truncate -s 127M "$work/partition.img"
    mke2fs -q -F -t ext4 -d "$root" "$work/partition.img"
    truncate -s 1M "$1"
    cat "$work/partition.img" >>"$1"
    # A boot record: active, type 0x83, from sector 2048, 260096 sectors.
    printf '\200\376\377\377\203\376\377\377\000\010\000\000\000\370\003\000' |
        dd of="$1" bs=1 seek=446 conv=notrunc status=none
    printf '\125\252' | dd of="$1" bs=1 seek=510 conv=notrunc status=none
    rm -rf "$root" "$work/partition.img"
}
uboot_disk "$work/uboot.img"
"$vmctl" run --name uboot --firmware /usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin \
    --kernel /usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin --disk "path=$work/uboot.img" \
    >"$work/uboot.out" 2>"$work/uboot.err" </dev/null &
uboot=$!
check "U-Boot hands on to the kernel" wait_for 120 grep -q '^guest up' "$work/uboot.out"
kill -0 $uboot 2>/dev/null && wait_for 20 test ! -e "/proc/$uboot"
kill $uboot 2>/dev/null
wait $uboot
check "and the machine powers off" test $? -eq 0

# The console's bytes are the guest's, no more and no less: a known text of 300 KB comes out whole,
# and what is fed to standard input reaches the guest.
# (As on hardware, what arrives while the guest opens its port may be cleared: empty lines first.)
printf '\n\n\n\n\n\n\n\necho pol""yvisor-typed; stty sane; sleep 1; poweroff -f\n' | "$vmctl" run --name typed --kernel "$guest/vmlinux" \
    --initrd "$guest/initrd.cpio.gz" --append quiet >"$work/typed.out" 2>/dev/null
check "standard input is fed to the guest" grep -q '^polyvisor-typed' "$work/typed.out"
