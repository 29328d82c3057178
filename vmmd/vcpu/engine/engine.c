#include "vmmd/vcpu/engine/engine.h"
#include "libshared/base/log.h"
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/interp.h"
#include "vmmd/vcpu/engine/quiesce.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* --- device writes to code ---------------------------------------------------------------------
 */

/* Drop the first page's code that a device overwrote. False: there is none. */
static bool drop_overwritten(struct engine *engine)
{
    for (struct code_page *page = engine->all_pages; page; page = page->next) {
        _Atomic uint8_t *flags = &engine->memory->page_flags[page->index];
        if (atomic_load(flags) & MEMORY_PAGE_DEVICE_WROTE) {
            atomic_fetch_and(flags, (uint8_t)~MEMORY_PAGE_DEVICE_WROTE);
            block_cache_invalidate(engine, NULL, page->index, 0, PAGE_BYTES);
            return true;
        }
    }
    return false;
}

/* `self`: the CPU on whose thread this runs, NULL on others. */
static void device_wrote(struct engine *engine, struct engine_cpu *self)
{
    const struct memory_codemap_head *head = engine->memory->codemap;
    if (!head || atomic_load(&head->device_wrote) == atomic_load(&engine->device_wrote)) {
        return;
    }
    watch_acquire(engine, self);
    atomic_store(&engine->device_wrote, atomic_load(&head->device_wrote));
    while (drop_overwritten(engine)) {
        /* The list may have lost any of its pages: begin again. */
    }
    watch_release(engine);
}

void engine_device_wrote(struct engine *engine)
{
    device_wrote(engine, NULL);
}

/* --- what CPUs see of their surroundings ------------------------------------------------------ */

static void host_tlb_flush(struct cpu *cpu, bool any_root, uint64_t root, uint64_t root_mask,
                           bool any_page, uint64_t va)
{
    struct flush_request request = {.any_root = any_root,
                                    .any_page = any_page,
                                    .root = root,
                                    .root_mask = root_mask,
                                    .va = va & PAGE_MASK,
                                    .size = PAGE_BYTES};
    mmu_flush(engine_cpu_of(cpu), &request);
}

/* Stores of CPUs drop code as they happen: what is left are devices', and order. */
static void host_fetch_barrier(struct cpu *cpu)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    device_wrote(self->engine, self);
    atomic_thread_fence(memory_order_seq_cst);
    code_memory_fetch_anew();
}

/* With more CPUs than processors, the one that the guest waits for may be one without a processor.
 */
static void host_pause(struct cpu *cpu)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    if (self->engine->crowded && ++self->pauses % ENGINE_PAUSES == 0) {
        uint32_t previous = quiesce_enter(self, CPU_STATE_ENDING);
        sched_yield();
        quiesce_leave(self, previous);
    }
}

/* Firmware may wait for other CPUs, by flushing or by a lock that one of them holds. */
static bool host_firmware_call(struct cpu *cpu)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    uint32_t previous = quiesce_enter(self, CPU_STATE_ENDING);
    bool handled = self->machine.firmware_call(cpu);
    quiesce_leave(self, previous);
    return handled;
}

static bool no_firmware(struct cpu *cpu)
{
    (void)cpu;
    return false;
}

static bool no_device_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    (void)cpu;
    (void)address;
    (void)size;
    (void)value;
    return false;
}

static bool no_device_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)cpu;
    (void)address;
    (void)size;
    (void)value;
    return false;
}

static void wire_host(struct engine_cpu *self, const struct cpu_host *host, void *host_data)
{
    self->machine = *host;
    if (!self->machine.firmware_call) {
        self->machine.firmware_call = no_firmware;
    }
    if (!self->machine.mmio_read) {
        self->machine.mmio_read = no_device_read;
    }
    if (!self->machine.mmio_write) {
        self->machine.mmio_write = no_device_write;
    }
    self->host = self->machine;
    self->host.mmu_switch = mmu_switch;
    self->host.tlb_flush = host_tlb_flush;
    self->host.fetch_barrier = host_fetch_barrier;
    self->host.pause = host_pause;
    self->host.firmware_call = host_firmware_call;
    self->cpu->host = &self->host;
    self->cpu->host_data = host_data;
}

/* --- life ----------------------------------------------------------------------------------- */

static void cpu_destroy(struct engine_cpu *self)
{
    if (!self) {
        return;
    }
    mmu_destroy(self);
    lower_cache_destroy(self);
    free(self->trace);
    pthread_cond_destroy(&self->wake);
    pthread_cond_destroy(&self->acknowledged);
    pthread_mutex_destroy(&self->request_lock);
    pthread_mutex_destroy(&self->tlb_lock);
    free(self->cpu);
    free(self);
}

static void *allocate_zeroed(size_t size)
{
    size_t rounded = (size + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, rounded);
    if (memory) {
        memset(memory, 0, rounded);
    }
    return memory;
}

struct cpu *engine_add_cpu(struct engine *engine, unsigned index, const struct cpu_host *host,
                           void *host_data)
{
    if (index >= engine->cpu_count || engine->cpus[index]) {
        return NULL;
    }
    struct engine_cpu *self = allocate_zeroed(sizeof(*self));
    struct cpu *cpu = allocate_zeroed(engine->isa->cpu_size);
    struct trace *trace = engine->profile ? allocate_zeroed(sizeof(*trace)) : NULL;
    if (!self || !cpu || (engine->profile && !trace)) {
        free(trace);
        free(self);
        free(cpu);
        return NULL;
    }
    pthread_mutex_init(&self->tlb_lock, NULL);
    pthread_mutex_init(&self->request_lock, NULL);
    pthread_cond_init(&self->acknowledged, NULL);
    pthread_cond_init(&self->wake, NULL);
    self->cpu = cpu;
    self->trace = trace;
    self->engine = engine;
    atomic_init(&self->state, CPU_STATE_IDLE);
    cpu->index = index;
    cpu->engine = self;
    cpu->isa = engine->isa;
    cpu->memory = engine->memory;
    cpu->runtime = &region_runtime_functions;
    wire_host(self, host, host_data);
    if (mmu_create(self) != 0 || !lower_cache_create(self)) {
        cpu_destroy(self);
        return NULL;
    }
    engine->isa->reset(cpu);
    engine->cpus[index] = self;
    return cpu;
}

struct cpu *engine_cpu(struct engine *engine, unsigned index)
{
    bool there = index < engine->cpu_count && engine->cpus[index];
    return there ? engine->cpus[index]->cpu : NULL;
}

static bool allocate_tables(struct engine *engine)
{
    engine->watch = calloc(engine->page_count, sizeof(*engine->watch));
    engine->reserved_stores = calloc(engine->page_count, 1);
    engine->code_pages = calloc(engine->page_count, sizeof(struct code_page *));
    return engine->watch && engine->reserved_stores && engine->code_pages &&
           block_cache_create(engine) == 0;
}

/* Processors of the host that this process may use; at least 1. */
static unsigned host_processors(void)
{
    cpu_set_t set;
    bool known = sched_getaffinity(0, sizeof(set), &set) == 0;
    return known ? (unsigned)CPU_COUNT(&set) : CPU_SETSIZE;
}

struct engine *engine_create(const struct isa *isa, struct memory *memory, unsigned cpu_count,
                             struct error *err)
{
    if (cpu_count == 0 || cpu_count > ENGINE_CPUS_MAX || memory->page_count == 0) {
        error_set(err, ERROR_CONFIG, 0, "an engine needs memory and 1 to %u CPUs", ENGINE_CPUS_MAX);
        return NULL;
    }
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the execution engine");
        return NULL;
    }
    engine->isa = isa;
    engine->memory = memory;
    engine->cpu_count = cpu_count;
    engine->crowded = cpu_count > host_processors();
    engine->page_count = memory->page_count;
    engine->block_insns = ENGINE_BLOCK_INSNS;
    pthread_mutex_init(&engine->watch_lock, NULL);
    if (!allocate_tables(engine)) {
        engine_destroy(engine);
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the execution engine");
        return NULL;
    }
    return engine;
}

/* The thread sanitizer does not see what compiled code does: neither its accesses nor the order
 * that its loads of links and its atomics establish. It would report what is no race. */
#if __has_feature(thread_sanitizer)
#define COMPILED_CODE_SEEN false
#else
#define COMPILED_CODE_SEEN true
#endif

static const char *const tier_names[] = {
    [ENGINE_INTERP] = "interp",
    [ENGINE_BASELINE] = "baseline",
    [ENGINE_OPTIMISED] = "optimised",
};
enum { TIER_COUNT = sizeof(tier_names) / sizeof(tier_names[0]) };

const char *engine_tier_name(enum engine_tier tier)
{
    return (unsigned)tier < TIER_COUNT ? tier_names[tier] : NULL;
}

bool engine_tier_find(const char *name, enum engine_tier *tier)
{
    for (unsigned i = 0; i < TIER_COUNT; i++) {
        if (strcmp(name, tier_names[i]) == 0) {
            *tier = (enum engine_tier)i;
            return engine_tier_available(*tier);
        }
    }
    return false;
}

bool engine_tier_available(enum engine_tier tier)
{
    return tier == ENGINE_INTERP ||
           ((unsigned)tier < TIER_COUNT && COMPILED_CODE_SEEN && baseline_available());
}

enum engine_tier engine_tier_best(void)
{
    return engine_tier_available(ENGINE_OPTIMISED) ? ENGINE_OPTIMISED : ENGINE_INTERP;
}

/* And the traces of CPUs that are there already. */
static int add_profile(struct engine *engine)
{
    int result = profile_create(engine);
    for (unsigned i = 0; i < engine->cpu_count && result == 0; i++) {
        struct engine_cpu *cpu = engine->cpus[i];
        if (cpu) {
            cpu->trace = allocate_zeroed(sizeof(*cpu->trace));
            result = cpu->trace ? 0 : -ENOMEM;
        }
    }
    if (result != 0) {
        profile_destroy(engine);
    }
    return result;
}

void engine_set_tier(struct engine *engine, enum engine_tier tier)
{
    if (tier == ENGINE_INTERP || engine->baseline) {
        return;
    }
    struct error err;
    engine->baseline = baseline_create(engine->isa, &err);
    if (!engine->baseline) {
        log_warning("guest code is interpreted: %s", err.message);
        return;
    }
    engine->code_memory = baseline_memory(engine->baseline);
    if (tier == ENGINE_OPTIMISED && add_profile(engine) != 0) {
        log_warning("guest code is not optimised: there is no memory for its profile");
    }
}

void engine_set_block_limit(struct engine *engine, unsigned insns)
{
    engine->block_insns = insns;
}

void engine_drop_code(struct engine *engine)
{
    watch_acquire(engine, NULL);
    block_cache_drop_all(engine);
    watch_release(engine);
}

void engine_destroy(struct engine *engine)
{
    if (!engine) {
        return;
    }
    block_cache_destroy(engine);
    profile_destroy(engine);
    baseline_destroy(engine->baseline);
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        cpu_destroy(engine->cpus[i]);
    }
    pthread_mutex_destroy(&engine->watch_lock);
    free(engine->code_pages);
    free(engine->reserved_stores);
    free(engine->watch);
    free(engine);
}

void engine_set_perf_map(struct engine *engine, struct perf_map *map)
{
    engine->perf_map = map;
}
