/*
 * nanomsg and the clock, played: for fuzz targets of those who read messages. What the fuzzer
 * pushes to a socket is received there at once, what is sent is looked at and dropped, and time
 * passes only where somebody waits for what does not come. So whole conversations run in one
 * thread, or in as many as the code under test has, without a socket.
 *
 * Defines the functions of nanomsg and libshared/base/clock.h: include it once in a program.
 */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_NANOMSG_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_NANOMSG_H

#include "libshared/ipc/channel.h"
#ifndef FUZZ_REAL_TIME /* for code under test with threads of its own, which wait in real time */
#include "tests/fuzz/fuzz_clock.h"
#endif
#include "tests/fuzz/fuzz_input.h"
#include <errno.h>
#include <nanomsg/nn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FUZZ_SOCKETS  256
#define FUZZ_MESSAGES 64 /* that wait on a socket */

struct fuzz_socket {
    bool open;
    char address[128]; /* "ipc:///.../vcpud.sock" */
    int receive_fd, send_fd, receive_timeout_ms;
    unsigned count;
    void *messages[FUZZ_MESSAGES]; /* of nn_allocmsg */
    bool refuses;                  /* nobody takes what is sent */
    unsigned sent;
};

static struct fuzz_socket fuzz_sockets[FUZZ_SOCKETS];
static pthread_mutex_t fuzz_socket_lock = PTHREAD_MUTEX_INITIALIZER;
/* Hears of each message that is sent; may be NULL. */
static void (*fuzz_on_sent)(int socket, const uint8_t *bytes, size_t size);
/* Hears of each socket that is bound or connected; may be NULL. */
static void (*fuzz_on_connected)(int socket);

/* ---- messages: their size stands before them ---- */

#define FUZZ_MESSAGE_HEAD 16u

static inline size_t fuzz_message_size(const void *message)
{
    size_t size;
    memcpy(&size, (const uint8_t *)message - FUZZ_MESSAGE_HEAD, sizeof(size));
    return size;
}

void *nn_allocmsg(size_t size, int type)
{
    uint8_t *memory = malloc(FUZZ_MESSAGE_HEAD + size);
    (void)type;

    if (!memory) {
        errno = ENOMEM;
        return NULL;
    }
    memcpy(memory, &size, sizeof(size));
    return memory + FUZZ_MESSAGE_HEAD;
}

int nn_freemsg(void *message)
{
    free((uint8_t *)message - FUZZ_MESSAGE_HEAD);
    return 0;
}

/* ---- the fuzzer's side ---- */

static inline void fuzz_signal(int fd)
{
    eventfd_write(fd, 1);
}

static inline void fuzz_unsignal(int fd)
{
    eventfd_t value;
    eventfd_read(fd, &value);
}

/* Let `socket` receive these bytes. */
static inline void fuzz_push(int socket, const void *bytes, size_t size)
{
    struct fuzz_socket *to = &fuzz_sockets[socket];

    pthread_mutex_lock(&fuzz_socket_lock);
    if (to->open && to->count < FUZZ_MESSAGES) {
        void *message = nn_allocmsg(size, 0);
        fuzz_require(message != NULL, "memory");
        memcpy(message, bytes, size);
        to->messages[to->count++] = message;
        fuzz_signal(to->receive_fd);
    }
    pthread_mutex_unlock(&fuzz_socket_lock);
}

/* The first open socket whose address ends so, or -1. */
static inline int fuzz_find_socket(const char *end)
{
    for (int i = 0; i < FUZZ_SOCKETS; i++) {
        const char *address = fuzz_sockets[i].address;
        size_t length = strlen(address), wanted = strlen(end);
        if (fuzz_sockets[i].open && length >= wanted && !strcmp(address + length - wanted, end)) {
            return i;
        }
    }
    return -1;
}

/* From now on `socket` takes what is sent, or has no room. */
static inline void fuzz_set_refuses(int socket, bool refuses)
{
    struct fuzz_socket *of = &fuzz_sockets[socket];

    if (of->open && of->refuses != refuses) {
        of->refuses = refuses;
        if (refuses) {
            fuzz_unsignal(of->send_fd);
        } else {
            fuzz_signal(of->send_fd);
        }
    }
}

/* ---- nanomsg ---- */

int nn_socket(int domain, int protocol)
{
    int number = -1;
    (void)domain, (void)protocol;

    pthread_mutex_lock(&fuzz_socket_lock);
    for (int i = 0; i < FUZZ_SOCKETS && number < 0; i++) {
        struct fuzz_socket *socket = &fuzz_sockets[i];
        if (!socket->open) {
            memset(socket, 0, sizeof(*socket));
            socket->open = true;
            socket->receive_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
            socket->send_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
            number = i;
        }
    }
    pthread_mutex_unlock(&fuzz_socket_lock);
    errno = EMFILE;
    return number;
}

int nn_close(int number)
{
    struct fuzz_socket *socket = &fuzz_sockets[number];

    pthread_mutex_lock(&fuzz_socket_lock);
    fuzz_require(socket->open, "a socket is closed once");
    for (unsigned i = 0; i < socket->count; i++) {
        nn_freemsg(socket->messages[i]);
    }
    close(socket->receive_fd);
    close(socket->send_fd);
    socket->open = false;
    pthread_mutex_unlock(&fuzz_socket_lock);
    return 0;
}

static inline int fuzz_name_socket(int number, const char *address)
{
    snprintf(fuzz_sockets[number].address, sizeof(fuzz_sockets[number].address), "%s", address);
    if (fuzz_on_connected) {
        fuzz_on_connected(number);
    }
    return 1;
}

int nn_bind(int number, const char *address)
{
    return fuzz_name_socket(number, address);
}

int nn_connect(int number, const char *address)
{
    return fuzz_name_socket(number, address);
}

int nn_setsockopt(int number, int level, int option, const void *value, size_t size)
{
    if (level == NN_SOL_SOCKET && option == NN_RCVTIMEO && size == sizeof(int)) {
        memcpy(&fuzz_sockets[number].receive_timeout_ms, value, size);
    }
    return 0;
}

int nn_getsockopt(int number, int level, int option, void *value, size_t *size)
{
    const struct fuzz_socket *socket = &fuzz_sockets[number];
    int fd = option == NN_RCVFD ? socket->receive_fd : socket->send_fd;

    fuzz_require(level == NN_SOL_SOCKET && *size == sizeof(fd), "a known option");
    memcpy(value, &fd, sizeof(fd));
    return 0;
}

/* The oldest message, or NULL. */
static inline void *fuzz_pop(int number)
{
    struct fuzz_socket *socket = &fuzz_sockets[number];
    void *message = NULL;

    pthread_mutex_lock(&fuzz_socket_lock);
    if (socket->count > 0) {
        message = socket->messages[0];
        memmove(socket->messages, socket->messages + 1, --socket->count * sizeof(message));
        if (socket->count == 0) {
            fuzz_unsignal(socket->receive_fd);
        }
    }
    pthread_mutex_unlock(&fuzz_socket_lock);
    return message;
}

int nn_recv(int number, void *buffer, size_t length, int flags)
{
    fuzz_require(length == NN_MSG, "messages are received whole");
    void *message = fuzz_pop(number);
    if (!message) {
        if (!(flags & NN_DONTWAIT)) {
            int wait_ms = fuzz_sockets[number].receive_timeout_ms;
            fuzz_require(wait_ms >= 0, "nobody waits for ever");
#ifdef FUZZ_REAL_TIME
            usleep((unsigned)wait_ms * 1000);
#else
            fuzz_pass_ms(wait_ms);
#endif
        }
        errno = flags & NN_DONTWAIT ? EAGAIN : ETIMEDOUT;
        return -1;
    }
    *(void **)buffer = message;
    return (int)fuzz_message_size(message);
}

int nn_recvmsg(int number, struct nn_msghdr *header, int flags)
{
    int size = nn_recv(number, header->msg_iov->iov_base, NN_MSG, flags);

    if (size >= 0) {
        *(void **)header->msg_control = nn_allocmsg(8, 0);
    }
    return size;
}

int nn_send(int number, const void *buffer, size_t length, int flags)
{
    struct fuzz_socket *socket = &fuzz_sockets[number];
    void *message = *(void *const *)buffer;
    (void)flags;

    fuzz_require(length == NN_MSG && socket->open, "messages are sent whole, by who has a socket");
    if (socket->refuses) {
        errno = EAGAIN;
        return -1;
    }
    size_t size = fuzz_message_size(message);
    fuzz_require(size <= CHANNEL_MESSAGE_MAX + 12, "no message is too large");
    socket->sent++;
    if (fuzz_on_sent) {
        fuzz_on_sent(number, message, size);
    }
    nn_freemsg(message);
    return (int)size;
}

int nn_sendmsg(int number, const struct nn_msghdr *header, int flags)
{
    int size = nn_send(number, header->msg_iov->iov_base, NN_MSG, flags);

    if (size >= 0) {
        nn_freemsg(*(void **)header->msg_control);
    }
    return size;
}

#endif
