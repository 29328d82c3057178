/*
 * The supervisor: all machines, the sockets that clients use, and the loop that drives them. One
 * thread, one libevent loop; nothing in it waits.
 */
#ifndef POLYVISOR_VMMD_SUPERVISOR_H
#define POLYVISOR_VMMD_SUPERVISOR_H

#include "libshared/base/error.h"
#include "vmmd/machine.h"
#include <stdbool.h>

#define SUPERVISOR_MACHINES_MAX 256

struct supervisor_options {
    const char *directory; /* runtime directory, whose lock main holds */
    const char *programs;  /* folder of vcpud, devd and jitd */
    int leash_fd;          /* private: its end of file means that the client is gone; -1 = none */
    bool load;             /* bring back the machines that an earlier vmmd knew */
    unsigned spare_s;      /* how long a device runs until it has a spare; 0 = until it died once */
};

struct supervisor;

/* Bind the sockets, load machines, watch SIGTERM and SIGINT. NULL with *err set. The options'
 * strings must outlive it. */
struct supervisor *supervisor_open(const struct supervisor_options *options, struct error *err);
/* Serve until told to end (a request, a signal, the leash) and every machine has ended. */
void supervisor_run(struct supervisor *supervisor);
/* Close everything; machines stay on disk. */
void supervisor_close(struct supervisor *supervisor);

/* For control.c. */
const char *supervisor_directory(const struct supervisor *supervisor);
struct control_socket *supervisor_control(const struct supervisor *supervisor);
struct machine *supervisor_find(struct supervisor *supervisor, const char *name);
struct machine *supervisor_first(struct supervisor *supervisor); /* in order of names */
size_t supervisor_count(const struct supervisor *supervisor);
/* Takes over `config` on success. */
struct machine *supervisor_create(struct supervisor *supervisor, Polyvisor__MachineConfig *config,
                                  struct error *err);
int supervisor_remove(struct supervisor *supervisor, struct machine *machine, struct error *err);
int supervisor_start(struct supervisor *supervisor, struct machine *machine, bool hold,
                     struct error *err);
/* Stop all machines, then leave the loop. */
void supervisor_end(struct supervisor *supervisor, const char *why);

#endif
