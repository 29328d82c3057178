/* Translations, jumps and code under changing mappings: what may be kept, and what must not be. */
#include "engine_toy.h"
#include "tests/unit/suite.h"

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

/* --- links to other pages --------------------------------------------------------------------- */

#define FAR_VA  UINT64_C(0x71000) /* of the target's page */
#define NEAR_VA UINT64_C(0x70000)
#define FRAMES  (TOY_RAM_BASE + 0x40000)

/* A frame that says its number in x2 and goes back to what follows the jump. */
static void emit_far(unsigned number, int32_t back)
{
    toy.next_code = FRAMES + number * 0x1000;
    toy_emit(toy_li(2, (int32_t)number));
    toy_emit(toy_jump(back));
}

/* At NEAR_VA: `rounds` times to the far page and back, adding up x2 in x3. */
static void begin_far(unsigned cpus, int tier, unsigned frames)
{
    toy_start(cpus, tier);
    toy.next_code = TOY_RAM_BASE;
    uint64_t loop = toy_emit(toy_jump(0x1000));
    toy_emit(toy_op(IR_add, 0, 3, 3, 2, 0)); /* the far page's code comes back here */
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    for (unsigned i = 0; i < frames; i++) {
        emit_far(i, -0x1000);
    }
}

static uint64_t run_far(unsigned rounds)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = rounds;
    cpu->x[3] = 0;
    return toy_run(NEAR_VA)->x[3];
}

START_TEST(far_links_follow_the_mapping)
{
    begin_far(1, _i, 8);
    toy_map(5, NEAR_VA, TOY_RAM_BASE, 4096, 5);
    switch_to(5);
    for (unsigned i = 1; i < 8; i++) {
        toy_map(5, FAR_VA, FRAMES + i * 0x1000, 4096, 5);
        flush_root(5, i & 1, FAR_VA);
        ck_assert_uint_eq(run_far(5), 5 * i);
        ck_assert_uint_eq(run_far(3), 3 * i);
    }
    toy_finish();
}
END_TEST

/* One page of code in two spaces, and at two addresses of one of them, with different neighbours.
 */
START_TEST(far_links_of_one_block_differ_by_space_and_address)
{
    const uint64_t other = UINT64_C(0x90000) - NEAR_VA;
    begin_far(1, _i, 8);
    for (unsigned root = 5; root <= 6; root++) {
        toy_map(root, NEAR_VA, TOY_RAM_BASE, 4096, 5);
        toy_map(root, FAR_VA, FRAMES + root * 0x1000, 4096, 5);
    }
    toy_map(6, NEAR_VA + other, TOY_RAM_BASE, 4096, 5);
    toy_map(6, FAR_VA + other, FRAMES + 0x7000, 4096, 5);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned root = 5; root <= 6; root++) {
            switch_to(root);
            ck_assert_uint_eq(run_far(4), 4 * root);
        }
        toy_of(toy.cpus[0])->x[1] = 4;
        toy_of(toy.cpus[0])->x[3] = 0;
        ck_assert_uint_eq(toy_run(NEAR_VA + other)->x[3], 4 * 7);
    }
    toy_finish();
}
END_TEST

START_TEST(far_links_end_where_nothing_is_mapped)
{
    begin_far(1, _i, 2);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, NEAR_VA, TOY_RAM_BASE, 4096, 5);
    toy_map(5, FAR_VA, FRAMES + 0x1000, 4096, 5);
    switch_to(5);
    ck_assert_uint_eq(run_far(4), 4);
    toy.mappings[1].permissions = 3; /* not for execution any more */
    flush_root(5, false, FAR_VA);
    run_far(4);
    ck_assert_uint_eq(cpu->traps, 1);
    ck_assert_uint_eq(cpu->trap_pc, FAR_VA);
    ck_assert_uint_eq(cpu->trap_value, FAR_VA);
    ck_assert_uint_eq(cpu->trap_cause, TOY_PAGE_FAULT);
    toy.mappings[1].permissions = 5;
    ck_assert_uint_eq(run_far(4), 4);
    toy_finish();
}
END_TEST

START_TEST(far_links_end_when_code_changes)
{
    begin_far(1, _i, 2);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, NEAR_VA, TOY_RAM_BASE, 4096, 7);
    toy_map(5, FAR_VA, FRAMES + 0x1000, 4096, 7);
    toy_map(5, 0x10000, TOY_RAM_BASE + 0x1000, 4096, 5);
    switch_to(5);
    toy.next_code = TOY_RAM_BASE + 0x1000;
    toy_emit(toy_store(2, 8, 9, 8)); /* an immediate, or half of one */
    toy_emit(toy_halt());
    ck_assert_uint_eq(run_far(4), 4);
    for (int32_t i = 2; i < 20; i++) {
        cpu->x[8] = FAR_VA; /* the target */
        cpu->x[9] = (uint64_t)i;
        toy_run(0x10000);
        ck_assert_uint_eq(run_far(4), (uint64_t)i * (i & 1 ? 2 : 4));
        cpu->x[8] = NEAR_VA + 0x20; /* what comes back: x1 counts by other steps */
        cpu->x[9] = i & 1 ? (uint64_t)-1 : (uint64_t)-2;
        toy_run(0x10000);
        ck_assert_uint_eq(run_far(4), (uint64_t)i * (i & 1 ? 4 : 2));
    }
    toy_finish();
}
END_TEST

/* An interrupt, or a stop, gets through a loop that goes from page to page. */
START_TEST(far_links_can_be_interrupted)
{
    begin_far(1, _i, 2);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, NEAR_VA, TOY_RAM_BASE, 4096, 5);
    toy_map(5, FAR_VA, FRAMES, 4096, 5);
    switch_to(5);
    cpu->x[1] = UINT64_MAX;
    cpu->cpu.pc = NEAR_VA;
    atomic_store(&cpu->cpu.attention, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, toy_thread, &cpu->cpu);
    while (stats_now().blocks_decoded < 3) {
        usleep(100);
    }
    engine_kick(&cpu->cpu, CPU_ATTENTION_STOP);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(cpu->traps, 0);
    toy_finish();
}
END_TEST

/* CPU 0 maps the far page to frames with growing numbers, flushes everywhere, then publishes the
 * number: nobody may come back from a smaller one after that. */
START_TEST(nobody_follows_a_link_to_a_flushed_page)
{
    const unsigned last = 60;
    const uint64_t published = TOY_RAM_BASE + 0x9000;
    begin_far(3, _i, last + 1);
    toy_map(5, NEAR_VA, TOY_RAM_BASE, 4096, 5);
    toy_map(5, TOY_RAM_BASE, TOY_RAM_BASE, 0x10000, 7);
    toy_map(5, FAR_VA, FRAMES, 4096, 5);
    unsigned mapping = atomic_load(&toy.mapping_count) - 1;
    toy.next_code = TOY_RAM_BASE;
    uint64_t loop = toy_emit(toy_load(SIZE64, 6, 7, 0));
    toy_emit(toy_jump(0x1000 - 16));
    toy_emit(toy_op(IR_setcc, IR_LTU, 5, 2, 6, 0)); /* x2 < x6 */
    toy_emit(toy_op(IR_add, 0, 3, 3, 5, 0));
    toy_emit(toy_branch_imm(IR_NE, 6, (int32_t)last, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    for (unsigned i = 0; i <= last; i++) {
        emit_far(i, 16 - 0x1000); /* behind the jump */
    }
    for (unsigned i = 0; i < 3; i++) {
        struct toy_cpu *cpu = toy_of(toy.cpus[i]);
        cpu->root = 5;
        toy_switch(&cpu->cpu);
        cpu->cpu.pc = i ? NEAR_VA : TOY_RAM_BASE + 0x2000;
        cpu->x[7] = published;
    }
    struct toy_cpu *mover = toy_of(toy.cpus[0]);
    mover->x[2] = mapping;
    mover->x[3] = FRAMES;
    mover->x[4] = 7;
    mover->x[5] = FAR_VA;
    toy.next_code = TOY_RAM_BASE + 0x2000;
    loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_addi(3, 3, 4096));
    toy_emit(toy_call_helper(TOY_REMAP, TOY_NONE, 2, 3, 0));
    toy_emit(toy_call_helper(TOY_REMOTE_FLUSH, TOY_NONE, 4, 5, 0));
    toy_emit(toy_store(SIZE64, 7, 1, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, (int32_t)last, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy_run_all();
    for (unsigned i = 1; i < 3; i++) {
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[3], 0);
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[2], last);
        ck_assert_uint_eq(toy_of(toy.cpus[i])->traps, 0);
    }
    toy_finish();
}
END_TEST

/* --- victims ---------------------------------------------------------------------------------- */

/* Two pages that can never be in the TLB's table together. */
#define ONE_VA UINT64_C(0x10000000)
#define TWO_VA UINT64_C(0x20000000)

/* Reads both pages, x1 and x2, over and over: x3 and x4. Then writes x5 to the first when x6 is
 * not zero. */
static void begin_victims(int tier, unsigned flags)
{
    toy_start(1, tier);
    toy_map(5, CODE_VA, TOY_RAM_BASE, 4096, 5);
    toy_map(5, ONE_VA, TOY_RAM_BASE + 0x11000, 4096, 3 | flags);
    toy_map(5, TWO_VA, TOY_RAM_BASE + 0x12000, 4096, 3 | flags);
    for (unsigned i = 1; i < 8; i++) {
        *frame(i) = i * 10;
    }
    uint64_t loop = toy_emit(toy_load(SIZE64, 3, 1, 0));
    toy_emit(toy_load(SIZE64, 4, 2, 0));
    toy_emit(toy_addi(7, 7, -1));
    toy_emit(toy_branch_imm(IR_NE, 7, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_branch_imm(IR_EQ, 6, 0, 32));
    toy_emit(toy_store(SIZE64, 1, 5, 0));
    toy_emit(toy_halt());
    switch_to(5);
}

static void check_victims(uint64_t one, uint64_t two)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = ONE_VA;
    cpu->x[2] = TWO_VA;
    cpu->x[7] = 10;
    toy_run(CODE_VA);
    ck_assert_uint_eq(cpu->x[3], one);
    ck_assert_uint_eq(cpu->x[4], two);
}

START_TEST(victims_save_walks)
{
    begin_victims(_i, 0);
    check_victims(10, 20);
    struct engine_stats before = stats_now();
    check_victims(10, 20);
    struct engine_stats after = stats_now();
    ck_assert_uint_eq(after.tlb_misses - before.tlb_misses, 20);
    ck_assert_uint_eq(after.tlb_victims - before.tlb_victims, 20);
    toy_finish();
}
END_TEST

START_TEST(victims_are_flushed)
{
    begin_victims(_i, 0);
    check_victims(10, 20);
    for (unsigned i = 3; i < 7; i++) { /* the second page is in the table, the first is a victim */
        toy_map(5, ONE_VA, TOY_RAM_BASE + 0x10000 + i * 0x1000, 4096, 3);
        switch (i) {
        case 3:
            flush_root(5, false, ONE_VA);
            break;
        case 4:
            flush_root(5, true, 0);
            break;
        case 5:
            flush_all_roots(false, ONE_VA);
            break;
        default:
            flush_all_roots(true, 0);
            break;
        }
        check_victims(i * 10, 20);
    }
    /* Both are gone, and none comes back with what was in the table's other entries. */
    toy_map(5, TWO_VA, TOY_RAM_BASE + 0x11000, 4096, 3);
    flush_root(5, false, ONE_VA);
    flush_root(5, false, TWO_VA);
    check_victims(60, 10);
    toy_finish();
}
END_TEST

START_TEST(global_victims_outlast_what_global_entries_do)
{
    begin_victims(_i, GLOBAL);
    check_victims(10, 20);
    struct engine_stats before = stats_now();
    flush_root(5, true, 0);
    check_victims(10, 20);
    struct engine_stats after = stats_now();
    uint64_t walks =
        (after.tlb_misses - before.tlb_misses) - (after.tlb_victims - before.tlb_victims);
    ck_assert_uint_eq(walks, 1); /* the code's page is not global */
    toy_map(5, ONE_VA, TOY_RAM_BASE + 0x13000, 4096, 3 | GLOBAL);
    flush_all_roots(true, 0);
    check_victims(30, 20);
    toy_finish();
}
END_TEST

/* A victim that was writable comes back writable only if nobody watches its page by then. */
START_TEST(victims_do_not_write_to_code_unseen)
{
    begin_victims(_i, 0);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, 0x70000, TOY_RAM_BASE + 0x11000, 4096, 5);
    toy.next_code = TOY_RAM_BASE + 0x11000;
    toy_emit(toy_li(9, 1));
    toy_emit(toy_halt());
    for (uint64_t i = 2; i < 6; i++) {
        struct toy_insn insn = toy_li(9, 0);
        insn.d = (uint8_t)(8 + i); /* in the first eight bytes */
        uint64_t word;
        memcpy(&word, &insn, sizeof(word));
        cpu->x[5] = word;
        cpu->x[6] = 1; /* store: the entry allows writes, and is a victim next time */
        cpu->x[1] = ONE_VA;
        cpu->x[2] = TWO_VA;
        cpu->x[7] = 3;
        toy_run(CODE_VA);
        cpu->x[8 + i] = 99;
        toy_run(0x70000);
        ck_assert_uint_eq(cpu->x[8 + i], 1); /* its immediate: the rest of the instruction */
        cpu->x[6] = 0;
        cpu->x[7] = 3;
        toy_run(CODE_VA);
    }
    toy_finish();
}
END_TEST

/* As nobody_uses_a_flushed_translation, with a page between that takes the entry each time. */
START_TEST(nobody_uses_a_flushed_victim)
{
    const int32_t last = 60;
    const uint64_t published = TOY_RAM_BASE + 0x9000;
    toy_start(3, _i);
    toy_map(5, TOY_RAM_BASE, TOY_RAM_BASE, 0x10000, 7);
    toy_map(5, TWO_VA, TOY_RAM_BASE + 0xa000, 4096, 3);
    toy_map(5, ONE_VA, FRAMES, 4096, 3);
    unsigned mapping = atomic_load(&toy.mapping_count) - 1;
    for (unsigned i = 0; i <= (unsigned)last; i++) {
        *(uint64_t *)toy_ram(FRAMES + i * 0x1000) = i;
    }
    for (unsigned i = 0; i < 3; i++) {
        struct toy_cpu *cpu = toy_of(toy.cpus[i]);
        cpu->root = 5;
        toy_switch(&cpu->cpu);
        cpu->cpu.pc = TOY_RAM_BASE + (i ? 0x1000 : 0);
        cpu->x[7] = published;
        cpu->x[5] = ONE_VA;
        cpu->x[8] = TWO_VA;
    }
    struct toy_cpu *mover = toy_of(toy.cpus[0]);
    mover->x[2] = mapping;
    mover->x[3] = FRAMES;
    mover->x[4] = 7;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_addi(3, 3, 4096));
    toy_emit(toy_call_helper(TOY_REMAP, TOY_NONE, 2, 3, 0));
    toy_emit(toy_call_helper(TOY_REMOTE_FLUSH, TOY_NONE, 4, 5, 0));
    toy_emit(toy_store(SIZE64, 7, 1, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, last, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy.next_code = TOY_RAM_BASE + 0x1000;
    loop = toy_emit(toy_load(SIZE64, 1, 7, 0));
    toy_emit(toy_load(SIZE64, 9, 8, 0));
    toy_emit(toy_load(SIZE64, 2, 5, 0));
    toy_emit(toy_op(IR_setcc, IR_LTU, 3, 2, 1, 0));
    toy_emit(toy_op(IR_add, 0, 6, 6, 3, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, last, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy_run_all();
    for (unsigned i = 1; i < 3; i++) {
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[6], 0);
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[2], last);
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
    toy_add(tests, far_links_follow_the_mapping);
    toy_add(tests, far_links_of_one_block_differ_by_space_and_address);
    toy_add(tests, far_links_end_where_nothing_is_mapped);
    toy_add(tests, far_links_end_when_code_changes);
    toy_add(tests, far_links_can_be_interrupted);
    toy_add(tests, nobody_follows_a_link_to_a_flushed_page);
    toy_add(tests, victims_save_walks);
    toy_add(tests, victims_are_flushed);
    toy_add(tests, global_victims_outlast_what_global_entries_do);
    toy_add(tests, victims_do_not_write_to_code_unseen);
    toy_add(tests, nobody_uses_a_flushed_victim);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
