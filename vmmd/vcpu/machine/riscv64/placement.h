/*
 * Where images lie in RAM: a list of address ranges that are taken, none of which overlap.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_PLACEMENT_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#define PLACEMENT_RANGES_MAX 8

struct placement {
    uint64_t base, end; /* RAM, [base, end) */
    unsigned count;
    struct placement_range {
        uint64_t start, end;
    } taken[PLACEMENT_RANGES_MAX];
};

/* Take [start, start + size). False: not all RAM, or some of it is taken (or the list is full). */
bool placement_take(struct placement *placement, uint64_t start, uint64_t size);
/* Take `size` bytes (at least 1) at the highest multiple of `align` (a power of two) that leaves
 * them below `limit`. Their address, or 0 when there is no room. */
uint64_t placement_take_high(struct placement *placement, uint64_t size, uint64_t align,
                             uint64_t limit);

#endif
