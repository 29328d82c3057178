/*
 * A process that vmmd started, seen from the event loop: its end (by pidfd), its control channel
 * with requests that have deadlines, its heartbeat.
 *
 * Its owner embeds `struct child` and learns what happens through callbacks from the event loop.
 * A callback must not release the child: it notes what happened and lets the owner's own event
 * act (machine_wake). Everything a child sends is hostile: a message that is not a valid reply is
 * dropped, and a child that sends many is killed.
 */
#ifndef POLYVISOR_VMMD_CHILD_H
#define POLYVISOR_VMMD_CHILD_H

#include "libshared/base/error.h"
#include "libshared/ipc/channel.h"
#include "vmmd/pulse.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#define CHILD_HEARTBEAT_MS 2000
/* Beats without an answer in a row: the process hangs. The first tells when to begin to look at it.
 */
#define CHILD_HEARTBEAT_MISSED 3
/* The same for one whose end is the end of a machine. */
#define CHILD_HEARTBEAT_MISSED_PRECIOUS 5
/* A beat that is late by more than this part of the time between two says more about vmmd than
 * about the child. */
#define CHILD_HEARTBEAT_LATE_PART 4
/* The same for one that somebody waits for: without a sign of life in that time it hangs. */
#define CHILD_DOUBT_MS 1000
/* Until then, of that time, it is not looked at in /proc. */
#define CHILD_DOUBT_AT_ONCE_MS 250

struct child;

/* What differs between the conversations with vcpud, devd and jitd. */
struct child_protocol {
    enum channel_kind kind;
    const ProtobufCMessageDescriptor *reply_type;
    void (*set_id)(ProtobufCMessage *request, uint64_t id);
    uint64_t (*reply_id)(const ProtobufCMessage *reply);
    /* False when the reply reports success. */
    bool (*reply_error)(const ProtobufCMessage *reply, struct error *err);
    void (*ping)(struct child *child);
};
extern const struct child_protocol child_protocol_vcpu;
extern const struct child_protocol child_protocol_device;
extern const struct child_protocol child_protocol_jit;

struct child_callbacks {
    void (*exited)(struct child *child); /* once, after everything it had sent was received */
    void (*hung)(struct child *child);   /* once: CHILD_HEARTBEAT_MISSED beats in a row missed, no
                                          * answer in CHILD_DOUBT_MS, or stopped from outside */
    void (*notice)(struct child *child, const ProtobufCMessage *message); /* unasked, id 0 */
    /* Asked at each beat: whether something waits for it, so that it is to be looked at closely
     * (child_doubt). NULL: never. */
    bool (*waited_for)(struct child *child);
    /* Somebody stopped it (SIGSTOP), or let it go on; see child_look. NULL: that is a hang. */
    void (*held)(struct child *child, bool stopped);
    /* Nothing can take its place: only what hangs beyond doubt is reported. */
    bool precious;
};

/* The answer to a request: err is NULL on success; reply is NULL when none came (deadline passed:
 * ERROR_TIMEOUT, the process ended: ERROR_CRASHED). */
typedef void child_reply_fn(struct child *child, const struct error *err,
                            const ProtobufCMessage *reply, uint64_t context);

struct child {
    char role[24]; /* "vcpud", "devd/disk0" */
    pid_t pid;     /* 0: no process */
    int pidfd;
    uint64_t start_time; /* of process_start_time */
    bool running;
    bool put_down;              /* by child_kill, or by child_dismiss: it may end as it likes */
    bool stopped;               /* by somebody else, when it was found hung */
    int exit_code, exit_signal; /* once it has ended: status, or the signal that killed it */
    void *owner;

    const struct child_protocol *protocol;
    const struct child_callbacks *callbacks;
    struct event_base *base;
    struct channel *channel;
    char socket_path[108]; /* sun_path */
    int bound_fd;          /* -1: it has bound that */
    struct event *exit_event, *settle_event, *bound_event, *receive_event, *send_event,
        *heartbeat_event, *doubt_event;
    uint64_t last_id;
    TAILQ_HEAD(, child_request) requests; /* sent or waiting to be sent, in that order */
    unsigned missed, malformed;
    bool ping_pending, hang_reported;
    int beat_ms; /* CHILD_HEARTBEAT_MS; a test may make it shorter before the first */
    uint64_t beat_ns, doubt_ns;
    struct pulse pulse, doubt_pulse; /* at the last beat; since it did not answer at once */
    bool pulse_taken, doubt_pulsed;  /* whether they were taken */
};

/* Watch the process `pid` that was just spawned, whose pidfd becomes the child's, and connect to
 * the control socket that it binds or will bind: the caller has removed what an earlier process
 * left there, which would be taken for the new one. `bound_fd` becomes the child's: a pipe that can
 * be read once the socket is bound; -1 to try until it is, for one that was bound before. 0 or
 * negative errno; either way child_release must follow.
 */
int child_attach(struct child *child, struct event_base *base,
                 const struct child_protocol *protocol, const struct child_callbacks *callbacks,
                 void *owner, const char *role, pid_t pid, int pidfd, const char *socket_path,
                 int bound_fd);
/* Ask. The message is copied. `reply` is called exactly once: later from the event loop, or by
 * child_release. 0, or without a call: -ESRCH when the process has ended, -EMSGSIZE,
 * -ENOMEM. */
int child_request(struct child *child, ProtobufCMessage *message, int deadline_ms,
                  child_reply_fn *reply, uint64_t context);
/* Begin to ping, once the process is configured; and cease, before it is asked to stop. */
void child_heartbeat_start(struct child *child);
void child_heartbeat_stop(struct child *child);
/* Somebody waits for it: see soon whether it hangs. Nothing while it is not pinged. */
void child_doubt(struct child *child);
/* A child has changed (SIGCHLD): see whether this one was stopped or continued. */
void child_look(struct child *child);
/* SIGKILL. Its end is reported by `exited`. */
void child_kill(struct child *child);
/* A child_reply_fn for the request to stop of a process that waits, once it has answered, for its
 * answer to arrive: tells it that it has, by SIGTERM. */
void child_dismiss(struct child *child, const struct error *err, const ProtobufCMessage *reply,
                   uint64_t context);
/* The pidfd of one whose end was reported, for the caller to collect it (waitid) when there is time
 * for it; child_release does it otherwise. -1 when there is none. */
int child_inherit(struct child *child);
/* Forget it; kills and waits when it still runs (only on the way out of a failed start). Requests
 * that are open fail with ERROR_CRASHED first. */
void child_release(struct child *child);
/* "was killed by signal 9 (Killed)" or "exited with status 1". */
void child_describe_end(const struct child *child, char *text, size_t size);

#endif
