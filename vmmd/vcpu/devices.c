#include "vmmd/vcpu/devices.h"
#include "vmmd/vcpu/device/mmio_client.h"
#include "vmmd/vcpu/device/transport_client.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct attached {
    struct devices *all;
    char id[NOTICE_DEVICE_MAX];
    void *state; /* shared mapping */
    size_t state_size;
    int kick[VIRTIO_QUEUES_MAX];
    int reply;
    struct mmio_client *mmio;           /* of a plain device */
    bool loud;                          /* its ring has no room yet for what quiets it */
    struct transport_client *transport; /* of a virtio device */
    struct virtio_pci *virtio;
};

struct devices {
    struct machine *machine;
    struct fdlist *descriptors;
    struct interrupt_thread *interrupts;
    struct notices *notices;
    struct pci_host *pci;   /* NULL while the machine needs none */
    _Atomic bool abandoned; /* main thread writes: see devices_abandon */
    unsigned count;
    struct attached list[DEVICES_MAX];
};

/* --- callbacks ------------------------------------------------------------------------------- */

/* On a CPU thread: the device missed its deadline. */
static void device_unresponsive(void *context)
{
    const struct attached *device = context;
    notices_post(device->all->notices, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT, 0,
                 device->id);
}

/* On a CPU thread, which waits for the device and goes on waiting. */
static void device_slow(void *context)
{
    const struct attached *device = context;
    notices_post(device->all->notices, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_SLOW, 0,
                 device->id);
}

/* On a CPU thread that waits for the device. */
static bool mmio_hopeless(void *context)
{
    const struct attached *device = context;
    const struct mmio_channel *channel = device->state;
    return atomic_load(&device->all->abandoned) || atomic_load(&channel->given_up) != 0;
}

static bool virtio_hopeless(void *context)
{
    const struct attached *device = context;
    const struct virtio_state *state = device->state;
    return atomic_load(&device->all->abandoned) ||
           atomic_load(&state->needs_reset) == VIRTIO_RESET_DEVICE_FAILED;
}

/* On the interrupt thread. Code that the device overwrote is dropped before the guest can hear
 * that its data is there. */
static void virtio_called(void *context, unsigned queue)
{
    struct attached *device = context;
    engine_device_wrote(device->all->machine->engine);
    virtio_pci_interrupt(device->virtio, queue);
}

static void mmio_called(void *context, unsigned number)
{
    const struct attached *device = context;
    (void)number;
    mmio_client_update_irq(device->mmio);
}

/* --- what is inherited ----------------------------------------------------------------------- */

/* The descriptor dev.<id>.<what>[.<number>], or -1 with *err set. */
static int take_descriptor(struct attached *device, const char *what, int number, struct error *err)
{
    int fd = number < 0
                 ? fdlist_take(device->all->descriptors, "dev.%s.%s", device->id, what)
                 : fdlist_take(device->all->descriptors, "dev.%s.%s.%d", device->id, what, number);
    if (fd < 0) {
        error_set(err, ERROR_INTERNAL, -fd, "no descriptor %s was handed over for device %s", what,
                  device->id);
        return -1;
    }
    return fd;
}

/* Map the shared state. It must be of full size and unable to shrink: a page that went away later
 * would kill this process. */
static int map_state(struct attached *device, size_t size, struct error *err)
{
    struct stat info;
    int fd = take_descriptor(device, "state", -1, err);
    if (fd < 0) {
        return -ERROR_INTERNAL;
    }
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &info) < 0 || info.st_size < (off_t)size || seals < 0 ||
        !(seals & F_SEAL_SHRINK)) {
        close(fd);
        return error_set(err, ERROR_INTERNAL, 0, "the shared state of device %s is unusable",
                         device->id);
    }
    void *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int cause = errno;
    close(fd);
    if (mapping == MAP_FAILED) {
        return error_set(err, ERROR_INTERNAL, cause, "cannot map the shared state of device %s: %s",
                         device->id, strerror(cause));
    }
    device->state = mapping;
    device->state_size = size;
    return 0;
}

/* Doorbells: `kicks` to the device, `calls` from it, whose handler gets their number. */
static int take_doorbells(struct attached *device, unsigned kicks, unsigned calls,
                          interrupt_handler *handler, struct error *err)
{
    for (unsigned i = 0; i < kicks; i++) {
        device->kick[i] = take_descriptor(device, "kick", (int)i, err);
        if (device->kick[i] < 0) {
            return -ERROR_INTERNAL;
        }
    }
    for (unsigned i = 0; i < calls; i++) {
        int fd = take_descriptor(device, "call", (int)i, err);
        if (fd < 0) {
            return -ERROR_INTERNAL;
        }
        int result = interrupt_thread_watch(device->all->interrupts, fd, handler, device, i, err);
        if (result != 0) {
            close(fd);
            return result;
        }
    }
    return 0;
}

/* --- kinds ----------------------------------------------------------------------------------- */

static int attach_plain(struct attached *device, const Polyvisor__VcpuDevice *wanted,
                        struct error *err)
{
    struct machine *machine = device->all->machine;
    int result = map_state(device, MMIO_STATE_SIZE, err);
    if (result == 0) {
        result = take_doorbells(device, 1, 1, mmio_called, err);
    }
    if (result == 0) {
        device->reply = take_descriptor(device, "reply", -1, err);
        result = device->reply < 0 ? -ERROR_INTERNAL : 0;
    }
    if (result != 0) {
        return result;
    }
    const struct mmio_client_config config = {
        .name = device->id,
        .kind = wanted->kind,
        .channel = device->state,
        .kick = device->kick[0],
        .reply = device->reply,
        .deadline_ms = TUNABLE_MMIO_DEADLINE_MS,
        .slow_ms = TUNABLE_SLOW_MS,
        .slow = device_slow,
        .unresponsive = device_unresponsive,
        .hopeless = mmio_hopeless,
        .context = device,
    };
    device->mmio = mmio_client_create(&config);
    if (!device->mmio) {
        return error_set(err, ERROR_INTERNAL, errno, "the register channel of device %s: %s",
                         device->id, strerror(errno));
    }
    struct irq_line irq = {0};
    result = machine->model->attach_mmio_device(machine, wanted->kind, &MMIO_CLIENT_OPS,
                                                device->mmio, &irq);
    if (result != 0) {
        return error_set(err, ERROR_UNSUPPORTED, -result, "this machine has no place for a %s",
                         wanted->kind);
    }
    mmio_client_set_irq(device->mmio, &irq);
    return 0;
}

static int open_transport(struct attached *device, const Polyvisor__VcpuDevice *wanted,
                          struct error *err)
{
    if (!device->all->pci) {
        device->all->pci =
            pci_host_create(device->all->machine->bus, &device->all->machine->pci, err);
        if (!device->all->pci) {
            return -ERROR_UNSUPPORTED;
        }
    }
    device->transport =
        transport_client_create(wanted->transport_path, TUNABLE_TRANSPORT_DEADLINE_MS, err);
    if (!device->transport) {
        return -ERROR_IO;
    }
    const struct transport_client_wait wait = {
        .slow_ms = TUNABLE_SLOW_MS,
        .slow = device_slow,
        .hopeless = virtio_hopeless,
        .context = device,
    };
    transport_client_set_wait(device->transport, &wait);
    return 0;
}

static int attach_virtio(struct attached *device, const Polyvisor__VcpuDevice *wanted,
                         struct error *err)
{
    unsigned queues = wanted->queue_count;
    if (queues < 1 || queues > VIRTIO_QUEUES_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "device %s cannot have %u queues", device->id,
                         queues);
    }
    int result = map_state(device, VIRTIO_STATE_SIZE, err);
    if (result == 0) {
        result = take_doorbells(device, queues, queues + 1, virtio_called, err);
    }
    if (result == 0) {
        result = open_transport(device, wanted, err);
    }
    if (result != 0) {
        return result;
    }
    struct virtio_pci_config config = {
        .name = device->id,
        .kind = wanted->kind,
        .slot = wanted->pci_slot,
        .queue_count = queues,
        .state = device->state,
        .memory = device->all->machine->memory,
        .client = device->transport,
        .unresponsive = device_unresponsive,
        .context = device,
    };
    memcpy(config.kick, device->kick, sizeof(config.kick));
    device->virtio = virtio_pci_create(device->all->pci, &config, err);
    return device->virtio ? 0 : -ERROR_CONFIG;
}

static int attach(struct devices *devices, const Polyvisor__VcpuDevice *wanted, struct error *err)
{
    struct attached *device = &devices->list[devices->count++];
    device->all = devices;
    device->reply = -1;
    memset(device->kick, -1, sizeof(device->kick));
    if (strlen(wanted->id) == 0 || strlen(wanted->id) >= sizeof(device->id)) {
        return error_set(err, ERROR_CONFIG, 0, "a device id is empty or too long");
    }
    strcpy(device->id, wanted->id);
    if (virtio_pci_kind_known(wanted->kind)) {
        return attach_virtio(device, wanted, err);
    }
    return attach_plain(device, wanted, err);
}

/* --- life ------------------------------------------------------------------------------------ */

struct devices *devices_create(const Polyvisor__VcpuConfigure *configure, struct machine *machine,
                               struct fdlist *descriptors, struct interrupt_thread *interrupts,
                               struct notices *notices, struct error *err)
{
    if (configure->n_devices > DEVICES_MAX) {
        error_set(err, ERROR_CONFIG, 0, "%zu devices are more than %d", configure->n_devices,
                  DEVICES_MAX);
        return NULL;
    }
    struct devices *devices = calloc(1, sizeof(*devices));
    if (!devices) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the devices");
        return NULL;
    }
    devices->machine = machine;
    devices->descriptors = descriptors;
    devices->interrupts = interrupts;
    devices->notices = notices;
    for (size_t i = 0; i < configure->n_devices; i++) {
        if (attach(devices, configure->devices[i], err) != 0) {
            devices_destroy(devices);
            return NULL;
        }
    }
    return devices;
}

static void detach(struct attached *device)
{
    virtio_pci_destroy(device->virtio);
    transport_client_destroy(device->transport);
    mmio_client_destroy(device->mmio);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        if (device->kick[i] >= 0) {
            close(device->kick[i]);
        }
    }
    if (device->reply >= 0) {
        close(device->reply);
    }
    if (device->state) {
        munmap(device->state, device->state_size);
    }
}

void devices_destroy(struct devices *devices)
{
    if (!devices) {
        return;
    }
    pci_host_destroy(devices->pci);
    for (unsigned i = 0; i < devices->count; i++) {
        detach(&devices->list[i]);
    }
    free(devices);
}

void devices_count(const struct devices *devices, struct virtio_pci_counts *counts)
{
    for (unsigned i = 0; i < devices->count; i++) {
        if (devices->list[i].virtio) {
            virtio_pci_count(devices->list[i].virtio, counts);
        }
    }
}

void devices_abandon(struct devices *devices, bool abandoned)
{
    atomic_store(&devices->abandoned, abandoned);
}

void devices_reset(struct devices *devices)
{
    if (devices->pci) {
        pci_host_reset(devices->pci);
    }
    for (unsigned i = 0; i < devices->count; i++) {
        if (devices->list[i].mmio) {
            devices->list[i].loud = !mmio_client_reset(devices->list[i].mmio);
        }
    }
}

static bool reset_pending(struct attached *device)
{
    if (device->mmio) {
        device->loud = device->loud && !mmio_client_reset(device->mmio);
        return device->loud;
    }
    return device->virtio && virtio_pci_reset_pending(device->virtio);
}

bool devices_reset_pending(struct devices *devices)
{
    bool pending = false;
    for (unsigned i = 0; i < devices->count; i++) {
        pending |= reset_pending(&devices->list[i]);
    }
    return pending;
}

void devices_report_stuck(struct devices *devices)
{
    for (unsigned i = 0; i < devices->count; i++) {
        struct attached *device = &devices->list[i];
        if (reset_pending(device)) {
            notices_post(devices->notices, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK, 0,
                         device->id);
        }
    }
}

void devices_gone(struct devices *devices, const char *id)
{
    for (unsigned i = 0; i < devices->count; i++) {
        struct attached *device = &devices->list[i];
        if (device->virtio && strcmp(device->id, id) == 0) {
            virtio_pci_device_gone(device->virtio);
        }
    }
}

void devices_raise_levels(struct devices *devices)
{
    for (unsigned i = 0; i < devices->count; i++) {
        if (devices->list[i].mmio) {
            mmio_client_update_irq(devices->list[i].mmio);
        }
    }
}
