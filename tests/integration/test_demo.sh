#!/usr/bin/env bash
# What `make demo` runs without a terminal.
. "$(dirname "$0")/lib.sh"

status=0
"$top/tools/demo" "$bin" "$guest" </dev/null >"$work/demo.out" 2>"$work/demo.err" || status=$?
check "the demonstration exits with 0" test $status -eq 0
check "its script ran to the end" grep -q '^== done' "$work/demo.out"
check "the disk kept what was written" test "$(sed -n 's/^written: *//p' "$work/demo.out")" = \
    "$(sed -n 's/^read back: *//p' "$work/demo.out")"
check "nothing is left" nothing_left
