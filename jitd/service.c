#include "jitd/service.h"

#include "jitd/compile_threads.h"
#include "jitd/footprint.h"
#include "jitd/queue.h"
#include "jitd/region_compiler.h"
#include "jitd/session.h"
#include "jitd/times.h"
#include "libshared/base/log.h"
#include "libshared/ipc/sandbox.h"
#include "libshared/jit/cache.h"
#include "libshared/jit/journal.h"
#include "libshared/jit/region_message.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS            500
#define IDLE_TICKS         4  /* without a job: memory goes back to the host */
#define REST_TICKS         60 /* and then all of it: the process ends, until it is wanted again */
#define END_MS             200
#define WORKERS_DEFAULT    4
#define SERVICE_WANTED_MAX 64 /* of an earlier life; the rest was not that hot */

/* The last keys of a kind, the oldest forgotten first. */
struct key_ring {
    struct cache_key keys[CACHE_POISONED_MAX];
    unsigned count, next;
};

struct trial;

struct service {
    struct service_options options;
    struct journal *journal;
    struct cache *cache;
    struct queue *queue;
    struct compile_threads *threads;
    struct session_list sessions;
    unsigned session_count;
    struct event *finished, *tick;
    struct key_ring poisoned, refused;
    struct cache_subject subject; /* of the request at hand */
    struct times times;
    uint64_t compiled, refusals, code_bytes, hits, misses, cancelled;
    uint64_t job_limit_ns;
    unsigned idle_ticks, rest_ticks;
    bool configured, hangs;
    struct trial *trial; /* until service_begin */
};

static bool ring_holds(const struct key_ring *ring, const struct cache_key *key)
{
    for (unsigned i = 0; i < ring->count; i++) {
        if (!memcmp(&ring->keys[i], key, sizeof(*key))) {
            return true;
        }
    }
    return false;
}

static void ring_add(struct key_ring *ring, const struct cache_key *key)
{
    if (ring_holds(ring, key)) {
        return;
    }
    ring->keys[ring->next] = *key;
    ring->next = (ring->next + 1) % CACHE_POISONED_MAX;
    ring->count += ring->count < CACHE_POISONED_MAX;
}

/* The cache knows for good, as long as nobody clears it; where it could not be told, the journal
 * does. */
static bool is_poisoned(const struct service *service, const struct cache_key *key)
{
    return ring_holds(&service->poisoned, key) ||
           (service->journal && journal_deaths(service->journal, key) >= JOURNAL_DEATHS);
}

/* ---- requests of machines ---- */

static void refuse(struct session *session, uint64_t id, const char *reason)
{
    session_reply(
        session, id,
        &(struct session_answer){.status = POLYVISOR__JIT_STATUS__JIT_REFUSED, .reason = reason});
}

/* Answer all who wait for a job. Who asked for another region of that head hears which one it is;
 * when there is no code, that says nothing of theirs: they may ask again. */
static void reply_to_all(struct job *job, const struct session_answer *answer)
{
    struct job_waiter *waiter;

    while ((waiter = TAILQ_FIRST(&job->waiters))) {
        struct session_answer one = *answer;
        if (waiter->other && one.blob) {
            one.region = &job->region;
        } else if (waiter->other) {
            one = (struct session_answer){.status = POLYVISOR__JIT_STATUS__JIT_BUSY};
        }
        TAILQ_REMOVE(&job->waiters, waiter, link);
        session_reply(waiter->session, waiter->id, &one);
        free(waiter);
    }
}

static bool reply_cached(struct service *service, struct session *session, uint64_t id)
{
    size_t size = 0;
    uint8_t *blob = service->cache ? cache_find(service->cache, &service->subject, &size) : NULL;

    if (!blob) {
        service->misses++;
        return false;
    }
    service->hits++;
    session_reply(session, id,
                  &(struct session_answer){.status = POLYVISOR__JIT_STATUS__JIT_DONE,
                                           .blob = blob,
                                           .blob_size = size,
                                           .cached = true,
                                           .shape = cache_shape(&service->subject.key)});
    free(blob);
    return true;
}

/* A region of the cache with that head. */
static bool reply_with_head(struct service *service, struct session *session, uint64_t id,
                            uint64_t fingerprint, const struct cache_shapes *tried)
{
    struct region region;
    uint64_t shape;
    size_t size = 0;
    uint8_t *blob = service->cache
                        ? cache_fetch(service->cache, fingerprint, tried, &region, &shape, &size)
                        : NULL;

    if (!blob) {
        return false;
    }
    service->hits++;
    session_reply(session, id,
                  &(struct session_answer){.status = POLYVISOR__JIT_STATUS__JIT_DONE,
                                           .region = &region,
                                           .blob = blob,
                                           .blob_size = size,
                                           .cached = true,
                                           .shape = shape});
    free(blob);
    return true;
}

/* Note a job that has to wait, lest it is lost when this process ends before its turn. */
static void note_wanted(struct service *service, struct job *job)
{
    uint8_t packed[REGION_PACKED_MAX];
    size_t size;

    if (service->cache && queue_length(service->queue) > 0 &&
        (size = region_pack(&job->region, true, packed, sizeof(packed))) > 0) {
        cache_store_wanted(service->cache, &job->key, packed, size);
        job->noted = true;
    }
}

static void end_job(struct service *service, struct job *job)
{
    if (job->noted) {
        cache_forget_wanted(service->cache, &job->key);
    }
    job_destroy(job);
}

static void enqueue(struct service *service, struct session *session, uint64_t id,
                    const struct region *region, uint32_t heat, const struct cache_shapes *tried)
{
    const struct session_answer busy = {.status = POLYVISOR__JIT_STATUS__JIT_BUSY};
    const struct cache_key *key = &service->subject.key;
    struct job *job = queue_find(service->queue, key);

    job = job ? job : queue_find_head(service->queue, service->subject.fingerprint, tried);
    if (job) {
        queue_raise(service->queue, job, heat);
        if (!job_add_waiter(job, session, id, key)) {
            session_reply(session, id, &busy);
        }
        return;
    }
    job = job_create(region, &service->subject, heat);
    if (!job || !job_add_waiter(job, session, id, key)) {
        job_destroy(job);
        session_reply(session, id, &busy);
        return;
    }
    job->suspect = service->journal && journal_deaths(service->journal, key) > 0;
    note_wanted(service, job);
    struct job *out = queue_add(service->queue, job);
    if (out) {
        reply_to_all(out, &busy);
        end_job(service, out);
    }
}

static struct cache_shapes shapes_of(const uint64_t *shapes, size_t count)
{
    return (struct cache_shapes){shapes, count < CACHE_TRIED_MAX ? count : CACHE_TRIED_MAX};
}

static void on_compile(void *context, struct session *session, uint64_t id,
                       const Polyvisor__JitCompile *request)
{
    struct service *service = context;
    struct region region;
    struct error err;

    service->idle_ticks = 0;
    if (!region_from_message(&region, request->region, &err)) {
        refuse(session, id, err.message);
        return;
    }
    const struct cache_shapes tried = shapes_of(request->tried, request->n_tried);
    cache_subject_of(&region, region_compiler_identity(), &service->subject);
    if (is_poisoned(service, &service->subject.key)) {
        refuse(session, id, "compiling it has killed the compiler twice");
    } else if (ring_holds(&service->refused, &service->subject.key)) {
        refuse(session, id, "it was refused before");
    } else if (cache_shape_among(&tried, cache_shape(&service->subject.key))) {
        refuse(session, id, "it is in place already");
    } else if (!reply_cached(service, session, id) &&
               !reply_with_head(service, session, id, service->subject.fingerprint, &tried)) {
        enqueue(service, session, id, &region, request->heat, &tried);
    }
}

/* Whose waiters are to be taken from jobs, and which job is to be looked at again. */
struct withdrawal {
    struct session *session;
    uint64_t id; /* 0: all of the session's */
    unsigned taken;
};

static void withdraw(struct job *job, void *context)
{
    struct withdrawal *withdrawal = context;
    struct job_waiter *waiter, *next;
    bool had = !TAILQ_EMPTY(&job->waiters);

    for (waiter = TAILQ_FIRST(&job->waiters); waiter; waiter = next) {
        next = TAILQ_NEXT(waiter, link);
        if (waiter->session == withdrawal->session &&
            (!withdrawal->id || waiter->id == withdrawal->id)) {
            TAILQ_REMOVE(&job->waiters, waiter, link);
            free(waiter);
            withdrawal->taken++;
        }
    }
    job->deserted = had && TAILQ_EMPTY(&job->waiters) && !job->running;
}

/* One job at a time: a visit must not change the queue. */
static void find_deserted(struct job *job, void *context)
{
    struct job **found = context;

    if (job->deserted && !*found) {
        job->deserted = false;
        *found = job;
    }
}

/* True when that was in the queue. What nobody waits for any more is dropped, or kept (`keep`) for
 * the cache. */
static bool withdraw_all(struct service *service, struct session *session, uint64_t id, bool keep)
{
    struct withdrawal withdrawal = {.session = session, .id = id};
    struct job *deserted;

    queue_each(service->queue, withdraw, &withdrawal);
    do {
        deserted = NULL;
        queue_each(service->queue, find_deserted, &deserted);
        if (deserted && keep) {
            queue_demote(service->queue, deserted);
        } else if (deserted && queue_cancel(service->queue, deserted)) {
            end_job(service, deserted);
            service->cancelled++;
        }
    } while (deserted);
    return withdrawal.taken > 0;
}

static void on_cancel(void *context, struct session *session, uint64_t id)
{
    if (withdraw_all(context, session, id, false)) {
        session_reply(session, id,
                      &(struct session_answer){.status = POLYVISOR__JIT_STATUS__JIT_CANCELLED});
    }
}

static void on_fetch(void *context, struct session *session, uint64_t id,
                     const Polyvisor__JitFetch *request)
{
    const struct cache_shapes tried = shapes_of(request->tried, request->n_tried);
    struct service *service = context;

    service->idle_ticks = 0;
    if (!reply_with_head(service, session, id, request->fingerprint, &tried)) {
        service->misses++;
        session_reply(session, id,
                      &(struct session_answer){.status = POLYVISOR__JIT_STATUS__JIT_UNKNOWN});
    }
}

static const struct session_service session_service = {
    .compile = on_compile, .cancel = on_cancel, .fetch = on_fetch};

/* ---- finished jobs ---- */

/* Tell those who have not asked for it that it is in the cache now. */
static void tell_others(struct service *service, const struct job *job)
{
    struct session *session;
    struct job_waiter *waiter;

    TAILQ_FOREACH(session, &service->sessions, link)
    {
        bool asked = false;
        TAILQ_FOREACH(waiter, &job->waiters, link)
        {
            asked = asked || waiter->session == session;
        }
        if (!asked) {
            session_welcome(session, &job->fingerprint, 1, false);
        }
    }
}

static void finish(struct service *service, struct job *job)
{
    struct session_answer answer = {
        .status = job->blob ? POLYVISOR__JIT_STATUS__JIT_DONE : POLYVISOR__JIT_STATUS__JIT_REFUSED,
        .blob = job->blob,
        .blob_size = job->blob_size,
        .compile_ns = job->compile_ns,
        .reason = job->reason,
        .shape = cache_shape(&job->key),
    };

    if (job->blob) {
        service->compiled++;
        service->code_bytes += job->blob_size;
        times_add(&service->times, job->compile_ns);
        if (service->cache) {
            tell_others(service, job);
        }
    } else {
        service->refusals++;
        ring_add(&service->refused, &job->key);
        log_debug("a region was refused: %s", job->reason);
    }
    reply_to_all(job, &answer);
}

static void on_finished(evutil_socket_t fd, short what, void *argument)
{
    struct service *service = argument;
    struct job_list finished;
    struct job *job;
    (void)fd, (void)what;

    service->idle_ticks = 0;
    queue_collect(service->queue, &finished);
    while ((job = TAILQ_FIRST(&finished))) {
        TAILQ_REMOVE(&finished, job, link);
        finish(service, job);
        end_job(service, job);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    struct service *service = argument;
    uint64_t longest = service->threads ? compile_threads_longest_ns(service->threads) : 0;
    (void)fd, (void)what;

    if (longest > service->job_limit_ns) {
        log_error("a job has taken %llu s of processor time: giving up",
                  (unsigned long long)(longest / NS_PER_S));
        service->hangs = true;
        event_base_loopbreak(service->options.base);
    }
    if (longest || queue_length(service->queue)) {
        service->idle_ticks = 0;
    } else if (++service->idle_ticks == IDLE_TICKS) {
        footprint_shrink();
    } else if (service->idle_ticks >= service->rest_ticks) {
        event_base_loopexit(service->options.base, NULL);
    }
}

bool service_hangs(const struct service *service)
{
    return service->hangs;
}

/* ---- life ---- */

struct service *service_create(const struct service_options *options, struct error *err)
{
    const struct timeval tick = {0, TICK_MS * 1000};
    struct service *service = calloc(1, sizeof(*service));

    if (!service) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        return NULL;
    }
    service->options = *options;
    service->job_limit_ns = SERVICE_JOB_LIMIT_NS;
    service->rest_ticks = REST_TICKS;
    TAILQ_INIT(&service->sessions);
    if (options->journal_fd >= 0) {
        service->journal = journal_map(options->journal_fd);
        if (!service->journal) {
            log_warning("cannot use the journal of jobs: %s", strerror(errno));
        }
    }
    service->queue = queue_create(SERVICE_QUEUE_MAX);
    if (service->queue) {
        service->finished = event_new(options->base, queue_event(service->queue),
                                      EV_READ | EV_PERSIST, on_finished, service);
        service->tick = event_new(options->base, -1, EV_PERSIST, on_tick, service);
    }
    if (!service->finished || !service->tick || event_add(service->finished, NULL) < 0 ||
        event_add(service->tick, &tick) < 0) {
        error_set(err, ERROR_INTERNAL, errno, "cannot set up the queue of jobs");
        service_destroy(service);
        return NULL;
    }
    return service;
}

bool service_destroy(struct service *service)
{
    struct session *session;

    if (service->queue) {
        queue_stop(service->queue);
    }
    if (!compile_threads_end(service->threads, END_MS)) {
        return false;
    }
    while ((session = TAILQ_FIRST(&service->sessions))) {
        TAILQ_REMOVE(&service->sessions, session, link);
        session_close(session);
    }
    if (service->finished) {
        event_free(service->finished);
    }
    if (service->tick) {
        event_free(service->tick);
    }
    queue_destroy(service->queue);
    cache_close(service->cache);
    journal_unmap(service->journal);
    free(service->trial);
    free(service);
    return true;
}

/* ---- configuration ---- */

static void note_poisoned(struct service *service, const struct cache_subject *subject,
                          Polyvisor__JitControlReply *reply)
{
    char path[CACHE_DIRECTORY_MAX + CACHE_NAME_MAX] = "";

    ring_add(&service->poisoned, &subject->key);
    if (service->cache && cache_store_poisoned(service->cache, &subject->key, subject->packed,
                                               subject->packed_size, path, sizeof(path))) {
        journal_pardon(service->journal, &subject->key);
    }
    Polyvisor__JitPoisoned **list =
        realloc(reply->poisoned, (reply->n_poisoned + 1) * sizeof(*list));
    Polyvisor__JitPoisoned *entry = malloc(sizeof(*entry));
    if (list) {
        reply->poisoned = list;
    }
    if (!list || !entry) {
        free(entry);
        return;
    }
    polyvisor__jit_poisoned__init(entry);
    entry->fingerprint = subject->fingerprint;
    char *copy = strdup(path);
    entry->path = copy ? copy : entry->path;
    reply->poisoned[reply->n_poisoned++] = entry;
}

void service_free_reply(Polyvisor__JitControlReply *reply)
{
    for (size_t i = 0; i < reply->n_poisoned; i++) {
        if (reply->poisoned[i]->path != protobuf_c_empty_string) {
            free(reply->poisoned[i]->path);
        }
        free(reply->poisoned[i]);
    }
    free(reply->poisoned);
    reply->poisoned = NULL;
    reply->n_poisoned = 0;
}

/* Half of the processors: the guests, whose code is slow still, have the others. */
static unsigned choose_workers(uint32_t wanted)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned most = processors > 3 ? (unsigned)processors / 2 : 1;

    if (wanted) {
        return wanted < COMPILE_THREADS_MAX ? wanted : COMPILE_THREADS_MAX;
    }
    return most < WORKERS_DEFAULT ? most : WORKERS_DEFAULT;
}

static void open_cache(struct service *service, const Polyvisor__JitConfigure *configure)
{
    struct cache_key keys[CACHE_POISONED_MAX];
    struct error err;

    if (!configure->cache_directory[0]) {
        return;
    }
    service->cache =
        cache_open(configure->cache_directory,
                   configure->cache_bytes ? configure->cache_bytes : CACHE_BYTES_DEFAULT,
                   region_compiler_identity(), &err);
    if (!service->cache) {
        log_warning("%s: going on without a cache", err.message);
        return;
    }
    size_t count = cache_list_poisoned(service->cache, keys, CACHE_POISONED_MAX);
    for (size_t i = 0; i < count; i++) {
        ring_add(&service->poisoned, &keys[i]);
    }
}

/* The judgement of what was being compiled when the last life ended. */
struct trial {
    struct service *service;
    Polyvisor__JitControlReply *reply; /* names the poisoned */
    struct region retried[JOURNAL_SLOTS];
    unsigned count;
};

static void judge(const struct region *region, const struct cache_subject *subject, unsigned deaths,
                  void *context)
{
    struct trial *trial = context;

    if (deaths >= JOURNAL_DEATHS) {
        note_poisoned(trial->service, subject, trial->reply);
    } else if (trial->count < JOURNAL_SLOTS) {
        trial->retried[trial->count++] = *region;
    }
}

/* What the process before this one did not come to, or died of. It is nobody's, and comes last; a
 * machine that wants it joins. */
static void enqueue_inherited(const struct region *region, void *context)
{
    struct service *service = context;
    size_t size;

    cache_subject_of(region, region_compiler_identity(), &service->subject);
    const struct cache_key *key = &service->subject.key;
    uint8_t *blob = service->cache ? cache_find(service->cache, &service->subject, &size) : NULL;
    if (blob || is_poisoned(service, key) || queue_find(service->queue, key) ||
        region_check(region) != NULL) {
        free(blob);
        return;
    }
    struct job *job = job_create(region, &service->subject, 0);
    if (job) {
        job->suspect = service->journal && journal_deaths(service->journal, key) > 0;
        job_destroy(queue_add(service->queue, job));
    }
}

/* Suspects are tried again without being asked for: whether they kill must not be left open until
 * somebody wants them. What is noted as wanted was forgotten before, in case that it kills. */
void service_begin(struct service *service)
{
    struct trial *trial = service->trial;

    if (!trial || !service->configured) {
        return;
    }
    for (unsigned i = 0; i < trial->count; i++) {
        enqueue_inherited(&trial->retried[i], service);
    }
    service->trial = NULL;
    free(trial);
    if (service->cache) {
        cache_take_wanted(service->cache, SERVICE_WANTED_MAX, enqueue_inherited, service);
    }
}

/* And confine the process: what follows compiles what others sent. */
static int start_threads(struct service *service, const Polyvisor__JitConfigure *configure,
                         struct error *err)
{
    service->threads = compile_threads_start(choose_workers(configure->workers), service->queue,
                                             service->journal, service->cache, err);
    if (!service->threads) {
        return -(int)err->code;
    }
    return sandbox_seal(SANDBOX_COMPILER, NULL, err) < 0 ? -(int)err->code : 0;
}

int service_configure(struct service *service, const Polyvisor__JitConfigure *configure,
                      Polyvisor__JitControlReply *reply, struct error *err)
{
    if (service->configured) {
        return error_set(err, ERROR_STATE, 0, "jitd is configured already");
    }
    if (!region_compiler_setup(err)) {
        return -(int)err->code;
    }
    if (configure->job_limit_ms) {
        service->job_limit_ns = configure->job_limit_ms * NS_PER_MS;
    }
    if (configure->rest_ms) {
        service->rest_ticks = configure->rest_ms / TICK_MS + 1;
    }
    open_cache(service, configure);
    free(service->trial); /* of an attempt that failed */
    struct trial *trial = service->trial = calloc(1, sizeof(*trial));
    if (!trial) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    trial->service = service;
    trial->reply = reply;
    if (service->journal) {
        journal_settle(service->journal, configure->crashed, region_compiler_identity(), judge,
                       trial);
    }
    int result = start_threads(service, configure, err);
    service->configured = result == 0;
    return result;
}

/* ---- machines ---- */

void service_detach(struct service *service, const char *machine)
{
    struct session *session;

    TAILQ_FOREACH(session, &service->sessions, link)
    {
        if (!strcmp(session->machine, machine)) {
            /* Another machine, or the next start of this one, will want the same. */
            withdraw_all(service, session, 0, service->cache != NULL);
            TAILQ_REMOVE(&service->sessions, session, link);
            service->session_count--;
            session_close(session);
            return;
        }
    }
}

int service_attach(struct service *service, const Polyvisor__JitAttach *attach, struct error *err)
{
    uint64_t *fingerprints = NULL;
    size_t count = 0;

    if (!service->configured) {
        return error_set(err, ERROR_STATE, 0, "jitd is not configured yet");
    }
    service_detach(service, attach->machine);
    if (service->session_count >= SERVICE_MACHINES_MAX) {
        return error_set(err, ERROR_BUSY, 0, "jitd serves %u machines already",
                         SERVICE_MACHINES_MAX);
    }
    struct session *session = session_open(service->options.base, attach->machine, attach->path,
                                           &session_service, service, err);
    if (!session) {
        return -(int)err->code;
    }
    TAILQ_INSERT_TAIL(&service->sessions, session, link);
    service->session_count++;
    if (service->cache) {
        cache_refresh(service->cache); /* other daemons may have added some */
        count = cache_catalog(service->cache, CACHE_FILES_MAX, &fingerprints);
    }
    session_welcome(session, fingerprints, count, true);
    free(fingerprints);
    return 0;
}

void service_stats(struct service *service, Polyvisor__JitStats *stats)
{
    stats->regions_compiled = service->compiled;
    stats->regions_refused = service->refusals;
    stats->compile_ns = service->times.sum_ns;
    stats->compile_median_ns = times_quantile(&service->times, 500);
    stats->compile_p99_ns = times_quantile(&service->times, 990);
    stats->code_bytes = service->code_bytes;
    stats->cache_hits = service->hits;
    stats->cache_misses = service->misses;
    stats->queued = queue_length(service->queue);
    stats->cancelled = service->cancelled;
    stats->poisoned = service->poisoned.count;
    if (service->cache) {
        cache_usage(service->cache, &stats->cache_entries, &stats->cache_bytes);
    }
}
