#!/usr/bin/env bash
# The agent of each guest architecture runs and does its part, without a guest: over a Unix socket,
# natively or under user-mode QEMU. vmctl is at the other end, through what stands for the vsock.
. "$(dirname "$0")/lib.sh"

is() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "got: $3"; fi
}
peer=tests/integration/vsock_peer.py
declare -A emulators=([riscv64]=qemu-riscv64-static [arm64]=qemu-aarch64-static [x86_64]=qemu-x86_64-static)
declare -A machines=([riscv64]=riscv64 [arm64]=aarch64 [x86_64]=x86_64)

head -c 300000 /dev/urandom >"$work/data"
sum=$(sha256sum <"$work/data")

try() { # ARCH
    local arch=$1 run=() socket=$work/$1.sock vsock=$work/$1.vsock
    gx() { timeout 600 "$vmctl" exec --vsock "$vsock" "$@"; }
    if [ "${machines[$arch]}" != "$(uname -m)" ]; then
        run=("${emulators[$arch]}")
        command -v "${run[0]}" >/dev/null || { echo "skip - $arch: there is no ${run[0]}"; return; }
    fi
    check "$arch: it is static" sh -c "! readelf -l 'build/agent/$arch/polyvisor-agent' | grep -q INTERP"
    "${run[@]}" "build/agent/$arch/polyvisor-agent" --unix "$socket" --patience 3600 2>"$work/$arch.err" &
    agent=$!
    wait_for 20 test -S "$socket"
    python3 $peer bridge "$vsock" "$socket" &
    bridge=$!
    wait_for 20 test -S "$vsock"
    is "$arch: it tells its architecture" "$arch" "$(timeout 600 "$vmctl" --json agent --vsock "$vsock" any |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["isa"])')"
    is "$arch: a command" "hello 3" "$(gx -n any -- sh -c 'echo hello; exit 3' | tr '\n' ' '; echo "${PIPESTATUS[0]}")"
    is "$arch: input and output" "$sum" "$(gx any -- cat <"$work/data" | sha256sum)"
    is "$arch: a signal's status" 143 "$(gx -n any -- sh -c 'kill -TERM $$'; echo $?)"
    # A script starts the agent with '&', and so it ignores this one itself.
    is "$arch: no signal is ignored from the start" 130 "$(gx -n any -- sh -c 'kill -INT $$'; echo $?)"
    is "$arch: no such program" 127 "$(gx -n any -- /no/such/program 2>/dev/null; echo $?)"
    check "$arch: a terminal" grep -q "a terminal" <(script -qec \
        "timeout 300 '$vmctl' exec -t --vsock '$vsock' any -- sh -c '[ -t 0 ] && [ -t 1 ] && echo a terminal'" /dev/null </dev/null)
    gx -n any -- sh -c "echo \$\$ >'$work/$arch.pid'; exec yes" 2>/dev/null | head -n 1 >/dev/null
    gone() { ! kill -0 "$(cat "$work/$arch.pid")" 2>/dev/null; }
    check "$arch: a command whose reader leaves is ended, not left to wait" wait_for 60 gone
    check "$arch: a file there" timeout 600 "$vmctl" cp --vsock "$vsock" "$work/data" "any:$work/$arch.copy"
    check "$arch: and back" timeout 600 "$vmctl" cp --vsock "$vsock" "any:$work/$arch.copy" "$work/$arch.back"
    check "$arch: with its bytes" cmp "$work/data" "$work/$arch.back"
    # Were it to take it for a guest, this would end with 0: there is no such device.
    is "$arch: without a vsock it changes no machine" 1 "$(python3 $peer builtin "$socket" eject ffff:ff:1f.7)"
    kill "$agent" "$bridge"
    wait "$agent" "$bridge" 2>/dev/null
}

for arch in riscv64 arm64 x86_64; do
    try $arch
done

# An agent that lies: nothing of it reaches a terminal as it is, and it ends.
python3 $peer liar "$work/liar" &
liar=$!
python3 $peer liar "$work/endless" endless &
endless=$!
wait_for 20 test -S "$work/liar" -a -S "$work/endless"
told=$(timeout 600 "$vmctl" agent --vsock "$work/liar" any)
check "control characters of an agent are not shown" sh -c '! printf "%s" "$1" | tr -d "\n" | LC_ALL=C grep -q "[[:cntrl:]]"' sh "$told"
is "what makes no sense is left out" "True None None None None 7" \
    "$(timeout 600 "$vmctl" --json agent --vsock "$work/liar" any | python3 -c '
import json, sys
told = json.load(sys.stdin)
print(*(told[key] for key in ("answers", "version", "kernel", "uptime_s", "agent_uptime_s", "clock_steps")))')"
timeout 600 "$vmctl" --timeout 3s agent ping --vsock "$work/endless" any >/dev/null 2>&1
status=$?
check "an agent that never stops is given up" test $status -ne 0 -a $status -ne 124
# What a guest may send: more than was asked for, without end.
limited() { # SIZE FROM OPTION...
    local size=$1 from=$2
    shift 2
    timeout 600 "$vmctl" cp "$@" --limit "$size" --vsock "$from" any:/file "$work/limited" 2>"$work/err"
}
python3 $peer flood "$work/flood" &
flood=$!
wait_for 60 test -S "$work/flood"
limited 4M "$work/flood"
check "a file without end stops at its limit, and leaves nothing" \
    sh -c 'test $1 -eq 17 && grep -q "more than the 4194304 bytes" "$2" && ! ls "$3"* 2>/dev/null' sh $? "$work/err" "$work/limited"
limited 10 "$work/liar"
check "so does a small one" sh -c 'test $1 -eq 17 && grep -q "more than the 10 bytes" "$2" && ! ls "$3"* 2>/dev/null' sh $? "$work/err" "$work/limited"
limited 4M "$work/flood" -r
check "and a tree" sh -c 'test $1 -eq 17 && grep -q "more than the 4194304 bytes" "$2"' sh $? "$work/err"

# Agents of another version, and what is no agent: said at once, and not tried again and again.
python3 $peer stranger "$work/stranger" 7 &
stranger=$!
python3 $peer babbler "$work/babbler" &
babbler=$!
wait_for 60 test -S "$work/stranger" -a -S "$work/babbler"
check "an agent of another version is told as that" refused bad-message 'version 7 of its protocol, vmctl version 1' \
    timeout 600 "$vmctl" exec -n --vsock "$work/stranger" any -- true
check "so for agent and cp" sh -c '! "$1" agent --vsock "$2" any 2>"$3" && grep -q bad-message "$3" &&
    ! "$1" cp --vsock "$2" any:/file - 2>"$3" && grep -q bad-message "$3"' sh "$vmctl" "$work/stranger" "$work/err"
check "frames that make no sense end the command" refused bad-message 'makes no sense' \
    timeout 600 "$vmctl" exec -n --vsock "$work/babbler" any -- true
kill $liar $endless $stranger $babbler $flood
wait $stranger $babbler $flood 2>/dev/null
wait $liar $endless 2>/dev/null || true # the signal's status is not the test's

# A guest that sends hostile trees, into a folder with a link that an earlier one left.
mkdir -p "$work/trees/outside" && echo secret >"$work/trees/outside/secret" && python3 $peer trees "$work/trees"
outside=$(ls -lR --time-style=full-iso "$work/trees/outside")
for tree in through above root new-link hard-link hard-link-up folder mode harmless; do
    python3 $peer sender "$work/trees/$tree.sock" "$work/trees/$tree.tar" '\x1b[2Jtold\xc2\x9b\n' &
    sender=$!
    wait_for 60 test -S "$work/trees/$tree.sock"
    rm -rf "$work/trees/dest" && mkdir "$work/trees/dest" && ln -s ../outside "$work/trees/dest/out"
    timeout 600 "$vmctl" cp -r --vsock "$work/trees/$tree.sock" any:/tree "$work/trees/dest" 2>"$work/trees/err"
    status=$?
    is "a tree ($tree) changes nothing outside of its folder" "$outside" \
        "$(ls -lR --time-style=full-iso "$work/trees/outside")"
    check "and links to nothing there" test ! "$work/trees/dest/l" -ef "$work/trees/outside/secret"
    kill $sender
    wait $sender 2>/dev/null
done
check "a harmless one comes whole" test $status -eq 0 -a "$(cat "$work/trees/dest/file")" = evil \
    -a -L "$work/trees/dest/link" -a -z "$(find "$work/trees/dest" -perm /6000)"
is "what cp shows of a guest moves no cursor" "?[2Jtold?" "$(LC_ALL=C tr -cd '[:print:]' <"$work/trees/err")"

# One that never ends: who wants an end gets it.
python3 $peer deaf "$work/deaf" &
deaf=$!
wait_for 60 test -S "$work/deaf"
"$vmctl" exec -n --vsock "$work/deaf" any -- work >"$work/begun" 2>"$work/err" &
client=$!
wait_for 60 test -s "$work/begun"
given_up() { kill -TERM $client 2>/dev/null; ! kill -0 $client 2>/dev/null; }
check "a command that heeds no signal is left to itself" wait_for 60 given_up
kill -9 $client 2>/dev/null; kill $deaf
wait $client $deaf 2>/dev/null

# A process of the vsock that accepts nobody.
python3 $peer mute "$work/mute" &
mute=$!
wait_for 60 test -S "$work/mute"
timeout 600 "$vmctl" exec -n --vsock "$work/mute" any -- work 2>"$work/err"
is "a vsock that nobody serves is an error" 125 $?
kill $mute
wait $mute 2>/dev/null || true # the signal's status is not the test's
