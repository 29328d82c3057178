/*
 * Floating point. Each operation has handlers for both formats over the bit-exact software
 * (libshared/fp/fp.h), and, where the host's unit gives the guest's very answer and flags, faster
 * ones for the common case: to nearest, f64 or boxed f32. The software's flags go to cpu->fp_flags,
 * the host's stay in the thread's own status register until the guest reads them.
 */
#include "libshared/fp/fp.h"
#include "libshared/fp/fp_host.h"
#include "vmmd/vcpu/engine/interp.h"

/* Order of handlers in the tables below. */
enum { FORMAT_F64, FORMAT_F32, HOST_F64, HOST_F32 };

static inline unsigned aux_of(const struct xinsn *ip)
{
    return (unsigned)ip->imm;
}

static inline uint32_t take_f32(uint64_t slot, unsigned aux)
{
    return aux & IR_FP_BOX ? fp_unbox_f32(slot) : (uint32_t)slot;
}

static inline uint64_t give_f32(uint32_t value, unsigned aux)
{
    return aux & IR_FP_BOX ? fp_box_f32(value) : value;
}

/* Handlers for both formats: `aux` is an expression over ip, constant in the host's versions. */
#define HANDLER_F64(name, aux_expression, expression)                                              \
    INTERP_HANDLER(name)                                                                           \
    {                                                                                              \
        unsigned aux = (aux_expression);                                                           \
        uint32_t *flags = &cpu->fp_flags;                                                          \
        uint64_t a = SLOT(ip->a);                                                                  \
        uint64_t b = SLOT(ip->b);                                                                  \
        (void)aux, (void)b, (void)flags;                                                           \
        SLOT(ip->d) = (uint64_t)(expression);                                                      \
        INTERP_NEXT();                                                                             \
    }

#define HANDLER_F32(name, aux_expression, expression)                                              \
    INTERP_HANDLER(name)                                                                           \
    {                                                                                              \
        unsigned aux = (aux_expression);                                                           \
        uint32_t *flags = &cpu->fp_flags;                                                          \
        uint32_t a = take_f32(SLOT(ip->a), aux);                                                   \
        uint32_t b = take_f32(SLOT(ip->b), aux);                                                   \
        (void)aux, (void)b, (void)flags;                                                           \
        SLOT(ip->d) = (uint64_t)(expression);                                                      \
        INTERP_NEXT();                                                                             \
    }

/* --- lowering ------------------------------------------------------------------------------- */

/* The aux goes where an immediate would be. */
static struct xinsn *emit_fp(struct lowering *lowering, const struct ir_op *op,
                             interp_handler *handler)
{
    struct xinsn *step = lower_emit(lowering, op, handler);
    step->imm = op->aux;
    return step;
}

static bool host_form(const struct ir_op *op, unsigned round, unsigned refused)
{
    bool boxed = !(op->aux & IR_FP_F32) || op->aux & IR_FP_BOX;
    return boxed && (op->aux & IR_FP_ROUND) == round && !(op->aux & refused);
}

static interp_handler *choose(const struct ir_op *op, const struct interp_operation *operation,
                              bool host)
{
    unsigned format = op->aux & IR_FP_F32 ? FORMAT_F32 : FORMAT_F64;
    interp_handler *fast = host ? operation->handlers[HOST_F64 + format] : NULL;
    return fast ? fast : operation->handlers[format];
}

/* Operations that round: the host does it to nearest. */
static void lower_rounding(struct lowering *lowering, const struct ir_op *op,
                           const struct interp_operation *operation)
{
    emit_fp(lowering, op, choose(op, operation, host_form(op, IR_ROUND_RNE, 0)));
}

static void lower_truncating(struct lowering *lowering, const struct ir_op *op,
                             const struct interp_operation *operation)
{
    emit_fp(lowering, op, choose(op, operation, host_form(op, IR_ROUND_RTZ, 0)));
}

/* Operations that do not round, unless `quiet` asks for what the host lacks. */
static void lower_comparison(struct lowering *lowering, const struct ir_op *op,
                             const struct interp_operation *operation)
{
    bool host = host_form(op, op->aux & IR_FP_ROUND, IR_FP_QUIET);
    emit_fp(lowering, op, choose(op, operation, host));
}

static void lower_format(struct lowering *lowering, const struct ir_op *op,
                         const struct interp_operation *operation)
{
    emit_fp(lowering, op, choose(op, operation, false));
}

/* --- arithmetic ----------------------------------------------------------------------------- */

#define ARITHMETIC(name)                                                                           \
    HANDLER_F64(name##_f64, aux_of(ip), fp_f64_##name(a, b, aux &IR_FP_ROUND, flags))              \
    HANDLER_F32(name##_f32, aux_of(ip),                                                            \
                give_f32(fp_f32_##name(a, b, aux &IR_FP_ROUND, flags), aux))                       \
    HANDLER_F64(name##_f64_host, 0, fp_host_f64_##name(a, b, flags))                               \
    HANDLER_F32(name##_f32_host, IR_FP_BOX, fp_box_f32(fp_host_f32_##name(a, b, flags)))           \
    const struct interp_operation interp_f##name = {                                               \
        lower_rounding, {name##_f64, name##_f32, name##_f64_host, name##_f32_host}};

ARITHMETIC(add)
ARITHMETIC(sub)
ARITHMETIC(mul)
ARITHMETIC(div)

HANDLER_F64(sqrt_f64, aux_of(ip), fp_f64_sqrt(a, aux &IR_FP_ROUND, flags))
HANDLER_F32(sqrt_f32, aux_of(ip), give_f32(fp_f32_sqrt(a, aux &IR_FP_ROUND, flags), aux))
HANDLER_F64(sqrt_f64_host, 0, fp_host_f64_sqrt(a, flags))
HANDLER_F32(sqrt_f32_host, IR_FP_BOX, fp_box_f32(fp_host_f32_sqrt(a, flags)))
const struct interp_operation interp_fsqrt = {lower_rounding,
                                              {sqrt_f64, sqrt_f32, sqrt_f64_host, sqrt_f32_host}};

/* The third operand's slot is in `insn`: these cannot fault. */
static inline uint64_t signed_f64(uint64_t value, bool negate)
{
    return value ^ (negate ? FP_F64_SIGN : 0);
}

static inline uint32_t signed_f32(uint32_t value, bool negate)
{
    return value ^ (negate ? FP_F32_SIGN : 0);
}

HANDLER_F64(fma_f64, aux_of(ip),
            fp_f64_fma(signed_f64(a, aux &IR_FP_NEGATE_PRODUCT), b,
                       signed_f64(SLOT(ip->insn), aux &IR_FP_NEGATE_ADDEND), aux &IR_FP_ROUND,
                       flags))
HANDLER_F32(fma_f32, aux_of(ip),
            give_f32(fp_f32_fma(signed_f32(a, aux &IR_FP_NEGATE_PRODUCT), b,
                                signed_f32(take_f32(SLOT(ip->insn), aux), aux &IR_FP_NEGATE_ADDEND),
                                aux &IR_FP_ROUND, flags),
                     aux))
HANDLER_F64(fma_f64_host, aux_of(ip),
            fp_host_f64_fma(signed_f64(a, aux &IR_FP_NEGATE_PRODUCT), b,
                            signed_f64(SLOT(ip->insn), aux &IR_FP_NEGATE_ADDEND), flags))
HANDLER_F32(fma_f32_host, aux_of(ip) | IR_FP_BOX,
            fp_box_f32(fp_host_f32_fma(
                signed_f32(a, aux &IR_FP_NEGATE_PRODUCT), b,
                signed_f32(fp_unbox_f32(SLOT(ip->insn)), aux &IR_FP_NEGATE_ADDEND), flags)))

static void lower_fma(struct lowering *lowering, const struct ir_op *op,
                      const struct interp_operation *operation)
{
    struct xinsn *step =
        emit_fp(lowering, op, choose(op, operation, host_form(op, IR_ROUND_RNE, 0)));
    step->insn = lower_slot(lowering, op->c);
}
const struct interp_operation interp_fma = {lower_fma,
                                            {fma_f64, fma_f32, fma_f64_host, fma_f32_host}};

/* --- minimum, maximum, comparison, class, sign ----------------------------------------------- */

#define EXTREME(name, propagating)                                                                 \
    HANDLER_F64(name##_f64, aux_of(ip),                                                            \
                aux &IR_FP_PROPAGATE ? fp_f64_##propagating(a, b, flags)                           \
                                     : fp_f64_##name(a, b, flags))                                 \
    HANDLER_F32(name##_f32, aux_of(ip),                                                            \
                give_f32(aux &IR_FP_PROPAGATE ? fp_f32_##propagating(a, b, flags)                  \
                                              : fp_f32_##name(a, b, flags),                        \
                         aux))                                                                     \
    const struct interp_operation interp_f##name = {lower_format, {name##_f64, name##_f32}};

EXTREME(min, minimum)
EXTREME(max, maximum)

#define COMPARISON(name, quiet)                                                                    \
    HANDLER_F64(name##_f64, aux_of(ip),                                                            \
                aux &IR_FP_QUIET ? fp_f64_##quiet(a, b, flags) : fp_f64_##name(a, b, flags))       \
    HANDLER_F32(name##_f32, aux_of(ip),                                                            \
                aux &IR_FP_QUIET ? fp_f32_##quiet(a, b, flags) : fp_f32_##name(a, b, flags))       \
    HANDLER_F64(name##_f64_host, 0, fp_host_f64_##name(a, b, flags))                               \
    HANDLER_F32(name##_f32_host, IR_FP_BOX, fp_host_f32_##name(a, b, flags))                       \
    const struct interp_operation interp_f##name = {                                               \
        lower_comparison, {name##_f64, name##_f32, name##_f64_host, name##_f32_host}};

COMPARISON(eq, eq)
COMPARISON(lt, lt_quiet)
COMPARISON(le, le_quiet)

#define BITS(name, f64_expression, f32_expression)                                                 \
    HANDLER_F64(name##_f64, aux_of(ip), f64_expression)                                            \
    HANDLER_F32(name##_f32, aux_of(ip), f32_expression)                                            \
    const struct interp_operation interp_f##name = {lower_format, {name##_f64, name##_f32}};

BITS(class, fp_f64_class(a), fp_f32_class(a))
BITS(sgnj, fp_f64_sgnj(a, b), give_f32(fp_f32_sgnj(a, b), aux))
BITS(sgnjn, fp_f64_sgnjn(a, b), give_f32(fp_f32_sgnjn(a, b), aux))
BITS(sgnjx, fp_f64_sgnjx(a, b), give_f32(fp_f32_sgnjx(a, b), aux))
BITS(round, fp_f64_round(a, aux &IR_FP_ROUND, aux &IR_FP_EXACT, flags),
     give_f32(fp_f32_round(a, aux &IR_FP_ROUND, aux &IR_FP_EXACT, flags), aux))

/* --- conversions ---------------------------------------------------------------------------- */

/* The format names the result; a single-precision source may be boxed as well. */
HANDLER_F64(cvt_to_f64, aux_of(ip), fp_f32_to_f64(take_f32(a, aux), flags))
HANDLER_F64(cvt_to_f32, aux_of(ip), give_f32(fp_f64_to_f32(a, aux &IR_FP_ROUND, flags), aux))
HANDLER_F64(cvt_to_f64_host, IR_FP_BOX, fp_host_f32_to_f64(take_f32(a, aux), flags))
HANDLER_F64(cvt_to_f32_host, IR_FP_BOX, fp_box_f32(fp_host_f64_to_f32(a, flags)))

static void lower_cvt(struct lowering *lowering, const struct ir_op *op,
                      const struct interp_operation *operation)
{
    bool host = op->aux & IR_FP_BOX && host_form(op, IR_ROUND_RNE, 0);
    emit_fp(lowering, op, choose(op, operation, host));
}
const struct interp_operation interp_fcvt = {
    lower_cvt, {cvt_to_f64, cvt_to_f32, cvt_to_f64_host, cvt_to_f32_host}};

#define TO_INTEGER(name)                                                                           \
    HANDLER_F64(to_##name##_f64, aux_of(ip), fp_f64_to_##name(a, aux &IR_FP_ROUND, flags))         \
    HANDLER_F32(to_##name##_f32, aux_of(ip), fp_f32_to_##name(a, aux &IR_FP_ROUND, flags))

#define TO_INTEGER_HOST(name)                                                                      \
    HANDLER_F64(to_##name##_f64_host, 0, fp_host_f64_to_##name##_truncate(a, flags))               \
    HANDLER_F32(to_##name##_f32_host, IR_FP_BOX, fp_host_f32_to_##name##_truncate(a, flags))

TO_INTEGER(s64)
TO_INTEGER(u64)
TO_INTEGER(s32)
TO_INTEGER(u32)
TO_INTEGER_HOST(s64)
TO_INTEGER_HOST(s32)
const struct interp_operation interp_fcvt_s64 = {
    lower_truncating, {to_s64_f64, to_s64_f32, to_s64_f64_host, to_s64_f32_host}};
const struct interp_operation interp_fcvt_s32 = {
    lower_truncating, {to_s32_f64, to_s32_f32, to_s32_f64_host, to_s32_f32_host}};
const struct interp_operation interp_fcvt_u64 = {lower_format, {to_u64_f64, to_u64_f32}};
const struct interp_operation interp_fcvt_u32 = {lower_format, {to_u32_f64, to_u32_f32}};

HANDLER_F64(mod_f64, 0, fp_f64_to_s32_modulo(a, flags))
const struct interp_operation interp_fcvt_mod = {lower_format, {mod_f64, mod_f64}};

#define FROM_INTEGER(name)                                                                         \
    HANDLER_F64(from_##name##_f64, aux_of(ip), fp_f64_from_##name(a, aux &IR_FP_ROUND, flags))     \
    HANDLER_F64(from_##name##_f32, aux_of(ip),                                                     \
                give_f32(fp_f32_from_##name(a, aux &IR_FP_ROUND, flags), aux))

#define FROM_INTEGER_HOST(name)                                                                    \
    HANDLER_F64(from_##name##_f64_host, 0, fp_host_f64_from_##name(a, flags))                      \
    HANDLER_F64(from_##name##_f32_host, IR_FP_BOX, fp_box_f32(fp_host_f32_from_##name(a, flags)))

FROM_INTEGER(s64)
FROM_INTEGER(u64)
FROM_INTEGER(s32)
FROM_INTEGER(u32)
FROM_INTEGER_HOST(s64)
FROM_INTEGER_HOST(s32)
const struct interp_operation interp_fcvt_from_s64 = {
    lower_rounding, {from_s64_f64, from_s64_f32, from_s64_f64_host, from_s64_f32_host}};
const struct interp_operation interp_fcvt_from_s32 = {
    lower_rounding, {from_s32_f64, from_s32_f32, from_s32_f64_host, from_s32_f32_host}};
const struct interp_operation interp_fcvt_from_u64 = {lower_format, {from_u64_f64, from_u64_f32}};
const struct interp_operation interp_fcvt_from_u32 = {lower_format, {from_u32_f64, from_u32_f32}};

/* --- moves ---------------------------------------------------------------------------------- */

HANDLER_F64(mv_to_int_f64, 0, a)
HANDLER_F64(mv_to_int_f32, 0, (int64_t)(int32_t)a)
const struct interp_operation interp_fmv_to_int = {lower_format, {mv_to_int_f64, mv_to_int_f32}};

HANDLER_F64(mv_from_int_f64, 0, a)
HANDLER_F64(mv_from_int_f32, aux_of(ip), give_f32((uint32_t)a, aux))
const struct interp_operation interp_fmv_from_int = {lower_format,
                                                     {mv_from_int_f64, mv_from_int_f32}};

HANDLER_F64(mov_f64, 0, a)
const struct interp_operation interp_fmov = {lower_format, {mov_f64, mov_f64}};
