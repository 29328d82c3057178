/* virtio-rng from the driver's side. */
#include "tests/unit/device_host.h"

extern const struct device_model device_model_virtio_rng;

static struct device_host host;

static void setup(void)
{
    host_open(&host);
    host_start(&host, &device_model_virtio_rng, false);
    host_activate(&host, UINT64_MAX);
}

static void teardown(void)
{
    host_close(&host);
}

static uint32_t request(uint32_t bytes, uint16_t flags)
{
    struct virtqueue_used_element element;

    driver_describe(&host.driver, 0, 0, DRIVER_DATA, bytes, flags, 0);
    driver_offer(&host.driver, 0, 0);
    host_kick(&host, 0);
    while (!driver_collect(&host.driver, 0, &element)) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(element.id, 0);
    return element.length;
}

START_TEST(fills_buffers)
{
    static const uint8_t zero[64];
    uint8_t *data = driver_pointer(&host.driver, DRIVER_DATA);

    ck_assert_uint_eq(host.driver.state->device_id, 4);
    ck_assert_uint_eq(request(64, VIRTQUEUE_WRITE), 64);
    ck_assert_mem_ne(data, zero, 64);
    ck_assert(host_called(&host, 0));
    ck_assert_uint_eq(data[64], 0);
}
END_TEST

START_TEST(bounds_a_request_and_the_rate)
{
    uint64_t total = 0;

    /* More than the ration, so that some of it waits: nothing is refused. */
    for (unsigned i = 0; i < 100; i++) {
        uint32_t length = request(1u << 20, VIRTQUEUE_WRITE);
        ck_assert_uint_ge(length, 1);
        ck_assert_uint_le(length, 4096);
        total += length;
    }
    ck_assert_uint_ge(total, 100);
}
END_TEST

START_TEST(buffers_to_read_get_nothing)
{
    ck_assert_uint_eq(request(64, 0), 0);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-rng");
    TCase *tests = tcase_create("rng");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, fills_buffers);
    tcase_add_test(tests, bounds_a_request_and_the_rate);
    tcase_add_test(tests, buffers_to_read_get_nothing);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
