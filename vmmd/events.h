/* Publish what happens (proto/event.proto) to whoever listens. Never waits: a subscriber that
 * does not read loses events, which it sees by their sequence numbers. */
#ifndef POLYVISOR_VMMD_EVENTS_H
#define POLYVISOR_VMMD_EVENTS_H

struct publisher;

/* Bind the events socket. NULL with errno set on failure. */
struct publisher *publisher_open(const char *path);
void publisher_close(struct publisher *publisher);
/* `machine` and `component` may be "" where none is concerned; `detail` is formatted. */
void publisher_send(struct publisher *publisher, const char *kind, const char *machine,
                    const char *component, const char *detail, ...)
    __attribute__((format(printf, 5, 6)));

#endif
