#include "devd/net/offload.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

/* Offsets within headers (RFC 791, 8200, 9293, 768). */
enum ip4_field { IP4_LENGTH = 2, IP4_ID = 4, IP4_FRAGMENT = 6, IP4_PROTOCOL = 9, IP4_SUM = 10 };
enum ip4_flag { IP4_DONT_FRAGMENT = 0x4000, IP4_MORE = 0x2000, IP4_OFFSET = 0x1fff };
enum ip6_field { IP6_LENGTH = 4, IP6_NEXT = 6 };
enum tcp_field { TCP_SEQUENCE = 4, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_SUM = 16 };
enum tcp_flag { TCP_FIN = 1, TCP_SYN = 2, TCP_PUSH = 8, TCP_CWR = 0x80 };

#define IP4_BYTES 20u
#define IP6_BYTES 40u
#define TCP_BYTES 20u
#define UDP_BYTES 8u

#define TCP_OPTION_END  0
#define TCP_OPTION_NOP  1
#define TCP_OPTION_SIZE 2 /* maximum segment size */

static uint16_t load16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void store16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t load32(const uint8_t *at)
{
    return (uint32_t)load16(at) << 16 | load16(at + 2);
}

static void store32(uint8_t *at, uint32_t value)
{
    store16(at, (uint16_t)(value >> 16));
    store16(at + 2, (uint16_t)value);
}

/* ---- Sums (RFC 1071) ---- */

/* The ones' complement sum of bytes in network order, not folded. The sum of an odd number of
 * bytes is that with a zero behind them. */
static uint64_t sum_bytes(const uint8_t *bytes, size_t length)
{
    uint64_t sum = 0;
    size_t words = length / 4;

    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, bytes + 4 * i, sizeof(word));
        sum += word;
    }
    if (length % 4) {
        uint32_t word = 0;
        memcpy(&word, bytes + 4 * words, length % 4);
        sum += word;
    }
    return sum;
}

/* Folded to 16 bits, in the order of the host: the sum does not mind, as long as nobody looks. */
static uint16_t sum_fold(uint64_t sum)
{
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

static void sum_store(uint8_t *at, uint16_t folded)
{
    memcpy(at, &folded, sizeof(folded));
}

/* Of the pseudo header: addresses, protocol and length. */
static uint64_t sum_pseudo(const uint8_t *frame, const struct net_headers *headers, size_t length)
{
    const uint8_t *network = frame + headers->network;
    uint64_t sum = headers->is_ip6 ? sum_bytes(network + 8, 32) : sum_bytes(network + 12, 8);

    return sum + htonl((uint32_t)length) + htons(headers->protocol);
}

/* ---- Headers ---- */

static bool find_transport(const uint8_t *frame, struct net_headers *headers)
{
    unsigned left = headers->transport_bytes;

    headers->payload = headers->transport;
    if (headers->is_fragment) {
        return true;
    }
    if (headers->protocol == IPPROTO_TCP) {
        if (left < TCP_BYTES) {
            return false;
        }
        unsigned bytes = (frame[headers->transport + TCP_OFFSET] >> 4) * 4u;
        if (bytes < TCP_BYTES || bytes > left) {
            return false;
        }
        headers->payload += bytes;
    } else if (headers->protocol == IPPROTO_UDP) {
        if (left < UDP_BYTES) {
            return false;
        }
        headers->payload += UDP_BYTES;
    }
    return true;
}

static bool find_ip4(const uint8_t *frame, size_t length, struct net_headers *headers)
{
    const uint8_t *ip = frame + headers->network;
    size_t left = length - headers->network;

    if (left < IP4_BYTES || ip[0] >> 4 != 4) {
        return false;
    }
    unsigned bytes = (ip[0] & 15) * 4u, total = load16(ip + IP4_LENGTH);
    if (bytes < IP4_BYTES || bytes > total || total > left) {
        return false;
    }
    headers->is_ip6 = false;
    headers->is_fragment = load16(ip + IP4_FRAGMENT) & (IP4_MORE | IP4_OFFSET);
    headers->protocol = ip[IP4_PROTOCOL];
    headers->transport = headers->network + bytes;
    headers->transport_bytes = total - bytes;
    return find_transport(frame, headers);
}

static bool find_ip6(const uint8_t *frame, size_t length, struct net_headers *headers)
{
    const uint8_t *ip = frame + headers->network;
    size_t left = length - headers->network;

    if (left < IP6_BYTES || ip[0] >> 4 != 6 || load16(ip + IP6_LENGTH) > left - IP6_BYTES) {
        return false;
    }
    headers->is_ip6 = true;
    headers->is_fragment = false;
    headers->protocol = ip[IP6_NEXT];
    headers->transport = headers->network + IP6_BYTES;
    headers->transport_bytes = load16(ip + IP6_LENGTH);
    return find_transport(frame, headers);
}

bool net_headers_find(const uint8_t *frame, size_t length, struct net_headers *headers)
{
    unsigned type_at = 12;

    if (length < NET_ETHERNET_BYTES) {
        return false;
    }
    uint16_t type = load16(frame + type_at);
    for (unsigned tags = 0; tags < 2 && (type == ETH_P_8021Q || type == ETH_P_8021AD); tags++) {
        type_at += 4;
        if (length < type_at + 2) {
            return false;
        }
        type = load16(frame + type_at);
    }
    headers->network = type_at + 2;
    if (type == ETH_P_IP) {
        return find_ip4(frame, length, headers);
    }
    return type == ETH_P_IPV6 && find_ip6(frame, length, headers);
}

/* ---- What the header of a frame asks for ---- */

bool net_header_valid(const struct virtio_net_hdr_v1 *header, size_t length)
{
    unsigned type = header->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

    if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        size_t field = (size_t)header->csum_start + header->csum_offset;
        if (header->csum_start < NET_ETHERNET_BYTES || field + 2 > length) {
            return false;
        }
    }
    if (type == VIRTIO_NET_HDR_GSO_NONE) {
        return header->gso_type == VIRTIO_NET_HDR_GSO_NONE;
    }
    /* Section 5.1.6.2: segmentation comes with checksums. */
    return (type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6) &&
           header->gso_size > 0 && (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

void net_checksum_complete(struct virtio_net_hdr_v1 *header, uint8_t *frame, size_t length)
{
    uint8_t *field = frame + header->csum_start + header->csum_offset;
    uint16_t sum =
        (uint16_t)~sum_fold(sum_bytes(frame + header->csum_start, length - header->csum_start));

    /* A UDP sum of zero would say that there is none; for TCP both mean the same (RFC 768). */
    sum_store(field, sum ? sum : 0xffff);
    header->flags &= (uint8_t)~VIRTIO_NET_HDR_F_NEEDS_CSUM;
}

void net_checksum_defer(struct virtio_net_hdr_v1 *header, uint8_t *frame,
                        const struct net_headers *headers)
{
    header->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header->csum_start = (uint16_t)headers->transport;
    header->csum_offset = TCP_SUM;
    sum_store(frame + headers->transport + TCP_SUM,
              sum_fold(sum_pseudo(frame, headers, headers->transport_bytes)));
}

/* ---- Segmentation ---- */

/* The headers and the bytes of data of a segment that can be cut: 0 when it cannot. */
static unsigned segment_payload(const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                                size_t length, struct net_headers *headers)
{
    unsigned type = header->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

    if (!net_headers_find(frame, length, headers) || headers->protocol != IPPROTO_TCP ||
        headers->is_fragment || headers->is_ip6 != (type == VIRTIO_NET_HDR_GSO_TCPV6) ||
        header->gso_size == 0) {
        return 0;
    }
    return headers->transport + headers->transport_bytes - headers->payload;
}

unsigned net_segment_count(const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                           size_t length)
{
    struct net_headers headers;
    unsigned payload = segment_payload(header, frame, length, &headers);

    return payload ? (payload + header->gso_size - 1) / header->gso_size : 0;
}

static void ip4_sum_set(uint8_t *ip, unsigned bytes)
{
    store16(ip + IP4_SUM, 0);
    sum_store(ip + IP4_SUM, (uint16_t)~sum_fold(sum_bytes(ip, bytes)));
}

/* Lengths, identification and checksums of one part, which is in place. */
static void segment_finish(uint8_t *frame, const struct net_headers *headers, unsigned number,
                           unsigned transport_bytes)
{
    uint8_t *ip = frame + headers->network, *tcp = frame + headers->transport;

    if (headers->is_ip6) {
        store16(ip + IP6_LENGTH, (uint16_t)transport_bytes);
    } else {
        unsigned bytes = headers->transport - headers->network;
        store16(ip + IP4_LENGTH, (uint16_t)(bytes + transport_bytes));
        store16(ip + IP4_ID, (uint16_t)(load16(ip + IP4_ID) + number));
        ip4_sum_set(ip, bytes);
    }
    store16(tcp + TCP_SUM, 0);
    uint64_t sum = sum_pseudo(frame, headers, transport_bytes) + sum_bytes(tcp, transport_bytes);
    sum_store(tcp + TCP_SUM, (uint16_t)~sum_fold(sum));
}

void net_segment(const struct virtio_net_hdr_v1 *header, const uint8_t *frame, size_t length,
                 uint8_t *scratch, net_emit *emit, void *context)
{
    static const struct virtio_net_hdr_v1 plain;
    struct net_headers headers = {0};
    unsigned payload = segment_payload(header, frame, length, &headers);
    unsigned tcp_bytes = headers.payload - headers.transport;

    for (unsigned done = 0, number = 0; done < payload; number++) {
        unsigned part = payload - done < header->gso_size ? payload - done : header->gso_size;
        uint8_t *tcp = scratch + headers.transport;

        memcpy(scratch, frame, headers.payload);
        memcpy(scratch + headers.payload, frame + headers.payload + done, part);
        store32(tcp + TCP_SEQUENCE, load32(tcp + TCP_SEQUENCE) + done);
        if (done) {
            tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
        }
        done += part;
        if (done < payload) {
            tcp[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PUSH);
        }
        segment_finish(scratch, &headers, number, tcp_bytes + part);
        emit(context, &plain, scratch, headers.payload + part);
    }
}

void net_fragment(const uint8_t *frame, size_t length, unsigned mtu, uint8_t *scratch,
                  net_emit *emit, void *context)
{
    static const struct virtio_net_hdr_v1 plain;
    struct net_headers headers;

    if (!net_headers_find(frame, length, &headers) || headers.is_ip6 ||
        load16(frame + headers.network + IP4_FRAGMENT) & IP4_DONT_FRAGMENT) {
        memcpy(scratch, frame, length);
        emit(context, &plain, scratch, length);
        return;
    }
    unsigned ip_bytes = headers.transport - headers.network;
    unsigned most = (mtu - ip_bytes) & ~7u; /* RFC 791, section 2.3: offsets count 8 bytes */
    unsigned field = load16(frame + headers.network + IP4_FRAGMENT);
    for (unsigned done = 0; done < headers.transport_bytes;) {
        unsigned left = headers.transport_bytes - done;
        unsigned part = left < most ? left : most;
        uint8_t *ip = scratch + headers.network;

        memcpy(scratch, frame, headers.transport);
        memcpy(scratch + headers.transport, frame + headers.transport + done, part);
        store16(ip + IP4_LENGTH, (uint16_t)(ip_bytes + part));
        uint16_t more = part < left ? IP4_MORE : field & IP4_MORE;
        store16(ip + IP4_FRAGMENT, (uint16_t)(((field & IP4_OFFSET) + done / 8) | more));
        ip4_sum_set(ip, ip_bytes);
        done += part;
        emit(context, &plain, scratch, headers.transport + part);
    }
}

/* ---- The segment size that a SYN offers ---- */

/* The value of that option, or NULL. */
static uint8_t *find_segment_size(uint8_t *options, uint8_t *end)
{
    while (options < end && *options != TCP_OPTION_END) {
        if (*options == TCP_OPTION_NOP) {
            options++;
            continue;
        }
        if (end - options < 2 || options[1] < 2 || options[1] > end - options) {
            return NULL;
        }
        if (options[0] == TCP_OPTION_SIZE && options[1] == 4) {
            return options + 2;
        }
        options += options[1];
    }
    return NULL;
}

bool net_raise_segment_size(uint8_t *frame, const struct net_headers *headers, uint16_t size)
{
    uint8_t *tcp = frame + headers->transport;

    if (headers->protocol != IPPROTO_TCP || headers->is_fragment || !(tcp[TCP_FLAGS] & TCP_SYN)) {
        return false;
    }
    uint8_t *option = find_segment_size(tcp + TCP_BYTES, frame + headers->payload);
    if (!option || load16(option) >= size) {
        return false;
    }
    store16(option, size);
    store16(tcp + TCP_SUM, 0);
    uint64_t sum = sum_pseudo(frame, headers, headers->transport_bytes) +
                   sum_bytes(tcp, headers->transport_bytes);
    sum_store(tcp + TCP_SUM, (uint16_t)~sum_fold(sum));
    return true;
}
