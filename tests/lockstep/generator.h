/*
 * The stream under construction, and what its units (units.h) are made with.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_GENERATOR_H
#define POLYVISOR_TESTS_LOCKSTEP_GENERATOR_H

#include "tests/lockstep/encode.h"
#include "tests/lockstep/random.h"
#include "tests/lockstep/stream.h"
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { ZERO = 0, RA = 1, SP = 2, GP = 3, TP = 4, T0 = 5, REPEAT = 29, ADDRESS = 30, COUNT = 31 };
enum { POOL = offsetof(struct stream_state, pool), FCSR = offsetof(struct stream_state, fcsr) };
/* Distance of sp from the window's start: room for every offset that sp-relative forms have. */
enum { SP_OFFSET = 1024 };
enum { JUMPS_MAX = 16, FUNCTIONS_MAX = 6 };

/* A jump whose target lies some units ahead. */
struct jump {
    uint32_t at;   /* code offset of the instruction to patch */
    uint32_t from; /* offset that the encoded distance counts from */
    uint32_t (*encode)(int offset);
    unsigned units_left; /* 0 = free slot */
    bool compact;        /* a 16-bit instruction */
};

/* A subroutine at the start of the code. */
struct function {
    uint32_t start; /* its first instruction, an ADDI, may be replaced by another */
    unsigned link;
};

struct generator {
    struct random random;
    enum stream_kind kind;
    bool hot;
    uint8_t *code;
    uint32_t size;
    struct jump jumps[JUMPS_MAX];
    unsigned loop_units; /* until the inner loop ends; 0 = none is open */
    uint32_t loop_start;
    uint32_t reserved; /* registers that the units of a subroutine leave alone, a bit each */
    struct function functions[FUNCTIONS_MAX];
    unsigned function_count;
};

#define PICK(generator, table)                                                                     \
    ((table)[random_below(&(generator)->random, sizeof(table) / sizeof((table)[0]))])

/* --- emitting ------------------------------------------------------------------------------- */
static inline void emit16(struct generator *generator, uint32_t instruction)
{
    uint16_t bits = (uint16_t)instruction;
    memcpy(generator->code + generator->size, &bits, sizeof(bits));
    generator->size += sizeof(bits);
}

static inline void emit32(struct generator *generator, uint32_t instruction)
{
    memcpy(generator->code + generator->size, &instruction, sizeof(instruction));
    generator->size += sizeof(instruction);
}

static inline unsigned below(struct generator *generator, unsigned limit)
{
    return random_below(&generator->random, limit);
}

static inline bool one_in(struct generator *generator, unsigned n)
{
    return random_one_in(&generator->random, n);
}

static inline bool is_writable(unsigned reg)
{
    return reg != SP && reg != GP && reg != TP && reg != REPEAT && reg != COUNT;
}

static inline unsigned any_source(struct generator *generator)
{
    return below(generator, 32);
}

/* x0 too: instructions that drop their result must still do the rest. */
static inline unsigned any_destination(struct generator *generator)
{
    unsigned reg;
    do {
        reg = below(generator, 32);
    } while (!is_writable(reg) || generator->reserved >> reg & 1);
    return reg;
}

static inline unsigned nonzero_destination(struct generator *generator)
{
    unsigned reg;
    do {
        reg = 1 + below(generator, 31);
    } while (!is_writable(reg) || generator->reserved >> reg & 1);
    return reg;
}

/* One that is neither `a` nor `b`. */
static inline unsigned other_destination(struct generator *generator, unsigned a, unsigned b)
{
    unsigned reg;
    do {
        reg = nonzero_destination(generator);
    } while (reg == a || reg == b);
    return reg;
}

static inline int small_immediate(struct generator *generator)
{
    static const int corners[] = {0, 1, -1, 2, 31, 32, 63, 64, 2047, -2048, 255, -256};
    return one_in(generator, 3) ? PICK(generator, corners) : (int)below(generator, 4096) - 2048;
}

/* A static rounding mode, or the dynamic one. */
static inline uint32_t any_rounding(struct generator *generator)
{
    static const uint32_t modes[] = {0, 0, 1, 2, 3, 4, 7, 7};
    return PICK(generator, modes) << 12;
}

static inline uint32_t any_format(struct generator *generator)
{
    return below(generator, 2) << 25;
}

/* What two kinds of units need; the rest is in units.h. */
/* addi counter, counter, -1; blez counter, +8; j start */
void end_loop(struct generator *generator, unsigned counter, uint32_t start);
/* Fill in the distance of a jump that lands here. */
void patch_jump(struct generator *generator, const struct jump *jump);

#endif
