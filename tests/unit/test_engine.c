/* One CPU: control flow, exact counts, faults, memory corners, address spaces, waiting. */
#include "libshared/jit/runtime.h"
#include "tests/unit/engine_toy.h"
#include "tests/unit/suite.h"

#define SIZE64 3u
#define SIZE32 2u

START_TEST(loop_counts_exactly)
{
    toy_start(1, _i);
    toy_emit(toy_li(1, 1000));
    toy_emit(toy_li(2, 0));
    uint64_t loop = toy_emit(toy_op(IR_add, 0, 2, 2, 1, 0));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    struct toy_cpu *cpu = toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[2], 500500);
    ck_assert_uint_eq(cpu->cpu.retired, 2 + 3 * 1000 + 1);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_eq(stats.retired, cpu->cpu.retired);
    ck_assert_uint_lt(stats.lookups, 10);
    toy_finish();
}
END_TEST

START_TEST(long_code_crosses_pages)
{
    toy_start(1, _i);
    for (unsigned i = 0; i < 1000; i++) {
        toy_emit(toy_addi(1, 1, 1));
    }
    toy_emit(toy_halt());
    struct toy_cpu *cpu = toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[1], 1000);
    ck_assert_uint_eq(cpu->cpu.retired, 1001);
    cpu = toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[1], 2000);
    toy_finish();
}
END_TEST

START_TEST(blocks_can_be_limited_to_one_instruction)
{
    toy_start(1, _i);
    engine_set_block_limit(toy.engine, 1);
    for (unsigned i = 0; i < 300; i++) {
        toy_emit(toy_addi(1, 1, 1));
    }
    toy_emit(toy_halt());
    struct cpu *cpu = toy.cpus[0];
    cpu->pc = TOY_RAM_BASE;
    atomic_store(&cpu->attention, CPU_ATTENTION_STEP);
    for (unsigned i = 1; i <= 300; i++) {
        ck_assert_int_eq(engine_run(cpu), ENGINE_EXIT_STEP);
        ck_assert_uint_eq(cpu->retired, i);
        ck_assert_uint_eq(toy_of(cpu)->x[1], i);
    }
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_eq(stats.blocks_decoded, 300);
    toy_finish();
}
END_TEST

START_TEST(dropped_code_is_decoded_anew)
{
    toy_start(1, _i);
    toy_emit(toy_li(1, 100));
    uint64_t loop = toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    struct engine_stats before, after;
    toy_run(TOY_RAM_BASE);
    engine_stats(toy.engine, &before);
    engine_drop_code(toy.engine);
    /* Behind the engine's back, as if by nobody: only code that is decoded anew can see it. */
    struct toy_insn *changed = toy_ram(loop);
    *changed = toy_addi(2, 2, 2);
    struct toy_cpu *cpu = toy_run(TOY_RAM_BASE);
    engine_stats(toy.engine, &after);
    ck_assert_uint_eq(cpu->x[2], 100 + 200);
    ck_assert_uint_eq(after.blocks_decoded, 2 * before.blocks_decoded);
    ck_assert_uint_eq(after.blocks_dropped, before.blocks_decoded);
    toy_finish();
}
END_TEST

START_TEST(tiers_have_names)
{
    enum engine_tier tier;
    ck_assert(engine_tier_find("interp", &tier) && tier == ENGINE_INTERP);
    ck_assert_str_eq(engine_tier_name(ENGINE_BASELINE), "baseline");
    ck_assert(engine_tier_find("baseline", &tier) == engine_tier_available(ENGINE_BASELINE));
    ck_assert(!engine_tier_find("no such", &tier));
    ck_assert_ptr_null(engine_tier_name((enum engine_tier)1000));
}
END_TEST

START_TEST(calls_and_indirect_jumps)
{
    toy_start(1, _i);
    uint64_t function = TOY_RAM_BASE + 0x3000;
    toy_emit(toy_li(1, 200));
    uint64_t loop = toy_emit(toy_op(IR_pcrel, 0, 3, TOY_NONE, TOY_NONE, 0x30)); /* after the call */
    toy_emit(toy_op(IR_call, 0, TOY_NONE, TOY_NONE, TOY_NONE, (int32_t)(function - toy.next_code)));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy.next_code = function;
    toy_emit(toy_addi(2, 2, 5));
    toy_emit(toy_op(IR_ret, 0, TOY_NONE, 3, TOY_NONE, 0));
    struct toy_cpu *cpu = toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[2], 1000);
    ck_assert_uint_eq(cpu->cpu.retired, 1 + 200 * 6 + 1);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_lt(stats.lookups, 12);
    toy_finish();
}
END_TEST

START_TEST(straddling_instruction)
{
    toy_start(1, _i);
    toy.next_code = TOY_RAM_BASE + 4096 - 20;
    uint64_t start = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_addi(1, 1, 10));
    toy_emit(toy_addi(1, 1, 100));
    toy_emit(toy_halt());
    struct toy_cpu *cpu = toy_run(start);
    ck_assert_uint_eq(cpu->x[1], 111);
    cpu = toy_run(start);
    ck_assert_uint_eq(cpu->x[1], 222);
    ck_assert_uint_eq(cpu->cpu.retired, 8);

    /* The second half elsewhere: same first page, another second page. */
    uint64_t other = TOY_RAM_BASE + 0x8000;
    memcpy(toy_ram(other), toy_ram(TOY_RAM_BASE + 4096), 64);
    ((struct toy_insn *)((uint8_t *)toy_ram(TOY_RAM_BASE) + 4096 - 4))->imm = 10;
    struct toy_insn changed = toy_addi(1, 1, 7);
    memcpy(toy_ram(other), (uint8_t *)&changed + 4, 12);
    toy_map(5, 0x10000, TOY_RAM_BASE, 4096, 7);
    toy_map(5, 0x11000, other, 4096, 7);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    cpu->x[1] = 0;
    cpu = toy_run(0x10000 + 4096 - 20);
    ck_assert_uint_eq(cpu->x[1], 108);
    cpu->root = 0;
    toy_switch(&cpu->cpu);
    cpu->x[1] = 0;
    cpu = toy_run(start);
    ck_assert_uint_eq(cpu->x[1], 111);
    toy_finish();
}
END_TEST

START_TEST(straddling_into_unmapped_page_faults)
{
    toy_start(1, _i);
    toy_map(5, 0x10000, TOY_RAM_BASE, 4096, 7);
    toy.next_code = TOY_RAM_BASE + 4096 - 20;
    toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_addi(1, 1, 10));
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    toy_run(0x10000 + 4096 - 20);
    ck_assert_uint_eq(cpu->x[1], 1);
    ck_assert_uint_eq(cpu->trap_cause, TOY_PAGE_FAULT);
    ck_assert_uint_eq(cpu->trap_value, 0x11000);
    ck_assert_uint_eq(cpu->trap_pc, 0x10000 + 4096 - 4);
    ck_assert_uint_eq(cpu->cpu.retired, 1);
    toy_finish();
}
END_TEST

START_TEST(loads_and_stores_of_every_size)
{
    toy_start(1, _i);
    uint64_t data = TOY_RAM_BASE + 0x10000;
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = data;
    cpu->x[2] = UINT64_C(0x8182838485868788);
    for (unsigned size = 0; size < 4; size++) {
        toy_emit(toy_store(size, 1, 2, (int32_t)(32 * size + 1))); /* misaligned on purpose */
        toy_emit(toy_load(size, 4 + size, 1, (int32_t)(32 * size + 1)));
        toy_emit(toy_load(size | IR_MEM_SIGN, 8 + size, 1, (int32_t)(32 * size + 1)));
    }
    toy_emit(toy_op(IR_loadf, SIZE32 | IR_MEM_BOX, TOY_F(1), 1, TOY_NONE, 65));
    toy_emit(toy_op(IR_storef, SIZE64, TOY_NONE, 1, TOY_F(1), 200));
    toy_emit(toy_load(SIZE64, 12, 1, 200));
    toy_emit(toy_load(SIZE64 | IR_MEM_ACQUIRE, 13, 1, 97));
    toy_emit(toy_halt());
    toy_run(TOY_RAM_BASE);
    const uint64_t value = cpu->x[2];
    for (unsigned size = 0; size < 4; size++) {
        unsigned shift = 64 - (8u << size);
        ck_assert_uint_eq(cpu->x[4 + size], value << shift >> shift);
        ck_assert_uint_eq(cpu->x[8 + size], (uint64_t)((int64_t)(value << shift) >> shift));
    }
    ck_assert_uint_eq(cpu->x[12], UINT64_C(0xffffffff85868788));
    ck_assert_uint_eq(cpu->x[13], value);
    toy_finish();
}
END_TEST

START_TEST(accesses_across_pages)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, 0, TOY_RAM_BASE, 4096, 7);
    toy_map(5, 0x10000, TOY_RAM_BASE + 0x20000, 4096, 3);
    toy_map(5, 0x11000, TOY_RAM_BASE + 0x30000, 4096, 3);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    cpu->x[1] = 0x11000 - 3;
    cpu->x[2] = UINT64_C(0x1122334455667788);
    toy_emit(toy_store(SIZE64, 1, 2, 0));
    toy_emit(toy_load(SIZE64, 3, 1, 0));
    toy_emit(toy_load(SIZE32 | IR_MEM_SIGN, 4, 1, 1));
    toy_emit(toy_store(SIZE64, 1, 2, 0x1000)); /* into the unmapped page 0x12000 */
    toy_run(0);
    ck_assert_uint_eq(cpu->x[3], cpu->x[2]);
    ck_assert_uint_eq(cpu->x[4], 0x44556677);
    ck_assert_uint_eq(*(uint8_t *)toy_ram(TOY_RAM_BASE + 0x20ffd), 0x88);
    ck_assert_uint_eq(*(uint8_t *)toy_ram(TOY_RAM_BASE + 0x30000), 0x55);
    ck_assert_uint_eq(cpu->trap_cause, TOY_PAGE_FAULT);
    ck_assert_uint_eq(cpu->trap_value, 0x12000);
    ck_assert_uint_eq(cpu->trap_pc, 48);
    ck_assert_uint_eq(cpu->trap_retired, 3);
    /* nothing of the faulting store was done */
    ck_assert_uint_eq(*(uint8_t *)toy_ram(TOY_RAM_BASE + 0x30ffd), 0);
    toy_finish();
}
END_TEST

START_TEST(faults_are_precise)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = 0x4000; /* no such memory */
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_addi(2, 2, 1));
    uint64_t at = toy_emit(toy_load(SIZE64, 2, 1, 8));
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_halt());
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->trap_cause, TOY_ACCESS_FAULT);
    ck_assert_uint_eq(cpu->trap_value, 0x4008);
    ck_assert_uint_eq(cpu->trap_pc, at);
    ck_assert_uint_eq(cpu->trap_retired, 2);
    ck_assert_uint_eq(cpu->x[2], 2);

    toy.next_code = TOY_RAM_BASE + 0x1000;
    toy_emit(toy_addi(3, 3, 1));
    at = toy_emit(toy_call_helper(TOY_RAISE, 3, TOY_NONE, TOY_NONE, 77));
    toy_emit(toy_halt());
    cpu->cpu.retired = 0;
    toy_run(TOY_RAM_BASE + 0x1000);
    ck_assert_uint_eq(cpu->trap_cause, TOY_TRAP);
    ck_assert_uint_eq(cpu->trap_value, 77);
    ck_assert_uint_eq(cpu->trap_pc, at);
    ck_assert_uint_eq(cpu->trap_retired, 1);
    ck_assert_uint_eq(cpu->x[3], 1);

    toy.next_code = TOY_RAM_BASE + 0x2000;
    cpu->x[1] = TOY_RAM_BASE + 0x8001;
    toy_emit(toy_load(SIZE32 | IR_MEM_ALIGN, 3, 1, 0));
    toy_run(TOY_RAM_BASE + 0x2000);
    ck_assert_uint_eq(cpu->trap_cause, TOY_MISALIGNED);

    cpu->cpu.exception = 0;
    toy_run(0x1230); /* execute where there is nothing */
    ck_assert_uint_eq(cpu->trap_cause, TOY_ACCESS_FAULT);
    ck_assert_uint_eq(cpu->trap_pc, 0x1230);
    toy_finish();
}
END_TEST

START_TEST(helpers_see_exact_state)
{
    toy_start(1, _i);
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_call_helper(TOY_RETIRED, 3, TOY_NONE, TOY_NONE, 0));
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_call_helper(TOY_RETIRED, 4, TOY_NONE, TOY_NONE, 0));
    toy_emit(toy_halt());
    struct toy_cpu *cpu = toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[3], 2);
    ck_assert_uint_eq(cpu->x[4], 4);
    ck_assert_uint_eq(cpu->cpu.retired, 6);
    toy_finish();
}
END_TEST

START_TEST(device_accesses)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    cpu->x[1] = TOY_DEVICE;
    cpu->x[2] = UINT64_C(0xfedcba9876543210);
    toy_emit(toy_store(SIZE64, 1, 2, 8));
    toy_emit(toy_store(0, 1, 2, 16));
    toy_emit(toy_load(SIZE32 | IR_MEM_SIGN, 3, 1, 12));
    toy_emit(toy_load(SIZE64, 4, 1, 16));
    toy_emit(toy_load(SIZE32, 5, 1, 9)); /* misaligned: refused */
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[3], UINT64_C(0xfffffffffedcba98));
    ck_assert_uint_eq(cpu->x[4], 0x10);
    ck_assert_uint_eq(cpu->trap_cause, TOY_ACCESS_FAULT);
    ck_assert_uint_eq(cpu->trap_value, TOY_DEVICE + 9);
    ck_assert_uint_eq(atomic_load(&toy.device_accesses), 4);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_eq(stats.slow_accesses, 5);
    ck_assert_uint_eq(stats.exceptions, 1);
    toy_finish();
}
END_TEST

START_TEST(address_spaces_and_flushes)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    /* Code at va 0 in each of 40 spaces, data at va 0x5000 differs. */
    for (unsigned root = 1; root <= 20; root++) {
        toy_map(root, 0, TOY_RAM_BASE, 0x1000, 7);
        toy_map(root, 0x5000, TOY_RAM_BASE + 0x10000 + root * 0x1000, 4096, 3);
        *(uint64_t *)toy_ram(TOY_RAM_BASE + 0x10000 + root * 0x1000) = root;
    }
    toy_emit(toy_load(SIZE64, 4, 1, 0));
    toy_emit(toy_op(IR_add, 0, 5, 5, 4, 0));
    toy_emit(toy_halt());
    cpu->x[1] = 0x5000;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned root = 1; root <= 20; root++) {
            cpu->root = root;
            toy_switch(&cpu->cpu);
            toy_run(0);
            ck_assert_uint_eq(cpu->x[4], root);
        }
    }
    /* A changed mapping is seen after a flush, and only then must be. */
    toy_map(20, 0x5000, TOY_RAM_BASE + 0x11000, 4096, 3);
    cpu->cpu.host->tlb_flush(&cpu->cpu, false, 20, ~(uint64_t)0, false, 0x5123);
    toy_run(0);
    ck_assert_uint_eq(cpu->x[4], 1);
    /* Another space's flush leaves this one alone; this one's whole flush does not. */
    toy_map(20, 0x5000, TOY_RAM_BASE + 0x12000, 4096, 3);
    cpu->cpu.host->tlb_flush(&cpu->cpu, false, 19, ~(uint64_t)0, true, 0);
    toy_run(0);
    ck_assert_uint_eq(cpu->x[4], 1);
    cpu->cpu.host->tlb_flush(&cpu->cpu, false, 20, ~(uint64_t)0, true, 0);
    toy_run(0);
    ck_assert_uint_eq(cpu->x[4], 2);
    toy_finish();
}
END_TEST

START_TEST(flushing_one_page_of_a_large_leaf_drops_all)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, 0x200000, TOY_RAM_BASE, 0x80000, 7);
    *(uint64_t *)toy_ram(TOY_RAM_BASE + 0x10000) = 1;
    *(uint64_t *)toy_ram(TOY_RAM_BASE + 0x90000) = 2;
    toy_emit(toy_load(SIZE64, 4, 1, 0));
    toy_emit(toy_halt());
    memcpy(toy_ram(TOY_RAM_BASE + 0x80000), toy_ram(TOY_RAM_BASE), 64);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    cpu->x[1] = 0x210000;
    toy_run(0x200000);
    ck_assert_uint_eq(cpu->x[4], 1);
    toy_map(5, 0x200000, TOY_RAM_BASE + 0x80000, 0x80000, 7);
    cpu->cpu.host->tlb_flush(&cpu->cpu, true, 0, 0, false, 0x203000);
    toy_run(0x200000);
    ck_assert_uint_eq(cpu->x[4], 2);
    toy_finish();
}
END_TEST

START_TEST(remapped_code_is_not_run_from_the_jump_cache)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_emit(toy_li(4, 1));
    toy_emit(toy_halt());
    toy.next_code = TOY_RAM_BASE + 0x1000;
    toy_emit(toy_li(4, 2));
    toy_emit(toy_halt());
    toy_map(5, 0x7000, TOY_RAM_BASE, 4096, 7);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    toy_run(0x7000);
    ck_assert_uint_eq(cpu->x[4], 1);
    toy_map(5, 0x7000, TOY_RAM_BASE + 0x1000, 4096, 7);
    cpu->cpu.host->tlb_flush(&cpu->cpu, true, 0, 0, false, 0x7000);
    toy_run(0x7000);
    ck_assert_uint_eq(cpu->x[4], 2);
    toy_finish();
}
END_TEST

START_TEST(tables_grow_and_stay_right)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, 0, TOY_RAM_BASE, 4096, 7);
    /* 1024 pages of virtual memory on 16 of RAM: walks them again and again. */
    for (unsigned i = 0; i < 32; i++) {
        toy_map(5, 0x100000 + i * 0x20000, TOY_RAM_BASE + 0x10000, 0x20000, 3);
    }
    for (unsigned i = 0; i < 32; i++) {
        *(uint64_t *)toy_ram(TOY_RAM_BASE + 0x10000 + i * 0x1000) = i;
    }
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    toy_emit(toy_li(6, 20));
    uint64_t outer = toy_emit(toy_li(1, 0x100000));
    toy_emit(toy_li(2, 1024));
    uint64_t inner = toy_emit(toy_load(SIZE64, 3, 1, 0));
    toy_emit(toy_op(IR_add, 0, 4, 4, 3, 0));
    toy_emit(toy_op(IR_add, 0, 1, 1, TOY_IMM, 4096));
    toy_emit(toy_addi(2, 2, -1));
    toy_emit(toy_branch_imm(IR_NE, 2, 0, (int32_t)(inner - toy.next_code)));
    toy_emit(toy_addi(6, 6, -1));
    toy_emit(toy_branch_imm(IR_NE, 6, 0, (int32_t)(outer - toy.next_code)));
    toy_emit(toy_halt());
    toy_run(0);
    ck_assert_uint_eq(cpu->x[4], 20 * 32 * (31 * 32 / 2));
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_lt(stats.tlb_misses, 8 * 1024);
    ck_assert_uint_gt(cpu->cpu.tlb_data_mask, 255);
    toy_finish();
}
END_TEST

/* Compiled code goes on with the table that it knew before it asked. */
START_TEST(tables_stay_while_compiled_code_asks)
{
    toy_start(1, _i);
    struct cpu *cpu = toy.cpus[0];
    for (unsigned i = 0; i < 32; i++) {
        toy_map(5, 0x100000 + i * 0x20000, TOY_RAM_BASE + 0x10000, 0x20000, 7);
    }
    toy_of(cpu)->root = 5;
    toy_switch(cpu);
    const struct tlb_entry *table = cpu->tlb_data;
    for (unsigned i = 0; i < 16 * 1024; i++) {
        uint64_t va = 0x100000 + i % 1024 * 4096;
        uint64_t host = (uint64_t)(uintptr_t)toy_ram(TOY_RAM_BASE + 0x10000 + va % 0x20000);
        ck_assert_uint_eq(cpu->runtime->reach(cpu, va, 16, REACH_READ | REACH_WRITE), host);
        ck_assert_uint_eq(cpu->runtime->translate(cpu, va, SIZE64, 0), host);
        ck_assert_uint_ne(cpu->runtime->page_is(cpu, va, host), 0);
        ck_assert_ptr_eq(cpu->tlb_data, table);
    }
    uint64_t value = 0;
    for (unsigned i = 0; i < 1024; i++) {
        value |= cpu->runtime->load(cpu, 0x100000 + i * 4096, SIZE64);
    }
    ck_assert_uint_eq(value, 0);
    ck_assert_ptr_ne(cpu->tlb_data, table);
    toy_finish();
}
END_TEST

START_TEST(block_modes_are_kept_apart)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_emit(toy_li(1, 3));
    toy_emit(toy_call_helper(TOY_SET_MODE, TOY_NONE, 1, TOY_NONE, 0));
    uint64_t loop = toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_call_helper(TOY_SET_MODE, TOY_NONE, 1, TOY_NONE, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->x[2], 3);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_eq(stats.blocks_decoded, 1 + 3 + 3 + 1);
    toy_finish();
}
END_TEST

START_TEST(single_steps)
{
    toy_start(1, _i);
    struct cpu *cpu = toy.cpus[0];
    toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_jump(-16));
    cpu_attention(cpu, CPU_ATTENTION_STEP);
    for (unsigned i = 1; i <= 5; i++) {
        ck_assert_int_eq(engine_run(cpu), ENGINE_EXIT_STEP);
        ck_assert_uint_eq(toy_of(cpu)->x[1], i);
        ck_assert_uint_eq(cpu->pc, TOY_RAM_BASE);
        ck_assert_uint_eq(cpu->retired, 2 * i);
    }
    toy_finish();
}
END_TEST

START_TEST(a_closed_loop_can_be_left)
{
    toy_start(1, _i);
    struct cpu *cpu = toy.cpus[0];
    toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_jump(-16));
    pthread_t thread;
    pthread_create(&thread, NULL, toy_thread, cpu);
    for (;;) {
        struct engine_stats stats;
        engine_stats(toy.engine, &stats);
        if (stats.retired > 100000) {
            break;
        }
    }
    engine_kick(cpu, CPU_ATTENTION_PAUSE);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(atomic_load(&cpu->attention), 0);
    ck_assert_uint_eq(cpu->pc, TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->retired, 2 * toy_of(cpu)->x[1]);
    toy_finish();
}
END_TEST

START_TEST(waiting_and_interrupts)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    uint64_t wait = toy_emit(toy_call_helper(TOY_WAIT, TOY_NONE, TOY_NONE, TOY_NONE, 0));
    toy_emit(toy_jump(-16));
    cpu->irq_handler = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_branch_imm(IR_NE, 1, 100, (int32_t)(wait - toy.next_code)));
    toy_emit(toy_halt());
    cpu->cpu.pc = wait;
    pthread_t thread;
    pthread_create(&thread, NULL, toy_thread, &cpu->cpu);
    for (unsigned sent = 0; sent < 100; sent++) {
        atomic_store(&cpu->line, 1);
        engine_kick(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
        while (atomic_load(&cpu->line)) {
            sched_yield();
        }
    }
    pthread_join(thread, NULL);
    ck_assert_uint_eq(cpu->irqs, 100);
    ck_assert_uint_eq(cpu->x[1], 100);
    toy_finish();
}
END_TEST

START_TEST(interrupt_reaches_a_linked_loop)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_emit(toy_jump(0));
    cpu->irq_handler = toy_emit(toy_halt());
    cpu->cpu.pc = TOY_RAM_BASE;
    pthread_t thread;
    pthread_create(&thread, NULL, toy_thread, &cpu->cpu);
    atomic_store(&cpu->line, 1);
    engine_kick(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(cpu->irqs, 1);
    ck_assert_uint_eq(cpu->irq_pc, TOY_RAM_BASE);
    toy_finish();
}
END_TEST

START_TEST(undecodable_bytes_raise)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_emit(toy_addi(1, 1, 1));
    memset(toy_ram(toy.next_code), 0xff, 16);
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->trap_cause, TOY_TRAP);
    ck_assert_uint_eq(cpu->trap_value, 0xbad);
    ck_assert_uint_eq(cpu->trap_pc, TOY_RAM_BASE + 16);
    toy_finish();
}
END_TEST

START_TEST(unsound_blocks_are_refused)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_emit(toy_op(IR_add, 9, 1, 1, 1, 0)); /* attributes where none belong */
    toy_emit(toy_halt());
    close(STDERR_FILENO); /* the complaint */
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->trap_cause, TOY_ACCESS_FAULT);
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine");
    TCase *tests = tcase_create("one CPU");
    tcase_set_timeout(tests, 60);
    toy_add(tests, loop_counts_exactly);
    toy_add(tests, long_code_crosses_pages);
    toy_add(tests, blocks_can_be_limited_to_one_instruction);
    toy_add(tests, dropped_code_is_decoded_anew);
    tcase_add_test(tests, tiers_have_names);
    toy_add(tests, calls_and_indirect_jumps);
    toy_add(tests, straddling_instruction);
    toy_add(tests, straddling_into_unmapped_page_faults);
    toy_add(tests, loads_and_stores_of_every_size);
    toy_add(tests, accesses_across_pages);
    toy_add(tests, faults_are_precise);
    toy_add(tests, helpers_see_exact_state);
    toy_add(tests, device_accesses);
    toy_add(tests, address_spaces_and_flushes);
    toy_add(tests, flushing_one_page_of_a_large_leaf_drops_all);
    toy_add(tests, remapped_code_is_not_run_from_the_jump_cache);
    toy_add(tests, tables_grow_and_stay_right);
    toy_add(tests, tables_stay_while_compiled_code_asks);
    toy_add(tests, block_modes_are_kept_apart);
    toy_add(tests, single_steps);
    toy_add(tests, a_closed_loop_can_be_left);
    toy_add(tests, waiting_and_interrupts);
    toy_add(tests, interrupt_reaches_a_linked_loop);
    toy_add(tests, undecodable_bytes_raise);
    toy_add(tests, unsound_blocks_are_refused);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
