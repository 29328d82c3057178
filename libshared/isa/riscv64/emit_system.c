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

/* --- CSRs that need no helper --- */

static bool is_immediate(uint32_t word)
{
    return (word >> 14 & 1) != 0;
}

static void emit_binary(struct riscv64_translation *t, enum ir_opcode opcode, ir_value d,
                        ir_value a, ir_value b, uint64_t immediate)
{
    ir_emit(&t->builder, opcode, 0, d, a, b, IR_NONE, (int64_t)immediate, 0);
}

/* A register that is 64 bits and nothing else: its bits of `writable` change. */
static void emit_plain_csr(struct riscv64_translation *t, ir_value csr, uint64_t writable)
{
    enum csr_operation operation = riscv64_csr_operation(t->word);
    unsigned rd = field_rd(t->word);
    uint64_t immediate = is_immediate(t->word) ? field_rs1(t->word) & writable : 0;
    ir_value source = is_immediate(t->word) ? IR_IMMEDIATE : integer_register(field_rs1(t->word));
    ir_value old = csr;

    if (rd && operation != CSR_READ) { /* rd may be the source */
        old = ir_temp(&t->builder, IR_TYPE_I64);
        emit_binary(t, IR_mov, old, IR_NONE, csr, 0);
    }
    if (operation != CSR_READ && source != IR_IMMEDIATE && writable != UINT64_MAX) {
        ir_value masked = ir_temp(&t->builder, IR_TYPE_I64);
        emit_binary(t, IR_and, masked, source, IR_IMMEDIATE, writable);
        source = masked;
    }
    switch (operation) {
    case CSR_READ:
        break;
    case CSR_WRITE:
        emit_binary(t, IR_mov, csr, IR_NONE, source, immediate);
        break;
    case CSR_SET:
        emit_binary(t, IR_or, csr, csr, source, immediate);
        break;
    case CSR_CLEAR:
        emit_binary(t, IR_andn, csr, csr, source, immediate);
        break;
    }
    if (rd) {
        emit_binary(t, IR_mov, integer_register(rd), IR_NONE, old, 0);
    }
}

/* An interrupt may be due: the attention word says so, and the jump looks at it. */
static void emit_poll(struct riscv64_translation *t)
{
    ir_emit(&t->builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, t->next, 0);
    t->ended = true;
}

/* sstatus, unless more than SIE may change. */
static bool emit_status(struct riscv64_translation *t)
{
    enum csr_operation operation = riscv64_csr_operation(t->word);
    unsigned rd = field_rd(t->word);
    uint64_t bits = field_rs1(t->word) & STATUS_SIE;

    if (operation == CSR_WRITE || (operation != CSR_READ && !is_immediate(t->word))) {
        return false;
    }
    if (rd) {
        emit_binary(t, IR_and, integer_register(rd), CSR_VALUE_MSTATUS, IR_IMMEDIATE,
                    STATUS_SUPERVISOR_READABLE);
    }
    if (operation == CSR_CLEAR && bits) {
        emit_binary(t, IR_and, CSR_VALUE_MSTATUS, CSR_VALUE_MSTATUS, IR_IMMEDIATE, ~bits);
    } else if (operation == CSR_SET) {
        emit_binary(t, IR_or, CSR_VALUE_MSTATUS, CSR_VALUE_MSTATUS, IR_IMMEDIATE, bits);
        emit_helper(t, HELPER_csr_poll, IR_NONE, IR_NONE, IR_NONE);
        emit_poll(t);
    }
    return true;
}

static bool emit_without_helper(struct riscv64_translation *t)
{
    if (!(t->code->mode & BLOCK_MODE_SYSTEM)) {
        return false; /* the helper raises the exception */
    }
    switch (field_csr(t->word)) {
    case 0x100:
        return emit_status(t);
    case 0x140:
        emit_plain_csr(t, CSR_VALUE_SSCRATCH, UINT64_MAX);
        return true;
    case 0x141:
        emit_plain_csr(t, CSR_VALUE_SEPC, ~UINT64_C(1));
        return true;
    case 0x142:
        emit_plain_csr(t, CSR_VALUE_SCAUSE, UINT64_MAX);
        return true;
    case 0x143:
        emit_plain_csr(t, CSR_VALUE_STVAL, UINT64_MAX);
        return true;
    default:
        return false;
    }
}

void riscv64_emit_csr(struct riscv64_translation *t, const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    ir_value d = rd ? integer_register(rd) : IR_NONE;
    ir_value a = is_immediate(t->word) ? IR_NONE : integer_register(field_rs1(t->word));
    /* The others that change what code may name change a mode, too. */
    unsigned helper = field_csr(t->word) == 0x300 ? HELPER_csr_status : HELPER_csr;
    (void)instruction;

    if (emit_fflags(t) || emit_without_helper(t)) {
        return;
    }
    switch (riscv64_csr_effect(t->word)) {
    case CSR_CONTINUE:
        emit_helper(t, helper, d, a, IR_NONE);
        break;
    case CSR_POLL:
        emit_helper(t, helper, d, a, IR_NONE);
        emit_poll(t);
        break;
    case CSR_MODE:
        emit_helper(t, HELPER_csr_mode, d, a, IR_NONE);
        riscv64_emit_exit(t);
        break;
    }
}
