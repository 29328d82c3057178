#!/usr/bin/env bash
# tests/run itself: what it adds up, and what it runs once more.
. "$(dirname "$0")/lib.sh"

programs=$work/programs
mkdir -p "$programs"
program() { # NAME TEXT
    printf '#!/bin/sh\n%s\n' "$2" >"$programs/$1"
    chmod +x "$programs/$1"
}
program good 'echo "ok - one"; echo "ok - two"'
program bad 'echo "ok - one"; echo "not ok - two"; echo "    failed: because"; exit 1'
program silent 'exit 0'
program check_style 'echo "75%: Checks: 4, Failures: 1, Errors: 0"; exit 1'
program busy "[ -e '$work/seen' ] && { echo 'ok - done'; exit 0; }
touch '$work/seen'; echo 'not ok - done'; echo '    failed: too much to do'; exit 1"
program reported "[ -e '$work/ran' ] && echo 'ok - x' && exit 0
touch '$work/ran'; echo 'not ok - no sanitizer found anything'; exit 1"

fails() {
    ! "$@"
}
run() { # PROGRAM...
    local name paths=()
    for name in "$@"; do
        paths+=("$programs/$name")
    done
    (cd "$top" && unset TEST_AGAIN && "$top/tests/run" "$work/build" "${paths[@]}") >"$work/out" 2>&1
}
last_line() {
    test "$(tail -n 1 "$work/out")" = "$1"
}

check "what passes passes" run good
check "and is counted" last_line "2 passed, 0 failed"
check "what fails fails" fails run good bad
check "with its counts" last_line "3 passed, 1 failed"
check "and is told at the end" grep -q '^  FAILED bad' "$work/out"
check "after a second time" grep -q '^  AGAIN bad' "$work/out"
check "silence is a failure" fails run silent
check "Check's programs are counted" fails run check_style
check "by what they say" last_line "3 passed, 1 failed"
check "what fails once passes alone" run good busy
check "and is told as unstable" grep -q '^  UNSTABLE busy' "$work/out"
check "with what it said" grep -q 'failed: too much to do' "$work/out"
check "a sanitizer's report stands" fails run reported
rm -f "$work/seen"
check "with many failures nothing is tried again" fails run bad silent check_style busy
check "neither is the one that would pass" sh -c "! grep -q AGAIN '$work/out'"
finish
