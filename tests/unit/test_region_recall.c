/*
 * The last translation of a register, which compiled loops keep (jitd/llvm/recall.c): it is used
 * where the address is in its page, never for bytes beyond the page, and no longer than until a
 * function of the runtime was called. Rounds that are done as one (jitd/llvm/rounds.c) do as one by
 * one.
 */
#include "tests/unit/region_pair.h"
#include "tests/unit/suite.h"

#define RAM_END (HOST_RAM + HOST_RAM_SIZE)

/* To an exception; what the region leaves out is done by the lower tier. */
static void run_to_exception(const struct host_region *region)
{
    for (unsigned i = 0; subject->guest->csr.mcause == 0; i++) {
        ck_assert_uint_lt(i, 300);
        uint64_t before = subject->cpu->retired;
        if (subject->cpu->pc == CODE) {
            host_enter(subject, region);
        }
        if (subject->cpu->retired == before && subject->guest->csr.mcause == 0) {
            host_step(subject);
        }
    }
}

/*
 * 1:  lh   a3, 8(a0)
 *     add  a2, a2, a3
 *     sh   a2, 10(a0)
 *     ld   a0, 0(a0)
 *     bnez a0, 1b
 *     ebreak
 */
static const uint16_t list[] = {0x1683, 0x0085, 0x9636, 0x1523, 0x00c5, 0x6108, 0xf975, 0x9002};

/* Items in runs of 20 on each of three pages, some of them at odd addresses. */
START_TEST(a_list_is_walked)
{
    enum { ITEMS = 480, RUN = 20, PAGES = 3 };
    uint64_t places[ITEMS + 1];
    for (unsigned i = 0; i < ITEMS; i++) {
        unsigned run = i / RUN, number = run / PAGES * RUN + i % RUN;
        places[i] = DATA + run % PAGES * 8192 + number * 24 + run % 2;
    }
    places[ITEMS] = 0;
    for (unsigned i = 0; i < ITEMS; i++) {
        load(places[i], &places[i + 1], 8);
        load(places[i] + 8, &(uint16_t){(uint16_t)i}, 2);
    }
    load(CODE, list, sizeof(list));
    set_register(10, places[0]);
    struct host_region *region = compile(CODE, 64, 1);
    host_enter(subject, region);
    ck_assert_uint_eq(subject->cpu->retired_optimised, 5 * ITEMS);
    ck_assert_uint_le(subject->slow_loads + subject->slow_stores, 2 * PAGES);
    compare();
    host_region_free(region);
}
END_TEST

/* All of these step up to a1, over the end of memory if need be. */
static const struct {
    uint16_t code[10];
    const char *text;
} scans[] = {
    {{0x6114, 0x9636, 0x050d, 0x1de3, 0xfeb5, 0x9002},
     "ld a3, 0(a0); add a2, a2, a3; addi a0, a0, 3; bne"},
    {{0x6683, 0x0005, 0x5703, 0x0095, 0x9636, 0x0515, 0x1ae3, 0xfeb5, 0x9002},
     "lwu a3, 0(a0); lhu a4, 9(a0); add a2, a2, a3; addi a0, a0, 5; bne"},
    {{0xe108, 0x05a3, 0x00c5, 0x051d, 0x1ce3, 0xfeb5, 0x9002},
     "sd a0, 0(a0); sb a2, 11(a0); addi a0, a0, 7; bne"},
    {{0xc108, 0x0509, 0x1ee3, 0xfeb5, 0x9002}, "sw a0, 0(a0); addi a0, a0, 2; bne"},
};

/* Behind the end there is nothing of the guest's: an access that crosses it must fault, though its
 * first bytes lie in the page of the last round. */
START_TEST(nothing_is_accessed_beyond_the_page)
{
    load(CODE, scans[_i].code, sizeof(scans[_i].code));
    for (uint64_t start = RAM_END - 4096 - 64; start < RAM_END - 4096 - 48; start++) {
        host_boot(subject, CODE);
        host_boot(reference, CODE);
        set_register(10, start);
        set_register(11, 1); /* never met */
        struct host_region *region = compile(CODE, 64, 1);
        run_to_exception(region);
        ck_assert_uint_ge(subject->guest->csr.mtval, RAM_END - 16);
        ck_assert_uint_gt(subject->cpu->retired_optimised, 1000);
        compare();
        host_region_free(region);
    }
}
END_TEST

/*
 * 1:  sd   a2, 0(a0)
 *     ld   a3, 0(a1)
 *     xor  a1, a1, a4
 *     addi a2, a2, -1
 *     bnez a2, 1b
 *     ebreak
 */
static const uint16_t store_and_load[] = {0xe110, 0x6194, 0x8db9, 0x167d, 0xfe65, 0x9002};

/* After every third: the loop has found its translation in the TLB by then. */
static void forget_translations(struct region_host *host)
{
    const struct flush_request all = {.any_root = true, .any_page = true};
    if (host->slow_loads % 3 == 0) {
        mmu_flush(engine_cpu_of(host->cpu), &all);
    }
}

/* The load is from two pages in turn that are for the same entry of the TLB, so each round calls a
 * function of the runtime. */
START_TEST(a_call_ends_it)
{
    enum { ROUNDS = 200 };
    load(CODE, store_and_load, sizeof(store_and_load));
    set_register(10, DATA + 4096);
    set_register(11, DATA);
    set_register(12, ROUNDS);
    set_register(14, UINT64_C(256) * 4096);
    subject->behind_slow_load = _i ? forget_translations : NULL;
    struct host_region *region = compile(CODE, 64, 1);
    host_enter(subject, region);
    ck_assert_uint_eq(subject->slow_loads, ROUNDS);
    ck_assert_uint_eq(subject->slow_stores, _i ? 1 + (ROUNDS - 1) / 3 : 1);
    ck_assert_uint_eq(subject->cpu->retired_optimised, 5 * ROUNDS);
    compare();
    host_region_free(region);
}
END_TEST

/*
 * 1:  lbu  a3, 0(a0)
 *     lbu  a4, 0(a1)
 *     addi a0, a0, 1
 *     addi a1, a1, 1
 *     bne  a3, a4, 2f
 *     addi a2, a2, 1
 *     bnez a3, 1b
 * 2:  ebreak
 */
static const uint16_t compare_strings[] = {0x4683, 0x0005, 0xc703, 0x0005, 0x0505, 0x0585,
                                           0x9463, 0x00e6, 0x0605, 0xf6fd, 0x9002};

/* Strings that end, or differ, after any number of bytes: the rounds that are done as one end
 * anywhere. */
START_TEST(rounds_end_anywhere)
{
    enum { LENGTH = 40 };
    load(CODE, compare_strings, sizeof(compare_strings));
    struct host_region *region = compile(CODE, 64, 1);
    for (unsigned i = 0; i < LENGTH * 4; i++) {
        uint64_t one = DATA + 4096 - i % 64, other = DATA + 3 * 8192 - i % 37;
        char text[LENGTH + 1] = {0};
        memset(text, 'a', i % LENGTH);
        load(one, text, sizeof(text));
        text[i % LENGTH / 2] ^= i & 64 ? 1 : 0;
        load(other, text, sizeof(text));
        host_boot(subject, CODE);
        host_boot(reference, CODE);
        set_register(10, one);
        set_register(11, other);
        set_register(12, 0);
        run_to_exception(region);
        compare();
        ck_assert_uint_eq(subject->guest->x[12],
                          i & 64 && i % LENGTH ? i % LENGTH / 2 : i % LENGTH + !(i & 64));
    }
    host_region_free(region);
}
END_TEST

/*
 * 1:  ld   a3, -8(a0)
 *     addi a0, a0, -8
 *     sd   a3, -8(a1)
 *     addi a1, a1, -8
 *     addi a2, a2, -1
 *     bnez a2, 1b
 *     ebreak
 */
static const uint16_t copy_down[] = {0x3683, 0xff85, 0x1561, 0xbc23, 0xfed5,
                                     0x15e1, 0x167d, 0xfa6d, 0x9002};

/* Ranges that overlap, at any distance: each round sees what the one before has stored. */
START_TEST(rounds_see_each_other)
{
    enum { WORDS = 700 };
    load(CODE, copy_down, sizeof(copy_down));
    struct host_region *region = compile(CODE, 64, 1);
    for (unsigned i = 0; i < WORDS + 10; i++) {
        load(DATA + 8192 - 8 * i, &(uint64_t){i * UINT64_C(0x0123456789abcdef)}, 8);
    }
    for (int distance = -33; distance <= 33; distance++) {
        host_boot(subject, CODE);
        host_boot(reference, CODE);
        set_register(10, DATA + 8192);
        set_register(11, DATA + 8192 - (uint64_t)(int64_t)distance);
        set_register(12, WORDS);
        run_to_exception(region);
        ck_assert_uint_gt(subject->cpu->retired_optimised, 6 * WORDS - 100);
        compare();
    }
    host_region_free(region);
}
END_TEST

/* Chains of operations whose NaNs are seen late, in rounds done as one: over numbers of every kind:
 * most rounds read what was there at the beginning. */
static const struct {
    uint16_t code[36];
    const char *text;
} chains[] = {
    {{0x2108, 0x250c, 0x7053, 0x12b5, 0x70d3, 0x02b0, 0x7153, 0x0aa5, 0x7153, 0x1ab1,
      0x3087, 0x0105, 0xf0d3, 0x1200, 0xf0d3, 0x5a00, 0x3827, 0x1205, 0xf653, 0x0225,
      0x16d3, 0xa216, 0x3c27, 0x1225, 0x0541, 0x17e3, 0xfcb5, 0x9002},
     "doubles: what others are made of is overwritten, stored, compared"},
    {{0x2507, 0x0005, 0x2587, 0x0045, 0x7053, 0x10b5, 0x70d3, 0x08b0, 0xf153, 0x18b0,
      0x70d3, 0x00b5, 0xf1d3, 0x1010, 0x8253, 0x2021, 0x2827, 0x1245, 0x71d3, 0x5800,
      0x81d3, 0xf006, 0x2a27, 0x1205, 0x06d3, 0xe001, 0x0521, 0x15e3, 0xfcb5, 0x9002},
     "singles: signs and bits are looked at"},
    {{0x2108, 0x7053, 0x12a5, 0x0053, 0xf205, 0x70d3, 0x02a5, 0xf0c3, 0x0aa0, 0xf0d3,
      0x0210, 0x7153, 0xd225, 0x7153, 0x0a11, 0x7153, 0x5a01, 0x11d3, 0x2a01, 0x26f3,
      0x0010, 0x0753, 0xa2a1, 0x9073, 0x0016, 0x0521, 0x16e3, 0xfcb5, 0x9002},
     "mixed: fused, converted, the greatest, a silent comparison"},
    {{0x2108, 0x250c, 0x7053, 0x12b5, 0x3827, 0x1205, 0x71d3, 0x02b5, 0xf0d3, 0x0ab1, 0x3087,
      0x0005, 0x3c27, 0x1235, 0x0541, 0x11e3, 0xfeb5, 0x9002},
     "a result is stored at once; what it went into is forgotten"},
};

START_TEST(nans_are_canonical)
{
    static const uint64_t numbers[] = {
        0,
        UINT64_C(0x8000000000000000),
        UINT64_C(0x3ff0000000000000),
        UINT64_C(0xc008000000000001),
        UINT64_C(0x7ff0000000000000),
        UINT64_C(0xfff0000000000000),
        UINT64_C(0x7ff8000000000000),
        UINT64_C(0xfff8000000000123),
        UINT64_C(0x7ff0000000000001),
        UINT64_C(0x4034000000000000),
        UINT64_C(0x3f8000003f800000),
        UINT64_C(0x7fc00001ffc00000),
        UINT64_C(0x7f8000017f800000),
        UINT64_C(0xc0a0000040a00000),
    };
    enum { NUMBERS = sizeof(numbers) / sizeof(numbers[0]), WORDS = 64, TIMES = 200 };
    load(CODE, chains[_i].code, sizeof(chains[_i].code));
    struct host_region *region = compile(CODE, 64, 1);
    uint32_t random = 1;
    for (unsigned i = 0; i < TIMES; i++) {
        uint64_t words[WORDS];
        for (unsigned k = 0; k < WORDS; k++) {
            random = random * 1664525u + 1013904223u;
            words[k] = random >> 30 ? UINT64_C(0x4000000000000000) + random : 0;
            words[k] = random >> 24 & (i % 8) ? words[k] : numbers[(random >> 8) % NUMBERS];
        }
        load(DATA, words, sizeof(words));
        host_boot(subject, CODE);
        host_boot(reference, CODE);
        set_register(10, DATA);
        set_register(11, DATA + 8 * (WORDS - 8));
        run_to_exception(region);
        compare();
    }
    ck_assert_uint_gt(subject->cpu->retired_optimised, 0);
    host_region_free(region);
}
END_TEST

/* Each round stores bytes, moves a1 by `step`, and ends somehow by comparing it with a2. */
static const struct {
    uint16_t code[14];
    int64_t step;
    const char *text;
} counts[] = {
    {{0x0023, 0x00d5, 0x0505, 0x0585, 0x9ce3, 0xfec5, 0x9002}, 1, "addi 1; bne a1, a2"},
    {{0x0023, 0x00d5, 0x0505, 0x15f5, 0x1ce3, 0xfeb6, 0x9002}, -3, "addi -3; bne a2, a1"},
    {{0x0023, 0x00d5, 0x0505, 0x0595, 0xece3, 0xfec5, 0x9002}, 5, "addi 5; bltu a1, a2"},
    {{0x0023, 0x00d5, 0x0505, 0x059d, 0xcce3, 0xfec5, 0x9002}, 7, "addi 7; blt a1, a2"},
    {{0x0023, 0x00d5, 0x0505, 0xf463, 0x00c5, 0x0591, 0xbfd5, 0x9002}, 4, "bgeu out; addi 4; j"},
    {{0x0023, 0x00d5, 0x0505, 0xd463, 0x00c5, 0x0591, 0xbfd5, 0x9002}, 4, "bge out; addi 4; j"},
    {{0x0023, 0x00d5, 0x0505, 0x15fd, 0xfde5, 0x9002}, -1, "addi -1; bnez"},
    {{0x0023, 0x00d5, 0x0505, 0x8463, 0x00c5, 0x15f9, 0xbfd5, 0x9002}, -2, "beq out; addi -2; j"},
    {{0x0023, 0x00d5, 0x0793, 0x0015, 0x8123, 0x00d7, 0x853e, 0x0585, 0x98e3, 0xfec5, 0x9002},
     1,
     "addi a5, a0; sb 2(a5); mv a0, a5; bne"},
    {{0x4783, 0x0005, 0x96be, 0x0023, 0x00d7, 0x0793, 0x0015, 0x853a, 0x873e, 0x0585, 0x96e3,
      0xfec5, 0x9002},
     1,
     "a0 and a4 in turns; bne"},
    {{0x0023, 0x00d5, 0x8793, 0x0025, 0x0505, 0x85be, 0x9ae3, 0xfec7, 0x9002},
     2,
     "addi a5, a1, 2; mv a1, a5; bne a5, a2"},
    {{0x0023, 0x00d5, 0x0793, 0x0025, 0x0505, 0xc683, 0x0017, 0x0585, 0xe8e3, 0xfec5, 0x9002},
     1,
     "sb 0(a0); addi a5, a0; lbu 1(a5); bltu"},
    {{0x4783, 0x0005, 0x0505, 0x96be, 0x0023, 0x00d7, 0x0585, 0x872a, 0x98e3, 0xfec5, 0x9002},
     1,
     "a4 follows a0; bne"},
};

/* Any number of rounds, from numbers that wrap on the way, with the end met exactly or not: never
 * more rounds than there are. What does not end runs into the end of memory. */
START_TEST(rounds_are_counted)
{
    static const uint64_t starts[] = {0, UINT64_C(1) << 32, UINT64_MAX - 60,
                                      (UINT64_C(1) << 63) - 60, (UINT64_C(1) << 63) + 60};
    enum { STARTS = sizeof(starts) / sizeof(starts[0]), ROUNDS = 40, AWRY = 3 };
    load(CODE, counts[_i].code, sizeof(counts[_i].code));
    struct host_region *region = compile(CODE, 64, 1);
    for (unsigned i = 0; i < STARTS * ROUNDS * AWRY; i++) {
        uint64_t way = (uint64_t)counts[_i].step * (i % ROUNDS) + i / ROUNDS % AWRY;
        host_boot(subject, CODE);
        host_boot(reference, CODE);
        set_register(10, RAM_END - 200);
        set_register(11, counts[_i].step == -1 ? way : starts[i / (ROUNDS * AWRY)]);
        set_register(12, starts[i / (ROUNDS * AWRY)] + way);
        set_register(13, i);
        set_register(14, RAM_END - 4096 - i % 32);
        run_to_exception(region);
        compare();
    }
    host_region_free(region);
}
END_TEST

int main(void)
{
    struct error err;
    if (!region_compiler_setup(&err) || !(compiler = region_compiler_create(&err))) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    Suite *suite = suite_create("region_recall");
    TCase *tcase = tcase_create("loops");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_list_is_walked);
    tcase_add_loop_test(tcase, nothing_is_accessed_beyond_the_page, 0,
                        (int)(sizeof(scans) / sizeof(scans[0])));
    tcase_add_loop_test(tcase, a_call_ends_it, 0, 2);
    tcase_add_test(tcase, rounds_end_anywhere);
    tcase_add_test(tcase, rounds_see_each_other);
    tcase_add_loop_test(tcase, nans_are_canonical, 0, (int)(sizeof(chains) / sizeof(chains[0])));
    tcase_add_loop_test(tcase, rounds_are_counted, 0, (int)(sizeof(counts) / sizeof(counts[0])));
    suite_add_tcase(suite, tcase);
    int status = suite_run(suite);
    region_compiler_destroy(compiler);
    return status;
}
