/*
 * Page-table walks: Sv39, Sv48 and Sv57 with Svnapot, Svpbmt and Svadu (volume II, "Supervisor-
 * Level ISA", section "Virtual Address Translation Process").
 *
 * Page tables are guest memory that other CPUs write: each entry is read once.
 */
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/trap.h"

#define LEVELS_MAX      5
#define INDEX_BITS      9
#define NAPOT_PAGES     16u /* the one size that Svnapot has: 64 KiB */
#define NAPOT_PPN       8u  /* low PPN bits that say so */
#define PTE_PERMISSIONS (PTE_R | PTE_W | PTE_X)

int riscv64_satp_levels(uint64_t satp)
{
    switch (satp >> SATP_MODE_SHIFT) {
    case SATP_BARE:
        return 0;
    case SATP_SV39:
        return 3;
    case SATP_SV48:
        return 4;
    case SATP_SV57:
        return LEVELS_MAX;
    default:
        return -1;
    }
}

/* --- keys ----------------------------------------------------------------------------------- */
static struct mmu_key make_key(const struct riscv64_cpu *cpu, unsigned privilege, bool data)
{
    struct mmu_key key = {.root = 0, .flags = privilege};
    if (privilege == RISCV64_MACHINE || riscv64_satp_levels(cpu->csr.satp) == 0) {
        return key;
    }
    key.root = cpu->csr.satp;
    if (data && (cpu->csr.mstatus & STATUS_MXR)) {
        key.flags |= MMU_FLAG_MXR;
    }
    if (data && privilege == RISCV64_SUPERVISOR && (cpu->csr.mstatus & STATUS_SUM)) {
        key.flags |= MMU_FLAG_SUM;
    }
    return key;
}

struct mmu_key riscv64_data_key(const struct riscv64_cpu *cpu)
{
    unsigned privilege = cpu->privilege;
    if (privilege == RISCV64_MACHINE && (cpu->csr.mstatus & STATUS_MPRV)) {
        privilege = (cpu->csr.mstatus & STATUS_MPP) >> STATUS_MPP_SHIFT;
    }
    return make_key(cpu, privilege, true);
}

struct mmu_key riscv64_execute_key(const struct riscv64_cpu *cpu)
{
    return make_key(cpu, cpu->privilege, false);
}

void riscv64_flush_all(struct riscv64_cpu *cpu)
{
    if (cpu->cpu.host && cpu->cpu.host->tlb_flush) {
        cpu->cpu.host->tlb_flush(&cpu->cpu, true, 0, 0, true, 0);
    }
}

/* --- faults --------------------------------------------------------------------------------- */
enum fault { FAULT_NONE, FAULT_PAGE, FAULT_ACCESS, FAULT_RETRY };

static void raise_page_fault(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    static const uint8_t causes[] = {
        [CPU_ACCESS_READ] = CAUSE_LOAD_PAGE,
        [CPU_ACCESS_WRITE] = CAUSE_STORE_PAGE,
        [CPU_ACCESS_EXECUTE] = CAUSE_FETCH_PAGE,
    };
    cpu_raise(cpu, causes[access], va);
}

void riscv64_raise_access_fault(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    static const uint8_t causes[] = {
        [CPU_ACCESS_READ] = CAUSE_LOAD_ACCESS,
        [CPU_ACCESS_WRITE] = CAUSE_STORE_ACCESS,
        [CPU_ACCESS_EXECUTE] = CAUSE_FETCH_ACCESS,
    };
    cpu_raise(cpu, causes[access], va);
}

void riscv64_raise_misaligned(struct cpu *cpu, uint64_t va, enum cpu_access access)
{
    static const uint8_t causes[] = {
        [CPU_ACCESS_READ] = CAUSE_LOAD_MISALIGNED,
        [CPU_ACCESS_WRITE] = CAUSE_STORE_MISALIGNED,
        [CPU_ACCESS_EXECUTE] = CAUSE_FETCH_MISALIGNED,
    };
    cpu_raise(cpu, causes[access], va);
}

/* --- the walk ------------------------------------------------------------------------------- */
struct walk {
    struct riscv64_cpu *cpu;
    uint64_t va;
    unsigned flags; /* of the key */
    /* The entry that ended it. */
    _Atomic uint64_t *entry;
    uint64_t entry_address; /* physical */
    uint64_t pte;
    unsigned level;
    bool global; /* the leaf, or a table above it, is */
};

static bool is_canonical(uint64_t va, int levels)
{
    unsigned unused = 64 - (12 + INDEX_BITS * (unsigned)levels);
    return (uint64_t)((int64_t)(va << unused) >> unused) == va;
}

/* Bits that no entry may have set, given what is enabled. */
static uint64_t reserved_bits(const struct walk *walk, bool leaf)
{
    uint64_t reserved = PTE_RESERVED;
    if (!leaf) {
        return reserved | PTE_PBMT | PTE_N | PTE_A | PTE_D | PTE_U;
    }
    if (!(walk->cpu->csr.menvcfg & ENVCFG_PBMTE)) {
        reserved |= PTE_PBMT;
    }
    return reserved;
}

/* The leaf's shape: PBMT and N settings, alignment of large pages. */
static bool is_valid_leaf(const struct walk *walk)
{
    uint64_t ppn = walk->pte >> PTE_PPN_SHIFT & SATP_PPN_MASK;
    if ((walk->pte & PTE_PBMT) == PTE_PBMT) {
        return false;
    }
    if (walk->pte & PTE_N) {
        return walk->level == 0 && ppn % NAPOT_PAGES == NAPOT_PPN;
    }
    return (ppn & (BIT64(INDEX_BITS * walk->level) - 1)) == 0;
}

/* Go down to the leaf. */
static enum fault find_leaf(struct walk *walk, uint64_t root)
{
    struct cpu *cpu = &walk->cpu->cpu;
    int levels = riscv64_satp_levels(root);
    uint64_t table = (root & SATP_PPN_MASK) << 12;
    walk->global = false;

    if (levels <= 0 || !is_canonical(walk->va, levels)) {
        return FAULT_PAGE;
    }
    for (unsigned level = (unsigned)levels; level-- > 0;) {
        uint64_t index = walk->va >> (12 + INDEX_BITS * level) & (BIT64(INDEX_BITS) - 1);
        bool leaf;
        walk->entry_address = table + index * 8;
        walk->entry = memory_pointer(cpu->memory, walk->entry_address, 8);
        if (!walk->entry ||
            !(riscv64_pmp_permissions(walk->cpu, walk->entry_address, RISCV64_SUPERVISOR) &
              PMP_READ)) {
            return FAULT_ACCESS;
        }
        walk->pte = atomic_load_explicit(walk->entry, memory_order_acquire);
        walk->level = level;
        walk->global |= (walk->pte & PTE_G) != 0;
        leaf = (walk->pte & (PTE_R | PTE_X)) != 0;
        if (!(walk->pte & PTE_V) || (walk->pte & (PTE_R | PTE_W)) == PTE_W ||
            (walk->pte & reserved_bits(walk, leaf))) {
            return FAULT_PAGE;
        }
        if (leaf) {
            return is_valid_leaf(walk) ? FAULT_NONE : FAULT_PAGE;
        }
        table = (walk->pte >> PTE_PPN_SHIFT & SATP_PPN_MASK) << 12;
    }
    return FAULT_PAGE;
}

/* What the leaf allows, as PTE_R, PTE_W and PTE_X, before accessed and dirty are looked at. */
static uint64_t leaf_permissions(const struct walk *walk)
{
    uint64_t permissions = walk->pte & PTE_PERMISSIONS;
    bool user = (walk->flags & MMU_FLAG_PRIVILEGE) == RISCV64_USER;
    if ((walk->flags & MMU_FLAG_MXR) && (permissions & PTE_X)) {
        permissions |= PTE_R;
    }
    if (user) {
        return walk->pte & PTE_U ? permissions : 0;
    }
    if (walk->pte & PTE_U) {
        /* Supervisors never execute user pages; they use them as data with SUM. */
        return walk->flags & MMU_FLAG_SUM ? permissions & ~PTE_X : 0;
    }
    return permissions;
}

/* Set accessed and dirty bits where hardware may; FAULT_RETRY: the entry changed meanwhile. */
static enum fault update_leaf(struct walk *walk, enum cpu_access access)
{
    uint64_t needed = PTE_A | (access == CPU_ACCESS_WRITE ? PTE_D : 0);
    uint64_t pte = walk->pte;
    const _Atomic uint8_t *page;
    if ((pte & needed) == needed) {
        return FAULT_NONE;
    }
    if (!(walk->cpu->csr.menvcfg & ENVCFG_ADUE)) {
        return FAULT_PAGE;
    }
    if (!(riscv64_pmp_permissions(walk->cpu, walk->entry_address, RISCV64_SUPERVISOR) &
          PMP_WRITE)) {
        return FAULT_ACCESS;
    }
    if (!atomic_compare_exchange_strong(walk->entry, &pte, pte | needed)) {
        return FAULT_RETRY;
    }
    walk->pte |= needed;
    /* This store bypasses the soft MMU, so report it as a device would. */
    page = memory_page_flags(walk->cpu->cpu.memory, walk->entry_address);
    if (page && atomic_load(page)) {
        memory_device_wrote(walk->cpu->cpu.memory, walk->entry_address, 8);
    }
    return FAULT_NONE;
}

static uint64_t leaf_size(const struct walk *walk)
{
    if (walk->pte & PTE_N) {
        return NAPOT_PAGES * MEMORY_PAGE_SIZE;
    }
    return UINT64_C(4096) << INDEX_BITS * walk->level;
}

static uint64_t leaf_physical(const struct walk *walk)
{
    uint64_t offset_mask = leaf_size(walk) - 1;
    uint64_t base = (walk->pte >> PTE_PPN_SHIFT & SATP_PPN_MASK) << 12;
    return (base & ~offset_mask) | (walk->va & offset_mask);
}

static enum fault walk_once(struct walk *walk, uint64_t root, enum cpu_access access,
                            struct mmu_translation *out)
{
    static const uint8_t needed[] = {
        [CPU_ACCESS_READ] = PTE_R,
        [CPU_ACCESS_WRITE] = PTE_W,
        [CPU_ACCESS_EXECUTE] = PTE_X,
    };
    enum fault fault = find_leaf(walk, root);
    uint64_t permissions;
    if (fault != FAULT_NONE) {
        return fault;
    }
    permissions = leaf_permissions(walk);
    if (!(permissions & needed[access])) {
        return FAULT_PAGE;
    }
    fault = update_leaf(walk, access);
    if (fault != FAULT_NONE) {
        return fault;
    }
    out->physical = leaf_physical(walk);
    out->page_size = leaf_size(walk);
    out->read = (permissions & PTE_R) != 0;
    out->write = (permissions & PTE_W) && (walk->pte & PTE_D);
    out->execute = (permissions & PTE_X) != 0;
    out->global = walk->global;
    return FAULT_NONE;
}

/* Untranslated: the address as it is, as far as physical addresses reach. */
static enum fault translate_bare(uint64_t va, struct mmu_translation *out)
{
    if (va >> PHYSICAL_BITS) {
        return FAULT_ACCESS;
    }
    *out = (struct mmu_translation){.physical = va,
                                    .page_size = MEMORY_PAGE_SIZE,
                                    .read = true,
                                    .write = true,
                                    .execute = true};
    return FAULT_NONE;
}

/* Narrow the translation to what PMP allows; FAULT_ACCESS when that is not the access asked for. */
static enum fault apply_pmp(const struct riscv64_cpu *cpu, unsigned privilege,
                            enum cpu_access access, struct mmu_translation *out)
{
    unsigned allowed = riscv64_pmp_permissions(cpu, out->physical, privilege);
    bool granted[3];
    out->read = out->read && (allowed & PMP_READ);
    out->write = out->write && (allowed & PMP_WRITE);
    out->execute = out->execute && (allowed & PMP_EXECUTE);
    granted[CPU_ACCESS_READ] = out->read;
    granted[CPU_ACCESS_WRITE] = out->write;
    granted[CPU_ACCESS_EXECUTE] = out->execute;
    return granted[access] ? FAULT_NONE : FAULT_ACCESS;
}

bool riscv64_translate(struct cpu *base, struct mmu_key key, uint64_t va, enum cpu_access access,
                       struct mmu_translation *out)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    struct walk walk = {.cpu = cpu, .va = va, .flags = key.flags};
    enum fault fault;
    do {
        fault = key.root ? walk_once(&walk, key.root, access, out) : translate_bare(va, out);
    } while (fault == FAULT_RETRY);
    if (fault == FAULT_NONE) {
        fault = apply_pmp(cpu, key.flags & MMU_FLAG_PRIVILEGE, access, out);
    }
    if (fault == FAULT_NONE) {
        return true;
    }
    if (fault == FAULT_PAGE) {
        raise_page_fault(base, va, access);
    } else {
        riscv64_raise_access_fault(base, va, access);
    }
    return false;
}

static bool debug_translate(struct riscv64_cpu *cpu, struct mmu_key key, uint64_t va,
                            uint64_t *physical)
{
    struct walk walk = {.cpu = cpu, .va = va, .flags = key.flags};
    if (!key.root) {
        *physical = va;
        return va >> PHYSICAL_BITS == 0;
    }
    if (find_leaf(&walk, key.root) != FAULT_NONE) {
        return false;
    }
    *physical = leaf_physical(&walk);
    return true;
}

bool riscv64_debug_translate(struct riscv64_cpu *cpu, uint64_t va, uint64_t *physical)
{
    return debug_translate(cpu, riscv64_data_key(cpu), va, physical);
}

bool riscv64_debug_translate_code(struct cpu *base, uint64_t va, uint64_t *physical)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    return debug_translate(cpu, riscv64_execute_key(cpu), va, physical);
}

bool riscv64_guess_translation(struct cpu *cpu, struct mmu_key key, uint64_t va, uint64_t *physical)
{
    return debug_translate(riscv64_cpu(cpu), key, va, physical);
}
