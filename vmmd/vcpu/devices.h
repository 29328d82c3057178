/*
 * The guest's devices, as vcpud has them: for each the shared state mapped, its doorbells, and the
 * client or transport that puts it on the machine's bus.
 *
 * Built on the main thread before CPUs run, and changed there while they run; owned by struct
 * guest. Kinds are a table: plain MMIO devices get a register channel, virtio devices a PCI
 * function and a transport socket.
 */
#ifndef POLYVISOR_VCPU_DEVICES_H
#define POLYVISOR_VCPU_DEVICES_H

#include "libshared/ipc/fdlist.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/vcpu/interrupt_thread.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/notices.h"
#include "vmmd/vcpu/pci/virtio_pci.h"

#define DEVICES_MAX 64
#define SPARES_MAX  32 /* devices that are plugged in later, at a time */

struct devices;

/* Descriptors are taken from `descriptors` by name; misses of deadlines are told to `notices`. All
 * arguments outlive the devices. NULL with *err set on failure. */
struct devices *devices_create(const Polyvisor__VcpuConfigure *configure, struct machine *machine,
                               struct fdlist *descriptors, struct interrupt_thread *interrupts,
                               struct notices *notices, struct error *err);
/* After CPU threads have ended, before the interrupt thread and the machine are destroyed. */
void devices_destroy(struct devices *devices);

/* Plug in a virtio device whose descriptors wait in the handover socket under the number
 * `handover`, while the guest runs. Main thread, like the others. 0, or an error with *err set and
 * nothing kept. */
int devices_attach(struct devices *devices, const Polyvisor__VcpuDevice *wanted, uint64_t handover,
                   struct error *err);
/* Unplug one: ERROR_BUSY while its driver has it. With `force` the driver can do no more than let
 * go, and the device stays until this is asked again without. */
int devices_detach(struct devices *devices, const char *id, bool force, struct error *err);

/* Main thread: kicks and interrupts of all virtio devices, added up. */
void devices_count(const struct devices *devices, struct virtio_pci_counts *counts);

/* True: what CPUs wait for at devices is not wanted any more, because the machine ends or is reset.
 * They then park soon, whatever devices do. False takes it back. */
void devices_abandon(struct devices *devices, bool abandoned);

/* Machine reset, in steps around machine_load, while all CPUs are parked: first quiet every device;
 * wait until none can write to guest memory any more; then, when the interrupt controllers are new,
 * show them the devices' present levels. */
void devices_reset(struct devices *devices);
/* True while some device has not confirmed its reset. Never waits. */
bool devices_reset_pending(struct devices *devices);
/* Post VCPU_NOTICE_DEVICE_STUCK for each of those. */
void devices_report_stuck(struct devices *devices);
/* The process of device `id`, if there is one of that name, has ended without confirming. */
void devices_gone(struct devices *devices, const char *id);
void devices_raise_levels(struct devices *devices);

#endif
