/*
 * The devices of a machine and what each of them owns at run time: shared state, doorbells, its
 * backend, its console socket. vmmd holds all of it, so a device process can be replaced at any
 * time by one that inherits the same descriptors.
 *
 * Every machine has, in this order: serial0, rtc0 (plain MMIO), rng0 in PCI slot 1, console0 in
 * slot 2, power0 in slot 31 (the last, out of the way of what is numbered), then disk0 and on from
 * slot 3, and net0 and on from slot 19: a guest names its interfaces by their slots, and a further
 * disk shall not rename them. share0 is in slot 27, further shares are in slot 18 and down; vsock0,
 * where there is one, is in slot 30, balloon0 in slot 29. Disks, cards and the vsock may also come
 * and go while the machine runs (machine_hotplug.c), each to the first free place of its kind.
 */
#ifndef POLYVISOR_VMMD_MACHINE_DEVICE_H
#define POLYVISOR_VMMD_MACHINE_DEVICE_H

#include "libshared/base/error.h"
#include "libshared/disk/chain.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/share/setting.h"
#include "proto/control.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/child.h"
#include "vmmd/console_ports.h"
#include "vmmd/link.h"
#include "vmmd/network.h"
#include "vmmd/peer.h"
#include "vmmd/shared_directory.h"
#include "vmmd/spare.h"
#include "vmmd/validate.h"
#include <stdbool.h>
#include <stddef.h>

#define DEVICE_QUEUES_MAX (2 * NET_QUEUES_MAX + 1)
#define DEVICES_MAX       (8 + CONFIG_DISKS_MAX + CONFIG_NETS_MAX + SHARES_MAX)
#define DEVICE_PATH_MAX   108 /* sun_path */

struct machine_device_kind {
    const char *id;     /* the id, or what a number is put after */
    const char *kind;   /* name in the messages to vcpud */
    const char *model;  /* name in those to devd, when it is another */
    const char *pulled; /* the same, once it was pulled out; NULL: it cannot be */
    bool is_virtio;     /* else plain MMIO */
    bool has_console;
    bool is_power_key;
    unsigned queue_count; /* virtio only; 0: depends on its configuration */
    unsigned pci_slot;    /* 0: none, or the next that is free */
};

struct machine;
struct machine_device;

/* How the plugging in or out of a device ended: err is NULL on success. `id` names the device. */
typedef void machine_plug_fn(struct machine *machine, const char *id, const struct error *err,
                             uint64_t context);

/* Between a request to plug in or out and its answer. */
enum machine_plug_phase {
    PLUG_RESTS,    /* nothing is under way */
    PLUG_STARTING, /* its process is being configured */
    PLUG_ENTERING, /* vcpud gives it to the guest */
    PLUG_LEAVING,  /* vcpud takes it from the guest, once its driver lets go */
    PLUG_ENDING,   /* its process finishes what there is */
    PLUG_PULLED, /* out by force, all closed: a process answers with errors till the driver lets go
                  */
};

struct machine_plug {
    enum machine_plug_phase phase;
    bool asked; /* vcpud, which has not answered */
    bool force;
    uint64_t deadline_ns, retry_ns;
    struct error error; /* why it is taken back */
    machine_plug_fn *done;
    uint64_t context;
};

/* Panics of the guest that a console has told of. */
struct console_panics {
    unsigned told, ended;
};

struct machine_device {
    const struct machine_device_kind *kind;
    const Polyvisor__DiskConfig *disk;              /* of the machine's configuration, or NULL */
    const char *net;                                /* likewise: a network card's setting */
    const char *vsock;                              /* likewise */
    const char *share;                              /* likewise: a shared directory's */
    struct shared_directory share_fds;              /* what it needs */
    const char *balloon;                            /* likewise */
    struct link *link;                              /* of a card that is linked to another */
    struct peer *peer;                              /* of a network disk */
    bool link_down;                                 /* the card's cable was pulled */
    char description[96];                           /* its process's, for people */
    unsigned expiries;                              /* of a watchdog, that were acted on */
    struct console_panics panics[1 + PORTS_MAX];    /* of its console, and of its ports' */
    uint64_t notice_ns;                             /* when it last told something */
    uint64_t late_told_ns;                          /* when vcpud last told that it was late */
    unsigned queue_count;                           /* virtio only */
    char id[16];                                    /* "serial0", "disk0" */
    unsigned pci_slot;                              /* 0 for plain MMIO */
    int state_fd, reply_fd, backend_fd, console_fd; /* -1 where there is none */
    int console_memory_fd;
    int namespace_fd;           /* of its process, see spare_hold_namespace; or -1 */
    struct console_ports ports; /* of the virtio console, besides the first */
    struct disk_chain chain;    /* what lies under a disk's image */
    int kick_fds[DEVICE_QUEUES_MAX];
    int call_fds[DEVICE_QUEUES_MAX + 1];
    char control_path[DEVICE_PATH_MAX];   /* of its process */
    char spare_path[DEVICE_PATH_MAX];     /* of its spare, likewise; they change places with it */
    char transport_path[DEVICE_PATH_MAX]; /* virtio: towards vcpud, which binds it */
    char console_path[DEVICE_PATH_MAX];

    /* Its process; kept by machine.c and recovery.c. */
    struct machine *machine;
    struct machine_plug plug;
    Polyvisor__DeviceAttachRequest *plugged_in; /* owned: what it was asked for; NULL: configured */
    bool pulled;                                /* what it owned for its driver's sake is closed */
    bool lived;                                 /* a process of it has set up the shared state */
    struct child child;
    struct spare spare; /* once it has run for some time, or died */
    bool ready;         /* answered its configuration */
    bool stopping;      /* was asked to stop */
    bool failed;        /* given up */
    bool stuck;         /* vcpud waits to hear of the end of its process */
    bool key_pressed;   /* of this process, since the guest was last asked to power off */
    struct error error;
    unsigned deaths;                 /* in a row */
    unsigned early_deaths;           /* in a row, before it was configured */
    unsigned restarts;               /* since the machine was started */
    unsigned revivals;               /* of these, while it ended */
    uint64_t started_ns, restart_ns; /* clock_monotonic_ns; restart_ns 0: no restart is due */
    uint64_t died_ns;                /* when the end of the last process was noticed */
    uint64_t spare_ns;               /* before that none is tried again, likewise */
};

/* Describe the devices of `config` whose sockets are in `directory`. The number of devices (at
 * most DEVICES_MAX). `config` must outlive them. */
size_t machine_device_plan(struct machine_device *devices, const Polyvisor__MachineConfig *config,
                           const char *directory);
/* Describe one that is plugged in: `wanted` (checked) becomes its own, `number` counts its kind.
 * Its transport is a socket that vcpud has bound. */
void machine_device_plan_plugged(struct machine_device *device,
                                 Polyvisor__DeviceAttachRequest *wanted, size_t number,
                                 uint32_t cpus, const char *directory, const char *transport_path);
/* The place that it would have: its id (at most 15 bytes), its PCI slot, and how many of its kind
 * there can be. */
unsigned machine_device_place(const Polyvisor__DeviceAttachRequest *wanted, size_t number, char *id,
                              size_t *most);
/* What vcpud is told of it; points into it. */
void machine_device_describe_vcpu(struct machine_device *device, Polyvisor__VcpuDevice *message);
/* Make what it owns: state, doorbells, disk, console, network. `base` is the event loop, `programs`
 * the folder with connectd. 0 or a negative error code; on error what was made is still closed by
 * machine_device_close. */
int machine_device_open(struct machine_device *device, struct event_base *base,
                        const char *programs, struct error *err);
/* What it runs: "devd", or one with more in it. */
const char *machine_device_program(const struct machine_device *device);
/* What its process is told to be: "virtio-net-user". */
const char *machine_device_model(const struct machine_device *device);
/* The folder that its process sees besides the machine's own. False: there is none. */
bool machine_device_folder(const struct machine_device *device, char *folder, size_t size);
/* Whether it may only read there. */
bool machine_device_read_only(const struct machine_device *device);
/* Its process is about to be started (again). */
void machine_device_prepare(struct machine_device *device);
/* Its process is about to end for good, so nobody waits for that. */
void machine_device_let_go(struct machine_device *device);
void machine_device_close(struct machine_device *device);
/* Only its backend, when it is pulled out: what is on the host is free. */
void machine_device_close_backend(struct machine_device *device);
/* Tell the guest's driver, while no process does, that the device failed, or that it is back:
 * DEVICE_NEEDS_RESET and a configuration interrupt (virtio 1.2, 2.1.1). Virtio devices only. */
void machine_device_show_failed(const struct machine_device *device, bool failed);
/* Whether the guest has kicked one of its queues and its process has not taken notice. */
bool machine_device_kick_waits(const struct machine_device *device);
/* The descriptors that its process, and those that vcpud, inherits. 0 or negative errno. */
int machine_device_list_own(const struct machine_device *device, struct fdlist *list);
int machine_device_list_vcpu(const struct machine_device *device, struct fdlist *list);

#endif
