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

void optimiser_spoil(struct optimiser *optimiser, uint16_t instruction)
{
    (void)optimiser, (void)instruction;
}

void optimiser_keep(struct optimiser *optimiser)
{
    (void)optimiser;
}

unsigned optimiser_kept(const struct optimiser *optimiser)
{
    (void)optimiser;
    return 0;
}

const struct region *optimiser_region(const struct optimiser *optimiser, unsigned index)
{
    (void)optimiser, (void)index;
    return NULL;
}

void optimiser_replay(struct optimiser *optimiser, unsigned first, unsigned end)
{
    (void)optimiser, (void)first, (void)end;
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
