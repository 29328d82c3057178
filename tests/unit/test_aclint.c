/* The ACLINT and the timers behind it: software interrupts, comparators, the clock. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/irqchip/aclint.h"
#include <check.h>
#include <pthread.h>
#include <unistd.h>

#define HARTS 2

/* Lines: comparators of hart h at 2h and 2h + 1 (the ACLINT's), software interrupts at 8 + h. */
static _Atomic bool lines[16];

static void set_line(void *controller, unsigned number, bool level)
{
    (void)controller;
    atomic_store(&lines[number], level);
}

static struct guest_clock guest_clock;
static struct timers *timers;
static struct aclint *aclint;

static void setup(void)
{
    struct irq_line comparators[HARTS * 2];
    struct aclint_config config = {
        .clock = &guest_clock, .first_timer = 1, .timer_stride = 2, .harts = HARTS};
    for (unsigned i = 0; i < 16; i++) {
        lines[i] = false;
    }
    for (unsigned i = 0; i < HARTS * 2; i++) {
        comparators[i] = (struct irq_line){.set = set_line, .number = i};
    }
    for (unsigned i = 0; i < HARTS; i++) {
        config.software[i] = (struct irq_line){.set = set_line, .number = 8 + i};
    }
    guest_clock_set(&guest_clock, 0);
    timers = timers_create(&guest_clock, HARTS * 2, comparators);
    ck_assert_ptr_nonnull(timers);
    config.timers = timers;
    aclint = aclint_create(&config);
    ck_assert_ptr_nonnull(aclint);
}

static void teardown(void)
{
    timers_destroy(timers);
    aclint_destroy(aclint);
}

static uint64_t get(uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    ck_assert(aclint_bus_ops.read(aclint, offset, size, &value));
    return value;
}

static void put(uint64_t offset, unsigned size, uint64_t value)
{
    ck_assert(aclint_bus_ops.write(aclint, offset, size, value));
}

/* Lines are raised by the timer thread: wait for it, however slow the host is. */
static void wait_for(unsigned line)
{
    while (!atomic_load(&lines[line])) {
        usleep(200);
    }
}

START_TEST(software_interrupts_follow_bit_0)
{
    put(0, 4, 0xffffffff);
    ck_assert(lines[8] && !lines[9]);
    ck_assert_uint_eq(get(0, 4), 1);
    put(4, 4, 1);
    ck_assert(lines[9]);
    put(0, 4, 0xfffffffe);
    ck_assert(!lines[8] && lines[9]);
    put(8, 4, 1); /* no such hart */
    ck_assert_uint_eq(get(8, 4), 0);
}
END_TEST

START_TEST(a_passed_deadline_raises_the_line_at_once)
{
    put(ACLINT_MTIMECMP + 8, 8, 0);
    ck_assert(lines[3]);
    put(ACLINT_MTIMECMP + 8, 8, UINT64_MAX);
    ck_assert(!lines[3]);
    timers_set(timers, 0, guest_clock_ticks(&guest_clock));
    ck_assert(lines[0]);
    timers_set(timers, 0, TIMER_NEVER);
    ck_assert(!lines[0]);
    timers_set(timers, HARTS * 2, 0); /* out of range */
}
END_TEST

START_TEST(deadlines_are_met_in_any_order_and_never_early)
{
    uint64_t now = guest_clock_ticks(&guest_clock);
    static const unsigned after_ms[HARTS * 2] = {30, 10, 40, 20};
    for (unsigned i = 0; i < HARTS * 2; i++) {
        timers_set(timers, i, now + after_ms[i] * (GUEST_CLOCK_HZ / 1000));
    }
    static const unsigned order[] = {1, 3, 0, 2};
    for (unsigned i = 0; i < HARTS * 2; i++) {
        wait_for(order[i]);
        ck_assert_uint_ge(guest_clock_ticks(&guest_clock) - now,
                          after_ms[order[i]] * (GUEST_CLOCK_HZ / 1000));
    }
}
END_TEST

START_TEST(a_deadline_can_move_both_ways)
{
    uint64_t far = guest_clock_ticks(&guest_clock) + 1000ull * GUEST_CLOCK_HZ;
    timers_set(timers, 0, far);
    ck_assert(!lines[0]);
    timers_set(timers, 0, guest_clock_ticks(&guest_clock) + GUEST_CLOCK_HZ / 500);
    wait_for(0);
    timers_set(timers, 0, far);
    ck_assert(!lines[0]);
    timers_set(timers, 0, UINT64_MAX - 1); /* further than the host can count */
    ck_assert(!lines[0]);
    timers_set(timers, 1, guest_clock_ticks(&guest_clock) + GUEST_CLOCK_HZ / 500);
    wait_for(1);
    ck_assert(!lines[0]);
}
END_TEST

START_TEST(halves_of_a_comparator_are_written_apart)
{
    put(ACLINT_MTIMECMP, 8, UINT64_MAX);
    put(ACLINT_MTIMECMP, 4, 0x11223344);
    ck_assert_uint_eq(get(ACLINT_MTIMECMP, 8), 0xffffffff11223344);
    put(ACLINT_MTIMECMP + 4, 4, 0x55667788);
    ck_assert_uint_eq(get(ACLINT_MTIMECMP, 8), 0x5566778811223344);
    ck_assert_uint_eq(get(ACLINT_MTIMECMP + 4, 4), 0x55667788);
    ck_assert(!lines[1]);
    put(ACLINT_MTIMECMP + 4, 4, 0);
    put(ACLINT_MTIMECMP, 4, 0);
    ck_assert(lines[1]);
}
END_TEST

START_TEST(the_clock_runs_and_can_be_set)
{
    uint64_t first = get(ACLINT_MTIME, 8);
    ck_assert_uint_ge(get(ACLINT_MTIME, 8), first);
    put(ACLINT_MTIMECMP, 8, 1ull << 40);
    ck_assert(!lines[1]);
    put(ACLINT_MTIME, 8, 1ull << 40); /* the clock jumps past the deadline */
    ck_assert(lines[1]);
    ck_assert_uint_ge(get(ACLINT_MTIME, 8), 1ull << 40);
    ck_assert_uint_eq(get(ACLINT_MTIME + 4, 4), 1u << 8);
    put(ACLINT_MTIME, 8, 0); /* and back */
    ck_assert(!lines[1]);
    ck_assert_uint_lt(get(ACLINT_MTIME, 8), 1ull << 40);
}
END_TEST

START_TEST(reset_lowers_everything)
{
    put(0, 4, 1);
    put(ACLINT_MTIMECMP, 8, 0);
    ck_assert(lines[8] && lines[1]);
    aclint_reset(aclint);
    ck_assert(!lines[8] && !lines[1]);
    ck_assert_uint_eq(get(ACLINT_MTIMECMP, 8), UINT64_MAX);
}
END_TEST

START_TEST(hostile_accesses_do_no_harm)
{
    uint64_t value;
    ck_assert(!aclint_bus_ops.read(aclint, 0, 8, &value));
    ck_assert(!aclint_bus_ops.read(aclint, 1, 4, &value));
    ck_assert(!aclint_bus_ops.read(aclint, ACLINT_MTIMECMP + 4, 8, &value));
    ck_assert(!aclint_bus_ops.write(aclint, ACLINT_MTIME, 2, 0));
    ck_assert(!aclint_bus_ops.write(aclint, ACLINT_MTIME, 1, 0));
    for (uint64_t offset = 0; offset < ACLINT_SIZE; offset += 4) {
        put(offset, 4, 0xffffffff);
        get(offset, 4);
    }
    for (uint64_t offset = ACLINT_MTIMECMP; offset < ACLINT_SIZE; offset += 8) {
        put(offset, 8, UINT64_MAX);
        get(offset, 8);
    }
    ck_assert_ptr_null(timers_create(&guest_clock, 0, NULL));
    ck_assert_ptr_null(timers_create(&guest_clock, TIMERS_MAX + 1, NULL));
}
END_TEST

static void *hammer(void *argument)
{
    unsigned index = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < 5000; i++) {
        timers_set(timers, index, guest_clock_ticks(&guest_clock) + i % 50);
        if (i % 100 == 0) {
            wait_for(index);
        }
    }
    return NULL;
}

/* --- a clock that somebody else drives ------------------------------------------------------ */
static uint64_t driven_ticks(void *context)
{
    return *(uint64_t *)context;
}

START_TEST(a_driven_clock_fires_timers_when_it_is_polled)
{
    uint64_t now = 1000;
    struct guest_clock clock = {.source = driven_ticks, .source_context = &now};
    const struct irq_line comparators[] = {{.set = set_line, .number = 0},
                                           {.set = set_line, .number = 1}};
    guest_clock_set(&clock, 0);
    struct timers *driven = timers_create(&clock, 2, comparators);
    ck_assert_ptr_nonnull(driven);
    ck_assert_uint_eq(timers_poll(driven), TIMER_NEVER);
    timers_set(driven, 0, 50);
    timers_set(driven, 1, 70);
    ck_assert_uint_eq(timers_poll(driven), 50);
    now += 50;
    ck_assert_uint_eq(guest_clock_ticks(&clock), 50);
    ck_assert(!lines[0]);
    ck_assert_uint_eq(timers_poll(driven), 70);
    ck_assert(lines[0] && !lines[1]);
    timers_set(driven, 0, 60);
    ck_assert(!lines[0]);
    ck_assert_uint_eq(timers_poll(driven), 60);
    guest_clock_set(&clock, 100);
    timers_clock_changed(driven);
    ck_assert(lines[0] && lines[1]);
    ck_assert_uint_eq(timers_poll(driven), TIMER_NEVER);
    timers_reset(driven);
    ck_assert(!lines[0] && !lines[1]);
    timers_destroy(driven);
}
END_TEST

START_TEST(no_deadline_is_lost_when_several_harts_set_theirs)
{
    pthread_t threads[HARTS * 2];
    for (uintptr_t i = 0; i < HARTS * 2; i++) {
        pthread_create(&threads[i], NULL, hammer, (void *)i);
    }
    for (unsigned i = 0; i < HARTS * 2; i++) {
        pthread_join(threads[i], NULL);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("aclint");
    TCase *tests = tcase_create("aclint");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, software_interrupts_follow_bit_0);
    tcase_add_test(tests, a_passed_deadline_raises_the_line_at_once);
    tcase_add_test(tests, deadlines_are_met_in_any_order_and_never_early);
    tcase_add_test(tests, a_deadline_can_move_both_ways);
    tcase_add_test(tests, halves_of_a_comparator_are_written_apart);
    tcase_add_test(tests, the_clock_runs_and_can_be_set);
    tcase_add_test(tests, reset_lowers_everything);
    tcase_add_test(tests, hostile_accesses_do_no_harm);
    tcase_add_test(tests, no_deadline_is_lost_when_several_harts_set_theirs);
    tcase_add_test(tests, a_driven_clock_fires_timers_when_it_is_polled);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
