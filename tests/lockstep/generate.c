/*
 * How a stream stays well-defined: x2 and x3 point into the data window and x4 at the state, so
 * no unit writes them; x29 counts repetitions of the whole body and x31 those of an inner loop, and
 * both loops end as soon as their count is not positive, so that no jump over the code which sets a
 * count makes one endless. x30 is the scratch register of computed addresses.
 *
 * Where the emulator (7.2) departs from the specification, streams stay away from the case:
 * - ctzw of a word of zeros is 32 ("Bit-manipulation", section "ctzw"); the emulator goes on
 * counting in the upper half. Its operand here always has bit 31 set.
 */
#include "tests/lockstep/generate.h"
#include "tests/lockstep/units.h"
#include "tests/lockstep/values.h"

enum { CODE_LIMIT = STREAM_CODE_BYTES - 1024 };

/* --- the whole ------------------------------------------------------------------------------ */
struct unit {
    void (*emit)(struct generator *generator);
    unsigned weight;
};

static const struct unit units[] = {
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
    {float_compare_silently, 2},
    {branch, 8},
    {jump_and_link, 3},
    {call_and_return, 2},
    {compressed_call, 1},
    {loop, 2},
    {call_function, 4},
    {choose_target, 2},
};

/* In streams that go round often they would keep most code from becoming hot. */
static const struct unit modifying_units[] = {{swap_instructions, 1}, {patch_function, 1}};

static const struct unit trapping_units[] = {
    {trap_access, 4},  {trap_atomic, 1},   {trap_instruction, 2},   {trap_fetch, 1},
    {read_counter, 3}, {change_status, 1}, {change_float_state, 1}, {flush_translations, 1},
    {call_alias, 2},   {swap_aliases, 2},
};
enum {
    UNIT_KINDS = sizeof(units) / sizeof(units[0]),
    TRAPPING_UNIT_KINDS = sizeof(trapping_units) / sizeof(trapping_units[0]),
    TRAPPING_ONE_IN = 8,
    MODIFYING_UNIT_KINDS = sizeof(modifying_units) / sizeof(modifying_units[0]),
    MODIFYING_ONE_IN = 100,
    MODIFYING_HOT_ONE_IN = 2000,
};

static void emit_one_of(struct generator *generator, const struct unit *table, unsigned count)
{
    unsigned total = 0;
    for (unsigned i = 0; i < count; i++) {
        total += table[i].weight;
    }
    unsigned choice = below(generator, total);
    unsigned kind = 0;
    while (choice >= table[kind].weight) {
        choice -= table[kind].weight;
        kind++;
    }
    table[kind].emit(generator);
}

static void emit_unit(struct generator *generator)
{
    if (one_in(generator, generator->hot ? MODIFYING_HOT_ONE_IN : MODIFYING_ONE_IN)) {
        emit_one_of(generator, modifying_units, MODIFYING_UNIT_KINDS);
    } else if (generator->kind != STREAM_PORTABLE && one_in(generator, TRAPPING_ONE_IN)) {
        emit_one_of(generator, trapping_units, TRAPPING_UNIT_KINDS);
    } else {
        emit_one_of(generator, units, UNIT_KINDS);
    }
}

static void finish_unit(struct generator *generator)
{
    for (unsigned i = 0; i < JUMPS_MAX; i++) {
        struct jump *jump = &generator->jumps[i];
        if (jump->units_left != 0 && --jump->units_left == 0) {
            patch_jump(generator, jump);
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
            patch_jump(generator, &generator->jumps[i]);
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

/* Skip so much that the end of a page falls somewhere into what follows; what is skipped holds the
 * subroutines, so that most calls leave their page. */
static void emit_padding(struct generator *generator)
{
    enum { PAGE = 4096, BEFORE = 400, MOST = 1600 };
    uint32_t bytes = PAGE - BEFORE - 2 * below(generator, (MOST - BEFORE) / 2);
    emit32(generator, 0x6f | encode_j_offset((int)bytes));
    add_functions(generator, bytes);
    generator->size = bytes;
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

/* Some streams go round so often that each of their loops becomes hot. */
static unsigned repetitions(struct generator *generator, bool hot)
{
    enum { HOT_ONE_IN = 16, HOT = 64, HOT_MOST = 256 };
    bool often = one_in(generator, HOT_ONE_IN) || hot;
    return often ? HOT + below(generator, HOT_MOST - HOT) : 1 + below(generator, 8);
}

void stream_generate(struct stream *stream, enum stream_kind kind, bool hot, uint64_t seed,
                     uint64_t number, unsigned unit_limit)
{
    memset(stream, 0, sizeof(*stream));
    struct generator generator = {
        .random = {seed}, .kind = kind, .hot = hot, .code = stream->request.code};
    generator.random.state ^= number * UINT64_C(0xd1342543de82ef95);
    random_next(&generator.random);
    fill_state(&stream->request, &generator.random);
    unsigned wanted = 40 + below(&generator, STREAM_UNITS_MAX - 40);
    unsigned repeat = repetitions(&generator, hot);

    emit_padding(&generator);
    uint32_t prologue = generator.size;
    emit_prologue(&generator, repeat);
    uint32_t start = generator.size;
    stream->fixed_instructions = 1 + (start - prologue) / 4;
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
