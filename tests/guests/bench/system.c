/* System workloads: the kernel's work for a program. */
#define _GNU_SOURCE
#include "bench.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t bench_syscalls(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 60000; i++) {
        sum += syscall(SYS_getppid) >= 0;
    }
    return sum;
}

uint64_t bench_faults(void)
{
    enum { PAGES = 4096 };
    uint64_t sum = 0;
    for (int round = 0; round < 3; round++) {
        uint8_t *area = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED) {
            return 0;
        }
        madvise(area, PAGES * 4096, MADV_NOHUGEPAGE);
        for (int i = 0; i < PAGES; i++) {
            area[i * 4096] = (uint8_t)i;
            sum += area[i * 4096];
        }
        munmap(area, PAGES * 4096);
    }
    return sum;
}

uint64_t bench_forks(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 60; i++) {
        pid_t child = fork();
        if (child == 0) {
            _exit(i & 63);
        }
        int status = 0;
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

uint64_t bench_pipes(void)
{
    int to[2], from[2];
    uint64_t sum = 0;
    if (pipe(to) || pipe(from)) {
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        uint32_t value;
        while (read(to[0], &value, sizeof(value)) == sizeof(value) && value) {
            value *= 3;
            if (write(from[1], &value, sizeof(value)) != sizeof(value)) {
                break;
            }
        }
        _exit(0);
    }
    for (uint32_t i = 1; i <= 3000; i++) {
        uint32_t value = i;
        if (write(to[1], &value, sizeof(value)) != sizeof(value) ||
            read(from[0], &value, sizeof(value)) != sizeof(value)) {
            return 0;
        }
        sum += value;
    }
    uint32_t end = 0;
    if (write(to[1], &end, sizeof(end)) != sizeof(end)) {
        return 0;
    }
    waitpid(child, NULL, 0);
    return sum;
}
