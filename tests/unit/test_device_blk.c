/* virtio-blk from the driver's side, on a temporary file: once with io_uring, where the host has
 * it, and once with threads. */
#include "tests/unit/blk_driver.h"

static void setup(void)
{
    blk_setup();
}

static void setup_threads(void)
{
    blk_setup();
    host.disk.threads = true;
}

static void start(void)
{
    blk_start();
}

START_TEST(describes_itself)
{
    start();
    const struct virtio_blk_config config = blk_config();
    const struct virtio_state *state = host.driver.state;

    ck_assert_uint_eq(state->device_id, 2);
    ck_assert_uint_eq(state->queue_count, 1);
    ck_assert_uint_eq(state->queues[0].size_max, 256);
    ck_assert_uint_eq(config.capacity, DISK_SECTORS);
    ck_assert_uint_eq(config.seg_max, 254);
    ck_assert_uint_eq(config.num_queues, 1);
    ck_assert_uint_eq(state->config_length, sizeof(config));
    ck_assert_uint_eq(state->generation % 2, 0);
    ck_assert(state->device_features & VIRTQUEUE_FEATURE_VERSION_1);
    ck_assert(!(state->device_features & (1u << VIRTIO_BLK_F_RO)));
}
END_TEST

START_TEST(writes_and_reads)
{
    start();
    uint8_t expected[DATA_BYTES];

    for (unsigned i = 0; i < DATA_BYTES; i++) {
        expected[i] = (uint8_t)(i * 7);
    }
    memcpy(data_of(0), expected, DATA_BYTES);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 16, DATA_BYTES, false), VIRTIO_BLK_S_OK);
    ck_assert(host_called(&host, 0));
    uint8_t on_disk[DATA_BYTES];
    ck_assert_int_eq(pread(host.backend, on_disk, DATA_BYTES, 16 * 512), DATA_BYTES);
    ck_assert_mem_eq(on_disk, expected, DATA_BYTES);

    memset(data_of(0), 0, DATA_BYTES);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 16, DATA_BYTES, true), VIRTIO_BLK_S_OK);
    ck_assert_mem_eq(data_of(0), expected, DATA_BYTES);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, DISK_SECTORS - 8, DATA_BYTES, true),
                      VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(without_flush_feature_writes_are_durable)
{
    host_start(&host, &device_model_virtio_blk, false);
    host_activate(&host, 0);
    memset(data_of(0), 0x5a, 512);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 1, 512, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
}
END_TEST

START_TEST(identifies_itself)
{
    start();
    memset(data_of(0), 0xff, 20);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_GET_ID, 0, 20, true), VIRTIO_BLK_S_OK);
    ck_assert_mem_eq(data_of(0), "serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
}
END_TEST

static const struct {
    uint32_t type;
    uint64_t sector;
    uint32_t bytes;
    bool to_guest;
    uint8_t status;
} refused[] = {
    {VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 1024, true, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, UINT64_MAX, 512, true, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 512, true, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_IN, 0, 100, true, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, DISK_SECTORS, 512, false, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, UINT64_MAX, 512, false, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_OUT, 0, 511, false, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 0, false, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_DISCARD, 0, 15, false, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_WRITE_ZEROES, 0, 17 * 16, false, VIRTIO_BLK_S_IOERR},
    {VIRTIO_BLK_T_SECURE_ERASE, 0, 16, false, VIRTIO_BLK_S_UNSUPP},
    {VIRTIO_BLK_T_SCSI_CMD, 0, 0, false, VIRTIO_BLK_S_UNSUPP},
    {0xffffffff, 0, 512, true, VIRTIO_BLK_S_UNSUPP},
};

START_TEST(refuses)
{
    start();
    ck_assert_uint_eq(
        request(refused[_i].type, refused[_i].sector, refused[_i].bytes, refused[_i].to_guest),
        refused[_i].status);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(read_only_disks_refuse_to_change)
{
    struct device_settings settings = {.id = "test0", .read_only = true};
    struct error err;

    ck_assert_ptr_nonnull(host_try_start(&host, &device_model_virtio_blk, &settings, &err));
    host_activate(&host, ALL_FEATURES);
    ck_assert(host.driver.state->device_features & (1u << VIRTIO_BLK_F_RO));
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false), VIRTIO_BLK_S_UNSUPP);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

static uint8_t range_request(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes range = {sector, count, flags};
    memcpy(data_of(0), &range, sizeof(range));
    return request(type, 0, sizeof(range), false);
}

START_TEST(discards_and_zeroes_ranges)
{
    start();
    uint8_t bytes[8 * 512], zero[sizeof(bytes)] = {0};

    memset(bytes, 0xa5, sizeof(bytes));
    ck_assert_int_eq(pwrite(host.backend, bytes, sizeof(bytes), 8 * 512), sizeof(bytes));
    ck_assert_uint_eq(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 9, 2, 0), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(pread(host.backend, bytes, sizeof(bytes), 8 * 512), sizeof(bytes));
    ck_assert_uint_eq(bytes[511], 0xa5);
    ck_assert_mem_eq(bytes + 512, zero, 1024);
    ck_assert_uint_eq(bytes[3 * 512], 0xa5);
    ck_assert_uint_eq(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 1), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(pread(host.backend, bytes, sizeof(bytes), 8 * 512), sizeof(bytes));
    ck_assert_mem_eq(bytes, zero, sizeof(bytes));
    if (host.driver.state->device_features & (1u << VIRTIO_BLK_F_DISCARD)) {
        ck_assert_uint_eq(range_request(VIRTIO_BLK_T_DISCARD, 8, 8, 0), VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(range_request(VIRTIO_BLK_T_DISCARD, 8, 8, 1), VIRTIO_BLK_S_UNSUPP);
    }
    ck_assert_uint_eq(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 2), VIRTIO_BLK_S_UNSUPP);
    ck_assert_uint_eq(range_request(VIRTIO_BLK_T_WRITE_ZEROES, DISK_SECTORS, 1, 0),
                      VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(range_request(VIRTIO_BLK_T_WRITE_ZEROES, UINT64_MAX, 2, 0),
                      VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, UINT32_MAX, 0),
                      VIRTIO_BLK_S_IOERR);
    struct stat info;
    ck_assert_int_eq(fstat(host.backend, &info), 0);
    ck_assert_int_eq(info.st_size, DISK_SECTORS * 512);
}
END_TEST

START_TEST(host_errors_reach_the_guest)
{
    start();
    ck_assert_int_eq(ftruncate(host.backend, 512), 0); /* the file became shorter */
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 8, 512, true), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 1024, true), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(a_write_the_host_refuses_is_an_error)
{
    close(host.backend);
    host.backend = memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(host.backend, 65536), 0);
    start();
    ck_assert_int_eq(fcntl(host.backend, F_ADD_SEALS, F_SEAL_WRITE), 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(many_requests_at_once)
{
    start();
    const unsigned slots = DRIVER_QUEUE_SIZE / 3;
    uint32_t length;
    unsigned slot;

    for (unsigned round = 0; round < 200; round++) {
        for (unsigned i = 0; i < slots; i++) {
            memset(data_of(i), (int)(round + i), DATA_BYTES);
            submit(i, VIRTIO_BLK_T_OUT, i * 8u, DATA_BYTES, false);
        }
        for (unsigned i = 0; i < slots; i++) {
            ck_assert_uint_eq(finish(&slot, &length), VIRTIO_BLK_S_OK);
        }
    }
    for (unsigned i = 0; i < slots; i++) {
        uint8_t byte;
        ck_assert_int_eq(pread(host.backend, &byte, 1, i * DATA_BYTES + 77), 1);
        ck_assert_uint_eq(byte, (uint8_t)(199 + i));
    }
}
END_TEST

static void note(void *context)
{
    *(bool *)context = true;
}

START_TEST(reset_waits_for_requests_in_flight)
{
    start();
    bool done = false;

    for (unsigned i = 0; i < 5; i++) {
        submit(i, VIRTIO_BLK_T_FLUSH, 0, 0, false);
    }
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    virtio_device_reset(host.device, note, &done);
    while (!done) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
        ck_assert_uint_eq(host.driver.state->queues[0].inflight[i].status, VIRTIO_FREE);
    }
    /* A new driver starts from nothing. */
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    host_activate(&host, ALL_FEATURES);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(malformed_requests_need_a_reset)
{
    start();
    struct virtqueue_used_element element;
    bool done = false;

    /* Neither a whole header nor a place for the status. */
    driver_describe(&host.driver, 0, 0, slot_header(0), 8, 0, 0);
    driver_offer(&host.driver, 0, 0);
    host_kick(&host, 0);
    host_turn(&host);
    ck_assert_uint_eq(host.driver.state->needs_reset, 1);
    ck_assert(host_called(&host, 1)); /* the configuration change */
    submit(1, VIRTIO_BLK_T_IN, 0, 512, true);
    host_turn(&host);
    ck_assert(!driver_collect(&host.driver, 0, &element));

    virtio_device_reset(host.device, note, &done);
    ck_assert(done);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    host_activate(&host, ALL_FEATURES);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

/* The process may have died between the need of a reset and its interrupt. */
START_TEST(the_need_of_a_reset_is_told_by_the_next_process)
{
    start();
    driver_describe(&host.driver, 0, 0, slot_header(0), 8, 0, 0);
    driver_offer(&host.driver, 0, 0);
    host_kick(&host, 0);
    host_turn(&host);
    ck_assert(host_called(&host, 1)); /* as if it had not been */
    device_destroy(host.device);
    host_start(&host, &device_model_virtio_blk, true);
    ck_assert_uint_eq(host.driver.state->needs_reset, 1);
    ck_assert(host_called(&host, 1));
}
END_TEST

START_TEST(queues_set_up_wrongly_fail_to_activate)
{
    host_start(&host, &device_model_virtio_blk, false);
    host.driver.state->queues[0].device_area = UINT64_MAX - 3;
    host.driver.state->driver_features = host.driver.state->device_features;
    ck_assert_int_lt(virtio_device_activate(host.device), 0);
    ck_assert_uint_eq(host.driver.state->needs_reset, 1);
}
END_TEST

START_TEST(features_must_have_been_offered)
{
    host_start(&host, &device_model_virtio_blk, false);
    host.driver.state->driver_features = host.driver.state->device_features | 1ull << 50;
    ck_assert_int_lt(virtio_device_activate(host.device), 0);
    host.driver.state->driver_features = 0;
    ck_assert_int_lt(virtio_device_activate(host.device), 0);
}
END_TEST

START_TEST(stop_finishes_what_was_offered)
{
    start();
    bool stopped = false;
    struct virtqueue_used_element element;

    memset(data_of(0), 0x77, DATA_BYTES);
    submit(0, VIRTIO_BLK_T_OUT, 0, DATA_BYTES, false);
    submit(1, VIRTIO_BLK_T_FLUSH, 0, 0, false);
    device_stop(host.device, note, &stopped);
    while (!stopped) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert(driver_collect(&host.driver, 0, &element));
    ck_assert(driver_collect(&host.driver, 0, &element));
}
END_TEST

/* A device process of its own, to be killed. */
static pid_t fork_device(bool restart)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct event_base *base = event_base_new();
        host.base = base;
        host_start(&host, &device_model_virtio_blk, restart);
        if (!restart) {
            virtio_device_activate(host.device);
        }
        event_base_dispatch(base);
        _exit(1);
    }
    return pid;
}

START_TEST(killed_processes_lose_nothing)
{
    struct virtqueue_used_element element;
    const unsigned slots = DRIVER_QUEUE_SIZE / 3;
    unsigned done[DRIVER_QUEUE_SIZE] = {0}, total = 0, offered = 0, deaths = 0;

    /* The features are those the device will offer: the driver of this test knows them. */
    host.driver.state->driver_features =
        VIRTQUEUE_FEATURE_VERSION_1 | 1u << VIRTIO_BLK_F_FLUSH | driver_features(&host.driver);
    atomic_store(&host.driver.state->status, DRIVER_OK_STATUS);
    pid_t pid = fork_device(false);
    for (; offered < slots; offered++) {
        memset(data_of(offered), 0, DATA_BYTES);
        submit(offered, VIRTIO_BLK_T_OUT, offered * 8, DATA_BYTES, false);
    }
    while (total < 2000) {
        if (!driver_collect(&host.driver, 0, &element)) {
            continue;
        }
        unsigned slot = element.id / 3;
        uint8_t byte;
        ck_assert_uint_eq(*(uint8_t *)driver_pointer(&host.driver, slot_status(slot)),
                          VIRTIO_BLK_S_OK);
        /* What was acknowledged is on the disk. */
        ck_assert_int_eq(pread(host.backend, &byte, 1, slot * DATA_BYTES + 4095), 1);
        ck_assert_uint_eq(byte, (uint8_t)done[slot]);
        done[slot]++;
        total++;
        memset(data_of(slot), (uint8_t)done[slot], DATA_BYTES);
        submit(slot, VIRTIO_BLK_T_OUT, slot * 8, DATA_BYTES, false);
        if (total % 40 == 0) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            deaths++;
            pid = fork_device(true);
        }
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ck_assert_uint_eq(deaths, 50);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

START_TEST(odd_backends)
{
    struct device_settings settings = {.id = "test0"};
    struct error err;

    ck_assert_int_eq(ftruncate(host.backend, 1000), 0);
    ck_assert_ptr_nonnull(host_try_start(&host, &device_model_virtio_blk, &settings, &err));
    ck_assert_uint_eq(*(uint64_t *)host.driver.state->config, 1);
    device_destroy(host.device);

    close(host.backend);
    host.backend = open("/dev/null", O_RDWR | O_CLOEXEC);
    ck_assert_ptr_null(host_try_start(&host, &device_model_virtio_blk, &settings, &err));
    ck_assert_int_eq(err.code, ERROR_DISK);
    close(host.backend);
    host.backend = -1;
    ck_assert_ptr_null(host_try_start(&host, &device_model_virtio_blk, &settings, &err));
    ck_assert_int_eq(err.code, ERROR_CONFIG);
}
END_TEST

static TCase *all_tests(const char *name, SFun before)
{
    TCase *tests = tcase_create(name);

    tcase_add_checked_fixture(tests, before, blk_teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, describes_itself);
    tcase_add_test(tests, writes_and_reads);
    tcase_add_test(tests, without_flush_feature_writes_are_durable);
    tcase_add_test(tests, identifies_itself);
    tcase_add_loop_test(tests, refuses, 0, sizeof(refused) / sizeof(refused[0]));
    tcase_add_test(tests, read_only_disks_refuse_to_change);
    tcase_add_test(tests, discards_and_zeroes_ranges);
    tcase_add_test(tests, host_errors_reach_the_guest);
    tcase_add_test(tests, a_write_the_host_refuses_is_an_error);
    tcase_add_test(tests, many_requests_at_once);
    tcase_add_test(tests, reset_waits_for_requests_in_flight);
    tcase_add_test(tests, malformed_requests_need_a_reset);
    tcase_add_test(tests, the_need_of_a_reset_is_told_by_the_next_process);
    tcase_add_test(tests, queues_set_up_wrongly_fail_to_activate);
    tcase_add_test(tests, features_must_have_been_offered);
    tcase_add_test(tests, stop_finishes_what_was_offered);
    tcase_add_test(tests, killed_processes_lose_nothing);
    tcase_add_test(tests, odd_backends);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("virtio-blk");

    suite_add_tcase(suite, all_tests("io_uring", setup));
    suite_add_tcase(suite, all_tests("threads", setup_threads));
    return host_report_rings(suite);
}
