/*
 * What jitd does: the cache, the queue, the workers, and the machines' sessions, held together.
 * One object a process; main thread only.
 */
#ifndef POLYVISOR_JITD_SERVICE_H
#define POLYVISOR_JITD_SERVICE_H

#include "libshared/base/clock.h"
#include "libshared/base/error.h"
#include "proto/jit.pb-c.h"
#include <event2/event.h>

#define SERVICE_QUEUE_MAX    256u
#define SERVICE_MACHINES_MAX 256u
/* Processor time for one job; LLVM needs some milliseconds, or hangs. */
#define SERVICE_JOB_LIMIT_NS (20 * NS_PER_S)

struct service;

struct service_options {
    struct event_base *base;
    int journal_fd; /* libshared/jit/journal.h; -1: none. Stays the caller's. */
};

/* NULL with *err set. */
struct service *service_create(const struct service_options *options, struct error *err);
/* False: a worker is still at its job, and nothing was freed; all that is left is to _exit. */
bool service_destroy(struct service *service);

/* Once, before anything else. Lists what the last life died of in `reply` (freed by
 * service_free_reply). 0 or a negative code with *err set. A cache that cannot be used is no error:
 * the log says so. */
int service_configure(struct service *service, const Polyvisor__JitConfigure *configure,
                      Polyvisor__JitControlReply *reply, struct error *err);
void service_free_reply(Polyvisor__JitControlReply *reply);
/* vmmd has the answer to that (it has asked for something else): begin with what the life before
 * left. It may kill this one as well, and what the answer said must not be lost by that. */
void service_begin(struct service *service);
/* Serve the machine's vcpud at `path`. One that is attached already is attached anew. */
int service_attach(struct service *service, const Polyvisor__JitAttach *attach, struct error *err);
void service_detach(struct service *service, const char *machine);
void service_stats(struct service *service, Polyvisor__JitStats *stats);
/* A job took too long, and the loop was left: end with a status other than 0. */
bool service_hangs(const struct service *service);

#endif
