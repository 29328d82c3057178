#include "vmmd/reaper.h"

#include "libshared/base/clock.h"
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAPER_WAITING_MAX 256
#define REAPER_DELAY_NS    (REAPER_DELAY_MS * NS_PER_MS)

struct reaper {
    struct event *timer;
    struct {
        int pidfd;
        uint64_t due_ns;           /* of clock_monotonic_ns */
    } waiting[REAPER_WAITING_MAX]; /* a ring, in order of time */
    unsigned first, count;
};

static void reaper_collect(int pidfd)
{
    siginfo_t info;

    waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    close(pidfd);
}

static void reaper_collect_first(struct reaper *reaper)
{
    reaper_collect(reaper->waiting[reaper->first].pidfd);
    reaper->first = (reaper->first + 1) % REAPER_WAITING_MAX;
    reaper->count--;
}

/* Come back when the first is due. */
static void reaper_set_timer(struct reaper *reaper)
{
    uint64_t now = clock_monotonic_ns(), due = reaper->waiting[reaper->first].due_ns;
    const struct timeval left = clock_timeval(due > now ? due - now : 0);

    event_add(reaper->timer, &left);
}

static void reaper_on_timer(evutil_socket_t fd, short what, void *context)
{
    struct reaper *reaper = context;
    uint64_t now = clock_monotonic_ns();
    (void)fd, (void)what;

    while (reaper->count && reaper->waiting[reaper->first].due_ns <= now) {
        reaper_collect_first(reaper);
    }
    if (reaper->count) {
        reaper_set_timer(reaper);
    }
}

struct reaper *reaper_open(struct event_base *base)
{
    struct reaper *reaper = calloc(1, sizeof(*reaper));

    if (!reaper) {
        return NULL;
    }
    reaper->timer = evtimer_new(base, reaper_on_timer, reaper);
    if (!reaper->timer) {
        free(reaper);
        return NULL;
    }
    return reaper;
}

void reaper_take(struct reaper *reaper, int pidfd)
{
    if (pidfd < 0) {
        return;
    }
    if (!reaper || reaper->count == REAPER_WAITING_MAX) {
        reaper_collect(pidfd);
        return;
    }
    unsigned last = (reaper->first + reaper->count) % REAPER_WAITING_MAX;
    reaper->waiting[last].pidfd = pidfd;
    reaper->waiting[last].due_ns = clock_monotonic_ns() + REAPER_DELAY_NS;
    if (reaper->count++ == 0) {
        reaper_set_timer(reaper);
    }
}

void reaper_close(struct reaper *reaper)
{
    if (!reaper) {
        return;
    }
    while (reaper->count) {
        reaper_collect_first(reaper);
    }
    event_free(reaper->timer);
    free(reaper);
}
