/* What the processes of devices say of themselves, unasked or when they are configured. */
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "proto/device.pb-c.h"
#include "vmmd/machine_internal.h"
#include <ctype.h>
#include <stdio.h>

#define NOTICES_APART_NS (100 * NS_PER_MS)

/* What a device says is for people's terminals: nothing but a line of text. */
static void text_copy(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
    for (char *c = to; *c; c++) {
        *c = isprint((unsigned char)*c) ? *c : '?';
    }
}

bool machine_may_tell(uint64_t *told_ns)
{
    uint64_t now = clock_monotonic_ns();

    if (*told_ns && now - *told_ns < NOTICES_APART_NS) {
        return false;
    }
    *told_ns = now;
    return true;
}

void machine_device_describe(struct machine_device *device, const ProtobufCMessage *reply)
{
    const Polyvisor__DeviceReply *answer = (const Polyvisor__DeviceReply *)reply;
    text_copy(device->description, sizeof(device->description), answer ? answer->description : "");
}

void machine_device_notice(struct child *child, const ProtobufCMessage *message)
{
    const Polyvisor__DeviceReply *reply = (const Polyvisor__DeviceReply *)message;
    struct machine_device *device = child->owner;
    char text[200];

    if (!machine_may_tell(&device->notice_ns)) {
        return; /* who talks that much is not listened to */
    }
    text_copy(text, sizeof(text), reply->text);
    switch (reply->notice) {
    case POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_BACKEND_ERROR:
        machine_event(device->machine, "disk-error", child->role, "%s", text);
        break;
    case POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_BACKEND_WELL:
        machine_event(device->machine, "disk-well", child->role, "%s", text);
        break;
    case POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_WATCHDOG:
        machine_watchdog_expired(device, text);
        break;
    case POLYVISOR__DEVICE_NOTICE_KIND__DEVICE_NOTICE_KIND_PANIC:
        machine_guest_panicked(device, text);
        break;
    default:
        log_warning("%s of '%s' sent an unknown notice", child->role,
                    device->machine->config->name);
        break;
    }
}
