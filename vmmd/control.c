#include "vmmd/control_internal.h"

#include "libshared/ipc/channel.h"
#include "vmmd/supervisor.h"
#include <errno.h>
#include <stdlib.h>

#define CONTROL_BATCH        64   /* requests taken a wake-up */
#define CONTROL_REQUESTS_MAX 4096 /* open at once */

/* ---- the requests ---- */

static void control_version(struct request *request, const Polyvisor__Request *message)
{
    (void)message;
    request_succeed(request); /* every response carries it */
}

static void control_shutdown(struct request *request, const Polyvisor__Request *message)
{
    request_wait(request, REQUEST_SHUTDOWN, NULL, message->deadline_ms);
    supervisor_end(request->control->supervisor, "on request");
}

static const struct {
    Polyvisor__Request__BodyCase body;
    void (*handle)(struct request *request, const Polyvisor__Request *message);
    bool waits; /* may stay open; the others are answered however many do */
} control_handlers[] = {
    {POLYVISOR__REQUEST__BODY_CREATE, control_create, false},
    {POLYVISOR__REQUEST__BODY_START, control_start, true},
    {POLYVISOR__REQUEST__BODY_STOP, control_stop, true},
    {POLYVISOR__REQUEST__BODY_KILL, control_kill, true},
    {POLYVISOR__REQUEST__BODY_REMOVE, control_remove, false},
    {POLYVISOR__REQUEST__BODY_LIST, control_list, false},
    {POLYVISOR__REQUEST__BODY_SHOW, control_show, false},
    {POLYVISOR__REQUEST__BODY_WAIT, control_wait, true},
    {POLYVISOR__REQUEST__BODY_VERSION, control_version, false},
    {POLYVISOR__REQUEST__BODY_SHUTDOWN, control_shutdown, true},
    {POLYVISOR__REQUEST__BODY_STATS, control_stats, true},
    {POLYVISOR__REQUEST__BODY_CODE, control_code, true},
    {POLYVISOR__REQUEST__BODY_DEVICE_RESTART, control_device_restart, false},
    {POLYVISOR__REQUEST__BODY_LINK, control_link, false},
    {POLYVISOR__REQUEST__BODY_DEVICE_LIMIT, control_device_limit, false},
    {POLYVISOR__REQUEST__BODY_DISK_RESIZE, control_disk_resize, true},
    {POLYVISOR__REQUEST__BODY_BALLOON, control_balloon, true},
    {POLYVISOR__REQUEST__BODY_DEVICE_ATTACH, control_device_attach, true},
    {POLYVISOR__REQUEST__BODY_DEVICE_DETACH, control_device_detach, true},
};

static void control_dispatch(struct request *request, const Polyvisor__Request *message)
{
    struct error err;

    request->id = message->id;
    for (size_t i = 0; i < sizeof(control_handlers) / sizeof(control_handlers[0]); i++) {
        if (control_handlers[i].body != message->body_case) {
            continue;
        }
        if (control_handlers[i].waits && request->control->request_count > CONTROL_REQUESTS_MAX) {
            error_set(&err, ERROR_BUSY, 0, "%d requests are open already", CONTROL_REQUESTS_MAX);
            error_hint(&err, "each ends at its deadline, or after an hour");
            request_fail(request, &err);
        } else {
            control_handlers[i].handle(request, message);
        }
        return;
    }
    error_set(&err, ERROR_PROTOCOL, 0, "an unknown request");
    error_hint(&err, "vmctl and vmmd are of different versions: vmctl version");
    request_fail(request, &err);
}

/* ---- the socket ---- */

static void control_on_message(evutil_socket_t fd, short what, void *argument)
{
    struct control_socket *control = argument;
    struct error err;
    (void)fd, (void)what;

    for (int i = 0; i < CONTROL_BATCH; i++) {
        ProtobufCMessage *message;
        struct channel_route *route;
        int result = channel_receive_request(control->channel, &polyvisor__request__descriptor,
                                             &message, &route);
        if (!route) {
            return;
        }
        struct request *request = request_new(control, route);
        if (request && result) {
            error_set(&err, ERROR_PROTOCOL, -result,
                      result == -EMSGSIZE
                          ? "a message larger than %u bytes"
                          : "a message that is no request (or larger than %u bytes)",
                      CHANNEL_MESSAGE_MAX);
            request_fail(request, &err);
        } else if (request) {
            control_dispatch(request, (const Polyvisor__Request *)message);
        }
        if (!result) {
            protobuf_c_message_free_unpacked(message, NULL);
        }
    }
}

struct control_socket *control_socket_open(struct supervisor *supervisor, struct event_base *base,
                                           const char *path)
{
    struct control_socket *control = calloc(1, sizeof(*control));

    if (!control) {
        return NULL;
    }
    control->supervisor = supervisor;
    control->base = base;
    TAILQ_INIT(&control->requests);
    control->channel = channel_bind_server(CHANNEL_CONTROL, path);
    if (control->channel) {
        control->receive_event = event_new(base, channel_receive_fd(control->channel),
                                           EV_READ | EV_PERSIST, control_on_message, control);
    }
    if (!control->receive_event || event_add(control->receive_event, NULL) < 0) {
        int saved = errno;
        control_socket_close(control);
        errno = saved;
        return NULL;
    }
    return control;
}

void control_socket_close(struct control_socket *control)
{
    if (!control) {
        return;
    }
    while (!TAILQ_EMPTY(&control->requests)) {
        request_free(TAILQ_FIRST(&control->requests));
    }
    if (control->receive_event) {
        event_free(control->receive_event);
    }
    channel_close(control->channel);
    free(control);
}
