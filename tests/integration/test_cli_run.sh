#!/usr/bin/env bash
# vmctl run and console with a tiny guest of our own: streams, keys, signals, ends.
. "$(dirname "$0")/lib.sh"

if ! command -v riscv64-linux-gnu-gcc >/dev/null; then
    echo "skip - vmctl run and console (no riscv64 compiler)"
    exit
fi

# ---- A guest in a hundred instructions ----
# Prints "ready", then echoes what it reads from its serial port, except:
# q powers off, f and F report failure (by SBI and by the test device, code 7), m prints a megabyte,
# z prints NUL and all other bytes, d stops reading.
cat >"$work/echo.S" <<'ASSEMBLY'
    .option norvc
    .option norelax
    .globl _start
_start: j main
    .word 0
    .quad 0x200000, end - _start, 0
    .word 2, 0
    .quad 0
    .ascii "RISCV\0\0\0RSC\5"
    .word 0
main:
    li s0, 0x10000000           # 16550
    li t0, 1
    sb t0, 2(s0)                # FIFOs on: sixteen bytes once the transmitter is empty
    lbu t0, 2(s0)               # they are on before anything else is looked at
    li s3, 0
    lla s1, text
1:  lbu a0, (s1)
    beqz a0, loop
    jal putc
    addi s1, s1, 1
    j 1b
loop:
    jal getc
    li t0, 'q'
    beq a0, t0, off
    li t0, 'f'
    beq a0, t0, fail
    li t0, 'F'
    beq a0, t0, fail_device
    li t0, 'm'
    beq a0, t0, megabyte
    li t0, 'z'
    beq a0, t0, bytes
    li t0, 'd'
    beq a0, t0, deaf
    jal putc
    j loop
off:
    li a1, 0
    j reset
fail:
    li a1, 1
reset:
    li a0, 0
    li a6, 0
    li a7, 0x53525354
    ecall
fail_device:
    li t0, 0x100000
    li t1, 0x73333
    sw t1, (t0)
deaf:
    wfi
    j deaf
megabyte:
    li s2, 1 << 20
1:  andi a0, s2, 63
    addi a0, a0, 48
    jal putc
    addi s2, s2, -1
    bnez s2, 1b
    j loop
bytes:
    li s2, 0
1:  mv a0, s2
    jal putc
    addi s2, s2, 1
    li t0, 256
    bne s2, t0, 1b
    j loop
putc:
    bnez s3, 1f
    lbu t0, 5(s0)
    andi t0, t0, 0x20
    beqz t0, putc
    li s3, 16
1:  addi s3, s3, -1
    sb a0, (s0)
    ret
getc:
    lbu t0, 5(s0)
    andi t0, t0, 1
    beqz t0, getc
    lbu a0, (s0)
    ret
text: .asciz "ready\n"
    .balign 8
end:
ASSEMBLY
riscv64-linux-gnu-gcc -nostdlib -static -Wl,-Ttext=0,--build-id=none -o "$work/echo.elf" "$work/echo.S" &&
    riscv64-linux-gnu-objcopy -O binary "$work/echo.elf" "$work/echo" || exit 1

machine=(--kernel "$work/echo" --memory 32M)

# run_with NAME INPUT OPTION...: standard input from a pipe. Output in NAME.out and NAME.err.
run_with() {
    local name=$1 input=$2
    shift 2
    printf "$input" | timeout -k 5 600 "$vmctl" run "${machine[@]}" "$@" >"$work/$name.out" 2>"$work/$name.err"
}
# ended NAME STATUS WANTED: the last command's status, and that nothing is left.
ended() {
    local got=$?
    if [ $got -eq "$2" ] && nothing_left; then
        ok "$1"
    else
        not_ok "$1" "exit status $got, expected $2" "$(cat "$work"/*.err)" "$(our_processes)" \
            "$(find "$POLYVISOR_RUNTIME_DIR")"
    fi
}

# ---- Ends of the guest ----

run_with off q
ended "power-off is exit status 0" 0
check "standard output has the guest's bytes only" test "$(cat "$work/off.out")" = ready
check "standard error has nothing" test ! -s "$work/off.err"
run_with fail f
ended "failure by the guest is exit status 20" 20
grep -q 'the guest reported failure.*\[guest-failure\]' "$work/fail.err"
check "and said" test $? -eq 0
run_with fail F
ended "failure by the test device, too" 20
grep -q 'code 7' "$work/fail.err"
check "with its code" test $? -eq 0
run_with fail f --json
ended "failure with --json" 20
grep -q '^{"error":{"code":"guest-failure",.*"exit_status":20}}$' "$work/fail.err"
check "is a JSON object" test $? -eq 0
run_with stream abcq --engine interp --cpus 2 --name named --quiet
ended "options are accepted together" 0
check "input from a pipe is echoed" test "$(tail -n 1 "$work/stream.out")" = abc

# ---- Streams, exactly ----

run_with bytes zq
ended "all bytes" 0
{
    printf 'ready\n'
    for i in $(seq 0 255); do printf "\\x$(printf %x "$i")"; done
} >"$work/bytes.want"
check "every byte arrives as it was sent" cmp -s "$work/bytes.out" "$work/bytes.want"
check "and none is added" test ! -s "$work/bytes.err"

count=$((1 << 16))
head -c $count /dev/zero | tr '\0' 'x' >"$work/input"
{
    cat "$work/input"
    printf q
} | timeout 600 "$vmctl" run "${machine[@]}" >"$work/paced.out" 2>"$work/paced.err"
ended "a long input" 0
check "none of it is lost" test "$(wc -c <"$work/paced.out")" -eq $((count + 6))

printf mq | timeout 600 "$vmctl" run "${machine[@]}" 2>"$work/slow.err" |
    (sleep 2 && cat) >"$work/slow.out"
check "a slow reader loses nothing" test "$(wc -c <"$work/slow.out")" -eq $(((1 << 20) + 6))
check "nothing is left after it" nothing_left

mkfifo "$work/fifo"
timeout 300 "$vmctl" run "${machine[@]}" <"$work/fifo" >"$work/eof.out" 2>"$work/eof.err" &
client=$!
exec 9>"$work/fifo"
wait_for 30 grep -q ready "$work/eof.out"
printf x >&9
wait_for 30 grep -q x "$work/eof.out"
check "input arrives as it is written" test $? -eq 0
exec 9>&-
sleep 0.5
check "the end of input is not the end" kill -0 $client
kill -TERM $client
wait $client
ended "SIGTERM is exit status 143" 143

# ---- Signals and broken streams ----

for signal in INT:130 HUP:129 QUIT:131 TERM:143; do
    rm -f "$work/signal.out"
    (
        # A shell's background jobs ignore SIGINT and SIGQUIT; a program started so leaves them alone.
        exec python3 -c 'import signal, os, sys
signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGQUIT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$vmctl" run "${machine[@]}" </dev/null
    ) >"$work/signal.out" 2>"$work/signal.err" &
    client=$!
    wait_for 30 grep -qs ready "$work/signal.out"
    kill -"${signal%:*}" $client
    wait $client
    ended "SIG${signal%:*} ends the machine, exit status ${signal#*:}" "${signal#*:}"
done
# At any moment of the start.
bad=0
for delay in 0 0.005 0.01 0.02 0.03 0.05 0.08; do
    "$vmctl" run "${machine[@]}" </dev/null >"$work/early.out" 2>"$work/early.err" &
    client=$!
    sleep $delay
    kill -TERM $client
    wait $client
    [ $? -eq 143 ] && nothing_left || bad=$((bad + 1))
done
check "SIGTERM while it starts leaves nothing" test $bad -eq 0

printf m | timeout 300 "$vmctl" run "${machine[@]}" 2>"$work/pipe.err" | head -c 100 >"$work/pipe.out"
status=${PIPESTATUS[1]}
(exit "$status")
ended "a reader that leaves ends the machine" 17
grep -q 'standard output.*\[io\]' "$work/pipe.err"
check "and is said" test $? -eq 0
timeout 300 "$vmctl" run "${machine[@]}" </dev/null 2>"$work/pipe.err" | head -c 6 >"$work/pipe.out"
(exit "${PIPESTATUS[0]}")
ended "even while the guest is silent" 17
timeout 300 "$vmctl" run "${machine[@]}" >/dev/full </dev/null 2>"$work/pipe.err"
ended "a full output ends the machine" 17
printf q | timeout 300 "$vmctl" run "${machine[@]}" >&- 2>"$work/closed.err"
ended "closed standard output is no accident" 0
timeout 300 "$vmctl" run "${machine[@]}" <&- >"$work/closed.out" 2>"$work/closed.err" &
client=$!
wait_for 30 grep -qs ready "$work/closed.out"
check "closed standard input is an end of input" kill -0 $client
kill $client
wait $client

# ---- Processes that die ----

start_idle() {
    rm -f "$work/idle.out"
    "$vmctl" run "${machine[@]}" </dev/null >"$work/idle.out" 2>"$work/idle.err" &
    client=$!
    wait_for 30 grep -qs ready "$work/idle.out"
}
process_of() { # PROGRAM: a process of this test
    our_processes | grep -m 1 "[/ ]$1 \|^[0-9]* $1 \|bin/$1" | cut -d ' ' -f 1
}
start_idle
kill -KILL "$(process_of devd)"
check "a killed device is said" wait_for 60 grep -qs "device-died" "$work/idle.err"
check "and that another took over" wait_for 60 grep -qs "device-restarted" "$work/idle.err"
kill -KILL "$(process_of vmmd)"
wait $client
ended "a killed vmmd is exit status 14, and is cleaned up after" 14
grep -q '\[crashed\]' "$work/idle.err"
check "and said" test $? -eq 0
start_idle
kill -KILL "$(process_of vcpud)"
wait $client
ended "a killed vcpud is exit status 14" 14
start_idle
kill -KILL $client
wait $client 2>/dev/null
check "a killed vmctl takes everything along" wait_for 30 nothing_left
start_idle
kill -STOP "$(process_of vmmd)"
stopped=$(process_of vmmd)
kill -TERM $client
sleep 0.2
kill -CONT "$stopped"
wait $client
ended "a vmmd that was held up is waited for" 143

# ---- The terminal ----

# Drive vmctl on a pseudo-terminal. The script's commands: "send TEXT", "expect TEXT", "signal NAME",
# "raw" and "cooked" (what the terminal must be), "detach-tty", "exit STATUS".
on_terminal() { # NAME SCRIPT ARGUMENT...
    local name=$1 script=$2
    shift 2
    if timeout 600 python3 - "$script" "$vmctl" "$@" >"$work/terminal.log" 2>&1 <<'PYTHON'; then
import os, pty, select, signal, sys, termios, time
script, argv = sys.argv[1], sys.argv[2:]
controller, terminal = pty.openpty()
before = termios.tcgetattr(terminal)
pid = os.fork()
if pid == 0:
    os.setsid()
    import fcntl
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(terminal, fd)
    os.closerange(3, 64)
    os.execv(argv[0], argv)
seen = b""

def pump(seconds):
    global seen
    if select.select([controller], [], [], seconds)[0]:
        data = os.read(controller, 4096)
        sys.stdout.write(data.decode("latin-1"))
        seen += data

def until(condition, what):
    end = time.monotonic() + 240
    while not condition():
        if time.monotonic() > end:
            sys.exit("\nno %s; seen: %r" % (what, seen))
        pump(0.05)

def is_raw():
    return not termios.tcgetattr(terminal)[3] & termios.ICANON

for line in script.strip().split("\n"):
    verb, _, text = line.strip().partition(" ")
    text = text.encode().decode("unicode_escape").encode("latin-1")
    if verb == "send":
        os.write(controller, text)
    elif verb == "expect":
        until(lambda: text in seen, repr(text))
        seen = seen[seen.index(text) + len(text):]
    elif verb == "raw":
        until(is_raw, "raw mode")
    elif verb == "cooked":
        until(lambda: not is_raw(), "cooked mode")
        if termios.tcgetattr(terminal) != before:
            sys.exit("the terminal was not restored")
    elif verb == "signal":
        os.kill(pid, getattr(signal, "SIG" + text.decode()))
    elif verb == "stopped":
        until(lambda: open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()[0] == "T", "stop")
    elif verb == "hangup":
        os.close(terminal)
        os.close(controller)
        controller = os.open("/dev/null", os.O_RDONLY)
    elif verb == "exit":
        def over():
            global status
            done, status = os.waitpid(pid, os.WNOHANG)
            return done
        if text.startswith(b"!"):
            over_status = os.waitpid(pid, 0)[1]
        else:
            until(over, "end")
            over_status = status
        got = os.waitstatus_to_exitcode(over_status)
        if got != int(text.lstrip(b"!")):
            sys.exit("\nexit status %d" % got)
PYTHON
        ok "$name"
    else
        not_ok "$name" "$(cat -v "$work/terminal.log")"
    fi
    [ -n "$daemon" ] || wait_for 30 nothing_left || not_ok "$name: nothing is left" "$(our_processes)"
}

on_terminal "typed keys reach the guest one by one" '
expect Ctrl-] ?
expect ready
raw
send \x03a\x1ab\x04
expect \x03a\x1ab\x04
send q
exit 0
cooked' run "${machine[@]}"
on_terminal "Ctrl-] x and again end the machine" '
expect ready
raw
send \x1dx
expect power off
send \x1dx
exit 0
cooked' run "${machine[@]}"
on_terminal "Ctrl-] twice means the same, Ctrl-] k kills" '
expect ready
raw
send \x1d\x1d
expect power off
send \x1dk
exit 0
cooked' run "${machine[@]}"
on_terminal "Ctrl-] ? explains, Ctrl-] l is for the guest" '
expect ready
raw
send \x1d?
expect end the machine now
send \x1dl!
expect \x1d!
send q
exit 0
cooked' run "${machine[@]}"
on_terminal "one can leave a guest that does not read" '
expect ready
raw
send d
send xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
send \x1dk
exit 0
cooked' run "${machine[@]}"
for signal in INT:130 TERM:143 HUP:129 QUIT:131; do
    on_terminal "SIG${signal%:*} restores the terminal" "
expect ready
raw
signal ${signal%:*}
exit ${signal#*:}
cooked" run "${machine[@]}"
done
on_terminal "stop and continue keep the terminal right" '
expect ready
raw
signal TSTP
stopped
cooked
signal CONT
raw
send a
expect a
send q
exit 0
cooked' run "${machine[@]}"
on_terminal "an error restores the terminal" '
expect [bad-kernel]
exit 7
cooked' run --kernel /nowhere
on_terminal "failure of the guest, too" '
expect ready
raw
send f
expect [guest-failure]
exit 20
cooked' run "${machine[@]}"
on_terminal "a terminal that goes away ends the machine" '
expect ready
raw
hangup
exit !129' run "${machine[@]}"
on_terminal "--quiet says nothing of its own" '
expect ready
raw
send q
exit 0
cooked' run --quiet "${machine[@]}"
grep -q polyvisor: "$work/terminal.log"
check "indeed" test $? -ne 0

# ---- Attached to a machine of vmmd ----

daemon_start
"$vmctl" create guest "${machine[@]}" && "$vmctl" start guest
check "a machine of vmmd runs" test $? -eq 0
on_terminal "console: attach with backlog, type, detach" '
expect ready
raw
send hello
expect hello
send \x1d
expect detached
exit 0
cooked' console guest
on_terminal "console: again, the backlog first" '
expect ready
expect hello
send \x1d
exit 0
cooked' console guest
on_terminal "console: without backlog" '
raw
send new
expect new
send \x1d
exit 0
cooked' console --no-backlog guest
grep -q ready "$work/terminal.log"
check "indeed without" test $? -ne 0
on_terminal "console: read-only" '
expect ready
raw
send q
send \x1d
exit 0
cooked' console --read-only guest
check "the guest did not see what was typed" sh -c "'$vmctl' show guest | grep -q '^State: *running'"
printf 'tube' | timeout 300 "$vmctl" console guest >"$work/piped.out" 2>"$work/piped.err" &
piped=$!
events_begin "$work/events" --json
events=$listener
wait_for 30 grep -qs tube "$work/piped.out"
check "console: input from a pipe" test $? -eq 0
check "stats" sh -c "'$vmctl' --json stats guest | grep -q '\"retired\": [1-9]'"
on_terminal "console: ends with the machine" '
expect tube
send q
exit 0
cooked' console guest
wait $piped
check "for everyone who was attached" test $? -eq 0
check "the machine has stopped" sh -c "'$vmctl' --json show guest | grep -q '\"end_reason\": \"power-off\"'"
check "events are told" wait_for 20 grep -q '"kind":"stopped".*"machine":"guest"' "$work/events"
kill $events
wait $events 2>/dev/null

"$vmctl" start guest
check "stop --timeout 0 ends a deaf guest" "$vmctl" stop --timeout 0 guest
"$vmctl" start guest
start=$SECONDS
"$vmctl" stop --timeout 1 guest
check "stop --timeout 1 insists" test $? -eq 0
check "and the reason is kept" sh -c "'$vmctl' show guest | grep -q '^State: *stopped'"
"$vmctl" start guest
events_begin "$work/events"
events=$listener
check "shutdown stops what runs" "$vmctl" shutdown
wait $events
check "events end with vmmd" test $? -eq 11
wait "$daemon"
check "vmmd ended well" test $? -eq 0
daemon=
# Machines that were created stay: only their record.
check "no process is left" test -z "$(our_processes)"
