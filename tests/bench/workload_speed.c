/*
 * The workloads of tests/guests/bench on a bare engine: no kernel, no devices, one CPU.
 *
 *   workload_speed [--tier TIER] [--runs N] [--regions FOLDER] [--code FILE] IMAGE [NAME...]
 *
 * Prints a line a workload: the processor time of the first run, of the shortest one, and how
 * much of all was done in regions. The checksum must not change. --regions leaves what was compiled
 * for `jitd --replay`; --code the memory with compiled code, as it is at the end, beside its
 * address.
 */
#include "libshared/isa/riscv64/riscv64.h"
#include "libshared/jit/region.h"
#include "tests/lockstep/optimiser.h"
#include "vmmd/vcpu/engine/engine.h"
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RAM_BASE 0x80000000u
#define RAM_SIZE (64u << 20)

static const char *const names[] = {"sieve",    "calls",    "chase",     "quicksort",
                                    "bytecode", "dispatch", "strings",   "mix",
                                    "matrix",   "nbody",    "mandelbrot"};
#define NAME_COUNT (sizeof(names) / sizeof(names[0]))

static uint64_t answer;

static bool stop_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    (void)address, (void)size;
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
    (void)cpu, (void)timer, (void)deadline;
}

static const struct cpu_host host = {
    .time = no_time, .timer_changed = no_timer, .mmio_write = stop_write};

static double thread_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static double run_once(struct cpu *cpu, unsigned number)
{
    riscv64_boot((struct riscv64_cpu *)cpu, RISCV64_SUPERVISOR, RAM_BASE, number, 0);
    atomic_store(&cpu->attention, 0);
    double begin = thread_ms();
    engine_run(cpu);
    return thread_ms() - begin;
}

static void run_workload(struct engine *engine, struct cpu *cpu, unsigned number, unsigned runs)
{
    struct engine_stats before, now;
    engine_stats(engine, &before);
    double first = 0, best = 1e9;
    uint64_t retired = 0, retired_before = 0;
    for (unsigned i = 0; i < runs; i++) {
        retired_before = cpu->retired;
        double took = run_once(cpu, number);
        first = i == 0 ? took : first;
        best = took < best ? took : best;
        retired = cpu->retired - retired_before;
    }
    engine_stats(engine, &now);
    printf("%-10s first %7.2f best %7.2f ms %8" PRIu64 " kinsns %5.1f %% in regions (%" PRIu64
           " more) %016" PRIx64 "\n",
           names[number], first, best, retired / 1000,
           (double)(now.retired_optimised - before.retired_optimised) * 100 /
               (double)(now.retired - before.retired),
           now.regions_installed - before.regions_installed, answer);
    fflush(stdout);
}

static void save_regions(const struct optimiser *optimiser, const char *folder)
{
    static uint8_t bytes[REGION_PACKED_MAX];
    for (unsigned i = 0; optimiser && i < optimiser_kept(optimiser); i++) {
        char path[4096];
        size_t size = region_pack(optimiser_region(optimiser, i), true, bytes, sizeof(bytes));
        snprintf(path, sizeof(path), "%s/%u.region", folder, i);
        FILE *file = fopen(path, "w");
        if (file) {
            fwrite(bytes, 1, size, file);
            fclose(file);
        }
    }
}

/* The first large executable mapping. */
static void save_code(const char *path)
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    bool found = false;
    while (maps && memory >= 0 && !found && fgets(line, sizeof(line), maps)) {
        uint64_t begin, end;
        char rights[8];
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &begin, &end, rights) == 3 &&
            rights[2] == 'x' && end - begin > (16u << 20)) {
            found = true;
            FILE *file = fopen(path, "w");
            static uint8_t bytes[8 << 20];
            ssize_t size = pread(memory, bytes, sizeof(bytes), (off_t)begin);
            if (file && size > 0) {
                fwrite(bytes, 1, (size_t)size, file);
                printf("code at %" PRIx64 "\n", begin);
            }
            if (file) {
                fclose(file);
            }
        }
    }
    if (maps) {
        fclose(maps);
    }
    close(memory);
}

static bool load_image(struct memory *memory, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return false;
    }
    size_t size = fread(memory_pointer(memory, RAM_BASE, 4096), 1, RAM_SIZE, file);
    fclose(file);
    return size > 0;
}

static bool is_wanted(const char *name, char **wanted, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(wanted[i], name) == 0) {
            return true;
        }
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"tier", required_argument, NULL, 't'},
                                            {"runs", required_argument, NULL, 'n'},
                                            {"regions", required_argument, NULL, 'r'},
                                            {"code", required_argument, NULL, 'c'},
                                            {0}};
    enum engine_tier tier = ENGINE_OPTIMISED;
    unsigned runs = 10;
    const char *folder = NULL, *code = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 't' && !engine_tier_find(optarg, &tier)) {
            return 2;
        }
        runs = option == 'n' ? (unsigned)atoi(optarg) : runs;
        folder = option == 'r' ? optarg : folder;
        code = option == 'c' ? optarg : code;
    }
    struct memory memory = {0};
    struct error err;
    int fd = memory_create_fd("speed", RAM_SIZE);
    if (optind == argc || fd < 0 || memory_add_region(&memory, fd, RAM_BASE, RAM_SIZE) != 0 ||
        !load_image(&memory, argv[optind])) {
        return 1;
    }
    struct engine *engine = engine_create(&isa_riscv64, &memory, 1, &err);
    if (!engine) {
        return 1;
    }
    engine_set_tier(engine, tier);
    struct cpu *cpu = engine_add_cpu(engine, 0, &host, NULL);
    struct optimiser *optimiser =
        tier == ENGINE_OPTIMISED ? optimiser_start(engine, 1000, false) : NULL;
    if (optimiser && folder) {
        optimiser_keep(optimiser);
    }
    for (unsigned i = 0; cpu && i < NAME_COUNT; i++) {
        if (is_wanted(names[i], argv + optind + 1, argc - optind - 1)) {
            run_workload(engine, cpu, i, runs);
        }
    }
    if (folder) {
        save_regions(optimiser, folder);
    }
    if (code) {
        save_code(code);
    }
    optimiser_stop(optimiser);
    engine_destroy(engine);
    memory_close(&memory);
    close(fd);
    return 0;
}
