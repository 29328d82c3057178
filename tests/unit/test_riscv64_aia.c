/* Ssaia: the interrupt file's registers bit by bit, claims, priorities, stopi, and messages that
 * come from other threads. */
#include "libshared/isa/riscv64/csr.h"
#include "libshared/isa/riscv64/trap.h"
#include "test_riscv64.h"
#include "tests/unit/suite.h"
#include <pthread.h>
#include <sched.h>

enum { SISELECT = 0x150, SIREG = 0x151, STOPEI = 0x15c, STOPI = 0xdb0, SIE = 0x104, SIP = 0x144 };
enum { EIDELIVERY = 0x70, EITHRESHOLD = 0x72, EIP0 = 0x80, EIE0 = 0xc0 };
#define LAST RISCV64_IMSIC_IDENTITIES

static struct machine *m;

static void set_up(void)
{
    m = machine_new();
    m->cpu.has_aia = true;
    m->cpu.csr.mtvec = RAM_BASE + 0x8000;
    m->cpu.csr.mideleg = IRQ_SUPERVISOR;
}

static void tear_down(void)
{
    machine_free(m);
}

static bool refused(uint32_t word)
{
    uint64_t old;
    return !riscv64_csr_execute(&m->cpu, word, 0, &old);
}

static void put_register(unsigned select, uint64_t value)
{
    csr_put(m, SISELECT, select);
    csr_put(m, SIREG, value);
}

static uint64_t get_register(unsigned select)
{
    csr_put(m, SISELECT, select);
    return csr_get(m, SIREG);
}

/* Pending bits as sent by devices. */
static bool send(unsigned identity)
{
    return riscv64_message(&m->cpu, identity);
}

static void enable_all(void)
{
    for (unsigned word = 0; word < RISCV64_IMSIC_WORDS; word++) {
        put_register(EIE0 + 2 * word, UINT64_MAX);
    }
    put_register(EIDELIVERY, 1);
}

/* csrrw rd, stopei, x0: what a handler does. */
static uint64_t claim(void)
{
    uint64_t old = 99;
    ck_assert(riscv64_csr_execute(&m->cpu, csr_word(CSRRW, STOPEI, 6, 0), 0, &old));
    return old;
}

static uint64_t top(unsigned identity)
{
    return (uint64_t)identity << 16 | identity;
}

START_TEST(without_an_aia_the_registers_do_not_exist)
{
    static const uint16_t numbers[] = {SISELECT, SIREG, STOPEI, STOPI};
    for (unsigned i = 0; i < 4; i++) {
        m->cpu.csr.siselect = EIDELIVERY;
        m->cpu.has_aia = true;
        ck_assert(!refused(csr_word(CSRRS, numbers[i], 6, 0)));
        m->cpu.has_aia = false;
        ck_assert(refused(csr_word(CSRRS, numbers[i], 6, 0)));
    }
    m->cpu.has_aia = true;
    ck_assert(refused(csr_word(CSRRW, STOPI, 6, 5))); /* read-only */
    ck_assert(refused(csr_word(CSRRS, 0x114, 6, 0))); /* sieh, siph: RV32 has them */
    ck_assert(refused(csr_word(CSRRS, 0x154, 6, 0)));
    ck_assert(refused(csr_word(CSRRS, 0x350, 6, 0))); /* there is no machine level of it */
    m->cpu.privilege = RISCV64_USER;
    for (unsigned i = 0; i < 4; i++) {
        ck_assert(refused(csr_word(CSRRS, numbers[i], 6, 0)));
    }
}
END_TEST

START_TEST(siselect_holds_nine_bits)
{
    csr_put(m, SISELECT, UINT64_MAX);
    ck_assert_uint_eq(csr_get(m, SISELECT), 0x1ff);
    for (unsigned bit = 0; bit < 64; bit++) {
        csr_put(m, SISELECT, UINT64_C(1) << bit);
        ck_assert_uint_eq(csr_get(m, SISELECT), bit < 9 ? 1u << bit : 0);
    }
}
END_TEST

START_TEST(sireg_exists_where_the_specification_has_it)
{
    for (unsigned select = 0; select <= 0x1ff; select++) {
        bool priorities = select >= 0x30 && select <= 0x3f && select % 2 == 0;
        bool array = select >= 0x80 && select <= 0xff;
        bool file = (select >= 0x70 && select < 0x80) || (array && select % 2 == 0);
        csr_put(m, SISELECT, select);
        ck_assert_msg(refused(csr_word(CSRRS, SIREG, 6, 0)) == !(priorities || file), "%x", select);
        ck_assert_msg(refused(csr_word(CSRRW, SIREG, 0, 5)) == !(priorities || file), "%x", select);
    }
}
END_TEST

START_TEST(registers_without_a_meaning_read_as_zero)
{
    static const uint8_t selects[] = {0x30, 0x32, 0x3e, 0x71, 0x73, 0x7f, 0xbe, 0xfe};
    for (unsigned i = 0; i < sizeof(selects); i++) {
        put_register(selects[i], UINT64_MAX);
        ck_assert_uint_eq(get_register(selects[i]), 0);
    }
    /* Nothing behind them changed, either. */
    ck_assert_uint_eq(get_register(EIDELIVERY), 0);
    ck_assert_uint_eq(get_register(EITHRESHOLD), 0);
    ck_assert_uint_eq(riscv64_imsic_top(&m->cpu.imsic), 0);
}
END_TEST

START_TEST(eidelivery_is_zero_or_one)
{
    static const uint64_t illegal[] = {2, 3, 0x40000000, 0x40000001, UINT64_MAX, 1ull << 32};
    ck_assert_uint_eq(get_register(EIDELIVERY), 0);
    for (unsigned before = 0; before < 2; before++) {
        put_register(EIDELIVERY, before);
        for (unsigned i = 0; i < 6; i++) {
            /* No other controller delivers to this hart, so 0x40000000 is not supported. */
            put_register(EIDELIVERY, illegal[i]);
            ck_assert_uint_eq(get_register(EIDELIVERY), before);
        }
    }
    enable_all();
    send(7);
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, IRQ_SEXT);
    put_register(EIDELIVERY, 0);
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, 0);
    ck_assert_uint_eq(csr_get(m, STOPEI), top(7)); /* delivery is not what it shows */
    ck_assert(!send(8));                           /* nobody is to be told */
    put_register(EIDELIVERY, 1);
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, IRQ_SEXT);
    ck_assert_uint_eq(claim(), top(7));
    ck_assert_uint_eq(claim(), top(8));
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, 0);
}
END_TEST

START_TEST(eithreshold_holds_every_identity)
{
    for (unsigned value = 0; value <= LAST; value++) {
        put_register(EITHRESHOLD, value);
        ck_assert_uint_eq(get_register(EITHRESHOLD), value);
    }
    put_register(EITHRESHOLD, ~(uint64_t)LAST); /* bits that it does not have */
    ck_assert_uint_eq(get_register(EITHRESHOLD), 0);
}
END_TEST

START_TEST(eithreshold_hides_itself_and_what_is_less_urgent)
{
    enable_all();
    send(5);
    for (unsigned threshold = 0; threshold <= LAST; threshold++) {
        bool seen = threshold == 0 || threshold > 5;
        put_register(EITHRESHOLD, threshold);
        ck_assert_uint_eq(csr_get(m, STOPEI), seen ? top(5) : 0);
        ck_assert_uint_eq((csr_get(m, SIP) & IRQ_SEXT) != 0, seen);
    }
    put_register(EITHRESHOLD, 5);
    ck_assert_uint_eq(claim(), 0); /* claims nothing */
    ck_assert_uint_eq(get_register(EIP0), UINT64_C(1) << 5);
    ck_assert(!send(6));
    ck_assert(send(4));
    ck_assert_uint_eq(csr_get(m, STOPEI), top(4));
}
END_TEST

START_TEST(each_pending_and_enable_bit)
{
    for (unsigned word = 0; word < 32; word++) { /* eip0, eip2, ... eip62 */
        for (unsigned bit = 0; bit < 64; bit++) {
            unsigned identity = word * 64 + bit;
            uint64_t one = UINT64_C(1) << bit;
            uint64_t stays = identity != 0 && identity <= LAST ? one : 0;
            put_register(EIP0 + 2 * word, one);
            ck_assert_uint_eq(get_register(EIP0 + 2 * word), stays);
            put_register(EIE0 + 2 * word, one);
            ck_assert_uint_eq(get_register(EIE0 + 2 * word), stays);
            ck_assert_uint_eq(csr_get(m, STOPEI), stays ? top(identity) : 0);
            put_register(EIE0 + 2 * word, 0);
            ck_assert_uint_eq(csr_get(m, STOPEI), 0);
            put_register(EIP0 + 2 * word, 0);
            ck_assert_uint_eq(get_register(EIP0 + 2 * word), 0);
        }
    }
}
END_TEST

START_TEST(set_and_clear_leave_the_other_bits)
{
    put_register(EIE0, 0xf0);
    m->cpu.x[5] = 0x3c;
    execute(m, csr_word(CSRRS, SIREG, 6, 5));
    ck_assert_uint_eq(m->cpu.x[6], 0xf0);
    ck_assert_uint_eq(get_register(EIE0), 0xfc);
    m->cpu.x[5] = 0x3c;
    execute(m, csr_word(CSRRC, SIREG, 6, 5));
    ck_assert_uint_eq(get_register(EIE0), 0xc0);
    execute(m, csr_word(CSRRSI, SIREG, 6, 3));
    ck_assert_uint_eq(get_register(EIE0), 0xc2); /* bit 0 is no identity */
    put_register(EIP0, 0x10);
    send(9);
    m->cpu.x[5] = 0x10;
    execute(m, csr_word(CSRRC, SIREG, 6, 5));
    ck_assert_uint_eq(get_register(EIP0), 0x200);
}
END_TEST

START_TEST(low_numbers_come_first_and_are_claimed_once)
{
    static const uint8_t sent[] = {200, 64, 63, 1, 255, 128};
    static const uint8_t order[] = {1, 63, 64, 128, 200, 255};
    enable_all();
    for (unsigned i = 0; i < sizeof(sent); i++) {
        ck_assert(send(sent[i]));
        ck_assert(!send(sent[i])); /* the hart knows already */
    }
    for (unsigned i = 0; i < sizeof(order); i++) {
        ck_assert_uint_eq(csr_get(m, STOPEI), top(order[i])); /* looking claims nothing */
        ck_assert_uint_eq(claim(), top(order[i]));
    }
    ck_assert_uint_eq(claim(), 0);
    ck_assert(!send(0));
    ck_assert(!send(LAST + 1));
    ck_assert(!riscv64_message(&m->cpu, UINT64_C(1) << 32 | 1));
    ck_assert_uint_eq(csr_get(m, STOPEI), 0);
}
END_TEST

START_TEST(any_write_claims_what_it_read)
{
    static const uint32_t functions[] = {CSRRW, CSRRS, CSRRC};
    enable_all();
    m->cpu.x[5] = UINT64_MAX; /* the value does not matter */
    for (unsigned i = 0; i < 3; i++) {
        send(20 + i);
        execute(m, csr_word(functions[i], STOPEI, 6, 5));
        ck_assert_uint_eq(m->cpu.x[6], top(20 + i));
        ck_assert_uint_eq(get_register(EIP0), 0);
    }
    send(30);
    execute(m, csr_word(CSRRS, STOPEI, 6, 0));
    ck_assert_uint_eq(get_register(EIP0), 1u << 30);
    execute(m, csr_word(CSRRW, STOPEI, 0, 5)); /* no destination: it claims all the same */
    ck_assert_uint_eq(get_register(EIP0), 0);
    /* A more urgent one that comes between reading and writing is not lost. */
    send(40);
    ck_assert_uint_eq(csr_get(m, STOPEI), top(40));
    send(3);
    riscv64_imsic_claim(&m->cpu.imsic, m->cpu.stopei);
    ck_assert_uint_eq(claim(), top(3));
}
END_TEST

START_TEST(attention_is_asked_for_when_something_becomes_due)
{
    csr_put(m, SIE, IRQ_SEXT);
    m->cpu.privilege = RISCV64_SUPERVISOR;
    m->cpu.csr.mstatus |= STATUS_SIE;
    m->cpu.cpu.attention = 0;
    send(9); /* neither enabled nor delivered */
    ck_assert_uint_eq(m->cpu.cpu.attention, 0);
    enable_all();
    ck_assert_uint_eq(m->cpu.cpu.attention, CPU_ATTENTION_INTERRUPT);
    ck_assert(riscv64_interrupt_pending(&m->cpu.cpu, false));
    ck_assert_uint_eq(claim(), top(9));
    ck_assert(!riscv64_interrupt_pending(&m->cpu.cpu, true));
    m->cpu.cpu.attention = 0;
    put_register(EIE0, ~(UINT64_C(1) << 9));
    ck_assert(!send(9));
    ck_assert_uint_eq(m->cpu.cpu.attention, 0);
    put_register(EIE0, UINT64_MAX);
    ck_assert_uint_eq(m->cpu.cpu.attention, CPU_ATTENTION_INTERRUPT);
    m->cpu.cpu.attention = 0;
    ck_assert(send(10)); /* enabled: the sender asks */
    ck_assert_uint_eq(m->cpu.cpu.attention, CPU_ATTENTION_INTERRUPT);
    riscv64_deliver_interrupt(&m->cpu.cpu);
    ck_assert_uint_eq(m->cpu.csr.scause, CAUSE_INTERRUPT | 9);
}
END_TEST

START_TEST(stopi_shows_the_most_urgent_major_interrupt)
{
    ck_assert_uint_eq(csr_get(m, STOPI), 0);
    enable_all();
    send(100);
    ck_assert_uint_eq(csr_get(m, STOPI), 0); /* not enabled in sie */
    csr_put(m, SIE, IRQ_SUPERVISOR);
    ck_assert_uint_eq(csr_get(m, STOPI), 9u << 16 | 1);
    csr_put(m, SIP, IRQ_SSOFT);
    ck_assert_uint_eq(csr_get(m, STOPI), 9u << 16 | 1);
    claim();
    ck_assert_uint_eq(csr_get(m, STOPI), 1u << 16 | 1);
    m->cpu.csr.menvcfg |= ENVCFG_STCE;
    m->time = 100;
    m->cpu.csr.stimecmp = 50;
    riscv64_set_line(&m->cpu, RISCV64_IRQ_STIMER, true);
    ck_assert_uint_eq(csr_get(m, STOPI), 1u << 16 | 1);
    csr_put(m, SIP, 0);
    ck_assert_uint_eq(csr_get(m, STOPI), 5u << 16 | 1);
    m->cpu.csr.stimecmp = 500; /* the line is old news: the comparison counts */
    ck_assert_uint_eq(csr_get(m, STOPI), 0);
    /* What machine mode keeps is not the supervisor's. */
    send(100);
    m->cpu.csr.mideleg = 0;
    ck_assert_uint_eq(csr_get(m, STOPI), 0);
}
END_TEST

START_TEST(external_interrupts_of_both_kinds_are_ored)
{
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SEXT, true);
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, IRQ_SEXT);
    riscv64_set_line(&m->cpu, RISCV64_IRQ_SEXT, false);
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, 0);
    enable_all();
    send(1);
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, IRQ_SEXT);
    csr_put(m, SIP, 0); /* read-only there */
    ck_assert_uint_eq(csr_get(m, SIP) & IRQ_SEXT, IRQ_SEXT);
}
END_TEST

START_TEST(reset_empties_the_file)
{
    enable_all();
    put_register(EITHRESHOLD, 9);
    send(3);
    isa_riscv64.reset(&m->cpu.cpu);
    ck_assert(!m->cpu.has_aia);
    m->cpu.has_aia = true;
    ck_assert_uint_eq(csr_get(m, SISELECT), 0);
    ck_assert_uint_eq(get_register(EIDELIVERY), 0);
    ck_assert_uint_eq(get_register(EITHRESHOLD), 0);
    ck_assert_uint_eq(get_register(EIP0), 0);
    ck_assert_uint_eq(get_register(EIE0), 0);
}
END_TEST

#define SENDERS 3
#define ROUNDS  5000

/* Each sender has one identity and sends again once the owner has claimed the one before: a message
 * that is lost stops it for ever. */
static _Atomic unsigned claimed[SENDERS + 1];

static void *sender(void *argument)
{
    unsigned identity = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        while (atomic_load(&claimed[identity]) != i) {
            sched_yield();
        }
        send(identity);
    }
    return NULL;
}

START_TEST(no_message_is_lost_between_threads)
{
    pthread_t threads[SENDERS];
    unsigned done = 0;
    put_register(EIDELIVERY, 1);
    csr_put(m, SISELECT, EIE0);
    for (unsigned i = 0; i <= SENDERS; i++) {
        atomic_store(&claimed[i], 0);
    }
    for (uintptr_t i = 0; i < SENDERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, sender, (void *)(i + 1)), 0);
    }
    for (unsigned turn = 0; done < SENDERS * ROUNDS; turn++) {
        /* A hart that looks only when it was asked to, and masks now and then. */
        if (turn % 3 == 0) {
            csr_put(m, SIREG, 0);
            csr_put(m, SIREG, 0xe);
            riscv64_update_attention(&m->cpu);
            if (riscv64_imsic_asserts(&m->cpu.imsic)) {
                cpu_attention(&m->cpu.cpu, CPU_ATTENTION_INTERRUPT);
            }
        }
        if (!(atomic_exchange(&m->cpu.cpu.attention, 0) & CPU_ATTENTION_INTERRUPT)) {
            sched_yield();
            continue;
        }
        for (uint64_t identity = claim() >> 16; identity != 0; identity = claim() >> 16) {
            atomic_fetch_add(&claimed[identity], 1);
            done++;
        }
    }
    for (unsigned i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_uint_eq(atomic_load(&m->cpu.imsic.messages), SENDERS * ROUNDS);
}
END_TEST

START_TEST(the_isa_string_has_it_in_its_place)
{
    const char *const *names = riscv64_isa_extensions(true);
    char text[256] = "rv64";
    bool found = false;
    for (unsigned i = 0; names[i]; i++) {
        strcat(text, i < 6 ? "" : "_");
        strcat(text, names[i]);
        found |= strcmp(names[i], "ssaia") == 0;
    }
    ck_assert(found);
    ck_assert_str_eq(text, riscv64_isa_string(true));
    ck_assert_ptr_null(strstr(riscv64_isa_string(false), "ssaia"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 AIA");
    TCase *tests = tcase_create("riscv64 AIA");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, without_an_aia_the_registers_do_not_exist);
    tcase_add_test(tests, siselect_holds_nine_bits);
    tcase_add_test(tests, sireg_exists_where_the_specification_has_it);
    tcase_add_test(tests, registers_without_a_meaning_read_as_zero);
    tcase_add_test(tests, eidelivery_is_zero_or_one);
    tcase_add_test(tests, eithreshold_holds_every_identity);
    tcase_add_test(tests, eithreshold_hides_itself_and_what_is_less_urgent);
    tcase_add_test(tests, each_pending_and_enable_bit);
    tcase_add_test(tests, set_and_clear_leave_the_other_bits);
    tcase_add_test(tests, low_numbers_come_first_and_are_claimed_once);
    tcase_add_test(tests, any_write_claims_what_it_read);
    tcase_add_test(tests, attention_is_asked_for_when_something_becomes_due);
    tcase_add_test(tests, stopi_shows_the_most_urgent_major_interrupt);
    tcase_add_test(tests, external_interrupts_of_both_kinds_are_ored);
    tcase_add_test(tests, reset_empties_the_file);
    tcase_add_test(tests, no_message_is_lost_between_threads);
    tcase_add_test(tests, the_isa_string_has_it_in_its_place);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
