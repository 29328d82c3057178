#include "devd/block/nbd/session.h"

#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SECTOR         512u
#define PREFERRED_MOST (64u << 10)
#define TRANSFER_MOST  (32u << 20) /* what every server takes that says nothing else */
#define GOODBYE_MS     200

struct session {
    struct nbd_handle *handle;
    struct session_port port;
    enum session_state state;
    struct session_export export;
    /* The connection under a number of our own: libnbd closes its own before we can tell the event
     * loop, and the kernel would watch on for it, since vmmd holds the connection, too. */
    int watched;
    struct event *readable, *writable;
    STAILQ_HEAD(, session_command) ended; /* not handed over yet */
    bool flushed;                         /* session_flush_wait's */
    int flush_status;
    char reason[128];
};

/* ---- State ---- */

static void session_die(struct session *session, const char *reason)
{
    if (session->state != SESSION_DEAD) {
        session->state = SESSION_DEAD;
        snprintf(session->reason, sizeof(session->reason), "%s",
                 reason ? reason : "the connection ended");
        for (char *c = session->reason; *c; c++) { /* parts of it are the server's */
            *c = *c >= ' ' && *c < 0x7f ? *c : '?';
        }
        event_del(session->readable);
        event_del(session->writable);
    }
}

static uint32_t power_of_two(int64_t bytes, uint32_t usual)
{
    return bytes >= SECTOR && bytes <= PREFERRED_MOST && !(bytes & (bytes - 1)) ? (uint32_t)bytes
                                                                                : usual;
}

/* What the server says of its export. False: it is of no use. */
static bool session_inspect(struct session *session)
{
    struct nbd_handle *handle = session->handle;
    struct session_export *export = &session->export;
    int64_t size = nbd_get_size(handle);
    int64_t least = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
    int64_t most = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);

    if (size < 0) {
        session_die(session, "the server does not say how large the export is");
        return false;
    }
    if (size < SECTOR) {
        session_die(session, "the export is empty");
        return false;
    }
    if (least > SECTOR) {
        session_die(session, "the server takes no single sectors (nbdkit --filter=blocksize does)");
        return false;
    }
    if (size % SECTOR) {
        log_warning("the last %u bytes of the export are no whole sector and not visible",
                    (unsigned)(size % SECTOR));
    }
    export->size = (uint64_t)size - (uint64_t)size % SECTOR;
    export->read_only = nbd_is_read_only(handle) != 0;
    export->can_flush = nbd_can_flush(handle) == 1;
    export->can_force = nbd_can_fua(handle) == 1;
    export->can_trim = nbd_can_trim(handle) == 1;
    export->can_zero = nbd_can_zero(handle) == 1;
    export->preferred_bytes = power_of_two(nbd_get_block_size(handle, LIBNBD_SIZE_PREFERRED), 4096);
    export->most_bytes = most >= 4096 && most < TRANSFER_MOST ? (uint32_t)most : TRANSFER_MOST;
    export->most_bytes &= ~(SECTOR - 1);
    return true;
}

/* See what libnbd has come to, and what it waits for. */
static void session_look(struct session *session)
{
    struct nbd_handle *handle = session->handle;

    if (session->state == SESSION_DEAD) {
        return;
    }
    if (nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle)) {
        session_die(session, nbd_get_error());
        return;
    }
    if (session->state == SESSION_SHAKES && nbd_aio_is_ready(handle)) {
        if (!session_inspect(session)) {
            return;
        }
        session->state = SESSION_UP;
    }
    unsigned direction = nbd_aio_get_direction(handle);
    if (direction & LIBNBD_AIO_DIRECTION_READ) {
        event_add(session->readable, NULL);
    } else {
        event_del(session->readable);
    }
    if (direction & LIBNBD_AIO_DIRECTION_WRITE) {
        event_add(session->writable, NULL);
    } else {
        event_del(session->writable);
    }
}

/* Hand over what has ended; whether anything had. */
static bool session_hand_over(struct session *session)
{
    struct session_command *command;
    bool any = false;

    while ((command = STAILQ_FIRST(&session->ended))) {
        STAILQ_REMOVE_HEAD(&session->ended, ended);
        any = true;
        session->port.done(session->port.context, command);
    }
    return any;
}

static void session_event(evutil_socket_t fd, short what, void *context)
{
    struct session *session = context;
    unsigned direction = nbd_aio_get_direction(session->handle);
    enum session_state before = session->state;
    int status = 0;

    (void)fd;
    if ((what & EV_READ) && (direction & LIBNBD_AIO_DIRECTION_READ)) {
        status = nbd_aio_notify_read(session->handle);
    } else if ((what & EV_WRITE) && (direction & LIBNBD_AIO_DIRECTION_WRITE)) {
        status = nbd_aio_notify_write(session->handle);
    }
    if (status < 0) {
        session_die(session, nbd_get_error());
    }
    session_look(session);
    if (session_hand_over(session) || session->state != before) {
        session->port.changed(session->port.context);
    }
}

/* ---- Commands ---- */

static void command_end(struct session_command *command, int status)
{
    command->status = status;
    STAILQ_INSERT_TAIL(&command->session->ended, command, ended);
}

/* libnbd's word; nothing of the handle may be called here. 1: libnbd can forget the command. */
static int command_completed(void *context, int *error)
{
    struct session_command *command = context;

    command_end(command, -*error);
    return 1;
}

static int64_t command_issue(struct session *session, struct session_command *command,
                             nbd_completion_callback completion)
{
    struct nbd_handle *handle = session->handle;
    uint32_t flags = command->durable && session->export.can_force ? LIBNBD_CMD_FLAG_FUA : 0;

    switch (command->operation) {
    case SESSION_READ:
        return nbd_aio_pread(handle, command->buffer, command->length, command->offset, completion,
                             0);
    case SESSION_WRITE:
        return nbd_aio_pwrite(handle, command->buffer, command->length, command->offset, completion,
                              flags);
    case SESSION_FLUSH:
        return nbd_aio_flush(handle, completion, 0);
    case SESSION_TRIM:
        return nbd_aio_trim(handle, command->length, command->offset, completion, flags);
    default:
        return nbd_aio_zero(handle, command->length, command->offset, completion,
                            flags | (command->hole ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
    }
}

void session_submit(struct session *session, struct session_command *command)
{
    const nbd_completion_callback completion = {.callback = command_completed,
                                                .user_data = command};

    command->session = session;
    if (session->state != SESSION_UP) {
        command_end(command, -ENOTCONN);
    } else if (command_issue(session, command, completion) < 0) {
        /* It was not taken: by its own fault, or because the connection has ended. */
        int cause = nbd_get_errno();
        bool gone = nbd_aio_is_dead(session->handle) || nbd_aio_is_closed(session->handle);
        command_end(command, gone ? -ENOTCONN : cause ? -cause : -EINVAL);
    }
}

void session_start(struct session *session)
{
    session_look(session);
    session_hand_over(session);
}

/* ---- Life ---- */

struct session *session_open(int socket, const char *name, struct event_base *base,
                             const struct session_port *port, struct error *err)
{
    struct session *session = calloc(1, sizeof(*session));
    struct nbd_handle *handle = session ? nbd_create() : NULL;

    if (!handle) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for a connection");
        close(socket);
        free(session);
        return NULL;
    }
    session->handle = handle;
    session->port = *port;
    STAILQ_INIT(&session->ended);
    session->watched = fcntl(socket, F_DUPFD_CLOEXEC, 0);
    if (session->watched >= 0) {
        session->readable =
            event_new(base, session->watched, EV_READ | EV_PERSIST, session_event, session);
        session->writable =
            event_new(base, session->watched, EV_WRITE | EV_PERSIST, session_event, session);
    }
    if (!session->readable || !session->writable || nbd_set_export_name(handle, name) < 0 ||
        nbd_set_tls(handle, LIBNBD_TLS_DISABLE) < 0 ||
        nbd_set_pread_initialize(handle, false) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "cannot prepare a connection");
        close(socket);
        session_close(session, false);
        return NULL;
    }
    if (nbd_aio_connect_socket(handle, socket) < 0) { /* which has the socket in any case */
        session_die(session, nbd_get_error());
    }
    session_look(session);
    return session;
}

static void session_say_goodbye(struct session *session)
{
    uint64_t end = clock_monotonic_ns() + GOODBYE_MS * NS_PER_MS;

    if (nbd_aio_disconnect(session->handle, 0) < 0) {
        return;
    }
    while (!nbd_aio_is_closed(session->handle) && !nbd_aio_is_dead(session->handle) &&
           clock_monotonic_ns() < end && nbd_poll(session->handle, GOODBYE_MS) > 0) {
    }
}

void session_close(struct session *session, bool politely)
{
    if (!session) {
        return;
    }
    if (session->readable) {
        event_free(session->readable);
    }
    if (session->writable) {
        event_free(session->writable);
    }
    if (politely && session->state == SESSION_UP) {
        session_say_goodbye(session);
    }
    nbd_close(session->handle);
    if (session->watched >= 0) {
        close(session->watched);
    }
    free(session);
}

enum session_state session_state(const struct session *session)
{
    return session->state;
}

const struct session_export *session_export(const struct session *session)
{
    return &session->export;
}

const char *session_reason(const struct session *session)
{
    return session->reason;
}

static int flush_completed(void *context, int *error)
{
    struct session *session = context;

    session->flushed = true;
    session->flush_status = -*error;
    return 1;
}

int session_flush_wait(struct session *session, int timeout_ms)
{
    const nbd_completion_callback completion = {.callback = flush_completed, .user_data = session};
    uint64_t end = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    if (session->state != SESSION_UP) {
        return -ENOTCONN;
    }
    if (!session->export.can_flush) {
        return 0;
    }
    session->flushed = false;
    if (nbd_aio_flush(session->handle, completion, 0) < 0) {
        return -EIO;
    }
    while (!session->flushed) {
        int wait_ms = clock_poll_ms(end);
        if (wait_ms == 0) {
            return -ETIMEDOUT;
        }
        if (nbd_poll(session->handle, wait_ms) < 0) {
            return session->flushed ? session->flush_status : -ENOTCONN;
        }
    }
    return session->flush_status;
}
