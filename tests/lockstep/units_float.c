/* Units of floating-point instructions. */
#include "tests/lockstep/units.h"

/* --- floating point ------------------------------------------------------------------------- */
void float_arithmetic(struct generator *generator)
{
    /* fadd fsub fmul fdiv */
    static const uint32_t table[] = {0x00000053, 0x08000053, 0x10000053, 0x18000053};
    emit32(generator,
           encode_r(PICK(generator, table) | any_format(generator) | any_rounding(generator),
                    below(generator, 32), below(generator, 32), below(generator, 32)));
}

void float_square_root(struct generator *generator)
{
    emit32(generator, encode_r(0x58000053 | any_format(generator) | any_rounding(generator),
                               below(generator, 32), below(generator, 32), 0));
}

void float_fused(struct generator *generator)
{
    /* fmadd fmsub fnmsub fnmadd */
    static const uint32_t table[] = {0x43, 0x47, 0x4b, 0x4f};
    emit32(generator,
           encode_r4(PICK(generator, table) | any_format(generator) | any_rounding(generator),
                     below(generator, 32), below(generator, 32), below(generator, 32),
                     below(generator, 32)));
}

void float_select(struct generator *generator)
{
    /* fsgnj fsgnjn fsgnjx fmin fmax */
    static const uint32_t table[] = {0x20000053, 0x20001053, 0x20002053, 0x28000053, 0x28001053};
    emit32(generator, encode_r(PICK(generator, table) | any_format(generator), below(generator, 32),
                               below(generator, 32), below(generator, 32)));
}

void float_compare(struct generator *generator)
{
    /* fle flt feq */
    static const uint32_t table[] = {0xa0000053, 0xa0001053, 0xa0002053};
    emit32(generator,
           encode_r(PICK(generator, table) | any_format(generator), any_destination(generator),
                    below(generator, 32), below(generator, 32)));
}

void float_inspect(struct generator *generator)
{
    /* fclass, fmv.x */
    static const uint32_t table[] = {0xe0001053, 0xe0000053};
    emit32(generator, encode_r(PICK(generator, table) | any_format(generator),
                               any_destination(generator), below(generator, 32), 0));
}

void float_from_bits(struct generator *generator)
{
    emit32(generator, encode_r(0xf0000053 | any_format(generator), below(generator, 32),
                               any_source(generator), 0));
}

/* The integer kinds w, wu, l, lu are the second register field. */
void float_to_integer(struct generator *generator)
{
    emit32(generator,
           encode_r(0xc0000053 | any_format(generator) | any_rounding(generator),
                    any_destination(generator), below(generator, 32), below(generator, 4)));
}

void float_from_integer(struct generator *generator)
{
    emit32(generator, encode_r(0xd0000053 | any_format(generator) | any_rounding(generator),
                               below(generator, 32), any_source(generator), below(generator, 4)));
}

void float_convert(struct generator *generator)
{
    /* fcvt.s.d, fcvt.d.s */
    static const uint32_t table[] = {0x40100053, 0x42000053};
    emit32(generator, encode_r(PICK(generator, table) | any_rounding(generator),
                               below(generator, 32), below(generator, 32), 0));
}

/* As compilers compare without a flag: read the flags, compare, set them as they were. */
void float_compare_silently(struct generator *generator)
{
    enum { FRFLAGS = 0x2073, FSFLAGS = 0x1073, FFLAGS = 1 };
    unsigned flags = any_destination(generator);
    emit32(generator, encode_i(FRFLAGS, flags, ZERO, FFLAGS));
    float_compare(generator);
    if (below(generator, 4) == 0) {
        float_arithmetic(generator);
    }
    emit32(generator, encode_i(FSFLAGS, ZERO, flags, FFLAGS));
}

/* Reads and writes of fflags, frm and fcsr; whatever went into frm, it holds a valid mode after. */
void float_status(struct generator *generator)
{
    enum { FFLAGS = 1, FRM = 2, CSRRWI_FRM = 0x00205073 };
    unsigned csr = 1 + below(generator, 3);
    uint32_t function = (1 + below(generator, 3)) | below(generator, 2) << 2;
    uint32_t instruction = encode_i(0x73 | function << 12, any_destination(generator),
                                    any_source(generator), (int)csr);
    emit32(generator, instruction);
    if (csr != FFLAGS) {
        emit32(generator, encode_i(0x2073, any_destination(generator), ZERO, (int)csr));
        emit32(generator, encode_i(CSRRWI_FRM & 0xfffff, any_destination(generator),
                                   below(generator, 5), FRM));
    }
}
