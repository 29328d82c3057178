/*
 * Helper calls and the ways out of a block.
 *
 * A direct exit is a jump whose displacement block_cache sets (baseline_link): within the page to
 * the next block, to another page to that block's guard (compile_guard). Until then it leads to a
 * stub that has the outer loop find the way. Indirect jumps probe the jump cache as
 * jump_find does.
 */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/loops.h"
#include "vmmd/vcpu/engine/baseline/registers.h"

static void count_retired(struct compiler *c, struct emitter *e)
{
    emit_arithmetic_memory_constant(e, true, HOST_ADD, CPU_FIELD(retired),
                                    (int32_t)compile_insn_count(c));
}

/* All registers are free. */
void compile_probe(struct emitter *e, uint32_t misses[2])
{
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
}

static bool same_page(const struct compiler *c, int64_t target)
{
    return (uint64_t)target < PAGE_BYTES && !c->ir->straddles;
}

/* The last jump of a path, by exit `exit`: everything is stored and counted. For guards, the
 * address is in rax. */
static void emit_exit(struct compiler *c, enum section section, unsigned exit, int64_t target)
{
    struct emitter *e = &c->sections[section];
    if (!same_page(c, target)) {
        unsigned base = c->values[VALUE_PAGE_BASE].reg;
        if (base != NO_REGISTER) {
            emit_address(e, true, RAX, host_at(base, (int32_t)target));
        } else {
            emit_load64(e, RAX, CPU_FIELD(page_base));
            emit_arithmetic_constant(e, true, HOST_ADD, RAX, (int32_t)target);
        }
    }
    emit_align(e, 4, 1);
    compile_open_exit(c, exit, section, emit_jump(e));
}

static bool compile_direct(struct compiler *c, const struct ir_op *op)
{
    registers_clean(c, false);
    count_retired(c, c->hot);
    compile_exit_stubs(c);
    emit_exit(c, SECTION_HOT, 0, op->imm);
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

/* Attention at a loop's end, with state as at its head. */
static void emit_loop_attention(struct compiler *c)
{
    uint32_t at = emit_jump(c->hot);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    loops_store_carried(c, c->cold);
    emit_constant(c->cold, RAX, c->ir->start);
    compile_fixup(c, SECTION_COLD, emit_jump(c->cold), SECTION_SHARED, SHARED_LEAVE);
}

/* Where the branch back leads while it is not linked to the head. */
static void emit_loop_leave(struct compiler *c)
{
    c->leave_at = c->cold->at;
    loops_store_carried(c, c->cold);
    emit_align(c->cold, 4, 1);
    c->leave_jump_at = emit_jump(c->cold);
    compile_fixup(c, SECTION_COLD, c->leave_jump_at, SECTION_COLD, c->stub_at);
}

static void compile_loop(struct compiler *c, const struct ir_op *op)
{
    compile_load_comparison(c, op);
    loops_store_others(c);
    emit_arithmetic_constant(c->hot, true, HOST_ADD, REG_LOOP_COUNT,
                             (int32_t)compile_insn_count(c));
    enum host_condition condition = compile_compare(c, op);
    compile_exit_stubs(c);
    emit_loop_leave(c);
    uint32_t done = emit_jump_if(c->hot, (enum host_condition)(condition ^ 1u));
    loops_return(c);
    emit_arithmetic_memory_constant(c->hot, false, HOST_CMP, CPU_FIELD(attention), 0);
    emit_align(c->hot, 4, 2);
    c->exit_at[0] = emit_jump_if(c->hot, HOST_EQUAL);
    c->exit_section[0] = SECTION_HOT;
    compile_fixup(c, SECTION_HOT, c->exit_at[0], SECTION_COLD, c->leave_at);
    emit_loop_attention(c);
    emit_land(c->hot, done);
    registers_clean(c, false);
    compile_flush_count(c->hot);
    emit_exit(c, SECTION_HOT, 1, c->ir->start + c->ir->length);
}

bool compile_branch(struct compiler *c, const struct ir_op *op)
{
    if (c->looping) {
        compile_loop(c, op);
        return true;
    }
    compile_load_comparison(c, op);
    registers_clean(c, true); /* the stub leads to who compares again, from memory */
    count_retired(c, c->hot);
    enum host_condition condition = compile_compare(c, op);
    compile_exit_stubs(c);
    emit_align(c->hot, 4, 2);
    uint32_t at = emit_jump_if(c->hot, condition);
    if (same_page(c, op->imm2)) {
        compile_open_exit(c, 0, SECTION_HOT, at);
    } else {
        compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
        emit_exit(c, SECTION_COLD, 0, op->imm2);
    }
    emit_exit(c, SECTION_HOT, 1, c->ir->start + c->ir->length);
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
    uint32_t misses[2];
    compile_probe(c->hot, misses);
    for (unsigned i = 0; i < 2; i++) {
        compile_fixup(c, SECTION_HOT, misses[i], SECTION_SHARED, SHARED_MISS);
    }
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
    emit_constant(c->hot, RAX, (uint64_t)op->imm);
    compile_fixup(c, SECTION_HOT, emit_jump(c->hot), SECTION_SHARED, SHARED_LEAVE);
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
