/*
 * Whether a device that takes accesses from a ring (libshared/mmio/channel.h) must be woken for one
 * more. The memory is the client's, under its lock; what is passed in was read from the shared page
 * and may be anything.
 */
#ifndef POLYVISOR_VCPU_DEVICE_KICK_H
#define POLYVISOR_VCPU_DEVICE_KICK_H

#include <stdbool.h>
#include <stdint.h>

struct kick_memory {
    bool given; /* and the device has not moved from `tail` since */
    uint32_t tail;
};

/* After an access was made known by storing `head`: read the device's `tail`, then its
 * `device_sleeps`, and ring when this says so. The eventfd stays readable until the device has
 * taken the access that it was kicked for, and before it sleeps again it looks at `head`: a second
 * kick before that is wasted. */
bool kick_wanted(struct kick_memory *kick, uint32_t head, uint32_t tail, bool device_sleeps);

#endif
