/* A region with everything in it, and the smallest blob for it. */
#ifndef POLYVISOR_TESTS_JIT_SAMPLE_H
#define POLYVISOR_TESTS_JIT_SAMPLE_H

#include "libshared/jit/blob.h"
#include <string.h>

/* Three blocks on two pages, 40 bytes, a loop and an indirect edge. `seed` varies the bytes. */
static inline void jit_sample_region(struct region *region, uint32_t seed)
{
    memset(region, 0, sizeof(*region));
    strcpy(region->isa, "riscv64");
    region->mode = 3;
    region->page_count = 2;
    region->page_delta[1] = -7;
    region->block_count = 3;
    region->blocks[0] = (struct region_block){0, 0x120, 16, 4, 0, 100};
    region->blocks[1] = (struct region_block){0, 0x130, 8, 2, 16, 90};
    region->blocks[2] = (struct region_block){1, 0xff0, 16, 5, 24, 80};
    region->edge_count = 3;
    region->edges[0] = (struct region_edge){0, 1, 90};
    region->edges[1] = (struct region_edge){1, 2, 80};
    region->edges[2] = (struct region_edge){2, 0, 80};
    region->byte_count = 40;
    for (unsigned i = 0; i < 40; i++) {
        region->bytes[i] = (uint8_t)(seed >> i % 4 * 8) ^ (uint8_t)(i * 37 + 1);
    }
}

#define JIT_SAMPLE_CODE 32u
#define JIT_SAMPLE_BLOB                                                                            \
    (sizeof(struct blob_header) + 2 * sizeof(struct blob_exit) + JIT_SAMPLE_CODE)

/* A sound blob for `region`, whose code is `fill` all over. */
static inline void jit_sample_blob(const struct region *region, uint8_t fill,
                                   uint8_t bytes[JIT_SAMPLE_BLOB])
{
    struct blob_header header = {
        .magic = BLOB_MAGIC,
        .version = BLOB_VERSION,
        .code_bytes = JIT_SAMPLE_CODE,
        .entry = 4,
        .exit_count = 2,
        .page_count = region->page_count,
    };
    struct blob_exit exits[2] = {
        {.page = 0, .offset = region->blocks[0].start},
        {.page = (uint8_t)(region->page_count - 1), .offset = 0xffe},
    };

    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), exits, sizeof(exits));
    memset(bytes + sizeof(header) + sizeof(exits), fill, JIT_SAMPLE_CODE);
}

#endif
