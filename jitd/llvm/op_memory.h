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
/* Only where the test was a hit: what to add to guest addresses; the host address, i64. */
LLVMValueRef memory_addend(struct lowering *l, const struct tlb_test *test);
LLVMValueRef memory_host(struct lowering *l, const struct tlb_test *test, LLVMValueRef va);

/* A range of bytes that is to be accessed. */
struct memory_range {
    ir_value base; /* the register that the address is off, or any other value */
    LLVMValueRef first, last;
    uint64_t size; /* last - first + 1 */
    bool reads, writes;
};
/* Go to `miss` unless the range may be accessed directly; the builder goes on where it may. Returns
 * what to add to addresses in it, i64. */
LLVMValueRef memory_find(struct lowering *l, const struct memory_range *range,
                         LLVMBasicBlockRef miss);

/* Behind a test that failed: the runtime's host address of `first` for [first, first + span]; where
 * it has none the region is left. */
LLVMValueRef memory_reach(struct lowering *l, LLVMValueRef first, LLVMValueRef span, bool reads,
                          bool writes);

/* Give a loaded value, of the type that the load wants, to its destination. */
void memory_write(struct lowering *l, LLVMValueRef value);

/* --- recalled translations (recall.c) ------------------------------------------------------- */
/* At the entry; whenever translations may have been taken away. */
void recall_begin(struct lowering *l);
void recall_nothing(struct lowering *l);
/* As memory_find; NULL: nothing is kept for the register here. */
LLVMValueRef recall_find(struct lowering *l, const struct memory_range *range,
                         LLVMBasicBlockRef miss);

/* Where the access goes while several rounds are lowered as one (rounds.c); otherwise NULL. */
LLVMValueRef rounds_pointer(struct lowering *l, LLVMValueRef va);

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
