/*
 * The device's end of a register channel (libshared/mmio/channel.h): takes posted writes and read
 * requests in order, answers, keeps the interrupt level and shadows, and saves the registers so
 * that a restarted process goes on exactly where the last one stopped.
 *
 * Sleeping without lost wakeups: the device stores device_sleeps = 1, then looks at `head`; vcpud
 * stores `head`, then looks at device_sleeps. All four are sequentially consistent, so at least one
 * side sees the other: either the device finds the access, or vcpud kicks. The device stores 0
 * again when it wakes for whatever reason.
 *
 * Order after each access, and what a restart makes of it. The model acts on the access and on
 * its registers; these are saved together with the ring position and the answer in the one of
 * two slots that is not selected; the slot is selected with one store; then interrupt level,
 * shadows, answer and `tail` are published. Death before the selection: the access is taken again
 * by the next process from the registers before it. Death after: the next process publishes all of
 * that again from the slot. So an access changes the registers once, whatever happens.
 */
#ifndef POLYVISOR_DEVD_MMIO_H
#define POLYVISOR_DEVD_MMIO_H

#include "devd/device.h"
#include "libshared/mmio/channel.h"

#define MMIO_REGISTERS_MAX 472u

int mmio_device_open(struct device *device, struct device_descriptors *descriptors,
                     struct error *err);
int mmio_device_start(struct device *device, bool restart, struct error *err);
void mmio_device_close(struct device *device);

/* Take every access that is posted now. */
void mmio_device_drain(struct device *device);
/* For models: registers changed other than by an access (input, a timer). */
void mmio_device_update(struct device *device);

#endif
