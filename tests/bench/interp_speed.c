/*
 * How many guest instructions a second the engine runs: small riscv64 programs on a bare engine,
 * no kernel, no devices, one CPU. Prints a line a program; the result column must not change.
 *
 *   make build/bench/interp_speed; arguments: how often to run each (the best counts), the number of
 * the only program to run (-1: all), a tier
 */
#include "libshared/isa/riscv64/riscv64.h"
#include "tests/bench/interp_speed_code.h"
#include "tests/lockstep/optimiser.h"
#include "vmmd/vcpu/engine/engine.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RAM_BASE 0x80000000u
#define RAM_SIZE (16u << 20)

static const struct program {
    const char *name;
    unsigned number;
    uint64_t size;
} programs[] = {
    {"sum", 0, 20000000}, {"sieve", 1, 4000000},    {"fib", 2, 32},
    {"crc", 3, 2000000},  {"matrix", 4, 200},       {"chase", 5, 20000000},
    {"sort", 6, 400000},  {"machine", 7, 10000000}, {"copy", 8, 4000},
};

static uint64_t answer;

static bool stop_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)address;
    (void)size;
    answer = value;
    cpu_attention(cpu, CPU_ATTENTION_STOP);
    return true;
}

static uint64_t no_time(struct cpu *cpu)
{
    (void)cpu;
    return 0;
}

static void no_timer(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    (void)cpu;
    (void)timer;
    (void)deadline;
}

static const struct cpu_host host = {
    .time = no_time, .timer_changed = no_timer, .mmio_write = stop_write};

/* Processor time, so that a busy machine disturbs less. */
static uint64_t thread_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static uint64_t run_once(struct cpu *cpu, const struct program *program)
{
    riscv64_boot((struct riscv64_cpu *)cpu, RISCV64_SUPERVISOR, RAM_BASE, program->number,
                 program->size);
    atomic_store(&cpu->attention, 0);
    uint64_t begin = thread_ns();
    engine_run(cpu);
    return thread_ns() - begin;
}

/* How much of it was done in regions, and what for. */
static void print_regions(struct engine *engine, const struct engine_stats *before)
{
    struct engine_stats now;
    engine_stats(engine, &now);
    if (now.samples) {
        printf("         %.1f %% in regions, %" PRIu64 " of %" PRIu64 " samples; %" PRIu64
               " regions more, %" PRIu64 " dropped\n",
               (double)(now.retired_optimised - before->retired_optimised) * 100 /
                   (double)(now.retired - before->retired),
               now.samples_optimised - before->samples_optimised, now.samples - before->samples,
               now.regions_installed - before->regions_installed,
               now.regions_dropped - before->regions_dropped);
    }
}

static void run_program(struct engine *engine, struct cpu *cpu, const struct program *program,
                        uint64_t runs)
{
    struct engine_stats stats;
    engine_stats(engine, &stats);
    uint64_t best = UINT64_MAX, retired = 0;
    for (uint64_t i = 0; i < runs; i++) {
        uint64_t before = cpu->retired;
        uint64_t nanoseconds = run_once(cpu, program);
        best = nanoseconds < best ? nanoseconds : best;
        retired = cpu->retired - before;
    }
    printf("%-8s %10" PRIu64 " kinsns %8.1f Minsns/s  result %016" PRIx64 "\n", program->name,
           retired / 1000, (double)retired * 1000 / (double)best, answer);
    print_regions(engine, &stats);
}

int main(int argc, char **argv)
{
    uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    int only = argc > 2 ? atoi(argv[2]) : -1;
    struct memory memory = {0};
    struct error err;
    int fd = memory_create_fd("speed", RAM_SIZE);
    if (fd < 0 || memory_add_region(&memory, fd, RAM_BASE, RAM_SIZE) != 0) {
        return 1;
    }
    memcpy(memory_pointer(&memory, RAM_BASE, sizeof(guest_code)), guest_code, sizeof(guest_code));
    struct engine *engine = engine_create(&isa_riscv64, &memory, 1, &err);
    enum engine_tier tier = ENGINE_INTERP;
    if (engine && argc > 3 && engine_tier_find(argv[3], &tier)) {
        engine_set_tier(engine, tier);
    }
    struct cpu *cpu = engine ? engine_add_cpu(engine, 0, &host, NULL) : NULL;
    if (!cpu) {
        return 1;
    }
    struct optimiser *optimiser =
        tier == ENGINE_OPTIMISED ? optimiser_start(engine, 1000, false) : NULL;
    for (unsigned i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        if (only < 0 || only == (int)i) {
            run_program(engine, cpu, &programs[i], runs);
        }
    }
    optimiser_stop(optimiser);
    engine_destroy(engine);
    memory_close(&memory);
    close(fd);
    return 0;
}
