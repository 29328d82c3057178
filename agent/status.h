/* What the agent tells of itself and its guest: `vmctl agent`. */
#ifndef POLYVISOR_AGENT_STATUS_H
#define POLYVISOR_AGENT_STATUS_H

#include "agent/agent.h"

/* Print it, a word and its value a line (libshared/agent/protocol.h). The exit status. */
int status_print(const struct agent *agent);

#endif
