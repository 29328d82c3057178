/*
 * A virtio device on PCI (virtio 1.2, 4.1): the modern interface only.
 *
 * BAR 4 holds the common configuration, ISR, device configuration and notification structures, each
 * found by a vendor capability. Interrupts go over INTA, or over MSI-X where the machine has a
 * target for it. Register semantics are virtio_transport's; this file is what PCI adds.
 */
#ifndef POLYVISOR_VCPU_PCI_VIRTIO_PCI_H
#define POLYVISOR_VCPU_PCI_VIRTIO_PCI_H

#include "vmmd/vcpu/pci/pci_host.h"
#include "vmmd/vcpu/pci/virtio_transport.h"

struct virtio_pci;

/* Since the machine was started. */
struct virtio_pci_counts {
    uint64_t kicks;      /* of queues, that reached the device */
    uint64_t interrupts; /* that the device asked for while its driver was up */
    uint64_t messages;   /* of those: sent by MSI-X at once */
};

struct virtio_pci_config {
    const char *name; /* device id, "disk0"; outlives the device */
    const char *kind; /* "virtio-blk", ... */
    unsigned slot;    /* 1 to 31 */
    unsigned queue_count;
    struct virtio_state *state;      /* mapped by the caller, outlives the device */
    const struct memory *memory;     /* guest RAM */
    struct transport_client *client; /* outlives the device */
    int kick[VIRTIO_QUEUES_MAX];     /* eventfds, the caller closes them */
    /* A request missed its deadline. A CPU thread; must not wait. */
    void (*unresponsive)(void *context);
    void *context;
};

/* True when `kind` is a virtio device that this transport can carry. */
bool virtio_pci_kind_known(const char *kind);
/* Describe the device and plug it into the host bridge. NULL with *err set on failure. */
struct virtio_pci *virtio_pci_create(struct pci_host *host, const struct virtio_pci_config *config,
                                     struct error *err);
/* After it was taken out (virtio_pci_remove), or after the CPUs and the interrupt thread have
 * stopped and the host bridge is gone. */
void virtio_pci_destroy(struct virtio_pci *device);

/* Any thread: the device process signalled `queue` (queue_count: a configuration change). Ignored
 * unless the driver is running. */
void virtio_pci_interrupt(struct virtio_pci *device, unsigned queue);

/* Any thread: add this device's counts to `counts`. */
void virtio_pci_count(const struct virtio_pci *device, struct virtio_pci_counts *counts);

/* A machine reset; see virtio_transport_reset_pending and virtio_transport_device_gone. */
bool virtio_pci_reset_pending(struct virtio_pci *device);
void virtio_pci_device_gone(struct virtio_pci *device);

/* Unplug it, while the guest runs; main thread. True once no driver has it: then virtio_pci_remove
 * and virtio_pci_destroy follow. With `force` the driver can do no more than let go of it from now
 * on; what it asks for until then is for the device's process to refuse. Waits for no device: false
 * while a CPU does. */
bool virtio_pci_unplug(struct virtio_pci *device, bool force);
/* Take it out of the host bridge: no CPU is inside it any more, and none will be. */
void virtio_pci_remove(struct virtio_pci *device);

/* The device process was replaced; see virtio_transport_reactivate. Main thread. */
int virtio_pci_reactivate(struct virtio_pci *device);

#endif
