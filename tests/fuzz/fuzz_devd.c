/*
 * All of devd but its confinement, with hostile neighbours: a vmmd that configures anything and a
 * vcpud that asks for anything, over a shared state that is not what it should be. The devices'
 * queues have fuzzers of their own.
 */
int devd_main(int argc, char **argv);
#define main devd_main
#include "devd/main.c"
#undef main

#include "proto/device.pb-c.h"
#include "proto/transport.pb-c.h"
#include "tests/fuzz/fuzz_device.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "tests/fuzz/fuzz_wait.h"
#include <sched.h>

static struct fuzz_host host;
static struct fuzz_input *speaker;
static const char *chosen_kind;

static const char *const kinds_known[] = {
    "serial",     "rtc",          "virtio-blk", "virtio-console",
    "virtio-rng", "virtio-input", "virtio-net", "virtio-net-user",
};

static const char *const texts[] = {
    "",
    "fuzz0",
    "/nowhere/transport.sock",
    "serial",
    "virtio-blk",
    "a serial number that is far longer than twenty bytes",
    "user,mac=52:54:00:00:00:01",
    "user,mac=52:54:00:00:00:01,queues=3,mtu=9000",
    "link,path=/x,mac=52:54:00:00:00:01,queues=2",
    "tap,ifname=t0,mac=52:54:00:00:00:01",
    "user,hostfwd=tcp:127.0.0.1:70-:22,mac=52:54:00:00:00:01",
};

static bool number(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint64_t *value)
{
    uint8_t how;

    if (strcmp(field->name, "memory_base") && strcmp(field->name, "memory_bytes")) {
        return false;
    }
    how = (uint8_t)fuzz_take(input, 1);
    *value = how >= 224                           ? fuzz_number(input)
             : strcmp(field->name, "memory_base") ? FUZZ_RAM_SIZE
                                                  : FUZZ_RAM_BASE;
    return true;
}

static const struct fuzz_words words = {
    .texts = texts, .count = sizeof(texts) / sizeof(texts[0]), .number = number};

static struct virtio_state *state(void)
{
    return (struct virtio_state *)host.state;
}

static void say(const char *socket, const ProtobufCMessageDescriptor *type, enum channel_kind kind)
{
    static uint8_t frame[FUZZ_FRAME_MAX];
    int to = fuzz_find_socket(socket);

    if (to >= 0) {
        fuzz_push(to, frame, fuzz_frame(speaker, &words, type, (uint16_t)kind, frame));
    }
}

/* A configuration that is right, so that there is something to talk to. */
static void configure(void)
{
    static uint8_t frame[1024];
    Polyvisor__DeviceRequest request = POLYVISOR__DEVICE_REQUEST__INIT;
    Polyvisor__DeviceConfigure right = POLYVISOR__DEVICE_CONFIGURE__INIT;
    Polyvisor__DeviceDisk disk = POLYVISOR__DEVICE_DISK__INIT;
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);

    disk.threads = how & 1;
    disk.write_through = how & 2;
    disk.write_error = how >> 2 & 3;
    right.id = (char *)"fuzz0";
    right.kind = (char *)chosen_kind;
    right.transport_path = (char *)"/nowhere/transport.sock";
    right.memory_base = FUZZ_RAM_BASE;
    right.memory_bytes = FUZZ_RAM_SIZE;
    right.restart = how & 16;
    right.read_only = how & 32;
    right.link_down = how & 64;
    right.net = (char *)(strcmp(chosen_kind, "virtio-net") ? texts[6] : texts[8]);
    right.disk = &disk;
    request.id = 1;
    request.body_case = POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE;
    request.configure = &right;
    uint32_t size = (uint32_t)polyvisor__device_request__pack(&request, frame + FUZZ_FRAME_HEAD);
    memcpy(frame, "PVM1\4\0\0\0", 8);
    memcpy(frame + 8, &size, 4);
    fuzz_push(fuzz_find_socket("control.sock"), frame, size + FUZZ_FRAME_HEAD);
}

/* The control socket is there before anything is received from it: what is said first is said now.
 */
static void connected(int socket)
{
    if (!strstr(fuzz_sockets[socket].address, "control.sock")) {
        return;
    }
    unsigned how = (unsigned)fuzz_take(speaker, 1);
    for (unsigned count = how & 3; count > 0; count--) {
        say("control.sock", &polyvisor__device_request__descriptor, CHANNEL_DEVICE);
    }
    configure();
}

static void op_control(void)
{
    say("control.sock", &polyvisor__device_request__descriptor, CHANNEL_DEVICE);
}

static void op_transport(void)
{
    say("transport.sock", &polyvisor__transport_request__descriptor, CHANNEL_TRANSPORT);
}

/* What a driver agreed to, and where its queues are. */
static void op_agree(void)
{
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);

    state()->driver_features = state()->device_features & (how & 1 ? UINT64_MAX : ~0xffffull);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        struct virtio_queue_state *queue = &state()->queues[i];
        queue->descriptors = FUZZ_RAM_BASE + i * 0x4000u;
        queue->driver_area = queue->descriptors + 0x1000;
        queue->device_area = queue->descriptors + 0x2000;
        queue->size = (uint16_t)(1u << (how >> 1 & 7));
        queue->enabled = 1;
    }
    atomic_store(&state()->status, 15);
}

static void op_state(void)
{
    size_t at = (size_t)fuzz_number(speaker) % VIRTIO_STATE_SIZE;
    host.state[at] = (uint8_t)fuzz_take(speaker, 1);
}

static void op_memory(void)
{
    size_t at = (size_t)(fuzz_take(speaker, 2) * 4) % FUZZ_RAM_SIZE;
    host.ram[at] = (uint8_t)fuzz_take(speaker, 1);
}

static void (*const operations_all[])(void) = {op_control, op_transport, op_transport,
                                               op_agree,   op_state,     op_memory};

/* devd's loop: between its turns the others say something. */
int event_base_dispatch(struct event_base *base)
{
    while (speaker->size && !event_base_got_exit(base)) {
        operations_all[fuzz_pick(speaker, 6)]();
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    return 0;
}

static void hand_over(void)
{
    struct fdlist list = {0};
    int pair[2];

    fdlist_add(&list, dup(host.memory_fd), "ram");
    fdlist_add(&list, dup(host.codemap_fd), "codemap");
    fdlist_add(&list, dup(host.state_fd), "state");
    fdlist_add(&list, eventfd(0, EFD_NONBLOCK), "reply");
    if (!strcmp(chosen_kind, "virtio-net")) {
        fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0, "a pair");
        fdlist_add(&list, pair[0], "backend");
        fdlist_add(&list, pair[1], "another");
    } else {
        fdlist_add(&list, dup(host.disk_fd), "backend");
    }
    fdlist_add(&list, dup(host.listener), "console");
    unsigned queues = !strcmp(chosen_kind, "virtio-net") ? 5 : 3;
    for (unsigned i = 0; i < queues; i++) {
        fdlist_add(&list, eventfd(0, EFD_NONBLOCK), "kick.%u", i);
    }
    for (unsigned i = 0; i < queues + 1; i++) {
        fdlist_add(&list, eventfd(0, EFD_NONBLOCK), "call.%u", i);
    }
    char *environment = fdlist_environment(&list);
    fuzz_require(environment != NULL, "memory");
    setenv(FDLIST_ENVIRONMENT, strchr(environment, '=') + 1, 1);
    free(environment);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct devd devd = {.control_path = "/nowhere/control.sock", .id = "fuzz0"};
    struct error err = {0};

    if (!host.base) {
        fuzz_open(&host);
        fuzz_on_connected = connected;
        if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
            fprintf(stderr, "fuzz_devd: in the host's own network\n");
        }
    }
    memset(host.ram, 0, FUZZ_RAM_SIZE);
    memset(host.state, 0, VIRTIO_STATE_SIZE);
    speaker = &input;
    chosen_kind = kinds_known[fuzz_pick(&input, sizeof(kinds_known) / sizeof(kinds_known[0]))];
    devd.kind = chosen_kind;
    bool virtio = strncmp(chosen_kind, "virtio", 6) == 0;
    state()->magic = virtio ? VIRTIO_STATE_MAGIC : MMIO_CHANNEL_MAGIC;
    state()->version = virtio ? VIRTIO_STATE_VERSION : MMIO_CHANNEL_VERSION;
    hand_over();
    live(&devd, &err);
    /* What a refusal left. */
    for (size_t i = 0; i < devd.descriptors.count; i++) {
        close(devd.descriptors.entries[i].fd);
    }
    release(&devd);
    fuzz_check_descriptors();
    return 0;
}
