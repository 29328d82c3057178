#!/usr/bin/env bash
# Hostile input of every kind, by the fuzzers of tests/fuzz: all that earlier runs found is tried
# again, under sanitizers, and a little more is made of it. `make fuzz` takes its time.
source "$(dirname "$0")/lib.sh"

fuzzers=$top/build/san-fuzzer-no-link-address-undefined/fuzz
export POLYVISOR_LOG=error
more=${FUZZ_RUNS:-200}

fuzz_one() {
    local name=$1 corpus=$top/tests/fuzz/corpus/$1 kept
    kept=$(find "$corpus" -type f | wc -l)
    mkdir -p "$work/$name"
    "$fuzzers/$name" -rss_limit_mb=3000 -timeout=60 "-artifact_prefix=$work/$name-" \
        -seed=1 -max_len=1000 -len_control=0 "-runs=$((kept + more))" "$work/$name" "$corpus" >"$work/log" 2>&1
}

for source in "$top"/tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    if [ ! -d "$fuzzers" ]; then
        echo "skip - $name: no fuzzers are built with SAN or HOST"
    elif [ ! -d "$top/tests/fuzz/corpus/$name" ]; then
        not_ok "$name has a corpus"
    elif fuzz_one "$name"; then
        ok "$name: the corpus and $more variations of it"
    else
        not_ok "$name" "$(grep -vE '^#[0-9]+' "$work/log" | tail -n 40)"
    fi
done

finish
