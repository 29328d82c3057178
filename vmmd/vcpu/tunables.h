/* The limits of vcpud in one place. Times are in milliseconds. */
#ifndef POLYVISOR_VCPU_TUNABLES_H
#define POLYVISOR_VCPU_TUNABLES_H

/* How long a vCPU waits for a virtio device to activate or take a configuration write: what the
 * guest gets afterwards is a device that failed. So this is long enough for vmmd to replace a
 * process several times on a host that is overloaded. */
#define TUNABLE_TRANSPORT_DEADLINE_MS 8000u
/* The same for its reset, whose end the guest sees by itself when it comes later. */
#define TUNABLE_TRANSPORT_RESET_MS 2000u
/* The same for a device that missed its last deadline: enough for one that is back. */
#define TUNABLE_TRANSPORT_RETRY_MS 50u
/* A request that is not answered is sent again this often, in case its receiver died with it. */
#define TUNABLE_TRANSPORT_RESEND_MS 200u
/* How long a vCPU waits for a register read of a plain MMIO device, or for room in its ring: what
 * the guest reads afterwards is wrong. */
#define TUNABLE_MMIO_DEADLINE_MS 8000u
/* When a vCPU that waits for any device tells vmmd, which replaces a process that hangs
 * (CHILD_DOUBT_MS) long before the deadline. */
#define TUNABLE_SLOW_MS 250u
/* How long the main thread waits in all for CPUs to park and for devices to confirm a machine's
 * reset before it serves vmmd and looks again later. */
#define TUNABLE_RESET_WAIT_MS 50u
/* How long it waits for CPUs to park on vmmd's request, which is refused then. */
#define TUNABLE_PAUSE_WAIT_MS 1000u
/* A machine reset waits for devices that may still write to guest memory: how often it looks, and
 * how long it bears with one before vmmd is asked to replace its process. */
#define TUNABLE_RESET_POLL_MS   10u
#define TUNABLE_DEVICE_STUCK_MS 2000u
/* How often notices that vmmd could not take (it is away) are offered again. */
#define TUNABLE_NOTICE_RETRY_MS 200u
/* While guest code runs: how often the profile is looked at. */
#define TUNABLE_JIT_TICK_MS 1u
/* How often open requests to jitd are looked at, and when one without an answer is given up. */
#define TUNABLE_JIT_LOOK_MS   200u
#define TUNABLE_JIT_ANSWER_MS 60000u
/* How often the engine hears what the cache has got meanwhile. */
#define TUNABLE_JIT_KNOWN_MS 250u
/* A jitd that takes no requests and has said nothing for so long is gone. */
#define TUNABLE_JIT_SILENCE_MS 10000u
/* When code of the cache is tried again that came before its pages; four times as long each time.
 */
#define TUNABLE_JIT_LATER_MS    20u
#define TUNABLE_JIT_LATER_TRIES 4u
/* Open files of the whole process: inherited descriptors, nanomsg's sockets, and some air. */
#define TUNABLE_OPEN_FILES 2048u

#endif
