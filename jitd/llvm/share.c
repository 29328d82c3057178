/*
 * Translations that several accesses of a block share (libshared/ir/groups.h finds them): the first
 * access of a group asks the TLB for the whole range, the others use its answer. Where the answer
 * is no, and the runtime has no better one, the region is left before that access.
 *
 * A function of the runtime may take translations away. The cold paths that call one therefore ask
 * the TLB again for all groups that are in use, and leave the region when the answer is no longer
 * the same kind.
 */
#include "jitd/llvm/op_memory.h"

/* A variable of the function, wherever the builder is now. */
static LLVMValueRef new_variable(struct lowering *l)
{
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    LLVMPositionBuilderBefore(l->builder, l->first_load);
    LLVMValueRef variable = LLVMBuildAlloca(l->builder, l->i64, "shared");
    lower_at(l, here);
    return variable;
}

void share_begin(struct lowering *l)
{
    groups_find(&l->groups, &l->block->ir, l->code->global_count);
    for (unsigned i = 0; i < SHARED_MAX; i++) {
        l->shared[i].group = GROUP_NONE;
    }
}

void share_end(struct lowering *l)
{
    for (unsigned i = 0; i < SHARED_MAX; i++) {
        l->shared[i].group = GROUP_NONE;
    }
}

static struct shared *find(struct lowering *l, unsigned group)
{
    struct shared *free = NULL;
    for (unsigned i = 0; i < SHARED_MAX; i++) {
        if (l->shared[i].group == group) {
            return &l->shared[i];
        }
        if (l->shared[i].group == GROUP_NONE) {
            free = &l->shared[i];
        }
    }
    return free;
}

static LLVMValueRef root_plus(struct lowering *l, const struct shared *shared, int64_t offset)
{
    return LLVMBuildAdd(l->builder, shared->root, lower_constant(l, (uint64_t)offset), "");
}

static struct tlb_test test_range(struct lowering *l, const struct shared *shared)
{
    return memory_test(l, root_plus(l, shared, shared->first),
                       root_plus(l, shared, shared->end - 1), shared->reads, shared->writes, 1);
}

static void open_slowly(struct lowering *l, const struct shared *shared, LLVMBasicBlockRef next)
{
    LLVMValueRef first = root_plus(l, shared, shared->first);
    LLVMValueRef span = lower_constant(l, (uint64_t)(shared->end - 1 - shared->first));
    LLVMValueRef host = memory_reach(l, first, span, shared->reads, shared->writes);
    LLVMBuildStore(l->builder, LLVMBuildSub(l->builder, host, first, ""), shared->addend);
    share_check(l);
    LLVMBuildBr(l->builder, next);
}

static void open_group(struct lowering *l, struct shared *shared, const struct ir_op *op,
                       unsigned number)
{
    const struct access_group *group = &l->groups.groups[number];
    int64_t bias = l->groups.accesses[l->op_index].address - op->imm;
    LLVMValueRef variable = shared->addend ? shared->addend : new_variable(l);
    *shared = (struct shared){
        .group = GROUP_NONE, /* not yet to be checked */
        .addend = variable,
        .root = lower_read(l, op->a),
        .bias = bias,
        .first = group->first - bias,
        .end = group->end - bias,
        .reads = group->reads,
        .writes = group->writes,
    };
    LLVMBasicBlockRef miss = lower_new_block(l, "miss"), next = lower_new_block(l, "");
    const struct memory_range range = {
        .base = op->a,
        .first = root_plus(l, shared, shared->first),
        .last = root_plus(l, shared, shared->end - 1),
        .size = (uint64_t)(shared->end - shared->first),
        .reads = shared->reads,
        .writes = shared->writes,
    };
    LLVMBuildStore(l->builder, memory_find(l, &range, miss), shared->addend);
    LLVMBuildBr(l->builder, next);
    lower_at(l, miss);
    open_slowly(l, shared, next);
    lower_at(l, next);
    shared->group = (uint16_t)number;
}

LLVMValueRef share_pointer(struct lowering *l, const struct ir_op *op)
{
    const struct group_access *access = &l->groups.accesses[l->op_index];
    struct shared *shared = access->group == GROUP_NONE ? NULL : find(l, access->group);
    if (!shared || (shared->group == GROUP_NONE && access->next == UINT16_MAX)) {
        return NULL;
    }
    if (shared->group == GROUP_NONE) {
        open_group(l, shared, op, access->group);
    }
    LLVMValueRef host = LLVMBuildLoad2(l->builder, l->i64, shared->addend, "");
    host = LLVMBuildAdd(l->builder, host, shared->root, "");
    host = LLVMBuildIntToPtr(l->builder, host, l->ptr, "");
    LLVMValueRef offset = lower_constant(l, (uint64_t)(access->address - shared->bias));
    if (access->next == UINT16_MAX) {
        shared->group = GROUP_NONE;
    }
    return LLVMBuildGEP2(l->builder, l->i8, host, &offset, 1, "");
}

static void check_one(struct lowering *l, const struct shared *shared)
{
    struct tlb_test test = test_range(l, shared);
    lower_require(l, test.hit);
    LLVMBuildStore(l->builder, memory_addend(l, &test), shared->addend);
}

void share_check(struct lowering *l)
{
    for (unsigned i = 0; i < SHARED_MAX; i++) {
        if (l->shared[i].group != GROUP_NONE) {
            check_one(l, &l->shared[i]);
        }
    }
}
