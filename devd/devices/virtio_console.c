/*
 * virtio console (Virtual I/O Device 1.2, section 5.3): a first port, which is a console, and as
 * many others as the machine was given, each with a console core of its own.
 *
 * Of each data queue one request at a time is held: a receive buffer waiting for input, and a
 * transmit buffer that the console has not yet taken whole. Everything else stays in the driver's
 * ring, so that the guest's own flow control works, and one port does not hold up another.
 *
 * A process that dies leaves in the console's memory how much of the present transmit buffer was
 * taken, and whether input was on its way into a receive buffer; that the buffer is in flight or
 * not says the rest. So the next one writes what is left, and gives no input twice.
 *
 * A driver that wants several ports learns over the control queues which there are, their names,
 * which are consoles, and whether the host has opened them; input waits until the guest has. What
 * the driver has said is in the shared state, written before its message is given back: a message
 * that was in flight is heard again, and says the same. What is still to be said is not kept: a
 * restarted process says all of it again, which drivers take as a repetition.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include "libshared/ipc/console.h"
#include "libshared/port/setting.h"
#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Queues (section 5.3.2): two of the first port, two for control, two of each further port. */
#define QUEUE_TELL     2 /* control messages to the driver */
#define QUEUE_HEAR     3 /* and from it */
#define CONTROL_QUEUES 2
#define QUEUE_SIZE     128
#define PORT_COUNT     (1 + PORTS_MAX)

enum { RECEIVE, TRANSMIT, DIRECTIONS };

_Static_assert(2 * PORT_COUNT + CONTROL_QUEUES <= VIRTIO_QUEUES_MAX, "queues for all ports");

/* Of one transmit buffer, which may have 4 GiB, in one turn of the event loop. */
#define TRANSMIT_A_TURN CONSOLE_BACKLOG

#define FEATURE(bit) (UINT64_C(1) << (bit))

/* Messages the driver has yet to get of a port, in this order: a size is one of a console. */
enum { TELL_ADD = 1, TELL_CONSOLE = 2, TELL_SIZE = 4, TELL_NAME = 8, TELL_OPEN = 16 };

struct port {
    struct device *device;
    unsigned number;
    char name[PORT_NAME_MAX + 1];
    bool is_console;
    struct console *console;
    unsigned to_tell;
    struct event *again; /* more of the held transmit buffer, in another turn */
    struct held {
        bool present;
        struct virtqueue_chain chain;
    } held[DIRECTIONS];
};

/* What the driver told, for the next process. */
struct console_saved {
    uint8_t opened[PORT_COUNT]; /* by the guest */
    uint8_t ready;              /* it wants to hear of ports */
};
_Static_assert(sizeof(struct console_saved) <= VIRTIO_SAVED_MAX, "fits the saved space");

struct virtio_console {
    struct port ports[PORT_COUNT];
    unsigned port_count;
    bool multiport;    /* negotiated; without it there is one port, and it is open */
    unsigned to_drain; /* ports whose clients have not got all, at the end */
    void (*drained)(void *context);
    void *drained_context;
};

static struct console_saved *saved_of(const struct device *device)
{
    return (struct console_saved *)device->virtio->state->saved;
}

static unsigned queue_of(const struct port *port, unsigned direction)
{
    return (port->number ? CONTROL_QUEUES + 2 * port->number : 0) + direction;
}

static bool is_control(unsigned queue)
{
    return queue == QUEUE_TELL || queue == QUEUE_HEAR;
}

/* The port of a data queue, or NULL. */
static struct port *port_of(const struct device *device, unsigned queue)
{
    struct virtio_console *own = device->own;
    unsigned number = queue < QUEUE_TELL ? 0 : (queue - CONTROL_QUEUES) / 2;

    return !is_control(queue) && number < own->port_count ? &own->ports[number] : NULL;
}

static unsigned direction_of(unsigned queue)
{
    return queue % 2;
}

static bool port_open(const struct port *port)
{
    const struct virtio_console *own = port->device->own;

    return own->multiport ? saved_of(port->device)->opened[port->number] != 0 : port->number == 0;
}

/* ---- Output ---- */

/* Give the console what it takes, as much as one turn allows; true when the buffer is done. The
 * console counts what it has of the buffer. */
static bool transmit(struct port *port, const struct virtqueue_chain *chain)
{
    static const struct timeval next_turn = {0, 0};
    uint64_t done = console_since_mark(port->console);
    const uint64_t end = done + TRANSMIT_A_TURN;
    uint8_t bytes[4096];

    while (done < chain->readable_bytes) {
        if (console_held(port->console)) {
            return false;
        }
        if (done >= end) {
            event_add(port->again, &next_turn);
            return false;
        }
        size_t count = virtqueue_chain_read(chain, done, bytes, sizeof(bytes));
        size_t taken = console_write(port->console, bytes, count);
        done += taken;
        if (taken < count) {
            return false;
        }
    }
    return true;
}

/* In this order, and both before another buffer is taken: whenever the process dies, the mark is of
 * the buffer in flight, or there is none. */
static void transmitted(struct port *port, const struct virtqueue_chain *chain)
{
    virtio_request_complete(port->device, queue_of(port, TRANSMIT), chain, 0);
    console_mark(port->console);
}

static void transmit_request(struct port *port, const struct virtqueue_chain *chain)
{
    struct held *held = &port->held[TRANSMIT];

    if (transmit(port, chain)) {
        transmitted(port, chain);
        return;
    }
    virtqueue_chain_copy(&held->chain, chain);
    held->present = true;
}

/* The console takes output again, or there is time for more of it. */
static void output_released(void *context)
{
    struct port *port = context;
    struct device *device = port->device;
    struct held *held = &port->held[TRANSMIT];

    if (held->present) {
        if (!transmit(port, &held->chain)) {
            return;
        }
        held->present = false;
        transmitted(port, &held->chain);
        virtio_queue_signal(device, queue_of(port, TRANSMIT));
        device_settled(device);
    }
    virtio_queue_pump(device, queue_of(port, TRANSMIT));
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
    const struct port *port = context;
    const struct held *held = &port->held[RECEIVE];
    return held->present && port_open(port) ? (size_t)held->chain.writable_bytes : 0;
}

static void input(void *context, const uint8_t *bytes, size_t count)
{
    struct port *port = context;
    struct held *held = &port->held[RECEIVE];
    size_t written = virtqueue_chain_write(&held->chain, 0, bytes, count);

    held->present = false;
    virtio_request_complete(port->device, queue_of(port, RECEIVE), &held->chain, (uint32_t)written);
    virtio_queue_signal(port->device, queue_of(port, RECEIVE));
}

/* Not before: a receive buffer in flight means that the last input did not arrive. */
static void input_noted(void *context)
{
    struct port *port = context;
    virtio_queue_pump(port->device, queue_of(port, RECEIVE));
}

static void receive_request(struct port *port, const struct virtqueue_chain *chain)
{
    struct held *held = &port->held[RECEIVE];

    if (chain->writable_bytes == 0) {
        virtio_request_complete(port->device, queue_of(port, RECEIVE), chain, 0);
        return;
    }
    virtqueue_chain_copy(&held->chain, chain);
    held->present = true;
    console_input_resume(port->console);
}

/* The first port's core is the device's, and calls with that. */
static struct port *first_port(void *context)
{
    struct virtio_console *own = ((struct device *)context)->own;
    return &own->ports[0];
}

static size_t first_input_room(void *context)
{
    return input_room(first_port(context));
}

static void first_input(void *context, const uint8_t *bytes, size_t count)
{
    input(first_port(context), bytes, count);
}

static void first_input_noted(void *context)
{
    input_noted(first_port(context));
}

static void first_output_released(void *context)
{
    output_released(first_port(context));
}

/* ---- Ports (section 5.3.6.2) ---- */

/* As the specification has it. Linux up to 6.14, without what its stable releases of 2026 have,
 * takes rows for columns. */
struct resize {
    uint16_t columns, rows;
};
_Static_assert(sizeof(struct resize) == 4, "wire layout");

/* What the driver may hear of the size of the port's terminal; false: nothing. */
static bool size_of(const struct port *port, struct resize *size)
{
    return port->is_console && console_size(port->console, &size->columns, &size->rows) &&
           (port->device->virtio->driver_features & FEATURE(VIRTIO_CONSOLE_F_SIZE));
}

static void tell(struct port *port, unsigned what)
{
    port->to_tell |= what;
    virtio_queue_pump(port->device, QUEUE_TELL);
}

/* A terminal is always there: what it shows is kept for who looks later. */
static bool host_open(const struct port *port)
{
    return port->is_console || console_attached(port->console);
}

/* The longest message there is: one with a name. */
#define MESSAGE_MAX (sizeof(struct virtio_console_control) + PORT_NAME_MAX)

/* The next message of that port, into `bytes`; its size. */
static size_t next_message(struct port *port, uint8_t bytes[MESSAGE_MAX])
{
    static const struct {
        unsigned message;
        uint16_t event;
    } messages[] = {
        {TELL_ADD, VIRTIO_CONSOLE_PORT_ADD},   {TELL_CONSOLE, VIRTIO_CONSOLE_CONSOLE_PORT},
        {TELL_SIZE, VIRTIO_CONSOLE_RESIZE},    {TELL_NAME, VIRTIO_CONSOLE_PORT_NAME},
        {TELL_OPEN, VIRTIO_CONSOLE_PORT_OPEN},
    };
    struct virtio_console_control control = {.id = port->number, .value = 1};
    size_t next = 0, size = sizeof(control);

    while (!(port->to_tell & messages[next].message)) {
        next++;
    }
    port->to_tell &= ~messages[next].message;
    control.event = messages[next].event;
    if (control.event == VIRTIO_CONSOLE_PORT_OPEN) {
        control.value = host_open(port);
    }
    memcpy(bytes, &control, sizeof(control));
    struct resize resize;
    if (control.event == VIRTIO_CONSOLE_RESIZE && size_of(port, &resize)) {
        memcpy(bytes + size, &resize, sizeof(resize));
        size += sizeof(resize);
    }
    if (control.event == VIRTIO_CONSOLE_PORT_NAME) {
        memcpy(bytes + size, port->name, strlen(port->name));
        size += strlen(port->name);
    }
    return size;
}

static struct port *port_to_tell_of(const struct device *device)
{
    struct virtio_console *own = device->own;

    for (unsigned i = 0; i < own->port_count; i++) {
        if (own->ports[i].to_tell) {
            return &own->ports[i];
        }
    }
    return NULL;
}

static void tell_request(struct device *device, const struct virtqueue_chain *chain)
{
    struct port *port = port_to_tell_of(device);
    uint8_t bytes[MESSAGE_MAX];
    size_t written = 0;

    if (port) {
        written = virtqueue_chain_write(chain, 0, bytes, next_message(port, bytes));
    }
    virtio_request_complete(device, QUEUE_TELL, chain, (uint32_t)written);
}

/* A host's program came to a stream, or left. */
static void attached(void *context, bool any)
{
    struct port *port = context;
    const struct virtio_console *own = port->device->own;

    (void)any;
    /* A driver that has not heard of the port will hear that, too, once it is ready. */
    if (own->multiport && !port->is_console && saved_of(port->device)->ready) {
        tell(port, TELL_OPEN);
    }
}

/* The size of the first port is in the configuration, too, for drivers that know of one port. */
static void resized(void *context)
{
    struct port *port = context;
    const struct virtio_console *own = port->device->own;
    struct resize size = {0};

    if (port->number == 0 && console_size(port->console, &size.columns, &size.rows)) {
        virtio_config_set(port->device, 0, &size, sizeof(size));
    }
    if (own->multiport && size_of(port, &size) && saved_of(port->device)->ready) {
        tell(port, TELL_SIZE);
    }
}

static void first_resized(void *context)
{
    resized(first_port(context));
}

/* What the driver says, as often as it likes. */
static void hear(struct device *device, const struct virtio_console_control *control)
{
    struct virtio_console *own = device->own;
    struct port *port = control->id < own->port_count ? &own->ports[control->id] : NULL;

    if (control->event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned i = 0; i < own->port_count && control->value == 1; i++) {
            tell(&own->ports[i], TELL_ADD);
        }
    } else if (port && control->event == VIRTIO_CONSOLE_PORT_READY && control->value == 1) {
        struct resize size;
        tell(port, (port->is_console ? TELL_CONSOLE : 0) | (size_of(port, &size) ? TELL_SIZE : 0) |
                       TELL_NAME | TELL_OPEN);
    } else if (port && control->event == VIRTIO_CONSOLE_PORT_OPEN) {
        console_input_resume(port->console);
    }
}

static void hear_request(struct device *device, const struct virtqueue_chain *chain)
{
    const struct virtio_console *own = device->own;
    struct console_saved *saved = saved_of(device);
    struct virtio_console_control control;
    size_t size = virtqueue_chain_read(chain, 0, &control, sizeof(control));

    if (size == sizeof(control) && control.event == VIRTIO_CONSOLE_DEVICE_READY) {
        saved->ready = control.value == 1;
    } else if (size == sizeof(control) && control.event == VIRTIO_CONSOLE_PORT_OPEN &&
               control.id < own->port_count) {
        saved->opened[control.id] = control.value == 1;
    }
    /* Before what follows from it: pumping another queue takes the chain's place. */
    virtio_request_complete(device, QUEUE_HEAR, chain, 0);
    if (size == sizeof(control)) {
        hear(device, &control);
    }
}

/* ---- Device ---- */

static bool console_ready(const struct device *device, unsigned queue)
{
    const struct port *port = port_of(device, queue);

    if (!port) {
        return queue != QUEUE_TELL || port_to_tell_of(device);
    }
    return !port->held[direction_of(queue)].present &&
           (direction_of(queue) == RECEIVE || !console_held(port->console));
}

static void console_request(struct device *device, unsigned queue,
                            const struct virtqueue_chain *chain)
{
    static void (*const data[DIRECTIONS])(struct port *, const struct virtqueue_chain *) = {
        [RECEIVE] = receive_request,
        [TRANSMIT] = transmit_request,
    };
    struct port *port = port_of(device, queue);

    if (queue == QUEUE_TELL) {
        tell_request(device, chain);
    } else if (queue == QUEUE_HEAR) {
        hear_request(device, chain);
    } else if (!port) {
        virtio_request_complete(device, queue, chain, 0); /* no port has that many queues */
    } else if (port->held[direction_of(queue)].present) {
        /* Only a damaged log of an earlier process can resubmit two. */
        virtio_device_fail(device, "two requests in flight on a console queue");
    } else {
        data[direction_of(queue)](port, chain);
    }
}

static void console_activated(struct device *device, bool resumed)
{
    struct virtio_console *own = device->own;
    struct console_saved *saved = saved_of(device);

    own->multiport = device->virtio->driver_features & FEATURE(VIRTIO_CONSOLE_F_MULTIPORT);
    if (!resumed) {
        memset(saved, 0, sizeof(*saved));
    }
    for (unsigned i = 0; i < own->port_count; i++) {
        struct port *port = &own->ports[i];
        port->to_tell = own->multiport && resumed && saved->ready ? TELL_ADD : 0;
        if (!resumed) {
            console_mark(port->console);
        }
    }
}

/* What was in flight is held again, or done. */
static void console_resubmitted(struct device *device)
{
    const struct virtio_console *own = device->own;

    for (unsigned i = 0; i < own->port_count; i++) {
        const struct port *port = &own->ports[i];
        uint64_t before = console_input_position(port->console);
        if (!port->held[TRANSMIT].present) {
            console_mark(port->console);
        }
        console_input_settle(port->console, port->held[RECEIVE].present
                                                ? before
                                                : before + console_input_doubtful(port->console));
    }
}

/* The buffers belong to the driver again. */
static void port_forget(struct port *port, unsigned direction)
{
    port->held[direction].present = false;
    if (direction == TRANSMIT) {
        console_mark(port->console);
    }
}

static void console_reset(struct device *device)
{
    struct virtio_console *own = device->own;

    for (unsigned i = 0; i < own->port_count; i++) {
        port_forget(&own->ports[i], RECEIVE);
        port_forget(&own->ports[i], TRANSMIT);
        own->ports[i].to_tell = 0;
    }
    memset(saved_of(device), 0, sizeof(struct console_saved));
    own->multiport = false;
}

static void console_queue_reset(struct device *device, unsigned queue)
{
    struct port *port = port_of(device, queue);

    if (port) {
        port_forget(port, direction_of(queue));
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

static const struct console_operations port_operations = {
    .input_room = input_room,
    .input = input,
    .input_noted = input_noted,
    .output_released = output_released,
    .attached = attached,
    .resized = resized,
};

static void panicked(void *context)
{
    device_repeat_notices(((struct port *)context)->device);
}

/* The core of a further port, on the descriptors that came for it. */
static int port_serve(struct port *port, struct error *err)
{
    struct device_port *given = &port->device->ports[port->number - 1];
    const struct console_settings settings = {.listener = given->listener,
                                              .plain = given->plain,
                                              .memory = given->memory,
                                              .stream = !port->is_console};

    if (given->listener < 0 || given->memory < 0) {
        return error_set(err, ERROR_CONFIG, 0, "device %s got nothing for port %u",
                         port->device->id, port->number);
    }
    given->listener = given->plain = -1;
    port->console = console_open(port->device->base, &settings, &port_operations, port);
    if (!port->console) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot serve port %u of device %s",
                         port->number, port->device->id);
    }
    if (!port->is_console) {
        return 0; /* data: nothing that a kernel says */
    }
    port->device->port_consoles[port->number - 1] = port->console;
    return console_watch_panics(port->console, panicked, port) < 0
               ? error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", port->device->id)
               : 0;
}

static int port_init(struct port *port, struct device *device, unsigned number, struct error *err)
{
    struct port_setting setting = {.name = PORT_NAME_FIRST, .console = true};
    int status = 0;

    port->device = device;
    port->number = number;
    if (number > 0) {
        status = port_setting_parse(device->port_settings[number - 1], ERROR_CONFIG, &setting, err);
    }
    memcpy(port->name, setting.name, sizeof(port->name));
    port->is_console = setting.console;
    port->again = event_new(device->base, -1, 0, transmit_again, port);
    if (!port->again) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    if (number == 0) {
        port->console = device->console;
        return 0;
    }
    return status < 0 ? status : port_serve(port, err);
}

static int console_init(struct device *device, struct error *err)
{
    struct virtio_console *own = calloc(1, sizeof(*own));
    int status = 0;

    device->own = own;
    if (!own) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    for (unsigned i = 0; i <= device->port_count && i < PORT_COUNT && status == 0; i++) {
        own->port_count++;
        status = port_init(&own->ports[i], device, i, err);
    }
    struct resize size = {0};
    if (status == 0) {
        console_size(device->console, &size.columns, &size.rows);
        const struct virtio_console_config config = {
            .cols = size.columns, .rows = size.rows, .max_nr_ports = own->port_count};
        virtio_config_set(device, 0, &config, sizeof(config));
    }
    if (own->port_count > 1) {
        snprintf(device->described, sizeof(device->described), "%u ports", own->port_count);
    }
    return status;
}

static void console_free(struct device *device)
{
    struct virtio_console *own = device->own;

    for (unsigned i = 0; own && i < own->port_count; i++) {
        if (own->ports[i].again) {
            event_free(own->ports[i].again);
        }
        if (i > 0) {
            device->port_consoles[i - 1] = NULL;
            console_destroy(own->ports[i].console);
        }
    }
    free(own);
}

static void port_drained(void *context)
{
    struct virtio_console *own = context;

    if (--own->to_drain == 0) {
        own->drained(own->drained_context);
    }
}

static void console_drain_ports(struct device *device, unsigned limit_ms,
                                void (*drained)(void *context), void *context)
{
    struct virtio_console *own = device->own;

    own->drained = drained;
    own->drained_context = context;
    own->to_drain = own->port_count + 1; /* one for ourselves: a port may be done at once */
    for (unsigned i = 0; i < own->port_count; i++) {
        console_drain(own->ports[i].console, limit_ms, port_drained, own);
    }
    port_drained(own);
}

static const struct console_operations first_operations = {
    .input_room = first_input_room,
    .input = first_input,
    .input_noted = first_input_noted,
    .output_released = first_output_released,
    .resized = first_resized,
};

DEVICE_MODEL(virtio_console) = {
    .kind = "virtio-console",
    .device_class = DEVICE_VIRTIO,
    .console = &first_operations,
    .init = console_init,
    .destroy = console_free,
    .drain = console_drain_ports,
    .virtio =
        {
            .device_id = VIRTIO_ID_CONSOLE,
            .queue_count = 0, /* as many as its ports need */
            .queue_size = QUEUE_SIZE,
            .features = FEATURE(VIRTIO_CONSOLE_F_SIZE) | FEATURE(VIRTIO_CONSOLE_F_MULTIPORT) |
                        FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE),
            .ready = console_ready,
            .request = console_request,
            .activated = console_activated,
            .resubmitted = console_resubmitted,
            .reset = console_reset,
            .queue_reset = console_queue_reset,
            .config_write = console_config_write,
        },
};
