/* vcpud's end of a register channel, against a device process played by a thread. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/device/mmio_client.h"
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum peer_mode {
    PEER_WORKS,
    PEER_IS_MUTE,          /* takes accesses, answers no read */
    PEER_ANSWERS_WRONG_ID, /* answers with a sequence nobody asked */
};

static struct mmio_channel *channel;
static struct mmio_client *client;
static int kick, reply;
static pthread_t peer;
static bool peer_runs;
static _Atomic bool peer_stop;
static _Atomic int peer_mode;
static _Atomic uint64_t registers[32];
static _Atomic unsigned writes_taken;
static _Atomic unsigned timeouts, slow_calls;
static bool replaced_when_slow;
static _Atomic bool level;

static void line_set(void *controller, unsigned number, bool to)
{
    (void)controller;
    (void)number;
    atomic_store(&level, to);
}

static void timed_out(void *context)
{
    (void)context;
    atomic_fetch_add(&timeouts, 1);
}

static void start_peer(enum peer_mode mode);

/* What vmmd does in the end: there is a working device again before the deadline. */
static void is_slow(void *context)
{
    (void)context;
    atomic_fetch_add(&slow_calls, 1);
    if (replaced_when_slow) {
        start_peer(PEER_WORKS);
    }
}

static void peer_answer(const struct mmio_access *access)
{
    const uint64_t one = 1;
    int mode = atomic_load(&peer_mode);
    if (mode == PEER_IS_MUTE) {
        return;
    }
    uint64_t wrong = mode == PEER_ANSWERS_WRONG_ID ? 1000 : 0;
    atomic_store(&channel->answer_value, atomic_load(&registers[access->offset % 32]));
    atomic_store(&channel->answer_sequence, access->sequence + wrong);
    ck_assert(write(reply, &one, sizeof(one)) == sizeof(one));
}

static void peer_take(const struct mmio_access *access)
{
    if (access->is_read) {
        peer_answer(access);
        return;
    }
    atomic_store(&registers[access->offset % 32], access->value);
    atomic_fetch_add(&writes_taken, 1);
    if (access->offset == 31) {
        atomic_store(&channel->irq_level, (uint32_t)access->value); /* hostile: any number */
    }
}

static void *peer_main(void *argument)
{
    (void)argument;
    uint32_t tail = atomic_load(&channel->tail);
    while (!atomic_load(&peer_stop)) {
        while (atomic_load(&channel->head) != tail) {
            struct mmio_access access = channel->ring[tail % MMIO_CHANNEL_RING];
            tail++;
            peer_take(&access);
            atomic_store(&channel->tail, tail);
        }
        atomic_store(&channel->device_sleeps, 1);
        if (atomic_load(&channel->head) == tail) {
            struct pollfd wait = {.fd = kick, .events = POLLIN};
            uint64_t count;
            if (poll(&wait, 1, 20000) == 1) {
                ck_assert(read(kick, &count, sizeof(count)) == sizeof(count));
            }
        }
        atomic_store(&channel->device_sleeps, 0);
    }
    return NULL;
}

static void start_peer(enum peer_mode mode)
{
    atomic_store(&peer_mode, mode);
    atomic_store(&peer_stop, false);
    ck_assert_int_eq(pthread_create(&peer, NULL, peer_main, NULL), 0);
    peer_runs = true;
}

static void stop_peer(void)
{
    const uint64_t one = 1;
    if (peer_runs) {
        atomic_store(&peer_stop, true);
        ck_assert(write(kick, &one, sizeof(one)) == sizeof(one));
        pthread_join(peer, NULL);
        peer_runs = false;
    }
}

static void setup_with_deadline(unsigned deadline_ms)
{
    channel = calloc(1, MMIO_STATE_SIZE);
    channel->magic = MMIO_CHANNEL_MAGIC;
    channel->version = MMIO_CHANNEL_VERSION;
    kick = eventfd(0, EFD_NONBLOCK);
    reply = eventfd(0, EFD_NONBLOCK);
    const struct mmio_client_config config = {
        .name = "serial0",
        .kind = "serial",
        .channel = channel,
        .kick = kick,
        .reply = reply,
        .deadline_ms = deadline_ms,
        .slow_ms = 50,
        .slow = is_slow,
        .unresponsive = timed_out,
    };
    client = mmio_client_create(&config);
    ck_assert_ptr_nonnull(client);
    const struct irq_line irq = {.set = line_set};
    mmio_client_set_irq(client, &irq);
    atomic_store(&timeouts, 0);
    atomic_store(&slow_calls, 0);
    replaced_when_slow = false;
    atomic_store(&writes_taken, 0);
    atomic_store(&level, false);
}

static void setup(void)
{
    setup_with_deadline(20000);
}

static void setup_impatient(void)
{
    setup_with_deadline(100);
}

static void teardown(void)
{
    stop_peer();
    mmio_client_destroy(client);
    close(kick);
    close(reply);
    free(channel);
}

static uint64_t load(uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    ck_assert(MMIO_CLIENT_OPS.read(client, offset, size, &value));
    return value;
}

static void store(uint64_t offset, unsigned size, uint64_t value)
{
    ck_assert(MMIO_CLIENT_OPS.write(client, offset, size, value));
}

START_TEST(test_reads_follow_writes)
{
    start_peer(PEER_WORKS);
    for (unsigned i = 0; i < 20000; i++) {
        store(1, 4, i);
        if (i % 7 == 0) {
            ck_assert_uint_eq(load(1, 4), i);
        }
    }
    ck_assert_uint_eq(load(1, 4), 19999);
    ck_assert_uint_eq(atomic_load(&writes_taken), 20000);
    ck_assert_uint_eq(atomic_load(&timeouts), 0);
}
END_TEST

START_TEST(test_values_are_cut_to_size)
{
    start_peer(PEER_WORKS);
    store(2, 8, UINT64_MAX);
    ck_assert_uint_eq(load(2, 8), UINT64_MAX);
    ck_assert_uint_eq(load(2, 4), UINT32_MAX);
    ck_assert_uint_eq(load(2, 2), 0xffff);
    ck_assert_uint_eq(load(2, 1), 0xff);
    store(2, 1, 0x1234);
    ck_assert_uint_eq(load(2, 8), 0x34);
}
END_TEST

START_TEST(test_shadow_needs_no_device)
{
    atomic_store(&channel->shadow[5], 0x160);
    atomic_store(&channel->shadow_valid, 1u << 5);
    ck_assert_uint_eq(load(5, 1), 0x60);
    ck_assert_uint_eq(atomic_load(&channel->head), 0);
    start_peer(PEER_WORKS);
    atomic_store(&registers[5], 7);
    ck_assert_uint_eq(load(5, 4), 7); /* only byte registers have shadows */
    atomic_store(&channel->shadow_valid, 0);
    ck_assert_uint_eq(load(5, 1), 7);
}
END_TEST

START_TEST(test_kick_only_when_the_device_sleeps)
{
    uint64_t count;
    store(0, 1, 1);
    ck_assert(read(kick, &count, sizeof(count)) < 0);
    atomic_store(&channel->device_sleeps, 1);
    store(0, 1, 1);
    store(0, 1, 1); /* it has its kick and has not moved */
    ck_assert(read(kick, &count, sizeof(count)) == sizeof(count));
    ck_assert_uint_eq(count, 1);
    atomic_store(&channel->tail, 3);
    store(0, 1, 1);
    ck_assert(read(kick, &count, sizeof(count)) == sizeof(count));
}
END_TEST

/* A control write on its way may change what a shadow says; data does not. */
START_TEST(test_shadow_waits_for_control_writes)
{
    atomic_store(&channel->shadow[5], 0x61);
    atomic_store(&channel->shadow_valid, 1u << 5);
    start_peer(PEER_WORKS);
    atomic_store(&registers[5], 0x60);
    store(2, 1, 7);
    uint64_t seen = load(5, 1);
    ck_assert(seen == 0x60 || atomic_load(&channel->tail) == atomic_load(&channel->head));
    stop_peer();
    store(0, 1, 'a');
    ck_assert_uint_eq(load(5, 1), 0x61);
}
END_TEST

START_TEST(test_interrupt_level)
{
    start_peer(PEER_WORKS);
    atomic_store(&channel->irq_level, 1);
    ck_assert(!atomic_load(&level));
    mmio_client_update_irq(client);
    ck_assert(atomic_load(&level));
    store(31, 4, 0);
    load(0, 1); /* sampled after each round trip */
    ck_assert(!atomic_load(&level));
    store(31, 4, 0x80000000);
    load(0, 1);
    ck_assert(atomic_load(&level));
}
END_TEST

START_TEST(test_reset_quiets_the_port)
{
    start_peer(PEER_WORKS);
    store(1, 1, 0xf);
    mmio_client_reset(client);
    ck_assert_uint_eq(load(1, 1), 0);
    ck_assert_uint_eq(atomic_load(&writes_taken), 5);
}
END_TEST

static void check_silent_device(void)
{
    ck_assert_uint_eq(load(0, 1), 0xff);
    ck_assert_uint_eq(load(0, 4), 0xffffffff);
    ck_assert_uint_eq(load(5, 1), 0x60);
    ck_assert_uint_eq(load(2, 1), 0x01);
}

START_TEST(test_dead_device_costs_one_deadline)
{
    atomic_store(&channel->irq_level, 1);
    atomic_store(&channel->shadow[5], 0);
    atomic_store(&channel->shadow_valid, 1u << 5);
    ck_assert_uint_eq(load(0, 1), 0xff);
    ck_assert_uint_eq(atomic_load(&timeouts), 1);
    ck_assert(!atomic_load(&level));
    mmio_client_update_irq(client);
    ck_assert(!atomic_load(&level));
    for (unsigned i = 0; i < 100000; i++) { /* a deadline each would be hours */
        check_silent_device();
        store(0, 1, i);
    }
    ck_assert_uint_eq(atomic_load(&timeouts), 1);
    ck_assert_uint_eq(atomic_load(&channel->head), MMIO_CHANNEL_RING);

    /* Its successor finds the writes, and is believed again. */
    atomic_store(&channel->shadow_valid, 0);
    start_peer(PEER_WORKS);
    for (unsigned i = 0; i < 2000 && load(9, 4) == 0xffffffff; i++) {
        usleep(1000);
    }
    store(9, 4, 5);
    for (unsigned i = 0; i < 2000 && load(9, 4) != 5; i++) {
        usleep(1000);
    }
    ck_assert_uint_eq(load(9, 4), 5);
    ck_assert(atomic_load(&level));
    ck_assert_uint_ge(atomic_load(&writes_taken), MMIO_CHANNEL_RING - 1);
}
END_TEST

/* A hung device that is replaced while a CPU waits for it: the guest gets the answer, and no write
 * is thrown away, however many came before. */
START_TEST(test_slow_device_is_told_before_the_deadline)
{
    replaced_when_slow = true;
    for (unsigned i = 0; i < MMIO_CHANNEL_RING; i++) {
        store(7, 4, i);
    }
    if (_i == 0) {
        store(7, 4, 12345);
    }
    ck_assert_uint_eq(load(7, 4), _i == 0 ? 12345 : MMIO_CHANNEL_RING - 1);
    ck_assert_uint_eq(atomic_load(&slow_calls), 1);
    ck_assert_uint_eq(atomic_load(&timeouts), 0);
    ck_assert_uint_eq(atomic_load(&writes_taken), MMIO_CHANNEL_RING + (_i == 0));
}
END_TEST

START_TEST(test_mute_device_costs_less_each_time)
{
    start_peer(_i == 0 ? PEER_IS_MUTE : PEER_ANSWERS_WRONG_ID);
    for (unsigned i = 0; i < 200; i++) {
        ck_assert_uint_eq(load(0, 1), 0xff);
        store(0, 1, 0); /* it moves, so it counts as back, so the next read waits again */
        usleep(100);
    }
    ck_assert_uint_eq(atomic_load(&timeouts), 1);
    atomic_store(&peer_mode, PEER_WORKS);
    atomic_store(&registers[3], 9);
    for (unsigned i = 0; i < 2000 && load(3, 1) != 9; i++) {
        store(0, 1, 0);
        usleep(1000);
    }
    ck_assert_uint_eq(load(3, 1), 9);
}
END_TEST

START_TEST(test_probe_finds_a_device_with_an_empty_ring)
{
    start_peer(PEER_IS_MUTE);
    ck_assert_uint_eq(load(3, 1), 0xff);
    atomic_store(&peer_mode, PEER_WORKS);
    atomic_store(&registers[3], 9);
    for (unsigned i = 0; i < 2000 && load(3, 1) != 9; i++) {
        usleep(1000);
    }
    ck_assert_uint_eq(load(3, 1), 9);
}
END_TEST

START_TEST(test_full_ring_waits_then_drops)
{
    for (unsigned i = 0; i < MMIO_CHANNEL_RING; i++) {
        store(0, 1, i);
    }
    ck_assert_uint_eq(atomic_load(&timeouts), 0);
    store(0, 1, 0);
    ck_assert_uint_eq(atomic_load(&timeouts), 1);
    for (unsigned i = 0; i < 100000; i++) {
        store(0, 1, 0);
    }
    check_silent_device();
    ck_assert_uint_eq(atomic_load(&channel->head), MMIO_CHANNEL_RING);
}
END_TEST

START_TEST(test_impossible_positions)
{
    const uint32_t positions[] = {1, 0x80000000, 0xffffffff - MMIO_CHANNEL_RING};
    for (unsigned i = 0; i < 3; i++) {
        atomic_store(&channel->tail, positions[i]);
        atomic_store(&channel->head, 77777); /* the page's copy is not believed */
        store(0, 1, 1);
        check_silent_device();
    }
    ck_assert_uint_eq(atomic_load(&timeouts), 1);
}
END_TEST

START_TEST(test_foreign_page_is_refused)
{
    struct mmio_channel *other = calloc(1, MMIO_STATE_SIZE);
    const struct mmio_client_config config = {.name = "x", .kind = "rtc", .channel = other};
    ck_assert_ptr_null(mmio_client_create(&config));
    ck_assert_int_eq(errno, EPROTO);
    free(other);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("mmio_channel_client");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, test_reads_follow_writes);
    tcase_add_test(cases, test_values_are_cut_to_size);
    tcase_add_test(cases, test_shadow_needs_no_device);
    tcase_add_test(cases, test_kick_only_when_the_device_sleeps);
    tcase_add_test(cases, test_shadow_waits_for_control_writes);
    tcase_add_test(cases, test_interrupt_level);
    tcase_add_test(cases, test_reset_quiets_the_port);
    tcase_add_test(cases, test_foreign_page_is_refused);
    tcase_add_loop_test(cases, test_slow_device_is_told_before_the_deadline, 0, 2);
    TCase *impatient = tcase_create("deadlines");
    tcase_add_checked_fixture(impatient, setup_impatient, teardown);
    tcase_set_timeout(impatient, 60);
    tcase_add_test(impatient, test_dead_device_costs_one_deadline);
    tcase_add_loop_test(impatient, test_mute_device_costs_less_each_time, 0, 2);
    tcase_add_test(impatient, test_probe_finds_a_device_with_an_empty_ring);
    tcase_add_test(impatient, test_full_ring_waits_then_drops);
    tcase_add_test(impatient, test_impossible_positions);
    Suite *suite = suite_create("mmio_channel_client");
    suite_add_tcase(suite, cases);
    suite_add_tcase(suite, impatient);
    return suite_run(suite);
}
