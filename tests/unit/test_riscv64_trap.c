/* Traps: what software finds on entry, what return restores, which interrupt comes first. */
#include "test_riscv64.h"
#include "tests/unit/suite.h"

#define MTVEC (RAM_BASE + 0x8000)
#define STVEC (RAM_BASE + 0x9000)

static struct machine *m;

static void set_up(void)
{
    m = machine_new();
    open_pmp(m);
    m->cpu.csr.mtvec = MTVEC;
    m->cpu.csr.stvec = STVEC;
    m->cpu.cpu.pc = CODE;
}

static void tear_down(void)
{
    machine_free(m);
}

static uint64_t status(void)
{
    return m->cpu.csr.mstatus;
}

START_TEST(machine_trap_entry)
{
    csr_put(m, 0x300, STATUS_MIE);
    enter_privilege(m, RISCV64_USER);
    m->cpu.csr.mstatus |= STATUS_MIE;
    m->cpu.cpu.pc = CODE + 0x10;
    execute(m, ECALL);
    ck_assert_uint_eq(m->cpu.privilege, RISCV64_MACHINE);
    ck_assert_uint_eq(m->cpu.cpu.pc, MTVEC);
    ck_assert_uint_eq(m->cpu.csr.mepc, CODE + 0x10);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_USER_CALL);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0);
    ck_assert(!(status() & STATUS_MIE));
    ck_assert(status() & STATUS_MPIE);
    ck_assert_uint_eq(status() & STATUS_MPP, 0);
    ck_assert_uint_eq(m->cpu.cpu.exception, 0);
}
END_TEST

START_TEST(calls_name_their_privilege)
{
    static const uint8_t privileges[] = {RISCV64_USER, RISCV64_SUPERVISOR, RISCV64_MACHINE};
    static const uint8_t causes[] = {CAUSE_USER_CALL, CAUSE_SUPERVISOR_CALL, CAUSE_MACHINE_CALL};
    for (unsigned i = 0; i < 3; i++) {
        enter_privilege(m, privileges[i]);
        execute(m, ECALL);
        ck_assert_uint_eq(m->cpu.csr.mcause, causes[i]);
        ck_assert_uint_eq((status() & STATUS_MPP) >> STATUS_MPP_SHIFT, privileges[i]);
    }
}
END_TEST

START_TEST(delegated_trap_entry)
{
    for (unsigned from = 0; from < 2; from++) { /* user, supervisor */
        csr_put(m, 0x302, BIT64(CAUSE_BREAKPOINT));
        csr_put(m, 0x300, STATUS_SIE);
        enter_privilege(m, from);
        m->cpu.cpu.pc = CODE + 0x20;
        execute(m, EBREAK);
        ck_assert_uint_eq(m->cpu.privilege, RISCV64_SUPERVISOR);
        ck_assert_uint_eq(m->cpu.cpu.pc, STVEC);
        ck_assert_uint_eq(m->cpu.csr.sepc, CODE + 0x20);
        ck_assert_uint_eq(m->cpu.csr.scause, CAUSE_BREAKPOINT);
        ck_assert_uint_eq(m->cpu.csr.stval, CODE + 0x20);
        ck_assert(!(status() & STATUS_SIE));
        ck_assert(status() & STATUS_SPIE);
        ck_assert_uint_eq((status() & STATUS_SPP) != 0, from);
        m->cpu.privilege = RISCV64_MACHINE;
    }
    /* not from machine mode */
    m->cpu.cpu.pc = CODE;
    execute(m, EBREAK);
    ck_assert_uint_eq(m->cpu.privilege, RISCV64_MACHINE);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_BREAKPOINT);
}
END_TEST

START_TEST(mret_restores)
{
    for (unsigned previous = 0; previous < 4; previous += previous ? 2 : 1) { /* U, S, M */
        m->cpu.privilege = RISCV64_MACHINE;
        m->cpu.csr.mepc = CODE + 0x40;
        m->cpu.csr.mstatus =
            STATUS_XL_64 | STATUS_MPIE | STATUS_MPRV | (uint64_t)previous << STATUS_MPP_SHIFT;
        m->cpu.cpu.pc = CODE;
        execute(m, MRET);
        ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 0x40);
        ck_assert_uint_eq(m->cpu.privilege, previous);
        ck_assert(status() & STATUS_MIE);
        ck_assert(status() & STATUS_MPIE);
        ck_assert_uint_eq(status() & STATUS_MPP, 0);
        ck_assert_uint_eq((status() & STATUS_MPRV) != 0, previous == RISCV64_MACHINE);
    }
}
END_TEST

START_TEST(sret_restores)
{
    for (unsigned previous = 0; previous < 2; previous++) {
        m->cpu.privilege = RISCV64_SUPERVISOR;
        m->cpu.csr.sepc = CODE + 0x40;
        m->cpu.csr.mstatus = STATUS_XL_64 | STATUS_SIE | STATUS_MPRV | (previous ? STATUS_SPP : 0);
        m->cpu.cpu.pc = CODE;
        execute(m, SRET);
        ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 0x40);
        ck_assert_uint_eq(m->cpu.privilege, previous);
        ck_assert(!(status() & STATUS_SIE)); /* SPIE was clear */
        ck_assert(status() & STATUS_SPIE);
        ck_assert(!(status() & (STATUS_SPP | STATUS_MPRV)));
    }
}
END_TEST

/* The instruction traps as illegal when `bit` of mstatus is set; machine mode is exempt. */
static void check_trap_bit(uint32_t word, uint64_t bit)
{
    for (unsigned privilege = RISCV64_SUPERVISOR; privilege <= RISCV64_MACHINE; privilege += 2) {
        for (unsigned set = 0; set < 2; set++) {
            m->cpu.privilege = RISCV64_MACHINE;
            m->cpu.csr.mcause = 0;
            csr_put(m, 0x300, set ? bit : 0);
            enter_privilege(m, privilege);
            execute(m, word);
            ck_assert_uint_eq(m->cpu.csr.mcause == CAUSE_ILLEGAL,
                              set && privilege == RISCV64_SUPERVISOR);
            ck_assert(!m->cpu.csr.mcause || m->cpu.csr.mtval == word);
        }
    }
    enter_privilege(m, RISCV64_USER);
    m->cpu.csr.mcause = 0;
    execute(m, word);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_ILLEGAL);
    m->cpu.privilege = RISCV64_MACHINE;
}

START_TEST(trap_bits)
{
    check_trap_bit(SRET, STATUS_TSR);
    check_trap_bit(WFI, STATUS_TW);
    check_trap_bit(0x12000073, STATUS_TVM);
    enter_privilege(m, RISCV64_SUPERVISOR);
    execute(m, MRET);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_ILLEGAL);
    ck_assert_uint_eq(m->cpu.csr.mtval, MRET);
}
END_TEST

START_TEST(wfi_waits_after_itself)
{
    m->cpu.cpu.waiting = 0;
    execute(m, WFI);
    ck_assert_uint_eq(m->cpu.cpu.waiting, 1);
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
    /* it ends for any enabled interrupt, even one that is globally off or delegated */
    ck_assert(!isa_riscv64.interrupt_pending(&m->cpu.cpu, true));
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SSOFT, true);
    ck_assert(!isa_riscv64.interrupt_pending(&m->cpu.cpu, true));
    m->cpu.csr.mie = IRQ_SSOFT;
    ck_assert(isa_riscv64.interrupt_pending(&m->cpu.cpu, true));
    ck_assert(!isa_riscv64.interrupt_pending(&m->cpu.cpu, false));
}
END_TEST

START_TEST(interrupt_priority)
{
    static const uint8_t order[] = {11, 3, 7, 9, 1, 5};
    m->cpu.csr.mie = IRQ_ALL;
    m->cpu.csr.menvcfg |= ENVCFG_STCE;
    m->cpu.csr.stimecmp = 0;
    for (unsigned i = 0; i < 6; i++) {
        riscv64_set_line(&m->cpu, (enum riscv64_interrupt)order[i], true);
    }
    for (unsigned i = 0; i < 6; i++) {
        m->cpu.privilege = RISCV64_MACHINE;
        m->cpu.csr.mstatus |= STATUS_MIE;
        m->cpu.cpu.pc = CODE + 4;
        ck_assert(isa_riscv64.interrupt_pending(&m->cpu.cpu, false));
        isa_riscv64.deliver_interrupt(&m->cpu.cpu);
        ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_INTERRUPT | order[i]);
        ck_assert_uint_eq(m->cpu.csr.mepc, CODE + 4);
        ck_assert_uint_eq(m->cpu.csr.mtval, 0);
        ck_assert_uint_eq(m->cpu.cpu.pc, MTVEC);
        m->cpu.csr.mie &= ~BIT64(order[i]);
    }
    ck_assert(!isa_riscv64.interrupt_pending(&m->cpu.cpu, false));
    isa_riscv64.deliver_interrupt(&m->cpu.cpu); /* none left: nothing happens */
    ck_assert_uint_eq(m->cpu.cpu.pc, MTVEC);
}
END_TEST

/* Every combination of privilege, delegation and global enables. */
START_TEST(interrupt_enabling)
{
    for (unsigned i = 0; i < 3 * 8; i++) {
        unsigned privilege = i % 3 == 2 ? RISCV64_MACHINE : i % 3;
        bool delegated = i / 3 & 1, mie = i / 6 & 1, sie = i / 12 & 1;
        bool to_supervisor = delegated && privilege != RISCV64_MACHINE;
        bool expected = delegated
                            ? privilege == RISCV64_USER || (privilege == RISCV64_SUPERVISOR && sie)
                            : privilege != RISCV64_MACHINE || mie;
        m->cpu.privilege = (uint8_t)privilege;
        m->cpu.csr.mideleg = delegated ? IRQ_SEXT : 0;
        m->cpu.csr.mstatus = STATUS_XL_64 | (mie ? STATUS_MIE : 0) | (sie ? STATUS_SIE : 0);
        m->cpu.csr.mie = IRQ_SEXT;
        m->cpu.csr.software_mip = IRQ_SEXT;
        m->cpu.cpu.pc = CODE;
        ck_assert_msg(isa_riscv64.interrupt_pending(&m->cpu.cpu, false) == expected, "case %u", i);
        isa_riscv64.deliver_interrupt(&m->cpu.cpu);
        if (expected) {
            ck_assert_uint_eq(m->cpu.privilege,
                              to_supervisor ? RISCV64_SUPERVISOR : RISCV64_MACHINE);
            ck_assert_uint_eq(to_supervisor ? m->cpu.csr.scause : m->cpu.csr.mcause,
                              CAUSE_INTERRUPT | 9);
        } else {
            ck_assert_uint_eq(m->cpu.cpu.pc, CODE);
        }
    }
}
END_TEST

START_TEST(machine_interrupts_come_before_delegated)
{
    m->cpu.privilege = RISCV64_USER;
    m->cpu.csr.mideleg = IRQ_SUPERVISOR;
    m->cpu.csr.mie = IRQ_SEXT | IRQ_MTIMER;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SEXT, true);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_MTIMER, true);
    isa_riscv64.deliver_interrupt(&m->cpu.cpu);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_INTERRUPT | 7);
}
END_TEST

START_TEST(vectored_handlers)
{
    csr_put(m, 0x305, MTVEC | 1);
    csr_put(m, 0x105, STVEC | 1);
    csr_put(m, 0x303, IRQ_SUPERVISOR);
    m->cpu.csr.mie = IRQ_MTIMER | IRQ_SEXT;
    m->cpu.csr.mstatus |= STATUS_MIE;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_MTIMER, true);
    isa_riscv64.deliver_interrupt(&m->cpu.cpu);
    ck_assert_uint_eq(m->cpu.cpu.pc, MTVEC + 4 * 7);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_MTIMER, false);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SEXT, true);
    m->cpu.privilege = RISCV64_USER;
    isa_riscv64.deliver_interrupt(&m->cpu.cpu);
    ck_assert_uint_eq(m->cpu.cpu.pc, STVEC + 4 * 9);
    enter_privilege(m, RISCV64_MACHINE);
    execute(m, EBREAK); /* exceptions go to the base */
    ck_assert_uint_eq(m->cpu.cpu.pc, MTVEC);
}
END_TEST

/* Attention is asked for when a line rises, and when software enables what is pending. */
START_TEST(attention_is_asked_for)
{
    _Atomic uint32_t *attention = &m->cpu.cpu.attention;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_MEXT, true);
    ck_assert(*attention & CPU_ATTENTION_INTERRUPT);
    *attention = 0;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_MEXT, true); /* no edge */
    ck_assert_uint_eq(*attention, 0);
    csr_put(m, 0x304, IRQ_MEXT);
    ck_assert_uint_eq(*attention, 0);
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRSI, 0x300, 0, 8));
    ck_assert(*attention & CPU_ATTENTION_INTERRUPT);
    /* the last block has ended, so the interrupt comes at once */
    ck_assert_uint_eq(m->block.insn_count, 1);
    step(m, 1);
    ck_assert_uint_eq(m->cpu.csr.mepc, CODE + 4);
    /* and when a return enables it */
    *attention = 0;
    m->cpu.cpu.pc = CODE;
    execute(m, MRET);
    ck_assert(*attention & CPU_ATTENTION_INTERRUPT);
}
END_TEST

/* A timer thread that fires for an old deadline does not make an interrupt. */
START_TEST(stale_timer_is_no_interrupt)
{
    csr_put(m, 0x30a, ENVCFG_STCE);
    csr_put(m, 0x303, IRQ_SUPERVISOR);
    csr_put(m, 0x304, IRQ_STIMER);
    m->time = 100;
    csr_put(m, 0x14d, 200);
    m->cpu.privilege = RISCV64_USER;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_STIMER, true);
    m->timer_changes = 0;
    ck_assert(!isa_riscv64.interrupt_pending(&m->cpu.cpu, false));
    ck_assert_uint_eq(m->timer_changes, 1); /* armed anew */
    ck_assert_uint_eq(m->deadline, 200);
    m->time = 200;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_STIMER, true);
    ck_assert(isa_riscv64.interrupt_pending(&m->cpu.cpu, false));
    isa_riscv64.deliver_interrupt(&m->cpu.cpu);
    ck_assert_uint_eq(m->cpu.csr.scause, CAUSE_INTERRUPT | 5);
}
END_TEST

START_TEST(illegal_instructions_report_their_bits)
{
    m->cpu.cpu.pc = CODE;
    execute(m, 0xffff9002 & 0xffff0000); /* the half 0000 */
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_ILLEGAL);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0);
    m->cpu.cpu.pc = CODE;
    execute(m, 0x12348000); /* reserved half, whatever follows */
    ck_assert_uint_eq(m->cpu.csr.mtval, 0x8000);
    m->cpu.cpu.pc = CODE;
    execute(m, 0xdeadbeef | 0x7f);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0xdeadbeff);
    /* with the FP unit off */
    m->cpu.cpu.pc = CODE;
    execute(m, 0x2188);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0x2188);
}
END_TEST

/* Instructions before a fault count, the faulting one does not. */
START_TEST(faults_are_precise)
{
    uint64_t retired = m->cpu.cpu.retired;
    m->cpu.cpu.pc = CODE;
    m->cpu.x[10] = 1;
    m->cpu.x[11] = 0x10;            /* nothing there */
    put32(m, CODE, 0x00150513);     /* addi a0, a0, 1 */
    put32(m, CODE + 4, 0x0005b503); /* ld a0, 0(a1) */
    put32(m, CODE + 8, 0x00150513);
    step(m, 3);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_LOAD_ACCESS);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0x10);
    ck_assert_uint_eq(m->cpu.csr.mepc, CODE + 4);
    ck_assert_uint_eq(m->cpu.x[10], 2);
    ck_assert_uint_eq(m->cpu.cpu.retired, retired + 1);
    m->cpu.cpu.pc = CODE;
    execute(m, 0x00a5b023); /* sd */
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_STORE_ACCESS);
}
END_TEST

START_TEST(firmware_answers_supervisor_calls)
{
    csr_put(m, 0x302, 0);
    m->firmware_answers = true;
    enter_privilege(m, RISCV64_SUPERVISOR);
    execute(m, ECALL);
    ck_assert_uint_eq(m->firmware_calls, 1);
    ck_assert_uint_eq(m->firmware_pc, CODE + 4);
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
    ck_assert_uint_eq(m->cpu.privilege, RISCV64_SUPERVISOR);
    /* not a user's, not a delegated one, not one that it does not know */
    enter_privilege(m, RISCV64_USER);
    execute(m, ECALL);
    ck_assert_uint_eq(m->firmware_calls, 1);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_USER_CALL);
    m->firmware_answers = false;
    enter_privilege(m, RISCV64_SUPERVISOR);
    execute(m, ECALL);
    ck_assert_uint_eq(m->firmware_calls, 2);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_SUPERVISOR_CALL);
    ck_assert_uint_eq(m->cpu.csr.mepc, CODE);
    csr_put(m, 0x302, BIT64(CAUSE_SUPERVISOR_CALL));
    enter_privilege(m, RISCV64_SUPERVISOR);
    execute(m, ECALL);
    ck_assert_uint_eq(m->firmware_calls, 2);
    ck_assert_uint_eq(m->cpu.csr.scause, CAUSE_SUPERVISOR_CALL);
}
END_TEST

START_TEST(fences_reach_the_host)
{
    m->cpu.x[10] = 0x1234567;
    m->cpu.x[11] = 0xabcd1234;
    m->cpu.cpu.pc = CODE;
    execute(m, 0x0000100f);
    ck_assert_uint_eq(m->barriers, 1);
    m->cpu.cpu.pc = CODE;
    execute(m, 0x12000073); /* sfence.vma */
    ck_assert(m->flush_any_root && m->flush_any_page);
    m->cpu.cpu.pc = CODE;
    execute(m, 0x12050073); /* sfence.vma a0 */
    ck_assert(m->flush_any_root && !m->flush_any_page);
    ck_assert_uint_eq(m->flush_va, 0x1234567);
    m->cpu.cpu.pc = CODE;
    execute(m, 0x12b00073); /* sfence.vma zero, a1 */
    ck_assert(!m->flush_any_root && m->flush_any_page);
    ck_assert_uint_eq(m->flush_root, UINT64_C(0x1234) << 44);
    ck_assert_uint_eq(m->flush_root_mask, UINT64_C(0xffff) << 44);
    m->cpu.cpu.pc = CODE;
    execute(m, 0x16b50073); /* sinval.vma a0, a1 */
    ck_assert(!m->flush_any_root && !m->flush_any_page);
    ck_assert_uint_eq(m->flush_va, 0x1234567);
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
}
END_TEST

START_TEST(boot_states)
{
    struct machine *other = machine_new();
    riscv64_boot(&other->cpu, RISCV64_MACHINE, 0x1000, 3, 0x8200000);
    ck_assert_uint_eq(other->cpu.privilege, RISCV64_MACHINE);
    ck_assert_uint_eq(other->cpu.cpu.pc, 0x1000);
    ck_assert_uint_eq(other->cpu.x[10], 3);
    ck_assert_uint_eq(other->cpu.x[11], 0x8200000);
    ck_assert_uint_eq(other->cpu.hart_id, 3);
    ck_assert_uint_eq(other->data.root, 0);
    ck_assert_uint_eq(other->data.flags, RISCV64_MACHINE);
    isa_riscv64.reset(&other->cpu.cpu);
    riscv64_boot(&other->cpu, RISCV64_SUPERVISOR, CODE, 0, 0);
    ck_assert_uint_eq(other->data.flags, RISCV64_SUPERVISOR);
    ck_assert_uint_eq(other->cpu.csr.satp, 0);
    /* it can use memory, counters and timer, and gets its own exceptions */
    other->cpu.csr.stvec = STVEC;
    execute(other, csr_word(CSRRS, 0xc01, 6, 0));
    ck_assert_uint_eq(other->cpu.cpu.pc, CODE + 4);
    execute(other, csr_word(CSRRW, 0x14d, 6, 0));
    ck_assert_uint_eq(other->cpu.cpu.pc, CODE + 8);
    execute(other, 0xffffffff);
    ck_assert_uint_eq(other->cpu.cpu.pc, STVEC);
    ck_assert_uint_eq(other->cpu.csr.scause, CAUSE_ILLEGAL);
    machine_free(other);
}
END_TEST

START_TEST(reset_keeps_what_is_the_engines)
{
    m->cpu.cpu.retired = 777;
    m->cpu.cpu.engine = m;
    atomic_store(&m->cpu.lines, IRQ_MEXT);
    m->switches = 0;
    isa_riscv64.reset(&m->cpu.cpu);
    ck_assert_ptr_eq(m->cpu.cpu.engine, m);
    ck_assert_ptr_eq(m->cpu.cpu.host, &test_host);
    ck_assert_uint_eq(m->cpu.cpu.retired, 777);
    ck_assert_uint_eq(m->switches, 1); /* the engine learns the first modes */
    m->cpu.cpu.pc = CODE;
    execute(m, csr_word(CSRRS, 0xc02, 6, 0));
    ck_assert_uint_eq(m->cpu.x[6], 0); /* the guest's count starts anew */
    ck_assert_uint_eq(m->cpu.csr.mstatus, STATUS_XL_64);
}
END_TEST

START_TEST(isa_string_matches_its_list)
{
    const char *const *names = riscv64_isa_extensions(false);
    char text[256] = "rv64";
    for (unsigned i = 0; names[i]; i++) {
        strcat(text, i < 6 ? "" : "_");
        strcat(text, names[i]);
    }
    ck_assert_str_eq(text, riscv64_isa_string(false));
    ck_assert_str_eq(riscv64_register_name(0), "zero");
    ck_assert_str_eq(riscv64_register_name(31), "t6");
    ck_assert_str_eq(riscv64_float_register_name(10), "fa0");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 trap");
    TCase *trap = tcase_create("trap");
    tcase_add_checked_fixture(trap, set_up, tear_down);
    tcase_add_test(trap, machine_trap_entry);
    tcase_add_test(trap, calls_name_their_privilege);
    tcase_add_test(trap, delegated_trap_entry);
    tcase_add_test(trap, mret_restores);
    tcase_add_test(trap, sret_restores);
    tcase_add_test(trap, trap_bits);
    tcase_add_test(trap, wfi_waits_after_itself);
    tcase_add_test(trap, interrupt_priority);
    tcase_add_test(trap, interrupt_enabling);
    tcase_add_test(trap, machine_interrupts_come_before_delegated);
    tcase_add_test(trap, vectored_handlers);
    tcase_add_test(trap, attention_is_asked_for);
    tcase_add_test(trap, stale_timer_is_no_interrupt);
    tcase_add_test(trap, illegal_instructions_report_their_bits);
    tcase_add_test(trap, faults_are_precise);
    tcase_add_test(trap, firmware_answers_supervisor_calls);
    tcase_add_test(trap, fences_reach_the_host);
    tcase_add_test(trap, boot_states);
    tcase_add_test(trap, reset_keeps_what_is_the_engines);
    tcase_add_test(trap, isa_string_matches_its_list);
    suite_add_tcase(suite, trap);
    return suite_run(suite);
}
