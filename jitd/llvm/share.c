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

static struct tlb_test test_range(struct lowering *l, const struct shared *shared)
{
    LLVMValueRef first =
        LLVMBuildAdd(l->builder, shared->root, lower_constant(l, (uint64_t)shared->first), "");
    LLVMValueRef last =
        LLVMBuildAdd(l->builder, shared->root, lower_constant(l, (uint64_t)shared->end - 1), "");
    return memory_test(l, first, last, shared->reads, shared->writes, 1);
}

/* The runtime's answer for the first byte holds for the range when that lies in one page. */
static void open_slowly(struct lowering *l, const struct shared *shared, LLVMBasicBlockRef next)
{
    LLVMBuilderRef b = l->builder;
    LLVMBasicBlockRef one_page = lower_new_block(l, ""), found = lower_new_block(l, "");
    LLVMBasicBlockRef unable = lower_new_block(l, "unable");
    LLVMValueRef first =
        LLVMBuildAdd(b, shared->root, lower_constant(l, (uint64_t)shared->first), "");
    LLVMValueRef last =
        LLVMBuildAdd(b, shared->root, lower_constant(l, (uint64_t)shared->end - 1), "");
    LLVMValueRef difference = LLVMBuildXor(b, first, last, "");
    LLVMValueRef same =
        LLVMBuildICmp(b, LLVMIntULT, difference, lower_constant(l, CODE_PAGE_BYTES), "");
    lower_sync_pc(l);
    lower_likely(l, same, one_page, unable);
    lower_at(l, one_page);
    LLVMValueRef host = NULL, any = NULL;
    for (unsigned write = 0; write < 2; write++) {
        if (write ? shared->writes : shared->reads) {
            LLVMValueRef arguments[3] = {first, lower_constant(l, 0), lower_constant(l, write)};
            host = lower_runtime(l, offsetof(struct region_runtime, translate), arguments, 3, true);
            LLVMValueRef yes = LLVMBuildICmp(b, LLVMIntNE, host, lower_constant(l, 0), "");
            any = any ? LLVMBuildAnd(b, any, yes, "") : yes;
        }
    }
    lower_reload_tlb(l);
    lower_likely(l, any, found, unable);
    lower_at(l, unable);
    lower_leave(l);
    lower_at(l, found);
    LLVMBuildStore(b, LLVMBuildSub(b, host, lower_constant(l, (uint64_t)shared->first), ""),
                   shared->host);
    share_check(l);
    LLVMBuildBr(b, next);
}

static void open_group(struct lowering *l, struct shared *shared, const struct ir_op *op,
                       unsigned number)
{
    const struct access_group *group = &l->groups.groups[number];
    int64_t bias = l->groups.accesses[l->op_index].address - op->imm;
    LLVMValueRef variable = shared->host ? shared->host : new_variable(l);
    *shared = (struct shared){
        .group = GROUP_NONE, /* not yet to be checked */
        .host = variable,
        .root = lower_read(l, op->a),
        .bias = bias,
        .first = group->first - bias,
        .end = group->end - bias,
        .reads = group->reads,
        .writes = group->writes,
    };
    LLVMBasicBlockRef hit = lower_new_block(l, ""), miss = lower_new_block(l, "miss");
    LLVMBasicBlockRef next = lower_new_block(l, "");
    struct tlb_test test = test_range(l, shared);
    lower_likely(l, test.hit, hit, miss);
    lower_at(l, miss);
    open_slowly(l, shared, next);
    lower_at(l, hit);
    LLVMBuildStore(l->builder, memory_host(l, &test, shared->root), shared->host);
    LLVMBuildBr(l->builder, next);
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
    LLVMValueRef host = LLVMBuildLoad2(l->builder, l->i64, shared->host, "");
    host = LLVMBuildIntToPtr(l->builder, host, l->ptr, "");
    LLVMValueRef offset = lower_constant(l, (uint64_t)(access->address - shared->bias));
    if (access->next == UINT16_MAX) {
        shared->group = GROUP_NONE;
    }
    return LLVMBuildGEP2(l->builder, l->i8, host, &offset, 1, "");
}

bool share_may_interrupt(const struct lowering *l)
{
    return l->block->ir.ops[l->op_index + 1].opcode == IR_insn;
}

/* Go on with the lower tier at the next instruction. */
static void leave_after(struct lowering *l, LLVMValueRef loaded)
{
    struct global_set dirty = l->dirty;
    unsigned insns = l->insns, offset = l->offset;
    if (loaded) {
        memory_write(l, loaded);
    }
    l->insns++;
    l->offset = (unsigned)l->block->ir.ops[l->op_index + 1].imm;
    lower_sync_pc(l);
    lower_leave(l);
    l->insns = insns;
    l->offset = offset;
    l->dirty = dirty;
}

static void check_one(struct lowering *l, const struct shared *shared, LLVMBasicBlockRef lost)
{
    LLVMBasicBlockRef next = lower_new_block(l, "");
    struct tlb_test test = test_range(l, shared);
    lower_likely(l, test.hit, next, lost);
    lower_at(l, next);
    LLVMBuildStore(l->builder, memory_host(l, &test, shared->root), shared->host);
}

static bool any_open(const struct lowering *l)
{
    for (unsigned i = 0; i < SHARED_MAX; i++) {
        if (l->shared[i].group != GROUP_NONE) {
            return true;
        }
    }
    return false;
}

static void check_all(struct lowering *l, LLVMBasicBlockRef lost)
{
    for (unsigned i = 0; i < SHARED_MAX; i++) {
        if (l->shared[i].group != GROUP_NONE) {
            check_one(l, &l->shared[i], lost);
        }
    }
}

void share_check(struct lowering *l)
{
    if (!any_open(l)) {
        return;
    }
    LLVMBasicBlockRef lost = lower_new_block(l, "lost");
    check_all(l, lost);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    lower_at(l, lost);
    lower_leave(l);
    lower_at(l, here);
}

void share_check_after(struct lowering *l, LLVMValueRef loaded)
{
    if (!any_open(l)) {
        return;
    }
    LLVMBasicBlockRef lost = lower_new_block(l, "lost");
    check_all(l, lost);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    lower_at(l, lost);
    leave_after(l, loaded);
    lower_at(l, here);
}
