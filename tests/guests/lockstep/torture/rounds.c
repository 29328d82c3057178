/*
 * Translations that change between two rounds of a loop whose accesses are off one register: a
 * compiler that keeps the last translation from round to round must not use what was taken away.
 * By the loop itself (fences, address spaces, permissions), by another hart (mappings, rights, code
 * where the loop stores), and by the address (lists and arrays over pages that are neighbours only
 * virtually).
 */
#include "tests/guests/lockstep/torture/guest.h"

enum { OWN_ROUNDS = 100000, WALKS = 3000, OTHERS_ROUNDS = 100, BURST = 4096, SUM = 1 << 18 };
#define WINDOW  0x40000000ul /* + 64 pages a hart */
#define SHARED  0x40400000ul
#define CODE    (SHARED + PAGE)
#define RIGHTS  (SHARED + 2 * PAGE)
#define RIVAL   (CODE + (64ul << 20)) /* for the same entry of any table as CODE */
#define DEVICES 0x10000000ul
/* Of a word in each page. The registers have nothing there: it reads as zero. */
#define PLACE  0x400ul
#define MARKED 0x408ul

typedef volatile uint64_t word;

static uint64_t root;
static uint64_t shared_pages[4], code_page, rights_page;
static volatile uint64_t published, begun;
static struct {
    volatile uint64_t turns;
    uint8_t pad[56];
} of_hart[HARTS_MAX] __attribute__((aligned(64)));

static uint64_t window_of(uint64_t hart)
{
    return WINDOW + hart * 64 * PAGE;
}

static word *at(uint64_t address)
{
    return (word *)address;
}

static uint64_t entry_for(uint64_t physical, uint64_t flags)
{
    return physical >> 12 << 10 | flags;
}

/* --- by the loop itself ---------------------------------------------------------------------- */

/* Another page each round: one of two, one that may only be read, a device. */
static void remap(uint64_t hart)
{
    struct trap_record *trap = &guest_traps[hart];
    uint64_t window = window_of(hart), pages[3], entries[4];
    for (unsigned i = 0; i < 3; i++) {
        pages[i] = allocate_pages(1);
        *at(pages[i] + PLACE) = 100 + i;
        entries[i] = entry_for(pages[i], i == 2 ? PTE_RW & ~(uint64_t)PTE_W : PTE_RW);
    }
    entries[3] = entry_for(DEVICES, PTE_RW);
    map_page(root, window, pages[0], PTE_RW);
    word *entry = page_entry(root, window, 0), *place = at(window);
    for (uint64_t i = 0; i < OWN_ROUNDS; i++) {
        /* For some rounds nothing changes. */
        uint64_t which = i / 8 % 4;
        *entry = entries[which];
        fence_page(window);
        uint64_t got = place[PLACE / 8];
        if (got != (which == 3 ? 0 : 100 + which)) {
            guest_fail(__LINE__, got, i);
        }
        trap->count = 0;
        trap->resume = 0;
        trap->expected = which == 2;
        place[MARKED / 8] = i;
        if (trap->count != (which == 2)) {
            guest_fail(__LINE__, which, i);
        }
        trap->expected = false;
        if (which < 2 && *at(pages[which] + MARKED) != i) {
            guest_fail(__LINE__, which, i);
        }
    }
    CHECK_EQUAL(*at(pages[2] + MARKED), 0);
}

/* Another address space each round, without any fence. */
static void switch_spaces(uint64_t hart, uint64_t harts)
{
    uint64_t window = window_of(hart), pages[2], satp[2];
    for (unsigned i = 0; i < 2; i++) {
        uint64_t table = make_table();
        pages[i] = allocate_pages(1);
        map_page(table, window, pages[i], PTE_RW);
        satp[i] = UINT64_C(8) << 60 | (8 + i * harts + hart) << 44 | table >> 12;
        *at(pages[i] + PLACE) = 200 + i;
    }
    word *place = at(window);
    for (uint64_t i = 0; i < OWN_ROUNDS; i++) {
        __asm__ volatile("csrw satp, %0" : : "r"(satp[i & 1]) : "memory");
        uint64_t got = place[PLACE / 8];
        if (got != 200 + (i & 1)) {
            guest_fail(__LINE__, got, i);
        }
        place[MARKED / 8] = i;
        if (*at(pages[i & 1] + MARKED) != i) {
            guest_fail(__LINE__, i, 0);
        }
    }
    use_table(root, 1);
}

/* A user's page, which the supervisor may access in every other round. */
static void switch_permission(uint64_t hart)
{
    struct trap_record *trap = &guest_traps[hart];
    uint64_t window = window_of(hart), sum = SUM;
    map_page(root, window, allocate_pages(1), PTE_RW | PTE_U);
    fence_all();
    word *place = at(window);
    for (uint64_t i = 0; i < OWN_ROUNDS / 4; i++) {
        bool allowed = i & 1;
        if (allowed) {
            __asm__ volatile("csrs sstatus, %0" : : "r"(sum) : "memory");
        } else {
            __asm__ volatile("csrc sstatus, %0" : : "r"(sum) : "memory");
        }
        trap->count = 0;
        trap->resume = 0;
        trap->expected = !allowed;
        place[PLACE / 8] = i;
        (void)place[PLACE / 8];
        if (trap->count != (allowed ? 0 : 2)) {
            guest_fail(__LINE__, trap->count, i);
        }
        trap->expected = false;
    }
    __asm__ volatile("csrc sstatus, %0" : : "r"(sum) : "memory");
}

/* --- by the address -------------------------------------------------------------------------- */

struct item {
    struct item *next;
    uint64_t value;
};

/* A list through three pages, which change places between two walks. The walk marks the items. */
static uint64_t walk(struct item *item)
{
    uint64_t sum = 0;
    while (item) {
        struct item *next = *(struct item *volatile *)&item->next;
        sum += *(word *)&item->value;
        *(word *)&item->value = sum;
        item = next;
    }
    return sum;
}

static void walk_lists(uint64_t hart)
{
    enum { PAGES = 3, ITEMS = 150 };
    uint64_t window = window_of(hart), pages[PAGES];
    for (unsigned i = 0; i < PAGES; i++) {
        pages[i] = allocate_pages(1);
    }
    for (uint64_t round = 0; round < WALKS; round++) {
        for (unsigned i = 0; i < PAGES; i++) {
            map_page(root, window + i * PAGE, pages[(i + round) % PAGES], PTE_RW);
            fence_page(window + i * PAGE);
        }
        /* As physical addresses have it; runs of items in one page. */
        uint64_t expected = 0;
        for (unsigned i = 0; i < ITEMS; i++) {
            unsigned page = i / 10 % PAGES, after = (i + 1) / 10 % PAGES;
            word *words = at(pages[(page + round) % PAGES] + i * 16);
            words[0] = i + 1 < ITEMS ? window + after * PAGE + (i + 1) * 16 : 0;
            words[1] = i + round;
            expected += i + round;
        }
        uint64_t got = walk((struct item *)window);
        if (got != expected) {
            guest_fail(__LINE__, got, expected);
        }
        expected = 0;
        for (unsigned i = 0; i < ITEMS; i++) {
            expected += i + round;
            CHECK_EQUAL(at(pages[(i / 10 % PAGES + round) % PAGES] + i * 16)[1], expected);
        }
    }
}

/* Accesses of all alignments over the border of two pages that are no neighbours, by one register
 * that moves on a little each round; alone, and two that may share a translation. */
enum { AROUND = 96, REACH = 16 };

static uint64_t bytes_of(const uint8_t *bytes, unsigned count)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < count; i++) {
        value |= (uint64_t)bytes[i] << 8 * i;
    }
    return value;
}

/* The address in a register of its own, which a constant is added to in each round. */
#define ACROSS(name, STEP)                                                                         \
    static __attribute__((noinline)) void load_##name(uint64_t address, const uint8_t *model)      \
    {                                                                                              \
        for (uint64_t i = 0; i + REACH <= 2 * AROUND; i += STEP) {                                 \
            uint64_t one, two, three;                                                              \
            __asm__ volatile("ld %0, 0(%1)" : "=r"(one), "+r"(address) : : "memory");              \
            __asm__ volatile("lwu %0, 4(%2)\n\tlhu %1, 13(%2)"                                     \
                             : "=&r"(two), "=&r"(three), "+r"(address)                             \
                             :                                                                     \
                             : "memory");                                                          \
            if (one != bytes_of(model + i, 8) || two != bytes_of(model + i + 4, 4) ||              \
                three != bytes_of(model + i + 13, 2)) {                                            \
                guest_fail(__LINE__, i, STEP);                                                     \
            }                                                                                      \
            __asm__ volatile("addi %0, %0, " #STEP : "+r"(address));                               \
        }                                                                                          \
    }                                                                                              \
    static __attribute__((noinline)) void store_##name(uint64_t address, uint64_t value)           \
    {                                                                                              \
        for (uint64_t i = 0; i + REACH <= 2 * AROUND; i += STEP, value += 0x0101) {                \
            __asm__ volatile("sd %1, 0(%0)" : "+r"(address) : "r"(value) : "memory");              \
            __asm__ volatile("sw %1, 3(%0)\n\tsb %1, 11(%0)\n\taddi %0, %0, " #STEP                \
                             : "+r"(address)                                                       \
                             : "r"(value + 1)                                                      \
                             : "memory");                                                          \
        }                                                                                          \
    }
ACROSS(by_1, 1)
ACROSS(by_3, 3)
ACROSS(by_8, 8)

static const struct {
    uint64_t step;
    void (*load)(uint64_t address, const uint8_t *model);
    void (*store)(uint64_t address, uint64_t value);
} ways_across[] = {
    {1, load_by_1, store_by_1}, {3, load_by_3, store_by_3}, {8, load_by_8, store_by_8}};

static void put_bytes(uint8_t *bytes, uint64_t value, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(value >> 8 * i);
    }
}

/* What store_by_* does. */
static void store_model(uint8_t *model, uint64_t step, uint64_t value)
{
    for (uint64_t i = 0; i + REACH <= 2 * AROUND; i += step, value += 0x0101) {
        put_bytes(model + i, value, 8);
        put_bytes(model + i + 3, value + 1, 4);
        put_bytes(model + i + 11, value + 1, 1);
    }
}

static void cross(uint64_t hart)
{
    uint64_t window = window_of(hart), pages = allocate_pages(2), border = window + PAGE;
    map_page(root, window, pages + PAGE, PTE_RW);
    map_page(root, border, pages, PTE_RW);
    fence_all();
    const uint8_t *low = (const uint8_t *)pages + 2 * PAGE - AROUND, *high = (uint8_t *)pages;
    uint8_t model[2 * AROUND] = {0};
    for (uint64_t round = 0; round < WALKS; round++) {
        unsigned way = round % 3;
        uint64_t value = round << 32 | round * 7;
        store_model(model, ways_across[way].step, value);
        ways_across[way].store(border - AROUND, value);
        ways_across[round / 3 % 3].load(border - AROUND, model);
        for (unsigned i = 0; i < AROUND; i++) {
            CHECK_EQUAL(((volatile const uint8_t *)low)[i], model[i]);
            CHECK_EQUAL(((volatile const uint8_t *)high)[i], model[AROUND + i]);
        }
    }
}

/* --- by another hart ------------------------------------------------------------------------- */

static void fence_others(uint64_t harts, uint64_t start)
{
    uint64_t others = ((UINT64_C(1) << harts) - 1) & ~UINT64_C(1);
    remote_fence(1, others, start, PAGE, 0);
}

/* Not all processors may be real ones: now and then between turns. */
static void let_others_run(uint64_t turn)
{
    if (turn % BURST == 0) {
        register_read(BARE_YIELD);
    }
}

/* Every other hart has done another round or two. */
static void wait_for_turns(uint64_t harts)
{
    for (uint64_t i = 1; i < harts; i++) {
        uint64_t before = of_hart[i].turns;
        while (of_hart[i].turns < before + 2) {
            register_read(BARE_YIELD);
        }
    }
}

static void move_page(uint64_t harts)
{
    for (uint64_t round = 1; round <= OTHERS_ROUNDS; round++) {
        uint64_t marks[HARTS_MAX], old = shared_pages[(round - 1) % 4];
        *at(shared_pages[round % 4] + PLACE) = round;
        map_page(root, SHARED, shared_pages[round % 4], PTE_RW);
        fence_others(harts, SHARED);
        for (uint64_t i = 1; i < harts; i++) {
            marks[i] = at(old + MARKED)[i];
        }
        published = round;
        wait_for_turns(harts);
        for (uint64_t i = 1; i < harts; i++) {
            CHECK_EQUAL(at(old + MARKED)[i], marks[i]);
        }
    }
    published = OTHERS_ROUNDS + 1;
}

/* Mostly nothing but plain accesses, in one piece of code that is left for nothing else. */
static void use_moving_page(uint64_t hart)
{
    word *place = at(SHARED), *turns = &of_hart[hart].turns;
    for (uint64_t turn = *turns + 1, seen; (seen = published) <= OTHERS_ROUNDS; turn++) {
        uint64_t got = place[PLACE / 8];
        if (got < seen) {
            guest_fail(__LINE__, got, seen);
        }
        place[MARKED / 8 + hart] = turn;
        *turns = turn;
        let_others_run(turn);
    }
}

static void move_rights(uint64_t harts)
{
    for (uint64_t round = 1; round <= OTHERS_ROUNDS; round++) {
        uint64_t marks[HARTS_MAX], write = round & 1 ? 0 : PTE_W;
        map_page(root, RIGHTS, rights_page, PTE_V | PTE_R | PTE_A | PTE_D | write);
        fence_others(harts, RIGHTS);
        for (uint64_t i = 1; i < harts; i++) {
            marks[i] = at(rights_page + MARKED)[i];
        }
        wait_for_turns(harts);
        for (uint64_t i = 1; i < harts; i++) {
            uint64_t now = at(rights_page + MARKED)[i];
            CHECK(write ? now > marks[i] : now == marks[i]);
        }
    }
    published = OTHERS_ROUNDS + 1;
}

static void use_rights(uint64_t hart)
{
    word *place = at(RIGHTS), *turns = &of_hart[hart].turns;
    guest_traps[hart].resume = 0;
    guest_traps[hart].expected = true;
    for (uint64_t turn = *turns + 1; published <= OTHERS_ROUNDS; turn++) {
        place[MARKED / 8 + hart] = turn;
        *turns = turn;
        let_others_run(turn);
    }
    guest_traps[hart].expected = false;
}

/* Hart 1 stores a function's answer again and again, hart 0 calls it: the page is code, then again
 * not, while the loop runs. Now and then its translation is lost to another page's. */
static uint64_t answer_of(uint64_t turn)
{
    return turn >> 12 & 1023;
}

static void run_code(uint64_t harts)
{
    wait_for_turns(harts > 1 ? 2 : 1);
    for (uint64_t round = 0; harts > 1 && round < OTHERS_ROUNDS; round++) {
        uint64_t before = of_hart[1].turns;
        fence_code();
        uint64_t got = call(CODE), after = of_hart[1].turns + 1;
        uint64_t first = answer_of(before);
        if (((got - first) & 1023) > ((answer_of(after) - first) & 1023)) {
            guest_fail(__LINE__, got, before);
        }
        wait_for_turns(2);
    }
    published = OTHERS_ROUNDS + 1;
}

static void write_code(uint64_t hart)
{
    volatile uint32_t *code = (volatile uint32_t *)CODE;
    word *turns = &of_hart[hart].turns, *rival = at(RIVAL);
    for (uint64_t turn = *turns + 1; hart == 1 && published <= OTHERS_ROUNDS; turn++) {
        code[0] = INSN_LI_A0(answer_of(turn));
        *turns = turn;
        if (turn % (8 * BURST) == 1) {
            *rival;
        }
        let_others_run(turn);
    }
}

/* --------------------------------------------------------------------------------------------- */

static void make_space(uint64_t harts)
{
    root = make_table();
    for (unsigned i = 0; i < 4; i++) {
        shared_pages[i] = allocate_pages(1);
    }
    code_page = allocate_pages(1);
    rights_page = allocate_pages(1);
    map_page(root, SHARED, shared_pages[0], PTE_RW);
    map_page(root, CODE, code_page, PTE_RWX);
    map_page(root, RIGHTS, rights_page, PTE_RW);
    map_page(root, RIVAL, shared_pages[0], PTE_RW);
    for (uint64_t i = 0; i < harts; i++) {
        map_page(root, window_of(i), shared_pages[0], PTE_RW); /* the table is there */
    }
    ((volatile uint32_t *)code_page)[0] = INSN_LI_A0(answer_of(of_hart[1].turns));
    ((volatile uint32_t *)code_page)[1] = INSN_RET;
}

/* `first` on hart 0, `others` on the others. */
static void together(uint64_t hart, uint64_t harts, void (*first)(uint64_t),
                     void (*others)(uint64_t))
{
    barrier(harts);
    if (hart == 0) {
        published = 0;
    }
    barrier(harts);
    if (hart == 0) {
        first(harts);
    } else {
        others(hart);
    }
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    if (hart == 0) {
        make_space(harts);
    }
    barrier(harts);
    use_table(root, 1);
    fence_code();
    remap(hart);
    switch_spaces(hart, harts);
    switch_permission(hart);
    walk_lists(hart);
    cross(hart);
    together(hart, harts, move_page, use_moving_page);
    together(hart, harts, move_rights, use_rights);
    together(hart, harts, run_code, write_code);
    barrier(harts);
    return 0;
}
