#include "vmmd/vcpu/engine/stats.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include <string.h>

/* --- durations ------------------------------------------------------------------------------ */

#define STEPS_LOG2 2u
#define FIRST_LOG2 6u /* the first step ends at 2^6 */

/* The step of a duration: its power of two, and the two bits below the leading one. */
static unsigned duration_step(uint64_t nanoseconds)
{
    if (nanoseconds < UINT64_C(1) << FIRST_LOG2) {
        return 0;
    }
    unsigned log2 = 63 - (unsigned)__builtin_clzll(nanoseconds);
    unsigned part = (unsigned)(nanoseconds >> (log2 - STEPS_LOG2)) & ((1u << STEPS_LOG2) - 1);
    unsigned step = ((log2 - FIRST_LOG2) << STEPS_LOG2) + part;
    return step < DURATION_STEPS ? step : DURATION_STEPS - 1;
}

/* The middle of a step. */
static uint64_t duration_of(unsigned step)
{
    unsigned log2 = FIRST_LOG2 + (step >> STEPS_LOG2);
    uint64_t part = step & ((1u << STEPS_LOG2) - 1);
    uint64_t width = UINT64_C(1) << (log2 - STEPS_LOG2);
    return (UINT64_C(1) << log2) + part * width + width / 2;
}

void duration_count(struct duration_histogram *histogram, uint64_t nanoseconds)
{
    engine_count(histogram->counts[duration_step(nanoseconds)]);
}

void duration_add(struct duration_histogram *to, const struct duration_histogram *from)
{
    for (unsigned i = 0; i < DURATION_STEPS; i++) {
        to->counts[i] += __atomic_load_n(&from->counts[i], __ATOMIC_RELAXED);
    }
}

uint64_t duration_quantile(const struct duration_histogram *histogram, unsigned permille)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < DURATION_STEPS; i++) {
        total += histogram->counts[i];
    }
    for (unsigned i = 0; i < DURATION_STEPS; i++) {
        seen += histogram->counts[i];
        if (total > 0 && seen * 1000 >= total * permille) {
            return duration_of(i);
        }
    }
    return 0;
}

/* --- counting ------------------------------------------------------------------------------- */

void engine_count_compiled(struct engine_cpu *self, uint64_t nanoseconds, uint32_t guest_bytes,
                           uint32_t host_bytes)
{
    engine_count(self->counters.blocks_compiled);
    engine_count_by(self->counters.compiled_guest_bytes, guest_bytes);
    engine_count_by(self->counters.compiled_host_bytes, host_bytes);
    engine_count_by(self->counters.compile_ns, nanoseconds);
    duration_count(&self->compile_times, nanoseconds);
}

/* The count is the owner's plain field; a reader may be a few blocks late. */
__attribute__((no_sanitize("thread"))) static uint64_t retired_of(const struct cpu *cpu)
{
    return *(const volatile uint64_t *)&cpu->retired;
}

__attribute__((no_sanitize("thread"))) static uint64_t optimised_of(const struct cpu *cpu)
{
    return *(const volatile uint64_t *)&cpu->retired_optimised;
}

static void add_regions(const struct engine *engine, struct engine_stats *stats)
{
    const struct region_counts *counts = &engine->region_counts;
    struct duration_histogram waits = {0};
#define X(name) stats->name = __atomic_load_n(&counts->name, __ATOMIC_RELAXED);
    REGION_COUNTERS(X)
#undef X
    if (engine->profile) {
        duration_add(&waits, &engine->profile->waits);
        stats->region_median_ns = duration_quantile(&waits, 500);
        stats->region_p99_ns = duration_quantile(&waits, 990);
    }
}

void engine_stats(struct engine *engine, struct engine_stats *stats)
{
    struct duration_histogram compile_times = {0};
    memset(stats, 0, sizeof(*stats));
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (!engine->cpus[i]) {
            continue;
        }
        const struct cpu_counters *counters = &engine->cpus[i]->counters;
        stats->retired += retired_of(engine->cpus[i]->cpu);
#define X(name) stats->name += __atomic_load_n(&counters->name, __ATOMIC_RELAXED);
        ENGINE_COUNTERS(X)
#undef X
        duration_add(&compile_times, &engine->cpus[i]->compile_times);
        stats->retired_optimised += optimised_of(engine->cpus[i]->cpu);
    }
    stats->slow_accesses = stats->slow_device + stats->slow_crossing + stats->slow_watched;
    stats->compile_median_ns = duration_quantile(&compile_times, 500);
    stats->compile_p99_ns = duration_quantile(&compile_times, 990);
    if (engine->code_memory) {
        stats->code_bytes = code_memory_used(engine->code_memory);
        stats->code_bytes_max = code_memory_limit(engine->code_memory);
    }
    add_regions(engine, stats);
    stats->blocks_dropped = atomic_load_explicit(&engine->blocks_dropped, memory_order_relaxed);
    stats->block_bytes = atomic_load_explicit(&engine->block_bytes, memory_order_relaxed);
}
