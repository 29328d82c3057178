/* From an ELF object in memory to the code of a blob. */
#ifndef POLYVISOR_JITD_LLVM_OBJECT_H
#define POLYVISOR_JITD_LLVM_OBJECT_H

#include "libshared/jit/blob.h"

struct object_code {
    uint8_t *bytes; /* free() */
    uint32_t size;  /* a multiple of BLOB_ALIGN */
    uint32_t entry;
};

/* Lay out code and constants and resolve what refers to them and to the tables behind them.
 * `entry`, `exits` and `pages` are symbols. False with *err set: a reference to anything else, or
 * one that is not relative. */
bool object_extract(const uint8_t *object, size_t size, uint32_t exit_count,
                    struct object_code *out, struct error *err);

#endif
