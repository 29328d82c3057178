/*
 * jitd as vmmd sees it: one process for all machines, started when the first of them wants it,
 * watched, restarted, and told which machines there are. No machine depends on it: when it cannot
 * be had, the log says so, and guests run on what vcpud itself compiles.
 *
 * As with machines, callbacks only note what happened; compiler_step looks at what is so and does
 * what is next.
 */
#ifndef POLYVISOR_VMMD_COMPILER_H
#define POLYVISOR_VMMD_COMPILER_H

#include "vmmd/child.h"
#include "vmmd/events.h"
#include <event2/event.h>

struct compiler;

/* What it needs of the supervisor it lives in. */
struct compiler_host {
    struct event_base *base;
    struct publisher *publisher;
    const char *directory; /* runtime directory */
    const char *programs;  /* folder of jitd */
    bool alone;            /* there will be no machine after the last */
    void *context;         /* compiler_context */
};

/* Starts nothing yet. `host` is copied; what it points to must outlive the compiler. NULL with *err
 * set. */
struct compiler *compiler_open(const struct compiler_host *host, struct error *err);
void compiler_close(struct compiler *compiler); /* NULL is allowed; ends the process */

/* Machine `name`, whose vcpud has bound `path`, wants it, until it is detached. */
void compiler_attach(struct compiler *compiler, const char *name, const char *path,
                     const char *arch);
void compiler_detach(struct compiler *compiler, const char *name);
/* One of them has something to compile: a jitd that rests because there was nothing to do for a
 * while is started again. */
void compiler_wanted(struct compiler *compiler);
/* A child of vmmd has changed (SIGCHLD): see whether it was stopped. */
void compiler_look_at_process(struct compiler *compiler);
/* The process that serves the machine, or NULL. */
const struct child *compiler_process(const struct compiler *compiler, const char *name);
/* What the host gave; the owner of the child in replies is the compiler. */
void *compiler_context(const struct compiler *compiler);
/* Ask for its counters (JitControlReply); `reply` as for child_request. False: nobody to ask. */
bool compiler_ask_stats(struct compiler *compiler, child_reply_fn *reply, uint64_t context);

#endif
