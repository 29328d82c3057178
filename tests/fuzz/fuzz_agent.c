/*
 * The guest's agent among hostile clients: any frames in any order on several connections, clients
 * that do not read, leave and come back. The commands are played: they read, write and end as the
 * input wants. What is sent either way has a pattern by its number, so that nothing may be lost,
 * come twice or come from elsewhere.
 */
#include "agent/service.h"
#include "libshared/agent/protocol.h"
#include "tests/fuzz/fuzz_input.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#define CLIENTS   4u
#define CHILDREN  80u
#define TOKENS    4u
#define FIRST_PID 1000000 /* no process of this machine */

static int listener = -1, signals = -1;
static struct service *service;
static const struct agent agent; /* of nobody's machine */

static uint8_t pattern(unsigned stream, uint64_t number)
{
    return (uint8_t)(number * 7 + (number >> 8) + stream * 101);
}

static void check_pattern(unsigned stream, uint64_t number, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fuzz_require(bytes[i] == pattern(stream, number + i), "a stream arrives as it was sent");
    }
}

/* ---- Commands ---- */

static struct child {
    pid_t pid; /* 0: none */
    bool terminal, ended;
    int status;
    int streams[3];
    uint64_t numbers[3]; /* of the next byte */
} children[CHILDREN];

static pid_t next_pid;
static int pipes[4][2], pipe_count, terminal_end; /* made since the last fork */
static bool fails;                                /* the next program cannot be run */

int pipe2(int ends[2], int flags)
{
    int status = (int)syscall(SYS_pipe2, ends, flags);

    if (status == 0 && pipe_count < 4) {
        memcpy(pipes[pipe_count++], ends, sizeof(pipes[0]));
    }
    return status;
}

int unlockpt(int fd)
{
    int zero = 0;

    terminal_end = fd;
    return ioctl(fd, TIOCSPTLCK, &zero);
}

static void end_child(struct child *child)
{
    for (unsigned i = 0; i < 3; i++) {
        if (child->streams[i] >= 0) {
            close(child->streams[i]);
        }
        child->streams[i] = -1;
    }
    child->ended = true;
    eventfd_write(signals, 1);
}

static int twin(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    fcntl(copy, F_SETFL, O_NONBLOCK); /* the file's, which is the child's end alone */
    return copy;
}

/* The first pipe tells failures; the others are the streams, or there is a terminal. */
static void connect_child(struct child *child)
{
    if (terminal_end >= 0) {
        char name[64];
        child->terminal = true;
        fuzz_require(ptsname_r(terminal_end, name, sizeof(name)) == 0, "a terminal's name");
        child->streams[0] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
        child->streams[1] = fcntl(child->streams[0], F_DUPFD_CLOEXEC, 0);
        return;
    }
    fuzz_require(pipe_count == 4, "a command has three streams");
    child->streams[0] = twin(pipes[1][0]);
    child->streams[1] = twin(pipes[2][1]);
    child->streams[2] = twin(pipes[3][1]);
}

pid_t fork(void)
{
    struct child *child = NULL;

    for (unsigned i = 0; i < CHILDREN && !child; i++) {
        child = children[i].pid ? NULL : &children[i];
    }
    if (!child) {
        pipe_count = 0;
        terminal_end = -1;
        errno = EAGAIN;
        return -1;
    }
    *child = (struct child){.pid = ++next_pid, .streams = {-1, -1, -1}};
    if (fails) {
        int cause = ENOENT;
        fuzz_require(write(pipes[0][1], &cause, sizeof(cause)) == sizeof(cause), "a pipe");
        end_child(child);
    } else {
        connect_child(child);
    }
    fails = false;
    pipe_count = 0;
    terminal_end = -1;
    return child->pid;
}

pid_t waitpid(pid_t pid, int *status, int options)
{
    fuzz_require(pid == -1 && options == WNOHANG, "nobody waits for a command");
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct child *child = &children[i];
        if (child->pid && child->ended) {
            pid = child->pid;
            *status = child->status;
            child->pid = 0;
            return pid;
        }
    }
    errno = ECHILD;
    return -1;
}

int kill(pid_t pid, int number)
{
    fuzz_require(pid < -FIRST_PID && pid >= -next_pid, "only groups of commands get signals");
    fuzz_require(number > 0 && number < NSIG, "a signal");
    for (unsigned i = 0; i < CHILDREN; i++) {
        if (children[i].pid == -pid && !children[i].ended && number != SIGCONT) {
            children[i].status = number;
            end_child(&children[i]);
        }
    }
    return 0;
}

static void child_reads(struct child *child, size_t most)
{
    static uint8_t bytes[0x8000];
    ssize_t count;

    most = most < sizeof(bytes) ? most : sizeof(bytes);
    count = child->streams[0] < 0 ? 0 : read(child->streams[0], bytes, most);
    if (count > 0 && !child->terminal) {
        check_pattern(2, child->numbers[0], bytes, (size_t)count);
        child->numbers[0] += (uint64_t)count;
    }
}

static void child_writes(struct child *child, unsigned stream, size_t most)
{
    static uint8_t bytes[0x8000];
    ssize_t count;

    most = most < sizeof(bytes) ? most : sizeof(bytes);
    for (size_t i = 0; i < most; i++) {
        bytes[i] = pattern(stream, child->numbers[1 + stream] + i);
    }
    count = child->streams[1 + stream] < 0 ? 0 : write(child->streams[1 + stream], bytes, most);
    child->numbers[1 + stream] += count > 0 ? (uint64_t)count : 0;
}

static void op_child(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct child *child = &children[how % 4];

    if (!child->pid || child->ended) {
        return;
    }
    switch (how >> 5) {
    case 0 ... 1:
        child_reads(child, fuzz_number(input));
        break;
    case 2 ... 3:
        child_writes(child, 0, fuzz_number(input));
        break;
    case 4:
        child_writes(child, 1, fuzz_number(input));
        break;
    case 5: {
        unsigned stream = fuzz_pick(input, 3);
        if (child->streams[stream] >= 0) {
            close(child->streams[stream]);
            child->streams[stream] = -1;
        }
        break;
    }
    default:
        child->status = (int)fuzz_take(input, 1) << (how & 32 ? 8 : 0);
        child->status &= child->status < 256 ? 0x3f : 0xff00;
        end_child(child);
    }
}

/* ---- Clients ---- */

static struct client {
    int fd; /* -1: none */
    uint64_t sent[TOKENS];
    bool terminal; /* a terminal changes what passes through it */
    size_t length;
    uint8_t bytes[2 * (sizeof(struct agent_header) + AGENT_FRAME_MAX)]; /* not looked at yet */
} clients[CLIENTS];

static bool any_terminal, crowded; /* of this input */

static void frame_came(const struct agent_header *header, const uint8_t *body)
{
    struct agent_data data;

    fuzz_require(header->type == AGENT_WELCOME || header->type == AGENT_OUTPUT ||
                     header->type == AGENT_CONFIRM || header->type == AGENT_ENDED ||
                     header->type == AGENT_FAILED,
                 "the agent sends its frames only");
    if (header->type == AGENT_OUTPUT && !any_terminal) {
        fuzz_require(header->length > sizeof(data) &&
                         header->length <= sizeof(data) + AGENT_DATA_MAX,
                     "output has bytes");
        memcpy(&data, body, sizeof(data));
        fuzz_require(data.stream < AGENT_STREAMS, "a stream");
        check_pattern(data.stream, data.at, body + sizeof(data), header->length - sizeof(data));
    }
}

static void client_reads(struct client *client)
{
    ssize_t count = recv(client->fd, client->bytes + client->length,
                         sizeof(client->bytes) - client->length, MSG_DONTWAIT);
    size_t done = 0;
    struct agent_header header;

    client->length += count > 0 ? (size_t)count : 0;
    while (client->length - done >= sizeof(header)) {
        memcpy(&header, client->bytes + done, sizeof(header));
        fuzz_require(header.length <= AGENT_FRAME_MAX, "a frame is not too long");
        if (client->length - done < sizeof(header) + header.length) {
            break;
        }
        frame_came(&header, client->bytes + done + sizeof(header));
        done += sizeof(header) + header.length;
    }
    client->length -= done;
    memmove(client->bytes, client->bytes + done, client->length);
}

static void client_leaves(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
    }
    client->fd = -1;
    client->length = 0;
}

static void dial(struct client *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    client_leaves(client);
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "polyvisor-fuzz-agent-%d",
             (int)getpid());
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    fuzz_require(connect(client->fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
                     errno == EAGAIN,
                 "connect");
}

static void say(struct client *client, uint8_t type, const void *body, size_t size, uint32_t length)
{
    static uint8_t frame[sizeof(struct agent_header) + AGENT_FRAME_MAX];
    const struct agent_header header = {.length = length, .type = type};

    memcpy(frame, &header, sizeof(header));
    memcpy(frame + sizeof(header), body, size);
    send(client->fd, frame, sizeof(header) + size, MSG_NOSIGNAL);
}

static void say_hello(struct fuzz_input *input, struct client *client)
{
    struct agent_hello hello = {.magic = AGENT_MAGIC, .version = AGENT_VERSION};
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    hello.token[0] = how % TOKENS;
    if (how & 64) {
        hello.received[0] = fuzz_number(input);
        hello.received[1] = fuzz_number(input);
    }
    if (how < 128) {
        say(client, AGENT_HELLO, &hello, sizeof(hello), sizeof(hello));
        return;
    }
    /* Many, each of another session. */
    for (unsigned i = 0; i < (how & 32 ? 1200u : 70u); i++) {
        hello.token[1] = (uint8_t)(1 + i % 250);
        hello.token[2] = (uint8_t)how;
        say(client, AGENT_HELLO, &hello, sizeof(hello), sizeof(hello));
    }
}

static void say_start(struct fuzz_input *input, struct client *client)
{
    static uint8_t body[AGENT_FRAME_MAX];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct agent_start start = {
        .flags = how & 3,
        .rows = 24,
        .columns = 80,
        .arguments = how & 4 ? (uint32_t)fuzz_number(input) : 1,
        .variables = how & 8 ? (uint32_t)fuzz_number(input) : 0,
    };
    size_t size, length;
    const uint8_t *words = fuzz_bytes(input, how >> 4, &size);

    any_terminal |= (start.flags & AGENT_START_TERMINAL) != 0;
    memcpy(body, &start, sizeof(start));
    memset(body + sizeof(start), 0, sizeof(body) - sizeof(start));
    memcpy(body + sizeof(start), words, size);
    length = sizeof(start) + size + (how & 0x80 ? fuzz_number(input) % 9000 : 2);
    fails = how == 0x10;
    say(client, AGENT_START, body, length, (uint32_t)length);
}

static void say_input(struct fuzz_input *input, struct client *client)
{
    static uint8_t body[AGENT_FRAME_MAX];
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    uint64_t *sent = &client->sent[how % TOKENS];
    struct agent_data data = {.at = how & 64 ? fuzz_number(input) : *sent};
    size_t count = how & 32 ? 0 : fuzz_number(input);

    count = count < sizeof(body) - sizeof(data) ? count : sizeof(body) - sizeof(data);
    count = how & 128 || count <= AGENT_DATA_MAX ? count : AGENT_DATA_MAX;
    memcpy(body, &data, sizeof(data));
    for (size_t i = 0; i < count; i++) {
        body[sizeof(data) + i] = pattern(2, data.at + i);
    }
    *sent = data.at + count;
    say(client, AGENT_INPUT, body, sizeof(data) + count, (uint32_t)(sizeof(data) + count));
}

static void say_small(struct fuzz_input *input, struct client *client)
{
    uint64_t words[2] = {fuzz_number(input), fuzz_number(input)};
    static const struct {
        uint8_t type, size;
    } kinds[] = {
        {AGENT_CONFIRM, sizeof(struct agent_confirm)}, {AGENT_WINDOW, sizeof(struct agent_window)},
        {AGENT_SIGNAL, sizeof(struct agent_signal)},   {AGENT_BYE, 0},
        {AGENT_OUTPUT, sizeof(struct agent_data)},     {AGENT_WELCOME, 16},
    };
    unsigned kind = fuzz_pick(input, sizeof(kinds) / sizeof(kinds[0]));

    say(client, kinds[kind].type, words, kinds[kind].size, kinds[kind].size);
}

static void say_anything(struct fuzz_input *input, struct client *client)
{
    uint8_t type = (uint8_t)fuzz_take(input, 1);
    uint32_t length = (uint32_t)fuzz_number(input);
    size_t size;
    const uint8_t *bytes = fuzz_bytes(input, fuzz_take(input, 1), &size);

    say(client, type, bytes, size, length);
}

static void op_client(struct fuzz_input *input)
{
    static void (*const sayings[])(struct fuzz_input *, struct client *) = {
        say_hello, say_start, say_input, say_input, say_small, say_anything,
    };
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    struct client *client = &clients[how % CLIENTS];

    if (client->fd < 0) {
        dial(client);
    }
    if (how >= 248) {
        client_leaves(client);
    } else if (how >= 208) {
        client_reads(client);
    } else {
        sayings[(how >> 2) % 6](input, client);
    }
}

/* Many clients that start a command and leave: the agent has no room for more sessions. Once in an
 * input: it takes long. */
static void op_crowd(struct fuzz_input *input)
{
    static const struct agent_start start = {.arguments = 1};
    static struct client client = {.fd = -1};
    struct agent_hello hello = {.magic = AGENT_MAGIC, .token = {200}};
    uint8_t frame[sizeof(start) + 2] = {0};

    unsigned count = crowded ? 0 : 56 + fuzz_take(input, 1) % 16;
    crowded = true;
    memcpy(frame, &start, sizeof(start));
    for (unsigned i = count; i > 0; i--) {
        dial(&client);
        hello.token[1] = (uint8_t)i;
        say(&client, AGENT_HELLO, &hello, sizeof(hello), sizeof(hello));
        say(&client, AGENT_START, frame, sizeof(frame), sizeof(frame));
        service_turn(service, 1000, 0);
        service_turn(service, 1000, 0);
        client_leaves(&client);
    }
}

/* ---- Turns ---- */

static void op_turn(struct fuzz_input *input)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);

    for (unsigned i = 1 + (how & 3); i > 0; i--) {
        fuzz_require(service_turn(service, how < 240 ? 1000 : -1, 0) == 0, "it goes on");
    }
}

static void (*const operations[])(struct fuzz_input *) = {op_client, op_turn, op_child, op_client,
                                                          op_client, op_turn, op_child, op_crowd};

static void open_everything(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "polyvisor-fuzz-agent-%d",
             (int)getpid());
    signal(SIGPIPE, SIG_IGN);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    signals = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    fuzz_require(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                     listen(listener, 64) == 0,
                 "a listener");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};

    if (listener < 0) {
        open_everything();
    }
    service = service_new(listener, signals, &agent);
    fuzz_require(service != NULL, "memory");
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i].fd = -1;
        clients[i].length = 0;
        memset(clients[i].sent, 0, sizeof(clients[i].sent));
    }
    memset(children, 0, sizeof(children));
    next_pid = FIRST_PID;
    terminal_end = -1;
    pipe_count = 0;
    fails = any_terminal = crowded = false;
    while (input.size) {
        operations[fuzz_take(&input, 1) % (sizeof(operations) / sizeof(operations[0]))](&input);
    }
    for (unsigned i = 0; i < 3; i++) {
        service_turn(service, 1000, 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        client_leaves(&clients[i]);
    }
    service_turn(service, 1000, 0);
    service_free(service);
    for (unsigned i = 0; i < CHILDREN; i++) {
        if (children[i].pid && !children[i].ended) {
            end_child(&children[i]);
        }
    }
    for (int late; (late = accept(listener, NULL, NULL)) >= 0;) {
        close(late);
    }
    fuzz_check_descriptors();
    return 0;
}
