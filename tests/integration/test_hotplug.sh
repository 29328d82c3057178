#!/usr/bin/env bash
# Devices that come and go while a guest runs: a disk and a network card are attached and detached
# under load, their processes killed meanwhile, and nothing is left of them. ROUNDS=100 KILLS=100 is
# the long form.
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-2} kills=${KILLS:-2}
slow_build && rounds=${ROUNDS:-1} kills=${KILLS:-1}
image=$work/data.img
truncate -s 16M "$work/load.img" "$image"

gx() { timeout 600 "$vmctl" exec -n m -- "$@"; }
in_guest() { gx sh -c "$1"; }
attach() { "$vmctl" device attach m --wait 60s "$@" 2>>"$work/attach.err"; }
detach() { "$vmctl" device detach m --wait 60s "$@" 2>>"$work/detach.err"; }
both() { # COMMAND COMMAND: at the same time
    $1 >/dev/null &
    $2 >/dev/null && wait $!
}
device() { "$vmctl" --json device show m "$1" 2>/dev/null | tr -d ' \n'; }
is() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "got: $3" "$(tail -n 6 "$work"/*tach.err)"; fi
}
said() { # CODE ARGUMENT...
    local code=$1
    shift
    ! "$vmctl" "$@" 2>"$work/refused" >/dev/null && grep -q "\[$code\]" "$work/refused"
}
vcpud() { pgrep -f "^vcpud $POLYVISOR_RUNTIME_DIR/vms/m/"; }
# What a device takes: descriptors of vmmd and vcpud, mappings of shared state, processes, files.
books() {
    local vcpu
    vcpu=$(vcpud)
    echo "vmmd $(ls "/proc/$daemon/fd" | wc -l) vcpud $(ls "/proc/$vcpu/fd" | wc -l)" \
        "states $(grep -c state- "/proc/$vcpu/maps") processes $(our_processes | wc -l)" \
        "files $(find "$POLYVISOR_RUNTIME_DIR" | wc -l)"
}
balanced() { [ "$(books)" = "$before" ]; }
# Once is enough: whoever asks vmmd something has a descriptor there for a moment.
balances() { # NAME
    wait_for 60 balanced && ok "$1" || not_ok "$1" "before: $before" "now: $(books)"
}
# For people, in the long form: the same of each process that stays, and more. (vcpud's code memory fills
# while its guest runs.)
figures() { # WHEN
    local what pid
    [ -n "${ROUNDS:-}${KILLS:-}" ] || return 0
    for what in vmmd vcpud disk0 rng0; do
        case $what in
        vmmd) pid=$daemon ;;
        vcpud) pid=$(vcpud) ;;
        *) pid=$(pgrep -f "^devd --control $POLYVISOR_RUNTIME_DIR/vms/m/.* --id $what " | head -n 1) ;;
        esac
        printf '    %-14s %-5s %3d descriptors, %2d memfds, %3d mappings, %2d threads, %6d KiB of its own, %5d in the heap\n' "$1" \
            "$what" "$(ls "/proc/$pid/fd" | wc -l)" "$(ls -l "/proc/$pid/fd" | grep -c memfd:)" \
            "$(wc -l <"/proc/$pid/maps")" "$(ls "/proc/$pid/task" | wc -l)" "$(anonymous_kib "$pid")" "$(heap_kib "$pid")"
    done
    printf '    %-14s %d processes, %d files\n' "$1" "$(our_processes | wc -l)" \
        "$(find "$POLYVISOR_RUNTIME_DIR" | wc -l)"
}
anonymous_kib() { sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"; }
heap_kib() { sed -n '/\[heap\]/,/^Rss/s/^Rss:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/smaps"; }
# In the guest: the name that its kernel gave to disk1.
find_disk='for disk in /sys/block/vd*; do [ "$(cat $disk/serial)" != polyvisor-disk1 ] || break; done; disk=/dev/${disk##*/}'
# In the guest: numbered sectors, each once the one before is on the disk, until the disk is gone.
# (fsync, not O_DIRECT: this dd gives that up for buffers that are not aligned, and what is written back when it
# closes a disk that has gone is lost without a word. A dd that comes after the disk has gone makes a file of its name, which the next disk would be behind.)
writer='i=0; while printf "%08d" $i | dd of=$disk bs=512 seek=$i conv=sync,notrunc,fsync 2>/dev/null && [ -b $disk ]; do
    echo $i >/tmp/last; i=$(((i + 1) % 20000)); done; [ -b $disk ] || rm -f $disk; echo end >/tmp/ended'
start_writer() {
    in_guest "rm -f /tmp/last /tmp/ended; $find_disk; ($writer) >/dev/null 2>&1 &"
    wait_for 60 gx test -s /tmp/last
}
writer_ended() { gx test -e /tmp/ended; }
last_write_is_there() {
    local last found
    last=$(gx cat /tmp/last)
    found=$(dd if="$image" bs=512 skip="$last" count=1 2>/dev/null | head -c 8 | tr '\0' .)
    [ "$found" = "$(printf %08d "$last")" ] || { echo "    at $last is $found"; false; }
}

daemon_start --spares 0 # they come when they like, and what is there is counted
events_begin "$work/events"
"$vmctl" create m --kernel "$guest/vmlinux" --memory 256M --initrd "$guest/test-initrd.cpio.gz" --append "quiet script=commands" \
    --vsock "path=$work/v.sock" --disk "path=$work/load.img" --hotplug-slots 2 >/dev/null
check "a machine that does not run takes no device" refused wrong-state . "$vmctl" device attach m --disk "path=$image"
"$vmctl" start m >/dev/null

# Memory does not come and go; whoever wants that is told what does.
check "memory is shown" grep -q '"memory_bytes":268435456.*"resizable":false' <("$vmctl" --json memory m | tr -d ' \n')
check "another amount is refused" refused unsupported . "$vmctl" memory m 512M
check "as when it is wanted at the start" refused unsupported . "$vmctl" create n --kernel "$guest/vmlinux" --memory 256M,max=1G
check "what it has is no change" "$vmctl" -q memory m 256M

# Without an agent.
"$vmctl" create deaf --kernel "$guest/vmlinux" --memory 128M --append quiet >/dev/null
"$vmctl" start deaf >/dev/null
# A kernel that still looks for devices would find and use it: this one has nothing more to do.
check "a guest without an agent has booted" wait_for 100 grep -q "deaf.*panic" "$work/events"
"$vmctl" device attach deaf --disk "path=$image" >/dev/null 2>"$work/deaf"; is "a guest without an agent gets a device" 0 $?
check "and it is said what to do in it" grep -q "echo 1 > /sys/bus/pci/rescan" "$work/deaf"
check "the image is not another machine's then" refused in-use . "$vmctl" device attach m --disk "path=$image"
"$vmctl" device detach deaf disk0 >/dev/null; is "what its guest does not use is taken out" 0 $?
"$vmctl" kill deaf >/dev/null

timeout 600 "$vmctl" exec --wait 400s -n m -- true
in_guest 'load-modules net; (while :; do dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct; sleep 0.05; done) >/dev/null 2>&1 &'

attach --disk "path=$image" >/dev/null; is "a disk is attached" 0 $?
check "the guest sees it" gx test -b /dev/vdb
check "it is shown" sh -c "'$vmctl' device show m disk1 | grep -q 0000:00:04.0"
check "as JSON" grep -q '"plugged_in":true' <(device disk1)
check "an image is not attached twice" refused in-use . "$vmctl" device attach m --disk "path=$image"
check "nor one that is not there" said bad-disk device attach m --disk "path=$work/none"
check "a device of the board stays" refused unsupported . "$vmctl" device detach m rng0
check "there is no such device" refused not-found . "$vmctl" device detach m disk9
attach --net user >/dev/null; is "a card is attached" 0 $?
check "more than there is room for is refused" refused in-use . "$vmctl" device attach m --net user
check "the card works" in_guest 'ip link set eth0 up && udhcpc -q -n -t 20 -T 5 -i eth0 >/dev/null 2>&1'
check "its confinement is that of others" sh -c "'$vmctl' --json show m | tr -d ' \n' |
    grep -oE '\{[^}]*devd/(disk1|rng0)[^}]*' | sed -E 's/.*\[(.*)\].*/\1/' | sort -u | wc -l | grep -qx 1"
detach net0 >/dev/null; is "a card is detached" 0 $?

start_writer
detach disk1 >/dev/null; is "a disk is detached under the guest's writes" 0 $?
check "whose writer hears of it" wait_for 60 writer_ended
check "and whose last write is in the image" last_write_is_there
before=$(books) small=$(anonymous_kib "$daemon")

# Disks with more than a file: an image over another, and a server's export.
first_word() { # EXPECTED
    [ "$(in_guest "$find_disk; dd if=\$disk bs=512 count=1 iflag=direct 2>/dev/null" | head -c 4)" = "$1" ]
}
truncate -s 16M "$work/base.img" "$work/export.img"
printf base | dd of="$work/base.img" conv=notrunc 2>/dev/null
printf nbd. | dd of="$work/export.img" conv=notrunc 2>/dev/null
"$vmctl" -q disk create "$work/top.qcow2" --backing base.img --backing-format raw
attach --disk "path=$work/top.qcow2" >/dev/null; is "an image over another is attached" 0 $?
check "and read through" first_word base
pgrep -f "^devd --control $POLYVISOR_RUNTIME_DIR/vms/m/.* --id disk1 " | xargs kill -9 # with its spare
check "also by its next process" first_word base
detach disk1 >/dev/null; is "and detached" 0 $?
nbdkit -f -U "$work/export.sock" file "$work/export.img" 2>>"$work/export.log" &
server=$!
wait_for 60 test -S "$work/export.sock"
attach --disk "path=nbd+unix:///?socket=$work/export.sock" >/dev/null; is "a server's disk is attached" 0 $?
check "and read" first_word nbd.
start_writer
detach disk1 --force >/dev/null; is "and pulled out" 0 $?
check "its writer gets an error, too" wait_for 60 writer_ended
kill -9 $server
wait $server 2>/dev/null
balances "nothing is left of these"

# Again and again, under load.
figures before
failed=0
for ((i = 0; i < rounds; i++)); do
    both "attach --disk path=$image" "attach --net user" || failed=$((failed + 1))
    in_guest "ip link set eth0 up; $find_disk; (while dd if=\$disk of=/dev/null bs=64k iflag=direct; do :; done) >/dev/null 2>&1 &"
    both "detach disk1" "detach net0" || failed=$((failed + 1))
done
is "$rounds rounds" 0 $failed
balances "nothing of them is left"
slow_build || # a sanitizer keeps what was freed
    check "not even memory" test $(($(anonymous_kib "$daemon") - small)) -lt $((1024 + rounds * 4))

figures "$rounds rounds"

# With the processes killed at any instant: of the device, also while it is plugged in or out.
touch "$work/kill"
while [ -e "$work/kill" ]; do
    for pid in $(pgrep -f "^devd --control $POLYVISOR_RUNTIME_DIR/vms/m/.* --id (disk1|net0) "); do kill -9 "$pid"; done
    sleep "0.$((RANDOM % 3))$((RANDOM % 9))"
done 2>/dev/null &
failed=0
for ((i = 0; i < kills; i++)); do
    attach --disk "path=$image" >/dev/null && attach --net user >/dev/null || failed=$((failed + 1))
    in_guest "$find_disk; (dd if=\$disk of=/dev/null bs=64k iflag=direct) >/dev/null 2>&1 &"
    detach disk1 >/dev/null && detach net0 >/dev/null || failed=$((failed + 1))
done
rm "$work/kill"
wait $!
is "$kills rounds with kill -9" 0 $failed
balances "nothing of them is left, either"

figures "$kills with kills"

# By force: the guest gets errors, what was done is in the image, and the image is free.
attach --disk "path=$image" >/dev/null
start_writer
detach disk1 --force >/dev/null; is "a disk is pulled out under the guest's writes" 0 $?
check "its writer gets an error" wait_for 60 writer_ended
check "what was written is there" last_write_is_there
balances "the guest lets go of it"
attach --disk "path=$image,readonly" >/dev/null; is "it can be attached again" 0 $?

in_guest '(sleep 0.2; reboot -f) >/dev/null 2>&1 &'
check "the guest restarts" wait_for 120 grep -q " m reset" "$work/events"
timeout 600 "$vmctl" exec --wait 400s -n m -- test -b /dev/vdb; is "and has it from its boot on" 0 $?
check "events tell of it all" sh -c "grep -q 'm device-attached disk1' '$work/events' && grep -q 'm device-detached disk1' '$work/events'"

# The death of the machine's own processes in the middle of it.
"$vmctl" device attach m --net user --wait 1s >/dev/null 2>&1 &
kill -9 "$(vcpud)"
wait $!
stopped() { "$vmctl" list | grep -q 'm *crashed'; }
check "a machine that dies meanwhile is at its end" wait_for 60 stopped
"$vmctl" start m >/dev/null
"$vmctl" device attach m --disk "path=$image" --wait 1s >/dev/null 2>&1 &
client=$!
kill -9 $daemon
wait $client $daemon 2>/dev/null
daemon_start --spares 0
nothing_runs() { [ "$(our_processes | grep -vc /vmmd)" = 0 ]; }
check "and vmmd's death leaves no process" wait_for 60 nothing_runs
check "the next one has the machine without the device" sh -c "! '$vmctl' show m | grep -q data.img"
finish
