/* Units of loads, stores and atomics. */
#include "tests/lockstep/units.h"

/* --- memory --------------------------------------------------------------------------------- */
/* Put an address into `reg`: a random register's bits, masked, from the window's middle. */
static void emit_address(struct generator *generator, unsigned reg, int mask)
{
    emit32(generator, encode_i(0x7013, reg, any_source(generator), mask));
    emit32(generator, encode_r(0x00000033, reg, reg, GP));
}

struct memory_form {
    uint32_t fixed;
    unsigned bytes;
    bool store, floating;
};

static const struct memory_form memory_forms[] = {
    {0x0003, 1, false, false}, {0x1003, 2, false, false}, {0x2003, 4, false, false},
    {0x3003, 8, false, false}, {0x4003, 1, false, false}, {0x5003, 2, false, false},
    {0x6003, 4, false, false}, {0x0023, 1, true, false},  {0x1023, 2, true, false},
    {0x2023, 4, true, false},  {0x3023, 8, true, false},  {0x2007, 4, false, true},
    {0x3007, 8, false, true},  {0x2027, 4, true, true},   {0x3027, 8, true, true},
};

void memory_access(struct generator *generator)
{
    const struct memory_form *form = &PICK(generator, memory_forms);
    unsigned base = GP;
    int lowest = -2048;
    int highest = 2047 - (int)form->bytes + 1;
    if (one_in(generator, 2)) {
        /* 0 to 1023 above the middle. */
        emit_address(generator, ADDRESS, 1023);
        base = ADDRESS;
        highest = 1024 - (int)form->bytes;
    }
    int offset = lowest + (int)below(generator, (unsigned)(highest - lowest + 1));
    if (one_in(generator, 8)) { /* across the page border */
        offset = base == GP ? -(int)below(generator, form->bytes + 1) : offset;
    } else if (!one_in(generator, 4)) {
        offset &= -(int)form->bytes;
    }
    unsigned value = form->floating ? below(generator, 32)
                     : form->store  ? any_source(generator)
                                    : any_destination(generator);
    emit32(generator, form->store ? encode_s(form->fixed, base, value, offset)
                                  : encode_i(form->fixed, value, base, offset));
}

/* Fresh values: without them everything ends as NaN, zero and minus one. */
void pool_load(struct generator *generator)
{
    /* ld, fld, flw, lw */
    static const uint32_t table[] = {0x3003, 0x3003, 0x3007, 0x3007,
                                     0x3007, 0x2007, 0x2007, 0x2003};
    uint32_t fixed = PICK(generator, table);
    unsigned rd = (fixed & 0x7f) == 0x07 ? below(generator, 32) : any_destination(generator);
    emit32(generator, encode_i(fixed, rd, TP, POOL + 8 * (int)below(generator, STREAM_POOL_COUNT)));
}

void compressed_memory(struct generator *generator)
{
    /* c.lw c.ld c.fld c.sw c.sd c.fsd */
    static const uint32_t table[] = {0x4000, 0x6000, 0x2000, 0xc000, 0xe000, 0xa000};
    uint32_t fixed = PICK(generator, table);
    unsigned base = below(generator, 8);
    emit_address(generator, base + 8, 1023);
    if ((fixed & 0x7fff) == 0x4000) {
        emit16(generator,
               encode_cl_word(fixed, below(generator, 8), base, 4 * below(generator, 32)));
    } else {
        emit16(generator,
               encode_cl_double(fixed, below(generator, 8), base, 8 * below(generator, 32)));
    }
}

void compressed_stack(struct generator *generator)
{
    unsigned word = 4 * below(generator, 64);
    unsigned twice = 8 * below(generator, 64);
    switch (below(generator, 6)) {
    case 0: /* c.lwsp */
        emit16(generator, encode_load_sp_word(0x4002, nonzero_destination(generator), word));
        break;
    case 1: /* c.ldsp */
        emit16(generator, encode_load_sp_double(0x6002, nonzero_destination(generator), twice));
        break;
    case 2: /* c.fldsp */
        emit16(generator, encode_load_sp_double(0x2002, below(generator, 32), twice));
        break;
    case 3: /* c.swsp */
        emit16(generator, encode_store_sp_word(0xc002, any_source(generator), word));
        break;
    case 4: /* c.sdsp */
        emit16(generator, encode_store_sp_double(0xe002, any_source(generator), twice));
        break;
    default: /* c.fsdsp */
        emit16(generator, encode_store_sp_double(0xa002, below(generator, 32), twice));
        break;
    }
}

/* --- atomics -------------------------------------------------------------------------------- */
static uint32_t any_ordering(struct generator *generator)
{
    return below(generator, 4) << 25;
}

void atomic(struct generator *generator)
{
    /* amoadd amoswap amoxor amoor amoand amomin amomax amominu amomaxu */
    static const uint32_t functions[] = {0, 1, 4, 8, 12, 16, 20, 24, 28};
    uint32_t width = 2 + below(generator, 2);
    emit_address(generator, ADDRESS, 0x3f8 | (width == 2 ? 4 : 0));
    uint32_t fixed =
        0x2f | width << 12 | PICK(generator, functions) << 27 | any_ordering(generator);
    emit32(generator, encode_r(fixed, any_destination(generator), ADDRESS, any_source(generator)));
}

/* Load-reserved, a few plain instructions, store-conditional to the same address; at times a second
 * store-conditional, which must fail. */
void reserve_and_store(struct generator *generator)
{
    /* add xor addi-like forms that leave the address alone */
    static const uint32_t table[] = {0x00000033, 0x00004033, 0x40000033};
    uint32_t width = 2 + below(generator, 2);
    emit_address(generator, ADDRESS, 0x3f8 | (width == 2 ? 4 : 0));
    unsigned loaded;
    do {
        loaded = any_destination(generator);
    } while (loaded == ADDRESS);
    emit32(generator,
           encode_r(0x1000002f | width << 12 | any_ordering(generator), loaded, ADDRESS, 0));
    for (unsigned i = below(generator, 4); i > 0; i--) {
        unsigned rd;
        do {
            rd = any_destination(generator);
        } while (rd == ADDRESS);
        emit32(generator,
               encode_r(PICK(generator, table), rd, any_source(generator), any_source(generator)));
    }
    unsigned result = any_destination(generator);
    uint32_t store = 0x1800002f | width << 12 | any_ordering(generator);
    emit32(generator, encode_r(store, result, ADDRESS, any_source(generator)));
    if (one_in(generator, 3) && result != ADDRESS) {
        emit32(generator,
               encode_r(store, any_destination(generator), ADDRESS, any_source(generator)));
    }
}

void fence(struct generator *generator)
{
    /* fence with any sets, fence.tso, fence.i */
    static const uint32_t table[] = {0x0ff0000f, 0x0330000f, 0x0110000f, 0x0220000f, 0x8330000f};
    emit32(generator, one_in(generator, 6) ? 0x0000100fu : PICK(generator, table));
}
