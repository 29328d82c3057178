/*
 * The driver: operation by operation, then the sections are laid out, fixed up and copied into code
 * memory.
 *
 * A block begins in HOT with the attention test, for blocks that jump here directly; the
 * interpreter and the outer loop enter behind it, because they have looked themselves (and, when
 * stepping, run a block in spite of it).
 */
#include "vmmd/vcpu/engine/baseline/host.h"

#if HAS_BASELINE

#include "libshared/ir/opcode.h"
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/baseline/loops.h"
#include "vmmd/vcpu/engine/baseline/registers.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNGROUPED 65536u

struct baseline {
    struct code_memory *memory;
    struct shared_stubs shared;
    struct compiler compiler;
    _Atomic bool ungrouped[UNGROUPED]; /* by hash of the block: to be compiled without groups */
};

/* Collisions only cost speed. */
static _Atomic bool *ungrouped_bit(struct baseline *baseline, const struct block *block)
{
    uint64_t key = (block->physical >> 1) * UINT64_C(0x9e3779b97f4a7c15);
    return &baseline->ungrouped[key >> 48 & (UNGROUPED - 1)];
}

static compile_operation *const operations[IR_OPCODE_COUNT] = {
#define OP(name, d, a, b, c, aux, effects) [IR_##name] = compile_##name,
#include "libshared/ir/ops.def"
#undef OP
};

/* --- leaving -------------------------------------------------------------------------------- */

void compile_fixup(struct compiler *c, enum section from, uint32_t at, enum section to,
                   uint32_t target)
{
    if (c->fixup_count == FIXUPS_MAX) {
        c->failed = true;
        return;
    }
    c->fixups[c->fixup_count++] =
        (struct fixup){.from = (uint8_t)from, .to = (uint8_t)to, .at = at, .target = target};
}

void compile_jump_to_tail(struct compiler *c, uint32_t at, bool crossing, bool first)
{
    c->tail_wanted[crossing][first] = true;
    compile_fixup(c, SECTION_COLD, at, SECTION_TAIL, 2u * crossing + first);
}

static void emit_tails(struct compiler *c)
{
    for (unsigned i = 0; i < 4; i++) {
        if (c->tail_wanted[i / 2][i % 2]) {
            c->tail_at[i / 2][i % 2] = compile_retreat_tail(c, i / 2, i % 2);
        }
    }
}

static void emit_retreat_jump(struct compiler *c)
{
    unsigned step = c->steps[c->index];
    emit_constant(c->cold, REG_STEP, step * sizeof(struct xinsn));
    compile_jump_to_tail(c, emit_jump(c->cold), false, step == 0);
}

void compile_retreat_here(struct compiler *c)
{
    registers_store_dirty(c, c->cold, true);
    emit_retreat_jump(c);
}

void compile_retreat_if(struct compiler *c, enum host_condition condition)
{
    uint32_t at = emit_jump_if(c->hot, condition);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    compile_retreat_here(c);
}

void compile_retreat(struct compiler *c)
{
    uint32_t at = emit_jump(c->hot);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    compile_retreat_here(c);
    c->ended = true;
}

void compile_exit_stub(struct compiler *c)
{
    c->stub_at = c->cold->at;
    compile_add_retired(c->cold, -(int32_t)compile_insn_count(c));
    emit_retreat_jump(c);
}

void compile_open_exit(struct compiler *c, unsigned exit, enum section section, uint32_t at)
{
    c->exit_at[exit] = at;
    c->exit_section[exit] = (uint8_t)section;
    compile_fixup(c, section, at, SECTION_COLD, c->stub_at);
}

void compile_store_block(struct compiler *c, struct emitter *e, unsigned scratch)
{
    if (e == c->hot) {
        if (c->block_known) {
            return;
        }
        c->block_known = true;
    }
    emit_constant(e, scratch, (uint64_t)(uintptr_t)c->block);
    emit_store(e, 3, CPU_FIELD(block), scratch);
}

/* --- calling out ---------------------------------------------------------------------------- */

static void emit_bytes(struct emitter *e, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        emit_byte(e, ((const uint8_t *)bytes)[i]);
    }
}

/* The operation's steps and one that leads to `resume`. Returns where they begin in DATA. */
static uint32_t emit_steps(struct compiler *c, uint32_t resume)
{
    struct emitter *data = &c->sections[SECTION_DATA];
    uint32_t begin = data->at;
    for (unsigned i = c->steps[c->index]; i < c->steps[c->index + 1]; i++) {
        emit_bytes(data, &c->block->code[i], sizeof(struct xinsn));
    }
    compile_fixup(c, SECTION_DATA, data->at, SECTION_HOT, resume);
    c->fixups[c->fixup_count - 1].absolute = true;
    const struct xinsn back = {.handler = NULL};
    emit_bytes(data, &back, sizeof(back));
    return begin;
}

void compile_call_out(struct compiler *c)
{
    c->failed |= c->looping;
    registers_clean(c, true);
    registers_forget(c);
    compile_store_block(c, c->hot, REG_STEP);
    uint32_t at = compile_run_steps(c, c->hot);
    uint32_t steps = emit_steps(c, c->hot->at);
    compile_fixup(c, SECTION_HOT, at, SECTION_DATA, steps);
    registers_overwritten(c, c->ir->ops[c->index].d);
}

/* --- one block ------------------------------------------------------------------------------ */

/* A store that hits this very block must find its step in the block's own code. */
static bool must_retreat(const struct compiler *c, const struct ir_op *op)
{
    return c->isa->precise_code_writes && ir_opcode_table[op->opcode].effect == IR_EFFECT_STORE;
}

static void compile_one(struct compiler *c, const struct ir_op *op)
{
    if (operations[op->opcode](c, op)) {
        return;
    }
    c->locked[0] = c->locked[1] = 0;
    if (must_retreat(c, op)) {
        compile_retreat(c);
    } else {
        compile_call_out(c);
    }
}

static void begin(struct compiler *c, const struct ir_block *ir, const uint16_t *steps,
                  struct block *block, bool grouping)
{
    c->ir = ir;
    c->steps = steps;
    c->block = block;
    c->ended = c->failed = c->block_known = false;
    c->exit_at[0] = c->exit_at[1] = 0;
    c->stub_at = 0;
    memset(c->tail_wanted, 0, sizeof(c->tail_wanted));
    c->fixup_count = 0;
    static const uint32_t sizes[SECTION_COUNT] = {HOT_BYTES, COLD_BYTES, DATA_BYTES};
    uint32_t offset = 0;
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        c->sections[i] = (struct emitter){.bytes = c->bytes + offset, .size = sizes[i]};
        offset += sizes[i];
    }
    c->hot = &c->sections[SECTION_HOT];
    c->cold = &c->sections[SECTION_COLD];
    c->grouping = grouping;
    if (grouping) {
        groups_find(&c->groups, ir, c->global_count);
    }
    loops_find(c);
    registers_begin(c);
}

static bool compile_operations(struct compiler *c)
{
    compile_entry(c);
    if (c->looping) {
        loops_enter(c);
    }
    for (unsigned i = 0; i < c->ir->op_count && !c->ended; i++) {
        const struct ir_op *op = &c->ir->ops[i];
        if (op->opcode == IR_insn) {
            continue;
        }
        c->index = i;
        compile_one(c, op);
        registers_end_operation(c, op);
    }
    emit_tails(c);
    bool overflow = false;
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        overflow |= c->sections[i].overflow;
    }
    return !overflow && !c->failed;
}

/* --- layout --------------------------------------------------------------------------------- */

static const uint8_t *shared_stub(const struct shared_stubs *shared, enum shared_stub stub)
{
    return shared->span.execute + shared->at[stub];
}

static const uint8_t *fixup_target(const struct compiler *c, const struct fixup *fixup,
                                   const uint32_t *offsets, const uint8_t *execute)
{
    uint32_t target = fixup->target;
    switch (fixup->to) {
    case SECTION_SHARED:
        return shared_stub(c->shared, (enum shared_stub)target);
    case SECTION_TAIL:
        return execute + offsets[SECTION_COLD] + c->tail_at[target / 2][target % 2];
    default:
        return execute + offsets[fixup->to] + target;
    }
}

static void apply_fixups(const struct compiler *c, const uint32_t *offsets,
                         const struct code_span *span)
{
    for (unsigned i = 0; i < c->fixup_count; i++) {
        const struct fixup *fixup = &c->fixups[i];
        uint32_t at = offsets[fixup->from] + fixup->at;
        const uint8_t *target = fixup_target(c, fixup, offsets, span->execute);
        uint64_t address = (uint64_t)(uintptr_t)target;
        if (fixup->absolute) {
            memcpy(span->write + at, &address, sizeof(address));
        } else {
            emit_displace(span->write + at, (int32_t)(target - (span->execute + at)));
        }
    }
}

/* Offset of an exit's displacement in the code; 0: it cannot be linked. */
static uint32_t exit_offset(const struct compiler *c, const uint32_t *offsets, unsigned exit)
{
    return c->exit_at[exit] ? offsets[c->exit_section[exit]] + c->exit_at[exit] : 0;
}

static bool place(struct baseline *baseline, struct block *block)
{
    const struct compiler *c = &baseline->compiler;
    uint32_t offsets[SECTION_COUNT];
    uint32_t total = 0;
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        total = (total + 7) & ~7u;
        offsets[i] = total;
        total += c->sections[i].at;
    }
    struct code_span span;
    if (!code_memory_allocate(baseline->memory, total, &span)) {
        return false;
    }
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        memcpy(span.write + offsets[i], c->sections[i].bytes, c->sections[i].at);
    }
    apply_fixups(c, offsets, &span);
    code_memory_publish(&span, total);
    block->compiled = (struct block_compiled){
        .write = span.write,
        .execute = span.execute,
        .size = span.size,
        .exit_at = {exit_offset(c, offsets, 0), exit_offset(c, offsets, 1)},
        .stub_at = offsets[SECTION_COLD] + c->stub_at,
        .loop_head = c->looping ? c->head_at : 0,
        .loop_leave = offsets[SECTION_COLD] + c->leave_at,
        .loop_jump = offsets[SECTION_COLD] + c->leave_jump_at,
    };
    void *entry = span.execute + c->entry_at;
    memcpy(&block->first_handler, &block->code[0].handler, sizeof(entry));
    memcpy(&block->code[0].handler, &entry, sizeof(entry));
    return true;
}

bool baseline_compile(struct baseline *baseline, const struct ir_block *ir, const uint16_t *steps,
                      struct block *block)
{
    struct compiler *c = &baseline->compiler;
    bool grouping = !atomic_load(ungrouped_bit(baseline, block));
    block->crossings = ENGINE_GROUP_CROSSINGS;
    c->unlooped = false;
    begin(c, ir, steps, block, grouping);
    bool compiled = compile_operations(c);
    if (!compiled && c->looping) {
        c->unlooped = true;
        begin(c, ir, steps, block, grouping);
        compiled = compile_operations(c);
    }
    if (compiled && place(baseline, block)) {
        block->target.entry = block->compiled.execute;
        return true;
    }
    block->target.entry = (void *)shared_stub(&baseline->shared, SHARED_INTERPRETED);
    return false;
}

void compile_regroup(struct cpu *cpu)
{
    struct engine *engine = engine_cpu_of(cpu)->engine;
    atomic_store(ungrouped_bit(engine->baseline, cpu->block), true);
    if (watch_try_acquire(engine)) {
        block_cache_drop(engine, cpu->block);
        watch_release(engine);
    }
}

/* --- linking -------------------------------------------------------------------------------- */

/* A loop's branch back (loops.h): to its head, or to what stores the carried values and goes on to
 * `target`. */
static void link_loop(const struct block *from, const struct block *to, const uint8_t *target)
{
    const struct block_compiled *code = &from->compiled;
    uint32_t at = code->exit_at[0];
    bool own = to == from && target == code->execute;
    if (!own) {
        compile_redirect(code->write + code->loop_jump, code->execute + code->loop_jump, target);
    }
    compile_redirect(code->write + at, code->execute + at,
                     code->execute + (own ? code->loop_head : code->loop_leave));
}

void baseline_link(struct baseline *baseline, struct block *from, unsigned exit,
                   const struct block *to)
{
    struct block_compiled *code = &from->compiled;
    uint32_t at = code->exit_at[exit];
    (void)baseline;
    if (!code->execute || !at || (to && !to->compiled.execute)) {
        return;
    }
    const uint8_t *target = to ? to->target.entry : code->execute + code->stub_at;
    if (exit == 0 && code->loop_head) {
        link_loop(from, to, target);
    } else {
        compile_redirect(code->write + at, code->execute + at, target);
    }
}

static void redirect_guard(const struct baseline *baseline, const struct block *block)
{
    const uint8_t *at = block->compiled.guard + block->compiled.guard_exit;
    compile_redirect(code_memory_write_view(baseline->memory, at), at, block->target.entry);
}

void baseline_relink_guard(struct baseline *baseline, const struct block *block)
{
    if (block->compiled.guard) {
        redirect_guard(baseline, block);
    }
}

/* The block's guard, made when it is first needed; NULL: there can be none. */
static const uint8_t *guard_of(struct baseline *baseline, struct block *block,
                               const uint8_t *host_page)
{
    struct block_compiled *compiled = &block->compiled;
    if (compiled->guard || !compiled->execute || block->straddles) {
        return compiled->guard;
    }
    struct emitter e = {.bytes = baseline->compiler.bytes, .size = GUARD_BYTES};
    struct code_span span;
    if (!code_memory_allocate(baseline->memory, GUARD_BYTES, &span)) {
        return NULL;
    }
    uint32_t exit = compile_guard(&e, span.execute, host_page, block->start, &baseline->shared);
    memcpy(span.write, e.bytes, e.at);
    code_memory_trim(baseline->memory, &span, e.at);
    compiled->guard = span.execute;
    compiled->guard_size = (uint16_t)span.size;
    compiled->guard_exit = (uint16_t)exit;
    redirect_guard(baseline, block);
    code_memory_publish(&span, e.at);
    return compiled->guard;
}

bool baseline_link_guarded(struct baseline *baseline, struct block *from, unsigned exit,
                           struct block *to, const uint8_t *host_page)
{
    struct block_compiled *code = &from->compiled;
    uint32_t at = code->exit_at[exit];
    const uint8_t *guard = guard_of(baseline, to, host_page);
    const uint8_t *target = guard ? guard : shared_stub(&baseline->shared, SHARED_PROBE);
    compile_redirect(code->write + at, code->execute + at, target);
    return guard != NULL;
}

/* --- life ----------------------------------------------------------------------------------- */

bool baseline_available(void)
{
    return __has_attribute(preserve_none);
}

static bool make_shared_stubs(struct baseline *baseline)
{
    struct shared_stubs *shared = &baseline->shared;
    if (!code_memory_allocate(baseline->memory, SHARED_BYTES, &shared->span)) {
        return false;
    }
    struct emitter e = {.bytes = shared->span.write, .size = shared->span.size};
    compile_shared(&e, shared->at);
    code_memory_publish(&shared->span, e.at);
    code_memory_trim(baseline->memory, &shared->span, e.at);
    return !e.overflow;
}

struct baseline *baseline_create(const struct isa *isa, struct error *err)
{
    struct baseline *baseline = calloc(1, sizeof(*baseline));
    if (!baseline) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the baseline compiler");
        return NULL;
    }
    uint64_t limit = ENGINE_CODE_BYTES_MAX;
    limit = limit < HOST_CODE_BYTES_MAX ? limit : HOST_CODE_BYTES_MAX;
    baseline->memory = code_memory_create(limit, err);
    unsigned globals = ir_global_count(isa->globals);
    if (!baseline->memory || globals > GLOBALS_MAX) {
        if (baseline->memory) {
            error_set(err, ERROR_CONFIG, 0, "%s has more registers than the compiler can name",
                      isa->name);
        }
        baseline_destroy(baseline);
        return NULL;
    }
    if (!make_shared_stubs(baseline)) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the baseline compiler");
        baseline_destroy(baseline);
        return NULL;
    }
    baseline->compiler.isa = isa;
    baseline->compiler.shared = &baseline->shared;
    baseline->compiler.global_count = globals;
    baseline->compiler.features = compile_features();
    return baseline;
}

void baseline_destroy(struct baseline *baseline)
{
    if (baseline) {
        code_memory_destroy(baseline->memory);
        free(baseline);
    }
}

void baseline_free(struct baseline *baseline, struct block *block)
{
    if (block->compiled.execute) {
        code_memory_free(baseline->memory, block->compiled.execute, block->compiled.size);
    }
    if (block->compiled.guard) {
        code_memory_free(baseline->memory, block->compiled.guard, block->compiled.guard_size);
    }
}

struct code_memory *baseline_memory(const struct baseline *baseline)
{
    return baseline->memory;
}

#endif
