/* The instruction table and the loop that turns guest bytes into a block of IR. */
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/helpers.h"
#include "libshared/isa/riscv64/registers.h"

#define PAGE_SIZE 4096u

#define SINGLE    (IR_FP_F32 | IR_FP_BOX)
#define AMO(kind) (IR_AMO_##kind << IR_MEM_AMO_SHIFT)

static const struct riscv64_instruction instructions[] = {
#define MAJOR(opcode)
#define INSTRUCTION(name, mask, match, operands, use, emitter, operation, auxiliary)               \
    {name, mask, match, OPERANDS_##operands, use, riscv64_emit_##emitter, operation, auxiliary},
#include "libshared/isa/riscv64/instructions.def"
#undef MAJOR
#undef INSTRUCTION
};

/* The index of each major opcode's first row. MAJOR takes no number of its own: it names the next
 * row's and steps back. */
enum {
#define PASTE(a, b)      a##b
#define ROW_NAME(line)   PASTE(ROW_, line)
#define MAJOR(opcode)    FIRST_##opcode, BEFORE_##opcode = FIRST_##opcode - 1,
#define INSTRUCTION(...) ROW_NAME(__COUNTER__),
#include "libshared/isa/riscv64/instructions.def"
#undef MAJOR
#undef INSTRUCTION
    INSTRUCTION_COUNT
};
_Static_assert(INSTRUCTION_COUNT == sizeof(instructions) / sizeof(instructions[0]),
               "the index counts the rows");

static const uint16_t major_first[] = {
#define MAJOR(opcode) FIRST_##opcode,
#define INSTRUCTION(...)
#include "libshared/isa/riscv64/instructions.def"
#undef MAJOR
#undef INSTRUCTION
    INSTRUCTION_COUNT,
};
_Static_assert(sizeof(major_first) == 33 * sizeof(uint16_t), "all 32 major opcodes are listed");

const struct riscv64_instruction *riscv64_find(uint32_t word)
{
    unsigned major = word >> 2 & 31;
    if ((word & 3) != 3) {
        return NULL;
    }
    for (unsigned i = major_first[major]; i < major_first[major + 1]; i++) {
        if ((word & instructions[i].mask) == instructions[i].match) {
            return &instructions[i];
        }
    }
    return NULL;
}

/* --- fetch ---------------------------------------------------------------------------------- */
static uint32_t read_half(const uint8_t *bytes)
{
    return (uint32_t)(bytes[0] | bytes[1] << 8);
}

unsigned riscv64_fetch(const struct isa_code *code, unsigned offset, uint32_t *raw)
{
    uint32_t low = read_half(code->page + offset);
    if ((low & 3) != 3) {
        *raw = low;
        return 2;
    }
    if (offset + 4 <= PAGE_SIZE) {
        *raw = low | read_half(code->page + offset + 2) << 16;
        return 4;
    }
    if (!code->next_page) {
        return 0;
    }
    *raw = low | read_half(code->next_page) << 16;
    return 4;
}

/* --- one instruction ------------------------------------------------------------------------ */

/* Look at the floating-point state. False: the instruction is illegal in this block mode. */
static bool prepare_float(struct riscv64_translation *t, unsigned use)
{
    uint32_t mode = t->code->mode;
    unsigned state = mode & BLOCK_MODE_FS;
    if (state == BLOCK_MODE_FS_OFF) {
        return false;
    }
    if (use == FLOAT_ROUND) {
        unsigned round = field_round(t->word);
        if (round == 7) {
            round = mode >> BLOCK_MODE_FRM_SHIFT & 7;
        }
        if (round > IR_ROUND_RMM) {
            return false;
        }
        t->round = (uint8_t)round;
    }
    if (use != FLOAT_READ && state != BLOCK_MODE_FS_DIRTY) {
        riscv64_emit_float_dirty(t);
        t->leave = true;
    }
    return true;
}

static void translate_instruction(struct riscv64_translation *t)
{
    const struct riscv64_instruction *instruction = riscv64_find(t->word);
    t->round = 0;
    t->leave = false;
    if (!instruction ||
        (instruction->float_use != NO_FLOAT && !prepare_float(t, instruction->float_use))) {
        riscv64_emit_illegal(t);
        return;
    }
    instruction->emit(t, instruction);
    if (t->leave && !t->ended) {
        riscv64_emit_exit(t);
    }
}

/* --- a block -------------------------------------------------------------------------------- */
static void end_with_jump(struct riscv64_translation *t, unsigned offset)
{
    ir_emit(&t->builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, offset, 0);
    t->ended = true;
}

enum isa_decode_result riscv64_decode(struct ir_block *block, const struct isa_code *code)
{
    struct riscv64_translation t = {.code = code};
    unsigned offset = code->start;
    unsigned count = 0;

    ir_builder_begin(&t.builder, block, code->mode, code->start);
    while (!t.ended) {
        uint32_t raw;
        unsigned length;
        if (count == code->insn_limit || offset >= PAGE_SIZE) {
            end_with_jump(&t, offset);
            break;
        }
        length = riscv64_fetch(code, offset, &raw);
        if (length == 0 && count == 0) {
            return ISA_NEEDS_NEXT_PAGE;
        }
        /* What crosses into the next page gets a block of its own. */
        if (length == 0 || (count > 0 && offset + length > PAGE_SIZE) ||
            !ir_builder_insn(&t.builder, (uint16_t)offset, (uint16_t)length)) {
            end_with_jump(&t, offset);
            break;
        }
        t.raw = raw;
        t.word = length == 2 ? riscv64_expand((uint16_t)raw) : raw;
        t.offset = (uint16_t)offset;
        t.next = (uint16_t)(offset + length);
        translate_instruction(&t);
        if (t.builder.overflow) {
            ir_builder_rewind(&t.builder);
            t.ended = false;
            end_with_jump(&t, offset);
            break;
        }
        count++;
        offset += length;
        if (offset > PAGE_SIZE && !t.ended) {
            end_with_jump(&t, offset);
        }
    }
    return ISA_DECODED;
}
