#!/usr/bin/env bash
# What the processes of a running machine can still do, as the kernel tells it.
. "$(dirname "$0")/lib.sh"

daemon_start
truncate -s 4M "$work/disk.img"
"$vmctl" create box --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" --append quiet \
    --memory 128M --disk "path=$work/disk.img" >/dev/null && "$vmctl" start box >/dev/null
check "a machine runs" test "$("$vmctl" show box | sed -nE 's/^State: *//p')" = running

# The compiler is started beside the machine, which does not wait for it.
compiler_is_ready() {
    is_confined box jitd seccomp
}
wait_for 20 compiler_is_ready
"$vmctl" show box >"$work/show"
"$vmctl" --json show box >"$work/json"
pids=$(sed -nE 's/^ *"pid": ([0-9]+).*/\1/p' "$work/json" | sort -u)
check "it has several processes" test "$(echo "$pids" | wc -l)" -ge 6

# A build with a sanitizer keeps its filter open.
if ! grep -q no-new-privileges "$work/show"; then
    check "show says what is in force" false
fi
each() { # WHAT COMMAND...: holds for every process
    local what=$1 pid
    shift
    for pid in $pids; do
        "$@" "$pid" || { check "$what (process $pid)" false; return; }
    done
    check "$what" true
}
status_is() { # FIELD VALUE PID
    [ "$(awk -v field="$1:" '$1 == field { print $2 }' "/proc/$3/status")" = "$2" ]
}
namespace_differs() { # KIND PID
    [ "$(readlink "/proc/$2/ns/$1")" != "$(readlink "/proc/self/ns/$1")" ]
}
sees_only_its_folder() { # PID
    [ "$(ls -A "/proc/$1/root/")" = "$(echo "$POLYVISOR_RUNTIME_DIR" | cut -d/ -f2)" ] &&
        [ ! -e "/proc/$1/root/etc" ] && [ ! -e "/proc/$1/root/proc" ]
}
each "no process can gain privileges" status_is NoNewPrivs 1
if grep -q 'seccomp' "$work/show"; then
    each "system calls are filtered" status_is Seccomp 2
    each "no process has capabilities" status_is CapEff 0000000000000000
    check "show says so for each" test "$(grep -c '"seccomp"' "$work/json")" = "$(echo "$pids" | wc -l)"
fi
if grep -q 'mount-namespace' "$work/show"; then
    each "no process has the host's file system" namespace_differs mnt
    each "nor its network" namespace_differs net
    each "each sees nothing but its machine's folder" sees_only_its_folder
fi
check "the guest runs on" test "$("$vmctl" show box | sed -nE 's/^State: *//p')" = running
"$vmctl" kill box >/dev/null

# Debuggers may ask for none of it.
daemon_stop
export POLYVISOR_UNCONFINED=1
daemon_start
"$vmctl" create open --kernel "$guest/vmlinux" --initrd "$guest/initrd.cpio.gz" --append quiet \
    --memory 128M >/dev/null && "$vmctl" start open >/dev/null
check "POLYVISOR_UNCONFINED=1 is heeded" sh -c "'$vmctl' show open | grep -q 'not confined'"
"$vmctl" kill open >/dev/null
finish
