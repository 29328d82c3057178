/* Address translation and physical memory protection. */
#ifndef POLYVISOR_ISA_RISCV64_MMU_H
#define POLYVISOR_ISA_RISCV64_MMU_H

#include "libshared/isa/riscv64/riscv64.h"

/* Levels of the page table that satp selects; 0 = untranslated, -1 = no such mode. */
int riscv64_satp_levels(uint64_t satp);

/* The address space and permissions of loads and stores (MPRV counts) and of fetches. */
struct mmu_key riscv64_data_key(const struct riscv64_cpu *cpu);
struct mmu_key riscv64_execute_key(const struct riscv64_cpu *cpu);

/* struct isa */
bool riscv64_translate(struct cpu *cpu, struct mmu_key key, uint64_t va, enum cpu_access access,
                       struct mmu_translation *out);
void riscv64_raise_access_fault(struct cpu *cpu, uint64_t va, enum cpu_access access);
void riscv64_raise_misaligned(struct cpu *cpu, uint64_t va, enum cpu_access access);
bool riscv64_debug_translate_code(struct cpu *cpu, uint64_t va, uint64_t *physical);
bool riscv64_guess_translation(struct cpu *cpu, struct mmu_key key, uint64_t va,
                               uint64_t *physical);

/* Forget all translations of this CPU. */
void riscv64_flush_all(struct riscv64_cpu *cpu);

/* --- physical memory protection: pmp.c ------------------------------------------------------ */

/* What `privilege` may do (enum riscv64_pmp_permission) with the page that holds `physical`. The
 * grain is a page, so one answer serves all of it. */
unsigned riscv64_pmp_permissions(const struct riscv64_cpu *cpu, uint64_t physical,
                                 unsigned privilege);
/* Writes as software makes them: locked entries stay, reserved settings are replaced by legal
 * ones, translations are dropped. `index`: of the 8 entries' group; of the entry. */
void riscv64_pmp_write_config(struct riscv64_cpu *cpu, unsigned index, uint64_t value);
void riscv64_pmp_write_address(struct riscv64_cpu *cpu, unsigned index, uint64_t value);
uint64_t riscv64_pmp_read_address(const struct riscv64_cpu *cpu, unsigned index);
/* After the registers were set directly. */
void riscv64_pmp_update(struct riscv64_cpu *cpu);

#endif
