/* Every kind of access against every kind of page: cause, value and address of the trap are exact,
 * and the instruction did nothing. */
#include "tests/guests/lockstep/torture/guest.h"

/* Not where the guest's own pages would push its translations out of a small direct-mapped TLB. */
#define WINDOW   0x400c8000ul
#define SENTINEL 0x5e5e5e5e5e5e5e5eul

enum { ROUNDS = 10 };

/* Each hart tortures address spaces and pages of its own. */
static struct {
    uint64_t root, page, user_code;
} of_hart[HARTS_MAX];
#define trap (&guest_traps[guest_hart()])
#define root (of_hart[guest_hart()].root)
#define page (of_hart[guest_hart()].page)

/* One access; leaves the instruction's address in *where and its register afterwards in the result.
 * The compressed ones have their operands in a4 (address) and a5. */
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

#define ACCESS_FLOAT(name, insn)                                                                   \
    static __attribute__((noinline)) uint64_t access_##name(uint64_t address, uint64_t *where)     \
    {                                                                                              \
        uint64_t value = SENTINEL;                                                                 \
        __asm__ volatile(".option push\n.option norvc\n"                                           \
                         "   fmv.d.x ft0, %0\n"                                                    \
                         "   la t1, 1f\n"                                                          \
                         "   sd t1, 0(%1)\n"                                                       \
                         "1: " insn "\n"                                                           \
                         "   fmv.x.d %0, ft0\n"                                                    \
                         ".option pop\n"                                                           \
                         : "+r"(value)                                                             \
                         : "r"(where), "r"(address)                                                \
                         : "t1", "ft0", "memory");                                                 \
        return value;                                                                              \
    }

#define ACCESS_SHORT(name, insn)                                                                   \
    static __attribute__((noinline)) uint64_t access_##name(uint64_t address, uint64_t *where)     \
    {                                                                                              \
        uint64_t value = SENTINEL;                                                                 \
        __asm__ volatile(".option push\n.option rvc\n"                                             \
                         "   mv a5, %0\n"                                                          \
                         "   fmv.d.x fa5, %0\n"                                                    \
                         "   mv a4, %2\n"                                                          \
                         "   mv t0, sp\n"                                                          \
                         "   la t1, 1f\n"                                                          \
                         "   sd t1, 0(%1)\n" insn "\n"                                             \
                         "   mv sp, t0\n"                                                          \
                         "   mv %0, a5\n"                                                          \
                         ".option pop\n"                                                           \
                         : "+r"(value)                                                             \
                         : "r"(where), "r"(address)                                                \
                         : "a4", "a5", "fa5", "t0", "t1", "memory");                               \
        return value;                                                                              \
    }

ACCESS(lb, "lb %0, 0(%2)")
ACCESS(lbu, "lbu %0, 0(%2)")
ACCESS(lh, "lh %0, 0(%2)")
ACCESS(lhu, "lhu %0, 0(%2)")
ACCESS(lw, "lw %0, 0(%2)")
ACCESS(lwu, "lwu %0, 0(%2)")
ACCESS(ld, "ld %0, 0(%2)")
ACCESS_FLOAT(flw, "flw ft0, 0(%2)")
ACCESS_FLOAT(fld, "fld ft0, 0(%2)")
ACCESS_SHORT(c_lw, "1: c.lw a5, 0(a4)")
ACCESS_SHORT(c_ld, "1: c.ld a5, 0(a4)")
ACCESS_SHORT(c_ldsp, "mv sp, a4\n1: c.ldsp a5, 0(sp)")
ACCESS_SHORT(c_fld, "1: c.fld fa5, 0(a4)\nfmv.x.d a5, fa5")
ACCESS(lr_w, "lr.w %0, (%2)")
ACCESS(lr_d, "lr.d %0, (%2)")
ACCESS(sb, "sb %0, 0(%2)")
ACCESS(sh, "sh %0, 0(%2)")
ACCESS(sw, "sw %0, 0(%2)")
ACCESS(sd, "sd %0, 0(%2)")
ACCESS_FLOAT(fsw, "fsw ft0, 0(%2)")
ACCESS_FLOAT(fsd, "fsd ft0, 0(%2)")
ACCESS_SHORT(c_sw, "1: c.sw a5, 0(a4)")
ACCESS_SHORT(c_sdsp, "mv sp, a4\n1: c.sdsp a5, 0(sp)")
ACCESS_SHORT(c_fsd, "1: c.fsd fa5, 0(a4)")
ACCESS(amoadd_w, "amoadd.w %0, %0, (%2)")
ACCESS(amoand_w, "amoand.w %0, %0, (%2)")
ACCESS(amomin_w, "amomin.w.rl %0, %0, (%2)")
ACCESS(amoswap_d, "amoswap.d %0, %0, (%2)")
ACCESS(amoxor_d, "amoxor.d.aq %0, %0, (%2)")
ACCESS(amomaxu_d, "amomaxu.d.aqrl %0, %0, (%2)")

enum access_kind { LOAD, STORE, RESERVE, AMO };
static const struct {
    access_function *access;
    unsigned size;
    enum access_kind kind;
} accesses[] = {
    {access_lb, 1, LOAD},       {access_lbu, 1, LOAD},     {access_lh, 2, LOAD},
    {access_lhu, 2, LOAD},      {access_lw, 4, LOAD},      {access_lwu, 4, LOAD},
    {access_ld, 8, LOAD},       {access_flw, 4, LOAD},     {access_fld, 8, LOAD},
    {access_c_lw, 4, LOAD},     {access_c_ld, 8, LOAD},    {access_c_ldsp, 8, LOAD},
    {access_c_fld, 8, LOAD},    {access_lr_w, 4, RESERVE}, {access_lr_d, 8, RESERVE},
    {access_sb, 1, STORE},      {access_sh, 2, STORE},     {access_sw, 4, STORE},
    {access_sd, 8, STORE},      {access_fsw, 4, STORE},    {access_fsd, 8, STORE},
    {access_c_sw, 4, STORE},    {access_c_sdsp, 8, STORE}, {access_c_fsd, 8, STORE},
    {access_amoadd_w, 4, AMO},  {access_amoand_w, 4, AMO}, {access_amomin_w, 4, AMO},
    {access_amoswap_d, 8, AMO}, {access_amoxor_d, 8, AMO}, {access_amomaxu_d, 8, AMO},
};
enum { ACCESSES = sizeof(accesses) / sizeof(accesses[0]), A_LOAD = 6, A_STORE = 18 };

static inline bool writes(unsigned which)
{
    return accesses[which].kind == STORE || accesses[which].kind == AMO;
}

static inline bool is_atomic(unsigned which)
{
    return accesses[which].kind == RESERVE || accesses[which].kind == AMO;
}

enum { FINE = 0, PAGE_FAULT = 1, ACCESS_FAULT = 2 };
#define PTE_AD      (PTE_A | PTE_D)
#define NO_MEMORY   0x20000000ul
#define DEVICE      0x10000000ul         /* registers, of which those from 64 to 255 do nothing */
#define NOT_THERE   0x0000004000000000ul /* not canonical in Sv39 */
#define PTE_BAD_BIT (UINT64_C(1) << 60)  /* reserved */

/* Page kinds: what loads, stores, atomics (that begin with a load: RESERVE) and fetches in
 * supervisor mode without SUM do there. */
enum place { RAM, NOWHERE, REGISTERS };
static const struct {
    uint64_t flags;
    enum place place;
    uint8_t load, store, atomic, fetch;
} kinds[] = {
    {0, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    /* not valid */
    {PTE_AD | PTE_R | PTE_W, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_V | PTE_AD | PTE_R, RAM, FINE, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_V | PTE_AD | PTE_R | PTE_W, RAM, FINE, FINE, FINE, PAGE_FAULT},
    {PTE_V | PTE_AD | PTE_R | PTE_X, RAM, FINE, PAGE_FAULT, PAGE_FAULT, FINE},
    {PTE_V | PTE_AD | PTE_X, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, FINE},
    /* reserved */
    {PTE_V | PTE_AD | PTE_W, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_V | PTE_AD | PTE_W | PTE_X, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    /* a pointer at the last level */
    {PTE_V | PTE_AD, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX | PTE_U, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX | PTE_BAD_BIT, RAM, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX, NOWHERE, ACCESS_FAULT, ACCESS_FAULT, ACCESS_FAULT, ACCESS_FAULT},
    /* no permission comes before no memory */
    {PTE_V | PTE_AD | PTE_R, NOWHERE, ACCESS_FAULT, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX, REGISTERS, FINE, FINE, ACCESS_FAULT, ACCESS_FAULT},
    {PTE_V | PTE_AD | PTE_R, REGISTERS, FINE, PAGE_FAULT, PAGE_FAULT, PAGE_FAULT},
    {PTE_RWX, RAM, FINE, FINE, FINE, FINE},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static const uint64_t causes[3][3] = {
    [PAGE_FAULT] = {CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE, CAUSE_FETCH_PAGE},
    [ACCESS_FAULT] = {CAUSE_LOAD_ACCESS, CAUSE_STORE_ACCESS, CAUSE_FETCH_ACCESS},
};

static void expect(uint64_t resume)
{
    trap->count = 0;
    trap->resume = resume;
    trap->expected = true;
}

static volatile uint64_t *word_of(uint64_t address)
{
    return (volatile uint64_t *)(page + (address & (PAGE - 1) & ~UINT64_C(7)));
}

/* `id` tells in a failure which of the table's rows it was. */
static void check_access(unsigned which, uint64_t address, unsigned outcome, uint64_t id)
{
    uint64_t where = 0, before = *word_of(address);
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
    if (trap->cause != causes[outcome][writes(which)]) {
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
    if (*word_of(address) != before) {
        guest_fail(__LINE__, id, before);
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

/* What an access of that sort meets on a page of that kind. */
static unsigned outcome_of(unsigned which, unsigned kind)
{
    bool reserves = accesses[which].kind == RESERVE;
    if (reserves && kinds[kind].place == RAM) {
        return kinds[kind].load;
    }
    if (reserves && kinds[kind].place == NOWHERE) {
        return ACCESS_FAULT;
    }
    if (reserves) {
        return kinds[kind].load == FINE ? ACCESS_FAULT : kinds[kind].load;
    }
    if (accesses[which].kind == AMO) {
        return kinds[kind].atomic;
    }
    return accesses[which].kind == STORE ? kinds[kind].store : kinds[kind].load;
}

static uint64_t place_of(unsigned kind)
{
    return kinds[kind].place == RAM ? page : kinds[kind].place == NOWHERE ? NO_MEMORY : DEVICE;
}

static void every_access(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        map_page(root, WINDOW, 0, 0);
        *page_entry(root, WINDOW, 0) = place_of(kind) >> 12 << 10 | kinds[kind].flags;
        fence_all();
        for (unsigned which = 0; which < ACCESSES; which++) {
            uint64_t address = WINDOW + 64 + 8 * (which % 24);
            unsigned outcome = outcome_of(which, kind);
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

/* The walk itself leads to where no memory is, at each level. */
static void broken_walks(void)
{
    uint64_t far = WINDOW + (UINT64_C(8) << 30); /* a gigabyte of its own */
    for (unsigned level = 1; level <= 2; level++) {
        *page_entry(root, far, level) = NO_MEMORY >> 12 << 10 | PTE_V;
        fence_all();
        for (unsigned which = 0; which < ACCESSES; which++) {
            check_access(which, far + 64, ACCESS_FAULT, 0x3000 | level << 8 | which);
        }
        check_fetch(far, ACCESS_FAULT, 0x3000 | level << 8 | 255);
        *page_entry(root, far, level) = 0;
        fence_all();
    }
}

/* Without translation there is no page to be missing, but memory to be missing. */
static void bare_accesses(void)
{
    uint64_t satp;
    __asm__ volatile("csrrw %0, satp, zero" : "=r"(satp) : : "memory");
    for (unsigned which = 0; which < ACCESSES; which++) {
        check_access(which, NO_MEMORY + 64, ACCESS_FAULT, 0x3400 | which);
        check_access(which, UINT64_C(1) << 60, ACCESS_FAULT, 0x3500 | which);
        check_access(which, DEVICE + 64, is_atomic(which) ? ACCESS_FAULT : FINE, 0x3600 | which);
    }
    check_fetch(NO_MEMORY, ACCESS_FAULT, 0x3700);
    check_fetch(DEVICE + 64, ACCESS_FAULT, 0x3701);
    __asm__ volatile("csrw satp, %0" : : "r"(satp) : "memory");
}

/* Atomics must be aligned, and say so before anything else is looked at: wherever the address
 * leads, whether its translation is known or not. */
static void misaligned_at(uint64_t address, uint64_t id)
{
    for (unsigned which = 0; which < ACCESSES; which++) {
        for (unsigned offset = 1; is_atomic(which) && offset < accesses[which].size; offset++) {
            uint64_t where = 0, before = *word_of(address);
            expect(0);
            uint64_t value = accesses[which].access(address + offset, &where);
            trap->expected = false;
            if (trap->count != 1) {
                guest_fail(__LINE__, id << 16 | which << 8 | offset, trap->count);
            }
            CHECK_EQUAL(trap->cause,
                        writes(which) ? CAUSE_STORE_MISALIGNED : CAUSE_LOAD_MISALIGNED);
            CHECK_EQUAL(trap->value, address + offset);
            CHECK_EQUAL(trap->pc, where);
            CHECK_EQUAL(value, SENTINEL);
            CHECK_EQUAL(*word_of(address), before);
        }
    }
}

static void misaligned_atomics(void)
{
    for (unsigned kind = 0; kind < KINDS; kind++) {
        *page_entry(root, WINDOW, 0) = place_of(kind) >> 12 << 10 | kinds[kind].flags;
        fence_all();
        misaligned_at(WINDOW + 128, kind);
        check_fetch(WINDOW, kinds[kind].fetch, 0x4000 | kind);
        check_access(A_LOAD, WINDOW + 128, outcome_of(A_LOAD, kind), 0x4100 | kind);
        check_access(A_STORE, WINDOW + 128, outcome_of(A_STORE, kind), 0x4200 | kind);
        misaligned_at(WINDOW + 128, kind);
    }
    misaligned_at(0, KINDS);
}

/* SUM opens user pages to loads and stores but not to fetches; MXR makes executable readable. */
static void permission_modifiers(void)
{
    enum { SUM = 1 << 18, MXR = 1 << 19 };
    *page_entry(root, WINDOW, 0) = page >> 12 << 10 | PTE_RWX | PTE_U;
    *page_entry(root, WINDOW + PAGE, 0) = page >> 12 << 10 | PTE_V | PTE_X | PTE_A;
    fence_all();
    for (unsigned i = 0; i < 3; i++) {
        check_access(A_LOAD, WINDOW, PAGE_FAULT, 0x2000);
        check_access(A_LOAD, WINDOW + PAGE, PAGE_FAULT, 0x2001);
        __asm__ volatile("csrs sstatus, %0" : : "r"(SUM) : "memory");
        check_access(A_LOAD, WINDOW, FINE, 0x2002);
        check_access(A_STORE, WINDOW + 64, FINE, 0x2003);
        check_access(A_LOAD, WINDOW + PAGE, PAGE_FAULT, 0x2004);
        check_fetch(WINDOW, PAGE_FAULT, 0x2005);
        __asm__ volatile("csrs sstatus, %0" : : "r"(MXR) : "memory");
        check_access(A_LOAD, WINDOW + PAGE, FINE, 0x2006);
        check_access(A_STORE, WINDOW + PAGE, PAGE_FAULT, 0x2007);
        __asm__ volatile("csrc sstatus, %0" : : "r"(SUM | MXR) : "memory");
    }
}

/* An instruction that begins on a good page and ends on a bad one. */
static void fetch_across(void)
{
    volatile uint16_t *last = (volatile uint16_t *)(page + PAGE - 2);
    *last = 0x0513; /* half of addi a0, zero, ... */
    *page_entry(root, WINDOW, 0) = page >> 12 << 10 | PTE_RWX;
    for (unsigned kind = 0; kind < KINDS; kind++) {
        if (kinds[kind].fetch == FINE) {
            continue;
        }
        *page_entry(root, WINDOW + PAGE, 0) = place_of(kind) >> 12 << 10 | kinds[kind].flags;
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
        CHECK_EQUAL(trap->cause, causes[kinds[kind].fetch][2]);
        CHECK_EQUAL(trap->pc, WINDOW + PAGE - 2);
        CHECK_EQUAL(trap->value, WINDOW + PAGE);
    }
}

/* A store-conditional: misaligned it says so, whatever is reserved; and one whose page was taken
 * away after the load-reserved faults or fails, and does not store. */
static void store_conditional(void)
{
    static const uint64_t taken[] = {0, PTE_V | PTE_AD | PTE_R, PTE_RWX | PTE_U};
    *page_entry(root, WINDOW, 0) = page >> 12 << 10 | PTE_RWX;
    fence_all();
    for (unsigned offset = 1; offset < 8; offset++) {
        uint64_t failed = SENTINEL, where;
        expect(0);
        __asm__ volatile(".option push\n.option norvc\n"
                         "   lr.d t0, (%2)\n"
                         "   la %1, 1f\n"
                         "1: sc.d %0, t0, (%3)\n"
                         ".option pop\n"
                         : "+r"(failed), "=&r"(where)
                         : "r"(WINDOW + 512), "r"(WINDOW + 512 + offset)
                         : "t0", "memory");
        trap->expected = false;
        CHECK_EQUAL(trap->count, 1);
        CHECK_EQUAL(trap->cause, CAUSE_STORE_MISALIGNED);
        CHECK_EQUAL(trap->value, WINDOW + 512 + offset);
        CHECK_EQUAL(trap->pc, where);
        CHECK_EQUAL(failed, SENTINEL);
    }
    for (unsigned i = 0; i < 3 * sizeof(taken) / sizeof(taken[0]); i++) {
        volatile uint64_t *entry = page_entry(root, WINDOW, 0);
        uint64_t failed = SENTINEL, where;
        *entry = page >> 12 << 10 | PTE_RWX;
        fence_all();
        *word_of(512) = i;
        expect(0);
        __asm__ volatile(".option push\n.option norvc\n"
                         "   lr.d t0, (%2)\n"
                         "   sd %4, 0(%3)\n"
                         "   sfence.vma\n"
                         "   la %1, 1f\n"
                         "   li t0, 99\n"
                         "1: sc.d %0, t0, (%2)\n"
                         ".option pop\n"
                         : "+r"(failed), "=&r"(where)
                         : "r"(WINDOW + 512), "r"(entry), "r"(page >> 12 << 10 | taken[i % 3])
                         : "t0", "memory");
        trap->expected = false;
        CHECK_EQUAL(*word_of(512), i);
        if (trap->count == 0) {
            CHECK_EQUAL(failed, 1);
            continue;
        }
        CHECK_EQUAL(trap->cause, CAUSE_STORE_PAGE);
        CHECK_EQUAL(trap->value, WINDOW + 512);
        CHECK_EQUAL(trap->pc, where);
        CHECK_EQUAL(failed, SENTINEL);
    }
}

/* The register of the address is the one that would be loaded: it keeps its value. */
static void load_into_base(void)
{
    uint64_t base = NOT_THERE, from_amo = NOT_THERE, reserved = NOT_THERE;
    expect(0);
    __asm__ volatile("ld %0, 8(%0)" : "+r"(base) : : "memory");
    CHECK_EQUAL(trap->value, NOT_THERE + 8);
    __asm__ volatile("amoadd.d %0, %0, (%0)" : "+r"(from_amo) : : "memory");
    __asm__ volatile("lr.d %0, (%0)" : "+r"(reserved) : : "memory");
    trap->expected = false;
    CHECK_EQUAL(trap->count, 3);
    CHECK_EQUAL(base, NOT_THERE);
    CHECK_EQUAL(from_amo, NOT_THERE);
    CHECK_EQUAL(reserved, NOT_THERE);
}

/* With the floating point unit off its loads and stores are illegal instructions, before the
 * address is looked at. */
static void float_unit_off(void)
{
    const uint64_t fs = 3 << 13;
    uint32_t word;
    expect(0);
    __asm__ volatile(".option push\n.option norvc\n"
                     "   la t0, 1f\n"
                     "   lw %0, 0(t0)\n"
                     "   csrc sstatus, %1\n"
                     "1: fld ft0, 0(%2)\n"
                     "   csrs sstatus, %1\n"
                     ".option pop\n"
                     : "=&r"(word)
                     : "r"(fs), "r"(NOT_THERE)
                     : "t0", "memory");
    trap->expected = false;
    CHECK_EQUAL(trap->count, 1);
    CHECK_EQUAL(trap->cause, CAUSE_ILLEGAL);
    CHECK_EQUAL(trap->value, word);
}

/* --- user mode ------------------------------------------------------------------------------- */
/* Run one instruction in user mode, with a0 the address and a1 a value; an EBREAK brings us back.
 */
static uint64_t run_as_user(uint32_t insn, uint64_t address)
{
    const uint64_t code = WINDOW + 16 * PAGE, spp = 1 << 8;
    volatile uint32_t *words = (volatile uint32_t *)of_hart[guest_hart()].user_code;
    words[0] = insn;
    words[1] = 0x00100073; /* ebreak */
    fence_code();
    expect(0);
    trap->to_supervisor = true;
    register uint64_t a0 __asm__("a0") = address;
    register uint64_t a1 __asm__("a1") = SENTINEL;
    __asm__ volatile("   la t0, 1f\n"
                     "   sd t0, 0(%2)\n"
                     "   csrw sepc, %3\n"
                     "   csrc sstatus, %4\n"
                     "   sret\n"
                     "1:\n"
                     : "+r"(a0), "+r"(a1)
                     : "r"(&trap->resume), "r"(code), "r"(spp)
                     : "t0", "memory");
    trap->expected = false;
    trap->to_supervisor = false;
    CHECK_EQUAL(trap->count, 1);
    CHECK_EQUAL(a0, address);
    return a1;
}

static void user_accesses(void)
{
    enum { USER_READ = 1, USER_WRITE = 2, USER_ATOMIC = 4 };
    static const struct {
        uint32_t insn;
        unsigned needs;
    } insns[] = {
        {0x00050583, USER_READ},              /* lb a1, 0(a0) */
        {0x00053583, USER_READ},              /* ld a1, 0(a0) */
        {0x00053007, USER_READ},              /* fld ft0, 0(a0) */
        {0x100535af, USER_READ},              /* lr.d a1, (a0) */
        {0x00b50023, USER_WRITE},             /* sb a1, 0(a0) */
        {0x00b53023, USER_WRITE},             /* sd a1, 0(a0) */
        {0x00053027, USER_WRITE},             /* fsd ft0, 0(a0) */
        {0x00b535af, USER_WRITE | USER_READ}, /* amoadd.d a1, a1, (a0) */
        {0x00b525af, USER_WRITE | USER_READ}, /* amoadd.w a1, a1, (a0) */
    };
    static const struct {
        uint64_t flags;
        unsigned allows;
    } pages[] = {
        {0, 0},
        {PTE_RWX, 0}, /* the supervisor's */
        {PTE_U | PTE_V | PTE_AD | PTE_R, USER_READ},
        {PTE_U | PTE_V | PTE_AD | PTE_X, 0},
        {PTE_U | PTE_RW, USER_READ | USER_WRITE},
    };
    of_hart[guest_hart()].user_code = allocate_pages(1);
    map_page(root, WINDOW + 16 * PAGE, of_hart[guest_hart()].user_code, PTE_RWX | PTE_U);
    for (unsigned kind = 0; kind < sizeof(pages) / sizeof(pages[0]); kind++) {
        *page_entry(root, WINDOW, 0) = page >> 12 << 10 | pages[kind].flags;
        fence_all();
        for (unsigned i = 0; i < 2 * sizeof(insns) / sizeof(insns[0]); i++) {
            uint64_t id = kind << 8 | i, before = *word_of(1024);
            unsigned needs = insns[i / 2].needs;
            uint64_t value = run_as_user(insns[i / 2].insn, WINDOW + 1024);
            bool fine = (needs & pages[kind].allows) == needs;
            uint64_t cause = needs & USER_WRITE ? CAUSE_STORE_PAGE : CAUSE_LOAD_PAGE;
            if (trap->cause != (fine ? CAUSE_BREAKPOINT : cause)) {
                guest_fail(__LINE__, id, trap->cause);
            }
            if (trap->pc != WINDOW + 16 * PAGE + (fine ? 4 : 0)) {
                guest_fail(__LINE__, id, trap->pc);
            }
            if (!fine &&
                (trap->value != WINDOW + 1024 || value != SENTINEL || *word_of(1024) != before)) {
                guest_fail(__LINE__, id, trap->value);
            }
        }
    }
    /* No fetch from what is the supervisor's. */
    map_page(root, WINDOW + 16 * PAGE, of_hart[guest_hart()].user_code, PTE_RWX);
    fence_all();
    run_as_user(0x00000013, 0);
    CHECK_EQUAL(trap->cause, CAUSE_FETCH_PAGE);
    CHECK_EQUAL(trap->pc, WINDOW + 16 * PAGE);
    CHECK_EQUAL(trap->value, WINDOW + 16 * PAGE);
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

static void all_faults(void)
{
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
    store_conditional();
    load_into_base();
    float_unit_off();
    precise_within_block();
    exceptions_of_instructions();
    broken_walks();
    bare_accesses();
    user_accesses();
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    (void)hart;
    barrier(harts);
    for (unsigned i = 0; i < ROUNDS; i++) {
        all_faults();
    }
    return 0;
}
