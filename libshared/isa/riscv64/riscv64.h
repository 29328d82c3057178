/*
 * RISC-V RV64GC guest CPU: state, and what a machine needs to drive it.
 *
 * Owner thread only, except `lines` and `counter` fields as noted. Source: The RISC-V Instruction
 * Set Manual, volume I (20240411) and volume II (privileged, 1.12 and ratified extensions).
 */
#ifndef POLYVISOR_ISA_RISCV64_RISCV64_H
#define POLYVISOR_ISA_RISCV64_RISCV64_H

#include "libshared/isa/isa.h"

enum riscv64_privilege { RISCV64_USER = 0, RISCV64_SUPERVISOR = 1, RISCV64_MACHINE = 3 };

/* Interrupt numbers = bits of mip/mie. */
enum riscv64_interrupt {
    RISCV64_IRQ_SSOFT = 1,
    RISCV64_IRQ_MSOFT = 3,
    RISCV64_IRQ_STIMER = 5,
    RISCV64_IRQ_MTIMER = 7,
    RISCV64_IRQ_SEXT = 9,
    RISCV64_IRQ_MEXT = 11,
};

struct riscv64_csrs {
    uint64_t mstatus, misa, medeleg, mideleg, mie, mtvec, mcounteren, menvcfg, mcountinhibit;
    uint64_t mscratch, mepc, mcause, mtval, mseccfg;
    uint64_t sie_unused, stvec, scounteren, senvcfg, sscratch, sepc, scause, stval, satp;
    uint64_t stimecmp;
    uint64_t software_mip;   /* mip bits that software wrote (SSIP, STIP, SEIP) */
    uint64_t cycle_offset, instret_offset; /* added to the running counts, for writes to mcycle.. */
    uint64_t pmpcfg[2], pmpaddr[16];
    uint64_t mhpmevent[32], mhpmcounter[32];
};

struct riscv64_cpu {
    struct cpu cpu;
    uint64_t x[32]; /* x[0] stays 0: decoders never name it as a destination */
    uint64_t f[32]; /* f32 values are NaN-boxed */
    uint8_t privilege; /* enum riscv64_privilege */
    uint8_t frm;
    uint64_t hart_id;
    struct riscv64_csrs csr;
    uint64_t reservation_address; /* physical; all ones = none (the engine's lr/sc) */
    uint64_t reservation_value;
    uint32_t reservation_kind;
    /* mip bits that hardware drives (MSIP, MTIP, SEIP, MEIP, STIP by Sstc): any thread, atomic. */
    _Atomic uint64_t lines;
};

/* Any thread: drive an interrupt line into mip and ask for attention when it rose. The caller wakes a sleeping CPU. */
void riscv64_set_line(struct riscv64_cpu *cpu, enum riscv64_interrupt line, bool level);

/* Put a reset CPU into the state a boot loader hands over: privilege, pc, a0 = hart id, a1. For
 * SUPERVISOR: delegation, counters, menvcfg (Sstc, Svadu, Svpbmt, cache-block operations) and PMP are set up as
 * OpenSBI leaves them, satp 0, interrupts off. */
void riscv64_boot(struct riscv64_cpu *cpu, enum riscv64_privilege privilege, uint64_t pc,
                  uint64_t hart_id, uint64_t a1);

/* The "riscv,isa" string and the list for "riscv,isa-extensions" (NULL-terminated) of this CPU. */
const char *riscv64_isa_string(void);
const char *const *riscv64_isa_extensions(void);

/* Register names for dumps: "zero", "ra", ...; index 0 to 31. */
const char *riscv64_register_name(unsigned index);

#endif
