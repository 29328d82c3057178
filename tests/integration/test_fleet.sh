#!/usr/bin/env bash
# Many machines at once, and many after each other: all end well and nothing is left.
. "$(dirname "$0")/lib.sh"

fleet=20 cycles=200
slow_build && fleet=4 cycles=10

daemon_start
descriptors() {
    find "/proc/$daemon/fd" -mindepth 1 2>/dev/null | wc -l
}
before_descriptors=$(descriptors)

for i in $(seq $fleet); do
    "$vmctl" create "fleet$i" --kernel "$guest/vmlinux" --initrd "$guest/test-initrd.cpio.gz" \
        --append "quiet script=idle" --memory 192M >/dev/null || not_ok "create fleet$i"
done
for i in $(seq $fleet); do
    "$vmctl" start "fleet$i" >/dev/null || not_ok "start fleet$i"
done
all_stopped() {
    [ "$("$vmctl" --json list | grep -c '"stopped"')" -eq $fleet ]
}
check "$fleet machines at once boot and power off" wait_for 600 all_stopped
ended=0
for i in $(seq $fleet); do
    "$vmctl" --json show "fleet$i" | grep -q '"power-off"' && ended=$((ended + 1))
    "$vmctl" rm "fleet$i" >/dev/null || not_ok "rm fleet$i"
done
check "each ended by its own power-off" test $ended -eq $fleet

"$vmctl" create cycle --kernel "$guest/vmlinux" --memory 128M --append quiet >/dev/null
done_cycles=0
for _ in $(seq $cycles); do
    "$vmctl" start cycle >/dev/null && "$vmctl" kill cycle >/dev/null && done_cycles=$((done_cycles + 1))
done
check "$cycles cycles of start and kill" test $done_cycles -eq $cycles
"$vmctl" rm cycle >/dev/null
# The compiler stays for half a minute, for the next machine.
no_child() {
    ! pgrep -P "$daemon" >/dev/null
}
check "no child is left" wait_for 120 no_child
# Once is enough: whoever asks vmmd something has a descriptor there for a moment.
no_descriptor() {
    [ "$(descriptors)" -le "$before_descriptors" ]
}
check "no descriptor is left" wait_for 60 no_descriptor
check "vmmd ends cleanly" daemon_stop
check "no file is left" nothing_left
