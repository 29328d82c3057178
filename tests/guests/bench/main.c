/*
 * bench --list: print "workload NAME CLASS" for each; those of class scaling only where there are
 * several processors.
 *
 * bench NAME...: run these; "bench NAME CLASS NANOSECONDS CHECKSUM" for each.
 *
 * bench --command NAME CLASS COMMAND...: run a command as a workload.
 */
#include "bench.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct workload {
    const char *name, *class;
    uint64_t (*run)(void);
} workloads[] = {
#define X(name, class) {#name, #class, bench_##name},
    WORKLOADS(X)
#undef X
};
#define COUNT (sizeof(workloads) / sizeof(workloads[0]))

static const struct scaling {
    const char *name;
    uint64_t (*run)(unsigned threads);
} scaling[] = {
#define X(name) {#name, scaling_##name},
    SCALING_WORKLOADS(X)
#undef X
};
static const unsigned thread_counts[] = {
#define X(count) count,
    SCALING_THREADS(X)
#undef X
};
#define SCALING_COUNT (sizeof(scaling) / sizeof(scaling[0]))
#define THREAD_COUNTS (sizeof(thread_counts) / sizeof(thread_counts[0]))

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void report(const char *name, const char *class, uint64_t elapsed, uint64_t checksum)
{
    printf("bench %s %s %llu %016llx\n", name, class, (unsigned long long)elapsed,
           (unsigned long long)checksum);
    fflush(stdout);
}

static int command_main(char **arguments)
{
    uint64_t checksum = 0, start = now();

    if (run_command(arguments + 2, &checksum) != 0) {
        return 1;
    }
    report(arguments[0], arguments[1], now() - start, checksum);
    return 0;
}

static int scaling_main(const char *name)
{
    char full[64];
    for (size_t i = 0; i < SCALING_COUNT * THREAD_COUNTS; i++) {
        const struct scaling *workload = &scaling[i / THREAD_COUNTS];
        unsigned threads = thread_counts[i % THREAD_COUNTS];
        snprintf(full, sizeof(full), "%s-%u", workload->name, threads);
        if (strcmp(full, name) == 0) {
            uint64_t start = now(), checksum = workload->run(threads);
            report(name, "scaling", now() - start, checksum);
            return 0;
        }
    }
    return 1;
}

static int named_main(const char *name)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(workloads[i].name, name) == 0) {
            uint64_t start = now(), checksum = workloads[i].run();
            report(name, workloads[i].class, now() - start, checksum);
            return 0;
        }
    }
    return scaling_main(name);
}

static int list_main(void)
{
    for (size_t i = 0; i < COUNT; i++) {
        printf("workload %s %s\n", workloads[i].name, workloads[i].class);
    }
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
        for (size_t i = 0; i < SCALING_COUNT * THREAD_COUNTS; i++) {
            printf("workload %s-%u scaling\n", scaling[i / THREAD_COUNTS].name,
                   thread_counts[i % THREAD_COUNTS]);
        }
    }
    return 0;
}

int main(int count, char **arguments)
{
    int failed = 0;

    if (count == 2 && strcmp(arguments[1], "--nothing") == 0) {
        return 0;
    }
    if (count == 2 && strcmp(arguments[1], "--list") == 0) {
        return list_main();
    }
    if (count > 4 && strcmp(arguments[1], "--command") == 0) {
        return command_main(arguments + 2);
    }
    for (int i = 1; i < count; i++) {
        failed |= named_main(arguments[i]);
    }
    return failed;
}
