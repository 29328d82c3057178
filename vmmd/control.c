#include "vmmd/control_internal.h"

#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include "proto/control.pb-c.h"
#include "proto/jit.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/message.h"
#include "vmmd/supervisor.h"
#include "vmmd/validate.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL_BATCH        64   /* requests taken a wake-up */
#define CONTROL_REQUESTS_MAX 4096 /* open at once */
#define CONTROL_STATS_MAX    128
/* However long the client would wait: nobody notices when it leaves. */
#define CONTROL_WAIT_MAX_MS (60 * 60 * 1000u)

/* What a response needs beside its machines, and each of them for its tag and length. */
#define RESPONSE_OWN_BYTES   256
#define RESPONSE_ENTRY_BYTES 8

/* What an open request waits for. */
enum request_wait {
    REQUEST_NOTHING,
    REQUEST_READY,    /* start --hold: ready or running */
    REQUEST_STARTED,  /* running */
    REQUEST_ENDED,    /* no processes any more */
    REQUEST_PROCESS,  /* the answer of vcpud or a device */
    REQUEST_SHUTDOWN, /* all machines ended */
};

struct request {
    TAILQ_ENTRY(request) link;
    struct control_socket *control;
    struct channel_route *route;
    uint64_t id;     /* the client's */
    uint64_t serial; /* ours: finds the request again, if it is still there */
    enum request_wait wait;
    bool timeout_is_answer; /* WaitRequest: at its time the present state is the answer */
    struct machine *machine;
    struct event *timer;
    Polyvisor__VcpuStats vcpu_stats; /* while jitd is asked for its own */
};

struct control_socket {
    struct supervisor *supervisor;
    struct event_base *base;
    struct channel *channel;
    struct event *receive_event;
    TAILQ_HEAD(, request) requests;
    size_t request_count;
    uint64_t last_serial;
};

/* ---- answers ---- */

static void request_free(struct request *request)
{
    TAILQ_REMOVE(&request->control->requests, request, link);
    request->control->request_count--;
    if (request->timer) {
        event_free(request->timer);
    }
    channel_route_free(request->route);
    free(request);
}

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

static void request_succeed(struct request *request)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;

    request_send(request, &response);
}

/* Answer with `count` machines from `first` on, or with as many of them as fit; `closely`: with
 * what takes a look at each process. */
static void request_answer_machines(struct request *request, struct machine *first, size_t count,
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

/* Keep the request open, at most CONTROL_WAIT_MAX_MS; timeout_ms 0 stands for that. False: it was
 * refused, and is no more. */
static bool request_wait(struct request *request, enum request_wait wait, struct machine *machine,
                         uint32_t timeout_ms)
{
    struct error err;

    if (!timeout_ms || timeout_ms > CONTROL_WAIT_MAX_MS) {
        timeout_ms = CONTROL_WAIT_MAX_MS;
    }
    const struct timeval timeout = {timeout_ms / 1000, (suseconds_t)(timeout_ms % 1000) * 1000};
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

uint64_t request_serial(const struct request *request)
{
    return request->serial;
}

void request_wait_process(struct request *request, uint32_t timeout_ms)
{
    request_wait(request, REQUEST_PROCESS, NULL, timeout_ms);
}

static bool request_is_done(const struct request *request, const struct machine *machine)
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

/* ---- the requests ---- */

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

static void control_create(struct request *request, const Polyvisor__Request *message)
{
    struct supervisor *supervisor = request->control->supervisor;
    Polyvisor__MachineConfig *config = NULL;
    struct machine *machine = NULL;
    struct error err;

    if (!message->create->config) {
        error_set(&err, ERROR_PROTOCOL, 0, "a request to create a machine without configuration");
    } else if (supervisor_find(supervisor, message->create->config->name)) {
        machine = supervisor_create(supervisor, message->create->config, &err); /* says EXISTS */
    } else {
        config = (Polyvisor__MachineConfig *)message_copy(&message->create->config->base);
        if (!config) {
            error_set(&err, ERROR_INTERNAL, ENOMEM, "out of memory");
        } else if (!config_validate(config, supervisor_directory(supervisor), &err)) {
            machine = supervisor_create(supervisor, config, &err);
        }
    }
    if (machine) {
        request_answer_machines(request, machine, 1, false);
        return;
    }
    if (config) {
        polyvisor__machine_config__free_unpacked(config, NULL);
    }
    request_fail(request, &err);
}

static void control_start(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->start->name);
    bool hold = message->start->hold;
    struct error err;

    if (!machine) {
        return;
    }
    if (supervisor_start(request->control->supervisor, machine, hold, &err)) {
        request_fail(request, &err);
        return;
    }
    if (request_wait(request, hold ? REQUEST_READY : REQUEST_STARTED, machine,
                     message->deadline_ms) &&
        request_is_done(request, machine)) {
        request_answer_machines(request, machine, 1, false);
    }
}

static void control_stop(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->stop->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_stop(machine, message->stop->timeout_ms, &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_ENDED, machine, message->deadline_ms);
}

static void control_kill(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->kill->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_kill(machine, &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_ENDED, machine, message->deadline_ms);
}

static void control_remove(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->remove->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (supervisor_remove(request->control->supervisor, machine, &err)) {
        request_fail(request, &err);
    } else {
        request_succeed(request);
    }
}

static void control_list(struct request *request, const Polyvisor__Request *message)
{
    struct supervisor *supervisor = request->control->supervisor;
    struct machine *machine = supervisor_first(supervisor);

    /* They are in the order of their names. */
    while (machine && message->list->after[0] &&
           strcmp(machine->config->name, message->list->after) <= 0) {
        machine = TAILQ_NEXT(machine, link);
    }
    request_answer_machines(request, machine, supervisor_count(supervisor), false);
}

static void control_show(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->show->name);

    if (machine) {
        request_answer_machines(request, machine, 1, true);
    }
}

static void control_wait(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->wait->name);

    if (!machine) {
        return;
    }
    if (machine_is_idle(machine) || !message->wait->timeout_ms) {
        request_answer_machines(request, machine, 1, false);
        return;
    }
    request->timeout_is_answer = true;
    request_wait(request, REQUEST_ENDED, machine, message->wait->timeout_ms);
}

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

/* Counters, each under its name in the message, after a prefix. */
struct control_statistics {
    Polyvisor__Statistic stats[CONTROL_STATS_MAX], *list[CONTROL_STATS_MAX];
    char names[CONTROL_STATS_MAX][48];
    size_t count;
};

static void control_add_stats(struct control_statistics *statistics, const char *prefix,
                              const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;

    for (unsigned i = 0; i < descriptor->n_fields && statistics->count < CONTROL_STATS_MAX; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        size_t at = statistics->count;
        if (field->type != PROTOBUF_C_TYPE_UINT64 || field->label != PROTOBUF_C_LABEL_NONE) {
            continue;
        }
        snprintf(statistics->names[at], sizeof(statistics->names[at]), "%s%s", prefix, field->name);
        polyvisor__statistic__init(&statistics->stats[at]);
        statistics->stats[at].name = statistics->names[at];
        memcpy(&statistics->stats[at].value, (const char *)message + field->offset,
               sizeof(uint64_t));
        statistics->list[at] = &statistics->stats[at];
        statistics->count++;
    }
}

/* The request of that number, if it is still there. */
static struct request *control_find_request(struct control_socket *control, uint64_t serial)
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

/* `jit` may be NULL. */
static void control_answer_stats(struct request *request, const Polyvisor__JitStats *jit)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    struct control_statistics statistics = {.count = 0};

    control_add_stats(&statistics, "", &request->vcpu_stats.base);
    if (jit) {
        control_add_stats(&statistics, "jit_", &jit->base);
    }
    response.n_stats = statistics.count;
    response.stats = statistics.list;
    request_send(request, &response);
}

/* The compiler's counters are for all machines; the answer does without them when need be. */
static void control_jit_stats_came(struct child *child, const struct error *error,
                                   const ProtobufCMessage *reply, uint64_t serial)
{
    struct supervisor *supervisor = compiler_context(child->owner);
    struct control_socket *control = supervisor_control(supervisor);
    struct request *request = control ? control_find_request(control, serial) : NULL;

    if (request) {
        control_answer_stats(request,
                             error ? NULL : ((const Polyvisor__JitControlReply *)reply)->stats);
    }
}

static void control_stats_came(struct child *child, const struct error *error,
                               const ProtobufCMessage *reply, uint64_t serial)
{
    struct request *request = control_asked(child->owner, error, serial);
    const Polyvisor__VcpuReply *answer = (const Polyvisor__VcpuReply *)reply;
    struct machine *machine = child->owner;
    struct compiler *compiler = machine->host->compiler;

    if (!request) {
        return;
    }
    polyvisor__vcpu_stats__init(&request->vcpu_stats);
    if (answer->stats) {
        request->vcpu_stats = *answer->stats; /* numbers only */
        request->vcpu_stats.base.n_unknown_fields = 0;
        request->vcpu_stats.base.unknown_fields = NULL;
    }
    if (!compiler || !compiler_process(compiler, machine->config->name) ||
        !compiler_ask_stats(compiler, control_jit_stats_came, serial)) {
        control_answer_stats(request, NULL);
    }
}

static void control_stats(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->stats->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_ask_stats(machine, control_stats_came, request->serial, &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_PROCESS, NULL, message->deadline_ms);
}

static void control_code_came(struct child *child, const struct error *error,
                              const ProtobufCMessage *reply, uint64_t serial)
{
    struct request *request = control_asked(child->owner, error, serial);
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;

    if (!request) {
        return;
    }
    /* Passed on as it is: what reads it makes it printable. */
    response.code = ((const Polyvisor__VcpuReply *)reply)->code;
    if (!response.code) {
        struct error err;
        error_set(&err, ERROR_PROTOCOL, 0, "vcpud answered without code");
        request_fail(request, &err);
        return;
    }
    request_send(request, &response);
}

static void control_code(struct request *request, const Polyvisor__Request *message)
{
    const Polyvisor__CodeRequest *code = message->code->code;
    struct machine *machine = control_machine(request, message->code->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (!code) {
        error_set(&err, ERROR_PROTOCOL, 0, "a request for code without an address");
        request_fail(request, &err);
        return;
    }
    if (machine_ask_code(machine, code, control_code_came, request->serial, &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_PROCESS, NULL, message->deadline_ms);
}

static void control_device_restart(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->device_restart->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_restart_device(machine, message->device_restart->device, &err)) {
        request_fail(request, &err);
        return;
    }
    request_answer_machines(request, machine, 1, false);
}

static void control_link(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->link->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_set_link(machine, message->link->card, message->link->up, &err)) {
        request_fail(request, &err);
        return;
    }
    request_answer_machines(request, machine, 1, false);
}

static void control_device_limit(struct request *request, const Polyvisor__Request *message)
{
    const Polyvisor__DeviceLimitRequest *limit = message->device_limit;
    struct machine *machine = control_machine(request, limit->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_set_limits(machine, limit->device, limit->limits, &err)) {
        request_fail(request, &err);
        return;
    }
    request_answer_machines(request, machine, 1, false);
}

static void control_disk_resized(struct child *child, const struct error *error,
                                 const ProtobufCMessage *reply, uint64_t serial)
{
    struct machine *machine = ((struct machine_device *)child->owner)->machine;
    struct request *request = control_asked(machine, error, serial);

    (void)reply;
    if (request) {
        request_answer_machines(request, machine, 1, false);
    }
}

static void control_disk_resize(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->disk_resize->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_resize_disk(machine, message->disk_resize, control_disk_resized, request->serial,
                            &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_PROCESS, NULL, message->deadline_ms);
}

static void control_plugged(struct machine *machine, const char *id, const struct error *error,
                            uint64_t serial)
{
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    struct request *request = control_asked(machine, error, serial);

    if (request) {
        response.device = (char *)id;
        request_send(request, &response);
    }
}

static void control_device_attach(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->device_attach->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_attach_device(machine, message->device_attach, control_plugged, request->serial,
                              &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_PROCESS, NULL, message->deadline_ms);
}

static void control_device_detach(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->device_detach->name);
    struct error err;

    if (!machine) {
        return;
    }
    if (machine_detach_device(machine, message->device_detach, control_plugged, request->serial,
                              &err)) {
        request_fail(request, &err);
        return;
    }
    request_wait(request, REQUEST_PROCESS, NULL, message->deadline_ms);
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

/* ---- the socket ---- */

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

static struct request *request_new(struct control_socket *control, struct channel_route *route)
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
