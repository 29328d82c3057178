/*
 * Subject and oracle of the boot test, advanced together: the subject runs freely until it is
 * asked to stop, the oracle follows to the same position, then all CPU state must agree. RAM is
 * compared less often: by pair_compare_memory, when the caller says so.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_PAIR_H
#define POLYVISOR_TESTS_LOCKSTEP_PAIR_H

#include "tests/lockstep/side.h"

struct kicker;
struct optimiser;

struct pair {
    struct side subject, oracle;
    struct interrupt_log log;
    struct kicker *kicker;       /* a thread that stops the subject at random moments; NULL: none */
    struct optimiser *optimiser; /* NULL: not this tier, or there is none any more */
    uint64_t slices, interrupts, comparisons;
    uint64_t speculated;     /* accessed bits that the subject set early */
    const char *defect;      /* what differs; NULL while both agree */
    uint64_t defect_address; /* of RAM; 0: not there */
};

/* False with a message on standard error. */
bool pair_open(struct pair *pair, const struct side_images *images, enum engine_tier tier,
               uint64_t seed);
void pair_close(struct pair *pair);
/* For a process that was forked: the thread is not there, and code that is compiled may lie in
 * memory that is shared with the parent. */
void pair_after_fork(struct pair *pair);
/* In such a process: have a kicker again. */
bool pair_restart_kicker(struct pair *pair, uint64_t seed);

enum pair_pace {
    PAIR_FREE, /* linked code, until the kicker asks */
    PAIR_STEP, /* one block (or whatever the tier does not interrupt) */
};
/* Run one slice. True: both agree and the guest goes on (or has ended: see subject.ended). False:
 * `defect` says why. */
bool pair_advance(struct pair *pair, enum pair_pace pace);
/* Compare all of RAM. False: `defect`. Accessed bits of page-table entries may be set speculatively
 * (volume II, "Addressing and Memory Protection"), and regions do so when they look whether all
 * their pages are there: the oracle's are then set, too. */
bool pair_compare_memory(struct pair *pair);

static inline uint64_t pair_position(const struct pair *pair)
{
    return side_position(&pair->oracle);
}

#endif
