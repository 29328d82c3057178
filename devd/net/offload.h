/*
 * Ethernet frames and the work that the two sides of a network card may leave to each other:
 * checksums and segmentation (Virtual I/O Device 1.2, section 5.1.6.2 and 5.1.6.4), done here in
 * software where the other side cannot. TCP and UDP over IPv4 and IPv6, behind VLAN tags or not.
 *
 * Frames are hostile: everything is checked against the length before it is used. No state.
 */
#ifndef POLYVISOR_DEVD_NET_OFFLOAD_H
#define POLYVISOR_DEVD_NET_OFFLOAD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_ETHERNET_BYTES 14u
#define NET_FRAME_MIN      NET_ETHERNET_BYTES
#define NET_FRAME_MAX      (65535u + NET_ETHERNET_BYTES + 8u) /* one IP packet behind two VLAN tags */
#define NET_HEADERS_MAX    (NET_ETHERNET_BYTES + 8u + 60u + 60u)

/* Where the headers of an IP packet are. */
struct net_headers {
    bool is_ip6;
    bool is_fragment;         /* IPv4, not the whole datagram */
    uint8_t protocol;         /* IPPROTO_TCP, ...; of IPv6 the first header after the fixed one */
    unsigned network;         /* offset of the IP header */
    unsigned transport;       /* offset of what follows it */
    unsigned transport_bytes; /* up to the end of the IP packet */
    unsigned payload;         /* TCP and UDP: offset of the data; else as transport */
};

/* Find the headers. False when the frame is no complete IP packet. */
bool net_headers_find(const uint8_t *frame, size_t length, struct net_headers *headers);

/* Whether a header that came from elsewhere fits a frame of that length. */
bool net_header_valid(const struct virtio_net_hdr_v1 *header, size_t length);
/* Complete a checksum that the sender left to the card (VIRTIO_NET_HDR_F_NEEDS_CSUM), and clear
 * the flag. The header is valid. */
void net_checksum_complete(struct virtio_net_hdr_v1 *header, uint8_t *frame, size_t length);
/* Have the receiver complete, or not look at, the checksum of a TCP segment, whose field then holds
 * the sum of the pseudo header. */
void net_checksum_defer(struct virtio_net_hdr_v1 *header, uint8_t *frame,
                        const struct net_headers *headers);

/* Takes one frame made of a larger one; the bytes are only valid during the call. */
typedef void net_emit(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *frame,
                      size_t length);

/* How many frames net_segment would make of a frame. 0 when it cannot be cut. */
unsigned net_segment_count(const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                           size_t length);
/* Cut a TCP segment as its header says, each part with checksums. `scratch` has room for
 * NET_FRAME_MAX bytes. Emits nothing when it cannot be cut. */
void net_segment(const struct virtio_net_hdr_v1 *header, const uint8_t *frame, size_t length,
                 uint8_t *scratch, net_emit *emit, void *context);
/* Cut an IPv4 packet into fragments for that MTU (at least 68); a packet that may not be is
 * emitted as it is. `scratch` as above. */
void net_fragment(const uint8_t *frame, size_t length, unsigned mtu, uint8_t *scratch,
                  net_emit *emit, void *context);
/* Raise the maximum segment size that a TCP SYN offers, and make its checksum right. False when
 * the frame offers none. */
bool net_raise_segment_size(uint8_t *frame, const struct net_headers *headers, uint16_t size);

#endif
