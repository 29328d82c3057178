/* Helper calls and terminators. */
#include "jitd/llvm/op_memory.h"

/* --- helper calls ---------------------------------------------------------------------------- */

static LLVMValueRef read_or_zero(struct lowering *l, ir_value value)
{
    return value == IR_NONE ? lower_constant(l, 0) : lower_read(l, value);
}

/* Everything is in memory before; afterwards only what the helper writes is not known. */
bool op_helper(struct lowering *l, const struct ir_op *op)
{
    unsigned effects = l->code->isa->helpers[op->aux].effects;
    if (effects & IR_HELPER_GET_FLAGS) {
        lower_write(l, op->d, float_flags(l));
        return true;
    }
    if (effects & IR_HELPER_SET_FLAGS) {
        float_set_flags(l, lower_read(l, op->a));
        return true;
    }
    LLVMValueRef arguments[4] = {read_or_zero(l, op->a), read_or_zero(l, op->b),
                                 lower_constant(l, (uint64_t)op->imm), lower_constant(l, op->aux)};
    share_end(l);
    lower_sync_pc(l);
    l->dirty = (struct global_set){{0}};
    LLVMValueRef result =
        lower_runtime(l, offsetof(struct region_runtime, helper), arguments, 4, true);
    if (effects & IR_HELPER_FAULTS) {
        lower_check_exception(l);
    }
    lower_reload_tlb(l);
    if (effects & IR_HELPER_WRITES) {
        lower_reload_globals(l);
    }
    lower_write(l, op->d, result);
    return true;
}

/* --- terminators ----------------------------------------------------------------------------- */

/* The block's instructions are done. */
static void count_block(struct lowering *l)
{
    if (l->block->stores) {
        lower_store_dirty(l);
    }
    LLVMValueRef retired = LLVMBuildLoad2(l->builder, l->i64, l->retired, "");
    LLVMValueRef insns = lower_constant(l, l->block->ir.insn_count);
    LLVMBuildStore(l->builder, LLVMBuildAdd(l->builder, retired, insns, ""), l->retired);
    l->insns = 0;
}

/* The LLVM block to branch to. */
static LLVMBasicBlockRef way_block(struct lowering *l, const struct code_way *way)
{
    if (l->rounds && way->block == l->next_block) {
        return l->next;
    }
    if (way->block >= 0) {
        return l->blocks[way->block];
    }
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    LLVMBasicBlockRef out = lower_new_block(l, "exit");
    lower_at(l, out);
    lower_way_out(l, way);
    lower_at(l, here);
    return out;
}

bool op_jump(struct lowering *l, const struct ir_op *op)
{
    (void)op;
    count_block(l);
    LLVMBuildBr(l->builder, way_block(l, &l->block->ways[0]));
    return true;
}

bool op_call(struct lowering *l, const struct ir_op *op)
{
    return op_jump(l, op);
}

bool op_branch(struct lowering *l, const struct ir_op *op)
{
    const struct code_way *ways = l->block->ways;
    if (l->rounds && l->stays) {
        count_block(l);
        LLVMBuildBr(l->builder, l->next);
        return true;
    }
    LLVMValueRef condition = lower_condition(l, op);
    count_block(l);
    LLVMBasicBlockRef taken = way_block(l, &ways[0]), other = way_block(l, &ways[1]);
    LLVMValueRef branch = LLVMBuildCondBr(l->builder, condition, taken, other);
    lower_weights(l, branch, ways[0].weight, ways[1].weight);
    return true;
}

/* Compare with the places that it was seen to go to. */
static bool indirect(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef target = lower_read(l, op->a);
    count_block(l);
    for (unsigned i = 0; i < l->block->expected_count; i++) {
        const struct code_block *to = &l->code->blocks[l->block->expected[i]];
        LLVMValueRef offset = lower_constant(l, (uint64_t)(to->base + to->ir.start));
        LLVMValueRef address = LLVMBuildAdd(l->builder, l->page_base, offset, "");
        LLVMValueRef same = LLVMBuildICmp(l->builder, LLVMIntEQ, target, address, "");
        LLVMBasicBlockRef next = lower_new_block(l, "");
        LLVMValueRef branch =
            LLVMBuildCondBr(l->builder, same, l->blocks[l->block->expected[i]], next);
        lower_weights(l, branch, 16, 1);
        lower_at(l, next);
    }
    lower_jump_out(l, target);
    return true;
}

bool op_jump_ind(struct lowering *l, const struct ir_op *op)
{
    return indirect(l, op);
}

bool op_call_ind(struct lowering *l, const struct ir_op *op)
{
    return indirect(l, op);
}

bool op_ret(struct lowering *l, const struct ir_op *op)
{
    return indirect(l, op);
}

bool op_exit(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef offset = lower_constant(l, (uint64_t)(l->block->base + op->imm));
    count_block(l);
    lower_sync(l);
    lower_store_field(l, offsetof(struct cpu, pc),
                      LLVMBuildAdd(l->builder, l->page_base, offset, ""));
    lower_return(l);
    return true;
}

bool op_exit_pc(struct lowering *l, const struct ir_op *op)
{
    (void)op;
    count_block(l);
    lower_sync(l);
    lower_return(l);
    return true;
}
