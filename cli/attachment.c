#include "cli/attachment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* poll(2) promises room for this much in a pipe, so that writing it never blocks. Standard output
 * is shared with the shell, so it is not made non-blocking. */
#define OUTPUT_PIECE 4096
/* Read of standard input ahead of the guest. */
#define INPUT_AHEAD 4096u
/* When the console's queue of clients is full. */
#define RETRY_MS 50

void attachment_open(struct attachment *attachment, bool detach_at_once, bool read_only)
{
    *attachment = (struct attachment){
        .console = -1,
        .refused = true,
        .read_only = read_only,
        .input = read_only && isatty(STDIN_FILENO) != 1 ? -1 : STDIN_FILENO,
        .output = STDOUT_FILENO,
        .escape = {.detach_at_once = detach_at_once},
    };
    terminal_open(&attachment->terminal, STDIN_FILENO);
}

static void close_console(struct attachment *attachment)
{
    if (attachment->console >= 0) {
        close(attachment->console);
        attachment->console = -1;
    }
}

void attachment_close(struct attachment *attachment)
{
    terminal_restore(&attachment->terminal);
    close_console(attachment);
}

/* ---- Connecting ---- */

/* A console's path may be longer than a socket address holds; its directory is then reached through
 * *directory, which stays open until the connection is made. 0 or a negative errno. */
static int console_address(const char *path, struct sockaddr_un *address, int *directory)
{
    const char *base = strrchr(path, '/');
    char name[4096];

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) < sizeof(address->sun_path)) {
        memcpy(address->sun_path, path, strlen(path) + 1);
        return 0;
    }
    if (base == NULL || (size_t)(base - path) >= sizeof(name)) {
        return -ENAMETOOLONG;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(base - path), path);
    *directory = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*directory < 0) {
        return -errno;
    }
    int length = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d%s",
                          *directory, base);
    return length < (int)sizeof(address->sun_path) ? 0 : -ENAMETOOLONG;
}

/* Connect *fd to a console. 0 or a negative errno. */
static int console_connect(const char *path, int *fd)
{
    struct sockaddr_un address;
    int directory = -1;
    int result = console_address(path, &address, &directory);

    *fd = result == 0 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (result == 0 &&
        (*fd < 0 || connect(*fd, (const struct sockaddr *)&address, sizeof(address)) < 0)) {
        result = -errno;
    }
    if (directory >= 0) {
        close(directory);
    }
    return result;
}

/* Connect and introduce ourselves. 0 or a negative errno. */
static int console_greet(struct attachment *attachment, uint32_t flags)
{
    const struct console_hello hello = {
        .magic = CONSOLE_MAGIC,
        .flags = attachment->flags | flags,
        .id = attachment->id,
        .output = attachment->position,
        .input = attachment->input_sent,
    };
    const int buffer = CONSOLE_SOCKET_BUFFER;
    int fd = -1;
    int result = console_connect(attachment->path, &fd);

    if (result == 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
        if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello)) {
            result = -errno;
        }
    }
    if (result != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return result;
    }
    close_console(attachment);
    attachment->console = fd;
    attachment->refused = attachment->welcomed = attachment->broken = false;
    attachment->welcome_size = 0;
    attachment->size_due = attachment->tells_size;
    return 0;
}

void attachment_tell_size(struct attachment *attachment)
{
    attachment->tells_size = attachment->terminal.present && !attachment->read_only;
    attachment->size_due = attachment->tells_size;
}

/* By a connection of its own, so that input stays what was typed. */
static void send_size(struct attachment *attachment)
{
    struct winsize size;
    int fd = -1, result = 0;

    if (ioctl(attachment->terminal.fd, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
        const struct console_hello hello = {.magic = CONSOLE_MAGIC,
                                            .flags = CONSOLE_SIZE | CONSOLE_SKIP_BACKLOG,
                                            .output = size.ws_col,
                                            .input = size.ws_row};

        result = console_connect(attachment->path, &fd);
        if (result == 0) {
            send(fd, &hello, sizeof(hello), MSG_NOSIGNAL);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    attachment->size_due = result == -EAGAIN;
}

int attachment_connect(struct attachment *attachment, const char *path, uint32_t flags,
                       struct error *err)
{
    int cause = 0;

    if (strlen(path) >= sizeof(attachment->path)) {
        cause = ENAMETOOLONG;
    } else if (getrandom(&attachment->id, sizeof(attachment->id), 0) !=
               (ssize_t)sizeof(attachment->id)) {
        cause = errno;
    } else {
        attachment->id |= 1; /* 0 is nobody */
        attachment->flags = flags;
        memcpy(attachment->path, path, strlen(path) + 1);
        cause = -console_greet(attachment, 0);
    }
    if (cause != 0) {
        attachment->path[0] = '\0';
        enum error_code code = cause == EACCES ? ERROR_PERMISSION : ERROR_CONNECT;

        return error_set(err, code, cause, "cannot attach to the console %s: %s", path,
                         strerror(cause));
    }
    return 0;
}

int attachment_reconnect(struct attachment *attachment)
{
    int result = attachment->path[0] == '\0'
                     ? -ENOENT
                     : console_greet(attachment, attachment->known ? CONSOLE_RESUME : 0);

    /* Too many at once is nobody's refusal. */
    attachment->refused = result != 0 && result != -EAGAIN;
    return result;
}

bool attachment_served(const struct attachment *attachment)
{
    return attachment->console >= 0 && attachment->welcomed;
}

/* ---- Copying ---- */

/* The connection broke: the console's process died, or the machine ended. */
static void lose_console(struct attachment *attachment)
{
    close_console(attachment);
    attachment_reconnect(attachment);
}

/* The console says where its output goes on, and our input. */
static void take_welcome(struct attachment *attachment)
{
    const struct console_welcome *welcome = &attachment->welcome;
    uint64_t oldest =
        attachment->input_end < CONSOLE_INPUT_KEPT ? 0 : attachment->input_end - CONSOLE_INPUT_KEPT;

    if (welcome->magic != CONSOLE_MAGIC) {
        close_console(attachment);
        attachment->refused = true;
        return;
    }
    if (attachment->known && welcome->output > attachment->position) {
        attachment->lost += welcome->output - attachment->position;
    }
    attachment->position = welcome->output;
    if (welcome->input >= oldest && welcome->input <= attachment->input_end) {
        attachment->input_sent = welcome->input;
    }
    attachment->welcomed = attachment->known = true;
}

static void read_welcome(struct attachment *attachment)
{
    size_t have = attachment->welcome_size;
    ssize_t count = read(attachment->console, (char *)&attachment->welcome + have,
                         sizeof(attachment->welcome) - have);

    if (count > 0) {
        attachment->welcome_size += (size_t)count;
        if (attachment->welcome_size == sizeof(attachment->welcome)) {
            take_welcome(attachment);
        }
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        lose_console(attachment);
    }
}

static void read_console(struct attachment *attachment)
{
    if (!attachment->welcomed) {
        read_welcome(attachment);
        return;
    }
    ssize_t count = read(attachment->console, attachment->to_output, sizeof(attachment->to_output));

    if (count > 0) {
        attachment->to_output_start = 0;
        attachment->to_output_end = (size_t)count;
        attachment->position += (uint64_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        lose_console(attachment);
    }
}

static void write_output(struct attachment *attachment)
{
    size_t left = attachment->to_output_end - attachment->to_output_start;
    ssize_t count = write(attachment->output, attachment->to_output + attachment->to_output_start,
                          left < OUTPUT_PIECE ? left : OUTPUT_PIECE);

    if (count > 0) {
        attachment->to_output_start += (size_t)count;
        attachment->moved += (uint64_t)count;
    } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
        attachment->output_error = errno;
        attachment->output = -1;
    }
}

static size_t input_room(const struct attachment *attachment)
{
    uint64_t unsent = attachment->input_end - attachment->input_sent;
    return unsent < INPUT_AHEAD ? (size_t)(INPUT_AHEAD - unsent) : 0;
}

/* There is room. */
static void keep_input(struct attachment *attachment, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        attachment->to_guest[attachment->input_end++ % CONSOLE_INPUT_KEPT] = bytes[i];
    }
}

/* Keys for vmctl are taken out of what is typed, and typing is read even while the guest takes
 * nothing, so that one can always leave. A file may contain any byte: it is copied as it is. */
static void read_keys(struct attachment *attachment)
{
    char keys[256];
    ssize_t count = read(attachment->input, keys, sizeof(keys));
    size_t done = 0;

    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        attachment->input = -1;
    }
    while (count > 0 && done < (size_t)count) {
        size_t used = 0, kept = 0;
        enum escape_action action =
            escape_filter(&attachment->escape, keys + done, (size_t)count - done, &used, &kept);
        size_t room = input_room(attachment);

        attachment->action = action > attachment->action ? action : attachment->action;
        if (attachment->refused || attachment->read_only) {
            kept = 0;
        }
        keep_input(attachment, keys + done, kept < room ? kept : room);
        done += used;
    }
}

static void read_input(struct attachment *attachment)
{
    char bytes[INPUT_AHEAD];

    if (attachment->terminal.raw) {
        read_keys(attachment);
        return;
    }
    ssize_t count = read(attachment->input, bytes, input_room(attachment));

    if (count > 0) {
        keep_input(attachment, bytes, (size_t)count);
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        attachment->input = -1;
    }
}

static void write_console(struct attachment *attachment)
{
    size_t at = attachment->input_sent % CONSOLE_INPUT_KEPT;
    size_t left = (size_t)(attachment->input_end - attachment->input_sent);
    size_t whole = CONSOLE_INPUT_KEPT - at < left ? CONSOLE_INPUT_KEPT - at : left;
    ssize_t count =
        send(attachment->console, attachment->to_guest + at, whole, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (count > 0) {
        attachment->input_sent += (uint64_t)count;
    } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
        /* Reading may still find what was sent before the end, and then finds the end. */
        attachment->broken = true;
    }
}

static bool has_output(const struct attachment *attachment)
{
    return attachment->to_output_start < attachment->to_output_end;
}

static bool has_input(const struct attachment *attachment)
{
    return attachment->input_sent < attachment->input_end && attachment->welcomed &&
           !attachment->broken;
}

bool attachment_drained(const struct attachment *attachment)
{
    return attachment->output < 0 || (attachment->refused && !has_output(attachment));
}

enum { CONSOLE, INPUT, OUTPUT, OWN_COUNT };

static void fill_polls(const struct attachment *attachment, struct pollfd own[OWN_COUNT])
{
    bool wants_input = attachment->terminal.raw ||
                       (!attachment->refused && attachment->input_sent == attachment->input_end);
    bool reads_input = wants_input && terminal_readable(&attachment->terminal);

    own[CONSOLE] = (struct pollfd){
        .fd = attachment->console,
        .events =
            (short)((has_output(attachment) ? 0 : POLLIN) | (has_input(attachment) ? POLLOUT : 0)),
    };
    /* A console that has hung up would wake us for ever while standard output is slow. */
    if (own[CONSOLE].events == 0) {
        own[CONSOLE].fd = -1;
    }
    own[INPUT] = (struct pollfd){.fd = reads_input ? attachment->input : -1, .events = POLLIN};
    own[OUTPUT] = (struct pollfd){.fd = attachment->output,
                                  .events = (short)(has_output(attachment) ? POLLOUT : 0)};
}

void attachment_poll(struct attachment *attachment, struct pollfd *watched, size_t watched_count,
                     int timeout_ms)
{
    struct pollfd polls[OWN_COUNT + ATTACHMENT_WATCH_MAX];

    if (attachment->console < 0 && !attachment->refused &&
        attachment_reconnect(attachment) == -EAGAIN && (timeout_ms < 0 || timeout_ms > RETRY_MS)) {
        timeout_ms = RETRY_MS;
    }
    if (attachment->size_due && attachment->console >= 0) {
        send_size(attachment);
        if (attachment->size_due && (timeout_ms < 0 || timeout_ms > RETRY_MS)) {
            timeout_ms = RETRY_MS;
        }
    }
    fill_polls(attachment, polls);
    for (size_t i = 0; i < watched_count; i++) {
        polls[OWN_COUNT + i] = watched[i];
    }
    int ready = poll(polls, OWN_COUNT + watched_count, timeout_ms);

    for (size_t i = 0; i < watched_count; i++) {
        watched[i].revents = ready > 0 ? polls[OWN_COUNT + i].revents : 0;
    }
    if (ready <= 0) {
        return;
    }
    if ((polls[INPUT].revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) != 0) {
        read_input(attachment);
    }
    if (attachment->console >= 0 && has_input(attachment) &&
        (polls[CONSOLE].revents & (POLLOUT | POLLHUP | POLLERR)) != 0) {
        write_console(attachment);
    }
    if (attachment->console >= 0 && !has_output(attachment) &&
        (polls[CONSOLE].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
        read_console(attachment);
    }
    /* A reader that went away shows even while the guest is silent. */
    if ((polls[OUTPUT].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
        attachment->output_error = EPIPE;
        attachment->output = -1;
    } else if (has_output(attachment) && (polls[OUTPUT].revents & POLLOUT) != 0) {
        write_output(attachment);
    }
}
