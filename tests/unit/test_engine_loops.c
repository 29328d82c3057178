/* Blocks that branch to their own start, whose registers stay where they are: every way out of them
 * must leave the state that the guest has. */
#include "engine_toy.h"
#include "tests/unit/suite.h"

#define SIZE64 3
#define DATA   (TOY_RAM_BASE + 0x8000)
#define CODE   (TOY_RAM_BASE + 0x1000)

static struct toy_insn back_to(uint64_t loop, unsigned condition, unsigned a, unsigned b)
{
    return toy_branch(condition, a, b, (int32_t)(loop - toy.next_code));
}

static void check_count(uint64_t before, uint64_t rounds, uint64_t each)
{
    ck_assert_uint_eq(toy.cpus[0]->retired - before, rounds * each + 1);
}

/* Three values that change places each round, and one that is only read. */
START_TEST(values_change_places)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_op(IR_mov, 0, 4, TOY_NONE, 1, 0));
    toy_emit(toy_op(IR_mov, 0, 1, TOY_NONE, 2, 0));
    toy_emit(toy_op(IR_mov, 0, 2, TOY_NONE, 3, 0));
    toy_emit(toy_op(IR_add, 0, 3, 4, 5, 0));
    toy_emit(toy_addi(6, 6, -1));
    toy_emit(back_to(loop, IR_NE, 6, 7));
    toy_emit(toy_halt());
    for (unsigned rounds = 1; rounds < 12; rounds++) {
        uint64_t x1 = 100, x2 = 200, x3 = 300, x4 = 0;
        cpu->x[1] = x1;
        cpu->x[2] = x2;
        cpu->x[3] = x3;
        cpu->x[5] = 1000;
        cpu->x[6] = rounds;
        for (unsigned i = 0; i < rounds; i++) {
            x4 = x1;
            x1 = x2;
            x2 = x3;
            x3 = x4 + 1000;
        }
        uint64_t before = cpu->cpu.retired;
        toy_run(CODE);
        ck_assert_uint_eq(cpu->x[1], x1);
        ck_assert_uint_eq(cpu->x[2], x2);
        ck_assert_uint_eq(cpu->x[3], x3);
        ck_assert_uint_eq(cpu->x[4], x4);
        ck_assert_uint_eq(cpu->x[5], 1000);
        ck_assert_uint_eq(cpu->x[6], 0);
        check_count(before, rounds, 6);
    }
    toy_finish();
}
END_TEST

/* More values than there are registers. */
START_TEST(many_values)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(15, 15, -1));
    for (unsigned i = 1; i < 14; i++) {
        toy_emit(toy_op(IR_add, 0, i, i, i + 1 < 14 ? i + 1 : 1, 0));
    }
    toy_emit(back_to(loop, IR_NE, 15, 0));
    toy_emit(toy_halt());
    uint64_t x[16] = {0};
    for (unsigned i = 1; i < 14; i++) {
        cpu->x[i] = x[i] = i;
    }
    cpu->x[15] = 9;
    for (unsigned round = 0; round < 9; round++) {
        for (unsigned i = 1; i < 14; i++) {
            x[i] += x[i + 1 < 14 ? i + 1 : 1];
        }
    }
    uint64_t before = cpu->cpu.retired;
    toy_run(CODE);
    for (unsigned i = 1; i < 14; i++) {
        ck_assert_uint_eq(cpu->x[i], x[i]);
    }
    check_count(before, 9, 15);
    toy_finish();
}
END_TEST

/* Loads and stores walk through pages, so each page is missed in the middle of a round; the last
 * one is not there, and the fault finds what the rounds before have done. */
START_TEST(misses_and_faults_in_the_middle)
{
    const unsigned pages = 5;
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy_map(5, CODE, CODE, 4096, 5);
    toy_map(5, 0x100000, DATA, pages * 0x1000, 3);
    cpu->root = 5;
    toy_switch(&cpu->cpu);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_load(SIZE64, 3, 1, 0));
    toy_emit(toy_op(IR_add, 0, 4, 4, 3, 0));
    toy_emit(toy_store(SIZE64, 1, 2, 0));
    toy_emit(toy_addi(1, 1, 256));
    toy_emit(toy_addi(5, 5, 3));
    toy_emit(back_to(loop, IR_LTU, 1, 7));
    toy_emit(toy_halt());
    for (unsigned i = 0; i < pages * 16; i++) {
        *(uint64_t *)toy_ram(DATA + i * 256) = i;
    }
    cpu->x[1] = 0x100000;
    cpu->x[7] = UINT64_MAX;
    uint64_t before = cpu->cpu.retired, rounds = pages * 16;
    toy_run(CODE);
    ck_assert_uint_eq(cpu->traps, 1);
    ck_assert_uint_eq(cpu->trap_value, 0x100000 + pages * 0x1000);
    ck_assert_uint_eq(cpu->trap_pc, CODE + 16);
    ck_assert_uint_eq(cpu->trap_retired - before, rounds * 7 + 1);
    ck_assert_uint_eq(cpu->x[1], 0x100000 + pages * 0x1000);
    ck_assert_uint_eq(cpu->x[2], rounds + 1);
    ck_assert_uint_eq(cpu->x[4], rounds * (rounds - 1) / 2);
    ck_assert_uint_eq(cpu->x[5], rounds * 3);
    ck_assert_uint_eq(*(uint64_t *)toy_ram(DATA + 0x1100), 18);
    toy_finish();
}
END_TEST

/* A loop that nothing ends is left with its state, as often as asked. */
START_TEST(attention_finds_the_state)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_addi(2, 2, 2));
    toy_emit(toy_op(IR_add, 0, 3, 1, 2, 0));
    toy_emit(back_to(loop, IR_NE, 1, 4));
    toy_emit(toy_halt());
    cpu->cpu.pc = CODE;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t before = cpu->x[1];
        pthread_t thread;
        atomic_store(&cpu->cpu.attention, 0);
        pthread_create(&thread, NULL, toy_thread, &cpu->cpu);
        usleep(500);
        engine_kick(&cpu->cpu, CPU_ATTENTION_STOP);
        pthread_join(thread, NULL);
        ck_assert_uint_ge(cpu->x[1], before);
        ck_assert_uint_eq(cpu->x[2], cpu->x[1] * 2);
        ck_assert_uint_eq(cpu->x[3], cpu->x[1] * 3);
        ck_assert_uint_eq(cpu->cpu.pc, CODE);
        ck_assert_uint_eq(cpu->cpu.retired, cpu->x[1] * 4);
    }
    toy_finish();
}
END_TEST

/* The loop's own code changes under it: x9 rounds with one step, then a store sets another. */
START_TEST(a_loop_overwrites_itself)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1)); /* its immediate is what is stored to */
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(toy_store(2, 8, 2, 0));
    toy_emit(back_to(loop, IR_NE, 2, 9));
    toy_emit(toy_halt());
    cpu->x[8] = CODE + 8;
    cpu->x[9] = 10;
    toy_run(CODE);
    ck_assert_uint_eq(cpu->x[2], 10);
    ck_assert_uint_eq(cpu->x[1], 1 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9);
    toy_finish();
}
END_TEST

/* Another CPU stops a loop by patching its branch's operand, and the loop sees it at its barrier.
 */
START_TEST(other_cpus_patch_a_loop)
{
    toy_start(2, _i);
    struct toy_cpu *looper = toy_of(toy.cpus[0]), *patcher = toy_of(toy.cpus[1]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 0)); /* until this adds something */
    toy_emit(toy_addi(2, 2, 1));
    toy_emit(back_to(loop, IR_EQ, 1, 3));
    toy_emit(toy_halt());
    looper->cpu.pc = CODE;
    patcher->cpu.pc = toy.next_code = CODE + 0x1000;
    patcher->x[4] = CODE + 8;
    patcher->x[5] = 7;
    patcher->x[6] = 1; /* CPU 0 */
    patcher->x[7] = 20000;
    uint64_t wait = toy_emit(toy_addi(7, 7, -1));
    toy_emit(back_to(wait, IR_NE, 7, 3));
    toy_emit(toy_store(2, 4, 5, 0));
    toy_emit(toy_call_helper(TOY_REMOTE_BARRIER, TOY_NONE, 6, TOY_NONE, 0));
    toy_emit(toy_halt());
    toy_run_all();
    ck_assert_uint_eq(looper->x[1], 7);
    ck_assert_uint_ge(looper->x[2], 1);
    ck_assert_uint_eq(patcher->x[7], 0);
    toy_finish();
}
END_TEST

/* What only the interpreter does, in a loop. */
START_TEST(loops_that_call_out)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_call_helper(TOY_RETIRED, 2, TOY_NONE, TOY_NONE, 0));
    toy_emit(toy_op(IR_sub, 0, 4, 2, 3, 0));
    toy_emit(toy_op(IR_mov, 0, 3, TOY_NONE, 2, 0));
    toy_emit(back_to(loop, IR_NE, 1, 5));
    toy_emit(toy_halt());
    cpu->x[5] = 10;
    toy_run(CODE);
    ck_assert_uint_eq(cpu->x[1], 10);
    ck_assert_uint_eq(cpu->x[4], 5);
    ck_assert_uint_eq(cpu->x[2], 9 * 5 + 1);
    toy_finish();
}
END_TEST

/* Floating-point values stay in memory, beside integers that do not. */
START_TEST(loops_of_numbers)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = toy_of(toy.cpus[0]);
    toy.next_code = CODE;
    uint64_t loop = toy_emit(toy_op(IR_fadd, 0, TOY_F(0), TOY_F(0), TOY_F(1), 0));
    toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_op(IR_fadd, 0, TOY_F(2), TOY_F(0), TOY_F(2), 0));
    toy_emit(back_to(loop, IR_NE, 1, 2));
    toy_emit(toy_halt());
    double one = 1, sum, total;
    memcpy(&cpu->f[1], &one, sizeof(one));
    cpu->x[2] = 50;
    toy_run(CODE);
    memcpy(&sum, &cpu->f[0], sizeof(sum));
    memcpy(&total, &cpu->f[2], sizeof(total));
    ck_assert_double_eq(sum, 50);
    ck_assert_double_eq(total, 50 * 51 / 2);
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: loops");
    TCase *tests = tcase_create("loops");
    tcase_set_timeout(tests, 120);
    toy_add(tests, values_change_places);
    toy_add(tests, many_values);
    toy_add(tests, misses_and_faults_in_the_middle);
    toy_add(tests, attention_finds_the_state);
    toy_add(tests, a_loop_overwrites_itself);
    toy_add(tests, other_cpus_patch_a_loop);
    toy_add(tests, loops_that_call_out);
    toy_add(tests, loops_of_numbers);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
