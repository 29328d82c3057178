/*
 * A decoded block: how it is found, how it leads to others, and its code for the interpreter.
 *
 * Tier-neutral: a compiler adds its entry point beside `code`. A block is immutable once it is
 * published, but for the fields marked atomic or "watch lock". Positions are relative to the
 * virtual base of the page that it runs in, so one block serves every mapping of its page.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BLOCK_H
#define POLYVISOR_VCPU_ENGINE_BLOCK_H

#include "libshared/isa/cpu.h"
#include "libshared/jit/runtime.h"
#include "vmmd/vcpu/engine/tunables.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Never a block mode of an ISA: what `mode` becomes when the block is dropped, so that each
 * look-up that compares modes misses it. */
#define BLOCK_MODE_DEAD UINT32_MAX

/* preserve_none keeps the four arguments in registers that ordinary calls preserve. */
#if __has_attribute(preserve_none)
#define INTERP_CALL __attribute__((preserve_none))
#else
#define INTERP_CALL
#endif

struct xinsn;
struct block;

/* One step of threaded code. `tlb` and `tlb_mask` are the data TLB: its table and, in bytes, its
 * index mask. */
typedef INTERP_CALL void interp_handler(struct cpu *cpu, const struct xinsn *ip, char *tlb,
                                        uint64_t tlb_mask);

/* How compiled code follows an exit that has no `link`. */
enum block_way {
    BLOCK_WAY_OPEN,    /* by the outer loop, which may link it */
    BLOCK_WAY_GUARDED, /* to `guarded`, when the target's page is mapped as it was */
    BLOCK_WAY_PROBED,  /* by the jump cache, for good */
};

/* Where a block may go on directly. Within its page the link is set to the next block once known
 * (watch lock; read by all). */
struct block_exit {
    struct block *_Atomic link;
    int64_t target;        /* from the virtual base of the page */
    _Atomic uint32_t way;  /* enum block_way; stored under the watch lock */
    uint32_t number;       /* which of the block's it is */
    struct block *guarded; /* watch lock, as the rest: the list of exits to the same block */
    struct block_exit *next_guarded, **guarded_link;
};

/* An interpreted operation. d, a, b: byte offsets into the CPU state. */
struct xinsn {
    interp_handler *handler;
    uint16_t d, a, b;
    uint16_t insn; /* guest instruction within the block; of a terminator: how many there are; of
                      operations that cannot fault: a fourth operand */
    union {
        int64_t imm;
        struct {
            int32_t offset; /* added to the address */
            uint16_t aux;   /* as in the IR */
            uint16_t c;
        } mem;
        struct block_exit *exits;
        ir_helper_function *helper;
    };
};
_Static_assert(sizeof(struct xinsn) == 24, "two and a half steps share a cache line");

/* Where a guest instruction begins: page offset, and index of its first operation. */
struct block_insn {
    uint16_t offset, code;
};

struct code_page;
struct installed_region;
struct region_exit;

/* What a compiler made of a block; all zero when it did not. The same bytes at two addresses. */
struct block_compiled {
    uint8_t *write, *execute; /* begins with `entry`, which is also where direct jumps go */
    uint32_t size;
    uint32_t exit_at[2]; /* offset of the exit's jump displacement, 0: none; contents: watch lock */
    uint32_t stub_at;    /* where exits lead while they have no link */
    /* Of a loop (baseline/loops.h): its head, 0: it is none; what leaves it, and the jump there. */
    uint32_t loop_head, loop_leave, loop_jump;
    /* Where exits of other pages lead; watch lock. NULL: none came yet. */
    const uint8_t *guard;
    uint16_t guard_size, guard_exit; /* the latter: its jump to target.entry */
};

struct block {
    struct code_target target; /* where compiled code jumps to, with page_base set and this block
                                  in rdx: the seventh argument of code_function */
    _Atomic uint32_t mode;     /* block mode, or BLOCK_MODE_DEAD */
    uint16_t start;            /* page offset */
    uint16_t length;           /* guest bytes */
    uint16_t insn_count;
    uint16_t code_count;
    uint32_t straddles;              /* its one instruction ends in another page: physical_next */
    uint64_t physical;               /* of its first byte */
    uint64_t physical_next;          /* of the second page, 0 when none */
    struct block *_Atomic hash_next; /* with what a look-up compares, in one cache line */
    uint32_t crossings; /* times left that its groups may lie in two pages (baseline/compile.h) */
    struct block_exit exits[2];
    struct code_page *pages[2];              /* watch lock; [1] only when it straddles */
    struct block *page_next[2];              /* watch lock */
    struct block *retired_next;              /* watch lock; among dropped blocks */
    uint32_t bytes;                          /* of this allocation */
    uint16_t terminator;                     /* opcode of its last operation */
    struct installed_region *_Atomic region; /* that target.entry leads to; set with watch lock */
    struct region_exit *incoming;            /* exits of regions that lead here; watch lock */
    struct block_exit *guarded_from;         /* guarded exits that lead here; watch lock */
    interp_handler *first_handler; /* of the first step, when that one enters compiled code */
    struct block_compiled compiled;
    struct xinsn code[]; /* code_count, then insn_count + 1 of struct block_insn */
};

static inline const struct block_insn *block_insns(const struct block *block)
{
    return (const struct block_insn *)&block->code[block->code_count];
}

/* The jump cache: from a virtual address to its block, valid for one execute context. */
struct jump_entry {
    uint64_t pc;
    struct block *block; /* never NULL: empty entries hold a dead block */
};

static inline uint64_t jump_index(uint64_t pc)
{
    return (pc >> 1 ^ pc >> 12) & (ENGINE_JUMP_ENTRIES - 1);
}

/* The block for a virtual address and the CPU's block mode, when the jump cache knows it. */
static inline struct block *jump_find(const struct cpu *cpu, uint64_t pc)
{
    const struct jump_entry *entry = &cpu->jumps[jump_index(pc)];
    bool hit = entry->pc == pc &&
               atomic_load_explicit(&entry->block->mode, memory_order_relaxed) == cpu->block_mode;
    return hit ? entry->block : NULL;
}

#endif
