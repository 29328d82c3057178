/*
 * Helper calls and terminators.
 *
 * Within a page, a block's exit holds a link to the next block: following it needs no look-up and
 * no check of the mapping, because page_base stays. Everywhere else the jump cache of the execute
 * context is asked, and then the outer loop. Each way into a block tests the attention word.
 */
#include "vmmd/vcpu/engine/enter.h"
#include "vmmd/vcpu/engine/interp.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include <string.h>

INTERP_CALL void interp_leave(INTERP_PARAMETERS)
{
    (void)tlb;
    (void)tlb_mask;
    cpu->retired += ip->insn + 1u;
    cpu->pc = cpu->page_base + block_insn_offset(cpu->block, ip->insn + 1u);
}

static inline bool attention(struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->attention, memory_order_relaxed) != 0;
}

/* A region would leave at once for attention: then the block gets on without. */
void interp_run(struct cpu *cpu, struct block *block)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    cpu->block = block;
    cpu->page_base = cpu->pc & PAGE_MASK;
    if (atomic_load_explicit(&block->region, memory_order_relaxed) && !self->lower_tier &&
        !attention(cpu)) {
        region_run(cpu, block);
        return;
    }
    self->lower_tier = false;
    void *entry;
    memcpy(&entry, &block->enter, sizeof(entry));
    enter_code(cpu, block->code, (char *)cpu->tlb_data,
               cpu->tlb_data_mask * sizeof(struct tlb_entry), 0, 0, &block->target, entry);
}

/* --- helper calls --------------------------------------------------------------------------- */

/* Two steps: the second one's imm is the helper's. */
INTERP_HANDLER(helper_call)
{
    interp_sync(cpu, ip);
    uint64_t result = ip->helper(cpu, SLOT(ip->a), SLOT(ip->b), (uint64_t)ip[1].imm);
    if (__builtin_expect(cpu->exception != 0, 0)) {
        return;
    }
    SLOT(ip->d) = result;
    interp_unsync(cpu, ip);
    INTERP_NEXT_RELOAD(ip + 2);
}

static void lower_helper(struct lowering *lowering, const struct ir_op *op,
                         const struct interp_operation *operation)
{
    struct xinsn *step = lower_emit(lowering, op, operation->handlers[0]);
    step->a = op->a == IR_NONE ? LOWER_ZERO_SLOT : step->a;
    step->b = op->b == IR_NONE ? LOWER_ZERO_SLOT : step->b;
    step->helper = lowering->isa->helpers[op->aux].function;
    lower_emit(lowering, op, NULL);
}
const struct interp_operation interp_helper = {lower_helper, {helper_call}};

/* Go on with a block, page_base being right. */
#define INTERP_ENTER(next)                                                                         \
    do {                                                                                           \
        struct block *entered_ = (next);                                                           \
        cpu->block = entered_;                                                                     \
        __attribute__((musttail)) return entered_->enter(cpu, entered_->code, tlb, tlb_mask);      \
    } while (0)

/* --- into the next block -------------------------------------------------------------------- */

static inline struct block *probe(struct cpu *cpu, uint64_t pc)
{
    return attention(cpu) ? NULL : jump_find(cpu, pc);
}

/* An exit without a link, or with attention asked for: cpu->exit says which. */
static INTERP_CALL __attribute__((noinline)) void follow_exit(INTERP_PARAMETERS)
{
    (void)ip;
    uint64_t pc = cpu->page_base + (uint64_t)(int64_t)cpu->exit->target;
    bool open = cpu->exit->jump &&
                atomic_load_explicit(&cpu->exit->way, memory_order_relaxed) == BLOCK_WAY_OPEN;
    if ((uint64_t)(int64_t)cpu->exit->target >= PAGE_BYTES && !open) {
        cpu->exit = NULL;
        struct block *block = probe(cpu, pc);
        if (block) {
            cpu->page_base = pc & PAGE_MASK;
            INTERP_ENTER(block);
        }
    }
    cpu->pc = pc;
}

#define FOLLOW(leaving)                                                                            \
    do {                                                                                           \
        struct block_exit *exit_ = (leaving);                                                      \
        struct block *next_ = atomic_load_explicit(&exit_->link, memory_order_acquire);            \
        if (__builtin_expect(next_ != NULL && !attention(cpu), 1)) {                               \
            INTERP_ENTER(next_);                                                                   \
        }                                                                                          \
        cpu->exit = exit_;                                                                         \
        __attribute__((musttail)) return follow_exit(cpu, ip, tlb, tlb_mask);                      \
    } while (0)

/* Terminators count the block's instructions: `insn` is how many it has. */
static struct xinsn *emit_terminator(struct lowering *lowering, const struct ir_op *op,
                                     interp_handler *handler)
{
    uint16_t last = lowering->insn;
    struct xinsn *step = lower_emit(lowering, op, handler);
    step->insn = (uint16_t)(last + 1);
    return step;
}

INTERP_HANDLER(jump_direct)
{
    cpu->retired += ip->insn;
    FOLLOW(&ip->exits[0]);
}

static void lower_jump(struct lowering *lowering, const struct ir_op *op,
                       const struct interp_operation *operation)
{
    lowering->exit_target[0] = (uint64_t)op->imm;
    lowering->exits_at = (int)lowering->count;
    emit_terminator(lowering, op, operation->handlers[0]);
}
const struct interp_operation interp_jump = {lower_jump, {jump_direct}};
const struct interp_operation interp_call = {lower_jump, {jump_direct}};

INTERP_HANDLER(jump_indirect)
{
    uint64_t pc = SLOT(ip->a);
    cpu->retired += ip->insn;
    struct block *block = probe(cpu, pc);
    if (__builtin_expect(block != NULL, 1)) {
        cpu->page_base = pc & PAGE_MASK;
        INTERP_ENTER(block);
    }
    cpu->pc = pc;
}

static void lower_terminator(struct lowering *lowering, const struct ir_op *op,
                             const struct interp_operation *operation)
{
    emit_terminator(lowering, op, operation->handlers[0]);
}
const struct interp_operation interp_jump_ind = {lower_terminator, {jump_indirect}};
const struct interp_operation interp_call_ind = {lower_terminator, {jump_indirect}};
const struct interp_operation interp_ret = {lower_terminator, {jump_indirect}};

INTERP_HANDLER(exit_to)
{
    (void)tlb;
    (void)tlb_mask;
    cpu->retired += ip->insn;
    cpu->pc = cpu->page_base + (uint64_t)ip->imm;
}
const struct interp_operation interp_exit = {lower_terminator, {exit_to}};

INTERP_HANDLER(exit_set)
{
    (void)tlb;
    (void)tlb_mask;
    cpu->retired += ip->insn;
}
const struct interp_operation interp_exit_pc = {lower_terminator, {exit_set}};

/* --- branches: exits[0] taken, exits[1] not; an immediate operand is in the step that follows --
 */

/* Two copies of the way on, so that the host predicts the taken and the other path apart. */
#define HANDLER_BRANCH(name, second, expression)                                                   \
    INTERP_HANDLER(name)                                                                           \
    {                                                                                              \
        uint64_t a = SLOT(ip->a);                                                                  \
        uint64_t b = (second);                                                                     \
        cpu->retired += ip->insn;                                                                  \
        if (expression) {                                                                          \
            FOLLOW(&ip->exits[0]);                                                                 \
        }                                                                                          \
        FOLLOW(&ip->exits[1]);                                                                     \
    }

#define X(condition, name, expression)                                                             \
    HANDLER_BRANCH(branch_##name##_register, SLOT(ip->b), expression)                              \
    HANDLER_BRANCH(branch_##name##_immediate, (uint64_t)ip[1].imm, expression)
INTERP_CONDITIONS(X)
#undef X

static void lower_branch(struct lowering *lowering, const struct ir_op *op,
                         const struct interp_operation *operation)
{
    static interp_handler *const handlers[][2] = {
#define X(condition, name, expression)                                                             \
    [condition] = {branch_##name##_register, branch_##name##_immediate},
        INTERP_CONDITIONS(X)
#undef X
    };
    (void)operation;
    lowering->exit_target[0] = (uint64_t)(int64_t)op->imm2;
    lowering->exits_at = (int)lowering->count;
    emit_terminator(lowering, op, handlers[op->aux][op->b == IR_IMMEDIATE]);
    if (op->b == IR_IMMEDIATE) {
        lower_emit(lowering, op, NULL);
    }
}
const struct interp_operation interp_branch = {lower_branch, {NULL}};
