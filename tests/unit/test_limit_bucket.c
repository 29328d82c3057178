/* Token buckets, limiters and lines under a clock of the test's own: what passes when, that no
 * stretch of time sees more than its burst and rate, and that nobody is passed over. */
#include "devd/limit/line.h"
#include "tests/unit/suite.h"

#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND)

static uint64_t kept[LIMITER_BUCKETS], clock_ns;
static struct bucket bucket;
static struct limiter limiter;
static struct lines lines;

static void setup(void)
{
    memset(kept, 0, sizeof(kept));
    memset(&lines, 0, sizeof(lines));
    clock_ns = START;
    bucket = (struct bucket){.full_at = &kept[0]};
    limiter_open(&limiter, kept);
    lines.limiter = &limiter;
}

static bool try_take(uint64_t tokens)
{
    if (bucket_wait(&bucket, tokens, clock_ns, clock_ns)) {
        return false;
    }
    bucket_take(&bucket, tokens, clock_ns);
    return true;
}

/* ---- One bucket ---- */

START_TEST(a_full_bucket_gives_its_burst_at_once)
{
    bucket_set(&bucket, 1000, 300, clock_ns);
    ck_assert(try_take(100));
    ck_assert(try_take(200));
    ck_assert(!try_take(1));
    ck_assert_uint_eq(bucket_wait(&bucket, 1, clock_ns, clock_ns), SECOND / 1000);
    ck_assert_uint_eq(bucket_wait(&bucket, 300, clock_ns, clock_ns), 300 * SECOND / 1000);
    clock_ns += SECOND / 1000;
    ck_assert(try_take(1));
    ck_assert(!try_take(1));
    clock_ns += 100 * SECOND; /* more than a burst is not saved up */
    ck_assert(try_take(300));
    ck_assert(!try_take(1));
}
END_TEST

START_TEST(without_a_rate_there_is_no_limit)
{
    bucket_set(&bucket, 0, 1, clock_ns);
    for (unsigned i = 0; i < 1000; i++) {
        ck_assert(try_take(UINT64_MAX));
    }
}
END_TEST

/* Who needs more than the bucket holds waits until all of it has come in. */
START_TEST(more_than_a_burst_waits_for_the_rest)
{
    uint64_t since = clock_ns;

    bucket_set(&bucket, 1000, 100, clock_ns);
    ck_assert_uint_eq(bucket_wait(&bucket, 1100, since, clock_ns), SECOND);
    clock_ns += SECOND / 2;
    ck_assert_uint_eq(bucket_wait(&bucket, 1100, since, clock_ns), SECOND / 2);
    clock_ns += SECOND / 2;
    ck_assert_uint_eq(bucket_wait(&bucket, 1100, since, clock_ns), 0);
    bucket_take(&bucket, 1100, clock_ns);
    ck_assert_uint_eq(bucket_wait(&bucket, 100, clock_ns, clock_ns), SECOND / 10);
}
END_TEST

/* Random takers, random pauses: from the beginning to any moment at most burst + rate * time, and
 * who always takes what he can gets nearly that. */
START_TEST(no_stretch_of_time_sees_more)
{
    static const uint64_t rates[] = {
        1, 7, 999, 65536, 1000003, UINT64_C(10000000000), LIMIT_RATE_MAX};
    unsigned seed = 1;

    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        uint64_t rate = rates[i], burst = rate / 10 + 1, taken = 0, begin = clock_ns;
        setup();
        begin = clock_ns;
        bucket_set(&bucket, rate, burst, clock_ns);
        for (unsigned step = 0; step < 20000; step++) {
            uint64_t want = (uint64_t)rand_r(&seed) % (burst + burst / 2) + 1;
            uint64_t wait = bucket_wait(&bucket, want, clock_ns, clock_ns);
            uint64_t since = clock_ns;
            if (wait) {
                clock_ns += wait - (wait > 1 ? (uint64_t)rand_r(&seed) % 2 : 0);
                wait = bucket_wait(&bucket, want, since, clock_ns);
                ck_assert_uint_le(wait, 2); /* one of what was taken off, one of rounding */
                clock_ns += wait;
                ck_assert_uint_eq(bucket_wait(&bucket, want, since, clock_ns), 0);
            }
            bucket_take(&bucket, want, clock_ns);
            taken += want;
            unsigned __int128 most =
                (unsigned __int128)rate * (clock_ns - begin) / SECOND + burst + 1;
            ck_assert(taken <= most);
        }
        unsigned __int128 least = (unsigned __int128)rate * (clock_ns - begin) / SECOND;
        ck_assert(taken + burst + taken / 10 >= least);
    }
}
END_TEST

START_TEST(what_is_missing_outlives_the_process)
{
    bucket_set(&bucket, 1000, 100, clock_ns);
    ck_assert(try_take(100));
    bucket = (struct bucket){.full_at = &kept[0]}; /* the next process */
    clock_ns += SECOND / 100;
    bucket_set(&bucket, 1000, 100, clock_ns);
    ck_assert(!try_take(11));
    ck_assert(try_take(10));
}
END_TEST

/* What is in shared memory may be anything: it costs a burst's time at most. */
START_TEST(nonsense_is_an_empty_bucket)
{
    kept[0] = UINT64_MAX;
    bucket_set(&bucket, 1000, 100, clock_ns);
    ck_assert_uint_eq(bucket_wait(&bucket, 100, clock_ns, clock_ns), SECOND / 10);
    kept[0] = UINT64_MAX; /* also while it is used */
    ck_assert_uint_le(bucket_wait(&bucket, 100, clock_ns, clock_ns), SECOND / 10);
    bucket_take(&bucket, 1, clock_ns);
    ck_assert_uint_le(bucket_wait(&bucket, 100, clock_ns, clock_ns), SECOND / 10);
    kept[0] = 0;
    ck_assert(try_take(100));
}
END_TEST

START_TEST(a_new_rate_makes_no_new_burst)
{
    bucket_set(&bucket, 1000, 1000, clock_ns);
    ck_assert(try_take(1000));
    bucket_set(&bucket, 2000, 1000, clock_ns);
    ck_assert(!try_take(1));
    ck_assert_uint_eq(bucket_wait(&bucket, 1000, clock_ns, clock_ns), SECOND / 2);
    bucket_set(&bucket, 2000, 10, clock_ns); /* nor a debt larger than the bucket */
    ck_assert_uint_eq(bucket_wait(&bucket, 10, clock_ns, clock_ns), 10 * SECOND / 2000);
    bucket_set(&bucket, 0, 1, clock_ns);
    ck_assert(try_take(1 << 30));
}
END_TEST

/* ---- Several of them ---- */

START_TEST(all_limits_hold_at_the_same_time)
{
    struct limits limits = {0};

    limits.of[LIMIT_BYTES][LIMIT_BOTH] = (struct limit){.rate = 10000, .burst = 10000};
    limits.of[LIMIT_OPERATIONS][LIMIT_OUT] = (struct limit){.rate = 10, .burst = 2};
    limiter_set(&limiter, &limits, clock_ns);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(limiter_wait(&limiter, LIMIT_OUT, 1000, clock_ns, clock_ns), 0);
        limiter_take(&limiter, LIMIT_OUT, 1000, clock_ns);
    }
    ck_assert_uint_eq(limiter_wait(&limiter, LIMIT_OUT, 1000, clock_ns, clock_ns), SECOND / 10);
    ck_assert(!limiter_wait_is_common(&limiter, 1000, clock_ns, clock_ns));
    ck_assert_uint_eq(limiter_wait(&limiter, LIMIT_IN, 8000, clock_ns, clock_ns), 0);
    limiter_take(&limiter, LIMIT_IN, 8000, clock_ns);
    ck_assert(limiter_wait_is_common(&limiter, 1000, clock_ns, clock_ns));
    ck_assert_uint_eq(limiter_wait(&limiter, LIMIT_IN, 1000, clock_ns, clock_ns), SECOND / 10);
    memset(&limits, 0, sizeof(limits));
    limiter_set(&limiter, &limits, clock_ns);
    ck_assert_uint_eq(limiter_wait(&limiter, LIMIT_OUT, 1000000, clock_ns, clock_ns), 0);
}
END_TEST

/* ---- Lines ---- */

#define ENTRIES 64u
static struct line_entry entries[ENTRIES];
static unsigned begun[ENTRIES], begun_count;

static void begin(struct line_entry *entry, void *context)
{
    ck_assert_ptr_eq(context, &lines);
    begun[begun_count++ % ENTRIES] = (unsigned)(entry - entries);
}

static bool enter(unsigned index, unsigned direction, unsigned queue, uint64_t bytes)
{
    entries[index] = (struct line_entry){
        .bytes = bytes, .direction = (uint8_t)direction, .queue = (uint8_t)queue};
    return lines_enter(&lines, &entries[index], clock_ns);
}

static void limit_operations(enum limit_direction direction, uint64_t rate)
{
    struct limits limits = {0};

    limits.of[LIMIT_OPERATIONS][direction] = (struct limit){.rate = rate, .burst = 1};
    limiter_set(&limiter, &limits, clock_ns);
    begun_count = 0;
}

START_TEST(queues_take_turns)
{
    limit_operations(LIMIT_BOTH, 100);
    ck_assert(enter(0, LIMIT_OUT, 0, 512));
    for (unsigned i = 1; i < 10; i++) {
        ck_assert(!enter(i, LIMIT_OUT, 0, 512)); /* a greedy queue */
    }
    ck_assert(!enter(10, LIMIT_OUT, 5, 512));
    ck_assert(!enter(11, LIMIT_OUT, 3, 512));
    ck_assert_uint_eq(lines_run(&lines, clock_ns, 100, begin, &lines), SECOND / 100);
    ck_assert_uint_eq(begun_count, 0);
    for (unsigned i = 0; i < 4; i++) {
        clock_ns += SECOND / 100;
        lines_run(&lines, clock_ns, 100, begin, &lines);
        ck_assert_uint_eq(begun_count, i + 1);
    }
    ck_assert_uint_eq(begun[0], 1);
    ck_assert_uint_eq(begun[1], 11);
    ck_assert_uint_eq(begun[2], 10);
    ck_assert_uint_eq(begun[3], 2);
    ck_assert_uint_eq(lines.waiting, 7);
}
END_TEST

START_TEST(directions_take_turns_at_what_is_common)
{
    limit_operations(LIMIT_BOTH, 100);
    ck_assert(enter(0, LIMIT_OUT, 0, 0));
    for (unsigned i = 1; i < 9; i++) {
        ck_assert(!enter(i, i <= 4 ? LIMIT_IN : LIMIT_OUT, 0, 0));
    }
    for (unsigned i = 0; i < 8; i++) {
        clock_ns += SECOND / 100;
        lines_run(&lines, clock_ns, 100, begin, &lines);
        ck_assert_uint_eq(begun_count, i + 1);
        ck_assert_uint_eq(entries[begun[i]].direction == LIMIT_IN, i % 2 == 0);
    }
    ck_assert_uint_eq(lines_run(&lines, clock_ns, 100, begin, &lines), LINES_NOTHING_WAITS);
}
END_TEST

START_TEST(writes_that_wait_do_not_hold_up_reads)
{
    limit_operations(LIMIT_OUT, 1);
    ck_assert(enter(0, LIMIT_OUT, 0, 0));
    ck_assert(!enter(1, LIMIT_OUT, 0, 0));
    for (unsigned i = 2; i < 10; i++) {
        enter(i, LIMIT_IN, 0, 0);
    }
    ck_assert_uint_eq(lines_run(&lines, clock_ns, 100, begin, &lines), SECOND);
    ck_assert_uint_eq(begun_count, 8);
    ck_assert_uint_eq(lines.waiting, 1);
}
END_TEST

/* Small ones that come all the time do not keep a large one waiting for ever. */
START_TEST(a_large_request_is_not_overtaken)
{
    struct limits limits = {0};

    limits.of[LIMIT_BYTES][LIMIT_BOTH] = (struct limit){.rate = 1000, .burst = 100};
    limiter_set(&limiter, &limits, clock_ns);
    begun_count = 0;
    ck_assert(enter(0, LIMIT_OUT, 0, 100));
    ck_assert(!enter(1, LIMIT_OUT, 0, 5000)); /* fifty buckets */
    for (unsigned i = 2; i < 40; i++) {
        ck_assert(!enter(i, i % 2, i % 4 + 1, 1));
        clock_ns += SECOND / 10;
        lines_run(&lines, clock_ns, 100, begin, &lines);
    }
    clock_ns += SECOND * 5;
    lines_run(&lines, clock_ns, 100, begin, &lines);
    bool found = false;
    for (unsigned i = 0; i < begun_count; i++) {
        found |= begun[i] == 1;
    }
    ck_assert(found);
}
END_TEST

START_TEST(new_limits_hold_for_who_waits)
{
    struct limits none = {0};

    limit_operations(LIMIT_BOTH, 1);
    ck_assert(enter(0, LIMIT_OUT, 0, 0));
    for (unsigned i = 1; i < 20; i++) {
        ck_assert(!enter(i, LIMIT_OUT, i % 3, 0));
    }
    limiter_set(&limiter, &none, clock_ns);
    ck_assert_uint_eq(lines_run(&lines, clock_ns, 4, begin, &lines), 0); /* no more at once */
    ck_assert_uint_eq(begun_count, 4);
    ck_assert_uint_eq(lines_run(&lines, clock_ns, 100, begin, &lines), LINES_NOTHING_WAITS);
    ck_assert_uint_eq(begun_count, 19);
}
END_TEST

static bool of_queue_two(const struct line_entry *entry)
{
    return entry->queue == 2;
}

START_TEST(who_will_not_wait_leaves)
{
    limit_operations(LIMIT_BOTH, 1);
    ck_assert(enter(0, LIMIT_OUT, 0, 0));
    for (unsigned i = 1; i < 20; i++) {
        ck_assert(!enter(i, i % 2, i % 4, 0));
    }
    unsigned count = 0;
    for (struct line_entry *entry = lines_leave(&lines, of_queue_two, clock_ns); entry;
         entry = entry->next) {
        ck_assert_uint_eq(entry->queue, 2);
        count++;
    }
    ck_assert_uint_eq(count, 5);
    ck_assert_uint_eq(lines.waiting, 14);
    for (unsigned i = 0; i < 14; i++) {
        clock_ns += SECOND;
        lines_run(&lines, clock_ns, 100, begin, &lines);
    }
    ck_assert_uint_eq(begun_count, 14);
    ck_assert_uint_eq(lines.waiting, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("limit_bucket");
    TCase *tests = tcase_create("bucket");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_full_bucket_gives_its_burst_at_once);
    tcase_add_test(tests, without_a_rate_there_is_no_limit);
    tcase_add_test(tests, more_than_a_burst_waits_for_the_rest);
    tcase_add_test(tests, no_stretch_of_time_sees_more);
    tcase_add_test(tests, what_is_missing_outlives_the_process);
    tcase_add_test(tests, nonsense_is_an_empty_bucket);
    tcase_add_test(tests, a_new_rate_makes_no_new_burst);
    tcase_add_test(tests, all_limits_hold_at_the_same_time);
    tcase_add_test(tests, queues_take_turns);
    tcase_add_test(tests, directions_take_turns_at_what_is_common);
    tcase_add_test(tests, writes_that_wait_do_not_hold_up_reads);
    tcase_add_test(tests, a_large_request_is_not_overtaken);
    tcase_add_test(tests, new_limits_hold_for_who_waits);
    tcase_add_test(tests, who_will_not_wait_leaves);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
