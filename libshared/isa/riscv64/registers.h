/*
 * Encodings of the privileged architecture: status bits, causes, page-table entries, PMP.
 * Source: The RISC-V Instruction Set Manual, volume II.
 */
#ifndef POLYVISOR_ISA_RISCV64_REGISTERS_H
#define POLYVISOR_ISA_RISCV64_REGISTERS_H

#include <stdint.h>

#define BIT64(n) (UINT64_C(1) << (n))

/* mstatus and sstatus */
#define STATUS_SIE  BIT64(1)
#define STATUS_MIE  BIT64(3)
#define STATUS_SPIE BIT64(5)
#define STATUS_MPIE BIT64(7)
#define STATUS_SPP  BIT64(8)
#define STATUS_MPP  (UINT64_C(3) << 11)
#define STATUS_FS   (UINT64_C(3) << 13)
#define STATUS_MPRV BIT64(17)
#define STATUS_SUM  BIT64(18)
#define STATUS_MXR  BIT64(19)
#define STATUS_TVM  BIT64(20)
#define STATUS_TW   BIT64(21)
#define STATUS_TSR  BIT64(22)
#define STATUS_UXL  (UINT64_C(3) << 32)
#define STATUS_SXL  (UINT64_C(3) << 34)
#define STATUS_SD   BIT64(63)

#define STATUS_MPP_SHIFT 11
#define STATUS_FS_SHIFT  13
#define STATUS_FS_DIRTY  STATUS_FS /* both bits */
#define STATUS_XL_64     (UINT64_C(2) << 32 | UINT64_C(2) << 34)

/* What sstatus shows of mstatus. */
#define STATUS_SUPERVISOR_WRITABLE                                                                 \
    (STATUS_SIE | STATUS_SPIE | STATUS_SPP | STATUS_FS | STATUS_SUM | STATUS_MXR)
#define STATUS_SUPERVISOR_READABLE (STATUS_SUPERVISOR_WRITABLE | STATUS_UXL | STATUS_SD)
#define STATUS_MACHINE_WRITABLE                                                                    \
    (STATUS_SUPERVISOR_WRITABLE | STATUS_MIE | STATUS_MPIE | STATUS_MPP | STATUS_MPRV |            \
     STATUS_TVM | STATUS_TW | STATUS_TSR)

/* mip, mie */
#define IRQ_SSOFT  BIT64(1)
#define IRQ_MSOFT  BIT64(3)
#define IRQ_STIMER BIT64(5)
#define IRQ_MTIMER BIT64(7)
#define IRQ_SEXT   BIT64(9)
#define IRQ_MEXT   BIT64(11)

#define IRQ_SUPERVISOR (IRQ_SSOFT | IRQ_STIMER | IRQ_SEXT)
#define IRQ_ALL        (IRQ_SUPERVISOR | IRQ_MSOFT | IRQ_MTIMER | IRQ_MEXT)

#define CAUSE_INTERRUPT BIT64(63)

enum riscv64_cause {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_USER_CALL = 8,
    CAUSE_SUPERVISOR_CALL = 9,
    CAUSE_MACHINE_CALL = 11,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15,
};

/* Bits of medeleg that exist: an environment call from machine mode is never delegated. */
#define DELEGABLE_EXCEPTIONS UINT64_C(0xb3ff)

/* menvcfg; senvcfg has the low ones */
#define ENVCFG_FIOM       BIT64(0)
#define ENVCFG_CBIE       (UINT64_C(3) << 4)
#define ENVCFG_CBIE_FLUSH (UINT64_C(1) << 4)
#define ENVCFG_CBIE_WRONG (UINT64_C(2) << 4) /* reserved */
#define ENVCFG_CBCFE      BIT64(6)
#define ENVCFG_CBZE       BIT64(7)
#define ENVCFG_ADUE       BIT64(61)
#define ENVCFG_PBMTE      BIT64(62)
#define ENVCFG_STCE       BIT64(63)

#define ENVCFG_SUPERVISOR (ENVCFG_FIOM | ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE)
#define ENVCFG_MACHINE    (ENVCFG_SUPERVISOR | ENVCFG_ADUE | ENVCFG_PBMTE | ENVCFG_STCE)

/* mcounteren, scounteren, mcountinhibit */
#define COUNTER_CYCLE   BIT64(0)
#define COUNTER_TIME    BIT64(1)
#define COUNTER_INSTRET BIT64(2)

/* satp */
#define SATP_MODE_SHIFT 60
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK  (UINT64_C(0xffff) << SATP_ASID_SHIFT)
#define SATP_PPN_MASK   (BIT64(44) - 1)
enum riscv64_satp_mode { SATP_BARE = 0, SATP_SV39 = 8, SATP_SV48 = 9, SATP_SV57 = 10 };

/* page-table entries */
#define PTE_V         BIT64(0)
#define PTE_R         BIT64(1)
#define PTE_W         BIT64(2)
#define PTE_X         BIT64(3)
#define PTE_U         BIT64(4)
#define PTE_G         BIT64(5)
#define PTE_A         BIT64(6)
#define PTE_D         BIT64(7)
#define PTE_PPN_SHIFT 10
#define PTE_RESERVED  (UINT64_C(0x7f) << 54)
#define PTE_PBMT      (UINT64_C(3) << 61)
#define PTE_N         BIT64(63)

#define PHYSICAL_BITS 56

/* mmu_key.flags: the privilege in the low bits, then */
#define MMU_FLAG_PRIVILEGE 3u
#define MMU_FLAG_SUM       4u
#define MMU_FLAG_MXR       8u

/* pmpcfg bytes */
enum riscv64_pmp_permission { PMP_READ = 1, PMP_WRITE = 2, PMP_EXECUTE = 4 };
#define PMP_ALL        (PMP_READ | PMP_WRITE | PMP_EXECUTE)
#define PMP_MODE       0x18u
#define PMP_MODE_OFF   0x00u
#define PMP_MODE_TOR   0x08u
#define PMP_MODE_NA4   0x10u
#define PMP_MODE_NAPOT 0x18u
#define PMP_LOCKED     0x80u

/* Block mode: what decoding depends on besides the bytes. Low bits the FP unit's state, then frm
 * (0 while the unit is off, so that integer code does not multiply), then whether the supervisor's
 * CSRs may be used: not by user mode. */
#define BLOCK_MODE_FS        3u
#define BLOCK_MODE_FS_OFF    0u
#define BLOCK_MODE_FS_CLEAN  1u /* initial or clean: the first write marks it dirty */
#define BLOCK_MODE_FS_DIRTY  2u
#define BLOCK_MODE_FRM_SHIFT 2
#define BLOCK_MODE_SYSTEM    0x20u

#endif
