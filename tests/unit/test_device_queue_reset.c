/* One queue is reset while the device runs (VIRTIO_F_RING_RESET): what was taken from it is
 * finished first, nothing of it is left, and it is used again with another size. */
#include "tests/unit/blk_driver.h"

static struct {
    unsigned done;
    unsigned queue;
} answer;

static void note(void *context, unsigned queue)
{
    (void)context;
    answer.done++;
    answer.queue = queue;
}

static void setup(void)
{
    blk_setup();
    memset(&answer, 0, sizeof(answer));
}

/* As the transport does it. */
static void reset_queue(unsigned queue)
{
    atomic_store(&host.driver.state->queues[queue].enabled, 0);
    virtio_queue_reset(host.device, queue, note, NULL);
}

static void set_up_again(uint16_t size)
{
    driver_set_queues(&host.driver, size);
    ck_assert_int_eq(virtio_queue_enable(host.device, 0), 0);
}

static void check_forgotten(void)
{
    const struct virtio_queue_state *shared = &host.driver.state->queues[0];

    ck_assert_uint_eq(shared->live, 0);
    ck_assert_uint_eq(shared->next_order, 0);
    ck_assert_uint_eq(shared->used_order, 0);
    for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
        ck_assert_uint_eq(shared->inflight[i].status, VIRTIO_FREE);
    }
}

START_TEST(a_queue_is_made_smaller)
{
    blk_start();
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    reset_queue(0);
    ck_assert_uint_eq(answer.done, 1);
    check_forgotten();
    host_kick(&host, 0); /* means nothing now */
    host_turn(&host);
    set_up_again(8);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, i, 512, true), VIRTIO_BLK_S_OK);
    }
    ck_assert_int_eq(virtio_queue_enable(host.device, 0), 0); /* repeated: nothing happens */
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(host.driver.state->needs_reset, 0);
}
END_TEST

START_TEST(a_reset_waits_for_what_was_taken)
{
    blk_start();
    for (unsigned i = 0; i < 5; i++) {
        submit(i, VIRTIO_BLK_T_FLUSH, 0, 0, false);
    }
    event_base_loop(host.base, EVLOOP_NONBLOCK);
    reset_queue(0);
    reset_queue(0); /* repeated: one answer is enough */
    while (!answer.done) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    check_forgotten();
    set_up_again(DRIVER_QUEUE_SIZE);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

/* The process dies while requests are in flight and the driver has taken the queue away. */
START_TEST(a_successor_forgets_the_queue)
{
    static struct virtqueue ring;
    static struct virtqueue_chain chain;

    blk_start();
    for (unsigned i = 0; i < 4; i++) {
        submit(i, VIRTIO_BLK_T_IN, 0, 512, true);
    }
    ck_assert_int_eq(virtqueue_open(&ring, &host.driver.memory, &host.driver.state->queues[0],
                                    driver_features(&host.driver)),
                     0);
    ck_assert_int_eq(virtqueue_take(&ring, &chain), 1);
    device_destroy(host.device);
    atomic_store(&host.driver.state->queues[0].enabled, 0);
    host_start(&host, &device_model_virtio_blk, true);
    host_activate(&host, ALL_FEATURES);
    virtio_queue_reset(host.device, 0, note, NULL); /* the transport asks again */
    ck_assert_uint_eq(answer.done, 1);
    check_forgotten();
    set_up_again(4);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

START_TEST(a_queue_set_up_wrongly)
{
    blk_start();
    reset_queue(0);
    driver_set_queues(&host.driver, DRIVER_QUEUE_SIZE);
    host.driver.state->queues[0].descriptors = UINT64_MAX - 15;
    ck_assert_int_lt(virtio_queue_enable(host.device, 0), 0);
    ck_assert_uint_eq(host.driver.state->needs_reset, 1);
}
END_TEST

START_TEST(queues_that_are_not_there)
{
    blk_start();
    virtio_queue_reset(host.device, 1, note, NULL);
    virtio_queue_reset(host.device, UINT32_MAX, note, NULL);
    ck_assert_uint_eq(answer.done, 2);
    ck_assert_int_lt(virtio_queue_enable(host.device, 1), 0);
    ck_assert_int_lt(virtio_queue_enable(host.device, UINT32_MAX), 0);
    ck_assert_uint_eq(request(VIRTIO_BLK_T_IN, 0, 512, true), VIRTIO_BLK_S_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reset of a queue");
    TCase *tests = tcase_create("queue");

    tcase_add_checked_fixture(tests, setup, blk_teardown);
    tcase_add_test(tests, a_queue_is_made_smaller);
    tcase_add_test(tests, a_reset_waits_for_what_was_taken);
    tcase_add_test(tests, a_successor_forgets_the_queue);
    tcase_add_test(tests, a_queue_set_up_wrongly);
    tcase_add_test(tests, queues_that_are_not_there);
    suite_add_tcase(suite, tests);
    return host_report_rings(suite);
}
