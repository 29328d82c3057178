/* Guest registers: variables while the region runs, memory when it is left. */
#include "jitd/llvm/op_memory.h"
#include "libshared/fp/fp.h"

#define BOX UINT64_C(0xffffffff00000000)

static LLVMTypeRef variable_type(const struct lowering *l, unsigned global)
{
    switch (l->code->classes[global]) {
    case CLASS_DOUBLE:
        return l->f64;
    case CLASS_SINGLE:
        return l->f32;
    default:
        return l->code->isa->globals[global].type == IR_TYPE_V128 ? l->i128 : l->i64;
    }
}

static LLVMValueRef to_float(struct lowering *l, LLVMValueRef bits, LLVMTypeRef type)
{
    return LLVMBuildBitCast(l->builder, bits, type, "");
}

static LLVMValueRef boxed(struct lowering *l, LLVMValueRef number)
{
    LLVMValueRef bits = LLVMBuildBitCast(l->builder, number, l->i32, "");
    bits = LLVMBuildZExt(l->builder, bits, l->i64, "");
    return LLVMBuildOr(l->builder, bits, lower_constant(l, BOX), "");
}

/* --- memory --------------------------------------------------------------------------------- */

static unsigned global_offset(const struct lowering *l, unsigned global)
{
    return l->code->isa->globals[global].offset;
}

/* Singles: whether the slot is boxed was checked (check_boxes). */
static void load_global(struct lowering *l, unsigned global)
{
    LLVMValueRef value = lower_load_field(l, variable_type(l, global), global_offset(l, global));
    LLVMBuildStore(l->builder, value, l->globals[global]);
}

static void store_global(struct lowering *l, unsigned global)
{
    LLVMValueRef value =
        LLVMBuildLoad2(l->builder, variable_type(l, global), l->globals[global], "");
    if (l->code->classes[global] == CLASS_SINGLE) {
        value = boxed(l, value);
    }
    lower_store_field(l, global_offset(l, global), value);
}

/* i1: all single-precision registers that the region reads are boxed. */
static LLVMValueRef check_boxes(struct lowering *l)
{
    LLVMValueRef all = NULL;
    for (unsigned i = 0; i < l->code->global_count; i++) {
        if (l->code->classes[i] == CLASS_SINGLE && set_has(&l->code->used, i) &&
            set_has(&l->code->blocks[0].needed, i)) {
            LLVMValueRef high = lower_load_field(l, l->i32, global_offset(l, i) + 4);
            all = all ? LLVMBuildAnd(l->builder, all, high, "") : high;
        }
    }
    return all ? LLVMBuildICmp(l->builder, LLVMIntEQ, all, LLVMConstAllOnes(l->i32), "") : NULL;
}

LLVMValueRef lower_begin_state(struct lowering *l)
{
    l->tlb = LLVMBuildAlloca(l->builder, l->ptr, "tlb");
    l->tlb_mask = LLVMBuildAlloca(l->builder, l->i64, "tlb_mask");
    l->retired = LLVMBuildAlloca(l->builder, l->i64, "retired");
    LLVMBuildStore(l->builder, LLVMGetParam(l->function, 2), l->tlb);
    LLVMBuildStore(l->builder, LLVMGetParam(l->function, 3), l->tlb_mask);
    l->retired_before = lower_load_field(l, l->i64, offsetof(struct cpu, retired));
    LLVMBuildStore(l->builder, l->retired_before, l->retired);
    for (unsigned i = 0; i < l->code->global_count; i++) {
        l->globals[i] = NULL;
        if (set_has(&l->code->used, i)) {
            l->globals[i] =
                LLVMBuildAlloca(l->builder, variable_type(l, i), l->code->isa->globals[i].name);
        }
    }
    lower_reload_globals(l);
    recall_begin(l);
    return check_boxes(l);
}

void lower_reload_globals(struct lowering *l)
{
    for (unsigned i = 0; i < l->code->global_count; i++) {
        if (l->globals[i]) {
            load_global(l, i);
        }
    }
}

static void store_globals(struct lowering *l, const struct global_set *dirty)
{
    for (unsigned i = 0; i < l->code->global_count; i++) {
        if (l->globals[i] && set_has(dirty, i)) {
            store_global(l, i);
        }
    }
}

void lower_store_dirty(struct lowering *l)
{
    store_globals(l, &l->dirty);
    l->dirty = (struct global_set){{0}};
}

static void sync(struct lowering *l, const struct global_set *dirty, LLVMValueRef insns)
{
    store_globals(l, dirty);
    LLVMValueRef retired = LLVMBuildLoad2(l->builder, l->i64, l->retired, "");
    retired = LLVMBuildAdd(l->builder, retired, insns, "");
    lower_store_field(l, offsetof(struct cpu, retired), retired);
}

void lower_sync(struct lowering *l)
{
    sync(l, &l->dirty, lower_constant(l, l->insns));
}

void lower_sync_at(struct lowering *l, const struct global_set *dirty, LLVMValueRef insns,
                   LLVMValueRef offset)
{
    sync(l, dirty, insns);
    lower_store_field(l, offsetof(struct cpu, pc),
                      LLVMBuildAdd(l->builder, l->page_base, offset, ""));
}

void lower_sync_pc(struct lowering *l)
{
    lower_sync_at(l, &l->dirty, lower_constant(l, l->insns),
                  lower_constant(l, (uint64_t)l->block->base + l->offset));
}

void lower_reload_tlb(struct lowering *l)
{
    LLVMValueRef mask = lower_load_field(l, l->i64, offsetof(struct cpu, tlb_data_mask));
    mask = LLVMBuildShl(l->builder, mask, lower_constant(l, 5), "");
    LLVMBuildStore(l->builder, mask, l->tlb_mask);
    LLVMBuildStore(l->builder, lower_load_field(l, l->ptr, offsetof(struct cpu, tlb_data)), l->tlb);
}
_Static_assert(sizeof(struct tlb_entry) == 32, "the mask is shifted by 5");

/* --- values --------------------------------------------------------------------------------- */

LLVMValueRef lower_read(struct lowering *l, ir_value value)
{
    if (ir_is_temp(value)) {
        return l->temps[value - IR_TEMP_BASE];
    }
    if (value == l->code->zero) {
        return lower_constant(l, 0);
    }
    return LLVMBuildLoad2(l->builder, l->i64, l->globals[value], "");
}

LLVMValueRef lower_read_b(struct lowering *l)
{
    return l->op->b == IR_IMMEDIATE ? lower_constant(l, (uint64_t)l->op->imm)
                                    : lower_read(l, l->op->b);
}

static void wrote(struct lowering *l, ir_value value)
{
    set_add(&l->dirty, value);
}

void lower_write(struct lowering *l, ir_value value, LLVMValueRef bits)
{
    if (value == IR_NONE) {
        return;
    }
    if (ir_is_temp(value)) {
        l->temps[value - IR_TEMP_BASE] = bits;
        return;
    }
    LLVMBuildStore(l->builder, bits, l->globals[value]);
    wrote(l, value);
}

static enum float_class class_of(const struct lowering *l, ir_value value)
{
    return ir_is_temp(value) ? CLASS_BITS : (enum float_class)l->code->classes[value];
}

LLVMValueRef lower_read_bits(struct lowering *l, ir_value value)
{
    if (class_of(l, value) == CLASS_BITS) {
        return lower_read(l, value);
    }
    if (class_of(l, value) == CLASS_DOUBLE) {
        LLVMValueRef number = LLVMBuildLoad2(l->builder, l->f64, l->globals[value], "");
        return LLVMBuildBitCast(l->builder, number, l->i64, "");
    }
    return boxed(l, LLVMBuildLoad2(l->builder, l->f32, l->globals[value], ""));
}

LLVMValueRef lower_read_f64(struct lowering *l, ir_value value)
{
    if (class_of(l, value) == CLASS_DOUBLE) {
        return LLVMBuildLoad2(l->builder, l->f64, l->globals[value], "");
    }
    return to_float(l, lower_read_bits(l, value), l->f64);
}

LLVMValueRef lower_read_f32(struct lowering *l, ir_value value, unsigned aux)
{
    if (class_of(l, value) == CLASS_SINGLE) {
        return LLVMBuildLoad2(l->builder, l->f32, l->globals[value], "");
    }
    LLVMValueRef bits = lower_read_bits(l, value);
    LLVMValueRef low = LLVMBuildTrunc(l->builder, bits, l->i32, "");
    if (aux & IR_FP_BOX) {
        LLVMValueRef is_boxed =
            LLVMBuildICmp(l->builder, LLVMIntUGE, bits, lower_constant(l, BOX), "");
        low =
            LLVMBuildSelect(l->builder, is_boxed, low, LLVMConstInt(l->i32, FP_F32_NAN, false), "");
    }
    return to_float(l, low, l->f32);
}

void lower_write_bits(struct lowering *l, ir_value value, LLVMValueRef bits)
{
    if (class_of(l, value) == CLASS_BITS) {
        lower_write(l, value, bits);
        return;
    }
    bool as_double = class_of(l, value) == CLASS_DOUBLE;
    if (!as_double) {
        bits = LLVMBuildTrunc(l->builder, bits, l->i32, "");
    }
    LLVMValueRef number = to_float(l, bits, as_double ? l->f64 : l->f32);
    LLVMBuildStore(l->builder, number, l->globals[value]);
    wrote(l, value);
}

void lower_write_f64(struct lowering *l, ir_value value, LLVMValueRef number)
{
    if (class_of(l, value) == CLASS_DOUBLE) {
        LLVMBuildStore(l->builder, number, l->globals[value]);
        wrote(l, value);
    } else {
        lower_write_bits(l, value, LLVMBuildBitCast(l->builder, number, l->i64, ""));
    }
}

void lower_write_f32(struct lowering *l, ir_value value, LLVMValueRef number, unsigned aux)
{
    if (class_of(l, value) == CLASS_SINGLE) {
        LLVMBuildStore(l->builder, number, l->globals[value]);
        wrote(l, value);
    } else if (aux & IR_FP_BOX) {
        lower_write_bits(l, value, boxed(l, number));
    } else {
        LLVMValueRef bits = LLVMBuildBitCast(l->builder, number, l->i32, "");
        lower_write_bits(l, value, LLVMBuildZExt(l->builder, bits, l->i64, ""));
    }
}
