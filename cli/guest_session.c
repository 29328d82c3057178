#include "cli/guest_session.h"

#include "libshared/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RECONNECT_MS 30000u /* how long a connection that ended is made again */
#define ALWAYS_MS    2000u  /* the vsock's process may just be starting again */
#define RETRY_MS     100u
#define LOOK_MS      500 /* at the terminal's size */
#define GREETING_MS  10000
#define GREETING_MAX 64 /* bytes of "OK PORT" and its end */
#define INCOMING_MAX (sizeof(struct agent_header) + AGENT_FRAME_MAX)
#define OUTGOING_MAX (2 * (AGENT_DATA_MAX + 64))
#define WRITE_MAX    4096 /* what a pipe that is ready takes without waiting */
#define CONFIRM_LATE (AGENT_KEPT_MAX / 4)
/* Who sends so many signals in that time wants an end, whatever the guest makes of them. */
#define SIGNALS_END 3
#define INSIST_NS   (3000 * NS_PER_MS)

/* Output that came and is not written yet. */
struct pending {
    uint8_t bytes[AGENT_KEPT_MAX];
    uint32_t head, length;
    uint64_t written, confirmed; /* numbers of bytes */
    uint8_t before;              /* the last byte written */
};

/* Why no further connection is of use. */
enum failure {
    FAILURE_NONE,
    FAILURE_FORGOTTEN, /* another agent than the one that started the command */
    FAILURE_VERSION,   /* it speaks another version of the protocol */
    FAILURE_NONSENSE,  /* it breaks the rules */
};

struct session {
    const struct guest_command *command;
    struct guest_outcome *outcome;
    const char *path;
    uint8_t token[AGENT_TOKEN];
    int fd;   /* -1: not connected */
    bool met; /* there is, or was, an agent */
    bool greeted, started, over;
    enum failure failure;
    uint32_t version;                       /* that the agent speaks */
    uint64_t give_up_ns;                    /* while there is no connection */
    uint64_t end_ns;                        /* of all of it */
    uint64_t signalled_ns[SIGNALS_END - 1]; /* the last ones, the latest first */
    bool input_open, input_over_told;
    uint8_t input[AGENT_KEPT_MAX]; /* a ring of what the agent's command has not taken */
    uint64_t input_first, input_sent, input_end;
    struct pending pending[AGENT_STREAMS];
    struct winsize window;
    size_t incoming, outgoing;
    uint8_t from[INCOMING_MAX], to[OUTGOING_MAX];
};

/* ---- Sending ---- */

static bool has_room(const struct session *session, size_t bytes)
{
    return OUTGOING_MAX - session->outgoing >= sizeof(struct agent_header) + bytes;
}

static void queue(struct session *session, enum agent_frame_type type, const void *head,
                  size_t head_size, const void *rest, size_t rest_size)
{
    const struct agent_header header = {.length = (uint32_t)(head_size + rest_size),
                                        .type = (uint8_t)type};
    uint8_t *to = session->to + session->outgoing;

    memcpy(to, &header, sizeof(header));
    if (head_size) {
        memcpy(to + sizeof(header), head, head_size);
    }
    if (rest_size) {
        memcpy(to + sizeof(header) + head_size, rest, rest_size);
    }
    session->outgoing += sizeof(header) + head_size + rest_size;
}

static void disconnect(struct session *session)
{
    if (session->fd >= 0) {
        close(session->fd);
    }
    session->fd = -1;
    session->greeted = false;
    session->incoming = session->outgoing = 0;
}

static void flush(struct session *session)
{
    ssize_t count = send(session->fd, session->to, session->outgoing, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (count > 0) {
        session->outgoing -= (size_t)count;
        memmove(session->to, session->to + count, session->outgoing);
    } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
        disconnect(session);
    }
}

/* The words of the command, its environment and its folder behind the frame's fixed part. 0, or -1
 * when they are too many. */
static int start(struct session *session)
{
    const struct guest_command *command = session->command;
    struct agent_start head = {
        .flags = command->flags, .rows = session->window.ws_row, .columns = session->window.ws_col};
    static const char *const none[] = {NULL};
    const char *const *lists[] = {command->arguments,
                                  command->variables ? command->variables : none};
    uint32_t *const counts[] = {&head.arguments, &head.variables};
    static char words[AGENT_FRAME_MAX - sizeof(head)];
    size_t length = 0;

    for (unsigned list = 0; list < 2; list++) {
        for (const char *const *word = lists[list]; *word; word++) {
            size_t size = strlen(*word) + 1;
            if (size > sizeof(words) - length) {
                return -1;
            }
            memcpy(words + length, *word, size);
            length += size;
            ++*counts[list];
        }
    }
    const char *folder = command->folder ? command->folder : "";
    size_t size = strlen(folder) + 1;
    if (size > sizeof(words) - length || head.arguments > AGENT_WORDS_MAX ||
        head.variables > AGENT_WORDS_MAX) {
        return -1;
    }
    memcpy(words + length, folder, size);
    queue(session, AGENT_START, &head, sizeof(head), words, length + size);
    return 0;
}

static void send_input(struct session *session)
{
    uint8_t bytes[AGENT_DATA_MAX];
    struct agent_data data = {.at = 0};

    while (session->input_sent < session->input_end &&
           has_room(session, sizeof(data) + sizeof(bytes))) {
        size_t count = 0;
        data.at = session->input_sent;
        while (count < sizeof(bytes) && session->input_sent < session->input_end) {
            bytes[count++] = session->input[session->input_sent++ % AGENT_KEPT_MAX];
        }
        queue(session, AGENT_INPUT, &data, sizeof(data), bytes, count);
    }
    if (!session->input_open && !session->input_over_told &&
        session->input_sent == session->input_end && has_room(session, sizeof(data))) {
        session->input_over_told = true;
        data.at = session->input_end;
        queue(session, AGENT_INPUT, &data, sizeof(data), NULL, 0);
    }
}

static void confirm_output(struct session *session)
{
    struct agent_confirm confirm;
    bool late = false;

    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        const struct pending *pending = &session->pending[i];
        confirm.received[i] = pending->written;
        late |= pending->written - pending->confirmed >= CONFIRM_LATE;
    }
    if (late && has_room(session, sizeof(confirm))) {
        for (unsigned i = 0; i < AGENT_STREAMS; i++) {
            session->pending[i].confirmed = confirm.received[i];
        }
        queue(session, AGENT_CONFIRM, &confirm, sizeof(confirm), NULL, 0);
    }
}

static void send_window(struct session *session)
{
    struct winsize now = {0};

    if (!(session->command->flags & AGENT_START_TERMINAL) ||
        ioctl(STDIN_FILENO, TIOCGWINSZ, &now) < 0 ||
        (now.ws_row == session->window.ws_row && now.ws_col == session->window.ws_col)) {
        return;
    }
    const struct agent_window window = {.rows = now.ws_row, .columns = now.ws_col};
    session->window = now;
    if (session->greeted && has_room(session, sizeof(window))) {
        queue(session, AGENT_WINDOW, &window, sizeof(window), NULL, 0);
    }
}

/* ---- Receiving: a frame that makes no sense ends all ---- */

static bool take_welcome(struct session *session, const uint8_t *frame, size_t length)
{
    struct agent_welcome welcome;

    if (session->greeted || length != sizeof(welcome)) {
        return false;
    }
    memcpy(&welcome, frame, sizeof(welcome));
    session->greeted = session->outcome->answered = true;
    if (welcome.version != AGENT_VERSION) {
        session->version = welcome.version;
        session->failure = FAILURE_VERSION;
        return true;
    }
    if (!welcome.known && session->started) {
        session->failure = FAILURE_FORGOTTEN;
        return true;
    }
    if (welcome.received < session->input_first || welcome.received > session->input_end) {
        return false;
    }
    session->input_sent = welcome.received;
    session->input_over_told = false;
    if (!welcome.known && start(session) < 0) {
        session->outcome->cause = E2BIG;
        session->over = true;
    }
    return true;
}

static bool take_output(struct session *session, const uint8_t *frame, size_t length)
{
    struct agent_data data;

    if (length < sizeof(data)) {
        return false;
    }
    memcpy(&data, frame, sizeof(data));
    frame += sizeof(data);
    length -= sizeof(data);
    if (data.stream >= AGENT_STREAMS) {
        return false;
    }
    struct pending *pending = &session->pending[data.stream];
    uint64_t expected = pending->written + pending->length;
    if (data.at > expected) {
        return false;
    }
    if (expected - data.at >= length) {
        return true; /* had it already */
    }
    frame += expected - data.at;
    length -= (size_t)(expected - data.at);
    if (length > AGENT_KEPT_MAX - pending->length) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        pending->bytes[(pending->head + pending->length++) % AGENT_KEPT_MAX] = frame[i];
    }
    session->started = true;
    return true;
}

static bool take_confirm(struct session *session, const uint8_t *frame, size_t length)
{
    struct agent_confirm confirm;

    if (length != sizeof(confirm)) {
        return false;
    }
    memcpy(&confirm, frame, sizeof(confirm));
    if (confirm.received[0] < session->input_first || confirm.received[0] > session->input_sent) {
        return false;
    }
    session->input_first = confirm.received[0];
    session->started = true;
    return true;
}

static bool take_ended(struct session *session, const uint8_t *frame, size_t length)
{
    struct agent_ended ended;

    if (length != sizeof(ended)) {
        return false;
    }
    memcpy(&ended, frame, sizeof(ended));
    session->outcome->by_signal = ended.by_signal != 0;
    session->outcome->status = ended.status;
    session->over = true;
    return true;
}

static bool take_failed(struct session *session, const uint8_t *frame, size_t length)
{
    struct agent_failed failed;

    if (length < sizeof(failed)) {
        return false;
    }
    memcpy(&failed, frame, sizeof(failed));
    session->outcome->cause = failed.cause ? (int)failed.cause : EPROTO;
    session->over = true;
    return true;
}

static bool take_frame(struct session *session, uint8_t type, const uint8_t *frame, size_t length)
{
    static bool (*const takers[])(struct session *, const uint8_t *, size_t) = {
        [AGENT_WELCOME] = take_welcome, [AGENT_OUTPUT] = take_output,
        [AGENT_CONFIRM] = take_confirm, [AGENT_ENDED] = take_ended,
        [AGENT_FAILED] = take_failed,
    };

    if (type >= sizeof(takers) / sizeof(takers[0]) || !takers[type] ||
        (!session->greeted && type != AGENT_WELCOME && type != AGENT_FAILED)) {
        return false;
    }
    return takers[type](session, frame, length);
}

static void end_nonsense(struct session *session)
{
    session->failure = FAILURE_NONSENSE;
    disconnect(session);
}

static void receive(struct session *session)
{
    ssize_t count = recv(session->fd, session->from + session->incoming,
                         INCOMING_MAX - session->incoming, MSG_DONTWAIT);
    size_t done = 0;

    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        disconnect(session);
        return;
    }
    session->incoming += count > 0 ? (size_t)count : 0;
    while (session->incoming - done >= sizeof(struct agent_header)) {
        struct agent_header header;
        memcpy(&header, session->from + done, sizeof(header));
        if (header.length > AGENT_FRAME_MAX) {
            end_nonsense(session);
            return;
        }
        if (session->incoming - done < sizeof(header) + header.length) {
            break;
        }
        const uint8_t *frame = session->from + done + sizeof(header);
        done += sizeof(header) + header.length;
        if (!take_frame(session, header.type, frame, header.length)) {
            end_nonsense(session);
            return;
        }
        if (session->failure) {
            return;
        }
    }
    session->incoming -= done;
    memmove(session->from, session->from + done, session->incoming);
}

/* ---- Our own streams ---- */

/* In the background of a terminal a read would stop us, signals to the command and all: a command
 * there goes on without input, until it is brought to the foreground. */
static bool input_readable(const struct session *session)
{
    const struct guest_command *command = session->command;

    return !command->terminal || terminal_readable(command->terminal);
}

static void read_input(struct session *session)
{
    uint32_t at = (uint32_t)(session->input_end % AGENT_KEPT_MAX);
    uint64_t room = AGENT_KEPT_MAX - (session->input_end - session->input_first);
    size_t most = AGENT_KEPT_MAX - at < room ? AGENT_KEPT_MAX - at : (size_t)room;
    ssize_t count = read(session->command->input, session->input + at, most);

    if (count > 0) {
        session->input_end += (uint64_t)count;
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        session->input_open = false;
    }
}

/* `before` is the byte before them. In UTF-8, 0xc2 0x80 to 0xc2 0x9f are control characters, too.
 */
static void make_printable(uint8_t *to, const uint8_t *from, size_t count, uint8_t before)
{
    for (size_t i = 0; i < count; before = from[i++]) {
        bool control = (from[i] < 0x20 && from[i] != '\n' && from[i] != '\t') || from[i] == 0x7f;
        bool wide_control = before == 0xc2 && from[i] >= 0x80 && from[i] < 0xa0;

        to[i] = control || wide_control ? '?' : from[i];
    }
}

/* 0, or errno: nobody takes it. */
static int write_output(struct pending *pending, int fd, bool printable)
{
    uint32_t together = AGENT_KEPT_MAX - pending->head;
    size_t most = pending->length < together ? pending->length : together;
    const uint8_t *bytes = pending->bytes + pending->head;
    uint8_t clean[WRITE_MAX];
    ssize_t count = (ssize_t)most;

    if (fd >= 0) {
        most = most < WRITE_MAX ? most : WRITE_MAX;
        if (printable) {
            make_printable(clean, bytes, most, pending->before);
        }
        count = write(fd, printable ? clean : bytes, most);
    }
    if (count < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : errno;
    }
    pending->before = count > 0 ? bytes[count - 1] : pending->before;
    pending->head = (pending->head + (uint32_t)count) % AGENT_KEPT_MAX;
    pending->length -= (uint32_t)count;
    pending->written += (uint64_t)count;
    return 0;
}

static bool all_written(const struct session *session)
{
    return session->pending[0].length == 0 && session->pending[1].length == 0;
}

/* ---- Connecting ---- */

static bool is_gone(const struct session *session)
{
    const struct guest_command *command = session->command;

    return command->gone && command->gone(command->gone_context);
}

/* A guest that is held up answers late, or never; until `deadline_ns`, or a signal. */
static bool wait_readable(const struct session *session, int fd, uint64_t deadline_ns)
{
    const struct signals *signals = session->command->signals;
    struct pollfd ready[] = {{.fd = fd, .events = POLLIN},
                             {.fd = signals ? signals->fd : -1, .events = POLLIN}};
    uint64_t now;

    while ((now = clock_monotonic_ns()) < deadline_ns && now < session->end_ns &&
           !is_gone(session)) {
        int count = poll(ready, 2, LOOK_MS);
        if (count > 0 || (count < 0 && errno != EINTR)) {
            return ready[0].revents != 0 && ready[1].revents == 0;
        }
    }
    return false;
}

/* "CONNECT PORT", "OK ...": -1 with errno set. */
static int dial(const struct session *session)
{
    const char *path = session->path;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char line[32];
    /* Connecting to who accepts nobody would wait, and no signal would end it. */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    uint64_t deadline_ns = clock_monotonic_ns() + GREETING_MS * NS_PER_MS;
    int length = snprintf(line, sizeof(line), "CONNECT %u\n", AGENT_PORT);

    if (fd < 0) {
        return -1;
    }
    size_t size = strnlen(path, sizeof(address.sun_path));
    memcpy(address.sun_path, path, size);
    errno = ENAMETOOLONG;
    if (size < sizeof(address.sun_path) &&
        connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        send(fd, line, (size_t)length, MSG_NOSIGNAL) == length) {
        char byte = 0;
        for (unsigned i = 0; i < GREETING_MAX && byte != '\n'; i++) {
            if (!wait_readable(session, fd, deadline_ns) || recv(fd, &byte, 1, 0) != 1) {
                break;
            }
        }
        if (byte == '\n') {
            return fd;
        }
        errno = ECONNREFUSED;
    }
    int cause = errno;
    close(fd);
    errno = cause;
    return -1;
}

static void greet(struct session *session)
{
    struct agent_hello hello = {.magic = AGENT_MAGIC, .version = AGENT_VERSION};

    memcpy(hello.token, session->token, AGENT_TOKEN);
    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        hello.received[i] = session->pending[i].written + session->pending[i].length;
    }
    queue(session, AGENT_HELLO, &hello, sizeof(hello), NULL, 0);
}

/* Once more, unless it is too late. 0 or a negative code with *err set. */
static int reconnect(struct session *session, struct error *err)
{
    uint64_t now = clock_monotonic_ns();

    if (!session->give_up_ns) {
        uint32_t wait_ms = session->met ? RECONNECT_MS : session->command->wait_ms;
        session->give_up_ns = now + (wait_ms < ALWAYS_MS ? ALWAYS_MS : wait_ms) * NS_PER_MS;
    }
    session->fd = dial(session);
    if (session->fd >= 0) {
        session->met = true;
        greet(session);
        return 0;
    }
    if (now < session->give_up_ns) {
        poll(NULL, 0, RETRY_MS);
        return 0;
    }
    if (errno == ENOENT || (errno == ECONNREFUSED && access(session->path, F_OK) != 0)) {
        error_set(err, ERROR_STATE, errno, "there is no vsock '%s'", session->path);
        error_hint(err, "is the machine running?");
        return -ERROR_STATE;
    }
    error_set(err, ERROR_TIMEOUT, errno, "the guest's agent does not answer");
    error_hint(err, "the guest must run polyvisor-agent; --wait 60s waits for it to start");
    return -ERROR_TIMEOUT;
}

/* ---- The loop ---- */

/* Is this signal the last of so many? A guest may take them all and go on. */
static bool insists(struct session *session)
{
    const unsigned kept = SIGNALS_END - 1;
    uint64_t now = clock_monotonic_ns(), first = session->signalled_ns[kept - 1];

    memmove(session->signalled_ns + 1, session->signalled_ns,
            (kept - 1) * sizeof(session->signalled_ns[0]));
    session->signalled_ns[0] = now;
    return first && now - first < INSIST_NS;
}

static void pass_signal(struct session *session, bool *impatient)
{
    int signal = signals_take(session->command->signals);
    const struct agent_signal number = {.number = (uint32_t)signal};

    if (signal == SIGTSTP && !(session->command->flags & AGENT_START_TERMINAL)) {
        signals_suspend();
    } else if (signals_end(signal)) {
        *impatient |= insists(session) || !session->greeted || session->outgoing > 0;
        if (session->greeted && has_room(session, sizeof(number))) {
            queue(session, AGENT_SIGNAL, &number, sizeof(number), NULL, 0);
        }
    }
}

enum { POLL_AGENT, POLL_INPUT, POLL_OUTPUT, POLL_ERROR, POLL_SIGNALS, POLLS };

static void list(const struct session *session, struct pollfd polls[POLLS])
{
    const struct guest_command *command = session->command;
    bool takes = session->greeted && session->input_open &&
                 session->input_end - session->input_first < AGENT_KEPT_MAX;

    for (unsigned i = 0; i < POLLS; i++) {
        polls[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    }
    polls[POLL_AGENT].fd = session->fd;
    polls[POLL_AGENT].events = session->outgoing ? POLLIN | POLLOUT : POLLIN;
    polls[POLL_INPUT].fd = takes && input_readable(session) ? command->input : -1;
    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        polls[POLL_OUTPUT + i].fd = session->pending[i].length ? command->output[i] : -1;
        polls[POLL_OUTPUT + i].events = POLLOUT;
    }
    polls[POLL_SIGNALS].fd = command->signals ? command->signals->fd : -1;
}

/* The command is not to wait for who does not come back: it is told as one whose reader has gone.
 * Its agent ends it by itself, too, if this does not reach it, but later. */
static void dismiss(struct session *session)
{
    const struct agent_signal number = {.number = SIGPIPE};

    if (session->fd < 0 || !session->greeted || session->over) {
        return;
    }
    flush(session);
    if (session->fd >= 0 && has_room(session, sizeof(number) + sizeof(struct agent_header))) {
        queue(session, AGENT_SIGNAL, &number, sizeof(number), NULL, 0);
        queue(session, AGENT_BYE, NULL, 0, NULL, 0);
        flush(session);
    }
}

static int write_outputs(struct session *session, const struct pollfd polls[POLLS],
                         struct error *err)
{
    const struct guest_command *command = session->command;

    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        struct pending *pending = &session->pending[i];
        bool ready = polls[POLL_OUTPUT + i].revents || command->output[i] < 0;
        if (!ready || !pending->length) {
            continue;
        }
        int cause = write_output(pending, command->output[i], command->printable[i]);
        if (cause) {
            return error_set(err, ERROR_IO, cause, "cannot write the command's output: %s",
                             strerror(cause));
        }
        int status = command->taken && i == AGENT_STDOUT
                         ? command->taken(command->taken_context, pending->written, err)
                         : 0;
        if (status != 0) {
            return status;
        }
    }
    return 0;
}

static int turn(struct session *session, bool *impatient, struct error *err)
{
    struct pollfd polls[POLLS];

    if (session->command->terminal && session->command->flags & AGENT_START_TERMINAL) {
        terminal_make_raw(session->command->terminal);
    }
    list(session, polls);
    bool discard = (session->pending[0].length && session->command->output[0] < 0) ||
                   (session->pending[1].length && session->command->output[1] < 0);
    if (poll(polls, POLLS, discard ? 0 : LOOK_MS) < 0 && errno != EINTR) {
        return error_set(err, ERROR_IO, errno, "cannot wait: %s", strerror(errno));
    }
    if (polls[POLL_SIGNALS].revents) {
        pass_signal(session, impatient);
    }
    if (polls[POLL_INPUT].revents) {
        read_input(session);
    }
    int status = write_outputs(session, polls, err);
    if (status != 0) {
        dismiss(session);
        return status;
    }
    if (polls[POLL_AGENT].revents) {
        receive(session);
    }
    send_window(session);
    if (session->greeted) {
        session->give_up_ns = 0;
        send_input(session);
        confirm_output(session);
    }
    if (session->fd >= 0 && session->outgoing) {
        flush(session);
    }
    return 0;
}

static int tell_failure(const struct session *session, struct error *err)
{
    switch (session->failure) {
    case FAILURE_VERSION:
        error_set(err, ERROR_PROTOCOL, 0,
                  "the guest's agent speaks version %u of its protocol, vmctl version %u",
                  session->version, AGENT_VERSION);
        error_hint(err, "put the polyvisor-agent that came with this vmctl into the guest, or "
                        "build its image again");
        return -ERROR_PROTOCOL;
    case FAILURE_NONSENSE:
        error_set(err, ERROR_PROTOCOL, 0, "the guest's agent says what makes no sense");
        error_hint(err, "is it polyvisor-agent that listens on port %u of the guest's vsock?",
                   AGENT_PORT);
        return -ERROR_PROTOCOL;
    default:
        error_set(err, ERROR_CRASHED, 0, "the guest's agent was started again meanwhile");
        error_hint(err, "nothing is known of what became of the command");
        return -ERROR_CRASHED;
    }
}

static int run(struct session *session, struct error *err)
{
    uint64_t limit_ns = session->command->limit_ms * NS_PER_MS;
    bool impatient = false;
    int status = 0;

    session->end_ns = limit_ns ? clock_monotonic_ns() + limit_ns : UINT64_MAX;
    while (status == 0 && !(session->over && all_written(session))) {
        if (session->failure) {
            return tell_failure(session, err);
        }
        if (is_gone(session)) {
            return error_set(err, ERROR_CRASHED, 0, "the machine ended before the command did");
        }
        if (clock_monotonic_ns() >= session->end_ns) {
            return error_set(err, ERROR_TIMEOUT, 0, "the guest has not done it in time");
        }
        if (impatient) {
            return error_set(err, ERROR_CANCELLED, 0, "the command was left to itself");
        }
        status = session->fd < 0 && !session->over ? reconnect(session, err) : 0;
        status = status ? status : turn(session, &impatient, err);
    }
    if (status == 0 && session->fd >= 0) {
        queue(session, AGENT_BYE, NULL, 0, NULL, 0);
        flush(session);
    }
    return status;
}

int guest_session_run(const char *path, const struct guest_command *command,
                      struct guest_outcome *outcome, struct error *err)
{
    struct session *session = calloc(1, sizeof(*session));

    *outcome = (struct guest_outcome){0};
    if (!session) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    session->command = command;
    session->outcome = outcome;
    session->path = path;
    session->fd = -1;
    session->input_open = command->input >= 0;
    if (getrandom(session->token, AGENT_TOKEN, 0) != AGENT_TOKEN) {
        free(session);
        return error_set(err, ERROR_IO, errno, "no random numbers: %s", strerror(errno));
    }
    if (command->flags & AGENT_START_TERMINAL) {
        ioctl(STDIN_FILENO, TIOCGWINSZ, &session->window);
    }
    int status = run(session, err);
    if (command->terminal) {
        terminal_restore(command->terminal);
    }
    disconnect(session);
    free(session);
    return status;
}

bool guest_power_off(const char *path, bool (*gone)(void *context), void *context,
                     struct guest_outcome *outcome)
{
    static const char *const words[] = {"poweroff", NULL};
    const struct guest_command command = {
        .flags = AGENT_START_BUILTIN,
        .arguments = words,
        .input = -1,
        .output = {-1, -1},
        .gone = gone,
        .gone_context = context,
    };
    struct error ignored;
    int status = guest_session_run(path, &command, outcome, &ignored);

    return outcome->answered && !outcome->cause && !outcome->by_signal &&
           (status != 0 || outcome->status == 0);
}

int guest_exit_status(const struct guest_outcome *outcome, const char *what, struct error *err)
{
    if (outcome->cause) {
        error_set(err, ERROR_GUEST, outcome->cause, "the guest cannot run '%.100s': %s", what,
                  strerror(outcome->cause));
        return outcome->cause == ENOENT ? 127 : 126;
    }
    return (int)(outcome->by_signal ? 128 + (outcome->status & 0x7f) : outcome->status & 0xff);
}
