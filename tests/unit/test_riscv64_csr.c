/* Control and status registers: who may access them, which bits change, what a change does. */
#include "libshared/isa/riscv64/csr.h"
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/trap.h"
#include "test_riscv64.h"
#include "tests/unit/suite.h"

static struct machine *m;

static void set_up(void)
{
    m = machine_new();
    m->cpu.csr.mtvec = RAM_BASE + 0x8000;
}

static void tear_down(void)
{
    machine_free(m);
}

/* Run `word` at CODE; true when it is an illegal instruction, reported as itself. */
static bool traps(uint32_t word)
{
    unsigned privilege = m->cpu.privilege;
    m->cpu.cpu.pc = CODE;
    m->cpu.csr.mcause = 99;
    execute(m, word);
    if (m->cpu.cpu.pc == CODE + 4) {
        return false;
    }
    ck_assert_uint_eq(m->cpu.cpu.pc, RAM_BASE + 0x8000);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_ILLEGAL);
    ck_assert_uint_eq(m->cpu.csr.mtval, word);
    ck_assert_uint_eq(m->cpu.csr.mepc, CODE);
    if (privilege != RISCV64_MACHINE) {
        enter_privilege(m, privilege);
    }
    return true;
}

static bool may_read(unsigned csr)
{
    return !traps(csr_word(CSRRS, csr, 6, 0));
}

static bool may_write(unsigned csr)
{
    return !traps(csr_word(CSRRC, csr, 6, 5));
}

/* What reads back after writing. */
static uint64_t writes(unsigned csr, uint64_t value)
{
    csr_put(m, csr, value);
    return csr_get(m, csr);
}

START_TEST(every_number_exists_or_traps)
{
    unsigned count = 0;
    m->cpu.has_aia = true;
    m->cpu.csr.siselect = 0x70;
    for (unsigned csr = 0; csr < 4096; csr++) {
        char name[24];
        bool named = riscv64_csr_name(csr, name, sizeof(name));
        m->cpu.csr.mstatus |= STATUS_FS;
        ck_assert_msg(may_read(csr) == named, "%03x", csr);
        count += named;
    }
    ck_assert_uint_eq(count, 3 + 32 + 12 + 4 + 5 + 14 + 29 + 1 + 18 + 31);
}
END_TEST

START_TEST(names_of_ranges_are_numbered)
{
    static const struct {
        unsigned csr;
        const char *name;
    } cases[] = {{0xc03, "hpmcounter3"}, {0xc1f, "hpmcounter31"},  {0x3b0, "pmpaddr0"},
                 {0x3bf, "pmpaddr15"},   {0xb10, "mhpmcounter16"}, {0x323, "mhpmevent3"},
                 {0x100, "sstatus"},     {0x3a2, "pmpcfg2"}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[24];
        ck_assert(riscv64_csr_name(cases[i].csr, name, sizeof(name)));
        ck_assert_str_eq(name, cases[i].name);
    }
    char name[24];
    ck_assert(!riscv64_csr_name(0x3a1, name, sizeof(name)));
    ck_assert(!riscv64_csr_name(4096, name, sizeof(name)));
}
END_TEST

START_TEST(privilege_is_checked)
{
    open_pmp(m);
    csr_put(m, 0x306, UINT32_MAX);
    csr_put(m, 0x106, UINT32_MAX);
    csr_put(m, 0x30a, ENVCFG_STCE);
    enter_privilege(m, RISCV64_SUPERVISOR);
    ck_assert(!may_read(0x300));
    ck_assert(!may_read(0xf14));
    ck_assert(!may_read(0x3a0));
    ck_assert(may_read(0x100));
    ck_assert(may_read(0x180));
    ck_assert(may_read(0x14d));
    ck_assert(may_read(0xc01));
    enter_privilege(m, RISCV64_USER);
    ck_assert(!may_read(0x100));
    ck_assert(!may_read(0x180));
    ck_assert(!may_read(0x14d));
    ck_assert(may_read(0xc00));
}
END_TEST

START_TEST(read_only_registers_refuse_writes)
{
    static const uint16_t numbers[] = {0xc00, 0xc01, 0xc02, 0xc03, 0xf11, 0xf14, 0xf15};
    for (unsigned i = 0; i < 7; i++) {
        ck_assert(may_read(numbers[i]));
        ck_assert(!may_write(numbers[i]));
        ck_assert(traps(csr_word(CSRRW, numbers[i], 6, 0)));
        ck_assert(traps(csr_word(CSRRSI, numbers[i], 6, 1)));
        ck_assert(!traps(csr_word(CSRRSI, numbers[i], 6, 0)));
    }
}
END_TEST

START_TEST(counters_open_privilege_by_privilege)
{
    open_pmp(m);
    for (unsigned opened = 0; opened < 4; opened++) {
        for (unsigned number = 0xc00; number < 0xc20; number++) {
            uint64_t bit = BIT64(number & 31);
            m->cpu.privilege = RISCV64_MACHINE;
            csr_put(m, 0x306, opened & 1 ? bit : ~bit);
            csr_put(m, 0x106, opened & 2 ? bit : ~bit);
            enter_privilege(m, RISCV64_SUPERVISOR);
            ck_assert(may_read(number) == ((opened & 1) != 0));
            enter_privilege(m, RISCV64_USER);
            ck_assert(may_read(number) == (opened == 3));
        }
    }
}
END_TEST

START_TEST(operations_write_set_and_clear)
{
    csr_put(m, 0x340, 0xff00);
    m->cpu.x[5] = 0x0ff0;
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRS, 0x340, 6, 5));
    ck_assert_uint_eq(m->cpu.x[6], 0xff00);
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRC, 0x340, 6, 5));
    ck_assert_uint_eq(m->cpu.x[6], 0xfff0);
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRWI, 0x340, 6, 31));
    ck_assert_uint_eq(m->cpu.x[6], 0xf000);
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRCI, 0x340, 6, 3));
    ck_assert_uint_eq(m->cpu.x[6], 31);
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRSI, 0x340, 6, 1));
    ck_assert_uint_eq(m->cpu.x[6], 28);
    ck_assert_uint_eq(csr_get(m, 0x340), 29);
    /* one register as source and destination */
    m->cpu.x[6] = 77;
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRW, 0x340, 6, 6));
    ck_assert_uint_eq(m->cpu.x[6], 29);
    ck_assert_uint_eq(csr_get(m, 0x340), 77);
}
END_TEST

START_TEST(mstatus_keeps_its_fixed_fields)
{
    uint64_t fixed = STATUS_XL_64;
    ck_assert_uint_eq(writes(0x300, 0), fixed);
    ck_assert_uint_eq(writes(0x300, UINT64_MAX), fixed | STATUS_MACHINE_WRITABLE | STATUS_SD);
    ck_assert_uint_eq(csr_get(m, 0x100), (UINT64_C(2) << 32) | STATUS_SIE | STATUS_SPIE |
                                             STATUS_SPP | STATUS_FS | STATUS_SUM | STATUS_MXR |
                                             STATUS_SD);
    csr_put(m, 0x100, 0);
    ck_assert_uint_eq(csr_get(m, 0x300), fixed | STATUS_MIE | STATUS_MPIE | STATUS_MPP |
                                             STATUS_MPRV | STATUS_TVM | STATUS_TW | STATUS_TSR);
    /* there is no privilege 2: the field keeps its value */
    ck_assert_uint_eq(writes(0x300, UINT64_C(1) << 11) & STATUS_MPP, UINT64_C(1) << 11);
    ck_assert_uint_eq(writes(0x300, UINT64_C(2) << 11) & STATUS_MPP, UINT64_C(1) << 11);
    /* SD follows FS */
    ck_assert_uint_eq(writes(0x300, UINT64_C(1) << 13) & (STATUS_FS | STATUS_SD), UINT64_C(1)
                                                                                      << 13);
    ck_assert_uint_eq(writes(0x300, STATUS_FS) & (STATUS_FS | STATUS_SD), STATUS_FS | STATUS_SD);
}
END_TEST

START_TEST(warl_fields)
{
    static const struct {
        unsigned csr;
        uint64_t written, read;
    } cases[] = {
        {0x301, 0, UINT64_C(0x800000000014112d)},
        {0x302, UINT64_MAX, 0xb3ff},
        {0x303, UINT64_MAX, 0x222},
        {0x304, UINT64_MAX, 0xaaa},
        {0x305, 0x80000001, 0x80000001},
        {0x305, 0x80000002, 0x80000001},
        {0x305, 0x90000000, 0x90000000},
        {0x306, UINT64_MAX, UINT32_MAX},
        {0x106, UINT64_MAX, UINT32_MAX},
        {0x320, UINT64_MAX, 5},
        {0x30a, UINT64_MAX, UINT64_C(0xe0000000000000f1)},
        {0x30a, 0x20, 0x30}, /* CBIE 2 is reserved: it stays 3 */
        {0x10a, UINT64_MAX, 0xf1},
        {0x341, UINT64_MAX, UINT64_MAX - 1},
        {0x141, 3, 2},
        {0x105, UINT64_MAX, UINT64_MAX - 3}, /* stvec mode 3 is reserved: it stays 0 */
        {0x342, UINT64_MAX, UINT64_MAX},
        {0x343, 0x1234567890abcdef, 0x1234567890abcdef},
        {0x747, UINT64_MAX, 0},
        {0xb03, UINT64_MAX, 0},
        {0x323, UINT64_MAX, 0},
        {0xf11, 0, 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (cases[i].csr < 0xc00) {
            csr_put(m, cases[i].csr, cases[i].written);
        }
        ck_assert_msg(csr_get(m, cases[i].csr) == cases[i].read, "%03x reads %lx", cases[i].csr,
                      csr_get(m, cases[i].csr));
    }
}
END_TEST

START_TEST(satp_takes_only_modes_it_has)
{
    uint64_t good[] = {UINT64_C(8) << 60, UINT64_C(9) << 60, UINT64_C(10) << 60, 0};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t value = good[i] | UINT64_C(0xffff) << 44 | UINT64_C(0xfffffffffff);
        ck_assert_uint_eq(writes(0x180, value), value);
        for (unsigned mode = 1; mode < 16; mode++) {
            if (mode < 8 || mode > 10) {
                ck_assert_uint_eq(writes(0x180, (uint64_t)mode << 60 | 5), value);
            }
        }
    }
}
END_TEST

/* A context switch swaps tables, and neither it nor a change of privilege flushes. */
START_TEST(satp_switches_without_flush)
{
    unsigned flushes;
    open_pmp(m);
    enter_privilege(m, RISCV64_SUPERVISOR);
    flushes = m->flushes;
    m->cpu.x[5] = UINT64_C(8) << 60 | UINT64_C(7) << 44 | (RAM_BASE >> 12);
    execute(m, csr_word(CSRRW, 0x180, 0, 5));
    ck_assert_uint_eq(m->data.root, m->cpu.x[5]);
    ck_assert_uint_eq(m->execute.root, m->cpu.x[5]);
    ck_assert_uint_eq(m->flushes, flushes);
}
END_TEST

START_TEST(tvm_guards_address_translation)
{
    open_pmp(m);
    csr_put(m, 0x300, STATUS_TVM);
    ck_assert(may_read(0x180)); /* machine mode may */
    enter_privilege(m, RISCV64_SUPERVISOR);
    ck_assert(!may_read(0x180));
    ck_assert(traps(0x12000073)); /* sfence.vma */
    ck_assert(traps(0x16000073)); /* sinval.vma */
    ck_assert(!traps(0x18000073));
    ck_assert(!traps(0x18100073));
    enter_privilege(m, RISCV64_USER);
    ck_assert(traps(0x12000073));
    ck_assert(traps(0x18000073));
    ck_assert(traps(0x18100073));
}
END_TEST

/* Some registers are changed by code alone: as the function that all others go through does it. */
static void check_inline(unsigned csr, unsigned operation, unsigned rd, unsigned rs1)
{
    uint32_t word = csr_word(operation, csr, rd, rs1);
    struct riscv64_cpu expected;
    uint64_t old;

    m->cpu.cpu.pc = CODE;
    m->cpu.x[5] = UINT64_C(0xfedcba9876543213);
    m->cpu.x[6] = UINT64_C(0x00000000000c2103);
    m->cpu.csr.mstatus = STATUS_XL_64 | STATUS_FS | STATUS_SD | STATUS_SIE | STATUS_MPP;
    m->cpu.csr.sscratch = UINT64_C(0x123456789abcdef1);
    m->cpu.csr.sepc = UINT64_C(0x123456789abcdef0);
    m->cpu.csr.scause = CAUSE_INTERRUPT | 5;
    m->cpu.csr.stval = UINT64_MAX;
    riscv64_update_modes(&m->cpu);
    expected = m->cpu;
    ck_assert(riscv64_csr_execute(&expected, word, m->cpu.x[rs1], &old));
    expected.x[rd] = rd ? old : 0;
    execute(m, word);
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
    ck_assert_mem_eq(m->cpu.x, expected.x, sizeof(m->cpu.x));
    ck_assert_mem_eq(&m->cpu.csr, &expected.csr, sizeof(m->cpu.csr));
    ck_assert_uint_eq(m->cpu.cpu.block_mode, expected.cpu.block_mode);
}

START_TEST(registers_that_code_changes_itself_are_as_the_others)
{
    static const unsigned numbers[] = {0x100, 0x140, 0x141, 0x142, 0x143};
    static const unsigned operations[] = {CSRRW, CSRRS, CSRRC, CSRRWI, CSRRSI, CSRRCI};
    static const unsigned destinations[] = {0, 5, 7}, sources[] = {0, 2, 5, 6, 31};
    open_pmp(m);
    for (unsigned privilege = RISCV64_SUPERVISOR; privilege <= RISCV64_MACHINE; privilege += 2) {
        for (unsigned i = 0; i < 5 * 6 * 3 * 5; i++) {
            enter_privilege(m, privilege);
            check_inline(numbers[i / 90], operations[i / 15 % 6], destinations[i / 5 % 3],
                         sources[i % 5]);
        }
    }
    enter_privilege(m, RISCV64_USER);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert(!may_read(numbers[i]));
    }
}
END_TEST

/* An interrupt that becomes due by an instruction of the code's own is asked for at once. */
START_TEST(enabling_interrupts_asks_for_attention)
{
    open_pmp(m);
    enter_privilege(m, RISCV64_SUPERVISOR);
    m->cpu.csr.mideleg = m->cpu.csr.mie = IRQ_SSOFT;
    m->cpu.csr.mstatus &= ~STATUS_SIE;
    m->cpu.lines = IRQ_SSOFT;
    atomic_store(&m->cpu.cpu.attention, 0);
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRCI, 0x100, 0, 2));
    ck_assert_uint_eq(atomic_load(&m->cpu.cpu.attention), 0);
    execute(m, csr_word(CSRRSI, 0x100, 0, 2));
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 8);
    ck_assert_uint_ne(atomic_load(&m->cpu.cpu.attention) & CPU_ATTENTION_INTERRUPT, 0);
    ck_assert_int_eq(m->block.ops[m->block.op_count - 1].opcode, IR_jump); /* which polls */
}
END_TEST

START_TEST(float_registers_need_the_unit_and_dirty_it)
{
    ck_assert(!may_read(0x001));
    ck_assert(!may_read(0x002));
    ck_assert(!may_read(0x003));
    csr_put(m, 0x300, UINT64_C(1) << 13);
    ck_assert_uint_eq(m->cpu.cpu.block_mode, BLOCK_MODE_SYSTEM | BLOCK_MODE_FS_CLEAN);
    ck_assert_uint_eq(csr_get(m, 0x003), 0);
    ck_assert_uint_eq(m->cpu.cpu.block_mode, BLOCK_MODE_SYSTEM | BLOCK_MODE_FS_CLEAN);
    csr_put(m, 0x003, UINT64_MAX);
    ck_assert_uint_eq(m->cpu.cpu.block_mode,
                      BLOCK_MODE_SYSTEM | BLOCK_MODE_FS_DIRTY | 7 << BLOCK_MODE_FRM_SHIFT);
    ck_assert_uint_eq(csr_get(m, 0x300) & (STATUS_FS | STATUS_SD), STATUS_FS | STATUS_SD);
    ck_assert_uint_eq(csr_get(m, 0x003), 0xff);
    ck_assert_uint_eq(writes(0x002, 2), 2);
    ck_assert_uint_eq(csr_get(m, 0x003), 0x5f);
    ck_assert_uint_eq(writes(0x001, 0x105), 5);
    ck_assert_uint_eq(csr_get(m, 0x003), 0x45);
    m->cpu.x[5] = 1;
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRC, 0x001, 0, 5));
    ck_assert_uint_eq(csr_get(m, 0x001), 4);
    m->cpu.cpu.fp_flags |= 0x10; /* as an instruction does */
    ck_assert_uint_eq(csr_get(m, 0x001), 0x14);
}
END_TEST

START_TEST(counters_count_and_stop)
{
    csr_put(m, 0xb02, 1000);
    /* the write itself does not count; the read sees what came before it */
    ck_assert_uint_eq(csr_get(m, 0xc02), 1000);
    ck_assert_uint_eq(csr_get(m, 0xb02), 1001);
    csr_put(m, 0xb00, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0xc00), UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0xc00), 0);
    csr_put(m, 0x320, 5);
    uint64_t cycle = csr_get(m, 0xb00), instret = csr_get(m, 0xb02);
    ck_assert_uint_eq(csr_get(m, 0xc00), cycle);
    ck_assert_uint_eq(csr_get(m, 0xc02), instret);
    csr_put(m, 0xb02, 5);
    ck_assert_uint_eq(csr_get(m, 0xb02), 5);
    csr_put(m, 0x320, 0);
    ck_assert_uint_eq(csr_get(m, 0xb02), 5);
    ck_assert_uint_eq(csr_get(m, 0xb02), 6);
    ck_assert_uint_eq(csr_get(m, 0xb00), cycle + 2);
    m->time = 123456;
    ck_assert_uint_eq(csr_get(m, 0xc01), 123456);
}
END_TEST

START_TEST(delegation_filters_sie_and_sip)
{
    csr_put(m, 0x304, 0xaaa);
    ck_assert_uint_eq(csr_get(m, 0x104), 0);
    csr_put(m, 0x303, 0x202);
    ck_assert_uint_eq(csr_get(m, 0x104), 0x202);
    csr_put(m, 0x104, 0);
    ck_assert_uint_eq(csr_get(m, 0x304), 0x8a8);
    csr_put(m, 0x104, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0x304), 0xaaa);
    /* of sip only SSIP is writable, and only when delegated */
    csr_put(m, 0x144, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0x344), 2);
    csr_put(m, 0x144, 0);
    ck_assert_uint_eq(csr_get(m, 0x344), 0);
    csr_put(m, 0x303, 0);
    csr_put(m, 0x144, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0x344), 0);
}
END_TEST

START_TEST(mip_joins_software_and_lines)
{
    csr_put(m, 0x344, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0x344), 0x222); /* machine bits come from outside only */
    csr_put(m, 0x344, 0);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_MEXT, true);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SEXT, true);
    ck_assert_uint_eq(csr_get(m, 0x344), 0xa00);
    /* a set instruction does not copy the line into software's own SEIP */
    m->cpu.x[5] = 2;
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRS, 0x344, 6, 5));
    ck_assert_uint_eq(m->cpu.x[6], 0xa00);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SEXT, false);
    ck_assert_uint_eq(csr_get(m, 0x344), 0x802);
    /* an inter-processor interrupt raised outside is cleared by the guest */
    csr_put(m, 0x344, 0);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SSOFT, true);
    ck_assert_uint_eq(csr_get(m, 0x344) & 2, 2);
    csr_put(m, 0x344, 0);
    ck_assert_uint_eq(csr_get(m, 0x344) & 2, 0);
}
END_TEST

START_TEST(stimecmp_drives_stip)
{
    m->time = 1000;
    csr_put(m, 0x30a, ENVCFG_STCE);
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, 0);
    csr_put(m, 0x14d, 1000);
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, IRQ_STIMER);
    ck_assert_uint_eq(m->deadline, 1000);
    csr_put(m, 0x344, 0); /* read-only now */
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, IRQ_STIMER);
    csr_put(m, 0x14d, 1001);
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, 0);
    ck_assert_uint_eq(m->deadline, 1001);
    csr_put(m, 0x344, IRQ_STIMER);
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, 0);
    /* without Sstc the bit is software's */
    riscv64_set_line(&m->cpu, RISCV64_IRQ_STIMER, true);
    csr_put(m, 0x30a, 0);
    ck_assert_uint_eq(m->deadline, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, 0);
    csr_put(m, 0x344, IRQ_STIMER);
    ck_assert_uint_eq(csr_get(m, 0x344) & IRQ_STIMER, IRQ_STIMER);
}
END_TEST

START_TEST(stimecmp_access_needs_sstc_and_time)
{
    open_pmp(m);
    for (unsigned i = 0; i < 4; i++) {
        m->cpu.privilege = RISCV64_MACHINE;
        csr_put(m, 0x30a, i & 1 ? ENVCFG_STCE : 0);
        csr_put(m, 0x306, i & 2 ? COUNTER_TIME : 0);
        ck_assert(may_read(0x14d));
        enter_privilege(m, RISCV64_SUPERVISOR);
        ck_assert(may_read(0x14d) == (i == 3));
    }
}
END_TEST

START_TEST(pmp_registers_have_a_page_grain)
{
    /* as firmware finds the grain: off, all ones, lowest bit set */
    csr_put(m, 0x3a0, 0);
    ck_assert_uint_eq(writes(0x3b0, UINT64_MAX), (BIT64(54) - 1) & ~UINT64_C(0x3ff));
    csr_put(m, 0x3a0, PMP_MODE_NAPOT);
    ck_assert_uint_eq(csr_get(m, 0x3b0), BIT64(54) - 1);
    ck_assert_uint_eq(writes(0x3b0, 0x20000000), 0x200001ff);
    csr_put(m, 0x3a0, PMP_MODE_TOR);
    ck_assert_uint_eq(csr_get(m, 0x3b0), 0x20000000);
    /* NA4 is finer than the grain; write-only is reserved */
    ck_assert_uint_eq(writes(0x3a0, PMP_MODE_NA4 | PMP_READ), PMP_MODE_TOR | PMP_READ);
    ck_assert_uint_eq(writes(0x3a0, PMP_MODE_TOR | PMP_WRITE), PMP_MODE_TOR);
    ck_assert_uint_eq(writes(0x3a0, 0x60), 0);
    /* locks hold: the entry, its address, and the bottom of a locked range */
    csr_put(m, 0x3b1, 0x1000);
    csr_put(m, 0x3b2, 0x2000);
    csr_put(m, 0x3a0, (uint64_t)(PMP_LOCKED | PMP_MODE_TOR | PMP_READ) << 16);
    csr_put(m, 0x3b1, 0);
    csr_put(m, 0x3b2, 0);
    ck_assert_uint_eq(csr_get(m, 0x3b1), 0x1000);
    ck_assert_uint_eq(csr_get(m, 0x3b2), 0x2000);
    ck_assert_uint_eq(writes(0x3a0, UINT64_MAX) >> 16 & 0xff, PMP_LOCKED | PMP_MODE_TOR | PMP_READ);
}
END_TEST

START_TEST(pmp_entries_match_in_order)
{
    unsigned all = PMP_ALL;
    /* nothing set: only machine mode gets through */
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE, RISCV64_SUPERVISOR), 0);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE, RISCV64_MACHINE), all);
    csr_put(m, 0x3b0, (RAM_BASE >> 2) | 0x1ff);  /* one page */
    csr_put(m, 0x3b1, (RAM_BASE + 0x4000) >> 2); /* range bottom */
    csr_put(m, 0x3b2, (RAM_BASE + 0x6000) >> 2); /* range top */
    csr_put(m, 0x3b3, BIT64(54) - 1);            /* everything */
    csr_put(m, 0x3a0,
            (uint64_t)(PMP_MODE_NAPOT) | (uint64_t)(PMP_MODE_TOR | PMP_READ) << 16 |
                (uint64_t)(PMP_MODE_NAPOT | PMP_READ | PMP_EXECUTE) << 24);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0xfff, RISCV64_USER), 0);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0xfff, RISCV64_MACHINE), all);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0x1000, RISCV64_USER), 5);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0x3fff, RISCV64_USER), 5);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0x4000, RISCV64_USER), 1);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0x5fff, RISCV64_USER), 1);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE + 0x6000, RISCV64_USER), 5);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, 0, RISCV64_USER), 5);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, BIT64(56) - 1, RISCV64_USER), 5);
    /* a lock binds machine mode too */
    csr_put(m, 0x3a0, PMP_LOCKED | PMP_MODE_NAPOT | PMP_READ);
    ck_assert_uint_eq(riscv64_pmp_permissions(&m->cpu, RAM_BASE, RISCV64_MACHINE), PMP_READ);
}
END_TEST

START_TEST(pmp_changes_flush)
{
    unsigned flushes = m->flushes;
    csr_put(m, 0x3b0, 0x1000);
    ck_assert_uint_eq(m->flushes, flushes + 1);
    ck_assert(m->flush_any_root && m->flush_any_page);
    csr_put(m, 0x3b0, 0x1000); /* no change, no flush */
    ck_assert_uint_eq(m->flushes, flushes + 1);
    csr_put(m, 0x3a0, PMP_MODE_NAPOT);
    ck_assert_uint_eq(m->flushes, flushes + 2);
    csr_put(m, 0x30a, 0); /* ADUE and PBMTE off */
    ck_assert_uint_eq(m->flushes, flushes + 3);
}
END_TEST

START_TEST(cache_block_instructions_are_enabled_by_mode)
{
    static const struct {
        uint32_t word;
        uint64_t bit;
    } cases[] = {
        {0x0005a00f, ENVCFG_CBIE_FLUSH},
        {0x0015a00f, ENVCFG_CBCFE},
        {0x0025a00f, ENVCFG_CBCFE},
        {0x0045a00f, ENVCFG_CBZE},
    };
    open_pmp(m);
    m->cpu.x[11] = RAM_BASE + 0x4000;
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned opened = 0; opened < 4; opened++) {
            m->cpu.privilege = RISCV64_MACHINE;
            csr_put(m, 0x30a, opened & 1 ? cases[i].bit : 0);
            csr_put(m, 0x10a, opened & 2 ? cases[i].bit : 0);
            ck_assert(!traps(cases[i].word));
            enter_privilege(m, RISCV64_SUPERVISOR);
            ck_assert(traps(cases[i].word) == !(opened & 1));
            enter_privilege(m, RISCV64_USER);
            ck_assert(traps(cases[i].word) == (opened != 3));
        }
    }
}
END_TEST

START_TEST(cache_block_zero_clears_its_block)
{
    memset(ram(m, RAM_BASE + 0x4000, 192), 0xaa, 192);
    m->cpu.x[11] = RAM_BASE + 0x4000 + 64 + 17;
    m->cpu.cpu.pc = CODE;
    execute(m, 0x0045a00f);
    for (unsigned i = 0; i < 192; i += 8) {
        ck_assert_uint_eq(get64(m, RAM_BASE + 0x4000 + i),
                          i >= 64 && i < 128 ? 0 : UINT64_C(0xaaaaaaaaaaaaaaaa));
    }
}
END_TEST

START_TEST(peek_needs_no_privilege)
{
    uint64_t value;
    m->cpu.privilege = RISCV64_USER;
    m->cpu.csr.mscratch = 42;
    ck_assert(riscv64_csr_peek(&m->cpu, 0x340, &value));
    ck_assert_uint_eq(value, 42);
    ck_assert(!riscv64_csr_peek(&m->cpu, 0x3a1, &value));
    ck_assert(!riscv64_csr_peek(&m->cpu, 5000, &value));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 csr");
    TCase *csr = tcase_create("csr");
    tcase_add_checked_fixture(csr, set_up, tear_down);
    tcase_add_test(csr, every_number_exists_or_traps);
    tcase_add_test(csr, names_of_ranges_are_numbered);
    tcase_add_test(csr, privilege_is_checked);
    tcase_add_test(csr, read_only_registers_refuse_writes);
    tcase_add_test(csr, counters_open_privilege_by_privilege);
    tcase_add_test(csr, operations_write_set_and_clear);
    tcase_add_test(csr, mstatus_keeps_its_fixed_fields);
    tcase_add_test(csr, warl_fields);
    tcase_add_test(csr, satp_takes_only_modes_it_has);
    tcase_add_test(csr, satp_switches_without_flush);
    tcase_add_test(csr, tvm_guards_address_translation);
    tcase_add_test(csr, float_registers_need_the_unit_and_dirty_it);
    tcase_add_test(csr, registers_that_code_changes_itself_are_as_the_others);
    tcase_add_test(csr, enabling_interrupts_asks_for_attention);
    tcase_add_test(csr, counters_count_and_stop);
    tcase_add_test(csr, delegation_filters_sie_and_sip);
    tcase_add_test(csr, mip_joins_software_and_lines);
    tcase_add_test(csr, stimecmp_drives_stip);
    tcase_add_test(csr, stimecmp_access_needs_sstc_and_time);
    tcase_add_test(csr, pmp_registers_have_a_page_grain);
    tcase_add_test(csr, pmp_entries_match_in_order);
    tcase_add_test(csr, pmp_changes_flush);
    tcase_add_test(csr, cache_block_instructions_are_enabled_by_mode);
    tcase_add_test(csr, cache_block_zero_clears_its_block);
    tcase_add_test(csr, peek_needs_no_privilege);
    suite_add_tcase(suite, csr);
    return suite_run(suite);
}
