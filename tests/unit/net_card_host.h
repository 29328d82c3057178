/*
 * A network card on a link whose other end is held here, from the driver's side: its queues and
 * buffers, and frames in either direction.
 */
#ifndef POLYVISOR_TESTS_UNIT_NET_CARD_HOST_H
#define POLYVISOR_TESTS_UNIT_NET_CARD_HOST_H

#include "devd/net/card.h"
#include "libshared/ipc/rights.h"
#include "libshared/net/link.h"
#include "tests/unit/device_host.h"

extern const struct device_model device_model_virtio_net;
extern const struct device_model device_model_virtio_net_user;

#define RX           0u
#define TX           1u
#define CONTROL      2u
#define HEADER       12u
#define BUFFER       1536u
#define ALL_FEATURES UINT64_MAX
#define PLAIN        (NET_FEATURE(VIRTIO_NET_F_MAC) | NET_FEATURE(VIRTIO_NET_F_STATUS))
#define SETTING      "link,path=/x,mac=52:54:00:00:00:01"

static const uint8_t MAC[] = {0x52, 0x54, 0x00, 0x00, 0x00, 0x01};

static struct device_host host;
static int vmmd_end, peer; /* of the socket to the device; of the connection */
static struct error err;

struct message {
    struct virtio_net_hdr_v1 header;
    uint8_t frame[NET_FRAME_MAX];
} __attribute__((packed));
static struct message message;

/* ---- The link ---- */

static inline void tell(char kind, int fd)
{
    const struct iovec body = {&kind, 1};

    ck_assert_int_eq(rights_send(vmmd_end, &body, 1, &fd, fd >= 0 ? 1 : 0), 0);
}

static int connection; /* the card's end, which vmmd keeps */

static inline void setup(void)
{
    int pair[2];

    host_open(&host);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    vmmd_end = pair[0];
    host.backend = pair[1];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    peer = pair[0];
    connection = pair[1];
    host.kicks = 3;
    tell(LINK_CONNECTED, connection);
}

static inline void teardown(void)
{
    host_close(&host);
    close(vmmd_end);
    close(peer);
    close(connection);
}

static inline bool try_start(const char *setting, bool restart)
{
    struct device_settings settings = {.id = "net0", .net = setting, .restart = restart};
    return host_try_start(&host, &device_model_virtio_net, &settings, &err);
}

static inline void start(uint64_t features)
{
    ck_assert_msg(try_start(SETTING, false), "%s", err.message);
    host_activate(&host, features);
}

/* A new process takes the place of the present one. */
static inline void replace(void)
{
    device_destroy(host.device);
    host.device = NULL;
    tell(LINK_CONNECTED, connection);
    ck_assert_msg(try_start(SETTING, true), "%s", err.message);
}

/* ---- The driver ---- */

static inline uint64_t buffer_address(unsigned queue, unsigned slot)
{
    return DRIVER_DATA + (queue * DRIVER_QUEUE_SIZE + slot) * 0x4000u;
}

static inline uint8_t *buffer(unsigned queue, unsigned slot)
{
    return driver_pointer(&host.driver, buffer_address(queue, slot));
}

static inline void offer_receive(unsigned slot, uint32_t size)
{
    driver_describe(&host.driver, RX, slot, buffer_address(RX, slot), size, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, RX, (uint16_t)slot);
}

static inline void offer_all_receive(uint32_t size)
{
    for (unsigned i = 0; i < DRIVER_QUEUE_SIZE; i++) {
        offer_receive(i, size);
    }
}

static inline void fill_frame(uint8_t *frame, size_t length, uint8_t seed)
{
    memcpy(frame, MAC, sizeof(MAC));
    memcpy(frame + 6, "\x52\x54\x00\x00\x00\x02\x88\xb5", 8);
    for (size_t i = NET_ETHERNET_BYTES; i < length; i++) {
        frame[i] = (uint8_t)(seed + i * 7);
    }
}

static inline void transmit(unsigned slot, const struct virtio_net_hdr_v1 *header, size_t length)
{
    memcpy(buffer(TX, slot), header, sizeof(*header));
    driver_describe(&host.driver, TX, slot, buffer_address(TX, slot), (uint32_t)(HEADER + length),
                    0, 0);
    driver_offer(&host.driver, TX, (uint16_t)slot);
    host_kick(&host, TX);
    host_turn(&host);
}

static const struct virtio_net_hdr_v1 plain;

/* From the other end of the link. */
static inline void send_frame(const struct virtio_net_hdr_v1 *header, size_t length)
{
    message.header = *header;
    ck_assert_int_eq(write(peer, &message, HEADER + length), (ssize_t)(HEADER + length));
    host_turn(&host);
}

static inline void receive_nothing(void)
{
    struct virtqueue_used_element element;
    ck_assert(!driver_collect(&host.driver, RX, &element));
}

static inline uint32_t receive_one(unsigned slot)
{
    struct virtqueue_used_element element;

    ck_assert(driver_collect(&host.driver, RX, &element));
    ck_assert_uint_eq(element.id, slot);
    return element.length;
}

static inline const struct virtio_net_config *config(void)
{
    return (const struct virtio_net_config *)host.driver.state->config;
}

/* A control command: its answer. */
static inline uint8_t command(uint8_t class, uint8_t what, const void *data, uint32_t size)
{
    const struct virtio_net_ctrl_hdr head = {.class = class, .cmd = what};
    struct virtqueue_used_element element;
    uint8_t *bytes = buffer(3, 0);

    memcpy(bytes, &head, sizeof(head));
    memcpy(bytes + sizeof(head), data, size);
    bytes[0x2000] = 0xee;
    driver_describe(&host.driver, CONTROL, 0, buffer_address(3, 0), (uint32_t)sizeof(head) + size,
                    VIRTQUEUE_NEXT, 1);
    driver_describe(&host.driver, CONTROL, 1, buffer_address(3, 0) + 0x2000, 1, VIRTQUEUE_WRITE, 0);
    driver_offer(&host.driver, CONTROL, 0);
    host_kick(&host, CONTROL);
    host_turn(&host);
    ck_assert(driver_collect(&host.driver, CONTROL, &element));
    return bytes[0x2000];
}

#endif
