/*
 * bench --list                           print "workload NAME CLASS" for each
 * bench NAME...                          run these; "bench NAME CLASS NANOSECONDS CHECKSUM" for
 * each bench --command NAME CLASS COMMAND...  run a command as a workload
 */
#include "bench.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct workload {
    const char *name, *class;
    uint64_t (*run)(void);
} workloads[] = {
#define X(name, class) {#name, #class, bench_##name},
    WORKLOADS(X)
#undef X
};
#define COUNT (sizeof(workloads) / sizeof(workloads[0]))

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

static int named_main(const char *name)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(workloads[i].name, name) == 0) {
            uint64_t start = now(), checksum = workloads[i].run();
            report(name, workloads[i].class, now() - start, checksum);
            return 0;
        }
    }
    return 1;
}

static int list_main(void)
{
    for (size_t i = 0; i < COUNT; i++) {
        printf("workload %s %s\n", workloads[i].name, workloads[i].class);
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
