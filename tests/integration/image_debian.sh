# The long part of test_image.sh: a Debian image built from an empty directory, booted, reached by ssh, made
# to install a package; and the same image under QEMU. Sourced; needs the mirror of this machine, ssh and
# some minutes. Downloads stay in build/image-cache.

export POLYVISOR_CACHE_DIR=$top/build/image-cache
mkdir -p "$POLYVISOR_CACHE_DIR" && chmod 700 "$POLYVISOR_CACHE_DIR"
limit=${IMAGE_LIMIT:-1800}
log() { # WHAT SECONDS: beside the test's result
    echo "    $1: $2 s"
}
now() { date +%s.%N; }
since() { # START
    python3 -c "import sys, time; print(f'{time.time() - float(sys.argv[1]):.1f}')" "$1"
}
free_port() {
    python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'
}

# ---- From an empty directory: one command builds it ----

ssh-keygen -q -t ed25519 -N "" -f "$work/key"
cat >"$work/script" <<'END'
#!/bin/sh
echo "the script ran as $(id -un)" >/etc/motd
END
start=$(now)
if timeout "$limit" "$vmctl" --json image build debian:trixie --ssh-key "$work/key.pub" --packages cloud-init --script "$work/script" \
    --name debian --hostname tester >"$work/build.out" 2>"$work/build.err"; then
    ok "one command builds a Debian image"
    log "build" "$(since "$start")"
else
    not_ok "one command builds a Debian image" "$(cat "$work/build.err")" "$(tail -n 40 "$POLYVISOR_CACHE_DIR"/images/build-*.log)"
    exit
fi
check "it told of packages one by one" grep -q '"stage":"configure","done":[0-9]*,"total":[0-9]*,"what":"' <(tr -d ' ' <"$work/build.out")
check "it is in the store" sh -c "'$vmctl' image list | grep -q '^debian *debian trixie *riscv64 *2 GiB'"
image=$work/images/debian.img
cp --sparse=always "$image" "$work/check.img"
dd if="$work/check.img" of="$work/root.ext4" bs=1M skip=129 conv=sparse 2>/dev/null
check "its file system is whole" e2fsck -fn "$work/root.ext4"
rm -f "$work/check.img" "$work/root.ext4"

# ---- One command boots it ----

port=$(free_port)
"$vmctl" run --name debian --image debian --cpus 2 --net "user,hostfwd=tcp:127.0.0.1:$port-:22" \
    --cloud-init "$work/user-data" </dev/null >"$work/console" 2>"$work/run.err" &
client=$!
start=$(now)
check "it boots to a login" wait_for "$limit" grep -q 'login: ' "$work/console"
log "boot to login, --cpus 2" "$(since "$start")"
sshx() {
    timeout 600 ssh -i "$work/key" -p "$port" -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR \
        -o UserKnownHostsFile=/dev/null -o ConnectTimeout=30 root@127.0.0.1 "$@" </dev/null
}
answers_ssh() { sshx true 2>/dev/null; }
check "it answers ssh on a forwarded port" wait_for "$limit" answers_ssh
is "as who it is" "root riscv64" "$(sshx 'echo $(id -un) $(uname -m)')"
check "it got its address by DHCP" grep -q 'inet 10.0.2.15/24' <(sshx 'ip -4 address show')
is "a script of the user's ran when it was built" "the script ran as root" "$(sshx cat /etc/motd)"
settled() { sshx 'cloud-init status' 2>/dev/null | grep -qE 'status: (done|disabled|error)'; }
check "cloud-init comes to an end" wait_for "$limit" settled
is "it took the seed disk" seeded "$(sshx hostname)"
is "no unit failed" "" "$(sshx systemctl --failed --no-legend)"
is "its machine id is its own" 32 "$(sshx 'tr -d "\n" </etc/machine-id' | wc -c)"
start=$(now)
# A mirror may be in the middle of an update of its lists: what counts is the package.
if sshx 'apt-get -q update; apt-get -q -y install hello' >"$work/apt.out" 2>&1; then
    ok "it installs a package from the mirror"
    log "apt-get update and install" "$(since "$start")"
else
    not_ok "it installs a package from the mirror" "$(tail -n 20 "$work/apt.out")"
fi
is "which works" "Hello, world!" "$(sshx hello)"
sshx poweroff 2>/dev/null
wait $client
is "power-off is exit status 0" 0 $?
check "nothing is left of it" nothing_left
check "nor of its disk" scratch_is_empty

# ---- One command in a fresh machine, and a larger disk ----

out=$(timeout "$limit" "$vmctl" run --image debian -n --cpus 2 -- sh -c '! command -v hello; hostname; mount | grep -c "/boot/efi "; exit 3' 2>"$work/err")
status=$?
is "a command's status in a fresh machine, where nothing is left of the last" "3 tester 1" "$status $(tr '\n' ' ' <<<"$out" | sed 's/ $//')"
cp --sparse=always "$image" "$work/large.img"
truncate -s 4G "$work/large.img"
out=$(timeout "$limit" "$vmctl" run --image "$work/large.img" --persistent -n --net none --cpus 2 -- sh -c 'df -m --output=size / | tail -n 1' 2>"$work/err")
check "its root grows with the disk" test "${out:-0}" -gt 3500

# ---- QEMU with the same image ----

if command -v qemu-system-riscv64 >/dev/null && [ ! "${IMAGE_WITHOUT_QEMU:-}" ]; then
    mcopy -i "$image@@1M" ::VMLINUX "$work/vmlinux" && mcopy -i "$image@@1M" ::INITRD.IMG "$work/initrd" &&
        cp --sparse=always "$image" "$work/qemu.img"
    start=$(now)
    qemu-system-riscv64 -M virt -smp 2 -m 1G -nographic -no-reboot -kernel "$work/vmlinux" -initrd "$work/initrd" \
        -append "$(mtype -i "$image@@1M" ::CMDLINE.TXT)" -drive "file=$work/qemu.img,format=raw,if=none,id=d" \
        -device virtio-blk-pci,drive=d -netdev user,id=n -device virtio-net-pci,netdev=n </dev/null >"$work/qemu.out" 2>&1 &
    client=$!
    check "QEMU boots the same image" wait_for "$limit" grep -q 'login: ' "$work/qemu.out"
    log "boot to login with QEMU" "$(since "$start")"
    kill $client
    wait $client 2>/dev/null
    start=$(now)
    "$vmctl" run --image debian --cpus 2 </dev/null >"$work/console" 2>"$work/run.err" &
    client=$!
    wait_for "$limit" grep -q 'login: ' "$work/console"
    log "boot to login here, the same way" "$(since "$start")"
    kill $client
    wait $client 2>/dev/null
fi
check "image rm removes it" "$vmctl" image rm debian
