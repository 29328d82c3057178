/* The ring of a disk: what it does, that it can do nothing else, and that a host without one is no
 * misfortune. Where this test itself may have no ring, only the last is shown. */
#include "devd/block/uring.c"
#include "tests/unit/blk_driver.h"
#include "tests/unit/suite.h"
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <sys/socket.h>

static struct event_base *base;
static int results;
static int last_result;

static void completed(void *context, struct block_request *request, int result)
{
    (void)context;
    (void)request;
    results++;
    last_result = result;
}

static void batch_done(void *context)
{
    (void)context;
}

static struct uring *ring_or_null(int fd)
{
    const struct uring_port port = {completed, batch_done, NULL};

    base = event_base_new();
    struct uring *uring = uring_open(fd, base, &port);
    if (!uring) {
        printf("no ring on this host: %s\n", strerror(errno));
    }
    return uring;
}

static void settle(struct uring *uring, int wanted)
{
    uring_start(uring);
    while (results < wanted) {
        event_base_loop(base, EVLOOP_ONCE);
    }
}

START_TEST(reads_writes_and_flushes)
{
    int fd = disk_open(65536);
    char text[16] = "contents", back[16] = "";
    struct iovec vector = {text, sizeof(text)};
    struct block_request request = {.operation = BLOCK_WRITE,
                                    .left_offset = 4096,
                                    .vectors = &vector,
                                    .vector_count = 1,
                                    .durable = true};
    struct uring *uring = ring_or_null(fd);

    if (!uring) {
        return;
    }
    ck_assert(uring_take(uring, &request));
    settle(uring, 1);
    ck_assert_int_eq(last_result, sizeof(text));
    request.operation = BLOCK_FLUSH;
    ck_assert(uring_take(uring, &request));
    settle(uring, 2);
    ck_assert_int_eq(last_result, 0);
    request.operation = BLOCK_READ;
    vector = (struct iovec){back, sizeof(back)};
    ck_assert(uring_take(uring, &request));
    settle(uring, 3);
    ck_assert_int_eq(last_result, sizeof(text));
    ck_assert_str_eq(back, "contents");
    uring_close(uring);
    event_base_free(base);
    close(fd);
}
END_TEST

START_TEST(more_requests_than_it_has_room_for)
{
    int fd = disk_open(65536);
    static char bytes[512];
    struct iovec vector = {bytes, sizeof(bytes)};
    struct block_request request = {.operation = BLOCK_READ, .vectors = &vector, .vector_count = 1};
    struct uring *uring = ring_or_null(fd);
    int taken = 0;

    if (!uring) {
        return;
    }
    for (unsigned i = 0; i < 5 * ENTRIES; i++) {
        if (!uring_take(uring, &request)) {
            uring_start(uring);
            ck_assert(uring_take(uring, &request));
        }
        taken++;
    }
    settle(uring, taken);
    ck_assert_int_eq(results, taken);
    uring_close(uring);
    event_base_free(base);
    close(fd);
}
END_TEST

/* Put in the ring what no disk would: how the kernel answers. */
static int smuggle(struct uring *uring, struct io_uring_sqe entry)
{
    struct io_uring_sqe *place = io_uring_get_sqe(&uring->ring);
    int before = results;

    *place = entry;
    uring->unsubmitted++;
    uring->in_flight++;
    settle(uring, before + 1);
    return last_result;
}

START_TEST(nothing_else_can_be_done_with_it)
{
    int fd = disk_open(65536), other = disk_open(65536);
    char bytes[16];
    struct uring *uring = ring_or_null(fd);

    if (!uring) {
        return;
    }
    ck_assert_int_lt(smuggle(uring, (struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
                                                          .fd = AT_FDCWD,
                                                          .addr = (uintptr_t) "/etc/passwd"}),
                     0);
    ck_assert_int_lt(smuggle(uring, (struct io_uring_sqe){.opcode = IORING_OP_SOCKET,
                                                          .fd = AF_INET,
                                                          .off = SOCK_STREAM}),
                     0);
    ck_assert_int_lt(smuggle(uring, (struct io_uring_sqe){.opcode = IORING_OP_NOP}), 0);
    /* Nor on another file. */
    struct iovec vector = {bytes, sizeof(bytes)};
    ck_assert_int_lt(smuggle(uring, (struct io_uring_sqe){.opcode = IORING_OP_READV,
                                                          .fd = other,
                                                          .addr = (uintptr_t)&vector,
                                                          .len = 1}),
                     0);
    ck_assert_int_lt(ring_register(&uring->ring, IORING_UNREGISTER_FILES, NULL, 0), 0);
    ck_assert_int_lt(ring_register(&uring->ring, IORING_REGISTER_FILES, &other, 1), 0);
    uring_close(uring);
    event_base_free(base);
    close(fd);
    close(other);
}
END_TEST

/* A container's filter: the disk works, with threads. */
START_TEST(a_host_without_rings)
{
    const int codes[] = {EPERM, ENOSYS};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    ck_assert_int_eq(
        seccomp_rule_add(filter, SCMP_ACT_ERRNO(codes[_i]), SCMP_SYS(io_uring_setup), 0), 0);
    ck_assert_int_eq(seccomp_load(filter), 0);
    seccomp_release(filter);
    blk_setup();
    blk_start();
    ck_assert_ptr_nonnull(strstr(host.device->described, "threads"));
    memset(data_of(0), 0x42, DATA_BYTES);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_OUT, 8, DATA_BYTES, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, false), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 8, DATA_BYTES, true), VIRTIO_BLK_S_OK);
    blk_teardown();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ring of a disk");
    TCase *tests = tcase_create("ring");

    tcase_add_test(tests, reads_writes_and_flushes);
    tcase_add_test(tests, more_requests_than_it_has_room_for);
    tcase_add_test(tests, nothing_else_can_be_done_with_it);
    tcase_add_loop_test(tests, a_host_without_rings, 0, 2);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
