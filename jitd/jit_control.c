#include "jitd/jit_control.h"

#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include <errno.h>
#include <nanomsg/pair.h>
#include <stdlib.h>
#include <string.h>

#define REPLY_TIMEOUT_MS 200 /* vmmd asked a moment ago: it is there, or has just died */
#define CONTROL_BATCH    32

struct jit_control {
    struct channel *channel;
    struct event *receive;
    struct event_base *base;
    struct service *service;
};

/* Each fills what the reply has beyond its id, and returns 0 or an error with *err set. */
typedef int request_handler(struct jit_control *control, const Polyvisor__JitControl *request,
                            Polyvisor__JitControlReply *reply, struct error *err);

static int do_configure(struct jit_control *control, const Polyvisor__JitControl *request,
                        Polyvisor__JitControlReply *reply, struct error *err)
{
    return service_configure(control->service, request->configure, reply, err);
}

static int do_attach(struct jit_control *control, const Polyvisor__JitControl *request,
                     Polyvisor__JitControlReply *reply, struct error *err)
{
    (void)reply;
    return service_attach(control->service, request->attach, err);
}

static int do_detach(struct jit_control *control, const Polyvisor__JitControl *request,
                     Polyvisor__JitControlReply *reply, struct error *err)
{
    (void)reply, (void)err;
    service_detach(control->service, request->detach->machine);
    return 0;
}

static int do_ping(struct jit_control *control, const Polyvisor__JitControl *request,
                   Polyvisor__JitControlReply *reply, struct error *err)
{
    (void)control, (void)request, (void)reply, (void)err;
    return 0;
}

static int do_stats(struct jit_control *control, const Polyvisor__JitControl *request,
                    Polyvisor__JitControlReply *reply, struct error *err)
{
    (void)request, (void)err;
    service_stats(control->service, reply->stats);
    return 0;
}

static int do_stop(struct jit_control *control, const Polyvisor__JitControl *request,
                   Polyvisor__JitControlReply *reply, struct error *err)
{
    (void)request, (void)reply, (void)err;
    event_base_loopexit(control->base, NULL);
    return 0;
}

static request_handler *const handlers[] = {
    [POLYVISOR__JIT_CONTROL__BODY_CONFIGURE] = do_configure,
    [POLYVISOR__JIT_CONTROL__BODY_ATTACH] = do_attach,
    [POLYVISOR__JIT_CONTROL__BODY_DETACH] = do_detach,
    [POLYVISOR__JIT_CONTROL__BODY_PING] = do_ping,
    [POLYVISOR__JIT_CONTROL__BODY_STATS] = do_stats,
    [POLYVISOR__JIT_CONTROL__BODY_STOP] = do_stop,
};

static void answer(struct jit_control *control, const Polyvisor__JitControl *request)
{
    Polyvisor__JitControlReply reply = POLYVISOR__JIT_CONTROL_REPLY__INIT;
    Polyvisor__JitStats stats = POLYVISOR__JIT_STATS__INIT;
    Polyvisor__Error message = POLYVISOR__ERROR__INIT;
    unsigned body = (unsigned)request->body_case;
    struct error err = {0};
    int result;

    reply.id = request->id;
    reply.stats = request->body_case == POLYVISOR__JIT_CONTROL__BODY_STATS ? &stats : NULL;
    if (body < sizeof(handlers) / sizeof(handlers[0]) && handlers[body]) {
        result = handlers[body](control, request, &reply, &err);
    } else {
        result = error_set(&err, ERROR_PROTOCOL, 0, "jitd does not know this request");
    }
    if (result) {
        error_component(&err, "jitd");
        error_to_message(&err, &message);
        reply.error = &message;
        log_warning("%s", err.message);
    }
    result = channel_send(control->channel, &reply.base, REPLY_TIMEOUT_MS);
    if (result) {
        log_warning("cannot answer vmmd: %s", strerror(-result));
    }
    service_free_reply(&reply);
    if (body != POLYVISOR__JIT_CONTROL__BODY_CONFIGURE) {
        service_begin(control->service);
    }
}

static void on_request(evutil_socket_t fd, short what, void *argument)
{
    struct jit_control *control = argument;
    (void)fd, (void)what;

    for (int i = 0; i < CONTROL_BATCH; i++) {
        ProtobufCMessage *message;
        int result =
            channel_receive(control->channel, &polyvisor__jit_control__descriptor, &message, 0);
        if (result == -EBADMSG) {
            log_warning("vmmd sent something that is no request");
            continue;
        }
        if (result < 0) {
            return;
        }
        answer(control, (const Polyvisor__JitControl *)message);
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

struct jit_control *jit_control_open(const char *path, struct error *err)
{
    struct jit_control *control = calloc(1, sizeof(*control));

    if (control) {
        control->channel = channel_bind(CHANNEL_JIT_CONTROL, NN_PAIR, path);
    }
    if (!control || !control->channel) {
        error_set(err, ERROR_IO, errno, "cannot bind the control socket '%.100s': %s", path,
                  strerror(errno));
        free(control);
        return NULL;
    }
    return control;
}

bool jit_control_serve(struct jit_control *control, struct event_base *base,
                       struct service *service, struct error *err)
{
    control->base = base;
    control->service = service;
    control->receive = event_new(base, channel_receive_fd(control->channel), EV_READ | EV_PERSIST,
                                 on_request, control);
    if (!control->receive || event_add(control->receive, NULL) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the event loop");
        return false;
    }
    return true;
}

void jit_control_close(struct jit_control *control)
{
    if (!control) {
        return;
    }
    if (control->receive) {
        event_free(control->receive);
    }
    channel_close(control->channel);
    free(control);
}
