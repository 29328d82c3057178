/*
 * The builder never fails: what does not fit is written to a slot that is overwritten later and
 * sets `overflow`, so that decoders need no error path in each line. The last operation slot is
 * kept for the terminator: after a rewind there is always room to end the block.
 */
#include "libshared/ir/opcode.h"

#define PAGE_SIZE 4096u

void ir_builder_begin(struct ir_builder *builder, struct ir_block *block, uint32_t mode,
                      uint16_t start)
{
    *builder = (struct ir_builder){.block = block};
    block->mode = mode;
    block->start = start;
    block->length = 0;
    block->insn_count = 0;
    block->op_count = 0;
    block->temp_count = 0;
    block->straddles = false;
}

bool ir_builder_insn(struct ir_builder *builder, uint16_t page_offset, uint16_t length)
{
    struct ir_block *block = builder->block;
    if (builder->overflow || block->insn_count == IR_INSNS_MAX ||
        block->op_count + 2 > IR_OPS_MAX - 1) {
        return false;
    }
    builder->mark_ops = block->op_count;
    builder->mark_temps = block->temp_count;
    ir_emit(builder, IR_insn, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, page_offset, length);
    block->insn_count++;
    block->length += length;
    block->straddles = page_offset + (uint32_t)length > PAGE_SIZE;
    return true;
}

void ir_builder_rewind(struct ir_builder *builder)
{
    struct ir_block *block = builder->block;
    if (builder->mark_ops < block->op_count && block->ops[builder->mark_ops].opcode == IR_insn) {
        block->length -= (uint16_t)block->ops[builder->mark_ops].imm2;
        block->insn_count--;
        block->straddles = false;
    }
    block->op_count = builder->mark_ops;
    block->temp_count = builder->mark_temps;
    builder->overflow = false;
}

ir_value ir_temp(struct ir_builder *builder, enum ir_type type)
{
    struct ir_block *block = builder->block;
    if (block->temp_count == IR_TEMPS_MAX) {
        builder->overflow = true;
        return IR_TEMP_BASE;
    }
    block->temp_types[block->temp_count] = (uint8_t)type;
    return (ir_value)(IR_TEMP_BASE + block->temp_count++);
}

struct ir_op *ir_emit(struct ir_builder *builder, enum ir_opcode opcode, unsigned aux, ir_value d,
                      ir_value a, ir_value b, ir_value c, int64_t imm, int32_t imm2)
{
    struct ir_block *block = builder->block;
    unsigned limit = ir_is_terminator(opcode) ? IR_OPS_MAX : IR_OPS_MAX - 1;
    struct ir_op *op = &block->ops[IR_OPS_MAX - 1];
    if (block->op_count < limit) {
        op = &block->ops[block->op_count++];
    } else {
        builder->overflow = true;
    }
    *op = (struct ir_op){.opcode = (uint16_t)opcode,
                         .aux = (uint16_t)aux,
                         .d = d,
                         .a = a,
                         .b = b,
                         .c = c,
                         .imm2 = imm2,
                         .imm = imm};
    return op;
}
