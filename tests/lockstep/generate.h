/*
 * Makes random streams: valid riscv64 user-mode code in units of one or a few instructions that
 * belong together, and random initial state. The same seed and number make the same stream; a
 * smaller unit limit makes a prefix of it, which is how a failing stream is cut down.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_GENERATE_H
#define POLYVISOR_TESTS_LOCKSTEP_GENERATE_H

#include "tests/lockstep/stream.h"
#include <stdbool.h>

#define STREAM_UNITS_MAX 320

struct stream {
    struct stream_request request;
    unsigned unit_count;
    /* Code offset at which each unit begins; one more for the end of the last. */
    uint32_t unit_start[STREAM_UNITS_MAX + 1];
    unsigned fixed_instructions; /* executed once each around the random ones */
};

/* Any thread; fills *stream. At most `unit_limit` units. `hot`: it goes round often (otherwise only
 * some do). */
void stream_generate(struct stream *stream, enum stream_kind kind, bool hot, uint64_t seed,
                     uint64_t number, unsigned unit_limit);

#endif
