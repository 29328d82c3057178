/*
 * clocks: asked on standard input, line by line, and answering on standard output:
 *   now           "now NANOSECONDS", the monotonic clock
 *   work SECONDS  keep every processor busy for that long while a timer of 10 ms runs; then
 *                 "timer LEAST EXPIRATIONS MOST EARLY": how often the timer fired, how many periods
 *                 had passed before and after it was asked, and how often a sleep ended too early
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define PERIOD 10000000ull

static volatile int stop;
static uint64_t early;

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static struct timespec timespec_of(uint64_t nanoseconds)
{
    return (struct timespec){.tv_sec = (time_t)(nanoseconds / SECOND),
                             .tv_nsec = (long)(nanoseconds % SECOND)};
}

static void *compute(void *argument)
{
    volatile uint64_t *sum = argument;
    while (!stop) {
        *sum = *sum * 3 + 1;
    }
    return NULL;
}

static void *sleep_a_little(void *argument)
{
    (void)argument;
    while (!stop) {
        uint64_t until = now() + 3000000;
        struct timespec deadline = timespec_of(until);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL);
        early += now() < until;
    }
    return NULL;
}

static void work(uint64_t seconds)
{
    enum { THREADS = 5 };
    pthread_t threads[THREADS];
    uint64_t sums[THREADS] = {0}, expirations = 0, count;
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    uint64_t start = now();
    struct itimerspec setting = {.it_interval = timespec_of(PERIOD),
                                 .it_value = timespec_of(start + PERIOD)};
    stop = 0;
    early = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, i ? compute : sleep_a_little, &sums[i]);
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &setting, NULL);
    uint64_t before = start;
    while (before < start + seconds * SECOND) {
        before = now();
        if (read(timer, &count, sizeof(count)) == sizeof(count)) {
            expirations += count;
        }
    }
    uint64_t after = now();
    stop = 1;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    close(timer);
    printf("timer %llu %llu %llu %llu\n", (unsigned long long)((before - start) / PERIOD),
           (unsigned long long)expirations, (unsigned long long)((after - start) / PERIOD),
           (unsigned long long)early);
}

int main(void)
{
    char line[64];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof(line), stdin) && strncmp(line, "end", 3) != 0) {
        if (strncmp(line, "now", 3) == 0) {
            printf("now %llu\n", (unsigned long long)now());
        } else if (strncmp(line, "work ", 5) == 0) {
            work(strtoull(line + 5, NULL, 10));
        }
    }
    return 0;
}
