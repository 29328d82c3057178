/*
 * One PCI function (type 0 header): its configuration space, BARs, capabilities and INTx pin.
 *
 * A device embeds a `struct pci_function`, describes it with the calls below while the machine is
 * built, and hands it to pci_host_add. From then on the host bridge's lock guards all fields; the
 * guest reads and writes through pci_function_config_read and _write alone. What the guest writes
 * is masked byte by byte: nothing but the bits declared writable ever changes.
 */
#ifndef POLYVISOR_VCPU_PCI_PCI_FUNCTION_H
#define POLYVISOR_VCPU_PCI_PCI_FUNCTION_H

#include "vmmd/vcpu/machine/bus.h"

#define PCI_CONFIG_SIZE 256u /* conventional space; the extended part reads as zero */
#define PCI_BAR_COUNT   6u

struct pci_host;

/* Where an access leads: a BAR that the function has, and 1, 2 or 4 bytes inside it. */
struct pci_window {
    unsigned bar;
    uint32_t offset, length;
};

struct pci_function_ops {
    /* Whether an access at `offset` goes through a window of a capability into a BAR, and where
     * to, as the guest has set it; length 0: nowhere. Under the host's lock. May be NULL. The
     * access itself is then made by the BAR's functions, under no lock. */
    bool (*window)(void *device, unsigned offset, struct pci_window *window);
    /* Writable bits of [offset, offset + size) took new values. Under the host's lock. May be NULL.
     */
    void (*config_written)(void *device, unsigned offset, unsigned size);
    /* The machine was reset; configuration space is in its initial state again and BARs are
     * unmapped. No CPU runs. May be NULL. */
    void (*reset)(void *device);
};

struct pci_identity {
    uint16_t vendor, device;
    uint8_t revision;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
    uint16_t subsystem_vendor, subsystem;
};

/* A 64-bit memory BAR (it takes the next BAR register too). */
struct pci_bar {
    uint64_t size; /* a power of two, at least 16; 0 = there is none */
    const char *name;
    const struct bus_ops *ops;
    bool mapped; /* on the bus, at `mapped_base` */
    uint64_t mapped_base;
};

struct pci_function {
    struct pci_host *host; /* set by pci_host_add */
    unsigned slot;
    const struct pci_function_ops *ops;
    void *device;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t initial[PCI_CONFIG_SIZE];  /* config as described, for reset */
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits the guest may change */
    struct pci_bar bars[PCI_BAR_COUNT];
    unsigned capability_end;  /* first byte after the last capability */
    unsigned last_capability; /* its offset; 0 = none */
    unsigned inside;          /* CPUs in an access through a window */
    bool left;                /* pulled out, and its driver has let go: nothing is here any more */
    bool intx_asserted;       /* under the host's interrupt lock, as the next one */
    bool intx_disabled;       /* copy of the command register's bit */
};

/* Start a description. `interrupt_pin`: 0 none, 1 to 4 for INTA to INTD. */
void pci_function_init(struct pci_function *function, const struct pci_identity *identity,
                       unsigned interrupt_pin, const struct pci_function_ops *ops, void *device);
/* Declare BAR `index` (0, 2 or 4): 64-bit, prefetchable memory. `ops` get the device given to
 * pci_function_init and offsets inside the BAR. 0 or -EINVAL. */
int pci_function_add_bar(struct pci_function *function, unsigned index, uint64_t size,
                         const char *name, const struct bus_ops *ops);
/* Append a capability of `length` bytes (header included) with zeroed, read-only contents. Its
 * offset, or -ENOSPC. */
int pci_function_add_capability(struct pci_function *function, uint8_t id, unsigned length);

/* Little-endian fields of the configuration space, for whoever describes a function. */
void pci_function_set(struct pci_function *function, unsigned offset, unsigned size,
                      uint32_t value);
uint32_t pci_function_get(const struct pci_function *function, unsigned offset, unsigned size);
void pci_function_make_writable(struct pci_function *function, unsigned offset, unsigned size,
                                uint32_t mask);

/* --- for pci_host, under its lock ------------------------------------------------------------ */
uint32_t pci_function_config_read(struct pci_function *function, unsigned offset, unsigned size);
/* Returns true when BARs or the memory enable bit may have changed. */
bool pci_function_config_write(struct pci_function *function, unsigned offset, unsigned size,
                               uint32_t value);
/* The address in BAR `index`, or UINT64_MAX while memory decoding is off. */
uint64_t pci_function_bar_address(const struct pci_function *function, unsigned index);
/* Back to the described state. */
void pci_function_restore(struct pci_function *function);

/* Raise or drop the function's INTx pin (a level). Any thread, with or without the host's lock. */
void pci_function_set_intx(struct pci_function *function, bool level);

#endif
