/*
 * virtio network card (Virtual I/O Device 1.2, section 5.1): pairs of receive and transmit queues,
 * a control queue behind them, and one of the backends of devd/net.
 *
 * Its parts are in devd/net (see card.h). Receive and transmit queues are streams: frames may be
 * lost or sent twice when the process dies, buffers never are. What the driver had set by the
 * control queue is kept in the shared state.
 */
#include "devd/net/card.h"
#include "devd/virtio.h"
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_SIZE 256

#define FEATURES                                                                                   \
    (NET_FEATURE(VIRTIO_NET_F_CSUM) | NET_FEATURE(VIRTIO_NET_F_GUEST_CSUM) |                       \
     NET_FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | NET_FEATURE(VIRTIO_NET_F_MAC) |               \
     NET_FEATURE(VIRTIO_NET_F_GUEST_TSO4) | NET_FEATURE(VIRTIO_NET_F_GUEST_TSO6) |                 \
     NET_FEATURE(VIRTIO_NET_F_GUEST_ECN) | NET_FEATURE(VIRTIO_NET_F_HOST_TSO4) |                   \
     NET_FEATURE(VIRTIO_NET_F_HOST_TSO6) | NET_FEATURE(VIRTIO_NET_F_HOST_ECN) |                    \
     NET_FEATURE(VIRTIO_NET_F_MRG_RXBUF) | NET_FEATURE(VIRTIO_NET_F_STATUS) |                      \
     NET_FEATURE(VIRTIO_NET_F_CTRL_VQ) | NET_FEATURE(VIRTIO_NET_F_CTRL_RX) |                       \
     NET_FEATURE(VIRTIO_NET_F_CTRL_RX_EXTRA) | NET_FEATURE(VIRTIO_NET_F_CTRL_MAC_ADDR))

static const struct net_backend_operations *const backends[] = {
    [NET_USER] = &net_backend_user,
    [NET_TAP] = &net_backend_tap,
    [NET_LINK] = &net_backend_link,
};

/* ---- Queues ---- */

/* Behind the pairs that the driver knows of: one, when it did not take the multiqueue feature. */
static unsigned control_queue(const struct net_card *card)
{
    bool several = card->device->virtio->driver_features & NET_FEATURE(VIRTIO_NET_F_MQ);
    return several ? 2 * card->pairs : 2;
}

static bool net_is_stream(const struct device *device, unsigned queue)
{
    const struct net_card *card = device->own;
    return queue != control_queue(card);
}

static enum virtio_stream net_stream(struct device *device, unsigned queue)
{
    struct net_card *card = device->own;

    if (queue > control_queue(card)) {
        return VIRTIO_STREAM_BLOCKED; /* there is no such queue for this driver */
    }
    return queue % 2 ? net_card_transmit(card, queue) : net_card_refill(card, queue);
}

static void net_request(struct device *device, unsigned queue, const struct virtqueue_chain *chain)
{
    net_card_control(device->own, queue, chain);
}

/* ---- Configuration and link ---- */

void net_card_publish(struct net_card *card, bool tell)
{
    struct virtio_net_config config = {
        .status = card->cable && card->carrier ? VIRTIO_NET_S_LINK_UP : 0,
        .max_virtqueue_pairs = (uint16_t)card->pairs,
        .mtu = (uint16_t)card->setting.mtu,
    };
    const size_t size = offsetof(struct virtio_net_config, mtu) + sizeof(config.mtu);

    memcpy(config.mac, card->controls.mac, NET_MAC_BYTES);
    if (tell) {
        virtio_config_set(card->device, 0, &config, size);
    } else {
        virtio_config_answer(card->device, 0, &config, size);
    }
}

static void net_set_link(struct device *device, bool up)
{
    struct net_card *card = device->own;

    if (card->cable != up) {
        card->cable = up;
        net_card_publish(card, true);
    }
}

static void net_carrier(void *context, bool up)
{
    struct net_card *card = context;

    if (card->carrier != up) {
        card->carrier = up;
        net_card_publish(card, true);
    }
}

static void net_activated(struct device *device, bool resumed)
{
    struct net_card *card = device->own;

    if (resumed) {
        net_controls_restore(card);
        net_card_publish(card, false); /* the link may have changed meanwhile */
    } else {
        net_controls_reset(card);
        net_card_publish(card, false);
    }
    if (card->operations->guest_features) {
        card->operations->guest_features(card->backend, card->controls.offloads);
    }
    if (card->starving && !resumed) { /* since a driver before this one */
        card->starving = false;
        card->operations->resume(card->backend);
    }
}

static void net_reset(struct device *device)
{
    struct net_card *card = device->own;

    net_controls_reset(card);
    net_card_publish(card, false);
    net_limit_reset(card);
    memset(card->flows, 0, sizeof(card->flows));
}

static void net_limit(struct device *device, const struct limits *limits)
{
    net_limit_set(device->own, limits);
}

/* ---- Device ---- */

static int card_configure(struct net_card *card, struct error *err)
{
    struct device *device = card->device;
    unsigned queues = device->virtio->queue_count;
    int status = net_setting_parse(device->net, ERROR_CONFIG, &card->setting, err);

    if (status < 0) {
        return status;
    }
    card->pairs = card->setting.queues;
    if (!card->setting.has_mac || queues != 2 * card->pairs + 1) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got no address or %u queues", device->id,
                         queues);
    }
    memcpy(card->mac, card->setting.mac, NET_MAC_BYTES);
    device->virtio->features |= FEATURES;
    if (card->setting.split_rings) {
        device->virtio->features &= ~VIRTQUEUE_FEATURE_PACKED;
    }
    if (card->pairs > 1) {
        device->virtio->features |= NET_FEATURE(VIRTIO_NET_F_MQ);
    }
    if (card->setting.mtu) {
        device->virtio->features |= NET_FEATURE(VIRTIO_NET_F_MTU);
    }
    return 0;
}

static int net_init(struct device *device, struct error *err)
{
    struct net_card *card = calloc(1, sizeof(*card));

    if (!card) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = card;
    card->device = device;
    card->cable = !device->link_down;
    if (net_limit_open(card) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    int status = card_configure(card, err);
    if (status < 0) {
        return status;
    }
    /* What an earlier process kept is only known to be meant for us once we are activated. */
    card->controls.promiscuous = 1;
    card->controls.pairs = 1;
    memcpy(card->controls.mac, card->mac, NET_MAC_BYTES);
    card->operations = backends[card->setting.kind];
    if ((card->setting.kind == NET_USER) != device->model->network) {
        return error_set(err, ERROR_CONFIG, 0, "device %s is of the other kind of card",
                         device->id);
    }
    card->carrier = !card->operations->has_carrier;

    const struct net_port port = {
        .receive = net_card_receive,
        .received = net_card_received,
        .writable = net_card_writable,
        .carrier = net_carrier,
        .context = card,
    };
    int fd = device->backend;
    device->backend = -1;
    card->backend = card->operations->open(&card->setting, fd, device->base, &port, err);
    if (!card->backend) {
        return -(int)(err->code ? err->code : ERROR_INTERNAL);
    }
    net_card_publish(card, false);
    return 0;
}

static void net_destroy(struct device *device)
{
    struct net_card *card = device->own;

    if (card) {
        if (card->backend) {
            card->operations->close(card->backend);
        }
        net_limit_close(card);
        free(card);
    }
}

/* The same card with two backends' needs: user networking makes sockets, the others have a
 * descriptor and are confined like any device. */
#define NET_MODEL                                                                                  \
    .device_class = DEVICE_VIRTIO, .init = net_init, .destroy = net_destroy,                       \
    .set_link = net_set_link, .traffic = LIMIT_NET, .limit = net_limit,                            \
    .virtio = {                                                                                    \
        .device_id = VIRTIO_ID_NET,                                                                \
        .queue_size = QUEUE_SIZE,                                                                  \
        .is_stream = net_is_stream,                                                                \
        .stream = net_stream,                                                                      \
        .request = net_request,                                                                    \
        .activated = net_activated,                                                                \
        .reset = net_reset,                                                                        \
    }

DEVICE_MODEL(virtio_net) = {
    .kind = "virtio-net",
    NET_MODEL,
};

DEVICE_MODEL(virtio_net_user) = {
    .kind = "virtio-net-user",
    .network = true,
    .open_files = 2048, /* every connection is one */
    NET_MODEL,
};
