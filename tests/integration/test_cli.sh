#!/usr/bin/env bash
# vmctl with bad input: each gets its message, its code, its exit status, and leaves nothing behind.
. "$(dirname "$0")/lib.sh"

# ---- How a refusal looks ----

# What exists because of us: processes, and files of the runtime directory.
# The compiler serves all machines: it comes and goes when vmmd sees fit.
traces() {
    our_processes | sed 's/^[0-9]* //' | grep -v '^jitd ' | sort
    find "$POLYVISOR_RUNTIME_DIR" -mindepth 1 -not -path "$POLYVISOR_RUNTIME_DIR/private" \
        -not -name jitd.sock 2>/dev/null | sort
}
same_traces() {
    [ "$(traces)" = "$1" ]
}

# refuse NAME STATUS CODE MESSAGE ARGUMENT...: as text and as JSON. STATUS, CODE and MESSAGE are
# extended regular expressions. Every refusal has a hint unless MESSAGE begins with "!".
refuse() {
    local name=$1 status=$2 code=$3 message=${4#!} got problems='' before
    local want_hint=y
    [ "$message" = "$4" ] || want_hint=
    shift 4
    before=$(traces)
    timeout -k 5 300 "$vmctl" "$@" </dev/null >"$work/out" 2>"$work/err"
    got=$?
    [[ $got =~ ^$status$ ]] || problems+="exit status $got instead of $status; "
    grep -qE "^vmctl: error: .*$message.* \[$code\]$" "$work/err" || problems+="wrong message; "
    [ -z "$want_hint" ] || grep -q '^  hint: .' "$work/err" || problems+="no hint; "
    [ ! -s "$work/out" ] || problems+="something on standard output; "

    timeout -k 5 300 "$vmctl" --json "$@" </dev/null >"$work/json.out" 2>"$work/json.err"
    got=$?
    [[ $got =~ ^$status$ ]] || problems+="exit status $got with --json; "
    grep -E "^\{\"error\":\{\"code\":\"$code\",\"message\":\".*\",\"hint\":\".*\",\"component\":\".+\",\"cause\":-?[0-9]+,\"exit_status\":$status\}\}$" \
        "$work/json.err" | grep -qE -e "$message" || problems+="wrong JSON; "
    wait_for 10 same_traces "$before" || problems+="left behind: $(traces); "
    if [ -z "$problems" ]; then
        ok "$name"
    else
        not_ok "$name" "vmctl $*: $problems" "$(cat "$work/err" "$work/json.err")"
    fi
}

# ---- Command lines ----

refuse "no command" 2 usage 'a command is missing'
refuse "an unknown command" 2 usage "unknown command 'lits'" lits
grep -q "did you mean 'vmctl list'" "$work/err"
check "it is guessed" test $? -eq 0
refuse "an unknown option" 2 usage 'unknown option --memroy' run --memroy 1G
grep -q 'did you mean --memory?' "$work/err"
check "it is guessed" test $? -eq 0
refuse "an unknown global option" 2 usage 'unknown option --jsn' --jsn list
refuse "an unknown letter" 2 usage 'unknown option -z' list -z
refuse "an option of another command" 2 usage 'unknown option --kernel' list --kernel x
refuse "a missing value" 2 usage 'option --kernel needs a value' run --kernel
refuse "a value for a flag" 2 usage '!option --json takes no value' list --json=yes
refuse "a missing argument" 2 usage 'NAME is missing' show
refuse "too many arguments" 2 usage 'too many arguments' show a b
refuse "an argument for none" 2 usage 'too many arguments' list a
refuse "the second argument" 2 usage 'exec: COMMAND is missing' exec a
refuse "an action without its argument" 2 usage 'disk resize: SIZE is missing' disk resize a
refuse "no action" 2 usage 'device: what to do is missing' device
refuse "an unknown action" 2 usage "cache: 'frob' is none of its actions" cache frob
refuse "a bad machine name" 2 usage "'../a' is not a machine name" create ../a --kernel /x
refuse "nothing to boot" 2 usage 'run needs --image, --kernel or --firmware' run
refuse "an initrd without kernel" 2 usage '!--initrd needs --kernel' run --firmware /x --initrd /y
refuse "an unknown architecture" 2 usage "unknown value 'vax'" run --kernel /x --arch vax
refuse "an unknown engine" 2 usage "unknown value 'magic'" run --kernel /x --engine magic
for size in 1.5G 512MB -1 x '' 0x10 99999999999999999999 99999999T; do
    refuse "memory of '$size'" 2 usage "--memory: '$size' is" run --kernel /x --memory "$size"
done
refuse "no number of processors" 2 usage "!--cpus: 'two' is not a number" run --kernel /x --cpus two
refuse "a bad time" 2 usage "--timeout: 'soon' is not a duration" list --timeout soon
refuse "a bad disk" 2 usage "--disk: unknown word 'file" run --kernel /x --disk file=/x
refuse "an unknown disk format" 2 usage "--disk: unknown format 'vmdk'" run --kernel /x --disk path=/x,format=vmdk
refuse "a bad network" 2 usage '--net: not a rule' run --kernel /x --net user,hostfwd=tcp:22
refuse "a long runtime directory" 6 bad-config '!runtime directory' \
    list --runtime-dir "/$(printf 'x%.0s' {1..200})"

# ---- No vmmd, or something else in its place ----

refuse "no runtime directory" 11 no-daemon "no vmmd runs in .*/run" list
refuse "no runtime directory for events" 11 no-daemon "no vmmd runs in .*/run" events
mkdir -m 700 "$POLYVISOR_RUNTIME_DIR"
refuse "no control socket" 11 no-daemon 'there is no control.sock' list
touch "$POLYVISOR_RUNTIME_DIR/control.sock"
refuse "a file as control socket" 11 no-daemon 'is not a socket' list
rm "$POLYVISOR_RUNTIME_DIR/control.sock"
chmod 777 "$POLYVISOR_RUNTIME_DIR"
refuse "a runtime directory open to all" 15 permission 'is writable by others' list
chmod 700 "$POLYVISOR_RUNTIME_DIR"

# A server that greets each client with the bytes of $1 (or not at all) and reads for ever.
foreign_server() {
    python3 - "$POLYVISOR_RUNTIME_DIR/control.sock" "$1" <<'PYTHON' &
import select, socket, sys
path, greeting = sys.argv[1], sys.argv[2].encode().decode("unicode_escape").encode("latin-1")
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(16)
clients = []
while True:
    for one in select.select([server] + clients, [], [])[0]:
        if one is server:
            client = server.accept()[0]
            clients.append(client)
            client.send(greeting)
        else:
            try:
                if not one.recv(65536):
                    raise OSError
            except OSError:
                clients.remove(one)
PYTHON
    server=$!
    wait_for 10 test -S "$POLYVISOR_RUNTIME_DIR/control.sock"
}
foreign_stop() {
    kill $server
    wait $server 2>/dev/null
    [ "$1" = keep ] || rm -f "$POLYVISOR_RUNTIME_DIR/control.sock"
}

foreign_server 'HTTP/1.1 400 Bad Request\r\n\r\n'
refuse "a foreign control socket" 12 bad-message 'is not the socket of a vmmd' list
foreign_stop keep
refuse "a dead control socket" 11 no-daemon 'nobody listens' list
rm "$POLYVISOR_RUNTIME_DIR/control.sock"
foreign_server ''
refuse "a silent control socket" 11 no-daemon 'nobody answers' list --timeout 3s
foreign_stop
foreign_server '\0SP\0\0\x31\0\0'
refuse "a control socket that greets and never answers" 13 timeout 'did not answer in time' \
    list --timeout 3s
foreign_stop
foreign_server '\0SP\0\0\x31\0\0\x01\0\0\0\0\0\0\0\x03abc'
refuse "a control socket that sends rubbish after its greeting" '1[123]' \
    '(no-daemon|bad-message|timeout)' '' list --timeout 3s
foreign_stop
rmdir "$POLYVISOR_RUNTIME_DIR"

# ---- Images ----

if [ ! -f "$guest/vmlinux" ]; then
    echo "skip - bad images and disks (no kernel in $guest)"
    exit
fi
kernel=$guest/vmlinux
run=(run --name bad --timeout 200s)

refuse "a missing kernel" 7 bad-kernel "!'$work/none'" "${run[@]}" --kernel "$work/none"
: >"$work/empty"
refuse "an empty kernel" 7 bad-kernel '!is empty' "${run[@]}" --kernel "$work/empty"
refuse "a directory as kernel" 7 bad-kernel '!directory' "${run[@]}" --kernel "$work"
for size in 40 1000 100000; do
    head -c $size "$kernel" >"$work/short"
    refuse "a kernel cut to $size bytes" 7 bad-kernel '!' "${run[@]}" --kernel "$work/short"
done
head -c $(($(stat -Lc %s "$kernel") - 4096)) "$kernel" >"$work/short"
refuse "a kernel without its end" 7 bad-kernel 'truncated' "${run[@]}" --kernel "$work/short"
head -c 100000 /dev/zero >"$work/zeroes"
refuse "a kernel of zeroes" 7 bad-kernel '!' "${run[@]}" --kernel "$work/zeroes"
refuse "a program of the host as kernel" 7 bad-kernel '!x86-64|arm64' "${run[@]}" --kernel "$(readlink -f /bin/true)"
{
    head -c 56 /dev/zero
    printf 'ARM\x64'
    head -c 100000 /dev/zero
} >"$work/arm64"
refuse "a kernel of another architecture" 7 bad-kernel '!arm64' "${run[@]}" --kernel "$work/arm64"
gzip -c "$work/zeroes" >"$work/kernel.gz"
refuse "a compressed kernel" 7 bad-kernel 'gzip' "${run[@]}" --kernel "$work/kernel.gz"
refuse "a missing firmware" 7 bad-kernel "!'$work/none'" "${run[@]}" --firmware "$work/none"
refuse "an empty firmware" 7 bad-kernel '!is empty' "${run[@]}" --firmware "$work/empty"
refuse "a missing initrd" 7 bad-kernel "!initrd '$work/none'" "${run[@]}" --kernel "$kernel" --initrd "$work/none"
truncate -s 1G "$work/huge"
refuse "an initrd larger than memory" 10 no-memory 'does not fit' \
    "${run[@]}" --kernel "$kernel" --initrd "$work/huge" --memory 256M
refuse "a kernel larger than memory" 10 no-memory '!' "${run[@]}" --kernel "$kernel" --memory 16M

# ---- Sizes ----

for size in 0 1 1M; do
    refuse "memory of $size" 10 no-memory 'at least' "${run[@]}" --kernel "$kernel" --memory "$size"
done
refuse "more memory than the host has" 10 no-memory 'host has' \
    "${run[@]}" --kernel "$kernel" --memory "$(($(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 + 1024))M"
refuse "more memory than there is anywhere" 10 no-memory '' "${run[@]}" --kernel "$kernel" --memory 16777215T
refuse "no processors" 6 bad-config '!CPUs' "${run[@]}" --kernel "$kernel" --cpus 0
refuse "too many processors" 6 bad-config '!CPUs' "${run[@]}" --kernel "$kernel" --cpus 4096
refuse "a huge command line" 6 bad-config '!command line' \
    "${run[@]}" --kernel "$kernel" --append "$(printf 'x%.0s' {1..20000})"

# ---- Disks ----

refuse "a missing disk" 8 bad-disk "!'$work/none'" "${run[@]}" --kernel "$kernel" --disk "path=$work/none"
refuse "a directory as disk" 8 bad-disk '!directory' "${run[@]}" --kernel "$kernel" --disk "path=$work"
truncate -s 1M "$work/disk"
chmod 444 "$work/disk"
refuse "a write-protected disk" 8 bad-disk 'cannot be written' "${run[@]}" --kernel "$kernel" --disk "path=$work/disk"
chmod 644 "$work/disk"
refuse "an empty disk" 8 bad-disk 'is empty' "${run[@]}" --kernel "$kernel" --disk "path=$work/empty"
truncate -s 1000 "$work/odd"
refuse "a disk of an odd size" 8 bad-disk 'multiple of 512' "${run[@]}" --kernel "$kernel" --disk "path=$work/odd"
printf 'QFI\xfb' | cat - /dev/zero | head -c 1M >"$work/qcow2"
refuse "an image of another format" 16 unsupported 'qcow2' "${run[@]}" --kernel "$kernel" --disk "path=$work/qcow2"
refuse "a disk named twice" 9 in-use '' "${run[@]}" --kernel "$kernel" \
    --disk "path=$work/disk" --disk "path=$work/disk"
refuse "an interface that is not there" 6 bad-config "no interface 'pvnone'" "${run[@]}" --kernel "$kernel" \
    --net tap,ifname=pvnone
refuse "an architecture that is not there yet" 16 unsupported '' "${run[@]}" --kernel "$kernel" --arch arm64

# ---- With a vmmd: names and states ----

daemon_start
refuse "a machine that does not exist" 3 not-found "'none'" show none
for command in start stop kill rm stats console; do
    refuse "$command of a machine that does not exist" 3 not-found "'none'" "$command" none
done
check "a machine is created" "$vmctl" create one --kernel "$kernel" --disk "path=$work/disk"
refuse "a name twice" 4 exists "'one'" create one --kernel "$kernel"
refuse "create with a missing kernel" 7 bad-kernel '!' create two --kernel "$work/none"
for command in stop kill stats console; do
    refuse "$command of a machine that does not run" 5 wrong-state "'one'" "$command" one
done
check "a machine is started" "$vmctl" start one
refuse "a second start" 5 wrong-state "'one'" start one
refuse "removal of a running machine" 5 wrong-state "'one'" rm one
refuse "a disk of another machine" 9 in-use "'$work/disk'" create two --kernel "$kernel" --disk "path=$work/disk"
refuse "a disk of another machine, with run" 9 in-use "'$work/disk'" \
    "${run[@]}" --kernel "$kernel" --disk "path=$work/disk"
refuse "another machine's disk, read-only" 9 in-use "'$work/disk'" \
    create two --kernel "$kernel" --disk "path=$work/disk,readonly"
check "it is still there" test "$("$vmctl" -q list)" = one
check "it is killed and removed" "$vmctl" rm --force one
check "nothing is listed" test -z "$("$vmctl" -q list)"

# ---- With a vmmd: bad messages on its socket ----

# Send raw bytes as nanomsg messages of a request socket; print the code of each answer.
raw_requests() {
    python3 - "$POLYVISOR_RUNTIME_DIR/control.sock" <<'PYTHON'
import socket, struct, sys

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(200)
    s.connect(sys.argv[1])
    s.sendall(b"\0SP\0\0\x30\0\0")
    assert s.recv(8, socket.MSG_WAITALL) == b"\0SP\0\0\x31\0\0"
    return s

def message(payload):
    body = struct.pack(">I", 0x80000001) + payload
    return b"\1" + struct.pack(">Q", len(body)) + body

def frame(payload, magic=b"PVM1", kind=1, length=None):
    return magic + struct.pack("<HHI", kind, 0, len(payload) if length is None else length) + payload

def ask(name, payload):
    s = connect()
    s.sendall(message(payload))
    try:
        head = s.recv(9, socket.MSG_WAITALL)
        body = s.recv(struct.unpack(">Q", head[1:])[0], socket.MSG_WAITALL) if len(head) == 9 else b""
    except OSError:
        body = b"no answer"
    print(name, "refused" if b"bad-message" in body else repr(body[:80]))
    s.close()

ask("empty", b"")
ask("short frame", b"PVM1\1")
ask("foreign magic", frame(b"\x5a\0", magic=b"HTTP"))
ask("other conversation", frame(b"\x5a\0", kind=3))
ask("truncated", frame(b"\x5a\0", length=200))
ask("overlong", frame(b"\x5a\0\x5a\0", length=2))
ask("no message", frame(b"\xff" * 50))
ask("no request in it", frame(b"\x08\1"))
ask("oversized", frame(b"\x5a\0" + bytes(1 << 20)))

# Cut off, or larger than anything: no answer is due, but nobody else may notice.
s = connect()
s.sendall(b"\1" + struct.pack(">Q", 1 << 62) + b"x" * 100)
t = connect()
t.sendall(b"\1" + struct.pack(">Q", 1000) + b"x" * 10)
u = socket.socket(socket.AF_UNIX)
u.connect(sys.argv[1])
u.sendall(b"GET / HTTP/1.0\r\n\r\n")
v = socket.socket(socket.AF_UNIX)
v.connect(sys.argv[1])
v.close()
PYTHON
}
raw_requests >"$work/raw"
if [ "$(grep -c ' refused$' "$work/raw")" -eq 9 ] && [ "$(wc -l <"$work/raw")" -eq 9 ]; then
    ok "malformed, truncated and oversized requests are refused by vmmd"
else
    not_ok "malformed, truncated and oversized requests are refused by vmmd" "$(cat "$work/raw")"
fi
check "vmmd serves others meanwhile" "$vmctl" list --timeout 200s
check "a request that is too large is not even sent" \
    sh -c "! '$vmctl' create big --kernel /x --append \"\$(head -c 100000 /dev/zero | tr '\\0' x)\" 2>'$work/err' && grep -q bad-config '$work/err'"
kill -STOP "$daemon"
refuse "a vmmd that hangs" '1[13]' '(no-daemon|timeout)' '' list --timeout 3s
kill -CONT "$daemon"
check "vmmd goes on" "$vmctl" list --timeout 200s
check "shutdown ends vmmd" "$vmctl" shutdown
wait "$daemon"
check "with exit status 0" test $? -eq 0
daemon=
check "nothing is left" nothing_left
