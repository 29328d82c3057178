#include "devd/console.h"
#include "libshared/base/log.h"
#include "libshared/ipc/console.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Output may run this far ahead of a lossless client; beyond the backlog it is called held. */
#define RING_SIZE (CONSOLE_BACKLOG + CONSOLE_HEADROOM)
/* Released again: some hysteresis, so that producer and client work in larger steps. */
#define RELEASE_LAG (int64_t)(CONSOLE_BACKLOG / 4 * 3)
#define RETRY_MS    200
/* Sent to one client in one turn of the event loop. */
#define SEND_A_TURN  (256u << 10)
#define INPUT_A_TURN 4096u

struct client {
    struct console *console;
    int fd;
    struct event *readable; /* hello, then input; not pending while the device takes none */
    struct event *writable; /* pending while the socket is full */
    struct event *late;     /* hello did not come in time */
    bool greeted;
    bool input_ended; /* it closed its sending side */
    uint32_t flags;
    uint8_t hello[sizeof(struct console_hello)];
    size_t hello_size;
    uint64_t cursor; /* next byte of output to send */
};

struct console {
    struct event_base *base;
    const struct console_operations *operations;
    void *context;
    int listener;
    struct event *arrival;
    struct event *retry; /* accepting, after the host had no descriptor */
    struct event *flush; /* activated by console_write */
    struct event *limit; /* of a drain */
    struct client *clients[CONSOLE_CLIENTS_MAX];
    bool held;
    uint64_t written; /* bytes of output ever */
    void (*drained)(void *context);
    void *drained_context;
    uint8_t ring[RING_SIZE]; /* byte n of the output is at n % RING_SIZE */
};

/* ---- Clients ---- */

static void client_close(struct client *client)
{
    struct console *console = client->console;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->clients[i] == client) {
            console->clients[i] = NULL;
        }
    }
    struct event *const events[] = {client->readable, client->writable, client->late};
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    /* Unread input at close would reset the connection: say the end first, then take it away. In
     * both directions, or one that goes on writing would keep us reading for ever. */
    uint8_t rest[4096];
    shutdown(client->fd, SHUT_RDWR);
    while (recv(client->fd, rest, sizeof(rest), MSG_DONTWAIT) > 0) {
    }
    close(client->fd);
    free(client);
}

/* How far the slowest lossless client is behind; -1 when there is none. */
static int64_t console_lag(const struct console *console)
{
    int64_t lag = -1;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        const struct client *client = console->clients[i];
        if (client && client->greeted && (client->flags & CONSOLE_LOSSLESS)) {
            int64_t behind = (int64_t)(console->written - client->cursor);
            lag = behind > lag ? behind : lag;
        }
    }
    return lag;
}

/* Whether some client still waits for output, or has not yet said what it wants. */
static bool console_owes(const struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        const struct client *client = console->clients[i];
        if (client && (!client->greeted || client->cursor < console->written)) {
            return true;
        }
    }
    return false;
}

static void console_finish_drain(struct console *console)
{
    void (*drained)(void *) = console->drained;

    console->drained = NULL;
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->clients[i]) {
            client_close(console->clients[i]);
        }
    }
    drained(console->drained_context);
}

/* A client moved on or left: tell who waits for that. */
static void console_progress(struct console *console)
{
    if (console->held && console_lag(console) <= RELEASE_LAG) {
        console->held = false;
        console->operations->output_released(console->context);
    }
    if (console->drained && !console_owes(console)) {
        console_finish_drain(console);
    }
}

/* Send what it may get now. False when the client is gone. */
static bool client_send(struct client *client)
{
    struct console *console = client->console;

    /* One that lags more than the backlog loses the oldest bytes; lossless ones never do. */
    if (!(client->flags & CONSOLE_LOSSLESS) &&
        console->written - client->cursor > CONSOLE_BACKLOG) {
        client->cursor = console->written - CONSOLE_BACKLOG;
    }
    for (size_t sent = 0; client->cursor < console->written && sent < SEND_A_TURN;) {
        size_t at = client->cursor % RING_SIZE;
        size_t count = RING_SIZE - at;
        if (count > console->written - client->cursor) {
            count = (size_t)(console->written - client->cursor);
        }
        ssize_t done = send(client->fd, console->ring + at, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            client_close(client);
            return false;
        }
        if (done <= 0) {
            break;
        }
        client->cursor += (size_t)done;
        sent += (size_t)done;
    }
    if (client->cursor < console->written) {
        event_add(client->writable, NULL);
    } else {
        event_del(client->writable);
    }
    return true;
}

static void client_writable(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    client_send(client);
    console_progress(console);
}

static void client_late(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    log_warning("a console client did not introduce itself in time");
    client_close(client);
    console_progress(console);
}

/* The greeting, perhaps in pieces. False when the client is gone. */
static bool client_greet(struct client *client)
{
    struct console *console = client->console;
    struct console_hello hello;
    ssize_t got = recv(client->fd, client->hello + client->hello_size,
                       sizeof(hello) - client->hello_size, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (got <= 0) {
        client_close(client);
        return false;
    }
    client->hello_size += (size_t)got;
    if (client->hello_size < sizeof(hello)) {
        return true;
    }
    memcpy(&hello, client->hello, sizeof(hello));
    if (hello.magic != CONSOLE_MAGIC) {
        log_warning("a console client speaks another protocol");
        client_close(client);
        return false;
    }
    event_del(client->late);
    client->flags = hello.flags;
    client->greeted = true;
    client->cursor = console->written;
    if (!(hello.flags & CONSOLE_SKIP_BACKLOG)) {
        client->cursor -= console->written < CONSOLE_BACKLOG ? console->written : CONSOLE_BACKLOG;
    }
    return client_send(client);
}

static void client_input(struct client *client)
{
    struct console *console = client->console;
    uint8_t bytes[INPUT_A_TURN];
    bool drop = (client->flags & CONSOLE_READ_ONLY) || console->drained;
    size_t room = drop ? sizeof(bytes) : console->operations->input_room(console->context);

    if (room == 0) {
        event_del(client->readable); /* until console_input_resume */
        return;
    }
    ssize_t got =
        recv(client->fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes), MSG_DONTWAIT);
    if (got > 0) {
        if (!drop) {
            console->operations->input(console->context, bytes, (size_t)got);
        }
    } else if (got == 0) {
        /* It may still want output. When it is gone altogether, sending will tell. */
        client->input_ended = true;
        event_del(client->readable);
    } else if (errno != EAGAIN && errno != EINTR) {
        client_close(client);
    }
}

static void client_readable(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    if (client->greeted) {
        client_input(client);
    } else {
        client_greet(client);
    }
    console_progress(console);
}

static bool client_hung_up(const struct client *client)
{
    struct pollfd state = {.fd = client->fd};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR));
}

/* A free place; those that left after closing their sending side are noticed here at the latest. */
static struct client **console_place(struct console *console)
{
    struct client **place = NULL;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct client *client = console->clients[i];
        if (client && client->input_ended && client_hung_up(client)) {
            client_close(client);
        }
        if (!console->clients[i] && !place) {
            place = &console->clients[i];
        }
    }
    return place;
}

static int client_create(struct console *console, int fd)
{
    struct client **place = console_place(console);
    struct client *client = place ? calloc(1, sizeof(*client)) : NULL;
    struct timeval hello_time = {.tv_sec = CONSOLE_HELLO_MS / 1000,
                                 .tv_usec = CONSOLE_HELLO_MS % 1000 * 1000};

    if (!client) {
        log_warning(place ? "no memory for a console client" : "too many console clients");
        close(fd);
        return -ENOMEM;
    }
    *place = client;
    client->console = console;
    client->fd = fd;
    client->readable = event_new(console->base, fd, EV_READ | EV_PERSIST, client_readable, client);
    client->writable = event_new(console->base, fd, EV_WRITE | EV_PERSIST, client_writable, client);
    client->late = event_new(console->base, -1, 0, client_late, client);
    if (!client->readable || !client->writable || !client->late ||
        event_add(client->readable, NULL) < 0 || event_add(client->late, &hello_time) < 0) {
        client_close(client);
        return -ENOMEM;
    }
    return 0;
}

static void console_retry(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    event_add(console->arrival, NULL);
}

static void console_arrival(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)what;
    for (;;) {
        int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            client_create(console, client);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            /* Out of descriptors, say: the loop must not spin on it. */
            struct timeval later = {.tv_usec = RETRY_MS * 1000};
            log_warning("cannot accept a console client: %s", strerror(errno));
            event_del(console->arrival);
            event_add(console->retry, &later);
        }
        return;
    }
}

/* ---- Output and input ---- */

static void console_flush(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct client *client = console->clients[i];
        if (client && client->greeted && !event_pending(client->writable, EV_WRITE, NULL)) {
            client_send(client);
        }
    }
    console_progress(console);
}

size_t console_write(struct console *console, const uint8_t *bytes, size_t count)
{
    int64_t lag = console_lag(console);
    size_t taken = count;

    if (lag >= 0 && taken > RING_SIZE - (size_t)lag) {
        taken = RING_SIZE - (size_t)lag;
    }
    for (size_t done = 0; done < taken;) {
        size_t at = console->written % RING_SIZE;
        size_t part = RING_SIZE - at;
        part = part < taken - done ? part : taken - done;
        memcpy(console->ring + at, bytes + done, part);
        console->written += part;
        done += part;
    }
    if (lag >= 0 && (size_t)lag + taken >= CONSOLE_BACKLOG) {
        console->held = true;
    }
    if (taken) {
        event_active(console->flush, EV_WRITE, 0);
    }
    return taken;
}

bool console_held(const struct console *console)
{
    return console->held;
}

void console_input_resume(struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct client *client = console->clients[i];
        if (client && !client->input_ended && !event_pending(client->readable, EV_READ, NULL)) {
            event_add(client->readable, NULL);
        }
    }
}

/* ---- Start and end ---- */

struct console *console_create(struct event_base *base, int listener,
                               const struct console_operations *operations, void *context)
{
    struct console *console = calloc(1, sizeof(*console));

    if (!console) {
        close(listener);
        errno = ENOMEM;
        return NULL;
    }
    console->base = base;
    console->operations = operations;
    console->context = context;
    console->listener = listener;
    fcntl(listener, F_SETFL, O_NONBLOCK);
    console->arrival = event_new(base, listener, EV_READ | EV_PERSIST, console_arrival, console);
    console->flush = event_new(base, -1, 0, console_flush, console);
    console->retry = event_new(base, -1, 0, console_retry, console);
    if (!console->arrival || !console->flush || !console->retry ||
        event_add(console->arrival, NULL) < 0) {
        console_destroy(console);
        errno = ENOMEM;
        return NULL;
    }
    return console;
}

void console_destroy(struct console *console)
{
    if (!console) {
        return;
    }
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->clients[i]) {
            client_close(console->clients[i]);
        }
    }
    struct event *const events[] = {console->arrival, console->retry, console->flush,
                                    console->limit};
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    close(console->listener);
    free(console);
}

static void console_limit(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    if (console->drained) {
        log_warning("console clients did not read all output in time");
        console_finish_drain(console);
    }
}

void console_drain(struct console *console, unsigned limit_ms, void (*drained)(void *context),
                   void *context)
{
    struct timeval limit = {.tv_sec = limit_ms / 1000, .tv_usec = limit_ms % 1000 * 1000};

    /* Whoever connected before the machine ended gets its output. */
    console_arrival(console->listener, EV_READ, console);
    event_del(console->arrival);
    event_del(console->retry);
    console_input_resume(console);
    console->drained = drained;
    console->drained_context = context;
    console->limit = event_new(console->base, -1, 0, console_limit, console);
    if (!console->limit || event_add(console->limit, &limit) < 0) {
        console_finish_drain(console);
        return;
    }
    console_flush(-1, EV_WRITE, console);
}
