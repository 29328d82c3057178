#!/usr/bin/env bash
# What the guest's agent does besides commands and files: the guest's end.
. "$(dirname "$0")/lib.sh"

socket=$work/v.sock
gx() { timeout 120 "$vmctl" exec -n "$@"; }
is() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "got: $3"; fi
}
machine() { # NAME SCRIPT OPTION...
    local name=$1 script=$2
    shift 2
    "$vmctl" create "$name" --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" --memory 256M \
        --append "quiet script=$script" --vsock "path=$socket.$name" "$@" >/dev/null && "$vmctl" start "$name" >/dev/null || return
    "$vmctl" console "$name" >"$work/$name.out" 2>/dev/null </dev/null &
    timeout 200 "$vmctl" exec -n --wait 100s --vsock "$socket.$name" "$name" -- true
}
field() { # NAME: of a JSON object on standard input
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}
stopped_by() { # OPTION... NAME
    timeout 600 "$vmctl" --json stop "$@" | field stopped_by
}
said() { # NAME TEXT: its console
    grep -q "$2" "$work/$1.out"
}

daemon_start

# A guest without an init: process 1 is a script, to which no signal of `poweroff` is anything.
truncate -s 16M "$work/disk"
mkfs.ext4 -q "$work/disk"
machine plain busy --disk "path=$work/disk"
check "a disk is mounted in a guest" gx plain -- sh -c \
    'load-modules ext4; mkdir /d && mount -t ext4 /dev/vda /d && (trap "echo ended >/d/ended; exit" TERM; echo >/d/there; setsid sleep 1000 & wait) >/dev/null 2>&1 &
    until [ -e /d/there ]; do sleep 0.1; done'
is "a guest without an init is stopped through its agent" agent "$(stopped_by --timeout 300s plain)"
check "it powered off by itself" wait_for 10 said plain 'reboot: Power down'
check "its file system is clean" sh -c "dumpe2fs -h '$work/disk' 2>/dev/null | grep -q 'state: *clean' && e2fsck -fn '$work/disk' >/dev/null 2>&1"
is "its processes were told" ended "$(debugfs -R 'cat ended' "$work/disk" 2>/dev/null)"

# A guest with one.
machine init init
is "a guest with an init is stopped through its agent" agent "$(stopped_by --timeout 300s init)"
check "by its init" wait_for 10 said init 'The system is going down'
check "and that powered off" wait_for 10 said init 'reboot: Power down'
