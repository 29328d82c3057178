/*
 * What a guest instruction set gives to the engine: one constant `struct isa` each.
 *
 * Nothing here knows which tier runs the code. All functions are called on the CPU's own thread.
 */
#ifndef POLYVISOR_ISA_ISA_H
#define POLYVISOR_ISA_ISA_H

#include "libshared/ir/ir.h"
#include "libshared/isa/cpu.h"

/* Which NaN an operation yields when it has NaN operands or is invalid. */
enum isa_nan_rule { ISA_NAN_CANONICAL, ISA_NAN_X86, ISA_NAN_ARM };

/* Guest code to decode. Bytes are a private copy: they cannot change under the decoder. */
struct isa_code {
    const uint8_t *page;      /* the 4096 bytes of the page */
    const uint8_t *next_page; /* bytes after it, or NULL while unknown */
    uint16_t start;           /* page offset of the first instruction */
    uint16_t insn_limit;      /* at most this many instructions, 1 to IR_INSNS_MAX */
    uint32_t mode;            /* cpu->block_mode */
};

enum isa_decode_result {
    ISA_DECODED,
    ISA_NEEDS_NEXT_PAGE, /* the first instruction crosses the page: call again with next_page */
};

/* Result of a page-table walk. */
struct mmu_translation {
    uint64_t physical;  /* of the address asked for */
    uint64_t page_size; /* of the leaf, at least 4096; permission may be cached for 4096 only */
    bool read, write, execute; /* what the TLB may cache now (write only once dirty is set) */
    bool global; /* holds in every address space with translation, for the same key.flags, and
                    outlasts flushes that name a root */
};

struct isa {
    const char *name; /* "riscv64" */
    size_t cpu_size;  /* bytes of the whole CPU state */
    const struct ir_global *globals;
    const struct ir_helper *helpers;
    enum isa_nan_rule nan_rule;
    bool precise_code_writes; /* a store into the instructions that follow is seen by them at once
                                 (x86_64); otherwise at the next block or fetch barrier */

    /* Power-on state. The machine then sets pc and boot registers. */
    void (*reset)(struct cpu *cpu);
    /* Build the block that starts at code->start. Undecodable bytes become a block that raises the
     * guest's exception; decoding never fails otherwise and never reads outside the given bytes.
     * Instructions that cross the page end get a block of their own. */
    enum isa_decode_result (*decode)(struct ir_block *block, const struct isa_code *code);
    /* Walk the page tables for one access of the given key. True: *out is filled. False: an
     * exception is pending with the right cause and value (`va`). Updates A/D bits atomically. */
    bool (*translate)(struct cpu *cpu, struct mmu_key key, uint64_t va, enum cpu_access access,
                      struct mmu_translation *out);
    /* Raise the exception for an access that physical memory refused, or that must be aligned. */
    void (*raise_access_fault)(struct cpu *cpu, uint64_t va, enum cpu_access access);
    void (*raise_misaligned)(struct cpu *cpu, uint64_t va, enum cpu_access access);
    /* Enter the handler of the pending exception; cpu->pc is the faulting instruction. Clears
     * cpu->exception, sets pc, block mode and MMU mode. */
    void (*deliver_exception)(struct cpu *cpu);
    /* True when an interrupt would be taken now, or would end a wait (`wake`: enabled or not
     * globally). Reads lines that other threads set. */
    bool (*interrupt_pending)(struct cpu *cpu, bool wake);
    /* Enter the handler of the most urgent interrupt; cpu->pc is where to return to. */
    void (*deliver_interrupt)(struct cpu *cpu);
    /* One line of text for a guest instruction, for logs and `vmctl disas`; returns its length in
     * bytes (0 when undecodable). May be NULL. */
    unsigned (*disassemble)(const uint8_t *bytes, unsigned available, uint64_t pc, char *text,
                            size_t size);
    /* Translate a code address as the CPU's present address space has it, without raising,
     * accessed bits or permission checks: for debuggers. False: not mapped. May be NULL. The CPU
     * runs no guest code meanwhile; any thread. */
    bool (*debug_translate)(struct cpu *cpu, uint64_t va, uint64_t *physical);
    /* Likewise by a key that the CPU has had, while it may run: what it changes meanwhile makes the
     * answer a guess, for the caller to check. Any thread. May be NULL. */
    bool (*guess_translation)(struct cpu *cpu, struct mmu_key key, uint64_t va, uint64_t *physical);
};

extern const struct isa isa_riscv64;

#endif
