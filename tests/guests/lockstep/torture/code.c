/* Code that is rewritten: by itself, by another hart, through another mapping, across a page. */
#include "tests/guests/lockstep/torture/guest.h"

enum { ROUNDS = 1000 };
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

/* Every kind of store can be the one that writes code: into another function, where the function
 * ends in a return of four bytes, and into what follows in the same block. */
#define STORES(X)                                                                                  \
    X(sb, "srli t1, %1, 16\nsb t1, 2(%0)\nsrli t1, %1, 24\nsb t1, 3(%0)\n")                        \
    X(sh, "srli t1, %1, 16\nsh t1, 2(%0)\n")                                                       \
    X(sw, "sw %1, 0(%0)\n")                                                                        \
    X(sd, "lwu t1, 4(%0)\nslli t1, t1, 32\nslli t0, %1, 32\nsrli t0, t0, 32\nor t1, t1, t0\n"      \
          "sd t1, 0(%0)\n")                                                                        \
    X(misaligned, "lhu t1, 4(%0)\nslli t1, t1, 16\nsrli t0, %1, 16\nslli t0, t0, 48\n"             \
                  "srli t0, t0, 48\nor t1, t1, t0\nsw t1, 2(%0)\n")                                \
    X(fsw, "fmv.w.x ft0, %1\nfsw ft0, 0(%0)\n")                                                    \
    X(amoswap, "amoswap.w t1, %1, (%0)\n")                                                         \
    X(amo_logical, "lw t1, 0(%0)\nxor t1, t1, %1\namoxor.w zero, t1, (%0)\n")                      \
    X(sc, "2: lr.w t1, (%0)\nsc.w t1, %1, (%0)\nbnez t1, 2b\n")                                    \
    X(sc_watched, "2: lr.w t1, (%0)\nlw t0, 4(%0)\nsc.w t1, %1, (%0)\nbnez t1, 2b\n")

typedef void store_function(uint64_t address, uint64_t instruction);
#define X(name, code)                                                                              \
    static __attribute__((noinline)) void store_##name(uint64_t address, uint64_t instruction)     \
    {                                                                                              \
        __asm__ volatile(".option push\n.option norvc\n" code ".option pop\n"                      \
                         :                                                                         \
                         : "r"(address), "r"(instruction)                                          \
                         : "t0", "t1", "ft0", "memory");                                           \
    }                                                                                              \
    static __attribute__((noinline)) uint64_t patch_own_##name(uint64_t instruction)               \
    {                                                                                              \
        uint64_t address = 0, result;                                                              \
        __asm__ volatile(".option push\n.option norvc\n"                                           \
                         "la %0, 1f\n" code "fence.i\n"                                            \
                         ".balign 8\n"                                                             \
                         "1: addi a0, zero, 0\n"                                                   \
                         "nop\n"                                                                   \
                         "mv %2, a0\n"                                                             \
                         ".option pop\n"                                                           \
                         : "+&r"(address), "+r"(instruction), "=r"(result)                         \
                         :                                                                         \
                         : "t0", "t1", "a0", "ft0", "memory");                                     \
        return result;                                                                             \
    }
STORES(X)
#undef X

static const struct {
    store_function *store;
    uint64_t (*patch_own)(uint64_t instruction);
} stores[] = {
#define X(name, code) {store_##name, patch_own_##name},
    STORES(X)
#undef X
};
enum { STORE_KINDS = sizeof(stores) / sizeof(stores[0]) };

static void every_store(void)
{
    uint64_t function = first_page + 192;
    write_function(function, 0);
    for (uint64_t i = 0; i < 50 * STORE_KINDS; i++) {
        unsigned kind = i % STORE_KINDS;
        stores[kind].store(function, INSN_LI_A0(i));
        fence_code();
        uint64_t result = call(function);
        if (result != i) {
            guest_fail(__LINE__, kind, result);
        }
        result = stores[kind].patch_own(INSN_LI_A0(i));
        if (result != i) {
            guest_fail(__LINE__, kind, result);
        }
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

/* --- several harts ---------------------------------------------------------------------------- */
#define ALIAS      (WINDOW + 16 * PAGE) /* of second_page, to run */
#define WRITABLE   (WINDOW + 18 * PAGE) /* of second_page, to write */
#define ACROSS     (WINDOW + 20 * PAGE) /* first_page, then second_page */
#define ACROSS_END (ACROSS + PAGE)

static void map_aliases(void)
{
    map_page(root, ALIAS, second_page, PTE_RWX);
    map_page(root, WRITABLE, second_page, PTE_RW);
    map_page(root, ACROSS, first_page, PTE_RWX);
    map_page(root, ACROSS_END, second_page, PTE_RWX);
    fence_all();
}

/* One hart patches as fast as it can, the other never sees less than what was published before its
 * instruction fetch barrier; or before the patching hart's remote one, if `remote`. The second
 * function has its immediate at the start of a page and its opcode at the end of another. */
static volatile uint64_t published;
enum { LAST = 400 };

static void patch_for_others(uint64_t harts, bool remote)
{
    volatile uint16_t *high = (volatile uint16_t *)WRITABLE;
    for (uint64_t i = 1; i <= LAST; i++) {
        *(volatile uint32_t *)(WRITABLE + 256) = INSN_LI_A0(i);
        high[0] = (uint16_t)(i << 4);
        if (remote) {
            remote_fence(0, (UINT64_C(1) << harts) - 1, 0, 0, 0);
        }
        __atomic_store_n(&published, i, __ATOMIC_SEQ_CST);
    }
}

static void run_patched(bool remote)
{
    const uint64_t functions[] = {second_page + 256, ALIAS + 256, ACROSS_END - 2};
    uint64_t seen;
    do {
        seen = __atomic_load_n(&published, __ATOMIC_SEQ_CST);
        if (!remote) {
            fence_code();
        }
        for (unsigned i = 0; i < 3; i++) {
            uint64_t result = call(functions[i]);
            if (result < seen || result > LAST) {
                guest_fail(__LINE__, result, seen << 8 | i);
            }
        }
    } while (seen < LAST);
}

static void cross_patch(uint64_t hart, uint64_t harts, bool remote)
{
    barrier(harts);
    if (hart == 0) {
        volatile uint16_t *high = (volatile uint16_t *)second_page;
        published = 0;
        write_function(second_page + 256, 0);
        *(volatile uint16_t *)(first_page + PAGE - 2) = INSN_LI_A0(0) & 0xffff;
        high[0] = 0;
        high[1] = INSN_RET & 0xffff;
        high[2] = INSN_RET >> 16;
    }
    barrier(harts);
    fence_code();
    if (hart == harts - 1) {
        patch_for_others(harts, remote);
    } else {
        run_patched(remote);
    }
    barrier(harts);
}

/* Each hart writes and runs functions of its own, side by side in one page. */
static void neighbours(uint64_t hart, uint64_t harts)
{
    uint64_t function = second_page + 1024 + 16 * hart;
    write_function(function, 0);
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        stores[i % STORE_KINDS].store(function, INSN_LI_A0(i));
        fence_code();
        CHECK_EQUAL(call(i % 2 ? function : function - second_page + ALIAS), i);
    }
    barrier(harts);
}

/* All write one function; whoever wins, it is what all run in the end. */
static void rivals(uint64_t hart, uint64_t harts)
{
    uint64_t function = second_page + 2048;
    if (hart == 0) {
        write_function(function, 0);
    }
    barrier(harts);
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        *(volatile uint32_t *)function = INSN_LI_A0(1 + hart * 100 + i % 100);
        fence_code();
        uint64_t result = call(function);
        if (result > harts * 100) {
            guest_fail(__LINE__, result, i);
        }
    }
    barrier(harts);
    fence_code();
    CHECK_EQUAL(call(function), *(volatile uint32_t *)function >> 20);
    barrier(harts);
}

/* The others stand in a loop that never ends, until it is patched under them. */
static volatile uint64_t entered;

static void endless_loops(uint64_t hart, uint64_t harts)
{
    uint64_t function = second_page + 3072;
    volatile uint32_t *code = (volatile uint32_t *)function;
    for (unsigned i = 0; i < 50; i++) {
        if (hart == 0) {
            code[0] = 0x00150513;                      /* addi a0, a0, 1 */
            code[1] = i % 2 ? 0xffdff06f : 0x0000006f; /* back to that, or only to itself */
            entered = 0;
        }
        barrier(harts);
        fence_code();
        if (hart != 0) {
            __atomic_fetch_add(&entered, 1, __ATOMIC_SEQ_CST);
            call(i % 3 ? function : function - second_page + ALIAS);
        } else {
            while (__atomic_load_n(&entered, __ATOMIC_SEQ_CST) != harts - 1) {
                register_read(BARE_YIELD);
            }
            register_read(BARE_YIELD);
            *(volatile uint32_t *)(WRITABLE + 3072 + 4) = INSN_RET;
            remote_fence(0, (UINT64_C(1) << harts) - 1, 0, 0, 0);
        }
        barrier(harts);
    }
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
        every_store();
        map_aliases();
    }
    barrier(harts);
    if (hart != 0) {
        use_table(root, 0);
    }
    cross_patch(hart, harts, false);
    cross_patch(hart, harts, true);
    neighbours(hart, harts);
    rivals(hart, harts);
    endless_loops(hart, harts);
    return 0;
}
