/* Split virtqueues: what a well-behaved driver gets, and that no driver can do harm. */
#include "libshared/virtio/ring.h"
#include "tests/unit/suite.h"
#include "tests/unit/virtio_driver.h"
#include <errno.h>

static struct driver driver;
static struct virtqueue queue;
static struct virtqueue_chain chain;

static void open_queue(uint64_t features)
{
    virtqueue_clear(&driver.state->queues[0]);
    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, &driver.state->queues[0], features), 0);
}

static void setup(void)
{
    driver_open(&driver);
    open_queue(VIRTQUEUE_FEATURE_INDIRECT);
}

static void teardown(void)
{
    driver_close(&driver);
}

START_TEST(takes_and_completes_a_chain)
{
    struct virtqueue_used_element element;
    char text[8] = {0};

    memcpy(driver_pointer(&driver, DRIVER_DATA), "hello", 5);
    driver_describe(&driver, 0, 3, DRIVER_DATA, 2, VIRTQUEUE_NEXT, 7);
    driver_describe(&driver, 0, 7, DRIVER_DATA + 2, 3, VIRTQUEUE_NEXT, 1);
    driver_describe(&driver, 0, 1, DRIVER_DATA + 0x1000, 4, VIRTQUEUE_NEXT | VIRTQUEUE_WRITE, 2);
    driver_describe(&driver, 0, 2, DRIVER_DATA + 0x2000, 4, VIRTQUEUE_WRITE, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 0);
    driver_offer(&driver, 0, 3);
    ck_assert(virtqueue_available(&queue));
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);

    ck_assert_uint_eq(chain.head, 3);
    ck_assert_uint_eq(chain.readable_count, 2);
    ck_assert_uint_eq(chain.writable_count, 2);
    ck_assert_uint_eq(chain.readable_bytes, 5);
    ck_assert_uint_eq(chain.writable_bytes, 8);
    ck_assert_uint_eq(virtqueue_chain_read(&chain, 1, text, sizeof(text)), 4);
    ck_assert_str_eq(text, "ello");
    ck_assert_uint_eq(virtqueue_chain_write(&chain, 3, "abcdefgh", 8), 5);
    ck_assert_mem_eq((char *)driver_pointer(&driver, DRIVER_DATA + 0x1000) + 3, "a", 1);
    ck_assert_mem_eq(driver_pointer(&driver, DRIVER_DATA + 0x2000), "bcde", 4);

    ck_assert(!driver_collect(&driver, 0, &element));
    virtqueue_complete(&queue, &chain, 8);
    ck_assert(driver_collect(&driver, 0, &element));
    ck_assert_uint_eq(element.id, 3);
    ck_assert_uint_eq(element.length, 8);
    ck_assert(!driver_collect(&driver, 0, &element));
    ck_assert_uint_eq(driver.state->queues[0].inflight[3].status, VIRTIO_FREE);
    ck_assert_uint_eq(driver.state->queues[0].used_order, 1);
    ck_assert_uint_eq(driver.state->queues[0].next_order, 1);
}
END_TEST

START_TEST(indexes_wrap)
{
    struct virtqueue_used_element element;

    for (unsigned i = 0; i < 70000; i++) {
        uint16_t head = i % DRIVER_QUEUE_SIZE;
        driver_describe(&driver, 0, head, DRIVER_DATA, 1, VIRTQUEUE_WRITE, 0);
        driver_offer(&driver, 0, head);
        ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
        ck_assert_uint_eq(chain.head, head);
        virtqueue_complete(&queue, &chain, i);
        ck_assert(driver_collect(&driver, 0, &element));
        ck_assert_uint_eq(element.id, head);
        ck_assert_uint_eq(element.length, i);
    }
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 0);
}
END_TEST

START_TEST(indirect_tables)
{
    struct virtqueue_descriptor *table = driver_pointer(&driver, DRIVER_DATA + 0x8000);

    table[0] = (struct virtqueue_descriptor){DRIVER_DATA, 10, VIRTQUEUE_NEXT, 2};
    table[2] = (struct virtqueue_descriptor){DRIVER_DATA + 0x100, 20, VIRTQUEUE_WRITE, 0};
    driver_describe(&driver, 0, 5, DRIVER_DATA + 0x8000, 3 * 16, VIRTQUEUE_INDIRECT, 0);
    /* A direct buffer may come before the indirect table. */
    driver_describe(&driver, 0, 6, DRIVER_DATA + 0x200, 5, VIRTQUEUE_NEXT, 5);
    driver_offer(&driver, 0, 6);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert_uint_eq(chain.readable_bytes, 15);
    ck_assert_uint_eq(chain.writable_bytes, 20);
    ck_assert_uint_eq(chain.addresses[2], DRIVER_DATA + 0x100);
}
END_TEST

START_TEST(empty_buffers_are_skipped)
{
    driver_describe(&driver, 0, 0, UINT64_MAX, 0, VIRTQUEUE_NEXT, 1);
    driver_describe(&driver, 0, 1, DRIVER_DATA, 4, VIRTQUEUE_WRITE, 0);
    driver_offer(&driver, 0, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert_uint_eq(chain.readable_count, 0);
    ck_assert_uint_eq(chain.writable_count, 1);
}
END_TEST

/* What a hostile driver puts into descriptors 0 to 2 and the table at DRIVER_DATA; head is 0. */
static const struct {
    const char *name;
    struct virtqueue_descriptor descriptors[3];
    struct virtqueue_descriptor table[2];
} hostile[] = {
    {"points to itself", {{DRIVER_DATA, 1, VIRTQUEUE_NEXT, 0}}, {{0}}},
    {"loop of two",
     {{DRIVER_DATA, 1, VIRTQUEUE_NEXT, 1}, {DRIVER_DATA, 1, VIRTQUEUE_NEXT, 0}},
     {{0}}},
    {"empty loop", {{0, 0, VIRTQUEUE_NEXT, 0}}, {{0}}},
    {"next out of range", {{DRIVER_DATA, 1, VIRTQUEUE_NEXT, DRIVER_QUEUE_SIZE}}, {{0}}},
    {"next far out of range", {{DRIVER_DATA, 1, VIRTQUEUE_NEXT, 0xffff}}, {{0}}},
    {"longer than memory", {{DRIVER_DATA, 0xffffffff, 0, 0}}, {{0}}},
    {"past the end", {{DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 1, 2, 0, 0}}, {{0}}},
    {"before memory", {{DRIVER_RAM_BASE - 1, 2, 0, 0}}, {{0}}},
    {"address wraps", {{UINT64_MAX - 1, 16, 0, 0}}, {{0}}},
    {"address wraps into memory", {{UINT64_MAX - 0xff, 0xffffffff, 0, 0}}, {{0}}},
    {"readable after writable",
     {{DRIVER_DATA, 1, VIRTQUEUE_NEXT | VIRTQUEUE_WRITE, 1}, {DRIVER_DATA, 1, 0, 0}},
     {{0}}},
    {"indirect and next",
     {{DRIVER_DATA, 16, VIRTQUEUE_INDIRECT | VIRTQUEUE_NEXT, 1}, {DRIVER_DATA, 1, 0, 0}},
     {{DRIVER_DATA, 1, 0, 0}}},
    {"indirect in indirect",
     {{DRIVER_DATA, 16, VIRTQUEUE_INDIRECT, 0}},
     {{DRIVER_DATA, 16, VIRTQUEUE_INDIRECT, 0}}},
    {"indirect table empty", {{DRIVER_DATA, 0, VIRTQUEUE_INDIRECT, 0}}, {{0}}},
    {"indirect table of odd size", {{DRIVER_DATA, 24, VIRTQUEUE_INDIRECT, 0}}, {{0}}},
    {"indirect table too long",
     {{DRIVER_DATA, 16 * (VIRTIO_QUEUE_SIZE_MAX + 1), VIRTQUEUE_INDIRECT, 0}},
     {{0}}},
    {"indirect table huge", {{DRIVER_DATA, 0xfffffff0, VIRTQUEUE_INDIRECT, 0}}, {{0}}},
    {"indirect table outside", {{UINT64_MAX - 15, 32, VIRTQUEUE_INDIRECT, 0}}, {{0}}},
    {"indirect next out of table",
     {{DRIVER_DATA, 32, VIRTQUEUE_INDIRECT, 0}},
     {{DRIVER_DATA, 1, VIRTQUEUE_NEXT, 2}}},
    {"indirect loop",
     {{DRIVER_DATA, 32, VIRTQUEUE_INDIRECT, 0}},
     {{DRIVER_DATA, 1, VIRTQUEUE_NEXT, 1}, {DRIVER_DATA, 1, VIRTQUEUE_NEXT, 0}}},
};

START_TEST(hostile_chains_break_the_queue)
{
    struct virtqueue_used_element element;

    memcpy(driver.queues[0].descriptors, hostile[_i].descriptors, sizeof(hostile[_i].descriptors));
    memcpy(driver_pointer(&driver, DRIVER_DATA), hostile[_i].table, sizeof(hostile[_i].table));
    driver_offer(&driver, 0, 0);
    ck_assert_msg(virtqueue_take(&queue, &chain) == -EPROTO, "%s", hostile[_i].name);
    ck_assert_ptr_nonnull(queue.fault);
    /* Broken stays broken, quietly. */
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
    ck_assert(!virtqueue_available(&queue));
    ck_assert(!virtqueue_kicks_on(&queue));
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    virtqueue_complete(&queue, &chain, 1);
    ck_assert(!driver_collect(&driver, 0, &element));
    ck_assert_uint_eq(driver.state->queues[0].inflight[0].status, VIRTIO_FREE);
}
END_TEST

START_TEST(indirect_must_be_negotiated)
{
    open_queue(0);
    driver_describe(&driver, 0, 0, DRIVER_DATA, 16, VIRTQUEUE_INDIRECT, 0);
    driver_offer(&driver, 0, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
}
END_TEST

/* A table of `count` buffers of 32 MiB each, all the same memory. */
static int take_large_chain(unsigned count)
{
    struct virtqueue_descriptor *table = driver_pointer(&driver, DRIVER_DATA);

    driver_set_queues(&driver, 256);
    open_queue(VIRTQUEUE_FEATURE_INDIRECT);
    for (unsigned i = 0; i < count; i++) {
        uint16_t more = i + 1 < count ? VIRTQUEUE_NEXT : 0;
        table[i] = (struct virtqueue_descriptor){DRIVER_RAM_BASE, DRIVER_RAM_SIZE,
                                                 VIRTQUEUE_WRITE | more, (uint16_t)(i + 1)};
    }
    driver_describe(&driver, 0, 0, DRIVER_DATA, count * 16, VIRTQUEUE_INDIRECT, 0);
    driver_offer(&driver, 0, 0);
    return virtqueue_take(&queue, &chain);
}

/* A driver that made its queue smaller may go on with large requests. */
START_TEST(tables_may_be_longer_than_the_queue)
{
    struct virtqueue_descriptor *table = driver_pointer(&driver, DRIVER_DATA);

    for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
        table[i] = (struct virtqueue_descriptor){DRIVER_DATA + 0x10000, 1, VIRTQUEUE_NEXT,
                                                 (uint16_t)(i + 1)};
    }
    table[VIRTIO_QUEUE_SIZE_MAX - 1].flags = 0;
    driver_describe(&driver, 0, 0, DRIVER_DATA, VIRTIO_QUEUE_SIZE_MAX * 16, VIRTQUEUE_INDIRECT, 0);
    driver_offer(&driver, 0, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert_uint_eq(chain.readable_count, VIRTIO_QUEUE_SIZE_MAX);
}
END_TEST

START_TEST(chains_are_shorter_than_4_gib)
{
    ck_assert_int_eq(take_large_chain(127), 1);
    ck_assert_uint_eq(chain.writable_bytes, 127 * DRIVER_RAM_SIZE);
    ck_assert_int_eq(take_large_chain(128), -EPROTO);
    ck_assert_int_eq(take_large_chain(256), -EPROTO);
}
END_TEST

START_TEST(hostile_indexes_break_the_queue)
{
    driver.queues[0].available[1] = DRIVER_QUEUE_SIZE + 1;
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);

    open_queue(0);
    driver.queues[0].available[1] = 0;
    driver_offer(&driver, 0, DRIVER_QUEUE_SIZE);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);

    open_queue(0);
    driver.queues[0].available[1] = 0;
    driver_describe(&driver, 0, 0, DRIVER_DATA, 1, 0, 0);
    driver_offer(&driver, 0, 0);
    driver_offer(&driver, 0, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), -EPROTO);
}
END_TEST

static const struct {
    uint64_t descriptors, driver_area, device_area;
    uint16_t size;
} impossible[] = {
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 0},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 3},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 512},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 0xffff},
    {DRIVER_RAM_BASE + 8, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE + 1, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE + 2, 16},
    {0, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
    {UINT64_MAX - 15, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 2, DRIVER_RAM_BASE, 16},
    {DRIVER_RAM_BASE, DRIVER_RAM_BASE, DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 4, 16},
    {DRIVER_RAM_BASE + DRIVER_RAM_SIZE - 240, DRIVER_RAM_BASE, DRIVER_RAM_BASE, 16},
};

START_TEST(impossible_set_ups_are_refused)
{
    struct virtio_queue_state *shared = &driver.state->queues[0];

    shared->descriptors = impossible[_i].descriptors;
    shared->driver_area = impossible[_i].driver_area;
    shared->device_area = impossible[_i].device_area;
    shared->size = impossible[_i].size;
    ck_assert_int_eq(virtqueue_open(&queue, &driver.memory, shared, 0), -EINVAL);
}
END_TEST

static void complete_one(uint16_t head)
{
    driver_describe(&driver, 0, head, DRIVER_DATA, 1, VIRTQUEUE_WRITE, 0);
    driver_offer(&driver, 0, head);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    virtqueue_complete(&queue, &chain, 1);
}

START_TEST(interrupts_by_flag)
{
    uint16_t *flags = &driver.queues[0].available[0];

    complete_one(0);
    ck_assert(virtqueue_interrupt_wanted(&queue));
    ck_assert(!virtqueue_interrupt_wanted(&queue)); /* nothing new */
    *flags = 1;
    complete_one(1);
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    *flags = 0;
    complete_one(2);
    ck_assert(virtqueue_interrupt_wanted(&queue));
}
END_TEST

START_TEST(interrupts_by_event_index)
{
    uint16_t *event = &driver.queues[0].available[2 + DRIVER_QUEUE_SIZE];

    open_queue(VIRTQUEUE_FEATURE_EVENT_INDEX);
    complete_one(0);
    ck_assert(virtqueue_interrupt_wanted(&queue)); /* the first time always */
    *event = 3;
    complete_one(1);
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    complete_one(2);
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    complete_one(3); /* entry 3 is published: that was asked for */
    ck_assert(virtqueue_interrupt_wanted(&queue));
    complete_one(4);
    ck_assert(!virtqueue_interrupt_wanted(&queue));
    *event = 6;
    complete_one(5);
    complete_one(6);
    complete_one(7); /* several at once, the one asked for among them */
    ck_assert(virtqueue_interrupt_wanted(&queue));
}
END_TEST

START_TEST(kicks_by_flag)
{
    uint16_t *flags = &driver.queues[0].used[0];

    virtqueue_kicks_off(&queue);
    ck_assert_uint_eq(*flags, 1);
    ck_assert(!virtqueue_kicks_on(&queue));
    ck_assert_uint_eq(*flags, 0);
    driver_offer(&driver, 0, 0);
    ck_assert(virtqueue_kicks_on(&queue)); /* came without a kick: look again */
}
END_TEST

START_TEST(kicks_by_event_index)
{
    uint16_t *event = &driver.queues[0].used[2 + 4 * DRIVER_QUEUE_SIZE];

    open_queue(VIRTQUEUE_FEATURE_EVENT_INDEX);
    complete_one(0);
    complete_one(1);
    virtqueue_kicks_off(&queue);
    ck_assert_uint_eq(*event, 0);
    ck_assert(!virtqueue_kicks_on(&queue));
    ck_assert_uint_eq(*event, 2);
    ck_assert_uint_eq(driver.queues[0].used[0], 0);
}
END_TEST

START_TEST(writes_to_code_are_reported_before_completion)
{
    _Atomic uint8_t *flags = memory_page_flags(&driver.memory, DRIVER_DATA + 0x1000);
    uint32_t before = driver.memory.codemap->device_wrote;

    atomic_store(flags, MEMORY_PAGE_CODE);
    driver_describe(&driver, 0, 0, DRIVER_DATA + 0x800, 0x1000, VIRTQUEUE_WRITE, 0);
    driver_offer(&driver, 0, 0);
    ck_assert_int_eq(virtqueue_take(&queue, &chain), 1);
    ck_assert_uint_eq(driver.memory.codemap->device_wrote, before);
    virtqueue_complete(&queue, &chain, 1);
    ck_assert_uint_eq(*flags, MEMORY_PAGE_CODE | MEMORY_PAGE_DEVICE_WROTE);
    ck_assert_uint_ne(driver.memory.codemap->device_wrote, before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio ring");
    TCase *tests = tcase_create("ring");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, takes_and_completes_a_chain);
    tcase_add_test(tests, indexes_wrap);
    tcase_add_test(tests, indirect_tables);
    tcase_add_test(tests, empty_buffers_are_skipped);
    tcase_add_loop_test(tests, hostile_chains_break_the_queue, 0,
                        sizeof(hostile) / sizeof(hostile[0]));
    tcase_add_test(tests, indirect_must_be_negotiated);
    tcase_add_test(tests, tables_may_be_longer_than_the_queue);
    tcase_add_test(tests, chains_are_shorter_than_4_gib);
    tcase_add_test(tests, hostile_indexes_break_the_queue);
    tcase_add_loop_test(tests, impossible_set_ups_are_refused, 0,
                        sizeof(impossible) / sizeof(impossible[0]));
    tcase_add_test(tests, interrupts_by_flag);
    tcase_add_test(tests, interrupts_by_event_index);
    tcase_add_test(tests, kicks_by_flag);
    tcase_add_test(tests, kicks_by_event_index);
    tcase_add_test(tests, writes_to_code_are_reported_before_completion);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
