#include "vmmd/vcpu/jit_link.h"

#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include "libshared/ipc/channel.h"
#include "libshared/jit/abi.h"
#include "libshared/jit/cache_entry.h"
#include "libshared/jit/region_message.h"
#include "vmmd/vcpu/engine/stats.h"
#include "vmmd/vcpu/tunables.h"
#include <errno.h>
#include <nanomsg/pair.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Messages taken a turn, so that a flood does not keep the profile from its ticks. */
#define TURN_MESSAGES 32
/* Fingerprints that are remembered: as many as the cache has files. */
#define KNOWN_MAX 65536u
/* Cached regions that came before all of their pages were seen. */
#define LATER_MAX 256u
/* Shapes of heads that are remembered, the oldest forgotten first. */
#define SHAPES_MAX 512u

enum request_kind { REQUEST_FREE, REQUEST_COMPILE, REQUEST_FETCH };

struct request {
    enum request_kind kind;
    uint64_t id, sent_ns;
    uint64_t ticket;       /* compile */
    struct region *region; /* compile */
    uint32_t heat;         /* compile */
    uint64_t fingerprint;  /* of the head */
    uint64_t tried[CACHE_TRIED_MAX];
    unsigned tried_count;
};

/* A region that came, for a head that looks like that. */
struct shape {
    uint64_t fingerprint, shape;
    bool in_place; /* false: guest memory held something else */
};

/* From the cache, and to be tried again. */
struct later {
    uint64_t fingerprint, due_ns;
    unsigned tries;
    struct region *region; /* NULL: free */
    uint8_t *blob;
    size_t blob_size;
};

struct jit_link {
    const struct jit_link_engine *operations;
    struct engine *engine;
    void (*wanted)(void *context);
    void *wanted_context;
    struct channel *channel;
    int stop_event;
    pthread_t thread;
    bool started;

    /* The thread's own. */
    bool alive;   /* a jitd has said that it is there */
    bool foreign; /* and that it is of another version */
    uint64_t last_id, look_ns, heard_ns, pause_ns;
    struct request requests[JIT_LINK_REQUESTS];
    unsigned open;
    struct later later[LATER_MAX];
    struct shape shapes[SHAPES_MAX];
    unsigned shape_at; /* the next one to be written */
    uint64_t *known;
    bool known_news;   /* the engine has not heard of some of it */
    uint64_t known_ns; /* when it may be told again */
    size_t known_count, known_room;
    struct region region; /* of the message at hand */

    /* Written by the thread. */
    _Atomic uint64_t requests_sent, fetches_sent, from_cache, dropped, lives, compile_ns;
    struct duration_histogram compile_times; /* as counters are */
};

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- open requests ---- */

static struct request *request_find(struct jit_link *link, uint64_t id)
{
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        if (link->requests[i].kind != REQUEST_FREE && link->requests[i].id == id) {
            return &link->requests[i];
        }
    }
    return NULL;
}

static struct request *request_new(struct jit_link *link, enum request_kind kind)
{
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        struct request *request = &link->requests[i];
        if (request->kind == REQUEST_FREE) {
            *request = (struct request){
                .kind = kind, .id = ++link->last_id, .sent_ns = clock_monotonic_ns()};
            link->open++;
            return request;
        }
    }
    return NULL;
}

static void request_free(struct jit_link *link, struct request *request)
{
    free(request->region);
    *request = (struct request){0};
    link->open--;
}

/* ---- shapes ---- */

static void remember_shape(struct jit_link *link, uint64_t fingerprint, uint64_t shape,
                           bool in_place)
{
    link->shapes[link->shape_at] = (struct shape){fingerprint, shape, in_place};
    link->shape_at = (link->shape_at + 1) % SHAPES_MAX;
}

static void add_tried(struct request *request, uint64_t shape)
{
    const struct cache_shapes tried = {request->tried, request->tried_count};

    if (request->tried_count < CACHE_TRIED_MAX && !cache_shape_among(&tried, shape)) {
        request->tried[request->tried_count++] = shape;
    }
}

/* What need not come for the request: what did not fit before, and what it is meant to replace. */
static void add_known_shapes(const struct jit_link *link, struct request *request, bool replaces)
{
    for (unsigned i = 0; i < SHAPES_MAX; i++) {
        const struct shape *shape = &link->shapes[(link->shape_at + i) % SHAPES_MAX];
        if (shape->shape && shape->fingerprint == request->fingerprint &&
            (replaces || !shape->in_place)) {
            add_tried(request, shape->shape);
        }
    }
}

static void later_free(struct later *later)
{
    free(later->region);
    free(later->blob);
    *later = (struct later){0};
}

/* What was asked of a jitd that is no more. */
static void forget_all(struct jit_link *link)
{
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        if (link->requests[i].kind != REQUEST_FREE) {
            request_free(link, &link->requests[i]);
        }
    }
    for (unsigned i = 0; i < LATER_MAX; i++) {
        later_free(&link->later[i]);
    }
    link->operations->forget(link->engine);
}

/* ---- sending ---- */

/* False: nobody takes it now. */
static bool send_request(struct jit_link *link, Polyvisor__JitRequest *message, uint64_t id)
{
    message->id = id;
    return channel_send(link->channel, &message->base, 0) == 0;
}

static bool send_compile(struct jit_link *link, struct request *request)
{
    Polyvisor__JitRequest message = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitCompile compile = POLYVISOR__JIT_COMPILE__INIT;
    struct region_message region;

    region_to_message(request->region, true, &region);
    compile.region = &region.region;
    compile.heat = request->heat;
    compile.tried = request->tried;
    compile.n_tried = request->tried_count;
    message.body_case = POLYVISOR__JIT_REQUEST__BODY_COMPILE;
    message.compile = &compile;
    return send_request(link, &message, request->id);
}

static bool send_fetch(struct jit_link *link, struct request *request)
{
    Polyvisor__JitRequest message = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitFetch fetch = POLYVISOR__JIT_FETCH__INIT;

    fetch.fingerprint = request->fingerprint;
    fetch.tried = request->tried;
    fetch.n_tried = request->tried_count;
    message.body_case = POLYVISOR__JIT_REQUEST__BODY_FETCH;
    message.fetch = &fetch;
    return send_request(link, &message, request->id);
}

static void send_cancel(struct jit_link *link, uint64_t id)
{
    Polyvisor__JitRequest message = POLYVISOR__JIT_REQUEST__INIT;
    Polyvisor__JitCancel cancel = POLYVISOR__JIT_CANCEL__INIT;

    message.body_case = POLYVISOR__JIT_REQUEST__BODY_CANCEL;
    message.cancel = &cancel;
    send_request(link, &message, id);
}

/* What the cache has first: it costs nobody anything. False: nobody takes it. */
static bool ask_fetches(struct jit_link *link)
{
    uint64_t fingerprint;

    while (link->open < JIT_LINK_REQUESTS &&
           link->operations->next_fetch(link->engine, &fingerprint)) {
        struct request *request = request_new(link, REQUEST_FETCH);
        request->fingerprint = fingerprint;
        add_known_shapes(link, request, false);
        count(&link->fetches_sent);
        if (!send_fetch(link, request)) {
            return false;
        }
    }
    return true;
}

static bool ask_regions(struct jit_link *link)
{
    uint64_t ticket;
    uint32_t heat;

    while (link->open < JIT_LINK_REQUESTS &&
           link->operations->next_region(link->engine, &link->region, &ticket, &heat)) {
        struct region *region = malloc(sizeof(*region));
        if (!region) {
            link->operations->refused(link->engine, ticket);
            return true;
        }
        *region = link->region;
        struct request *request = request_new(link, REQUEST_COMPILE);
        request->ticket = ticket;
        request->region = region;
        request->heat = heat;
        request->fingerprint = cache_head_fingerprint(region);
        add_known_shapes(link, request, link->operations->replaces(link->engine, ticket));
        count(&link->requests_sent);
        if (!send_compile(link, request)) {
            return false;
        }
    }
    return true;
}

/* Who does not take requests is dead or hangs. What is open will not be answered then; it is
 * offered again after a pause. After a long silence only a welcome is a sign of life. */
static void ask(struct jit_link *link, uint64_t now)
{
    if (!link->alive || now < link->pause_ns || (ask_fetches(link) && ask_regions(link))) {
        return;
    }
    link->pause_ns = now + TUNABLE_JIT_LOOK_MS * NS_PER_MS;
    link->alive = now - link->heard_ns < TUNABLE_JIT_SILENCE_MS * NS_PER_MS;
    forget_all(link);
    link->wanted(link->wanted_context);
}

/* ---- answers ---- */

static void keep_for_later(struct jit_link *link, uint64_t fingerprint, const uint8_t *blob,
                           size_t size)
{
    for (unsigned i = 0; i < LATER_MAX; i++) {
        struct later *later = &link->later[i];
        if (later->region) {
            continue;
        }
        later->region = malloc(sizeof(*later->region));
        later->blob = malloc(size);
        if (!later->region || !later->blob) {
            later_free(later);
            return;
        }
        *later->region = link->region;
        memcpy(later->blob, blob, size);
        later->blob_size = size;
        later->fingerprint = fingerprint;
        later->tries = 0;
        later->due_ns = clock_monotonic_ns() + TUNABLE_JIT_LATER_MS * NS_PER_MS;
        return;
    }
}

static void try_later(struct jit_link *link, uint64_t now)
{
    for (unsigned i = 0; i < LATER_MAX; i++) {
        struct later *later = &link->later[i];
        if (!later->region || later->due_ns > now) {
            continue;
        }
        struct error err;
        enum region_install result =
            link->operations->install(link->engine, 0, later->fingerprint, later->region,
                                      later->blob, later->blob_size, &err);
        if (result == REGION_INSTALLED) {
            count(&link->from_cache);
        }
        if (result != REGION_ABSENT || ++later->tries >= TUNABLE_JIT_LATER_TRIES) {
            later_free(later);
        } else {
            later->due_ns = now + (TUNABLE_JIT_LATER_MS * NS_PER_MS << (2 * later->tries));
        }
    }
}

/* The region of an answer that is not for the one that was asked for. False: it has none that is
 * sound and begins as it should. */
static bool other_region(struct jit_link *link, const struct request *request,
                         const Polyvisor__JitAnswer *answer)
{
    struct error err;

    if (!region_from_message(&link->region, answer->region, &err)) {
        log_debug("%s", err.message);
        return false;
    }
    return cache_head_fingerprint(&link->region) == request->fingerprint;
}

static enum region_install install(struct jit_link *link, const struct request *request,
                                   const Polyvisor__JitAnswer *answer)
{
    const ProtobufCBinaryData *blob = &answer->blob;
    enum region_install result = REGION_REFUSED;
    struct error err = {0};

    if (request->kind == REQUEST_COMPILE && !answer->region) {
        result = link->operations->install(link->engine, request->ticket, 0, request->region,
                                           blob->data, blob->len, &err);
    } else if (!answer->region || !other_region(link, request, answer)) {
        error_set(&err, ERROR_PROTOCOL, 0, "it is not what was asked for");
    } else if (request->kind == REQUEST_COMPILE) {
        result = link->operations->install_other(link->engine, request->ticket, &link->region,
                                                 blob->data, blob->len, &err);
    } else {
        result = link->operations->install(link->engine, 0, request->fingerprint, &link->region,
                                           blob->data, blob->len, &err);
    }
    if (result == REGION_REFUSED) {
        log_debug("a compiled region was refused: %s", err.message);
    }
    return result;
}

/* Another region of the head may fit. False: nobody takes the question. */
static bool ask_again(struct jit_link *link, struct request *request, uint64_t shape)
{
    add_tried(request, shape);
    request->id = ++link->last_id;
    request->sent_ns = clock_monotonic_ns();
    return request->kind == REQUEST_COMPILE ? send_compile(link, request)
                                            : send_fetch(link, request);
}

/* Whether the request stays open. */
static bool handle_code(struct jit_link *link, struct request *request,
                        const Polyvisor__JitAnswer *answer)
{
    bool compile = request->kind == REQUEST_COMPILE;
    bool other = compile && answer->region;
    enum region_install result = install(link, request, answer);

    if (result == REGION_INSTALLED || result == REGION_STALE) {
        remember_shape(link, request->fingerprint, answer->shape, result == REGION_INSTALLED);
    }
    if (result == REGION_INSTALLED) {
        if (answer->cached || !compile || other) {
            count(&link->from_cache);
        }
        return false;
    }
    bool more = answer->shape && request->tried_count < CACHE_TRIED_MAX;
    if (more && (other ? result != REGION_REFUSED : !compile && result == REGION_STALE) &&
        ask_again(link, request, answer->shape)) {
        return true;
    }
    if (!compile && result == REGION_ABSENT) {
        keep_for_later(link, request->fingerprint, answer->blob.data, answer->blob.len);
    } else if (other) {
        link->operations->refused(link->engine, request->ticket);
    }
    return false;
}

/* jitd's own counters end with its life, which is short when there is nothing to do. */
static void note_compile_time(struct jit_link *link, const struct request *request,
                              const Polyvisor__JitAnswer *answer)
{
    if (request->kind == REQUEST_COMPILE && !answer->cached) {
        atomic_fetch_add_explicit(&link->compile_ns, answer->compile_ns, memory_order_relaxed);
        duration_count(&link->compile_times, answer->compile_ns);
    }
}

static void handle_answer(struct jit_link *link, uint64_t id, const Polyvisor__JitAnswer *answer)
{
    struct request *request = request_find(link, id);

    if (!request) {
        count(&link->dropped); /* cancelled meanwhile, or never asked */
        return;
    }
    if (answer->status == POLYVISOR__JIT_STATUS__JIT_DONE) {
        note_compile_time(link, request, answer);
        if (handle_code(link, request, answer)) {
            return;
        }
    } else if (request->kind == REQUEST_COMPILE) {
        link->operations->refused(link->engine, request->ticket);
    }
    request_free(link, request);
}

static void add_known(struct jit_link *link, const Polyvisor__JitWelcome *welcome)
{
    size_t count_new = welcome->n_fingerprints;

    if (count_new > KNOWN_MAX - link->known_count) {
        count_new = KNOWN_MAX - link->known_count;
    }
    if (link->known_count + count_new > link->known_room) {
        size_t room = 2 * (link->known_count + count_new);
        uint64_t *known = realloc(link->known, room * sizeof(*known));
        if (!known) {
            return;
        }
        link->known = known;
        link->known_room = room;
    }
    if (count_new) {
        memcpy(link->known + link->known_count, welcome->fingerprints,
               count_new * sizeof(*link->known));
    }
    link->known_count += count_new;
}

/* A new life: what was asked of the one before is void. One of another version is as good as none,
 * since its code knows another CPU than ours. */
static void begin_life(struct jit_link *link, const char *abi)
{
    forget_all(link);
    link->known_count = 0;
    link->known_ns = 0;
    link->alive = !strcmp(abi, region_abi());
    if (!link->alive && !link->foreign) {
        log_warning("jitd was replaced by one of another version: what it compiles is not for this "
                    "machine until it is started again");
    }
    link->foreign = !link->alive;
    if (link->alive) {
        count(&link->lives);
    }
}

static void handle_welcome(struct jit_link *link, const Polyvisor__JitWelcome *welcome)
{
    if (welcome->first) {
        begin_life(link, welcome->abi);
    }
    if (!link->foreign) {
        add_known(link, welcome);
        link->known_news = !welcome->more;
    }
}

/* The engine then looks at all code that it has: not for each piece of news by itself. */
static void tell_known(struct jit_link *link, uint64_t now)
{
    if (link->known_news && now >= link->known_ns) {
        link->known_news = false;
        link->known_ns = now + TUNABLE_JIT_KNOWN_MS * NS_PER_MS;
        link->operations->set_known(link->engine, link->known, link->known_count);
    }
}

static void receive(struct jit_link *link, uint64_t now)
{
    for (unsigned i = 0; i < TURN_MESSAGES; i++) {
        ProtobufCMessage *message;
        int result = channel_receive(link->channel, &polyvisor__jit_reply__descriptor, &message, 0);
        if (result == -EBADMSG) {
            count(&link->dropped);
            continue;
        }
        if (result < 0) {
            return;
        }
        link->heard_ns = now;
        const Polyvisor__JitReply *reply = (const Polyvisor__JitReply *)message;
        if (reply->id == 0 && reply->body_case == POLYVISOR__JIT_REPLY__BODY_WELCOME) {
            handle_welcome(link, reply->welcome);
        } else if (reply->id && reply->body_case == POLYVISOR__JIT_REPLY__BODY_ANSWER) {
            handle_answer(link, reply->id, reply->answer);
        } else {
            count(&link->dropped);
        }
        protobuf_c_message_free_unpacked(message, NULL);
    }
}

/* ---- the thread ---- */

/* Give up what nobody needs any more, or what is not answered. */
static void look_at_requests(struct jit_link *link, uint64_t now)
{
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        struct request *request = &link->requests[i];
        if (request->kind == REQUEST_FREE) {
            continue;
        }
        bool late = now - request->sent_ns > TUNABLE_JIT_ANSWER_MS * NS_PER_MS;
        bool wanted = request->kind == REQUEST_FETCH ||
                      link->operations->wanted(link->engine, request->ticket);
        if (!late && wanted) {
            continue;
        }
        send_cancel(link, request->id);
        if (request->kind == REQUEST_COMPILE) {
            link->operations->refused(link->engine, request->ticket);
        }
        request_free(link, request);
    }
}

/* How long there is nothing to do but for what the descriptors tell; -1: for ever. */
static int wait_time(const struct jit_link *link, bool guest_runs)
{
    if (guest_runs) {
        return TUNABLE_JIT_TICK_MS;
    }
    for (unsigned i = 0; i < LATER_MAX; i++) {
        if (link->later[i].region) {
            return TUNABLE_JIT_LATER_MS;
        }
    }
    return link->open || link->known_news ? (int)TUNABLE_JIT_LOOK_MS : -1;
}

static void turn(struct jit_link *link, bool *guest_runs)
{
    uint64_t now = clock_monotonic_ns();

    receive(link, now);
    tell_known(link, now);
    if (now - link->look_ns >= TUNABLE_JIT_LOOK_MS * NS_PER_MS) {
        link->look_ns = now;
        look_at_requests(link, now);
    }
    try_later(link, now);
    /* Samples cost the guest a little: nobody takes them for nothing. */
    *guest_runs = link->alive && link->operations->tick(link->engine);
    ask(link, now);
}

static void *link_main(void *argument)
{
    struct jit_link *link = argument;
    const int event = link->operations->event(link->engine);
    struct pollfd polls[] = {
        {.fd = link->stop_event, .events = POLLIN},
        {.fd = -1, .events = POLLIN},
        {.fd = channel_receive_fd(link->channel), .events = POLLIN},
    };
    bool guest_runs = false;

    pthread_setname_np(pthread_self(), "jit");
    for (;;) {
        /* While the guest runs, its ticks come often enough for the engine's news. */
        polls[1].fd = link->alive && !guest_runs ? event : -1;
        if (poll(polls, 3, wait_time(link, guest_runs)) < 0 && errno != EINTR) {
            log_error("cannot wait for jitd: %s", strerror(errno));
            return NULL;
        }
        if (polls[0].revents) {
            return NULL;
        }
        link->operations->seen(link->engine);
        turn(link, &guest_runs);
    }
}

/* ---- life ---- */

struct jit_link *jit_link_create(const struct jit_link_engine *operations, struct engine *engine,
                                 const char *path, void (*wanted)(void *context), void *context,
                                 struct error *err)
{
    struct jit_link *link = calloc(1, sizeof(*link));

    if (!link) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the compiler's socket");
        return NULL;
    }
    link->operations = operations;
    link->engine = engine;
    link->wanted = wanted;
    link->wanted_context = context;
    link->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->channel = channel_bind(CHANNEL_JIT, NN_PAIR, path);
    if (link->stop_event < 0 || !link->channel) {
        error_set(err, ERROR_IO, errno, "cannot bind the compiler's socket '%.100s': %s", path,
                  strerror(errno));
        jit_link_destroy(link);
        return NULL;
    }
    int result = pthread_create(&link->thread, NULL, link_main, link);
    if (result) {
        error_set(err, ERROR_INTERNAL, result, "cannot start the compiler's thread: %s",
                  strerror(result));
        jit_link_destroy(link);
        return NULL;
    }
    link->started = true;
    return link;
}

void jit_link_destroy(struct jit_link *link)
{
    const uint64_t one = 1;

    if (!link) {
        return;
    }
    if (link->started) {
        while (write(link->stop_event, &one, sizeof(one)) < 0 && errno == EINTR) {
        }
        pthread_join(link->thread, NULL);
    }
    for (unsigned i = 0; i < JIT_LINK_REQUESTS; i++) {
        free(link->requests[i].region);
    }
    for (unsigned i = 0; i < LATER_MAX; i++) {
        later_free(&link->later[i]);
    }
    channel_close(link->channel);
    if (link->stop_event >= 0) {
        close(link->stop_event);
    }
    free(link->known);
    free(link);
}

void jit_link_get_stats(struct jit_link *link, struct jit_link_stats *stats)
{
    stats->requests = atomic_load_explicit(&link->requests_sent, memory_order_relaxed);
    stats->fetches = atomic_load_explicit(&link->fetches_sent, memory_order_relaxed);
    stats->from_cache = atomic_load_explicit(&link->from_cache, memory_order_relaxed);
    stats->dropped = atomic_load_explicit(&link->dropped, memory_order_relaxed);
    stats->lives = atomic_load_explicit(&link->lives, memory_order_relaxed);
    stats->compile_ns = atomic_load_explicit(&link->compile_ns, memory_order_relaxed);
    struct duration_histogram times = {0};
    duration_add(&times, &link->compile_times);
    stats->compile_median_ns = duration_quantile(&times, 500);
    stats->compile_p99_ns = duration_quantile(&times, 990);
}
