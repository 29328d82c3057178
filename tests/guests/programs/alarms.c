/*
 * alarms: read the real-time clock without pause and wait for its alarms, until /tmp/stop exists.
 * The clock must go as fast as the monotonic one (within two seconds: it tells whole ones), never
 * back, and every alarm must come, not before its time. Printed: "alarms N reads N wrong N".
 */
#include <fcntl.h>
#include <linux/rtc.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int device;
static volatile int stop;
static uint64_t reads, wrong_reads, alarms, wrong_alarms;

static int64_t seconds_of(const struct rtc_time *time)
{
    struct tm broken = {.tm_sec = time->tm_sec,
                        .tm_min = time->tm_min,
                        .tm_hour = time->tm_hour,
                        .tm_mday = time->tm_mday,
                        .tm_mon = time->tm_mon,
                        .tm_year = time->tm_year};
    return timegm(&broken);
}

/* -1: it could not be read. */
static int64_t clock_seconds(void)
{
    struct rtc_time time = {0};
    return ioctl(device, RTC_RD_TIME, &time) < 0 ? -1 : seconds_of(&time);
}

static int64_t monotonic_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static void *read_clock(void *argument)
{
    /* A reading may take seconds when the device is replaced meanwhile: it tells a time between. */
    int64_t before = monotonic_seconds(), first = clock_seconds(), after = monotonic_seconds();
    int64_t last = first;
    (void)argument;

    while (!stop) {
        int64_t least = first + monotonic_seconds() - after - 2;
        int64_t now = clock_seconds();
        int64_t most = first + monotonic_seconds() - before + 2;
        if (now < last || now < least || now > most) {
            wrong_reads++;
            fprintf(stderr, "the clock says %lld after %lld, expected %lld to %lld\n",
                    (long long)now, (long long)last, (long long)least, (long long)most);
        }
        last = now;
        reads++;
        usleep(200);
    }
    return NULL;
}

static void wait_for_alarm(int ahead)
{
    struct rtc_wkalrm alarm = {.enabled = 1};
    struct pollfd wait = {.fd = device, .events = POLLIN};
    time_t due = (time_t)clock_seconds() + ahead;
    struct tm broken;
    unsigned long data;

    gmtime_r(&due, &broken);
    alarm.time = (struct rtc_time){.tm_sec = broken.tm_sec,
                                   .tm_min = broken.tm_min,
                                   .tm_hour = broken.tm_hour,
                                   .tm_mday = broken.tm_mday,
                                   .tm_mon = broken.tm_mon,
                                   .tm_year = broken.tm_year};
    if (ioctl(device, RTC_WKALM_SET, &alarm) < 0) {
        perror("RTC_WKALM_SET");
        wrong_alarms++;
        sleep(1);
        return;
    }
    if (poll(&wait, 1, 30000) != 1 || read(device, &data, sizeof(data)) != sizeof(data) ||
        clock_seconds() < due) {
        fprintf(stderr, "the alarm for %lld did not come, or too early\n", (long long)due);
        wrong_alarms++;
    }
    alarms++;
}

int main(void)
{
    pthread_t reader;

    device = open("/dev/rtc0", O_RDONLY);
    if (device < 0 || pthread_create(&reader, NULL, read_clock, NULL) != 0) {
        perror("/dev/rtc0");
        return 2;
    }
    while (access("/tmp/stop", F_OK) != 0) {
        wait_for_alarm(alarms % 2 ? 1 : 2);
    }
    stop = 1;
    pthread_join(reader, NULL);
    printf("alarms %llu reads %llu wrong %llu\n", (unsigned long long)alarms,
           (unsigned long long)reads, (unsigned long long)(wrong_reads + wrong_alarms));
    return wrong_reads + wrong_alarms != 0;
}
