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

#endif
