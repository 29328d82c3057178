/*
 * What vmmd and vcpud are to a device, for the tests of devices: doorbells, shared state, an event
 * loop. The device runs in the test's own process unless the test forks.
 */
#ifndef POLYVISOR_TESTS_UNIT_DEVICE_HOST_H
#define POLYVISOR_TESTS_UNIT_DEVICE_HOST_H

#include "devd/device.h"
#include "devd/virtio.h"
#include "libshared/ipc/console.h"
#include "libshared/mmio/channel.h"
#include "tests/unit/virtio_driver.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

struct device_host {
    struct driver driver;
    struct event_base *base;
    struct device *device;
    int kick[VIRTIO_QUEUES_MAX], call[VIRTIO_QUEUES_MAX + 1], reply, mmio_state, backend, listener;
    int console_memory;
    struct mmio_channel *channel;
    char console_path[64];
    struct device_disk disk;        /* settings of disks */
    char *port_settings[PORTS_MAX]; /* of further console ports, with sockets of the test's */
    unsigned port_count;
    struct device_port ports[PORTS_MAX];
    unsigned kicks;    /* queues that the device gets doorbells for; 0: as many as there can be */
    uint64_t sequence; /* of the last read of a register */
};

/* What vmmd makes for a console. */
static inline int host_console_memory(void)
{
    const uint32_t head[] = {CONSOLE_MEMORY_MAGIC, CONSOLE_MEMORY_VERSION};
    int fd = memory_create_fd("console", CONSOLE_MEMORY_SIZE);
    ck_assert_int_eq(pwrite(fd, head, sizeof(head), 0), sizeof(head));
    return fd;
}

static inline void host_open(struct device_host *host)
{
    memset(host, 0, sizeof(*host));
    driver_open(&host->driver);
    host->base = event_base_new();
    host->backend = host->listener = -1;
    memset(host->ports, -1, sizeof(host->ports));
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        host->kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX + 1; i++) {
        host->call[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    host->reply = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    host->mmio_state = memory_create_fd("mmio", MMIO_STATE_SIZE);
    host->channel =
        mmap(NULL, MMIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, host->mmio_state, 0);
    ck_assert_ptr_ne(host->channel, MAP_FAILED);
    host->channel->magic = MMIO_CHANNEL_MAGIC;
    host->channel->version = MMIO_CHANNEL_VERSION;
    host->console_memory = host_console_memory();
}

static inline void host_close(struct device_host *host)
{
    device_destroy(host->device);
    event_base_free(host->base);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        close(host->kick[i]);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX + 1; i++) {
        close(host->call[i]);
    }
    close(host->reply);
    munmap(host->channel, MMIO_STATE_SIZE);
    close(host->mmio_state);
    close(host->console_memory);
    if (host->backend >= 0) {
        close(host->backend);
    }
    if (host->listener >= 0) {
        close(host->listener);
        unlink(host->console_path);
    }
    driver_close(&host->driver);
}

/* A listening socket for a device with a console. */
static inline void host_listen(struct device_host *host)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(host->console_path, sizeof(host->console_path), "/tmp/polyvisor-test-%d.sock",
             (int)getpid());
    unlink(host->console_path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", host->console_path);
    host->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(host->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(host->listener, 16), 0);
}

/* A client of that console; -1 as flags: without a greeting. */
static inline int host_attach(struct device_host *host, int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct console_hello hello = {.magic = CONSOLE_MAGIC, .flags = (uint32_t)flags};
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", host->console_path);
    ck_assert_int_eq(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    fcntl(client, F_SETFL, O_NONBLOCK);
    if (flags >= 0) {
        ck_assert_int_eq(write(client, &hello, sizeof(hello)), sizeof(hello));
    }
    return client;
}

static inline struct device *host_try_start(struct device_host *host,
                                            const struct device_model *model,
                                            const struct device_settings *settings,
                                            struct error *err)
{
    struct device_descriptors descriptors;

    device_descriptors_clear(&descriptors);
    descriptors.state =
        fcntl(model->device_class == DEVICE_MMIO ? host->mmio_state : host->driver.state_fd,
              F_DUPFD_CLOEXEC, 0);
    for (unsigned i = 0; i < (host->kicks ? host->kicks : VIRTIO_QUEUES_MAX); i++) {
        descriptors.kick[i] = fcntl(host->kick[i], F_DUPFD_CLOEXEC, 0);
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX + 1; i++) {
        descriptors.call[i] = fcntl(host->call[i], F_DUPFD_CLOEXEC, 0);
    }
    descriptors.reply = fcntl(host->reply, F_DUPFD_CLOEXEC, 0);
    descriptors.backend = host->backend < 0 ? -1 : fcntl(host->backend, F_DUPFD_CLOEXEC, 0);
    descriptors.console = host->listener < 0 ? -1 : fcntl(host->listener, F_DUPFD_CLOEXEC, 0);
    descriptors.console_memory = fcntl(host->console_memory, F_DUPFD_CLOEXEC, 0);
    for (unsigned i = 0; i < host->port_count; i++) {
        const struct device_port *port = &host->ports[i];
        descriptors.ports[i] =
            (struct device_port){fcntl(port->listener, F_DUPFD_CLOEXEC, 0),
                                 port->plain < 0 ? -1 : fcntl(port->plain, F_DUPFD_CLOEXEC, 0),
                                 fcntl(port->memory, F_DUPFD_CLOEXEC, 0)};
    }
    error_clear(err);
    host->device =
        device_create(model, settings, &host->driver.memory, host->base, &descriptors, err);
    return host->device;
}

static inline void host_start(struct device_host *host, const struct device_model *model,
                              bool restart)
{
    struct device_settings settings = {.id = "test0",
                                       .serial = "serial",
                                       .restart = restart,
                                       .disk = host->disk,
                                       .ports = host->port_settings,
                                       .port_count = host->port_count};
    struct error err;

    ck_assert_msg(host_try_start(host, model, &settings, &err) != NULL, "%s", err.message);
}

/* The guest accepts `features` of what is offered and starts the device. */
static inline void host_activate(struct device_host *host, uint64_t features)
{
    struct virtio_state *state = host->driver.state;

    features |= VIRTQUEUE_FEATURE_VERSION_1 | driver_features(&host->driver);
    if (!host->driver.packed) {
        features &= ~VIRTQUEUE_FEATURE_PACKED;
    }
    state->driver_features = state->device_features & features;
    atomic_store(&state->status, DRIVER_OK_STATUS);
    ck_assert_int_eq(virtio_device_activate(host->device), 0);
}

static inline void host_kick(struct device_host *host, unsigned queue)
{
    ck_assert_int_eq(eventfd_write(host->kick[queue], 1), 0);
}

/* An access to a register, as vcpud puts it into the channel; the device is not woken for it. */
static inline void host_post(struct device_host *host, uint32_t offset, uint64_t value,
                             unsigned size, bool is_read)
{
    uint32_t head = atomic_load(&host->channel->head);

    ck_assert_uint_lt(head - atomic_load(&host->channel->tail), MMIO_CHANNEL_RING);
    host->channel->ring[head % MMIO_CHANNEL_RING] =
        (struct mmio_access){.offset = offset,
                             .size = (uint8_t)size,
                             .is_read = is_read,
                             .value = value,
                             .sequence = is_read ? ++host->sequence : 0};
    atomic_store(&host->channel->head, head + 1);
}

/* True when the interrupt was raised since the last look. */
static inline bool host_called(struct device_host *host, unsigned queue)
{
    eventfd_t count;
    return eventfd_read(host->call[queue], &count) == 0;
}

/* Whatever the device can do without waiting. */
static inline void host_turn(struct device_host *host)
{
    for (unsigned i = 0; i < 8; i++) {
        event_base_loop(host->base, EVLOOP_NONBLOCK);
    }
}

/* Run everything with split rings, then again with packed ones: no device may know which it has.
 * What the second run says counts both. */
static inline int host_report_rings(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_SILENT);
    driver_packed = true;
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
