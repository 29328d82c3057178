/*
 * Atomic accesses beyond the inlined path: load-reserved and store-conditional, read-modify-write
 * and compare-and-swap on pages that miss the TLB or are watched. CPU's own thread; cpu->pc is on
 * the instruction. False: an exception is pending.
 */
#ifndef POLYVISOR_VCPU_ENGINE_EXCLUSIVE_H
#define POLYVISOR_VCPU_ENGINE_EXCLUSIVE_H

#include "vmmd/vcpu/engine/core.h"

/* Results are raw: zero-extended, whatever IR_MEM_SIGN says. */
bool exclusive_load_reserved(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t *value);
/* *failed: 0 stored, 1 not. */
bool exclusive_store_conditional(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t value,
                                 uint64_t *failed);
/* The operation is in aux (enum ir_amo). */
bool exclusive_amo(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t operand, uint64_t *old);
bool exclusive_compare_swap(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t expected,
                            uint64_t desired, uint64_t *old);

/* With the watch lock: [physical, + size) is about to be stored to, by `self` or another thread. */
void exclusive_store_seen(struct engine *engine, struct engine_cpu *self, uint64_t index,
                          uint64_t physical, unsigned size);

/* A guest's acquire holds back what follows until the whole operation was done, its store included.
 * The host's atomics do so themselves (x86-64), or their store may be late (arm64's exclusives). */
static inline void exclusive_settle(void)
{
#if !defined(__x86_64__)
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* The host's atomic read-modify-write; `host` is aligned. */
uint64_t exclusive_apply(uint8_t *host, unsigned operation, unsigned size_log2, uint64_t operand);
/* Compare-and-swap; returns the old value. */
uint64_t exclusive_exchange(uint8_t *host, unsigned size_log2, uint64_t expected, uint64_t desired);

#endif
