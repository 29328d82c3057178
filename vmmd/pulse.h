/*
 * What the kernel knows of a process that does not answer: whether somebody stopped it, whether it
 * waits in the kernel, whether it lacked a processor. So that a process is not taken for one that
 * hangs because its host is overloaded.
 *
 * Looked at are the threads that answer: the first one, and those that bear its name (nanomsg's).
 */
#ifndef POLYVISOR_VMMD_PULSE_H
#define POLYVISOR_VMMD_PULSE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pulse {
    bool known;         /* the process was there, and the kernel told */
    char state;         /* of the first thread, proc(5): 'R', 'S', 'D', 'T' stopped, 't' traced */
    bool wants;         /* a thread wants to run, or runs */
    uint64_t ran_ns;    /* of all that answer, since they began */
    uint64_t waited_ns; /* likewise: for a processor, as far as they have got one since */
};

/* Take the pulse of a process. Reads a few files of /proc. */
struct pulse pulse_take(pid_t pid);
/* Somebody stopped it (SIGSTOP), or debugs it. */
bool pulse_stopped(const struct pulse *pulse);
/* Between `before` and `now`, `elapsed_ns` apart, it lacked a processor for a considerable part of
 * the time: no answer says nothing. False when that cannot be known. */
bool pulse_starved(const struct pulse *before, const struct pulse *now, uint64_t elapsed_ns);

/* Say in the log what each of its threads does, before a process that hangs is ended. */
void pulse_log(pid_t pid, const char *role);

#endif
