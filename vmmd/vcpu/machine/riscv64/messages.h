/*
 * Message-signalled interrupts: who writes where, and the harts' interrupt files behind it.
 *
 * Source: The RISC-V Advanced Interrupt Architecture 1.0, 3.5 and 3.6. Each hart has one page,
 * hart 0's first. Whatever sends a message (a hart's store for an IPI, a PCI function, the APLIC)
 * takes no lock: a bit is set in the file, and in the hart's attention word if it matters.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_MESSAGES_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_MESSAGES_H

#include "vmmd/vcpu/machine/riscv64/virt.h"

#define IMSIC_PAGE_SIZE 0x1000u

/* Whether the machine gets an AIA or a PLIC. AUTO: an AIA when it starts without firmware and the
 * kernel has drivers for it. ERROR_CONFIG for firmware with an AIA, whose machine level does not
 * exist. */
int messages_wanted(const struct machine_config *config, bool *wanted, struct error *err);

/* Any thread: identity `identity` for hart `hart`. What does not exist is dropped. */
void messages_send(void *machine, unsigned hart, unsigned identity);
/* pci_msi_target.notify, `controller` is the machine. Only interrupt files take messages: one to
 * any other address, RAM included, is dropped. */
void messages_notify(void *controller, uint64_t address, uint32_t data);

/* The pages, from LAYOUT_IMSIC_BASE; `device` is the machine. Aligned 32-bit accesses only. */
extern const struct bus_ops messages_bus_ops;

#endif
