/* Every integer, conversion and floating-point operation of each engine against a plain model. */
#include "libshared/fp/fp.h"
#include "tests/unit/engine_toy.h"
#include "tests/unit/suite.h"

static uint64_t random_state = 88172645463325252u;

static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Values where arithmetic has its corners, and random ones. */
static uint64_t operand(unsigned i)
{
    static const uint64_t corners[] = {0,
                                       1,
                                       UINT64_MAX,
                                       INT64_MAX,
                                       (uint64_t)INT64_MIN,
                                       INT32_MAX,
                                       (uint32_t)INT32_MIN,
                                       (uint64_t)(int64_t)INT32_MIN,
                                       UINT32_MAX,
                                       63,
                                       64,
                                       31,
                                       32,
                                       UINT64_C(0x8000000080000000),
                                       UINT64_C(0x00ff00ff0000ff01)};
    const unsigned count = sizeof(corners) / sizeof(corners[0]);
    return i < count ? corners[i] : random64() >> (random64() & 63);
}

static unsigned highest_bit(uint64_t a) /* 0 to 64: one more than its number */
{
    unsigned n = 0;
    for (; a; a >>= 1) {
        n++;
    }
    return n;
}

static unsigned lowest_bit(uint64_t a, unsigned width)
{
    unsigned n = 0;
    while (n < width && !(a >> n & 1)) {
        n++;
    }
    return n;
}

static unsigned ones(uint64_t a)
{
    unsigned n = 0;
    for (; a; a &= a - 1) {
        n++;
    }
    return n;
}

static uint64_t swap_bytes(uint64_t a, unsigned bytes)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < bytes; i++) {
        result = result << 8 | (a >> 8 * i & 0xff);
    }
    return result;
}

static uint64_t model_bytes(uint64_t a)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < 8; i++) {
        result |= (a >> 8 * i & 0xff) ? UINT64_C(0xff) << 8 * i : 0;
    }
    return result;
}

static uint64_t rotate(uint64_t a, unsigned by, unsigned width)
{
    for (unsigned i = 0; i < by % width; i++) {
        uint64_t top = a >> (width - 1) & 1;
        a = (a << 1 | top) & (width == 64 ? UINT64_MAX : UINT32_MAX);
    }
    return a;
}

/* Division by the rules of ops.def, over `width` bits in two's complement. */
static uint64_t divide(uint64_t a, uint64_t b, unsigned width, bool is_signed, bool remainder)
{
    __int128 x, y;
    if (width == 32) {
        x = is_signed ? (__int128)(int32_t)a : (__int128)(uint32_t)a;
        y = is_signed ? (__int128)(int32_t)b : (__int128)(uint32_t)b;
    } else {
        x = is_signed ? (__int128)(int64_t)a : (__int128)(unsigned __int128)a;
        y = is_signed ? (__int128)(int64_t)b : (__int128)(unsigned __int128)b;
    }
    if (y == 0) {
        return remainder ? a : UINT64_MAX;
    }
    return (uint64_t)(remainder ? x % y : x / y);
}

static bool compare(unsigned condition, uint64_t a, uint64_t b)
{
    int64_t x = (int64_t)a, y = (int64_t)b;
    const bool results[] = {
        [IR_EQ] = a == b,
        [IR_NE] = a != b,
        [IR_LT] = x<y, [IR_GE] = x >= y,
                    [IR_LTU] = a<b, [IR_GEU] = a >= b, [IR_LE] = x <= y, [IR_GT] = x> y,
                    [IR_LEU] = a <= b, [IR_GTU] = a>
            b};
    return results[condition];
}

static uint64_t model64(unsigned opcode, uint64_t a, uint64_t b)
{
    switch (opcode) {
    case IR_mov:
        return b;
    case IR_add:
        return a + b;
    case IR_sub:
        return a - b;
    case IR_rsub:
        return b - a;
    case IR_and:
        return a & b;
    case IR_or:
        return a | b;
    case IR_xor:
        return a ^ b;
    case IR_andn:
        return a & ~b;
    case IR_orn:
        return a | ~b;
    case IR_xnor:
        return ~a ^ b;
    case IR_shl:
        return a << b % 64;
    case IR_shr:
        return a >> b % 64;
    case IR_sar:
        return (uint64_t)((__int128)(int64_t)a >> b % 64);
    case IR_rotl:
        return rotate(a, b % 64, 64);
    case IR_rotr:
        return rotate(a, 64 - b % 64, 64);
    case IR_mul:
        return a * b;
    case IR_mulhs:
        return (uint64_t)((__int128)(int64_t)a * (int64_t)b >> 64);
    case IR_mulhu:
        return (uint64_t)((unsigned __int128)a * b >> 64);
    case IR_mulhsu:
        return (uint64_t)((unsigned __int128)a * b >> 64) - ((int64_t)a < 0 ? b : 0);
    case IR_divs:
        return divide(a, b, 64, true, false);
    case IR_divu:
        return divide(a, b, 64, false, false);
    case IR_rems:
        return divide(a, b, 64, true, true);
    case IR_remu:
        return divide(a, b, 64, false, true);
    case IR_mins:
        return compare(IR_LT, a, b) ? a : b;
    case IR_maxs:
        return compare(IR_LT, a, b) ? b : a;
    case IR_minu:
        return a < b ? a : b;
    case IR_maxu:
        return a < b ? b : a;
    case IR_clz:
        return 64 - highest_bit(a);
    case IR_ctz:
        return lowest_bit(a, 64);
    case IR_popcnt:
        return ones(a);
    case IR_bswap:
        return swap_bytes(a, 8);
    case IR_orcb:
        return model_bytes(a);
    case IR_sext8:
        return (a & 0xff) - ((a & 0x80) << 1);
    case IR_sext16:
        return (a & 0xffff) - ((a & 0x8000) << 1);
    case IR_sext32:
        return (a & UINT32_MAX) - ((a & 0x80000000) << 1);
    case IR_zext8:
        return a % 256;
    case IR_zext16:
        return a % 65536;
    default:
        return a % (UINT64_C(1) << 32); /* zext32 */
    }
}

static uint32_t model32(unsigned opcode, uint32_t a, uint32_t b)
{
    switch (opcode) {
    case IR_add32:
        return a + b;
    case IR_sub32:
        return a - b;
    case IR_shl32:
        return a << b % 32;
    case IR_shr32:
        return a >> b % 32;
    case IR_sar32:
        return (uint32_t)((int64_t)(int32_t)a >> b % 32);
    case IR_rotl32:
        return (uint32_t)rotate(a, b % 32, 32);
    case IR_rotr32:
        return (uint32_t)rotate(a, 32 - b % 32, 32);
    case IR_mul32:
        return a * b;
    case IR_divs32:
        return (uint32_t)divide(a, b, 32, true, false);
    case IR_divu32:
        return (uint32_t)divide(a, b, 32, false, false);
    case IR_rems32:
        return (uint32_t)divide(a, b, 32, true, true);
    case IR_remu32:
        return (uint32_t)divide(a, b, 32, false, true);
    case IR_clz32:
        return 32 - highest_bit(a);
    case IR_ctz32:
        return lowest_bit(a, 32);
    case IR_popcnt32:
        return ones(a);
    default:
        return (uint32_t)swap_bytes(a, 4); /* bswap32 */
    }
}

/* Run one instruction with x1 = a, x2 = b; returns x3. */
static uint64_t evaluate(uint64_t pc, uint64_t a, uint64_t b)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = a;
    cpu->x[2] = b;
    cpu->x[3] = 0x5555;
    toy_run(pc);
    return cpu->x[3];
}

static uint64_t emit_one(struct toy_insn insn)
{
    uint64_t at = toy_emit(insn);
    toy_emit(toy_halt());
    return at;
}

static bool is_unary(unsigned opcode)
{
    return (opcode >= IR_clz && opcode <= IR_zext32) ||
           (opcode >= IR_clz32 && opcode <= IR_bswap32);
}

static void check_integer(unsigned opcode, unsigned aux, bool wide)
{
    unsigned b = is_unary(opcode) ? TOY_NONE : 2;
    unsigned a = opcode == IR_mov ? TOY_NONE : 1;
    uint64_t at = emit_one(toy_op(opcode, aux, 3, a, b, 0));
    for (unsigned i = 0; i < 40; i++) {
        for (unsigned j = 0; j < (b == 2 ? 40u : 1u); j++) {
            uint64_t x = operand(i), y = operand(j);
            uint64_t low = wide ? 0 : model32(opcode, (uint32_t)x, (uint32_t)y);
            uint64_t expected = wide                    ? model64(opcode, x, y)
                                : aux == IR_EXTEND_ZERO ? low
                                                        : (uint64_t)(int64_t)(int32_t)low;
            uint64_t found = evaluate(at, x, y);
            ck_assert_msg(found == expected, "%s %u of %lx and %lx is %lx, not %lx",
                          ir_opcode_name(opcode), aux, x, y, found, expected);
        }
    }
    if (b == TOY_NONE) {
        return;
    }
    for (unsigned i = 0; i < 60; i++) {
        int32_t imm = (int32_t)operand(i);
        uint64_t x = operand(i * 7 % 60), y = (uint64_t)(int64_t)imm;
        toy.next_code = TOY_RAM_BASE;
        at = emit_one(toy_op(opcode, aux, 3, a, TOY_IMM, imm));
        toy.cpus[0]->host->fetch_barrier(toy.cpus[0]);
        memory_device_wrote(&toy.memory, at, 32);
        engine_device_wrote(toy.engine);
        uint64_t low = wide ? 0 : model32(opcode, (uint32_t)x, (uint32_t)y);
        uint64_t expected = wide                    ? model64(opcode, x, y)
                            : aux == IR_EXTEND_ZERO ? low
                                                    : (uint64_t)(int64_t)(int32_t)low;
        ck_assert_msg(evaluate(at, x, 0) == expected, "%s immediate", ir_opcode_name(opcode));
    }
}

START_TEST(integers)
{
    for (unsigned opcode = IR_mov; opcode <= IR_zext32; opcode++) {
        if (opcode == IR_pcrel || opcode == IR_select) {
            continue;
        }
        toy_start(1, _i);
        check_integer(opcode, 0, true);
        toy_finish();
    }
    for (unsigned opcode = IR_add32; opcode <= IR_bswap32; opcode++) {
        for (unsigned extend = 0; extend < 2; extend++) {
            toy_start(1, _i);
            check_integer(opcode, extend, false);
            toy_finish();
        }
    }
}
END_TEST

START_TEST(conditions)
{
    toy_start(1, _i);
    for (unsigned condition = IR_EQ; condition <= IR_GTU; condition++) {
        uint64_t set = emit_one(toy_op(IR_setcc, condition, 3, 1, 2, 0));
        uint64_t set_imm = emit_one(toy_op(IR_setcc, condition, 3, 1, TOY_IMM, -5));
        uint64_t branch = toy_emit(toy_branch(condition, 1, 2, 48));
        emit_one(toy_li(3, 0));
        emit_one(toy_li(3, 1));
        uint64_t branch_imm = toy_emit(toy_branch_imm(condition, 1, -5, 48));
        emit_one(toy_li(3, 0));
        emit_one(toy_li(3, 1));
        for (unsigned i = 0; i < 25; i++) {
            for (unsigned j = 0; j < 25; j++) {
                uint64_t x = operand(i), y = operand(j);
                ck_assert_uint_eq(evaluate(set, x, y), compare(condition, x, y));
                ck_assert_uint_eq(evaluate(branch, x, y), compare(condition, x, y));
            }
            uint64_t x = i ? operand(i) : (uint64_t)-5;
            ck_assert_uint_eq(evaluate(set_imm, x, 0), compare(condition, x, (uint64_t)-5));
            ck_assert_uint_eq(evaluate(branch_imm, x, 0), compare(condition, x, (uint64_t)-5));
        }
    }
    toy_finish();
}
END_TEST

START_TEST(select_and_address_operations)
{
    toy_start(1, _i);
    struct toy_insn insn = toy_op(IR_select, 0, 3, 1, 2, 0);
    insn.c = 4;
    uint64_t at = emit_one(insn);
    toy_of(toy.cpus[0])->x[4] = 44;
    ck_assert_uint_eq(evaluate(at, 1, 22), 22);
    ck_assert_uint_eq(evaluate(at, 0, 22), 44);
    insn.b = TOY_IMM;
    insn.imm = -9;
    at = emit_one(insn);
    ck_assert_uint_eq(evaluate(at, UINT64_C(1) << 40, 22), (uint64_t)-9);
    ck_assert_uint_eq(evaluate(at, 0, 22), 44);
    at = emit_one(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, -0x2000));
    ck_assert_uint_eq(evaluate(at, 0, 0), TOY_RAM_BASE - 0x2000);
    at = emit_one(toy_op(IR_shladd, 0, 3, 1, 2, 3));
    ck_assert_uint_eq(evaluate(at, UINT64_C(0x2000000000000001), 5), 13);
    at = emit_one(toy_op(IR_shladduw, 0, 3, 1, 2, 2));
    ck_assert_uint_eq(evaluate(at, UINT64_C(0xfffffffff0000000), 5), UINT64_C(0x3c0000005));
    toy_finish();
}
END_TEST

/* --- atomics ------------------------------------------------------------------------------------
 */

static uint64_t model_amo(unsigned operation, uint64_t old, uint64_t b, unsigned size)
{
    unsigned shift = 64 - (8u << size);
    int64_t x = (int64_t)(old << shift) >> shift, y = (int64_t)(b << shift) >> shift;
    uint64_t mask = UINT64_MAX >> shift;
    const uint64_t results[] = {
        [IR_AMO_SWAP] = b,
        [IR_AMO_ADD] = old + b,
        [IR_AMO_AND] = old & b,
        [IR_AMO_OR] = old | b,
        [IR_AMO_XOR] = old ^ b,
        [IR_AMO_MINS] = (uint64_t)(x < y ? x : y),
        [IR_AMO_MAXS] = (uint64_t)(x > y ? x : y),
        [IR_AMO_MINU] = (old & mask) < (b & mask) ? old : b,
        [IR_AMO_MAXU] = (old & mask) > (b & mask) ? old : b,
    };
    return results[operation] & mask;
}

START_TEST(atomic_operations)
{
    toy_start(1, _i);
    uint64_t *cell = toy_ram(TOY_RAM_BASE + 0x8000);
    const uint64_t beside = UINT64_C(0xa5a5a5a5a5a5a5a5);
    for (unsigned operation = 0; operation <= IR_AMO_MAXU; operation++) {
        for (unsigned size = 0; size < 4; size++) {
            unsigned aux = operation << IR_MEM_AMO_SHIFT | size | IR_MEM_ALIGN | IR_MEM_SIGN;
            uint64_t at = emit_one(toy_op(IR_amo, aux, 3, 1, 2, 16));
            uint64_t mask = UINT64_MAX >> (64 - (8u << size));
            for (unsigned i = 0; i < 15; i++) {
                uint64_t old = operand(i), b = operand((i * 7 + operation) % 15);
                cell[2] = (old & mask) | (beside & ~mask);
                unsigned shift = 64 - (8u << size);
                uint64_t found = evaluate(at, TOY_RAM_BASE + 0x8000 - 0, b);
                ck_assert_uint_eq(found, (uint64_t)((int64_t)(old << shift) >> shift));
                ck_assert_uint_eq(cell[2], model_amo(operation, old, b, size) | (beside & ~mask));
            }
        }
    }
    struct toy_insn insn = toy_op(IR_cas, 3, 3, 1, 2, 0);
    insn.c = 4;
    uint64_t at = emit_one(insn);
    toy_of(toy.cpus[0])->x[4] = 99;
    cell[0] = 5;
    ck_assert_uint_eq(evaluate(at, TOY_RAM_BASE + 0x8000, 6), 5);
    ck_assert_uint_eq(cell[0], 5);
    ck_assert_uint_eq(evaluate(at, TOY_RAM_BASE + 0x8000, 5), 5);
    ck_assert_uint_eq(cell[0], 99);
    toy_finish();
}
END_TEST

/* --- floating point: the same answers and flags as the software, by whatever way ----------------
 */

static uint64_t float_operand(unsigned i, bool single)
{
    static const uint64_t corners[] = {0,
                                       UINT64_C(0x8000000000000000),
                                       UINT64_C(0x3ff0000000000000),
                                       UINT64_C(0xbff8000000000000),
                                       UINT64_C(0x7ff0000000000000),
                                       UINT64_C(0xfff0000000000000),
                                       UINT64_C(0x7ff8000000000000),
                                       UINT64_C(0x7ff0000000000001),
                                       1,
                                       UINT64_C(0x000fffffffffffff),
                                       UINT64_C(0x0010000000000000),
                                       UINT64_C(0x7fefffffffffffff),
                                       UINT64_C(0x3fd5555555555555),
                                       UINT64_C(0x41e0000000000000)};
    static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbfc00000, 0x7f800000,
                                       0xff800000, 0x7fc00000, 0x7f800001, 1,          0x007fffff,
                                       0x00800000, 0x7f7fffff, 0x3eaaaaab, 0x4f000000};
    const unsigned count = sizeof(corners) / sizeof(corners[0]);
    if (single) {
        return fp_box_f32(i < count ? singles[i] : (uint32_t)random64());
    }
    return i < count ? corners[i] : random64();
}

struct float_case {
    unsigned opcode;
    uint64_t (*f64)(uint64_t a, uint64_t b, uint64_t c, unsigned round, uint32_t *flags);
    uint64_t (*f32)(uint64_t a, uint64_t b, uint64_t c, unsigned round, uint32_t *flags);
    bool has_b, has_c, result_is_integer;
};

#define U(x) ((uint32_t)(x))
#define ROUNDED(name)                                                                              \
    static uint64_t f64_##name(uint64_t a, uint64_t b, uint64_t c, unsigned round,                 \
                               uint32_t *flags)                                                    \
    {                                                                                              \
        (void)c;                                                                                   \
        return fp_f64_##name(a, b, round, flags);                                                  \
    }                                                                                              \
    static uint64_t f32_##name(uint64_t a, uint64_t b, uint64_t c, unsigned round,                 \
                               uint32_t *flags)                                                    \
    {                                                                                              \
        (void)c;                                                                                   \
        return fp_box_f32(fp_f32_##name(U(a), U(b), round, flags));                                \
    }
ROUNDED(add)
ROUNDED(sub)
ROUNDED(mul)
ROUNDED(div)

#define UNARY(name, boxed)                                                                         \
    static uint64_t f64_##name(uint64_t a, uint64_t b, uint64_t c, unsigned round,                 \
                               uint32_t *flags)                                                    \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        return fp_f64_##name(a, round, flags);                                                     \
    }                                                                                              \
    static uint64_t f32_##name(uint64_t a, uint64_t b, uint64_t c, unsigned round,                 \
                               uint32_t *flags)                                                    \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        return boxed(fp_f32_##name(U(a), round, flags));                                           \
    }
UNARY(sqrt, fp_box_f32)
UNARY(to_s64, )
UNARY(to_u64, )
UNARY(to_s32, )
UNARY(to_u32, )

static uint64_t f64_fma(uint64_t a, uint64_t b, uint64_t c, unsigned round, uint32_t *flags)
{
    return fp_f64_fma(a, b, c, round, flags);
}

static uint64_t f32_fma(uint64_t a, uint64_t b, uint64_t c, unsigned round, uint32_t *flags)
{
    return fp_box_f32(fp_f32_fma(U(a), U(b), U(c), round, flags));
}

#define COMPARED(name)                                                                             \
    static uint64_t f64_##name(uint64_t a, uint64_t b, uint64_t c, unsigned round,                 \
                               uint32_t *flags)                                                    \
    {                                                                                              \
        (void)c, (void)round;                                                                      \
        return fp_f64_##name(a, b, flags);                                                         \
    }                                                                                              \
    static uint64_t f32_##name(uint64_t a, uint64_t b, uint64_t c, unsigned round,                 \
                               uint32_t *flags)                                                    \
    {                                                                                              \
        (void)c, (void)round;                                                                      \
        return fp_f32_##name(U(a), U(b), flags);                                                   \
    }
COMPARED(eq)
COMPARED(lt)
COMPARED(le)

static const struct float_case float_cases[] = {
    {IR_fadd, f64_add, f32_add, true, false, false},
    {IR_fsub, f64_sub, f32_sub, true, false, false},
    {IR_fmul, f64_mul, f32_mul, true, false, false},
    {IR_fdiv, f64_div, f32_div, true, false, false},
    {IR_fsqrt, f64_sqrt, f32_sqrt, false, false, false},
    {IR_fma, f64_fma, f32_fma, true, true, false},
    {IR_feq, f64_eq, f32_eq, true, false, true},
    {IR_flt, f64_lt, f32_lt, true, false, true},
    {IR_fle, f64_le, f32_le, true, false, true},
    {IR_fcvt_s64, f64_to_s64, f32_to_s64, false, false, true},
    {IR_fcvt_u64, f64_to_u64, f32_to_u64, false, false, true},
    {IR_fcvt_s32, f64_to_s32, f32_to_s32, false, false, true},
    {IR_fcvt_u32, f64_to_u32, f32_to_u32, false, false, true},
};

static void check_float(const struct float_case *one, unsigned round, bool single)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    unsigned aux = round | (single ? IR_FP_F32 | IR_FP_BOX : 0);
    struct toy_insn insn = toy_op(one->opcode, aux, one->result_is_integer ? 3 : TOY_F(3), TOY_F(0),
                                  one->has_b ? TOY_F(1) : TOY_NONE, 0);
    insn.c = one->has_c ? TOY_F(2) : TOY_NONE;
    uint64_t at = emit_one(insn);
    for (unsigned i = 0; i < 400; i++) {
        cpu->f[0] = float_operand(i % 20, single);
        cpu->f[1] = float_operand(i / 20, single);
        cpu->f[2] = float_operand((i * 7) % 23, single);
        cpu->cpu.fp_flags = 0;
        toy_run(at);
        uint32_t flags = 0;
        uint64_t expected =
            (single ? one->f32 : one->f64)(cpu->f[0], cpu->f[1], cpu->f[2], round, &flags);
        uint64_t found = one->result_is_integer ? cpu->x[3] : cpu->f[3];
        ck_assert_msg(found == expected && cpu->cpu.fp_flags == flags,
                      "%s aux %x of %lx %lx %lx: %lx flags %x, not %lx flags %x",
                      ir_opcode_name(one->opcode), aux, cpu->f[0], cpu->f[1], cpu->f[2], found,
                      cpu->cpu.fp_flags, expected, flags);
    }
}

START_TEST(floating_point)
{
    for (size_t i = 0; i < sizeof(float_cases) / sizeof(float_cases[0]); i++) {
        toy_start(1, _i);
        for (unsigned round = IR_ROUND_RNE; round <= IR_ROUND_RMM; round++) {
            check_float(&float_cases[i], round, false);
            check_float(&float_cases[i], round, true);
        }
        toy_finish();
    }
}
END_TEST

START_TEST(unboxed_singles_read_as_nan)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    const unsigned aux = IR_FP_F32 | IR_FP_BOX;
    uint64_t add = emit_one(toy_op(IR_fadd, aux, TOY_F(3), TOY_F(0), TOY_F(1), 0));
    uint64_t sign = emit_one(toy_op(IR_fsgnj, aux, TOY_F(3), TOY_F(0), TOY_F(1), 0));
    uint64_t class = emit_one(toy_op(IR_fclass, aux, 3, TOY_F(0), TOY_NONE, 0));
    uint64_t move = emit_one(toy_op(IR_fmv_to_int, aux, 3, TOY_F(0), TOY_NONE, 0));
    uint64_t back = emit_one(toy_op(IR_fmv_from_int, aux, TOY_F(3), 1, TOY_NONE, 0));
    cpu->f[0] = 0xbf800000;
    cpu->f[1] = fp_box_f32(0x3f800000);
    toy_run(add);
    ck_assert_uint_eq(cpu->f[3], fp_box_f32(FP_F32_NAN));
    ck_assert_uint_eq(cpu->cpu.fp_flags, 0);
    toy_run(sign);
    ck_assert_uint_eq(cpu->f[3], fp_box_f32(FP_F32_NAN));
    toy_run(class);
    ck_assert_uint_eq(cpu->x[3], 1u << 9);
    toy_run(move); /* raw bits */
    ck_assert_uint_eq(cpu->x[3], UINT64_C(0xffffffffbf800000));
    cpu->x[1] = UINT64_C(0x123456789);
    toy_run(back);
    ck_assert_uint_eq(cpu->f[3], UINT64_C(0xffffffff23456789));
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: operations");
    TCase *tests = tcase_create("operations");
    tcase_set_timeout(tests, 120);
    toy_add(tests, integers);
    toy_add(tests, conditions);
    toy_add(tests, select_and_address_operations);
    toy_add(tests, atomic_operations);
    toy_add(tests, floating_point);
    toy_add(tests, unboxed_singles_read_as_nan);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
