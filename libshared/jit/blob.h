/*
 * The code that jitd makes of a region, as it travels and as the cache keeps it: flat,
 * position-independent, with exits as data.
 *
 * In bytes: struct blob_header, exit_count times struct blob_exit, code_bytes of code and
 * constants. The receiver copies the code to executable memory and appends two tables, which the
 * code reaches PC-relatively (it was linked for exactly this place):
 *
 *   code_bytes                  struct code_target *exits[exit_count]
 *   code_bytes + 8 * exit_count uint64_t pages[page_count]
 *
 * A blob comes from a process that may have been taken over, or from a file: everything but the
 * code itself is checked (blob_check). The code cannot be checked; docs/design/jit.md says what
 * that means.
 */
#ifndef POLYVISOR_JIT_BLOB_H
#define POLYVISOR_JIT_BLOB_H

#include "libshared/jit/region.h"

#define BLOB_MAGIC     UINT32_C(0x424a5650) /* "PVJB" */
#define BLOB_VERSION   1u
#define BLOB_ALIGN     16u /* of code_bytes */
#define BLOB_AT        64u /* of the place the code is copied to: its constants' alignment */
#define BLOB_CODE_MAX  (256u << 10)
#define BLOB_EXITS_MAX 512u

struct blob_header {
    uint32_t magic, version;
    uint32_t code_bytes; /* a multiple of BLOB_ALIGN */
    uint32_t entry;      /* offset of the entry in the code */
    uint16_t exit_count; /* at least 1 */
    uint16_t page_count; /* the region's */
    uint32_t reserved;   /* 0 */
};

/* Where exit i leads: offset in the guest page, and which one. Exit 0 is the way back to the
 * entry's own block in the lower tier, for when a page guard fails. Only targets in the region's
 * own pages are exits; everything else goes through the runtime's look-up. */
struct __attribute__((packed)) blob_exit { /* wherever the bytes lie */
    uint8_t page;
    uint8_t reserved; /* 0 */
    uint16_t offset;
};

/* A checked view into the bytes. */
struct blob {
    struct blob_header header;
    const struct blob_exit *exits;
    const uint8_t *code;
};

/* False with *err set (ERROR_PROTOCOL): sizes, counts, page numbers.
 * `region` is what it was asked for. `bytes` must stay. */
bool blob_check(struct blob *blob, const uint8_t *bytes, size_t size, const struct region *region,
                struct error *err);
/* Executable bytes that the receiver needs: code and both tables. */
size_t blob_installed_size(const struct blob *blob);

#endif
