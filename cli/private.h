/*
 * A vmmd of our own, for `vmctl run`: a child that ends, with everything it started, when the pipe
 * between us closes, however vmctl ends.
 */
#ifndef POLYVISOR_CLI_PRIVATE_H
#define POLYVISOR_CLI_PRIVATE_H

#include "cli/client.h"
#include <sys/types.h>

struct private_vmmd {
    char directory[RUNTIME_PATH_MAX]; /* its runtime directory; "" = none was made */
    pid_t pid;                        /* 0 = not running */
    int pidfd;                        /* readable once it has ended; -1 = none */
    int leash;                        /* closing it ends vmmd; -1 = none */
};

/* Start one in its own directory below `base` and connect to it. Gives up when `interrupt_fd` gets
 * readable (-ERROR_CANCELLED). 0 or a negative code with *err set; in every case the caller calls
 * private_stop. */
int private_start(struct private_vmmd *vmmd, struct client *client, const char *base,
                  uint32_t timeout_ms, int interrupt_fd, struct error *err);

/* End it and wait until it has ended, by force after some seconds; remove its directory. A vmmd
 * that died by itself has left its processes: another one is started in its place, to clean up. */
void private_stop(struct private_vmmd *vmmd);

#endif
