/*
 * A hostile driver of every virtio device: any descriptors, rings, configuration writes, resets,
 * and device processes that are replaced in between with a state that was tampered with.
 */
#include "tests/fuzz/fuzz_device.h"
#include "tests/fuzz/fuzz_limit.h"

#define QUEUE_BYTES 0x4000u

static struct fuzz_host host;
static const char *const kinds[] = {"virtio-blk", "virtio-console", "virtio-rng", "virtio-input",
                                    "virtio-balloon"};
static const char *kind;
static unsigned queue_count;

static struct virtio_state *state(void)
{
    return (struct virtio_state *)host.state;
}

static void set_queues(uint16_t size)
{
    for (unsigned i = 0; i < queue_count; i++) {
        struct virtio_queue_state *queue = &state()->queues[i];
        queue->descriptors = FUZZ_RAM_BASE + i * QUEUE_BYTES;
        queue->driver_area = queue->descriptors + 0x1000;
        queue->device_area = queue->descriptors + 0x2000;
        queue->size = size;
        queue->enabled = 1;
    }
}

/* An address that mostly means something. */
static uint64_t take_address(struct fuzz_input *input)
{
    uint16_t word = (uint16_t)fuzz_take(input, 2);
    return word == 0xffff ? fuzz_take(input, 8) : FUZZ_RAM_BASE + word * 4ull;
}

static uint32_t take_length(struct fuzz_input *input)
{
    static const uint32_t lengths[] = {0, 1, 8, 16, 20, 32, 512, 513, 1024, 4096, 0xffffffff};
    uint8_t byte = (uint8_t)fuzz_take(input, 1);
    return byte < sizeof(lengths) / sizeof(lengths[0]) ? lengths[byte] : byte * 16u;
}

static void op_describe(struct fuzz_input *input)
{
    unsigned queue = fuzz_take(input, 1) % queue_count, index = (unsigned)fuzz_take(input, 1);
    struct virtqueue_descriptor descriptor = {
        .address = take_address(input),
        .length = take_length(input),
        .flags = (uint16_t)fuzz_take(input, 1),
        .next = (uint16_t)fuzz_take(input, 1),
    };
    memcpy(host.ram + queue * QUEUE_BYTES + index * sizeof(descriptor), &descriptor,
           sizeof(descriptor));
}

static void op_offer(struct fuzz_input *input)
{
    unsigned queue = fuzz_take(input, 1) % queue_count;
    uint16_t *available = (uint16_t *)(host.ram + queue * QUEUE_BYTES + 0x1000);
    uint16_t size = state()->queues[queue].size;

    available[2 + (size ? available[1] % size : 0) % 256] = (uint16_t)fuzz_take(input, 1);
    available[1]++;
    if (host.device) {
        virtio_queue_pump(host.device, queue % state()->queue_count);
    }
}

static void op_write(struct fuzz_input *input)
{
    uint32_t at = (uint32_t)fuzz_take(input, 2) * 4;
    size_t size = fuzz_take(input, 1);

    size = size < input->size ? size : input->size;
    if (at < FUZZ_RAM_SIZE && size < FUZZ_RAM_SIZE - at) {
        memcpy(host.ram + at, input->bytes, size);
    }
    input->bytes += size;
    input->size -= size;
}

static void op_block_header(struct fuzz_input *input)
{
    struct {
        uint32_t type, priority;
        uint64_t sector;
    } header = {.type = (uint32_t)fuzz_take(input, 1), .sector = fuzz_take(input, 1)};
    uint32_t at = (uint32_t)fuzz_take(input, 2) * 4;

    if (at < FUZZ_RAM_SIZE - sizeof(header)) {
        memcpy(host.ram + at, &header, sizeof(header));
    }
}

static void note(void *context)
{
    (void)context;
}

static void op_reset(struct fuzz_input *input)
{
    (void)input;
    virtio_device_reset(host.device, note, NULL);
}

static void op_activate(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (how < 8) {
        set_queues((uint16_t)(1u << how));
    } else if (how < 16) {
        struct virtio_queue_state *queue = &state()->queues[how & 3];
        queue->size = (uint16_t)fuzz_take(input, 2);
        queue->descriptors = take_address(input);
        queue->driver_area = take_address(input);
        queue->device_area = take_address(input);
    }
    state()->driver_features = state()->device_features & (how & 16 ? UINT64_MAX : ~0xffffull);
    atomic_store(&state()->status, 15);
    virtio_device_activate(host.device);
}

static void op_config(struct fuzz_input *input)
{
    uint8_t data[16];
    uint32_t offset = (uint32_t)fuzz_take(input, 1);
    unsigned size = fuzz_take(input, 1) & 15;

    for (unsigned i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)fuzz_take(input, 1);
    }
    virtio_device_config_write(host.device, offset, data, size);
}

/* The process is replaced; what it left may have been damaged. */
static void op_restart(struct fuzz_input *input)
{
    struct virtio_queue_state *queue = &state()->queues[fuzz_take(input, 1) % queue_count];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct virtio_inflight *entry = &queue->inflight[fuzz_take(input, 1)];

    device_destroy(host.device);
    if (how < 64) {
        entry->status = how & 3;
        entry->order = queue->next_order - (how >> 2);
    } else if (how < 80) {
        queue->next_order += how & 7;
    } else if (how < 96) {
        queue->used_order += how & 7;
    } else if (how >= 224 && how < 240) {
        state()->limits[how % VIRTIO_LIMITS] = fuzz_number(input);
    } else if (how >= 240) {
        fuzz_damage_console(&host, input);
    }
    fuzz_start(&host, kind, true);
    if (!host.device) {
        memset(host.state + 8, 0, VIRTIO_STATE_SIZE - 8);
        fuzz_start(&host, kind, false);
    }
}

static void op_client(struct fuzz_input *input)
{
    fuzz_client(&host, input);
}

static void op_turn(struct fuzz_input *input)
{
    (void)input;
    fuzz_turn(&host);
}

static void resized(void *context, const struct error *err)
{
    (void)context, (void)err;
}

static void ballooned(void *context, uint64_t id, const struct device_balloon_report *report)
{
    (void)context, (void)id, (void)report;
}

static void op_control(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct error err;

    if (how & 0x80 && host.port_count) {
        fuzz_port_client(&host, input);
    } else if (how & 4) {
        const struct device_balloon_order order = {
            .set = how & 1, .target_bytes = fuzz_number(input), .statistics = how & 2};
        device_balloon(host.device, &order, how, ballooned, NULL, &err);
    } else if (how & 1) {
        device_power_key(host.device, &err);
    } else {
        device_resize(host.device, fuzz_number(input) % 0x40000, how & 2, resized, NULL, &err);
    }
}

static void op_limit(struct fuzz_input *input)
{
    fuzz_limit(&host, input);
}

static void (*const operations[])(struct fuzz_input *) = {
    op_describe, op_offer,  op_write, op_block_header, op_reset,   op_activate,
    op_config,   op_client, op_turn,  op_restart,      op_control, op_limit,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (!host.base) {
        fuzz_open(&host);
        fuzz_open_ports(&host);
    }
    memset(host.ram, 0, FUZZ_RAM_SIZE);
    memset(host.state, 0, VIRTIO_STATE_SIZE);
    state()->magic = VIRTIO_STATE_MAGIC;
    state()->version = VIRTIO_STATE_VERSION;
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    kind = kinds[how % (sizeof(kinds) / sizeof(kinds[0]))];
    host.port_count = how & 0x80 ? FUZZ_PORTS : 0; /* of a console; the others have none to serve */
    queue_count = host.port_count ? 4 + 2 * FUZZ_PORTS : 4;
    set_queues(16);
    host.disk.threads = how & 0x40;
    host.disk.write_through = how & 0x20;
    fuzz_require(ftruncate(host.disk_fd, FUZZ_DISK) == 0, "a disk");
    fuzz_start(&host, kind, false);
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
