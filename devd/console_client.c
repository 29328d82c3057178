#include "devd/console_internal.h"
#include "devd/order.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How often to see whether a client is still there that we do not read from. */
#define LOOK_MS 1000
/* Sent to one client in one turn of the event loop. */
#define SEND_A_TURN  (256u << 10)
#define INPUT_A_TURN 4096u

static struct console_seat *seat_of(const struct console_client *client)
{
    return client->seat == NO_SEAT ? NULL : &client->console->memory->seats[client->seat];
}

/* ---- Its end ---- */

void console_client_release(struct console_client *client)
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

void console_client_close(struct console_client *client)
{
    if (client->seat != NO_SEAT) {
        seat_of(client)->id = 0;
    }
    console_client_release(client);
}

static bool client_hung_up(const struct console_client *client)
{
    struct pollfd state = {.fd = client->fd};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR));
}

/* It left, and nothing that it sent waits for the device. */
static bool client_left(const struct console_client *client)
{
    char byte;
    return client_hung_up(client) && recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/* ---- Output ---- */

/* Whether there is something for it. */
static bool client_waits(const struct console_client *client)
{
    return client->welcome_size || client->cursor < client->console->now.written;
}

/* The next piece of what it is to get: the welcome first, then output. */
static size_t client_piece(const struct console_client *client, const void **bytes)
{
    const struct console *console = client->console;
    size_t at = client->cursor % CONSOLE_RING;
    size_t count = CONSOLE_RING - at;

    if (client->welcome_size) {
        *bytes = (const uint8_t *)(&client->welcome + 1) - client->welcome_size;
        return client->welcome_size;
    }
    *bytes = console->memory->ring + at;
    return count < console->now.written - client->cursor
               ? count
               : (size_t)(console->now.written - client->cursor);
}

static void client_advance(struct console_client *client, size_t sent)
{
    if (client->welcome_size) {
        client->welcome_size -= sent;
        return;
    }
    client->cursor += sent;
    if ((int64_t)(client->cursor - client->console->memory->unread) > 0) {
        client->console->memory->unread = client->cursor;
    }
    if (client->seat != NO_SEAT) {
        seat_of(client)->cursor = client->cursor;
    }
}

bool console_client_send(struct console_client *client)
{
    struct console *console = client->console;

    /* One that lags more than the backlog loses the oldest bytes; lossless ones never do. */
    if (!(client->flags & CONSOLE_LOSSLESS) &&
        console->now.written - client->cursor > CONSOLE_BACKLOG) {
        client->cursor = console->now.written - CONSOLE_BACKLOG;
    }
    for (size_t sent = 0; client_waits(client) && sent < SEND_A_TURN;) {
        const void *bytes;
        size_t count = client_piece(client, &bytes);
        ssize_t done = send(client->fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            console_client_close(client);
            return false;
        }
        if (done <= 0) {
            break;
        }
        client_advance(client, (size_t)done);
        sent += (size_t)done;
    }
    if (client_waits(client)) {
        event_add(client->writable, NULL);
    } else {
        event_del(client->writable);
    }
    return true;
}

static void client_writable(evutil_socket_t fd, short what, void *context)
{
    struct console_client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    console_client_send(client);
    console_clients_changed(console);
}

/* ---- How it is greeted ---- */

/* Its old seat, with what the guest got of it, or a new one. */
static unsigned seat_take(struct console *console, const struct console_hello *hello)
{
    struct console_seat *seats = console->memory->seats;
    unsigned chosen = NO_SEAT;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct console_client *client = console->clients[i];
        if (client && client->seat != NO_SEAT && seat_of(client)->id == hello->id) {
            console_client_release(client); /* its earlier connection, which it has left */
        }
    }
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (seats[i].id == hello->id) {
            console->awaited[i] = false;
            return i;
        }
        /* A free one, or else that of somebody who may come back and then is not known. */
        if (seats[i].id == 0 || (chosen == NO_SEAT && console->awaited[i])) {
            chosen = i;
        }
    }
    if (chosen != NO_SEAT) {
        console->awaited[chosen] = false;
        seats[chosen].taken = hello->input;
        order_stores();
        seats[chosen].id = hello->id;
    }
    return chosen;
}

/* Where its output begins. */
static uint64_t first_byte(const struct console *console, const struct console_hello *hello)
{
    uint64_t written = console->now.written;

    if ((hello->flags & CONSOLE_RESUME) && written - hello->output <= CONSOLE_RING) {
        return hello->output;
    }
    if ((hello->flags & CONSOLE_SKIP_BACKLOG) && !(hello->flags & CONSOLE_RESUME)) {
        return written;
    }
    if (console->stream) {
        return console_attached(console) ? written : console->memory->unread;
    }
    return written - (written < CONSOLE_BACKLOG ? written : CONSOLE_BACKLOG);
}

static void client_seat(struct console_client *client, const struct console_hello *hello)
{
    struct console *console = client->console;

    client->flags = hello->flags | (console->stream ? CONSOLE_LOSSLESS : 0);
    client->cursor = first_byte(console, hello);
    client->greeted = true;
    if (!hello->id) {
        return;
    }
    /* Should input of its still be in doubt, nobody will know better any more. */
    console_input_settle(console, console->memory->intent_total);
    client->seat = seat_take(console, hello);
    client->welcome = (struct console_welcome){
        .magic = CONSOLE_MAGIC, .output = client->cursor, .input = hello->input};
    client->welcome_size = sizeof(client->welcome);
    if (client->seat != NO_SEAT) {
        struct console_seat *seat = seat_of(client);
        seat->flags = client->flags;
        seat->cursor = client->cursor;
        client->welcome.input = seat->taken;
    }
}

/* A terminal's size. Whose it is tells it again once this process has died. */
static void take_size(struct console *console, const struct console_hello *hello)
{
    uint64_t columns = hello->output, rows = hello->input;
    uint32_t size = (uint32_t)(columns | rows << 16);

    if (columns - 1 >= CONSOLE_SIZE_MAX || rows - 1 >= CONSOLE_SIZE_MAX ||
        atomic_exchange(&console->memory->terminal, size) == size) {
        return;
    }
    if (console->operations->resized) {
        console->operations->resized(console->context);
    }
}

/* The greeting, perhaps in pieces. False when the client is gone. */
static bool client_greet(struct console_client *client)
{
    struct console_hello hello;
    ssize_t got = recv(client->fd, client->hello + client->hello_size,
                       sizeof(hello) - client->hello_size, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (got <= 0) {
        console_client_close(client);
        return false;
    }
    client->hello_size += (size_t)got;
    if (client->hello_size < sizeof(hello)) {
        return true;
    }
    memcpy(&hello, client->hello, sizeof(hello));
    if (hello.magic != CONSOLE_MAGIC) {
        log_warning("a console client speaks another protocol");
        console_client_close(client);
        return false;
    }
    if (hello.flags & CONSOLE_SIZE) {
        take_size(client->console, &hello);
        console_client_close(client);
        return false;
    }
    event_del(client->late);
    client_seat(client, &hello);
    return console_client_send(client);
}

/* ---- Input ---- */

/* Until console_input_resume, or for good. */
static void client_stop_reading(struct console_client *client)
{
    const struct timeval later = clock_timeval(LOOK_MS * NS_PER_MS);

    event_del(client->readable);
    event_add(client->late, &later);
}

static void input_give(struct console_client *client, const uint8_t *bytes, size_t count)
{
    struct console *console = client->console;

    console_input_intend(console, client->seat, count);
    console->operations->input(console->context, bytes, count);
    order_stores();
    console_input_settle(console, console->memory->intent_total);
    if (console->operations->input_noted) {
        console->operations->input_noted(console->context);
    }
}

static void client_input(struct console_client *client)
{
    struct console *console = client->console;
    uint8_t bytes[INPUT_A_TURN];
    bool drop = (client->flags & CONSOLE_READ_ONLY) || console->drained;
    size_t room = drop ? sizeof(bytes) : console->operations->input_room(console->context);

    if (room == 0) {
        client_stop_reading(client);
        return;
    }
    ssize_t got =
        recv(client->fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes), MSG_DONTWAIT);
    if (got > 0) {
        if (!drop) {
            input_give(client, bytes, (size_t)got);
        }
    } else if (got == 0) {
        /* It may still want output. */
        client->input_ended = true;
        if (client_hung_up(client)) {
            console_client_close(client);
        } else {
            client_stop_reading(client);
        }
    } else if (errno != EAGAIN && errno != EINTR) {
        console_client_close(client);
    }
}

static void client_readable(evutil_socket_t fd, short what, void *context)
{
    struct console_client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    if (client->greeted) {
        client_input(client);
    } else {
        client_greet(client);
    }
    console_clients_changed(console);
}

/* ---- Its beginning ---- */

static void client_late(evutil_socket_t fd, short what, void *context)
{
    struct console_client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    if (!client->greeted) {
        log_warning("a console client did not introduce itself in time");
        console_client_close(client);
    } else if (client_left(client)) {
        console_client_close(client);
    } else if (!event_pending(client->readable, EV_READ, NULL)) {
        client_stop_reading(client);
    }
    console_clients_changed(console);
}

/* A free place; those that left after closing their sending side are noticed here at the latest. */
static struct console_client **console_place(struct console *console)
{
    struct console_client **place = NULL;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct console_client *client = console->clients[i];
        if (client && client->input_ended && client_hung_up(client)) {
            console_client_close(client);
        }
        if (!console->clients[i] && !place) {
            place = &console->clients[i];
        }
    }
    return place;
}

void console_client_create(struct console *console, int fd, bool plain)
{
    static const struct console_hello no_hello = {.magic = CONSOLE_MAGIC};

    struct console_client **place = console_place(console);
    struct console_client *client = place ? calloc(1, sizeof(*client)) : NULL;
    const struct timeval hello_time = clock_timeval(CONSOLE_HELLO_MS * NS_PER_MS);

    if (!client) {
        log_warning(place ? "no memory for a console client" : "too many console clients");
        close(fd);
        return;
    }
    *place = client;
    client->console = console;
    client->fd = fd;
    client->seat = NO_SEAT;
    client->readable = event_new(console->base, fd, EV_READ | EV_PERSIST, client_readable, client);
    client->writable = event_new(console->base, fd, EV_WRITE | EV_PERSIST, client_writable, client);
    client->late = event_new(console->base, -1, 0, client_late, client);
    if (!client->readable || !client->writable || !client->late ||
        event_add(client->readable, NULL) < 0 ||
        (!plain && event_add(client->late, &hello_time) < 0)) {
        console_client_close(client);
        return;
    }
    if (plain) {
        client_seat(client, &no_hello);
        console_client_send(client);
    }
}
