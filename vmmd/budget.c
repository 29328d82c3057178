#include "vmmd/budget.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MIB (UINT64_C(1) << 20)

static uint64_t budget_meminfo(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) {
            break;
        }
    }
    if (file) {
        fclose(file);
    }
    return kib * 1024;
}

/* A number in a file of one line; false when there is none ("max", or no such file). */
static bool budget_read_number(const char *path, uint64_t *value)
{
    FILE *file = fopen(path, "re");
    bool found = file && fscanf(file, "%" SCNu64, value) == 1;

    if (file) {
        fclose(file);
    }
    return found;
}

/* What this process's cgroup (v2) may still take; UINT64_MAX without a limit. */
static uint64_t budget_cgroup(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[512], path[640];
    uint64_t limit, used, left = UINT64_MAX;

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "0::", 3)) {
            continue;
        }
        line[strcspn(line, "\n")] = '\0';
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", line + 3);
        if (!budget_read_number(path, &limit)) {
            continue;
        }
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.current", line + 3);
        if (budget_read_number(path, &used)) {
            left = used < limit ? limit - used : 0;
        }
    }
    if (file) {
        fclose(file);
    }
    return left;
}

uint64_t budget_available(void)
{
    uint64_t host = budget_meminfo();
    uint64_t cgroup = budget_cgroup();

    return host < cgroup ? host : cgroup;
}

uint64_t budget_untouched(int fd, uint64_t size)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return 0;
    }
    uint64_t touched = (uint64_t)status.st_blocks * 512;
    return touched < size ? size - touched : 0;
}

int budget_check(uint64_t wanted, uint64_t promised, struct error *err)
{
    uint64_t available = budget_available();
    uint64_t taken = promised + BUDGET_RESERVE;
    uint64_t free_bytes = taken < available ? available - taken : 0;

    if (wanted <= free_bytes) {
        return 0;
    }
    error_set(err, ERROR_MEMORY, 0,
              "%" PRIu64 " MiB of memory wanted, the host has %" PRIu64 " MiB to give",
              wanted / MIB, free_bytes / MIB);
    error_hint(err, "give the machine less (--memory), or stop another first");
    return -ERROR_MEMORY;
}
