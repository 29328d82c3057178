/*
 * User networking: libslirp is the guest's router, DHCP and DNS server, and turns its connections
 * into sockets of this process. 10.0.2.0/24 and fec0::/64; the host is .2, DNS .3, the guest .15.
 *
 * libslirp wants to be told which of its descriptors are ready. They are kept in an epoll set of
 * their own, which the event loop watches as one descriptor.
 *
 * To libslirp the guest's interface takes packets of NET_MTU_MAX bytes: it is told so by the
 * segment size in the guest's SYN, which is raised on the way. TCP then comes in large segments,
 * which the guest gets as what they would be had its card joined them. Other packets are cut here.
 */
#include "devd/net/backend.h"
#include "devd/net/offload.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <unistd.h>

#define POLLS_MAX       2048u      /* descriptors of libslirp */
#define EVENTS_A_TURN   64         /* taken from the epoll set at once */
#define HELD_BYTES_STOP (1u << 20) /* frames that wait for the guest: no more from sockets */
#define HELD_BYTES_MAX  (4u << 20) /* and from here on they are dropped */
#define RESYNC_NS       NS_PER_S   /* how often the epoll set is set up anew, in any case */

/* A frame that the guest had no room for. */
struct held {
    STAILQ_ENTRY(held) link;
    struct virtio_net_hdr_v1 header;
    size_t length;
    uint8_t frame[];
};

/* A descriptor of libslirp. */
struct slot {
    uint32_t events; /* in the epoll set; 0: not in it */
    uint32_t round;  /* of the last fill that asked for it */
    unsigned poll;   /* its index in that fill */
};

struct user {
    struct net_backend backend;
    Slirp *slirp;
    int epoll_fd;
    struct event *ready;  /* of the epoll set */
    struct event *timer;  /* libslirp's next deadline */
    struct event *update; /* libslirp may want other descriptors than it did */
    uint32_t round;
    uint64_t synced_ns;
    struct slot slots[POLLS_MAX]; /* by descriptor */
    struct {
        int fd;
        uint32_t wanted, ready;
    } polls[POLLS_MAX]; /* of the present fill */
    unsigned poll_count;
    int known[POLLS_MAX]; /* descriptors in the epoll set */
    unsigned known_count;
    STAILQ_HEAD(, held) held;
    size_t held_bytes;
    bool raises4, raises6;           /* the guest takes large segments */
    uint8_t outgoing[NET_FRAME_MAX]; /* from the guest */
    uint8_t incoming[NET_FRAME_MAX]; /* from libslirp */
    uint8_t scratch[NET_FRAME_MAX];  /* of a packet that is cut */
};

static struct user *user_of(struct net_backend *backend)
{
    return (struct user *)backend;
}

/* ---- Descriptors ---- */

static const struct {
    int slirp;
    uint32_t epoll;
} poll_bits[] = {
    {SLIRP_POLL_IN, EPOLLIN},   {SLIRP_POLL_OUT, EPOLLOUT}, {SLIRP_POLL_PRI, EPOLLPRI},
    {SLIRP_POLL_ERR, EPOLLERR}, {SLIRP_POLL_HUP, EPOLLHUP},
};

static int user_add_poll(int fd, int events, void *opaque)
{
    struct user *user = opaque;
    uint32_t wanted = 0;

    if (fd < 0 || (unsigned)fd >= POLLS_MAX || user->poll_count == POLLS_MAX) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(poll_bits) / sizeof(poll_bits[0]); i++) {
        wanted |= events & poll_bits[i].slirp ? poll_bits[i].epoll : 0;
    }
    unsigned index = user->poll_count++;
    user->polls[index].fd = fd;
    user->polls[index].wanted = wanted;
    user->polls[index].ready = 0;
    user->slots[fd].round = user->round;
    user->slots[fd].poll = index;
    return (int)index;
}

static int user_ready_events(int index, void *opaque)
{
    struct user *user = opaque;
    int events = 0;

    if (index < 0 || (unsigned)index >= user->poll_count) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(poll_bits) / sizeof(poll_bits[0]); i++) {
        events |= user->polls[index].ready & poll_bits[i].epoll ? poll_bits[i].slirp : 0;
    }
    return events;
}

/* A descriptor was opened or is about to be closed: what is known of its number holds no more. */
static void user_forget_fd(int fd, void *opaque)
{
    struct user *user = opaque;

    if (fd >= 0 && (unsigned)fd < POLLS_MAX) {
        user->slots[fd].events = 0;
    }
}

/* Have the epoll set hold what the present fill asked for. */
static void user_sync_descriptors(struct user *user, bool everything)
{
    for (unsigned i = 0; i < user->known_count; i++) {
        int fd = user->known[i];
        if (user->slots[fd].round != user->round) {
            epoll_ctl(user->epoll_fd, EPOLL_CTL_DEL, fd, NULL); /* perhaps closed: then it is out */
            user->slots[fd].events = 0;
        }
    }
    for (unsigned i = 0; i < user->poll_count; i++) {
        int fd = user->polls[i].fd;
        struct slot *slot = &user->slots[fd];
        struct epoll_event event = {.events = user->polls[i].wanted, .data.fd = fd};
        user->known[i] = fd;
        if (slot->events == event.events && !everything) {
            continue;
        }
        if (epoll_ctl(user->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT) {
            epoll_ctl(user->epoll_fd, EPOLL_CTL_ADD, fd, &event);
        }
        slot->events = event.events;
    }
    user->known_count = user->poll_count;
}

/* Ask libslirp what it waits for. */
static void user_update(evutil_socket_t fd, short what, void *context)
{
    struct user *user = context;
    uint32_t timeout_ms = UINT32_MAX;
    uint64_t now = clock_monotonic_ns();
    bool everything = now - user->synced_ns >= RESYNC_NS;

    (void)fd;
    (void)what;
    user->round++;
    user->poll_count = 0;
    slirp_pollfds_fill(user->slirp, &timeout_ms, user_add_poll, user);
    user_sync_descriptors(user, everything);
    user->synced_ns = everything ? now : user->synced_ns;
    if (timeout_ms != UINT32_MAX) {
        const struct timeval time = clock_timeval(timeout_ms * NS_PER_MS);
        event_add(user->timer, &time);
    } else {
        event_del(user->timer);
    }
}

static void user_update_soon(struct user *user)
{
    event_active(user->update, 0, 0);
}

/* Descriptors are ready, or time has passed. */
static void user_turn(evutil_socket_t fd, short what, void *context)
{
    struct user *user = context;
    struct epoll_event events[EVENTS_A_TURN];
    bool full = user->held_bytes >= HELD_BYTES_STOP;
    int count = full ? 0 : epoll_wait(user->epoll_fd, events, EVENTS_A_TURN, 0);

    (void)fd;
    (void)what;
    for (int i = 0; i < count; i++) {
        const struct slot *slot = &user->slots[events[i].data.fd];
        if (slot->round == user->round) {
            user->polls[slot->poll].ready = events[i].events;
        }
    }
    slirp_pollfds_poll(user->slirp, 0, user_ready_events, user);
    user->backend.port.received(user->backend.port.context);
    user_update(-1, 0, user);
    if (user->held_bytes >= HELD_BYTES_STOP) {
        event_del(user->ready);
    }
}

/* ---- To the guest ---- */

static void user_hold(struct user *user, const struct virtio_net_hdr_v1 *header,
                      const uint8_t *frame, size_t length)
{
    struct held *held = user->held_bytes < HELD_BYTES_MAX ? malloc(sizeof(*held) + length) : NULL;

    if (!held) {
        return; /* lost: TCP sends it again */
    }
    held->header = *header;
    held->length = length;
    memcpy(held->frame, frame, length);
    user->held_bytes += length;
    STAILQ_INSERT_TAIL(&user->held, held, link);
}

static void user_deliver(void *context, const struct virtio_net_hdr_v1 *header, uint8_t *frame,
                         size_t length)
{
    struct user *user = context;
    const struct net_port *port = &user->backend.port;

    if (!STAILQ_EMPTY(&user->held) || !port->receive(port->context, header, frame, length)) {
        user_hold(user, header, frame, length);
    }
}

static void user_resume(struct net_backend *backend)
{
    struct user *user = user_of(backend);
    struct held *held;

    while ((held = STAILQ_FIRST(&user->held)) &&
           backend->port.receive(backend->port.context, &held->header, held->frame, held->length)) {
        STAILQ_REMOVE_HEAD(&user->held, link);
        user->held_bytes -= held->length;
        free(held);
    }
    if (user->held_bytes < HELD_BYTES_STOP) {
        event_add(user->ready, NULL);
    }
}

/* A large TCP segment becomes one that the guest's card might have joined. */
static bool user_mark_segment(struct user *user, struct virtio_net_hdr_v1 *header, size_t length)
{
    struct net_headers headers;

    if (!net_headers_find(user->incoming, length, &headers) || headers.protocol != IPPROTO_TCP ||
        headers.is_fragment || headers.payload - headers.network >= user->backend.mtu) {
        return false;
    }
    net_checksum_defer(header, user->incoming, &headers);
    header->gso_type = headers.is_ip6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
    header->gso_size = (uint16_t)(user->backend.mtu - (headers.payload - headers.network));
    return true;
}

static ssize_t user_from_slirp(const void *bytes, size_t length, void *opaque)
{
    struct user *user = opaque;
    /* What libslirp sends comes from sockets or is its own: nobody need look at its checksums. */
    struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};

    if (length < NET_FRAME_MIN || length > sizeof(user->incoming)) {
        return (ssize_t)length;
    }
    memcpy(user->incoming, bytes, length);
    if (length <= NET_ETHERNET_BYTES + user->backend.mtu ||
        user_mark_segment(user, &header, length)) {
        user_deliver(user, &header, user->incoming, length);
    } else {
        net_fragment(user->incoming, length, user->backend.mtu, user->scratch, user_deliver, user);
    }
    return (ssize_t)length;
}

/* ---- From the guest ---- */

static int user_send(struct net_backend *backend, const struct virtio_net_hdr_v1 *from,
                     const struct iovec *parts, unsigned count, size_t length)
{
    struct user *user = user_of(backend);
    struct virtio_net_hdr_v1 header = *from;
    struct net_headers headers;
    size_t done = 0;

    /* The card has checked that it fits. */
    for (unsigned i = 0; i < count; i++) {
        memcpy(user->outgoing + done, parts[i].iov_base, parts[i].iov_len);
        done += parts[i].iov_len;
    }
    if (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        net_checksum_complete(&header, user->outgoing, length);
    }
    if (net_headers_find(user->outgoing, length, &headers) &&
        (headers.is_ip6 ? user->raises6 : user->raises4)) {
        net_raise_segment_size(user->outgoing, &headers,
                               (uint16_t)(NET_MTU_MAX - (headers.is_ip6 ? 60 : 40)));
    }
    slirp_input(user->slirp, user->outgoing, (int)length);
    user_update_soon(user);
    return 0;
}

static void user_guest_features(struct net_backend *backend, uint64_t features)
{
    struct user *user = user_of(backend);

    user->raises4 = features & (UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4);
    user->raises6 = features & (UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO6);
}

/* ---- libslirp's other wishes ---- */

static void user_guest_error(const char *message, void *opaque)
{
    (void)opaque;
    log_debug("libslirp: %s", message);
}

static int64_t user_clock(void *opaque)
{
    (void)opaque;
    return (int64_t)clock_monotonic_ns();
}

struct slirp_timer {
    struct user *user;
    struct event *event;
    SlirpTimerCb callback;
    void *context;
};

static void user_timer_fired(evutil_socket_t fd, short what, void *context)
{
    struct slirp_timer *timer = context;

    (void)fd;
    (void)what;
    timer->callback(timer->context);
    timer->user->backend.port.received(timer->user->backend.port.context);
    user_update_soon(timer->user);
}

static void *user_timer_new(SlirpTimerCb callback, void *context, void *opaque)
{
    struct user *user = opaque;
    struct slirp_timer *timer = calloc(1, sizeof(*timer));

    if (!timer) {
        return NULL;
    }
    *timer = (struct slirp_timer){.user = user, .callback = callback, .context = context};
    timer->event = evtimer_new(user->backend.base, user_timer_fired, timer);
    return timer;
}

static void user_timer_free(void *opaque_timer, void *opaque)
{
    struct slirp_timer *timer = opaque_timer;

    (void)opaque;
    if (timer) {
        if (timer->event) {
            event_free(timer->event);
        }
        free(timer);
    }
}

static void user_timer_set(void *opaque_timer, int64_t expire_ms, void *opaque)
{
    struct slirp_timer *timer = opaque_timer;
    int64_t left = expire_ms - (int64_t)(clock_monotonic_ns() / NS_PER_MS);

    (void)opaque;
    if (timer && timer->event) {
        const struct timeval time = clock_timeval(left > 0 ? (uint64_t)left * NS_PER_MS : 0);
        event_add(timer->event, &time);
    }
}

static void user_notify(void *opaque)
{
    user_update_soon(opaque);
}

static const SlirpCb callbacks = {
    .send_packet = user_from_slirp,
    .guest_error = user_guest_error,
    .clock_get_ns = user_clock,
    .timer_new = user_timer_new,
    .timer_free = user_timer_free,
    .timer_mod = user_timer_set,
    .register_poll_fd = user_forget_fd,
    .unregister_poll_fd = user_forget_fd,
    .notify = user_notify,
};

/* ---- Life ---- */

static void user_close(struct net_backend *backend)
{
    struct user *user = user_of(backend);
    struct event *events[] = {user->ready, user->timer, user->update};
    struct held *held;

    if (user->slirp) {
        slirp_cleanup(user->slirp);
    }
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    while ((held = STAILQ_FIRST(&user->held))) {
        STAILQ_REMOVE_HEAD(&user->held, link);
        free(held);
    }
    if (user->epoll_fd >= 0) {
        close(user->epoll_fd);
    }
    free(user);
}

static int user_forward(struct user *user, const struct net_forward *forward, struct error *err)
{
    int flags = forward->is_udp ? SLIRP_HOSTFWD_UDP : 0;
    char address[64];

    if (forward->host.any.sa_family == AF_INET6) {
        flags |= SLIRP_HOSTFWD_V6ONLY; /* IPv4 has rules of its own */
    }
    if (slirp_add_hostxfwd(user->slirp, &forward->host.any,
                           (socklen_t)net_address_length(&forward->host), &forward->guest.any,
                           (socklen_t)net_address_length(&forward->guest), flags) == 0) {
        return 0;
    }
    int cause = errno;
    net_address_format(&forward->host, address, sizeof(address));
    return error_set(err, cause == EADDRINUSE ? ERROR_BUSY : ERROR_IO, cause,
                     "cannot forward %s port %s: %s", forward->is_udp ? "UDP" : "TCP", address,
                     strerror(cause));
}

/*
 * libslirp looks up the host's name server when the guest first asks for one, and remembers it for
 * as long as the file it is named in stays the same. This process will not be allowed to open files
 * by then, so it is made to look now: by an empty datagram of the guest's to its name server.
 */
static void user_find_name_server(struct user *user, const struct net_setting *setting)
{
    uint8_t frame[42] = {0x52, 0x55, 10, 0, 2, 3}; /* the address libslirp has for 10.0.2.3 */
    static const uint8_t packet[] = {
        0x08, 0x00, /* IPv4 */
        0x45, 0,    0, 28, 0, 0,    0,    0, 64, 17, 0, 0, 10, 0, 2,
        15,   10,   0, 2,  3, 0xff, 0xfe, 0, 53, 0,  8, 0, 0, /* UDP without data or checksum */
    };
    struct virtio_net_hdr_v1 header = {
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 14, .csum_offset = 10};

    memcpy(frame + 6, setting->mac, NET_MAC_BYTES);
    memcpy(frame + 12, packet, sizeof(packet));
    net_checksum_complete(&header, frame, 34); /* of the IP header */
    slirp_input(user->slirp, frame, sizeof(frame));
}

static int user_start(struct user *user, const struct net_setting *setting, struct error *err)
{
    SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .in6_enabled = true,
        .vprefix_len = 64,
        .if_mtu = NET_MTU_MAX,
        .if_mru = NET_MTU_MAX,
    };

    inet_pton(AF_INET, "10.0.2.0", &config.vnetwork);
    inet_pton(AF_INET, "255.255.255.0", &config.vnetmask);
    inet_pton(AF_INET, "10.0.2.2", &config.vhost);
    inet_pton(AF_INET, "10.0.2.15", &config.vdhcp_start);
    inet_pton(AF_INET, "10.0.2.3", &config.vnameserver);
    inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
    inet_pton(AF_INET6, "fec0::2", &config.vhost6);
    inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
    user->slirp = slirp_new(&config, &callbacks, user);
    if (!user->slirp) {
        return error_set(err, ERROR_INTERNAL, 0, "libslirp cannot start");
    }
    user_find_name_server(user, setting);
    int status = 0;
    for (size_t i = 0; i < setting->forward_count && status == 0; i++) {
        status = user_forward(user, &setting->forwards[i], err);
    }
    return status;
}

static struct net_backend *user_open(const struct net_setting *setting, int fd,
                                     struct event_base *base, const struct net_port *port,
                                     struct error *err)
{
    struct user *user = calloc(1, sizeof(*user));

    if (fd >= 0) {
        close(fd); /* nobody gave one */
    }
    if (!user) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for user networking");
        return NULL;
    }
    user->backend = (struct net_backend){
        .operations = &net_backend_user,
        .base = base,
        .port = *port,
        .mtu = setting->mtu ? setting->mtu : NET_MTU_DEFAULT,
    };
    STAILQ_INIT(&user->held);
    user->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    user->ready = event_new(base, user->epoll_fd, EV_READ | EV_PERSIST, user_turn, user);
    user->timer = evtimer_new(base, user_turn, user);
    user->update = event_new(base, -1, 0, user_update, user);
    if (user->epoll_fd < 0 || !user->ready || !user->timer || !user->update ||
        event_add(user->ready, NULL) < 0) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for user networking");
        user_close(&user->backend);
        return NULL;
    }
    if (user_start(user, setting, err) < 0) {
        user_close(&user->backend);
        return NULL;
    }
    user_update_soon(user);
    return &user->backend;
}

const struct net_backend_operations net_backend_user = {
    .open = user_open,
    .close = user_close,
    .send = user_send,
    .resume = user_resume,
    .guest_features = user_guest_features,
};
