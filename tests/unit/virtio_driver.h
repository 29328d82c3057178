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
#define DRIVER_QUEUES      4
#define DRIVER_QUEUE_SIZE  16
#define DRIVER_QUEUE_BYTES 0x3000u
#define DRIVER_DATA        (DRIVER_RAM_BASE + 0x100000) /* the first MiB is for the rings */
#define DRIVER_OK_STATUS   15u

struct driver {
    int ram_fd, codemap_fd, state_fd;
    struct memory memory;
    struct virtio_state *state;
    struct driver_queue {
        struct virtqueue_descriptor *descriptors;
        uint16_t *available, *used;
        uint16_t next_used; /* next used entry to look at */
    } queues[DRIVER_QUEUES];
};

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
        queue->descriptors = driver_pointer(driver, shared->descriptors);
        queue->available = driver_pointer(driver, shared->driver_area);
        queue->used = driver_pointer(driver, shared->device_area);
        queue->next_used = 0;
        memset(queue->descriptors, 0, DRIVER_QUEUE_BYTES);
    }
}

static inline void driver_open(struct driver *driver)
{
    memset(driver, 0, sizeof(*driver));
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

/* Make a chain available. */
static inline void driver_offer(struct driver *driver, unsigned queue, uint16_t head)
{
    uint16_t *available = driver->queues[queue].available;
    uint16_t index = available[1];
    available[2 + index % driver->state->queues[queue].size] = head;
    __atomic_store_n(&available[1], (uint16_t)(index + 1), __ATOMIC_RELEASE);
}

/* The next used entry: false when there is none yet. */
static inline bool driver_collect(struct driver *driver, unsigned queue,
                                  struct virtqueue_used_element *element)
{
    struct driver_queue *own = &driver->queues[queue];
    if (__atomic_load_n(&own->used[1], __ATOMIC_ACQUIRE) == own->next_used) {
        return false;
    }
    uint16_t at = own->next_used % driver->state->queues[queue].size;
    memcpy(element, &own->used[2 + 4 * at], sizeof(*element));
    own->next_used++;
    return true;
}

#endif
