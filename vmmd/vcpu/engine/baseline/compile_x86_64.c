/* The parts of the driver (compile.c) that depend on the host. */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/registers.h"
#include <cpuid.h>

struct host_features compile_features(void)
{
    unsigned a, b, c, d;
    struct host_features features = {
        .bmi1 = __builtin_cpu_supports("bmi") != 0,
        .bmi2 = __builtin_cpu_supports("bmi2") != 0,
        .popcnt = __builtin_cpu_supports("popcnt") != 0,
        .fma = __builtin_cpu_supports("fma") != 0,
        .lzcnt = __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT),
    };
    return features;
}

/* --- entering --------------------------------------------------------------------------------- */

void compile_entry(struct compiler *c)
{
    emit_arithmetic_memory_constant(c->hot, false, HOST_CMP, CPU_FIELD(attention), 0);
    uint32_t at = emit_jump_if(c->hot, HOST_NOT_EQUAL);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    emit_load64(c->cold, RAX, CPU_FIELD(page_base));
    emit_arithmetic_constant(c->cold, true, HOST_ADD, RAX, c->ir->start);
    emit_store(c->cold, 3, CPU_FIELD(pc), RAX);
    emit_return(c->cold);
    c->entry_at = c->hot->at;
}

/* The block is in rdx. */
void compile_interpreted_entry(struct emitter *e)
{
    emit_arithmetic_memory_constant(e, false, HOST_CMP, CPU_FIELD(attention), 0);
    uint32_t leave = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_address(e, true, REG_SCRATCH, host_at(RDX, offsetof(struct block, code)));
    emit_jump_memory(e, host_at(REG_SCRATCH, 0));
    emit_land(e, leave);
    emit_load(e, 1, false, RAX, host_at(RDX, offsetof(struct block, start)));
    emit_arithmetic_load(e, true, HOST_ADD, RAX, CPU_FIELD(page_base));
    emit_store(e, 3, CPU_FIELD(pc), RAX);
    emit_return(e);
}

/* --- retreating ------------------------------------------------------------------------------- */

uint32_t compile_retreat_tail(struct compiler *c, bool crossing, bool first)
{
    struct emitter *e = c->cold;
    uint32_t at = e->at;
    emit_constant(e, RCX, (uint64_t)(uintptr_t)c->block);
    emit_store(e, 3, CPU_FIELD(block), RCX);
    emit_address(e, true, REG_SCRATCH,
                 host_indexed(RCX, REG_STEP, 0, offsetof(struct block, code)));
    if (crossing) {
        emit_arithmetic_memory_constant(e, false, HOST_SUB,
                                        host_at(RCX, offsetof(struct block, crossings)), 1);
        uint32_t few = emit_jump_if(e, HOST_NOT_EQUAL);
        emit_move(e, true, RBX, RCX);
        emit_move(e, true, RDI, REG_CPU);
        emit_constant(e, RAX, (uint64_t)(uintptr_t)compile_regroup);
        emit_arithmetic_constant(e, true, HOST_SUB, RSP, 8);
        emit_call_register(e, RAX);
        emit_arithmetic_constant(e, true, HOST_ADD, RSP, 8);
        emit_move(e, true, RCX, RBX);
        emit_land(e, few);
    }
    emit_jump_memory(e, first ? host_at(RCX, offsetof(struct block, first_handler))
                              : host_at(REG_SCRATCH, 0));
    return at;
}

void compile_group_failure(struct compiler *c, unsigned base, int32_t first, int32_t end)
{
    struct emitter *e = c->cold;
    registers_store_dirty(c, e, true);
    emit_address(e, true, REG_SCRATCH, host_at(base, first));
    emit_address(e, true, RAX, host_at(base, end - 1)); /* base is stored: rax may be it */
    emit_arithmetic(e, true, HOST_XOR, REG_SCRATCH, RAX);
    emit_constant(e, RAX, c->steps[c->index] * sizeof(struct xinsn));
    emit_shift_constant(e, true, HOST_SHR, REG_SCRATCH, MEMORY_PAGE_SHIFT);
    bool at_first = c->steps[c->index] == 0;
    emit_land_at(e, emit_jump_if(e, HOST_EQUAL), at_first ? c->retreat_first_at : c->retreat_at);
    emit_land_at(e, emit_jump(e), at_first ? c->crossing_first_at : c->crossing_at);
}

void compile_add_retired(struct emitter *e, int32_t count)
{
    emit_arithmetic_memory_constant(e, true, HOST_ADD, CPU_FIELD(retired), count);
}

/* --- going on elsewhere ----------------------------------------------------------------------- */

uint32_t compile_run_steps(const struct compiler *c, struct emitter *e)
{
    (void)c;
    uint32_t at = emit_address_of(e, REG_SCRATCH);
    emit_jump_memory(e, host_at(REG_SCRATCH, 0));
    return at;
}

/* The displacement is aligned, so other CPUs see the old target or the new one. */
void compile_redirect(uint8_t *write, const uint8_t *execute, const uint8_t *target)
{
    int32_t displacement = (int32_t)(target - (execute + 4));
    __atomic_store_n((int32_t *)(void *)write, displacement, __ATOMIC_RELEASE);
}

#endif
