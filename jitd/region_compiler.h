/*
 * From a region to a blob, by LLVM.
 *
 * A compiler holds one LLVM context and target machine and is used by one thread. It sees nothing
 * but the region; it is given hostile input, and LLVM may still abort or loop on some of it: that
 * is why it has a process of its own.
 */
#ifndef POLYVISOR_JITD_REGION_COMPILER_H
#define POLYVISOR_JITD_REGION_COMPILER_H

#include "libshared/jit/blob.h"

struct region_compiler;

struct compiled_region {
    uint8_t *bytes; /* the blob; free() */
    size_t size;
    uint32_t insns; /* guest instructions compiled */
};

/* Once a process, before any compiler. */
bool region_compiler_setup(struct error *err);
/* Everything besides the region that decides what comes out: a digest of the lowering's sources,
 * region_abi(), LLVM's version, host CPU and features, layout of the CPU state, options. Constant
 * text, the same in every run on the same host with the same program. */
const char *region_compiler_identity(void);

/* NULL with *err set. */
struct region_compiler *region_compiler_create(struct error *err);
void region_compiler_destroy(struct region_compiler *compiler); /* NULL is allowed */

/* False with *err set: what cannot be compiled (UNSUPPORTED), or is not sound. */
bool region_compile(struct region_compiler *compiler, const struct region *region,
                    struct compiled_region *out, struct error *err);
/* Text of the LLVM IR before and after the passes and of the host code, for `jitd --replay`. free()
 */
char *region_compile_listing(struct region_compiler *compiler, const struct region *region,
                             struct error *err);

#endif
