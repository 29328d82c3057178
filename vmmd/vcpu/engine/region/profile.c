/* The table of blocks and edges: merging traces, decay, candidates; and its life. */
#include "vmmd/vcpu/engine/region/profile.h"
#include "libshared/base/clock.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define NODES (ENGINE_PROFILE_SETS * ENGINE_PROFILE_WAYS)

/* --- life ----------------------------------------------------------------------------------- */

int profile_create(struct engine *engine)
{
    struct profile *profile = calloc(1, sizeof(*profile));
    if (!profile) {
        return -ENOMEM;
    }
    pthread_mutex_init(&profile->lock, NULL);
    engine->profile = profile;
    profile->nodes = calloc(NODES, sizeof(*profile->nodes));
    profile->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = profile->event < 0 ? -errno : profile->nodes ? 0 : -ENOMEM;
    if (result != 0) {
        profile_destroy(engine);
    }
    return result;
}

void profile_destroy(struct engine *engine)
{
    struct profile *profile = engine->profile;
    engine->profile = NULL;
    if (profile) {
        if (profile->event >= 0) {
            close(profile->event);
        }
        pthread_mutex_destroy(&profile->lock);
        free(profile->nodes);
        free(profile->known);
        free(profile);
    }
}

void profile_signal(struct profile *profile)
{
    uint64_t one = 1;
    /* It fails only when it is readable already. */
    ssize_t written = write(profile->event, &one, sizeof(one));
    (void)written;
}

void engine_profile_eager(struct engine *engine)
{
    if (engine->profile) {
        engine->profile->eager = true;
    }
}

int engine_profile_event(struct engine *engine)
{
    return engine->profile ? engine->profile->event : -1;
}

void engine_profile_seen(struct engine *engine)
{
    uint64_t count;
    ssize_t got = engine->profile ? read(engine->profile->event, &count, sizeof(count)) : 0;
    (void)got;
}

/* --- nodes ---------------------------------------------------------------------------------- */

static struct profile_node *set_of(const struct profile *profile, struct profile_key key)
{
    uint64_t hash = (key.physical >> 1 ^ (uint64_t)key.mode << 40) * UINT64_C(0x9e3779b97f4a7c15);
    return &profile->nodes[(hash >> 32) % ENGINE_PROFILE_SETS * ENGINE_PROFILE_WAYS];
}

static bool node_is(const struct profile_node *node, struct profile_key key)
{
    return node->used && node->key.physical == key.physical && node->key.mode == key.mode;
}

struct profile_node *profile_find(const struct profile *profile, struct profile_key key)
{
    struct profile_node *set = set_of(profile, key);
    for (unsigned i = 0; i < ENGINE_PROFILE_WAYS; i++) {
        if (node_is(&set[i], key)) {
            return &set[i];
        }
    }
    return NULL;
}

/* Likewise, in the place of the coldest when it is new. */
static struct profile_node *node_at(struct profile *profile, struct profile_key key)
{
    struct profile_node *node = profile_find(profile, key);
    if (node) {
        return node;
    }
    struct profile_node *set = set_of(profile, key);
    node = set;
    for (unsigned i = 0; i < ENGINE_PROFILE_WAYS && node->used; i++) {
        if (!set[i].used || set[i].heat < node->heat) {
            node = &set[i];
        }
    }
    *node = (struct profile_node){.key = key, .born = profile->traces, .used = true};
    return node;
}

static void add_edge(struct profile_node *from, const struct profile_node *to)
{
    int64_t delta = (int64_t)((to->va >> MEMORY_PAGE_SHIFT) - (from->va >> MEMORY_PAGE_SHIFT));
    if (delta > REGION_DELTA_MAX || delta < -REGION_DELTA_MAX) {
        return;
    }
    struct profile_edge *coldest = &from->edges[0];
    for (unsigned i = 0; i < ENGINE_PROFILE_EDGES; i++) {
        struct profile_edge *edge = &from->edges[i];
        if (edge->heat && edge->physical == to->key.physical && edge->delta == (int32_t)delta) {
            edge->heat++;
            return;
        }
        if (edge->heat < coldest->heat) {
            coldest = edge;
        }
    }
    /* One that is hot gives way to nobody who came but once. */
    if (coldest->heat > 1) {
        coldest->heat--;
        return;
    }
    *coldest = (struct profile_edge){to->key.physical, (int32_t)delta, 1};
}

/* Who leads here more often than all others together is known in the end, as in a vote by
 * majority. */
static void note_from(struct profile_node *node, uint64_t physical)
{
    if (node->from_heat && node->from != physical) {
        node->from_heat--;
        return;
    }
    node->from = physical;
    node->from_heat++;
}

static void decay(struct profile *profile)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct profile_node *node = &profile->nodes[i];
        if (!node->used) {
            continue;
        }
        node->heat /= 2;
        node->samples /= 2;
        node->loops /= 2;
        node->exits /= 2;
        node->from_heat /= 2;
        for (unsigned e = 0; e < ENGINE_PROFILE_EDGES; e++) {
            node->edges[e].heat /= 2;
        }
    }
}

/* --- candidates ----------------------------------------------------------------------------- */

static bool is_hot(const struct profile *profile, const struct profile_node *node)
{
    bool loop = profile_is_loop(node);
    if (node->candidate || (int32_t)(profile->ticks - node->quiet) < 0) {
        return false;
    }
    return profile->eager
               ? node->heat > 0
               : node->samples >= (loop ? ENGINE_HOT_LOOP_SAMPLES : ENGINE_HOT_SAMPLES) &&
                     node->heat >= (loop ? ENGINE_HOT_LOOP_HEAT : ENGINE_HOT_HEAT);
}

bool profile_is_awaited(const struct profile *profile, const struct profile_node *node)
{
    for (unsigned t = 0; t < ENGINE_TICKETS; t++) {
        const struct ticket *ticket = &profile->tickets[t];
        if (!ticket->id || ticket->key.mode != node->key.mode) {
            continue;
        }
        for (unsigned i = 0; i < ticket->block_count; i++) {
            if (ticket->blocks[i] == node->key.physical) {
                return true;
            }
        }
    }
    return false;
}

/* Whoever compiles has nothing to do: then the hottest of what is merely warm. */
static void nominate_warm(struct profile *profile)
{
    struct profile_node *best = NULL;
    for (unsigned i = 0; i < NODES; i++) {
        struct profile_node *node = &profile->nodes[i];
        if (node->used && !node->candidate && node->samples >= ENGINE_WARM_SAMPLES &&
            profile->traces - node->born >= ENGINE_WARM_AGE &&
            (int32_t)(profile->ticks - node->quiet) >= 0 && (!best || node->heat > best->heat)) {
            best = node;
        }
    }
    if (best) {
        profile_nominate(profile, best, NULL);
    }
}

static bool is_idle(const struct profile *profile)
{
    for (unsigned i = 0; i < ENGINE_TICKETS; i++) {
        if (profile->tickets[i].id) {
            return false;
        }
    }
    return profile->candidate_count == 0;
}

void profile_nominate(struct profile *profile, struct profile_node *node,
                      const struct profile_path *path)
{
    if (node->candidate || profile->candidate_count == ENGINE_CANDIDATES) {
        return;
    }
    node->candidate = true;
    if (!node->hot_ns) {
        node->hot_ns = clock_monotonic_ns();
    }
    struct candidate *candidate = &profile->candidates[profile->candidate_count++];
    *candidate = (struct candidate){.key = node->key, .path.va = node->va};
    if (path) {
        candidate->path = *path;
    }
    profile_signal(profile);
}

static void consider(struct profile *profile, struct profile_node *node,
                     const struct profile_path *path)
{
    if (!is_hot(profile, node)) {
        return;
    }
    if (profile_is_awaited(profile, node)) {
        node->heat = node->samples = 0;
    } else {
        profile_nominate(profile, node, path);
    }
}

/* --- merging -------------------------------------------------------------------------------- */

/* Where the walk along a trace is. */
struct merging {
    struct engine *engine;
    struct cpu *cpu;
    struct mmu_key key;
    struct profile_node *previous; /* its place may be another block's by now: */
    struct profile_key previous_key;
    const struct trace_step *previous_step;
    const struct installed_region *inside; /* code that, untraced, would run in this region */
};

static bool leads_on(const struct trace_step *step)
{
    return step->terminator != IR_exit && step->terminator != IR_exit_pc;
}

static bool jumps_back(const struct trace_step *from, const struct trace_step *to)
{
    bool jump = from->terminator == IR_jump || from->terminator == IR_branch ||
                from->terminator == IR_jump_ind;
    return jump && to->va <= from->va;
}

/* The region that the step is in; *left: the one that it left. */
static void follow_regions(struct merging *merging, const struct trace_step *step,
                           const struct installed_region **left)
{
    *left = NULL;
    if (merging->inside && !region_holds(merging->engine, merging->inside, step->physical)) {
        *left = merging->inside;
        merging->inside = NULL;
    }
    if (step->head) {
        const struct block *block =
            block_cache_find(merging->engine, step->physical, step->mode, UINT64_MAX);
        merging->inside = block ? atomic_load(&block->region) : NULL;
    }
}

static void merge_step(struct merging *merging, const struct trace_step *step)
{
    struct profile *profile = merging->engine->profile;
    const struct installed_region *left;
    struct profile_node *node = node_at(profile, (struct profile_key){step->physical, step->mode});
    bool follows = merging->previous && node_is(merging->previous, merging->previous_key) &&
                   !step->apart && leads_on(merging->previous_step) &&
                   merging->previous_step->mode == step->mode;
    if (!follows) {
        merging->inside = NULL;
    }
    follow_regions(merging, step, &left);
    node->va = step->va;
    if (!merging->inside) {
        node->heat++;
        node->samples += node->trace != profile->traces;
        node->trace = profile->traces;
    }
    if (left) {
        node->exits++;
        node->exit_head = left->head->physical;
    }
    if (follows) {
        add_edge(merging->previous, node);
        note_from(node, merging->previous_key.physical);
        node->loops += jumps_back(merging->previous_step, step);
    }
    consider(profile, node, &(struct profile_path){merging->cpu, step->va, merging->key});
    merging->previous = node;
    merging->previous_key = node->key;
    merging->previous_step = step;
}

void profile_merge(struct engine *engine, struct cpu *cpu, struct trace *trace)
{
    struct merging merging = {.engine = engine, .cpu = cpu, .key = trace->key};
    engine->profile->traces++;
    for (unsigned i = 0; i < trace->count; i++) {
        merge_step(&merging, &trace->steps[i]);
    }
    trace->count = 0;
    trace->apart = true;
    atomic_store_explicit(&trace->full, false, memory_order_release);
}

/* --- ticking -------------------------------------------------------------------------------- */

static void merge_full(struct engine *engine)
{
    struct profile *profile = engine->profile;
    bool any = false;
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        struct engine_cpu *cpu = engine->cpus[i];
        any |= cpu && cpu->trace && atomic_load_explicit(&cpu->trace->full, memory_order_acquire);
    }
    if (!any) {
        return;
    }
    watch_acquire(engine, NULL);
    pthread_mutex_lock(&profile->lock);
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        struct engine_cpu *cpu = engine->cpus[i];
        if (cpu && cpu->trace && atomic_load_explicit(&cpu->trace->full, memory_order_acquire)) {
            profile_merge(engine, cpu->cpu, cpu->trace);
        }
    }
    pthread_mutex_unlock(&profile->lock);
    watch_release(engine);
}

static bool ask_for_samples(struct engine *engine)
{
    bool running = false;
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        struct engine_cpu *cpu = engine->cpus[i];
        if (cpu && atomic_load(&cpu->state) != CPU_STATE_IDLE) {
            running = true;
            cpu_attention(cpu->cpu, CPU_ATTENTION_PROFILE);
        }
    }
    return running;
}

bool engine_profile_tick(struct engine *engine)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return false;
    }
    merge_full(engine);
    pthread_mutex_lock(&profile->lock);
    if (++profile->ticks % ENGINE_PROFILE_DECAY_TICKS == 0) {
        decay(profile);
    }
    if (profile->ticks % ENGINE_WARM_TICKS == 0 && is_idle(profile)) {
        nominate_warm(profile);
    }
    pthread_mutex_unlock(&profile->lock);
    if (ask_for_samples(engine)) {
        profile->idle_ticks = 0;
        return true;
    }
    if (++profile->idle_ticks < ENGINE_PROFILE_IDLE_TICKS) {
        return true;
    }
    profile->idle_ticks = 0;
    atomic_store(&profile->resting, true);
    /* One that ran on before it could see that is seen here. */
    if (ask_for_samples(engine)) {
        atomic_store(&profile->resting, false);
        return true;
    }
    return false;
}
