/*
 * One device model and what its process gives it. A model is a self-contained file in
 * devd/devices/ that registers itself with DEVICE_MODEL; the process chooses one by its kind.
 *
 * All functions run on the process's main thread, inside its event loop. A model may have threads
 * of its own, which never call anything here.
 */
#ifndef POLYVISOR_DEVD_DEVICE_H
#define POLYVISOR_DEVD_DEVICE_H

#include "devd/block/block.h"
#include "devd/console.h"
#include "libshared/base/error.h"
#include "libshared/limit/setting.h"
#include "libshared/mem/memory.h"
#include "libshared/port/setting.h"
#include "libshared/virtio/ring.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct device;
struct mmio_device;
struct virtio_device;

enum device_class { DEVICE_MMIO, DEVICE_VIRTIO };

/* A plain register device: devd/mmio.h drives it. */
struct mmio_operations {
    /* size is 1, 2, 4 or 8; any offset may come. */
    uint64_t (*read)(struct device *device, uint32_t offset, unsigned size);
    void (*write)(struct device *device, uint32_t offset, unsigned size, uint64_t value);
    bool (*interrupt)(const struct device *device); /* level of the line now */
    /* Registers that may be read without asking, at offsets 0 to 15: fill the values, return a
     * bit for each that is exact until the next call. NULL: none. */
    uint32_t (*shadows)(const struct device *device, uint64_t values[]);
    /* Registers were filled from an earlier life's: make them sane, start timers. NULL: nothing. */
    void (*restored)(struct device *device);
    uint32_t registers_version; /* of the structure that device->registers points to */
    uint32_t registers_size;    /* bytes, at most MMIO_REGISTERS_MAX */
};

/* What a stream waits for. */
enum virtio_stream {
    VIRTIO_STREAM_EMPTY,   /* a kick of the driver */
    VIRTIO_STREAM_BLOCKED, /* something else: the device will call virtio_queue_pump */
    VIRTIO_STREAM_MORE,    /* its next turn of the loop */
};

/* A virtio device: devd/virtio.h drives it. Queue processing stops by itself at reset and stop. */
struct virtio_operations {
    uint32_t device_id;   /* virtio device type */
    uint32_t queue_count; /* 0: as many as the process got doorbells for */
    uint16_t queue_size;  /* largest */
    uint64_t features;    /* besides the ring's; init may add to device->virtio's */
    /* Whether the device can take another request of that queue now. NULL: always. When it turns
     * true on its own, the device calls virtio_queue_pump. */
    bool (*ready)(const struct device *device, unsigned queue);
    /* A request, new or resubmitted by a restarted process; `chain` is valid during the call
     * (virtqueue_chain_copy keeps it). Completed now or later with virtio_request_complete. */
    void (*request)(struct device *device, unsigned queue, const struct virtqueue_chain *chain);
    /* Whether that queue is a stream (libshared/virtio/ring.h): instead of being given requests the
     * device peeks and publishes in `stream`, as much as one turn of the loop should take. NULL:
     * none is. Called once the features are final. */
    bool (*is_stream)(const struct device *device, unsigned queue);
    enum virtio_stream (*stream)(struct device *device, unsigned queue);
    /* After one or more `request`: what waited for more of them may begin. NULL: nothing to do. */
    void (*batch)(struct device *device);
    /* Features and queues are final; `resumed`: they are those of an earlier process. Called before
     * any request. NULL: nothing to do. */
    void (*activated)(struct device *device, bool resumed);
    /* After an activation that resumed: all requests that an earlier process had in flight have
     * been handed over, no new one was. NULL: nothing to do. */
    void (*resubmitted)(struct device *device);
    /* The driver reset the device: forget requests (none is busy). NULL: nothing to do. */
    void (*reset)(struct device *device);
    /* The driver resets one queue: forget its requests that wait for something outside. NULL: there
     * are none, all that were taken get done. */
    void (*queue_reset)(struct device *device, unsigned queue);
    /* The driver resets the device or a queue, or the machine stops: finish what would only wait.
     * NULL: nothing waits. */
    void (*let_go)(struct device *device);
    /* The driver wrote to configuration space. 0 or -EINVAL. NULL: refuse. */
    int (*config_write)(struct device *device, uint32_t offset, const uint8_t *data, unsigned size);
};

/* The end of a resize: err is NULL on success. */
typedef void device_resized_fn(void *context, const struct error *err);

#define DEVICE_BALLOON_TAGS 16 /* of statistics (Virtual I/O Device 1.2, 5.5.6.4) */

struct device_balloon_order {
    bool set; /* make the balloon `target_bytes` large */
    uint64_t target_bytes;
    bool statistics; /* answer once the guest has told new ones */
};

struct device_balloon_report {
    bool driver;                    /* the guest has one */
    bool deflate_on_oom, reporting; /* it does that */
    uint64_t target_bytes, actual_bytes;
    uint64_t inflated_bytes, deflated_bytes; /* all that ever was */
    uint64_t released_bytes,
        reported_bytes; /* what the host got back of inflated, reported pages */
    uint64_t values[DEVICE_BALLOON_TAGS];
    uint32_t known;  /* a bit for each value that the guest told */
    uint64_t age_ms; /* since it did */
};

typedef void device_balloon_fn(void *context, uint64_t id,
                               const struct device_balloon_report *report);

/* What a device tells unasked. */
enum device_notice {
    DEVICE_NOTICE_BACKEND_ERROR = 1, /* the host failed a request */
    DEVICE_NOTICE_BACKEND_WELL,      /* and does so no more */
    DEVICE_NOTICE_WATCHDOG,          /* the guest did not feed it; the text is how often that was */
    /* The guest's kernel says that it panicked; the text is of devd/panic.h, after "PORT/" when it
     * is not the first port that says so. */
    DEVICE_NOTICE_PANIC,
};
#define DEVICE_NOTICE_MAX 160 /* bytes of its text */

struct device_model {
    const char *kind; /* "virtio-blk" */
    enum device_class device_class;
    bool needs_backend; /* descriptor `backend` */
    bool network;       /* its backend makes sockets: it keeps the host's network and may use it */
    bool peer;          /* it works on sockets that it is sent, and on nothing else */
    bool unix_sockets;  /* it connects to Unix sockets in the one folder it is given besides */
    bool shares_directory; /* it works on files in the one folder it is given, as its owner */
    /* Not NULL: has a console, on descriptor `console`; calls come with the device as context. */
    const struct console_operations *console;
    /* Allocate device->own, set registers or config and features. */
    int (*init)(struct device *device, struct error *err);
    void (*destroy)(struct device *device); /* also after a failed init */
    /* Whether requests are being worked on. When it turns false the device calls
     * device_settled. NULL: never. */
    bool (*busy)(const struct device *device);
    int (*flush)(
        struct device *device); /* make finished requests durable; 0 or -errno. NULL: no need */
    enum limit_device traffic;  /* what the words of its limits are */
    /* New limits of its traffic, also once before the first request. NULL: it has none. */
    void (*limit)(struct device *device, const struct limits *limits);
    /* Plug or pull the network cable. NULL: the device has none. */
    void (*set_link)(struct device *device, bool up);
    /* Make its backend `bytes` large; smaller only with `shrink`. 0: `resized` is called once, now
     * or later; or a negative code. NULL: it has no size. */
    int (*resize)(struct device *device, uint64_t bytes, bool shrink, device_resized_fn *resized,
                  void *context, struct error *err);
    /* Change the balloon or ask the guest. 0: `done` is called once with `id`, now or later; or a
     * negative code. It is the same function and context at each call. NULL: it is none. */
    int (*balloon)(struct device *device, const struct device_balloon_order *order, uint64_t id,
                   device_balloon_fn *done, void *context, struct error *err);
    /* Deliver what its consoles still hold, then call `drained` once. NULL: of `console` alone. */
    void (*drain)(struct device *device, unsigned limit_ms, void (*drained)(void *context),
                  void *context);
    unsigned open_files; /* descriptors it may need; 0: the usual */
    /* Press and release the machine's power key; a repetition is harmless. 0, or a negative code
     * when the guest does not listen. NULL: the device has no such key. */
    int (*power_key)(struct device *device, struct error *err);
    struct mmio_operations mmio;
    struct virtio_operations virtio;
};

/* Register `name`, which is then `device_model_<name>`. */
#define DEVICE_MODEL(name)                                                                         \
    extern const struct device_model device_model_##name;                                          \
    static const struct device_model *const device_model_entry_##name                              \
        __attribute__((used, section("device_models"), no_sanitize("address"))) =                  \
            &device_model_##name;                                                                  \
    const struct device_model device_model_##name

/* The registered model of that kind, or NULL. */
const struct device_model *device_model_find(const char *kind);

/* What a further port of a virtio console needs, as console_settings has it; -1: nothing. */
struct device_port {
    int listener, plain, memory;
};

/* The descriptors of one device; -1 where there is none. The device owns them once created. */
struct device_descriptors {
    int state, reply, backend, console, console_memory;
    int share_state, keep_in, keep_out; /* of a shared directory */
    int kick[VIRTIO_QUEUES_MAX];
    int call[VIRTIO_QUEUES_MAX + 1];  /* the one after the last queue: configuration changed */
    int backings[BLOCK_BACKINGS_MAX]; /* what lies under a disk's image, nearest first */
    struct device_port ports[PORTS_MAX];
};

/* What becomes of a write that the host fails. */
enum device_write_error {
    DEVICE_WRITE_ERROR_REPORT, /* the guest sees an I/O error */
    DEVICE_WRITE_ERROR_ENOSPC, /* the guest waits while the host has no space */
    DEVICE_WRITE_ERROR_WAIT,   /* the guest waits, whatever it is */
};

struct device_disk {    /* virtio-blk */
    bool write_through; /* every write is durable before it is done */
    bool threads;       /* no io_uring */
    bool split_rings;   /* no packed virtqueues */
    enum device_write_error write_error;
    enum block_format format;
    /* What lies under the image: their formats; the device puts in the descriptors. */
    struct block_image backings[BLOCK_BACKINGS_MAX];
    unsigned backing_count;
    const char *nbd;    /* a network disk: libshared/nbd/uri.h; only during init */
    unsigned timeout_s; /* and how long its requests wait */
};

struct device_settings {
    const char *id;      /* "disk0" */
    const char *serial;  /* virtio-blk, cut to 20 bytes */
    const char *net;     /* virtio-net: libshared/net/setting.h */
    const char *vsock;   /* virtio-vsock: libshared/vsock/setting.h */
    const char *share;   /* virtio-fs: libshared/share/setting.h */
    const char *balloon; /* virtio-balloon: libshared/balloon/setting.h */
    char **ports;        /* virtio-console: libshared/port/setting.h, port_count of them */
    unsigned port_count;
    uint64_t memory_kept; /* bytes at the beginning of memory that are not the guest's to give */
    bool link_down;       /* virtio-net: the cable is pulled */
    struct device_disk disk;
    struct limits limits; /* of models with `limit` */
    bool read_only;
    bool restart; /* the shared state holds an earlier life: go on from there */
};

#define DEVICE_STOP_MS 5000 /* a stop waits so long for console clients that read nothing */

struct device {
    const struct device_model *model;
    struct event_base *base; /* borrowed */
    struct memory *memory;   /* borrowed */
    char id[48];
    char serial[24];
    const char *net, *vsock, *share, *balloon; /* settings of such a device, during init */
    int share_state, keep_in, keep_out;        /* descriptors or -1; init may take them */
    uint64_t memory_kept;
    char **port_settings; /* of a virtio console, port_count of them, during init */
    unsigned port_count;
    struct device_port ports[PORTS_MAX]; /* init may take the descriptors */
    bool link_down;
    struct device_disk disk;
    char described[96]; /* for people, by init; may be empty */
    bool read_only;
    bool stopping;
    _Atomic unsigned complaints; /* logged about guest and host, any thread */
    int backend;                 /* descriptor or -1 */
    struct console *console;     /* or NULL */
    /* Of its further ports, those that are terminals; init's, which destroys them; NULL: none. */
    struct console *port_consoles[PORTS_MAX];
    void *registers; /* the model's, mmio only */
    void *own;       /* the model's */
    struct mmio_device *mmio;
    struct virtio_device *virtio;
    void (*stopped)(void *context);
    void *stopped_context;
    void (*noticed)(void *context, enum device_notice notice, const char *text);
    void *noticed_context;
};

void device_descriptors_clear(struct device_descriptors *descriptors); /* all -1 */

/* Build the device. Takes the descriptors, also on failure. NULL with *err set. */
struct device *device_create(const struct device_model *model,
                             const struct device_settings *settings, struct memory *memory,
                             struct event_base *base, struct device_descriptors *descriptors,
                             struct error *err);
void device_destroy(struct device *device);

/* Take no more requests, finish those in flight, flush, deliver console output for at most
 * DEVICE_STOP_MS, then call `stopped` once, perhaps before this returns. */
void device_stop(struct device *device, void (*stopped)(void *context), void *context);
/* Press the machine's power key, if this device is it. 0 or a negative code. */
int device_power_key(struct device *device, struct error *err);
/* Limit its traffic from now on. 0 or a negative code. */
int device_set_limits(struct device *device, const struct limits *limits, struct error *err);
/* Plug or pull its network cable. 0 or a negative code. */
int device_set_link(struct device *device, bool up, struct error *err);
/* Resize its backend: as the model's `resize`. */
int device_resize(struct device *device, uint64_t bytes, bool shrink, device_resized_fn *resized,
                  void *context, struct error *err);
/* As the model's `balloon`. */
int device_balloon(struct device *device, const struct device_balloon_order *order, uint64_t id,
                   device_balloon_fn *done, void *context, struct error *err);
/* Have device_notice call `noticed`. */
void device_on_notice(struct device *device,
                      void (*noticed)(void *context, enum device_notice notice, const char *text),
                      void *context);
/* From the model: tell something, in at most DEVICE_NOTICE_MAX bytes. */
void device_notice(struct device *device, enum device_notice notice, const char *text);
/* Tell again what must not get lost: vmmd may have been away. */
void device_repeat_notices(struct device *device);
/* Whether to log something that a guest can bring about as often as it likes: true a limited number
 * of times in the life of the process. Any thread. */
bool device_may_complain(struct device *device);
/* From the model: busy() turned false. */
void device_settled(struct device *device);

#endif
