/* Emitters: traps, CSRs and what else goes through a helper. */
#include "libshared/isa/riscv64/csr.h"
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/helpers.h"
#include "libshared/isa/riscv64/registers.h"

static void emit_helper(struct riscv64_translation *t, unsigned helper, ir_value d, ir_value a,
                        ir_value b)
{
    ir_emit(&t->builder, IR_helper, helper, d, a, b, IR_NONE, t->raw, 0);
}

static void emit_exit_pc(struct riscv64_translation *t)
{
    ir_emit(&t->builder, IR_exit_pc, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, 0, 0);
    t->ended = true;
}

void riscv64_emit_exit(struct riscv64_translation *t)
{
    ir_emit(&t->builder, IR_exit, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, t->next, 0);
    t->ended = true;
}

void riscv64_emit_illegal(struct riscv64_translation *t)
{
    emit_helper(t, HELPER_illegal, IR_NONE, IR_NONE, IR_NONE);
    emit_exit_pc(t);
}

void riscv64_emit_float_dirty(struct riscv64_translation *t)
{
    emit_helper(t, HELPER_float_dirty, IR_NONE, IR_NONE, IR_NONE);
}

/* ECALL and EBREAK. The helper leaves an exception, or (a call to the machine's own firmware) the
 * pc to go on at. */
void riscv64_emit_trap(struct riscv64_translation *t, const struct riscv64_instruction *instruction)
{
    emit_helper(t, instruction->opcode, IR_NONE, IR_NONE, IR_NONE);
    emit_exit_pc(t);
}

void riscv64_emit_trap_return(struct riscv64_translation *t,
                              const struct riscv64_instruction *instruction)
{
    emit_helper(t, instruction->opcode, IR_NONE, IR_NONE, IR_NONE);
    emit_exit_pc(t);
}

/* aux 1: rs1 and rs2 are operands. A register number of 0 means "all", so the numbers matter, not
 * only the values; the helper finds them in the instruction word. */
void riscv64_emit_system(struct riscv64_translation *t,
                         const struct riscv64_instruction *instruction)
{
    if (instruction->aux) {
        emit_helper(t, instruction->opcode, IR_NONE, integer_register(field_rs1(t->word)),
                    integer_register(field_rs2(t->word)));
    } else {
        emit_helper(t, instruction->opcode, IR_NONE, IR_NONE, IR_NONE);
    }
    riscv64_emit_exit(t);
}

void riscv64_emit_system_check(struct riscv64_translation *t,
                               const struct riscv64_instruction *instruction)
{
    emit_helper(t, instruction->opcode, IR_NONE, IR_NONE, IR_NONE);
}

/* FRFLAGS and FSFLAGS as compilers use them, around comparisons that are to raise nothing: where
 * nothing can keep them from it. */
static bool emit_fflags(struct riscv64_translation *t)
{
    enum { FFLAGS = 1, CSRRW = 1, CSRRS = 2 };
    unsigned operation = t->word >> 12 & 7, state = t->code->mode & BLOCK_MODE_FS;
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word);
    if (t->word >> 20 != FFLAGS) {
        return false;
    }
    if (operation == CSRRS && rs1 == 0 && rd != 0 && state != BLOCK_MODE_FS_OFF) {
        emit_helper(t, HELPER_get_fflags, integer_register(rd), IR_NONE, IR_NONE);
        return true;
    }
    if (operation == CSRRW && rd == 0 && state == BLOCK_MODE_FS_DIRTY) {
        emit_helper(t, HELPER_set_fflags, IR_NONE, integer_register(rs1), IR_NONE);
        return true;
    }
    return false;
}

void riscv64_emit_csr(struct riscv64_translation *t, const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    bool immediate = (t->word >> 14 & 1) != 0;
    ir_value d = rd ? integer_register(rd) : IR_NONE;
    ir_value a = immediate ? IR_NONE : integer_register(field_rs1(t->word));
    (void)instruction;

    if (emit_fflags(t)) {
        return;
    }
    switch (riscv64_csr_effect(t->word)) {
    case CSR_CONTINUE:
        emit_helper(t, HELPER_csr, d, a, IR_NONE);
        break;
    case CSR_POLL:
        /* An interrupt may be due: the helper has set the attention word, the jump looks at it. */
        emit_helper(t, HELPER_csr, d, a, IR_NONE);
        ir_emit(&t->builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, t->next, 0);
        t->ended = true;
        break;
    case CSR_MODE:
        emit_helper(t, HELPER_csr_mode, d, a, IR_NONE);
        riscv64_emit_exit(t);
        break;
    }
}
