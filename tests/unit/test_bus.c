/* The bus: overlap, borders, backgrounds, and BARs that move while other threads read them. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/machine/bus.h"
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

struct echo {
    uint64_t tag;
    uint64_t size;
    _Atomic bool gone; /* set once the region was removed: no access may come any more */
    _Atomic unsigned violations;
    uint64_t last_offset, last_value;
    unsigned last_size;
};

static bool echo_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct echo *echo = device;
    if (atomic_load(&echo->gone) || offset + size > echo->size) {
        atomic_fetch_add(&echo->violations, 1);
    }
    *value = echo->tag + offset;
    return true;
}

static bool echo_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct echo *echo = device;
    echo->last_offset = offset;
    echo->last_size = size;
    echo->last_value = value;
    return value != 0xbad;
}

static const struct bus_ops ECHO_OPS = {.read = echo_read, .write = echo_write};

START_TEST(test_overlap_is_refused)
{
    struct bus *bus = bus_create();
    struct echo echo = {.size = 0x1000};
    ck_assert_int_eq(bus_add(bus, 0x10000, 0x1000, "a", &ECHO_OPS, &echo), 0);
    ck_assert_int_eq(bus_add(bus, 0x10000, 0x1000, "b", &ECHO_OPS, &echo), -EEXIST);
    ck_assert_int_eq(bus_add(bus, 0x10fff, 1, "b", &ECHO_OPS, &echo), -EEXIST);
    ck_assert_int_eq(bus_add(bus, 0xffff, 2, "b", &ECHO_OPS, &echo), -EEXIST);
    ck_assert_int_eq(bus_add(bus, 0x8000, 0x10000, "b", &ECHO_OPS, &echo), -EEXIST);
    ck_assert_int_eq(bus_add(bus, 0xf000, 0x1000, "b", &ECHO_OPS, &echo), 0);
    ck_assert_int_eq(bus_add(bus, 0x11000, 0x1000, "b", &ECHO_OPS, &echo), 0);
    ck_assert_int_eq(bus_add(bus, UINT64_MAX - 4, 16, "b", &ECHO_OPS, &echo), -EINVAL);
    ck_assert_int_eq(bus_add(bus, 0x20000, 0, "b", &ECHO_OPS, &echo), -EINVAL);
    bus_destroy(bus);
}
END_TEST

START_TEST(test_access_finds_region_and_stays_inside)
{
    struct bus *bus = bus_create();
    struct echo low = {.tag = 0x100, .size = 0x10}, high = {.tag = 0x200, .size = 0x10};
    uint64_t value = 0;
    ck_assert_int_eq(bus_add(bus, 0x2000, 0x10, "high", &ECHO_OPS, &high), 0);
    ck_assert_int_eq(bus_add(bus, 0x1000, 0x10, "low", &ECHO_OPS, &low), 0);
    ck_assert(bus_read(bus, 0x1008, 8, &value));
    ck_assert_uint_eq(value, 0x108);
    ck_assert(bus_read(bus, 0x200f, 1, &value));
    ck_assert_uint_eq(value, 0x20f);
    ck_assert(!bus_read(bus, 0x200f, 2, &value));
    ck_assert(!bus_read(bus, 0x2010, 1, &value));
    ck_assert(!bus_read(bus, 0xfff, 1, &value));
    ck_assert(!bus_read(bus, UINT64_MAX, 1, &value));
    ck_assert(bus_write(bus, 0x1004, 4, 77));
    ck_assert_uint_eq(low.last_offset, 4);
    ck_assert_uint_eq(low.last_size, 4);
    ck_assert_uint_eq(low.last_value, 77);
    ck_assert(!bus_write(bus, 0x1004, 4, 0xbad));
    bus_destroy(bus);
}
END_TEST

START_TEST(test_remove_and_add_again)
{
    struct bus *bus = bus_create();
    struct echo a = {.tag = 1, .size = 0x100}, b = {.tag = 2, .size = 0x100};
    uint64_t value;
    ck_assert_int_eq(bus_add(bus, 0x1000, 0x100, "a", &ECHO_OPS, &a), 0);
    ck_assert_int_eq(bus_add(bus, 0x2000, 0x100, "b", &ECHO_OPS, &b), 0);
    ck_assert_int_eq(bus_remove(bus, 0x1000, &b), -ENOENT);
    ck_assert_int_eq(bus_remove(bus, 0x1008, &a), -ENOENT);
    ck_assert(bus_read(bus, 0x1000, 4, &value));
    ck_assert_int_eq(bus_remove(bus, 0x1000, &a), 0);
    ck_assert_int_eq(bus_remove(bus, 0x1000, &a), -ENOENT);
    ck_assert(!bus_read(bus, 0x1000, 4, &value));
    /* Onto a range that overlaps its own old place. */
    ck_assert_int_eq(bus_add(bus, 0x1080, 0x100, "a", &ECHO_OPS, &a), 0);
    ck_assert(bus_read(bus, 0x1100, 4, &value));
    bus_destroy(bus);
}
END_TEST

START_TEST(test_table_fills_up)
{
    struct bus *bus = bus_create();
    struct echo echo = {.size = 0x10};
    int result = 0;
    uint64_t base = 0;
    while (result == 0) {
        base += 0x10;
        result = bus_add(bus, base, 0x10, "many", &ECHO_OPS, &echo);
    }
    ck_assert_int_eq(result, -ENOMEM);
    ck_assert_int_eq(bus_remove(bus, 0x10, &echo), 0);
    ck_assert_int_eq(bus_add(bus, base, 0x10, "many", &ECHO_OPS, &echo), 0);
    bus_destroy(bus);
}
END_TEST

START_TEST(test_background_answers_where_nobody_is)
{
    struct bus *bus = bus_create();
    struct echo window = {.tag = 0x5000, .size = 0x10000}, bar = {.tag = 0x1, .size = 0x100};
    uint64_t value;
    ck_assert_int_eq(bus_add_background(bus, 0x40000, 0x10000, "window", &ECHO_OPS, &window), 0);
    ck_assert_int_eq(bus_add(bus, 0x41000, 0x100, "bar", &ECHO_OPS, &bar), 0);
    ck_assert(bus_read(bus, 0x41000, 1, &value));
    ck_assert_uint_eq(value, 1);
    ck_assert(bus_read(bus, 0x41100, 1, &value));
    ck_assert_uint_eq(value, 0x5000 + 0x1100);
    ck_assert(bus_read(bus, 0x40000, 8, &value));
    ck_assert(!bus_read(bus, 0x4ffff, 2, &value));
    bus_destroy(bus);
}
END_TEST

#define PLACES     8
#define READERS    2
#define MOVE_TURNS 3000

struct race {
    struct bus *bus;
    _Atomic bool stop;
    struct echo fixed;
    _Atomic unsigned wrong;
};

/* The moving device answers with its tag; the fixed one must always be found. */
static void *race_reader(void *argument)
{
    struct race *race = argument;
    while (!atomic_load(&race->stop)) {
        uint64_t value = 0;
        if (!bus_read(race->bus, 0x100000, 4, &value) || value != race->fixed.tag) {
            atomic_fetch_add(&race->wrong, 1);
        }
        for (unsigned place = 0; place < PLACES; place++) {
            uint64_t offset = 0x10 * place;
            if (bus_read(race->bus, 0x1000 * (place + 1) + offset, 8, &value) &&
                value != 0xabc000 + offset) {
                atomic_fetch_add(&race->wrong, 1);
            }
        }
    }
    return NULL;
}

START_TEST(test_readers_race_with_moves)
{
    struct race race = {.bus = bus_create(), .fixed = {.tag = 42, .size = 0x1000}};
    struct echo moving = {.tag = 0xabc000, .size = 0x1000};
    ck_assert_int_eq(bus_add(race.bus, 0x100000, 0x1000, "fixed", &ECHO_OPS, &race.fixed), 0);
    ck_assert_int_eq(bus_add(race.bus, 0x1000, 0x1000, "moving", &ECHO_OPS, &moving), 0);
    pthread_t readers[READERS];
    for (unsigned i = 0; i < READERS; i++) {
        ck_assert_int_eq(pthread_create(&readers[i], NULL, race_reader, &race), 0);
    }
    uint64_t base = 0x1000;
    for (unsigned turn = 0; turn < MOVE_TURNS; turn++) {
        uint64_t next = 0x1000 * (turn % PLACES + 1);
        ck_assert_int_eq(bus_remove(race.bus, base, &moving), 0);
        if (turn % 3 == 0) {
            bus_drain(race.bus, &moving);
            atomic_store(&moving.gone, true);  /* no reader may be inside, nor come, from here... */
            atomic_store(&moving.gone, false); /* ...to here */
        }
        ck_assert_int_eq(bus_add(race.bus, next, 0x1000, "moving", &ECHO_OPS, &moving), 0);
        base = next;
    }
    atomic_store(&race.stop, true);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i], NULL);
    }
    ck_assert_uint_eq(atomic_load(&race.wrong), 0);
    ck_assert_uint_eq(atomic_load(&moving.violations), 0);
    bus_destroy(race.bus);
}
END_TEST

/* ---- An access that takes its time ---- */

struct slow {
    _Atomic bool inside, go;
};

static bool slow_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct slow *slow = device;
    (void)size;
    atomic_store(&slow->inside, true);
    while (!atomic_load(&slow->go)) {
        sched_yield();
    }
    *value = offset;
    return true;
}

static const struct bus_ops SLOW_OPS = {.read = slow_read};

struct slow_access {
    struct bus *bus;
    uint64_t value;
};

static void *slow_reader(void *argument)
{
    struct slow_access *access = argument;
    ck_assert(bus_read(access->bus, 0x1008, 4, &access->value));
    return NULL;
}

/* A CPU stands in a region, waiting for a device: the region is moved all the same, as often as the
 * guest likes; only who frees what is behind it waits. */
START_TEST(test_nobody_waits_for_an_access_but_drain)
{
    struct bus *bus = bus_create();
    struct slow slow = {false};
    struct slow_access access = {.bus = bus};
    pthread_t reader;
    ck_assert_int_eq(bus_add(bus, 0x1000, 0x100, "slow", &SLOW_OPS, &slow), 0);
    ck_assert_int_eq(pthread_create(&reader, NULL, slow_reader, &access), 0);
    while (!atomic_load(&slow.inside)) {
        sched_yield();
    }
    for (uint64_t base = 0x1000; base < 0x1000 + 1000 * 0x100; base += 0x100) {
        ck_assert_int_eq(bus_remove(bus, base, &slow), 0);
        ck_assert_int_eq(bus_add(bus, base + 0x100, 0x100, "slow", &SLOW_OPS, &slow), 0);
    }
    ck_assert_int_eq(bus_remove(bus, 0x1000 + 1000 * 0x100, &slow), 0);
    atomic_store(&slow.go, true);
    bus_drain(bus, &slow);
    pthread_join(reader, NULL);
    ck_assert_uint_eq(access.value, 8);
    bus_destroy(bus);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("bus");
    tcase_add_test(cases, test_overlap_is_refused);
    tcase_add_test(cases, test_access_finds_region_and_stays_inside);
    tcase_add_test(cases, test_remove_and_add_again);
    tcase_add_test(cases, test_table_fills_up);
    tcase_add_test(cases, test_background_answers_where_nobody_is);
    tcase_add_test(cases, test_readers_race_with_moves);
    tcase_add_test(cases, test_nobody_waits_for_an_access_but_drain);
    tcase_set_timeout(cases, 60);
    Suite *suite = suite_create("bus");
    suite_add_tcase(suite, cases);
    return suite_run(suite);
}
