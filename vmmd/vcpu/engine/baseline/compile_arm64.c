/* The parts of the driver (compile.c) that depend on the host. */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/registers.h"
#include <asm/hwcap.h>
#include <sys/auxv.h>

struct host_features compile_features(void)
{
    return (struct host_features){
        .lse = (getauxval(AT_HWCAP) & HWCAP_ATOMICS) != 0,
        .publish_is_barrier = code_memory_publish_is_barrier(),
    };
}

/* --- entering --------------------------------------------------------------------------------- */

void compile_entry(struct compiler *c)
{
    emit_load(c->hot, 2, false, HOST_X17, CPU_FIELD(attention));
    uint32_t at = emit_jump_zero(c->hot, false, true, HOST_X17);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    compile_jump_noted(c, SHARED_ATTENTION, 0);
    c->entry_at = c->hot->at;
}

/* --- what blocks share ------------------------------------------------------------------------ */

/* The block is in REG_TARGET. Falls into SHARED_LEAVE. */
static void emit_interpreted_entry(struct emitter *e)
{
    emit_load(e, 2, false, HOST_X17, CPU_FIELD(attention));
    uint32_t leave = emit_jump_zero(e, false, true, HOST_X17);
    emit_store(e, 3, CPU_FIELD(block), REG_TARGET);
    emit_load64(e, REG_SCRATCH, host_at(REG_TARGET, offsetof(struct block, code)));
    emit_load64(e, HOST_X17, host_at(REG_SCRATCH, 0));
    emit_jump_register(e, HOST_X17);
    emit_land(e, leave);
    emit_load(e, 1, false, REG_AWAY, host_at(REG_TARGET, offsetof(struct block, start)));
}

/* Reaching code by a patched jump does not order what is read then behind what was written before
 * the jump was patched; unless publishing has seen to it, this does. */
static void emit_order_reads(const struct host_features *features, struct emitter *e)
{
    if (!features->publish_is_barrier) {
        emit_fetch_barrier(e);
        emit_fence(e, HOST_FENCE_LOADS);
    }
}

/* REG_AWAY = the note's address. */
uint32_t compile_call_stub(struct emitter *e)
{
    uint32_t address = emit_address_of(e, REG_AWAY);
    uint32_t jump = emit_jump(e);
    emit_land(e, address);
    return jump;
}

enum { NOTE_BLOCK = 3 };

/* x3 = the block, REG_STEP = the number of the note; x2 is used. */
static void emit_read_note(struct emitter *e, const struct host_features *features)
{
    enum { HEADER = 2 };
    emit_order_reads(features, e);
    emit_load(e, 1, false, REG_STEP, host_at(REG_AWAY, offsetof(struct stub_note, number)));
    emit_load(e, 1, false, HEADER, host_at(REG_AWAY, offsetof(struct stub_note, back)));
    emit_arithmetic(e, true, HOST_SUB, HEADER, REG_AWAY, HEADER);
    emit_load64(e, NOTE_BLOCK, host_at(HEADER, 0));
}

/* Call a function with the CPU and what is in REG_STEP. */
static void emit_call_with_cpu(struct emitter *e, uint64_t function)
{
    _Static_assert(REG_STEP == 1, "the second argument");
    emit_push(e, HOST_LINK, HOST_ZERO);
    emit_move(e, true, 0, REG_CPU);
    emit_constant(e, HOST_X17, function);
    emit_call_register(e, HOST_X17);
    emit_pop(e, HOST_LINK, HOST_ZERO);
}

static void emit_retreat(struct emitter *e, const struct host_features *features)
{
    emit_read_note(e, features);
    emit_store(e, 3, CPU_FIELD(block), NOTE_BLOCK);
    emit_call_with_cpu(e, (uint64_t)(uintptr_t)lower_resume);
    emit_move(e, true, REG_SCRATCH, 0);
    emit_load64(e, HOST_X17, host_at(REG_SCRATCH, 0));
    emit_jump_register(e, HOST_X17);
}

/* x17: zero unless the range lies in two pages. */
static void emit_group(struct emitter *e, const struct host_features *features, uint32_t retreat)
{
    enum { COUNT = 4, NOTE = 24 }; /* called code keeps the latter */
    struct host_memory crossings = host_at(NOTE_BLOCK, offsetof(struct block, crossings));
    emit_land_at(e, emit_jump_zero(e, true, false, HOST_X17), retreat);
    emit_read_note(e, features);
    emit_load(e, 2, false, COUNT, crossings);
    emit_arithmetic_constant(e, false, HOST_SUB, COUNT, COUNT, 1);
    emit_store(e, 2, crossings, COUNT);
    emit_land_at(e, emit_jump_zero(e, false, true, COUNT), retreat);
    emit_store(e, 3, CPU_FIELD(block), NOTE_BLOCK);
    emit_move(e, true, NOTE, REG_AWAY);
    emit_call_with_cpu(e, (uint64_t)(uintptr_t)compile_regroup);
    emit_move(e, true, REG_AWAY, NOTE);
    emit_land_at(e, emit_jump(e), retreat);
}

static void emit_leave_by_exit(struct emitter *e, const struct host_features *features,
                               uint32_t leave)
{
    emit_read_note(e, features);
    emit_store(e, 3, CPU_FIELD(block), NOTE_BLOCK);
    _Static_assert(sizeof(struct block_exit) == 3 * 8, "three times the number, scaled by 8");
    emit_arithmetic_shifted(e, true, HOST_ADD, REG_STEP, REG_STEP, REG_STEP, HOST_SHL, 1);
    emit_arithmetic_shifted(e, true, HOST_ADD, NOTE_BLOCK, NOTE_BLOCK, REG_STEP, HOST_SHL, 3);
    emit_arithmetic_constant(e, true, HOST_ADD, NOTE_BLOCK, NOTE_BLOCK,
                             offsetof(struct block, exits));
    emit_store(e, 3, CPU_FIELD(exit), NOTE_BLOCK);
    emit_load(e, 2, true, REG_AWAY, host_at(NOTE_BLOCK, offsetof(struct block_exit, target)));
    emit_land_at(e, emit_jump(e), leave);
}

static void emit_attention(struct emitter *e, const struct host_features *features, uint32_t leave)
{
    emit_read_note(e, features);
    emit_load(e, 1, false, REG_AWAY, host_at(NOTE_BLOCK, offsetof(struct block, start)));
    emit_land_at(e, emit_jump(e), leave);
}

void compile_shared(struct emitter *e, uint32_t at[SHARED_COUNT])
{
    struct host_features features = compile_features();
    at[SHARED_INTERPRETED] = e->at;
    emit_interpreted_entry(e);
    at[SHARED_LEAVE] = e->at;
    emit_load64(e, HOST_X17, CPU_FIELD(page_base));
    emit_arithmetic(e, true, HOST_ADD, REG_AWAY, REG_AWAY, HOST_X17);
    at[SHARED_MISS] = e->at;
    emit_store(e, 3, CPU_FIELD(pc), REG_AWAY);
    emit_return(e);
    at[SHARED_PROBE] = e->at;
    uint32_t misses[2];
    compile_probe(e, misses);
    emit_land_at(e, misses[0], at[SHARED_MISS]);
    emit_land_at(e, misses[1], at[SHARED_MISS]);
    at[SHARED_RETREAT] = e->at;
    emit_retreat(e, &features);
    at[SHARED_GROUP] = e->at;
    emit_group(e, &features, at[SHARED_RETREAT]);
    at[SHARED_EXIT] = e->at;
    emit_leave_by_exit(e, &features, at[SHARED_LEAVE]);
    at[SHARED_ATTENTION] = e->at;
    emit_attention(e, &features, at[SHARED_LEAVE]);
}

/* The address is in REG_AWAY. Conditional jumps do not reach the shared probe. */
uint32_t compile_guard(struct emitter *e, const uint8_t *execute, const uint8_t *host_page,
                       unsigned start, const struct shared_stubs *shared)
{
    enum { ENTRY = 1, TABLE = 2, PAGE = 3, TAG = 4, ADDEND = 5, EXPECTED = 6 };
    emit_load64(e, ENTRY, CPU_FIELD(tlb_exec_mask));
    emit_arithmetic_shifted(e, true, HOST_AND, ENTRY, ENTRY, REG_AWAY, HOST_SHR, MEMORY_PAGE_SHIFT);
    emit_load64(e, TABLE, CPU_FIELD(tlb_exec));
    _Static_assert(sizeof(struct tlb_entry) == 32, "an index is shifted by 5");
    emit_arithmetic_shifted(e, true, HOST_ADD, ENTRY, TABLE, ENTRY, HOST_SHL, 5);
    emit_load64(e, TAG, host_at(ENTRY, offsetof(struct tlb_entry, tag_exec)));
    emit_load64(e, ADDEND, host_at(ENTRY, offsetof(struct tlb_entry, addend)));
    emit_arithmetic_constant(e, true, HOST_SUB, PAGE, REG_AWAY, start);
    emit_constant(e, EXPECTED, (uint64_t)(uintptr_t)host_page);
    emit_arithmetic(e, true, HOST_SUB, EXPECTED, EXPECTED, PAGE);
    uint32_t other[2];
    emit_compare(e, true, TAG, PAGE);
    other[0] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_compare(e, true, ADDEND, EXPECTED);
    other[1] = emit_jump_if(e, HOST_NOT_EQUAL);
    emit_store(e, 3, CPU_FIELD(page_base), PAGE);
    uint32_t exit = emit_jump(e);
    emit_land(e, other[0]);
    emit_land(e, other[1]);
    uint32_t probe = emit_jump(e);
    const uint8_t *target = shared->span.execute + shared->at[SHARED_PROBE];
    emit_displace(e->bytes + probe, (int32_t)(target - (execute + probe)));
    return exit;
}

/* --- retreating ------------------------------------------------------------------------------- */

void compile_group_failure(struct compiler *c, unsigned base, int32_t first, int32_t end)
{
    struct emitter *e = c->cold;
    registers_store_dirty(c, e, true);
    emit_address(e, true, HOST_X17, host_at(base, end - 1));
    emit_address(e, true, REG_SCRATCH, host_at(base, first));
    emit_arithmetic(e, true, HOST_XOR, HOST_X17, HOST_X17, REG_SCRATCH);
    emit_shift_constant(e, true, HOST_SHR, HOST_X17, HOST_X17, MEMORY_PAGE_SHIFT);
    compile_jump_noted(c, SHARED_GROUP, c->steps[c->index]);
}

void compile_flush_count(struct emitter *e)
{
    emit_load64(e, HOST_X17, CPU_FIELD(retired));
    emit_arithmetic(e, true, HOST_ADD, HOST_X17, HOST_X17, REG_LOOP_COUNT);
    emit_store(e, 3, CPU_FIELD(retired), HOST_X17);
}

void compile_begin_count(struct emitter *e)
{
    emit_constant(e, REG_LOOP_COUNT, 0);
}

/* --- going on elsewhere ----------------------------------------------------------------------- */

uint32_t compile_run_steps(const struct compiler *c, struct emitter *e)
{
    emit_order_reads(&c->features, e);
    uint32_t at = emit_address_of(e, REG_SCRATCH);
    emit_load64(e, HOST_X17, host_at(REG_SCRATCH, 0));
    emit_jump_register(e, HOST_X17);
    return at;
}

/* One B for another is what the architecture lets other CPUs run while it is replaced (Arm ARM,
 * "Concurrent modification and execution of instructions"): they take the old way or the new. */
void compile_redirect(uint8_t *write, const uint8_t *execute, const uint8_t *target)
{
    uint32_t jump = emit_jump_word((int32_t)(target - execute));
    __atomic_store_n((uint32_t *)(void *)write, jump, __ATOMIC_RELEASE);
    code_memory_refresh(write, execute, sizeof(jump));
}

#endif
