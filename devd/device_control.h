/*
 * The device's end of the control channel (proto/device.proto): vmmd asks, this answers. vmmd may
 * die and come back at any time; that changes nothing here. Main thread only.
 */
#ifndef POLYVISOR_DEVD_DEVICE_CONTROL_H
#define POLYVISOR_DEVD_DEVICE_CONTROL_H

#include "libshared/base/error.h"
#include "proto/device.pb-c.h"
#include <event2/event.h>
#include <stdbool.h>

struct device_control;

/* Bind the socket. NULL with *err set. */
struct device_control *device_control_open(const char *path, struct error *err);
void device_control_close(struct device_control *control);

/* Wait at most `timeout_ms` for the configuration, answering pings; NULL with *err set when none
 * came. Freed with device_configure__free_unpacked of its request by device_control_configured. */
const Polyvisor__DeviceConfigure *device_control_await_configure(struct device_control *control,
                                                                 int timeout_ms, struct error *err);
/* Answer the configuration, with an error when `failure` is not NULL, and release it. The
 * description is for people. */
void device_control_configured(struct device_control *control, const struct error *failure,
                               const char *description);

/* What requests lead to. */
struct device_control_operations {
    void (*pinged)(void *context); /* vmmd is there; NULL: nothing to do */
    void (*stop)(void *context);   /* at each stop request; answered by device_control_stopped */
    int (*power_key)(void *context, struct error *err); /* 0, or a negative code to answer */
    int (*set_link)(void *context, bool up, struct error *err);              /* likewise */
    int (*set_limits)(void *context, const char *limits, struct error *err); /* likewise */
    /* 0: device_control_answer(id) follows; or a negative code to answer. */
    int (*resize)(void *context, uint64_t id, const Polyvisor__DeviceResize *resize,
                  struct error *err);
    /* 0: device_control_answer_balloon(id) follows; or a negative code to answer. */
    int (*balloon)(void *context, uint64_t id, const Polyvisor__DeviceBalloon *order,
                   struct error *err);
};

/* From now on serve from the event loop. `operations` must outlive the control. 0 or -ENOMEM. */
int device_control_serve(struct device_control *control, struct event_base *base,
                         const struct device_control_operations *operations, void *context);
/* Answer request `id`; failure is NULL for success. */
void device_control_answer(struct device_control *control, uint64_t id,
                           const struct error *failure);
/* The same for one that asked for the balloon. */
void device_control_answer_balloon(struct device_control *control, uint64_t id,
                                   Polyvisor__DeviceBalloonReport *report);
/* Tell vmmd something unasked. Lost when vmmd is not there. */
void device_control_notice(struct device_control *control, Polyvisor__DeviceNoticeKind notice,
                           const char *text);
/* Answer the stop request, if that is why the device stopped. */
void device_control_stopped(struct device_control *control);

#endif
