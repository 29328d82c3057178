/*
 * Frames for the guest. They are written into the buffers that the driver offered, without taking
 * them; one store then gives back all buffers of a frame. A process that dies before that store
 * has changed nothing but bytes nobody looks at.
 */
#include "devd/net/card.h"
#include "devd/virtio.h"
#include <limits.h>
#include <stddef.h>

/* Buffers of one frame: a driver of small pages uses some 44 for the largest. */
#define BUFFERS_MAX 128u

enum delivery { DELIVERED, NO_ROOM, DROPPED };

/* Write bytes [*done, ...) of header and frame into the chain; how many. */
static uint32_t chain_fill(const struct virtqueue_chain *chain,
                           const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                           size_t length, size_t done)
{
    size_t written = 0;

    if (done < NET_HEADER_BYTES) {
        written = virtqueue_chain_write(chain, 0, (const uint8_t *)header + done,
                                        NET_HEADER_BYTES - done);
        done += written;
    }
    if (done >= NET_HEADER_BYTES) {
        size_t offset = done - NET_HEADER_BYTES;
        written += virtqueue_chain_write(chain, written, frame + offset, length - offset);
    }
    return (uint32_t)written;
}

/* How many buffers there were is only known at the end: put it where the header went. */
static void count_store(const struct virtqueue_chain *first, uint16_t count)
{
    virtqueue_chain_write(first, offsetof(struct virtio_net_hdr_v1, num_buffers), &count,
                          sizeof(count));
}

/* Fill buffers until the frame is in. *seen: how many were looked at. */
static enum delivery frame_write(struct net_card *card, struct virtqueue *ring,
                                 const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                                 size_t length, unsigned *seen)
{
    uint32_t lengths[BUFFERS_MAX];
    bool mergeable = card->device->virtio->driver_features & NET_FEATURE(VIRTIO_NET_F_MRG_RXBUF);
    unsigned most = mergeable ? BUFFERS_MAX : 1, count = 0;
    struct virtqueue_chain *chain = &card->receiving;
    struct virtio_net_hdr_v1 counted = *header;
    size_t total = NET_HEADER_BYTES + length;
    size_t done = 0;

    counted.num_buffers = 1;
    while (done < total && count < most) {
        int status = virtqueue_peek(ring, count, chain);
        *seen = count;
        if (status < 0 || (status > 0 && chain->writable_bytes < NET_HEADER_BYTES)) {
            virtio_device_fail(card->device, status < 0 ? ring->fault : "receive buffer too small");
            return DROPPED;
        }
        if (status == 0) {
            return NO_ROOM;
        }
        uint32_t written = chain_fill(chain, &counted, frame, length, done);
        virtqueue_wrote(ring, chain, written);
        lengths[count++] = written;
        done += written;
    }
    if (done < total) {
        return DROPPED; /* a driver without mergeable buffers whose own are too small */
    }
    if (count > 1 && virtqueue_peek(ring, 0, chain) == 1) {
        count_store(chain, (uint16_t)count);
    }
    virtqueue_publish(ring, lengths, count);
    return DELIVERED;
}

/* Write it; what is too little room must have been so after a kick was asked for. */
static enum delivery frame_deliver(struct net_card *card, unsigned pair,
                                   const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                                   size_t length)
{
    struct virtqueue *ring = virtio_queue_ring(card->device, net_receive_queue(pair));
    enum delivery result;
    unsigned seen = UINT_MAX;
    bool more;

    if (!ring) {
        return DROPPED;
    }
    do {
        unsigned before = seen;
        result = frame_write(card, ring, header, frame, length, &seen);
        if (result == NO_ROOM && virtqueue_exhausted(ring, seen)) {
            result = DROPPED; /* all the buffers there can be do not hold it */
        }
        more = seen != before;
    } while (result == NO_ROOM && more && virtqueue_kicks_on_beyond(ring, seen));
    card->unsignalled[pair] |= result == DELIVERED;
    return result;
}

/* ---- Frames that are larger than the driver takes ---- */

struct cutting {
    struct net_card *card;
    unsigned pair;
};

static void cut_deliver(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *frame,
                        size_t length)
{
    struct cutting *cutting = context;
    /* What finds no room is lost, as on any wire. */
    frame_deliver(cutting->card, cutting->pair, header, frame, length);
}

/* Whether so many chains wait. If not, a kick is asked for when there are more. */
static bool room_for(struct virtqueue *ring, unsigned count)
{
    unsigned waiting = virtqueue_waiting(ring, count);

    while (waiting < count) {
        unsigned before = waiting;
        if (!virtqueue_kicks_on_beyond(ring, before)) {
            return false;
        }
        waiting = virtqueue_waiting(ring, count);
        if (waiting <= before) {
            return false; /* the driver broke the ring */
        }
    }
    return true;
}

/* Segment in software. True: done with the frame. */
static bool frame_cut(struct net_card *card, unsigned pair, const struct virtio_net_hdr_v1 *header,
                      const uint8_t *frame, size_t length)
{
    struct cutting cutting = {card, pair};
    struct virtqueue *ring = virtio_queue_ring(card->device, net_receive_queue(pair));
    unsigned count = net_segment_count(header, frame, length);

    /* Rather none than some, unless the ring can never hold them all. */
    if (ring && count <= ring->size / 2u && !room_for(ring, count)) {
        return false;
    }
    net_segment(header, frame, length, card->segment, cut_deliver, &cutting);
    return true;
}

static bool guest_segments(const struct net_card *card, const struct virtio_net_hdr_v1 *header)
{
    uint64_t on = card->controls.offloads;
    unsigned type = header->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    unsigned needed =
        type == VIRTIO_NET_HDR_GSO_TCPV4 ? VIRTIO_NET_F_GUEST_TSO4 : VIRTIO_NET_F_GUEST_TSO6;

    return (on & NET_FEATURE(needed)) && (!(header->gso_type & VIRTIO_NET_HDR_GSO_ECN) ||
                                          (on & NET_FEATURE(VIRTIO_NET_F_GUEST_ECN)));
}

/* The length of the headers of a segmentable frame, which the guest is told; 0 when it is none. */
static uint16_t segment_headers(const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                                size_t length)
{
    struct net_headers headers;

    if (net_segment_count(header, frame, length) == 0 ||
        !net_headers_find(frame, length, &headers)) {
        return 0;
    }
    return (uint16_t)headers.payload;
}

static unsigned pair_of(const struct net_card *card, const uint8_t *frame, size_t length)
{
    unsigned pair = card->controls.pairs > 1 ? card->flows[net_flow(frame, length)] : 0;
    return pair < card->controls.pairs ? pair : 0;
}

/* A frame that the guest is to get. True: done with it. */
static bool net_card_take(struct net_card *card, struct virtio_net_hdr_v1 *header, uint8_t *frame,
                          size_t length)
{
    unsigned pair = pair_of(card, frame, length);
    bool checks = card->controls.offloads & NET_FEATURE(VIRTIO_NET_F_GUEST_CSUM);
    header->flags &= checks ? VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID
                            : VIRTIO_NET_HDR_F_NEEDS_CSUM;
    if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
        header->hdr_len = segment_headers(header, frame, length);
        if (header->hdr_len == 0) {
            return true;
        }
        if (!guest_segments(card, header)) {
            bool done = frame_cut(card, pair, header, frame, length);
            card->starving |= !done;
            return done;
        }
    } else if (!checks && (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
        net_checksum_complete(header, frame, length);
    }
    enum delivery result = frame_deliver(card, pair, header, frame, length);
    card->starving |= result == NO_ROOM;
    return result != NO_ROOM;
}

bool net_card_receive(void *context, const struct virtio_net_hdr_v1 *from, uint8_t *frame,
                      size_t length)
{
    struct net_card *card = context;
    struct virtio_net_hdr_v1 header = *from;

    if (length < NET_FRAME_MIN || length > NET_FRAME_MAX || !net_header_valid(&header, length) ||
        !card->device->virtio->active || !card->cable ||
        !net_filter_accepts(&card->controls, frame)) {
        return true; /* dropped */
    }
    if (!net_limit_receive(card, length)) {
        return false;
    }
    bool done = net_card_take(card, &header, frame, length);
    if (done) {
        net_limit_received(card);
    }
    return done;
}
void net_card_received(void *context)
{
    struct net_card *card = context;

    for (unsigned pair = 0; pair < card->pairs; pair++) {
        if (card->unsignalled[pair]) {
            card->unsignalled[pair] = false;
            virtio_queue_signal(card->device, net_receive_queue(pair));
        }
    }
}

enum virtio_stream net_card_refill(struct net_card *card, unsigned queue)
{
    (void)queue;
    if (!card->starving) {
        return VIRTIO_STREAM_BLOCKED; /* buffers alone are no reason to look */
    }
    card->starving = false;
    card->operations->resume(card->backend);
    net_card_received(card);
    return VIRTIO_STREAM_BLOCKED; /* who found no room has asked for a kick */
}
