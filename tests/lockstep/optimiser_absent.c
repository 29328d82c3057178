/* In the place of optimiser.c where there is no LLVM to link with: that tier cannot be run. */
#include "tests/lockstep/optimiser.h"
#include <stdio.h>

struct optimiser *optimiser_create(struct engine *engine, bool eager)
{
    (void)engine, (void)eager;
    fprintf(stderr, "this program was built without the compiler of regions\n");
    return NULL;
}

void optimiser_serve(struct optimiser *optimiser)
{
    (void)optimiser;
}

struct optimiser_counts optimiser_counts(const struct optimiser *optimiser)
{
    (void)optimiser;
    return (struct optimiser_counts){0};
}

struct optimiser_counts optimiser_destroy(struct optimiser *optimiser)
{
    (void)optimiser;
    return (struct optimiser_counts){0};
}

struct optimiser *optimiser_start(struct engine *engine, unsigned interval_us, bool eager)
{
    (void)interval_us;
    return optimiser_create(engine, eager);
}

struct optimiser_counts optimiser_stop(struct optimiser *optimiser)
{
    return optimiser_destroy(optimiser);
}
