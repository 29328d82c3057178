#!/usr/bin/env bash
# The balloon: memory that a guest gives up, or reports as free, is the host's again; the guest's data stays
# whole through it all, also when the balloon's process is killed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

kills=${KILLS:-4}
slow_build && kills=2
mib=$((1024 * 1024))

number() { # KEY [OPTION]: of the balloon's description
    "$vmctl" --json balloon m ${2:+"$2"} | tr -d ' \n' | sed -nE "s/.*\"$1\":([a-z0-9]+).*/\1/p"
}
at_most() { local got; got=$(number "$1") && [ -n "$got" ] && [ "$got" -le "$2" ]; }
at_least() { local got; got=$(number "$1") && [ -n "$got" ] && [ "$got" -ge "$2" ]; }
has() { [ "$(number "$1")" = "$2" ]; }
daemon_start
machine m --memory 256M && ok "a machine starts" || { not_ok "a machine starts"; exit; }
check "without a driver nothing but the target changes" "$vmctl" balloon m 200M
check "and it is said that there is none" has driver false
wait_for 120 answered m 1
check "the driver loads" ask m "load-modules balloon"
check "it takes up the target" wait_for 120 has guest_bytes $((200 * mib))
"$vmctl" balloon m 256M
check "and gives memory back to the guest" wait_for 120 has guest_bytes $((256 * mib))
check "the guest tells what it has" test "$(number total_bytes --stats)" -gt $((128 * mib))
check "for people, too" sh -c "'$vmctl' balloon m --stats | grep -q 'available:'"

# Memory that a program used and freed comes back by itself: free page reporting.
ask m "head -c 62914560 /dev/zero | tr '\\0' x >/tmp/big; head -c 8388608 /dev/urandom >/tmp/data" >/dev/null
sum=$(ask m "sha256sum </tmp/data")
full=$(number resident_bytes)
check "what the guest uses is resident" test "$full" -ge $((60 * mib))
ask m "rm /tmp/big" >/dev/null
check "what it frees comes back by itself" wait_for 120 at_most resident_bytes $((full - 48 * mib))
check "and is counted" wait_for 60 at_least reported_bytes $((48 * mib))
echo "# resident: $((full / mib)) MiB, then $(($(number resident_bytes) / mib)) MiB"

# A balloon in memory that the guest has used, so that it is resident: it stays low without reports, too.
"$vmctl" balloon m 160M
check "a balloon leaves the guest what is asked" wait_for 180 has guest_bytes $((160 * mib))
check "and the host has the rest" wait_for 60 at_most resident_bytes $((168 * mib))
check "the guest's data is whole" test "$(ask m "sha256sum </tmp/data")" = "$sum"

# Without room for it the guest takes back what it needs, before it kills anything.
check "a guest in need deflates the balloon" ask m "[ \$(head -c 100000000 /dev/zero | tail -c 100000000 | wc -c) = 100000000 ]"
check "by itself" wait_for 60 at_least guest_bytes $((161 * mib))

# Kills while it inflates and deflates.
killed=0
for ((i = 0; i < kills; i++)); do
    pid=$(pid_of m devd/balloon0)
    "$vmctl" balloon m $((i % 2 ? 240 : 160))M >/dev/null
    [ -n "$pid" ] && kill -9 "$pid" && wait_for 60 replaced m devd/balloon0 "$pid" && killed=$((killed + 1))
done
check "$kills times killed while it changes" test "$killed" -eq "$kills"
check "a new target is reached" sh -c "'$vmctl' balloon m 176M"
check "by the new process" wait_for 180 has guest_bytes $((176 * mib))
check "the guest tells what it has, as before" test "$(number free_bytes --stats)" -gt 0
check "its data is whole" test "$(ask m "sha256sum </tmp/data")" = "$sum"
"$vmctl" balloon m 256M
check "and the balloon empties" wait_for 180 has guest_bytes $((256 * mib))
check "the guest's log has no complaint" test -z "$(ask m 'dmesg | grep -iE "balloon|bad page|BUG|corrupt|out of memory" | grep -v -e registered -e puff')"

check "more than there is is refused" refused bad-config . "$vmctl" balloon m 257M
check "nothing is refused" refused bad-config . "$vmctl" balloon m 0
check "a size is one" refused usage . "$vmctl" balloon m much
check "no such machine" refused not-found . "$vmctl" balloon other
"$vmctl" create n --arch riscv64 --kernel "$guest/vmlinux" --balloon off >/dev/null
check "a machine that does not run has none" refused wrong-state . "$vmctl" balloon n
check "the option is checked" refused usage . "$vmctl" create o --kernel "$guest/vmlinux" --balloon some
check "and what it says" refused bad-config . "$vmctl" create o --kernel "$guest/vmlinux" --balloon memory=2G
"$vmctl" rm n
end m
shells_end
