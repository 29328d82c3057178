/*
 * vmctl run ... -- COMMAND: a machine for one command. Its console is kept out of the way (what the
 * machine said last is shown when it fails); the streams are the command's, through the guest's
 * agent, and the machine ends with it.
 */
#include "cli/commands/run.h"
#include "cli/guest_session.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "libshared/base/clock.h"
#include "libshared/vsock/setting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PATIENCE_MS      2000  /* until who sits there is shown that it goes on */
#define NOTICE_MS        60000 /* without an answer of the agent, the user hears of it */
#define CONSOLE_TAIL     2000  /* bytes that are shown of it */
#define CONSOLE_QUIET_MS 300
#define STOP_SLICE_MS    250

/* ---- What the machine said ---- */

static void show_tail(int fd, uint64_t length)
{
    char text[CONSOLE_TAIL + 1];
    uint64_t start = length > CONSOLE_TAIL ? length - CONSOLE_TAIL : 0;
    ssize_t count = pread(fd, text, CONSOLE_TAIL, (off_t)start);

    if (count <= 0) {
        return;
    }
    text[count] = '\0';
    fputs("polyvisor: the machine's console said last:\n", stderr);
    for (char *line = text, *next; line != NULL && *line != '\0'; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        line[strcspn(line, "\r")] = '\0';
        fputs("  | ", stderr);
        output_printable(stderr, line);
        fputc('\n', stderr);
    }
}

/* The console keeps what was printed before somebody came. */
static void show_console(struct run *run)
{
    struct attachment *attachment = calloc(1, sizeof(*attachment));
    struct error ignored;
    int fd = memfd_create("console", MFD_CLOEXEC);

    if (attachment != NULL && fd >= 0) {
        attachment_open(attachment, false, true);
        attachment->output = fd;
        if (attachment_connect(attachment, run->console_path, 0, &ignored) == 0) {
            uint64_t moved;
            do {
                moved = attachment->moved;
                attachment_poll(attachment, NULL, 0, CONSOLE_QUIET_MS);
                attachment_poll(attachment, NULL, 0, CONSOLE_QUIET_MS);
            } while (attachment->moved != moved && moved < CONSOLE_RING);
            show_tail(fd, attachment->moved);
        }
        attachment_close(attachment);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(attachment);
}

/* ---- Commands ---- */

struct watch {
    struct run *run;
    const struct guest_outcome *outcome;
    uint64_t began_ns;
    unsigned shown_s; /* what the line for who waits says; 0: it is not there */
    struct error error;
};

/* Who made the image, for messages about its agent: " of an image that polyvisor 1.2 made", "". */
static const char *image_words(const struct run *run, char *text, size_t room)
{
    const char *version = run->properties.polyvisor;

    text[0] = '\0';
    if (run->settings->image.image != NULL) {
        snprintf(text, room, " of an image that %s%.32s made",
                 version[0] != '\0' ? "polyvisor " : "an unknown version of polyvisor", version);
    }
    return text;
}

/* A line for who sits there, which is gone when the agent answers. */
static void show_waiting(struct watch *watch, uint64_t waited_ms)
{
    const struct globals *globals = watch->run->invocation->globals;
    unsigned seconds = (unsigned)(waited_ms / 1000);
    bool waits = !watch->outcome->answered && waited_ms >= PATIENCE_MS;

    if (waits && seconds != watch->shown_s && !globals->quiet && !globals->json &&
        isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r\033[Kpolyvisor: the machine starts (%u s)", seconds);
        watch->shown_s = seconds;
    } else if (!waits && watch->shown_s != 0) {
        fputs("\r\033[K", stderr);
        watch->shown_s = 0;
    }
}

static void tell_waiting(struct watch *watch)
{
    struct run *run = watch->run;
    uint64_t waited_ms = (clock_monotonic_ns() - watch->began_ns) / NS_PER_MS;
    char words[96];

    show_waiting(watch, waited_ms);
    if (watch->outcome->answered || run->told_waiting || waited_ms < NOTICE_MS) {
        return;
    }
    run->told_waiting = true;
    show_waiting(watch, 0);
    output_warning(
        run->invocation->globals,
        "the guest's agent%s has not answered for a minute; waiting for %u s in all. The guest "
        "must run polyvisor-agent; without a command 'vmctl run' shows its console",
        image_words(run, words, sizeof(words)), run->settings->wait_ms / 1000);
}

/* Say what can be done. */
static int no_answer(const struct run *run, struct error *err)
{
    char words[96];

    error_set(err, ERROR_TIMEOUT, err->cause, "the guest's agent%s did not answer within %u s",
              image_words(run, words, sizeof(words)), run->settings->wait_ms / 1000);
    if (run->settings->image.image == NULL) {
        error_hint(err, "the guest must run polyvisor-agent, and its kernel have a vsock");
    } else if (strcmp(run->properties.polyvisor, POLYVISOR_VERSION) != 0) {
        error_hint(err, "this is polyvisor " POLYVISOR_VERSION
                        ": build the image again ('vmctl image build ... --replace')");
    } else {
        error_hint(err, "does its system start? 'vmctl run --image' without a command shows its "
                        "console; --wait gives a slow host longer");
    }
    return -ERROR_TIMEOUT;
}

/* Asked from time to time while a command runs: does its machine? */
static bool machine_gone(void *context)
{
    struct watch *watch = context;

    tell_waiting(watch);
    return watch->run->ended || run_handle_watcher(watch->run, &watch->error) != 0 ||
           watch->run->ended;
}

static int guest_run(struct run *run, struct guest_command *command, struct guest_outcome *outcome,
                     struct error *err)
{
    struct watch watch = {.run = run, .outcome = outcome, .began_ns = clock_monotonic_ns()};
    struct vsock_setting setting;

    command->gone = machine_gone;
    command->gone_context = &watch;
    command->wait_ms = run->settings->wait_ms;
    command->signals = &run->signals;
    int status = vsock_setting_parse(run->settings->machine.vsock, ERROR_INTERNAL, &setting, err);
    status = status == 0 ? guest_session_run(setting.path, command, outcome, err) : status;
    show_waiting(&watch, 0);
    if (status != 0 && watch.error.code != ERROR_OK) {
        *err = watch.error;
        status = -(int)err->code;
    } else if (status != 0 && run->ended && strcmp(run->end_reason, "guest-panic") == 0) {
        status = run_error_panic(run, err);
    } else if (status != 0 && run->ended) {
        error_set(err, ERROR_CRASHED, 0, "machine '%s' ended before its command did (%s)",
                  run->name, run->end_reason);
        status = -ERROR_CRASHED;
    } else if (status == -ERROR_TIMEOUT && !outcome->answered) {
        status = no_answer(run, err);
    }
    return status;
}

/* One of ours, whose output is for people. 0 when it was run, whatever its status. */
static int guest_prepare(struct run *run, const char *const *arguments,
                         struct guest_outcome *outcome, struct error *err)
{
    struct guest_command command = {
        .arguments = arguments,
        .input = -1,
        .output = {STDERR_FILENO, STDERR_FILENO},
        .printable = {true, true},
    };

    return guest_run(run, &command, outcome, err);
}

/* What images bring for it is missing in other guests: no reason to fail. */
static int wait_ready(struct run *run, struct error *err)
{
    static const char *const ready[] = {
        "sh", "-c", "[ ! -x /usr/lib/polyvisor/ready ] || exec /usr/lib/polyvisor/ready", NULL};
    struct guest_outcome outcome;

    return guest_prepare(run, ready, &outcome, err);
}

/* A share whose tag is a path is mounted there. */
static int mount_shares(struct run *run, struct error *err)
{
    static const char script[] =
        "mkdir -p \"$1\" && { grep -q \" $1 \" /proc/mounts || mount -t virtiofs \"$1\" \"$1\"; }";
    const struct share_settings *shares = &run->settings->machine.shares;
    struct share_setting *setting = malloc(sizeof(*setting));
    int status = setting != NULL ? 0 : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");

    for (size_t i = 0; i < shares->count && status == 0; i++) {
        const char *const mount[] = {"sh", "-c", script, "mount", setting->tag, NULL};
        struct guest_outcome outcome = {0};

        status = share_setting_parse(shares->items[i], ERROR_INTERNAL, setting, err);
        if (status != 0 || setting->tag[0] != '/') {
            continue;
        }
        status = guest_prepare(run, mount, &outcome, err);
        if (status == 0 && (outcome.status != 0 || outcome.cause != 0)) {
            error_set(err, ERROR_GUEST, 0, "the guest cannot mount the share at '%s'",
                      setting->tag);
            error_hint(err, "its kernel must have virtiofs");
            status = -ERROR_GUEST;
        }
    }
    free(setting);
    return status;
}

/* What the guest has in mind of shared files goes to them before it ends. */
static int sync_shares(struct run *run, struct error *err)
{
    static const char *const sync[] = {"sync", NULL};
    struct guest_outcome outcome;

    return run->settings->machine.shares.count != 0 && !run->ended
               ? guest_prepare(run, sync, &outcome, err)
               : 0;
}

static int guest_main(struct run *run, struct guest_outcome *outcome, struct error *err)
{
    const struct run_settings *settings = run->settings;
    const char *term = getenv("TERM");
    char variable[128];
    const char *const variables[] = {variable, NULL};
    struct terminal terminal;
    struct guest_command command = {
        .flags = settings->terminal ? AGENT_START_TERMINAL : 0,
        .arguments = run->invocation->positionals,
        .variables = settings->terminal ? variables : NULL,
        .input = settings->no_input ? -1 : STDIN_FILENO,
        .terminal = &terminal,
        .output = {STDOUT_FILENO, STDERR_FILENO},
    };

    snprintf(variable, sizeof(variable), "TERM=%.100s", term != NULL ? term : "dumb");
    terminal_open(&terminal, STDIN_FILENO);
    return guest_run(run, &command, outcome, err);
}

/* ---- The machine's end ---- */

static int shut_down_turn(struct run *run, int wait_ms, struct error *err)
{
    int descriptors[2];

    client_descriptors(&run->watcher, descriptors);
    struct pollfd watched[] = {{.fd = run->signals.fd, .events = POLLIN},
                               {.fd = descriptors[0], .events = POLLIN},
                               {.fd = descriptors[1], .events = POLLIN}};
    poll(watched, 3, wait_ms);
    if (watched[0].revents != 0 && signals_end(signals_take(&run->signals))) {
        run_end_by_force(run);
    }
    return run_handle_watcher(run, err);
}

/* A disk that stays is left as a system leaves it that is shut down. */
static int shut_down(struct run *run, struct error *err)
{
    int status = run_power_off(run, shut_down_turn, err);

    while (status == 0 && !run->ended) {
        status = shut_down_turn(run, STOP_SLICE_MS, err);
        if (status == 0 && !run->ended && clock_monotonic_ns() >= run->give_up_ns) {
            status = error_set(err, ERROR_TIMEOUT, ETIMEDOUT, "machine '%s' did not end in time",
                               run->name);
        }
    }
    if (status == 0 && strcmp(run->end_reason, "stopped") == 0) {
        output_warning(run->invocation->globals,
                       "%s did not power off and was ended by force: its disk is as after a power "
                       "failure",
                       run->name);
    }
    return status;
}

int run_command(struct run *run, int *exit_status, struct error *err)
{
    struct guest_outcome outcome;
    int status = run->settings->image.image != NULL ? wait_ready(run, err) : 0;

    status = status == 0 ? mount_shares(run, err) : status;
    status = status == 0 ? guest_main(run, &outcome, err) : status;
    if (status != 0) {
        if (status != -ERROR_CANCELLED && !run->ended) {
            show_console(run);
        }
        return status;
    }
    error_clear(err);
    *exit_status = guest_exit_status(&outcome, run->invocation->positionals[0], err);
    if (err->code != ERROR_OK) {
        output_error(err, run->invocation->globals->json);
    }
    status = sync_shares(run, err);
    return status == 0 && run->settings->image.persistent && !run->ended ? shut_down(run, err)
                                                                         : status;
}
