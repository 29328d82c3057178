#include "vmmd/peer.h"

#include "libshared/base/clock.h"
#include "libshared/base/descriptor.h"
#include "libshared/base/log.h"
#include "libshared/nbd/channel.h"
#include "vmmd/spawn.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ATTEMPTS_APART_NS (50 * NS_PER_MS) /* whatever the device asks for */
#define CONNECTOR_MS      40000            /* it ends by itself long before */
#define MESSAGES_A_TURN   16

struct peer {
    struct event_base *base;
    char *uri, *programs, *folder;
    int own_fd, device_fd; /* the two ends of the channel to the device */
    int connection_fd;     /* the present connection, or the last; -1: there was none */
    struct event *asked;
    uint64_t number; /* of the device's last question */
    bool wanted;     /* it was asked after the present connector was started */
    /* The connector, if one runs. */
    pid_t pid;
    int pidfd, answer_fd;
    bool answered;
    struct event *ended, *timer;
    uint64_t started_ns;
};

/* ---- to the device ---- */

static void peer_tell(struct peer *peer, struct nbd_message *message, int fd)
{
    struct nbd_message old;
    int old_fd;

    message->number = peer->number;
    int status = nbd_message_send(peer->own_fd, message, fd);
    if (status == -EAGAIN) { /* nobody reads: what was said before is of no interest any more */
        int dropped;
        do {
            dropped = nbd_message_receive(peer->device_fd, &old, &old_fd);
            descriptor_close(&old_fd);
        } while (dropped == 0 || dropped == -EBADMSG);
        status = nbd_message_send(peer->own_fd, message, fd);
    }
    if (status < 0) {
        log_warning("cannot tell a device about %s: %s", peer->uri, strerror(-status));
    }
}

static void peer_tell_failure(struct peer *peer, int cause, const char *text)
{
    struct nbd_message message = {.kind = NBD_FAILED, .cause = (uint32_t)cause};

    snprintf(message.text, sizeof(message.text), "%s", text);
    peer_tell(peer, &message, -1);
}

/* ---- the connector ---- */

static void peer_wait(struct peer *peer, uint64_t ns)
{
    const struct timeval time = clock_timeval(ns);
    event_add(peer->timer, &time);
}

/* What it said, if it did. */
static void connector_listen(struct peer *peer)
{
    struct nbd_message message;
    int fd;

    if (peer->answer_fd < 0 || nbd_message_receive(peer->answer_fd, &message, &fd) < 0) {
        return;
    }
    peer->answered = true;
    if (message.kind == NBD_CONNECTED) {
        descriptor_close(&peer->connection_fd);
        peer->connection_fd = fd;
        peer_tell(peer, &message, fd);
    } else {
        descriptor_close(&fd);
        peer_tell_failure(peer, (int)message.cause, message.text);
    }
}

static void connector_release(struct peer *peer)
{
    if (peer->ended) {
        event_free(peer->ended);
        peer->ended = NULL;
    }
    if (peer->pid > 0) {
        pidfd_send_signal(peer->pidfd, SIGKILL, NULL, 0);
        waitpid(peer->pid, NULL, 0);
        peer->pid = 0;
    }
    descriptor_close(&peer->pidfd);
    descriptor_close(&peer->answer_fd);
}

static void peer_follow(struct peer *peer);

static void connector_ended(evutil_socket_t pidfd, short what, void *context)
{
    struct peer *peer = context;

    (void)pidfd;
    (void)what;
    connector_listen(peer);
    if (!peer->answered) {
        peer_tell_failure(peer, 0, "the connector died");
    }
    connector_release(peer); /* it has ended: nothing is waited for */
    event_del(peer->timer);
    peer_follow(peer);
}

static int connector_spawn(struct peer *peer, int answer_fd)
{
    struct fdlist list = {.count = 0};
    struct spawn_gate gate;
    char path[PATH_MAX];
    char *argv[] = {(char *)"connectd", peer->folder, peer->uri, NULL};

    if ((size_t)snprintf(path, sizeof(path), "%s/connectd", peer->programs) >= sizeof(path)) {
        return -ENAMETOOLONG;
    }
    int status = fdlist_add(&list, answer_fd, "channel");
    if (status == 0 && peer->connection_fd >= 0) {
        status = fdlist_add(&list, peer->connection_fd, "old");
    }
    status = status ? status : spawn_gate_open(&gate);
    if (status) {
        return status;
    }
    status = spawn_process(&gate, path, argv, &list, &peer->pid, &peer->pidfd);
    if (status) {
        peer->pid = 0;
        peer->pidfd = -1;
    } else {
        spawn_gate_release(&gate);
    }
    spawn_gate_close(&gate);
    return status;
}

static int connector_start(struct peer *peer)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return -errno;
    }
    peer->answered = peer->wanted = false;
    peer->started_ns = clock_monotonic_ns();
    peer->answer_fd = pair[0];
    int status = connector_spawn(peer, pair[1]);
    close(pair[1]);
    if (status == 0) {
        peer->ended = event_new(peer->base, peer->pidfd, EV_READ, connector_ended, peer);
        status = peer->ended && event_add(peer->ended, NULL) == 0 ? 0 : -ENOMEM;
    }
    if (status) {
        connector_release(peer);
        return status;
    }
    peer_wait(peer, CONNECTOR_MS * NS_PER_MS);
    return 0;
}

/* Do what is wanted, if it may be done now. */
static void peer_follow(struct peer *peer)
{
    uint64_t now = clock_monotonic_ns();

    if (peer->pid || !peer->wanted) {
        return;
    }
    if (peer->started_ns && now - peer->started_ns < ATTEMPTS_APART_NS) {
        peer_wait(peer, peer->started_ns + ATTEMPTS_APART_NS - now);
        return;
    }
    int status = connector_start(peer);
    if (status < 0) {
        char text[NBD_TEXT_MAX];
        snprintf(text, sizeof(text), "cannot start connectd: %s", strerror(-status));
        peer_tell_failure(peer, -status, text);
    }
}

/* The time has come for the next one; or one takes for ever, and is put an end to. */
static void peer_timer(evutil_socket_t fd, short what, void *context)
{
    struct peer *peer = context;

    (void)fd;
    (void)what;
    if (peer->pid) {
        pidfd_send_signal(peer->pidfd, SIGKILL, NULL, 0);
    } else {
        peer_follow(peer);
    }
}

/* ---- from the device ---- */

static int channel_open(struct peer *peer);

/* The device's process, which shares its end with us, has shut it down. It gets nothing more; the
 * next process gets a channel of its own. */
static void channel_renew(struct peer *peer)
{
    log_warning("the process of %s has closed its channel", peer->uri);
    event_free(peer->asked);
    peer->asked = NULL;
    descriptor_close(&peer->own_fd);
    descriptor_close(&peer->device_fd);
    int status = channel_open(peer);
    if (status < 0) {
        log_error("no other channel for %s: %s", peer->uri, strerror(-status));
    }
}

static void peer_asked(evutil_socket_t socket, short what, void *context)
{
    struct peer *peer = context;
    struct nbd_message message;
    int fd;

    (void)what;
    for (unsigned i = 0; i < MESSAGES_A_TURN; i++) {
        int status = nbd_message_receive(socket, &message, &fd);
        if (status == -EAGAIN) {
            break;
        }
        if (status < 0 && status != -EBADMSG) {
            channel_renew(peer);
            break;
        }
        descriptor_close(&fd);
        if (status == 0 && message.kind == NBD_ASK) {
            peer->number = message.number;
            peer->wanted |= !peer->pid; /* a connector that runs answers this one, too */
        }
    }
    peer_follow(peer);
}

/* ---- life ---- */

static int channel_open(struct peer *peer)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        return -errno;
    }
    peer->own_fd = pair[0];
    peer->device_fd = pair[1];
    peer->asked = event_new(peer->base, peer->own_fd, EV_READ | EV_PERSIST, peer_asked, peer);
    return peer->asked && event_add(peer->asked, NULL) == 0 ? 0 : -ENOMEM;
}

struct peer *peer_create(const char *uri, const char *programs, const char *folder,
                         struct event_base *base, struct error *err)
{
    struct peer *peer = calloc(1, sizeof(*peer));

    if (!peer) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    peer->base = base;
    peer->pidfd = peer->answer_fd = peer->connection_fd = peer->own_fd = peer->device_fd = -1;
    peer->uri = strdup(uri);
    peer->programs = strdup(programs);
    peer->folder = strdup(folder);
    int opened = channel_open(peer);
    peer->timer = evtimer_new(base, peer_timer, peer);
    if (!peer->uri || !peer->programs || !peer->folder || opened < 0 || !peer->timer) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "cannot prepare a connection to '%.100s'", uri);
        peer_destroy(peer);
        return NULL;
    }
    return peer;
}

int peer_device_fd(const struct peer *peer)
{
    return peer->device_fd;
}

void peer_destroy(struct peer *peer)
{
    if (!peer) {
        return;
    }
    connector_release(peer);
    if (peer->asked) {
        event_free(peer->asked);
    }
    if (peer->timer) {
        event_free(peer->timer);
    }
    descriptor_close(&peer->own_fd);
    descriptor_close(&peer->device_fd);
    descriptor_close(&peer->connection_fd);
    free(peer->uri);
    free(peer->programs);
    free(peer->folder);
    free(peer);
}
