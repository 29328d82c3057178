/*
 * Regions compiled by LLVM do what the interpreter does: small programs, and random streams (those
 * of tests/lockstep) cut into regions of all shapes.
 */
#include "tests/lockstep/generate.h"
#include "tests/unit/region_host.h"
#include <check.h>

#define CODE HOST_RAM
#define DATA (HOST_RAM + 0x200000)

static struct region_compiler *compiler;
static struct region_host *subject, *reference;

static void setup(void)
{
    subject = host_create(ENGINE_INTERP, 1);
    reference = host_create(ENGINE_INTERP, 1);
    host_boot(subject, CODE);
    host_boot(reference, CODE);
}

static void teardown(void)
{
    host_destroy(subject);
    host_destroy(reference);
}

static void load(uint64_t address, const void *bytes, size_t size)
{
    host_write(subject, address, bytes, size);
    host_write(reference, address, bytes, size);
}

static void set_register(unsigned index, uint64_t value)
{
    subject->guest->x[index] = reference->guest->x[index] = value;
}

static struct host_region *compile(uint64_t pc, unsigned blocks, unsigned pages)
{
    struct error err = {0};
    struct host_region *region = host_compile(subject, compiler, pc, blocks, pages, &err);
    ck_assert_msg(region != NULL, "%s", err.message);
    return region;
}

/* Let the interpreter do as many instructions; then both guests must be alike. */
static void compare(void)
{
    while (reference->cpu->retired < subject->cpu->retired) {
        host_step(reference);
    }
    for (unsigned i = 0; i < 2 && reference->cpu->pc != subject->cpu->pc; i++) {
        host_step(reference); /* an exception */
    }
    const char *difference = host_differs(subject, reference);
    ck_assert_msg(!difference, "%s", difference);
    ck_assert_int_eq(
        memcmp(host_ram(subject, HOST_RAM), host_ram(reference, HOST_RAM), HOST_RAM_SIZE), 0);
}

/*
 * 1:  lw   a3, 0(a0)
 *     addw a2, a2, a3
 *     sw   a2, 0(a0)
 *     addi a0, a0, 4
 *     addi a1, a1, -1
 *     bnez a1, 1b
 *     ebreak
 */
static const uint16_t running_sum[] = {0x4114, 0x9e35, 0xc110, 0x0511, 0x15fd, 0xf9fd, 0x9002};

START_TEST(a_loop_over_memory_runs_inside)
{
    load(CODE, running_sum, sizeof(running_sum));
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t value = i * 0x9e3779b9u;
        load(DATA + 4 * i, &value, sizeof(value));
    }
    set_register(10, DATA);
    set_register(11, 3000);
    struct host_region *region = compile(CODE, 64, 4);
    host_enter(subject, region);
    ck_assert_uint_eq(subject->cpu->retired, 18000); /* then the breakpoint */
    ck_assert_uint_eq(subject->cpu->retired_optimised, 18000);
    ck_assert_uint_le(subject->slow_loads + subject->slow_stores, 6);
    compare();
    host_region_free(region);
}
END_TEST

START_TEST(a_fault_is_precise)
{
    load(CODE, running_sum, sizeof(running_sum));
    set_register(10, HOST_RAM + HOST_RAM_SIZE - 40);
    set_register(11, 100);
    struct host_region *region = compile(CODE, 64, 4);
    host_enter(subject, region);
    ck_assert_uint_eq(subject->cpu->retired, 60);
    if (subject->cpu->pc == CODE) {
        host_step(subject); /* it left that to the lower tier */
    }
    ck_assert_uint_eq(subject->guest->csr.mepc, CODE);
    ck_assert_uint_eq(subject->guest->csr.mtval, HOST_RAM + HOST_RAM_SIZE);
    compare();
    host_region_free(region);
}
END_TEST

START_TEST(attention_ends_a_loop)
{
    load(CODE, running_sum, sizeof(running_sum));
    set_register(10, DATA);
    set_register(11, 3000);
    struct host_region *region = compile(CODE, 64, 4);
    atomic_store(&subject->cpu->attention, CPU_ATTENTION_PAUSE);
    host_enter(subject, region);
    ck_assert_uint_eq(subject->cpu->retired, 0);
    ck_assert_uint_eq(subject->cpu->pc, CODE);
    atomic_store(&subject->cpu->attention, 0);
    host_region_free(region);
}
END_TEST

/* --- random streams ----------------------------------------------------------------------------
 */

#define EXIT_PC (STREAM_SCRATCH + 0x100)
_Static_assert(HOST_RAM == STREAM_BASE, "streams are made for their place");

struct stream_regions {
    struct host_region *at[STREAM_CODE_BYTES / 2];
    bool refused[STREAM_CODE_BYTES / 2];
    unsigned compiled, entered;
};

static void load_stream(const struct stream *stream)
{
    struct stream_state state = stream->request.state;
    uint32_t here = 0x6f; /* j . */
    state.exit = EXIT_PC;
    load(EXIT_PC, &here, sizeof(here));
    load(STREAM_CODE, stream->request.code, stream->request.code_bytes);
    load(STREAM_STATE, &state, sizeof(state));
    load(STREAM_DATA, stream->request.data, sizeof(stream->request.data));
}

static struct host_region *region_at(struct stream_regions *regions, uint64_t pc, uint64_t *random)
{
    uint64_t slot = (pc - STREAM_CODE) / 2;
    if (slot >= STREAM_CODE_BYTES / 2 || regions->refused[slot]) {
        return NULL;
    }
    struct host_region *region = regions->at[slot];
    if (region &&
        (!host_region_holds(subject, region) || region->region.mode != subject->cpu->block_mode)) {
        host_region_free(region);
        region = regions->at[slot] = NULL;
    }
    if (!region) {
        struct error err = {0};
        *random = *random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        unsigned blocks = 1 + (unsigned)(*random >> 40) % 40;
        unsigned pages = 1 + (unsigned)(*random >> 50) % 4;
        region = host_compile(subject, compiler, pc, blocks, pages, &err);
        regions->at[slot] = region;
        regions->refused[slot] = !region;
        regions->compiled += region != NULL;
        ck_assert_msg(region || err.code == ERROR_UNSUPPORTED, "%s", err.message);
    }
    return region;
}

static void run_stream(uint64_t seed, uint64_t number)
{
    static struct stream stream;
    struct stream_regions *regions = calloc(1, sizeof(*regions));
    uint64_t random = seed + number;
    stream_generate(&stream, STREAM_PORTABLE, false, seed, number, STREAM_UNITS_MAX);
    load_stream(&stream);
    host_boot(subject, STREAM_CODE);
    host_boot(reference, STREAM_CODE);
    while (subject->cpu->pc != EXIT_PC) {
        struct host_region *region = region_at(regions, subject->cpu->pc, &random);
        uint64_t before = subject->cpu->retired;
        if (region) {
            host_enter(subject, region);
            regions->entered++;
        }
        if (subject->cpu->retired == before) {
            host_step(subject);
        }
        while (reference->cpu->retired < subject->cpu->retired) {
            host_step(reference);
        }
        const char *difference = host_differs(subject, reference);
        ck_assert_msg(!difference, "stream %lu, region at %lx: %s", number, region ? region->pc : 0,
                      difference);
    }
    compare();
    ck_assert_uint_gt(regions->entered, 0);
    for (unsigned i = 0; i < STREAM_CODE_BYTES / 2; i++) {
        if (regions->at[i]) {
            host_region_free(regions->at[i]);
        }
    }
    free(regions);
}

START_TEST(random_streams_do_as_interpreted)
{
    const char *count = getenv("REGION_STREAMS");
    for (uint64_t i = 0; i < (count ? strtoull(count, NULL, 10) : 3); i++) {
        run_stream(1, i);
    }
}
END_TEST

int main(void)
{
    struct error err = {0};
    if (!region_compiler_setup(&err) || !(compiler = region_compiler_create(&err))) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    Suite *suite = suite_create("region_compiler");
    TCase *tcase = tcase_create("regions");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, a_loop_over_memory_runs_inside);
    tcase_add_test(tcase, a_fault_is_precise);
    tcase_add_test(tcase, attention_ends_a_loop);
    tcase_add_test(tcase, random_streams_do_as_interpreted);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    region_compiler_destroy(compiler);
    return failed != 0;
}
