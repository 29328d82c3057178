/* Regions in place: installed, run, linked, refused, and dropped with the code they were made of.
 */
#if defined(__x86_64__)

#include "tests/unit/region_writer.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/engine/baseline/perf_map.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/inspect.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include <sys/mman.h>

#define SIZE64     3u
#define SIZE32     2u
#define IMM_OFFSET ((int)offsetof(struct toy_insn, imm))
#define CODE       TOY_RAM_BASE

/* --- making regions ------------------------------------------------------------------------- */

static struct region region;

/* A region whose entry is at `head`; all its blocks are added by add_block. */
static void begin_region(void)
{
    memset(&region, 0, sizeof(region));
    strcpy(region.isa, "toy");
    region.page_count = 1;
}

/* The block at `physical` that is seen at `va`, up to its end. */
static void add_block(uint64_t head_va, uint64_t va, uint64_t physical)
{
    int32_t delta = (int32_t)((int64_t)(va >> 12) - (int64_t)(head_va >> 12));
    unsigned page = 0;
    while (page < region.page_count && region.page_delta[page] != delta) {
        page++;
    }
    if (page == region.page_count) {
        region.page_delta[region.page_count++] = delta;
    }
    struct region_block *block = &region.blocks[region.block_count++];
    *block = (struct region_block){.page = (uint8_t)page,
                                   .start = (uint16_t)(physical & 4095),
                                   .bytes = region.byte_count,
                                   .heat = 1};
    const struct toy_insn *insn;
    do {
        insn = toy_ram(physical + block->length);
        memcpy(region.bytes + region.byte_count, insn, sizeof(*insn));
        region.byte_count = (uint16_t)(region.byte_count + sizeof(*insn));
        block->length = (uint16_t)(block->length + sizeof(*insn));
        block->insns++;
    } while (!toy_ends_block(insn));
}

static void add_edge(unsigned from, unsigned to)
{
    region.edges[region.edge_count++] =
        (struct region_edge){.from = (uint16_t)from, .to = (uint16_t)to, .heat = 1};
}

static uint64_t fingerprint(void)
{
    return region_fingerprint(region.isa, region.mode, region.blocks[0].start, region.bytes,
                              region.blocks[0].length);
}

/* Let the engine ask for the region when it decodes its entry. */
static void make_known(void)
{
    uint64_t known = fingerprint();
    engine_set_known(toy.engine, &known, 1);
}

static enum region_install install(void)
{
    struct error err;
    uint64_t asked;
    size_t size;
    uint8_t *blob = region_write(&region, &size);
    ck_assert_ptr_nonnull(blob);
    engine_next_fetch(toy.engine, &asked);
    enum region_install result =
        engine_install_region(toy.engine, 0, fingerprint(), &region, blob, size, &err);
    free(blob);
    return result;
}

static struct engine_stats statistics(void)
{
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    return stats;
}

static struct installed_region *only_region(void)
{
    struct engine *engine = engine_cpu_of(toy.cpus[0])->engine;
    ck_assert_ptr_nonnull(engine->regions);
    ck_assert_ptr_null(engine->regions->next);
    return engine->regions;
}

/* --- a loop --------------------------------------------------------------------------------- */

static uint64_t loop_at, after_at;

/* x5 += 3 until x1 is 0; x6 counts how often it was entered. */
static void emit_loop(void)
{
    toy.next_code = CODE;
    toy_emit(toy_addi(6, 6, 1));
    toy_emit(toy_jump(16));
    loop_at = toy_emit(toy_addi(5, 5, 3));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop_at - toy.next_code)));
    after_at = toy_emit(toy_addi(7, 7, 1));
    toy_emit(toy_halt());
}

static void loop_region(void)
{
    begin_region();
    add_block(loop_at, loop_at, loop_at);
    add_edge(0, 0);
    make_known();
}

static struct toy_cpu *run_loop(int64_t count)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = (uint64_t)count;
    cpu->x[5] = 0;
    return toy_run(CODE);
}

static void start_loop(void)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_loop();
    loop_region();
    run_loop(2);
}

START_TEST(region_runs)
{
    start_loop();
    uint64_t once = toy.cpus[0]->retired;
    ck_assert_uint_eq(once, 2 + 2 * 3 + 2);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    ck_assert_uint_eq(run_loop(1000)->x[5], 3000);
    ck_assert_uint_eq(toy.cpus[0]->retired - once, 2 + 1000 * 3 + 2);
    ck_assert_uint_ge(statistics().retired_optimised, 3 * 999);
    ck_assert_uint_eq(statistics().regions, 1);
    ck_assert_uint_eq(statistics().regions_installed, 1);
    ck_assert_uint_gt(statistics().region_bytes, 0);
    /* Compilers align constants, and blocks are packed more densely than that. */
    ck_assert_uint_eq((uintptr_t)only_region()->span.execute % BLOB_AT, 0);
    toy_finish();
}
END_TEST

START_TEST(exits_are_linked)
{
    start_loop();
    ck_assert_int_eq(install(), REGION_INSTALLED);
    struct installed_region *installed = only_region();
    ck_assert_uint_eq(installed->exit_count, 2);
    ck_assert_ptr_null(installed->exits[1].to);
    run_loop(10);
    ck_assert_ptr_nonnull(installed->exits[1].to);
    ck_assert_uint_eq(installed->exits[1].to->physical, after_at);
    ck_assert_ptr_null(installed->exits[0].to);
    /* Now the way through the region needs the outer loop no more. */
    uint64_t lookups = statistics().lookups;
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_uint_eq(run_loop(10)->x[5], 30);
    }
    ck_assert_uint_eq(statistics().lookups, lookups);
    toy_finish();
}
END_TEST

START_TEST(dropped_targets_are_not_jumped_to)
{
    start_loop();
    ck_assert_int_eq(install(), REGION_INSTALLED);
    run_loop(10);
    struct toy_cpu *cpu = run_loop(10);
    struct installed_region *installed = only_region();
    ck_assert_ptr_nonnull(installed->exits[1].to);
    uint64_t before = cpu->x[7];
    struct toy_insn *insn = toy_ram(after_at);
    insn->imm = 100;
    memory_device_wrote(&toy.memory, CODE, 4096); /* all of the page: the region as well */
    engine_device_wrote(toy.engine);
    ck_assert_uint_eq(statistics().regions, 0);
    ck_assert_ptr_null(installed->exits[1].to);
    ck_assert_uint_eq(run_loop(10)->x[7], before + 100);
    toy_finish();
}
END_TEST

/* Only the block behind the loop is overwritten, in another granule: the region stays. */
START_TEST(region_outlives_its_exits_target)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_loop();
    /* The loop leaves to a block 256 bytes on. */
    struct toy_insn *jump = toy_ram(after_at);
    *jump = toy_jump(256);
    toy.next_code = after_at + 256;
    uint64_t far = toy_emit(toy_addi(7, 7, 1));
    toy_emit(toy_halt());
    begin_region();
    add_block(loop_at, loop_at, loop_at);
    add_block(loop_at, after_at, after_at);
    make_known();
    run_loop(2);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    run_loop(3);
    run_loop(3);
    struct installed_region *installed = only_region();
    ck_assert_ptr_nonnull(installed->exits[1].to);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    uint64_t patcher = CODE + 0x2000;
    toy.next_code = patcher;
    cpu->x[8] = far;
    cpu->x[9] = 50;
    toy_emit(toy_store(SIZE32, 8, 9, IMM_OFFSET));
    toy_emit(toy_halt());
    toy_run(patcher);
    ck_assert_ptr_null(installed->exits[1].to);
    uint64_t before = cpu->x[7];
    ck_assert_uint_eq(run_loop(3)->x[7], before + 50);
    ck_assert_uint_eq(statistics().regions, 1);
    ck_assert_ptr_nonnull(installed->exits[1].to); /* linked to the new block */
    toy_finish();
}
END_TEST

/* --- changing code -------------------------------------------------------------------------- */

START_TEST(own_store_drops_region)
{
    start_loop();
    ck_assert_int_eq(install(), REGION_INSTALLED);
    run_loop(10);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    uint64_t patcher = CODE + 0x2000;
    toy.next_code = patcher;
    cpu->x[8] = loop_at;
    cpu->x[9] = 7;
    toy_emit(toy_store(SIZE32, 8, 9, IMM_OFFSET));
    toy_emit(toy_halt());
    toy_run(patcher);
    ck_assert_uint_eq(statistics().regions, 0);
    ck_assert_uint_eq(statistics().regions_dropped, 1);
    ck_assert_uint_eq(statistics().region_bytes, 0);
    ck_assert_uint_eq(run_loop(10)->x[5], 70);
    toy_finish();
}
END_TEST

/* A store in the region, into the region: seen at the next turn of the loop at the latest, because
 * it is left for attention. */
START_TEST(region_that_overwrites_itself)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy.next_code = CODE;
    loop_at = toy_emit(toy_addi(5, 5, 3));
    toy_emit(toy_store(SIZE32, 8, 9, IMM_OFFSET)); /* into the first */
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop_at - toy.next_code)));
    toy_emit(toy_halt());
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[8] = CODE + 0x3000;
    cpu->x[9] = 100;
    begin_region();
    add_block(loop_at, loop_at, loop_at);
    add_edge(0, 0);
    make_known();
    run_loop(2);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    cpu->x[8] = loop_at;
    ck_assert_uint_eq(run_loop(3)->x[5], 3 + 100 + 100);
    ck_assert_uint_eq(statistics().regions, 0);
    toy_finish();
}
END_TEST

START_TEST(data_beside_region_drops_nothing)
{
    start_loop();
    ck_assert_int_eq(install(), REGION_INSTALLED);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    uint64_t writer = CODE + 0x2000;
    toy.next_code = writer;
    cpu->x[8] = CODE + 0x800;
    toy_emit(toy_store(SIZE32, 8, 9, 0));
    toy_emit(toy_halt());
    toy_run(writer);
    ck_assert_uint_eq(statistics().regions, 1);
    toy_finish();
}
END_TEST

START_TEST(came_too_late)
{
    start_loop();
    struct toy_insn *insn = toy_ram(loop_at + 16);
    insn->imm = -2; /* nobody is told */
    ck_assert_int_eq(install(), REGION_STALE);
    ck_assert_uint_eq(statistics().regions_stale, 1);
    ck_assert_uint_eq(statistics().regions, 0);
    insn->imm = -1;
    ck_assert_int_eq(install(), REGION_INSTALLED); /* another one may fit */
    ck_assert_int_eq(install(), REGION_ABSENT);    /* then nothing is asked for any more */
    toy_finish();
}
END_TEST

/* The engine is told of the cache when the code is there already. */
START_TEST(known_after_decoding)
{
    toy_start(1, ENGINE_OPTIMISED);
    emit_loop();
    run_loop(2);
    loop_region();
    uint64_t asked;
    ck_assert(engine_next_fetch(toy.engine, &asked));
    ck_assert_uint_eq(asked, fingerprint());
    ck_assert(!engine_next_fetch(toy.engine, &asked));
    ck_assert_int_eq(install(), REGION_INSTALLED);
    ck_assert_uint_eq(run_loop(10)->x[5], 30);
    ck_assert_uint_gt(statistics().retired_optimised, 0);
    make_known(); /* nothing to ask for any more */
    ck_assert(!engine_next_fetch(toy.engine, &asked));
    toy_finish();
}
END_TEST

/* --- two pages ------------------------------------------------------------------------------ */

#define ROOT  5
#define VA    UINT64_C(0x40000000)
#define FIRST (CODE + 0x4000)
#define OTHER (CODE + 0x9000)
#define NEW   (CODE + 0xc000)

/* A loop in one page that calls a function in another, 3 pages on in virtual addresses. */
static void start_two_pages(void)
{
    toy_start(1, ENGINE_OPTIMISED);
    toy_map(ROOT, VA, FIRST, 4096, 7);
    toy_map(ROOT, VA + 0x3000, OTHER, 4096, 7);
    toy_map(ROOT, VA + 0x10000, CODE, 0x10000, 7);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->root = ROOT;
    toy_switch(&cpu->cpu);
    toy.next_code = FIRST;
    toy_emit(toy_addi(6, 6, 1));
    toy_emit(toy_jump(16));
    loop_at = toy_emit(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, 64));
    toy_emit(toy_jump((int32_t)(0x3000 + 0x10 - (int32_t)(toy.next_code - FIRST))));
    toy_emit(toy_addi(1, 1, -1)); /* at 64 */
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop_at - toy.next_code)));
    toy_emit(toy_halt());
    const uint64_t pages[] = {OTHER, NEW};
    for (unsigned i = 0; i < 2; i++) {
        toy.next_code = pages[i] + 0x10;
        toy_emit(toy_addi(5, 5, i == 0 ? 3 : 11));
        toy_emit(toy_jump_register(3));
    }
    begin_region();
    uint64_t head = VA + (loop_at - FIRST);
    add_block(head, head, loop_at);
    add_block(head, VA + 0x3010, OTHER + 0x10);
    add_block(head, VA + 64, FIRST + 64);
    add_edge(0, 1);
    add_edge(1, 2);
    add_edge(2, 0);
    make_known();
}

static struct toy_cpu *run_two_pages(int64_t count)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = (uint64_t)count;
    cpu->x[5] = 0;
    return toy_run(VA);
}

START_TEST(two_pages)
{
    start_two_pages();
    run_two_pages(2);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    ck_assert_uint_eq(run_two_pages(1000)->x[5], 3000);
    ck_assert_uint_ge(statistics().retired_optimised, 999 * 6);
    toy_finish();
}
END_TEST

/* The other page is mapped elsewhere: the guard sees it, and the lower tier runs the new code. */
START_TEST(page_guard_fails)
{
    start_two_pages();
    run_two_pages(2);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    ck_assert_uint_eq(run_two_pages(10)->x[5], 30);
    uint64_t before = statistics().retired_optimised;
    atomic_store(&toy.mappings[1].pa, NEW);
    toy.cpus[0]->host->tlb_flush(toy.cpus[0], true, 0, 0, true, 0);
    ck_assert_uint_eq(run_two_pages(10)->x[5], 110);
    ck_assert_uint_eq(statistics().retired_optimised, before);
    ck_assert_uint_eq(statistics().regions, 1);
    atomic_store(&toy.mappings[1].pa, OTHER);
    toy.cpus[0]->host->tlb_flush(toy.cpus[0], true, 0, 0, true, 0);
    ck_assert_uint_eq(run_two_pages(10)->x[5], 30);
    ck_assert_uint_gt(statistics().retired_optimised, before);
    toy_finish();
}
END_TEST

START_TEST(store_to_its_other_page)
{
    start_two_pages();
    run_two_pages(2);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    ck_assert_uint_eq(run_two_pages(10)->x[5], 30);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    cpu->x[8] = VA + 0x10000 + (OTHER - CODE) + 0x10;
    cpu->x[9] = 5;
    toy_emit(toy_store(SIZE32, 8, 9, IMM_OFFSET));
    toy_emit(toy_halt());
    toy_run(VA + 0x10000);
    ck_assert_uint_eq(statistics().regions, 0);
    ck_assert_uint_eq(run_two_pages(10)->x[5], 50);
    toy_finish();
}
END_TEST

/* Its block there was dropped and nothing else is on that page: the region keeps the watch. */
START_TEST(pages_stay_watched)
{
    start_two_pages();
    run_two_pages(2);
    struct engine *engine = engine_cpu_of(toy.cpus[0])->engine;
    ck_assert_int_eq(install(), REGION_INSTALLED);
    uint64_t index = (OTHER - TOY_RAM_BASE) >> 12;
    block_cache_drop(engine, engine->code_pages[index]->blocks);
    block_cache_refresh(engine, engine->code_pages[index]);
    ck_assert_ptr_nonnull(engine->code_pages[index]);
    ck_assert(atomic_load(&engine->watch[index]) & WATCH_CODE);
    struct toy_insn *insn = toy_ram(OTHER + 0x10);
    insn->imm = 4;
    memory_device_wrote(&toy.memory, OTHER + 0x10, 16);
    engine_device_wrote(toy.engine);
    ck_assert_uint_eq(statistics().regions, 0);
    ck_assert_ptr_null(engine->code_pages[index]);
    ck_assert_uint_eq(run_two_pages(10)->x[5], 40);
    toy_finish();
}
END_TEST

/* --- attention, eviction -------------------------------------------------------------------- */

static void *stopper(void *argument)
{
    struct cpu *cpu = argument;
    while (statistics().retired_optimised == 0) {
        usleep(100);
        engine_kick(cpu, CPU_ATTENTION_INTERRUPT); /* so that the region's count is stored */
    }
    engine_kick(cpu, CPU_ATTENTION_STOP);
    return NULL;
}

START_TEST(attention_ends_a_loop)
{
    start_loop();
    ck_assert_int_eq(install(), REGION_INSTALLED);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, stopper, toy.cpus[0]), 0);
    struct toy_cpu *cpu = run_loop(INT64_MAX);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(cpu->x[5] / 3, (uint64_t)INT64_MAX - cpu->x[1]);
    toy_finish();
}
END_TEST

START_TEST(eviction_drops_regions)
{
    start_loop();
    struct engine *engine = engine_cpu_of(toy.cpus[0])->engine;
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(install(), REGION_INSTALLED);
        ck_assert_uint_eq(run_loop(10)->x[5], 30);
        engine_drop_code(toy.engine);
        ck_assert_uint_eq(statistics().regions, 0);
        ck_assert_uint_eq(engine->live_code_bytes, 0);
        ck_assert_uint_eq(statistics().block_bytes, 0);
        ck_assert_uint_eq(run_loop(2)->x[5], 6); /* decoded anew: asked for again */
    }
    ck_assert_uint_eq(statistics().regions_installed, 100);
    ck_assert_uint_lt(statistics().code_bytes, 100 * 1024); /* dropped ones were given back */
    toy_finish();
}
END_TEST

/* An entry that cannot get on in the region, for its first instruction is left to the lower tier,
 * must not go round in circles. */
START_TEST(region_that_does_nothing)
{
    start_loop();
    struct error err;
    uint64_t asked;
    size_t size;
    uint8_t *blob = region_write(&region, &size);
    struct blob parts;
    ck_assert(blob_check(&parts, blob, size, &region, &err));
    uint8_t *code = blob + (parts.code - blob);
    struct emitter e = {.bytes = code, .size = 64};
    emit_load64(&e, RAX, WRITER_CPU(page_base));
    emit_arithmetic_constant(&e, true, HOST_ADD, RAX, region.blocks[0].start);
    emit_store(&e, 3, WRITER_CPU(pc), RAX);
    emit_return(&e);
    ck_assert(engine_next_fetch(toy.engine, &asked));
    ck_assert_uint_eq(asked, fingerprint());
    ck_assert_int_eq(engine_install_region(toy.engine, 0, fingerprint(), &region, blob, size, &err),
                     REGION_INSTALLED);
    free(blob);
    ck_assert_uint_eq(run_loop(10)->x[5], 30);
    toy_finish();
}
END_TEST

/* --- hostile input -------------------------------------------------------------------------- */

static enum region_install try_install(const struct region *shape, const uint8_t *blob, size_t size)
{
    struct error err = {0};
    enum region_install result =
        engine_install_region(toy.engine, 0, fingerprint(), shape, blob, size, &err);
    ck_assert(result != REGION_REFUSED || err.message[0] != '\0');
    return result;
}

START_TEST(unsound_ones_are_refused)
{
    start_loop();
    uint64_t asked;
    ck_assert(engine_next_fetch(toy.engine, &asked));
    size_t size;
    uint8_t *blob = region_write(&region, &size);
    struct blob_header *header = (struct blob_header *)(void *)blob;
    const struct blob_header good = *header;
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        *header = good;                                                                            \
        change;                                                                                    \
        ck_assert_int_eq(try_install(&region, blob, size), REGION_REFUSED);                        \
    } while (0)
    REFUSED(header->magic ^= 1);
    REFUSED(header->version++);
    REFUSED(header->code_bytes += BLOB_ALIGN);
    REFUSED(header->code_bytes = 0);
    REFUSED(header->code_bytes = UINT32_MAX);
    REFUSED(header->entry = header->code_bytes);
    REFUSED(header->exit_count = 0);
    REFUSED(header->exit_count = UINT16_MAX);
    REFUSED(header->page_count++);
    REFUSED(header->reserved = 1);
    *header = good;
    struct blob_exit *exits = (struct blob_exit *)(void *)(header + 1);
    const struct blob_exit good_exits[2] = {exits[0], exits[1]};
    for (unsigned i = 0; i < 2; i++) {
        REFUSED(exits[i].page = 1);
        exits[i] = good_exits[i];
        REFUSED(exits[i].offset = 4096);
        exits[i] = good_exits[i];
        REFUSED(exits[i].reserved = 1);
        exits[i] = good_exits[i];
    }
    REFUSED(exits[0].offset += 16);
    exits[0] = good_exits[0];
    *header = good;
    for (size_t cut = 0; cut < size; cut++) {
        ck_assert_int_eq(try_install(&region, blob, cut), REGION_REFUSED);
    }
    struct region shape = region;
#define WRONG(change)                                                                              \
    do {                                                                                           \
        shape = region;                                                                            \
        change;                                                                                    \
        ck_assert_int_ne(try_install(&shape, blob, size), REGION_INSTALLED);                       \
    } while (0)
    WRONG(strcpy(shape.isa, "riscv64"));
    WRONG(memset(shape.isa, 'x', sizeof(shape.isa)));
    WRONG(shape.mode = BLOCK_MODE_DEAD);
    WRONG(shape.page_count = 0);
    WRONG(shape.page_count = REGION_PAGES_MAX + 1);
    WRONG(shape.block_count = 0);
    WRONG(shape.block_count = REGION_BLOCKS_MAX + 1);
    WRONG(shape.blocks[0].page = 1);
    WRONG(shape.blocks[0].start = 4096);
    WRONG(shape.blocks[0].length = UINT16_MAX);
    WRONG(shape.blocks[0].bytes = UINT16_MAX);
    WRONG(shape.byte_count = UINT16_MAX);
    WRONG(shape.edge_count = REGION_EDGES_MAX + 1);
    WRONG(shape.edges[0].to = 1);
    ck_assert_uint_eq(statistics().regions, 0);
    ck_assert_uint_ge(statistics().regions_refused, 10);
    free(blob);
    ck_assert_uint_eq(run_loop(10)->x[5], 30);
    toy_finish();
}
END_TEST

/* Sound, but not what the engine has there. */
START_TEST(other_shapes_are_stale)
{
    start_loop();
    struct region good = region;
    region.mode = 1;
    ck_assert_int_eq(install(), REGION_ABSENT); /* nobody asked for that one */
    region = good;
    struct error err;
    size_t size;
    region.blocks[0].length = 32; /* the first two instructions only */
    region.blocks[0].insns = 2;
    uint8_t *blob = region_write(&region, &size);
    region = good;
    good.blocks[0].length = 32;
    good.blocks[0].insns = 2;
    ck_assert_int_eq(engine_install_region(toy.engine, 0, fingerprint(), &good, blob, size, &err),
                     REGION_STALE);
    free(blob);
    toy_finish();
}
END_TEST

/* --- for people ----------------------------------------------------------------------------- */

static bool same_address(struct cpu *cpu, uint64_t va, uint64_t *physical)
{
    (void)cpu;
    *physical = va;
    return true;
}

START_TEST(regions_can_be_looked_at)
{
    int fd = memfd_create("map", MFD_CLOEXEC);
    struct perf_map *map = perf_map_create(dup(fd));
    toy_isa.debug_translate = same_address;
    start_loop();
    engine_set_perf_map(toy.engine, map);
    struct inspected_code *code = malloc(sizeof(*code));
    struct error err;
    ck_assert_int_eq(inspect_code(toy.cpus[0], loop_at, code, &err), 0);
    ck_assert_ptr_null(code->region.bytes);
    inspect_release(code);
    ck_assert_int_eq(install(), REGION_INSTALLED);
    const struct installed_region *installed = only_region();
    ck_assert_int_eq(inspect_code(toy.cpus[0], loop_at, code, &err), 0);
    ck_assert_uint_eq(code->region_blocks, 1);
    ck_assert_uint_eq(code->region.size, installed->code_bytes);
    ck_assert_mem_eq(code->region.bytes, installed->span.execute, code->region.size);
    ck_assert_ptr_nonnull(code->host.bytes);
    inspect_release(code);
    free(code);
    char line[80] = "", wanted[80];
    ck_assert_int_gt(pread(fd, line, sizeof(line) - 1, 0), 0);
    snprintf(wanted, sizeof(wanted), "%lx %x region_0x%lx\n",
             (unsigned long)(uintptr_t)installed->span.execute, installed->code_bytes,
             (unsigned long)loop_at);
    ck_assert_str_eq(line, wanted);
    engine_set_perf_map(toy.engine, NULL);
    perf_map_destroy(map);
    close(fd);
    toy_finish();
}
END_TEST

static Suite *suite(void)
{
    Suite *all = suite_create("engine: regions");
    TCase *tests = tcase_create("regions");
    tcase_add_test(tests, region_runs);
    tcase_add_test(tests, exits_are_linked);
    tcase_add_test(tests, dropped_targets_are_not_jumped_to);
    tcase_add_test(tests, region_outlives_its_exits_target);
    tcase_add_test(tests, own_store_drops_region);
    tcase_add_test(tests, region_that_overwrites_itself);
    tcase_add_test(tests, data_beside_region_drops_nothing);
    tcase_add_test(tests, came_too_late);
    tcase_add_test(tests, known_after_decoding);
    tcase_add_test(tests, two_pages);
    tcase_add_test(tests, page_guard_fails);
    tcase_add_test(tests, store_to_its_other_page);
    tcase_add_test(tests, pages_stay_watched);
    tcase_add_test(tests, attention_ends_a_loop);
    tcase_add_test(tests, eviction_drops_regions);
    tcase_add_test(tests, region_that_does_nothing);
    tcase_add_test(tests, unsound_ones_are_refused);
    tcase_add_test(tests, other_shapes_are_stale);
    tcase_add_test(tests, regions_can_be_looked_at);
    suite_add_tcase(all, tests);
    return all;
}

int main(void)
{
    return engine_tier_available(ENGINE_OPTIMISED) ? suite_run(suite()) : 0;
}

#else

/* The regions of these tests are written in x86-64 code. */
int main(void)
{
    return 0;
}

#endif
