/* Atomic read-modify-write, load-reserved and store-conditional, fences. */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

bool compile_amo(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

bool compile_cas(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

bool compile_lr(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

bool compile_sc(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

bool compile_fence(struct compiler *c, const struct ir_op *op)
{
    if (op->imm & 0x50 && op->imm & 0x0a) {
        emit_full_fence(c->hot);
    }
    return true;
}

#endif
