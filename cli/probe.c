#include "cli/probe.h"

#include "libshared/base/clock.h"
#include "libshared/ipc/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define GREETING_SIZE 8

static void hint_start(struct error *err, const char *directory)
{
    error_hint(err,
               "start it with 'vmmd --runtime-dir %s', or name another directory with "
               "--runtime-dir",
               directory);
}

/* A directory that another user can write to could lead us to that user's socket. */
static int check_directory(const char *directory, struct error *err)
{
    struct stat status;

    if (lstat(directory, &status) < 0) {
        int cause = errno;

        if (cause == EACCES) {
            return error_set(err, ERROR_PERMISSION, cause, "no access to %s", directory);
        }
        error_set(err, ERROR_CONNECT, cause, "no vmmd runs in %s: %s", directory, strerror(cause));
        hint_start(err, directory);
        return -ERROR_CONNECT;
    }
    if (!S_ISDIR(status.st_mode)) {
        error_set(err, ERROR_CONNECT, ENOTDIR, "%s is not a directory", directory);
        hint_start(err, directory);
        return -ERROR_CONNECT;
    }
    if (geteuid() != 0 && status.st_uid != 0 && status.st_uid != geteuid()) {
        return error_set(err, ERROR_PERMISSION, 0, "%s belongs to user %u", directory,
                         (unsigned)status.st_uid);
    }
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        error_set(err, ERROR_PERMISSION, 0, "%s is writable by others", directory);
        error_hint(err, "chmod 0700 %s", directory);
        return -ERROR_PERMISSION;
    }
    return 0;
}

static int connect_error(int cause, const char *directory, const char *name, struct error *err)
{
    static const struct {
        int cause;
        enum error_code code;
        const char *text;
    } reasons[] = {
        {ENOENT, ERROR_CONNECT, "no vmmd runs: there is no %s in %s"},
        {ECONNREFUSED, ERROR_CONNECT, "no vmmd runs: nobody listens on %s in %s"},
        {EACCES, ERROR_PERMISSION, "no access to %s in %s"},
        {EPROTOTYPE, ERROR_PROTOCOL, "%s in %s belongs to another program"},
        {EAGAIN, ERROR_CONNECT, "%s in %s takes no more connections"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].cause == cause) {
            char message[sizeof(err->message)];

            snprintf(message, sizeof(message), reasons[i].text, name, directory);
            error_set(err, reasons[i].code, cause, "%s", message);
            hint_start(err, directory);
            return -(int)reasons[i].code;
        }
    }
    error_set(err, ERROR_CONNECT, cause, "cannot connect to %s in %s: %s", name, directory,
              strerror(cause));
    hint_start(err, directory);
    return -ERROR_CONNECT;
}

static int connect_socket(const char *directory, const char *name, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);

    if (length < 0 || (size_t)length >= sizeof(address.sun_path)) {
        error_set(err, ERROR_CONFIG, ENAMETOOLONG, "the path of the runtime directory is too long");
        error_hint(err, "at most %zu bytes; choose another with --runtime-dir",
                   sizeof(address.sun_path) - strlen(name) - 2);
        return -ERROR_CONFIG;
    }
    if (lstat(address.sun_path, &status) < 0) {
        return connect_error(errno, directory, name, err);
    }
    if (!S_ISSOCK(status.st_mode)) {
        error_set(err, ERROR_CONNECT, ENOTSOCK, "%s in %s is not a socket", name, directory);
        error_hint(err, "remove it, then start vmmd with 'vmmd --runtime-dir %s'", directory);
        return -ERROR_CONNECT;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return error_set(err, ERROR_IO, errno, "no socket: %s", strerror(errno));
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int cause = errno;

        close(fd);
        return connect_error(cause, directory, name, err);
    }
    return fd;
}

static void make_greeting(uint8_t greeting[GREETING_SIZE], int protocol)
{
    const uint8_t bytes[GREETING_SIZE] = {
        0, 'S', 'P', 0, (uint8_t)(protocol >> 8), (uint8_t)protocol, 0, 0};

    memcpy(greeting, bytes, GREETING_SIZE);
}

static int foreign(const char *directory, const char *name, struct error *err)
{
    error_set(err, ERROR_PROTOCOL, 0, "%s in %s is not the socket of a vmmd", name, directory);
    error_hint(err, "another program listens there; choose another directory with --runtime-dir");
    return -ERROR_PROTOCOL;
}

static int nobody_answers(const char *directory, const char *name, struct error *err)
{
    error_set(err, ERROR_CONNECT, ETIMEDOUT, "nobody answers on %s in %s", name, directory);
    error_hint(err, "vmmd may be stopped or hung; --timeout waits longer");
    return -ERROR_CONNECT;
}

/* Not the end of a conversation, but of none. A vmmd that had no processor for a second hangs up on
 * whom it has not heard by then; another program hangs up each time. */
#define HUNG_UP  1
#define RETRY_MS 100

/* Exchange greetings before the deadline. 0, HUNG_UP or a negative code. */
static int greet(int fd, int own, int peer, uint64_t deadline_ns, int interrupt_fd,
                 const char *directory, const char *name, struct error *err)
{
    uint8_t mine[GREETING_SIZE], wanted[GREETING_SIZE], theirs[GREETING_SIZE];
    size_t have = 0;

    make_greeting(mine, own);
    make_greeting(wanted, peer);
    if (send(fd, mine, sizeof(mine), MSG_NOSIGNAL) != (ssize_t)sizeof(mine)) {
        return HUNG_UP;
    }
    while (have < sizeof(theirs)) {
        struct pollfd polls[] = {{.fd = fd, .events = POLLIN},
                                 {.fd = interrupt_fd, .events = POLLIN}};
        int ready = poll(polls, 2, clock_poll_ms(deadline_ns));

        if (ready > 0 && polls[1].revents != 0) {
            return error_set(err, ERROR_CANCELLED, EINTR, "interrupted");
        }
        if (ready == 0) {
            return nobody_answers(directory, name, err);
        }
        if (ready < 0 && errno != EINTR) {
            return error_set(err, ERROR_IO, errno, "poll: %s", strerror(errno));
        }
        ssize_t count = ready > 0 ? recv(fd, theirs + have, sizeof(theirs) - have, 0) : 0;
        if (ready > 0 && (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))) {
            return have == 0 ? HUNG_UP : foreign(directory, name, err);
        }
        have += count > 0 ? (size_t)count : 0;
        if (memcmp(theirs, wanted, have) != 0) {
            return foreign(directory, name, err);
        }
    }
    return 0;
}

/* vmmd greets before it has read our greeting, which it must do within its second. 0, HUNG_UP or a
 * negative code. */
static int be_heard(int fd, uint64_t deadline_ns, int interrupt_fd, const char *directory,
                    const char *name, struct error *err)
{
    for (int wait_ms = 0;; wait_ms = 1) {
        struct pollfd polls[] = {{.fd = fd, .events = POLLRDHUP},
                                 {.fd = interrupt_fd, .events = POLLIN}};
        int unread = 0;

        poll(polls, 2, wait_ms);
        if (polls[0].revents != 0) {
            return HUNG_UP;
        }
        if (polls[1].revents != 0) {
            return error_set(err, ERROR_CANCELLED, EINTR, "interrupted");
        }
        if (ioctl(fd, SIOCOUTQ, &unread) < 0 || unread == 0) {
            return 0;
        }
        if (clock_monotonic_ns() >= deadline_ns) {
            return nobody_answers(directory, name, err);
        }
    }
}

int probe_open(const char *directory, const char *name, int own, int peer, uint32_t timeout_ms,
               int interrupt_fd, struct error *err)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
    int status = check_directory(directory, err);

    if (status != 0) {
        return status;
    }
    for (;;) {
        int fd = connect_socket(directory, name, err);
        if (fd < 0) {
            return fd;
        }
        status = greet(fd, own, peer, deadline_ns, interrupt_fd, directory, name, err);
        status = status ? status : be_heard(fd, deadline_ns, interrupt_fd, directory, name, err);
        if (status == 0) {
            return fd;
        }
        close(fd);
        if (status < 0) {
            return status;
        }
        if (clock_monotonic_ns() >= deadline_ns) {
            return foreign(directory, name, err);
        }
        struct pollfd interrupted = {.fd = interrupt_fd, .events = POLLIN};
        if (poll(&interrupted, 1, RETRY_MS) > 0) {
            return error_set(err, ERROR_CANCELLED, EINTR, "interrupted");
        }
    }
}

bool probe_gone(int probe)
{
    /* A publisher takes us for a subscriber and sends here, too. */
    for (int i = 0; i < 64; i++) {
        uint8_t bytes[4096];
        ssize_t count = recv(probe, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (count <= 0) {
            return count == 0 || (errno != EAGAIN && errno != EINTR);
        }
    }
    return false;
}
