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

static bool bit_get(const uint64_t *bits, uint64_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

static void bit_set(uint64_t *bits, uint64_t i, bool value)
{
    uint64_t bit = (uint64_t)1 << i % 64;
    bits[i / 64] = value ? bits[i / 64] | bit : bits[i / 64] & ~bit;
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

/* Make the entry hold another one's translation. */
static void entry_copy(struct tlb_entry *entry, const struct tlb_entry *from)
{
    entry->tag_read = from->tag_read;
    entry->tag_exec = from->tag_exec;
    __atomic_store_n(&entry->addend, from->addend, __ATOMIC_RELEASE);
    atomic_store_explicit(&entry->tag_write,
                          atomic_load_explicit(&from->tag_write, memory_order_relaxed),
                          memory_order_release);
}

/* An address in the page that an entry in use translates. */
static uint64_t entry_va(const struct tlb_entry *entry)
{
    uint64_t tag = entry->tag_read & TLB_EMPTY ? entry->tag_exec : entry->tag_read;
    return tag & TLB_EMPTY ? atomic_load_explicit(&entry->tag_write, memory_order_relaxed) : tag;
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
    memset(context->global_jumps, 0, sizeof(context->global_jumps));
    context->jumps_used = false;
}

/* Forget those that are not global. The filter keeps its bits. */
static void jumps_clear_local(const struct engine_cpu *self, struct mmu_context *context)
{
    for (unsigned i = 0; context->jumps_used && i < ENGINE_JUMP_ENTRIES; i++) {
        if (!bit_get(context->global_jumps, i)) {
            context->jumps[i] = (struct jump_entry){.block = self->engine->dead_block};
        }
    }
}

/* Two bits of the filter for each page: few pages share both. */
static void jump_page_bits(uint64_t va, unsigned bits[2])
{
    uint64_t hash = (va >> MEMORY_PAGE_SHIFT) * UINT64_C(0x9e3779b97f4a7c15);
    bits[0] = hash >> 48 & (ENGINE_JUMP_PAGE_BITS - 1);
    bits[1] = hash >> 32 & (ENGINE_JUMP_PAGE_BITS - 1);
}

static bool jump_page_known(const struct mmu_context *context, uint64_t va)
{
    unsigned bits[2];
    jump_page_bits(va, bits);
    return bit_get(context->jump_pages, bits[0]) && bit_get(context->jump_pages, bits[1]);
}

static void jump_page_note(struct mmu_context *context, uint64_t va)
{
    unsigned bits[2];
    jump_page_bits(va, bits);
    bit_set(context->jump_pages, bits[0], true);
    bit_set(context->jump_pages, bits[1], true);
}

/* The page of the last byte of an entry's first instruction. */
static uint64_t jump_last_page(const struct jump_entry *entry)
{
    bool may_straddle = (entry->pc & (PAGE_BYTES - 1)) > PAGE_BYTES - 16;
    bool straddles = may_straddle && entry->block->straddles;
    return (entry->pc & PAGE_MASK) + (straddles ? PAGE_BYTES : 0);
}

/* Forget the jumps to one page, and make the filter exact again: it only ever gains bits. */
static void jumps_clear_page(const struct engine_cpu *self, struct mmu_context *context,
                             uint64_t va)
{
    if (!jump_page_known(context, va)) {
        return;
    }
    if (atomic_load_explicit(&self->state, memory_order_relaxed) == CPU_STATE_IDLE) {
        jumps_clear(self, context); /* its blocks may have been freed: look at none */
        return;
    }
    memset(context->jump_pages, 0, sizeof(context->jump_pages));
    uint64_t page = va & PAGE_MASK;
    for (unsigned i = 0; i < ENGINE_JUMP_ENTRIES; i++) {
        struct jump_entry *entry = &context->jumps[i];
        if (entry->block == self->engine->dead_block) {
            continue;
        }
        if ((entry->pc & PAGE_MASK) == page || jump_last_page(entry) == page) {
            *entry = (struct jump_entry){.block = self->engine->dead_block};
        } else {
            jump_page_note(context, entry->pc);
            jump_page_note(context, jump_last_page(entry));
        }
    }
}

void mmu_jumps_clear(struct engine_cpu *self)
{
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        jumps_clear(self, &self->contexts[i]);
    }
}

/* The entry's translation is (not) global. */
static void note_global(struct mmu_context *context, const struct tlb_entry *entry, bool global)
{
    uint64_t i = (uint64_t)(entry - context->table);
    context->global_used += global;
    context->global_used -= bit_get(context->global, i);
    bit_set(context->global, i, global);
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
    uint64_t old_entries = context->entries, old_global[ENGINE_TLB_ENTRIES_MAX / 64];
    memcpy(old_global, context->global, sizeof(old_global));
    memset(context->global, 0, sizeof(context->global));
    context->table = table;
    context->entries = entries;
    context->used = context->global_used = 0;
    for (uint64_t i = 0; i < old_entries; i++) {
        if (entry_in_use(&old[i])) {
            struct tlb_entry *entry = context_entry(context, entry_va(&old[i]));
            context->used += !entry_in_use(entry);
            entry_copy(entry, &old[i]);
            note_global(context, entry, bit_get(old_global, i));
        }
    }
    pthread_mutex_unlock(&self->tlb_lock);
    free(old);
    publish_contexts(self);
}

/* Forget the victims; `keep_global`: but for those. */
static void victims_clear(struct tlb_victims *victims, bool keep_global)
{
    for (unsigned i = 0; victims->used && i < ENGINE_TLB_VICTIMS; i++) {
        if (!keep_global || !victims->entries[i].global) {
            victims->pages[i] = NO_VICTIM;
        }
    }
    victims->used = victims->used && keep_global;
}

/* Its number, or ENGINE_TLB_VICTIMS. It is among them no more. */
static unsigned victim_remove(struct tlb_victims *victims, uint64_t va)
{
    for (unsigned i = 0; victims->used && i < ENGINE_TLB_VICTIMS; i++) {
        if (victims->pages[i] == (va & PAGE_MASK)) {
            victims->pages[i] = NO_VICTIM;
            return i;
        }
    }
    return ENGINE_TLB_VICTIMS;
}

static void context_shrink(struct engine_cpu *self, struct mmu_context *context, uint64_t found)
{
    bool sparse = found < context->entries / 8;
    context->sparse_flushes = sparse ? context->sparse_flushes + 1 : 0;
    if (context->sparse_flushes >= ENGINE_TLB_SHRINK_FLUSHES &&
        context->entries > ENGINE_TLB_ENTRIES_MIN) {
        context->sparse_flushes = 0;
        context_resize(self, context, context->entries / 2);
    }
}

static void context_flush(struct engine_cpu *self, struct mmu_context *context)
{
    jumps_clear(self, context);
    victims_clear(&context->victims, false);
    if (context->used == 0) {
        return;
    }
    uint64_t found = context->used;
    for (uint64_t i = 0; i < context->entries; i++) {
        entry_clear(&context->table[i]);
    }
    memset(context->global, 0, sizeof(context->global));
    context->used = context->global_used = 0;
    context->large_count = 0;
    context_shrink(self, context, found);
}

/* The same, but global translations stay. */
static void context_flush_local(struct engine_cpu *self, struct mmu_context *context)
{
    if (context->global_used == 0) {
        context_flush(self, context);
        return;
    }
    jumps_clear_local(self, context);
    victims_clear(&context->victims, true);
    if (context->used == context->global_used) {
        return;
    }
    uint64_t found = context->used;
    for (uint64_t i = 0; i < context->entries; i++) {
        if (!bit_get(context->global, i)) {
            entry_clear(&context->table[i]);
        }
    }
    context->used = context->global_used;
    context_shrink(self, context, found);
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

static void context_flush_page(struct engine_cpu *self, struct mmu_context *context, uint64_t va,
                               bool any_root)
{
    if (in_large_range(context, va)) {
        (any_root ? context_flush : context_flush_local)(self, context);
        return;
    }
    jumps_clear_page(self, context, va);
    victim_remove(&context->victims, va);
    struct tlb_entry *entry = context_entry(context, va);
    if (entry_maps(entry, va)) {
        note_global(context, entry, false);
        entry_clear(entry);
        context->used--;
    }
}

void mmu_flush(struct engine_cpu *self, const struct flush_request *request)
{
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        struct mmu_context *context = &self->contexts[i];
        if ((context->used == 0 && !context->jumps_used && !context->victims.used) ||
            (!request->any_root && (context->key.root & request->root_mask) != request->root)) {
            continue;
        }
        if (request->any_page) {
            (request->any_root ? context_flush : context_flush_local)(self, context);
            continue;
        }
        for (uint64_t offset = 0; offset < request->size; offset += PAGE_BYTES) {
            context_flush_page(self, context, request->va + offset, request->any_root);
        }
    }
}

/* --- switching ------------------------------------------------------------------------------ */

static bool jumps_allocate(struct engine_cpu *self, struct mmu_context *context)
{
    if (!context->jumps) {
        context->jumps = aligned_alloc(64, ENGINE_JUMP_ENTRIES * sizeof(*context->jumps));
        context->jumps_used = context->jumps != NULL;
        jumps_clear(self, context);
    }
    return context->jumps != NULL;
}

/* Where a new address space can take its global translations from: the context of another one, with
 * the same permissions, that was used last. NULL: nowhere. */
static const struct mmu_context *global_source(const struct engine_cpu *self, struct mmu_key key)
{
    const struct mmu_context *best = NULL;
    for (unsigned i = 0; i < ENGINE_CONTEXTS; i++) {
        const struct mmu_context *context = &self->contexts[i];
        if (context->global_used && context->key.flags == key.flags &&
            (!best || context->last_use > best->last_use)) {
            best = context;
        }
    }
    return best;
}

static void adopt_jumps(struct engine_cpu *self, struct mmu_context *context,
                        const struct mmu_context *from)
{
    if (!from->jumps_used || !jumps_allocate(self, context)) {
        return;
    }
    for (unsigned i = 0; i < ENGINE_JUMP_ENTRIES; i++) {
        if (bit_get(from->global_jumps, i)) {
            context->jumps[i] = from->jumps[i];
        }
    }
    memcpy(context->global_jumps, from->global_jumps, sizeof(context->global_jumps));
    memcpy(context->jump_pages, from->jump_pages, sizeof(context->jump_pages));
    context->jumps_used = true;
}

/* Fill an empty context with the global translations of another. Under the lock: whoever takes a
 * write permission away finds it in both or in neither. */
static void adopt_globals(struct engine_cpu *self, struct mmu_context *context,
                          const struct mmu_context *from)
{
    if (context->entries < from->entries) {
        context_resize(self, context, from->entries);
    }
    pthread_mutex_lock(&self->tlb_lock);
    for (uint64_t i = 0; i < from->entries; i++) {
        if (bit_get(from->global, i) && entry_in_use(&from->table[i])) {
            struct tlb_entry *entry = context_entry(context, entry_va(&from->table[i]));
            context->used += !entry_in_use(entry);
            entry_copy(entry, &from->table[i]);
            note_global(context, entry, true);
        }
    }
    pthread_mutex_unlock(&self->tlb_lock);
    memcpy(context->large, from->large, sizeof(context->large));
    context->large_count = from->large_count;
    adopt_jumps(self, context, from);
}

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
    const struct mmu_context *source = key.root ? global_source(self, key) : NULL;
    if (source && source != oldest) {
        adopt_globals(self, oldest, source);
    }
    oldest->last_use = ++self->context_clock;
    return oldest;
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
    const struct tlb_entry *entry = context_entry(context, pc);
    bit_set(context->global_jumps, jump_index(pc),
            (entry->tag_exec & TAG_COMPARE) == (pc & PAGE_MASK) && !block->straddles &&
                bit_get(context->global, (uint64_t)(entry - context->table)));
    context->jumps_used = true;
    jump_page_note(context, pc);
    jump_page_note(context, jump_last_page(&context->jumps[jump_index(pc)]));
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
    if (++context->fills < context->entries || self->tables_stay) {
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

/* Keep what the entry holds beside the table. Permission to write is granted anew when it returns:
 * who takes it away need not look here. */
static void save_victim(struct mmu_context *context, const struct tlb_entry *entry)
{
    struct tlb_victims *victims = &context->victims;
    if (!victims->used) {
        memset(victims->pages, 0xff, sizeof(victims->pages)); /* NO_VICTIM */
        victims->used = true;
    }
    uint64_t write = atomic_load_explicit(&entry->tag_write, memory_order_relaxed);
    unsigned i = victims->next++ % ENGINE_TLB_VICTIMS;
    victims->pages[i] = entry_va(entry) & PAGE_MASK;
    victims->entries[i].addend = entry->addend;
    victims->entries[i].read = !(entry->tag_read & TLB_EMPTY);
    victims->entries[i].write = !(write & TLB_EMPTY);
    victims->entries[i].execute = !(entry->tag_exec & TLB_EMPTY);
    victims->entries[i].device = entry_va(entry) & TLB_DEVICE;
    victims->entries[i].global = bit_get(context->global, (uint64_t)(entry - context->table));
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
        if (!entry_maps(entry, va)) {
            save_victim(context, entry);
        }
        note_global(context, entry, false);
        entry_clear(entry);
    } else {
        context->used++;
    }
    return entry;
}

/* What is to be entered for a page. */
struct filling {
    uint64_t addend;
    bool read, write, execute, global, device;
};

static void enter(struct engine_cpu *self, struct mmu_context *context, uint64_t va,
                  enum cpu_access access, const struct filling *filling, struct mmu_page *page)
{
    struct tlb_entry *entry = claim_entry(self, context, va);
    note_global(context, entry, filling->global);
    uint64_t tag = (va & PAGE_MASK) | (filling->device ? TLB_SLOW | TLB_DEVICE : 0);
    __atomic_store_n(&entry->addend, filling->addend, __ATOMIC_RELEASE);
    entry->tag_read = filling->read ? tag : TLB_EMPTY;
    entry->tag_exec = filling->execute ? tag : TLB_EMPTY;
    describe(self, entry, tag, va, page);
    if (filling->write && !filling->device) {
        uint64_t write_tag = grant_write(self, entry, va, page->index);
        page->watched = access == CPU_ACCESS_WRITE && (write_tag & TLB_SLOW);
    } else if (filling->write) {
        atomic_store_explicit(&entry->tag_write, tag, memory_order_release);
    }
}

/* Take it from the victims. False: it is not there, or was not known to allow this. */
static bool fill_from_victims(struct engine_cpu *self, struct mmu_context *context, uint64_t va,
                              enum cpu_access access, struct mmu_page *page)
{
    struct tlb_victims *victims = &context->victims;
    unsigned i = victim_remove(victims, va);
    if (i == ENGINE_TLB_VICTIMS) {
        return false;
    }
    const struct filling filling = {.addend = victims->entries[i].addend,
                                    .read = victims->entries[i].read,
                                    .write = victims->entries[i].write,
                                    .execute = victims->entries[i].execute,
                                    .global = victims->entries[i].global,
                                    .device = victims->entries[i].device};
    bool allowed = access == CPU_ACCESS_READ    ? filling.read
                   : access == CPU_ACCESS_WRITE ? filling.write
                                                : filling.execute;
    if (allowed) {
        engine_count(self->counters.tlb_victims);
        enter(self, context, va, access, &filling, page);
    }
    return allowed;
}

static bool fill(struct engine_cpu *self, struct mmu_context *context, uint64_t va,
                 enum cpu_access access, struct mmu_page *page)
{
    struct engine *engine = self->engine;
    struct mmu_translation translation;
    engine_count(self->counters.tlb_misses);
    if (fill_from_victims(self, context, va, access, page)) {
        return true;
    }
    if (!engine->isa->translate(self->cpu, context->key, va, access, &translation)) {
        return false;
    }
    if (translation.page_size > PAGE_BYTES) {
        note_large_page(context, va, translation.page_size);
    }
    uint64_t physical = translation.physical & PAGE_MASK;
    uint8_t *host = memory_pointer(engine->memory, physical, PAGE_BYTES);
    uint64_t base = host ? (uint64_t)(uintptr_t)host : physical;
    enter(self, context, va, access,
          &(struct filling){.addend = base - (va & PAGE_MASK),
                            .read = translation.read,
                            .write = translation.write,
                            .execute = translation.execute,
                            .global = translation.global,
                            .device = !host},
          page);
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
