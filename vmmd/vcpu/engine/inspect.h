/*
 * Looking at the code of one guest address, for people: what the guest's bytes are, what IR they
 * become, and the host code that runs them now. Nothing of the guest's state changes by it.
 */
#ifndef POLYVISOR_VCPU_ENGINE_INSPECT_H
#define POLYVISOR_VCPU_ENGINE_INSPECT_H

#include "vmmd/vcpu/engine/engine.h"

#define INSPECT_GUEST_BYTES_MAX (4096u + 16u)

struct inspected_code {
    uint64_t physical; /* of the first byte */
    uint32_t mode;     /* block mode that it was decoded for */
    bool cached;       /* the engine has this block now */
    struct ir_block ir;
    uint8_t guest[INSPECT_GUEST_BYTES_MAX]; /* ir.length bytes */
    struct inspected_host {
        uint8_t *bytes; /* a copy; NULL: there is none */
        uint32_t size;
        uint64_t address; /* where it runs */
    } host, region;       /* of the block; of the region that begins with it */
    uint32_t region_blocks;
};

/* Look at the block that begins at `va` in the CPU's present address space. The block of the CPU's
 * present mode is preferred, then one of another mode that the engine has; when it has none the
 * bytes are decoded as this CPU would. Any thread, while no CPU of the engine runs guest code.
 * Fills *code, to be released with inspect_release, and returns 0; or a negative code with *err
 * set: NOT_FOUND when nothing is mapped there or it is no RAM, MEMORY, UNSUPPORTED. */
int inspect_code(struct cpu *cpu, uint64_t va, struct inspected_code *code, struct error *err);
void inspect_release(struct inspected_code *code);

#endif
