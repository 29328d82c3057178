#include "agent/session.h"

#include "agent/command.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- What is kept ---- */

static bool kept_open(struct kept *kept)
{
    kept->bytes = malloc(AGENT_KEPT_MAX);
    return kept->bytes != NULL;
}

static void kept_drop(struct kept *kept, uint32_t count)
{
    kept->head = (kept->head + count) % AGENT_KEPT_MAX;
    kept->length -= count;
    kept->first += count;
}

/* The free bytes that lie together behind what is kept. */
static size_t kept_room(const struct kept *kept, uint8_t **to)
{
    uint32_t at = (kept->head + kept->length) % AGENT_KEPT_MAX;
    size_t room = AGENT_KEPT_MAX - kept->length, together = AGENT_KEPT_MAX - at;

    *to = kept->bytes + at;
    return room < together ? room : together;
}

/* The bytes that lie together at the front. */
static size_t kept_front(const struct kept *kept, const uint8_t **from)
{
    size_t together = AGENT_KEPT_MAX - kept->head;

    *from = kept->bytes + kept->head;
    return kept->length < together ? kept->length : together;
}

size_t kept_copy(const struct kept *kept, uint64_t from, uint8_t *to, size_t size)
{
    uint32_t skip = (uint32_t)(from - kept->first);
    size_t count = kept->length - skip < size ? kept->length - skip : size;

    for (size_t done = 0; done < count;) {
        uint32_t at = (kept->head + skip + (uint32_t)done) % AGENT_KEPT_MAX;
        size_t part = AGENT_KEPT_MAX - at < count - done ? AGENT_KEPT_MAX - at : count - done;
        memcpy(to + done, kept->bytes + at, part);
        done += part;
    }
    return count;
}

/* ---- Life ---- */

struct session *session_find(struct session *sessions, const uint8_t *token)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        if (sessions[i].used && memcmp(sessions[i].token, token, AGENT_TOKEN) == 0) {
            return &sessions[i];
        }
    }
    return NULL;
}

struct session *session_new(struct session *sessions, const uint8_t *token)
{
    struct session *session = NULL;

    for (unsigned i = 0; i < SESSIONS_MAX && !session; i++) {
        session = sessions[i].used ? NULL : &sessions[i];
    }
    if (!session) {
        return NULL;
    }
    memset(session, 0, sizeof(*session));
    session->used = true;
    session->input = session->output[0] = session->output[1] = -1;
    memcpy(session->token, token, AGENT_TOKEN);
    if (!kept_open(&session->keep_input) || !kept_open(&session->keep[0]) ||
        !kept_open(&session->keep[1])) {
        session_free(session);
        return NULL;
    }
    return session;
}

static void close_input(struct session *session)
{
    if (session->input >= 0) {
        close(session->input);
    }
    session->input = -1;
}

static void close_output(struct session *session, enum agent_stream stream)
{
    if (session->output[stream] >= 0) {
        close(session->output[stream]);
    }
    session->output[stream] = -1;
}

void session_free(struct session *session)
{
    if (session->child > 0) {
        kill(-session->child, SIGHUP); /* it leads a group, and is reaped as a stranger */
        kill(-session->child, SIGCONT);
    }
    close_input(session);
    close_output(session, AGENT_STDOUT);
    close_output(session, AGENT_STDERR);
    free(session->keep_input.bytes);
    free(session->keep[0].bytes);
    free(session->keep[1].bytes);
    memset(session, 0, sizeof(*session));
}

int session_start(struct session *session, const struct agent *agent, const uint8_t *frame,
                  size_t length)
{
    struct command command;
    int cause = command_parse(&command, frame, length);

    if (cause) {
        return cause;
    }
    cause = command_start(&command, agent, &session->child, &session->input, session->output);
    session->terminal = command.start.flags & AGENT_START_TERMINAL;
    session->started = cause == 0;
    command_release(&command);
    return cause;
}

/* ---- Input ---- */

bool session_input(struct session *session, uint64_t at, const uint8_t *bytes, size_t length)
{
    struct kept *kept = &session->keep_input;
    uint64_t expected = kept->first + kept->length;

    if (at > expected) {
        return false; /* something is missing */
    }
    if (length == 0) {
        session->input_over |= at == expected;
        return true;
    }
    if (expected - at >= length) {
        return true; /* known already */
    }
    bytes += expected - at;
    length -= (size_t)(expected - at);
    if (length > AGENT_KEPT_MAX - kept->length) {
        return false; /* more than was allowed */
    }
    while (length > 0) {
        uint8_t *to;
        size_t part = kept_room(kept, &to);
        part = part < length ? part : length;
        memcpy(to, bytes, part);
        kept->length += (uint32_t)part;
        bytes += part;
        length -= part;
    }
    return true;
}

/* A terminal has no end of input but its character. */
static void end_input(struct session *session)
{
    static const char end_of_transmission = 4;

    if (session->terminal) {
        if (write(session->input, &end_of_transmission, 1) < 0 && errno == EAGAIN) {
            return;
        }
    }
    close_input(session);
}

void session_write_input(struct session *session)
{
    struct kept *kept = &session->keep_input;
    const uint8_t *from;
    size_t count;

    while (session->input >= 0 && (count = kept_front(kept, &from)) > 0) {
        ssize_t done = write(session->input, from, count);
        if (done < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (done < 0) {
            close_input(session);
            break;
        }
        kept_drop(kept, (uint32_t)done);
    }
    if (session->input < 0) {
        kept_drop(kept, kept->length); /* nobody reads: it is thrown away, as a pipe would */
    } else if (session->input_over) {
        end_input(session);
    }
}

/* ---- Output ---- */

void session_read_output(struct session *session, enum agent_stream stream)
{
    struct kept *kept = &session->keep[stream];
    uint8_t *to;
    size_t room;

    while (session->output[stream] >= 0 && (room = kept_room(kept, &to)) > 0) {
        ssize_t count = read(session->output[stream], to, room);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 && errno == EAGAIN) {
            return;
        }
        if (count <= 0) { /* a terminal nobody has open any more says EIO */
            close_output(session, stream);
            return;
        }
        kept->length += (uint32_t)count;
    }
}

bool session_confirm(struct session *session, const uint64_t received[AGENT_STREAMS])
{
    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        struct kept *kept = &session->keep[i];
        if (received[i] > kept->first + kept->length) {
            return false;
        }
        if (received[i] > kept->first) {
            kept_drop(kept, (uint32_t)(received[i] - kept->first));
        }
        if (session->sent[i] < kept->first) {
            session->sent[i] = kept->first;
        }
    }
    return true;
}

/* ---- The command's fate ---- */

void session_window(struct session *session, const struct agent_window *window)
{
    struct winsize size = {.ws_row = window->rows, .ws_col = window->columns};

    if (session->terminal && session->output[AGENT_STDOUT] >= 0) {
        ioctl(session->output[AGENT_STDOUT], TIOCSWINSZ, &size);
    }
}

void session_signal(struct session *session, uint32_t number)
{
    if (session->child > 0 && number > 0 && number < NSIG) {
        kill(-session->child, (int)number);
    }
}

void session_reaped(struct session *session, int status)
{
    session->child = 0;
    session->ended = true;
    session->end.by_signal = WIFSIGNALED(status);
    session->end.status = (uint32_t)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* What is in a pipe when the command ends belongs to its output; what processes that it left behind
 * write later does not. */
bool session_drained(const struct session *session)
{
    for (unsigned i = 0; i < AGENT_STREAMS; i++) {
        int waiting = 0;
        if (session->output[i] >= 0 &&
            (ioctl(session->output[i], FIONREAD, &waiting) < 0 || waiting > 0)) {
            return false;
        }
    }
    return true;
}
