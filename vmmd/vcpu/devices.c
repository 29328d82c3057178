#include "vmmd/vcpu/devices.h"
#include "libshared/base/descriptor.h"
#include "libshared/ipc/handover.h"
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

/* A place of the list may be empty: `id` is then empty, too. */
struct attached {
    struct devices *all;
    char id[NOTICE_DEVICE_MAX];
    void *state; /* shared mapping */
    size_t state_size;
    int kick[VIRTIO_QUEUES_MAX], call[VIRTIO_QUEUES_MAX + 1];
    int reply;
    struct mmio_client *mmio;           /* of a plain device */
    bool loud;                          /* its ring has no room yet for what quiets it */
    struct transport_client *transport; /* of a virtio device */
    struct virtio_pci *virtio;
};

/* A transport socket that was bound in advance. */
struct spare {
    char path[108]; /* sun_path */
    struct transport_client *client;
    bool used;
};

struct devices {
    struct machine *machine;
    struct fdlist *descriptors; /* what the device that is being attached is made of */
    int handover;               /* -1: none */
    unsigned spare_count;
    struct spare spares[SPARES_MAX];
    struct interrupt_thread *interrupts;
    struct notices *notices;
    struct pci_host *pci;   /* NULL while the machine needs none */
    _Atomic bool abandoned; /* main thread writes: see devices_abandon */
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

/* Doorbells: `kicks` to the device, `calls` from it. */
static int take_doorbells(struct attached *device, unsigned kicks, unsigned calls,
                          struct error *err)
{
    for (unsigned i = 0; i < kicks; i++) {
        device->kick[i] = take_descriptor(device, "kick", (int)i, err);
        if (device->kick[i] < 0) {
            return -ERROR_INTERNAL;
        }
    }
    for (unsigned i = 0; i < calls; i++) {
        device->call[i] = take_descriptor(device, "call", (int)i, err);
        if (device->call[i] < 0) {
            return -ERROR_INTERNAL;
        }
    }
    return 0;
}

/* Have the device's calls heard from now on: `handler` gets their number. Last of all, since the
 * interrupt thread may run and the device may have called already. */
static int watch_calls(struct attached *device, interrupt_handler *handler, struct error *err)
{
    int result = 0;
    for (unsigned i = 0; i <= VIRTIO_QUEUES_MAX && device->call[i] >= 0 && result == 0; i++) {
        result = interrupt_thread_watch(device->all->interrupts, device->call[i], handler, device,
                                        i, err);
    }
    return result;
}

/* --- kinds ----------------------------------------------------------------------------------- */

static int attach_plain(struct attached *device, const Polyvisor__VcpuDevice *wanted,
                        struct error *err)
{
    struct machine *machine = device->all->machine;
    int result = map_state(device, MMIO_STATE_SIZE, err);
    if (result == 0) {
        result = take_doorbells(device, 1, 1, err);
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
    return watch_calls(device, mmio_called, err);
}

static struct spare *find_spare(struct devices *devices, const char *path)
{
    for (unsigned i = 0; i < devices->spare_count; i++) {
        if (strcmp(devices->spares[i].path, path) == 0) {
            return &devices->spares[i];
        }
    }
    return NULL;
}

/* A spare socket stays bound for the next device. */
static void close_transport(struct attached *device)
{
    struct devices *devices = device->all;
    for (unsigned i = 0; i < devices->spare_count; i++) {
        if (device->transport && devices->spares[i].client == device->transport) {
            transport_client_forget(device->transport);
            devices->spares[i].used = false;
            device->transport = NULL;
        }
    }
    transport_client_destroy(device->transport);
    device->transport = NULL;
}

static int open_transport(struct attached *device, const Polyvisor__VcpuDevice *wanted,
                          struct error *err)
{
    struct spare *spare = find_spare(device->all, wanted->transport_path);
    if (!device->all->pci) {
        device->all->pci =
            pci_host_create(device->all->machine->bus, &device->all->machine->pci, err);
        if (!device->all->pci) {
            return -ERROR_UNSUPPORTED;
        }
    }
    if (spare && spare->used) {
        return error_set(err, ERROR_BUSY, 0, "the transport socket of device %s is in use",
                         device->id);
    }
    if (spare) {
        spare->used = true;
        device->transport = spare->client;
    } else {
        device->transport =
            transport_client_create(wanted->transport_path, TUNABLE_TRANSPORT_DEADLINE_MS, err);
        if (!device->transport) {
            return -ERROR_IO;
        }
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
        result = take_doorbells(device, queues, queues + 1, err);
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
    if (!device->virtio) {
        return -ERROR_CONFIG;
    }
    result = watch_calls(device, virtio_called, err);
    if (result != 0) {
        virtio_pci_remove(device->virtio);
    }
    return result;
}

static struct attached *find(struct devices *devices, const char *id)
{
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        struct attached *device = &devices->list[i];
        if (device->all && strcmp(device->id, id) == 0) {
            return device;
        }
    }
    return NULL;
}

static struct attached *find_place(struct devices *devices)
{
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        if (!devices->list[i].all) {
            return &devices->list[i];
        }
    }
    return NULL;
}

/* All that its process was at the other end of. No CPU uses it any more. */
static void close_channels(struct attached *device)
{
    for (unsigned i = 0; i <= VIRTIO_QUEUES_MAX; i++) {
        if (device->call[i] >= 0) {
            interrupt_thread_unwatch(device->all->interrupts, device->call[i]);
            device->call[i] = -1;
        }
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        descriptor_close(&device->kick[i]);
    }
    close_transport(device);
}

/* The rest, once no CPU is inside. Its place is free then. */
static void release(struct attached *device)
{
    virtio_pci_destroy(device->virtio);
    mmio_client_destroy(device->mmio);
    descriptor_close(&device->reply);
    if (device->state) {
        munmap(device->state, device->state_size);
    }
    memset(device, 0, sizeof(*device));
}

static int attach(struct devices *devices, const Polyvisor__VcpuDevice *wanted, struct error *err)
{
    struct attached *device = find_place(devices);
    int result;
    if (!device) {
        return error_set(err, ERROR_CONFIG, 0, "there are %d devices already", DEVICES_MAX);
    }
    if (strlen(wanted->id) == 0 || strlen(wanted->id) >= sizeof(device->id)) {
        return error_set(err, ERROR_CONFIG, 0, "a device id is empty or too long");
    }
    device->all = devices;
    device->reply = -1;
    memset(device->kick, -1, sizeof(device->kick));
    memset(device->call, -1, sizeof(device->call));
    strcpy(device->id, wanted->id);
    if (virtio_pci_kind_known(wanted->kind)) {
        result = attach_virtio(device, wanted, err);
    } else {
        result = attach_plain(device, wanted, err);
    }
    if (result != 0 && !device->mmio) {
        close_channels(device);
        release(device);
    }
    return result;
}

/* --- life ------------------------------------------------------------------------------------ */

static int bind_spares(struct devices *devices, const Polyvisor__VcpuConfigure *configure,
                       struct error *err)
{
    if (configure->n_spare_transports > SPARES_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%zu places for devices to come are more than %d",
                         configure->n_spare_transports, SPARES_MAX);
    }
    for (size_t i = 0; i < configure->n_spare_transports; i++) {
        struct spare *spare = &devices->spares[i];
        const char *path = configure->spare_transports[i];
        if (strlen(path) >= sizeof(spare->path)) {
            return error_set(err, ERROR_CONFIG, 0, "the path of a transport socket is too long");
        }
        strcpy(spare->path, path);
        spare->client = transport_client_create(path, TUNABLE_TRANSPORT_DEADLINE_MS, err);
        if (!spare->client) {
            return -ERROR_IO;
        }
        devices->spare_count++;
    }
    return 0;
}

struct devices *devices_create(const Polyvisor__VcpuConfigure *configure, struct machine *machine,
                               struct fdlist *descriptors, struct interrupt_thread *interrupts,
                               struct notices *notices, struct error *err)
{
    struct devices *devices = calloc(1, sizeof(*devices));
    if (!devices) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the devices");
        return NULL;
    }
    int handover = fdlist_take(descriptors, "handover");
    devices->handover = handover < 0 ? -1 : handover;
    devices->machine = machine;
    devices->descriptors = descriptors;
    devices->interrupts = interrupts;
    devices->notices = notices;
    int result = bind_spares(devices, configure, err);
    for (size_t i = 0; i < configure->n_devices && result == 0; i++) {
        result = attach(devices, configure->devices[i], err);
    }
    devices->descriptors = NULL;
    if (result != 0) {
        devices_destroy(devices);
        return NULL;
    }
    return devices;
}

void devices_destroy(struct devices *devices)
{
    if (!devices) {
        return;
    }
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        if (devices->list[i].all) {
            /* The interrupt thread is in none of them any more. */
            close_channels(&devices->list[i]);
            release(&devices->list[i]);
        }
    }
    pci_host_destroy(devices->pci);
    for (unsigned i = 0; i < devices->spare_count; i++) {
        transport_client_destroy(devices->spares[i].client);
    }
    descriptor_close(&devices->handover);
    free(devices);
}

/* --- plugging in and out --------------------------------------------------------------------- */

/* What vmmd handed over as `number`. What came before it was for requests that never did: dropped.
 */
static int receive_descriptors(struct devices *devices, uint64_t number, struct fdlist *list,
                               struct error *err)
{
    int result = -ENOENT;
    uint64_t received = 0;
    list->count = 0;
    while (devices->handover >= 0 && received < number) {
        fdlist_close(list);
        result = handover_receive(devices->handover, &received, list);
        if (result != 0) {
            break;
        }
    }
    if (result == 0 && received == number) {
        return 0;
    }
    fdlist_close(list);
    return error_set(err, ERROR_INTERNAL, -result, "a device's descriptors were not handed over");
}

int devices_attach(struct devices *devices, const Polyvisor__VcpuDevice *wanted, uint64_t handover,
                   struct error *err)
{
    struct fdlist list;
    int result = receive_descriptors(devices, handover, &list, err);
    if (result != 0) {
        return result;
    }
    devices->descriptors = &list;
    if (find(devices, wanted->id)) {
        result = error_set(err, ERROR_EXISTS, 0, "there is a device %.40s already", wanted->id);
    } else if (!virtio_pci_kind_known(wanted->kind)) {
        result = error_set(err, ERROR_UNSUPPORTED, 0, "a %.40s cannot be plugged in", wanted->kind);
    } else {
        result = attach(devices, wanted, err);
    }
    devices->descriptors = NULL;
    fdlist_close(&list);
    return result;
}

int devices_detach(struct devices *devices, const char *id, bool force, struct error *err)
{
    struct attached *device = find(devices, id);
    if (!device || !device->virtio) {
        return error_set(err, ERROR_NOT_FOUND, 0, "there is no device %.40s to unplug", id);
    }
    if (!virtio_pci_unplug(device->virtio, force)) {
        return force ? 0 : error_set(err, ERROR_BUSY, 0, "the guest uses device %s", device->id);
    }
    if (force) {
        return 0; /* as if it were in use: it goes when asked again */
    }
    virtio_pci_remove(device->virtio);
    close_channels(device);
    release(device);
    return 0;
}

void devices_count(const struct devices *devices, struct virtio_pci_counts *counts)
{
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
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
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
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
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        pending |= reset_pending(&devices->list[i]);
    }
    return pending;
}

void devices_report_stuck(struct devices *devices)
{
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        struct attached *device = &devices->list[i];
        if (reset_pending(device)) {
            notices_post(devices->notices, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK, 0,
                         device->id);
        }
    }
}

void devices_gone(struct devices *devices, const char *id)
{
    struct attached *device = find(devices, id);
    if (device && device->virtio) {
        virtio_pci_device_gone(device->virtio);
    }
}

void devices_raise_levels(struct devices *devices)
{
    for (unsigned i = 0; i < DEVICES_MAX; i++) {
        if (devices->list[i].mmio) {
            mmio_client_update_irq(devices->list[i].mmio);
        }
    }
}
