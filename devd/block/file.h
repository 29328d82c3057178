/*
 * Between the parts of the backend that is a file or a block device: file.c is the block interface
 * and decides who does a request; transfer.c does one, waiting, on a worker's thread.
 */
#ifndef POLYVISOR_DEVD_BLOCK_FILE_H
#define POLYVISOR_DEVD_BLOCK_FILE_H

#include "devd/block/block.h"
#include "devd/block/uring.h"
#include "libshared/base/direct_io.h"
#include <pthread.h>

struct file {
    struct block block;
    int fd; /* borrowed */
    bool is_device, direct;
    struct direct_alignment alignment;
    pthread_rwlock_t direct_lock; /* writes: shared; those that read around: alone */
    struct workers *workers;
    struct uring *uring;                 /* or NULL */
    bool instant;                        /* reads can be tried without waiting */
    bool quick;                          /* small writes mostly end in the cache at once */
    uint64_t slow_until;                 /* but did not lately; clock_monotonic_ns */
    struct block_request *first, **last; /* submitted, not started */
    bool starting;
};

/* What is left of a request after `done` more bytes. */
void transfer_advance(struct block_request *request, size_t done);
/* Transfer all that is left, waiting for it. 0 or negative errno; -EIO at the end of the file. */
int transfer_all(struct file *file, struct block_request *request, bool write, int flags);
/* Do a request of any kind, waiting for it. Any thread. 0 or negative errno. */
int transfer_perform(struct file *file, struct block_request *request);

#endif
