/*
 * A guest's virtio driver for the tests of rings and devices: guest memory, the shared state, and
 * split queues that are filled in by hand, so that they can also be wrong.
 */
#ifndef POLYVISOR_TESTS_UNIT_VIRTIO_DRIVER_H
#define POLYVISOR_TESTS_UNIT_VIRTIO_DRIVER_H

#include "libshared/mem/memory.h"
#include "libshared/virtio/ring.h"
#include "libshared/virtio/state.h"
#include <check.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DRIVER_RAM_BASE    UINT64_C(0x80000000)
#define DRIVER_RAM_SIZE    (UINT64_C(32) << 20)
#ifndef DRIVER_QUEUES
#define DRIVER_QUEUES 4
#endif
#define DRIVER_QUEUE_SIZE  16
#define DRIVER_QUEUE_BYTES 0x3000u
#define DRIVER_DATA        (DRIVER_RAM_BASE + 0x100000) /* the first MiB is for the rings */
#define DRIVER_OK_STATUS   15u

/* Which layout driver_open sets up. With packed rings `descriptors` is the driver's own memory,
 * from which driver_offer copies chains into the ring. */
static bool driver_packed;

struct driver {
    int ram_fd, codemap_fd, state_fd;
    struct memory memory;
    struct virtio_state *state;
    bool packed;
    struct driver_queue {
        struct virtqueue_descriptor *descriptors;
        uint16_t *available, *used;
        uint16_t next_used; /* split: next used entry to look at */
        /* Packed only: the ring, and what the driver keeps of it. */
        struct virtqueue_packed_descriptor *ring;
        struct virtqueue_packed_event *driver_event, *device_event;
        uint64_t offered, collected;               /* positions */
        uint16_t positions[VIRTIO_QUEUE_SIZE_MAX]; /* of a chain that is in the ring */
        struct virtqueue_descriptor pool[VIRTIO_QUEUE_SIZE_MAX];
    } queues[DRIVER_QUEUES];
};

/* The features that make the device use the driver's layout. */
static inline uint64_t driver_features(const struct driver *driver)
{
    return driver->packed ? VIRTQUEUE_FEATURE_PACKED : 0;
}

static inline void *driver_pointer(struct driver *driver, uint64_t address)
{
    return memory_pointer(&driver->memory, address, 1);
}

/* Clear and configure all queues with `size` entries. */
static inline void driver_set_queues(struct driver *driver, uint16_t size)
{
    for (unsigned i = 0; i < DRIVER_QUEUES; i++) {
        struct virtio_queue_state *shared = &driver->state->queues[i];
        struct driver_queue *queue = &driver->queues[i];
        shared->descriptors = DRIVER_RAM_BASE + i * DRIVER_QUEUE_BYTES;
        shared->driver_area = shared->descriptors + 0x1000;
        shared->device_area = shared->descriptors + 0x2000;
        shared->size = size;
        shared->enabled = 1;
        queue->ring = driver_pointer(driver, shared->descriptors);
        queue->descriptors = driver->packed ? queue->pool : (void *)queue->ring;
        queue->available = driver_pointer(driver, shared->driver_area);
        queue->used = driver_pointer(driver, shared->device_area);
        queue->driver_event = (void *)queue->available;
        queue->device_event = (void *)queue->used;
        queue->next_used = 0;
        queue->offered = queue->collected = 0;
        memset(queue->ring, 0, DRIVER_QUEUE_BYTES);
        memset(queue->pool, 0, sizeof(queue->pool));
    }
}

static inline void driver_open(struct driver *driver)
{
    memset(driver, 0, sizeof(*driver));
    driver->packed = driver_packed;
    driver->ram_fd = memory_create_fd("ram", DRIVER_RAM_SIZE);
    driver->codemap_fd = memory_create_fd("codemap", memory_codemap_size(DRIVER_RAM_SIZE));
    driver->state_fd = memory_create_fd("state", VIRTIO_STATE_SIZE);
    ck_assert_int_eq(
        memory_add_region(&driver->memory, driver->ram_fd, DRIVER_RAM_BASE, DRIVER_RAM_SIZE), 0);
    ck_assert_int_eq(memory_attach_codemap(&driver->memory, driver->codemap_fd), 0);
    driver->state =
        mmap(NULL, VIRTIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, driver->state_fd, 0);
    ck_assert_ptr_ne(driver->state, MAP_FAILED);
    driver->state->magic = VIRTIO_STATE_MAGIC;
    driver->state->version = VIRTIO_STATE_VERSION;
    driver_set_queues(driver, DRIVER_QUEUE_SIZE);
}

static inline void driver_close(struct driver *driver)
{
    memory_close(&driver->memory);
    munmap(driver->state, VIRTIO_STATE_SIZE);
    close(driver->ram_fd);
    close(driver->codemap_fd);
    close(driver->state_fd);
}

static inline void driver_describe(struct driver *driver, unsigned queue, unsigned index,
                                   uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    driver->queues[queue].descriptors[index] = (struct virtqueue_descriptor){
        .address = address, .length = length, .flags = flags, .next = next};
}

/* Set a descriptor of an indirect table, which looks like one of the ring. */
static inline void driver_table_set(struct driver *driver, uint64_t table, unsigned index,
                                    const struct virtqueue_descriptor *descriptor)
{
    void *to = driver_pointer(driver, table + index * sizeof(*descriptor));
    const struct virtqueue_packed_descriptor packed = {
        .address = descriptor->address,
        .length = descriptor->length,
        .flags = descriptor->flags & VIRTQUEUE_WRITE,
    };

    memcpy(to, driver->packed ? (const void *)&packed : descriptor, sizeof(packed));
}

/* The flags that say "available" at that position. */
static inline uint16_t driver_packed_flags(struct driver *driver, unsigned queue, uint64_t position)
{
    bool odd = position / driver->state->queues[queue].size & 1;
    return odd ? VIRTQUEUE_PACKED_USED : VIRTQUEUE_PACKED_AVAILABLE;
}

static inline void driver_offer_packed(struct driver *driver, unsigned queue, uint16_t head)
{
    struct driver_queue *own = &driver->queues[queue];
    uint16_t size = driver->state->queues[queue].size;
    uint64_t first = own->offered;
    uint16_t first_flags = 0;
    unsigned count = 0, index = head;
    bool more = true;

    while (more && count < size) {
        const struct virtqueue_descriptor *from = &own->descriptors[index];
        struct virtqueue_packed_descriptor *to = &own->ring[own->offered % size];
        uint16_t flags = from->flags | driver_packed_flags(driver, queue, own->offered);
        more = from->flags & VIRTQUEUE_NEXT;
        to->address = from->address;
        to->length = from->length;
        to->id = head;
        if (count++ == 0) {
            first_flags = flags;
        } else {
            to->flags = flags;
        }
        own->offered++;
        index = from->next % VIRTIO_QUEUE_SIZE_MAX;
    }
    own->positions[head % VIRTIO_QUEUE_SIZE_MAX] = (uint16_t)count;
    __atomic_store_n(&own->ring[first % size].flags, first_flags, __ATOMIC_RELEASE);
}

/* Make a chain available. */
static inline void driver_offer(struct driver *driver, unsigned queue, uint16_t head)
{
    uint16_t *available = driver->queues[queue].available;

    if (driver->packed) {
        driver_offer_packed(driver, queue, head);
        return;
    }
    uint16_t index = available[1];
    available[2 + index % driver->state->queues[queue].size] = head;
    __atomic_store_n(&available[1], (uint16_t)(index + 1), __ATOMIC_RELEASE);
}

static inline bool driver_collect_packed(struct driver *driver, unsigned queue,
                                         struct virtqueue_used_element *element)
{
    struct driver_queue *own = &driver->queues[queue];
    uint16_t size = driver->state->queues[queue].size;
    struct virtqueue_packed_descriptor *at = &own->ring[own->collected % size];
    const unsigned both = VIRTQUEUE_PACKED_AVAILABLE | VIRTQUEUE_PACKED_USED;
    uint16_t flags = __atomic_load_n(&at->flags, __ATOMIC_ACQUIRE);

    if ((flags & both) != (own->collected / size & 1 ? 0 : both)) {
        return false;
    }
    element->id = at->id;
    element->length = at->length;
    if (at->id >= VIRTIO_QUEUE_SIZE_MAX || own->positions[at->id] == 0 ||
        !(flags & VIRTQUEUE_WRITE) != (at->length == 0)) {
        ck_abort_msg("the device gave back what is not in the ring");
    }
    own->collected += own->positions[at->id];
    own->positions[at->id] = 0;
    return true;
}

/* The next used entry: false when there is none yet. */
static inline bool driver_collect(struct driver *driver, unsigned queue,
                                  struct virtqueue_used_element *element)
{
    struct driver_queue *own = &driver->queues[queue];

    if (driver->packed) {
        return driver_collect_packed(driver, queue, element);
    }
    if (__atomic_load_n(&own->used[1], __ATOMIC_ACQUIRE) == own->next_used) {
        return false;
    }
    uint16_t at = own->next_used % driver->state->queues[queue].size;
    memcpy(element, &own->used[2 + 4 * at], sizeof(*element));
    own->next_used++;
    return true;
}

#endif
