/*
 * Checksums, segmentation and fragments of hostile frames: whatever a frame claims, what comes out
 * lies within it, has the size that was announced, and is a frame again.
 */
#include "devd/net/card.h"
#include "devd/net/offload.h"
#include "tests/fuzz/fuzz_input.h"
#include <netinet/in.h>

struct emitted {
    unsigned count;
    size_t largest;
};

static uint8_t scratch[NET_FRAME_MAX];
static volatile uint8_t sink;

static void touch(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sink = (uint8_t)(sink ^ bytes[i]);
    }
}

static void emit(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *frame,
                 size_t length)
{
    struct emitted *emitted = context;

    (void)header;
    fuzz_require(length >= NET_FRAME_MIN && length <= NET_FRAME_MAX, "the length of a frame");
    touch(frame, length);
    emitted->count++;
    emitted->largest = length > emitted->largest ? length : emitted->largest;
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* Headers that mostly make sense before `patch` has been at them; the bytes used. */
static size_t make_headers(struct fuzz_input *input, uint8_t *frame, size_t length)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1), head[NET_HEADERS_MAX + 64] = {0};
    unsigned tags = how & 3, options = fuzz_pick(input, 11), tcp_words = 5 + fuzz_pick(input, 11);
    bool ip6 = how & 4, tcp = how & 8;
    uint8_t *at = head + 12;

    for (unsigned i = 0; i < (tags == 3 ? 0 : tags); i++, at += 4) {
        put16(at, i ? 0x8100 : 0x88a8);
    }
    put16(at, ip6 ? 0x86dd : 0x0800);
    at += 2;
    size_t packet = length - (size_t)(at - head);
    if (ip6) {
        at[0] = 0x60;
        put16(at + 4, (unsigned)packet - 40);
        at[6] = tcp ? 6 : 17;
        at += 40;
    } else {
        at[0] = (uint8_t)(0x45 + options);
        put16(at + 2, (unsigned)packet);
        at[6] = how & 16 ? 0x40 : 0;
        at[9] = tcp ? 6 : 17;
        at += 20 + options * 4;
    }
    at[12] = (uint8_t)(tcp_words << 4);
    at[13] = (uint8_t)fuzz_take(input, 1);
    at[20] = 2; /* the option for the segment size */
    at[21] = 4;
    size_t size = (size_t)(at + tcp_words * 4 - head);
    size = size < sizeof(head) ? size : sizeof(head);
    memcpy(frame, head, size < length ? size : length);
    return size;
}

static void patch(struct fuzz_input *input, uint8_t *bytes, size_t size, size_t near)
{
    unsigned count = fuzz_pick(input, 8);

    for (unsigned i = 0; i < count; i++) {
        size_t at = fuzz_take(input, 1);
        if (at < near && at < size) {
            bytes[at] = (uint8_t)fuzz_take(input, 1);
        }
    }
}

static void check_headers(const uint8_t *frame, size_t length)
{
    struct net_headers headers;

    if (net_headers_find(frame, length, &headers)) {
        fuzz_require(headers.network <= headers.transport && headers.transport <= length &&
                         headers.transport_bytes <= length - headers.transport &&
                         headers.payload >= headers.transport,
                     "headers lie in the frame");
        if (headers.payload > headers.transport) {
            fuzz_require(headers.payload <= length, "the payload lies in the frame");
        }
    }
    fuzz_require(net_flow(frame, length) < NET_FLOWS, "a flow's number");
}

static void segment(const struct virtio_net_hdr_v1 *header, uint8_t *frame, size_t length)
{
    struct emitted emitted = {0};
    unsigned announced = net_segment_count(header, frame, length);

    net_segment(header, frame, length, scratch, emit, &emitted);
    fuzz_require(emitted.count == announced, "as many segments as announced");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct virtio_net_hdr_v1 header = {0};
    struct emitted emitted = {0};
    struct net_headers headers;
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    size_t length = NET_FRAME_MIN + fuzz_number(&input) % (NET_FRAME_MAX - NET_FRAME_MIN + 1);
    uint8_t *frame = calloc(1, length), *copy = malloc(length);

    fuzz_require(frame && copy, "memory");
    header.flags = how & 1;
    header.gso_type = (uint8_t[]){0, 1, 4, 1 | 0x80, 4 | 0x80, 3, 5, 0x7f}[how >> 1 & 7];
    header.hdr_len = (uint16_t)fuzz_number(&input);
    header.gso_size = (uint16_t)fuzz_number(&input);
    header.csum_start = (uint16_t)fuzz_number(&input);
    header.csum_offset = (uint16_t)fuzz_number(&input);
    header.num_buffers = 1;
    size_t near = make_headers(&input, frame, length);
    if (how & 0x10) {
        header.csum_start = 34;
        header.csum_offset = 16;
    }
    patch(&input, frame, length, near);
    memcpy(copy, frame, length);

    check_headers(frame, length);
    if (net_header_valid(&header, length)) {
        if (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && how & 0x20) {
            net_checksum_complete(&header, frame, length);
            fuzz_require(!(header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM), "the checksum is done");
        }
        segment(&header, frame, length);
    }
    memcpy(frame, copy, length);
    net_fragment(frame, length, 68 + (unsigned)(fuzz_number(&input) % 65468), scratch, emit,
                 &emitted);
    memcpy(frame, copy, length);
    if (net_headers_find(frame, length, &headers)) {
        net_raise_segment_size(frame, &headers, (uint16_t)fuzz_take(&input, 2));
        if (headers.protocol == IPPROTO_TCP && !headers.is_fragment) {
            net_checksum_defer(&header, frame, &headers);
        }
    }
    free(frame);
    free(copy);
    return 0;
}
