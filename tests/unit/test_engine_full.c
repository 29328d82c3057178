/* Blocks that found no room for compiled code, among others that did. */
#include "tests/unit/engine_toy.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/engine/baseline/baseline.h"
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/baseline/host.h"
#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/stats.h"

#define SIZE64 3u

static void take_all_code_memory(void)
{
    struct code_memory *memory = baseline_memory(toy.engine->baseline);
    struct code_span span;
    for (uint32_t size = 1u << 20; size >= CODE_MEMORY_ALIGN; size /= 2) {
        while (code_memory_allocate(memory, size, &span)) {
        }
    }
}

/* Compiled code goes straight into the interpreted block: it must be known which one runs. */
START_TEST(faults_are_precise_without_room)
{
    if (!engine_tier_available(ENGINE_BASELINE)) {
        return;
    }
    toy_start(1, ENGINE_BASELINE);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    const uint64_t target = TOY_RAM_BASE + 0x1100; /* unlike the other block in its page */
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_jump_register(1));
    toy.next_code = TOY_RAM_BASE + 0x2000;
    toy_emit(toy_halt());
    toy.next_code = target;
    toy_emit(toy_addi(3, 3, 1));
    toy_emit(toy_addi(3, 3, 1));
    uint64_t at = toy_emit(toy_load(SIZE64, 4, 5, 8));
    toy_emit(toy_addi(3, 3, 1));
    toy_emit(toy_halt());

    cpu->x[1] = TOY_RAM_BASE + 0x2000;
    toy_run(TOY_RAM_BASE);
    take_all_code_memory();
    cpu->x[1] = target;
    cpu->x[5] = TOY_RAM_BASE + 0x8000;
    for (unsigned i = 0; i < 3; i++) {
        toy_run(TOY_RAM_BASE);
    }
    struct block *block = jump_find(&cpu->cpu, target);
    ck_assert_ptr_nonnull(block);
    ck_assert_ptr_null(block->compiled.execute);

    cpu->x[3] = 0;
    cpu->x[5] = 0x4000; /* no such memory */
    cpu->cpu.retired = 0;
    toy_run(TOY_RAM_BASE);
    ck_assert_uint_eq(cpu->trap_cause, TOY_ACCESS_FAULT);
    ck_assert_uint_eq(cpu->trap_value, 0x4008);
    ck_assert_uint_eq(cpu->trap_pc, at);
    ck_assert_uint_eq(cpu->trap_retired, 4);
    ck_assert_uint_eq(cpu->x[3], 2);
    toy_finish();
}
END_TEST

START_TEST(jumps_reach_all_code)
{
    if (!engine_tier_available(ENGINE_BASELINE)) {
        return;
    }
    toy_start(1, ENGINE_BASELINE);
    uint64_t limit = code_memory_limit(baseline_memory(toy.engine->baseline));
    ck_assert_uint_le(limit, ENGINE_CODE_BYTES_MAX);
#if HAS_BASELINE
    ck_assert_uint_le(limit, HOST_CODE_BYTES_MAX);
#endif
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: no room for code");
    TCase *tests = tcase_create("full");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, faults_are_precise_without_room);
    tcase_add_test(tests, jumps_reach_all_code);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
