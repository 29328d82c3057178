#!/usr/bin/env bash
# No wake-up is lost: machines of four harts boot and power off, on a quiet host and on one whose
# processors are all busy, each one. BOOTS= says how many of each, BOOT_ENGINES= with which engines.
# A machine that does not end is looked into before it is killed.
. "$(dirname "$0")/lib.sh"

boots=${BOOTS:-3}
engines=${BOOT_ENGINES:-interp baseline}
case $build in *san-*thread*) engines=interp ;; esac # it cannot see what compiled code does
slow_build && boots=${BOOTS:-1}
limit=${BOOT_LIMIT:-600} # seconds; a boot takes one or two

# What a machine that hangs is doing, by its own account and by the kernel's.
examine() { # NAME
    local directory cpu pid
    for directory in "$POLYVISOR_RUNTIME_DIR"/private/*; do
        "$vmctl" --runtime-dir "$directory" list
        "$vmctl" --runtime-dir "$directory" stats "$1"
        for cpu in 0 1 2 3; do
            echo "-- hart $cpu"
            "$vmctl" --runtime-dir "$directory" disas "$1" pc --cpu "$cpu"
        done
    done 2>&1
    our_processes | while read -r pid command; do
        echo "-- $pid $command"
        for task in "/proc/$pid/task"/*; do
            echo "$(cat "$task/comm"): $(cut -d ' ' -f 3,14,15 "$task/stat") $(cat "$task/wchan")"
        done
    done
}

load_processes=()
load_start() {
    local i
    for ((i = 0; i < 2 * $(nproc); i++)); do
        while kill -0 $$ 2>/dev/null; do :; done & # ends with this test
        load_processes+=($!)
    done
}
load_stop() {
    [ ${#load_processes[@]} -eq 0 ] || kill "${load_processes[@]}" 2>/dev/null
    wait "${load_processes[@]}" 2>/dev/null
    load_processes=()
}

all_boot() { # WHAT ENGINE
    local i name good=0 machine status
    for ((i = 1; i <= boots; i++)); do
        name=boot-$i
        boot "$name" idle --cpus 4 --engine "$2" &
        machine=$!
        if ! wait_for "$limit" sh -c "! kill -0 $machine 2>/dev/null"; then
            echo "$1, $2, boot $i does not end:"
            tail -n 5 "$work/$name.out"
            examine "$name"
            our_processes | while read -r pid _; do kill -KILL "$pid"; done
        fi
        wait $machine
        status=$?
        if [ $status -eq 0 ] && grep -q '^guest up' "$work/$name.out"; then
            good=$((good + 1))
        else
            echo "$1, $2, boot $i: exit status $status"
            tail -n 5 "$work/$name.out" "$work/$name.err"
        fi
        rm -f "$work/$name".*
    done
    check "four harts, $2, $1: $good of $boots boots end well" [ "$good" -eq "$boots" ]
}

for engine in $engines; do
    all_boot "a quiet host" "$engine"
    load_start
    all_boot "a loaded host" "$engine"
    load_stop
done
