/*
 * The last translation of a register: a page and its addend, for addresses off registers that stay
 * in a page for a while (steady.c). It is looked at before the TLB. That it is the right one is a
 * branch, which the host predicts; so the address of the access does not wait for the TLB's entry.
 *
 * What is kept lives in variables of the region, so nobody needs to know of it who takes
 * translations away. For there are two ways to do that: on this CPU, which is in a function of the
 * runtime then, and all is forgotten behind each; or on another, which waits until this one has
 * left the region at a poll. A page whose permission to write was found is kept apart from one that
 * may only be read.
 */
#include "jitd/llvm/op_memory.h"

/* Ranges up to this size (a power of two) are tested at once, by their alignment. The bits of a
 * misalignment are below TLB_EMPTY. */
#define ALIGNED_MAX 16u
_Static_assert(ALIGNED_MAX <= TLB_EMPTY, "a misaligned address matches nothing");

static LLVMValueRef new_variable(struct lowering *l, uint64_t value)
{
    LLVMValueRef variable = LLVMBuildAlloca(l->builder, l->i64, "recalled");
    LLVMBuildStore(l->builder, lower_constant(l, value), variable);
    return variable;
}

void recall_begin(struct lowering *l)
{
    const struct global_set *const wanted[2] = {&l->code->steady_reads, &l->code->steady_writes};
    for (unsigned i = 0; i < l->code->global_count; i++) {
        for (unsigned write = 0; write < 2; write++) {
            l->recalled[i][write] = (struct recalled){NULL, NULL};
            if (set_has(wanted[write], i)) {
                l->recalled[i][write] = (struct recalled){.tag = new_variable(l, TLB_EMPTY),
                                                          .addend = new_variable(l, 0)};
            }
        }
    }
}

void recall_nothing(struct lowering *l)
{
    for (unsigned i = 0; i < l->code->global_count; i++) {
        for (unsigned write = 0; write < 2; write++) {
            if (l->recalled[i][write].tag) {
                LLVMBuildStore(l->builder, lower_constant(l, TLB_EMPTY), l->recalled[i][write].tag);
            }
        }
    }
}

/* i1: the whole range lies in the page. */
static LLVMValueRef is_in(struct lowering *l, const struct memory_range *range, LLVMValueRef tag)
{
    LLVMBuilderRef b = l->builder;
    bool power = (range->size & (range->size - 1)) == 0;
    uint64_t low = power && range->size <= ALIGNED_MAX ? range->size - 1 : 0;
    LLVMValueRef mask = lower_constant(l, (uint64_t)-CODE_PAGE_BYTES | low);
    LLVMValueRef same =
        LLVMBuildICmp(b, LLVMIntEQ, LLVMBuildAnd(b, range->first, mask, ""), tag, "");
    if (power && range->size <= ALIGNED_MAX) {
        return same;
    }
    LLVMValueRef last =
        LLVMBuildICmp(b, LLVMIntEQ, LLVMBuildAnd(b, range->last, mask, ""), tag, "");
    return LLVMBuildAnd(b, same, last, "");
}

LLVMValueRef recall_find(struct lowering *l, const struct memory_range *range,
                         LLVMBasicBlockRef miss)
{
    if (range->base >= CODE_GLOBALS_MAX || !set_has(&l->block->steady, range->base) ||
        !l->recalled[range->base][range->writes].tag) {
        return NULL;
    }
    const struct recalled *recalled = &l->recalled[range->base][range->writes];
    LLVMBuilderRef b = l->builder;
    LLVMBasicBlockRef other = lower_new_block(l, "other"), hit = lower_new_block(l, "");
    LLVMBasicBlockRef next = lower_new_block(l, "");
    LLVMValueRef tag = LLVMBuildLoad2(b, l->i64, recalled->tag, "");
    lower_likely(l, is_in(l, range, tag), next, other);
    lower_at(l, other);
    struct tlb_test test =
        memory_test(l, range->first, range->last, range->reads || range->writes, range->writes, 1);
    lower_likely(l, test.hit, hit, miss);
    lower_at(l, hit);
    LLVMValueRef page =
        LLVMBuildAnd(b, range->first, lower_constant(l, (uint64_t)-CODE_PAGE_BYTES), "");
    LLVMBuildStore(b, page, recalled->tag);
    LLVMBuildStore(b, memory_addend(l, &test), recalled->addend);
    LLVMBuildBr(b, next);
    lower_at(l, next);
    return LLVMBuildLoad2(b, l->i64, recalled->addend, "");
}
