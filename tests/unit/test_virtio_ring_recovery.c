/*
 * A device process dies at each single step of taking, completing and recovering; the next one goes
 * on, and the driver sees every request done exactly once.
 */
#include <setjmp.h>

static jmp_buf death;
static long steps_to_live;

static void step(void)
{
    if (steps_to_live > 0 && --steps_to_live == 0) {
        longjmp(death, 1);
    }
}

#define VIRTQUEUE_STEP() step()
#include "libshared/virtio/ring.c"

#include "tests/unit/virtio_driver.h"
#include <stdlib.h>

#define REQUESTS 12

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chains[DRIVER_QUEUE_SIZE];
static unsigned performed[DRIVER_QUEUE_SIZE]; /* how often each request was worked on */

static uint32_t result_of(uint16_t head)
{
    return 1000u + head;
}

static void setup(void)
{
    driver_open(&driver);
}

static void teardown(void)
{
    driver_close(&driver);
}

static void offer_all(void)
{
    driver_set_queues(&driver, DRIVER_QUEUE_SIZE);
    virtqueue_clear(&driver.state->queues[0]);
    memset(performed, 0, sizeof(performed));
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint16_t head = (uint16_t)(i * 5 % DRIVER_QUEUE_SIZE);
        driver_describe(&driver, 0, head, DRIVER_DATA + head * 64u, 64, VIRTQUEUE_WRITE, 0);
        driver_offer(&driver, 0, head);
    }
}

static void complete(uint16_t head)
{
    performed[head]++;
    virtqueue_complete(&queue, &chains[head], result_of(head));
}

/* A device's life: recover, then work with up to four requests in flight, newest done first. */
static void live(bool restart)
{
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count = 0;
    struct virtqueue_chain chain;

    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0], 0), 0);
    if (restart) {
        ck_assert_int_eq(virtqueue_recover(&queue, heads, &count), 0);
        for (unsigned i = 0; i < count; i++) {
            ck_assert_int_eq(virtqueue_resume(&queue, heads[i], &chains[heads[i]]), 0);
            if (i > 0) {
                ck_assert_uint_lt(driver.state->queues[0].inflight[heads[i - 1]].order,
                                  driver.state->queues[0].inflight[heads[i]].order);
            }
        }
    }
    for (;;) {
        while (count < 4 && virtqueue_take(&queue, &chain) == 1) {
            virtqueue_chain_copy(&chains[chain.head], &chain);
            heads[count++] = chain.head;
        }
        ck_assert_ptr_null(queue.fault);
        if (count == 0) {
            break;
        }
        complete(heads[--count]);
        if (count == 3) { /* and one of the middle */
            uint16_t head = heads[1];
            heads[1] = heads[2];
            count = 2;
            complete(head);
        }
    }
}

static void check_all_done_once(void)
{
    struct virtqueue_used_element element;
    bool seen[DRIVER_QUEUE_SIZE] = {false};
    unsigned count = 0;

    while (driver_collect(&driver, 0, &element)) {
        ck_assert_uint_lt(element.id, DRIVER_QUEUE_SIZE);
        ck_assert(!seen[element.id]);
        seen[element.id] = true;
        ck_assert_uint_ge(performed[element.id], 1);
        ck_assert_uint_eq(element.length, result_of((uint16_t)element.id));
        count++;
    }
    ck_assert_uint_eq(count, REQUESTS);
    for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
        ck_assert_uint_eq(driver.state->queues[0].inflight[i].status, VIRTIO_FREE);
    }
    ck_assert_uint_eq(driver.state->queues[0].next_used, REQUESTS);
    ck_assert_uint_eq(driver.state->queues[0].next_available, REQUESTS);
}

/* Live until death; false when the life ended by itself. */
static bool dies_after(long steps, bool restart)
{
    steps_to_live = steps;
    if (setjmp(death)) {
        return true;
    }
    live(restart);
    steps_to_live = 0;
    return false;
}

START_TEST(one_death_at_each_step)
{
    volatile long steps = 1;

    for (;; steps++) {
        offer_all();
        bool died = dies_after(steps, false);
        if (died) {
            ck_assert(!dies_after(0, true));
        }
        check_all_done_once();
        if (!died) {
            break;
        }
    }
    ck_assert_int_gt(steps, REQUESTS * 10); /* it did die at every one of them */
}
END_TEST

START_TEST(two_deaths_at_each_pair_of_steps)
{
    volatile long first, second;

    for (first = 1;; first++) {
        for (second = 1;; second++) {
            offer_all();
            if (!dies_after(first, false)) {
                return;
            }
            bool again = dies_after(second, true);
            if (again) {
                ck_assert(!dies_after(0, true));
            }
            check_all_done_once();
            if (!again) {
                break;
            }
        }
    }
}
END_TEST

START_TEST(a_process_that_dies_every_few_steps_gets_there)
{
    offer_all();
    bool restart = false;
    volatile unsigned deaths = 0;

    while (dies_after(7, restart)) {
        restart = true;
        ck_assert_uint_lt(++deaths, 100);
    }
    ck_assert_uint_gt(deaths, 5);
    check_all_done_once();
}
END_TEST

START_TEST(damaged_logs_are_refused)
{
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count;
    struct virtio_queue_state *shared = &driver.state->queues[0];

    for (unsigned kind = 0; kind < 5; kind++) {
        offer_all();
        shared->inflight[2].status = kind == 0 ? 3 : VIRTIO_IN_FLIGHT;
        shared->inflight[2].order = kind == 1 ? 1 : 0; /* beyond next_order */
        if (kind == 2) {                               /* two half-taken */
            shared->inflight[3] = shared->inflight[2];
        }
        if (kind == 3) { /* two half-completed */
            shared->inflight[2].status = shared->inflight[3].status = VIRTIO_DONE;
        }
        if (kind == 4) {
            driver.queues[0].used[1] = 2;
        }
        ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, shared, 0), 0);
        ck_assert_int_eq(virtqueue_recover(&queue, heads, &count), -EPROTO);
        ck_assert_uint_eq(count, 0);
        ck_assert_int_eq(virtqueue_resume(&queue, 2, &chains[0]), -EPROTO);
    }
}
END_TEST

/* ---- Streams ---- */

#define STREAM_ROUNDS 40

/* Publishes one, two or three buffers at a time until there are none; with each goes the number of
 * the frame, which an earlier life may have begun. */
static void stream_live(bool restart)
{
    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0], 0), 0);
    if (restart) {
        ck_assert_int_eq(virtqueue_recover_stream(&queue), 0);
    }
    ck_assert_uint_eq(queue.next_used, queue.next_available);
    for (;;) {
        struct virtqueue_used_element elements[3];
        unsigned wanted = queue.next_used % 3u + 1, count = 0;
        while (count < wanted && virtqueue_peek(&queue, count, &chains[0]) == 1) {
            elements[count] = (struct virtqueue_used_element){chains[0].head, 100 + wanted};
            count++;
        }
        ck_assert_ptr_null(queue.fault);
        if (count < wanted) {
            break;
        }
        virtqueue_publish(&queue, elements, count);
    }
}

static bool stream_dies_after(long steps, bool restart)
{
    steps_to_live = steps;
    if (setjmp(death)) {
        return true;
    }
    stream_live(restart);
    steps_to_live = 0;
    return false;
}

/* The driver sees each buffer once, in order, and groups whole; it gives all back again. */
START_TEST(a_stream_survives_death_at_each_step)
{
    volatile long steps;
    volatile unsigned collected, offered;

    for (steps = 1; steps < 60; steps++) {
        driver_set_queues(&driver, DRIVER_QUEUE_SIZE);
        virtqueue_clear(&driver.state->queues[0]);
        for (uint16_t i = 0; i < DRIVER_QUEUE_SIZE; i++) {
            driver_describe(&driver, 0, i, DRIVER_DATA + i * 64u, 64, VIRTQUEUE_WRITE, 0);
        }
        collected = offered = 0;
        for (volatile unsigned round = 0; round < STREAM_ROUNDS; round++) {
            struct virtqueue_used_element element;
            while (offered < collected + DRIVER_QUEUE_SIZE) {
                driver_offer(&driver, 0, (uint16_t)(offered++ % DRIVER_QUEUE_SIZE));
            }
            stream_dies_after(steps, round > 0);
            unsigned left = 0;
            while (driver_collect(&driver, 0, &element)) {
                ck_assert_uint_eq(element.id, collected % DRIVER_QUEUE_SIZE);
                left = left ? left : element.length - 100;
                left--;
                collected++;
            }
            ck_assert_uint_eq(left, 0); /* no part of a group */
        }
        /* A life of fewer steps ends before it can publish, or even take over. */
        ck_assert(steps < 5 || collected > 0);
    }
}
END_TEST

START_TEST(a_stream_whose_used_index_was_changed)
{
    driver_set_queues(&driver, DRIVER_QUEUE_SIZE);
    virtqueue_clear(&driver.state->queues[0]);
    driver.queues[0].used[1] = DRIVER_QUEUE_SIZE + 1;
    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0], 0), 0);
    ck_assert_int_lt(virtqueue_recover_stream(&queue), 0);
    ck_assert_ptr_nonnull(queue.fault);
    ck_assert_int_lt(virtqueue_peek(&queue, 0, &chains[0]), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio ring recovery");
    TCase *tests = tcase_create("recovery");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, one_death_at_each_step);
    tcase_add_test(tests, two_deaths_at_each_pair_of_steps);
    tcase_add_test(tests, a_stream_survives_death_at_each_step);
    tcase_add_test(tests, a_stream_whose_used_index_was_changed);
    tcase_add_test(tests, a_process_that_dies_every_few_steps_gets_there);
    tcase_add_test(tests, damaged_logs_are_refused);
    suite_add_tcase(suite, tests);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
