/* vcpud's end of the conversation with jitd: nothing that jitd does, or leaves undone, harms. */
#include "libshared/base/clock.h"
#include "libshared/ipc/channel.h"
#include "libshared/jit/abi.h"
#include "libshared/jit/cache_entry.h"
#include "libshared/jit/region_message.h"
#include "tests/unit/jit_sample.h"
#include "tests/unit/suite.h"
#include "vmmd/vcpu/jit_link.h"
#include <check.h>
#include <nanomsg/pair.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define WAIT_MS 20000
#define REGIONS 200u

/* An engine that has regions to offer, and notes what is done to it. */
struct engine {
    pthread_mutex_t lock;
    int event;
    bool runs;
    unsigned offered, fetch_offered; /* of REGIONS, and of 10 if `fetches` */
    bool fetches;
    unsigned ticks, refused, forgotten, installed, installed_cached, known;
    uint64_t unwanted, replacing; /* tickets */
    enum region_install result, other_result;
    unsigned installed_other;
};
static struct engine engine;
static struct jit_link *link_;
static struct channel *jitd;
static char path[64];

static bool fake_tick(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->ticks++;
    bool runs = e->runs;
    pthread_mutex_unlock(&e->lock);
    return runs;
}

static int fake_event(struct engine *e)
{
    return e->event;
}

static void fake_seen(struct engine *e)
{
    uint64_t value;
    ssize_t got = read(e->event, &value, sizeof(value));
    (void)got;
}

static bool fake_next_region(struct engine *e, struct region *region, uint64_t *ticket,
                             uint32_t *heat)
{
    pthread_mutex_lock(&e->lock);
    bool more = e->offered < REGIONS;
    if (more) {
        jit_sample_region(region, ++e->offered);
        *ticket = e->offered;
        *heat = 10;
    }
    pthread_mutex_unlock(&e->lock);
    return more;
}

static bool fake_replaces(struct engine *e, uint64_t ticket)
{
    return ticket == e->replacing;
}

static bool fake_wanted(struct engine *e, uint64_t ticket)
{
    return ticket != e->unwanted;
}

static void fake_refused(struct engine *e, uint64_t ticket)
{
    pthread_mutex_lock(&e->lock);
    ck_assert_uint_gt(ticket, 0);
    e->refused++;
    pthread_mutex_unlock(&e->lock);
}

static void fake_forget(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->forgotten++;
    pthread_mutex_unlock(&e->lock);
}

static void fake_set_known(struct engine *e, const uint64_t *fingerprints, size_t count)
{
    (void)fingerprints;
    pthread_mutex_lock(&e->lock);
    e->known = (unsigned)count;
    pthread_mutex_unlock(&e->lock);
}

static bool fake_next_fetch(struct engine *e, uint64_t *fingerprint)
{
    pthread_mutex_lock(&e->lock);
    bool more = e->fetches && e->fetch_offered < 10;
    if (more) {
        struct region region;
        jit_sample_region(&region, 1000 + e->fetch_offered++);
        *fingerprint = cache_head_fingerprint(&region);
    }
    pthread_mutex_unlock(&e->lock);
    return more;
}

static enum region_install fake_install(struct engine *e, uint64_t ticket, uint64_t fingerprint,
                                        const struct region *region, const uint8_t *bytes,
                                        size_t size, struct error *err)
{
    struct blob blob;
    enum region_install result = REGION_REFUSED;

    pthread_mutex_lock(&e->lock);
    error_set(err, ERROR_PROTOCOL, 0, "not sound");
    if (!region_check(region) && blob_check(&blob, bytes, size, region, err)) {
        result = e->result;
    }
    if (result == REGION_INSTALLED) {
        e->installed += ticket != 0;
        e->installed_cached += fingerprint != 0;
    }
    pthread_mutex_unlock(&e->lock);
    return result;
}

static enum region_install fake_install_other(struct engine *e, uint64_t ticket,
                                              const struct region *region, const uint8_t *bytes,
                                              size_t size, struct error *err)
{
    struct blob blob;

    pthread_mutex_lock(&e->lock);
    ck_assert_uint_gt(ticket, 0);
    ck_assert_ptr_null(region_check(region));
    ck_assert(blob_check(&blob, bytes, size, region, err));
    enum region_install result = e->other_result;
    e->installed_other += result == REGION_INSTALLED;
    pthread_mutex_unlock(&e->lock);
    return result;
}

static const struct jit_link_engine operations = {
    .tick = fake_tick,
    .event = fake_event,
    .seen = fake_seen,
    .next_region = fake_next_region,
    .replaces = fake_replaces,
    .wanted = fake_wanted,
    .refused = fake_refused,
    .forget = fake_forget,
    .set_known = fake_set_known,
    .next_fetch = fake_next_fetch,
    .install = fake_install,
    .install_other = fake_install_other,
};

/* ---- jitd's side ---- */

static unsigned read_count(const unsigned *counter)
{
    pthread_mutex_lock(&engine.lock);
    unsigned value = *counter;
    pthread_mutex_unlock(&engine.lock);
    return value;
}

/* Bounds a hang, proves no speed. */
static void wait_until(const unsigned *counter, unsigned value)
{
    uint64_t end = clock_monotonic_ns() + WAIT_MS * UINT64_C(1000000);

    while (read_count(counter) < value) {
        ck_assert_msg(clock_monotonic_ns() < end, "waited in vain");
        usleep(1000);
    }
}

static unsigned wanted;

static void note_wanted(void *context)
{
    pthread_mutex_lock(&engine.lock);
    ++*(unsigned *)context;
    pthread_mutex_unlock(&engine.lock);
}

static void setup(void)
{
    struct error err;

    memset(&engine, 0, sizeof(engine));
    pthread_mutex_init(&engine.lock, NULL);
    engine.event = eventfd(0, EFD_NONBLOCK);
    engine.runs = true;
    engine.result = REGION_INSTALLED;
    snprintf(path, sizeof(path), "/tmp/pv-link.%ld.sock", (long)getpid());
    unlink(path);
    wanted = 0;
    link_ = jit_link_create(&operations, &engine, path, note_wanted, &wanted, &err);
    ck_assert_msg(link_ != NULL, "%s", err.message);
    jitd = channel_connect(CHANNEL_JIT, NN_PAIR, path);
    ck_assert_ptr_nonnull(jitd);
}

static void teardown(void)
{
    jit_link_destroy(link_);
    channel_close(jitd);
    close(engine.event);
    unlink(path);
}

static void welcome_of(const char *abi, size_t count, bool first, bool more)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitWelcome message = POLYVISOR__JIT_WELCOME__INIT;
    static uint64_t fingerprints[20000];

    message.n_fingerprints = count;
    message.fingerprints = fingerprints;
    message.first = first;
    message.more = more;
    message.abi = (char *)abi;
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_WELCOME;
    reply.welcome = &message;
    ck_assert_int_eq(channel_send(jitd, &reply.base, WAIT_MS), 0);
}

static void welcome(size_t count, bool first, bool more)
{
    welcome_of(region_abi(), count, first, more);
}

static Polyvisor__JitRequest *next_request(void)
{
    ProtobufCMessage *message;
    int result = channel_receive(jitd, &polyvisor__jit_request__descriptor, &message, WAIT_MS);

    ck_assert_msg(result == 0, "%s", strerror(-result));
    return (Polyvisor__JitRequest *)message;
}

static bool another_request(int timeout_ms)
{
    ProtobufCMessage *message;

    if (channel_receive(jitd, &polyvisor__jit_request__descriptor, &message, timeout_ms)) {
        return false;
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return true;
}

static void answer_shape(uint64_t id, Polyvisor__JitStatus status, const struct region *region,
                         const struct region *sent, bool sound, uint64_t shape)
{
    Polyvisor__JitReply reply = POLYVISOR__JIT_REPLY__INIT;
    Polyvisor__JitAnswer message = POLYVISOR__JIT_ANSWER__INIT;
    struct region_message region_message;
    uint8_t blob[JIT_SAMPLE_BLOB];

    jit_sample_blob(region, 1, blob);
    blob[0] ^= !sound;
    message.status = status;
    message.shape = shape;
    message.compile_ns = 20000000;
    message.blob.data = blob;
    message.blob.len = sizeof(blob);
    if (sent) {
        region_to_message(sent, true, &region_message);
        message.region = &region_message.region;
    }
    reply.id = id;
    reply.body_case = POLYVISOR__JIT_REPLY__BODY_ANSWER;
    reply.answer = &message;
    ck_assert_int_eq(channel_send(jitd, &reply.base, WAIT_MS), 0);
}

static void answer(uint64_t id, Polyvisor__JitStatus status, const struct region *region,
                   const struct region *sent, bool sound)
{
    answer_shape(id, status, region, sent, sound, 0);
}

START_TEST(regions_are_asked_for_and_installed)
{
    struct region region;
    struct jit_link_stats stats;

    welcome(3, true, false);
    for (unsigned i = 0; i < REGIONS; i++) {
        Polyvisor__JitRequest *request = next_request();
        ck_assert_int_eq(request->body_case, POLYVISOR__JIT_REQUEST__BODY_COMPILE);
        ck_assert(region_from_message(&region, request->compile->region, NULL));
        answer(request->id, POLYVISOR__JIT_STATUS__JIT_DONE, &region, NULL, true);
        protobuf_c_message_free_unpacked(&request->base, NULL);
    }
    wait_until(&engine.installed, REGIONS);
    ck_assert_uint_eq(read_count(&engine.known), 3);
    ck_assert_uint_eq(read_count(&engine.refused), 0);
    jit_link_get_stats(link_, &stats);
    ck_assert_uint_eq(stats.requests, REGIONS);
    ck_assert_uint_eq(stats.lives, 1);
    ck_assert_uint_eq(stats.compile_ns, REGIONS * UINT64_C(20000000));
    ck_assert_uint_ge(stats.compile_median_ns, 16000000);
    ck_assert_uint_le(stats.compile_median_ns, stats.compile_p99_ns);
}
END_TEST

START_TEST(nothing_happens_before_a_welcome)
{
    ck_assert(!another_request(100));
    ck_assert_uint_eq(read_count(&engine.ticks), 0);
    ck_assert_uint_eq(read_count(&engine.offered), 0);
}
END_TEST

/* The package was replaced while the machine runs: code for another CPU state must not come in. */
START_TEST(one_of_another_version_is_as_good_as_none)
{
    struct region region;
    struct jit_link_stats stats;

    welcome_of("another", 5, true, false);
    ck_assert(!another_request(200));
    welcome_of("", 5, true, false); /* from before versions were told */
    ck_assert(!another_request(200));
    ck_assert_uint_eq(read_count(&engine.ticks), 0);
    ck_assert_uint_eq(read_count(&engine.known), 0);
    jit_link_get_stats(link_, &stats);
    ck_assert_uint_eq(stats.lives, 0);
    welcome(0, true, false); /* ours, and what it has been asked is void when another follows */
    Polyvisor__JitRequest *request = next_request();
    welcome_of("another", 0, true, false);
    wait_until(&engine.forgotten, 4);
    ck_assert(region_from_message(&region, request->compile->region, NULL));
    answer(request->id, POLYVISOR__JIT_STATUS__JIT_DONE, &region, NULL, true);
    protobuf_c_message_free_unpacked(&request->base, NULL);
    welcome(0, true, false);
    wait_until(&engine.forgotten, 5);
    ck_assert_uint_eq(read_count(&engine.installed), 0);
}
END_TEST

START_TEST(open_requests_are_bounded)
{
    unsigned count = 0;

    welcome(0, true, false);
    while (another_request(count < JIT_LINK_REQUESTS ? WAIT_MS : 100)) {
        count++;
    }
    ck_assert_uint_eq(count, JIT_LINK_REQUESTS);
    unsigned ticks = read_count(&engine.ticks);
    wait_until(&engine.ticks, ticks + 20); /* and the profile goes on */
}
END_TEST

START_TEST(a_new_life_begins_afresh)
{
    welcome(5, true, false);
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        protobuf_c_message_free_unpacked(&next_request()->base, NULL);
    }
    unsigned forgotten = read_count(&engine.forgotten);
    welcome(20000, true, true);
    welcome(20000, false, true);
    welcome(7, false, false);
    wait_until(&engine.known, 40007);
    ck_assert_uint_eq(read_count(&engine.forgotten), forgotten + 1);
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        protobuf_c_message_free_unpacked(&next_request()->base, NULL);
    }
    ck_assert(!another_request(50));
}
END_TEST

START_TEST(welcomes_without_end_are_bounded)
{
    welcome(0, true, false);
    for (int i = 0; i < 10; i++) {
        welcome(20000, false, false);
    }
    wait_until(&engine.known, 65536);
    welcome(1, true, false);
    struct jit_link_stats stats;
    do {
        jit_link_get_stats(link_, &stats);
    } while (stats.lives < 2);
    ck_assert_uint_le(read_count(&engine.known), 65536);
}
END_TEST

START_TEST(refusals_reach_the_engine)
{
    static const Polyvisor__JitStatus statuses[] = {
        POLYVISOR__JIT_STATUS__JIT_REFUSED, POLYVISOR__JIT_STATUS__JIT_BUSY,
        POLYVISOR__JIT_STATUS__JIT_UNKNOWN, POLYVISOR__JIT_STATUS__JIT_CANCELLED,
        (Polyvisor__JitStatus)77};
    struct region region;

    welcome(0, true, false);
    for (unsigned i = 0; i < 5; i++) {
        Polyvisor__JitRequest *request = next_request();
        ck_assert(region_from_message(&region, request->compile->region, NULL));
        answer(request->id, statuses[i], &region, NULL, true);
        protobuf_c_message_free_unpacked(&request->base, NULL);
    }
    wait_until(&engine.refused, 5);
    ck_assert_uint_eq(read_count(&engine.installed), 0);
}
END_TEST

START_TEST(fetches_come_first_and_are_tried_again)
{
    struct region region;
    struct jit_link_stats stats;

    pthread_mutex_lock(&engine.lock);
    engine.fetches = true;
    engine.result = REGION_ABSENT;
    pthread_mutex_unlock(&engine.lock);
    welcome(10, true, false);
    for (unsigned i = 0; i < 10; i++) {
        Polyvisor__JitRequest *request = next_request();
        ck_assert_int_eq(request->body_case, POLYVISOR__JIT_REQUEST__BODY_FETCH);
        jit_sample_region(&region, 1000 + i);
        ck_assert_uint_eq(request->fetch->fingerprint, cache_head_fingerprint(&region));
        answer(request->id, POLYVISOR__JIT_STATUS__JIT_DONE, &region, i == 3 ? NULL : &region,
               true);
        protobuf_c_message_free_unpacked(&request->base, NULL);
    }
    usleep(5000);
    ck_assert_uint_eq(read_count(&engine.installed_cached), 0);
    pthread_mutex_lock(&engine.lock);
    engine.result = REGION_INSTALLED;
    pthread_mutex_unlock(&engine.lock);
    wait_until(&engine.installed_cached, 9); /* one came without its region */
    jit_link_get_stats(link_, &stats);
    ck_assert_uint_eq(stats.fetches, 10);
}
END_TEST

static void set_other_result(enum region_install result)
{
    pthread_mutex_lock(&engine.lock);
    engine.other_result = result;
    pthread_mutex_unlock(&engine.lock);
}

/* The next request, which must have been asked with that shape (or none) as tried. */
static uint64_t expect_tried(struct region *region, uint64_t tried)
{
    Polyvisor__JitRequest *request = next_request();
    ck_assert_int_eq(request->body_case, POLYVISOR__JIT_REQUEST__BODY_COMPILE);
    ck_assert(region_from_message(region, request->compile->region, NULL));
    ck_assert_uint_eq(request->compile->n_tried, tried != 0);
    ck_assert(!tried || request->compile->tried[0] == tried);
    uint64_t id = request->id;
    protobuf_c_message_free_unpacked(&request->base, NULL);
    return id;
}

/* Other regions with the same head come instead of those that were asked for. */
START_TEST(what_others_have_is_used)
{
    struct region region, other;
    struct jit_link_stats stats;

    pthread_mutex_lock(&engine.lock);
    engine.offered = REGIONS - 1; /* one is left */
    pthread_mutex_unlock(&engine.lock);
    welcome(0, true, false);
    uint64_t id = expect_tried(&region, 0);
    other = region;
    other.bytes[20] ^= 1;
    set_other_result(REGION_STALE);
    answer_shape(id, POLYVISOR__JIT_STATUS__JIT_DONE, &other, &other, true, 77);
    id = expect_tried(&region, 77); /* it does not fit: asked again at once */
    set_other_result(REGION_INSTALLED);
    answer_shape(id, POLYVISOR__JIT_STATUS__JIT_DONE, &other, &other, true, 88);
    wait_until(&engine.installed_other, 1);
    jit_link_get_stats(link_, &stats);
    ck_assert_uint_eq(stats.from_cache, 1);
    ck_assert_uint_eq(read_count(&engine.refused), 0);

    /* The same head later: what did not fit is not asked for again, what did is, ... */
    pthread_mutex_lock(&engine.lock);
    engine.offered = REGIONS - 1;
    pthread_mutex_unlock(&engine.lock);
    id = expect_tried(&region, 77);
    other.bytes[0] ^= 1; /* another head: it is not what was asked for */
    answer_shape(id, POLYVISOR__JIT_STATUS__JIT_DONE, &other, &other, true, 99);
    wait_until(&engine.refused, 1);
    ck_assert_uint_eq(read_count(&engine.installed_other), 1);

    /* ... but for a region that is to replace it. */
    pthread_mutex_lock(&engine.lock);
    engine.replacing = REGIONS;
    engine.offered = REGIONS - 1;
    pthread_mutex_unlock(&engine.lock);
    Polyvisor__JitRequest *request = next_request();
    ck_assert_uint_eq(request->compile->n_tried, 2);
    ck_assert_uint_eq(request->compile->tried[0], 77);
    ck_assert_uint_eq(request->compile->tried[1], 88);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}
END_TEST

/* A jitd that always has another one is not asked for ever. */
START_TEST(shapes_without_end_are_bounded)
{
    struct region region;

    set_other_result(REGION_STALE);
    pthread_mutex_lock(&engine.lock);
    engine.offered = REGIONS - 1;
    pthread_mutex_unlock(&engine.lock);
    welcome(0, true, false);
    for (unsigned i = 0; i <= CACHE_TRIED_MAX; i++) {
        Polyvisor__JitRequest *request = next_request();
        ck_assert_uint_eq(request->compile->n_tried, i);
        ck_assert(region_from_message(&region, request->compile->region, NULL));
        answer_shape(request->id, POLYVISOR__JIT_STATUS__JIT_DONE, &region, &region, true, 1 + i);
        protobuf_c_message_free_unpacked(&request->base, NULL);
    }
    wait_until(&engine.refused, 1);
    ck_assert(!another_request(50));
}
END_TEST

START_TEST(garbage_is_dropped)
{
    Polyvisor__JitControlReply foreign = POLYVISOR__JIT_CONTROL_REPLY__INIT;
    Polyvisor__JitReply empty = POLYVISOR__JIT_REPLY__INIT;
    struct jit_link_stats stats;
    struct region region;

    jit_sample_region(&region, 1);
    for (int round = 0; round < 2; round++) { /* before and after a welcome */
        for (unsigned i = 0; i < 30; i++) {
            foreign.id = i * 77;
            channel_send(jitd, &foreign.base, WAIT_MS);
            empty.id = i;
            channel_send(jitd, &empty.base, WAIT_MS);
            answer(100000 + i, POLYVISOR__JIT_STATUS__JIT_DONE, &region, &region, true);
        }
        welcome(0, true, false);
    }
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        Polyvisor__JitRequest *request = next_request();
        answer(request->id, POLYVISOR__JIT_STATUS__JIT_DONE, &region, NULL, false);
        protobuf_c_message_free_unpacked(&request->base, NULL);
    }
    Polyvisor__JitRequest *request = next_request(); /* there is room again */
    protobuf_c_message_free_unpacked(&request->base, NULL);
    ck_assert_uint_eq(read_count(&engine.installed), 0);
    jit_link_get_stats(link_, &stats);
    ck_assert_uint_ge(stats.dropped, 100);
}
END_TEST

START_TEST(what_is_not_wanted_any_more_is_cancelled)
{
    pthread_mutex_lock(&engine.lock);
    engine.unwanted = 2;
    pthread_mutex_unlock(&engine.lock);
    welcome(0, true, false);
    uint64_t second = 0;
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        Polyvisor__JitRequest *request = next_request();
        second = i == 1 ? request->id : second;
        protobuf_c_message_free_unpacked(&request->base, NULL);
    }
    Polyvisor__JitRequest *request = next_request();
    ck_assert_int_eq(request->body_case, POLYVISOR__JIT_REQUEST__BODY_CANCEL);
    ck_assert_uint_eq(request->id, second);
    protobuf_c_message_free_unpacked(&request->base, NULL);
    wait_until(&engine.refused, 1);
}
END_TEST

START_TEST(an_idle_guest_costs_nothing)
{
    const uint64_t one = 1;

    pthread_mutex_lock(&engine.lock);
    engine.runs = false;
    engine.offered = REGIONS;
    pthread_mutex_unlock(&engine.lock);
    welcome(0, true, false);
    wait_until(&engine.ticks, 1);
    usleep(20000);
    unsigned ticks = read_count(&engine.ticks);
    usleep(200000);
    ck_assert_uint_le(read_count(&engine.ticks), ticks + 1);
    pthread_mutex_lock(&engine.lock);
    engine.runs = true;
    pthread_mutex_unlock(&engine.lock);
    ck_assert_int_eq(write(engine.event, &one, sizeof(one)), sizeof(one));
    wait_until(&engine.ticks, ticks + 10);
}
END_TEST

START_TEST(it_ends_while_nobody_listens)
{
    welcome(0, true, false);
    protobuf_c_message_free_unpacked(&next_request()->base, NULL);
    channel_close(jitd);
    unsigned ticks = read_count(&engine.ticks);
    wait_until(&engine.ticks, ticks + 20);
    pthread_mutex_lock(&engine.lock);
    engine.unwanted = 1; /* so that there is room to ask */
    pthread_mutex_unlock(&engine.lock);
    wait_until(&wanted, 1);
    jitd = channel_connect(CHANNEL_JIT, NN_PAIR, path);
    welcome(0, true, false);
    protobuf_c_message_free_unpacked(&next_request()->base, NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jit link");
    TCase *tests = tcase_create("link");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, regions_are_asked_for_and_installed);
    tcase_add_test(tests, nothing_happens_before_a_welcome);
    tcase_add_test(tests, one_of_another_version_is_as_good_as_none);
    tcase_add_test(tests, open_requests_are_bounded);
    tcase_add_test(tests, a_new_life_begins_afresh);
    tcase_add_test(tests, welcomes_without_end_are_bounded);
    tcase_add_test(tests, refusals_reach_the_engine);
    tcase_add_test(tests, fetches_come_first_and_are_tried_again);
    tcase_add_test(tests, what_others_have_is_used);
    tcase_add_test(tests, shapes_without_end_are_bounded);
    tcase_add_test(tests, garbage_is_dropped);
    tcase_add_test(tests, what_is_not_wanted_any_more_is_cancelled);
    tcase_add_test(tests, an_idle_guest_costs_nothing);
    tcase_add_test(tests, it_ends_while_nobody_listens);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
