/*
 * One of the two machines of the boot test: vcpud's riscv64 machine with one hart, a PCI bridge and
 * a serial port, in this process, with memory of its own that a fork copies.
 *
 * Nothing in it depends on the host. Guest time is a function of the instructions executed, and
 * timers fire only when the test says so. Where a hart stands is one number, its *position*:
 * instructions retired plus traps taken, because a trap moves the hart without retiring anything.
 *
 * The *subject* runs blocks of any length on the tier under test, and notes at which positions it
 * took interrupts (when exactly a tier looks is its own business). The *oracle* interprets single
 * instructions, stops at any position it is told to, takes the interrupts where the subject did,
 * and objects when that was not allowed. One thread drives both.
 */
#ifndef POLYVISOR_TESTS_LOCKSTEP_SIDE_H
#define POLYVISOR_TESTS_LOCKSTEP_SIDE_H

#include "libshared/isa/riscv64/riscv64.h"
#include "tests/lockstep/serial_port.h"
#include "vmmd/vcpu/irqchip/guest_clock.h"
#include "vmmd/vcpu/machine/machine.h"

/* Guest instructions a tick of 100 ns: 160 million a second. */
#define SIDE_INSNS_PER_TICK 16u
/* Instructions for which an enabled pending interrupt may wait. A tier looks at least once a block
 * or turn of a loop. */
#define SIDE_LATE_MAX 1024u
#define SIDE_TRACE    4096u /* executed instructions that the oracle remembers */
#define SIDE_LOG      1024u /* interrupts a slice */

struct pci_host;

struct side_images {
    int kernel_fd, initrd_fd;
    const char *append;
    uint64_t memory_size;
    /* To test the test: this instruction's bits (0: none) are decoded wrongly by the subject. */
    uint32_t spoiled;
};

struct interrupt_log {
    unsigned count; /* the subject's */
    unsigned taken; /* of these, by the oracle */
    uint64_t at[SIDE_LOG];
};

struct traced {
    uint64_t pc;
    uint32_t bits; /* the instruction */
    uint8_t bytes, privilege;
};

struct side {
    struct memory memory;
    struct isa isa;            /* the riscv64 one with some of its functions watched */
    struct ir_helper *helpers; /* the oracle's: one more */
    struct guest_clock clock;
    struct machine *machine;
    struct riscv64_cpu *cpu;
    struct pci_host *pci;
    struct serial_port serial;
    uint64_t traps, exceptions;
    uint64_t skipped; /* ticks in which the hart slept */
    struct interrupt_log *log;
    bool ended; /* the guest powered off, or asked for a reset */
    enum machine_event event;
    /* The oracle's. */
    uint64_t stop;          /* position to stop at */
    bool halting;           /* the exception that is pending is how we stop */
    uint64_t pending_since; /* position from which on an enabled interrupt is pending */
    bool pending;
    const char *objection; /* what the subject did that it must not */
    uint64_t traced;       /* instructions, also those that trapped */
    struct traced trace[SIDE_TRACE];
};

/* Build the machine; the images are loaded. False with a message on standard error. `log` is shared
 * by both sides. */
bool side_open_subject(struct side *side, const struct side_images *images,
                       struct interrupt_log *log, enum engine_tier tier);
bool side_open_oracle(struct side *side, const struct side_images *images,
                      struct interrupt_log *log);
void side_close(struct side *side);
/* Make RAM and boot registers those of `from`: device trees hold random seeds. `seed` replaces
 * these, so that a run can be had again. */
bool side_copy_start(struct side *to, const struct side *from);
void side_set_seed(struct side *side, uint64_t seed);

static inline uint64_t side_position(const struct side *side)
{
    return side->cpu->cpu.retired + side->traps;
}

uint8_t *side_ram(const struct side *side);

/* The hart sleeps and nothing pending would wake it. */
bool side_asleep(const struct side *side);
/* Fire the timers that are due; ticks until the next one, UINT64_MAX when there is none. */
uint64_t side_poll_timers(struct side *side);

/* Run the oracle to `goal`, through the interrupts of the log. False: it does not get there. */
bool side_run_oracle(struct side *side, uint64_t goal);

#endif
