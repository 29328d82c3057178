/*
 * 16-bit instructions ("C", volume I, chapter "C" Standard Extension), expanded to the 32-bit word
 * they stand for. One function an encoding row, chosen by quadrant and funct3.
 */
#include "libshared/isa/riscv64/decode.h"

#define RESERVED 0u /* not a valid word, so it traps */

enum major { /* bits 6 to 0 of the expansion */
             LOAD = 0x03,
             LOAD_FP = 0x07,
             OP_IMM = 0x13,
             OP_IMM_32 = 0x1b,
             STORE = 0x23,
             STORE_FP = 0x27,
             OP = 0x33,
             LUI = 0x37,
             OP_32 = 0x3b,
             BRANCH = 0x63,
             JALR = 0x67,
             JAL = 0x6f,
};

/* --- building 32-bit words ------------------------------------------------------------------ */
static uint32_t r_type(uint32_t major, uint32_t funct7, uint32_t funct3, uint32_t rd, uint32_t rs1,
                       uint32_t rs2)
{
    return funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | major;
}

static uint32_t i_type(uint32_t major, uint32_t funct3, uint32_t rd, uint32_t rs1, int32_t value)
{
    return (uint32_t)value << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | major;
}

static uint32_t s_type(uint32_t major, uint32_t funct3, uint32_t rs1, uint32_t rs2, uint32_t value)
{
    return (value >> 5) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (value & 31) << 7 | major;
}

static uint32_t b_type(uint32_t funct3, uint32_t rs1, int32_t value)
{
    uint32_t bits = (uint32_t)value;
    return (bits >> 12 & 1) << 31 | (bits >> 5 & 0x3f) << 25 | rs1 << 15 | funct3 << 12 |
           (bits >> 1 & 0xf) << 8 | (bits >> 11 & 1) << 7 | BRANCH;
}

static uint32_t j_type(uint32_t rd, int32_t value)
{
    uint32_t bits = (uint32_t)value;
    return (bits >> 20 & 1) << 31 | (bits >> 1 & 0x3ff) << 21 | (bits >> 11 & 1) << 20 |
           (bits >> 12 & 0xff) << 12 | rd << 7 | JAL;
}

/* --- fields of 16-bit words ----------------------------------------------------------------- */

/* Bits [high:low] of the half, placed at bit `to`. */
static uint32_t bits(uint32_t half, unsigned high, unsigned low, unsigned to)
{
    return (half >> low & ((1u << (high - low + 1)) - 1)) << to;
}

static int32_t sign_extend(uint32_t value, unsigned width)
{
    uint32_t sign = 1u << (width - 1);
    return (int32_t)((value ^ sign) - sign);
}

static uint32_t wide_rd(uint32_t half)
{
    return half >> 7 & 31;
}

static uint32_t wide_rs2(uint32_t half)
{
    return half >> 2 & 31;
}

static uint32_t short_high(uint32_t half) /* rs1' or rd' in bits 9 to 7 */
{
    return 8 + (half >> 7 & 7);
}

static uint32_t short_low(uint32_t half) /* rs2' or rd' in bits 4 to 2 */
{
    return 8 + (half >> 2 & 7);
}

static int32_t immediate6(uint32_t half)
{
    return sign_extend(bits(half, 12, 12, 5) | bits(half, 6, 2, 0), 6);
}

static uint32_t shift6(uint32_t half)
{
    return bits(half, 12, 12, 5) | bits(half, 6, 2, 0);
}

static uint32_t offset_word(uint32_t half)
{
    return bits(half, 12, 10, 3) | bits(half, 6, 6, 2) | bits(half, 5, 5, 6);
}

static uint32_t offset_double(uint32_t half)
{
    return bits(half, 12, 10, 3) | bits(half, 6, 5, 6);
}

static uint32_t stack_load_word(uint32_t half)
{
    return bits(half, 12, 12, 5) | bits(half, 6, 4, 2) | bits(half, 3, 2, 6);
}

static uint32_t stack_load_double(uint32_t half)
{
    return bits(half, 12, 12, 5) | bits(half, 6, 5, 3) | bits(half, 4, 2, 6);
}

static uint32_t stack_store_word(uint32_t half)
{
    return bits(half, 12, 9, 2) | bits(half, 8, 7, 6);
}

static uint32_t stack_store_double(uint32_t half)
{
    return bits(half, 12, 10, 3) | bits(half, 9, 7, 6);
}

/* --- quadrant 0 ----------------------------------------------------------------------------- */
static uint32_t add_to_sp(uint32_t half) /* C.ADDI4SPN */
{
    uint32_t value =
        bits(half, 12, 11, 4) | bits(half, 10, 7, 6) | bits(half, 6, 6, 2) | bits(half, 5, 5, 3);
    return value ? i_type(OP_IMM, 0, short_low(half), 2, (int32_t)value) : RESERVED;
}

static uint32_t load_float(uint32_t half) /* C.FLD */
{
    return i_type(LOAD_FP, 3, short_low(half), short_high(half), (int32_t)offset_double(half));
}

static uint32_t load_word(uint32_t half) /* C.LW */
{
    return i_type(LOAD, 2, short_low(half), short_high(half), (int32_t)offset_word(half));
}

static uint32_t load_double(uint32_t half) /* C.LD */
{
    return i_type(LOAD, 3, short_low(half), short_high(half), (int32_t)offset_double(half));
}

static uint32_t store_float(uint32_t half) /* C.FSD */
{
    return s_type(STORE_FP, 3, short_high(half), short_low(half), offset_double(half));
}

static uint32_t store_word(uint32_t half) /* C.SW */
{
    return s_type(STORE, 2, short_high(half), short_low(half), offset_word(half));
}

static uint32_t store_double(uint32_t half) /* C.SD */
{
    return s_type(STORE, 3, short_high(half), short_low(half), offset_double(half));
}

/* --- quadrant 1 ----------------------------------------------------------------------------- */
static uint32_t add_immediate(uint32_t half) /* C.ADDI, C.NOP */
{
    return i_type(OP_IMM, 0, wide_rd(half), wide_rd(half), immediate6(half));
}

static uint32_t add_immediate_word(uint32_t half) /* C.ADDIW */
{
    uint32_t rd = wide_rd(half);
    return rd ? i_type(OP_IMM_32, 0, rd, rd, immediate6(half)) : RESERVED;
}

static uint32_t load_immediate(uint32_t half) /* C.LI */
{
    return i_type(OP_IMM, 0, wide_rd(half), 0, immediate6(half));
}

static uint32_t load_upper(uint32_t half) /* C.LUI, C.ADDI16SP */
{
    uint32_t rd = wide_rd(half);
    if (immediate6(half) == 0) {
        return RESERVED;
    }
    if (rd == 2) {
        uint32_t value = bits(half, 12, 12, 9) | bits(half, 6, 6, 4) | bits(half, 5, 5, 6) |
                         bits(half, 4, 3, 7) | bits(half, 2, 2, 5);
        return i_type(OP_IMM, 0, 2, 2, sign_extend(value, 10));
    }
    return (uint32_t)immediate6(half) << 12 | rd << 7 | LUI;
}

static uint32_t arithmetic(uint32_t half) /* C.SRLI to C.ADDW */
{
    static const struct {
        uint8_t major, funct7, funct3;
    } operations[8] = {
        {OP, 0x20, 0}, {OP, 0, 4}, {OP, 0, 6}, {OP, 0, 7}, {OP_32, 0x20, 0}, {OP_32, 0, 0},
    };
    uint32_t rd = short_high(half);
    unsigned operation = bits(half, 12, 12, 2) | bits(half, 6, 5, 0);
    switch (half >> 10 & 3) {
    case 0:
        return i_type(OP_IMM, 5, rd, rd, (int32_t)shift6(half));
    case 1:
        return i_type(OP_IMM, 5, rd, rd, (int32_t)(0x400 | shift6(half)));
    case 2:
        return i_type(OP_IMM, 7, rd, rd, immediate6(half));
    default:
        if (!operations[operation].major) {
            return RESERVED;
        }
        return r_type(operations[operation].major, operations[operation].funct7,
                      operations[operation].funct3, rd, rd, short_low(half));
    }
}

static uint32_t jump(uint32_t half) /* C.J */
{
    uint32_t value = bits(half, 12, 12, 11) | bits(half, 11, 11, 4) | bits(half, 10, 9, 8) |
                     bits(half, 8, 8, 10) | bits(half, 7, 7, 6) | bits(half, 6, 6, 7) |
                     bits(half, 5, 3, 1) | bits(half, 2, 2, 5);
    return j_type(0, sign_extend(value, 12));
}

static int32_t branch_offset(uint32_t half)
{
    uint32_t value = bits(half, 12, 12, 8) | bits(half, 11, 10, 3) | bits(half, 6, 5, 6) |
                     bits(half, 4, 3, 1) | bits(half, 2, 2, 5);
    return sign_extend(value, 9);
}

static uint32_t branch_if_zero(uint32_t half) /* C.BEQZ */
{
    return b_type(0, short_high(half), branch_offset(half));
}

static uint32_t branch_if_not_zero(uint32_t half) /* C.BNEZ */
{
    return b_type(1, short_high(half), branch_offset(half));
}

/* --- quadrant 2 ----------------------------------------------------------------------------- */
static uint32_t shift_left(uint32_t half) /* C.SLLI */
{
    return i_type(OP_IMM, 1, wide_rd(half), wide_rd(half), (int32_t)shift6(half));
}

static uint32_t stack_load_float(uint32_t half) /* C.FLDSP */
{
    return i_type(LOAD_FP, 3, wide_rd(half), 2, (int32_t)stack_load_double(half));
}

static uint32_t stack_load_32(uint32_t half) /* C.LWSP */
{
    uint32_t rd = wide_rd(half);
    return rd ? i_type(LOAD, 2, rd, 2, (int32_t)stack_load_word(half)) : RESERVED;
}

static uint32_t stack_load_64(uint32_t half) /* C.LDSP */
{
    uint32_t rd = wide_rd(half);
    return rd ? i_type(LOAD, 3, rd, 2, (int32_t)stack_load_double(half)) : RESERVED;
}

static uint32_t move_or_jump(uint32_t half) /* C.JR, C.MV, C.EBREAK, C.JALR, C.ADD */
{
    uint32_t rd = wide_rd(half), rs2 = wide_rs2(half);
    bool second = (half >> 12 & 1) != 0;
    if (rs2 != 0) {
        return r_type(OP, 0, 0, rd, second ? rd : 0, rs2);
    }
    if (rd != 0) {
        return i_type(JALR, 0, second ? 1 : 0, rd, 0);
    }
    return second ? 0x00100073 : RESERVED;
}

static uint32_t stack_store_float(uint32_t half) /* C.FSDSP */
{
    return s_type(STORE_FP, 3, 2, wide_rs2(half), stack_store_double(half));
}

static uint32_t stack_store_32(uint32_t half) /* C.SWSP */
{
    return s_type(STORE, 2, 2, wide_rs2(half), stack_store_word(half));
}

static uint32_t stack_store_64(uint32_t half) /* C.SDSP */
{
    return s_type(STORE, 3, 2, wide_rs2(half), stack_store_double(half));
}

uint32_t riscv64_expand(uint16_t half)
{
    typedef uint32_t expander(uint32_t half);
    static expander *const table[3][8] = {
        {add_to_sp, load_float, load_word, load_double, NULL, store_float, store_word,
         store_double},
        {add_immediate, add_immediate_word, load_immediate, load_upper, arithmetic, jump,
         branch_if_zero, branch_if_not_zero},
        {shift_left, stack_load_float, stack_load_32, stack_load_64, move_or_jump,
         stack_store_float, stack_store_32, stack_store_64},
    };
    unsigned quadrant = half & 3;
    expander *expand = quadrant < 3 ? table[quadrant][half >> 13] : NULL;
    return expand ? expand(half) : RESERVED;
}
