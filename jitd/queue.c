#include "jitd/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job_list waiting, running, finished;
    unsigned waiting_count, running_count, bound;
    bool exclusive; /* a suspect is running */
    bool stopping;
    int event;
};

/* ---- jobs ---- */

static uint64_t job_priority(const struct region *region, uint32_t heat)
{
    uint64_t insns = 0;

    for (unsigned i = 0; i < region->block_count; i++) {
        insns += region->blocks[i].insns;
    }
    return insns * heat;
}

struct job *job_create(const struct region *region, const struct cache_subject *subject,
                       uint32_t heat)
{
    struct job *job = malloc(sizeof(*job));

    if (!job) {
        return NULL;
    }
    memset(job, 0, sizeof(*job));
    job->region = *region;
    job->key = subject->key;
    job->fingerprint = subject->fingerprint;
    job->priority = job_priority(region, heat);
    TAILQ_INIT(&job->waiters);
    return job;
}

void job_destroy(struct job *job)
{
    struct job_waiter *waiter;

    if (!job) {
        return;
    }
    while ((waiter = TAILQ_FIRST(&job->waiters))) {
        TAILQ_REMOVE(&job->waiters, waiter, link);
        free(waiter);
    }
    free(job->blob);
    free(job);
}

bool job_add_waiter(struct job *job, struct session *session, uint64_t id,
                    const struct cache_key *key)
{
    struct job_waiter *waiter = malloc(sizeof(*waiter));

    if (!waiter) {
        return false;
    }
    waiter->session = session;
    waiter->id = id;
    waiter->other = memcmp(&job->key, key, sizeof(*key)) != 0;
    TAILQ_INSERT_TAIL(&job->waiters, waiter, link);
    return true;
}

/* ---- life ---- */

struct queue *queue_create(unsigned bound)
{
    struct queue *queue = calloc(1, sizeof(*queue));

    if (!queue) {
        return NULL;
    }
    queue->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->event < 0) {
        free(queue);
        return NULL;
    }
    queue->bound = bound;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->changed, NULL);
    TAILQ_INIT(&queue->waiting);
    TAILQ_INIT(&queue->running);
    TAILQ_INIT(&queue->finished);
    return queue;
}

static void list_destroy(struct job_list *list)
{
    struct job *job;

    while ((job = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, job, link);
        job_destroy(job);
    }
}

void queue_destroy(struct queue *queue)
{
    if (!queue) {
        return;
    }
    list_destroy(&queue->waiting);
    list_destroy(&queue->running);
    list_destroy(&queue->finished);
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
    close(queue->event);
    free(queue);
}

/* ---- main thread ---- */

static struct job *list_find(struct job_list *list, const struct cache_key *key)
{
    struct job *job;

    TAILQ_FOREACH(job, list, link)
    {
        if (!memcmp(&job->key, key, sizeof(*key))) {
            return job;
        }
    }
    return NULL;
}

struct job *queue_find(struct queue *queue, const struct cache_key *key)
{
    pthread_mutex_lock(&queue->lock);
    struct job_list *lists[] = {&queue->waiting, &queue->running, &queue->finished};
    struct job *job = NULL;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]) && !job; i++) {
        job = list_find(lists[i], key);
    }
    pthread_mutex_unlock(&queue->lock);
    return job;
}

struct job *queue_find_head(struct queue *queue, uint64_t fingerprint,
                            const struct cache_shapes *tried)
{
    pthread_mutex_lock(&queue->lock);
    struct job_list *lists[] = {&queue->waiting, &queue->running, &queue->finished};
    struct job *job = NULL, *found = NULL;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]) && !found; i++) {
        TAILQ_FOREACH(job, lists[i], link)
        {
            if (job->fingerprint == fingerprint && !job->suspect &&
                !cache_shape_among(tried, cache_shape(&job->key))) {
                found = job;
                break;
            }
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return found;
}

static struct job *least_wanted(struct queue *queue)
{
    struct job *job, *least = NULL;

    TAILQ_FOREACH(job, &queue->waiting, link)
    {
        if (!least || job->priority < least->priority) {
            least = job;
        }
    }
    return least;
}

struct job *queue_add(struct queue *queue, struct job *job)
{
    struct job *out = NULL;

    pthread_mutex_lock(&queue->lock);
    if (queue->waiting_count >= queue->bound) {
        out = least_wanted(queue);
        if (!out || out->priority >= job->priority) {
            pthread_mutex_unlock(&queue->lock);
            return job;
        }
        TAILQ_REMOVE(&queue->waiting, out, link);
        queue->waiting_count--;
    }
    TAILQ_INSERT_TAIL(&queue->waiting, job, link);
    queue->waiting_count++;
    pthread_cond_signal(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    return out;
}

void queue_raise(struct queue *queue, struct job *job, uint32_t heat)
{
    uint64_t priority = job_priority(&job->region, heat);

    pthread_mutex_lock(&queue->lock);
    job->priority = job->priority > priority ? job->priority : priority;
    pthread_mutex_unlock(&queue->lock);
}

void queue_demote(struct queue *queue, struct job *job)
{
    pthread_mutex_lock(&queue->lock);
    job->priority = 0;
    pthread_mutex_unlock(&queue->lock);
}

bool queue_cancel(struct queue *queue, struct job *job)
{
    pthread_mutex_lock(&queue->lock);
    bool waits = list_find(&queue->waiting, &job->key) == job;
    if (waits) {
        TAILQ_REMOVE(&queue->waiting, job, link);
        queue->waiting_count--;
        pthread_cond_broadcast(&queue->changed); /* it may have been a suspect that others let by */
    }
    pthread_mutex_unlock(&queue->lock);
    return waits;
}

unsigned queue_length(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    unsigned length = queue->waiting_count;
    pthread_mutex_unlock(&queue->lock);
    return length;
}

int queue_event(const struct queue *queue)
{
    return queue->event;
}

void queue_collect(struct queue *queue, struct job_list *finished)
{
    uint64_t count;

    TAILQ_INIT(finished);
    if (read(queue->event, &count, sizeof(count)) < 0 && errno != EAGAIN) {
        return;
    }
    pthread_mutex_lock(&queue->lock);
    TAILQ_CONCAT(finished, &queue->finished, link);
    pthread_mutex_unlock(&queue->lock);
}

void queue_stop(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->stopping = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

void queue_each(struct queue *queue, void (*use)(struct job *job, void *context), void *context)
{
    struct job_list *lists[] = {&queue->waiting, &queue->running, &queue->finished};
    struct job *job;

    pthread_mutex_lock(&queue->lock);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        TAILQ_FOREACH(job, lists[i], link)
        {
            use(job, context);
        }
    }
    pthread_mutex_unlock(&queue->lock);
}

/* ---- workers ---- */

/* The best job that may begin now. A suspect begins when nothing runs, and nothing begins beside
 * it; once it is the best one nothing overtakes it, so that it has its turn. */
static struct job *best_job(struct queue *queue)
{
    struct job *job, *best = NULL;

    if (queue->exclusive) {
        return NULL;
    }
    TAILQ_FOREACH(job, &queue->waiting, link)
    {
        if (!best || job->priority > best->priority) {
            best = job;
        }
    }
    return best && best->suspect && queue->running_count ? NULL : best;
}

struct job *queue_take(struct queue *queue)
{
    struct job *job = NULL;

    pthread_mutex_lock(&queue->lock);
    while (!queue->stopping && !(job = best_job(queue))) {
        pthread_cond_wait(&queue->changed, &queue->lock);
    }
    if (job && queue->stopping) {
        job = NULL;
    }
    if (job) {
        TAILQ_REMOVE(&queue->waiting, job, link);
        queue->waiting_count--;
        TAILQ_INSERT_TAIL(&queue->running, job, link);
        queue->running_count++;
        queue->exclusive = job->suspect;
        job->running = true;
    }
    pthread_mutex_unlock(&queue->lock);
    return job;
}

void queue_finish(struct queue *queue, struct job *job)
{
    const uint64_t one = 1;

    pthread_mutex_lock(&queue->lock);
    TAILQ_REMOVE(&queue->running, job, link);
    queue->running_count--;
    queue->exclusive = false;
    TAILQ_INSERT_TAIL(&queue->finished, job, link);
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    if (write(queue->event, &one, sizeof(one)) < 0) {
        return; /* its count is full: it is readable */
    }
}
