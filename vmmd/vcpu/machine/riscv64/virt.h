/*
 * The riscv64 machine: what its parts (harts, firmware, images) share. Private to this folder but
 * for the model at the end.
 *
 * Built and loaded by one thread. Afterwards each hart's thread touches its own CPU; states of
 * harts are guarded by `hart_lock`.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_VIRT_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_VIRT_H

#include "libshared/isa/riscv64/riscv64.h"
#include "vmmd/vcpu/irqchip/aclint.h"
#include "vmmd/vcpu/irqchip/aplic.h"
#include "vmmd/vcpu/irqchip/plic.h"
#include "vmmd/vcpu/irqchip/timers.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include <pthread.h>

/* The SBI's hart states, with its numbers (SBI 2.0, table 10). */
enum hart_state { HART_STARTED = 0, HART_STOPPED = 1, HART_START_PENDING = 2 };

struct riscv64_hart {
    struct riscv64_cpu *cpu;
    /* Guarded by hart_lock. */
    enum hart_state state;
    uint64_t start_address, opaque; /* of a pending start */
};

/* Comparators, two a hart, in the order of enum riscv64_timer. */
#define TIMERS_PER_HART 2u

struct riscv64_machine {
    struct machine machine;
    char *append; /* owns machine.config.append */
    struct guest_clock clock;
    struct timers *timers;
    struct aclint *aclint;
    bool has_aia;        /* APLIC and IMSICs instead of the PLIC */
    struct plic *plic;   /* NULL with an AIA */
    struct aplic *aplic; /* NULL without */
    uint8_t rom[256];    /* rewritten by load, read by CPUs */
    bool has_firmware;
    bool has_serial, has_rtc, has_watchdog;
    _Atomic bool ended; /* power-off, reset or failure was reported */
    pthread_mutex_t hart_lock;
    struct riscv64_hart harts[MACHINE_CPUS_MAX];
};

static inline struct riscv64_machine *riscv64_machine_of(struct cpu *cpu)
{
    return cpu->host_data;
}

/* Report the end of the guest once; later calls do nothing. Any thread. */
void riscv64_machine_end(struct riscv64_machine *machine, enum machine_event event,
                         unsigned guest_code);

extern const struct machine_model machine_model_riscv64;

#endif
