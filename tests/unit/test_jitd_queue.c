/* jitd's queue, its journal of jobs, and its times. */
#include "jitd/queue.h"
#include "jitd/times.h"
#include "libshared/jit/journal.h"
#include "tests/unit/jit_sample.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define IDENTITY "test"

static struct cache_subject subject;

static struct job *make_job(uint32_t seed, uint32_t heat)
{
    struct region region;

    jit_sample_region(&region, seed);
    cache_subject_of(&region, IDENTITY, &subject);
    struct job *job = job_create(&region, &subject, heat);
    ck_assert_ptr_nonnull(job);
    return job;
}

static const struct cache_key *key_of(uint32_t seed)
{
    struct region region;

    jit_sample_region(&region, seed);
    cache_subject_of(&region, IDENTITY, &subject);
    return &subject.key;
}

static bool readable(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    return poll(&ready, 1, 0) == 1;
}

START_TEST(the_hottest_comes_first)
{
    static const uint32_t heats[] = {5, 900, 20, 300};
    struct queue *queue = queue_create(10);

    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_ptr_null(queue_add(queue, make_job(i, heats[i])));
    }
    queue_raise(queue, queue_find(queue, key_of(2)), 500);
    queue_raise(queue, queue_find(queue, key_of(2)), 1); /* never lowered */
    static const uint32_t order[] = {1, 2, 3, 0};
    for (unsigned i = 0; i < 4; i++) {
        struct job *job = queue_take(queue);
        ck_assert_mem_eq(&job->key, key_of(order[i]), sizeof(job->key));
    }
    queue_destroy(queue);
}
END_TEST

START_TEST(a_full_queue_keeps_the_hottest)
{
    struct queue *queue = queue_create(3);

    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_ptr_null(queue_add(queue, make_job(i, 10 + i)));
    }
    struct job *out = queue_add(queue, make_job(10, 5));
    ck_assert_mem_eq(&out->key, key_of(10), sizeof(out->key));
    job_destroy(out);
    out = queue_add(queue, make_job(11, 50));
    ck_assert_mem_eq(&out->key, key_of(0), sizeof(out->key));
    job_destroy(out);
    ck_assert_uint_eq(queue_length(queue), 3);
    ck_assert_ptr_null(queue_find(queue, key_of(0)));
    ck_assert_ptr_nonnull(queue_find(queue, key_of(11)));
    queue_destroy(queue);
}
END_TEST

START_TEST(waiting_jobs_can_be_cancelled_running_ones_not)
{
    struct queue *queue = queue_create(3);
    struct job_list finished;

    queue_add(queue, make_job(1, 10));
    queue_add(queue, make_job(2, 20));
    struct job *running = queue_take(queue), *waiting = queue_find(queue, key_of(1));
    ck_assert(!queue_cancel(queue, running));
    ck_assert_ptr_eq(queue_find(queue, key_of(2)), running);
    ck_assert(queue_cancel(queue, waiting));
    job_destroy(waiting);
    ck_assert_uint_eq(queue_length(queue), 0);
    ck_assert(!readable(queue_event(queue)));
    queue_finish(queue, running);
    ck_assert(readable(queue_event(queue)));
    ck_assert(!queue_cancel(queue, running));
    queue_collect(queue, &finished);
    ck_assert_ptr_eq(TAILQ_FIRST(&finished), running);
    ck_assert(!readable(queue_event(queue)));
    job_destroy(running);
    queue_stop(queue);
    ck_assert_ptr_null(queue_take(queue));
    queue_destroy(queue);
}
END_TEST

static void *take(void *argument)
{
    return queue_take(argument);
}

START_TEST(a_suspect_runs_alone)
{
    struct queue *queue = queue_create(5);
    struct job *suspect = make_job(1, 100);
    struct job_list finished;
    pthread_t thread;
    void *taken;

    suspect->suspect = true;
    queue_add(queue, make_job(2, 200));
    queue_add(queue, suspect);
    queue_add(queue, make_job(3, 10));
    struct job *hot = queue_take(queue);
    ck_assert_mem_eq(&hot->key, key_of(2), sizeof(hot->key));
    /* Its turn, but not while another runs; and the cool one does not overtake it. */
    pthread_create(&thread, NULL, take, queue);
    usleep(20000);
    ck_assert_uint_eq(queue_length(queue), 2);
    queue_finish(queue, hot);
    pthread_join(thread, &taken);
    ck_assert_ptr_eq(taken, suspect);
    pthread_create(&thread, NULL, take, queue);
    usleep(20000);
    ck_assert_uint_eq(queue_length(queue), 1);
    queue_finish(queue, suspect);
    pthread_join(thread, &taken);
    ck_assert_mem_eq(&((struct job *)taken)->key, key_of(3), sizeof(hot->key));
    queue_collect(queue, &finished);
    while ((hot = TAILQ_FIRST(&finished))) {
        TAILQ_REMOVE(&finished, hot, link);
        job_destroy(hot);
    }
    queue_destroy(queue);
}
END_TEST

/* ---- the journal ---- */

static unsigned suspect_count, poisoned_count;
static struct cache_key poisoned_key;

static void note_suspect(const struct region *region, const struct cache_subject *suspect,
                         unsigned deaths, void *context)
{
    (void)context;
    ck_assert_ptr_null(region_check(region));
    ck_assert_uint_eq(cache_head_fingerprint(region), suspect->fingerprint);
    suspect_count++;
    if (deaths >= JOURNAL_DEATHS) {
        poisoned_count++;
        poisoned_key = suspect->key;
    }
}

static void begin(struct journal *journal, unsigned slot, uint32_t seed)
{
    key_of(seed);
    journal_begin(journal, slot, &subject);
}

START_TEST(two_deaths_poison_a_job)
{
    int fd = memfd_create("journal", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, sizeof(struct journal)), 0);
    struct journal *journal = journal_map(fd);

    ck_assert_ptr_nonnull(journal);
    suspect_count = poisoned_count = 0;
    begin(journal, 0, 1);
    journal_end(journal, 0);
    begin(journal, 1, 2);
    begin(journal, 2, 3);
    journal_unmap(journal);
    journal = journal_map(fd); /* the next life */
    journal_settle(journal, true, IDENTITY, note_suspect, NULL);
    ck_assert_uint_eq(suspect_count, 2);
    ck_assert_uint_eq(poisoned_count, 0);
    ck_assert_uint_eq(journal_deaths(journal, key_of(1)), 0);
    ck_assert_uint_eq(journal_deaths(journal, key_of(2)), 1);
    ck_assert_uint_eq(journal_deaths(journal, key_of(3)), 1);
    /* Killed from outside: nobody's fault. */
    begin(journal, 0, 3);
    journal_settle(journal, false, IDENTITY, note_suspect, NULL);
    ck_assert_uint_eq(journal_deaths(journal, key_of(3)), 1);
    begin(journal, 0, 2);
    journal_settle(journal, true, IDENTITY, note_suspect, NULL);
    ck_assert_uint_eq(poisoned_count, 1);
    ck_assert_mem_eq(&poisoned_key, key_of(2), sizeof(poisoned_key));
    journal_settle(journal, true, IDENTITY, note_suspect, NULL);
    ck_assert_uint_eq(poisoned_count, 1);
    journal_unmap(journal);
    close(fd);
}
END_TEST

START_TEST(a_journal_that_was_overwritten_does_no_harm)
{
    int fd = memfd_create("journal", MFD_CLOEXEC), small = memfd_create("small", MFD_CLOEXEC);

    ck_assert_ptr_null(journal_map(small));
    close(small);
    ck_assert_int_eq(ftruncate(fd, sizeof(struct journal)), 0);
    for (unsigned round = 0; round < 50; round++) {
        struct journal *journal = journal_map(fd);
        uint32_t magic = journal->magic, version = journal->version;
        for (size_t i = 0; i < sizeof(*journal); i++) {
            ((uint8_t *)journal)[i] = (uint8_t)(random() >> 8);
        }
        journal->magic = round % 2 ? magic : 7;
        journal->version = version;
        begin(journal, 3, 5);
        journal_unmap(journal);
        journal = journal_map(fd);
        ck_assert_ptr_nonnull(journal);
        journal_settle(journal, true, IDENTITY, note_suspect, NULL);
        journal_unmap(journal);
    }
    close(fd);
}
END_TEST

START_TEST(quantiles_are_near)
{
    static struct times times;

    ck_assert_uint_eq(times_quantile(&times, 500), 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        times_add(&times, i * 1000);
    }
    ck_assert_uint_eq(times.sum_ns, UINT64_C(500500000));
    ck_assert_uint_ge(times_quantile(&times, 500), 430000);
    ck_assert_uint_le(times_quantile(&times, 500), 570000);
    ck_assert_uint_ge(times_quantile(&times, 990), 870000);
    ck_assert_uint_le(times_quantile(&times, 990), 1130000);
    times_add(&times, UINT64_MAX);
    times_add(&times, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jitd queue");
    TCase *tests = tcase_create("queue");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, the_hottest_comes_first);
    tcase_add_test(tests, a_full_queue_keeps_the_hottest);
    tcase_add_test(tests, waiting_jobs_can_be_cancelled_running_ones_not);
    tcase_add_test(tests, a_suspect_runs_alone);
    tcase_add_test(tests, two_deaths_poison_a_job);
    tcase_add_test(tests, a_journal_that_was_overwritten_does_no_harm);
    tcase_add_test(tests, quantiles_are_near);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
