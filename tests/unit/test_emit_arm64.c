/*
 * The arm64 assembler, by running what it makes: constants and immediates of every shape, and
 * accesses near and far, have corners that generated code seldom visits. On other hosts there is
 * nothing to prove.
 */
#include "tests/unit/suite.h"
#include <check.h>

#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/baseline/host.h"
#include <stddef.h>
#include <string.h>

typedef uint64_t function(uint64_t a, uint64_t b);

static struct code_memory *memory;
static struct code_span span;
static struct emitter code;

static void setup(void)
{
    struct error err = {0};
    memory = code_memory_create(1 << 20, &err);
    ck_assert_msg(memory != NULL, "%s", err.message);
    ck_assert(code_memory_allocate(memory, 1 << 18, &span));
    code = (struct emitter){.bytes = span.write, .size = span.size};
}

static void teardown(void)
{
    code_memory_destroy(memory);
}

/* Functions are put one behind the other, so that few are published at a time. */
static uint32_t begin(void)
{
    return code.at;
}

static void end(void)
{
    emit_return(&code);
    ck_assert(!code.overflow);
}

static void publish(void)
{
    code_memory_publish(&span, code.at);
    code.at = 0;
}

static uint64_t run(uint32_t at, uint64_t a, uint64_t b)
{
    return ((function *)(void *)(span.execute + at))(a, b);
}

#define EXPECT(got, expected, about)                                                               \
    do {                                                                                           \
        uint64_t got_ = (got), expected_ = (expected);                                             \
        if (got_ != expected_) {                                                                   \
            ck_abort_msg("%#lx: %#lx, expected %#lx", (unsigned long)(about), (unsigned long)got_, \
                         (unsigned long)expected_);                                                \
        }                                                                                          \
    } while (0)

/* Runs of ones of every length and place, in elements of every width, and what is near them. */
enum { PATTERNS_MAX = 40000 };
static uint64_t patterns[PATTERNS_MAX];

static unsigned make_patterns(void)
{
    unsigned count = 0;
    for (unsigned width = 2; width <= 64; width *= 2) {
        for (unsigned ones = 1; ones < width; ones++) {
            for (unsigned place = 0; place < width; place += width == 64 ? 3 : 1) {
                uint64_t value = 0;
                for (unsigned bit = 0; bit < 64; bit++) {
                    unsigned within = (bit + width - place) % width;
                    value |= (uint64_t)(within < ones) << bit;
                }
                patterns[count++] = value;
                patterns[count++] = value ^ UINT64_C(1) << (ones + place) % 64;
            }
        }
    }
    static const uint64_t edges[] = {
        0,        1,         UINT64_MAX, 0xffff,    0x10000,   4095,    4096,
        0xfff000, 0x1000000, 0xffffffff, INT64_MIN, INT64_MAX, 0x12345, 0x123456789abcdef0};
    for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        patterns[count++] = edges[i];
        patterns[count++] = ~edges[i];
        patterns[count++] = -edges[i];
    }
    ck_assert_uint_le(count, PATTERNS_MAX);
    return count;
}

enum { BATCH = 512 };

START_TEST(test_constants)
{
    unsigned count = make_patterns();
    uint32_t at[BATCH];
    for (unsigned first = 0; first < count; first += BATCH) {
        unsigned batch = count - first < BATCH ? count - first : BATCH;
        for (unsigned i = 0; i < batch; i++) {
            at[i] = begin();
            emit_constant(&code, 0, patterns[first + i]);
            end();
        }
        publish();
        for (unsigned i = 0; i < batch; i++) {
            EXPECT(run(at[i], 0, 0), patterns[first + i], patterns[first + i]);
        }
    }
}
END_TEST

static uint64_t apply(enum host_arithmetic operation, uint64_t a, uint64_t b)
{
    switch (operation) {
    case HOST_AND:
        return a & b;
    case HOST_OR:
        return a | b;
    case HOST_XOR:
        return a ^ b;
    case HOST_AND_NOT:
        return a & ~b;
    case HOST_ADD:
        return a + b;
    default:
        return a - b;
    }
}

START_TEST(test_arithmetic_with_constants)
{
    static const enum host_arithmetic operations[] = {HOST_AND,     HOST_OR,  HOST_XOR,
                                                      HOST_AND_NOT, HOST_ADD, HOST_SUB};
    enum host_arithmetic operation = operations[_i / 2];
    bool wide = _i % 2;
    const uint64_t a = UINT64_C(0xa5c3f00f12345678);
    unsigned count = make_patterns();
    uint32_t at[BATCH];
    for (unsigned first = 0; first < count; first += BATCH) {
        unsigned batch = count - first < BATCH ? count - first : BATCH;
        for (unsigned i = 0; i < batch; i++) {
            at[i] = begin();
            emit_arithmetic_constant(&code, wide, operation, 0, 0, (int64_t)patterns[first + i]);
            end();
        }
        publish();
        for (unsigned i = 0; i < batch; i++) {
            uint64_t expected = apply(operation, a, patterns[first + i]);
            EXPECT(run(at[i], a, 0), wide ? expected : (uint32_t)expected, patterns[first + i]);
        }
    }
}
END_TEST

START_TEST(test_comparisons_with_constants)
{
    unsigned count = make_patterns();
    uint32_t at[BATCH];
    for (unsigned first = 0; first < count; first += BATCH) {
        unsigned batch = count - first < BATCH ? count - first : BATCH;
        for (unsigned i = 0; i < batch; i++) {
            at[i] = begin();
            emit_compare_constant(&code, true, 0, (int64_t)patterns[first + i]);
            emit_set(&code, HOST_LESS, 0);
            emit_set(&code, HOST_BELOW, 1);
            emit_set(&code, HOST_EQUAL, 2);
            emit_arithmetic_shifted(&code, true, HOST_OR, 0, 0, 1, HOST_SHL, 1);
            emit_arithmetic_shifted(&code, true, HOST_OR, 0, 0, 2, HOST_SHL, 2);
            end();
        }
        publish();
        for (unsigned i = 0; i < batch; i++) {
            uint64_t b = patterns[first + i];
            const uint64_t others[] = {b, b + 1, b - 1, 0, UINT64_C(1) << 63};
            for (unsigned k = 0; k < 5; k++) {
                uint64_t a = others[k];
                uint64_t expected =
                    ((int64_t)a < (int64_t)b) | (uint64_t)(a < b) << 1 | (uint64_t)(a == b) << 2;
                EXPECT(run(at[i], a, 0), expected, b);
            }
        }
    }
}
END_TEST

static const int32_t distances[] = {0,    1,    -1,    8,     255,    256,   -256,   -257,
                                    4095, 4096, 16380, 16384, 32760,  32768, 100000, -40000,
                                    7,    12,   16382, 32761, -32768, 65536, 99999};

START_TEST(test_accesses_near_and_far)
{
    static uint8_t buffer[1 << 18];
    uint8_t *middle = buffer + sizeof(buffer) / 2;
    for (unsigned i = 0; i < sizeof(distances) / sizeof(distances[0]); i++) {
        for (unsigned size_log2 = 0; size_log2 < 4; size_log2++) {
            uint64_t mask = size_log2 == 3 ? UINT64_MAX : (UINT64_C(1) << (8 << size_log2)) - 1;
            const uint64_t value = UINT64_C(0x8899aabbccddeeff);
            uint32_t store = begin();
            emit_store(&code, size_log2, host_at(0, distances[i]), 1);
            end();
            uint32_t load = begin();
            emit_load(&code, size_log2, false, 0, host_at(0, distances[i]));
            end();
            uint32_t clear = begin();
            emit_store_constant(&code, size_log2, host_at(0, distances[i]), 0);
            end();
            publish();
            uint64_t got = 0;
            run(store, (uint64_t)(uintptr_t)middle, value);
            memcpy(&got, middle + distances[i], (size_t)1 << size_log2);
            EXPECT(got, value & mask, distances[i]);
            EXPECT(run(load, (uint64_t)(uintptr_t)middle, 0), value & mask, distances[i]);
            run(clear, (uint64_t)(uintptr_t)middle, 0);
            EXPECT(run(load, (uint64_t)(uintptr_t)middle, 0), 0, distances[i]);
        }
    }
}
END_TEST

/* Its constant and its address cannot both have the one register that there is. */
START_TEST(test_far_constants_are_refused)
{
    emit_store_constant(&code, 2, host_at(0, 16380), -1);
    ck_assert(!code.overflow);
    emit_store_constant(&code, 2, host_at(0, 16384), -1);
    ck_assert(code.overflow);
}
END_TEST

START_TEST(test_shifts_by_constants)
{
    static const enum host_shift shifts[] = {HOST_SHL, HOST_SHR, HOST_SAR, HOST_ROR};
    const uint64_t a = UINT64_C(0xa5c3f00f92345678);
    for (unsigned count = 0; count < 64; count++) {
        uint32_t at[4];
        for (unsigned i = 0; i < 4; i++) {
            at[i] = begin();
            emit_shift_constant(&code, true, shifts[i], 0, 0, count);
            end();
        }
        publish();
        EXPECT(run(at[0], a, 0), a << count, count);
        EXPECT(run(at[1], a, 0), a >> count, count);
        EXPECT(run(at[2], a, 0), (uint64_t)((int64_t)a >> count), count);
        EXPECT(run(at[3], a, 0), count ? a >> count | a << (64 - count) : a, count);
    }
}
END_TEST

START_TEST(test_jumps_both_ways)
{
    uint32_t at = begin();
    uint32_t forward = emit_jump(&code);
    uint32_t behind = code.at;
    emit_constant(&code, 0, 42);
    emit_return(&code);
    for (unsigned i = 0; i < 20000; i++) {
        emit_u32(&code, 0xd503201f); /* nothing */
    }
    emit_land(&code, forward);
    emit_compare(&code, true, 0, 1);
    emit_land_at(&code, emit_jump_if(&code, HOST_EQUAL), behind);
    emit_land_at(&code, emit_jump_zero(&code, true, false, 0), behind);
    uint32_t skipped = emit_jump_zero(&code, true, true, 0);
    emit_constant(&code, 0, 1);
    emit_land(&code, skipped);
    end();
    publish();
    EXPECT(run(at, 5, 5), 42, 0);
    EXPECT(run(at, 0, 5), 42, 1);
    EXPECT(run(at, 6, 5), 6, 2);
}
END_TEST

/* As far as code memory goes: bits 25 to 0 count words. */
START_TEST(test_jumps_reach_all_code)
{
    const int32_t reach = (int32_t)(HOST_CODE_BYTES_MAX - 4);
    const int32_t far[] = {reach, -reach, 4, -4, 0};
    for (unsigned i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
        uint32_t word = emit_jump_word(far[i]);
        ck_assert_uint_eq(word >> 26, 5);
        ck_assert_int_eq((int32_t)(word << 6) >> 4, far[i]);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("arm64 assembler");
    TCase *tcase = tcase_create("instructions");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_constants);
    tcase_add_loop_test(tcase, test_arithmetic_with_constants, 0, 12);
    tcase_add_test(tcase, test_comparisons_with_constants);
    tcase_add_test(tcase, test_accesses_near_and_far);
    tcase_add_test(tcase, test_far_constants_are_refused);
    tcase_add_test(tcase, test_shifts_by_constants);
    tcase_add_test(tcase, test_jumps_both_ways);
    tcase_add_test(tcase, test_jumps_reach_all_code);
    suite_add_tcase(s, tcase);
    return s;
}

#else

START_TEST(test_nothing)
{
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("arm64 assembler: another host");
    TCase *tcase = tcase_create("nothing");
    tcase_add_test(tcase, test_nothing);
    suite_add_tcase(s, tcase);
    return s;
}

#endif

int main(void)
{
    return suite_run(suite());
}
