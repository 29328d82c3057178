/*
 * The soft MMU of one CPU: translation tables by mmu_key, filled by the ISA's page walk.
 *
 * Owner thread only, but for mmu_revoke_writes. The hit test itself is in the interpreter's
 * handlers (and, later, in generated code); here is everything behind a miss.
 */
#ifndef POLYVISOR_VCPU_ENGINE_SOFT_MMU_H
#define POLYVISOR_VCPU_ENGINE_SOFT_MMU_H

#include "vmmd/vcpu/engine/core.h"

/* Beside TLB_EMPTY and TLB_SLOW: the page is not RAM, and va + addend is its physical address. */
#define TLB_DEVICE 64u

/* Where an access goes. */
struct mmu_page {
    uint8_t *host;     /* of the address asked for; NULL when it is not RAM */
    uint64_t physical; /* of the address asked for */
    uint64_t index;    /* page of RAM, meaningless without host */
    bool watched;      /* of a write to RAM: go through watch_begin_write */
};

/* 0 or -ENOMEM. */
int mmu_create(struct engine_cpu *self);
void mmu_destroy(struct engine_cpu *self);

/* Translate through the current data (or execute) context and remember it in the TLB. Does not
 * look beyond the page of `va`. False: an exception is pending. */
bool mmu_resolve(struct engine_cpu *self, uint64_t va, enum cpu_access access,
                 struct mmu_page *page);

void mmu_switch(struct cpu *cpu, struct mmu_key data, struct mmu_key execute);
void mmu_flush(struct engine_cpu *self, const struct flush_request *request);

/* Any thread, with the watch lock held and the page's watch flag set: take write permission for a
 * page of RAM from every entry of this CPU. True when there was one. */
bool mmu_revoke_writes(struct engine_cpu *target, const uint8_t *host_page);

/* Remember `block` for `pc` in the current execute context. */
void mmu_jump_insert(struct engine_cpu *self, uint64_t pc, struct block *block);
/* Forget all of them, in all contexts. */
void mmu_jumps_clear(struct engine_cpu *self);

#endif
