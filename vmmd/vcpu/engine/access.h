/*
 * Guest memory accesses that the inlined hit path does not take: misses, page-crossing ones,
 * devices, watched pages, alignment rules. Called on the CPU's own thread with cpu->pc on the
 * accessing instruction.
 */
#ifndef POLYVISOR_VCPU_ENGINE_ACCESS_H
#define POLYVISOR_VCPU_ENGINE_ACCESS_H

#include "vmmd/vcpu/engine/core.h"

/* Guest RAM is read and written by several threads at once without any order but the guest's own:
 * such races are the guest's business, so the primitives are exempt from the race detector.
 * Volatile keeps each access a single instruction, as the guest's atomicity rules ask. */
typedef uint16_t guest_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t guest_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t guest_u64 __attribute__((aligned(1), may_alias));
#define GUEST_ACCESS __attribute__((no_sanitize("thread")))

GUEST_ACCESS static inline void guest_read(const uint8_t *host, unsigned size_log2,
                                           uint64_t value[2])
{
    switch (size_log2) {
    case 0:
        value[0] = *(const volatile uint8_t *)host;
        break;
    case 1:
        value[0] = *(const volatile guest_u16 *)host;
        break;
    case 2:
        value[0] = *(const volatile guest_u32 *)host;
        break;
    case 4:
        value[1] = *(const volatile guest_u64 *)(host + 8);
        __attribute__((fallthrough));
    default:
        value[0] = *(const volatile guest_u64 *)host;
        break;
    }
}

GUEST_ACCESS static inline void guest_write(uint8_t *host, unsigned size_log2,
                                            const uint64_t value[2])
{
    switch (size_log2) {
    case 0:
        *(volatile uint8_t *)host = (uint8_t)value[0];
        break;
    case 1:
        *(volatile guest_u16 *)host = (uint16_t)value[0];
        break;
    case 2:
        *(volatile guest_u32 *)host = (uint32_t)value[0];
        break;
    case 4:
        *(volatile guest_u64 *)(host + 8) = value[1];
        __attribute__((fallthrough));
    default:
        *(volatile guest_u64 *)host = value[0];
        break;
    }
}

/* aux: IR_MEM_SIZE and IR_MEM_ALIGN count. Values are zero-extended; value[1] is used by 16-byte
 * accesses only. False: an exception is pending and nothing was stored. */
bool access_load(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t value[2]);
bool access_store(struct cpu *cpu, uint64_t va, unsigned aux, const uint64_t value[2]);

#endif
