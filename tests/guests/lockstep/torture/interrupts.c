/* A computation with all that an interrupt could disturb, done undisturbed and then under as many
 * interrupts as the machine can raise; the results are the same. */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 1200, MSTATUS_MIE = 8, MIE_SOFTWARE = 8 };

static volatile uint64_t interrupts;
static uint64_t words[64];

static void acknowledge(uint64_t hart, uint64_t cause)
{
    if (cause != (UINT64_C(1) << 63 | 3)) {
        guest_fail(__LINE__, cause, 0);
    }
    interrupts++;
    register_write(BARE_SOFTWARE + 8 * hart, 0);
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
        if (i % 100 == 0) {
            fence_code();
        }
    }
    uint64_t bits;
    __asm__ volatile("fmv.x.d %0, %1" : "=r"(bits) : "f"(number));
    return hash ^ bits;
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    (void)hart;
    (void)harts;
    uint64_t undisturbed = compute();
    CHECK_EQUAL(interrupts, 0);
    guest_interrupt = acknowledge;
    __asm__ volatile("csrw mie, %0; csrs mstatus, %1" : : "r"(MIE_SOFTWARE), "r"(MSTATUS_MIE));
    register_write(BARE_COUNT, 1); /* now the machine raises them */
    while (interrupts < 100) {
        CHECK_EQUAL(compute(), undisturbed);
    }
    register_write(BARE_COUNT, 0);
    __asm__ volatile("csrc mstatus, %0" : : "r"(MSTATUS_MIE));
    return 0;
}
