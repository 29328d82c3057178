/*
 * The cache of decoded blocks of one machine: found by physical address and mode, dropped when
 * their bytes change, given back once no CPU can hold them.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BLOCK_CACHE_H
#define POLYVISOR_VCPU_ENGINE_BLOCK_CACHE_H

#include "vmmd/vcpu/engine/core.h"

/* The 64-byte granules of bytes first to last of a page, a bit each. */
static inline uint64_t block_cache_granules(unsigned first, unsigned last)
{
    const unsigned shift = 6;
    unsigned low = first >> shift;
    unsigned high = last >> shift;
    return (~(uint64_t)0 >> (63 - (high - low))) << low;
}

int block_cache_create(struct engine *engine); /* 0 or -ENOMEM */
void block_cache_destroy(struct engine *engine);

/* A live block at `physical` for `mode`, or NULL. Lock-free. `next_page` gives the second page's
 * physical address, for blocks that straddle (UINT64_MAX: unknown, such blocks are passed over). */
struct block *block_cache_find(const struct engine *engine, uint64_t physical, uint32_t mode,
                               uint64_t next_page);
/* Whether some block at `physical` for `mode` straddles: the caller then needs next_page. */
bool block_cache_straddles(const struct engine *engine, uint64_t physical, uint32_t mode);

/* --- with the watch lock held --------------------------------------------------------------- */
/* The page's record, created as needed; NULL without memory. Sets the watch and waits for writers.
 */
struct code_page *block_cache_page(struct engine *engine, struct engine_cpu *self, uint64_t index);
/* Publish a block; pages[1] is NULL unless it straddles. */
void block_cache_insert(struct engine *engine, struct block *block, struct code_page *pages[2]);
/* Let `exit` of `from` lead to `to` for good, when that is right. */
void block_cache_link(const struct engine *engine, struct block *from, struct block_exit *exit,
                      struct block *to);
/* Drop the blocks that overlap [offset, offset + size) of a page. `self` may be NULL. */
void block_cache_invalidate(struct engine *engine, struct engine_cpu *self, uint64_t index,
                            uint64_t offset, unsigned size);
/* Drop one block, if it has not been already. */
void block_cache_drop(struct engine *engine, struct block *block);
/* Stop watching a page that has neither block nor region. */
void block_cache_settle(struct engine *engine, uint64_t index);
/* Drop everything. */
void block_cache_drop_all(struct engine *engine);
/* After something was taken off the page: its granules, and whether it is still needed. */
void block_cache_refresh(struct engine *engine, struct code_page *page);
/* The block's way in has changed: patch the links that lead to it. */
void block_cache_relink(const struct engine *engine, struct block *block);
/* Keep a dropped region until no CPU can be in it. */
void block_cache_retire_region(struct engine *engine, struct installed_region *installed);
/* Drop everything when the blocks hold too much memory. True: because code memory was full. */
bool block_cache_limit(struct engine *engine);

/* The CPU's own thread, at a block border: forget pointers to dropped blocks when asked to. */
void block_cache_purge(struct engine_cpu *self);

#endif
