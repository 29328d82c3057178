/*
 * Small riscv64 programs on the bare engine: no machine, no devices but one register that stops the
 * hart. The assembler source stands above each program's words. (Broad coverage of the instruction
 * set is the lockstep tests' job.)
 */
#include "libshared/isa/riscv64/riscv64.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/engine/engine.h"
#include <check.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (1u << 20)
#define HARTS    4u

/*
 *     li   a0, 0
 *     li   t0, 1000
 *     csrr a1, instret
 * 1:  add  a0, a0, t0
 *     addi t0, t0, -1
 *     bnez t0, 1b
 *     csrr a2, instret
 *     sub  a1, a2, a1
 *     li   t1, 0x100000
 *     sd   a0, 0(t1)
 */
static const uint32_t sum_and_count[] = {0x02934501, 0x25f33e80, 0x9516c020, 0x9ee312fd, 0x2673fe02,
                                         0x05b3c020, 0x033740b6, 0x30230010, 0xa00100a3};

/*
 *     li   t0, 0x80008000
 *     li   t1, 3000
 * 1:  lr.d a0, (t0)
 *     addi a0, a0, 1
 *     sc.d a1, a0, (t0)
 *     bnez a1, 1b
 *
 *     addi t2, t0, 8
 * 2:  lr.w a0, (t2)
 *     ld   a2, 64(t0)
 *     addiw a0, a0, 1
 *     sc.w.aqrl a1, a0, (t2)
 *     bnez a1, 2b
 *     addi t3, t0, 16
 *     li   a3, 1
 *     amoadd.d a4, a3, (t3)
 *     addi t1, t1, -1
 *     bnez t1, 1b
 *     li   t1, 0x100000
 *     sd   a0, 0(t1)
 */
static const uint32_t reserved_adds[] = {0x228562c1, 0x630502be, 0xbb83031b, 0x1002b52f, 0xb5af0505,
                                         0xf9fd18a2, 0x00828393, 0x1003a52f, 0x0402b603, 0xa5af2505,
                                         0xf9ed1ea3, 0x01028e13, 0x372f4685, 0x137d00de, 0xfc031ae3,
                                         0x00100337, 0x00a33023, 0x0000a001};

/*
 *     .option norvc
 *     li   s0, 0
 *     li   s1, 100
 *     lla  s2, 2f
 *     li   s3, 0x00000513
 * 1:  slli t0, s1, 20
 *     or   t0, t0, s3
 *     sw   t0, 0(s2)
 *     fence.i
 * 2:  li   a0, 0
 *     add  s0, s0, a0
 *     addi s1, s1, -1
 *     bnez s1, 1b
 *     li   t1, 0x100000
 *     sd   s0, 0(t1)
 */
static const uint32_t patched_code[] = {
    0x00000413, 0x06400493, 0x00000917, 0x01c90913, 0x51300993, 0x01449293, 0x0132e2b3, 0x00592023,
    0x0000100f, 0x00000513, 0x00a40433, 0xfff48493, 0xfe0492e3, 0x00100337, 0x00833023, 0x0000006f};

/*
 *     lla  t0, 3f
 *     csrw stvec, t0
 *     li   s0, 0
 *     li   a5, 0x40000000
 *     addi s0, s0, 1
 *     addi s0, s0, 1
 * 4:  ld   s0, 24(a5)
 *     addi s0, s0, 1
 *     .balign 4
 * 3:  csrr a0, sepc
 *     csrr a1, scause
 *     csrr a2, stval
 *     lla  a3, 4b
 *     li   t1, 0x100000
 *     sd   s0, 0(t1)
 */
static const uint32_t precise_trap[] = {0x00000297, 0x01c28293, 0x10529073, 0x07b74401, 0x04054000,
                                        0x6f800405, 0x00010405, 0x14102573, 0x142025f3, 0x14302673,
                                        0x00000697, 0xfee68693, 0x00100337, 0x00833023, 0x0000a001};

/*
 *     li   t0, 0x6000
 *     csrs sstatus, t0
 *     csrwi fflags, 0
 *     li   t0, 1
 *     fcvt.d.l fa0, t0
 *     li   t0, 3
 *     fcvt.d.l fa1, t0
 *     frflags a0
 *     fdiv.d fa2, fa0, fa1
 *     frflags a1
 *     fmv.x.d a2, fa2
 *     fsrmi 3
 *     fdiv.d fa3, fa0, fa1
 *     fmv.x.d a3, fa3
 *     fsrmi 0
 *     fsflagsi 0
 *     fmv.d.x fa4, zero
 *     fdiv.d fa5, fa0, fa4
 *     frflags a4
 *     fsqrt.d fa5, fa5
 *     fsgnjn.d fa5, fa5, fa5
 *     fsqrt.d fa6, fa5
 *     fmv.x.d a5, fa6
 *     frflags a6
 *     li   t1, 0x100000
 *     sd   a5, 0(t1)
 */
static const uint32_t rounding_and_flags[] = {
    0xa0736299, 0x50731002, 0x42850010, 0xd222f553, 0xf5d3428d, 0x2573d222, 0x76530010,
    0x25f31ab5, 0x06530010, 0xd073e206, 0x76d30021, 0x86d31ab5, 0x5073e206, 0x50730020,
    0x07530010, 0x77d3f200, 0x27731ae5, 0xf7d30010, 0x97d35a07, 0xf85322f7, 0x07d35a07,
    0x2873e208, 0x03370010, 0x30230010, 0xa00100f3};

static struct memory memory;
static struct engine *engine;

static uint64_t host_time(struct cpu *cpu)
{
    (void)cpu;
    return 0;
}

static void host_timer(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    (void)cpu, (void)timer, (void)deadline;
}

static bool host_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)size, (void)value;
    if (address == 0x100000) {
        cpu_attention(cpu, CPU_ATTENTION_STOP);
    }
    return address == 0x100000;
}

static bool host_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    (void)cpu, (void)address, (void)size, (void)value;
    return false;
}

static const struct cpu_host host = {.time = host_time,
                                     .timer_changed = host_timer,
                                     .mmio_read = host_read,
                                     .mmio_write = host_write};

static void start(const void *code, size_t size)
{
    memset(&memory, 0, sizeof(memory));
    int fd = memory_create_fd("ram", RAM_SIZE);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(memory_add_region(&memory, fd, RAM_BASE, RAM_SIZE), 0);
    close(fd);
    memcpy(memory_pointer(&memory, RAM_BASE, size), code, size);
    struct error err;
    engine = engine_create(&isa_riscv64, &memory, HARTS, &err);
    ck_assert_ptr_nonnull(engine);
    for (unsigned i = 0; i < HARTS; i++) {
        struct cpu *cpu = engine_add_cpu(engine, i, &host, NULL);
        ck_assert_ptr_nonnull(cpu);
        riscv64_boot((struct riscv64_cpu *)cpu, RISCV64_SUPERVISOR, RAM_BASE, i, 0);
    }
}

static void finish(void)
{
    engine_destroy(engine);
    memory_close(&memory);
}

static struct riscv64_cpu *run_hart(unsigned index)
{
    struct cpu *cpu = engine_cpu(engine, index);
    ck_assert_int_eq(engine_run(cpu), ENGINE_EXIT_STOP);
    return (struct riscv64_cpu *)cpu;
}

enum { A0 = 10, A1, A2, A3, A4, A5, A6, S0 = 8 };

START_TEST(sums_and_counts_instructions)
{
    start(sum_and_count, sizeof(sum_and_count));
    struct riscv64_cpu *hart = run_hart(0);
    ck_assert_uint_eq(hart->x[A0], 500500);
    ck_assert_uint_eq(hart->x[A1], 3001); /* the loop and one of the two reads */
    finish();
}
END_TEST

static void *hart_thread(void *cpu)
{
    engine_run(cpu);
    return NULL;
}

START_TEST(harts_add_by_reservation)
{
    start(reserved_adds, sizeof(reserved_adds));
    pthread_t threads[HARTS];
    for (unsigned i = 0; i < HARTS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hart_thread, engine_cpu(engine, i)), 0);
    }
    for (unsigned i = 0; i < HARTS; i++) {
        pthread_join(threads[i], NULL);
    }
    const uint64_t *cells = memory_pointer(&memory, RAM_BASE + 0x8000, 24);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(cells[i], HARTS * 3000);
    }
    finish();
}
END_TEST

START_TEST(patches_its_own_code)
{
    start(patched_code, sizeof(patched_code));
    ck_assert_uint_eq(run_hart(0)->x[S0], 5050);
    finish();
}
END_TEST

START_TEST(traps_are_precise)
{
    start(precise_trap, sizeof(precise_trap));
    struct riscv64_cpu *hart = run_hart(0);
    ck_assert_uint_eq(hart->x[A0], hart->x[A3]);
    ck_assert_uint_eq(hart->x[A1], 5); /* load access fault */
    ck_assert_uint_eq(hart->x[A2], 0x40000018);
    ck_assert_uint_eq(hart->x[S0], 2);
    finish();
}
END_TEST

START_TEST(rounds_and_raises_flags)
{
    start(rounding_and_flags, sizeof(rounding_and_flags));
    struct riscv64_cpu *hart = run_hart(0);
    ck_assert_uint_eq(hart->x[A0], 0);
    ck_assert_uint_eq(hart->x[A1], 1); /* inexact */
    ck_assert_uint_eq(hart->x[A2], UINT64_C(0x3fd5555555555555));
    ck_assert_uint_eq(hart->x[A3], UINT64_C(0x3fd5555555555556)); /* upwards */
    ck_assert_uint_eq(hart->x[A4], 8);                            /* division by zero */
    ck_assert_uint_eq(hart->x[A5], UINT64_C(0x7ff8000000000000));
    ck_assert_uint_eq(hart->x[A6], 8 | 16); /* and invalid */
    finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: riscv64");
    TCase *tests = tcase_create("riscv64");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, sums_and_counts_instructions);
    tcase_add_test(tests, harts_add_by_reservation);
    tcase_add_test(tests, patches_its_own_code);
    tcase_add_test(tests, traps_are_precise);
    tcase_add_test(tests, rounds_and_raises_flags);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
