/* Ways into and out of a region. */
#include "jitd/llvm/lowering.h"

#define PAGE_SHIFT 12

/* --- out ------------------------------------------------------------------------------------ */

/* The ways out that all share: cpu->retired is exact in memory. */
static void count_optimised(struct lowering *l)
{
    size_t offset = offsetof(struct cpu, retired_optimised);
    LLVMValueRef retired = lower_load_field(l, l->i64, offsetof(struct cpu, retired));
    LLVMValueRef done = LLVMBuildSub(l->builder, retired, l->retired_before, "");
    done = LLVMBuildAdd(l->builder, lower_load_field(l, l->i64, offset), done, "");
    lower_store_field(l, offset, done);
}

/* Become `function`, with the present TLB. */
static void tail_call(struct lowering *l, LLVMValueRef function, LLVMValueRef target)
{
    LLVMValueRef arguments[7] = {
        l->cpu,
        LLVMGetPoison(l->ptr),
        LLVMBuildLoad2(l->builder, l->ptr, l->tlb, ""),
        LLVMBuildLoad2(l->builder, l->i64, l->tlb_mask, ""),
        LLVMGetPoison(l->i64),
        LLVMGetPoison(l->i64),
        target,
    };
    LLVMValueRef call = LLVMBuildCall2(l->builder, l->code_function, function, arguments, 7, "");
    LLVMSetInstructionCallConv(call, CALL_PRESERVE_NONE);
    LLVMSetTailCallKind(call, LLVMTailCallKindMustTail);
    LLVMBuildRetVoid(l->builder);
}

static void build_return(struct lowering *l)
{
    count_optimised(l);
    LLVMBuildRetVoid(l->builder);
}

static void build_jump(struct lowering *l)
{
    LLVMValueRef index = lower_constant(l, offsetof(struct region_runtime, jump));
    LLVMValueRef runtime = lower_load_field(l, l->ptr, offsetof(struct cpu, runtime));
    LLVMValueRef slot = LLVMBuildInBoundsGEP2(l->builder, l->i8, runtime, &index, 1, "");
    LLVMValueRef function = LLVMBuildLoad2(l->builder, l->ptr, slot, "");
    count_optimised(l);
    tail_call(l, function, LLVMGetPoison(l->ptr));
}

static void build_exit(struct lowering *l)
{
    l->exit_target = LLVMBuildPhi(l->builder, l->ptr, "target");
    count_optimised(l);
    tail_call(l, LLVMBuildLoad2(l->builder, l->ptr, l->exit_target, ""), l->exit_target);
}
_Static_assert(offsetof(struct code_target, entry) == 0, "loaded so");

/* The block of that kind, which the first who needs it makes. */
static LLVMBasicBlockRef shared_way(struct lowering *l, LLVMBasicBlockRef *block, const char *name,
                                    void (*build)(struct lowering *l))
{
    if (!*block) {
        LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
        *block = lower_new_block(l, name);
        lower_at(l, *block);
        build(l);
        lower_at(l, here);
    }
    return *block;
}

void lower_return(struct lowering *l)
{
    LLVMBuildBr(l->builder, shared_way(l, &l->return_way, "return", build_return));
}

static void jump_by_runtime(struct lowering *l)
{
    LLVMBuildBr(l->builder, shared_way(l, &l->jump_way, "jump", build_jump));
}

static void follow_exit(struct lowering *l, unsigned exit)
{
    LLVMBasicBlockRef way = shared_way(l, &l->exit_way, "follow", build_exit);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    LLVMValueRef index = lower_constant(l, exit);
    LLVMValueRef slot = LLVMBuildInBoundsGEP2(l->builder, l->ptr, l->exits, &index, 1, "");
    LLVMValueRef target = LLVMBuildLoad2(l->builder, l->ptr, slot, "");
    LLVMAddIncoming(l->exit_target, &target, &here, 1);
    LLVMBuildBr(l->builder, way);
}

static LLVMValueRef address_of(struct lowering *l, int64_t offset)
{
    return LLVMBuildAdd(l->builder, l->page_base, lower_constant(l, (uint64_t)offset), "");
}

void lower_way_out(struct lowering *l, const struct code_way *way)
{
    lower_sync(l);
    if (way->exit < 0) {
        lower_store_field(l, offsetof(struct cpu, pc), address_of(l, way->offset));
        jump_by_runtime(l);
        return;
    }
    unsigned page = l->code->exits[way->exit].page;
    int64_t base = (int64_t)l->code->region->page_delta[page] * CODE_PAGE_BYTES;
    if (base != 0) {
        lower_store_field(l, offsetof(struct cpu, page_base), address_of(l, base));
    }
    follow_exit(l, (unsigned)way->exit);
}

void lower_jump_out(struct lowering *l, LLVMValueRef target)
{
    lower_sync(l);
    lower_store_field(l, offsetof(struct cpu, pc), target);
    jump_by_runtime(l);
}

/* The entry's own block would lead back here: its lower tier is behind exit 0. */
void lower_leave(struct lowering *l)
{
    if (l->index == 0 && l->insns == 0) {
        follow_exit(l, 0);
    } else {
        jump_by_runtime(l);
    }
}

void lower_give_up(struct lowering *l)
{
    l->leaves_first |= l->index == 0 && l->insns == 0;
    lower_sync_pc(l);
    lower_leave(l);
    l->left = true;
}

/* Registers that hold a single are stored boxed, which their bits in memory need not be unless the
 * region has written them: the others are as good in memory as they are here. */
static bool same_singles(const struct lowering *l, const struct global_set *one,
                         const struct global_set *other)
{
    for (unsigned i = 0; i < l->code->global_count; i++) {
        if (l->code->classes[i] == CLASS_SINGLE && set_has(one, i) != set_has(other, i)) {
            return false;
        }
    }
    return true;
}

void lower_finish_leave(struct lowering *l)
{
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    if (!l->leave.at) {
        return;
    }
    lower_at(l, l->leave.at);
    lower_sync_at(l, &l->leave.dirty, l->leave.insns, l->leave.offset);
    jump_by_runtime(l);
    l->leave.at = NULL;
    lower_at(l, here);
}

/* The way out before the present instruction, with one more to come from where the builder is. */
static LLVMBasicBlockRef leave_from_here(struct lowering *l)
{
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    if (l->leave.at && !same_singles(l, &l->leave.dirty, &l->dirty)) {
        lower_finish_leave(l);
    }
    if (!l->leave.at) {
        l->leave.at = lower_new_block(l, "unable");
        l->leave.dirty = (struct global_set){{0}};
        lower_at(l, l->leave.at);
        l->leave.insns = LLVMBuildPhi(l->builder, l->i64, "insns");
        l->leave.offset = LLVMBuildPhi(l->builder, l->i64, "offset");
        lower_at(l, here);
    }
    set_union(&l->leave.dirty, &l->dirty);
    LLVMValueRef insns = lower_constant(l, l->insns);
    LLVMValueRef offset = lower_constant(l, (uint64_t)l->block->base + l->offset);
    LLVMAddIncoming(l->leave.insns, &insns, &here, 1);
    LLVMAddIncoming(l->leave.offset, &offset, &here, 1);
    return l->leave.at;
}

void lower_require(struct lowering *l, LLVMValueRef condition)
{
    LLVMBasicBlockRef next = lower_new_block(l, "");
    if (l->index == 0 && l->insns == 0) {
        LLVMBasicBlockRef otherwise = lower_new_block(l, "unable");
        lower_likely(l, condition, next, otherwise);
        lower_at(l, otherwise);
        lower_sync_pc(l);
        lower_leave(l);
    } else {
        lower_likely(l, condition, next, leave_from_here(l));
    }
    lower_at(l, next);
}

void lower_check_exception(struct lowering *l)
{
    LLVMValueRef exception = lower_load_field(l, l->i32, offsetof(struct cpu, exception));
    LLVMValueRef none =
        LLVMBuildICmp(l->builder, LLVMIntEQ, exception, LLVMConstInt(l->i32, 0, false), "");
    LLVMBasicBlockRef raised = lower_new_block(l, "exception");
    LLVMBasicBlockRef next = lower_new_block(l, "");
    lower_likely(l, none, next, raised);
    lower_at(l, raised);
    lower_return(l);
    lower_at(l, next);
}

/* --- polls ---------------------------------------------------------------------------------- */

static void poll(struct lowering *l, LLVMBasicBlockRef next)
{
    LLVMValueRef attention = LLVMBuildLoad2(
        l->builder, l->i32, lower_cpu_field(l, offsetof(struct cpu, attention)), "attention");
    LLVMValueRef none =
        LLVMBuildICmp(l->builder, LLVMIntEQ, attention, LLVMConstInt(l->i32, 0, false), "");
    LLVMBasicBlockRef asked = lower_new_block(l, "asked");
    lower_likely(l, none, next, asked);
    lower_at(l, asked);
}

/* Nothing of memory is known any more behind this. */
static void forget_memory(struct lowering *l)
{
    LLVMBuildFence(l->builder, LLVMAtomicOrderingSequentiallyConsistent, true, "");
}

void lower_poll(struct lowering *l, const struct code_block *block)
{
    LLVMBasicBlockRef next = lower_new_block(l, "");
    forget_memory(l);
    poll(l, next);
    lower_sync(l);
    lower_store_field(l, offsetof(struct cpu, pc), address_of(l, block->base + block->ir.start));
    lower_return(l);
    lower_at(l, next);
}

/* --- in ------------------------------------------------------------------------------------- */

static LLVMValueRef expected_page(struct lowering *l, unsigned page)
{
    LLVMValueRef index = lower_constant(l, page);
    LLVMValueRef slot = LLVMBuildInBoundsGEP2(l->builder, l->i64, l->pages, &index, 1, "");
    return LLVMBuildLoad2(l->builder, l->i64, slot, "");
}

static LLVMValueRef page_address(struct lowering *l, unsigned page)
{
    return address_of(l, (int64_t)l->code->region->page_delta[page] * CODE_PAGE_BYTES);
}

static LLVMValueRef both(struct lowering *l, LLVMValueRef one, LLVMValueRef other)
{
    return one ? LLVMBuildAnd(l->builder, one, other, "") : other;
}

/* i1: the execute TLB says that the page is where and what it was when the region was formed. */
static LLVMValueRef page_is_known(struct lowering *l, unsigned page)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef va = page_address(l, page);
    LLVMValueRef mask = lower_load_field(l, l->i64, offsetof(struct cpu, tlb_exec_mask));
    LLVMValueRef number = LLVMBuildLShr(b, va, lower_constant(l, PAGE_SHIFT), "");
    number = LLVMBuildAnd(b, number, mask, "");
    number = LLVMBuildShl(b, number, lower_constant(l, 5), "");
    LLVMValueRef table = lower_load_field(l, l->ptr, offsetof(struct cpu, tlb_exec));
    LLVMValueRef entry = LLVMBuildInBoundsGEP2(b, l->i8, table, &number, 1, "");
    LLVMValueRef tag_at = lower_constant(l, offsetof(struct tlb_entry, tag_exec));
    LLVMValueRef addend_at = lower_constant(l, offsetof(struct tlb_entry, addend));
    LLVMValueRef tag =
        LLVMBuildLoad2(b, l->i64, LLVMBuildInBoundsGEP2(b, l->i8, entry, &tag_at, 1, ""), "");
    LLVMValueRef addend =
        LLVMBuildLoad2(b, l->i64, LLVMBuildInBoundsGEP2(b, l->i8, entry, &addend_at, 1, ""), "");
    LLVMValueRef host = LLVMBuildAdd(b, va, addend, "");
    return both(l, LLVMBuildICmp(b, LLVMIntEQ, tag, va, ""),
                LLVMBuildICmp(b, LLVMIntEQ, host, expected_page(l, page), ""));
}

/* All pages are where and what they were, by the TLB or else by the runtime. */
static void guard_pages(struct lowering *l, LLVMBasicBlockRef refused)
{
    LLVMBasicBlockRef ask = lower_new_block(l, "ask"), next = lower_new_block(l, "");
    LLVMValueRef all = NULL;
    for (unsigned page = 1; page < l->code->region->page_count; page++) {
        all = both(l, all, page_is_known(l, page));
    }
    lower_likely(l, all, next, ask);
    lower_at(l, ask);
    LLVMValueRef answers = NULL;
    for (unsigned page = 1; page < l->code->region->page_count; page++) {
        LLVMValueRef arguments[2] = {page_address(l, page), expected_page(l, page)};
        answers =
            both(l, answers,
                 lower_runtime(l, offsetof(struct region_runtime, page_is), arguments, 2, true));
    }
    LLVMValueRef yes = LLVMBuildICmp(l->builder, LLVMIntNE, answers, lower_constant(l, 0), "");
    lower_likely(l, yes, next, refused);
    lower_at(l, next);
}

static bool first_polls(const struct lowering *l)
{
    return !l->code->blocks[0].head || l->code->region->page_count > 1;
}

void lower_entry(struct lowering *l)
{
    LLVMBuilderRef b = l->builder;
    LLVMBasicBlockRef refused = lower_new_block(l, "refused");
    LLVMValueRef base = lower_load_field(l, l->i64, offsetof(struct cpu, page_base));
    l->first_load = base;
    /* It is aligned; so LLVM hears of it. */
    l->page_base = LLVMBuildAnd(b, base, lower_constant(l, (uint64_t)-CODE_PAGE_BYTES), "base");
    LLVMValueRef sound = lower_begin_state(l);
    if (first_polls(l)) {
        LLVMBasicBlockRef next = lower_new_block(l, "");
        poll(l, next);
        LLVMValueRef pc = address_of(l, l->code->blocks[0].ir.start);
        lower_store_field(l, offsetof(struct cpu, pc), pc);
        LLVMBuildRetVoid(b);
        lower_at(l, next);
    }
    if (l->code->region->page_count > 1) {
        guard_pages(l, refused);
    }
    if (sound) {
        LLVMBasicBlockRef next = lower_new_block(l, "");
        lower_likely(l, sound, next, refused);
        lower_at(l, next);
    }
    LLVMBuildBr(b, l->blocks[0]);
    lower_at(l, refused);
    follow_exit(l, 0);
}
