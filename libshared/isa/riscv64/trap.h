/* Traps: entry and return, interrupts, and the modes that follow from them. */
#ifndef POLYVISOR_ISA_RISCV64_TRAP_H
#define POLYVISOR_ISA_RISCV64_TRAP_H

#include "libshared/isa/riscv64/riscv64.h"

/* Recompute the block mode and the MMU keys after privilege, mstatus, satp or frm changed; tells
 * the engine when the keys are new. */
void riscv64_update_modes(struct riscv64_cpu *cpu);
/* Ask for attention when an interrupt is due: after anything that may enable one. */
void riscv64_update_attention(struct riscv64_cpu *cpu);
/* Compare stimecmp with the clock: sets or clears the line and programs the timer. */
void riscv64_update_supervisor_timer(struct riscv64_cpu *cpu);

/* mip as software reads it. */
uint64_t riscv64_mip(const struct riscv64_cpu *cpu);

/* The interrupt that stopi shows: the most urgent one pending and enabled for the supervisor,
 * whether or not it takes interrupts now; 0 = none. */
unsigned riscv64_top_supervisor_interrupt(struct riscv64_cpu *cpu);

/* MRET and SRET: set pc and modes. The caller has checked the privilege. */
void riscv64_return_machine(struct riscv64_cpu *cpu);
void riscv64_return_supervisor(struct riscv64_cpu *cpu);

/* struct isa */
void riscv64_deliver_exception(struct cpu *cpu);
bool riscv64_interrupt_pending(struct cpu *cpu, bool wake);
void riscv64_deliver_interrupt(struct cpu *cpu);

static inline struct riscv64_cpu *riscv64_cpu(struct cpu *cpu)
{
    return (struct riscv64_cpu *)cpu;
}

#endif
