/* The two conversations of a device process, with a test in the place of vmmd and vcpud. */
#include "devd/device_control.h"
#include "devd/transport.h"
#include "libshared/ipc/channel.h"
#include "proto/transport.pb-c.h"
#include "tests/unit/device_host.h"
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>

extern const struct device_model device_model_virtio_console;

static struct device_host host;
static char control_path[64], transport_path[64];

static void setup(void)
{
    host_open(&host);
    host_listen(&host);
    snprintf(control_path, sizeof(control_path), "/tmp/polyvisor-test-%d.control", (int)getpid());
    snprintf(transport_path, sizeof(transport_path), "/tmp/polyvisor-test-%d.transport",
             (int)getpid());
    unlink(control_path);
    unlink(transport_path);
}

static void teardown(void)
{
    host_close(&host);
}

/* ---- vmmd ---- */

static void ask(struct channel *vmmd, uint64_t id, Polyvisor__DeviceRequest__BodyCase body)
{
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceConfigure configure = POLYVISOR__DEVICE_CONFIGURE__INIT;
    Polyvisor__DeviceStop stop = POLYVISOR__DEVICE_STOP__INIT;
    Polyvisor__DevicePing ping = POLYVISOR__DEVICE_PING__INIT;
    Polyvisor__DevicePowerKey power_key = POLYVISOR__DEVICE_POWER_KEY__INIT;

    request.id = id;
    request.body_case = body;
    configure.id = (char *)"disk0";
    if (body == POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE) {
        request.configure = &configure;
    } else if (body == POLYVISOR__DEVICE_REQUEST__BODY_STOP) {
        request.stop = &stop;
    } else if (body == POLYVISOR__DEVICE_REQUEST__BODY_PING) {
        request.ping = &ping;
    } else if (body == POLYVISOR__DEVICE_REQUEST__BODY_POWER_KEY) {
        request.power_key = &power_key;
    }
    ck_assert_int_eq(channel_send(vmmd, &request.base, 5000), 0);
}

/* The code of the error in the answer, "" for success. */
static void expect_answer(struct channel *vmmd, uint64_t id, const char *code)
{
    ProtobufCMessage *message;
    int status;

    do {
        event_base_loop(host.base, EVLOOP_NONBLOCK);
        status = channel_receive(vmmd, &polyvisor__device_reply__descriptor, &message, 10);
    } while (status == -EAGAIN || status == -ETIMEDOUT);
    ck_assert_int_eq(status, 0);
    const Polyvisor__DeviceReply *reply = (const Polyvisor__DeviceReply *)message;
    ck_assert_uint_eq(reply->id, id);
    ck_assert_str_eq(reply->error ? reply->error->code : "", code);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* Something that is no message of this conversation, as a foreign program would send. */
static void send_rubbish(const char *path)
{
    char address[96];
    int wait = 5000;
    int stranger = nn_socket(AF_SP, NN_PAIR);

    snprintf(address, sizeof(address), "ipc://%s", path);
    nn_setsockopt(stranger, NN_SOL_SOCKET, NN_SNDTIMEO, &wait, sizeof(wait));
    ck_assert_int_ge(nn_connect(stranger, address), 0);
    ck_assert_int_eq(nn_send(stranger, "rubbish", 7, 0), 7);
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    nn_close(stranger);
}

static void note_stop(void *context)
{
    ++*(unsigned *)context;
}

/* The key can be pressed until the device is told to stop. */
static int note_power_key(void *context, struct error *err)
{
    const unsigned *stops = context;
    return *stops ? error_set(err, ERROR_STATE, 0, "nobody listens") : 0;
}

static const struct device_control_operations CONTROL_OPERATIONS = {
    .stop = note_stop,
    .power_key = note_power_key,
};

START_TEST(control_conversation)
{
    struct error err;
    unsigned stops = 0;
    struct device_control *control = device_control_open(control_path, &err);
    struct channel *vmmd = channel_connect(CHANNEL_DEVICE, NN_PAIR, control_path);

    ck_assert_ptr_nonnull(control);
    ck_assert_ptr_nonnull(vmmd);
    ask(vmmd, 1, POLYVISOR__DEVICE_REQUEST__BODY_PING);
    ask(vmmd, 2, POLYVISOR__DEVICE_REQUEST__BODY_STOP);
    ask(vmmd, 3, POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE);
    const Polyvisor__DeviceConfigure *configure =
        device_control_await_configure(control, 60000, &err);
    ck_assert_ptr_nonnull(configure);
    ck_assert_str_eq(configure->id, "disk0");
    expect_answer(vmmd, 1, "");
    expect_answer(vmmd, 2, "wrong-state");
    device_control_configured(control, NULL, "a device");
    expect_answer(vmmd, 3, "");

    ck_assert_int_eq(device_control_serve(control, host.base, &CONTROL_OPERATIONS, &stops), 0);
    ask(vmmd, 4, POLYVISOR__DEVICE_REQUEST__BODY_PING);
    expect_answer(vmmd, 4, "");
    ask(vmmd, 5, POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE);
    expect_answer(vmmd, 5, "wrong-state");
    ask(vmmd, 6, POLYVISOR__DEVICE_REQUEST__BODY__NOT_SET);
    expect_answer(vmmd, 6, "wrong-state");

    /* A new vmmd finds the device again, whoever came in between. */
    channel_close(vmmd);
    send_rubbish(control_path);
    vmmd = channel_connect(CHANNEL_DEVICE, NN_PAIR, control_path);
    ask(vmmd, 7, POLYVISOR__DEVICE_REQUEST__BODY_PING);
    expect_answer(vmmd, 7, "");
    ask(vmmd, 10, POLYVISOR__DEVICE_REQUEST__BODY_POWER_KEY);
    expect_answer(vmmd, 10, "");
    ask(vmmd, 8, POLYVISOR__DEVICE_REQUEST__BODY_STOP);
    while (!stops) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    device_control_stopped(control);
    expect_answer(vmmd, 8, "");
    ck_assert_uint_eq(stops, 1);
    ask(vmmd, 9, POLYVISOR__DEVICE_REQUEST__BODY_POWER_KEY);
    expect_answer(vmmd, 9, "wrong-state");
    channel_close(vmmd);
    device_control_close(control);
}
END_TEST

START_TEST(configuration_that_does_not_come)
{
    struct error err;
    struct device_control *control = device_control_open(control_path, &err);

    ck_assert_ptr_null(device_control_await_configure(control, 1, &err));
    ck_assert_int_eq(err.code, ERROR_TIMEOUT);
    device_control_close(control);
}
END_TEST

START_TEST(failed_configuration_is_explained)
{
    struct error err, failure;
    struct device_control *control = device_control_open(control_path, &err);
    struct channel *vmmd = channel_connect(CHANNEL_DEVICE, NN_PAIR, control_path);

    ask(vmmd, 9, POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE);
    ck_assert_ptr_nonnull(device_control_await_configure(control, 60000, &err));
    error_set(&failure, ERROR_DISK, 0, "no disk");
    device_control_configured(control, &failure, "");
    expect_answer(vmmd, 9, "bad-disk");
    channel_close(vmmd);
    device_control_close(control);
}
END_TEST

/* ---- vcpud ---- */

static struct channel *vcpud;
static struct transport *transport;

static int transact(uint64_t id, Polyvisor__TransportRequest *request)
{
    ProtobufCMessage *message;
    int status;

    request->id = id;
    ck_assert_int_eq(channel_send(vcpud, &request->base, 5000), 0);
    do {
        event_base_loop(host.base, EVLOOP_NONBLOCK);
        status = channel_receive(vcpud, &polyvisor__transport_reply__descriptor, &message, 10);
    } while (status == -EAGAIN || status == -ETIMEDOUT);
    ck_assert_int_eq(status, 0);
    const Polyvisor__TransportReply *reply = (const Polyvisor__TransportReply *)message;
    ck_assert_uint_eq(reply->id, id);
    status = reply->status;
    protobuf_c_message_free_unpacked(message, NULL);
    return status;
}

static int activate(uint64_t id)
{
    Polyvisor__TransportRequest request = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportActivate body = POLYVISOR__TRANSPORT_ACTIVATE__INIT;

    request.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_ACTIVATE;
    request.activate = &body;
    return transact(id, &request);
}

static int reset(uint64_t id)
{
    Polyvisor__TransportRequest request = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportReset body = POLYVISOR__TRANSPORT_RESET__INIT;

    request.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_RESET;
    request.reset = &body;
    return transact(id, &request);
}

static int config_write(uint64_t id, uint32_t offset, size_t size)
{
    static uint8_t data[4096] = {'e'};
    Polyvisor__TransportRequest request = POLYVISOR__TRANSPORT_REQUEST__INIT;
    Polyvisor__TransportConfigWrite body = POLYVISOR__TRANSPORT_CONFIG_WRITE__INIT;

    body.offset = offset;
    body.data.data = data;
    body.data.len = size;
    request.body_case = POLYVISOR__TRANSPORT_REQUEST__BODY_CONFIG_WRITE;
    request.config_write = &body;
    return transact(id, &request);
}

START_TEST(transport_conversation)
{
    struct virtio_state *state = host.driver.state;
    struct error err;
    Polyvisor__TransportRequest nothing = POLYVISOR__TRANSPORT_REQUEST__INIT;

    vcpud = channel_bind(CHANNEL_TRANSPORT, NN_PAIR, transport_path);
    host_start(&host, &device_model_virtio_console, false);
    transport = transport_open(host.device, transport_path, &err);
    ck_assert_ptr_nonnull(transport);

    ck_assert_int_eq(reset(1), 0);
    ck_assert_int_lt(activate(2), 0); /* no features were chosen */
    state->driver_features = state->device_features;
    ck_assert_int_eq(activate(3), 0);
    ck_assert(host.device->virtio->active);
    ck_assert_int_eq(activate(4), 0); /* again: the same */
    ck_assert_int_eq(config_write(5, 8, 4), 0);
    ck_assert_int_lt(config_write(6, 8, 0), 0);
    ck_assert_int_lt(config_write(7, 8, 4096), 0);
    ck_assert_int_lt(config_write(8, UINT32_MAX, 4), 0);
    ck_assert_int_lt(transact(9, &nothing), 0);
    ck_assert_int_eq(reset(10), 0);
    ck_assert(!host.device->virtio->active);
    ck_assert_int_eq(activate(11), 0);

    transport_close(transport);
    channel_close(vcpud);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device channels");
    TCase *tests = tcase_create("channels");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, control_conversation);
    tcase_add_test(tests, configuration_that_does_not_come);
    tcase_add_test(tests, failed_configuration_is_explained);
    tcase_add_test(tests, transport_conversation);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
