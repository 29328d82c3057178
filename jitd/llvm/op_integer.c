/* Moves and integer arithmetic. */
#include "jitd/llvm/lowering.h"

typedef LLVMValueRef build_binary(LLVMBuilderRef builder, LLVMValueRef a, LLVMValueRef b,
                                  const char *name);

static LLVMValueRef narrow(struct lowering *l, LLVMValueRef value)
{
    return LLVMBuildTrunc(l->builder, value, l->i32, "");
}

static LLVMValueRef widen(struct lowering *l, LLVMValueRef value, unsigned extend)
{
    return extend == IR_EXTEND_SIGN ? LLVMBuildSExt(l->builder, value, l->i64, "")
                                    : LLVMBuildZExt(l->builder, value, l->i64, "");
}

static LLVMValueRef constant_of(LLVMValueRef like, int64_t value)
{
    return LLVMConstInt(LLVMTypeOf(like), (uint64_t)value, true);
}

static LLVMValueRef call_unary(struct lowering *l, const char *name, LLVMValueRef a)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    return lower_intrinsic(l, name, &type, 1, &a, 1);
}

static LLVMValueRef call_binary(struct lowering *l, const char *name, LLVMValueRef a,
                                LLVMValueRef b)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    LLVMValueRef arguments[2] = {a, b};
    return lower_intrinsic(l, name, &type, 1, arguments, 2);
}

/* --- moves ---------------------------------------------------------------------------------- */

bool op_insn(struct lowering *l, const struct ir_op *op)
{
    (void)l, (void)op;
    return true;
}

bool op_mov(struct lowering *l, const struct ir_op *op)
{
    lower_write(l, op->d, lower_read_b(l));
    return true;
}

bool op_pcrel(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef offset = lower_constant(l, (uint64_t)(l->block->base + op->imm));
    lower_write(l, op->d, LLVMBuildAdd(l->builder, l->page_base, offset, ""));
    return true;
}

bool op_select(struct lowering *l, const struct ir_op *op)
{
    LLVMValueRef a = lower_read(l, op->a);
    LLVMValueRef chosen = LLVMBuildICmp(l->builder, LLVMIntNE, a, constant_of(a, 0), "");
    lower_write(l, op->d,
                LLVMBuildSelect(l->builder, chosen, lower_read_b(l), lower_read(l, op->c), ""));
    return true;
}

/* --- arithmetic ----------------------------------------------------------------------------- */

static bool binary(struct lowering *l, const struct ir_op *op, build_binary *build)
{
    lower_write(l, op->d, build(l->builder, lower_read(l, op->a), lower_read_b(l), ""));
    return true;
}

static bool binary32(struct lowering *l, const struct ir_op *op, build_binary *build)
{
    LLVMValueRef a = narrow(l, lower_read(l, op->a));
    LLVMValueRef b = narrow(l, lower_read_b(l));
    lower_write(l, op->d, widen(l, build(l->builder, a, b, ""), op->aux));
    return true;
}

#define BINARY(name, build)                                                                        \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        return binary(l, op, build);                                                               \
    }
BINARY(add, LLVMBuildAdd)
BINARY(sub, LLVMBuildSub)
BINARY(and, LLVMBuildAnd)
BINARY(or, LLVMBuildOr)
BINARY(xor, LLVMBuildXor)
BINARY(mul, LLVMBuildMul)

#define BINARY32(name, build)                                                                      \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        return binary32(l, op, build);                                                             \
    }
BINARY32(add32, LLVMBuildAdd)
BINARY32(sub32, LLVMBuildSub)
BINARY32(mul32, LLVMBuildMul)

bool op_rsub(struct lowering *l, const struct ir_op *op)
{
    lower_write(l, op->d, LLVMBuildSub(l->builder, lower_read_b(l), lower_read(l, op->a), ""));
    return true;
}

static LLVMValueRef inverted_b(struct lowering *l)
{
    return LLVMBuildNot(l->builder, lower_read_b(l), "");
}

bool op_andn(struct lowering *l, const struct ir_op *op)
{
    lower_write(l, op->d, LLVMBuildAnd(l->builder, lower_read(l, op->a), inverted_b(l), ""));
    return true;
}

bool op_orn(struct lowering *l, const struct ir_op *op)
{
    lower_write(l, op->d, LLVMBuildOr(l->builder, lower_read(l, op->a), inverted_b(l), ""));
    return true;
}

bool op_xnor(struct lowering *l, const struct ir_op *op)
{
    lower_write(l, op->d, LLVMBuildXor(l->builder, lower_read(l, op->a), inverted_b(l), ""));
    return true;
}

/* --- shifts --------------------------------------------------------------------------------- */

/* Counts modulo the width. */
static bool shift(struct lowering *l, const struct ir_op *op, build_binary *build, bool wide)
{
    LLVMValueRef a = lower_read(l, op->a);
    LLVMValueRef count = lower_read_b(l);
    if (!wide) {
        a = narrow(l, a);
        count = narrow(l, count);
    }
    count = LLVMBuildAnd(l->builder, count, constant_of(count, wide ? 63 : 31), "");
    LLVMValueRef result = build(l->builder, a, count, "");
    lower_write(l, op->d, wide ? result : widen(l, result, op->aux));
    return true;
}

#define SHIFT(name, build, wide)                                                                   \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        return shift(l, op, build, wide);                                                          \
    }
SHIFT(shl, LLVMBuildShl, true)
SHIFT(shr, LLVMBuildLShr, true)
SHIFT(sar, LLVMBuildAShr, true)
SHIFT(shl32, LLVMBuildShl, false)
SHIFT(shr32, LLVMBuildLShr, false)
SHIFT(sar32, LLVMBuildAShr, false)

static bool rotate(struct lowering *l, const struct ir_op *op, const char *name, bool wide)
{
    LLVMValueRef a = lower_read(l, op->a);
    LLVMValueRef count = lower_read_b(l);
    if (!wide) {
        a = narrow(l, a);
        count = narrow(l, count);
    }
    LLVMTypeRef type = LLVMTypeOf(a);
    LLVMValueRef arguments[3] = {a, a, count};
    LLVMValueRef result = lower_intrinsic(l, name, &type, 1, arguments, 3);
    lower_write(l, op->d, wide ? result : widen(l, result, op->aux));
    return true;
}

#define ROTATE(name, intrinsic, wide)                                                              \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        return rotate(l, op, intrinsic, wide);                                                     \
    }
ROTATE(rotl, "llvm.fshl", true)
ROTATE(rotr, "llvm.fshr", true)
ROTATE(rotl32, "llvm.fshl", false)
ROTATE(rotr32, "llvm.fshr", false)

static bool shifted_add(struct lowering *l, const struct ir_op *op, bool word)
{
    LLVMValueRef a = lower_read(l, op->a);
    if (word) {
        a = LLVMBuildAnd(l->builder, a, lower_constant(l, UINT32_MAX), "");
    }
    a = LLVMBuildShl(l->builder, a, lower_constant(l, (uint64_t)op->imm & 63), "");
    lower_write(l, op->d, LLVMBuildAdd(l->builder, a, lower_read(l, op->b), ""));
    return true;
}

bool op_shladd(struct lowering *l, const struct ir_op *op)
{
    return shifted_add(l, op, false);
}

bool op_shladduw(struct lowering *l, const struct ir_op *op)
{
    return shifted_add(l, op, true);
}

/* --- multiplication and division ------------------------------------------------------------ */

static bool high_half(struct lowering *l, const struct ir_op *op, bool a_signed, bool b_signed)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef x = lower_read(l, op->a), y = lower_read_b(l);
    x = a_signed ? LLVMBuildSExt(b, x, l->i128, "") : LLVMBuildZExt(b, x, l->i128, "");
    y = b_signed ? LLVMBuildSExt(b, y, l->i128, "") : LLVMBuildZExt(b, y, l->i128, "");
    LLVMValueRef product = LLVMBuildMul(b, x, y, "");
    product = LLVMBuildLShr(b, product, LLVMConstInt(l->i128, 64, false), "");
    lower_write(l, op->d, LLVMBuildTrunc(b, product, l->i64, ""));
    return true;
}

bool op_mulhs(struct lowering *l, const struct ir_op *op)
{
    return high_half(l, op, true, true);
}

bool op_mulhu(struct lowering *l, const struct ir_op *op)
{
    return high_half(l, op, false, false);
}

bool op_mulhsu(struct lowering *l, const struct ir_op *op)
{
    return high_half(l, op, true, false);
}

/* By one instead of what LLVM leaves undefined; the answers for those are selected. */
static LLVMValueRef divide(struct lowering *l, LLVMValueRef x, LLVMValueRef y, bool is_signed,
                           bool remainder)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef zero = constant_of(x, 0);
    LLVMValueRef by_zero = LLVMBuildICmp(b, LLVMIntEQ, y, zero, "");
    LLVMValueRef by_minus_one = LLVMBuildICmp(b, LLVMIntEQ, y, constant_of(x, -1), "");
    LLVMValueRef special = is_signed ? LLVMBuildOr(b, by_zero, by_minus_one, "") : by_zero;
    LLVMValueRef safe = LLVMBuildSelect(b, special, constant_of(x, 1), y, "");
    LLVMValueRef result;
    if (remainder) {
        /* x % 1 is x % -1 already */
        result = is_signed ? LLVMBuildSRem(b, x, safe, "") : LLVMBuildURem(b, x, safe, "");
        return LLVMBuildSelect(b, by_zero, x, result, "");
    }
    result = is_signed ? LLVMBuildSDiv(b, x, safe, "") : LLVMBuildUDiv(b, x, safe, "");
    if (is_signed) {
        LLVMValueRef negated = LLVMBuildNeg(b, x, "");
        result = LLVMBuildSelect(b, by_minus_one, negated, result, "");
    }
    return LLVMBuildSelect(b, by_zero, constant_of(x, -1), result, "");
}

static bool division(struct lowering *l, const struct ir_op *op, bool is_signed, bool remainder)
{
    lower_write(l, op->d, divide(l, lower_read(l, op->a), lower_read_b(l), is_signed, remainder));
    return true;
}

static bool division32(struct lowering *l, const struct ir_op *op, bool is_signed, bool remainder)
{
    LLVMValueRef a = narrow(l, lower_read(l, op->a));
    LLVMValueRef b = narrow(l, lower_read_b(l));
    lower_write(l, op->d, widen(l, divide(l, a, b, is_signed, remainder), op->aux));
    return true;
}

#define DIVISION(name, function, is_signed, remainder)                                             \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        return function(l, op, is_signed, remainder);                                              \
    }
DIVISION(divs, division, true, false)
DIVISION(divu, division, false, false)
DIVISION(rems, division, true, true)
DIVISION(remu, division, false, true)
DIVISION(divs32, division32, true, false)
DIVISION(divu32, division32, false, false)
DIVISION(rems32, division32, true, true)
DIVISION(remu32, division32, false, true)

/* --- comparison ----------------------------------------------------------------------------- */

#define EXTREME(name, intrinsic)                                                                   \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        LLVMValueRef a = lower_read(l, op->a);                                                     \
        lower_write(l, op->d, call_binary(l, intrinsic, a, lower_read_b(l)));                      \
        return true;                                                                               \
    }
EXTREME(mins, "llvm.smin")
EXTREME(minu, "llvm.umin")
EXTREME(maxs, "llvm.smax")
EXTREME(maxu, "llvm.umax")

LLVMValueRef lower_condition(struct lowering *l, const struct ir_op *op)
{
    static const LLVMIntPredicate predicates[] = {
        [IR_EQ] = LLVMIntEQ,   [IR_NE] = LLVMIntNE,   [IR_LT] = LLVMIntSLT, [IR_GE] = LLVMIntSGE,
        [IR_LTU] = LLVMIntULT, [IR_GEU] = LLVMIntUGE, [IR_LE] = LLVMIntSLE, [IR_GT] = LLVMIntSGT,
        [IR_LEU] = LLVMIntULE, [IR_GTU] = LLVMIntUGT,
    };
    return LLVMBuildICmp(l->builder, predicates[op->aux], lower_read(l, op->a), lower_read_b(l),
                         "");
}

bool op_setcc(struct lowering *l, const struct ir_op *op)
{
    lower_write(l, op->d, LLVMBuildZExt(l->builder, lower_condition(l, op), l->i64, ""));
    return true;
}

/* --- bits ----------------------------------------------------------------------------------- */

/* Of zero: the width. */
static LLVMValueRef count_zeros(struct lowering *l, const char *name, LLVMValueRef a)
{
    LLVMTypeRef type = LLVMTypeOf(a);
    LLVMValueRef arguments[2] = {a, LLVMConstInt(l->i1, 0, false)};
    return lower_intrinsic(l, name, &type, 1, arguments, 2);
}

#define COUNT_ZEROS(name, intrinsic)                                                               \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        lower_write(l, op->d, count_zeros(l, intrinsic, lower_read(l, op->a)));                    \
        return true;                                                                               \
    }                                                                                              \
    bool op_##name##32(struct lowering * l, const struct ir_op *op)                                \
    {                                                                                              \
        LLVMValueRef a = narrow(l, lower_read(l, op->a));                                          \
        lower_write(l, op->d, widen(l, count_zeros(l, intrinsic, a), op->aux));                    \
        return true;                                                                               \
    }
COUNT_ZEROS(clz, "llvm.ctlz")
COUNT_ZEROS(ctz, "llvm.cttz")

#define UNARY(name, intrinsic)                                                                     \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        lower_write(l, op->d, call_unary(l, intrinsic, lower_read(l, op->a)));                     \
        return true;                                                                               \
    }                                                                                              \
    bool op_##name##32(struct lowering * l, const struct ir_op *op)                                \
    {                                                                                              \
        LLVMValueRef a = narrow(l, lower_read(l, op->a));                                          \
        lower_write(l, op->d, widen(l, call_unary(l, intrinsic, a), op->aux));                     \
        return true;                                                                               \
    }
UNARY(popcnt, "llvm.ctpop")
UNARY(bswap, "llvm.bswap")

/* Bit 7 of each byte says whether it is zero; times 255 fills the byte. */
bool op_orcb(struct lowering *l, const struct ir_op *op)
{
    LLVMBuilderRef b = l->builder;
    LLVMValueRef low = lower_constant(l, UINT64_C(0x7f7f7f7f7f7f7f7f));
    LLVMValueRef a = lower_read(l, op->a);
    LLVMValueRef set = LLVMBuildAdd(b, LLVMBuildAnd(b, a, low, ""), low, "");
    set = LLVMBuildOr(b, set, a, "");
    set = LLVMBuildLShr(b, set, lower_constant(l, 7), "");
    set = LLVMBuildAnd(b, set, lower_constant(l, UINT64_C(0x0101010101010101)), "");
    lower_write(l, op->d, LLVMBuildMul(b, set, lower_constant(l, 0xff), ""));
    return true;
}

static bool extend(struct lowering *l, const struct ir_op *op, LLVMTypeRef type, unsigned how)
{
    LLVMValueRef part = LLVMBuildTrunc(l->builder, lower_read(l, op->a), type, "");
    lower_write(l, op->d, widen(l, part, how));
    return true;
}

#define EXTEND(name, type, how)                                                                    \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        return extend(l, op, l->type, how);                                                        \
    }
EXTEND(sext8, i8, IR_EXTEND_SIGN)
EXTEND(sext16, i16, IR_EXTEND_SIGN)
EXTEND(sext32, i32, IR_EXTEND_SIGN)
EXTEND(zext8, i8, IR_EXTEND_ZERO)
EXTEND(zext16, i16, IR_EXTEND_ZERO)
EXTEND(zext32, i32, IR_EXTEND_ZERO)
