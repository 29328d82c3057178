/* The inlined TLB hit test of the interpreter's memory handlers; the rule is in cpu.h. */
#ifndef POLYVISOR_VCPU_ENGINE_INTERP_TLB_H
#define POLYVISOR_VCPU_ENGINE_INTERP_TLB_H

#include "vmmd/vcpu/engine/interp.h"

static inline struct tlb_entry *tlb_at(char *tlb, uint64_t tlb_mask, uint64_t va)
{
    _Static_assert(sizeof(struct tlb_entry) == 32, "an entry's offset is its page number * 32");
    return (struct tlb_entry *)(void *)(tlb + ((va >> (MEMORY_PAGE_SHIFT - 5)) & tlb_mask));
}

static inline uint64_t tag_for(uint64_t va, uint64_t size)
{
    return (va + size - 1) & PAGE_MASK;
}

static inline bool tlb_hit_read(const struct tlb_entry *entry, uint64_t va, uint64_t size)
{
    return __builtin_expect(entry->tag_read == tag_for(va, size), 1);
}

static inline bool tlb_hit_write(struct tlb_entry *entry, uint64_t va, uint64_t size)
{
    uint64_t tag = atomic_load_explicit(&entry->tag_write, memory_order_relaxed);
    return __builtin_expect(tag == tag_for(va, size), 1);
}

static inline uint8_t *tlb_host(const struct tlb_entry *entry, uint64_t va)
{
    return (uint8_t *)(uintptr_t)(va + entry->addend);
}

/* What to run after a store that took the slow path: the next step, or, when the store hit the
 * block that runs and the guest is promised to see that at once, the rest of the instruction. */
static inline const struct xinsn *interp_after_store(struct cpu *cpu, const struct xinsn *ip)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    if (__builtin_expect(self->self_modified && cpu->isa->precise_code_writes, 0) &&
        (ip < self->rest || ip >= self->rest + sizeof(self->rest) / sizeof(self->rest[0]))) {
        return lower_rest_of_insn(self, ip);
    }
    return ip + 1;
}

#endif
