/*
 * Helper calls and the ways out of a block.
 *
 * A direct exit is a jump (B) that block_cache sets (baseline_link): within the page to the next
 * block, to another page to that block's guard (compile_guard). Until then it leads to a stub that
 * has the outer loop find the way. Indirect jumps probe the jump cache as jump_find
 * does. Conditional jumps reach 1 MiB only, so they skip an exit instead of being one.
 */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/loops.h"
#include "vmmd/vcpu/engine/baseline/registers.h"

static void count_retired(struct compiler *c, struct emitter *e)
{
    emit_load64(e, HOST_X17, CPU_FIELD(retired));
    emit_arithmetic_constant(e, true, HOST_ADD, HOST_X17, HOST_X17, compile_insn_count(c));
    emit_store(e, 3, CPU_FIELD(retired), HOST_X17);
}

/* All registers are free. */
void compile_probe(struct emitter *e, uint32_t misses[2])
{
    enum { INDEX = 1, ENTRY = 2, FOUND_PC = 3, MODE = 4, FOUND_MODE = 5 };
    /* jump_index: bits 1 up of pc ^ pc >> 11. */
    unsigned bits = (unsigned)__builtin_ctz(ENGINE_JUMP_ENTRIES);
    emit_arithmetic_shifted(e, true, HOST_XOR, INDEX, REG_AWAY, REG_AWAY, HOST_SHR, 11);
    emit_extract(e, true, INDEX, INDEX, 1, bits);
    emit_load64(e, ENTRY, CPU_FIELD(jumps));
    _Static_assert(sizeof(struct jump_entry) == 16 && offsetof(struct jump_entry, block) == 8,
                   "loaded as a pair");
    emit_arithmetic_shifted(e, true, HOST_ADD, ENTRY, ENTRY, INDEX, HOST_SHL, 4);
    emit_load_pair(e, FOUND_PC, REG_TARGET, ENTRY);
    emit_compare(e, true, FOUND_PC, REG_AWAY);
    misses[0] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_load(e, 2, false, MODE, CPU_FIELD(block_mode));
    emit_load(e, 2, false, FOUND_MODE, host_at(REG_TARGET, offsetof(struct block, mode)));
    emit_compare(e, false, MODE, FOUND_MODE);
    misses[1] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_load64(e, HOST_X17, host_at(REG_TARGET, offsetof(struct block, target.entry)));
    emit_arithmetic_constant(e, true, HOST_AND, REG_AWAY, REG_AWAY, (int64_t)PAGE_MASK);
    emit_store(e, 3, CPU_FIELD(page_base), REG_AWAY);
    emit_jump_register(e, HOST_X17);
}

static bool same_page(const struct compiler *c, int64_t target)
{
    return (uint64_t)target < PAGE_BYTES && !c->ir->straddles;
}

/* The last jump of a path, by exit `exit`: everything is stored and counted. For guards, the
 * address is in REG_AWAY. */
static void emit_exit(struct compiler *c, enum section section, unsigned exit, int64_t target)
{
    struct emitter *e = &c->sections[section];
    if (!same_page(c, target)) {
        unsigned base = c->values[VALUE_PAGE_BASE].reg;
        if (base == NO_REGISTER) {
            base = REG_AWAY;
            emit_load64(e, base, CPU_FIELD(page_base));
        }
        emit_arithmetic_constant(e, true, HOST_ADD, REG_AWAY, base, target);
    }
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
    emit_load(c->hot, 2, false, HOST_X17, CPU_FIELD(attention));
    uint32_t at = emit_jump_zero(c->hot, false, true, HOST_X17);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    loops_store_carried(c, c->cold);
    emit_constant(c->cold, REG_AWAY, c->ir->start);
    compile_fixup(c, SECTION_COLD, emit_jump(c->cold), SECTION_SHARED, SHARED_LEAVE);
}

/* Where the branch back leads while it is not linked to the head. */
static void emit_loop_leave(struct compiler *c)
{
    c->leave_at = c->cold->at;
    loops_store_carried(c, c->cold);
    c->leave_jump_at = emit_jump(c->cold);
    compile_fixup(c, SECTION_COLD, c->leave_jump_at, SECTION_COLD, c->stub_at);
}

static void compile_loop(struct compiler *c, const struct ir_op *op)
{
    compile_load_comparison(c, op);
    loops_store_others(c);
    emit_arithmetic_constant(c->hot, true, HOST_ADD, REG_LOOP_COUNT, REG_LOOP_COUNT,
                             (int32_t)compile_insn_count(c));
    enum host_condition condition = compile_compare(c, op);
    compile_exit_stubs(c);
    emit_loop_leave(c);
    uint32_t done = emit_jump_if(c->hot, host_opposite(condition));
    loops_return(c);
    emit_loop_attention(c);
    c->exit_at[0] = emit_jump(c->hot);
    c->exit_section[0] = SECTION_HOT;
    compile_fixup(c, SECTION_HOT, c->exit_at[0], SECTION_COLD, c->leave_at);
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
    if (same_page(c, op->imm2)) {
        uint32_t not_taken = emit_jump_if(c->hot, host_opposite(condition));
        emit_exit(c, SECTION_HOT, 0, op->imm2);
        emit_land(c->hot, not_taken);
    } else {
        uint32_t taken = emit_jump_if(c->hot, condition);
        compile_fixup(c, SECTION_HOT, taken, SECTION_COLD, c->cold->at);
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
    emit_move(c->hot, true, REG_AWAY, target);
    uint32_t misses[2];
    compile_probe(c->hot, misses);
    emit_land(c->hot, misses[0]);
    emit_land(c->hot, misses[1]);
    compile_fixup(c, SECTION_HOT, emit_jump(c->hot), SECTION_SHARED, SHARED_MISS);
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
    emit_constant(c->hot, REG_AWAY, (uint64_t)op->imm);
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
