/*
 * Random straight code of loads and stores off one base register that moves about the border of two
 * pages, either of which may be missing, read-only, watched, or without memory behind it. A
 * compiler may let such accesses share a translation. Each run is compared with a model: registers,
 * memory, and where and why it stopped.
 */
#include "tests/guests/lockstep/torture/guest.h"

enum { SEQUENCES = 150, POSITIONS = 40, UNITS_MAX = 14, REACH = 512, REGISTERS = 7, FLOATS = 8 };
#define WINDOW 0x400c8000ul
#define BORDER (WINDOW + PAGE)

enum page_kind { GOOD, UNTOUCHED, WATCHED, READ_ONLY, MISSING, NOWHERE, PAGE_KINDS };
static const struct {
    uint64_t flags;
    bool readable, writable;
    uint64_t cause_load, cause_store;
} pages[PAGE_KINDS] = {
    [GOOD] = {PTE_RW, true, true, 0, 0},
    [UNTOUCHED] = {PTE_V | PTE_R | PTE_W, true, true, 0, 0}, /* A and D are to be set */
    [WATCHED] = {PTE_RWX, true, true, 0, 0},                 /* there is code */
    [READ_ONLY] = {PTE_V | PTE_R | PTE_A, true, false, 0, CAUSE_STORE_PAGE},
    [MISSING] = {0, false, false, CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE},
    [NOWHERE] = {PTE_RW, false, false, CAUSE_LOAD_ACCESS, CAUSE_STORE_ACCESS},
};

/* An access, or an addition to a register. */
enum unit_sort {
    ADD_BASE,
    ADD_REGISTER,
    LOAD_INTEGER,
    LOAD_FLOAT,
    STORE_INTEGER,
    STORE_FLOAT,
    AMO_ADD
};
struct unit {
    enum unit_sort sort;
    unsigned size_log2, reg;
    bool zero_extends;
    int offset;
};

/* a0 is the base, a1 to a7 and ft0 to ft7 are what is loaded and stored. */
struct registers {
    uint64_t base, x[REGISTERS], f[FLOATS];
};

struct outcome {
    uint64_t stopped_at; /* a unit, or their number */
    uint64_t cause, value;
};

struct torment {
    uint64_t root, code, physical[2], random;
    enum page_kind kind[2];
    unsigned count;
    struct unit units[UNITS_MAX];
    struct registers model, real;
    struct outcome expected;
    uint8_t bytes[2 * REACH]; /* the model's memory; the border is in the middle */
};
static struct torment torments[HARTS_MAX];

static uint64_t random_below(struct torment *it, uint64_t limit)
{
    it->random ^= it->random << 13;
    it->random ^= it->random >> 7;
    it->random ^= it->random << 17;
    return (it->random >> 11) % limit;
}

static uint64_t random_word(struct torment *it)
{
    return random_below(it, UINT64_MAX) << 32 ^ random_below(it, UINT64_MAX);
}

/* --- code ------------------------------------------------------------------------------------ */

static uint32_t encode(const struct unit *unit)
{
    uint32_t offset = (uint32_t)unit->offset & 0xfff;
    uint32_t base = 10 << 15, reg = 11 + unit->reg, width = unit->size_log2 << 12;
    uint32_t split = (offset >> 5) << 25 | (offset & 31) << 7;
    switch (unit->sort) {
    case ADD_BASE:
        return offset << 20 | base | 10 << 7 | 0x13;
    case ADD_REGISTER:
        return offset << 20 | reg << 15 | reg << 7 | 0x13;
    case LOAD_INTEGER:
        return offset << 20 | base | width | (uint32_t)unit->zero_extends << 14 | reg << 7 | 0x03;
    case LOAD_FLOAT:
        return offset << 20 | base | width | unit->reg << 7 | 0x07;
    case STORE_INTEGER:
        return split | reg << 20 | base | width | 0x23;
    case STORE_FLOAT:
        return split | unit->reg << 20 | base | width | 0x27;
    default: /* amoadd to and from the register */
        return reg << 20 | base | width | reg << 7 | 0x2f;
    }
}

static struct unit random_unit(struct torment *it)
{
    struct unit unit = {.reg = (unsigned)random_below(it, REGISTERS)};
    uint64_t pick = random_below(it, 100);
    unit.offset = (int)random_below(it, 160) - 80;
    unit.size_log2 = (unsigned)random_below(it, 4);
    if (pick < 6) {
        unit.sort = ADD_BASE;
        unit.offset /= 8;
    } else if (pick < 12) {
        unit.sort = ADD_REGISTER;
    } else if (pick < 40) {
        unit.sort = LOAD_INTEGER;
        unit.zero_extends = unit.size_log2 < 3 && random_below(it, 2);
    } else if (pick < 50) {
        unit.sort = LOAD_FLOAT;
    } else if (pick < 82) {
        unit.sort = STORE_INTEGER;
    } else if (pick < 96) {
        unit.sort = STORE_FLOAT;
    } else {
        unit.sort = AMO_ADD;
        unit.offset = 0;
    }
    if (unit.sort == LOAD_FLOAT || unit.sort == STORE_FLOAT || unit.sort == AMO_ADD) {
        unit.size_log2 = 2 + unit.size_log2 % 2;
    } else if (random_below(it, 2)) {
        unit.size_log2 = 3; /* as real code has it */
        unit.zero_extends = false;
    }
    return unit;
}

static void make_code(struct torment *it)
{
    volatile uint32_t *words = (volatile uint32_t *)it->code;
    it->count = 1 + (unsigned)random_below(it, UNITS_MAX);
    /* Often what functions begin and end with: neighbours, one after the other. */
    bool neighbours = random_below(it, 3) == 0;
    for (unsigned i = 0; i < it->count; i++) {
        it->units[i] = random_unit(it);
        if (neighbours && it->units[i].sort >= LOAD_INTEGER && it->units[i].sort != AMO_ADD) {
            it->units[i].offset = 8 * (int)i - 40;
        }
        words[i] = encode(&it->units[i]);
    }
    words[it->count] = INSN_RET;
    fence_code();
}

/* --- the model ------------------------------------------------------------------------------- */

static bool is_store(const struct unit *unit)
{
    return unit->sort >= STORE_INTEGER;
}

/* Whether the access of that size at `address` happens; if not, why. */
static bool may_access(struct torment *it, const struct unit *unit, uint64_t address)
{
    uint64_t size = UINT64_C(1) << unit->size_log2, last = address + size - 1;
    bool store = is_store(unit);
    if (unit->sort == AMO_ADD && address % size != 0) {
        it->expected.cause = CAUSE_STORE_MISALIGNED;
        it->expected.value = address;
        return false;
    }
    for (unsigned i = address >= BORDER; i <= (last >= BORDER); i++) {
        enum page_kind kind = it->kind[i];
        if (store ? !pages[kind].writable : !pages[kind].readable) {
            it->expected.cause = store ? pages[kind].cause_store : pages[kind].cause_load;
            it->expected.value = i && address < BORDER ? BORDER : address;
            return false;
        }
    }
    return true;
}

static uint64_t model_read(const struct torment *it, uint64_t address, unsigned size)
{
    const uint8_t *at = &it->bytes[address - (BORDER - REACH)];
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

static void model_write(struct torment *it, uint64_t address, unsigned size, uint64_t value)
{
    uint8_t *at = &it->bytes[address - (BORDER - REACH)];
    for (unsigned i = 0; i < size; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static uint64_t extended(uint64_t value, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    return (uint64_t)((int64_t)(value << shift) >> shift);
}

static bool model_unit(struct torment *it, const struct unit *unit)
{
    struct registers *registers = &it->model;
    uint64_t *x = &registers->x[unit->reg], *f = &registers->f[unit->reg];
    uint64_t offset = (uint64_t)(int64_t)unit->offset;
    uint64_t address = registers->base + offset, value;
    unsigned size = 1u << unit->size_log2;
    if (unit->sort == ADD_BASE) {
        registers->base = address;
        return true;
    }
    if (unit->sort == ADD_REGISTER) {
        *x += offset;
        return true;
    }
    if (!may_access(it, unit, address)) {
        return false;
    }
    switch (unit->sort) {
    case LOAD_INTEGER:
        value = model_read(it, address, size);
        *x = unit->zero_extends ? value : extended(value, size);
        break;
    case LOAD_FLOAT:
        value = model_read(it, address, size);
        *f = size == 4 ? value | UINT64_C(0xffffffff) << 32 : value;
        break;
    case STORE_INTEGER:
        model_write(it, address, size, *x);
        break;
    case STORE_FLOAT:
        model_write(it, address, size, *f);
        break;
    default:
        value = model_read(it, address, size);
        model_write(it, address, size, value + *x);
        *x = extended(value, size);
    }
    return true;
}

static void model_run(struct torment *it)
{
    uint64_t at = 0;
    while (at < it->count && model_unit(it, &it->units[at])) {
        at++;
    }
    it->expected.stopped_at = at;
}

/* --- the run ---------------------------------------------------------------------------------- */

static __attribute__((noinline)) void run_code(struct torment *it, volatile uint64_t *resume)
{
    __asm__ volatile("   mv t0, %0\n"
                     "   la t1, 1f\n"
                     "   sd t1, 0(%1)\n"
                     "   mv t2, %2\n"
                     "   ld a0, 0(t0)\n   ld a1, 8(t0)\n   ld a2, 16(t0)\n   ld a3, 24(t0)\n"
                     "   ld a4, 32(t0)\n   ld a5, 40(t0)\n   ld a6, 48(t0)\n   ld a7, 56(t0)\n"
                     "   fld ft0, 64(t0)\n   fld ft1, 72(t0)\n   fld ft2, 80(t0)\n"
                     "   fld ft3, 88(t0)\n   fld ft4, 96(t0)\n   fld ft5, 104(t0)\n"
                     "   fld ft6, 112(t0)\n   fld ft7, 120(t0)\n"
                     "   jalr ra, t2\n"
                     "1: sd a0, 0(t0)\n   sd a1, 8(t0)\n   sd a2, 16(t0)\n   sd a3, 24(t0)\n"
                     "   sd a4, 32(t0)\n   sd a5, 40(t0)\n   sd a6, 48(t0)\n   sd a7, 56(t0)\n"
                     "   fsd ft0, 64(t0)\n   fsd ft1, 72(t0)\n   fsd ft2, 80(t0)\n"
                     "   fsd ft3, 88(t0)\n   fsd ft4, 96(t0)\n   fsd ft5, 104(t0)\n"
                     "   fsd ft6, 112(t0)\n   fsd ft7, 120(t0)\n"
                     :
                     : "r"(&it->real), "r"(resume), "r"(it->code)
                     : "ra", "t0", "t1", "t2", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
                       "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "memory");
}

static void set_page(struct torment *it, unsigned which, enum page_kind kind)
{
    uint64_t physical = kind == NOWHERE ? 0x20000000 : it->physical[which];
    it->kind[which] = kind;
    *page_entry(it->root, WINDOW + which * PAGE, 0) = physical >> 12 << 10 | pages[kind].flags;
    fence_page(WINDOW + which * PAGE);
    if (kind == WATCHED) {
        /* Far from the border; run where RAM is mapped as it is. */
        uint64_t function = it->physical[which] + 2048;
        ((volatile uint32_t *)function)[0] = INSN_LI_A0(7);
        ((volatile uint32_t *)function)[1] = INSN_RET;
        fence_code();
        CHECK_EQUAL(call(function), 7);
    }
}

static void new_memory(struct torment *it)
{
    volatile uint8_t *low = (volatile uint8_t *)(it->physical[0] + PAGE - REACH);
    volatile uint8_t *high = (volatile uint8_t *)it->physical[1];
    for (unsigned i = 0; i < REACH; i++) {
        it->bytes[i] = low[i] = (uint8_t)random_below(it, 256);
        it->bytes[REACH + i] = high[i] = (uint8_t)random_below(it, 256);
    }
}

static void compare(struct torment *it, const struct trap_record *trap, uint64_t id)
{
    const uint64_t *model = (const uint64_t *)&it->model, *real = (const uint64_t *)&it->real;
    bool stops = it->expected.stopped_at < it->count;
    if (trap->count != stops) {
        guest_fail(__LINE__, id, stops ? it->expected.cause : trap->cause);
    }
    if (stops && trap->pc != it->code + 4 * it->expected.stopped_at) {
        guest_fail(__LINE__, id, trap->pc);
    }
    if (stops && trap->cause != it->expected.cause) {
        guest_fail(__LINE__, id, trap->cause);
    }
    if (stops && trap->value != it->expected.value) {
        guest_fail(__LINE__, id, trap->value);
    }
    for (unsigned i = 0; i < sizeof(struct registers) / 8; i++) {
        if (model[i] != real[i]) {
            guest_fail(__LINE__, id, i);
        }
    }
    const volatile uint8_t *low = (volatile uint8_t *)(it->physical[0] + PAGE - REACH);
    const volatile uint8_t *high = (volatile uint8_t *)it->physical[1];
    for (unsigned i = 0; i < REACH; i++) {
        if (low[i] != it->bytes[i] || high[i] != it->bytes[REACH + i]) {
            guest_fail(__LINE__, id, i);
        }
    }
}

static void torment(struct torment *it, struct trap_record *trap, uint64_t sequence)
{
    make_code(it);
    for (unsigned position = 0; position < POSITIONS; position++) {
        if (position % 4 == 0) {
            new_memory(it);
            set_page(it, 0,
                     random_below(it, 2) ? GOOD : (enum page_kind)random_below(it, PAGE_KINDS));
            set_page(it, 1,
                     random_below(it, 2) ? GOOD : (enum page_kind)random_below(it, PAGE_KINDS));
        }
        for (unsigned i = 0; i < REGISTERS; i++) {
            it->model.x[i] = random_word(it);
        }
        for (unsigned i = 0; i < FLOATS; i++) {
            it->model.f[i] = random_word(it);
        }
        it->model.base = BORDER - 128 + random_below(it, 256);
        it->model.base &= random_below(it, 2) ? ~UINT64_C(7) : UINT64_MAX;
        it->real = it->model;
        model_run(it);
        trap->count = 0;
        trap->expected = true;
        run_code(it, &trap->resume);
        trap->expected = false;
        compare(it, trap, sequence << 16 | position);
    }
}

uint64_t guest_main(uint64_t hart, uint64_t harts)
{
    struct torment *it = &torments[hart];
    it->random = 88172645463325252ul + hart * 7919;
    it->root = make_table();
    it->code = allocate_pages(1);
    it->physical[0] = allocate_pages(2);
    it->physical[1] = allocate_pages(1);
    use_table(it->root, 0);
    barrier(harts);
    for (uint64_t sequence = 0; sequence < SEQUENCES; sequence++) {
        torment(it, &guest_traps[hart], sequence);
    }
    return 0;
}
