/*
 * Several rounds of a loop as one (chain.c says which loops). When all that they may access lies in
 * the pages of the registers' last translations, which takes one test a register, they are done
 * without further tests, and attention is polled once. Otherwise, as at the borders of pages, the
 * loop goes one round by its ordinary code, which also finds the translations.
 */
#include "jitd/llvm/op_memory.h"

/* i1: the reach lies in the last translation's page. */
static LLVMValueRef reach_is_known(struct lowering *l, const struct code_reach *reach)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef base = lower_read(l, reach->base);
    LLVMValueRef tag = LLVMBuildLoad2(b, l->i64, l->recalled[reach->base][reach->writes].tag, "");
    LLVMValueRef mask = lower_constant(l, (uint64_t)-CODE_PAGE_BYTES), known = NULL;
    const int64_t ends[2] = {reach->first, reach->end - 1};
    for (unsigned i = 0; i < 2; i++) {
        LLVMValueRef at = LLVMBuildAdd(b, base, lower_constant(l, (uint64_t)ends[i]), "");
        LLVMValueRef same = LLVMBuildICmp(b, LLVMIntEQ, LLVMBuildAnd(b, at, mask, ""), tag, "");
        known = known ? LLVMBuildAnd(b, known, same, "") : same;
    }
    return known;
}

static LLVMValueRef addend_of(struct lowering *l, ir_value base)
{
    for (unsigned i = 0; i < l->rounds->reach_count; i++) {
        const struct code_reach *reach = &l->rounds->reaches[i];
        if (reach->base == base) {
            return LLVMBuildLoad2(l->builder, l->i64, l->recalled[base][reach->writes].addend, "");
        }
    }
    return NULL;
}

LLVMValueRef rounds_pointer(struct lowering *l, const struct ir_op *op, LLVMValueRef va)
{
    LLVMValueRef addend = l->rounds ? addend_of(l, op->a) : NULL;
    return addend
               ? LLVMBuildIntToPtr(l->builder, LLVMBuildAdd(l->builder, addend, va, ""), l->ptr, "")
               : NULL;
}

void lower_rounds(struct lowering *l, unsigned head)
{
    const struct code_rounds *rounds = &l->code->blocks[head].rounds;
    if (rounds->count == 0) {
        return;
    }
    LLVMBasicBlockRef one = lower_new_block(l, "one_round");
    for (unsigned i = 0; i < rounds->reach_count; i++) {
        LLVMBasicBlockRef next = lower_new_block(l, "");
        lower_likely(l, reach_is_known(l, &rounds->reaches[i]), next, one);
        lower_at(l, next);
    }
    l->rounds = rounds;
    unsigned total = rounds->count * rounds->block_count;
    for (unsigned i = 0; i < total; i++) {
        bool last = i + 1 == total;
        l->next_block = rounds->blocks[(i + 1) % rounds->block_count];
        l->next = last ? l->blocks[head] : lower_new_block(l, "round");
        lower_operations(l, rounds->blocks[i % rounds->block_count]);
        lower_at(l, l->next);
    }
    l->rounds = NULL;
    lower_at(l, one);
}
