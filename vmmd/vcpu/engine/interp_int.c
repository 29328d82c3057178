/* Moves and integer arithmetic. 32-bit operations have handlers for both ways to fill the slot. */
#include "vmmd/vcpu/engine/interp.h"

enum { VARIANT_REGISTER, VARIANT_IMMEDIATE, VARIANT_ZERO /* added: extension zero */ = 2 };

/* handlers: register, immediate, and for 32-bit operations the same zero-extending. */
static void lower_binary(struct lowering *lowering, const struct ir_op *op,
                         const struct interp_operation *operation)
{
    unsigned variant = op->b == IR_IMMEDIATE ? VARIANT_IMMEDIATE : VARIANT_REGISTER;
    variant += op->aux == IR_EXTEND_ZERO ? VARIANT_ZERO : 0;
    lower_emit(lowering, op, operation->handlers[variant]);
}

static void lower_plain(struct lowering *lowering, const struct ir_op *op,
                        const struct interp_operation *operation)
{
    lower_emit(lowering, op, operation->handlers[op->aux == IR_EXTEND_ZERO]);
}

#define HANDLER_BINARY(name, suffix, second, expression)                                           \
    INTERP_HANDLER(name##_##suffix)                                                                \
    {                                                                                              \
        uint64_t a = SLOT(ip->a);                                                                  \
        uint64_t b = (second);                                                                     \
        (void)a;                                                                                   \
        SLOT(ip->d) = (uint64_t)(expression);                                                      \
        INTERP_NEXT();                                                                             \
    }

#define BINARY(name, expression)                                                                   \
    HANDLER_BINARY(name, register, SLOT(ip->b), expression)                                        \
    HANDLER_BINARY(name, immediate, (uint64_t)ip->imm, expression)                                 \
    const struct interp_operation interp_##name = {lower_binary,                                   \
                                                   {name##_register, name##_immediate}};

/* `expression` over uint32_t x and y yields the low half. */
#define HANDLER_BINARY32(name, suffix, second, type, expression)                                   \
    INTERP_HANDLER(name##_##suffix)                                                                \
    {                                                                                              \
        uint32_t x = (uint32_t)SLOT(ip->a);                                                        \
        uint32_t y = (uint32_t)(second);                                                           \
        SLOT(ip->d) = (uint64_t)(type)(uint32_t)(expression);                                      \
        INTERP_NEXT();                                                                             \
    }

#define BINARY32(name, expression)                                                                 \
    HANDLER_BINARY32(name, register, SLOT(ip->b), int32_t, expression)                             \
    HANDLER_BINARY32(name, immediate, ip->imm, int32_t, expression)                                \
    HANDLER_BINARY32(name, register_zero, SLOT(ip->b), uint32_t, expression)                       \
    HANDLER_BINARY32(name, immediate_zero, ip->imm, uint32_t, expression)                          \
    const struct interp_operation interp_##name = {                                                \
        lower_binary,                                                                              \
        {name##_register, name##_immediate, name##_register_zero, name##_immediate_zero}};

#define UNARY(name, expression)                                                                    \
    INTERP_HANDLER(name##_plain)                                                                   \
    {                                                                                              \
        uint64_t a = SLOT(ip->a);                                                                  \
        SLOT(ip->d) = (uint64_t)(expression);                                                      \
        INTERP_NEXT();                                                                             \
    }                                                                                              \
    const struct interp_operation interp_##name = {lower_plain, {name##_plain}};

#define HANDLER_UNARY32(name, suffix, type, expression)                                            \
    INTERP_HANDLER(name##_##suffix)                                                                \
    {                                                                                              \
        uint32_t x = (uint32_t)SLOT(ip->a);                                                        \
        SLOT(ip->d) = (uint64_t)(type)(uint32_t)(expression);                                      \
        INTERP_NEXT();                                                                             \
    }

#define UNARY32(name, expression)                                                                  \
    HANDLER_UNARY32(name, sign, int32_t, expression)                                               \
    HANDLER_UNARY32(name, zero, uint32_t, expression)                                              \
    const struct interp_operation interp_##name = {lower_plain, {name##_sign, name##_zero}};

/* --- moves ---------------------------------------------------------------------------------- */

BINARY(mov, b)

INTERP_HANDLER(pcrel_plain)
{
    SLOT(ip->d) = cpu->page_base + (uint64_t)ip->imm;
    INTERP_NEXT();
}
const struct interp_operation interp_pcrel = {lower_plain, {pcrel_plain}};

/* The fourth operand's slot is in `insn`: a select cannot fault. */
static void lower_select(struct lowering *lowering, const struct ir_op *op,
                         const struct interp_operation *operation)
{
    struct xinsn *step = lower_emit(lowering, op, operation->handlers[op->b == IR_IMMEDIATE]);
    step->insn = lower_slot(lowering, op->c);
}

INTERP_HANDLER(select_register)
{
    SLOT(ip->d) = SLOT(ip->a) ? SLOT(ip->b) : SLOT(ip->insn);
    INTERP_NEXT();
}

INTERP_HANDLER(select_immediate)
{
    SLOT(ip->d) = SLOT(ip->a) ? (uint64_t)ip->imm : SLOT(ip->insn);
    INTERP_NEXT();
}
const struct interp_operation interp_select = {lower_select, {select_register, select_immediate}};

static void lower_marker(struct lowering *lowering, const struct ir_op *op,
                         const struct interp_operation *operation)
{
    (void)lowering;
    (void)op;
    (void)operation;
}
const struct interp_operation interp_insn = {lower_marker, {NULL}};

/* --- 64 bits -------------------------------------------------------------------------------- */

static inline uint64_t divide_signed(uint64_t a, uint64_t b)
{
    if (b == 0) {
        return UINT64_MAX;
    }
    return b == UINT64_MAX ? 0 - a : (uint64_t)((int64_t)a / (int64_t)b);
}

static inline uint64_t remainder_signed(uint64_t a, uint64_t b)
{
    if (b == 0) {
        return a;
    }
    return b == UINT64_MAX ? 0 : (uint64_t)((int64_t)a % (int64_t)b);
}

static inline uint64_t high_product(unsigned __int128 product)
{
    return (uint64_t)(product >> 64);
}

static inline uint64_t or_combine_bytes(uint64_t a)
{
    uint64_t low = a & UINT64_C(0x7f7f7f7f7f7f7f7f);
    uint64_t set = (low + UINT64_C(0x7f7f7f7f7f7f7f7f)) | a; /* bit 7 of each byte: not zero */
    return (set >> 7 & UINT64_C(0x0101010101010101)) * 0xff;
}

#define SIGNED_WIDE(x)   ((__int128)(int64_t)(x))
#define UNSIGNED_WIDE(x) ((unsigned __int128)(x))

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(rsub, b - a)
BINARY(and, a &b)
BINARY(or, a | b)
BINARY(xor, a ^ b)
BINARY(andn, a & ~b)
BINARY(orn, a | ~b)
BINARY(xnor, ~(a ^ b))
BINARY(shl, a << (b & 63))
BINARY(shr, a >> (b & 63))
BINARY(sar, (int64_t)a >> (b & 63))
BINARY(rotl, a << (b & 63) | a >> (-b & 63))
BINARY(rotr, a >> (b & 63) | a << (-b & 63))
BINARY(mul, a *b)
BINARY(mulhs, high_product((unsigned __int128)(SIGNED_WIDE(a) * SIGNED_WIDE(b))))
BINARY(mulhu, high_product(UNSIGNED_WIDE(a) * UNSIGNED_WIDE(b)))
BINARY(mulhsu, high_product((unsigned __int128)(SIGNED_WIDE(a) * (__int128)UNSIGNED_WIDE(b))))
BINARY(divs, divide_signed(a, b))
BINARY(divu, b ? a / b : UINT64_MAX)
BINARY(rems, remainder_signed(a, b))
BINARY(remu, b ? a % b : a)
BINARY(mins, (int64_t)a < (int64_t)b ? a : b)
BINARY(minu, a < b ? a : b)
BINARY(maxs, (int64_t)a > (int64_t)b ? a : b)
BINARY(maxu, a > b ? a : b)
UNARY(clz, a ? __builtin_clzll(a) : 64)
UNARY(ctz, a ? __builtin_ctzll(a) : 64)
UNARY(popcnt, __builtin_popcountll(a))
UNARY(bswap, __builtin_bswap64(a))
UNARY(orcb, or_combine_bytes(a))
UNARY(sext8, (int8_t)a)
UNARY(sext16, (int16_t)a)
UNARY(sext32, (int32_t)a)
UNARY(zext8, (uint8_t)a)
UNARY(zext16, (uint16_t)a)
UNARY(zext32, (uint32_t)a)

INTERP_HANDLER(shladd_plain)
{
    SLOT(ip->d) = (SLOT(ip->a) << (ip->imm & 63)) + SLOT(ip->b);
    INTERP_NEXT();
}
const struct interp_operation interp_shladd = {lower_plain, {shladd_plain}};

INTERP_HANDLER(shladduw_plain)
{
    SLOT(ip->d) = ((uint64_t)(uint32_t)SLOT(ip->a) << (ip->imm & 63)) + SLOT(ip->b);
    INTERP_NEXT();
}
const struct interp_operation interp_shladduw = {lower_plain, {shladduw_plain}};

/* --- conditions: two operations' worth of variants, chosen by aux ---------------------------- */

#define X(condition, name, expression)                                                             \
    HANDLER_BINARY(setcc_##name, register, SLOT(ip->b), expression)                                \
    HANDLER_BINARY(setcc_##name, immediate, (uint64_t)ip->imm, expression)
INTERP_CONDITIONS(X)
#undef X

static void lower_setcc(struct lowering *lowering, const struct ir_op *op,
                        const struct interp_operation *operation)
{
    static interp_handler *const handlers[][2] = {
#define X(condition, name, expression)                                                             \
    [condition] = {setcc_##name##_register, setcc_##name##_immediate},
        INTERP_CONDITIONS(X)
#undef X
    };
    (void)operation;
    lower_emit(lowering, op, handlers[op->aux][op->b == IR_IMMEDIATE]);
}
const struct interp_operation interp_setcc = {lower_setcc, {NULL}};

/* --- 32 bits -------------------------------------------------------------------------------- */

static inline uint32_t divide_signed32(uint32_t x, uint32_t y)
{
    if (y == 0) {
        return UINT32_MAX;
    }
    return y == UINT32_MAX ? 0 - x : (uint32_t)((int32_t)x / (int32_t)y);
}

static inline uint32_t remainder_signed32(uint32_t x, uint32_t y)
{
    if (y == 0) {
        return x;
    }
    return y == UINT32_MAX ? 0 : (uint32_t)((int32_t)x % (int32_t)y);
}

BINARY32(add32, x + y)
BINARY32(sub32, x - y)
BINARY32(shl32, x << (y & 31))
BINARY32(shr32, x >> (y & 31))
BINARY32(sar32, (int32_t)x >> (y & 31))
BINARY32(rotl32, x << (y & 31) | x >> (-y & 31))
BINARY32(rotr32, x >> (y & 31) | x << (-y & 31))
BINARY32(mul32, x *y)
BINARY32(divs32, divide_signed32(x, y))
BINARY32(divu32, y ? x / y : UINT32_MAX)
BINARY32(rems32, remainder_signed32(x, y))
BINARY32(remu32, y ? x % y : x)
UNARY32(clz32, x ? __builtin_clz(x) : 32)
UNARY32(ctz32, x ? __builtin_ctz(x) : 32)
UNARY32(popcnt32, __builtin_popcount(x))
UNARY32(bswap32, __builtin_bswap32(x))
