/* Small pieces of LLVM IR that all files use. */
#include "jitd/llvm/op_memory.h"
#include <string.h>

LLVMValueRef lower_constant(struct lowering *l, uint64_t value)
{
    return LLVMConstInt(l->i64, value, false);
}

LLVMValueRef lower_cpu_field(struct lowering *l, size_t offset)
{
    LLVMValueRef index = lower_constant(l, offset);
    return LLVMBuildInBoundsGEP2(l->builder, l->i8, l->cpu, &index, 1, "");
}

LLVMValueRef lower_load_field(struct lowering *l, LLVMTypeRef type, size_t offset)
{
    LLVMValueRef load = LLVMBuildLoad2(l->builder, type, lower_cpu_field(l, offset), "");
    lower_mark_memory(l, load, MEMORY_CPU);
    return load;
}

void lower_store_field(struct lowering *l, size_t offset, LLVMValueRef value)
{
    LLVMValueRef store = LLVMBuildStore(l->builder, value, lower_cpu_field(l, offset));
    lower_mark_memory(l, store, MEMORY_CPU);
}

void lower_mark_memory(struct lowering *l, LLVMValueRef access, enum memory_kind kind)
{
    LLVMSetMetadata(access, l->scope_kind, LLVMMetadataAsValue(l->context, l->scopes[kind]));
    LLVMSetMetadata(access, l->noalias_kind, LLVMMetadataAsValue(l->context, l->others[kind]));
}

LLVMBasicBlockRef lower_new_block(struct lowering *l, const char *name)
{
    return LLVMAppendBasicBlockInContext(l->context, l->function, name);
}

void lower_at(struct lowering *l, LLVMBasicBlockRef block)
{
    LLVMPositionBuilderAtEnd(l->builder, block);
}

/* Halved until both fit, and never zero. */
void lower_weights(struct lowering *l, LLVMValueRef branch, uint64_t first, uint64_t second)
{
    while (first > INT32_MAX || second > INT32_MAX) {
        first /= 2;
        second /= 2;
    }
    LLVMMetadataRef parts[3] = {
        LLVMMDStringInContext2(l->context, "branch_weights", strlen("branch_weights")),
        LLVMValueAsMetadata(LLVMConstInt(l->i32, first ? first : 1, false)),
        LLVMValueAsMetadata(LLVMConstInt(l->i32, second ? second : 1, false)),
    };
    LLVMSetMetadata(branch, l->prof_kind,
                    LLVMMetadataAsValue(l->context, LLVMMDNodeInContext2(l->context, parts, 3)));
}

void lower_likely(struct lowering *l, LLVMValueRef condition, LLVMBasicBlockRef likely,
                  LLVMBasicBlockRef unlikely)
{
    lower_weights(l, LLVMBuildCondBr(l->builder, condition, likely, unlikely), 1 << 20, 1);
}

LLVMValueRef lower_intrinsic(struct lowering *l, const char *name, LLVMTypeRef *types,
                             unsigned type_count, LLVMValueRef *arguments, unsigned count)
{
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    LLVMValueRef function = LLVMGetIntrinsicDeclaration(l->module, id, types, type_count);
    LLVMTypeRef type = LLVMIntrinsicGetType(l->context, id, types, type_count);
    return LLVMBuildCall2(l->builder, type, function, arguments, count, "");
}

LLVMValueRef lower_runtime(struct lowering *l, size_t offset, LLVMValueRef *arguments,
                           unsigned count, bool result)
{
    LLVMTypeRef types[6] = {l->ptr, l->i64, l->i64, l->i64, l->i64, l->i64};
    LLVMValueRef values[6] = {l->cpu};
    memcpy(values + 1, arguments, count * sizeof(*arguments));
    LLVMValueRef index = lower_constant(l, offset);
    LLVMValueRef runtime = lower_load_field(l, l->ptr, offsetof(struct cpu, runtime));
    LLVMValueRef slot = LLVMBuildInBoundsGEP2(l->builder, l->i8, runtime, &index, 1, "");
    LLVMValueRef function = LLVMBuildLoad2(l->builder, l->ptr, slot, "");
    LLVMTypeRef type = LLVMFunctionType(result ? l->i64 : l->void_type, types, count + 1, false);
    LLVMValueRef call = LLVMBuildCall2(l->builder, type, function, values, count + 1, "");
    bool keeps_all = offset == offsetof(struct region_runtime, reach);
    LLVMSetInstructionCallConv(call, keeps_all ? CALL_PRESERVE_ALL : CALL_PRESERVE_MOST);
    if (l->code->has_float) {
        LLVMAddCallSiteAttribute(call, LLVMAttributeFunctionIndex,
                                 LLVMCreateEnumAttribute(l->context, l->strictfp, 0));
    }
    recall_nothing(l); /* it may have taken translations away */
    return call;
}
