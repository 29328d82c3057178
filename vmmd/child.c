#include "vmmd/child.h"

#include "libshared/base/clock.h"
#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include "vmmd/message.h"
#include "vmmd/record.h"
#include <errno.h>
#include <nanomsg/pair.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* nanomsg's own thread may still be handing over what a process sent just before it ended. */
#define CHILD_SETTLE_MS 20
/* So many malformed messages are no accident. */
#define CHILD_MALFORMED_MAX 16
/* At most so many messages a wake-up, so that one process cannot keep the loop to itself. */
#define CHILD_BATCH 32

struct child_request {
    TAILQ_ENTRY(child_request) link;
    struct child *child;
    uint64_t id, context;
    ProtobufCMessage *unsent; /* a copy, until it could be sent */
    child_reply_fn *reply;
    struct event *deadline;
};

static void child_request_free(struct child_request *request)
{
    TAILQ_REMOVE(&request->child->requests, request, link);
    if (request->deadline) {
        event_free(request->deadline);
    }
    if (request->unsent) {
        protobuf_c_message_free_unpacked(request->unsent, NULL);
    }
    free(request);
}

/* The one way a request ends. */
static void child_request_finish(struct child_request *request, const struct error *err,
                                 const ProtobufCMessage *reply)
{
    struct child *child = request->child;
    child_reply_fn *function = request->reply;
    uint64_t context = request->context;

    child_request_free(request);
    if (function) {
        function(child, err, reply, context);
    }
}

static void child_on_deadline(evutil_socket_t fd, short what, void *argument)
{
    struct child_request *request = argument;
    struct error err;
    (void)fd, (void)what;

    error_set(&err, ERROR_TIMEOUT, ETIMEDOUT, "%s did not answer in time", request->child->role);
    child_request_finish(request, &err, NULL);
}

/* Send what waits, in order, as far as the peer takes it. */
static void child_flush(struct child *child)
{
    struct child_request *request;

    TAILQ_FOREACH(request, &child->requests, link)
    {
        if (!request->unsent) {
            continue;
        }
        if (channel_send(child->channel, request->unsent, 0) < 0) {
            event_add(child->send_event, NULL);
            return;
        }
        protobuf_c_message_free_unpacked(request->unsent, NULL);
        request->unsent = NULL;
    }
    event_del(child->send_event);
}

static void child_on_sendable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    child_flush(argument);
}

int child_request(struct child *child, ProtobufCMessage *message, int deadline_ms,
                  child_reply_fn *reply, uint64_t context)
{
    struct timeval deadline = clock_timeval((uint64_t)deadline_ms * NS_PER_MS);
    struct child_request *request;

    if (!child->running) {
        return -ESRCH;
    }
    request = calloc(1, sizeof(*request));
    if (!request) {
        return -ENOMEM;
    }
    request->child = child;
    request->id = ++child->last_id;
    request->reply = reply;
    request->context = context;
    TAILQ_INSERT_TAIL(&child->requests, request, link);
    child->protocol->set_id(message, request->id);
    request->unsent = message_copy(message);
    request->deadline = evtimer_new(child->base, child_on_deadline, request);
    if (request->unsent &&
        protobuf_c_message_get_packed_size(request->unsent) > CHANNEL_MESSAGE_MAX) {
        child_request_free(request); /* it would hold up all that come after it */
        return -EMSGSIZE;
    }
    if (!request->unsent || !request->deadline) {
        child_request_free(request);
        return -ENOMEM;
    }
    evtimer_add(request->deadline, &deadline);
    if (child->send_event) {
        child_flush(child);
    }
    return 0;
}

static void child_handle(struct child *child, const ProtobufCMessage *message)
{
    uint64_t id = child->protocol->reply_id(message);
    struct child_request *request;
    struct error err;

    child->missed = 0; /* whatever it is, it is a sign of life */
    child->ping_pending = false;
    event_del(child->doubt_event);
    if (!id) {
        if (child->callbacks->notice) {
            child->callbacks->notice(child, message);
        }
        return;
    }
    TAILQ_FOREACH(request, &child->requests, link)
    {
        if (request->id == id && !request->unsent) {
            bool failed = child->protocol->reply_error(message, &err);
            error_component(&err, child->role);
            child_request_finish(request, failed ? &err : NULL, message);
            return;
        }
    }
    log_debug("%s answers request %llu that is not open", child->role, (unsigned long long)id);
}

static void child_note_malformed(struct child *child)
{
    child->malformed++;
    if (child->malformed == 1 || child->malformed == CHILD_MALFORMED_MAX) {
        log_warning("%s (pid %ld) sent a malformed message%s", child->role, (long)child->pid,
                    child->malformed == 1 ? "" : " again and again, killing it");
    }
    if (child->malformed >= CHILD_MALFORMED_MAX) {
        child_kill(child);
    }
}

/* Receive what is there; true when there may be more. */
static bool child_receive(struct child *child)
{
    for (int i = 0; child->channel && i < CHILD_BATCH; i++) {
        ProtobufCMessage *message;
        int result = channel_receive(child->channel, child->protocol->reply_type, &message, 0);
        if (result == -EBADMSG) {
            child_note_malformed(child);
            continue;
        }
        if (result < 0) {
            return false;
        }
        child_handle(child, message);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    return true;
}

static void child_on_message(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    child_receive(argument);
}

/* Nobody will answer any more. Not running first, so that no callback can ask anew. */
static void child_fail_requests(struct child *child)
{
    struct child_request *request;
    struct error err;
    char text[64];

    child->running = false;
    child_describe_end(child, text, sizeof(text));
    error_set(&err, ERROR_CRASHED, 0, "%s %s", child->role, text);
    while ((request = TAILQ_FIRST(&child->requests))) {
        child_request_finish(request, &err, NULL);
    }
}

static void child_disconnect(struct child *child)
{
    struct event **events[] = {&child->bound_event, &child->receive_event, &child->send_event};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (*events[i]) {
            event_free(*events[i]);
            *events[i] = NULL;
        }
    }
    channel_close(child->channel);
    child->channel = NULL;
    descriptor_close(&child->bound_fd);
}

/* It has ended, and what it sent before has had time to arrive. */
static void child_on_settled(evutil_socket_t fd, short what, void *argument)
{
    struct child *child = argument;
    (void)fd, (void)what;

    for (int i = 0; i < CHILD_BATCH && child_receive(child); i++) {
    }
    child_fail_requests(child);
    child_disconnect(child); /* or nanomsg would try to connect again */
    child->callbacks->exited(child);
}

static void child_note_end(struct child *child, const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED) {
        child->exit_code = info->si_status;
    } else {
        child->exit_signal = info->si_status;
    }
}

static void child_on_exit(evutil_socket_t fd, short what, void *argument)
{
    struct child *child = argument;
    siginfo_t info = {0};
    (void)fd, (void)what;

    /* Its end is looked at and left as it is: see child_inherit. */
    if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0 &&
        errno != ECHILD) {
        return;
    }
    child_note_end(child, &info);
    event_del(child->exit_event);
    child_heartbeat_stop(child);
    /* One that was killed had no time to say anything about it. */
    bool silent = TAILQ_EMPTY(&child->requests) || child->exit_signal == SIGKILL;
    struct timeval settle = clock_timeval(silent ? 0 : CHILD_SETTLE_MS * NS_PER_MS);
    evtimer_add(child->settle_event, &settle);
}

static void child_report_hang(struct child *child)
{
    struct pulse pulse = pulse_take(child->pid);

    child->hang_reported = true;
    child->stopped = pulse_stopped(&pulse);
    if (child->callbacks->precious) {
        pulse_log(child->pid, child->role);
    }
    child->callbacks->hung(child);
}

static void child_ping(struct child *child)
{
    child->ping_pending = true;
    child->protocol->ping(child);
}

/* It did not answer since `before` was taken, `elapsed_ns` ago. Whether that says that it hangs:
 * not when it had no processor to answer with. One whose end is the machine's is not blamed either
 * while somebody holds it, or while the kernel does, where no signal would reach it. */
static bool child_at_fault(const struct child *child, const struct pulse *before,
                           const struct pulse *now, uint64_t elapsed_ns)
{
    if (child->callbacks->precious && (pulse_stopped(now) || now->state == 'D')) {
        return false;
    }
    return pulse_stopped(now) || !pulse_starved(before, now, elapsed_ns);
}

/* A beat without an answer: one of those in a row that make a hang? Not the first of them, which
 * only has the pulse taken: what answers is not looked at, because a thread that somebody has
 * looked at in /proc ends more slowly. */
static bool child_missed_beat(struct child *child, uint64_t elapsed_ns)
{
    struct pulse before = child->pulse;
    bool looked = child->pulse_taken;
    /* A late beat says that vmmd (or the whole host) was held up, nothing about the child. */
    uint64_t beat_ns = (uint64_t)child->beat_ms * NS_PER_MS;
    bool punctual = elapsed_ns < beat_ns + beat_ns / CHILD_HEARTBEAT_LATE_PART;

    child->pulse = pulse_take(child->pid);
    child->pulse_taken = true;
    return looked && punctual && child_at_fault(child, &before, &child->pulse, elapsed_ns);
}

static void child_on_beat(evutil_socket_t fd, short what, void *argument)
{
    struct child *child = argument;
    uint64_t now = clock_monotonic_ns();
    uint64_t elapsed_ns = now - child->beat_ns;
    unsigned limit = /* the first is not counted */
        (child->callbacks->precious ? CHILD_HEARTBEAT_MISSED_PRECIOUS : CHILD_HEARTBEAT_MISSED) - 1;
    (void)fd, (void)what;

    child->beat_ns = now;
    bool pinged = child->ping_pending;

    if (child->callbacks->waited_for && child->callbacks->waited_for(child)) {
        child_doubt(child); /* pings, too */
    }
    if (child->hang_reported) {
        return;
    }
    if (!pinged) {
        child->pulse_taken = false;
    } else if (child_missed_beat(child, elapsed_ns) && ++child->missed >= limit) {
        child_report_hang(child);
        return;
    }
    child_ping(child); /* again: a ping, or its answer, may have been lost */
}

/* Look again in `milliseconds`. */
static void child_watch_doubted(struct child *child, bool pulse, int milliseconds)
{
    struct timeval limit = clock_timeval((uint64_t)milliseconds * NS_PER_MS);

    child->doubt_ns = clock_monotonic_ns();
    child->doubt_pulsed = pulse;
    if (pulse) {
        child->doubt_pulse = pulse_take(child->pid);
    }
    evtimer_add(child->doubt_event, &limit);
}

static void child_on_doubt(evutil_socket_t fd, short what, void *argument)
{
    struct child *child = argument;
    uint64_t late_ns = clock_monotonic_ns() - child->doubt_ns;
    (void)fd, (void)what;

    /* The same as for a late beat; and what has arrived meanwhile is looked at first. */
    child_receive(child);
    if (!child->ping_pending || child->hang_reported) {
        return;
    }
    if (!child->doubt_pulsed) { /* it did not answer at once: see why */
        child_watch_doubted(child, true, CHILD_DOUBT_MS - CHILD_DOUBT_AT_ONCE_MS);
        return;
    }
    struct pulse now = pulse_take(child->pid);
    if (late_ns > 2 * CHILD_DOUBT_MS * NS_PER_MS ||
        !child_at_fault(child, &child->doubt_pulse, &now, late_ns)) {
        child_doubt(child);
        return;
    }
    child_report_hang(child);
}

void child_doubt(struct child *child)
{
    if (!child->running || !evtimer_pending(child->heartbeat_event, NULL) ||
        evtimer_pending(child->doubt_event, NULL)) {
        return;
    }
    child_ping(child);
    child_watch_doubted(child, false, CHILD_DOUBT_AT_ONCE_MS);
}

void child_look(struct child *child)
{
    siginfo_t info = {0};

    if (!child->pid || !child->running ||
        waitid(P_PIDFD, (id_t)child->pidfd, &info, WSTOPPED | WCONTINUED | WNOHANG) < 0 ||
        info.si_pid == 0) {
        return;
    }
    bool stopped = info.si_code == CLD_STOPPED;
    if (child->callbacks->held) {
        child->callbacks->held(child, stopped);
    } else if (stopped && !child->hang_reported) {
        child_report_hang(child);
    }
}

/* nanomsg goes on trying until the socket is bound, every 2 ms and with some twenty system calls;
 * that is for what should not take long. */
static int child_connect(struct child *child)
{
    struct event_base *base = child->base;

    child->channel = channel_connect(child->protocol->kind, NN_PAIR, child->socket_path);
    if (!child->channel) {
        return -errno;
    }
    child->receive_event = event_new(base, channel_receive_fd(child->channel), EV_READ | EV_PERSIST,
                                     child_on_message, child);
    child->send_event = event_new(base, channel_send_fd(child->channel), EV_READ | EV_PERSIST,
                                  child_on_sendable, child);
    if (!child->receive_event || !child->send_event || event_add(child->receive_event, NULL) < 0) {
        return -ENOMEM;
    }
    child_flush(child);
    return 0;
}

/* Or it has ended before, which is seen by its pidfd. */
static void child_on_bound(evutil_socket_t fd, short what, void *argument)
{
    struct child *child = argument;
    (void)fd, (void)what;

    descriptor_close(&child->bound_fd);
    int result = child->running ? child_connect(child) : 0;
    if (result) {
        log_warning("cannot connect to %s: %s", child->role, strerror(-result));
        child_kill(child);
    }
}

int child_attach(struct child *child, struct event_base *base,
                 const struct child_protocol *protocol, const struct child_callbacks *callbacks,
                 void *owner, const char *role, pid_t pid, int pidfd, const char *socket_path,
                 int bound_fd)
{
    memset(child, 0, sizeof(*child));
    snprintf(child->role, sizeof(child->role), "%s", role);
    snprintf(child->socket_path, sizeof(child->socket_path), "%s", socket_path);
    child->bound_fd = bound_fd;
    child->pid = pid;
    child->pidfd = pidfd;
    child->start_time = process_start_time(pid);
    child->running = true;
    child->owner = owner;
    child->protocol = protocol;
    child->callbacks = callbacks;
    child->base = base;
    child->beat_ms = CHILD_HEARTBEAT_MS;
    TAILQ_INIT(&child->requests);

    if (strlen(socket_path) >= sizeof(child->socket_path)) {
        return -ENAMETOOLONG;
    }
    child->exit_event = event_new(base, pidfd, EV_READ | EV_PERSIST, child_on_exit, child);
    child->settle_event = evtimer_new(base, child_on_settled, child);
    child->heartbeat_event = event_new(base, -1, EV_PERSIST, child_on_beat, child);
    child->doubt_event = evtimer_new(base, child_on_doubt, child);
    if (!child->exit_event || !child->settle_event || !child->heartbeat_event ||
        !child->doubt_event || event_add(child->exit_event, NULL) < 0) {
        return -ENOMEM;
    }
    if (bound_fd < 0) {
        return child_connect(child);
    }
    child->bound_event = event_new(base, bound_fd, EV_READ, child_on_bound, child);
    return child->bound_event && event_add(child->bound_event, NULL) == 0 ? 0 : -ENOMEM;
}

void child_heartbeat_start(struct child *child)
{
    struct timeval beat = clock_timeval((uint64_t)child->beat_ms * NS_PER_MS);

    child->missed = 0;
    child->ping_pending = false;
    child->beat_ns = clock_monotonic_ns();
    child->pulse_taken = false;
    event_add(child->heartbeat_event, &beat);
}

void child_heartbeat_stop(struct child *child)
{
    event_del(child->heartbeat_event);
    event_del(child->doubt_event);
}

void child_kill(struct child *child)
{
    if (child->pid && child->running) {
        child->put_down = true;
        pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
    }
}

void child_dismiss(struct child *child, const struct error *err, const ProtobufCMessage *reply,
                   uint64_t context)
{
    (void)reply, (void)context;
    if (!err && child->running) {
        child->put_down = true;
        pidfd_send_signal(child->pidfd, SIGTERM, NULL, 0);
    }
}

int child_inherit(struct child *child)
{
    int pidfd = child->pid && !child->running ? child->pidfd : -1;

    if (pidfd >= 0) {
        child->pidfd = -1;
    }
    return pidfd;
}

void child_release(struct child *child)
{
    struct event *events[] = {child->exit_event, child->settle_event, child->heartbeat_event,
                              child->doubt_event};

    if (!child->pid) {
        return;
    }
    siginfo_t info = {0};
    if (child->running) {
        child_kill(child);
        if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED) == 0) {
            child_note_end(child, &info);
        }
    } else if (child->pidfd >= 0) {
        waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG);
    }
    child_fail_requests(child);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    child_disconnect(child);
    if (child->pidfd >= 0) {
        close(child->pidfd);
    }
    memset(child, 0, sizeof(*child));
}

void child_describe_end(const struct child *child, char *text, size_t size)
{
    if (child->exit_signal) {
        snprintf(text, size, "was killed by signal %d (%s)", child->exit_signal,
                 strsignal(child->exit_signal));
    } else {
        snprintf(text, size, "exited with status %d", child->exit_code);
    }
}
