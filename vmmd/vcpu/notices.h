/*
 * Things that any thread of vcpud tells the main loop: the guest ended or wants a reset, a device
 * missed its deadline. Bounded; what is already waiting is not queued twice. Posting never blocks.
 */
#ifndef POLYVISOR_VCPU_NOTICES_H
#define POLYVISOR_VCPU_NOTICES_H

#include "proto/vcpu.pb-c.h"
#include <pthread.h>
#include <stdbool.h>

#define NOTICES_MAX       64
#define NOTICE_DEVICE_MAX 48

struct notice {
    Polyvisor__VcpuNoticeKind kind;
    unsigned guest_code;
    char device[NOTICE_DEVICE_MAX]; /* empty: of no device */
};

struct notices {
    pthread_mutex_t lock; /* list and count */
    int wake_fd;          /* eventfd, readable after a post; the main loop reads it */
    unsigned count;
    struct notice list[NOTICES_MAX];
};

/* 0 or a negative errno. */
int notices_init(struct notices *notices);
void notices_destroy(struct notices *notices);
/* Any thread. `device` may be NULL. */
void notices_post(struct notices *notices, Polyvisor__VcpuNoticeKind kind, unsigned guest_code,
                  const char *device);
/* The oldest one; false when there is none. Peeking leaves it in place. */
bool notices_peek(struct notices *notices, struct notice *notice);
bool notices_take(struct notices *notices, struct notice *notice);

#endif
