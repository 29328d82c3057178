#include "vmmd/vcpu/engine/baseline/host.h"

#if HAS_BASELINE

#include "vmmd/vcpu/engine/baseline/registers.h"
#include <string.h>

#define NO_VALUE NEVER

static unsigned value_index(ir_value value)
{
    return ir_is_temp(value) ? GLOBALS_MAX + (value - IR_TEMP_BASE) : value;
}

static bool index_is_temp(unsigned index)
{
    return index >= GLOBALS_MAX && index < VALUE_PAGE_BASE;
}

static enum register_file file_of(const struct value_state *state)
{
    return state->type == IR_TYPE_F64 ? FILE_FLOAT : FILE_GENERAL;
}

struct value_state *registers_value(struct compiler *c, ir_value value)
{
    return &c->values[value_index(value)];
}

/* --- begin and end -------------------------------------------------------------------------- */

static bool names_value(ir_value value)
{
    return value != IR_NONE && value != IR_IMMEDIATE;
}

static void reset_value(struct compiler *c, unsigned index, unsigned type, unsigned offset)
{
    c->values[index] = (struct value_state){
        .reg = NO_REGISTER, .type = (uint8_t)type, .offset = (uint16_t)offset, .next_use = NEVER};
}

/* From the last operation to the first: where each operand is read next. */
static void find_uses(struct compiler *c)
{
    uint16_t next[VALUES_MAX];
    memset(next, 0xff, sizeof(next));
    for (unsigned i = 0; i < c->carried_count; i++) {
        next[c->carried[i].value] = c->ir->op_count; /* in the next round */
    }
    for (unsigned i = c->ir->op_count; i-- > 0;) {
        const struct ir_op *op = &c->ir->ops[i];
        struct op_uses *uses = &c->uses[i];
        if (op->opcode == IR_insn) {
            continue;
        }
        if (names_value(op->d)) {
            uses->d = next[value_index(op->d)];
            next[value_index(op->d)] = NEVER;
        }
        const ir_value sources[3] = {op->a, op->b, op->c};
        uint16_t *const results[3] = {&uses->a, &uses->b, &uses->c};
        for (unsigned k = 0; k < 3; k++) {
            *results[k] = names_value(sources[k]) ? next[value_index(sources[k])] : NEVER;
        }
        for (unsigned k = 0; k < 3; k++) {
            if (names_value(sources[k])) {
                next[value_index(sources[k])] = (uint16_t)i;
            }
        }
    }
}

void registers_begin(struct compiler *c)
{
    for (unsigned i = 0; i < c->global_count; i++) {
        reset_value(c, i, c->isa->globals[i].type, c->isa->globals[i].offset);
    }
    for (unsigned i = 0; i < c->ir->temp_count; i++) {
        reset_value(c, GLOBALS_MAX + i, c->ir->temp_types[i],
                    offsetof(struct cpu, temps) + (size_t)i * 2 * sizeof(uint64_t));
    }
    reset_value(c, VALUE_PAGE_BASE, IR_TYPE_I64, offsetof(struct cpu, page_base));
    for (unsigned i = 0; i < GROUP_SLOTS; i++) {
        reset_value(c, VALUE_GROUPS + i, IR_TYPE_I64, 0);
        c->slots[i].group = GROUP_NONE;
    }
    memset(c->owner, 0xff, sizeof(c->owner));
    memset(c->locked, 0, sizeof(c->locked));
    c->reserved = 0;
    find_uses(c);
}

static void unmap(struct compiler *c, struct value_state *state)
{
    if (state->reg != NO_REGISTER) {
        c->owner[file_of(state)][state->reg] = NO_VALUE;
        state->reg = NO_REGISTER;
    }
}

static void end_use(struct compiler *c, ir_value value, uint16_t next_use)
{
    if (!names_value(value)) {
        return;
    }
    struct value_state *state = registers_value(c, value);
    state->next_use = next_use;
    if (next_use == NEVER && ir_is_temp(value)) {
        unmap(c, state);
        state->dirty = state->constant = false;
    }
}

void registers_end_operation(struct compiler *c, const struct ir_op *op)
{
    const struct op_uses *uses = &c->uses[c->index];
    end_use(c, op->a, uses->a);
    end_use(c, op->b, uses->b);
    end_use(c, op->c, uses->c);
    end_use(c, op->d, uses->d);
    c->locked[FILE_GENERAL] = c->locked[FILE_FLOAT] = 0;
}

bool registers_is_constant(struct compiler *c, ir_value value, int64_t *constant)
{
    if (!names_value(value) || !registers_value(c, value)->constant) {
        return false;
    }
    *constant = registers_value(c, value)->value;
    return true;
}

bool registers_dies(struct compiler *c, ir_value value, uint16_t next_use)
{
    (void)c;
    return ir_is_temp(value) && next_use == NEVER;
}

/* --- storing -------------------------------------------------------------------------------- */

static void store_value(const struct value_state *state, struct emitter *e)
{
    struct host_memory slot = host_cpu(state->offset);
    if (state->type == IR_TYPE_F64) {
        emit_float_store(e, !state->single, slot, state->reg);
        if (state->single && !state->boxed) {
            emit_store_constant(e, 2, host_cpu(state->offset + 4), -1);
        }
    } else if (state->reg != NO_REGISTER) {
        emit_store(e, 3, slot, state->reg);
    } else if (state->value == (int32_t)state->value) {
        emit_store_constant(e, 3, slot, (int32_t)state->value);
    } else {
        emit_constant(e, REG_SCRATCH, (uint64_t)state->value);
        emit_store(e, 3, slot, REG_SCRATCH);
    }
}

/* The slot is up to date now. */
static void note_stored(struct value_state *state)
{
    state->dirty = false;
    if (state->type == IR_TYPE_F64) {
        state->boxed = state->single;
    }
}

static bool for_store(const struct value_state *state, unsigned index, bool temporaries)
{
    return state->dirty && (temporaries || !index_is_temp(index));
}

static void for_each_dirty(struct compiler *c, struct emitter *e, bool temporaries, bool note)
{
    const unsigned ends[2][2] = {{0, c->global_count},
                                 {GLOBALS_MAX, GLOBALS_MAX + c->ir->temp_count}};
    for (unsigned part = 0; part < 2; part++) {
        for (unsigned i = ends[part][0]; i < ends[part][1]; i++) {
            if (for_store(&c->values[i], i, temporaries)) {
                store_value(&c->values[i], e);
                if (note) {
                    note_stored(&c->values[i]);
                }
            }
        }
    }
}

void registers_store_dirty(struct compiler *c, struct emitter *e, bool temporaries)
{
    for_each_dirty(c, e, temporaries, false);
    if (c->looping) {
        compile_flush_count(e);
    }
}

void registers_clean_value(struct compiler *c, unsigned global)
{
    if (c->values[global].dirty) {
        store_value(&c->values[global], c->hot);
        note_stored(&c->values[global]);
    }
}

void registers_clean(struct compiler *c, bool temporaries)
{
    for_each_dirty(c, c->hot, temporaries, true);
}

void registers_forget(struct compiler *c)
{
    for (unsigned file = 0; file < 2; file++) {
        for (unsigned reg = 0; reg < HOST_REGISTERS; reg++) {
            if (c->owner[file][reg] != NO_VALUE) {
                unmap(c, &c->values[c->owner[file][reg]]);
            }
        }
    }
}

void registers_overwritten(struct compiler *c, ir_value value)
{
    if (names_value(value)) {
        struct value_state *state = registers_value(c, value);
        unmap(c, state);
        state->dirty = state->constant = state->boxed = false;
    }
}

/* --- allocation ----------------------------------------------------------------------------- */

static void lock(struct compiler *c, enum register_file file, unsigned reg)
{
    c->locked[file] |= 1u << reg;
}

/* Store if need be, and forget. */
static void evict(struct compiler *c, struct value_state *state)
{
    if (state->dirty && !state->constant) {
        store_value(state, c->hot);
        note_stored(state);
    }
    unmap(c, state);
}

static unsigned find_free(const struct compiler *c, enum register_file file)
{
    const struct host_register_order *order = &compile_register_orders[file];
    for (unsigned i = 0; i < order->count; i++) {
        unsigned reg = order->registers[i];
        bool reserved = file == FILE_GENERAL && c->reserved >> reg & 1;
        if (c->owner[file][reg] == NO_VALUE && !(c->locked[file] >> reg & 1) && !reserved) {
            return reg;
        }
    }
    return NO_REGISTER;
}

/* Larger: rather given up. */
static unsigned eviction_rank(const struct value_state *state)
{
    return (unsigned)state->next_use * 2 + !state->dirty;
}

static unsigned find_victim(const struct compiler *c, enum register_file file)
{
    const struct host_register_order *order = &compile_register_orders[file];
    unsigned best = NO_REGISTER;
    unsigned best_rank = 0;
    for (unsigned i = 0; i < order->count; i++) {
        unsigned owner = c->owner[file][order->registers[i]];
        if (c->locked[file] >> order->registers[i] & 1 || owner == NO_VALUE) {
            continue;
        }
        unsigned rank = eviction_rank(&c->values[owner]);
        if (best == NO_REGISTER || rank > best_rank) {
            best = order->registers[i];
            best_rank = rank;
        }
    }
    return best;
}

unsigned registers_allocate(struct compiler *c, enum register_file file)
{
    unsigned reg = find_free(c, file);
    if (reg == NO_REGISTER) {
        reg = find_victim(c, file);
        if (reg == NO_REGISTER) { /* no operation needs that many */
            c->failed = true;
            return 0;
        }
        evict(c, &c->values[c->owner[file][reg]]);
    }
    lock(c, file, reg);
    return reg;
}

static void map(struct compiler *c, unsigned index, unsigned reg)
{
    struct value_state *state = &c->values[index];
    state->reg = (uint8_t)reg;
    c->owner[file_of(state)][reg] = (uint16_t)index;
}

void registers_carry(struct compiler *c, const struct carried *carried)
{
    map(c, carried->value, carried->reg);
    c->values[carried->value].dirty = carried->written;
}

bool registers_is_free(const struct compiler *c, unsigned reg)
{
    return c->owner[FILE_GENERAL][reg] == NO_VALUE;
}

void registers_vacate(struct compiler *c, unsigned reg)
{
    unsigned owner = c->owner[FILE_GENERAL][reg];
    lock(c, FILE_GENERAL, reg);
    if (owner == NO_VALUE) {
        return;
    }
    unsigned other = find_free(c, FILE_GENERAL);
    if (other == NO_REGISTER) {
        evict(c, &c->values[owner]);
        return;
    }
    emit_move(c->hot, true, other, reg);
    c->owner[FILE_GENERAL][reg] = NO_VALUE;
    map(c, owner, other);
}

/* --- operands ------------------------------------------------------------------------------- */

static unsigned use_index(struct compiler *c, unsigned index)
{
    struct value_state *state = &c->values[index];
    if (state->reg == NO_REGISTER) {
        unsigned reg = registers_allocate(c, FILE_GENERAL);
        if (state->constant) {
            emit_constant(c->hot, reg, (uint64_t)state->value);
        } else {
            emit_load64(c->hot, reg, host_cpu(state->offset));
        }
        map(c, index, reg);
    }
    lock(c, FILE_GENERAL, state->reg);
    return state->reg;
}

unsigned registers_use(struct compiler *c, ir_value value)
{
    return use_index(c, value_index(value));
}

unsigned registers_use_page_base(struct compiler *c)
{
    return use_index(c, VALUE_PAGE_BASE);
}

unsigned registers_use_double(struct compiler *c, ir_value value)
{
    struct value_state *state = registers_value(c, value);
    if (state->reg != NO_REGISTER && state->single) {
        evict(c, state);
    }
    if (state->reg == NO_REGISTER) {
        unsigned reg = registers_allocate(c, FILE_FLOAT);
        emit_float_load(c->hot, true, reg, host_cpu(state->offset));
        map(c, value_index(value), reg);
        state->single = false;
    }
    lock(c, FILE_FLOAT, state->reg);
    return state->reg;
}

unsigned registers_use_single(struct compiler *c, ir_value value)
{
    struct value_state *state = registers_value(c, value);
    if (state->reg != NO_REGISTER && !state->single) {
        evict(c, state);
    }
    if (state->reg == NO_REGISTER) {
        if (!state->boxed) {
            compile_check_boxed(c, state->offset + 4u);
            state->boxed = true;
        }
        unsigned reg = registers_allocate(c, FILE_FLOAT);
        emit_float_load(c->hot, false, reg, host_cpu(state->offset));
        map(c, value_index(value), reg);
        state->single = true;
    }
    lock(c, FILE_FLOAT, state->reg);
    return state->reg;
}

void registers_hold(struct compiler *c, unsigned index, unsigned reg, uint16_t next_use)
{
    map(c, index, reg);
    c->values[index].next_use = next_use;
}

void registers_release(struct compiler *c, unsigned index)
{
    unmap(c, &c->values[index]);
}

unsigned registers_held(struct compiler *c, unsigned index, uint16_t next_use)
{
    struct value_state *state = &c->values[index];
    if (state->reg != NO_REGISTER) {
        state->next_use = next_use;
        lock(c, FILE_GENERAL, state->reg);
    }
    return state->reg;
}

/* --- results -------------------------------------------------------------------------------- */

static void define(struct compiler *c, ir_value value, unsigned reg, bool single)
{
    struct value_state *state = registers_value(c, value);
    enum register_file file = file_of(state);
    if (state->reg != reg) {
        unmap(c, state);
        if (c->owner[file][reg] != NO_VALUE) {
            struct value_state *former = &c->values[c->owner[file][reg]];
            former->dirty = former->dirty && former->constant;
            unmap(c, former);
        }
        map(c, value_index(value), reg);
    }
    state->dirty = true;
    state->constant = false;
    state->boxed = state->boxed && single;
    state->single = single;
    lock(c, file, reg);
}

void registers_define(struct compiler *c, ir_value value, unsigned reg)
{
    define(c, value, reg, false);
}

void registers_define_single(struct compiler *c, ir_value value, unsigned reg)
{
    define(c, value, reg, true);
}

void registers_define_constant(struct compiler *c, ir_value value, int64_t constant)
{
    struct value_state *state = registers_value(c, value);
    unmap(c, state);
    state->dirty = state->constant = true;
    state->value = constant;
}

#endif
