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
    LLVMValueRef base = lower_read(l, reach->root);
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

/* i1: control stays in the loop in all rounds but the last, as for that branch. */
static LLVMValueRef stay_is_sure(struct lowering *l, const struct code_rounds *rounds,
                                 const struct code_stay *stay)
{
    LLVMBuilderRef b = l->builder;
    uint64_t distance = (uint64_t)stay->distance;
    uint64_t step = stay->step < 0 ? -(uint64_t)stay->step : (uint64_t)stay->step;
    LLVMValueRef moving =
        LLVMBuildAdd(b, lower_read(l, stay->moving), lower_constant(l, distance), "");
    LLVMValueRef fixed = stay->fixed == IR_IMMEDIATE ? lower_constant(l, (uint64_t)stay->number)
                                                     : lower_read(l, stay->fixed);
    LLVMValueRef left =
        stay->step < 0 ? LLVMBuildSub(b, moving, fixed, "") : LLVMBuildSub(b, fixed, moving, "");
    LLVMValueRef sure =
        LLVMBuildICmp(b, LLVMIntUGT, left, lower_constant(l, (rounds->count - 2) * step), "");
    if (stay->condition != IR_NE) {
        LLVMIntPredicate less = stay->condition == IR_LT ? LLVMIntSLT : LLVMIntULT;
        sure = LLVMBuildAnd(b, sure, LLVMBuildICmp(b, less, moving, fixed, ""), "");
    }
    return sure;
}

/* For the present operation. */
static LLVMValueRef addend_of(struct lowering *l)
{
    for (unsigned i = 0; i < l->rounds->access_count; i++) {
        const struct code_round_access *access = &l->rounds->accesses[i];
        if (access->block == l->index && access->op == l->op_index) {
            const struct code_reach *reach = &l->rounds->reaches[access->reach];
            return LLVMBuildLoad2(l->builder, l->i64,
                                  l->recalled[reach->base][reach->writes].addend, "");
        }
    }
    return NULL;
}

LLVMValueRef rounds_pointer(struct lowering *l, LLVMValueRef va)
{
    LLVMValueRef addend = l->rounds ? addend_of(l) : NULL;
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
    for (unsigned i = 0; i < rounds->block_count; i++) {
        if (rounds->stays[i].known) {
            LLVMBasicBlockRef next = lower_new_block(l, "");
            lower_likely(l, stay_is_sure(l, rounds, &rounds->stays[i]), next, one);
            lower_at(l, next);
        }
    }
    l->rounds = rounds;
    unsigned total = rounds->count * rounds->block_count;
    for (unsigned i = 0; i < total; i++) {
        bool last = i + 1 == total;
        l->stays = i + rounds->block_count < total && rounds->stays[i % rounds->block_count].known;
        l->next_block = rounds->blocks[(i + 1) % rounds->block_count];
        l->next = last ? l->blocks[head] : lower_new_block(l, "round");
        lower_operations(l, rounds->blocks[i % rounds->block_count]);
        lower_at(l, l->next);
    }
    l->rounds = NULL;
    lower_at(l, one);
}
