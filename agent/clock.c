#include "agent/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NS_A_SECOND INT64_C(1000000000)
#define AGREES_NS   (2 * NS_A_SECOND)  /* the real-time clock tells whole seconds */
#define SLOW_NS     (NS_A_SECOND / 4)  /* a reading that took longer says too little */
#define FAR_AWAY    (10 * 365 * 86400) /* seconds: the watching timer is not to expire */

static int64_t now_ns(clockid_t which)
{
    struct timespec time;

    clock_gettime(which, &time);
    return time.tv_sec * NS_A_SECOND + time.tv_nsec;
}

static time_t uptime(void)
{
    return (time_t)(now_ns(CLOCK_MONOTONIC) / NS_A_SECOND);
}

bool clock_difference(int64_t *difference_ns)
{
    /* Not /dev/rtc0, which only one may have open. */
    FILE *file = fopen("/sys/class/rtc/rtc0/since_epoch", "re");
    long long seconds;

    if (!file) {
        return false;
    }
    int64_t before_ns = now_ns(CLOCK_MONOTONIC);
    bool told = fscanf(file, "%lld", &seconds) == 1 && seconds > 0;
    int64_t wall_ns = now_ns(CLOCK_REALTIME);
    fclose(file);
    if (!told || now_ns(CLOCK_MONOTONIC) - before_ns > SLOW_NS) {
        return false; /* its device was being started again, or the guest was held up */
    }
    *difference_ns = seconds * NS_A_SECOND + NS_A_SECOND / 2 - wall_ns;
    return true;
}

/* ---- Who set it ---- */

static void watch(struct clock *clock)
{
    const struct itimerspec far = {.it_value.tv_sec = time(NULL) + FAR_AWAY};

    timerfd_settime(clock->watch, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL);
}

/* Whether somebody set the clock since this was last asked. */
static bool was_set(struct clock *clock)
{
    uint64_t expiries;
    bool set = read(clock->watch, &expiries, sizeof(expiries)) < 0 && errno == ECANCELED;

    if (set) {
        watch(clock);
    }
    return set;
}

static void set(struct clock *clock, int64_t by_ns)
{
    int64_t wall_ns = now_ns(CLOCK_REALTIME) + by_ns;
    const struct timespec time = {.tv_sec = (time_t)(wall_ns / NS_A_SECOND),
                                  .tv_nsec = (long)(wall_ns % NS_A_SECOND)};

    if (clock_settime(CLOCK_REALTIME, &time) < 0) {
        perror("polyvisor-agent: the clock cannot be set");
        clock->interval = 0;
        return;
    }
    clock->steps++;
    was_set(clock); /* it was us */
    fprintf(stderr, "polyvisor-agent: the clock was %lld s %s, and is set\n",
            (long long)(llabs(by_ns) / NS_A_SECOND), by_ns > 0 ? "behind" : "ahead");
}

/* ---- Looking ---- */

void clock_open(struct clock *clock, time_t interval)
{
    *clock = (struct clock){.interval = interval, .watch = -1};
    if (interval) {
        clock->watch = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
        watch(clock);
    }
}

/* Nobody may set the clock between the reading and the question who did. */
static bool take_difference(struct clock *clock, int64_t *difference_ns, bool *touched)
{
    clock->touched |= was_set(clock);
    if (!clock_difference(difference_ns)) {
        return false;
    }
    if (was_set(clock)) {
        clock->touched = true;
        return false;
    }
    *touched = clock->touched;
    clock->touched = false;
    return true;
}

void clock_turn(struct clock *clock)
{
    int64_t difference_ns;
    bool touched;

    if (!clock->interval || clock->watch < 0 || uptime() < clock->next) {
        return;
    }
    clock->next = uptime() + clock->interval;
    if (!take_difference(clock, &difference_ns, &touched)) {
        return;
    }
    if (touched || (!clock->begun && difference_ns < 0)) {
        clock->meant_ns = difference_ns; /* one that is ahead was set before we came */
    }
    clock->begun = true;
    if (llabs(difference_ns) <= AGREES_NS) {
        clock->meant_ns = 0;
    } else if (llabs(difference_ns - clock->meant_ns) > AGREES_NS) {
        set(clock, difference_ns - clock->meant_ns);
    }
}
