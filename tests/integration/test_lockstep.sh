#!/usr/bin/env bash
# Proves that the engine gives the answers of the distribution's user-mode emulator on random
# instruction streams (a bounded run; LOCKSTEP_INSTRUCTIONS= for more), and that it survives the
# torture guests.
set -uo pipefail
directory=${BUILD:-build}/tests/lockstep
instructions=${LOCKSTEP_INSTRUCTIONS:-1500000}
status=0
engines="interp baseline"
case $directory in *san-*thread*) engines=interp ;; esac # it cannot see what compiled code does

if command -v qemu-riscv64-static >/dev/null; then
    for engine in $engines; do
        if output=$("$directory/lockstep" --engine $engine --instructions "$instructions" \
            "$directory/runner" 2>&1); then
            echo "ok - random streams, $engine: $output"
        else
            echo "not ok - random streams, $engine"
            status=1
            printf '%s\n' "$output" | sed 's/^/# /'
        fi
    done
else
    echo "skip - random streams: no qemu-riscv64-static"
fi

for engine in $engines; do
    "$directory/torture" $engine "$directory/torture.d" || status=1
done
exit $status
