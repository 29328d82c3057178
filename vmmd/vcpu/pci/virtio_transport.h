/*
 * The transport half of a virtio 1.2 device, without its bus: the common configuration registers,
 * feature negotiation, the status machine and the queues' set-up. The backend half is a devd; both
 * meet in `struct virtio_state` (libshared/virtio/state.h) and on the transport channel.
 *
 * All functions are called on CPU threads unless said otherwise and lock for themselves. The guest
 * and the device's half of the shared state are hostile: what comes from them is copied once and
 * checked. A request to the device may hold the lock until its deadline; kicks and interrupts never
 * take it.
 */
#ifndef POLYVISOR_VCPU_PCI_VIRTIO_TRANSPORT_H
#define POLYVISOR_VCPU_PCI_VIRTIO_TRANSPORT_H

#include "libshared/mem/memory.h"
#include "libshared/virtio/state.h"
#include "vmmd/vcpu/device/transport_client.h"
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#define VIRTIO_COMMON_LENGTH 64u /* bytes of the common configuration structure */

/* Set up by the owner and left alone afterwards. Everything pointed to outlives the transport. */
struct virtio_transport_config {
    const char *name;      /* device id, for messages */
    uint32_t device_type;  /* virtio device type the configuration asked for */
    unsigned queue_count;  /* at most VIRTIO_QUEUES_MAX */
    unsigned vector_count; /* MSI-X vectors; 0 = no MSI-X */
    struct virtio_state *state;
    const struct memory *memory;
    struct transport_client *client;
    int kick[VIRTIO_QUEUES_MAX]; /* eventfds; the owner closes them */
    /* DRIVER_OK was set, or taken back: interrupts are wanted, or must stop at once and be
     * forgotten. Under the transport's lock. */
    void (*set_live)(void *owner, bool live);
    /* Tell the guest to look at status and configuration. Under the transport's lock. */
    void (*config_changed)(void *owner);
    /* A request missed its deadline. Under the transport's lock. */
    void (*unresponsive)(void *owner);
    void *owner;
};

struct virtio_transport_queue {
    uint16_t size; /* 0: as large as the device allows */
    bool enabled;
    bool resetting;    /* the device has not confirmed the queue's reset yet */
    bool was_reset;    /* and may be set up again while the driver runs */
    uint64_t areas[3]; /* descriptors, driver area, device area */
    _Atomic uint16_t vector;
};

struct virtio_transport {
    struct virtio_transport_config config;
    pthread_mutex_t lock; /* all below, but the atomics are read without */
    _Atomic uint32_t status;
    uint32_t device_feature_select, driver_feature_select;
    uint64_t driver_features;
    uint16_t queue_select;
    _Atomic uint16_t config_vector;
    _Atomic bool unplugged; /* the driver may only let go */
    bool device_touched;    /* was sent something since its last reset */
    bool reset_pending;     /* the device has not confirmed its reset yet */
    struct virtio_transport_queue queues[VIRTIO_QUEUES_MAX];
};

/* `config` is copied. 0 or -EINVAL when the shared state is not one, or counts are out of range. */
int virtio_transport_init(struct virtio_transport *transport,
                          const struct virtio_transport_config *config);
void virtio_transport_destroy(struct virtio_transport *transport);

/* Common configuration (virtio 1.2, 4.1.4.3). Reads of any width inside the structure; writes take
 * effect only on a whole field (64-bit fields also by halves). */
uint64_t virtio_transport_common_read(struct virtio_transport *transport, uint64_t offset,
                                      unsigned size);
void virtio_transport_common_write(struct virtio_transport *transport, uint64_t offset,
                                   unsigned size, uint64_t value);

/* Device-specific configuration. Outside config_length reads are zero and writes go nowhere. */
uint64_t virtio_transport_device_read(struct virtio_transport *transport, uint64_t offset,
                                      unsigned size);
void virtio_transport_device_write(struct virtio_transport *transport, uint64_t offset,
                                   unsigned size, uint64_t value);

/* The guest notified a queue. A number out of range, or before DRIVER_OK: nothing happens, false.
 */
bool virtio_transport_kick(struct virtio_transport *transport, unsigned queue);

/* Machine reset: as if the guest had written zero to the status, but without waiting. Main thread,
 * no CPU runs. */
void virtio_transport_reset(struct virtio_transport *transport);
/* True until the device has confirmed that reset: so long it may still write to guest memory. Asks
 * it again from time to time. Main thread, as above. */
bool virtio_transport_reset_pending(struct virtio_transport *transport);
/* The device process that was to confirm the reset has ended, which is as good. Never waits. */
void virtio_transport_device_gone(struct virtio_transport *transport);

/* How a device is taken from the guest, and what the bus says of it. */
struct virtio_transport_unplug {
    bool force;        /* the status takes nothing but zero from now on */
    bool let_go;       /* it may not master the bus, as with no driver */
    bool out_of_reach; /* its registers are gone from the guest: no driver can reset it any more */
};

/* Take the device from the guest: true once no driver has it, by its status and by `how`; the
 * status then takes nothing but zero. One that is out of reach is reset as its driver should have.
 * False, too, while a CPU waits for the device beyond `until` (CLOCK_MONOTONIC). Main thread. */
bool virtio_transport_unplug(struct virtio_transport *transport,
                             const struct virtio_transport_unplug *how,
                             const struct timespec *until);

/* The device process was replaced: activate it again if the guest had it running. Main thread. 0,
 * or a negative errno (the device is then marked as needing a reset). */
int virtio_transport_reactivate(struct virtio_transport *transport);

#endif
