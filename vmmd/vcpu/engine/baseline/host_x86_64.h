/*
 * Fixed roles: r12 cpu, r14 data TLB, r15 its mask (in bytes), as interpreter handlers get them;
 * rbp the middle of the CPU's near fields (enter.h): fields are named by it, which takes four bytes
 * less than by r12; r13 and xmm15 scratch; rsp belongs to the C code around. The others hold values
 * (registers.h).
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_HOST_X86_64_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_HOST_X86_64_H

#include "libshared/isa/cpu.h"
#include "vmmd/vcpu/engine/baseline/emit_x86_64.h"

#define HOST_REGISTERS 16u

#define REG_CPU        R12
#define REG_CPU_MIDDLE RBP
#define REG_SCRATCH    R13
#define REG_STEP       RAX /* of a call-out, to store the block; otherwise it holds values */
#define REG_TLB        R14
#define REG_TLB_MASK   R15
#define XMM_SCRATCH    15u
#define REG_LOOP_COUNT R11

/* A call, a byte and a note (compile_call_stub). */
#define HOST_EXIT_STUB_BYTES 10u
/* What a jump reaches. */
#define HOST_CODE_BYTES_MAX (UINT64_C(1) << 31)

/* A field of the CPU state, by its offset there. */
static inline struct host_memory host_cpu(int32_t offset)
{
    return host_at(REG_CPU_MIDDLE, offset - CPU_MIDDLE);
}

struct host_features {
    bool bmi1, bmi2, lzcnt, popcnt, fma;
};

/* Probe the jump cache for the guest address in rax and go there; else `misses` are taken. Uses rcx
 * and rdx. */
void compile_probe(struct emitter *e, uint32_t misses[2]);

#endif
