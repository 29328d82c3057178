/*
 * Platform-level interrupt controller of the SiFive kind: level-triggered sources, one context a
 * hart and privilege.
 *
 * Source: RISC-V Platform-Level Interrupt Controller Specification 1.0.0. One deliberate leniency:
 * a source that withdraws its level before it was claimed is no longer pending, so that a guest is
 * not interrupted for nothing. Any thread may set sources; registers are read and written by CPU
 * threads. Outputs are driven with the controller's lock held: their `set` must not call back.
 */
#ifndef POLYVISOR_VCPU_IRQCHIP_PLIC_H
#define POLYVISOR_VCPU_IRQCHIP_PLIC_H

#include "vmmd/vcpu/machine/bus.h"

#define PLIC_SOURCES_MAX  127
#define PLIC_CONTEXTS_MAX 32
#define PLIC_PRIORITY_MAX 7u /* three bits; more significant ones read as 0 */
#define PLIC_SIZE         0x600000u

struct plic;

/* `sources` are numbered from 1 to `sources`; outputs[n] is the line of context n (copied). NULL
 * when out of range or without memory. */
struct plic *plic_create(unsigned sources, unsigned contexts, const struct irq_line *outputs);
void plic_destroy(struct plic *plic); /* NULL is allowed */
/* Power-on state; the levels of the sources, which belong to the devices, stay. */
void plic_reset(struct plic *plic);
/* irq_line.set of its sources: `controller` is the struct plic. Numbers out of range are ignored.
 */
void plic_set_source(void *controller, unsigned source, bool level);

/* Register window of PLIC_SIZE bytes; `device` is the struct plic. Aligned 32-bit accesses only. */
extern const struct bus_ops plic_bus_ops;

#endif
