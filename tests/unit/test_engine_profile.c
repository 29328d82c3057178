/* What the profile makes of running code: which regions it asks for, and when. */
#include "tests/unit/engine_toy.h"
#if defined(__x86_64__)
#include "tests/unit/region_writer.h"
#endif
#include "tests/unit/suite.h"
#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/region.h"
#include <poll.h>

#define SIZE64 3u
#define CODE   TOY_RAM_BASE

static struct region region;
static uint64_t ticket;
static uint32_t heat;
static pthread_t running;

static struct engine_stats statistics(void)
{
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    return stats;
}

static void start_running(uint64_t pc)
{
    atomic_store(&toy.cpus[0]->attention, 0);
    toy.cpus[0]->pc = pc;
    ck_assert_int_eq(pthread_create(&running, NULL, toy_thread, toy.cpus[0]), 0);
}

static void stop_running(void)
{
    engine_kick(toy.cpus[0], CPU_ATTENTION_STOP);
    pthread_join(running, NULL);
}

/* Sample until a region is asked for, or `ticks` have passed. */
static bool next_region(unsigned ticks)
{
    for (unsigned i = 0; i < ticks; i++) {
        engine_profile_tick(toy.engine);
        if (engine_next_region(toy.engine, &region, &ticket, &heat)) {
            return true;
        }
        usleep(300);
    }
    return false;
}

/* Bounds a hang, in minutes: a CPU thread that gets little of a processor is rarely seen at work.
 */
#define LONG_ENOUGH 600000u

/* Likewise, but tick only when enough has run for a sample, however little of the host we get. */
static bool next_region_by_work(unsigned ticks)
{
    for (unsigned i = 0; i < ticks; i++) {
        uint64_t until = statistics().retired + ENGINE_SAMPLE_INSNS;
        while (statistics().retired < until) {
            usleep(100);
        }
        engine_profile_tick(toy.engine);
        if (engine_next_region(toy.engine, &region, &ticket, &heat)) {
            return true;
        }
    }
    return false;
}

static int block_at(uint64_t physical)
{
    for (unsigned i = 0; i < region.block_count; i++) {
        const struct region_block *block = &region.blocks[i];
        /* Untranslated: the head's page is that of the code. */
        uint64_t page = (CODE >> 12) + (uint64_t)(int64_t)region.page_delta[block->page];
        if ((page << 12) + block->start == physical) {
            return (int)i;
        }
    }
    return -1;
}

static bool has_edge(int from, int to)
{
    for (unsigned i = 0; i < region.edge_count; i++) {
        if (region.edges[i].from == from && region.edges[i].to == to) {
            return true;
        }
    }
    return false;
}

/* --- shapes --------------------------------------------------------------------------------- */

/* For ever: call a function in the next page, which comes back; every 8th time another path. */
static uint64_t loop_at, function_at, return_at, rare_at, join_at;

static void emit_calls(void)
{
    toy.next_code = CODE;
    loop_at = toy_emit(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, 32));
    function_at = CODE + 0x1040;
    struct toy_insn call =
        toy_op(IR_call, 0, TOY_NONE, TOY_NONE, TOY_NONE, (int32_t)(function_at - toy.next_code));
    call.imm2 = 16;
    toy_emit(call);
    return_at = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_op(IR_and, 0, 2, 1, TOY_IMM, 7));
    toy_emit(toy_branch_imm(IR_NE, 2, 0, 32));
    rare_at = toy_emit(toy_jump(0x200));
    join_at = toy_emit(toy_jump((int32_t)(loop_at - toy.next_code)));
    toy.next_code = rare_at + 0x200;
    rare_at = toy_emit(toy_addi(4, 4, 1));
    toy_emit(toy_jump((int32_t)(join_at - toy.next_code)));
    toy.next_code = function_at;
    toy_emit(toy_addi(5, 5, 3));
    toy_emit(toy_op(IR_ret, 0, TOY_NONE, 3, TOY_NONE, 0));
}

START_TEST(loop_with_a_call)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_calls();
    start_running(CODE);
    ck_assert(next_region(LONG_ENOUGH));
    stop_running();
    ck_assert_ptr_null(region_check(&region));
    ck_assert_str_eq(region.isa, "toy");
    int head = block_at(loop_at), function = block_at(function_at), back = block_at(return_at);
    int join = block_at(join_at), rare = block_at(rare_at);
    ck_assert_int_eq(head, 0);
    ck_assert_int_gt(function, 0);
    ck_assert_int_gt(back, 0);
    ck_assert_int_gt(join, 0);
    ck_assert_int_gt(rare, 0); /* an eighth is not too rare */
    ck_assert_uint_eq(region.page_count, 2);
    ck_assert_int_eq(region.page_delta[1], 1);
    ck_assert(has_edge(head, function));
    ck_assert(has_edge(function, back));
    ck_assert(has_edge(join, head));
    ck_assert_uint_eq(region.blocks[function].insns, 2);
    ck_assert_mem_eq(region.bytes + region.blocks[function].bytes, toy_ram(function_at), 32);
    ck_assert_uint_ge(heat, 1);
    toy_finish();
}
END_TEST

/* Two loops, one in the other: the inner one is the entry, the outer one is in the region too. */
START_TEST(nested_loops)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    uint64_t outer = toy_emit(toy_li(1, 5));
    toy_emit(toy_jump(16));
    uint64_t inner = toy_emit(toy_addi(5, 5, 3));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(inner - toy.next_code)));
    uint64_t end = toy_emit(toy_addi(6, 6, 1));
    toy_emit(toy_jump((int32_t)(outer - toy.next_code)));
    start_running(CODE);
    ck_assert(next_region(LONG_ENOUGH));
    stop_running();
    ck_assert_int_eq(block_at(inner), 0);
    ck_assert_int_gt(block_at(outer), 0);
    ck_assert_int_gt(block_at(end), 0);
    ck_assert(has_edge(0, 0));
    toy_finish();
}
END_TEST

/* Blocks that only an exception or a change of mode leads to are not behind an edge. */
START_TEST(exits_do_not_lead_on)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_call_helper(TOY_BARRIER, TOY_NONE, TOY_NONE, TOY_NONE, 0)); /* and exit */
    uint64_t behind = toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_jump((int32_t)(loop - toy.next_code)));
    start_running(CODE);
    if (next_region(2000)) {
        ck_assert(block_at(loop) < 0 || !has_edge(block_at(loop), block_at(behind)));
    }
    stop_running();
    toy_finish();
}
END_TEST

/* A path that is run again and again between two exits, as an interrupt's is: its blocks become hot
 * together, and get one region from its beginning, not one each. */
#define PATH_BLOCKS 8u

START_TEST(a_path_has_one_region)
{
    uint64_t path[PATH_BLOCKS];
    bool asked = false;
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    uint64_t outer = toy_emit(toy_li(1, 40));
    toy_emit(toy_jump(16));
    uint64_t inner = toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(inner - toy.next_code)));
    toy_emit(toy_call_helper(TOY_BARRIER, TOY_NONE, TOY_NONE, TOY_NONE, 0)); /* and exit */
    for (unsigned i = 0; i < PATH_BLOCKS; i++) {
        path[i] = toy_emit(toy_addi(2, 2, 1));
        toy_emit(i + 1 < PATH_BLOCKS
                     ? toy_jump(16)
                     : toy_call_helper(TOY_BARRIER, TOY_NONE, TOY_NONE, TOY_NONE, 0));
    }
    toy_emit(toy_jump((int32_t)(outer - toy.next_code)));
    start_running(CODE);
    while (!asked) {
        ck_assert(next_region_by_work(2000));
        asked = block_at(path[PATH_BLOCKS - 1]) >= 0;
    }
    for (unsigned i = 0; i < PATH_BLOCKS; i++) {
        ck_assert_int_eq(block_at(path[i]), (int)i);
    }
    while (next_region_by_work(200)) {
        ck_assert_int_lt(block_at(path[PATH_BLOCKS - 1]), 0);
    }
    stop_running();
    toy_finish();
}
END_TEST

/* --- tickets -------------------------------------------------------------------------------- */

START_TEST(a_head_is_asked_for_once)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_calls();
    start_running(CODE);
    ck_assert(next_region(LONG_ENOUGH));
    uint64_t first = ticket;
    ck_assert(engine_region_wanted(toy.engine, first));
    ck_assert(!engine_region_wanted(toy.engine, first + 1));
    ck_assert(!next_region(300));
    /* The compiler dies: the same once more, with another name. */
    engine_regions_forget(toy.engine);
    ck_assert(!engine_region_wanted(toy.engine, first));
    ck_assert(next_region(LONG_ENOUGH));
    ck_assert_uint_ne(ticket, first);
    ck_assert_int_eq(block_at(loop_at), 0);
    stop_running();
    toy_finish();
}
END_TEST

START_TEST(refused_ones_are_left_alone)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_calls();
    start_running(CODE);
    ck_assert(next_region(LONG_ENOUGH));
    engine_region_refused(toy.engine, ticket);
    ck_assert(!engine_region_wanted(toy.engine, ticket));
    for (unsigned i = 0; i < 5 && next_region(100); i++) {
        ck_assert_int_ne(block_at(loop_at), 0); /* another entry, perhaps */
        engine_region_refused(toy.engine, ticket);
    }
    ck_assert_uint_ge(statistics().regions_refused, 1);
    stop_running();
    toy_finish();
}
END_TEST

START_TEST(dropped_code_is_not_wanted)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_calls();
    start_running(CODE);
    ck_assert(next_region(LONG_ENOUGH));
    stop_running();
    engine_drop_code(toy.engine);
    ck_assert(!engine_region_wanted(toy.engine, ticket));
    toy_finish();
}
END_TEST

/* --- when nothing runs ---------------------------------------------------------------------- */

static bool readable(void)
{
    struct pollfd fd = {.fd = engine_profile_event(toy.engine), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void tick_until_idle(void)
{
    unsigned ticks = 0;
    while (engine_profile_tick(toy.engine)) {
        ck_assert_uint_lt(++ticks, 100);
    }
}

START_TEST(nobody_ticks_while_nothing_runs)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_calls();
    tick_until_idle();
    ck_assert(!readable());
    start_running(CODE);
    struct pollfd fd = {.fd = engine_profile_event(toy.engine), .events = POLLIN};
    ck_assert_int_eq(poll(&fd, 1, -1), 1);
    engine_profile_seen(toy.engine);
    ck_assert(!readable());
    while (statistics().samples == 0) {
        ck_assert(engine_profile_tick(toy.engine));
    }
    stop_running();
    tick_until_idle();
    toy_finish();
}
END_TEST

/* A CPU that waits for an interrupt sleeps, also in the middle of a trace. */
START_TEST(waiting_ends_a_trace)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_call_helper(TOY_WAIT, TOY_NONE, TOY_NONE, TOY_NONE, 0));
    toy_emit(toy_jump((int32_t)(loop - toy.next_code)));
    start_running(CODE);
    struct engine_cpu *cpu = engine_cpu_of(toy.cpus[0]);
    for (unsigned i = 0; i < 20; i++) {
        while (atomic_load(&cpu->state) != CPU_STATE_IDLE) {
            engine_profile_tick(toy.engine);
            usleep(100);
        }
        atomic_store(&toy_of(toy.cpus[0])->line, 1);
        engine_kick(toy.cpus[0], CPU_ATTENTION_INTERRUPT | CPU_ATTENTION_PROFILE);
        usleep(100);
    }
    tick_until_idle();
    stop_running();
    toy_finish();
}
END_TEST

/* A CPU that wakes for a few instructions is none that runs; one that goes on is. */
START_TEST(little_work_wakes_nobody)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_call_helper(TOY_WAIT, TOY_NONE, TOY_NONE, TOY_NONE, 0));
    uint64_t busy = toy_emit(toy_addi(3, 3, 1));
    toy_emit(toy_branch(IR_LT, 3, 2, (int32_t)(busy - toy.next_code)));
    toy_emit(toy_jump((int32_t)(loop - toy.next_code)));
    start_running(CODE);
    struct engine_cpu *cpu = engine_cpu_of(toy.cpus[0]);
    while (statistics().waits == 0 || atomic_load(&cpu->state) != CPU_STATE_IDLE) {
        usleep(100);
    }
    tick_until_idle();
    engine_profile_seen(toy.engine);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t irqs = toy_of(toy.cpus[0])->irqs;
        atomic_store(&toy_of(toy.cpus[0])->line, 1);
        engine_kick(toy.cpus[0], CPU_ATTENTION_INTERRUPT);
        while (__atomic_load_n(&toy_of(toy.cpus[0])->irqs, __ATOMIC_RELAXED) == irqs ||
               atomic_load(&cpu->state) != CPU_STATE_IDLE) {
            usleep(100);
        }
    }
    ck_assert(!readable());
    __atomic_store_n(&toy_of(toy.cpus[0])->x[2], UINT64_C(9000000), __ATOMIC_RELAXED);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t irqs = toy_of(toy.cpus[0])->irqs;
        atomic_store(&toy_of(toy.cpus[0])->line, 1);
        engine_kick(toy.cpus[0], CPU_ATTENTION_INTERRUPT);
        while (__atomic_load_n(&toy_of(toy.cpus[0])->irqs, __ATOMIC_RELAXED) == irqs ||
               atomic_load(&cpu->state) != CPU_STATE_IDLE) {
            usleep(100);
        }
    }
    ck_assert(readable());
    stop_running();
    toy_finish();
}
END_TEST

START_TEST(lower_tiers_have_no_profile)
{
    toy_start(1, ENGINE_BASELINE);
    emit_calls();
    ck_assert(!engine_profile_tick(toy.engine));
    ck_assert(!engine_next_region(toy.engine, &region, &ticket, &heat));
    ck_assert_int_lt(engine_profile_event(toy.engine), 0);
    uint64_t fingerprint;
    engine_set_known(toy.engine, &(uint64_t){1}, 1);
    ck_assert(!engine_next_fetch(toy.engine, &fingerprint));
    engine_regions_forget(toy.engine);
    engine_region_refused(toy.engine, 1);
    struct error err;
    ck_assert_int_eq(engine_install_region(toy.engine, 0, 0, &region, (const uint8_t *)"", 0, &err),
                     REGION_REFUSED);
    ck_assert_uint_eq(statistics().samples, 0);
    toy_finish();
}
END_TEST

/* --- the whole circle ----------------------------------------------------------------------- */

#if defined(__x86_64__)

static _Atomic bool end;

/* What vcpud's thread and the compiler's process are to the engine. */
static void *compile_all(void *argument)
{
    (void)argument;
    while (!atomic_load(&end)) {
        engine_profile_tick(toy.engine);
        while (engine_next_region(toy.engine, &region, &ticket, &heat)) {
            struct error err;
            size_t size;
            uint8_t *blob = region_write(&region, &size);
            if (blob) {
                engine_install_region(toy.engine, ticket, 0, &region, blob, size, &err);
            } else {
                engine_region_refused(toy.engine, ticket);
            }
            free(blob);
        }
        usleep(300);
    }
    return NULL;
}

/* Somebody has a smaller region with the same head. */
START_TEST(another_region_than_asked_for)
{
    struct error err;
    size_t size;
    toy_start(1, ENGINE_OPTIMISED);
    emit_calls();
    start_running(CODE);
    ck_assert(next_region(LONG_ENOUGH));
    ck_assert(!engine_region_replaces(toy.engine, ticket));
    struct region other = region;
    other.block_count = other.page_count = 1;
    other.edge_count = 0;
    other.byte_count = other.blocks[0].length;
    uint8_t *blob = region_write(&other, &size);
    ck_assert_ptr_nonnull(blob);
    other.bytes[0] ^= 1;
    ck_assert_int_eq(engine_install_other_region(toy.engine, ticket, &other, blob, size, &err),
                     REGION_STALE);
    ck_assert(engine_region_wanted(toy.engine, ticket)); /* there may be yet another one */
    other.bytes[0] ^= 1;
    ck_assert_int_eq(engine_install_other_region(toy.engine, ticket, &other, blob, size, &err),
                     REGION_INSTALLED);
    ck_assert(!engine_region_wanted(toy.engine, ticket));
    ck_assert_int_eq(engine_install_other_region(toy.engine, ticket, &other, blob, size, &err),
                     REGION_STALE);
    free(blob);
    stop_running();
    ck_assert_uint_eq(statistics().regions, 1);
    toy_finish();
}
END_TEST

static pthread_t compiler;

static void start_compiling(void)
{
    atomic_store(&end, false);
    ck_assert_int_eq(pthread_create(&compiler, NULL, compile_all, NULL), 0);
}

static void stop_compiling(void)
{
    atomic_store(&end, true);
    pthread_join(compiler, NULL);
}

/* x7 times the loops of nested_loops, then the end. */
static uint64_t emit_nest(int32_t inner_turns, int32_t outer_turns)
{
    toy.next_code = CODE;
    toy_emit(toy_li(7, outer_turns));
    uint64_t outer = toy_emit(toy_li(1, inner_turns));
    toy_emit(toy_jump(16));
    uint64_t inner = toy_emit(toy_addi(5, 5, 3));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(inner - toy.next_code)));
    toy_emit(toy_addi(7, 7, -1));
    toy_emit(toy_branch_imm(IR_NE, 7, 0, (int32_t)(outer - toy.next_code)));
    toy_emit(toy_halt());
    return CODE;
}

START_TEST(hot_code_moves_up)
{
    toy_start(1, ENGINE_OPTIMISED);
    uint64_t start = emit_nest(7, 10000000);
    start_compiling();
    struct toy_cpu *cpu = toy_run(start);
    stop_compiling();
    ck_assert_uint_eq(cpu->x[5], UINT64_C(3) * 7 * 10000000);
    ck_assert_uint_eq(cpu->cpu.retired, 1 + UINT64_C(10000000) * (2 + 7 * 3 + 2) + 1);
    struct engine_stats stats = statistics();
    ck_assert_uint_ge(stats.regions_installed, 1);
    ck_assert_uint_le(stats.regions_installed, 8);
    ck_assert_uint_gt(stats.retired_optimised, stats.retired / 2);
    ck_assert_uint_gt(stats.samples_optimised, 0);
    ck_assert_uint_gt(stats.region_median_ns, 0);
    toy_finish();
}
END_TEST

/* One loop that is entered once and stays: it changes over in the middle. */
START_TEST(one_long_loop_moves_up)
{
    toy_start(1, ENGINE_OPTIMISED);
    uint64_t start = emit_nest(200000000, 1);
    start_compiling();
    struct toy_cpu *cpu = toy_run(start);
    stop_compiling();
    ck_assert_uint_eq(cpu->x[5], UINT64_C(600000000));
    ck_assert_uint_gt(statistics().retired_optimised, statistics().retired / 2);
    toy_finish();
}
END_TEST

/* The loop first takes one path, and gets its region; then another, which becomes hot and belongs
 * into it. */
START_TEST(hot_exits_are_taken_in)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_load(SIZE64, 2, 8, 0));
    toy_emit(toy_branch_imm(IR_NE, 2, 0, 0x200));
    uint64_t left = toy_emit(toy_addi(3, 3, 1));
    toy_emit(toy_jump((int32_t)(loop - toy.next_code)));
    toy.next_code = left - 16 + 0x200;
    toy_emit(toy_addi(4, 4, 1));
    toy_emit(toy_jump((int32_t)(loop - toy.next_code)));
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[8] = CODE + 0x3000;
    start_running(CODE);
    start_compiling();
    while (statistics().retired_optimised < 100000) {
        usleep(100);
    }
    uint64_t *path = toy_ram(CODE + 0x3000);
    __atomic_store_n(path, 1, __ATOMIC_RELAXED);
    while (statistics().regions_installed < 2) {
        usleep(100);
    }
    uint64_t before = statistics().retired_optimised;
    while (statistics().retired_optimised < before + 100000) {
        usleep(100);
    }
    stop_running();
    stop_compiling();
    /* Anywhere in the loop. */
    ck_assert_uint_le(cpu->x[1] - (cpu->x[3] + cpu->x[4]), 1);
    ck_assert_uint_gt(cpu->x[4], 0);
    toy_finish();
}
END_TEST

#define PATCHES 300

/* CPU 0 patches a function again and again while two others run it in regions. */
START_TEST(regions_of_code_that_others_patch)
{
    toy_start(3, ENGINE_OPTIMISED);
    engine_profile_eager(toy.engine);
    uint64_t function = CODE + 0x5000, published = CODE + 0x8000;
    toy.next_code = function;
    toy_emit(toy_li(4, 0));
    toy_emit(toy_jump_register(3));
    for (unsigned i = 0; i < 3; i++) {
        struct toy_cpu *cpu = toy_of(toy.cpus[i]);
        toy.next_code = CODE + 0x1000 * (i + 1);
        cpu->cpu.pc = toy.next_code;
        cpu->x[6] = function;
        cpu->x[7] = published;
        cpu->x[8] = 6;
        cpu->x[9] = 0;
        if (i == 0) {
            uint64_t loop = toy_emit(toy_addi(1, 1, 1));
            toy_emit(toy_store(2, 6, 1, (int)offsetof(struct toy_insn, imm)));
            toy_emit(toy_call_helper(TOY_REMOTE_BARRIER, TOY_NONE, 8, TOY_NONE, 0));
            toy_emit(toy_store(SIZE64, 7, 1, 0));
            toy_emit(toy_li(2, 200000)); /* meanwhile the others get hot */
            uint64_t rest = toy_emit(toy_addi(2, 2, -1));
            toy_emit(toy_branch_imm(IR_NE, 2, 0, (int32_t)(rest - toy.next_code)));
            toy_emit(toy_branch_imm(IR_NE, 1, PATCHES, (int32_t)(loop - toy.next_code)));
        } else {
            uint64_t loop = toy_emit(toy_load(SIZE64, 1, 7, 0));
            toy_emit(
                toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, (int32_t)(toy.next_code + 32) & 0xfff));
            toy_emit(toy_jump((int32_t)(function - toy.next_code)));
            toy_emit(toy_branch(IR_GEU, 4, 1, 32));
            toy_emit(toy_addi(9, 9, 1)); /* older than what was published */
            toy_emit(toy_branch_imm(IR_NE, 1, PATCHES, (int32_t)(loop - toy.next_code)));
        }
        toy_emit(toy_halt());
    }
    start_compiling();
    toy_run_all();
    stop_compiling();
    for (unsigned i = 1; i < 3; i++) {
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[9], 0);
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[4], PATCHES);
    }
    ck_assert_uint_ge(statistics().regions_installed, 1);
    toy_finish();
}
END_TEST

#endif

static Suite *suite(void)
{
    Suite *all = suite_create("engine: profile");
    TCase *tests = tcase_create("profile");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, loop_with_a_call);
    tcase_add_test(tests, nested_loops);
    tcase_add_test(tests, exits_do_not_lead_on);
    tcase_add_test(tests, a_path_has_one_region);
    tcase_add_test(tests, a_head_is_asked_for_once);
    tcase_add_test(tests, refused_ones_are_left_alone);
    tcase_add_test(tests, dropped_code_is_not_wanted);
    tcase_add_test(tests, nobody_ticks_while_nothing_runs);
    tcase_add_test(tests, waiting_ends_a_trace);
    tcase_add_test(tests, little_work_wakes_nobody);
    tcase_add_test(tests, lower_tiers_have_no_profile);
#if defined(__x86_64__)
    tcase_add_test(tests, another_region_than_asked_for);
    tcase_add_test(tests, hot_code_moves_up);
    tcase_add_test(tests, one_long_loop_moves_up);
    tcase_add_test(tests, hot_exits_are_taken_in);
    tcase_add_test(tests, regions_of_code_that_others_patch);
#endif
    suite_add_tcase(all, tests);
    return all;
}

int main(void)
{
    return engine_tier_available(ENGINE_OPTIMISED) ? suite_run(suite()) : 0;
}
