/*
 * How a stream stays well-defined: x2 and x3 point into the data window and x4 at the state, so
 * no unit writes them; x29 counts repetitions of the whole body and x31 those of an inner loop, and
 * both loops end as soon as their count is not positive, so that no jump over the code which sets a
 * count makes one endless. x30 is the scratch register of computed addresses.
 *
 * Where the emulator (7.2) departs from the specification, streams stay away from the case:
 * - ctzw of a word of zeros is 32 ("Bit-manipulation", section "ctzw"); the emulator goes on counting
 *   in the upper half. Its operand here always has bit 31 set.
 */
#include "tests/lockstep/generate.h"
#include "tests/lockstep/encode.h"
#include "tests/lockstep/values.h"
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { ZERO = 0, RA = 1, SP = 2, GP = 3, TP = 4, T0 = 5, REPEAT = 29, ADDRESS = 30, COUNT = 31 };
enum { POOL = offsetof(struct stream_state, pool), FCSR = offsetof(struct stream_state, fcsr) };
/* Distance of sp from the window's start: room for every offset that sp-relative forms have. */
enum { SP_OFFSET = 1024 };
enum { CODE_LIMIT = STREAM_CODE_BYTES - 1024, JUMPS_MAX = 16 };

/* A jump whose target lies some units ahead. */
struct jump {
    uint32_t at;   /* code offset of the instruction to patch */
    uint32_t from; /* offset that the encoded distance counts from */
    uint32_t (*encode)(int offset);
    unsigned units_left; /* 0 = free slot */
    bool compact;        /* a 16-bit instruction */
};

struct generator {
    struct random random;
    uint8_t *code;
    uint32_t size;
    struct jump jumps[JUMPS_MAX];
    unsigned loop_units; /* until the inner loop ends; 0 = none is open */
    uint32_t loop_start;
};

#define PICK(generator, table)                                                                     \
    ((table)[random_below(&(generator)->random, sizeof(table) / sizeof((table)[0]))])

/* --- emitting ------------------------------------------------------------------------------- */
static void emit16(struct generator *generator, uint32_t instruction)
{
    uint16_t bits = (uint16_t)instruction;
    memcpy(generator->code + generator->size, &bits, sizeof(bits));
    generator->size += sizeof(bits);
}

static void emit32(struct generator *generator, uint32_t instruction)
{
    memcpy(generator->code + generator->size, &instruction, sizeof(instruction));
    generator->size += sizeof(instruction);
}

static unsigned below(struct generator *generator, unsigned limit)
{
    return random_below(&generator->random, limit);
}

static bool one_in(struct generator *generator, unsigned n)
{
    return random_one_in(&generator->random, n);
}

static bool is_writable(unsigned reg)
{
    return reg != SP && reg != GP && reg != TP && reg != REPEAT && reg != COUNT;
}

static unsigned any_source(struct generator *generator)
{
    return below(generator, 32);
}

/* x0 too: instructions that drop their result must still do the rest. */
static unsigned any_destination(struct generator *generator)
{
    unsigned reg;
    do {
        reg = below(generator, 32);
    } while (!is_writable(reg));
    return reg;
}

static unsigned nonzero_destination(struct generator *generator)
{
    unsigned reg;
    do {
        reg = 1 + below(generator, 31);
    } while (!is_writable(reg));
    return reg;
}

static int small_immediate(struct generator *generator)
{
    static const int corners[] = {0, 1, -1, 2, 31, 32, 63, 64, 2047, -2048, 255, -256};
    return one_in(generator, 3) ? PICK(generator, corners) : (int)below(generator, 4096) - 2048;
}

/* A static rounding mode, or the dynamic one. */
static uint32_t any_rounding(struct generator *generator)
{
    static const uint32_t modes[] = {0, 0, 1, 2, 3, 4, 7, 7};
    return PICK(generator, modes) << 12;
}

static uint32_t any_format(struct generator *generator)
{
    return below(generator, 2) << 25;
}

/* --- integer -------------------------------------------------------------------------------- */
static void integer_register(struct generator *generator)
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

static void integer_unary(struct generator *generator)
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

static void integer_immediate(struct generator *generator)
{
    /* addi slti sltiu xori ori andi addiw */
    static const uint32_t table[] = {0x0013, 0x2013, 0x3013, 0x4013, 0x6013, 0x7013, 0x001b};
    emit32(generator, encode_i(PICK(generator, table), any_destination(generator),
                               any_source(generator), small_immediate(generator)));
}

static void integer_shift(struct generator *generator)
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

static void upper_immediate(struct generator *generator)
{
    uint32_t upper = (uint32_t)random_next(&generator->random) & 0xfffff;
    emit32(generator,
           encode_u(one_in(generator, 2) ? 0x37 : 0x17, any_destination(generator), upper));
}

/* --- compressed integer --------------------------------------------------------------------- */
static void compressed_immediate(struct generator *generator)
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

static void compressed_compact(struct generator *generator)
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

static void compressed_move(struct generator *generator)
{
    /* c.mv, c.add */
    unsigned source = 1 + below(generator, 31);
    emit16(generator, encode_ca(one_in(generator, 2) ? 0x8002 : 0x9002,
                                nonzero_destination(generator), source));
}

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

static void memory_access(struct generator *generator)
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
static void pool_load(struct generator *generator)
{
    /* ld, fld, flw, lw */
    static const uint32_t table[] = {0x3003, 0x3003, 0x3007, 0x3007,
                                     0x3007, 0x2007, 0x2007, 0x2003};
    uint32_t fixed = PICK(generator, table);
    unsigned rd = (fixed & 0x7f) == 0x07 ? below(generator, 32) : any_destination(generator);
    emit32(generator, encode_i(fixed, rd, TP, POOL + 8 * (int)below(generator, STREAM_POOL_COUNT)));
}

static void compressed_memory(struct generator *generator)
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

static void compressed_stack(struct generator *generator)
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

static void atomic(struct generator *generator)
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
static void reserve_and_store(struct generator *generator)
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

static void fence(struct generator *generator)
{
    /* fence with any sets, fence.tso, fence.i */
    static const uint32_t table[] = {0x0ff0000f, 0x0330000f, 0x0110000f, 0x0220000f, 0x8330000f};
    emit32(generator, one_in(generator, 6) ? 0x0000100fu : PICK(generator, table));
}

/* --- floating point ------------------------------------------------------------------------- */
static void float_arithmetic(struct generator *generator)
{
    /* fadd fsub fmul fdiv */
    static const uint32_t table[] = {0x00000053, 0x08000053, 0x10000053, 0x18000053};
    emit32(generator,
           encode_r(PICK(generator, table) | any_format(generator) | any_rounding(generator),
                    below(generator, 32), below(generator, 32), below(generator, 32)));
}

static void float_square_root(struct generator *generator)
{
    emit32(generator, encode_r(0x58000053 | any_format(generator) | any_rounding(generator),
                               below(generator, 32), below(generator, 32), 0));
}

static void float_fused(struct generator *generator)
{
    /* fmadd fmsub fnmsub fnmadd */
    static const uint32_t table[] = {0x43, 0x47, 0x4b, 0x4f};
    emit32(generator,
           encode_r4(PICK(generator, table) | any_format(generator) | any_rounding(generator),
                     below(generator, 32), below(generator, 32), below(generator, 32),
                     below(generator, 32)));
}

static void float_select(struct generator *generator)
{
    /* fsgnj fsgnjn fsgnjx fmin fmax */
    static const uint32_t table[] = {0x20000053, 0x20001053, 0x20002053, 0x28000053, 0x28001053};
    emit32(generator, encode_r(PICK(generator, table) | any_format(generator), below(generator, 32),
                               below(generator, 32), below(generator, 32)));
}

static void float_compare(struct generator *generator)
{
    /* fle flt feq */
    static const uint32_t table[] = {0xa0000053, 0xa0001053, 0xa0002053};
    emit32(generator,
           encode_r(PICK(generator, table) | any_format(generator), any_destination(generator),
                    below(generator, 32), below(generator, 32)));
}

static void float_inspect(struct generator *generator)
{
    /* fclass, fmv.x */
    static const uint32_t table[] = {0xe0001053, 0xe0000053};
    emit32(generator, encode_r(PICK(generator, table) | any_format(generator),
                               any_destination(generator), below(generator, 32), 0));
}

static void float_from_bits(struct generator *generator)
{
    emit32(generator, encode_r(0xf0000053 | any_format(generator), below(generator, 32),
                               any_source(generator), 0));
}

/* The integer kinds w, wu, l, lu are the second register field. */
static void float_to_integer(struct generator *generator)
{
    emit32(generator,
           encode_r(0xc0000053 | any_format(generator) | any_rounding(generator),
                    any_destination(generator), below(generator, 32), below(generator, 4)));
}

static void float_from_integer(struct generator *generator)
{
    emit32(generator, encode_r(0xd0000053 | any_format(generator) | any_rounding(generator),
                               below(generator, 32), any_source(generator), below(generator, 4)));
}

static void float_convert(struct generator *generator)
{
    /* fcvt.s.d, fcvt.d.s */
    static const uint32_t table[] = {0x40100053, 0x42000053};
    emit32(generator, encode_r(PICK(generator, table) | any_rounding(generator),
                               below(generator, 32), below(generator, 32), 0));
}

/* Reads and writes of fflags, frm and fcsr; whatever went into frm, it holds a valid mode after. */
static void float_status(struct generator *generator)
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

/* --- control flow --------------------------------------------------------------------------- */
static void open_jump(struct generator *generator, uint32_t from, uint32_t (*encode)(int offset),
                      bool compact)
{
    for (unsigned i = 0; i < JUMPS_MAX; i++) {
        if (generator->jumps[i].units_left == 0) {
            /* +1: the unit that jumps ends first. */
            generator->jumps[i] =
                (struct jump){generator->size, from, encode, 2 + below(generator, 6), compact};
            return;
        }
    }
}

static bool jump_slot_free(const struct generator *generator)
{
    for (unsigned i = 0; i < JUMPS_MAX; i++) {
        if (generator->jumps[i].units_left == 0) {
            return true;
        }
    }
    return false;
}

static void patch(struct generator *generator, const struct jump *jump)
{
    uint32_t bits = 0;
    memcpy(&bits, generator->code + jump->at, jump->compact ? 2 : 4);
    bits |= jump->encode((int)(generator->size - jump->from));
    memcpy(generator->code + jump->at, &bits, jump->compact ? 2 : 4);
}

static uint32_t encode_i_offset(int offset)
{
    return (uint32_t)offset << 20;
}

static void branch(struct generator *generator)
{
    /* beq bne blt bge bltu bgeu */
    static const uint32_t table[] = {0x0063, 0x1063, 0x4063, 0x5063, 0x6063, 0x7063};
    if (!jump_slot_free(generator)) {
        return;
    }
    switch (below(generator, 8)) {
    case 0: /* c.beqz c.bnez */
    case 1:
        open_jump(generator, generator->size, encode_cb_offset, true);
        emit16(generator, (one_in(generator, 2) ? 0xc001u : 0xe001u) | below(generator, 8) << 7);
        break;
    case 2: /* c.j */
        open_jump(generator, generator->size, encode_cj_offset, true);
        emit16(generator, 0xa001);
        break;
    default:
        open_jump(generator, generator->size, encode_b_offset, false);
        emit32(generator,
               encode_r(PICK(generator, table), 0, any_source(generator), any_source(generator)));
        break;
    }
}

static void jump_and_link(struct generator *generator)
{
    if (!jump_slot_free(generator)) {
        return;
    }
    unsigned link = one_in(generator, 3) ? RA : any_destination(generator);
    if (one_in(generator, 2)) {
        open_jump(generator, generator->size, encode_j_offset, false);
        emit32(generator, 0x6f | link << 7);
        return;
    }
    /* auipc; jalr: the lowest bit of the sum is ignored. */
    uint32_t from = generator->size;
    unsigned base = one_in(generator, 3) ? RA : ADDRESS;
    emit32(generator, encode_u(0x17, base, 0));
    if (one_in(generator, 2)) {
        emit32(generator, encode_i(0x0013, base, base, 1));
    }
    open_jump(generator, from, encode_i_offset, false);
    emit32(generator, 0x67 | link << 7 | base << 15);
}

/* jal ra, body; j end; body: an instruction; ret; end: */
static void call_and_return(struct generator *generator)
{
    bool compact = one_in(generator, 2);
    unsigned link = one_in(generator, 4) ? T0 : RA;
    emit32(generator, 0x6f | link << 7 | encode_j_offset(8));
    uint32_t skip = generator->size;
    emit32(generator, 0x6f);
    unsigned rd;
    do {
        rd = any_destination(generator);
    } while (rd == link);
    emit32(generator, encode_i(0x0013, rd, any_source(generator), small_immediate(generator)));
    if (compact) {
        emit16(generator, encode_ca(0x8002, link, 0)); /* c.jr */
    } else {
        emit32(generator, 0x67 | link << 15);
    }
    uint32_t jump = 0x6f | encode_j_offset((int)(generator->size - skip));
    memcpy(generator->code + skip, &jump, sizeof(jump));
}

/* auipc; addi; c.jalr to the next instruction but one. */
static void compressed_call(struct generator *generator)
{
    unsigned base = ADDRESS;
    emit32(generator, encode_u(0x17, base, 0));
    emit32(generator, encode_i(0x0013, base, base, 12));
    emit16(generator, encode_ca(one_in(generator, 2) ? 0x9002 : 0x8002, base, 0));
    emit16(generator, encode_ci(0x4001, RA, below(generator, 64))); /* skipped */
}

static void loop(struct generator *generator)
{
    if (generator->loop_units != 0) {
        return;
    }
    emit32(generator, encode_i(0x0013, COUNT, ZERO, 1 + (int)below(generator, 6)));
    generator->loop_start = generator->size;
    generator->loop_units = 3 + below(generator, 10);
}

static void end_loop(struct generator *generator, unsigned counter, uint32_t start)
{
    emit32(generator, encode_i(0x0013, counter, counter, -1));
    /* blez counter, +8; j start */
    emit32(generator, encode_r(0x5063, 0, ZERO, counter) | encode_b_offset(8));
    emit32(generator, 0x6f | encode_j_offset((int)start - (int)generator->size));
}

/* --- the whole ------------------------------------------------------------------------------ */
static const struct {
    void (*emit)(struct generator *generator);
    unsigned weight;
} units[] = {
    {integer_register, 20},
    {integer_unary, 5},
    {integer_immediate, 8},
    {integer_shift, 6},
    {upper_immediate, 2},
    {compressed_immediate, 6},
    {compressed_compact, 4},
    {compressed_move, 3},
    {memory_access, 12},
    {pool_load, 12},
    {compressed_memory, 3},
    {compressed_stack, 3},
    {atomic, 4},
    {reserve_and_store, 2},
    {fence, 1},
    {float_arithmetic, 16},
    {float_square_root, 3},
    {float_fused, 10},
    {float_select, 5},
    {float_compare, 5},
    {float_inspect, 3},
    {float_from_bits, 2},
    {float_to_integer, 5},
    {float_from_integer, 4},
    {float_convert, 4},
    {float_status, 3},
    {branch, 8},
    {jump_and_link, 3},
    {call_and_return, 2},
    {compressed_call, 1},
    {loop, 2},
};
enum { UNIT_KINDS = sizeof(units) / sizeof(units[0]) };

static void emit_unit(struct generator *generator)
{
    unsigned total = 0;
    for (unsigned i = 0; i < UNIT_KINDS; i++) {
        total += units[i].weight;
    }
    unsigned choice = below(generator, total);
    unsigned kind = 0;
    while (choice >= units[kind].weight) {
        choice -= units[kind].weight;
        kind++;
    }
    units[kind].emit(generator);
}

static void finish_unit(struct generator *generator)
{
    for (unsigned i = 0; i < JUMPS_MAX; i++) {
        struct jump *jump = &generator->jumps[i];
        if (jump->units_left != 0 && --jump->units_left == 0) {
            patch(generator, jump);
        }
    }
    if (generator->loop_units != 0 && --generator->loop_units == 0) {
        end_loop(generator, COUNT, generator->loop_start);
    }
}

static void finish_all(struct generator *generator)
{
    for (unsigned i = 0; i < JUMPS_MAX; i++) {
        if (generator->jumps[i].units_left != 0) {
            generator->jumps[i].units_left = 0;
            patch(generator, &generator->jumps[i]);
        }
    }
    if (generator->loop_units != 0) {
        generator->loop_units = 0;
        end_loop(generator, COUNT, generator->loop_start);
    }
}

static bool is_loaded(unsigned reg)
{
    return reg != ZERO && is_writable(reg);
}

static void emit_prologue(struct generator *generator, unsigned repeat)
{
    emit32(generator, encode_u(0x37, TP, STREAM_STATE >> 12));
    emit32(generator, encode_i(0x3003, T0, TP, FCSR));
    emit32(generator, encode_i(0x1073, ZERO, T0, 3));
    for (unsigned i = 0; i < 32; i++) {
        emit32(generator,
               encode_i(0x3007, i, TP, (int)offsetof(struct stream_state, f) + 8 * (int)i));
    }
    for (unsigned i = 0; i < 32; i++) {
        if (is_loaded(i)) {
            emit32(generator, encode_i(0x3003, i, TP, 8 * (int)i));
        }
    }
    emit32(generator, encode_u(0x37, GP, STREAM_DATA_MIDDLE >> 12));
    emit32(generator, encode_i(0x0013, SP, GP, SP_OFFSET - STREAM_DATA_BYTES / 2));
    emit32(generator, encode_i(0x0013, REPEAT, ZERO, (int)repeat));
    emit32(generator, encode_i(0x0013, COUNT, ZERO, 0));
}

static void emit_epilogue(struct generator *generator)
{
    for (unsigned i = 1; i < 32; i++) {
        emit32(generator, encode_s(0x3023, TP, i, 8 * (int)i));
    }
    for (unsigned i = 0; i < 32; i++) {
        emit32(generator,
               encode_s(0x3027, TP, i, (int)offsetof(struct stream_state, f) + 8 * (int)i));
    }
    emit32(generator, encode_i(0x2073, T0, ZERO, 3));
    emit32(generator, encode_s(0x3023, TP, T0, FCSR));
    emit32(generator, encode_i(0x3003, T0, TP, (int)offsetof(struct stream_state, exit)));
    emit32(generator, encode_i(0x0067, ZERO, T0, 0));
}

static void fill_state(struct stream_request *request, struct random *random)
{
    struct stream_state *state = &request->state;
    for (unsigned i = 1; i < 32; i++) {
        state->x[i] = random_integer(random);
    }
    for (unsigned i = 0; i < 32; i++) {
        state->f[i] = random_value(random);
    }
    state->fcsr = random_below(random, 5) << 5 | random_below(random, 32);
    for (unsigned i = 0; i < STREAM_POOL_COUNT; i++) {
        state->pool[i] = random_value(random);
    }
    for (unsigned i = 0; i < STREAM_DATA_BYTES; i += 8) {
        uint64_t value = random_value(random);
        memcpy(request->data + i, &value, sizeof(value));
    }
}

void stream_generate(struct stream *stream, uint64_t seed, uint64_t number, unsigned unit_limit)
{
    memset(stream, 0, sizeof(*stream));
    struct generator generator = {.random = {seed}, .code = stream->request.code};
    generator.random.state ^= number * UINT64_C(0xd1342543de82ef95);
    random_next(&generator.random);
    fill_state(&stream->request, &generator.random);
    unsigned wanted = 40 + below(&generator, STREAM_UNITS_MAX - 40);
    unsigned repeat = 1 + below(&generator, 8);

    emit_prologue(&generator, repeat);
    uint32_t start = generator.size;
    stream->fixed_instructions = start / 4;
    while (stream->unit_count < wanted && stream->unit_count < unit_limit &&
           generator.size < CODE_LIMIT) {
        stream->unit_start[stream->unit_count] = generator.size;
        emit_unit(&generator);
        finish_unit(&generator);
        stream->unit_count++;
    }
    stream->unit_start[stream->unit_count] = generator.size;
    finish_all(&generator);
    end_loop(&generator, REPEAT, start);
    uint32_t body_end = generator.size;
    emit_epilogue(&generator);
    stream->fixed_instructions += (generator.size - body_end) / 4;
    stream->request.code_bytes = generator.size;
}
