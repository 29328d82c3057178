#!/usr/bin/env bash
# jitd beside running guests: killed, stopped, replaced by one that sends garbage; its cache
# damaged; a job that kills it. The guest computes the same in all of that.
. "$(dirname "$0")/lib.sh"

# Programs of ours, with another jitd: vmmd takes what stands beside it.
real_bin=$bin
use_programs() { # PROGRAM-IN-PLACE-OF-JITD, or nothing
    bin=$work/bin
    vmctl=$bin/vmctl
    rm -rf "$bin"
    mkdir -p "$bin"
    for program in vmmd vcpud devd vmctl; do
        ln "$real_bin/$program" "$bin/$program" 2>/dev/null || cp "$real_bin/$program" "$bin/$program"
    done
    [ -z "$1" ] || cp "$1" "$bin/jitd"
}
machine() { # NAME OPTION...
    local name=$1
    shift
    "$vmctl" create "$name" --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
        --append "quiet script=compute" --memory 128M "$@" >/dev/null &&
        "$vmctl" start "$name" >/dev/null || return 1
    "$vmctl" console "$name" >"$work/$name.out" 2>/dev/null </dev/null &
    consoles="$consoles $!"
}
consoles=
computed() { # NAME
    grep -q "compute done" "$work/$1.out" 2>/dev/null
}
ended() { # NAME
    ! "$vmctl" --json show "$1" | grep -q '"state": "running"'
}
results() { # NAME
    tr -d '\r' <"$work/$1.out" | grep '^result '
}
same_results() { # NAME
    results "$1" >"$work/$1.results"
    [ -s "$work/$1.results" ] && cmp -s "$work/expected" "$work/$1.results"
}
forget() { # NAME
    "$vmctl" kill "$1" >/dev/null 2>&1
    "$vmctl" rm "$1" >/dev/null 2>&1
}
statistic() { # MACHINE NAME
    "$vmctl" --json stats "$1" | sed -nE "s/.*\"$2\": ([0-9.]+).*/\1/p"
}
at_least() { # MACHINE NAME NUMBER
    local value
    value=$(statistic "$1" "$2") && [ "${value:-0}" -ge "$3" ]
}
jitd_pid() { # MACHINE
    "$vmctl" --json show "$1" | tr -d ' \n' |
        sed -nE 's/.*"role":"jitd","pid":([0-9]+).*/\1/p;t
                 s/.*"pid":([0-9]+),[^}]*"role":"jitd".*/\1/p'
}
has_jitd() { # MACHINE
    [ -n "$(jitd_pid "$1")" ]
}
another_jitd() { # MACHINE PID
    local pid
    pid=$(jitd_pid "$1")
    [ -n "$pid" ] && [ "$pid" != "$2" ]
}
events_end() {
    kill "$listener" 2>/dev/null
    wait "$listener" 2>/dev/null
}
limit=300

# --- what is right: without jitd at all -------------------------------------------------------
use_programs ""
daemon_start
machine plain
check "without jitd the guest runs" wait_for $limit computed plain
results plain >"$work/expected"
check "and computes" test -s "$work/expected"
check "the log says that it is missing" grep -q "there is no .*/jitd" "$work/vmmd.log"
check "stats go without it" sh -c "! '$vmctl' --json stats plain | grep -q jit_regions_compiled"
forget plain
daemon_stop

# --- the real one -----------------------------------------------------------------------------
use_programs "$real_bin/jitd"
daemon_start
machine first
check "jitd is started and shown" wait_for 60 has_jitd first
check "the guest computes" wait_for $limit computed first
check "the same" same_results first
check "regions were compiled" wait_for 120 at_least first jit_regions_compiled 1
check "and installed" wait_for 60 at_least first regions_installed 1
cold=$(statistic first jit_regions_compiled)
check "the cache has them" wait_for 60 at_least first jit_cache_entries "$cold"
check "vmctl cache shows them" sh -c "'$vmctl' --json cache show | grep -q '\"entries\": [1-9]'"
check "and finds them sound" "$vmctl" cache verify
# Confined as it is, it must come to its own end: it may not remove its socket, for one.
: >"$work/vmmd.log"
told=$(our_processes | sed -n 's/ .*jitd --control.*//p' | head -n 1)
kill -TERM "$told"
told_ended() { ! kill -0 "$told" 2>/dev/null; }
check "told to end, it ends" wait_for 60 told_ended
check "and is refused nothing" sh -c "! grep 'Permission denied' '$work/vmmd.log'"
forget first
daemon_stop
no_jitd() {
    ! our_processes | grep -q "jitd --control"
}
check "with vmmd it ends" wait_for 20 no_jitd

# --- the second boot --------------------------------------------------------------------------
daemon_start
machine second
check "a second boot computes" wait_for $limit computed second
check "the same, warm" same_results second
check "with code of the cache" wait_for 60 at_least second jit_cache_hits 1
check "installed without compiling" wait_for 60 at_least second regions_from_cache 1
check "and run" wait_for 60 at_least second retired_optimised 1
forget second
daemon_stop

# --- damage to the cache between boots --------------------------------------------------------
files() {
    find "$POLYVISOR_CACHE_DIR/code" -type f -name '*-*'
}
before=$(files | wc -l)
n=0
for file in $(files); do
    case $((n % 4)) in
    0) printf 'X' | dd of="$file" bs=1 seek=$((80 + n)) conv=notrunc 2>/dev/null ;;
    1) truncate -s 100 "$file" ;;
    2) : >"$file" ;;
    3) head -c 3000 /dev/urandom >"$file" ;;
    esac
    n=$((n + 1))
done
mkdir -p "$POLYVISOR_CACHE_DIR/code/0123456789abcdef" "$POLYVISOR_CACHE_DIR/code/other"
for file in $(files); do # another host's, in a folder of its own
    cp "$file" "$POLYVISOR_CACHE_DIR/code/0123456789abcdef/"
done
cp -r "$POLYVISOR_CACHE_DIR" "$work/copy"
check "vmctl cache finds the damage" refused io . "$vmctl" cache verify --directory "$work/copy"
check "and removes it" "$vmctl" cache verify --directory "$work/copy"
check "clear removes the rest" "$vmctl" cache clear --directory "$work/copy"
check "all of it" sh -c "'$vmctl' --json cache show --directory '$work/copy' | grep -q '\"entries\": 0'"
daemon_start
machine damaged
check "with a damaged cache the guest computes" wait_for $limit computed damaged
check "the same in spite of it" same_results damaged
check "code was compiled anew" wait_for 120 at_least damaged jit_regions_compiled 1
forget damaged

# --- killed again and again -------------------------------------------------------------------
rm -rf "$POLYVISOR_CACHE_DIR"
events_begin "$work/events"
machine killed
(while sleep 0.1; do
    pid=$(jitd_pid killed) && [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null
done) &
killer=$!
check "jitd killed every 100 ms: the guest computes" wait_for $limit computed killed
died_often() {
    [ "$(grep -c jit-died "$work/events")" -ge 2 ]
}
check "it died often" wait_for 60 died_often
kill $killer
wait $killer 2>/dev/null
check "the same under fire" same_results killed
check "no job was blamed" sh -c "! grep -q poisoned '$work/events'"
check "it is back in the end" wait_for 60 has_jitd killed
check "and serves" wait_for 60 at_least killed jit_lives 2
events_end

# --- stopped ----------------------------------------------------------------------------------
pid=$(jitd_pid killed)
kill -STOP "$pid"
machine stopped
check "with jitd stopped the guest computes" wait_for $limit computed stopped
check "the same all the same" same_results stopped
check "the hang is found and it is replaced" wait_for 120 another_jitd killed "$pid"
forget stopped
# One that was taken over heeds nothing, and would find the next vmmd's socket.
pid=$(jitd_pid killed)
kill -STOP "$pid"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null
check "with a killed vmmd even one that heeds nothing ends" wait_for 60 no_jitd
daemon_start
forget killed
daemon_stop

# --- garbage ----------------------------------------------------------------------------------
use_programs "$top/$build/tests/jitd/jitd_garbage"
daemon_start
machine garbled
check "with garbage from jitd the guest computes" wait_for $limit computed garbled
check "the same with garbage" same_results garbled
check "the garbage came" wait_for 60 at_least garbled jit_dropped 10
forget garbled
daemon_stop

# --- three at once ----------------------------------------------------------------------------
# The double compiles slowly, so that all three ask before it is done.
use_programs "$top/$build/tests/jitd/jitd_double"
rm -rf "$POLYVISOR_CACHE_DIR"
POLYVISOR_TEST_COMPILER=sleep:20 daemon_start
for name in a b c; do
    machine $name
done
for name in a b c; do
    check "machine $name of three computes" wait_for $limit computed $name
    check "machine $name is right" same_results $name
done
# Each region compiled is one more in the cache: none was compiled twice. (The guests go on, and ask for more.)
once() {
    local counters compiled entries asked=0 one
    counters=$("$vmctl" --json stats a)
    compiled=$(sed -nE 's/.*"jit_regions_compiled": ([0-9]+).*/\1/p' <<<"$counters")
    entries=$(sed -nE 's/.*"jit_cache_entries": ([0-9]+).*/\1/p' <<<"$counters")
    for one in a b c; do
        asked=$((asked + $(statistic $one region_requests)))
    done
    [ "${compiled:-0}" -ge 1 ] && [ "$compiled" -eq "$entries" ] && [ "$compiled" -le "$asked" ]
}
check "what one has asked for is not compiled for another" wait_for 20 once
for name in a b c; do
    forget $name
done
daemon_stop

# --- a job that kills -------------------------------------------------------------------------
rm -rf "$POLYVISOR_CACHE_DIR"
POLYVISOR_TEST_COMPILER=crash:3 daemon_start
events_begin "$work/events"
machine victim
check "with jobs that kill jitd the guest computes" wait_for $limit computed victim
check "the same with a dying compiler" same_results victim
poisoned() {
    grep -q "jit-job-poisoned" "$work/events"
}
check "a job that killed it twice is reported" wait_for 120 poisoned
file=$(sed -nE 's/.*kept in (.*\.region).*/\1/p' "$work/events" | head -1)
check "it is kept for a look" test -s "$file"
check "which jitd --replay does" sh -c "'$bin/jitd' --replay '$file' | grep -q '^block 0'"
events_end
forget victim
daemon_stop
use_programs "$real_bin/jitd"
check "the real one compiles it" sh -c "'$bin/jitd' --replay '$file' | grep -q '^compiled: '"
