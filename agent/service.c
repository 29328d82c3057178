#include "agent/service.h"

#include "agent/session.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h> /* wants sys/socket.h */

#define CONNECTIONS_MAX SESSIONS_MAX
#define INCOMING_MAX    (sizeof(struct agent_header) + AGENT_FRAME_MAX)
#define OUTGOING_MAX    (2 * (AGENT_DATA_MAX + 64))
#define POLLS_MAX       (2 + CONNECTIONS_MAX + 3 * SESSIONS_MAX)
#define CONFIRM_LATE    (AGENT_KEPT_MAX / 4)

struct connection {
    int fd; /* -1: free */
    bool greeted;
    struct session *session;
    size_t incoming, outgoing; /* bytes in the buffers */
    uint8_t from[INCOMING_MAX], to[OUTGOING_MAX];
};

struct service {
    const struct agent *agent;
    int listener, signals;
    struct session sessions[SESSIONS_MAX];
    struct connection connections[CONNECTIONS_MAX];
    struct pollfd polls[POLLS_MAX];
};

static time_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

/* ---- Connections ---- */

static void leave(struct connection *connection)
{
    if (connection->session) {
        connection->session->connection = NULL;
        connection->session->left = now();
        if (!connection->session->started) {
            session_free(connection->session); /* nothing to come back for */
        }
    }
    close(connection->fd);
    connection->fd = -1;
    connection->session = NULL;
}

static void flush(struct connection *connection)
{
    ssize_t count =
        send(connection->fd, connection->to, connection->outgoing, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (count > 0) {
        connection->outgoing -= (size_t)count;
        memmove(connection->to, connection->to + count, connection->outgoing);
    } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
        leave(connection);
    }
}

/* Whether a frame with so many bytes has room. */
static bool has_room(const struct connection *connection, size_t bytes)
{
    return OUTGOING_MAX - connection->outgoing >= sizeof(struct agent_header) + bytes;
}

/* A frame in two parts; the caller has asked for room. */
static void queue(struct connection *connection, enum agent_frame_type type, const void *head,
                  size_t head_size, const void *rest, size_t rest_size)
{
    const struct agent_header header = {.length = (uint32_t)(head_size + rest_size),
                                        .type = (uint8_t)type};
    uint8_t *to = connection->to + connection->outgoing;

    memcpy(to, &header, sizeof(header));
    memcpy(to + sizeof(header), head, head_size);
    if (rest_size) {
        memcpy(to + sizeof(header) + head_size, rest, rest_size);
    }
    connection->outgoing += sizeof(header) + head_size + rest_size;
}

static void send_failure(struct connection *connection, int cause)
{
    const struct agent_failed failure = {.cause = (uint32_t)cause};
    const char *text = strerror(cause);

    if (has_room(connection, sizeof(failure) + strlen(text))) {
        queue(connection, AGENT_FAILED, &failure, sizeof(failure), text, strlen(text));
    }
}

/* ---- Frames ---- */

static bool take_hello(struct service *service, struct connection *connection, const uint8_t *frame,
                       size_t length)
{
    struct agent_hello hello;

    if (connection->greeted || length != sizeof(hello)) {
        return false;
    }
    memcpy(&hello, frame, sizeof(hello));
    if (hello.magic != AGENT_MAGIC || !has_room(connection, sizeof(struct agent_welcome))) {
        return false; /* without room: it was refused often, and does not listen */
    }
    struct session *session = session_find(service->sessions, hello.token);
    struct agent_welcome welcome = {.version = AGENT_VERSION, .known = session != NULL};
    if (!session) {
        session = session_new(service->sessions, hello.token);
    } else if (!session_confirm(session, hello.received)) {
        return false;
    }
    if (!session) {
        send_failure(connection, EAGAIN);
        return true;
    }
    if (session->connection) {
        session->connection->session = NULL; /* its client has come back by another way */
        leave(session->connection);
    }
    connection->greeted = true;
    connection->session = session;
    session->connection = connection;
    session->told = false;
    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        session->sent[i] = session->keep[i].first;
    }
    welcome.received = session->keep_input.first + session->keep_input.length;
    queue(connection, AGENT_WELCOME, &welcome, sizeof(welcome), NULL, 0);
    return true;
}

static bool take_start(const struct service *service, struct connection *connection,
                       const uint8_t *frame, size_t length)
{
    struct session *session = connection->session;

    if (session->started) {
        return false;
    }
    int cause = session_start(session, service->agent, frame, length);
    if (cause) {
        send_failure(connection, cause);
    }
    return true;
}

static bool take_input(struct session *session, const uint8_t *frame, size_t length)
{
    struct agent_data data;

    if (length < sizeof(data) || length - sizeof(data) > AGENT_DATA_MAX) {
        return false;
    }
    memcpy(&data, frame, sizeof(data));
    return session_input(session, data.at, frame + sizeof(data), length - sizeof(data));
}

/* Copy a frame of fixed size. */
static bool take_whole(void *to, size_t size, const uint8_t *frame, size_t length)
{
    if (length != size) {
        return false;
    }
    memcpy(to, frame, size);
    return true;
}

/* False: the client breaks the rules. */
static bool take_frame(struct service *service, struct connection *connection, uint8_t type,
                       const uint8_t *frame, size_t length)
{
    struct session *session = connection->session;
    struct agent_confirm confirm;
    struct agent_window window;
    struct agent_signal number;

    if (type == AGENT_HELLO) {
        return take_hello(service, connection, frame, length);
    }
    if (!session) {
        return false;
    }
    switch (type) {
    case AGENT_START:
        return take_start(service, connection, frame, length);
    case AGENT_INPUT:
        return take_input(session, frame, length);
    case AGENT_CONFIRM:
        return take_whole(&confirm, sizeof(confirm), frame, length) &&
               session_confirm(session, confirm.received);
    case AGENT_WINDOW:
        if (!take_whole(&window, sizeof(window), frame, length)) {
            return false;
        }
        session_window(session, &window);
        return true;
    case AGENT_SIGNAL:
        if (!take_whole(&number, sizeof(number), frame, length)) {
            return false;
        }
        session_signal(session, number.number);
        return true;
    case AGENT_BYE:
        connection->session = NULL;
        session->connection = NULL;
        session_free(session);
        return false; /* and so the connection ends */
    default:
        return false;
    }
}

static void receive(struct service *service, struct connection *connection)
{
    ssize_t count = recv(connection->fd, connection->from + connection->incoming,
                         INCOMING_MAX - connection->incoming, MSG_DONTWAIT);

    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
        leave(connection);
        return;
    }
    connection->incoming += count > 0 ? (size_t)count : 0;
    size_t done = 0;
    while (connection->fd >= 0 && connection->incoming - done >= sizeof(struct agent_header)) {
        struct agent_header header;
        memcpy(&header, connection->from + done, sizeof(header));
        if (header.length > AGENT_FRAME_MAX) {
            leave(connection);
            return;
        }
        if (connection->incoming - done < sizeof(header) + header.length) {
            break;
        }
        const uint8_t *frame = connection->from + done + sizeof(header);
        done += sizeof(header) + header.length;
        if (!take_frame(service, connection, header.type, frame, header.length)) {
            leave(connection);
            return;
        }
    }
    connection->incoming -= done;
    memmove(connection->from, connection->from + done, connection->incoming);
}

/* Over a vsock, the host alone: a process of the guest may reach us, too, where the kernel has the
 * loopback for it, and what we do is root's. */
static bool is_welcome(const struct service *service, const struct sockaddr_storage *peer)
{
    struct sockaddr_vm address;

    memcpy(&address, peer, sizeof(address));
    return !service->agent->in_guest ||
           (peer->ss_family == AF_VSOCK && address.svm_cid == VMADDR_CID_HOST);
}

static void accept_client(struct service *service)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(peer);
    int fd =
        accept4(service->listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0 && !is_welcome(service, &peer)) {
        close(fd);
        return;
    }
    for (unsigned i = 0; fd >= 0 && i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &service->connections[i];
        if (connection->fd < 0) {
            connection->fd = fd;
            connection->greeted = false;
            connection->session = NULL;
            connection->incoming = connection->outgoing = 0;
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- Output for clients ---- */

static void send_output(struct connection *connection, struct session *session,
                        enum agent_stream stream)
{
    struct kept *kept = &session->keep[stream];
    uint8_t bytes[AGENT_DATA_MAX];

    while (session->sent[stream] < kept->first + kept->length &&
           has_room(connection, sizeof(struct agent_data) + sizeof(bytes))) {
        const struct agent_data data = {.at = session->sent[stream], .stream = stream};
        size_t count = kept_copy(kept, data.at, bytes, sizeof(bytes));
        queue(connection, AGENT_OUTPUT, &data, sizeof(data), bytes, count);
        session->sent[stream] += count;
    }
}

static bool all_sent(const struct session *session)
{
    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        if (session->sent[i] != session->keep[i].first + session->keep[i].length) {
            return false;
        }
    }
    return true;
}

static void serve(struct session *session)
{
    struct connection *connection = session->connection;
    const struct agent_confirm confirm = {.received = {session->keep_input.first}};

    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        send_output(connection, session, (enum agent_stream)i);
    }
    if (session->keep_input.first - session->input_confirmed >= CONFIRM_LATE &&
        has_room(connection, sizeof(confirm))) {
        session->input_confirmed = session->keep_input.first;
        queue(connection, AGENT_CONFIRM, &confirm, sizeof(confirm), NULL, 0);
    }
    if (session->ended && !session->told && session_drained(session) && all_sent(session) &&
        has_room(connection, sizeof(session->end))) {
        session->told = true;
        queue(connection, AGENT_ENDED, &session->end, sizeof(session->end), NULL, 0);
    }
}

/* ---- The loop ---- */

static void reap(struct service *service)
{
    struct signalfd_siginfo info;
    pid_t child;
    int status;

    while (read(service->signals, &info, sizeof(info)) > 0) {
    }
    while ((child = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < SESSIONS_MAX; i++) {
            struct session *session = &service->sessions[i];
            if (session->used && session->child == child) {
                session_reaped(session, status);
            }
        }
    }
}

static void watch(struct pollfd *polls, unsigned *count, int fd, short events)
{
    polls[(*count)++] = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

/* The fixed places of the list: listener, signals, connections, then three for each session. */
static unsigned list(struct service *service)
{
    struct pollfd *polls = service->polls;
    unsigned count = 0;

    watch(polls, &count, service->listener, POLLIN);
    watch(polls, &count, service->signals, POLLIN);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &service->connections[i];
        watch(polls, &count, connection->fd, connection->outgoing ? POLLIN | POLLOUT : POLLIN);
    }
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = &service->sessions[i];
        bool input = session->used && (session->keep_input.length || session->input_over);
        watch(polls, &count, session->used ? session->input : -1, input ? POLLOUT : 0);
        for (unsigned s = 0; s < AGENT_STREAMS; s++) {
            bool room = session->used && session->keep[s].length < AGENT_KEPT_MAX;
            watch(polls, &count, session->used ? session->output[s] : -1, room ? POLLIN : 0);
        }
    }
    return count;
}

static void serve_all(struct service *service)
{
    const struct pollfd *polls = service->polls, *at = polls + 2 + CONNECTIONS_MAX;

    for (unsigned i = 0; i < SESSIONS_MAX; i++, at += 3) {
        struct session *session = &service->sessions[i];
        if (!session->used) {
            continue;
        }
        if (at[0].revents) {
            session_write_input(session);
        }
        for (unsigned s = 0; s < AGENT_STREAMS; s++) {
            if (at[1 + s].revents) {
                session_read_output(session, (enum agent_stream)s);
            }
        }
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (service->connections[i].fd >= 0 && polls[2 + i].revents) {
            receive(service, &service->connections[i]);
        }
    }
    if (polls[1].revents) {
        reap(service);
    }
    if (polls[0].revents) {
        accept_client(service);
    }
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = &service->sessions[i];
        if (session->used && session->connection) {
            serve(session);
        }
    }
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (service->connections[i].fd >= 0 && service->connections[i].outgoing) {
            flush(&service->connections[i]);
        }
    }
}

static void end_abandoned(struct service *service, time_t patience)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = &service->sessions[i];
        if (session->used && !session->connection && now() - session->left > patience) {
            session_free(session);
        }
    }
}

int service_turn(struct service *service, time_t patience, int wait_ms)
{
    if (poll(service->polls, list(service), wait_ms) < 0) {
        return errno == EINTR ? 0 : errno;
    }
    serve_all(service);
    end_abandoned(service, patience);
    return 0;
}

/* ---- Life ---- */

struct service *service_new(int listener, int signals, const struct agent *agent)
{
    struct service *service = calloc(1, sizeof(*service));

    if (!service) {
        return NULL;
    }
    service->listener = listener;
    service->signals = signals;
    service->agent = agent;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        service->connections[i].fd = -1;
    }
    return service;
}

void service_free(struct service *service)
{
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (service->connections[i].fd >= 0) {
            leave(&service->connections[i]);
        }
    }
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        if (service->sessions[i].used) {
            session_free(&service->sessions[i]);
        }
    }
    free(service);
}
