/*
 * The other side of the differential test: the runner program under the distribution's user-mode
 * emulator, a child process fed through pipes. One thread uses it.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_REFERENCE_H
#define POLYVISOR_TESTS_LOCKSTEP_REFERENCE_H

#include "tests/lockstep/stream.h"
#include <stdbool.h>
#include <sys/types.h>

struct reference {
    pid_t pid;
    int to, from; /* our ends of its standard input and output */
};

/* Start `emulator` (found on PATH) with `runner`. 0 or negative errno. */
int reference_start(struct reference *reference, const char *emulator, const char *runner);
/* Hand over a stream; it runs while the caller does other things. False: the child is gone. */
bool reference_submit(struct reference *reference, const struct stream_request *request);
bool reference_result(struct reference *reference, struct stream_result *result);
/* Ends the child; its exit status as from waitpid. */
int reference_stop(struct reference *reference);

#endif
