#!/usr/bin/env bash
# Machines of one image share what is compiled: many that start together have little more compiled than
# one alone, and the next boot finds nearly all of it. SHARING_MACHINES= says how many (20 is what is
# promised; make check takes fewer).
. "$(dirname "$0")/lib.sh"

machines=${SHARING_MACHINES:-4}
slow_build && machines=${SHARING_MACHINES:-2}
limit=$((300 + 60 * machines)) # seconds; a boot takes one or two

statistic() { # MACHINE NAME
    "$vmctl" --json stats "$1" | sed -nE "s/.*\"$2\": ([0-9.]+).*/\1/p"
}
up() { # NAME
    grep -q '^guest up' "$work/$1.out" 2>/dev/null
}
# What idle machines leave to jitd is done when nothing is queued and nothing new comes.
settled() {
    local before
    before=$(statistic m1 jit_regions_compiled)
    sleep 1
    counters=$("$vmctl" --json stats m1)
    # jitd answers for itself, and not at once where it has no processor.
    [ -n "$before" ] && [ "$before" = "$(counter jit_regions_compiled)" ] && [ "$(counter jit_queued)" = 0 ]
}
# boots COUNT: start so many machines together; regions and milliseconds that were compiled for them.
regions=0 milliseconds=0 counters=
boots() {
    local i consoles=
    daemon_start
    for ((i = 1; i <= $1; i++)); do
        "$vmctl" create "m$i" --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
            --append "quiet script=busy" --memory 128M >/dev/null
    done
    for ((i = 1; i <= $1; i++)); do
        : >"$work/m$i.out"
        "$vmctl" start "m$i" >/dev/null
        "$vmctl" console "m$i" >"$work/m$i.out" 2>/dev/null </dev/null &
        consoles="$consoles $!"
    done
    for ((i = 1; i <= $1; i++)); do
        wait_for "$limit" up "m$i" || not_ok "machine $i of $1 boots" "$(tail -n 3 "$work/m$i.out")"
    done
    wait_for "$limit" settled || not_ok "the compiler comes to rest" "$counters"
    regions=$(counter jit_regions_compiled)
    milliseconds=$(($(counter jit_compile_ns) / 1000000))
    for ((i = 1; i <= $1; i++)); do
        "$vmctl" kill "m$i" >/dev/null 2>&1
        "$vmctl" rm "m$i" >/dev/null 2>&1
    done
    # shellcheck disable=SC2086
    wait $consoles
    daemon_stop
    echo "# $1 machines: $regions regions in $milliseconds ms of processor time"
}

# The counters: each is there, the median is no longer than the 99th percentile, and one region's
# time no longer than that of all.
counter() { # NAME
    sed -nE "s/.*\"$1\": ([0-9.]+).*/\1/p" <<<"$counters"
}
counters_agree() {
    [ "$(counter jit_compile_median_ns)" -gt 0 ] &&
        [ "$(counter jit_compile_median_ns)" -le "$(counter jit_compile_p99_ns)" ] &&
        [ "$(counter jit_compile_median_ns)" -le $((2 * $(counter jit_compile_ns))) ] &&
        [ "$(counter jit_code_bytes)" -ge $((64 * regions)) ] &&
        [ "$(counter regions_installed)" -gt 0 ] && [ "$(counter region_bytes)" -gt 0 ] &&
        [ "$(counter region_compile_ns)" -gt 0 ] &&
        [ "$(counter region_compile_median_ns)" -gt 0 ] &&
        [ "$(counter region_compile_median_ns)" -le "$(counter region_compile_p99_ns)" ] &&
        [ "$(counter region_install_ns)" -gt 0 ] && [ "$(counter region_guest_bytes)" -gt "$regions" ] &&
        [ "$(counter region_median_ns)" -gt 0 ] &&
        [ "$(counter region_median_ns)" -le "$(counter region_p99_ns)" ] &&
        [ "$(counter jit_cache_entries)" -ge "$regions" ]
}

# Heads that have a region in the cache: an entry's name begins with its head's fingerprint.
heads() {
    find "$POLYVISOR_CACHE_DIR/code" -name '*-*' -printf '%f\n' | cut -d - -f 1 | sort -u | wc -l
}

boots 1
check "a machine alone has regions compiled" [ "$regions" -gt 5 ]
check "what that took is counted: $(counter jit_compile_median_ns) ns in the median" counters_agree
alone=$regions
rm -rf "$POLYVISOR_CACHE_DIR"
boots "$machines"
together=$regions
# How many heads are hot in at least one machine depends on the host's pace; that the machines share
# shows in how often a head was compiled. Without sharing it would be nearly $machines times.
echo "# they have $(heads) heads"
check "$machines machines together compile a head hardly more than once" \
    [ "$together" -le $(($(heads) * 3 / 2 + 5)) ]
# Beyond that it is the pace that decides: said of the long run alone.
if [ "$machines" -ge 20 ]; then
    check "and have hardly more compiled than one alone" [ "$together" -le $((2 * alone + 10)) ]
fi

# Again, with what they left.
boots 1
again=$regions
# A few heads are found hot in one boot and not in another. Without the cache all would be compiled again.
check "the next boot compiles next to nothing" [ "$again" -le $((together / 2 + 3)) ]
boots 1
check "the one after that likewise" [ "$regions" -le $((together / 2 + 3)) ]
finish
