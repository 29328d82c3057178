/* vmctl console: attach this terminal to a machine's console, and detach again. */
#include "libshared/ipc/console.h"
#include "cli/attachment.h"
#include "cli/commands/machine_request.h"
#include "cli/machine_view.h"
#include "cli/output.h"
#include "cli/signals.h"

#include <string.h>

struct console_settings {
    bool no_backlog;
    bool read_only;
    const char *device;
    const char *port;
};

static const struct option_spec options[] = {
    {.name = "no-backlog",
     .type = &option_flag,
     .summary = "do not show first what was printed before",
     .offset = offsetof(struct console_settings, no_backlog)},
    {.name = "read-only",
     .type = &option_flag,
     .summary = "watch only: nothing typed reaches the guest",
     .offset = offsetof(struct console_settings, read_only)},
    {.name = "device",
     .type = &option_name,
     .argument = "ID",
     .summary = "the device whose console it is (default: serial0)",
     .offset = offsetof(struct console_settings, device)},
    {.name = "port",
     .type = &option_text,
     .argument = "NAME",
     .summary = "a port of the virtio console, as --console-port named it",
     .offset = offsetof(struct console_settings, port)},
    {.name = NULL},
};

static const char *port_path(const Polyvisor__MachineInfo *machine, const char *port)
{
    for (size_t i = 0; i < machine->n_devices; i++) {
        for (size_t j = 0; j < machine->devices[i]->n_ports; j++) {
            const Polyvisor__PortInfo *info = machine->devices[i]->ports[j];
            if (strcmp(info->name, port) == 0) {
                return info->console_path;
            }
        }
    }
    return NULL;
}

/* The path of the console that was asked for, or NULL. */
static const char *console_path(const Polyvisor__MachineInfo *machine,
                                const struct console_settings *settings)
{
    const char *device = settings->device;

    if (settings->port != NULL) {
        return port_path(machine, settings->port);
    }
    if (device == NULL) {
        return machine->console_path[0] != '\0' ? machine->console_path : NULL;
    }
    for (size_t i = 0; i < machine->n_devices; i++) {
        const Polyvisor__DeviceInfo *info = machine->devices[i];
        if (strcmp(info->id, device) == 0 && info->console_path[0] != '\0') {
            return info->console_path;
        }
    }
    return NULL;
}

/* Ask where the console is and connect to it. */
static int attach(const struct invocation *invocation, struct attachment *attachment,
                  struct error *err)
{
    const struct console_settings *settings = invocation->settings;
    uint32_t flags = (settings->no_backlog ? CONSOLE_SKIP_BACKLOG : 0u) |
                     (settings->read_only ? CONSOLE_READ_ONLY : 0u);
    const char *name = machine_argument(invocation);
    const Polyvisor__MachineInfo *machine;
    Polyvisor__Response *response;
    int status = client_ask_machine(invocation, name, &response, &machine, err);

    if (status != 0) {
        return status;
    }
    if (machine->n_devices == 0) {
        error_set(err, ERROR_STATE, 0, "machine '%s' does not run (%s)", name,
                  machine_state_text(machine->state));
        error_hint(err, "start it with 'vmctl start %s'", name);
        status = -ERROR_STATE;
    } else if (console_path(machine, settings) == NULL) {
        error_set(err, ERROR_NOT_FOUND, 0, "machine '%s' has no %s '%s'", name,
                  settings->port != NULL ? "console port" : "console",
                  settings->port != NULL     ? settings->port
                  : settings->device != NULL ? settings->device
                                             : "serial0");
        error_hint(err,
                   settings->port != NULL ? "'vmctl show %s' names its ports"
                                          : "'vmctl device list %s' shows its devices",
                   name);
        status = -ERROR_NOT_FOUND;
    } else {
        status = attachment_connect(attachment, console_path(machine, settings), flags, err);
    }
    client_free(response);
    return status;
}

/* Copy until one side has had enough. Returns as command.run does. */
static int copy(const struct invocation *invocation, struct attachment *attachment,
                const struct signals *signals, struct error *err)
{
    while (!attachment_drained(attachment)) {
        struct pollfd watched[] = {{.fd = signals->fd, .events = POLLIN}};

        attachment_poll(attachment, watched, 1, -1);
        int signal = watched[0].revents != 0 ? signals_take(signals) : 0;
        if (signals_end(signal)) {
            return 128 + signal;
        }
        if (signal == SIGWINCH || signal == SIGCONT) {
            attachment_tell_size(attachment);
        }
        if (signal == SIGTSTP) {
            terminal_restore(&attachment->terminal);
            signals_suspend();
        }
        if (signal == SIGTSTP || signal == SIGCONT) {
            terminal_make_raw(&attachment->terminal);
        }
        if (attachment->action == ESCAPE_DETACH) {
            terminal_restore(&attachment->terminal);
            output_status(invocation->globals, "detached; %s goes on", invocation->positionals[0]);
            return 0;
        }
    }
    terminal_restore(&attachment->terminal);
    if (attachment->output < 0) {
        return error_set(err, ERROR_IO, attachment->output_error,
                         "cannot write to standard output: %s", strerror(attachment->output_error));
    }
    output_status(invocation->globals, "the console of %s was closed", invocation->positionals[0]);
    return 0;
}

static int run(const struct invocation *invocation, struct error *err)
{
    const struct console_settings *settings = invocation->settings;
    struct attachment attachment;
    struct signals signals;

    attachment_open(&attachment, true, settings->read_only);
    int status = attach(invocation, &attachment, err);
    if (status == 0) {
        status = signals_open(&signals, err);
    }
    if (status == 0) {
        output_status(invocation->globals, "attached to %s; Ctrl-] detaches",
                      invocation->positionals[0]);
        signals_add(&signals, SIGWINCH);
        attachment_tell_size(&attachment);
        terminal_make_raw(&attachment.terminal);
        status = copy(invocation, &attachment, &signals, err);
        attachment_close(&attachment);
        signals_close(&signals);
    }
    attachment_close(&attachment);
    return status;
}

const struct command command_console = {
    .name = "console",
    .summary = "attach to a machine's console",
    .usage = "[OPTION...] NAME",
    .description =
        "Connects this terminal to the console of a running machine. What was printed before (up "
        "to "
        "1 MiB) comes first. Ctrl-] detaches; the machine goes on.\n"
        "When standard input is not a terminal it is sent to the guest, and its end does not "
        "detach: the command ends with the machine, or when it is interrupted.\n"
        "A virtio console (--device console0, or a port that is a terminal) tells the guest how "
        "large "
        "this terminal is, and when that changes; a serial port cannot: 'stty rows R cols C' "
        "there.\n"
        "With --port it is a port that --console-port added. One that is no terminal carries data: "
        "the guest sees whether somebody is attached, waits for a reader that is slow, and nothing "
        "comes twice.\n",
    .options = options,
    .settings_size = sizeof(struct console_settings),
    .positional = POSITIONAL_MACHINE,
    .positionals_min = 1,
    .positionals_max = 1,
    .examples = {{"vmctl console build1", "Attach to build1"},
                 {"vmctl console --device console0 build1", "The virtio console instead"},
                 {"vmctl console --port log build1 >log", "The bytes of port 'log', as they come"},
                 {"vmctl console --read-only build1 </dev/null >log", "Record what it prints"}},
    .run = run,
};
