/* A driver of a virtio-blk device on a temporary file, for the tests of disks. */
#ifndef POLYVISOR_TESTS_UNIT_BLK_DRIVER_H
#define POLYVISOR_TESTS_UNIT_BLK_DRIVER_H

#include "tests/unit/device_host.h"
#include <linux/virtio_blk.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern const struct device_model device_model_virtio_blk;

#define DISK_SECTORS 4096u
#define ALL_FEATURES UINT64_MAX
#define DATA_BYTES   4096u

static struct device_host host;

/* Where request `slot` keeps its parts. */
static inline uint64_t slot_header(unsigned slot)
{
    return DRIVER_DATA + slot * 0x10000u;
}

static inline uint64_t slot_status(unsigned slot)
{
    return slot_header(slot) + 0x100;
}

static inline uint64_t slot_data(unsigned slot)
{
    return slot_header(slot) + 0x1000;
}

static inline void *data_of(unsigned slot)
{
    return driver_pointer(&host.driver, slot_data(slot));
}

/* A file without a name; `flags` besides read and write. -1 when the file system refuses them. */
static inline int disk_open_with(uint64_t bytes, int flags)
{
    const char *folder = getenv("TMPDIR");
    char path[256];

    snprintf(path, sizeof(path), "%s/polyvisor-test-disk-XXXXXX", folder ? folder : "/tmp");
    int fd = mkostemp(path, O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
    int again = open(path, O_RDWR | O_CLOEXEC | flags);
    unlink(path);
    close(fd);
    return again;
}

static inline int disk_open(uint64_t bytes)
{
    int fd = disk_open_with(bytes, 0);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static inline void blk_setup(void)
{
    host_open(&host);
    host.kicks = 1;
    host.backend = disk_open(DISK_SECTORS * 512u);
}

static inline void blk_teardown(void)
{
    host_close(&host);
}

static inline void blk_start(void)
{
    host_start(&host, &device_model_virtio_blk, false);
    host_activate(&host, ALL_FEATURES);
}

/* Offer a request of three descriptors: header, data (if any) from `offset` on in its place,
 * status. */
static inline void submit_at(unsigned queue, unsigned slot, uint32_t type, uint64_t sector,
                             uint32_t offset, uint32_t bytes, bool to_guest)
{
    struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    uint16_t head = (uint16_t)(slot * 3 % DRIVER_QUEUE_SIZE);
    uint16_t after = bytes ? head + 1 : head + 2;

    memcpy(driver_pointer(&host.driver, slot_header(slot)), &header, sizeof(header));
    *(uint8_t *)driver_pointer(&host.driver, slot_status(slot)) = 0xee;
    driver_describe(&host.driver, queue, head, slot_header(slot), sizeof(header), VIRTQUEUE_NEXT,
                    after);
    driver_describe(&host.driver, queue, head + 1, slot_data(slot) + offset, bytes,
                    VIRTQUEUE_NEXT | (to_guest ? VIRTQUEUE_WRITE : 0), head + 2);
    driver_describe(&host.driver, queue, head + 2, slot_status(slot), 1, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, queue, head);
    host_kick(&host, queue);
}

static inline void submit(unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes,
                          bool to_guest)
{
    submit_at(0, slot, type, sector, 0, bytes, to_guest);
}

/* Run the device until a request of that queue is done: the slot (within its queue) and length. */
static inline void finish_any(unsigned queue, unsigned *slot, uint32_t *length)
{
    struct virtqueue_used_element element;

    while (!driver_collect(&host.driver, queue, &element)) {
        event_base_loop(host.base, EVLOOP_ONCE);
    }
    *slot = element.id / 3;
    *length = element.length;
}

static inline uint8_t status_of(unsigned slot)
{
    return *(uint8_t *)driver_pointer(&host.driver, slot_status(slot));
}

/* Of queue 0: the status of the request that is done. */
static inline uint8_t finish(unsigned *slot, uint32_t *length)
{
    finish_any(0, slot, length);
    return status_of(*slot);
}

static inline uint8_t request(uint32_t type, uint64_t sector, uint32_t bytes, bool to_guest)
{
    unsigned slot;
    uint32_t length;

    submit(0, type, sector, bytes, to_guest);
    uint8_t status = finish(&slot, &length);
    ck_assert_uint_eq(slot, 0);
    ck_assert_uint_eq(length, to_guest ? bytes + 1 : 1);
    return status;
}

static inline struct virtio_blk_config blk_config(void)
{
    struct virtio_blk_config config;
    memcpy(&config, (const void *)host.driver.state->config, sizeof(config));
    return config;
}

#endif
