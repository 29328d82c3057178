/*
 * Atomic read-modify-write, load-reserved and store-conditional, fences: host atomics, as in the
 * lower tiers (vmmd/vcpu/engine/exclusive.c). What cannot be accessed directly leaves the region.
 */
#include "jitd/llvm/op_memory.h"

static LLVMTypeRef type_of(const struct lowering *l, const struct ir_op *op)
{
    const LLVMTypeRef types[] = {l->i8, l->i16, l->i32, l->i64};
    return types[op->aux & IR_MEM_SIZE];
}

static bool native_size(const struct ir_op *op)
{
    return (op->aux & IR_MEM_SIZE) <= 3;
}

static LLVMValueRef narrow(struct lowering *l, LLVMValueRef value, LLVMTypeRef type)
{
    return type == l->i64 ? value : LLVMBuildTrunc(l->builder, value, type, "");
}

static void write_old(struct lowering *l, const struct ir_op *op, LLVMValueRef old)
{
    if (LLVMTypeOf(old) != l->i64) {
        old = op->aux & IR_MEM_SIGN ? LLVMBuildSExt(l->builder, old, l->i64, "")
                                    : LLVMBuildZExt(l->builder, old, l->i64, "");
    }
    lower_write(l, op->d, old);
}

/* The host address, aligned, as i64. Where there is none the region is left. */
static LLVMValueRef translate(struct lowering *l, const struct ir_op *op, bool write)
{
    LLVMValueRef va = memory_address(l, op);
    LLVMBasicBlockRef hit = lower_new_block(l, ""), miss = lower_new_block(l, "miss");
    LLVMBasicBlockRef next = lower_new_block(l, "");
    uint64_t size = UINT64_C(1) << (op->aux & IR_MEM_SIZE);
    struct tlb_test test = memory_test(l, va, va, !write, write, size);
    lower_likely(l, test.hit, hit, miss);
    lower_at(l, miss);
    LLVMValueRef arguments[3] = {va, lower_constant(l, op->aux), lower_constant(l, write)};
    LLVMValueRef slow =
        lower_runtime(l, offsetof(struct region_runtime, translate), arguments, 3, true);
    lower_require(l, LLVMBuildICmp(l->builder, LLVMIntNE, slow, lower_constant(l, 0), ""));
    share_check(l);
    LLVMBasicBlockRef answered = LLVMGetInsertBlock(l->builder);
    LLVMBuildBr(l->builder, next);
    lower_at(l, hit);
    LLVMValueRef values[2] = {memory_host(l, &test, va), slow};
    LLVMBasicBlockRef from[2] = {hit, answered};
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
    LLVMValueRef host = LLVMBuildPhi(l->builder, l->i64, "");
    LLVMAddIncoming(host, values, from, 2);
    return host;
}

static LLVMValueRef pointer(struct lowering *l, LLVMValueRef host)
{
    return LLVMBuildIntToPtr(l->builder, host, l->ptr, "");
}

bool op_amo(struct lowering *l, const struct ir_op *op)
{
    static const LLVMAtomicRMWBinOp operations[] = {
        [IR_AMO_SWAP] = LLVMAtomicRMWBinOpXchg, [IR_AMO_ADD] = LLVMAtomicRMWBinOpAdd,
        [IR_AMO_AND] = LLVMAtomicRMWBinOpAnd,   [IR_AMO_OR] = LLVMAtomicRMWBinOpOr,
        [IR_AMO_XOR] = LLVMAtomicRMWBinOpXor,   [IR_AMO_MINS] = LLVMAtomicRMWBinOpMin,
        [IR_AMO_MAXS] = LLVMAtomicRMWBinOpMax,  [IR_AMO_MINU] = LLVMAtomicRMWBinOpUMin,
        [IR_AMO_MAXU] = LLVMAtomicRMWBinOpUMax,
    };
    if (!native_size(op)) {
        return false;
    }
    LLVMValueRef host = pointer(l, translate(l, op, true));
    LLVMValueRef operand = narrow(l, lower_read(l, op->b), type_of(l, op));
    write_old(l, op,
              LLVMBuildAtomicRMW(l->builder, operations[op->aux >> IR_MEM_AMO_SHIFT], host, operand,
                                 LLVMAtomicOrderingSequentiallyConsistent, false));
    return true;
}

static LLVMValueRef compare_and_swap(struct lowering *l, LLVMValueRef host, LLVMValueRef expected,
                                     LLVMValueRef desired)
{
    return LLVMBuildAtomicCmpXchg(l->builder, pointer(l, host), expected, desired,
                                  LLVMAtomicOrderingSequentiallyConsistent,
                                  LLVMAtomicOrderingSequentiallyConsistent, false);
}

bool op_cas(struct lowering *l, const struct ir_op *op)
{
    if (!native_size(op)) {
        return false;
    }
    LLVMTypeRef type = type_of(l, op);
    LLVMValueRef host = translate(l, op, true);
    LLVMValueRef expected = narrow(l, lower_read(l, op->b), type);
    LLVMValueRef desired = narrow(l, lower_read(l, op->c), type);
    LLVMValueRef pair = compare_and_swap(l, host, expected, desired);
    write_old(l, op, LLVMBuildExtractValue(l->builder, pair, 0, ""));
    return true;
}

/* --- reservations ---------------------------------------------------------------------------- */

static LLVMValueRef reservation(struct lowering *l)
{
    LLVMValueRef runtime = lower_load_field(l, l->ptr, offsetof(struct cpu, runtime));
    LLVMValueRef index = lower_constant(l, offsetof(struct region_runtime, reservation));
    LLVMValueRef slot = LLVMBuildInBoundsGEP2(l->builder, l->i8, runtime, &index, 1, "");
    LLVMValueRef offset = LLVMBuildLoad2(l->builder, l->i64, slot, "");
    LLVMValueRef engine = lower_load_field(l, l->ptr, offsetof(struct cpu, engine));
    return LLVMBuildInBoundsGEP2(l->builder, l->i8, engine, &offset, 1, "");
}

static LLVMValueRef field(struct lowering *l, LLVMValueRef reservation, size_t offset)
{
    LLVMValueRef index = lower_constant(l, offset);
    return LLVMBuildInBoundsGEP2(l->builder, l->i8, reservation, &index, 1, "");
}

#define FIELD(l, at, name) field(l, at, offsetof(struct reservation, name))
_Static_assert(sizeof(enum reservation_kind) == 4 && sizeof(unsigned) == 4, "stored as i32");

static LLVMValueRef number(struct lowering *l, unsigned value)
{
    return LLVMConstInt(l->i32, value, false);
}

/* Only constrained ones: the value is compared later. */
bool op_lr(struct lowering *l, const struct ir_op *op)
{
    if (!native_size(op) || !(op->aux & IR_MEM_CONSTRAINED)) {
        return false;
    }
    LLVMBuilderRef b = l->builder;
    LLVMValueRef host = translate(l, op, false);
    LLVMValueRef value = LLVMBuildLoad2(b, type_of(l, op), pointer(l, host), "");
    LLVMSetOrdering(value, LLVMAtomicOrderingSequentiallyConsistent);
    LLVMValueRef at = reservation(l);
    LLVMValueRef wide = LLVMTypeOf(value) == l->i64 ? value : LLVMBuildZExt(b, value, l->i64, "");
    LLVMBuildStore(b, number(l, RESERVATION_VALUE), FIELD(l, at, kind));
    LLVMBuildStore(b, number(l, op->aux & IR_MEM_SIZE), FIELD(l, at, size));
    LLVMBuildStore(b, host, FIELD(l, at, host));
    LLVMBuildStore(b, wide, FIELD(l, at, value));
    write_old(l, op, value);
    return true;
}

bool op_sc(struct lowering *l, const struct ir_op *op)
{
    if (!native_size(op)) {
        return false;
    }
    LLVMBuilderRef b = l->builder;
    LLVMTypeRef type = type_of(l, op);
    LLVMValueRef host = translate(l, op, true);
    LLVMValueRef at = reservation(l);
    LLVMValueRef kind = LLVMBuildLoad2(b, l->i32, FIELD(l, at, kind), "");
    LLVMValueRef size = LLVMBuildLoad2(b, l->i32, FIELD(l, at, size), "");
    LLVMValueRef place = LLVMBuildLoad2(b, l->i64, FIELD(l, at, host), "");
    LLVMValueRef value = LLVMBuildLoad2(b, l->i64, FIELD(l, at, value), "");
    LLVMValueRef fits = LLVMBuildICmp(b, LLVMIntEQ, kind, number(l, RESERVATION_VALUE), "");
    fits = LLVMBuildAnd(
        b, fits, LLVMBuildICmp(b, LLVMIntEQ, size, number(l, op->aux & IR_MEM_SIZE), ""), "");
    fits = LLVMBuildAnd(b, fits, LLVMBuildICmp(b, LLVMIntEQ, place, host, ""), "");
    lower_require(l, fits);
    LLVMBuildStore(b, number(l, RESERVATION_NONE), FIELD(l, at, kind));
    LLVMValueRef pair =
        compare_and_swap(l, host, narrow(l, value, type), narrow(l, lower_read(l, op->b), type));
    LLVMValueRef stored = LLVMBuildExtractValue(b, pair, 1, "");
    LLVMValueRef failed = LLVMBuildNot(b, stored, "");
    lower_write(l, op->d, LLVMBuildZExt(b, failed, l->i64, ""));
    return true;
}

/* --- fences ---------------------------------------------------------------------------------- */

/* imm as FENCE's sets. Only an earlier write against a later read needs an instruction, on a host
 * that orders all else. */
bool op_fence(struct lowering *l, const struct ir_op *op)
{
    bool full = op->imm & 0x50 && op->imm & 0x0a;
    LLVMBuildFence(l->builder, LLVMAtomicOrderingSequentiallyConsistent, !full, "");
    return true;
}
