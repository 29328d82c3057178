/*
 * How CPUs wait for each other.
 *
 * Two things must be known of another CPU: that it no longer uses a translation that was taken
 * away (TLB shoot-down, revoked write permission), and that it no longer runs a block that was
 * dropped (instruction barriers, giving memory back). Each CPU shows a *state*. RUNNING promises
 * nothing; it polls its attention word at every block border. In the other states it has promised
 * to serve all requests before it touches a translation (WAITING), a further instruction of its
 * block (ENDING) or any block at all (IDLE) again. So nobody waits for a CPU that sleeps, blocks
 * in a device, or itself waits for others; and no two CPUs can wait for each other, because who
 * waits is in one of these states.
 *
 * The promise rests on a store-load pair on either side, all sequentially consistent: the asker
 * stores `requested`, then loads `state`; the CPU stores RUNNING, then loads `requested`. At least
 * one sees the other.
 *
 * Requests are numbered (tickets). `served` runs to `requested` whenever the CPU flushes, `border`
 * only when it does so between blocks.
 */
#include "vmmd/vcpu/engine/quiesce.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include <sched.h>

static void notify_waiters(struct engine_cpu *self)
{
    if (atomic_load(&self->waiters)) {
        pthread_mutex_lock(&self->request_lock);
        pthread_cond_broadcast(&self->acknowledged);
        pthread_mutex_unlock(&self->request_lock);
    }
}

/* Take the queue and flush. Returns the ticket up to which everything is done. */
static uint64_t serve_requests(struct engine_cpu *self)
{
    struct flush_request requests[ENGINE_FLUSH_REQUESTS];
    pthread_mutex_lock(&self->request_lock);
    uint64_t ticket = atomic_load(&self->requested);
    unsigned count = self->request_count;
    bool all = self->request_all;
    for (unsigned i = 0; i < count; i++) {
        requests[i] = self->requests[i];
    }
    self->request_count = 0;
    self->request_all = false;
    pthread_mutex_unlock(&self->request_lock);

    if (all) {
        mmu_flush(self, &(struct flush_request){.any_root = true, .any_page = true});
    } else {
        for (unsigned i = 0; i < count; i++) {
            mmu_flush(self, &requests[i]);
        }
    }
    atomic_store(&self->served, ticket);
    return ticket;
}

uint32_t quiesce_enter(struct engine_cpu *self, uint32_t state)
{
    uint32_t previous = atomic_load_explicit(&self->state, memory_order_relaxed);
    if (state > previous) {
        atomic_store(&self->state, state);
        notify_waiters(self);
    }
    return previous;
}

/* Nothing is asked of this CPU: but somebody sleeps until another answers, which may have no
 * processor to do so (see make_room). */
static void yield_while_stalled(struct engine *engine)
{
    for (unsigned i = 0; i < ENGINE_STALL_YIELDS; i++) {
        if (atomic_load_explicit(&engine->stalled, memory_order_relaxed) == 0) {
            return;
        }
        sched_yield();
    }
}

void quiesce_border(struct engine_cpu *self)
{
    if (atomic_load(&self->requested) ==
        atomic_load_explicit(&self->border, memory_order_relaxed)) {
        yield_while_stalled(self->engine);
        return;
    }
    block_cache_purge(self);
    atomic_store(&self->border, serve_requests(self));
    code_memory_fetch_anew(); /* jumps to dropped code were redirected before this was asked for */
    notify_waiters(self);
}

void quiesce_leave(struct engine_cpu *self, uint32_t previous)
{
    bool idle = atomic_load_explicit(&self->state, memory_order_relaxed) == CPU_STATE_IDLE;
    atomic_store(&self->state, previous);
    if (previous != CPU_STATE_RUNNING) {
        return;
    }
    if (idle) {
        profile_awake(self, false);
        quiesce_border(self); /* blocks may have been freed meanwhile */
    } else if (atomic_load(&self->requested) !=
               atomic_load_explicit(&self->served, memory_order_relaxed)) {
        serve_requests(self);
        notify_waiters(self);
    }
}

/* Put the request into the queue; when it is full, everything will be flushed instead. */
static void enqueue(struct engine_cpu *target, const struct flush_request *request)
{
    if (target->request_all) {
        return;
    }
    if (target->request_count == ENGINE_FLUSH_REQUESTS) {
        target->request_all = true;
        target->request_count = 0;
        return;
    }
    target->requests[target->request_count++] = *request;
}

uint64_t quiesce_request(struct engine_cpu *target, const struct flush_request *request)
{
    pthread_mutex_lock(&target->request_lock);
    if (request) {
        enqueue(target, request);
    }
    uint64_t ticket = atomic_fetch_add(&target->requested, 1) + 1;
    pthread_mutex_unlock(&target->request_lock);
    cpu_attention(target->cpu, CPU_ATTENTION_FLUSH);
    return ticket;
}

bool quiesce_reached(struct engine_cpu *target, uint64_t ticket, uint32_t state)
{
    const _Atomic uint64_t *done = state == CPU_STATE_WAITING ? &target->served : &target->border;
    return atomic_load(done) >= ticket || atomic_load(&target->state) >= state;
}

static void host_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* With more CPUs than the host has processors, one that does not answer is often one that has none:
 * it would get one at the end of another's time slice, milliseconds from now. Ask the others to
 * let it run. Not otherwise: what has its processor then is none of ours, and yielding is paid for.
 */
static void make_room(struct engine *engine, const struct engine_cpu *target)
{
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        struct engine_cpu *other = engine->cpus[i];
        if (other && other != target && atomic_load(&other->state) == CPU_STATE_RUNNING) {
            cpu_attention(other->cpu, CPU_ATTENTION_FLUSH);
        }
    }
}

/* Sleep until the target has got there. */
static void sleep_until_reached(struct engine_cpu *target, uint64_t ticket, uint32_t state)
{
    struct engine *engine = target->engine;
    if (engine->crowded) {
        atomic_fetch_add(&engine->stalled, 1);
        make_room(engine, target);
    }
    pthread_mutex_lock(&target->request_lock);
    atomic_fetch_add(&target->waiters, 1);
    while (!quiesce_reached(target, ticket, state)) {
        pthread_cond_wait(&target->acknowledged, &target->request_lock);
    }
    atomic_fetch_sub(&target->waiters, 1);
    pthread_mutex_unlock(&target->request_lock);
    if (engine->crowded) {
        atomic_fetch_sub(&engine->stalled, 1);
    }
}

void quiesce_wait(struct engine_cpu *self, struct engine_cpu *target, uint64_t ticket,
                  uint32_t state)
{
    /* Who waits for others to leave their blocks must not be waited for by them. */
    uint32_t previous = self ? quiesce_enter(self, state) : 0;
    bool reached = quiesce_reached(target, ticket, state);
    for (unsigned i = 0; !reached && i < ENGINE_WAIT_SPINS; i++) {
        host_pause();
        reached = quiesce_reached(target, ticket, state);
    }
    if (!reached) {
        sleep_until_reached(target, ticket, state);
    }
    if (self) {
        quiesce_leave(self, previous);
    }
}

void engine_quiesce_begin(struct cpu *cpu)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    if (self->quiesce_depth++ == 0) {
        self->quiesce_state = quiesce_enter(self, CPU_STATE_WAITING);
    }
}

void engine_quiesce_end(struct cpu *cpu)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    if (--self->quiesce_depth == 0) {
        quiesce_leave(self, self->quiesce_state);
    }
}

static void request_flush(struct cpu *cpu, uint64_t cpu_mask, const struct flush_request *request,
                          uint32_t state)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    struct engine *engine = self->engine;
    uint64_t tickets[ENGINE_CPUS_MAX];
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (cpu_mask >> i & 1 && engine->cpus[i] && engine->cpus[i] != self) {
            tickets[i] = quiesce_request(engine->cpus[i], request);
        }
    }
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        if (cpu_mask >> i & 1 && engine->cpus[i] && engine->cpus[i] != self) {
            quiesce_wait(self, engine->cpus[i], tickets[i], state);
        }
    }
}

void engine_remote_flush(struct cpu *cpu, uint64_t cpu_mask, bool any_root, uint64_t root,
                         uint64_t root_mask, uint64_t va, uint64_t size)
{
    uint64_t slack = va & (PAGE_BYTES - 1);
    struct flush_request request = {
        .any_root = any_root,
        .any_page = size > ENGINE_FLUSH_PAGES * (uint64_t)PAGE_BYTES - slack,
        .root = root,
        .root_mask = root_mask,
        .va = va - slack,
        .size = size + slack,
    };
    if (cpu_mask >> cpu->index & 1) {
        mmu_flush(engine_cpu_of(cpu), &request);
    }
    request_flush(cpu, cpu_mask, &request, CPU_STATE_WAITING);
}

void engine_remote_fetch_barrier(struct cpu *cpu, uint64_t cpu_mask)
{
    engine_cpu_of(cpu)->host.fetch_barrier(cpu);
    request_flush(cpu, cpu_mask, NULL, CPU_STATE_ENDING);
}
