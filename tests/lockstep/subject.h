/*
 * One engine on which streams run just as under the emulator: a bare machine and the mode in which
 * the stream runs on it. A pair of them, one of them a single-stepping interpreter, must end in the
 * same state in every respect. One thread uses it.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_SUBJECT_H
#define POLYVISOR_TESTS_LOCKSTEP_SUBJECT_H

#include "tests/lockstep/bare_machine.h"
#include "tests/lockstep/stream.h"

struct kicker;
struct optimiser;

struct subject {
    enum riscv64_privilege privilege; /* in which the stream runs */
    bool trapping;                    /* with a handler, and translation where there is any */
    struct bare_machine *machine;
    /* With both, code is optimised as it runs; see subject_optimise. */
    struct optimiser *optimiser;
    struct kicker *kicker; /* not owned */
};

/* `single`: blocks of one instruction. 0, or -1 with a message on standard error. */
int subject_open(struct subject *subject, enum riscv64_privilege privilege, bool trapping,
                 bool single, enum engine_tier tier);
void subject_close(struct subject *subject);
/* Of tier ENGINE_OPTIMISED: `kicker` stops runs every now and then, so that what was seen is
 * compiled and used by the rest of the run. False with a message on standard error. */
bool subject_optimise(struct subject *subject, struct kicker *kicker);
/* Returns the number of instructions executed, entry and exit code and the handler included. */
uint64_t subject_run(struct subject *subject, const struct stream_request *request,
                     struct stream_result *result);
/* Traps of the last run. */
uint64_t subject_traps(const struct subject *subject);
uint8_t *subject_ram(const struct subject *subject); /* STREAM_SIZE bytes at STREAM_BASE */

#endif
