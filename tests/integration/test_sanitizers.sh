#!/usr/bin/env bash
# What a sanitizer finds in any process of a test makes the test fail, though nobody looks at the process's
# output and its end harms nobody. (Without it, `make check SAN=` would prove little: a daemon that dies of a
# report is started again.)
. "$(dirname "$0")/lib.sh"

faulty() { # KIND SANITIZER: a test that starts the faulty program and is content with everything itself
    BUILD=$build TMPDIR=$work "$BASH" -c '. tests/integration/lib.sh
        check "the program ended well" "$1" "$2"
        finish' tests/integration/faulty "$work/faulty-$2" "$1" >"$work/said" 2>&1
}
# FAULT SANITIZER WORD: such a test fails, and shows the report, where it says WORD and the source.
reaches_the_output() {
    ! faulty "$1" "$2" && grep -q '^ok - the program ended well' "$work/said" &&
        grep -q '^not ok - no sanitizer' "$work/said" && grep -q "$3" "$work/said" &&
        grep -q 'faulty\.c:[0-9]' "$work/said"
}

for sanitizer in thread address,undefined; do
    clang-19 -g -O1 -pthread -fsanitize=$sanitizer -fno-sanitize-recover=all -o "$work/faulty-$sanitizer" \
        tests/sanitizers/faulty.c || { not_ok "the faulty program is built for $sanitizer"; exit; }
    check "a program without a fault passes ($sanitizer)" faulty nothing $sanitizer
done
check "a race fails the test" reaches_the_output race thread 'data race'
check "so does a use of freed memory" reaches_the_output freed address,undefined heap-use-after-free
check "an overflow" reaches_the_output overflow address,undefined 'signed integer overflow'
check "a leak" reaches_the_output leak address,undefined 'LeakSanitizer'
finish
