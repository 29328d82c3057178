#!/usr/bin/env bash
# Proves that the tiers of the engine do the same: random instruction streams give the answers of the
# distribution's user-mode emulator, a booting kernel is in the same state on a tier and on the
# interpreter wherever one looks, and the torture guests are survived. A bounded part of what
# `make lockstep` runs:
#   LOCKSTEP_INSTRUCTIONS       of random streams against the emulator
#   LOCKSTEP_BOOT_INSTRUCTIONS  after address translation was switched on, 0: to the guest's power-off
#   LOCKSTEP_SEED               of everything random
set -uo pipefail
build=${BUILD:-build}
directory=$build/tests/lockstep
guest=build/guests/riscv64
instructions=${LOCKSTEP_INSTRUCTIONS:-1500000}
boot_instructions=${LOCKSTEP_BOOT_INSTRUCTIONS:-150000000}
seed=${LOCKSTEP_SEED:-1}
status=0
engines="interp baseline"
case $directory in
*san-*thread*) engines=interp ;; # it cannot see what compiled code does
esac
case $directory in
*san-*) boot_instructions=${LOCKSTEP_BOOT_INSTRUCTIONS:-5000000} ;; # slow, and checks other things
esac

# verdict NAME STATUS OUTPUT
verdict() {
    if [ "$2" -eq 0 ]; then
        echo "ok - $1: $3"
    else
        echo "not ok - $1"
        printf '%s\n' "$3" | sed 's/^/# /'
        status=1
    fi
}

boot() {
    "$directory/boot" --seed "$seed" --append "script=idle" "$@" \
        "$guest/vmlinux" "$guest/test-initrd.cpio.gz" 2>&1
}

for engine in $engines; do
    if command -v qemu-riscv64-static >/dev/null; then
        output=$("$directory/lockstep" --seed "$seed" --engine "$engine" \
            --instructions "$instructions" "$directory/runner" 2>&1)
        verdict "random streams, $engine" $? "$output"
    else
        echo "skip - random streams, $engine: no qemu-riscv64-static"
    fi
done

for engine in $engines; do
    output=$(boot --tier "$engine" --instructions "$boot_instructions")
    verdict "booting kernel, $engine" $? "$output"
done

# The test itself: c.addi a0, 1 goes wrong, and is named.
output=$(boot --tier interp --spoil 0x0505)
case $?$output in
1*"the oracle then executes:"*"addi a0, a0, 1"*"there differs the CPU's state"*"add x10, x10, 9"*)
    verdict "a wrong instruction is found" 0 "named with state and IR" ;;
*) verdict "a wrong instruction is found" 1 "$output" ;;
esac

for engine in $engines; do
    "$directory/torture" "$engine" "$directory/torture.d" || status=1
done
exit $status
