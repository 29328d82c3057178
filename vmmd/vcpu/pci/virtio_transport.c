/* Virtual I/O Device (VIRTIO) 1.2: 2.1 status, 2.2 features, 3.1 initialisation, 4.1.4.3 registers.
 */
#include "vmmd/vcpu/pci/virtio_transport.h"
#include "libshared/base/log.h"
#include "vmmd/vcpu/device/doorbell.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <limits.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <sched.h>
#include <string.h>

#define NO_VECTOR 0xffffu

/* Status bits that a driver may set (2.1). */
#define STATUS_DRIVER_BITS                                                                         \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |          \
     VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

/* Bits 0 to 23 and from 50 on are the device's own. Of the ring and transport features between, a
 * device may offer these; what the transport does not do is taken out. */
#define FEATURES_DEVICE UINT64_C(0xfffc000000ffffff)
#define FEATURES_COMMON                                                                            \
    (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC | UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX |         \
     UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_F_RING_PACKED |                     \
     UINT64_C(1) << VIRTIO_F_RING_RESET)

/* How often a reader looks again while the device is in the middle of a configuration change. */
#define CONFIG_READ_TRIES 1000

enum queue_area { AREA_DESCRIPTORS, AREA_DRIVER, AREA_DEVICE };

/* 2.7, 2.8.10: bytes and alignment of each part of a virtqueue of `size` entries. */
struct area_layout {
    uint64_t fixed, each, alignment;
};
static const struct area_layout SPLIT_AREAS[3] = {
    [AREA_DESCRIPTORS] = {0, 16, 16},
    [AREA_DRIVER] = {6, 2, 2},
    [AREA_DEVICE] = {6, 8, 4},
};
static const struct area_layout PACKED_AREAS[3] = {
    [AREA_DESCRIPTORS] = {0, 16, 16},
    [AREA_DRIVER] = {4, 0, 4},
    [AREA_DEVICE] = {4, 0, 4},
};

/* --- life ------------------------------------------------------------------------------------ */

/* As when it was never set up. */
static void forget_queue(struct virtio_transport_queue *queue)
{
    queue->size = 0;
    queue->enabled = queue->resetting = queue->was_reset = false;
    memset(queue->areas, 0, sizeof(queue->areas));
    atomic_store(&queue->vector, NO_VECTOR);
}

static void forget_guest_setup(struct virtio_transport *transport)
{
    transport->device_feature_select = 0;
    transport->driver_feature_select = 0;
    transport->driver_features = 0;
    transport->queue_select = 0;
    atomic_store(&transport->config_vector, NO_VECTOR);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        forget_queue(&transport->queues[i]);
    }
}

int virtio_transport_init(struct virtio_transport *transport,
                          const struct virtio_transport_config *config)
{
    if (config->queue_count < 1 || config->queue_count > VIRTIO_QUEUES_MAX ||
        config->state->magic != VIRTIO_STATE_MAGIC ||
        config->state->version != VIRTIO_STATE_VERSION) {
        return -EINVAL;
    }
    memset(transport, 0, sizeof(*transport));
    transport->config = *config;
    forget_guest_setup(transport);
    int result = pthread_mutex_init(&transport->lock, NULL);
    return -result;
}

void virtio_transport_destroy(struct virtio_transport *transport)
{
    pthread_mutex_destroy(&transport->lock);
}

/* --- what the device offers ------------------------------------------------------------------ */

static uint64_t offered_features(const struct virtio_transport *transport)
{
    uint64_t features = *(volatile const uint64_t *)&transport->config.state->device_features;
    return features & (FEATURES_DEVICE | FEATURES_COMMON);
}

/* Queues that both the configuration and the device know of. */
static unsigned usable_queues(const struct virtio_transport *transport)
{
    uint32_t count = *(volatile const uint32_t *)&transport->config.state->queue_count;
    return count < transport->config.queue_count ? count : transport->config.queue_count;
}

/* The device's limit, made a power of two. 0: there is no such queue. */
static uint16_t queue_size_max(const struct virtio_transport *transport, unsigned index)
{
    if (index >= usable_queues(transport)) {
        return 0;
    }
    const struct virtio_queue_state *shared = &transport->config.state->queues[index];
    uint16_t limit = *(volatile const uint16_t *)&shared->size_max;
    uint16_t size = VIRTIO_QUEUE_SIZE_MAX;
    while (size > limit) {
        size /= 2;
    }
    return size;
}

static uint16_t queue_size(const struct virtio_transport *transport, unsigned index)
{
    uint16_t chosen = transport->queues[index].size;
    return chosen ? chosen : queue_size_max(transport, index);
}

/* --- status machine -------------------------------------------------------------------------- */

/* Make the status visible to guest and device. */
static void publish_status(struct virtio_transport *transport, uint32_t status)
{
    atomic_store(&transport->status, status);
    atomic_store(&transport->config.state->status, status);
}

static void need_reset(struct virtio_transport *transport)
{
    publish_status(transport, atomic_load(&transport->status) | VIRTIO_CONFIG_S_NEEDS_RESET);
    transport->config.config_changed(transport->config.owner);
}

/* Look at the outcome of a request to the device. */
static int request_done(struct virtio_transport *transport, const char *what, int result)
{
    if (result == -ECANCELED) { /* the machine ends or is reset, or the device was given up */
        log_debug("%s: %s was not waited for", transport->config.name, what);
    } else if (result == -ETIMEDOUT) {
        log_warning("%s: no answer to %s in time", transport->config.name, what);
        transport->config.unresponsive(transport->config.owner);
    } else if (result != 0) {
        log_warning("%s: %s failed: %s", transport->config.name, what, strerror(-result));
    }
    return result;
}

static void finish_reset(struct virtio_transport *transport)
{
    struct virtio_state *state = transport->config.state;
    state->driver_features = 0;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        atomic_store(&state->queues[i].enabled, 0);
    }
    transport->reset_pending = false;
    transport->device_touched = false;
}

/* No answer came; the request may still be in the device's hands. */
static bool unanswered(int result)
{
    return result == -ETIMEDOUT || result == -ECANCELED;
}

/* Status first, so that a device which is just being restarted does not go on with old queues. */
static void forget_driver(struct virtio_transport *transport)
{
    transport->config.set_live(transport->config.owner, false);
    publish_status(transport, 0);
    forget_guest_setup(transport);
}

/* By the driver. The status reads as zero again only once the device lets go of guest memory
 * (2.4.1). */
static void reset(struct virtio_transport *transport)
{
    forget_driver(transport);
    if (!transport->device_touched) {
        return;
    }
    int result =
        request_done(transport, "reset",
                     transport_client_reset(transport->config.client, TUNABLE_TRANSPORT_RESET_MS));
    transport->reset_pending = unanswered(result);
    if (!transport->reset_pending) {
        finish_reset(transport);
    }
}

static bool features_acceptable(const struct virtio_transport *transport)
{
    uint64_t features = transport->driver_features;
    return (features & ~offered_features(transport)) == 0 &&
           (features >> VIRTIO_F_VERSION_1 & 1) != 0;
}

static bool uses_packed_rings(const struct virtio_transport *transport)
{
    return transport->driver_features >> VIRTIO_F_RING_PACKED & 1;
}

/* Only a packed ring may have a size that is no power of two. */
static bool size_acceptable(const struct virtio_transport *transport, unsigned index, uint32_t size)
{
    return size != 0 && size <= queue_size_max(transport, index) &&
           ((size & (size - 1)) == 0 || uses_packed_rings(transport));
}

static bool queue_acceptable(const struct virtio_transport *transport, unsigned index)
{
    const struct virtio_transport_queue *queue = &transport->queues[index];
    const struct area_layout *layout = uses_packed_rings(transport) ? PACKED_AREAS : SPLIT_AREAS;
    uint16_t size = queue_size(transport, index);
    if (!size_acceptable(transport, index, size)) {
        return false;
    }
    for (unsigned area = 0; area < 3; area++) {
        uint64_t bytes = layout[area].fixed + layout[area].each * size;
        uint64_t address = queue->areas[area];
        if (address % layout[area].alignment != 0 ||
            !memory_pointer(transport->config.memory, address, bytes)) {
            return false;
        }
    }
    return true;
}

/* Hand a queue to the device, or take it away; `enabled` last. */
static void publish_queue(struct virtio_transport *transport, unsigned index, bool enabled)
{
    const struct virtio_transport_queue *queue = &transport->queues[index];
    struct virtio_queue_state *shared = &transport->config.state->queues[index];

    if (!enabled) {
        atomic_store(&shared->enabled, 0);
    }
    shared->descriptors = queue->areas[AREA_DESCRIPTORS];
    shared->driver_area = queue->areas[AREA_DRIVER];
    shared->device_area = queue->areas[AREA_DEVICE];
    shared->size = enabled ? queue_size(transport, index) : 0;
    shared->msix_vector = atomic_load(&queue->vector);
    if (enabled) {
        atomic_store(&shared->enabled, 1);
    }
}

/* Check the guest's set-up and hand it to the device through the shared state. */
static bool publish_queues(struct virtio_transport *transport)
{
    unsigned count = usable_queues(transport);
    for (unsigned i = 0; i < count; i++) {
        if (transport->queues[i].enabled && !queue_acceptable(transport, i)) {
            log_debug("%s: the guest's queue %u is malformed", transport->config.name, i);
            return false;
        }
    }
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        publish_queue(transport, i, i < count && transport->queues[i].enabled);
    }
    transport->config.state->driver_features = transport->driver_features;
    return true;
}

static void activate(struct virtio_transport *transport, uint32_t status)
{
    uint32_t device_type = *(volatile const uint32_t *)&transport->config.state->device_id;
    if (device_type != transport->config.device_type || !publish_queues(transport)) {
        status &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
        publish_status(transport, status | VIRTIO_CONFIG_S_NEEDS_RESET);
        return;
    }
    /* Live before the device runs: its first interrupt may come before its answer. */
    publish_status(transport, status);
    transport->config.set_live(transport->config.owner, true);
    transport->device_touched = true;
    if (request_done(transport, "activate", transport_client_activate(transport->config.client)) !=
        0) {
        need_reset(transport);
    }
}

static void write_status(struct virtio_transport *transport, uint32_t value)
{
    uint32_t status = atomic_load(&transport->status);
    if (value == 0) {
        reset(transport);
        return;
    }
    if (transport->reset_pending || atomic_load(&transport->unplugged)) {
        return;
    }
    uint32_t added = value & STATUS_DRIVER_BITS & ~status;
    if ((added & VIRTIO_CONFIG_S_FEATURES_OK) && !features_acceptable(transport)) {
        added &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
    }
    status |= added;
    if (!(status & VIRTIO_CONFIG_S_FEATURES_OK)) {
        status &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
        added &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
    }
    if (added & VIRTIO_CONFIG_S_DRIVER_OK) {
        activate(transport, status);
    } else {
        publish_status(transport, status);
    }
}

/* --- reset of single queues (2.6.1) ---------------------------------------------------------- */

/* Nobody uses any queue that was taken away. */
static void finish_queue_resets(struct virtio_transport *transport)
{
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        transport->queues[i].resetting = false;
    }
}

/* The device has lost the queue already when it fails: then it can only be reset as a whole. */
static void reset_queue(struct virtio_transport *transport, unsigned index)
{
    struct virtio_transport_queue *queue = &transport->queues[index];

    forget_queue(queue);
    publish_queue(transport, index, false);
    queue->was_reset = true;
    int result = request_done(transport, "queue reset",
                              transport_client_queue_reset(transport->config.client, index));
    queue->resetting = unanswered(result);
    if (result != 0 && !queue->resetting) {
        need_reset(transport);
    }
}

/* Whether the selected queue's reset goes on. Asks again: a device that was replaced does not know
 * of it, one that was busy may have finished. */
static bool queue_resetting(struct virtio_transport *transport)
{
    unsigned index = transport->queue_select;

    if (index >= usable_queues(transport) || !transport->queues[index].resetting) {
        return false;
    }
    int result = transport_client_queue_reset(transport->config.client, index);
    transport->queues[index].resetting = unanswered(result);
    return transport->queues[index].resetting;
}

/* Hand a queue that was reset to the running device again. */
static void enable_queue(struct virtio_transport *transport, unsigned index)
{
    if (!queue_acceptable(transport, index)) {
        log_debug("%s: the guest's queue %u is malformed", transport->config.name, index);
        need_reset(transport);
        return;
    }
    publish_queue(transport, index, true);
    if (request_done(transport, "queue enable",
                     transport_client_queue_enable(transport->config.client, index)) != 0) {
        need_reset(transport);
    }
}

/* Look whether the device has confirmed its reset by now. */
static bool still_pending(struct virtio_transport *transport)
{
    if (transport->reset_pending && transport_client_reset_poll(transport->config.client) == 0) {
        finish_reset(transport);
    }
    return transport->reset_pending;
}

static uint32_t read_status(struct virtio_transport *transport)
{
    if (still_pending(transport)) {
        return VIRTIO_CONFIG_S_NEEDS_RESET;
    }
    uint32_t status = atomic_load(&transport->status);
    if ((status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        atomic_load(&transport->config.state->needs_reset) != 0) {
        status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    }
    return status;
}

/* Under the lock: a reset whose end is looked for later. */
static void reset_begin(struct virtio_transport *transport)
{
    forget_driver(transport);
    if (transport->device_touched) {
        transport_client_reset_begin(transport->config.client);
        transport->reset_pending = true;
    }
}

void virtio_transport_reset(struct virtio_transport *transport)
{
    pthread_mutex_lock(&transport->lock);
    reset_begin(transport);
    pthread_mutex_unlock(&transport->lock);
}

bool virtio_transport_reset_pending(struct virtio_transport *transport)
{
    pthread_mutex_lock(&transport->lock);
    bool pending = still_pending(transport);
    pthread_mutex_unlock(&transport->lock);
    return pending;
}

void virtio_transport_device_gone(struct virtio_transport *transport)
{
    /* Whom a CPU is just asking is a later process, which will answer. */
    if (pthread_mutex_trylock(&transport->lock) != 0) {
        return;
    }
    if (transport->reset_pending) {
        finish_reset(transport);
    }
    finish_queue_resets(transport);
    pthread_mutex_unlock(&transport->lock);
}

/* Linux acknowledges a device again after its driver has let go of it (2.1). */
static bool has_driver(const struct virtio_transport *transport)
{
    return atomic_load(&transport->status) & ~(uint32_t)VIRTIO_CONFIG_S_ACKNOWLEDGE;
}

bool virtio_transport_unplug(struct virtio_transport *transport,
                             const struct virtio_transport_unplug *how,
                             const struct timespec *until)
{
    if (how->force) {
        atomic_store(&transport->unplugged, true);
    }
    if (pthread_mutex_clocklock(&transport->lock, CLOCK_MONOTONIC, until) != 0) {
        return false;
    }
    if (how->out_of_reach && has_driver(transport)) {
        reset_begin(transport); /* as the driver should have, and cannot any more */
    }
    bool idle = how->let_go && !still_pending(transport) && !has_driver(transport);
    if (idle) {
        atomic_store(&transport->unplugged, true);
    }
    pthread_mutex_unlock(&transport->lock);
    return idle;
}

int virtio_transport_reactivate(struct virtio_transport *transport)
{
    pthread_mutex_lock(&transport->lock);
    finish_queue_resets(transport);
    uint32_t status = atomic_load(&transport->status);
    int result = 0;
    if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        result = request_done(transport, "activate",
                              transport_client_activate(transport->config.client));
        if (result != 0) {
            need_reset(transport);
        }
    }
    pthread_mutex_unlock(&transport->lock);
    return result;
}

/* --- common configuration: reads ------------------------------------------------------------- */

/* The configuration's generation, even unless the device is stuck in a change: two equal values
 * around a guest's reads mean that it saw one state. */
static uint32_t settled_generation(const struct virtio_transport *transport)
{
    uint32_t generation = atomic_load(&transport->config.state->generation);
    for (unsigned i = 0; (generation & 1) && i < CONFIG_READ_TRIES; i++) {
        sched_yield();
        generation = atomic_load(&transport->config.state->generation);
    }
    return generation;
}

static void put(uint8_t *image, unsigned offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        image[offset + i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get(const uint8_t *image, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)image[offset + i] << (8 * i);
    }
    return value;
}

static void put_queue(struct virtio_transport *transport, uint8_t *image)
{
    unsigned index = transport->queue_select;
    if (index >= usable_queues(transport)) {
        return;
    }
    const struct virtio_transport_queue *queue = &transport->queues[index];
    put(image, VIRTIO_PCI_COMMON_Q_SIZE, 2, queue_size(transport, index));
    put(image, VIRTIO_PCI_COMMON_Q_MSIX, 2, atomic_load(&queue->vector));
    put(image, VIRTIO_PCI_COMMON_Q_ENABLE, 2, queue->enabled);
    put(image, VIRTIO_PCI_COMMON_Q_NOFF, 2, index);
    put(image, VIRTIO_PCI_COMMON_Q_DESCLO, 8, queue->areas[AREA_DESCRIPTORS]);
    put(image, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, queue->areas[AREA_DRIVER]);
    put(image, VIRTIO_PCI_COMMON_Q_USEDLO, 8, queue->areas[AREA_DEVICE]);
    put(image, VIRTIO_PCI_COMMON_Q_RESET, 2, queue->resetting);
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
    return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

uint64_t virtio_transport_common_read(struct virtio_transport *transport, uint64_t offset,
                                      unsigned size)
{
    uint8_t image[VIRTIO_COMMON_LENGTH] = {0};
    if (offset >= sizeof(image) || size > sizeof(image) - offset) {
        return 0;
    }
    pthread_mutex_lock(&transport->lock);
    if (offset == VIRTIO_PCI_COMMON_Q_RESET) {
        queue_resetting(transport);
    }
    put(image, VIRTIO_PCI_COMMON_DFSELECT, 4, transport->device_feature_select);
    put(image, VIRTIO_PCI_COMMON_DF, 4,
        feature_word(offered_features(transport), transport->device_feature_select));
    put(image, VIRTIO_PCI_COMMON_GFSELECT, 4, transport->driver_feature_select);
    put(image, VIRTIO_PCI_COMMON_GF, 4,
        feature_word(transport->driver_features, transport->driver_feature_select));
    put(image, VIRTIO_PCI_COMMON_MSIX, 2, atomic_load(&transport->config_vector));
    put(image, VIRTIO_PCI_COMMON_NUMQ, 2, usable_queues(transport));
    put(image, VIRTIO_PCI_COMMON_STATUS, 1, read_status(transport));
    put(image, VIRTIO_PCI_COMMON_CFGGENERATION, 1, settled_generation(transport));
    put(image, VIRTIO_PCI_COMMON_Q_SELECT, 2, transport->queue_select);
    put_queue(transport, image);
    pthread_mutex_unlock(&transport->lock);
    return get(image, (unsigned)offset, size);
}

/* --- common configuration: writes ------------------------------------------------------------ */

static void write_device_feature_select(struct virtio_transport *transport, unsigned offset,
                                        uint32_t value)
{
    (void)offset;
    transport->device_feature_select = value;
}

static void write_driver_feature_select(struct virtio_transport *transport, unsigned offset,
                                        uint32_t value)
{
    (void)offset;
    transport->driver_feature_select = value;
}

static void write_driver_feature(struct virtio_transport *transport, unsigned offset,
                                 uint32_t value)
{
    (void)offset;
    unsigned shift = 32 * transport->driver_feature_select;
    if (transport->driver_feature_select < 2 &&
        !(atomic_load(&transport->status) & VIRTIO_CONFIG_S_FEATURES_OK)) {
        transport->driver_features &= ~((uint64_t)UINT32_MAX << shift);
        transport->driver_features |= (uint64_t)value << shift;
    }
}

static uint16_t valid_vector(const struct virtio_transport *transport, uint32_t value)
{
    return value < transport->config.vector_count ? (uint16_t)value : NO_VECTOR;
}

static void write_config_vector(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    atomic_store(&transport->config_vector, valid_vector(transport, value));
}

static void write_device_status(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    write_status(transport, value);
}

static void write_queue_select(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    transport->queue_select = (uint16_t)value;
}

static bool driver_runs(const struct virtio_transport *transport)
{
    return atomic_load(&transport->status) & VIRTIO_CONFIG_S_DRIVER_OK;
}

/* The selected queue while it may still, or again, be set up, otherwise NULL. */
static struct virtio_transport_queue *queue_in_setup(struct virtio_transport *transport)
{
    unsigned index = transport->queue_select;
    struct virtio_transport_queue *queue = &transport->queues[index % VIRTIO_QUEUES_MAX];
    if (index >= usable_queues(transport) || queue->enabled || queue->resetting ||
        atomic_load(&transport->unplugged) || (driver_runs(transport) && !queue->was_reset)) {
        return NULL;
    }
    return queue;
}

static void write_queue_size(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    struct virtio_transport_queue *queue = queue_in_setup(transport);
    if (queue && size_acceptable(transport, transport->queue_select, value)) {
        queue->size = (uint16_t)value;
    }
}

static void write_queue_vector(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    if (transport->queue_select < usable_queues(transport)) {
        atomic_store(&transport->queues[transport->queue_select].vector,
                     valid_vector(transport, value));
    }
}

static void write_queue_enable(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    struct virtio_transport_queue *queue = queue_in_setup(transport);
    if (queue && value == 1) {
        queue->enabled = true;
        if (driver_runs(transport)) {
            enable_queue(transport, transport->queue_select);
        }
    }
}

/* 4.1.4.3: 1 resets the queue, and is read until that is done. */
static void write_queue_reset(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    (void)offset;
    unsigned index = transport->queue_select;
    bool negotiated = transport->driver_features >> VIRTIO_F_RING_RESET & 1;
    if (value == 1 && negotiated && driver_runs(transport) && !transport->reset_pending &&
        !atomic_load(&transport->unplugged) && index < usable_queues(transport) &&
        transport->queues[index].enabled) {
        reset_queue(transport, index);
    }
}

static void write_queue_area(struct virtio_transport *transport, unsigned offset, uint32_t value)
{
    struct virtio_transport_queue *queue = queue_in_setup(transport);
    if (queue) {
        uint64_t *area = &queue->areas[(offset - VIRTIO_PCI_COMMON_Q_DESCLO) / 8];
        unsigned shift = offset % 8 == 0 ? 0 : 32;
        *area &= ~((uint64_t)UINT32_MAX << shift);
        *area |= (uint64_t)value << shift;
    }
}

static const struct register_field {
    uint8_t offset, size;
    void (*write)(struct virtio_transport *transport, unsigned offset, uint32_t value);
} REGISTERS[] = {
    {VIRTIO_PCI_COMMON_DFSELECT, 4, write_device_feature_select},
    {VIRTIO_PCI_COMMON_GFSELECT, 4, write_driver_feature_select},
    {VIRTIO_PCI_COMMON_GF, 4, write_driver_feature},
    {VIRTIO_PCI_COMMON_MSIX, 2, write_config_vector},
    {VIRTIO_PCI_COMMON_STATUS, 1, write_device_status},
    {VIRTIO_PCI_COMMON_Q_SELECT, 2, write_queue_select},
    {VIRTIO_PCI_COMMON_Q_SIZE, 2, write_queue_size},
    {VIRTIO_PCI_COMMON_Q_MSIX, 2, write_queue_vector},
    {VIRTIO_PCI_COMMON_Q_ENABLE, 2, write_queue_enable},
    {VIRTIO_PCI_COMMON_Q_DESCLO, 4, write_queue_area},
    {VIRTIO_PCI_COMMON_Q_DESCHI, 4, write_queue_area},
    {VIRTIO_PCI_COMMON_Q_AVAILLO, 4, write_queue_area},
    {VIRTIO_PCI_COMMON_Q_AVAILHI, 4, write_queue_area},
    {VIRTIO_PCI_COMMON_Q_USEDLO, 4, write_queue_area},
    {VIRTIO_PCI_COMMON_Q_USEDHI, 4, write_queue_area},
    {VIRTIO_PCI_COMMON_Q_RESET, 2, write_queue_reset},
};

static void write_register(struct virtio_transport *transport, unsigned offset, unsigned size,
                           uint32_t value)
{
    for (unsigned i = 0; i < sizeof(REGISTERS) / sizeof(REGISTERS[0]); i++) {
        if (REGISTERS[i].offset == offset && REGISTERS[i].size == size) {
            REGISTERS[i].write(transport, offset, value);
        }
    }
}

void virtio_transport_common_write(struct virtio_transport *transport, uint64_t offset,
                                   unsigned size, uint64_t value)
{
    if (offset >= VIRTIO_COMMON_LENGTH) {
        return;
    }
    pthread_mutex_lock(&transport->lock);
    if (size == 8 && offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset % 8 == 0) {
        write_register(transport, (unsigned)offset, 4, (uint32_t)value);
        write_register(transport, (unsigned)offset + 4, 4, (uint32_t)(value >> 32));
    } else {
        write_register(transport, (unsigned)offset, size, (uint32_t)value);
    }
    pthread_mutex_unlock(&transport->lock);
}

/* --- device configuration and notification --------------------------------------------------- */

static uint32_t config_length(const struct virtio_transport *transport)
{
    uint32_t length = *(volatile const uint32_t *)&transport->config.state->config_length;
    return length < VIRTIO_CONFIG_MAX ? length : VIRTIO_CONFIG_MAX;
}

uint64_t virtio_transport_device_read(struct virtio_transport *transport, uint64_t offset,
                                      unsigned size)
{
    const struct virtio_state *state = transport->config.state;
    uint32_t length = config_length(transport);
    uint8_t bytes[8] = {0};
    uint32_t before, after;
    unsigned tries = 0;
    do {
        before = settled_generation(transport);
        for (unsigned i = 0; i < size && i < sizeof(bytes); i++) {
            bytes[i] = offset < length && i < length - offset
                           ? *(volatile const uint8_t *)&state->config[offset + i]
                           : 0;
        }
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load(&state->generation);
    } while (before != after && ++tries < CONFIG_READ_TRIES);
    return get(bytes, 0, size < sizeof(bytes) ? size : sizeof(bytes));
}

void virtio_transport_device_write(struct virtio_transport *transport, uint64_t offset,
                                   unsigned size, uint64_t value)
{
    uint32_t length = config_length(transport);
    if (offset >= length || size > length - offset) {
        return;
    }
    pthread_mutex_lock(&transport->lock);
    if (atomic_load(&transport->status) != 0 && !transport->reset_pending) {
        transport->device_touched = true;
        request_done(
            transport, "configuration write",
            transport_client_config_write(transport->config.client, (uint32_t)offset, size, value));
    }
    pthread_mutex_unlock(&transport->lock);
}

bool virtio_transport_kick(struct virtio_transport *transport, unsigned queue)
{
    uint32_t status = atomic_load(&transport->status);
    if (queue >= transport->config.queue_count || !(status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return false;
    }
    /* Only a counter at its limit can refuse, and then the device has its wake-up already. */
    (void)doorbell_ring(transport->config.kick[queue]);
    return true;
}
