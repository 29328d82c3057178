#!/usr/bin/env bash
# The devices of one machine are killed; another machine notices nothing.
# More with NEIGHBOUR_PERIODS= (of NEIGHBOUR_SECONDS=).
. "$(dirname "$0")/lib.sh"

export PYTHONDONTWRITEBYTECODE=1
daemon_start
python3 "$top/tests/integration/neighbour.py" "$vmctl" "$daemon" "$guest" "$work" \
    "${NEIGHBOUR_PERIODS:-12}" "${NEIGHBOUR_SECONDS:-1.5}" || failures=1
