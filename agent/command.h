/* Starting a command: a program of the guest, or one of the few things the agent does itself. */
#ifndef POLYVISOR_AGENT_COMMAND_H
#define POLYVISOR_AGENT_COMMAND_H

#include "agent/agent.h"
#include "libshared/agent/protocol.h"
#include <stddef.h>
#include <sys/types.h>

struct command {
    struct agent_start start;
    char **arguments, **variables; /* NULL at their ends; into `words` */
    const char *folder;
    char *words;
};

/* Read a START frame. 0 or an errno; on success command_release. */
int command_parse(struct command *command, const uint8_t *frame, size_t length);
void command_release(struct command *command);
/* Start it as the leader of a session of its own. Descriptors do not block; with a terminal
 * output[1] is -1. 0 or an errno: also when the program cannot be run. */
int command_start(const struct command *command, const struct agent *agent, pid_t *child,
                  int *input, int output[AGENT_STREAMS]);

/* builtin.c: do it, reading standard input and writing standard output; the exit status. */
int builtin_run(char *const *arguments, const struct agent *agent);

#endif
