/*
 * The PCIe host bridge: ECAM, the memory and I/O windows, and the INTx lines.
 *
 * One bus (0) with up to 32 single-function devices, which come and go; slot 0 is the bridge
 * itself. ECAM accesses come from CPU threads and are serialised by the host's lock, under which
 * nobody waits for a device: an access through a function's window is made after it was let go. A
 * BAR is on the machine's bus while the guest has memory decoding on and its address lies inside
 * one window. INTx pins have a lock of their own (a leaf).
 *
 * Lock order: host lock, then a device's own lock, then its interrupt lock, then the host's
 * interrupt lock. A BAR's access functions never take the host lock.
 */
#ifndef POLYVISOR_VCPU_PCI_PCI_HOST_H
#define POLYVISOR_VCPU_PCI_PCI_HOST_H

#include "libshared/base/error.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/pci/pci_function.h"
#include <time.h>

#define PCI_SLOT_COUNT 32u

/* Put the bridge on `bus` where `windows` says; both stay the caller's and outlive the host. NULL
 * with *err set on failure. */
struct pci_host *pci_host_create(struct bus *bus, const struct machine_pci *windows,
                                 struct error *err);
/* Only after the CPUs have stopped, and before its bus goes. Functions stay their owners'. */
void pci_host_destroy(struct pci_host *host);
/* Plug a fully described function in, at any time; a guest that runs finds it when it looks. 0,
 * -EINVAL (no such slot) or -EEXIST. */
int pci_host_add(struct pci_host *host, unsigned slot, struct pci_function *function);
/* Take it out again. When this returns no CPU is inside its access functions, and none will be. */
void pci_host_remove(struct pci_function *function);
/* Whether the guest lets the function write to memory, as drivers do for as long as they have it.
 */
bool pci_host_is_master(struct pci_function *function);
/* Whether it was pulled out and its driver has let go: the guest does not see it any more. */
bool pci_host_has_left(struct pci_function *function);
/* Machine reset, while no CPU runs: all functions back to their first state, then their hooks. */
void pci_host_reset(struct pci_host *host);
/* Where messages go, or NULL when this machine takes none: then MSI-X is not offered. */
const struct pci_msi_target *pci_host_msi(const struct pci_host *host);

/* --- for pci_function.c ----------------------------------------------------------------------- */
void pci_host_set_intx(struct pci_function *function, bool level);
/* The status register's interrupt bit: the function's request, whether disabled or not. */
bool pci_host_intx_status(struct pci_function *function);

#endif
