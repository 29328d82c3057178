/* Frames from the guest. A frame is sent, then its buffer is given back: a process that dies in
 * between sends that one frame twice, which Ethernet allows. */
#include "devd/net/card.h"
#include "devd/virtio.h"
#include "libshared/base/log.h"
#include "libshared/base/vectors.h"
#include <errno.h>

#define FRAMES_A_TURN 256u
#define HEAD_BYTES    64u /* enough for the addresses and ports of a flow */

/* What the driver may ask for, by feature. */
static bool header_allowed(const struct net_card *card, const struct virtio_net_hdr_v1 *header)
{
    uint64_t features = card->device->virtio->driver_features;
    unsigned type = header->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

    if ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
        !(features & NET_FEATURE(VIRTIO_NET_F_CSUM))) {
        return false;
    }
    if ((header->gso_type & VIRTIO_NET_HDR_GSO_ECN) &&
        !(features & NET_FEATURE(VIRTIO_NET_F_HOST_ECN))) {
        return false;
    }
    return type == VIRTIO_NET_HDR_GSO_NONE ||
           (type == VIRTIO_NET_HDR_GSO_TCPV4 && (features & NET_FEATURE(VIRTIO_NET_F_HOST_TSO4))) ||
           (type == VIRTIO_NET_HDR_GSO_TCPV6 && (features & NET_FEATURE(VIRTIO_NET_F_HOST_TSO6)));
}

static void flow_note(struct net_card *card, unsigned pair)
{
    uint8_t head[HEAD_BYTES];
    size_t length = virtqueue_chain_read(&card->sending, NET_HEADER_BYTES, head, sizeof(head));

    card->flows[net_flow(head, length)] = (uint8_t)pair;
}

/* What counts for limits; what is too much is dropped. */
static uint64_t frame_bytes(const struct virtqueue_chain *chain)
{
    uint64_t bytes = chain->readable_bytes;

    bytes = bytes > NET_HEADER_BYTES ? bytes - NET_HEADER_BYTES : 0;
    return bytes < NET_FRAME_MAX ? bytes : NET_FRAME_MAX;
}

/* The chain in card->sending: 0, or -EAGAIN. */
static int frame_send(struct net_card *card, unsigned pair)
{
    struct virtqueue_chain *chain = &card->sending;
    uint64_t length = chain->readable_bytes - NET_HEADER_BYTES;
    struct virtio_net_hdr_v1 header;
    struct iovec *parts = chain->segments;

    if (chain->readable_bytes < NET_HEADER_BYTES + NET_FRAME_MIN || length > NET_FRAME_MAX) {
        return 0;
    }
    virtqueue_chain_read(chain, 0, &header, sizeof(header));
    header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.num_buffers = 0;
    if (!header_allowed(card, &header) || !net_header_valid(&header, (size_t)length)) {
        if (device_may_complain(card->device)) {
            log_warning("the driver sent a frame whose header makes no sense: dropped");
        }
        return 0;
    }
    if (!card->cable || !card->carrier) {
        return 0;
    }
    if (card->pairs > 1) {
        flow_note(card, pair);
    }
    unsigned count = vectors_skip(&parts, chain->readable_count, NET_HEADER_BYTES);
    return card->operations->send(card->backend, &header, parts, count, (size_t)length);
}

enum virtio_stream net_card_transmit(struct net_card *card, unsigned queue)
{
    struct virtqueue *ring = virtio_queue_ring(card->device, queue);
    enum virtio_stream result = VIRTIO_STREAM_MORE;

    for (unsigned sent = 0; ring && sent < FRAMES_A_TURN; sent++) {
        if (card->refused) {
            result = VIRTIO_STREAM_BLOCKED;
            break;
        }
        int status = virtqueue_peek(ring, 0, &card->sending);
        if (status < 0) {
            virtio_device_fail(card->device, ring->fault);
        }
        if (status <= 0) {
            result = VIRTIO_STREAM_EMPTY;
            break;
        }
        if (!net_limit_transmit(card, queue / 2, frame_bytes(&card->sending))) {
            result = VIRTIO_STREAM_BLOCKED;
            break;
        }
        if (frame_send(card, queue / 2) == -EAGAIN) {
            card->refused = true;
            continue;
        }
        net_limit_transmitted(card, queue / 2);
        const uint32_t nothing_written = 0;
        virtqueue_publish(ring, &nothing_written, 1);
    }
    net_card_received(card); /* what the backend answered at once */
    return ring ? result : VIRTIO_STREAM_BLOCKED;
}

void net_card_writable(void *context)
{
    struct net_card *card = context;

    card->refused = false;
    for (unsigned pair = 0; pair < card->pairs && !card->refused; pair++) {
        virtio_queue_pump(card->device, net_transmit_queue(pair));
    }
}
