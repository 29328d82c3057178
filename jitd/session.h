/*
 * The conversation with one machine's vcpud: jitd connects to its socket, says what the cache has,
 * and answers requests in any order. Main thread only. vcpud is as little trusted as its guest:
 * what is no request is dropped, and one that keeps sending such is not listened to any more.
 */
#ifndef POLYVISOR_JITD_SESSION_H
#define POLYVISOR_JITD_SESSION_H

#include "libshared/jit/region.h"
#include "proto/jit.pb-c.h"
#include <event2/event.h>
#include <sys/queue.h>

/* That wait for an answer, or whose answer waits to be sent. vcpud has fewer open
 * (JIT_LINK_REQUESTS); one machine must not fill the queue of all. */
#define SESSION_REQUESTS_MAX 64u

struct session;
TAILQ_HEAD(session_list, session);

/* What the other side asks for; from the event loop. */
struct session_service {
    void (*compile)(void *context, struct session *session, uint64_t id,
                    const Polyvisor__JitCompile *request);
    void (*cancel)(void *context, struct session *session, uint64_t id);
    void (*fetch)(void *context, struct session *session, uint64_t id,
                  const Polyvisor__JitFetch *request);
};

struct session {
    TAILQ_ENTRY(session) link;
    char machine[64];
    unsigned open; /* requests taken and not answered; kept by session.c */
    struct session_private *own;
};

/* NULL with *err set. */
struct session *session_open(struct event_base *base, const char *machine, const char *path,
                             const struct session_service *service, void *context,
                             struct error *err);
void session_close(struct session *session);

/* Say what the cache has: `first` at the beginning, with everything; later, what is new. */
void session_welcome(struct session *session, const uint64_t *fingerprints, size_t count,
                     bool first);

struct session_answer {
    Polyvisor__JitStatus status;
    const struct region *region; /* when it is not the one that was asked for; copied */
    uint64_t shape;
    const uint8_t *blob; /* or NULL; copied */
    size_t blob_size;
    bool cached;
    uint64_t compile_ns;
    const char *reason; /* or NULL */
};
/* Answer a request, now or when the other side takes it. */
void session_reply(struct session *session, uint64_t id, const struct session_answer *answer);

#endif
