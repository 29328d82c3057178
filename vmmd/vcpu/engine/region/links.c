/*
 * Publishing and dropping regions: what leads to them, where they lead, and the pages they depend
 * on.
 *
 * A dropped region may still run on some CPU. Its exits are reset, so that it leaves for the outer
 * loop, and all CPUs are asked for attention, so that they leave its loops; its memory waits for
 * them with that of dropped blocks.
 */
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- memory --------------------------------------------------------------------------------- */

struct installed_region *region_allocate(struct engine *engine, const struct region *region,
                                         const struct blob *blob, struct error *err)
{
    unsigned exits = blob->header.exit_count;
    size_t places_at = sizeof(struct installed_region) + exits * sizeof(struct region_exit);
    size_t bytes = places_at + region->block_count * sizeof(struct region_place);
    struct installed_region *installed = calloc(1, bytes);
    if (!installed) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for a compiled region");
        return NULL;
    }
    if (!code_memory_allocate_aligned(engine->code_memory, (uint32_t)blob_installed_size(blob),
                                      BLOB_AT, &installed->span)) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no code memory for a compiled region");
        free(installed);
        return NULL;
    }
    installed->code_bytes = blob->header.code_bytes;
    installed->entry = blob->header.entry;
    installed->bytes = (uint32_t)bytes;
    installed->page_count = region->page_count;
    installed->place_count = region->block_count;
    installed->exit_count = (uint16_t)exits;
    installed->places = (struct region_place *)((char *)installed + places_at);
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        installed->places[i] = (struct region_place){
            .page = block->page,
            .first = block->start,
            .last = (uint16_t)(block->start + block->length - 1),
        };
    }
    for (unsigned i = 0; i < exits; i++) {
        installed->exits[i] = (struct region_exit){.target = {.entry = (void *)region_leave},
                                                   .region = installed,
                                                   .offset = blob->exits[i].offset,
                                                   .page = blob->exits[i].page};
    }
    memcpy(installed->span.write, blob->code, blob->header.code_bytes);
    return installed;
}

void region_free(struct engine *engine, struct installed_region *installed)
{
    code_memory_free(engine->code_memory, installed->span.execute, installed->span.size);
    free(installed);
}

/* --- exits ---------------------------------------------------------------------------------- */

/* The word behind the code that exit `index` jumps by. */
static void set_exit(struct installed_region *installed, unsigned index,
                     const struct code_target *target)
{
    uint8_t *table = installed->span.write + installed->code_bytes;
    uint64_t *word = (uint64_t *)(void *)(table + index * sizeof(uint64_t));
    __atomic_store_n(word, (uint64_t)(uintptr_t)target, __ATOMIC_RELEASE);
}

static void unlink_exit(struct region_exit *exit)
{
    struct installed_region *installed = exit->region;
    set_exit(installed, (unsigned)(exit - installed->exits), &exit->target);
    if (exit->to) {
        *exit->link = exit->next;
        if (exit->next) {
            exit->next->link = exit->link;
        }
        exit->to = NULL;
    }
}

void region_link(struct region_exit *exit, struct block *to)
{
    struct installed_region *installed = exit->region;
    unsigned index = (unsigned)(exit - installed->exits);
    if (!installed->head || index == 0 || exit->to || to->straddles || to->start != exit->offset ||
        to->page != installed->pages[exit->page] ||
        atomic_load(&to->mode) != atomic_load(&installed->head->mode)) {
        return;
    }
    exit->to = to;
    exit->next = to->incoming;
    exit->link = &to->incoming;
    if (exit->next) {
        exit->next->link = &exit->next;
    }
    to->incoming = exit;
    set_exit(installed, index, &to->target);
}

/* --- pages ---------------------------------------------------------------------------------- */

/* Two pages of a region may be one page of RAM, mapped twice: it is listed there once. */
static unsigned page_slot(const struct installed_region *installed, const struct code_page *page)
{
    unsigned i = 0;
    while (installed->pages[i] != page) {
        i++;
    }
    return i;
}

static bool is_listed_here(const struct installed_region *installed, unsigned i)
{
    return page_slot(installed, installed->pages[i]) == i;
}

static void unlist(struct installed_region *installed, struct code_page *page)
{
    struct installed_region **place = &page->regions;
    while (*place != installed) {
        place = &(*place)->page_next[page_slot(*place, page)];
    }
    *place = installed->page_next[page_slot(installed, page)];
}

uint64_t region_granules(const struct code_page *page)
{
    uint64_t granules = 0;
    const struct installed_region *region = page->regions;
    for (; region; region = region->page_next[page_slot(region, page)]) {
        for (unsigned i = 0; i < region->place_count; i++) {
            const struct region_place *place = &region->places[i];
            if (region->pages[place->page] == page) {
                granules |= block_cache_granules(place->first, place->last);
            }
        }
    }
    return granules;
}

bool region_holds(const struct engine *engine, const struct installed_region *installed,
                  uint64_t physical)
{
    for (unsigned i = 0; i < installed->place_count; i++) {
        const struct region_place *place = &installed->places[i];
        const struct code_page *page = installed->pages[place->page];
        if (place->first == (physical & (PAGE_BYTES - 1)) &&
            watch_page_physical(engine, page->index) == (physical & PAGE_MASK)) {
            return true;
        }
    }
    return false;
}

/* --- publishing ----------------------------------------------------------------------------- */

static void fill_tables(const struct engine *engine, struct installed_region *installed)
{
    uint64_t *words = (uint64_t *)(void *)(installed->span.write + installed->code_bytes);
    for (unsigned i = 0; i < installed->exit_count; i++) {
        words[i] = (uint64_t)(uintptr_t)&installed->exits[i];
    }
    words += installed->exit_count;
    for (unsigned i = 0; i < installed->page_count; i++) {
        words[i] = (uint64_t)(uintptr_t)watch_page_host(engine, installed->pages[i]->index);
    }
    code_memory_publish(&installed->span, installed->span.size);
}

/* Let all ways into the block lead to `entry`. */
static void enter_by(struct engine *engine, struct block *head, void *entry)
{
    __atomic_store_n(&head->target.entry, entry, __ATOMIC_RELEASE);
    block_cache_relink(engine, head);
}

void region_publish(struct engine *engine, struct installed_region *installed, struct block *head,
                    struct code_page *const pages[])
{
    struct installed_region *old = atomic_load_explicit(&head->region, memory_order_relaxed);
    for (unsigned i = 0; i < installed->page_count; i++) {
        installed->pages[i] = pages[i];
    }
    for (unsigned i = 0; i < installed->page_count; i++) {
        if (is_listed_here(installed, i)) {
            installed->page_next[i] = pages[i]->regions;
            pages[i]->regions = installed;
            pages[i]->granules |= region_granules(pages[i]);
        }
    }
    if (old) {
        region_drop(engine, old, head->page); /* now its pages stay, as far as we need them */
    }
    installed->head = head;
    installed->exits[0].target.entry = head->compiled.execute;
    fill_tables(engine, installed);
    installed->next = engine->regions;
    installed->link = &engine->regions;
    if (installed->next) {
        installed->next->link = &installed->next;
    }
    engine->regions = installed;
    engine->live_code_bytes += installed->span.size;
    atomic_fetch_add_explicit(&engine->block_bytes, installed->bytes, memory_order_relaxed);
    engine_count(engine->region_counts.regions);
    engine_count_by(engine->region_counts.region_bytes, installed->span.size);
    atomic_store_explicit(&head->region, installed, memory_order_release);
    enter_by(engine, head, installed->span.execute + installed->entry);
}

/* --- dropping ------------------------------------------------------------------------------- */

static void leave_pages(struct engine *engine, struct installed_region *installed,
                        const struct code_page *keep)
{
    struct code_page *left[REGION_PAGES_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < installed->page_count; i++) {
        if (is_listed_here(installed, i)) {
            left[count++] = installed->pages[i];
        }
    }
    for (unsigned i = 0; i < count; i++) {
        unlist(installed, left[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        if (left[i] != keep) {
            block_cache_refresh(engine, left[i]);
        }
    }
}

void region_drop(struct engine *engine, struct installed_region *installed,
                 const struct code_page *keep)
{
    struct block *head = installed->head;
    atomic_store_explicit(&head->region, NULL, memory_order_release);
    enter_by(engine, head, head->compiled.execute);
    installed->head = NULL;
    installed->exits[0].target.entry = (void *)region_leave;
    for (unsigned i = 0; i < installed->exit_count; i++) {
        unlink_exit(&installed->exits[i]);
    }
    leave_pages(engine, installed, keep);
    *installed->link = installed->next;
    if (installed->next) {
        installed->next->link = installed->link;
    }
    engine->live_code_bytes -= installed->span.size;
    atomic_fetch_sub_explicit(&engine->block_bytes, installed->bytes, memory_order_relaxed);
    engine_count_by(engine->region_counts.regions, (uint64_t)-1);
    engine_count_by(engine->region_counts.region_bytes, -(uint64_t)installed->span.size);
    engine_count(engine->region_counts.regions_dropped);
    block_cache_retire_region(engine, installed);
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (engine->cpus[i]) {
            cpu_attention(engine->cpus[i]->cpu, CPU_ATTENTION_FLUSH);
        }
    }
}

void region_block_dropped(struct engine *engine, struct block *block)
{
    struct installed_region *installed = atomic_load_explicit(&block->region, memory_order_relaxed);
    if (installed) {
        region_drop(engine, installed, block->page);
    }
    while (block->incoming) {
        unlink_exit(block->incoming);
    }
}

static bool overlaps(const struct installed_region *installed, const struct code_page *page,
                     unsigned first, unsigned last)
{
    for (unsigned i = 0; i < installed->place_count; i++) {
        const struct region_place *place = &installed->places[i];
        if (installed->pages[place->page] == page && place->first <= last && first <= place->last) {
            return true;
        }
    }
    return false;
}

void region_invalidate(struct engine *engine, struct code_page *page, unsigned first, unsigned last)
{
    struct installed_region *next;
    for (struct installed_region *region = page->regions; region; region = next) {
        next = region->page_next[page_slot(region, page)];
        if (overlaps(region, page, first, last)) {
            region_drop(engine, region, page);
        }
    }
}

void region_drop_all(struct engine *engine)
{
    while (engine->regions) {
        region_drop(engine, engine->regions, NULL);
    }
}
