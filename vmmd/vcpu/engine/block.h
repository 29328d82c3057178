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
    struct guarded_exit *guarded; /* watch lock; NULL: it is not BLOCK_WAY_GUARDED */
    int32_t target;               /* from the virtual base of the page */
    uint16_t jump;                /* offset of the jump's displacement in compiled code; 0: none */
    _Atomic uint8_t way;          /* enum block_way; stored under the watch lock */
    uint8_t number;               /* which of the block's it is */
};
_Static_assert(sizeof(struct block_exit) == 24, "the shared stubs multiply by it");

/* An exit that leads to another page's block by its guard: one of the list of exits to `to`. */
struct guarded_exit {
    struct block_exit *exit;
    struct block *to;
    struct guarded_exit *next, **link;
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

struct code_page;
struct installed_region;
struct region_exit;

/* What a compiler made of a block; all zero when it did not. Offsets are from `execute`. */
struct block_compiled {
    uint8_t *execute; /* begins with `entry`, which is also where direct jumps go */
    /* Where exits of other pages lead; watch lock. NULL: none came yet. */
    const uint8_t *guard;
    uint16_t size;                   /* of the span, header and all */
    uint16_t guard_size, guard_exit; /* the latter: its jump to target.entry */
    uint16_t stub_at; /* where exits lead while they have no link: one behind the other */
    /* Of a loop (baseline/loops.h): its head, 0: it is none; what leaves it, and the jump there. */
    uint16_t loop_head, loop_leave, loop_jump;
};

/*
 * There are tens of thousands, so what only some need stands behind the fixed part, in this order:
 * `exits` (exit_count), a struct block_second if it straddles, the length of each guest instruction
 * (a byte each), and a copy of the guest's bytes. From those its steps are made anew when a
 * compiled block needs them after all (lower.h).
 */
struct block {
    struct code_target target; /* where compiled code jumps to, with page_base set and this block
                                  in rdx: the seventh argument of code_function */
    _Atomic uint32_t mode;     /* block mode, or BLOCK_MODE_DEAD */
    uint16_t start;            /* page offset */
    uint16_t length;           /* guest bytes */
    uint64_t physical;         /* of its first byte */
    struct block *_Atomic hash_next; /* with what a look-up compares, in one cache line */
    interp_handler *enter;   /* compiled code behind its poll, or the first step's handler */
    struct xinsn *code;      /* its steps; NULL: it is compiled */
    struct code_page *page;  /* watch lock */
    struct block *page_next; /* watch lock; of dropped blocks, the next dropped one */
    struct installed_region *_Atomic region; /* that target.entry leads to; set with watch lock */
    struct region_exit *incoming;            /* exits of regions that lead here; watch lock */
    struct guarded_exit *guarded_from;       /* guarded exits that lead here; watch lock */
    struct block_compiled compiled;
    uint32_t decoded_mode; /* what `mode` was when it was decoded */
    uint32_t crossings; /* times left that its groups may lie in two pages (baseline/compile.h) */
    uint32_t bytes;     /* of this allocation and its steps */
    uint8_t insn_count, exit_count;
    bool straddles;     /* its one instruction ends in another page */
    uint8_t terminator; /* opcode of its last operation */
    struct block_exit exits[];
};

/* The second page of a block that straddles. */
struct block_second {
    uint64_t physical;
    struct code_page *page;  /* watch lock; NULL: it is the first one again */
    struct block *page_next; /* watch lock */
};

static inline struct block_second *block_second(const struct block *block)
{
    return (struct block_second *)(void *)((char *)block + sizeof(*block) +
                                           block->exit_count * sizeof(struct block_exit));
}

static inline uint8_t *block_insn_lengths(const struct block *block)
{
    return (uint8_t *)(block_second(block) + block->straddles);
}

static inline uint8_t *block_guest_bytes(const struct block *block)
{
    return block_insn_lengths(block) + block->insn_count;
}

/* Page offset of a guest instruction; of insn_count: where the block ends. */
static inline unsigned block_insn_offset(const struct block *block, unsigned insn)
{
    const uint8_t *lengths = block_insn_lengths(block);
    unsigned offset = block->start;
    for (unsigned i = 0; i < insn; i++) {
        offset += lengths[i];
    }
    return offset;
}

/* The list of a page's blocks, of which this is one. Watch lock. */
static inline struct block **block_next_in_page(const struct block *block,
                                                const struct code_page *page)
{
    return block->page == page ? (struct block **)&block->page_next
                               : &block_second(block)->page_next;
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
