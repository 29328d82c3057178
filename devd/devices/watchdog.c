/*
 * A watchdog with the registers of Allwinner's sun6i chips: a guest that has switched it on and
 * does not feed it in time is told of to vmmd, which does what the machine's owner wants.
 *
 * Time is the host's monotonic clock; the deadline is a register. So it passes while no process of
 * the device lives, and the next one finds out. After that the watchdog rests until it is fed or
 * set again: a machine that goes on, or is held, is told of once. What vmmd did not hear, because
 * it was away, is told again until then.
 */
#include "devd/device.h"
#include "devd/mmio.h"
#include "libshared/base/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum watchdog_offset {
    CONTROL = 0x10, /* bit 0 with the key above it: start the time anew */
    CONFIG = 0x14,  /* what shall happen; kept, and without effect */
    MODE = 0x18,    /* bit 0: on; bits 4 to 7: the time */
};

#define CONTROL_RELOAD    ((0xa57u << 1) | 1u)
#define MODE_ON           1u
#define MODE_BITS         0xf1u
#define REGISTERS_VERSION 1
#define TELL_AGAIN_MS     1000

/* Milliseconds by the four bits of the mode; those that the chip has not are the longest. */
static const uint32_t times_ms[16] = {500,   1000,  2000,  3000,  4000,  5000,  6000,  8000,
                                      10000, 12000, 14000, 16000, 16000, 16000, 16000, 16000};

struct watchdog_registers {
    uint64_t deadline_ns; /* clock_monotonic_ns; 0: it rests */
    uint32_t config, mode;
    uint32_t expired; /* it has, and was not fed since */
    uint32_t count;   /* how often it ever has */
};
_Static_assert(sizeof(struct watchdog_registers) == 24, "saved layout");

struct watchdog {
    struct watchdog_registers registers;
    struct event *timer;
};

static struct watchdog *watchdog_of(const struct device *device)
{
    return device->own;
}

/* Let the timer agree with the registers. */
static void timer_set(struct device *device)
{
    struct watchdog *watchdog = watchdog_of(device);
    const struct watchdog_registers *r = &watchdog->registers;
    uint64_t now = clock_monotonic_ns(), wait_ns = 0;

    if (r->expired) {
        wait_ns = TELL_AGAIN_MS * NS_PER_MS;
    } else if (!r->deadline_ns) {
        event_del(watchdog->timer);
        return;
    } else if (r->deadline_ns > now) {
        wait_ns = r->deadline_ns - now;
    }
    const struct timeval wait = clock_timeval(wait_ns);
    event_add(watchdog->timer, &wait);
}

static void timer_due(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;
    struct watchdog_registers *r = &watchdog_of(device)->registers;
    char text[16];

    (void)fd;
    (void)what;
    if (!r->expired && r->deadline_ns && r->deadline_ns <= clock_monotonic_ns()) {
        r->expired = 1;
        r->count++;
        r->deadline_ns = 0;
        mmio_device_update(device); /* saved before it is told */
    }
    if (r->expired) {
        snprintf(text, sizeof(text), "%u", r->count);
        device_notice(device, DEVICE_NOTICE_WATCHDOG, text);
    }
    timer_set(device);
}

static void start_anew(struct device *device)
{
    struct watchdog_registers *r = &watchdog_of(device)->registers;

    r->expired = 0;
    r->deadline_ns =
        r->mode & MODE_ON ? clock_monotonic_ns() + times_ms[r->mode >> 4 & 15] * NS_PER_MS : 0;
    timer_set(device);
}

static uint64_t watchdog_read(struct device *device, uint32_t offset, unsigned size)
{
    const struct watchdog_registers *r = &watchdog_of(device)->registers;

    (void)size;
    return offset == CONFIG ? r->config : offset == MODE ? r->mode : 0;
}

static void watchdog_write(struct device *device, uint32_t offset, unsigned size, uint64_t value)
{
    struct watchdog_registers *r = &watchdog_of(device)->registers;

    (void)size;
    switch (offset) {
    case CONTROL:
        if ((value & 0x1fff) == CONTROL_RELOAD) {
            start_anew(device);
        }
        break;
    case CONFIG:
        r->config = (uint32_t)value & 3;
        break;
    case MODE:
        r->mode = (uint32_t)value & MODE_BITS;
        start_anew(device);
        break;
    default:
        break;
    }
}

static bool watchdog_interrupt(const struct device *device)
{
    (void)device;
    return false;
}

static void watchdog_restored(struct device *device)
{
    struct watchdog_registers *r = &watchdog_of(device)->registers;
    uint64_t latest = clock_monotonic_ns() + times_ms[15] * NS_PER_MS;

    r->deadline_ns = r->deadline_ns < latest ? r->deadline_ns : latest;
    timer_set(device);
}

static int watchdog_init(struct device *device, struct error *err)
{
    struct watchdog *watchdog = calloc(1, sizeof(*watchdog));

    device->own = watchdog;
    if (watchdog) {
        device->registers = &watchdog->registers;
        watchdog->timer = event_new(device->base, -1, 0, timer_due, device);
    }
    if (!watchdog || !watchdog->timer) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    return 0;
}

static void watchdog_destroy(struct device *device)
{
    struct watchdog *watchdog = watchdog_of(device);

    if (watchdog && watchdog->timer) {
        event_free(watchdog->timer);
    }
    free(watchdog);
}

DEVICE_MODEL(watchdog) = {
    .kind = "watchdog",
    .device_class = DEVICE_MMIO,
    .init = watchdog_init,
    .destroy = watchdog_destroy,
    .mmio =
        {
            .read = watchdog_read,
            .write = watchdog_write,
            .interrupt = watchdog_interrupt,
            .restored = watchdog_restored,
            .registers_version = REGISTERS_VERSION,
            .registers_size = sizeof(struct watchdog_registers),
        },
};
