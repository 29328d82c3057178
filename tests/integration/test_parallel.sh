#!/usr/bin/env bash
# Four harts: a parallel program with every kind of atomic gives the right result each time.
. "$(dirname "$0")/lib.sh"

boot atomics atomics --cpus 4
check "atomics on four harts, 50 times" grep -q '^atomics: 50 of 50' "$work/atomics.out" ||
    tail -n 5 "$work/atomics.out"
