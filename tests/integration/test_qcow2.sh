#!/usr/bin/env bash
# qcow2 images, with qemu-img as the peer: its images are read right, ours are sound to it; a disk
# in a guest is written, resized, killed; what an image names is not opened blindly.
#
# QCOW2_KILLS=N: how often the host-side writer is killed (4); the device is 3 times.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/shell.sh"

tool=$top/$build/tests/qcow2/tool
kills=${QCOW2_KILLS:-4}
cd "$work" || exit 1

reads() { # IMAGE RAW: the same contents
    "$tool" dump "$1" >dumped 2>tool.err && cmp dumped "$2" || { sed 's/^/    /' tool.err; false; }
}
sound() { # IMAGE: both programs find nothing
    qemu-img check -q "$1" >checked 2>&1 && "$vmctl" disk check "$1" >checked 2>&1 || { sed 's/^/    /' checked; false; }
}
unharmed() { # IMAGE: at most leaks
    qemu-img check "$1" >checked 2>&1
    case $? in 0 | 3) return 0 ;; esac
    sed 's/^/    /' checked
    false
}
same() { # IMAGE RAW: to qemu-img
    qemu-img compare -q -f qcow2 -F raw "$1" "$2"
}

if ! command -v qemu-img >/dev/null; then
    echo "skip - no qemu-img"
    exit 0
fi

# ---- Images of qemu-img ----
{
    head -c 900K /dev/urandom
    head -c 2M /dev/zero
    yes polyvisor | head -c 700K
    head -c 64K /dev/urandom
} >raw.img
truncate -s 4M raw.img
bad=
for options in compat=0.10 compat=1.1 cluster_size=512 cluster_size=4k,compat=0.10 cluster_size=2M refcount_bits=1 \
    refcount_bits=8 refcount_bits=64,cluster_size=1k lazy_refcounts=on preallocation=metadata preallocation=full \
    compression_type=zstd; do
    for packed in "" -c; do
        case "$packed$options" in
        -ccompat* | -ccluster_size=512 | -ccluster_size=2M | -ccompression*) ;;
        -c*) continue ;;
        esac
        rm -f v.qcow2
        qemu-img convert $packed -O qcow2 -o "$options" raw.img v.qcow2 >/dev/null 2>&1 &&
            reads v.qcow2 raw.img && "$vmctl" -q disk check v.qcow2 || bad="$bad $options$packed:read"
        cp raw.img changed.img
        for place in "0 700" "70000 3000" "1000000 300000" "2500000 1100000" "4100000 94304"; do
            set -- $place
            at=$(($1 / 512 * 512)) size=$(($2 / 512 * 512))
            "$tool" fill v.qcow2 $at $size $at || bad="$bad $options$packed:write"
            "$tool" dump v.qcow2 | tail -c +$((at + 1)) | head -c $size |
                dd of=changed.img bs=1M seek=$at oflag=seek_bytes conv=notrunc status=none
        done
        "$tool" zero v.qcow2 131072 300032 1 && "$tool" zero v.qcow2 3000320 66048 0 &&
            dd if=/dev/zero of=changed.img bs=512 seek=256 count=586 conv=notrunc status=none &&
            dd if=/dev/zero of=changed.img bs=512 seek=5860 count=129 conv=notrunc status=none
        sound v.qcow2 && same v.qcow2 changed.img && reads v.qcow2 changed.img || bad="$bad $options$packed:changed"
    done
done
check "all kinds of images are read and changed as qemu-img would ($bad)" test -z "$bad"

# ---- Bitmaps of other programs ----
qemu-img create -q -f qcow2 -o cluster_size=512 b.qcow2 256M # clusters so small that its table has two
qemu-img bitmap --add -g 512 b.qcow2 one && qemu-io -c "write 0 4k" -c "write 200M 64k" b.qcow2 >/dev/null
check "an image with a bitmap is sound" "$vmctl" -q disk check b.qcow2
# Ours changes what the bitmap does not know of: its mark goes, and what it had is given back.
"$tool" fill b.qcow2 1048576 65536 3 && "$vmctl" -q disk check --repair all b.qcow2 >/dev/null 2>&1
check "also once it is out of date" sound b.qcow2

# ---- Snapshots inside an image ----
qemu-img convert -O qcow2 raw.img s.qcow2
qemu-img snapshot -c first s.qcow2
"$tool" fill s.qcow2 0 1500160 5
"$tool" zero s.qcow2 2097152 1048576 1
"$tool" discard s.qcow2 3145728 524288
"$tool" dump s.qcow2 >now.img
check "an image with a snapshot stays sound" sound s.qcow2
check "its contents are what was written" same s.qcow2 now.img
check "the snapshot is listed" sh -c "'$vmctl' disk info s.qcow2 | grep -q 'Snapshot:.*first'"
check "it does not shrink" refused unsupported snapshots "$vmctl" disk resize --shrink s.qcow2 1M
qemu-img snapshot -a first s.qcow2
check "the snapshot contains what it did" same s.qcow2 raw.img
qemu-img snapshot -d first s.qcow2
check "and goes without a trace" sound s.qcow2

# ---- Images of ours ----
mkdir lower
qemu-img convert -O qcow2 raw.img lower/base.qcow2
check "an overlay is made" "$vmctl" -q disk create top.qcow2 --backing lower/base.qcow2 --backing-format qcow2 \
    --cluster-size 32K
check "qemu-img sees what is below" same top.qcow2 raw.img
"$tool" fill top.qcow2 12288 99840 3
"$tool" fill top.qcow2 2000384 512 4
"$tool" dump top.qcow2 >top.img
check "and what is above" same top.qcow2 top.img
check "which leaves the base alone" same lower/base.qcow2 raw.img
check "the overlay is sound" sound top.qcow2
check "info shows the chain" sh -c "'$vmctl' --json disk info --chain top.qcow2 | grep -c '\"path\"' | grep -q 2"
check "it grows" "$vmctl" -q disk resize top.qcow2 9M
check "it shrinks on purpose only" refused bad-config shrink "$vmctl" disk resize top.qcow2 1M
check "and then does" "$vmctl" -q disk resize --shrink top.qcow2 3M
truncate -s 3M top.img
check "what is left is what was there" same top.qcow2 top.img
check "and sound" sound top.qcow2
mkdir -p apart && cp top.qcow2 apart/stranger.qcow2
qemu-img rebase -u -b "$PWD/lower/base.qcow2" -F qcow2 apart/stranger.qcow2
for command in "resize --shrink apart/stranger.qcow2 1M" "resize apart/stranger.qcow2 90M" "info --chain apart/stranger.qcow2"; do
    before=$(sha256sum <apart/stranger.qcow2)
    check "a stranger's image leads to no other folder: disk $command" refused permission "not below its folder" \
        "$vmctl" disk $command
    check "and stays as it is" test "$before" = "$(sha256sum <apart/stranger.qcow2)"
    check "unless the user says so" "$vmctl" -q disk $command --backing-folder lower
done
rm -r apart
check "an image that is there stays" refused exists "exists" "$vmctl" disk create top.qcow2 --size 1M
check "a raw one is made by its name" "$vmctl" -q disk create plain.img --size 1M
check "and has its size" test "$(stat -c %s plain.img)" -eq 1048576

# Reference counts that nobody wrote.
cp s.qcow2 dirty.qcow2
printf '\0\0\0\0\0\0\0\1' | dd of=dirty.qcow2 bs=1 seek=72 conv=notrunc status=none
table=$(od -A n -t u8 --endian=big -j 48 -N 8 dirty.qcow2)
block=$(od -A n -t u8 --endian=big -j $table -N 8 dirty.qcow2)
dd if=/dev/zero of=dirty.qcow2 bs=1 seek=$((block + 10)) count=40 conv=notrunc status=none
check "lost counts are found" refused bad-disk "counted too few" "$vmctl" disk check dirty.qcow2
"$tool" fill dirty.qcow2 0 512 9 2>/dev/null
check "and mended when a dirty image is opened" sound dirty.qcow2

# ---- A writer that is killed ----
tr '\0' '\377' </dev/zero | head -c 12M >ones.img
"$vmctl" -q disk create kill.qcow2 --size 32M --backing ones.img --backing-format raw --cluster-size 16K
bad=0 wrong=0 flushed=0
for round in $(seq "$kills"); do
    "$tool" load kill.qcow2 kill.log "$round" 2>/dev/null &
    writer=$!
    wait_for 60 test -s kill.log # it has flushed something
    sleep "0.$((RANDOM % 5))"
    kill -9 $writer
    wait $writer 2>/dev/null
    unharmed kill.qcow2 || bad=$((bad + 1))
    [ -f kill.log ] || continue
    "$tool" verify kill.qcow2 kill.log >verified || { wrong=$((wrong + 1)); sed 's/^/    /' verified; }
    flushed=$((flushed + $(stat -c %s kill.log)))
    rm kill.log
done
echo "# $((flushed / 16)) writes were flushed in $kills lives"
check "whoever is killed leaves at most leaks" test $bad -eq 0
check "and what was flushed" test $wrong -eq 0
"$vmctl" -q disk check --repair leaks kill.qcow2
check "leaks are repaired" sound kill.qcow2

# ---- Hostile images ----
qemu-img create -q -f qcow2 -b raw.img -F raw loop-a.qcow2
qemu-img create -q -f qcow2 -b loop-a.qcow2 -F qcow2 loop-b.qcow2
qemu-img rebase -q -u -b loop-b.qcow2 -F qcow2 loop-a.qcow2
daemon_start
create() { # NAME OPTION...
    local name=$1
    shift
    "$vmctl" create "$name" --kernel "$guest/vmlinux" --memory 160M "$@"
}
check "a chain that bites its tail is refused" refused bad-disk "lead back" create no --disk "path=$work/loop-a.qcow2"
qemu-img create -q -f qcow2 -u -b ../outside.img -F raw up.qcow2 1M
check "a backing file elsewhere is refused" refused permission "not below" create no --disk "path=$work/up.qcow2"
qemu-img create -q -f qcow2 -u -b /etc/hostname -F raw absolute.qcow2 1M
check "an absolute name, too" refused permission "not below" create no --disk "path=$work/absolute.qcow2"
ln -s /etc/passwd link.img
qemu-img create -q -f qcow2 -u -b link.img -F raw link.qcow2 1M
check "a link that leads out is not followed" refused permission "not below" create no --disk "path=$work/link.qcow2"
mkdir elsewhere
qemu-img create -q -f qcow2 -b "$work/lower/base.qcow2" -F qcow2 elsewhere/far.qcow2
check "a folder of the host is not enough" refused permission "not below" \
    create no --disk "path=$work/elsewhere/far.qcow2"
check "unless the user names it" create far --disk "path=$work/elsewhere/far.qcow2,backing=$work/lower"
"$vmctl" rm far >/dev/null
mkfifo pipe.img
qemu-img create -q -f qcow2 -u -b pipe.img -F raw pipe.qcow2 1M
check "a pipe is no backing file" refused bad-disk "neither a file" create no --disk "path=$work/pipe.qcow2"
qemu-img create -q -f qcow2 -u -b nbd://host/x -F raw nbd.qcow2 1M
check "nor is a network's address" refused unsupported "no file" create no --disk "path=$work/nbd.qcow2"
"$vmctl" -q disk create unsaid.qcow2 --size 1M
qemu-img rebase -q -u -b raw.img -F raw unsaid.qcow2
place=$(LC_ALL=C grep -aboP '\xe2\x79\x2a\xca' unsaid.qcow2 | head -1 | cut -d: -f1)
printf '\1' | dd of=unsaid.qcow2 bs=1 seek="$place" conv=notrunc status=none # another extension than the format's
check "a format that is not said is not guessed" refused bad-disk "does not say" \
    create no --disk "path=$work/unsaid.qcow2"
check "the user may say it" create said --disk "path=$work/unsaid.qcow2,backing-format=raw"
"$vmctl" rm said >/dev/null
cp top.qcow2 disguised.img
check "a raw disk that looks like another is refused" refused unsupported "looks like a qcow2" \
    create no --disk "path=$work/disguised.img"
cp raw.img raw.qcow2
check "and the other way round" refused bad-disk "no qcow2 image" create no --disk "path=$work/raw.qcow2"
check "an encrypted image is refused" sh -c "cp s.qcow2 e.qcow2; printf '\0\0\0\1' |
    dd of=e.qcow2 bs=1 seek=32 conv=notrunc status=none; ! '$vmctl' disk info e.qcow2 2>e.err && grep -q 'encryption.*unsupported' e.err"

# ---- In a guest ----
"$vmctl" -q disk create g.qcow2 --size 48M --backing lower/base.qcow2 --backing-format qcow2
append=
cp raw.img expected.img
"$vmctl" -q disk create d.qcow2 --size 64M --backing lower/base.qcow2 --backing-format qcow2
machine one --cpus 2 --disk "path=$work/g.qcow2" --disk "path=$work/lower/base.qcow2,readonly" --disk "path=$work/d.qcow2,cache=none"
wait_for 90 answered one 1
asks() { # NAME COMMAND PATTERN
    local said
    said=$(ask "$1" "$2")
    echo "$said" | grep -qE "$3" || { echo "    said: $said"; false; }
}
check "the guest reads what is below" asks one 'head -c 4194304 /dev/vda | md5sum' "$(md5sum <raw.img | cut -c 1-32)"
check "two share a base" asks one 'md5sum </dev/vdb' "$(md5sum <raw.img | cut -c 1-32)"
check "show says what it is" sh -c "'$vmctl' show one | grep -qE 'disk0: qcow2 over 1 file, file'"
check "and that another is used directly" sh -c "'$vmctl' show one | grep -qE 'disk2: qcow2 over 1 file, file.*direct'"
check "an image in use is not resized by others" refused in-use "in use" "$vmctl" disk resize g.qcow2 64M
check "nor checked" refused in-use "in use" "$vmctl" disk check --repair leaks g.qcow2
check "nor its base" refused in-use "in use" "$vmctl" disk resize lower/base.qcow2 64M
check "a disk grows while the guest runs" "$vmctl" -q disk resize one disk0 64M
check "the guest sees it" wait_for 60 asks one 'cat /sys/block/vda/size' '^131072$'
# Numbered blocks, while the device dies.
write='dd if=/dev/urandom of=/tmp/b bs=64k count=4 2>/dev/null; dd if=/tmp/b of=/dev/$disk bs=256k seek=$at conv=fsync 2>/dev/null || echo bad'
compare='dd if=/dev/$disk bs=256k skip=$at count=1 iflag=direct 2>/dev/null | cmp - /tmp/b || echo differs'
tell one "i=0; while [ \$i -lt 40 ]; do at=\$((i * 7 % 240)); [ \$((i % 2)) = 0 ] && disk=vda || disk=vdc; $write; $compare; i=\$((i + 1)); done; blkdiscard -o 62914560 -l 4194304 /dev/vda; blkdiscard -o 62914560 -l 4194304 /dev/vdc; sync; echo end"
for _ in 1 2 3; do
    wait_for 60 sh -c "'$vmctl' device list one | grep -q '^disk0 .*running'"
    kill -9 "$(pid_of one devd/disk0)" "$(pid_of one devd/disk2)" 2>/dev/null
done
outcome one >said
check "a device that is killed loses nothing" sh -c "grep -q end said && ! grep -qE 'bad|differs' said"
check "the guest's sum of it is kept" sh -c "[ -n '$(ask one 'md5sum </dev/vda' | cut -c 1-32 | tee sum)' ]"
check "and the other disk's" sh -c "[ -n '$(ask one 'md5sum </dev/vdc' | cut -c 1-32 | tee direct.sum)' ]"
"$vmctl" stop one >/dev/null 2>&1
"$vmctl" rm one >/dev/null
check "afterwards it has at most leaks" unharmed g.qcow2
"$vmctl" -q disk check --repair leaks g.qcow2
check "which are given back" sound g.qcow2
"$tool" dump g.qcow2 | md5sum | cut -c 1-32 >ours
qemu-img convert -O raw g.qcow2 g.img
check "the contents are the guest's" cmp ours sum
check "what was used directly is whole, too" unharmed d.qcow2
"$tool" dump d.qcow2 | md5sum | cut -c 1-32 >ours
check "with the guest's contents" cmp ours direct.sum
qemu-img convert -O raw d.qcow2 d.img
check "as qemu-img reads them" sh -c "[ \"\$(md5sum <d.img | cut -c 1-32)\" = \"\$(cat direct.sum)\" ]"
check "for qemu-img, too" sh -c "[ \"\$(md5sum <g.img | cut -c 1-32)\" = \"\$(cat sum)\" ]"
shells_end
