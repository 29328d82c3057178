/* Double precision, and what converts into it or from it alone. */
#include "libshared/fp/fp.h"

#define FP(name) fp_f64_##name
enum { FRACTION_BITS = 52, EXPONENT_BITS = 11 };
typedef uint64_t bits;
typedef unsigned __int128 wide;

#include "libshared/fp/fp_template.h"

uint64_t fp_f32_to_f64(uint32_t a, uint32_t *flags)
{
    enum { F32_FRACTION_BITS = 23, F32_BIAS = 127, F32_EXPONENT_LIMIT = 255 };
    bool negative = a >> 31;
    int biased = (int)(a >> F32_FRACTION_BITS) & F32_EXPONENT_LIMIT;
    uint32_t fraction = a & ((UINT32_C(1) << F32_FRACTION_BITS) - 1);
    if (biased == F32_EXPONENT_LIMIT) {
        if (fraction == 0) {
            return with_sign(negative, INFINITE);
        }
        return nan_result(!(fraction >> (F32_FRACTION_BITS - 1)), flags);
    }
    if (biased == 0 && fraction == 0) {
        return with_sign(negative, 0);
    }
    if (biased == 0) {
        biased = 1;
    } else {
        fraction |= UINT32_C(1) << F32_FRACTION_BITS;
    }
    /* Always exact. */
    return pack(normalised(negative, biased - F32_BIAS, fraction, F32_FRACTION_BITS), IR_ROUND_RNE,
                flags);
}

uint64_t fp_f64_to_s32_modulo(uint64_t a, uint32_t *flags)
{
    fp_f64_to_s32(a, IR_ROUND_RTZ, flags);
    if (is_nan(a) || is_infinite(a) || is_zero(a)) {
        return 0;
    }
    struct number number = unpack(a);
    if (number.exponent >= FRACTION_BITS + 32) {
        return 0; /* a multiple of 2^32 */
    }
    uint64_t magnitude;
    if (number.exponent >= FRACTION_BITS) {
        magnitude = (uint64_t)(number.significand >> SPARE_BITS)
                    << (number.exponent - FRACTION_BITS);
    } else {
        bool inexact;
        magnitude = integer_magnitude(number, IR_ROUND_RTZ, &inexact);
    }
    return sign_extend_32(number.negative ? 0 - magnitude : magnitude);
}
