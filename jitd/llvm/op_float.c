/* Floating point. */
#include "jitd/llvm/lowering.h"

#define NONE(name)                                                                                 \
    bool op_##name(struct lowering *l, const struct ir_op *op)                                     \
    {                                                                                              \
        (void)l, (void)op;                                                                         \
        return false;                                                                              \
    }
NONE(fadd)
NONE(fsub)
NONE(fmul)
NONE(fdiv)
NONE(fsqrt)
NONE(fma)
NONE(fmin)
NONE(fmax)
NONE(feq)
NONE(flt)
NONE(fle)
NONE(fclass)
NONE(fsgnj)
NONE(fsgnjn)
NONE(fsgnjx)
NONE(fround)
NONE(fcvt)
NONE(fcvt_s64)
NONE(fcvt_u64)
NONE(fcvt_s32)
NONE(fcvt_u32)
NONE(fcvt_mod)
NONE(fcvt_from_s64)
NONE(fcvt_from_u64)
NONE(fcvt_from_s32)
NONE(fcvt_from_u32)
NONE(fmv_to_int)
NONE(fmv_from_int)
NONE(fmov)
