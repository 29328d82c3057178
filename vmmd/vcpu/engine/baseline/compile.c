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
/* Offsets within a block's code are 16-bit numbers. */
#define CODE_BYTES_MAX (UINT16_MAX - CODE_MEMORY_ALIGN)

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

void compile_jump_noted(struct compiler *c, enum shared_stub stub, unsigned number)
{
    uint32_t at = compile_call_stub(c->cold);
    compile_fixup(c, SECTION_COLD, at, SECTION_SHARED, stub);
    compile_fixup(c, SECTION_COLD, c->cold->at, SECTION_COLD, 0);
    c->fixups[c->fixup_count - 1].kind = FIXUP_NOTE;
    emit_u32(c->cold, number << 16);
    _Static_assert(offsetof(struct stub_note, number) == 2, "in the upper half");
}

void compile_retreat_here(struct compiler *c)
{
    registers_store_dirty(c, c->cold, true);
    compile_jump_noted(c, SHARED_RETREAT, c->steps[c->index]);
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

void compile_exit_stubs(struct compiler *c)
{
    c->stub_at = c->cold->at;
    for (unsigned i = 0; i < c->block->exit_count; i++) {
        compile_jump_noted(c, SHARED_EXIT, i);
    }
}

void compile_open_exit(struct compiler *c, unsigned exit, enum section section, uint32_t at)
{
    c->exit_at[exit] = at;
    c->exit_section[exit] = (uint8_t)section;
    compile_fixup(c, section, at, SECTION_COLD, c->stub_at + exit * EXIT_STUB_BYTES);
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
        emit_bytes(data, &c->code[i], sizeof(struct xinsn));
    }
    compile_fixup(c, SECTION_DATA, data->at, SECTION_HOT, resume);
    c->fixups[c->fixup_count - 1].kind = FIXUP_ADDRESS;
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

static void begin(struct compiler *c, bool grouping)
{
    const struct ir_block *ir = c->ir;
    c->ended = c->failed = c->block_known = false;
    c->exit_at[0] = c->exit_at[1] = 0;
    c->stub_at = 0;
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
    return fixup->to == SECTION_SHARED ? shared_stub(c->shared, (enum shared_stub)fixup->target)
                                       : execute + offsets[fixup->to] + fixup->target;
}

static void apply_fixups(const struct compiler *c, const uint32_t *offsets,
                         const struct code_span *span)
{
    for (unsigned i = 0; i < c->fixup_count; i++) {
        const struct fixup *fixup = &c->fixups[i];
        uint32_t at = offsets[fixup->from] + fixup->at;
        const uint8_t *target = fixup_target(c, fixup, offsets, span->execute);
        uint64_t address = (uint64_t)(uintptr_t)target;
        uint16_t back = (uint16_t)at;
        switch (fixup->kind) {
        case FIXUP_ADDRESS:
            memcpy(span->write + at, &address, sizeof(address));
            break;
        case FIXUP_NOTE:
            memcpy(span->write + at, &back, sizeof(back));
            break;
        default:
            emit_displace(span->write + at, (int32_t)(target - (span->execute + at)));
        }
    }
}

/* What is at that place of a section is known to the block by its offset in the code. */
static uint16_t code_offset(const uint32_t *offsets, enum section section, uint32_t at)
{
    return (uint16_t)(offsets[section] + at - CODE_HEADER_BYTES);
}

static void fill_in(const struct compiler *c, const uint32_t *offsets, const struct code_span *span)
{
    struct block *block = c->block;
    block->compiled = (struct block_compiled){
        .execute = span->execute + CODE_HEADER_BYTES,
        .size = (uint16_t)span->size,
        .stub_at = code_offset(offsets, SECTION_COLD, c->stub_at),
        .loop_head = c->looping ? code_offset(offsets, SECTION_HOT, c->head_at) : 0,
        .loop_leave = code_offset(offsets, SECTION_COLD, c->leave_at),
        .loop_jump = code_offset(offsets, SECTION_COLD, c->leave_jump_at),
    };
    for (unsigned i = 0; i < block->exit_count; i++) {
        uint32_t at = c->exit_at[i];
        block->exits[i].jump = at ? code_offset(offsets, c->exit_section[i], at) : 0;
    }
    void *entry = block->compiled.execute + c->entry_at;
    memcpy(&block->enter, &entry, sizeof(entry));
}

static bool place(struct baseline *baseline, struct block *block)
{
    const struct compiler *c = &baseline->compiler;
    uint32_t offsets[SECTION_COUNT];
    uint32_t total = CODE_HEADER_BYTES;
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        static const uint8_t alignment[SECTION_COUNT] = {8, 4, 8};
        total = (total + alignment[i] - 1) & -(uint32_t)alignment[i];
        offsets[i] = total;
        total += c->sections[i].at;
    }
    struct code_span span;
    if (total > CODE_BYTES_MAX || !code_memory_allocate(baseline->memory, total, &span)) {
        return false;
    }
    memcpy(span.write, &block, CODE_HEADER_BYTES);
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        memcpy(span.write + offsets[i], c->sections[i].bytes, c->sections[i].at);
    }
    apply_fixups(c, offsets, &span);
    code_memory_publish(&span, total);
    fill_in(c, offsets, &span);
    return true;
}

bool baseline_compile(struct baseline *baseline, const struct ir_block *ir,
                      const struct xinsn *code, const uint16_t *steps, struct block *block)
{
    struct compiler *c = &baseline->compiler;
    c->ir = ir;
    c->code = code;
    c->steps = steps;
    c->block = block;
    bool grouping = !atomic_load(ungrouped_bit(baseline, block));
    block->crossings = ENGINE_GROUP_CROSSINGS;
    c->unlooped = false;
    begin(c, grouping);
    bool compiled = compile_operations(c);
    if (!compiled && c->looping) {
        c->unlooped = true;
        begin(c, grouping);
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

static void redirect(const struct baseline *baseline, const uint8_t *at, const uint8_t *target)
{
    compile_redirect(code_memory_write_view(baseline->memory, at), at, target);
}

/* A loop's branch back (loops.h): to its head, or to what stores the carried values and goes on to
 * `target`. */
static void link_loop(const struct baseline *baseline, const struct block *from,
                      const struct block *to, const uint8_t *target)
{
    const struct block_compiled *code = &from->compiled;
    uint32_t at = from->exits[0].jump;
    bool own = to == from && target == code->execute;
    if (!own) {
        redirect(baseline, code->execute + code->loop_jump, target);
    }
    redirect(baseline, code->execute + at,
             code->execute + (own ? code->loop_head : code->loop_leave));
}

void baseline_link(struct baseline *baseline, struct block *from, unsigned exit,
                   const struct block *to)
{
    struct block_compiled *code = &from->compiled;
    uint32_t at = from->exits[exit].jump;
    if (!code->execute || !at || (to && !to->compiled.execute)) {
        return;
    }
    const uint8_t *stub = code->execute + code->stub_at + exit * EXIT_STUB_BYTES;
    const uint8_t *target = to ? to->target.entry : stub;
    if (exit == 0 && code->loop_head) {
        link_loop(baseline, from, to, target);
    } else {
        redirect(baseline, code->execute + at, target);
    }
}

static void redirect_guard(const struct baseline *baseline, const struct block *block)
{
    redirect(baseline, block->compiled.guard + block->compiled.guard_exit, block->target.entry);
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
    uint32_t at = from->exits[exit].jump;
    const uint8_t *guard = guard_of(baseline, to, host_page);
    const uint8_t *target = guard ? guard : shared_stub(&baseline->shared, SHARED_PROBE);
    redirect(baseline, code->execute + at, target);
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
        code_memory_free(baseline->memory, block->compiled.execute - CODE_HEADER_BYTES,
                         block->compiled.size);
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
