/*
 * The guest's devices, as vcpud has them: for each the shared state mapped, its doorbells, and the
 * client or transport that puts it on the machine's bus.
 *
 * Built on the main thread before CPUs run; owned by struct guest. Kinds are a table: plain MMIO
 * devices get a register channel, virtio devices a PCI function and a transport socket.
 */
#ifndef POLYVISOR_VCPU_DEVICES_H
#define POLYVISOR_VCPU_DEVICES_H

#include "libshared/ipc/fdlist.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/vcpu/interrupt_thread.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/notices.h"

#define DEVICES_MAX 64

struct devices;

/* Descriptors are taken from `descriptors` by name; misses of deadlines are told to `notices`. All
 * arguments outlive the devices. NULL with *err set on failure. */
struct devices *devices_create(const Polyvisor__VcpuConfigure *configure, struct machine *machine,
                               struct fdlist *descriptors, struct interrupt_thread *interrupts,
                               struct notices *notices, struct error *err);
/* After CPU threads and interrupt thread have ended, before the machine is destroyed. */
void devices_destroy(struct devices *devices);

/* Machine reset, in two steps around machine_load, while all CPUs are parked: first quiet every
 * device, then, when the interrupt controllers are new, show them the devices' present levels. */
void devices_reset(struct devices *devices);
void devices_raise_levels(struct devices *devices);

#endif
