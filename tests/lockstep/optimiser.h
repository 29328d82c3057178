/*
 * The optimised tier without its processes: what vcpud's thread and jitd do together, in this
 * process. Either a thread of its own does it, or the caller, whenever it pleases.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_OPTIMISER_H
#define POLYVISOR_TESTS_LOCKSTEP_OPTIMISER_H

#include "vmmd/vcpu/engine/engine.h"
#include <stdbool.h>

struct optimiser;
struct region;

struct optimiser_counts {
    unsigned compiled, refused, installed;
    uint64_t blocks; /* of installed regions */
};

/* For an engine of tier ENGINE_OPTIMISED, which outlives it, before its CPUs run. `eager`:
 * everything that is seen will be compiled. NULL, with a message on standard error, when that
 * fails. */
struct optimiser *optimiser_create(struct engine *engine, bool eager);
/* Compile and install what the engine wants by now. Somebody has to tick (engine_profile_tick). */
void optimiser_serve(struct optimiser *optimiser);
struct optimiser_counts optimiser_counts(const struct optimiser *optimiser);
struct optimiser_counts optimiser_destroy(struct optimiser *optimiser); /* NULL is allowed */

/* To test tests: regions are compiled with bit 3 of this 16-bit instruction flipped. */
void optimiser_spoil(struct optimiser *optimiser, uint16_t instruction);

/* --- finding the region that is wrong --- */
/* From now on remember all that is installed. */
void optimiser_keep(struct optimiser *optimiser);
unsigned optimiser_kept(const struct optimiser *optimiser);
const struct region *optimiser_region(const struct optimiser *optimiser, unsigned index);
/* Drop all code, compile nothing any more, but install regions [first, end) of those remembered
 * when their entries are decoded again. */
void optimiser_replay(struct optimiser *optimiser, unsigned first, unsigned end);

/* Likewise, with a thread that ticks every `interval_us` and serves. */
struct optimiser *optimiser_start(struct engine *engine, unsigned interval_us, bool eager);
/* NULL is allowed. */
struct optimiser_counts optimiser_stop(struct optimiser *optimiser);

#endif
