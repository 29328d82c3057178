/* The life of a request of the control socket: it is answered at once, or waits. */
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include "vmmd/control_internal.h"
#include "vmmd/supervisor.h"
#include <stdlib.h>
#include <string.h>

/* However long the client would wait: nobody notices when it leaves. */
#define CONTROL_WAIT_MAX_MS (60 * 60 * 1000u)

/* What a response needs beside its machines, and each of them for its tag and length. */
#define RESPONSE_OWN_BYTES   256
#define RESPONSE_ENTRY_BYTES 8

/* ---- beginning and end ---- */

struct request *request_new(struct control_socket *control, struct channel_route *route)
{
    struct request *request = calloc(1, sizeof(*request));

    if (!request) {
        channel_route_free(route);
        return NULL;
    }
    request->control = control;
    request->route = route;
    request->serial = ++control->last_serial;
    TAILQ_INSERT_TAIL(&control->requests, request, link);
    control->request_count++;
    return request;
}

void request_free(struct request *request)
{
    TAILQ_REMOVE(&request->control->requests, request, link);
    request->control->request_count--;
    if (request->timer) {
        event_free(request->timer);
    }
    channel_route_free(request->route);
    free(request);
}

/* ---- answers ---- */

void request_send(struct request *request, Polyvisor__Response *response)
{
    struct channel_route *route = request->route;

    request->route = NULL;
    response->id = request->id;
    response->version = POLYVISOR_VERSION;
    int result = channel_reply(request->control->channel, route, &response->base);
    if (result) {
        log_warning("cannot answer request %llu: %s", (unsigned long long)request->id,
                    strerror(-result));
    }
    request_free(request);
}

void request_fail(struct request *request, struct error *err)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    Polyvisor__Error error;

    error_component(err, "vmmd");
    error_to_message(err, &error);
    response.error = &error;
    request_send(request, &response);
}

bool request_accepted(struct request *request, int status, struct error *err)
{
    if (status) {
        request_fail(request, err);
    }
    return !status;
}

void request_succeed(struct request *request)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;

    request_send(request, &response);
}

void request_answer_machines(struct request *request, struct machine *first, size_t count,
                             bool closely)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    struct machine_view *views = calloc(count + 1, sizeof(*views));
    Polyvisor__MachineInfo **list = calloc(count + 1, sizeof(Polyvisor__MachineInfo *));
    struct machine *machine = first;
    struct error err;
    size_t size = 0;

    if (!views || !list) {
        error_set(&err, ERROR_INTERNAL, ENOMEM, "out of memory");
        request_fail(request, &err);
        goto out;
    }
    for (; machine && response.n_machines < count; machine = TAILQ_NEXT(machine, link)) {
        struct machine_view *view = &views[response.n_machines];
        machine_view_init(view, machine);
        if (closely) {
            machine_view_confinement(view);
        }
        size += protobuf_c_message_get_packed_size(&view->info.base) + RESPONSE_ENTRY_BYTES;
        if (size > CHANNEL_MESSAGE_MAX - RESPONSE_OWN_BYTES && response.n_machines > 0) {
            response.more = true; /* one always fits: its strings are bounded (validate.c) */
            break;
        }
        list[response.n_machines++] = &view->info;
    }
    response.machines = list;
    request_send(request, &response);
out:
    free(list);
    free(views);
}

void request_conclude(struct request *request, struct machine *machine, int status,
                      struct error *err)
{
    if (request_accepted(request, status, err)) {
        request_answer_machines(request, machine, 1, false);
    }
}

/* ---- waiting ---- */

static void request_on_timer(evutil_socket_t fd, short what, void *argument)
{
    struct request *request = argument;
    struct error err;
    (void)fd, (void)what;

    if (request->timeout_is_answer) {
        request_answer_machines(request, request->machine, 1, false);
        return;
    }
    error_set(&err, ERROR_TIMEOUT, 0, "not done within the time that was given");
    error_hint(&err, "it goes on; look with: vmctl list");
    request_fail(request, &err);
}

bool request_wait(struct request *request, enum request_wait wait, struct machine *machine,
                  uint32_t timeout_ms)
{
    struct error err;

    if (!timeout_ms || timeout_ms > CONTROL_WAIT_MAX_MS) {
        timeout_ms = CONTROL_WAIT_MAX_MS;
    }
    const struct timeval timeout = clock_timeval(timeout_ms * NS_PER_MS);
    request->wait = wait;
    request->machine = machine;
    request->timer = evtimer_new(request->control->base, request_on_timer, request);
    if (!request->timer || evtimer_add(request->timer, &timeout) < 0) {
        error_set(&err, ERROR_INTERNAL, ENOMEM, "out of memory");
        request_fail(request, &err);
        return false;
    }
    return true;
}

void request_wait_process(struct request *request, int status, struct error *err,
                          uint32_t timeout_ms)
{
    if (request_accepted(request, status, err)) {
        request_wait(request, REQUEST_PROCESS, NULL, timeout_ms);
    }
}

bool request_is_done(const struct request *request, const struct machine *machine)
{
    bool runs = machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING;

    switch (request->wait) {
    case REQUEST_READY:
        return runs || machine->state == POLYVISOR__MACHINE_STATE__MACHINE_READY;
    case REQUEST_STARTED:
        return runs;
    case REQUEST_ENDED:
        return machine_is_idle(machine);
    default:
        return false;
    }
}

/* A start that is still open when the machine is idle again has failed: every state on the way
 * was seen. */
static bool request_start_failed(const struct request *request, const struct machine *machine)
{
    bool wants_start = request->wait == REQUEST_READY || request->wait == REQUEST_STARTED;

    return wants_start && machine_is_idle(machine);
}

static void request_fail_start(struct request *request, const struct machine *machine)
{
    struct error err = machine->last_error;

    if (err.code == ERROR_OK) {
        error_set(&err, ERROR_CANCELLED, 0, "machine '%s' was stopped while it started",
                  machine->config->name);
    }
    request_fail(request, &err);
}

void control_socket_machine_changed(struct control_socket *control, struct machine *machine)
{
    struct request *request, *next;

    for (request = TAILQ_FIRST(&control->requests); request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (request->machine != machine) {
            continue;
        }
        if (request_start_failed(request, machine)) {
            request_fail_start(request, machine);
        } else if (request_is_done(request, machine)) {
            request_answer_machines(request, machine, 1, false);
        }
    }
}

void control_socket_ended(struct control_socket *control)
{
    struct request *request, *next;

    for (request = TAILQ_FIRST(&control->requests); request; request = next) {
        next = TAILQ_NEXT(request, link);
        if (request->wait == REQUEST_SHUTDOWN) {
            request_succeed(request);
        }
    }
}

/* ---- what it is about ---- */

struct machine *control_machine(struct request *request, const char *name)
{
    struct machine *machine = supervisor_find(request->control->supervisor, name);
    struct error err;

    if (!machine) {
        error_set(&err, ERROR_NOT_FOUND, 0, "there is no machine '%.60s'", name);
        error_hint(&err, "those there are: vmctl list");
        request_fail(request, &err);
    }
    return machine;
}

struct request *control_find_request(struct control_socket *control, uint64_t serial)
{
    struct request *request = NULL;

    TAILQ_FOREACH(request, &control->requests, link)
    {
        if (request->serial == serial) {
            break;
        }
    }
    return request;
}

struct request *control_asked(const struct machine *machine, const struct error *error,
                              uint64_t serial)
{
    struct control_socket *control = supervisor_control(machine->host->context);

    if (!control) {
        return NULL; /* vmmd is on its way out */
    }
    struct request *request = control_find_request(control, serial);
    if (request && error) {
        struct error err = *error;
        request_fail(request, &err);
        return NULL;
    }
    return request;
}
