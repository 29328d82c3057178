/*
 * Control channels: nanomsg sockets that carry one protobuf-c message each, framed with a fixed
 * header so that a foreign or truncated message is recognised before it is parsed.
 *
 * A frame is: u32 magic "PVM1", u16 conversation (enum channel_kind), u16 zero, u32 payload
 * length, then the packed message; little-endian. Larger than CHANNEL_MESSAGE_MAX is refused both
 * ways. A channel is used by one thread at a time unless the caller locks.
 */
#ifndef POLYVISOR_IPC_CHANNEL_H
#define POLYVISOR_IPC_CHANNEL_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#define CHANNEL_MESSAGE_MAX (1u << 20)

enum channel_kind {
    CHANNEL_CONTROL = 1,   /* vmctl - vmmd, REQ/REP, proto/control.proto */
    CHANNEL_EVENT = 2,     /* vmmd - anyone, PUB/SUB, proto/event.proto */
    CHANNEL_VCPU = 3,      /* vmmd - vcpud, PAIR, proto/vcpu.proto */
    CHANNEL_DEVICE = 4,    /* vmmd - devd, PAIR, proto/device.proto */
    CHANNEL_TRANSPORT = 5, /* vcpud - devd, PAIR, proto/transport.proto */
    CHANNEL_JIT = 6,         /* vcpud - jitd, PAIR, proto/jit.proto */
    CHANNEL_JIT_CONTROL = 7, /* vmmd - jitd, PAIR, proto/jit.proto */
};

struct channel; /* owns one nanomsg socket */

/* Open a socket of nanomsg protocol `protocol` (NN_PAIR, NN_REQ, ...) for one conversation and
 * bind or connect it to the Unix socket path. NULL with errno set on failure. */
struct channel *channel_bind(enum channel_kind kind, int protocol, const char *path);
struct channel *channel_connect(enum channel_kind kind, int protocol, const char *path);
void channel_close(struct channel *channel);

/* Pollable descriptor that is readable while a message waits; owned by the channel. */
int channel_receive_fd(const struct channel *channel);
/* Pollable descriptor that is readable while channel_send would not wait (a peer is connected and
 * has room); owned by the channel. -1 for channels that cannot send. */
int channel_send_fd(const struct channel *channel);

/* Send one message; waits at most timeout_ms (0 = not at all, -1 = for ever). 0, -EMSGSIZE,
 * -ETIMEDOUT, -ENOMEM or another negative errno. */
int channel_send(struct channel *channel, const ProtobufCMessage *message, int timeout_ms);

/* Receive and unpack one message of the given type. 0 with *out set (free with
 * protobuf_c_message_free_unpacked), -EAGAIN or -ETIMEDOUT when none came in time, -EBADMSG when
 * what came was not such a message (it is consumed), or another negative errno. */
int channel_receive(struct channel *channel, const ProtobufCMessageDescriptor *type,
                    ProtobufCMessage **out, int timeout_ms);

/*
 * A server answers requests in any order, so that a long one does not hold up the others: its
 * socket is a raw NN_REP, and each request comes with a route, its way back to the client that
 * asked. Clients use an ordinary NN_REQ channel.
 */
struct channel_route;

/* Like channel_bind, for channel_receive_request and channel_reply only. */
struct channel *channel_bind_server(enum channel_kind kind, const char *path);
/* Never waits. 0 with *out and *route set; -EBADMSG or -EMSGSIZE with *route set, when what came
 * was not such a message, so that it can be refused; -EAGAIN when nothing waits; or another
 * negative errno. */
int channel_receive_request(struct channel *channel, const ProtobufCMessageDescriptor *type,
                            ProtobufCMessage **out, struct channel_route **route);
/* Answer and free the route, whatever the result. Never waits: the answer to a client that is
 * gone or does not read is dropped. */
int channel_reply(struct channel *channel, struct channel_route *route,
                  const ProtobufCMessage *message);
void channel_route_free(struct channel_route *route); /* NULL is allowed */

#endif
