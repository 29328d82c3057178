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

# The daemons' own, where they have a sanitizer: vmmd starts another process, and the machine runs on.
devices_child() {
    BUILD=$build TMPDIR=$work "$BASH" -c '. tests/integration/lib.sh
        rng() { "$vmctl" device list held | awk "\$1 == \"rng0\" { print \$NF }"; }
        replaced() { # by another process, not by none
            local now
            now=$(rng) && [ -n "$now" ] && [ "$now" != - ] && [ "$now" != "$first" ]
        }
        daemon_start
        "$vmctl" create held --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" --memory 160M 2>&1 >/dev/null
        "$vmctl" start held >/dev/null
        first=$(rng)
        kill -SEGV "$first"
        check "it is replaced" wait_for 60 replaced
        "$vmctl" kill held >/dev/null
        finish' tests/integration/devices >"$work/said" 2>&1
}
if slow_build; then
    devices_child
    check "a device that faults is replaced" grep -q '^ok - it is replaced' "$work/said"
    check "and its report fails the test" sh -c "grep -q '^not ok - no sanitizer' '$work/said' &&
        grep -q 'report.devd.*SEGV\|devd.*DEADLYSIGNAL\|SEGV on unknown address' '$work/said'"
fi
finish
