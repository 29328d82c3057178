#!/usr/bin/env bash
# A device that keeps dying is given up, told about, and brought back by hand; the guest that uses it
# waits meanwhile and loses nothing.
. "$(dirname "$0")/lib.sh"

device_is() { # STATE
    "$vmctl" device list box | grep -q "^disk0 .*$1"
}
process_of_disk() {
    "$vmctl" device list box | awk '$1 == "disk0" { print $NF }'
}
# A kill from outside (SIGKILL) would not count; this is no signal that a sanitizer takes for a fault of the program.
kill_disk() {
    local pid
    pid=$(process_of_disk)
    [ "$pid" != - ] && kill -SYS "$pid" 2>/dev/null
}
console_has() {
    grep -q "$1" "$work/console"
}

spare_of_disk() {
    our_processes | awk '/ --id disk0 / { print $1 }' | while read -r pid; do
        grep -q standby "/proc/$pid/comm" 2>/dev/null && echo "$pid"
    done
}
spare_stands_by() {
    [ -n "$(spare_of_disk)" ]
}
taken() { # PID: it is the disk's process
    [ "$(process_of_disk)" = "$1" ]
}

daemon_start --spares 1
events_begin "$work/events" --json
truncate -s 4M "$work/disk.img"
"$vmctl" create box --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
    --append "quiet script=disk rounds=1000" --memory 160M --disk "path=$work/disk.img" >/dev/null
check "no devices before the start" refused wrong-state . "$vmctl" device list box
"$vmctl" start box >/dev/null
"$vmctl" console box >"$work/console" 2>/dev/null </dev/null &
check "the guest uses its disk" wait_for 90 console_has "round 2 good"
check "each device is listed" test "$("$vmctl" device list box | grep -c running)" -ge 6
check "as JSON, too" sh -c "'$vmctl' --json device list box | grep -qE '\"kind\": ?\"virtio-blk\"'"

check "before it has died there is a process that stands by" wait_for 30 spare_stands_by
spare=$(spare_of_disk)
kill -9 "$(process_of_disk)"
check "which takes its place at the first death" wait_for 20 taken "$spare"
check "and is followed by another" wait_for 30 spare_stands_by

"$vmctl" device restart box disk0 >/dev/null
check "a device is restarted on request" wait_for 20 device_is "running *2 "
check "it is another process" kill -0 "$(process_of_disk)"

given_up() {
    device_is "given up" || { kill_disk && false; }
}
check "one that keeps dying is given up" wait_for 60 given_up
check "an event says so" wait_for 30 grep -q device-failed "$work/events"
rounds=$(grep -c good "$work/console")
check "the machine goes on" sh -c "'$vmctl' show box | grep -q running"
"$vmctl" device restart box disk0 >/dev/null
check "it comes back when asked" wait_for 20 device_is running
goes_on() {
    [ "$(grep -c good "$work/console")" -gt $((rounds + 2)) ]
}
check "and the guest goes on with its disk" wait_for 60 goes_on
check "nothing was lost" sh -c "! grep -q 'BAD\|failed' '$work/console'"

check "there is no other device" refused not-found . "$vmctl" device restart box disk7
check "nor another machine" refused not-found . "$vmctl" device restart nobody disk0
check "an incomplete command is refused" refused usage . "$vmctl" device restart box
"$vmctl" kill box >/dev/null
finish
