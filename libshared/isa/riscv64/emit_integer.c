/* Emitters: integer computation and control transfer. */
#include "libshared/isa/riscv64/decode.h"

static void emit_move(struct riscv64_translation *t, unsigned rd, unsigned rs)
{
    if (rd != 0 && rd != rs) {
        ir_emit(&t->builder, IR_mov, 0, integer_register(rd), IR_NONE,
                rs ? integer_register(rs) : IR_IMMEDIATE, IR_NONE, 0, 0);
    }
}

static void emit_constant(struct riscv64_translation *t, unsigned rd, int64_t value)
{
    if (rd != 0) {
        ir_emit(&t->builder, IR_mov, 0, integer_register(rd), IR_NONE, IR_IMMEDIATE, IR_NONE, value,
                0);
    }
}

static void emit_unary_operation(struct riscv64_translation *t, unsigned opcode, unsigned aux,
                                 unsigned rd, unsigned rs)
{
    if (rd != 0) {
        ir_emit(&t->builder, opcode, aux, integer_register(rd), integer_register(rs), IR_NONE,
                IR_NONE, 0, 0);
    }
}

/* x op 0 = x */
static bool zero_is_right_identity(unsigned opcode)
{
    switch (opcode) {
    case IR_add:
    case IR_sub:
    case IR_or:
    case IR_xor:
    case IR_andn:
    case IR_shl:
    case IR_shr:
    case IR_sar:
    case IR_rotl:
    case IR_rotr:
        return true;
    default:
        return false;
    }
}

/* The same after taking the low 32 bits. */
static bool zero_is_right_identity32(unsigned opcode)
{
    switch (opcode) {
    case IR_add32:
    case IR_sub32:
    case IR_shl32:
    case IR_shr32:
    case IR_sar32:
    case IR_rotl32:
    case IR_rotr32:
        return true;
    default:
        return false;
    }
}

/* 0 op x = x */
static bool zero_is_left_identity(unsigned opcode)
{
    return opcode == IR_add || opcode == IR_or || opcode == IR_xor;
}

void riscv64_emit_binary(struct riscv64_translation *t,
                         const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word), rs2 = field_rs2(t->word);
    unsigned opcode = instruction->opcode;
    if (rd == 0) {
        return;
    }
    if (rs2 == 0 && zero_is_right_identity(opcode)) {
        emit_move(t, rd, rs1);
    } else if (rs1 == 0 && zero_is_left_identity(opcode)) {
        emit_move(t, rd, rs2);
    } else if (rs2 == 0 && zero_is_right_identity32(opcode)) {
        emit_unary_operation(t, IR_sext32, 0, rd, rs1);
    } else if (rs1 == 0 && opcode == IR_add32) {
        emit_unary_operation(t, IR_sext32, 0, rd, rs2);
    } else {
        ir_emit(&t->builder, opcode, instruction->aux, integer_register(rd), integer_register(rs1),
                rs2 ? integer_register(rs2) : IR_IMMEDIATE, IR_NONE, 0, 0);
    }
}

static void binary_with_constant(struct riscv64_translation *t,
                                 const struct riscv64_instruction *instruction, int64_t value)
{
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word);
    unsigned opcode = instruction->opcode;
    if (rd == 0) {
        return;
    }
    if (value == 0 && zero_is_right_identity(opcode)) {
        emit_move(t, rd, rs1);
    } else if (value == 0 && zero_is_right_identity32(opcode)) {
        emit_unary_operation(t, IR_sext32, 0, rd, rs1);
    } else if (rs1 == 0 && (zero_is_left_identity(opcode) || opcode == IR_add32)) {
        emit_constant(t, rd, value); /* 12 bits: the 32-bit sum is the same number */
    } else {
        ir_emit(&t->builder, opcode, instruction->aux, integer_register(rd), integer_register(rs1),
                IR_IMMEDIATE, IR_NONE, value, 0);
    }
}

/* Whether the instruction before put a known address into `rs`. */
static bool known_address(const struct riscv64_translation *t, unsigned rs)
{
    return rs != 0 && rs == t->known_register && t->known_until == t->offset;
}

void riscv64_emit_binary_immediate(struct riscv64_translation *t,
                                   const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    int64_t value = field_i(t->word);
    if (instruction->opcode == IR_add && rd != 0 && known_address(t, field_rs1(t->word))) {
        ir_emit(&t->builder, IR_pcrel, 0, integer_register(rd), IR_NONE, IR_NONE, IR_NONE,
                t->known_offset + value, 0);
        return;
    }
    binary_with_constant(t, instruction, value);
}

void riscv64_emit_shift_immediate(struct riscv64_translation *t,
                                  const struct riscv64_instruction *instruction)
{
    binary_with_constant(t, instruction, field_shift(t->word));
}

void riscv64_emit_unary(struct riscv64_translation *t,
                        const struct riscv64_instruction *instruction)
{
    emit_unary_operation(t, instruction->opcode, instruction->aux, field_rd(t->word),
                         field_rs1(t->word));
}

void riscv64_emit_nothing(struct riscv64_translation *t,
                          const struct riscv64_instruction *instruction)
{
    (void)t;
    (void)instruction;
}

/* --- comparisons ---------------------------------------------------------------------------- */
static void emit_set(struct riscv64_translation *t, unsigned condition, unsigned rd, unsigned rs1,
                     ir_value b, int64_t value)
{
    ir_emit(&t->builder, IR_setcc, condition, integer_register(rd), integer_register(rs1), b,
            IR_NONE, value, 0);
}

void riscv64_emit_set(struct riscv64_translation *t, const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word), rs2 = field_rs2(t->word);
    bool is_signed = instruction->aux == IR_LT;
    if (rd == 0) {
        return;
    }
    if (rs2 == 0) {
        if (is_signed) {
            emit_set(t, IR_LT, rd, rs1, IR_IMMEDIATE, 0);
        } else {
            emit_constant(t, rd, 0);
        }
    } else if (rs1 == 0) {
        emit_set(t, is_signed ? IR_GT : IR_NE, rd, rs2, IR_IMMEDIATE, 0);
    } else {
        emit_set(t, instruction->aux, rd, rs1, integer_register(rs2), 0);
    }
}

void riscv64_emit_set_immediate(struct riscv64_translation *t,
                                const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    int64_t value = field_i(t->word);
    if (rd == 0) {
        return;
    }
    if (instruction->aux == IR_LTU && value == 1) {
        emit_set(t, IR_EQ, rd, field_rs1(t->word), IR_IMMEDIATE, 0);
    } else {
        emit_set(t, instruction->aux, rd, field_rs1(t->word), IR_IMMEDIATE, value);
    }
}

/* --- addresses and shifted sums ------------------------------------------------------------- */
void riscv64_emit_upper_immediate(struct riscv64_translation *t,
                                  const struct riscv64_instruction *instruction)
{
    (void)instruction;
    emit_constant(t, field_rd(t->word), field_u(t->word));
}

void riscv64_emit_pc_relative(struct riscv64_translation *t,
                              const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    (void)instruction;
    if (rd == 0) {
        return;
    }
    t->known_register = (uint8_t)rd;
    t->known_until = t->next;
    t->known_offset = t->offset + field_u(t->word);
    ir_emit(&t->builder, IR_pcrel, 0, integer_register(rd), IR_NONE, IR_NONE, IR_NONE,
            t->known_offset, 0);
}

void riscv64_emit_shift_add(struct riscv64_translation *t,
                            const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word), rs2 = field_rs2(t->word);
    if (rd == 0) {
        return;
    }
    if (rs2 == 0 && instruction->opcode == IR_shladduw && instruction->aux == 0) {
        emit_unary_operation(t, IR_zext32, 0, rd, rs1);
        return;
    }
    ir_emit(&t->builder, instruction->opcode, 0, integer_register(rd), integer_register(rs1),
            integer_register(rs2), IR_NONE, instruction->aux, 0);
}

void riscv64_emit_shift_unsigned_word(struct riscv64_translation *t,
                                      const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    if (rd != 0) {
        ir_emit(&t->builder, instruction->opcode, 0, integer_register(rd),
                integer_register(field_rs1(t->word)), integer_register(0), IR_NONE,
                field_shift(t->word), 0);
    }
}

/* --- single bits ---------------------------------------------------------------------------- */
void riscv64_emit_single_bit(struct riscv64_translation *t,
                             const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    ir_value one, bit;
    if (rd == 0) {
        return;
    }
    one = ir_temp(&t->builder, IR_TYPE_I64);
    bit = ir_temp(&t->builder, IR_TYPE_I64);
    ir_emit(&t->builder, IR_mov, 0, one, IR_NONE, IR_IMMEDIATE, IR_NONE, 1, 0);
    ir_emit(&t->builder, IR_shl, 0, bit, one, integer_register(field_rs2(t->word)), IR_NONE, 0, 0);
    ir_emit(&t->builder, instruction->opcode, 0, integer_register(rd),
            integer_register(field_rs1(t->word)), bit, IR_NONE, 0, 0);
}

/* aux: complement the mask. */
void riscv64_emit_single_bit_immediate(struct riscv64_translation *t,
                                       const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    uint64_t mask = UINT64_C(1) << field_shift(t->word);
    if (rd != 0) {
        ir_emit(&t->builder, instruction->opcode, 0, integer_register(rd),
                integer_register(field_rs1(t->word)), IR_IMMEDIATE, IR_NONE,
                (int64_t)(instruction->aux ? ~mask : mask), 0);
    }
}

static void extract_bit(struct riscv64_translation *t, ir_value position, int64_t constant)
{
    unsigned rd = field_rd(t->word);
    ir_value shifted;
    if (rd == 0) {
        return;
    }
    shifted = ir_temp(&t->builder, IR_TYPE_I64);
    ir_emit(&t->builder, IR_shr, 0, shifted, integer_register(field_rs1(t->word)), position,
            IR_NONE, constant, 0);
    ir_emit(&t->builder, IR_and, 0, integer_register(rd), shifted, IR_IMMEDIATE, IR_NONE, 1, 0);
}

void riscv64_emit_extract_bit(struct riscv64_translation *t,
                              const struct riscv64_instruction *instruction)
{
    (void)instruction;
    extract_bit(t, integer_register(field_rs2(t->word)), 0);
}

void riscv64_emit_extract_bit_immediate(struct riscv64_translation *t,
                                        const struct riscv64_instruction *instruction)
{
    (void)instruction;
    extract_bit(t, IR_IMMEDIATE, field_shift(t->word));
}

/* CZERO: aux 0 clears rd when rs2 is zero, 1 when it is not. */
void riscv64_emit_conditional_zero(struct riscv64_translation *t,
                                   const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word);
    ir_value condition = integer_register(field_rs2(t->word));
    if (rd == 0) {
        return;
    }
    if (instruction->aux) {
        ir_emit(&t->builder, IR_select, 0, integer_register(rd), condition, IR_IMMEDIATE,
                integer_register(field_rs1(t->word)), 0, 0);
    } else {
        ir_emit(&t->builder, IR_select, 0, integer_register(rd), condition,
                integer_register(field_rs1(t->word)), integer_register(0), 0, 0);
    }
}

/* --- control transfer ----------------------------------------------------------------------- */

/* Registers that the calling convention uses for return addresses (volume I, "Unconditional
 * Jumps", table of return-address stack hints). */
static bool is_link(unsigned index)
{
    return index == 1 || index == 5;
}

static void emit_link(struct riscv64_translation *t, unsigned rd)
{
    if (rd != 0) {
        ir_emit(&t->builder, IR_pcrel, 0, integer_register(rd), IR_NONE, IR_NONE, IR_NONE, t->next,
                0);
    }
}

static void emit_direct(struct riscv64_translation *t, unsigned rd, int64_t target)
{
    emit_link(t, rd);
    if (is_link(rd)) {
        ir_emit(&t->builder, IR_call, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, target, t->next);
    } else {
        ir_emit(&t->builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE, target, 0);
    }
    t->ended = true;
}

void riscv64_emit_jump_and_link(struct riscv64_translation *t,
                                const struct riscv64_instruction *instruction)
{
    (void)instruction;
    emit_direct(t, field_rd(t->word), t->offset + field_j(t->word));
}

void riscv64_emit_jump_and_link_register(struct riscv64_translation *t,
                                         const struct riscv64_instruction *instruction)
{
    unsigned rd = field_rd(t->word), rs1 = field_rs1(t->word);
    int64_t displacement = field_i(t->word);
    enum ir_opcode opcode = IR_jump_ind;
    ir_value sum, target;
    (void)instruction;

    if (known_address(t, rs1)) {
        emit_direct(t, rd, (t->known_offset + displacement) & ~INT64_C(1));
        return;
    }
    /* With two different link registers the hint is "pop, then push": a coroutine switch. The depth
     * stays, so it counts as a plain jump. */
    if (is_link(rd) && (!is_link(rs1) || rd == rs1)) {
        opcode = IR_call_ind;
    } else if (is_link(rs1) && !is_link(rd)) {
        opcode = IR_ret;
    }
    sum = integer_register(rs1);
    if (displacement != 0) {
        sum = ir_temp(&t->builder, IR_TYPE_I64);
        ir_emit(&t->builder, IR_add, 0, sum, integer_register(rs1), IR_IMMEDIATE, IR_NONE,
                displacement, 0);
    }
    target = ir_temp(&t->builder, IR_TYPE_I64);
    ir_emit(&t->builder, IR_and, 0, target, sum, IR_IMMEDIATE, IR_NONE, -2, 0);
    emit_link(t, rd);
    ir_emit(&t->builder, opcode, 0, IR_NONE, target, IR_NONE, IR_NONE, 0,
            opcode == IR_call_ind ? t->next : 0);
    t->ended = true;
}

static unsigned swapped_condition(unsigned condition)
{
    switch (condition) {
    case IR_LT:
        return IR_GT;
    case IR_GE:
        return IR_LE;
    case IR_LTU:
        return IR_GTU;
    case IR_GEU:
        return IR_LEU;
    default:
        return condition;
    }
}

/* Whether a value compared with itself satisfies the condition. */
static bool holds_for_equal(unsigned condition)
{
    return condition == IR_EQ || condition == IR_GE || condition == IR_GEU;
}

void riscv64_emit_branch(struct riscv64_translation *t,
                         const struct riscv64_instruction *instruction)
{
    unsigned rs1 = field_rs1(t->word), rs2 = field_rs2(t->word);
    unsigned condition = instruction->aux;
    int32_t target = t->offset + (int32_t)field_b(t->word);

    if (rs1 == rs2) {
        ir_emit(&t->builder, IR_jump, 0, IR_NONE, IR_NONE, IR_NONE, IR_NONE,
                holds_for_equal(condition) ? target : t->next, 0);
    } else if (rs1 == 0) {
        ir_emit(&t->builder, IR_branch, swapped_condition(condition), IR_NONE,
                integer_register(rs2), IR_IMMEDIATE, IR_NONE, 0, target);
    } else {
        ir_emit(&t->builder, IR_branch, condition, IR_NONE, integer_register(rs1),
                rs2 ? integer_register(rs2) : IR_IMMEDIATE, IR_NONE, 0, target);
    }
    t->ended = true;
}
