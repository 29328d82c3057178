/*
 * From a difference to the block that makes it. A checkpoint is a forked copy of this process that
 * sleeps at a point where subject and oracle agreed. When they no longer do, it wakes up, goes the
 * same way again block by block, with checkpoints of its own at ever shorter distances, and prints
 * what it finds.
 *
 * Blocks that run one by one do not run in regions. So when nothing shows with the optimised tier,
 * the copy runs freely again and again, each time with some of the regions only, until one is left
 * without which there is no difference.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_NARROW_H
#define POLYVISOR_TESTS_LOCKSTEP_NARROW_H

#include "tests/lockstep/pair.h"
#include <sys/types.h>

struct checkpoint {
    pid_t pid; /* 0: none */
    int wake;
    const struct pair *pair;
    uint64_t position;
};

/* All of memory was compared, and agrees. The copy never returns from this. False: it cannot be
 * made. One at a time. */
bool checkpoint_make(struct checkpoint *checkpoint, struct pair *pair);
void checkpoint_drop(struct checkpoint *checkpoint);
/* Wake the copy and wait until it has printed what it finds up to position `until`, where the
 * difference showed. True: it found something. */
bool checkpoint_explain(const struct checkpoint *checkpoint, uint64_t until);

/* From now on a crash or hang of this process (SIGALRM) is reported, explained by the latest
 * checkpoint, and ends the process with status 1. */
void narrow_watch_crashes(void);

/* The defect in a few lines. */
void narrow_print_defect(const struct pair *pair);

#endif
