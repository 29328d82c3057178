/* Page tables that change under running code: other pages, fewer rights, address spaces, and the
 * page that makes the change itself. */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 500 };
#define WINDOW 0x40000000ul

static struct trap_record *trap;
static uint64_t root, code_pages[4], data_pages[4];

static void write_function(uint64_t address, unsigned value)
{
    volatile uint32_t *code = (volatile uint32_t *)address;
    code[0] = INSN_LI_A0(value);
    code[1] = INSN_RET;
}

static void remapped_code(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        map_page(root, WINDOW, code_pages[i % 4], PTE_RWX);
        if (i % 3) {
            fence_page(WINDOW);
        } else {
            fence_all();
        }
        CHECK_EQUAL(call(WINDOW), 10 + i % 4);
    }
}

static void remapped_data(void)
{
    volatile uint64_t *window = (volatile uint64_t *)(WINDOW + 16 * PAGE);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t physical = data_pages[i % 4];
        map_page(root, WINDOW + 16 * PAGE, physical, PTE_RW);
        fence_page(WINDOW + 16 * PAGE);
        *(volatile uint64_t *)physical = i;
        CHECK_EQUAL(*window, i);
        *window = i + 1;
        CHECK_EQUAL(*(volatile uint64_t *)physical, i + 1);
    }
}

/* Address spaces of their own number keep their translations over switches; global pages and
 * flushes of one number do what they should. */
static void address_spaces(void)
{
    uint64_t other = make_table();
    map_page(root, WINDOW, code_pages[0], PTE_RWX);
    map_page(other, WINDOW, code_pages[1], PTE_RWX);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t satp = UINT64_C(8) << 60 | UINT64_C(1) << 44 | root >> 12;
        __asm__ volatile("csrw satp, %0" : : "r"(satp) : "memory");
        CHECK_EQUAL(call(WINDOW), 10);
        satp = UINT64_C(8) << 60 | UINT64_C(2) << 44 | other >> 12;
        __asm__ volatile("csrw satp, %0" : : "r"(satp) : "memory");
        CHECK_EQUAL(call(WINDOW), 11);
    }
    /* Change the first space while in the second. */
    map_page(root, WINDOW, code_pages[2], PTE_RWX);
    __asm__ volatile("sfence.vma zero, %0" : : "r"(1) : "memory");
    __asm__ volatile("csrw satp, %0"
                     :
                     : "r"(UINT64_C(8) << 60 | UINT64_C(1) << 44 | root >> 12)
                     : "memory");
    CHECK_EQUAL(call(WINDOW), 12);
    use_table(root, 0);
}

/* A number that goes from one address space to the next, as kernels do that have run out of them:
 * what the former left behind is gone after a fence for that number, be it given before or after.
 */
static void reused_numbers(void)
{
    uint64_t spaces[3];
    for (unsigned i = 0; i < 3; i++) {
        spaces[i] = make_table();
        map_page(spaces[i], WINDOW, code_pages[i], PTE_RWX);
        map_page(spaces[i], WINDOW + 16 * PAGE, data_pages[i], PTE_RW);
        *(volatile uint64_t *)data_pages[i] = 30 + i;
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t satp = UINT64_C(8) << 60 | UINT64_C(9) << 44 | spaces[i % 3] >> 12;
        if (i % 2) {
            __asm__ volatile("csrw satp, %0; sfence.vma zero, %1" : : "r"(satp), "r"(9) : "memory");
        } else {
            __asm__ volatile("sfence.vma zero, %1; csrw satp, %0" : : "r"(satp), "r"(9) : "memory");
        }
        CHECK_EQUAL(call(WINDOW), 10 + i % 3);
        CHECK_EQUAL(*(volatile uint64_t *)(WINDOW + 16 * PAGE), 30 + i % 3);
    }
    /* The table itself is used again, for another space under another number. */
    for (unsigned i = 0; i < ROUNDS; i++) {
        map_page(spaces[0], WINDOW, code_pages[i % 4], PTE_RWX);
        uint64_t satp = UINT64_C(8) << 60 | (UINT64_C(10) + i % 2) << 44 | spaces[0] >> 12;
        __asm__ volatile("csrw satp, %0; sfence.vma zero, %1"
                         :
                         : "r"(satp), "r"(10 + i % 2)
                         : "memory");
        CHECK_EQUAL(call(WINDOW), 10 + i % 4);
    }
    use_table(root, 0);
}

static uint64_t try_load(uint64_t address)
{
    uint64_t value = 0;
    trap->count = 0;
    trap->resume = 0;
    trap->expected = true;
    __asm__ volatile("ld %0, 0(%1)" : "+r"(value) : "r"(address) : "memory");
    trap->expected = false;
    return value;
}

static void try_store(uint64_t address, uint64_t value)
{
    trap->count = 0;
    trap->resume = 0;
    trap->expected = true;
    __asm__ volatile("sd %0, 0(%1)" : : "r"(value), "r"(address) : "memory");
    trap->expected = false;
}

static void taken_rights(void)
{
    uint64_t va = WINDOW + 32 * PAGE;
    for (unsigned i = 0; i < ROUNDS; i++) {
        map_page(root, va, data_pages[0], PTE_RW);
        fence_page(va);
        try_store(va, i);
        CHECK_EQUAL(trap->count, 0);
        CHECK_EQUAL(try_load(va), i);
        map_page(root, va, data_pages[0], PTE_RW & ~PTE_W);
        fence_page(va);
        try_store(va, 99);
        CHECK_EQUAL(trap->count, 1);
        CHECK_EQUAL(trap->cause, CAUSE_STORE_PAGE);
        CHECK_EQUAL(try_load(va), i);
        CHECK_EQUAL(trap->count, 0);
        map_page(root, va, data_pages[0], 0);
        fence_page(va);
        try_load(va);
        CHECK_EQUAL(trap->count, 1);
        CHECK_EQUAL(trap->cause, CAUSE_LOAD_PAGE);
        CHECK_EQUAL(trap->value, va);
    }
}

/* A 2 MiB page: flushing one address in it drops it all; then it is split. */
static void large_pages(void)
{
    uint64_t va = WINDOW + 0x400000;
    uint64_t large = 0x80800000;
    volatile uint64_t *first = (volatile uint64_t *)va;
    volatile uint64_t *later = (volatile uint64_t *)(va + 0x123000);
    *(volatile uint64_t *)large = 1;
    *(volatile uint64_t *)(large + 0x123000) = 2;
    for (unsigned i = 0; i < 50; i++) {
        *page_entry(root, va, 1) = large >> 12 << 10 | PTE_RW;
        fence_all();
        CHECK_EQUAL(*first, 1);
        CHECK_EQUAL(*later, 2);
        *page_entry(root, va, 1) = 0;
        fence_page(va + 0x55000);
        try_load(va + 0x123000);
        CHECK_EQUAL(trap->count, 1);
        map_page(root, va + 0x123000, data_pages[1], PTE_RW);
        fence_all();
        *(volatile uint64_t *)data_pages[1] = 77;
        CHECK_EQUAL(*later, 77);
        try_load(va);
        CHECK_EQUAL(trap->count, 1);
    }
    /* A large page that does not begin at its own size is no page. */
    *page_entry(root, va, 1) = (large + PAGE) >> 12 << 10 | PTE_RW;
    fence_all();
    try_load(va);
    CHECK_EQUAL(trap->cause, CAUSE_LOAD_PAGE);
    *page_entry(root, va, 1) = 0;
    fence_all();
}

/* The hardware sets A and D (Svadu): A by any access, D by a store only. */
static void accessed_and_dirty(void)
{
    uint64_t va = WINDOW + 48 * PAGE;
    volatile uint64_t *entry = page_entry(root, va, 0);
    for (unsigned i = 0; i < 50; i++) {
        map_page(root, va, data_pages[2], PTE_V | PTE_R | PTE_W);
        fence_page(va);
        CHECK_EQUAL(*entry & (PTE_A | PTE_D), 0);
        try_load(va);
        CHECK_EQUAL(trap->count, 0);
        CHECK_EQUAL(*entry & (PTE_A | PTE_D), PTE_A);
        try_store(va, i);
        CHECK_EQUAL(trap->count, 0);
        CHECK_EQUAL(*entry & (PTE_A | PTE_D), PTE_A | PTE_D);
    }
}

/* Code at WINDOW + 64 pages maps another page over itself and goes on in that one. */
static void own_page(void)
{
    uint64_t va = WINDOW + 64 * PAGE;
    for (unsigned i = 0; i < 2; i++) {
        /* sd a1, 0(a2); sfence.vma; li a0, n; ret */
        volatile uint32_t *code = (volatile uint32_t *)(code_pages[i] + 256);
        code[0] = 0x00b63023;
        code[1] = 0x12000073;
        code[2] = INSN_LI_A0(20 + i);
        code[3] = INSN_RET;
    }
    fence_code();
    volatile uint64_t *entry = page_entry(root, va, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        map_page(root, va, code_pages[i % 2], PTE_RWX);
        fence_page(va);
        uint64_t to = code_pages[1 - i % 2] >> 12 << 10 | PTE_RWX;
        register uint64_t a0 __asm__("a0") = 0;
        register uint64_t a1 __asm__("a1") = to;
        register uint64_t a2 __asm__("a2") = (uint64_t)entry;
        __asm__ volatile("jalr ra, %1"
                         : "+r"(a0)
                         : "r"(va + 256), "r"(a1), "r"(a2)
                         : "ra", "memory");
        CHECK_EQUAL(a0, 20 + (1 - i % 2));
    }
}

/* Another hart changes the mapping; after it has said so, and after this hart's own fence, the new
 * page is seen. */
static volatile uint64_t requested, done[HARTS_MAX];

static void change_for_others(uint64_t harts)
{
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        map_page(root, WINDOW, code_pages[i % 4], PTE_RWX);
        map_page(root, WINDOW + 16 * PAGE, data_pages[i % 4], PTE_RW);
        *(volatile uint64_t *)data_pages[i % 4] = i;
        __atomic_store_n(&requested, i, __ATOMIC_SEQ_CST);
        for (uint64_t hart = 1; hart < harts; hart++) {
            while (__atomic_load_n(&done[hart], __ATOMIC_SEQ_CST) != i) {
                register_read(BARE_YIELD);
            }
        }
    }
}

static void follow_changes(uint64_t hart)
{
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        while (__atomic_load_n(&requested, __ATOMIC_SEQ_CST) != i) {
            call(WINDOW); /* keep the old translation warm */
            register_read(BARE_YIELD);
        }
        fence_all();
        CHECK_EQUAL(call(WINDOW), 10 + i % 4);
        CHECK_EQUAL(*(volatile uint64_t *)(WINDOW + 16 * PAGE), i);
        __atomic_store_n(&done[hart], i, __ATOMIC_SEQ_CST);
    }
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    if (hart == 0) {
        trap = &guest_traps[0];
        root = make_table();
        for (unsigned i = 0; i < 4; i++) {
            code_pages[i] = allocate_pages(1);
            data_pages[i] = allocate_pages(1);
            write_function(code_pages[i], 10 + i);
        }
        fence_code();
        use_table(root, 0);
        remapped_code();
        remapped_data();
        address_spaces();
        reused_numbers();
        taken_rights();
        large_pages();
        accessed_and_dirty();
        own_page();
        map_page(root, WINDOW, code_pages[0], PTE_RWX);
        map_page(root, WINDOW + 16 * PAGE, data_pages[0], PTE_RW);
        fence_all();
    }
    barrier(harts);
    fence_code();
    use_table(root, 0);
    barrier(harts);
    if (hart == 0) {
        change_for_others(harts);
    } else {
        follow_changes(hart);
    }
    return 0;
}
