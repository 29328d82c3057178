/*
 * A console attached to our standard streams: what the guest prints is copied to standard output
 * byte for byte, what is typed or piped in goes to the guest as fast as its device takes it. One
 * thread; nothing here blocks except attachment_poll, which also watches the caller's descriptors.
 *
 * The process of the console may die at any moment. Then the attachment connects again and goes on
 * where it was, in both directions (libshared/ipc/console.h); the caller sees nothing of it.
 */
#ifndef POLYVISOR_CLI_ATTACHMENT_H
#define POLYVISOR_CLI_ATTACHMENT_H

#include "cli/escape.h"
#include "cli/terminal.h"
#include "libshared/base/error.h"
#include "libshared/ipc/console.h"
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define ATTACHMENT_WATCH_MAX 8

struct attachment {
    int console;      /* -1 = not connected */
    bool refused;     /* nobody serves the console any more, or not yet */
    int input;        /* -1 = at its end */
    int output;       /* -1 = closed or failed */
    int output_error; /* errno that ended the output, or 0 */
    bool read_only;   /* send the guest nothing */
    struct terminal terminal;
    struct escape escape;
    enum escape_action action; /* what the user asked for; the caller resets it */
    /* Who we are to the console, and whether it has said that it knows us. */
    char path[4096];
    uint32_t flags;
    uint64_t id;
    bool welcomed;
    bool known;                /* it has, of an earlier connection */
    bool broken;               /* it takes no input any more */
    bool tells_size, size_due; /* of our terminal, to the guest */
    struct console_welcome welcome;
    size_t welcome_size; /* bytes of it that came */
    /* Bytes of the guest on their way: [start, end). */
    char to_output[65536];
    size_t to_output_start, to_output_end;
    uint64_t position; /* of the next one of its output */
    uint64_t lost;     /* that it printed and we were too late for */
    uint64_t moved;    /* bytes that reached standard output so far */
    /* Input: byte n is at n % CONSOLE_INPUT_KEPT. What was sent is kept, for a process that had not
     * read it when it died. */
    char to_guest[CONSOLE_INPUT_KEPT];
    uint64_t input_sent, input_end;
};

/* Attach to nothing yet: standard input and output, `detach_at_once` as in escape.h. Starts no raw
 * mode. `read_only` leaves standard input alone. */
void attachment_open(struct attachment *attachment, bool detach_at_once, bool read_only);
/* Restore the terminal and close the console. */
void attachment_close(struct attachment *attachment);

/* Connect to a console socket with the flags of libshared/ipc/console.h. 0 or a negative code with
 * *err set (CONNECT, PERMISSION). */
int attachment_connect(struct attachment *attachment, const char *path, uint32_t flags,
                       struct error *err);
/* Connect again, after the console had refused. 0 or a negative errno. */
int attachment_reconnect(struct attachment *attachment);
/* Tell the guest how large our terminal is, now and whenever the console's process is a new one;
 * again when it has another size. */
void attachment_tell_size(struct attachment *attachment);
/* Whether the console's process is there and has greeted us. */
bool attachment_served(const struct attachment *attachment);

/* Wait up to timeout_ms (-1 = for ever) for the console, the standard streams or one of the
 * caller's `watched` descriptors (their revents are set), and copy what can be copied. The end of
 * the console shows as `refused`, of standard output as output == -1. */
void attachment_poll(struct attachment *attachment, struct pollfd *watched, size_t watched_count,
                     int timeout_ms);

/* True when every byte that came from the guest is on standard output, or never will be. */
bool attachment_drained(const struct attachment *attachment);

#endif
