/*
 * polyvisor-agent: runs in a guest and does there what vmctl asks for over a vsock: commands,
 * files; and keeps the guest's clock. A small static program, without threads: one poll loop over
 * the listening socket, connections and commands (agent/service.h). libshared/agent/protocol.h is
 * what is said.
 */
#include "agent/agent.h"
#include "agent/service.h"
#include "libshared/agent/protocol.h"
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <linux/vm_sockets.h> /* wants sys/socket.h */

#define PATIENCE_DEFAULT 60 /* seconds */

static int fail(const char *what)
{
    fprintf(stderr, "polyvisor-agent: %s: %s\n", what, strerror(errno));
    return -1;
}

static int open_vsock(void)
{
    const struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, 16) < 0) {
        return fail("no vsock");
    }
    return fd;
}

/* Whoever may connect may do what we may: only we. */
static int open_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return fail(path);
    }
    strcpy(address.sun_path, path);
    mode_t mask = umask(0177);
    int status = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof(address));
    umask(mask);
    if (status < 0 || listen(fd, 16) < 0) {
        return fail(path);
    }
    return fd;
}

static int open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

struct options {
    long patience, clock; /* seconds */
    const char *unix_path;
};

/* Seconds, up to a day. */
static bool parse_seconds(const char *text, long least, long *seconds)
{
    char *end;

    *seconds = strtol(text, &end, 10);
    return *text && !*end && *seconds >= least && *seconds <= 86400;
}

/* Pairs of an option and its value. */
static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i += 2) {
        bool valid = false;
        if (i + 1 == argc) {
            return false;
        }
        if (!strcmp(argv[i], "--patience")) {
            valid = parse_seconds(argv[i + 1], 1, &options->patience);
        } else if (!strcmp(argv[i], "--clock")) {
            valid = parse_seconds(argv[i + 1], 0, &options->clock);
        } else if (!strcmp(argv[i], "--unix")) {
            options->unix_path = argv[i + 1];
            valid = true;
        }
        if (!valid) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.patience = PATIENCE_DEFAULT, .clock = CLOCK_INTERVAL_DEFAULT};
    struct agent agent = {.in_guest = true};
    struct timespec now;

    if (!parse(argc, argv, &options)) {
        fprintf(stderr,
                "usage: polyvisor-agent [--patience SECONDS] [--clock SECONDS] [--unix PATH]\n"
                "It stays in the foreground. A command whose client is away for so long (%d) is "
                "ended.\n"
                "Every so often (%d) the clock is compared with the real-time clock, and set when "
                "they have parted; 0: never.\n"
                "--unix listens there instead of on a vsock, for commands and files only: to try "
                "it without a guest.\n",
                PATIENCE_DEFAULT, CLOCK_INTERVAL_DEFAULT);
        return 2;
    }
    agent.in_guest = options.unix_path == NULL;
    clock_gettime(CLOCK_MONOTONIC, &now);
    agent.began = now.tv_sec;
    int signals = open_signals();
    int listener = agent.in_guest ? open_vsock() : open_unix(options.unix_path);
    struct service *service =
        signals < 0 || listener < 0 ? NULL : service_new(listener, signals, &agent);
    if (!service) {
        return 1;
    }
    clock_open(&agent.clock, agent.in_guest ? options.clock : 0);
    for (;;) {
        clock_turn(&agent.clock);
        if (service_turn(service, options.patience, 1000) != 0) {
            return 1;
        }
    }
}
