/*
 * The supervisor-level interrupt file of a hart's IMSIC: identities that are pending, those that
 * are enabled, and what software configured.
 *
 * Source: The RISC-V Advanced Interrupt Architecture 1.0, chapter 3. The owner is the hart's
 * thread: it alone enables, configures and clears. Any thread makes an identity pending, without a
 * lock: the bit first, then a look at the rest, where the owner stores the rest first and then
 * looks at the bits. So one of the two finds an interrupt that is due.
 */
#ifndef POLYVISOR_ISA_RISCV64_IMSIC_H
#define POLYVISOR_ISA_RISCV64_IMSIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RISCV64_IMSIC_IDENTITIES 255u /* 1 to this; one less than a multiple of 64 */
#define RISCV64_IMSIC_WORDS      ((RISCV64_IMSIC_IDENTITIES + 1) / 64)
_Static_assert((RISCV64_IMSIC_IDENTITIES + 1) % 64 == 0, "3.1: N = 64 n - 1");

/* Alone in its cache lines: other threads write it while the hart runs. */
struct riscv64_imsic {
    _Alignas(64) _Atomic uint64_t pending[RISCV64_IMSIC_WORDS]; /* any thread sets */
    _Atomic uint64_t messages; /* that arrived, for statistics; any thread */
    /* The owner's; others read. */
    _Alignas(64) _Atomic uint64_t enabled[RISCV64_IMSIC_WORDS];
    _Atomic uint32_t
        delivery; /* eidelivery: 0 or 1. There is nobody else to deliver (0x40000000) */
    _Atomic uint32_t threshold; /* eithreshold: 0 = none */
};

/* Any thread: a message arrived. True when the hart has to look up, for it did not know of it. An
 * identity that does not exist: nothing happens, false. */
bool riscv64_imsic_message(struct riscv64_imsic *file, uint64_t identity);
/* The most urgent identity that is pending, enabled and under the threshold; 0 = none. Delivery
 * does not matter. */
unsigned riscv64_imsic_top(const struct riscv64_imsic *file);
/* Whether the file asserts its external interrupt. */
static inline bool riscv64_imsic_asserts(const struct riscv64_imsic *file)
{
    return atomic_load_explicit(&file->delivery, memory_order_relaxed) != 0 &&
           riscv64_imsic_top(file) != 0;
}

/* The owner. Claim an identity: it is no longer pending. */
void riscv64_imsic_claim(struct riscv64_imsic *file, unsigned identity);
/* Whether sireg exists while siselect is `select`, 0x70 to 0xff, of RV64. */
bool riscv64_imsic_has(uint64_t select);
/* Registers by their siselect number. Those that only have no meaning read as zero. */
uint64_t riscv64_imsic_read(const struct riscv64_imsic *file, uint64_t select);
/* Change the bits of `mask` to those of `value`. */
void riscv64_imsic_write(struct riscv64_imsic *file, uint64_t select, uint64_t value,
                         uint64_t mask);

#endif
