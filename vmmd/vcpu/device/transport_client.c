#include "vmmd/vcpu/device/transport_client.h"
#include "libshared/base/clock.h"
#include "libshared/ipc/channel.h"
#include "proto/transport.pb-c.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <limits.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <stdbool.h>
#include <stdlib.h>

#define STALE_ANSWERS_MAX 64 /* a flooding device must not keep a vCPU busy for ever */

struct transport_client {
    struct channel *channel;
    unsigned deadline_ms;
    uint64_t last_id;
    bool late;              /* missed its last deadline */
    uint64_t reset_id;      /* of the reset whose answer is outstanding; 0 = none */
    uint64_t reset_sent_ns; /* when it was last sent */
    struct transport_client_wait wait;
};

struct transport_client *transport_client_create(const char *path, unsigned deadline_ms,
                                                 struct error *err)
{
    struct transport_client *client = calloc(1, sizeof(*client));
    if (!client) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the transport channel %s", path);
        return NULL;
    }
    client->deadline_ms = deadline_ms;
    client->channel = channel_bind(CHANNEL_TRANSPORT, NN_PAIR, path);
    if (!client->channel) {
        error_set(err, ERROR_IO, errno, "cannot bind the transport socket %s", path);
        free(client);
        return NULL;
    }
    return client;
}

void transport_client_set_wait(struct transport_client *client,
                               const struct transport_client_wait *wait)
{
    client->wait = *wait;
}

void transport_client_destroy(struct transport_client *client)
{
    if (client) {
        channel_close(client->channel);
        free(client);
    }
}

/* Receive one reply. 0 with its id and status, -EBADMSG for rubbish, -EAGAIN or -ETIMEDOUT. */
static int receive_reply(struct transport_client *client, int timeout_ms, uint64_t *id, int *status)
{
    ProtobufCMessage *message = NULL;
    int result = channel_receive(client->channel, &polyvisor__transport_reply__descriptor, &message,
                                 timeout_ms);
    if (result == 0) {
        const Polyvisor__TransportReply *reply = (const Polyvisor__TransportReply *)message;
        *id = reply->id;
        *status = reply->status > 0 || reply->status < -4095 ? -EPROTO : reply->status;
        client->late = false;
        protobuf_c_message_free_unpacked(message, NULL);
    }
    return result;
}

/* Drop what came after its deadline. True when the outstanding reset was among it. */
static bool drain_replies(struct transport_client *client)
{
    bool reset_answered = false;
    for (unsigned i = 0; i < STALE_ANSWERS_MAX; i++) {
        uint64_t id = 0;
        int status = 0;
        int result = receive_reply(client, 0, &id, &status);
        if (result != 0 && result != -EBADMSG) {
            break;
        }
        reset_answered |= result == 0 && client->reset_id != 0 && id == client->reset_id;
    }
    return reset_answered;
}

void transport_client_forget(struct transport_client *client)
{
    drain_replies(client);
    client->late = false;
    client->reset_id = 0;
    client->wait = (struct transport_client_wait){.slow = NULL};
}

static int wait_for_reply(struct transport_client *client, uint64_t wanted, uint64_t deadline_ns)
{
    for (;;) {
        int left = clock_poll_ms(deadline_ns);
        uint64_t id = 0;
        int status = 0;
        if (left == 0) {
            return -ETIMEDOUT;
        }
        int result = receive_reply(client, left, &id, &status);
        if (result == 0 && id == wanted) {
            return status;
        }
        if (result != 0 && result != -EBADMSG && result != -ETIMEDOUT && result != -EAGAIN) {
            return result;
        }
    }
}

static bool is_hopeless(const struct transport_client *client)
{
    return client->wait.hopeless && client->wait.hopeless(client->wait.context);
}

/* Until when to wait before looking again; *slow_ns becomes 0 once it was said. */
static uint64_t turn_end(const struct transport_client *client, uint64_t *slow_ns,
                         uint64_t deadline_ns)
{
    uint64_t now = clock_monotonic_ns();
    uint64_t end_ns = now + TUNABLE_TRANSPORT_RESEND_MS * NS_PER_MS;
    if (*slow_ns && now >= *slow_ns) {
        *slow_ns = 0;
        client->wait.slow(client->wait.context);
    }
    return end_ns < deadline_ns ? end_ns : deadline_ns;
}

/* Send one request and wait for its answer. A device that died with the request in its hands is
 * replaced within the deadline: its successor must see it too. */
static int request(struct transport_client *client, Polyvisor__TransportRequest *message,
                   unsigned limit_ms)
{
    unsigned wait_ms = client->late ? TUNABLE_TRANSPORT_RETRY_MS : client->deadline_ms;
    wait_ms = wait_ms < client->deadline_ms ? wait_ms : client->deadline_ms;
    wait_ms = wait_ms < limit_ms ? wait_ms : limit_ms;
    uint64_t begin_ns = clock_monotonic_ns();
    uint64_t deadline_ns = begin_ns + (uint64_t)wait_ms * NS_PER_MS;
    uint64_t slow_ns = client->wait.slow ? begin_ns + client->wait.slow_ms * NS_PER_MS : 0;
    int result;

    drain_replies(client);
    message->id = ++client->last_id;
    do {
        uint64_t turn_ns = turn_end(client, &slow_ns, deadline_ns);
        result = channel_send(client->channel, &message->base, clock_poll_ms(turn_ns));
        if (result == 0) {
            result = wait_for_reply(client, message->id, turn_ns);
        }
        if (result == -ETIMEDOUT && is_hopeless(client)) {
            return -ECANCELED;
        }
    } while (result == -ETIMEDOUT && clock_poll_ms(deadline_ns) > 0);
    client->late = result == -ETIMEDOUT;
    return result;
}

int transport_client_activate(struct transport_client *client)
{
    Polyvisor__TransportRequest message = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportActivate activate = POLYVISOR__TRANSPORT_ACTIVATE__INIT;
    message.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_ACTIVATE;
    message.activate = &activate;
    return request(client, &message, UINT_MAX);
}

int transport_client_reset(struct transport_client *client, unsigned limit_ms)
{
    Polyvisor__TransportRequest message = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportReset reset = POLYVISOR__TRANSPORT_RESET__INIT;
    message.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_RESET;
    message.reset = &reset;
    int result = request(client, &message, limit_ms);
    client->reset_id = result == -ETIMEDOUT || result == -ECANCELED ? client->last_id : 0;
    client->reset_sent_ns = clock_monotonic_ns();
    return result;
}

/* The outstanding reset, once more, if there is somebody to take it. */
static void reset_send(struct transport_client *client)
{
    Polyvisor__TransportRequest message = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportReset reset = POLYVISOR__TRANSPORT_RESET__INIT;
    message.id = client->reset_id;
    message.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_RESET;
    message.reset = &reset;
    channel_send(client->channel, &message.base, 0);
    client->reset_sent_ns = clock_monotonic_ns();
}

void transport_client_reset_begin(struct transport_client *client)
{
    drain_replies(client);
    client->reset_id = ++client->last_id;
    reset_send(client);
}

int transport_client_reset_poll(struct transport_client *client)
{
    if (drain_replies(client)) {
        client->reset_id = 0;
        return 0;
    }
    if (clock_monotonic_ns() - client->reset_sent_ns >= TUNABLE_TRANSPORT_RESEND_MS * NS_PER_MS) {
        reset_send(client);
    }
    return -EAGAIN;
}

int transport_client_queue_reset(struct transport_client *client, unsigned queue)
{
    Polyvisor__TransportRequest message = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportQueueReset reset = POLYVISOR__TRANSPORT_QUEUE_RESET__INIT;
    reset.queue = queue;
    message.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_QUEUE_RESET;
    message.queue_reset = &reset;
    return request(client, &message, UINT_MAX);
}

int transport_client_queue_enable(struct transport_client *client, unsigned queue)
{
    Polyvisor__TransportRequest message = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportQueueEnable enable = POLYVISOR__TRANSPORT_QUEUE_ENABLE__INIT;
    enable.queue = queue;
    message.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_QUEUE_ENABLE;
    message.queue_enable = &enable;
    return request(client, &message, UINT_MAX);
}

int transport_client_config_write(struct transport_client *client, uint32_t offset, unsigned size,
                                  uint64_t value)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
    Polyvisor__TransportRequest message = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportConfigWrite write = POLYVISOR__TRANSPORT_CONFIG_WRITE__INIT;
    write.offset = offset;
    write.data.data = bytes;
    write.data.len = size <= sizeof(bytes) ? size : sizeof(bytes);
    message.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_CONFIG_WRITE;
    message.config_write = &write;
    return request(client, &message, UINT_MAX);
}
