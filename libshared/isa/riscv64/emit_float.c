/* Emitters: floating-point computation. Rounding is resolved before they run (decode.c). */
#include "libshared/isa/riscv64/decode.h"

static unsigned float_aux(const struct riscv64_translation *t,
                          const struct riscv64_instruction *instruction)
{
    return instruction->aux | t->round;
}

void riscv64_emit_float_binary(struct riscv64_translation *t,
                               const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, float_aux(t, instruction),
            float_register(field_rd(t->word)), float_register(field_rs1(t->word)),
            float_register(field_rs2(t->word)), IR_NONE, 0, 0);
}

void riscv64_emit_float_unary(struct riscv64_translation *t,
                              const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, float_aux(t, instruction),
            float_register(field_rd(t->word)), float_register(field_rs1(t->word)), IR_NONE, IR_NONE,
            0, 0);
}

void riscv64_emit_float_fused(struct riscv64_translation *t,
                              const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, float_aux(t, instruction),
            float_register(field_rd(t->word)), float_register(field_rs1(t->word)),
            float_register(field_rs2(t->word)), float_register(field_rs3(t->word)), 0, 0);
}

/* FSGNJ.D, which is FMV.D when both sources are one register. (FMV.S is no whole move: it makes an
 * unboxed value canonical.) */
void riscv64_emit_float_move(struct riscv64_translation *t,
                             const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word);
    if (rs1 != field_rs2(t->word)) {
        riscv64_emit_float_binary(t, instruction);
    } else if (rd != rs1) {
        ir_emit(&t->builder, IR_fmov, 0, float_register(rd), float_register(rs1), IR_NONE, IR_NONE,
                0, 0);
    }
}

void riscv64_emit_float_compare(struct riscv64_translation *t,
                                const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, float_aux(t, instruction),
            result_register(t, field_rd(t->word)), float_register(field_rs1(t->word)),
            float_register(field_rs2(t->word)), IR_NONE, 0, 0);
}

void riscv64_emit_float_to_integer(struct riscv64_translation *t,
                                   const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, float_aux(t, instruction),
            result_register(t, field_rd(t->word)), float_register(field_rs1(t->word)), IR_NONE,
            IR_NONE, 0, 0);
}

void riscv64_emit_float_from_integer(struct riscv64_translation *t,
                                     const struct riscv64_instruction *instruction)
{
    ir_emit(&t->builder, instruction->opcode, float_aux(t, instruction),
            float_register(field_rd(t->word)), integer_register(field_rs1(t->word)), IR_NONE,
            IR_NONE, 0, 0);
}

/* FLI (volume I, "Zfa", table of immediates): as f64 bits. Entry 1 is the smallest normal number
 * of the format, so it is the only one that differs between formats by more than encoding. */
static const uint64_t constants64[32] = {
    UINT64_C(0xbff0000000000000), /* -1.0 */
    UINT64_C(0x0010000000000000), /* smallest normal */
    UINT64_C(0x3ef0000000000000), /* 2^-16 */
    UINT64_C(0x3f00000000000000), /* 2^-15 */
    UINT64_C(0x3f70000000000000), /* 2^-8 */
    UINT64_C(0x3f80000000000000), /* 2^-7 */
    UINT64_C(0x3fb0000000000000), /* 0.0625 */
    UINT64_C(0x3fc0000000000000), /* 0.125 */
    UINT64_C(0x3fd0000000000000), /* 0.25 */
    UINT64_C(0x3fd4000000000000), /* 0.3125 */
    UINT64_C(0x3fd8000000000000), /* 0.375 */
    UINT64_C(0x3fdc000000000000), /* 0.4375 */
    UINT64_C(0x3fe0000000000000), /* 0.5 */
    UINT64_C(0x3fe4000000000000), /* 0.625 */
    UINT64_C(0x3fe8000000000000), /* 0.75 */
    UINT64_C(0x3fec000000000000), /* 0.875 */
    UINT64_C(0x3ff0000000000000), /* 1.0 */
    UINT64_C(0x3ff4000000000000), /* 1.25 */
    UINT64_C(0x3ff8000000000000), /* 1.5 */
    UINT64_C(0x3ffc000000000000), /* 1.75 */
    UINT64_C(0x4000000000000000), /* 2.0 */
    UINT64_C(0x4004000000000000), /* 2.5 */
    UINT64_C(0x4008000000000000), /* 3.0 */
    UINT64_C(0x4010000000000000), /* 4.0 */
    UINT64_C(0x4020000000000000), /* 8.0 */
    UINT64_C(0x4030000000000000), /* 16.0 */
    UINT64_C(0x4060000000000000), /* 2^7 */
    UINT64_C(0x4070000000000000), /* 2^8 */
    UINT64_C(0x40e0000000000000), /* 2^15 */
    UINT64_C(0x40f0000000000000), /* 2^16 */
    UINT64_C(0x7ff0000000000000), /* infinity */
    UINT64_C(0x7ff8000000000000), /* canonical NaN */
};

/* The same value in single precision, boxed. All but entry 1 are exact. */
static uint64_t constant32(unsigned index)
{
    uint64_t bits = constants64[index];
    uint32_t sign = (uint32_t)(bits >> 32) & 0x80000000u;
    uint32_t fraction = (uint32_t)(bits >> 29) & 0x7fffffu;
    uint32_t exponent = bits >> 52 & 0x7ff;
    if (index == 1) {
        exponent = 1;
    } else if (exponent == 0x7ff) {
        exponent = 0xff;
    } else {
        exponent = exponent - 1023 + 127;
    }
    return UINT64_C(0xffffffff00000000) | sign | exponent << 23 | fraction;
}

void riscv64_emit_float_constant(struct riscv64_translation *t,
                                 const struct riscv64_instruction *instruction)
{
    unsigned index = field_rs1(t->word);
    uint64_t bits = instruction->aux & IR_FP_F32 ? constant32(index) : constants64[index];
    ir_value temp = ir_temp(&t->builder, IR_TYPE_I64);
    ir_emit(&t->builder, IR_mov, 0, temp, IR_NONE, IR_IMMEDIATE, IR_NONE, (int64_t)bits, 0);
    /* The bits are those of the whole slot, box included. */
    ir_emit(&t->builder, instruction->opcode, 0, float_register(field_rd(t->word)), temp, IR_NONE,
            IR_NONE, 0, 0);
}
