/*
 * virtio balloon (Virtual I/O Device 1.2, section 5.5): the guest gives up pages, and the host gets
 * their memory back at once.
 *
 * A page that was given up reads as zero and takes memory again when it is written: nothing of it
 * is lost that the guest may still want, whether it says first that it takes the page back or not.
 * So a hostile guest can hurt nobody but itself, and requests are repeatable: while one is in
 * flight, the driver owns neither its pages nor its buffer.
 *
 * The target, what the driver said of itself, and the counts are in the shared state; a new process
 * goes on with them. The buffer with statistics is held until they are asked for; one that an
 * earlier process held comes again as a request in flight.
 *
 * Drivers disagree with the specification about the numbers of queues: Linux leaves no gap for a
 * queue that it does not use. The roles are set so that both are right: the queue of reports is the
 * first behind the others, and every one after that.
 */
#include "devd/device.h"
#include "devd/virtio.h"
#include "libshared/balloon/setting.h"
#include "libshared/base/clock.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_COUNT   5
#define QUEUE_SIZE    64
#define FEATURE(bit)  (UINT64_C(1) << (bit))
#define PAGE_SHIFT    VIRTIO_BALLOON_PFN_SHIFT
#define PAGES_A_BATCH 256u

/* Of memory, in one turn of the event loop: no driver keeps to such amounts for long, and the
 * control channel must be served. */
#define TURN_BYTES (UINT64_C(1) << 30)

/* And of one list, whose rest is not looked at: giving memory back is a kindness. */
#define LIST_BYTES (TURN_BYTES / MEMORY_PAGE_SIZE * sizeof(uint32_t))

#define QUERIES_MAX   8
#define STATISTICS_MS 3000 /* for the guest to answer */

enum queue_role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATISTICS, ROLE_REPORT };

/* In virtio_state.saved. */
struct balloon_counts {
    uint64_t inflated, deflated; /* pages, since the machine was started */
    uint64_t released;           /* bytes that the host got back, of inflated pages */
    uint64_t reported;           /* and of reported ones */
};
_Static_assert(sizeof(struct balloon_counts) <= VIRTIO_SAVED_MAX, "room for the counts");

struct guest_statistic {
    uint16_t tag;
    uint64_t value;
} __attribute__((packed));
_Static_assert(sizeof(struct guest_statistic) == 10, "guest layout");
_Static_assert(offsetof(struct virtio_balloon_config, poison_val) == 12, "guest layout");

struct balloon {
    enum queue_role roles[QUEUE_COUNT];
    uint64_t this_turn; /* bytes given back */
    struct event *next_turn;
    bool holding; /* the buffer of statistics */
    struct virtqueue_chain held;
    uint64_t values[DEVICE_BALLOON_TAGS], read_ns;
    uint32_t known; /* a bit for each value */
    struct event *late;
    unsigned query_count;
    uint64_t queries[QUERIES_MAX]; /* who wait for fresh statistics */
    device_balloon_fn *done;
    void *done_context;
};

static struct balloon *balloon_of(const struct device *device)
{
    return device->own;
}

static struct balloon_counts *counts_of(const struct device *device)
{
    return (struct balloon_counts *)device->virtio->state->saved;
}

static bool negotiated(const struct device *device, unsigned feature)
{
    return device->virtio->active && device->virtio->driver_features & FEATURE(feature);
}

/* The configuration is this process's to write; the copy in shared memory is the only one. */
static struct virtio_balloon_config config_of(const struct device *device)
{
    struct virtio_balloon_config config;

    memcpy(&config, device->virtio->state->config, sizeof(config));
    return config;
}

/* ---- Giving memory back ---- */

/* What firmware lives in is not the guest's kernel's to give. */
static bool may_release(const struct device *device, uint64_t address)
{
    const struct memory_region *first = &device->memory->regions[0];
    return address - first->base >= device->memory_kept || address < first->base;
}

/* Returns the bytes that were given back. */
static uint64_t release(struct device *device, uint64_t address, uint64_t size)
{
    struct balloon *balloon = balloon_of(device);
    int64_t bytes =
        may_release(device, address) ? memory_release(device->memory, address, size) : 0;

    if (bytes < 0) {
        if (device_may_complain(device)) {
            log_warning("cannot give memory back: %s", strerror((int)-bytes));
        }
        return 0;
    }
    balloon->this_turn += (uint64_t)bytes;
    if (balloon->this_turn >= TURN_BYTES && !event_pending(balloon->next_turn, EV_TIMEOUT, NULL)) {
        static const struct timeval soon = {0, 0};
        event_add(balloon->next_turn, &soon);
    }
    return (uint64_t)bytes;
}

static void turn_over(evutil_socket_t fd, short what, void *context)
{
    struct device *device = context;

    (void)fd;
    (void)what;
    balloon_of(device)->this_turn = 0;
    for (unsigned i = 0; i < QUEUE_COUNT; i++) {
        virtio_queue_pump(device, i);
    }
}

static int compare_pages(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Neighbours together: one call of the host's for a run of pages. */
static uint64_t release_pages(struct device *device, uint32_t *pages, size_t count)
{
    uint64_t bytes = 0;

    qsort(pages, count, sizeof(*pages), compare_pages);
    for (size_t i = 0, next; i < count; i = next) {
        uint64_t address = (uint64_t)pages[i] << PAGE_SHIFT, size = UINT64_C(1) << PAGE_SHIFT;
        for (next = i + 1; next < count && pages[next] - pages[next - 1] <= 1; next++) {
            uint64_t longer = ((uint64_t)pages[next] - pages[i] + 1) << PAGE_SHIFT;
            if (!memory_pointer(device->memory, address, longer)) {
                break; /* the next one is in another region, or nowhere */
            }
            size = longer;
        }
        bytes += release(device, address, size);
    }
    return bytes;
}

/* A list of page numbers (5.5.6); those outside of memory are nothing that could be given back. */
static void pages_request(struct device *device, unsigned queue,
                          const struct virtqueue_chain *chain)
{
    const bool inflate = balloon_of(device)->roles[queue] == ROLE_INFLATE;
    struct balloon_counts *counts = counts_of(device);
    uint32_t pages[PAGES_A_BATCH];
    size_t size;

    for (uint64_t at = 0;
         at < LIST_BYTES && (size = virtqueue_chain_read(chain, at, pages, sizeof(pages)));
         at += size) {
        size_t count = size / sizeof(pages[0]);
        if (inflate) {
            counts->inflated += count;
            counts->released += release_pages(device, pages, count);
        } else {
            counts->deflated += count;
        }
        if (size < sizeof(pages)) {
            break;
        }
    }
    virtio_request_complete(device, queue, chain, 0);
}

/* Free pages (5.5.6.7), whose contents the driver does not want any more; but one that checks that
 * they still have what it filled them with must find it. */
static void report_request(struct device *device, unsigned queue,
                           const struct virtqueue_chain *chain)
{
    bool keep = negotiated(device, VIRTIO_BALLOON_F_PAGE_POISON) && config_of(device).poison_val;
    unsigned end = (unsigned)chain->readable_count + chain->writable_count;

    for (unsigned i = chain->readable_count; i < end && !keep; i++) {
        counts_of(device)->reported +=
            release(device, chain->addresses[i], chain->segments[i].iov_len);
    }
    virtio_request_complete(device, queue, chain, 0);
}

/* ---- Statistics ---- */

static void describe(struct device *device, struct device_balloon_report *report)
{
    const struct balloon *balloon = balloon_of(device);
    const struct balloon_counts *counts = counts_of(device);
    const struct virtio_balloon_config config = config_of(device);

    *report = (struct device_balloon_report){
        .driver = device->virtio->active,
        .target_bytes = (uint64_t)config.num_pages << PAGE_SHIFT,
        .actual_bytes = (uint64_t)config.actual << PAGE_SHIFT,
        .inflated_bytes = counts->inflated << PAGE_SHIFT,
        .deflated_bytes = counts->deflated << PAGE_SHIFT,
        .released_bytes = counts->released,
        .reported_bytes = counts->reported,
        .known = balloon->known,
        .deflate_on_oom = negotiated(device, VIRTIO_BALLOON_F_DEFLATE_ON_OOM),
        .reporting = negotiated(device, VIRTIO_BALLOON_F_REPORTING),
    };
    memcpy(report->values, balloon->values, sizeof(report->values));
    if (balloon->known) {
        report->age_ms = (clock_monotonic_ns() - balloon->read_ns) / NS_PER_MS;
    }
}

static void answer_queries(struct device *device)
{
    struct balloon *balloon = balloon_of(device);
    unsigned count = balloon->query_count;
    struct device_balloon_report report;

    event_del(balloon->late);
    balloon->query_count = 0;
    describe(device, &report);
    for (unsigned i = 0; i < count; i++) {
        balloon->done(balloon->done_context, balloon->queries[i], &report);
    }
}

static void statistics_late(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    answer_queries(context); /* with what is known from before */
}

/* The driver filled the buffer anew (5.5.6.3). */
static void statistics_request(struct device *device, const struct virtqueue_chain *chain)
{
    struct balloon *balloon = balloon_of(device);
    struct guest_statistic statistics[4 * DEVICE_BALLOON_TAGS];
    size_t size = virtqueue_chain_read(chain, 0, statistics, sizeof(statistics));

    balloon->known = 0;
    for (size_t i = 0; i < size / sizeof(statistics[0]); i++) {
        if (statistics[i].tag < DEVICE_BALLOON_TAGS) {
            balloon->values[statistics[i].tag] = statistics[i].value;
            balloon->known |= 1u << statistics[i].tag;
        }
    }
    balloon->read_ns = clock_monotonic_ns();
    virtqueue_chain_copy(&balloon->held, chain);
    balloon->holding = true;
    answer_queries(device);
}

/* Have the driver fill it again, if it is here. */
static void statistics_refresh(struct device *device)
{
    struct balloon *balloon = balloon_of(device);

    for (unsigned i = 0; i < QUEUE_COUNT && balloon->holding; i++) {
        if (balloon->roles[i] == ROLE_STATISTICS) {
            balloon->holding = false;
            virtio_request_complete(device, i, &balloon->held, 0);
            virtio_queue_signal(device, i);
            virtio_queue_pump(device, i);
        }
    }
}

/* ---- What vmmd asks for ---- */

static void set_target(struct device *device, uint64_t bytes)
{
    uint64_t pages = bytes >> PAGE_SHIFT;
    const uint32_t wanted = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;

    if (config_of(device).num_pages != wanted) {
        virtio_config_set(device, offsetof(struct virtio_balloon_config, num_pages), &wanted,
                          sizeof(wanted));
    }
}

static int balloon_order(struct device *device, const struct device_balloon_order *order,
                         uint64_t id, device_balloon_fn *done, void *context, struct error *err)
{
    const struct timeval limit = clock_timeval(STATISTICS_MS * NS_PER_MS);
    struct balloon *balloon = balloon_of(device);
    struct device_balloon_report report;

    balloon->done = done;
    balloon->done_context = context;
    if (order->set) {
        set_target(device, order->target_bytes);
    }
    if (!order->statistics || !negotiated(device, VIRTIO_BALLOON_F_STATS_VQ)) {
        describe(device, &report);
        done(context, id, &report);
        return 0;
    }
    if (balloon->query_count == QUERIES_MAX) {
        return error_set(err, ERROR_BUSY, 0, "the guest is being asked by %d others", QUERIES_MAX);
    }
    balloon->queries[balloon->query_count++] = id;
    if (balloon->query_count == 1) {
        event_add(balloon->late, &limit);
        statistics_refresh(device);
    }
    return 0;
}

/* ---- The device ---- */

static bool balloon_ready(const struct device *device, unsigned queue)
{
    const struct balloon *balloon = balloon_of(device);

    return balloon->roles[queue] == ROLE_STATISTICS ? !balloon->holding
                                                    : balloon->this_turn < TURN_BYTES;
}

static void balloon_request(struct device *device, unsigned queue,
                            const struct virtqueue_chain *chain)
{
    struct balloon *balloon = balloon_of(device);

    switch (balloon->roles[queue]) {
    case ROLE_STATISTICS:
        if (balloon->holding) { /* only a damaged log of an earlier process can resubmit two */
            virtio_device_fail(device, "two buffers of statistics in flight");
        } else {
            statistics_request(device, chain);
        }
        break;
    case ROLE_REPORT:
        report_request(device, queue, chain);
        break;
    default:
        pages_request(device, queue, chain);
        break;
    }
}

static void balloon_activated(struct device *device, bool resumed)
{
    struct balloon *balloon = balloon_of(device);
    unsigned next = 2;

    (void)resumed;
    balloon->holding = false;
    balloon->roles[0] = ROLE_INFLATE;
    balloon->roles[1] = ROLE_DEFLATE;
    if (negotiated(device, VIRTIO_BALLOON_F_STATS_VQ)) {
        balloon->roles[next++] = ROLE_STATISTICS;
    }
    while (next < QUEUE_COUNT) {
        balloon->roles[next++] = ROLE_REPORT;
    }
}

/* Whatever the balloon held is the next driver's; the target stays. */
static void balloon_reset(struct device *device)
{
    static const uint32_t none = 0;
    struct balloon *balloon = balloon_of(device);

    balloon->holding = false;
    balloon->known = 0;
    virtio_config_answer(device, offsetof(struct virtio_balloon_config, actual), &none,
                         sizeof(none));
    virtio_config_answer(device, offsetof(struct virtio_balloon_config, poison_val), &none,
                         sizeof(none));
    answer_queries(device);
}

static void balloon_queue_reset(struct device *device, unsigned queue)
{
    struct balloon *balloon = balloon_of(device);

    if (balloon->roles[queue] == ROLE_STATISTICS) {
        balloon->holding = false;
    }
}

/* The driver writes how large the balloon is, and what it fills free pages with. */
static int balloon_config_write(struct device *device, uint32_t offset, const uint8_t *data,
                                unsigned size)
{
    static const size_t writable[] = {offsetof(struct virtio_balloon_config, actual),
                                      offsetof(struct virtio_balloon_config, poison_val)};

    for (size_t i = 0; i < sizeof(writable) / sizeof(writable[0]); i++) {
        if (offset >= writable[i] && offset + size <= writable[i] + sizeof(uint32_t)) {
            virtio_config_answer(device, offset, data, size);
            return 0;
        }
    }
    return -EINVAL;
}

static uint32_t first_target(const struct device *device, const struct balloon_setting *setting)
{
    uint64_t memory = device->memory->page_count << MEMORY_PAGE_SHIFT;
    bool less = setting->memory && setting->memory < memory;
    uint64_t pages = less ? (memory - setting->memory) >> PAGE_SHIFT : 0;

    return pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
}

static int balloon_init(struct device *device, struct error *err)
{
    struct virtio_balloon_config config = {0};
    struct balloon *balloon = calloc(1, sizeof(*balloon));
    struct balloon_setting setting;
    int status = balloon_setting_parse(device->balloon, ERROR_CONFIG, &setting, err);

    device->own = balloon;
    if (status < 0) {
        return status;
    }
    if (balloon) {
        balloon->next_turn = event_new(device->base, -1, 0, turn_over, device);
        balloon->late = event_new(device->base, -1, 0, statistics_late, device);
    }
    if (!balloon || !balloon->next_turn || !balloon->late) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for device %s", device->id);
    }
    if (setting.deflate_on_oom) {
        device->virtio->features |= FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
    }
    if (setting.reporting) {
        device->virtio->features |= FEATURE(VIRTIO_BALLOON_F_REPORTING);
    }
    if (device->virtio->state->config_length == 0) { /* the first process: nothing to go on with */
        config.num_pages = first_target(device, &setting);
        virtio_config_set(device, 0, &config, sizeof(config));
    }
    return 0;
}

static void balloon_destroy(struct device *device)
{
    struct balloon *balloon = balloon_of(device);

    if (balloon && balloon->next_turn) {
        event_free(balloon->next_turn);
    }
    if (balloon && balloon->late) {
        event_free(balloon->late);
    }
    free(balloon);
}

DEVICE_MODEL(virtio_balloon) = {
    .kind = "virtio-balloon",
    .device_class = DEVICE_VIRTIO,
    .init = balloon_init,
    .destroy = balloon_destroy,
    .balloon = balloon_order,
    .virtio =
        {
            .device_id = VIRTIO_ID_BALLOON,
            .queue_count = QUEUE_COUNT,
            .queue_size = QUEUE_SIZE,
            .features = FEATURE(VIRTIO_BALLOON_F_MUST_TELL_HOST) |
                        FEATURE(VIRTIO_BALLOON_F_STATS_VQ) | FEATURE(VIRTIO_BALLOON_F_PAGE_POISON),
            .ready = balloon_ready,
            .request = balloon_request,
            .activated = balloon_activated,
            .reset = balloon_reset,
            .queue_reset = balloon_queue_reset,
            .config_write = balloon_config_write,
        },
};
