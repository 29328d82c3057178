/*
 * A console attached to our standard streams: what the guest prints is copied to standard output
 * byte for byte, what is typed or piped in goes to the guest as fast as its device takes it. One
 * thread; nothing here blocks except attachment_poll, which also watches the caller's descriptors.
 */
#ifndef POLYVISOR_CLI_ATTACHMENT_H
#define POLYVISOR_CLI_ATTACHMENT_H

#include "cli/escape.h"
#include "cli/terminal.h"
#include "libshared/base/error.h"
#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#define ATTACHMENT_WATCH_MAX 8

struct attachment {
    int console;      /* -1 = not connected */
    int input;        /* -1 = at its end */
    int output;       /* -1 = closed or failed */
    int output_error; /* errno that ended the output, or 0 */
    bool read_only;   /* send the guest nothing */
    struct terminal terminal;
    struct escape escape;
    enum escape_action action; /* what the user asked for; the caller resets it */
    /* Bytes on their way: [start, end) of each buffer. */
    char to_guest[4096], to_output[65536];
    size_t to_guest_start, to_guest_end, to_output_start, to_output_end;
    uint64_t moved; /* bytes that reached standard output so far */
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

/* Wait up to timeout_ms (-1 = for ever) for the console, the standard streams or one of the
 * caller's `watched` descriptors (their revents are set), and copy what can be copied. The end of
 * the console shows as console == -1, of standard output as output == -1. */
void attachment_poll(struct attachment *attachment, struct pollfd *watched, size_t watched_count,
                     int timeout_ms);

/* True when every byte that came from the guest is on standard output, or never will be. */
bool attachment_drained(const struct attachment *attachment);

#endif
