/*
 * A device process dies at each single step of taking, completing and recovering; the next one goes
 * on, and the driver sees every request done exactly once. With split rings and with packed ones.
 */
#include <setjmp.h>

static jmp_buf death;
static long steps_to_live;

/* What the driver does meanwhile, if anything. */
static void (*meanwhile)(void);

static void step(void)
{
    if (meanwhile) {
        meanwhile();
    }
    if (steps_to_live > 0 && --steps_to_live == 0) {
        longjmp(death, 1);
    }
}

#define VIRTQUEUE_STEP() step()
#include "libshared/virtio/chain.c"
#include "libshared/virtio/ring.c"
#include "libshared/virtio/ring_packed.c"
#include "libshared/virtio/ring_split.c"

#include "tests/unit/suite.h"
#include "tests/unit/virtio_driver.h"

#define REQUESTS 12

/* For what is looked at millions of times: Check's own assertions each write to a file. */
#define require(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            ck_abort_msg("%s:%d: not so: %s", __FILE__, __LINE__, #condition);                     \
        }                                                                                          \
    } while (0)

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chains[DRIVER_QUEUE_SIZE];
static unsigned performed[DRIVER_QUEUE_SIZE]; /* how often each request was worked on */

static uint32_t result_of(uint16_t id)
{
    return 1000u + id;
}

static void setup(void)
{
    driver_open(&driver);
}

static void teardown(void)
{
    driver_close(&driver);
}

/* Each test runs twice. */
static void choose_layout(int loop)
{
    driver.packed = loop;
}

static void open_queue(void)
{
    require(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0],
                           driver_features(&driver) | VIRTQUEUE_FEATURE_INDIRECT) == 0);
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
    performed[chains[head].id]++;
    virtqueue_complete(&queue, &chains[head], result_of(chains[head].id));
}

/* A device's life: recover, then work with up to four requests in flight, newest done first. */
static void live(bool restart)
{
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count = 0;
    struct virtqueue_chain chain;

    open_queue();
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
    ck_assert_uint_eq(driver.state->queues[0].used_order, REQUESTS);
    ck_assert_uint_eq(driver.state->queues[0].next_order, REQUESTS);
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

    choose_layout(_i);
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
    ck_assert_int_gt(steps, REQUESTS * 8); /* it did die at every one of them */
}
END_TEST

START_TEST(two_deaths_at_each_pair_of_steps)
{
    volatile long first, second;

    choose_layout(_i);
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
    choose_layout(_i);
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

    choose_layout(_i);
    for (unsigned kind = 0; kind < 13; kind++) {
        struct virtio_inflight *entry = &shared->inflight[2];
        offer_all();
        *entry = (struct virtio_inflight){.status = kind == 0 ? 3 : VIRTIO_IN_FLIGHT};
        entry->positions = 1;
        entry->count = 1;
        entry->order = kind == 1 ? 1 : 0; /* beyond next_order */
        if (kind == 2) {                  /* two half-taken */
            shared->inflight[3] = *entry;
            shared->inflight[3].first = 1;
        }
        if (kind == 3) { /* two half-completed */
            shared->inflight[3] = *entry;
            entry->status = shared->inflight[3].status = VIRTIO_DONE;
        }
        if (kind == 4) {
            shared->used_order = 5; /* before anything was taken */
        }
        if (kind == 5) {
            shared->next_order = DRIVER_QUEUE_SIZE + 1; /* more than there can be */
        }
        if (kind == 6) {
            entry->positions = 0;
        }
        if (kind == 7) {
            entry->positions = driver.packed ? DRIVER_QUEUE_SIZE + 1 : 2;
        }
        if (kind == 8) { /* done somewhere else */
            entry->status = VIRTIO_DONE;
            entry->used_at = 3;
        }
        if (kind >= 9 && !driver.packed) {
            driver.queues[0].used[1] = 2;
            continue;
        }
        if (kind == 9) {
            entry->first = DRIVER_QUEUE_SIZE;
        }
        if (kind == 10) {
            entry->count = DRIVER_QUEUE_SIZE + 1;
        }
        if (kind == 11) { /* links that lead astray */
            entry->count = 2;
            shared->descriptor_log[0].next = 0xfff0;
        }
        if (kind == 12) { /* or in a circle */
            entry->count = 2;
            shared->descriptor_log[0].next = 0;
        }
        open_queue();
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
    open_queue();
    if (restart) {
        require(virtqueue_recover_stream(&queue) == 0);
    }
    require(queue.used_order == queue.next_order);
    for (;;) {
        uint32_t lengths[3];
        unsigned wanted = queue.used_order % 3u + 1, count = 0;
        while (count < wanted && virtqueue_peek(&queue, count, &chains[0]) == 1) {
            require(chains[0].addresses[0] == DRIVER_DATA + chains[0].id * 64u);
            lengths[count++] = 100 + wanted;
        }
        require(!queue.fault);
        if (count < wanted) {
            break;
        }
        virtqueue_publish(&queue, lengths, count);
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

/* The driver's half of a stream: it collects, checks, and gives all back again. Buffers are used in
 * order, so the descriptors of the next one are those behind. */
static struct {
    unsigned buffers;
    unsigned collected, offered;
    unsigned left; /* buffers of the group that were not seen yet */
} stream;

static void stream_drive(void)
{
    struct virtqueue_used_element element;

    while (driver_collect(&driver, 0, &element)) {
        require(element.id == stream.collected % stream.buffers * 3);
        stream.left = stream.left ? stream.left : element.length - 100;
        stream.left--;
        stream.collected++;
    }
    require(stream.left == 0); /* no part of a group */
    while (stream.offered < stream.collected + stream.buffers) {
        driver_offer(&driver, 0, (uint16_t)(stream.offered++ % stream.buffers * 3));
    }
}

/* Five buffers of one to three descriptors, nine in all. A ring of nine is always full then, one of
 * ten has each buffer at each place once. */
static void stream_set_up(uint16_t size)
{
    static const uint8_t lengths[5] = {1, 2, 3, 1, 2};

    driver_set_queues(&driver, size);
    virtqueue_clear(&driver.state->queues[0]);
    memset(&stream, 0, sizeof(stream));
    stream.buffers = 5;
    for (uint16_t i = 0; i < stream.buffers; i++) {
        for (uint16_t part = 0; part < lengths[i]; part++) {
            uint16_t index = (uint16_t)(i * 3 + part);
            driver_describe(&driver, 0, index, DRIVER_DATA + index * 64u, 64,
                            VIRTQUEUE_WRITE | (part + 1 < lengths[i] ? VIRTQUEUE_NEXT : 0),
                            (uint16_t)(index + 1));
        }
    }
    stream_drive();
}

static const struct {
    bool packed;
    uint16_t size;
} rings[] = {{false, 16}, {true, 16}, {true, 10}, {true, 9}};
#define RINGS (int)(sizeof(rings) / sizeof(rings[0]))

static void stream_die_again_and_again(bool eager)
{
    volatile long steps;

    for (steps = 1; steps < 60; steps++) {
        for (volatile unsigned phase = 0; phase < 12; phase++) {
            meanwhile = NULL;
            stream_set_up(driver.state->queues[0].size);
            meanwhile = eager ? stream_drive : NULL;
            /* Where in the ring it is when it begins to die. */
            stream_dies_after(phase + 1, false);
            for (volatile unsigned round = 0; round < STREAM_ROUNDS; round++) {
                stream_drive();
                stream_dies_after(steps, true);
            }
            meanwhile = NULL;
            stream_drive();
            /* Whatever the last one left, the next one goes on: at most part of a group stays. */
            volatile unsigned before = stream.collected;
            stream_dies_after(0, true);
            stream_drive();
            require(stream.collected >= before + stream.buffers - 2);
            /* A life of fewer steps ends before it can publish, or even take over. */
            ck_assert(steps < 10 || stream.collected > 0);
        }
    }
}

/* The driver sees each buffer once, in order, and groups whole. */
START_TEST(a_stream_survives_death_at_each_step)
{
    driver.packed = rings[_i].packed;
    driver_set_queues(&driver, rings[_i].size);
    stream_die_again_and_again(false);
}
END_TEST

/* The same while the driver is as quick as can be: it uses what it got back between any two
 * steps of the device. */
START_TEST(a_stream_survives_while_the_driver_goes_on)
{
    driver.packed = rings[_i].packed;
    driver_set_queues(&driver, rings[_i].size);
    stream_die_again_and_again(true);
}
END_TEST

START_TEST(a_stream_whose_used_index_was_changed)
{
    driver_set_queues(&driver, DRIVER_QUEUE_SIZE);
    virtqueue_clear(&driver.state->queues[0]);
    driver.queues[0].used[1] = DRIVER_QUEUE_SIZE + 1;
    open_queue();
    ck_assert_int_lt(virtqueue_recover_stream(&queue), 0);
    ck_assert_ptr_nonnull(queue.fault);
    ck_assert_int_lt(virtqueue_peek(&queue, 0, &chains[0]), 0);
}
END_TEST

START_TEST(a_stream_whose_log_is_damaged)
{
    struct virtio_queue_state *shared = &driver.state->queues[0];

    driver.packed = true;
    for (unsigned kind = 0; kind < 3; kind++) {
        driver_set_queues(&driver, DRIVER_QUEUE_SIZE);
        virtqueue_clear(shared);
        shared->stream_count = kind == 0 ? UINT32_MAX : DRIVER_QUEUE_SIZE + (kind == 1);
        for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
            shared->inflight[i].positions = kind == 2 ? 0xffff : 1;
        }
        open_queue();
        ck_assert_int_lt(virtqueue_recover_stream(&queue), 0);
        ck_assert_ptr_nonnull(queue.fault);
    }
}
END_TEST

/* ---- A driver that goes on ---- */

/* Three requests of one to three descriptors at any time, or of one that leads to a table. Each has
 * a number in its first buffer; the device answers with it. */
static struct {
    uint32_t number[DRIVER_QUEUE_SIZE]; /* by head; 0: not in the ring */
    uint32_t next, done;
} load;

#define LOAD_REQUESTS 3
#define LOAD_TABLES   (DRIVER_DATA + 0x10000)

static void load_offer(uint16_t head)
{
    const uint32_t number = ++load.next;
    const unsigned parts = number % 3 + 1;
    const bool table = number % 5 == 0;

    for (uint16_t part = 0; part < parts; part++) {
        uint16_t index = (uint16_t)(table ? part : head + part);
        struct virtqueue_descriptor descriptor = {
            .address = DRIVER_DATA + (head + part) * 64u,
            .length = 64,
            .flags =
                (uint16_t)((part ? VIRTQUEUE_WRITE : 0) | (part + 1u < parts ? VIRTQUEUE_NEXT : 0)),
            .next = (uint16_t)(index + 1),
        };
        if (table) {
            driver_table_set(&driver, LOAD_TABLES + head * 64u, part, &descriptor);
        } else {
            driver.queues[0].descriptors[head + part] = descriptor;
        }
    }
    if (table) {
        driver_describe(&driver, 0, head, LOAD_TABLES + head * 64u, parts * 16, VIRTQUEUE_INDIRECT,
                        0);
    }
    memcpy(driver_pointer(&driver, DRIVER_DATA + head * 64u), &number, sizeof(number));
    load.number[head] = number;
    driver_offer(&driver, 0, head);
}

static void load_drive(void)
{
    struct virtqueue_used_element element;

    while (driver_collect(&driver, 0, &element)) {
        require(element.id < DRIVER_QUEUE_SIZE);
        require(element.length != 0);
        require(element.length == load.number[element.id]);
        load.number[element.id] = 0;
        load.done++;
        load_offer((uint16_t)element.id);
    }
}

static void load_complete(uint16_t head)
{
    uint32_t number = 0;
    virtqueue_chain_read(&chains[head], 0, &number, sizeof(number));
    require(chains[head].readable_count == 1);
    require(chains[head].writable_count == number % 3);
    virtqueue_complete(&queue, &chains[head], number);
}

/* Takes all there are, gives back the second one first. */
static void load_live(bool restart)
{
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count = 0;
    struct virtqueue_chain chain;

    open_queue();
    if (restart) {
        require(virtqueue_recover(&queue, heads, &count) == 0);
        for (unsigned i = 0; i < count; i++) {
            require(virtqueue_resume(&queue, heads[i], &chains[heads[i]]) == 0);
        }
    }
    while (load.done < 400) {
        uint32_t before = load.done;
        while (count < 3 && virtqueue_take(&queue, &chain) == 1) {
            virtqueue_chain_copy(&chains[chain.head], &chain);
            heads[count++] = chain.head;
        }
        require(!queue.fault);
        unsigned which = count > 1 ? 1 : 0;
        if (count) {
            uint16_t head = heads[which];
            heads[which] = heads[--count];
            load_complete(head);
        }
        load_drive();
        require(load.done > before);
    }
}

static bool load_dies_after(long steps, bool restart)
{
    steps_to_live = steps;
    if (setjmp(death)) {
        return true;
    }
    load_live(restart);
    steps_to_live = 0;
    return false;
}

/* Each life ends after a number of steps that changes from one to the next, so that it meets
 * every step at every place of the ring. */
START_TEST(requests_survive_while_the_driver_goes_on)
{
    volatile unsigned deaths = 0;

    driver.packed = rings[_i / 2].packed;
    driver_set_queues(&driver, rings[_i / 2].size);
    for (volatile long steps = 12; steps < 60; steps++) {
        meanwhile = NULL;
        driver_set_queues(&driver, rings[_i / 2].size);
        virtqueue_clear(&driver.state->queues[0]);
        memset(&load, 0, sizeof(load));
        for (uint16_t i = 0; i < LOAD_REQUESTS; i++) {
            load_offer((uint16_t)(i * 3));
        }
        meanwhile = _i % 2 ? load_drive : NULL;
        volatile long life = steps;
        bool restart = false;
        while (load_dies_after(life, restart)) {
            restart = true;
            life = steps + deaths % 7;
            ck_assert_uint_lt(++deaths, 1000000);
        }
        ck_assert_uint_ge(load.done, 400);
    }
    meanwhile = NULL;
    ck_assert_uint_gt(deaths, 1000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio ring recovery");
    TCase *tests = tcase_create("recovery");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, one_death_at_each_step, 0, 2);
    tcase_add_loop_test(tests, two_deaths_at_each_pair_of_steps, 0, 2);
    tcase_add_loop_test(tests, a_stream_survives_death_at_each_step, 0, RINGS);
    tcase_add_loop_test(tests, a_stream_survives_while_the_driver_goes_on, 0, RINGS);
    tcase_add_test(tests, a_stream_whose_used_index_was_changed);
    tcase_add_test(tests, a_stream_whose_log_is_damaged);
    tcase_add_loop_test(tests, a_process_that_dies_every_few_steps_gets_there, 0, 2);
    tcase_add_loop_test(tests, requests_survive_while_the_driver_goes_on, 0, 2 * RINGS);
    tcase_add_loop_test(tests, damaged_logs_are_refused, 0, 2);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
