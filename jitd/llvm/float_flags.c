/*
 * Reading and setting the sticky floating-point flags. They are in cpu->fp_flags and in the host's
 * control word, and a guest's are both together. Compilers compare in silence by reading the flags,
 * comparing, and setting what they read; so setting finds most often that nothing has changed, and
 * writes nothing.
 */
#include "jitd/llvm/lowering.h"
#include "libshared/fp/fp.h"

#define HOST_FLAGS 0x3fu

static LLVMValueRef control_word(struct lowering *l)
{
    if (!l->float_control) {
        LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
        LLVMPositionBuilderBefore(l->builder, l->first_load);
        l->float_control = LLVMBuildAlloca(l->builder, l->i32, "control");
        lower_at(l, here);
    }
    return l->float_control;
}

static void use_control_word(struct lowering *l, const char *name)
{
    LLVMValueRef word = control_word(l);
    LLVMValueRef call = lower_intrinsic(l, name, NULL, 0, &word, 1);
    LLVMAddCallSiteAttribute(call, LLVMAttributeFunctionIndex,
                             LLVMCreateEnumAttribute(l->context, l->strictfp, 0));
}

static LLVMValueRef host_word(struct lowering *l)
{
    use_control_word(l, "llvm.x86.sse.stmxcsr");
    return LLVMBuildLoad2(l->builder, l->i32, control_word(l), "");
}

/* As fp_host_flags does, i32. */
static LLVMValueRef flags_of(struct lowering *l, LLVMValueRef word)
{
    static const struct {
        unsigned right, left, flag;
    } moves[] = {
        {5, 0, FP_INEXACT},        {3, 0, FP_UNDERFLOW}, {1, 0, FP_OVERFLOW},
        {0, 1, FP_DIVIDE_BY_ZERO}, {0, 4, FP_INVALID},
    };
    LLVMBuilderRef b = l->builder;
    LLVMValueRef flags = lower_load_field(l, l->i32, offsetof(struct cpu, fp_flags));
    for (unsigned i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
        LLVMValueRef bit = LLVMBuildLShr(b, word, LLVMConstInt(l->i32, moves[i].right, false), "");
        bit = LLVMBuildShl(b, bit, LLVMConstInt(l->i32, moves[i].left, false), "");
        bit = LLVMBuildAnd(b, bit, LLVMConstInt(l->i32, moves[i].flag, false), "");
        flags = LLVMBuildOr(b, flags, bit, "");
    }
    return flags;
}

static LLVMValueRef masked(struct lowering *l, LLVMValueRef value, unsigned mask)
{
    return LLVMBuildAnd(l->builder, value, LLVMConstInt(l->i32, mask, false), "");
}

LLVMValueRef float_flags(struct lowering *l)
{
    LLVMValueRef flags = masked(l, flags_of(l, host_word(l)), FP_FLAGS);
    return LLVMBuildZExt(l->builder, flags, l->i64, "");
}

void float_set_flags(struct lowering *l, LLVMValueRef flags)
{
    LLVMBasicBlockRef change = lower_new_block(l, "flags"), next = lower_new_block(l, "");
    LLVMValueRef wanted = masked(l, LLVMBuildTrunc(l->builder, flags, l->i32, ""), FP_FLAGS);
    LLVMValueRef word = host_word(l);
    LLVMValueRef present = masked(l, flags_of(l, word), FP_FLAGS);
    lower_likely(l, LLVMBuildICmp(l->builder, LLVMIntEQ, present, wanted, ""), next, change);
    lower_at(l, change);
    lower_store_field(l, offsetof(struct cpu, fp_flags), wanted);
    LLVMBuildStore(l->builder, masked(l, word, ~HOST_FLAGS), control_word(l));
    use_control_word(l, "llvm.x86.sse.ldmxcsr");
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
}
