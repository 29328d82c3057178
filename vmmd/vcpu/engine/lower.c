/* From IR to threaded code: choose a handler for each operation, drop markers, make the side table.
 */
#include "vmmd/vcpu/engine/interp.h"
#include <stdlib.h>
#include <string.h>

static const struct interp_operation *const operations[IR_OPCODE_COUNT] = {
#define OP(name, d, a, b, c, aux, effects) [IR_##name] = &interp_##name,
#include "libshared/ir/ops.def"
#undef OP
};

uint16_t lower_slot(const struct lowering *lowering, ir_value value)
{
    if (ir_is_temp(value)) {
        return (uint16_t)(offsetof(struct cpu, temps) +
                          (size_t)(value - IR_TEMP_BASE) * 2 * sizeof(uint64_t));
    }
    if (value == IR_NONE || value == IR_IMMEDIATE) {
        return LOWER_SCRATCH_SLOT;
    }
    return lowering->isa->globals[value].offset;
}

struct xinsn *lower_emit(struct lowering *lowering, const struct ir_op *op, interp_handler *handler)
{
    struct xinsn *step = &lowering->code[lowering->capacity - 1];
    if (lowering->count < lowering->capacity - 1) {
        step = &lowering->code[lowering->count++];
    } else {
        lowering->overflow = true;
    }
    *step = (struct xinsn){
        .handler = handler,
        .d = lower_slot(lowering, op->d),
        .a = lower_slot(lowering, op->a),
        .b = lower_slot(lowering, op->b),
        .insn = lowering->insn,
        .imm = op->imm,
    };
    return step;
}

struct xinsn *lower_memory_step(struct lowering *lowering, const struct ir_op *op,
                                interp_handler *handler)
{
    bool far = op->imm != (int32_t)op->imm;
    if (far) {
        struct ir_op add = {.opcode = IR_add,
                            .d = IR_NONE,
                            .a = op->a,
                            .b = IR_IMMEDIATE,
                            .c = IR_NONE,
                            .imm = op->imm};
        operations[IR_add]->lower(lowering, &add, operations[IR_add]);
    }
    struct xinsn *step = lower_emit(lowering, op, handler);
    step->a = far ? LOWER_SCRATCH_SLOT : step->a;
    step->mem.offset = far ? 0 : (int32_t)op->imm;
    step->mem.aux = op->aux;
    step->mem.c = lower_slot(lowering, op->c);
    return step;
}

static void lower_operations(struct engine_cpu *self, struct lowering *lowering,
                             const struct ir_block *ir)
{
    unsigned insns = 0;
    for (unsigned i = 0; i < ir->op_count; i++) {
        const struct ir_op *op = &ir->ops[i];
        self->steps[i] = (uint16_t)lowering->count;
        if (op->opcode == IR_insn) {
            lowering->insn = (uint16_t)insns;
            self->insns[insns++] =
                (struct block_insn){(uint16_t)op->imm, (uint16_t)lowering->count};
            continue;
        }
        const struct interp_operation *operation = operations[op->opcode];
        operation->lower(lowering, op, operation);
    }
    self->steps[ir->op_count] = (uint16_t)lowering->count;
    self->insns[insns] =
        (struct block_insn){(uint16_t)(ir->start + ir->length), (uint16_t)lowering->count};
}

struct block *lower_block(struct engine_cpu *self, const struct ir_block *ir)
{
    struct lowering lowering = {
        .isa = self->engine->isa,
        .code = self->code,
        .capacity = sizeof(self->code) / sizeof(self->code[0]),
        .exits_at = -1,
        .exit_target = {0, (uint64_t)ir->start + ir->length},
    };
    lower_operations(self, &lowering, ir);
    size_t code_bytes = lowering.count * sizeof(struct xinsn);
    size_t insn_bytes = (ir->insn_count + 1u) * sizeof(struct block_insn);
    size_t bytes = sizeof(struct block) + code_bytes + insn_bytes;
    struct block *block = lowering.overflow ? NULL : calloc(1, bytes);
    if (!block) {
        return NULL;
    }
    block->mode = ir->mode;
    block->start = ir->start;
    block->length = ir->length;
    block->insn_count = ir->insn_count;
    block->code_count = (uint16_t)lowering.count;
    block->straddles = ir->straddles;
    block->terminator = ir->ops[ir->op_count - 1].opcode;
    block->bytes = (uint32_t)bytes;
    memcpy(block->code, self->code, code_bytes);
    memcpy(&block->code[block->code_count], self->insns, insn_bytes);
    for (unsigned i = 0; i < 2; i++) {
        block->exits[i].target = (int64_t)lowering.exit_target[i];
        block->exits[i].number = i;
    }
    if (lowering.exits_at >= 0) {
        block->code[lowering.exits_at].exits = block->exits;
    }
    return block;
}

const struct xinsn *lower_rest_of_insn(struct engine_cpu *self, const struct xinsn *ip)
{
    const struct block *block = self->cpu->block;
    unsigned end = block_insns(block)[ip->insn + 1].code;
    if (ip->insn + 1u == block->insn_count) {
        return ip + 1; /* the terminator follows, and its links were cleared */
    }
    unsigned first = (unsigned)(ip + 1 - block->code);
    memcpy(self->rest, ip + 1, (end - first) * sizeof(*ip));
    self->rest[end - first] = (struct xinsn){.handler = interp_leave, .insn = ip->insn};
    return self->rest;
}
