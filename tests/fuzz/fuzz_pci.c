/*
 * The PCI host bridge and virtio's transport between a hostile guest and a hostile device process:
 * accesses of any size to configuration space, BARs and the interrupt controllers behind them; a
 * shared state that changes under the transport; answers that are none.
 */
#include "libshared/base/log.h"
#include "proto/transport.pb-c.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include "vmmd/vcpu/machine/riscv64/virt.h"
#include "vmmd/vcpu/pci/pci_host.h"
#include "vmmd/vcpu/pci/virtio_pci.h"
#include <sys/mman.h>

#define RAM_SIZE (UINT64_C(16) << 20)
#define DEVICES  3
#define SLOT(i)  ((i)*5 + 1) /* 1, 6, 11 */

static struct memory memory;
static struct machine *machines[2]; /* with a PLIC, with an APLIC and IMSICs */
static struct bus *bus;
static struct pci_host *host;
static struct attached {
    struct virtio_state *state;
    struct transport_client *client;
    struct virtio_pci *pci;
    int kick;
} devices[DEVICES];
static const char *const kinds[] = {"virtio-blk", "virtio-net", "virtio-input"};
static const uint32_t types[] = {2, 1, 18};
static const unsigned queue_counts[] = {1, 5, 2};

static void event(void *context, enum machine_event what, unsigned code)
{
    (void)context, (void)what, (void)code;
}

static void unresponsive(void *context)
{
    (void)context;
}

static uint64_t guest_time(void *context)
{
    (void)context;
    return 0;
}

static void open_machines(void)
{
    struct guest_clock clock = {.source = guest_time};
    struct error err = {0};
    struct machine_config config = {
        .cpu_count = 2,
        .memory_size = RAM_SIZE,
        .kernel_fd = -1,
        .initrd_fd = -1,
        .firmware_fd = -1,
        .append = "",
        .event = event,
        .clock = &clock,
    };

    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    fuzz_require(memory_add_region(&memory, memory_create_fd("ram", RAM_SIZE), LAYOUT_RAM_BASE,
                                   RAM_SIZE) == 0 &&
                     memory_attach_codemap(
                         &memory, memory_create_fd("codemap", memory_codemap_size(RAM_SIZE))) == 0,
                 "memory");
    for (unsigned i = 0; i < 2; i++) {
        config.irqchip = i ? MACHINE_IRQCHIP_AIA : MACHINE_IRQCHIP_PLIC;
        machines[i] = machine_model_find("riscv64")->create(&config, &memory, &err);
        fuzz_require(machines[i] != NULL, err.message);
    }
    for (unsigned i = 0; i < DEVICES; i++) {
        devices[i].state = mmap(NULL, VIRTIO_STATE_SIZE, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        devices[i].kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        fuzz_require(devices[i].state != MAP_FAILED && devices[i].kick >= 0, "a device");
    }
}

static void attach(unsigned i)
{
    struct attached *device = &devices[i];
    struct virtio_pci_config config = {
        .name = "fuzz0",
        .kind = kinds[i],
        .slot = SLOT(i),
        .queue_count = queue_counts[i],
        .state = device->state,
        .memory = &memory,
        .unresponsive = unresponsive,
    };
    char path[32];
    struct error err = {0};

    memset(device->state, 0, VIRTIO_STATE_SIZE);
    device->state->magic = VIRTIO_STATE_MAGIC;
    device->state->version = VIRTIO_STATE_VERSION;
    device->state->device_id = types[i];
    device->state->queue_count = queue_counts[i];
    device->state->device_features = UINT64_C(1) << 32 | 0x3f;
    device->state->config_length = 24;
    for (unsigned k = 0; k < VIRTIO_QUEUES_MAX; k++) {
        device->state->queues[k].size_max = 128;
        config.kick[k] = device->kick;
    }
    snprintf(path, sizeof(path), "/nowhere/device%u.sock", i);
    device->client = transport_client_create(path, 100, &err);
    fuzz_require(device->client != NULL, err.message);
    config.client = device->client;
    device->pci = virtio_pci_create(host, &config, &err);
    fuzz_require(device->pci != NULL, err.message);
}

/* ---- the guest ---- */

static uint64_t bars[DEVICES][2]; /* where the guest put them */

static uint64_t ecam(unsigned i, unsigned offset)
{
    return LAYOUT_ECAM_BASE + (SLOT(i) << 15) + offset;
}

/* What drivers do first: BARs 4 and 0, memory decoding, bus mastering. */
static void op_place(struct fuzz_input *input)
{
    unsigned i = fuzz_pick(input, DEVICES);

    for (unsigned bar = 0; bar < 2; bar++) {
        bars[i][bar] = LAYOUT_MMIO_BASE + (i * 2 + bar) * UINT64_C(0x10000);
        bus_write(bus, ecam(i, bar ? 0x10 : 0x20), 4, bars[i][bar]);
        bus_write(bus, ecam(i, bar ? 0x14 : 0x24), 4, 0);
    }
    bus_write(bus, ecam(i, 4), 2, 6 | (fuzz_take(input, 1) & 1) << 10);
    if (fuzz_take(input, 1) & 1) { /* MSI-X on, all vectors to hart 0 */
        for (unsigned vector = 0; vector < 4; vector++) {
            bus_write(bus, bars[i][1] + vector * 16, 4, LAYOUT_IMSIC_BASE);
            bus_write(bus, bars[i][1] + vector * 16 + 4, 4, 0);
            bus_write(bus, bars[i][1] + vector * 16 + 8, 4, 1 + vector);
            bus_write(bus, bars[i][1] + vector * 16 + 12, 4, 0);
        }
        for (unsigned offset = 0x40; offset < 0xf0; offset += 4) {
            uint64_t id = 0;
            bus_read(bus, ecam(i, offset), 1, &id);
            if (id == 0x11) {
                bus_write(bus, ecam(i, offset + 2), 2, 0x8000);
            }
        }
    }
}

static unsigned take_size(struct fuzz_input *input)
{
    return 1u << fuzz_pick(input, 4);
}

/* The virtio registers, mostly of the right width. */
static void op_common(struct fuzz_input *input)
{
    static const uint8_t fields[][2] = {{0, 4},    {8, 4},    {12, 4},   {0x10, 2}, {0x14, 1},
                                        {0x16, 2}, {0x18, 2}, {0x1a, 2}, {0x1c, 2}, {0x20, 8},
                                        {0x28, 8}, {0x30, 8}, {0x38, 2}, {0x3a, 2}};
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    const uint8_t *field = fields[how % 14];
    unsigned i = fuzz_pick(input, DEVICES), size = how >= 224 ? take_size(input) : field[1];
    uint64_t address = bars[i][0] + field[0], value = 0;

    size = how & 0x40 && size == 8 ? 4 : size;
    if (how & 0x20) {
        bus_read(bus, address, size, &value);
    } else {
        uint64_t number = fuzz_number(input);
        value =
            field[0] >= 0x20 && field[0] < 0x38 && how & 0x80 ? LAYOUT_RAM_BASE + number : number;
        bus_write(bus, address, size, value);
    }
}

/* As far as DRIVER_OK. */
static void op_start(struct fuzz_input *input)
{
    unsigned i = fuzz_pick(input, DEVICES);
    uint64_t base = bars[i][0];

    static const uint8_t steps[] = {0, 1, 3, 11};
    for (unsigned step = 0; step < 4; step++) {
        if (step == 3) {
            bus_write(bus, base + 8, 4, 1);
            bus_write(bus, base + 12, 4, 1); /* VERSION_1 */
        }
        bus_write(bus, base + 0x14, 1, steps[step]);
    }
    for (unsigned queue = 0; queue < queue_counts[i]; queue++) {
        uint64_t area = LAYOUT_RAM_BASE + queue * UINT64_C(0x4000);
        bus_write(bus, base + 0x16, 2, queue);
        bus_write(bus, base + 0x1a, 2, queue & 3);
        bus_write(bus, base + 0x20, 8, area);
        bus_write(bus, base + 0x28, 8, area + 0x1000);
        bus_write(bus, base + 0x30, 8, area + 0x2000);
        bus_write(bus, base + 0x1c, 2, 1);
    }
    bus_write(bus, base + 0x14, 1, 15);
}

static uint64_t take_address(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned i = how % DEVICES;
    uint64_t offset = how & 0x80 ? fuzz_number(input) : fuzz_take(input, 1);

    switch (how >> 2 & 7) {
    case 0:
    case 1:
        return ecam(i, 0) + offset;
    case 2:
        return bars[i][0] + 0x1000 * (offset & 3) + offset;
    case 3:
        return bars[i][1] + offset * (how & 0x40 ? 1 : 8);
    case 4:
        return LAYOUT_APLIC_BASE + offset * 4;
    case 5:
        return LAYOUT_IMSIC_BASE + offset * 0x400;
    case 6:
        return LAYOUT_PIO_BASE + offset;
    default:
        return LAYOUT_ECAM_BASE + offset * 0x8000;
    }
}

static void op_read(struct fuzz_input *input)
{
    uint64_t value, address = take_address(input);
    bus_read(bus, address, take_size(input), &value);
}

static void op_write(struct fuzz_input *input)
{
    uint64_t address = take_address(input);
    unsigned size = take_size(input);
    bus_write(bus, address, size, fuzz_number(input));
}

static void op_bar(struct fuzz_input *input)
{
    unsigned i = fuzz_pick(input, DEVICES);
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    uint64_t base = how & 1 ? machines[0]->pci.mmio64_base : LAYOUT_MMIO_BASE;

    base += fuzz_number(input) << (how & 2 ? 12 : 0);
    bus_write(bus, ecam(i, how & 4 ? 0x10 : 0x20), 4, base);
    bus_write(bus, ecam(i, how & 4 ? 0x14 : 0x24), 4, base >> 32);
    bars[i][how & 4 ? 1 : 0] = base & ~UINT64_C(15);
}

/* ---- the device process, and vcpud around it ---- */

static void op_signal(struct fuzz_input *input)
{
    unsigned i = fuzz_pick(input, DEVICES);
    virtio_pci_interrupt(devices[i].pci, (unsigned)fuzz_take(input, 1) % (VIRTIO_QUEUES_MAX + 1));
}

static void op_state(struct fuzz_input *input)
{
    uint8_t *bytes = (uint8_t *)devices[fuzz_pick(input, DEVICES)].state;
    size_t at = (size_t)fuzz_number(input) % sizeof(struct virtio_state);
    bytes[at] = (uint8_t)fuzz_take(input, 1);
}

static const struct fuzz_words words = {.count = 0};

static void op_answer(struct fuzz_input *input)
{
    static uint8_t frame[FUZZ_FRAME_MAX];
    char end[16];

    snprintf(end, sizeof(end), "device%u.sock", fuzz_pick(input, DEVICES));
    size_t size = fuzz_frame(input, &words, &polyvisor__transport_reply__descriptor,
                             CHANNEL_TRANSPORT, frame);
    fuzz_push(fuzz_find_socket(end), frame, size);
}

static bool answers;

static void op_answers(struct fuzz_input *input)
{
    answers = fuzz_take(input, 1) & 3;
}

/* The device answers what it is asked: success, mostly. */
static void on_request(int socket, const uint8_t *bytes, size_t size)
{
    static uint8_t frame[64] = "PVM1\5";

    Polyvisor__TransportRequest *request =
        polyvisor__transport_request__unpack(NULL, size - FUZZ_FRAME_HEAD, bytes + FUZZ_FRAME_HEAD);
    fuzz_require(request != NULL, "what is sent is a request");
    if (answers) {
        Polyvisor__TransportReply reply = POLYVISOR__TRANSPORT_REPLY__INIT;
        reply.id = request->id;
        uint32_t length =
            (uint32_t)polyvisor__transport_reply__pack(&reply, frame + FUZZ_FRAME_HEAD);
        memcpy(frame + 8, &length, 4);
        fuzz_push(socket, frame, length + FUZZ_FRAME_HEAD);
    }
    polyvisor__transport_request__free_unpacked(request, NULL);
}

/* Unplugged, by force or not, and another plugged in once its driver has let go. */
static void plug(unsigned i, bool force)
{
    if (virtio_pci_unplug(devices[i].pci, force)) {
        virtio_pci_remove(devices[i].pci);
        virtio_pci_destroy(devices[i].pci);
        transport_client_destroy(devices[i].client);
        attach(i);
    }
}

static void op_life(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct virtio_pci *device = devices[how % DEVICES].pci;

    switch (how >> 6) {
    case 0:
        virtio_pci_reactivate(device);
        break;
    case 1:
        if (how & 0x20) {
            plug(how % DEVICES, how & 0x10);
        } else {
            virtio_pci_reset_pending(device);
        }
        break;
    case 2:
        virtio_pci_device_gone(device);
        break;
    default:
        pci_host_reset(host);
        break;
    }
}

static void (*const operations[])(struct fuzz_input *) = {
    op_place, op_common, op_common, op_common, op_start,  op_read, op_write,
    op_write, op_bar,    op_signal, op_state,  op_answer, op_life, op_answers,
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct error err = {0};

    if (!machines[0]) {
        open_machines();
        fuzz_on_sent = on_request;
    }
    struct machine *machine = machines[fuzz_take(&input, 1) & 1];
    bus = bus_create();
    fuzz_require(bus != NULL, "a bus");
    host = pci_host_create(bus, &machine->pci, &err);
    fuzz_require(host != NULL, err.message);
    memset(bars, 0, sizeof(bars));
    answers = true;
    for (unsigned i = 0; i < DEVICES; i++) {
        attach(i);
    }
    while (input.size) {
        operations[fuzz_pick(&input, sizeof(operations) / sizeof(operations[0]))](&input);
    }
    pci_host_destroy(host);
    bus_destroy(bus);
    for (unsigned i = 0; i < DEVICES; i++) {
        virtio_pci_destroy(devices[i].pci);
        transport_client_destroy(devices[i].client);
    }
    return 0;
}
