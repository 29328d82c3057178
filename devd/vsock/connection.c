#include "devd/vsock/connection.h"

#include "libshared/base/descriptor.h"
#include "libshared/base/vectors.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define DEADLINE_SECONDS 10          /* to greet, and to answer a request */
#define PACKET_MAX       (64u << 10) /* the most that drivers take in one */
#define PIECES_MAX       64u         /* of one call */
#define TOLD_LATE        (VSOCK_BUFFER_BYTES / 2)

/* ---- Life ---- */

static void look(struct vsock_connection *connection)
{
    connection->port->look(connection->port->context, connection);
}

static void owe(struct vsock_connection *connection, enum vsock_owed packet)
{
    connection->owed |= packet;
    look(connection);
}

static void free_event(struct event **event)
{
    if (*event) {
        event_free(*event);
    }
    *event = NULL;
}

static void close_host(struct vsock_connection *connection)
{
    free_event(&connection->readable);
    free_event(&connection->writable);
    free_event(&connection->deadline);
    descriptor_close(&connection->fd);
}

/* Whether the guest has heard of it. */
static bool is_known(const struct vsock_connection *connection)
{
    return connection->phase == VSOCK_OPEN ||
           (connection->phase == VSOCK_ASKING && !(connection->owed & VSOCK_OWES_REQUEST));
}

static void end(struct vsock_connection *connection, bool tell)
{
    connection->owed = tell && is_known(connection) ? VSOCK_OWES_RESET : 0;
    connection->phase = VSOCK_DEAD;
    close_host(connection);
    look(connection);
}

bool vsock_connection_over(const struct vsock_connection *connection)
{
    return connection->phase == VSOCK_DEAD && !connection->owed;
}

void vsock_connection_free(struct vsock_connection *connection)
{
    close_host(connection);
    free(connection->buffer);
    free(connection);
}

static void on_deadline(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    end(context, true);
}

static void wait_for_host(struct vsock_connection *connection)
{
    event_add(connection->readable, NULL);
}

/* ---- Coming from the host ---- */

/* The port of "CONNECT PORT". */
static bool parse_greeting(const char *line, uint32_t *port)
{
    char *rest;

    if (strncmp(line, "CONNECT ", 8) != 0 || line[8] < '0' || line[8] > '9') {
        return false;
    }
    unsigned long long value = strtoull(line + 8, &rest, 10);
    *port = (uint32_t)value;
    return *rest == '\0' && value < UINT32_MAX;
}

/* Byte by byte: what follows the line is for the guest. */
static void read_greeting(struct vsock_connection *connection)
{
    const struct vsock_port *port = connection->port;
    char *line = connection->greeting;
    unsigned at = connection->greeting_length;

    while (at < VSOCK_GREETING_MAX) {
        ssize_t bytes = recv(connection->fd, line + at, 1, MSG_DONTWAIT);
        if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
            connection->greeting_length = at;
            wait_for_host(connection);
            return;
        }
        if (bytes <= 0) {
            break;
        }
        if (line[at] == '\n') {
            line[at] = '\0';
            if (!parse_greeting(line, &connection->guest_port)) {
                break;
            }
            connection->host_port = port->host_port(port->context, connection->guest_port);
            connection->phase = VSOCK_ASKING;
            owe(connection, VSOCK_OWES_REQUEST);
            return;
        }
        at++;
    }
    end(connection, false);
}

/* An end needs no room in the guest. */
static void look_for_end(struct vsock_connection *connection)
{
    char byte;

    if (recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        connection->has_data = false;
        connection->owed |= VSOCK_OWES_SHUTDOWN;
    }
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    struct vsock_connection *connection = context;

    (void)fd, (void)what;
    if (connection->phase == VSOCK_GREETING) {
        read_greeting(connection);
    } else {
        connection->has_data = true;
        look_for_end(connection);
        look(connection);
    }
}

/* ---- Going to the host ---- */

/* The guest is done and the host's process has all of it. */
static void finish(struct vsock_connection *connection)
{
    if (connection->guest_ended && connection->guest_reads_not) {
        end(connection, true);
    } else if (connection->guest_ended) {
        shutdown(connection->fd, SHUT_WR);
    }
}

static ssize_t write_pieces(struct vsock_connection *connection, const struct iovec *pieces,
                            unsigned count)
{
    const struct msghdr message = {.msg_iov = (struct iovec *)pieces, .msg_iovlen = count};
    ssize_t bytes = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
        bytes = 0;
    }
    if (bytes > 0) {
        connection->taken += (uint32_t)bytes;
    }
    return bytes;
}

static void tell_credit(struct vsock_connection *connection)
{
    if (connection->taken - connection->told >= TOLD_LATE) {
        owe(connection, VSOCK_OWES_CREDIT);
    }
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    struct vsock_connection *connection = context;
    uint32_t first = VSOCK_BUFFER_BYTES - connection->head;
    const struct iovec pieces[2] = {
        {connection->buffer + connection->head,
         connection->length < first ? connection->length : first},
        {connection->buffer, connection->length < first ? 0 : connection->length - first},
    };
    (void)fd, (void)what;

    ssize_t bytes = write_pieces(connection, pieces, 2);
    if (bytes < 0) {
        end(connection, true);
        return;
    }
    connection->head = (connection->head + (uint32_t)bytes) % VSOCK_BUFFER_BYTES;
    connection->length -= (uint32_t)bytes;
    tell_credit(connection);
    if (connection->length) {
        event_add(connection->writable, NULL);
    } else {
        finish(connection);
    }
}

/* Behind what waits already; the credit says that there is room. */
static void keep(struct vsock_connection *connection, const struct iovec *pieces, unsigned count,
                 size_t skip)
{
    for (unsigned i = 0; i < count; i++) {
        size_t from = skip < pieces[i].iov_len ? skip : pieces[i].iov_len;
        skip -= from;
        while (from < pieces[i].iov_len) {
            uint32_t at = (connection->head + connection->length) % VSOCK_BUFFER_BYTES;
            size_t bytes = pieces[i].iov_len - from;
            bytes = bytes < VSOCK_BUFFER_BYTES - at ? bytes : VSOCK_BUFFER_BYTES - at;
            memcpy(connection->buffer + at, (const uint8_t *)pieces[i].iov_base + from, bytes);
            connection->length += (uint32_t)bytes;
            from += bytes;
        }
    }
}

static void take_data(struct vsock_connection *connection, uint32_t bytes,
                      const struct iovec *pieces, unsigned count)
{
    ssize_t written = 0;

    if (connection->guest_ended ||
        bytes > VSOCK_BUFFER_BYTES - (connection->received - connection->taken)) {
        end(connection, true); /* more than it has credit for */
        return;
    }
    connection->received += bytes;
    if (connection->length == 0) {
        written = write_pieces(connection, pieces, count < PIECES_MAX ? count : PIECES_MAX);
    }
    if (written >= 0 && (size_t)written < bytes && !connection->buffer) {
        connection->buffer = malloc(VSOCK_BUFFER_BYTES);
    }
    if (written < 0 || ((size_t)written < bytes && !connection->buffer)) {
        end(connection, true);
        return;
    }
    if ((size_t)written < bytes) {
        keep(connection, pieces, count, (size_t)written);
        event_add(connection->writable, NULL);
    }
    tell_credit(connection);
}

/* ---- Packets of the guest ---- */

static void open_stream(struct vsock_connection *connection)
{
    connection->phase = VSOCK_OPEN;
    event_del(connection->deadline);
    wait_for_host(connection);
}

static void take_response(struct vsock_connection *connection)
{
    char line[32];

    if (connection->phase != VSOCK_ASKING || connection->owed & VSOCK_OWES_REQUEST) {
        end(connection, true);
        return;
    }
    int length = snprintf(line, sizeof(line), "OK %u\n", connection->host_port);
    if (send(connection->fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) != length) {
        end(connection, true); /* nobody is there any more: the socket was empty */
        return;
    }
    open_stream(connection);
}

static void take_shutdown(struct vsock_connection *connection, uint32_t flags)
{
    connection->guest_ended |= (flags & VIRTIO_VSOCK_SHUTDOWN_SEND) != 0;
    connection->guest_reads_not |= (flags & VIRTIO_VSOCK_SHUTDOWN_RCV) != 0;
    if (connection->length == 0) {
        finish(connection);
    }
}

void vsock_connection_packet(struct vsock_connection *connection,
                             const struct virtio_vsock_hdr *header, const struct iovec *payload,
                             unsigned pieces)
{
    if (connection->phase == VSOCK_DEAD) {
        return; /* its reset is on the way */
    }
    connection->guest_room = header->buf_alloc;
    connection->guest_taken = header->fwd_cnt;
    if (header->op == VIRTIO_VSOCK_OP_RST) {
        end(connection, false);
    } else if (header->op == VIRTIO_VSOCK_OP_RESPONSE) {
        take_response(connection);
    } else if (connection->phase != VSOCK_OPEN) {
        end(connection, true);
    } else if (header->op == VIRTIO_VSOCK_OP_RW) {
        take_data(connection, header->len, payload, pieces);
    } else if (header->op == VIRTIO_VSOCK_OP_SHUTDOWN) {
        take_shutdown(connection, header->flags);
    } else if (header->op == VIRTIO_VSOCK_OP_CREDIT_REQUEST) {
        owe(connection, VSOCK_OWES_CREDIT);
    } else if (header->op != VIRTIO_VSOCK_OP_CREDIT_UPDATE) {
        end(connection, true);
    }
    if (vsock_connection_ready(connection)) {
        look(connection);
    }
}

/* ---- Packets for the guest ---- */

/* How many bytes the guest has room for. */
static uint32_t credit(const struct vsock_connection *connection)
{
    uint32_t under_way = connection->sent - connection->guest_taken;
    return under_way < connection->guest_room ? connection->guest_room - under_way : 0;
}

static bool may_send_data(const struct vsock_connection *connection)
{
    return connection->phase == VSOCK_OPEN && connection->has_data &&
           !connection->guest_reads_not && credit(connection) > 0;
}

bool vsock_connection_ready(const struct vsock_connection *connection)
{
    return connection->owed || may_send_data(connection);
}

/* What the host's process wrote; 0: nothing now, or it has ended. */
static uint32_t read_data(struct vsock_connection *connection, const struct iovec *pieces,
                          unsigned count)
{
    uint32_t most = credit(connection) < PACKET_MAX ? credit(connection) : PACKET_MAX;
    struct iovec limited[PIECES_MAX];
    struct msghdr message = {.msg_iov = limited};

    message.msg_iovlen = vectors_cut(pieces, count, 0, most, limited, PIECES_MAX);
    ssize_t bytes = recvmsg(connection->fd, &message, MSG_DONTWAIT);
    if (bytes > 0) {
        connection->sent += (uint32_t)bytes;
        return (uint32_t)bytes;
    }
    connection->has_data = false;
    if (bytes == 0) {
        connection->owed |= VSOCK_OWES_SHUTDOWN;
    } else if (errno == EAGAIN || errno == EINTR) {
        wait_for_host(connection);
    } else {
        end(connection, true);
    }
    return 0;
}

/* Which directions the host's process has closed. */
static uint32_t shutdown_flags(const struct vsock_connection *connection)
{
    struct pollfd host = {.fd = connection->fd};

    return poll(&host, 1, 0) == 1 && host.revents & POLLHUP
               ? VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV
               : VIRTIO_VSOCK_SHUTDOWN_SEND;
}

/* The packet that is owed first, taken off the list; VIRTIO_VSOCK_OP_INVALID: none. */
static uint16_t take_owed(struct vsock_connection *connection)
{
    static const struct {
        enum vsock_owed owed;
        uint16_t op;
    } packets[] = {
        {VSOCK_OWES_RESET, VIRTIO_VSOCK_OP_RST},
        {VSOCK_OWES_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
        {VSOCK_OWES_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
        {VSOCK_OWES_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
        {VSOCK_OWES_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
    };

    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        if (connection->owed & packets[i].owed) {
            connection->owed &= ~(unsigned)packets[i].owed;
            return packets[i].op;
        }
    }
    return VIRTIO_VSOCK_OP_INVALID;
}

bool vsock_connection_next(struct vsock_connection *connection, struct virtio_vsock_hdr *header,
                           const struct iovec *pieces, unsigned count)
{
    uint32_t bytes = 0;

    memset(header, 0, sizeof(*header));
    if (!connection->owed && may_send_data(connection)) {
        bytes = read_data(connection, pieces, count);
    }
    header->op = bytes ? VIRTIO_VSOCK_OP_RW : take_owed(connection);
    if (header->op == VIRTIO_VSOCK_OP_INVALID) {
        return false;
    }
    if (header->op == VIRTIO_VSOCK_OP_SHUTDOWN) {
        header->flags = shutdown_flags(connection);
    }
    header->src_port = connection->host_port;
    header->dst_port = connection->guest_port;
    header->len = bytes;
    header->buf_alloc = VSOCK_BUFFER_BYTES;
    header->fwd_cnt = connection->told = connection->taken;
    connection->owed &= ~(unsigned)VSOCK_OWES_CREDIT; /* each packet tells it */
    return true;
}

/* ---- Making one ---- */

static struct vsock_connection *create(const struct vsock_port *port, int fd)
{
    struct vsock_connection *connection = calloc(1, sizeof(*connection));

    if (!connection) {
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    connection->port = port;
    connection->fd = fd;
    connection->readable = event_new(port->base, fd, EV_READ, on_readable, connection);
    connection->writable = event_new(port->base, fd, EV_WRITE, on_writable, connection);
    connection->deadline = evtimer_new(port->base, on_deadline, connection);
    if (!connection->readable || !connection->writable || !connection->deadline) {
        vsock_connection_free(connection);
        return NULL;
    }
    return connection;
}

struct vsock_connection *vsock_connection_accept(const struct vsock_port *port, int fd)
{
    const struct timeval limit = {DEADLINE_SECONDS, 0};
    struct vsock_connection *connection = create(port, fd);

    if (connection) {
        connection->phase = VSOCK_GREETING;
        event_add(connection->deadline, &limit);
        wait_for_host(connection);
    }
    return connection;
}

/* A Unix socket answers at once, if anybody listens and has not too many waiting. */
static bool reach(int fd, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        return false;
    }
    memcpy(address.sun_path, path, strlen(path));
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

struct vsock_connection *vsock_connection_reach(const struct vsock_port *port, const char *path,
                                                const struct virtio_vsock_hdr *request)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct vsock_connection *connection = fd < 0 ? NULL : create(port, fd);

    if (!connection) {
        return NULL;
    }
    connection->guest_port = request->src_port;
    connection->host_port = request->dst_port;
    connection->guest_room = request->buf_alloc;
    connection->guest_taken = request->fwd_cnt;
    open_stream(connection);
    if (reach(fd, path)) {
        owe(connection, VSOCK_OWES_RESPONSE);
    } else {
        end(connection, true);
    }
    return connection;
}
