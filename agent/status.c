#include "agent/status.h"

#include <stdio.h>
#include <sys/utsname.h>

#if defined(__riscv) && __riscv_xlen == 64
#define ISA "riscv64"
#elif defined(__aarch64__)
#define ISA "arm64"
#elif defined(__x86_64__)
#define ISA "x86_64"
#endif

int status_print(const struct agent *agent)
{
    struct timespec up, now;
    struct utsname name;
    int64_t difference_ns;

    clock_gettime(CLOCK_BOOTTIME, &up);
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("version %s\nisa %s\n", POLYVISOR_VERSION, ISA);
    if (uname(&name) == 0) {
        printf("kernel %s %s\n", name.sysname, name.release);
    }
    printf("uptime_s %lld\nagent_uptime_s %lld\n", (long long)up.tv_sec,
           (long long)(now.tv_sec - agent->began));
    printf("clock_interval_s %lld\nclock_steps %u\n", (long long)agent->clock.interval,
           agent->clock.steps);
    if (clock_difference(&difference_ns)) {
        printf("clock_difference_ms %lld\n", (long long)(difference_ns / 1000000));
    }
    return 0;
}
