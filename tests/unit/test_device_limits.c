/* A disk's and a card's limits, from the driver's side: what waits holds up nothing else, and goes
 * when nobody waits for it any more. */
#include "libshared/base/clock.h"
#include "tests/unit/blk_driver.h"

/* So slow that nothing but the first burst passes during a test. */
#define CRAWL "iops=1,iops-burst=2"

static unsigned resets, queue_resets;

static void note_reset(void *context)
{
    (void)context;
    resets++;
}

static void note_queue_reset(void *context, unsigned queue)
{
    (void)context;
    (void)queue;
    queue_resets++;
}

static void setup(void)
{
    resets = queue_resets = 0;
    blk_setup();
}

static void limit(const char *words)
{
    struct limits limits = {0};
    struct error err;

    ck_assert_int_eq(limits_parse(LIMIT_DISK, words, ERROR_CONFIG, &limits, &err), 0);
    ck_assert_int_eq(device_set_limits(host.device, &limits, &err), 0);
}

/* What is done by now; of several queues one after the other. */
static unsigned finished(unsigned queue)
{
    struct virtqueue_used_element element;
    unsigned count = 0;

    host_turn(&host);
    while (driver_collect(&host.driver, queue, &element)) {
        count++;
    }
    return count;
}

/* Until so many more are done. */
static void await(unsigned queue, unsigned count)
{
    struct virtqueue_used_element element;

    while (count) {
        if (driver_collect(&host.driver, queue, &element)) {
            count--;
        } else {
            event_base_loop(host.base, EVLOOP_ONCE);
        }
    }
}

/* A block to or from slot `slot`; a queue has room for five at a time. */
static void offer(unsigned queue, unsigned slot, uint32_t type, uint64_t sector)
{
    const struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    uint16_t head = (uint16_t)(slot % 5 * 3);

    memcpy(driver_pointer(&host.driver, slot_header(slot)), &header, sizeof(header));
    driver_describe(&host.driver, queue, head, slot_header(slot), sizeof(header), VIRTQUEUE_NEXT,
                    head + 1);
    driver_describe(&host.driver, queue, head + 1, slot_data(slot), 512,
                    VIRTQUEUE_NEXT | (type == VIRTIO_BLK_T_IN ? VIRTQUEUE_WRITE : 0), head + 2);
    driver_describe(&host.driver, queue, head + 2, slot_status(slot), 1, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, queue, head);
}

/* Five writes from slot `first` on. */
static void submit_writes(unsigned queue, unsigned first)
{
    for (unsigned i = first; i < first + 5; i++) {
        offer(queue, i, VIRTIO_BLK_T_OUT, i * 8u);
    }
    host_kick(&host, queue);
}

START_TEST(a_burst_passes_the_rest_waits)
{
    blk_start();
    limit(CRAWL);
    submit_writes(0, 0);
    await(0, 2);
    ck_assert_uint_eq(finished(0), 0);
    limit("off");
    await(0, 3);
}
END_TEST

START_TEST(a_reset_does_not_wait_for_limits)
{
    blk_start();
    limit(CRAWL);
    submit_writes(0, 0);
    await(0, 2);
    virtio_device_reset(host.device, note_reset, NULL);
    ck_assert_uint_eq(resets, 1);
}
END_TEST

START_TEST(nor_does_the_reset_of_a_queue)
{
    host.kicks = 2;
    host_start(&host, &device_model_virtio_blk, false);
    host_activate(&host, ALL_FEATURES);
    limit(CRAWL);
    submit_writes(0, 0);
    host_turn(&host);
    submit_writes(1, 5);
    await(0, 2); /* the first that came */
    atomic_store(&host.driver.state->queues[0].enabled, 0);
    virtio_queue_reset(host.device, 0, note_queue_reset, NULL);
    ck_assert_uint_eq(queue_resets, 1);
    limit("off"); /* what is in the other queue goes on */
    await(1, 5);
}
END_TEST

static bool stopped_now;

static void note_stopped(void *context)
{
    (void)context;
    stopped_now = true;
}

START_TEST(nor_does_a_stop)
{
    stopped_now = false;
    blk_start();
    limit(CRAWL);
    submit_writes(0, 0);
    await(0, 2);
    device_stop(host.device, note_stopped, NULL);
    while (!stopped_now) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
}
END_TEST

static bool resized_now;

static void note_resized(void *context, const struct error *failure)
{
    (void)context;
    ck_assert_ptr_null(failure);
    resized_now = true;
}

/* What waits has not begun: the disk becomes smaller without it, and it no larger again. */
START_TEST(nor_does_a_resize)
{
    struct error err;
    struct stat info;

    resized_now = false;
    blk_start();
    limit(CRAWL);
    offer(0, 0, VIRTIO_BLK_T_OUT, 0);
    offer(0, 1, VIRTIO_BLK_T_OUT, 0);
    host_kick(&host, 0);
    await(0, 2);
    offer(0, 2, VIRTIO_BLK_T_OUT, DISK_SECTORS - 8);
    offer(0, 3, VIRTIO_BLK_T_OUT, 0);
    host_kick(&host, 0);
    ck_assert_uint_eq(finished(0), 0);
    ck_assert_int_eq(device_resize(host.device, 1u << 20, true, note_resized, NULL, &err), 0);
    while (!resized_now) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    limit("off");
    await(0, 2);
    ck_assert_uint_eq(status_of(2), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(status_of(3), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(fstat(host.backend, &info), 0);
    ck_assert_int_eq(info.st_size, 1 << 20);
}
END_TEST

/* Reads are not held up by writes that wait, nor the other queue's. */
START_TEST(only_what_is_limited_waits)
{
    host.kicks = 2;
    host_start(&host, &device_model_virtio_blk, false);
    host_activate(&host, ALL_FEATURES);
    limit("iops-write=1,iops-write-burst=1");
    for (unsigned i = 0; i < 3; i++) {
        offer(0, i, VIRTIO_BLK_T_OUT, 0);
    }
    host_kick(&host, 0);
    await(0, 1);
    for (unsigned i = 3; i < 7; i++) {
        offer(i / 5, i, VIRTIO_BLK_T_IN, 0);
        host_kick(&host, i / 5);
    }
    await(0, 2);
    await(1, 2);
}
END_TEST

/* The burst is gone for the next process, too, and it knows what waited. */
START_TEST(a_restart_gives_no_new_burst)
{
    struct device_settings settings = {.id = "test0", .serial = "serial", .restart = true};
    struct error err;

    blk_start();
    limit("iops=1,iops-burst=2");
    submit_writes(0, 0);
    await(0, 2);
    device_destroy(host.device);
    ck_assert_int_eq(
        limits_parse(LIMIT_DISK, "iops=1,iops-burst=2", ERROR_CONFIG, &settings.limits, &err), 0);
    uint64_t began = clock_monotonic_ns();
    ck_assert_ptr_nonnull(host_try_start(&host, &device_model_virtio_blk, &settings, &err));
    unsigned count = finished(0);
    uint64_t seconds = (clock_monotonic_ns() - began) / 1000000000u;
    ck_assert_uint_le(count, 2 + seconds); /* two seconds may have passed between the two */
    limit("off");
    await(0, 3 - count);
}
END_TEST

START_TEST(bytes_are_counted)
{
    blk_start();
    limit("bps=100K,bps-burst=4K");
    uint64_t began = clock_monotonic_ns(), bytes = 0;
    while (bytes < 40960) {
        ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 4096, false), VIRTIO_BLK_S_OK);
        bytes += 4096;
        uint64_t passed = clock_monotonic_ns() - began;
        ck_assert_uint_le(bytes, 4096 + 102400 * passed / 1000000000u + 4096);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device_limits");
    TCase *tests = tcase_create("limits");

    tcase_add_checked_fixture(tests, setup, blk_teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_burst_passes_the_rest_waits);
    tcase_add_test(tests, a_reset_does_not_wait_for_limits);
    tcase_add_test(tests, nor_does_the_reset_of_a_queue);
    tcase_add_test(tests, nor_does_a_stop);
    tcase_add_test(tests, nor_does_a_resize);
    tcase_add_test(tests, only_what_is_limited_waits);
    tcase_add_test(tests, a_restart_gives_no_new_burst);
    tcase_add_test(tests, bytes_are_counted);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
