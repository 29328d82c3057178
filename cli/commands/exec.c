/* vmctl exec: run a command in a guest, with our standard streams. */
#include "cli/guest_session.h"
#include "cli/guest_vsock.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* As other programs that run programs have it: 126 and 127 are the shell's. */
#define EXIT_OURS 125

struct exec_settings {
    bool terminal, no_input;
    char *vsock;
    const char *folder;
    uint32_t wait_ms;
};

static const struct option_spec options[] = {
    {.name = "tty",
     .letter = 't',
     .type = &option_flag,
     .summary = "give the command a terminal: for shells and full-screen programs",
     .offset = offsetof(struct exec_settings, terminal)},
    {.name = "no-input",
     .letter = 'n',
     .type = &option_flag,
     .summary = "do not read standard input",
     .offset = offsetof(struct exec_settings, no_input)},
    {.name = "folder",
     .type = &option_text,
     .argument = "PATH",
     .summary = "the folder of the guest in which it starts",
     .offset = offsetof(struct exec_settings, folder)},
    {.name = "wait",
     .type = &option_duration,
     .argument = "DURATION",
     .default_value = "0",
     .summary = "how long to wait for a guest whose agent is not up yet",
     .offset = offsetof(struct exec_settings, wait_ms)},
    {.name = "vsock",
     .type = &option_file,
     .argument = "FILE",
     .summary = "the machine's vsock, instead of asking vmmd; NAME may then be anything",
     .offset = offsetof(struct exec_settings, vsock)},
    {.name = NULL},
};

static int exec_in_guest(const struct invocation *invocation, const struct signals *signals,
                         int *exit_status, struct error *err)
{
    const struct exec_settings *settings = invocation->settings;
    const char *term = getenv("TERM");
    char variable[128], path[PATH_MAX];
    const char *const variables[] = {variable, NULL};
    struct terminal terminal;
    struct guest_outcome outcome;
    struct guest_command command = {
        .flags = settings->terminal ? AGENT_START_TERMINAL : 0,
        .arguments = invocation->positionals + 1,
        .variables = settings->terminal ? variables : NULL,
        .folder = settings->folder,
        .input = settings->no_input ? -1 : STDIN_FILENO,
        .terminal = &terminal,
        .output = {STDOUT_FILENO, STDERR_FILENO},
        .wait_ms = settings->wait_ms,
        .signals = signals,
    };

    snprintf(variable, sizeof(variable), "TERM=%.100s", term ? term : "dumb");
    terminal_open(&terminal, STDIN_FILENO);
    int status = guest_vsock_path(invocation, invocation->positionals[0], settings->vsock, path,
                                  sizeof(path), err);
    if (status == 0) {
        status = guest_session_run(path, &command, &outcome, err);
    }
    if (status == 0) {
        *exit_status = guest_exit_status(&outcome, command.arguments[0], err);
    }
    return status;
}

static int run(const struct invocation *invocation, struct error *err)
{
    struct signals signals;
    int exit_status = EXIT_OURS;

    error_clear(err);
    int status = signals_open(&signals, err);
    if (status == 0) {
        exec_in_guest(invocation, &signals, &exit_status, err);
        signals_close(&signals);
    }
    if (err->code) {
        output_error(err, invocation->globals->json);
    }
    return exit_status;
}

const struct command command_exec = {
    .name = "exec",
    .summary = "run a command in the guest",
    .usage = "[OPTION...] NAME -- COMMAND [ARGUMENT...]",
    .description =
        "The command gets our standard input, and its standard output and error are ours. vmctl "
        "ends with its exit status; 128 and the signal's number when a signal ended it; 127 when "
        "there is no such command, 126 when it cannot be run, 125 when vmctl failed.\n"
        "SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on; three of them within three seconds "
        "leave the command to itself. No shell looks at the words: give one "
        "for pipes and variables. The guest must run polyvisor-agent, and the machine must have a "
        "vsock. The command survives the death of the vsock's process.\n",
    .options = options,
    .settings_size = sizeof(struct exec_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 2,
    .positionals_max = UINT_MAX,
    .examples = {{"vmctl exec build1 -- uname -a", "Ask build1 what it is"},
                 {"vmctl exec -t build1 -- bash", "A shell in the guest"},
                 {"vmctl exec build1 -- sh -c 'cd /work && make' >log 2>&1",
                  "Build there, keep the output here"}},
    .run = run,
};
