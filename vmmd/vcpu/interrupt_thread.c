#include "vmmd/vcpu/interrupt_thread.h"
#include "libshared/base/log.h"
#include "vmmd/vcpu/device/doorbell.h"
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_A_TURN 32

struct watch {
    struct watch *next;
    int fd;
    interrupt_handler *handler;
    void *context;
    unsigned number;
    bool removed; /* the thread may have it in its hands: it is freed before the next wait */
};

struct interrupt_thread {
    int epoll_fd;
    pthread_mutex_t lock;             /* watches; held while handlers run */
    struct watch *watches, *leftover; /* in use; removed */
    struct watch stop;                /* handler NULL: end */
    pthread_t thread;
    bool running;
};

static int watch_add(struct interrupt_thread *thread, struct watch *watch)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};
    return epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0 ? -errno : 0;
}

struct interrupt_thread *interrupt_thread_create(struct error *err)
{
    struct interrupt_thread *thread = calloc(1, sizeof(*thread));
    if (!thread) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the interrupt thread");
        return NULL;
    }
    pthread_mutex_init(&thread->lock, NULL);
    thread->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    thread->stop.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thread->epoll_fd < 0 || thread->stop.fd < 0 || watch_add(thread, &thread->stop) != 0) {
        error_set(err, ERROR_INTERNAL, errno, "cannot set up the interrupt thread: %s",
                  strerror(errno));
        interrupt_thread_destroy(thread);
        return NULL;
    }
    return thread;
}

int interrupt_thread_watch(struct interrupt_thread *thread, int fd, interrupt_handler *handler,
                           void *context, unsigned number, struct error *err)
{
    struct watch *watch = calloc(1, sizeof(*watch));
    if (!watch) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the interrupt thread");
    }
    *watch = (struct watch){
        .fd = fd,
        .handler = handler,
        .context = context,
        .number = number,
    };
    int result = watch_add(thread, watch);
    if (result != 0) {
        free(watch);
        return error_set(err, ERROR_INTERNAL, -result, "a device's call descriptor is unusable: %s",
                         strerror(-result));
    }
    pthread_mutex_lock(&thread->lock);
    watch->next = thread->watches;
    thread->watches = watch;
    pthread_mutex_unlock(&thread->lock);
    return 0;
}

void interrupt_thread_unwatch(struct interrupt_thread *thread, int fd)
{
    pthread_mutex_lock(&thread->lock);
    for (struct watch **at = &thread->watches; *at; at = &(*at)->next) {
        struct watch *watch = *at;
        if (watch->fd != fd) {
            continue;
        }
        *at = watch->next;
        epoll_ctl(thread->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        watch->removed = true;
        watch->next = thread->leftover;
        thread->leftover = watch;
        break;
    }
    close(fd);
    pthread_mutex_unlock(&thread->lock);
}

static void free_leftover(struct interrupt_thread *thread)
{
    while (thread->leftover) {
        struct watch *watch = thread->leftover;
        thread->leftover = watch->next;
        free(watch);
    }
}

/* Take the count first: a signal that comes during the handler then leads to another call. */
static void watch_run(const struct watch *watch)
{
    int result = doorbell_take(watch->fd);
    if (result != 0) {
        if (result != -EAGAIN) {
            log_warning("cannot read a call descriptor: %s", strerror(-result));
        }
        return;
    }
    watch->handler(watch->context, watch->number);
}

static void *interrupt_main(void *argument)
{
    struct interrupt_thread *thread = argument;
    struct epoll_event events[EVENTS_A_TURN];
    pthread_setname_np(pthread_self(), "irq");
    for (;;) {
        int count = epoll_wait(thread->epoll_fd, events, EVENTS_A_TURN, -1);
        if (count < 0 && errno != EINTR) {
            log_error("the interrupt thread cannot wait: %s", strerror(errno));
            return NULL;
        }
        bool stop = false;
        pthread_mutex_lock(&thread->lock);
        for (int i = 0; i < count && !stop; i++) {
            const struct watch *watch = events[i].data.ptr;
            stop = watch == &thread->stop;
            if (!stop && !watch->removed) {
                watch_run(watch);
            }
        }
        free_leftover(thread); /* what was removed is in no batch to come */
        pthread_mutex_unlock(&thread->lock);
        if (stop) {
            return NULL;
        }
    }
}

int interrupt_thread_start(struct interrupt_thread *thread, struct error *err)
{
    int result = pthread_create(&thread->thread, NULL, interrupt_main, thread);
    if (result != 0) {
        return error_set(err, ERROR_INTERNAL, result, "cannot start the interrupt thread: %s",
                         strerror(result));
    }
    thread->running = true;
    return 0;
}

void interrupt_thread_destroy(struct interrupt_thread *thread)
{
    if (!thread) {
        return;
    }
    if (thread->running) {
        const uint64_t one = 1;
        ssize_t written = write(thread->stop.fd, &one, sizeof(one));
        (void)written; /* cannot fail: nobody else writes it */
        pthread_join(thread->thread, NULL);
    }
    while (thread->watches) {
        struct watch *watch = thread->watches;
        thread->watches = watch->next;
        close(watch->fd);
        free(watch);
    }
    free_leftover(thread);
    if (thread->stop.fd >= 0) {
        close(thread->stop.fd);
    }
    if (thread->epoll_fd >= 0) {
        close(thread->epoll_fd);
    }
    pthread_mutex_destroy(&thread->lock);
    free(thread);
}
