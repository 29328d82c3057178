#include "devd/console_internal.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Released again: some hysteresis, so that producer and client work in larger steps. */
#define RELEASE_LAG (int64_t)(CONSOLE_BACKLOG / 4 * 3)
#define RETRY_MS    200

/* ---- Who listens ---- */

bool console_size(const struct console *console, uint16_t *columns, uint16_t *rows)
{
    uint32_t size = atomic_load(&console->memory->terminal);

    *columns = (uint16_t)size;
    *rows = (uint16_t)(size >> 16);
    return size != 0;
}

bool console_attached(const struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        const struct console_client *client = console->clients[i];
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
        const struct console_client *client = console->clients[i];
        if (client && client->greeted && (client->flags & CONSOLE_LOSSLESS)) {
            int64_t behind = (int64_t)(console->now.written - client->cursor);
            lag = behind > lag ? behind : lag;
        }
        if (console->awaited[i] && (console->memory->seats[i].flags & CONSOLE_LOSSLESS)) {
            int64_t behind = (int64_t)console_seat_lag(console, i);
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
        const struct console_client *client = console->clients[i];
        if (client && (!client->greeted || client->cursor < console->now.written)) {
            return true;
        }
        if (console->awaited[i] && console_seat_lag(console, i)) {
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
            console_client_close(console->clients[i]);
        }
    }
    drained(console->drained_context);
}

void console_clients_changed(struct console *console)
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
            console_client_create(console, client, fd == console->plain);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
            continue;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            /* Out of descriptors, say: the loop must not spin on it. */
            const struct timeval later = clock_timeval(RETRY_MS * NS_PER_MS);
            log_warning("cannot accept a console client: %s", strerror(errno));
            event_del(fd == console->plain ? console->plain_arrival : console->arrival);
            event_add(console->retry, &later);
        }
        break;
    }
    console_clients_changed(console);
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
        struct console_client *client = console->clients[i];
        if (client && client->greeted && !event_pending(client->writable, EV_WRITE, NULL)) {
            console_client_send(client);
        }
    }
    console_clients_changed(console);
}

static size_t output_take(struct console *console, const uint8_t *bytes, size_t count, bool marked)
{
    int64_t lag = console_lag(console);
    size_t taken = count;

    if (lag >= 0 && taken > CONSOLE_RING - (size_t)lag) {
        taken = CONSOLE_RING - (size_t)lag;
    }
    console_memory_append(console, bytes, taken, marked);
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
    return output_take(console, bytes, count, true);
}

size_t console_write_aside(struct console *console, const uint8_t *bytes, size_t count)
{
    return output_take(console, bytes, count, false);
}

bool console_held(const struct console *console)
{
    return console->held;
}

void console_input_resume(struct console *console)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct console_client *client = console->clients[i];
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
    console_clients_changed(console);
}

/* The sockets, and what happens later. 0 or -ENOMEM. */
static int console_listen(struct console *console)
{
    const struct timeval patience = clock_timeval(CONSOLE_AWAIT_MS * NS_PER_MS);
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
    int status = console_memory_map(console, settings->memory);
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
            console_client_release(console->clients[i]); /* a successor may know it again */
        }
    }
    struct event *const events[] = {console->arrival, console->plain_arrival, console->retry,
                                    console->flush,   console->patience,      console->limit};
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    console_memory_unmap(console);
    close(console->listener);
    if (console->plain >= 0) {
        close(console->plain);
    }
    free(console);
}

/* Bytes that all who listen together have not read. */
static uint64_t console_debt(const struct console *console)
{
    uint64_t debt = 0;

    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->clients[i]) {
            debt += console->now.written - console->clients[i]->cursor;
        } else if (console->awaited[i]) {
            debt += console_seat_lag(console, i);
        }
    }
    return debt;
}

static bool console_limit_again(struct console *console)
{
    const struct timeval limit = clock_timeval(console->limit_ms * NS_PER_MS);

    console->owed = console_debt(console);
    return event_add(console->limit, &limit) == 0;
}

static void console_limit(evutil_socket_t fd, short what, void *context)
{
    struct console *console = context;

    (void)fd;
    (void)what;
    if (!console->drained) {
        return;
    }
    /* One that reads is only slow: it has not much of a processor, or the line is. */
    if (console_debt(console) >= console->owed || !console_limit_again(console)) {
        log_warning("console clients did not read all output in time");
        console_finish_drain(console);
    }
}

void console_drain(struct console *console, unsigned limit_ms, void (*drained)(void *context),
                   void *context)
{
    /* Whoever connected before the machine ended gets its output; who lost an earlier process, when
     * it is back. */
    console_arrival(console->listener, EV_READ, console);
    if (console->plain >= 0) {
        console_arrival(console->plain, EV_READ, console);
    }
    console_input_resume(console);
    console->drained = drained;
    console->drained_context = context;
    console->limit_ms = limit_ms;
    console->limit = event_new(console->base, -1, 0, console_limit, console);
    if (!console->limit || !console_limit_again(console)) {
        console_finish_drain(console);
        return;
    }
    console_flush(-1, EV_WRITE, console);
}
