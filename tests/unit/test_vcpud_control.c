/* vcpud's whole life as vmmd sees it: configure, start, pause, reset, power off, stop, errors. The
 * guest is a handful of instructions in a kernel image made here. */
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
static unsigned deadlines_missed;              /* notices that a device missed its */

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

static int make_image(const uint32_t *program, size_t bytes)
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

static void *vcpud_main(void *argument)
{
    (void)argument;
    ck_assert_int_eq(control_loop(control), 0);
    return NULL;
}

static void hand_over(const char *name, int fd)
{
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fdlist_add(&descriptors, fd, "%s", name), 0);
}

static void connect_vmmd(void)
{
    vmmd = channel_connect(CHANNEL_VCPU, NN_PAIR, path);
    ck_assert_ptr_nonnull(vmmd);
}

static void setup(void)
{
    struct error err = {0};
    ending_heard = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_NONE;
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

static void forget_reply(void)
{
    if (reply) {
        protobuf_c_message_free_unpacked(&reply->base, NULL);
        reply = NULL;
    }
}

/* After vcpud was told to end. */
static void join(void)
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

static void receive(void)
{
    ProtobufCMessage *message = NULL;
    forget_reply();
    ck_assert_int_eq(
        channel_receive(vmmd, &polyvisor__vcpu_reply__descriptor, &message, TIMEOUT_MS), 0);
    reply = (Polyvisor__VcpuReply *)message;
    deadlines_missed += reply->notice == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT;
}

static void send_request(Polyvisor__VcpuRequest *request)
{
    request->id = ++last_id;
    ck_assert_int_eq(channel_send(vmmd, &request->base, TIMEOUT_MS), 0);
}

/* The answer, which must be next but for notices about late devices, and the end told again. */
static void receive_answer(void)
{
    bool told_again;
    do {
        receive();
        told_again = reply->id == 0 && ending_heard && reply->notice == ending_heard;
    } while (told_again ||
             (reply->id == 0 &&
              reply->notice >= POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT));
    ck_assert_uint_eq(reply->id, last_id);
}

/* Send a request without contents of its own and take the answer. */
static void ask(Polyvisor__VcpuRequest__BodyCase body)
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
    request.body_case = body;
    request.start = bodies[body]; /* the members of the union are all pointers */
    send_request(&request);
    receive_answer();
}

#define ASK(body) ask(POLYVISOR__VCPU_REQUEST__BODY_##body)

static void configure_as(const char *arch, const char *engine, unsigned cpus, uint64_t bytes,
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

static void configure(unsigned cpus)
{
    configure_as("riscv64", "interp", cpus, MEMORY_BYTES, NULL);
    ck_assert_msg(!reply->error, "%s", reply->error ? reply->error->message : "");
}

static void expect_error(enum error_code code)
{
    ck_assert_ptr_nonnull(reply->error);
    ck_assert_str_eq(reply->error->code, error_code_text(code));
    ck_assert_str_ne(reply->error->message, "");
    ck_assert_str_eq(reply->error->component, "vcpud");
}

static void expect_notice(Polyvisor__VcpuNoticeKind kind)
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

/* --- tests ----------------------------------------------------------------------------------- */

START_TEST(test_power_off)
{
    hand_over("kernel", make_image(POWER_OFF, sizeof(POWER_OFF)));
    configure(4);
    ASK(PING);
    ck_assert_ptr_null(reply->error);
    ASK(START);
    ck_assert_ptr_null(reply->error);
    NOTICE(POWER_OFF);
    ASK(START);
    expect_error(ERROR_STATE);
    ASK(STATS);
    ck_assert_ptr_nonnull(reply->stats);
    ck_assert_uint_gt(reply->stats->retired, 5);
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    join();
}
END_TEST

START_TEST(test_guest_reboots_itself)
{
    hand_over("kernel", make_image(REBOOT_TWICE, sizeof(REBOOT_TWICE)));
    configure(2);
    ASK(START);
    NOTICE(RESET);
    NOTICE(RESET);
    NOTICE(POWER_OFF);
    ASK(STOP);
    join();
}
END_TEST

START_TEST(test_pause_and_reset_on_request)
{
    hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    configure(2);
    ASK(PAUSE);
    expect_error(ERROR_STATE);
    ASK(START);
    ASK(START);
    expect_error(ERROR_STATE);
    for (unsigned i = 0; i < 20; i++) {
        ASK(PAUSE);
        ck_assert_ptr_null(reply->error);
        ASK(STATS);
        uint64_t retired = reply->stats->retired;
        ASK(PING);
        ASK(STATS);
        ck_assert_uint_eq(reply->stats->retired, retired);
        if (i % 3 == 0) {
            ASK(RESET);
            ck_assert_ptr_null(reply->error);
        }
        ASK(START);
        ck_assert_ptr_null(reply->error);
        ASK(RESET);
        ck_assert_ptr_null(reply->error);
    }
    ASK(STOP);
    join();
}
END_TEST

/* Its own code, again and again while it runs: it must go on each time. */
START_TEST(test_code_of_a_running_guest)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__CodeRequest code = POLYVISOR__CODE_REQUEST__INIT;
    uint64_t retired = 0;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_CODE;
    request.code = &code;
    hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    send_request(&request);
    receive();
    expect_error(ERROR_STATE);
    configure(2);
    ASK(START);
    for (unsigned i = 0; i < 20; i++) {
        code.at_pc = true;
        send_request(&request);
        receive();
        ck_assert_ptr_nonnull(reply->code);
        ck_assert_uint_eq(reply->code->n_blocks, 1);
        do {
            ASK(STATS);
        } while (reply->stats->retired == retired);
        retired = reply->stats->retired;
    }
    code.at_pc = false;
    code.address = 0x1000;
    send_request(&request);
    receive();
    expect_error(ERROR_NOT_FOUND);
    ck_assert_ptr_null(reply->code);
    code.cpu = 2;
    send_request(&request);
    receive();
    expect_error(ERROR_NOT_FOUND);
    ASK(STOP);
    join();
}
END_TEST

/* Receive until the guest's end is told; everything else must be a notice, too. */
static void hear_end(void)
{
    do {
        receive();
        ck_assert_uint_eq(reply->id, 0);
    } while (reply->notice != POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF);
    ending_heard = reply->notice;
}

/* Whatever the first vmmd got of what happened, and whether it did before it ended: the next one
 * gets to know that the guest has ended, at the latest when it asks. */
START_TEST(test_vmmd_dies_and_comes_back)
{
    hand_over("kernel", make_image(REBOOT_TWICE, sizeof(REBOOT_TWICE)));
    configure(1);
    ASK(START);
    if (_i == 0) {
        channel_close(vmmd); /* what the guest does now, nobody hears */
        usleep(100000);
    } else {
        hear_end();
        channel_close(vmmd); /* and tells nobody */
        ending_heard = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_NONE;
    }
    connect_vmmd();
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuPing ping = POLYVISOR__VCPU_PING__INIT;
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_PING;
    request.ping = &ping;
    bool asked = false;
    while (!ending_heard || asked) {
        if (!asked) {
            send_request(&request); /* as beats do */
        }
        receive();
        asked = reply->id == 0;
        if (reply->notice == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF) {
            ending_heard = reply->notice;
        }
    }
    ASK(STOP);
    join();
}
END_TEST

START_TEST(test_requests_out_of_order)
{
    ASK(START);
    expect_error(ERROR_STATE);
    ASK(PAUSE);
    expect_error(ERROR_STATE);
    ASK(RESET);
    expect_error(ERROR_STATE);
    ASK(STATS);
    expect_error(ERROR_STATE);
    ASK(PING);
    ck_assert_ptr_null(reply->error);
    Polyvisor__VcpuRequest empty = POLYVISOR__VCPU_REQUEST__INIT;
    send_request(&empty);
    receive();
    expect_error(ERROR_PROTOCOL);
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    join();
}
END_TEST

static const struct bad_configuration {
    const char *arch, *engine;
    unsigned cpus;
    uint64_t bytes;
    bool has_kernel;
    Polyvisor__VcpuDevice device; /* kind NULL: none */
    enum error_code code;
} BAD[] = {
    {"vax", "interp", 1, MEMORY_BYTES, true, {0}, ERROR_UNSUPPORTED},
    {"riscv64", "warp", 1, MEMORY_BYTES, true, {0}, ERROR_UNSUPPORTED},
    {"riscv64", "interp", 0, MEMORY_BYTES, true, {0}, ERROR_CONFIG},
    {"riscv64", "interp", 9, MEMORY_BYTES, true, {0}, ERROR_CONFIG},
    {"riscv64", "interp", 1, MEMORY_BYTES * 2, true, {0}, ERROR_MEMORY},
    {"riscv64", "interp", 1, 12345, true, {0}, ERROR_MEMORY},
    {"riscv64", "interp", 1, MEMORY_BYTES, false, {0}, ERROR_KERNEL},
    {"riscv64",
     "interp",
     1,
     MEMORY_BYTES,
     true,
     {.id = "x", .kind = "toaster"},
     ERROR_INTERNAL}, /* its descriptors are missing */
    {"riscv64",
     "interp",
     1,
     MEMORY_BYTES,
     true,
     {.id = "x", .kind = "virtio-rng", .queue_count = 99},
     ERROR_CONFIG},
};

START_TEST(test_bad_configurations)
{
    const struct bad_configuration *bad = &BAD[_i];
    Polyvisor__VcpuDevice device = POLYVISOR__VCPU_DEVICE__INIT;
    if (bad->has_kernel) {
        hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    }
    device.id = bad->device.id;
    device.kind = bad->device.kind;
    device.queue_count = bad->device.queue_count;
    configure_as(bad->arch, bad->engine, bad->cpus, bad->bytes, device.kind ? &device : NULL);
    expect_error(bad->code);
    ASK(START);
    expect_error(ERROR_STATE);
    ASK(STOP);
    join();
}
END_TEST

/* --- a reset that a device holds up ---------------------------------------------------------- */

static char transport_path[64];
static struct channel *device;

static void hand_over_device(void)
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
    hand_over("dev.rng0.state", fd);
    hand_over("dev.rng0.kick.0", eventfd(0, EFD_NONBLOCK));
    hand_over("dev.rng0.call.0", eventfd(0, EFD_NONBLOCK));
    hand_over("dev.rng0.call.1", eventfd(0, EFD_NONBLOCK));
    snprintf(transport_path, sizeof(transport_path), "%s/rng0.sock", directory);
}

/* Skip what is said of late devices. */
static void await_notice(Polyvisor__VcpuNoticeKind kind)
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
static void take_config_write(bool answered)
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

/* Up to where a CPU stands in a write to the device's configuration. */
static void run_into_device(void)
{
    Polyvisor__VcpuDevice rng = POLYVISOR__VCPU_DEVICE__INIT;
    hand_over("kernel", make_image(TOUCH_AND_REBOOT, sizeof(TOUCH_AND_REBOOT)));
    hand_over_device();
    rng.id = "rng0";
    rng.kind = "virtio-rng";
    rng.transport_path = transport_path;
    rng.pci_slot = 1;
    rng.queue_count = 1;
    configure_as("riscv64", "interp", 1, MEMORY_BYTES, &rng);
    ck_assert_ptr_null(reply->error);
    device = channel_connect(CHANNEL_TRANSPORT, NN_PAIR, transport_path);
    ck_assert_ptr_nonnull(device);
    ASK(START);
}

/* Up to where vcpud says that the device holds up the reset. The images are not loaded then. */
static void run_into_stuck_reset(void)
{
    const uint32_t mark = 0x12345678;
    run_into_device();
    take_config_write(true);
    await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK);
    ck_assert_str_eq(reply->device, "rng0");
    memcpy(ram + KERNEL_OFFSET, &mark, sizeof(mark)); /* as a read that was in flight may */
    for (unsigned i = 0; i < 10; i++) {
        ASK(PING);
    }
    ck_assert_int_eq(memcmp(ram + KERNEL_OFFSET, &mark, sizeof(mark)), 0);
}

static void leave_stuck_reset(void)
{
    await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET);
    take_config_write(true);
    await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF);
    ck_assert_uint_eq(ram[KERNEL_OFFSET], 0x6f);
    ASK(STOP);
    channel_close(device);
    join();
}

START_TEST(test_reset_waits_for_a_device)
{
    ProtobufCMessage *message;
    run_into_stuck_reset();
    /* Whatever was asked of it meanwhile. */
    while (channel_receive(device, &polyvisor__transport_request__descriptor, &message, 0) == 0) {
        Polyvisor__TransportReply answer = POLYVISOR__TRANSPORT_REPLY__INIT;
        answer.id = ((Polyvisor__TransportRequest *)message)->id;
        ck_assert_int_eq(channel_send(device, &answer.base, TIMEOUT_MS), 0);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    leave_stuck_reset();
}
END_TEST

START_TEST(test_reset_goes_on_when_a_device_is_gone)
{
    Polyvisor__VcpuRequest request = POLYVISOR__VCPU_REQUEST__INIT;
    Polyvisor__VcpuDeviceGone gone = POLYVISOR__VCPU_DEVICE_GONE__INIT;
    run_into_stuck_reset();
    request.body_case = POLYVISOR__VCPU_REQUEST__BODY_DEVICE_GONE;
    request.device_gone = &gone;
    gone.device = "disk0"; /* another */
    send_request(&request);
    receive_answer();
    ASK(PING);
    ck_assert_uint_eq(ram[KERNEL_OFFSET], 0x78);
    gone.device = "rng0";
    send_request(&request);
    receive_answer();
    ck_assert_ptr_null(reply->error);
    leave_stuck_reset();
}
END_TEST

/* What vmmd may ask while a reset waits. */
START_TEST(test_requests_during_a_reset)
{
    run_into_stuck_reset();
    ASK(PAUSE);
    ck_assert_ptr_null(reply->error);
    ASK(STATS);
    ck_assert_ptr_null(reply->error);
    ASK(RESET);
    ck_assert_ptr_null(reply->error);
    ASK(START);
    ck_assert_ptr_null(reply->error);
    ck_assert_uint_eq(ram[KERNEL_OFFSET], 0x78);
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    channel_close(device);
    join();
}
END_TEST

/* A CPU waits for a device that takes its request and is mute from then on. Whoever asks vcpud
 * something does not wait for that device, and a reset or an end does not leave the CPU to it: its
 * deadline, which would be told, never passes. */
START_TEST(test_cpus_that_wait_for_a_device)
{
    run_into_device();
    take_config_write(false);
    ASK(PAUSE);
    expect_error(ERROR_BUSY);
    ASK(STATS);
    ck_assert_ptr_null(reply->error);
    if (_i == 0) {
        ASK(RESET);
        ck_assert_ptr_null(reply->error);
        await_notice(POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK);
        ck_assert_str_eq(reply->device, "rng0");
    }
    ASK(STOP);
    ck_assert_ptr_null(reply->error);
    ck_assert_uint_eq(deadlines_missed, 0);
    channel_close(device);
    join();
}
END_TEST

START_TEST(test_terminate_signal)
{
    hand_over("kernel", make_image(LOOP, sizeof(LOOP)));
    configure(1);
    ASK(START);
    kill(getpid(), SIGTERM);
    join();
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("vcpud_control");
    tcase_add_checked_fixture(cases, setup, NULL);
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, test_power_off);
    tcase_add_test(cases, test_guest_reboots_itself);
    tcase_add_test(cases, test_pause_and_reset_on_request);
    tcase_add_test(cases, test_code_of_a_running_guest);
    tcase_add_loop_test(cases, test_vmmd_dies_and_comes_back, 0, 2);
    tcase_add_test(cases, test_requests_out_of_order);
    tcase_add_loop_test(cases, test_bad_configurations, 0, sizeof(BAD) / sizeof(BAD[0]));
    tcase_add_test(cases, test_reset_waits_for_a_device);
    tcase_add_test(cases, test_reset_goes_on_when_a_device_is_gone);
    tcase_add_test(cases, test_requests_during_a_reset);
    tcase_add_loop_test(cases, test_cpus_that_wait_for_a_device, 0, 2);
    tcase_add_test(cases, test_terminate_signal);
    Suite *suite = suite_create("vcpud_control");
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
