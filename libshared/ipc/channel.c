#include "libshared/ipc/channel.h"

#include "libshared/base/clock.h"
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <nanomsg/nn.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define CHANNEL_MAGIC 0x314d5650u /* "PVM1" */

/* A peer that is not up yet is tried again this often: a daemon is ready a few milliseconds after
 * its start, and nobody should wait nanomsg's usual 100 ms for it. */
#define CHANNEL_RECONNECT_MS     2
#define CHANNEL_RECONNECT_MAX_MS 2

struct channel_frame {
    uint32_t magic;
    uint16_t kind;
    uint16_t zero;
    uint32_t length;
};
_Static_assert(sizeof(struct channel_frame) == 12, "wire layout");

/* nanomsg itself drops the connection of a peer that sends more than this. It is above what we
 * accept, so that a message a little too large is still seen, and answered with an error. */
#define CHANNEL_RECEIVE_MAX (4 * (int)CHANNEL_MESSAGE_MAX)

struct channel {
    int socket;
    enum channel_kind kind;
    int receive_fd, send_fd;
    char *bound_path; /* removed at close; NULL when connected */
};

struct channel_route {
    void *control; /* nanomsg's routing header */
};

static int channel_set_option(int socket, int level, int option, int value)
{
    return nn_setsockopt(socket, level, option, &value, sizeof(value));
}

static int channel_option_fd(int socket, int option)
{
    int fd = -1;
    size_t size = sizeof(fd);

    return nn_getsockopt(socket, NN_SOL_SOCKET, option, &fd, &size) < 0 ? -1 : fd;
}

static int channel_set_options(int socket, int domain, int protocol)
{
    if (channel_set_option(socket, NN_SOL_SOCKET, NN_RCVMAXSIZE, CHANNEL_RECEIVE_MAX) < 0 ||
        channel_set_option(socket, NN_SOL_SOCKET, NN_RECONNECT_IVL, CHANNEL_RECONNECT_MS) < 0 ||
        channel_set_option(socket, NN_SOL_SOCKET, NN_RECONNECT_IVL_MAX, CHANNEL_RECONNECT_MAX_MS) <
            0) {
        return -1;
    }
    if (domain != AF_SP) {
        return 0;
    }
    if (protocol == NN_SUB) {
        return nn_setsockopt(socket, NN_SUB, NN_SUB_SUBSCRIBE, "", 0);
    }
    if (protocol == NN_REQ) {
        /* A request is asked once. nanomsg's own resending would start a long operation twice. */
        return channel_set_option(socket, NN_REQ, NN_REQ_RESEND_IVL, INT_MAX);
    }
    return 0;
}

static struct channel *channel_open(enum channel_kind kind, int domain, int protocol,
                                    const char *path, bool bind)
{
    char address[sizeof("ipc://") + sizeof(((struct sockaddr_un *)0)->sun_path)];

    if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    snprintf(address, sizeof(address), "ipc://%s", path);

    struct channel *channel = calloc(1, sizeof(*channel));
    if (!channel) {
        return NULL;
    }
    channel->kind = kind;
    channel->socket = nn_socket(domain, protocol);
    if (channel->socket < 0) {
        goto fail;
    }
    if (channel_set_options(channel->socket, domain, protocol) < 0) {
        goto fail;
    }
    if (bind) {
        char *bound_path = strdup(path);
        if (!bound_path || nn_bind(channel->socket, address) < 0) {
            free(bound_path);
            goto fail;
        }
        channel->bound_path = bound_path;
    } else if (nn_connect(channel->socket, address) < 0) {
        goto fail;
    }
    channel->receive_fd = channel_option_fd(channel->socket, NN_RCVFD);
    channel->send_fd = channel_option_fd(channel->socket, NN_SNDFD);
    return channel;

fail:;
    int saved = errno;
    channel_close(channel);
    errno = saved;
    return NULL;
}

struct channel *channel_bind(enum channel_kind kind, int protocol, const char *path)
{
    return channel_open(kind, AF_SP, protocol, path, true);
}

struct channel *channel_connect(enum channel_kind kind, int protocol, const char *path)
{
    return channel_open(kind, AF_SP, protocol, path, false);
}

struct channel *channel_bind_server(enum channel_kind kind, const char *path)
{
    return channel_open(kind, AF_SP_RAW, NN_REP, path, true);
}

void channel_close(struct channel *channel)
{
    if (!channel) {
        return;
    }
    if (channel->socket >= 0) {
        while (nn_close(channel->socket) < 0 && errno == EINTR) {
        }
    }
    if (channel->bound_path) {
        unlink(channel->bound_path);
        free(channel->bound_path);
    }
    free(channel);
}

int channel_receive_fd(const struct channel *channel)
{
    return channel->receive_fd;
}

int channel_send_fd(const struct channel *channel)
{
    return channel->send_fd;
}

/* The frame around `message` in a nanomsg buffer, or NULL with errno set. */
static void *channel_pack(const struct channel *channel, const ProtobufCMessage *message)
{
    size_t length = protobuf_c_message_get_packed_size(message);

    if (length > CHANNEL_MESSAGE_MAX) {
        errno = EMSGSIZE;
        return NULL;
    }
    uint8_t *buffer = nn_allocmsg(sizeof(struct channel_frame) + length, 0);
    if (!buffer) {
        return NULL;
    }
    struct channel_frame frame = {
        .magic = htole32(CHANNEL_MAGIC),
        .kind = htole16((uint16_t)channel->kind),
        .length = htole32((uint32_t)length),
    };
    memcpy(buffer, &frame, sizeof(frame));
    protobuf_c_message_pack(message, buffer + sizeof(frame));
    return buffer;
}

static int channel_unpack(const struct channel *channel, const ProtobufCMessageDescriptor *type,
                          const uint8_t *buffer, size_t size, ProtobufCMessage **out)
{
    struct channel_frame frame;

    if (size > sizeof(frame) + CHANNEL_MESSAGE_MAX) {
        return -EMSGSIZE;
    }
    if (size < sizeof(frame)) {
        return -EBADMSG;
    }
    memcpy(&frame, buffer, sizeof(frame));
    if (le32toh(frame.magic) != CHANNEL_MAGIC || le16toh(frame.kind) != channel->kind ||
        frame.zero || le32toh(frame.length) != size - sizeof(frame)) {
        return -EBADMSG;
    }
    *out = protobuf_c_message_unpack(type, NULL, size - sizeof(frame), buffer + sizeof(frame));
    return *out ? 0 : -EBADMSG;
}

/* Give the socket the time that is left; the flags of the next call, or a negative errno. */
static int channel_set_wait(const struct channel *channel, int option, int timeout_ms,
                            uint64_t deadline)
{
    int wait_ms = timeout_ms > 0 ? clock_poll_ms(deadline) : timeout_ms;

    if (wait_ms == 0) {
        return NN_DONTWAIT;
    }
    if (channel_set_option(channel->socket, NN_SOL_SOCKET, option, wait_ms) < 0) {
        return -errno;
    }
    return 0;
}

int channel_send(struct channel *channel, const ProtobufCMessage *message, int timeout_ms)
{
    uint64_t deadline =
        clock_monotonic_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0) * NS_PER_MS;
    void *buffer = channel_pack(channel, message);

    if (!buffer) {
        return -errno;
    }
    for (;;) {
        int flags = channel_set_wait(channel, NN_SNDTIMEO, timeout_ms, deadline);
        if (flags < 0) {
            nn_freemsg(buffer);
            return flags;
        }
        if (nn_send(channel->socket, &buffer, NN_MSG, flags) >= 0) {
            return 0; /* nanomsg owns the buffer now */
        }
        if (errno != EINTR) {
            int result = errno == EAGAIN ? -ETIMEDOUT : -errno;
            nn_freemsg(buffer);
            return result;
        }
    }
}

int channel_receive(struct channel *channel, const ProtobufCMessageDescriptor *type,
                    ProtobufCMessage **out, int timeout_ms)
{
    uint64_t deadline =
        clock_monotonic_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0) * NS_PER_MS;
    uint8_t *buffer = NULL;
    int size;

    *out = NULL;
    do {
        int flags = channel_set_wait(channel, NN_RCVTIMEO, timeout_ms, deadline);
        if (flags < 0) {
            return flags;
        }
        size = nn_recv(channel->socket, &buffer, NN_MSG, flags);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return -errno;
    }
    int result = channel_unpack(channel, type, buffer, (size_t)size, out);
    nn_freemsg(buffer);
    return result == -EMSGSIZE ? -EBADMSG : result;
}

int channel_receive_request(struct channel *channel, const ProtobufCMessageDescriptor *type,
                            ProtobufCMessage **out, struct channel_route **route)
{
    uint8_t *buffer = NULL;
    void *control = NULL;
    struct nn_iovec vector = {.iov_base = &buffer, .iov_len = NN_MSG};
    struct nn_msghdr header = {
        .msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = NN_MSG,
    };
    int size;

    *out = NULL;
    *route = NULL;
    do {
        size = nn_recvmsg(channel->socket, &header, NN_DONTWAIT);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        return -errno;
    }
    struct channel_route *back = calloc(1, sizeof(*back));
    if (!back) {
        nn_freemsg(control);
        nn_freemsg(buffer);
        return -ENOMEM;
    }
    back->control = control;
    *route = back;
    int result = channel_unpack(channel, type, buffer, (size_t)size, out);
    nn_freemsg(buffer);
    return result;
}

int channel_reply(struct channel *channel, struct channel_route *route,
                  const ProtobufCMessage *message)
{
    void *buffer = channel_pack(channel, message);
    int result = buffer ? 0 : -errno;

    while (!result) {
        struct nn_iovec vector = {.iov_base = &buffer, .iov_len = NN_MSG};
        struct nn_msghdr header = {
            .msg_iov = &vector,
            .msg_iovlen = 1,
            .msg_control = &route->control,
            .msg_controllen = NN_MSG,
        };
        if (nn_sendmsg(channel->socket, &header, NN_DONTWAIT) >= 0) {
            route->control = NULL; /* nanomsg owns both now */
            break;
        }
        if (errno != EINTR) {
            result = -errno;
            nn_freemsg(buffer);
        }
    }
    channel_route_free(route);
    return result;
}

void channel_route_free(struct channel_route *route)
{
    if (route) {
        if (route->control) {
            nn_freemsg(route->control);
        }
        free(route);
    }
}
