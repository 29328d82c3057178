#include "vmmd/events.h"

#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "proto/event.pb-c.h"
#include <nanomsg/pubsub.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct publisher {
    struct channel *channel;
    uint64_t sequence;
};

struct publisher *publisher_open(const char *path)
{
    struct publisher *publisher = calloc(1, sizeof(*publisher));

    if (!publisher) {
        return NULL;
    }
    publisher->channel = channel_bind(CHANNEL_EVENT, NN_PUB, path);
    if (!publisher->channel) {
        free(publisher);
        return NULL;
    }
    return publisher;
}

void publisher_close(struct publisher *publisher)
{
    if (publisher) {
        channel_close(publisher->channel);
        free(publisher);
    }
}

/* What a person who only sees vmmd's log, or runs one machine from a terminal, must not miss. What
 * a client is told as the answer to its own request is not here. */
static bool is_trouble(const char *kind)
{
    static const char *const kinds[] = {
        "device-died",    "device-restarted", "device-failed",    "device-stuck",
        "device-timeout", "device-refused",   "disk-error",       "disk-well",
        "hung",           "jit-died",         "jit-job-poisoned",
    };

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kind, kinds[i]) == 0) {
            return true;
        }
    }
    return false;
}

void publisher_send(struct publisher *publisher, const char *kind, const char *machine,
                    const char *component, const char *detail, ...)
{
    Polyvisor__Event event = POLYVISOR__EVENT__INIT;
    char text[512];
    va_list arguments;

    va_start(arguments, detail);
    vsnprintf(text, sizeof(text), detail, arguments);
    va_end(arguments);
    for (char *byte = text; *byte; byte++) { /* details quote children, which may send anything */
        *byte = (unsigned char)*byte < 0x20 || *byte == 0x7f ? '?' : *byte;
    }
    event.sequence = ++publisher->sequence;
    event.time_ns = clock_realtime_ns();
    event.kind = (char *)kind;
    event.machine = (char *)machine;
    event.component = (char *)component;
    event.detail = text;
    log_line(is_trouble(kind) ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "%s %s %s %s", kind, machine,
             component, text);
    channel_send(publisher->channel, &event.base, 0);
}
