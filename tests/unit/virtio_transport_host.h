/*
 * A virtio device as the guest sees it on PCI, for tests: the machine around it, the registers, and
 * a device process played by a thread.
 */
#ifndef POLYVISOR_TESTS_VIRTIO_TRANSPORT_HOST_H
#define POLYVISOR_TESTS_VIRTIO_TRANSPORT_HOST_H

#include "libshared/ipc/channel.h"
#include "proto/transport.pb-c.h"
#include "vmmd/machine_device.h"
#include "vmmd/vcpu/pci/virtio_pci.h"
#include <check.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define ECAM     UINT64_C(0x30000000)
#define MMIO     UINT64_C(0x40000000)
#define RAM      UINT64_C(0x80000000)
#define RAM_SIZE 0x100000u
#define SLOT     3u
#define COMMON   MMIO
#define ISR      (MMIO + 0x1000)
#define DEVICE   (MMIO + 0x2000)
#define NOTIFY   (MMIO + 0x3000)
#define FEATURES (UINT64_C(1) << VIRTIO_F_VERSION_1 | 0x30)

#define STATUS_READY                                                                               \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)

/* --- the device process ---------------------------------------------------------------------- */

enum peer_mode { PEER_ANSWERS, PEER_REFUSES, PEER_IS_MUTE, PEER_FLOODS_WRONG_IDS };

struct peer {
    pthread_t thread;
    struct channel *channel;
    _Atomic int mode;
    _Atomic bool stop;
    _Atomic unsigned activations, resets, writes;
    _Atomic unsigned queue_resets, queue_enables;
    uint32_t queue;
    uint32_t write_offset;
    uint8_t write_data[8];
    size_t write_length;
};

static inline void peer_answer(struct peer *peer, uint64_t id)
{
    Polyvisor__TransportReply reply = POLYVISOR__TRANSPORT_REPLY__INIT;
    int mode = atomic_load(&peer->mode);
    reply.id = id;
    if (mode == PEER_REFUSES) {
        reply.status = -EIO;
    }
    if (mode == PEER_FLOODS_WRONG_IDS) {
        for (unsigned i = 0; i < 200; i++) {
            reply.id = id + 1 + i;
            channel_send(peer->channel, &reply.base, 100);
        }
    } else if (mode != PEER_IS_MUTE) {
        channel_send(peer->channel, &reply.base, 1000);
    }
}

static inline void peer_handle(struct peer *peer, const Polyvisor__TransportRequest *request)
{
    switch (request->body_case) {
    case POLYVISOR__TRANSPORT_REQUEST__BODY_ACTIVATE:
        atomic_fetch_add(&peer->activations, 1);
        break;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_RESET:
        atomic_fetch_add(&peer->resets, 1);
        break;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_CONFIG_WRITE:
        peer->write_offset = request->config_write->offset;
        peer->write_length = request->config_write->data.len;
        memcpy(peer->write_data, request->config_write->data.data,
               peer->write_length < 8 ? peer->write_length : 8);
        atomic_fetch_add(&peer->writes, 1);
        break;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_QUEUE_RESET:
        peer->queue = request->queue_reset->queue;
        atomic_fetch_add(&peer->queue_resets, 1);
        break;
    case POLYVISOR__TRANSPORT_REQUEST__BODY_QUEUE_ENABLE:
        peer->queue = request->queue_enable->queue;
        atomic_fetch_add(&peer->queue_enables, 1);
        break;
    default:
        break;
    }
    peer_answer(peer, request->id);
}

static inline void *peer_main(void *argument)
{
    struct peer *peer = argument;
    while (!atomic_load(&peer->stop)) {
        ProtobufCMessage *message = NULL;
        if (channel_receive(peer->channel, &polyvisor__transport_request__descriptor, &message,
                            10) == 0) {
            peer_handle(peer, (const Polyvisor__TransportRequest *)message);
            protobuf_c_message_free_unpacked(message, NULL);
        }
    }
    return NULL;
}

/* --- the machine ----------------------------------------------------------------------------- */

static char directory[32];
static char path[64];
static struct machine_pci windows;
static struct bus *bus;
static struct pci_host *host;
static struct memory memory;
static struct virtio_state *state;
static struct transport_client *client;
static struct virtio_pci *device;
static struct peer peer;
static int kicks[2];
static bool line_level;
static unsigned timeouts;
static void (*on_message)(void *controller, uint64_t address,
                          uint32_t data); /* NULL: no messages */

static inline void line_set(void *controller, unsigned number, bool level)
{
    (void)controller;
    (void)number;
    line_level = level;
}

static inline void device_timed_out(void *context)
{
    (void)context;
    timeouts++;
}

static inline void peer_start(enum peer_mode mode)
{
    atomic_store(&peer.mode, mode);
    atomic_store(&peer.stop, false);
    peer.channel = channel_connect(CHANNEL_TRANSPORT, NN_PAIR, path);
    ck_assert_ptr_nonnull(peer.channel);
    ck_assert_int_eq(pthread_create(&peer.thread, NULL, peer_main, &peer), 0);
}

static inline void peer_stop(void)
{
    if (peer.channel) {
        atomic_store(&peer.stop, true);
        pthread_join(peer.thread, NULL);
        channel_close(peer.channel);
        peer.channel = NULL;
    }
}

static inline void fill_state(void)
{
    state->magic = VIRTIO_STATE_MAGIC;
    state->version = VIRTIO_STATE_VERSION;
    state->device_id = 2;
    state->queue_count = 2;
    state->device_features = FEATURES;
    state->config_length = 12;
    for (unsigned i = 0; i < 12; i++) {
        state->config[i] = (uint8_t)(0xa0 + i);
    }
    state->queues[0].size_max = 128;
    state->queues[1].size_max = 100; /* not a power of two: becomes 64 */
}

static inline void make_memory(void)
{
    memset(&memory, 0, sizeof(memory));
    memory.region_count = 1;
    memory.regions[0].base = RAM;
    memory.regions[0].size = RAM_SIZE;
    memory.regions[0].host =
        mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory.regions[0].host, MAP_FAILED);
}

static inline void make_windows(void)
{
    windows = (struct machine_pci){
        .ecam_base = ECAM,
        .ecam_size = 0x10000000,
        .mmio_base = MMIO,
        .mmio_size = 0x1000000,
        .msi = {.notify = on_message},
    };
    for (unsigned i = 0; i < 4; i++) {
        windows.intx[i] = (struct irq_line){.set = line_set, .number = i};
    }
}

static inline void write_config(unsigned offset, unsigned size, uint64_t value)
{
    ck_assert(bus_write(bus, ECAM + (SLOT << 15) + offset, size, value));
}

static inline uint64_t read_config(unsigned offset, unsigned size)
{
    uint64_t value = 0;
    ck_assert(bus_read(bus, ECAM + (SLOT << 15) + offset, size, &value));
    return value;
}

static inline void map_bar(void)
{
    write_config(PCI_BASE_ADDRESS_4, 4, MMIO);
    write_config(PCI_BASE_ADDRESS_5, 4, MMIO >> 32);
    write_config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* Long where an answer is expected, so that a busy host changes nothing. */
static inline void setup_with_deadline(unsigned deadline_ms)
{
    struct error err = {0};
    snprintf(directory, sizeof(directory), "/tmp/test-virtio-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/t.sock", directory);
    make_windows();
    make_memory();
    state = calloc(1, VIRTIO_STATE_SIZE);
    fill_state();
    bus = bus_create();
    host = pci_host_create(bus, &windows, &err);
    ck_assert_ptr_nonnull(host);
    client = transport_client_create(path, deadline_ms, &err);
    ck_assert_ptr_nonnull(client);
    struct virtio_pci_config config = {
        .name = "disk0",
        .kind = "virtio-blk",
        .slot = SLOT,
        .queue_count = 2,
        .state = state,
        .memory = &memory,
        .client = client,
        .unresponsive = device_timed_out,
    };
    for (unsigned i = 0; i < 2; i++) {
        config.kick[i] = kicks[i] = eventfd(0, EFD_NONBLOCK);
    }
    device = virtio_pci_create(host, &config, &err);
    ck_assert_msg(device != NULL, "%s", err.message);
    line_level = false;
    timeouts = 0;
    map_bar();
}

static inline void setup(void)
{
    setup_with_deadline(20000);
}

/* Longer than the test may take: nobody waits that long. */
static inline void setup_patient(void)
{
    setup_with_deadline(600000);
}

static inline void setup_impatient(void)
{
    setup_with_deadline(500);
}

static inline void teardown(void)
{
    peer_stop();
    pci_host_destroy(host);
    virtio_pci_destroy(device);
    transport_client_destroy(client);
    bus_destroy(bus);
    munmap(memory.regions[0].host, RAM_SIZE);
    free(state);
    close(kicks[0]);
    close(kicks[1]);
    unlink(path);
    rmdir(directory);
}

static inline uint64_t load(uint64_t address, unsigned size)
{
    uint64_t value = 0;
    ck_assert(bus_read(bus, address, size, &value));
    return value;
}

static inline void store(uint64_t address, unsigned size, uint64_t value)
{
    ck_assert(bus_write(bus, address, size, value));
}

static inline uint64_t status(void)
{
    return load(COMMON + VIRTIO_PCI_COMMON_STATUS, 1);
}

static inline void set_status(uint64_t value)
{
    store(COMMON + VIRTIO_PCI_COMMON_STATUS, 1, value);
}

static inline void accept_features(uint64_t features)
{
    store(COMMON + VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    store(COMMON + VIRTIO_PCI_COMMON_GF, 4, (uint32_t)features);
    store(COMMON + VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    store(COMMON + VIRTIO_PCI_COMMON_GF, 4, features >> 32);
}

static inline void set_queue(unsigned queue, unsigned size, uint64_t descriptors, uint64_t driver,
                             uint64_t device_area)
{
    store(COMMON + VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
    store(COMMON + VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    store(COMMON + VIRTIO_PCI_COMMON_Q_DESCLO, 4, (uint32_t)descriptors);
    store(COMMON + VIRTIO_PCI_COMMON_Q_DESCHI, 4, descriptors >> 32);
    store(COMMON + VIRTIO_PCI_COMMON_Q_AVAILLO, 8, driver);
    store(COMMON + VIRTIO_PCI_COMMON_Q_USEDLO, 4, (uint32_t)device_area);
    store(COMMON + VIRTIO_PCI_COMMON_Q_USEDHI, 4, device_area >> 32);
    store(COMMON + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

/* As a driver starts the device, with queue 0. */
static inline void start_driver(void)
{
    set_status(0);
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    accept_features(FEATURES);
    set_status(STATUS_READY);
    ck_assert_uint_eq(status(), STATUS_READY);
    set_queue(0, 64, RAM, RAM + 0x1000, RAM + 0x2000);
    set_status(STATUS_READY | VIRTIO_CONFIG_S_DRIVER_OK);
}

static inline unsigned take(int fd)
{
    uint64_t value = 0;
    return read(fd, &value, sizeof(value)) == sizeof(value) ? (unsigned)value : 0;
}

#endif
