/*
 * Tables are direct-mapped, one a context (mmu_key), so that a change of privilege or address space
 * swaps a pointer. A table doubles when too many fills replace something within few instructions,
 * and halves when flushes keep finding it almost empty.
 *
 * Two threads meet here: the owner fills, and a CPU that is about to decode from a page (or to
 * watch it for a reservation) takes write permission away. The owner stores the tag, then does a
 * read-modify-write of the page's watch byte, and downgrades the tag when it finds a watch; the
 * other does a read-modify-write of the watch byte, then scans the tables. Whoever's comes second
 * sees the other: no write permission survives unseen.
 */
#include "vmmd/vcpu/engine/soft_mmu.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TAG_COMPARE (PAGE_MASK | TLB_EMPTY)

static struct tlb_entry *context_entry(const struct mmu_context *context, uint64_t va)
{
    return &context->table[(va >> MEMORY_PAGE_SHIFT) & (context->entries - 1)];
}

static bool entry_in_use(const struct tlb_entry *entry)
{
    return !(entry->tag_read & entry->tag_exec &
             atomic_load_explicit(&entry->tag_write, memory_order_relaxed) & TLB_EMPTY);
}

static void entry_clear(struct tlb_entry *entry)
{
    entry->tag_read = TLB_EMPTY;
    entry->tag_exec = TLB_EMPTY;
    atomic_store_explicit(&entry->tag_write, TLB_EMPTY, memory_order_release);
}

static bool entry_maps(struct tlb_entry *entry, uint64_t va)
{
    uint64_t wanted = va & PAGE_MASK;
    uint64_t write = atomic_load_explicit(&entry->tag_write, memory_order_relaxed);
    return ((entry->tag_read & TAG_COMPARE) == wanted) |
           ((entry->tag_exec & TAG_COMPARE) == wanted) | ((write & TAG_COMPARE) == wanted);
}

static struct tlb_entry *table_allocate(uint64_t entries)
{
    struct tlb_entry *table = aligned_alloc(64, entries * sizeof(*table));
    for (uint64_t i = 0; table && i < entries; i++) {
        table[i].addend = 0;
        entry_clear(&table[i]);
    }
    return table;
}

/* --- the current contexts ------------------------------------------------------------------- */

static void publish_contexts(struct engine_cpu *self)
{
    struct cpu *cpu = self->cpu;
    cpu->tlb_data = self->data->table;
    cpu->tlb_data_mask = self->data->entries - 1;
    cpu->tlb_exec = self->execute->table;
    cpu->tlb_exec_mask = self->execute->entries - 1;
    cpu->jumps = self->execute->jumps ? self->execute->jumps : self->engine->no_jumps;
}

int mmu_create(struct engine_cpu *self)
{
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        struct mmu_context *context = &self->contexts[i];
        context->entries = ENGINE_TLB_ENTRIES_MIN;
        context->table = table_allocate(context->entries);
        if (!context->table) {
            return -ENOMEM;
        }
        context->key = (struct mmu_key){.root = i, .flags = UINT32_MAX};
    }
    self->data = self->execute = &self->contexts[0];
    publish_contexts(self);
    mmu_switch(self->cpu, (struct mmu_key){0}, (struct mmu_key){0});
    return 0;
}

void mmu_destroy(struct engine_cpu *self)
{
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        free(self->contexts[i].table);
        free(self->contexts[i].jumps);
    }
}

/* --- flushing ------------------------------------------------------------------------------- */

static void jumps_clear(const struct engine_cpu *self, struct mmu_context *context)
{
    if (!context->jumps_used) {
        return;
    }
    for (unsigned i = 0; i < ENGINE_JUMP_ENTRIES; i++) {
        context->jumps[i] = (struct jump_entry){.block = self->engine->dead_block};
    }
    memset(context->jump_pages, 0, sizeof(context->jump_pages));
    context->jumps_used = false;
}

static unsigned jump_page_bit(uint64_t va)
{
    uint64_t page = va >> MEMORY_PAGE_SHIFT;
    return (page ^ page >> 12) & (ENGINE_JUMP_PAGE_BITS - 1);
}

/* Note the page or pages of a block in the filter. */
static void jump_pages_add(struct mmu_context *context, uint64_t pc, const struct block *block)
{
    for (unsigned i = 0; i <= block->straddles; i++) {
        unsigned bit = jump_page_bit(pc + i * PAGE_BYTES);
        context->jump_pages[bit / 64] |= (uint64_t)1 << bit % 64;
    }
}

/* Forget the jumps to one page, and make the filter exact again: it only ever gains bits. */
static void jumps_clear_page(const struct engine_cpu *self, struct mmu_context *context,
                             uint64_t va)
{
    unsigned bit = jump_page_bit(va);
    if (!(context->jump_pages[bit / 64] >> bit % 64 & 1)) {
        return;
    }
    if (atomic_load_explicit(&self->state, memory_order_relaxed) == CPU_STATE_IDLE) {
        jumps_clear(self, context); /* its blocks may have been freed: look at none */
        return;
    }
    memset(context->jump_pages, 0, sizeof(context->jump_pages));
    for (unsigned i = 0; i < ENGINE_JUMP_ENTRIES; i++) {
        struct jump_entry *entry = &context->jumps[i];
        if (atomic_load_explicit(&entry->block->mode, memory_order_relaxed) == BLOCK_MODE_DEAD) {
            *entry = (struct jump_entry){.block = self->engine->dead_block};
            continue;
        }
        uint64_t first = entry->pc & PAGE_MASK;
        uint64_t last = first + entry->block->straddles * (uint64_t)PAGE_BYTES;
        if (first == (va & PAGE_MASK) || last == (va & PAGE_MASK)) {
            *entry = (struct jump_entry){.block = self->engine->dead_block};
        } else {
            jump_pages_add(context, entry->pc, entry->block);
        }
    }
}

void mmu_jumps_clear(struct engine_cpu *self)
{
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        jumps_clear(self, &self->contexts[i]);
    }
}

/* Give the context another table, with what of the old one still fits. */
static void context_resize(struct engine_cpu *self, struct mmu_context *context, uint64_t entries)
{
    struct tlb_entry *table = table_allocate(entries);
    if (!table) {
        return; /* slower, not wrong */
    }
    pthread_mutex_lock(&self->tlb_lock);
    struct tlb_entry *old = context->table;
    uint64_t used = 0;
    for (uint64_t i = 0; i < context->entries && context->used; i++) {
        if (entry_in_use(&old[i])) {
            uint64_t write = atomic_load_explicit(&old[i].tag_write, memory_order_relaxed);
            uint64_t tag = old[i].tag_read & TLB_EMPTY ? old[i].tag_exec : old[i].tag_read;
            tag = tag & TLB_EMPTY ? write : tag;
            struct tlb_entry *entry = &table[(tag >> MEMORY_PAGE_SHIFT) & (entries - 1)];
            entry->tag_read = old[i].tag_read;
            entry->tag_exec = old[i].tag_exec;
            entry->addend = old[i].addend;
            atomic_store_explicit(&entry->tag_write, write, memory_order_relaxed);
            used++;
        }
    }
    context->table = table;
    context->entries = entries;
    context->used = used;
    pthread_mutex_unlock(&self->tlb_lock);
    free(old);
    publish_contexts(self);
}

static void context_flush(struct engine_cpu *self, struct mmu_context *context)
{
    jumps_clear(self, context);
    if (context->used == 0) {
        return;
    }
    bool sparse = context->used < context->entries / 8;
    context->sparse_flushes = sparse ? context->sparse_flushes + 1 : 0;
    for (uint64_t i = 0; i < context->entries; i++) {
        entry_clear(&context->table[i]);
    }
    context->used = 0;
    context->large_count = 0;
    if (context->sparse_flushes >= ENGINE_TLB_SHRINK_FLUSHES &&
        context->entries > ENGINE_TLB_ENTRIES_MIN) {
        context->sparse_flushes = 0;
        context_resize(self, context, context->entries / 2);
    }
}

static bool in_large_range(const struct mmu_context *context, uint64_t va)
{
    for (unsigned i = 0; i < context->large_count; i++) {
        if ((va & context->large[i].mask) == context->large[i].base) {
            return true;
        }
    }
    return false;
}

static void context_flush_page(struct engine_cpu *self, struct mmu_context *context, uint64_t va)
{
    if (in_large_range(context, va)) {
        context_flush(self, context);
        return;
    }
    jumps_clear_page(self, context, va);
    struct tlb_entry *entry = context_entry(context, va);
    if (entry_maps(entry, va)) {
        entry_clear(entry);
        context->used--;
    }
}

void mmu_flush(struct engine_cpu *self, const struct flush_request *request)
{
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        struct mmu_context *context = &self->contexts[i];
        if ((context->used == 0 && !context->jumps_used) ||
            (!request->any_root && (context->key.root & request->root_mask) != request->root)) {
            continue;
        }
        if (request->any_page) {
            context_flush(self, context);
            continue;
        }
        for (uint64_t offset = 0; offset < request->size; offset += PAGE_BYTES) {
            context_flush_page(self, context, request->va + offset);
        }
    }
}

/* --- switching ------------------------------------------------------------------------------ */

static struct mmu_context *context_find(struct engine_cpu *self, struct mmu_key key)
{
    struct mmu_context *oldest = NULL;
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        struct mmu_context *context = &self->contexts[i];
        if (context->key.root == key.root && context->key.flags == key.flags) {
            context->last_use = ++self->context_clock;
            return context;
        }
        bool current = context == self->data || context == self->execute;
        if (!current && (!oldest || context->last_use < oldest->last_use)) {
            oldest = context;
        }
    }
    context_flush(self, oldest);
    oldest->key = key;
    oldest->last_use = ++self->context_clock;
    return oldest;
}

static bool jumps_allocate(struct engine_cpu *self, struct mmu_context *context)
{
    if (!context->jumps) {
        context->jumps = aligned_alloc(64, ENGINE_JUMP_ENTRIES * sizeof(*context->jumps));
        context->jumps_used = context->jumps != NULL;
        jumps_clear(self, context);
    }
    return context->jumps != NULL;
}

void mmu_switch(struct cpu *cpu, struct mmu_key data, struct mmu_key execute)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    self->data = context_find(self, data);
    bool same = data.root == execute.root && data.flags == execute.flags;
    self->execute = same ? self->data : context_find(self, execute);
    publish_contexts(self);
}

void mmu_jump_insert(struct engine_cpu *self, uint64_t pc, struct block *block)
{
    struct mmu_context *context = self->execute;
    if (!jumps_allocate(self, context)) {
        return;
    }
    self->cpu->jumps = context->jumps;
    context->jumps[jump_index(pc)] = (struct jump_entry){.pc = pc, .block = block};
    context->jumps_used = true;
    jump_pages_add(context, pc, block);
}

/* --- filling -------------------------------------------------------------------------------- */

/* The smallest aligned range that holds both. */
static struct large_range join(struct large_range one, struct large_range other)
{
    uint64_t mask = one.mask & other.mask;
    while ((one.base & mask) != (other.base & mask)) {
        mask <<= 1;
    }
    return (struct large_range){.base = one.base & mask, .mask = mask};
}

static void note_large_page(struct mmu_context *context, uint64_t va, uint64_t page_size)
{
    struct large_range leaf = {.base = va & ~(page_size - 1), .mask = ~(page_size - 1)};
    struct large_range *best = NULL;
    struct large_range best_joined = {0};
    for (unsigned i = 0; i < context->large_count; i++) {
        struct large_range joined = join(context->large[i], leaf);
        if (!best || joined.mask > best_joined.mask) { /* a larger mask is a smaller range */
            best = &context->large[i];
            best_joined = joined;
        }
    }
    if (best && (best_joined.mask >= ~(ENGINE_LARGE_JOIN - 1) ||
                 context->large_count == ENGINE_LARGE_RANGES)) {
        *best = best_joined;
    } else {
        context->large[context->large_count++] = leaf;
    }
}

static void describe(const struct engine_cpu *self, const struct tlb_entry *entry, uint64_t tag,
                     uint64_t va, struct mmu_page *page)
{
    uint64_t target = va + entry->addend;
    *page = (struct mmu_page){.physical = target};
    if (tag & TLB_DEVICE) {
        return;
    }
    page->host = (uint8_t *)(uintptr_t)target;
    page->watched = (tag & TLB_SLOW) != 0;
    const struct memory *memory = self->engine->memory;
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t offset = (uint64_t)(page->host - region->host);
        if (offset < region->size) {
            page->physical = region->base + offset;
            page->index = region->first_page + (offset >> MEMORY_PAGE_SHIFT);
        }
    }
}

/* Allow writes by the fast path, unless the page is watched. Returns the tag it got. */
static uint64_t grant_write(struct engine_cpu *self, struct tlb_entry *entry, uint64_t va,
                            uint64_t index)
{
    uint64_t tag = va & PAGE_MASK;
    atomic_store_explicit(&entry->tag_write, tag, memory_order_release);
    uint8_t old = atomic_fetch_or(&self->engine->watch[index], WATCH_WRITERS);
    if (old & (WATCH_CODE | WATCH_RESERVED)) {
        tag |= TLB_SLOW;
        atomic_store_explicit(&entry->tag_write, tag, memory_order_release);
    }
    return tag;
}

static void consider_growth(struct engine_cpu *self, struct mmu_context *context)
{
    if (++context->fills < context->entries) {
        return;
    }
    uint64_t insns = self->cpu->retired - context->window;
    bool grow =
        insns < context->fills * ENGINE_TLB_GROW_INSNS && context->entries < ENGINE_TLB_ENTRIES_MAX;
    context->fills = 0;
    context->window = self->cpu->retired;
    if (grow) {
        context_resize(self, context, context->entries * 2);
    }
}

/* The cleared entry for `va`, counted as used. */
static struct tlb_entry *claim_entry(struct engine_cpu *self, struct mmu_context *context,
                                     uint64_t va)
{
    struct tlb_entry *entry = context_entry(context, va);
    if (entry_in_use(entry) && !entry_maps(entry, va)) {
        consider_growth(self, context);
        entry = context_entry(context, va);
    }
    if (entry_in_use(entry)) {
        entry_clear(entry);
    } else {
        context->used++;
    }
    return entry;
}

static bool fill(struct engine_cpu *self, struct mmu_context *context, uint64_t va,
                 enum cpu_access access, struct mmu_page *page)
{
    struct engine *engine = self->engine;
    struct mmu_translation translation;
    engine_count(self->counters.tlb_misses);
    if (!engine->isa->translate(self->cpu, context->key, va, access, &translation)) {
        return false;
    }
    struct tlb_entry *entry = claim_entry(self, context, va);
    if (translation.page_size > PAGE_BYTES) {
        note_large_page(context, va, translation.page_size);
    }
    uint64_t va_page = va & PAGE_MASK;
    uint64_t physical_page = translation.physical & PAGE_MASK;
    uint8_t *host = memory_pointer(engine->memory, physical_page, PAGE_BYTES);
    uint64_t bits = host ? 0 : TLB_SLOW | TLB_DEVICE;
    uint64_t base = host ? (uint64_t)(uintptr_t)host : physical_page;
    __atomic_store_n(&entry->addend, base - va_page, __ATOMIC_RELEASE);
    entry->tag_read = translation.read ? va_page | bits : TLB_EMPTY;
    entry->tag_exec = translation.execute ? va_page | bits : TLB_EMPTY;
    uint64_t tag = va_page | bits;
    describe(self, entry, tag, va, page);
    if (translation.write && host) {
        uint64_t write_tag = grant_write(self, entry, va, page->index);
        page->watched = access == CPU_ACCESS_WRITE && (write_tag & TLB_SLOW);
    } else if (translation.write) {
        atomic_store_explicit(&entry->tag_write, tag, memory_order_release);
    }
    return true;
}

static uint64_t entry_tag(struct tlb_entry *entry, enum cpu_access access)
{
    switch (access) {
    case CPU_ACCESS_READ:
        return entry->tag_read;
    case CPU_ACCESS_WRITE:
        return atomic_load_explicit(&entry->tag_write, memory_order_relaxed);
    default:
        return entry->tag_exec;
    }
}

bool mmu_resolve(struct engine_cpu *self, uint64_t va, enum cpu_access access,
                 struct mmu_page *page)
{
    struct mmu_context *context = access == CPU_ACCESS_EXECUTE ? self->execute : self->data;
    struct tlb_entry *entry = context_entry(context, va);
    uint64_t tag = entry_tag(entry, access);
    if ((tag & TAG_COMPARE) != (va & PAGE_MASK)) {
        return fill(self, context, va, access, page);
    }
    describe(self, entry, tag, va, page);
    if (page->watched &&
        !(atomic_load(&self->engine->watch[page->index]) & (WATCH_CODE | WATCH_RESERVED))) {
        page->watched = (grant_write(self, entry, va, page->index) & TLB_SLOW) != 0;
    }
    return true;
}

bool mmu_revoke_writes(struct engine_cpu *target, const uint8_t *host_page)
{
    bool found = false;
    pthread_mutex_lock(&target->tlb_lock);
    for (unsigned c = 0; c < ENGINE_CONTEXTS; c++) {
        struct mmu_context *context = &target->contexts[c];
        for (uint64_t i = 0; i < context->entries; i++) {
            struct tlb_entry *entry = &context->table[i];
            uint64_t tag = atomic_load_explicit(&entry->tag_write, memory_order_acquire);
            if (tag & (TLB_EMPTY | TLB_SLOW)) {
                continue;
            }
            uint64_t addend = __atomic_load_n(&entry->addend, __ATOMIC_ACQUIRE);
            if ((tag & PAGE_MASK) + addend != (uint64_t)(uintptr_t)host_page) {
                continue;
            }
            atomic_compare_exchange_strong(&entry->tag_write, &tag, TLB_EMPTY);
            found = true;
        }
    }
    pthread_mutex_unlock(&target->tlb_lock);
    return found;
}
