/*
 * A long life of guest code, compressed: far more code is compiled than there may ever be, on
 * several CPUs, and all of it runs. Memory must stay within its bounds, and the guest must not
 * notice. CODE_LIVES in the environment says how often the bound is produced.
 */
#include "libshared/isa/riscv64/riscv64.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/engine/engine.h"
#include "vmmd/vcpu/engine/tunables.h"
#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define RAM_BASE UINT64_C(0x80000000)
#define RAM_SIZE (UINT64_C(12) << 20)

#define HART_COUNT 2u

/* In units of 4 bytes: nine instructions, then a jump to the next block, so that each block ends.
 */
#define BLOCK_WORDS 10u
#define BLOCKS      (RAM_SIZE / 4 / BLOCK_WORDS - 1)

static struct memory memory;
static struct engine *engine;
static struct cpu *cpus[HART_COUNT];
static const struct cpu_host no_machine;

static uint32_t add_immediate(unsigned d, unsigned a, unsigned value)
{
    return value << 20 | a << 15 | d << 7 | 0x13;
}

static uint32_t load(unsigned d, unsigned a, unsigned offset)
{
    return offset << 20 | a << 15 | 3 << 12 | d << 7 | 0x03;
}

static uint32_t jump(int32_t offset)
{
    uint32_t bits = (uint32_t)offset;
    return (bits >> 20 & 1) << 31 | (bits >> 1 & 0x3ff) << 21 | (bits >> 11 & 1) << 20 |
           (bits >> 12 & 0xff) << 12 | 0x6f;
}

/* x5 counts blocks, x6 to x9 are loaded from where x11 is (much host code: the addresses are too
 * far apart to share a translation), x10 counts rounds; the last block goes to the first. */
static void write_program(void)
{
    uint32_t *word = memory_pointer(&memory, RAM_BASE, RAM_SIZE);
    for (uint64_t i = 0; i < BLOCKS; i++) {
        *word++ = add_immediate(5, 5, 1);
        for (unsigned k = 0; k < BLOCK_WORDS - 2; k++) {
            *word++ = load(6 + k % 4, 11, (unsigned)(i + 37 * k) % 128 * 8);
        }
        *word++ = jump(4);
    }
    *word++ = add_immediate(10, 10, 1);
    *word++ = 0x80000337; /* lui x6, 0x80000: sign-extended, so the upper half goes */
    *word++ = 0x02031313; /* slli x6, x6, 32 */
    *word++ = 0x02035313; /* srli x6, x6, 32 */
    *word++ = 0x00030067; /* jalr zero, 0(x6) */
}

static void setup(void)
{
    struct error err = {0};
    int fd = memory_create_fd("ram", RAM_SIZE);
    int codemap = memory_create_fd("codemap", memory_codemap_size(RAM_SIZE));
    ck_assert_int_eq(memory_add_region(&memory, fd, RAM_BASE, RAM_SIZE), 0);
    ck_assert_int_eq(memory_attach_codemap(&memory, codemap), 0);
    close(fd);
    close(codemap);
    write_program();
    engine = engine_create(&isa_riscv64, &memory, HART_COUNT, &err);
    ck_assert_msg(engine != NULL, "%s", err.message);
    for (unsigned i = 0; i < HART_COUNT; i++) {
        cpus[i] = engine_add_cpu(engine, i, &no_machine, NULL);
        ck_assert_ptr_nonnull(cpus[i]);
        cpus[i]->pc = RAM_BASE;
        ((struct riscv64_cpu *)cpus[i])->x[11] = RAM_BASE;
    }
    engine_set_tier(engine, engine_tier_best());
}

static void teardown(void)
{
    engine_destroy(engine);
    memory_close(&memory);
}

static void *run_cpu(void *cpu)
{
    engine_run(cpu);
    return NULL;
}

static uint64_t resident_bytes(void)
{
    char line[256];
    uint64_t kib = 0;
    FILE *status = fopen("/proc/self/status", "re");
    ck_assert_ptr_nonnull(status);
    while (fgets(line, sizeof(line), status)) {
        sscanf(line, "VmRSS: %" SCNu64, &kib);
    }
    fclose(status);
    return kib << 10;
}

/* In tenths. Without sanitizers a bound takes a second or two. */
static uint64_t lives(void)
{
    const char *text = getenv("CODE_LIVES");
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
    const uint64_t usual = 5;
#else
    const uint64_t usual = 20;
#endif
    return text ? 10 * strtoul(text, NULL, 10) : usual;
}

/* What blocks and code may hold, counting those that were dropped and wait to be given back. */
static bool within_bounds(const struct engine_stats *stats)
{
    return stats->code_bytes <= stats->code_bytes_max &&
           stats->block_bytes <= ENGINE_BLOCK_BYTES_MAX + (1u << 20);
}

START_TEST(memory_stays_within_its_bounds)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    pthread_t threads[HART_COUNT];
    struct engine_stats stats;
    uint64_t resident = 0, start = resident_bytes();
    engine_stats(engine, &stats);
    if (stats.code_bytes_max == 0) {
        return; /* no compiler for this host */
    }
    uint64_t wanted = stats.code_bytes_max / 10 * lives();
    for (unsigned i = 0; i < HART_COUNT; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_cpu, cpus[i]), 0);
    }
    do {
        nanosleep(&pause, NULL);
        uint64_t now = resident_bytes();
        resident = now > resident ? now : resident;
        engine_stats(engine, &stats);
        ck_assert_msg(within_bounds(&stats), "%" PRIu64 " bytes of code, %" PRIu64 " of blocks",
                      stats.code_bytes, stats.block_bytes);
    } while (stats.compiled_host_bytes < wanted || stats.code_memory_full == 0);
    for (unsigned i = 0; i < HART_COUNT; i++) {
        engine_kick(cpus[i], CPU_ATTENTION_STOP);
        pthread_join(threads[i], NULL);
    }
    engine_stats(engine, &stats);
    ck_assert_uint_gt(stats.blocks_dropped, 0);
    ck_assert_uint_eq(stats.exceptions, 0);
    printf("%" PRIu64 " MiB of code from %" PRIu64 " blocks, full %" PRIu64 " times, "
           "%" PRIu64 " MiB resident at most, %" PRIu64 " before\n",
           stats.compiled_host_bytes >> 20, stats.blocks_compiled, stats.code_memory_full,
           resident >> 20, start >> 20);
}
END_TEST

/* Each CPU has counted its blocks itself: none was left out or run twice. */
START_TEST(no_block_is_lost)
{
    struct riscv64_cpu *cpu = (struct riscv64_cpu *)cpus[0];
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_cpu, cpus[0]), 0);
    struct engine_stats stats;
    do {
        usleep(1000);
        engine_stats(engine, &stats);
    } while (stats.retired < (BLOCKS + BLOCKS / 4) * BLOCK_WORDS);
    engine_kick(cpus[0], CPU_ATTENTION_STOP);
    pthread_join(thread, NULL);
    uint64_t rounds = cpu->x[10], blocks = cpu->x[5];
    uint64_t place = (cpu->cpu.pc - RAM_BASE) / (4 * BLOCK_WORDS);
    uint64_t insns = cpu->cpu.retired;
    ck_assert_uint_ge(rounds, 1);
    if (place < BLOCKS) {
        ck_assert_uint_eq(blocks, rounds * BLOCKS + place);
        ck_assert_uint_eq(insns, blocks * BLOCK_WORDS + rounds * 5);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: a long life");
    TCase *life = tcase_create("life");
    tcase_add_checked_fixture(life, setup, teardown);
    tcase_set_timeout(life, 3600);
    tcase_add_test(life, memory_stays_within_its_bounds);
    tcase_add_test(life, no_block_is_lost);
    suite_add_tcase(suite, life);

    return suite_run(suite);
}
