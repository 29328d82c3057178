#include "devd/device_control.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include <errno.h>
#include <nanomsg/pair.h>
#include <stdlib.h>
#include <string.h>

/* vmmd waits for its answers; when it died there is nobody to wait for. */
#define REPLY_TIMEOUT_MS 200

struct device_control {
    struct channel *channel;
    struct event *readable;
    Polyvisor__DeviceRequest *configure; /* being acted on */
    uint64_t stop_id;                    /* to answer; 0: none */
    const struct device_control_operations *operations;
    void *context;
};

static void device_control_send(struct device_control *control, Polyvisor__DeviceReply *reply,
                                const struct error *failure)
{
    Polyvisor__Error message;
    struct error copy;

    if (failure) {
        copy = *failure;
        error_to_message(&copy, &message);
        reply->error = &message;
    }
    int status = channel_send(control->channel, &reply->base, REPLY_TIMEOUT_MS);
    if (status < 0) {
        log_warning("cannot answer vmmd: %s", strerror(-status));
    }
}

void device_control_answer(struct device_control *control, uint64_t id, const struct error *failure)
{
    Polyvisor__DeviceReply reply = POLYVISOR__DEVICE_REPLY__INIT;

    reply.id = id;
    device_control_send(control, &reply, failure);
}

void device_control_answer_balloon(struct device_control *control, uint64_t id,
                                   Polyvisor__DeviceBalloonReport *report)
{
    Polyvisor__DeviceReply reply = POLYVISOR__DEVICE_REPLY__INIT;

    reply.id = id;
    reply.balloon = report;
    device_control_send(control, &reply, NULL);
}

void device_control_notice(struct device_control *control, Polyvisor__DeviceNoticeKind notice,
                           const char *text)
{
    Polyvisor__DeviceReply reply = POLYVISOR__DEVICE_REPLY__INIT;

    reply.notice = notice;
    reply.text = (char *)text;
    /* Nobody waits for it: when vmmd is not there now, it is lost. */
    channel_send(control->channel, &reply.base, 0);
}

static void device_control_refuse(struct device_control *control, uint64_t id, const char *why)
{
    struct error err;
    error_set(&err, ERROR_STATE, 0, "%s", why);
    device_control_answer(control, id, &err);
}

/* One request, or NULL with the (negative) reason. Rubbish is dropped. */
static Polyvisor__DeviceRequest *device_control_receive(struct device_control *control,
                                                        int timeout_ms, int *status)
{
    ProtobufCMessage *message = NULL;

    *status = channel_receive(control->channel, &polyvisor__device_request__descriptor, &message,
                              timeout_ms);
    if (*status == -EBADMSG) {
        log_warning("vmmd sent something that is no request");
    }
    return (Polyvisor__DeviceRequest *)message;
}

static void request_free(Polyvisor__DeviceRequest *request)
{
    polyvisor__device_request__free_unpacked(request, NULL);
}

struct device_control *device_control_open(const char *path, struct error *err)
{
    struct device_control *control = calloc(1, sizeof(*control));

    if (!control) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory");
        return NULL;
    }
    control->channel = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    if (!control->channel) {
        error_set(err, ERROR_INTERNAL, errno, "cannot bind the control socket %s: %s", path,
                  strerror(errno));
        free(control);
        return NULL;
    }
    return control;
}

void device_control_close(struct device_control *control)
{
    if (!control) {
        return;
    }
    if (control->readable) {
        event_free(control->readable);
    }
    if (control->configure) {
        request_free(control->configure);
    }
    channel_close(control->channel);
    free(control);
}

const Polyvisor__DeviceConfigure *device_control_await_configure(struct device_control *control,
                                                                 int timeout_ms, struct error *err)
{
    uint64_t end = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;

    for (;;) {
        int wait_ms = clock_poll_ms(end), status;
        if (wait_ms == 0) {
            error_set(err, ERROR_TIMEOUT, 0, "vmmd sent no configuration");
            return NULL;
        }
        Polyvisor__DeviceRequest *request = device_control_receive(control, wait_ms, &status);
        if (!request) {
            if (status != -EBADMSG && status != -EAGAIN && status != -ETIMEDOUT) {
                error_set(err, ERROR_INTERNAL, -status, "the control channel failed: %s",
                          strerror(-status));
                return NULL;
            }
            continue;
        }
        if (request->body_case == POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE) {
            control->configure = request;
            return request->configure;
        }
        if (request->body_case == POLYVISOR__DEVICE_REQUEST__BODY_PING) {
            device_control_answer(control, request->id, NULL);
        } else {
            device_control_refuse(control, request->id, "the device is not configured yet");
        }
        request_free(request);
    }
}

void device_control_configured(struct device_control *control, const struct error *failure,
                               const char *description)
{
    Polyvisor__DeviceReply reply = POLYVISOR__DEVICE_REPLY__INIT;

    reply.id = control->configure->id;
    reply.description = (char *)description;
    device_control_send(control, &reply, failure);
    request_free(control->configure);
    control->configure = NULL;
}

static void device_control_request(struct device_control *control,
                                   const Polyvisor__DeviceRequest *request)
{
    struct error err;
    int status;

    switch (request->body_case) {
    case POLYVISOR__DEVICE_REQUEST__BODY_PING:
        device_control_answer(control, request->id, NULL);
        if (control->operations->pinged) {
            control->operations->pinged(control->context);
        }
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_STOP:
        /* A repeated one takes the place of the first, whose asker may be gone. */
        control->stop_id = request->id;
        control->operations->stop(control->context);
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_POWER_KEY:
        status = control->operations->power_key(control->context, &err);
        device_control_answer(control, request->id, status < 0 ? &err : NULL);
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_SET_LINK:
        status = control->operations->set_link(control->context, request->set_link->up, &err);
        device_control_answer(control, request->id, status < 0 ? &err : NULL);
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_SET_LIMITS:
        status =
            control->operations->set_limits(control->context, request->set_limits->limits, &err);
        device_control_answer(control, request->id, status < 0 ? &err : NULL);
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_RESIZE:
        if (control->operations->resize(control->context, request->id, request->resize, &err) < 0) {
            device_control_answer(control, request->id, &err);
        }
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_BALLOON:
        if (control->operations->balloon(control->context, request->id, request->balloon, &err) <
            0) {
            device_control_answer(control, request->id, &err);
        }
        break;
    case POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE:
        device_control_refuse(control, request->id, "the device is configured already");
        break;
    default:
        device_control_refuse(control, request->id, "unknown request");
        break;
    }
}

static void device_control_readable(evutil_socket_t fd, short what, void *context)
{
    struct device_control *control = context;
    int status;

    (void)fd;
    (void)what;
    do {
        Polyvisor__DeviceRequest *request = device_control_receive(control, 0, &status);
        if (request) {
            device_control_request(control, request);
            request_free(request);
        }
    } while (status == 0 || status == -EBADMSG);
}

int device_control_serve(struct device_control *control, struct event_base *base,
                         const struct device_control_operations *operations, void *context)
{
    control->operations = operations;
    control->context = context;
    control->readable = event_new(base, channel_receive_fd(control->channel), EV_READ | EV_PERSIST,
                                  device_control_readable, control);
    return control->readable && event_add(control->readable, NULL) == 0 ? 0 : -ENOMEM;
}

void device_control_stopped(struct device_control *control)
{
    if (control->stop_id) {
        device_control_answer(control, control->stop_id, NULL);
    }
}
