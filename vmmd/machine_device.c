#include "vmmd/machine_device.h"

#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include "libshared/disk/image_lock.h"
#include "libshared/mem/memory.h"
#include "libshared/mmio/channel.h"
#include "libshared/virtio/state.h"
#include "vmmd/balloon.h"
#include "vmmd/disk.h"
#include "vmmd/storage.h"
#include "vmmd/tap.h"
#include "vmmd/vsock.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const struct machine_device_kind device_fixed[] = {
    {.id = "serial0", .kind = "serial", .has_console = true},
    {.id = "rtc0", .kind = "rtc"},
    {.id = "rng0", .kind = "virtio-rng", .is_virtio = true, .queue_count = 1},
    /* Four queues: receive, transmit, and the control pair of the multiport feature. */
    {.id = "console0",
     .kind = "virtio-console",
     .is_virtio = true,
     .has_console = true,
     .queue_count = 4},
    {.id = "power0",
     .kind = "virtio-input",
     .is_virtio = true,
     .is_power_key = true,
     .queue_count = 2,
     .pci_slot = 31},
};

static const struct machine_device_kind device_disk = {
    .id = "disk",
    .kind = "virtio-blk",
    .pulled = "virtio-blk-pulled",
    .is_virtio = true,
};

static const struct machine_device_kind device_disk_network = {
    .id = "disk",
    .kind = "virtio-blk",
    .model = "virtio-blk-nbd",
    .pulled = "virtio-blk-pulled",
    .is_virtio = true,
};

static const struct machine_device_kind device_net = {
    .id = "net",
    .kind = "virtio-net",
    .pulled = "virtio-net-pulled",
    .is_virtio = true,
};

/* Its process may make sockets. */
static const struct machine_device_kind device_net_user = {
    .id = "net",
    .kind = "virtio-net",
    .model = "virtio-net-user",
    .pulled = "virtio-net-pulled",
    .is_virtio = true,
};

static const struct machine_device_kind device_vsock = {
    .id = "vsock0",
    .kind = "virtio-vsock",
    .pulled = "virtio-vsock-pulled",
    .is_virtio = true,
    .queue_count = 3,
    .pci_slot = 30,
};

static const struct machine_device_kind device_share = {
    .id = "share",
    .kind = "virtio-fs",
    .is_virtio = true,
};

/* Inflate, deflate, statistics, reports; and one more for drivers that count otherwise. */
static const struct machine_device_kind device_balloon = {
    .id = "balloon0",
    .kind = "virtio-balloon",
    .is_virtio = true,
    .queue_count = 5,
    .pci_slot = 29,
};

static const struct machine_device_kind device_watchdog = {.id = "watchdog0", .kind = "watchdog"};

_Static_assert(4 + 2 * PORTS_MAX <= DEVICE_QUEUES_MAX, "queues for every port");

#define SHARE_SLOT 27u /* of the first; the others take those of the last disks */
#define DISK_SLOT  3u
#define NET_SLOT   (DISK_SLOT + CONFIG_DISKS_MAX)

_Static_assert(sizeof(device_fixed) / sizeof(device_fixed[0]) + 3 + CONFIG_DISKS_MAX +
                       CONFIG_NETS_MAX + SHARES_MAX ==
                   DEVICES_MAX,
               "room for every device");
_Static_assert(NET_SLOT + CONFIG_NETS_MAX <= SHARE_SLOT, "a slot for every device");

static void device_init(struct machine_device *device, const struct machine_device_kind *kind,
                        const char *id, const char *directory)
{
    memset(device, 0, sizeof(*device));
    device->kind = kind;
    device->queue_count = kind->queue_count;
    snprintf(device->id, sizeof(device->id), "%s", id);
    device->state_fd = device->reply_fd = device->backend_fd = device->console_fd = -1;
    device->console_memory_fd = device->namespace_fd = -1;
    device->share_fds = (struct shared_directory){-1, -1, -1, -1};
    memset(device->kick_fds, -1, sizeof(device->kick_fds));
    memset(device->call_fds, -1, sizeof(device->call_fds));
    snprintf(device->control_path, DEVICE_PATH_MAX, "%s/%s.sock", directory, device->id);
    snprintf(device->spare_path, DEVICE_PATH_MAX, "%s/%s.next.sock", directory, device->id);
    if (kind->is_virtio) {
        snprintf(device->transport_path, DEVICE_PATH_MAX, "%s/%s.transport.sock", directory,
                 device->id);
    }
    if (kind->has_console) {
        snprintf(device->console_path, DEVICE_PATH_MAX, "%s/%s.console.sock", directory,
                 device->id);
    }
}

static void device_init_numbered(struct machine_device *device,
                                 const struct machine_device_kind *kind, size_t number,
                                 unsigned first_slot, const char *directory)
{
    char id[16];

    snprintf(id, sizeof(id), "%s%zu", kind->id, number);
    device_init(device, kind, id, directory);
    device->pci_slot = first_slot + (unsigned)number;
}

static const struct machine_device_kind *disk_kind(const Polyvisor__DiskConfig *disk)
{
    return disk_is_network(disk) ? &device_disk_network : &device_disk;
}

static const struct machine_device_kind *net_kind(const struct net_setting *setting)
{
    return setting->kind == NET_USER ? &device_net_user : &device_net;
}

size_t machine_device_plan(struct machine_device *devices, const Polyvisor__MachineConfig *config,
                           const char *directory)
{
    size_t count = 0;
    unsigned slot = 1;

    for (size_t i = 0; i < sizeof(device_fixed) / sizeof(device_fixed[0]); i++) {
        struct machine_device *device = &devices[count++];
        device_init(device, &device_fixed[i], device_fixed[i].id, directory);
        device->pci_slot = device->kind->pci_slot    ? device->kind->pci_slot
                           : device->kind->is_virtio ? slot++
                                                     : 0;
        if (device->kind->has_console && device->kind->is_virtio) {
            console_ports_plan(&device->ports, config, directory);
            device->queue_count += 2 * device->ports.count;
        }
    }
    if (config->vsock[0]) {
        struct machine_device *device = &devices[count++];
        device_init(device, &device_vsock, device_vsock.id, directory);
        device->pci_slot = device->kind->pci_slot;
        device->vsock = config->vsock;
    }
    if (config->watchdog[0]) {
        device_init(&devices[count++], &device_watchdog, device_watchdog.id, directory);
    }
    if (balloon_present(config)) {
        struct machine_device *device = &devices[count++];
        device_init(device, &device_balloon, device_balloon.id, directory);
        device->pci_slot = device->kind->pci_slot;
        device->balloon = config->balloon;
    }
    for (size_t i = 0; i < config->n_disks && count < DEVICES_MAX; i++) {
        struct machine_device *device = &devices[count++];
        device_init_numbered(device, disk_kind(config->disks[i]), i, DISK_SLOT, directory);
        device->disk = config->disks[i];
        device->queue_count = disk_queue_count(device->disk, config->cpus);
    }
    for (size_t i = 0; i < config->n_shares && count < DEVICES_MAX; i++) {
        struct machine_device *device = &devices[count++];
        device_init_numbered(device, &device_share, i, 0, directory);
        device->pci_slot = i == 0 ? SHARE_SLOT : NET_SLOT - (unsigned)i;
        device->share = config->shares[i];
        device->queue_count = shared_directory_queue_count(config->cpus);
    }
    for (size_t i = 0; i < config->n_net && count < DEVICES_MAX; i++) {
        struct machine_device *device = &devices[count++];
        struct net_setting setting;
        net_setting_parse(config->net[i], ERROR_CONFIG, &setting, NULL); /* was checked */
        device_init_numbered(device, net_kind(&setting), i, NET_SLOT, directory);
        device->net = config->net[i];
        device->queue_count = 2 * setting.queues + 1;
    }
    return count;
}

unsigned machine_device_place(const Polyvisor__DeviceAttachRequest *wanted, size_t number, char *id,
                              size_t *most)
{
    if (wanted->disk) {
        snprintf(id, sizeof(((struct machine_device *)0)->id), "disk%zu", number);
        *most = CONFIG_DISKS_MAX;
        return DISK_SLOT + (unsigned)number;
    }
    if (wanted->net[0]) {
        snprintf(id, sizeof(((struct machine_device *)0)->id), "net%zu", number);
        *most = CONFIG_NETS_MAX;
        return NET_SLOT + (unsigned)number;
    }
    strcpy(id, device_vsock.id);
    *most = 1;
    return device_vsock.pci_slot;
}

void machine_device_plan_plugged(struct machine_device *device,
                                 Polyvisor__DeviceAttachRequest *wanted, size_t number,
                                 uint32_t cpus, const char *directory, const char *transport_path)
{
    const struct machine_device_kind *kind = wanted->disk ? disk_kind(wanted->disk) : &device_vsock;
    struct net_setting setting;
    unsigned slot;
    size_t most;
    char id[sizeof(device->id)];

    if (wanted->net[0]) {
        net_setting_parse(wanted->net, ERROR_CONFIG, &setting, NULL); /* was checked */
        kind = net_kind(&setting);
    }
    slot = machine_device_place(wanted, number, id, &most);
    device_init(device, kind, id, directory);
    device->pci_slot = slot;
    device->plugged_in = wanted;
    snprintf(device->transport_path, DEVICE_PATH_MAX, "%s", transport_path);
    if (wanted->disk) {
        device->disk = wanted->disk;
        device->queue_count = disk_queue_count(device->disk, cpus);
    } else if (wanted->net[0]) {
        device->net = wanted->net;
        device->queue_count = 2 * setting.queues + 1;
    } else {
        device->vsock = wanted->vsock;
    }
}

void machine_device_describe_vcpu(struct machine_device *device, Polyvisor__VcpuDevice *message)
{
    polyvisor__vcpu_device__init(message);
    message->id = device->id;
    message->kind = (char *)device->kind->kind;
    message->transport_path = device->transport_path;
    message->pci_slot = device->pci_slot;
    message->queue_count = device->queue_count;
}

/* How many doorbells there are in each direction. Virtio has one more call: the change of its
 * configuration. */
static unsigned device_kick_count(const struct machine_device *device)
{
    return device->kind->is_virtio ? device->queue_count : 1;
}

static unsigned device_call_count(const struct machine_device *device)
{
    return device->kind->is_virtio ? device->queue_count + 1 : 1;
}

static int device_open_eventfds(struct machine_device *device)
{
    for (unsigned i = 0; i < device_kick_count(device); i++) {
        device->kick_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (device->kick_fds[i] < 0) {
            return -errno;
        }
    }
    for (unsigned i = 0; i < device_call_count(device); i++) {
        device->call_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (device->call_fds[i] < 0) {
            return -errno;
        }
    }
    if (!device->kind->is_virtio) {
        device->reply_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (device->reply_fd < 0) {
            return -errno;
        }
    }
    return 0;
}

/* The shared state: zeros but for magic and version, which are the first words of both kinds. */
static int device_open_state(struct machine_device *device)
{
    const uint32_t virtio_head[] = {VIRTIO_STATE_MAGIC, VIRTIO_STATE_VERSION};
    const uint32_t mmio_head[] = {MMIO_CHANNEL_MAGIC, MMIO_CHANNEL_VERSION};
    bool is_virtio = device->kind->is_virtio;
    char name[32];

    snprintf(name, sizeof(name), "state-%s", device->id);
    int fd = memory_create_fd(name, is_virtio ? VIRTIO_STATE_SIZE : MMIO_STATE_SIZE);
    if (fd < 0) {
        return fd;
    }
    device->state_fd = fd;
    if (pwrite(fd, is_virtio ? virtio_head : mmio_head, sizeof(mmio_head), 0) !=
        (ssize_t)sizeof(mmio_head)) {
        return -EIO;
    }
    return 0;
}

static int device_open_console(struct machine_device *device)
{
    device->console_fd = console_port_listen(device->console_path);
    device->console_memory_fd = console_port_memory();
    return device->console_fd < 0          ? device->console_fd
           : device->console_memory_fd < 0 ? device->console_memory_fd
                                           : 0;
}

/* What a network card needs of the host. */
static int device_open_net(struct machine_device *device, struct event_base *base,
                           struct error *err)
{
    struct net_setting setting;
    int result = net_setting_parse(device->net, ERROR_CONFIG, &setting, err);

    if (result) {
        return result;
    }
    switch (setting.kind) {
    case NET_USER:
        return network_check_forwards(&setting, err);
    case NET_TAP:
        device->backend_fd = tap_open(setting.ifname, err);
        return device->backend_fd < 0 ? device->backend_fd : 0;
    case NET_LINK:
        device->link = link_create(setting.path, base, err);
        return device->link ? 0 : -(int)err->code;
    }
    return 0;
}

const char *machine_device_model(const struct machine_device *device)
{
    if (device->pulled) {
        return device->kind->pulled;
    }
    return device->kind->model ? device->kind->model : device->kind->kind;
}

const char *machine_device_program(const struct machine_device *device)
{
    return device->disk && disk_is_network(device->disk) && !device->pulled ? "devd-nbd" : "devd";
}

bool machine_device_folder(const struct machine_device *device, char *folder, size_t size)
{
    bool read_only;

    if (device->share) {
        return shared_directory_path(device->share, folder, size, &read_only);
    }
    return device->vsock && !device->pulled && vsock_folder(device->vsock, folder, size);
}

bool machine_device_read_only(const struct machine_device *device)
{
    char folder[PATH_MAX];
    bool read_only = false;

    return device->share &&
           shared_directory_path(device->share, folder, sizeof(folder), &read_only) && read_only;
}

void machine_device_prepare(struct machine_device *device)
{
    device->ready = device->stopping = device->key_pressed = false;
    if (device->link) {
        link_repeat(device->link);
    }
}

int machine_device_open(struct machine_device *device, struct event_base *base,
                        const char *programs, struct error *err)
{
    int result = device_open_state(device);

    result = result ? result : device_open_eventfds(device);
    if (!result && device->kind->has_console) {
        result = device_open_console(device);
    }
    if (result) {
        return error_set(err, ERROR_IO, -result, "cannot set up device '%s': %s", device->id,
                         strerror(-result));
    }
    if (device->ports.count) {
        return console_ports_open(&device->ports, err);
    }
    if (device->disk && disk_is_network(device->disk)) {
        char folder[DEVICE_PATH_MAX];
        snprintf(folder, sizeof(folder), "%.*s",
                 (int)(strrchr(device->control_path, '/') - device->control_path),
                 device->control_path);
        device->peer = peer_create(device->disk->path, programs, folder, base, err);
        return device->peer ? 0 : -(int)err->code;
    }
    if (device->disk) {
        device->backend_fd = storage_open_disk(device->disk, &device->chain, err);
        if (device->backend_fd < 0) {
            return device->backend_fd;
        }
    }
    if (device->share) {
        return shared_directory_open(device->share, &device->share_fds, err);
    }
    if (device->vsock) {
        device->backend_fd = vsock_listen(device->vsock, err);
        return device->backend_fd < 0 ? device->backend_fd : 0;
    }
    return device->net ? device_open_net(device, base, err) : 0;
}

void machine_device_let_go(struct machine_device *device)
{
    descriptor_close(&device->namespace_fd);
}

void machine_device_close_backend(struct machine_device *device)
{
    machine_device_let_go(device);
    if (device->vsock) {
        vsock_close(device->vsock, device->backend_fd);
        device->backend_fd = -1;
    }
    if (device->disk && device->backend_fd >= 0) { /* its process has ended */
        image_unlock(device->backend_fd);
    }
    for (unsigned i = 1; i < device->chain.count; i++) {
        image_unlock(device->chain.layers[i].fd);
    }
    disk_chain_close(&device->chain);
    descriptor_close(&device->backend_fd);
    shared_directory_close(&device->share_fds);
    link_destroy(device->link);
    device->link = NULL;
    peer_destroy(device->peer);
    device->peer = NULL;
}

void machine_device_close(struct machine_device *device)
{
    machine_device_close_backend(device);
    descriptor_close(&device->state_fd);
    descriptor_close(&device->reply_fd);
    descriptor_close(&device->console_memory_fd);
    for (unsigned i = 0; i < DEVICE_QUEUES_MAX; i++) {
        descriptor_close(&device->kick_fds[i]);
    }
    for (unsigned i = 0; i < DEVICE_QUEUES_MAX + 1; i++) {
        descriptor_close(&device->call_fds[i]);
    }
    if (device->console_fd >= 0) {
        unlink(device->console_path);
        descriptor_close(&device->console_fd);
    }
    console_ports_close(&device->ports);
}

/* Nobody waits for a register of a device that stays dead. */
static void show_given_up(const struct machine_device *device, bool failed)
{
    const uint32_t given_up = failed;

    if (pwrite(device->state_fd, &given_up, sizeof(given_up),
               offsetof(struct mmio_channel, given_up)) != sizeof(given_up)) {
        log_warning("%s: its state cannot be written: %s", device->id, strerror(errno));
    }
}

void machine_device_show_failed(const struct machine_device *device, bool failed)
{
    if (!device->kind->is_virtio) {
        show_given_up(device, failed);
        return;
    }
    const off_t at = offsetof(struct virtio_state, needs_reset);
    const uint64_t one = 1;
    uint32_t value, wanted = failed ? VIRTIO_RESET_DEVICE_FAILED : VIRTIO_RESET_NOT_NEEDED;

    /* A rule that the driver broke stays broken. */
    if (pread(device->state_fd, &value, sizeof(value), at) != sizeof(value) ||
        value == VIRTIO_RESET_RULE_BROKEN || value == wanted) {
        return;
    }
    if (pwrite(device->state_fd, &wanted, sizeof(wanted), at) == sizeof(wanted) && failed &&
        write(device->call_fds[device->queue_count], &one, sizeof(one)) < 0) {
        log_warning("%s: cannot interrupt: %s", device->id, strerror(errno));
    }
}

bool machine_device_kick_waits(const struct machine_device *device)
{
    struct pollfd kicks[DEVICE_QUEUES_MAX];
    unsigned count = device_kick_count(device);

    for (unsigned i = 0; i < count; i++) {
        kicks[i] = (struct pollfd){.fd = device->kick_fds[i], .events = POLLIN};
    }
    return poll(kicks, count, 0) > 0;
}

/* One descriptor under `prefix` and `name`, where there is one. */
static int device_list_fd(struct fdlist *list, int fd, const char *prefix, const char *name)
{
    return fd < 0 ? 0 : fdlist_add(list, fd, "%s%s", prefix, name);
}

static int device_list_shared(const struct machine_device *device, struct fdlist *list,
                              const char *prefix)
{
    int result = device_list_fd(list, device->state_fd, prefix, "state");

    for (unsigned i = 0; i < device_kick_count(device) && !result; i++) {
        result = fdlist_add(list, device->kick_fds[i], "%skick.%u", prefix, i);
    }
    for (unsigned i = 0; i < device_call_count(device) && !result; i++) {
        result = fdlist_add(list, device->call_fds[i], "%scall.%u", prefix, i);
    }
    return result ? result : device_list_fd(list, device->reply_fd, prefix, "reply");
}

int machine_device_list_own(const struct machine_device *device, struct fdlist *list)
{
    int result = device_list_shared(device, list, "");
    int backend = device->link   ? link_device_fd(device->link)
                  : device->peer ? peer_device_fd(device->peer)
                                 : device->backend_fd;

    result = result ? result : device_list_fd(list, backend, "", "backend");
    for (unsigned i = 1; i < device->chain.count && !result; i++) {
        result = fdlist_add(list, device->chain.layers[i].fd, "backing.%u", i - 1);
    }
    result = result ? result : device_list_fd(list, device->console_fd, "", "console");
    result =
        result ? result : device_list_fd(list, device->console_memory_fd, "", "console-memory");
    result = result ? result : console_ports_list(&device->ports, list);
    result = result ? result : device_list_fd(list, device->share_fds.directory, "", "backend");
    result = result ? result : device_list_fd(list, device->share_fds.state, "", "share-state");
    result = result ? result : device_list_fd(list, device->share_fds.keep_in, "", "keep-in");
    return result ? result : device_list_fd(list, device->share_fds.keep_out, "", "keep-out");
}

int machine_device_list_vcpu(const struct machine_device *device, struct fdlist *list)
{
    char prefix[32];

    snprintf(prefix, sizeof(prefix), "dev.%s.", device->id);
    return device_list_shared(device, list, prefix);
}
