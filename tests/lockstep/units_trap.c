/*
 * Units of trapping streams: accesses and fetches that fail, instructions that are illegal (in some
 * mode), control registers, and changing page tables. What traps is 4 bytes long, so that the
 * handler knows where to go on; after a failed fetch it goes on at ra.
 */
#include "tests/lockstep/units.h"

enum { LUI = 0x37, ADDI = 0x13, JALR = 0x67, CSRRW = 0x1073, CSRRS = 0x2073, CSRRC = 0x3073 };
enum { CSR_SSTATUS = 0x100, SFENCE_VMA = 0x12000073 };

/* --- memory --------------------------------------------------------------------------------- */

/* Somewhere with a border of permissions: between read-only and data, data and nothing, or where
 * nothing is far and wide. */
static void emit_border(struct generator *generator)
{
    static const uint32_t borders[] = {STREAM_READ_ONLY + 4096, STREAM_UNMAPPED, STREAM_NOWHERE};
    emit32(generator, encode_u(LUI, ADDRESS, PICK(generator, borders) >> 12));
}

/* Some accesses next to each other, so that they may share a check; any may fail, or reach across
 * the border. */
void trap_access(struct generator *generator)
{
    static const uint32_t loads[] = {0x0003, 0x1003, 0x2003, 0x3003, 0x4003,
                                     0x5003, 0x6003, 0x2007, 0x3007};
    static const uint32_t stores[] = {0x0023, 0x1023, 0x2023, 0x3023, 0x2027, 0x3027};
    emit_border(generator);
    int middle = one_in(generator, 2) ? 0 : (int)below(generator, 96) - 48;
    for (unsigned i = 1 + below(generator, 6); i > 0; i--) {
        int offset = middle + (int)below(generator, 32) - 16;
        offset = one_in(generator, 2) ? offset : offset & ~7;
        if (one_in(generator, 2)) {
            emit32(generator,
                   encode_s(PICK(generator, stores), ADDRESS, any_source(generator), offset));
            continue;
        }
        uint32_t fixed = PICK(generator, loads);
        unsigned rd = (fixed & 0x7f) == 0x07 ? below(generator, 32)
                                             : other_destination(generator, ADDRESS, ADDRESS);
        emit32(generator, encode_i(fixed, rd, ADDRESS, offset));
    }
}

/* Misaligned, or at a border. */
void trap_atomic(struct generator *generator)
{
    /* amoadd amoswap amoxor amomaxu lr sc */
    static const uint32_t functions[] = {0, 1, 4, 28, 2, 3};
    uint32_t function = PICK(generator, functions);
    if (one_in(generator, 2)) {
        emit_border(generator);
        emit32(generator, encode_i(ADDI, ADDRESS, ADDRESS, (int)below(generator, 32) - 16));
    } else {
        emit32(generator, encode_i(ADDI, ADDRESS, GP, (int)below(generator, 64) - 32));
    }
    uint32_t fixed = 0x2f | (2 + below(generator, 2)) << 12 | function << 27;
    emit32(generator, encode_r(fixed, any_destination(generator), ADDRESS,
                               function == 2 ? 0 : any_source(generator)));
}

/* --- instructions --------------------------------------------------------------------------- */
void trap_instruction(struct generator *generator)
{
    enum { EBREAK = 0x00100073, ECALL = 0x00000073, WRITE_CYCLE = 0xc0001073 };
    enum { MRET = 0x30200073, SRET = 0x10200073, WFI = 0x10500073 };
    static const uint32_t everywhere[] = {EBREAK, EBREAK, WRITE_CYCLE, 0xffffffff, 0x0000000b};
    static const uint32_t user[] = {ECALL, MRET, SRET, WFI};
    bool is_user = generator->kind == STREAM_TRAPS_USER;
    uint32_t word =
        is_user && one_in(generator, 2) ? PICK(generator, user) : PICK(generator, everywhere);
    if (generator->kind == STREAM_TRAPS_MACHINE && one_in(generator, 4)) {
        word = ECALL; /* a supervisor's would be for machine mode, where nobody is */
    }
    emit32(generator, word);
}

/* A call to where no code can be fetched. */
void trap_fetch(struct generator *generator)
{
    enum { PLACES = 3 };
    static const uint32_t places[PLACES] = {STREAM_NOWHERE, STREAM_UNMAPPED, STREAM_DATA_MIDDLE};
    unsigned choices = generator->kind == STREAM_TRAPS_MACHINE ? 1 : PLACES;
    emit32(generator, encode_u(LUI, ADDRESS, places[below(generator, choices)] >> 12));
    if (one_in(generator, 3)) {
        emit16(generator, encode_ca(0x9002, ADDRESS, 0)); /* c.jalr */
    } else {
        emit32(generator, encode_i(JALR, RA, ADDRESS, 2 * (int)below(generator, 1000)));
    }
}

/* --- control registers ---------------------------------------------------------------------- */

/* cycle, time, instret: exact at each instruction. Those of machine mode are also written. */
void read_counter(struct generator *generator)
{
    static const int counters[] = {0xc00, 0xc01, 0xc02};
    static const int machine[] = {0xb00, 0xb02};
    unsigned rd = any_destination(generator);
    if (one_in(generator, 4)) {
        bool writes = one_in(generator, 2);
        emit32(generator, encode_i(writes ? CSRRW : CSRRS, rd, writes ? any_source(generator) : 0,
                                   PICK(generator, machine)));
    } else {
        emit32(generator, encode_i(CSRRS, rd, 0, PICK(generator, counters)));
    }
}

/* SUM and MXR: another MMU mode. */
void change_status(struct generator *generator)
{
    static const uint32_t bits[] = {0x40, 0x80, 0xc0};
    unsigned mask = nonzero_destination(generator);
    emit32(generator, encode_u(LUI, mask, PICK(generator, bits)));
    emit32(generator, encode_i(one_in(generator, 2) ? CSRRS : CSRRC, any_destination(generator),
                               mask, CSR_SSTATUS));
}

/* FP off, or clean: what follows is illegal, or marks it dirty again. */
void change_float_state(struct generator *generator)
{
    static const uint32_t bits[] = {2, 4, 6};
    unsigned mask = nonzero_destination(generator);
    emit32(generator, encode_u(LUI, mask, PICK(generator, bits)));
    emit32(generator, encode_i(CSRRC, ZERO, mask, CSR_SSTATUS));
    /* fadd.d, flw, fsd, fmv.x.d */
    switch (below(generator, 4)) {
    case 0:
        emit32(generator, encode_r(0x02000053, below(generator, 32), below(generator, 32),
                                   below(generator, 32)));
        break;
    case 1:
        emit32(generator, encode_i(0x2007, below(generator, 32), GP, 8));
        break;
    case 2:
        emit32(generator, encode_s(0x3027, GP, below(generator, 32), 16));
        break;
    default:
        emit32(generator,
               encode_r(0xe2000053, any_destination(generator), below(generator, 32), 0));
        break;
    }
    emit32(generator, encode_u(LUI, mask == ADDRESS ? T0 : ADDRESS, 6));
    emit32(generator, encode_i(CSRRS, ZERO, mask == ADDRESS ? T0 : ADDRESS, CSR_SSTATUS));
}

/* --- translations --------------------------------------------------------------------------- */
void flush_translations(struct generator *generator)
{
    emit32(generator, encode_r(SFENCE_VMA, 0, one_in(generator, 2) ? 0 : any_source(generator),
                               one_in(generator, 2) ? 0 : any_source(generator)));
}

void call_alias(struct generator *generator)
{
    uint32_t page = (STREAM_ALIAS >> 12) + below(generator, 2);
    emit32(generator, encode_u(LUI, ADDRESS, page));
    emit32(generator, encode_i(JALR, RA, ADDRESS, STREAM_ROUTINE_BYTES * (int)below(generator, 8)));
}

/* The two pages change places; what ran there is no more. */
void swap_aliases(struct generator *generator)
{
    if (generator->kind != STREAM_TRAPS_SUPERVISOR) {
        return;
    }
    enum { FIRST = STREAM_ALIAS_PTE & 0xfff, SECOND = FIRST + 8 };
    unsigned a = other_destination(generator, ADDRESS, ADDRESS);
    unsigned b = other_destination(generator, ADDRESS, a);
    emit32(generator, encode_u(LUI, ADDRESS, STREAM_ALIAS_PTE >> 12));
    emit32(generator, encode_i(0x3003, a, ADDRESS, FIRST));
    emit32(generator, encode_i(0x3003, b, ADDRESS, SECOND));
    emit32(generator, encode_s(0x3023, ADDRESS, b, FIRST));
    emit32(generator, encode_s(0x3023, ADDRESS, a, SECOND));
    if (one_in(generator, 2)) {
        emit32(generator, SFENCE_VMA);
    } else {
        for (uint32_t i = 0; i < 2; i++) {
            emit32(generator, encode_u(LUI, ADDRESS, (STREAM_ALIAS >> 12) + i));
            emit32(generator, encode_r(SFENCE_VMA, 0, ADDRESS, 0));
        }
    }
    call_alias(generator);
}
