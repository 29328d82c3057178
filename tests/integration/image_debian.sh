# The long part of test_image.sh: from an empty directory a Debian image is built, booted to its login,
# reached by ssh, made to install a package, to compile; and the same image under QEMU, with times of both.
# Without root: a root who runs this becomes nobody for it. Sourced; needs the mirror of this machine, ssh
# and some minutes. Downloads stay in build/image-cache.
#
# IMAGE_ROUNDS=N: how often each is timed (1); the medians are told. IMAGE_WITHOUT_QEMU=1: only ours.
# IMAGE_LIMIT= seconds for each wait (3600). IMAGE_KEEP=FOLDER: the image and its key stay there, and the
# next run takes them instead of building.

limit=${IMAGE_LIMIT:-3600}
rounds=${IMAGE_ROUNDS:-1}
tell() { # what 'make check-image' shows beside the results of tests
    printf 'figure - %s\n' "$*"
}
now() { date +%s.%N; }
since() { # START
    python3 -c "import sys, time; print(f'{time.time() - float(sys.argv[1]):.1f}')" "$1"
}

# ---- Who we are ----

downloads=$top/build/image-cache
export POLYVISOR_CACHE_DIR=$work/cache POLYVISOR_IMAGE_DIR=$work/images POLYVISOR_MACHINE_DIR=$work/machines
export HOME=$work/home TMPDIR=$work/temporary
mkdir -p "$downloads" "$HOME" "$TMPDIR" "$POLYVISOR_CACHE_DIR" "$work/run"
unprivileged=
if [ "$(id -u)" -eq 0 ]; then
    as_nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
    if "${as_nobody[@]}" sh -c "test -x '$vmctl' && test -r '$top/image/build-image'"; then
        unprivileged=yes
        chmod 755 "$work"
        chown -R 65534:65534 "$downloads" "$HOME" "$TMPDIR" "$POLYVISOR_CACHE_DIR" "$work/run" "$work/images"
        printf '#!/bin/sh\nexec %s "%s" "$@"\n' "${as_nobody[*]}" "$vmctl" >"$work/vmctl"
        printf '#!/bin/sh\nexec %s "%s" "$@"\n' "${as_nobody[*]}" "$bin/vmmd" >"$work/vmmd"
        chmod 755 "$work/vmctl" "$work/vmmd"
        vmctl=$work/vmctl
    else
        tell "as root: nobody could not read this tree"
        chown -R 0:0 "$downloads"
    fi
fi
chmod 700 "$downloads" "$POLYVISOR_CACHE_DIR" "$work/run"

# ---- From an empty directory: one command builds it ----

mkdir "$work/for-guest"
kept=${IMAGE_KEEP:-}/debian.img
[ -e "$kept" ] || kept=
if [ -n "$kept" ]; then
    cp "$IMAGE_KEEP/key" "$IMAGE_KEEP/key.pub" "$work/"
else
    ssh-keygen -q -t ed25519 -N "" -f "$work/key"
fi
cat >"$work/for-guest/script" <<'END'
#!/bin/sh
echo "the script ran as $(id -un)" >/etc/motd
END
cp "$work/key.pub" "$work/user-data" "$work/for-guest/"
start=$(now)
build_it() {
    POLYVISOR_CACHE_DIR=$downloads timeout "$limit" "$vmctl" --json image build debian:trixie --ssh-key "$work/for-guest/key.pub" \
        --packages cloud-init,gcc,libc6-dev,make --script "$work/for-guest/script" --name debian --hostname tester \
        --root-password 'two words' >"$work/build.out" 2>"$work/build.err"
}
if [ -n "$kept" ]; then
    cp --sparse=always "$kept" "$work/images/debian.img"
    [ -z "$unprivileged" ] || chown 65534:65534 "$work/images/debian.img"
elif build_it; then
    ok "one command builds a Debian image${unprivileged:+, without root}"
    tell "build: $(since "$start") s (load $(cut -d' ' -f1-3 /proc/loadavg))"
    check "it told of packages one by one" grep -q '"stage":"configure","done":[0-9]*,"total":[0-9]*,"what":"' \
        <(tr -d ' ' <"$work/build.out")
    is "a disk with a password on it is its maker's alone" 600 "$(stat -c %a "$work/images/debian.img")"
    [ -z "${IMAGE_KEEP:-}" ] || cp --sparse=always "$work/images/debian.img" "$work/key" "$work/key.pub" "$IMAGE_KEEP/"
else
    not_ok "one command builds a Debian image" "$(cat "$work/build.err")" "$(tail -n 40 "$downloads"/images/build-*.log)"
    exit
fi
check "it is in the store" sh -c "'$vmctl' image list | grep -q '^debian *debian trixie *riscv64 *2 GiB'"
version=$("$vmctl" --json version | sed -n 's/.*"vmctl": *"\([^"]*\)".*/\1/p')
check "it says who made it" sh -c "'$vmctl' image show debian | grep -q '^Made by: *polyvisor $version, its agent speaks version [0-9]'"
image=$work/images/debian.img
cp --sparse=always "$image" "$work/check.img"
dd if="$work/check.img" of="$work/root.ext4" bs=1M skip=129 conv=sparse 2>/dev/null
check "its file system is whole" sh -c "e2fsck -fn '$work/root.ext4' >'$work/out' 2>&1"
rm -f "$work/check.img" "$work/root.ext4"
sum=$(sha256sum <"$image")

# ---- One command boots it ----

port=$(free_port)
sshx() {
    timeout 600 ssh -i "$work/key" -p "$port" -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR \
        -o UserKnownHostsFile=/dev/null -o ConnectTimeout=30 root@127.0.0.1 "$@"
}
answers_ssh() { sshx true </dev/null 2>/dev/null; }
ask() { sshx "$@" </dev/null; }
mkfifo "$work/keyboard"
start=$(now)
"$vmctl" run --name debian --image debian --cpus 2 --memory 1G --net "user,hostfwd=tcp:127.0.0.1:$port-:22" \
    --cloud-init "$work/for-guest/user-data" <"$work/keyboard" >"$work/console" 2>"$work/run.err" &
client=$!
exec 8>"$work/keyboard"
says_times() { # COUNT WORDS: the console has them so often
    [ "$(grep -ac "$2" "$work/console")" -ge "$1" ]
}
# Until its console has them or it has ended; whether it has them.
until_says() { # SECONDS COUNT WORDS
    local seconds=$1
    shift
    said_or_ended() { says_times "$@" || ! kill -0 $client 2>/dev/null; }
    wait_for "$seconds" said_or_ended "$@" && says_times "$@"
}
if until_says "$limit" 1 'login: '; then
    ok "it boots to a login"
    tell "boot to login with an empty code cache: $(since "$start") s"
else
    not_ok "it boots to a login" "$(tail -n 20 "$work/console")" "$(cat "$work/run.err")"
    kill $client 2>/dev/null
    exit
fi
log_in() { # PASSWORD COUNT: give it when it is asked for the COUNTth time
    printf 'root\n' >&8
    until_says 300 "$2" 'Password: ' && printf '%s\n' "$1" >&8
}
log_in "wrong" 1
check "not with a wrong password" until_says 300 1 'Login incorrect'
log_in "two words" 2
check "but with root's own" until_says 300 1 'root@[a-z]*:~#'
check "it answers ssh on a forwarded port" wait_for "$limit" answers_ssh
is "as who it is" "root riscv64" "$(ask 'echo $(id -un) $(uname -m)')"
check "it got its address by DHCP" grep -q 'inet 10.0.2.15/24.*dynamic' <(ask 'ip -4 address show')
is "a script of the user's ran when it was built" "the script ran as root" "$(ask cat /etc/motd)"
settled() { ask 'cloud-init status' 2>/dev/null | grep -qE 'status: (done|disabled|error)'; }
check "cloud-init comes to an end" wait_for "$limit" settled
is "it took the seed disk" seeded "$(ask hostname)"
is "no unit failed" "" "$(ask systemctl --failed --no-legend)"
is "its machine id is its own" 32 "$(ask 'tr -d "\n" </etc/machine-id' | wc -c)"
# A mirror may be in the middle of an update of its lists: what counts is the package.
install_package() { ask 'apt-get -q update; apt-get -q -y install hello' >"$work/apt.out" 2>&1; }
if install_package; then
    ok "it installs a package from the mirror"
else
    not_ok "it installs a package from the mirror" "$(tail -n 20 "$work/apt.out")"
fi
is "which works" "Hello, world!" "$(ask hello)"
ask poweroff 2>/dev/null
exec 8>&-
wait $client
is "power-off is exit status 0" 0 $?
check "nothing is left of it" nothing_left
check "nor of its disk" scratch_is_empty
is "the image is as it was built" "$sum" "$(sha256sum <"$image")"

# ---- A fresh machine compiles what is here ----

cp -r "$top/tests/integration/project" "$work/project"
[ -z "$unprivileged" ] || chown -R 65534:65534 "$work/project"
compile() { # what the issue promises, in that folder
    (cd "$work/project" && timeout "$limit" "$vmctl" run --image debian --cpus 2 --share .:/work -n -- \
        sh -c 'cd /work && make && ./test' >"$work/out" 2>"$work/err")
}
start=$(now)
compile
is "a project in a shared directory is compiled, and its test succeeds" "0 0 failed" "$? $(tail -n 1 "$work/out")"
tell "a fresh machine, make and its test: $(since "$start") s"
check "what it made is here" sh -c "file '$work/project/test' 2>/dev/null | grep -q RISC-V || readelf -h '$work/project/test' | grep -q RISC-V"
sed -i -e 's/"host", 2/"host", 5/' -e 's/"distinct", 6/"distinct", 7/' "$work/project/test.c"
compile
is "its test fails after a change here" "2 2 failed" "$? $(tail -n 1 "$work/out")"
check "and says so" grep -q 'host: expected 5, got 2' "$work/err"
echo "no C" >>"$work/project/words.c"
compile
is "what does not compile fails with the status of make" 2 $?
check "with the words of the compiler" grep -q 'words.c:[0-9]*:.*error' "$work/err"

# ---- Two at once, larger ones, machines that stay ----

timeout "$limit" "$vmctl" run --image debian -n --cpus 2 -- sh -c '! command -v hello; echo one >/etc/which; sync; hostname
    n=0; until grep -q " /boot/efi " /proc/mounts || [ $((n += 1)) -gt 600 ]; do sleep 1; done
    grep -c " /boot/efi " /proc/mounts; cat /etc/which; exit 3' >"$work/one" 2>"$work/err" &
client=$!
out=$(timeout "$limit" "$vmctl" run --image debian --image-size 4G -n --net none -- sh -c 'echo two >/etc/which; sync
    df -m --output=size / | tail -n 1; cat /etc/which' 2>"$work/err2")
is "one of two at once: a disk of 4 GiB, and a root file system that fills it" "0 grown two" \
    "$? $(awk 'NR == 1 { print ($1 > 3500 ? "grown" : "as small as " $1) } NR == 2' <<<"$out" | tr '\n' ' ' | sed 's/ $//')"
wait $client
is "the other: nothing is left of the first machine, and a status" "3 tester 1 one" "$? $(tr '\n' ' ' <"$work/one" | sed 's/ $//')"
is "the image is as it was built" "$sum" "$(sha256sum <"$image")"
if [ -n "$unprivileged" ]; then
    "$work/vmmd" >>"$work/vmmd.log" 2>&1 &
    daemon=$!
    wait_for 60 daemon_answers
else
    daemon_start
fi
mkdir -p "$work/machines"
[ -z "$unprivileged" ] || chown 65534:65534 "$work/machines"
printf '#cloud-config\nhostname: lasting\nruncmd:\n  - echo once >>/root/runs\n' >"$work/for-guest/lasting"
"$vmctl" create --image debian --image-size 3G --cpus 2 --memory 1G --cloud-init "$work/for-guest/lasting" stays >"$work/out" 2>&1
is "a machine is made of it that stays" "0 " "$? $(cat "$work/out")"
"$vmctl" start stays
is "it runs, with a network, and has taken its seed disk" "0 ready lasting once" "$? $(timeout "$limit" "$vmctl" exec --wait 20m -n stays -- sh -c '
    /usr/lib/polyvisor/ready && passwd -d root >&2 && echo kept >/root/file
    cloud-init status --wait >&2; echo ready $(hostname) $(cat /root/runs)' 2>/dev/null)"
"$vmctl" stop --timeout 10m stays >"$work/out" 2>&1
is "it shuts down when it is asked" "0 power-off" "$? $("$vmctl" --json show stays | sed -n 's/.*"end_reason": *"\([^"]*\)".*/\1/p')"
"$vmctl" start stays
is "the next start finds what it kept, and the room; its seed is not new" "0 kept grown once lasting" "$? $(timeout "$limit" "$vmctl" exec --wait 20m -n stays -- sh -c '
    cat /root/file; [ $(df -m --output=size / | tail -n 1) -gt 2600 ] && echo grown
    cloud-init status --wait >&2; cat /root/runs; hostname' 2>/dev/null | tr '\n' ' ' | sed 's/ $//')"
timeout "$limit" "$vmctl" console stays <"$work/keyboard" >"$work/console" 2>/dev/null &
client=$!
exec 8>"$work/keyboard"
printf '\n' >&8
check "its console has a login" until_says 600 1 'login: '
printf 'root\n' >&8
check "without a password none is needed there" until_says 300 1 'root@[a-z]*:~#'
exec 8>&-
kill $client 2>/dev/null
wait $client 2>/dev/null
"$vmctl" stop --timeout 10m stays >/dev/null 2>&1
dd if="$work/machines/stays/disk.img" of="$work/root.ext4" bs=1M skip=129 conv=sparse 2>/dev/null
check "its file system is whole" sh -c "e2fsck -fn '$work/root.ext4' >'$work/out' 2>&1"
rm -f "$work/root.ext4"
check "it is removed with its disk" "$vmctl" rm --force --with-disk stays
daemon_stop
is "nothing is left of it" "" "$(ls -A "$work/machines")"

# ---- Beside QEMU: the same image, processors, memory and network ----

medians() { # FILE of lines "WHO WHAT SECONDS"
    python3 - "$1" <<'END'
import statistics, sys
times = {}
for line in open(sys.argv[1]):
    who, what, seconds = line.split()
    times.setdefault(what, {}).setdefault(who, []).append(float(seconds))
print("figure - %-28s %10s %10s %6s" % ("seconds, median of %d" % max(len(l) for w in times.values() for l in w.values()),
                                   "polyvisor", "QEMU", "ratio"))
for what, by in times.items():
    ours, theirs = (statistics.median(by[w]) if w in by else None for w in ("polyvisor", "QEMU"))
    print("figure - %-28s %10s %10s %6s" % (what.replace("_", " "), ours, theirs,
          "%.2f" % (theirs / ours) if ours and theirs else ""))
END
}
measure() { # WHO: its machine was just started, console in $work/console
    local who=$1 began
    until_says "$limit" 1 'login: ' || return 1
    echo "$who boot_to_login $(since "$start")" >>"$work/times"
    wait_for "$limit" answers_ssh || return 1
    echo "$who boot_to_ssh $(since "$start")" >>"$work/times"
    # The distribution's own work after a boot, cloud-init's most of all, is not part of what follows.
    wait_for "$limit" settled || return 1
    began=$(now)
    install_package || return 1
    echo "$who apt_update_and_install $(since "$began")" >>"$work/times"
    tar -C "$top" -c agent libshared/agent | sshx 'mkdir p && tar -x -C p' || return 1
    began=$(now)
    ask "cd p && gcc -std=gnu17 -D_GNU_SOURCE -DPOLYVISOR_VERSION='\"$version\"' -O2 -I. -o out agent/*.c" || return 1
    echo "$who compile_the_agent $(since "$began")" >>"$work/times"
    ask poweroff 2>/dev/null
    wait $client
}
ours() {
    "$vmctl" run --image debian --cpus 2 --memory 1G --net "user,hostfwd=tcp:127.0.0.1:$port-:22" \
        </dev/null >"$work/console" 2>"$work/run.err" &
    client=$!
}
# Its disk is laid over the image, too.
qemu() {
    qemu-system-riscv64 -M virt -smp 2 -m 1G -nographic -no-reboot -kernel "$work/vmlinux" -initrd "$work/initrd" \
        -append "$(mtype -i "$image@@1M" ::CMDLINE.TXT)" -drive "file=$image,format=raw,if=none,id=d,snapshot=on" \
        -device virtio-blk-pci,drive=d -device virtio-rng-pci \
        -netdev "user,id=n,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=n </dev/null >"$work/console" 2>&1 &
    client=$!
}
if command -v qemu-system-riscv64 >/dev/null && [ ! "${IMAGE_WITHOUT_QEMU:-}" ]; then
    mcopy -i "$image@@1M" ::VMLINUX "$work/vmlinux" && mcopy -i "$image@@1M" ::INITRD.IMG "$work/initrd"
    : >"$work/times"
    tell "$(qemu-system-riscv64 --version | head -n 1); two processors, 1 GiB; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
    for ((round = 1; round <= rounds; round++)); do
        for who in polyvisor QEMU; do
            start=$(now)
            : >"$work/console"
            if [ $who = QEMU ]; then qemu; else ours; fi
            if measure $who; then
                ok "$who boots the image, installs and compiles (round $round)"
            else
                not_ok "$who boots the image, installs and compiles (round $round)" "$(tail -n 15 "$work/console")"
                kill $client 2>/dev/null
                wait $client 2>/dev/null
            fi
        done
    done
    medians "$work/times"
    tell "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
fi
check "image rm removes it" "$vmctl" image rm debian
