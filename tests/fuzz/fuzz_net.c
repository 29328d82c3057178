/*
 * A hostile driver of a network card, a hostile machine at the other end of its link, and processes
 * that are replaced in between with a state that was tampered with. With user networking behind
 * it, where this process can have a network of its own: what the driver sends must not get out.
 */
#include "devd/net/card.h"
#include "libshared/ipc/rights.h"
#include "libshared/net/link.h"
#include "tests/fuzz/fuzz_device.h"
#include "tests/fuzz/fuzz_limit.h"
#include <sched.h>

#define QUEUE_BYTES 0x4000u
#define QUEUES      5u
#define SETTING     ",mac=52:54:00:00:00:01,queues=2"

static struct fuzz_host host;
static bool alone;     /* in a network of our own */
static bool user, tap; /* which backend; neither: a link */
static int control = -1, peer = -1, connection = -1;

static struct virtio_state *state(void)
{
    return (struct virtio_state *)host.state;
}

static void set_queues(uint16_t size)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        struct virtio_queue_state *queue = &state()->queues[i];
        queue->descriptors = FUZZ_RAM_BASE + i * QUEUE_BYTES;
        queue->driver_area = queue->descriptors + 0x1000;
        queue->device_area = queue->descriptors + 0x2000;
        queue->size = size;
        queue->enabled = 1;
    }
}

static void hand_over(void)
{
    char kind = LINK_CONNECTED;
    const struct iovec body = {&kind, 1};

    rights_send(control, &body, 1, &connection, 1);
}

static void replace_fd(int *fd, int with)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = with;
}

static void start(bool restart)
{
    struct device_descriptors descriptors;
    struct device_settings settings = {.id = "net0", .restart = restart};
    struct error err;
    int pair[2];

    device_descriptors_clear(&descriptors);
    settings.net = user ? "user" SETTING : tap ? "tap,ifname=t0" SETTING : "link,path=/x" SETTING;
    if (tap) { /* an interface carries frames as the other end of a link does */
        descriptors.backend = fcntl(connection, F_DUPFD_CLOEXEC, 0);
    } else if (!user) {
        fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0, "pair");
        replace_fd(&control, pair[0]);
        descriptors.backend = pair[1];
        hand_over();
    }
    descriptors.state = fcntl(host.state_fd, F_DUPFD_CLOEXEC, 0);
    for (unsigned i = 0; i < QUEUES; i++) {
        descriptors.kick[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    for (unsigned i = 0; i < QUEUES + 1; i++) {
        descriptors.call[i] = fcntl(host.doorbell, F_DUPFD_CLOEXEC, 0);
    }
    error_clear(&err);
    host.device = device_create(device_model_find(user ? "virtio-net-user" : "virtio-net"),
                                &settings, &host.memory, host.base, &descriptors, &err);
    fuzz_require(host.device || restart, err.message);
}

static uint8_t *place(struct fuzz_input *input, size_t size)
{
    uint32_t at = (uint32_t)fuzz_take(input, 2) * 4;
    return at < FUZZ_RAM_SIZE - size ? host.ram + at : host.ram;
}

static void op_describe(struct fuzz_input *input)
{
    static const uint32_t lengths[] = {0, 1, 11, 12, 26, 54, 66, 1526, 4096, 65549, 0xffffffff};
    unsigned queue = fuzz_take(input, 1) % QUEUES, index = fuzz_take(input, 1) & 0x1f;
    uint8_t length = (uint8_t)fuzz_take(input, 1);
    uint16_t word = (uint16_t)fuzz_take(input, 2);
    struct virtqueue_descriptor descriptor = {
        .address = FUZZ_RAM_BASE + word * 4ull,
        .length = length < sizeof(lengths) / sizeof(lengths[0]) ? lengths[length] : length * 16u,
        .flags = (uint16_t)(fuzz_take(input, 1) & 7),
        .next = (uint16_t)fuzz_take(input, 1),
    };
    memcpy(host.ram + queue * QUEUE_BYTES + index * sizeof(descriptor), &descriptor,
           sizeof(descriptor));
}

static void op_offer(struct fuzz_input *input)
{
    unsigned queue = fuzz_take(input, 1) % QUEUES;
    uint16_t *available = (uint16_t *)(host.ram + queue * QUEUE_BYTES + 0x1000);
    uint16_t size = state()->queues[queue].size;

    available[2 + (size ? available[1] % size : 0) % 256] = (uint16_t)fuzz_take(input, 1);
    available[1]++;
    virtio_queue_pump(host.device, queue);
}

/* The headers of a frame that mostly make sense. */
static size_t make_frame(struct fuzz_input *input, uint8_t *to)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct virtio_net_hdr_v1 header = {
        .flags = how & 1,
        .gso_type = how & 2 ? (how & 4 ? 4 : 1) : 0,
        .gso_size = (uint16_t)fuzz_take(input, 1),
        .csum_start = how & 4 ? 54 : 34,
        .csum_offset = how & 8 ? 16 : 6,
    };
    static const uint8_t ip4[] = {0x52, 0x54, 0,    0, 0, 1,  0x52, 0x55, 10, 0, 2,  2,
                                  8,    0,    0x45, 0, 0, 60, 0,    0,    0,  0, 64, 6,
                                  0,    0,    10,   0, 2, 15, 10,   0,    2,  2};
    size_t size = sizeof(header) + 100;

    memcpy(to, &header, sizeof(header));
    memset(to + sizeof(header), 0, 100);
    memcpy(to + sizeof(header), ip4, sizeof(ip4));
    if (how & 4) {
        to[12 + 12] = 0x86, to[12 + 13] = 0xdd, to[12 + 14] = 0x60;
        to[12 + 20] = how & 8 ? 6 : 17;
    }
    to[12 + 23] = how & 8 ? 6 : 17;
    to[12 + 46] = to[12 + 66] = 0x50;
    for (unsigned i = how >> 4; i; i--) {
        uint8_t at = (uint8_t)fuzz_take(input, 1);
        to[at % size] = (uint8_t)fuzz_take(input, 1);
    }
    return size;
}

static void op_frame(struct fuzz_input *input)
{
    make_frame(input, place(input, 256));
}

static void op_peer(struct fuzz_input *input)
{
    static uint8_t message[70000];
    size_t size = make_frame(input, message);
    uint8_t more = (uint8_t)fuzz_take(input, 1);

    if (!user) {
        size = more < 8 ? more * 8000u : size + more;
        while (write(peer, message, size) < 0 && errno == EMSGSIZE && size > 1) {
            size /= 2;
        }
    }
    event_base_loop(host.base, EVLOOP_NONBLOCK);
}

static void op_drain(struct fuzz_input *input)
{
    static uint8_t message[70000];

    (void)input;
    while (!user && read(peer, message, sizeof(message)) > 0) {
    }
    event_base_loop(host.base, EVLOOP_NONBLOCK);
}

static void op_command(struct fuzz_input *input)
{
    uint8_t *bytes = place(input, 64);

    for (unsigned i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)fuzz_take(input, 1);
    }
    bytes[0] %= 6;
}

static void note(void *context)
{
    (void)context;
}

static void op_activate(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (how & 0x80) {
        virtio_device_reset(host.device, note, NULL);
        set_queues((uint16_t)(1u << (how & 7)));
    }
    state()->driver_features =
        state()->device_features & (fuzz_take(input, 4) | VIRTQUEUE_FEATURE_VERSION_1);
    atomic_store(&state()->status, 15);
    virtio_device_activate(host.device);
}

static void op_link(struct fuzz_input *input)
{
    struct error err;
    device_set_link(host.device, fuzz_take(input, 1) & 1, &err);
}

static void op_restart(struct fuzz_input *input)
{
    struct virtio_queue_state *queue = &state()->queues[fuzz_take(input, 1) % QUEUES];
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    device_destroy(host.device);
    if (how < 64) {
        queue->next_order += how & 7;
    } else if (how < 128) {
        queue->used_order += how & 7;
    } else if (how < 192) {
        state()->saved[fuzz_take(input, 2) % VIRTIO_SAVED_MAX] = (uint8_t)fuzz_take(input, 1);
    }
    start(true);
    if (!host.device) {
        memset(host.state + 8, 0, VIRTIO_STATE_SIZE - 8);
        start(false);
    }
}

static void op_limit(struct fuzz_input *input)
{
    fuzz_limit(&host, input);
}

static void (*const operations[])(struct fuzz_input *) = {
    op_describe, op_offer, op_frame,   op_peer,  op_drain, op_command,
    op_activate, op_link,  op_restart, op_offer, op_limit,
};

static void open_everything(void)
{
    alone = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    fuzz_open(&host);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    int pair[2];

    if (!host.base) {
        open_everything();
    }
    memset(host.ram, 0, FUZZ_RAM_SIZE);
    memset(host.state, 0, VIRTIO_STATE_SIZE);
    state()->magic = VIRTIO_STATE_MAGIC;
    state()->version = VIRTIO_STATE_VERSION;
    set_queues(16);
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    user = (how & 1) && alone;
    tap = !user && how & 2;
    fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0, "pair");
    replace_fd(&peer, pair[0]);
    replace_fd(&connection, pair[1]);
    start(false);
    state()->driver_features = state()->device_features;
    atomic_store(&state()->status, 15);
    virtio_device_activate(host.device);
    while (input.size) {
        operations[fuzz_take(&input, 1) % (sizeof(operations) / sizeof(operations[0]))](&input);
    }
    fuzz_turn(&host);
    fuzz_end(&host);
    return 0;
}
