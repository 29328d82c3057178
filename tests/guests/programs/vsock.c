/*
 * Sockets between guest and host:
 *   vsock echo PORT        give back what comes to that port, to any number of clients, for ever
 *   vsock send PORT [CID]  connect to that port of the host, or of CID (1: this guest), send standard
 *                          input, print the answer
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h> /* wants sys/socket.h */

static int failed(const char *what)
{
    fprintf(stderr, "vsock: %s: %s\n", what, strerror(errno));
    return 1;
}

/* Everything from one descriptor to another. 0 at the end. */
static int copy(int from, int to)
{
    static char bytes[65536];
    ssize_t got;

    while ((got = read(from, bytes, sizeof(bytes))) > 0) {
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(to, bytes + done, (size_t)(got - done));
            if (put < 0) {
                return failed("write");
            }
            done += put;
        }
    }
    return got < 0 ? failed("read") : 0;
}

static int echo(int fd, struct sockaddr_vm *address)
{
    address->svm_cid = VMADDR_CID_ANY;
    if (bind(fd, (struct sockaddr *)address, sizeof(*address)) < 0 || listen(fd, 64) < 0) {
        return failed("listen");
    }
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int client = accept(fd, NULL, NULL);
        if (client < 0) {
            return failed("accept");
        }
        if (fork() == 0) {
            _exit(copy(client, client));
        }
        close(client);
    }
}

/* The answer is read by a process of its own, so that neither side waits for the other. */
static int send_all(int fd, const struct sockaddr_vm *address)
{
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
        return failed("connect");
    }
    if (fork() == 0) {
        int status = copy(STDIN_FILENO, fd);
        shutdown(fd, SHUT_WR);
        _exit(status);
    }
    return copy(fd, STDOUT_FILENO);
}

int main(int argc, char **argv)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK};

    if (argc < 3 || argc > 4 || (strcmp(argv[1], "echo") && strcmp(argv[1], "send"))) {
        fprintf(stderr, "usage: vsock echo PORT | send PORT [CID]\n");
        return 2;
    }
    address.svm_port = (unsigned)strtoul(argv[2], NULL, 10);
    address.svm_cid = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : VMADDR_CID_HOST;
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (fd < 0) {
        return failed("socket");
    }
    return strcmp(argv[1], "echo") ? send_all(fd, &address) : echo(fd, &address);
}
