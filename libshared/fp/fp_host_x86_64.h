/*
 * fp_host.h on x86-64: SSE2 scalar instructions, sticky flags in MXCSR.
 *
 * SSE detects tininess after rounding, as RISC-V does, and its flags agree with RISC-V's for all
 * operations used here; only its NaNs and its out-of-range integers differ.
 */
#ifndef POLYVISOR_FP_FP_HOST_X86_64_H
#define POLYVISOR_FP_FP_HOST_X86_64_H

#include "libshared/fp/fp.h"
#include <string.h>

#define FP_MXCSR_DEFAULT UINT32_C(0x1f80) /* all exceptions masked, to nearest, no flush to zero   \
                                           */
#define FP_MXCSR_FLAGS UINT32_C(0x3f)

/* Put the calling thread's unit into the state that the functions below need; clears its flags. */
static inline void fp_host_begin(void)
{
    uint32_t control = FP_MXCSR_DEFAULT;
    __asm__ volatile("ldmxcsr %0" : : "m"(control));
}

static inline uint32_t fp_host_flags_of(uint32_t control)
{
    return (control >> 5 & FP_INEXACT) | (control >> 3 & FP_UNDERFLOW) |
           (control >> 1 & FP_OVERFLOW) | (control << 1 & FP_DIVIDE_BY_ZERO) |
           (control << 4 & FP_INVALID);
}

/* Take (return and clear) the thread's sticky flags, in RISC-V order. */
static inline uint32_t fp_collect_host_flags(void)
{
    uint32_t control;
    __asm__ volatile("stmxcsr %0" : "=m"(control));
    if (!(control & FP_MXCSR_FLAGS)) {
        return 0;
    }
    uint32_t cleared = control & ~FP_MXCSR_FLAGS;
    __asm__ volatile("ldmxcsr %0" : : "m"(cleared));
    return fp_host_flags_of(control);
}

/* The same flags, which stay. */
static inline uint32_t fp_host_flags(void)
{
    uint32_t control;
    __asm__ volatile("stmxcsr %0" : "=m"(control));
    return fp_host_flags_of(control);
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

static inline uint32_t fp_host_f32_result(float value)
{
    uint32_t a;
    memcpy(&a, &value, sizeof(a));
    return __builtin_expect(fp_f32_is_nan(a), 0) ? FP_F32_NAN : a;
}

static inline uint64_t fp_host_f64_result(double value)
{
    uint64_t a;
    memcpy(&a, &value, sizeof(a));
    return __builtin_expect(fp_f64_is_nan(a), 0) ? FP_F64_NAN : a;
}

#define FP_HOST_BINARY(format, number, bits, name, instruction)                                    \
    static inline bits fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        (void)flags;                                                                               \
        number value = fp_host_as_##format(a);                                                     \
        __asm__ volatile(instruction " %1, %0" : "+x"(value) : "x"(fp_host_as_##format(b)));       \
        return fp_host_##format##_result(value);                                                   \
    }

#define FP_HOST_SQRT(format, number, bits, instruction)                                            \
    static inline bits fp_host_##format##_sqrt(bits a, uint32_t *flags)                            \
    {                                                                                              \
        (void)flags;                                                                               \
        number value = fp_host_as_##format(a);                                                     \
        __asm__ volatile(instruction " %0, %0" : "+x"(value));                                     \
        return fp_host_##format##_result(value);                                                   \
    }

/* A NaN result goes through the software for its flags: it depends on the processor whether
 * infinity times zero plus a quiet NaN is invalid. */
#define FP_HOST_FMA(format, number, bits, instruction)                                             \
    static inline bits fp_host_##format##_fma(bits a, bits b, bits c, uint32_t *flags)             \
    {                                                                                              \
        if (__builtin_cpu_supports("fma")) {                                                       \
            number value = fp_host_as_##format(a);                                                 \
            __asm__ volatile(instruction " %2, %1, %0"                                             \
                             : "+x"(value)                                                         \
                             : "x"(fp_host_as_##format(b)), "x"(fp_host_as_##format(c)));          \
            bits result = fp_host_##format##_result(value);                                        \
            if (__builtin_expect(!fp_##format##_is_nan(result), 1)) {                              \
                return result;                                                                     \
            }                                                                                      \
        }                                                                                          \
        return fp_##format##_fma(a, b, c, IR_ROUND_RNE, flags);                                    \
    }

/* Comparing instructions set ZF, PF and CF, all three when unordered; with the operands exchanged,
 * "above" means less and is false for NaNs. */
#define FP_HOST_LESS(format, bits, name, instruction, condition)                                   \
    static inline bool fp_host_##format##_##name(bits a, bits b, uint32_t *flags)                  \
    {                                                                                              \
        (void)flags;                                                                               \
        bool result;                                                                               \
        __asm__ volatile(instruction " %1, %2"                                                     \
                         : "=@cc" condition(result)                                                \
                         : "x"(fp_host_as_##format(a)), "x"(fp_host_as_##format(b)));              \
        return result;                                                                             \
    }

#define FP_HOST_EQ(format, bits, instruction)                                                      \
    static inline bool fp_host_##format##_eq(bits a, bits b, uint32_t *flags)                      \
    {                                                                                              \
        (void)flags;                                                                               \
        bool equal, ordered;                                                                       \
        __asm__ volatile(instruction " %2, %3"                                                     \
                         : "=@ccz"(equal), "=@ccnp"(ordered)                                       \
                         : "x"(fp_host_as_##format(a)), "x"(fp_host_as_##format(b)));              \
        return equal && ordered;                                                                   \
    }

/* The destination's old upper half is kept by the instruction: starting from zero breaks the
 * dependency on whatever used the register before. */
#define FP_HOST_FROM(format, number, bits, name, integer, instruction)                             \
    static inline bits fp_host_##format##_##name(uint64_t a, uint32_t *flags)                      \
    {                                                                                              \
        (void)flags;                                                                               \
        number value = 0;                                                                          \
        __asm__ volatile(instruction " %1, %0" : "+x"(value) : "r"((integer)a));                   \
        return fp_host_##format##_result(value);                                                   \
    }

/* The instruction answers `indefinite` and raises invalid for all that does not fit. */
#define FP_HOST_TO(format, bits, name, integer, indefinite, instruction)                           \
    static inline uint64_t fp_host_##format##_##name##_truncate(bits a, uint32_t *flags)           \
    {                                                                                              \
        integer result;                                                                            \
        __asm__ volatile(instruction " %1, %0" : "=r"(result) : "x"(fp_host_as_##format(a)));      \
        if (__builtin_expect(result == indefinite, 0)) {                                           \
            return fp_##format##_##name(a, IR_ROUND_RTZ, flags);                                   \
        }                                                                                          \
        return (uint64_t)(int64_t)result;                                                          \
    }

#define FP_HOST_FORMAT(format, number, bits, suffix)                                               \
    FP_HOST_BINARY(format, number, bits, add, "adds" suffix)                                       \
    FP_HOST_BINARY(format, number, bits, sub, "subs" suffix)                                       \
    FP_HOST_BINARY(format, number, bits, mul, "muls" suffix)                                       \
    FP_HOST_BINARY(format, number, bits, div, "divs" suffix)                                       \
    FP_HOST_SQRT(format, number, bits, "sqrts" suffix)                                             \
    FP_HOST_FMA(format, number, bits, "vfmadd213s" suffix)                                         \
    FP_HOST_LESS(format, bits, lt, "comis" suffix, "a")                                            \
    FP_HOST_LESS(format, bits, le, "comis" suffix, "ae")                                           \
    FP_HOST_EQ(format, bits, "ucomis" suffix)                                                      \
    FP_HOST_FROM(format, number, bits, from_s32, int32_t, "cvtsi2s" suffix "l")                    \
    FP_HOST_FROM(format, number, bits, from_s64, int64_t, "cvtsi2s" suffix "q")                    \
    FP_HOST_TO(format, bits, to_s32, int32_t, INT32_MIN, "cvtts" suffix "2si")                     \
    FP_HOST_TO(format, bits, to_s64, int64_t, INT64_MIN, "cvtts" suffix "2si")

FP_HOST_FORMAT(f32, float, uint32_t, "s")
FP_HOST_FORMAT(f64, double, uint64_t, "d")

#undef FP_HOST_FORMAT
#undef FP_HOST_BINARY
#undef FP_HOST_SQRT
#undef FP_HOST_FMA
#undef FP_HOST_LESS
#undef FP_HOST_EQ
#undef FP_HOST_FROM
#undef FP_HOST_TO

static inline uint64_t fp_host_f32_to_f64(uint32_t a, uint32_t *flags)
{
    (void)flags;
    double value = 0;
    __asm__ volatile("cvtss2sd %1, %0" : "+x"(value) : "x"(fp_host_as_f32(a)));
    return fp_host_f64_result(value);
}

static inline uint32_t fp_host_f64_to_f32(uint64_t a, uint32_t *flags)
{
    (void)flags;
    float value = 0;
    __asm__ volatile("cvtsd2ss %1, %0" : "+x"(value) : "x"(fp_host_as_f64(a)));
    return fp_host_f32_result(value);
}

#endif
