/*
 * Physical memory protection (volume II, "Physical Memory Protection"), with a grain of one page:
 * no page is ever split, so its permission can be cached with its translation.
 */
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/registers.h"

#define ADDRESS_BITS (BIT64(54) - 1) /* pmpaddr holds physical address bits 55 to 2 */
#define GRAIN_BITS   10u             /* G: the grain is 2^(G + 2) bytes */
#define GRAIN_TOR    (BIT64(GRAIN_BITS) - 1)
#define GRAIN_NAPOT  (BIT64(GRAIN_BITS - 1) - 1)

static unsigned entry_config(const struct riscv64_cpu *cpu, unsigned index)
{
    return cpu->csr.pmpcfg[index / 8] >> index % 8 * 8 & 0xff;
}

/* A byte of pmpcfg as it is after a write of `value`. */
static unsigned legal_config(unsigned old, unsigned value)
{
    value &= PMP_LOCKED | PMP_MODE | PMP_ALL;
    if (old & PMP_LOCKED) {
        return old;
    }
    if ((value & (PMP_READ | PMP_WRITE)) == PMP_WRITE) {
        value &= ~(unsigned)PMP_WRITE; /* write-only is reserved */
    }
    if ((value & PMP_MODE) == PMP_MODE_NA4) {
        value = (value & ~PMP_MODE) | (old & PMP_MODE); /* finer than the grain */
    }
    return value;
}

static struct riscv64_pmp_region make_region(const struct riscv64_cpu *cpu, unsigned index)
{
    unsigned config = entry_config(cpu, index);
    uint64_t address = cpu->csr.pmpaddr[index];
    struct riscv64_pmp_region region = {.first = 1,
                                        .last = 0,
                                        .permissions = config & PMP_ALL,
                                        .locked = (config & PMP_LOCKED) != 0};
    if ((config & PMP_MODE) == PMP_MODE_TOR) {
        uint64_t below = index ? cpu->csr.pmpaddr[index - 1] : 0;
        uint64_t first = (below & ~GRAIN_TOR) << 2, end = (address & ~GRAIN_TOR) << 2;
        if (first < end) {
            region.first = first;
            region.last = end - 1;
        }
    } else if ((config & PMP_MODE) == PMP_MODE_NAPOT) {
        uint64_t ones = address | GRAIN_NAPOT;
        uint64_t span = ones ^ (ones + 1); /* the trailing ones and the zero above them */
        region.first = (ones & ~span) << 2;
        region.last = ((ones | span) << 2 | 3);
    }
    return region;
}

void riscv64_pmp_update(struct riscv64_cpu *cpu)
{
    cpu->pmp_count = 0;
    for (unsigned i = 0; i < RISCV64_PMP_ENTRIES; i++) {
        cpu->pmp[i] = make_region(cpu, i);
        if (cpu->pmp[i].first <= cpu->pmp[i].last) {
            cpu->pmp_count = i + 1;
        }
    }
    riscv64_flush_all(cpu);
}

void riscv64_pmp_write_config(struct riscv64_cpu *cpu, unsigned index, uint64_t value)
{
    uint64_t old = cpu->csr.pmpcfg[index];
    uint64_t config = 0;
    for (unsigned i = 0; i < 8; i++) {
        config |= (uint64_t)legal_config(old >> i * 8 & 0xff, value >> i * 8 & 0xff) << i * 8;
    }
    if (config != old) {
        cpu->csr.pmpcfg[index] = config;
        riscv64_pmp_update(cpu);
    }
}

void riscv64_pmp_write_address(struct riscv64_cpu *cpu, unsigned index, uint64_t value)
{
    /* The bottom of a locked range is locked with it. */
    unsigned above = index + 1 < RISCV64_PMP_ENTRIES ? entry_config(cpu, index + 1) : 0;
    bool bounds_locked = (above & PMP_LOCKED) && (above & PMP_MODE) == PMP_MODE_TOR;
    value &= ADDRESS_BITS;
    if (!(entry_config(cpu, index) & PMP_LOCKED) && !bounds_locked &&
        cpu->csr.pmpaddr[index] != value) {
        cpu->csr.pmpaddr[index] = value;
        riscv64_pmp_update(cpu);
    }
}

/* The bits below the grain read as what they mean in the entry's mode; they are kept underneath. */
uint64_t riscv64_pmp_read_address(const struct riscv64_cpu *cpu, unsigned index)
{
    uint64_t address = cpu->csr.pmpaddr[index];
    if ((entry_config(cpu, index) & PMP_MODE) == PMP_MODE_NAPOT) {
        return address | GRAIN_NAPOT;
    }
    return address & ~GRAIN_TOR;
}

unsigned riscv64_pmp_permissions(const struct riscv64_cpu *cpu, uint64_t physical,
                                 unsigned privilege)
{
    for (unsigned i = 0; i < cpu->pmp_count; i++) {
        const struct riscv64_pmp_region *region = &cpu->pmp[i];
        if (physical >= region->first && physical <= region->last) {
            return privilege == RISCV64_MACHINE && !region->locked ? PMP_ALL : region->permissions;
        }
    }
    return privilege == RISCV64_MACHINE ? PMP_ALL : 0;
}
