/*
 * Floating point where the host's unit gives the guest's very answer and flags: to nearest, f64 or
 * NaN-boxed f32. NaN results are replaced by the canonical one out of line; values that the host's
 * conversions cannot represent retreat. fp_host_x86_64.h says what is trusted, and why.
 */
#if defined(__x86_64__)

#include "libshared/fp/fp.h"
#include "vmmd/vcpu/engine/baseline/operands.h"

/* A NaN becomes the canonical one. */
static void canonicalise(struct compiler *c, unsigned reg, bool as_double)
{
    emit_float(c->hot, as_double ? HOST_PD : HOST_PS, HOST_FLOAT_UNORDERED_COMPARE, reg, reg);
    uint32_t at = emit_jump_if(c->hot, HOST_PARITY);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    emit_constant(c->cold, REG_SCRATCH, as_double ? FP_F64_NAN : FP_F32_NAN);
    emit_float_from_bits(c->cold, as_double, reg, REG_SCRATCH);
    uint32_t back = emit_jump(c->cold);
    compile_fixup(c, SECTION_COLD, back, SECTION_HOT, c->hot->at);
}

/* --- arithmetic ------------------------------------------------------------------------------ */

static bool compile_arithmetic(struct compiler *c, const struct ir_op *op,
                               enum host_float operation)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = a;
    if (op->d != op->a && !registers_dies(c, op->a, c->uses[c->index].a)) {
        to = registers_allocate(c, FILE_FLOAT);
        emit_float_move(c->hot, to, a);
    }
    emit_float(c->hot, operand_is_double(op) ? HOST_SD : HOST_SS, operation, to, b);
    canonicalise(c, to, operand_is_double(op));
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

bool compile_fadd(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_FLOAT_ADD);
}

bool compile_fsub(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_FLOAT_SUB);
}

bool compile_fmul(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_FLOAT_MUL);
}

bool compile_fdiv(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_FLOAT_DIV);
}

bool compile_fsqrt(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_move(c->hot, to, a);
    emit_float(c->hot, operand_is_double(op) ? HOST_SD : HOST_SS, HOST_FLOAT_SQRT, to, a);
    canonicalise(c, to, operand_is_double(op));
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

/* A NaN is left to the software, because of its flags. The operands stay for it. */
bool compile_fma(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_rounds(op) || !c->features.fma) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned addend = operand_use_float(c, op, op->c);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_move(c->hot, to, a);
    emit_float_fused(c->hot, operand_is_double(op), op->aux & IR_FP_NEGATE_PRODUCT,
                     op->aux & IR_FP_NEGATE_ADDEND, to, b, addend);
    emit_float(c->hot, operand_is_double(op) ? HOST_PD : HOST_PS, HOST_FLOAT_UNORDERED_COMPARE, to,
               to);
    compile_retreat_if(c, HOST_PARITY);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

/* --- minimum, maximum, comparison ------------------------------------------------------------- */

/* Equal operands differ at most in the sign of a zero: or makes it negative, and positive. */
static bool compile_extreme(struct compiler *c, const struct ir_op *op, enum host_float operation,
                            enum host_float of_equals)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float(c->hot, operand_is_double(op) ? HOST_PD : HOST_PS, HOST_FLOAT_UNORDERED_COMPARE, a,
               b);
    compile_retreat_if(c, HOST_PARITY);
    emit_float_move(c->hot, to, a);
    uint32_t equal = emit_jump_if(c->hot, HOST_EQUAL);
    compile_fixup(c, SECTION_HOT, equal, SECTION_COLD, c->cold->at);
    emit_float(c->cold, HOST_PS, of_equals, to, b);
    uint32_t back = emit_jump(c->cold);
    emit_float(c->hot, operand_is_double(op) ? HOST_SD : HOST_SS, operation, to, b);
    compile_fixup(c, SECTION_COLD, back, SECTION_HOT, c->hot->at);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

bool compile_fmin(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_FLOAT_MIN, HOST_FLOAT_OR);
}

bool compile_fmax(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_FLOAT_MAX, HOST_FLOAT_AND);
}

bool compile_feq(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_arithmetic(c->hot, false, HOST_XOR, to, to);
    emit_arithmetic(c->hot, false, HOST_XOR, REG_SCRATCH, REG_SCRATCH);
    emit_float(c->hot, operand_is_double(op) ? HOST_PD : HOST_PS, HOST_FLOAT_UNORDERED_COMPARE, a,
               b);
    emit_set(c->hot, HOST_NOT_PARITY, REG_SCRATCH);
    emit_set(c->hot, HOST_EQUAL, to);
    emit_arithmetic(c->hot, false, HOST_AND, to, REG_SCRATCH);
    registers_define(c, op->d, to);
    return true;
}

/* With the operands exchanged, "above" means less and is false for NaNs. */
static bool compile_less(struct compiler *c, const struct ir_op *op, enum host_condition condition)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_arithmetic(c->hot, false, HOST_XOR, to, to);
    emit_float(c->hot, operand_is_double(op) ? HOST_PD : HOST_PS,
               op->aux & IR_FP_QUIET ? HOST_FLOAT_UNORDERED_COMPARE : HOST_FLOAT_COMPARE, b, a);
    emit_set(c->hot, condition, to);
    registers_define(c, op->d, to);
    return true;
}

bool compile_flt(struct compiler *c, const struct ir_op *op)
{
    return compile_less(c, op, HOST_ABOVE);
}

bool compile_fle(struct compiler *c, const struct ir_op *op)
{
    return compile_less(c, op, HOST_ABOVE_EQUAL);
}

bool compile_fclass(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

/* --- signs ----------------------------------------------------------------------------------- */

/* scratch = sign of b (or, inverted, its opposite) */
static void take_sign(struct compiler *c, const struct ir_op *op, unsigned b, bool inverted)
{
    emit_float_sign_mask(c->hot, operand_is_double(op), XMM_SCRATCH);
    if (inverted) {
        unsigned other = registers_allocate(c, FILE_FLOAT);
        emit_float_move(c->hot, other, b);
        emit_float(c->hot, HOST_PS, HOST_FLOAT_ANDN, other, XMM_SCRATCH);
        emit_float_move(c->hot, XMM_SCRATCH, other);
    } else {
        emit_float(c->hot, HOST_PS, HOST_FLOAT_AND, XMM_SCRATCH, b);
    }
}

/* to = a without its sign */
static unsigned magnitude(struct compiler *c, const struct ir_op *op, unsigned a)
{
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_sign_mask(c->hot, operand_is_double(op), to);
    emit_float(c->hot, HOST_PS, HOST_FLOAT_ANDN, to, a);
    return to;
}

static bool compile_sign(struct compiler *c, const struct ir_op *op, bool inverted)
{
    if (!operand_host_form(op)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to;
    if (op->a == op->b) {
        to = registers_allocate(c, FILE_FLOAT);
        emit_float_move(c->hot, to, a);
        if (inverted) {
            emit_float_sign_mask(c->hot, operand_is_double(op), XMM_SCRATCH);
            emit_float(c->hot, HOST_PS, HOST_FLOAT_XOR, to, XMM_SCRATCH);
        }
    } else {
        take_sign(c, op, b, inverted);
        to = magnitude(c, op, a);
        emit_float(c->hot, HOST_PS, HOST_FLOAT_OR, to, XMM_SCRATCH);
    }
    operand_define_float(c, op->d, to, operand_is_double(op));
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
    unsigned a = operand_use_float(c, op, op->a);
    unsigned b = operand_use_float(c, op, op->b);
    unsigned to;
    if (op->a == op->b) {
        to = magnitude(c, op, a);
    } else {
        take_sign(c, op, b, false);
        to = registers_allocate(c, FILE_FLOAT);
        emit_float_move(c->hot, to, a);
        emit_float(c->hot, HOST_PS, HOST_FLOAT_XOR, to, XMM_SCRATCH);
    }
    operand_define_float(c, op->d, to, operand_is_double(op));
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
    unsigned a =
        operand_is_double(op) ? registers_use_single(c, op->a) : registers_use_double(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_zero(c->hot, to);
    emit_float(c->hot, operand_is_double(op) ? HOST_SS : HOST_SD, HOST_FLOAT_CONVERT, to, a);
    canonicalise(c, to, operand_is_double(op));
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

/* What does not fit yields the "integer indefinite", and nothing but invalid is raised. */
static bool compile_to_signed(struct compiler *c, const struct ir_op *op, bool wide)
{
    unsigned round = op->aux & IR_FP_ROUND;
    if (!operand_host_form(op) || (round != IR_ROUND_RNE && round != IR_ROUND_RTZ)) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_float_to_integer(c->hot, operand_is_double(op), wide, round == IR_ROUND_RTZ, to, a);
    if (wide) {
        emit_constant(c->hot, REG_SCRATCH, UINT64_C(1) << 63);
        emit_arithmetic(c->hot, true, HOST_CMP, to, REG_SCRATCH);
    } else {
        emit_arithmetic_constant(c->hot, false, HOST_CMP, to, INT32_MIN);
    }
    compile_retreat_if(c, HOST_EQUAL);
    if (!wide) {
        emit_extend(c->hot, 2, true, to, to);
    }
    registers_define(c, op->d, to);
    return true;
}

bool compile_fcvt_s64(struct compiler *c, const struct ir_op *op)
{
    return compile_to_signed(c, op, true);
}

bool compile_fcvt_s32(struct compiler *c, const struct ir_op *op)
{
    return compile_to_signed(c, op, false);
}

/* Below the limit, which is given as the operand's bits, positive numbers fit the signed
 * conversion. All others have larger bits, and must not be tried: they would raise inexact. */
static bool compile_to_unsigned(struct compiler *c, const struct ir_op *op, bool wide)
{
    static const uint64_t limits[2][2] = {{0x4f800000, UINT64_C(0x41f0000000000000)},
                                          {0x5f000000, UINT64_C(0x43e0000000000000)}};
    if (!operand_host_form(op) || (op->aux & IR_FP_ROUND) != IR_ROUND_RTZ) {
        return false;
    }
    unsigned a = operand_use_float(c, op, op->a);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_float_to_bits(c->hot, operand_is_double(op), to, a);
    emit_constant(c->hot, REG_SCRATCH, limits[wide][operand_is_double(op)]);
    emit_arithmetic(c->hot, operand_is_double(op), HOST_CMP, to, REG_SCRATCH);
    compile_retreat_if(c, HOST_ABOVE_EQUAL);
    emit_float_to_integer(c->hot, operand_is_double(op), true, true, to, a);
    if (!wide) {
        emit_extend(c->hot, 2, true, to, to);
    }
    registers_define(c, op->d, to);
    return true;
}

bool compile_fcvt_u64(struct compiler *c, const struct ir_op *op)
{
    return compile_to_unsigned(c, op, true);
}

bool compile_fcvt_u32(struct compiler *c, const struct ir_op *op)
{
    return compile_to_unsigned(c, op, false);
}

bool compile_fcvt_mod(struct compiler *c, const struct ir_op *op)
{
    (void)c, (void)op;
    return false;
}

static bool compile_from_integer(struct compiler *c, const struct ir_op *op, bool wide)
{
    bool exact = operand_is_double(op) && !wide;
    if (!operand_host_form(op) || (!exact && !operand_host_rounds(op))) {
        return false;
    }
    unsigned a = registers_use(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_float_zero(c->hot, to);
    emit_float_from_integer(c->hot, operand_is_double(op), wide, to, a);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

bool compile_fcvt_from_s64(struct compiler *c, const struct ir_op *op)
{
    return compile_from_integer(c, op, true);
}

bool compile_fcvt_from_s32(struct compiler *c, const struct ir_op *op)
{
    return compile_from_integer(c, op, false);
}

/* Half of the unsigned 64-bit numbers are signed ones too. */
bool compile_fcvt_from_u64(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_rounds(op)) {
        return false;
    }
    unsigned a = registers_use(c, op->a);
    emit_test(c->hot, true, a, a);
    compile_retreat_if(c, HOST_SIGN);
    return compile_from_integer(c, op, true);
}

bool compile_fcvt_from_u32(struct compiler *c, const struct ir_op *op)
{
    if (!operand_host_form(op) || (!operand_is_double(op) && !operand_host_rounds(op))) {
        return false;
    }
    unsigned a = registers_use(c, op->a);
    unsigned to = registers_allocate(c, FILE_FLOAT);
    emit_move(c->hot, false, REG_SCRATCH, a);
    emit_float_zero(c->hot, to);
    emit_float_from_integer(c->hot, operand_is_double(op), true, to, REG_SCRATCH);
    operand_define_float(c, op->d, to, operand_is_double(op));
    return true;
}

#endif
