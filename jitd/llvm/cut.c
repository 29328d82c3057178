/*
 * Blocks that overlap. vcpud's blocks begin wherever a jump led to and go on to the next jump, so
 * the body of a loop is also the end of what comes before it, and an instruction can be in many.
 * Each is compiled once: a block ends where another one begins that is reached by itself. That
 * makes less code, and gives LLVM loops and branches in the form that it knows.
 */
#include "jitd/llvm/code.h"

/* The operation that marks where the instruction at the offset begins, 0: none but the first. */
static unsigned find_insn(const struct ir_block *ir, unsigned offset)
{
    for (unsigned i = 1; i < ir->op_count; i++) {
        if (ir->ops[i].opcode == IR_insn && ir->ops[i].imm == offset) {
            return i;
        }
    }
    return 0;
}

/* End the block at the first instruction that control is known to come to by another way, and go on
 * with the block that begins there. Returns that one, or the block itself. */
static unsigned cut_block(struct region_code *code, unsigned index)
{
    const struct region_block *blocks = code->region->blocks;
    struct ir_block *ir = &code->blocks[index].ir;
    unsigned next = index, first = 0;
    for (unsigned i = 0; i < code->region->block_count; i++) {
        if (code->blocks[i].reached && blocks[i].page == blocks[index].page &&
            blocks[i].start > ir->start && blocks[i].start < ir->start + ir->length) {
            unsigned op = find_insn(ir, blocks[i].start);
            if (op && (!first || op < first)) {
                first = op;
                next = i;
            }
        }
    }
    if (first) {
        ir->insn_count = 0;
        for (unsigned i = 0; i < first; i++) {
            ir->insn_count += ir->ops[i].opcode == IR_insn;
        }
        ir->length = (uint16_t)(blocks[next].start - ir->start);
        ir->op_count = (uint16_t)(first + 1);
        ir->ops[first] = (struct ir_op){.opcode = IR_jump,
                                        .d = IR_NONE,
                                        .a = IR_NONE,
                                        .b = IR_NONE,
                                        .c = IR_NONE,
                                        .imm = blocks[next].start};
    }
    return next;
}

bool code_cut(struct region_code *code)
{
    unsigned count = code->region->block_count;
    uint16_t next[REGION_BLOCKS_MAX];
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        next[i] = (uint16_t)cut_block(code, i);
        any |= next[i] != i;
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned end = i;
        while (next[end] != end) {
            end = next[end]; /* begins behind it in the page */
        }
        code->ends[i] = (uint16_t)end;
    }
    return any;
}
