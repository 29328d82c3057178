/*
 * The register table and access functions. Write functions get the bits that the instruction
 * changes (`mask`) and their new values, so that set and clear instructions are atomic with
 * respect to bits that other threads set.
 */
#include "libshared/isa/riscv64/csr.h"
#include "libshared/fp/fp_host.h"
#include "libshared/isa/riscv64/decode.h"
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/registers.h"
#include "libshared/isa/riscv64/trap.h"
#include <stdio.h>

struct csr;
typedef bool csr_check(const struct riscv64_cpu *cpu, unsigned number);
typedef uint64_t csr_read(struct riscv64_cpu *cpu, unsigned number);
typedef void csr_write(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask);

struct csr {
    uint16_t first, last;
    const char *name;
    csr_check *check;
    csr_read *read;   /* NULL: the field at `member` */
    csr_write *write; /* NULL: likewise */
    uint16_t member;
    uint8_t effect;
    uint64_t writable;
};

static uint64_t merge(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

/* --- access conditions ---------------------------------------------------------------------- */
static bool csr_check_always(const struct riscv64_cpu *cpu, unsigned number)
{
    (void)cpu;
    (void)number;
    return true;
}

static bool csr_check_float(const struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return (cpu->csr.mstatus & STATUS_FS) != 0;
}

/* Volume II, "Machine Counter-Enable Register": each privilege opens a counter to the next. */
static bool csr_check_counter(const struct riscv64_cpu *cpu, unsigned number)
{
    uint64_t bit = BIT64(number & 31);
    if (cpu->privilege < RISCV64_MACHINE && !(cpu->csr.mcounteren & bit)) {
        return false;
    }
    return cpu->privilege != RISCV64_USER || (cpu->csr.scounteren & bit);
}

/* "Sstc": as the time counter, and enabled by menvcfg.STCE. */
static bool csr_check_stimecmp(const struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->privilege == RISCV64_MACHINE ||
           ((cpu->csr.mcounteren & COUNTER_TIME) && (cpu->csr.menvcfg & ENVCFG_STCE));
}

static bool csr_check_satp(const struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->privilege == RISCV64_MACHINE || !(cpu->csr.mstatus & STATUS_TVM);
}

static bool csr_check_aia(const struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->has_aia;
}

/* siselect values of the iprio array; of RV64 the even ones. */
static bool is_priority(uint64_t select)
{
    return select >= 0x30 && select <= 0x3e && select % 2 == 0;
}

static bool csr_check_sireg(const struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->has_aia && (is_priority(cpu->csr.siselect) || riscv64_imsic_has(cpu->csr.siselect));
}

/* --- constants ------------------------------------------------------------------------------ */
static uint64_t csr_read_zero(struct riscv64_cpu *cpu, unsigned number)
{
    (void)cpu;
    (void)number;
    return 0;
}

static void csr_write_nothing(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    (void)cpu;
    (void)number;
    (void)value;
    (void)mask;
}

static uint64_t csr_read_hart_id(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->hart_id;
}

/* --- floating point ------------------------------------------------------------------------- */
void riscv64_mark_float_dirty(struct riscv64_cpu *cpu)
{
    cpu->csr.mstatus |= STATUS_FS_DIRTY | STATUS_SD;
}

static uint64_t csr_read_fflags(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    cpu->cpu.fp_flags |= fp_collect_host_flags();
    return cpu->cpu.fp_flags & 0x1f;
}

static uint64_t csr_read_frm(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->frm;
}

static uint64_t csr_read_fcsr(struct riscv64_cpu *cpu, unsigned number)
{
    return csr_read_fflags(cpu, number) | (uint64_t)cpu->frm << 5;
}

static void csr_write_fcsr(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    uint64_t fcsr = merge(csr_read_fcsr(cpu, number), value, mask);
    cpu->cpu.fp_flags = fcsr & 0x1f;
    cpu->frm = fcsr >> 5 & 7;
    riscv64_mark_float_dirty(cpu);
}

static void csr_write_fflags(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                             uint64_t mask)
{
    csr_write_fcsr(cpu, number, value, mask & 0x1f);
}

static void csr_write_frm(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    csr_write_fcsr(cpu, number, value << 5, (mask & 7) << 5);
}

/* --- counters ------------------------------------------------------------------------------- */

/* As software reads it. Called inside a helper: cpu->retired counts the instructions before the
 * current one. */
static uint64_t counter(const struct riscv64_cpu *cpu, uint64_t offset, uint64_t inhibit)
{
    return cpu->csr.mcountinhibit & inhibit ? offset : cpu->cpu.retired + offset;
}

/* The offset that makes the counter read `value` in the next instruction: the one that writes a
 * counter does not count itself (volume I, "Zicntr"). */
static uint64_t counter_offset(const struct riscv64_cpu *cpu, uint64_t value, uint64_t inhibit)
{
    return cpu->csr.mcountinhibit & inhibit ? value : value - (cpu->cpu.retired + 1);
}

static uint64_t csr_read_cycle(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return counter(cpu, cpu->csr.cycle_offset, COUNTER_CYCLE);
}

static uint64_t csr_read_instret(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return counter(cpu, cpu->csr.instret_offset, COUNTER_INSTRET);
}

static void csr_write_cycle(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    uint64_t now = merge(csr_read_cycle(cpu, number), value, mask);
    cpu->csr.cycle_offset = counter_offset(cpu, now, COUNTER_CYCLE);
}

static void csr_write_instret(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    uint64_t now = merge(csr_read_instret(cpu, number), value, mask);
    cpu->csr.instret_offset = counter_offset(cpu, now, COUNTER_INSTRET);
}

static uint64_t csr_read_mcountinhibit(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.mcountinhibit;
}

/* Stopping a counter freezes its value in the offset, starting it again goes on from there. */
static void csr_write_mcountinhibit(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                                    uint64_t mask)
{
    uint64_t cycle = csr_read_cycle(cpu, number), instret = csr_read_instret(cpu, number);
    uint64_t old = cpu->csr.mcountinhibit;
    uint64_t changed;
    cpu->csr.mcountinhibit = merge(old, value, mask & (COUNTER_CYCLE | COUNTER_INSTRET));
    changed = old ^ cpu->csr.mcountinhibit;
    if (changed & COUNTER_CYCLE) {
        cpu->csr.cycle_offset = counter_offset(cpu, cycle, COUNTER_CYCLE);
    }
    if (changed & COUNTER_INSTRET) {
        cpu->csr.instret_offset = counter_offset(cpu, instret, COUNTER_INSTRET);
    }
}

static uint64_t csr_read_time(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->cpu.host->time(&cpu->cpu);
}

/* --- status --------------------------------------------------------------------------------- */
static void write_status(struct riscv64_cpu *cpu, uint64_t value, uint64_t mask)
{
    uint64_t status;
    if ((merge(cpu->csr.mstatus, value, mask) & STATUS_MPP) == UINT64_C(2) << STATUS_MPP_SHIFT) {
        mask &= ~STATUS_MPP; /* there is no such privilege */
    }
    status = merge(cpu->csr.mstatus, value, mask) & ~STATUS_SD;
    if ((status & STATUS_FS) == STATUS_FS_DIRTY) {
        status |= STATUS_SD;
    }
    cpu->csr.mstatus = status;
}

static uint64_t csr_read_mstatus(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.mstatus;
}

static void csr_write_mstatus(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    (void)number;
    write_status(cpu, value, mask & STATUS_MACHINE_WRITABLE);
}

static uint64_t csr_read_sstatus(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.mstatus & STATUS_SUPERVISOR_READABLE;
}

static void csr_write_sstatus(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    (void)number;
    write_status(cpu, value, mask & STATUS_SUPERVISOR_WRITABLE);
}

/* --- interrupts ----------------------------------------------------------------------------- */
static uint64_t csr_read_mip(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return riscv64_mip(cpu);
}

/* SSIP is one bit for software and hardware; of SEIP and STIP software changes its own copy. */
static void csr_write_mip(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    uint64_t software = IRQ_SEXT;
    (void)number;
    if (!(cpu->csr.menvcfg & ENVCFG_STCE)) {
        software |= IRQ_STIMER;
    }
    cpu->csr.software_mip = merge(cpu->csr.software_mip, value, mask & software);
    if (mask & IRQ_SSOFT) {
        if (value & IRQ_SSOFT) {
            atomic_fetch_or(&cpu->lines, IRQ_SSOFT);
        } else {
            atomic_fetch_and(&cpu->lines, ~IRQ_SSOFT);
        }
    }
}

static uint64_t csr_read_sip(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return riscv64_mip(cpu) & cpu->csr.mideleg;
}

static void csr_write_sip(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    csr_write_mip(cpu, number, value, mask & cpu->csr.mideleg & IRQ_SSOFT);
}

static uint64_t csr_read_sie(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.mie & cpu->csr.mideleg;
}

static void csr_write_sie(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    (void)number;
    cpu->csr.mie = merge(cpu->csr.mie, value, mask & cpu->csr.mideleg);
}

/* Modes above 1 (vectored) are reserved: the mode then stays. */
static uint64_t trap_vector(uint64_t old, uint64_t value, uint64_t mask)
{
    uint64_t vector = merge(old, value, mask);
    return (vector & 3) > 1 ? (vector & ~UINT64_C(3)) | (old & 3) : vector;
}

static uint64_t csr_read_mtvec(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.mtvec;
}

static void csr_write_mtvec(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    (void)number;
    cpu->csr.mtvec = trap_vector(cpu->csr.mtvec, value, mask);
}

static uint64_t csr_read_stvec(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.stvec;
}

static void csr_write_stvec(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    (void)number;
    cpu->csr.stvec = trap_vector(cpu->csr.stvec, value, mask);
}

static uint64_t csr_read_stimecmp(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.stimecmp;
}

static void csr_write_stimecmp(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                               uint64_t mask)
{
    (void)number;
    cpu->csr.stimecmp = merge(cpu->csr.stimecmp, value, mask);
    riscv64_update_supervisor_timer(cpu);
}

/* --- Advanced Interrupt Architecture: chapters 2, 3 and 5 ------------------------------------ */

/* Priorities of major interrupts are fixed: their array is all read-only zeros (5.4.1), as are the
 * IMSIC's registers without a meaning. */
static uint64_t csr_read_sireg(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return riscv64_imsic_read(&cpu->imsic, cpu->csr.siselect);
}

static void csr_write_sireg(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    (void)number;
    riscv64_imsic_write(&cpu->imsic, cpu->csr.siselect, value, mask);
}

static uint64_t csr_read_stopei(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    cpu->stopei = riscv64_imsic_top(&cpu->imsic);
    return (uint64_t)cpu->stopei << 16 | cpu->stopei;
}

/* Claims what the same instruction has read, whatever may have become more urgent since (3.9). */
static void csr_write_stopei(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                             uint64_t mask)
{
    (void)number;
    (void)value;
    (void)mask;
    riscv64_imsic_claim(&cpu->imsic, cpu->stopei);
}

/* With fixed priorities the field for them is always 1 (5.4.2). */
static uint64_t csr_read_stopi(struct riscv64_cpu *cpu, unsigned number)
{
    unsigned top = riscv64_top_supervisor_interrupt(cpu);
    (void)number;
    return top ? (uint64_t)top << 16 | 1 : 0;
}

/* --- configuration -------------------------------------------------------------------------- */
static uint64_t environment(uint64_t old, uint64_t value, uint64_t mask)
{
    uint64_t merged = merge(old, value, mask);
    if ((merged & ENVCFG_CBIE) == ENVCFG_CBIE_WRONG) {
        merged = (merged & ~ENVCFG_CBIE) | (old & ENVCFG_CBIE);
    }
    return merged;
}

static uint64_t csr_read_senvcfg(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.senvcfg;
}

static void csr_write_senvcfg(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    (void)number;
    cpu->csr.senvcfg = environment(cpu->csr.senvcfg, value, mask & ENVCFG_SUPERVISOR);
}

static uint64_t csr_read_menvcfg(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.menvcfg;
}

static void csr_write_menvcfg(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    uint64_t old = cpu->csr.menvcfg;
    (void)number;
    cpu->csr.menvcfg = environment(old, value, mask & ENVCFG_MACHINE);
    if ((old ^ cpu->csr.menvcfg) & (ENVCFG_ADUE | ENVCFG_PBMTE)) {
        riscv64_flush_all(cpu);
    }
    if ((old ^ cpu->csr.menvcfg) & ENVCFG_STCE) {
        riscv64_update_supervisor_timer(cpu);
    }
}

static uint64_t csr_read_satp(struct riscv64_cpu *cpu, unsigned number)
{
    (void)number;
    return cpu->csr.satp;
}

/* A mode that is not implemented makes the whole write void. */
static void csr_write_satp(struct riscv64_cpu *cpu, unsigned number, uint64_t value, uint64_t mask)
{
    uint64_t satp = merge(cpu->csr.satp, value, mask);
    (void)number;
    if (riscv64_satp_levels(satp) >= 0) {
        cpu->csr.satp = satp;
    }
}

static uint64_t csr_read_pmpcfg(struct riscv64_cpu *cpu, unsigned number)
{
    return cpu->csr.pmpcfg[number >> 1 & 1];
}

static void csr_write_pmpcfg(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                             uint64_t mask)
{
    unsigned index = number >> 1 & 1;
    riscv64_pmp_write_config(cpu, index, merge(cpu->csr.pmpcfg[index], value, mask));
}

static uint64_t csr_read_pmpaddr(struct riscv64_cpu *cpu, unsigned number)
{
    return riscv64_pmp_read_address(cpu, number & 15);
}

static void csr_write_pmpaddr(struct riscv64_cpu *cpu, unsigned number, uint64_t value,
                              uint64_t mask)
{
    unsigned index = number & 15;
    riscv64_pmp_write_address(cpu, index, merge(riscv64_pmp_read_address(cpu, index), value, mask));
}

/* --- the table ------------------------------------------------------------------------------ */
static const struct csr csrs[] = {
    {.name = NULL}, /* index 0: no such register */
#define CSR_FIELD(number, name, check, member, writable, effect)                                   \
    {number,                                                                                       \
     number,                                                                                       \
     name,                                                                                         \
     csr_check_##check,                                                                            \
     NULL,                                                                                         \
     NULL,                                                                                         \
     offsetof(struct riscv64_csrs, member),                                                        \
     CSR_##effect,                                                                                 \
     writable},
#define CSR_CODE(first, last, name, check, read, write, effect)                                    \
    {first, last, name, csr_check_##check, csr_read_##read, csr_write_##write, 0, CSR_##effect, 0},
#include "libshared/isa/riscv64/csrs.def"
#undef CSR_FIELD
#undef CSR_CODE
};

enum {
    CSR_INDEX_NONE,
#define CSR_FIELD(number, ...)     CSR_INDEX_##number,
#define CSR_CODE(first, last, ...) CSR_INDEX_##first,
#include "libshared/isa/riscv64/csrs.def"
#undef CSR_FIELD
#undef CSR_CODE
    CSR_COUNT
};
_Static_assert(CSR_COUNT == sizeof(csrs) / sizeof(csrs[0]) && CSR_COUNT <= UINT8_MAX, "one byte");

static const uint8_t csr_index[4096] = {
#define CSR_FIELD(number, ...)     [number] = CSR_INDEX_##number,
#define CSR_CODE(first, last, ...) [first... last] = CSR_INDEX_##first,
#include "libshared/isa/riscv64/csrs.def"
#undef CSR_FIELD
#undef CSR_CODE
};

static const struct csr *find_csr(unsigned number)
{
    unsigned index = csr_index[number & 0xfff];
    return index ? &csrs[index] : NULL;
}

static uint64_t *csr_member(struct riscv64_cpu *cpu, const struct csr *csr)
{
    return (uint64_t *)((char *)&cpu->csr + csr->member);
}

static uint64_t read_csr(struct riscv64_cpu *cpu, const struct csr *csr, unsigned number)
{
    return csr->read ? csr->read(cpu, number) : *csr_member(cpu, csr);
}

static void write_csr(struct riscv64_cpu *cpu, const struct csr *csr, unsigned number,
                      uint64_t value, uint64_t mask)
{
    if (csr->write) {
        csr->write(cpu, number, value, mask);
    } else {
        uint64_t *member = csr_member(cpu, csr);
        *member = merge(*member, value, mask & csr->writable);
    }
}

/* --- instructions --------------------------------------------------------------------------- */
static bool is_immediate(uint32_t word)
{
    return (word >> 14 & 1) != 0;
}

enum csr_operation riscv64_csr_operation(uint32_t word)
{
    enum csr_operation operation = (enum csr_operation)(word >> 12 & 3);
    /* Set and clear with x0 (or 0) only read. */
    return operation == CSR_WRITE || field_rs1(word) != 0 ? operation : CSR_READ;
}

static bool writes(uint32_t word)
{
    return riscv64_csr_operation(word) != CSR_READ;
}

enum riscv64_csr_effect riscv64_csr_effect(uint32_t word)
{
    const struct csr *csr = find_csr(field_csr(word));
    if (!csr || !writes(word)) {
        return CSR_CONTINUE;
    }
    /* Immediates reach no further than the interrupt enables of the status registers, and kernels
     * switch those all the time. */
    if ((csr->first == 0x100 || csr->first == 0x300) && is_immediate(word)) {
        if (riscv64_csr_operation(word) == CSR_CLEAR) {
            return CSR_CONTINUE;
        }
        if (riscv64_csr_operation(word) == CSR_SET) {
            return CSR_POLL;
        }
    }
    return (enum riscv64_csr_effect)csr->effect;
}

static bool may_access(const struct riscv64_cpu *cpu, const struct csr *csr, uint32_t word)
{
    unsigned number = field_csr(word);
    return csr && (number >> 8 & 3) <= cpu->privilege && !(writes(word) && number >> 10 == 3) &&
           csr->check(cpu, number);
}

bool riscv64_csr_execute(struct riscv64_cpu *cpu, uint32_t word, uint64_t source, uint64_t *old)
{
    unsigned number = field_csr(word);
    const struct csr *csr = find_csr(number);
    uint64_t operand = is_immediate(word) ? field_rs1(word) : source;

    if (!may_access(cpu, csr, word)) {
        return false;
    }
    *old = read_csr(cpu, csr, number);
    switch (riscv64_csr_operation(word)) {
    case CSR_READ:
        return true;
    case CSR_WRITE:
        write_csr(cpu, csr, number, operand, UINT64_MAX);
        break;
    case CSR_SET:
        write_csr(cpu, csr, number, UINT64_MAX, operand);
        break;
    case CSR_CLEAR:
        write_csr(cpu, csr, number, 0, operand);
        break;
    }
    switch (riscv64_csr_effect(word)) {
    case CSR_MODE:
        riscv64_update_modes(cpu);
        riscv64_update_attention(cpu);
        break;
    case CSR_POLL:
        riscv64_update_attention(cpu);
        break;
    case CSR_CONTINUE:
        break;
    }
    return true;
}

/* --- names ---------------------------------------------------------------------------------- */
bool riscv64_csr_name(unsigned number, char *name, size_t size)
{
    const struct csr *csr = number < 4096 ? find_csr(number) : NULL;
    if (!csr) {
        return false;
    }
    if (csr->first == csr->last) {
        snprintf(name, size, "%s", csr->name);
    } else {
        /* Ranges start at a number whose low digit is that of the first name. */
        snprintf(name, size, "%s%u", csr->name, number - csr->first + (csr->first & 15));
    }
    return true;
}

bool riscv64_csr_peek(struct riscv64_cpu *cpu, unsigned number, uint64_t *value)
{
    const struct csr *csr = number < 4096 ? find_csr(number) : NULL;
    if (!csr) {
        return false;
    }
    *value = read_csr(cpu, csr, number);
    return true;
}
