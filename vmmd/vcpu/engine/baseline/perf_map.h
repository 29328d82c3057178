/*
 * The map by which Linux perf names compiled guest code: one line a block, "ADDRESS SIZE NAME" in
 * hexadecimal, in /tmp/perf-PID.map. vmmd opens the file and hands it over, since vcpud opens none.
 * Lines are written whole and at once, so that perf finds them even after a crash; any thread may
 * add. Code of dropped blocks stays in the map: perf takes the line that was written last.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_PERF_MAP_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_PERF_MAP_H

#include <stdint.h>

struct perf_map;

/* Take over a descriptor that is open for writing. NULL without memory; it is then closed. */
struct perf_map *perf_map_create(int fd);
/* NULL is allowed. */
void perf_map_destroy(struct perf_map *map);

/* [execute, + size) runs the block of the guest's virtual address guest_pc. NULL: does nothing.
 * Once the file is large (PERF_MAP_BYTES_MAX) or cannot be written, further lines are dropped with
 * one warning. */
void perf_map_add(struct perf_map *map, const uint8_t *execute, uint32_t size, uint64_t guest_pc);
/* Likewise for the region whose entry is there. */
void perf_map_add_region(struct perf_map *map, const uint8_t *execute, uint32_t size,
                         uint64_t guest_pc);

#define PERF_MAP_BYTES_MAX (UINT64_C(256) << 20)

#endif
