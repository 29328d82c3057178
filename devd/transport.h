/*
 * The device's end of the transport channel (proto/transport.proto): vcpud asks, this answers.
 * Every request may come twice: vcpud repeats what it got no answer to. Main thread only.
 */
#ifndef POLYVISOR_DEVD_TRANSPORT_H
#define POLYVISOR_DEVD_TRANSPORT_H

#include "devd/device.h"

struct transport;

/* Connect to vcpud's socket and serve the device, which must outlive it. NULL with *err set. */
struct transport *transport_open(struct device *device, const char *path, struct error *err);
/* Wait at most `timeout_ms` until vcpud's socket is there and connected: it is made while vcpud is
 * configured. A confined process cannot connect any more. 0, or an error with *err set. */
int transport_await(struct transport *transport, int timeout_ms, struct error *err);
void transport_close(struct transport *transport);

#endif
