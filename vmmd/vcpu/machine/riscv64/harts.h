/*
 * Harts as the machine sees them: running guest code, or stopped outside it until one is started
 * (SBI hart state management). With firmware of the guest's own all harts run from reset.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_HARTS_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_HARTS_H

#include "vmmd/vcpu/machine/riscv64/virt.h"

/* machine_model.run_cpu. */
enum engine_exit riscv64_run_cpu(struct machine *machine, unsigned index);

/* Before CPU threads run: put a hart into its power-on state, stopped. */
void harts_reset(struct riscv64_machine *machine);
/* Before CPU threads run: a reset hart starts at `pc` with a0 = its number, a1 and a2 as given. */
void harts_boot(struct riscv64_machine *machine, unsigned index, enum riscv64_privilege privilege,
                uint64_t pc, uint64_t a1, uint64_t a2);

/* Ask a stopped hart to start in supervisor mode. False when it is not stopped. Any CPU thread. */
bool harts_start(struct riscv64_machine *machine, unsigned index, uint64_t pc, uint64_t opaque);
/* A hart's own thread, inside guest code: stop when the present instruction has ended. */
void harts_stop(struct riscv64_machine *machine, unsigned index);
enum hart_state harts_state(struct riscv64_machine *machine, unsigned index);

/* irq_line.set of a hart's interrupt: `controller` is the machine, `number` harts_line(...). */
void harts_set_line(void *controller, unsigned number, bool level);
static inline unsigned harts_line(unsigned index, enum riscv64_interrupt interrupt)
{
    return index << 8 | (unsigned)interrupt;
}

#endif
