/* Integer arithmetic. */
#if defined(__x86_64__)

#include "vmmd/vcpu/engine/baseline/operands.h"

static bool fits32(int64_t value)
{
    return value == (int32_t)value;
}

/* A register with a's value that the operation may change and then define as d. */
static unsigned copy_a(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    bool dies = registers_dies(c, op->a, c->uses[c->index].a) && op->b != op->a && op->c != op->a;
    if ((op->d == op->a && op->b != op->a) || dies) {
        return a;
    }
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_move(c->hot, true, to, a);
    return to;
}

/* --- moves ---------------------------------------------------------------------------------- */

bool compile_pcrel(struct compiler *c, const struct ir_op *op)
{
    if (!fits32(op->imm)) {
        return false;
    }
    unsigned base = registers_use_page_base(c);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_address(c->hot, true, to, host_at(base, (int32_t)op->imm));
    registers_define(c, op->d, to);
    return true;
}

bool compile_select(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned other = registers_use(c, op->c);
    unsigned b = operand_use_b(c, op);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_move(c->hot, true, to, other);
    emit_test(c->hot, true, a, a);
    emit_move_if(c->hot, HOST_NOT_EQUAL, to, b);
    registers_define(c, op->d, to);
    return true;
}

/* --- addition, subtraction, logic ------------------------------------------------------------ */

static void add_constant(struct compiler *c, const struct ir_op *op, bool wide, int32_t value)
{
    unsigned a = registers_use(c, op->a);
    if (op->d == op->a) {
        emit_arithmetic_constant(c->hot, wide, HOST_ADD, a, value);
    } else {
        unsigned to =
            registers_dies(c, op->a, c->uses[c->index].a) ? a : registers_allocate(c, FILE_GENERAL);
        emit_address(c->hot, wide, to, host_at(a, value));
        a = to;
    }
    operand_define_width(c, op, wide, a);
}

static bool compile_addition(struct compiler *c, const struct ir_op *op, bool wide)
{
    int64_t value;
    if (operand_known_b(c, op, &value) && (fits32(value) || !wide)) {
        add_constant(c, op, wide, (int32_t)value);
        return true;
    }
    unsigned a = registers_use(c, op->a);
    unsigned b = operand_use_b(c, op);
    if (op->d == op->a) {
        emit_arithmetic(c->hot, wide, HOST_ADD, a, b);
        operand_define_width(c, op, wide, a);
    } else if (op->d == op->b) {
        emit_arithmetic(c->hot, wide, HOST_ADD, b, a);
        operand_define_width(c, op, wide, b);
    } else {
        unsigned to = registers_allocate(c, FILE_GENERAL);
        emit_address(c->hot, wide, to, host_indexed(a, b, 0, 0));
        operand_define_width(c, op, wide, to);
    }
    return true;
}

bool compile_add(struct compiler *c, const struct ir_op *op)
{
    return compile_addition(c, op, true);
}

bool compile_add32(struct compiler *c, const struct ir_op *op)
{
    return compile_addition(c, op, false);
}

static bool compile_arithmetic(struct compiler *c, const struct ir_op *op,
                               enum host_arithmetic operation, bool commutes, bool wide)
{
    int64_t value;
    if (operand_known_b(c, op, &value) && (fits32(value) || !wide)) {
        unsigned to = copy_a(c, op);
        emit_arithmetic_constant(c->hot, wide, operation, to, (int32_t)value);
        operand_define_width(c, op, wide, to);
        return true;
    }
    unsigned b = operand_use_b(c, op);
    if (commutes && op->d == op->b && op->d != op->a) {
        emit_arithmetic(c->hot, wide, operation, b, registers_use(c, op->a));
        operand_define_width(c, op, wide, b);
        return true;
    }
    unsigned to = copy_a(c, op);
    emit_arithmetic(c->hot, wide, operation, to, b);
    operand_define_width(c, op, wide, to);
    return true;
}

bool compile_sub(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_SUB, false, true);
}

bool compile_sub32(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_SUB, false, false);
}

bool compile_and(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_AND, true, true);
}

bool compile_or(struct compiler *c, const struct ir_op *op)
{
    return compile_arithmetic(c, op, HOST_OR, true, true);
}

bool compile_xor(struct compiler *c, const struct ir_op *op)
{
    if (op->b == IR_IMMEDIATE && op->imm == -1) {
        unsigned to = copy_a(c, op);
        emit_unary(c->hot, true, HOST_NOT, to);
        registers_define(c, op->d, to);
        return true;
    }
    return compile_arithmetic(c, op, HOST_XOR, true, true);
}

bool compile_rsub(struct compiler *c, const struct ir_op *op)
{
    unsigned to = copy_a(c, op);
    emit_unary(c->hot, true, HOST_NEG, to);
    unsigned b = operand_use_b(c, op);
    emit_arithmetic(c->hot, true, HOST_ADD, to, b);
    registers_define(c, op->d, to);
    return true;
}

/* a op ~b, by inverting b in the scratch register. */
static bool compile_inverted(struct compiler *c, const struct ir_op *op,
                             enum host_arithmetic operation)
{
    unsigned b = operand_use_b(c, op);
    if (b != REG_SCRATCH) {
        emit_move(c->hot, true, REG_SCRATCH, b);
    }
    emit_unary(c->hot, true, HOST_NOT, REG_SCRATCH);
    unsigned to = copy_a(c, op);
    emit_arithmetic(c->hot, true, operation, to, REG_SCRATCH);
    registers_define(c, op->d, to);
    return true;
}

bool compile_andn(struct compiler *c, const struct ir_op *op)
{
    return compile_inverted(c, op, HOST_AND);
}

bool compile_orn(struct compiler *c, const struct ir_op *op)
{
    return compile_inverted(c, op, HOST_OR);
}

bool compile_xnor(struct compiler *c, const struct ir_op *op)
{
    return compile_inverted(c, op, HOST_XOR);
}

/* --- shifts and rotations -------------------------------------------------------------------- */

static bool compile_shift(struct compiler *c, const struct ir_op *op, enum host_shift operation,
                          bool wide)
{
    int64_t value;
    if (operand_known_b(c, op, &value)) {
        unsigned to = copy_a(c, op);
        emit_shift_constant(c->hot, wide, operation, to, (unsigned)value & (wide ? 63 : 31));
        operand_define_width(c, op, wide, to);
        return true;
    }
    bool shift = operation == HOST_SHL || operation == HOST_SHR || operation == HOST_SAR;
    if (shift && c->features.bmi2) {
        unsigned a = registers_use(c, op->a);
        unsigned b = registers_use(c, op->b);
        unsigned to = op->d == op->a ? a : registers_allocate(c, FILE_GENERAL);
        emit_shift_by(c->hot, wide, operation, to, a, b);
        operand_define_width(c, op, wide, to);
        return true;
    }
    registers_vacate(c, RCX);
    unsigned b = registers_use(c, op->b);
    unsigned a = registers_use(c, op->a);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_move(c->hot, true, to, a);
    emit_move(c->hot, true, RCX, b);
    emit_shift_cl(c->hot, wide, operation, to);
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
SHIFT(rotl, HOST_ROL)
SHIFT(rotr, HOST_ROR)

static bool compile_shifted_sum(struct compiler *c, const struct ir_op *op, bool low_half)
{
    unsigned count = (unsigned)op->imm & 63;
    unsigned a = registers_use(c, op->a);
    unsigned b = registers_use(c, op->b);
    if (low_half || count > 3) {
        emit_move(c->hot, !low_half, REG_SCRATCH, a);
        a = REG_SCRATCH;
    }
    if (count > 3) {
        emit_shift_constant(c->hot, true, HOST_SHL, a, count);
        count = 0;
    }
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_address(c->hot, true, to, host_indexed(b, a, count, 0));
    registers_define(c, op->d, to);
    return true;
}

bool compile_shladd(struct compiler *c, const struct ir_op *op)
{
    return compile_shifted_sum(c, op, false);
}

bool compile_shladduw(struct compiler *c, const struct ir_op *op)
{
    return compile_shifted_sum(c, op, true);
}

/* --- multiplication and division -------------------------------------------------------------- */

static bool compile_product(struct compiler *c, const struct ir_op *op, bool wide)
{
    int64_t value;
    if (operand_known_b(c, op, &value) && (fits32(value) || !wide)) {
        unsigned a = registers_use(c, op->a);
        unsigned to = op->d == op->a ? a : registers_allocate(c, FILE_GENERAL);
        emit_multiply_constant(c->hot, wide, to, a, (int32_t)value);
        operand_define_width(c, op, wide, to);
        return true;
    }
    unsigned b = operand_use_b(c, op);
    unsigned to = copy_a(c, op);
    emit_multiply(c->hot, wide, to, b);
    operand_define_width(c, op, wide, to);
    return true;
}

bool compile_mul(struct compiler *c, const struct ir_op *op)
{
    return compile_product(c, op, true);
}

bool compile_mul32(struct compiler *c, const struct ir_op *op)
{
    return compile_product(c, op, false);
}

/* a into rax, b into a register that is neither rax nor rdx (returned); both are then free. */
static unsigned take_rax_rdx(struct compiler *c, const struct ir_op *op)
{
    unsigned b = operand_use_b(c, op);
    if (b == RAX || b == RDX) {
        emit_move(c->hot, true, REG_SCRATCH, b);
        b = REG_SCRATCH;
    }
    unsigned a = registers_use(c, op->a);
    if (a != RAX) {
        registers_vacate(c, RAX);
        emit_move(c->hot, true, RAX, a); /* not moved: it is locked by being in use, and not rax */
    } else {
        registers_vacate(c, RAX);
    }
    registers_vacate(c, RDX);
    return b;
}

static bool compile_high_product(struct compiler *c, const struct ir_op *op,
                                 enum host_unary operation)
{
    unsigned b = take_rax_rdx(c, op);
    emit_unary(c->hot, true, operation, b);
    registers_define(c, op->d, RDX);
    return true;
}

bool compile_mulhs(struct compiler *c, const struct ir_op *op)
{
    return compile_high_product(c, op, HOST_IMUL);
}

bool compile_mulhu(struct compiler *c, const struct ir_op *op)
{
    return compile_high_product(c, op, HOST_MUL);
}

/* The unsigned product, less b << 64 when a is negative. */
bool compile_mulhsu(struct compiler *c, const struct ir_op *op)
{
    unsigned b = take_rax_rdx(c, op);
    if (b != REG_SCRATCH) {
        emit_move(c->hot, true, REG_SCRATCH, b);
    }
    unsigned sign = registers_allocate(c, FILE_GENERAL);
    emit_move(c->hot, true, sign, RAX);
    emit_shift_constant(c->hot, true, HOST_SAR, sign, 63);
    emit_arithmetic(c->hot, true, HOST_AND, sign, REG_SCRATCH);
    emit_unary(c->hot, true, HOST_MUL, REG_SCRATCH);
    emit_arithmetic(c->hot, true, HOST_SUB, RDX, sign);
    registers_define(c, op->d, RDX);
    return true;
}

struct division {
    bool wide, is_signed, remainder;
};

/* What the host would trap on, out of line: the results are in rax and rdx as after a division. */
static void division_corner(struct compiler *c, struct division division, bool by_zero)
{
    struct emitter *e = c->cold;
    uint32_t at = emit_jump_if(c->hot, HOST_EQUAL);
    compile_fixup(c, SECTION_HOT, at, SECTION_COLD, e->at);
    if (by_zero && division.remainder) {
        emit_move(e, division.wide, RDX, RAX);
    } else if (by_zero) {
        emit_arithmetic_constant(e, division.wide, HOST_OR, RAX, -1);
    } else if (division.remainder) {
        emit_arithmetic(e, false, HOST_XOR, RDX, RDX);
    } else {
        emit_unary(e, division.wide, HOST_NEG, RAX);
    }
}

static bool compile_division(struct compiler *c, const struct ir_op *op, struct division division)
{
    int64_t value = 0;
    bool known = operand_known_b(c, op, &value) && value != 0 && value != -1 &&
                 (division.wide || ((int32_t)value != 0 && (int32_t)value != -1));
    unsigned b = take_rax_rdx(c, op);
    uint32_t back[2];
    if (!known) {
        emit_test(c->hot, division.wide, b, b);
        division_corner(c, division, true);
        back[0] = emit_jump(c->cold);
    }
    if (!known && division.is_signed) {
        emit_arithmetic_constant(c->hot, division.wide, HOST_CMP, b, -1);
        division_corner(c, division, false);
        back[1] = emit_jump(c->cold);
    }
    if (division.is_signed) {
        emit_sign_to_rdx(c->hot, division.wide);
    } else {
        emit_arithmetic(c->hot, false, HOST_XOR, RDX, RDX);
    }
    emit_unary(c->hot, division.wide, division.is_signed ? HOST_IDIV : HOST_DIV, b);
    for (unsigned i = 0; !known && i <= division.is_signed; i++) {
        compile_fixup(c, SECTION_COLD, back[i], SECTION_HOT, c->hot->at);
    }
    operand_define_width(c, op, division.wide, division.remainder ? RDX : RAX);
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
    if (op->b != IR_IMMEDIATE && !(operand_known_b(c, op, &value) && fits32(value))) {
        registers_use(c, op->b);
    }
}

enum host_condition compile_compare(struct compiler *c, const struct ir_op *op)
{
    int64_t value;
    unsigned a = registers_use(c, op->a);
    if (operand_known_b(c, op, &value) && fits32(value)) {
        if (value == 0) {
            emit_test(c->hot, true, a, a);
        } else {
            emit_arithmetic_constant(c->hot, true, HOST_CMP, a, (int32_t)value);
        }
    } else {
        emit_arithmetic(c->hot, true, HOST_CMP, a, operand_use_b(c, op));
    }
    return conditions[op->aux];
}

bool compile_setcc(struct compiler *c, const struct ir_op *op)
{
    compile_load_comparison(c, op);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_arithmetic(c->hot, false, HOST_XOR, to, to);
    emit_set(c->hot, compile_compare(c, op), to);
    registers_define(c, op->d, to);
    return true;
}

static bool compile_extreme(struct compiler *c, const struct ir_op *op, enum host_condition keep_b)
{
    unsigned b = operand_use_b(c, op);
    unsigned to = copy_a(c, op);
    emit_arithmetic(c->hot, true, HOST_CMP, to, b);
    emit_move_if(c->hot, keep_b, to, b);
    registers_define(c, op->d, to);
    return true;
}

bool compile_mins(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_GREATER);
}

bool compile_minu(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_ABOVE);
}

bool compile_maxs(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_LESS);
}

bool compile_maxu(struct compiler *c, const struct ir_op *op)
{
    return compile_extreme(c, op, HOST_BELOW);
}

/* --- bits ------------------------------------------------------------------------------------ */

static bool compile_count(struct compiler *c, const struct ir_op *op, enum host_count operation,
                          bool available, bool wide)
{
    if (!available) {
        return false;
    }
    unsigned a = registers_use(c, op->a);
    unsigned to = op->d == op->a ? a : registers_allocate(c, FILE_GENERAL);
    emit_count(c->hot, wide, operation, to, a);
    registers_define(c, op->d, to);
    return true;
}

#define COUNT(name, operation, feature)                                                            \
    bool compile_##name(struct compiler *c, const struct ir_op *op)                                \
    {                                                                                              \
        return compile_count(c, op, operation, c->features.feature, true);                         \
    }                                                                                              \
    bool compile_##name##32(struct compiler * c, const struct ir_op *op)                           \
    {                                                                                              \
        return compile_count(c, op, operation, c->features.feature, false);                        \
    }

COUNT(clz, HOST_LZCNT, lzcnt)
COUNT(ctz, HOST_TZCNT, bmi1)
COUNT(popcnt, HOST_POPCNT, popcnt)

bool compile_bswap(struct compiler *c, const struct ir_op *op)
{
    unsigned to = copy_a(c, op);
    emit_swap_bytes(c->hot, true, to);
    registers_define(c, op->d, to);
    return true;
}

bool compile_bswap32(struct compiler *c, const struct ir_op *op)
{
    unsigned to = copy_a(c, op);
    emit_swap_bytes(c->hot, false, to);
    operand_define32(c, op, to);
    return true;
}

bool compile_orcb(struct compiler *c, const struct ir_op *op)
{
    unsigned a = registers_use(c, op->a);
    unsigned zero = registers_allocate(c, FILE_FLOAT);
    unsigned to = registers_allocate(c, FILE_GENERAL);
    emit_float_zero(c->hot, zero);
    emit_float_from_bits(c->hot, true, XMM_SCRATCH, a);
    emit_bytes_equal(c->hot, XMM_SCRATCH, zero);
    emit_float_to_bits(c->hot, true, to, XMM_SCRATCH);
    emit_unary(c->hot, true, HOST_NOT, to);
    registers_define(c, op->d, to);
    return true;
}

static bool compile_extension(struct compiler *c, const struct ir_op *op, unsigned size_log2,
                              bool is_signed)
{
    unsigned a = registers_use(c, op->a);
    bool dies = registers_dies(c, op->a, c->uses[c->index].a);
    unsigned to = op->d == op->a || dies ? a : registers_allocate(c, FILE_GENERAL);
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
