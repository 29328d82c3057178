/* Control and status registers: access with all its checks and side effects (csrs.def). */
#ifndef POLYVISOR_ISA_RISCV64_CSR_H
#define POLYVISOR_ISA_RISCV64_CSR_H

#include "libshared/isa/riscv64/riscv64.h"

/* What writing a CSR may change beyond the register, so how code goes on after it. */
enum riscv64_csr_effect {
    CSR_CONTINUE, /* nothing */
    CSR_POLL,     /* an interrupt may become due */
    CSR_MODE,     /* that, or the block mode or MMU mode may change */
};

/* The effect of a CSR instruction: known from its bits. */
enum riscv64_csr_effect riscv64_csr_effect(uint32_t word);

/* What a CSR instruction does besides reading. */
enum csr_operation { CSR_READ = 0, CSR_WRITE = 1, CSR_SET = 2, CSR_CLEAR = 3 };
enum csr_operation riscv64_csr_operation(uint32_t word);

/* Carry out the CSR instruction `word`; `source` is the value of rs1. Stores the register's old
 * value. False, without effect: illegal instruction. */
bool riscv64_csr_execute(struct riscv64_cpu *cpu, uint32_t word, uint64_t source, uint64_t *old);

/* mstatus.FS = dirty, and SD with it. */
void riscv64_mark_float_dirty(struct riscv64_cpu *cpu);

#endif
