#include "devd/workers.h"
#include "libshared/base/scheduling.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WORKERS_MAX 16

struct work_list {
    struct work *first, **last;
};

struct workers {
    pthread_mutex_t lock; /* of all below it */
    pthread_cond_t submitted;
    struct work_list waiting, finished;
    unsigned idle;    /* threads that wait for work */
    unsigned pending; /* work that waits for a thread */
    bool ending;
    /* Main thread only. */
    unsigned thread_count, thread_limit;
    pthread_t threads[WORKERS_MAX];
    int signal; /* eventfd: something finished */
    struct event *event;
    void (*batch_done)(void *context);
    void *context;
};

static void list_clear(struct work_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_append(struct work_list *list, struct work *work)
{
    work->next = NULL;
    *list->last = work;
    list->last = &work->next;
}

static struct work *list_take(struct work_list *list)
{
    struct work *work = list->first;

    if (work) {
        list->first = work->next;
        if (!list->first) {
            list->last = &list->first;
        }
    }
    return work;
}

static void *worker_main(void *context)
{
    struct workers *workers = context;

    /* Who starts it may be urgent; once the process is confined, nobody is any more. */
    scheduling_set(SCHEDULING_ORDINARY);

    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (!workers->ending && !workers->waiting.first) {
            workers->idle++;
            pthread_cond_wait(&workers->submitted, &workers->lock);
            workers->idle--;
        }
        if (workers->ending) {
            break;
        }
        struct work *work = list_take(&workers->waiting);
        workers->pending--;
        pthread_mutex_unlock(&workers->lock);

        work->run(work);

        pthread_mutex_lock(&workers->lock);
        bool first = !workers->finished.first;
        list_append(&workers->finished, work);
        if (first) {
            uint64_t one = 1;
            /* Only a full counter could refuse, and that is a signal too. */
            ssize_t ignored = write(workers->signal, &one, sizeof(one));
            (void)ignored;
        }
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

static void workers_finished(evutil_socket_t fd, short what, void *context)
{
    struct workers *workers = context;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));

    (void)ignored;
    (void)what;
    pthread_mutex_lock(&workers->lock);
    struct work *work = workers->finished.first;
    list_clear(&workers->finished);
    pthread_mutex_unlock(&workers->lock);

    while (work) {
        struct work *next = work->next; /* done may submit it again */
        work->done(work);
        work = next;
    }
    workers->batch_done(workers->context);
}

/* 0 or an errno. */
static int workers_add(struct workers *workers)
{
    sigset_t all, old;

    /* Signals are the main thread's business. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int status =
        pthread_create(&workers->threads[workers->thread_count], NULL, worker_main, workers);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    workers->thread_count += status == 0;
    return status;
}

struct workers *workers_create(struct event_base *base, unsigned threads,
                               void (*batch_done)(void *context), void *context)
{
    struct workers *workers = calloc(1, sizeof(*workers));

    if (!workers) {
        return NULL;
    }
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->submitted, NULL);
    list_clear(&workers->waiting);
    list_clear(&workers->finished);
    workers->batch_done = batch_done;
    workers->context = context;
    workers->thread_limit = threads < WORKERS_MAX ? threads : WORKERS_MAX;
    workers->signal = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int status = workers->signal < 0 ? errno : 0;
    if (status == 0) {
        workers->event =
            event_new(base, workers->signal, EV_READ | EV_PERSIST, workers_finished, workers);
        status = workers->event && event_add(workers->event, NULL) == 0 ? 0 : ENOMEM;
    }
    if (status == 0) {
        status = workers_add(workers); /* the others when there is work for them */
    }
    if (status != 0) {
        workers_destroy(workers);
        errno = status;
        return NULL;
    }
    return workers;
}

void workers_destroy(struct workers *workers)
{
    if (!workers) {
        return;
    }
    pthread_mutex_lock(&workers->lock);
    workers->ending = true;
    pthread_cond_broadcast(&workers->submitted);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->thread_count; i++) {
        pthread_join(workers->threads[i], NULL);
    }
    if (workers->event) {
        event_free(workers->event);
    }
    if (workers->signal >= 0) {
        close(workers->signal);
    }
    pthread_cond_destroy(&workers->submitted);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}

void workers_submit(struct workers *workers, struct work *work)
{
    pthread_mutex_lock(&workers->lock);
    list_append(&workers->waiting, work);
    workers->pending++;
    bool more = workers->pending > workers->idle;
    pthread_cond_signal(&workers->submitted);
    pthread_mutex_unlock(&workers->lock);
    if (more && workers->thread_count < workers->thread_limit) {
        workers_add(workers); /* when the host has no more, there is at least one */
    }
}
