/* Code that is rewritten: by itself, by another hart, through another mapping, across a page. */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 2000 };
#define WINDOW 0x400c8000ul

static uint64_t root, first_page, second_page;

static void write_function(uint64_t address, unsigned value)
{
    volatile uint32_t *code = (volatile uint32_t *)address;
    code[0] = INSN_LI_A0(value);
    code[1] = INSN_RET;
}

static void another_page(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        write_function(first_page, i & 1023);
        fence_code();
        CHECK_EQUAL(call(first_page), i & 1023);
    }
}

/* The instruction that changes is the next but one in the same straight line. */
static void own_block(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t result;
        uint32_t instruction = 0x00000393u | (i & 1023) << 20; /* addi t2, zero, i */
        __asm__ volatile(".option push\n.option norvc\n"
                         "   la t0, 1f\n"
                         "   sw %1, 0(t0)\n"
                         "   fence.i\n"
                         "1: addi t2, zero, 0\n"
                         "   mv %0, t2\n"
                         ".option pop\n"
                         : "=&r"(result)
                         : "r"(instruction)
                         : "t0", "t2", "memory");
        CHECK_EQUAL(result, i & 1023);
    }
}

/* Data in the same 64 bytes as the loop that writes it. */
static void data_beside_code(void)
{
    uint64_t result;
    __asm__ volatile(".option push\n.option norvc\n.option norelax\n"
                     "   j 2f\n"
                     "   nop\n"
                     "   .balign 8\n"
                     "1: .dword 0\n"
                     "2: la t0, 1b\n"
                     "   sd zero, 0(t0)\n"
                     "   li t1, 5000\n"
                     "3: ld t2, 0(t0)\n"
                     "   addi t2, t2, 3\n"
                     "   sd t2, 0(t0)\n"
                     "   addi t1, t1, -1\n"
                     "   bnez t1, 3b\n"
                     "   ld %0, 0(t0)\n"
                     ".option pop\n"
                     : "=r"(result)
                     :
                     : "t0", "t1", "t2", "memory");
    CHECK_EQUAL(result, 15000);
}

/* An instruction whose halves lie in pages that are neighbours only virtually. */
static void across_pages(void)
{
    uint64_t start = WINDOW + PAGE - 2;
    volatile uint16_t *low = (volatile uint16_t *)(first_page + PAGE - 2);
    volatile uint16_t *high = (volatile uint16_t *)second_page;
    map_page(root, WINDOW, first_page, PTE_RWX);
    map_page(root, WINDOW + PAGE, second_page, PTE_RWX);
    fence_all();
    high[1] = INSN_RET & 0xffff;
    high[2] = INSN_RET >> 16;
    for (unsigned i = 0; i < ROUNDS; i++) {
        low[0] = 0x0513; /* addi a0, zero, i */
        high[0] = (uint16_t)((i & 1023) << 4);
        fence_code();
        CHECK_EQUAL(call(start), i & 1023);
        low[0] = 0x0537; /* lui a0, i << 8 */
        fence_code();
        CHECK_EQUAL(call(start), (uint64_t)(i & 1023) << 20);
        high[0] = (uint16_t)(((i & 1023) ^ 1) << 4);
        fence_code();
        CHECK_EQUAL(call(start), (uint64_t)((i & 1023) ^ 1) << 20);
    }
    /* The second half comes from another page now. */
    uint64_t third_page = allocate_pages(1);
    volatile uint16_t *other = (volatile uint16_t *)third_page;
    other[0] = 7 << 4;
    other[1] = INSN_RET & 0xffff;
    other[2] = INSN_RET >> 16;
    low[0] = 0x0513;
    map_page(root, WINDOW + PAGE, third_page, PTE_RWX);
    fence_page(WINDOW + PAGE);
    fence_code();
    CHECK_EQUAL(call(start), 7);
}

/* Written at one address, run at another. */
static void other_mapping(void)
{
    map_page(root, WINDOW + 8 * PAGE, first_page, PTE_RWX);
    map_page(root, WINDOW + 9 * PAGE, first_page, PTE_RW);
    fence_all();
    for (unsigned i = 0; i < ROUNDS; i++) {
        write_function(WINDOW + 9 * PAGE + 64, i & 1023);
        fence_code();
        CHECK_EQUAL(call(WINDOW + 8 * PAGE + 64), i & 1023);
        CHECK_EQUAL(call(first_page + 64), i & 1023);
    }
}

/* One hart patches as fast as it can, the other never sees less than what was published before its
 * instruction fetch barrier. */
static volatile uint64_t published;
enum { LAST = 2000 };

static void patch_for_others(void)
{
    for (uint64_t i = 0; i <= LAST; i++) {
        *(volatile uint32_t *)(second_page + 256) = INSN_LI_A0(i);
        __atomic_store_n(&published, i, __ATOMIC_SEQ_CST);
    }
}

static void run_patched(void)
{
    uint64_t seen;
    do {
        seen = __atomic_load_n(&published, __ATOMIC_SEQ_CST);
        fence_code();
        uint64_t result = call(second_page + 256);
        if (result < seen || result > LAST) {
            guest_fail(__LINE__, result, seen);
        }
    } while (seen < LAST);
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    if (hart == 0) {
        root = make_table();
        first_page = allocate_pages(1);
        allocate_pages(1);
        second_page = allocate_pages(1);
        use_table(root, 0);
        another_page();
        own_block();
        data_beside_code();
        across_pages();
        other_mapping();
        write_function(second_page + 256, 0);
        fence_code();
    }
    barrier(harts);
    if (hart != 0) {
        use_table(root, 0);
    }
    barrier(harts);
    if (hart == harts - 1) {
        patch_for_others();
    } else {
        run_patched();
    }
    return 0;
}
