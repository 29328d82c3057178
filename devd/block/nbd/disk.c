/*
 * The backend that is an export of an NBD server.
 *
 * This process has no network. It asks vmmd for a connection (libshared/nbd/channel.h) and speaks
 * the protocol on it (session.h). When the connection ends, what was under way waits, with all that
 * comes, for the next one, and is done again there: requests are repeatable. vmmd's connector sees
 * to it that the server has done with the old connection before.
 *
 * A request that has waited for the server longer than it may fails with ETIMEDOUT; while a server
 * has been away for so long, requests fail at once. One that the server does not answer takes the
 * connection with it: libnbd cannot forget it otherwise.
 *
 * A new process that knows from an earlier one what the export is begins without a connection.
 */
#include "devd/block/file.h"
#include "devd/block/nbd/session.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/base/vectors.h"
#include "libshared/nbd/channel.h"
#include "libshared/nbd/uri.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#define IN_FLIGHT_MAX  64u
#define BYTES_MAX      (16u << 20) /* in flight, of which there may be copies */
#define PART_MAX       (4u << 20)  /* of what has to be copied */
#define FIRST_MS       8000u  /* for the first connection, which the start of a machine waits for */
#define SHAKE_MS       10000u /* for a handshake */
#define RETRY_FIRST_MS 100u   /* between attempts to connect; doubles */
#define RETRY_LAST_MS  5000u
#define TELL_APART_NS  (200 * NS_PER_MS) /* vmmd listens no more often */
#define FLUSH_MS       5000              /* at the end */
#define KEPT_MAGIC     0x3144424eu       /* "NBD1" */

enum { KEPT_READ_ONLY = 1, KEPT_DISCARD = 2, KEPT_ZERO = 4 };

struct command {
    struct session_command session; /* first */
    TAILQ_ENTRY(command) link;
    struct nbd_disk *disk;
    struct block_request *request;
    uint64_t deadline_ns;
    uint8_t *copy; /* of what is in several places; NULL: it is in one */
    bool flushing; /* a durable write of a server that cannot force: its flush */
};
TAILQ_HEAD(command_list, command);

enum line { LINE_DOWN, LINE_ASKED, LINE_SHAKES, LINE_UP };

struct nbd_disk {
    struct block block;
    struct event_base *base;
    struct nbd_uri uri;
    uint64_t timeout_ns;
    struct block_kept *kept;
    struct session_export export;
    /* Requests: those that wait in the order they came, those on the wire. */
    struct command_list waiting, flying;
    unsigned in_flight;
    uint64_t in_flight_bytes;
    struct event *expiry; /* one of them has waited long enough */
    uint64_t expiry_ns;   /* when */
    bool starting, finished;
    struct block_request *resize; /* waits for the next connection */
    /* The connection. */
    int channel; /* borrowed */
    enum line line;
    struct session *session;
    uint64_t number; /* of the last question */
    bool progress;   /* the present connection did something: the next attempt is a first one */
    uint64_t down_ns;
    unsigned retry_ms;
    struct event *answer, *retry, *tell;
    bool failed_once; /* during the first attempt: no more of them */
    char reason[NBD_TEXT_MAX];
    bool told_down;
    uint64_t told_ns;
};

static struct nbd_disk *disk_of(struct block *block)
{
    return (struct nbd_disk *)block;
}

static void timer_set(struct event *timer, uint64_t ns)
{
    const struct timeval time = clock_timeval(ns);

    evtimer_add(timer, &time);
}

/* ---- Telling ---- */

/* Say whether there is a server, when that is another than was said last. */
static void disk_tell(struct nbd_disk *disk)
{
    bool down = disk->line != LINE_UP;
    uint64_t now = clock_monotonic_ns();
    char text[NBD_TEXT_MAX + 64];

    if (down == disk->told_down || !disk->block.told) {
        return;
    }
    if (now - disk->told_ns < TELL_APART_NS) {
        timer_set(disk->tell, TELL_APART_NS - (now - disk->told_ns));
        return;
    }
    disk->told_down = down;
    disk->told_ns = now;
    snprintf(text, sizeof(text), down ? "lost the server: %s" : "the server is back%.0s",
             disk->reason);
    disk->block.told(disk->block.context, !down, text);
}

static void disk_tell_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    disk_tell(context);
}

/* ---- Commands ---- */

static void command_finish(struct command *command, int status)
{
    struct block_request *request = command->request;

    free(command->copy);
    free(command);
    block_finish(request, status);
}

static uint64_t bytes_left(const struct block_request *request)
{
    return request->offset + request->length - request->left_offset;
}

static bool is_transfer(const struct block_request *request)
{
    return request->operation == BLOCK_READ || request->operation == BLOCK_WRITE;
}

/* Between the copy and the first of the request's vectors. */
static void command_copy(struct command *command, bool gather)
{
    const struct block_request *request = command->request;
    uint32_t size = command->session.length;

    if (gather) {
        vectors_get(request->vectors, request->vector_count, 0, command->copy, size);
    } else {
        vectors_put(request->vectors, request->vector_count, 0, command->copy, size);
    }
}

/* Where a transfer's bytes are: in place when the first vector has them. */
static bool command_place(struct command *command)
{
    const struct block_request *request = command->request;
    struct session_command *session = &command->session;
    uint64_t left = bytes_left(request);
    uint64_t most = command->disk->export.most_bytes;

    if (request->vectors[0].iov_len >= (left < most ? left : most)) {
        session->length = (uint32_t)(left < most ? left : most);
        session->buffer = request->vectors[0].iov_base;
        return true;
    }
    most = most < PART_MAX ? most : PART_MAX;
    session->length = (uint32_t)(left < most ? left : most);
    /* A server that answers in chunks can leave some out: what is in memory then is the guest's. */
    command->copy =
        request->operation == BLOCK_READ ? calloc(1, session->length) : malloc(session->length);
    session->buffer = command->copy;
    if (command->copy && request->operation == BLOCK_WRITE) {
        command_copy(command, true);
    }
    return command->copy;
}

/* What a request is to the server. 0, 1: nothing at all, or negative errno. */
static int command_prepare(struct command *command)
{
    static const enum session_operation operations[] = {
        [BLOCK_READ] = SESSION_READ,         [BLOCK_WRITE] = SESSION_WRITE,
        [BLOCK_FLUSH] = SESSION_FLUSH,       [BLOCK_DISCARD] = SESSION_TRIM,
        [BLOCK_WRITE_ZEROES] = SESSION_ZERO,
    };
    const struct block_request *request = command->request;
    const struct session_export *export = &command->disk->export;
    enum block_operation operation = command->flushing ? BLOCK_FLUSH : request->operation;
    struct session_command *session = &command->session;

    session->operation = operations[operation];
    session->durable = request->durable;
    session->hole = request->unmap;
    session->offset = request->left_offset;
    session->length = 0;
    session->buffer = NULL;
    if (operation == BLOCK_FLUSH) {
        return export->can_flush ? 0 : 1;
    }
    if (request->left_offset > export->size ||
        bytes_left(request) > export->size - request->left_offset) {
        return -EIO; /* it has become smaller */
    }
    if (operation != BLOCK_READ && export->read_only) {
        return -EROFS;
    }
    if ((operation == BLOCK_DISCARD && !export->can_trim) ||
        (operation == BLOCK_WRITE_ZEROES && !export->can_zero)) {
        return -EOPNOTSUPP;
    }
    if (is_transfer(request)) {
        return command_place(command) ? 0 : -ENOMEM;
    }
    session->length = (uint32_t)bytes_left(request); /* at most 1 GiB: virtio_blk.c */
    return 0;
}

static void disk_expect(struct nbd_disk *disk, uint64_t deadline_ns)
{
    uint64_t now = clock_monotonic_ns();

    if (!evtimer_pending(disk->expiry, NULL) || deadline_ns < disk->expiry_ns) {
        disk->expiry_ns = deadline_ns;
        timer_set(disk->expiry, deadline_ns > now ? deadline_ns - now : 0);
    }
}

static void disk_wait(struct nbd_disk *disk, struct command *command, bool first)
{
    free(command->copy); /* a new one is made when it is launched */
    command->copy = NULL;
    if (first) {
        TAILQ_INSERT_HEAD(&disk->waiting, command, link);
    } else {
        TAILQ_INSERT_TAIL(&disk->waiting, command, link);
    }
}

static void disk_land(struct nbd_disk *disk, struct command *command)
{
    TAILQ_REMOVE(&disk->flying, command, link);
    disk->in_flight--;
    disk->in_flight_bytes -= command->session.length;
}

/* Put on the wire what has room there. */
static void disk_launch(struct nbd_disk *disk)
{
    struct command *command;

    while (disk->line == LINE_UP && disk->in_flight < IN_FLIGHT_MAX &&
           disk->in_flight_bytes < BYTES_MAX && (command = TAILQ_FIRST(&disk->waiting))) {
        TAILQ_REMOVE(&disk->waiting, command, link);
        int status = command_prepare(command);
        if (status) {
            disk->finished = true;
            command_finish(command, status < 0 ? status : 0);
            continue;
        }
        TAILQ_INSERT_TAIL(&disk->flying, command, link);
        disk->in_flight++;
        disk->in_flight_bytes += command->session.length;
        session_submit(disk->session, &command->session);
    }
}

/* A part or all of a request is done. */
static void command_succeeded(struct nbd_disk *disk, struct command *command)
{
    struct block_request *request = command->request;

    disk->progress = true;
    if (is_transfer(request) && !command->flushing) {
        if (command->copy && request->operation == BLOCK_READ) {
            command_copy(command, false);
        }
        transfer_advance(request, command->session.length);
        if (request->vector_count) {
            disk_wait(disk, command, true);
            return;
        }
    }
    bool force = request->durable && !disk->export.can_force && request->operation != BLOCK_FLUSH;
    if (force && !command->flushing) {
        command->flushing = true;
        disk_wait(disk, command, true);
        return;
    }
    command_finish(command, 0);
}

static void disk_done(void *context, struct session_command *session)
{
    struct nbd_disk *disk = context;
    struct command *command = (struct command *)session;

    disk_land(disk, command);
    if (session->status == -ENOTCONN || session->status == -ESHUTDOWN) {
        disk_wait(disk, command, true);
        return;
    }
    disk->finished = true;
    if (session->status < 0) {
        command_finish(command, session->status);
    } else {
        command_succeeded(disk, command);
    }
}

static void disk_settle(struct nbd_disk *disk)
{
    if (disk->finished && !disk->starting) {
        disk->finished = false;
        disk->block.settled(disk->block.context);
    }
}

/* ---- The connection ---- */

static void disk_ask(struct nbd_disk *disk)
{
    const struct nbd_message message = {.kind = NBD_ASK, .number = ++disk->number};

    disk->line = LINE_ASKED;
    int status = nbd_message_send(disk->channel, &message, -1);
    if (status < 0) { /* vmmd is not there, or does not listen: later */
        snprintf(disk->reason, sizeof(disk->reason), "nobody connects");
        disk->line = LINE_DOWN;
    }
    timer_set(disk->retry, status < 0 ? RETRY_LAST_MS * NS_PER_MS : 60 * NS_PER_S);
}

/* There is no connection; another attempt follows. */
static void disk_down(struct nbd_disk *disk, const char *reason)
{
    struct command *command, *next;

    if (disk->line == LINE_UP) {
        disk->down_ns = clock_monotonic_ns();
        disk->retry_ms = disk->progress ? 0 : disk->retry_ms;
    }
    snprintf(disk->reason, sizeof(disk->reason), "%.200s", reason);
    disk->line = LINE_DOWN;
    disk->failed_once = true;
    session_close(disk->session, false);
    disk->session = NULL;
    for (command = TAILQ_LAST(&disk->flying, command_list); command; command = next) {
        next = TAILQ_PREV(command, command_list, link);
        disk_land(disk, command);
        disk_wait(disk, command, true);
    }
    timer_set(disk->retry, disk->retry_ms * NS_PER_MS);
    disk->retry_ms = disk->retry_ms ? 2 * disk->retry_ms : RETRY_FIRST_MS;
    disk->retry_ms = disk->retry_ms < RETRY_LAST_MS ? disk->retry_ms : RETRY_LAST_MS;
    disk_tell(disk);
}

static void disk_resize_answer(struct nbd_disk *disk)
{
    struct block_request *request = disk->resize;

    if (request) {
        disk->resize = NULL;
        disk->finished = true;
        block_finish(request, disk->block.size == request->length ? 0 : -EINVAL);
    }
}

static void disk_keep(struct nbd_disk *disk)
{
    const struct block *block = &disk->block;

    if (disk->kept) {
        disk->kept->magic = 0;
        disk->kept->flags = (block->read_only ? KEPT_READ_ONLY : 0) |
                            (block->can_discard ? KEPT_DISCARD : 0) |
                            (block->can_zero ? KEPT_ZERO : 0);
        disk->kept->size = block->size;
        disk->kept->physical_bytes = block->physical_bytes;
        disk->kept->discard_bytes = block->discard_bytes;
        disk->kept->magic = KEPT_MAGIC;
    }
}

/* The server has said what it has. What the driver was told it can do stays so. */
static void disk_up(struct nbd_disk *disk)
{
    const struct session_export *export = session_export(disk->session);
    struct block *block = &disk->block;

    disk->export = *export;
    disk->line = LINE_UP;
    disk->progress = false;
    evtimer_del(disk->retry);
    if (!block->size) { /* the first time */
        block->read_only |= export->read_only;
        block->can_discard = !block->read_only && export->can_trim;
        block->can_zero = !block->read_only && export->can_zero;
        block->physical_bytes = export->preferred_bytes;
        block->discard_bytes = export->preferred_bytes;
    } else if (export->read_only && !block->read_only) {
        log_warning("the server lets nobody write any more");
    }
    if (block->size && block->size != export->size) {
        log_info("the export has %llu bytes now", (unsigned long long)export->size);
        disk->finished = true; /* who is told looks at the size */
    }
    block->size = export->size;
    disk_keep(disk);
    disk_resize_answer(disk);
    disk_tell(disk);
}

static void disk_changed(void *context)
{
    struct nbd_disk *disk = context;
    enum session_state state = session_state(disk->session);

    if (state == SESSION_DEAD) {
        disk_down(disk, session_reason(disk->session));
    } else if (state == SESSION_UP) {
        if (disk->line != LINE_UP) {
            disk_up(disk);
        }
        block_start(&disk->block);
    }
    disk->finished = true;
    disk_settle(disk);
}

static void disk_connect(struct nbd_disk *disk, int socket)
{
    const struct session_port port = {disk_done, disk_changed, disk};
    struct error err;

    fcntl(socket, F_SETFL, O_RDWR | O_NONBLOCK);
    disk->session = session_open(socket, disk->uri.export_name, disk->base, &port, &err);
    if (!disk->session) {
        disk_down(disk, err.message);
        return;
    }
    disk->line = LINE_SHAKES;
    timer_set(disk->retry, SHAKE_MS * NS_PER_MS);
    if (session_state(disk->session) != SESSION_SHAKES) {
        disk_changed(disk);
    }
}

static void disk_answer(evutil_socket_t channel, short what, void *context)
{
    struct nbd_disk *disk = context;
    struct nbd_message message;
    int socket, status;

    (void)what;
    while ((status = nbd_message_receive(channel, &message, &socket)) != -EAGAIN) {
        bool wanted = status == 0 && disk->line == LINE_ASKED && message.number == disk->number;
        if (status == -EPIPE || status == -ECONNRESET) { /* vmmd is gone: what there is stays */
            event_del(disk->answer);
            return;
        }
        if (wanted && message.kind == NBD_CONNECTED) {
            disk_connect(disk, socket);
        } else if (wanted && message.kind == NBD_FAILED) {
            disk_down(disk, message.text);
        } else if (socket >= 0) {
            close(socket);
        }
    }
}

/* The time for the next attempt has come, or that for the present one is over. */
static void disk_retry(evutil_socket_t fd, short what, void *context)
{
    struct nbd_disk *disk = context;

    (void)fd;
    (void)what;
    if (disk->line == LINE_SHAKES) {
        disk_down(disk, "the server does not finish the handshake");
    } else if (disk->line == LINE_DOWN || disk->line == LINE_ASKED) {
        disk_ask(disk);
    }
}

/* ---- Time ---- */

/* Those of a list that have waited long enough; *next is when the others have. True: there were. */
static bool list_expired(struct command_list *list, struct command_list *expired, uint64_t now,
                         uint64_t *next)
{
    struct command *command, *after;

    for (command = TAILQ_FIRST(list); command; command = after) {
        after = TAILQ_NEXT(command, link);
        if (command->deadline_ns <= now) {
            TAILQ_REMOVE(list, command, link);
            TAILQ_INSERT_TAIL(expired, command, link);
        } else if (command->deadline_ns < *next) {
            *next = command->deadline_ns;
        }
    }
    return !TAILQ_EMPTY(expired);
}

static void disk_expiry(evutil_socket_t fd, short what, void *context)
{
    struct nbd_disk *disk = context;
    struct command_list expired = TAILQ_HEAD_INITIALIZER(expired);
    uint64_t now = clock_monotonic_ns(), next = UINT64_MAX;
    struct command *command;

    (void)fd;
    (void)what;
    TAILQ_FOREACH(command, &disk->flying, link)
    {
        if (command->deadline_ns <= now) {
            disk_down(disk, "the server does not answer"); /* all of them wait now */
            break;
        }
    }
    list_expired(&disk->waiting, &expired, now, &next);
    TAILQ_FOREACH(command, &disk->flying, link)
    {
        next = command->deadline_ns < next ? command->deadline_ns : next;
    }
    if (disk->resize && disk->line != LINE_UP && now - disk->down_ns >= disk->timeout_ns) {
        struct block_request *resize = disk->resize;
        disk->resize = NULL;
        disk->finished = true;
        block_finish(resize, -ETIMEDOUT);
    }
    while ((command = TAILQ_FIRST(&expired))) {
        TAILQ_REMOVE(&expired, command, link);
        disk->finished = true;
        command_finish(command, -ETIMEDOUT);
    }
    if (next != UINT64_MAX || disk->resize) {
        disk_expect(disk, next != UINT64_MAX ? next : now + disk->timeout_ns);
    }
    disk_settle(disk);
}

/* A request waits as long as it may, or until the server has been away for so long. */
static uint64_t disk_deadline(const struct nbd_disk *disk)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t end = disk->down_ns + disk->timeout_ns;

    if (disk->line != LINE_UP && end < now + disk->timeout_ns) {
        return end > now ? end : now;
    }
    return now + disk->timeout_ns;
}

/* ---- The block interface ---- */

/* Only the server can change the size: look at it anew. */
static void disk_resize(struct nbd_disk *disk, struct block_request *request)
{
    disk->resize = request;
    disk_down(disk, "its size is looked at");
    disk_expect(disk, clock_monotonic_ns() + disk->timeout_ns);
}

static void disk_submit(struct block *block, struct block_request *request)
{
    struct nbd_disk *disk = disk_of(block);

    if (request->operation == BLOCK_RESIZE) {
        disk_resize(disk, request);
        return;
    }
    struct command *command = calloc(1, sizeof(*command));
    if (!command) {
        block_finish(request, -ENOMEM);
        return;
    }
    command->disk = disk;
    command->request = request;
    command->deadline_ns = disk_deadline(disk);
    disk_wait(disk, command, false);
    disk_expect(disk, command->deadline_ns);
}

static void disk_start(struct block *block)
{
    struct nbd_disk *disk = disk_of(block);
    bool before = disk->finished;

    if (disk->starting) {
        return; /* from a request's end: the loop below takes it */
    }
    disk->starting = true;
    do {
        disk->finished = false;
        disk_launch(disk);
        if (disk->line == LINE_UP) {
            session_start(disk->session);
            if (session_state(disk->session) == SESSION_DEAD) {
                disk_down(disk, session_reason(disk->session));
            }
        }
    } while (disk->finished && disk->line == LINE_UP);
    disk->finished = before; /* of what ended in here the caller knows */
    disk->starting = false;
}

static int disk_measure(struct block *block)
{
    (void)block; /* a new connection tells */
    return 0;
}

static int disk_flush(struct block *block)
{
    struct nbd_disk *disk = disk_of(block);

    if (block->read_only) {
        return 0;
    }
    return disk->line == LINE_UP ? session_flush_wait(disk->session, FLUSH_MS) : -ENOTCONN;
}

static void disk_let_go(struct block *block, bool (*is_over)(const struct block_request *request))
{
    struct nbd_disk *disk = disk_of(block);
    struct command *command, *next;

    for (command = TAILQ_FIRST(&disk->waiting); command; command = next) {
        next = TAILQ_NEXT(command, link);
        if (disk->line != LINE_UP && is_over(command->request)) {
            TAILQ_REMOVE(&disk->waiting, command, link);
            command_finish(command, -ECANCELED);
        }
    }
}

static void list_free(struct command_list *list)
{
    struct command *command;

    while ((command = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, command, link);
        free(command->copy);
        free(command);
    }
}

static void disk_close(struct block *block)
{
    struct nbd_disk *disk = disk_of(block);
    struct event *events[] = {disk->answer, disk->retry, disk->tell, disk->expiry};

    session_close(disk->session, TAILQ_EMPTY(&disk->flying));
    list_free(&disk->waiting);
    list_free(&disk->flying);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    free(disk);
}

static const struct block_operations nbd_operations = {
    .submit = disk_submit,
    .start = disk_start,
    .measure = disk_measure,
    .flush = disk_flush,
    .close = disk_close,
    .let_go = disk_let_go,
};

/* ---- Open ---- */

/* What an earlier process knew; it is in memory that it shared. */
static bool disk_remember(struct nbd_disk *disk)
{
    struct block *block = &disk->block;

    if (!disk->kept || disk->kept->magic != KEPT_MAGIC) {
        return false;
    }
    const struct block_kept kept = *disk->kept;
    bool good = kept.size >= BLOCK_SECTOR && kept.size % BLOCK_SECTOR == 0 &&
                kept.size <= INT64_MAX && kept.physical_bytes >= BLOCK_SECTOR &&
                kept.physical_bytes <= 65536 &&
                !(kept.physical_bytes & (kept.physical_bytes - 1)) &&
                kept.discard_bytes == kept.physical_bytes;
    if (good) {
        block->size = kept.size;
        block->read_only |= (kept.flags & KEPT_READ_ONLY) != 0;
        block->can_discard = kept.flags & KEPT_DISCARD;
        block->can_zero = kept.flags & KEPT_ZERO;
        block->physical_bytes = block->discard_bytes = kept.physical_bytes;
    }
    return good;
}

/* The start of a machine waits for the first connection, and fails without one. */
static int disk_wait_first(struct nbd_disk *disk, struct error *err)
{
    uint64_t most = FIRST_MS * NS_PER_MS;
    uint64_t end = clock_monotonic_ns() + (disk->timeout_ns < most ? disk->timeout_ns : most);

    snprintf(disk->reason, sizeof(disk->reason), "nobody answers");
    while (disk->line != LINE_UP && !disk->failed_once && clock_monotonic_ns() < end) {
        timer_set(disk->tell, 100 * NS_PER_MS); /* to look at the time */
        event_base_loop(disk->base, EVLOOP_ONCE);
    }
    evtimer_del(disk->tell);
    if (disk->line == LINE_UP) {
        return 0;
    }
    error_set(err, ERROR_DISK, 0, "no network disk: %.200s", disk->reason);
    error_hint(err, "does the server run, and does it have an export of that name?");
    return -ERROR_DISK;
}

static int disk_open(struct nbd_disk *disk, const struct block_settings *settings,
                     struct error *err)
{
    int status = nbd_uri_parse(settings->nbd, ERROR_CONFIG, &disk->uri, err);

    if (status < 0) {
        return status;
    }
    fcntl(disk->channel, F_SETFL, O_RDWR | O_NONBLOCK);
    disk->answer = event_new(disk->base, disk->channel, EV_READ | EV_PERSIST, disk_answer, disk);
    disk->retry = evtimer_new(disk->base, disk_retry, disk);
    disk->tell = evtimer_new(disk->base, disk_tell_timer, disk);
    disk->expiry = evtimer_new(disk->base, disk_expiry, disk);
    if (!disk->answer || !disk->retry || !disk->tell || !disk->expiry ||
        event_add(disk->answer, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for a network disk");
    }
    bool known = disk_remember(disk);
    disk_ask(disk);
    status = known ? 0 : disk_wait_first(disk, err);
    disk->block.can_resize = true;
    snprintf(disk->block.described, sizeof(disk->block.described), "NBD");
    return status;
}

static void nobody_settles(void *context)
{
    (void)context;
}

struct block *block_nbd_open(int fd, const struct block_settings *settings, struct event_base *base,
                             struct error *err)
{
    struct nbd_disk *disk = calloc(1, sizeof(*disk));

    if (!disk) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for a network disk");
        return NULL;
    }
    TAILQ_INIT(&disk->waiting);
    TAILQ_INIT(&disk->flying);
    disk->block.operations = &nbd_operations;
    disk->block.settled = nobody_settles; /* until the caller's is known */
    disk->block.read_only = settings->read_only;
    disk->block.logical_bytes = BLOCK_SECTOR;
    disk->base = base;
    disk->channel = fd;
    disk->kept = settings->kept;
    disk->timeout_ns = (settings->timeout_s ? settings->timeout_s : 1) * NS_PER_S;
    disk->down_ns = clock_monotonic_ns();
    disk->number = disk->down_ns; /* not what an earlier process counted */
    if (disk_open(disk, settings, err) < 0) {
        disk_close(&disk->block);
        return NULL;
    }
    return &disk->block;
}
