/*
 * The device side of a split virtqueue in guest memory (Virtual I/O Device 1.2, section 2.7), with
 * indirect descriptors, event index, and a log of requests in flight that outlives the process.
 *
 * The guest is hostile: every index, address and length is copied once, checked, then used. A rule
 * broken by the driver breaks the queue (`fault` says which rule); nothing is taken from it or
 * published to it any more until the device is reset. A queue belongs to one thread.
 *
 * The log. A request is known by its head descriptor. The log's entry for that head, next_order,
 * next_available and next_used are in the shared state (libshared/virtio/state.h), which survives
 * the device process. The low 16 bits of next_order always are the index of the next entry to take
 * from the available ring; next_available is their copy for other readers. Taking and completing
 * are sequences of single stores that the compiler may not reorder (the kernel makes all stores a
 * dead process had executed visible to the next one):
 *
 *   take      T1  inflight[head].order = next_order
 *             T2  inflight[head].status = IN_FLIGHT
 *             T3  next_order = next_order + 1
 *             T4  next_available = next_order (low 16 bits)
 *   complete  C1  inflight[head].written = bytes (guest buffers are written and reported before)
 *             C2  inflight[head].status = DONE
 *             C3  used.ring[next_used % size] = {head, written}
 *             C4  used.idx = next_used + 1
 *             C5  inflight[head].status = FREE
 *             C6  next_used = next_used + 1
 *
 * A process that died left one of these behind, and virtqueue_recover decides:
 *
 *   after     seen by the next process                        it does
 *   T1        status FREE                                     nothing: the entry is taken again
 *   T2        an IN_FLIGHT entry with order == next_order     finishes T3 and T4
 *   T3        next_available differs from next_order          finishes T4
 *   T4, C1    IN_FLIGHT                                       resubmits: requests are repeatable
 *   C2, C3    DONE, used.idx == next_used                     publishes with the logged `written`
 *   C4        DONE, used.idx == next_used + 1                 is published: finishes C5 and C6
 *   C5        no DONE, used.idx == next_used + 1              finishes C6
 *
 * Only one request is between C2 and C6 at any time, so DONE is never ambiguous. Recovery uses the
 * same single steps, so that dying during recovery is no different. A kick or an interrupt that
 * was lost with the process is made good by looking at every queue, and by interrupting, once
 * after recovery.
 *
 * Streams. A queue whose buffers are used strictly in order, and whose work may be lost or done
 * twice (a network's frames), needs no log: it is read with virtqueue_peek, which changes nothing,
 * and several buffers are given back at once with virtqueue_publish:
 *
 *   publish   S1  used.ring[next_used ...] = elements (guest buffers are written before)
 *             S2  used.idx = next_used + count: all of them become visible in one store
 *             S3  next_order = next_order + count, next_available its low 16 bits
 *             S4  next_used = next_used + count
 *
 * What used.idx says is what happened, so virtqueue_recover_stream sets the rest by it. A queue is
 * used one way or the other, never both, between two resets.
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

/* Guest layout, little-endian like every host this builds for (section 2.7.5 to 2.7.8). */
struct virtqueue_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};
_Static_assert(sizeof(struct virtqueue_descriptor) == 16, "guest layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

enum virtqueue_descriptor_flags {
    VIRTQUEUE_NEXT = 1,
    VIRTQUEUE_WRITE = 2,
    VIRTQUEUE_INDIRECT = 4,
};

struct virtqueue_used_element {
    uint32_t id;
    uint32_t length;
};

/* One request: the buffers of its descriptor chain, translated. Readable segments come first. The
 * bytes behind the segments may change at any time. */
struct virtqueue_chain {
    uint16_t head;
    uint16_t readable_count; /* segments the device may read */
    uint16_t writable_count; /* segments the device may write, after the readable ones */
    uint64_t readable_bytes;
    uint64_t writable_bytes; /* at most UINT32_MAX */
    struct iovec segments[VIRTIO_QUEUE_SIZE_MAX];
    uint64_t addresses[VIRTIO_QUEUE_SIZE_MAX]; /* guest-physical, of each segment */
};

struct virtqueue {
    struct memory *memory;             /* borrowed */
    struct virtio_queue_state *shared; /* borrowed */
    uint16_t size;                     /* copied from the shared state and validated */
    bool event_index, indirect;        /* negotiated */
    uint16_t next_used, next_available;
    uint16_t in_flight; /* taken or recovered, not yet completed */
    uint16_t signalled; /* next_used at the last look at whether to interrupt */
    bool signalled_valid;
    const char *fault; /* NULL, or the rule the driver broke */
    uint64_t device_area;
    const uint8_t *descriptors;
    uint16_t *available, *used; /* the driver's and the device's area in guest memory */
};

/* Forget all that belongs to an activation: indexes and log (at reset, before the first
 * activation). */
void virtqueue_clear(struct virtio_queue_state *shared);

/* Attach to a queue that the transport has configured, going on from the indexes in the shared
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
/* How many chains the driver has made available that were not taken yet. */
unsigned virtqueue_waiting(struct virtqueue *queue);
/* Publish a request that was taken, `written` bytes of its writable segments being valid. Does
 * nothing on a broken queue. */
void virtqueue_complete(struct virtqueue *queue, const struct virtqueue_chain *chain,
                        uint32_t written);
/* Whether the driver wants an interrupt for what was completed since the last call. */
bool virtqueue_interrupt_wanted(struct virtqueue *queue);

/* Read the chain `ahead` entries after the first that is not given back yet, without taking it. 1
 * with *chain filled, 0 when the driver has not made so many available, -EPROTO when it broke a
 * rule, now or before. */
int virtqueue_peek(struct virtqueue *queue, unsigned ahead, struct virtqueue_chain *chain);
/* Report that the first `bytes` of a peeked chain's writable segments were written. Before they are
 * published. */
void virtqueue_wrote(struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t bytes);
/* Give back the first `count` buffers, in their order, all at once. Nothing on a broken queue. */
void virtqueue_publish(struct virtqueue *queue, const struct virtqueue_used_element *elements,
                       unsigned count);
/* Go on with a stream that an earlier process left. 0, or -EPROTO when the driver changed what the
 * device had written (the queue is broken then). Call right after open. */
int virtqueue_recover_stream(struct virtqueue *queue);

/* Ask the driver not to kick while the device looks by itself. A hint: kicks may still come. */
void virtqueue_kicks_off(struct virtqueue *queue);
/* Ask for kicks again. True when requests came meanwhile without one: look again. */
bool virtqueue_kicks_on(struct virtqueue *queue);
/* The same, but only for more than the `waiting` chains that were there: a device that needs several
 * of them at once. True when there are more by now. */
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
