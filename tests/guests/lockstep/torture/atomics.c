/* Several harts on the same words: counters, locks, reservations, and the order of stores. */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 20000, LITMUS_ROUNDS = 5000 };

static struct {
    uint64_t added, reserved, locked, swapped;
    uint32_t narrow_added, narrow_reserved;
    uint64_t bits, largest;
    uint32_t lock;
} shared __attribute__((aligned(64)));

static uint64_t add_by_reservation(uint64_t *word)
{
    uint64_t old, failed;
    __asm__ volatile("1: lr.d.aqrl %0, (%2)\n"
                     "   addi t0, %0, 1\n"
                     "   sc.d.rl %1, t0, (%2)\n"
                     "   bnez %1, 1b\n"
                     : "=&r"(old), "=&r"(failed)
                     : "r"(word)
                     : "t0", "memory");
    return old;
}

static void add_narrow_by_reservation(uint32_t *word)
{
    uint64_t old, failed;
    __asm__ volatile("1: lr.w %0, (%2)\n"
                     "   addiw t0, %0, 1\n"
                     "   sc.w %1, t0, (%2)\n"
                     "   bnez %1, 1b\n"
                     : "=&r"(old), "=&r"(failed)
                     : "r"(word)
                     : "t0", "memory");
}

static void take_lock(void)
{
    while (__atomic_exchange_n(&shared.lock, 1, __ATOMIC_ACQUIRE)) {
        register_read(BARE_YIELD);
    }
}

static void drop_lock(void)
{
    __atomic_store_n(&shared.lock, 0, __ATOMIC_RELEASE);
}

static void count_together(uint64_t hart, uint64_t harts)
{
    for (uint64_t i = 0; i < ROUNDS; i++) {
        __atomic_fetch_add(&shared.added, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&shared.narrow_added, 1, __ATOMIC_RELAXED);
        add_by_reservation(&shared.reserved);
        add_narrow_by_reservation(&shared.narrow_reserved);
        take_lock();
        *(volatile uint64_t *)&shared.locked += 1;
        drop_lock();
        uint64_t bit = UINT64_C(1) << (hart * 8 + i % 8);
        uint64_t old = __atomic_fetch_or(&shared.bits, bit, __ATOMIC_RELAXED);
        CHECK(!(old & bit));
        old = __atomic_fetch_and(&shared.bits, ~bit, __ATOMIC_RELAXED);
        CHECK(old & bit);
        __asm__ volatile("amomaxu.d zero, %1, (%0)"
                         :
                         : "r"(&shared.largest), "r"(i * harts + hart)
                         : "memory");
    }
    barrier(harts);
    CHECK_EQUAL(shared.added, ROUNDS * harts);
    CHECK_EQUAL(shared.narrow_added, ROUNDS * harts);
    CHECK_EQUAL(shared.reserved, ROUNDS * harts);
    CHECK_EQUAL(shared.narrow_reserved, ROUNDS * harts);
    CHECK_EQUAL(shared.locked, ROUNDS * harts);
    CHECK_EQUAL(shared.bits, 0);
    CHECK_EQUAL(shared.largest, (ROUNDS - 1) * harts + harts - 1);
    barrier(harts);
}

/* Between a load-reserved and its store-conditional another hart stores, be it the same value: the
 * store-conditional must fail. */
static struct {
    volatile uint64_t turn;
    uint64_t apart[8];
    volatile uint64_t word;
} reservation __attribute__((aligned(64)));

static void reservation_breaks(uint64_t hart, uint64_t harts)
{
    for (uint64_t i = 0; i < 500 && hart < 2 && harts > 1; i++) {
        uint64_t mine = 2 * i + 1, other = 2 * i + 2;
        if (hart == 0) {
            uint64_t failed;
            __asm__ volatile("   lr.d t0, (%1)\n"
                             "   fence\n"
                             "   sd %3, 0(%2)\n"
                             "1: ld t1, 0(%2)\n"
                             "   bne t1, %4, 1b\n"
                             "   sc.d %0, t0, (%1)\n"
                             : "=&r"(failed)
                             : "r"(&reservation.word), "r"(&reservation.turn), "r"(mine), "r"(other)
                             : "t0", "t1", "memory");
            CHECK(failed);
        } else {
            while (reservation.turn != mine) {
                register_read(BARE_YIELD);
            }
            reservation.word = 5; /* as it was, from the second round on */
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            reservation.turn = other;
        }
    }
    barrier(harts);
}

/* Store, full fence, load the other's: not both may see nothing. And a message is seen after its
 * flag. */
static struct {
    volatile uint64_t x, pad[15], y, pad2[15], seen[2], flag, pad3[15], message;
} litmus __attribute__((aligned(64)));

static struct barrier pair;

static void store_order(uint64_t hart, uint64_t harts)
{
    for (uint64_t i = 0; i < LITMUS_ROUNDS && hart < 2 && harts > 1; i++) {
        if (hart == 0) {
            litmus.x = 0;
            litmus.y = 0;
        }
        barrier_wait(&pair, 2);
        if (hart == 0) {
            litmus.x = 1;
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            litmus.seen[0] = litmus.y;
        } else if (hart == 1) {
            litmus.y = 1;
            __atomic_thread_fence(__ATOMIC_SEQ_CST);
            litmus.seen[1] = litmus.x;
        }
        barrier_wait(&pair, 2);
        CHECK(litmus.seen[0] || litmus.seen[1]);
    }
    barrier(harts);
    for (uint64_t i = 1; i <= LITMUS_ROUNDS && hart < 2 && harts > 1; i++) {
        if (hart == 0) {
            litmus.message = i;
            __atomic_store_n(&litmus.flag, i, __ATOMIC_RELEASE);
        } else {
            uint64_t flag = __atomic_load_n(&litmus.flag, __ATOMIC_ACQUIRE);
            CHECK(litmus.message >= flag);
        }
    }
    barrier(harts);
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    barrier(harts);
    count_together(hart, harts);
    reservation_breaks(hart, harts);
    store_order(hart, harts);
    return 0;
}
