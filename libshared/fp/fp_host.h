/*
 * Guest floating point done by the host's unit, in round-to-nearest-even, exact as fp.h.
 *
 * Sticky flags gather in the calling thread's own status register (or, where the host's answer
 * needs care, in *flags): a guest's flags are the or of both, see fp_collect_host_flags. NaN
 * results are canonical. Operations go through inline assembly, so the compiler can neither move
 * them across the reading of the flags nor fold or drop them. Between fp_host_begin and
 * fp_collect_host_flags other C code on the thread should not compute with doubles: its inexactness
 * would show.
 *
 * Each function: uintN_t fp_host_fN_<op>(operands, uint32_t *flags), rounding to nearest unless
 * its name says otherwise.
 *   fp_host_f32_add sub mul div sqrt fma     fp_host_f64_add sub mul div sqrt fma
 *   fp_host_f32_eq lt le                     fp_host_f64_eq lt le           (bool; as fp.h)
 *   fp_host_f32_to_f64   fp_host_f64_to_f32
 *   fp_host_f32_from_s32 from_s64            fp_host_f64_from_s32 from_s64  (uint64_t operand)
 *   fp_host_f32_to_s32_truncate to_s64_truncate   fp_host_f64_... (toward zero; register value)
 */
#ifndef POLYVISOR_FP_FP_HOST_H
#define POLYVISOR_FP_FP_HOST_H

#include "libshared/fp/fp.h"

#if defined(__x86_64__)
#include "libshared/fp/fp_host_x86_64.h"
#elif defined(__aarch64__)
#include "libshared/fp/fp_host_arm64.h"
#else
#include "libshared/fp/fp_host_soft.h"
#endif

#endif
