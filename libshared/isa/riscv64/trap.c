/* Traps and interrupts (volume II, chapters "Machine-Level ISA" and "Supervisor-Level ISA"). */
#include "libshared/isa/riscv64/trap.h"
#include "libshared/isa/riscv64/mmu.h"
#include "libshared/isa/riscv64/registers.h"

/* --- modes ---------------------------------------------------------------------------------- */
static uint32_t float_mode(const struct riscv64_cpu *cpu)
{
    switch ((cpu->csr.mstatus & STATUS_FS) >> STATUS_FS_SHIFT) {
    case 0:
        return BLOCK_MODE_FS_OFF;
    case 3:
        return BLOCK_MODE_FS_DIRTY | (uint32_t)cpu->frm << BLOCK_MODE_FRM_SHIFT;
    default:
        return BLOCK_MODE_FS_CLEAN | (uint32_t)cpu->frm << BLOCK_MODE_FRM_SHIFT;
    }
}

static uint32_t block_mode(const struct riscv64_cpu *cpu)
{
    return float_mode(cpu) | (cpu->privilege != RISCV64_USER ? BLOCK_MODE_SYSTEM : 0);
}

static bool same_key(const struct mmu_key *a, const struct mmu_key *b)
{
    return a->root == b->root && a->flags == b->flags;
}

void riscv64_update_modes(struct riscv64_cpu *cpu)
{
    struct mmu_key data = riscv64_data_key(cpu);
    struct mmu_key execute = riscv64_execute_key(cpu);
    cpu->cpu.block_mode = block_mode(cpu);
    if (same_key(&data, &cpu->data_key) && same_key(&execute, &cpu->execute_key)) {
        return;
    }
    cpu->data_key = data;
    cpu->execute_key = execute;
    if (cpu->cpu.host && cpu->cpu.host->mmu_switch) {
        cpu->cpu.host->mmu_switch(&cpu->cpu, data, execute);
    }
}

/* --- pending interrupts --------------------------------------------------------------------- */
uint64_t riscv64_mip(const struct riscv64_cpu *cpu)
{
    uint64_t lines = atomic_load_explicit(&cpu->lines, memory_order_acquire);
    uint64_t mip = lines | cpu->csr.software_mip;
    if (riscv64_imsic_asserts(&cpu->imsic)) {
        mip |= IRQ_SEXT;
    }
    if (cpu->csr.menvcfg & ENVCFG_STCE) {
        return (mip & ~IRQ_STIMER) | (lines & IRQ_STIMER);
    }
    return (mip & ~IRQ_STIMER) | (cpu->csr.software_mip & IRQ_STIMER);
}

void riscv64_set_line(struct riscv64_cpu *cpu, enum riscv64_interrupt line, bool level)
{
    uint64_t bit = BIT64(line);
    if (!level) {
        atomic_fetch_and(&cpu->lines, ~bit);
    } else if (!(atomic_fetch_or(&cpu->lines, bit) & bit)) {
        cpu_attention(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
}

bool riscv64_message(struct riscv64_cpu *cpu, uint64_t identity)
{
    bool due = riscv64_imsic_message(&cpu->imsic, identity);
    if (due) {
        cpu_attention(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
    return due;
}

/* The machine's timer thread drives the same line, and may look at the clock between our looks: so
 * the line is lowered before it knows the deadline, and raised after. */
void riscv64_update_supervisor_timer(struct riscv64_cpu *cpu)
{
    const struct cpu_host *host = cpu->cpu.host;
    uint64_t deadline = cpu->csr.menvcfg & ENVCFG_STCE ? cpu->csr.stimecmp : UINT64_MAX;
    if (host->time(&cpu->cpu) < deadline) {
        riscv64_set_line(cpu, RISCV64_IRQ_STIMER, false);
    }
    host->timer_changed(&cpu->cpu, RISCV64_TIMER_STIMECMP, deadline);
    if (host->time(&cpu->cpu) >= deadline) {
        riscv64_set_line(cpu, RISCV64_IRQ_STIMER, true);
    }
}

/* The interrupts that would be taken now; those for machine mode hide the others. */
static uint64_t enabled_interrupts(const struct riscv64_cpu *cpu, uint64_t pending)
{
    uint64_t machine = pending & ~cpu->csr.mideleg;
    uint64_t supervisor = pending & cpu->csr.mideleg;
    if (machine && (cpu->privilege < RISCV64_MACHINE || (cpu->csr.mstatus & STATUS_MIE))) {
        return machine;
    }
    if (supervisor && (cpu->privilege < RISCV64_SUPERVISOR ||
                       (cpu->privilege == RISCV64_SUPERVISOR && (cpu->csr.mstatus & STATUS_SIE)))) {
        return supervisor;
    }
    return 0;
}

static uint64_t due_interrupts(struct riscv64_cpu *cpu, bool wake)
{
    uint64_t pending = riscv64_mip(cpu) & cpu->csr.mie;
    return wake ? pending : enabled_interrupts(cpu, pending);
}

/* A timer thread may fire for a deadline that the guest has just moved. The architecture's STIP is
 * a comparison, so compare before it counts. */
static uint64_t confirmed_interrupts(struct riscv64_cpu *cpu, bool wake)
{
    uint64_t due = due_interrupts(cpu, wake);
    if ((due & IRQ_STIMER) && (cpu->csr.menvcfg & ENVCFG_STCE) &&
        cpu->cpu.host->time(&cpu->cpu) < cpu->csr.stimecmp) {
        riscv64_update_supervisor_timer(cpu);
        due = due_interrupts(cpu, wake);
    }
    return due;
}

/* Volume II, "Machine Interrupt Registers": decreasing priority. 0: there is none. */
static unsigned most_urgent(uint64_t interrupts)
{
    static const uint8_t priority[] = {
        RISCV64_IRQ_MEXT, RISCV64_IRQ_MSOFT, RISCV64_IRQ_MTIMER,
        RISCV64_IRQ_SEXT, RISCV64_IRQ_SSOFT, RISCV64_IRQ_STIMER,
    };
    for (unsigned i = 0; i < sizeof(priority); i++) {
        if (interrupts & BIT64(priority[i])) {
            return priority[i];
        }
    }
    return 0;
}

unsigned riscv64_top_supervisor_interrupt(struct riscv64_cpu *cpu)
{
    return most_urgent(confirmed_interrupts(cpu, true) & cpu->csr.mideleg);
}

bool riscv64_interrupt_pending(struct cpu *cpu, bool wake)
{
    return confirmed_interrupts(riscv64_cpu(cpu), wake) != 0;
}

void riscv64_update_attention(struct riscv64_cpu *cpu)
{
    if (riscv64_interrupt_pending(&cpu->cpu, false)) {
        cpu_attention(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
}

/* --- entry ---------------------------------------------------------------------------------- */
static uint64_t handler(uint64_t vector, uint64_t cause)
{
    uint64_t base = vector & ~UINT64_C(3);
    if ((vector & 1) && (cause & CAUSE_INTERRUPT)) {
        return base + 4 * (cause & ~CAUSE_INTERRUPT);
    }
    return base;
}

static void enter_machine(struct riscv64_cpu *cpu, uint64_t cause, uint64_t value)
{
    struct riscv64_csrs *csr = &cpu->csr;
    uint64_t status = csr->mstatus & ~(STATUS_MPP | STATUS_MPIE | STATUS_MIE);
    if (csr->mstatus & STATUS_MIE) {
        status |= STATUS_MPIE;
    }
    csr->mstatus = status | (uint64_t)cpu->privilege << STATUS_MPP_SHIFT;
    csr->mepc = cpu->cpu.pc;
    csr->mcause = cause;
    csr->mtval = value;
    cpu->privilege = RISCV64_MACHINE;
    cpu->cpu.pc = handler(csr->mtvec, cause);
}

static void enter_supervisor(struct riscv64_cpu *cpu, uint64_t cause, uint64_t value)
{
    struct riscv64_csrs *csr = &cpu->csr;
    uint64_t status = csr->mstatus & ~(STATUS_SPP | STATUS_SPIE | STATUS_SIE);
    if (csr->mstatus & STATUS_SIE) {
        status |= STATUS_SPIE;
    }
    if (cpu->privilege == RISCV64_SUPERVISOR) {
        status |= STATUS_SPP;
    }
    csr->mstatus = status;
    csr->sepc = cpu->cpu.pc;
    csr->scause = cause;
    csr->stval = value;
    cpu->privilege = RISCV64_SUPERVISOR;
    cpu->cpu.pc = handler(csr->stvec, cause);
}

/* Traps never go to a lesser privilege than they come from. */
static void enter(struct riscv64_cpu *cpu, uint64_t cause, uint64_t value, uint64_t delegated)
{
    unsigned number = cause & 63;
    if (cpu->privilege <= RISCV64_SUPERVISOR && (delegated & BIT64(number))) {
        enter_supervisor(cpu, cause, value);
    } else {
        enter_machine(cpu, cause, value);
    }
    riscv64_update_modes(cpu);
    riscv64_update_attention(cpu);
}

void riscv64_deliver_exception(struct cpu *base)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    uint64_t cause = base->exception - 1;
    base->exception = 0;
    enter(cpu, cause, base->exception_value, cpu->csr.medeleg);
}

void riscv64_deliver_interrupt(struct cpu *base)
{
    struct riscv64_cpu *cpu = riscv64_cpu(base);
    unsigned number = most_urgent(confirmed_interrupts(cpu, false));
    if (number != 0) {
        enter(cpu, CAUSE_INTERRUPT | number, 0, cpu->csr.mideleg);
    }
}

/* --- return --------------------------------------------------------------------------------- */
void riscv64_return_machine(struct riscv64_cpu *cpu)
{
    struct riscv64_csrs *csr = &cpu->csr;
    unsigned previous = (csr->mstatus & STATUS_MPP) >> STATUS_MPP_SHIFT;
    uint64_t status = csr->mstatus & ~(STATUS_MPP | STATUS_MIE);
    if (csr->mstatus & STATUS_MPIE) {
        status |= STATUS_MIE;
    }
    if (previous != RISCV64_MACHINE) {
        status &= ~STATUS_MPRV;
    }
    csr->mstatus = status | STATUS_MPIE;
    cpu->privilege = (uint8_t)previous;
    cpu->cpu.pc = csr->mepc;
    riscv64_update_modes(cpu);
    riscv64_update_attention(cpu);
}

void riscv64_return_supervisor(struct riscv64_cpu *cpu)
{
    struct riscv64_csrs *csr = &cpu->csr;
    unsigned previous = csr->mstatus & STATUS_SPP ? RISCV64_SUPERVISOR : RISCV64_USER;
    uint64_t status = csr->mstatus & ~(STATUS_SPP | STATUS_SIE | STATUS_MPRV);
    if (csr->mstatus & STATUS_SPIE) {
        status |= STATUS_SIE;
    }
    csr->mstatus = status | STATUS_SPIE;
    cpu->privilege = (uint8_t)previous;
    cpu->cpu.pc = csr->sepc;
    riscv64_update_modes(cpu);
    riscv64_update_attention(cpu);
}
