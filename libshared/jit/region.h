/*
 * A region: guest code that the optimised tier compiles as a whole.
 *
 * vcpud forms it from what it saw run, jitd decodes its bytes and compiles them, and the code cache
 * keeps both. A region is one entry (block 0) and the basic blocks that are worth having with it,
 * on up to REGION_PAGES_MAX pages. All positions are relative to the page of the entry, so one
 * region serves every mapping; that the other pages lie at the same distances, and hold what they
 * held, is checked by the code itself each time it is entered (runtime.h).
 *
 * What control flow there is, is not in here: jitd finds it by decoding. `edges` say what decoding
 * cannot tell: where indirect jumps went, and how often edges were taken.
 */
#ifndef POLYVISOR_JIT_REGION_H
#define POLYVISOR_JIT_REGION_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGION_PAGES_MAX  4u
#define REGION_BLOCKS_MAX 128u
#define REGION_EDGES_MAX  512u
#define REGION_INSNS_MAX  1024u
#define REGION_BYTES_MAX  4096u /* of all blocks together */
/* Pages further from the entry's than this cannot belong to its region. */
#define REGION_DELTA_MAX (INT32_C(1) << 24)

/* A basic block as vcpud decoded it: it ends where that decoder ended it. */
struct region_block {
    uint8_t page;    /* index in region.page_delta */
    uint16_t start;  /* page offset */
    uint16_t length; /* bytes, at least 1; does not leave the page */
    uint16_t insns;  /* guest instructions, 1 to IR_INSNS_MAX */
    uint16_t bytes;  /* where its bytes begin in region.bytes */
    uint32_t heat;   /* times seen; relative to the others' */
};

struct region_edge {
    uint16_t from, to; /* blocks */
    uint32_t heat;
};

struct region {
    char isa[16];  /* "riscv64" */
    uint32_t mode; /* block mode */
    uint16_t page_count, block_count, edge_count, byte_count;
    int32_t page_delta[REGION_PAGES_MAX]; /* in pages from the entry's; [0] is 0 */
    struct region_block blocks[REGION_BLOCKS_MAX];
    struct region_edge edges[REGION_EDGES_MAX];
    uint8_t bytes[REGION_BYTES_MAX];
};

/* NULL when every count, index and range is sound, otherwise a constant text that names the first
 * defect. For what another process sent. */
const char *region_check(const struct region *region);

/* To and from the message in proto/jit.proto. region_unpack checks. Pack returns the length, or 0
 * when `size` is too small (REGION_PACKED_MAX is always enough). The same region packs to the same
 * bytes; without heat, if so wanted, for keys. */
#define REGION_PACKED_MAX (32u << 10)
size_t region_pack(const struct region *region, bool with_heat, uint8_t *bytes, size_t size);
bool region_unpack(struct region *region, const uint8_t *bytes, size_t size, struct error *err);

/* What the entry looks like, so that vcpud can tell whether the cache may have something for a
 * block it has just decoded: a hash of isa, mode, page offset and the block's bytes. */
uint64_t region_fingerprint(const char *isa, uint32_t mode, uint16_t start, const uint8_t *bytes,
                            uint16_t length);

#endif
