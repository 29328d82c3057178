/*
 * Results that are NaNs must become the canonical one before anybody can tell. Sums, products,
 * quotients and roots of NaNs are NaNs, whichever, and comparisons do not tell them apart: so
 * results are tested late, and those that went into others with them.
 *
 * Within a block: `pending` are the registers with results that have not been tested. When the
 * `roots` among them are no NaNs, none is. All are settled before an operation that could show
 * them, or where the region could be left.
 */
#include "jitd/llvm/lowering.h"
#include "libshared/ir/opcode.h"

static bool in(const struct global_set *set, ir_value value)
{
    return value < CODE_GLOBALS_MAX && set_has(set, value);
}

static void take_out(struct global_set *set, ir_value value)
{
    if (value < CODE_GLOBALS_MAX) {
        set->words[value / 64] &= ~(UINT64_C(1) << value % 64);
    }
}

static bool has_number(const struct ir_opcode_info *info)
{
    return info->d == IR_OPERAND_F || info->a == IR_OPERAND_F || info->b == IR_OPERAND_F ||
           info->c == IR_OPERAND_F;
}

/* Whether the operation cannot tell, nor be the last to know of a root, and the region is not left
 * there. (Rounds' accesses are never missed.) */
static bool may_wait(const struct lowering *l, const struct ir_op *op)
{
    const struct ir_opcode_info *info = &ir_opcode_table[op->opcode];
    bool ends_root = in(&l->roots, op->d);
    switch (op->opcode) {
    case IR_fadd:
    case IR_fsub:
    case IR_fmul:
    case IR_fdiv:
        return !ends_root || op->d == op->a || op->d == op->b;
    case IR_fsqrt:
        return !ends_root || op->d == op->a;
    case IR_feq:
    case IR_flt:
    case IR_fle:
        return true;
    case IR_fma:
    case IR_fmv_from_int:
    case IR_fcvt_from_s32:
    case IR_fcvt_from_s64:
        return !ends_root;
    case IR_load:
    case IR_loadf:
        return l->rounds && !ends_root;
    case IR_store:
        return l->rounds;
    case IR_storef:
        return l->rounds && !in(&l->pending, op->b);
    default:
        return info->effect == IR_EFFECT_PURE && !has_number(info);
    }
}

void settle_before(struct lowering *l, const struct ir_op *op)
{
    if (!may_wait(l, op)) {
        settle(l);
    }
}

void settle_after(struct lowering *l, const struct ir_op *op)
{
    switch (op->opcode) {
    case IR_fadd:
    case IR_fsub:
    case IR_fmul:
    case IR_fdiv:
    case IR_fsqrt:
        break;
    default:
        take_out(&l->pending, op->d);
    }
}

bool settle_later(struct lowering *l, ir_value d, const ir_value *operands, unsigned count,
                  bool single)
{
    if (d >= CODE_GLOBALS_MAX || l->code->classes[d] != (single ? CLASS_SINGLE : CLASS_DOUBLE)) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        take_out(&l->roots, operands[i]);
    }
    set_add(&l->pending, d);
    set_add(&l->roots, d);
    return true;
}

static LLVMValueRef read_number(struct lowering *l, unsigned global)
{
    return l->code->classes[global] == CLASS_SINGLE
               ? lower_read_f32(l, (ir_value)global, IR_FP_F32 | IR_FP_BOX)
               : lower_read_f64(l, (ir_value)global);
}

/* Go to `nan` if a root is one, two by one comparison. */
static void test_roots(struct lowering *l, enum float_class class, LLVMBasicBlockRef nan)
{
    LLVMValueRef first = NULL;
    for (unsigned i = 0; i <= l->code->global_count; i++) {
        bool last = i == l->code->global_count;
        if ((last && !first) ||
            (!last && (!set_has(&l->roots, i) || l->code->classes[i] != class))) {
            continue;
        }
        LLVMValueRef number = last ? first : read_number(l, i);
        if (first) {
            LLVMBasicBlockRef next = lower_new_block(l, "");
            lower_likely(l, LLVMBuildNot(l->builder, float_unordered(l, first, number), ""), next,
                         nan);
            lower_at(l, next);
        }
        first = first ? NULL : number;
    }
}

void settle(struct lowering *l)
{
    if (set_count(&l->pending) == 0) {
        return;
    }
    LLVMBasicBlockRef nan = lower_new_block(l, "nan"), next = lower_new_block(l, "");
    test_roots(l, CLASS_DOUBLE, nan);
    test_roots(l, CLASS_SINGLE, nan);
    LLVMBuildBr(l->builder, next);
    lower_at(l, nan);
    for (unsigned i = 0; i < l->code->global_count; i++) {
        if (set_has(&l->pending, i)) {
            LLVMValueRef number = read_number(l, i);
            number = LLVMBuildSelect(l->builder, float_unordered(l, number, number),
                                     float_canonical_nan(l, LLVMTypeOf(number)), number, "");
            LLVMBuildStore(l->builder, number, l->globals[i]);
        }
    }
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
    l->pending = l->roots = (struct global_set){{0}};
}
