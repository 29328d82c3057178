/*
 * The virtio network card between its driver (devd/devices/virtio_net.c) and its parts: reception
 * (receive.c), transmission (transmit.c), the control queue (control.c), limits (limit.c), and its
 * backend.
 * Main thread only.
 */
#ifndef POLYVISOR_DEVD_NET_CARD_H
#define POLYVISOR_DEVD_NET_CARD_H

#include "devd/device.h"
#include "devd/limit/limiter.h"
#include "devd/net/backend.h"
#include "devd/net/offload.h"
#include <linux/virtio_net.h>

#define NET_FEATURE(bit)  (UINT64_C(1) << (bit))
#define NET_HEADER_BYTES  ((unsigned)sizeof(struct virtio_net_hdr_v1))
#define NET_FILTER_MAX    64u  /* addresses of each kind; more means all */
#define NET_FLOWS         256u /* that are kept apart, for several queues */
#define NET_SAVED_VERSION 1u

#define NET_GUEST_OFFLOADS                                                                         \
    (NET_FEATURE(VIRTIO_NET_F_GUEST_CSUM) | NET_FEATURE(VIRTIO_NET_F_GUEST_TSO4) |                 \
     NET_FEATURE(VIRTIO_NET_F_GUEST_TSO6) | NET_FEATURE(VIRTIO_NET_F_GUEST_ECN))

/* What the driver told the card by its control queue. Kept in the shared state: the next process
 * goes on with it. */
struct net_controls {
    uint32_t version;
    uint16_t pairs; /* in use */
    uint8_t mac[NET_MAC_BYTES];
    uint64_t offloads; /* NET_GUEST_OFFLOADS that are on */
    uint8_t promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast;
    uint8_t unicast_count, multicast_count; /* above NET_FILTER_MAX: all */
    uint8_t unicast[NET_FILTER_MAX][NET_MAC_BYTES];
    uint8_t multicast[NET_FILTER_MAX][NET_MAC_BYTES];
};
_Static_assert(sizeof(struct net_controls) <= VIRTIO_SAVED_MAX, "fits the shared state");

/* One that takes its frames in order: a transmit queue, or the backend. */
struct net_limit_line {
    bool waits;        /* its first frame, for its limits or its turn */
    bool paid;         /* and that one has paid already */
    uint64_t since_ns; /* clock_monotonic_ns; 0: not yet the first */
};

struct net_limit {
    struct limiter limiter;
    struct event *timer;
    uint64_t wake_ns; /* clock_monotonic_ns that the timer was set to; 0: it is not */
    uint64_t passed;  /* frames */
    struct net_limit_line transmit[NET_QUEUES_MAX], receive;
    unsigned turn;
    int granted; /* pair whose turn it is; -1: none */
};

struct net_card {
    struct device *device;
    struct net_setting setting;
    const struct net_backend_operations *operations;
    struct net_backend *backend;
    struct net_controls controls;
    uint8_t mac[NET_MAC_BYTES]; /* the card's own */
    unsigned pairs;             /* that the card has */
    bool cable, carrier;        /* vmctl's and the backend's word on the link */
    bool starving;              /* frames wait for the guest's buffers */
    bool refused;               /* the backend takes no frames for now */
    struct net_limit limit;
    bool unsignalled[NET_QUEUES_MAX];
    uint8_t flows[NET_FLOWS];                  /* pair that a flow's frames were sent by */
    struct virtqueue_chain sending, receiving; /* two: sending may lead to receiving */
    uint8_t segment[NET_FRAME_MAX + 8];        /* of a frame cut in software */
};

static inline unsigned net_receive_queue(unsigned pair)
{
    return 2 * pair;
}

static inline unsigned net_transmit_queue(unsigned pair)
{
    return 2 * pair + 1;
}

/* ---- receive.c ---- */

/* The port's `receive` and `received`. */
bool net_card_receive(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *frame,
                      size_t length);
void net_card_received(void *context);
/* The driver added buffers to a receive queue. */
enum virtio_stream net_card_refill(struct net_card *card, unsigned queue);

/* ---- transmit.c ---- */

enum virtio_stream net_card_transmit(struct net_card *card, unsigned queue);
/* The port's `writable`. */
void net_card_writable(void *context);

/* ---- limit.c ---- */

int net_limit_open(struct net_card *card); /* 0 or -ENOMEM */
void net_limit_close(struct net_card *card);
void net_limit_set(struct net_card *card, const struct limits *limits);
/* The driver reset the card. */
void net_limit_reset(struct net_card *card);
/* Whether the first frame of a queue, or of the backend, may pass. If not, the queue is pumped or
 * the backend resumed in time. The second of each pair: it did. */
bool net_limit_transmit(struct net_card *card, unsigned pair, uint64_t bytes);
void net_limit_transmitted(struct net_card *card, unsigned pair);
bool net_limit_receive(struct net_card *card, uint64_t bytes);
void net_limit_received(struct net_card *card);

/* ---- control.c ---- */

/* As after a reset. */
void net_controls_reset(struct net_card *card);
/* Those of an earlier process, or as after a reset when they make no sense. */
void net_controls_restore(struct net_card *card);
/* A request on the control queue. */
void net_card_control(struct net_card *card, unsigned queue, const struct virtqueue_chain *chain);
/* Whether the guest wants a frame with that destination address. */
bool net_filter_accepts(const struct net_controls *controls, const uint8_t *destination);
/* Publish link and address in configuration space; `tell` the driver, or let it read. */
void net_card_publish(struct net_card *card, bool tell);

/* ---- flow.c ---- */

/* The number of a frame's flow, below NET_FLOWS; the same in both directions. `head` holds the
 * first `length` bytes of the frame. */
unsigned net_flow(const uint8_t *head, size_t length);

#endif
