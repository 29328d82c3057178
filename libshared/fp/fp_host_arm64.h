/*
 * fp_host.h on arm64: scalar instructions, sticky flags in FPSR, NaNs canonical by FPCR.DN.
 *
 * The processor detects tininess before rounding, RISC-V after. The two differ only when a result
 * rounds up to the smallest normal number. So FPSR's underflow bit is never used: results at or
 * below the smallest normal are computed again by the software, which knows.
 */
#ifndef POLYVISOR_FP_FP_HOST_ARM64_H
#define POLYVISOR_FP_FP_HOST_ARM64_H

#include "libshared/fp/fp.h"
#include <string.h>

#define FP_FPCR_DEFAULT_NAN (UINT64_C(1) << 25)
#define FP_FPSR_INVALID     1u
#define FP_FPSR_DIVIDE      2u
#define FP_FPSR_OVERFLOW    4u
#define FP_FPSR_INEXACT     16u

/* Put the calling thread's unit into the state that the functions below need; clears its flags. */
static inline void fp_host_begin(void)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(FP_FPCR_DEFAULT_NAN));
    __asm__ volatile("msr fpsr, %0" : : "r"(UINT64_C(0)));
}

static inline uint32_t fp_host_flags_of(uint64_t status)
{
    return (status & FP_FPSR_INEXACT ? FP_INEXACT : 0u) |
           (status & FP_FPSR_OVERFLOW ? FP_OVERFLOW : 0u) |
           (status & FP_FPSR_DIVIDE ? FP_DIVIDE_BY_ZERO : 0u) |
           (status & FP_FPSR_INVALID ? FP_INVALID : 0u);
}

/* Take (return and clear) the thread's sticky flags, in RISC-V order. */
static inline uint32_t fp_collect_host_flags(void)
{
    uint64_t status;
    __asm__ volatile("mrs %0, fpsr" : "=r"(status));
    if (!status) {
        return 0;
    }
    __asm__ volatile("msr fpsr, %0" : : "r"(UINT64_C(0)));
    return fp_host_flags_of(status);
}

/* The same flags, which stay. */
static inline uint32_t fp_host_flags(void)
{
    uint64_t status;
    __asm__ volatile("mrs %0, fpsr" : "=r"(status));
    return fp_host_flags_of(status);
}

static inline float fp_host_as_f32(uint32_t a)
{
    float value;
    memcpy(&value, &a, sizeof(value));
    return value;
}

static inline double fp_host_as_f64(uint64_t a)
{
    double value;
    memcpy(&value, &a, sizeof(value));
    return value;
}

static inline uint32_t fp_host_f32_bits(float value)
{
    uint32_t a;
    memcpy(&a, &value, sizeof(a));
    return a;
}

static inline uint64_t fp_host_f64_bits(double value)
{
    uint64_t a;
    memcpy(&a, &value, sizeof(a));
    return a;
}

static inline bool fp_host_f32_maybe_tiny(uint32_t a)
{
    return (a & ~FP_F32_SIGN) <= UINT32_C(0x00800000);
}

static inline bool fp_host_f64_maybe_tiny(uint64_t a)
{
    return (a & ~FP_F64_SIGN) <= UINT64_C(0x0010000000000000);
}

/* Sums and differences that are tiny are exact, so they never underflow. */
#define FP_HOST_SUM(format, number, bits, name, registers)                                         \
    static inline bits fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        (void)flags;                                                                               \
        number value;                                                                              \
        __asm__ volatile("f" #name " " registers                                                   \
                         : "=w"(value)                                                             \
                         : "w"(fp_host_as_##format(a)), "w"(fp_host_as_##format(b)));              \
        return fp_host_##format##_bits(value);                                                     \
    }

#define FP_HOST_PRODUCT(format, number, bits, name, registers)                                     \
    static inline bits fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        number value;                                                                              \
        __asm__ volatile("f" #name " " registers                                                   \
                         : "=w"(value)                                                             \
                         : "w"(fp_host_as_##format(a)), "w"(fp_host_as_##format(b)));              \
        bits result = fp_host_##format##_bits(value);                                              \
        if (__builtin_expect(fp_host_##format##_maybe_tiny(result), 0)) {                          \
            return fp_##format##_##name(a, b, IR_ROUND_RNE, flags);                                \
        }                                                                                          \
        return result;                                                                             \
    }

#define FP_HOST_SQRT(format, number, bits, registers)                                              \
    static inline bits fp_host_##format##_sqrt(bits a, uint32_t *flags)                            \
    {                                                                                              \
        (void)flags;                                                                               \
        number value;                                                                              \
        __asm__ volatile("fsqrt " registers : "=w"(value) : "w"(fp_host_as_##format(a)));          \
        return fp_host_##format##_bits(value);                                                     \
    }

/* A NaN result goes through the software for its flags as well. */
#define FP_HOST_FMA(format, number, bits, registers)                                               \
    static inline bits fp_host_##format##_fma(bits a, bits b, bits c, uint32_t *flags)             \
    {                                                                                              \
        number value;                                                                              \
        __asm__ volatile("fmadd " registers                                                        \
                         : "=w"(value)                                                             \
                         : "w"(fp_host_as_##format(a)), "w"(fp_host_as_##format(b)),               \
                           "w"(fp_host_as_##format(c)));                                           \
        bits result = fp_host_##format##_bits(value);                                              \
        if (__builtin_expect(                                                                      \
                fp_host_##format##_maybe_tiny(result) || fp_##format##_is_nan(result), 0)) {       \
            return fp_##format##_fma(a, b, c, IR_ROUND_RNE, flags);                                \
        }                                                                                          \
        return result;                                                                             \
    }

/* "mi" and "ls" are false when unordered; fcmpe is the signalling form. */
#define FP_HOST_COMPARE(format, bits, name, instruction, condition, registers)                     \
    static inline bool fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        (void)flags;                                                                               \
        uint32_t result;                                                                           \
        __asm__ volatile(instruction " " registers "\n\tcset %w0, " condition                      \
                         : "=r"(result)                                                            \
                         : "w"(fp_host_as_##format(a)), "w"(fp_host_as_##format(b))                \
                         : "cc");                                                                  \
        return result;                                                                             \
    }

#define FP_HOST_FROM(format, number, bits, name, registers)                                        \
    static inline bits fp_host_##format##_##name(uint64_t a, uint32_t *flags)                      \
    {                                                                                              \
        (void)flags;                                                                               \
        number value;                                                                              \
        __asm__ volatile("scvtf " registers : "=w"(value) : "r"(a));                               \
        return fp_host_##format##_bits(value);                                                     \
    }

/* The processor saturates as RISC-V does, but makes NaN zero. */
#define FP_HOST_TO(format, bits, name, integer, registers)                                         \
    static inline uint64_t fp_host_##format##_##name##_truncate(bits a, uint32_t *flags)           \
    {                                                                                              \
        if (__builtin_expect(fp_##format##_is_nan(a), 0)) {                                        \
            return fp_##format##_##name(a, IR_ROUND_RTZ, flags);                                   \
        }                                                                                          \
        uint64_t result;                                                                           \
        __asm__ volatile("fcvtzs " registers : "=r"(result) : "w"(fp_host_as_##format(a)));        \
        return (uint64_t)(int64_t)(integer)result;                                                 \
    }

#define FP_HOST_FORMAT(format, number, bits, r)                                                    \
    FP_HOST_SUM(format, number, bits, add, "%" r "0, %" r "1, %" r "2")                            \
    FP_HOST_SUM(format, number, bits, sub, "%" r "0, %" r "1, %" r "2")                            \
    FP_HOST_PRODUCT(format, number, bits, mul, "%" r "0, %" r "1, %" r "2")                        \
    FP_HOST_PRODUCT(format, number, bits, div, "%" r "0, %" r "1, %" r "2")                        \
    FP_HOST_SQRT(format, number, bits, "%" r "0, %" r "1")                                         \
    FP_HOST_FMA(format, number, bits, "%" r "0, %" r "1, %" r "2, %" r "3")                        \
    FP_HOST_COMPARE(format, bits, eq, "fcmp", "eq", "%" r "1, %" r "2")                            \
    FP_HOST_COMPARE(format, bits, lt, "fcmpe", "mi", "%" r "1, %" r "2")                           \
    FP_HOST_COMPARE(format, bits, le, "fcmpe", "ls", "%" r "1, %" r "2")                           \
    FP_HOST_FROM(format, number, bits, from_s32, "%" r "0, %w1")                                   \
    FP_HOST_FROM(format, number, bits, from_s64, "%" r "0, %x1")                                   \
    FP_HOST_TO(format, bits, to_s32, int32_t, "%w0, %" r "1")                                      \
    FP_HOST_TO(format, bits, to_s64, int64_t, "%x0, %" r "1")

FP_HOST_FORMAT(f32, float, uint32_t, "s")
FP_HOST_FORMAT(f64, double, uint64_t, "d")

#undef FP_HOST_FORMAT
#undef FP_HOST_SUM
#undef FP_HOST_PRODUCT
#undef FP_HOST_SQRT
#undef FP_HOST_FMA
#undef FP_HOST_COMPARE
#undef FP_HOST_FROM
#undef FP_HOST_TO

static inline uint64_t fp_host_f32_to_f64(uint32_t a, uint32_t *flags)
{
    (void)flags;
    double value;
    __asm__ volatile("fcvt %d0, %s1" : "=w"(value) : "w"(fp_host_as_f32(a)));
    return fp_host_f64_bits(value);
}

static inline uint32_t fp_host_f64_to_f32(uint64_t a, uint32_t *flags)
{
    float value;
    __asm__ volatile("fcvt %s0, %d1" : "=w"(value) : "w"(fp_host_as_f64(a)));
    uint32_t result = fp_host_f32_bits(value);
    if (__builtin_expect(fp_host_f32_maybe_tiny(result), 0)) {
        return fp_f64_to_f32(a, IR_ROUND_RNE, flags);
    }
    return result;
}

#endif
