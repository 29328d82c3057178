#!/usr/bin/env bash
# The processes of devices are killed and stopped at random moments while the guest uses them: it
# loses nothing, sees nothing twice and has nothing to complain of.
#
#   test_recovery.sh [KIND...]    disk, serial, console, rng, rtc; all of them at once if none is named
#
# KILLS and STOPS say how often, for each kind: KILLS=200 STOPS=20 is the long proof; TOGETHER how often all are
# struck at the same instant. DISK= adds settings to the disks, OPTIONS= to the machine: DISK=,cache=none
# OPTIONS="--irqchip plic"
. "$(dirname "$0")/lib.sh"

kills=${KILLS:-10} stops=${STOPS:-1}
slow_build && kills=${KILLS:-3}
[ $# -gt 0 ] || set -- disk serial console rng rtc

export PYTHONDONTWRITEBYTECODE=1
daemon_start
python3 "$top/tests/integration/recovery.py" "$vmctl" "$daemon" "$guest" "$work" "$kills" "$stops" "$@" || failures=1
