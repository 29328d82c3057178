#include "vmmd/vcpu/engine/baseline/host.h"

#if HAS_BASELINE

#include "vmmd/vcpu/engine/baseline/operands.h"

/* The second operand when it is known: the immediate, or a constant's value. */
bool operand_known_b(struct compiler *c, const struct ir_op *op, int64_t *value)
{
    if (op->b == IR_IMMEDIATE) {
        *value = op->imm;
        return true;
    }
    return registers_is_constant(c, op->b, value);
}

/* The second operand in a register. */
unsigned operand_use_b(struct compiler *c, const struct ir_op *op)
{
    if (op->b != IR_IMMEDIATE) {
        return registers_use(c, op->b);
    }
    emit_constant(c->hot, REG_SCRATCH, (uint64_t)op->imm);
    return REG_SCRATCH;
}

/* Fill the slot from a 32-bit result, whose upper half is clear. */
void operand_define32(struct compiler *c, const struct ir_op *op, unsigned reg)
{
    if (op->aux == IR_EXTEND_SIGN) {
        emit_extend(c->hot, 2, true, reg, reg);
    }
    registers_define(c, op->d, reg);
}

void operand_define_width(struct compiler *c, const struct ir_op *op, bool wide, unsigned reg)
{
    if (wide) {
        registers_define(c, op->d, reg);
    } else {
        operand_define32(c, op, reg);
    }
}

bool operand_is_double(const struct ir_op *op)
{
    return !(op->aux & IR_FP_F32);
}

/* Whether the slots have a form that the host's unit can work on. */
bool operand_host_form(const struct ir_op *op)
{
    return operand_is_double(op) || op->aux & IR_FP_BOX;
}

bool operand_host_rounds(const struct ir_op *op)
{
    return operand_host_form(op) && (op->aux & IR_FP_ROUND) == IR_ROUND_RNE;
}

unsigned operand_use_float(struct compiler *c, const struct ir_op *op, ir_value value)
{
    return operand_is_double(op) ? registers_use_double(c, value) : registers_use_single(c, value);
}

void operand_define_float(struct compiler *c, ir_value value, unsigned reg, bool as_double)
{
    if (as_double) {
        registers_define(c, value, reg);
    } else {
        registers_define_single(c, value, reg);
    }
}

/* --- operations that only move ---------------------------------------------------------------- */

bool compile_insn(struct compiler *c, const struct ir_op *op)
{
    (void)c;
    (void)op;
    return true;
}

bool compile_mov(struct compiler *c, const struct ir_op *op)
{
    int64_t value;
    if (operand_known_b(c, op, &value)) {
        registers_define_constant(c, op->d, value);
        return true;
    }
    unsigned b = registers_use(c, op->b);
    if (op->d == op->b) {
        return true;
    }
    if (!registers_dies(c, op->b, c->uses[c->index].b)) {
        unsigned to = registers_allocate(c, FILE_GENERAL);
        emit_move(c->hot, true, to, b);
        b = to;
    }
    registers_define(c, op->d, b);
    return true;
}

/* The slot's bits, whatever they mean: from its register or from memory. */
bool compile_fmv_to_int(struct compiler *c, const struct ir_op *op)
{
    const struct value_state *state = registers_value(c, op->a);
    bool narrow = !operand_is_double(op);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    if (state->reg != NO_REGISTER && (narrow || !state->single)) {
        emit_float_to_bits(c->hot, !narrow, to, state->reg);
        if (narrow) {
            emit_extend(c->hot, 2, true, to, to);
        }
    } else if (state->reg != NO_REGISTER) {
        emit_float_to_bits(c->hot, true, to, registers_use_double(c, op->a));
    } else {
        emit_load(c->hot, narrow ? 2 : 3, narrow, to, host_cpu(state->offset));
    }
    registers_define(c, op->d, to);
    return true;
}

bool compile_fmv_from_int(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = registers_use(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_from_bits(c->hot, operand_is_double(op), to, a);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

bool compile_fmov(struct compiler *c, const struct ir_op *op)
{
    if (op->d == op->a) {
        return true;
    }
    const struct value_state *state = registers_value(c, op->a);
    bool single = state->reg != NO_REGISTER && state->single;
    unsigned a = single ? registers_use_single(c, op->a) : registers_use_double(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_move(c->hot, to, a);
    operand_define_float(c, op->d, to, !single);
    return true;
}

#endif
