/*
 * The power key of a machine as a virtio input device (Virtual I/O Device 1.2, section 5.8): one
 * key that vmmd presses to ask the guest to power off.
 *
 * Events go into buffers that the driver has put into the event queue. While it is short of
 * buffers the rest of a key press waits here. A process that dies takes at most a key press along;
 * vmmd, which learns of the death, presses the next one's.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include <errno.h>
#include <linux/input-event-codes.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_input.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_EVENTS 0 /* to the driver */
#define QUEUE_STATUS 1 /* from the driver: LEDs and the like, of which there are none */
#define QUEUE_SIZE   64

#define IDENTITY_BUS     0x06 /* BUS_VIRTUAL of the evdev interface */
#define IDENTITY_VENDOR  0x1af4
#define IDENTITY_PRODUCT (0x1040 + VIRTIO_ID_INPUT)
#define IDENTITY_VERSION 1

static const char INPUT_NAME[] = "polyvisor power key";

/* One press of the key (5.8.6), in order. */
static const struct virtio_input_event KEY_PRESS[] = {
    {.type = EV_KEY, .code = KEY_POWER, .value = 1},
    {.type = EV_SYN, .code = SYN_REPORT},
    {.type = EV_KEY, .code = KEY_POWER, .value = 0},
    {.type = EV_SYN, .code = SYN_REPORT},
};
#define KEY_PRESS_EVENTS (sizeof(KEY_PRESS) / sizeof(KEY_PRESS[0]))

_Static_assert(sizeof(struct virtio_input_event) == 8, "guest layout");
_Static_assert(sizeof(struct virtio_input_config) <= VIRTIO_CONFIG_MAX, "room for the config");
_Static_assert(offsetof(struct virtio_input_config, subsel) == 1, "guest layout");

struct input {
    size_t next; /* of KEY_PRESS to tell; KEY_PRESS_EVENTS: the key rests */
};

/* ---- configuration space ---- */

static uint8_t config_name(struct virtio_input_config *config)
{
    memcpy(config->u.string, INPUT_NAME, sizeof(INPUT_NAME) - 1);
    return sizeof(INPUT_NAME) - 1;
}

static uint8_t config_identity(struct virtio_input_config *config)
{
    config->u.ids = (struct virtio_input_devids){
        .bustype = IDENTITY_BUS,
        .vendor = IDENTITY_VENDOR,
        .product = IDENTITY_PRODUCT,
        .version = IDENTITY_VERSION,
    };
    return sizeof(config->u.ids);
}

static uint8_t config_keys(struct virtio_input_config *config)
{
    config->u.bitmap[KEY_POWER / 8] = 1u << (KEY_POWER % 8);
    return KEY_POWER / 8 + 1;
}

/* What there is to ask for (5.8.4); the answer's size is 0 for all else. */
static const struct {
    uint8_t select, subsel;
    uint8_t (*fill)(struct virtio_input_config *config); /* returns the bytes of the answer */
} CONFIG_ANSWERS[] = {
    {VIRTIO_INPUT_CFG_ID_NAME, 0, config_name},
    {VIRTIO_INPUT_CFG_ID_DEVIDS, 0, config_identity},
    {VIRTIO_INPUT_CFG_EV_BITS, EV_KEY, config_keys},
};

static void config_answer(struct device *device, uint8_t select, uint8_t subsel)
{
    struct virtio_input_config config = {.select = select, .subsel = subsel};

    for (size_t i = 0; i < sizeof(CONFIG_ANSWERS) / sizeof(CONFIG_ANSWERS[0]); i++) {
        if (CONFIG_ANSWERS[i].select == select && CONFIG_ANSWERS[i].subsel == subsel) {
            config.size = CONFIG_ANSWERS[i].fill(&config);
        }
    }
    virtio_config_answer(device, 0, &config, sizeof(config));
}

/* The driver writes select and subsel, one after the other or both at once; nothing else. */
static int input_config_write(struct device *device, uint32_t offset, const uint8_t *data,
                              unsigned size)
{
    const uint8_t *now = device->virtio->state->config;
    uint8_t chosen[2] = {now[0], now[1]};

    if (offset >= sizeof(chosen) || size > sizeof(chosen) - offset) {
        return -EINVAL;
    }
    memcpy(chosen + offset, data, size);
    config_answer(device, chosen[0], chosen[1]);
    return 0;
}

/* ---- the key ---- */

static bool input_ready(const struct device *device, unsigned queue)
{
    const struct input *input = device->own;
    return queue == QUEUE_STATUS || input->next < KEY_PRESS_EVENTS;
}

static void input_request(struct device *device, unsigned queue,
                          const struct virtqueue_chain *chain)
{
    /* A buffer that an earlier process had taken comes without being asked for: it gets an end of
     * report, which tells the driver nothing. */
    static const struct virtio_input_event nothing = {.type = EV_SYN, .code = SYN_REPORT};
    struct input *input = device->own;
    const struct virtio_input_event *event = &nothing;
    size_t written = 0;

    if (queue == QUEUE_EVENTS && chain->writable_bytes < sizeof(*event)) {
        virtio_device_fail(device, "a buffer is too small for an input event");
        return;
    }
    if (queue == QUEUE_EVENTS) {
        if (input->next < KEY_PRESS_EVENTS) {
            event = &KEY_PRESS[input->next++];
        }
        written = virtqueue_chain_write(chain, 0, event, sizeof(*event));
    }
    virtio_request_complete(device, queue, chain, (uint32_t)written);
}

static int input_power_key(struct device *device, struct error *err)
{
    struct input *input = device->own;

    if (!device->virtio->active || !device->virtio->queues[QUEUE_EVENTS].open ||
        device->virtio->queues[QUEUE_EVENTS].ring.fault) {
        return error_set(err, ERROR_STATE, 0, "the guest has no driver for its power key");
    }
    if (input->next == KEY_PRESS_EVENTS) { /* else the last press is still on its way */
        input->next = 0;
    }
    virtio_queue_pump(device, QUEUE_EVENTS);
    return 0;
}

static void input_reset(struct device *device)
{
    struct input *input = device->own;
    input->next = KEY_PRESS_EVENTS;
}

/* ---- the device ---- */

static int input_init(struct device *device, struct error *err)
{
    const uint8_t *now = device->virtio->state->config;
    struct input *input = calloc(1, sizeof(*input));

    if (!input) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = input;
    input->next = KEY_PRESS_EVENTS;
    /* What an earlier process was asked for last is what the driver may be about to read. */
    config_answer(device, now[0], now[1]);
    return 0;
}

static void input_destroy(struct device *device)
{
    free(device->own);
}

DEVICE_MODEL(virtio_input) = {
    .kind = "virtio-input",
    .device_class = DEVICE_VIRTIO,
    .init = input_init,
    .destroy = input_destroy,
    .power_key = input_power_key,
    .virtio =
        {
            .device_id = VIRTIO_ID_INPUT,
            .queue_count = 2,
            .queue_size = QUEUE_SIZE,
            .ready = input_ready,
            .request = input_request,
            .reset = input_reset,
            .config_write = input_config_write,
        },
};
