/*
 * Descriptors that must outlive this process: of files that have no name any more, and of open
 * files that could not be opened again as they are.
 *
 * They wait in the queue of a pair of sockets, as messages with a descriptor each. vmmd holds both
 * ends (it made them, and gives them to every process of the device), so the kernel keeps what is
 * under way when this process dies; the next one looks at the messages without taking them. How
 * many there can be is the kernel's limit: room in the socket (some 500) and descriptors.
 *
 * Nothing can be taken out of the middle. What is not needed any more stays until the queue is
 * turned once: each message is looked at, sent again at the end if it is needed, and only then
 * taken at the front. So a death leaves one too many at worst, which does no harm.
 */
#ifndef POLYVISOR_DEVD_FS_KEEP_H
#define POLYVISOR_DEVD_FS_KEEP_H

#include <stdbool.h>
#include <stdint.h>

enum keep_kind { KEEP_NODE = 1, KEEP_HANDLE = 2 };

struct keep_name {
    uint32_t kind, index, generation, reserved;
};

struct keep {
    int in, out;             /* -1: there is none */
    unsigned count, garbage; /* messages; of these, not needed any more */
};

/* The descriptor of that name if it is still needed, else -1. */
typedef int keep_needed_fn(void *context, const struct keep_name *name);
/* A descriptor that an earlier process kept, now the callee's. */
typedef void keep_found_fn(void *context, const struct keep_name *name, int fd);

void keep_open(struct keep *keep, int in, int out);
void keep_close(struct keep *keep);
/* Look at all that is kept. */
void keep_recover(struct keep *keep, keep_found_fn *found, void *context);
/* Keep one more. 0; -ENOSPC when there is no room: then it will not survive. */
int keep_add(struct keep *keep, const struct keep_name *name, int fd, keep_needed_fn *needed,
             void *context);
/* One of them is not needed any more: `needed` says so from now on. */
void keep_drop(struct keep *keep, keep_needed_fn *needed, void *context);
/* None is. */
void keep_clear(struct keep *keep);

#endif
