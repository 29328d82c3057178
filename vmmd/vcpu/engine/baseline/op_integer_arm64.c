/* Integer arithmetic. */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/operands.h"

/* Where a single instruction may put the result although it reads its operands. */
static unsigned result_of(struct compiler *c, const struct ir_op *op, unsigned a)
{
    if (op->d == op->a || registers_dies(c, op->a, c->uses[c->index].a)) {
        return a;
    }
    if (op->d == op->b) {
        return registers_use(c, op->b);
    }
    return registers_allocate(c, FILE_GENERAL);
}

/* --- moves ---------------------------------------------------------------------------------- */

bool compile_pcrel(struct compiler *c, const struct ir_op *op)
{
    unsigned base = registers_use_page_base(c);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_arithmetic_constant(c->hot, true, HOST_ADD, to, base, op->imm);
    registers_define(c, op->d, to);
    return true;
}

bool compile_select(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned other = registers_use(c, op->c);
    unsigned b = operand_use_b(c, op);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_compare_constant(c->hot, true, a, 0);
    emit_select(c->hot, true, HOST_NOT_EQUAL, to, b, other);
    registers_define(c, op->d, to);
    return true;
}

/* --- addition, subtraction, logic ------------------------------------------------------------ */

static bool compile_arithmetic(struct compiler *c, const struct ir_op *op,
                               enum host_arithmetic operation, bool wide)
{
    int64_t value;
    unsigned a = registers_use(c, op->a);
    if (operand_known_b(c, op, &value)) {
        unsigned to = result_of(c, op, a);
        emit_arithmetic_constant(c->hot, wide, operation, to, a, value);
        operand_define_width(c, op, wide, to);
        return true;
    }
    unsigned b = registers_use(c, op->b);
    unsigned to = result_of(c, op, a);
    emit_arithmetic(c->hot, wide, operation, to, a, b);
    operand_define_width(c, op, wide, to);
    return true;
}

#define ARITHMETIC(name, operation, wide)                                                          \
    bool compile_##name(struct compiler *c, const struct ir_op *op)                                \
    {                                                                                              \
        return compile_arithmetic(c, op, operation, wide);                                         \
    }

ARITHMETIC(add, HOST_ADD, true)
ARITHMETIC(add32, HOST_ADD, false)
ARITHMETIC(sub, HOST_SUB, true)
ARITHMETIC(sub32, HOST_SUB, false)
ARITHMETIC(and, HOST_AND, true)
ARITHMETIC(or, HOST_OR, true)
ARITHMETIC(xor, HOST_XOR, true)
ARITHMETIC(andn, HOST_AND_NOT, true)
ARITHMETIC(orn, HOST_OR_NOT, true)
ARITHMETIC(xnor, HOST_XOR_NOT, true)

bool compile_rsub(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned b = operand_use_b(c, op);
    unsigned to = result_of(c, op, a);
    emit_arithmetic(c->hot, true, HOST_SUB, to, b, a);
    registers_define(c, op->d, to);
    return true;
}

/* --- shifts and rotations -------------------------------------------------------------------- */

static bool compile_shift(struct compiler *c, const struct ir_op *op, enum host_shift operation,
                          bool wide)
{
    int64_t value;
    unsigned a = registers_use(c, op->a);
    if (operand_known_b(c, op, &value)) {
        unsigned to = result_of(c, op, a);
        emit_shift_constant(c->hot, wide, operation, to, a, (unsigned)value & (wide ? 63 : 31));
        operand_define_width(c, op, wide, to);
        return true;
    }
    unsigned b = registers_use(c, op->b);
    unsigned to = result_of(c, op, a);
    emit_shift(c->hot, wide, operation, to, a, b);
    operand_define_width(c, op, wide, to);
    return true;
}

#define SHIFT(name, operation)                                                                     \
    bool compile_##name(struct compiler *c, const struct ir_op *op)                                \
    {                                                                                              \
        return compile_shift(c, op, operation, true);                                              \
    }                                                                                              \
    bool compile_##name##32(struct compiler * c, const struct ir_op *op)                           \
    {                                                                                              \
        return compile_shift(c, op, operation, false);                                             \
    }

SHIFT(shl, HOST_SHL)
SHIFT(shr, HOST_SHR)
SHIFT(sar, HOST_SAR)
SHIFT(rotr, HOST_ROR)

/* To the right by what is missing to the full width. */
static bool compile_rotate_left(struct compiler *c, const struct ir_op *op, bool wide)
{
    int64_t value;
    unsigned a = registers_use(c, op->a);
    if (operand_known_b(c, op, &value)) {
        unsigned to = result_of(c, op, a);
        emit_shift_constant(c->hot, wide, HOST_ROR, to, a, -(unsigned)value & (wide ? 63 : 31));
        operand_define_width(c, op, wide, to);
        return true;
    }
    unsigned b = registers_use(c, op->b);
    unsigned to = result_of(c, op, a);
    emit_arithmetic(c->hot, false, HOST_SUB, HOST_X17, HOST_ZERO, b);
    emit_shift(c->hot, wide, HOST_ROR, to, a, HOST_X17);
    operand_define_width(c, op, wide, to);
    return true;
}

bool compile_rotl(struct compiler *c, const struct ir_op *op)
{
    return compile_rotate_left(c, op, true);
}

bool compile_rotl32(struct compiler *c, const struct ir_op *op)
{
    return compile_rotate_left(c, op, false);
}

bool compile_shladd(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned b = registers_use(c, op->b);
    unsigned to = result_of(c, op, a);
    emit_arithmetic_shifted(c->hot, true, HOST_ADD, to, b, a, HOST_SHL, (unsigned)op->imm & 63);
    registers_define(c, op->d, to);
    return true;
}

bool compile_shladduw(struct compiler *c, const struct ir_op *op)
{
    unsigned count = (unsigned)op->imm & 63;
    unsigned a = registers_use(c, op->a);
    unsigned b = registers_use(c, op->b);
    unsigned to = result_of(c, op, a);
    if (count <= 4) {
        emit_add_low_half(c->hot, to, b, a, count);
    } else {
        emit_move(c->hot, false, HOST_X17, a);
        emit_arithmetic_shifted(c->hot, true, HOST_ADD, to, b, HOST_X17, HOST_SHL, count);
    }
    registers_define(c, op->d, to);
    return true;
}

/* --- multiplication and division -------------------------------------------------------------- */

static bool compile_product(struct compiler *c, const struct ir_op *op, enum host_product operation,
                            bool wide)
{
    unsigned a = registers_use(c, op->a);
    unsigned b = operand_use_b(c, op);
    unsigned to = result_of(c, op, a);
    emit_product(c->hot, wide, operation, to, a, b);
    operand_define_width(c, op, wide, to);
    return true;
}

bool compile_mul(struct compiler *c, const struct ir_op *op)
{
    return compile_product(c, op, HOST_MUL, true);
}

bool compile_mul32(struct compiler *c, const struct ir_op *op)
{
    return compile_product(c, op, HOST_MUL, false);
}

bool compile_mulhs(struct compiler *c, const struct ir_op *op)
{
    return compile_product(c, op, HOST_HIGH_SIGNED, true);
}

bool compile_mulhu(struct compiler *c, const struct ir_op *op)
{
    return compile_product(c, op, HOST_HIGH_UNSIGNED, true);
}

/* The unsigned product, less b << 64 when a is negative. */
bool compile_mulhsu(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned b = operand_use_b(c, op);
    unsigned to = result_of(c, op, a);
    emit_arithmetic_shifted(c->hot, true, HOST_AND, HOST_X17, b, a, HOST_SAR, 63);
    emit_product(c->hot, true, HOST_HIGH_UNSIGNED, to, a, b);
    emit_arithmetic(c->hot, true, HOST_SUB, to, to, HOST_X17);
    registers_define(c, op->d, to);
    return true;
}

struct division {
    bool wide, is_signed, remainder;
};

/* The host's quotient by zero is zero, the IR's all ones; the remainder follows from zero. */
static bool compile_division(struct compiler *c, const struct ir_op *op, struct division division)
{
    int64_t value = 0;
    enum host_product divide = division.is_signed ? HOST_DIV_SIGNED : HOST_DIV_UNSIGNED;
    bool known = operand_known_b(c, op, &value) && (division.wide ? value : (int32_t)value) != 0;
    unsigned a = registers_use(c, op->a);
    unsigned b = operand_use_b(c, op);
    unsigned to = result_of(c, op, a);
    emit_product(c->hot, division.wide, divide, HOST_X17, a, b);
    if (division.remainder) {
        emit_multiply_subtract(c->hot, division.wide, to, HOST_X17, b, a);
    } else if (known) {
        emit_move(c->hot, true, to, HOST_X17);
    } else {
        emit_compare_constant(c->hot, division.wide, b, 0);
        emit_select_ones(c->hot, division.wide, HOST_NOT_EQUAL, to, HOST_X17);
    }
    operand_define_width(c, op, division.wide, to);
    return true;
}

#define DIVISION(name, is_signed, remainder)                                                       \
    bool compile_##name(struct compiler *c, const struct ir_op *op)                                \
    {                                                                                              \
        return compile_division(c, op, (struct division){true, is_signed, remainder});             \
    }                                                                                              \
    bool compile_##name##32(struct compiler * c, const struct ir_op *op)                           \
    {                                                                                              \
        return compile_division(c, op, (struct division){false, is_signed, remainder});            \
    }

DIVISION(divs, true, false)
DIVISION(divu, false, false)
DIVISION(rems, true, true)
DIVISION(remu, false, true)

/* --- conditions ------------------------------------------------------------------------------ */

static const uint8_t conditions[] = {
    [IR_EQ] = HOST_EQUAL,         [IR_NE] = HOST_NOT_EQUAL, [IR_LT] = HOST_LESS,
    [IR_GE] = HOST_GREATER_EQUAL, [IR_LTU] = HOST_BELOW,    [IR_GEU] = HOST_ABOVE_EQUAL,
    [IR_LE] = HOST_LESS_EQUAL,    [IR_GT] = HOST_GREATER,   [IR_LEU] = HOST_BELOW_EQUAL,
    [IR_GTU] = HOST_ABOVE,
};

void compile_load_comparison(struct compiler *c, const struct ir_op *op)
{
    int64_t value;
    registers_use(c, op->a);
    if (!operand_known_b(c, op, &value)) {
        registers_use(c, op->b);
    }
}

enum host_condition compile_compare(struct compiler *c, const struct ir_op *op)
{
    int64_t value;
    unsigned a = registers_use(c, op->a);
    if (operand_known_b(c, op, &value)) {
        emit_compare_constant(c->hot, true, a, value);
    } else {
        emit_compare(c->hot, true, a, registers_use(c, op->b));
    }
    return conditions[op->aux];
}

bool compile_setcc(struct compiler *c, const struct ir_op *op)
{
    enum host_condition condition = compile_compare(c, op);
    unsigned to = result_of(c, op, registers_use(c, op->a));
    emit_set(c->hot, condition, to);
    registers_define(c, op->d, to);
    return true;
}

static bool compile_extreme(struct compiler *c, const struct ir_op *op, enum host_condition keep_a)
{
    unsigned a = registers_use(c, op->a);
    unsigned b = operand_use_b(c, op);
    unsigned to = result_of(c, op, a);
    emit_compare(c->hot, true, a, b);
    emit_select(c->hot, true, keep_a, to, a, b);
    registers_define(c, op->d, to);
    return true;
}

bool compile_mins(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_LESS);
}

bool compile_minu(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_BELOW);
}

bool compile_maxs(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_GREATER);
}

bool compile_maxu(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_ABOVE);
}

/* --- bits ------------------------------------------------------------------------------------ */

static bool compile_leading_zeros(struct compiler *c, const struct ir_op *op, bool wide)
{
    unsigned a = registers_use(c, op->a);
    unsigned to = result_of(c, op, a);
    emit_unary(c->hot, wide, HOST_LEADING_ZEROS, to, a);
    registers_define(c, op->d, to);
    return true;
}

bool compile_clz(struct compiler *c, const struct ir_op *op)
{
    return compile_leading_zeros(c, op, true);
}

bool compile_clz32(struct compiler *c, const struct ir_op *op)
{
    return compile_leading_zeros(c, op, false);
}

static bool compile_trailing_zeros(struct compiler *c, const struct ir_op *op, bool wide)
{
    unsigned a = registers_use(c, op->a);
    unsigned to = result_of(c, op, a);
    emit_unary(c->hot, wide, HOST_REVERSE_BITS, to, a);
    emit_unary(c->hot, wide, HOST_LEADING_ZEROS, to, to);
    registers_define(c, op->d, to);
    return true;
}

bool compile_ctz(struct compiler *c, const struct ir_op *op)
{
    return compile_trailing_zeros(c, op, true);
}

bool compile_ctz32(struct compiler *c, const struct ir_op *op)
{
    return compile_trailing_zeros(c, op, false);
}

static bool compile_ones(struct compiler *c, const struct ir_op *op, bool wide)
{
    unsigned a = registers_use(c, op->a);
    unsigned to = result_of(c, op, a);
    emit_float_from_bits(c->hot, wide, FLOAT_SCRATCH, a);
    emit_count_ones(c->hot, FLOAT_SCRATCH, FLOAT_SCRATCH);
    emit_float_to_bits(c->hot, false, to, FLOAT_SCRATCH);
    registers_define(c, op->d, to);
    return true;
}

bool compile_popcnt(struct compiler *c, const struct ir_op *op)
{
    return compile_ones(c, op, true);
}

bool compile_popcnt32(struct compiler *c, const struct ir_op *op)
{
    return compile_ones(c, op, false);
}

static bool compile_byte_swap(struct compiler *c, const struct ir_op *op, bool wide)
{
    unsigned a = registers_use(c, op->a);
    unsigned to = result_of(c, op, a);
    emit_swap_bytes(c->hot, wide, to, a);
    operand_define_width(c, op, wide, to);
    return true;
}

bool compile_bswap(struct compiler *c, const struct ir_op *op)
{
    return compile_byte_swap(c, op, true);
}

bool compile_bswap32(struct compiler *c, const struct ir_op *op)
{
    return compile_byte_swap(c, op, false);
}

bool compile_orcb(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned to = result_of(c, op, a);
    emit_float_from_bits(c->hot, true, FLOAT_SCRATCH, a);
    emit_bytes_combine(c->hot, HOST_BYTES_TEST, FLOAT_SCRATCH, FLOAT_SCRATCH, FLOAT_SCRATCH);
    emit_float_to_bits(c->hot, true, to, FLOAT_SCRATCH);
    registers_define(c, op->d, to);
    return true;
}

static bool compile_extension(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                              bool is_signed)
{
    unsigned a = registers_use(c, op->a);
    unsigned to = result_of(c, op, a);
    emit_extend(c->hot, size_log2, is_signed, to, a);
    registers_define(c, op->d, to);
    return true;
}

#define EXTENSION(name, size_log2, is_signed)                                                      \
    bool compile_##name(struct compiler *c, const struct ir_op *op)                                \
    {                                                                                              \
        return compile_extension(c, op, size_log2, is_signed);                                     \
    }

EXTENSION(sext8, 0, true)
EXTENSION(sext16, 1, true)
EXTENSION(sext32, 2, true)
EXTENSION(zext8, 0, false)
EXTENSION(zext16, 1, false)
EXTENSION(zext32, 2, false)

#endif
