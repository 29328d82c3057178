/* Translations, jumps and code under changing mappings: what may be kept, and what must not be. */
#include "engine_toy.h"

#define SIZE64 3
#define GLOBAL 8

static struct engine_stats stats_now(void)
{
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    return stats;
}

static void switch_to(uint64_t root)
{
    toy_of(toy.cpus[0])->root = root;
    toy_switch(toy.cpus[0]);
}

static void flush_root(uint64_t root, bool any_page, uint64_t va)
{
    toy.cpus[0]->host->tlb_flush(toy.cpus[0], false, root, ~(uint64_t)0, any_page, va);
}

static void flush_all_roots(bool any_page, uint64_t va)
{
    toy.cpus[0]->host->tlb_flush(toy.cpus[0], true, 0, 0, any_page, va);
}

/* --- global translations ---------------------------------------------------------------------- */

#define CODE_VA  UINT64_C(0x40000)
#define DATA_VA  UINT64_C(0x50000)
#define LOCAL_VA UINT64_C(0x60000)

static uint64_t *frame(unsigned number)
{
    return toy_ram(TOY_RAM_BASE + 0x10000 + number * 0x1000);
}

/* Spaces 5 and 6 share code and a page of data; a third page is each one's own. The code reads x3
 * from the shared page and x4 from the own one, and jumps to a second block. */
static void begin_spaces(int tier)
{
    toy_start(1, tier);
    for (unsigned root = 5; root <= 6; root++) {
        toy_map(root, CODE_VA, TOY_RAM_BASE, 4096, 5 | GLOBAL);
        toy_map(root, DATA_VA, TOY_RAM_BASE + 0x10000, 4096, 3 | GLOBAL);
        toy_map(root, LOCAL_VA, TOY_RAM_BASE + 0x10000 + root * 0x1000, 4096, 3);
        *frame(root) = root;
    }
    *frame(0) = 77;
    toy_emit(toy_li(1, (int32_t)DATA_VA));
    toy_emit(toy_li(2, (int32_t)LOCAL_VA));
    toy_emit(toy_load(SIZE64, 3, 1, 0));
    toy_emit(toy_load(SIZE64, 4, 2, 0));
    toy_emit(toy_li(5, (int32_t)CODE_VA + 0x100));
    toy_emit(toy_jump_register(5));
    toy.next_code = TOY_RAM_BASE + 0x100;
    toy_emit(toy_halt());
}

static void check_run(uint64_t shared, uint64_t own)
{
    struct toy_cpu *cpu = toy_run(CODE_VA);
    ck_assert_uint_eq(cpu->x[3], shared);
    ck_assert_uint_eq(cpu->x[4], own);
}

START_TEST(global_translations_outlast_flushes_that_name_a_space)
{
    begin_spaces(_i);
    switch_to(5);
    check_run(77, 5);
    struct engine_stats before = stats_now();
    toy_map(5, LOCAL_VA, TOY_RAM_BASE + 0x18000, 4096, 3);
    *frame(8) = 8;
    flush_root(5, true, 0);
    check_run(77, 8);
    struct engine_stats after = stats_now();
    ck_assert_uint_eq(after.tlb_misses - before.tlb_misses, 1);
    ck_assert_uint_eq(after.lookups, before.lookups);
    toy_finish();
}
END_TEST

START_TEST(a_new_space_begins_with_global_translations)
{
    begin_spaces(_i);
    switch_to(5);
    check_run(77, 5);
    struct engine_stats before = stats_now();
    switch_to(6);
    check_run(77, 6);
    struct engine_stats after = stats_now();
    ck_assert_uint_eq(after.tlb_misses - before.tlb_misses, 1);
    ck_assert_uint_eq(after.lookups, before.lookups);
    toy_finish();
}
END_TEST

START_TEST(flushes_of_all_spaces_drop_global_translations)
{
    begin_spaces(_i);
    for (unsigned any_page = 0; any_page < 2; any_page++) {
        for (unsigned root = 5; root <= 6; root++) {
            switch_to(root);
            check_run(*frame(any_page ? 9 : 0), root);
        }
        for (unsigned root = 5; root <= 6; root++) {
            toy_map(root, DATA_VA, TOY_RAM_BASE + (any_page ? 0x1a000 : 0x19000), 4096, 3 | GLOBAL);
            *frame(any_page ? 10 : 9) = 99 + any_page;
        }
        flush_all_roots(any_page != 0, DATA_VA);
        for (unsigned root = 5; root <= 6; root++) {
            switch_to(root);
            check_run(99 + any_page, root);
        }
    }
    toy_finish();
}
END_TEST

/* A space that begins with another's permission to write must lose it with the other. */
START_TEST(adopted_write_permission_is_revoked)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    for (unsigned root = 5; root <= 6; root++) {
        toy_map(root, CODE_VA, TOY_RAM_BASE, 4096, 5 | GLOBAL);
        toy_map(root, DATA_VA, TOY_RAM_BASE + 0x10000, 4096, 7 | GLOBAL);
    }
    toy_emit(toy_store(SIZE64, 1, 2, 8));
    toy_emit(toy_op(IR_call_ind, 0, TOY_NONE, 6, TOY_NONE, 0));
    toy.next_code = TOY_RAM_BASE + 0x10000;
    toy_emit(toy_li(4, 1)); /* its immediate is what is stored to */
    toy_emit(toy_halt());
    cpu->x[1] = DATA_VA;
    cpu->x[6] = DATA_VA;
    for (unsigned root = 5; root <= 6; root++) {
        switch_to(root);
        for (unsigned i = 1; i < 4; i++) {
            cpu->x[2] = root * 10 + i;
            toy_run(CODE_VA);
            ck_assert_uint_eq(cpu->x[4], root * 10 + i);
        }
    }
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: mappings");
    TCase *tests = tcase_create("mappings");
    tcase_set_timeout(tests, 120);
    toy_add(tests, global_translations_outlast_flushes_that_name_a_space);
    toy_add(tests, a_new_space_begins_with_global_translations);
    toy_add(tests, flushes_of_all_spaces_drop_global_translations);
    toy_add(tests, adopted_write_permission_is_revoked);
    suite_add_tcase(suite, tests);
    return toy_main(suite);
}
