/*
 * The core-local interruptor of QEMU's virt machine (SiFive CLINT layout, which is an ACLINT MSWI
 * and MTIMER side by side): software interrupts, per-hart time comparators and the clock for M
 * mode.
 *
 * Source: RISC-V Advanced Core Local Interruptor Specification 1.0-rc4, and the SiFive CLINT map.
 * Registers are read and written by CPU threads.
 */
#ifndef POLYVISOR_VCPU_IRQCHIP_ACLINT_H
#define POLYVISOR_VCPU_IRQCHIP_ACLINT_H

#include "vmmd/vcpu/irqchip/guest_clock.h"
#include "vmmd/vcpu/irqchip/timers.h"
#include "vmmd/vcpu/machine/bus.h"

#define ACLINT_HARTS_MAX 8
#define ACLINT_SIZE      0x10000u
#define ACLINT_MSWI      0x0u    /* 32 bits a hart */
#define ACLINT_MTIMECMP  0x4000u /* 64 bits a hart */
#define ACLINT_MTIME     0xbff8u

struct aclint;

struct aclint_config {
    struct guest_clock *clock;
    struct timers *timers; /* comparator of hart h: first_timer + h * timer_stride */
    unsigned first_timer, timer_stride;
    unsigned harts;                             /* 1 to ACLINT_HARTS_MAX */
    struct irq_line software[ACLINT_HARTS_MAX]; /* machine software interrupt of each hart */
};

/* Copies the configuration; clock and timers must outlive it. NULL when out of range or without
 * memory. */
struct aclint *aclint_create(const struct aclint_config *config);
void aclint_destroy(struct aclint *aclint); /* NULL is allowed */
/* Software interrupts down, comparators at the end of time. The clock stays. */
void aclint_reset(struct aclint *aclint);

/* Register window of ACLINT_SIZE bytes; `device` is the struct aclint. Aligned accesses of 4 bytes,
 * and of 8 bytes to 64-bit registers. */
extern const struct bus_ops aclint_bus_ops;

#endif
