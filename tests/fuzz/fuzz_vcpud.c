/*
 * vcpud with a vmmd that configures anything, asks for anything in any order, and hands over
 * descriptors that are not what they should be; while its devices' processes signal and answer as
 * they like. The guest is a loop.
 */
#define FUZZ_REAL_TIME
#include "libshared/base/log.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/mem/memory.h"
#include "libshared/mmio/channel.h"
#include "libshared/virtio/state.h"
#include "proto/jit.pb-c.h"
#include "proto/transport.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "vmmd/vcpu/control.h"
#include <event2/event.h>
#include <sys/mman.h>

#define RAM_SIZE (UINT64_C(16) << 20)

/* The engine and its threads keep what they need; see fuzz_engine.c. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static struct fuzz_input *speaker;
static int ram, codemap, kernel, plain_state, virtio_state;
static struct virtio_state *shared;

static const char *const texts[] = {
    "",
    "one",
    "riscv64",
    "arm64",
    "interp",
    "baseline",
    "auto",
    "serial0",
    "serial",
    "disk0",
    "virtio-blk",
    "net0",
    "virtio-net",
    "rtc0",
    "rtc",
    "plic",
    "aia",
    "optimised",
    "/nowhere/a.transport.sock",
    "/nowhere/jit.sock",
};

static bool number(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint64_t *value)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (how >= 240) {
        return false;
    }
    if (!strcmp(field->name, "memory_bytes")) {
        *value = RAM_SIZE;
    } else if (!strcmp(field->name, "cpus")) {
        *value = 1 + (how & 1);
    } else if (!strcmp(field->name, "address")) {
        *value = UINT64_C(0x80000000) + how * 64;
    } else {
        *value = how & 31;
    }
    return true;
}

static const struct fuzz_words words = {
    .texts = texts, .count = sizeof(texts) / sizeof(texts[0]), .number = number};

static void say(int socket, const ProtobufCMessageDescriptor *type, enum channel_kind kind)
{
    static uint8_t frame[FUZZ_FRAME_MAX];

    if (socket >= 0) {
        fuzz_push(socket, frame, fuzz_frame(speaker, &words, type, (uint16_t)kind, frame));
    }
}

static void ask(Polyvisor__VcpuRequest *request)
{
    static uint8_t frame[2048];
    uint32_t size = (uint32_t)polyvisor__vcpu_request__pack(request, frame + FUZZ_FRAME_HEAD);

    memcpy(frame, "PVM1\3\0\0\0", 8);
    memcpy(frame + 8, &size, 4);
    fuzz_push(fuzz_find_socket("vcpud.sock"), frame, size + FUZZ_FRAME_HEAD);
}

/* A configuration that is right. */
static void configure(void)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuConfigure right = POLYVISOR__VCPU_CONFIGURE__INIT;
    Polyvisor__VcpuDevice devices[3], *list[3];
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);

    for (unsigned i = 0; i < 3; i++) {
        static const char *const ids[] = {"serial0", "disk0", "rtc0"};
        static const char *const kinds[] = {"serial", "virtio-blk", "rtc"};
        polyvisor__vcpu_device__init(&devices[i]);
        devices[i].id = (char *)ids[i];
        devices[i].kind = (char *)kinds[i];
        list[i] = &devices[i];
    }
    devices[1].transport_path = (char *)"/nowhere/disk0.transport.sock";
    devices[1].pci_slot = 3;
    devices[1].queue_count = 1;
    right.name = (char *)"one";
    right.arch = (char *)"riscv64";
    right.engine = (char *)(how & 1 ? "interp" : "auto");
    right.cpus = 1 + (how >> 1 & 1);
    right.memory_bytes = RAM_SIZE;
    right.devices = list;
    right.n_devices = how >> 2 & 3;
    right.jit_path = (char *)(how & 16 ? "/nowhere/jit.sock" : "");
    request.id = 1;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE;
    request.configure = &right;
    ask(&request);
}

static void simple(Polyvisor__VcpuRequest__BodyCase body)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuStart start = POLYVISOR__VCPU_START__INIT;
    Polyvisor__VcpuStop stop = POLYVISOR__VCPU_STOP__INIT;

    request.id = 7;
    request.body_case = body;
    if (body == POLYVISOR__VCPU_REQUEST__BODY_START) {
        request.start = &start;
    } else {
        request.stop = &stop;
    }
    ask(&request);
}

static void op_request(void)
{
    say(fuzz_find_socket("vcpud.sock"), &polyvisor__vcpu_request__descriptor, CHANNEL_VCPU);
}

static void op_start(void)
{
    simple(POLYVISOR__VCPU_REQUEST__BODY_START);
}

static void op_device(void)
{
    say(fuzz_find_socket("transport.sock"), &polyvisor__transport_reply__descriptor,
        CHANNEL_TRANSPORT);
}

static void op_compiler(void)
{
    say(fuzz_find_socket("jit.sock"), &polyvisor__jit_reply__descriptor, CHANNEL_JIT);
}

static void op_state(void)
{
    ((uint8_t *)shared)[fuzz_number(speaker) % VIRTIO_STATE_SIZE] = (uint8_t)fuzz_take(speaker, 1);
}

static void (*const operations[])(void) = {op_request, op_request,  op_start,
                                           op_device,  op_compiler, op_state};

/* vcpud's loop: between its turns the others say something. */
int event_base_dispatch(struct event_base *base)
{
    while (speaker->size && !event_base_got_exit(base)) {
        operations[fuzz_pick(speaker, 6)]();
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    if (!event_base_got_exit(base)) {
        simple(POLYVISOR__VCPU_REQUEST__BODY_STOP);
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    return 0;
}

static void add(struct fdlist *list, int fd, const char *name)
{
    int copy = dup(fd);

    if (fuzz_take(speaker, 1) >= 8) { /* now and then one is missing */
        fuzz_require(copy >= 0 && fdlist_add(list, copy, "%s", name) == 0, "a descriptor");
    } else {
        close(copy);
    }
}

static void hand_over(struct fdlist *list)
{
    static const char *const doorbells[] = {
        "dev.serial0.kick.0", "dev.serial0.call.0", "dev.serial0.reply",
        "dev.disk0.kick.0",   "dev.disk0.call.0",   "dev.disk0.call.1",
        "dev.rtc0.kick.0",    "dev.rtc0.call.0",    "dev.rtc0.reply",
    };

    add(list, ram, "ram");
    add(list, codemap, "codemap");
    add(list, kernel, "kernel");
    add(list, plain_state, "dev.serial0.state");
    add(list, plain_state, "dev.rtc0.state");
    add(list, virtio_state, "dev.disk0.state");
    for (unsigned i = 0; i < sizeof(doorbells) / sizeof(doorbells[0]); i++) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        add(list, fd, doorbells[i]);
        close(fd);
    }
}

/* An Image that jumps over its header, and there to itself. */
static void make_kernel(void)
{
    uint8_t image[128] = {0x6f, 0x00, 0x00, 0x04, [10] = 0x20, [16] = 128, [32] = 2};

    memcpy(image + 48, "RISCV\0\0\0RSC\5", 12);
    image[64] = 0x6f;
    kernel = memfd_create("kernel", MFD_CLOEXEC);
    fuzz_require(write(kernel, image, sizeof(image)) == sizeof(image), "a kernel");
}

static void prepare(void)
{
    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
    ram = memory_create_fd("ram", RAM_SIZE);
    codemap = memory_create_fd("codemap", memory_codemap_size(RAM_SIZE));
    plain_state = memory_create_fd("state", MMIO_STATE_SIZE);
    virtio_state = memory_create_fd("state", VIRTIO_STATE_SIZE);
    shared = mmap(NULL, VIRTIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, virtio_state, 0);
    struct mmio_channel *channel =
        mmap(NULL, MMIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, plain_state, 0);
    fuzz_require(shared != MAP_FAILED && channel != MAP_FAILED, "memory");
    channel->magic = MMIO_CHANNEL_MAGIC;
    channel->version = MMIO_CHANNEL_VERSION;
    make_kernel();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct fdlist list;
    struct fuzz_input input = {bytes, size};
    struct error err = {0};

    if (!shared) {
        prepare();
    }
    memset(shared, 0, VIRTIO_STATE_SIZE);
    shared->magic = VIRTIO_STATE_MAGIC;
    shared->version = VIRTIO_STATE_VERSION;
    speaker = &input;
    memset(&list, 0, sizeof(list));
    hand_over(&list);
    struct control *control = control_open("/nowhere/vcpud.sock", &list, &err);
    fuzz_require(control != NULL, err.message);
    if (fuzz_take(&input, 1) >= 32) {
        configure();
    }
    control_loop(control);
    control_close(control);
    for (size_t i = 0; i < list.count; i++) {
        close(list.entries[i].fd);
    }
    fuzz_check_descriptors();
    return 0;
}
