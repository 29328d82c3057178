/*
 * Fixed roles: x20 cpu, x22 data TLB, x23 its mask (in bytes), as interpreter handlers get them;
 * x21 (theirs for the step), x17 and v31 scratch; x16 the assembler's; x18 the platform's; x29, x30
 * and the stack pointer belong to the C code around. The others hold values (registers.h): what
 * called preserve_none code expects none of them back.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_HOST_ARM64_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_HOST_ARM64_H

#include "vmmd/vcpu/engine/baseline/emit_arm64.h"

#define HOST_REGISTERS 32u

#define REG_CPU        20u
#define REG_SCRATCH    21u
#define REG_TLB        22u
#define REG_TLB_MASK   23u
#define REG_LOOP_COUNT 15u /* of loops, which it has none of */
#define REG_TARGET     26u /* the block, on arrival at code_target.entry; otherwise it holds values */
#define REG_STEP       1u /* at retreats; otherwise it holds values */
#define FLOAT_SCRATCH  31u

struct host_features {
    bool lse;                /* atomic instructions */
    bool publish_is_barrier; /* code_memory.h */
};

#endif
