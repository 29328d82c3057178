/*
 * What jitd is compiling right now, in memory that vmmd owns: when jitd dies of a job, its next
 * life finds out which one it was.
 *
 * A job that was being compiled at a death is a suspect; the next life compiles it once more, with
 * no other job beside it; at its second death the job is poisoned. The memory is written by a
 * process that may have run wild, so everything in it is checked before it is used.
 */
#ifndef POLYVISOR_JIT_JOURNAL_H
#define POLYVISOR_JIT_JOURNAL_H

#include "libshared/jit/cache_entry.h"
#include <stdatomic.h>

#define JOURNAL_SLOTS    16u /* jobs at once */
#define JOURNAL_SUSPECTS 64u /* the oldest are forgotten */
#define JOURNAL_DEATHS   2u  /* that poison a job */

struct journal {
    uint32_t magic, version;
    uint32_t next_suspect; /* the place that is used next */
    uint32_t reserved;
    struct journal_suspect {
        struct cache_key key;
        uint32_t deaths, reserved;
    } suspects[JOURNAL_SUSPECTS];
    struct journal_slot {
        _Atomic uint32_t busy; /* written last at the beginning of a job, first at its end */
        uint32_t size;
        uint8_t packed[REGION_PACKED_MAX]; /* without heat */
    } slots[JOURNAL_SLOTS];
};

/* Map the journal's memory (at least sizeof(struct journal) bytes), made afresh when it holds
 * something else. NULL with errno set. */
struct journal *journal_map(int fd);
void journal_unmap(struct journal *journal);

/* One thread a slot. */
void journal_begin(struct journal *journal, unsigned slot, const struct cache_subject *subject);
void journal_end(struct journal *journal, unsigned slot);

/* A job that the last life died of, or another beside it; poisoned after JOURNAL_DEATHS.
 * What is passed belongs to the caller, for the time of the call. */
typedef void journal_suspect_fn(const struct region *region, const struct cache_subject *subject,
                                unsigned deaths, void *context);

/* Before any job of this life: look at what was being compiled at the end of the last one, and
 * forget it. If that was a crash, `suspected` is called for each. */
void journal_settle(struct journal *journal, bool crashed, const char *identity,
                    journal_suspect_fn *suspected, void *context);
/* The deaths that a job had a part in. */
unsigned journal_deaths(const struct journal *journal, const struct cache_key *key);
/* Forget them: what the job did is noted elsewhere. */
void journal_pardon(struct journal *journal, const struct cache_key *key);

#endif
