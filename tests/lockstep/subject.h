/*
 * Our side of the differential test: one bare machine a way of running, on which streams run just
 * as under the emulator.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_SUBJECT_H
#define POLYVISOR_TESTS_LOCKSTEP_SUBJECT_H

#include "tests/lockstep/bare_machine.h"
#include "tests/lockstep/stream.h"

struct subject {
    enum riscv64_privilege privilege; /* in which the stream runs */
    struct bare_machine *machine;
};

/* `single`: blocks of one instruction. 0, or -1 with a message on standard error. */
int subject_open(struct subject *subject, enum riscv64_privilege privilege, bool single,
                 enum engine_tier tier);
void subject_close(struct subject *subject);
/* Returns the number of instructions that the stream itself took, entry and exit code not counted.
 */
uint64_t subject_run(struct subject *subject, const struct stream_request *request,
                     struct stream_result *result);

#endif
