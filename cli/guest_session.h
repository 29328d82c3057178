/*
 * A command in a guest, through the guest's agent (libshared/agent/protocol.h): its streams are
 * joined with descriptors of ours. When the connection ends, it is made again, and the command's
 * streams go on where they were: neither the vsock's device nor the network of processes between
 * need live through it.
 */
#ifndef POLYVISOR_CLI_GUEST_SESSION_H
#define POLYVISOR_CLI_GUEST_SESSION_H

#include "cli/command.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "libshared/agent/protocol.h"

struct guest_command {
    uint32_t flags;                /* enum agent_start_flags */
    const char *const *arguments;  /* NULL at the end */
    const char *const *variables;  /* NAME=VALUE, NULL at the end; or NULL */
    const char *folder;            /* where it starts; NULL: the agent's own */
    int input;                     /* -1: none, its input is at an end */
    struct terminal *terminal;     /* what `input` is, or NULL; raw for AGENT_START_TERMINAL */
    int output[AGENT_STREAMS];     /* -1: thrown away */
    bool printable[AGENT_STREAMS]; /* control characters of it become '?': what somebody sees who
                                    * did not ask for a program's output */
    uint32_t wait_ms;              /* for an agent that is not there yet */
    uint32_t limit_ms;             /* for all of it: then it is left to itself; 0: none */
    /* Sent to the command; three within three seconds leave it to itself. NULL: left alone. */
    const struct signals *signals;
    /* Asked several times a second: is the machine gone, so that waiting is for nothing? Or NULL.
     */
    bool (*gone)(void *context);
    void *gone_context;
    /* Asked after each write of standard output, with how many bytes that makes: is there to be
     * more? 0, or a negative code with *err set, which ends the command. Or NULL. */
    int (*taken)(void *context, uint64_t written, struct error *err);
    void *taken_context;
};

/* What became of it. */
struct guest_outcome {
    bool answered; /* an agent was there; set as soon as it is so */
    bool by_signal;
    uint32_t status; /* exit status, or the signal's number */
    int cause;       /* errno in the guest when it could not be started, or 0 */
};

/* Run it to its end. 0 with *outcome, also when the guest could not start it; or a negative code
 * with *err set. */
int guest_session_run(const char *path, const struct guest_command *command,
                      struct guest_outcome *outcome, struct error *err);
/* Ask the agent to have its guest power off; true when it has taken it on. It may be gone before it
 * says so, as its guest shuts down. `gone` ends the waiting: asked several times a second, with
 * outcome->answered set as soon as an agent is there. */
bool guest_power_off(const char *path, bool (*gone)(void *context), void *context,
                     struct guest_outcome *outcome);
/* The exit status that vmctl gives for it, as a shell would; *err is set when it did not start. */
int guest_exit_status(const struct guest_outcome *outcome, const char *what, struct error *err);

#endif
