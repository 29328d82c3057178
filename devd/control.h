/*
 * The device's end of the control channel (proto/device.proto): vmmd asks, this answers. vmmd may
 * die and come back at any time; that changes nothing here. Main thread only.
 */
#ifndef POLYVISOR_DEVD_CONTROL_H
#define POLYVISOR_DEVD_CONTROL_H

#include "libshared/base/error.h"
#include "proto/device.pb-c.h"
#include <event2/event.h>

struct control;

/* Bind the socket. NULL with *err set. */
struct control *control_open(const char *path, struct error *err);
void control_close(struct control *control);

/* Wait at most `timeout_ms` for the configuration, answering pings; NULL with *err set when none
 * came. Freed with device_configure__free_unpacked of its request by control_configured. */
const Polyvisor__DeviceConfigure *control_await_configure(struct control *control, int timeout_ms,
                                                          struct error *err);
/* Answer the configuration, with an error when `failure` is not NULL, and release it. */
void control_configured(struct control *control, const struct error *failure);

/* From now on serve from the event loop. `stop` is called at each stop request, which is answered
 * by control_stopped. 0 or -ENOMEM. */
int control_serve(struct control *control, struct event_base *base, void (*stop)(void *context),
                  void *context);
/* Answer the stop request, if that is why the device stopped. */
void control_stopped(struct control *control);

#endif
