#include "vmmd/vcpu/engine/decode.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/baseline/perf_map.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/interp.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include "vmmd/vcpu/engine/watch.h"
#include <inttypes.h>

/* Where the code at pc lies: the page of RAM, and the one after it once it is needed. */
struct location {
    uint64_t pc, physical, index;
    uint64_t next_physical, next_index; /* page-aligned; UINT64_MAX: not looked up */
};

static bool refuse(struct engine_cpu *self, uint64_t pc)
{
    self->engine->isa->raise_access_fault(self->cpu, pc, CPU_ACCESS_EXECUTE);
    return false;
}

static bool locate(struct engine_cpu *self, struct location *location)
{
    struct mmu_page page;
    uint64_t pc = self->cpu->pc;
    if (!mmu_resolve(self, pc, CPU_ACCESS_EXECUTE, &page)) {
        return false;
    }
    if (!page.host) {
        return refuse(self, pc);
    }
    *location = (struct location){
        .pc = pc, .physical = page.physical, .index = page.index, .next_physical = UINT64_MAX};
    return true;
}

static bool locate_next(struct engine_cpu *self, struct location *location)
{
    struct mmu_page page;
    uint64_t next = (location->pc & PAGE_MASK) + PAGE_BYTES;
    if (!mmu_resolve(self, next, CPU_ACCESS_EXECUTE, &page)) {
        return false;
    }
    if (!page.host) {
        return refuse(self, next);
    }
    location->next_physical = page.physical;
    location->next_index = page.index;
    return true;
}

/* --- decoding, with the watch lock held ------------------------------------------------------ */

/* A private copy from `offset` on, as much as a block can need: what the decoder sees stays. */
GUEST_ACCESS static void copy_code(const struct engine *engine, uint64_t index, unsigned offset,
                                   uint8_t *page)
{
    const unsigned most = ENGINE_BLOCK_INSNS * 16;
    unsigned end = offset + most < PAGE_BYTES ? offset + most : PAGE_BYTES;
    const uint8_t *host = watch_page_host(engine, index);
    for (unsigned i = offset & ~7u; i < end; i += 8) {
        *(guest_u64 *)(page + i) = *(const volatile guest_u64 *)(host + i);
    }
}

static bool verified(struct engine_cpu *self, uint64_t pc)
{
    unsigned where;
    const struct isa *isa = self->engine->isa;
    const char *defect = ir_verify(&self->ir, isa->globals, isa->helpers, &where);
    if (!defect) {
        return true;
    }
    char text[4096];
    ir_print(&self->ir, isa->globals, isa->helpers, text, sizeof(text));
    log_error("block at 0x%" PRIx64 " is unsound: %s (operation %u)\n%s", pc, defect, where, text);
    return refuse(self, pc);
}

/* Fill self->ir. The pages are watched when this returns true; records in `pages`. */
static bool decode_watched(struct engine_cpu *self, struct location *location,
                           struct code_page *pages[2])
{
    struct engine *engine = self->engine;
    struct isa_code code = {
        .page = self->page,
        .start = (uint16_t)(location->pc & (PAGE_BYTES - 1)),
        .insn_limit = (uint16_t)engine->block_insns,
        .mode = self->cpu->block_mode,
    };
    pages[0] = block_cache_page(engine, self, location->index);
    if (!pages[0]) {
        return refuse(self, location->pc);
    }
    copy_code(engine, location->index, code.start, self->page);
    if (engine->isa->decode(&self->ir, &code) == ISA_NEEDS_NEXT_PAGE) {
        if (!locate_next(self, location)) {
            return false;
        }
        pages[1] = block_cache_page(engine, self, location->next_index);
        if (!pages[1]) {
            return refuse(self, location->pc);
        }
        copy_code(engine, location->next_index, 0, self->next_page);
        code.next_page = self->next_page;
        engine->isa->decode(&self->ir, &code);
    }
    return verified(self, location->pc);
}

/* False without memory. */
static bool compile_block(struct engine_cpu *self, struct block *block, uint64_t pc)
{
    struct engine *engine = self->engine;
    uint64_t begin = clock_monotonic_ns();
    bool done = engine->baseline &&
                baseline_compile(engine->baseline, &self->ir, self->code, self->steps, block);
    if (done) {
        const struct block_compiled *compiled = &block->compiled;
        engine_count_compiled(self, clock_monotonic_ns() - begin, block->length, compiled->size);
        perf_map_add(engine->perf_map, compiled->execute, compiled->size - CODE_HEADER_BYTES, pc);
    }
    return done || lower_keep_steps(self, block);
}

/* Decode and publish. False: an exception is pending. The caller looks the block up again, because
 * waiting for others may have changed this CPU's translations. */
static bool decode_block(struct engine_cpu *self, struct location *location)
{
    struct engine *engine = self->engine;
    struct code_page *pages[2] = {NULL, NULL};
    if (block_cache_limit(engine)) {
        engine_count(self->counters.code_memory_full);
    }
    bool done = decode_watched(self, location, pages);
    struct block *block = done ? lower_block(self) : NULL;
    if (block) {
        block->physical = location->physical;
        if (block->straddles) {
            block_second(block)->physical = location->next_physical;
        }
    }
    if (block && compile_block(self, block, location->pc)) {
        block_cache_insert(engine, block,
                           block->straddles ? pages : (struct code_page *[2]){pages[0]});
        engine_count(self->counters.blocks_decoded);
        profile_decoded(self, block, location->pc, self->page + block->start);
    } else if (done) {
        lower_free(block);
        done = refuse(self, location->pc);
    }
    block_cache_settle(engine, location->index);
    if (pages[1]) {
        block_cache_settle(engine, location->next_index);
    }
    return done;
}

/* --- finding -------------------------------------------------------------------------------- */

static struct block *find_cached(struct engine_cpu *self, struct location *location)
{
    struct engine *engine = self->engine;
    uint32_t mode = self->cpu->block_mode;
    if ((location->pc & (PAGE_BYTES - 1)) > PAGE_BYTES - 16 &&
        block_cache_straddles(engine, location->physical, mode) && !locate_next(self, location)) {
        return NULL;
    }
    return block_cache_find(engine, location->physical, mode, location->next_physical);
}

/* Only when the lock is free: waiting for it could serve a flush that takes `to` away from pc. The
 * exit comes here again. */
static void link_exit(struct engine_cpu *self, struct block *to)
{
    struct cpu *cpu = self->cpu;
    struct block_exit *exit = cpu->exit;
    struct region_exit *region_exit = self->region_exit;
    cpu->exit = NULL;
    self->region_exit = NULL;
    bool open = exit && !atomic_load_explicit(&exit->link, memory_order_relaxed);
    if ((open || region_exit) && watch_try_acquire(self->engine)) {
        if (open) {
            block_cache_link(self->engine, cpu->block, exit, to);
        }
        if (region_exit) {
            region_link(region_exit, to);
        }
        watch_release(self->engine);
    }
}

struct block *decode_find(struct engine_cpu *self)
{
    struct engine *engine = self->engine;
    struct block *block = jump_find(self->cpu, self->cpu->pc);
    if (block) {
        link_exit(self, block);
        return block;
    }
    engine_count(self->counters.lookups);
    for (;;) {
        struct location location;
        if (!locate(self, &location)) {
            return NULL;
        }
        block = find_cached(self, &location);
        if (self->cpu->exception) {
            return NULL;
        }
        if (block) {
            break;
        }
        watch_acquire(engine, self);
        bool done = locate(self, &location);
        if (done && !find_cached(self, &location)) {
            done = !self->cpu->exception && decode_block(self, &location);
        }
        watch_release(engine);
        if (!done) {
            return NULL;
        }
    }
    mmu_jump_insert(self, self->cpu->pc, block);
    link_exit(self, block);
    return block;
}
