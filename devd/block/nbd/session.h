/*
 * One connection to an NBD server, by libnbd in its asynchronous form: the handshake, then
 * commands, many at a time, driven by the event loop. It ends for good when the connection does;
 * who owns it then makes another.
 *
 * What the server says is hostile: libnbd checks the protocol, this checks what it means. The
 * callbacks come from the event loop or from session_start, never from the function that issues a
 * command; the session must not be closed in one but in `changed`. Main thread only.
 */
#ifndef POLYVISOR_DEVD_BLOCK_NBD_SESSION_H
#define POLYVISOR_DEVD_BLOCK_NBD_SESSION_H

#include "libshared/base/error.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum session_state { SESSION_SHAKES, SESSION_UP, SESSION_DEAD };

enum session_operation {
    SESSION_READ,
    SESSION_WRITE,
    SESSION_FLUSH,
    SESSION_TRIM,
    SESSION_ZERO,
};

/* A command, its owner's. */
struct session_command {
    STAILQ_ENTRY(session_command) ended; /* the session's */
    struct session *session;
    enum session_operation operation;
    bool durable; /* SESSION_WRITE, _TRIM, _ZERO: forced to stable storage */
    bool hole;    /* SESSION_ZERO: it may be one */
    void *buffer;
    uint64_t offset;
    uint32_t length;
    int status; /* for `done`: 0 or negative errno; -ENOTCONN: the connection ended before */
};

/* What the export is, checked; once the session is up. */
struct session_export {
    uint64_t size; /* whole sectors */
    bool read_only, can_flush, can_force, can_trim, can_zero;
    uint32_t preferred_bytes; /* a power of two, 512 to 64 KiB */
    uint32_t most_bytes;      /* of one read or write */
};

struct session_port {
    void (*done)(void *context, struct session_command *command);
    /* After one or more `done`, or when the state changed. May close the session. */
    void (*changed)(void *context);
    void *context;
};

struct session;

/* Begin the handshake on a connected socket, which it takes, for export `name`. NULL with *err set.
 */
struct session *session_open(int socket, const char *name, struct event_base *base,
                             const struct session_port *port, struct error *err);
/* Without a word to the server, unless `politely`. Commands under way are forgotten: nothing of
 * them reaches their buffers any more. */
void session_close(struct session *session, bool politely);
enum session_state session_state(const struct session *session);
const struct session_export *session_export(const struct session *session);
/* Why it is dead, for people. */
const char *session_reason(const struct session *session);
/* Issue a command; its end comes by `done`. */
void session_submit(struct session *session, struct session_command *command);
/* After the last of several: hands over what has ended at once. */
void session_start(struct session *session);
/* Flush and wait for it, at most so long. 0 or negative errno. */
int session_flush_wait(struct session *session, int timeout_ms);

#endif
