#!/usr/bin/env bash
# Code of the cache belongs to the sources that made it: every change of the lowering, or of what it
# shares with vcpud, names another compiler, and the build has noticed the last one.
. "$(dirname "$0")/lib.sh"

tree=$work/tree
header=$work/digest.h
mkdir -p "$tree"
cp -r --parents jitd/llvm libshared vmmd/vcpu/engine/region tools "$tree"
digest() { # NAME
    sed -nE "s/^#define SOURCE_DIGEST_$1 +\"([0-9a-f]+)\"/\1/p" "$header"
}
both() {
    tools/source-digest "$header" "$tree" && echo "$(digest LOWERING) $(digest SHARED)"
}
# What changes after a command: "lowering", "shared", both or nothing.
changed() { # COMMAND...
    local before=($(both)) after
    "$@"
    after=($(both))
    [ "${before[0]}" = "${after[0]}" ] || echo lowering
    [ "${before[1]}" = "${after[1]}" ] || echo shared
}
changes() { # WHAT COMMAND...
    local what=$1
    shift
    [ "$(changed "$@")" = "$what" ]
}
append() { # FILE
    echo '/* another */' >>"$tree/$1"
}
both >/dev/null
check "digests are made" [ ${#header} -gt 0 -a "$(digest LOWERING)" != "$(digest SHARED)" ]
check "the lowering counts" changes lowering append jitd/llvm/op_integer.c
check "its headers too" changes lowering append jitd/llvm/lowering.h
check "a new file" changes lowering append jitd/llvm/new.c
check "a name" changes lowering mv "$tree/jitd/llvm/new.c" "$tree/jitd/llvm/newer.c"
check "a file that goes" changes lowering rm "$tree/jitd/llvm/newer.c"
for file in libshared/isa/cpu.h libshared/isa/riscv64/decode.c libshared/isa/riscv64/helpers.def libshared/ir/ops.def \
    libshared/fp/fp_f64.c libshared/jit/runtime.h libshared/jit/blob.h vmmd/vcpu/engine/region/runtime.c; do
    check "$file counts for both ends" changes shared append $file
done
check "others do not" changes "" append libshared/jit/cache.c
inode=$(stat -c %i "$header")
both >/dev/null
check "the header is left alone when nothing changed" [ "$(stat -c %i "$header")" = "$inode" ]

# The programs are what the sources say.
tools/source-digest "$header"
if [ -e "$bin/jitd" ]; then
    check "jitd has the lowering's digest" grep -qa "lowering $(digest LOWERING)" "$bin/jitd"
    check "and what it shares" grep -qa "shared $(digest SHARED)" "$bin/jitd"
fi
check "vcpud has what both share" grep -qa "shared $(digest SHARED)" "$bin/vcpud"
