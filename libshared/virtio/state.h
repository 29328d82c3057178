/*
 * The shared state of one virtio device: what its transport (in vcpud) and its backend (in devd)
 * both need, and all that a restarted backend needs to go on. It lives in a memfd that vmmd owns
 * (descriptor `state`), never in the device process.
 *
 * Each field says who writes it: T transport, D device process, V vmmd (at creation). The reader
 * copies once, validates, then uses. Conversation: the device fills what is marked D and sends
 * Ready to vmmd; the transport answers guest register reads from here alone. When the guest sets
 * DRIVER_OK the transport has filled `driver_features` and the queues and sends Activate on the
 * transport channel (proto/transport.proto); Reset, ConfigWrite, QueueReset and QueueEnable go the
 * same way. Kicks are the
 * eventfds kick.<queue>, interrupts call.<queue>, configuration changes call.<queue_count>.
 */
#ifndef POLYVISOR_VIRTIO_STATE_H
#define POLYVISOR_VIRTIO_STATE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_STATE_MAGIC    0x53545650u /* "PVTS" */
#define VIRTIO_STATE_VERSION  5u
#define VIRTIO_QUEUES_MAX     16u
#define VIRTIO_QUEUE_SIZE_MAX 256u
#define VIRTIO_CONFIG_MAX     256u
#define VIRTIO_SAVED_MAX      1024u
#define VIRTIO_LIMITS         6u

/* One request between being taken from the ring and its used entry being visible (D). Indexed by
 * the head descriptor in a split ring, by a number of the device's own in a packed one. What the
 * steps are in which all this changes is in libshared/virtio/ring.h. */
enum virtio_inflight_status { VIRTIO_FREE = 0, VIRTIO_IN_FLIGHT = 1, VIRTIO_DONE = 2 };
struct virtio_inflight {
    _Atomic uint32_t status; /* DONE: result known, used entry perhaps not yet published */
    uint32_t written;        /* bytes written to the guest, valid when DONE */
    uint64_t order;          /* ring position it was taken from: resubmit in this order */
    uint64_t used_at;        /* ring position where its used entry goes, valid when DONE */
    uint16_t id;             /* by which the driver knows it */
    uint16_t positions;      /* of the ring that it takes */
    uint16_t first, count;   /* its descriptors in the log below; packed rings only */
};

/* A descriptor of a request in flight. In a packed ring, used entries overwrite descriptors of
 * requests that are still worked on. */
struct virtio_logged_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next; /* the request's next one */
};

struct virtio_queue_state {
    uint64_t descriptors, driver_area, device_area; /* guest-physical; T */
    uint16_t size;                                  /* entries; T */
    uint16_t size_max;                              /* D */
    _Atomic uint16_t enabled;                       /* T */
    uint16_t msix_vector;                           /* T */
    _Atomic uint16_t live; /* D: the fields from next_order on belong to this activation */
    uint16_t reserved[3];
    uint64_t next_order;   /* D: ring positions taken since the activation */
    uint64_t used_order;   /* D: and given back */
    uint64_t stream_at;    /* D: used_order when the group below was written down */
    uint32_t stream_count; /* D: buffers given back at once, in the first entries of the log */
    uint32_t reserved2;
    struct virtio_inflight inflight[VIRTIO_QUEUE_SIZE_MAX];                /* D */
    struct virtio_logged_descriptor descriptor_log[VIRTIO_QUEUE_SIZE_MAX]; /* D */
};

/* Why the guest sees DEVICE_NEEDS_RESET. */
enum virtio_needs_reset {
    VIRTIO_RESET_NOT_NEEDED = 0,
    VIRTIO_RESET_RULE_BROKEN = 1,   /* D: by the driver; until it resets the device */
    VIRTIO_RESET_DEVICE_FAILED = 2, /* V: no process serves it any more; until one does */
};

struct virtio_state {
    uint32_t magic, version;  /* V */
    uint32_t device_id;       /* virtio device type, D */
    uint32_t queue_count;     /* D */
    uint64_t device_features; /* D; without transport bits (VERSION_1 included by D) */
    uint64_t driver_features; /* T, subset of the above */
    _Atomic uint32_t
        status; /* T: the guest's status byte; NEEDS_RESET is or-ed in by the transport */
    _Atomic uint32_t generation;       /* of config, D: odd while it changes */
    uint32_t config_length;            /* D */
    _Atomic uint32_t needs_reset;      /* enum virtio_needs_reset; D, V */
    uint8_t config[VIRTIO_CONFIG_MAX]; /* D; the transport only reads */
    struct virtio_queue_state queues[VIRTIO_QUEUES_MAX];
    uint8_t saved[VIRTIO_SAVED_MAX]; /* D: what the driver told it besides, for the next process */
    uint64_t limits[VIRTIO_LIMITS];  /* D: how full its token buckets are (devd/limit) */
    _Atomic uint32_t told;           /* D: the generation of config that the driver was told of */
    uint32_t reserved;
};
_Static_assert(sizeof(struct virtio_inflight) == 32, "shared layout");
_Static_assert(sizeof(struct virtio_logged_descriptor) == 16, "shared layout");
_Static_assert(offsetof(struct virtio_state, config) == 48, "shared layout");
_Static_assert(offsetof(struct virtio_state, queues) == 304, "shared layout");
_Static_assert(sizeof(struct virtio_queue_state) == 72 + 48 * VIRTIO_QUEUE_SIZE_MAX, "layout");
#define VIRTIO_STATE_SIZE ((sizeof(struct virtio_state) + 4095u) & ~(size_t)4095u)

#endif
