/*
 * Register access to a plain MMIO device (serial, RTC) in another process, over one shared page.
 *
 * vcpud posts writes into a ring and goes on; a read is a request that the device answers after
 * all writes posted before it, within a deadline. Side-effect-free registers that a guest polls
 * (the serial line status) are published as shadows and cost no round trip. The page is in a memfd
 * that vmmd owns, so that a restarted device finds writes not yet consumed.
 *
 * Doorbell to the device: eventfd kick.0. Answer to vcpud: eventfd `reply`. Interrupt level
 * changes: `irq_level`, then eventfd call.0. Both sides treat the other's fields as hostile.
 */
#ifndef POLYVISOR_MMIO_CHANNEL_H
#define POLYVISOR_MMIO_CHANNEL_H

#include <stdatomic.h>
#include <stdint.h>

#define MMIO_CHANNEL_MAGIC   0x4d4d4950u /* "PIMM" */
#define MMIO_CHANNEL_VERSION 1u
#define MMIO_CHANNEL_RING    512u /* posted accesses, a power of two */
#define MMIO_CHANNEL_SHADOWS 16u  /* registers at offsets 0 to 15 (byte registers) */

struct mmio_access {
    uint32_t offset;
    uint8_t size; /* 1, 2, 4, 8 */
    uint8_t is_read;
    uint16_t reserved;
    uint64_t value;    /* of a write */
    uint64_t sequence; /* of a read: the answer carries it back */
};

struct mmio_channel {
    uint32_t magic, version;
    _Atomic uint32_t head;            /* next to fill; vcpud writes */
    _Atomic uint32_t tail;            /* next to take; the device writes, after it acted */
    _Atomic uint32_t device_sleeps;   /* device writes 1 before it blocks: kick needed */
    _Atomic uint32_t irq_level;       /* device writes 0 or 1 */
    _Atomic uint64_t answer_sequence; /* device writes last, release */
    _Atomic uint64_t answer_value;
    _Atomic uint32_t shadow_valid; /* bit a register; device writes */
    _Atomic uint32_t given_up; /* vmmd writes: nothing but 0 means that no process will answer */
    _Atomic uint64_t shadow[MMIO_CHANNEL_SHADOWS];
    uint8_t device_state[1024]; /* the device's own registers, versioned by it, for its restart */
    struct mmio_access ring[MMIO_CHANNEL_RING];
};
_Static_assert(sizeof(struct mmio_access) == 24, "shared layout");
_Static_assert(sizeof(struct mmio_channel) <= 16384, "fits MMIO_STATE_SIZE");
#define MMIO_STATE_SIZE 16384u

#endif
