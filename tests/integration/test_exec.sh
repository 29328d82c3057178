#!/usr/bin/env bash
# Commands and files of a guest through its agent: streams, statuses, signals, terminals, and the death
# of the vsock's process, of the client and of the network between in the middle of it all.
. "$(dirname "$0")/lib.sh"

mib=8 kills=15
slow_build && mib=1 kills=3
socket=$work/v.sock data=$work/data
head -c "${mib}M" /dev/urandom >"$data"
sum=$(sha256sum <"$data")

device_pid() {
    "$vmctl" --json show m | tr -d ' \n' | sed -nE 's/.*"role":"devd\/vsock0","pid":([0-9]+).*/\1/p;t
        s/.*"pid":([0-9]+),"role":"devd\/vsock0".*/\1/p'
}
replaced() { # PID
    local now
    now=$(device_pid)
    [ -n "$now" ] && [ "$now" != "$1" ]
}
gx() { timeout 600 "$vmctl" exec "$@"; }
is() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "got: $3"; fi
}

daemon_start
"$vmctl" create m --arch riscv64 --kernel "$guest/vmlinux" --memory 256M --initrd "$guest/test-initrd.cpio.gz" \
    --append "quiet script=commands" --vsock "path=$socket" >/dev/null && "$vmctl" start m >/dev/null ||
    { not_ok "a machine with a vsock starts"; exit; }

is "a command's output, once the agent is up" riscv64 "$(gx --wait 400s m -- uname -m)"
gx -n m -- sh -c 'exit 7'; is "its status" 7 $?
gx -n m -- sh -c 'kill -TERM $$'; is "a signal's status" 143 $?
gx -n m -- /no/such/program 2>"$work/err"; is "no such program" 127 $?
check "and it is said" grep -q "cannot run '/no/such/program'" "$work/err"
gx -n m -- /etc 2>/dev/null; is "a program that cannot be run" 126 $?
gx -n other -- true 2>/dev/null; is "no such machine" 125 $?
is "standard error apart" "out" "$(gx -n m -- sh -c 'echo out; echo err >&2' 2>"$work/err")"
is "and whole" err "$(cat "$work/err")"
is "a folder" /tmp "$(gx -n --folder /tmp m -- pwd)"
is "no input" 0 "$(gx -n m -- wc -c)"
is "words stay words" "<a  b> <\$HOME> <>" "$(gx -n m -- sh -c 'echo "<$1> <$2> <$3>"' x 'a  b' '$HOME' '')"
is "input of $mib MiB" "$sum" "$(gx m -- sha256sum <"$data")"
is "both ways at once" "$sum" "$(gx m -- cat <"$data" | sha256sum)"
is "a command that does not read its input" 3 "$(gx m -- sh -c 'exit 3' <"$data"; echo $?)"
is "a reader that leaves" ok "$(gx -n m -- yes 2>/dev/null | head -n1 >/dev/null; echo ok)"
is "many at once" 8 "$(for i in 1 2 3 4 5 6 7 8; do gx m -- sha256sum <"$data" & done | grep -c "${sum%% *}")"
many=$(head -c 70000 /dev/zero | tr '\0' x)
gx -n m -- echo "$many" >/dev/null 2>"$work/err"; is "too many words" 126 $?

"$vmctl" exec -n m -- sleep 1000 & client=$!
started() { # SECONDS: the guest sleeps so many
    gx -n m -- sh -c 'for pid in $(pidof sleep); do tr "\0" " " </proc/$pid/cmdline | grep -qx "sleep $1 *" && exit; done; exit 1' sh "$1"
}
wait_for 60 started 1000
kill -TERM $client
wait $client; is "a signal is passed on" 143 $?
check "a terminal" grep -q "yes 24 80" <(script -qec "stty rows 24 cols 80; timeout --foreground 300 '$vmctl' exec -t m -- sh -c '[ -t 0 ] && [ -t 1 ] && echo yes \$(stty size)'" /dev/null </dev/null)

# In the background of a terminal (timeout without --foreground puts it there) the command runs, and
# nothing that waits to be read from the terminal stops it or keeps a signal from it.
in_background() { SHELL=/bin/sh timeout 600 script -qec "stty rows 24 cols 80; $1; echo status \$?" /dev/null; }
check "a terminal's background" grep -q "here 24 80" <(in_background "timeout 300 '$vmctl' exec -t m -- sh -c 'echo here \$(stty size)'" <<<"input")
check "ends on a signal" grep -q "status 124" <(in_background "timeout 5 '$vmctl' exec -t m -- sleep 3000" <<<"input")

# The process of the vsock dies under a command, again and again: not a byte is lost or doubled.
gx m -- sh -c 'while read -r line; do echo "$line"; done' < <(seq 1 20000; sleep 1) >"$work/echo" &
client=$!
killed=0
for ((i = 0; i < kills; i++)); do
    pid=$(device_pid)
    [ -n "$pid" ] && kill -9 "$pid" && wait_for 20 replaced "$pid" && killed=$((killed + 1))
done
wait $client; is "a command outlives $kills deaths of the device" 0 $?
is "that many" "$kills" "$killed"
is "its output is whole" "$(seq 1 20000 | sha256sum)" "$(sha256sum <"$work/echo")"

# A client that dies takes its command with it, after a while.
"$vmctl" exec -n m -- sleep 2000 & client=$!
wait_for 60 started 2000
kill -9 $client
wait $client 2>/dev/null

# Files.
cpx() { timeout 600 "$vmctl" cp "$@"; }
chmod 750 "$data"
check "a file to the guest" cpx "$data" m:/tmp/copy
is "with its bytes" "$sum" "$(gx -n m -- sh -c 'sha256sum </tmp/copy')"
is "and its mode" 750 "$(gx -n m -- stat -c %a /tmp/copy)"
check "and back" cpx m:/tmp/copy "$work/back"
is "the same" "$sum" "$(sha256sum <"$work/back")"
check "into a folder" cpx "$data" m:/tmp
is "by its name" "$sum" "$(gx -n m -- sh -c 'sha256sum </tmp/data')"
is "to standard output" "$sum" "$(cpx m:/tmp/copy - | sha256sum)"
mkdir -p "$work/tree/a/b" && echo one >"$work/tree/a/1" && echo two >"$work/tree/a/b/2" && ln -s 1 "$work/tree/a/link"
check "a tree to the guest" cpx -r "$work/tree" m:/tmp/tree
check "and back" cpx -r m:/tmp/tree "$work/tree2"
check "the same" diff -r "$work/tree" "$work/tree2"
gx -n m -- sh -c 'mkdir /tmp/odd && mknod /tmp/odd/disk b 8 0 && echo >/tmp/odd/program && chmod 6755 /tmp/odd/program'
cpx -r m:/tmp/odd "$work/odd" 2>/dev/null
check "a guest's tree brings no device, and no program that runs as another user" \
    test -f "$work/odd/program" -a ! -b "$work/odd/disk" -a -z "$(find "$work/odd" -perm /6000)"
cpx m:/no/such "$work/none" 2>"$work/err"; check "what is not there is an error" test $? -ne 0 -a ! -e "$work/none"
check "which names it" grep -q /no/such "$work/err"
cpx "$data" "$work/x" 2>/dev/null; is "two files of the host" 2 $?
cpx "$data" m:/proc/none 2>/dev/null; check "where nothing can be written" test $? -ne 0

ended() { ! gx -n m -- pidof sleep >/dev/null; }
check "a command whose client died has ended" wait_for 120 ended
"$vmctl" kill m >/dev/null
gx -n m -- true 2>"$work/err"; is "a machine that does not run" 125 $?
"$vmctl" rm m >/dev/null
