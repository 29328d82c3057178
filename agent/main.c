/*
 * polyvisor-agent: runs in a guest and does there what vmctl asks for over a vsock: commands,
 * files; and keeps the guest's clock. A small static program, without threads: one poll loop over
 * the listening socket, connections and commands (agent/service.h). libshared/agent/protocol.h is
 * what is said.
 */
#include "agent/clock.h"
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

#include <linux/vm_sockets.h> /* wants sys/socket.h */

#define PATIENCE_DEFAULT 60 /* seconds */

static int open_listener(void)
{
    const struct sockaddr_vm address = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, 16) < 0) {
        fprintf(stderr, "polyvisor-agent: no vsock: %s\n", strerror(errno));
        return -1;
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
    time_t patience, clock; /* seconds */
};

/* Pairs of an option and a number. */
static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i += 2) {
        char *end = argv[i];
        long value = i + 1 < argc ? strtol(argv[i + 1], &end, 10) : -1;
        if (value < 0 || value > 86400 || *end != '\0' || end == argv[i + 1]) {
            return false;
        }
        if (!strcmp(argv[i], "--patience") && value > 0) {
            options->patience = value;
        } else if (!strcmp(argv[i], "--clock")) {
            options->clock = value;
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.patience = PATIENCE_DEFAULT, .clock = CLOCK_INTERVAL_DEFAULT};
    struct clock clock;

    if (!parse(argc, argv, &options)) {
        fprintf(stderr,
                "usage: polyvisor-agent [--patience SECONDS] [--clock SECONDS]\n"
                "It stays in the foreground. A command whose client is away for so long (%d) is "
                "ended.\n"
                "Every so often (%d) the clock is compared with the real-time clock, and set when "
                "they have parted; 0: never.\n",
                PATIENCE_DEFAULT, CLOCK_INTERVAL_DEFAULT);
        return 2;
    }
    int signals = open_signals(), listener = open_listener();
    struct service *service = signals < 0 || listener < 0 ? NULL : service_new(listener, signals);
    if (!service) {
        return 1;
    }
    clock_open(&clock, options.clock);
    for (;;) {
        clock_turn(&clock);
        if (service_turn(service, options.patience, 1000) != 0) {
            return 1;
        }
    }
}
