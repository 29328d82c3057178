#!/usr/bin/env bash
# What vmctl shows of the engine: counters, code, the map for perf; and who runs the guest.
. "$(dirname "$0")/lib.sh"

machine() { # NAME OPTION...
    local name=$1
    shift
    "$vmctl" create "$name" --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" \
        --append quiet --memory 128M "$@" >/dev/null && "$vmctl" start "$name" >/dev/null
}
statistic() { # MACHINE NAME
    "$vmctl" --json stats "$1" | sed -nE "s/.*\"$2\": ([0-9.]+).*/\1/p"
}
counts() { # MACHINE NAME
    local value
    value=$(statistic "$1" "$2") && [ "${value:-0}" -gt 0 ]
}
pid_of() { # MACHINE
    "$vmctl" --json show "$1" | tr -d ' \n' | sed -nE 's/.*"role":"vcpud","pid":([0-9]+).*/\1/p'
}

daemon_start

# --- the interpreter ---------------------------------------------------------------------------
machine one --engine interp --cpus 2
check "the guest runs" wait_for 60 counts one interrupts
# (In its first moments it has had no slow path and translates nothing.)
table_has() {
    "$vmctl" stats one >"$work/table" && grep -qE "$1" "$work/table"
}
check "counters have groups" wait_for 60 table_has '^slow paths'
check "and ratios" wait_for 60 table_has 'translation misses +[0-9]+ +[0-9.]+ a thousand'
check "nothing is said of a compiler that is not there" sh -c "! grep -q compile '$work/table'"
check "no counter is without its name" sh -c "! grep -q '^others' '$work/table'"
"$vmctl" --json stats one >"$work/json"
check "JSON has ratios, too" grep -q '"tlb_misses_per_thousand": [0-9]' "$work/json"

before=$(statistic one retired)
for i in 1 2 3 4 5; do
    "$vmctl" disas one pc >"$work/code" || break
done
check "code is shown while the guest runs" test "$i" = 5
check "as instructions" grep -qE '^    [0-9a-f]{8,16}  [0-9a-f]{4,8} +[a-z]' "$work/code"
check "as IR" grep -q '^      insn 0x' "$work/code"
runs_on() {
    [ "$(statistic one retired)" -gt "$before" ]
}
check "and the guest goes on" wait_for 60 runs_on
# An idle guest is mostly in its kernel, whose addresses hold in every address space.
in_kernel() {
    "$vmctl" disas one pc >"$work/code" && grep -q '^block at 0xffffffff8' "$work/code"
}
check "the guest is in its kernel" wait_for 60 in_kernel
address=$(sed -nE '1s/^block at (0x[0-9a-f]+).*/\1/p' "$work/code")
other_processor() {
    "$vmctl" --json disas --cpu 1 --count 2 one "$address" >"$work/again" 2>/dev/null
}
check "code at an address" wait_for 60 other_processor
check "is where it was asked for" grep -q "\"address\": \"$address\"" "$work/again"
bytes=$(sed -nE "s/^    ${address#0x}  ([0-9a-f]+) .*/\1/p" "$work/code")
check "and the same" grep -q "\"bytes\": \"$bytes\"" "$work/again"
check "unmapped addresses are refused" refused not-found . "$vmctl" disas one 0x10
check "processors that are not there are refused" refused not-found . "$vmctl" disas --cpu 2 one pc
check "what is no address is refused" refused usage . "$vmctl" disas one 12z
"$vmctl" create cold --kernel "$guest/vmlinux" >/dev/null
check "a machine that does not run has no code" refused wrong-state . "$vmctl" disas cold pc

# --- the map for perf --------------------------------------------------------------------------
machine two --engine auto --perf-map
check "the guest runs" wait_for 60 counts two interrupts
map=/tmp/perf-$(pid_of two).map
check "perf finds a map" test -f "$map"
check "that is not for others" test "$(stat -c %a "$map")" = 600
check "it has no other name" sh -c "ls -l /proc/$(pid_of two)/fd | grep -q '$map$' && ! ls -l /proc/$(pid_of two)/fd /proc/$daemon/fd | grep -q perf-new"
check "without --perf-map there is none" test ! -e "/tmp/perf-$(pid_of one).map"
"$vmctl" kill two >/dev/null
check "the map stays" test -f "$map"
rm -f "$map"

# --- the compiler ------------------------------------------------------------------------------
if machine three --engine baseline --perf-map 2>"$work/refused"; then
    check "the guest runs" wait_for 60 counts three interrupts
    map=/tmp/perf-$(pid_of three).map
    check "blocks are compiled" counts three blocks_compiled
    check "their memory is counted" counts three code_bytes
    check "and their time" counts three compile_p99_ns
    check "the map names them" grep -qE '^[0-9a-f]+ [0-9a-f]+ guest_0x[0-9a-f]+$' "$map"
    rm -f "$map"
    host_code() {
        "$vmctl" disas three pc >"$work/code" && grep -qE "^  (x86_64|arm64) code" "$work/code"
    }
    check "host code is shown" wait_for 60 host_code
else
    check "a host without a compiler says so" grep -q '\[unsupported\]' "$work/refused"
fi
for name in one three; do
    "$vmctl" kill $name >/dev/null 2>&1
done
for name in one two three cold; do
    "$vmctl" rm $name >/dev/null 2>&1
done
