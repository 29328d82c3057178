/*
 * What the parts of a console share: console.c (who listens, how far output may go, start and end),
 * console_client.c (one connection) and console_memory.c (what outlives the process).
 */
#ifndef POLYVISOR_DEVD_CONSOLE_INTERNAL_H
#define POLYVISOR_DEVD_CONSOLE_INTERNAL_H

#include "devd/console.h"

#define NO_SEAT CONSOLE_CLIENTS_MAX

struct console_client {
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
    unsigned limit_ms;           /* of a drain in which nobody reads anything */
    uint64_t owed;               /* when that began */
    struct event *patience;      /* for those that are awaited */
    struct console_client *clients[CONSOLE_CLIENTS_MAX];
    bool awaited[CONSOLE_CLIENTS_MAX]; /* seats of an earlier process's clients, not back yet */
    bool held;
    struct console_progress now; /* as in the memory */
    void (*drained)(void *context);
    void *drained_context;
    struct panic_watch *panics;    /* or NULL */
    struct console_memory *memory; /* copied out of once, then believed: only we write it now */
};

/* ---- console.c ---- */

/* A client came, moved on or left: tell who waits for that. */
void console_clients_changed(struct console *console);

/* ---- console_client.c ---- */

/* Serve a connection, whose descriptor it then owns, also on failure. A plain client is greeted by
 * being there. */
void console_client_create(struct console *console, int fd, bool plain);
/* Give it up, without its seat: it may come back. */
void console_client_release(struct console_client *client);
/* Give it up for good. */
void console_client_close(struct console_client *client);
/* Send what it may get now. False when the client is gone. */
bool console_client_send(struct console_client *client);

/* ---- console_memory.c ---- */

/* Map it and go on from what an earlier process left there. 0, -EPROTO (not such memory) or another
 * negative errno. */
int console_memory_map(struct console *console, int fd);
void console_memory_unmap(struct console *console);
/* Append `count` bytes of output, for which there is room; `marked`: they count after the mark. */
void console_memory_append(struct console *console, const uint8_t *bytes, size_t count,
                           bool marked);
/* `count` bytes of input from a seat's client are about to be given to the device: it has them, or
 * has not, whenever the process dies. */
void console_input_intend(struct console *console, unsigned seat, size_t count);
/* How many bytes of output a seat's client may still want. */
uint64_t console_seat_lag(const struct console *console, unsigned seat);

#endif
