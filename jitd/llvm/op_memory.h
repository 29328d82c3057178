/* Translating guest addresses: for plain accesses and atomics. */
#ifndef POLYVISOR_JITD_LLVM_OP_MEMORY_H
#define POLYVISOR_JITD_LLVM_OP_MEMORY_H

#include "jitd/llvm/lowering.h"

/* a + imm */
LLVMValueRef memory_address(struct lowering *l, const struct ir_op *op);

struct tlb_test {
    LLVMValueRef entry, hit; /* hit: i1 */
};

/* Whether [va, last] may be accessed directly; `aligned`: a power of two that `last` (then va
 * itself) must be a multiple of. */
struct tlb_test memory_test(struct lowering *l, LLVMValueRef va, LLVMValueRef last, bool reads,
                            bool writes, uint64_t aligned);
/* The host address, i64. Only where the test was a hit. */
LLVMValueRef memory_host(struct lowering *l, const struct tlb_test *test, LLVMValueRef va);

/* Behind a test that failed: the runtime's host address of `first` for [first, first + span]; where
 * it has none the region is left. */
LLVMValueRef memory_reach(struct lowering *l, LLVMValueRef first, LLVMValueRef span, bool reads,
                          bool writes);

/* Give a loaded value, of the type that the load wants, to its destination. */
void memory_write(struct lowering *l, LLVMValueRef value);

/* --- shared translations (share.c) ---------------------------------------------------------- */
/* At the start of a block; where all must be forgotten. */
void share_begin(struct lowering *l);
void share_end(struct lowering *l);
/* Where the present plain access goes; NULL: it must ask for itself. */
LLVMValueRef share_pointer(struct lowering *l, const struct ir_op *op);
/* In a cold path after a function of the runtime: leave before the present instruction unless all
 * that is shared is still there. */
void share_check(struct lowering *l);

#endif
