/*
 * A block is in three structures: the hash (readers take no lock), the lists of its page or pages
 * (to find what a store destroys), and, as a target, the links of blocks of the same page and the
 * jump caches of CPUs. Dropping it takes it out of the first two and clears the links; jump caches
 * find out by its mode, which becomes BLOCK_MODE_DEAD.
 *
 * A CPU may still be inside a dropped block, or hold it in a jump cache. So dropped blocks are
 * gathered in batches. A full batch asks each CPU to empty its jump caches at its next block
 * border; when all have (or are idle, and will before they run on), the batch is freed. Nobody
 * waits for this: it is looked at again when the next block is dropped.
 */
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/interp.h"
#include "vmmd/vcpu/engine/quiesce.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <stdlib.h>

static size_t hash_of(uint64_t physical, uint32_t mode)
{
    uint64_t key = (physical >> 1) ^ (uint64_t)mode << 40;
    return (key * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (ENGINE_HASH_BUCKETS - 1);
}

int block_cache_create(struct engine *engine)
{
    engine->buckets = calloc(ENGINE_HASH_BUCKETS, sizeof(*engine->buckets));
    engine->dead_block = calloc(1, sizeof(*engine->dead_block));
    engine->no_jumps = calloc(ENGINE_JUMP_ENTRIES, sizeof(*engine->no_jumps));
    if (!engine->buckets || !engine->dead_block || !engine->no_jumps) {
        return -ENOMEM;
    }
    engine->dead_block->mode = BLOCK_MODE_DEAD;
    for (unsigned i = 0; i < ENGINE_JUMP_ENTRIES; i++) {
        engine->no_jumps[i].block = engine->dead_block;
    }
    return 0;
}

/* --- finding -------------------------------------------------------------------------------- */

struct block *block_cache_find(const struct engine *engine, uint64_t physical, uint32_t mode,
                               uint64_t next_page)
{
    struct block *_Atomic *bucket = &engine->buckets[hash_of(physical, mode)];
    struct block *block = atomic_load_explicit(bucket, memory_order_acquire);
    while (block) {
        if (block->physical == physical &&
            atomic_load_explicit(&block->mode, memory_order_relaxed) == mode &&
            (!block->straddles || block_second(block)->physical == next_page)) {
            return block;
        }
        block = atomic_load_explicit(&block->hash_next, memory_order_acquire);
    }
    return NULL;
}

bool block_cache_straddles(const struct engine *engine, uint64_t physical, uint32_t mode)
{
    struct block *_Atomic *bucket = &engine->buckets[hash_of(physical, mode)];
    struct block *block = atomic_load_explicit(bucket, memory_order_acquire);
    while (block) {
        if (block->physical == physical && block->straddles &&
            atomic_load_explicit(&block->mode, memory_order_relaxed) == mode) {
            return true;
        }
        block = atomic_load_explicit(&block->hash_next, memory_order_acquire);
    }
    return false;
}

/* --- pages ---------------------------------------------------------------------------------- */

struct code_page *block_cache_page(struct engine *engine, struct engine_cpu *self, uint64_t index)
{
    struct code_page *page = engine->code_pages[index];
    if (page) {
        return page;
    }
    page = calloc(1, sizeof(*page));
    if (!page) {
        return NULL;
    }
    page->index = index;
    page->next = engine->all_pages;
    page->link = &engine->all_pages;
    if (page->next) {
        page->next->link = &page->next;
    }
    engine->all_pages = page;
    engine->code_pages[index] = page;
    if (engine->memory->page_flags) {
        atomic_fetch_or(&engine->memory->page_flags[index], MEMORY_PAGE_CODE);
    }
    watch_page(engine, self, index, WATCH_CODE);
    return page;
}

void block_cache_settle(struct engine *engine, uint64_t index)
{
    struct code_page *page = engine->code_pages[index];
    if (!page || page->blocks || page->regions) {
        return;
    }
    watch_clear(engine, index, WATCH_CODE);
    if (engine->memory->page_flags) {
        atomic_fetch_and(&engine->memory->page_flags[index], (uint8_t)~MEMORY_PAGE_CODE);
    }
    *page->link = page->next;
    if (page->next) {
        page->next->link = page->link;
    }
    engine->code_pages[index] = NULL;
    free(page);
}

/* The bytes of `page` that the block covers. */
static void block_range(const struct block *block, const struct code_page *page, unsigned *first,
                        unsigned *last)
{
    unsigned end = block->start + block->length; /* may lie in the second page */
    if (block->straddles && !block_second(block)->page) {
        *first = 0; /* both pages are mapped to this one: any store may hit it */
        *last = PAGE_BYTES - 1;
        return;
    }
    bool second = page != block->page;
    *first = second ? 0 : block->start;
    *last = (second ? end - PAGE_BYTES : end < PAGE_BYTES ? end : PAGE_BYTES) - 1;
}

static uint64_t block_granules(const struct block *block, const struct code_page *page)
{
    unsigned first, last;
    block_range(block, page, &first, &last);
    return block_cache_granules(first, last);
}

/* Pages that have it in their lists. */
static unsigned page_count(const struct block *block)
{
    return block->straddles && block_second(block)->page ? 2 : 1;
}

static struct code_page *page_of(const struct block *block, unsigned number)
{
    return number ? block_second(block)->page : block->page;
}

void block_cache_insert(struct engine *engine, struct block *block, struct code_page *pages[2])
{
    block->page = pages[0];
    if (block->straddles) {
        block_second(block)->page = pages[1] != pages[0] ? pages[1] : NULL;
    }
    for (unsigned i = 0; i < page_count(block); i++) {
        *block_next_in_page(block, pages[i]) = pages[i]->blocks;
        pages[i]->blocks = block;
        pages[i]->granules |= block_granules(block, pages[i]);
    }
    uint32_t mode = atomic_load_explicit(&block->mode, memory_order_relaxed);
    struct block *_Atomic *bucket = &engine->buckets[hash_of(block->physical, mode)];
    struct block *head = atomic_load_explicit(bucket, memory_order_relaxed);
    atomic_store_explicit(&block->hash_next, head, memory_order_relaxed);
    atomic_store_explicit(bucket, block, memory_order_release);
    atomic_fetch_add_explicit(&engine->block_bytes, block->bytes, memory_order_relaxed);
    engine->live_code_bytes += block->compiled.size;
}

static void set_link(const struct engine *engine, struct block *from, struct block_exit *exit,
                     struct block *to)
{
    atomic_store_explicit(&exit->link, to, memory_order_release);
    if (engine->baseline) {
        baseline_link(engine->baseline, from, (unsigned)(exit - from->exits), to);
    }
}

static struct block *exit_owner(struct block_exit *exit)
{
    return (struct block *)(void *)((char *)(exit - exit->number) - offsetof(struct block, exits));
}

/* From another page: compiled code asks for the mapping each time. */
static void link_guarded(const struct engine *engine, struct block *from, struct block_exit *exit,
                         struct block *to)
{
    if (!engine->baseline || !exit->jump || (exit->target & (PAGE_BYTES - 1)) != to->start ||
        atomic_load_explicit(&exit->way, memory_order_relaxed) != BLOCK_WAY_OPEN) {
        return;
    }
    const uint8_t *host_page = watch_page_host(engine, to->page->index);
    struct guarded_exit *guarded = malloc(sizeof(*guarded));
    if (!guarded || !baseline_link_guarded(engine->baseline, from, exit->number, to, host_page)) {
        bool probed = guarded != NULL; /* otherwise it asks again */
        free(guarded);
        atomic_store_explicit(&exit->way, probed ? BLOCK_WAY_PROBED : BLOCK_WAY_OPEN,
                              memory_order_relaxed);
        return;
    }
    atomic_store_explicit(&exit->way, BLOCK_WAY_GUARDED, memory_order_relaxed);
    *guarded = (struct guarded_exit){exit, to, to->guarded_from, &to->guarded_from};
    if (guarded->next) {
        guarded->next->link = &guarded->next;
    }
    to->guarded_from = exit->guarded = guarded;
}

static void unlink_guarded(const struct engine *engine, struct guarded_exit *guarded)
{
    struct block_exit *exit = guarded->exit;
    *guarded->link = guarded->next;
    if (guarded->next) {
        guarded->next->link = guarded->link;
    }
    exit->guarded = NULL;
    free(guarded);
    atomic_store_explicit(&exit->way, BLOCK_WAY_OPEN, memory_order_relaxed);
    baseline_link(engine->baseline, exit_owner(exit), exit->number, NULL);
}

void block_cache_link(const struct engine *engine, struct block *from, struct block_exit *exit,
                      struct block *to)
{
    uint32_t mode = atomic_load_explicit(&from->mode, memory_order_relaxed);
    if (mode == BLOCK_MODE_DEAD || mode != atomic_load_explicit(&to->mode, memory_order_relaxed)) {
        return;
    }
    bool same_page = !from->straddles && (uint64_t)(int64_t)exit->target < PAGE_BYTES;
    if (!same_page) {
        link_guarded(engine, from, exit, to);
    } else if (!to->straddles && from->page == to->page && exit->target == to->start) {
        set_link(engine, from, exit, to);
    }
}

void block_cache_relink(const struct engine *engine, struct block *block)
{
    if (engine->baseline) {
        baseline_relink_guard(engine->baseline, block);
    }
    struct block *other = block->page->blocks;
    for (; other; other = *block_next_in_page(other, block->page)) {
        for (unsigned i = 0; i < other->exit_count; i++) {
            if (atomic_load_explicit(&other->exits[i].link, memory_order_relaxed) == block) {
                set_link(engine, other, &other->exits[i], block);
            }
        }
    }
}

/* --- dropping ------------------------------------------------------------------------------- */

static void unhash(struct engine *engine, struct block *block, uint32_t mode)
{
    struct block *_Atomic *place = &engine->buckets[hash_of(block->physical, mode)];
    struct block *other = atomic_load_explicit(place, memory_order_relaxed);
    while (other != block) {
        place = &other->hash_next;
        other = atomic_load_explicit(place, memory_order_relaxed);
    }
    /* The block's own hash_next stays: a reader may be standing on it. */
    atomic_store_explicit(place, atomic_load_explicit(&block->hash_next, memory_order_relaxed),
                          memory_order_release);
}

static void unlist(struct block *block, struct code_page *page)
{
    struct block **place = &page->blocks;
    while (*place != block) {
        place = block_next_in_page(*place, page);
    }
    *place = *block_next_in_page(block, page);
}

/* The guarded links of the block, in both directions. */
static void clear_guarded_links(const struct engine *engine, struct block *block)
{
    for (unsigned i = 0; i < block->exit_count; i++) {
        if (block->exits[i].guarded) {
            unlink_guarded(engine, block->exits[i].guarded);
        }
    }
    while (block->guarded_from) {
        unlink_guarded(engine, block->guarded_from);
    }
}

static void clear_links(const struct engine *engine, struct block *block,
                        const struct block *target)
{
    for (unsigned i = 0; i < block->exit_count; i++) {
        if (!target ||
            atomic_load_explicit(&block->exits[i].link, memory_order_relaxed) == target) {
            set_link(engine, block, &block->exits[i], NULL);
        }
    }
}

static void free_list(struct engine *engine, struct dropped_list *list)
{
    for (struct block *block = list->blocks, *next; block; block = next) {
        next = block->page_next;
        if (engine->baseline) {
            baseline_free(engine->baseline, block);
        }
        lower_free(block);
    }
    for (struct installed_region *region = list->regions, *next; region; region = next) {
        next = region->retired_next;
        region_free(engine, region);
    }
    *list = (struct dropped_list){0};
}

static bool batch_is_free(const struct engine *engine);
static void release_batch(struct engine *engine);

/* Keep a dropped block until nobody can hold it; the caller may then release_batch. */
static void retire(struct engine *engine, struct block *block)
{
    atomic_fetch_sub_explicit(&engine->block_bytes, block->bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&engine->blocks_dropped, 1, memory_order_relaxed);
    engine->live_code_bytes -= block->compiled.size;
    block->page_next = engine->retired.blocks;
    engine->retired.blocks = block;
    engine->retired.count++;
}

void block_cache_retire_region(struct engine *engine, struct installed_region *installed)
{
    installed->retired_next = engine->retired.regions;
    engine->retired.regions = installed;
    engine->retired.count++;
}

static void block_drop(struct engine *engine, struct engine_cpu *self, struct block *block)
{
    uint32_t mode = atomic_load_explicit(&block->mode, memory_order_relaxed);
    region_block_dropped(engine, block);
    unhash(engine, block, mode);
    atomic_store_explicit(&block->mode, BLOCK_MODE_DEAD, memory_order_release);
    for (struct block *other = block->page->blocks; other;
         other = *block_next_in_page(other, block->page)) {
        clear_links(engine, other, block);
    }
    clear_links(engine, block, NULL);
    clear_guarded_links(engine, block);
    for (unsigned i = 0; i < page_count(block); i++) {
        unlist(block, page_of(block, i));
    }
    if (self && self->cpu->block == block) {
        self->self_modified = true;
    }
    retire(engine, block);
    if (engine->retired.count >= ENGINE_RECLAIM_BLOCKS) {
        release_batch(engine);
    }
}

void block_cache_drop(struct engine *engine, struct block *block)
{
    if (atomic_load_explicit(&block->mode, memory_order_relaxed) != BLOCK_MODE_DEAD) {
        block_drop(engine, NULL, block);
    }
}

static void refresh_granules(struct code_page *page)
{
    page->granules = region_granules(page);
    for (struct block *block = page->blocks; block; block = *block_next_in_page(block, page)) {
        page->granules |= block_granules(block, page);
    }
}

void block_cache_refresh(struct engine *engine, struct code_page *page)
{
    refresh_granules(page);
    block_cache_settle(engine, page->index);
}

void block_cache_invalidate(struct engine *engine, struct engine_cpu *self, uint64_t index,
                            uint64_t offset, unsigned size)
{
    struct code_page *page = engine->code_pages[index];
    unsigned first = (unsigned)offset;
    unsigned last = first + size - 1;
    if (!page || !(page->granules & block_cache_granules(first, last))) {
        return;
    }
    for (struct block *block = page->blocks, *next; block; block = next) {
        next = *block_next_in_page(block, page);
        unsigned block_first, block_last;
        block_range(block, page, &block_first, &block_last);
        if (block_first > last || first > block_last) {
            continue;
        }
        struct code_page *other =
            page_count(block) == 2 ? page_of(block, block->page == page) : NULL;
        block_drop(engine, self, block);
        if (other) {
            block_cache_refresh(engine, other);
        }
    }
    region_invalidate(engine, page, first, last);
    block_cache_refresh(engine, page);
}

/* Take all blocks out of everything at once: no chain needs to be searched. */
void block_cache_drop_all(struct engine *engine)
{
    struct block *dropped = NULL;
    region_drop_all(engine);
    for (size_t i = 0; i < ENGINE_HASH_BUCKETS; i++) {
        atomic_store_explicit(&engine->buckets[i], NULL, memory_order_relaxed);
    }
    for (struct code_page *page = engine->all_pages; page; page = page->next) {
        for (struct block *block = page->blocks, *next; block; block = next) {
            next = *block_next_in_page(block, page);
            if (block->page == page) {
                atomic_store_explicit(&block->mode, BLOCK_MODE_DEAD, memory_order_release);
                clear_links(engine, block, NULL);
                clear_guarded_links(engine, block);
                block->page_next = dropped;
                dropped = block;
            }
        }
        page->blocks = NULL;
    }
    while (engine->all_pages) {
        block_cache_settle(engine, engine->all_pages->index);
    }
    /* Only now: it may give memory back, and blocks in two pages are in two lists. */
    while (dropped) {
        struct block *next = dropped->page_next;
        retire(engine, dropped);
        dropped = next;
    }
    release_batch(engine);
}

/* Half of the memory is for dropped blocks that wait until all CPUs have left them. They do not
 * count: dropping more would not hurry them. */
static bool code_is_full(const struct engine *engine)
{
    return engine->code_memory &&
           engine->live_code_bytes > code_memory_limit(engine->code_memory) / 2;
}

bool block_cache_limit(struct engine *engine)
{
    if (engine->batch.count && engine->retired.count >= ENGINE_RECLAIM_BLOCKS) {
        release_batch(engine);
    } else if (engine->batch.count && batch_is_free(engine)) {
        free_list(engine, &engine->batch);
    }
    uint64_t bytes = atomic_load_explicit(&engine->block_bytes, memory_order_relaxed);
    bool code_full = code_is_full(engine);
    if (bytes >= ENGINE_BLOCK_BYTES_MAX || code_full) {
        block_cache_drop_all(engine);
    }
    return code_full;
}

/* --- giving memory back --------------------------------------------------------------------- */

static bool batch_is_free(const struct engine *engine)
{
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (engine->cpus[i] &&
            !quiesce_reached(engine->cpus[i], engine->batch_tickets[i], CPU_STATE_IDLE)) {
            return false;
        }
    }
    return true;
}

static void release_batch(struct engine *engine)
{
    if (engine->batch.count) {
        if (!batch_is_free(engine)) {
            return;
        }
        free_list(engine, &engine->batch);
    }
    engine->batch = engine->retired;
    engine->retired = (struct dropped_list){0};
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (engine->cpus[i]) {
            atomic_store(&engine->cpus[i]->purge, true);
            engine->batch_tickets[i] = quiesce_request(engine->cpus[i], NULL);
        }
    }
}

void block_cache_purge(struct engine_cpu *self)
{
    self->cpu->exit = NULL;
    self->region_exit = NULL;
    if (atomic_load_explicit(&self->purge, memory_order_relaxed) &&
        atomic_exchange(&self->purge, false)) {
        mmu_jumps_clear(self);
        lower_forget(self);
    }
}

void block_cache_destroy(struct engine *engine)
{
    block_cache_drop_all(engine);
    free_list(engine, &engine->retired);
    free_list(engine, &engine->batch);
    free(engine->buckets);
    free(engine->dead_block);
    free(engine->no_jumps);
}
