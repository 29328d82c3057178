/* Several CPUs: atomics, reservations, remote flushes. */
#include "tests/unit/engine_toy.h"
#include "tests/unit/suite.h"

#define SIZE64      3u
#define CONSTRAINED IR_MEM_CONSTRAINED

/* Each CPU has its code in its own page. */
static struct toy_cpu *begin_cpu(unsigned index)
{
    struct toy_cpu *cpu = toy_of(toy.cpus[index]);
    toy.next_code = TOY_RAM_BASE + 0x1000 * index;
    cpu->cpu.pc = toy.next_code;
    return cpu;
}

static void emit_countdown(unsigned counter, uint64_t loop)
{
    toy_emit(toy_addi(counter, counter, -1));
    toy_emit(toy_branch_imm(IR_NE, counter, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
}

START_TEST(atomic_adds)
{
    toy_start(4, _i);
    for (unsigned i = 0; i < 4; i++) {
        struct toy_cpu *cpu = begin_cpu(i);
        cpu->x[1] = 20000;
        cpu->x[2] = 1;
        cpu->x[6] = TOY_RAM_BASE + 0x8000;
        uint64_t loop = toy_emit(
            toy_op(IR_amo, SIZE64 | IR_AMO_ADD << IR_MEM_AMO_SHIFT | IR_MEM_ALIGN, 3, 6, 2, 0));
        emit_countdown(1, loop);
    }
    toy_run_all();
    ck_assert_uint_eq(*(uint64_t *)toy_ram(TOY_RAM_BASE + 0x8000), 80000);
    toy_finish();
}
END_TEST

/* Increments by LR/SC; also by plain read-modify-write of a neighbour, to disturb. */
static void reserved_adds(int tier, unsigned lr_flags, unsigned count)
{
    toy_start(4, tier);
    for (unsigned i = 0; i < 4; i++) {
        struct toy_cpu *cpu = begin_cpu(i);
        cpu->x[1] = count;
        cpu->x[6] = TOY_RAM_BASE + 0x8000;
        uint64_t loop = toy_emit(toy_op(IR_lr, SIZE64 | lr_flags, 2, 6, TOY_NONE, 0));
        toy_emit(toy_addi(2, 2, 1));
        toy_emit(toy_op(IR_sc, SIZE64, 3, 6, 2, 0));
        toy_emit(toy_branch_imm(IR_NE, 3, 0, (int32_t)(loop - toy.next_code)));
        toy_emit(toy_store(SIZE64, 6, 1, 64 + 8 * (int)i));
        emit_countdown(1, loop);
    }
    toy_run_all();
    ck_assert_uint_eq(*(uint64_t *)toy_ram(TOY_RAM_BASE + 0x8000), 4 * count);
    toy_finish();
}

START_TEST(reserved_adds_constrained)
{
    reserved_adds(_i, CONSTRAINED, 5000);
}
END_TEST

START_TEST(reserved_adds_watched)
{
    reserved_adds(_i, 0, 2000);
}
END_TEST

/* CPU 1 stores B, A, and a version, over and over. CPU 0 reserves, reads the version, dawdles,
 * reads it again: when it moved by two or more, a whole B-A lay in between, and the
 * store-conditional must have failed. */
START_TEST(reservation_notices_aba)
{
    toy_start(2, _i);
    const uint64_t cell = TOY_RAM_BASE + 0x8000, version = TOY_RAM_BASE + 0x9000;
    struct toy_cpu *writer = begin_cpu(1);
    writer->x[6] = cell;
    writer->x[7] = version;
    writer->x[2] = 1;
    uint64_t loop = toy_emit(toy_store(SIZE64, 6, 2, 0));
    toy_emit(toy_store(SIZE64, 6, 3, 0));
    toy_emit(toy_addi(4, 4, 1));
    toy_emit(toy_store(SIZE64, 7, 4, 0));
    toy_emit(toy_load(SIZE64, 5, 7, 64)); /* stop flag */
    toy_emit(toy_branch_imm(IR_EQ, 5, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());

    struct toy_cpu *reader = begin_cpu(0);
    reader->x[1] = 3000;
    reader->x[6] = cell;
    reader->x[7] = version;
    reader->x[15] = 1;
    loop = toy_emit(toy_op(IR_lr, SIZE64, 2, 6, TOY_NONE, 0));
    toy_emit(toy_load(SIZE64, 3, 7, 0));
    toy_emit(toy_li(9, 20));
    uint64_t dawdle = toy_emit(toy_addi(9, 9, -1));
    toy_emit(toy_branch_imm(IR_NE, 9, 0, (int32_t)(dawdle - toy.next_code)));
    toy_emit(toy_load(SIZE64, 4, 7, 0));
    toy_emit(toy_op(IR_sc, SIZE64, 5, 6, 2, 0));
    toy_emit(toy_op(IR_sub, 0, 4, 4, 3, 0));
    toy_emit(toy_op(IR_setcc, IR_GEU, 4, 4, TOY_IMM, 2)); /* moved */
    toy_emit(toy_op(IR_add, 0, 11, 11, 4, 0));
    toy_emit(toy_op(IR_xor, 0, 5, 5, TOY_IMM, 1)); /* stored */
    toy_emit(toy_op(IR_add, 0, 12, 12, 5, 0));
    toy_emit(toy_op(IR_and, 0, 4, 4, 5, 0));
    toy_emit(toy_op(IR_add, 0, 10, 10, 4, 0)); /* wrong */
    toy_emit(toy_addi(1, 1, -1));
    toy_emit(toy_branch_imm(IR_NE, 1, 0, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_store(SIZE64, 7, 15, 64));
    toy_emit(toy_halt());
    toy_run_all();
    ck_assert_uint_eq(reader->x[10], 0);
    toy_finish();
}
END_TEST

START_TEST(reservation_rules_on_one_cpu)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = begin_cpu(0);
    cpu->x[6] = TOY_RAM_BASE + 0x8000;
    cpu->x[7] = TOY_RAM_BASE + 0xa000;
    cpu->x[1] = 5;
    for (unsigned kind = 0; kind < 2; kind++) {
        unsigned flags = SIZE64 | (kind ? CONSTRAINED : 0);
        int d = kind ? 8 : 0;
        toy_emit(toy_op(IR_sc, SIZE64, 2, 6, 1, 0)); /* nothing reserved */
        toy_emit(toy_op(IR_lr, flags, 3, 6, TOY_NONE, d));
        toy_emit(toy_op(IR_sc, SIZE64, 4, 7, 1, d)); /* another place */
        toy_emit(toy_op(IR_sc, SIZE64, 5, 6, 1, d)); /* lost by that */
        toy_emit(toy_op(IR_lr, flags, 3, 6, TOY_NONE, d));
        toy_emit(toy_op(IR_sc, SIZE64, 8, 6, 1, d));
        toy_emit(toy_op(IR_sc, SIZE64, 9, 6, 1, d)); /* used up */
        toy_emit(toy_load(SIZE64, 10, 6, d));
        toy_emit(toy_halt());
        toy_run(toy.next_code - 9 * 16);
        ck_assert_uint_eq(cpu->x[2], 1);
        ck_assert_uint_eq(cpu->x[3], 0);
        ck_assert_uint_eq(cpu->x[4], 1);
        ck_assert_uint_eq(cpu->x[5], 1);
        ck_assert_uint_eq(cpu->x[8], 0);
        ck_assert_uint_eq(cpu->x[9], 1);
        ck_assert_uint_eq(cpu->x[10], 5);
    }
    ck_assert_uint_eq(*(uint64_t *)toy_ram(TOY_RAM_BASE + 0xa000), 0);
    /* misaligned, and on a device */
    cpu->x[6] = TOY_RAM_BASE + 0x8004;
    toy_emit(toy_op(IR_lr, SIZE64, 3, 6, TOY_NONE, 0));
    toy_run(toy.next_code - 16);
    ck_assert_uint_eq(cpu->trap_cause, TOY_MISALIGNED);
    cpu->x[6] = TOY_DEVICE;
    for (unsigned kind = 0; kind < 3; kind++) {
        const struct toy_insn insns[] = {
            toy_op(IR_lr, SIZE64, 3, 6, TOY_NONE, 0),
            toy_op(IR_lr, SIZE64 | CONSTRAINED, 3, 6, TOY_NONE, 0),
            toy_op(IR_amo, SIZE64, 3, 6, 2, 0),
        };
        toy_emit(insns[kind]);
        cpu->trap_cause = 0;
        toy_run(toy.next_code - 16);
        ck_assert_uint_eq(cpu->trap_cause, TOY_ACCESS_FAULT);
    }
    toy_finish();
}
END_TEST

START_TEST(forgotten_reservation_does_not_slow_its_page_for_ever)
{
    toy_start(1, _i);
    struct toy_cpu *cpu = begin_cpu(0);
    cpu->x[6] = TOY_RAM_BASE + 0x8000;
    cpu->x[1] = 10000;
    toy_emit(toy_op(IR_lr, SIZE64, 3, 6, TOY_NONE, 0));
    uint64_t loop = toy_emit(toy_store(SIZE64, 6, 1, 128));
    emit_countdown(1, loop);
    toy_run(TOY_RAM_BASE);
    struct engine_stats stats;
    engine_stats(toy.engine, &stats);
    ck_assert_uint_gt(stats.slow_accesses, 0);
    ck_assert_uint_lt(stats.slow_accesses, 400);
    toy_finish();
}
END_TEST

/* Every CPU flushes all others, as fast as it can; some through firmware, some while waiting. */
START_TEST(flush_storm)
{
    toy_start(4, _i);
    for (unsigned i = 0; i < 4; i++) {
        struct toy_cpu *cpu = begin_cpu(i);
        cpu->x[1] = 2000;
        cpu->x[2] = 0xf;
        cpu->x[6] = TOY_RAM_BASE + 0x8000 + 8 * i;
        uint64_t loop = toy_emit(toy_load(SIZE64, 3, 6, 0));
        toy_emit(toy_addi(3, 3, 1));
        toy_emit(toy_store(SIZE64, 6, 3, 0));
        toy_emit(i & 1 ? toy_call_helper(TOY_FIRMWARE, TOY_NONE, TOY_NONE, TOY_NONE, 0)
                       : toy_call_helper(TOY_REMOTE_FLUSH, TOY_NONE, 2, 6, 0));
        toy_emit(toy_load(SIZE64, 4, 6, 0));
        toy_emit(toy_call_helper(TOY_REMOTE_BARRIER, TOY_NONE, 2, TOY_NONE, 0));
        emit_countdown(1, loop);
    }
    toy_run_all();
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(*(uint64_t *)toy_ram(TOY_RAM_BASE + 0x8000 + 8 * i), 2000);
    }
    toy_finish();
}
END_TEST

/* CPU 0 moves a page to frames that hold growing numbers, flushes everywhere, then publishes the
 * number: nobody may read a smaller one after that. */
START_TEST(nobody_uses_a_flushed_translation)
{
    toy_start(3, _i);
    const uint64_t frames = TOY_RAM_BASE + 0x20000, published = TOY_RAM_BASE + 0x9000;
    toy_map(5, TOY_RAM_BASE, TOY_RAM_BASE, 0x10000, 7);
    toy_map(5, 0x5000, frames, 4096, 3);
    unsigned mapping = atomic_load(&toy.mapping_count) - 1;
    for (unsigned i = 0; i < 3; i++) {
        struct toy_cpu *cpu = toy_of(toy.cpus[i]);
        cpu->root = 5;
        toy_switch(&cpu->cpu);
    }
    for (int32_t i = 0; i < 100; i++) {
        *(uint64_t *)toy_ram(frames + (uint64_t)i * 0x1000) = (uint64_t)i;
    }
    struct toy_cpu *mover = begin_cpu(0);
    mover->x[2] = mapping;
    mover->x[3] = frames;
    mover->x[4] = 7;
    mover->x[5] = 0x5000;
    mover->x[7] = published;
    uint64_t loop = toy_emit(toy_addi(1, 1, 1));
    toy_emit(toy_addi(3, 3, 4096));
    toy_emit(toy_call_helper(TOY_REMAP, TOY_NONE, 2, 3, 0));
    toy_emit(toy_call_helper(TOY_REMOTE_FLUSH, TOY_NONE, 4, 5, 0));
    toy_emit(toy_store(SIZE64, 7, 1, 0));
    toy_emit(toy_branch_imm(IR_NE, 1, 99, (int32_t)(loop - toy.next_code)));
    toy_emit(toy_halt());
    for (unsigned i = 1; i < 3; i++) {
        struct toy_cpu *cpu = begin_cpu(i);
        cpu->x[5] = 0x5000;
        cpu->x[7] = published;
        loop = toy_emit(toy_load(SIZE64, 1, 7, 0));
        toy_emit(toy_load(SIZE64, 2, 5, 0));
        toy_emit(toy_op(IR_setcc, IR_LTU, 3, 2, 1, 0));
        toy_emit(toy_op(IR_add, 0, 6, 6, 3, 0));
        toy_emit(toy_branch_imm(IR_NE, 1, 99, (int32_t)(loop - toy.next_code)));
        toy_emit(toy_halt());
    }
    toy_run_all();
    for (unsigned i = 1; i < 3; i++) {
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[6], 0);
        ck_assert_uint_eq(toy_of(toy.cpus[i])->x[2], 99);
    }
    toy_finish();
}
END_TEST

/* Waiting and stopped CPUs must not hold up a flush. */
START_TEST(sleepers_are_not_waited_for)
{
    toy_start(3, _i);
    struct toy_cpu *sleeper = begin_cpu(1);
    toy_emit(toy_call_helper(TOY_WAIT, TOY_NONE, TOY_NONE, TOY_NONE, 0));
    toy_emit(toy_jump(-16));
    sleeper->irq_handler = toy_emit(toy_halt());
    struct toy_cpu *busy = begin_cpu(0);
    busy->x[1] = 200;
    busy->x[2] = 7;
    uint64_t loop = toy_emit(toy_call_helper(TOY_REMOTE_FLUSH, TOY_NONE, 2, TOY_NONE, 0));
    emit_countdown(1, loop);
    pthread_t thread;
    pthread_create(&thread, NULL, toy_thread, &sleeper->cpu);
    toy_run(TOY_RAM_BASE); /* CPU 2 never runs at all */
    ck_assert_uint_eq(busy->x[1], 0);
    atomic_store(&sleeper->line, 1);
    engine_kick(&sleeper->cpu, CPU_ATTENTION_INTERRUPT);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(sleeper->irqs, 1);
    toy_finish();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine: several CPUs");
    TCase *tests = tcase_create("smp");
    tcase_set_timeout(tests, 120);
    toy_add(tests, atomic_adds);
    toy_add(tests, reserved_adds_constrained);
    toy_add(tests, reserved_adds_watched);
    toy_add(tests, reservation_notices_aba);
    toy_add(tests, reservation_rules_on_one_cpu);
    toy_add(tests, forgotten_reservation_does_not_slow_its_page_for_ever);
    toy_add(tests, flush_storm);
    toy_add(tests, nobody_uses_a_flushed_translation);
    toy_add(tests, sleepers_are_not_waited_for);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
