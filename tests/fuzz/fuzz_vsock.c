/*
 * A hostile driver of the socket device and hostile processes of the host at once: packets that
 * mostly belong to a connection there is, any queues, clients that greet, write, stop reading and
 * go, listeners that are there or not, limits of time that pass, and processes that are replaced.
 */
#include "tests/fuzz/fuzz_device.h"
#include <linux/virtio_vsock.h>
#include <sys/syscall.h>

#define QUEUE_BYTES 0x4000u
#define QUEUES      3u
#define RECEIVE     0u
#define TRANSMIT    1u
#define RINGS       (QUEUES * QUEUE_BYTES)
#define QUEUE_SIZE  128u /* the device's most */
#define SLOTS       16u
#define SLOT_BYTES  0x1800u
#define CID         5u
#define CLIENTS     6u
#define PORTS       8u
#define SENT_MAX    0x40000u

_Static_assert(RINGS + 2 * SLOTS * SLOT_BYTES <= FUZZ_RAM_SIZE, "rings and buffers have room");

static struct fuzz_host host;
static int clients[CLIENTS];  /* processes of the host that dialled, or that were reached */
static uint32_t ports[PORTS]; /* of the host, as packets told them */
static unsigned next_port;
static uint16_t used_seen;

static struct virtio_state *state(void)
{
    return (struct virtio_state *)host.state;
}

/* ---- Processes of the host ---- */

static void keep_client(int fd)
{
    unsigned at = 0;

    while (at < CLIENTS && clients[at] >= 0) {
        at++;
    }
    if (at == CLIENTS) {
        close(clients[at = 0]);
    }
    clients[at] = fd;
}

/* Whom the device reaches: ports below 4 have a listener, and its other end is ours. */
int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    const struct sockaddr_un *to = (const struct sockaddr_un *)address;
    int pair[2];

    if (to->sun_path[0] == '\0') {
        return (int)syscall(SYS_connect, fd, address, size);
    }
    const char *port = strrchr(to->sun_path, '_');
    fuzz_require(port && strncmp(to->sun_path, "/v,s_", 5) == 0, "only what is below its path");
    if (port[1] > '3' || port[2]) {
        errno = ECONNREFUSED;
        return -1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return -1;
    }
    dup3(pair[0], fd, O_CLOEXEC);
    close(pair[0]);
    keep_client(pair[1]);
    return 0;
}

static void dial(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    char line[64];
    size_t size;

    host.client = -1;
    fuzz_connect(&host);
    keep_client(host.client);
    if (how < 224) {
        size = (size_t)snprintf(line, sizeof(line), "CONNECT %u\n", how & 3u);
        send(host.client, line, size - (how >= 208), MSG_NOSIGNAL);
    } else {
        const uint8_t *bytes = fuzz_bytes(input, how & 31, &size);
        send(host.client, bytes, size, MSG_NOSIGNAL);
    }
    host.client = -1;
}

static void op_host(struct fuzz_input *input)
{
    static uint8_t bytes[0x20000];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    int *client = &clients[(how & 15) % CLIENTS];

    if (*client < 0) {
        dial(input);
        return;
    }
    switch (how >> 4) {
    case 0 ... 5:
        send(*client, bytes, 1 + fuzz_number(input) % sizeof(bytes), MSG_NOSIGNAL);
        break;
    case 6 ... 10:
        recv(*client, bytes, sizeof(bytes), 0);
        break;
    case 11:
        shutdown(*client, SHUT_WR);
        break;
    case 12:
        shutdown(*client, SHUT_RD);
        break;
    case 13:
        close(*client);
        *client = -1;
        break;
    default:
        dial(input);
    }
}

/* ---- The driver ---- */

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
    used_seen = 0;
}

static uint32_t slot_offset(unsigned queue, unsigned slot)
{
    return RINGS + ((queue & 1) * SLOTS + slot % SLOTS) * SLOT_BYTES;
}

static void describe(unsigned queue, unsigned index, struct virtqueue_descriptor descriptor)
{
    memcpy(host.ram + queue * QUEUE_BYTES + index * sizeof(descriptor), &descriptor,
           sizeof(descriptor));
}

static void offer(unsigned queue, uint16_t head)
{
    uint16_t *available = (uint16_t *)(host.ram + queue * QUEUE_BYTES + 0x1000);
    uint16_t size = state()->queues[queue].size;

    available[2 + (size ? available[1] % size : 0) % 256] = head;
    available[1]++;
}

/* What the device has sent tells the ports of the host. */
static void collect(void)
{
    const uint16_t *used = (const uint16_t *)(host.ram + RECEIVE * QUEUE_BYTES + 0x2000);
    uint16_t size = state()->queues[RECEIVE].size;

    for (unsigned i = 0; size && used_seen != used[1] && i < size; i++, used_seen++) {
        struct virtqueue_used_element element;
        struct virtio_vsock_hdr header;
        memcpy(&element, (const uint8_t *)(used + 2) + used_seen % size * sizeof(element),
               sizeof(element));
        memcpy(&header, host.ram + slot_offset(RECEIVE, element.id), sizeof(header));
        ports[next_port++ % PORTS] = header.src_port;
    }
}

/* Buffers for packets, of one descriptor or two. */
static void op_buffers(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    for (unsigned i = how & 15; i > 0; i--) {
        unsigned slot = fuzz_take(input, 1) % SLOTS;
        uint64_t address = FUZZ_RAM_BASE + slot_offset(RECEIVE, slot);
        uint32_t length = how & 0x80 ? (uint32_t)fuzz_take(input, 1) : SLOT_BYTES;
        bool two = how & 0x40;
        describe(RECEIVE, slot,
                 (struct virtqueue_descriptor){address, two ? 20 : length,
                                               VIRTQUEUE_WRITE | (two ? VIRTQUEUE_NEXT : 0),
                                               (uint16_t)(SLOTS + slot)});
        describe(RECEIVE, SLOTS + slot,
                 (struct virtqueue_descriptor){address + 20, length, VIRTQUEUE_WRITE, 0});
        offer(RECEIVE, (uint16_t)slot);
    }
    virtio_queue_pump(host.device, RECEIVE);
    fuzz_turn(&host);
    collect();
}

/* A packet; `odd` says which rules it breaks. */
static void op_packet(struct fuzz_input *input)
{
    static unsigned next;
    uint8_t how = (uint8_t)fuzz_take(input, 1), odd = (uint8_t)fuzz_take(input, 1);
    unsigned slot = next++ % SLOTS;
    uint8_t *to = host.ram + slot_offset(TRANSMIT, slot);
    uint64_t address = FUZZ_RAM_BASE + slot_offset(TRANSMIT, slot);
    struct virtio_vsock_hdr header = {
        .src_cid = CID,
        .dst_cid = 2,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .op = how & 7,
        .src_port = how >> 3 & 3,
        .dst_port = how & 0x80 ? fuzz_take(input, 1) & 7 : ports[fuzz_take(input, 1) % PORTS],
        .flags = odd & 3,
        .buf_alloc = odd & 4 ? (uint32_t)fuzz_number(input) : 0x10000,
        .fwd_cnt = odd & 8 ? (uint32_t)fuzz_number(input) : 0,
    };
    uint32_t bytes = (how & 7) == VIRTIO_VSOCK_OP_RW ? (uint32_t)fuzz_number(input) % SENT_MAX : 0;

    bytes = bytes > FUZZ_RAM_SIZE / 2 ? FUZZ_RAM_SIZE / 2 : bytes;
    header.len = odd & 16 ? (uint32_t)fuzz_number(input) : bytes;
    if (odd >= 0xc0) {
        unsigned at = fuzz_take(input, 1) % sizeof(header);
        ((uint8_t *)&header)[at] = (uint8_t)fuzz_take(input, 1);
    }
    memcpy(to, &header, sizeof(header));
    /* The payload lies anywhere: in one piece behind the header, or in many. */
    unsigned pieces = odd & 32 ? 1 + fuzz_pick(input, 100) : 1;
    describe(TRANSMIT, slot,
             (struct virtqueue_descriptor){address, (uint32_t)sizeof(header),
                                           bytes ? VIRTQUEUE_NEXT : 0, SLOTS});
    for (unsigned i = 0; i < pieces; i++) {
        bool last = i + 1 == pieces;
        describe(TRANSMIT, SLOTS + i,
                 (struct virtqueue_descriptor){FUZZ_RAM_BASE + RINGS, bytes / pieces,
                                               last ? 0 : VIRTQUEUE_NEXT,
                                               (uint16_t)(SLOTS + i + 1)});
    }
    offer(TRANSMIT, (uint16_t)slot);
    virtio_queue_pump(host.device, TRANSMIT);
    collect();
}

/* Anything in the queues. */
static void op_describe(struct fuzz_input *input)
{
    unsigned queue = fuzz_take(input, 1) % QUEUES, index = (unsigned)fuzz_take(input, 1);
    uint16_t word = (uint16_t)fuzz_take(input, 2);

    describe(queue, index,
             (struct virtqueue_descriptor){
                 FUZZ_RAM_BASE + word * 4ull, (uint32_t)fuzz_number(input),
                 (uint16_t)(fuzz_take(input, 1) & 7), (uint16_t)fuzz_take(input, 1)});
    offer(queue, (uint16_t)index);
    virtio_queue_pump(host.device, queue);
}

static void op_turn(struct fuzz_input *input)
{
    (void)input;
    fuzz_turn(&host);
    collect();
}

/* ---- Time, and the device's life ---- */

static void op_late(struct fuzz_input *input)
{
    (void)input;
    fuzz_late(&host);
}

static void note(void *context)
{
    (void)context;
}

static void activate(uint64_t features)
{
    state()->driver_features = state()->device_features & features;
    atomic_store(&state()->status, 15);
    virtio_device_activate(host.device);
}

static void op_reset(struct fuzz_input *input)
{
    virtio_device_reset(host.device, note, NULL);
    memset(host.ram, 0, RINGS);
    set_queues((uint16_t)(fuzz_take(input, 1) < 224 ? QUEUE_SIZE : 8));
    activate(fuzz_take(input, 4) | VIRTQUEUE_FEATURE_VERSION_1);
}

/* The process is replaced; what it left may have been damaged. */
static void op_restart(struct fuzz_input *input)
{
    struct virtio_queue_state *queue = &state()->queues[fuzz_take(input, 1) % QUEUES];
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    device_destroy(host.device);
    if (how < 32) {
        queue->next_order += how & 7;
    } else if (how < 64) {
        queue->used_order += how & 7;
    }
    fuzz_start(&host, "virtio-vsock", true);
    if (!host.device) {
        memset(host.state + 8, 0, VIRTIO_STATE_SIZE - 8);
        fuzz_start(&host, "virtio-vsock", false);
    }
}

static void (*const operations[])(struct fuzz_input *) = {
    op_packet, op_host,     op_buffers, op_packet, op_host,    op_turn,
    op_packet, op_describe, op_late,    op_reset,  op_restart,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (!host.base) {
        fuzz_open(&host);
        host.vsock = "path=/v,,s,cid=5";
        host.backend_fd = host.listener;
        memset(clients, 0xff, sizeof(clients));
    }
    memset(host.ram, 0, FUZZ_RAM_SIZE);
    memset(host.state, 0, VIRTIO_STATE_SIZE);
    memset(ports, 0, sizeof(ports));
    next_port = 0;
    state()->magic = VIRTIO_STATE_MAGIC;
    state()->version = VIRTIO_STATE_VERSION;
    set_queues(QUEUE_SIZE);
    fuzz_start(&host, "virtio-vsock", false);
    activate(UINT64_MAX);
    while (input.size) {
        operations[fuzz_take(&input, 1) % (sizeof(operations) / sizeof(operations[0]))](&input);
    }
    fuzz_turn(&host);
    fuzz_end(&host);
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (clients[i] >= 0) {
            close(clients[i]);
            clients[i] = -1;
        }
    }
    fuzz_check_descriptors();
    return 0;
}
