/*
 * Reads, writes and flushes of one descriptor through io_uring: many in one system call, those that
 * the page cache answers done when that call returns.
 *
 * The ring can do nothing else: before it is enabled the kernel is told that it may only take these
 * operations, and only on the one registered file. So a seccomp filter that allows io_uring_enter
 * allows no more than read and write do. Main thread only.
 */
#ifndef POLYVISOR_DEVD_BLOCK_URING_H
#define POLYVISOR_DEVD_BLOCK_URING_H

#include "devd/block/block.h"

struct uring;

struct uring_port {
    /* `result` as the system call's: bytes transferred or negative errno. */
    void (*completed)(void *context, struct block_request *request, int result);
    void (*batch_done)(void *context); /* after one or more of them, outside uring_start */
    void *context;
};

/* A ring for `fd`. NULL with errno set when the host has none for us (ENOSYS, EPERM, ...). Before
 * the process is sealed. */
struct uring *uring_open(int fd, struct event_base *base, const struct uring_port *port);
/* Waits for what has begun. */
void uring_close(struct uring *uring);

/* Take a read, write or flush: transfer its vectors at left_offset. False when there is no room. */
bool uring_take(struct uring *uring, struct block_request *request);
/* Begin what was taken; hands over what is done at once. */
void uring_start(struct uring *uring);

#endif
