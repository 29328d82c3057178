/* The conversations that vmmd has with its children: proto/vcpu.proto, proto/device.proto and
 * proto/jit.proto. */
#include "libshared/ipc/error_message.h"
#include "proto/device.pb-c.h"
#include "proto/jit.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/child.h"

#define PING_DEADLINE_MS (CHILD_HEARTBEAT_MS * (CHILD_HEARTBEAT_MISSED + 1))

static void vcpu_set_id(ProtobufCMessage *request, uint64_t id)
{
    ((Polyvisor__VcpuRequest *)request)->id = id;
}

static uint64_t vcpu_reply_id(const ProtobufCMessage *reply)
{
    return ((const Polyvisor__VcpuReply *)reply)->id;
}

static bool vcpu_reply_error(const ProtobufCMessage *reply, struct error *err)
{
    const Polyvisor__Error *error = ((const Polyvisor__VcpuReply *)reply)->error;

    error_from_message(err, error);
    return error != NULL;
}

static void vcpu_ping(struct child *child)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuPing ping = POLYVISOR__VCPU_PING__INIT;

    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_PING;
    request.ping = &ping;
    child_request(child, &request.base, PING_DEADLINE_MS, NULL, 0);
}

const struct child_protocol child_protocol_vcpu = {
    .kind = CHANNEL_VCPU,
    .reply_type = &polyvisor__vcpu_reply__descriptor,
    .set_id = vcpu_set_id,
    .reply_id = vcpu_reply_id,
    .reply_error = vcpu_reply_error,
    .ping = vcpu_ping,
};

static void device_set_id(ProtobufCMessage *request, uint64_t id)
{
    ((Polyvisor__DeviceRequest *)request)->id = id;
}

static uint64_t device_reply_id(const ProtobufCMessage *reply)
{
    return ((const Polyvisor__DeviceReply *)reply)->id;
}

static bool device_reply_error(const ProtobufCMessage *reply, struct error *err)
{
    const Polyvisor__Error *error = ((const Polyvisor__DeviceReply *)reply)->error;

    error_from_message(err, error);
    return error != NULL;
}

static void device_ping(struct child *child)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DevicePing ping = POLYVISOR__DEVICE_PING__INIT;

    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_PING;
    request.ping = &ping;
    child_request(child, &request.base, PING_DEADLINE_MS, NULL, 0);
}

const struct child_protocol child_protocol_device = {
    .kind = CHANNEL_DEVICE,
    .reply_type = &polyvisor__device_reply__descriptor,
    .set_id = device_set_id,
    .reply_id = device_reply_id,
    .reply_error = device_reply_error,
    .ping = device_ping,
};

static void jit_set_id(ProtobufCMessage *request, uint64_t id)
{
    ((Polyvisor__JitControl *)request)->id = id;
}

static uint64_t jit_reply_id(const ProtobufCMessage *reply)
{
    return ((const Polyvisor__JitControlReply *)reply)->id;
}

static bool jit_reply_error(const ProtobufCMessage *reply, struct error *err)
{
    const Polyvisor__Error *error = ((const Polyvisor__JitControlReply *)reply)->error;

    error_from_message(err, error);
    return error != NULL;
}

static void jit_ping(struct child *child)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitPing ping = POLYVISOR__JIT_PING__INIT;

    request.body_case = POLYVISOR__JIT_CONTROL__BODY_PING;
    request.ping = &ping;
    child_request(child, &request.base, PING_DEADLINE_MS, NULL, 0);
}

const struct child_protocol child_protocol_jit = {
    .kind = CHANNEL_JIT_CONTROL,
    .reply_type = &polyvisor__jit_control_reply__descriptor,
    .set_id = jit_set_id,
    .reply_id = jit_reply_id,
    .reply_error = jit_reply_error,
    .ping = jit_ping,
};
