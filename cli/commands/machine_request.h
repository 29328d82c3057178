/* What commands about one machine by name have in common. */
#ifndef POLYVISOR_CLI_COMMANDS_MACHINE_REQUEST_H
#define POLYVISOR_CLI_COMMANDS_MACHINE_REQUEST_H

#include "cli/client.h"

/* The machine's name on the command line, as the messages want it (never written through). */
char *machine_argument(const struct invocation *invocation);

/* Ask vmmd to do something to a machine and say that it is `done` ("started"): as a status line,
 * or with --json as an object with the machine's name and state. Returns as command.run does. */
int machine_request(const struct invocation *invocation, Polyvisor__Request *request,
                    uint32_t extra_ms, const char *done, struct error *err);

#endif
