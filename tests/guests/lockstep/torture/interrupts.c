/*
 * A computation with all that an interrupt could disturb, done undisturbed and then under as many
 * interrupts as the machine can raise; the results are the same. In machine mode they are software
 * interrupts, in supervisor mode, with translation, external ones.
 */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 400, SSTATUS_SIE = 2, MSTATUS_MIE = 8, SOFTWARE = 3, EXTERNAL = 9 };
#define NOTHING 0x20000000ul

/* Each hart computes on its own; what they share are the pages of code and data. */
static struct {
    volatile uint64_t interrupts;
    uint64_t words[64];
    uint32_t patched[4] __attribute__((aligned(64)));
} of_hart[HARTS_MAX];
#define words (of_hart[guest_hart()].words)

static void acknowledge(uint64_t hart, uint64_t cause)
{
    uint64_t expected = UINT64_C(1) << 63 | (guest_machine_mode ? SOFTWARE : EXTERNAL);
    if (cause != expected) {
        guest_fail(__LINE__, cause, expected);
    }
    of_hart[hart].interrupts++;
    register_write((guest_machine_mode ? BARE_SOFTWARE : BARE_EXTERNAL) + 8 * hart, 0);
}

static uint64_t step_reservation(uint64_t *word, uint64_t add)
{
    uint64_t old, failed;
    __asm__ volatile("1: lr.d %0, (%2)\n"
                     "   add t0, %0, %3\n"
                     "   sc.d %1, t0, (%2)\n"
                     "   bnez %1, 1b\n"
                     : "=&r"(old), "=&r"(failed)
                     : "r"(word), "r"(add)
                     : "t0", "memory");
    return old;
}

static __attribute__((noinline)) uint64_t recursive(uint64_t n)
{
    return n < 2 ? n : recursive(n - 1) + recursive(n - 2);
}

/* An exception among the interrupts: the instruction that it is of, and its cause. */
static uint64_t step_fault(void)
{
    struct trap_record *trap = &guest_traps[guest_hart()];
    uint64_t where, value = 5;
    trap->count = 0;
    trap->resume = 0;
    trap->expected = true;
    __asm__ volatile(".option push\n.option norvc\n"
                     "   la %0, 1f\n"
                     "1: ld %1, 0(%2)\n"
                     ".option pop\n"
                     : "=&r"(where), "+r"(value)
                     : "r"(NOTHING)
                     : "memory");
    trap->expected = false;
    CHECK_EQUAL(trap->count, 1);
    CHECK_EQUAL(trap->pc, where);
    CHECK_EQUAL(value, 5);
    return trap->cause + trap->value;
}

/* Code that was just written, beside other harts' code and data. */
static uint64_t step_patched(uint64_t value)
{
    volatile uint32_t *code = of_hart[guest_hart()].patched;
    code[0] = INSN_LI_A0(value & 1023);
    code[1] = INSN_RET;
    fence_code();
    return call((uint64_t)code);
}

static uint64_t compute(void)
{
    uint64_t hash = 1;
    double number = 1.0;
    for (unsigned i = 0; i < 64; i++) {
        words[i] = i;
    }
    __asm__ volatile("fscsr zero");
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        uint64_t flags;
        hash = (hash ^ i) * UINT64_C(0x9e3779b97f4a7c15);
        number = number * 1.0000001 + 1.0 / (double)i;
        __asm__ volatile("frflags %0" : "=r"(flags) : "f"(number));
        hash += flags + step_reservation(&words[hash >> 58], hash);
        hash ^= __atomic_fetch_xor(&words[i % 64], hash, __ATOMIC_SEQ_CST);
        uint64_t *odd = (uint64_t *)((uint8_t *)words + (i * 3 & 255));
        __asm__ volatile("ld t0, 0(%1); add %0, %0, t0" : "+r"(hash) : "r"(odd) : "t0", "memory");
        hash += recursive(i % 8);
        if (i % 50 == 0) {
            hash += step_patched(hash) + step_fault();
        }
    }
    uint64_t bits;
    __asm__ volatile("fmv.x.d %0, %1" : "=r"(bits) : "f"(number));
    return hash ^ bits;
}

static void enable(bool on)
{
    if (guest_machine_mode && on) {
        __asm__ volatile("csrw mie, %0" : : "r"(1 << SOFTWARE));
        __asm__ volatile("csrs mstatus, %0" : : "r"(MSTATUS_MIE));
    } else if (guest_machine_mode) {
        __asm__ volatile("csrc mstatus, %0" : : "r"(MSTATUS_MIE));
    } else if (on) {
        __asm__ volatile("csrw sie, %0" : : "r"(1 << EXTERNAL));
        __asm__ volatile("csrs sstatus, %0" : : "r"(SSTATUS_SIE));
    } else {
        __asm__ volatile("csrc sstatus, %0" : : "r"(SSTATUS_SIE));
    }
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    if (!guest_machine_mode) {
        use_table(make_table(), hart);
    }
    uint64_t undisturbed = compute();
    CHECK_EQUAL(compute(), undisturbed);
    CHECK_EQUAL(of_hart[hart].interrupts, 0);
    guest_interrupt = acknowledge;
    barrier(harts);
    enable(true);
    register_write(BARE_COUNT, 1); /* now the machine raises them */
    do {
        CHECK_EQUAL(compute(), undisturbed);
    } while (of_hart[hart].interrupts < 1000);
    enable(false);
    barrier(harts);
    register_write(BARE_COUNT, 0);
    return 0;
}
