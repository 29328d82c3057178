/*
 * The common head of every guest CPU's state, and what guest code needs of its surroundings.
 *
 * An ISA's own state (`struct riscv64_cpu`) begins with a `struct cpu`. One host thread owns a CPU
 * and is the only one to touch it, except for the fields marked "any thread". The offsets of the
 * fields up to `temps` are known to every code generator.
 */
#ifndef POLYVISOR_ISA_CPU_H
#define POLYVISOR_ISA_CPU_H

#include "libshared/ir/ir.h"
#include "libshared/mem/memory.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reasons to leave guest code at the next poll. Set by any thread, cleared by the owner. */
enum cpu_attention {
    CPU_ATTENTION_INTERRUPT = 1, /* an interrupt line or timer changed */
    CPU_ATTENTION_FLUSH = 2,     /* the engine has TLB or code work for this CPU */
    CPU_ATTENTION_PAUSE = 4,     /* stop at the next instruction border */
    CPU_ATTENTION_STOP = 8,      /* leave for good */
    CPU_ATTENTION_STEP = 16,     /* the engine: leave after each block (lockstep) */
    CPU_ATTENTION_LEAVE = 32,    /* the machine: return from engine_run before the next block */
    CPU_ATTENTION_PROFILE = 64,  /* the engine: note which blocks run */
};

/* Soft-TLB entry. A tag is a virtual page address, with one of these bits when the page is not to
 * be accessed directly. The hit test of an access of s bytes at va is ((va + s - 1) & ~0xfff) ==
 * tag, entry index from va: a page-crossing access misses because its last byte's page has another
 * tag. One that must be aligned may be tested at once by (va & (~0xfff | (s - 1))) == tag: the bits
 * are beyond those of any misalignment (s is 16 at most), or it would hit what must be slow. */
#define TLB_EMPTY 16u /* no page at all; the tag is this and nothing else */
#define TLB_SLOW  32u /* MMIO, watched or code-bearing page: always take the slow path */

struct tlb_entry {
    uint64_t tag_read;
    _Atomic uint64_t tag_write; /* other threads may clear it (write permission revoked) */
    uint64_t tag_exec;
    uint64_t addend; /* host address = va + addend */
};
_Static_assert(sizeof(struct tlb_entry) == 32, "code generators scale the index by shifting");

enum cpu_access { CPU_ACCESS_READ, CPU_ACCESS_WRITE, CPU_ACCESS_EXECUTE };

struct isa;
struct cpu_host;
struct block;
struct block_exit;
struct jump_entry;
struct region_runtime;

/* First in the state are what nearly every piece of compiled code touches and the ISA's integer
 * registers: within CPU_NEAR_BYTES, a host instruction names a field by a displacement of one byte
 * from CPU_MIDDLE. */
#define CPU_NEAR_BYTES 256u
#define CPU_MIDDLE     128
/* Integer registers that an ISA may keep in `registers`. */
#define CPU_REGISTERS 32u

struct cpu {
    _Atomic uint32_t attention; /* any thread; enum cpu_attention */
    uint32_t block_mode;        /* whatever the decoder depends on; ISA-defined bits */
    uint64_t retired;           /* guest instructions, exact between blocks and inside helpers */
    uint64_t page_base;         /* virtual base of the page of the block that runs */
    struct jump_entry *jumps;   /* jump cache of the current execute mode */
    uint64_t registers[CPU_REGISTERS]; /* the ISA's, which gives them their names */

    uint64_t pc;                /* valid between blocks and inside helpers and slow paths */
    struct tlb_entry *tlb_data; /* table of the current data mode */
    uint64_t tlb_data_mask;     /* entries - 1 */
    struct tlb_entry *tlb_exec;
    uint64_t tlb_exec_mask;
    uint32_t index;     /* number in the machine */
    uint32_t exception; /* 0, or ISA-defined cause + 1: deliver before anything else */
    uint64_t exception_value;
    uint32_t fp_flags; /* sticky, beyond what the thread's own FP unit holds; RISC-V fflags bits */
    uint32_t waiting;  /* set by a wait-for-interrupt helper: sleep when the block has ended */
    void *engine;      /* the engine's per-CPU data */
    const struct isa *isa;
    const struct cpu_host *host;
    void *host_data; /* for cpu_host functions: the machine */
    struct memory *memory;
    struct block *block;                  /* the engine's: the block that runs */
    struct block_exit *exit;              /* the exit that could not be followed */
    const struct region_runtime *runtime; /* what compiled regions call (libshared/jit/runtime.h) */
    uint64_t retired_optimised;           /* of `retired`, those in compiled regions */
    /* The interpreter's temporaries, 16 bytes each. Two more: one to discard results in, one that
     * stays zero. */
    _Alignas(16) uint64_t temps[(IR_TEMPS_MAX + 2) * 2];
};
_Static_assert(offsetof(struct cpu, registers[27]) + 8 <= CPU_NEAR_BYTES,
               "most registers are near");

/* Which address space and permissions memory accesses use: the key of a TLB table. */
struct mmu_key {
    uint64_t root; /* satp, CR3 + PCID, TTBRs: whatever names the address space; 0 = untranslated */
    uint32_t flags; /* privilege and permission modifiers (SUM, MXR, ...); ISA-defined */
};

/* What the engine and machine offer to guest CPU code. Called on the CPU's own thread. */
struct cpu_host {
    /* The MMU mode changed: swap tables. Cheap for a mode used recently. */
    void (*mmu_switch)(struct cpu *cpu, struct mmu_key data, struct mmu_key execute);
    /* Forget translations of this CPU. any_root: in all address spaces, otherwise those whose
     * (key.root & root_mask) == root. any_page: all addresses, otherwise the page of `va` (and a
     * large page around it, if that is how it was cached). Returns the number of entries dropped.
     */
    void (*tlb_flush)(struct cpu *cpu, bool any_root, uint64_t root, uint64_t root_mask,
                      bool any_page, uint64_t va);
    /* Instruction-fetch barrier: after it, this CPU runs what memory holds now. */
    void (*fetch_barrier)(struct cpu *cpu);
    /* The guest waits in a loop for another CPU. May be NULL. */
    void (*pause)(struct cpu *cpu);
    /* Guest clock in ticks of the machine's timebase. */
    uint64_t (*time)(struct cpu *cpu);
    /* The CPU's next timer deadline changed (ticks; UINT64_MAX = none). */
    void (*timer_changed)(struct cpu *cpu, unsigned timer, uint64_t deadline);
    /* An environment call reached the machine's built-in firmware. True when it was handled. */
    bool (*firmware_call)(struct cpu *cpu);
    /* Physical access outside RAM. False: no such address (access fault). size 1, 2, 4 or 8. */
    bool (*mmio_read)(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value);
    bool (*mmio_write)(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value);
};

/* Make an exception pending; helpers and MMU code return right after. */
static inline void cpu_raise(struct cpu *cpu, uint32_t cause, uint64_t value)
{
    cpu->exception = cause + 1;
    cpu->exception_value = value;
}

/* Any thread: ask the CPU to look up from guest code. (Waking a sleeping one: engine.h.) */
static inline void cpu_attention(struct cpu *cpu, uint32_t reasons)
{
    atomic_fetch_or_explicit(&cpu->attention, reasons, memory_order_seq_cst);
}

#endif
