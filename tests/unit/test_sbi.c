/* The built-in firmware: each call's results and effects, and arguments no kernel should send. */
#include "tests/unit/suite.h"
#include "tests/unit/test_machine.h"
#include <pthread.h>
#include <stdlib.h>

#define CPUS 4

enum { BASE = 0x10, TIME = 0x54494d45, IPI = 0x735049, RFENCE = 0x52464e43, HSM = 0x48534d };
enum { SRST = 0x53525354, DBCN = 0x4442434e, PMU = 0x504d55, SUSP = 0x53555350 };
enum { FAILED = -1, NOT_SUPPORTED = -2, INVALID_PARAM = -3, INVALID_ADDRESS = -5 };
enum { ALREADY_AVAILABLE = -6 };

/* csrr-free code for started harts: store a1 at a0 * 8 + 0x80300000, then wait for ever. */
static const uint32_t code[] = {
    0x00351293, /* slli t0, a0, 3 */
    0x80300337, /* lui t1, 0x80300 */
    0x02031313, /* slli t1, t1, 32 */
    0x02035313, /* srli t1, t1, 32 */
    0x006282b3, /* add t0, t0, t1 */
    0x00b2b023, /* sd a1, 0(t0) */
    0x10500073, /* wfi */
    0xffdff06f, /* j -4 */
};
#define MAILBOX 0x80300000ull

static struct test_machine test;
static pthread_t threads[CPUS];

static void *run(void *argument)
{
    unsigned index = (unsigned)(uintptr_t)argument;
    enum engine_exit why = test.machine->model->run_cpu(test.machine, index);
    ck_assert_int_eq(why, ENGINE_EXIT_STOP);
    return NULL;
}

/* Hart 0 is the test itself; the others wait in their threads until they are started. */
static void setup(void)
{
    test_machine_open(&test, CPUS, code, sizeof(code));
    for (uintptr_t i = 1; i < CPUS; i++) {
        pthread_create(&threads[i], NULL, run, (void *)i);
    }
}

static void teardown(void)
{
    for (unsigned i = 1; i < CPUS; i++) {
        engine_kick(&test_cpu(&test, i)->cpu, CPU_ATTENTION_STOP);
    }
    for (unsigned i = 1; i < CPUS; i++) {
        pthread_join(threads[i], NULL);
    }
    test_machine_close(&test);
}

static uint64_t value;

static int64_t call(uint64_t extension, uint64_t function, uint64_t a0, uint64_t a1, uint64_t a2,
                    uint64_t a3, uint64_t a4)
{
    struct riscv64_cpu *cpu = test_cpu(&test, 0);
    const uint64_t arguments[] = {a0, a1, a2, a3, a4};
    memcpy(&cpu->x[10], arguments, sizeof(arguments));
    cpu->x[16] = function;
    cpu->x[17] = extension;
    ck_assert(cpu->cpu.host->firmware_call(&cpu->cpu));
    value = cpu->x[11];
    return (int64_t)cpu->x[10];
}

#define CALL3(extension, function, a, b, c) call(extension, function, a, b, c, 0, 0)
#define CALL2(extension, function, a, b)    CALL3(extension, function, a, b, 0)
#define CALL1(extension, function, a)       CALL3(extension, function, a, 0, 0)
#define CALL0(extension, function)          CALL3(extension, function, 0, 0, 0)

START_TEST(base_says_what_there_is)
{
    ck_assert_int_eq(CALL0(BASE, 0), 0);
    ck_assert_uint_eq(value, 2u << 24);
    static const uint64_t present[] = {BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN};
    for (size_t i = 0; i < sizeof(present) / sizeof(present[0]); i++) {
        ck_assert_int_eq(CALL1(BASE, 3, present[i]), 0);
        ck_assert_uint_eq(value, 1);
    }
    static const uint64_t absent[] = {PMU, SUSP, 0x43505043, 0x535441, 0x4e41434c, ~0ull};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
        ck_assert_int_eq(CALL1(BASE, 3, absent[i]), 0);
        ck_assert_uint_eq(value, 0);
        ck_assert_int_eq(CALL0(absent[i], 0), NOT_SUPPORTED);
    }
    for (uint64_t function = 1; function <= 6; function++) {
        ck_assert_int_eq(CALL0(BASE, function), 0);
    }
    ck_assert_int_eq(CALL0(BASE, 7), NOT_SUPPORTED);
    static const uint64_t known[] = {TIME, IPI, RFENCE, HSM, SRST, DBCN};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        ck_assert_int_eq(CALL0(known[i], 1000), NOT_SUPPORTED);
    }
}
END_TEST

START_TEST(set_timer_raises_and_lowers_the_supervisor_timer)
{
    struct riscv64_cpu *cpu = test_cpu(&test, 0);
    const uint64_t bit = 1u << RISCV64_IRQ_STIMER;
    ck_assert_int_eq(CALL1(TIME, 0, 0), 0);
    ck_assert(atomic_load(&cpu->lines) & bit);
    ck_assert_int_eq(CALL1(TIME, 0, UINT64_MAX), 0);
    ck_assert(!(atomic_load(&cpu->lines) & bit));
    ck_assert_uint_eq(cpu->csr.stimecmp, UINT64_MAX);
    ck_assert_int_eq(CALL1(0, 0, 0), 0); /* legacy */
    ck_assert(atomic_load(&cpu->lines) & bit);
}
END_TEST

static bool software_pending(unsigned index)
{
    return atomic_load(&test_cpu(&test, index)->lines) & 1u << RISCV64_IRQ_SSOFT;
}

START_TEST(ipis_reach_exactly_the_named_harts)
{
    ck_assert_int_eq(CALL2(IPI, 0, 0b101, 1), 0);
    ck_assert(!software_pending(0) && software_pending(1) && !software_pending(2) &&
              software_pending(3));
    ck_assert_int_eq(CALL2(IPI, 0, 0, UINT64_MAX), 0); /* all */
    ck_assert(software_pending(0) && software_pending(2));
    ck_assert_int_eq(CALL2(IPI, 0, 0, 77), 0); /* none */
}
END_TEST

START_TEST(hart_masks_are_validated)
{
    static const uint64_t bad[][2] = {
        {1, CPUS}, {0b11, CPUS - 1}, {1ull << 63, 0}, {1ull << 63, 3}, {1, 1ull << 63}, {~0ull, 0},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(CALL2(IPI, 0, bad[i][0], bad[i][1]), INVALID_PARAM);
        for (uint64_t function = 0; function < 3; function++) {
            ck_assert_int_eq(call(RFENCE, function, bad[i][0], bad[i][1], 0, 4096, 0),
                             INVALID_PARAM);
        }
    }
    for (unsigned i = 0; i < CPUS; i++) {
        ck_assert(!software_pending(i));
    }
}
END_TEST

START_TEST(remote_fences_return)
{
    static const uint64_t ranges[][2] = {
        {0, 0},
        {0, UINT64_MAX},
        {0x1000, 0x1000},
        {0x1234, 1},
        {~0ull, ~0ull},
        {0x1000, 0},
        {0xffffffff80000000, 0x80000000},
    };
    ck_assert_int_eq(CALL2(RFENCE, 0, 0, UINT64_MAX), 0);
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        ck_assert_int_eq(call(RFENCE, 1, 0xf, 0, ranges[i][0], ranges[i][1], 0), 0);
        ck_assert_int_eq(call(RFENCE, 2, 0xe, 0, ranges[i][0], ranges[i][1], 0x1ffff), 0);
    }
    ck_assert_int_eq(call(RFENCE, 3, 0xf, 0, 0, 0, 0), NOT_SUPPORTED);
}
END_TEST

static uint64_t mailbox(unsigned index)
{
    _Atomic uint64_t *slot = memory_pointer(&test.memory, MAILBOX + index * 8, 8);
    return atomic_load(slot);
}

START_TEST(harts_start_once_with_their_argument)
{
    for (unsigned i = 1; i < CPUS; i++) {
        ck_assert_int_eq(CALL1(HSM, 2, i), 0);
        ck_assert_uint_eq(value, 1); /* stopped */
        ck_assert_int_eq(CALL3(HSM, 0, i, TEST_ENTRY, 100 + i), 0);
        ck_assert_int_eq(CALL3(HSM, 0, i, TEST_ENTRY, 200 + i), ALREADY_AVAILABLE);
    }
    for (unsigned i = 1; i < CPUS; i++) {
        while (mailbox(i) == 0) {
            usleep(200);
        }
        ck_assert_uint_eq(mailbox(i), 100 + i);
        ck_assert_int_eq(CALL1(HSM, 2, i), 0);
        ck_assert_uint_eq(value, 0); /* started */
    }
    ck_assert_int_eq(CALL3(HSM, 0, 0, TEST_ENTRY, 0), ALREADY_AVAILABLE);
    ck_assert_int_eq(CALL2(RFENCE, 0, 0, UINT64_MAX), 0);
    ck_assert_int_eq(call(RFENCE, 1, 0xf, 0, 0, 0, 0), 0);
}
END_TEST

START_TEST(hart_calls_are_validated)
{
    ck_assert_int_eq(CALL3(HSM, 0, CPUS, TEST_ENTRY, 0), INVALID_PARAM);
    ck_assert_int_eq(CALL3(HSM, 0, ~0ull, TEST_ENTRY, 0), INVALID_PARAM);
    ck_assert_int_eq(CALL3(HSM, 0, 1, 0x1000, 0), INVALID_ADDRESS);
    ck_assert_int_eq(CALL3(HSM, 0, 1, TEST_RAM_BASE + TEST_RAM_SIZE, 0), INVALID_ADDRESS);
    ck_assert_int_eq(CALL3(HSM, 0, 1, TEST_ENTRY + 1, 0), INVALID_ADDRESS);
    ck_assert_int_eq(CALL3(HSM, 0, 1, ~0ull, 0), INVALID_ADDRESS);
    ck_assert_int_eq(CALL1(HSM, 2, CPUS), INVALID_PARAM);
    ck_assert_int_eq(CALL1(HSM, 2, ~0ull), INVALID_PARAM);
    ck_assert_int_eq(CALL1(HSM, 3, 0x80000000), NOT_SUPPORTED);
    ck_assert_int_eq(CALL1(HSM, 3, 0x10000000), NOT_SUPPORTED);
    ck_assert_int_eq(CALL1(HSM, 3, 1), INVALID_PARAM);
    ck_assert_int_eq(CALL1(HSM, 3, ~0ull), INVALID_PARAM);
    ck_assert_int_eq(CALL1(HSM, 3, 0), 0);
    ck_assert_uint_eq(test_cpu(&test, 0)->cpu.waiting, 1);
}
END_TEST

START_TEST(the_console_writes_guest_memory)
{
    char *text = memory_pointer(&test.memory, MAILBOX, 4096);
    memcpy(text, "hello, world", 12);
    ck_assert_int_eq(CALL3(DBCN, 0, 12, MAILBOX, 0), 0);
    ck_assert_uint_eq(value, 12);
    ck_assert_int_eq(CALL1(DBCN, 2, 0x100 | '!'), 0);
    ck_assert_int_eq(CALL1(1, 0, '\n'), 0); /* legacy */
    ck_assert_str_eq(test.output, "hello, world!\n");
    ck_assert_int_eq(CALL3(DBCN, 0, 0, MAILBOX, 0), 0);
    ck_assert_int_eq(CALL3(DBCN, 0, 4096, MAILBOX, 0), 0);
    ck_assert_uint_ge(value, 1); /* may be partial */
    ck_assert_uint_le(value, 4096);
}
END_TEST

START_TEST(the_console_reads_what_there_is)
{
    char *text = memory_pointer(&test.memory, MAILBOX, 4096);
    memset(text, 'x', 4096);
    test.input = "abcdef";
    ck_assert_int_eq(CALL3(DBCN, 1, 4, MAILBOX, 0), 0);
    ck_assert_uint_eq(value, 4);
    ck_assert_int_eq(CALL0(2, 0), 'e'); /* legacy */
    ck_assert_int_eq(CALL3(DBCN, 1, 4, MAILBOX + 4, 0), 0);
    ck_assert_uint_eq(value, 1);
    ck_assert_int_eq(memcmp(text, "abcdfxxx", 8), 0);
    ck_assert_int_eq(CALL3(DBCN, 1, 4, MAILBOX, 0), 0);
    ck_assert_uint_eq(value, 0);
    ck_assert_int_eq(CALL0(2, 0), -1);
}
END_TEST

START_TEST(console_ranges_are_validated)
{
    for (uint64_t function = 0; function < 2; function++) {
        ck_assert_int_eq(CALL3(DBCN, function, 8, 0x1000, 0), INVALID_PARAM);
        ck_assert_int_eq(CALL3(DBCN, function, 8, MAILBOX, 1), INVALID_PARAM);
        ck_assert_int_eq(CALL3(DBCN, function, ~0ull, MAILBOX, 0), INVALID_PARAM);
        ck_assert_int_eq(CALL3(DBCN, function, 8, TEST_RAM_BASE + TEST_RAM_SIZE - 4, 0),
                         INVALID_PARAM);
        ck_assert_int_eq(CALL3(DBCN, function, 8, ~0ull, ~0ull), INVALID_PARAM);
    }
    test.dead = true;
    ck_assert_int_eq(CALL3(DBCN, 0, 8, MAILBOX, 0), FAILED);
    ck_assert_int_eq(CALL1(DBCN, 2, 'x'), FAILED);
}
END_TEST

START_TEST(system_reset_reports_once)
{
    ck_assert_int_eq(CALL2(SRST, 0, 3, 0), INVALID_PARAM);
    ck_assert_int_eq(CALL2(SRST, 0, 0xf0000000, 0), NOT_SUPPORTED);
    ck_assert_int_eq(CALL2(SRST, 0, 0, 2), INVALID_PARAM);
    ck_assert_uint_eq(test.events, 0);
    ck_assert_int_eq(CALL2(SRST, 0, 0, 0), 0);
    ck_assert_int_eq(CALL2(SRST, 0, 1, 0), 0);
    ck_assert_uint_eq(test.events, 1);
    ck_assert_int_eq(test.event, MACHINE_POWER_OFF);
}
END_TEST

START_TEST(each_kind_of_end_is_told_apart)
{
    static const struct {
        uint64_t type, reason;
        enum machine_event event;
        unsigned code;
    } cases[] = {
        {0, 0, MACHINE_POWER_OFF, 0}, {0, 1, MACHINE_FAILURE, 1},
        {1, 0, MACHINE_RESET, 0},     {2, 0, MACHINE_RESET, 0},
        {1, 1, MACHINE_RESET, 1},     {0, 0xe0000005, MACHINE_FAILURE, 0xe0000005},
    };
    ck_assert_uint_lt((size_t)_i, sizeof(cases) / sizeof(cases[0]));
    ck_assert_int_eq(CALL2(SRST, 0, cases[_i].type, cases[_i].reason), 0);
    ck_assert_uint_eq(test.events, 1);
    ck_assert_int_eq(test.event, cases[_i].event);
    ck_assert_uint_eq(test.code, cases[_i].code);
}
END_TEST

START_TEST(random_calls_crash_nothing)
{
    static const uint64_t extensions[] = {BASE, TIME, IPI, RFENCE, DBCN, 0, 1, 2, 3, PMU};
    static const uint64_t words[] = {0,       1,          2,          0xf,        4096,
                                     MAILBOX, TEST_ENTRY, 1ull << 63, 0xffffffff, UINT64_MAX};
    srandom(1);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t a[5];
        for (unsigned j = 0; j < 5; j++) {
            a[j] = words[random() % 10] + (random() % 8 == 0 ? (uint64_t)random() : 0);
        }
        call(extensions[random() % 10], (uint64_t)random() % 5, a[0], a[1], a[2], a[3], a[4]);
    }
    ck_assert_uint_eq(test.events, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sbi");
    TCase *tests = tcase_create("sbi");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, base_says_what_there_is);
    tcase_add_test(tests, set_timer_raises_and_lowers_the_supervisor_timer);
    tcase_add_test(tests, ipis_reach_exactly_the_named_harts);
    tcase_add_test(tests, hart_masks_are_validated);
    tcase_add_test(tests, remote_fences_return);
    tcase_add_test(tests, harts_start_once_with_their_argument);
    tcase_add_test(tests, hart_calls_are_validated);
    tcase_add_test(tests, the_console_writes_guest_memory);
    tcase_add_test(tests, the_console_reads_what_there_is);
    tcase_add_test(tests, console_ranges_are_validated);
    tcase_add_test(tests, system_reset_reports_once);
    tcase_add_loop_test(tests, each_kind_of_end_is_told_apart, 0, 6);
    tcase_add_test(tests, random_calls_crash_nothing);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
