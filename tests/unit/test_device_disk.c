/* What a virtio-blk device promises beyond reading and writing: queues, the cache's mode, size,
 * direct access, and what becomes of the host's errors. */
#include "tests/unit/blk_driver.h"
#include <sys/resource.h>

#define QUEUES 4u

/* What the device told and answered. */
static struct {
    unsigned errors, wells;
    char text[DEVICE_NOTICE_MAX];
    bool resized;
    struct error error;
} told;

static void notice(void *context, enum device_notice what, const char *text)
{
    (void)context;
    told.errors += what == DEVICE_NOTICE_BACKEND_ERROR;
    told.wells += what == DEVICE_NOTICE_BACKEND_WELL;
    snprintf(told.text, sizeof(told.text), "%s", text);
}

static void setup(void)
{
    memset(&told, 0, sizeof(told));
    blk_setup();
}

static void start(void)
{
    blk_start();
    device_on_notice(host.device, notice, NULL);
}

static void use_backend(int fd)
{
    close(host.backend);
    host.backend = fd;
}

/* ---- Queues ---- */

START_TEST(several_queues_are_served)
{
    uint32_t length;
    unsigned slot;

    host.kicks = QUEUES;
    host_start(&host, &device_model_virtio_blk, false);
    host_activate(&host, ~VIRTQUEUE_FEATURE_EVENT_INDEX); /* every batch interrupts */
    ck_assert(host.driver.state->device_features & 1u << VIRTIO_BLK_F_MQ);
    ck_assert_uint_eq(blk_config().num_queues, QUEUES);
    ck_assert_uint_eq(host.driver.state->queue_count, QUEUES);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned queue = 0; queue < QUEUES; queue++) {
            for (unsigned i = 0; i < 5; i++) {
                unsigned own = queue * 5 + i;
                memset(data_of(own), (int)(round + own), DATA_BYTES);
                struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = own * 8u};
                uint16_t head = (uint16_t)(i * 3);
                memcpy(driver_pointer(&host.driver, slot_header(own)), &header, sizeof(header));
                driver_describe(&host.driver, queue, head, slot_header(own), sizeof(header),
                                VIRTQUEUE_NEXT, head + 1);
                driver_describe(&host.driver, queue, head + 1, slot_data(own), DATA_BYTES,
                                VIRTQUEUE_NEXT, head + 2);
                driver_describe(&host.driver, queue, head + 2, slot_status(own), 1, VIRTQUEUE_WRITE,
                                0);
                driver_offer(&host.driver, queue, head);
            }
            host_kick(&host, queue);
        }
        for (unsigned queue = 0; queue < QUEUES; queue++) {
            for (unsigned i = 0; i < 5; i++) {
                finish_any(queue, &slot, &length);
                ck_assert_uint_eq(status_of(queue * 5 + slot), VIRTIO_BLK_S_OK);
            }
        }
        for (unsigned queue = 0; queue < QUEUES; queue++) {
            ck_assert(host_called(&host, queue)); /* each has an interrupt of its own */
        }
    }
    for (unsigned i = 0; i < QUEUES * 5; i++) {
        uint8_t byte;
        ck_assert_int_eq(pread(host.backend, &byte, 1, i * DATA_BYTES + 99), 1);
        ck_assert_uint_eq(byte, (uint8_t)(49 + i));
    }
}
END_TEST

/* ---- The cache's mode ---- */

static int set_cache(uint8_t write_back)
{
    return virtio_device_config_write(host.device, offsetof(struct virtio_blk_config, wce),
                                      &write_back, 1);
}

static void restart(void)
{
    device_destroy(host.device);
    host_start(&host, &device_model_virtio_blk, true);
    device_on_notice(host.device, notice, NULL);
}

static void note(void *context)
{
    *(bool *)context = true;
}

START_TEST(the_driver_chooses_the_mode_of_the_cache)
{
    bool done = false;
    uint8_t rubbish = 2;

    start();
    ck_assert_uint_eq(blk_config().wce, 1);
    ck_assert_int_eq(set_cache(0), 0);
    ck_assert_uint_eq(blk_config().wce, 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    restart(); /* the next process goes on with what the driver has set */
    ck_assert_uint_eq(blk_config().wce, 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(set_cache(1), 0);
    restart();
    ck_assert_uint_eq(blk_config().wce, 1);
    ck_assert_int_lt(virtio_device_config_write(
                         host.device, offsetof(struct virtio_blk_config, wce), &rubbish, 1),
                     0);
    ck_assert_int_lt(virtio_device_config_write(host.device, 0, &rubbish, 1), 0);
    ck_assert_int_eq(set_cache(0), 0);
    virtio_device_reset(host.device, note, &done);
    ck_assert(done);
    ck_assert_uint_eq(blk_config().wce, 1);
    ck_assert_int_lt(set_cache(0), 0); /* nobody has the feature now */
}
END_TEST

START_TEST(write_through_is_what_the_host_says_first)
{
    host.disk.write_through = true;
    start();
    ck_assert_uint_eq(blk_config().wce, 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(set_cache(1), 0);
    ck_assert_uint_eq(blk_config().wce, 1);
}
END_TEST

/* ---- Discard ---- */

START_TEST(discard_gives_space_back)
{
    struct virtio_blk_discard_write_zeroes ranges[3] = {
        {0, 1024, 0}, {2048, 0, 0}, {2048, 1024, 0}};
    struct stat before, after;
    uint8_t *bytes = malloc(DISK_SECTORS * 512);

    memset(bytes, 0xa5, DISK_SECTORS * 512);
    ck_assert_int_eq(pwrite(host.backend, bytes, DISK_SECTORS * 512, 0), DISK_SECTORS * 512);
    start();
    if (!(host.driver.state->device_features & 1u << VIRTIO_BLK_F_DISCARD)) {
        free(bytes);
        return; /* the file system of this test has none */
    }
    ck_assert_int_eq(fdatasync(host.backend), 0);
    ck_assert_int_eq(fstat(host.backend, &before), 0);
    memcpy(data_of(0), ranges, sizeof(ranges));
    ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, sizeof(ranges), false), VIRTIO_BLK_S_OK);
    ck_assert_int_eq(fstat(host.backend, &after), 0);
    ck_assert_int_le(after.st_blocks, before.st_blocks - 2048);
    ck_assert_int_eq(after.st_size, before.st_size);
    ck_assert_int_eq(pread(host.backend, bytes, 512, 1024 * 512), 512);
    ck_assert_uint_eq(bytes[0], 0xa5);
    /* The rings give no right to more than the device has. */
    ranges[2].sector = DISK_SECTORS - 1;
    memcpy(data_of(0), ranges, sizeof(ranges));
    ck_assert_uint_eq(request(VIRTIO_BLK_T_DISCARD, 0, sizeof(ranges), false), VIRTIO_BLK_S_IOERR);
    free(bytes);
}
END_TEST

/* ---- Size ---- */

static void resized(void *context, const struct error *err)
{
    (void)context;
    told.resized = true;
    error_clear(&told.error);
    if (err) {
        told.error = *err;
    }
}

static void resize(uint64_t bytes, bool shrink)
{
    struct error err;

    told.resized = false;
    ck_assert_int_eq(device_resize(host.device, bytes, shrink, resized, NULL, &err), 0);
    while (!told.resized) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_int_eq(told.error.code, ERROR_OK);
}

START_TEST(a_disk_grows_while_it_is_used)
{
    struct stat info;

    start();
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, DISK_SECTORS, 512, true), VIRTIO_BLK_S_IOERR);
    host_called(&host, host.kicks);
    resize(2 * DISK_SECTORS * 512, false);
    ck_assert(host_called(&host, host.kicks)); /* the configuration's interrupt */
    ck_assert_uint_eq(blk_config().capacity, 2 * DISK_SECTORS);
    ck_assert_int_eq(fstat(host.backend, &info), 0);
    ck_assert_int_eq(info.st_size, 2 * DISK_SECTORS * 512);
    memset(data_of(0), 0x17, 512);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 2 * DISK_SECTORS - 1, 512, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 2 * DISK_SECTORS, 512, true), VIRTIO_BLK_S_IOERR);
}
END_TEST

START_TEST(a_disk_becomes_smaller_only_on_purpose)
{
    struct error err;
    struct stat info;
    unsigned slot;
    uint32_t length;

    start();
    ck_assert_int_eq(device_resize(host.device, 512, false, resized, NULL, &err), -ERROR_CONFIG);
    ck_assert(err.hint[0]);
    ck_assert_int_eq(device_resize(host.device, 1000, false, resized, NULL, &err), -ERROR_CONFIG);
    ck_assert_int_eq(device_resize(host.device, 0, true, resized, NULL, &err), -ERROR_CONFIG);
    ck_assert_int_eq(device_resize(host.device, UINT64_MAX & ~511ull, true, resized, NULL, &err),
                     -ERROR_CONFIG);
    /* Writes beyond the new end that are under way must not make it large again. */
    for (unsigned i = 0; i < 5; i++) {
        submit(i, VIRTIO_BLK_T_OUT, DISK_SECTORS - 8 * (i + 1), DATA_BYTES, false);
    }
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    resize(1024 * 512, true);
    for (unsigned i = 0; i < 5; i++) {
        finish(&slot, &length);
    }
    ck_assert_uint_eq(blk_config().capacity, 1024);
    ck_assert_int_eq(fstat(host.backend, &info), 0);
    ck_assert_int_eq(info.st_size, 1024 * 512);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 1024, 512, false), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 1023, 512, false), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(a_size_that_changed_between_two_processes_is_told)
{
    start();
    host_called(&host, host.kicks);
    restart();
    ck_assert(!host_called(&host, host.kicks));
    ck_assert_int_eq(ftruncate(host.backend, 3 * DISK_SECTORS * 512), 0);
    restart();
    ck_assert_uint_eq(blk_config().capacity, 3 * DISK_SECTORS);
    ck_assert(host_called(&host, host.kicks));
}
END_TEST

/* As if the process had died before its interrupt, or before it was done with the change. */
START_TEST(a_change_that_a_dead_process_did_not_tell_is_told)
{
    struct virtio_state *shared;

    start();
    shared = host.driver.state;
    for (unsigned odd = 0; odd < 2; odd++) {
        uint32_t before = shared->told;
        resize((2 + odd) * DISK_SECTORS * 512, false);
        ck_assert(host_called(&host, host.kicks));
        ck_assert_uint_ne(shared->told, before);
        shared->told = before;
        shared->generation -= odd; /* in the middle of the change */
        restart();
        ck_assert(host_called(&host, host.kicks));
        ck_assert_uint_eq(shared->generation % 2, 0);
        ck_assert_uint_eq(blk_config().capacity, (2 + odd) * DISK_SECTORS);
        restart(); /* it is told once: drivers log it */
        ck_assert(!host_called(&host, host.kicks));
    }
}
END_TEST

START_TEST(read_only_disks_keep_their_size)
{
    struct device_settings settings = {.id = "test0", .read_only = true};
    struct error err;

    ck_assert_ptr_nonnull(host_try_start(&host, &device_model_virtio_blk, &settings, &err));
    ck_assert_int_eq(device_resize(host.device, 1 << 30, false, resized, NULL, &err), -ERROR_STATE);
}
END_TEST

/* ---- Direct access ---- */

/* Sectors of no particular alignment in memory or on the disk, checked against a copy. */
START_TEST(direct_transfers_of_any_alignment)
{
    static uint8_t model[DISK_SECTORS * 512];
    int fd = disk_open_with(DISK_SECTORS * 512, O_DIRECT);
    uint32_t random = 12345;

    if (fd < 0) {
        return; /* the file system of this test has none */
    }
    use_backend(fd);
    start();
    for (unsigned round = 0; round < 400; round++) {
        random = random * 1664525 + 1013904223;
        uint32_t sectors = 1 + (random >> 8) % 7, sector = (random >> 16) % (DISK_SECTORS - 8);
        uint32_t offset = round % 3 ? (random >> 4) % 512 : 0;
        bool write = (random >> 30) & 1;
        uint8_t *data = (uint8_t *)data_of(0) + offset;
        unsigned slot;
        uint32_t length;

        for (unsigned i = 0; i < sectors * 512; i++) {
            data[i] = (uint8_t)(round + i);
        }
        submit_at(0, 0, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector, offset, sectors * 512,
                  !write);
        ck_assert_uint_eq(finish(&slot, &length), VIRTIO_BLK_S_OK);
        if (write) {
            memcpy(model + sector * 512, data, sectors * 512);
        } else {
            ck_assert_mem_eq(model + sector * 512, data, sectors * 512);
        }
    }
    ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
}
END_TEST

/* ---- Errors of the host ---- */

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The host refuses what lies beyond the first half. */
static void refuse_half(void)
{
    signal(SIGXFSZ, SIG_IGN);
    limit_file_size(DISK_SECTORS * 256);
}

START_TEST(errors_are_reported_and_told_once)
{
    host.disk.threads = _i;
    start();
    refuse_half();
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, DISK_SECTORS - 8, 512, false),
                          VIRTIO_BLK_S_IOERR);
    }
    ck_assert_uint_eq(told.errors, 1);
    ck_assert_ptr_nonnull(strstr(told.text, "write at byte"));
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, DISK_SECTORS - 8, 512, true), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(told.wells, 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 0, 512, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(told.wells, 1);
}
END_TEST

START_TEST(the_guest_waits_until_the_host_is_well)
{
    struct virtqueue_used_element element;
    unsigned slot;
    uint32_t length;
    uint8_t byte;

    host.disk.threads = _i;
    host.disk.write_error = DEVICE_WRITE_ERROR_WAIT;
    start();
    refuse_half();
    memset(data_of(0), 0x3c, DATA_BYTES);
    /* The first half of it is written, the rest waits. */
    submit(0, VIRTIO_BLK_T_OUT, DISK_SECTORS / 2 - 4, DATA_BYTES, false);
    while (!told.errors) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    event_base_loop(host.base, EVLOOP_ONCE); /* tried again, in vain */
    ck_assert(!driver_collect(&host.driver, 0, &element));
    submit(1, VIRTIO_BLK_T_IN, 0, DATA_BYTES, true); /* others go on */
    ck_assert_uint_eq(finish(&slot, &length), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(slot, 1);
    limit_file_size(RLIM_INFINITY);
    ck_assert_uint_eq(finish(&slot, &length), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(slot, 0);
    ck_assert_uint_eq(told.wells, 1);
    for (unsigned i = 0; i < DATA_BYTES; i += 511) {
        ck_assert_int_eq(pread(host.backend, &byte, 1, (DISK_SECTORS / 2 - 4) * 512 + i), 1);
        ck_assert_uint_eq(byte, 0x3c);
    }
}
END_TEST

START_TEST(only_a_full_disk_is_waited_for)
{
    host.disk.write_error = DEVICE_WRITE_ERROR_ENOSPC;
    start();
    refuse_half(); /* "file too large" is another error */
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, DISK_SECTORS - 8, 512, false), VIRTIO_BLK_S_IOERR);
}
END_TEST

static void note_queue(void *context, unsigned queue)
{
    ck_assert_uint_eq(queue, 0);
    *(bool *)context = true;
}

START_TEST(a_reset_or_stop_does_not_wait_for_the_host)
{
    bool done = false;

    host.disk.write_error = DEVICE_WRITE_ERROR_WAIT;
    start();
    refuse_half();
    submit(0, VIRTIO_BLK_T_OUT, DISK_SECTORS - 8, DATA_BYTES, false);
    while (!told.errors) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    if (_i == 1) {
        device_stop(host.device, note, &done);
    } else if (_i == 2) {
        virtio_queue_reset(host.device, 0, note_queue, &done);
    } else {
        virtio_device_reset(host.device, note, &done);
    }
    while (!done) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    ck_assert_uint_eq(status_of(0), VIRTIO_BLK_S_IOERR);
}
END_TEST

/* What waits is in the log like all that is in flight. */
START_TEST(the_next_process_waits_on)
{
    unsigned slot;
    uint32_t length;

    host.disk.write_error = DEVICE_WRITE_ERROR_WAIT;
    start();
    refuse_half();
    submit(0, VIRTIO_BLK_T_OUT, DISK_SECTORS - 8, DATA_BYTES, false);
    while (!told.errors) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    restart();
    limit_file_size(RLIM_INFINITY);
    ck_assert_uint_eq(finish(&slot, &length), VIRTIO_BLK_S_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio-blk disks");
    TCase *tests = tcase_create("disk");

    tcase_add_checked_fixture(tests, setup, blk_teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, several_queues_are_served);
    tcase_add_test(tests, the_driver_chooses_the_mode_of_the_cache);
    tcase_add_test(tests, write_through_is_what_the_host_says_first);
    tcase_add_test(tests, discard_gives_space_back);
    tcase_add_test(tests, a_disk_grows_while_it_is_used);
    tcase_add_test(tests, a_disk_becomes_smaller_only_on_purpose);
    tcase_add_test(tests, a_size_that_changed_between_two_processes_is_told);
    tcase_add_test(tests, a_change_that_a_dead_process_did_not_tell_is_told);
    tcase_add_test(tests, read_only_disks_keep_their_size);
    tcase_add_test(tests, direct_transfers_of_any_alignment);
    tcase_add_loop_test(tests, errors_are_reported_and_told_once, 0, 2);
    tcase_add_loop_test(tests, the_guest_waits_until_the_host_is_well, 0, 2);
    tcase_add_test(tests, only_a_full_disk_is_waited_for);
    tcase_add_loop_test(tests, a_reset_or_stop_does_not_wait_for_the_host, 0, 3);
    tcase_add_test(tests, the_next_process_waits_on);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
