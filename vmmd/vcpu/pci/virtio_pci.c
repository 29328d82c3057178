#include "vmmd/vcpu/pci/virtio_pci.h"
#include "libshared/base/clock.h"
#include "vmmd/vcpu/pci/msix.h"
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MSIX_BAR 0u
#define BAR      4u
#define BAR_SIZE 0x4000u

/* Structures inside the BAR. */
#define COMMON_OFFSET     0x0000u
#define ISR_OFFSET        0x1000u
#define DEVICE_OFFSET     0x2000u
#define NOTIFY_OFFSET     0x3000u
#define REGION_SIZE       0x1000u
#define NOTIFY_MULTIPLIER 4u

/* A CPU that waits for a device holds its lock for seconds: whoever unplugs asks again instead. */
#define UNPLUG_PATIENCE_NS (100 * NS_PER_MS)

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

struct virtio_pci {
    struct pci_function function; /* embedded; under the host's lock */
    struct virtio_transport transport;
    struct virtio_pci_config config;
    unsigned window_capability; /* offset of the configuration access capability */
    bool has_msix;
    struct msix msix;
    pthread_mutex_t interrupt_lock; /* the two below, together with the INTx level */
    bool live;                      /* the driver is up: interrupts are wanted */
    uint8_t isr;
    /* For statistics; any thread. */
    _Atomic uint64_t kicks, interrupts, messages;
};

static const struct virtio_kind {
    const char *name;
    uint32_t type, class_code;
} KINDS[] = {
    {"virtio-net", VIRTIO_ID_NET, 0x020000},
    {"virtio-blk", VIRTIO_ID_BLOCK, 0x010000},
    {"virtio-console", VIRTIO_ID_CONSOLE, 0x078000},
    {"virtio-rng", VIRTIO_ID_RNG, 0x00ff00},
    {"virtio-input", VIRTIO_ID_INPUT, 0x098000},
    {"virtio-vsock", VIRTIO_ID_VSOCK, 0x028000},
    {"virtio-fs", VIRTIO_ID_FS, 0x018000},
    {"virtio-balloon", VIRTIO_ID_BALLOON, 0x00ff00},
};

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static const struct virtio_kind *kind_find(const char *name)
{
    for (unsigned i = 0; i < sizeof(KINDS) / sizeof(KINDS[0]); i++) {
        if (strcmp(KINDS[i].name, name) == 0) {
            return &KINDS[i];
        }
    }
    return NULL;
}

bool virtio_pci_kind_known(const char *kind)
{
    return kind_find(kind) != NULL;
}

/* --- interrupts ------------------------------------------------------------------------------ */

/* Under the interrupt lock. A function whose MSI-X is on drives no INTx (PCI 3.0, 6.8.2). */
static void update_intx(struct virtio_pci *device)
{
    bool silent = device->has_msix && msix_enabled(&device->msix);
    pci_function_set_intx(&device->function, device->isr != 0 && !silent);
}

void virtio_pci_interrupt(struct virtio_pci *device, unsigned queue)
{
    struct virtio_transport *transport = &device->transport;
    bool is_queue = queue < device->config.queue_count;
    pthread_mutex_lock(&device->interrupt_lock);
    if (!device->live) {
        /* A late signal of a device that was reset: nobody would acknowledge the interrupt. */
        pthread_mutex_unlock(&device->interrupt_lock);
        return;
    }
    count(&device->interrupts);
    if (device->has_msix && msix_enabled(&device->msix)) {
        if (msix_notify(&device->msix, is_queue ? atomic_load(&transport->queues[queue].vector)
                                                : atomic_load(&transport->config_vector))) {
            count(&device->messages);
        }
    } else {
        device->isr |= is_queue ? ISR_QUEUE : ISR_CONFIG;
        update_intx(device);
    }
    pthread_mutex_unlock(&device->interrupt_lock);
}

/* 4.1.4.5: reading returns the bits, clears them and drops the line, all in one. */
static uint8_t isr_take(struct virtio_pci *device)
{
    pthread_mutex_lock(&device->interrupt_lock);
    uint8_t isr = device->isr;
    device->isr = 0;
    update_intx(device);
    pthread_mutex_unlock(&device->interrupt_lock);
    return isr;
}

static void transport_set_live(void *owner, bool live)
{
    struct virtio_pci *device = owner;
    pthread_mutex_lock(&device->interrupt_lock);
    device->live = live;
    if (!live) {
        device->isr = 0;
        update_intx(device);
    }
    pthread_mutex_unlock(&device->interrupt_lock);
}

static void transport_config_changed(void *owner)
{
    struct virtio_pci *device = owner;
    virtio_pci_interrupt(device, device->config.queue_count);
}

static void transport_unresponsive(void *owner)
{
    struct virtio_pci *device = owner;
    device->config.unresponsive(device->config.context);
}

/* --- the BAR --------------------------------------------------------------------------------- */

static uint64_t bar_load(struct virtio_pci *device, uint64_t offset, unsigned size)
{
    uint64_t inner = offset % REGION_SIZE;
    switch (offset - inner) {
    case COMMON_OFFSET:
        return virtio_transport_common_read(&device->transport, inner, size);
    case ISR_OFFSET:
        return inner == 0 ? isr_take(device) : 0;
    case DEVICE_OFFSET:
        return virtio_transport_device_read(&device->transport, inner, size);
    default:
        return 0;
    }
}

static void bar_store(struct virtio_pci *device, uint64_t offset, unsigned size, uint64_t value)
{
    uint64_t inner = offset % REGION_SIZE;
    switch (offset - inner) {
    case COMMON_OFFSET:
        virtio_transport_common_write(&device->transport, inner, size, value);
        break;
    case DEVICE_OFFSET:
        virtio_transport_device_write(&device->transport, inner, size, value);
        break;
    case NOTIFY_OFFSET:
        if (virtio_transport_kick(&device->transport, (unsigned)(inner / NOTIFY_MULTIPLIER))) {
            count(&device->kicks);
        }
        break;
    default:
        break;
    }
}

static bool bar_read(void *opaque, uint64_t offset, unsigned size, uint64_t *value)
{
    *value = bar_load(opaque, offset, size);
    return true;
}

static bool bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    bar_store(opaque, offset, size, value);
    return true;
}

static const struct bus_ops BAR_OPS = {.read = bar_read, .write = bar_write};

static bool msix_bar_read(void *opaque, uint64_t offset, unsigned size, uint64_t *value)
{
    struct virtio_pci *device = opaque;
    *value = msix_table_read(&device->msix, offset, size);
    return true;
}

static bool msix_bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *device = opaque;
    msix_table_write(&device->msix, offset, size, value);
    return true;
}

static const struct bus_ops MSIX_BAR_OPS = {.read = msix_bar_read, .write = msix_bar_write};

/* --- configuration space --------------------------------------------------------------------- */

/* 4.1.4.9: the guest names BAR, offset and length in the capability; accesses to its data field
 * then go there, with that length. */
static bool config_window(void *opaque, unsigned offset, struct pci_window *window)
{
    const struct virtio_pci *device = opaque;
    const struct pci_function *function = &device->function;
    unsigned base = device->window_capability;
    unsigned data = base + (unsigned)offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
    if (offset / 4 != data / 4) {
        return false;
    }
    uint32_t length = pci_function_get(function, base + offsetof(struct virtio_pci_cap, length), 4);
    window->bar = pci_function_get(function, base + offsetof(struct virtio_pci_cap, bar), 1);
    window->offset = pci_function_get(function, base + offsetof(struct virtio_pci_cap, offset), 4);
    bool valid = window->bar == BAR && (length == 1 || length == 2 || length == 4) &&
                 window->offset % length == 0 && window->offset < BAR_SIZE;
    window->length = valid ? length : 0;
    return true;
}

static void config_written(void *opaque, unsigned offset, unsigned size)
{
    struct virtio_pci *device = opaque;
    unsigned flags = device->msix.capability + PCI_MSIX_FLAGS;
    bool control = offset < flags + 2 && offset + size > flags;
    bool command = offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND;
    /* The last that drivers do with a device (before that they wait for registers of it). */
    if (command && atomic_load(&device->transport.unplugged) &&
        !(pci_function_get(&device->function, PCI_COMMAND, 2) & PCI_COMMAND_MASTER)) {
        device->function.left = true;
    }
    if (device->has_msix && (control || command)) {
        pthread_mutex_lock(&device->interrupt_lock);
        msix_control_changed(&device->msix);
        update_intx(device);
        pthread_mutex_unlock(&device->interrupt_lock);
    }
}

static void machine_reset(void *opaque)
{
    struct virtio_pci *device = opaque;
    if (device->has_msix) {
        msix_reset(&device->msix);
    }
    virtio_transport_reset(&device->transport);
    device->function.left |= atomic_load(&device->transport.unplugged);
}

static const struct pci_function_ops FUNCTION_OPS = {
    .window = config_window,
    .config_written = config_written,
    .reset = machine_reset,
};

/* --- description ----------------------------------------------------------------------------- */

/* Append one vendor capability of `size` bytes. Its offset or -ENOSPC. */
static int add_capability(struct pci_function *function, unsigned size, uint8_t type,
                          uint32_t offset, uint32_t length)
{
    int place = pci_function_add_capability(function, PCI_CAP_ID_VNDR, size);
    if (place < 0) {
        return place;
    }
    unsigned base = (unsigned)place;
    pci_function_set(function, base + offsetof(struct virtio_pci_cap, cap_len), 1, size);
    pci_function_set(function, base + offsetof(struct virtio_pci_cap, cfg_type), 1, type);
    pci_function_set(function, base + offsetof(struct virtio_pci_cap, bar), 1,
                     type == VIRTIO_PCI_CAP_PCI_CFG ? 0 : BAR);
    pci_function_set(function, base + offsetof(struct virtio_pci_cap, offset), 4, offset);
    pci_function_set(function, base + offsetof(struct virtio_pci_cap, length), 4, length);
    return place;
}

static int describe_window(struct virtio_pci *device)
{
    struct pci_function *function = &device->function;
    int place =
        add_capability(function, sizeof(struct virtio_pci_cfg_cap), VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
    if (place < 0) {
        return place;
    }
    unsigned base = device->window_capability = (unsigned)place;
    pci_function_make_writable(function, base + offsetof(struct virtio_pci_cap, bar), 1, 0xff);
    pci_function_make_writable(function, base + offsetof(struct virtio_pci_cap, offset), 4,
                               UINT32_MAX);
    pci_function_make_writable(function, base + offsetof(struct virtio_pci_cap, length), 4,
                               UINT32_MAX);
    return 0;
}

static int describe_structures(struct virtio_pci *device)
{
    struct pci_function *function = &device->function;
    const unsigned plain = sizeof(struct virtio_pci_cap);
    int result = pci_function_add_bar(function, BAR, BAR_SIZE, device->config.name, &BAR_OPS);
    if (result == 0) {
        result = add_capability(function, plain, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET,
                                VIRTIO_COMMON_LENGTH);
    }
    if (result >= 0) {
        result = add_capability(function, plain, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET, 1);
    }
    if (result >= 0) {
        result = add_capability(function, plain, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFFSET,
                                VIRTIO_CONFIG_MAX);
    }
    if (result >= 0) {
        result = add_capability(function, sizeof(struct virtio_pci_notify_cap),
                                VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFFSET,
                                device->config.queue_count * NOTIFY_MULTIPLIER);
    }
    if (result >= 0) {
        pci_function_set(function,
                         (unsigned)result +
                             offsetof(struct virtio_pci_notify_cap, notify_off_multiplier),
                         4, NOTIFY_MULTIPLIER);
        result = describe_window(device);
    }
    return result;
}

/* MSI-X only where somebody takes the messages: one vector a queue and one for the configuration.
 */
static int describe_msix(struct virtio_pci *device, struct pci_host *host)
{
    const struct pci_msi_target *target = pci_host_msi(host);
    if (!target) {
        return 0;
    }
    int result = pci_function_add_bar(&device->function, MSIX_BAR, MSIX_BAR_SIZE,
                                      device->config.name, &MSIX_BAR_OPS);
    if (result == 0) {
        result = msix_init(&device->msix, &device->function, device->config.queue_count + 1,
                           MSIX_BAR, target);
        device->has_msix = result == 0;
    }
    return result;
}

static int transport_start(struct virtio_pci *device, uint32_t type)
{
    const struct virtio_pci_config *config = &device->config;
    struct virtio_transport_config transport = {
        .name = config->name,
        .device_type = type,
        .queue_count = config->queue_count,
        .vector_count = device->has_msix ? device->msix.vector_count : 0,
        .state = config->state,
        .memory = config->memory,
        .client = config->client,
        .set_live = transport_set_live,
        .config_changed = transport_config_changed,
        .unresponsive = transport_unresponsive,
        .owner = device,
    };
    memcpy(transport.kick, config->kick, sizeof(transport.kick));
    return virtio_transport_init(&device->transport, &transport);
}

struct virtio_pci *virtio_pci_create(struct pci_host *host, const struct virtio_pci_config *config,
                                     struct error *err)
{
    const struct virtio_kind *kind = kind_find(config->kind);
    if (!kind) {
        error_set(err, ERROR_UNSUPPORTED, 0, "device %s is of unknown kind %s", config->name,
                  config->kind);
        return NULL;
    }
    struct virtio_pci *device = calloc(1, sizeof(*device));
    if (!device) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", config->name);
        return NULL;
    }
    const struct pci_identity identity = {
        .vendor = 0x1af4,
        .device = (uint16_t)(0x1040 + kind->type),
        .revision = 1,
        .class_code = kind->class_code,
        .subsystem_vendor = 0x1af4,
        .subsystem = 0x1100,
    };
    device->config = *config;
    pthread_mutex_init(&device->interrupt_lock, NULL);
    pci_function_init(&device->function, &identity, 1, &FUNCTION_OPS, device);
    int result = describe_structures(device);
    if (result >= 0) {
        result = describe_msix(device, host);
    }
    if (result >= 0) {
        result = transport_start(device, kind->type);
    }
    if (result != 0) {
        error_set(err, ERROR_INTERNAL, -result, "device %s has a malformed state or description",
                  config->name);
        free(device);
        return NULL;
    }
    result = pci_host_add(host, config->slot, &device->function);
    if (result != 0) {
        error_set(err, ERROR_CONFIG, -result, "device %s cannot have PCI slot %u", config->name,
                  config->slot);
        virtio_pci_destroy(device);
        return NULL;
    }
    return device;
}

void virtio_pci_destroy(struct virtio_pci *device)
{
    if (device) {
        virtio_transport_destroy(&device->transport);
        msix_destroy(&device->msix);
        pthread_mutex_destroy(&device->interrupt_lock);
        free(device);
    }
}

void virtio_pci_count(const struct virtio_pci *device, struct virtio_pci_counts *counts)
{
    counts->kicks += atomic_load_explicit(&device->kicks, memory_order_relaxed);
    counts->interrupts += atomic_load_explicit(&device->interrupts, memory_order_relaxed);
    counts->messages += atomic_load_explicit(&device->messages, memory_order_relaxed);
}

bool virtio_pci_reset_pending(struct virtio_pci *device)
{
    return virtio_transport_reset_pending(&device->transport);
}

void virtio_pci_device_gone(struct virtio_pci *device)
{
    virtio_transport_device_gone(&device->transport);
}

int virtio_pci_reactivate(struct virtio_pci *device)
{
    return virtio_transport_reactivate(&device->transport);
}

/* --- unplugging ------------------------------------------------------------------------------ */

bool virtio_pci_unplug(struct virtio_pci *device, bool force)
{
    const struct timespec until = clock_timespec(clock_monotonic_ns() + UNPLUG_PATIENCE_NS);
    /* One whose driver is absent has the bus's driver still, and is on the guest's list. */
    const struct virtio_transport_unplug how = {
        .force = force,
        .let_go = !pci_host_is_master(&device->function),
        .out_of_reach = pci_host_has_left(&device->function),
    };
    return virtio_transport_unplug(&device->transport, &how, &until);
}

void virtio_pci_remove(struct virtio_pci *device)
{
    pci_host_remove(&device->function);
}
