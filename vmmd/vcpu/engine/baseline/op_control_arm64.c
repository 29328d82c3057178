/*
 * Helper calls and the ways out of a block.
 *
 * Within the page, an exit is a jump (B) that block_cache sets (baseline_link). Until then it leads
 * to a stub that lets the interpreter's terminator find the way. Everything else probes the jump
 * cache as jump_find does.
 */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/registers.h"

/* Everything is stored when a block is left, so these are free. */
enum { PC = 0, INDEX = 1, ENTRY = 2, FOUND_PC = 3, MODE = 4, FOUND_MODE = 5 };

static void count_retired(struct compiler *c, struct emitter *e)
{
    compile_add_retired(e, (int32_t)compile_insn_count(c));
}

/* Go to the guest address in x0: by the jump cache, otherwise through the outer loop. */
static void emit_probe(struct emitter *e)
{
    uint32_t misses[2];
    /* jump_index: bits 1 up of pc ^ pc >> 11. */
    unsigned bits = (unsigned)__builtin_ctz(ENGINE_JUMP_ENTRIES);
    emit_arithmetic_shifted(e, true, HOST_XOR, INDEX, PC, PC, HOST_SHR, 11);
    emit_extract(e, true, INDEX, INDEX, 1, bits);
    emit_load64(e, ENTRY, CPU_FIELD(jumps));
    _Static_assert(sizeof(struct jump_entry) == 16 && offsetof(struct jump_entry, block) == 8,
                   "loaded as a pair");
    emit_arithmetic_shifted(e, true, HOST_ADD, ENTRY, ENTRY, INDEX, HOST_SHL, 4);
    emit_load_pair(e, FOUND_PC, REG_TARGET, ENTRY);
    emit_compare(e, true, FOUND_PC, PC);
    misses[0] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_load(e, 2, false, MODE, CPU_FIELD(block_mode));
    emit_load(e, 2, false, FOUND_MODE, host_at(REG_TARGET, offsetof(struct block, mode)));
    emit_compare(e, false, MODE, FOUND_MODE);
    misses[1] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_load64(e, HOST_X17, host_at(REG_TARGET, offsetof(struct block, target.entry)));
    emit_arithmetic_constant(e, true, HOST_AND, PC, PC, (int64_t)PAGE_MASK);
    emit_store(e, 3, CPU_FIELD(page_base), PC);
    emit_jump_register(e, HOST_X17);
    for (unsigned i = 0; i < 2; i++) {
        emit_land(e, misses[i]);
    }
    emit_store(e, 3, CPU_FIELD(pc), PC);
    emit_return(e);
}

/* x0 = page base + target */
static void emit_target(struct emitter *e, int64_t target)
{
    emit_load64(e, PC, CPU_FIELD(page_base));
    emit_arithmetic_constant(e, true, HOST_ADD, PC, PC, target);
}

static bool linkable(const struct compiler *c, int64_t target)
{
    return (uint64_t)target < PAGE_BYTES && !c->ir->straddles;
}

/* A jump by exit `exit`. Everything is stored and counted. */
static void emit_exit(struct compiler *c, unsigned exit, int64_t target)
{
    if (!linkable(c, target)) {
        emit_target(c->hot, target);
        emit_probe(c->hot);
        return;
    }
    compile_open_exit(c, exit, SECTION_HOT, emit_jump(c->hot));
}

static bool compile_direct(struct compiler *c, const struct ir_op *op)
{
    registers_clean(c, false);
    count_retired(c, c->hot);
    compile_exit_stub(c);
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

/* A conditional jump reaches 1 MiB only, so the exit's own jump is behind it. */
bool compile_branch(struct compiler *c, const struct ir_op *op)
{
    compile_load_comparison(c, op);
    registers_clean(c, false);
    count_retired(c, c->hot);
    enum host_condition condition = compile_compare(c, op);
    compile_exit_stub(c);
    if (linkable(c, op->imm2)) {
        uint32_t not_taken = emit_jump_if(c->hot, host_opposite(condition));
        emit_exit(c, 0, op->imm2);
        emit_land(c->hot, not_taken);
    } else {
        uint32_t taken = emit_jump_if(c->hot, condition);
        compile_fixup(c, SECTION_HOT, taken, SECTION_COLD, c->cold->at);
        emit_target(c->cold, op->imm2);
        emit_probe(c->cold);
    }
    emit_exit(c, 1, c->ir->start + c->ir->length);
    return true;
}

static bool compile_indirect(struct compiler *c, const struct ir_op *op)
{
    unsigned target = registers_use(c, op->a);
    registers_clean(c, false);
    count_retired(c, c->hot);
    emit_move(c->hot, true, PC, target);
    emit_probe(c->hot);
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
    emit_store(c->hot, 3, CPU_FIELD(pc), PC);
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
