#!/usr/bin/env bash
# Network disks: NBD servers that are killed under load and come back, device processes that are, too,
# servers that stay away, let nobody write, change their size; and what is refused. (Servers that lie:
# tests/unit/test_block_nbd.c.)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

servers=()
trap 'disown "${servers[@]}" 2>/dev/null; kill -9 "${servers[@]}" 2>/dev/null; finish' EXIT

serve() { # NAME [OPTION...]: NAME.img at NAME.sock; its process in $server
    local name=$1
    shift
    rm -f "$work/$name.sock"
    nbdkit -f -U "$work/$name.sock" "$@" file "$work/$name.img" 2>>"$work/$name.log" &
    server=$!
    servers+=("$server")
    wait_for 60 test -S "$work/$name.sock"
}
uri() { # NAME
    echo "nbd+unix:///?socket=$work/$1.sock"
}
told() { # PATTERN: among the events
    grep -qE "$1" "$work/events"
}
asks() { # COMMAND PATTERN
    local said
    said=$(ask one "$1")
    echo "$said" | grep -qE "$2" || { echo "    said: $said"; false; }
}
running() { # DEVICE
    "$vmctl" device list one | grep -q "^$1 .*running"
}

daemon_start
events_begin "$work/events" --json
holders+=("$listener")

# ---- What is refused ----
check "TLS is refused" refused unsupported TLS "$vmctl" create x --kernel "$guest/vmlinux" --disk path=nbds://host/e
check "so is what is no address" refused usage "not the place" "$vmctl" create x --kernel "$guest/vmlinux" \
    --disk path=nbd://host:port/e
check "and a format" refused unsupported "raw" "$vmctl" create x --kernel "$guest/vmlinux" \
    --disk path=nbd://host/e,format=qcow2
"$vmctl" create x --kernel "$guest/vmlinux" --memory 96M --disk "path=$(uri none)" >/dev/null
check "no machine starts without its server" refused bad-disk "cannot connect to .*none.sock" "$vmctl" start x
"$vmctl" rm x >/dev/null

# ---- Three servers ----
truncate -s 16M "$work/a.img" "$work/b.img"
head -c 8M /dev/urandom >"$work/r.img"
serve a
a=$server
serve b
b=$server
port=$(free_port)
qemu-nbd -r -t -f raw -b 127.0.0.1 -p "$port" -x shared "$work/r.img" 2>"$work/r.log" &
servers+=($!)
listens() {
    python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])))' "$port" 2>/dev/null
}
wait_for 60 listens
machine one --cpus 2 --disk "path=$(uri a),bps=8M" --disk "path=$(uri b),timeout=2" \
    --disk "path=nbd://127.0.0.1:$port/shared"
check "a machine with network disks runs" wait_for 90 answered one 1
confined() {
    local disk
    for disk in devd/disk0 devd/disk1 devd/disk2; do
        is_confined one $disk seccomp && is_confined one $disk network-namespace || return 1
    done
}
slow_build || check "its devices have no network and a filter" confined
check "a disk is as large as its export" asks 'cat /sys/block/vda/size' '^32768$'
check "one that lets nobody write is read-only" asks 'cat /sys/block/vdc/ro' '^1$'
check "over TCP it reads what is there" test "$(ask one 'sha256sum </dev/vdc')" = "$(sha256sum <"$work/r.img")"
check "trimming goes through" asks 'blkdiscard /dev/vda && echo good' good

# ---- Deaths under load ----
tell one 'dd if=/dev/urandom of=/tmp/data bs=64k count=96 2>/dev/null; for i in 1 2; do dd if=/tmp/data of=/dev/vda bs=64k oflag=direct conv=fsync 2>/dev/null || echo bad; done; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k count=96 2>/dev/null | cmp - /tmp/data && sha256sum </tmp/data'
for _ in 1 2; do
    kill -9 "$a"
    wait "$a" 2>/dev/null
    serve a
    a=$server
    sleep 0.2
    kill -9 "$(pid_of one devd/disk0)" 2>/dev/null
    wait_for 60 running disk0
    sleep 0.2
done
kill -9 "$a" # both at once
kill -9 "$(pid_of one devd/disk0)" 2>/dev/null
wait_for 60 running disk0
serve a
a=$server
sum=$(outcome one)
check "nothing is lost by three deaths of the server and of the device's process" test \
    "$sum" = "$(head -c $((96 * 65536)) "$work/a.img" | sha256sum)"
check "that the server went away is told" wait_for 30 told 'disk-error.*lost the server'
check "and that it is back" wait_for 60 told 'disk-well'
check "the guest's kernel has nothing to complain of" asks \
    "dmesg | grep -iE 'virtio_blk|vda|BUG|I/O error|lockup' | grep -vE 'detected capacity|logical blocks|default/read/poll queues'; echo end" '^end$'

# ---- A server that stays away ----
kill -9 "$b"
wait "$b" 2>/dev/null
check "a server that stays away is an I/O error in time" asks \
    'dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>&1 || true' 'rror'
check "an event tells why" wait_for 30 told 'disk-error.*disk1.*(timed out|lost)|disk-error.*(timed out|lost).*disk1'
check "the machine goes on" asks 'echo good' good
truncate -s 24M "$work/b.img"
serve b
b=$server
works() {
    asks 'dd if=/dev/vdb of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && echo good' good >/dev/null
}
check "it works again when the server is back" wait_for 90 works
check "and what has become larger is seen" asks 'cat /sys/block/vdb/size' '^49152$'
check "a resize must be the server's" sh -c "! '$vmctl' disk resize one disk1 32M 2>/dev/null"
kill -STOP "$b"
check "a server that hangs is an I/O error, too" asks \
    'dd if=/dev/vdb of=/dev/null bs=4k skip=9 count=1 iflag=direct 2>&1 || true' 'rror'
kill -CONT "$b"
check "and the disk gets over it" wait_for 90 works
check "no device's process died of a server" sh -c "'$vmctl' device list one | grep -qE '^disk1 .*running *0 '"
end one
gone() {
    ! pgrep -f "connectd.*$work" >/dev/null
}
check "no connector is left" wait_for 60 gone
shells_end
