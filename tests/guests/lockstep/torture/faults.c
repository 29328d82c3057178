/* Every kind of access against every kind of page: cause, value and address of the trap are exact,
 * and the instruction did nothing. */
#include "tests/guests/lockstep/torture/guest.h"

#define WINDOW   0x40000000ul
#define SENTINEL 0x5e5e5e5e5e5e5e5eul

static struct trap_record *trap;

/* One access; leaves the instruction's address in *where and the register after it in the result.
 */
typedef uint64_t access_function(uint64_t address, uint64_t *where);

#define ACCESS(name, insn)                                                                         \
    static __attribute__((noinline)) uint64_t access_##name(uint64_t address, uint64_t *where)     \
    {                                                                                              \
        uint64_t value = SENTINEL;                                                                 \
        __asm__ volatile(".option push\n.option norvc\n"                                           \
                         "   la t1, 1f\n"                                                          \
                         "   sd t1, 0(%1)\n"                                                       \
                         "1: " insn "\n"                                                           \
                         ".option pop\n"                                                           \
                         : "+r"(value)                                                             \
                         : "r"(where), "r"(address)                                                \
                         : "t1", "ft0", "memory");                                                 \
        return value;                                                                              \
    }

ACCESS(lb, "lb %0, 0(%2)")
ACCESS(lbu, "lbu %0, 0(%2)")
ACCESS(lh, "lh %0, 0(%2)")
ACCESS(lw, "lw %0, 0(%2)")
ACCESS(lwu, "lwu %0, 0(%2)")
ACCESS(ld, "ld %0, 0(%2)")
ACCESS(flw, "flw ft0, 0(%2)")
ACCESS(fld, "fld ft0, 0(%2)")
ACCESS(lr_w, "lr.w %0, (%2)")
ACCESS(lr_d, "lr.d %0, (%2)")
ACCESS(sb, "sb %0, 0(%2)")
ACCESS(sh, "sh %0, 0(%2)")
ACCESS(sw, "sw %0, 0(%2)")
ACCESS(sd, "sd %0, 0(%2)")
ACCESS(fsw, "fsw ft0, 0(%2)")
ACCESS(fsd, "fsd ft0, 0(%2)")
ACCESS(amoadd_w, "amoadd.w %0, %0, (%2)")
ACCESS(amoswap_d, "amoswap.d %0, %0, (%2)")
ACCESS(amomaxu_d, "amomaxu.d.aqrl %0, %0, (%2)")

static const struct {
    access_function *access;
    unsigned size;
    bool store, atomic;
} accesses[] = {
    {access_lb, 1, false, false},      {access_lbu, 1, false, false},
    {access_lh, 2, false, false},      {access_lw, 4, false, false},
    {access_lwu, 4, false, false},     {access_ld, 8, false, false},
    {access_flw, 4, false, false},     {access_fld, 8, false, false},
    {access_lr_w, 4, false, true},     {access_lr_d, 8, false, true},
    {access_sb, 1, true, false},       {access_sh, 2, true, false},
    {access_sw, 4, true, false},       {access_sd, 8, true, false},
    {access_fsw, 4, true, false},      {access_fsd, 8, true, false},
    {access_amoadd_w, 4, true, true},  {access_amoswap_d, 8, true, true},
    {access_amomaxu_d, 8, true, true},
};
enum { ACCESSES = sizeof(accesses) / sizeof(accesses[0]) };

enum { FINE = 0, PAGE_FAULT = 1, ACCESS_FAULT = 2 };
#define PTE_AD      (PTE_A | PTE_D)
#define NO_MEMORY   0x20000000ul
#define NOT_THERE   0x0000004000000000ul /* not canonical in Sv39 */
#define PTE_BAD_BIT (UINT64_C(1) << 60)  /* reserved */

/* Page kinds: what loads, stores and fetches in supervisor mode without SUM do there. */
static const struct {
    uint64_t flags;
    bool no_memory;
    uint8_t load, store, fetch;
} kinds[] = {
    {0, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_AD | PTE_R | PTE_W, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT}, /* not valid */
    {PTE_V | PTE_AD | PTE_R, false, FINE, PAGE_FAULT, PAGE_FAULT},
    {PTE_V | PTE_AD | PTE_R | PTE_W, false, FINE, FINE, PAGE_FAULT},
    {PTE_V | PTE_AD | PTE_R | PTE_X, false, FINE, PAGE_FAULT, FINE},
    {PTE_V | PTE_AD | PTE_X, false, PAGE_FAULT, PAGE_FAULT, FINE},
    {PTE_V | PTE_AD | PTE_W, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT}, /* reserved */
    {PTE_V | PTE_AD | PTE_W | PTE_X, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_V | PTE_AD, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT}, /* a pointer at the last level */
    {PTE_RWX | PTE_U, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX | PTE_BAD_BIT, false, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX, true, ACCESS_FAULT, ACCESS_FAULT, ACCESS_FAULT},
    {PTE_RWX, false, FINE, FINE, FINE},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static const uint64_t causes[3][3] = {
    [PAGE_FAULT] = {CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE, CAUSE_FETCH_PAGE},
    [ACCESS_FAULT] = {CAUSE_LOAD_ACCESS, CAUSE_STORE_ACCESS, CAUSE_FETCH_ACCESS},
};

static uint64_t root, page;

static void expect(uint64_t resume)
{
    trap->count = 0;
    trap->resume = resume;
    trap->expected = true;
}

/* `id` tells in a failure which of the table's rows it was. */
static void check_access(unsigned which, uint64_t address, unsigned outcome, uint64_t id)
{
    uint64_t where = 0;
    expect(0);
    uint64_t value = accesses[which].access(address, &where);
    trap->expected = false;
    if (outcome == FINE) {
        if (trap->count != 0) {
            guest_fail(__LINE__, id, trap->cause);
        }
        return;
    }
    if (trap->count != 1) {
        guest_fail(__LINE__, id, trap->count);
    }
    if (trap->cause != causes[outcome][accesses[which].store]) {
        guest_fail(__LINE__, id, trap->cause);
    }
    if (trap->value != address) {
        guest_fail(__LINE__, id, trap->value);
    }
    if (trap->pc != where) {
        guest_fail(__LINE__, id, trap->pc);
    }
    if (value != SENTINEL) {
        guest_fail(__LINE__, id, value);
    }
}

static void check_fetch(uint64_t address, unsigned outcome, uint64_t id)
{
    uint64_t back;
    expect(0);
    __asm__ volatile("   la %0, 1f\n"
                     "   sd %0, 0(%1)\n"
                     "   jalr ra, %2\n"
                     "1:\n"
                     : "=&r"(back)
                     : "r"(&trap->resume), "r"(address)
                     : "ra", "a0", "memory");
    trap->expected = false;
    if (outcome == FINE) {
        if (trap->count != 0) {
            guest_fail(__LINE__, id, trap->cause);
        }
        return;
    }
    if (trap->count != 1 || trap->cause != causes[outcome][2]) {
        guest_fail(__LINE__, id, trap->cause);
    }
    if (trap->value != address || trap->pc != address) {
        guest_fail(__LINE__, id, trap->pc);
    }
}

static void every_access(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        uint64_t flags = kinds[kind].flags;
        uint64_t target = kinds[kind].no_memory ? NO_MEMORY : page;
        map_page(root, WINDOW, target, 0);
        *page_entry(root, WINDOW, 0) = target >> 12 << 10 | flags;
        fence_all();
        for (unsigned which = 0; which < ACCESSES; which++) {
            uint64_t address = WINDOW + 64 + 8 * which;
            unsigned outcome = accesses[which].store ? kinds[kind].store : kinds[kind].load;
            /* Twice: what the first try left in the TLB must not matter. */
            check_access(which, address, outcome, kind << 8 | which);
            check_access(which, address, outcome, kind << 8 | which);
        }
        check_fetch(WINDOW, kinds[kind].fetch, kind << 8 | 255);
        check_fetch(WINDOW, kinds[kind].fetch, kind << 8 | 255);
    }
    for (unsigned which = 0; which < ACCESSES; which++) {
        check_access(which, NOT_THERE, PAGE_FAULT, 0x1000 | which);
        check_access(which, ~NOT_THERE & ~UINT64_C(0xff), PAGE_FAULT, 0x1100 | which);
    }
    check_fetch(NOT_THERE, PAGE_FAULT, 0x1200);
}

/* Atomics must be aligned, and say so before anything else is looked at. */
static void misaligned_atomics(void)
{
    *page_entry(root, WINDOW, 0) = page >> 12 << 10 | PTE_RWX;
    fence_all();
    for (unsigned which = 0; which < ACCESSES; which++) {
        if (!accesses[which].atomic) {
            continue;
        }
        for (unsigned offset = 1; offset < accesses[which].size; offset++) {
            uint64_t where = 0;
            expect(0);
            uint64_t value = accesses[which].access(WINDOW + 512 + offset, &where);
            trap->expected = false;
            CHECK_EQUAL(trap->count, 1);
            CHECK_EQUAL(trap->cause,
                        accesses[which].store ? CAUSE_STORE_MISALIGNED : CAUSE_LOAD_MISALIGNED);
            CHECK_EQUAL(trap->value, WINDOW + 512 + offset);
            CHECK_EQUAL(trap->pc, where);
            CHECK_EQUAL(value, SENTINEL);
        }
    }
}

/* SUM opens user pages to loads and stores but not to fetches; MXR makes executable readable. */
static void permission_modifiers(void)
{
    enum { SUM = 1 << 18, MXR = 1 << 19 };
    *page_entry(root, WINDOW, 0) = page >> 12 << 10 | PTE_RWX | PTE_U;
    *page_entry(root, WINDOW + PAGE, 0) = page >> 12 << 10 | PTE_V | PTE_X | PTE_A;
    fence_all();
    for (unsigned i = 0; i < 3; i++) {
        check_access(5, WINDOW, PAGE_FAULT, 0x2000);
        check_access(5, WINDOW + PAGE, PAGE_FAULT, 0x2001);
        __asm__ volatile("csrs sstatus, %0" : : "r"(SUM) : "memory");
        check_access(5, WINDOW, FINE, 0x2002);
        check_access(13, WINDOW + 64, FINE, 0x2003);
        check_access(5, WINDOW + PAGE, PAGE_FAULT, 0x2004);
        check_fetch(WINDOW, PAGE_FAULT, 0x2005);
        __asm__ volatile("csrs sstatus, %0" : : "r"(MXR) : "memory");
        check_access(5, WINDOW + PAGE, FINE, 0x2006);
        check_access(13, WINDOW + PAGE, PAGE_FAULT, 0x2007);
        __asm__ volatile("csrc sstatus, %0" : : "r"(SUM | MXR) : "memory");
    }
}

/* An instruction that begins on a good page and ends on a bad one. */
static void fetch_across(void)
{
    volatile uint16_t *last = (volatile uint16_t *)(page + PAGE - 2);
    *last = 0x0513; /* half of addi a0, zero, ... */
    *page_entry(root, WINDOW, 0) = page >> 12 << 10 | PTE_RWX;
    *page_entry(root, WINDOW + PAGE, 0) = 0;
    fence_all();
    fence_code();
    uint64_t back;
    expect(0);
    __asm__ volatile("   la %0, 1f\n"
                     "   sd %0, 0(%1)\n"
                     "   jalr ra, %2\n"
                     "1:\n"
                     : "=&r"(back)
                     : "r"(&trap->resume), "r"(WINDOW + PAGE - 2)
                     : "ra", "a0", "memory");
    trap->expected = false;
    CHECK_EQUAL(trap->count, 1);
    CHECK_EQUAL(trap->cause, CAUSE_FETCH_PAGE);
    CHECK_EQUAL(trap->pc, WINDOW + PAGE - 2);
    CHECK_EQUAL(trap->value, WINDOW + PAGE);
}

/* What comes before the fault is done, what comes after is not. */
static void precise_within_block(void)
{
    uint64_t first, second, third;
    for (unsigned i = 0; i < 10; i++) {
        expect(0);
        __asm__ volatile(".option push\n.option norvc\n"
                         "   la t0, 1f\n"
                         "   sd t0, 0(%3)\n"
                         "   li t1, 11\n"
                         "   li t2, 22\n"
                         "   addi t1, t1, 1\n"
                         "   ld t2, 0(%4)\n"
                         "   addi t1, t1, 100\n"
                         "   li t0, 33\n"
                         "1: mv %0, t0\n"
                         "   mv %1, t1\n"
                         "   mv %2, t2\n"
                         ".option pop\n"
                         : "=&r"(first), "=&r"(second), "=&r"(third)
                         : "r"(&trap->resume), "r"(NOT_THERE)
                         : "t0", "t1", "t2", "memory");
        trap->expected = false;
        CHECK_EQUAL(trap->count, 1);
        CHECK_EQUAL(trap->x[6], 12);
        CHECK_EQUAL(trap->x[7], 22);
        CHECK_EQUAL(second, 12);
        CHECK_EQUAL(third, 22);
        CHECK(first != 33);
    }
}

/* Illegal instructions report their bits; a breakpoint its address or nothing. */
static void exceptions_of_instructions(void)
{
    static const uint32_t words[] = {0xffffffff, 0x0000707f, 0xc0002073 | 5 << 15,
                                     0x02007057 | 0x7b};
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        volatile uint32_t *code = (volatile uint32_t *)page;
        code[0] = words[i];
        code[1] = INSN_RET;
        fence_code();
        expect(0);
        call(page);
        trap->expected = false;
        CHECK_EQUAL(trap->count, 1);
        CHECK_EQUAL(trap->cause, CAUSE_ILLEGAL);
        CHECK_EQUAL(trap->value, words[i]);
        CHECK_EQUAL(trap->pc, page);
    }
    volatile uint16_t *code = (volatile uint16_t *)page;
    code[0] = 0; /* the defined illegal instruction */
    code[1] = INSN_RET & 0xffff;
    code[2] = INSN_RET >> 16;
    fence_code();
    expect(0);
    call(page);
    trap->expected = false;
    CHECK_EQUAL(trap->cause, CAUSE_ILLEGAL);
    CHECK_EQUAL(trap->value, 0);
    CHECK_EQUAL(trap->pc, page);
    expect(0);
    uint64_t where;
    __asm__ volatile("la %0, 1f\n1: ebreak" : "=r"(where) : : "memory");
    trap->expected = false;
    CHECK_EQUAL(trap->cause, CAUSE_BREAKPOINT);
    CHECK_EQUAL(trap->pc, where);
    CHECK(trap->value == 0 || trap->value == where);
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    (void)harts;
    trap = &guest_traps[hart];
    root = make_table();
    page = allocate_pages(1);
    /* Every parcel a return: wherever a fetch is fine, it comes back. */
    for (unsigned i = 0; i < PAGE; i += 2) {
        *(volatile uint16_t *)(page + i) = 0x8082;
    }
    map_page(root, WINDOW, page, PTE_RWX);
    use_table(root, 0);
    every_access();
    misaligned_atomics();
    permission_modifiers();
    fetch_across();
    precise_within_block();
    exceptions_of_instructions();
    return 0;
}
