/* virtio-balloon from the driver's side, and from vmmd's. */
#include "tests/unit/device_host.h"
#include <linux/virtio_balloon.h>
#include <sys/stat.h>

#define INFLATE    0
#define DEFLATE    1
#define STATISTICS 2
#define REPORT     3
#define PAGE       ((uint64_t)MEMORY_PAGE_SIZE)
#define PAGES      DRIVER_DATA /* the list of page numbers */
#define VICTIMS    (DRIVER_RAM_BASE + (UINT64_C(8) << 20))
#define FEATURE(b) (UINT64_C(1) << (b))

extern const struct device_model device_model_virtio_balloon;
extern const struct device_model device_model_virtio_rng;

static struct device_host host;
static struct device_balloon_report told;
static unsigned told_count;
static uint64_t told_id;

static void start(const char *balloon, uint64_t kept, bool restart)
{
    const struct device_settings settings = {
        .id = "balloon0", .balloon = balloon, .memory_kept = kept, .restart = restart};
    struct error err;

    ck_assert_msg(host_try_start(&host, &device_model_virtio_balloon, &settings, &err) != NULL,
                  "%s", err.message);
}

static void setup(void)
{
    host_open(&host);
    told_count = 0;
    start("on,memory=24M", 0, false);
    host_activate(&host, UINT64_MAX);
}

static void teardown(void)
{
    host_close(&host);
}

static void restart(void)
{
    device_destroy(host.device);
    host.device = NULL;
    start("on,memory=24M", 0, true);
}

/* ---- helpers ---- */

static struct virtio_balloon_config config(void)
{
    struct virtio_balloon_config config;
    memcpy(&config, host.driver.state->config, sizeof(config));
    return config;
}

static uint8_t *page(unsigned number)
{
    return driver_pointer(&host.driver, VICTIMS + number * PAGE);
}

static uint32_t frame(unsigned number)
{
    return (uint32_t)((VICTIMS >> MEMORY_PAGE_SHIFT) + number);
}

/* The host's pages behind the guest's memory. */
static uint64_t resident(void)
{
    struct stat info;
    ck_assert_int_eq(fstat(host.driver.ram_fd, &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

static void fill(unsigned count)
{
    memset(page(0), 0xa5, count * PAGE);
    memset(driver_pointer(&host.driver, PAGES), 0, PAGE); /* which is resident from here on, too */
}

static bool is_zero(unsigned number)
{
    static const uint8_t zeroes[MEMORY_PAGE_SIZE];
    return memcmp(page(number), zeroes, PAGE) == 0;
}

static void await(unsigned queue)
{
    struct virtqueue_used_element element;

    host_kick(&host, queue);
    host_turn(&host);
    ck_assert(driver_collect(&host.driver, queue, &element));
}

static void offer_list(unsigned queue, const uint32_t *frames, unsigned count)
{
    memcpy(driver_pointer(&host.driver, PAGES), frames, count * sizeof(frames[0]));
    driver_describe(&host.driver, queue, 0, PAGES, count * (uint32_t)sizeof(frames[0]), 0, 0);
    driver_offer(&host.driver, queue, 0);
}

static void report(uint64_t address, uint32_t size)
{
    driver_describe(&host.driver, REPORT, 1, address, size, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, REPORT, 1);
    await(REPORT);
}

static void done(void *context, uint64_t id, const struct device_balloon_report *news)
{
    ck_assert_ptr_eq(context, &host);
    told = *news;
    told_id = id;
    told_count++;
}

static int order(const struct device_balloon_order *wanted, uint64_t id)
{
    struct error err;
    return device_balloon(host.device, wanted, id, done, &host, &err);
}

static void look(void)
{
    const struct device_balloon_order nothing = {0};
    unsigned before = told_count;
    ck_assert_int_eq(order(&nothing, 1), 0);
    ck_assert_uint_eq(told_count, before + 1);
}

static void offer_statistics(uint16_t tag, uint64_t value)
{
    uint8_t *bytes = driver_pointer(&host.driver, PAGES + 0x10000);

    memcpy(bytes, &tag, sizeof(tag));
    memcpy(bytes + 2, &value, sizeof(value));
    driver_describe(&host.driver, STATISTICS, 2, PAGES + 0x10000, 10, 0, 0);
    driver_offer(&host.driver, STATISTICS, 2);
    host_kick(&host, STATISTICS);
    host_turn(&host);
}

/* ---- pages ---- */

START_TEST(inflating_gives_memory_back)
{
    const uint32_t frames[] = {frame(7), frame(3), frame(4), frame(4), frame(5)};

    fill(10);
    uint64_t before = resident();
    offer_list(INFLATE, frames, 5);
    await(INFLATE);
    ck_assert(host_called(&host, INFLATE));
    ck_assert_uint_eq(before - resident(), 4 * PAGE);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(is_zero(i) == (i == 7 || (i >= 3 && i <= 5)));
    }
    /* What the guest writes afterwards stays, deflated or not. */
    memset(page(4), 1, PAGE);
    offer_list(DEFLATE, frames, 5);
    await(DEFLATE);
    ck_assert(!is_zero(4));
    look();
    ck_assert_uint_eq(told.inflated_bytes, 5 * PAGE);
    ck_assert_uint_eq(told.deflated_bytes, 5 * PAGE);
    ck_assert_uint_eq(told.released_bytes, 4 * PAGE);
}
END_TEST

START_TEST(nothing_but_memory_is_freed)
{
    const uint32_t frames[] = {0,
                               1,
                               UINT32_MAX,
                               (uint32_t)(DRIVER_RAM_BASE >> 12) - 1,
                               (uint32_t)((DRIVER_RAM_BASE + DRIVER_RAM_SIZE) >> 12),
                               frame(1)};

    fill(2);
    uint64_t before = resident();
    offer_list(INFLATE, frames, 6);
    await(INFLATE);
    ck_assert_uint_eq(before - resident(), PAGE);
    ck_assert(!is_zero(0) && is_zero(1));
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

/* The last page of memory and its neighbours outside, in one run. */
START_TEST(a_run_ends_with_memory)
{
    const uint32_t last = (uint32_t)((DRIVER_RAM_BASE + DRIVER_RAM_SIZE) >> 12) - 1;
    const uint32_t frames[] = {last, last + 1, last + 2};
    uint8_t *bytes = driver_pointer(&host.driver, (uint64_t)last << 12);

    memset(bytes, 1, PAGE);
    offer_list(INFLATE, frames, 3);
    await(INFLATE);
    ck_assert_uint_eq(bytes[0], 0);
}
END_TEST

START_TEST(a_list_longer_than_a_batch)
{
    uint32_t frames[1000];

    for (unsigned i = 0; i < 1000; i++) {
        frames[i] = frame(999 - i);
    }
    fill(1001);
    uint64_t before = resident();
    offer_list(INFLATE, frames, 1000);
    await(INFLATE);
    ck_assert_uint_eq(before - resident(), 1000 * PAGE);
    ck_assert(!is_zero(1000));
}
END_TEST

/* The same memory again and again: a list of hours, while nobody answers the control channel. */
START_TEST(a_list_without_end)
{
    const uint32_t part = 8u << 20;

    driver_describe(&host.driver, INFLATE, 0, DRIVER_RAM_BASE, part, VIRTQUEUE_NEXT, 1);
    driver_describe(&host.driver, INFLATE, 1, DRIVER_RAM_BASE, part, VIRTQUEUE_NEXT, 2);
    driver_describe(&host.driver, INFLATE, 2, DRIVER_RAM_BASE, part, 0, 0);
    driver_offer(&host.driver, INFLATE, 0);
    await(INFLATE);
    look();
    ck_assert_uint_le(told.inflated_bytes, UINT64_C(1) << 30);
}
END_TEST

START_TEST(code_is_told_of_it)
{
    const uint32_t frames[] = {frame(0), frame(1)};
    _Atomic uint8_t *first = memory_page_flags(&host.driver.memory, VICTIMS);

    fill(2);
    *first = MEMORY_PAGE_CODE;
    uint32_t before = host.driver.memory.codemap->device_wrote;
    offer_list(INFLATE, frames, 2);
    await(INFLATE);
    ck_assert_uint_eq(*first, MEMORY_PAGE_CODE | MEMORY_PAGE_DEVICE_WROTE);
    ck_assert_uint_ne(host.driver.memory.codemap->device_wrote, before);
}
END_TEST

START_TEST(firmware_stays)
{
    const uint32_t frames[] = {frame(0), frame(1)};

    device_destroy(host.device);
    host.device = NULL;
    start("on", VICTIMS + PAGE - DRIVER_RAM_BASE, true);
    fill(2);
    offer_list(INFLATE, frames, 1);
    await(INFLATE);
    ck_assert(!is_zero(0));
    offer_list(INFLATE, frames + 1, 1);
    await(INFLATE);
    ck_assert(is_zero(1));
}
END_TEST

/* ---- reports ---- */

START_TEST(reported_pages_are_freed)
{
    fill(64);
    uint64_t before = resident();
    report(VICTIMS + PAGE, (uint32_t)(32 * PAGE));
    ck_assert_uint_eq(before - resident(), 32 * PAGE);
    ck_assert(!is_zero(0) && is_zero(1) && is_zero(32) && !is_zero(33));
    look();
    ck_assert_uint_eq(told.reported_bytes, 32 * PAGE);
    ck_assert(told.reporting && told.deflate_on_oom && told.driver);
}
END_TEST

START_TEST(parts_of_pages_stay)
{
    fill(4);
    report(VICTIMS + 100, (uint32_t)(3 * PAGE));
    ck_assert(!is_zero(0) && is_zero(1) && is_zero(2) && !is_zero(3));
    report(VICTIMS + 100, 50);
    ck_assert(!is_zero(0));
}
END_TEST

/* A driver that checks free pages for what it filled them with must find it. */
START_TEST(poisoned_pages_stay)
{
    const uint32_t poison = 0xaaaaaaaa;

    ck_assert_int_eq(virtio_device_config_write(host.device, 12, (const uint8_t *)&poison, 4), 0);
    fill(4);
    report(VICTIMS, (uint32_t)(4 * PAGE));
    ck_assert(!is_zero(0));
    restart();
    report(VICTIMS, (uint32_t)(4 * PAGE));
    ck_assert(!is_zero(0));
}
END_TEST

/* Linux leaves no gap for a queue that it does not use. */
START_TEST(a_driver_without_statistics_reports_on_the_next_queue)
{
    teardown();
    host_open(&host);
    start("on", 0, false);
    host_activate(&host, ~FEATURE(VIRTIO_BALLOON_F_STATS_VQ));
    fill(1);
    driver_describe(&host.driver, STATISTICS, 0, VICTIMS, (uint32_t)PAGE, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, STATISTICS, 0);
    await(STATISTICS);
    ck_assert(is_zero(0));
}
END_TEST

/* ---- the target and statistics ---- */

START_TEST(the_target_is_the_hosts)
{
    const struct device_balloon_order more = {.set = true, .target_bytes = 12 << 20};
    const uint32_t actual = 2048;

    ck_assert_uint_eq(config().num_pages, (8 << 20) / PAGE);
    ck_assert_int_eq(order(&more, 5), 0);
    ck_assert_uint_eq(told_id, 5);
    ck_assert_uint_eq(config().num_pages, (12 << 20) / PAGE);
    ck_assert(host_called(&host, 5)); /* behind the last queue: the configuration changed */
    ck_assert_int_eq(order(&more, 6), 0);
    ck_assert(!host_called(&host, 5));
    ck_assert_int_eq(virtio_device_config_write(host.device, 4, (const uint8_t *)&actual, 4), 0);
    ck_assert_int_ne(virtio_device_config_write(host.device, 0, (const uint8_t *)&actual, 4), 0);
    ck_assert_int_ne(virtio_device_config_write(host.device, 6, (const uint8_t *)&actual, 4), 0);
    restart();
    look();
    ck_assert_uint_eq(told.target_bytes, 12 << 20);
    ck_assert_uint_eq(told.actual_bytes, 8 << 20);
}
END_TEST

START_TEST(statistics_are_asked_for)
{
    const struct device_balloon_order ask = {.statistics = true};
    struct virtqueue_used_element element;

    offer_statistics(4, 1000);
    ck_assert(!driver_collect(&host.driver, STATISTICS, &element)); /* held */
    ck_assert_int_eq(order(&ask, 7), 0);
    ck_assert_int_eq(order(&ask, 8), 0);
    ck_assert_uint_eq(told_count, 0);
    ck_assert(driver_collect(&host.driver, STATISTICS, &element));
    ck_assert(host_called(&host, STATISTICS));
    offer_statistics(5, 2000);
    ck_assert_uint_eq(told_count, 2);
    ck_assert_uint_eq(told_id, 8);
    ck_assert_uint_eq(told.known, 1u << 5);
    ck_assert_uint_eq(told.values[5], 2000);
}
END_TEST

START_TEST(held_statistics_survive_the_process)
{
    struct virtqueue_used_element element;
    const struct device_balloon_order ask = {.statistics = true};

    offer_statistics(4, 1000);
    restart();
    look();
    ck_assert_uint_eq(told.values[4], 1000);
    ck_assert_int_eq(order(&ask, 7), 0);
    ck_assert(driver_collect(&host.driver, STATISTICS, &element));
    ck_assert(!driver_collect(&host.driver, STATISTICS, &element));
    offer_statistics(4, 1001);
    ck_assert_uint_eq(told.values[4], 1001);
}
END_TEST

START_TEST(a_silent_guest_is_not_waited_for)
{
    const struct device_balloon_order ask = {.statistics = true};

    offer_statistics(4, 1000);
    ck_assert_int_eq(order(&ask, 7), 0);
    while (told_count == 0) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(told.values[4], 1000);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_int_eq(order(&ask, i), 0);
    }
    ck_assert_int_eq(order(&ask, 9), -ERROR_BUSY);
    virtio_device_reset(host.device, (void (*)(void *))host_turn, &host);
    ck_assert_uint_eq(told_count, 9);
    ck_assert(!told.driver && told.known == 0 && told.actual_bytes == 0);
}
END_TEST

START_TEST(rubbish_is_no_statistics)
{
    const struct device_balloon_order ask = {.statistics = true};

    offer_statistics(200, 1);
    ck_assert_int_eq(order(&ask, 1), 0);
    driver_describe(&host.driver, STATISTICS, 3, PAGES, 7, 0, 0);
    driver_offer(&host.driver, STATISTICS, 3);
    host_kick(&host, STATISTICS);
    host_turn(&host);
    ck_assert_uint_eq(told_count, 1);
    ck_assert_uint_eq(told.known, 0);
}
END_TEST

/* ---- features, other devices ---- */

START_TEST(features_are_as_set)
{
    ck_assert(host.driver.state->device_features & FEATURE(VIRTIO_BALLOON_F_REPORTING));
    ck_assert(host.driver.state->device_features & FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM));
    ck_assert_uint_eq(host.driver.state->device_id, 5);
    teardown();
    host_open(&host);
    start("on,reporting=off,deflate-on-oom=off", 0, false);
    ck_assert(!(host.driver.state->device_features & FEATURE(VIRTIO_BALLOON_F_REPORTING)));
    ck_assert(!(host.driver.state->device_features & FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM)));
    ck_assert_uint_eq(config().num_pages, 0);
}
END_TEST

START_TEST(other_devices_are_no_balloon)
{
    const struct device_balloon_order nothing = {0};

    teardown();
    host_open(&host);
    host_start(&host, &device_model_virtio_rng, false);
    ck_assert_int_eq(order(&nothing, 1), -ERROR_UNSUPPORTED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-balloon");
    TCase *tests = tcase_create("balloon");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, inflating_gives_memory_back);
    tcase_add_test(tests, nothing_but_memory_is_freed);
    tcase_add_test(tests, a_run_ends_with_memory);
    tcase_add_test(tests, a_list_longer_than_a_batch);
    tcase_add_test(tests, a_list_without_end);
    tcase_add_test(tests, code_is_told_of_it);
    tcase_add_test(tests, firmware_stays);
    tcase_add_test(tests, reported_pages_are_freed);
    tcase_add_test(tests, parts_of_pages_stay);
    tcase_add_test(tests, poisoned_pages_stay);
    tcase_add_test(tests, a_driver_without_statistics_reports_on_the_next_queue);
    tcase_add_test(tests, the_target_is_the_hosts);
    tcase_add_test(tests, statistics_are_asked_for);
    tcase_add_test(tests, held_statistics_survive_the_process);
    tcase_add_test(tests, a_silent_guest_is_not_waited_for);
    tcase_add_test(tests, rubbish_is_no_statistics);
    tcase_add_test(tests, features_are_as_set);
    tcase_add_test(tests, other_devices_are_no_balloon);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
