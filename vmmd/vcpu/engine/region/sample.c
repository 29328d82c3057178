/* The CPUs' side of the profile: traces of what runs, on each CPU's own thread. */
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/region/profile.h"

void profile_awake(struct engine_cpu *self, bool begins)
{
    struct profile *profile = self->engine->profile;
    /* The ticking thread sets `resting`, then looks at states: one of us sees the other. */
    if (!profile || !atomic_load(&profile->resting)) {
        return;
    }
    uint64_t run = self->cpu->retired - self->trace->retired;
    if ((begins || run >= ENGINE_PROFILE_REST_INSNS) && atomic_exchange(&profile->resting, false)) {
        profile_signal(profile);
    }
}

void trace_end(struct engine_cpu *self)
{
    struct trace *trace = self->trace;
    atomic_fetch_and(&self->cpu->attention, ~(uint32_t)CPU_ATTENTION_PROFILE);
    trace->retired = self->cpu->retired;
    trace->optimised = self->cpu->retired_optimised;
    if (trace->count && !atomic_load_explicit(&trace->full, memory_order_relaxed)) {
        trace->key = self->execute->key;
        atomic_store_explicit(&trace->full, true, memory_order_release);
    }
}

/* Whether the sample found optimised code: a region begins here, or nearly all since the last
 * sample was done in regions. The latter is not believed for long, lest a loop that is entered
 * beside its region's head stays where it is. */
static bool landed(struct engine_cpu *self, const struct block *block)
{
    struct trace *trace = self->trace;
    if (atomic_load_explicit(&block->region, memory_order_relaxed)) {
        return true;
    }
    uint64_t all = self->cpu->retired - trace->retired;
    uint64_t optimised = self->cpu->retired_optimised - trace->optimised;
    return optimised > all - all / 8 && ++trace->passed % 4 != 0;
}

void trace_note(struct engine_cpu *self, const struct block *block)
{
    struct trace *trace = self->trace;
    if (!trace || atomic_load_explicit(&trace->full, memory_order_acquire)) {
        atomic_fetch_and(&self->cpu->attention, ~(uint32_t)CPU_ATTENTION_PROFILE);
        return;
    }
    if (trace->count == 0 && !self->engine->profile->eager &&
        self->cpu->retired - trace->retired < ENGINE_SAMPLE_INSNS) {
        atomic_fetch_and(&self->cpu->attention, ~(uint32_t)CPU_ATTENTION_PROFILE);
        return;
    }
    if (trace->count == 0) {
        engine_count(self->counters.samples);
        if (landed(self, block)) {
            engine_count(self->counters.samples_optimised);
            trace_end(self);
            return;
        }
        trace->apart = true;
    }
    trace->steps[trace->count++] = (struct trace_step){
        .physical = block->physical,
        .va = self->cpu->pc,
        .mode = self->cpu->block_mode,
        .terminator = block->terminator,
        .apart = trace->apart,
        .head = atomic_load_explicit(&block->region, memory_order_relaxed) != NULL,
    };
    trace->apart = false;
    if (trace->count == ENGINE_TRACE_BLOCKS) {
        trace_end(self);
    }
}

void trace_break(struct engine_cpu *self)
{
    if (self->trace && !atomic_load_explicit(&self->trace->full, memory_order_acquire)) {
        self->trace->apart = true;
    }
}
