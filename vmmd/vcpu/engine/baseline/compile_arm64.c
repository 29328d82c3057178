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

/* Leave with pc = page base + x0. */
static void emit_leave(struct emitter *e)
{
    emit_load64(e, 1, CPU_FIELD(page_base));
    emit_arithmetic(e, true, HOST_ADD, 0, 0, 1);
    emit_store(e, 3, CPU_FIELD(pc), 0);
    emit_return(e);
}

void compile_entry(struct compiler *c)
{
    emit_load(c->hot, 2, false, HOST_X17, CPU_FIELD(attention));
    uint32_t at = emit_jump_zero(c->hot, false, true, HOST_X17);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    emit_constant(c->cold, 0, c->ir->start);
    emit_leave(c->cold);
    c->entry_at = c->hot->at;
}

static void emit_interpreted_entry(struct emitter *e)
{
    emit_load(e, 2, false, HOST_X17, CPU_FIELD(attention));
    uint32_t leave = emit_jump_zero(e, false, true, HOST_X17);
    emit_store(e, 3, CPU_FIELD(block), REG_TARGET);
    emit_address(e, true, REG_SCRATCH, host_at(REG_TARGET, offsetof(struct block, code)));
    emit_load64(e, HOST_X17, host_at(REG_SCRATCH, 0));
    emit_jump_register(e, HOST_X17);
    emit_land(e, leave);
    emit_load(e, 1, false, 0, host_at(REG_TARGET, offsetof(struct block, start)));
    emit_leave(e);
}

/* Only the entry: ends of retreats and probes are the blocks' own. */
void compile_shared(struct emitter *e, uint32_t at[SHARED_COUNT])
{
    at[SHARED_INTERPRETED] = e->at;
    emit_interpreted_entry(e);
}

/* No exit to another page can be linked (op_control), so none asks for it. */
uint32_t compile_guard(struct emitter *e, const uint8_t *execute, const uint8_t *host_page,
                       unsigned start, const struct shared_stubs *shared)
{
    (void)execute, (void)host_page, (void)start, (void)shared;
    return emit_jump(e);
}

/* --- retreating ------------------------------------------------------------------------------- */

/* Reaching code by a patched jump does not order what is read then behind what was written before
 * the jump was patched; unless publishing has seen to it, this does. */
static void emit_order_reads(const struct compiler *c, struct emitter *e)
{
    if (!c->features.publish_is_barrier) {
        emit_fetch_barrier(e);
        emit_fence(e, HOST_FENCE_LOADS);
    }
}

/* x0 is the block. Its count of crossings goes down; at zero it is dropped. */
static void emit_count_crossing(struct emitter *e)
{
    enum { BLOCK = 19 };
    struct host_memory crossings = host_at(0, offsetof(struct block, crossings));
    emit_load(e, 2, false, 2, crossings);
    emit_arithmetic_constant(e, false, HOST_SUB, 2, 2, 1);
    emit_store(e, 2, crossings, 2);
    uint32_t few = emit_jump_zero(e, false, true, 2);
    emit_push(e, HOST_LINK, HOST_ZERO);
    emit_move(e, true, BLOCK, 0);
    emit_move(e, true, 0, REG_CPU);
    emit_constant(e, HOST_X17, (uint64_t)(uintptr_t)compile_regroup);
    emit_call_register(e, HOST_X17);
    emit_move(e, true, 0, BLOCK);
    emit_pop(e, HOST_LINK, HOST_ZERO);
    emit_land(e, few);
}

uint32_t compile_retreat_tail(struct compiler *c, bool crossing, bool first)
{
    struct emitter *e = c->cold;
    uint32_t at = e->at;
    emit_constant(e, 0, (uint64_t)(uintptr_t)c->block);
    emit_store(e, 3, CPU_FIELD(block), 0);
    emit_order_reads(c, e);
    emit_arithmetic_constant(e, true, HOST_ADD, REG_SCRATCH, 0, offsetof(struct block, code));
    emit_arithmetic(e, true, HOST_ADD, REG_SCRATCH, REG_SCRATCH, REG_STEP);
    if (crossing) {
        emit_count_crossing(e);
    }
    emit_load64(e, HOST_X17,
                first ? host_at(0, offsetof(struct block, first_handler))
                      : host_at(REG_SCRATCH, 0));
    emit_jump_register(e, HOST_X17);
    return at;
}

void compile_group_failure(struct compiler *c, unsigned base, int32_t first, int32_t end)
{
    struct emitter *e = c->cold;
    registers_store_dirty(c, e, true);
    emit_address(e, true, HOST_X17, host_at(base, end - 1));
    emit_address(e, true, REG_SCRATCH, host_at(base, first));
    emit_arithmetic(e, true, HOST_XOR, HOST_X17, HOST_X17, REG_SCRATCH);
    emit_shift_constant(e, true, HOST_SHR, HOST_X17, HOST_X17, MEMORY_PAGE_SHIFT);
    emit_constant(e, REG_STEP, c->steps[c->index] * sizeof(struct xinsn));
    bool at_first = c->steps[c->index] == 0;
    compile_jump_to_tail(c, emit_jump_zero(e, true, false, HOST_X17), false, at_first);
    compile_jump_to_tail(c, emit_jump(e), true, at_first);
}

void compile_add_retired(struct emitter *e, int32_t count)
{
    emit_load64(e, HOST_X17, CPU_FIELD(retired));
    emit_arithmetic_constant(e, true, HOST_ADD, HOST_X17, HOST_X17, count);
    emit_store(e, 3, CPU_FIELD(retired), HOST_X17);
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
    emit_order_reads(c, e);
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
