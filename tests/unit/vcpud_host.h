/*
 * vcpud in a thread of a test, and the test in vmmd's place: it hands over descriptors, asks, and
 * hears notices. The guest is a handful of instructions in a kernel image made here.
 */
#ifndef POLYVISOR_TESTS_VCPUD_HOST_H
#define POLYVISOR_TESTS_VCPUD_HOST_H

#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include "libshared/mem/memory.h"
#include "libshared/virtio/state.h"
#include "proto/transport.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/vcpu/control.h"
#include <check.h>
#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_BYTES  (UINT64_C(128) << 20)
#define TIMEOUT_MS    20000
#define KERNEL_OFFSET 0x200000 /* in RAM */

static char directory[32];
static char path[64];
static struct fdlist descriptors;
static uint8_t *ram; /* the guest's */
static struct control *control;
static struct channel *vmmd;
static pthread_t vcpud;
static uint64_t last_id;
static Polyvisor__VcpuReply *reply;            /* the last one received */
static Polyvisor__VcpuNoticeKind ending_heard; /* how the guest ended */
static bool asked_for_reset;
static unsigned deadlines_missed; /* notices that a device missed its */

/* --- guests ---------------------------------------------------------------------------------- */

/* The head of a RISC-V kernel Image, whose first instruction jumps over it. */
struct image {
    uint32_t code[2];
    uint64_t text_offset, image_size, flags;
    uint32_t version, reserved;
    uint64_t reserved2;
    char magic[8];
    uint32_t magic2, reserved3;
    uint32_t program[32];
};

#define SBI_RESET 0x535258b7, 0x35488893, 0x00000813, 0x00000593, 0x00000073, 0x0000006f

static const uint32_t LOOP[] = {0x0000006f};
/* a0 = 0: shut down */
static const uint32_t POWER_OFF[] = {0x00000513, SBI_RESET};
/* Counts its starts in memory that no image covers, and reboots until it is the third. */
static const uint32_t REBOOT_TWICE[] = {
    0x01000297, 0x0002a303, 0x00130313, 0x0062a023, 0x00300393, 0x00733533, SBI_RESET,
};

/* Writes to the configuration of the virtio device in slot 1, so that a reset has to ask it, and
 * reboots; the second time it shuts down. */
static const uint32_t TOUCH_AND_REBOOT[] = {
    0x01000297, 0x0002a303, 0x00130313, 0x0062a023, 0x00200393, 0x00733533, /* count, as above */
    0x300082b7, 0x40000e37, 0x03c2a023, 0x0202a223, 0x00729223, /* its BAR at 0x40000000 */
    0x00100393, 0x007e0a23, 0x00002eb7, 0x01ce8eb3, 0x007e8023, /* status 1, then a byte */
    SBI_RESET,
};

static inline int make_image(const uint32_t *program, size_t bytes)
{
    struct image image = {
        .code = {0x0400006f, 0},
        .text_offset = 0x200000,
        .image_size = sizeof(image),
        .version = 2,
        .magic = "RISCV",
        .magic2 = 0x05435352,
    };
    memcpy(image.program, program, bytes);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, &image, sizeof(image)), sizeof(image));
    return fd;
}

/* --- vcpud in a thread ----------------------------------------------------------------------- */

static inline void *vcpud_main(void *argument)
{
    (void)argument;
    ck_assert_int_eq(control_loop(control), 0);
    return NULL;
}

static inline void hand_over(const char *name, int fd)
{
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fdlist_add(&descriptors, fd, "%s", name), 0);
}

static inline void connect_vmmd(void)
{
    vmmd = channel_connect(CHANNEL_VCPU, NN_PAIR, path);
    ck_assert_ptr_nonnull(vmmd);
}

static inline void setup(void)
{
    struct error err = {0};
    ending_heard = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_NONE;
    asked_for_reset = false;
    deadlines_missed = 0;
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ending, NULL);
    snprintf(directory, sizeof(directory), "/tmp/test-vcpud-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/vcpud.sock", directory);
    memset(&descriptors, 0, sizeof(descriptors));
    int memory = memory_create_fd("ram", MEMORY_BYTES);
    hand_over("ram", memory);
    ram = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    ck_assert_ptr_ne(ram, MAP_FAILED);
    hand_over("codemap", memory_create_fd("codemap", memory_codemap_size(MEMORY_BYTES)));
    control = control_open(path, &descriptors, &err);
    ck_assert_msg(control != NULL, "%s", err.message);
    ck_assert_int_eq(pthread_create(&vcpud, NULL, vcpud_main, NULL), 0);
    connect_vmmd();
}

static inline void forget_reply(void)
{
    if (reply) {
        protobuf_c_message_free_unpacked(&reply->base, NULL);
        reply = NULL;
    }
}

/* After vcpud was told to end. */
static inline void join(void)
{
    pthread_join(vcpud, NULL);
    control_close(control);
    channel_close(vmmd);
    forget_reply();
    munmap(ram, MEMORY_BYTES);
    while (descriptors.count > 0) {
        close(descriptors.entries[--descriptors.count].fd);
    }
    struct stat info;
    ck_assert(stat(path, &info) < 0 && errno == ENOENT);
    rmdir(directory);
}

static inline void receive(void)
{
    ProtobufCMessage *message = NULL;
    forget_reply();
    ck_assert_int_eq(
        channel_receive(vmmd, &polyvisor__vcpu_reply__descriptor, &message, TIMEOUT_MS), 0);
    reply = (Polyvisor__VcpuReply *)message;
    deadlines_missed += reply->notice == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT;
}

static inline void send_request(Polyvisor__VcpuRequest *request)
{
    request->id = ++last_id;
    ck_assert_int_eq(channel_send(vmmd, &request->base, TIMEOUT_MS), 0);
}

/* The answer, which must be next but for notices about late devices, the end told again, and the
 * end of a reset that we asked for: its CPUs may have had no processor to park on in time. */
static inline void receive_answer(void)
{
    bool told_again;
    do {
        receive();
        told_again =
            reply->id == 0 &&
            ((ending_heard && reply->notice == ending_heard) ||
             (asked_for_reset && reply->notice == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET));
    } while (told_again ||
             (reply->id == 0 &&
              reply->notice >= POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT));
    ck_assert_msg(reply->id == last_id, "answer %llu instead of %llu, notice %d",
                  (unsigned long long)reply->id, (unsigned long long)last_id, (int)reply->notice);
}

/* Send a request without contents of its own and take the answer. */
static inline void ask(Polyvisor__VcpuRequest__BodyCase body)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuStart start = POLYVISOR__VCPU_START__INIT;
    Polyvisor__VcpuPause pause = POLYVISOR__VCPU_PAUSE__INIT;
    Polyvisor__VcpuStop stop = POLYVISOR__VCPU_STOP__INIT;
    Polyvisor__VcpuReset reset = POLYVISOR__VCPU_RESET__INIT;
    Polyvisor__VcpuPing ping = POLYVISOR__VCPU_PING__INIT;
    Polyvisor__VcpuStatsRequest stats = POLYVISOR__VCPU_STATS_REQUEST__INIT;
    void *bodies[] = {
        [POLYVISOR__VCPU_REQUEST__BODY_START] = &start,
        [POLYVISOR__VCPU_REQUEST__BODY_PAUSE] = &pause,
        [POLYVISOR__VCPU_REQUEST__BODY_STOP] = &stop,
        [POLYVISOR__VCPU_REQUEST__BODY_RESET] = &reset,
        [POLYVISOR__VCPU_REQUEST__BODY_PING] = &ping,
        [POLYVISOR__VCPU_REQUEST__BODY_STATS] = &stats,
    };
    asked_for_reset |= body == POLYVISOR__VCPU_REQUEST__BODY_RESET;
    request.body_case = body;
    request.start = bodies[body]; /* the members of the union are all pointers */
    send_request(&request);
    receive_answer();
}

#define ASK(body) ask(POLYVISOR__VCPU_REQUEST__BODY_##body)

static inline void configure_as(const char *arch, const char *engine, unsigned cpus, uint64_t bytes,
                                Polyvisor__VcpuDevice *device)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuConfigure configure = POLYVISOR__VCPU_CONFIGURE__INIT;
    configure.name = "test";
    configure.arch = (char *)arch;
    configure.engine = (char *)engine;
    configure.cpus = cpus;
    configure.memory_bytes = bytes;
    configure.append = "";
    configure.n_devices = device ? 1 : 0;
    configure.devices = &device;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE;
    request.configure = &configure;
    send_request(&request);
    receive();
    ck_assert_uint_eq(reply->id, last_id);
}

static inline void configure(unsigned cpus)
{
    configure_as("riscv64", "interp", cpus, MEMORY_BYTES, NULL);
    ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
}

static inline void expect_error(enum error_code code)
{
    ck_assert_ptr_nonnull(reply->error);
    ck_assert_str_eq(reply->error->code, error_code_text(code));
    ck_assert_str_ne(reply->error->message, "");
    ck_assert_str_eq(reply->error->component, "vcpud");
}

static inline void expect_notice(Polyvisor__VcpuNoticeKind kind)
{
    receive();
    ck_assert_uint_eq(reply->id, 0);
    ck_assert_int_eq((int)reply->notice, (int)kind);
    if (kind == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF ||
        kind == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_GUEST_FAILURE) {
        ending_heard = kind;
    }
}

#define NOTICE(kind) expect_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_##kind)

/* --- a device that is the test's ------------------------------------------------------------- */

static char transport_path[64];
static struct channel *device;

/* The shared state of a random number device, set up. */
static inline int make_device_state(void)
{
    int fd = memory_create_fd("state", VIRTIO_STATE_SIZE);
    struct virtio_state *state =
        mmap(NULL, VIRTIO_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(state, MAP_FAILED);
    state->magic = VIRTIO_STATE_MAGIC;
    state->version = VIRTIO_STATE_VERSION;
    state->device_id = 4;
    state->queue_count = 1;
    state->config_length = 8;
    munmap(state, VIRTIO_STATE_SIZE);
    return fd;
}

/* Skip what is said of late devices. */
static inline void await_notice(Polyvisor__VcpuNoticeKind kind)
{
    do {
        receive();
        ck_assert_uint_eq(reply->id, 0);
        ck_assert(reply->notice == kind ||
                  reply->notice >= POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT);
    } while (reply->notice != kind);
}

/* Take what vcpud asks of the device up to its next write to the configuration, and answer that if
 * it is wanted. */
static inline void take_config_write(bool answered)
{
    Polyvisor__TransportReply answer = POLYVISOR__TRANSPORT_REPLY__INIT;
    ProtobufCMessage *message = NULL;
    do {
        if (message) {
            protobuf_c_message_free_unpacked(message, NULL);
        }
        ck_assert_int_eq(channel_receive(device, &polyvisor__transport_request__descriptor,
                                         &message, TIMEOUT_MS),
                         0);
    } while (((Polyvisor__TransportRequest *)message)->body_case !=
             POLYVISOR__TRANSPORT_REQUEST__BODY_CONFIG_WRITE);
    answer.id = ((Polyvisor__TransportRequest *)message)->id;
    if (answered) {
        ck_assert_int_eq(channel_send(device, &answer.base, TIMEOUT_MS), 0);
    }
    protobuf_c_message_free_unpacked(message, NULL);
}

#endif
