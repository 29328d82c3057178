/*
 * A network disk, and everybody it hears: a server that may say anything at any time, and vmmd's
 * end of the channel, by which connections come, and other descriptors. An honest server's bytes
 * are those that were written; each request is done once, whatever is said; what the export is said
 * to be is checked before the guest hears of it; addresses of servers are read.
 */
#include "devd/block/block.h"
#include "libshared/nbd/channel.h"
#include "libshared/nbd/uri.h"
#include "tests/fuzz/fuzz_clock.h"
#include "tests/fuzz/fuzz_device.h"
#include <endian.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#define EXPORT_BYTES (UINT64_C(1) << 17)
#define REQUESTS     8u
#define REQUEST_MAX  12288u
#define GUARD        64u

static struct fuzz_host host; /* its event loop */
static struct fuzz_input *speaker;
static unsigned silence;

/* ---- The server ---- */

struct asked {
    uint16_t type;
    uint64_t handle, offset;
    uint32_t length;
};

static int server = -1; /* its end of the connection */
static bool honest, structured;
static enum { GREETS, HEARS_FLAGS, HEARS_OPTIONS, SERVES } phase;
static uint8_t incoming[65536];
static size_t length;
static struct asked asked[64];
static unsigned asked_count;
static uint8_t contents[EXPORT_BYTES];
static unsigned changes; /* of the contents */
static unsigned lies;    /* connections that ended as dishonest ones */

static void hang_up(void)
{
    if (server >= 0) {
        close(server);
    }
    server = -1;
}

static void say(const void *bytes, size_t size)
{
    ssize_t sent = server < 0 ? 0 : send(server, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    honest &= sent == (ssize_t)size;
}

static void say_greeting(struct fuzz_input *input)
{
    const struct {
        uint64_t magic, version;
        uint16_t flags;
    } __attribute__((packed))
    greeting = {htobe64(UINT64_C(0x4e42444d41474943)), htobe64(UINT64_C(0x49484156454f5054)),
                htobe16(fuzz_take(input, 1) & 3)};

    say(&greeting, sizeof(greeting));
    phase = HEARS_FLAGS;
}

static void answer_option(uint32_t option, uint32_t type, const void *data, uint32_t size,
                          uint32_t said)
{
    const struct {
        uint64_t magic;
        uint32_t option, type, length;
    } __attribute__((packed))
    reply = {htobe64(UINT64_C(0x3e889045565a9)), htobe32(option), htobe32(type), htobe32(said)};

    say(&reply, sizeof(reply));
    say(data, size);
}

static void say_size(struct fuzz_input *input, uint32_t option)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct {
        uint16_t type;
        uint64_t size;
        uint16_t flags;
    } __attribute__((packed)) info = {0, htobe64(EXPORT_BYTES), htobe16(0x6d)};
    struct {
        uint16_t type;
        uint32_t least, preferred, most;
    } __attribute__((packed)) blocks = {htobe16(3), htobe32(512), htobe32(4096), htobe32(1u << 20)};

    if (how >= 192) {
        honest = false;
        info.size = how & 1 ? htobe64(fuzz_number(input)) : info.size;
        info.flags = how & 2 ? htobe16((uint16_t)fuzz_take(input, 2)) : info.flags;
        blocks.least = how & 4 ? htobe32((uint32_t)fuzz_number(input)) : blocks.least;
        blocks.preferred = how & 8 ? htobe32((uint32_t)fuzz_number(input)) : blocks.preferred;
        blocks.most = how & 16 ? htobe32((uint32_t)fuzz_number(input)) : blocks.most;
    }
    answer_option(option, 3, &info, sizeof(info), sizeof(info));
    if (how & 32) {
        answer_option(option, 3, &blocks, sizeof(blocks), sizeof(blocks));
    }
    answer_option(option, 1, NULL, 0, 0);
    phase = SERVES;
}

static void take_option(struct fuzz_input *input, uint32_t option)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    size_t size;

    if (how >= 240) { /* any answer */
        const uint8_t *data = fuzz_bytes(input, how & 15, &size);
        honest = false;
        answer_option((uint32_t)fuzz_number(input), (uint32_t)fuzz_number(input), data,
                      (uint32_t)size, (uint32_t)fuzz_number(input));
    } else if (option == 7) { /* GO */
        say_size(input, option);
    } else {
        bool agrees = option == 8 && how & 1;
        structured |= agrees;
        answer_option(option, agrees ? 1 : 0x80000001u, NULL, 0, 0);
    }
}

/* What came: how many bytes of it are done with; 0: not enough yet. */
static size_t take_one(struct fuzz_input *input, const uint8_t *at, size_t left)
{
    uint32_t size;
    uint16_t type;

    if (phase == HEARS_FLAGS && left >= 4) {
        phase = HEARS_OPTIONS;
        return 4;
    }
    if (phase == HEARS_OPTIONS && left >= 16) {
        memcpy(&size, at + 12, sizeof(size));
        size = be32toh(size);
        if (size >= 8192) { /* it is none, to who was told something else */
            fuzz_require(!honest, "an option is not long");
            hang_up();
            return 0;
        }
        if (left >= 16 + size) {
            uint32_t option;
            memcpy(&option, at + 8, sizeof(option));
            take_option(input, be32toh(option));
            return 16 + size;
        }
    }
    if (phase == SERVES && left >= 28 && asked_count < 64) {
        struct asked *one = &asked[asked_count];
        memcpy(&type, at + 6, sizeof(type));
        memcpy(&one->handle, at + 8, sizeof(one->handle));
        memcpy(&one->offset, at + 16, sizeof(one->offset));
        memcpy(&size, at + 24, sizeof(size));
        one->type = be16toh(type);
        one->offset = be64toh(one->offset);
        one->length = be32toh(size);
        size_t data = one->type == 1 ? one->length : 0;
        fuzz_require(!honest ||
                         (one->offset <= EXPORT_BYTES && one->length <= EXPORT_BYTES - one->offset),
                     "requests are within the export");
        if (left >= 28 + data) {
            if (honest && one->type == 1) {
                memcpy(contents + one->offset, at + 28, data);
            } else if (honest && one->type == 6) {
                memset(contents + one->offset, 0, one->length);
            }
            changes += one->type == 1 || one->type == 6;
            asked_count++;
            return 28 + data;
        }
    }
    return 0;
}

static void hear(struct fuzz_input *input)
{
    ssize_t count = recv(server, incoming + length, sizeof(incoming) - length, MSG_DONTWAIT);
    size_t done = 0, used;

    if (count == 0) {
        hang_up();
        return;
    }
    length += count > 0 ? (size_t)count : 0;
    while (server >= 0 && (used = take_one(input, incoming + done, length - done)) > 0) {
        done += used;
    }
    length -= done;
    memmove(incoming, incoming + done, length);
}

static void say_chunk(uint64_t handle, uint16_t flags, uint16_t type, uint64_t offset,
                      const void *data, uint32_t size)
{
    const struct {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t handle;
        uint32_t length;
        uint64_t offset;
    } __attribute__((packed)) chunk = {
        htobe32(0x668e33efu),         htobe16(flags),  htobe16(type), handle,
        htobe32(type ? size + 8 : 0), htobe64(offset),
    };

    say(&chunk, type ? sizeof(chunk) : sizeof(chunk) - 8);
    say(data, size);
}

/* To any of what was asked, well or not. */
static void reply(struct fuzz_input *input)
{
    static uint8_t anything[REQUEST_MAX];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned which = asked_count ? how % asked_count : 0;
    struct asked one = asked[which];

    if (phase != SERVES || !asked_count) {
        hear(input);
        return;
    }
    asked[which] = asked[--asked_count];
    bool read = one.type == 0;
    uint32_t size = read && one.length <= REQUEST_MAX ? one.length : 0;
    const uint8_t *data = honest ? contents + one.offset : anything;
    uint32_t error = 0;
    if (how >= 224) {
        honest = false;
        error = how & 1 ? (uint32_t)fuzz_number(input) : 0;
        one.handle ^= how & 2 ? fuzz_number(input) : 0;
        size = how & 4 ? size / 2 : size;
        one.offset ^= how & 8 ? fuzz_number(input) : 0;
        data = anything;
    }
    if (structured && (read || how & 16)) {
        bool halves = how & 32 && size > 1;
        uint32_t part = halves ? size / 2 : size;
        if (halves) {
            say_chunk(one.handle, 0, 1, one.offset, data, part);
            say_chunk(one.handle, 1, 1, how >= 224 ? one.offset : one.offset + part,
                      honest ? data + part : data, size - part);
        } else {
            say_chunk(one.handle, 1, read ? 1 : 0, one.offset, data, part);
        }
        return;
    }
    const struct {
        uint32_t magic, error;
        uint64_t handle;
    } __attribute__((packed)) simple = {htobe32(0x67446698u), htobe32(error), one.handle};
    say(&simple, sizeof(simple));
    if (!error && read) {
        say(data, size);
    }
}

static void say_anything(struct fuzz_input *input)
{
    size_t size;
    const uint8_t *bytes = fuzz_bytes(input, fuzz_take(input, 1), &size);

    honest &= size == 0;
    say(bytes, size);
}

static void speak(void)
{
    static void (*const sayings[])(struct fuzz_input *) = {hear, reply, hear, reply, say_anything};
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);

    if (server < 0) {
        return;
    }
    if (speaker->size == 0 || how >= 252) {
        hang_up();
    } else if (phase == GREETS) {
        say_greeting(speaker);
    } else {
        sayings[how < 250 ? how % 4 : 4](speaker);
    }
}

/* ---- vmmd ---- */

static int channel[2]; /* the device's end, vmmd's */

static void connect_one(const struct nbd_message *question, uint8_t how)
{
    struct nbd_message message = {.kind = NBD_CONNECTED, .number = question->number};
    int pair[2];

    fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0,
                 "a connection");
    if (how >= 248) { /* it is none */
        close(pair[0]);
        pair[0] = eventfd(0, EFD_CLOEXEC);
    }
    if (nbd_message_send(channel[1], &message, pair[0]) == 0) {
        hang_up();
        server = pair[1];
        phase = GREETS;
        lies += !honest;
        structured = false;
        honest = how < 248;
        length = asked_count = 0;
    } else {
        close(pair[1]);
    }
    close(pair[0]);
}

/* Answer the last question, or say what nobody asked for. */
static void answer(struct fuzz_input *input)
{
    struct nbd_message question, message = {.kind = NBD_FAILED};
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    int fd;

    if (nbd_message_receive(channel[1], &question, &fd) == 0) {
        fuzz_require(question.kind == NBD_ASK && fd < 0, "a device asks and sends nothing");
        if (how < 192 || how >= 248) {
            connect_one(&question, how);
            return;
        }
        message.number = question.number;
    }
    if (how >= 192) {
        message.kind = how & 1 ? NBD_FAILED : (uint32_t)fuzz_number(input);
        memset(message.text, how & 8 ? 'x' : '\x1b', sizeof(message.text)); /* no end */
        if (how & 2) {
            send(channel[1], &message, how % sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
        } else {
            nbd_message_send(channel[1], &message, how & 4 ? 0 : -1);
        }
    }
}

/* ---- Waiting ---- */

/* libnbd's, too. */
__attribute__((visibility("default"))) int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct timespec none = {0};

    if (timeout_ms) {
        speak();
    }
    int ready = (int)syscall(SYS_ppoll, fds, count, &none, NULL, 0);
    if (ready == 0) {
        fuzz_pass_ms(timeout_ms);
        fuzz_require(speaker->size || ++silence < 5000, "a wait ends");
    }
    return ready;
}

/* While the device waits in its event loop: it is never without an event. */
static void on_turn(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what, (void)context;
    answer(speaker);
    speak();
    fuzz_pass_ms(20);
}

/* ---- The device ---- */

static struct block *block;
static struct request {
    struct block_request block;
    struct iovec vectors[3];
    bool busy;
    unsigned changes; /* that there had been when it was asked */
    unsigned lies;    /* likewise: one more may have answered it since */
    uint8_t bytes[REQUEST_MAX + GUARD];
} requests[REQUESTS];

static void done(struct block_request *work)
{
    struct request *request = (struct request *)work;

    fuzz_require(request->busy, "a request is done once");
    fuzz_require(work->status <= 0, "a request's end is 0 or an error");
    request->busy = false;
    for (unsigned i = 0; i < GUARD; i++) {
        fuzz_require(request->bytes[REQUEST_MAX + i] == 0xa5, "nothing is read beyond its end");
    }
    if (work->status == 0 && work->operation == BLOCK_READ && honest &&
        request->changes == changes && request->lies == lies) {
        fuzz_require(memcmp(request->bytes, contents + work->offset, work->length) == 0,
                     "what is read is what is there");
    }
}

static void settled(void *context)
{
    (void)context;
    fuzz_require(block->size % BLOCK_SECTOR == 0 && block->size <= INT64_MAX, "a size");
}

static void told(void *context, bool well, const char *text)
{
    (void)context, (void)well;
    for (; *text; text++) {
        fuzz_require(*text >= ' ', "what people are told is text");
    }
}

static void ask(struct fuzz_input *input)
{
    static const enum block_operation operations[] = {
        BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_READ, BLOCK_DISCARD, BLOCK_WRITE_ZEROES};
    uint8_t how = (uint8_t)fuzz_take(input, 1), what = (uint8_t)fuzz_take(input, 1);
    struct request *request = &requests[how % REQUESTS];
    uint64_t sectors = block->size / BLOCK_SECTOR, most = REQUEST_MAX / BLOCK_SECTOR;

    if (request->busy || !sectors) {
        return;
    }
    uint64_t at = what & 0x80 ? fuzz_number(input) % sectors : how % sectors;
    uint64_t count = 1 + fuzz_number(input) % (sectors - at < most ? sectors - at : most);
    enum block_operation operation = operations[what % 6];
    bool transfers = operation == BLOCK_READ || operation == BLOCK_WRITE;
    uint32_t bytes = operation == BLOCK_FLUSH ? 0 : (uint32_t)count * BLOCK_SECTOR;
    uint32_t third = what & 0x40 ? bytes / 3 : 0;
    request->block = (struct block_request){
        .operation = operation,
        .durable = what & 0x20,
        .unmap = what & 0x10,
        .offset = operation == BLOCK_FLUSH ? 0 : at * BLOCK_SECTOR,
        .length = bytes,
        .vectors = request->vectors,
        .vector_count = !transfers ? 0
                        : third    ? 3
                                   : 1,
        .done = done,
    };
    request->vectors[0] = (struct iovec){request->bytes, third ? third : bytes};
    request->vectors[1] = (struct iovec){request->bytes + third, third};
    request->vectors[2] = (struct iovec){request->bytes + 2 * third, bytes - 2 * third};
    memset(request->bytes, how, REQUEST_MAX);
    memset(request->bytes + REQUEST_MAX, 0xa5, GUARD);
    request->busy = true;
    request->changes = changes;
    request->lies = lies;
    block_submit(block, &request->block);
}

static bool any_busy(void)
{
    bool busy = false;

    for (unsigned i = 0; i < REQUESTS; i++) {
        busy |= requests[i].busy;
    }
    return busy;
}

static bool all_over(const struct block_request *request)
{
    (void)request;
    return true;
}

/* All limits of time pass. (There is always an event, so the loop must turn once only.) */
static void late(void)
{
    struct fuzz_late found = {.count = 0};

    event_base_foreach_event(host.base, fuzz_find_late, &found);
    for (unsigned i = 0; i < found.count; i++) {
        event_active(found.events[i], EV_TIMEOUT, 0);
    }
    event_base_loop(host.base, EVLOOP_ONCE);
}

static void step(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    if (how < 128) {
        ask(input);
        block_start(block);
    } else if (how < 232) {
        block_start(block);
    } else if (how < 244) {
        fuzz_pass_ms((int)(fuzz_number(input) % 10000));
        late();
    } else if (how < 248) {
        block_let_go(block, all_over);
    } else if (how < 250) {
        block_flush(block);
    }
    event_base_loop(host.base, EVLOOP_ONCE);
    block_start(block);
}

static void read_address(struct fuzz_input *input)
{
    char text[512];
    struct nbd_uri uri;
    struct error err;
    size_t size;
    const uint8_t *bytes = fuzz_bytes(input, sizeof(text) - 1, &size);

    memcpy(text, bytes, size);
    text[size] = '\0';
    error_clear(&err);
    if (nbd_uri_parse(text, ERROR_CONFIG, &uri, &err) == 0) {
        fuzz_require(uri.is_unix ? uri.socket[0] == '/' : uri.host[0] != '\0', "a place");
        fuzz_require(nbd_uri_is(text), "it looks like one");
    } else {
        fuzz_require(err.message[0], "an error says something");
    }
}

static void fuzz_prepare(void)
{
    setenv("POLYVISOR_LOG", "none", 0);
    log_open("fuzz");
    signal(SIGPIPE, SIG_IGN);
}

/* A disk's life. */
static void live(struct fuzz_input *input)
{
    struct block_kept kept = {0};
    const uint8_t how = (uint8_t)fuzz_take(input, 1);
    const struct block_settings settings = {.nbd = "nbd://host/export",
                                            .timeout_s = how & 1 ? 1 : 30,
                                            .read_only = (how & 14) == 14,
                                            .kept = how & 16 ? NULL : &kept};
    struct error err;

    if (how & 32) { /* a process before it knew the disk, or said so */
        kept = (struct block_kept){0x3144424eu, 6, EXPORT_BYTES, 4096, 4096};
        kept.size = how & 64 ? fuzz_number(input) : kept.size;
        kept.physical_bytes = how & 128 ? (uint32_t)fuzz_number(input) : 4096;
    }
    error_clear(&err);
    block = block_nbd_open(channel[0], &settings, host.base, &err);
    if (!block) {
        fuzz_require(err.message[0], "an error says something");
        return;
    }
    block->settled = settled;
    block->told = told;
    fuzz_require(block->size >= BLOCK_SECTOR && block->size % BLOCK_SECTOR == 0 &&
                     block->size <= INT64_MAX && block->physical_bytes >= 512 &&
                     block->physical_bytes <= 65536 &&
                     !(block->physical_bytes & (block->physical_bytes - 1)),
                 "a disk that can be");
    while (input->size) {
        step(input);
    }
    hang_up();
    for (unsigned i = 0; i < 200 && any_busy(); i++) { /* the end of all waits */
        fuzz_pass_ms(31000);
        late();
        block_start(block);
    }
    fuzz_require(!any_busy(), "requests end though nobody answers");
    block_close(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    static bool prepared;

    if (!prepared) {
        fuzz_prepare();
        prepared = true;
    }
    speaker = &input;
    silence = 0;
    honest = true;
    memset(contents, 0, sizeof(contents));
    memset(requests, 0, sizeof(requests));
    if (fuzz_take(&input, 1) >= 240) {
        read_address(&input);
        return 0;
    }
    fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) ==
                     0,
                 "a channel");
    host.base = event_base_new();
    int always = eventfd(1, EFD_CLOEXEC);
    struct event *turn = event_new(host.base, always, EV_READ | EV_PERSIST, on_turn, NULL);
    event_add(turn, NULL);
    live(&input);
    hang_up();
    event_free(turn);
    event_base_free(host.base);
    close(always);
    close(channel[0]);
    close(channel[1]);
    fuzz_check_descriptors();
    return 0;
}
