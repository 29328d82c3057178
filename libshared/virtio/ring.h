/*
 * The device side of a virtqueue in guest memory (Virtual I/O Device 1.2, sections 2.7 and 2.8),
 * split or packed, with indirect descriptors, event suppression, and a log of requests in flight
 * that outlives the process. Devices do not know which layout a queue has.
 *
 * The guest is hostile: every index, address and length is copied once, checked, then used. A rule
 * broken by the driver breaks the queue (`fault` says which rule); nothing is taken from it or
 * published to it any more until the device is reset. A queue belongs to one thread.
 *
 * Positions. What the driver offers is counted in ring positions, from the queue's activation on
 * and without end: a chain takes one position of a split ring (its entry of the available ring),
 * and as many of a packed ring as it has descriptors there. next_order is the position of the next
 * chain to take, used_order the one where the next used entry goes; index and wrap counter are
 * computed from them.
 *
 * The log. Its entry for a request, next_order and used_order are in the shared state
 * (libshared/virtio/state.h), which survives the device process. In a split ring the entry's number
 * is that of the head descriptor; in a packed ring any free one, and the request's descriptors
 * are copied, too: used entries overwrite what the driver wrote. Taking and completing are
 * sequences of single stores that the compiler may not reorder (the kernel makes all stores a dead
 * process had executed visible to the next one):
 *
 *   take      T1  the entry's id, positions, descriptors, and order = next_order
 *             T2  status = IN_FLIGHT
 *             T3  next_order = next_order + positions
 *   complete  C1  written = bytes (guest buffers are written and reported before), used_at =
 *                 used_order
 *             C2  status = DONE
 *             C3  split: the used element; packed: nothing
 *             C4  split: used.idx; packed: id, length and flags of the descriptor in one store.
 *                 The driver sees it from here on
 *             C5  used_order = used_order + positions
 *             C6  status = FREE
 *
 * A process that died left one of these behind, and virtqueue_recover decides:
 *
 *   after     seen by the next process                          it does
 *   T1        status FREE                                       nothing: it is taken again
 *   T2        an IN_FLIGHT entry with order == next_order       finishes T3
 *   T3, C1    IN_FLIGHT                                         resubmits: requests are repeatable
 *   C2, C3    DONE, used_order == used_at, not in the ring      publishes with the logged `written`
 *   C4        DONE, used_order == used_at, in the ring          finishes C5 and C6
 *   C5        DONE, used_order == used_at + positions           finishes C6
 *
 * "In the ring" is, in a split one, that used.idx is one ahead of used_order; in a packed one, that
 * the USED bit of the descriptor at used_order has this lap's value: it had the other one when the
 * driver offered that descriptor, and keeps this lap's when the driver has offered it again.
 *
 * Only one request is between C2 and C6 at any time, so DONE is never ambiguous. Recovery uses the
 * same single steps, so that dying during recovery is no different. A kick or an interrupt that
 * was lost with the process is made good by looking at every queue, and by interrupting, once
 * after recovery.
 *
 * Streams. A queue whose buffers are used strictly in order, and whose work may be lost or done
 * twice (a network's frames), needs no log of requests: it is read with virtqueue_peek, which
 * changes nothing, and several buffers are given back at once with virtqueue_publish:
 *
 *   split     S1  used.ring[used_order ...] = elements (guest buffers are written before)
 *             S2  used.idx = used_order + count: all of them become visible in one store
 *             S3  next_order = used_order + count
 *             S4  used_order = next_order
 *   packed    S1  the log's first entries = id, length and positions of each; stream_count
 *             S2  stream_at = used_order: from here on the group will be published
 *             S3  the used descriptors but the first, the last one first
 *             S4  the first one: the driver sees all of them from here on
 *             S5  next_order = used_order + positions
 *             S6  used_order = next_order
 *
 * In a split ring used.idx says what happened, and virtqueue_recover_stream sets the rest by it. A
 * packed ring's buffers cannot be read any more once S3 has begun; so when stream_at is used_order,
 * what is missing of S3 to S6 is done. A queue is used one way or the other, never both, between
 * two resets.
 */
#ifndef POLYVISOR_VIRTIO_RING_H
#define POLYVISOR_VIRTIO_RING_H

#include "libshared/mem/memory.h"
#include "libshared/virtio/state.h"
#include <stdbool.h>
#include <sys/uio.h>

/* Feature bits of the ring itself (section 6). */
#define VIRTQUEUE_FEATURE_INDIRECT    (UINT64_C(1) << 28)
#define VIRTQUEUE_FEATURE_EVENT_INDEX (UINT64_C(1) << 29)
#define VIRTQUEUE_FEATURE_VERSION_1   (UINT64_C(1) << 32)
#define VIRTQUEUE_FEATURE_PACKED      (UINT64_C(1) << 34)
#define VIRTQUEUE_FEATURE_RESET       (UINT64_C(1) << 40) /* of single queues, section 2.6.1 */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

/* Guest layout, little-endian like every host this builds for: a split ring's descriptor (section
 * 2.7.5) and used element (2.7.8). A table of indirect descriptors is made of the same descriptors
 * as the ring. */
struct virtqueue_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};
_Static_assert(sizeof(struct virtqueue_descriptor) == 16, "guest layout");

struct virtqueue_used_element {
    uint32_t id;
    uint32_t length;
};

/* A packed ring's descriptor (section 2.8.13) and event suppression (2.8.14). */
struct virtqueue_packed_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t id;
    uint16_t flags;
};
_Static_assert(sizeof(struct virtqueue_packed_descriptor) == 16, "guest layout");

struct virtqueue_packed_event {
    uint16_t descriptor; /* index, and the wrap counter in the highest bit */
    uint16_t flags;
};
_Static_assert(sizeof(struct virtqueue_packed_event) == 4, "guest layout");

enum virtqueue_descriptor_flags {
    VIRTQUEUE_NEXT = 1,
    VIRTQUEUE_WRITE = 2,
    VIRTQUEUE_INDIRECT = 4,
    VIRTQUEUE_PACKED_AVAILABLE = 1 << 7,
    VIRTQUEUE_PACKED_USED = 1 << 15,
};

enum virtqueue_packed_event_flags {
    VIRTQUEUE_EVENT_ENABLE = 0,
    VIRTQUEUE_EVENT_DISABLE = 1,
    VIRTQUEUE_EVENT_DESCRIPTOR = 2, /* only with the event index */
};

/* One request: the buffers of its descriptor chain, translated. Readable segments come first. The
 * bytes behind the segments may change at any time. */
struct virtqueue_chain {
    uint16_t head;           /* its entry in the log */
    uint16_t id;             /* by which the driver knows it */
    uint16_t positions;      /* of the ring that it takes */
    uint16_t readable_count; /* segments the device may read */
    uint16_t writable_count; /* segments the device may write, after the readable ones */
    uint32_t table_length;   /* bytes; 0: its descriptors are in the ring */
    uint64_t table_address;  /* of the indirect descriptors */
    uint64_t readable_bytes;
    uint64_t writable_bytes; /* at most UINT32_MAX */
    struct iovec segments[VIRTIO_QUEUE_SIZE_MAX];
    uint64_t addresses[VIRTIO_QUEUE_SIZE_MAX]; /* guest-physical, of each segment */
};

struct virtqueue_layout;

/* Which parts of a packed ring's log are in use. Rebuilt from the shared state on recovery. */
struct virtqueue_log {
    uint16_t free_entries[VIRTIO_QUEUE_SIZE_MAX], free_entry_count;
    uint16_t free_slots[VIRTIO_QUEUE_SIZE_MAX], free_slot_count; /* of the descriptor log */
    uint16_t next_slot[VIRTIO_QUEUE_SIZE_MAX];
    struct {
        bool taken;
        uint16_t first, count; /* slots */
    } entries[VIRTIO_QUEUE_SIZE_MAX];
};

struct virtqueue {
    struct memory *memory;             /* borrowed */
    struct virtio_queue_state *shared; /* borrowed */
    const struct virtqueue_layout *layout;
    uint16_t size;              /* copied from the shared state and validated */
    bool event_index, indirect; /* negotiated */
    uint16_t in_flight;         /* taken or recovered, not yet completed */
    bool signalled_valid;
    uint64_t next_order, used_order; /* the shared state's copies are only written */
    uint64_t signalled;              /* used_order at the last look at whether to interrupt */
    const char *fault;               /* NULL, or the rule the driver broke */
    uint64_t descriptor_area, device_area;
    uint8_t *descriptors;
    uint16_t *available, *used; /* the driver's and the device's area in guest memory */
    unsigned peeked;            /* chains that were peeked at since the last virtqueue_publish */
    struct {
        uint16_t id, end; /* `end`: first position behind it, counted from used_order */
    } ahead[VIRTIO_QUEUE_SIZE_MAX];
    struct virtqueue_log log;
};

/* Forget all that belongs to an activation: positions and log (at reset, before the first
 * activation). */
void virtqueue_clear(struct virtio_queue_state *shared);

/* Attach to a queue that the transport has configured, going on from the positions in the shared
 * state. `features` are the negotiated ones. 0, or -EINVAL when size, alignment or an address is
 * impossible. */
int virtqueue_open(struct virtqueue *queue, struct memory *memory,
                   struct virtio_queue_state *shared, uint64_t features);

/* Take over what an earlier process left, as the table above says. `heads` receives the requests
 * to resubmit, in the order they were taken: read each again with virtqueue_resume. 0, or -EPROTO
 * when the log or the used index cannot be (the queue is broken then). Call right after open. */
int virtqueue_recover(struct virtqueue *queue, uint16_t heads[VIRTIO_QUEUE_SIZE_MAX],
                      unsigned *count);
int virtqueue_resume(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain);

/* Take the next request and log it. 1 with *chain filled, 0 when there is none, -EPROTO when the
 * driver broke a rule, now or before. */
int virtqueue_take(struct virtqueue *queue, struct virtqueue_chain *chain);
/* Whether virtqueue_take would find something; false on a broken queue. */
bool virtqueue_available(struct virtqueue *queue);
/* Publish a request that was taken, `written` bytes of its writable segments being valid. Does
 * nothing on a broken queue. */
void virtqueue_complete(struct virtqueue *queue, const struct virtqueue_chain *chain,
                        uint32_t written);
/* Whether the driver wants an interrupt for what was completed since the last call. */
bool virtqueue_interrupt_wanted(struct virtqueue *queue);

/* Read the chain `ahead` entries after the first that is not given back yet, without taking it: at
 * most one further than was peeked at since the last virtqueue_publish. 1 with *chain filled, 0
 * when the driver has not made so many available, -EPROTO when it broke a rule, now or before. */
int virtqueue_peek(struct virtqueue *queue, unsigned ahead, struct virtqueue_chain *chain);
/* How many chains can be peeked at; counting ends at `enough`. */
unsigned virtqueue_waiting(struct virtqueue *queue, unsigned enough);
/* Whether the first `count` chains, which were peeked at, are all that the ring can hold. */
bool virtqueue_exhausted(const struct virtqueue *queue, unsigned count);
/* Report that the first `bytes` of a peeked chain's writable segments were written. Before they are
 * published. */
void virtqueue_wrote(struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t bytes);
/* Give back the first `count` buffers that were peeked at, in their order, all at once. lengths[i]
 * bytes of the i-th were written. Nothing on a broken queue. */
void virtqueue_publish(struct virtqueue *queue, const uint32_t *lengths, unsigned count);
/* Go on with a stream that an earlier process left. 0, or -EPROTO when the driver changed what the
 * device had written (the queue is broken then). Call right after open. */
int virtqueue_recover_stream(struct virtqueue *queue);

/* Ask the driver not to kick while the device looks by itself. A hint: kicks may still come. */
void virtqueue_kicks_off(struct virtqueue *queue);
/* Ask for kicks again. True when requests came meanwhile without one: look again. */
bool virtqueue_kicks_on(struct virtqueue *queue);
/* The same, but only for more than the `waiting` chains that were there (peeked at or counted): a
 * device that needs several of them at once. True when there are more by now. */
bool virtqueue_kicks_on_beyond(struct virtqueue *queue, unsigned waiting);

/* Copy the used part of a chain (cheaper than assignment). */
void virtqueue_chain_copy(struct virtqueue_chain *to, const struct virtqueue_chain *from);
/* Copy bytes out of the readable or into the writable segments, from byte `offset` of them.
 * Returns the bytes copied, fewer than `size` where the segments end. */
size_t virtqueue_chain_read(const struct virtqueue_chain *chain, uint64_t offset, void *to,
                            size_t size);
size_t virtqueue_chain_write(const struct virtqueue_chain *chain, uint64_t offset, const void *from,
                             size_t size);

#endif
