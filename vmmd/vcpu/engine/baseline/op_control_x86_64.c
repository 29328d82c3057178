/*
 * Helper calls and the ways out of a block.
 *
 * Within the page, an exit is a jump whose displacement block_cache sets (baseline_link). Until
 * then it leads to a stub that lets the interpreter's terminator find the way. Everything else
 * probes the jump cache as jump_find does.
 */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

static void count_retired(struct compiler *c, struct emitter *e)
{
    emit_arithmetic_memory_constant(e, true, HOST_ADD, CPU_FIELD(retired),
                                    (int32_t)compile_insn_count(c));
}

/* Go to the guest address in rax: by the jump cache, otherwise through the outer loop. All
 * registers are free. */
static void emit_probe(struct compiler *c, struct emitter *e)
{
    (void)c;
    uint32_t misses[2];
    /* Twice the index of jump_index: bits 1 up of pc ^ pc >> 11. */
    emit_move(e, false, RCX, RAX);
    emit_shift_constant(e, false, HOST_SHR, RCX, 11);
    emit_arithmetic(e, false, HOST_XOR, RCX, RAX);
    emit_arithmetic_constant(e, false, HOST_AND, RCX, (ENGINE_JUMP_ENTRIES - 1) * 2);
    emit_load64(e, RDX, CPU_FIELD(jumps));
    _Static_assert(sizeof(struct jump_entry) == 16, "twice the index, scaled by 8");
    emit_arithmetic_load(e, true, HOST_CMP, RAX,
                         host_indexed(RDX, RCX, 3, offsetof(struct jump_entry, pc)));
    misses[0] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_load64(e, RDX, host_indexed(RDX, RCX, 3, offsetof(struct jump_entry, block)));
    emit_load(e, 2, false, RCX, CPU_FIELD(block_mode));
    emit_arithmetic_load(e, false, HOST_CMP, RCX, host_at(RDX, offsetof(struct block, mode)));
    misses[1] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_arithmetic_constant(e, true, HOST_AND, RAX, -(int32_t)PAGE_BYTES);
    emit_store(e, 3, CPU_FIELD(page_base), RAX);
    emit_jump_memory(e, host_at(RDX, offsetof(struct block, target.entry)));
    for (unsigned i = 0; i < 2; i++) {
        emit_land(e, misses[i]);
    }
    emit_store(e, 3, CPU_FIELD(pc), RAX);
    emit_return(e);
}

/* rax = page base + target */
static void emit_target(struct emitter *e, int64_t target)
{
    emit_load64(e, RAX, CPU_FIELD(page_base));
    emit_arithmetic_constant(e, true, HOST_ADD, RAX, (int32_t)target);
}

static bool linkable(const struct compiler *c, int64_t target)
{
    return (uint64_t)target < PAGE_BYTES && !c->ir->straddles;
}

/* The last jump of a block, by exit `exit`. Everything is stored and counted. */
static void emit_exit(struct compiler *c, unsigned exit, int64_t target)
{
    if (!linkable(c, target)) {
        emit_target(c->hot, target);
        emit_probe(c, c->hot);
        return;
    }
    emit_align(c->hot, 4, 1);
    uint32_t at = emit_jump(c->hot);
    c->exit_at[exit] = at;
    c->exit_stub[exit] = compile_retreat_stub(c, compile_insn_count(c));
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->exit_stub[exit]);
}

static bool compile_direct(struct compiler *c, const struct ir_op *op)
{
    registers_clean(c, false);
    count_retired(c, c->hot);
    emit_exit(c, 0, op->imm);
    return true;
}

bool compile_jump(struct compiler *c, const struct ir_op *op)
{
    return compile_direct(c, op);
}

bool compile_call(struct compiler *c, const struct ir_op *op)
{
    return compile_direct(c, op);
}

bool compile_branch(struct compiler *c, const struct ir_op *op)
{
    compile_load_comparison(c, op);
    registers_clean(c, false);
    count_retired(c, c->hot);
    enum host_condition condition = compile_compare(c, op);
    emit_align(c->hot, 4, 2);
    uint32_t at = emit_jump_if(c->hot, condition);
    if (linkable(c, op->imm2)) {
        c->exit_at[0] = at;
        c->exit_stub[0] = compile_retreat_stub(c, compile_insn_count(c));
        compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->exit_stub[0]);
    } else {
        compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
        emit_target(c->cold, op->imm2);
        emit_probe(c, c->cold);
    }
    emit_exit(c, 1, c->ir->start + c->ir->length);
    return true;
}

static bool compile_indirect(struct compiler *c, const struct ir_op *op)
{
    unsigned target = registers_use(c, op->a);
    registers_clean(c, false);
    count_retired(c, c->hot);
    if (target != RAX) {
        emit_move(c->hot, true, RAX, target);
    }
    emit_probe(c, c->hot);
    return true;
}

bool compile_jump_ind(struct compiler *c, const struct ir_op *op)
{
    return compile_indirect(c, op);
}

bool compile_call_ind(struct compiler *c, const struct ir_op *op)
{
    return compile_indirect(c, op);
}

bool compile_ret(struct compiler *c, const struct ir_op *op)
{
    return compile_indirect(c, op);
}

bool compile_exit(struct compiler *c, const struct ir_op *op)
{
    registers_clean(c, false);
    count_retired(c, c->hot);
    emit_target(c->hot, op->imm);
    emit_store(c->hot, 3, CPU_FIELD(pc), RAX);
    emit_return(c->hot);
    return true;
}

bool compile_exit_pc(struct compiler *c, const struct ir_op *op)
{
    (void)op;
    registers_clean(c, false);
    count_retired(c, c->hot);
    emit_return(c->hot);
    return true;
}

bool compile_helper(struct compiler *c, const struct ir_op *op)
{
    (void)c;
    (void)op;
    return false;
}

#endif
