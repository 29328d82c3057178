/* Control channels: framing, deadlines, and peers that misbehave. */
#include "libshared/base/clock.h"
#include "libshared/ipc/channel.h"
#include "proto/control.pb-c.h"
#include "proto/device.pb-c.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LONG_MS 20000 /* bounds a hang; nothing waits that long when all is well */

static char base[64], path[96];

static void make_base(void)
{
    strcpy(base, "/tmp/pv-channel.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    snprintf(path, sizeof(path), "%s/socket", base);
}

static void remove_base(void)
{
    ck_assert_int_eq(access(path, F_OK), -1); /* every test closes its binder */
    ck_assert_int_eq(rmdir(base), 0);
}

static int send_id(struct channel *channel, uint64_t id)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;

    request.id = id;
    return channel_send(channel, &request.base, LONG_MS);
}

static uint64_t receive_id(struct channel *channel)
{
    ProtobufCMessage *message;

    ck_assert_int_eq(
        channel_receive(channel, &polyvisor__device_request__descriptor, &message, LONG_MS), 0);
    uint64_t id = ((Polyvisor__DeviceRequest *)message)->id;
    protobuf_c_message_free_unpacked(message, NULL);
    return id;
}

/* A request, waited for. */
static int receive_request(struct channel *server, ProtobufCMessage **message,
                           struct channel_route **route)
{
    struct pollfd waiting = {.fd = channel_receive_fd(server), .events = POLLIN};

    ck_assert_int_eq(poll(&waiting, 1, LONG_MS), 1);
    return channel_receive_request(server, &polyvisor__request__descriptor, message, route);
}

/* A nanomsg socket that does not know our framing. */
static int foreign_socket(int protocol)
{
    char address[128];
    int timeout = LONG_MS;

    snprintf(address, sizeof(address), "ipc://%s", path);
    int peer = nn_socket(AF_SP, protocol);
    ck_assert_int_ge(peer, 0);
    ck_assert_int_ge(nn_connect(peer, address), 0);
    nn_setsockopt(peer, NN_SOL_SOCKET, NN_SNDTIMEO, &timeout, sizeof(timeout));
    nn_setsockopt(peer, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof(timeout));
    return peer;
}

START_TEST(messages_go_both_ways)
{
    struct channel *a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    struct channel *b = channel_connect(CHANNEL_DEVICE, NN_PAIR, path);

    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    ck_assert_int_eq(send_id(b, 7), 0);
    ck_assert_int_eq(receive_id(a), 7);
    ck_assert_int_eq(send_id(a, 8), 0);
    ck_assert_int_eq(receive_id(b), 8);
    channel_close(b);
    channel_close(a);
}
END_TEST

START_TEST(the_connecting_side_may_come_first)
{
    struct channel *b = channel_connect(CHANNEL_DEVICE, NN_PAIR, path);
    struct channel *a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);

    ck_assert_int_eq(send_id(b, 7), 0);
    ck_assert_int_eq(receive_id(a), 7);
    /* And the binding side may be replaced. */
    channel_close(a);
    a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    ck_assert_int_eq(send_id(a, 9), 0);
    ck_assert_int_eq(receive_id(b), 9);
    channel_close(b);
    channel_close(a);
}
END_TEST

START_TEST(waiting_has_an_end)
{
    struct channel *a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    ProtobufCMessage *message;
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;

    ck_assert_int_eq(channel_send(a, &request.base, 0), -ETIMEDOUT);
    ck_assert_int_eq(channel_send(a, &request.base, 10), -ETIMEDOUT);
    ck_assert_int_eq(channel_receive(a, &polyvisor__device_request__descriptor, &message, 0),
                     -EAGAIN);
    ck_assert_ptr_null(message);
    ck_assert_int_eq(channel_receive(a, &polyvisor__device_request__descriptor, &message, 10),
                     -ETIMEDOUT);
    channel_close(a);
}
END_TEST

START_TEST(sendable_once_a_peer_is_there)
{
    struct channel *b = channel_connect(CHANNEL_DEVICE, NN_PAIR, path);
    struct pollfd sendable = {.fd = channel_send_fd(b), .events = POLLIN};

    ck_assert_int_eq(poll(&sendable, 1, 0), 0);
    struct channel *a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    ck_assert_int_eq(poll(&sendable, 1, LONG_MS), 1);
    channel_close(b);
    channel_close(a);
}
END_TEST

START_TEST(impossible_sockets_are_refused)
{
    char deep[256];

    memset(deep, 'x', sizeof(deep));
    deep[0] = '/';
    deep[sizeof(deep) - 1] = '\0';
    ck_assert_ptr_null(channel_connect(CHANNEL_DEVICE, NN_PAIR, deep));
    ck_assert_int_eq(errno, ENAMETOOLONG);
    channel_close(NULL);
}
END_TEST

START_TEST(too_large_is_not_sent)
{
    struct channel *a = channel_bind(CHANNEL_EVENT, NN_PAIR, path);
    struct channel *b = channel_connect(CHANNEL_EVENT, NN_PAIR, path);
    Polyvisor__MachineConfig config = POLYVISOR__MACHINE_CONFIG__INIT;
    ProtobufCMessage *message;
    char *text = malloc(CHANNEL_MESSAGE_MAX + 1);

    memset(text, 'x', CHANNEL_MESSAGE_MAX);
    text[CHANNEL_MESSAGE_MAX] = '\0';
    config.append = text;
    ck_assert_int_eq(channel_send(b, &config.base, LONG_MS), -EMSGSIZE);
    text[CHANNEL_MESSAGE_MAX - 16] = '\0';
    ck_assert_int_eq(channel_send(b, &config.base, LONG_MS), 0);
    ck_assert_int_eq(channel_receive(a, &polyvisor__machine_config__descriptor, &message, LONG_MS),
                     0);
    ck_assert_str_eq(((Polyvisor__MachineConfig *)message)->append, text);
    protobuf_c_message_free_unpacked(message, NULL);
    free(text);
    channel_close(b);
    channel_close(a);
}
END_TEST

START_TEST(another_conversation_is_not_understood)
{
    struct channel *a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    struct channel *b = channel_connect(CHANNEL_VCPU, NN_PAIR, path);
    ProtobufCMessage *message;

    ck_assert_int_eq(send_id(b, 1), 0);
    ck_assert_int_eq(channel_receive(a, &polyvisor__device_request__descriptor, &message, LONG_MS),
                     -EBADMSG);
    channel_close(b);
    channel_close(a);
}
END_TEST

static const struct bad_frame {
    size_t length;
    uint8_t bytes[32];
} bad_frames[] = {
    {0, {0}},
    {5, "hello"},
    {11, "PVM1\4\0\0\0\0\0"},                     /* shorter than a header */
    {12, "pvm1\4\0\0\0\0\0\0\0"},                 /* magic */
    {12, "PVM1\5\0\0\0\0\0\0\0"},                 /* conversation */
    {12, "PVM1\4\0\1\0\0\0\0\0"},                 /* reserved */
    {12, "PVM1\4\0\0\0\1\0\0\0"},                 /* longer than what came: truncated */
    {13, "PVM1\4\0\0\0\0\0\0\0x"},                /* shorter than what came */
    {12, "PVM1\4\0\0\0\xff\xff\xff\xff"},         /* absurd length */
    {14, "PVM1\4\0\0\0\2\0\0\0\x12\x7f"},         /* a field that ends beyond the message */
    {16, "PVM1\4\0\0\0\4\0\0\0\xff\xff\xff\xff"}, /* no field at all */
};

START_TEST(bad_frames_are_dropped)
{
    const struct bad_frame *frame = &bad_frames[_i];
    struct channel *a = channel_bind(CHANNEL_DEVICE, NN_PAIR, path);
    int peer = foreign_socket(NN_PAIR);
    ProtobufCMessage *message;

    ck_assert_int_eq(nn_send(peer, frame->bytes, frame->length, 0), (int)frame->length);
    ck_assert_int_eq(channel_receive(a, &polyvisor__device_request__descriptor, &message, LONG_MS),
                     -EBADMSG);
    ck_assert_ptr_null(message);
    /* The channel goes on: an empty message of the right kind is understood. */
    ck_assert_int_eq(nn_send(peer, "PVM1\4\0\0\0\0\0\0\0", 12, 0), 12);
    ck_assert_int_eq(receive_id(a), 0);
    nn_close(peer);
    channel_close(a);
}
END_TEST

START_TEST(requests_are_answered_in_any_order)
{
    struct channel *server = channel_bind_server(CHANNEL_CONTROL, path);
    struct channel *clients[3];
    struct channel_route *routes[3];
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    ProtobufCMessage *message;

    for (unsigned i = 0; i < 3; i++) {
        clients[i] = channel_connect(CHANNEL_CONTROL, NN_REQ, path);
        request.id = 100 + i;
        ck_assert_int_eq(channel_send(clients[i], &request.base, LONG_MS), 0);
        ck_assert_int_eq(receive_request(server, &message, &routes[i]), 0);
        ck_assert_int_eq(((Polyvisor__Request *)message)->id, 100 + i);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    for (unsigned i = 3; i-- > 0;) {
        response.id = 200 + i;
        ck_assert_int_eq(channel_reply(server, routes[i], &response.base), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(
            channel_receive(clients[i], &polyvisor__response__descriptor, &message, LONG_MS), 0);
        ck_assert_int_eq(((Polyvisor__Response *)message)->id, 200 + i);
        protobuf_c_message_free_unpacked(message, NULL);
        channel_close(clients[i]);
    }
    channel_close(server);
}
END_TEST

START_TEST(a_client_that_left_costs_nothing)
{
    struct channel *server = channel_bind_server(CHANNEL_CONTROL, path);
    struct channel *client = channel_connect(CHANNEL_CONTROL, NN_REQ, path);
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    ProtobufCMessage *message;
    struct channel_route *route;

    ck_assert_int_eq(channel_send(client, &request.base, LONG_MS), 0);
    ck_assert_int_eq(receive_request(server, &message, &route), 0);
    protobuf_c_message_free_unpacked(message, NULL);
    channel_close(client);
    ck_assert_int_eq(channel_reply(server, route, &response.base), 0);
    ck_assert_int_eq(
        channel_receive_request(server, &polyvisor__request__descriptor, &message, &route),
        -EAGAIN);
    ck_assert_ptr_null(route);
    channel_route_free(route);
    channel_close(server);
}
END_TEST

START_TEST(a_bad_request_can_be_refused)
{
    static const size_t sizes[] = {0, 5, CHANNEL_MESSAGE_MAX + 100, 3 * CHANNEL_MESSAGE_MAX};
    static const int results[] = {-EBADMSG, -EBADMSG, -EMSGSIZE, -EMSGSIZE};
    struct channel *server = channel_bind_server(CHANNEL_CONTROL, path);
    int peer = foreign_socket(NN_REQ);
    Polyvisor__Response response = POLYVISOR__RESPONSE__INIT;
    ProtobufCMessage *message;
    struct channel_route *route;
    char *bytes = calloc(1, 3 * CHANNEL_MESSAGE_MAX);
    void *answer;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        ck_assert_int_eq(nn_send(peer, bytes, sizes[i], 0), (int)sizes[i]);
        ck_assert_int_eq(receive_request(server, &message, &route), results[i]);
        ck_assert_ptr_nonnull(route);
        ck_assert_int_eq(channel_reply(server, route, &response.base), 0);
        ck_assert_int_ge(nn_recv(peer, &answer, NN_MSG, 0), 0);
        nn_freemsg(answer);
    }
    free(bytes);
    nn_close(peer);
    channel_close(server);
}
END_TEST

/* Connect without nanomsg. */
static int plain_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

START_TEST(rubbish_and_huge_messages_end_only_their_own_connection)
{
    static const uint8_t handshake[] = {0, 'S', 'P', 0, 0, NN_REQ, 0, 0};
    static const uint8_t huge[] = {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct channel *server = channel_bind_server(CHANNEL_CONTROL, path);
    struct channel *client = channel_connect(CHANNEL_CONTROL, NN_REQ, path);
    Polyvisor__Request request = POLYVISOR__REQUEST__INIT;
    ProtobufCMessage *message;
    struct channel_route *route;
    int rubbish = plain_socket(), oversized = plain_socket(), silent = plain_socket();
    char byte[64];

    ck_assert_int_eq(write(rubbish, "GET / HTTP/1.1\r\n\r\n", 18), 18);
    ck_assert_int_eq(write(oversized, handshake, sizeof(handshake)), (ssize_t)sizeof(handshake));
    ck_assert_int_eq(write(oversized, huge, sizeof(huge)), (ssize_t)sizeof(huge));
    /* Both are hung up on. */
    while (read(rubbish, byte, sizeof(byte)) > 0) {
    }
    while (read(oversized, byte, sizeof(byte)) > 0) {
    }
    request.id = 5;
    ck_assert_int_eq(channel_send(client, &request.base, LONG_MS), 0);
    ck_assert_int_eq(receive_request(server, &message, &route), 0);
    ck_assert_int_eq(((Polyvisor__Request *)message)->id, 5);
    protobuf_c_message_free_unpacked(message, NULL);
    channel_route_free(route);
    close(rubbish);
    close(oversized);
    close(silent);
    channel_close(client);
    channel_close(server);
}
END_TEST

START_TEST(published_messages_reach_subscribers)
{
    struct channel *publisher = channel_bind(CHANNEL_EVENT, NN_PUB, path);
    struct channel *subscriber = channel_connect(CHANNEL_EVENT, NN_SUB, path);
    uint64_t end = clock_monotonic_ns() + LONG_MS * UINT64_C(1000000);
    ProtobufCMessage *message;
    int result;

    ck_assert_int_eq(channel_send_fd(subscriber), -1);
    do { /* what is published before it is connected is lost */
        ck_assert_int_eq(send_id(publisher, 3), 0);
        result = channel_receive(subscriber, &polyvisor__device_request__descriptor, &message, 20);
    } while (result == -ETIMEDOUT && clock_monotonic_ns() < end);
    ck_assert_int_eq(result, 0);
    protobuf_c_message_free_unpacked(message, NULL);
    channel_close(subscriber);
    channel_close(publisher);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("channel");
    TCase *tests = tcase_create("channel");

    tcase_add_checked_fixture(tests, make_base, remove_base);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, messages_go_both_ways);
    tcase_add_test(tests, the_connecting_side_may_come_first);
    tcase_add_test(tests, waiting_has_an_end);
    tcase_add_test(tests, sendable_once_a_peer_is_there);
    tcase_add_test(tests, impossible_sockets_are_refused);
    tcase_add_test(tests, too_large_is_not_sent);
    tcase_add_test(tests, another_conversation_is_not_understood);
    tcase_add_loop_test(tests, bad_frames_are_dropped, 0,
                        sizeof(bad_frames) / sizeof(bad_frames[0]));
    tcase_add_test(tests, requests_are_answered_in_any_order);
    tcase_add_test(tests, a_client_that_left_costs_nothing);
    tcase_add_test(tests, a_bad_request_can_be_refused);
    tcase_add_test(tests, rubbish_and_huge_messages_end_only_their_own_connection);
    tcase_add_test(tests, published_messages_reach_subscribers);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
