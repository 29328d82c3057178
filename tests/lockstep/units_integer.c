/* Units of integer instructions. */
#include "tests/lockstep/units.h"

/* --- integer -------------------------------------------------------------------------------- */
void integer_register(struct generator *generator)
{
    static const uint32_t table[] = {
        /* add sub sll slt sltu xor srl sra or and; the W forms */
        0x00000033, 0x40000033, 0x00001033, 0x00002033, 0x00003033, 0x00004033, 0x00005033,
        0x40005033, 0x00006033, 0x00007033, 0x0000003b, 0x4000003b, 0x0000103b, 0x0000503b,
        0x4000503b,
        /* mul mulh mulhsu mulhu div divu rem remu; the W forms */
        0x02000033, 0x02001033, 0x02002033, 0x02003033, 0x02004033, 0x02005033, 0x02006033,
        0x02007033, 0x0200003b, 0x0200403b, 0x0200503b, 0x0200603b, 0x0200703b,
        /* sh1add sh2add sh3add, add.uw and the same .uw */
        0x20002033, 0x20004033, 0x20006033, 0x0800003b, 0x2000203b, 0x2000403b, 0x2000603b,
        /* andn orn xnor min minu max maxu rol ror rolw rorw */
        0x40007033, 0x40006033, 0x40004033, 0x0a004033, 0x0a005033, 0x0a006033, 0x0a007033,
        0x60001033, 0x60005033, 0x6000103b, 0x6000503b,
        /* bclr bext binv bset */
        0x48001033, 0x48005033, 0x68001033, 0x28001033};
    emit32(generator, encode_r(PICK(generator, table), any_destination(generator),
                               any_source(generator), any_source(generator)));
}

void integer_unary(struct generator *generator)
{
    static const uint32_t table[] = {
        /* clz ctz cpop sext.b sext.h clzw ctzw cpopw zext.h orc.b rev8 */
        0x60001013, 0x60101013, 0x60201013, 0x60401013, 0x60501013, 0x6000101b,
        0x6010101b, 0x6020101b, 0x0800403b, 0x28705013, 0x6b805013};
    enum { CTZW = 0x6010101b, BSETI = 0x28001013 };
    uint32_t instruction = PICK(generator, table);
    unsigned source = any_source(generator);
    if (instruction == CTZW) {
        emit32(generator, encode_i(BSETI, ADDRESS, source, 31));
        source = ADDRESS;
    }
    emit32(generator, encode_r(instruction, any_destination(generator), source, 0));
}

void integer_immediate(struct generator *generator)
{
    /* addi slti sltiu xori ori andi addiw */
    static const uint32_t table[] = {0x0013, 0x2013, 0x3013, 0x4013, 0x6013, 0x7013, 0x001b};
    emit32(generator, encode_i(PICK(generator, table), any_destination(generator),
                               any_source(generator), small_immediate(generator)));
}

void integer_shift(struct generator *generator)
{
    /* slli srli srai rori slli.uw bclri bexti binvi bseti; the W forms have five bits */
    static const uint32_t wide[] = {0x00001013, 0x00005013, 0x40005013, 0x60005013, 0x0800101b,
                                    0x48001013, 0x48005013, 0x68001013, 0x28001013};
    static const uint32_t word[] = {0x0000101b, 0x0000501b, 0x4000501b, 0x6000501b};
    bool is_word = one_in(generator, 3);
    uint32_t fixed = is_word ? PICK(generator, word) : PICK(generator, wide);
    emit32(generator, encode_i(fixed, any_destination(generator), any_source(generator),
                               (int)below(generator, is_word ? 32 : 64)));
}

void upper_immediate(struct generator *generator)
{
    uint32_t upper = (uint32_t)random_next(&generator->random) & 0xfffff;
    emit32(generator,
           encode_u(one_in(generator, 2) ? 0x37 : 0x17, any_destination(generator), upper));
}

/* --- compressed integer --------------------------------------------------------------------- */
void compressed_immediate(struct generator *generator)
{
    unsigned rd = nonzero_destination(generator);
    unsigned immediate = below(generator, 64);
    unsigned nonzero = 1 + below(generator, 63);
    switch (below(generator, 7)) {
    case 0: /* c.addi; a zero register makes it a no-operation */
        emit16(generator, encode_ci(0x0001, one_in(generator, 8) ? 0 : rd, immediate));
        break;
    case 1: /* c.addiw */
        emit16(generator, encode_ci(0x2001, rd, immediate));
        break;
    case 2: /* c.li */
        emit16(generator, encode_ci(0x4001, rd, immediate));
        break;
    case 3: /* c.lui */
        emit16(generator, encode_ci(0x6001, rd, nonzero));
        break;
    case 4: /* c.slli */
        emit16(generator, encode_ci(0x0002, rd, nonzero));
        break;
    case 5: /* c.addi4spn */
        emit16(generator, encode_addi4spn(below(generator, 8), 4 * (1 + below(generator, 255))));
        break;
    default: { /* c.addi16sp there and back */
        int offset = 16 * (1 + (int)below(generator, 30));
        emit16(generator, encode_addi16sp(offset));
        emit16(generator, encode_addi16sp(-offset));
        break;
    }
    }
}

void compressed_compact(struct generator *generator)
{
    /* c.srli c.srai c.andi */
    static const uint32_t immediates[] = {0x8001, 0x8401, 0x8801};
    /* c.sub c.xor c.or c.and c.subw c.addw */
    static const uint32_t registers[] = {0x8c01, 0x8c21, 0x8c41, 0x8c61, 0x9c01, 0x9c21};
    unsigned rd = below(generator, 8);
    if (one_in(generator, 2)) {
        emit16(generator, encode_ca(PICK(generator, registers), rd, below(generator, 8)));
    } else {
        emit16(generator, encode_ci(PICK(generator, immediates), rd, 1 + below(generator, 63)));
    }
}

void compressed_move(struct generator *generator)
{
    /* c.mv, c.add */
    unsigned source = 1 + below(generator, 31);
    emit16(generator, encode_ca(one_in(generator, 2) ? 0x8002 : 0x9002,
                                nonzero_destination(generator), source));
}
