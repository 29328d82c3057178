/*
 * What compiled regions and the process that runs them agree on.
 *
 * A region is a function of this type. It is entered, as every compiled block is, at a poll of the
 * attention word's owner: it tests cpu->attention first and then guards its other pages. Guest
 * state is in memory at entry and at every exit; in between it is wherever the compiler likes,
 * except that cpu->pc, cpu->retired and all globals are exact in memory when a function of the
 * runtime (but `reach`) or a helper is called.
 *
 * Leaving:
 * - to a block of the region's pages: store page_base of its page (when it differs), load
 *   exits[i], tail-call its `entry` with the target in the seventh argument;
 * - to any other address: store cpu->pc, tail-call runtime->jump;
 * - for attention, exceptions, `exit` terminators: store cpu->pc (exceptions: the faulting
 *   instruction's) and return: the outer loop goes on.
 *
 * `tlb` and `tlb_mask` (in bytes) are cpu->tlb_data and its mask; reload them after any call of
 * load, store or a helper. (The other functions leave the table where it is.)
 * Host floating-point flags are sticky guest flags: they may be collected at any call.
 */
#ifndef POLYVISOR_JIT_RUNTIME_H
#define POLYVISOR_JIT_RUNTIME_H

#include "libshared/isa/cpu.h"

/* preserve_none: the first arguments stay in registers that nothing saves. (LLVM: number 21.) */
#if __has_attribute(preserve_none)
#define CODE_CALL __attribute__((preserve_none))
#else
#define CODE_CALL
#endif
/* For the runtime's slow functions: they keep all integer registers. (LLVM: number 14.) */
#if __has_attribute(preserve_most) && (defined(__x86_64__) || defined(__aarch64__))
#define CODE_SLOW __attribute__((preserve_most))
#else
#define CODE_SLOW
#endif

/* For the one that loops of floating-point code call: it keeps their numbers, too. (LLVM: 15.) */
#if __has_attribute(preserve_all) && (defined(__x86_64__) || defined(__aarch64__))
#define CODE_SLOW_ALL __attribute__((preserve_all))
#else
#define CODE_SLOW_ALL
#endif

/* Anything that compiled code can jump to; first member of struct block. */
struct code_target {
    void *entry; /* a code_function */
};

typedef CODE_CALL void code_function(struct cpu *cpu, const void *unused_step, char *tlb,
                                     uint64_t tlb_mask, uint64_t unused_a, uint64_t unused_b,
                                     struct code_target *target);

/* What a load-reserved leaves for its store-conditional. A CPU's own; compiled code makes and takes
 * those by value (IR_MEM_CONSTRAINED), with the host's compare-and-swap. */
enum reservation_kind { RESERVATION_NONE, RESERVATION_VALUE, RESERVATION_WATCHED };
struct reservation {
    enum reservation_kind kind;
    unsigned size; /* log2 */
    uint8_t *host;
    uint64_t value; /* zero-extended */
};

/* Reached through cpu->runtime, so code needs no relocation. Any change of this file changes
 * region_abi(). */
struct region_runtime {
    /* An access that missed the inlined test. `aux` as in the IR. load: zero-extended. On return
     * cpu->exception tells whether it faulted (then nothing was stored): return at once. */
    CODE_SLOW uint64_t (*load)(struct cpu *cpu, uint64_t va, uint64_t aux);
    CODE_SLOW void (*store)(struct cpu *cpu, uint64_t va, uint64_t value, uint64_t aux);
    /* For accesses that have to be one host instruction (amo, cas, lr, sc): the host address, with
     * the page writable if `write`, when it can be accessed directly; 0: leave the region before
     * the instruction (cpu->pc is there), the lower tier does it. Raises nothing. */
    CODE_SLOW uint64_t (*translate)(struct cpu *cpu, uint64_t va, uint64_t aux, uint64_t write);
    /* Whether the page at va is executable and is the host page `expected` (pages[i]). */
    CODE_SLOW uint64_t (*page_is)(struct cpu *cpu, uint64_t va, uint64_t expected);
    /* Guest helper `number` of the ISA's table. */
    CODE_SLOW uint64_t (*helper)(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t imm,
                                 uint64_t number);
    /* To cpu->pc by the jump cache, or to the outer loop. A tail call. */
    code_function *jump;
    /* Where the CPU's struct reservation is: bytes from cpu->engine. */
    uint64_t reservation;
    /* For plain accesses that missed the inlined test: the host address of va when [va, va + span]
     * is in one page that can be accessed directly, `rights` (REACH_*) at once; 0: leave before
     * the instruction. Raises nothing, and needs none of the guest's state in memory. */
    CODE_SLOW_ALL uint64_t (*reach)(struct cpu *cpu, uint64_t va, uint64_t span, uint64_t rights);
};
#define REACH_READ  1u
#define REACH_WRITE 2u

#endif
