#!/usr/bin/env bash
# A shared directory: files both ways, what guests try to get out of it, and the death of its process
# under a load that checks all it does. KILLS=200 is the long proof.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

kills=${KILLS:-5}
slow_build && kills=${KILLS:-2}
share=$work/share
mkdir -p "$share/dir" "$work/outside" "$work/readonly"
echo hello >"$share/from-host"
echo secret >"$work/outside/secret"
echo fixed >"$work/readonly/file"
head -c 8M /dev/urandom >"$share/big"
[ "$(id -u)" -ne 0 ] || { mkdir -p "$share/mounted" && mount -t tmpfs none "$share/mounted" && touch "$share/mounted/inside"; }
unmount() { umount "$share/mounted" 2>/dev/null; }
trap 'unmount; finish' EXIT

refuses() { # NAME WORDS COMMAND: the guest's command fails, saying so
    local name=$1 words=$2 output
    output=$(ask m "$3 2>&1")
    if [ $? -ne 0 ] && grep -qE "$words" <<<"$output"; then ok "refused: $name"; else not_ok "refused: $name" "$output"; fi
}

daemon_start
machine m --memory 256M --share "$share:tag" --share "$work/readonly:/ro,readonly,uid=7,gid=8" ||
    { not_ok "a machine with shares starts" "$(tail "$work/vmmd.log")"; exit; }
wait_for 120 answered m 1
ok "a machine with shares starts"
shown() {
    "$vmctl" show m >"$work/shown" && "$vmctl" --json show m >>"$work/shown" &&
        grep -q "share0: $share:tag,cache=auto,uid=0,gid=0" "$work/shown" && grep -q "$work/readonly:/ro,readonly" "$work/shown"
}
check "show tells of them" shown
check "the guest mounts them by their tags" ask m "mkdir -p /s /r; mount -t virtiofs tag /s && mount -t virtiofs /ro /r"

# Files both ways.
check "the guest reads the host's file" test "$(ask m "cat /s/from-host")" = hello
ask m "echo one >/s/from-guest; echo two >>/s/from-guest; mkdir -p /s/a/b; mv /s/from-guest /s/a/b/; ln -s b /s/a/link; ln /s/a/b/from-guest /s/a/hard" >/dev/null
check "the host reads the guest's" test "$(cat "$share/a/link/from-guest")" = "$(printf 'one\ntwo')"
check "hard links are the same file" test "$share/a/hard" -ef "$share/a/b/from-guest"
check "files are the user's" test "$(stat -c %u:%g "$share/a/hard")" = "$(stat -c %u:%g "$share")"
check "and root's in the guest" test "$(ask m "stat -c %u:%g /s/a/hard")" = 0:0
check "or whom the setting says" test "$(ask m "stat -c %u:%g /r/file")" = 7:8
sum=$(md5sum <"$share/big")
check "a large file is the same there" test "$(ask m "md5sum </s/big")" = "$sum"
ask m "cp /s/big /s/copy; sync" >/dev/null
check "and back" cmp "$share/big" "$share/copy"
check "the guest sees at once what the host changes" test "$(ask m "cat /s/from-host" >/dev/null
    echo "hello, hello" >"$share/from-host"
    ask m "cat /s/from-host")" = "hello, hello"
rm "$share/copy"
check "and what it removes" test "$(ask m "ls /s/copy 2>&1")" = "ls: /s/copy: No such file or directory"
ask m "cd /tmp; mkdir t; for i in \$(seq 300); do echo \$i >t/file-\$i; done; ln -s file-1 t/link; chmod 600 t/file-2; touch -d 2001-02-03 t/file-3" >/dev/null
ask m "chmod 750 t; tar cf t.tar t; cd /s" >/dev/null
check "root unpacks an archive with owners" ask m "tar xpf /tmp/t.tar && chown -R 5:6 t && chown -h 5:6 t/link"
ask m "cd /" >/dev/null
check "300 files, a link, modes and times" test "$(find "$share/t" -name 'file-*' | wc -l) $(readlink "$share/t/link") $(stat -c %a "$share/t" "$share/t/file-2" | xargs) $(date -d "@$(stat -c %Y "$share/t/file-3")" +%F)" = "300 file-1 750 600 2001-02-03"


# Out of it. What a driver that keeps no rule tries is in tests/unit/test_fs_escape.c.
ln -s "$work/outside/secret" "$share/absolute"
ln -s ../outside/secret "$share/relative"
ln -s ../outside "$share/way"
ln -s /proc/1/root "$share/magic"
[ "$(id -u)" -ne 0 ] || mknod "$share/device" c 1 5
mkfifo "$share/fifo"
refuses "an absolute link to the host" "No such file" "cat /s/absolute"
refuses "a relative link to the host" "No such file" "cat /s/relative"
refuses "a directory behind a link" "No such file|can't open" "cat /s/way/secret"
refuses "writing through a link" "nonexistent|No such file" "echo x >/s/relative"
refuses "more than the directory by .." "No such file" "cat /s/../outside/secret"
inside() { [ "$(ask m "cat /s/magic/etc/hostname 2>/dev/null; ls /s/magic/init")" = "/s/magic/init" ]; }
check "a magic link is the guest's own" inside
refuses "making a character device" "not permitted" "mknod /s/null c 1 3"
refuses "making a block device" "not permitted" "mknod /s/sda b 8 0"
if [ "$(id -u)" -eq 0 ]; then
    refuses "the host's device" "No such device|can't open" "head -c 1 /s/device"
    refuses "what is mounted below" "ermission denied" "ls /s/mounted/inside"
    refuses "removing a mount point" "busy|ermission denied" "rmdir /s/mounted"
fi
ask m "cp /bin/busybox /s/setuid; chmod 6755 /s/setuid" >/dev/null
check "set-id bits do not reach the host" test "$(stat -c %a "$share/setuid")" = 755
refuses "an overlong name" "too long" "touch /s/\$(printf '%0300d' 0)"
for change in "echo x >/r/file" "echo x >/r/new" "mkdir /r/new" "rm /r/file" "mv /r/file /r/x" "chmod 777 /r/file" "ln /r/file /r/x" "touch /r/file"; do
    refuses "in a read-only share: $change" "ead-only" "$change"
done
check "the outside is as it was" test "$(cat "$work/outside/secret") $(ls "$work/outside" "$work/readonly" | xargs)" = "secret $work/outside: secret $work/readonly: file"
# A pipe is between processes of the guest, whatever the host has it for.
check "a pipe does not hold up the device" test "$(ask m "cat /s/fifo & echo through >/s/fifo; wait")" = through

confined() {
    "$vmctl" --json show m | grep -o '"confinement": *"[^"]*"' | sort -u >"$work/confinement"
    local pid
    pid=$(pid_of m devd/share0)
    ! grep -q "^CapEff:.*[1-9a-f]" "/proc/$pid/status" && grep -q "^Seccomp:.*2" "/proc/$pid/status" &&
        ! nsenter -t "$pid" -m true 2>/dev/null
}
slow_build || check "its process is confined" confined

# Its death.
ask m "mkdir /s/load; share-load /s/load >/tmp/load 2>&1 &" >/dev/null
wait_for 60 test -s "$share/load/append" # it is at work
killed=0
for ((i = 0; i < kills; i++)); do
    pid=$(pid_of m devd/share0)
    kill -9 "$pid" && wait_for 60 replaced m devd/share0 "$pid" && killed=$((killed + 1))
    sleep "0.$((RANDOM % 40 + 10))"
done
check "its process is killed and replaced $kills times" test "$killed" -eq "$kills"
result=$(ask m "touch /s/load/stop; wait; cat /tmp/load")
check "the load under it lost nothing" grep -q "^share-load: [1-9][0-9]* done, 0 wrong" <<<"$result"
echo "# $result"
lines() { awk '$0 != "line " NR - 1 {exit 1}' "$share/load/append"; }
check "the host finds each appended line once" lines
check "and no more files than there should be" test "$(ls "$share/load" "$share/load/names" | grep -cE "one|two|sub|three|nameless")" -le 1
check "the mount works on" test "$(ask m "cat /s/from-host; cat /r/file")" = "$(printf 'hello, hello\nfixed')"
check "the guest's log has no complaint" test -z "$(ask m 'dmesg | grep -iE "fuse|virtio" | grep -iE "error|fail|bug|warn"')"
check "unmounted and mounted again" test "$(ask m "umount /s; mount -t virtiofs tag /s; cat /s/from-host")" = "hello, hello"

wrong() { # OPTION WORDS
    ! "$vmctl" create n --kernel "$guest/vmlinux" --share "$1" >"$work/wrong" 2>&1 && grep -q "$2" "$work/wrong"
}
check "a directory that is none is an error" wrong "$share/from-host:x" "cannot share"
check "a share without a tag is an error" wrong "$share" "no directory and tag"
end m
shells_end
