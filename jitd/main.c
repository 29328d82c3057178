/*
 * jitd: compiles hot guest code with LLVM, for all machines of one vmmd. Started by vmmd; it has no
 * guest memory, and it may die at any time. See docs/design/jit.md.
 */
#include "jitd/jit_control.h"
#include "jitd/replay.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/base/scheduling.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/ipc/runtime.h"
#include "libshared/ipc/sandbox.h"
#include "libshared/jit/cache_files.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define OPEN_FILES_MAX 2048
#define MEMORY_MAX     (UINT64_C(4) << 30) /* of address space: LLVM may not eat the host */
#define NICE           5
#define OOM_SCORE      "500" /* rather this than a guest */
/* nanomsg sends from a thread of its own and drops what it has not sent when the socket closes. */
#define LINGER_MS 20

struct jitd {
    const char *control_path, *replay_path, *cache_path;
    struct event_base *base;
    struct event *terminate, *leash;
    struct jit_control *control;
    struct service *service;
    int leash_fd, journal_fd;
};

static const char usage[] = "usage: jitd --control SOCKET [--cache DIR]    (started by vmmd)\n"
                            "       jitd --replay FILE       compile a region that was kept and "
                            "print what becomes of it\n";

static bool parse_arguments(struct jitd *jitd, int argc, char **argv)
{
    static const struct option options[] = {
        {"control", required_argument, NULL, 'c'},
        {"replay", required_argument, NULL, 'r'},
        {"cache", required_argument, NULL, 'd'},
        {NULL, 0, NULL, 0},
    };
    int option;

    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            jitd->control_path = optarg;
            break;
        case 'r':
            jitd->replay_path = optarg;
            break;
        case 'd':
            jitd->cache_path = optarg;
            break;
        default:
            return false;
        }
    }
    return !jitd->control_path != !jitd->replay_path && optind == argc;
}

static void limit(int resource, rlim_t value)
{
    struct rlimit limits;

    if (getrlimit(resource, &limits) == 0 && limits.rlim_cur > value) {
        limits.rlim_cur = value;
        limits.rlim_max = limits.rlim_max > value ? value : limits.rlim_max;
        setrlimit(resource, &limits);
    }
}

/* All of the file system that is left: the runtime directory, for its sockets, and the cache. */
static bool isolate(const struct jitd *jitd, struct error *err)
{
    const char *const also[] = {jitd->cache_path, NULL};
    /* vmmd's own sockets: who can talk to it can have anything of this user's. */
    static const char *const hidden[] = {"control.sock", "events.sock", NULL};
    const char *end = strrchr(jitd->control_path, '/');
    char directory[RUNTIME_PATH_MAX];
    const struct sandbox_isolation isolation = {
        .directory = directory,
        .hidden = hidden,
        .also = also,
        .keep_user = true, /* who owns the cache */
    };
    struct error ignored;

    if (end == NULL || (size_t)(end - jitd->control_path) >= sizeof(directory)) {
        error_set(err, ERROR_CONFIG, 0, "'%.100s' is no path of a socket", jitd->control_path);
        return false;
    }
    snprintf(directory, sizeof(directory), "%.*s", (int)(end - jitd->control_path),
             jitd->control_path);
    if (jitd->cache_path) { /* what does not exist cannot be kept in view */
        int fd = cache_open_directory(jitd->cache_path, true, &ignored);
        if (fd >= 0) {
            close(fd);
        }
    }
    return sandbox_isolate(&isolation, err) == 0;
}

/* The leash says that vmmd is gone, and whoever took this process over would not listen: it would
 * see the sockets of the next vmmd, which come in the place of those that were hidden from it. The
 * kernel lets nobody go on, and the filter does not let anybody take that back. */
static void end_with_parent(void)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        log_warning("jitd may outlive vmmd: %s", strerror(errno));
    }
}

/* Give up what is not needed. Compilers are large: it is this process that goes first when the host
 * runs out of memory, since nobody depends on it; and the guests' threads run before its own. */
static bool confine(const struct jitd *jitd, struct error *err)
{
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (score >= 0) {
        if (write(score, OOM_SCORE, sizeof(OOM_SCORE) - 1) < 0) {
            log_debug("cannot offer itself to the host's out-of-memory handling");
        }
        close(score);
    }
    scheduling_set(SCHEDULING_ORDINARY); /* not vmmd's */
    setpriority(PRIO_PROCESS, 0, NICE);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, OPEN_FILES_MAX);
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
    limit(RLIMIT_AS, MEMORY_MAX);
#endif
    if (!isolate(jitd, err)) {
        return false;
    }
    if (jitd->leash_fd >= 0) {
        end_with_parent(); /* a change of who it is would have taken it back */
    }
    return true;
}

static void on_terminate(evutil_socket_t number, short what, void *argument)
{
    struct jitd *jitd = argument;
    (void)number, (void)what;

    event_base_loopexit(jitd->base, NULL);
}

static bool open_events(struct jitd *jitd, struct error *err)
{
    jitd->base = event_base_new();
    if (jitd->base) {
        jitd->terminate = evsignal_new(jitd->base, SIGTERM, on_terminate, jitd);
    }
    if (jitd->base && jitd->leash_fd >= 0) {
        jitd->leash = event_new(jitd->base, jitd->leash_fd, EV_READ, on_terminate, jitd);
    }
    if (!jitd->terminate || event_add(jitd->terminate, NULL) < 0 ||
        (jitd->leash && event_add(jitd->leash, NULL) < 0)) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the event loop");
        return false;
    }
    return true;
}

static bool serve(struct jitd *jitd, struct error *err)
{
    static struct fdlist descriptors;

    if (fdlist_inherit(&descriptors) < 0) {
        error_set(err, ERROR_CONFIG, 0, "the inherited descriptors are not as announced");
        return false;
    }
    jitd->leash_fd = fdlist_take(&descriptors, "leash");
    jitd->journal_fd = fdlist_take(&descriptors, "journal");
    if (!confine(jitd, err)) {
        return false;
    }
    jitd->control = jit_control_open(jitd->control_path, err);
    if (!jitd->control || !open_events(jitd, err)) {
        return false;
    }
    fdlist_tell(&descriptors, "bound");
    jitd->service = service_create(
        &(struct service_options){.base = jitd->base, .journal_fd = jitd->journal_fd}, err);
    if (!jitd->service || !jit_control_serve(jitd->control, jitd->base, jitd->service, err)) {
        return false;
    }
    /* From here on vmmd configures it and names machines. */
    if (event_base_dispatch(jitd->base) < 0) {
        error_set(err, ERROR_INTERNAL, errno, "the event loop failed");
        return false;
    }
    if (service_hangs(jitd->service)) {
        error_set(err, ERROR_TIMEOUT, 0, "a job does not end");
        return false;
    }
    const struct timespec time = clock_timespec(LINGER_MS * NS_PER_MS);
    nanosleep(&time, NULL);
    return true;
}

/* False: a thread is still compiling, and nothing may be taken from under it. The control socket is
 * not closed: nanomsg would remove its file, which a confined process may not, and ends the process
 * when it cannot. vmmd removes it. */
static bool release(struct jitd *jitd)
{
    struct event *events[] = {jitd->terminate, jitd->leash};

    if (jitd->service && !service_destroy(jitd->service)) {
        return false;
    }
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i]) {
            event_free(events[i]);
        }
    }
    if (jitd->base) {
        event_base_free(jitd->base);
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct jitd jitd = {.leash_fd = -1, .journal_fd = -1};
    struct error err = {0};

    log_open("jitd");
    if (!parse_arguments(&jitd, argc, argv)) {
        fputs(usage, stderr);
        return error_exit_status(ERROR_USAGE);
    }
    /* Stopped or not, it does not outlive vmmd. */
    if (!jitd.replay_path) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);

    bool done = jitd.replay_path ? replay_file(jitd.replay_path, &err) : serve(&jitd, &err);
    if (!done) {
        log_error("%s", err.message);
    }
    int status = done ? 0 : error_exit_status(err.code);
    if (!release(&jitd)) {
        _exit(status);
    }
    return status;
}
