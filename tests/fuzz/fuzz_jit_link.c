/*
 * vcpud in front of a jitd that was taken over: any answers, in any order, to requests that were
 * made and to some that were not. What it hands to the engine was checked; what it owes the engine
 * is given back.
 */
#define FUZZ_REAL_TIME
#include "libshared/base/log.h"
#include "libshared/jit/abi.h"
#include "libshared/jit/region_message.h"
#include "proto/jit.pb-c.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "tests/unit/jit_sample.h"
#include "vmmd/vcpu/jit_link.h"

/* ---- an engine: it offers a few regions, and looks at what comes back ---- */

struct engine {
    int event;
    _Atomic unsigned offered, fetches, installed;
};
static struct engine engine;

static bool tick(struct engine *e)
{
    (void)e;
    return true;
}

static int event_of(struct engine *e)
{
    return e->event;
}

static void seen(struct engine *e)
{
    eventfd_t value;
    eventfd_read(e->event, &value);
}

static bool next_region(struct engine *e, struct region *region, uint64_t *ticket, uint32_t *heat)
{
    unsigned number = atomic_load(&e->offered);

    if (number >= 6) {
        return false;
    }
    atomic_store(&e->offered, number + 1);
    jit_sample_region(region, number);
    *ticket = number + 1;
    *heat = number;
    return true;
}

static bool wanted(struct engine *e, uint64_t ticket)
{
    (void)e;
    return ticket != 2;
}

static void refused(struct engine *e, uint64_t ticket)
{
    (void)e;
    fuzz_require(ticket >= 1 && ticket <= 6, "a ticket that was given");
}

static void forget(struct engine *e)
{
    atomic_store(&e->offered, 0);
}

static void set_known(struct engine *e, const uint64_t *fingerprints, size_t count)
{
    volatile uint64_t sum = 0;
    (void)e;

    for (size_t i = 0; i < count; i++) {
        sum ^= fingerprints[i];
    }
}

static bool next_fetch(struct engine *e, uint64_t *fingerprint)
{
    unsigned number = atomic_load(&e->fetches);

    if (number >= 4) {
        return false;
    }
    atomic_store(&e->fetches, number + 1);
    *fingerprint = number;
    return true;
}

static enum region_install install(struct engine *e, uint64_t ticket, uint64_t fingerprint,
                                   const struct region *region, const uint8_t *bytes, size_t size,
                                   struct error *err)
{
    struct blob blob;
    (void)fingerprint;

    fuzz_require(ticket <= 6, "a ticket that was given");
    if (region) {
        fuzz_require(!region_check(region), "a region is checked");
        if (!blob_check(&blob, bytes, size, region, err)) {
            return REGION_REFUSED;
        }
    }
    atomic_fetch_add(&e->installed, 1);
    return (enum region_install)(size % 3);
}

static bool replaces(struct engine *e, uint64_t ticket)
{
    (void)e;
    return ticket & 1;
}

static enum region_install install_other(struct engine *e, uint64_t ticket,
                                         const struct region *region, const uint8_t *bytes,
                                         size_t size, struct error *err)
{
    fuzz_require(ticket >= 1 && region != NULL, "another region comes for a ticket");
    return install(e, ticket, 0, region, bytes, size, err);
}

static const struct jit_link_engine operations = {
    .tick = tick,
    .event = event_of,
    .seen = seen,
    .next_region = next_region,
    .wanted = wanted,
    .refused = refused,
    .forget = forget,
    .set_known = set_known,
    .next_fetch = next_fetch,
    .install = install,
    .replaces = replaces,
    .install_other = install_other,
};

static void compiler_wanted(void *context)
{
    (void)context;
}

/* ---- jitd ---- */

static const char *const texts[] = {"", "riscv64", "no reason at all", "arm64"};

static bool number(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint64_t *value)
{
    if (!strcmp(field->name, "id")) {
        *value = fuzz_take(input, 1) & 15;
        return true;
    }
    if (!strcmp(field->name, "status")) {
        *value = fuzz_take(input, 1) & 7;
        return true;
    }
    return false;
}

/* A blob that is sound, or almost. */
static size_t blob_bytes(struct fuzz_input *input, const ProtobufCFieldDescriptor *field,
                         uint8_t *to, size_t room)
{
    static struct region region;
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (strcmp(field->name, "blob") || how >= 224) {
        return SIZE_MAX;
    }
    fuzz_require(room >= JIT_SAMPLE_BLOB, "room");
    jit_sample_region(&region, how & 7);
    jit_sample_blob(&region, 0x90, to);
    if (how & 0x40) {
        to[fuzz_pick(input, 24)] = (uint8_t)fuzz_take(input, 1);
    }
    return JIT_SAMPLE_BLOB;
}

static const struct fuzz_words words = {.texts = texts,
                                        .count = sizeof(texts) / sizeof(texts[0]),
                                        .bytes = blob_bytes,
                                        .number = number};

static void push(int socket, const Polyvisor__JitReply *reply)
{
    static uint8_t frame[8192] = "PVM1\6";
    uint32_t size = (uint32_t)polyvisor__jit_reply__pack(reply, frame + FUZZ_FRAME_HEAD);

    memcpy(frame + 8, &size, 4);
    fuzz_push(socket, frame, size + FUZZ_FRAME_HEAD);
}

static void welcome(int socket)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitWelcome first = POLYVISOR__JIT_WELCOME__INIT;

    first.first = true;
    first.abi = (char *)region_abi();
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_WELCOME;
    reply.welcome = &first;
    push(socket, &reply);
}

/* The answer to a request: a sound blob, with its region if it was fetched. */
static void answer(int socket, uint8_t how)
{
    static struct region region;
    static struct region_message message;
    uint8_t blob[JIT_SAMPLE_BLOB];
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitAnswer right = POLYVISOR__JIT_ANSWER__INIT;

    jit_sample_region(&region, how & 7);
    jit_sample_blob(&region, 0x90, blob);
    if (how & 0x10) {
        region_to_message(&region, true, &message);
        right.region = &message.region;
    }
    right.blob.data = blob;
    right.blob.len = sizeof(blob);
    reply.id = 1 + (how >> 5);
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_ANSWER;
    reply.answer = &right;
    push(socket, &reply);
}

/* Let the link's thread take what was said. */
static void settle(int socket)
{
    for (unsigned i = 0; i < 1000 && *(volatile unsigned *)&fuzz_sockets[socket].count; i++) {
        usleep(20);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint8_t frame[FUZZ_FRAME_MAX];
    struct fuzz_input input = {bytes, size};
    struct error err = {0};

    if (!engine.event) {
        setenv("POLYVISOR_LOG", "error", 1);
        log_open("fuzz");
        engine.event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    atomic_store(&engine.offered, 0);
    atomic_store(&engine.fetches, 0);
    struct jit_link *link =
        jit_link_create(&operations, &engine, "/nowhere/jit.sock", compiler_wanted, NULL, &err);
    fuzz_require(link != NULL, err.message);
    int socket = fuzz_find_socket("jit.sock");
    if (fuzz_take(&input, 1) >= 16) {
        welcome(socket);
        eventfd_write(engine.event, 1);
        settle(socket);
    }
    for (unsigned count = 0; input.size && count < 64; count++) {
        uint8_t how = (uint8_t)fuzz_take(&input, 1);
        if (how & 1) {
            answer(socket, (uint8_t)fuzz_take(&input, 1));
        } else {
            size_t length =
                fuzz_frame(&input, &words, &polyvisor__jit_reply__descriptor, CHANNEL_JIT, frame);
            fuzz_push(socket, frame, length);
        }
        if (how & 2) {
            settle(socket);
        }
    }
    settle(socket);
    jit_link_destroy(link);
    return 0;
}
