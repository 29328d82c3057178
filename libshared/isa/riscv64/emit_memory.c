/* Emitters: loads, stores, atomics, fences, cache blocks. */
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/helpers.h"
#include "libshared/isa/riscv64/riscv64.h"

void riscv64_emit_load(struct riscv64_translation *t, const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, instruction->aux,
            result_register(t, field_rd(t->word)), integer_register(field_rs1(t->word)), IR_NONE,
            IR_NONE, field_i(t->word), 0);
}

void riscv64_emit_store(struct riscv64_translation *t,
                        const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, instruction->aux, IR_NONE,
            integer_register(field_rs1(t->word)), integer_register(field_rs2(t->word)), IR_NONE,
            field_s(t->word), 0);
}

void riscv64_emit_float_load(struct riscv64_translation *t,
                             const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, instruction->aux, float_register(field_rd(t->word)),
            integer_register(field_rs1(t->word)), IR_NONE, IR_NONE, field_i(t->word), 0);
}

void riscv64_emit_float_store(struct riscv64_translation *t,
                              const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, instruction->aux, IR_NONE,
            integer_register(field_rs1(t->word)), float_register(field_rs2(t->word)), IR_NONE,
            field_s(t->word), 0);
}

/* --- ordering ------------------------------------------------------------------------------- */
static void emit_fence(struct riscv64_translation *t, unsigned sets)
{
    ir_emit(&t->builder, IR_fence, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, sets, 0);
}

void riscv64_emit_fence(struct riscv64_translation *t,
                        const struct riscv64_instruction *instruction)
{
    unsigned sets = t->word >> 20 & 0xff;
    (void)instruction;
    /* An empty predecessor or successor set is a hint that orders nothing. */
    if ((sets & 0x0f) != 0 && (sets & 0xf0) != 0) {
        emit_fence(t, sets);
    }
}

/* FENCE.TSO orders everything but a store before a load: reads before all, writes before writes. */
void riscv64_emit_fence_tso(struct riscv64_translation *t,
                            const struct riscv64_instruction *instruction)
{
    (void)instruction;
    emit_fence(t, 0x23);
    emit_fence(t, 0x11);
}

static unsigned ordering(uint32_t word)
{
    return (word >> 26 & 1 ? IR_MEM_ACQUIRE : 0) | (word >> 25 & 1 ? IR_MEM_RELEASE : 0);
}

/* --- atomics -------------------------------------------------------------------------------- */
void riscv64_emit_amo(struct riscv64_translation *t, const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, instruction->aux | IR_MEM_ALIGN | ordering(t->word),
            result_register(t, field_rd(t->word)), integer_register(field_rs1(t->word)),
            integer_register(field_rs2(t->word)), IR_NONE, 0, 0);
}

enum sequence_step { STEP_PLAIN, STEP_STORE_CONDITIONAL, STEP_SPOILS };

/* How one instruction between LR and SC bears on the sequence. */
static enum sequence_step classify(uint32_t word)
{
    switch (word & 0x7f) {
    case 0x2f: /* AMO: SC ends the sequence, the others access memory */
        return word >> 27 == 3 ? STEP_STORE_CONDITIONAL : STEP_SPOILS;
    case 0x63: /* BRANCH: forward ones leave the sequence */
        return field_b(word) > 0 ? STEP_PLAIN : STEP_SPOILS;
    case 0x0f: /* MISC-MEM: plain fences are harmless */
        return (word >> 12 & 7) == 0 ? STEP_PLAIN : STEP_SPOILS;
    case 0x13: /* integer computation */
    case 0x17:
    case 0x1b:
    case 0x33:
    case 0x37:
    case 0x3b:
        return STEP_PLAIN;
    default:
        return STEP_SPOILS;
    }
}

/* Whether only plain instructions stand between this LR and its SC. The bound is that of the
 * architecture's constrained loops (volume I, "Eventual Success of Store-Conditional"). */
static bool is_constrained(const struct riscv64_translation *t)
{
    unsigned offset = t->next;
    for (unsigned i = 0; i < 16 && offset + 4 <= MEMORY_PAGE_SIZE; i++) {
        uint32_t raw;
        unsigned length = riscv64_fetch(t->code, offset, &raw);
        switch (classify(length == 2 ? riscv64_expand((uint16_t)raw) : raw)) {
        case STEP_STORE_CONDITIONAL:
            return true;
        case STEP_SPOILS:
            return false;
        case STEP_PLAIN:
            break;
        }
        offset += length;
    }
    return false;
}

void riscv64_emit_load_reserved(struct riscv64_translation *t,
                                const struct riscv64_instruction *instruction)
{
    unsigned constrained = is_constrained(t) ? IR_MEM_CONSTRAINED : 0;
    ir_emit(&t->builder, instruction->opcode,
            instruction->aux | IR_MEM_ALIGN | constrained | ordering(t->word),
            result_register(t, field_rd(t->word)), integer_register(field_rs1(t->word)), IR_NONE,
            IR_NONE, 0, 0);
}

void riscv64_emit_store_conditional(struct riscv64_translation *t,
                                    const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, instruction->aux | IR_MEM_ALIGN | ordering(t->word),
            result_register(t, field_rd(t->word)), integer_register(field_rs1(t->word)),
            integer_register(field_rs2(t->word)), IR_NONE, 0, 0);
}

/* --- cache blocks --------------------------------------------------------------------------- */
void riscv64_emit_cache_block_manage(struct riscv64_translation *t,
                                     const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, IR_helper, instruction->opcode, IR_NONE,
            integer_register(field_rs1(t->word)), IR_NONE, IR_NONE, t->raw, 0);
}

/* The block is naturally aligned, so the first store faults or none does. */
void riscv64_emit_cache_block_zero(struct riscv64_translation *t,
                                   const struct riscv64_instruction *instruction)
{
    ir_value block = ir_temp(&t->builder, IR_TYPE_I64);
    ir_emit(&t->builder, IR_helper, instruction->opcode, IR_NONE, IR_NONE, IR_NONE, IR_NONE, t->raw,
            0);
    ir_emit(&t->builder, IR_and, 0, block, integer_register(field_rs1(t->word)), IR_IMMEDIATE,
            IR_NONE, -(int64_t)RISCV64_CACHE_BLOCK, 0);
    for (unsigned offset = 0; offset < RISCV64_CACHE_BLOCK; offset += 8) {
        ir_emit(&t->builder, IR_store, 3, IR_NONE, block, integer_register(0), IR_NONE, offset, 0);
    }
}
