/* Atomic read-modify-write, load-reserved and store-conditional, fences. */
#include "jitd/llvm/op_memory.h"

bool op_amo(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}

bool op_cas(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}

bool op_lr(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}

bool op_sc(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}

/* imm as FENCE's sets. Only an earlier write against a later read needs an instruction of a host
 * that orders all else. LLVM makes an or of nothing into the cheapest that does. */
bool op_fence(struct lowering *l, const struct ir_op *op)
{
    LLVMBuildFence(l->builder, LLVMAtomicOrderingAcquireRelease, true, "");
    if (op->imm & 0x50 && op->imm & 0x0a) {
        LLVMBuildFence(l->builder, LLVMAtomicOrderingSequentiallyConsistent, false, "");
    }
    return true;
}
