/*
 * rtc-shift SECONDS: set the real-time clock forward, and leave the system's clock alone. So they
 * part, as they do when the host sleeps.
 */
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    time_t then = time(NULL) + (argc == 2 ? strtol(argv[1], NULL, 10) : 0);
    int device = open("/dev/rtc0", O_RDWR);
    struct tm broken;

    gmtime_r(&then, &broken);
    struct rtc_time rtc = {.tm_sec = broken.tm_sec,
                           .tm_min = broken.tm_min,
                           .tm_hour = broken.tm_hour,
                           .tm_mday = broken.tm_mday,
                           .tm_mon = broken.tm_mon,
                           .tm_year = broken.tm_year};
    if (device < 0 || ioctl(device, RTC_SET_TIME, &rtc) < 0) {
        perror("rtc-shift");
        return 1;
    }
    return 0;
}
