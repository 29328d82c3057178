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
#define FLOAT_SCRATCH  31u
#define REG_LOOP_COUNT 15u
/* At certain places only; otherwise they hold values. */
#define REG_AWAY   0u  /* when a block is left: the guest address, or what its stub wants */
#define REG_STEP   1u  /* at retreats */
#define REG_TARGET 26u /* the block, on arrival at code_target.entry */

/* ADR, B and a note (compile_call_stub). */
#define HOST_EXIT_STUB_BYTES 12u
/* What a jump (B) reaches. */
#define HOST_CODE_BYTES_MAX (UINT64_C(128) << 20)

/* A field of the CPU state, by its offset there. */
static inline struct host_memory host_cpu(int32_t offset)
{
    return host_at(REG_CPU, offset);
}

struct host_features {
    bool lse;                /* atomic instructions */
    bool publish_is_barrier; /* code_memory.h */
};

/* Probe the jump cache for the guest address in REG_AWAY and go there; else `misses` are taken. */
void compile_probe(struct emitter *e, uint32_t misses[2]);

#endif
