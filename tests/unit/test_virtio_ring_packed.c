/* Packed virtqueues: wrap counters, buffer ids, completion in any order, events, and that no driver
 * can do harm. What both layouts share is in test_virtio_ring.c. */
#include "libshared/virtio/ring.h"
#include "tests/unit/suite.h"
#include "tests/unit/virtio_driver.h"
#include <errno.h>

#define ALL (VIRTQUEUE_FEATURE_PACKED | VIRTQUEUE_FEATURE_INDIRECT | VIRTQUEUE_FEATURE_EVENT_INDEX)

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chain, chains[VIRTIO_QUEUE_SIZE_MAX];

static void open_queue(uint16_t size, uint64_t features)
{
    driver_set_queues(&driver, size);
    virtqueue_clear(&driver.state->queues[0]);
    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0],
                                    features | VIRTQUEUE_FEATURE_PACKED),
                     0);
}

static void setup(void)
{
    driver_packed = true;
    driver_open(&driver);
    open_queue(DRIVER_QUEUE_SIZE, VIRTQUEUE_FEATURE_INDIRECT);
}

static void teardown(void)
{
    driver_close(&driver);
}

static void offer_one(uint16_t head)
{
    driver_describe(&driver, 0, head, DRIVER_DATA + head * 16u, 16, VIRTQUEUE_WRITE, 0);
    driver_offer(&driver, 0, head);
}

static struct virtqueue_packed_descriptor *slot(unsigned index)
{
    return &driver.queues[0].ring[index];
}

START_TEST(takes_and_completes_a_chain)
{
    struct virtqueue_used_element element;
    char text[8] = {0};

    memcpy(driver_pointer(&driver, DRIVER_DATA), "hello", 5);
    driver_describe(&driver, 0, 3, DRIVER_DATA, 2, VIRTQUEUE_NEXT, 7);
    driver_describe(&driver, 0, 7, DRIVER_DATA + 2, 3, VIRTQUEUE_NEXT, 1);
    driver_describe(&driver, 0, 1, DRIVER_DATA + 0x1000, 4, VIRTQUEUE_WRITE, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 0);
    driver_offer(&driver, 0, 3);
    ck_assert(virtqueue_available(&queue));
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert(!virtqueue_available(&queue));
    ck_assert_uint_eq(chain.id, 3);
    ck_assert_uint_eq(chain.readable_count, 2);
    ck_assert_uint_eq(chain.writable_count, 1);
    ck_assert_uint_eq(virtqueue_chain_read(&chain, 1, text, sizeof(text)), 4);
    ck_assert_str_eq(text, "ello");

    virtqueue_complete(&queue, &chain, 4);
    ck_assert_uint_eq(slot(0)->id, 3);
    ck_assert_uint_eq(slot(0)->flags, 0x8080 | VIRTQUEUE_WRITE);
    ck_assert(driver_collect(&driver, 0, &element));
    ck_assert_uint_eq(element.length, 4);
    ck_assert(!driver_collect(&driver, 0, &element));
    ck_assert_uint_eq(driver.state->queues[0].used_order, 3);
    ck_assert_uint_eq(driver.state->queues[0].next_order, 3);
}
END_TEST

/* Sizes that are no power of two, and chains that cross the ring's end. */
START_TEST(wraps_at_any_size)
{
    static const uint16_t sizes[] = {1, 2, 3, 7, 10, 16, 255, 256};
    const uint16_t size = sizes[_i];
    struct virtqueue_used_element element;

    open_queue(size, 0);
    for (unsigned i = 0; i < 2000; i++) {
        uint16_t parts = (uint16_t)(i % 3 + 1 <= size ? i % 3 + 1 : 1);
        for (uint16_t part = 0; part < parts; part++) {
            driver_describe(&driver, 0, part, DRIVER_DATA + part * 64u, i % 60 + 1,
                            part + 1 < parts ? VIRTQUEUE_NEXT : 0, (uint16_t)(part + 1));
        }
        driver_offer(&driver, 0, 0);
        ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
        ck_assert_uint_eq(chain.readable_count, parts);
        ck_assert_uint_eq(chain.readable_bytes, parts * (i % 60 + 1));
        ck_assert_int_eq(virtqueue_take(&queue, &chains[0]), 0);
        virtqueue_complete(&queue, &chain, 0);
        ck_assert(driver_collect(&driver, 0, &element));
        ck_assert(!driver_collect(&driver, 0, &element));
    }
}
END_TEST

/* The driver may call its buffers what it likes. */
START_TEST(any_buffer_id)
{
    static const uint16_t ids[] = {0, 15, 16, 255, 256, 0x7fff, 0xffff};

    for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        *slot(i) = (struct virtqueue_packed_descriptor){DRIVER_DATA, 8, ids[i],
                                                        VIRTQUEUE_PACKED_AVAILABLE};
        ck_assert_int_eq(virtqueue_take(&queue, &chains[i]), 1);
        ck_assert_uint_eq(chains[i].id, ids[i]);
        ck_assert_uint_lt(chains[i].head, DRIVER_QUEUE_SIZE);
    }
    for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        virtqueue_complete(&queue, &chains[i], 0);
        ck_assert_uint_eq(slot(i)->id, ids[i]);
    }
}
END_TEST

/* The last request completes first: its used entry overwrites the first one's descriptor. What is
 * still in flight is then known by the log only. */
START_TEST(a_successor_finds_what_was_overwritten)
{
    struct virtqueue_used_element element;
    struct virtqueue_packed_descriptor *table = driver_pointer(&driver, DRIVER_DATA + 0x8000);
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count;

    driver_describe(&driver, 0, 0, DRIVER_DATA, 10, VIRTQUEUE_NEXT, 1);
    driver_describe(&driver, 0, 1, DRIVER_DATA + 0x100, 20, VIRTQUEUE_WRITE, 0);
    driver_offer(&driver, 0, 0);
    table[0] = (struct virtqueue_packed_descriptor){DRIVER_DATA + 0x200, 30, 0, 0};
    table[1] = (struct virtqueue_packed_descriptor){DRIVER_DATA + 0x300, 40, 0, VIRTQUEUE_WRITE};
    driver_describe(&driver, 0, 2, DRIVER_DATA + 0x8000, 32, VIRTQUEUE_INDIRECT, 0);
    driver_offer(&driver, 0, 2);
    for (uint16_t i = 3; i < 7; i++) {
        offer_one(i);
    }
    for (unsigned i = 0; i < 6; i++) {
        ck_assert_int_eq(virtqueue_take(&queue, &chains[i]), 1);
    }
    for (unsigned i = 6; i-- > 2;) {
        virtqueue_complete(&queue, &chains[i], 16);
        ck_assert(driver_collect(&driver, 0, &element));
        ck_assert_uint_eq(element.id, i + 1);
        offer_one((uint16_t)(i + 1)); /* and is used for something else at once */
    }

    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0], ALL), 0);
    ck_assert_int_eq(virtqueue_recover(&queue, heads, &count), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(virtqueue_resume(&queue, heads[0], &chains[0]), 0);
    ck_assert_uint_eq(chains[0].id, 0);
    ck_assert_uint_eq(chains[0].positions, 2);
    ck_assert_uint_eq(chains[0].readable_bytes, 10);
    ck_assert_uint_eq(chains[0].writable_bytes, 20);
    ck_assert_uint_eq(chains[0].addresses[1], DRIVER_DATA + 0x100);
    ck_assert_int_eq(virtqueue_resume(&queue, heads[1], &chains[1]), 0);
    ck_assert_uint_eq(chains[1].id, 2);
    ck_assert_uint_eq(chains[1].readable_bytes, 30);
    ck_assert_uint_eq(chains[1].writable_bytes, 40);
    for (unsigned i = 2; i < 6; i++) {
        ck_assert_int_eq(virtqueue_take(&queue, &chains[i]), 1);
    }
    for (unsigned i = 0; i < 6; i++) {
        virtqueue_complete(&queue, &chains[i], 1);
        ck_assert(driver_collect(&driver, 0, &element));
        ck_assert_uint_eq(element.id, chains[i].id);
    }
    ck_assert(!driver_collect(&driver, 0, &element));
}
END_TEST

/* What a hostile driver writes into the ring from slot 0 on. */
#define A VIRTQUEUE_PACKED_AVAILABLE
static const struct {
    const char *name;
    struct virtqueue_packed_descriptor ring[3];
} hostile[] = {
    {"longer than memory", {{DRIVER_DATA, 0xffffffff, 0, A}}},
    {"past the end", {{DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 1, 2, 0, A}}},
    {"address wraps", {{UINT64_MAX - 1, 16, 0, A}}},
    {"readable after writable",
     {{DRIVER_DATA, 1, 0, A | VIRTQUEUE_NEXT | VIRTQUEUE_WRITE}, {DRIVER_DATA, 1, 0, A}}},
    {"indirect and next",
     {{DRIVER_DATA, 16, 0, A | VIRTQUEUE_INDIRECT | VIRTQUEUE_NEXT}, {DRIVER_DATA, 1, 0, A}}},
    {"indirect behind another",
     {{DRIVER_DATA, 1, 0, A | VIRTQUEUE_NEXT}, {DRIVER_DATA, 16, 0, A | VIRTQUEUE_INDIRECT}}},
    {"indirect table empty", {{DRIVER_DATA, 0, 0, A | VIRTQUEUE_INDIRECT}}},
    {"indirect table of odd size", {{DRIVER_DATA, 24, 0, A | VIRTQUEUE_INDIRECT}}},
    {"indirect table too long", {{DRIVER_DATA, 257 * 16, 0, A | VIRTQUEUE_INDIRECT}}},
    {"indirect table outside", {{UINT64_MAX - 15, 32, 0, A | VIRTQUEUE_INDIRECT}}},
};

START_TEST(hostile_chains_break_the_queue)
{
    memcpy(slot(0), hostile[_i].ring, sizeof(hostile[_i].ring));
    ck_assert_msg(virtqueue_take(&queue, &chain) == -EPROTO, "%s", hostile[_i].name);
    ck_assert_ptr_nonnull(queue.fault);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
    ck_assert(!virtqueue_available(&queue));
    ck_assert(!virtqueue_kicks_on(&queue));
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    virtqueue_complete(&queue, &chain, 1);
    ck_assert_uint_eq(slot(0)->flags, hostile[_i].ring[0].flags);
    for (unsigned i = 0; i < DRIVER_QUEUE_SIZE; i++) {
        ck_assert_uint_eq(driver.state->queues[0].inflight[i].status, VIRTIO_FREE);
    }
}
END_TEST

START_TEST(a_chain_without_end)
{
    for (unsigned i = 0; i < DRIVER_QUEUE_SIZE; i++) {
        *slot(i) = (struct virtqueue_packed_descriptor){DRIVER_DATA, 1, 0, A | VIRTQUEUE_NEXT};
    }
    ck_assert_uint_eq(virtqueue_waiting(&queue, 5), 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
}
END_TEST

/* Flags of the next lap on descriptors that the device still works on. */
START_TEST(more_than_the_ring_holds)
{
    for (unsigned i = 0; i < DRIVER_QUEUE_SIZE; i++) {
        offer_one((uint16_t)i);
        ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    }
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 0);
    slot(0)->flags = VIRTQUEUE_PACKED_USED;
    ck_assert(virtqueue_available(&queue)); /* something to look at */
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
}
END_TEST

/* The same by a chain that begins where it may. */
START_TEST(a_chain_into_what_is_in_flight)
{
    for (unsigned i = 0; i < DRIVER_QUEUE_SIZE; i++) {
        offer_one((uint16_t)i);
        ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    }
    virtqueue_complete(&queue, &chain, 1);
    slot(0)->flags = VIRTQUEUE_PACKED_USED | VIRTQUEUE_NEXT;
    slot(1)->flags = VIRTQUEUE_PACKED_USED;
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
}
END_TEST

START_TEST(flags_of_a_table_are_ignored)
{
    struct virtqueue_packed_descriptor *table = driver_pointer(&driver, DRIVER_DATA + 0x8000);

    table[0] = (struct virtqueue_packed_descriptor){DRIVER_DATA, 10, 9, VIRTQUEUE_INDIRECT};
    table[1] = (struct virtqueue_packed_descriptor){DRIVER_DATA, 11, 0, A};
    table[2] =
        (struct virtqueue_packed_descriptor){DRIVER_DATA, 20, 0, VIRTQUEUE_WRITE | VIRTQUEUE_NEXT};
    *slot(0) = (struct virtqueue_packed_descriptor){DRIVER_DATA + 0x8000, 48, 0,
                                                    A | VIRTQUEUE_INDIRECT | VIRTQUEUE_WRITE};
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert_uint_eq(chain.readable_bytes, 21);
    ck_assert_uint_eq(chain.writable_bytes, 20);
}
END_TEST

START_TEST(indirect_must_be_negotiated)
{
    open_queue(16, 0);
    *slot(0) = (struct virtqueue_packed_descriptor){DRIVER_DATA, 16, 0, A | VIRTQUEUE_INDIRECT};
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
}
END_TEST

static const struct {
    uint64_t descriptors, driver_area, device_area;
    uint16_t size;
} impossible[] = {
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 0},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 257},
    {DRIVER_RAM_BASE + 8, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE + 2, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE + 2, 16},
    {0, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE + DRIVER_RAM_SIZE, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, UINT64_MAX - 3, 16},
    {DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 240, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
};

START_TEST(impossible_set_ups_are_refused)
{
    struct virtio_queue_state *shared = &driver.state->queues[0];

    shared->descriptors = impossible[_i].descriptors;
    shared->driver_area = impossible[_i].driver_area;
    shared->device_area = impossible[_i].device_area;
    shared->size = impossible[_i].size;
    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, shared, ALL), -EINVAL);
}
END_TEST

static void complete_one(uint16_t head)
{
    struct virtqueue_used_element element;

    offer_one(head);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    virtqueue_complete(&queue, &chain, 1);
    ck_assert(driver_collect(&driver, 0, &element));
}

START_TEST(interrupts_by_flag)
{
    struct virtqueue_packed_event *wish = driver.queues[0].driver_event;

    complete_one(0);
    ck_assert(virtqueue_interrupt_wanted(&queue));
    ck_assert(!virtqueue_interrupt_wanted(&queue)); /* nothing new */
    wish->flags = VIRTQUEUE_EVENT_DISABLE;
    complete_one(1);
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    wish->flags = VIRTQUEUE_EVENT_DESCRIPTOR; /* not negotiated */
    wish->descriptor = 15;
    complete_one(2);
    ck_assert(virtqueue_interrupt_wanted(&queue));
}
END_TEST

/* Two laps, asked for each position in turn. */
START_TEST(interrupts_by_event_index)
{
    struct virtqueue_packed_event *wish = driver.queues[0].driver_event;
    const unsigned size = 10;

    open_queue(size, ALL);
    complete_one(0);
    ck_assert(virtqueue_interrupt_wanted(&queue)); /* the first time always */
    for (unsigned at = 1; at < 60; at++) {
        wish->flags = VIRTQUEUE_EVENT_DESCRIPTOR;
        unsigned event = at + at % 4; /* up to three further */
        wish->descriptor = (uint16_t)(event % size | (event / size & 1 ? 0 : 0x8000));
        for (unsigned i = at; i < event; i++) {
            complete_one(0);
            ck_assert(!virtqueue_interrupt_wanted(&queue));
        }
        complete_one(0);
        ck_assert(virtqueue_interrupt_wanted(&queue));
        wish->flags = VIRTQUEUE_EVENT_DISABLE;
        at = event;
    }
    complete_one(0);
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    wish->flags = VIRTQUEUE_EVENT_ENABLE;
    complete_one(0);
    ck_assert(virtqueue_interrupt_wanted(&queue));
}
END_TEST

START_TEST(kicks_by_flag)
{
    struct virtqueue_packed_event *wish = driver.queues[0].device_event;

    virtqueue_kicks_off(&queue);
    ck_assert_uint_eq(wish->flags, VIRTQUEUE_EVENT_DISABLE);
    ck_assert(!virtqueue_kicks_on(&queue));
    ck_assert_uint_eq(wish->flags, VIRTQUEUE_EVENT_ENABLE);
    offer_one(0);
    ck_assert(virtqueue_kicks_on(&queue)); /* came without a kick: look again */
}
END_TEST

START_TEST(kicks_by_event_index)
{
    struct virtqueue_packed_event *wish = driver.queues[0].device_event;

    open_queue(10, ALL);
    for (unsigned i = 0; i < 25; i++) {
        ck_assert(!virtqueue_kicks_on(&queue));
        ck_assert_uint_eq(wish->flags, VIRTQUEUE_EVENT_DESCRIPTOR);
        ck_assert_uint_eq(wish->descriptor, i % 10 | (i / 10 & 1 ? 0 : 0x8000));
        complete_one(0);
        virtqueue_kicks_off(&queue);
        ck_assert_uint_eq(wish->flags, VIRTQUEUE_EVENT_DISABLE);
    }
}
END_TEST

START_TEST(kicks_beyond_what_waits)
{
    struct virtqueue_packed_event *wish = driver.queues[0].device_event;

    open_queue(10, ALL);
    for (uint16_t i = 0; i < 3; i++) { /* of two descriptors each */
        driver_describe(&driver, 0, i * 2u, DRIVER_DATA, 8, VIRTQUEUE_NEXT, (uint16_t)(i * 2 + 1));
        driver_describe(&driver, 0, i * 2u + 1, DRIVER_DATA, 8, 0, 0);
        driver_offer(&driver, 0, (uint16_t)(i * 2));
    }
    ck_assert_uint_eq(virtqueue_waiting(&queue, 2), 2);
    ck_assert_uint_eq(virtqueue_waiting(&queue, 100), 3);
    ck_assert(virtqueue_kicks_on_beyond(&queue, 2)); /* the third is there already */
    ck_assert(!virtqueue_kicks_on_beyond(&queue, 3));
    ck_assert_uint_eq(wish->descriptor, 0x8000 | 6);
    ck_assert(!virtqueue_exhausted(&queue, 3));
    offer_one(6);
    ck_assert(virtqueue_kicks_on_beyond(&queue, 3));
    for (uint16_t i = 7; i < 10; i++) {
        offer_one(i);
    }
    ck_assert_uint_eq(virtqueue_waiting(&queue, 100), 7);
    ck_assert(virtqueue_exhausted(&queue, 7)); /* ten positions */
    ck_assert(!virtqueue_kicks_on_beyond(&queue, 7));
    ck_assert_uint_eq(wish->descriptor, 0); /* the first of the next lap */
}
END_TEST

/* A driver that changes what was looked at. */
START_TEST(buffers_that_change_while_they_are_filled)
{
    const uint32_t lengths[3] = {1, 1, 1};

    for (uint16_t i = 0; i < 3; i++) {
        offer_one(i);
        ck_assert_int_eq(virtqueue_peek(&queue, i, &chain), 1);
    }
    slot(0)->flags |= VIRTQUEUE_NEXT;
    ck_assert_int_eq(virtqueue_peek(&queue, 0, &chain), 1);
    ck_assert_uint_eq(chain.positions, 2);
    virtqueue_publish(&queue, lengths, 3);
    ck_assert_ptr_nonnull(queue.fault);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio packed ring");
    TCase *tests = tcase_create("ring");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, takes_and_completes_a_chain);
    tcase_add_loop_test(tests, wraps_at_any_size, 0, 8);
    tcase_add_test(tests, any_buffer_id);
    tcase_add_test(tests, a_successor_finds_what_was_overwritten);
    tcase_add_loop_test(tests, hostile_chains_break_the_queue, 0,
                        sizeof(hostile) / sizeof(hostile[0]));
    tcase_add_test(tests, a_chain_without_end);
    tcase_add_test(tests, more_than_the_ring_holds);
    tcase_add_test(tests, a_chain_into_what_is_in_flight);
    tcase_add_test(tests, flags_of_a_table_are_ignored);
    tcase_add_test(tests, indirect_must_be_negotiated);
    tcase_add_loop_test(tests, impossible_set_ups_are_refused, 0,
                        sizeof(impossible) / sizeof(impossible[0]));
    tcase_add_test(tests, interrupts_by_flag);
    tcase_add_test(tests, interrupts_by_event_index);
    tcase_add_test(tests, kicks_by_flag);
    tcase_add_test(tests, kicks_by_event_index);
    tcase_add_test(tests, kicks_beyond_what_waits);
    tcase_add_test(tests, buffers_that_change_while_they_are_filled);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
