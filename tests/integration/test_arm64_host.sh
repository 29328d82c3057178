#!/usr/bin/env bash
# Proves that the engine works as an arm64 program, run here by user-mode QEMU: its unit tests, random
# instruction streams against the distribution's emulator, a booting kernel against the interpreter, and
# torture guests. The same streams also run on a processor without FEAT_LSE. On an arm64 machine the
# ordinary tests prove all this.
set -uo pipefail
build=${BUILD:-build}
arm64=build/arm64
sysroot=$arm64/sysroot
guest=build/guests/riscv64
case $build in
*san-*)
    echo "skip - arm64 host: only without sanitizers"
    exit 0
    ;;
esac
status=0

# verdict NAME STATUS OUTPUT
verdict() {
    if [ "$2" -eq 0 ]; then
        echo "ok - arm64 host, $1${3:+: $3}"
    else
        echo "not ok - arm64 host, $1"
        printf '%s\n' "$3" | sed 's/^/# /'
        status=1
    fi
}

arm64_run() {
    "$sysroot/qemu-aarch64" -L "$sysroot/root" "$@" 2>&1
}

streams() {
    local name=$1 cpu=$2
    shift 2
    output=$(arm64_run -cpu "$cpu" "$arm64/tests/lockstep/lockstep" "$@" "$build/tests/lockstep/runner")
    verdict "random streams, $name" $? "$output"
}

unit() {
    output=$(arm64_run "$arm64/tests/unit/$1")
    local result=$?
    [ $result -ne 0 ] || output=$(printf '%s\n' "$output" | grep '^100%')
    verdict "${2:-$1}" $result "$output"
}

unit test_emit_arm64 "assembler"
unit test_fp
unit test_engine
unit test_engine_full
unit test_engine_code
unit test_engine_ops
unit test_engine_smp
# Not its other cases: pages in use are the emulator's business here.
CK_RUN_CASE=views unit test_code_memory

streams interpreter max --tier interp --blocks 5000 --share 2
streams baseline max --tier baseline --blocks 20000 --share 3
streams "baseline without LSE" cortex-a57 --tier baseline --blocks 10000 --share 10 --seed 2

output=$(arm64_run "$arm64/tests/lockstep/boot" --seed 1 --append script=idle --tier baseline \
    --instructions 1000000 "$guest/vmlinux" "$guest/test-initrd.cpio.gz")
verdict "booting kernel" $? "$output"

for name in access faults mapping; do
    output=$(arm64_run "$arm64/tests/lockstep/torture" baseline "$build/tests/lockstep/torture.d" $name)
    verdict "torture, $name" $? "$(printf '%s\n' "$output" | grep -v '^ok')"
done
exit $status
