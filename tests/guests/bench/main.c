/* bench NAME...: run workloads and print "bench NAME CLASS NANOSECONDS CHECKSUM" for each. */
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

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int count, char **names)
{
    for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
        const struct workload *work = &workloads[i];
        int wanted = count < 2;
        for (int n = 1; n < count; n++) {
            wanted |= strcmp(names[n], work->name) == 0;
        }
        if (!wanted) {
            continue;
        }
        uint64_t start = now();
        uint64_t checksum = work->run();
        uint64_t elapsed = now() - start;
        printf("bench %s %s %llu %016llx\n", work->name, work->class, (unsigned long long)elapsed,
               (unsigned long long)checksum);
        fflush(stdout);
    }
    return 0;
}
