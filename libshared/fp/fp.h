/*
 * Bit-exact IEEE 754 arithmetic for guests, on raw bits, with integer instructions only.
 *
 * All functions are pure: they touch no host floating-point state and no memory but *flags, so any
 * thread may call them. NaN results are RISC-V's canonical NaN; a guest with other rules looks at
 * the operands itself when a result is NaN (fp_f64_is_nan). What each operation raises follows IEEE
 * 754-2019 and The RISC-V Instruction Set Manual, volume I, chapters "F", "D" and "Zfa".
 * Faster versions for round-to-nearest that use the host's unit are in fp_host.h.
 */
#ifndef POLYVISOR_FP_FP_H
#define POLYVISOR_FP_FP_H

#include "libshared/ir/ir.h"
#include <stdbool.h>
#include <stdint.h>

/* Sticky flags in the order of RISC-V's fflags. Functions or them into *flags. */
enum fp_flag {
    FP_INEXACT = 1,
    FP_UNDERFLOW = 2,
    FP_OVERFLOW = 4,
    FP_DIVIDE_BY_ZERO = 8,
    FP_INVALID = 16,
};
#define FP_FLAGS 31u /* all of them */

/* A `round` argument is an enum ir_round; arm64 guests add this bit: a result is tiny when it was
 * below the smallest normal number before rounding, not after. */
#define FP_TINY_BEFORE_ROUNDING 8u
#define FP_ROUND_MASK           7u

#define FP_F32_NAN UINT32_C(0x7fc00000)
#define FP_F64_NAN UINT64_C(0x7ff8000000000000)

/* --- arithmetic ----------------------------------------------------------------------------- */
uint32_t fp_f32_add(uint32_t a, uint32_t b, unsigned round, uint32_t *flags);
uint32_t fp_f32_sub(uint32_t a, uint32_t b, unsigned round, uint32_t *flags);
uint32_t fp_f32_mul(uint32_t a, uint32_t b, unsigned round, uint32_t *flags);
uint32_t fp_f32_div(uint32_t a, uint32_t b, unsigned round, uint32_t *flags);
uint32_t fp_f32_sqrt(uint32_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_add(uint64_t a, uint64_t b, unsigned round, uint32_t *flags);
uint64_t fp_f64_sub(uint64_t a, uint64_t b, unsigned round, uint32_t *flags);
uint64_t fp_f64_mul(uint64_t a, uint64_t b, unsigned round, uint32_t *flags);
uint64_t fp_f64_div(uint64_t a, uint64_t b, unsigned round, uint32_t *flags);
uint64_t fp_f64_sqrt(uint64_t a, unsigned round, uint32_t *flags);

/* a * b + c, rounded once. Negate the product or the addend by fp_*_negate on a or c. Infinity
 * times zero is invalid even when c is a quiet NaN. */
uint32_t fp_f32_fma(uint32_t a, uint32_t b, uint32_t c, unsigned round, uint32_t *flags);
uint64_t fp_f64_fma(uint64_t a, uint64_t b, uint64_t c, unsigned round, uint32_t *flags);

/* To an integral value in the same format. `exact`: raise FP_INEXACT when the value changes. */
uint32_t fp_f32_round(uint32_t a, unsigned round, bool exact, uint32_t *flags);
uint64_t fp_f64_round(uint64_t a, unsigned round, bool exact, uint32_t *flags);

/* minimumNumber and maximumNumber: the number wins over a NaN, -0 is less than +0; a signalling
 * NaN raises FP_INVALID. */
uint32_t fp_f32_min(uint32_t a, uint32_t b, uint32_t *flags);
uint32_t fp_f32_max(uint32_t a, uint32_t b, uint32_t *flags);
uint64_t fp_f64_min(uint64_t a, uint64_t b, uint32_t *flags);
uint64_t fp_f64_max(uint64_t a, uint64_t b, uint32_t *flags);
/* minimum and maximum (Zfa fminm, fmaxm): NaN when either operand is. */
uint32_t fp_f32_minimum(uint32_t a, uint32_t b, uint32_t *flags);
uint32_t fp_f32_maximum(uint32_t a, uint32_t b, uint32_t *flags);
uint64_t fp_f64_minimum(uint64_t a, uint64_t b, uint32_t *flags);
uint64_t fp_f64_maximum(uint64_t a, uint64_t b, uint32_t *flags);

/* --- comparisons: eq and *_quiet raise FP_INVALID for signalling NaNs only, lt and le for all - */
bool fp_f32_eq(uint32_t a, uint32_t b, uint32_t *flags);
bool fp_f32_lt(uint32_t a, uint32_t b, uint32_t *flags);
bool fp_f32_le(uint32_t a, uint32_t b, uint32_t *flags);
bool fp_f32_lt_quiet(uint32_t a, uint32_t b, uint32_t *flags);
bool fp_f32_le_quiet(uint32_t a, uint32_t b, uint32_t *flags);
bool fp_f64_eq(uint64_t a, uint64_t b, uint32_t *flags);
bool fp_f64_lt(uint64_t a, uint64_t b, uint32_t *flags);
bool fp_f64_le(uint64_t a, uint64_t b, uint32_t *flags);
bool fp_f64_lt_quiet(uint64_t a, uint64_t b, uint32_t *flags);
bool fp_f64_le_quiet(uint64_t a, uint64_t b, uint32_t *flags);

/* One of ten bits: -inf, -normal, -subnormal, -0, +0, +subnormal, +normal, +inf, sNaN, qNaN. */
uint32_t fp_f32_class(uint32_t a);
uint32_t fp_f64_class(uint64_t a);

/* --- conversions ---------------------------------------------------------------------------- */
uint64_t fp_f32_to_f64(uint32_t a, uint32_t *flags);
uint32_t fp_f64_to_f32(uint64_t a, unsigned round, uint32_t *flags);

/* To integers, as the 64-bit register value: s32 and u32 results are sign-extended from bit 31.
 * Out of range saturates, NaN gives the maximum; both raise FP_INVALID alone. */
uint64_t fp_f32_to_s32(uint32_t a, unsigned round, uint32_t *flags);
uint64_t fp_f32_to_u32(uint32_t a, unsigned round, uint32_t *flags);
uint64_t fp_f32_to_s64(uint32_t a, unsigned round, uint32_t *flags);
uint64_t fp_f32_to_u64(uint32_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_to_s32(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_to_u32(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_to_s64(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_to_u64(uint64_t a, unsigned round, uint32_t *flags);
/* FCVTMOD.W.D: truncated, modulo 2^32, sign-extended; 0 for infinities and NaN. Raises what
 * fp_f64_to_s32 with IR_ROUND_RTZ would. */
uint64_t fp_f64_to_s32_modulo(uint64_t a, uint32_t *flags);

/* From integers; 32-bit sources are the low half of `a`. */
uint32_t fp_f32_from_s32(uint64_t a, unsigned round, uint32_t *flags);
uint32_t fp_f32_from_u32(uint64_t a, unsigned round, uint32_t *flags);
uint32_t fp_f32_from_s64(uint64_t a, unsigned round, uint32_t *flags);
uint32_t fp_f32_from_u64(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_from_s32(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_from_u32(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_from_s64(uint64_t a, unsigned round, uint32_t *flags);
uint64_t fp_f64_from_u64(uint64_t a, unsigned round, uint32_t *flags);

/* --- bits ----------------------------------------------------------------------------------- */
#define FP_F32_SIGN UINT32_C(0x80000000)
#define FP_F64_SIGN UINT64_C(0x8000000000000000)

static inline bool fp_f32_is_nan(uint32_t a)
{
    return (a & ~FP_F32_SIGN) > UINT32_C(0x7f800000);
}

static inline bool fp_f64_is_nan(uint64_t a)
{
    return (a & ~FP_F64_SIGN) > UINT64_C(0x7ff0000000000000);
}

static inline uint32_t fp_f32_negate(uint32_t a)
{
    return a ^ FP_F32_SIGN;
}

static inline uint64_t fp_f64_negate(uint64_t a)
{
    return a ^ FP_F64_SIGN;
}

/* Magnitude of a; sign of b, its opposite, or the two signs' difference. */
static inline uint32_t fp_f32_sgnj(uint32_t a, uint32_t b)
{
    return (a & ~FP_F32_SIGN) | (b & FP_F32_SIGN);
}

static inline uint32_t fp_f32_sgnjn(uint32_t a, uint32_t b)
{
    return (a & ~FP_F32_SIGN) | (~b & FP_F32_SIGN);
}

static inline uint32_t fp_f32_sgnjx(uint32_t a, uint32_t b)
{
    return a ^ (b & FP_F32_SIGN);
}

static inline uint64_t fp_f64_sgnj(uint64_t a, uint64_t b)
{
    return (a & ~FP_F64_SIGN) | (b & FP_F64_SIGN);
}

static inline uint64_t fp_f64_sgnjn(uint64_t a, uint64_t b)
{
    return (a & ~FP_F64_SIGN) | (~b & FP_F64_SIGN);
}

static inline uint64_t fp_f64_sgnjx(uint64_t a, uint64_t b)
{
    return a ^ (b & FP_F64_SIGN);
}

/* NaN boxing (RISC-V "D", section "NaN Boxing of Narrower Values"): an f32 in a 64-bit register has
 * all upper bits set; anything else reads as the canonical NaN. */
static inline uint32_t fp_unbox_f32(uint64_t slot)
{
    return (slot >> 32) == UINT32_MAX ? (uint32_t)slot : FP_F32_NAN;
}

static inline uint64_t fp_box_f32(uint32_t value)
{
    return UINT64_C(0xffffffff00000000) | value;
}

#endif
