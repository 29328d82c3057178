/*
 * The least machine an engine can run on: RAM, CPUs, a few registers by which test code ends and
 * sends interrupts, and of SBI firmware only the remote fences. The test's threads call
 * bare_machine_run, one CPU each.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_BARE_MACHINE_H
#define POLYVISOR_TESTS_LOCKSTEP_BARE_MACHINE_H

#include "libshared/isa/riscv64/riscv64.h"
#include "vmmd/vcpu/engine/engine.h"

#define BARE_CPUS_MAX 8

/* Registers, outside RAM. */
#define BARE_EXIT     0x10000000ul /* write: end this CPU's run with that code */
#define BARE_SOFTWARE 0x10000100ul /* + 8 * hart: write bit 0 to its machine software interrupt */
#define BARE_COUNT    0x10000200ul /* read: how often it was read; write: set */
#define BARE_YIELD    0x10000208ul /* read: let other harts have the processor */
#define BARE_EXTERNAL                                                                              \
    0x10000300ul                 /* + 8 * hart: write bit 0 to its supervisor external interrupt */
#define BARE_REGION 0x10001000ul /* end of the registers */

struct bare_machine {
    struct memory memory;
    struct engine *engine;
    unsigned cpu_count;
    struct bare_cpu {
        struct riscv64_cpu *cpu;
        _Atomic bool exited; /* since it was booted */
        _Atomic uint64_t exit_code;
    } cpus[BARE_CPUS_MAX];
    _Atomic uint64_t count;
};

/* RAM of `size` bytes at `base`. `single`: every instruction is a block of its own, so that there
 * is a border after each. NULL, with a message on standard error, when that fails. */
struct bare_machine *bare_machine_create(uint64_t base, uint64_t size, unsigned cpu_count,
                                         bool single, enum engine_tier tier);
void bare_machine_destroy(struct bare_machine *machine);
/* Reset a CPU to start at `pc` with a0 = index, a1 as given. */
void bare_machine_boot(struct bare_machine *machine, unsigned index,
                       enum riscv64_privilege privilege, uint64_t pc, uint64_t a1);
/* Copy into RAM from outside, as a device would: code there is decoded anew. The range must be RAM.
 */
void bare_machine_write(struct bare_machine *machine, uint64_t address, const void *bytes,
                        uint64_t size);
/* Run until the code writes to BARE_EXIT; the code written. */
uint64_t bare_machine_run(struct bare_machine *machine, unsigned index);
/* Any thread: end a CPU's run, as if it had written `exit_code`. */
void bare_machine_stop(struct bare_machine *machine, unsigned index, uint64_t exit_code);

#endif
