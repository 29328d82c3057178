/*
 * The threads that compile. Each has a compiler of its own, made for its first job; what comes out
 * is checked like anything that others would send, and kept in the cache, before anybody gets it.
 */
#ifndef POLYVISOR_JITD_COMPILE_THREADS_H
#define POLYVISOR_JITD_COMPILE_THREADS_H

#include "jitd/queue.h"
#include "libshared/jit/cache.h"
#include "libshared/jit/journal.h"

#define COMPILE_THREADS_MAX JOURNAL_SLOTS

struct compile_threads;

/* `journal` and `cache` may be NULL. All must outlive the workers. NULL with *err set. */
struct compile_threads *compile_threads_start(unsigned count, struct queue *queue,
                                              struct journal *journal, struct cache *cache,
                                              struct error *err);
/* After queue_stop: wait until all have ended, at most for timeout_ms. False: one is still at its
 * job, and everything that it uses must stay. */
bool compile_threads_end(struct compile_threads *threads, int timeout_ms);

/* Processor time that the longest running job has taken, in nanoseconds; 0: none runs. */
uint64_t compile_threads_longest_ns(struct compile_threads *threads);

#endif
