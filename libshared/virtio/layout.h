/*
 * Inside the ring library: what a split and a packed virtqueue do differently, and how descriptors
 * become a chain. Everything that is the same for both is in ring.c.
 */
#ifndef POLYVISOR_VIRTIO_LAYOUT_H
#define POLYVISOR_VIRTIO_LAYOUT_H

#include "libshared/virtio/ring.h"

/* Each step of the log's protocol ends here: the compiler may move no store across. Tests define
 * it to let the "process" die at any of them. */
#ifndef VIRTQUEUE_STEP
#define VIRTQUEUE_STEP() atomic_signal_fence(memory_order_seq_cst)
#endif

/* Before each look at what the guest may be changing. Tests define it to change that. */
#ifndef VIRTQUEUE_LOOK
#define VIRTQUEUE_LOOK() ((void)0)
#endif

/* How the driver is told whether to kick. */
enum virtqueue_kicks { VIRTQUEUE_KICKS_OFF, VIRTQUEUE_KICKS_ON };

/* `offset` counts positions from next_order. */
struct virtqueue_layout {
    const char *overrun; /* the rule that is broken when `has` says so */
    /* Whether an area of the configured addresses and size fits memory: 0 with the pointers set, or
     * -EINVAL. */
    int (*attach)(struct virtqueue *queue, uint64_t driver_area);
    /* Whether the driver has made the position available: 1, 0, or -EPROTO when it made more
     * available than can be. */
    int (*has)(struct virtqueue *queue, unsigned offset);
    /* Positions of the chain there, which is available: 0 when that cannot be. */
    unsigned (*extent)(struct virtqueue *queue, unsigned offset);
    /* Read the chain there, which is available: 0 or -EPROTO. */
    int (*read)(struct virtqueue *queue, unsigned offset, struct virtqueue_chain *chain);
    /* Find an entry of the log for it and fill in what only this layout needs: 0 or -EPROTO. */
    int (*enter)(struct virtqueue *queue, struct virtqueue_chain *chain);
    /* Read the chain of a request in flight again: 0 or -EPROTO. */
    int (*resume)(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain);
    /* The entry is free again. */
    void (*leave)(struct virtqueue *queue, uint16_t head);
    /* On recovery, the entry is in flight: 0, or -EPROTO when it cannot be. Then, once all were
     * seen, the others are free: 0 or -EPROTO. */
    int (*adopt)(struct virtqueue *queue, uint16_t head);
    int (*adopted)(struct virtqueue *queue);
    /* Put a used entry into the ring at used_order: C3 and C4. */
    void (*show)(struct virtqueue *queue, uint16_t id, uint32_t length);
    /* Whether that was done since used_order was set: 1, 0, or -EPROTO when the driver meddled. */
    int (*shown)(struct virtqueue *queue);
    /* S1 to S4 for the first `count` chains that were peeked at. */
    void (*show_stream)(struct virtqueue *queue, const uint32_t *lengths, unsigned count);
    /* Finish an earlier process's S1 to S4: positions that are shown, or -EPROTO. */
    int (*recover_stream)(struct virtqueue *queue);
    /* Whether the driver wants an interrupt for the used entries since that position. */
    bool (*event)(struct virtqueue *queue, uint64_t since);
    /* Ask for kicks, or for none, when the position becomes available. */
    void (*kicks)(struct virtqueue *queue, enum virtqueue_kicks kicks, unsigned offset);
};

extern const struct virtqueue_layout virtqueue_split, virtqueue_packed;

/* The queue is broken: -EPROTO. */
int virtqueue_break(struct virtqueue *queue, const char *fault);

#define VIRTQUEUE_DESCRIPTOR_BYTES 16u /* in either layout */

/* One copy of a descriptor that the guest may be changing. From here on the compiler must use the
 * copy and never look into guest memory again. */
#define VIRTQUEUE_DESCRIPTOR_COPY(to, table, index)                                                \
    do {                                                                                           \
        _Static_assert(sizeof(*(to)) == VIRTQUEUE_DESCRIPTOR_BYTES, "a descriptor");               \
        VIRTQUEUE_LOOK();                                                                          \
        memcpy((to), (table) + (size_t)(index)*VIRTQUEUE_DESCRIPTOR_BYTES, sizeof(*(to)));         \
        __asm__ volatile("" : "+m"(*(to)));                                                        \
    } while (0)

void virtqueue_chain_begin(struct virtqueue_chain *chain);
/* Add a buffer: 0 or -EPROTO. */
int virtqueue_chain_add(struct virtqueue *queue, struct virtqueue_chain *chain, uint64_t address,
                        uint32_t length, bool writable);
/* A table of indirect descriptors, noted in the chain: its host address and number of descriptors,
 * or NULL with the queue broken. */
const uint8_t *virtqueue_chain_table(struct virtqueue *queue, struct virtqueue_chain *chain,
                                     uint64_t address, uint32_t length, unsigned *count);

#endif
