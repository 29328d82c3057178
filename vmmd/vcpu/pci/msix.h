/*
 * MSI-X: the capability, the vector table and the pending bits of one function.
 *
 * Owned by the device, which forwards accesses to the table's BAR and tells when the capability's
 * control bits were written. Messages go to the machine's MSI target. Any thread may notify.
 * Table and pending bits share a BAR of MSIX_BAR_SIZE bytes.
 */
#ifndef POLYVISOR_VCPU_PCI_MSIX_H
#define POLYVISOR_VCPU_PCI_MSIX_H

#include "vmmd/vcpu/pci/pci_host.h"
#include <pthread.h>

#define MSIX_VECTORS_MAX 32u
#define MSIX_BAR_SIZE    4096u
#define MSIX_PBA_OFFSET  2048u

struct msix_entry {
    uint32_t address_low, address_high, data;
    uint32_t control; /* bit 0: masked */
};
_Static_assert(sizeof(struct msix_entry) == 16, "guest-visible layout");
_Static_assert(MSIX_VECTORS_MAX * sizeof(struct msix_entry) <= MSIX_PBA_OFFSET, "fits its BAR");

struct msix {
    struct pci_function *function;
    const struct pci_msi_target *target;
    unsigned capability; /* offset in configuration space */
    unsigned vector_count;
    pthread_mutex_t lock; /* leaf; all below */
    bool enabled, function_masked;
    bool may_write;   /* bus mastering is on: messages are writes of the function to memory */
    uint32_t pending; /* bit a vector */
    struct msix_entry table[MSIX_VECTORS_MAX];
};

/* Add the capability for 1 to MSIX_VECTORS_MAX vectors, its table in BAR `bar` (which the caller
 * adds). 0, -EINVAL or -ENOSPC. */
int msix_init(struct msix *msix, struct pci_function *function, unsigned vector_count, unsigned bar,
              const struct pci_msi_target *target);
void msix_destroy(struct msix *msix);

/* Guest access to the table's BAR: `offset` below MSIX_BAR_SIZE; aligned 4 or 8 bytes take effect.
 */
uint64_t msix_table_read(struct msix *msix, uint64_t offset, unsigned size);
void msix_table_write(struct msix *msix, uint64_t offset, unsigned size, uint64_t value);
/* Configuration space changed: take over the control bits, and the command register's bus
 * mastering. Under the PCI host's lock. */
void msix_control_changed(struct msix *msix);
/* Back to power-on: all masked, nothing pending. */
void msix_reset(struct msix *msix);

/* Send the vector's message, or keep it pending while masked or no bus master. A number that is no
 * vector, or MSI-X disabled: nothing happens. True when it was sent. */
bool msix_notify(struct msix *msix, unsigned vector);
/* True when MSI-X is on, so that INTx must stay silent. */
bool msix_enabled(struct msix *msix);

#endif
