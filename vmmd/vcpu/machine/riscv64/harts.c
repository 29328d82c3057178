#include "vmmd/vcpu/machine/riscv64/harts.h"

#define MSTATUS_SIE 2ull

void harts_set_line(void *controller, unsigned number, bool level)
{
    struct riscv64_machine *machine = controller;
    struct riscv64_cpu *cpu = machine->harts[number >> 8].cpu;
    riscv64_set_line(cpu, (enum riscv64_interrupt)(number & 0xff), level);
    if (level) {
        engine_kick(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
}

void harts_reset(struct riscv64_machine *machine)
{
    for (unsigned i = 0; i < machine->machine.config.cpu_count; i++) {
        struct riscv64_hart *hart = &machine->harts[i];
        hart->cpu->cpu.isa->reset(&hart->cpu->cpu);
        hart->cpu->hart_id = i;
        hart->cpu->has_aia = machine->has_aia;
        hart->cpu->cpu.host->tlb_flush(&hart->cpu->cpu, true, 0, 0, true, 0);
        hart->state = HART_STOPPED;
    }
}

void harts_boot(struct riscv64_machine *machine, unsigned index, enum riscv64_privilege privilege,
                uint64_t pc, uint64_t a1, uint64_t a2)
{
    struct riscv64_hart *hart = &machine->harts[index];
    riscv64_boot(hart->cpu, privilege, pc, index, a1);
    hart->cpu->x[12] = a2;
    hart->state = HART_STARTED;
}

bool harts_start(struct riscv64_machine *machine, unsigned index, uint64_t pc, uint64_t opaque)
{
    struct riscv64_hart *hart = &machine->harts[index];
    pthread_mutex_lock(&machine->hart_lock);
    bool stopped = hart->state == HART_STOPPED;
    if (stopped) {
        hart->state = HART_START_PENDING;
        hart->start_address = pc;
        hart->opaque = opaque;
    }
    pthread_mutex_unlock(&machine->hart_lock);
    if (stopped) {
        engine_kick(&hart->cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
    return stopped;
}

void harts_stop(struct riscv64_machine *machine, unsigned index)
{
    struct riscv64_hart *hart = &machine->harts[index];
    pthread_mutex_lock(&machine->hart_lock);
    hart->state = HART_STOPPED;
    pthread_mutex_unlock(&machine->hart_lock);
    /* Makes engine_run return when the block has ended; riscv64_run_cpu then finds the state. */
    cpu_attention(&hart->cpu->cpu, CPU_ATTENTION_LEAVE);
}

enum hart_state harts_state(struct riscv64_machine *machine, unsigned index)
{
    pthread_mutex_lock(&machine->hart_lock);
    enum hart_state state = machine->harts[index].state;
    pthread_mutex_unlock(&machine->hart_lock);
    return state;
}

/* Carry out a pending start on the hart's own thread (SBI 2.0, section 9.1: satp 0, interrupts off,
 * a0 = hart id, a1 = opaque). True when the hart is running. */
static bool take_start(struct riscv64_machine *machine, unsigned index)
{
    struct riscv64_hart *hart = &machine->harts[index];
    pthread_mutex_lock(&machine->hart_lock);
    if (hart->state == HART_START_PENDING) {
        hart->cpu->csr.satp = 0; /* not a reset: lines that others drive are to stay */
        hart->cpu->csr.mie = 0;
        hart->cpu->csr.mstatus &= ~MSTATUS_SIE;
        riscv64_boot(hart->cpu, RISCV64_SUPERVISOR, hart->start_address, index, hart->opaque);
        hart->state = HART_STARTED;
        /* Its lines may have risen while it was stopped. */
        cpu_attention(&hart->cpu->cpu, CPU_ATTENTION_INTERRUPT);
    }
    bool started = hart->state == HART_STARTED;
    pthread_mutex_unlock(&machine->hart_lock);
    return started;
}

static void clear_attention(struct cpu *cpu, uint32_t reasons)
{
    atomic_fetch_and_explicit(&cpu->attention, ~reasons, memory_order_seq_cst);
}

enum engine_exit riscv64_run_cpu(struct machine *generic, unsigned index)
{
    struct riscv64_machine *machine = (struct riscv64_machine *)generic;
    struct cpu *cpu = &machine->harts[index].cpu->cpu;
    for (;;) {
        /* Left over when a pause came at the same time. */
        clear_attention(cpu, CPU_ATTENTION_LEAVE);
        if (take_start(machine, index)) {
            enum engine_exit why = engine_run(cpu);
            if (why != ENGINE_EXIT_LEAVE) {
                return why;
            }
            continue;
        }
        uint32_t attention = atomic_load(&cpu->attention);
        if (attention & CPU_ATTENTION_STOP) {
            return ENGINE_EXIT_STOP;
        }
        if (attention & CPU_ATTENTION_PAUSE) {
            clear_attention(cpu, CPU_ATTENTION_PAUSE);
            return ENGINE_EXIT_PAUSE;
        }
        engine_sleep(cpu);
    }
}
