/*
 * Floating point by the host's unit, to nearest, f64 and f32, where it gives the guest's very
 * answer and flags (libshared/fp/fp_host_x86_64.h says what is trusted, and why). Constrained
 * intrinsics are never moved, added or left out, so the host's sticky flags are the guest's.
 * Everything else leaves the region.
 */
#include "jitd/llvm/lowering.h"
#include "libshared/fp/fp.h"
#include <string.h>

/* --- constrained intrinsics ------------------------------------------------------------------ */

static LLVMValueRef text(struct lowering *l, const char *value)
{
    return LLVMMetadataAsValue(l->context,
                               LLVMMDStringInContext2(l->context, value, strlen(value)));
}

/* `detail`: rounding mode or predicate, NULL where the intrinsic takes none. */
static LLVMValueRef constrained(struct lowering *l, const char *name, LLVMTypeRef *types,
                                unsigned type_count, const LLVMValueRef *arguments, unsigned count,
                                const char *detail, bool flags)
{
    LLVMValueRef values[5];
    memcpy(values, arguments, count * sizeof(*arguments));
    if (detail) {
        values[count++] = text(l, detail);
    }
    values[count++] = text(l, flags ? "fpexcept.strict" : "fpexcept.ignore");
    LLVMValueRef call = lower_intrinsic(l, name, types, type_count, values, count);
    LLVMAddCallSiteAttribute(call, LLVMAttributeFunctionIndex,
                             LLVMCreateEnumAttribute(l->context, l->strictfp, 0));
    return call;
}

#define CONSTRAINED(name) "llvm.experimental.constrained." name
#define NEAREST           "round.tonearest"

/* On numbers of one type. */
static LLVMValueRef arithmetic(struct lowering *l, const char *name, const LLVMValueRef *arguments,
                               unsigned count)
{
    LLVMTypeRef type = LLVMTypeOf(arguments[0]);
    return constrained(l, name, &type, 1, arguments, count, NEAREST, true);
}

/* i1; only `signalling` raises invalid for quiet NaNs. */
static LLVMValueRef compare(struct lowering *l, LLVMValueRef a, LLVMValueRef b,
                            const char *predicate, bool signalling)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    const LLVMValueRef arguments[2] = {a, b};
    return constrained(l, signalling ? CONSTRAINED("fcmps") : CONSTRAINED("fcmp"), &type, 1,
                       arguments, 2, predicate, true);
}

LLVMValueRef float_unordered(struct lowering *l, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    const LLVMValueRef arguments[2] = {a, b};
    return constrained(l, CONSTRAINED("fcmp"), &type, 1, arguments, 2, "uno", false);
}

static LLVMValueRef is_nan(struct lowering *l, LLVMValueRef number)
{
    return float_unordered(l, number, number);
}

static LLVMValueRef convert(struct lowering *l, const char *name, LLVMTypeRef to,
                            LLVMValueRef value, bool rounds)
{
    LLVMTypeRef types[2] = {to, LLVMTypeOf(value)};
    return constrained(l, name, types, 2, &value, 1, rounds ? NEAREST : NULL, true);
}

/* --- operands and results -------------------------------------------------------------------- */

static bool is_single(const struct ir_op *op)
{
    return (op->aux & IR_FP_F32) != 0;
}

static bool to_nearest(const struct ir_op *op)
{
    return (op->aux & IR_FP_ROUND) == IR_ROUND_RNE;
}

static LLVMValueRef read_float(struct lowering *l, const struct ir_op *op, ir_value value)
{
    return is_single(op) ? lower_read_f32(l, value, op->aux) : lower_read_f64(l, value);
}

static void write_float(struct lowering *l, const struct ir_op *op, LLVMValueRef number)
{
    if (is_single(op)) {
        lower_write_f32(l, op->d, number, op->aux);
    } else {
        lower_write_f64(l, op->d, number);
    }
}

/* The bits of a number, and the other way. */
static LLVMTypeRef integer_type(const struct lowering *l, LLVMTypeRef type)
{
    return type == l->f32 ? l->i32 : l->i64;
}

static LLVMValueRef to_bits(struct lowering *l, LLVMValueRef number)
{
    return LLVMBuildBitCast(l->builder, number, integer_type(l, LLVMTypeOf(number)), "");
}

static LLVMValueRef from_bits(struct lowering *l, LLVMValueRef bits, LLVMTypeRef type)
{
    return LLVMBuildBitCast(l->builder, bits, type, "");
}

static LLVMValueRef bits_constant(LLVMValueRef like, uint64_t value)
{
    return LLVMConstInt(LLVMTypeOf(like), value, false);
}

LLVMValueRef float_canonical_nan(struct lowering *l, LLVMTypeRef type)
{
    uint64_t bits = type == l->f32 ? FP_F32_NAN : FP_F64_NAN;
    return LLVMConstBitCast(LLVMConstInt(integer_type(l, type), bits, false), type);
}

/* A NaN becomes the canonical one, in a cold block: nothing waits for the test. */
static LLVMValueRef canonical(struct lowering *l, LLVMValueRef number)
{
    LLVMBasicBlockRef nan = lower_new_block(l, "nan"), next = lower_new_block(l, "");
    LLVMTypeRef type = LLVMTypeOf(number);
    LLVMValueRef ordered = LLVMBuildNot(l->builder, is_nan(l, number), "");
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    lower_likely(l, ordered, next, nan);
    lower_at(l, nan);
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
    LLVMValueRef result = LLVMBuildPhi(l->builder, type, "");
    LLVMValueRef values[2] = {number, float_canonical_nan(l, type)};
    LLVMBasicBlockRef from[2] = {here, nan};
    LLVMAddIncoming(result, values, from, 2);
    return result;
}

/* --- arithmetic ------------------------------------------------------------------------------ */

/* The result of an operation that makes a NaN of any NaN. */
static void write_result(struct lowering *l, const struct ir_op *op, LLVMValueRef number)
{
    const ir_value operands[2] = {op->a, op->b};
    bool later = settle_later(l, op->d, operands, op->b == IR_NONE ? 1 : 2, is_single(op));
    write_float(l, op, later ? number : canonical(l, number));
}

static bool binary(struct lowering *l, const struct ir_op *op, const char *name)
{
    if (!to_nearest(op)) {
        return false;
    }
    const LLVMValueRef arguments[2] = {read_float(l, op, op->a), read_float(l, op, op->b)};
    write_result(l, op, arithmetic(l, name, arguments, 2));
    return true;
}

bool op_fadd(struct lowering *l, const struct ir_op *op)
{
    return binary(l, op, CONSTRAINED("fadd"));
}

bool op_fsub(struct lowering *l, const struct ir_op *op)
{
    return binary(l, op, CONSTRAINED("fsub"));
}

bool op_fmul(struct lowering *l, const struct ir_op *op)
{
    return binary(l, op, CONSTRAINED("fmul"));
}

bool op_fdiv(struct lowering *l, const struct ir_op *op)
{
    return binary(l, op, CONSTRAINED("fdiv"));
}

bool op_fsqrt(struct lowering *l, const struct ir_op *op)
{
    if (!to_nearest(op)) {
        return false;
    }
    LLVMValueRef a = read_float(l, op, op->a);
    write_result(l, op, arithmetic(l, CONSTRAINED("sqrt"), &a, 1));
    return true;
}

static LLVMValueRef negated_if(struct lowering *l, LLVMValueRef number, bool negate)
{
    return negate ? LLVMBuildFNeg(l->builder, number, "") : number;
}

/* Infinity times zero is invalid; whether the host says so beside a quiet NaN, depends on the
 * processor. */
static LLVMValueRef is_invalid_product(struct lowering *l, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    uint64_t sign = UINT64_C(1) << (type == l->f32 ? 31 : 63);
    uint64_t infinity = type == l->f32 ? UINT64_C(0x7f800000) : UINT64_C(0x7ff0000000000000);
    const LLVMValueRef numbers[2] = {a, b};
    LLVMValueRef infinite[2], zero[2];
    for (unsigned i = 0; i < 2; i++) {
        LLVMValueRef bits = to_bits(l, numbers[i]);
        bits = LLVMBuildAnd(l->builder, bits, bits_constant(bits, sign - 1), "");
        infinite[i] = LLVMBuildICmp(l->builder, LLVMIntEQ, bits, bits_constant(bits, infinity), "");
        zero[i] = LLVMBuildICmp(l->builder, LLVMIntEQ, bits, bits_constant(bits, 0), "");
    }
    return LLVMBuildOr(l->builder, LLVMBuildAnd(l->builder, infinite[0], zero[1], ""),
                       LLVMBuildAnd(l->builder, infinite[1], zero[0], ""), "");
}

static void raise_invalid_if(struct lowering *l, LLVMValueRef condition)
{
    LLVMValueRef flags = lower_load_field(l, l->i32, offsetof(struct cpu, fp_flags));
    LLVMValueRef raised =
        LLVMBuildSelect(l->builder, condition, LLVMConstInt(l->i32, FP_INVALID, false),
                        LLVMConstInt(l->i32, 0, false), "");
    lower_store_field(l, offsetof(struct cpu, fp_flags),
                      LLVMBuildOr(l->builder, flags, raised, ""));
}

bool op_fma(struct lowering *l, const struct ir_op *op)
{
    if (!to_nearest(op) || !l->features->fma) {
        return false;
    }
    const LLVMValueRef arguments[3] = {
        negated_if(l, read_float(l, op, op->a), op->aux & IR_FP_NEGATE_PRODUCT),
        read_float(l, op, op->b),
        negated_if(l, read_float(l, op, op->c), op->aux & IR_FP_NEGATE_ADDEND)};
    LLVMTypeRef type = LLVMTypeOf(arguments[0]);
    LLVMValueRef number = arithmetic(l, CONSTRAINED("fma"), arguments, 3);
    LLVMBasicBlockRef nan = lower_new_block(l, "nan"), next = lower_new_block(l, "");
    LLVMValueRef ordered = LLVMBuildNot(l->builder, is_nan(l, number), "");
    LLVMValueRef values[2] = {number, float_canonical_nan(l, type)};
    LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(l->builder), nan};
    lower_likely(l, ordered, next, nan);
    lower_at(l, nan);
    raise_invalid_if(l, is_invalid_product(l, arguments[0], arguments[1]));
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
    LLVMValueRef result = LLVMBuildPhi(l->builder, type, "");
    LLVMAddIncoming(result, values, from, 2);
    write_float(l, op, result);
    return true;
}

/* --- minimum, maximum, comparison ------------------------------------------------------------- */

/* By its bits, as a comparison would raise invalid for a signalling NaN. */
static LLVMValueRef is_number(struct lowering *l, LLVMValueRef number)
{
    LLVMValueRef bits = to_bits(l, number);
    bool single = LLVMTypeOf(number) == l->f32;
    LLVMValueRef sign = bits_constant(bits, UINT64_C(1) << (single ? 31 : 63));
    LLVMValueRef infinity =
        bits_constant(bits, single ? UINT64_C(0x7f800000) : UINT64_C(0x7ff0000000000000));
    LLVMValueRef magnitude = LLVMBuildAnd(l->builder, bits, LLVMBuildNot(l->builder, sign, ""), "");
    return LLVMBuildICmp(l->builder, LLVMIntULE, magnitude, infinity, "");
}

/* Equal operands differ at most in the sign of a zero: or makes it negative, and positive. NaNs are
 * left to the lower tier, before there are flags. */
static bool extreme(struct lowering *l, const struct ir_op *op, bool maximum)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef x = read_float(l, op, op->a), y = read_float(l, op, op->b);
    lower_require(l, LLVMBuildAnd(b, is_number(l, x), is_number(l, y), ""));
    LLVMValueRef less = compare(l, x, y, maximum ? "ogt" : "olt", false);
    LLVMValueRef equal = compare(l, x, y, "oeq", false);
    LLVMValueRef x_bits = to_bits(l, x), y_bits = to_bits(l, y);
    LLVMValueRef same =
        maximum ? LLVMBuildAnd(b, x_bits, y_bits, "") : LLVMBuildOr(b, x_bits, y_bits, "");
    LLVMValueRef other = LLVMBuildSelect(b, less, x_bits, y_bits, "");
    LLVMValueRef bits = LLVMBuildSelect(b, equal, same, other, "");
    write_float(l, op, from_bits(l, bits, LLVMTypeOf(x)));
    return true;
}

bool op_fmin(struct lowering *l, const struct ir_op *op)
{
    return extreme(l, op, false);
}

bool op_fmax(struct lowering *l, const struct ir_op *op)
{
    return extreme(l, op, true);
}

static bool comparison(struct lowering *l, const struct ir_op *op, const char *predicate,
                       bool signalling)
{
    LLVMValueRef a = read_float(l, op, op->a), b = read_float(l, op, op->b);
    LLVMValueRef holds = compare(l, a, b, predicate, signalling);
    lower_write(l, op->d, LLVMBuildZExt(l->builder, holds, l->i64, ""));
    return true;
}

bool op_feq(struct lowering *l, const struct ir_op *op)
{
    return comparison(l, op, "oeq", false);
}

bool op_flt(struct lowering *l, const struct ir_op *op)
{
    return comparison(l, op, "olt", !(op->aux & IR_FP_QUIET));
}

bool op_fle(struct lowering *l, const struct ir_op *op)
{
    return comparison(l, op, "ole", !(op->aux & IR_FP_QUIET));
}

/* The bit's number: 0 to 3 from infinity down to zero, mirrored for positive numbers; 8 and 9 are
 * the NaNs. */
bool op_fclass(struct lowering *l, const struct ir_op *op)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef bits = to_bits(l, read_float(l, op, op->a));
    unsigned fraction = is_single(op) ? 23 : 52;
    uint64_t sign = UINT64_C(1) << (is_single(op) ? 31 : 63);
    uint64_t infinity = (sign - 1) & ~((UINT64_C(1) << fraction) - 1);
    LLVMValueRef magnitude = LLVMBuildAnd(b, bits, bits_constant(bits, sign - 1), "");
    const struct {
        LLVMIntPredicate predicate;
        uint64_t limit, number;
    } steps[] = {
        {LLVMIntULE, infinity, 0},
        {LLVMIntULT, infinity, 1},
        {LLVMIntULT, UINT64_C(1) << fraction, 2},
        {LLVMIntEQ, 0, 3},
    };
    LLVMValueRef number = bits_constant(bits, 8);
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        LLVMValueRef holds = LLVMBuildICmp(b, steps[i].predicate, magnitude,
                                           bits_constant(bits, steps[i].limit), "");
        number = LLVMBuildSelect(b, holds, bits_constant(bits, steps[i].number), number, "");
    }
    LLVMValueRef ordered =
        LLVMBuildICmp(b, LLVMIntULE, magnitude, bits_constant(bits, infinity), "");
    LLVMValueRef positive = LLVMBuildICmp(b, LLVMIntULT, bits, bits_constant(bits, sign), "");
    LLVMValueRef mirrored = LLVMBuildSub(b, bits_constant(bits, 7), number, "");
    number = LLVMBuildSelect(b, LLVMBuildAnd(b, ordered, positive, ""), mirrored, number, "");
    LLVMValueRef quiet =
        LLVMBuildICmp(b, LLVMIntUGE, magnitude,
                      bits_constant(bits, infinity | UINT64_C(1) << (fraction - 1)), "");
    number = LLVMBuildSelect(b, quiet, bits_constant(bits, 9), number, "");
    LLVMValueRef result = LLVMBuildShl(b, bits_constant(bits, 1), number, "");
    if (is_single(op)) {
        result = LLVMBuildZExt(b, result, l->i64, "");
    }
    lower_write(l, op->d, result);
    return true;
}

/* --- signs ----------------------------------------------------------------------------------- */

static LLVMValueRef copy_sign(struct lowering *l, LLVMValueRef a, LLVMValueRef b)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    LLVMValueRef arguments[2] = {a, b};
    return lower_intrinsic(l, "llvm.copysign", &type, 1, arguments, 2);
}

bool op_fsgnj(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef a = read_float(l, op, op->a);
    write_float(l, op, op->a == op->b ? a : copy_sign(l, a, read_float(l, op, op->b)));
    return true;
}

bool op_fsgnjn(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef a = read_float(l, op, op->a);
    LLVMValueRef sign = LLVMBuildFNeg(l->builder, read_float(l, op, op->b), "");
    write_float(l, op, op->a == op->b ? sign : copy_sign(l, a, sign));
    return true;
}

bool op_fsgnjx(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef a = read_float(l, op, op->a);
    LLVMTypeRef type = LLVMTypeOf(a);
    if (op->a == op->b) {
        write_float(l, op, lower_intrinsic(l, "llvm.fabs", &type, 1, &a, 1));
        return true;
    }
    LLVMValueRef b = to_bits(l, read_float(l, op, op->b));
    uint64_t sign = UINT64_C(1) << (is_single(op) ? 31 : 63);
    b = LLVMBuildAnd(l->builder, b, bits_constant(b, sign), "");
    write_float(l, op, from_bits(l, LLVMBuildXor(l->builder, to_bits(l, a), b, ""), type));
    return true;
}

/* --- conversions ----------------------------------------------------------------------------- */

/* What the host rounds in one instruction. Inexact is raised by rint alone. */
bool op_fround(struct lowering *l, const struct ir_op *op)
{
    static const char *const names[] = {
        [IR_ROUND_RNE] = CONSTRAINED("nearbyint"),
        [IR_ROUND_RTZ] = CONSTRAINED("trunc"),
        [IR_ROUND_RDN] = CONSTRAINED("floor"),
        [IR_ROUND_RUP] = CONSTRAINED("ceil"),
        [IR_ROUND_RMM] = NULL,
    };
    unsigned round = op->aux & IR_FP_ROUND;
    bool exact = op->aux & IR_FP_EXACT;
    if (!l->features->sse41 || !names[round] || (exact && round != IR_ROUND_RNE)) {
        return false;
    }
    LLVMValueRef a = read_float(l, op, op->a);
    LLVMTypeRef type = LLVMTypeOf(a);
    bool dynamic = round == IR_ROUND_RNE;
    LLVMValueRef result = constrained(l, exact ? CONSTRAINED("rint") : names[round], &type, 1, &a,
                                      1, dynamic ? NEAREST : NULL, true);
    write_float(l, op, canonical(l, result));
    return true;
}

/* The format names the result; the source has the other. */
bool op_fcvt(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef result;
    if (is_single(op)) {
        if (!to_nearest(op)) {
            return false;
        }
        result = convert(l, CONSTRAINED("fptrunc"), l->f32, lower_read_f64(l, op->a), true);
    } else {
        result = convert(l, CONSTRAINED("fpext"), l->f64, lower_read_f32(l, op->a, op->aux), false);
    }
    write_float(l, op, canonical(l, result));
    return true;
}

/* f64 that rounds into the range of s32, and is not its minimum; the others must not be rounded, as
 * that would raise inexact. By bits, to raise nothing here. */
static void require_near_s32(struct lowering *l, LLVMValueRef number)
{
    LLVMValueRef bits = to_bits(l, number);
    LLVMValueRef magnitude = LLVMBuildAnd(l->builder, bits, bits_constant(bits, INT64_MAX), "");
    LLVMValueRef limit = bits_constant(bits, UINT64_C(0x41dfffffffe00000)); /* 2^31 - 0.5 */
    lower_require(l, LLVMBuildICmp(l->builder, LLVMIntULT, magnitude, limit, ""));
}

/* What does not fit yields the "integer indefinite", the minimum; invalid is raised then, unless it
 * is the right answer. */
static LLVMValueRef saturated(struct lowering *l, LLVMValueRef number, LLVMValueRef result)
{
    LLVMTypeRef type = LLVMTypeOf(result);
    uint64_t minimum = type == l->i32 ? UINT64_C(1) << 31 : UINT64_C(1) << 63;
    LLVMBasicBlockRef beyond = lower_new_block(l, "beyond"), next = lower_new_block(l, "");
    LLVMBasicBlockRef from[2] = {LLVMGetInsertBlock(l->builder), beyond};
    LLVMValueRef fits =
        LLVMBuildICmp(l->builder, LLVMIntNE, result, LLVMConstInt(type, minimum, false), "");
    lower_likely(l, fits, next, beyond);
    lower_at(l, beyond);
    LLVMValueRef bits = to_bits(l, number);
    uint64_t negative_infinity =
        LLVMTypeOf(number) == l->f32 ? UINT64_C(0xff800000) : UINT64_C(0xfff0000000000000);
    uint64_t sign = LLVMTypeOf(number) == l->f32 ? UINT64_C(1) << 31 : UINT64_C(1) << 63;
    LLVMValueRef above =
        LLVMBuildICmp(l->builder, LLVMIntUGT, bits, bits_constant(bits, negative_infinity), "");
    above =
        LLVMBuildOr(l->builder, above,
                    LLVMBuildICmp(l->builder, LLVMIntULT, bits, bits_constant(bits, sign), ""), "");
    LLVMValueRef values[2] = {result, LLVMBuildSelect(l->builder, above,
                                                      LLVMConstInt(type, minimum - 1, false),
                                                      LLVMConstInt(type, minimum, false), "")};
    LLVMBuildBr(l->builder, next);
    lower_at(l, next);
    LLVMValueRef answer = LLVMBuildPhi(l->builder, type, "");
    LLVMAddIncoming(answer, values, from, 2);
    return answer;
}

static bool to_signed(struct lowering *l, const struct ir_op *op, LLVMTypeRef type)
{
    unsigned round = op->aux & IR_FP_ROUND;
    if ((round != IR_ROUND_RNE && round != IR_ROUND_RTZ) ||
        (round == IR_ROUND_RNE && !l->features->sse41)) {
        return false;
    }
    LLVMValueRef a = read_float(l, op, op->a);
    if (round == IR_ROUND_RNE) {
        LLVMTypeRef format = LLVMTypeOf(a);
        if (type == l->i32 && !is_single(op)) {
            require_near_s32(l, a);
        }
        a = constrained(l, CONSTRAINED("rint"), &format, 1, &a, 1, NEAREST, true);
    }
    LLVMValueRef result = saturated(l, a, convert(l, CONSTRAINED("fptosi"), type, a, false));
    lower_write(l, op->d, type == l->i64 ? result : LLVMBuildSExt(l->builder, result, l->i64, ""));
    return true;
}

bool op_fcvt_s64(struct lowering *l, const struct ir_op *op)
{
    return to_signed(l, op, l->i64);
}

bool op_fcvt_s32(struct lowering *l, const struct ir_op *op)
{
    return to_signed(l, op, l->i32);
}

/* Below the limit, which is given as the operand's bits, positive numbers fit the signed
 * conversion. All others have larger bits, and must not be tried. */
static bool to_unsigned(struct lowering *l, const struct ir_op *op, bool wide)
{
    static const uint64_t limits[2][2] = {{0x4f800000, UINT64_C(0x41f0000000000000)},
                                          {0x5f000000, UINT64_C(0x43e0000000000000)}};
    if ((op->aux & IR_FP_ROUND) != IR_ROUND_RTZ) {
        return false;
    }
    LLVMValueRef a = read_float(l, op, op->a);
    LLVMValueRef bits = to_bits(l, a);
    LLVMValueRef limit = bits_constant(bits, limits[wide][!is_single(op)]);
    lower_require(l, LLVMBuildICmp(l->builder, LLVMIntULT, bits, limit, ""));
    LLVMValueRef result = convert(l, CONSTRAINED("fptosi"), l->i64, a, false);
    if (!wide) {
        result = LLVMBuildTrunc(l->builder, result, l->i32, "");
        result = LLVMBuildSExt(l->builder, result, l->i64, "");
    }
    lower_write(l, op->d, result);
    return true;
}

bool op_fcvt_u64(struct lowering *l, const struct ir_op *op)
{
    return to_unsigned(l, op, true);
}

bool op_fcvt_u32(struct lowering *l, const struct ir_op *op)
{
    return to_unsigned(l, op, false);
}

bool op_fcvt_mod(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return false;
}

static bool from_integer(struct lowering *l, const struct ir_op *op, LLVMValueRef value)
{
    LLVMValueRef result =
        convert(l, CONSTRAINED("sitofp"), is_single(op) ? l->f32 : l->f64, value, true);
    write_float(l, op, result);
    return true;
}

/* 32-bit numbers are exact in f64, whatever the rounding mode. */
static bool can_convert(const struct ir_op *op, bool wide)
{
    return to_nearest(op) || (!wide && !is_single(op));
}

bool op_fcvt_from_s64(struct lowering *l, const struct ir_op *op)
{
    return can_convert(op, true) && from_integer(l, op, lower_read(l, op->a));
}

bool op_fcvt_from_s32(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef low;
    if (!can_convert(op, false)) {
        return false;
    }
    low = LLVMBuildTrunc(l->builder, lower_read(l, op->a), l->i32, "");
    return from_integer(l, op, low);
}

/* Half of the unsigned 64-bit numbers are signed ones too. */
bool op_fcvt_from_u64(struct lowering *l, const struct ir_op *op)
{
    if (!can_convert(op, true)) {
        return false;
    }
    LLVMValueRef a = lower_read(l, op->a);
    lower_require(l, LLVMBuildICmp(l->builder, LLVMIntSGE, a, lower_constant(l, 0), ""));
    return from_integer(l, op, a);
}

bool op_fcvt_from_u32(struct lowering *l, const struct ir_op *op)
{
    if (!can_convert(op, false)) {
        return false;
    }
    LLVMValueRef low =
        LLVMBuildAnd(l->builder, lower_read(l, op->a), lower_constant(l, UINT32_MAX), "");
    return from_integer(l, op, low);
}

/* --- moves ----------------------------------------------------------------------------------- */

bool op_fmv_to_int(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef bits = lower_read_bits(l, op->a);
    if (is_single(op)) {
        bits = LLVMBuildTrunc(l->builder, bits, l->i32, "");
        bits = LLVMBuildSExt(l->builder, bits, l->i64, "");
    }
    lower_write(l, op->d, bits);
    return true;
}

bool op_fmv_from_int(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef bits = lower_read(l, op->a);
    if (is_single(op)) {
        bits = LLVMBuildTrunc(l->builder, bits, l->i32, "");
        lower_write_f32(l, op->d, from_bits(l, bits, l->f32), op->aux);
    } else {
        lower_write_bits(l, op->d, bits);
    }
    return true;
}

bool op_fmov(struct lowering *l, const struct ir_op *op)
{
    lower_write_bits(l, op->d, lower_read_bits(l, op->a));
    return true;
}
