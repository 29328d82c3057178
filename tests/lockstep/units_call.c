/* Units of control flow between pages: subroutines, their patching, and computed jumps. */
#include "tests/lockstep/units.h"

enum { FENCE_I = 0x0000100f, ADDI = 0x13, LUI = 0x37, AUIPC = 0x17, JAL = 0x6f, JALR = 0x67 };

#define LINKS (1u << T0 | 1u << RA)

/* --- subroutines ---------------------------------------------------------------------------- */

/* What is left for a signed 12-bit immediate beside lui or auipc. */
static int low_part(int value)
{
    return ((value + 0x800) & 0xfff) - 0x800;
}

/* auipc base; jalr link, base: to code offset `target`. */
static void emit_far_call(struct generator *generator, unsigned base, unsigned link,
                          uint32_t target)
{
    int distance = (int)target - (int)generator->size;
    emit32(generator, encode_u(AUIPC, base, (uint32_t)(distance + 0x800) >> 12));
    emit32(generator, encode_i(JALR, link, base, low_part(distance)));
}

static void emit_call(struct generator *generator, const struct function *function)
{
    if (one_in(generator, 2)) {
        emit_far_call(generator, ADDRESS, function->link, function->start);
    } else {
        int distance = (int)function->start - (int)generator->size;
        emit32(generator, JAL | function->link << 7 | encode_j_offset(distance));
    }
}

/* Straight code, a loop of it, and perhaps a call of a leaf, which has another link register. */
static void add_function(struct generator *generator)
{
    static void (*const units[])(struct generator *) = {
        integer_register, integer_immediate, integer_shift, compressed_compact,
        memory_access,    memory_access,     pool_load,     float_arithmetic};
    bool leaf = generator->function_count < FUNCTIONS_MAX / 2;
    struct function function = {.start = generator->size, .link = leaf ? T0 : RA};
    generator->reserved = LINKS;
    emit32(generator, encode_i(ADDI, nonzero_destination(generator), any_source(generator),
                               small_immediate(generator)));
    bool turns = one_in(generator, 2);
    if (turns) {
        emit32(generator, encode_i(ADDI, COUNT, ZERO, 1 + (int)below(generator, 12)));
    }
    uint32_t start = generator->size;
    for (unsigned i = 1 + below(generator, 6); i > 0; i--) {
        PICK(generator, units)(generator);
    }
    if (turns) {
        end_loop(generator, COUNT, start);
    }
    if (!leaf && one_in(generator, 2)) {
        emit_call(generator, &generator->functions[below(generator, FUNCTIONS_MAX / 2)]);
    }
    emit32(generator, JALR | function.link << 15);
    generator->reserved = 0;
    generator->functions[generator->function_count++] = function;
}

void add_functions(struct generator *generator, uint32_t limit)
{
    enum { LARGEST = 400 };
    while (generator->function_count < FUNCTIONS_MAX && generator->size + LARGEST < limit) {
        add_function(generator);
    }
}

void call_function(struct generator *generator)
{
    if (generator->function_count != 0) {
        emit_call(generator, &generator->functions[below(generator, generator->function_count)]);
    }
}

/* lui; addi; the two make an instruction for a subroutine: addi rd, rs, immediate. */
static void emit_instruction_constant(struct generator *generator, unsigned reg)
{
    generator->reserved = LINKS;
    uint32_t word = encode_i(ADDI, nonzero_destination(generator), any_source(generator),
                             small_immediate(generator));
    generator->reserved = 0;
    emit32(generator, encode_u(LUI, reg, (word + 0x800) >> 12));
    emit32(generator, encode_i(ADDI, reg, reg, low_part((int)(word & 0xfff))));
}

/* A new first instruction, in a page that is perhaps not this one; then often a call. */
void patch_function(struct generator *generator)
{
    if (generator->function_count == 0) {
        return;
    }
    const struct function *function =
        &generator->functions[below(generator, generator->function_count)];
    unsigned word = other_destination(generator, ADDRESS, ADDRESS);
    emit_instruction_constant(generator, word);
    int distance = (int)function->start - (int)generator->size;
    emit32(generator, encode_u(AUIPC, ADDRESS, (uint32_t)(distance + 0x800) >> 12));
    emit32(generator, encode_s(0x2023, ADDRESS, word, low_part(distance)));
    emit32(generator, FENCE_I);
    if (!one_in(generator, 3)) {
        emit_call(generator, function);
    }
}

/* --- computed jumps ------------------------------------------------------------------------- */

/* One of four places, by bits of a register: one jump with several targets. */
void choose_target(struct generator *generator)
{
    enum { PLACES = 4, PLACE_BYTES = 8 };
    unsigned base = other_destination(generator, ADDRESS, ADDRESS);
    emit32(generator, encode_i(0x7013, ADDRESS, any_source(generator), (PLACES - 1) * PLACE_BYTES));
    emit32(generator, encode_u(AUIPC, base, 0));
    emit32(generator, encode_r(0x33, ADDRESS, ADDRESS, base));
    emit32(generator, encode_i(JALR, ZERO, ADDRESS, 12));
    for (int i = 0; i < PLACES; i++) {
        emit32(generator, encode_i(ADDI, any_destination(generator), any_source(generator),
                                   small_immediate(generator)));
        emit32(generator, JAL | encode_j_offset((PLACES - i) * PLACE_BYTES - 4));
    }
}
