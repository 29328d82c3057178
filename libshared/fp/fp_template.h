/*
 * The arithmetic of fp.h for one format; fp_f32.c and fp_f64.c include it once each.
 *
 * The includer defines, before including:
 *   FP(name)              the public name of an operation
 *   bits, wide            types: the encoding, and an unsigned integer twice as wide
 *   FRACTION_BITS, EXPONENT_BITS
 *
 * A finite non-zero number is unpacked to sign, exponent and a significand whose leading one
 * stands at bit TOP of a `wide`: far more room below than the format has, so that every operation
 * can leave its exact result, or a prefix of it with a sticky lowest bit, to one rounding routine.
 */
#include "libshared/fp/fp.h"

enum {
    WIDE_BITS = sizeof(wide) * 8,
    TOP = WIDE_BITS - 2, /* one bit above it for the carry of an addition */
    SPARE_BITS = TOP - FRACTION_BITS,
    EXPONENT_LIMIT = (1 << EXPONENT_BITS) - 1, /* of infinities and NaNs */
    BIAS = EXPONENT_LIMIT / 2,
    SIGN_SHIFT = FRACTION_BITS + EXPONENT_BITS,
};

#define ONE           ((bits)1)
#define SIGN          (ONE << SIGN_SHIFT)
#define FRACTION_MASK ((ONE << FRACTION_BITS) - 1)
#define INFINITE      ((bits)EXPONENT_LIMIT << FRACTION_BITS)
#define QUIET         (ONE << (FRACTION_BITS - 1))
#define CANONICAL_NAN (INFINITE | QUIET)
#define LARGEST       (INFINITE - 1)

/* (-1)^negative * significand / 2^TOP * 2^exponent, the leading one at bit TOP. */
struct number {
    bool negative;
    int exponent;
    wide significand;
};

/* --- classes -------------------------------------------------------------------------------- */
static bool is_negative(bits a)
{
    return a >> SIGN_SHIFT;
}

static bits magnitude_of(bits a)
{
    return a & ~SIGN;
}

static bool is_nan(bits a)
{
    return magnitude_of(a) > INFINITE;
}

static bool is_signalling(bits a)
{
    return is_nan(a) && !(a & QUIET);
}

static bool is_infinite(bits a)
{
    return magnitude_of(a) == INFINITE;
}

static bool is_zero(bits a)
{
    return magnitude_of(a) == 0;
}

static bits with_sign(bool negative, bits magnitude)
{
    return negative ? magnitude | SIGN : magnitude;
}

static bits invalid(uint32_t *flags)
{
    *flags |= FP_INVALID;
    return CANONICAL_NAN;
}

/* The result when an operand is NaN. */
static bits nan_result(bool signalling, uint32_t *flags)
{
    return signalling ? invalid(flags) : CANONICAL_NAN;
}

/* --- packing -------------------------------------------------------------------------------- */
static int leading_bit(wide value)
{
    uint64_t high = (uint64_t)(value >> (WIDE_BITS / 2) >> (64 - WIDE_BITS / 2));
    if (WIDE_BITS > 64 && high) {
        return 64 + 63 - __builtin_clzll(high);
    }
    return 63 - __builtin_clzll((uint64_t)value);
}

/* Shift right; what falls off leaves a sticky lowest bit. */
static wide shift_right_sticky(wide value, unsigned count)
{
    if (count == 0) {
        return value;
    }
    if (count >= WIDE_BITS) {
        return value != 0;
    }
    return value >> count | ((value & (((wide)1 << count) - 1)) != 0);
}

/* The number significand / 2^position * 2^exponent; significand is not zero. */
static struct number normalised(bool negative, int exponent, wide significand, int position)
{
    int leading = leading_bit(significand);
    wide moved = leading <= TOP ? significand << (TOP - leading)
                                : shift_right_sticky(significand, (unsigned)(leading - TOP));
    return (struct number){negative, exponent + leading - position, moved};
}

/* `a` is finite and not zero. */
static struct number unpack(bits a)
{
    int biased = (int)(magnitude_of(a) >> FRACTION_BITS);
    wide fraction = a & FRACTION_MASK;
    if (biased == 0) {
        return normalised(is_negative(a), 1 - BIAS, fraction, FRACTION_BITS);
    }
    wide significand = (fraction | ONE << FRACTION_BITS) << SPARE_BITS;
    return (struct number){is_negative(a), biased - BIAS, significand};
}

/* Whether `rest`, the part of a magnitude below its last kept bit, rounds that bit up. `half` is
 * the value of rest at a tie. */
static bool rounds_up(unsigned round, bool negative, bool odd, wide rest, wide half)
{
    switch (round & FP_ROUND_MASK) {
    case IR_ROUND_RNE:
        return rest > half || (rest == half && odd);
    case IR_ROUND_RDN:
        return negative && rest;
    case IR_ROUND_RUP:
        return !negative && rest;
    case IR_ROUND_RMM:
        return rest >= half;
    default:
        return false;
    }
}

/* Drop the lowest `count` bits of a significand, rounding. */
static bits rounded_off(wide significand, unsigned count, unsigned round, bool negative,
                        bool *inexact)
{
    wide rest = significand & (((wide)1 << count) - 1);
    bits kept = (bits)(significand >> count);
    *inexact = rest != 0;
    return kept + rounds_up(round, negative, kept & 1, rest, (wide)1 << (count - 1));
}

/* IEEE 754-2019, section 7.4: infinity, or the largest number when rounding points inward. */
static bits overflow(bool negative, unsigned round, uint32_t *flags)
{
    static const bool outward[2][8] = {
        {[IR_ROUND_RNE] = true, [IR_ROUND_RUP] = true, [IR_ROUND_RMM] = true},
        {[IR_ROUND_RNE] = true, [IR_ROUND_RDN] = true, [IR_ROUND_RMM] = true},
    };
    *flags |= FP_OVERFLOW | FP_INEXACT;
    return with_sign(negative, outward[negative][round & FP_ROUND_MASK] ? INFINITE : LARGEST);
}

/* A number below the normal range: its last place does not follow its exponent. */
static bits pack_tiny(struct number number, unsigned round, uint32_t *flags)
{
    bool inexact;
    bool tiny = true;
    if (number.exponent == -BIAS && !(round & FP_TINY_BEFORE_ROUNDING)) {
        /* With unbounded exponents, would rounding have carried it up to the smallest normal? */
        tiny = rounded_off(number.significand, SPARE_BITS, round, number.negative, &inexact) >>
                   (FRACTION_BITS + 1) ==
               0;
    }
    unsigned below = (unsigned)(1 - BIAS - number.exponent);
    wide significand = shift_right_sticky(number.significand, below);
    bits result = rounded_off(significand, SPARE_BITS, round, number.negative, &inexact);
    if (inexact) {
        *flags |= tiny ? FP_INEXACT | FP_UNDERFLOW : FP_INEXACT;
    }
    /* A carry into the exponent field makes the smallest normal number, as it should. */
    return with_sign(number.negative, result);
}

static bits pack(struct number number, unsigned round, uint32_t *flags)
{
    if (number.exponent <= -BIAS) {
        return pack_tiny(number, round, flags);
    }
    if (number.exponent > BIAS) {
        return overflow(number.negative, round, flags);
    }
    bool inexact;
    bits result = rounded_off(number.significand, SPARE_BITS, round, number.negative, &inexact);
    /* The leading one adds 1 to the exponent field, a carry out of rounding one more. */
    result += (bits)(number.exponent + BIAS - 1) << FRACTION_BITS;
    if (result >= INFINITE) {
        return overflow(number.negative, round, flags);
    }
    if (inexact) {
        *flags |= FP_INEXACT;
    }
    return with_sign(number.negative, result);
}

/* --- addition ------------------------------------------------------------------------------- */
/* The sign of an exact zero that is the sum of numbers of opposite signs. */
static bits cancelled(unsigned round)
{
    return with_sign((round & FP_ROUND_MASK) == IR_ROUND_RDN, 0);
}

/* Both significands have at least two zero bits at the bottom, so aligning loses nothing when
 * massive cancellation may follow (exponents at most one apart), and the sticky bit stays below the
 * rounding position otherwise. */
static bits add_numbers(struct number a, struct number b, unsigned round, uint32_t *flags)
{
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand)) {
        struct number swap = a;
        a = b;
        b = swap;
    }
    wide smaller = shift_right_sticky(b.significand, (unsigned)(a.exponent - b.exponent));
    wide sum = a.negative == b.negative ? a.significand + smaller : a.significand - smaller;
    if (sum == 0) {
        return cancelled(round);
    }
    return pack(normalised(a.negative, a.exponent, sum, TOP), round, flags);
}

bits FP(add)(bits a, bits b, unsigned round, uint32_t *flags)
{
    if (is_nan(a) || is_nan(b)) {
        return nan_result(is_signalling(a) || is_signalling(b), flags);
    }
    if (is_infinite(a)) {
        return is_infinite(b) && a != b ? invalid(flags) : a;
    }
    if (is_infinite(b) || is_zero(a)) {
        return is_zero(a) && is_zero(b) && a != b ? cancelled(round) : b;
    }
    return is_zero(b) ? a : add_numbers(unpack(a), unpack(b), round, flags);
}

bits FP(sub)(bits a, bits b, unsigned round, uint32_t *flags)
{
    return FP(add)(a, b ^ SIGN, round, flags);
}

/* --- multiplication ------------------------------------------------------------------------- */
/* The exact product. */
static struct number multiply_numbers(struct number a, struct number b)
{
    wide product = (a.significand >> SPARE_BITS) * (b.significand >> SPARE_BITS);
    return normalised(a.negative != b.negative, a.exponent + b.exponent, product,
                      2 * FRACTION_BITS);
}

bits FP(mul)(bits a, bits b, unsigned round, uint32_t *flags)
{
    if (is_nan(a) || is_nan(b)) {
        return nan_result(is_signalling(a) || is_signalling(b), flags);
    }
    bool negative = is_negative(a) != is_negative(b);
    if (is_infinite(a) || is_infinite(b)) {
        return is_zero(a) || is_zero(b) ? invalid(flags) : with_sign(negative, INFINITE);
    }
    if (is_zero(a) || is_zero(b)) {
        return with_sign(negative, 0);
    }
    return pack(multiply_numbers(unpack(a), unpack(b)), round, flags);
}

bits FP(fma)(bits a, bits b, bits c, unsigned round, uint32_t *flags)
{
    bool product_invalid = (is_infinite(a) && is_zero(b)) || (is_zero(a) && is_infinite(b));
    if (product_invalid || is_signalling(a) || is_signalling(b) || is_signalling(c)) {
        return invalid(flags);
    }
    if (is_nan(a) || is_nan(b) || is_nan(c)) {
        return CANONICAL_NAN;
    }
    bool negative = is_negative(a) != is_negative(b);
    if (is_infinite(a) || is_infinite(b)) {
        return is_infinite(c) && is_negative(c) != negative ? invalid(flags)
                                                            : with_sign(negative, INFINITE);
    }
    if (is_infinite(c)) {
        return c;
    }
    if (is_zero(a) || is_zero(b)) {
        return is_zero(c) && is_negative(c) != negative ? cancelled(round) : c;
    }
    struct number product = multiply_numbers(unpack(a), unpack(b));
    return is_zero(c) ? pack(product, round, flags) : add_numbers(product, unpack(c), round, flags);
}

/* --- division and square root --------------------------------------------------------------- */
bits FP(div)(bits a, bits b, unsigned round, uint32_t *flags)
{
    if (is_nan(a) || is_nan(b)) {
        return nan_result(is_signalling(a) || is_signalling(b), flags);
    }
    bool negative = is_negative(a) != is_negative(b);
    if ((is_infinite(a) && is_infinite(b)) || (is_zero(a) && is_zero(b))) {
        return invalid(flags);
    }
    if (is_infinite(a) || is_zero(a)) {
        return with_sign(negative, magnitude_of(a));
    }
    if (is_infinite(b)) {
        return with_sign(negative, 0);
    }
    if (is_zero(b)) {
        *flags |= FP_DIVIDE_BY_ZERO;
        return with_sign(negative, INFINITE);
    }
    struct number dividend = unpack(a);
    struct number divisor = unpack(b);
    wide by = divisor.significand >> SPARE_BITS;
    wide quotient = dividend.significand / by;
    /* The quotient has SPARE_BITS bits or one more: enough that its lowest can be sticky. */
    quotient |= quotient * by != dividend.significand;
    return pack(normalised(negative, dividend.exponent - divisor.exponent, quotient, SPARE_BITS),
                round, flags);
}

/* The integer square root of a value below 2^(2 * root_bits), its lowest bit sticky. */
static wide square_root(wide radicand, int root_bits)
{
    wide root = 0;
    wide rest = radicand;
    for (int i = root_bits - 1; i >= 0; i--) {
        /* (root + 2^i)^2 - root^2, root being a multiple of 2^(i+1) */
        wide step = (root << 1 | (wide)1 << i) << i;
        if (step <= rest) {
            rest -= step;
            root |= (wide)1 << i;
        }
    }
    return root | (rest != 0);
}

bits FP(sqrt)(bits a, unsigned round, uint32_t *flags)
{
    enum { ROOT_FRACTION = FRACTION_BITS + 3 };
    if (is_nan(a)) {
        return nan_result(is_signalling(a), flags);
    }
    if (is_zero(a)) {
        return a;
    }
    if (is_negative(a)) {
        return invalid(flags);
    }
    if (is_infinite(a)) {
        return a;
    }
    struct number number = unpack(a);
    int odd = number.exponent & 1;
    wide radicand = number.significand >> (TOP - 2 * ROOT_FRACTION - odd);
    wide root = square_root(radicand, ROOT_FRACTION + 1);
    return pack(normalised(false, (number.exponent - odd) / 2, root, ROOT_FRACTION), round, flags);
}

/* --- integers ------------------------------------------------------------------------------- */
/* The magnitude of a number rounded to an integer; its exponent is at most 63. */
static uint64_t integer_magnitude(struct number number, unsigned round, bool *inexact)
{
    *inexact = false;
    if (number.exponent >= FRACTION_BITS) {
        return (uint64_t)(number.significand >> SPARE_BITS) << (number.exponent - FRACTION_BITS);
    }
    /* Keep a half and a sticky bit below the integer. */
    wide quarters = shift_right_sticky(number.significand, (unsigned)(TOP - 2 - number.exponent));
    *inexact = quarters & 3;
    return (uint64_t)(quarters >> 2) +
           rounds_up(round, number.negative, quarters >> 2 & 1, quarters & 3, 2);
}

bits FP(round)(bits a, unsigned round, bool exact, uint32_t *flags)
{
    if (is_nan(a)) {
        return nan_result(is_signalling(a), flags);
    }
    if (is_zero(a) || magnitude_of(a) >= (bits)(BIAS + FRACTION_BITS) << FRACTION_BITS) {
        return a;
    }
    bool inexact;
    uint64_t magnitude = integer_magnitude(unpack(a), round, &inexact);
    if (inexact && exact) {
        *flags |= FP_INEXACT;
    }
    if (magnitude == 0) {
        return a & SIGN;
    }
    return pack(normalised(is_negative(a), 0, magnitude, 0), round, flags);
}

/* To an integer in [-lowest, highest] in two's complement. */
static uint64_t to_integer(bits a, uint64_t lowest, uint64_t highest, unsigned round,
                           uint32_t *flags)
{
    bool negative = is_negative(a) && !is_nan(a);
    uint64_t limit = negative ? lowest : highest;
    if (is_zero(a)) {
        return 0;
    }
    bool inexact = false;
    bool fits = !is_nan(a) && !is_infinite(a);
    uint64_t magnitude = limit;
    if (fits) {
        struct number number = unpack(a);
        fits = number.exponent < 64;
        if (fits) {
            magnitude = integer_magnitude(number, round, &inexact);
        }
    }
    if (!fits || magnitude > limit) {
        *flags |= FP_INVALID;
        magnitude = limit;
    } else if (inexact) {
        *flags |= FP_INEXACT;
    }
    return negative ? 0 - magnitude : magnitude;
}

static uint64_t sign_extend_32(uint64_t value)
{
    return (uint64_t)(int64_t)(int32_t)(uint32_t)value;
}

uint64_t FP(to_s32)(bits a, unsigned round, uint32_t *flags)
{
    return to_integer(a, UINT64_C(1) << 31, INT32_MAX, round, flags);
}

uint64_t FP(to_u32)(bits a, unsigned round, uint32_t *flags)
{
    return sign_extend_32(to_integer(a, 0, UINT32_MAX, round, flags));
}

uint64_t FP(to_s64)(bits a, unsigned round, uint32_t *flags)
{
    return to_integer(a, UINT64_C(1) << 63, INT64_MAX, round, flags);
}

uint64_t FP(to_u64)(bits a, unsigned round, uint32_t *flags)
{
    return to_integer(a, 0, UINT64_MAX, round, flags);
}

static bits from_magnitude(bool negative, uint64_t magnitude, unsigned round, uint32_t *flags)
{
    if (magnitude == 0) {
        return 0;
    }
    return pack(normalised(negative, 0, magnitude, 0), round, flags);
}

bits FP(from_s64)(uint64_t a, unsigned round, uint32_t *flags)
{
    bool negative = a >> 63;
    return from_magnitude(negative, negative ? 0 - a : a, round, flags);
}

bits FP(from_u64)(uint64_t a, unsigned round, uint32_t *flags)
{
    return from_magnitude(false, a, round, flags);
}

bits FP(from_s32)(uint64_t a, unsigned round, uint32_t *flags)
{
    return FP(from_s64)(sign_extend_32(a), round, flags);
}

bits FP(from_u32)(uint64_t a, unsigned round, uint32_t *flags)
{
    return from_magnitude(false, (uint32_t)a, round, flags);
}

/* --- comparisons ---------------------------------------------------------------------------- */
/* a < b, neither being NaN; -0 and +0 are equal unless `signed_zero`, then -0 is less. */
static bool less(bits a, bits b, bool signed_zero)
{
    if (is_negative(a) != is_negative(b)) {
        return is_negative(a) && (signed_zero || !is_zero(a) || !is_zero(b));
    }
    return is_negative(a) ? a > b : a < b;
}

/* Raise what a comparison raises. True: the operands are unordered. */
static bool unordered(bits a, bits b, bool quiet, uint32_t *flags)
{
    if (!is_nan(a) && !is_nan(b)) {
        return false;
    }
    if (!quiet || is_signalling(a) || is_signalling(b)) {
        *flags |= FP_INVALID;
    }
    return true;
}

bool FP(eq)(bits a, bits b, uint32_t *flags)
{
    return !unordered(a, b, true, flags) && (a == b || (is_zero(a) && is_zero(b)));
}

bool FP(lt)(bits a, bits b, uint32_t *flags)
{
    return !unordered(a, b, false, flags) && less(a, b, false);
}

bool FP(le)(bits a, bits b, uint32_t *flags)
{
    return !unordered(a, b, false, flags) && !less(b, a, false);
}

bool FP(lt_quiet)(bits a, bits b, uint32_t *flags)
{
    return !unordered(a, b, true, flags) && less(a, b, false);
}

bool FP(le_quiet)(bits a, bits b, uint32_t *flags)
{
    return !unordered(a, b, true, flags) && !less(b, a, false);
}

/* The number when one operand is NaN. */
static bits number_of(bits a, bits b)
{
    if (is_nan(a)) {
        return is_nan(b) ? CANONICAL_NAN : b;
    }
    return a;
}

bits FP(min)(bits a, bits b, uint32_t *flags)
{
    if (unordered(a, b, true, flags)) {
        return number_of(a, b);
    }
    return less(b, a, true) ? b : a;
}

bits FP(max)(bits a, bits b, uint32_t *flags)
{
    if (unordered(a, b, true, flags)) {
        return number_of(a, b);
    }
    return less(a, b, true) ? b : a;
}

bits FP(minimum)(bits a, bits b, uint32_t *flags)
{
    if (unordered(a, b, true, flags)) {
        return CANONICAL_NAN;
    }
    return less(b, a, true) ? b : a;
}

bits FP(maximum)(bits a, bits b, uint32_t *flags)
{
    if (unordered(a, b, true, flags)) {
        return CANONICAL_NAN;
    }
    return less(a, b, true) ? b : a;
}

uint32_t FP(class)(bits a)
{
    enum { SIGNALLING = 8, QUIET_NAN = 9 };
    if (is_nan(a)) {
        return 1u << (is_signalling(a) ? SIGNALLING : QUIET_NAN);
    }
    /* Distance from zero: 0 zero, 1 subnormal, 2 normal, 3 infinite. */
    bits magnitude = magnitude_of(a);
    int rank = (magnitude != 0) + (magnitude > FRACTION_MASK) + (magnitude == INFINITE);
    return 1u << (is_negative(a) ? 3 - rank : 4 + rank);
}
