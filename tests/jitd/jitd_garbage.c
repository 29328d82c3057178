/*
 * A jitd that was taken over: it obeys vmmd, connects to each machine, and sends garbage - random
 * bytes in good frames, replies to requests that nobody made, welcomes without end, regions and
 * blobs that are not sound, and the good ones with one bit flipped.
 */
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/jit/abi.h"
#include "libshared/jit/blob.h"
#include "libshared/jit/region_message.h"
#include <nanomsg/pair.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#define MACHINES_MAX 16

static struct channel *machines[MACHINES_MAX];
static unsigned machine_count;
static uint64_t state = 88172645463325252u;

static uint32_t random_number(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static void answer_vmmd(struct channel *control, const Polyvisor__JitControl *request)
{
    Polyvisor__JitControlReply reply = POLYVISOR__JIT_CONTROL_REPLY__INIT;

    reply.id = request->id;
    if (request->body_case == POLYVISOR__JIT_CONTROL__BODY_ATTACH && machine_count < MACHINES_MAX) {
        struct channel *machine = channel_connect(CHANNEL_JIT, NN_PAIR, request->attach->path);
        if (machine) {
            machines[machine_count++] = machine;
        }
    }
    channel_send(control, &reply.base, 200);
}

static void send_welcome(struct channel *channel)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitWelcome welcome = POLYVISOR__JIT_WELCOME__INIT;
    static uint64_t fingerprints[2000];

    for (size_t i = 0; i < 2000; i++) {
        fingerprints[i] = (uint64_t)random_number() << 32 | random_number();
    }
    welcome.fingerprints = fingerprints;
    welcome.n_fingerprints = random_number() % 2000;
    welcome.first = random_number() % 2;
    welcome.abi = (char *)(random_number() % 4 ? region_abi() : "another");
    welcome.more = random_number() % 4 != 0;
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_WELCOME;
    reply.welcome = &welcome;
    channel_send(channel, &reply.base, 0);
}

/* An answer to a request, or to none. Never code that could run: its blobs are not sound. */
static void send_answer(struct channel *channel, uint64_t id, const Polyvisor__JitRegion *region)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitAnswer answer = POLYVISOR__JIT_ANSWER__INIT;
    static uint8_t bytes[4096];

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)random_number();
    }
    answer.status = (Polyvisor__JitStatus)(random_number() % 7);
    answer.blob.data = bytes;
    answer.blob.len = random_number() % sizeof(bytes);
    if (random_number() % 2) { /* up to the exits it looks like one */
        struct blob_header header = {BLOB_MAGIC, BLOB_VERSION, 1024, 0, 8, 9, 0};
        memcpy(bytes, &header, sizeof(header));
        answer.blob.len = sizeof(header) + 8 * sizeof(struct blob_exit) + 1024;
    }
    if (random_number() % 2) {
        answer.region = (Polyvisor__JitRegion *)region;
    }
    reply.id = id;
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_ANSWER;
    reply.answer = &answer;
    channel_send(channel, &reply.base, 0);
}

static void serve_machine(struct channel *channel)
{
    ProtobufCMessage *message;
    int result = channel_receive(channel, &polyvisor__jit_request__descriptor, &message, 0);
    const Polyvisor__JitRegion *region = NULL;
    uint64_t id = random_number() % 64;

    if (result == 0) {
        const Polyvisor__JitRequest *request = (const Polyvisor__JitRequest *)message;
        id = request->id;
        if (request->body_case == POLYVISOR__JIT_REQUEST__BODY_COMPILE) {
            region = request->compile->region;
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        send_answer(channel, i % 2 ? random_number() % 64 : id, region);
    }
    if (random_number() % 8 == 0) {
        send_welcome(channel);
    }
    /* Another conversation's message, and an empty one. */
    Polyvisor__JitControlReply foreign = POLYVISOR__JIT_CONTROL_REPLY__INIT;
    Polyvisor__JitReply empty = POLYVISOR__JIT_REPLY__INIT;
    channel_send(channel, random_number() % 2 ? &foreign.base : &empty.base, 0);
    if (result == 0) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "--control")) {
        return 2;
    }
    log_open("jitd_garbage");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    static struct fdlist descriptors;
    struct channel *control = channel_bind(CHANNEL_JIT_CONTROL, NN_PAIR, argv[2]);
    if (!control || fdlist_inherit(&descriptors) < 0) {
        return 1;
    }
    fdlist_tell(&descriptors, "bound");
    for (;;) {
        struct pollfd ready = {.fd = channel_receive_fd(control), .events = POLLIN};
        ProtobufCMessage *message;
        poll(&ready, 1, 5);
        if (channel_receive(control, &polyvisor__jit_control__descriptor, &message, 0) == 0) {
            const Polyvisor__JitControl *request = (const Polyvisor__JitControl *)message;
            answer_vmmd(control, request);
            bool stop = request->body_case == POLYVISOR__JIT_CONTROL__BODY_STOP;
            protobuf_c_message_free_unpacked(message, NULL);
            if (stop) {
                return 0;
            }
        }
        for (unsigned i = 0; i < machine_count; i++) {
            serve_machine(machines[i]);
        }
    }
}
