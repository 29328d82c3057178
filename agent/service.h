/*
 * The agent's connections and commands: who is connected over the vsock, which command is whose,
 * and one turn of the loop over all of them. One thread.
 */
#ifndef POLYVISOR_AGENT_SERVICE_H
#define POLYVISOR_AGENT_SERVICE_H

#include "agent/agent.h"
#include <time.h>

struct service;

/* With a listening socket and a signalfd that hears of SIGCHLD; both do not block, and like `agent`
 * they stay the caller's. NULL when memory is short. */
struct service *service_new(int listener, int signals, const struct agent *agent);
/* Ends all connections and commands. */
void service_free(struct service *service);

/* Wait for at most `wait_ms` milliseconds and do what is to be done; end commands whose client is
 * away for more than `patience` seconds. 0 or an errno. */
int service_turn(struct service *service, time_t patience, int wait_ms);

#endif
