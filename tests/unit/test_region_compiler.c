/*
 * Regions compiled by LLVM do what the interpreter does: small programs, and random streams (those
 * of tests/lockstep) cut into regions of all shapes.
 */
#include "tests/lockstep/generate.h"
#include "tests/unit/region_pair.h"
#include "tests/unit/suite.h"

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

/* --- programs -----------------------------------------------------------------------------------
 */

/*
 * calls:                  # sum of f(i), i = a1..1
 *     li a2, 0
 * 1:  mv a0, a1
 *     jal ra, f
 *     add a2, a2, a0
 *     addi a1, a1, -1
 *     bnez a1, 1b
 *     ebreak
 * f:  slli a0, a0, 1
 *     addi a0, a0, 3
 *     ret
 *     .balign 16
 * indirect:               # a1 rounds through a pointer in a3
 *     li a2, 0
 * 2:  jalr ra, 0(a3)
 *     add a2, a2, a0
 *     addi a1, a1, -1
 *     bnez a1, 2b
 *     ebreak
 *     .balign 16
 * atomics:                # a0: address; a1: rounds
 *     li a2, 3
 * 3:  amoadd.d a3, a2, (a0)
 *     amomaxu.w a4, a1, (a0)
 *     amoswap.w a5, a4, (a0)
 * 4:  lr.d a6, (a0)
 *     addi a6, a6, 5
 *     sc.d a7, a6, (a0)
 *     bnez a7, 4b
 *     fence rw, rw
 *     addi a1, a1, -1
 *     bnez a1, 3b
 *     ebreak
 *     .balign 16
 * floats:                 # fa0, fa1 doubles; ft0 single; a1 rounds; a0 memory
 * 5:  fadd.d fa2, fa0, fa1
 *     fmul.d fa3, fa2, fa0
 *     fdiv.d fa4, fa3, fa1
 *     fmadd.d fa5, fa4, fa2, fa3
 *     fsqrt.d fa6, fa5
 *     fcvt.s.d ft1, fa5
 *     fadd.s ft2, ft1, ft0
 *     fmul.s ft3, ft2, ft2
 *     fcvt.w.d a2, fa5, rtz
 *     fcvt.l.d a3, fa5
 *     fcvt.wu.s a4, ft2, rtz
 *     fmin.d fa7, fa5, fa1
 *     fmax.s ft4, ft2, ft0
 *     feq.d a5, fa2, fa3
 *     flt.s a6, ft2, ft3
 *     fle.d a7, fa0, fa1
 *     fclass.d t0, fa5
 *     fsgnjx.d ft5, fa5, fa0
 *     fcvt.d.l ft6, a1
 *     fsd fa5, 0(a0)
 *     fsw ft3, 8(a0)
 *     fld fa0, 0(a0)
 *     flw ft0, 8(a0)
 *     addi a1, a1, -1
 *     bnez a1, 5b
 *     ebreak
 *     .balign 16
 * frame:                  # neighbouring accesses; a0: frame, a1 rounds
 * 6:  sd a1, 0(a0)
 *     sd a2, 8(a0)
 *     sw a1, 16(a0)
 *     lw a3, 20(a0)
 *     ld a4, 0(a0)
 *     add a2, a2, a4
 *     ld a5, 0(a6)
 *     add a2, a2, a5
 *     sb a2, 23(a0)
 *     add a0, a0, a7
 *     addi a1, a1, -1
 *     bnez a1, 6b
 *     ebreak
 *     .balign 16
 * leaving:                # ends by every other means
 *     frflags a0
 *     csrr a1, instret
 *     fadd.d fa0, fa0, fa0, rup
 *     addi a2, a2, 1
 *     beqz a2, leaving
 *     ecall
 */
static const uint32_t programs[] = {
    0x852e4601, 0x00c000ef, 0x15fd962a, 0x9002f9fd, 0x050d0506, 0x00018082, 0x00000013, 0x00000013,
    0x00000013, 0x80e74601, 0x962a0006, 0xfde515fd, 0x00019002, 0x00000013, 0x00000013, 0x00000013,
    0x36af460d, 0x272f00c5, 0x27afe0b5, 0x382f08e5, 0x08151005, 0x190538af, 0xfe089be3, 0x0330000f,
    0xf1e515fd, 0x00019002, 0x00000013, 0x00000013, 0x00000013, 0x02b57653, 0x12a676d3, 0x1ab6f753,
    0x6ac777c3, 0x5a07f853, 0x4017f0d3, 0x0000f153, 0x102171d3, 0xc2079653, 0xc227f6d3, 0xc0111753,
    0x2ab788d3, 0x28011253, 0xa2d627d3, 0xa0311853, 0xa2b508d3, 0xe20792d3, 0x22a7a2d3, 0xd225f353,
    0x2427a11c, 0x21080035, 0x00852007, 0xf1dd15fd, 0x00019002, 0x00000013, 0x00000013, 0x00000013,
    0xe510e10c, 0x4954c90c, 0x963a6118, 0x00083783, 0x0ba3963e, 0x954600c5, 0xf1fd15fd, 0x00019002,
    0x00000013, 0x00000013, 0x00000013, 0x00102573, 0xc02025f3, 0x02a53553, 0xda6d0605, 0x00000073,
};
enum {
    CALLS = 0,
    INDIRECT = 0x24,
    FUNCTION = 0x10,
    ATOMICS = 0x40,
    FLOATS = 0x74,
    FRAME = 0xe0,
    LEAVING = 0x10c,
};

static void set_float(unsigned index, uint64_t bits)
{
    subject->guest->f[index] = reference->guest->f[index] = bits;
}

static void start(uint64_t pc)
{
    host_boot(subject, pc);
    host_boot(reference, pc);
}

/* Run to the breakpoint or any other exception; wherever the region is left, both guests must be
 * alike. The lower tier does what the region does not. Returns the instructions done inside. */
static uint64_t run_to_exception(const struct host_region *region)
{
    uint64_t inside = 0;
    for (unsigned i = 0; subject->guest->csr.mcause == 0; i++) {
        ck_assert_uint_lt(i, 100000);
        uint64_t before = subject->cpu->retired;
        if (subject->cpu->pc == region->pc) {
            host_enter(subject, region);
        }
        inside += subject->cpu->retired - before;
        if (subject->cpu->retired == before && subject->guest->csr.mcause == 0) {
            host_step(subject);
        }
        while (reference->cpu->retired < subject->cpu->retired) {
            host_step(reference);
        }
        if (subject->guest->csr.mcause && !reference->guest->csr.mcause) {
            host_step(reference);
        }
        const char *difference = host_differs(subject, reference);
        ck_assert_msg(!difference, "%s", difference);
    }
    compare();
    return inside;
}

START_TEST(calls_and_returns_stay_inside)
{
    load(CODE, programs, sizeof(programs));
    start(CODE + CALLS);
    set_register(11, 1000);
    struct host_region *region = compile(CODE + CALLS, 64, 1);
    run_to_exception(region);
    ck_assert_uint_eq(subject->guest->csr.mcause, 3);
    ck_assert_uint_eq(subject->cpu->retired_optimised, subject->cpu->retired);
    ck_assert_uint_eq(subject->guest->x[12], 1000 * 1001 + 3000);
    host_region_free(region);
}
END_TEST

START_TEST(an_unexpected_target_leaves)
{
    load(CODE, programs, sizeof(programs));
    start(CODE + INDIRECT);
    set_register(11, 50);
    set_register(13, CODE + FUNCTION);
    struct host_region *region = compile(CODE + INDIRECT, 64, 1);
    run_to_exception(region);
    ck_assert_uint_eq(subject->guest->csr.mcause, 3);
    host_region_free(region);
}
END_TEST

START_TEST(atomics_do_as_interpreted)
{
    static const uint64_t places[] = {DATA, DATA + 4096, DATA + 4, HOST_RAM + HOST_RAM_SIZE,
                                      0x10000000};
    load(CODE, programs, sizeof(programs));
    struct host_region *region = compile(CODE + ATOMICS, 64, 1);
    for (unsigned i = 0; i < 5; i++) {
        start(CODE + ATOMICS);
        set_register(10, places[i]);
        set_register(11, 40);
        uint64_t inside = run_to_exception(region);
        if (i < 2) {
            ck_assert_uint_eq(subject->guest->csr.mcause, 3);
            ck_assert_uint_eq(inside, 1 + 40 * 10);
        }
    }
    host_region_free(region);
}
END_TEST

START_TEST(numbers_and_flags_are_exact)
{
    static const uint64_t doubles[] = {0,
                                       UINT64_C(0x8000000000000000),
                                       UINT64_C(0x3ff0000000000000),
                                       UINT64_C(0xc008000000000001),
                                       UINT64_C(0x7ff0000000000000),
                                       UINT64_C(0xfff0000000000000),
                                       UINT64_C(0x7ff8000000000000),
                                       UINT64_C(0xfff8000000000123),
                                       UINT64_C(0x7ff0000000000001),
                                       UINT64_C(0x7fefffffffffffff),
                                       UINT64_C(0x0000000000000001),
                                       UINT64_C(0x41dfffffffe00000),
                                       UINT64_C(0xc1e0000000100000),
                                       UINT64_C(0x43e0000000000000)};
    static const uint64_t singles[] = {UINT64_C(0xffffffff3f800000), UINT64_C(0xffffffffffc00001),
                                       UINT64_C(0xffffffff7f800001), UINT64_C(0xffffffff00000001),
                                       UINT64_C(0x000000003f800000)};
    enum { DOUBLES = sizeof(doubles) / sizeof(doubles[0]), SINGLES = 5 };
    load(CODE, programs, sizeof(programs));
    struct host_region *region = compile(CODE + FLOATS, 64, 1);
    uint64_t inside = 0;
    for (unsigned i = 0; i < DOUBLES * DOUBLES; i++) {
        start(CODE + FLOATS);
        set_register(10, DATA);
        set_register(11, 3);
        set_float(10, doubles[i / DOUBLES]);
        set_float(11, doubles[i % DOUBLES]);
        set_float(0, singles[i % SINGLES]);
        inside += run_to_exception(region);
        ck_assert_uint_eq(subject->guest->csr.mcause, 3);
    }
    ck_assert_uint_gt(inside, DOUBLES * DOUBLES * 10);
    host_region_free(region);
}
END_TEST

START_TEST(neighbouring_accesses_may_lie_anywhere)
{
    static const uint64_t frames[] = {DATA,
                                      DATA + 4096 - 24,
                                      DATA + 4096 - 23,
                                      DATA + 4096 - 4,
                                      DATA + 8192 - 100,
                                      HOST_RAM + HOST_RAM_SIZE - 96,
                                      HOST_RAM - 8,
                                      0x10000000};
    static const uint64_t others[] = {DATA, DATA + 3 * 4096, DATA + 4096 - 4, HOST_RAM - 4096,
                                      0x10000000};
    load(CODE, programs, sizeof(programs));
    struct host_region *region = compile(CODE + FRAME, 64, 1);
    for (unsigned i = 0; i < 8 * 5 * 3; i++) {
        start(CODE + FRAME);
        set_register(10, frames[i % 8]);
        set_register(11, 100);
        set_register(16, others[i / 8 % 5]);
        set_register(17, i / 40 * 12);
        run_to_exception(region);
    }
    host_region_free(region);
}
END_TEST

START_TEST(what_is_not_done_inside_is_left_out)
{
    load(CODE, programs, sizeof(programs));
    struct host_region *region = compile(CODE + LEAVING, 64, 1);
    start(CODE + LEAVING);
    set_float(10, UINT64_C(0x3ff0000000000001));
    set_register(12, (uint64_t)-4);
    run_to_exception(region);
    ck_assert_uint_eq(subject->guest->csr.mcause, 11); /* ECALL from machine mode */
    host_region_free(region);
    struct error err = {0};
    ck_assert_ptr_null(host_compile(subject, compiler, CODE + LEAVING + 8, 64, 1, &err));
    ck_assert_int_eq(err.code, ERROR_UNSUPPORTED);
}
END_TEST

/* --- pages --------------------------------------------------------------------------------------
 */

/* A jump to the next page, a loop there, and a jump back to the breakpoint. */
START_TEST(other_pages_are_guarded)
{
    static const uint32_t first[] = {0x0000106f, 0x00100073}; /* j . + 4096; ebreak */
    static const uint32_t second[] = {0xfff58593, 0xfe059ee3, /* addi a1, a1, -1; bnez a1, -4 */
                                      0xffcff06f};            /* j . - 4100 + 4 */
    load(CODE, first, sizeof(first));
    load(CODE + 4096, second, sizeof(second));
    struct host_region *region = compile(CODE, 64, 2);
    ck_assert_uint_eq(region->region.page_count, 2);
    start(CODE);
    set_register(11, 100);
    run_to_exception(region);
    ck_assert_uint_eq(subject->cpu->retired_optimised, 202);

    uint64_t *pages = (uint64_t *)(void *)(region->code + region->code_size) - 2;
    mprotect(region->code, region->code_size, PROT_READ | PROT_WRITE);
    pages[1] += 4096;
    mprotect(region->code, region->code_size, PROT_READ | PROT_EXEC);
    start(CODE);
    host_enter(subject, region);
    ck_assert_uint_eq(subject->cpu->pc, CODE);
    ck_assert_uint_eq(subject->cpu->retired_optimised, 0);
    host_region_free(region);
}
END_TEST

/* --- the compiler -------------------------------------------------------------------------------
 */

START_TEST(the_same_region_gives_the_same_bytes)
{
    load(CODE, programs, sizeof(programs));
    struct host_region *first = compile(CODE + FRAME, 64, 1);
    for (unsigned i = 0; i < 300; i++) { /* more than a context is used for */
        struct compiled_region again;
        struct error err = {0};
        ck_assert(region_compile(compiler, &first->region, &again, &err));
        ck_assert_uint_eq(again.size, first->compiled.size);
        ck_assert_mem_eq(again.bytes, first->compiled.bytes, again.size);
        ck_assert_uint_eq(again.insns, first->compiled.insns);
        free(again.bytes);
    }
    host_region_free(first);
    ck_assert_ptr_nonnull(strstr(region_compiler_identity(), "LLVM 19"));
    ck_assert_ptr_eq(region_compiler_identity(), region_compiler_identity());
}
END_TEST

START_TEST(a_listing_shows_all_stages)
{
    struct error err = {0};
    struct region region;
    load(CODE, programs, sizeof(programs));
    host_form(subject, CODE + CALLS, 64, 1, &region);
    char *listing = region_compile_listing(compiler, &region, &err);
    ck_assert_ptr_nonnull(listing);
    ck_assert_ptr_nonnull(strstr(listing, "alloca"));
    ck_assert_ptr_nonnull(strstr(listing, "; host code"));
    free(listing);
}
END_TEST

/* Bytes of a struct region turned at random: refused, or compiled to a sound blob. */
START_TEST(hostile_regions_do_no_harm)
{
    uint64_t random = 1;
    struct region sound;
    unsigned compiled = 0;
    load(CODE, programs, sizeof(programs));
    host_form(subject, CODE + CALLS, 64, 1, &sound);
    size_t head = offsetof(struct region, blocks) + sound.block_count * sizeof(struct region_block);
    for (unsigned i = 0; i < 400; i++) {
        struct region region = sound;
        for (unsigned j = 0; j < 1 + i % 3; j++) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
            uint64_t which = random >> 33;
            uint8_t *bytes = which % 4 == 0   ? (uint8_t *)region.edges + which / 4 % 24
                             : which % 4 == 1 ? region.bytes + which / 4 % sound.byte_count
                                              : (uint8_t *)&region + which / 4 % head;
            *bytes ^= (uint8_t)(1u << (random >> 29 & 7));
        }
        struct compiled_region out;
        struct blob blob;
        struct error err = {0};
        if (region_compile(compiler, &region, &out, &err)) {
            ck_assert_msg(blob_check(&blob, out.bytes, out.size, &region, &err), "%s", err.message);
            free(out.bytes);
            compiled++;
        } else {
            ck_assert_int_ne(err.code, 0);
        }
    }
    ck_assert_uint_gt(compiled, 10);
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
    for (uint64_t i = 0; i < (count ? strtoull(count, NULL, 10) : 2); i++) {
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
    tcase_add_test(tcase, calls_and_returns_stay_inside);
    tcase_add_test(tcase, an_unexpected_target_leaves);
    tcase_add_test(tcase, atomics_do_as_interpreted);
    tcase_add_test(tcase, numbers_and_flags_are_exact);
    tcase_add_test(tcase, neighbouring_accesses_may_lie_anywhere);
    tcase_add_test(tcase, what_is_not_done_inside_is_left_out);
    tcase_add_test(tcase, other_pages_are_guarded);
    tcase_add_test(tcase, the_same_region_gives_the_same_bytes);
    tcase_add_test(tcase, a_listing_shows_all_stages);
    tcase_add_test(tcase, hostile_regions_do_no_harm);
    tcase_add_test(tcase, random_streams_do_as_interpreted);
    suite_add_tcase(suite, tcase);
    int status = suite_run(suite);
    region_compiler_destroy(compiler);
    return status;
}
