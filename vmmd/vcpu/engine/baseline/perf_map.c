#include "vmmd/vcpu/engine/baseline/perf_map.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct perf_map {
    int fd;
    _Atomic uint64_t bytes;
    _Atomic int ended; /* no more lines */
};

struct perf_map *perf_map_create(int fd)
{
    struct perf_map *map = calloc(1, sizeof(*map));
    if (!map) {
        close(fd);
        return NULL;
    }
    map->fd = fd;
    return map;
}

void perf_map_destroy(struct perf_map *map)
{
    if (map) {
        close(map->fd);
        free(map);
    }
}

static void end(struct perf_map *map, const char *why)
{
    if (!atomic_exchange(&map->ended, 1)) {
        log_warning("the map for perf ends here: %s", why);
    }
}

static void add_line(struct perf_map *map, const uint8_t *execute, uint32_t size, const char *kind,
                     uint64_t guest_pc)
{
    char line[80];
    if (!map || atomic_load_explicit(&map->ended, memory_order_relaxed)) {
        return;
    }
    int length = snprintf(line, sizeof(line), "%" PRIxPTR " %" PRIx32 " %s_0x%" PRIx64 "\n",
                          (uintptr_t)execute, size, kind, guest_pc);
    uint64_t bytes = atomic_fetch_add(&map->bytes, (uint64_t)length) + (uint64_t)length;
    if (bytes > PERF_MAP_BYTES_MAX) {
        end(map, "it is as large as it may be");
    } else if (write(map->fd, line, (size_t)length) != length) {
        end(map, strerror(errno));
    }
}

void perf_map_add(struct perf_map *map, const uint8_t *execute, uint32_t size, uint64_t guest_pc)
{
    add_line(map, execute, size, "guest", guest_pc);
}

void perf_map_add_region(struct perf_map *map, const uint8_t *execute, uint32_t size,
                         uint64_t guest_pc)
{
    add_line(map, execute, size, "region", guest_pc);
}
