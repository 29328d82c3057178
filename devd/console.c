#include "devd/console.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Released again: some hysteresis, so that producer and client work in larger steps. */
#define RELEASE_LAG (int64_t)(CONSOLE_BACKLOG / 4 * 3)
#define RETRY_MS    200
/* How often to see whether a client is still there that we do not read from. */
#define LOOK_MS 1000
/* Sent to one client in one turn of the event loop. */
#define SEND_A_TURN  (256u << 10)
#define INPUT_A_TURN 4096u
#define NO_SEAT      CONSOLE_CLIENTS_MAX
/* A test's process dies at each of these. */
#ifndef CONSOLE_STEP
#define CONSOLE_STEP() (void)0
#endif
/* Stores that another process may have to go on from stay in their order: it sees all that a dead
 * one had executed. */
#define ORDERED()                                                                                  \
    do {                                                                                           \
        atomic_signal_fence(memory_order_seq_cst);                                                 \
        CONSOLE_STEP();                                                                            \
    } while (0)

struct client {
    struct console *console;
    int fd;
    struct event *readable; /* hello, then input; not pending while the device takes none */
    struct event *writable; /* pending while the socket is full */
    struct event *late;     /* hello did not come in time; then to see whether it is still there */
    bool greeted;
    bool input_ended; /* it closed its sending side */
    uint32_t flags;
    uint8_t hello[sizeof(struct console_hello)];
    size_t hello_size;
    struct console_welcome welcome;
    size_t welcome_size; /* bytes of it still to send, the last ones */
    uint64_t cursor;     /* next byte of output to send */
    unsigned seat;       /* NO_SEAT: it has no name */
};

struct console {
    struct event_base *base;
    const struct console_operations *operations;
    void *context;
    int listener, plain;
    bool stream;
    bool present; /* as the device was told: there are clients */
    struct event *arrival;
    struct event *plain_arrival; /* or NULL */
    struct event *retry;         /* accepting, after the host had no descriptor */
    struct event *flush;         /* activated by console_write */
    struct event *limit;         /* of a drain */
    struct event *patience;      /* for those that are awaited */
    struct client *clients[CONSOLE_CLIENTS_MAX];
    bool awaited[CONSOLE_CLIENTS_MAX]; /* seats of an earlier process's clients, not back yet */
    bool held;
    struct console_progress now; /* as in the memory */
    void (*drained)(void *context);
    void *drained_context;
    struct panic_watch *panics;    /* or NULL */
    struct console_memory *memory; /* copied out of once, then believed: only we write it now */
};

/* ---- The memory ---- */

static struct console_seat *seat_of(const struct client *client)
{
    return client->seat == NO_SEAT ? NULL : &client->console->memory->seats[client->seat];
}

static void progress_save(struct console *console)
{
    struct console_memory *memory = console->memory;
    uint32_t other = !(atomic_load_explicit(&memory->selected, memory_order_relaxed) & 1);

    memory->progress[other] = console->now;
    ORDERED();
    atomic_store_explicit(&memory->selected, other, memory_order_release);
    ORDERED();
}

/* Go on from what an earlier process left, whatever it left. */
static void memory_take_over(struct console *console)
{
    struct console_memory *memory = console->memory;

    console->now = memory->progress[atomic_load(&memory->selected) & 1];
    if (console->now.since_mark > console->now.written) {
        console->now.since_mark = 0;
    }
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct console_seat *seat = &memory->seats[i];
        console->awaited[i] = seat->id != 0;
        if (console->now.written - seat->cursor > CONSOLE_RING) {
            seat->cursor = console->now.written;
        }
    }
    if (console->now.written - memory->unread > CONSOLE_RING) {
        memory->unread = console->now.written;
    }
    if (memory->intent_seat > NO_SEAT) {
        memory->intent_seat = NO_SEAT;
    }
    if (memory->intent_total < memory->input_total) {
        memory->intent_total = memory->input_total;
    }
}

static int memory_map(struct console *console, int fd)
{
    struct stat info;

    if (fd < 0 || fstat(fd, &info) < 0 || info.st_size < (off_t)CONSOLE_MEMORY_SIZE) {
        return -EPROTO;
    }
    void *map = mmap(NULL, CONSOLE_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    console->memory = map;
    if (console->memory->magic != CONSOLE_MEMORY_MAGIC ||
        console->memory->version != CONSOLE_MEMORY_VERSION) {
        return -EPROTO;
    }
    memory_take_over(console);
    return 0;
}

/* ---- Who listens ---- */

/* How many bytes of output a seat's client may still want. */
static uint64_t seat_lag(const struct console *console, unsigned seat)
{
    return console->now.written - console->memory->seats[seat].cursor;
}

/* ---- Clients ---- */

/* Without giving up its seat. */
static void client_release(struct client *client)
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

static void client_close(struct client *client)
{
    if (client->seat != NO_SEAT) {
        seat_of(client)->id = 0;
    }
    client_release(client);
}

bool console_attached(const struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        const struct client *client = console->clients[i];
        if ((client && client->greeted) || console->awaited[i]) {
            return true;
        }
    }
    return false;
}

/* How far the slowest lossless client is behind; -1 when there is none. */
static int64_t console_lag(const struct console *console)
{
    int64_t lag = -1;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        const struct client *client = console->clients[i];
        if (client && client->greeted && (client->flags & CONSOLE_LOSSLESS)) {
            int64_t behind = (int64_t)(console->now.written - client->cursor);
            lag = behind > lag ? behind : lag;
        }
        if (console->awaited[i] && (console->memory->seats[i].flags & CONSOLE_LOSSLESS)) {
            int64_t behind = (int64_t)seat_lag(console, i);
            lag = behind > lag ? behind : lag;
        }
    }
    if (console->stream && !console_attached(console)) {
        return (int64_t)(console->now.written - console->memory->unread);
    }
    return lag;
}

/* Whether some client still waits for output, or has not yet said what it wants. */
static bool console_owes(const struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        const struct client *client = console->clients[i];
        if (client && (!client->greeted || client->cursor < console->now.written)) {
            return true;
        }
        if (console->awaited[i] && seat_lag(console, i)) {
            return true;
        }
    }
    return false;
}

static void console_finish_drain(struct console *console)
{
    void (*drained)(void *) = console->drained;

    console->drained = NULL;
    event_del(console->arrival);
    if (console->plain_arrival) {
        event_del(console->plain_arrival);
    }
    event_del(console->retry);
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->clients[i]) {
            client_close(console->clients[i]);
        }
    }
    drained(console->drained_context);
}

/* A client came, moved on or left: tell who waits for that. */
static void console_progress(struct console *console)
{
    bool present = console_attached(console);

    if (present != console->present) {
        console->present = present;
        if (console->operations->attached) {
            console->operations->attached(console->context, present);
        }
    }
    if (console->held && console_lag(console) <= RELEASE_LAG) {
        console->held = false;
        console->operations->output_released(console->context);
    }
    if (console->drained && !console_owes(console)) {
        console_finish_drain(console);
    }
}

/* Whether there is something for it. */
static bool client_waits(const struct client *client)
{
    return client->welcome_size || client->cursor < client->console->now.written;
}

/* The next piece of what it is to get: the welcome first, then output. */
static size_t client_piece(const struct client *client, const void **bytes)
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

static void client_advance(struct client *client, size_t sent)
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

/* Send what it may get now. False when the client is gone. */
static bool client_send(struct client *client)
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
            client_close(client);
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
    struct client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    client_send(client);
    console_progress(console);
}

static bool client_hung_up(const struct client *client)
{
    struct pollfd state = {.fd = client->fd};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR));
}

/* It left, and nothing that it sent waits for the device. */
static bool client_left(const struct client *client)
{
    char byte;
    return client_hung_up(client) && recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/* Until console_input_resume, or for good. */
static void client_stop_reading(struct client *client)
{
    const struct timeval later = {.tv_sec = LOOK_MS / 1000};

    event_del(client->readable);
    event_add(client->late, &later);
}

static void client_late(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;
    struct console *console = client->console;

    (void)fd;
    (void)what;
    if (!client->greeted) {
        log_warning("a console client did not introduce itself in time");
        client_close(client);
    } else if (client_left(client)) {
        client_close(client);
    } else if (!event_pending(client->readable, EV_READ, NULL)) {
        client_stop_reading(client);
    }
    console_progress(console);
}

/* Its old seat, with what the guest got of it, or a new one. */
static unsigned seat_take(struct console *console, const struct console_hello *hello)
{
    struct console_seat *seats = console->memory->seats;
    unsigned chosen = NO_SEAT;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct client *client = console->clients[i];
        if (client && client->seat != NO_SEAT && seat_of(client)->id == hello->id) {
            client_release(client); /* its earlier connection, which it has left */
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
        ORDERED();
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

static void client_seat(struct client *client, const struct console_hello *hello)
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

/* The greeting, perhaps in pieces. False when the client is gone. */
static bool client_greet(struct client *client)
{
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
    client_seat(client, &hello);
    return client_send(client);
}

/* Give input to the device: it has it, or has not, whenever the process dies. */
static void input_give(struct client *client, const uint8_t *bytes, size_t count)
{
    struct console *console = client->console;
    struct console_memory *memory = console->memory;

    console_input_settle(console, memory->intent_total);
    memory->intent_seat = client->seat;
    memory->intent_taken = client->seat == NO_SEAT ? 0 : seat_of(client)->taken + count;
    ORDERED();
    memory->intent_total = memory->input_total + count;
    ORDERED();
    console->operations->input(console->context, bytes, count);
    ORDERED();
    console_input_settle(console, memory->intent_total);
    if (console->operations->input_noted) {
        console->operations->input_noted(console->context);
    }
}

static void client_input(struct client *client)
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
            client_close(client);
        } else {
            client_stop_reading(client);
        }
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

/* A plain client is greeted by being there. */
static int client_create(struct console *console, int fd, bool plain)
{
    static const struct console_hello no_hello = {.magic = CONSOLE_MAGIC};

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
    client->seat = NO_SEAT;
    client->readable = event_new(console->base, fd, EV_READ | EV_PERSIST, client_readable, client);
    client->writable = event_new(console->base, fd, EV_WRITE | EV_PERSIST, client_writable, client);
    client->late = event_new(console->base, -1, 0, client_late, client);
    if (!client->readable || !client->writable || !client->late ||
        event_add(client->readable, NULL) < 0 ||
        (!plain && event_add(client->late, &hello_time) < 0)) {
        client_close(client);
        return -ENOMEM;
    }
    if (plain) {
        client_seat(client, &no_hello);
        client_send(client);
    }
    return 0;
}

static void console_retry(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    event_add(console->arrival, NULL);
    if (console->plain_arrival) {
        event_add(console->plain_arrival, NULL);
    }
}

static void console_arrival(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)what;
    for (;;) {
        int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            client_create(console, client, fd == console->plain);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            /* Out of descriptors, say: the loop must not spin on it. */
            struct timeval later = {.tv_usec = RETRY_MS * 1000};
            log_warning("cannot accept a console client: %s", strerror(errno));
            event_del(fd == console->plain ? console->plain_arrival : console->arrival);
            event_add(console->retry, &later);
        }
        break;
    }
    console_progress(console);
}

/* ---- Output and input ---- */

static void console_flush(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    if (console->panics) {
        panic_watch_look(console->panics, console->now.written);
    }
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct client *client = console->clients[i];
        if (client && client->greeted && !event_pending(client->writable, EV_WRITE, NULL)) {
            client_send(client);
        }
    }
    console_progress(console);
}

static size_t ring_write(struct console *console, const uint8_t *bytes, size_t count, bool marked)
{
    int64_t lag = console_lag(console);
    size_t taken = count;

    if (lag >= 0 && taken > CONSOLE_RING - (size_t)lag) {
        taken = CONSOLE_RING - (size_t)lag;
    }
    for (size_t done = 0; done < taken;) {
        size_t at = (console->now.written + done) % CONSOLE_RING;
        size_t part = CONSOLE_RING - at;
        part = part < taken - done ? part : taken - done;
        memcpy(console->memory->ring + at, bytes + done, part);
        done += part;
    }
    console->now.written += taken;
    console->now.since_mark += marked ? taken : 0;
    progress_save(console);
    if (lag >= 0 && (size_t)lag + taken >= CONSOLE_BACKLOG) {
        console->held = true;
    }
    if (taken) {
        event_active(console->flush, EV_WRITE, 0);
    }
    return taken;
}

size_t console_write(struct console *console, const uint8_t *bytes, size_t count)
{
    return ring_write(console, bytes, count, true);
}

size_t console_write_aside(struct console *console, const uint8_t *bytes, size_t count)
{
    return ring_write(console, bytes, count, false);
}

void console_mark(struct console *console)
{
    ORDERED();
    if (console->now.since_mark) {
        console->now.since_mark = 0;
        progress_save(console);
    }
}

uint64_t console_since_mark(const struct console *console)
{
    return console->now.since_mark;
}

uint64_t console_position(const struct console *console)
{
    return console->now.written;
}

void console_rewind(struct console *console, uint64_t position)
{
    uint64_t back = console->now.written - position;

    if (back == 0 || back > CONSOLE_HEADROOM) {
        return;
    }
    console->now.written = position;
    console->now.since_mark -= back < console->now.since_mark ? back : console->now.since_mark;
    progress_save(console);
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->awaited[i] && console->memory->seats[i].cursor > position) {
            console->memory->seats[i].cursor =
                position; /* of a damaged memory: nobody was sent it */
        }
    }
}

uint64_t console_input_position(const struct console *console)
{
    return console->memory->input_total;
}

uint64_t console_input_doubtful(const struct console *console)
{
    return console->memory->intent_total - console->memory->input_total;
}

void console_input_settle(struct console *console, uint64_t position)
{
    struct console_memory *memory = console->memory;

    if (memory->intent_total == memory->input_total) {
        return;
    }
    if (position != memory->intent_total) {
        memory->intent_total = memory->input_total; /* never happened: the client sends it again */
        return;
    }
    if (memory->intent_seat < CONSOLE_CLIENTS_MAX) {
        memory->seats[memory->intent_seat].taken = memory->intent_taken;
    }
    ORDERED();
    memory->input_total = memory->intent_total;
    ORDERED();
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

/* Those of an earlier process's clients that have not come back will not. */
static void console_forget(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->awaited[i]) {
            console->awaited[i] = false;
            console->memory->seats[i].id = 0;
        }
    }
    console_progress(console);
}

/* The sockets, and what happens later. 0 or -ENOMEM. */
static int console_listen(struct console *console)
{
    const struct timeval patience = {.tv_sec = CONSOLE_AWAIT_MS / 1000};
    struct event_base *base = console->base;

    fcntl(console->listener, F_SETFL, O_NONBLOCK);
    console->arrival =
        event_new(base, console->listener, EV_READ | EV_PERSIST, console_arrival, console);
    console->flush = event_new(base, -1, 0, console_flush, console);
    console->retry = event_new(base, -1, 0, console_retry, console);
    console->patience = event_new(base, -1, 0, console_forget, console);
    if (!console->arrival || !console->flush || !console->retry || !console->patience ||
        event_add(console->arrival, NULL) < 0 || event_add(console->patience, &patience) < 0) {
        return -ENOMEM;
    }
    if (console->plain >= 0) {
        fcntl(console->plain, F_SETFL, O_NONBLOCK);
        console->plain_arrival =
            event_new(base, console->plain, EV_READ | EV_PERSIST, console_arrival, console);
        if (!console->plain_arrival || event_add(console->plain_arrival, NULL) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

struct console *console_open(struct event_base *base, const struct console_settings *settings,
                             const struct console_operations *operations, void *context)
{
    struct console *console = calloc(1, sizeof(*console));

    if (!console) {
        close(settings->listener);
        if (settings->plain >= 0) {
            close(settings->plain);
        }
        errno = ENOMEM;
        return NULL;
    }
    console->base = base;
    console->operations = operations;
    console->context = context;
    console->listener = settings->listener;
    console->plain = settings->plain;
    console->stream = settings->stream;
    int status = memory_map(console, settings->memory);
    status = status < 0 ? status : console_listen(console);
    if (status < 0) {
        console_destroy(console);
        errno = -status;
        return NULL;
    }
    console->held = console_lag(console) >= (int64_t)CONSOLE_BACKLOG;
    console->present = console_attached(console);
    return console;
}

struct console *console_create(struct event_base *base, int listener, int memory,
                               const struct console_operations *operations, void *context)
{
    const struct console_settings settings = {.listener = listener, .plain = -1, .memory = memory};

    return console_open(base, &settings, operations, context);
}

int console_watch_panics(struct console *console, void (*panicked)(void *context), void *context)
{
    console->panics =
        panic_watch_create(console->base, console->memory, console->now.written, panicked, context);
    if (!console->panics) {
        return -ENOMEM;
    }
    event_active(console->flush, EV_WRITE, 0); /* what an earlier process did not look at */
    return 0;
}

bool console_panic(const struct console *console, char report[PANIC_REPORT_MAX])
{
    return console->panics && panic_watch_report(console->panics, report);
}

void console_destroy(struct console *console)
{
    if (!console) {
        return;
    }
    panic_watch_destroy(console->panics);
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->clients[i]) {
            client_release(console->clients[i]); /* a successor may know it again */
        }
    }
    struct event *const events[] = {console->arrival, console->plain_arrival, console->retry,
                                    console->flush,   console->patience,      console->limit};
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    if (console->memory) {
        munmap(console->memory, CONSOLE_MEMORY_SIZE);
    }
    close(console->listener);
    if (console->plain >= 0) {
        close(console->plain);
    }
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

    /* Whoever connected before the machine ended gets its output; who lost an earlier process, when
     * it is back. */
    console_arrival(console->listener, EV_READ, console);
    if (console->plain >= 0) {
        console_arrival(console->plain, EV_READ, console);
    }
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
