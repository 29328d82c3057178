#include "jitd/session.h"

#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/jit/abi.h"
#include "libshared/jit/region_message.h"
#include <errno.h>
#include <nanomsg/pair.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSION_BATCH         32 /* messages taken a wake-up */
#define SESSION_MALFORMED_MAX 16
#define WELCOME_PART          16384u /* fingerprints a message */

/* Something that waits to be sent. */
struct outgoing {
    TAILQ_ENTRY(outgoing) link;
    uint64_t id; /* 0: a welcome */
    /* welcome */
    uint64_t *fingerprints;
    size_t count, room;
    bool first, more;
    /* answer */
    Polyvisor__JitStatus status;
    struct region *region;
    uint8_t *blob;
    size_t blob_size;
    bool cached;
    uint64_t compile_ns, shape;
    char reason[120];
};

struct session_private {
    struct channel *channel;
    struct event *receive, *sendable;
    const struct session_service *service;
    void *context;
    TAILQ_HEAD(outgoing_list, outgoing) outgoing;
    unsigned malformed;
};

static void outgoing_free(struct outgoing *outgoing)
{
    if (outgoing) {
        free(outgoing->fingerprints);
        free(outgoing->region);
        free(outgoing->blob);
        free(outgoing);
    }
}

/* ---- sending ---- */

static int send_welcome(struct channel *channel, const struct outgoing *outgoing)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitWelcome welcome = POLYVISOR__JIT_WELCOME__INIT;

    welcome.n_fingerprints = outgoing->count;
    welcome.fingerprints = outgoing->fingerprints;
    welcome.first = outgoing->first;
    welcome.more = outgoing->more;
    welcome.abi = (char *)region_abi();
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_WELCOME;
    reply.welcome = &welcome;
    return channel_send(channel, &reply.base, 0);
}

static int send_answer(struct channel *channel, const struct outgoing *outgoing)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitAnswer answer = POLYVISOR__JIT_ANSWER__INIT;
    struct region_message region;

    if (outgoing->region) {
        region_to_message(outgoing->region, true, &region);
        answer.region = &region.region;
    }
    answer.status = outgoing->status;
    answer.blob.data = outgoing->blob;
    answer.blob.len = outgoing->blob_size;
    answer.cached = outgoing->cached;
    answer.compile_ns = outgoing->compile_ns;
    answer.shape = outgoing->shape;
    answer.reason = (char *)outgoing->reason;
    reply.id = outgoing->id;
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_ANSWER;
    reply.answer = &answer;
    return channel_send(channel, &reply.base, 0);
}

/* Send what waits, as far as the other side takes it. */
static void session_flush(struct session *session)
{
    struct session_private *own = session->own;
    struct outgoing *outgoing;

    while ((outgoing = TAILQ_FIRST(&own->outgoing))) {
        int result = outgoing->id ? send_answer(own->channel, outgoing)
                                  : send_welcome(own->channel, outgoing);
        if (result == -ETIMEDOUT || result == -EAGAIN) {
            event_add(own->sendable, NULL);
            return;
        }
        if (result) {
            log_warning("an answer to '%s' is lost: %s", session->machine, strerror(-result));
        }
        TAILQ_REMOVE(&own->outgoing, outgoing, link);
        session->open -= outgoing->id != 0;
        outgoing_free(outgoing);
    }
    event_del(own->sendable);
}

static void on_sendable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    session_flush(argument);
}

static bool append_fingerprints(struct outgoing *outgoing, const uint64_t *fingerprints,
                                size_t count)
{
    if (outgoing->count + count > outgoing->room) {
        size_t room = 2 * (outgoing->count + count);
        uint64_t *grown = realloc(outgoing->fingerprints, room * sizeof(*grown));
        if (!grown) {
            return false;
        }
        outgoing->fingerprints = grown;
        outgoing->room = room;
    }
    if (count) {
        memcpy(outgoing->fingerprints + outgoing->count, fingerprints, count * sizeof(uint64_t));
    }
    outgoing->count += count;
    return true;
}

void session_welcome(struct session *session, const uint64_t *fingerprints, size_t count,
                     bool first)
{
    struct session_private *own = session->own;
    struct outgoing *last = TAILQ_LAST(&own->outgoing, outgoing_list);

    /* News that wait are joined. */
    if (!first && last && !last->id && !last->more && last->count + count <= WELCOME_PART) {
        append_fingerprints(last, fingerprints, count);
        return;
    }
    do {
        size_t part = count < WELCOME_PART ? count : WELCOME_PART;
        struct outgoing *outgoing = calloc(1, sizeof(*outgoing));
        if (!outgoing || !append_fingerprints(outgoing, fingerprints, part)) {
            outgoing_free(outgoing);
            break;
        }
        outgoing->first = first;
        outgoing->more = count > part;
        TAILQ_INSERT_TAIL(&own->outgoing, outgoing, link);
        fingerprints = part ? fingerprints + part : fingerprints;
        count -= part;
        first = false;
    } while (count);
    session_flush(session);
}

void session_reply(struct session *session, uint64_t id, const struct session_answer *answer)
{
    struct outgoing *outgoing = calloc(1, sizeof(*outgoing));

    if (!outgoing) {
        session->open--;
        return;
    }
    outgoing->id = id;
    outgoing->status = answer->status;
    outgoing->cached = answer->cached;
    outgoing->compile_ns = answer->compile_ns;
    outgoing->shape = answer->shape;
    snprintf(outgoing->reason, sizeof(outgoing->reason), "%s",
             answer->reason ? answer->reason : "");
    if (answer->blob) {
        outgoing->blob = malloc(answer->blob_size);
        if (outgoing->blob) {
            memcpy(outgoing->blob, answer->blob, answer->blob_size);
            outgoing->blob_size = answer->blob_size;
        } else {
            outgoing->status = POLYVISOR__JIT_STATUS__JIT_BUSY;
        }
    }
    if (answer->region) {
        outgoing->region = malloc(sizeof(*answer->region));
        if (outgoing->region) {
            *outgoing->region = *answer->region;
        } else {
            outgoing->status = POLYVISOR__JIT_STATUS__JIT_BUSY;
        }
    }
    TAILQ_INSERT_TAIL(&session->own->outgoing, outgoing, link);
    session_flush(session);
}

/* ---- receiving ---- */

static void handle(struct session *session, const Polyvisor__JitRequest *request)
{
    const struct session_answer busy = {.status = POLYVISOR__JIT_STATUS__JIT_BUSY};
    struct session_private *own = session->own;

    if (!request->id) {
        return; /* nobody could tell its answer from a welcome */
    }
    if (request->body_case == POLYVISOR__JIT_REQUEST__BODY_CANCEL) {
        own->service->cancel(own->context, session, request->id);
        return;
    }
    if (request->body_case != POLYVISOR__JIT_REQUEST__BODY_COMPILE &&
        request->body_case != POLYVISOR__JIT_REQUEST__BODY_FETCH) {
        return;
    }
    session->open++;
    if (session->open > SESSION_REQUESTS_MAX) {
        if (session->open > 2 * SESSION_REQUESTS_MAX) {
            session->open--; /* it does not take its answers */
            return;
        }
        session_reply(session, request->id, &busy);
    } else if (request->body_case == POLYVISOR__JIT_REQUEST__BODY_COMPILE) {
        own->service->compile(own->context, session, request->id, request->compile);
    } else {
        own->service->fetch(own->context, session, request->id, request->fetch);
    }
}

static void note_malformed(struct session *session)
{
    if (++session->own->malformed == SESSION_MALFORMED_MAX) {
        log_warning("'%s' sends malformed messages: it is not listened to any more",
                    session->machine);
        event_del(session->own->receive);
    }
}

static void on_message(evutil_socket_t fd, short what, void *argument)
{
    struct session *session = argument;
    (void)fd, (void)what;

    for (int i = 0; i < SESSION_BATCH && session->own->malformed < SESSION_MALFORMED_MAX; i++) {
        ProtobufCMessage *message;
        int result = channel_receive(session->own->channel, &polyvisor__jit_request__descriptor,
                                     &message, 0);
        if (result == -EBADMSG) {
            note_malformed(session);
            continue;
        }
        if (result < 0) {
            return;
        }
        handle(session, (const Polyvisor__JitRequest *)message);
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

/* ---- life ---- */

struct session *session_open(struct event_base *base, const char *machine, const char *path,
                             const struct session_service *service, void *context,
                             struct error *err)
{
    struct session *session = calloc(1, sizeof(*session));
    struct session_private *own = calloc(1, sizeof(*own));

    if (!session || !own) {
        free(session);
        free(own);
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for another machine");
        return NULL;
    }
    snprintf(session->machine, sizeof(session->machine), "%s", machine);
    session->own = own;
    own->service = service;
    own->context = context;
    TAILQ_INIT(&own->outgoing);
    own->channel = channel_connect(CHANNEL_JIT, NN_PAIR, path);
    if (!own->channel) {
        error_set(err, ERROR_IO, errno, "cannot connect to '%.100s': %s", path, strerror(errno));
        session_close(session);
        return NULL;
    }
    own->receive = event_new(base, channel_receive_fd(own->channel), EV_READ | EV_PERSIST,
                             on_message, session);
    own->sendable =
        event_new(base, channel_send_fd(own->channel), EV_READ | EV_PERSIST, on_sendable, session);
    if (!own->receive || !own->sendable || event_add(own->receive, NULL) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for another machine");
        session_close(session);
        return NULL;
    }
    return session;
}

void session_close(struct session *session)
{
    struct outgoing *outgoing;

    if (!session) {
        return;
    }
    struct session_private *own = session->own;
    while ((outgoing = TAILQ_FIRST(&own->outgoing))) {
        TAILQ_REMOVE(&own->outgoing, outgoing, link);
        outgoing_free(outgoing);
    }
    if (own->receive) {
        event_free(own->receive);
    }
    if (own->sendable) {
        event_free(own->sendable);
    }
    channel_close(own->channel);
    free(own);
    free(session);
}
