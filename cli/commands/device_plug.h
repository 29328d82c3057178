/*
 * `vmctl device attach` and `detach`: vmmd's part, and the guest's, which must look for a new
 * device and let go of an old one. Its agent is told; without one, the person is.
 */
#ifndef POLYVISOR_CLI_COMMANDS_DEVICE_PLUG_H
#define POLYVISOR_CLI_COMMANDS_DEVICE_PLUG_H

#include "cli/command.h"
#include "cli/machine_options.h"

struct device_settings {
    struct disk_settings disks;
    struct net_settings nets;
    char *vsock; /* checked, owned; NULL: none */
    bool force;
    uint32_t wait_ms; /* for the guest */
};

/* As in struct command: `run`. */
int device_attach(const struct invocation *invocation, struct error *err);
int device_detach(const struct invocation *invocation, struct error *err);

#endif
