#include "vmmd/vcpu/engine/baseline/host.h"

#if HAS_BASELINE

#include "libshared/ir/opcode.h"
#include "vmmd/vcpu/engine/baseline/loops.h"
#include "vmmd/vcpu/engine/baseline/registers.h"

/* --- what is carried -------------------------------------------------------------------------- */

struct usage {
    bool read[GLOBALS_MAX]; /* before it is written */
    bool written[GLOBALS_MAX];
};

static bool is_integer_global(const struct compiler *c, ir_value value)
{
    return value < c->global_count && c->isa->globals[value].type == IR_TYPE_I64;
}

/* False: an operation is none for loops. */
static bool find_usage(const struct compiler *c, struct usage *usage)
{
    for (unsigned i = 0; i < c->ir->op_count; i++) {
        const struct ir_op *op = &c->ir->ops[i];
        if (op->opcode == IR_insn) {
            continue;
        }
        if (ir_opcode_table[op->opcode].effect == IR_EFFECT_CALL) {
            return false;
        }
        const ir_value sources[3] = {op->a, op->b, op->c};
        for (unsigned k = 0; k < 3; k++) {
            if (is_integer_global(c, sources[k]) && !usage->written[sources[k]]) {
                usage->read[sources[k]] = true;
            }
        }
        if (is_integer_global(c, op->d)) {
            usage->written[op->d] = true;
        }
    }
    return true;
}

static void carry(struct compiler *c, const struct usage *usage, bool read, bool written)
{
    for (unsigned i = 0; i < c->global_count; i++) {
        if (usage->read[i] == read && usage->written[i] == written &&
            c->carried_count < compile_loop_registers.count) {
            c->carried[c->carried_count] =
                (struct carried){.value = (uint16_t)i,
                                 .reg = compile_loop_registers.registers[c->carried_count],
                                 .written = written};
            c->carried_count++;
        }
    }
}

void loops_find(struct compiler *c)
{
    const struct ir_block *ir = c->ir;
    const struct ir_op *last = &ir->ops[ir->op_count - 1];
    struct usage usage = {0};
    c->carried_count = 0;
    c->looping = compile_loop_registers.count && !c->unlooped && !ir->straddles &&
                 last->opcode == IR_branch && last->imm2 == ir->start &&
                 /* who comes to the stub compares again, and only globals are stored for it */
                 !ir_is_temp(last->a) && !ir_is_temp(last->b) && find_usage(c, &usage);
    if (c->looping) {
        carry(c, &usage, true, true); /* each round waits for the one before */
        carry(c, &usage, true, false);
        carry(c, &usage, false, true);
    }
}

/* --- in and around ---------------------------------------------------------------------------- */

void loops_enter(struct compiler *c)
{
    for (unsigned i = 0; i < c->carried_count; i++) {
        const struct carried *carried = &c->carried[i];
        emit_load64(c->hot, carried->reg, host_cpu(c->values[carried->value].offset));
        registers_carry(c, carried);
    }
    compile_begin_count(c->hot);
    c->reserved |= 1u << REG_LOOP_COUNT;
    c->head_at = c->hot->at;
}

static const struct carried *carried_of(const struct compiler *c, unsigned value)
{
    for (unsigned i = 0; i < c->carried_count; i++) {
        if (c->carried[i].value == value) {
            return &c->carried[i];
        }
    }
    return NULL;
}

void loops_store_others(struct compiler *c)
{
    for (unsigned i = 0; i < c->global_count; i++) {
        if (!carried_of(c, i)) {
            registers_clean_value(c, i);
        }
    }
}

/* Where carried values are and must be; `from` NO_REGISTER: nothing to move. */
struct moves {
    uint8_t from[CARRIED_MAX], to[CARRIED_MAX];
    unsigned left;
};

static bool is_source(const struct moves *moves, const struct compiler *c, unsigned reg)
{
    for (unsigned i = 0; i < c->carried_count; i++) {
        if (moves->from[i] == reg) {
            return true;
        }
    }
    return false;
}

/* All at once: a move waits while its target is still to be read; a ring begins by saving one. */
static void emit_moves(struct compiler *c, struct moves *moves)
{
    while (moves->left) {
        bool moved = false;
        unsigned waiting = 0;
        for (unsigned i = 0; i < c->carried_count; i++) {
            if (moves->from[i] == NO_REGISTER) {
                continue;
            }
            if (is_source(moves, c, moves->to[i])) {
                waiting = i;
                continue;
            }
            emit_move(c->hot, true, moves->to[i], moves->from[i]);
            moves->from[i] = NO_REGISTER;
            moves->left--;
            moved = true;
        }
        if (!moved) {
            unsigned saved = moves->to[waiting];
            emit_move(c->hot, true, REG_SCRATCH, saved);
            for (unsigned i = 0; i < c->carried_count; i++) {
                moves->from[i] = moves->from[i] == saved ? REG_SCRATCH : moves->from[i];
            }
        }
    }
}

void loops_return(struct compiler *c)
{
    struct moves moves = {.left = 0};
    for (unsigned i = 0; i < c->carried_count; i++) {
        const struct value_state *state = &c->values[c->carried[i].value];
        bool there = state->reg == NO_REGISTER || state->reg == c->carried[i].reg;
        moves.to[i] = c->carried[i].reg;
        moves.from[i] = there ? NO_REGISTER : state->reg;
        moves.left += !there;
    }
    emit_moves(c, &moves);
    for (unsigned i = 0; i < c->carried_count; i++) {
        const struct value_state *state = &c->values[c->carried[i].value];
        if (state->reg == NO_REGISTER && state->constant) {
            emit_constant(c->hot, c->carried[i].reg, (uint64_t)state->value);
        } else if (state->reg == NO_REGISTER) {
            emit_load64(c->hot, c->carried[i].reg, host_cpu(state->offset));
        }
    }
}

void loops_store_carried(struct compiler *c, struct emitter *e)
{
    for (unsigned i = 0; i < c->carried_count; i++) {
        const struct carried *carried = &c->carried[i];
        if (carried->written) {
            emit_store(e, 3, host_cpu(c->values[carried->value].offset), carried->reg);
        }
    }
    compile_flush_count(e);
}

#endif
