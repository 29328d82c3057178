#!/usr/bin/env bash
# Processes that were taken over, started and confined by the real vmmd as any other: a devd whose
# random number device tries every way out (tests/escape/) and tells the guest how that went; a vcpud
# and a jitd that try as soon as they have confined themselves, and tell vmmd's log.
. "$(dirname "$0")/lib.sh"

real_bin=$bin
bin=$work/bin
vmctl=$bin/vmctl
mkdir -p "$bin"
for program in vmmd vmctl; do
    ln "$real_bin/$program" "$bin/$program" 2>/dev/null || cp "$real_bin/$program" "$bin/$program"
done
cp "$top/$build/tests/escape"/* "$bin/"

daemon_start
"$vmctl" create box --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" --memory 160M \
    --append "quiet script=escape" >/dev/null && "$vmctl" start box >/dev/null
"$vmctl" console box >"$work/console" 2>/dev/null </dev/null &
told() {
    grep -q "escapes told" "$work/console"
}
check "the guest is told of every attempt" wait_for 120 told
tr -d '\r' <"$work/console" | grep '^escape ' | sort -u >"$work/escapes"
count=$(sed -nE 's/^escape [0-9]+ of ([0-9]+):.*/\1/p' "$work/escapes" | sort -u)
check "there are many" test "${count:-0}" -ge 70
check "each one was made" test "$(wc -l <"$work/escapes")" = "${count:-none}"
if is_confined box devd/rng0 seccomp; then
    if grep -qE ': 0 ' "$work/escapes"; then
        not_ok "none succeeded" "$(grep -E ': 0 ' "$work/escapes")"
    else
        ok "none succeeded"
    fi
    # EPERM is the filter's answer, ENOSYS what makes the C library take another call.
    other=$(grep -vE ': (1|38) ' "$work/escapes")
    check "all were refused before they were tried" test -z "$other"
    [ -z "$other" ] || echo "$other"
else
    echo "skip - none succeeded (this build or host has no filters)"
fi

# What a daemon said: into $work/PROGRAM.escapes, or nothing where there are no filters.
told_by() { # PROGRAM
    grep -aq "^$1: escapes" "$work/vmmd.log"
}
answers_of() { # PROGRAM
    grep -a "^$1: escape [0-9]" "$work/vmmd.log" | sed "s/^$1: escape [0-9]* of [0-9]*: //" >"$work/$1.escapes"
    test "$(wc -l <"$work/$1.escapes")" = "$count"
}
if is_confined box vcpud seccomp; then
    check "vcpud tried each of them" wait_for 60 answers_of vcpud
    other=$(grep -vE '^(1|38) ' "$work/vcpud.escapes")
    check "all were refused before they were tried" test -z "$other"
    [ -z "$other" ] || echo "$other"
fi
if [ -x "$bin/jitd" ] && wait_for 60 told_by jitd && ! grep -aq '^jitd: escapes: no filter' "$work/vmmd.log"; then
    check "jitd tried each of them" wait_for 60 answers_of jitd
    # It has its own root, which cannot be written (and with Landlock not even be listed, 13), and the
    # sockets of its machines. The rest either is refused (1, 38), or leads nowhere: no such file, not
    # there to be written, no directory, no socket.
    worked=$(sed -nE 's/^0 //p; s/^13 (open the root directory)$/\1/p' "$work/jitd.escapes" | sort | tr '\n' ';')
    check "it has its empty root and Unix sockets" test "$worked" = "make a Unix socket;open the root directory;"
    other=$(grep -vE '^(0|1|38) |^(2 open|30 (create|rename)|20 list a directory|88 connect)|^13 open the root directory$' "$work/jitd.escapes")
    check "all else was refused, or led nowhere" test -z "$other"
    [ -z "$other" ] || echo "$other"
else
    echo "skip - jitd's attempts (this build or host has no filters, or no jitd)"
fi
check "the machine goes on" test "$("$vmctl" show box | sed -nE 's/^State: *//p')" = running
check "so does the device" sh -c "'$vmctl' device list box | grep -q 'rng0 .*running *0 '"
check "and nobody else was hurt" sh -c "test \$('$vmctl' device list box | grep -c 'running *0 ') -ge 5"
"$vmctl" kill box >/dev/null
