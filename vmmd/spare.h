/*
 * A process that stands ready to take the place of a device's: it has its program, its libraries
 * and its confinement, has bound its control socket, and waits for a byte. A device gets one
 * once it has died, because what died once may die again: nobody who never needs one pays for it.
 *
 * A spare belongs to one device and has inherited the device's descriptors; it knows nothing of the
 * guest. When vmmd ends, so does the pipe that it reads, and it leaves. It is written down all the
 * same, because writing may take long when the host's disk is busy: not while a guest waits.
 */
#ifndef POLYVISOR_VMMD_SPARE_H
#define POLYVISOR_VMMD_SPARE_H

#include "libshared/ipc/fdlist.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The name under which it inherits the pipe. */
#define SPARE_DESCRIPTOR "standby"

struct spare {
    pid_t pid; /* 0: there is none */
    int pidfd;
    int pipe_fd;         /* ours to write */
    uint64_t start_time; /* of process_start_time */
    bool recorded;       /* written down, so that a later vmmd would end it */
};

/* Hold what `pid`, our child, sees of the file system: a descriptor, or -1 when the kernel does not
 * let us. A process that is the last one in its mount namespace takes it down before its end can be
 * seen, and waits for every processor several times meanwhile, milliseconds on a busy host. */
int spare_hold_namespace(pid_t pid);

/* Start one; `list` is what the device's process inherits. `legacy_fd` (of spare_hold_namespace, or
 * -1) becomes the spare's: it lets go of it, since that takes time, when it begins its program. 0
 * or negative errno. */
int spare_start(struct spare *spare, const char *program, char *const argv[],
                const struct fdlist *list, int legacy_fd);
/* The spare, which is nobody's now, in *pid and *pidfd, and in *pipe_fd what it waits for: see
 * spare_release. False when there is none that is fit. */
bool spare_take(struct spare *spare, pid_t *pid, int *pidfd, int *pipe_fd);
/* Let one that was taken go on. Closes the pipe. */
void spare_release(int pipe_fd);
/* End it, if there is one. */
void spare_discard(struct spare *spare);

#endif
