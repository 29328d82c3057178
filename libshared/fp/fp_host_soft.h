/* fp_host.h for hosts whose unit is not known to give the guest's answers: the software does all.
 */
#ifndef POLYVISOR_FP_FP_HOST_SOFT_H
#define POLYVISOR_FP_FP_HOST_SOFT_H

#include "libshared/fp/fp.h"

static inline void fp_host_begin(void)
{
}

static inline uint32_t fp_collect_host_flags(void)
{
    return 0;
}

static inline uint32_t fp_host_flags(void)
{
    return 0;
}

#define FP_SOFT_BINARY(format, bits, name)                                                         \
    static inline bits fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        return fp_##format##_##name(a, b, IR_ROUND_RNE, flags);                                    \
    }

#define FP_SOFT_COMPARE(format, bits, name)                                                        \
    static inline bool fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        return fp_##format##_##name(a, b, flags);                                                  \
    }

#define FP_SOFT_FROM(format, bits, name)                                                           \
    static inline bits fp_host_##format##_##name(uint64_t a, uint32_t *flags)                      \
    {                                                                                              \
        return fp_##format##_##name(a, IR_ROUND_RNE, flags);                                       \
    }

#define FP_SOFT_TO(format, bits, name)                                                             \
    static inline uint64_t fp_host_##format##_##name##_truncate(bits a, uint32_t *flags)           \
    {                                                                                              \
        return fp_##format##_##name(a, IR_ROUND_RTZ, flags);                                       \
    }

#define FP_SOFT_FORMAT(format, bits)                                                               \
    FP_SOFT_BINARY(format, bits, add)                                                              \
    FP_SOFT_BINARY(format, bits, sub)                                                              \
    FP_SOFT_BINARY(format, bits, mul)                                                              \
    FP_SOFT_BINARY(format, bits, div)                                                              \
    static inline bits fp_host_##format##_sqrt(bits a, uint32_t *flags)                            \
    {                                                                                              \
        return fp_##format##_sqrt(a, IR_ROUND_RNE, flags);                                         \
    }                                                                                              \
    static inline bits fp_host_##format##_fma(bits a, bits b, bits c, uint32_t *flags)             \
    {                                                                                              \
        return fp_##format##_fma(a, b, c, IR_ROUND_RNE, flags);                                    \
    }                                                                                              \
    FP_SOFT_COMPARE(format, bits, eq)                                                              \
    FP_SOFT_COMPARE(format, bits, lt)                                                              \
    FP_SOFT_COMPARE(format, bits, le)                                                              \
    FP_SOFT_FROM(format, bits, from_s32)                                                           \
    FP_SOFT_FROM(format, bits, from_s64)                                                           \
    FP_SOFT_TO(format, bits, to_s32)                                                               \
    FP_SOFT_TO(format, bits, to_s64)

FP_SOFT_FORMAT(f32, uint32_t)
FP_SOFT_FORMAT(f64, uint64_t)

#undef FP_SOFT_FORMAT
#undef FP_SOFT_BINARY
#undef FP_SOFT_COMPARE
#undef FP_SOFT_FROM
#undef FP_SOFT_TO

static inline uint64_t fp_host_f32_to_f64(uint32_t a, uint32_t *flags)
{
    return fp_f32_to_f64(a, flags);
}

static inline uint32_t fp_host_f64_to_f32(uint64_t a, uint32_t *flags)
{
    return fp_f64_to_f32(a, IR_ROUND_RNE, flags);
}

#endif
