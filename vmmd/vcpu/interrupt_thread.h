/*
 * The thread "irq": waits for the devices' call eventfds and hands each on to its handler.
 *
 * It is apart from the main loop so that an interrupt never waits for a reset, a configuration or
 * a control message. Watches are added and removed on the main thread, at any time.
 */
#ifndef POLYVISOR_VCPU_INTERRUPT_THREAD_H
#define POLYVISOR_VCPU_INTERRUPT_THREAD_H

#include "libshared/base/error.h"

struct interrupt_thread;
/* Called on the thread each time the eventfd was signalled, once for any number of signals. */
typedef void interrupt_handler(void *context, unsigned number);

/* NULL with *err set on failure. */
struct interrupt_thread *interrupt_thread_create(struct error *err);
/* Watch `fd`, which becomes the thread's. 0, or an error with *err set (fd stays the caller's). */
int interrupt_thread_watch(struct interrupt_thread *thread, int fd, interrupt_handler *handler,
                           void *context, unsigned number, struct error *err);
/* Close it, and watch it no more if it was watched. When this returns its handler is not running,
 * nor will it. */
void interrupt_thread_unwatch(struct interrupt_thread *thread, int fd);
int interrupt_thread_start(struct interrupt_thread *thread, struct error *err);
/* Stop the thread if it runs; no handler is called any more. NULL is allowed. */
void interrupt_thread_destroy(struct interrupt_thread *thread);

#endif
