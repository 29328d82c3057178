/* vmctl device limit: a part of the device command in a file of its own. */
#ifndef POLYVISOR_CLI_COMMANDS_DEVICE_LIMIT_H
#define POLYVISOR_CLI_COMMANDS_DEVICE_LIMIT_H

#include "cli/command.h"

/* Positionals: "limit", machine, device, words. Without words the present limits are shown. */
int device_limit_run(const struct invocation *invocation, struct error *err);

#endif
