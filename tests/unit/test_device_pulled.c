/* What answers in the place of a device that was pulled out, from the driver's side. */
#include "tests/unit/device_host.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>

extern const struct device_model device_model_virtio_blk_pulled;
extern const struct device_model device_model_virtio_net_pulled;
extern const struct device_model device_model_virtio_vsock_pulled;

static struct device_host host;

static void open_as(const struct device_model *model)
{
    host_open(&host);
    host_start(&host, model, false);
    host_activate(&host, UINT64_MAX);
}

static void teardown(void)
{
    host_close(&host);
}

/* A chain of one descriptor to read and one to write, each if it is not empty. */
static void offer(unsigned queue, unsigned head, uint32_t readable, uint32_t writable)
{
    uint16_t next = readable && writable ? VIRTQUEUE_NEXT : 0;

    if (readable) {
        driver_describe(&host.driver, queue, head, DRIVER_DATA + head * 0x10000, readable, next,
                        (uint16_t)(head + 1));
    }
    if (writable) {
        driver_describe(&host.driver, queue, head + (readable ? 1 : 0),
                        DRIVER_DATA + head * 0x10000 + 0x8000, writable, VIRTQUEUE_WRITE, 0);
    }
    driver_offer(&host.driver, queue, (uint16_t)head);
    host_kick(&host, queue);
}

static struct virtqueue_used_element await(unsigned queue)
{
    struct virtqueue_used_element element;

    while (!driver_collect(&host.driver, queue, &element)) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    return element;
}

static uint8_t *answer(unsigned head)
{
    return driver_pointer(&host.driver, DRIVER_DATA + head * 0x10000 + 0x8000);
}

/* Whatever is asked of a disk: an error, in the last byte that may be written, and no data. */
START_TEST(a_disk_answers_with_errors)
{
    static const uint32_t writable[] = {1, 513, 4097, 21};

    open_as(&device_model_virtio_blk_pulled);
    ck_assert_uint_eq(host.driver.state->device_id, 2);
    for (unsigned i = 0; i < sizeof(writable) / sizeof(writable[0]); i++) {
        memset(answer(0), 0x77, 0x2000);
        offer(0, 0, 16 + 512 * i, writable[i]);
        struct virtqueue_used_element element = await(0);
        ck_assert_uint_eq(element.id, 0);
        ck_assert_uint_eq(element.length, writable[i]);
        ck_assert_uint_eq(answer(0)[writable[i] - 1], VIRTIO_BLK_S_IOERR);
        ck_assert_uint_eq(answer(0)[writable[i]], 0x77);
        ck_assert(writable[i] == 1 || answer(0)[0] == 0x77);
        ck_assert(i || host_called(&host, 0)); /* later ones: when the driver wants them */
    }
    offer(0, 0, 16, 0); /* without room for an answer it is done, too */
    ck_assert_uint_eq(await(0).length, 0);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

/* What is only there to be filled stays; what comes after it is answered. */
START_TEST(buffers_to_fill_stay)
{
    open_as(&device_model_virtio_blk_pulled);
    offer(0, 0, 0, 64);
    offer(0, 4, 16, 1);
    ck_assert_uint_eq(await(0).id, 4);
    struct virtqueue_used_element element;
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    ck_assert(!driver_collect(&host.driver, 0, &element));
}
END_TEST

START_TEST(a_card_drops_what_is_sent_and_refuses_commands)
{
    struct virtqueue_used_element element;

    open_as(&device_model_virtio_net_pulled);
    ck_assert_uint_eq(host.driver.state->device_id, 1);
    offer(0, 0, 0, 1500);
    for (unsigned i = 0; i < 40; i++) {
        offer(1, 0, 1500, 0);
        ck_assert_uint_eq(await(1).length, 0);
    }
    ck_assert(!driver_collect(&host.driver, 0, &element)); /* nothing is received */
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

START_TEST(a_vsock_drops_what_is_sent)
{
    struct virtqueue_used_element element;

    open_as(&device_model_virtio_vsock_pulled);
    ck_assert_uint_eq(host.driver.state->device_id, 19);
    offer(0, 0, 0, 4096);
    offer(1, 0, 44, 0);
    ck_assert_uint_eq(await(1).length, 0);
    ck_assert(!driver_collect(&host.driver, 0, &element));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pulled devices");
    TCase *tests = tcase_create("pulled");

    tcase_add_checked_fixture(tests, NULL, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_disk_answers_with_errors);
    tcase_add_test(tests, buffers_to_fill_stay);
    tcase_add_test(tests, a_card_drops_what_is_sent_and_refuses_commands);
    tcase_add_test(tests, a_vsock_drops_what_is_sent);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
