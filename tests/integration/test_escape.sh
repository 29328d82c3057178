#!/usr/bin/env bash
# A device that was taken over: a real devd, started and confined as any other, whose random number
# device tries every way out (tests/escape/) and tells the guest how that went.
. "$(dirname "$0")/lib.sh"

real_bin=$bin
bin=$work/bin
vmctl=$bin/vmctl
mkdir -p "$bin"
for program in vmmd vcpud jitd vmctl; do
    ln "$real_bin/$program" "$bin/$program" 2>/dev/null || cp "$real_bin/$program" "$bin/$program"
done
cp "$top/$build/tests/escape/devd" "$bin/devd"

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
if "$vmctl" show box | grep -q 'devd/rng0 .*seccomp'; then
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
check "the machine goes on" test "$("$vmctl" show box | sed -nE 's/^State: *//p')" = running
check "so does the device" sh -c "'$vmctl' device list box | grep -q 'rng0 .*running *0 '"
check "and nobody else was hurt" sh -c "test \$('$vmctl' device list box | grep -c 'running *0 ') -ge 5"
"$vmctl" kill box >/dev/null
