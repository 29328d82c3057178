/*
 * virtio console (Virtual I/O Device 1.2, section 5.3): one port on the console core.
 *
 * Of each data queue one request at a time is held: a receive buffer waiting for input, and a
 * transmit buffer that the console has not yet taken whole. Everything else stays in the driver's
 * ring, so that the guest's own flow control works.
 *
 * A process that dies leaves in the console's memory how much of the present transmit buffer was
 * taken, and whether input was on its way into a receive buffer; that the buffer is in flight or
 * not says the rest. So the next one writes what is left, and gives no input twice.
 *
 * A driver that wants several ports learns over the control queues that there is one, that it is a
 * console, and its name; input then waits until the guest has opened it. What is still to be said
 * is not kept in shared memory: a restarted process says all of it again, which drivers
 * take as a repetition.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include "libshared/ipc/console.h"
#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_RECEIVE  0
#define QUEUE_TRANSMIT 1
#define QUEUE_TELL     2 /* control messages to the driver */
#define QUEUE_HEAR     3 /* and from it */
#define QUEUE_COUNT    4
#define DATA_QUEUES    2
#define QUEUE_SIZE     128

/* Of one transmit buffer, which may have 4 GiB, in one turn of the event loop. */
#define TRANSMIT_A_TURN CONSOLE_BACKLOG

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define PORT_NAME    "polyvisor.console"

/* Messages the driver has yet to get, in this order. */
enum { TELL_ADD = 1, TELL_CONSOLE = 2, TELL_NAME = 4, TELL_OPEN = 8 };

struct virtio_console {
    unsigned to_tell;
    bool opened;         /* by the guest; without the multiport feature always */
    struct event *again; /* more of the held transmit buffer, in another turn */
    struct held {
        bool present;
        struct virtqueue_chain chain;
    } held[DATA_QUEUES];
};

static struct held *held_of(const struct device *device, unsigned queue)
{
    struct virtio_console *own = device->own;
    return &own->held[queue];
}

/* ---- Output ---- */

/* Give the console what it takes, as much as one turn allows; true when the buffer is done. The
 * console counts what it has of the buffer. */
static bool transmit(struct device *device, const struct virtqueue_chain *chain)
{
    static const struct timeval next_turn = {0, 0};
    const struct virtio_console *own = device->own;
    uint64_t done = console_since_mark(device->console);
    const uint64_t end = done + TRANSMIT_A_TURN;
    uint8_t bytes[4096];

    while (done < chain->readable_bytes) {
        if (console_held(device->console)) {
            return false;
        }
        if (done >= end) {
            event_add(own->again, &next_turn);
            return false;
        }
        size_t count = virtqueue_chain_read(chain, done, bytes, sizeof(bytes));
        size_t taken = console_write(device->console, bytes, count);
        done += taken;
        if (taken < count) {
            return false;
        }
    }
    return true;
}

/* In this order, and both before another buffer is taken: whenever the process dies, the mark is of
 * the buffer in flight, or there is none. */
static void transmitted(struct device *device, const struct virtqueue_chain *chain)
{
    virtio_request_complete(device, QUEUE_TRANSMIT, chain, 0);
    console_mark(device->console);
}

static void transmit_request(struct device *device, const struct virtqueue_chain *chain)
{
    struct held *held = held_of(device, QUEUE_TRANSMIT);

    if (transmit(device, chain)) {
        transmitted(device, chain);
        return;
    }
    virtqueue_chain_copy(&held->chain, chain);
    held->present = true;
}

/* The console takes output again, or there is time for more of it. */
static void output_released(void *context)
{
    struct device *device = context;
    struct held *held = held_of(device, QUEUE_TRANSMIT);

    if (held->present) {
        if (!transmit(device, &held->chain)) {
            return;
        }
        held->present = false;
        transmitted(device, &held->chain);
        virtio_queue_signal(device, QUEUE_TRANSMIT);
        device_settled(device);
    }
    virtio_queue_pump(device, QUEUE_TRANSMIT);
}

static void transmit_again(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    output_released(context);
}

/* ---- Input ---- */

static size_t input_room(void *context)
{
    const struct device *device = context;
    const struct virtio_console *own = device->own;
    const struct held *held = &own->held[QUEUE_RECEIVE];
    return held->present && own->opened ? (size_t)held->chain.writable_bytes : 0;
}

static void input(void *context, const uint8_t *bytes, size_t count)
{
    struct device *device = context;
    struct held *held = held_of(device, QUEUE_RECEIVE);
    size_t written = virtqueue_chain_write(&held->chain, 0, bytes, count);

    held->present = false;
    virtio_request_complete(device, QUEUE_RECEIVE, &held->chain, (uint32_t)written);
    virtio_queue_signal(device, QUEUE_RECEIVE);
}

/* Not before: a receive buffer in flight means that the last input did not arrive. */
static void input_noted(void *context)
{
    virtio_queue_pump(context, QUEUE_RECEIVE);
}

static void receive_request(struct device *device, const struct virtqueue_chain *chain)
{
    struct held *held = held_of(device, QUEUE_RECEIVE);

    if (chain->writable_bytes == 0) {
        virtio_request_complete(device, QUEUE_RECEIVE, chain, 0);
        return;
    }
    virtqueue_chain_copy(&held->chain, chain);
    held->present = true;
    console_input_resume(device->console);
}

/* ---- Ports (section 5.3.6.2) ---- */

static const struct {
    unsigned message;
    struct virtio_console_control control;
    const char *text; /* follows the message */
} messages[] = {
    {TELL_ADD, {.id = 0, .event = VIRTIO_CONSOLE_PORT_ADD, .value = 1}, ""},
    {TELL_CONSOLE, {.id = 0, .event = VIRTIO_CONSOLE_CONSOLE_PORT, .value = 1}, ""},
    {TELL_NAME, {.id = 0, .event = VIRTIO_CONSOLE_PORT_NAME, .value = 1}, PORT_NAME},
    {TELL_OPEN, {.id = 0, .event = VIRTIO_CONSOLE_PORT_OPEN, .value = 1}, ""},
};

static void tell_request(struct device *device, const struct virtqueue_chain *chain)
{
    struct virtio_console *own = device->own;
    size_t written = 0;

    for (unsigned i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        if (own->to_tell & messages[i].message) {
            own->to_tell &= ~messages[i].message;
            written =
                virtqueue_chain_write(chain, 0, &messages[i].control, sizeof(messages[i].control));
            written +=
                virtqueue_chain_write(chain, written, messages[i].text, strlen(messages[i].text));
            break;
        }
    }
    virtio_request_complete(device, QUEUE_TELL, chain, (uint32_t)written);
}

static void tell(struct device *device, unsigned what)
{
    struct virtio_console *own = device->own;

    own->to_tell |= what;
    virtio_queue_pump(device, QUEUE_TELL);
}

static void hear_request(struct device *device, const struct virtqueue_chain *chain)
{
    struct virtio_console *own = device->own;
    struct virtio_console_control control;
    size_t size = virtqueue_chain_read(chain, 0, &control, sizeof(control));

    /* First: pumping another queue takes the chain's place. */
    virtio_request_complete(device, QUEUE_HEAR, chain, 0);
    if (size < sizeof(control)) {
        return;
    }
    if (control.event == VIRTIO_CONSOLE_DEVICE_READY && control.value == 1) {
        tell(device, TELL_ADD);
    } else if (control.id == 0 && control.event == VIRTIO_CONSOLE_PORT_READY &&
               control.value == 1) {
        tell(device, TELL_CONSOLE | TELL_NAME | TELL_OPEN);
    } else if (control.id == 0 && control.event == VIRTIO_CONSOLE_PORT_OPEN) {
        own->opened = control.value == 1;
        console_input_resume(device->console);
    }
}

/* ---- Device ---- */

static bool console_ready(const struct device *device, unsigned queue)
{
    const struct virtio_console *own = device->own;

    switch (queue) {
    case QUEUE_RECEIVE:
        return !own->held[QUEUE_RECEIVE].present;
    case QUEUE_TRANSMIT:
        return !own->held[QUEUE_TRANSMIT].present && !console_held(device->console);
    case QUEUE_TELL:
        return own->to_tell;
    default:
        return true;
    }
}

static void console_request(struct device *device, unsigned queue,
                            const struct virtqueue_chain *chain)
{
    static void (*const handlers[QUEUE_COUNT])(struct device *, const struct virtqueue_chain *) = {
        [QUEUE_RECEIVE] = receive_request,
        [QUEUE_TRANSMIT] = transmit_request,
        [QUEUE_TELL] = tell_request,
        [QUEUE_HEAR] = hear_request,
    };

    if (queue < DATA_QUEUES && held_of(device, queue)->present) {
        /* Only a damaged log of an earlier process can resubmit two. */
        virtio_device_fail(device, "two requests in flight on a console queue");
        return;
    }
    handlers[queue](device, chain);
}

static void console_activated(struct device *device, bool resumed)
{
    struct virtio_console *own = device->own;
    bool ports = device->virtio->driver_features & FEATURE(VIRTIO_CONSOLE_F_MULTIPORT);

    own->opened = !ports || resumed;
    own->to_tell = ports && resumed ? TELL_ADD : 0;
    if (!resumed) {
        console_mark(device->console);
    }
}

/* What was in flight is held again, or done. */
static void console_resubmitted(struct device *device)
{
    const struct virtio_console *own = device->own;
    uint64_t input_before = console_input_position(device->console);

    if (!own->held[QUEUE_TRANSMIT].present) {
        console_mark(device->console);
    }
    console_input_settle(device->console,
                         own->held[QUEUE_RECEIVE].present
                             ? input_before
                             : input_before + console_input_doubtful(device->console));
}

/* The buffers belong to the driver again. */
static void console_reset(struct device *device)
{
    struct virtio_console *own = device->own;

    for (unsigned i = 0; i < DATA_QUEUES; i++) {
        own->held[i].present = false;
    }
    own->to_tell = 0;
    console_mark(device->console);
}

static void console_queue_reset(struct device *device, unsigned queue)
{
    if (queue < DATA_QUEUES) {
        held_of(device, queue)->present = false;
    }
    if (queue == QUEUE_TRANSMIT) {
        console_mark(device->console);
    }
}

/* The one writable field prints a character, before any queue is set up. */
static int console_config_write(struct device *device, uint32_t offset, const uint8_t *data,
                                unsigned size)
{
    if (offset != offsetof(struct virtio_console_config, emerg_wr) || size > 4) {
        return -EINVAL;
    }
    console_write_aside(device->console, data, 1);
    return 0;
}

static int console_init(struct device *device, struct error *err)
{
    const struct virtio_console_config config = {.max_nr_ports = 1};
    struct virtio_console *own = calloc(1, sizeof(*own));

    device->own = own;
    if (own) {
        own->again = event_new(device->base, -1, 0, transmit_again, device);
    }
    if (!own || !own->again) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    virtio_config_set(device, 0, &config, sizeof(config));
    return 0;
}

static void console_free(struct device *device)
{
    struct virtio_console *own = device->own;

    if (own && own->again) {
        event_free(own->again);
    }
    free(own);
}

static const struct console_operations console_operations = {
    .input_room = input_room,
    .input = input,
    .input_noted = input_noted,
    .output_released = output_released,
};

DEVICE_MODEL(virtio_console) = {
    .kind = "virtio-console",
    .device_class = DEVICE_VIRTIO,
    .console = &console_operations,
    .init = console_init,
    .destroy = console_free,
    .virtio =
        {
            .device_id = VIRTIO_ID_CONSOLE,
            .queue_count = QUEUE_COUNT,
            .queue_size = QUEUE_SIZE,
            .features = FEATURE(VIRTIO_CONSOLE_F_MULTIPORT) | FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE),
            .ready = console_ready,
            .request = console_request,
            .activated = console_activated,
            .resubmitted = console_resubmitted,
            .reset = console_reset,
            .queue_reset = console_queue_reset,
            .config_write = console_config_write,
        },
};
