/*
 * The guest machine inside vcpud, assembled: RAM, CPUs and controllers (machine), devices, the CPU
 * threads, the interrupt thread and the link to jitd. All functions are called on the main thread.
 */
#ifndef POLYVISOR_VCPU_GUEST_H
#define POLYVISOR_VCPU_GUEST_H

#include "libshared/base/error.h"
#include "libshared/ipc/fdlist.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/vcpu/notices.h"

struct guest;

/* Build everything from vmmd's configuration and the inherited descriptors, and load the images.
 * What the guest does of its own accord (power off, ...) is posted to `notices`. NULL with *err
 * set on failure, nothing is left then but descriptors taken. */
struct guest *guest_create(const Polyvisor__VcpuConfigure *configure, struct fdlist *descriptors,
                           struct notices *notices, struct error *err);
/* Stops everything first. NULL is allowed. */
void guest_destroy(struct guest *guest);

/* Let the CPUs run, from the first instruction or after a pause. 0, or an error with *err set. */
int guest_run(struct guest *guest, struct error *err);
/* 0 when no guest instruction is executed any more. An error with *err set when a CPU is in the
 * middle of one, because it waits for a device: the guest then runs on. */
int guest_pause(struct guest *guest, struct error *err);
/* End the CPUs for good, whatever devices do. */
void guest_end(struct guest *guest);
#define GUEST_RESET_PENDING 1
/* Reset devices, load the images again; the CPUs then run on if they ran before, or were told to
 * meanwhile. 0, or GUEST_RESET_PENDING while a CPU has not parked or a device has not let go of
 * guest memory: guest_reset_continue (same results, never waits) is then to be called until it is
 * done. An error with *err set otherwise, and the guest is left paused. */
int guest_reset(struct guest *guest, struct error *err);
int guest_reset_continue(struct guest *guest, struct error *err);
/* Tell vmmd which devices the reset waits for. */
void guest_report_stuck(struct guest *guest);
/* vmmd says that the process of device `id` has ended: nothing is to be waited for. */
void guest_device_gone(struct guest *guest, const char *id);
/* Plug devices in and out while the guest runs, as devices_attach and devices_detach. 0, or an
 * error with *err set. */
int guest_attach(struct guest *guest, const Polyvisor__VcpuDevice *wanted, uint64_t handover,
                 struct error *err);
int guest_detach(struct guest *guest, const char *id, bool force, struct error *err);
void guest_stats(struct guest *guest, Polyvisor__VcpuStats *stats);
/* The code at a guest address (code_listing.h). CPUs that run pause meanwhile. */
Polyvisor__CodeListing *guest_list_code(struct guest *guest, const Polyvisor__CodeRequest *request,
                                        struct error *err);

#endif
