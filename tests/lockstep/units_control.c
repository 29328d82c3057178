/* Units of jumps, calls, loops and code that changes itself. */
#include "tests/lockstep/units.h"

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

void patch_jump(struct generator *generator, const struct jump *jump)
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

void branch(struct generator *generator)
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

void jump_and_link(struct generator *generator)
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
void call_and_return(struct generator *generator)
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
void compressed_call(struct generator *generator)
{
    unsigned base = ADDRESS;
    emit32(generator, encode_u(0x17, base, 0));
    emit32(generator, encode_i(0x0013, base, base, 12));
    emit16(generator, encode_ca(one_in(generator, 2) ? 0x9002 : 0x8002, base, 0));
    emit16(generator, encode_ci(0x4001, RA, below(generator, 64))); /* skipped */
}

void loop(struct generator *generator)
{
    if (generator->loop_units != 0) {
        return;
    }
    emit32(generator, encode_i(0x0013, COUNT, ZERO, 1 + (int)below(generator, 6)));
    generator->loop_start = generator->size;
    generator->loop_units = 3 + below(generator, 10);
}

void end_loop(struct generator *generator, unsigned counter, uint32_t start)
{
    emit32(generator, encode_i(0x0013, counter, counter, -1));
    /* blez counter, +8; j start */
    emit32(generator, encode_r(0x5063, 0, ZERO, counter) | encode_b_offset(8));
    emit32(generator, 0x6f | encode_j_offset((int)start - (int)generator->size));
}

/* Two instructions change places, in memory, and then run. */
void swap_instructions(struct generator *generator)
{
    enum { FENCE_I = 0x0000100f };
    unsigned first, second;
    do {
        first = nonzero_destination(generator);
    } while (first == ADDRESS);
    do {
        second = nonzero_destination(generator);
    } while (second == ADDRESS || second == first);
    emit32(generator, encode_u(0x17, ADDRESS, 0));
    emit32(generator, encode_i(0x2003, first, ADDRESS, 24));
    emit32(generator, encode_i(0x2003, second, ADDRESS, 28));
    emit32(generator, encode_s(0x2023, ADDRESS, second, 24));
    emit32(generator, encode_s(0x2023, ADDRESS, first, 28));
    emit32(generator, FENCE_I);
    integer_immediate(generator);
    integer_immediate(generator);
}
