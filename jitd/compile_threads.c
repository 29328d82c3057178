#include "jitd/compile_threads.h"

#include "jitd/region_compiler.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct compile_thread {
    struct compile_threads *all;
    unsigned slot;
    pthread_t thread;
    clockid_t clock;             /* its processor time */
    _Atomic uint64_t busy_since; /* of that clock, plus 1; 0: no job */
    struct region_compiler *compiler;
    struct cache_subject subject; /* of its job */
};

struct compile_threads {
    struct queue *queue;
    struct journal *journal;
    struct cache *cache;
    unsigned count;
    pthread_mutex_t lock;
    pthread_cond_t ended_one;
    unsigned ended;
    struct compile_thread threads[COMPILE_THREADS_MAX];
};

static uint64_t processor_ns(clockid_t clock)
{
    struct timespec time;

    return clock_gettime(clock, &time) < 0
               ? 0
               : (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static void refuse(struct job *job, const struct error *err)
{
    snprintf(job->reason, sizeof(job->reason), "%.*s", (int)sizeof(job->reason) - 1, err->message);
}

static void compile(struct compile_thread *worker, struct job *job)
{
    struct compiled_region compiled = {0};
    struct blob blob;
    struct error err = {0};

    if (!worker->compiler) {
        worker->compiler = region_compiler_create(&err);
    }
    if (!worker->compiler || !region_compile(worker->compiler, &job->region, &compiled, &err)) {
        refuse(job, &err);
        return;
    }
    if (!blob_check(&blob, compiled.bytes, compiled.size, &job->region, &err)) {
        log_error("the compiler made code that is not sound: %s", err.message);
        refuse(job, &err);
        free(compiled.bytes);
        return;
    }
    job->blob = compiled.bytes;
    job->blob_size = compiled.size;
}

/* A full disk concerns every job: it is told once. */
static void keep(struct compile_thread *worker, const struct job *job)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    struct error err;

    if (worker->all->cache && job->blob &&
        !cache_store(worker->all->cache, &worker->subject, job->blob, job->blob_size, &err) &&
        !atomic_flag_test_and_set(&told)) {
        log_warning("%s", err.message);
    }
}

static void do_job(struct compile_thread *worker, struct job *job)
{
    struct journal *journal = worker->all->journal;
    uint64_t start = processor_ns(worker->clock); /* what a busy host adds is not its */

    cache_subject_of(&job->region, region_compiler_identity(), &worker->subject);
    atomic_store(&worker->busy_since, processor_ns(worker->clock) + 1);
    if (journal) {
        journal_begin(journal, worker->slot, &worker->subject);
    }
    compile(worker, job);
    if (journal) {
        journal_end(journal, worker->slot);
    }
    atomic_store(&worker->busy_since, 0);
    job->compile_ns = processor_ns(worker->clock) - start;
    keep(worker, job);
}

static void *compile_thread_main(void *argument)
{
    struct compile_thread *worker = argument;
    struct compile_threads *all = worker->all;
    char name[16];
    struct job *job;

    snprintf(name, sizeof(name), "compile%u", worker->slot);
    pthread_setname_np(pthread_self(), name);
    if (pthread_getcpuclockid(pthread_self(), &worker->clock)) {
        worker->clock = CLOCK_MONOTONIC;
    }
    while ((job = queue_take(all->queue))) {
        do_job(worker, job);
        queue_finish(all->queue, job);
    }
    region_compiler_destroy(worker->compiler);
    pthread_mutex_lock(&all->lock);
    all->ended++;
    pthread_cond_signal(&all->ended_one);
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

struct compile_threads *compile_threads_start(unsigned count, struct queue *queue,
                                              struct journal *journal, struct cache *cache,
                                              struct error *err)
{
    struct compile_threads *all = calloc(1, sizeof(*all));
    pthread_condattr_t attributes;

    if (!all) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for compiling threads");
        return NULL;
    }
    all->queue = queue;
    all->journal = journal;
    all->cache = cache;
    pthread_mutex_init(&all->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&all->ended_one, &attributes);
    pthread_condattr_destroy(&attributes);
    for (unsigned i = 0; i < count && i < COMPILE_THREADS_MAX; i++) {
        struct compile_thread *worker = &all->threads[i];
        worker->all = all;
        worker->slot = i;
        int result = pthread_create(&worker->thread, NULL, compile_thread_main, worker);
        if (result) {
            error_set(err, ERROR_INTERNAL, result, "cannot start a compiling thread: %s",
                      strerror(result));
            break;
        }
        all->count++;
    }
    if (all->count == 0) {
        compile_threads_end(all, 0);
        return NULL;
    }
    return all;
}

bool compile_threads_end(struct compile_threads *all, int timeout_ms)
{
    uint64_t until = clock_monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    const struct timespec deadline = clock_timespec(until);
    int result = 0;

    if (!all) {
        return true;
    }
    pthread_mutex_lock(&all->lock);
    while (all->ended < all->count && result == 0) {
        result = pthread_cond_timedwait(&all->ended_one, &all->lock, &deadline);
    }
    bool ended = all->ended == all->count;
    pthread_mutex_unlock(&all->lock);
    if (!ended) {
        return false;
    }
    for (unsigned i = 0; i < all->count; i++) {
        pthread_join(all->threads[i].thread, NULL);
    }
    pthread_cond_destroy(&all->ended_one);
    pthread_mutex_destroy(&all->lock);
    free(all);
    return true;
}

uint64_t compile_threads_longest_ns(struct compile_threads *all)
{
    uint64_t longest = 0;

    for (unsigned i = 0; i < all->count; i++) {
        uint64_t since = atomic_load(&all->threads[i].busy_since);
        uint64_t now = since ? processor_ns(all->threads[i].clock) + 1 : 0;
        if (since && now > since && now - since > longest) {
            longest = now - since;
        }
    }
    return longest;
}
