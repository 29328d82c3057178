/* jitd as a process, with the test double for LLVM: what vmmd and vcpud see of it. */
#include "libshared/base/clock.h"
#include "libshared/ipc/channel.h"
#include "libshared/ipc/fdlist.h"
#include "libshared/jit/cache.h"
#include "libshared/jit/journal.h"
#include "libshared/jit/region_message.h"
#include "tests/unit/jit_sample.h"
#include "tests/unit/suite.h"
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <nanomsg/pair.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_MS 60000

static char directory[64], cache_directory[80], program[PATH_MAX];
static int journal_fd, leash[2];
static pid_t jitd;
static struct channel *control;
static uint64_t last_id;
static uint32_t rest_ms;

static void find_program(void)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 64);

    ck_assert_int_gt(length, 0);
    program[length] = '\0';
    strcpy(strrchr(program, '/'), "/../jitd/jitd_double");
}

static void setup(void)
{
    find_program();
    strcpy(directory, "/tmp/pv-jitd.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(cache_directory, sizeof(cache_directory), "%s/cache", directory);
    journal_fd = memfd_create("journal", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(journal_fd, sizeof(struct journal)), 0);
    ck_assert_int_eq(pipe(leash), 0);
    jitd = 0;
    last_id = 0;
    rest_ms = 0;
}

static int wait_for_end(void)
{
    int status = 0;

    ck_assert_int_eq(waitpid(jitd, &status, 0), jitd);
    channel_close(control);
    control = NULL;
    jitd = 0;
    return status;
}

static void teardown(void)
{
    char command[128];

    if (jitd) {
        kill(jitd, SIGKILL);
        wait_for_end();
    }
    close(journal_fd);
    close(leash[0]);
    close(leash[1]);
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    ck_assert_int_eq(system(command), 0);
}

/* Ask; the answer is the caller's, NULL when none came. */
static Polyvisor__JitControlReply *ask(Polyvisor__JitControl *request)
{
    ProtobufCMessage *message = NULL;

    request->id = ++last_id;
    ck_assert_int_eq(channel_send(control, &request->base, ANSWER_MS), 0);
    if (channel_receive(control, &polyvisor__jit_control_reply__descriptor, &message, ANSWER_MS)) {
        return NULL;
    }
    ck_assert_uint_eq(((Polyvisor__JitControlReply *)message)->id, last_id);
    return (Polyvisor__JitControlReply *)message;
}

static void spawn(const char *settings)
{
    static struct fdlist list;
    char path[128];

    snprintf(path, sizeof(path), "%s/jitd.sock", directory);
    unlink(path);
    memset(&list, 0, sizeof(list));
    fdlist_add(&list, journal_fd, "journal");
    fdlist_add(&list, leash[0], "leash");
    char *environment = fdlist_environment(&list);
    jitd = fork();
    if (jitd == 0) {
        close(leash[1]);
        fcntl(journal_fd, F_SETFD, 0);
        putenv(environment);
        setenv("POLYVISOR_TEST_COMPILER", settings, 1);
        execl(program, "jitd", "--control", path, "--cache", cache_directory, (char *)NULL);
        _exit(127);
    }
    free(environment);
    control = channel_connect(CHANNEL_JIT_CONTROL, NN_PAIR, path);
    ck_assert_ptr_nonnull(control);
}

static Polyvisor__JitControlReply *configure(bool crashed)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitConfigure message = POLYVISOR__JIT_CONFIGURE__INIT;

    message.cache_directory = cache_directory;
    message.crashed = crashed;
    message.workers = 2;
    message.job_limit_ms = 300;
    message.rest_ms = rest_ms;
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_CONFIGURE;
    request.configure = &message;
    Polyvisor__JitControlReply *reply = ask(&request);
    ck_assert_ptr_nonnull(reply);
    ck_assert_ptr_null(reply->error);
    return reply;
}

static void start(const char *settings)
{
    spawn(settings);
    polyvisor__jit_control_reply__free_unpacked(configure(false), NULL);
}

static void get_stats(Polyvisor__JitStats *stats)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitStatsRequest message = POLYVISOR__JIT_STATS_REQUEST__INIT;

    request.body_case = POLYVISOR__JIT_CONTROL__BODY_STATS;
    request.stats = &message;
    Polyvisor__JitControlReply *reply = ask(&request);
    ck_assert_ptr_nonnull(reply);
    ck_assert_ptr_nonnull(reply->stats);
    *stats = *reply->stats;
    polyvisor__jit_control_reply__free_unpacked(reply, NULL);
}

/* Whether it is answered is open. */
static void tell_ping(void)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitPing ping = POLYVISOR__JIT_PING__INIT;

    request.id = ++last_id;
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_PING;
    request.ping = &ping;
    ck_assert_int_eq(channel_send(control, &request.base, ANSWER_MS), 0);
}

/* ---- vcpud's side ---- */

static Polyvisor__JitReply *receive(struct channel *machine)
{
    ProtobufCMessage *message = NULL;
    int result = channel_receive(machine, &polyvisor__jit_reply__descriptor, &message, ANSWER_MS);

    ck_assert_msg(result == 0, "%s", strerror(-result));
    return (Polyvisor__JitReply *)message;
}

static void drop(Polyvisor__JitReply *reply)
{
    polyvisor__jit_reply__free_unpacked(reply, NULL);
}

/* Bind and attach; the number of fingerprints of the welcome. */
static struct channel *attach(const char *name, size_t *known)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitAttach message = POLYVISOR__JIT_ATTACH__INIT;
    char path[128];

    snprintf(path, sizeof(path), "%s/%s.sock", directory, name);
    struct channel *machine = channel_bind(CHANNEL_JIT, NN_PAIR, path);
    ck_assert_ptr_nonnull(machine);
    message.machine = (char *)name;
    message.path = path;
    message.arch = (char *)"riscv64";
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_ATTACH;
    request.attach = &message;
    Polyvisor__JitControlReply *done = ask(&request);
    ck_assert_ptr_nonnull(done);
    ck_assert_ptr_null(done->error);
    polyvisor__jit_control_reply__free_unpacked(done, NULL);

    Polyvisor__JitReply *reply = receive(machine);
    ck_assert_uint_eq(reply->id, 0);
    ck_assert_int_eq(reply->body_case, POLYVISOR__JIT_REPLY__BODY_WELCOME);
    ck_assert(reply->welcome->first);
    ck_assert(!reply->welcome->more);
    if (known) {
        *known = reply->welcome->n_fingerprints;
    }
    drop(reply);
    return machine;
}

static void send_region(struct channel *machine, uint64_t id, const struct region *region,
                        uint32_t heat, uint64_t *tried, size_t tried_count)
{
    Polyvisor__JitRequest request = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitCompile compile = POLYVISOR__JIT_COMPILE__INIT;
    struct region_message message;

    region_to_message(region, true, &message);
    compile.region = &message.region;
    compile.heat = heat;
    compile.tried = tried;
    compile.n_tried = tried_count;
    request.id = id;
    request.body_case = POLYVISOR__JIT_REQUEST__BODY_COMPILE;
    request.compile = &compile;
    ck_assert_int_eq(channel_send(machine, &request.base, ANSWER_MS), 0);
}

static void send_compile(struct channel *machine, uint64_t id, uint32_t seed, uint32_t heat)
{
    struct region region;

    jit_sample_region(&region, seed);
    send_region(machine, id, &region, heat, NULL, 0);
}

static void send_cancel(struct channel *machine, uint64_t id)
{
    Polyvisor__JitRequest request = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitCancel cancel = POLYVISOR__JIT_CANCEL__INIT;

    request.id = id;
    request.body_case = POLYVISOR__JIT_REQUEST__BODY_CANCEL;
    request.cancel = &cancel;
    ck_assert_int_eq(channel_send(machine, &request.base, ANSWER_MS), 0);
}

static void send_fetch(struct channel *machine, uint64_t id, uint64_t fingerprint)
{
    Polyvisor__JitRequest request = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitFetch fetch = POLYVISOR__JIT_FETCH__INIT;

    fetch.fingerprint = fingerprint;
    request.id = id;
    request.body_case = POLYVISOR__JIT_REQUEST__BODY_FETCH;
    request.fetch = &fetch;
    ck_assert_int_eq(channel_send(machine, &request.base, ANSWER_MS), 0);
}

/* The next answer, which must be to `id` and of that status; news of others are passed over. */
static Polyvisor__JitReply *answer_to(struct channel *machine, uint64_t id,
                                      Polyvisor__JitStatus status)
{
    Polyvisor__JitReply *reply = receive(machine);

    while (!reply->id) {
        drop(reply);
        reply = receive(machine);
    }
    ck_assert_uint_eq(reply->id, id);
    ck_assert_int_eq(reply->body_case, POLYVISOR__JIT_REPLY__BODY_ANSWER);
    ck_assert_msg(reply->answer->status == status, "status %d: %s", reply->answer->status,
                  reply->answer->reason);
    return reply;
}

START_TEST(a_region_is_compiled_once_and_then_known)
{
    Polyvisor__JitStats stats;
    struct region region, back;
    struct blob blob;
    size_t known;

    start("");
    struct channel *machine = attach("one", &known);
    ck_assert_uint_eq(known, 0);
    jit_sample_region(&region, 1);
    send_compile(machine, 7, 1, 10);
    Polyvisor__JitReply *reply = answer_to(machine, 7, POLYVISOR__JIT_STATUS__JIT_DONE);
    ck_assert(!reply->answer->cached);
    ck_assert_uint_gt(reply->answer->compile_ns, 0);
    ck_assert(blob_check(&blob, reply->answer->blob.data, reply->answer->blob.len, &region, NULL));
    drop(reply);

    send_compile(machine, 8, 1, 10);
    reply = answer_to(machine, 8, POLYVISOR__JIT_STATUS__JIT_DONE);
    ck_assert(reply->answer->cached);
    drop(reply);
    send_fetch(machine, 9, cache_head_fingerprint(&region));
    reply = answer_to(machine, 9, POLYVISOR__JIT_STATUS__JIT_DONE);
    ck_assert(region_from_message(&back, reply->answer->region, NULL));
    ck_assert_mem_eq(back.bytes, region.bytes, sizeof(back.bytes));
    ck_assert(blob_check(&blob, reply->answer->blob.data, reply->answer->blob.len, &back, NULL));
    drop(reply);
    send_fetch(machine, 10, 12345);
    drop(answer_to(machine, 10, POLYVISOR__JIT_STATUS__JIT_UNKNOWN));

    get_stats(&stats);
    ck_assert_uint_eq(stats.regions_compiled, 1);
    ck_assert_uint_eq(stats.cache_hits, 2);
    ck_assert_uint_eq(stats.cache_entries, 1);
    ck_assert_uint_gt(stats.compile_median_ns, 0);
    channel_close(machine);

    /* The next life has it, too. */
    kill(jitd, SIGKILL);
    wait_for_end();
    start("");
    machine = attach("two", &known);
    ck_assert_uint_eq(known, 1);
    send_compile(machine, 1, 1, 10);
    reply = answer_to(machine, 1, POLYVISOR__JIT_STATUS__JIT_DONE);
    ck_assert(reply->answer->cached);
    drop(reply);
    channel_close(machine);
}
END_TEST

START_TEST(machines_share_a_job_and_hear_of_others)
{
    struct channel *machines[3];
    Polyvisor__JitStats stats;
    struct region region;

    start("sleep:100");
    machines[0] = attach("a", NULL);
    machines[1] = attach("b", NULL);
    machines[2] = attach("c", NULL);
    jit_sample_region(&region, 1);
    send_compile(machines[0], 1, 1, 10);
    send_compile(machines[1], 5, 1, 10);
    drop(answer_to(machines[0], 1, POLYVISOR__JIT_STATUS__JIT_DONE));
    drop(answer_to(machines[1], 5, POLYVISOR__JIT_STATUS__JIT_DONE));
    Polyvisor__JitReply *news = receive(machines[2]);
    ck_assert_uint_eq(news->id, 0);
    ck_assert(!news->welcome->first);
    ck_assert_uint_eq(news->welcome->n_fingerprints, 1);
    ck_assert_uint_eq(news->welcome->fingerprints[0], cache_head_fingerprint(&region));
    drop(news);
    get_stats(&stats);
    ck_assert_uint_eq(stats.regions_compiled, 1);
    for (int i = 0; i < 3; i++) {
        channel_close(machines[i]);
    }
}
END_TEST

/* All begin alike; what follows the head differs. */
static void shape_region(struct region *region, uint8_t number)
{
    jit_sample_region(region, 1);
    region->bytes[20] = number;
}

/* The shape of the answer, which must be for region `number`: one that was asked for, or another.
 */
static uint64_t answered_shape(struct channel *machine, uint64_t id, uint8_t number, bool other)
{
    Polyvisor__JitReply *reply = answer_to(machine, id, POLYVISOR__JIT_STATUS__JIT_DONE);
    struct region wanted, region;
    struct blob blob;

    shape_region(&wanted, number);
    ck_assert_int_eq(reply->answer->region != NULL, other);
    if (other) {
        ck_assert(region_from_message(&region, reply->answer->region, NULL));
        ck_assert_mem_eq(region.bytes, wanted.bytes, sizeof(region.bytes));
    }
    ck_assert(blob_check(&blob, reply->answer->blob.data, reply->answer->blob.len, &wanted, NULL));
    uint64_t shape = reply->answer->shape;
    ck_assert_uint_ne(shape, 0);
    drop(reply);
    return shape;
}

START_TEST(machines_share_regions_that_begin_alike)
{
    Polyvisor__JitStats stats;
    struct region region;
    uint64_t shapes[3];

    start("sleep:100");
    struct channel *one = attach("one", NULL), *other = attach("other", NULL);
    shape_region(&region, 1);
    send_region(one, 1, &region, 10, NULL, 0);
    shape_region(&region, 2);
    send_region(other, 1, &region, 10, NULL, 0); /* while the first is being compiled */
    shapes[0] = answered_shape(one, 1, 1, false);
    ck_assert_uint_eq(answered_shape(other, 1, 1, true), shapes[0]);
    send_region(other, 2, &region, 10, NULL, 0); /* and from the cache */
    ck_assert_uint_eq(answered_shape(other, 2, 1, true), shapes[0]);
    get_stats(&stats);
    ck_assert_uint_eq(stats.regions_compiled, 1);

    /* It does not fit, or is not enough: what was asked for is compiled, and is the next one's. */
    send_region(other, 3, &region, 10, shapes, 1);
    shapes[1] = answered_shape(other, 3, 2, false);
    shape_region(&region, 3);
    send_region(one, 4, &region, 10, shapes, 1);
    ck_assert_uint_eq(answered_shape(one, 4, 2, true), shapes[1]);
    send_region(one, 5, &region, 10, shapes, 2);
    shapes[2] = answered_shape(one, 5, 3, false);
    get_stats(&stats);
    ck_assert_uint_eq(stats.regions_compiled, 3);
    send_region(one, 6, &region, 10, shapes, 3); /* who has it already gets nothing */
    drop(answer_to(one, 6, POLYVISOR__JIT_STATUS__JIT_REFUSED));
    channel_close(one);
    channel_close(other);
}
END_TEST

static bool has_compiled(unsigned count)
{
    Polyvisor__JitStats stats;

    get_stats(&stats);
    return stats.regions_compiled >= count && stats.queued == 0;
}

/* Killed with a queue: its successor begins with that, although nobody asks again. */
START_TEST(what_waited_is_compiled_in_the_next_life)
{
    Polyvisor__JitStats stats;
    size_t known;

    start("sleep:100");
    struct channel *machine = attach("one", NULL);
    for (uint32_t i = 1; i <= 12; i++) {
        send_compile(machine, i, i, 100 - i);
    }
    send_cancel(machine, 12);
    get_stats(&stats);
    uint64_t end = clock_monotonic_ns() + ANSWER_MS * UINT64_C(1000000);
    while (stats.cancelled < 1 && clock_monotonic_ns() < end) {
        usleep(1000);
        get_stats(&stats);
    }
    kill(jitd, SIGKILL);
    wait_for_end();
    channel_close(machine);
    start("");
    while (!has_compiled(7) && clock_monotonic_ns() < end) {
        usleep(10000);
    }
    get_stats(&stats);
    ck_assert_uint_ge(stats.regions_compiled, 7); /* two were being compiled, some done */
    ck_assert_uint_le(stats.cache_entries, 11);   /* nobody wanted the twelfth any more */
    kill(jitd, SIGKILL);
    wait_for_end();
    start("");
    machine = attach("two", &known);
    ck_assert_uint_ge(known, 7);
    get_stats(&stats);
    ck_assert_uint_eq(stats.queued, 0);
    channel_close(machine);
}
END_TEST

START_TEST(jobs_are_cancelled)
{
    Polyvisor__JitStats stats;

    start("sleep:100");
    struct channel *machine = attach("one", NULL);
    for (uint32_t i = 1; i <= 6; i++) { /* two of them begin at once */
        send_compile(machine, i, i, 100 - i);
    }
    for (uint32_t i = 4; i <= 6; i++) {
        send_cancel(machine, i);
    }
    unsigned cancelled = 0, done = 0;
    for (uint32_t i = 1; i <= 6; i++) {
        Polyvisor__JitReply *reply = receive(machine);
        cancelled += reply->answer->status == POLYVISOR__JIT_STATUS__JIT_CANCELLED;
        done += reply->answer->status == POLYVISOR__JIT_STATUS__JIT_DONE;
        drop(reply);
    }
    ck_assert_uint_eq(cancelled, 3);
    ck_assert_uint_eq(done, 3);
    get_stats(&stats);
    ck_assert_uint_ge(stats.cancelled, 1);
    ck_assert_uint_le(stats.regions_compiled, 5);
    channel_close(machine);
}
END_TEST

/* Until it has compiled so many. Bounds a hang, proves no speed. */
static void wait_for_compiled(uint64_t count)
{
    uint64_t end = clock_monotonic_ns() + ANSWER_MS * UINT64_C(1000000);
    Polyvisor__JitStats stats;

    do {
        ck_assert(clock_monotonic_ns() < end);
        usleep(10000);
        get_stats(&stats);
    } while (stats.regions_compiled < count);
}

START_TEST(what_a_machine_leaves_behind_is_for_the_cache)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitDetach detach = POLYVISOR__JIT_DETACH__INIT;

    start("sleep:20");
    struct channel *machine = attach("one", NULL);
    for (uint32_t i = 1; i <= 8; i++) {
        send_compile(machine, i, i, 100);
    }
    drop(receive(machine)); /* all have arrived, or will before what comes now */
    usleep(50000);
    detach.machine = (char *)"one";
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_DETACH;
    request.detach = &detach;
    Polyvisor__JitControlReply *reply = ask(&request);
    ck_assert_ptr_nonnull(reply);
    polyvisor__jit_control_reply__free_unpacked(reply, NULL);
    channel_close(machine);
    wait_for_compiled(8);
    size_t known;
    machine = attach("two", &known);
    ck_assert_uint_eq(known, 8);
    channel_close(machine);
}
END_TEST

START_TEST(refusals_are_remembered)
{
    Polyvisor__JitStats stats;

    start("refuse:1");
    struct channel *machine = attach("one", NULL);
    for (uint64_t id = 1; id <= 3; id++) {
        send_compile(machine, id, 1, 10);
        drop(answer_to(machine, id, POLYVISOR__JIT_STATUS__JIT_REFUSED));
    }
    get_stats(&stats);
    ck_assert_uint_eq(stats.regions_refused, 1);
    ck_assert_uint_eq(stats.cache_entries, 0);
    channel_close(machine);
}
END_TEST

START_TEST(unsound_code_of_the_compiler_goes_nowhere)
{
    Polyvisor__JitStats stats;

    start("unsound:1");
    struct channel *machine = attach("one", NULL);
    send_compile(machine, 1, 1, 10);
    drop(answer_to(machine, 1, POLYVISOR__JIT_STATUS__JIT_REFUSED));
    get_stats(&stats);
    ck_assert_uint_eq(stats.cache_entries, 0);
    channel_close(machine);
}
END_TEST

START_TEST(hostile_machines_harm_nobody)
{
    Polyvisor__JitRequest request = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitCompile compile = POLYVISOR__JIT_COMPILE__INIT;
    Polyvisor__JitControl foreign = POLYVISOR__JIT_CONTROL__INIT;
    struct region_message message;
    struct region region;

    start("");
    struct channel *hostile = attach("hostile", NULL), *good = attach("good", NULL);
    jit_sample_region(&region, 1);
    request.body_case = POLYVISOR__JIT_REQUEST__BODY_COMPILE;
    request.compile = &compile;
    for (request.id = 1; request.id <= 4; request.id++) {
        region_to_message(&region, true, &message);
        message.blocks[0].page = request.id % 2 ? 77 : 1;
        compile.region = request.id == 3 ? NULL : &message.region;
        ck_assert_int_eq(channel_send(hostile, &request.base, ANSWER_MS), 0);
        drop(answer_to(hostile, request.id, POLYVISOR__JIT_STATUS__JIT_REFUSED));
    }
    /* No request at all, and more than it takes answers for. */
    for (int i = 0; i < 5; i++) {
        channel_send(hostile, &foreign.base, ANSWER_MS);
    }
    for (uint32_t i = 0; i < 2000; i++) {
        region_to_message(&region, true, &message);
        compile.region = &message.region;
        request.id = 100 + i;
        if (channel_send(hostile, &request.base, 100)) {
            break;
        }
    }
    send_compile(good, 1, 1, 10);
    drop(answer_to(good, 1, POLYVISOR__JIT_STATUS__JIT_DONE));
    for (int i = 0; i < 40; i++) {
        channel_send(hostile, &foreign.base, 10);
    }
    send_compile(good, 2, 2, 10);
    drop(answer_to(good, 2, POLYVISOR__JIT_STATUS__JIT_DONE));
    channel_close(hostile);
    channel_close(good);
}
END_TEST

START_TEST(a_job_that_kills_twice_is_poisoned)
{
    struct region region;
    char path[PATH_MAX], command[2 * PATH_MAX];

    jit_sample_region(&region, 1);
    for (int death = 0; death < 2; death++) {
        spawn("crash:1");
        Polyvisor__JitControlReply *reply = configure(death > 0);
        ck_assert_uint_eq(reply->n_poisoned, 0);
        polyvisor__jit_control_reply__free_unpacked(reply, NULL);
        struct channel *machine = NULL;
        if (death == 0) {
            machine = attach("one", NULL);
            send_compile(machine, 1, 1, 10);
        } else { /* the next life tries it again without being asked, once it was heard */
            tell_ping();
        }
        int status = wait_for_end();
        ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
        channel_close(machine);
    }
    spawn("");
    Polyvisor__JitControlReply *reply = configure(true);
    ck_assert_uint_eq(reply->n_poisoned, 1);
    ck_assert_uint_eq(reply->poisoned[0]->fingerprint, cache_head_fingerprint(&region));
    snprintf(path, sizeof(path), "%s", reply->poisoned[0]->path);
    polyvisor__jit_control_reply__free_unpacked(reply, NULL);
    ck_assert_int_eq(access(path, R_OK), 0);
    struct channel *machine = attach("one", NULL);
    send_compile(machine, 1, 1, 10);
    drop(answer_to(machine, 1, POLYVISOR__JIT_STATUS__JIT_REFUSED));
    send_compile(machine, 2, 2, 10);
    drop(answer_to(machine, 2, POLYVISOR__JIT_STATUS__JIT_DONE));
    channel_close(machine);
    /* For as long as the file is there, by whatever jitd. */
    kill(jitd, SIGKILL);
    wait_for_end();
    ck_assert_int_eq(ftruncate(journal_fd, 0), 0);
    ck_assert_int_eq(ftruncate(journal_fd, sizeof(struct journal)), 0);
    start("");
    machine = attach("one", NULL);
    send_compile(machine, 1, 1, 10);
    drop(answer_to(machine, 1, POLYVISOR__JIT_STATUS__JIT_REFUSED));
    channel_close(machine);

    snprintf(command, sizeof(command), "%s --replay %s | grep -q 'listing of the test double'",
             program, path);
    ck_assert_int_eq(system(command), 0);
    snprintf(command, sizeof(command),
             "! POLYVISOR_TEST_COMPILER=crash:1 %s --replay %s >/dev/null 2>&1", program, path);
    ck_assert_int_eq(system(command), 0);
    snprintf(command, sizeof(command), "! %s --replay /etc/passwd 2>/dev/null", program);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* Without a cache there is no file that says so: the journal does. */
START_TEST(poisoned_is_poisoned_without_a_cache_too)
{
    fclose(fopen(cache_directory, "w")); /* where the directory should be */
    for (int life = 0; life < 5; life++) {
        spawn("crash:1");
        Polyvisor__JitControlReply *reply = configure(life == 1 || life == 2);
        ck_assert_uint_eq(reply->n_poisoned, life == 2);
        polyvisor__jit_control_reply__free_unpacked(reply, NULL);
        struct channel *machine = NULL;
        if (life == 1) { /* it tries it by itself */
            tell_ping();
        } else {
            machine = attach("one", NULL);
            send_compile(machine, 1, 1, 10);
        }
        if (life >= 2) {
            drop(answer_to(machine, 1, POLYVISOR__JIT_STATUS__JIT_REFUSED));
            kill(jitd, SIGKILL);
        }
        wait_for_end();
        channel_close(machine);
    }
}
END_TEST

START_TEST(one_machine_does_not_fill_the_queue)
{
    uint64_t answered = 0, done = 0;

    start("sleep:5");
    struct channel *greedy = attach("greedy", NULL), *modest = attach("modest", NULL);
    for (uint64_t id = 1; id <= 300; id++) {
        send_compile(greedy, id, (uint32_t)id, UINT32_MAX);
    }
    while (!answered) { /* what it asked for has come; it is being worked on */
        Polyvisor__JitReply *reply = receive(greedy);
        answered = reply->id;
        drop(reply);
    }
    send_compile(modest, 1, 1000, 1);
    drop(answer_to(modest, 1, POLYVISOR__JIT_STATUS__JIT_DONE));
    for (answered = 1; answered < 300;) {
        Polyvisor__JitReply *reply = receive(greedy);
        answered += reply->id != 0;
        done += reply->id && reply->answer->status == POLYVISOR__JIT_STATUS__JIT_DONE;
        drop(reply);
    }
    ck_assert_uint_gt(done, 0);
    channel_close(greedy);
    channel_close(modest);
}
END_TEST

START_TEST(a_job_without_end_is_found)
{
    start("spin:1");
    struct channel *machine = attach("one", NULL);
    send_compile(machine, 1, 1, 10);
    int status = wait_for_end();
    ck_assert(WIFEXITED(status));
    ck_assert_int_ne(WEXITSTATUS(status), 0);
    channel_close(machine);
}
END_TEST

START_TEST(it_ends_when_asked_and_with_vmmd)
{
    Polyvisor__JitControl request = POLYVISOR__JIT_CONTROL__INIT;
    Polyvisor__JitStop stop = POLYVISOR__JIT_STOP__INIT;

    start("");
    request.body_case = POLYVISOR__JIT_CONTROL__BODY_STOP;
    request.stop = &stop;
    Polyvisor__JitControlReply *reply = ask(&request);
    ck_assert_ptr_nonnull(reply);
    polyvisor__jit_control_reply__free_unpacked(reply, NULL);
    ck_assert_int_eq(wait_for_end(), 0);

    start("");
    close(leash[1]);
    leash[1] = -1;
    ck_assert_int_eq(wait_for_end(), 0);
}
END_TEST

START_TEST(it_rests_when_there_is_nothing_to_do)
{
    rest_ms = 600;
    start("");
    struct channel *machine = attach("one", NULL);
    for (uint64_t id = 1; id <= 10; id++) { /* longer than that, but busy */
        send_compile(machine, id, (uint32_t)id, 10);
        drop(answer_to(machine, id, POLYVISOR__JIT_STATUS__JIT_DONE));
        usleep(100000);
    }
    ck_assert_int_eq(wait_for_end(), 0);
    channel_close(machine);
}
END_TEST

START_TEST(no_cache_is_no_error)
{
    struct channel *machine;
    FILE *file;

    file = fopen(cache_directory, "w"); /* where the directory should be */
    fclose(file);
    start("");
    machine = attach("one", NULL);
    send_compile(machine, 1, 1, 10);
    drop(answer_to(machine, 1, POLYVISOR__JIT_STATUS__JIT_DONE));
    send_fetch(machine, 2, 1);
    drop(answer_to(machine, 2, POLYVISOR__JIT_STATUS__JIT_UNKNOWN));
    channel_close(machine);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jitd process");
    TCase *tests = tcase_create("process");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, a_region_is_compiled_once_and_then_known);
    tcase_add_test(tests, machines_share_a_job_and_hear_of_others);
    tcase_add_test(tests, machines_share_regions_that_begin_alike);
    tcase_add_test(tests, what_waited_is_compiled_in_the_next_life);
    tcase_add_test(tests, jobs_are_cancelled);
    tcase_add_test(tests, what_a_machine_leaves_behind_is_for_the_cache);
    tcase_add_test(tests, refusals_are_remembered);
    tcase_add_test(tests, unsound_code_of_the_compiler_goes_nowhere);
    tcase_add_test(tests, hostile_machines_harm_nobody);
    tcase_add_test(tests, a_job_that_kills_twice_is_poisoned);
    tcase_add_test(tests, poisoned_is_poisoned_without_a_cache_too);
    tcase_add_test(tests, one_machine_does_not_fill_the_queue);
    tcase_add_test(tests, a_job_without_end_is_found);
    tcase_add_test(tests, it_ends_when_asked_and_with_vmmd);
    tcase_add_test(tests, it_rests_when_there_is_nothing_to_do);
    tcase_add_test(tests, no_cache_is_no_error);
    suite_add_tcase(suite, tests);

    return suite_run(suite);
}
