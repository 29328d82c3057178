/* In the place of optimiser.c where there is no LLVM to link with: that tier cannot be run. */
#include "tests/lockstep/optimiser.h"
#include <stdio.h>

struct optimiser *optimiser_start(struct engine *engine, unsigned interval_us, bool eager)
{
    (void)engine, (void)interval_us, (void)eager;
    fprintf(stderr, "this program was built without the compiler of regions\n");
    return NULL;
}

struct optimiser_counts optimiser_stop(struct optimiser *optimiser)
{
    (void)optimiser;
    return (struct optimiser_counts){0};
}
