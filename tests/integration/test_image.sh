#!/usr/bin/env bash
# Images: what vmctl image says of files, machines that boot one, commands in fresh machines, cloud-init
# disks, and builds that cannot be.
#
# The default boots a small image that is put together here. With IMAGE_BUILD=1 (make check-image) a
# Debian image is built, booted, reached by ssh, and made to install a package: several minutes, and the
# mirror of this machine.
. "$(dirname "$0")/lib.sh"

export POLYVISOR_IMAGE_DIR=$work/images
mkdir "$work/empty"
cd "$work/empty" || exit 1
tiny=$work/images/tiny.img
mkdir "$work/images"

is() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected: $2" "got: $3"; fi
}
says() { # WHAT STATUS PATTERN COMMAND...: how it fails
    local what=$1 wanted=$2 pattern=$3 said status
    shift 3
    said=$(timeout 120 "$@" 2>&1 </dev/null)
    status=$?
    if [ $status -eq "$wanted" ] && grep -qE -- "$pattern" <<<"$said"; then
        ok "$what"
    else
        not_ok "$what" "status $status, expected $wanted; pattern: $pattern" "$said"
    fi
}
scratch_is_empty() {
    [ -z "$(ls -A "$POLYVISOR_CACHE_DIR/scratch" 2>/dev/null)" ]
}

# A boot partition with the kernel and the initrd of the tests.
make_tiny() { # FILE
    local sectors=163840 part=$1@@1M
    truncate -s 96M "$1"
    echo "label: gpt
start=2048, size=$sectors, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B" | sfdisk -q "$1"
    mformat -i "$part" -F -T $sectors -H 2048 ::
    echo "quiet script=commands" >"$work/command-line"
    printf 'arch=riscv64\ndistribution=none\nsuite=tiny\npolyvisor=0.0.1\nagent=1\n' >"$work/words"
    mcopy -i "$part" "$guest/vmlinux" ::VMLINUX
    mcopy -i "$part" "$guest/test-initrd.cpio.gz" ::INITRD.IMG
    mcopy -i "$part" "$work/command-line" ::CMDLINE.TXT
    mcopy -i "$part" "$work/words" ::IMAGE.INF
}

# ---- Packages that are unpacked here ----

# The link of one package is where another's file would be unpacked to: on the host.
make_package() { # NAME: from $work/NAME
    mkdir -p "$work/$1/DEBIAN"
    printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n' "$1" >"$work/$1/DEBIAN/control"
    dpkg-deb -b "$work/$1" "$work/archives/${1}_1_all.deb" >/dev/null
}
mkdir -p "$work/archives" "$work/outside" "$work/build" "$work/base-files/usr" "$work/leak/usr/way"
ln -s "$work/outside" "$work/base-files/usr/way"
echo secret >"$work/leak/usr/way/file"
make_package base-files
make_package leak
printf '%s_1_all.deb\n' base-files leak >"$work/build/base"
says "a package is not unpacked to places of the host" 1 "would be unpacked to $work/outside" \
    env PV_ARCH=riscv64 fakeroot -- bash -c 'exec "$@" 3>/dev/null' - "$top/image/make-root" "$work/build" "$work/archives" "$top/image" 0 0
is "and nothing of it is there" "" "$(ls "$work/outside")"

# ---- What is said of images ----

is "no images are an empty list" "[]" "$("$vmctl" --json image list)"
make_tiny "$tiny"
check "an image is listed" sh -c "'$vmctl' image list | grep -q '^tiny *none tiny *riscv64 *96 MiB'"
check "with the version that made it" sh -c "'$vmctl' image list | grep -q ' 0[.]0[.]1$'"
check "which is shown" sh -c "'$vmctl' image show tiny | grep -q '^Made by: *polyvisor 0[.]0[.]1, its agent speaks version 1$'"
check "and shown by name" sh -c "'$vmctl' image show tiny | grep -q '^Command line:quiet script=commands'"
check "or by its file, as JSON" sh -c "'$vmctl' --json image show '$tiny' | grep -q '\"arch\": \"riscv64\"'"
head -c 100000 "$tiny" >"$work/images/cut.img"
check "a damaged one is listed, too" sh -c "'$vmctl' image list | grep -q '^cut *(damaged)'"
says "and not booted" 8 'damaged.*\[bad-disk\]' "$vmctl" run --image cut
check "but removed" "$vmctl" image rm cut
says "once" 3 'cut.*\[not-found\]' "$vmctl" image rm cut
says "a name is no path" 2 'not a name' "$vmctl" image rm ../images/tiny
says "no such image" 3 "no image 'none'.*\[not-found\]" "$vmctl" run --image none
says "what is no image" 8 'not an image.*bad-disk' "$vmctl" run --image "$guest/fio.img"
says "of another architecture" 6 'is for riscv64' "$vmctl" run --image tiny --arch arm64
says "--persistent alone" 2 'needs --image' "$vmctl" run --persistent --kernel "$guest/vmlinux"
says "user-data that is not there" 3 'not-found' "$vmctl" run --image tiny --cloud-init "$work/none"

# ---- Commands in fresh machines ----

sum=$(sha256sum <"$tiny")
printf '#cloud-config\nhostname: seeded\n' >"$work/user-data"
mkdir "$work/shared" && echo "from the host" >"$work/shared/in"
out=$(printf 'one\ntwo\n' | timeout 300 "$vmctl" run --image tiny --cloud-init "$work/user-data" --share "$work/shared:/work" -- sh -c '
    cat; echo "$1"; ls /sys/class/net | grep -c eth; cat /sys/block/vdb/ro
    dd if=/dev/vdb bs=1 skip=32808 count=6 2>/dev/null; echo
    grep -ac "hostname: seeded" /dev/vdb
    cat /work/in; echo "from the guest" >/work/out
    echo changed | dd of=/dev/vda bs=512 seek=1000 conv=notrunc 2>/dev/null; sync
    echo problem >&2; exit 7' x 'a  b' 2>"$work/err")
status=$?
is "a command's exit status is vmctl's" 7 $status
is "its streams are ours, its words whole; a network, a read-only cloud-init disk, a share" \
    "$(printf 'one\ntwo\na  b\n1\n1\nCIDATA\n1\nfrom the host')" "$out"
is "what it wrote to the share is here" "from the guest" "$(cat "$work/shared/out")"
is "standard error apart" problem "$(cat "$work/err")"
is "what it wrote to its disk is gone" "$sum" "$(sha256sum <"$tiny")"
check "and so is the machine" nothing_left
check "and its disk" scratch_is_empty

cp --sparse=always "$tiny" "$work/own.img"
timeout 300 "$vmctl" run --image "$work/own.img" --persistent --net none -n -- sh -c '
    ls /sys/class/net | grep eth; echo kept | dd of=/dev/vda bs=512 seek=1000 conv=notrunc 2>/dev/null; sync
    killall acpid; setsid sh -c "trap \"echo told | dd of=/dev/vda bs=512 seek=1001 conv=notrunc; sync\" TERM
        echo waits >/ready; while :; do sleep 1; done" </dev/null >/dev/null 2>&1 &
    until [ -s /ready ]; do sleep 0.1; done' >"$work/out" 2>&1
is "a command succeeds; --net none is none" "0 " "$? $(cat "$work/out")"
sector() { dd if="$work/own.img" bs=512 skip="$1" count=1 2>/dev/null | head -n 1; }
is "--persistent keeps what it wrote" kept "$(sector 1000)"
is "its agent shuts it down, though nobody heeds the power key" told "$(sector 1001)"
mkfifo "$work/typed"
SHELL=/bin/sh timeout 300 script -qec "'$vmctl' run --image '$tiny' --net none" /dev/null <"$work/typed" >"$work/screen" 2>&1 &
client=$!
exec 7>"$work/typed"
check "a machine runs in a terminal" wait_for 120 grep -q '^status 0' "$work/screen"
echo 'killall acpid; echo no"body" heeds the key' >&7
wait_for 120 grep -q '^nobody heeds' "$work/screen"
printf '\035x' >&7
wait $client
is "Ctrl-] x ends it through its agent" "0 power-off" "$? $(sed -n 's/.*ended (\(.*\)).*/\1/p' "$work/screen" | tail -n 1)"
exec 7>&-
rm "$work/typed"
timeout 300 "$vmctl" run --image tiny --net none --append "script=words" -n -- sleep 600 >"$work/out" 2>&1 </dev/null
status=$?
is "a machine that ends before the command is one's own error" 125 $status
check "which is said" grep -q 'ended before.*\[crashed\]' "$work/out"
"$vmctl" run --image tiny --net none -n -- sleep 1000 >"$work/out" 2>&1 &
client=$!
laid_over() { [ -n "$(find "$POLYVISOR_CACHE_DIR/scratch" -name disk.qcow2 2>/dev/null)" ]; }
wait_for 60 laid_over
kill -TERM $client
wait $client
status=$?
check "a signal while it starts ends all" test $status -eq 143 -o $status -eq 125
check "and leaves nothing" nothing_left
check "of its disk, either" scratch_is_empty

# ---- Several machines on one image, larger disks, guests without an agent ----

mkfifo "$work/input"
timeout 300 "$vmctl" run --image tiny --net none -- sh -c '
    echo first | dd of=/dev/vda bs=512 seek=2000 conv=notrunc 2>/dev/null; sync; echo written
    cat; dd if=/dev/vda bs=512 skip=2000 count=1 2>/dev/null | head -n 1' <"$work/input" >"$work/first" 2>&1 &
client=$!
exec 7>"$work/input"
check "a machine runs" wait_for 120 grep -q written "$work/first"
ln -s "$tiny" "$work/link.img"
is "a second one on the same image sees nothing of it, by a link, too, and has a larger disk" "0 $((128 * 2048)) none" \
    "$? $(timeout 300 "$vmctl" run --image "$work/link.img" --image-size 128M --net none -n -- sh -c '
    cat /sys/block/vda/size; dd if=/dev/vda bs=512 skip=2000 count=1 2>/dev/null | grep first || echo none
    echo second | dd of=/dev/vda bs=512 seek=2000 conv=notrunc 2>/dev/null; sync' 2>"$work/err" | tr '\n' ' ' | sed 's/ $//')"
says "nobody writes to the image meanwhile" 9 'in use.*\[in-use\]' "$vmctl" run --image tiny --persistent --net none
echo >&7
exec 7>&-
wait $client
is "the first has what it wrote itself" "0 first" "$? $(tail -n 1 "$work/first")"
is "and the image is as it was" "$sum" "$(sha256sum <"$tiny")"
says "a disk smaller than its image" 6 'as many or more' "$vmctl" run --image tiny --image-size 64M
says "the size of an image that is used itself" 2 'disk of their own' "$vmctl" run --image tiny --persistent --image-size 1G
says "a guest without an agent is told of, with who made the image" 125 \
    'agent of an image that polyvisor 0.0.1 made did not answer within 2 s' \
    "$vmctl" run --image tiny --net none --append rdinit=/bin/sh --on-panic report --wait 2s -- true

# Without root: all the same.
if [ "$(id -u)" -eq 0 ] && setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$vmctl"; then
    chmod 711 "$work"
    mkdir "$work/n" && chown 65534:65534 "$work/n"
    out=$(POLYVISOR_RUNTIME_DIR="$work/n" POLYVISOR_CACHE_DIR='' XDG_CACHE_HOME="$work/n/cache" HOME="$work/n" TMPDIR="$work/n" \
        timeout 300 setpriv --reuid 65534 --regid 65534 --clear-groups \
        "$vmctl" run --image "$tiny" -n -- sh -c 'ls /sys/class/net | grep -c eth; exit 4' 2>"$work/err")
    is "without root all the same" "4 1 " "$? $out $(cat "$work/err")"
else
    echo "skip - nobody is not there to be"
fi

# ---- Machines that stay ----

export POLYVISOR_MACHINE_DIR=$work/machines
daemon_start
"$vmctl" --quiet create --image tiny --image-size 128M --net none --cloud-init "$work/user-data" stays 2>"$work/err"
is "a machine is created from an image" "0 " "$? $(cat "$work/err")"
mv "$tiny" "$work/away.img"
mv "$work/user-data" "$work/away-data"
"$vmctl" --quiet start stays
is "it needs neither image nor user-data any more, and has an agent to talk to" "0 $((128 * 2048)) 1 1" \
    "$? $(timeout 300 "$vmctl" exec --wait 2m -n stays -- sh -c '
    echo $(cat /sys/block/vda/size /sys/block/vdb/ro) $(grep -ac "hostname: seeded" /dev/vdb)
    echo mine | dd of=/dev/vda bs=512 seek=2000 conv=notrunc 2>/dev/null; sync')"
"$vmctl" --quiet kill stays
mv "$work/away.img" "$tiny"
mv "$work/away-data" "$work/user-data"
# Its system gets a new initrd: zeroes behind the last are nothing to a kernel.
{ cat "$guest/test-initrd.cpio.gz"; head -c 4096 /dev/zero; } >"$work/new-initrd"
mcopy -o -i "$work/machines/stays/disk.img@@1M" "$work/new-initrd" ::INITRD.IMG
"$vmctl" --quiet start stays
check "the next start takes the kernel that its system has then" cmp -s "$work/new-initrd" "$work/machines/stays/initrd"
is "its disk stays" "0 mine" "$? $(timeout 300 "$vmctl" exec --wait 2m -n stays -- dd if=/dev/vda bs=512 skip=2000 count=1 2>/dev/null | head -n 1)"
says "a disk that is in use is not removed, not even for another vmmd" 9 'in use' \
    env POLYVISOR_RUNTIME_DIR="$work/elsewhere" "$vmctl" rm --with-disk stays
check "it is removed, and its disk stays" sh -c "'$vmctl' rm --force stays && test -s '$work/machines/stays/disk.img'"
says "nobody gets that disk by accident" 4 'from before.*' "$vmctl" create --image tiny --net none stays
"$vmctl" --quiet create --image "$work/machines/stays/disk.img" --persistent --net none stays 2>"$work/err"
is "whoever names it may have it" "0 " "$? $(cat "$work/err")"
is "as it is" mine "$(dd if="$work/machines/stays/disk.img" bs=512 skip=2000 count=1 2>/dev/null | head -n 1)"
check "rm --with-disk removes it" "$vmctl" --quiet rm --with-disk stays
is "and all of it" "" "$(ls -A "$work/machines")"
mkdir -p "$work/machines/own" && cp --sparse=always "$tiny" "$work/machines/own/disk.img"
says "a creation that fails" 11 'no-daemon' env POLYVISOR_RUNTIME_DIR="$work/elsewhere" \
    "$vmctl" create --image "$work/machines/own/disk.img" --persistent own
check "leaves a disk of the user's own where it is" cmp -s "$tiny" "$work/machines/own/disk.img"
rm -r "$work/machines/own"
says "another one that fails" 3 "no image 'none'" "$vmctl" create --image none fails
is "leaves nothing" "" "$(ls -A "$work/machines")"
is "the image is as it was" "$sum" "$(sha256sum <"$tiny")"
daemon_stop

# ---- Builds that cannot be ----

build=("$vmctl" image build debian:trixie)
says "what is nothing to build" 2 'debian:trixie' "$vmctl" image build trixie
says "another distribution" 16 'debian is what there is' "$vmctl" image build fedora:42
says "another architecture" 16 'no images are built for arm64' "${build[@]}" --arch arm64
says "a disk too small" 6 'from 1 GiB' "${build[@]}" --size 10M
says "packages with a space" 2 'not the name of a package' "${build[@]}" --packages "a, b"
says "a host's name" 2 'not the name of a host' "${build[@]}" --hostname a.b
says "a password that nobody could be given" 2 "neither ':' nor" "${build[@]}" --root-password a:b
says "a key that is not there" 3 'none.pub' "${build[@]}" --ssh-key none.pub
says "a folder that is not there" 3 'cannot make a file' "${build[@]}" -o none/disk.img
touch there.img
says "a file that is there" 4 '--replace' "${build[@]}" -o there.img
says "a mirror of no use to a guest" 6 'not one that a guest could use' "${build[@]}" --mirror file:/mirror
printf 'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n' >"$work/apt.conf"
says "no mirror at all" 6 'knows no Debian mirror' env APT_CONFIG="$work/apt.conf" "${build[@]}"
# Nobody listens there.
says "no network" 17 'cannot fetch from.*\[io\]' "${build[@]}" --mirror http://127.0.0.1:1/debian
check "the hint names the log" sh -c "timeout 60 '$vmctl' image build debian:trixie --mirror http://127.0.0.1:1/d 2>&1 |
    sed -n 's/.*the log is \([^ ]*\).*/\1/p' | xargs cat | grep -q 127.0.0.1"
rm -f "$POLYVISOR_CACHE_DIR"/images/build-*.log

# A mirror of our own: what it has is not signed; another never answers.
mkdir -p "$work/mirror/dists/trixie"
printf 'Suite: trixie\nCodename: trixie\nArchitectures: riscv64\nComponents: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n' \
    >"$work/mirror/dists/trixie/Release"
cat >"$work/mirror.py" <<'END'
import functools, http.server, socket, sys, threading
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
mute = socket.create_server(("127.0.0.1", 0))
print(server.server_port, mute.getsockname()[1], flush=True)
server.serve_forever()
END
python3 "$work/mirror.py" "$work/mirror" >"$work/ports" 2>/dev/null &
mirror=$!
disown $mirror
wait_for 60 test -s "$work/ports"
read -r port mute <"$work/ports"
says "a mirror that nobody signed" 15 'not signed by Debian' "${build[@]}" --mirror "http://127.0.0.1:$port"
says "a suite that is not there" 3 "no Debian suite 'none'" "$vmctl" image build debian:none --mirror "http://127.0.0.1:$port"
"$vmctl" --json image build debian:trixie --mirror "http://127.0.0.1:$mute" >"$work/out" 2>"$work/err" &
client=$!
check "--json has a line a stage" wait_for 60 grep -q '^{"stage": *"lists"}$' "$work/out"
kill -TERM $client
wait $client
is "a signal ends a build" 143 $?
builders() { pgrep -f "$POLYVISOR_CACHE_DIR/scratch"; }
no_builders() { ! builders >/dev/null; }
check "with all it started" wait_for 60 no_builders
check "and leaves nothing half-made" scratch_is_empty
"$vmctl" --json image build debian:trixie --mirror "http://127.0.0.1:$mute" >"$work/out" 2>"$work/err" &
client=$!
check "another build goes as far" wait_for 60 grep -q '^{"stage": *"lists"}$' "$work/out"
kill -9 $client
wait $client 2>/dev/null
check "a build whose vmctl is killed ends, too" wait_for 60 no_builders
touch -d '5 minutes ago' "$POLYVISOR_CACHE_DIR"/scratch/* # younger ones may be being made
says "the next one" 17 'cannot fetch from' "${build[@]}" --mirror http://127.0.0.1:1/debian
check "removes what is left of it" scratch_is_empty
is "no image came of all this" "tiny.img" "$(ls "$work/images")"
kill $mirror
rm -rf "$POLYVISOR_CACHE_DIR/images"

# ---- The long version ----

[ -z "${IMAGE_BUILD:-}" ] || . "$top/tests/integration/image_debian.sh"
