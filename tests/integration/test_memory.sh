#!/usr/bin/env bash
# What an idle machine takes of the host's memory besides its own RAM, all its processes together.
# The table is in the log: make check ONLY=memory, then build/tests/logs/test_memory.sh.
. "$(dirname "$0")/lib.sh"

most=80         # MiB, all processes
most_alone=48   # the same without jitd, which ends when nothing was compiled for a while

statistic() { # NAME
    sed -nE "s/.*\"$1\": ([0-9.]+).*/\1/p" "$work/stats"
}
# Nothing is decoded, asked of jitd, or being compiled any more.
state() {
    "$vmctl" --json stats idle >"$work/stats" || return 1
    echo "$(statistic blocks_decoded) $(statistic blocks_dropped) $(statistic region_requests)" \
        "$(statistic jit_regions_compiled)"
}
at_rest() {
    local before=$rested
    rested=$(state) && [ "$rested" = "$before" ] && [ "$(statistic jit_queued)" -eq 0 ]
}
processes() { # "ROLE PID" a line; jitd among them
    echo "vmmd $daemon"
    "$vmctl" --json show idle | tr -d ' \n' | grep -oE '"role":"[a-z0-9/]+","pid":[0-9]+' |
        sed -E 's|"role":"([^"]+)","pid":([0-9]+)|\1 \2|'
}
# Resident KiB of a process by kind. What several processes share counts in parts (PSS).
kinds() { # PID
    awk '/^[0-9a-f]+-[0-9a-f]+ / {
            kind = "private"
            if ($6 ~ /^\//) { kind = "files" }
            if ($6 ~ /^\/(memfd:|SYSV)/) { kind = "shared" }
            if ($6 ~ /^\/memfd:guest-ram/) { kind = "ram" }
            if ($6 ~ /^\/dev\/zero/) { kind = "code" }
        }
        /^Pss:/ { sum[kind] += $2 }
        END { printf "%d %d %d %d %d\n", sum["ram"], sum["code"], sum["private"], sum["files"],
              sum["shared"] }' "/proc/$1/smaps"
}
measure() {
    total=0 compiler=0
    printf '# %-14s %9s %9s %9s %9s %9s %9s\n' KiB "guest RAM" code private files shared sum
    while read -r role pid; do
        local ram code private files shared sum
        read -r ram code private files shared < <(kinds "$pid")
        sum=$((code + private + files + shared))
        printf '# %-14s %9d %9d %9d %9d %9d %9d\n' "$role" "$ram" "$code" "$private" "$files" \
            "$shared" $sum
        total=$((total + sum))
        [ "$role" = jitd ] && compiler=$sum
    done < <(processes)
    echo "# all but guest RAM: $total KiB; without jitd: $((total - compiler)) KiB"
}
within() { # LIMIT-MIB VARIABLE
    measure >"$work/table"
    [ "$total" -gt 0 ] && [ "${!2}" -le $(($1 * 1024)) ]
}
rest() {
    local others
    within $most total || return 1
    others=$((total - compiler))
    [ $others -le $((most_alone * 1024)) ]
}

if slow_build; then
    echo "skip - sanitizers need memory of their own"
    exit 0
fi
daemon_start
"$vmctl" create idle --memory 512M --engine auto --kernel "$guest/vmlinux" \
    --initrd "$guest/initrd.cpio.gz" --append quiet >/dev/null
"$vmctl" start idle >/dev/null
"$vmctl" console --read-only idle </dev/null >"$work/idle.out" 2>/dev/null &
console=$!
touch "$work/idle.out"
check "the guest waits at its shell" wait_for 120 grep -q 'Welcome to a Debian kernel' "$work/idle.out"
rested=
check "and has come to rest" wait_for 120 at_rest
check "an idle machine takes $most MiB at most, $most_alone without jitd" wait_for 30 rest
cat "$work/table"
check "all its processes were counted" test "$(grep -cE '^# (vmmd|vcpud|devd|jitd)' "$work/table")" -ge 7

"$vmctl" kill idle >/dev/null
kill $console 2>/dev/null
wait $console 2>/dev/null
"$vmctl" rm idle >/dev/null
