/*
 * The driver: operation by operation, then the sections are laid out, fixed up and copied into code
 * memory.
 *
 * A block begins in HOT with the attention test, for blocks that jump here directly; the
 * interpreter and the outer loop enter behind it, because they have looked themselves (and, when
 * stepping, run a block in spite of it).
 */
#if defined(__x86_64__)

#include "libshared/ir/opcode.h"
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/baseline/registers.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/watch.h"
#include <cpuid.h>
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

static void baseline_regroup(struct cpu *cpu);

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

/* Where all retreats end: rax is the step's offset. `first`: its handler is not in the step. */
static uint32_t emit_retreat_tail(struct compiler *c, bool crossing, bool first)
{
    struct emitter *e = c->cold;
    uint32_t at = e->at;
    emit_constant(e, RCX, (uint64_t)(uintptr_t)c->block);
    emit_store(e, 3, CPU_FIELD(block), RCX);
    emit_address(e, true, REG_SCRATCH, host_indexed(RCX, RAX, 0, offsetof(struct block, code)));
    if (crossing) {
        emit_arithmetic_memory_constant(e, false, HOST_SUB,
                                        host_at(RCX, offsetof(struct block, crossings)), 1);
        uint32_t few = emit_jump_if(e, HOST_NOT_EQUAL);
        emit_move(e, true, RBX, RCX);
        emit_move(e, true, RDI, REG_CPU);
        emit_constant(e, RAX, (uint64_t)(uintptr_t)baseline_regroup);
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

static void emit_retreat_tails(struct compiler *c)
{
    c->retreat_at = emit_retreat_tail(c, false, false);
    c->retreat_first_at = emit_retreat_tail(c, false, true);
    bool groups = false;
    for (unsigned i = 0; c->grouping && i < c->groups.count; i++) {
        groups |= c->groups.groups[i].count > 1;
    }
    if (groups) {
        c->crossing_at = emit_retreat_tail(c, true, false);
        c->crossing_first_at = emit_retreat_tail(c, true, true);
    }
}

static void emit_retreat_jump(struct compiler *c)
{
    unsigned step = c->steps[c->index];
    emit_constant(c->cold, RAX, step * sizeof(struct xinsn));
    uint32_t at = emit_jump(c->cold);
    emit_land_at(c->cold, at, step ? c->retreat_at : c->retreat_first_at);
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

void compile_retreat_if(struct compiler *c, enum host_condition condition)
{
    uint32_t at = emit_jump_if(c->hot, condition);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    registers_store_dirty(c, c->cold, true);
    emit_retreat_jump(c);
}

void compile_retreat(struct compiler *c)
{
    uint32_t at = emit_jump(c->hot);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, c->cold->at);
    registers_store_dirty(c, c->cold, true);
    emit_retreat_jump(c);
    c->ended = true;
}

uint32_t compile_retreat_stub(struct compiler *c, unsigned retired)
{
    uint32_t at = c->cold->at;
    emit_arithmetic_memory_constant(c->cold, true, HOST_SUB, CPU_FIELD(retired), (int32_t)retired);
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
    compile_store_block(c, c->hot, RAX);
    uint32_t at = emit_address_of(c->hot, REG_SCRATCH);
    emit_jump_memory(c->hot, host_at(REG_SCRATCH, 0));
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

/* Attention: cpu->pc is the block's start. */
static void emit_entry(struct compiler *c)
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
    emit_entry(c);
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
        uint32_t displacement = target - (at + 4);
        if (fixup->absolute) {
            memcpy(span->write + at, &address, sizeof(address));
        } else {
            memcpy(span->write + at, &displacement, sizeof(displacement));
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

/* Its own thread, in compiled code of cpu->block: the groups of this block often lie in two pages.
 */
static void baseline_regroup(struct cpu *cpu)
{
    struct engine *engine = engine_cpu_of(cpu)->engine;
    atomic_store(ungrouped_bit(engine->baseline, cpu->block), true);
    if (watch_try_acquire(engine)) {
        block_cache_drop(engine, cpu->block);
        watch_release(engine);
    }
}

/* --- linking -------------------------------------------------------------------------------- */

/* The displacement is aligned, so other CPUs see the old target or the new one. */
void baseline_link(struct baseline *baseline, struct block *from, unsigned exit,
                   const struct block *to)
{
    struct block_compiled *code = &from->compiled;
    uint32_t at = code->exit_at[exit];
    (void)baseline;
    if (!code->execute || !at || (to && !to->compiled.execute)) {
        return;
    }
    const uint8_t *target = to ? to->compiled.execute : code->execute + code->exit_stub[exit];
    int32_t displacement = (int32_t)(target - (code->execute + at + 4));
    __atomic_store_n((int32_t *)(void *)(code->write + at), displacement, __ATOMIC_RELEASE);
}

/* --- life ----------------------------------------------------------------------------------- */

bool baseline_available(void)
{
    return __has_attribute(preserve_none);
}

static struct host_features find_features(void)
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

/* Blocks without code: into their threaded code, or, with attention asked for, to the outer loop.
 */
static bool make_interpreted_entry(struct baseline *baseline)
{
    if (!code_memory_allocate(baseline->memory, CODE_MEMORY_ALIGN, &baseline->interpreted)) {
        return false;
    }
    struct emitter e = {.bytes = baseline->interpreted.write, .size = baseline->interpreted.size};
    emit_arithmetic_memory_constant(&e, false, HOST_CMP, CPU_FIELD(attention), 0);
    uint32_t leave = emit_jump_if(&e, HOST_NOT_EQUAL);
    emit_address(&e, true, REG_SCRATCH, host_at(RDX, offsetof(struct block, code)));
    emit_jump_memory(&e, host_at(REG_SCRATCH, 0));
    emit_land(&e, leave);
    emit_load(&e, 1, false, RAX, host_at(RDX, offsetof(struct block, start)));
    emit_arithmetic_load(&e, true, HOST_ADD, RAX, CPU_FIELD(page_base));
    emit_store(&e, 3, CPU_FIELD(pc), RAX);
    emit_return(&e);
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
    baseline->compiler.features = find_features();
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
