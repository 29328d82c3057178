/*
 * Stand-ins for vcpud and devd: a test program that is run under one of these names calls
 * fake_main. What they do wrong is said by the kernel command line (vcpud) and by
 * FAKE_DEVD="<id>:<behaviour>" (devd).
 */
#ifndef POLYVISOR_TESTS_VMMD_STAND_INS_H
#define POLYVISOR_TESTS_VMMD_STAND_INS_H

#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/ipc/handover.h"
#include "proto/device.pb-c.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/spare.h"
#include <fcntl.h>
#include <nanomsg/pair.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define FAKE_CHATTER 3000
#define FAKE_WAIT_MS 60000 /* then nobody wants it any more */

static struct fdlist fake_descriptors;
static const char *fake_path;

static bool fake_says(const char *behaviour, const char *word)
{
    return behaviour && strstr(behaviour, word);
}

static void fake_sleep_ms(int milliseconds)
{
    struct timespec time = {.tv_nsec = milliseconds * 1000000L};
    nanosleep(&time, NULL);
}

static void fake_vcpu_notice(struct channel *channel, Polyvisor__VcpuNoticeKind kind, uint32_t code)
{
    Polyvisor__VcpuReply notice = POLYVISOR__VCPU_REPLY__INIT;

    notice.notice = kind;
    notice.guest_code = code;
    channel_send(channel, &notice.base, FAKE_WAIT_MS);
}

static void fake_vcpu_stuck(struct channel *channel, const char *device)
{
    Polyvisor__VcpuReply notice = POLYVISOR__VCPU_REPLY__INIT;

    notice.notice = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK;
    notice.device = (char *)device;
    channel_send(channel, &notice.base, FAKE_WAIT_MS);
}

/* Frames of another conversation, on the same socket; does not return. */
static void fake_send_rubbish(struct channel *channel)
{
    Polyvisor__DeviceReply foreign = POLYVISOR__DEVICE_REPLY__INIT;

    channel_close(channel);
    channel = channel_bind(CHANNEL_DEVICE, NN_PAIR, fake_path);
    foreign.id = UINT64_MAX;
    while (channel_send(channel, &foreign.base, FAKE_WAIT_MS) == 0) {
    }
    _exit(6);
}

static void fake_vcpu_check_descriptors(const Polyvisor__VcpuConfigure *configure)
{
    static const char *const names[] = {"ram",
                                        "codemap",
                                        "kernel",
                                        "dev.serial0.state",
                                        "dev.serial0.reply",
                                        "dev.console0.kick.3",
                                        "dev.console0.call.4",
                                        "dev.rng0.call.1",
                                        "dev.power0.call.2"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (fdlist_take(&fake_descriptors, "%s", names[i]) < 0) {
            _exit(99);
        }
    }
    if (configure->n_devices < 5 || strcmp(configure->devices[2]->kind, "virtio-rng") ||
        configure->devices[2]->pci_slot != 1 || configure->devices[3]->queue_count != 4 ||
        configure->devices[4]->pci_slot != 31) {
        _exit(98);
    }
}

/* What it says of a device, real or not, again and again; then it ends. */
static void fake_vcpu_chatter(struct channel *channel)
{
    Polyvisor__VcpuReply late = POLYVISOR__VCPU_REPLY__INIT;

    late.notice = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT;
    for (unsigned i = 0; i < FAKE_CHATTER; i++) {
        late.device = (char *)(i % 2 ? "rng0" : "nothing");
        channel_send(channel, &late.base, FAKE_WAIT_MS);
        fake_vcpu_notice(channel, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET, 0);
    }
    fake_vcpu_notice(channel, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF, 0);
}

/* The guest waits for its power key (fake_devd presses it), then powers off. */
static void fake_vcpu_await_key(struct channel *channel)
{
    struct pollfd key = {.fd = fdlist_take(&fake_descriptors, "dev.power0.call.0"),
                         .events = POLLIN};

    if (poll(&key, 1, FAKE_WAIT_MS) == 1) {
        fake_vcpu_notice(channel, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF, 0);
    }
}

/* What a device is made of must have come before the request, under its number. */
static void fake_vcpu_take_device(const Polyvisor__VcpuAttach *attach)
{
    static int handover = -1;
    struct fdlist list;
    uint64_t number = 0;

    handover = handover < 0 ? fdlist_take(&fake_descriptors, "handover") : handover;
    while (number < attach->handover) {
        if (handover_receive(handover, &number, &list)) {
            _exit(97);
        }
        if (number == attach->handover &&
            fdlist_take(&list, "dev.%s.state", attach->device->id) < 0) {
            _exit(96);
        }
        fdlist_close(&list);
    }
}

/* The answer to plugging in or out is an error, when `behaviour` says so: the driver has let go
 * when it was asked for the third time ("busy"), or never, or not before force ("driver-keeps"). */
static enum error_code fake_vcpu_plug(const char *behaviour, const Polyvisor__VcpuRequest *request)
{
    static unsigned asked;
    static bool forced;

    if (request->body_case == POLYVISOR__VCPU_REQUEST__BODY_ATTACH) {
        fake_vcpu_take_device(request->attach);
        asked = 0;
        if (fake_says(behaviour, "attach-dies")) {
            _exit(5);
        }
        return fake_says(behaviour, "attach-denied") ? ERROR_CONFIG : ERROR_OK;
    }
    if (request->detach->force) {
        forced = true;
        asked = 0;
        return ERROR_OK;
    }
    if (fake_says(behaviour, "detach-dies")) {
        _exit(5);
    }
    bool stays = fake_says(behaviour, "driver-keeps") && !forced;
    bool busy = (fake_says(behaviour, "busy") || forced) && ++asked < 3;
    return stays || busy                            ? ERROR_BUSY
           : fake_says(behaviour, "detach-unknown") ? ERROR_NOT_FOUND
                                                    : ERROR_OK;
}

/* An answer, and whether this process leaves with it. */
struct fake_vcpu_answer {
    Polyvisor__VcpuReply reply;
    Polyvisor__VcpuStats stats;
    Polyvisor__Error message;
    struct error err;
    bool leave;
};

static void fake_vcpu_refuse(struct fake_vcpu_answer *answer, enum error_code code,
                             const char *text)
{
    error_set(&answer->err, code, 0, "%s", text);
    error_to_message(&answer->err, &answer->message);
    answer->reply.error = &answer->message;
}

static void fake_vcpu_configured(const char *behaviour, const Polyvisor__VcpuConfigure *configure,
                                 struct fake_vcpu_answer *answer)
{
    fake_vcpu_check_descriptors(configure);
    if (fake_says(behaviour, "early-death")) {
        _exit(3);
    }
    if (fake_says(behaviour, "refuse")) {
        fake_vcpu_refuse(answer, ERROR_KERNEL, "not a kernel");
        answer->leave = true;
    }
}

static void fake_vcpu_decide(struct channel *channel, const char *behaviour,
                             const Polyvisor__VcpuRequest *request, struct fake_vcpu_answer *answer)
{
    enum error_code code = ERROR_OK;

    switch (request->body_case) {
    case POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE:
        fake_vcpu_configured(behaviour, request->configure, answer);
        break;
    case POLYVISOR__VCPU_REQUEST__BODY_STATS:
        answer->stats.retired = 12345;
        answer->reply.stats = &answer->stats;
        if (fake_says(behaviour, "when-asked")) {
            fake_vcpu_stuck(channel, "rng0");
        }
        break;
    case POLYVISOR__VCPU_REQUEST__BODY_ATTACH:
    case POLYVISOR__VCPU_REQUEST__BODY_DETACH:
        code = fake_vcpu_plug(behaviour, request);
        if (code != ERROR_OK) {
            fake_vcpu_refuse(answer, code, "as it is wanted");
        }
        break;
    case POLYVISOR__VCPU_REQUEST__BODY_STOP:
        answer->leave = true;
        break;
    default:
        break;
    }
}

static void fake_vcpu_started(struct channel *channel, const char *behaviour)
{
    if (fake_says(behaviour, "power-off")) {
        fake_vcpu_notice(channel, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF, 0);
    } else if (fake_says(behaviour, "failure")) {
        fake_vcpu_notice(channel, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_GUEST_FAILURE, 7);
    } else if (fake_says(behaviour, "rubbish")) {
        fake_send_rubbish(channel);
    } else if (fake_says(behaviour, "key")) {
        fake_vcpu_await_key(channel);
    } else if (fake_says(behaviour, "chatter")) {
        fake_vcpu_chatter(channel);
    } else if (fake_says(behaviour, "stuck")) {
        fake_vcpu_stuck(channel, "nothing");
        fake_vcpu_stuck(channel, "rng0");
    } else if (fake_says(behaviour, "hang")) {
        pause();
    } else if (fake_says(behaviour, "held")) {
        raise(SIGSTOP); /* as somebody else might */
    }
}

static int fake_vcpud(struct channel *channel)
{
    char behaviour[128] = "";
    ProtobufCMessage *message;

    while (
        !channel_receive(channel, &polyvisor__vcpu_request__descriptor, &message, FAKE_WAIT_MS)) {
        const Polyvisor__VcpuRequest *request = (const Polyvisor__VcpuRequest *)message;
        struct fake_vcpu_answer answer = {.reply = POLYVISOR__VCPU_REPLY__INIT,
                                          .stats = POLYVISOR__VCPU_STATS__INIT};

        answer.reply.id = request->id;
        if (request->body_case == POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE) {
            snprintf(behaviour, sizeof(behaviour), "%s", request->configure->append);
        }
        fake_vcpu_decide(channel, behaviour, request, &answer);
        if (answer.leave && fake_says(behaviour, "stay")) {
            protobuf_c_message_free_unpacked(message, NULL);
            continue;
        }
        channel_send(channel, &answer.reply.base, FAKE_WAIT_MS);
        if (request->body_case == POLYVISOR__VCPU_REQUEST__BODY_DEVICE_GONE &&
            !strcmp(request->device_gone->device, "rng0")) {
            fake_vcpu_notice(channel, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF, 0);
        }
        if (request->body_case == POLYVISOR__VCPU_REQUEST__BODY_START) {
            fake_vcpu_started(channel, behaviour);
        }
        protobuf_c_message_free_unpacked(message, NULL);
        if (answer.leave) {
            fake_sleep_ms(20);
            return 0;
        }
    }
    return 4;
}

/* The power key. The guest has a driver for it when `behaviour` says so. */
static void fake_press_key(const char *behaviour, Polyvisor__DeviceReply *reply,
                           Polyvisor__Error *error)
{
    static struct error err;

    if (!fake_says(behaviour, "driver")) {
        error_set(&err, ERROR_STATE, 0, "no driver");
        error_to_message(&err, error);
        reply->error = error;
        return;
    }
    eventfd_write(fdlist_take(&fake_descriptors, "call.0"), 1);
}

/* What a console's process says of its guest's panics: `behaviour` has "panic=REPORT;". */
static void fake_panic(struct channel *channel, const char *behaviour)
{
    Polyvisor__DeviceReply notice = POLYVISOR__DEVICE_REPLY__INIT;
    char report[128];

    for (const char *at = behaviour; (at = strstr(at, "panic="));) {
        at += strlen("panic=");
        snprintf(report, sizeof(report), "%.*s", (int)strcspn(at, ";"), at);
        notice.notice = POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_PANIC;
        notice.text = report;
        channel_send(channel, &notice.base, FAKE_WAIT_MS);
        fake_sleep_ms(150); /* vmmd does not listen to who talks more often */
    }
}

/* Whether an earlier process of this device has been here: it has left a file. */
static bool fake_died_before(void)
{
    char mark[160];

    snprintf(mark, sizeof(mark), "%s.died", fake_path);
    int fd = open(mark, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    return fd < 0;
}

static int fake_devd(struct channel *channel, const char *id)
{
    const char *all = getenv("FAKE_DEVD");
    size_t length = strlen(id);
    const char *behaviour =
        all && !strncmp(all, id, length) && all[length] == ':' ? all + length + 1 : NULL;
    ProtobufCMessage *message;
    bool restart = false;

    while (
        !channel_receive(channel, &polyvisor__device_request__descriptor, &message, FAKE_WAIT_MS)) {
        Polyvisor__DeviceRequest *request = (Polyvisor__DeviceRequest *)message;
        Polyvisor__DeviceReply reply = POLYVISOR__DEVICE_REPLY__INIT;
        bool configure = request->body_case == POLYVISOR__DEVICE_REQUEST__BODY_CONFIGURE;
        bool stop = request->body_case == POLYVISOR__DEVICE_REQUEST__BODY_STOP;
        bool key = request->body_case == POLYVISOR__DEVICE_REQUEST__BODY_POWER_KEY;
        bool ping = request->body_case == POLYVISOR__DEVICE_REQUEST__BODY_PING;
        Polyvisor__Error error;

        restart = configure ? request->configure->restart : restart;
        reply.id = request->id;
        protobuf_c_message_free_unpacked(message, NULL);
        if (configure && fake_says(behaviour, "mute")) {
            continue;
        }
        if (configure && fake_says(behaviour, "die-early") &&
            (!fake_says(behaviour, "die-early-once") || !fake_died_before())) {
            return 5;
        }
        if (configure && fake_says(behaviour, "second-dies") && restart && !fake_died_before()) {
            return 5;
        }
        if (configure && fake_says(behaviour, "refuse")) {
            static struct error err;
            error_set(&err, ERROR_DISK, 0, "as it is wanted");
            error_to_message(&err, &error);
            reply.error = &error;
        }
        if (stop && fake_says(behaviour, "stay")) {
            continue;
        }
        if (key && fake_says(behaviour, "key-kills") && !restart) {
            return 5;
        }
        if (key) {
            fake_press_key(behaviour, &reply, &error);
        }
        channel_send(channel, &reply.base, FAKE_WAIT_MS);
        if (ping && behaviour) {
            fake_panic(channel, behaviour);
        }
        if (configure && ((fake_says(behaviour, "die-once") && !restart) ||
                          (fake_says(behaviour, "second-dies") && !restart) ||
                          fake_says(behaviour, "die-always"))) {
            fake_sleep_ms(200);
            return 5;
        }
        if (stop) {
            fake_sleep_ms(20);
            return 0;
        }
    }
    return 4;
}

/* A spare waits for its turn. False: there is none for it. */
static bool fake_turn(void)
{
    int fd = fdlist_take(&fake_descriptors, SPARE_DESCRIPTOR);
    char byte;

    return fd < 0 || read(fd, &byte, 1) == 1;
}

static int fake_main(int argc, char **argv, const char *name)
{
    bool is_vcpu = !strcmp(name, "vcpud");

    fake_path = argc > 2 ? argv[2] : argc > 1 ? argv[1] : "";
    if (fdlist_inherit(&fake_descriptors)) {
        return 1;
    }
    struct channel *channel =
        channel_bind(is_vcpu ? CHANNEL_VCPU : CHANNEL_DEVICE, NN_PAIR, fake_path);

    if (!channel) {
        return 1;
    }
    fdlist_tell(&fake_descriptors, "bound");
    if (!fake_turn()) {
        channel_close(channel);
        return 0;
    }
    int status = is_vcpu ? fake_vcpud(channel) : fake_devd(channel, argv[4]);
    channel_close(channel);
    return status;
}

#endif
