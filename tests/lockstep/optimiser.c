#include "tests/lockstep/optimiser.h"
#include "jitd/region_compiler.h"
#include "vmmd/vcpu/engine/region.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct optimiser {
    struct engine *engine;
    struct region_compiler *compiler;
    unsigned interval_us;
    pthread_t thread;
    _Atomic bool end;
    struct region region;
    struct optimiser_counts counts;
};

static void compile(struct optimiser *optimiser, uint64_t ticket)
{
    struct compiled_region compiled;
    struct error err;
    if (!region_compile(optimiser->compiler, &optimiser->region, &compiled, &err)) {
        if (getenv("OPTIMISER_VERBOSE")) {
            fprintf(stderr, "refused: %s\n", err.message);
        }
        engine_region_refused(optimiser->engine, ticket);
        optimiser->counts.refused++;
        return;
    }
    optimiser->counts.compiled++;
    if (engine_install_region(optimiser->engine, ticket, 0, &optimiser->region, compiled.bytes,
                              compiled.size, &err) == REGION_INSTALLED) {
        optimiser->counts.installed++;
        optimiser->counts.blocks += optimiser->region.block_count;
    }
    free(compiled.bytes);
}

void optimiser_serve(struct optimiser *optimiser)
{
    uint64_t ticket;
    uint32_t heat;
    while (!atomic_load(&optimiser->end) &&
           engine_next_region(optimiser->engine, &optimiser->region, &ticket, &heat)) {
        compile(optimiser, ticket);
    }
}

struct optimiser *optimiser_create(struct engine *engine, bool eager)
{
    static _Atomic bool set_up;
    struct error err = {0};
    struct optimiser *optimiser = calloc(1, sizeof(*optimiser));
    if (!optimiser) {
        return NULL;
    }
    optimiser->engine = engine;
    if (eager) {
        engine_profile_eager(engine);
    }
    bool ready = atomic_exchange(&set_up, true) || region_compiler_setup(&err);
    optimiser->compiler = ready ? region_compiler_create(&err) : NULL;
    if (!optimiser->compiler) {
        fprintf(stderr, "compiler of regions: %s\n", err.message);
        free(optimiser);
        return NULL;
    }
    return optimiser;
}

struct optimiser_counts optimiser_counts(const struct optimiser *optimiser)
{
    return optimiser->counts;
}

struct optimiser_counts optimiser_destroy(struct optimiser *optimiser)
{
    struct optimiser_counts counts = {0};
    if (optimiser) {
        counts = optimiser->counts;
        region_compiler_destroy(optimiser->compiler);
        free(optimiser);
    }
    return counts;
}

/* --- a thread of its own -------------------------------------------------------------------- */

static void *run(void *argument)
{
    struct optimiser *optimiser = argument;
    while (!atomic_load(&optimiser->end)) {
        engine_profile_tick(optimiser->engine);
        optimiser_serve(optimiser);
        usleep(optimiser->interval_us);
    }
    return NULL;
}

struct optimiser *optimiser_start(struct engine *engine, unsigned interval_us, bool eager)
{
    struct optimiser *optimiser = optimiser_create(engine, eager);
    if (!optimiser) {
        return NULL;
    }
    optimiser->interval_us = interval_us;
    if (pthread_create(&optimiser->thread, NULL, run, optimiser) != 0) {
        perror("a thread");
        optimiser_destroy(optimiser);
        return NULL;
    }
    return optimiser;
}

struct optimiser_counts optimiser_stop(struct optimiser *optimiser)
{
    if (optimiser) {
        atomic_store(&optimiser->end, true);
        pthread_join(optimiser->thread, NULL);
    }
    return optimiser_destroy(optimiser);
}
