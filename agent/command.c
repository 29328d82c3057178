#include "agent/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* ---- Reading it ---- */

/* `count` words from *at on into a list; false: they are not all there. */
static bool take_words(char **list, uint32_t count, char **at, const char *end)
{
    for (uint32_t i = 0; i < count; i++) {
        char *zero = *at < end ? memchr(*at, 0, (size_t)(end - *at)) : NULL;
        if (!zero) {
            return false;
        }
        list[i] = *at;
        *at = zero + 1;
    }
    list[count] = NULL;
    return true;
}

int command_parse(struct command *command, const uint8_t *frame, size_t length)
{
    memset(command, 0, sizeof(*command));
    if (length < sizeof(command->start)) {
        return EPROTO;
    }
    memcpy(&command->start, frame, sizeof(command->start));
    const struct agent_start *start = &command->start;
    if (start->arguments == 0 || start->arguments > AGENT_WORDS_MAX ||
        start->variables > AGENT_WORDS_MAX) {
        return E2BIG;
    }
    size_t bytes = length - sizeof(*start);
    command->words = malloc(bytes + 1);
    command->arguments = calloc(start->arguments + 1, sizeof(char *));
    command->variables = calloc(start->variables + 1, sizeof(char *));
    if (!command->words || !command->arguments || !command->variables) {
        command_release(command);
        return ENOMEM;
    }
    memcpy(command->words, frame + sizeof(*start), bytes);
    char *at = command->words, *folder[2];
    if (!take_words(command->arguments, start->arguments, &at, command->words + bytes) ||
        !take_words(command->variables, start->variables, &at, command->words + bytes) ||
        !take_words(folder, 1, &at, command->words + bytes)) {
        command_release(command);
        return EPROTO;
    }
    command->folder = folder[0];
    return 0;
}

void command_release(struct command *command)
{
    free(command->words);
    free(command->arguments);
    free(command->variables);
    memset(command, 0, sizeof(*command));
}

/* ---- Its descriptors ---- */

struct plumbing {
    int input[2], output[AGENT_STREAMS][2]; /* reading end, writing end */
    int failure[2];                         /* tells why the program cannot be run */
    int terminal, own;                      /* the command's end, and ours */
};

static void close_all(struct plumbing *plumbing)
{
    int *first = (int *)plumbing;

    for (size_t i = 0; i < sizeof(*plumbing) / sizeof(int); i++) {
        if (first[i] >= 0) {
            close(first[i]);
        }
    }
}

static int open_terminal(struct plumbing *plumbing, const struct agent_start *start)
{
    const struct winsize size = {.ws_row = start->rows, .ws_col = start->columns};
    char name[64];

    plumbing->own = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (plumbing->own < 0 || grantpt(plumbing->own) < 0 || unlockpt(plumbing->own) < 0 ||
        ptsname_r(plumbing->own, name, sizeof(name)) != 0) {
        return errno;
    }
    plumbing->terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (plumbing->terminal < 0) {
        return errno;
    }
    ioctl(plumbing->own, TIOCSWINSZ, &size);
    return 0;
}

static int open_plumbing(struct plumbing *plumbing, const struct agent_start *start)
{
    memset(plumbing, 0xff, sizeof(*plumbing));
    if (pipe2(plumbing->failure, O_CLOEXEC) < 0) {
        return errno;
    }
    if (start->flags & AGENT_START_TERMINAL) {
        return open_terminal(plumbing, start);
    }
    return pipe2(plumbing->input, O_CLOEXEC) < 0 || pipe2(plumbing->output[0], O_CLOEXEC) < 0 ||
                   pipe2(plumbing->output[1], O_CLOEXEC) < 0
               ? errno
               : 0;
}

/* ---- In the child ---- */

static void connect_streams(const struct plumbing *plumbing)
{
    bool terminal = plumbing->terminal >= 0;

    setsid();
    if (terminal) {
        ioctl(plumbing->terminal, TIOCSCTTY, 0);
    }
    dup2(terminal ? plumbing->terminal : plumbing->input[0], STDIN_FILENO);
    dup2(terminal ? plumbing->terminal : plumbing->output[0][1], STDOUT_FILENO);
    dup2(terminal ? plumbing->terminal : plumbing->output[1][1], STDERR_FILENO);
}

static void set_environment(const struct command *command)
{
    if (!getenv("PATH")) {
        setenv("PATH", DEFAULT_PATH, 0);
    }
    if (!getenv("HOME")) {
        setenv("HOME", "/root", 0);
    }
    for (char **variable = command->variables; *variable; variable++) {
        putenv(*variable);
    }
}

static _Noreturn void become(const struct command *command, const struct agent *agent,
                             const struct plumbing *plumbing)
{
    sigset_t none;
    int cause = 0;

    /* Who started the agent may ignore some: a shell does, SIGINT of what it starts with '&'. */
    for (int number = 1; number < NSIG; number++) {
        signal(number, SIG_DFL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    connect_streams(plumbing);
    set_environment(command);
    if (command->folder[0] && chdir(command->folder) < 0) {
        cause = errno;
    }
    if (!cause && command->start.flags & AGENT_START_BUILTIN) {
        close_range(STDERR_FILENO + 1, ~0u, 0); /* what an exec would close */
        _exit(builtin_run(command->arguments, agent));
    }
    if (!cause) {
        execvp(command->arguments[0], command->arguments);
        cause = errno;
    }
    while (write(plumbing->failure[1], &cause, sizeof(cause)) < 0 && errno == EINTR) {
    }
    _exit(127);
}

/* ---- In the agent ---- */

static int keep_end(int *end)
{
    int fd = *end;

    *end = -1;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void keep_ends(struct plumbing *plumbing, int *input, int output[AGENT_STREAMS])
{
    output[AGENT_STDERR] = -1;
    if (plumbing->own >= 0) {
        *input = fcntl(plumbing->own, F_DUPFD_CLOEXEC, 3);
        output[AGENT_STDOUT] = keep_end(&plumbing->own);
        return;
    }
    *input = keep_end(&plumbing->input[1]);
    output[AGENT_STDOUT] = keep_end(&plumbing->output[0][0]);
    output[AGENT_STDERR] = keep_end(&plumbing->output[1][0]);
}

/* Why the program could not be run; 0: it runs. */
static int read_failure(struct plumbing *plumbing)
{
    int cause = 0;
    ssize_t bytes;

    close(plumbing->failure[1]);
    plumbing->failure[1] = -1;
    do {
        bytes = read(plumbing->failure[0], &cause, sizeof(cause));
    } while (bytes < 0 && errno == EINTR);
    return bytes == sizeof(cause) ? cause : 0;
}

int command_start(const struct command *command, const struct agent *agent, pid_t *child,
                  int *input, int output[AGENT_STREAMS])
{
    struct plumbing plumbing;
    int cause = open_plumbing(&plumbing, &command->start);

    if (!cause) {
        *child = fork();
        if (*child == 0) {
            become(command, agent, &plumbing);
        }
        cause = *child < 0 ? errno : read_failure(&plumbing);
        if (*child < 0 || cause) {
            *child = 0; /* it is reaped as a stranger */
        }
    }
    if (!cause) {
        keep_ends(&plumbing, input, output);
    }
    close_all(&plumbing);
    return cause;
}
