/* Checksums and segmentation in software, against sums that are computed the plain way. */
#include "devd/net/offload.h"
#include "tests/unit/suite.h"
#include <netinet/in.h>

static uint8_t frame[NET_FRAME_MAX], scratch[NET_FRAME_MAX], joined[NET_FRAME_MAX];
static size_t joined_bytes;
static unsigned pieces;

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* RFC 1071, byte pair by byte pair. */
static unsigned add(unsigned sum, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        sum += i % 2 ? bytes[i] : (unsigned)bytes[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

/* 0xffff when the transport's checksum, with its pseudo header, is right. */
static unsigned transport_sum(const uint8_t *packet, bool ip6, unsigned protocol, unsigned bytes)
{
    unsigned header = ip6 ? 40 : 20;
    uint8_t tail[4] = {0, (uint8_t)protocol, (uint8_t)(bytes >> 8), (uint8_t)bytes};
    unsigned sum = ip6 ? add(0, packet + 8, 32) : add(0, packet + 12, 8);

    return add(add(sum, tail, 4), packet + header, bytes);
}

/* TCP or UDP of `payload` bytes behind `tag` bytes of VLAN tags; the frame's length. */
static size_t make(bool ip6, unsigned protocol, unsigned tag, unsigned payload)
{
    unsigned header = ip6 ? 40 : 20, transport = protocol == IPPROTO_TCP ? 32 : 8;
    uint8_t *packet = frame + 14 + tag, *next = packet + header;

    memset(frame, 0x5a, 14 + tag);
    if (tag) {
        put16(frame + 12, 0x8100);
    }
    put16(packet - 2, ip6 ? 0x86dd : 0x0800);
    memset(packet, 0, header + transport);
    for (unsigned i = 0; i < 8; i++) {
        packet[(ip6 ? 8 : 12) + i] = (uint8_t)(i * 37 + 1);
    }
    if (ip6) {
        packet[0] = 0x60;
        put16(packet + 4, transport + payload);
        packet[6] = (uint8_t)protocol;
    } else {
        packet[0] = 0x45;
        put16(packet + 2, header + transport + payload);
        put16(packet + 4, 0x1000);
        packet[9] = (uint8_t)protocol;
    }
    put16(next, 1234);
    put16(next + 2, 80);
    if (protocol == IPPROTO_TCP) {
        put16(next + 6, 1000); /* sequence number */
        next[12] = 0x80;
        next[13] = 0x80 | 0x10 | 0x08 | 0x01; /* CWR, ACK, PSH, FIN */
        memcpy(next + 20, "\1\1\10\12", 4);
    } else {
        put16(next + 4, 8 + payload);
    }
    for (unsigned i = 0; i < payload; i++) {
        next[transport + i] = (uint8_t)(i * 13 + (i >> 8));
    }
    return 14 + tag + header + transport + payload;
}

static struct virtio_net_hdr_v1 segment_header(bool ip6, unsigned tag, unsigned size)
{
    return (struct virtio_net_hdr_v1){
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = ip6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4,
        .gso_size = (uint16_t)size,
        .csum_start = (uint16_t)(14 + tag + (ip6 ? 40 : 20)),
        .csum_offset = 16,
    };
}

struct expected {
    bool ip6;
    unsigned tag, size, payload;
};

static void take_segment(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *bytes,
                         size_t length)
{
    const struct expected *expected = context;
    const uint8_t *packet = bytes + 14 + expected->tag;
    const uint8_t *tcp = packet + (expected->ip6 ? 40 : 20);
    unsigned part = (unsigned)(bytes + length - (tcp + 32));
    bool last = joined_bytes + part == expected->payload;

    ck_assert_uint_eq(header->flags, 0);
    ck_assert_uint_eq(header->gso_type, 0);
    ck_assert(last ? part <= expected->size : part == expected->size);
    ck_assert_uint_eq(transport_sum(packet, expected->ip6, IPPROTO_TCP, 32 + part), 0xffff);
    if (expected->ip6) {
        ck_assert_uint_eq(get16(packet + 4), 32 + part);
    } else {
        ck_assert_uint_eq(add(0, packet, 20), 0xffff);
        ck_assert_uint_eq(get16(packet + 2), 52 + part);
        ck_assert_uint_eq(get16(packet + 4), 0x1000 + pieces);
    }
    ck_assert_uint_eq((get16(tcp + 4) << 16 | get16(tcp + 6)), 1000 + joined_bytes);
    ck_assert_uint_eq(tcp[13] & 0x80, pieces == 0 ? 0x80 : 0);
    ck_assert_uint_eq(tcp[13] & 0x09, last ? 0x09 : 0);
    memcpy(joined + joined_bytes, tcp + 32, part);
    joined_bytes += part;
    pieces++;
}

START_TEST(segments_are_whole_packets)
{
    static const unsigned payloads[] = {1, 999, 1000, 1001, 5000, 65000};

    for (unsigned i = 0; i < 2 * 2 * sizeof(payloads) / sizeof(payloads[0]); i++) {
        struct expected expected = {i & 1, i & 2 ? 4 : 0, 1000, payloads[i / 4]};
        struct virtio_net_hdr_v1 header = segment_header(expected.ip6, expected.tag, 1000);
        size_t length = make(expected.ip6, IPPROTO_TCP, expected.tag, expected.payload);

        joined_bytes = pieces = 0;
        ck_assert(net_header_valid(&header, length));
        net_segment(&header, frame, length, scratch, take_segment, &expected);
        ck_assert_uint_eq(joined_bytes, expected.payload);
        ck_assert_uint_eq(pieces, net_segment_count(&header, frame, length));
        ck_assert_mem_eq(joined, frame + length - joined_bytes, joined_bytes);
    }
}
END_TEST

START_TEST(what_cannot_be_cut)
{
    struct virtio_net_hdr_v1 header = segment_header(false, 0, 100);

    ck_assert_uint_eq(net_segment_count(&header, frame, make(true, IPPROTO_TCP, 0, 500)), 0);
    ck_assert_uint_eq(net_segment_count(&header, frame, make(false, IPPROTO_UDP, 0, 500)), 0);
    ck_assert_uint_eq(net_segment_count(&header, frame, make(false, IPPROTO_TCP, 0, 0)), 0);
    size_t length = make(false, IPPROTO_TCP, 0, 500);
    ck_assert_uint_eq(net_segment_count(&header, frame, length), 5);
    ck_assert_uint_eq(net_segment_count(&header, frame, length - 1), 0); /* cut short */
    frame[14 + 6] = 0x20;                                                /* a fragment */
    ck_assert_uint_eq(net_segment_count(&header, frame, length), 0);
}
END_TEST

START_TEST(checksums_are_completed)
{
    for (unsigned i = 0; i < 8; i++) {
        bool ip6 = i & 1, tcp = i & 2;
        unsigned protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP, payload = 100 + (i >> 2);
        unsigned bytes = (tcp ? 32 : 8) + payload, at = ip6 ? 54 : 34;
        size_t length = make(ip6, protocol, 0, payload);
        struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                           .csum_start = (uint16_t)at,
                                           .csum_offset = tcp ? 16 : 6};
        uint8_t tail[4] = {0, (uint8_t)protocol, (uint8_t)(bytes >> 8), (uint8_t)bytes};
        unsigned pseudo = add(ip6 ? add(0, frame + 22, 32) : add(0, frame + 26, 8), tail, 4);

        put16(frame + at + header.csum_offset, pseudo); /* as a driver leaves it */
        net_checksum_complete(&header, frame, length);
        ck_assert_uint_eq(header.flags, 0);
        ck_assert_uint_eq(transport_sum(frame + 14, ip6, protocol, bytes), 0xffff);

        struct net_headers headers;
        ck_assert(net_headers_find(frame, length, &headers));
        ck_assert_uint_eq(headers.payload, length - payload);
        if (tcp) { /* and back */
            net_checksum_defer(&header, frame, &headers);
            ck_assert_uint_eq(get16(frame + at + 16), pseudo);
            ck_assert(net_header_valid(&header, length));
        }
    }
}
END_TEST

static void take_fragment(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *bytes,
                          size_t length)
{
    const unsigned *mtu = context;
    const uint8_t *packet = bytes + 14;
    unsigned part = (unsigned)length - 34;

    (void)header;
    ck_assert_uint_le(length - 14, *mtu);
    ck_assert_uint_eq(add(0, packet, 20), 0xffff);
    ck_assert_uint_eq(get16(packet + 2), 20 + part);
    ck_assert_uint_eq((get16(packet + 6) & 0x1fff) * 8, joined_bytes);
    memcpy(joined + joined_bytes, packet + 20, part);
    joined_bytes += part;
    pieces++;
    /* All but the last say that there are more. */
    ck_assert_uint_eq(get16(packet + 6) >> 13, joined_bytes < 8 + 9000 ? 1 : 0);
}

static void count_fragment(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *bytes,
                           size_t length)
{
    (void)context, (void)header, (void)bytes;
    joined_bytes += length;
    pieces++;
}

START_TEST(packets_are_fragmented)
{
    unsigned mtu = 1500;
    size_t length = make(false, IPPROTO_UDP, 0, 9000);

    joined_bytes = pieces = 0;
    net_fragment(frame, length, mtu, scratch, take_fragment, &mtu);
    ck_assert_uint_eq(pieces, 7);
    ck_assert_uint_eq(joined_bytes, 9008);
    ck_assert_mem_eq(joined, frame + 34, joined_bytes);
    frame[14 + 6] = 0x40; /* not to be fragmented */
    joined_bytes = pieces = 0;
    net_fragment(frame, length, mtu, scratch, count_fragment, NULL);
    ck_assert_uint_eq(pieces, 1);
    ck_assert_uint_eq(joined_bytes, length);
}
END_TEST

START_TEST(segment_sizes_are_raised)
{
    static const struct {
        uint8_t options[12];
        bool raised;
        unsigned at;
    } cases[] = {
        {{2, 4, 0x05, 0xb4}, true, 2},
        {{1, 1, 2, 4, 0x05, 0xb4}, true, 4},
        {{1, 3, 3, 7, 2, 4, 0x05, 0xb4}, true, 6},
        {{1, 3, 3, 7, 1, 2, 4, 0x05, 0xb4}, true, 7}, /* at an odd place */
        {{2, 4, 0xff, 0xff}, false, 0},
        {{0, 2, 4, 0x05, 0xb4}, false, 0},
        {{3, 0, 2, 4, 0x05, 0xb4}, false, 0},
        {{3, 40, 2, 4, 0x05, 0xb4}, false, 0},
        {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, false, 0},
    };
    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        bool ip6 = i & 1;
        size_t length = make(ip6, IPPROTO_TCP, 0, 0);
        uint8_t *tcp = frame + (ip6 ? 54 : 34);
        struct net_headers headers;

        memcpy(tcp + 20, cases[i / 2].options, 12);
        ck_assert(net_headers_find(frame, length, &headers));
        ck_assert(!net_raise_segment_size(frame, &headers, 60000)); /* no SYN */
        tcp[13] = 2;
        ck_assert_int_eq(net_raise_segment_size(frame, &headers, 60000), cases[i / 2].raised);
        if (cases[i / 2].raised) {
            ck_assert_uint_eq(get16(tcp + 20 + cases[i / 2].at), 60000);
            ck_assert_uint_eq(transport_sum(frame + 14, ip6, IPPROTO_TCP, 32), 0xffff);
        }
    }
}
END_TEST

/* No frame and no header does harm; the sanitizers of SAN= look on. */
START_TEST(any_bytes)
{
    unsigned seed = 42;

    for (unsigned round = 0; round < 20000; round++) {
        struct virtio_net_hdr_v1 header;
        struct net_headers headers;
        size_t length = make(round & 1, round & 2 ? IPPROTO_TCP : IPPROTO_UDP, round & 4, 300);

        for (unsigned i = 0; i < 6; i++) {
            seed = seed * 1103515245 + 12345;
            frame[(seed >> 16) % 70] = (uint8_t)(seed >> 8);
        }
        uint8_t *exact = malloc(length -= (seed >> 12) % (length - 14));
        memcpy(exact, frame, length);
        header = segment_header(seed & 16, 0, seed >> 8 & 0xffff);
        header.csum_start = (uint16_t)(seed >> 7 & 0x1ff);
        header.csum_offset = (uint16_t)(seed >> 3 & 0x1ff);
        if (net_headers_find(exact, length, &headers)) {
            ck_assert_uint_le(headers.payload, length);
            net_raise_segment_size(exact, &headers, 65000);
        }
        joined_bytes = pieces = 0;
        net_segment(&header, exact, length, scratch, count_fragment, NULL);
        net_fragment(exact, length, 68, scratch, count_fragment, NULL);
        if (net_header_valid(&header, length)) {
            net_checksum_complete(&header, exact, length);
        }
        free(exact);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("network offloads");
    TCase *tests = tcase_create("frames");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, segments_are_whole_packets);
    tcase_add_test(tests, what_cannot_be_cut);
    tcase_add_test(tests, checksums_are_completed);
    tcase_add_test(tests, packets_are_fragmented);
    tcase_add_test(tests, segment_sizes_are_raised);
    tcase_add_test(tests, any_bytes);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
