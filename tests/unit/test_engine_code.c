/* Code that changes: by the CPU itself, by other CPUs, by devices; and giving its memory back. */
#include "tests/unit/engine_toy.h"
#include "tests/unit/suite.h"

#define SIZE64     3u
#define SIZE32     2u
#define IMM_OFFSET ((int)offsetof(struct toy_insn, imm))

static uint64_t stat_dropped(void)
{
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    return stats.blocks_dropped;
}

/* `count` times: write the counter into the immediate of an instruction, run it, add it up. */
static uint64_t emit_patching_loop(uint64_t function, int32_t count)
{
    uint64_t start = toy_emit(toy_li(1, count));
    toy_emit(toy_op(IR_pcrel, 0, 6, TOY_NONE, TOY_NONE,
                    (int32_t)(function - (toy.next_code & ~(uint64_t)0xfff))));
    uint64_t loop = toy_emit(toy_store(SIZE32, 6, 1, IMM_OFFSET));
    toy_emit(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, (int32_t)(toy.next_code + 32) & 0xfff));
    toy_emit(toy_jump((int32_t)(function - toy.next_code)));
    toy_emit(toy_op(IR_add, 0, 5, 5, 4, 0));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    return start;
}

static void emit_function(uint64_t at)
{
    uint64_t saved = toy.next_code;
    toy.next_code = at;
    toy_emit(toy_li(4, 0));
    toy_emit(toy_jump_register(3));
    toy.next_code = saved;
}

START_TEST(code_in_another_page_is_patched)
{
    toy_start(1, _i);
    uint64_t function = TOY_RAM_BASE + 0x3010;
    emit_function(function);
    uint64_t start = emit_patching_loop(function, 3000);
    struct toy_cpu *cpu = toy_run(start);
    ck_assert_uint_eq(cpu->x[5], 3000 * 3001 / 2);
    ck_assert_uint_ge(stat_dropped(), 2999);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_lt(stats.block_bytes, 8192); /* of live blocks */
    toy_finish();
}
END_TEST

START_TEST(code_in_the_same_page_is_patched)
{
    toy_start(1, _i);
    uint64_t function = TOY_RAM_BASE + 0x800;
    emit_function(function);
    uint64_t start = emit_patching_loop(function, 3000);
    struct toy_cpu *cpu = toy_run(start);
    ck_assert_uint_eq(cpu->x[5], 3000 * 3001 / 2);
    toy_finish();
}
END_TEST

START_TEST(patching_through_another_mapping)
{
    toy_start(1, _i);
    uint64_t function = TOY_RAM_BASE + 0x3010;
    emit_function(function);
    toy_map(5, TOY_RAM_BASE, TOY_RAM_BASE, 0x4000, 5);
    toy_map(5, 0x50000, TOY_RAM_BASE + 0x3000, 4096, 3);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    uint64_t start = emit_patching_loop(function, 100);
    struct toy_insn *address = toy_ram(start + 16);
    *address = toy_li(6, 0x50010);
    toy_run(start);
    ck_assert_uint_eq(cpu->x[5], 100 * 101 / 2);
    toy_finish();
}
END_TEST

START_TEST(data_beside_code_drops_nothing)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[6] = TOY_RAM_BASE + 0x400;
    toy_emit(toy_li(1, 1000));
    uint64_t loop = toy_emit(toy_store(SIZE64, 6, 1, 0));
    toy_emit(toy_load(SIZE64, 2, 6, 0));
    toy_emit(toy_op(IR_add, 0, 5, 5, 2, 0));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[5], 500500);
    ck_assert_uint_eq(stat_dropped(), 0);
    toy_finish();
}
END_TEST

START_TEST(page_without_code_is_fast_again)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    uint64_t page = TOY_RAM_BASE + 0x3000;
    emit_function(page);
    toy_emit(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, 32));
    toy_emit(toy_jump((int32_t)(page - toy.next_code)));
    cpu->x[6] = page;
    toy_emit(toy_store(SIZE64, 6, 1, 0)); /* drops the only block of the page */
    toy_emit(toy_li(1, 1000));
    uint64_t loop = toy_emit(toy_store(SIZE64, 6, 1, 0));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy_run(TOY_RAM_BASE);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_eq(stats.blocks_dropped, 1);
    ck_assert_uint_eq(stats.slow_accesses, 1);
    ck_assert_uint_eq(*memory_page_flags(&toy.memory, page) & MEMORY_PAGE_CODE, 0);
    ck_assert_uint_eq(*memory_page_flags(&toy.memory, TOY_RAM_BASE) & MEMORY_PAGE_CODE,
                      MEMORY_PAGE_CODE);
    toy_finish();
}
END_TEST

/* A store into the instruction that follows it in the same block. */
static uint64_t run_self_patch(void)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = 7;
    cpu->x[6] = TOY_RAM_BASE + 48 + IMM_OFFSET;
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_store(SIZE32, 6, 1, 0));
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_li(4, 3)); /* becomes 7 */
    toy_emit(toy_halt());
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[2], 2);
    ck_assert_uint_eq(cpu->cpu.retired, 5);
    return cpu->x[4];
}

START_TEST(block_that_overwrites_itself)
{
    toy_isa.precise_code_writes = true;
    toy_start(1, _i);
    ck_assert_uint_eq(run_self_patch(), 7);
    toy_finish();
    toy_isa.precise_code_writes = false;
    toy_start(1, _i);
    run_self_patch(); /* either value: the guest has no fence. The next time it must be new. */
    ck_assert_uint_eq(toy_run(TOY_RAM_BASE)->x[4], 7);
    toy_finish();
}
END_TEST

START_TEST(second_half_of_a_straddling_instruction_is_patched)
{
    toy_start(1, _i);
    toy.next_code = TOY_RAM_BASE + 4096 - 4;
    uint64_t start = toy_emit(toy_li(4, 3));
    toy_emit(toy_halt());
    struct toy_cpu *cpu = toy_run(start);
    ck_assert_uint_eq(cpu->x[4], 3);
    uint64_t patcher = TOY_RAM_BASE + 0x5000;
    toy.next_code = patcher;
    cpu->x[1] = 9;
    cpu->x[6] = start + IMM_OFFSET;
    toy_emit(toy_store(SIZE32, 6, 1, 0));
    toy_emit(toy_halt());
    toy_run(patcher);
    ck_assert_uint_eq(toy_run(start)->x[4], 9);
    toy_finish();
}
END_TEST

START_TEST(device_writes_code)
{
    toy_start(1, _i);
    toy_emit(toy_li(4, 3));
    toy_emit(toy_halt());
    ck_assert_uint_eq(toy_run(TOY_RAM_BASE)->x[4], 3);
    struct toy_insn *insn = toy_ram(TOY_RAM_BASE);
    insn->imm = 4;
    memory_device_wrote(&toy.memory, TOY_RAM_BASE, 16);
    engine_device_wrote(toy.engine);
    ck_assert_uint_eq(toy_run(TOY_RAM_BASE)->x[4], 4);
    insn->imm = 5;
    memory_device_wrote(&toy.memory, TOY_RAM_BASE, 16);
    toy.cpus[0]->host->fetch_barrier(toy.cpus[0]);
    ck_assert_uint_eq(toy_run(TOY_RAM_BASE)->x[4], 5);
    toy_finish();
}
END_TEST

/* CPU 0 patches, asks the others for an instruction barrier, then publishes the number. */
static void emit_publisher(uint64_t function, uint64_t published, int32_t count, unsigned mask)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->cpu.pc = toy.next_code;
    cpu->x[6] = function;
    cpu->x[7] = published;
    cpu->x[8] = mask;
    toy_emit(toy_li(1, 0));
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_store(SIZE32, 6, 1, IMM_OFFSET));
    toy_emit(toy_call_helper(TOY_REMOTE_BARRIER, TOY_NONE, 8, TOY_NONE, 0));
    toy_emit(toy_store(SIZE64, 7, 1, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, count, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
}

/* The others read what was published, run the function, and count when it is older. */
static void emit_reader(unsigned index, uint64_t function, uint64_t published, int32_t count)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[index]);
    cpu->cpu.pc = toy.next_code;
    cpu->x[7] = published;
    uint64_t loop = toy_emit(toy_load(SIZE64, 1, 7, 0));
    toy_emit(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, (int32_t)(toy.next_code + 32) & 0xfff));
    toy_emit(toy_jump((int32_t)(function - toy.next_code)));
    toy_emit(toy_op(IR_setcc, IR_LTU, 5, 4, 1, 0));
    toy_emit(toy_op(IR_add, 0, 6, 6, 5, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, count, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
}

static void cross_patch(int tier, uint64_t function, uint64_t published)
{
    const int32_t count = 300;
    toy_start(4, tier);
    emit_function(function);
    emit_publisher(function, published, count, 0xe);
    for (unsigned i = 1; i < 4; i++) {
        toy.next_code = TOY_RAM_BASE + 0x1000 * i;
        emit_reader(i, function, published, count);
    }
    toy_run_all();
    for (unsigned i = 1; i < 4; i++) {
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[6], 0);
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[4], count);
    }
    toy_finish();
}

START_TEST(other_cpus_run_what_was_published)
{
    cross_patch(_i, TOY_RAM_BASE + 0x8000, TOY_RAM_BASE + 0x9000);
    /* the published number in the page of the code, and in the same granule */
    cross_patch(_i, TOY_RAM_BASE + 0x8000, TOY_RAM_BASE + 0x8800);
    cross_patch(_i, TOY_RAM_BASE + 0x8000, TOY_RAM_BASE + 0x8030);
}
END_TEST

START_TEST(two_cpus_patch_what_two_others_run)
{
    toy_start(4, _i);
    uint64_t function = TOY_RAM_BASE + 0x8000;
    emit_function(function);
    for (unsigned i = 0; i < 2; i++) {
        toy.next_code = TOY_RAM_BASE + 0x1000 * i;
        struct toy_cpu *cpu = toy_of(toy.cpus[i]);
        cpu->cpu.pc = toy.next_code;
        cpu->x[6] = function;
        cpu->x[1] = 5000 + i; /* the values stay odd on one and even on the other */
        uint64_t loop = toy_emit(toy_store(SIZE32, 6, 1, IMM_OFFSET));
        toy_emit(toy_addi(1, 1, -2));
        toy_emit(toy_branch_imm(IR_GT, 1, 1, (int32_t)(loop - toy.next_code)));
        toy_emit(toy_halt());
    }
    for (unsigned i = 2; i < 4; i++) {
        toy.next_code = TOY_RAM_BASE + 0x1000 * i;
        struct toy_cpu *cpu = toy_of(toy.cpus[i]);
        cpu->cpu.pc = toy.next_code;
        cpu->x[1] = 5000;
        uint64_t loop = toy_emit(
            toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, (int32_t)(toy.next_code + 32) & 0xfff));
        toy_emit(toy_jump((int32_t)(function - toy.next_code)));
        toy_emit(toy_addi(1, 1, -1));
        toy_emit(toy_op(IR_maxu, 0, 9, 9, 4, 0));
        toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
        toy_emit(toy_halt());
    }
    toy_run_all();
    for (unsigned i = 2; i < 4; i++) {
        ck_assert_uint_le(toy_of(toy.cpus[i])->x[9], 5001);
    }
    uint32_t last = (uint32_t)((struct toy_insn *)toy_ram(function))->imm;
    atomic_store(&toy.cpus[2]->attention, 0);
    toy.cpus[2]->pc = function;
    toy_of(toy.cpus[2])->x[3] = TOY_RAM_BASE + 0x3000 + 80; /* its halt */
    engine_run(toy.cpus[2]);
    ck_assert_uint_eq(toy_of(toy.cpus[2])->x[4], last);
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: changing code");
    TCase *tests = tcase_create("code");
    tcase_set_timeout(tests, 120);
    toy_add(tests, code_in_another_page_is_patched);
    toy_add(tests, code_in_the_same_page_is_patched);
    toy_add(tests, patching_through_another_mapping);
    toy_add(tests, data_beside_code_drops_nothing);
    toy_add(tests, page_without_code_is_fast_again);
    toy_add(tests, block_that_overwrites_itself);
    toy_add(tests, second_half_of_a_straddling_instruction_is_patched);
    toy_add(tests, device_writes_code);
    toy_add(tests, other_cpus_run_what_was_published);
    toy_add(tests, two_cpus_patch_what_two_others_run);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
