/*
 * polyvisor-agent: runs in a guest and does there what vmctl asks for over a vsock: commands,
 * files. A small static program, without threads: one poll loop over the listening socket,
 * connections and commands (agent/service.h). libshared/agent/protocol.h is what is said.
 */
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

int main(int argc, char **argv)
{
    time_t patience = PATIENCE_DEFAULT;
    bool valid = argc == 1;

    if (argc == 3 && !strcmp(argv[1], "--patience")) {
        patience = strtol(argv[2], NULL, 10);
        valid = patience > 0;
    }
    if (!valid) {
        fprintf(stderr,
                "usage: polyvisor-agent [--patience SECONDS]\n"
                "It stays in the foreground. A command whose client is away for so long (%d) is "
                "ended.\n",
                PATIENCE_DEFAULT);
        return 2;
    }
    int signals = open_signals(), listener = open_listener();
    struct service *service = signals < 0 || listener < 0 ? NULL : service_new(listener, signals);
    if (!service) {
        return 1;
    }
    for (;;) {
        if (service_turn(service, patience, 1000) != 0) {
            return 1;
        }
    }
}
