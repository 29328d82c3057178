/* Page-table walks over hand-built tables: every rule of the translation process, one by one. */
#include "libshared/isa/riscv64/mmu.h"
#include "test_riscv64.h"
#include "tests/unit/suite.h"

#define TABLES (RAM_BASE + 0x10000) /* one page a level, the root first */
#define TARGET (RAM_BASE + 0x80000)
#define ASID   (UINT64_C(5) << 44)

#define LEAF_R  (PTE_V | PTE_R | PTE_A | PTE_D)
#define LEAF_RW (LEAF_R | PTE_W)

static struct machine *m;
static struct mmu_translation out;
static uint32_t raised; /* by the last walk: cause + 1, or 0 */

static void set_up(void)
{
    m = machine_new();
    open_pmp(m);
    m->cpu.csr.menvcfg = 0;
}

static void tear_down(void)
{
    machine_free(m);
}

static uint64_t satp(unsigned mode)
{
    return (uint64_t)mode << 60 | ASID | TABLES >> 12;
}

static unsigned levels_of(unsigned mode)
{
    return mode - 5; /* Sv39 is mode 8 */
}

static uint64_t pte(uint64_t physical, uint64_t flags)
{
    return physical >> 12 << 10 | flags;
}

/* Address of the entry that `va` uses at `level`, in the tables that map() builds. */
static uint64_t entry_at(unsigned mode, uint64_t va, unsigned level)
{
    unsigned depth = levels_of(mode) - 1 - level;
    return TABLES + depth * UINT64_C(0x1000) + (va >> (12 + 9 * level) & 511) * 8;
}

/* Make `leaf` the entry for `va` at `level`, with tables above it. */
static void map(unsigned mode, uint64_t va, unsigned level, uint64_t leaf)
{
    for (unsigned upper = levels_of(mode) - 1; upper > level; upper--) {
        uint64_t next = TABLES + (levels_of(mode) - upper) * UINT64_C(0x1000);
        put64(m, entry_at(mode, va, upper), pte(next, PTE_V));
    }
    put64(m, entry_at(mode, va, level), leaf);
}

static bool translate(struct mmu_key key, uint64_t va, enum cpu_access access)
{
    bool done = isa_riscv64.translate(&m->cpu.cpu, key, va, access, &out);
    raised = m->cpu.cpu.exception;
    m->cpu.cpu.exception = 0;
    ck_assert(done == (raised == 0));
    ck_assert(done || m->cpu.cpu.exception_value == va);
    return done;
}

static bool walk(unsigned mode, unsigned flags, uint64_t va, enum cpu_access access)
{
    struct mmu_key key = {.root = satp(mode), .flags = flags};
    return translate(key, va, access);
}

static bool faults_with(unsigned cause)
{
    return raised == cause + 1;
}

static const uint8_t page_causes[] = {CAUSE_LOAD_PAGE, CAUSE_STORE_PAGE, CAUSE_FETCH_PAGE};
static const uint8_t access_causes[] = {CAUSE_LOAD_ACCESS, CAUSE_STORE_ACCESS, CAUSE_FETCH_ACCESS};

START_TEST(every_mode_and_page_size)
{
    for (unsigned mode = SATP_SV39; mode <= SATP_SV57; mode++) {
        for (unsigned level = 0; level < levels_of(mode); level++) {
            uint64_t size = UINT64_C(4096) << 9 * level;
            uint64_t va = UINT64_C(0x12345678) & ~(size - 1);
            uint64_t base = level ? (UINT64_C(1) << 48) & ~(size - 1) : TARGET;
            uint64_t offset = 0xabcdef123456789 & (size - 1);
            map(mode, va, level, pte(base, LEAF_RW | PTE_X));
            ck_assert(walk(mode, RISCV64_SUPERVISOR, va + offset, CPU_ACCESS_WRITE));
            ck_assert_uint_eq(out.physical, base + offset);
            ck_assert_uint_eq(out.page_size, size);
            ck_assert(out.read && out.write && out.execute);
            put64(m, entry_at(mode, va, level), 0);
        }
    }
}
END_TEST

START_TEST(addresses_must_be_canonical)
{
    static const unsigned bits[] = {39, 48, 57};
    for (unsigned i = 0; i < 3; i++) {
        unsigned mode = SATP_SV39 + i;
        uint64_t top = UINT64_C(1) << (bits[i] - 1);
        map(mode, -top, 0, pte(TARGET, LEAF_R));
        ck_assert(walk(mode, RISCV64_SUPERVISOR, -top, CPU_ACCESS_READ));
        for (unsigned access = 0; access < 3; access++) {
            ck_assert(!walk(mode, RISCV64_SUPERVISOR, top, access));
            ck_assert(faults_with(page_causes[access]));
            ck_assert(!walk(mode, RISCV64_SUPERVISOR, ~top, access));
            ck_assert(faults_with(page_causes[access]));
        }
    }
}
END_TEST

START_TEST(invalid_entries_fault)
{
    static const uint64_t bad[] = {
        0,
        LEAF_RW & ~PTE_V,
        PTE_V | PTE_W | PTE_A | PTE_D,         /* write without read */
        PTE_V | PTE_W | PTE_X | PTE_A | PTE_D, /* likewise */
        PTE_V,                                 /* a table at level 0 */
    };
    for (unsigned i = 0; i < 5; i++) {
        map(SATP_SV39, 0x1000, 0, bad[i] ? pte(TARGET, bad[i]) : 0);
        for (unsigned access = 0; access < 3; access++) {
            ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, access));
            ck_assert(faults_with(page_causes[access]));
        }
    }
}
END_TEST

START_TEST(reserved_bits_fault)
{
    for (unsigned bit = 54; bit < 64; bit++) {
        map(SATP_SV39, 0x1000, 0, pte(TARGET, LEAF_R) | BIT64(bit));
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ));
        ck_assert(faults_with(CAUSE_LOAD_PAGE));
        map(SATP_SV39, 0x1000, 0, pte(TARGET, LEAF_R));
        put64(m, entry_at(SATP_SV39, 0x1000, 1), pte(TABLES + 0x2000, PTE_V) | BIT64(bit));
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ));
        ck_assert(faults_with(CAUSE_LOAD_PAGE));
    }
    /* in a table's entry A, D and U are reserved, G and software's bits are not */
    for (unsigned bit = 4; bit < 10; bit++) {
        bool reserved = bit == 4 || bit == 6 || bit == 7;
        put64(m, entry_at(SATP_SV39, 0x1000, 1), pte(TABLES + 0x2000, PTE_V) | BIT64(bit));
        ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ) == !reserved);
    }
}
END_TEST

START_TEST(large_pages_must_be_aligned)
{
    for (unsigned mode = SATP_SV39; mode <= SATP_SV57; mode++) {
        for (unsigned level = 1; level < levels_of(mode); level++) {
            for (unsigned bit = 0; bit < 9 * level; bit++) {
                map(mode, 0, level, pte((UINT64_C(1) << 12) << bit, LEAF_R));
                ck_assert(!walk(mode, RISCV64_SUPERVISOR, 0, CPU_ACCESS_READ));
                ck_assert(faults_with(CAUSE_LOAD_PAGE));
            }
            put64(m, entry_at(mode, 0, level), 0);
        }
    }
}
END_TEST

/* The whole permission table: entry bits, privilege, SUM and MXR, kind of access. */
START_TEST(permissions)
{
    for (unsigned i = 0; i < 16 * 2 * 4 * 3; i++) {
        uint64_t bits = (uint64_t)(i & 15) << 1; /* R W X U */
        bool supervisor = i >> 4 & 1, sum = i >> 5 & 1, mxr = i >> 6 & 1;
        enum cpu_access access = (enum cpu_access)(i >> 7);
        bool r = bits & PTE_R, w = bits & PTE_W, x = bits & PTE_X, u = bits & PTE_U;
        unsigned flags = (supervisor ? RISCV64_SUPERVISOR : RISCV64_USER) |
                         (sum ? MMU_FLAG_SUM : 0) | (mxr ? MMU_FLAG_MXR : 0);
        bool reachable = supervisor ? !u || (sum && access != CPU_ACCESS_EXECUTE) : u;
        bool allowed = access == CPU_ACCESS_READ    ? r || (mxr && x)
                       : access == CPU_ACCESS_WRITE ? w
                                                    : x;
        bool expected = reachable && allowed && (r || x) && (!w || r);
        map(SATP_SV39, 0x3000, 0, pte(TARGET, PTE_V | PTE_A | PTE_D | bits));
        ck_assert_msg(walk(SATP_SV39, flags, 0x3456, access) == expected, "case %x", i);
        if (!expected) {
            ck_assert(faults_with(page_causes[access]));
        }
    }
}
END_TEST

/* What may be cached is what another access of the same key would be allowed. */
START_TEST(cached_permissions_are_sound)
{
    for (unsigned i = 0; i < 64 * 16; i++) {
        uint64_t bits = (uint64_t)(i & 15) << 1 | (i & 16 ? PTE_A : 0) | (i & 32 ? PTE_D : 0);
        unsigned flags = (i >> 6 & 3) == 2 ? 1 : i >> 6 & 1;
        flags |= i >> 8 & 3 ? (i >> 8 & 3) << 2 : 0;
        map(SATP_SV39, 0x3000, 0, pte(TARGET, PTE_V | bits));
        for (unsigned first = 0; first < 3; first++) {
            if (walk(SATP_SV39, flags, 0x3000, (enum cpu_access)first)) {
                struct mmu_translation cached = out;
                ck_assert(walk(SATP_SV39, flags, 0x3000, CPU_ACCESS_READ) == cached.read);
                ck_assert(walk(SATP_SV39, flags, 0x3000, CPU_ACCESS_WRITE) == cached.write);
                ck_assert(walk(SATP_SV39, flags, 0x3000, CPU_ACCESS_EXECUTE) == cached.execute);
            }
        }
    }
}
END_TEST

START_TEST(global_in_the_leaf_or_above_it)
{
    for (unsigned i = 0; i < 4; i++) {
        uint64_t leaf = i & 1 ? PTE_G : 0, table = i & 2 ? PTE_G : 0;
        map(SATP_SV39, 0x3000, 0, pte(TARGET, PTE_V | PTE_A | PTE_R | leaf));
        uint64_t above = entry_at(SATP_SV39, 0x3000, 1);
        put64(m, above, get64(m, above) | table);
        ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x3000, CPU_ACCESS_READ));
        ck_assert(out.global == (i != 0));
        put64(m, above, get64(m, above) & ~PTE_G);
    }
}
END_TEST

START_TEST(accessed_and_dirty_by_software)
{
    uint64_t entry = entry_at(SATP_SV39, 0x1000, 0);
    uint64_t clean = pte(TARGET, PTE_V | PTE_R | PTE_W | PTE_X);
    map(SATP_SV39, 0x1000, 0, clean);
    for (unsigned access = 0; access < 3; access++) {
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, access));
        ck_assert(faults_with(page_causes[access]));
    }
    put64(m, entry, clean | PTE_A);
    ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ));
    ck_assert(!out.write);
    ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_WRITE));
    ck_assert(faults_with(CAUSE_STORE_PAGE));
    ck_assert_uint_eq(get64(m, entry), clean | PTE_A);
}
END_TEST

START_TEST(accessed_and_dirty_by_hardware)
{
    uint64_t entry = entry_at(SATP_SV39, 0x1000, 0);
    uint64_t clean = pte(TARGET, PTE_V | PTE_R | PTE_W | PTE_X);
    m->cpu.csr.menvcfg = ENVCFG_ADUE;
    map(SATP_SV39, 0x1000, 0, clean);
    ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_EXECUTE));
    ck_assert_uint_eq(get64(m, entry), clean | PTE_A);
    ck_assert(!out.write); /* so that the first write comes here again */
    ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_WRITE));
    ck_assert_uint_eq(get64(m, entry), clean | PTE_A | PTE_D);
    ck_assert(out.write);
    /* not for an access that is refused */
    put64(m, entry, pte(TARGET, PTE_V | PTE_R));
    ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_WRITE));
    ck_assert_uint_eq(get64(m, entry), pte(TARGET, PTE_V | PTE_R));
}
END_TEST

/* The update is a store like any other to whoever watches the page. */
START_TEST(hardware_updates_are_reported)
{
    uint64_t page = (entry_at(SATP_SV39, 0x1000, 0) - RAM_BASE) >> 12;
    m->cpu.csr.menvcfg = ENVCFG_ADUE;
    map(SATP_SV39, 0x1000, 0, pte(TARGET, PTE_V | PTE_R));
    atomic_store(&m->memory.page_flags[page], MEMORY_PAGE_CODE);
    ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ));
    ck_assert(atomic_load(&m->memory.page_flags[page]) & MEMORY_PAGE_DEVICE_WROTE);
}
END_TEST

START_TEST(naturally_aligned_power_of_two_pages)
{
    uint64_t leaf = pte(TARGET | 0x8000, LEAF_RW) | PTE_N;
    for (unsigned i = 0; i < 16; i++) { /* the same entry in 16 places */
        map(SATP_SV39, 0x40000 + i * UINT64_C(0x1000), 0, leaf);
    }
    for (unsigned i = 0; i < 16; i++) {
        ck_assert(
            walk(SATP_SV39, RISCV64_SUPERVISOR, 0x40123 + i * UINT64_C(0x1000), CPU_ACCESS_READ));
        ck_assert_uint_eq(out.physical, TARGET + i * UINT64_C(0x1000) + 0x123);
        ck_assert_uint_eq(out.page_size, 65536);
    }
    /* other encodings are reserved, and so is N in large pages */
    for (unsigned low = 0; low < 16; low++) {
        map(SATP_SV39, 0x40000, 0, pte(TARGET | (uint64_t)low << 12, LEAF_R) | PTE_N);
        ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x40000, CPU_ACCESS_READ) == (low == 8));
    }
    map(SATP_SV39, 0, 1, pte(0x8000, LEAF_R) | PTE_N);
    ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0, CPU_ACCESS_READ));
}
END_TEST

START_TEST(page_based_memory_types)
{
    for (uint64_t type = 0; type < 4; type++) {
        map(SATP_SV48, 0x1000, 0, pte(TARGET, LEAF_R) | type << 61);
        m->cpu.csr.menvcfg = 0;
        ck_assert(walk(SATP_SV48, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ) == (type == 0));
        m->cpu.csr.menvcfg = ENVCFG_PBMTE;
        ck_assert(walk(SATP_SV48, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ) == (type < 3));
    }
}
END_TEST

START_TEST(tables_outside_memory)
{
    for (unsigned access = 0; access < 3; access++) {
        map(SATP_SV39, 0x1000, 0, pte(TARGET, LEAF_R));
        put64(m, entry_at(SATP_SV39, 0x1000, 1), pte(RAM_BASE + RAM_SIZE, PTE_V));
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, access));
        ck_assert(faults_with(access_causes[access]));
        put64(m, entry_at(SATP_SV39, 0x1000, 2), UINT64_C(0x3ffffffffffc00) | PTE_V);
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, access));
        ck_assert(faults_with(access_causes[access]));
    }
}
END_TEST

START_TEST(protection_applies_to_target_and_tables)
{
    map(SATP_SV39, 0x1000, 0, pte(TARGET, PTE_V | PTE_R | PTE_W | PTE_X));
    m->cpu.csr.menvcfg = ENVCFG_ADUE;
    /* the target may be read only */
    csr_put(m, 0x3b1, BIT64(54) - 1);
    csr_put(m, 0x3b0, TARGET >> 2 | 0x1ff);
    csr_put(m, 0x3a0, PMP_MODE_NAPOT | PMP_READ | (PMP_MODE_NAPOT | PMP_ALL) << 8);
    ck_assert(walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_READ));
    ck_assert(out.read && !out.write && !out.execute);
    for (unsigned access = 1; access < 3; access++) {
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, access));
        ck_assert(faults_with(access_causes[access]));
    }
    /* a table that cannot be read */
    csr_put(m, 0x3b0, (TABLES + 0x1000) >> 2 | 0x1ff);
    csr_put(m, 0x3a0, PMP_MODE_NAPOT | (PMP_MODE_NAPOT | PMP_ALL) << 8);
    for (unsigned access = 0; access < 3; access++) {
        ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, access));
        ck_assert(faults_with(access_causes[access]));
    }
    /* one whose dirty bits cannot be written */
    put64(m, entry_at(SATP_SV39, 0x1000, 0), pte(TARGET, PTE_V | PTE_R | PTE_W));
    csr_put(m, 0x3b0, (TABLES + 0x2000) >> 2 | 0x1ff);
    csr_put(m, 0x3a0, PMP_MODE_NAPOT | PMP_READ | (PMP_MODE_NAPOT | PMP_ALL) << 8);
    ck_assert(!walk(SATP_SV39, RISCV64_SUPERVISOR, 0x1000, CPU_ACCESS_WRITE));
    ck_assert(faults_with(CAUSE_STORE_ACCESS));
}
END_TEST

START_TEST(untranslated_addresses)
{
    struct mmu_key machine = {.root = 0, .flags = RISCV64_MACHINE};
    struct mmu_key user = {.root = 0, .flags = RISCV64_USER};
    ck_assert(translate(machine, 0x1234, CPU_ACCESS_WRITE));
    ck_assert_uint_eq(out.physical, 0x1234);
    ck_assert(out.read && out.write && out.execute);
    ck_assert(!translate(machine, BIT64(56), CPU_ACCESS_READ));
    ck_assert(faults_with(CAUSE_LOAD_ACCESS));
    ck_assert(translate(user, RAM_BASE, CPU_ACCESS_READ));
    csr_put(m, 0x3a0, 0); /* no entry: user mode gets nothing */
    ck_assert(!translate(user, RAM_BASE, CPU_ACCESS_READ));
    ck_assert(faults_with(CAUSE_LOAD_ACCESS));
}
END_TEST

/* Keys: what status bits and privilege make of them. */
START_TEST(keys_follow_the_modes)
{
    uint64_t root = satp(SATP_SV39);
    csr_put(m, 0x180, root);
    ck_assert_uint_eq(m->data.root, 0); /* machine mode is not translated */
    csr_put(m, 0x300, STATUS_SUM | STATUS_MXR);
    ck_assert_uint_eq(m->data.flags, RISCV64_MACHINE);
    /* MPRV lends loads and stores the previous privilege, not fetches */
    csr_put(m, 0x300, STATUS_MPRV | STATUS_SUM | STATUS_MXR | UINT64_C(1) << STATUS_MPP_SHIFT);
    ck_assert_uint_eq(m->data.root, root);
    ck_assert_uint_eq(m->data.flags, RISCV64_SUPERVISOR | MMU_FLAG_SUM | MMU_FLAG_MXR);
    ck_assert_uint_eq(m->execute.root, 0);
    ck_assert_uint_eq(m->execute.flags, RISCV64_MACHINE);
    csr_put(m, 0x300, STATUS_MPRV | STATUS_SUM);
    ck_assert_uint_eq(m->data.flags, RISCV64_USER); /* SUM means nothing to users */
    csr_put(m, 0x300, 0);
    ck_assert_uint_eq(m->data.root, 0);
    /* supervisor and user */
    map(SATP_SV39, CODE & 0x7fffffffff, 2, pte(0x80000000, LEAF_RW | PTE_X));
    m->cpu.csr.mstatus |= STATUS_SUM;
    enter_privilege(m, RISCV64_SUPERVISOR);
    ck_assert_uint_eq(m->data.flags, RISCV64_SUPERVISOR | MMU_FLAG_SUM);
    ck_assert_uint_eq(m->execute.flags, RISCV64_SUPERVISOR);
    ck_assert_uint_eq(m->execute.root, root);
    unsigned switches = m->switches;
    m->cpu.x[5] = STATUS_SUM;
    execute(m, csr_word(CSRRC, 0x100, 0, 5));
    ck_assert_uint_eq(m->switches, switches + 1);
    ck_assert_uint_eq(m->data.flags, RISCV64_SUPERVISOR);
    execute(m, csr_word(CSRRCI, 0x100, 0, 2)); /* no mode changes: nothing to switch */
    ck_assert_uint_eq(m->switches, switches + 1);
}
END_TEST

/* A user program under Sv39 that faults on a store, with everything as a kernel sees it. */
START_TEST(a_page_fault_from_code)
{
    uint64_t code = 0x10000, data = 0x20000;
    csr_put(m, 0x302, BIT64(CAUSE_STORE_PAGE));
    csr_put(m, 0x180, satp(SATP_SV39));
    map(SATP_SV39, code, 0, pte(CODE, LEAF_R | PTE_X | PTE_U));
    map(SATP_SV39, data, 0, pte(TARGET, LEAF_R | PTE_U));
    put32(m, CODE, 0x00158593);     /* addi a1, a1, 1 */
    put32(m, CODE + 4, 0x00a5b3a3); /* sd a0, 7(a1) */
    m->cpu.csr.stvec = 0xffffffff00000000;
    m->cpu.csr.mepc = code;
    m->cpu.cpu.pc = CODE + 0x100;
    put32(m, CODE + 0x100, MRET);
    step(m, 1);
    ck_assert_uint_eq(m->cpu.privilege, RISCV64_USER);
    m->cpu.x[11] = data + 0x40;
    step(m, 2);
    ck_assert_uint_eq(m->cpu.csr.scause, CAUSE_STORE_PAGE);
    ck_assert_uint_eq(m->cpu.csr.stval, data + 0x48);
    ck_assert_uint_eq(m->cpu.csr.sepc, code + 4);
    ck_assert_uint_eq(m->cpu.x[11], data + 0x41);
    ck_assert_uint_eq(m->cpu.cpu.pc, 0xffffffff00000000);
    /* the handler's page is not mapped: a fetch fault, which is not delegated */
    step(m, 1);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_FETCH_PAGE);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0xffffffff00000000);
    ck_assert_uint_eq(m->cpu.csr.mepc, 0xffffffff00000000);
}
END_TEST

/* An instruction whose second half lies on a page that is not there: epc is its start, tval the
 * missing part. */
START_TEST(a_fetch_across_pages_faults_on_the_second)
{
    csr_put(m, 0x180, satp(SATP_SV39));
    map(SATP_SV39, 0x10000, 0, pte(CODE, LEAF_R | PTE_X | PTE_U));
    m->cpu.csr.mepc = 0x10ffe;
    m->cpu.cpu.pc = CODE + 0x100;
    put32(m, CODE + 0x100, MRET);
    put32(m, CODE + 0xffc, 0x85930001); /* the low half of addi */
    step(m, 1);
    step(m, 1);
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_FETCH_PAGE);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0x11000);
    ck_assert_uint_eq(m->cpu.csr.mepc, 0x10ffe);
}
END_TEST

START_TEST(cache_block_instructions_fault_as_stores)
{
    csr_put(m, 0x30a, ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE);
    csr_put(m, 0x180, satp(SATP_SV39));
    map(SATP_SV39, 0x2000, 0, pte(TARGET, LEAF_R));
    csr_put(m, 0x300, STATUS_MPRV | UINT64_C(1) << STATUS_MPP_SHIFT);
    m->cpu.x[11] = 0x2010;
    m->cpu.cpu.pc = CODE;
    execute(m, 0x0015a00f); /* cbo.clean: reading is enough */
    ck_assert_uint_eq(m->cpu.cpu.pc, CODE + 4);
    m->cpu.csr.mtvec = RAM_BASE + 0x8000;
    execute(m, 0x0045a00f); /* cbo.zero: a store */
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_STORE_PAGE);
    m->cpu.csr.mstatus |= STATUS_MPRV | UINT64_C(1) << STATUS_MPP_SHIFT;
    m->cpu.csr.mstatus &= ~(UINT64_C(2) << STATUS_MPP_SHIFT);
    m->cpu.data_key.root = satp(SATP_SV39);
    m->cpu.data_key.flags = RISCV64_SUPERVISOR;
    m->cpu.x[11] = 0x5010;
    m->cpu.cpu.pc = CODE;
    execute(m, 0x0025a00f); /* cbo.flush of nothing */
    ck_assert_uint_eq(m->cpu.csr.mcause, CAUSE_STORE_PAGE);
    ck_assert_uint_eq(m->cpu.csr.mtval, 0x5010);
}
END_TEST

START_TEST(debuggers_look_without_touching)
{
    uint64_t physical;
    uint64_t entry = entry_at(SATP_SV39, 0x1000, 0);
    m->cpu.csr.satp = satp(SATP_SV39);
    m->cpu.csr.menvcfg = ENVCFG_ADUE;
    map(SATP_SV39, 0x1000, 0, pte(TARGET, PTE_V | PTE_X | PTE_U));
    ck_assert(riscv64_debug_translate(&m->cpu, 0x1000, &physical));
    ck_assert_uint_eq(physical, 0x1000); /* machine mode */
    m->cpu.privilege = RISCV64_SUPERVISOR;
    ck_assert(riscv64_debug_translate(&m->cpu, 0x1040, &physical));
    ck_assert_uint_eq(physical, TARGET + 0x40);
    ck_assert_uint_eq(get64(m, entry), pte(TARGET, PTE_V | PTE_X | PTE_U));
    ck_assert(!riscv64_debug_translate(&m->cpu, 0x9000, &physical));
    ck_assert_uint_eq(m->cpu.cpu.exception, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("riscv64 mmu");
    TCase *mmu = tcase_create("mmu");
    tcase_add_checked_fixture(mmu, set_up, tear_down);
    tcase_add_test(mmu, every_mode_and_page_size);
    tcase_add_test(mmu, addresses_must_be_canonical);
    tcase_add_test(mmu, invalid_entries_fault);
    tcase_add_test(mmu, reserved_bits_fault);
    tcase_add_test(mmu, large_pages_must_be_aligned);
    tcase_add_test(mmu, permissions);
    tcase_add_test(mmu, cached_permissions_are_sound);
    tcase_add_test(mmu, global_in_the_leaf_or_above_it);
    tcase_add_test(mmu, accessed_and_dirty_by_software);
    tcase_add_test(mmu, accessed_and_dirty_by_hardware);
    tcase_add_test(mmu, hardware_updates_are_reported);
    tcase_add_test(mmu, naturally_aligned_power_of_two_pages);
    tcase_add_test(mmu, page_based_memory_types);
    tcase_add_test(mmu, tables_outside_memory);
    tcase_add_test(mmu, protection_applies_to_target_and_tables);
    tcase_add_test(mmu, untranslated_addresses);
    tcase_add_test(mmu, keys_follow_the_modes);
    tcase_add_test(mmu, a_page_fault_from_code);
    tcase_add_test(mmu, a_fetch_across_pages_faults_on_the_second);
    tcase_add_test(mmu, cache_block_instructions_fault_as_stores);
    tcase_add_test(mmu, debuggers_look_without_touching);
    suite_add_tcase(suite, mmu);
    return suite_run(suite);
}
