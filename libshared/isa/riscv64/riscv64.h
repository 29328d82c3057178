/*
 * RISC-V RV64GC guest CPU: state, and what a machine needs to drive it.
 *
 * Owner thread only, except `lines` and `imsic` as noted. Source: The RISC-V Instruction Set
 * Manual, volume I (20240411) and volume II (privileged, 1.12 and ratified extensions).
 */
#ifndef POLYVISOR_ISA_RISCV64_RISCV64_H
#define POLYVISOR_ISA_RISCV64_RISCV64_H

#include "libshared/isa/isa.h"
#include "libshared/isa/riscv64/imsic.h"

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

/* Timers named in cpu_host.timer_changed. */
enum riscv64_timer { RISCV64_TIMER_STIMECMP = 0, RISCV64_TIMER_MTIMECMP = 1 };

/* Bytes of a cache block, for cbo.* and the device tree. */
#define RISCV64_CACHE_BLOCK 64u

#define RISCV64_PMP_ENTRIES 16

struct riscv64_csrs {
    uint64_t mstatus, misa, medeleg, mideleg, mie, mtvec, mcounteren, menvcfg, mcountinhibit;
    uint64_t mscratch, mepc, mcause, mtval;
    uint64_t stvec, scounteren, senvcfg, sscratch, sepc, scause, stval, satp;
    uint64_t stimecmp;
    uint64_t software_mip; /* STIP and SEIP as software wrote them (SSIP lives in `lines`) */
    /* Counter = retired + offset while it runs, = offset while mcountinhibit stops it. */
    uint64_t cycle_offset, instret_offset;
    uint64_t pmpcfg[2], pmpaddr[RISCV64_PMP_ENTRIES];
    uint64_t siselect;
};

/* A PMP entry made ready for look-up; empty when first > last. */
struct riscv64_pmp_region {
    uint64_t first, last; /* physical, inclusive */
    uint8_t permissions;  /* enum riscv64_pmp_permission */
    bool locked;
};

struct riscv64_cpu {
    union {
        struct cpu cpu;
        struct {
            uint8_t before_x[offsetof(struct cpu, registers)];
            uint64_t x[CPU_REGISTERS]; /* x[0] stays 0: decoders never name it as a destination */
        };
    };
    uint64_t f[32];    /* f32 values are NaN-boxed */
    uint8_t privilege; /* enum riscv64_privilege */
    uint8_t frm;
    uint64_t hart_id;
    struct riscv64_csrs csr;
    /* mip bits that come from outside (MSIP, MTIP, SEIP, MEIP, STIP by Sstc), and SSIP, which the
     * guest clears here: any thread, atomic. */
    _Atomic uint64_t lines;
    /* Derived from the above. */
    struct mmu_key data_key, execute_key; /* as last given to cpu_host.mmu_switch */
    struct riscv64_pmp_region pmp[RISCV64_PMP_ENTRIES];
    unsigned pmp_count; /* entries in use: the highest non-empty one + 1 */
    /* Ssaia: set by the machine after a reset, when it has the controllers for it. */
    bool has_aia;
    uint32_t stopei; /* as last read: what a write claims */
    struct riscv64_imsic imsic;
};

/* Any thread: drive an interrupt line into mip and ask for attention when it rose. The caller
 * wakes a sleeping CPU. SSOFT is an edge: raising it sets mip.SSIP, which the guest clears. */
void riscv64_set_line(struct riscv64_cpu *cpu, enum riscv64_interrupt line, bool level);

/* Put a reset CPU into the state a boot loader hands over: privilege, pc, a0 = hart id, a1. For
 * SUPERVISOR: delegation, counters, menvcfg (Sstc, Svadu, Svpbmt, cache-block operations) and PMP
 * are set up as OpenSBI leaves them, satp 0, interrupts off. Exceptions other than environment
 * calls are all delegated, as there is no machine-mode software to forward them. */
void riscv64_boot(struct riscv64_cpu *cpu, enum riscv64_privilege privilege, uint64_t pc,
                  uint64_t hart_id, uint64_t a1);

/* Any thread: a message-signalled interrupt for the hart; its attention is asked for when it does
 * not know of it yet. True: the caller wakes a sleeping CPU. */
bool riscv64_message(struct riscv64_cpu *cpu, uint64_t identity);

/* The "riscv,isa" string and the list for "riscv,isa-extensions" (NULL-terminated) of this CPU,
 * with or without Ssaia. */
const char *riscv64_isa_string(bool has_aia);
const char *const *riscv64_isa_extensions(bool has_aia);

/* Register names for dumps: "zero", "ra", ...; index 0 to 31. */
const char *riscv64_register_name(unsigned index);
const char *riscv64_float_register_name(unsigned index);

/* The name of a CSR ("sstatus"), written to `name`; false when there is none of that number. */
bool riscv64_csr_name(unsigned number, char *name, size_t size);
/* Read a CSR with machine privilege, for dumps and debuggers. False: no such CSR. */
bool riscv64_csr_peek(struct riscv64_cpu *cpu, unsigned number, uint64_t *value);

/* Translate a data address as the CPU would read it now, without raising, accessed bits or
 * permission checks: for debuggers and dumps. False: not mapped. */
bool riscv64_debug_translate(struct riscv64_cpu *cpu, uint64_t va, uint64_t *physical);

#endif
