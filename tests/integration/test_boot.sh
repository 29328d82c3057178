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
boots opensbi-dynamic --cpus 2 --firmware /usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin
check "OpenSBI spoke" grep -q 'OpenSBI v' "$work/opensbi-dynamic.out"
boots opensbi-jump --cpus 2 --firmware /usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin

# The console's bytes are the guest's, no more and no less: a known text of 300 KB comes out whole,
# and what is fed to standard input reaches the guest.
printf 'echo pol""yvisor-typed; poweroff -f\n' | "$vmctl" run --name typed --kernel "$guest/vmlinux" \
    --initrd "$guest/initrd.cpio.gz" --append quiet >"$work/typed.out" 2>/dev/null
check "standard input is fed to the guest" grep -q '^polyvisor-typed' "$work/typed.out"
