#include "vmmd/vcpu/engine/watch.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/exclusive.h"
#include "vmmd/vcpu/engine/quiesce.h"
#include "vmmd/vcpu/engine/soft_mmu.h"

void watch_acquire(struct engine *engine, struct engine_cpu *self)
{
    if (pthread_mutex_trylock(&engine->watch_lock) == 0) {
        return;
    }
    uint32_t previous = self ? quiesce_enter(self, CPU_STATE_WAITING) : 0;
    pthread_mutex_lock(&engine->watch_lock);
    if (self) {
        quiesce_leave(self, previous);
    }
}

bool watch_try_acquire(struct engine *engine)
{
    return pthread_mutex_trylock(&engine->watch_lock) == 0;
}

void watch_release(struct engine *engine)
{
    pthread_mutex_unlock(&engine->watch_lock);
}

static const struct memory_region *region_of(const struct engine *engine, uint64_t index)
{
    const struct memory *memory = engine->memory;
    const struct memory_region *region = &memory->regions[0];
    for (unsigned i = 1; i < memory->region_count; i++) {
        if (index >= memory->regions[i].first_page) {
            region = &memory->regions[i];
        }
    }
    return region;
}

uint8_t *watch_page_host(const struct engine *engine, uint64_t index)
{
    const struct memory_region *region = region_of(engine, index);
    return region->host + ((index - region->first_page) << MEMORY_PAGE_SHIFT);
}

uint64_t watch_page_physical(const struct engine *engine, uint64_t index)
{
    const struct memory_region *region = region_of(engine, index);
    return region->base + ((index - region->first_page) << MEMORY_PAGE_SHIFT);
}

void watch_page(struct engine *engine, struct engine_cpu *self, uint64_t index, uint8_t flag)
{
    uint8_t old = atomic_fetch_or(&engine->watch[index], flag);
    if (old & flag || !(old & WATCH_WRITERS)) {
        return;
    }
    atomic_fetch_and(&engine->watch[index], (uint8_t)~WATCH_WRITERS);
    const uint8_t *host = watch_page_host(engine, index);
    uint64_t tickets[ENGINE_CPUS_MAX];
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        struct engine_cpu *target = engine->cpus[i];
        tickets[i] = 0;
        if (target && mmu_revoke_writes(target, host) && target != self) {
            tickets[i] = quiesce_request(target, NULL);
        }
    }
    /* One that had permission may be between its test and its store: let it pass. */
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (tickets[i]) {
            quiesce_wait(self, engine->cpus[i], tickets[i], CPU_STATE_WAITING);
        }
    }
}

void watch_clear(struct engine *engine, uint64_t index, uint8_t flag)
{
    atomic_fetch_and(&engine->watch[index], (uint8_t)~flag);
}

void watch_before_write(struct engine *engine, struct engine_cpu *self, uint64_t index,
                        uint64_t physical, unsigned size)
{
    uint8_t flags = atomic_load(&engine->watch[index]);
    if (flags & WATCH_CODE) {
        block_cache_invalidate(engine, self, index, physical & (PAGE_BYTES - 1), size);
    }
    if (flags & WATCH_RESERVED) {
        exclusive_store_seen(engine, self, index, physical, size);
    }
}

uint8_t *watch_begin_write(struct engine_cpu *self, uint64_t va, unsigned size,
                           struct mmu_page *page)
{
    struct engine *engine = self->engine;
    watch_acquire(engine, self);
    if (!mmu_resolve(self, va, CPU_ACCESS_WRITE, page) || !page->host) {
        watch_release(engine);
        return NULL;
    }
    watch_before_write(engine, self, page->index, page->physical, size);
    return page->host;
}
