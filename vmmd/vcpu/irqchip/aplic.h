/*
 * Advanced platform-level interrupt controller: turns interrupt wires into messages to the harts'
 * IMSICs.
 *
 * Source: The RISC-V Advanced Interrupt Architecture 1.0, chapter 4. One interrupt domain, at
 * supervisor level: what a kernel sees whose machine-level domain belongs to the firmware. It
 * delivers by MSI only (domaincfg.DM is 1) and is little-endian only (BE is 0); the addresses of
 * the interrupt files are built in. Any thread may set sources; registers are read and written by
 * CPU threads. Messages are sent with the controller's lock held: `send` must not call back.
 */
#ifndef POLYVISOR_VCPU_IRQCHIP_APLIC_H
#define POLYVISOR_VCPU_IRQCHIP_APLIC_H

#include "vmmd/vcpu/machine/bus.h"

#define APLIC_SOURCES_MAX 127
#define APLIC_SIZE        0x4000u

struct aplic;

/* Where messages go: to the interrupt file of hart number `hart` (from 0; it may not exist). */
struct aplic_output {
    void (*send)(void *context, unsigned hart, unsigned identity);
    void *context;
};

/* Sources are numbered from 1 to `sources`. NULL when out of range or without memory. */
struct aplic *aplic_create(unsigned sources, const struct aplic_output *output);
void aplic_destroy(struct aplic *aplic); /* NULL is allowed */
/* Power-on state: all sources inactive. Their levels, which belong to the devices, stay. */
void aplic_reset(struct aplic *aplic);
/* irq_line.set of its sources: `controller` is the struct aplic. Numbers out of range are ignored.
 */
void aplic_set_source(void *controller, unsigned source, bool level);

/* Register window of APLIC_SIZE bytes; `device` is the struct aplic. Aligned 32-bit accesses only.
 */
extern const struct bus_ops aplic_bus_ops;

#endif
