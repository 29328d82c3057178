/*
 * The device's side of the console socket (libshared/ipc/console.h): several clients, the last
 * 1 MiB of output kept for those that come later, input of all clients merged.
 *
 * A stream is a console that carries data between programs. Its clients all hold the producer back
 * rather than lose something, so does the absence of clients once a backlog is full, and who comes
 * gets nothing that another client already got.
 *
 * Nothing here blocks and no client can make the device wait, except that a lossless client that
 * lags a whole backlog behind holds the producer back, as it asked for. Main thread only.
 *
 * All that matters is in memory that outlives the process. The device says, after its own recovery,
 * how much of the output its saved state knows of (console_rewind) and how much of the input
 * (console_input_settle); then nothing is lost and nothing is there twice. No client is sent what
 * the device may yet take back: sending happens from the event loop only.
 */
#ifndef POLYVISOR_DEVD_CONSOLE_H
#define POLYVISOR_DEVD_CONSOLE_H

#include "devd/panic.h"
#include "libshared/ipc/console.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONSOLE_HELLO_MS 2000u
/* How long clients of an earlier process may stay away before they are forgotten. */
#define CONSOLE_AWAIT_MS 10000u

struct console;

struct console_operations {
    /* How many input bytes the device takes now. When it grows from 0 on its own the device calls
     * console_input_resume. */
    size_t (*input_room)(void *context);
    /* Input, never more than the room just told. When it returns the device's saved state has it.
     */
    void (*input)(void *context, const uint8_t *bytes, size_t count);
    /* It is noted that the device has it: only now may it take something new. NULL: no need. */
    void (*input_noted)(void *context);
    /* Output was held and is not any more. */
    void (*output_released)(void *context);
    /* The first client came, or the last one left for good. NULL: no need. */
    void (*attached)(void *context, bool any);
    /* The terminal of whoever is attached has another size: console_size. NULL: no need. */
    void (*resized)(void *context);
};

struct console_settings {
    int listener; /* of clients that speak libshared/ipc/console.h */
    int plain;    /* of clients that send and get the bytes alone; -1: none */
    int memory;
    bool stream;
};

/* Serve the listening sockets, which the console then owns, also on failure; go on from what is in
 * the memory, a descriptor that stays the caller's. NULL with errno set (EPROTO: not such memory).
 * `operations` must live as long as the console. */
struct console *console_open(struct event_base *base, const struct console_settings *settings,
                             const struct console_operations *operations, void *context);
/* The same for one that is no stream and has no plain clients. */
struct console *console_create(struct event_base *base, int listener, int memory,
                               const struct console_operations *operations, void *context);
void console_destroy(struct console *console);

/* Take output; returns the bytes taken, fewer than `count` only when a lossless client is a
 * whole backlog and the headroom behind. Delivery happens from the event loop. */
size_t console_write(struct console *console, const uint8_t *bytes, size_t count);
/* The same for bytes that are not of what the producer is at: they do not count after its mark. */
size_t console_write_aside(struct console *console, const uint8_t *bytes, size_t count);
/* Whether the producer should pause; output_released follows. */
bool console_held(const struct console *console);
void console_input_resume(struct console *console);

/* The producer's place, in the memory that outlives the process: the bytes taken since its last
 * mark. Both change with the output, in one store. */
void console_mark(struct console *console);
uint64_t console_since_mark(const struct console *console);

/* Bytes of output ever taken, and how to take back what came after `position` (which may be
 * nonsense), because it will be written again. Before any client was served. */
uint64_t console_position(const struct console *console);
void console_rewind(struct console *console, uint64_t position);

/* Bytes of input that the device was ever given; those beyond that may have been given by an
 * earlier process; and what the device knows of them: `position` is one or the other. */
uint64_t console_input_position(const struct console *console);
uint64_t console_input_doubtful(const struct console *console);
void console_input_settle(struct console *console, uint64_t position);

/* The terminal's size as it was last told, in characters; false: nobody did. */
bool console_size(const struct console *console, uint16_t *columns, uint16_t *rows);
/* Whether there is a client, or one of an earlier process that may come back. */
bool console_attached(const struct console *console);

/* Have `panicked` called when the guest's kernel says in the output that it panicked, and when
 * there is more to say of that (devd/panic.h). Once, at the start. 0 or -ENOMEM. */
int console_watch_panics(struct console *console, void (*panicked)(void *context), void *context);
/* What is known, as panic_watch_report. */
bool console_panic(const struct console *console, char report[PANIC_REPORT_MAX]);

/* The machine ends: take no more input, accept who is already waiting, deliver what is left, close
 * all clients. `drained` is called once, perhaps before this returns, and when for `limit_ms` none
 * of them has read anything: who reads slowly gets it all. */
void console_drain(struct console *console, unsigned limit_ms, void (*drained)(void *context),
                   void *context);

#endif
