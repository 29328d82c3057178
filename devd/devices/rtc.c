/*
 * The Goldfish real-time clock: nanoseconds since 1970 in two 32-bit halves, and an alarm.
 *
 * Reading TIME_LOW latches TIME_HIGH. The guest may set the clock: the host's is left alone and the
 * difference kept. The alarm follows the host's clock when that is stepped (an absolute timerfd).
 */
#include "devd/device.h"
#include "devd/mmio.h"
#include "libshared/base/clock.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum rtc_offset {
    TIME_LOW = 0x00,
    TIME_HIGH = 0x04,
    ALARM_LOW = 0x08, /* writing it arms the alarm */
    ALARM_HIGH = 0x0c,
    INTERRUPT_ENABLED = 0x10,
    CLEAR_ALARM = 0x14,
    ALARM_STATUS = 0x18, /* 1: armed */
    CLEAR_INTERRUPT = 0x1c
};

#define REGISTERS_VERSION 1

struct rtc_registers {
    uint64_t offset; /* guest clock minus host clock, wraps */
    uint64_t alarm;  /* guest time */
    uint32_t latched_high;
    uint32_t set_high; /* written, waiting for TIME_LOW */
    uint32_t alarm_high;
    uint8_t armed;
    uint8_t pending;
    uint8_t enabled;
    uint8_t reserved;
};
_Static_assert(sizeof(struct rtc_registers) == 32, "saved layout");

struct rtc {
    struct rtc_registers registers;
    int timer; /* timerfd on the host's real time */
    struct event *fired;
};

static struct rtc *rtc_of(const struct device *device)
{
    return device->own;
}

static uint64_t guest_time(const struct rtc_registers *r)
{
    return clock_realtime_ns() + r->offset;
}

/* Let the timer agree with the registers; an alarm in the past fires at once. */
static void alarm_set(struct rtc *rtc)
{
    struct rtc_registers *r = &rtc->registers;
    struct itimerspec when = {{0, 0}, {0, 0}};

    if (r->armed && r->alarm <= guest_time(r)) {
        r->armed = 0;
        r->pending = 1;
    }
    if (r->armed) {
        uint64_t host = r->alarm - r->offset;
        when.it_value = clock_timespec(host);
    }
    timerfd_settime(rtc->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void alarm_fired(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    struct rtc_registers *r = &rtc_of(device)->registers;
    uint64_t count;

    (void)what;
    /* Setting the timer again takes an expiry back: what is read here belongs to this alarm. */
    if (read(fd, &count, sizeof(count)) == sizeof(count) && r->armed) {
        r->armed = 0;
        r->pending = 1;
        mmio_device_update(device);
    }
}

static uint64_t rtc_read(struct device *device, uint32_t offset, unsigned size)
{
    struct rtc_registers *r = &rtc_of(device)->registers;
    uint64_t now;

    (void)size;
    switch (offset) {
    case TIME_LOW:
        now = guest_time(r);
        r->latched_high = (uint32_t)(now >> 32);
        return (uint32_t)now;
    case TIME_HIGH:
        return r->latched_high;
    case ALARM_LOW:
        return (uint32_t)r->alarm;
    case ALARM_HIGH:
        return r->alarm_high;
    case INTERRUPT_ENABLED:
        return r->enabled;
    case ALARM_STATUS:
        return r->armed;
    default:
        return 0;
    }
}

static void rtc_write(struct device *device, uint32_t offset, unsigned size, uint64_t value)
{
    struct rtc *rtc = rtc_of(device);
    struct rtc_registers *r = &rtc->registers;
    uint32_t word = (uint32_t)value;

    (void)size;
    switch (offset) {
    case TIME_LOW:
        r->offset = ((uint64_t)r->set_high << 32 | word) - clock_realtime_ns();
        alarm_set(rtc);
        break;
    case TIME_HIGH:
        r->set_high = word;
        break;
    case ALARM_LOW:
        r->alarm = (uint64_t)r->alarm_high << 32 | word;
        r->armed = 1;
        alarm_set(rtc);
        break;
    case ALARM_HIGH:
        r->alarm_high = word;
        break;
    case INTERRUPT_ENABLED:
        r->enabled = word & 1;
        break;
    case CLEAR_ALARM:
        r->armed = 0;
        alarm_set(rtc);
        break;
    case CLEAR_INTERRUPT:
        r->pending = 0;
        break;
    default:
        break;
    }
}

static bool rtc_interrupt(const struct device *device)
{
    const struct rtc_registers *r = &rtc_of(device)->registers;
    return r->pending && r->enabled;
}

static void rtc_restored(struct device *device)
{
    alarm_set(rtc_of(device));
}

static int rtc_init(struct device *device, struct error *err)
{
    struct rtc *rtc = calloc(1, sizeof(*rtc));

    if (!rtc) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    device->own = rtc;
    device->registers = &rtc->registers;
    rtc->timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (rtc->timer < 0) {
        return error_set(err, ERROR_INTERNAL, errno, "cannot make a timer for device %s",
                         device->id);
    }
    rtc->fired = event_new(device->base, rtc->timer, EV_READ | EV_PERSIST, alarm_fired, device);
    if (!rtc->fired || event_add(rtc->fired, NULL) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return 0;
}

static void rtc_destroy(struct device *device)
{
    struct rtc *rtc = rtc_of(device);

    if (!rtc) {
        return;
    }
    if (rtc->fired) {
        event_free(rtc->fired);
    }
    if (rtc->timer >= 0) {
        close(rtc->timer);
    }
    free(rtc);
}

DEVICE_MODEL(rtc) = {
    .kind = "rtc",
    .device_class = DEVICE_MMIO,
    .init = rtc_init,
    .destroy = rtc_destroy,
    .mmio =
        {
            .read = rtc_read,
            .write = rtc_write,
            .interrupt = rtc_interrupt,
            .restored = rtc_restored,
            .registers_version = REGISTERS_VERSION,
            .registers_size = sizeof(struct rtc_registers),
        },
};
