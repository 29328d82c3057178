/*
 * vmctl in front of a vmmd that has gone mad: every command that only asks, as text and as JSON,
 * and any answers and events. Whatever is said, it is an answer or an error.
 */
#include "cli/probe.h"
#include "cli/vmctl.h"
#include "libshared/base/error.h"
#include "libshared/base/log.h"
#include "proto/control.pb-c.h"
#include "proto/event.pb-c.h"
#include "tests/fuzz/fuzz_message.h"
#include "tests/fuzz/fuzz_nanomsg.h"
#include "tests/fuzz/fuzz_wait.h"

/* ---- what vmctl waits for ---- */

static int waiting_messages(void)
{
    int socket = fuzz_find_socket(".sock");
    return socket < 0 ? 0 : (int)fuzz_sockets[socket].count;
}

int probe_open(const char *directory, const char *name, int own, int peer, uint32_t timeout_ms,
               int interrupt_fd, struct error *err)
{
    (void)directory, (void)name, (void)own, (void)peer, (void)timeout_ms, (void)interrupt_fd;
    (void)err;
    return eventfd(1, EFD_CLOEXEC);
}

/* It is gone as soon as it has nothing more to say; and to ask takes its time. */
bool probe_gone(int probe)
{
    (void)probe;
    fuzz_pass_ms(10);
    return waiting_messages() == 0;
}

/* ---- what vmmd says ---- */

static const char *const texts[] = {
    "",
    "one",
    "two",
    "riscv64",
    "x86_64",
    "vcpud",
    "devd/disk0",
    "power-off",
    "crashed",
    "no-new-privileges seccomp user-namespace",
    "timeout",
    "not-found",
    "config",
    "ok",
    "retired",
    "compile_ns",
    "add x1, x2, x3",
    "  %s%n\x1b[2J\n\r\t",
    "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
    "/dev/null",
    "user,mac=52:54:00:00:00:01",
};

static bool number(struct fuzz_input *input, const ProtobufCFieldDescriptor *field, uint64_t *value)
{
    if (strcmp(field->name, "id") == 0) { /* of the request */
        *value = fuzz_take(input, 1) < 240;
        return true;
    }
    return false;
}

static const struct fuzz_words words = {
    .texts = texts, .count = sizeof(texts) / sizeof(texts[0]), .number = number};

/* Messages have to be on the socket before vmctl looks, and the socket is vmctl's: they are put
 * there when it asks, or subscribes. */
static struct fuzz_input *speaker;

static void speak(int socket, bool events)
{
    static uint8_t frame[FUZZ_FRAME_MAX];

    for (unsigned count = 1 + (unsigned)(fuzz_take(speaker, 1) & 3); count > 0; count--) {
        size_t size =
            fuzz_frame(speaker, &words,
                       events ? &polyvisor__event__descriptor : &polyvisor__response__descriptor,
                       events ? CHANNEL_EVENT : CHANNEL_CONTROL, frame);
        fuzz_push(socket, frame, size);
    }
}

static void answer(int socket, const uint8_t *bytes, size_t size)
{
    (void)bytes, (void)size;
    speak(socket, false);
}

static void connected(int socket)
{
    if (strstr(fuzz_sockets[socket].address, "events.sock")) {
        speak(socket, true);
    }
}

/* ---- vmctl ---- */

#define WORDS 6
static const char *const commands_asked[][WORDS] = {
    {"list"},
    {"show", "one"},
    {"stats", "one"},
    {"disas", "one"},
    {"disas", "one", "0x80000000", "--count=3"},
    {"events"},
    {"events", "one"},
    {"device", "restart", "one", "disk0"},
    {"device", "list", "one"},
    {"link", "one", "net0", "down"},
    {"version"},
    {"start", "one"},
    {"stop", "one"},
    {"agent", "one"},
    {"kill", "one"},
    {"rm", "one"},
    {"rm", "one", "two", "--force"},
    {"disk", "resize", "one", "disk0", "1G"},
    {"shutdown"},
    {"create", "one", "--kernel=/dev/null"},
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static char program[] = "vmctl", json[] = "--json", directory[] = "--runtime-dir=/nowhere";
    struct fuzz_input input = {bytes, size};
    char copies[WORDS][32], *arguments[WORDS + 4] = {program, directory};
    int count = 2;

    if (!fuzz_on_sent) {
        setenv("POLYVISOR_LOG", "error", 1);
        log_open("fuzz");
        stdout = stderr = fopen("/dev/null", "w"); /* vmctl's; the fuzzer has its own */
        fuzz_require(stdout != NULL, "standard output");
        fuzz_on_sent = answer;
        fuzz_on_connected = connected;
    }
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    const char *const *command =
        commands_asked[(how & 0x7f) % (sizeof(commands_asked) / sizeof(commands_asked[0]))];
    if (how & 0x80) {
        arguments[count++] = json;
    }
    for (unsigned i = 0; i < WORDS && command[i]; i++) {
        snprintf(copies[i], sizeof(copies[i]), "%s", command[i]);
        arguments[count++] = copies[i];
    }
    speaker = &input;
    int status = vmctl_main(count, arguments);
    fuzz_require(status >= 0 && status < 256, "an exit status");
    for (int i = 0; i < FUZZ_SOCKETS; i++) {
        fuzz_require(!fuzz_sockets[i].open, "all sockets are closed");
    }
    return 0;
}
