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
    compile_jump_noted(c, SHARED_ATTENTION, 0);
    c->entry_at = c->hot->at;
}

/* --- what blocks share ------------------------------------------------------------------------ */

/* The block is in rdx. Falls into SHARED_LEAVE. */
static void emit_interpreted_entry(struct emitter *e)
{
    emit_arithmetic_memory_constant(e, false, HOST_CMP, CPU_FIELD(attention), 0);
    uint32_t leave = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_store(e, 3, CPU_FIELD(block), RDX);
    emit_load64(e, REG_SCRATCH, host_at(RDX, offsetof(struct block, code)));
    emit_jump_memory(e, host_at(REG_SCRATCH, 0));
    emit_land(e, leave);
    emit_load(e, 1, false, RAX, host_at(RDX, offsetof(struct block, start)));
}

/* A call, whose return address is that of a byte before the note. The byte makes an instruction of
 * both, for those who read listings: test eax, number. */
#define NOTE_OPCODE 0xa9

uint32_t compile_call_stub(struct emitter *e)
{
    uint32_t at = emit_call(e);
    emit_byte(e, NOTE_OPCODE);
    return at;
}

/* rcx = the block, rax = the number of the note; rdx is used. The note's address stays on the
 * stack. */
static void emit_read_note(struct emitter *e)
{
    const int32_t note = 1;
    emit_load64(e, RCX, host_at(RSP, 0));
    emit_load(e, 1, false, RAX, host_at(RCX, note + (int32_t)offsetof(struct stub_note, number)));
    emit_load(e, 1, false, RDX, host_at(RCX, note + (int32_t)offsetof(struct stub_note, back)));
    emit_arithmetic(e, true, HOST_SUB, RCX, RDX);
    emit_load64(e, RCX, host_at(RCX, note));
}

static void emit_drop_note(struct emitter *e)
{
    emit_arithmetic_constant(e, true, HOST_ADD, RSP, 8);
}

static void emit_retreat(struct emitter *e)
{
    emit_read_note(e);
    emit_store(e, 3, CPU_FIELD(block), RCX);
    emit_move(e, true, RDI, REG_CPU);
    emit_move(e, true, RSI, RAX);
    emit_constant(e, RAX, (uint64_t)(uintptr_t)lower_resume);
    emit_call_register(e, RAX);
    emit_drop_note(e);
    emit_move(e, true, REG_SCRATCH, RAX);
    emit_jump_memory(e, host_at(REG_SCRATCH, 0));
}

/* The range is from REG_SCRATCH to rax, both included. */
static void emit_group(struct emitter *e, uint32_t retreat)
{
    emit_arithmetic(e, true, HOST_XOR, REG_SCRATCH, RAX);
    emit_shift_constant(e, true, HOST_SHR, REG_SCRATCH, MEMORY_PAGE_SHIFT);
    emit_land_at(e, emit_jump_if(e, HOST_EQUAL), retreat);
    emit_read_note(e);
    emit_arithmetic_memory_constant(e, false, HOST_SUB,
                                    host_at(RCX, offsetof(struct block, crossings)), 1);
    emit_land_at(e, emit_jump_if(e, HOST_NOT_EQUAL), retreat);
    emit_store(e, 3, CPU_FIELD(block), RCX);
    emit_move(e, true, RDI, REG_CPU);
    emit_constant(e, RAX, (uint64_t)(uintptr_t)compile_regroup);
    emit_call_register(e, RAX);
    emit_land_at(e, emit_jump(e), retreat);
}

static void emit_leave_by_exit(struct emitter *e, uint32_t leave)
{
    emit_read_note(e);
    emit_drop_note(e);
    emit_store(e, 3, CPU_FIELD(block), RCX);
    _Static_assert(sizeof(struct block_exit) == 3 * 8, "three times the number, scaled by 8");
    emit_address(e, true, RAX, host_indexed(RAX, RAX, 1, 0));
    emit_address(e, true, RCX, host_indexed(RCX, RAX, 3, offsetof(struct block, exits)));
    emit_store(e, 3, CPU_FIELD(exit), RCX);
    emit_load(e, 2, true, RAX, host_at(RCX, offsetof(struct block_exit, target)));
    emit_land_at(e, emit_jump(e), leave);
}

static void emit_attention(struct emitter *e, uint32_t leave)
{
    emit_read_note(e);
    emit_drop_note(e);
    emit_load(e, 1, false, RAX, host_at(RCX, offsetof(struct block, start)));
    emit_land_at(e, emit_jump(e), leave);
}

void compile_shared(struct emitter *e, uint32_t at[SHARED_COUNT])
{
    at[SHARED_INTERPRETED] = e->at;
    emit_interpreted_entry(e);
    at[SHARED_LEAVE] = e->at;
    emit_arithmetic_load(e, true, HOST_ADD, RAX, CPU_FIELD(page_base));
    at[SHARED_MISS] = e->at;
    emit_store(e, 3, CPU_FIELD(pc), RAX);
    emit_return(e);
    at[SHARED_PROBE] = e->at;
    uint32_t misses[2];
    compile_probe(e, misses);
    emit_land_at(e, misses[0], at[SHARED_MISS]);
    emit_land_at(e, misses[1], at[SHARED_MISS]);
    at[SHARED_RETREAT] = e->at;
    emit_retreat(e);
    at[SHARED_GROUP] = e->at;
    emit_group(e, at[SHARED_RETREAT]);
    at[SHARED_EXIT] = e->at;
    emit_leave_by_exit(e, at[SHARED_LEAVE]);
    at[SHARED_ATTENTION] = e->at;
    emit_attention(e, at[SHARED_LEAVE]);
}

uint32_t compile_guard(struct emitter *e, const uint8_t *execute, const uint8_t *host_page,
                       unsigned start, const struct shared_stubs *shared)
{
    /* Its place in the execute TLB's table. */
    emit_move(e, true, RCX, RAX);
    emit_shift_constant(e, true, HOST_SHR, RCX, MEMORY_PAGE_SHIFT);
    emit_arithmetic_load(e, true, HOST_AND, RCX, CPU_FIELD(tlb_exec_mask));
    emit_shift_constant(e, true, HOST_SHL, RCX, 5);
    _Static_assert(sizeof(struct tlb_entry) == 32, "an index is shifted by 5");
    emit_arithmetic_load(e, true, HOST_ADD, RCX, CPU_FIELD(tlb_exec));
    emit_address(e, true, RDX, host_at(RAX, -(int32_t)start));
    emit_arithmetic_load(e, true, HOST_CMP, RDX,
                         host_at(RCX, offsetof(struct tlb_entry, tag_exec)));
    uint32_t other[2];
    other[0] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_constant(e, RSI, (uint64_t)(uintptr_t)host_page);
    emit_arithmetic(e, true, HOST_SUB, RSI, RDX);
    emit_arithmetic_load(e, true, HOST_CMP, RSI, host_at(RCX, offsetof(struct tlb_entry, addend)));
    other[1] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_store(e, 3, CPU_FIELD(page_base), RDX);
    const uint8_t *probe = shared->span.execute + shared->at[SHARED_PROBE];
    for (unsigned i = 0; i < 2; i++) {
        emit_displace(e->bytes + other[i], (int32_t)(probe - (execute + other[i])));
    }
    emit_align(e, 4, 1);
    return emit_jump(e);
}

/* --- retreating ------------------------------------------------------------------------------- */

void compile_group_failure(struct compiler *c, unsigned base, int32_t first, int32_t end)
{
    struct emitter *e = c->cold;
    registers_store_dirty(c, e, true);
    emit_address(e, true, REG_SCRATCH, host_at(base, first));
    emit_address(e, true, RAX, host_at(base, end - 1)); /* base is stored: rax may be it */
    compile_jump_noted(c, SHARED_GROUP, c->steps[c->index]);
}

void compile_flush_count(struct emitter *e)
{
    emit_arithmetic_store(e, true, HOST_ADD, CPU_FIELD(retired), REG_LOOP_COUNT);
}

/* The loop's head comes behind. */
void compile_begin_count(struct emitter *e)
{
    emit_arithmetic(e, false, HOST_XOR, REG_LOOP_COUNT, REG_LOOP_COUNT);
    emit_align(e, 16, 0);
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
