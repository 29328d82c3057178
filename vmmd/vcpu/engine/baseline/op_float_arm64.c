/*
 * Floating point where the host's unit gives the guest's very answer and flags: to nearest, f64 or
 * NaN-boxed f32. NaN results are canonical by FPCR.DN. Results that may be tiny, and for which the
 * processor's idea of underflow would matter, retreat. fp_host_arm64.h says what is trusted, and
 * why.
 */
#if defined(__aarch64__)

#include "libshared/fp/fp.h"
#include "vmmd/vcpu/engine/baseline/operands.h"

/* --- arithmetic ------------------------------------------------------------------------------ */

static bool compile_sum(struct compiler *c, const struct ir_op *op, enum host_float operation)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = op->d == op->a || registers_dies(c, op->a, c->uses[c->index].a)
                      ? a
                      : registers_allocate(c, FILE_FLOAT);
    emit_float(c->hot, operand_is_double(op), operation, to, a, b);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

bool compile_fadd(struct compiler *c, const struct ir_op *op)
{
    return compile_sum(c, op, HOST_FLOAT_ADD);
}

bool compile_fsub(struct compiler *c, const struct ir_op *op)
{
    return compile_sum(c, op, HOST_FLOAT_SUB);
}

bool compile_fsqrt(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_unary(c->hot, operand_is_double(op), HOST_FLOAT_SQRT, to, a);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

/* Jump to COLD when the result is zero, subnormal or in the lowest binade; `or_special`: or
 * infinite or NaN. */
static void jump_if_tiny(struct compiler *c, bool as_double, bool or_special, unsigned reg)
{
    unsigned low = as_double ? 52 : 23, width = as_double ? 11 : 8;
    emit_float_to_bits(c->hot, as_double, HOST_X17, reg);
    emit_extract(c->hot, as_double, HOST_X17, HOST_X17, low, width);
    enum host_condition tiny = HOST_BELOW_EQUAL;
    if (or_special) {
        emit_arithmetic_constant(c->hot, false, HOST_SUB, HOST_X17, HOST_X17, 2);
        emit_compare_constant(c->hot, false, HOST_X17, (1 << width) - 3);
        tiny = HOST_ABOVE_EQUAL;
    } else {
        emit_compare_constant(c->hot, false, HOST_X17, 1);
    }
    uint32_t at = emit_jump_if(c->hot, tiny);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
}

/* In COLD: back to HOT when the register is zero. */
static void back_if_zero(struct compiler *c, bool as_double, unsigned reg)
{
    emit_float_compare_zero(c->cold, as_double, reg);
    uint32_t back = emit_jump_if(c->cold, HOST_EQUAL);
    compile_fixup(c, SECTION_COLD, back, SECTION_HOT, c->hot->at);
}

/* In COLD: a tiny result that is not zero, or (zero) by no operand, is left to the software. The
 * operands are intact. */
static bool compile_scaling(struct compiler *c, const struct ir_op *op, enum host_float operation,
                            bool by_either)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    bool as_double = operand_is_double(op);
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float(c->hot, as_double, operation, to, a, b);
    jump_if_tiny(c, as_double, false, to);
    back_if_zero(c, as_double, a); /* with a zero, the result is an exact one */
    if (by_either) {
        back_if_zero(c, as_double, b);
    }
    compile_retreat_here(c);
    operand_define_float(c, op->d, to, as_double);
    return true;
}

bool compile_fmul(struct compiler *c, const struct ir_op *op)
{
    return compile_scaling(c, op, HOST_FLOAT_MUL, true);
}

bool compile_fdiv(struct compiler *c, const struct ir_op *op)
{
    return compile_scaling(c, op, HOST_FLOAT_DIV, false);
}

/* A NaN is left to the software as well, because of its flags. A zero added to an exact zero is
 * exact. */
bool compile_fma(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    bool as_double = operand_is_double(op);
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned addend = operand_use_float(c, op, op->c);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_fused(c->hot, as_double, op->aux & IR_FP_NEGATE_PRODUCT,
                     op->aux & IR_FP_NEGATE_ADDEND, to, a, b, addend);
    jump_if_tiny(c, as_double, true, to);
    emit_float_compare(c->cold, as_double, false, to, to);
    uint32_t nan = emit_jump_if(c->cold, HOST_UNORDERED);
    emit_float_compare_zero(c->cold, as_double, addend);
    uint32_t inexact = emit_jump_if(c->cold, HOST_NOT_EQUAL);
    back_if_zero(c, as_double, a);
    back_if_zero(c, as_double, b);
    emit_land(c->cold, nan);
    emit_land(c->cold, inexact);
    compile_retreat_here(c);
    operand_define_float(c, op->d, to, as_double);
    return true;
}

/* --- minimum, maximum, comparison ------------------------------------------------------------- */

static bool compile_extreme(struct compiler *c, const struct ir_op *op, enum host_float operation)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_compare(c->hot, operand_is_double(op), false, a, b);
    compile_retreat_if(c, HOST_UNORDERED);
    emit_float(c->hot, operand_is_double(op), operation, to, a, b);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

bool compile_fmin(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_FLOAT_MIN);
}

bool compile_fmax(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_FLOAT_MAX);
}

static bool compile_comparison(struct compiler *c, const struct ir_op *op, bool signalling,
                               enum host_condition condition)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_float_compare(c->hot, operand_is_double(op), signalling, a, b);
    emit_set(c->hot, condition, to);
    registers_define(c, op->d, to);
    return true;
}

bool compile_feq(struct compiler *c, const struct ir_op *op)
{
    return compile_comparison(c, op, false, HOST_EQUAL);
}

bool compile_flt(struct compiler *c, const struct ir_op *op)
{
    return compile_comparison(c, op, !(op->aux & IR_FP_QUIET), HOST_MINUS);
}

bool compile_fle(struct compiler *c, const struct ir_op *op)
{
    return compile_comparison(c, op, !(op->aux & IR_FP_QUIET), HOST_BELOW_EQUAL);
}

bool compile_fclass(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

/* --- signs ----------------------------------------------------------------------------------- */

/* scratch = the sign's bit alone: minus zero */
static void emit_sign_bit(struct compiler *c, bool as_double, unsigned to)
{
    emit_float_zero(c->hot, to);
    emit_float_unary(c->hot, as_double, HOST_FLOAT_NEGATE, to, to);
}

static bool compile_sign(struct compiler *c, const struct ir_op *op, bool inverted)
{
    if (!operand_host_form(op)) {
        return false;
    }
    bool as_double = operand_is_double(op);
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    if (op->a == op->b) {
        emit_float_unary(c->hot, as_double, inverted ? HOST_FLOAT_NEGATE : HOST_FLOAT_MOVE, to, a);
    } else {
        if (inverted) {
            emit_float_unary(c->hot, as_double, HOST_FLOAT_NEGATE, FLOAT_SCRATCH, b);
            b = FLOAT_SCRATCH;
        }
        emit_sign_bit(c, as_double, to);
        emit_bytes_combine(c->hot, HOST_BYTES_SELECT, to, b, a);
    }
    operand_define_float(c, op->d, to, as_double);
    return true;
}

bool compile_fsgnj(struct compiler *c, const struct ir_op *op)
{
    return compile_sign(c, op, false);
}

bool compile_fsgnjn(struct compiler *c, const struct ir_op *op)
{
    return compile_sign(c, op, true);
}

bool compile_fsgnjx(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_form(op)) {
        return false;
    }
    bool as_double = operand_is_double(op);
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    if (op->a == op->b) {
        emit_float_unary(c->hot, as_double, HOST_FLOAT_ABS, to, a);
    } else {
        emit_sign_bit(c, as_double, to);
        emit_bytes_combine(c->hot, HOST_BYTES_AND, to, to, b);
        emit_bytes_combine(c->hot, HOST_BYTES_XOR, to, to, a);
    }
    operand_define_float(c, op->d, to, as_double);
    return true;
}

/* --- conversions ----------------------------------------------------------------------------- */

bool compile_fround(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

/* The format names the result; the source has the other. */
bool compile_fcvt(struct compiler *c, const struct ir_op *op)
{
    if (!(op->aux & IR_FP_BOX) || !operand_host_rounds(op)) {
        return false;
    }
    bool to_double = operand_is_double(op);
    unsigned a = to_double ? registers_use_single(c, op->a) : registers_use_double(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_convert(c->hot, to_double, to, a);
    if (!to_double) {
        jump_if_tiny(c, false, false, to);
        back_if_zero(c, true, a);
        compile_retreat_here(c);
    }
    operand_define_float(c, op->d, to, to_double);
    return true;
}

/* The host saturates as the IR does, but for NaN. */
static bool compile_to_integer(struct compiler *c, const struct ir_op *op, bool is_signed,
                               bool wide)
{
    static const uint16_t rounds[] = {
        [IR_ROUND_RNE] = HOST_ROUND_NEAREST, [IR_ROUND_RTZ] = HOST_ROUND_ZERO,
        [IR_ROUND_RDN] = HOST_ROUND_DOWN,    [IR_ROUND_RUP] = HOST_ROUND_UP,
        [IR_ROUND_RMM] = HOST_ROUND_AWAY,
    };
    unsigned round = op->aux & IR_FP_ROUND;
    if (!operand_host_form(op) || round >= sizeof(rounds) / sizeof(rounds[0])) {
        return false;
    }
    bool from_double = operand_is_double(op);
    unsigned a = operand_use_float(c, op, op->a);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_float_compare(c->hot, from_double, false, a, a);
    compile_retreat_if(c, HOST_UNORDERED);
    emit_float_to_integer(c->hot, from_double, wide, is_signed, (enum host_round)rounds[round], to,
                          a);
    if (!wide) {
        emit_extend(c->hot, 2, true, to, to);
    }
    registers_define(c, op->d, to);
    return true;
}

#define TO_INTEGER(name, is_signed, wide)                                                          \
    bool compile_fcvt_##name(struct compiler *c, const struct ir_op *op)                           \
    {                                                                                              \
        return compile_to_integer(c, op, is_signed, wide);                                         \
    }

TO_INTEGER(s64, true, true)
TO_INTEGER(s32, true, false)
TO_INTEGER(u64, false, true)
TO_INTEGER(u32, false, false)

bool compile_fcvt_mod(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

static bool compile_from_integer(struct compiler *c, const struct ir_op *op, bool is_signed,
                                 bool wide)
{
    bool exact = operand_is_double(op) && !wide;
    if (!operand_host_form(op) || (!exact && !operand_host_rounds(op))) {
        return false;
    }
    unsigned a = registers_use(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_from_integer(c->hot, operand_is_double(op), wide, is_signed, to, a);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

#define FROM_INTEGER(name, is_signed, wide)                                                        \
    bool compile_fcvt_from_##name(struct compiler *c, const struct ir_op *op)                      \
    {                                                                                              \
        return compile_from_integer(c, op, is_signed, wide);                                       \
    }

FROM_INTEGER(s64, true, true)
FROM_INTEGER(s32, true, false)
FROM_INTEGER(u64, false, true)
FROM_INTEGER(u32, false, false)

#endif
