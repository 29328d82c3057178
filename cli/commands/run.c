/*
 * vmctl run: boot a machine in a vmmd of its own, with its console on our standard streams, and
 * stay until it has ended.
 *
 * The order matters: the machine is started as far as READY, then the console is attached, then
 * the guest runs, so that not a byte of its output is lost. From then on one loop watches
 * everything: the console, the terminal, signals, vmmd's answer to "has it ended?", and vmmd
 * itself.
 */
#include "cli/commands/run.h"
#include "cli/machine_view.h"
#include "cli/output.h"
#include "libshared/base/clock.h"
#include "libshared/ipc/error_message.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct option_spec options[] = {
    {.name = "name",
     .type = &option_name,
     .argument = "NAME",
     .summary = "what the machine is called (default: run-PID)",
     .offset = offsetof(struct run_settings, machine.name)},
    MACHINE_IMAGE_OPTIONS(struct run_settings, image),
    {.name = "persistent",
     .type = &option_flag,
     .summary = "keep what the machine writes to its image; without it the image is only read, "
                "and what is written goes when the machine ends",
     .offset = offsetof(struct run_settings, image.persistent)},
    {.name = "tty",
     .letter = 't',
     .type = &option_flag,
     .summary = "give the command a terminal",
     .offset = offsetof(struct run_settings, terminal)},
    {.name = "no-input",
     .letter = 'n',
     .type = &option_flag,
     .summary = "the command does not read standard input",
     .offset = offsetof(struct run_settings, no_input)},
    {.name = "wait",
     .type = &option_duration,
     .argument = "DURATION",
     .default_value = "10m",
     .summary = "how long the command waits for the guest's agent before it is given up",
     .offset = offsetof(struct run_settings, wait_ms)},
    MACHINE_OPTIONS,
    {.name = NULL},
};

#define EXIT_OURS       125   /* of a command that vmctl could not run, as vmctl exec has it */
#define WAIT_SLICE_MS   10000 /* one question "has it ended?"; answered earlier if it has */
#define DRAIN_LIMIT_MS  3000  /* silence after which an ended machine's console is given up */
#define ATTACH_RETRY_MS 250   /* for a console that closed while the machine goes on */
#define ABSENT_TELL_MS  2000  /* a console that is away so long is told of */

/* ---- Requests ---- */

static int ask_start(struct run *run, bool hold, struct error *err)
{
    Polyvisor__StartRequest start = POLYVISOR__START_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    start.name = run->name;
    start.hold = hold;
    request.body_case = POLYVISOR__REQUEST__BODY_START;
    request.start = &start;
    return client_call(&run->control, &request, client_processes_ms(0), NULL, err);
}

static int ask_create(struct run *run, struct error *err)
{
    struct machine_config_message message;
    Polyvisor__CreateRequest create = POLYVISOR__CREATE_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    machine_config_build(&run->settings->machine, run->name, &message);
    create.config = &message.config;
    request.body_case = POLYVISOR__REQUEST__BODY_CREATE;
    request.create = &create;
    return client_call(&run->control, &request, 0, NULL, err);
}

static int ask_console(struct run *run, struct error *err)
{
    Polyvisor__ShowRequest show = POLYVISOR__SHOW_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response *response = NULL;

    show.name = run->name;
    request.body_case = POLYVISOR__REQUEST__BODY_SHOW;
    request.show = &show;
    int status = client_call(&run->control, &request, 0, &response, err);
    if (status != 0) {
        return status;
    }
    const Polyvisor__MachineInfo *machine = client_machine(response, err);
    status = machine != NULL ? 0 : -ERROR_PROTOCOL;
    if (status == 0) {
        snprintf(run->console_path, sizeof(run->console_path), "%s", machine->console_path);
    }
    client_free(response);
    return status;
}

static int ask_wait(struct run *run, struct error *err)
{
    Polyvisor__WaitRequest wait = POLYVISOR__WAIT_REQUEST__INIT;
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;

    wait.name = run->name;
    wait.timeout_ms = WAIT_SLICE_MS;
    request.body_case = POLYVISOR__REQUEST__BODY_WAIT;
    request.wait = &wait;
    return client_send(&run->watcher, &request, WAIT_SLICE_MS + run->watcher.timeout_ms, err);
}

/* ---- The parts of the loop ---- */

static void show_keys(const struct run *run)
{
    static const char *const lines[] = {
        "Ctrl-] x or Ctrl-] Ctrl-]  ask the guest to power off, then end it; again: end it now",
        "Ctrl-] k                   end the machine now",
        "Ctrl-] l                   send Ctrl-] to the guest",
        "Ctrl-] ?                   this help",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        output_status(run->invocation->globals, "%s", lines[i]);
    }
}

static int follow_turn(struct run *run, int wait_ms, struct error *err);

/* While a guest is asked to power off, its console goes on, and so do these keys. */
static int handle_action(struct run *run, struct error *err)
{
    enum escape_action action = run->attachment.action;
    const struct globals *globals = run->invocation->globals;

    run->attachment.action = ESCAPE_NONE;
    if (action == ESCAPE_HELP) {
        show_keys(run);
    } else if (action == ESCAPE_QUIT || action == ESCAPE_KILL) {
        bool by_force = action == ESCAPE_KILL || run->stop_asked;

        run->user_quit = true;
        output_status(globals,
                      by_force ? "ending %s"
                               : "asking %s to power off; Ctrl-] x again "
                                 "ends it now",
                      run->name);
        if (!by_force) {
            return run_power_off(run, follow_turn, err);
        }
        run_end_by_force(run);
    }
    return 0;
}

static void handle_signal(struct run *run)
{
    int signal = signals_take(&run->signals);

    if (signals_end(signal) && run->signal == 0) {
        run->signal = signal;
        run_end_by_force(run);
    } else if (signal == SIGTSTP) {
        terminal_restore(&run->attachment.terminal);
        signals_suspend();
        terminal_make_raw(&run->attachment.terminal);
    } else if (signal == SIGCONT) {
        terminal_make_raw(&run->attachment.terminal);
    }
}

/* Note how the machine ended, once it has. */
static void note_end(struct run *run, const Polyvisor__MachineInfo *machine)
{
    run->ended = machine_state_ended(machine->state);
    run->guest_code = machine->guest_code;
    snprintf(run->guest_panic, sizeof(run->guest_panic), "%s", machine->guest_panic);
    snprintf(run->end_reason, sizeof(run->end_reason), "%s", machine->end_reason);
    error_from_message(&run->last_error, machine->last_error);
    if (run->ended && machine->state == POLYVISOR__MACHINE_STATE__MACHINE_CRASHED) {
        snprintf(run->end_reason, sizeof(run->end_reason), "crashed");
    }
}

int run_handle_watcher(struct run *run, struct error *err)
{
    Polyvisor__Response *response = NULL;
    int status = client_receive(&run->watcher, 0, &response, err);

    if (status == 0 && response == NULL) {
        return 0;
    }
    if (status == -ERROR_CONNECT) {
        error_set(err, ERROR_CRASHED, 0, "vmmd died, and the machine with it");
        error_hint(err, "its messages on standard error may say why");
        return -ERROR_CRASHED;
    }
    if (status != 0) {
        return status;
    }
    const Polyvisor__MachineInfo *machine = client_machine(response, err);
    status = machine != NULL ? 0 : -ERROR_PROTOCOL;
    if (status == 0) {
        note_end(run, machine);
    }
    client_free(response);
    return status == 0 && !run->ended ? ask_wait(run, err) : status;
}

/* The console's process may be dead, or given up: the attachment goes on by itself when there is
 * another; the user hears of it when that takes long. */
static void watch_console(struct run *run)
{
    const struct globals *globals = run->invocation->globals;
    uint64_t now = clock_monotonic_ns();

    if (run->attachment.refused) {
        attachment_reconnect(&run->attachment);
    }
    if (run->attachment.lost > run->told_lost) {
        run->told_lost = run->attachment.lost;
        output_warning(globals, "%llu bytes that %s printed are lost",
                       (unsigned long long)run->told_lost, run->name);
    }
    if (attachment_served(&run->attachment)) {
        if (run->told_absent) {
            output_warning(globals, "the console of %s is back", run->name);
        }
        run->absent_ns = 0;
        run->told_absent = false;
    } else if (run->absent_ns == 0) {
        run->absent_ns = now;
    } else if (!run->told_absent && now - run->absent_ns >= ABSENT_TELL_MS * NS_PER_MS) {
        output_warning(globals, "the console of %s is gone; the machine goes on", run->name);
        run->told_absent = true;
    }
}

/* Wait for something to happen, and see to it. 0, or a negative code. */
static int follow_turn(struct run *run, int wait_ms, struct error *err)
{
    int descriptors[2];
    int status = 0;

    client_descriptors(&run->watcher, descriptors);
    struct pollfd watched[] = {
        {.fd = run->signals.fd, .events = POLLIN},
        {.fd = descriptors[0], .events = POLLIN},
        {.fd = descriptors[1], .events = POLLIN},
    };
    attachment_poll(&run->attachment, watched, 3, wait_ms);
    if (watched[0].revents != 0) {
        handle_signal(run);
    }
    if (watched[1].revents != 0 || watched[2].revents != 0) {
        status = run_handle_watcher(run, err);
    }
    if (status == 0 && run->attachment.action != ESCAPE_NONE) {
        status = handle_action(run, err);
    }
    if (run->attachment.output < 0 && !run->stop_asked) {
        run_end_by_force(run);
    } else if (run->attachment.output >= 0) {
        watch_console(run);
    }
    if (status == 0 && run->give_up_ns != 0 && clock_monotonic_ns() >= run->give_up_ns &&
        !run->ended) {
        return error_set(err, ERROR_TIMEOUT, ETIMEDOUT, "machine '%s' did not end in time",
                         run->name);
    }
    return status;
}

/* Run the guest until it has ended. 0, or a negative code. */
static int follow(struct run *run, struct error *err)
{
    int status = 0;

    while (status == 0 && !run->ended) {
        bool served = attachment_served(&run->attachment);

        status = follow_turn(run, !served || run->give_up_ns != 0 ? ATTACH_RETRY_MS : -1, err);
    }
    return status;
}

/* Copy what the console still holds. It closes when all is delivered; one that neither closes nor
 * says anything is given up. A slow reader of ours is waited for, unless we are told to end. */
static void drain(struct run *run)
{
    uint64_t moved = run->attachment.moved;
    uint64_t deadline_ns = clock_monotonic_ns() + DRAIN_LIMIT_MS * NS_PER_MS;

    while (!attachment_drained(&run->attachment) && run->signal == 0) {
        struct pollfd watched[] = {{.fd = run->signals.fd, .events = POLLIN}};
        bool blocked = run->attachment.to_output_start < run->attachment.to_output_end;

        attachment_poll(&run->attachment, watched, 1, 100);
        if (watched[0].revents != 0) {
            handle_signal(run);
        }
        if (blocked || moved != run->attachment.moved) {
            moved = run->attachment.moved;
            deadline_ns = clock_monotonic_ns() + DRAIN_LIMIT_MS * NS_PER_MS;
        } else if (clock_monotonic_ns() >= deadline_ns) {
            return;
        }
        if (run->attachment.action != ESCAPE_NONE) {
            return;
        }
    }
}

/* ---- From start to end ---- */

/* The console is ours before the guest runs, unless a command has our streams. */
static int attach(struct run *run, struct error *err)
{
    int status = ask_start(run, true, err);

    if (status == 0) {
        status = ask_console(run, err);
    }
    if (status == 0 && run->invocation->positional_count == 0) {
        status = attachment_connect(&run->attachment, run->console_path, CONSOLE_LOSSLESS, err);
    }
    return status;
}

static int boot(struct run *run, struct error *err)
{
    const struct invocation *invocation = run->invocation;
    bool wants_vsock = run->settings->image.image != NULL || invocation->positional_count != 0;
    uint32_t timeout_ms = invocation->globals->timeout_ms;
    int status = private_start(&run->vmmd, &run->control, invocation->runtime_directory, timeout_ms,
                               run->signals.fd, err);

    if (status == 0) {
        status = client_open(&run->watcher, run->vmmd.directory, timeout_ms, run->signals.fd, err);
    }
    if (status == 0 && wants_vsock) {
        status = machine_image_add_vsock(run->vmmd.directory, &run->settings->machine, err);
    }
    if (status == 0) {
        status = ask_create(run, err);
    }
    if (status == 0) {
        status = attach(run, err);
    }
    if (status == 0) {
        status = ask_start(run, false, err);
    }
    if (status == 0) {
        status = ask_wait(run, err);
    }
    /* From here on signals are handled where they arrive, not by giving up a call. */
    run->watcher.interrupt_fd = -1;
    run->control.interrupt_fd = -1;
    return status;
}

int run_error_panic(const struct run *run, struct error *err)
{
    error_set(err, ERROR_GUEST, 0, "the guest's kernel panicked: %s", run->guest_panic);
    error_hint(err, "'--on-panic report' lets the machine go on");
    return -ERROR_GUEST;
}

/* vmctl's exit status from how the machine ended, as command.run returns it. */
static int verdict(const struct run *run, struct error *err)
{
    if (strcmp(run->end_reason, "crashed") == 0) {
        if (run->last_error.code != ERROR_OK) {
            *err = run->last_error;
            err->code = ERROR_CRASHED;
            return -ERROR_CRASHED;
        }
        return error_set(err, ERROR_CRASHED, 0, "a process of machine '%s' died", run->name);
    }
    if (strcmp(run->end_reason, "guest-failure") == 0) {
        return error_set(err, ERROR_GUEST, 0, "the guest reported failure (code %u)",
                         run->guest_code);
    }
    if (strcmp(run->end_reason, "watchdog") == 0) {
        return error_set(err, ERROR_GUEST, 0, "the guest did not feed its watchdog");
    }
    if (strcmp(run->end_reason, "guest-panic") == 0) {
        return run_error_panic(run, err);
    }
    if (strcmp(run->end_reason, "power-off") == 0 || run->user_quit) {
        return 0;
    }
    return error_set(err, ERROR_CANCELLED, 0, "machine '%s' was ended on request (%s)", run->name,
                     run->end_reason);
}

static int finish(struct run *run, int status, struct error *err)
{
    const struct globals *globals = run->invocation->globals;
    bool output_failed = run->attachment.output < 0;

    if (status == 0 && run->signal == 0 && !output_failed) {
        status = verdict(run, err);
    }
    if (run->signal == 0 && output_failed) {
        error_set(err, ERROR_IO, run->attachment.output_error,
                  "cannot write to standard output: %s; the machine was ended",
                  strerror(run->attachment.output_error));
        status = -ERROR_IO;
    }
    if (run->signal != 0) {
        output_status(globals, "%s ended by signal %d", run->name, run->signal);
        return 128 + run->signal;
    }
    if (status == 0) {
        output_status(globals, "%s ended (%s)", run->name, run->end_reason);
    }
    return status;
}

static int run_machine(struct run *run, struct error *err)
{
    const struct globals *globals = run->invocation->globals;
    int status = boot(run, err);

    if (status == -ERROR_CANCELLED) {
        run->signal = signals_take(&run->signals);
    }
    if (status == 0 && run->invocation->positional_count != 0) {
        int exit_status = EXIT_OURS;

        status = run_command(run, &exit_status, err);
        if (status != 0) {
            output_error(err, globals->json);
        }
        return exit_status;
    }
    if (status == 0) {
        if (run->attachment.terminal.present) {
            output_status(globals, "%s runs; Ctrl-] x ends it, Ctrl-] ? shows more", run->name);
        }
        terminal_make_raw(&run->attachment.terminal);
        status = follow(run, err);
        drain(run);
        terminal_restore(&run->attachment.terminal);
    }
    return finish(run, status, err);
}

/* What --image and --cloud-init mean, with files that go when we do. */
static int prepare_image(struct run *run, struct error *err)
{
    struct run_settings *settings = run->settings;
    const struct machine_image *image = &settings->image;
    int status = 0;

    if (image->image != NULL || image->cloud_init.user_data != NULL) {
        status = scratch_open(&run->scratch, err);
    }
    if (status == 0) {
        status = machine_image_prepare(image, MACHINE_IMAGE_OVERLAY, run->scratch.path, run->name,
                                       &settings->machine, run->append, &run->properties, err);
    }
    if (status == 0) {
        machine_image_warn_seed(image, &run->properties, run->invocation->globals);
    }
    return status;
}

static int run(const struct invocation *invocation, struct error *err)
{
    struct run_settings *settings = invocation->settings;
    struct run run = {
        .invocation = invocation, .settings = settings, .vmmd = {.pidfd = -1, .leash = -1}};
    int status = signals_open(&run.signals, err);

    if (status != 0) {
        return status;
    }
    if (settings->machine.name != NULL) {
        snprintf(run.name, sizeof(run.name), "%s", settings->machine.name);
    } else {
        snprintf(run.name, sizeof(run.name), "run-%d", (int)getpid());
    }
    if (settings->machine.on_panic == NULL) { /* nobody may be there who would end it */
        bool watched = invocation->positional_count == 0 && isatty(STDIN_FILENO);
        settings->machine.on_panic = watched ? "report" : "stop";
    }
    status = prepare_image(&run, err);
    if (status == 0) {
        status = machine_settings_check(&settings->machine, "run", err);
    }
    if (status == 0) {
        attachment_open(&run.attachment, false, invocation->positional_count != 0);
        status = run_machine(&run, err);
        attachment_close(&run.attachment);
        client_close(&run.watcher);
        client_close(&run.control);
        private_stop(&run.vmmd);
    }
    scratch_close(&run.scratch);
    signals_close(&run.signals);
    return status;
}

const struct command command_run = {
    .name = "run",
    .summary = "boot a machine here and now",
    .usage = "[OPTION...] [-- COMMAND [ARGUMENT...]]",
    .description =
        "Boots a machine with its console on this terminal and stays until it has ended. No vmmd "
        "needs to run: the machine gets one of its own, and leaves nothing behind.\n"
        "Standard output carries the guest's console and nothing else, byte for byte. Standard "
        "input goes to the guest; when it is a file or a pipe, as fast as the guest reads it, and "
        "its end is not the end: the machine runs until it powers off.\n"
        "On a terminal Ctrl-] x (or Ctrl-] twice) asks the guest to power off - its agent, if it "
        "has one, else by its power key - and ends it ten seconds later, with --persistent two "
        "minutes; Ctrl-] k ends it at once; Ctrl-] l sends the guest a Ctrl-]; Ctrl-] ? shows "
        "these keys.\n"
        "SIGINT, SIGTERM, SIGHUP and SIGQUIT end the machine at once; the exit status is then 128 "
        "plus the signal's number. So does the end of who reads standard output.\n"
        "With --image the machine gets the image's kernel, a disk laid over the image, and a "
        "network card with the host's network behind it (--net none: none). It starts at once, "
        "and as many may run on one image as you like: nobody writes to it, unless --persistent "
        "says so.\n"
        "With a command behind -- the machine is there for that command alone: the streams are the "
        "command's, vmctl ends with its exit status as 'vmctl exec' does, and the machine ends "
        "with it; with --persistent its guest is asked to power off first. The guest must run "
        "polyvisor-agent, as images do; with --image the command waits "
        "for the network. A share whose tag is a path (--share .:/work) is mounted there first.\n",
    .options = options,
    .settings_size = sizeof(struct run_settings),
    .positional = POSITIONAL_COMMAND_LINE,
    .positionals_max = UINT_MAX,
    .examples = {{"vmctl run --image debian-trixie-riscv64", "Boot an image to its login"},
                 {"vmctl run --image builder --share .:/work -- sh -c 'cd /work && make'",
                  "Build what is here in a fresh machine; make's exit status is vmctl's"},
                 {"vmctl run --kernel vmlinux --initrd initrd.gz --append console=ttyS0",
                  "Boot a riscv64 kernel to a shell"},
                 {"vmctl run --kernel vmlinux --disk path=root.img --append root=/dev/vda --cpus 4 "
                  "--memory 2G",
                  "Four processors, 2 GiB and a root disk"},
                 {"vmctl run --kernel vmlinux --initrd tests.gz </dev/null >log",
                  "Run tests unattended; the exit status says how the machine ended"},
                 {"vmctl run --firmware fw_dynamic.bin --kernel vmlinux", "Start with OpenSBI"}},
    .run = run,
};
