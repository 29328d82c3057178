/*
 * The optimised tier without its processes: a thread that asks the engine for samples, compiles the
 * regions that it wants and installs them. What vcpud's thread and jitd do together, at once.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_OPTIMISER_H
#define POLYVISOR_TESTS_LOCKSTEP_OPTIMISER_H

#include "vmmd/vcpu/engine/engine.h"
#include <stdbool.h>

struct optimiser;

struct optimiser_counts {
    unsigned compiled, refused, installed;
};

/* For an engine of tier ENGINE_OPTIMISED, which outlives it, before its CPUs run. A tick every
 * `interval_us`; regions are compiled in this process. `eager`: of everything that is seen. NULL,
 * with a message on standard error, when that fails. */
struct optimiser *optimiser_start(struct engine *engine, unsigned interval_us, bool eager);
/* NULL is allowed. */
struct optimiser_counts optimiser_stop(struct optimiser *optimiser);

#endif
