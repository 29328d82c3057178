/*
 * The control queue (Virtual I/O Device 1.2, section 5.1.6.5): reception filter, address, number
 * of queues, offloads. Each command only sets something, so one that a restarted process does
 * again does no harm.
 */
#include "devd/net/card.h"
#include "devd/virtio.h"
#include <stddef.h>
#include <string.h>

#define CONTROL_BYTES_MAX (1u << 16) /* of a command: more is no list of addresses */

/* Where a command's data is read from. */
struct command {
    struct net_card *card;
    const struct virtqueue_chain *chain;
    uint64_t at, size; /* of the data in the readable bytes */
};

/* Copy the next bytes of the data; false when there are fewer. */
static bool command_take(struct command *command, void *to, size_t size)
{
    if (command->size - command->at < size) {
        return false;
    }
    virtqueue_chain_read(command->chain, command->at, to, size);
    command->at += size;
    return true;
}

/* ---- The saved state ---- */

/* Every change goes there at once. */
static void controls_save(struct net_card *card)
{
    memcpy(card->device->virtio->state->saved, &card->controls, sizeof(card->controls));
}

void net_controls_reset(struct net_card *card)
{
    struct net_controls *controls = &card->controls;

    memset(controls, 0, sizeof(*controls));
    controls->version = NET_SAVED_VERSION;
    controls->pairs = 1;
    controls->promiscuous = 1; /* until the driver says what it wants */
    controls->offloads = card->device->virtio->driver_features & NET_GUEST_OFFLOADS;
    memcpy(controls->mac, card->mac, NET_MAC_BYTES);
    controls_save(card);
}

void net_controls_restore(struct net_card *card)
{
    struct net_controls *controls = &card->controls;

    memcpy(controls, card->device->virtio->state->saved, sizeof(*controls));
    if (controls->version != NET_SAVED_VERSION || controls->pairs < 1 ||
        controls->pairs > card->pairs || controls->unicast_count > NET_FILTER_MAX + 1 ||
        controls->multicast_count > NET_FILTER_MAX + 1) {
        net_controls_reset(card);
    }
    controls->offloads &= card->device->virtio->driver_features & NET_GUEST_OFFLOADS;
}

/* ---- Reception filter ---- */

static bool list_holds(const uint8_t list[][NET_MAC_BYTES], unsigned count, const uint8_t *address)
{
    if (count > NET_FILTER_MAX) {
        return true;
    }
    for (unsigned i = 0; i < count; i++) {
        if (memcmp(list[i], address, NET_MAC_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

bool net_filter_accepts(const struct net_controls *controls, const uint8_t *destination)
{
    static const uint8_t broadcast[NET_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (controls->promiscuous) {
        return true;
    }
    if (memcmp(destination, broadcast, NET_MAC_BYTES) == 0) {
        return !controls->no_broadcast;
    }
    if (destination[0] & 1) {
        return !controls->no_multicast &&
               (controls->all_multicast ||
                list_holds(controls->multicast, controls->multicast_count, destination));
    }
    return !controls->no_unicast &&
           (controls->all_unicast || memcmp(destination, controls->mac, NET_MAC_BYTES) == 0 ||
            list_holds(controls->unicast, controls->unicast_count, destination));
}

static bool control_receive(struct command *command, uint8_t what)
{
    struct net_controls *controls = &command->card->controls;
    uint8_t *const modes[] = {
        [VIRTIO_NET_CTRL_RX_PROMISC] = &controls->promiscuous,
        [VIRTIO_NET_CTRL_RX_ALLMULTI] = &controls->all_multicast,
        [VIRTIO_NET_CTRL_RX_ALLUNI] = &controls->all_unicast,
        [VIRTIO_NET_CTRL_RX_NOMULTI] = &controls->no_multicast,
        [VIRTIO_NET_CTRL_RX_NOUNI] = &controls->no_unicast,
        [VIRTIO_NET_CTRL_RX_NOBCAST] = &controls->no_broadcast,
    };
    uint8_t on;

    if (what >= sizeof(modes) / sizeof(modes[0]) || !command_take(command, &on, sizeof(on))) {
        return false;
    }
    *modes[what] = on != 0;
    return true;
}

/* ---- Addresses ---- */

/* One list: a count, then so many addresses. */
static bool take_list(struct command *command, uint8_t list[][NET_MAC_BYTES], uint8_t *count)
{
    uint32_t entries;

    if (!command_take(command, &entries, sizeof(entries)) ||
        entries > (command->size - command->at) / NET_MAC_BYTES) {
        return false;
    }
    uint32_t kept = entries <= NET_FILTER_MAX ? entries : 0;
    command_take(command, list, kept * NET_MAC_BYTES);
    command->at += (uint64_t)(entries - kept) * NET_MAC_BYTES;
    *count = (uint8_t)(entries <= NET_FILTER_MAX ? entries : NET_FILTER_MAX + 1);
    return true;
}

static bool control_address(struct command *command, uint8_t what)
{
    struct net_controls *controls = &command->card->controls;

    if (what == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
        uint8_t mac[NET_MAC_BYTES];
        if (!command_take(command, mac, sizeof(mac)) || (mac[0] & 1)) {
            return false;
        }
        memcpy(controls->mac, mac, sizeof(mac));
        net_card_publish(command->card, false);
        return true;
    }
    if (what != VIRTIO_NET_CTRL_MAC_TABLE_SET) {
        return false;
    }
    struct net_controls wanted = *controls;
    if (!take_list(command, wanted.unicast, &wanted.unicast_count) ||
        !take_list(command, wanted.multicast, &wanted.multicast_count)) {
        return false;
    }
    *controls = wanted;
    return true;
}

/* ---- Queues and offloads ---- */

static bool control_queues(struct command *command, uint8_t what)
{
    struct net_card *card = command->card;
    uint16_t pairs;

    if (what != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !command_take(command, &pairs, sizeof(pairs)) ||
        pairs < 1 || pairs > card->pairs ||
        !(card->device->virtio->driver_features & NET_FEATURE(VIRTIO_NET_F_MQ))) {
        return false;
    }
    card->controls.pairs = pairs;
    return true;
}

static bool control_offloads(struct command *command, uint8_t what)
{
    struct net_card *card = command->card;
    uint64_t offloads;

    if (what != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
        !command_take(command, &offloads, sizeof(offloads)) ||
        (offloads & ~(card->device->virtio->driver_features & NET_GUEST_OFFLOADS))) {
        return false;
    }
    card->controls.offloads = offloads;
    return true;
}

static const struct {
    uint8_t class;
    unsigned feature;
    bool (*perform)(struct command *command, uint8_t what);
} classes[] = {
    {VIRTIO_NET_CTRL_RX, VIRTIO_NET_F_CTRL_RX, control_receive},
    {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_F_CTRL_VQ, control_address},
    {VIRTIO_NET_CTRL_MQ, VIRTIO_NET_F_MQ, control_queues},
    {VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, control_offloads},
};

static bool command_perform(struct command *command)
{
    struct virtio_net_ctrl_hdr header;

    if (command->size > CONTROL_BYTES_MAX || !command_take(command, &header, sizeof(header))) {
        return false;
    }
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (classes[i].class == header.class &&
            (command->card->device->virtio->driver_features & NET_FEATURE(classes[i].feature))) {
            return classes[i].perform(command, header.cmd);
        }
    }
    return false;
}

void net_card_control(struct net_card *card, unsigned queue, const struct virtqueue_chain *chain)
{
    struct command command = {.card = card, .chain = chain, .size = chain->readable_bytes};
    virtio_net_ctrl_ack ack = VIRTIO_NET_ERR;

    if (chain->writable_bytes < sizeof(ack)) {
        virtio_device_fail(card->device, "control command without room for its answer");
        return;
    }
    if (command_perform(&command)) {
        ack = VIRTIO_NET_OK;
        controls_save(card);
    }
    virtqueue_chain_write(chain, 0, &ack, sizeof(ack));
    virtio_request_complete(card->device, queue, chain, sizeof(ack));
}
