/*
 * vcpud's end of a plain MMIO device's register channel (libshared/mmio/channel.h).
 *
 * The bus calls it on CPU threads. Writes are posted and cost no wait while the ring has room;
 * reads come from a shadow, or ask the device and wait. A device that does not answer in time
 * counts as dead: from then on accesses are answered at once with what a silent device would show,
 * its interrupt line is held low, and one access in the ring probes whether it is back. Everything
 * that the device writes into the page is hostile: it can make values wrong, never more.
 */
#ifndef POLYVISOR_VCPU_DEVICE_MMIO_CLIENT_H
#define POLYVISOR_VCPU_DEVICE_MMIO_CLIENT_H

#include "libshared/mmio/channel.h"
#include "vmmd/vcpu/machine/bus.h"

struct mmio_client;

struct mmio_client_config {
    const char *name;             /* device id, for messages; outlives the client */
    const char *kind;             /* "serial", "rtc": what it shows when silent, how it is reset */
    struct mmio_channel *channel; /* mapped by the caller, outlives the client */
    int kick, reply;              /* eventfds (doorbell.h); the caller closes them */
    unsigned deadline_ms;
    unsigned slow_ms; /* less than the deadline: when `slow` is called */
    /* A CPU has waited that long and goes on waiting. A CPU thread; must not wait. */
    void (*slow)(void *context);
    /* The device missed a deadline (once until it answers again). A CPU thread; must not wait. */
    void (*unresponsive)(void *context);
    /* Nobody will answer, or nobody wants the answer any more: the wait ends at once, without
     * `unresponsive`. Asked on a CPU thread, at least every 100 ms. NULL: never. */
    bool (*hopeless)(void *context);
    void *context;
};

/* For bus_add or machine_model.attach_mmio_device, with the client as device. */
extern const struct bus_ops MMIO_CLIENT_OPS;

/* NULL with errno set: EPROTO when the page is not a channel, ENOMEM. */
struct mmio_client *mmio_client_create(const struct mmio_client_config *config);
void mmio_client_destroy(struct mmio_client *client);

/* Where the interrupt goes; before CPUs run. */
void mmio_client_set_irq(struct mmio_client *client, const struct irq_line *irq);
/* Any thread: the device signalled call.0, so take over its interrupt level. */
void mmio_client_update_irq(struct mmio_client *client);
/* Machine reset, while no CPU runs: quiet the device by writing its registers. Never waits; false:
 * there is no room for the writes yet, so call it again. */
bool mmio_client_reset(struct mmio_client *client);

#endif
