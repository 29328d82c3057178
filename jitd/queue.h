/*
 * The jobs of jitd: what is to be compiled, for whom, and in which order.
 *
 * The main thread adds jobs, joins those who want the same to one job, and collects what is
 * finished; worker threads take the job of the highest priority. The queue is bounded: a job that
 * is worth more pushes out the one that is worth least. Who waits for a job is the main thread's
 * business alone.
 */
#ifndef POLYVISOR_JITD_QUEUE_H
#define POLYVISOR_JITD_QUEUE_H

#include "libshared/jit/cache_entry.h"
#include <sys/queue.h>

struct session;

/* Main thread. */
struct job_waiter {
    TAILQ_ENTRY(job_waiter) link;
    struct session *session;
    uint64_t id; /* of its request */
    bool other;  /* which was for another region with the same head */
};

struct job {
    TAILQ_ENTRY(job) link;
    struct region region;
    struct cache_key key;
    uint64_t fingerprint;
    uint64_t priority;
    bool suspect; /* never beside another job */
    bool running;
    bool noted;                       /* main thread: the cache knows that it is wanted */
    bool deserted;                    /* main thread, in passing: all who waited have left */
    TAILQ_HEAD(, job_waiter) waiters; /* main thread */

    /* What came of it, once it is finished. */
    uint8_t *blob; /* NULL: refused */
    size_t blob_size;
    uint64_t compile_ns; /* processor time */
    char reason[120];
};
TAILQ_HEAD(job_list, job);

/* NULL without memory. Not sound regions must not come here. */
struct job *job_create(const struct region *region, const struct cache_subject *subject,
                       uint32_t heat);
void job_destroy(struct job *job); /* NULL is allowed */
/* `key`: of the region that was asked for. */
bool job_add_waiter(struct job *job, struct session *session, uint64_t id,
                    const struct cache_key *key);

struct queue;

/* At most `bound` jobs wait. NULL with errno set. */
struct queue *queue_create(unsigned bound);
/* After all workers have ended. */
void queue_destroy(struct queue *queue);

/* ---- main thread ---- */

/* The job for that key, waiting or running, or NULL. */
struct job *queue_find(struct queue *queue, const struct cache_key *key);
/* Likewise one for a region with that head, of a shape that was not tried. */
struct job *queue_find_head(struct queue *queue, uint64_t fingerprint,
                            const struct cache_shapes *tried);
/* Add it. The job that has no room - another one, or this one - comes back, or NULL. */
struct job *queue_add(struct queue *queue, struct job *job);
/* Somebody else wants it, too: its priority becomes at least that of `heat`. */
void queue_raise(struct queue *queue, struct job *job, uint32_t heat);
/* Nobody waits for it now, but others may be glad of it later: it comes last. */
void queue_demote(struct queue *queue, struct job *job);
/* Take back a job that nobody waits for any more. False: it is running, and will be finished. */
bool queue_cancel(struct queue *queue, struct job *job);
/* Jobs that wait. */
unsigned queue_length(struct queue *queue);
/* Readable while there are finished jobs; queue_collect empties it. */
int queue_event(const struct queue *queue);
void queue_collect(struct queue *queue, struct job_list *finished);
/* Workers get NULL from now on. */
void queue_stop(struct queue *queue);
/* Call `use` for every job, waiting or running. It must not change the queue. */
void queue_each(struct queue *queue, void (*use)(struct job *job, void *context), void *context);

/* ---- workers ---- */

/* Waits. NULL: end. */
struct job *queue_take(struct queue *queue);
void queue_finish(struct queue *queue, struct job *job);

#endif
