#include "tests/lockstep/optimiser.h"
#include "jitd/region_compiler.h"
#include "vmmd/vcpu/engine/region.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SHELF_PLACES = 8192 };
#define SHELF_BYTES (UINT64_C(512) << 20)

/* An installed region, and its blob. */
struct kept {
    struct region region;
    uint64_t fingerprint; /* of its entry */
    size_t size;
    uint8_t bytes[];
};

/* Shared with forked copies: what the parent installed after the fork matters to them. */
struct shelf {
    unsigned count;
    size_t used; /* bytes, from the start of this */
    struct kept *kept[SHELF_PLACES];
};

struct optimiser {
    struct engine *engine;
    struct region_compiler *compiler;
    unsigned interval_us;
    pthread_t thread;
    _Atomic bool stop;
    struct region region;
    struct optimiser_counts counts;
    uint16_t spoiled;
    struct region wrong; /* what is compiled instead */
    bool replays;
    struct shelf *shelf; /* NULL: nothing is kept */
    unsigned first, end; /* to be installed again */
};

/* --- what was installed --------------------------------------------------------------------- */

static void keep(struct optimiser *optimiser, const struct compiled_region *compiled)
{
    struct shelf *shelf = optimiser->shelf;
    const struct region *region = &optimiser->region;
    size_t size = (sizeof(struct kept) + compiled->size + 63) & ~(size_t)63;
    if (shelf->count == SHELF_PLACES || size > SHELF_BYTES - shelf->used) {
        return;
    }
    struct kept *kept = (struct kept *)((char *)shelf + shelf->used);
    kept->region = *region;
    kept->size = compiled->size;
    kept->fingerprint =
        region_fingerprint(region->isa, region->mode, region->blocks[0].start,
                           region->bytes + region->blocks[0].bytes, region->blocks[0].length);
    memcpy(kept->bytes, compiled->bytes, compiled->size);
    shelf->used += size;
    shelf->kept[shelf->count++] = kept;
}

static void serve_again(struct optimiser *optimiser)
{
    uint64_t fingerprint;
    struct error err;
    while (engine_next_fetch(optimiser->engine, &fingerprint)) {
        for (unsigned i = optimiser->first; i < optimiser->end; i++) {
            const struct kept *kept = optimiser->shelf->kept[i];
            if (kept->fingerprint == fingerprint) {
                engine_install_region(optimiser->engine, 0, fingerprint, &kept->region, kept->bytes,
                                      kept->size, &err);
            }
        }
    }
}

void optimiser_keep(struct optimiser *optimiser)
{
    struct shelf *shelf = mmap(NULL, SHELF_BYTES, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shelf != MAP_FAILED) {
        shelf->used = (sizeof(*shelf) + 63) & ~(size_t)63;
        optimiser->shelf = shelf;
    }
}

unsigned optimiser_kept(const struct optimiser *optimiser)
{
    return optimiser->shelf ? optimiser->shelf->count : 0;
}

const struct region *optimiser_region(const struct optimiser *optimiser, unsigned index)
{
    return &optimiser->shelf->kept[index]->region;
}

void optimiser_replay(struct optimiser *optimiser, unsigned first, unsigned end)
{
    uint64_t *known = calloc(end - first + 1, sizeof(*known));
    for (unsigned i = first; known && i < end; i++) {
        known[i - first] = optimiser->shelf->kept[i]->fingerprint;
    }
    optimiser->replays = true;
    optimiser->first = first;
    optimiser->end = known ? end : first;
    engine_set_known(optimiser->engine, known, optimiser->end - first);
    engine_drop_code(optimiser->engine);
    free(known);
}

/* --- compiling ------------------------------------------------------------------------------ */

static const struct region *spoil(struct optimiser *optimiser)
{
    optimiser->wrong = optimiser->region;
    for (unsigned i = 0; i < optimiser->wrong.block_count; i++) {
        const struct region_block *block = &optimiser->wrong.blocks[i];
        uint8_t *bytes = optimiser->wrong.bytes + block->bytes;
        for (unsigned at = 0; at + 1 < block->length; at += (bytes[at] & 3) == 3 ? 4 : 2) {
            if ((bytes[at] | bytes[at + 1] << 8) == optimiser->spoiled) {
                bytes[at] ^= 8;
                return &optimiser->wrong;
            }
        }
    }
    return &optimiser->wrong;
}

void optimiser_spoil(struct optimiser *optimiser, uint16_t instruction)
{
    optimiser->spoiled = instruction;
}

static void compile(struct optimiser *optimiser, uint64_t ticket)
{
    struct compiled_region compiled;
    struct error err;
    const struct region *region = optimiser->spoiled ? spoil(optimiser) : &optimiser->region;
    if (!region_compile(optimiser->compiler, region, &compiled, &err)) {
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
        if (optimiser->shelf) {
            keep(optimiser, &compiled);
        }
    }
    free(compiled.bytes);
}

void optimiser_serve(struct optimiser *optimiser)
{
    uint64_t ticket;
    uint32_t heat;
    if (optimiser->replays) {
        serve_again(optimiser);
        return;
    }
    while (!atomic_load(&optimiser->stop) &&
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
        if (optimiser->shelf) {
            munmap(optimiser->shelf, SHELF_BYTES);
        }
        region_compiler_destroy(optimiser->compiler);
        free(optimiser);
    }
    return counts;
}

/* --- a thread of its own -------------------------------------------------------------------- */

static void *run(void *argument)
{
    struct optimiser *optimiser = argument;
    while (!atomic_load(&optimiser->stop)) {
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
        atomic_store(&optimiser->stop, true);
        pthread_join(optimiser->thread, NULL);
    }
    return optimiser_destroy(optimiser);
}
