/*
 * The device's side of the console socket (libshared/ipc/console.h): several clients, the last
 * 1 MiB of output kept for those that come later, input of all clients merged.
 *
 * Nothing here blocks and no client can make the device wait, except that a lossless client that
 * lags a whole backlog behind holds the producer back, as it asked for. Main thread only.
 */
#ifndef POLYVISOR_DEVD_CONSOLE_H
#define POLYVISOR_DEVD_CONSOLE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Once output is held this much more is still taken without loss, for a producer that looks only
 * from time to time. */
#define CONSOLE_HEADROOM    (64u << 10)
#define CONSOLE_CLIENTS_MAX 16u
#define CONSOLE_HELLO_MS    2000u

struct console;

struct console_operations {
    /* How many input bytes the device takes now. When it grows from 0 on its own the device calls
     * console_input_resume. */
    size_t (*input_room)(void *context);
    /* Input, never more than the room just told. */
    void (*input)(void *context, const uint8_t *bytes, size_t count);
    /* Output was held and is not any more. */
    void (*output_released)(void *context);
};

/* Serve the listening socket, which the console then owns, also on failure. NULL with errno set.
 * `operations` must live as long as the console. */
struct console *console_create(struct event_base *base, int listener,
                               const struct console_operations *operations, void *context);
void console_destroy(struct console *console);

/* Take output; returns the bytes taken, fewer than `count` only when a lossless client is a
 * whole backlog and the headroom behind. Delivery happens from the event loop. */
size_t console_write(struct console *console, const uint8_t *bytes, size_t count);
/* Whether the producer should pause; output_released follows. */
bool console_held(const struct console *console);
void console_input_resume(struct console *console);

/* The machine ends: take no more input, accept who is already waiting, deliver what is left, close
 * all clients. `drained` is called once, after at most `limit_ms`, perhaps before this returns. */
void console_drain(struct console *console, unsigned limit_ms, void (*drained)(void *context),
                   void *context);

#endif
