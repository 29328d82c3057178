/*
 * vmctl's end of a command in a guest, with a hostile agent and a hostile vsock process: any
 * frames, connections that end anywhere and are made again, or not. All streams have a pattern by
 * the number of the byte: what reaches the host is it from the first byte on, nothing lost or
 * twice, as is what is sent to an agent that tells the truth about what it has.
 */
#include "cli/guest_session.h"
#include "cli/vmctl.h"
#include "libshared/base/log.h"
#include "tests/fuzz/fuzz_clock.h"
#include "tests/fuzz/fuzz_input.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#define INPUT_BYTES 0x60000u

static uint8_t pattern(unsigned stream, uint64_t number)
{
    return (uint8_t)(number * 7 + (number >> 8) + stream * 101);
}

/* ---- The agent ---- */

static struct fuzz_input *speaker; /* what it says */
static int agent = -1;             /* its end of the connection */
static bool honest;                /* its numbers are true */
static bool pure;                  /* it said nothing but whole frames of the streams' bytes */
static uint64_t output[AGENT_STREAMS], taken;
static bool dialled;  /* the line of who dials has come */
static size_t length; /* of what came and is not looked at yet */
static uint8_t incoming[2 * (sizeof(struct agent_header) + AGENT_FRAME_MAX)];
static unsigned silence; /* turns since it has nothing more to say */

static void say(uint8_t type, const void *head, size_t size, const void *rest, size_t more,
                uint32_t claimed)
{
    static uint8_t frame[sizeof(struct agent_header) + 2 * AGENT_FRAME_MAX];
    const struct agent_header header = {.length = claimed, .type = type};

    memcpy(frame, &header, sizeof(header));
    memcpy(frame + sizeof(header), head, size);
    if (more) {
        memcpy(frame + sizeof(header) + size, rest, more);
    }
    size_t whole = sizeof(header) + size + more;
    ssize_t sent = send(agent, frame, whole, MSG_DONTWAIT | MSG_NOSIGNAL);
    pure &= sent < 0 || (size_t)sent == whole;
}

static void say_welcome(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    const struct agent_welcome welcome = {
        .version = AGENT_VERSION,
        .known = how & 1,
        .received = how & 2 ? fuzz_number(input) : taken,
    };

    honest &= welcome.received == taken;
    say(AGENT_WELCOME, &welcome, sizeof(welcome), NULL, 0, sizeof(welcome));
}

static void say_output(struct fuzz_input *input)
{
    static uint8_t bytes[AGENT_FRAME_MAX];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct agent_data data = {.stream = how & 1};
    size_t count = fuzz_number(input) % (AGENT_FRAME_MAX - sizeof(data));

    data.at = how & 2 ? fuzz_number(input) : output[data.stream];
    for (size_t i = 0; i < count; i++) {
        bytes[i] = pattern(data.stream, data.at + i);
    }
    output[data.stream] = data.at + count;
    data.stream |= how == 255 ? 2 : 0;
    say(AGENT_OUTPUT, &data, sizeof(data), bytes, count, (uint32_t)(sizeof(data) + count));
}

static void say_confirm(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    const struct agent_confirm confirm = {.received = {how & 1 ? fuzz_number(input) : taken}};

    honest &= confirm.received[0] == taken;
    say(AGENT_CONFIRM, &confirm, sizeof(confirm), NULL, 0, sizeof(confirm));
}

static void say_end(struct fuzz_input *input)
{
    const struct agent_ended ended = {(uint32_t)fuzz_number(input), (uint32_t)fuzz_number(input)};
    bool failed = fuzz_take(input, 1) & 1;

    say(failed ? AGENT_FAILED : AGENT_ENDED, &ended, failed ? 4 : sizeof(ended), "why", failed * 3,
        failed ? 7 : sizeof(ended));
}

static void say_anything(struct fuzz_input *input)
{
    uint8_t type = (uint8_t)fuzz_take(input, 1);
    uint32_t claimed = (uint32_t)fuzz_number(input);
    size_t size;
    const uint8_t *bytes = fuzz_bytes(input, fuzz_take(input, 1), &size);

    pure = false;
    say(type, bytes, size, NULL, 0, claimed);
}

static void leave(struct fuzz_input *input)
{
    (void)input;
    if (agent >= 0) {
        close(agent);
    }
    agent = -1;
    length = 0;
}

static void frame_came(const struct agent_header *header, const uint8_t *body)
{
    struct agent_data data;

    fuzz_require(header->type == AGENT_HELLO || header->type == AGENT_START ||
                     header->type == AGENT_INPUT || header->type == AGENT_CONFIRM ||
                     header->type == AGENT_WINDOW || header->type == AGENT_SIGNAL ||
                     header->type == AGENT_BYE,
                 "a client sends its frames only");
    if (header->type == AGENT_INPUT && honest) {
        fuzz_require(header->length >= sizeof(data) &&
                         header->length <= sizeof(data) + AGENT_DATA_MAX,
                     "input is not too long");
        memcpy(&data, body, sizeof(data));
        fuzz_require(data.at == taken, "input comes in order");
        for (size_t i = sizeof(data); i < header->length; i++) {
            fuzz_require(body[i] == pattern(2, taken++), "input arrives as it was sent");
        }
    }
}

static void hear(struct fuzz_input *input)
{
    ssize_t count = recv(agent, incoming + length, sizeof(incoming) - length, MSG_DONTWAIT);
    size_t done = 0;
    struct agent_header header;

    (void)input;
    length += count > 0 ? (size_t)count : 0;
    if (!dialled) {
        static const char line[] = "CONNECT 5056\n";
        done = sizeof(line) - 1;
        fuzz_require(count <= 0 || (length >= done && !memcmp(incoming, line, done)),
                     "a line of greeting");
        dialled = length > 0;
        done = dialled ? done : 0;
    }
    while (length - done >= sizeof(header)) {
        memcpy(&header, incoming + done, sizeof(header));
        fuzz_require(header.length <= AGENT_FRAME_MAX, "a frame is not too long");
        if (length - done < sizeof(header) + header.length) {
            break;
        }
        frame_came(&header, incoming + done + sizeof(header));
        done += sizeof(header) + header.length;
    }
    length -= done;
    memmove(incoming, incoming + done, length);
}

static void speak(void)
{
    static void (*const sayings[])(struct fuzz_input *) = {
        say_output, hear, say_welcome, say_output, say_confirm, hear, say_end, leave, say_anything,
    };

    if (agent < 0) {
        return;
    }
    if (speaker->size == 0) { /* the end of the input: it goes, and does not come back */
        leave(speaker);
        return;
    }
    sayings[fuzz_pick(speaker, sizeof(sayings) / sizeof(sayings[0]))](speaker);
}

/* ---- What guest_session.c waits for ---- */

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);
    int pair[2];

    (void)address, (void)size;
    if (speaker->size == 0 || how >= 250 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        errno = ECONNREFUSED;
        return -1;
    }
    leave(NULL);
    dup3(pair[0], fd, O_CLOEXEC);
    close(pair[0]);
    agent = pair[1];
    dialled = false;
    fuzz_require(fcntl(agent, F_SETFL, O_NONBLOCK) == 0, "a socket");
    if (how < 240) {
        send(agent, "OK 5056\n", 8, MSG_NOSIGNAL);
    } else {
        size_t count;
        const uint8_t *bytes = fuzz_bytes(speaker, how & 7, &count);
        send(agent, bytes, count, MSG_NOSIGNAL);
        pure = false;
    }
    return 0;
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct timespec none = {0};
    uint8_t turns = timeout_ms ? 1 + (fuzz_take(speaker, 1) & 3) : 0;

    while (turns--) {
        speak();
    }
    int ready = (int)syscall(SYS_ppoll, fds, count, &none, NULL, 0);
    if (ready == 0) {
        fuzz_pass_ms(timeout_ms);
        fuzz_require(speaker->size || ++silence < 3000, "a wait ends");
    }
    return ready;
}

/* ---- vmctl ---- */

static int files[3]; /* input, output, errors */

static void open_files(void)
{
    static uint8_t bytes[INPUT_BYTES];

    for (unsigned i = 0; i < 3; i++) {
        files[i] = memfd_create("stream", MFD_CLOEXEC);
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = pattern(2, i);
    }
    fuzz_require(write(files[0], bytes, sizeof(bytes)) == sizeof(bytes), "an input");
    setenv("POLYVISOR_LOG", "error", 1);
    log_open("fuzz");
}

static void check_output(unsigned stream)
{
    off_t size = lseek(files[1 + stream], 0, SEEK_END);
    uint8_t *bytes =
        size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, files[1 + stream], 0) : NULL;

    for (off_t i = 0; pure && i < size; i++) {
        fuzz_require(bytes[i] == pattern(stream, (uint64_t)i), "output arrives as it was sent");
    }
    if (bytes) {
        munmap(bytes, (size_t)size);
    }
    fuzz_require(ftruncate(files[1 + stream], 0) == 0, "a file");
    lseek(files[1 + stream], 0, SEEK_SET);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const words[] = {"command", "word", NULL};
    static const char *const variables[] = {"NAME=value", NULL};
    struct fuzz_input input = {bytes, size};
    struct guest_outcome outcome;
    struct error err;

    if (!files[0]) {
        open_files();
    }
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    const struct guest_command command = {
        .flags = how & 3,
        .arguments = words,
        .variables = how & 4 ? variables : NULL,
        .folder = how & 8 ? "/" : NULL,
        .input = how & 16 ? -1 : files[0],
        .output = {how & 32 ? -1 : files[1], how & 64 ? -1 : files[2]},
        .wait_ms = how & 128 ? 5000 : 0,
    };
    speaker = &input;
    honest = pure = true;
    output[0] = output[1] = taken = 0;
    silence = 0;
    lseek(files[0], 0, SEEK_SET);
    error_clear(&err);
    int status = guest_session_run("/fuzz", &command, &outcome, &err);
    fuzz_require(status == -(int)err.code, "the status is the error's code");
    if (status == 0) {
        guest_exit_status(&outcome, words[0], &err);
    } else {
        fuzz_require(err.message[0] != '\0', "an error says something");
    }
    leave(NULL);
    check_output(0);
    check_output(1);
    fuzz_check_descriptors();
    return 0;
}
