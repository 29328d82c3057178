#include "vmmd/vcpu/control.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/error_message.h"
#include "proto/vcpu.pb-c.h"
#include "vmmd/vcpu/guest.h"
#include "vmmd/vcpu/notices.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <event2/event.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define REPLY_TIMEOUT_MS 200 /* vmmd asked a moment ago: it is there, or has just died */

enum control_state {
    CONTROL_NEW,     /* waits for its configuration */
    CONTROL_READY,   /* configured, no guest instruction run yet */
    CONTROL_RUNNING, /* the guest runs */
    CONTROL_PAUSED,  /* it can go on */
    CONTROL_ENDED,   /* it powered off or failed; CPUs are gone */
    CONTROL_STATE_COUNT
};

static const char *const STATE_TEXTS[CONTROL_STATE_COUNT] = {
    [CONTROL_NEW] = "not configured", [CONTROL_READY] = "not started",
    [CONTROL_RUNNING] = "running",    [CONTROL_PAUSED] = "paused",
    [CONTROL_ENDED] = "ended",
};

struct control {
    struct event_base *base;
    struct channel *channel;
    struct event *receive, *woken, *signalled, *retry, *reset_timer;
    int signal_fd;
    struct fdlist *descriptors;
    struct notices inbox;  /* from any thread */
    struct notices outbox; /* for vmmd, not sent yet; main thread */
    struct guest *guest;
    control_confine *confine; /* NULL: nothing to do */
    enum control_state state;
    struct notice ending;     /* how the guest ended; of kind NONE before */
    unsigned reset_reason;    /* that the guest gave for the last one */
    uint64_t reset_report_ns; /* while a reset waits: when to tell vmmd who it waits for */
};

/* --- requests -------------------------------------------------------------------------------- */

/* Each fills what the reply has beyond its id, and returns 0 or an error with *err set. */
typedef int request_handler(struct control *control, const Polyvisor__VcpuRequest *request,
                            Polyvisor__VcpuReply *reply, struct error *err);

static int do_configure(struct control *control, const Polyvisor__VcpuRequest *request,
                        Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)reply;
    control->guest = guest_create(request->configure, control->descriptors, &control->inbox, err);
    if (!control->guest) {
        return -ERROR_INTERNAL;
    }
    int result = control->confine ? control->confine(err) : 0;
    if (result < 0) {
        return result;
    }
    control->state = CONTROL_READY;
    return 0;
}

static int do_start(struct control *control, const Polyvisor__VcpuRequest *request,
                    Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)request;
    (void)reply;
    int result = guest_run(control->guest, err);
    if (result == 0) {
        control->state = CONTROL_RUNNING;
    }
    return result;
}

static int do_pause(struct control *control, const Polyvisor__VcpuRequest *request,
                    Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)request;
    (void)reply;
    int result = guest_pause(control->guest, err);
    if (result == 0) {
        control->state = CONTROL_PAUSED;
    }
    return result;
}

static int do_stop(struct control *control, const Polyvisor__VcpuRequest *request,
                   Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)request;
    (void)reply;
    (void)err;
    if (control->guest) {
        guest_end(control->guest);
    }
    control->state = CONTROL_ENDED;
    event_base_loopexit(control->base, NULL);
    return 0;
}

/* Look at what a step of a reset came to. One that waits for a device goes on in on_reset_timer, so
 * that vmmd is answered meanwhile. */
static int reset_outcome(struct control *control, int result)
{
    const struct timeval soon = clock_timeval(TUNABLE_RESET_POLL_MS * NS_PER_MS);
    if (result < 0) {
        guest_end(control->guest);
        control->state = CONTROL_ENDED;
    } else if (result == GUEST_RESET_PENDING) {
        event_add(control->reset_timer, &soon);
    }
    return result;
}

static int reset_begin(struct control *control, struct error *err)
{
    control->reset_report_ns = clock_monotonic_ns() + TUNABLE_DEVICE_STUCK_MS * NS_PER_MS;
    return reset_outcome(control, guest_reset(control->guest, err));
}

static int do_reset(struct control *control, const Polyvisor__VcpuRequest *request,
                    Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)request;
    (void)reply;
    control->reset_reason = 0;
    int result = reset_begin(control, err);
    return result < 0 ? result : 0; /* when it waits for a device, a notice tells its end */
}

static int do_device_gone(struct control *control, const Polyvisor__VcpuRequest *request,
                          Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)reply;
    (void)err;
    guest_device_gone(control->guest, request->device_gone->device);
    return 0;
}

static int do_attach(struct control *control, const Polyvisor__VcpuRequest *request,
                     Polyvisor__VcpuReply *reply, struct error *err)
{
    const Polyvisor__VcpuDevice *device = request->attach->device;
    (void)reply;
    if (!device) {
        return error_set(err, ERROR_PROTOCOL, 0, "a request to plug in no device");
    }
    return guest_attach(control->guest, device, request->attach->handover, err);
}

static int do_detach(struct control *control, const Polyvisor__VcpuRequest *request,
                     Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)reply;
    return guest_detach(control->guest, request->detach->device, request->detach->force, err);
}

/* A notice that was sent may have died with the vmmd that it was sent to. That the guest has ended
 * must not be lost: as long as vmmd asks rather than acts, it is told again. */
static int do_ping(struct control *control, const Polyvisor__VcpuRequest *request,
                   Polyvisor__VcpuReply *reply, struct error *err)
{
    const struct notice *ending = &control->ending;
    if (ending->kind != POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_NONE) {
        notices_post(&control->outbox, ending->kind, ending->guest_code, NULL);
    }
    (void)request;
    (void)reply;
    (void)err;
    return 0;
}

static int do_stats(struct control *control, const Polyvisor__VcpuRequest *request,
                    Polyvisor__VcpuReply *reply, struct error *err)
{
    (void)request;
    (void)err;
    guest_stats(control->guest, reply->stats);
    return 0;
}

static int do_code(struct control *control, const Polyvisor__VcpuRequest *request,
                   Polyvisor__VcpuReply *reply, struct error *err)
{
    reply->code = guest_list_code(control->guest, request->code, err);
    return reply->code ? 0 : -(int)err->code;
}

#define IN(state) (1u << (state))
#define CONFIGURED                                                                                 \
    (IN(CONTROL_READY) | IN(CONTROL_RUNNING) | IN(CONTROL_PAUSED) | IN(CONTROL_ENDED))
#define ALIVE  (IN(CONTROL_READY) | IN(CONTROL_RUNNING) | IN(CONTROL_PAUSED))
#define ALWAYS (IN(CONTROL_NEW) | CONFIGURED)

static const struct request_kind {
    const char *name;
    request_handler *handler;
    unsigned states; /* in which it is allowed */
    bool has_stats;
} REQUESTS[] = {
    [POLYVISOR__VCPU_REQUEST__BODY_CONFIGURE] = {"configure", do_configure, IN(CONTROL_NEW), false},
    [POLYVISOR__VCPU_REQUEST__BODY_START] = {"start", do_start,
                                             IN(CONTROL_READY) | IN(CONTROL_PAUSED), false},
    [POLYVISOR__VCPU_REQUEST__BODY_PAUSE] = {"pause", do_pause,
                                             IN(CONTROL_RUNNING) | IN(CONTROL_PAUSED), false},
    [POLYVISOR__VCPU_REQUEST__BODY_STOP] = {"stop", do_stop, ALWAYS, false},
    [POLYVISOR__VCPU_REQUEST__BODY_RESET] = {"reset", do_reset, ALIVE, false},
    [POLYVISOR__VCPU_REQUEST__BODY_PING] = {"ping", do_ping, ALWAYS, false},
    [POLYVISOR__VCPU_REQUEST__BODY_STATS] = {"stats", do_stats, CONFIGURED, true},
    [POLYVISOR__VCPU_REQUEST__BODY_DEVICE_GONE] = {"the end of a device", do_device_gone,
                                                   CONFIGURED, false},
    [POLYVISOR__VCPU_REQUEST__BODY_CODE] = {"a look at code", do_code, CONFIGURED, false},
    [POLYVISOR__VCPU_REQUEST__BODY_ATTACH] = {"plugging in a device", do_attach, ALIVE, false},
    [POLYVISOR__VCPU_REQUEST__BODY_DETACH] = {"unplugging a device", do_detach, ALIVE, false},
};

static int handle_request(struct control *control, const Polyvisor__VcpuRequest *request,
                          Polyvisor__VcpuReply *reply, Polyvisor__VcpuStats *stats,
                          struct error *err)
{
    unsigned body = (unsigned)request->body_case;
    if (body >= sizeof(REQUESTS) / sizeof(REQUESTS[0]) || !REQUESTS[body].handler) {
        return error_set(err, ERROR_PROTOCOL, 0, "vcpud does not know this request");
    }
    const struct request_kind *kind = &REQUESTS[body];
    if (!(kind->states & IN(control->state))) {
        return error_set(err, ERROR_STATE, 0, "%s is not possible: the guest is %s", kind->name,
                         STATE_TEXTS[control->state]);
    }
    reply->stats = kind->has_stats ? stats : NULL;
    return kind->handler(control, request, reply, err);
}

static void answer(struct control *control, const Polyvisor__VcpuRequest *request)
{
    Polyvisor__VcpuReply reply = POLYVISOR__VCPU_REPLY__INIT;
    Polyvisor__VcpuStats stats = POLYVISOR__VCPU_STATS__INIT;
    Polyvisor__Error message = POLYVISOR__ERROR__INIT;
    struct error err = {0};

    reply.id = request->id;
    if (handle_request(control, request, &reply, &stats, &err) != 0) {
        error_component(&err, "vcpud");
        error_to_message(&err, &message);
        reply.error = &message;
        reply.stats = NULL;
        if (err.code == ERROR_BUSY) { /* it is asked again and again until the guest lets go */
            log_debug("%s", err.message);
        } else {
            log_warning("%s", err.message);
        }
    }
    int result = channel_send(control->channel, &reply.base, REPLY_TIMEOUT_MS);
    if (result != 0) {
        log_warning("cannot answer vmmd: %s", strerror(-result));
    }
    if (reply.code) {
        polyvisor__code_listing__free_unpacked(reply.code, NULL);
    }
}

/* --- notices --------------------------------------------------------------------------------- */

static int send_notice(struct control *control, const struct notice *notice)
{
    Polyvisor__VcpuReply message = POLYVISOR__VCPU_REPLY__INIT;
    char device[NOTICE_DEVICE_MAX];
    strcpy(device, notice->device);
    message.notice = notice->kind;
    message.guest_code = notice->guest_code;
    message.device = device;
    return channel_send(control->channel, &message.base, 0);
}

static void flush_outbox(struct control *control)
{
    const struct timeval again = clock_timeval(TUNABLE_NOTICE_RETRY_MS * NS_PER_MS);
    struct notice notice;
    while (notices_peek(&control->outbox, &notice)) {
        if (send_notice(control, &notice) != 0) {
            event_add(control->retry, &again); /* vmmd is away, or slow */
            return;
        }
        notices_take(&control->outbox, &notice);
    }
}

/* True: vmmd is to hear of it. */
typedef bool reaction(struct control *control);

static bool end_guest(struct control *control)
{
    guest_end(control->guest);
    control->state = CONTROL_ENDED;
    return true;
}

static void reset_failed(struct control *control, const struct error *err)
{
    log_error("the guest cannot be reset: %s", err->message);
    control->ending = (struct notice){
        .kind = POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_GUEST_FAILURE, .guest_code = 1};
    notices_post(&control->outbox, control->ending.kind, 1, NULL);
}

static bool reset_guest(struct control *control)
{
    struct error err = {0};
    int result = reset_begin(control, &err);
    if (result < 0) {
        reset_failed(control, &err);
    }
    return result == 0; /* one that waits is reported when it is done */
}

static bool no_reaction(struct control *control)
{
    (void)control;
    return true;
}

/* What vcpud itself does when something happened, before vmmd hears of it. */
static reaction *const REACTIONS[] = {
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_NONE] = no_reaction,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_POWER_OFF] = end_guest,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET] = reset_guest,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_GUEST_FAILURE] = end_guest,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_TIMEOUT] = no_reaction,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_STUCK] = no_reaction,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_COMPILER_WANTED] = no_reaction,
    [POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_DEVICE_SLOW] = no_reaction,
};

/* --- events ---------------------------------------------------------------------------------- */

static void on_request(evutil_socket_t fd, short what, void *context)
{
    struct control *control = context;
    ProtobufCMessage *message = NULL;
    (void)fd;
    (void)what;
    int result =
        channel_receive(control->channel, &polyvisor__vcpu_request__descriptor, &message, 0);
    if (result == 0) {
        answer(control, (const Polyvisor__VcpuRequest *)message);
        protobuf_c_message_free_unpacked(message, NULL);
        flush_outbox(control); /* vmmd is there */
    } else if (result != -EAGAIN && result != -ETIMEDOUT) {
        log_warning("a message on the control socket was dropped: %s", strerror(-result));
    }
}

static void on_notice(evutil_socket_t fd, short what, void *context)
{
    struct control *control = context;
    struct notice notice;
    uint64_t count;
    (void)what;
    ssize_t got = read(fd, &count, sizeof(count));
    (void)got; /* empty: the queue decides */
    while (notices_take(&control->inbox, &notice)) {
        /* What the guest asked for just before it was ended is void. */
        if (control->state == CONTROL_ENDED) {
            continue;
        }
        if (notice.kind == POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET) {
            control->reset_reason = notice.guest_code;
        }
        if (REACTIONS[notice.kind](control)) {
            if (control->state == CONTROL_ENDED) {
                control->ending = notice;
            }
            notices_post(&control->outbox, notice.kind, notice.guest_code, notice.device);
        }
        flush_outbox(control); /* each by itself: equal ones that wait together become one */
    }
}

static void on_reset_timer(evutil_socket_t fd, short what, void *context)
{
    struct control *control = context;
    struct error err = {0};
    (void)fd;
    (void)what;
    if (control->state == CONTROL_ENDED) {
        return;
    }
    int result = reset_outcome(control, guest_reset_continue(control->guest, &err));
    if (result < 0) {
        reset_failed(control, &err);
    } else if (result == 0) {
        notices_post(&control->outbox, POLYVISOR__VCPU_NOTICE_KIND__VCPU_NOTICE_RESET,
                     control->reset_reason, NULL);
    } else if (clock_monotonic_ns() >= control->reset_report_ns) {
        guest_report_stuck(control->guest);
        control->reset_report_ns = clock_monotonic_ns() + TUNABLE_DEVICE_STUCK_MS * NS_PER_MS;
    }
    flush_outbox(control);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    flush_outbox(context);
}

static void on_signal(evutil_socket_t fd, short what, void *context)
{
    struct control *control = context;
    struct signalfd_siginfo info;
    (void)what;
    if (read(fd, &info, sizeof(info)) == sizeof(info)) {
        log_info("signal %u: stopping", info.ssi_signo);
        event_base_loopexit(control->base, NULL);
    }
}

/* --- life ------------------------------------------------------------------------------------ */

static int open_events(struct control *control)
{
    const short persistent = EV_READ | EV_PERSIST;
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    control->signal_fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    control->base = event_base_new();
    if (control->signal_fd < 0 || !control->base) {
        return -1;
    }
    control->receive = event_new(control->base, channel_receive_fd(control->channel), persistent,
                                 on_request, control);
    control->woken =
        event_new(control->base, control->inbox.wake_fd, persistent, on_notice, control);
    control->signalled =
        event_new(control->base, control->signal_fd, persistent, on_signal, control);
    control->retry = event_new(control->base, -1, 0, on_retry, control);
    control->reset_timer = event_new(control->base, -1, 0, on_reset_timer, control);
    if (!control->receive || !control->woken || !control->signalled || !control->retry ||
        !control->reset_timer) {
        return -1;
    }
    return event_add(control->receive, NULL) | event_add(control->woken, NULL) |
           event_add(control->signalled, NULL);
}

struct control *control_open(const char *path, struct fdlist *descriptors, struct error *err)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the control socket");
        return NULL;
    }
    control->descriptors = descriptors;
    control->signal_fd = -1;
    if (notices_init(&control->inbox) != 0 || notices_init(&control->outbox) != 0) {
        error_set(err, ERROR_INTERNAL, errno, "cannot make an eventfd: %s", strerror(errno));
        free(control);
        return NULL;
    }
    control->channel = channel_bind(CHANNEL_VCPU, NN_PAIR, path);
    if (!control->channel) {
        error_set(err, ERROR_IO, errno, "cannot bind the control socket %s: %s", path,
                  strerror(errno));
        control_close(control);
        return NULL;
    }
    if (open_events(control) != 0) {
        error_set(err, ERROR_INTERNAL, errno, "cannot set up the event loop: %s", strerror(errno));
        control_close(control);
        return NULL;
    }
    return control;
}

void control_confine_with(struct control *control, control_confine *confine)
{
    control->confine = confine;
}

int control_loop(struct control *control)
{
    return event_base_dispatch(control->base) < 0 ? -EIO : 0;
}

void control_close(struct control *control)
{
    struct event *events[] = {control->receive, control->woken, control->signalled, control->retry,
                              control->reset_timer};
    guest_destroy(control->guest);
    for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    if (control->base) {
        event_base_free(control->base);
    }
    channel_close(control->channel);
    if (control->signal_fd >= 0) {
        close(control->signal_fd);
    }
    notices_destroy(&control->outbox);
    notices_destroy(&control->inbox);
    free(control);
}
