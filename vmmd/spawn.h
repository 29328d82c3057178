/*
 * Start the processes of a machine: fork and exec with exactly the descriptors they are meant to
 * have, in a session of their own, so that a terminal's ^C reaches only vmmd.
 *
 * New processes wait at a gate until vmmd has written down who they are. When vmmd is
 * killed before, they see the gate's end close and leave: no process is ever unrecorded.
 */
#ifndef POLYVISOR_VMMD_SPAWN_H
#define POLYVISOR_VMMD_SPAWN_H

#include "libshared/ipc/fdlist.h"
#include <sys/types.h>

struct spawn_gate {
    int read_fd, write_fd;
    unsigned waiting;
};

/* 0 or negative errno. */
int spawn_gate_open(struct spawn_gate *gate);
/* Let the waiting processes run their programs. */
void spawn_gate_release(struct spawn_gate *gate);
/* Those that were not released exit. */
void spawn_gate_close(struct spawn_gate *gate);

/* Fork a process that will run `program` (a path) with `argv` and the descriptors of `list`. 0 with
 * *pid and *pidfd (the caller's, close-on-exec) set, or negative errno. The program runs when the
 * gate is released; it exits with status 127 when it cannot be run. */
int spawn_process(struct spawn_gate *gate, const char *program, char *const argv[],
                  const struct fdlist *list, pid_t *pid, int *pidfd);

/* The same of a program that binds a socket: with "bound" (libshared/ipc/fdlist.h) added to `list`,
 * and *bound_fd, the caller's, to read that from. */
int spawn_process_bound(struct spawn_gate *gate, const char *program, char *const argv[],
                        struct fdlist *list, pid_t *pid, int *pidfd, int *bound_fd);

/* Mark every open descriptor from `first` on close-on-exec. For main, before anything is
 * opened: what vmmd was started with must not reach its children. */
void spawn_protect_descriptors(int first);

#endif
