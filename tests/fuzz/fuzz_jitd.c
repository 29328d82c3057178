/*
 * jitd with a vmmd and machines that send anything: configurations, regions that are sound and
 * those that are not, requests that are cancelled, repeated and never read; a code cache and a
 * journal underneath. LLVM is played.
 */
#define FUZZ_REAL_TIME
#include "jitd/jit_control.h"
#include "jitd/service.h"
#include "libshared/base/log.h"
#include "libshared/jit/journal.h"
#include "libshared/jit/region_message.h"
#include "proto/jit.pb-c.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "tests/jitd/compiler_double.h"
#include "tests/unit/jit_sample.h"
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>

static char cache[64];
static int journal_fd = -1;
static struct event_base *base;
static struct fuzz_input *speaker;

static const char *const texts[] = {
    "", "one", "two", cache, "riscv64", "arm64", "/nowhere/one.jit.sock", "/nowhere/two.jit.sock",
};

/* A folder is made where the cache is to be. */
static bool text(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, const char **text)
{
    *text = fuzz_take(input, 1) & 1 ? cache : "";
    return !strcmp(field->name, "cache_directory");
}

static bool number(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint64_t *value)
{
    if (!strcmp(field->name, "workers")) {
        *value = fuzz_take(input, 1) & 3;
        return true;
    }
    if (!strcmp(field->name, "id")) {
        *value = fuzz_take(input, 1) & 7;
        return true;
    }
    return false;
}

static const struct fuzz_words words = {
    .texts = texts, .count = sizeof(texts) / sizeof(texts[0]), .text = text, .number = number};

static void say(int socket, const ProtobufCMessageDescriptor *type, enum channel_kind kind)
{
    static uint8_t frame[FUZZ_FRAME_MAX];

    if (socket >= 0) {
        fuzz_push(socket, frame, fuzz_frame(speaker, &words, type, (uint16_t)kind, frame));
    }
}

static int machine_socket(void)
{
    return fuzz_find_socket(fuzz_take(speaker, 1) & 1 ? "one.jit.sock" : "two.jit.sock");
}

static void push(int socket, const ProtobufCMessage *message, uint16_t kind)
{
    static uint8_t frame[FUZZ_FRAME_MAX];
    uint32_t size = (uint32_t)protobuf_c_message_get_packed_size(message);

    if (socket < 0 || size > FUZZ_FRAME_MAX - FUZZ_FRAME_HEAD) {
        return;
    }
    protobuf_c_message_pack(message, frame + FUZZ_FRAME_HEAD);
    memcpy(frame, "PVM1\0\0\0\0", 8);
    memcpy(frame + 4, &kind, 2);
    memcpy(frame + 8, &size, 4);
    fuzz_push(socket, frame, size + FUZZ_FRAME_HEAD);
}

static void op_control(void)
{
    say(fuzz_find_socket("control.sock"), &polyvisor__jit_control__descriptor, CHANNEL_JIT_CONTROL);
}

static void op_request(void)
{
    say(machine_socket(), &polyvisor__jit_request__descriptor, CHANNEL_JIT);
}

/* A configuration and a machine, as they should be. */
static void op_configure(void)
{
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);
    int socket = fuzz_find_socket("control.sock");
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitConfigure configure = POLYVISOR__JIT_CONFIGURE__INIT;
    Polyvisor__JitAttach attach = POLYVISOR__JIT_ATTACH__INIT;

    configure.cache_directory = how & 1 ? cache : (char *)"";
    configure.cache_bytes = how & 2 ? 1 << 20 : 4096;
    configure.workers = 1;
    configure.crashed = how & 4;
    request.id = 1;
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_CONFIGURE;
    request.configure = &configure;
    push(socket, &request.base, CHANNEL_JIT_CONTROL);
    attach.machine = (char *)"one";
    attach.path = (char *)"/nowhere/one.jit.sock";
    attach.arch = (char *)"riscv64";
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_ATTACH;
    request.attach = &attach;
    push(socket, &request.base, CHANNEL_JIT_CONTROL);
}

/* A region that is sound, or almost. */
static void op_compile(void)
{
    static struct region region;
    static struct region_message message;
    Polyvisor__JitRequest request = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitCompile compile = POLYVISOR__JIT_COMPILE__INIT;
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);

    jit_sample_region(&region, how & 7);
    region_to_message(&region, true, &message);
    if (how & 0x80) {
        message.blocks[how >> 3 & 3].length = (uint32_t)fuzz_number(speaker);
    }
    if (how & 0x40) {
        message.edges[how >> 3 & 3].to = (uint32_t)fuzz_number(speaker);
    }
    compile.region = &message.region;
    compile.heat = (uint32_t)fuzz_take(speaker, 1);
    request.id = 1 + (fuzz_take(speaker, 1) & 7);
    request.body_case = POLYVISOR__JIT_REQUEST__BODY_COMPILE;
    request.compile = &compile;
    push(machine_socket(), &request.base, CHANNEL_JIT);
}

static void op_fetch(void)
{
    static struct region region;
    Polyvisor__JitRequest request = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitFetch fetch = POLYVISOR__JIT_FETCH__INIT;
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);

    jit_sample_region(&region, how & 7);
    uint64_t tried[4] = {fuzz_number(speaker)};
    fetch.fingerprint = cache_head_fingerprint(&region);
    fetch.tried = tried;
    fetch.n_tried = how >> 6;
    request.id = 9;
    request.body_case = POLYVISOR__JIT_REQUEST__BODY_FETCH;
    request.fetch = &fetch;
    push(machine_socket(), &request.base, CHANNEL_JIT);
}

/* A machine reads its answers, or does not. */
static void op_refuse(void)
{
    int socket = machine_socket();

    if (socket >= 0) {
        fuzz_set_refuses(socket, !fuzz_sockets[socket].refuses);
    }
}

static void op_journal(void)
{
    uint8_t byte = (uint8_t)fuzz_take(speaker, 1);
    off_t at = (off_t)(fuzz_number(speaker) % sizeof(struct journal));
    fuzz_require(pwrite(journal_fd, &byte, 1, at) == 1, "a journal");
}

static void op_turn(void)
{
    usleep(200); /* for the workers */
}

static void (*const operations[])(void) = {op_control, op_request, op_configure,
                                           op_compile, op_compile, op_fetch,
                                           op_refuse,  op_journal, op_turn};

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void remove_cache(void)
{
    nftw(cache, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void prepare(void)
{
    struct error err = {0};

    setenv("POLYVISOR_LOG", "error", 1);
    setenv("POLYVISOR_TEST_COMPILER", "refuse:5 unsound:7", 1);
    log_open("fuzz");
    strcpy(cache,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/pv-fuzz-XXXXXX" : "/tmp/pv-fuzz-XXXXXX");
    fuzz_require(mkdtemp(cache) != NULL, "a folder");
    atexit(remove_cache);
    journal_fd = memfd_create("journal", MFD_CLOEXEC);
    fuzz_require(region_compiler_setup(&err), err.message);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct error err = {0};

    if (journal_fd < 0) {
        prepare();
    }
    speaker = &input;
    fuzz_require(ftruncate(journal_fd, 0) == 0 &&
                     ftruncate(journal_fd, sizeof(struct journal)) == 0,
                 "a journal");
    base = event_base_new();
    struct jit_control *control = jit_control_open("/nowhere/control.sock", &err);
    struct service *service =
        service_create(&(struct service_options){.base = base, .journal_fd = journal_fd}, &err);
    fuzz_require(control && service && jit_control_serve(control, base, service, &err),
                 err.message);
    while (input.size && !event_base_got_exit(base)) {
        operations[fuzz_pick(&input, sizeof(operations) / sizeof(operations[0]))]();
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    jit_control_close(control);
    while (!service_destroy(service)) {
        usleep(100);
    }
    event_base_free(base);
    for (int i = 0; i < FUZZ_SOCKETS; i++) {
        fuzz_require(!fuzz_sockets[i].open, "all sockets are closed");
    }
    fuzz_check_descriptors();
    return 0;
}
