/*
 * vcpud's end of one virtio device's transport channel (proto/transport.proto).
 *
 * Rare, synchronous requests with a deadline, made on CPU threads (and on the main thread at
 * reset); the caller holds the device's lock across each call. vcpud binds, so a restarted devd
 * just connects again. Requests are repeated with the same id until the deadline, and a reset after
 * it too: the device that got the first may have died. Answers with another id are dropped.
 */
#ifndef POLYVISOR_VCPU_DEVICE_TRANSPORT_CLIENT_H
#define POLYVISOR_VCPU_DEVICE_TRANSPORT_CLIENT_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stdint.h>

struct transport_client;

/* Bind the socket `path`. `deadline_ms` bounds each request. NULL with *err set on failure. */
struct transport_client *transport_client_create(const char *path, unsigned deadline_ms,
                                                 struct error *err);
void transport_client_destroy(struct transport_client *client);
/* The socket is for another device from now on; nothing of the last one is waited for. */
void transport_client_forget(struct transport_client *client);

/* Who waits. Called on the thread that does, which holds the device's lock: must not wait. */
struct transport_client_wait {
    unsigned slow_ms;            /* when `slow` is called */
    void (*slow)(void *context); /* it has waited that long and goes on waiting */
    /* Nobody will answer, or nobody wants the answer any more. Asked at least every 200 ms. */
    bool (*hopeless)(void *context);
    void *context;
};
/* Before CPUs can reach the device; `wait` is copied. */
void transport_client_set_wait(struct transport_client *client,
                               const struct transport_client_wait *wait);

/* Each: 0 or the device's negative errno, -ETIMEDOUT when no answer came in time, -ECANCELED when
 * waiting was hopeless, or another negative errno. After a missed deadline the next requests wait
 * only a short time, until the device answers one. */
int transport_client_activate(struct transport_client *client);
/* `limit_ms` shortens the deadline (UINT_MAX: it does not). */
int transport_client_reset(struct transport_client *client, unsigned limit_ms);
/* `size` is 1, 2, 4 or 8; the value's bytes are sent little-endian. */
int transport_client_config_write(struct transport_client *client, uint32_t offset, unsigned size,
                                  uint64_t value);

/* Reset one queue, whose `enabled` in the shared state is cleared, or use it again, being set. Both
 * may be repeated. */
int transport_client_queue_reset(struct transport_client *client, unsigned queue);
int transport_client_queue_enable(struct transport_client *client, unsigned queue);

/* Ask for a reset without waiting: transport_client_reset_poll tells the outcome. */
void transport_client_reset_begin(struct transport_client *client);
/* Without waiting: 0 once the reset that was begun, or timed out before, was answered, otherwise
 * -EAGAIN. Asks again from time to time, because a restarted device never saw the first request. */
int transport_client_reset_poll(struct transport_client *client);

#endif
