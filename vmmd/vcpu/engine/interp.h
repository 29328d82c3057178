/*
 * The threaded-code interpreter: what its handlers share.
 *
 * A handler does one operation and tail-calls the next (musttail, so that a block of any length
 * needs no stack). The CPU, the instruction pointer and the data TLB stay in host registers. The
 * outer loop (cpu_loop.c) is returned to with cpu->pc set. Handlers live in the interp_*.c files by
 * topic; each file also exports, for every IR operation of its topic, a `struct interp_operation`
 * that tells lower.c which handlers to use. The table of them is made from ops.def, so an operation
 * that nobody implements does not link.
 */
#ifndef POLYVISOR_VCPU_ENGINE_INTERP_H
#define POLYVISOR_VCPU_ENGINE_INTERP_H

#include "vmmd/vcpu/engine/core.h"

#define INTERP_PARAMETERS    struct cpu *cpu, const struct xinsn *ip, char *tlb, uint64_t tlb_mask
#define INTERP_HANDLER(name) static INTERP_CALL void name(INTERP_PARAMETERS)
/* Data accesses of the guest race with other CPUs' by nature (access.h). */
#define INTERP_GUEST_HANDLER(name)                                                                 \
    __attribute__((no_sanitize("thread"))) static INTERP_CALL void name(INTERP_PARAMETERS)

typedef uint64_t interp_slot __attribute__((may_alias));
#define SLOT(offset)      (*(interp_slot *)(void *)((char *)cpu + (offset)))
#define SLOT_HIGH(offset) (*(interp_slot *)(void *)((char *)cpu + (offset) + 8))

#define INTERP_JUMP(to) __attribute__((musttail)) return (to)->handler(cpu, (to), tlb, tlb_mask)
#define INTERP_NEXT()   INTERP_JUMP(ip + 1)
/* After anything that may have replaced the data TLB's table. */
#define INTERP_NEXT_RELOAD(to)                                                                     \
    do {                                                                                           \
        tlb = (char *)cpu->tlb_data;                                                               \
        tlb_mask = cpu->tlb_data_mask * sizeof(struct tlb_entry);                                  \
        INTERP_JUMP(to);                                                                           \
    } while (0)

/* X(condition of the IR, its name, what it says of a and b), both uint64_t. */
#define INTERP_CONDITIONS(X)                                                                       \
    X(IR_EQ, eq, a == b)                                                                           \
    X(IR_NE, ne, a != b)                                                                           \
    X(IR_LT, lt, (int64_t)a < (int64_t)b)                                                          \
    X(IR_GE, ge, (int64_t)a >= (int64_t)b)                                                         \
    X(IR_LTU, ltu, a < b)                                                                          \
    X(IR_GEU, geu, a >= b)                                                                         \
    X(IR_LE, le, (int64_t)a <= (int64_t)b)                                                         \
    X(IR_GT, gt, (int64_t)a > (int64_t)b)                                                          \
    X(IR_LEU, leu, a <= b)                                                                         \
    X(IR_GTU, gtu, a > b)

/* The slow part of a handler, by the ordinary calling convention, so that it may have variables in
 * memory (address sanitizer cannot instrument such in a preserve_none function). False: an
 * exception is pending. */
#define INTERP_SLOW(name)                                                                          \
    __attribute__((noinline)) static bool name(struct cpu *cpu, const struct xinsn *ip)

/* Where a memory step accesses. */
static inline uint64_t interp_address(const struct cpu *cpu, const struct xinsn *ip)
{
    const interp_slot *slot = (const interp_slot *)(const void *)((const char *)cpu + ip->a);
    return *slot + (uint64_t)(int64_t)ip->mem.offset;
}

/* Before slow paths and helpers: make pc and retired exact. A fault leaves them so. */
static inline void interp_sync(struct cpu *cpu, const struct xinsn *ip)
{
    cpu->pc = cpu->page_base + block_insn_offset(cpu->block, ip->insn);
    cpu->retired += ip->insn;
}

/* After them, when the block goes on. */
static inline void interp_unsync(struct cpu *cpu, const struct xinsn *ip)
{
    cpu->retired -= ip->insn;
}

/* Run `block` from its start at cpu->pc until something needs the outer loop. */
void interp_run(struct cpu *cpu, struct block *block);

/* --- lowering ------------------------------------------------------------------------------- */
struct lowering {
    const struct isa *isa;
    struct xinsn *code;
    unsigned count, capacity;
    bool overflow;
    uint16_t insn; /* guest instruction being lowered */
    uint64_t exit_target[2];
    int exits_at; /* the step whose `exits` must point to the block's, or -1 */
};

struct interp_operation;
typedef void interp_lower(struct lowering *lowering, const struct ir_op *op,
                          const struct interp_operation *operation);

/* How to lower an IR operation. `handlers` are variants, in an order that `lower` knows. */
struct interp_operation {
    interp_lower *lower;
    interp_handler *handlers[12];
};

#define OP(name, d, a, b, c, aux, effects) extern const struct interp_operation interp_##name;
#include "libshared/ir/ops.def"
#undef OP

/* Byte offset of a value in the CPU state. IR_NONE: the scratch slot. */
uint16_t lower_slot(const struct lowering *lowering, ir_value value);
/* The slot that is always zero; one that nobody reads. */
#define LOWER_ZERO_SLOT                                                                            \
    ((uint16_t)(offsetof(struct cpu, temps) + (IR_TEMPS_MAX + 1) * 2 * sizeof(uint64_t)))
#define LOWER_SCRATCH_SLOT                                                                         \
    ((uint16_t)(offsetof(struct cpu, temps) + IR_TEMPS_MAX * 2 * sizeof(uint64_t)))
/* Append a step with the slots of op's operands. */
struct xinsn *lower_emit(struct lowering *lowering, const struct ir_op *op,
                         interp_handler *handler);

/* Append a memory access: address in a, offset and aux in the step. An offset beyond 32 bits is
 * added by a step of its own. */
struct xinsn *lower_memory_step(struct lowering *lowering, const struct ir_op *op,
                                interp_handler *handler);

/* Make a block of verified self->ir, whose bytes are in self->page and self->next_page. The caller
 * publishes or frees it. Its steps are in self->code, but it has none of its own yet: it is
 * compiled, or lower_keep_steps comes next. NULL without memory. */
struct block *lower_block(struct engine_cpu *self);
/* Give the block its steps. False without memory. */
bool lower_keep_steps(struct engine_cpu *self, struct block *block);
void lower_free(struct block *block);

/* For compiled code that leaves the rest of cpu->block to the interpreter: the step. It may have to
 * be decoded anew, and stays until the CPU needs those of many other blocks. */
const struct xinsn *lower_resume(struct cpu *cpu, unsigned step);
/* Dropped blocks are freed, and others may take their places: forget all steps. */
void lower_forget(struct engine_cpu *self);
/* False without memory. */
bool lower_cache_create(struct engine_cpu *self);
void lower_cache_destroy(struct engine_cpu *self);

/* What a dropped block has left to do of instruction `insn`, from `ip` on, as steps in self->rest
 * that then leave for the outer loop. */
const struct xinsn *lower_rest_of_insn(struct engine_cpu *self, const struct xinsn *ip);

/* Leave for the outer loop before the next instruction; ends lower_rest_of_insn's code. */
INTERP_CALL void interp_leave(INTERP_PARAMETERS);

#endif
