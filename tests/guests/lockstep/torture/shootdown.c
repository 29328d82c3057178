/*
 * One hart changes mappings under the others, which load, store and run code there all the time and
 * never fence: the fences come from the first hart, by firmware or by an interrupt whose handler
 * fences. After such a fence nobody uses what was taken away.
 */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 400, COPIES = 4, EXTERNAL = 9, SSTATUS_SIE = 2 };
#define WINDOW 0x400c8000ul
#define DATA   WINDOW
#define CODE   (WINDOW + PAGE)
#define GLOBAL (WINDOW + 5 * PAGE) /* mapped as global */
#define RIGHTS (WINDOW + 9 * PAGE)

/* Words of a data page. */
enum { GENERATION = 0, FIRST_MARK = 8 };

static uint64_t roots[2]; /* address spaces 1 and 2, with one table for the window */
static uint64_t data[COPIES], code[COPIES], global[COPIES], rights_page;
static volatile uint64_t begun;     /* the change that may be seen */
static volatile uint64_t published; /* the change that must be seen */
static struct {
    volatile uint64_t progress, fenced;
    uint8_t pad[48];
} of_hart[HARTS_MAX] __attribute__((aligned(64)));

static volatile uint64_t *words(uint64_t address)
{
    return (volatile uint64_t *)address;
}

/* --- fences ---------------------------------------------------------------------------------- */

static void fence_on_interrupt(uint64_t hart, uint64_t cause)
{
    CHECK_EQUAL(cause, UINT64_C(1) << 63 | EXTERNAL);
    register_write(BARE_EXTERNAL + 8 * hart, 0);
    fence_all();
    fence_code();
    __atomic_fetch_add(&of_hart[hart].fenced, 1, __ATOMIC_SEQ_CST);
}

static void fence_by_interrupt(uint64_t harts)
{
    uint64_t before[HARTS_MAX];
    for (uint64_t i = 1; i < harts; i++) {
        before[i] = of_hart[i].fenced;
        register_write(BARE_EXTERNAL + 8 * i, 1);
    }
    for (uint64_t i = 1; i < harts; i++) {
        while (__atomic_load_n(&of_hart[i].fenced, __ATOMIC_SEQ_CST) == before[i]) {
            register_read(BARE_YIELD);
        }
    }
}

/* In one of the ways that there are. `is_global`: the pages are. */
static void fence_others(uint64_t round, uint64_t harts, uint64_t start, uint64_t pages,
                         bool is_global)
{
    uint64_t others = ((UINT64_C(1) << harts) - 1) & ~UINT64_C(1);
    switch (round % (is_global ? 3 : 4)) {
    case 0:
        remote_fence(1, others, start, pages * PAGE, 0);
        break;
    case 1:
        remote_fence(1, others, 0, UINT64_MAX, 0);
        break;
    case 2:
        fence_by_interrupt(harts);
        break;
    default:
        remote_fence(2, others, start, pages * PAGE, 1);
        remote_fence(2, others, 0, UINT64_MAX, 2);
    }
}

/* One turn of a hart is done. Not all processors may be real ones. */
static void progress(uint64_t hart, uint64_t turn)
{
    __atomic_store_n(&of_hart[hart].progress, turn, __ATOMIC_SEQ_CST);
    if (turn % 16 == 0) {
        register_read(BARE_YIELD);
    }
}

/* Every other hart has done at least one more whole turn. */
static void wait_for_progress(uint64_t harts)
{
    for (uint64_t i = 1; i < harts; i++) {
        uint64_t before = of_hart[i].progress;
        while (__atomic_load_n(&of_hart[i].progress, __ATOMIC_SEQ_CST) < before + 2) {
            register_read(BARE_YIELD);
        }
    }
}

/* --- other pages under loads, stores and fetches -----------------------------------------------
 */

static void map_generation(uint64_t round)
{
    uint64_t copy = round % COPIES;
    words(data[copy])[GENERATION] = round;
    words(global[copy])[GENERATION] = round;
    volatile uint32_t *function = (volatile uint32_t *)code[copy];
    function[0] = INSN_LI_A0(round);
    function[1] = INSN_RET;
    for (unsigned i = 0; i < 2; i++) {
        map_page(roots[i], DATA, data[copy], PTE_RW);
        map_page(roots[i], CODE, code[copy], PTE_RWX);
        map_page(roots[i], GLOBAL, global[copy], PTE_RW | PTE_G);
    }
}

static void move_pages(uint64_t harts)
{
    uint64_t all = (UINT64_C(1) << harts) - 1;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        map_generation(round);
        remote_fence(0, all, 0, 0, 0);
        fence_others(round, harts, DATA, 2, false);
        fence_others(round / 4, harts, GLOBAL, 1, true);
        uint64_t old = (round - 1) % COPIES, marks[HARTS_MAX], global_marks[HARTS_MAX];
        for (uint64_t i = 1; i < harts; i++) {
            marks[i] = words(data[old])[FIRST_MARK + i];
            global_marks[i] = words(global[old])[FIRST_MARK + i];
        }
        __atomic_store_n(&published, round, __ATOMIC_SEQ_CST);
        wait_for_progress(harts);
        for (uint64_t i = 1; i < harts; i++) {
            CHECK_EQUAL(words(data[old])[FIRST_MARK + i], marks[i]);
            CHECK_EQUAL(words(global[old])[FIRST_MARK + i], global_marks[i]);
        }
    }
    __atomic_store_n(&published, ROUNDS + 1, __ATOMIC_SEQ_CST);
}

static void use_moving_pages(uint64_t hart)
{
    uint64_t seen, turn = 0;
    while ((seen = __atomic_load_n(&published, __ATOMIC_SEQ_CST)) <= ROUNDS) {
        turn++;
        uint64_t satp = UINT64_C(8) << 60 | (1 + turn % 2) << 44 | roots[turn % 2] >> 12;
        __asm__ volatile("csrw satp, %0" : : "r"(satp) : "memory");
        uint64_t generation = words(DATA)[GENERATION];
        if (generation < seen) {
            guest_fail(__LINE__, generation, seen);
        }
        words(DATA)[FIRST_MARK + hart] = turn;
        generation = words(GLOBAL)[GENERATION];
        if (generation < seen) {
            guest_fail(__LINE__, generation, seen);
        }
        words(GLOBAL)[FIRST_MARK + hart] = turn;
        generation = call(CODE);
        if (generation < seen) {
            guest_fail(__LINE__, generation, seen);
        }
        progress(hart, turn);
    }
}

/* --- rights that come and go --------------------------------------------------------------------
 */

static const uint64_t rights[] = {PTE_RW, PTE_RW & ~(uint64_t)PTE_W, PTE_RW, 0};

static void change_rights(uint64_t harts)
{
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        uint64_t flags = rights[round % 4], marks[HARTS_MAX];
        __atomic_store_n(&begun, round, __ATOMIC_SEQ_CST);
        map_page(roots[0], RIGHTS, rights_page, flags);
        fence_others(round / 4, harts, RIGHTS, 1, false);
        __atomic_store_n(&published, round, __ATOMIC_SEQ_CST);
        for (uint64_t i = 1; i < harts; i++) {
            marks[i] = words(rights_page)[FIRST_MARK + i];
        }
        wait_for_progress(harts);
        for (uint64_t i = 1; i < harts && !(flags & PTE_W); i++) {
            CHECK_EQUAL(words(rights_page)[FIRST_MARK + i], marks[i]);
        }
    }
    __atomic_store_n(&published, ROUNDS + 1, __ATOMIC_SEQ_CST);
}

/* Whether the trap since `count` was cleared is the one for missing rights. */
static void check_refused(struct trap_record *trap, bool allowed, uint64_t cause, uint64_t value,
                          uint64_t round)
{
    if (trap->count != !allowed) {
        guest_fail(__LINE__, round, trap->count);
    }
    if (!allowed) {
        CHECK_EQUAL(trap->cause, cause);
        CHECK_EQUAL(trap->value, value);
    }
}

static void use_rights(uint64_t hart)
{
    struct trap_record store = {0}, *trap = &guest_traps[hart];
    uint64_t before, turn = of_hart[hart].progress;
    do {
        uint64_t value = 0, mark = RIGHTS + 8 * (FIRST_MARK + hart);
        before = __atomic_load_n(&published, __ATOMIC_SEQ_CST);
        turn++;
        trap->resume = 0;
        trap->count = 0;
        trap->expected = true;
        __asm__ volatile("sd %0, 0(%1)" : : "r"(turn), "r"(mark) : "memory");
        store.count = trap->count;
        store.cause = trap->cause;
        store.value = trap->value;
        trap->count = 0;
        __asm__ volatile("ld %0, 0(%1)" : "+r"(value) : "r"(mark) : "memory");
        trap->expected = false;
        /* Only when the next change was not begun meanwhile. */
        if (before > 0 && before == __atomic_load_n(&begun, __ATOMIC_SEQ_CST)) {
            check_refused(&store, rights[before % 4] & PTE_W, CAUSE_STORE_PAGE, mark, before);
            check_refused(trap, rights[before % 4] & PTE_R, CAUSE_LOAD_PAGE, mark, before);
        }
        progress(hart, turn);
    } while (before <= ROUNDS);
}

/* --------------------------------------------------------------------------------------------- */

static void make_spaces(void)
{
    for (unsigned i = 0; i < COPIES; i++) {
        data[i] = allocate_pages(1);
        code[i] = allocate_pages(1);
        global[i] = allocate_pages(1);
    }
    rights_page = allocate_pages(1);
    roots[0] = make_table();
    map_page(roots[0], RIGHTS, rights_page, PTE_RW);
    roots[1] = make_table();
    *page_entry(roots[1], WINDOW, 2) = *page_entry(roots[0], WINDOW, 2);
    map_generation(0);
    fence_code();
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    if (hart == 0) {
        make_spaces();
        guest_interrupt = fence_on_interrupt;
    }
    barrier(harts);
    fence_code();
    use_table(roots[0], 1);
    __asm__ volatile("csrw sie, %0" : : "r"(1 << EXTERNAL));
    __asm__ volatile("csrs sstatus, %0" : : "r"(SSTATUS_SIE));
    if (hart == 0) {
        move_pages(harts);
    } else {
        use_moving_pages(hart);
    }
    barrier(harts);
    use_table(roots[0], 1);
    if (hart == 0) {
        published = 0;
        begun = 0;
    }
    barrier(harts);
    if (hart == 0) {
        change_rights(harts);
    } else {
        use_rights(hart);
    }
    return 0;
}
