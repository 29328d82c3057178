# For the integration tests: a fresh runtime directory, the real daemons, and clean-up. Source it.
# Each test function calls ok NAME or not_ok NAME DETAIL; `finish` gives the exit status.
#
# PLAIN="vcpud": in a build with sanitizers these programs are taken from the one without. Unless it is said
# (PLAIN= for none), that is vcpud where threads are watched: a guest would be twenty times slower.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top" || exit 1
build=${BUILD:-build}
bin=$top/$build/bin
guest=$top/build/guests/riscv64
vmctl=$bin/vmctl
PATH=$PATH:/sbin:/usr/sbin

work=$(mktemp -d "${TMPDIR:-/tmp}/pv-test.XXXXXX")
export POLYVISOR_RUNTIME_DIR=$work/run
export POLYVISOR_CACHE_DIR=$work/cache
failures=0
daemon=
. "$top/tests/sanitizers/reports.sh"
sanitizers_watch "$work/reports"
case $build in
*san-*thread*) sanitizers_without "$work/build" ${PLAIN-vcpud} ;;
*san-*) sanitizers_without "$work/build" ${PLAIN-} ;;
esac

# A sanitizer's run is slow: scale counts down, never checks.
slow_build() {
    case $build in *san-*) return 0 ;; *) return 1 ;; esac
}

ok() {
    echo "ok - $1"
}

not_ok() {
    echo "not ok - $1"
    shift
    printf '%s\n' "$@" | sed 's/^/    /'
    failures=$((failures + 1))
}

# check NAME CONDITION...: the condition is a command.
check() {
    local name=$1
    shift
    if "$@"; then
        ok "$name"
    else
        not_ok "$name" "failed: $*"
    fi
}

# refused CODE PATTERN COMMAND...: fails with that code, a message of that pattern, and a hint.
refused() {
    local code=$1 pattern=$2
    shift 2
    ! "$@" >/dev/null 2>"$work/refused" && grep -q "\[$code\]" "$work/refused" &&
        grep -qE -- "$pattern" "$work/refused" && grep -q hint: "$work/refused" ||
        { sed 's/^/    /' "$work/refused"; false; }
}

# A port of this host that nobody has now, neither by TCP nor by UDP. Not one that the kernel gives to whoever asks
# for any: such a port could be somebody's connection by the time it is used.
free_port() {
    python3 -c '
import random, socket
with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
    least = int(file.read().split()[0])
ports = range(10000, least) if least > 12000 else range(10000, 65536)
while True:
    port = random.choice(ports)
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as one:
                one.bind(("", port))
    except OSError:
        continue
    print(port)
    break'
}

# Processes of ours that name the runtime directory of this test.
our_processes() {
    pgrep -f "$work" | while read -r pid; do
        case $(readlink "/proc/$pid/exe" 2>/dev/null) in
        "$bin"/*) echo "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)" ;;
        esac
    done
}

# Wait until a condition holds: at most $1 seconds of a host that has nothing else to do, then fail.
# Bounds a hang, proves no speed: a busy or slower host gets WAIT_FACTOR times as long, and some minutes at least.
wait_for() {
    local limit=$(($1 * ${WAIT_FACTOR:-4})) end
    [ $limit -ge 180 ] || limit=180
    shift
    end=$((SECONDS + limit))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

daemon_answers() {
    "$vmctl" list >/dev/null 2>&1
}

daemon_start() { # OPTION...
    "$bin/vmmd" "$@" >>"$work/vmmd.log" 2>&1 &
    daemon=$!
    wait_for 20 daemon_answers
}

# Follow vmmd's events, into a file; from when this returns on, none is missed. The process in $listener.
# vmctl cannot say itself when vmmd has heard of it: a machine that comes and goes shows it.
events_begin() { # FILE OPTION...
    local file=$1
    shift
    : >"$file"
    "$vmctl" events "$@" >"$file" 2>/dev/null &
    listener=$!
    wait_for 60 events_come "$file"
}
events_come() { # FILE
    "$vmctl" create listening --kernel "$vmctl" >/dev/null && "$vmctl" rm listening >/dev/null && [ -s "$1" ]
}

# Whether vmctl tells of a machine's process that it is confined so: WORD is "seccomp", for example.
is_confined() { # MACHINE ROLE WORD
    "$vmctl" --json show "$1" | python3 -c '
import json, sys
sys.exit(not any(process["role"] == sys.argv[1] and sys.argv[2] in process["confinement"]
                 for process in json.load(sys.stdin)["processes"]))' "$2" "$3"
}

daemon_stop() {
    [ -n "$daemon" ] || return 0
    kill -TERM "$daemon" 2>/dev/null
    wait "$daemon"
    local status=$?
    daemon=
    return $status
}

# Boot the stock kernel with a script of the initrd; console to $work/NAME.out, status lines to
# NAME.err. A boot that hangs ends with status 124, and its test can tell. boot NAME SCRIPT OPTION...
boot() {
    local name=$1 script=$2
    shift 2
    timeout --kill-after=10 "${BOOT_LIMIT:-400}" "$vmctl" run --name "$name" --arch riscv64 --kernel "$guest/vmlinux" \
        --initrd "$guest/test-initrd.cpio.gz" --append "quiet script=$script" "$@" \
        >"$work/$name.out" 2>"$work/$name.err" </dev/null
}

nothing_left() {
    [ -z "$(our_processes)" ] && [ -z "$(find "$POLYVISOR_RUNTIME_DIR" -mindepth 1 \
        -not -path "$POLYVISOR_RUNTIME_DIR/private" 2>/dev/null)" ]
}

# finish [STATUS]: of a test that ends without having said what failed.
finish() {
    # A child that a signal ends before it has forgotten this trap must not clean up for us.
    [ "$BASHPID" -eq $$ ] || exit
    trap - EXIT
    daemon_stop
    local left
    left=$(our_processes)
    if [ -n "$left" ]; then
        not_ok "no process is left" "$left"
        echo "$left" | while read -r pid _; do kill -9 "$pid" 2>/dev/null; done
    fi
    if left=$(sanitizers_reports "$work/reports"); then
        not_ok "no sanitizer found anything" "$left"
    fi
    rm -rf "$work"
    [ "$failures" -eq 0 ] || exit 1
    exit "${1:-0}"
}
trap 'finish $?' EXIT
