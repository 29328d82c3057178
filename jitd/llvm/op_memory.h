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

/* Give a loaded value, of the type that the load wants, to its destination. */
void memory_write(struct lowering *l, LLVMValueRef value);

/* --- shared translations (share.c) ---------------------------------------------------------- */
/* At the start of a block; where all must be forgotten. */
void share_begin(struct lowering *l);
void share_end(struct lowering *l);
/* Where the present plain access goes; NULL: it must ask for itself. */
LLVMValueRef share_pointer(struct lowering *l, const struct ir_op *op);
/* Whether the region can be left behind the present operation. */
bool share_may_interrupt(const struct lowering *l);
/* In a cold path after a function of the runtime: leave before the present instruction (state is
 * stored, pc is set) unless all that is shared is still there. */
void share_check(struct lowering *l);
/* Likewise when the present instruction is done: leave behind it. `loaded`: its result, or NULL. */
void share_check_after(struct lowering *l, LLVMValueRef loaded);

#endif
