#!/bin/bash
# vmmd under resource limits: a machine that cannot have what it wants is refused, and vmmd goes on.
. "$(dirname "$0")/lib.sh"

head -c 4096 /dev/zero >"$work/kernel"

# A limit of file sizes holds for memory too. Its signal once ended vmmd.
ulimit -S -f 64
daemon_start
ulimit -S -f unlimited
"$vmctl" create small --kernel "$work/kernel" --memory 64M >/dev/null 2>"$work/create.err"
check "a machine larger than the limit of file sizes is configured" test $? -eq 0
"$vmctl" start small >/dev/null 2>"$work/start.err"
status=$?
if [ $status -ne 0 ] && grep -q 'no-memory' "$work/start.err"; then
    ok "its start is refused"
else
    not_ok "its start is refused" "status $status" "$(cat "$work/start.err")"
fi
check "vmmd goes on" daemon_answers
"$vmctl" rm small
