#include "vmmd/vcpu/machine/riscv64/placement.h"
#include <stddef.h>

/* A taken range that meets [start, end), or NULL. */
static const struct placement_range *find_overlap(const struct placement *placement, uint64_t start,
                                                  uint64_t end)
{
    for (unsigned i = 0; i < placement->count; i++) {
        const struct placement_range *range = &placement->taken[i];
        if (start < range->end && range->start < end) {
            return range;
        }
    }
    return NULL;
}

bool placement_take(struct placement *placement, uint64_t start, uint64_t size)
{
    if (start < placement->base || start > placement->end || size > placement->end - start ||
        placement->count == PLACEMENT_RANGES_MAX || find_overlap(placement, start, start + size)) {
        return false;
    }
    placement->taken[placement->count++] =
        (struct placement_range){.start = start, .end = start + size};
    return true;
}

uint64_t placement_take_high(struct placement *placement, uint64_t size, uint64_t align,
                             uint64_t limit)
{
    uint64_t end = limit < placement->end ? limit : placement->end;
    while (end > placement->base && size <= end - placement->base) {
        uint64_t start = (end - size) & ~(align - 1);
        const struct placement_range *range = find_overlap(placement, start, start + size);
        if (!range) {
            return placement_take(placement, start, size) ? start : 0;
        }
        end = range->start;
    }
    return 0;
}
