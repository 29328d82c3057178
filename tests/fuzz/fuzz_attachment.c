/*
 * A terminal at a console whose process is hostile, or dies and comes again: welcomes with any
 * numbers, in pieces, output of any length. Both streams have a pattern by the number of the byte:
 * with a console that tells the truth all of its output reaches standard output once and in order,
 * and all that was typed reaches it so.
 */
#include "cli/attachment.h"
#include "tests/fuzz/fuzz_clock.h"
#include "tests/fuzz/fuzz_input.h"
#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#define INPUT_BYTES 0x90000u
#define OUTPUT_MAX  65536u /* at once */

static uint8_t pattern(unsigned stream, uint64_t number)
{
    return (uint8_t)(number * 11 + (number >> 8) + stream * 89);
}

/* ---- The console ---- */

static struct fuzz_input *speaker;
static int console = -1;       /* its end of the connection */
static bool honest;            /* its numbers are true, and it says nothing else */
static bool greeted, welcomed; /* on this connection */
static bool known;             /* it has welcomed us before */
static struct console_hello hello;
static uint64_t printed, first; /* the next byte of its output; the first that it ever sent */
static uint64_t taken;          /* bytes of input that it has */
static unsigned silence;

static void leave(void)
{
    if (console >= 0) {
        close(console);
    }
    console = -1;
}

static void hear_input(bool all)
{
    uint8_t bytes[8192];
    ssize_t count;

    do {
        count = recv(console, bytes, sizeof(bytes), MSG_DONTWAIT);
        for (ssize_t i = 0; i < count; i++, taken++) {
            fuzz_require(!honest || bytes[i] == pattern(1, taken), "input arrives as it was typed");
        }
    } while (all && count > 0);
}

static void hear(struct fuzz_input *input)
{
    uint64_t id = hello.id;

    (void)input;
    if (greeted) {
        hear_input(false);
        return;
    }
    fuzz_require(recv(console, &hello, sizeof(hello), MSG_DONTWAIT) == sizeof(hello),
                 "it introduces itself at once");
    greeted = true;
    fuzz_require(hello.magic == CONSOLE_MAGIC && hello.id, "it has a name");
    fuzz_require(!id || hello.id == id, "it keeps its name");
    fuzz_require(!honest || !(hello.flags & CONSOLE_RESUME) == !known, "it resumes what there was");
    fuzz_require(!honest || !known || hello.output <= printed, "it knows no byte before it came");
}

static void say_welcome(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct console_welcome welcome = {.magic = CONSOLE_MAGIC, .output = hello.output};
    size_t size = sizeof(welcome);

    if (!greeted) {
        hear(input);
    }
    if (welcomed) {
        return;
    }
    welcome.output = known ? hello.output : how & 1 ? fuzz_number(input) : 0;
    welcome.input = taken;
    if (how >= 224) {
        honest = false;
        welcome.magic = how == 255 ? 0 : CONSOLE_MAGIC;
        welcome.output = how & 2 ? fuzz_number(input) : welcome.output;
        welcome.input = how & 4 ? fuzz_number(input) : welcome.input;
        size = how & 8 ? how & 7 : size;
    }
    if (how & 16 && size > 5) { /* in two pieces */
        send(console, &welcome, 5, MSG_DONTWAIT | MSG_NOSIGNAL);
        send(console, (char *)&welcome + 5, size - 5, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        send(console, &welcome, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    printed = welcome.output;
    first = known ? first : printed;
    welcomed = known = true;
}

static void say_output(struct fuzz_input *input)
{
    static uint8_t bytes[OUTPUT_MAX];
    size_t count = fuzz_number(input) % OUTPUT_MAX;

    if (!welcomed) {
        say_welcome(input);
    }
    for (size_t i = 0; i < count; i++) {
        bytes[i] = pattern(0, printed + i);
    }
    ssize_t sent = send(console, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    printed += sent > 0 ? (uint64_t)sent : 0;
}

/* Its process dies. What it had not read of the input is lost with it, and comes again. */
static void die(struct fuzz_input *input)
{
    (void)input;
    leave();
}

static void speak(void)
{
    static void (*const sayings[])(struct fuzz_input *) = {say_output, hear, say_welcome,
                                                           say_output, hear, die};

    if (console < 0) {
        return;
    }
    if (speaker->size == 0) {
        leave();
        return;
    }
    sayings[fuzz_pick(speaker, sizeof(sayings) / sizeof(sayings[0]))](speaker);
}

/* ---- What attachment.c waits for ---- */

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    uint8_t how = (uint8_t)fuzz_take(speaker, 1);
    int pair[2];

    (void)address, (void)size;
    if (speaker->size == 0 || how >= 250 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        errno = speaker->size && how & 1 ? EAGAIN : ECONNREFUSED;
        return -1;
    }
    leave();
    dup3(pair[0], fd, O_CLOEXEC);
    close(pair[0]);
    console = pair[1];
    greeted = welcomed = false;
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
        fuzz_pass_ms(timeout_ms < 0 ? 1000 : timeout_ms);
        fuzz_require(speaker->size || ++silence < 3000, "a wait ends");
    }
    return ready;
}

/* ---- vmctl ---- */

static int typed = -1, shown = -1;

static void open_files(void)
{
    static uint8_t bytes[INPUT_BYTES];

    typed = memfd_create("typed", MFD_CLOEXEC);
    shown = memfd_create("shown", MFD_CLOEXEC);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = pattern(1, i);
    }
    fuzz_require(write(typed, bytes, sizeof(bytes)) == sizeof(bytes), "an input");
}

static void check_shown(const struct attachment *attachment)
{
    off_t size = lseek(shown, 0, SEEK_END);
    uint8_t *bytes = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, shown, 0) : NULL;

    fuzz_require(attachment->moved == (uint64_t)size, "it counts what it showed");
    for (off_t i = 0; honest && i < size; i++) {
        fuzz_require(bytes[i] == pattern(0, first + (uint64_t)i), "output is shown as it came");
    }
    fuzz_require(!honest || attachment->lost == 0, "nothing is called lost that was not");
    if (bytes) {
        munmap(bytes, (size_t)size);
    }
    fuzz_require(ftruncate(shown, 0) == 0, "a file");
    lseek(shown, 0, SEEK_SET);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct attachment attachment;
    struct fuzz_input input = {bytes, size};
    struct error err;

    if (typed < 0) {
        open_files();
    }
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    speaker = &input;
    honest = true;
    known = false;
    hello = (struct console_hello){0};
    printed = first = taken = 0;
    silence = 0;
    lseek(typed, 0, SEEK_SET);
    error_clear(&err);
    attachment_open(&attachment, how & 1, how & 2);
    attachment.input = how & 4 ? -1 : typed;
    attachment.output = shown;
    attachment.terminal.raw = how & 8; /* keys are looked for in what is typed */
    honest = !attachment.terminal.raw;
    int status = attachment_connect(&attachment, "/fuzz/console.sock",
                                    how & 16 ? CONSOLE_LOSSLESS : 0, &err);
    fuzz_require(status == -(int)err.code, "the status is the error's code");
    while (status == 0 && !(attachment.refused && attachment_drained(&attachment))) {
        attachment_poll(&attachment, NULL, 0, -1);
        fuzz_require(attachment.to_output_start <= attachment.to_output_end &&
                         attachment.to_output_end <= sizeof(attachment.to_output),
                     "what is on its way is in its buffer");
        fuzz_require(attachment.input_sent <= attachment.input_end &&
                         attachment.input_end - attachment.input_sent <= CONSOLE_INPUT_KEPT,
                     "what is kept of the input is in its ring");
        if (attachment.refused && input.size) {
            attachment_reconnect(&attachment);
        }
    }
    attachment.terminal.raw = false;
    attachment_close(&attachment);
    leave();
    check_shown(&attachment);
    fuzz_check_descriptors();
    return 0;
}
