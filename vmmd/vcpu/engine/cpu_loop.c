/*
 * The outer loop of one CPU: everything that happens between blocks. Exceptions are delivered
 * first, then requests of other threads, interrupts, waiting; then the next block runs until it,
 * or one linked to it, has a reason to come back.
 */
#include "libshared/fp/fp_host.h"
#include "vmmd/vcpu/engine/decode.h"
#include "vmmd/vcpu/engine/interp.h"
#include "vmmd/vcpu/engine/quiesce.h"
#include "vmmd/vcpu/engine/region/profile.h"

void engine_kick(struct cpu *cpu, uint32_t reasons)
{
    struct engine_cpu *target = engine_cpu_of(cpu);
    cpu_attention(cpu, reasons);
    /* The sleeper stores `sleeping`, then looks at attention: one of us sees the other. */
    if (atomic_load(&target->sleeping)) {
        pthread_mutex_lock(&target->request_lock);
        pthread_cond_signal(&target->wake);
        pthread_mutex_unlock(&target->request_lock);
    }
}

/* Sleep in the kernel until somebody asks for attention; others need not wait for us. */
static void sleep_until_attention(struct engine_cpu *self)
{
    atomic_store(&self->sleeping, 1);
    uint32_t previous = quiesce_enter(self, CPU_STATE_IDLE);
    pthread_mutex_lock(&self->request_lock);
    while (!atomic_load(&self->cpu->attention)) {
        pthread_cond_wait(&self->wake, &self->request_lock);
    }
    pthread_mutex_unlock(&self->request_lock);
    atomic_store(&self->sleeping, 0);
    quiesce_leave(self, previous);
}

void engine_sleep(struct cpu *cpu)
{
    sleep_until_attention(engine_cpu_of(cpu));
    /* Requests wait for engine_run, which serves them before guest code; lines are levels. */
    atomic_fetch_and(&cpu->attention, ~(uint32_t)(CPU_ATTENTION_FLUSH | CPU_ATTENTION_INTERRUPT |
                                                  CPU_ATTENTION_PROFILE));
}

/* Wait for an interrupt, or for any other request. True when the guest's wait is over. */
static bool wait_for_interrupt(struct engine_cpu *self)
{
    if (self->engine->isa->interrupt_pending(self->cpu, true)) {
        return true;
    }
    engine_count(self->counters.waits);
    if (atomic_load(&self->cpu->attention) & CPU_ATTENTION_PROFILE) {
        trace_end(self);
    }
    sleep_until_attention(self);
    return false;
}

/* Act on the attention word. True: leave engine_run, for *reason. */
static bool handle_attention(struct engine_cpu *self, uint32_t attention, enum engine_exit *reason)
{
    struct cpu *cpu = self->cpu;
    if (attention & (CPU_ATTENTION_FLUSH | CPU_ATTENTION_INTERRUPT)) {
        atomic_fetch_and(&cpu->attention,
                         ~(uint32_t)(CPU_ATTENTION_FLUSH | CPU_ATTENTION_INTERRUPT));
        quiesce_border(self);
    }
    if (attention & CPU_ATTENTION_STOP) {
        *reason = ENGINE_EXIT_STOP;
        return true;
    }
    if (attention & CPU_ATTENTION_PAUSE) {
        atomic_fetch_and(&cpu->attention, ~(uint32_t)CPU_ATTENTION_PAUSE);
        *reason = ENGINE_EXIT_PAUSE;
        return true;
    }
    if (attention & CPU_ATTENTION_LEAVE) {
        atomic_fetch_and(&cpu->attention, ~(uint32_t)CPU_ATTENTION_LEAVE);
        *reason = ENGINE_EXIT_LEAVE;
        return true;
    }
    return false;
}

static void deliver_exception(struct engine_cpu *self)
{
    engine_count(self->counters.exceptions);
    self->engine->isa->deliver_exception(self->cpu);
}

static void deliver_interrupt(struct engine_cpu *self)
{
    if (self->engine->isa->interrupt_pending(self->cpu, false)) {
        engine_count(self->counters.interrupts);
        trace_break(self);
        self->engine->isa->deliver_interrupt(self->cpu);
    }
}

static void run_block(struct engine_cpu *self, uint32_t attention)
{
    struct cpu *cpu = self->cpu;
    struct block *block = decode_find(self);
    if (block) {
        if (attention & CPU_ATTENTION_PROFILE) {
            trace_note(self, block);
        }
        interp_run(cpu, block);
    }
    if (cpu->exception) {
        cpu->exit = NULL; /* it leads elsewhere now */
        trace_break(self);
        deliver_exception(self);
    }
}

static enum engine_exit run_until_exit(struct engine_cpu *self)
{
    struct cpu *cpu = self->cpu;
    for (;;) {
        uint32_t attention = atomic_load_explicit(&cpu->attention, memory_order_acquire);
        enum engine_exit reason;
        if (attention) {
            engine_count_by(self->counters.exits_attention, attention != CPU_ATTENTION_PROFILE);
            profile_awake(self, false);
            if (handle_attention(self, attention, &reason)) {
                return reason;
            }
        }
        if (cpu->waiting) {
            /* Stepping tools must not sleep: a wait may end early. */
            if (!(attention & CPU_ATTENTION_STEP) && !wait_for_interrupt(self)) {
                continue;
            }
            cpu->waiting = 0;
        }
        deliver_interrupt(self);
        run_block(self, attention);
        if (attention & CPU_ATTENTION_STEP) {
            return ENGINE_EXIT_STEP;
        }
    }
}

enum engine_exit engine_run(struct cpu *cpu)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    fp_host_begin();
    quiesce_leave(self, CPU_STATE_RUNNING);
    profile_awake(self, true);
    if (cpu->exception) {
        deliver_exception(self);
    }
    enum engine_exit reason = run_until_exit(self);
    cpu->fp_flags |= fp_collect_host_flags();
    quiesce_enter(self, CPU_STATE_IDLE);
    return reason;
}
