/* A guest that never stops asking must not keep a device from its control channel: other events of
 * the loop get their turn. */
#include "devd/mmio.h"
#include "tests/unit/device_host.h"

/* The guest gives up here, so that a device which never turns fails the test and does not hang. */
#define REQUESTS_MAX 200000u

static struct device_host host;
static unsigned requests;
static bool turned;

static void setup(void)
{
    requests = 0;
    turned = false;
    host_open(&host);
}

static void teardown(void)
{
    host_close(&host);
}

static int model_init(struct device *device, struct error *err)
{
    static uint64_t registers;

    (void)err;
    device->registers = &registers;
    return 0;
}

static void model_destroy(struct device *device)
{
    (void)device;
}

static void other_event(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    turned = true;
}

/* Run the loop until the other event, as vmmd's ping would be, had its turn. */
static void expect_turn(void)
{
    int ping = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    struct event *other = event_new(host.base, ping, EV_READ, other_event, NULL);

    ck_assert_int_eq(event_add(other, NULL), 0);
    while (!turned && requests < REQUESTS_MAX) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_lt(requests, REQUESTS_MAX);
    event_free(other);
    close(ping);
}

/* ---- virtio: each request is followed by the next at once ---- */

static void virtio_request(struct device *device, unsigned queue,
                           const struct virtqueue_chain *chain)
{
    virtio_request_complete(device, queue, chain, 0);
    if (++requests < REQUESTS_MAX) {
        driver_offer(&host.driver, queue, chain->head);
    }
}

static const struct device_model virtio_model = {
    .kind = "test",
    .device_class = DEVICE_VIRTIO,
    .init = model_init,
    .destroy = model_destroy,
    .virtio = {.device_id = 4, .queue_count = 1, .queue_size = 16, .request = virtio_request},
};

START_TEST(requests_without_end)
{
    host_start(&host, &virtio_model, false);
    driver_describe(&host.driver, 0, 0, DRIVER_DATA, 16, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, 0, 0);
    host_activate(&host, 0);
    expect_turn();
}
END_TEST

/* ---- plain registers: likewise ---- */

static void post(void)
{
    uint32_t head = atomic_load(&host.channel->head);

    host.channel->ring[head % MMIO_CHANNEL_RING] = (struct mmio_access){.size = 1};
    atomic_store(&host.channel->head, head + 1);
}

static void mmio_write(struct device *device, uint32_t offset, unsigned size, uint64_t value)
{
    (void)device;
    (void)offset;
    (void)size;
    (void)value;
    if (++requests < REQUESTS_MAX) {
        post();
    }
}

static bool mmio_interrupt(const struct device *device)
{
    (void)device;
    return false;
}

static const struct device_model mmio_model = {
    .kind = "test",
    .device_class = DEVICE_MMIO,
    .init = model_init,
    .destroy = model_destroy,
    .mmio = {.write = mmio_write,
             .interrupt = mmio_interrupt,
             .registers_version = 1,
             .registers_size = sizeof(uint64_t)},
};

START_TEST(accesses_without_end)
{
    host_start(&host, &mmio_model, false);
    post();
    expect_turn();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("devices' turns");
    TCase *tests = tcase_create("turns");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, requests_without_end);
    tcase_add_test(tests, accesses_without_end);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
