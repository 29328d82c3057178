/* What riscv64 integer instructions compute, against formulas of the manual, through their IR. */
#include "test_riscv64.h"
#include "tests/unit/suite.h"

static const uint64_t interesting[] = {
    0,
    1,
    2,
    63,
    64,
    0x7f,
    0x80,
    0xff00,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x100000000,
    0x7fffffffffffffff,
    0x8000000000000000,
    0x8000000080000000,
    0xfffffffffffffffe,
    0xffffffffffffffff,
    0x0123456789abcdef,
    0xff00000000000001,
};
#define COUNT (sizeof(interesting) / sizeof(interesting[0]))

typedef uint64_t formula(uint64_t a, uint64_t b);

#define FORMULA(name, expression)                                                                  \
    static uint64_t name(uint64_t a, uint64_t b)                                                   \
    {                                                                                              \
        (void)a;                                                                                   \
        (void)b;                                                                                   \
        return (uint64_t)(expression);                                                             \
    }
#define S64(x)  ((int64_t)(x))
#define U32(x)  ((uint32_t)(x))
#define S32(x)  ((int32_t)(x))
#define WORD(x) ((int64_t)(int32_t)(uint32_t)(x))

FORMULA(add, a + b)
FORMULA(sub, a - b)
FORMULA(and, a &b)
FORMULA(or, a | b)
FORMULA(xor, a ^ b)
FORMULA(sll, a << (b & 63))
FORMULA(srl, a >> (b & 63))
FORMULA(sra, S64(a) >> (b & 63))
FORMULA(slt, S64(a) < S64(b))
FORMULA(sltu, a < b)
FORMULA(addw, WORD(a + b))
FORMULA(subw, WORD(a - b))
FORMULA(sllw, WORD(U32(a) << (b & 31)))
FORMULA(srlw, WORD(U32(a) >> (b & 31)))
FORMULA(sraw, S32(a) >> (b & 31))
FORMULA(mul, a *b)
FORMULA(mulw, WORD(a *b))
FORMULA(mulh, ((__int128)S64(a) * S64(b)) >> 64)
FORMULA(mulhu, ((unsigned __int128)a * b) >> 64)
FORMULA(mulhsu, ((__int128)S64(a) * (__int128)b) >> 64)
FORMULA(div64, b == 0 ? -1 : (S64(b) == -1 ? S64(-a) : S64(a) / S64(b)))
FORMULA(divu64, b == 0 ? UINT64_MAX : a / b)
FORMULA(rem64, b == 0 ? S64(a) : (S64(b) == -1 ? 0 : S64(a) % S64(b)))
FORMULA(remu64, b == 0 ? a : a % b)
FORMULA(divw, U32(b) == 0 ? -1 : (S32(b) == -1 ? WORD(-a) : S32(a) / S32(b)))
FORMULA(divuw, U32(b) == 0 ? -1 : WORD(U32(a) / U32(b)))
FORMULA(remw, U32(b) == 0 ? S32(a) : (S32(b) == -1 ? 0 : S32(a) % S32(b)))
FORMULA(remuw, U32(b) == 0 ? WORD(a) : WORD(U32(a) % U32(b)))
FORMULA(sh1add, (a << 1) + b)
FORMULA(sh2add, (a << 2) + b)
FORMULA(sh3add, (a << 3) + b)
FORMULA(adduw, (uint64_t)U32(a) + b)
FORMULA(sh1adduw, ((uint64_t)U32(a) << 1) + b)
FORMULA(sh2adduw, ((uint64_t)U32(a) << 2) + b)
FORMULA(sh3adduw, ((uint64_t)U32(a) << 3) + b)
FORMULA(andn, a & ~b)
FORMULA(orn, a | ~b)
FORMULA(xnor, ~(a ^ b))
FORMULA(min, S64(a) < S64(b) ? a : b)
FORMULA(minu, a < b ? a : b)
FORMULA(max, S64(a) > S64(b) ? a : b)
FORMULA(maxu, a > b ? a : b)
FORMULA(rol, b & 63 ? a << (b & 63) | a >> (64 - (b & 63)) : a)
FORMULA(ror, b & 63 ? a >> (b & 63) | a << (64 - (b & 63)) : a)
FORMULA(rolw, WORD(b & 31 ? U32(a) << (b & 31) | U32(a) >> (32 - (b & 31)) : U32(a)))
FORMULA(rorw, WORD(b & 31 ? U32(a) >> (b & 31) | U32(a) << (32 - (b & 31)) : U32(a)))
FORMULA(bclr, a & ~(UINT64_C(1) << (b & 63)))
FORMULA(bset, a | UINT64_C(1) << (b & 63))
FORMULA(binv, a ^ UINT64_C(1) << (b & 63))
FORMULA(bext, a >> (b & 63) & 1)
FORMULA(czero_eqz, b == 0 ? 0 : a)
FORMULA(czero_nez, b != 0 ? 0 : a)

static const struct {
    uint32_t word; /* rd, rs1 and rs2 zero */
    formula *expected;
} binary[] = {
    {0x00000033, add},       {0x40000033, sub},      {0x00007033, and},
    {0x00006033, or },       {0x00004033, xor},      {0x00001033, sll},
    {0x00005033, srl},       {0x40005033, sra},      {0x00002033, slt},
    {0x00003033, sltu},      {0x0000003b, addw},     {0x4000003b, subw},
    {0x0000103b, sllw},      {0x0000503b, srlw},     {0x4000503b, sraw},
    {0x02000033, mul},       {0x0200003b, mulw},     {0x02001033, mulh},
    {0x02003033, mulhu},     {0x02002033, mulhsu},   {0x02004033, div64},
    {0x02005033, divu64},    {0x02006033, rem64},    {0x02007033, remu64},
    {0x0200403b, divw},      {0x0200503b, divuw},    {0x0200603b, remw},
    {0x0200703b, remuw},     {0x20002033, sh1add},   {0x20004033, sh2add},
    {0x20006033, sh3add},    {0x0800003b, adduw},    {0x2000203b, sh1adduw},
    {0x2000403b, sh2adduw},  {0x2000603b, sh3adduw}, {0x40007033, andn},
    {0x40006033, orn},       {0x40004033, xnor},     {0x0a004033, min},
    {0x0a005033, minu},      {0x0a006033, max},      {0x0a007033, maxu},
    {0x60001033, rol},       {0x60005033, ror},      {0x6000103b, rolw},
    {0x6000503b, rorw},      {0x48001033, bclr},     {0x28001033, bset},
    {0x68001033, binv},      {0x48005033, bext},     {0x0e005033, czero_eqz},
    {0x0e007033, czero_nez},
};

/* Every pair of values, with distinct registers, with rd = rs1, rd = rs2 and with x0 as a source.
 */
START_TEST(binary_instructions)
{
    static const uint8_t registers[][3] = {
        {10, 11, 12}, {10, 10, 12}, {10, 11, 10}, {10, 0, 12},
        {10, 11, 0},  {10, 11, 11}, {10, 0, 0},
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(binary) / sizeof(binary[0]); i++) {
        for (unsigned shape = 0; shape < 7; shape++) {
            unsigned rd = registers[shape][0], rs1 = registers[shape][1], rs2 = registers[shape][2];
            uint32_t word = binary[i].word | rd << 7 | rs1 << 15 | rs2 << 20;
            for (unsigned pair = 0; pair < COUNT * COUNT; pair++) {
                m->cpu.x[10] = UINT64_C(0x5555555555555555);
                m->cpu.x[rs2] = rs2 ? interesting[pair % COUNT] : 0;
                m->cpu.x[rs1] = rs1 ? interesting[pair / COUNT] : 0;
                uint64_t a = m->cpu.x[rs1], b = m->cpu.x[rs2];
                m->cpu.cpu.pc = CODE;
                execute(m, word);
                ck_assert_msg(m->cpu.x[rd] == binary[i].expected(a, b), "%08x: %lx, %lx gives %lx",
                              word, a, b, m->cpu.x[rd]);
                ck_assert_uint_eq(m->cpu.x[0], 0);
            }
        }
    }
    machine_free(m);
}
END_TEST

static const struct {
    uint32_t word;
    formula *expected;
    bool is_shift;
    uint8_t bits; /* of the shift amount */
} immediates[] = {
    {0x00000013, add, false, 0},  {0x00007013, and, false, 0}, {0x00006013, or, false, 0},
    {0x00004013, xor, false, 0},  {0x00002013, slt, false, 0}, {0x00003013, sltu, false, 0},
    {0x0000001b, addw, false, 0}, {0x00001013, sll, true, 6},  {0x00005013, srl, true, 6},
    {0x40005013, sra, true, 6},   {0x60005013, ror, true, 6},  {0x0000101b, sllw, true, 5},
    {0x0000501b, srlw, true, 5},  {0x4000501b, sraw, true, 5}, {0x6000501b, rorw, true, 5},
    {0x48001013, bclr, true, 6},  {0x28001013, bset, true, 6}, {0x68001013, binv, true, 6},
    {0x48005013, bext, true, 6},
};

START_TEST(immediate_instructions)
{
    static const int16_t values[] = {0, 1, -1, 2, 2047, -2048, 1000, -3};
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(immediates) / sizeof(immediates[0]); i++) {
        unsigned count = immediates[i].is_shift ? 1u << immediates[i].bits : 8;
        for (unsigned value = 0; value < count; value++) {
            int64_t b = immediates[i].is_shift ? (int64_t)value : values[value];
            for (unsigned rs1 = 0; rs1 <= 11; rs1 += rs1 ? 1 : 10) { /* x0, x10, x11 */
                uint32_t word =
                    immediates[i].word | 10 << 7 | rs1 << 15 | ((uint32_t)b & 0xfff) << 20;
                for (unsigned n = 0; n < COUNT; n++) {
                    m->cpu.x[10] = ~interesting[n];
                    m->cpu.x[rs1] = rs1 ? interesting[n] : 0;
                    uint64_t a = m->cpu.x[rs1];
                    m->cpu.cpu.pc = CODE;
                    execute(m, word);
                    ck_assert_msg(m->cpu.x[10] == immediates[i].expected(a, (uint64_t)b),
                                  "%08x: %lx gives %lx", word, a, m->cpu.x[10]);
                }
            }
        }
    }
    machine_free(m);
}
END_TEST

static uint64_t reverse_bytes(uint64_t a)
{
    uint64_t result = 0;
    for (unsigned i = 0; i < 8; i++) {
        result |= (a >> (8 * i) & 0xff) << (56 - 8 * i);
    }
    return result;
}

static uint64_t leading_zeros(uint64_t a, unsigned width)
{
    unsigned count = 0;
    while (count < width && !(a >> (width - 1 - count) & 1)) {
        count++;
    }
    return count;
}

static uint64_t trailing_zeros(uint64_t a, unsigned width)
{
    unsigned count = 0;
    while (count < width && !(a >> count & 1)) {
        count++;
    }
    return count;
}

static uint64_t ones(uint64_t a)
{
    unsigned count = 0;
    for (; a; a &= a - 1) {
        count++;
    }
    return count;
}

FORMULA(clz, leading_zeros(a, 64))
FORMULA(ctz, trailing_zeros(a, 64))
FORMULA(cpop, ones(a))
FORMULA(clzw, leading_zeros(U32(a), 32))
FORMULA(ctzw, trailing_zeros(U32(a), 32))
FORMULA(cpopw, ones(U32(a)))
FORMULA(sextb, (int8_t)a)
FORMULA(sexth, (int16_t)a)
FORMULA(zexth, (uint16_t)a)
FORMULA(rev8, reverse_bytes(a))
FORMULA(orc_b, orcb(a))

START_TEST(unary_instructions)
{
    static const struct {
        uint32_t word;
        formula *expected;
    } unary[] = {
        {0x60001013, clz},   {0x60101013, ctz},   {0x60201013, cpop},  {0x6000101b, clzw},
        {0x6010101b, ctzw},  {0x6020101b, cpopw}, {0x60401013, sextb}, {0x60501013, sexth},
        {0x0800403b, zexth}, {0x6b805013, rev8},  {0x28705013, orc_b},
    };
    struct machine *m = machine_new();
    for (unsigned i = 0; i < sizeof(unary) / sizeof(unary[0]); i++) {
        for (unsigned n = 0; n < COUNT; n++) {
            m->cpu.x[11] = interesting[n];
            m->cpu.cpu.pc = CODE;
            execute(m, unary[i].word | 10 << 7 | 11 << 15);
            ck_assert_msg(m->cpu.x[10] == unary[i].expected(interesting[n], 0),
                          "%08x: %lx gives %lx", unary[i].word, interesting[n], m->cpu.x[10]);
        }
    }
    for (unsigned shift = 0; shift < 64; shift++) { /* slli.uw */
        m->cpu.x[11] = UINT64_C(0xfedcba9876543210);
        m->cpu.cpu.pc = CODE;
        execute(m, 0x0800101b | 10 << 7 | 11 << 15 | shift << 20);
        ck_assert_uint_eq(m->cpu.x[10], UINT64_C(0x76543210) << shift);
    }
    machine_free(m);
}
END_TEST

START_TEST(upper_immediates_and_addresses)
{
    struct machine *m = machine_new();
    execute(m, 0x80000537); /* lui a0, 0x80000 */
    ck_assert_uint_eq(m->cpu.x[10], UINT64_C(0xffffffff80000000));
    m->cpu.cpu.pc = CODE + 0x123 * 4;
    execute(m, 0xfffff517); /* auipc a0, -1 */
    ck_assert_uint_eq(m->cpu.x[10], CODE + 0x123 * 4 - 0x1000);
    /* auipc a0, 1; addi a0, a0, -16 in one block */
    m->cpu.cpu.pc = CODE;
    put32(m, CODE, 0x00001517);
    put32(m, CODE + 4, 0xff050513);
    step(m, 2);
    ck_assert_uint_eq(m->cpu.x[10], CODE + 0x1000 - 16);
    machine_free(m);
}
END_TEST

static uint32_t branch_word(unsigned funct3, unsigned rs1, unsigned rs2, int offset)
{
    uint32_t bits = (uint32_t)offset;
    return (bits >> 12 & 1) << 31 | (bits >> 5 & 63) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 |
           (bits >> 1 & 15) << 8 | (bits >> 11 & 1) << 7 | 0x63;
}

static bool branch_taken(unsigned funct3, uint64_t a, uint64_t b)
{
    switch (funct3) {
    case 0:
        return a == b;
    case 1:
        return a != b;
    case 4:
        return S64(a) < S64(b);
    case 5:
        return S64(a) >= S64(b);
    case 6:
        return a < b;
    default:
        return a >= b;
    }
}

START_TEST(branches)
{
    static const uint8_t functions[] = {0, 1, 4, 5, 6, 7};
    static const uint8_t registers[][2] = {{10, 11}, {0, 11}, {10, 0}, {10, 10}, {0, 0}};
    static const int offsets[] = {8, -8, 4094, -4096};
    struct machine *m = machine_new();
    for (unsigned i = 0; i < 6 * 5 * 4; i++) {
        unsigned funct3 = functions[i % 6];
        unsigned rs1 = registers[i / 6 % 5][0], rs2 = registers[i / 6 % 5][1];
        int offset = offsets[i / 30];
        for (unsigned pair = 0; pair < COUNT * COUNT; pair++) {
            uint64_t pc = CODE + 0x2ff4;
            m->cpu.x[10] = interesting[pair / COUNT];
            m->cpu.x[11] = interesting[pair % COUNT];
            m->cpu.cpu.pc = pc;
            execute(m, branch_word(funct3, rs1, rs2, offset));
            bool taken = branch_taken(funct3, m->cpu.x[rs1], m->cpu.x[rs2]);
            ck_assert_uint_eq(m->cpu.cpu.pc, taken ? pc + (uint64_t)(int64_t)offset : pc + 4);
        }
    }
    machine_free(m);
}
END_TEST

START_TEST(jumps_link_and_clear_bit_zero)
{
    struct machine *m = machine_new();
    m->cpu.cpu.pc = CODE + 0x100;
    execute(m, 0xff9ff0ef); /* jal ra, -8 */
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 0xf8);
    ck_assert_uint_eq(m->cpu.x[1], CODE + 0x104);
    m->cpu.x[1] = CODE + 0x201;
    m->cpu.cpu.pc = CODE;
    execute(m, 0x00408067 | 1 << 7); /* jalr ra, 4(ra) */
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 0x204);
    ck_assert_uint_eq(m->cpu.x[1], CODE + 4);
    m->cpu.x[10] = CODE + 0x1fe;
    m->cpu.cpu.pc = CODE;
    execute(m, 0x00350067); /* jalr zero, 3(a0): odd sum */
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 0x200);
    m->cpu.cpu.pc = CODE; /* c.jalr a0 links past 2 bytes */
    execute(m, 0x9502);
    ck_assert_uint_eq(m->cpu.x[1], CODE + 2);
    m->cpu.cpu.pc = CODE; /* far call, odd displacement */
    put32(m, CODE, 0x00001097);
    put32(m, CODE + 4, 0x003080e7);
    step(m, 2);
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 0x1002);
    ck_assert_uint_eq(m->cpu.x[1], CODE + 8);
    ck_assert_uint_eq(m->cpu.cpu.retired, 6);
    machine_free(m);
}
END_TEST

START_TEST(loads_extend_and_stores_truncate)
{
    static const struct {
        uint32_t funct3;
        uint64_t expected;
    } loads[] = {
        {0, 0xfffffffffffffff1}, {1, 0xffffffffffffb2f1}, {2, 0xffffffffd4c3b2f1},
        {3, 0x18f7e6f5d4c3b2f1}, {4, 0x00000000000000f1}, {5, 0x000000000000b2f1},
        {6, 0x00000000d4c3b2f1},
    };
    struct machine *m = machine_new();
    uint64_t data = RAM_BASE + 0x4003; /* misaligned on purpose */
    put64(m, data, UINT64_C(0x18f7e6f5d4c3b2f1));
    for (unsigned i = 0; i < 7; i++) {
        m->cpu.x[11] = data + 5;
        m->cpu.cpu.pc = CODE;
        execute(m, 0xffb00003 | 11 << 15 | loads[i].funct3 << 12 | 10 << 7); /* -5(a1) */
        ck_assert_uint_eq(m->cpu.x[10], loads[i].expected);
    }
    for (unsigned size = 0; size < 4; size++) {
        uint64_t mask = size == 3 ? UINT64_MAX : BIT64(8u << size) - 1;
        put64(m, data, 0);
        m->cpu.x[11] = data;
        m->cpu.x[12] = UINT64_C(0xfedcba9876543210);
        m->cpu.cpu.pc = CODE;
        execute(m, 12 << 20 | 11 << 15 | size << 12 | 0x23);
        ck_assert_uint_eq(get64(m, data), m->cpu.x[12] & mask);
    }
    m->cpu.f[10] = 0;
    m->cpu.csr.mstatus |= STATUS_FS | STATUS_SD;
    m->cpu.cpu.block_mode = BLOCK_MODE_FS_DIRTY;
    put64(m, data, UINT64_C(0x123456783f800000));
    m->cpu.cpu.pc = CODE;
    execute(m, 11 << 15 | 2 << 12 | 10 << 7 | 0x07); /* flw boxes */
    ck_assert_uint_eq(m->cpu.f[10], UINT64_C(0xffffffff3f800000));
    machine_free(m);
}
END_TEST

START_TEST(atomics)
{
    static const struct {
        uint32_t funct5;
        uint64_t expected; /* of 0xffffffff80000001 op 5 */
    } cases[] = {
        {0x00, 0xffffffff80000006},
        {0x01, 5},
        {0x04, 0xffffffff80000004},
        {0x08, 0xffffffff80000005},
        {0x0c, 1},
        {0x10, 0xffffffff80000001},
        {0x14, 5},
        {0x18, 5},
        {0x1c, 0xffffffff80000001},
    };
    struct machine *m = machine_new();
    uint64_t data = RAM_BASE + 0x4000, initial = UINT64_C(0xffffffff80000001);
    for (unsigned i = 0; i < 9; i++) {
        for (unsigned size = 2; size < 4; size++) {
            put64(m, data, initial);
            m->cpu.x[11] = data;
            m->cpu.x[12] = 5;
            m->cpu.cpu.pc = CODE;
            execute(m, cases[i].funct5 << 27 | 12 << 20 | 11 << 15 | size << 12 | 10 << 7 | 0x2f);
            ck_assert_uint_eq(m->cpu.x[10], initial);
            ck_assert_uint_eq(get64(m, data), size == 3
                                                  ? cases[i].expected
                                                  : (initial >> 32 << 32) | U32(cases[i].expected));
        }
    }
    /* misaligned: the store flavour of the exception, for LR the load's */
    m->cpu.csr.mtvec = RAM_BASE + 0x8000;
    m->cpu.x[11] = data + 4;
    m->cpu.cpu.pc = CODE;
    execute(m, 12 << 20 | 11 << 15 | 3 << 12 | 10 << 7 | 0x2f);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_STORE_MISALIGNED);
    ck_assert_uint_eq(m->cpu.csr.mtval, data + 4);
    m->cpu.cpu.pc = CODE;
    execute(m, 2u << 27 | 11 << 15 | 3 << 12 | 10 << 7 | 0x2f);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_LOAD_MISALIGNED);
    machine_free(m);
}
END_TEST

START_TEST(load_reserved_and_store_conditional)
{
    struct machine *m = machine_new();
    uint64_t data = RAM_BASE + 0x4000;
    put64(m, data, UINT64_C(0x1111111180000000));
    m->cpu.x[11] = data;
    m->cpu.x[12] = 7;
    execute(m, 2u << 27 | 11 << 15 | 2 << 12 | 10 << 7 | 0x2f); /* lr.w */
    ck_assert_uint_eq(m->cpu.x[10], UINT64_C(0xffffffff80000000));
    m->cpu.cpu.pc = CODE;
    execute(m, 3u << 27 | 12 << 20 | 11 << 15 | 2 << 12 | 10 << 7 | 0x2f); /* sc.w */
    ck_assert_uint_eq(m->cpu.x[10], 0);
    ck_assert_uint_eq(get64(m, data), UINT64_C(0x1111111100000007));
    m->cpu.cpu.pc = CODE;
    execute(m, 3u << 27 | 12 << 20 | 11 << 15 | 2 << 12 | 10 << 7 | 0x2f);
    ck_assert_uint_eq(m->cpu.x[10], 1);
    machine_free(m);
}
END_TEST

/* Compressed forms against the instruction they stand for, as a program would see it. */
START_TEST(compressed_instructions)
{
    struct machine *m = machine_new();
    struct {
        uint16_t half;
        unsigned result;
        uint64_t expected;
    } cases[] = {
        {0x0808, 10, 0x1010},          /* c.addi4spn a0, sp, 16 */
        {0x157d, 10, 9},               /* c.addi a0, -1 */
        {0x357d, 10, 9},               /* c.addiw a0, -1 */
        {0x557d, 10, UINT64_MAX},      /* c.li a0, -1 */
        {0x757d, 10, UINT64_C(-4096)}, /* c.lui a0, -1 */
        {0x7139, 2, 0x1000 - 64},      /* c.addi16sp -64 */
        {0x8105, 10, 5},               /* c.srli a0, 1 */
        {0x8505, 10, 5},               /* c.srai a0, 1 */
        {0x8909, 10, 2},               /* c.andi a0, 2 */
        {0x8d0d, 10, 10 - 3},          /* c.sub a0, a1 */
        {0x8d2d, 10, 9},               /* c.xor a0, a1 */
        {0x8d4d, 10, 10 | 3},          /* c.or a0, a1 */
        {0x8d6d, 10, 10 & 3},          /* c.and a0, a1 */
        {0x9d0d, 10, 7},               /* c.subw a0, a1 */
        {0x9d2d, 10, 13},              /* c.addw a0, a1 */
        {0x0506, 10, 20},              /* c.slli a0, 1 */
        {0x852e, 10, 3},               /* c.mv a0, a1 */
        {0x952e, 10, 13},              /* c.add a0, a1 */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        m->cpu.x[2] = 0x1000;
        m->cpu.x[10] = 10;
        m->cpu.x[11] = 3;
        m->cpu.cpu.pc = CODE;
        execute(m, cases[i].half);
        ck_assert_msg(m->cpu.x[cases[i].result] == cases[i].expected, "%04x gives %lx",
                      cases[i].half, m->cpu.x[cases[i].result]);
        ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 2);
    }
    machine_free(m);
}
END_TEST

/* A loop of real code: sum of 1 to 100. */
START_TEST(a_small_program_runs)
{
    static const uint32_t program[] = {
        0x06400593, /* li a1, 100 */
        0x00000513, /* li a0, 0 */
        0x00b50533, /* add a0, a0, a1 */
        0xfff58593, /* addi a1, a1, -1 */
        0xfe059ce3, /* bnez a1, -8 */
        0x00000013,
    };
    struct machine *m = machine_new();
    memcpy(ram(m, CODE, sizeof(program)), program, sizeof(program));
    while (m->cpu.cpu.pc != CODE + 20) {
        step(m, 5);
    }
    ck_assert_uint_eq(m->cpu.x[10], 5050);
    ck_assert_uint_eq(m->cpu.cpu.retired, 2 + 300);
    machine_free(m);
}
END_TEST

START_TEST(float_constants)
{
    static const uint64_t doubles[32] = {
        0xbff0000000000000, 0x0010000000000000, 0x3ef0000000000000, 0x3f00000000000000,
        0x3f70000000000000, 0x3f80000000000000, 0x3fb0000000000000, 0x3fc0000000000000,
        0x3fd0000000000000, 0x3fd4000000000000, 0x3fd8000000000000, 0x3fdc000000000000,
        0x3fe0000000000000, 0x3fe4000000000000, 0x3fe8000000000000, 0x3fec000000000000,
        0x3ff0000000000000, 0x3ff4000000000000, 0x3ff8000000000000, 0x3ffc000000000000,
        0x4000000000000000, 0x4004000000000000, 0x4008000000000000, 0x4010000000000000,
        0x4020000000000000, 0x4030000000000000, 0x4060000000000000, 0x4070000000000000,
        0x40e0000000000000, 0x40f0000000000000, 0x7ff0000000000000, 0x7ff8000000000000,
    };
    struct machine *m = machine_new();
    m->cpu.csr.mstatus |= STATUS_FS | STATUS_SD;
    m->cpu.cpu.block_mode = BLOCK_MODE_FS_DIRTY;
    for (unsigned i = 0; i < 32; i++) {
        double value;
        float narrow;
        uint32_t bits;
        m->cpu.cpu.pc = CODE;
        execute(m, 0xf2100053 | i << 15 | 10 << 7); /* fli.d */
        ck_assert_uint_eq(m->cpu.f[10], doubles[i]);
        m->cpu.cpu.pc = CODE;
        execute(m, 0xf0100053 | i << 15 | 10 << 7); /* fli.s */
        memcpy(&value, &doubles[i], 8);
        narrow = i == 1 ? 0x1p-126f : (float)value;
        memcpy(&bits, &narrow, 4);
        ck_assert_uint_eq(m->cpu.f[10], UINT64_C(0xffffffff00000000) | bits);
    }
    machine_free(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 execute");
    TCase *execute_case = tcase_create("execute");
    tcase_set_timeout(execute_case, 120);
    tcase_add_test(execute_case, binary_instructions);
    tcase_add_test(execute_case, immediate_instructions);
    tcase_add_test(execute_case, unary_instructions);
    tcase_add_test(execute_case, upper_immediates_and_addresses);
    tcase_add_test(execute_case, branches);
    tcase_add_test(execute_case, jumps_link_and_clear_bit_zero);
    tcase_add_test(execute_case, loads_extend_and_stores_truncate);
    tcase_add_test(execute_case, atomics);
    tcase_add_test(execute_case, load_reserved_and_store_conditional);
    tcase_add_test(execute_case, compressed_instructions);
    tcase_add_test(execute_case, a_small_program_runs);
    tcase_add_test(execute_case, float_constants);
    suite_add_tcase(suite, execute_case);
    return suite_run(suite);
}
