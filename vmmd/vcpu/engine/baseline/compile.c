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
#include "vmmd/vcpu/engine/baseline/registers.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/watch.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNGROUPED 65536u

struct baseline {
    struct code_memory *memory;
    struct code_span interpreted; /* the entry of blocks that were not compiled */
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

static void emit_retreat_tails(struct compiler *c)
{
    c->retreat_at = compile_retreat_tail(c, false, false);
    c->retreat_first_at = compile_retreat_tail(c, false, true);
    bool groups = false;
    for (unsigned i = 0; c->grouping && i < c->groups.count; i++) {
        groups |= c->groups.groups[i].count > 1;
    }
    if (groups) {
        c->crossing_at = compile_retreat_tail(c, true, false);
        c->crossing_first_at = compile_retreat_tail(c, true, true);
    }
}

static void emit_retreat_jump(struct compiler *c)
{
    unsigned step = c->steps[c->index];
    emit_constant(c->cold, REG_STEP, step * sizeof(struct xinsn));
    uint32_t at = emit_jump(c->cold);
    emit_land_at(c->cold, at, step ? c->retreat_at : c->retreat_first_at);
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

uint32_t compile_retreat_stub(struct compiler *c, unsigned retired)
{
    uint32_t at = c->cold->at;
    compile_add_retired(c->cold, -(int32_t)retired);
    emit_retreat_jump(c);
    return at;
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
    registers_begin(c);
}

static bool compile_operations(struct compiler *c)
{
    emit_retreat_tails(c);
    compile_entry(c);
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

static void apply_fixups(const struct compiler *c, const uint32_t *offsets,
                         const struct code_span *span)
{
    for (unsigned i = 0; i < c->fixup_count; i++) {
        const struct fixup *fixup = &c->fixups[i];
        uint32_t at = offsets[fixup->from] + fixup->at;
        uint32_t target = offsets[fixup->to] + fixup->target;
        uint64_t address = (uint64_t)(uintptr_t)(span->execute + target);
        if (fixup->absolute) {
            memcpy(span->write + at, &address, sizeof(address));
        } else {
            emit_displace(span->write + at, (int32_t)(target - at));
        }
    }
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
        .exit_at = {c->exit_at[0], c->exit_at[1]},
        .exit_stub = {offsets[SECTION_COLD] + c->exit_stub[0],
                      offsets[SECTION_COLD] + c->exit_stub[1]},
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
    begin(c, ir, steps, block, !atomic_load(ungrouped_bit(baseline, block)));
    block->crossings = ENGINE_GROUP_CROSSINGS;
    if (compile_operations(c) && place(baseline, block)) {
        block->target.entry = block->compiled.execute;
        return true;
    }
    block->target.entry = baseline->interpreted.execute;
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

void baseline_link(struct baseline *baseline, struct block *from, unsigned exit,
                   const struct block *to)
{
    struct block_compiled *code = &from->compiled;
    uint32_t at = code->exit_at[exit];
    (void)baseline;
    if (!code->execute || !at || (to && !to->compiled.execute)) {
        return;
    }
    const uint8_t *target = to ? to->target.entry : code->execute + code->exit_stub[exit];
    compile_redirect(code->write + at, code->execute + at, target);
}

/* --- life ----------------------------------------------------------------------------------- */

bool baseline_available(void)
{
    return __has_attribute(preserve_none);
}

/* Of blocks without code. */
static bool make_interpreted_entry(struct baseline *baseline)
{
    if (!code_memory_allocate(baseline->memory, CODE_MEMORY_ALIGN, &baseline->interpreted)) {
        return false;
    }
    struct emitter e = {.bytes = baseline->interpreted.write, .size = baseline->interpreted.size};
    compile_interpreted_entry(&e);
    code_memory_publish(&baseline->interpreted, e.at);
    return !e.overflow;
}

struct baseline *baseline_create(const struct isa *isa, struct error *err)
{
    struct baseline *baseline = calloc(1, sizeof(*baseline));
    if (!baseline) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the baseline compiler");
        return NULL;
    }
    baseline->memory = code_memory_create(ENGINE_CODE_BYTES_MAX, err);
    unsigned globals = ir_global_count(isa->globals);
    if (!baseline->memory || globals > GLOBALS_MAX) {
        if (baseline->memory) {
            error_set(err, ERROR_CONFIG, 0, "%s has more registers than the compiler can name",
                      isa->name);
        }
        baseline_destroy(baseline);
        return NULL;
    }
    if (!make_interpreted_entry(baseline)) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the baseline compiler");
        baseline_destroy(baseline);
        return NULL;
    }
    baseline->compiler.isa = isa;
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
}

struct code_memory *baseline_memory(const struct baseline *baseline)
{
    return baseline->memory;
}

#endif
