/* Single precision, and what rounds into it. */
#include "libshared/fp/fp.h"

#define FP(name) fp_f32_##name
enum { FRACTION_BITS = 23, EXPONENT_BITS = 8 };
typedef uint32_t bits;
typedef uint64_t wide;

#include "libshared/fp/fp_template.h"

uint32_t fp_f64_to_f32(uint64_t a, unsigned round, uint32_t *flags)
{
    enum { F64_FRACTION_BITS = 52, F64_BIAS = 1023, F64_EXPONENT_LIMIT = 2047 };
    const uint64_t fraction_mask = (UINT64_C(1) << F64_FRACTION_BITS) - 1;
    bool negative = a >> 63;
    int biased = (int)(a >> F64_FRACTION_BITS) & F64_EXPONENT_LIMIT;
    uint64_t fraction = a & fraction_mask;
    if (biased == F64_EXPONENT_LIMIT) {
        if (fraction == 0) {
            return with_sign(negative, INFINITE);
        }
        return nan_result(!(fraction >> (F64_FRACTION_BITS - 1)), flags);
    }
    if (biased == 0 && fraction == 0) {
        return with_sign(negative, 0);
    }
    if (biased == 0) {
        biased = 1;
    } else {
        fraction |= fraction_mask + 1;
    }
    return pack(normalised(negative, biased - F64_BIAS, fraction, F64_FRACTION_BITS), round, flags);
}
