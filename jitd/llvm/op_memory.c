/*
 * Loads and stores: the TLB's hit test inlined (libshared/isa/cpu.h has the rule), a miss goes to
 * the runtime in a cold block and comes back.
 */
#include "jitd/llvm/op_memory.h"

#define MEM_SPECIAL (IR_MEM_ALIGN | IR_MEM_ACQUIRE | IR_MEM_RELEASE)

/* --- the TLB -------------------------------------------------------------------------------- */

LLVMValueRef memory_address(struct lowering *l, const struct ir_op *op)
{
    return LLVMBuildAdd(l->builder, lower_read(l, op->a), lower_constant(l, (uint64_t)op->imm), "");
}

static LLVMValueRef load_entry(struct lowering *l, LLVMValueRef entry, size_t offset)
{
    LLVMValueRef index = lower_constant(l, offset);
    LLVMValueRef at = LLVMBuildInBoundsGEP2(l->builder, l->i8, entry, &index, 1, "");
    LLVMValueRef load = LLVMBuildLoad2(l->builder, l->i64, at, "");
    lower_mark_memory(l, load, MEMORY_TLB);
    return load;
}

struct tlb_test memory_test(struct lowering *l, LLVMValueRef va, LLVMValueRef last, bool reads,
                            bool writes, uint64_t aligned)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef number = LLVMBuildLShr(b, va, lower_constant(l, MEMORY_PAGE_SHIFT - 5), "");
    number = LLVMBuildAnd(b, number, LLVMBuildLoad2(b, l->i64, l->tlb_mask, ""), "");
    LLVMValueRef table = LLVMBuildLoad2(b, l->ptr, l->tlb, "");
    LLVMValueRef entry = LLVMBuildInBoundsGEP2(b, l->i8, table, &number, 1, "");
    LLVMValueRef page =
        LLVMBuildAnd(b, last, lower_constant(l, (uint64_t)-CODE_PAGE_BYTES | (aligned - 1)), "");
    struct tlb_test test = {.entry = entry, .hit = NULL};
    if (reads) {
        LLVMValueRef tag = load_entry(l, entry, offsetof(struct tlb_entry, tag_read));
        test.hit = LLVMBuildICmp(b, LLVMIntEQ, tag, page, "");
    }
    if (writes) {
        LLVMValueRef tag = load_entry(l, entry, offsetof(struct tlb_entry, tag_write));
        LLVMValueRef same = LLVMBuildICmp(b, LLVMIntEQ, tag, page, "");
        test.hit = test.hit ? LLVMBuildAnd(b, test.hit, same, "") : same;
    }
    return test;
}

LLVMValueRef memory_addend(struct lowering *l, const struct tlb_test *test)
{
    return load_entry(l, test->entry, offsetof(struct tlb_entry, addend));
}

LLVMValueRef memory_host(struct lowering *l, const struct tlb_test *test, LLVMValueRef va)
{
    return LLVMBuildAdd(l->builder, memory_addend(l, test), va, "");
}

LLVMValueRef memory_find(struct lowering *l, const struct memory_range *range,
                         LLVMBasicBlockRef miss)
{
    LLVMValueRef addend = recall_find(l, range, miss);
    if (!addend) {
        LLVMBasicBlockRef hit = lower_new_block(l, "");
        struct tlb_test test =
            memory_test(l, range->first, range->last, range->reads, range->writes, 1);
        lower_likely(l, test.hit, hit, miss);
        lower_at(l, hit);
        addend = memory_addend(l, &test);
    }
    return addend;
}

/* --- one access ------------------------------------------------------------------------------ */

static LLVMTypeRef type_of_size(const struct lowering *l, unsigned size_log2)
{
    const LLVMTypeRef types[] = {l->i8, l->i16, l->i32, l->i64};
    return types[size_log2];
}

static LLVMValueRef pointer(struct lowering *l, LLVMValueRef host)
{
    return LLVMBuildIntToPtr(l->builder, host, l->ptr, "");
}

static void mark_guest(struct lowering *l, LLVMValueRef access)
{
    LLVMSetAlignment(access, 1);
    lower_mark_memory(l, access, MEMORY_GUEST);
}

static LLVMValueRef load_slowly(struct lowering *l, const struct ir_op *op, LLVMValueRef va)
{
    LLVMValueRef arguments[2] = {va, lower_constant(l, op->aux)};
    lower_sync_pc(l);
    LLVMValueRef value =
        lower_runtime(l, offsetof(struct region_runtime, load), arguments, 2, true);
    lower_check_exception(l);
    lower_reload_tlb(l);
    return value;
}

static void store_slowly(struct lowering *l, const struct ir_op *op, LLVMValueRef va,
                         LLVMValueRef value)
{
    LLVMValueRef arguments[3] = {va, value, lower_constant(l, op->aux)};
    lower_sync_pc(l);
    lower_runtime(l, offsetof(struct region_runtime, store), arguments, 3, false);
    lower_check_exception(l);
    lower_reload_tlb(l);
}

static void order(struct lowering *l, bool for_all)
{
    LLVMBuildFence(l->builder, LLVMAtomicOrderingSequentiallyConsistent, !for_all, "");
}

static LLVMValueRef extend(struct lowering *l, const struct ir_op *op, LLVMValueRef value)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (size_log2 == 3) {
        return value;
    }
    if (op->aux & IR_MEM_SIGN && !(op->aux & IR_MEM_BOX)) {
        return LLVMBuildSExt(l->builder, value, l->i64, "");
    }
    value = LLVMBuildZExt(l->builder, value, l->i64, "");
    if (op->aux & IR_MEM_BOX) {
        uint64_t box = ~UINT64_C(0) << (8u << size_log2);
        value = LLVMBuildOr(l->builder, value, lower_constant(l, box), "");
    }
    return value;
}

/* How a loaded value is wanted: extended to 64 bits, or as a number. */
static LLVMTypeRef wanted_type(const struct lowering *l, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (op->opcode != IR_loadf) {
        return l->i64;
    }
    return size_log2 == 3 ? l->f64 : size_log2 == 2 && op->aux & IR_MEM_BOX ? l->f32 : l->i64;
}

/* From the runtime's answer, which is zero-extended. */
static LLVMValueRef from_slow(struct lowering *l, const struct ir_op *op, LLVMValueRef value)
{
    LLVMTypeRef wanted = wanted_type(l, op);
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    if (wanted == l->i64) {
        return size_log2 == 3
                   ? value
                   : extend(l, op,
                            LLVMBuildTrunc(l->builder, value, type_of_size(l, size_log2), ""));
    }
    if (wanted == l->f32) {
        value = LLVMBuildTrunc(l->builder, value, l->i32, "");
    }
    return LLVMBuildBitCast(l->builder, value, wanted, "");
}

static LLVMValueRef from_host(struct lowering *l, const struct ir_op *op, LLVMValueRef at)
{
    LLVMTypeRef wanted = wanted_type(l, op);
    LLVMTypeRef type = wanted == l->i64 ? type_of_size(l, op->aux & IR_MEM_SIZE) : wanted;
    LLVMValueRef value = LLVMBuildLoad2(l->builder, type, at, "");
    mark_guest(l, value);
    return wanted == l->i64 ? extend(l, op, value) : value;
}

LLVMValueRef memory_reach(struct lowering *l, LLVMValueRef first, LLVMValueRef span, bool reads,
                          bool writes)
{
    unsigned rights = (reads ? REACH_READ : 0) | (writes ? REACH_WRITE : 0);
    LLVMValueRef arguments[3] = {first, span, lower_constant(l, rights)};
    LLVMValueRef host =
        lower_runtime(l, offsetof(struct region_runtime, reach), arguments, 3, true);
    lower_require(l, LLVMBuildICmp(l->builder, LLVMIntNE, host, lower_constant(l, 0), ""));
    return host;
}

/* Where an access goes that asks for itself. The hot and the cold path meet with the distance, not
 * the address, so that the host's access can add it. */
static LLVMValueRef own_pointer(struct lowering *l, const struct ir_op *op, LLVMValueRef va,
                                bool writes)
{
    LLVMBasicBlockRef miss = lower_new_block(l, "miss"), next = lower_new_block(l, "");
    uint64_t size = UINT64_C(1) << (op->aux & IR_MEM_SIZE);
    LLVMValueRef size_less_one = lower_constant(l, size - 1);
    const struct memory_range range = {
        .base = op->a,
        .first = va,
        .last = LLVMBuildAdd(l->builder, va, size_less_one, ""),
        .size = size,
        .reads = !writes,
        .writes = writes,
    };
    LLVMValueRef distances[2] = {memory_find(l, &range, miss), NULL};
    LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(l->builder)};
    LLVMBuildBr(l->builder, next);
    lower_at(l, miss);
    LLVMValueRef host = memory_reach(l, va, size_less_one, !writes, writes);
    distances[1] = LLVMBuildSub(l->builder, host, va, "");
    share_check(l);
    from[1] = LLVMGetInsertBlock(l->builder);
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
    LLVMValueRef distance = LLVMBuildPhi(l->builder, l->i64, "");
    LLVMAddIncoming(distance, distances, from, 2);
    return pointer(l, LLVMBuildAdd(l->builder, distance, va, ""));
}

/* The value as wanted. NULL: not done here. */
static LLVMValueRef load(struct lowering *l, const struct ir_op *op)
{
    if ((op->aux & IR_MEM_SIZE) > 3) {
        return NULL;
    }
    LLVMValueRef va = memory_address(l, op);
    if (op->aux & MEM_SPECIAL) {
        share_end(l);
        LLVMValueRef value = from_slow(l, op, load_slowly(l, op, va));
        order(l, false);
        return value;
    }
    LLVMValueRef at = rounds_pointer(l, va);
    at = at ? at : share_pointer(l, op);
    return from_host(l, op, at ? at : own_pointer(l, op, va, false));
}

/* `value` in its own width. */
static bool store(struct lowering *l, const struct ir_op *op, LLVMValueRef value)
{
    LLVMValueRef va = memory_address(l, op);
    LLVMValueRef wide =
        LLVMTypeOf(value) == l->i64 ? value : LLVMBuildZExt(l->builder, value, l->i64, "");
    if (op->aux & MEM_SPECIAL) {
        share_end(l);
        order(l, false);
        store_slowly(l, op, va, wide);
        order(l, (op->aux & IR_MEM_RELEASE) != 0);
        return true;
    }
    LLVMValueRef at = rounds_pointer(l, va);
    at = at ? at : share_pointer(l, op);
    mark_guest(l, LLVMBuildStore(l->builder, value, at ? at : own_pointer(l, op, va, true)));
    return true;
}

static LLVMValueRef low_part(struct lowering *l, LLVMValueRef bits, unsigned size_log2)
{
    return size_log2 == 3 ? bits : LLVMBuildTrunc(l->builder, bits, type_of_size(l, size_log2), "");
}

/* --- operations ------------------------------------------------------------------------------ */

void memory_write(struct lowering *l, LLVMValueRef value)
{
    if (l->op->opcode == IR_load) {
        lower_write(l, l->op->d, value);
    } else if (LLVMTypeOf(value) == l->f32) {
        lower_write_f32(l, l->op->d, value, IR_FP_BOX);
    } else if (LLVMTypeOf(value) == l->f64) {
        lower_write_f64(l, l->op->d, value);
    } else {
        lower_write_bits(l, l->op->d, value);
    }
}

static bool load_and_write(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef value = load(l, op);
    if (value) {
        memory_write(l, value);
    }
    return value != NULL;
}

bool op_load(struct lowering *l, const struct ir_op *op)
{
    return load_and_write(l, op);
}

bool op_loadf(struct lowering *l, const struct ir_op *op)
{
    return load_and_write(l, op);
}

bool op_store(struct lowering *l, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    return size_log2 <= 3 && store(l, op, low_part(l, lower_read(l, op->b), size_log2));
}

bool op_storef(struct lowering *l, const struct ir_op *op)
{
    unsigned size_log2 = op->aux & IR_MEM_SIZE;
    return size_log2 <= 3 && store(l, op, low_part(l, lower_read_bits(l, op->b), size_log2));
}

bool op_loadv(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}

bool op_storev(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}
