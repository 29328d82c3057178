/* The control socket's requests for what vcpud and jitd know of a machine: counters and code. */
#include "proto/jit.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/control_internal.h"
#include "vmmd/supervisor.h"
#include <stdio.h>
#include <string.h>

#define CONTROL_STATS_MAX 128

/* ---- counters ---- */

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

void control_stats(struct request *request, const Polyvisor__Request *message)
{
    struct machine *machine = control_machine(request, message->stats->name);
    struct error err;

    if (machine) {
        int status = machine_ask_stats(machine, control_stats_came, request->serial, &err);
        request_wait_process(request, status, &err, message->deadline_ms);
    }
}

/* ---- code ---- */

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

void control_code(struct request *request, const Polyvisor__Request *message)
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
    int status = machine_ask_code(machine, code, control_code_came, request->serial, &err);
    request_wait_process(request, status, &err, message->deadline_ms);
}
