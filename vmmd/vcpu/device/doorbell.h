/*
 * The eventfds between vcpud and a device process. Both hold the same open file, so the device
 * decides whether it is non-blocking and what it counts: neither may be relied on.
 */
#ifndef POLYVISOR_VCPU_DEVICE_DOORBELL_H
#define POLYVISOR_VCPU_DEVICE_DOORBELL_H

/* Take the count of one that poll reported. Never waits, whatever the device did since. Any
 * thread. 0, -EAGAIN when there is nothing to take (any more), or another negative errno. */
int doorbell_take(int fd);

/* Ring. Any thread. 0; -EAGAIN when the count is full, so that the bell rings anyway. A device that
 * fills the count of a bell that it has made blocking can hold the thread here
 * (docs/design/vcpud.md says what follows): the host has no write to an eventfd that is
 * non-blocking by itself. */
int doorbell_ring(int fd);

#endif
