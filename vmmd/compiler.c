#include "vmmd/compiler.h"

#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/runtime.h"
#include "libshared/jit/cache_files.h"
#include "libshared/jit/journal.h"
#include "proto/jit.pb-c.h"
#include "vmmd/spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COMPILER_CONFIGURE_MS 30000 /* it initialises LLVM and reads the cache */
#define COMPILER_REQUEST_MS   10000
#define COMPILER_STATS_MS     1000 /* the answer to a person does not wait for it for long */
#define COMPILER_STABLE_NS    (10000 * NS_PER_MS) /* a life that long ends a row of deaths */
#define COMPILER_DELAY_NS     (100 * NS_PER_MS)   /* before the second restart; doubles */
#define COMPILER_DELAY_MAX_NS (5000 * NS_PER_MS)
#define COMPILER_IDLE_NS      (30000 * NS_PER_MS) /* without a machine; then it is ended */
#define COMPILER_SOCKET       "jitd.sock"

/* A machine that wants it. */
struct attachment {
    TAILQ_ENTRY(attachment) link;
    char name[MACHINE_NAME_MAX + 1];
    char path[108]; /* sun_path */
    char arch[16];
};

struct compiler {
    struct compiler_host host;
    char path[128];
    char cache_path[CACHE_DIRECTORY_MAX]; /* empty: no cache */
    TAILQ_HEAD(, attachment) attachments;
    struct child child;
    bool ready;     /* configured */
    bool dismissed; /* ended by us, because nobody wants it */
    bool resting;   /* it ended because it had nothing to do */
    bool crashed;   /* the last one died of what it did */
    bool missing;   /* there is no such program, as the log says */
    unsigned deaths;
    uint64_t started_ns, restart_ns, idle_ns; /* clock_monotonic_ns; 0: not set */
    int journal_fd;                           /* the jobs of the present life */
    int leash_fds[2];                         /* jitd reads; closed with vmmd */
    struct event *step_event, *timer_event;
};

static void compiler_wake(struct compiler *compiler)
{
    event_active(compiler->step_event, EV_TIMEOUT, 0);
}

/* ---- telling it ---- */

static void compiler_on_reply(struct child *child, const struct error *err,
                              const ProtobufCMessage *reply, uint64_t context)
{
    (void)child, (void)reply, (void)context;
    if (err && err->code != ERROR_CRASHED) {
        log_warning("jitd: %s", err->message);
    }
}

static void send_attach(struct compiler *compiler, struct attachment *attachment)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitAttach attach = POLYVISOR__JIT_ATTACH__INIT;

    attach.machine = attachment->name;
    attach.path = attachment->path;
    attach.arch = attachment->arch;
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_ATTACH;
    request.attach = &attach;
    child_request(&compiler->child, &request.base, COMPILER_REQUEST_MS, compiler_on_reply, 0);
}

static void send_detach(struct compiler *compiler, struct attachment *attachment)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitDetach detach = POLYVISOR__JIT_DETACH__INIT;

    detach.machine = attachment->name;
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_DETACH;
    request.detach = &detach;
    child_request(&compiler->child, &request.base, COMPILER_REQUEST_MS, compiler_on_reply, 0);
}

static void report_poisoned(struct compiler *compiler, const Polyvisor__JitControlReply *reply)
{
    for (size_t i = 0; i < reply->n_poisoned && i < JOURNAL_SLOTS; i++) { /* whatever it says */
        const Polyvisor__JitPoisoned *job = reply->poisoned[i];
        publisher_send(compiler->host.publisher, "jit-job-poisoned", "", "jitd",
                       "region %016llx killed it twice and is not compiled any more%s%.300s",
                       (unsigned long long)job->fingerprint, job->path[0] ? "; kept in " : "",
                       job->path);
    }
}

static void compiler_on_configured(struct child *child, const struct error *err,
                                   const ProtobufCMessage *reply, uint64_t context)
{
    struct compiler *compiler = child->owner;
    struct attachment *attachment;
    (void)context;

    if (err) {
        if (err->code != ERROR_CRASHED) { /* its end is handled as such */
            log_warning("jitd cannot start: %s", err->message);
            child_kill(child);
        }
        return;
    }
    compiler->ready = true;
    child_heartbeat_start(child);
    report_poisoned(compiler, (const Polyvisor__JitControlReply *)reply);
    TAILQ_FOREACH(attachment, &compiler->attachments, link)
    {
        send_attach(compiler, attachment);
    }
}

static int send_configure(struct compiler *compiler)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitConfigure configure = POLYVISOR__JIT_CONFIGURE__INIT;

    configure.cache_directory = compiler->cache_path;
    configure.crashed = compiler->crashed;
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_CONFIGURE;
    request.configure = &configure;
    return child_request(&compiler->child, &request.base, COMPILER_CONFIGURE_MS,
                         compiler_on_configured, 0);
}

/* ---- its process ---- */

void compiler_look_at_process(struct compiler *compiler)
{
    child_look(&compiler->child);
}

static void compiler_on_exit(struct child *child)
{
    compiler_wake(child->owner);
}

static void compiler_on_hang(struct child *child)
{
    struct compiler *compiler = child->owner;

    publisher_send(compiler->host.publisher, "hung", "", "jitd", "it %s, killing it",
                   child->stopped ? "was stopped" : "does not answer");
    child_kill(child);
}

static const struct child_callbacks compiler_callbacks = {
    .exited = compiler_on_exit,
    .hung = compiler_on_hang,
};

static void close_descriptors(struct compiler *compiler)
{
    int *fds[] = {&compiler->journal_fd, &compiler->leash_fds[0], &compiler->leash_fds[1]};

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
        *fds[i] = -1;
    }
}

static int make_descriptors(struct compiler *compiler, struct fdlist *list)
{
    if (compiler->journal_fd < 0) {
        compiler->journal_fd = memfd_create("jit-journal", MFD_CLOEXEC);
        if (compiler->journal_fd < 0 ||
            ftruncate(compiler->journal_fd, sizeof(struct journal)) < 0) {
            return -errno;
        }
    }
    if (compiler->leash_fds[0] < 0 && pipe2(compiler->leash_fds, O_CLOEXEC) < 0) {
        return -errno;
    }
    int result = fdlist_add(list, compiler->journal_fd, "journal");
    return result ? result : fdlist_add(list, compiler->leash_fds[0], "leash");
}

static int spawn(struct compiler *compiler, const char *program)
{
    char *argv[] = {(char *)"jitd", (char *)"--control", compiler->path, NULL, NULL, NULL};
    static struct fdlist list;
    struct spawn_gate gate;
    pid_t pid;
    int pidfd, bound_fd;

    if (compiler->cache_path[0]) {
        argv[3] = (char *)"--cache";
        argv[4] = compiler->cache_path;
    }
    list.count = 0;
    int result = make_descriptors(compiler, &list);
    if (result) {
        return result;
    }
    result = spawn_gate_open(&gate);
    if (result) {
        return result;
    }
    result = spawn_process_bound(&gate, program, argv, &list, &pid, &pidfd, &bound_fd);
    if (!result) {
        unlink(compiler->path); /* of an earlier one */
        result = child_attach(&compiler->child, compiler->host.base, &child_protocol_jit,
                              &compiler_callbacks, compiler, "jitd", pid, pidfd, compiler->path,
                              bound_fd);
        result = result ? result : send_configure(compiler);
        if (!result) {
            spawn_gate_release(&gate);
        }
    }
    spawn_gate_close(&gate);
    if (result) {
        child_release(&compiler->child);
    }
    return result;
}

static void schedule_restart(struct compiler *compiler, uint64_t now)
{
    uint64_t delay = 0;

    compiler->deaths++;
    if (compiler->deaths > 1) {
        unsigned doublings = compiler->deaths - 2 < 8 ? compiler->deaths - 2 : 8;
        delay = COMPILER_DELAY_NS << doublings;
    }
    compiler->restart_ns = now + (delay < COMPILER_DELAY_MAX_NS ? delay : COMPILER_DELAY_MAX_NS);
}

static void launch(struct compiler *compiler, uint64_t now)
{
    char program[PATH_MAX];

    compiler->restart_ns = 0;
    if ((size_t)snprintf(program, sizeof(program), "%s/jitd", compiler->host.programs) >=
            sizeof(program) ||
        access(program, X_OK) < 0) {
        log_warning("there is no %s/jitd: guests run without the optimising compiler",
                    compiler->host.programs);
        compiler->missing = true;
        return;
    }
    compiler->ready = compiler->dismissed = compiler->resting = false;
    compiler->started_ns = now;
    int result = spawn(compiler, program);
    if (result) {
        log_warning("cannot start jitd: %s", strerror(-result));
        schedule_restart(compiler, now);
    }
}

/* Whether it died of what it did, and not by the hand of others. Who kills it for its memory or for
 * its silence sends SIGKILL. */
static bool died_of_itself(const struct child *child)
{
    static const int signals[] = {SIGSEGV, SIGBUS,  SIGILL, SIGFPE,
                                  SIGABRT, SIGTRAP, SIGSYS, SIGXCPU};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        if (child->exit_signal == signals[i]) {
            return true;
        }
    }
    return !child->exit_signal && child->exit_code != 0;
}

static void note_end(struct compiler *compiler, uint64_t now)
{
    char text[64];

    child_describe_end(&compiler->child, text, sizeof(text));
    compiler->resting = !compiler->child.exit_signal && !compiler->child.exit_code;
    if (compiler->dismissed || compiler->resting) {
        compiler->deaths = 0;
        compiler->crashed = false;
        compiler->restart_ns = compiler->resting ? 0 : now;
    } else {
        publisher_send(compiler->host.publisher, "jit-died", "", "jitd", "its process %s", text);
        log_info("jitd %s", text);
        compiler->crashed = died_of_itself(&compiler->child);
        if (now - compiler->started_ns >= COMPILER_STABLE_NS) {
            compiler->deaths = 0;
        }
        schedule_restart(compiler, now);
    }
    child_release(&compiler->child);
    compiler->ready = false;
    if (TAILQ_EMPTY(&compiler->attachments)) {
        close_descriptors(compiler); /* suspects are forgotten, poisoned jobs are not */
    }
}

/* ---- the step ---- */

static void arm_timer(struct compiler *compiler, uint64_t now)
{
    uint64_t next = TAILQ_EMPTY(&compiler->attachments)
                        ? (compiler->child.pid ? compiler->idle_ns : 0)
                        : compiler->restart_ns;

    if (!next) {
        evtimer_del(compiler->timer_event);
        return;
    }
    const struct timeval timeout = clock_timeval(next > now ? next - now : 0);
    evtimer_add(compiler->timer_event, &timeout);
}

/* Look at what is so, do what is next. */
static void compiler_step(evutil_socket_t fd, short what, void *argument)
{
    struct compiler *compiler = argument;
    uint64_t now = clock_monotonic_ns();
    bool wanted = !TAILQ_EMPTY(&compiler->attachments);
    (void)fd, (void)what;

    if (compiler->child.pid && !compiler->child.running) {
        note_end(compiler, now);
    }
    if (wanted && !compiler->child.pid && !compiler->missing && compiler->restart_ns &&
        compiler->restart_ns <= now) {
        launch(compiler, now);
    }
    if (!wanted && compiler->child.pid && compiler->idle_ns && compiler->idle_ns <= now) {
        compiler->dismissed = true;
        compiler->idle_ns = 0;
        child_heartbeat_stop(&compiler->child);
        child_kill(&compiler->child); /* it has nothing that could be lost */
    }
    arm_timer(compiler, now);
}

static void compiler_on_timer(evutil_socket_t fd, short what, void *argument)
{
    compiler_step(fd, what, argument);
}

/* ---- machines ---- */

static struct attachment *attachment_find(const struct compiler *compiler, const char *name)
{
    struct attachment *attachment;

    TAILQ_FOREACH(attachment, &compiler->attachments, link)
    {
        if (!strcmp(attachment->name, name)) {
            return attachment;
        }
    }
    return NULL;
}

void compiler_attach(struct compiler *compiler, const char *name, const char *path,
                     const char *arch)
{
    struct attachment *attachment = calloc(1, sizeof(*attachment));

    if (!attachment) {
        return; /* it runs as well without */
    }
    compiler_detach(compiler, name);
    snprintf(attachment->name, sizeof(attachment->name), "%s", name);
    snprintf(attachment->path, sizeof(attachment->path), "%s", path);
    snprintf(attachment->arch, sizeof(attachment->arch), "%s", arch);
    TAILQ_INSERT_TAIL(&compiler->attachments, attachment, link);
    compiler->idle_ns = 0;
    compiler->missing = false; /* it may have been installed since */
    if (compiler->ready && compiler->child.running && !compiler->dismissed) {
        send_attach(compiler, attachment);
    } else if (!compiler->child.pid && !compiler->restart_ns) {
        compiler->restart_ns = clock_monotonic_ns();
    }
    compiler_wake(compiler);
}

void compiler_wanted(struct compiler *compiler)
{
    if (compiler->resting && !compiler->child.pid) {
        compiler->resting = false;
        compiler->restart_ns = clock_monotonic_ns();
        compiler_wake(compiler);
    }
}

void compiler_detach(struct compiler *compiler, const char *name)
{
    struct attachment *attachment = attachment_find(compiler, name);

    if (!attachment) {
        return;
    }
    if (compiler->ready && compiler->child.running) {
        send_detach(compiler, attachment);
    }
    TAILQ_REMOVE(&compiler->attachments, attachment, link);
    free(attachment);
    if (TAILQ_EMPTY(&compiler->attachments)) {
        compiler->idle_ns = clock_monotonic_ns() + (compiler->host.alone ? 0 : COMPILER_IDLE_NS);
    }
    compiler_wake(compiler);
}

const struct child *compiler_process(const struct compiler *compiler, const char *name)
{
    return compiler->child.pid && compiler->child.running && attachment_find(compiler, name)
               ? &compiler->child
               : NULL;
}

void *compiler_context(const struct compiler *compiler)
{
    return compiler->host.context;
}

bool compiler_ask_stats(struct compiler *compiler, child_reply_fn *reply, uint64_t context)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitStatsRequest stats = POLYVISOR__JIT_STATS_REQUEST__INIT;

    if (!compiler->ready || !compiler->child.running) {
        return false;
    }
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_STATS;
    request.stats = &stats;
    return child_request(&compiler->child, &request.base, COMPILER_STATS_MS, reply, context) == 0;
}

/* ---- life ---- */

struct compiler *compiler_open(const struct compiler_host *host, struct error *err)
{
    struct compiler *compiler = calloc(1, sizeof(*compiler));

    if (compiler) {
        compiler->host = *host;
        compiler->journal_fd = compiler->leash_fds[0] = compiler->leash_fds[1] = -1;
        TAILQ_INIT(&compiler->attachments);
        snprintf(compiler->path, sizeof(compiler->path), "%s/" COMPILER_SOCKET, host->directory);
        if (!cache_default_directory(compiler->cache_path, err)) {
            log_warning("%s: going on without a cache of compiled code", err->message);
            compiler->cache_path[0] = '\0';
        }
        compiler->step_event = event_new(host->base, -1, 0, compiler_step, compiler);
        compiler->timer_event = evtimer_new(host->base, compiler_on_timer, compiler);
    }
    if (!compiler || !compiler->step_event || !compiler->timer_event) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        compiler_close(compiler);
        return NULL;
    }
    return compiler;
}

void compiler_close(struct compiler *compiler)
{
    struct attachment *attachment;

    if (!compiler) {
        return;
    }
    child_release(&compiler->child);
    unlink(compiler->path);
    while ((attachment = TAILQ_FIRST(&compiler->attachments))) {
        TAILQ_REMOVE(&compiler->attachments, attachment, link);
        free(attachment);
    }
    close_descriptors(compiler);
    if (compiler->step_event) {
        event_free(compiler->step_event);
    }
    if (compiler->timer_event) {
        event_free(compiler->timer_event);
    }
    free(compiler);
}
