/* The PLIC: gateways, priorities, claim and complete, and hostile accesses. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/irqchip/plic.h"
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>

#define SOURCES  96
#define CONTEXTS 4

static _Atomic bool outputs[CONTEXTS];

static void set_output(void *controller, unsigned number, bool level)
{
    (void)controller;
    atomic_store(&outputs[number], level);
}

static struct plic *make(void)
{
    struct irq_line lines[CONTEXTS];
    for (unsigned i = 0; i < CONTEXTS; i++) {
        lines[i] = (struct irq_line){.set = set_output, .number = i};
        outputs[i] = false;
    }
    struct plic *plic = plic_create(SOURCES, CONTEXTS, lines);
    ck_assert_ptr_nonnull(plic);
    return plic;
}

static uint32_t get(struct plic *plic, uint64_t offset)
{
    uint64_t value = 0;
    ck_assert(plic_bus_ops.read(plic, offset, 4, &value));
    return (uint32_t)value;
}

static void put(struct plic *plic, uint64_t offset, uint32_t value)
{
    ck_assert(plic_bus_ops.write(plic, offset, 4, value));
}

static uint64_t priority(unsigned source)
{
    return source * 4;
}

static uint64_t enable(unsigned context, unsigned word)
{
    return 0x2000 + context * 0x80 + word * 4;
}

static uint64_t threshold(unsigned context)
{
    return 0x200000 + context * 0x1000;
}

static uint64_t claim(unsigned context)
{
    return threshold(context) + 4;
}

START_TEST(a_level_reaches_the_contexts_that_enable_it)
{
    struct plic *plic = make();
    put(plic, priority(10), 1);
    put(plic, enable(1, 0), 1u << 10);
    plic_set_source(plic, 10, true);
    ck_assert(!outputs[0] && outputs[1] && !outputs[2]);
    ck_assert_uint_eq(get(plic, 0x1000), 1u << 10);
    plic_set_source(plic, 10, false);
    ck_assert(!outputs[1]);
    ck_assert_uint_eq(get(plic, 0x1000), 0);
    plic_destroy(plic);
}
END_TEST

START_TEST(claim_hides_a_level_until_complete)
{
    struct plic *plic = make();
    put(plic, priority(33), 3);
    put(plic, enable(1, 1), 1u << 1);
    plic_set_source(plic, 33, true);
    ck_assert_uint_eq(get(plic, claim(1)), 33);
    ck_assert(!outputs[1]);
    ck_assert_uint_eq(get(plic, claim(1)), 0);
    put(plic, claim(1), 33);
    ck_assert(outputs[1]); /* the level is still up */
    ck_assert_uint_eq(get(plic, claim(1)), 33);
    plic_set_source(plic, 33, false);
    put(plic, claim(1), 33);
    ck_assert(!outputs[1]);
    plic_destroy(plic);
}
END_TEST

START_TEST(the_highest_priority_is_claimed_first_then_the_lowest_number)
{
    struct plic *plic = make();
    static const unsigned sources[] = {5, 7, 40, 96};
    static const unsigned priorities[] = {2, 2, 7, 1};
    static const unsigned order[] = {40, 5, 7, 96, 0};
    for (unsigned i = 0; i < 4; i++) {
        put(plic, priority(sources[i]), priorities[i]);
        plic_set_source(plic, sources[i], true);
    }
    for (unsigned word = 0; word < 4; word++) {
        put(plic, enable(3, word), ~0u);
    }
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(get(plic, claim(3)), order[i]);
    }
    plic_destroy(plic);
}
END_TEST

START_TEST(thresholds_hold_back_the_line_but_not_the_claim)
{
    struct plic *plic = make();
    put(plic, priority(1), 3);
    put(plic, enable(0, 0), 2);
    put(plic, threshold(0), 3);
    plic_set_source(plic, 1, true);
    ck_assert(!outputs[0]);
    put(plic, threshold(0), 2);
    ck_assert(outputs[0]);
    put(plic, threshold(0), 7);
    ck_assert(!outputs[0]);
    ck_assert_uint_eq(get(plic, claim(0)), 1);
    plic_destroy(plic);
}
END_TEST

START_TEST(priority_zero_means_never)
{
    struct plic *plic = make();
    put(plic, enable(0, 0), 2);
    plic_set_source(plic, 1, true);
    ck_assert(!outputs[0]);
    ck_assert_uint_eq(get(plic, claim(0)), 0);
    put(plic, priority(1), 9); /* three bits: 1 */
    ck_assert_uint_eq(get(plic, priority(1)), 1);
    ck_assert(outputs[0]);
    plic_destroy(plic);
}
END_TEST

START_TEST(completion_of_what_is_not_enabled_is_ignored)
{
    struct plic *plic = make();
    put(plic, priority(1), 1);
    put(plic, enable(0, 0), 2);
    plic_set_source(plic, 1, true);
    ck_assert_uint_eq(get(plic, claim(0)), 1);
    put(plic, claim(1), 1); /* another context, which has not enabled it */
    ck_assert(!outputs[0]);
    put(plic, claim(0), 0);
    put(plic, claim(0), 97);
    put(plic, claim(0), ~0u);
    ck_assert(!outputs[0]);
    put(plic, claim(0), 1);
    ck_assert(outputs[0]);
    plic_destroy(plic);
}
END_TEST

START_TEST(one_source_goes_to_one_of_several_contexts)
{
    struct plic *plic = make();
    put(plic, priority(8), 1);
    put(plic, enable(1, 0), 1u << 8);
    put(plic, enable(3, 0), 1u << 8);
    plic_set_source(plic, 8, true);
    ck_assert(outputs[1] && outputs[3]);
    ck_assert_uint_eq(get(plic, claim(3)), 8);
    ck_assert(!outputs[1] && !outputs[3]);
    ck_assert_uint_eq(get(plic, claim(1)), 0);
    plic_destroy(plic);
}
END_TEST

START_TEST(hostile_accesses_do_no_harm)
{
    struct plic *plic = make();
    uint64_t value;
    static const unsigned sizes[] = {1, 2, 8};
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(!plic_bus_ops.read(plic, 0, sizes[i], &value));
        ck_assert(!plic_bus_ops.write(plic, 0, sizes[i], 0));
    }
    ck_assert(!plic_bus_ops.read(plic, 2, 4, &value));
    for (uint64_t offset = 0; offset < PLIC_SIZE; offset += offset % 0x1000 < 0x200 ? 4 : 0x200) {
        put(plic, offset, ~0u);
        get(plic, offset);
    }
    plic_set_source(plic, 0, true);
    plic_set_source(plic, 97, true);
    plic_set_source(plic, ~0u, true);
    ck_assert_uint_eq(get(plic, 0), 0); /* source 0 does not exist */
    ck_assert_uint_eq(get(plic, enable(0, 0)), ~1u);
    ck_assert_uint_eq(get(plic, enable(0, 3)), 1);
    ck_assert_uint_eq(get(plic, 0x1000), 0);
    plic_destroy(plic);
    ck_assert_ptr_null(plic_create(0, 1, NULL));
    ck_assert_ptr_null(plic_create(PLIC_SOURCES_MAX + 1, 1, NULL));
    ck_assert_ptr_null(plic_create(1, PLIC_CONTEXTS_MAX + 1, NULL));
}
END_TEST

START_TEST(reset_forgets_all_but_the_levels)
{
    struct plic *plic = make();
    put(plic, priority(10), 1);
    put(plic, enable(1, 0), 1u << 10);
    plic_set_source(plic, 10, true);
    ck_assert_uint_eq(get(plic, claim(1)), 10);
    plic_reset(plic);
    ck_assert(!outputs[1]);
    ck_assert_uint_eq(get(plic, priority(10)), 0);
    ck_assert_uint_eq(get(plic, enable(1, 0)), 0);
    put(plic, priority(10), 1);
    put(plic, enable(1, 0), 1u << 10);
    ck_assert(outputs[1]);
    plic_destroy(plic);
}
END_TEST

#define ROUNDS 20000

static void *toggle(void *argument)
{
    struct plic *plic = argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        plic_set_source(plic, 1 + i % SOURCES, i & 1);
    }
    return NULL;
}

static void *serve(void *argument)
{
    struct plic *plic = argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t source = get(plic, claim(1));
        put(plic, claim(1), source);
    }
    return NULL;
}

START_TEST(devices_and_cpus_at_once_leave_it_consistent)
{
    struct plic *plic = make();
    for (unsigned i = 1; i <= SOURCES; i++) {
        put(plic, priority(i), 1);
    }
    for (unsigned word = 0; word < 4; word++) {
        put(plic, enable(1, word), ~0u);
    }
    pthread_t threads[3];
    pthread_create(&threads[0], NULL, toggle, plic);
    pthread_create(&threads[1], NULL, serve, plic);
    pthread_create(&threads[2], NULL, serve, plic);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    for (unsigned i = 1; i <= SOURCES; i++) {
        plic_set_source(plic, i, false);
    }
    ck_assert(!outputs[1]);
    plic_set_source(plic, 50, true);
    ck_assert(outputs[1]);
    ck_assert_uint_eq(get(plic, claim(1)), 50);
    plic_destroy(plic);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plic");
    TCase *tests = tcase_create("plic");
    tcase_add_test(tests, a_level_reaches_the_contexts_that_enable_it);
    tcase_add_test(tests, claim_hides_a_level_until_complete);
    tcase_add_test(tests, the_highest_priority_is_claimed_first_then_the_lowest_number);
    tcase_add_test(tests, thresholds_hold_back_the_line_but_not_the_claim);
    tcase_add_test(tests, priority_zero_means_never);
    tcase_add_test(tests, completion_of_what_is_not_enabled_is_ignored);
    tcase_add_test(tests, one_source_goes_to_one_of_several_contexts);
    tcase_add_test(tests, hostile_accesses_do_no_harm);
    tcase_add_test(tests, reset_forgets_all_but_the_levels);
    tcase_add_test(tests, devices_and_cpus_at_once_leave_it_consistent);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
