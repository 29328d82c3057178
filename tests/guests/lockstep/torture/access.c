/* Accesses that cross pages which are not neighbours in memory, and their faults. */
#include "tests/guests/lockstep/torture/guest.h"

#define WINDOW 0x400c8000ul

/* Each hart has its own. */
static struct {
    uint64_t root, low_page, high_page;
} of_hart[HARTS_MAX];
#define root      (of_hart[guest_hart()].root)
#define low_page  (of_hart[guest_hart()].low_page)
#define high_page (of_hart[guest_hart()].high_page)

/* The byte at offset `at` from the border between the two pages. */
static volatile uint8_t *physical_byte(int at)
{
    return (volatile uint8_t *)(at < 0 ? low_page + PAGE + (uint64_t)(int64_t)at
                                       : high_page + (uint64_t)at);
}

static void fill(uint8_t seed)
{
    for (int i = -16; i < 16; i++) {
        *physical_byte(i) = (uint8_t)(seed + i);
    }
}

static uint64_t gather(int at, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)*physical_byte(at + (int)i) << (8 * i);
    }
    return value;
}

static uint64_t sign_extended(uint64_t value, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    return (uint64_t)((int64_t)(value << shift) >> shift);
}

#define LOAD(insn, address)                                                                        \
    ({                                                                                             \
        uint64_t value_;                                                                           \
        __asm__ volatile(insn " %0, 0(%1)" : "=r"(value_) : "r"(address) : "memory");              \
        value_;                                                                                    \
    })
#define STORE(insn, address, value)                                                                \
    __asm__ volatile(insn " %1, 0(%0)" : : "r"(address), "r"(value) : "memory")

static void check_loads(int at)
{
    uint64_t address = WINDOW + PAGE + (uint64_t)(int64_t)at;
    CHECK_EQUAL(LOAD("lh", address), sign_extended(gather(at, 2), 2));
    CHECK_EQUAL(LOAD("lhu", address), gather(at, 2));
    CHECK_EQUAL(LOAD("lw", address), sign_extended(gather(at, 4), 4));
    CHECK_EQUAL(LOAD("lwu", address), gather(at, 4));
    CHECK_EQUAL(LOAD("ld", address), gather(at, 8));
    uint64_t value;
    __asm__ volatile("fld ft0, 0(%1); fmv.x.d %0, ft0" : "=r"(value) : "r"(address) : "ft0");
    CHECK_EQUAL(value, gather(at, 8));
    __asm__ volatile("flw ft0, 0(%1); fmv.x.d %0, ft0" : "=r"(value) : "r"(address) : "ft0");
    CHECK_EQUAL(value, gather(at, 4) | UINT64_C(0xffffffff00000000));
}

static void check_stores(int at)
{
    uint64_t address = WINDOW + PAGE + (uint64_t)(int64_t)at;
    uint64_t value = UINT64_C(0x8182838485868788) * (uint64_t)(at + 20);
    fill(1);
    STORE("sh", address, value);
    CHECK_EQUAL(gather(at, 2), value & 0xffff);
    CHECK_EQUAL(*physical_byte(at - 1), (uint8_t)(at - 1 + 1));
    CHECK_EQUAL(*physical_byte(at + 2), (uint8_t)(at + 2 + 1));
    STORE("sw", address, value + 1);
    CHECK_EQUAL(gather(at, 4), (uint32_t)(value + 1));
    CHECK_EQUAL(*physical_byte(at + 4), (uint8_t)(at + 4 + 1));
    STORE("sd", address, value + 2);
    CHECK_EQUAL(gather(at, 8), value + 2);
    CHECK_EQUAL(*physical_byte(at + 8), (uint8_t)(at + 8 + 1));
    __asm__ volatile("fmv.d.x ft0, %1; fsd ft0, 0(%0)" : : "r"(address), "r"(~value) : "memory");
    CHECK_EQUAL(gather(at, 8), ~value);
    __asm__ volatile("fmv.d.x ft0, %1; fsw ft0, 0(%0)" : : "r"(address), "r"(value) : "memory");
    CHECK_EQUAL(gather(at, 4), (uint32_t)value);
}

static void crossing(void)
{
    for (int at = -10; at <= 2; at++) {
        for (unsigned flush = 0; flush < 2; flush++) {
            if (flush) {
                fence_all();
            }
            fill((uint8_t)(at * 5));
            check_loads(at);
            check_stores(at);
        }
    }
}

/* A crossing access of which one page is missing: the address of the missing part is reported and
 * nothing is loaded or stored. */
static void crossing_fault(int at, uint64_t cause_load, uint64_t expected_value, bool load_too)
{
    struct trap_record *trap = &guest_traps[guest_hart()];
    uint64_t address = WINDOW + PAGE + (uint64_t)(int64_t)at;
    fill(3);
    uint64_t before = gather(at, 8);
    uint64_t count = trap->count;
    uint64_t value = 0x1234;
    trap->expected = true;
    trap->resume = 0;
    if (load_too) {
        __asm__ volatile("ld %0, 0(%1)" : "+r"(value) : "r"(address) : "memory");
        CHECK_EQUAL(trap->count, count + 1);
        CHECK_EQUAL(trap->cause, cause_load);
        CHECK_EQUAL(trap->value, expected_value);
        CHECK_EQUAL(value, 0x1234);
        count++;
    }
    STORE("sd", address, value);
    trap->expected = false;
    CHECK_EQUAL(trap->count, count + 1);
    CHECK_EQUAL(trap->cause, cause_load + 2);
    CHECK_EQUAL(trap->value, expected_value);
    CHECK_EQUAL(gather(at, 8), before);
}

static void crossing_faults(void)
{
    for (int at = -7; at <= -1; at++) {
        uint64_t address = WINDOW + PAGE + (uint64_t)(int64_t)at;
        map_page(root, WINDOW + PAGE, high_page, 0);
        fence_page(WINDOW + PAGE);
        crossing_fault(at, CAUSE_LOAD_PAGE, WINDOW + PAGE, true);
        map_page(root, WINDOW, low_page, 0);
        map_page(root, WINDOW + PAGE, high_page, PTE_RW);
        fence_all();
        crossing_fault(at, CAUSE_LOAD_PAGE, address, true);
        /* Readable but not writable. */
        map_page(root, WINDOW, low_page, PTE_RW);
        map_page(root, WINDOW + PAGE, high_page, PTE_V | PTE_R | PTE_A | PTE_D);
        fence_all();
        crossing_fault(at, CAUSE_LOAD_PAGE, WINDOW + PAGE, false);
        /* Mapped to where no memory is. */
        map_page(root, WINDOW + PAGE, 0x20000000, PTE_RW);
        fence_all();
        crossing_fault(at, CAUSE_LOAD_ACCESS, WINDOW + PAGE, true);
        /* A device's registers behind memory, and before it. */
        map_page(root, WINDOW + PAGE, BARE_EXIT, PTE_RW);
        fence_all();
        crossing_fault(at, CAUSE_LOAD_ACCESS, WINDOW + PAGE, true);
        map_page(root, WINDOW, BARE_EXIT, PTE_RW);
        map_page(root, WINDOW + PAGE, high_page, PTE_RW);
        fence_all();
        crossing_fault(at, CAUSE_LOAD_ACCESS, address, true);
        map_page(root, WINDOW, low_page, PTE_RW);
        fence_all();
        check_loads(at);
    }
}

/* The halves of an access are the neighbours of code that runs now and then, and so are watched. */
static void crossing_into_code(void)
{
    uint64_t pages[2] = {low_page, high_page};
    for (unsigned which = 0; which < 4; which++) {
        for (unsigned i = 0; i < 2; i++) {
            volatile uint32_t *code = (volatile uint32_t *)(pages[i] + 2048);
            code[0] = INSN_LI_A0(which);
            code[1] = INSN_RET;
            fence_code();
            if (which & 1 << i) {
                CHECK_EQUAL(call(pages[i] + 2048), which);
            }
        }
        crossing();
    }
}

/* A crossing store that changes the instruction itself. */
static void crossing_store_patches(void)
{
    map_page(root, WINDOW, low_page, PTE_RWX);
    map_page(root, WINDOW + PAGE, high_page, PTE_RWX);
    fence_all();
    for (uint64_t i = 0; i < 100; i++) {
        for (int at = -2; at >= -6; at -= 2) {
            uint64_t code = (uint64_t)INSN_RET << 32 | INSN_LI_A0(i);
            STORE("sd", WINDOW + PAGE + (uint64_t)(int64_t)at, code);
            fence_code();
            CHECK_EQUAL(call(WINDOW + PAGE + (uint64_t)(int64_t)at), i);
        }
    }
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    (void)hart;
    root = make_table();
    low_page = allocate_pages(1);
    allocate_pages(3);
    high_page = allocate_pages(1);
    map_page(root, WINDOW, low_page, PTE_RW);
    map_page(root, WINDOW + PAGE, high_page, PTE_RW);
    use_table(root, 0);
    barrier(harts);
    crossing();
    crossing_faults();
    crossing_into_code();
    crossing_store_patches();
    return 0;
}
