/* What is the same for split and packed queues: the log's protocol, streams, recovery. The steps
 * are those of the tables in ring.h. */
#include "libshared/virtio/ring.h"
#include "libshared/base/fence.h"
#include "libshared/virtio/layout.h"
#include <errno.h>
#include <string.h>

void virtqueue_clear(struct virtio_queue_state *shared)
{
    /* live goes first: a process that dies half-way leaves a queue that is not live. */
    atomic_store(&shared->live, 0);
    VIRTQUEUE_STEP();
    for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
        atomic_store_explicit(&shared->inflight[i].status, VIRTIO_FREE, memory_order_relaxed);
    }
    shared->next_order = 0;
    shared->used_order = 0;
    shared->stream_at = 0;
    shared->stream_count = 0;
}

int virtqueue_open(struct virtqueue *queue, struct memory *memory,
                   struct virtio_queue_state *shared, uint64_t features)
{
    uint16_t size = shared->size;

    memset(queue, 0, sizeof(*queue));
    if (size == 0 || size > VIRTIO_QUEUE_SIZE_MAX) {
        return -EINVAL;
    }
    queue->memory = memory;
    queue->shared = shared;
    queue->layout = features & VIRTQUEUE_FEATURE_PACKED ? &virtqueue_packed : &virtqueue_split;
    queue->size = size;
    queue->event_index = features & VIRTQUEUE_FEATURE_EVENT_INDEX;
    queue->indirect = features & VIRTQUEUE_FEATURE_INDIRECT;
    queue->descriptor_area = shared->descriptors;
    queue->device_area = shared->device_area;
    queue->next_order = shared->next_order;
    queue->used_order = shared->used_order;
    queue->signalled = queue->used_order;
    if (queue->next_order - queue->used_order > size) {
        virtqueue_break(queue, "log of requests in flight is damaged");
    }
    return queue->layout->attach(queue, shared->driver_area);
}

/* ---- Positions ---- */

static void set_next_order(struct virtqueue *queue, uint64_t order)
{
    queue->next_order = order;
    __atomic_store_n(&queue->shared->next_order, order, __ATOMIC_RELEASE);
    VIRTQUEUE_STEP();
}

static void set_used_order(struct virtqueue *queue, uint64_t order)
{
    queue->used_order = order;
    __atomic_store_n(&queue->shared->used_order, order, __ATOMIC_RELEASE);
    VIRTQUEUE_STEP();
}

static void set_status(struct virtqueue *queue, uint16_t head, enum virtio_inflight_status status)
{
    atomic_store_explicit(&queue->shared->inflight[head].status, status, memory_order_release);
    VIRTQUEUE_STEP();
}

/* ---- Taking ---- */

bool virtqueue_available(struct virtqueue *queue)
{
    return !queue->fault && queue->layout->has(queue, 0) != 0;
}

/* Read the chain at `offset`: 1, 0 when there is none, or -EPROTO. */
static int chain_at(struct virtqueue *queue, unsigned offset, struct virtqueue_chain *chain)
{
    int status = queue->fault ? -EPROTO : queue->layout->has(queue, offset);

    if (status > 0) {
        status = queue->layout->read(queue, offset, chain);
        return status < 0 ? status : 1;
    }
    return status < 0 ? virtqueue_break(queue, queue->layout->overrun) : 0;
}

int virtqueue_take(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    int status = chain_at(queue, 0, chain);

    if (status > 0) {
        int entered = queue->layout->enter(queue, chain);
        status = entered < 0 ? entered : 1;
    }
    if (status <= 0) {
        return status;
    }
    struct virtio_inflight *entry = &queue->shared->inflight[chain->head];
    entry->id = chain->id;
    entry->positions = chain->positions;
    entry->order = queue->next_order;
    VIRTQUEUE_STEP(); /* T1 */
    set_status(queue, chain->head, VIRTIO_IN_FLIGHT);
    set_next_order(queue, queue->next_order + chain->positions);
    queue->in_flight++;
    queue->peeked = 0; /* what was counted began further back */
    return 1;
}

int virtqueue_resume(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    if (queue->fault) {
        return -EPROTO;
    }
    if (head >= queue->size ||
        atomic_load(&queue->shared->inflight[head].status) != VIRTIO_IN_FLIGHT) {
        return virtqueue_break(queue, "log of requests in flight is damaged");
    }
    int status = queue->layout->resume(queue, head, chain);
    chain->head = head;
    chain->id = queue->shared->inflight[head].id;
    chain->positions = queue->shared->inflight[head].positions;
    return status;
}

/* ---- Completing ---- */

void virtqueue_complete(struct virtqueue *queue, const struct virtqueue_chain *chain,
                        uint32_t written)
{
    if (queue->in_flight) {
        queue->in_flight--;
    }
    if (queue->fault) {
        return;
    }
    /* All of each buffer, not `written` bytes: a failed request may have written more than it
     * reports, and only pages that hold code cost anything. */
    for (unsigned i = 0; i < chain->writable_count; i++) {
        unsigned index = chain->readable_count + i;
        memory_device_wrote(queue->memory, chain->addresses[index], chain->segments[index].iov_len);
    }
    struct virtio_inflight *entry = &queue->shared->inflight[chain->head];
    entry->written = written;
    entry->used_at = queue->used_order;
    VIRTQUEUE_STEP(); /* C1 */
    set_status(queue, chain->head, VIRTIO_DONE);
    queue->layout->show(queue, chain->id, written);
    set_used_order(queue, queue->used_order + chain->positions);
    set_status(queue, chain->head, VIRTIO_FREE);
    queue->layout->leave(queue, chain->head);
}

/* ---- Streams ---- */

int virtqueue_peek(struct virtqueue *queue, unsigned ahead, struct virtqueue_chain *chain)
{
    if (ahead > queue->peeked || ahead >= VIRTIO_QUEUE_SIZE_MAX) {
        return queue->fault ? -EPROTO : 0;
    }
    unsigned offset = ahead ? queue->ahead[ahead - 1].end : 0;
    int status = chain_at(queue, offset, chain);
    if (status <= 0) {
        return status;
    }
    uint16_t end = (uint16_t)(offset + chain->positions);
    /* A driver that changes what it offered loses what was seen behind it. */
    if (ahead == queue->peeked || queue->ahead[ahead].end != end) {
        queue->peeked = ahead + 1;
    }
    queue->ahead[ahead].id = chain->id;
    queue->ahead[ahead].end = end;
    return 1;
}

/* Where the chain behind the first `count` begins, as far as that is known. */
static unsigned ahead_end(const struct virtqueue *queue, unsigned count)
{
    unsigned known = count < queue->peeked ? count : queue->peeked;
    return known ? queue->ahead[known - 1].end : 0;
}

unsigned virtqueue_waiting(struct virtqueue *queue, unsigned enough)
{
    unsigned count = 0, offset = 0;

    while (!queue->fault && count < enough && count < queue->size &&
           queue->layout->has(queue, offset) > 0) {
        unsigned positions = queue->layout->extent(queue, offset);
        if (!positions) {
            break;
        }
        offset += positions;
        if (count == queue->peeked) { /* further than anybody looked */
            queue->ahead[count].end = (uint16_t)offset;
            queue->peeked++;
        }
        count++;
    }
    return count;
}

bool virtqueue_exhausted(const struct virtqueue *queue, unsigned count)
{
    return ahead_end(queue, count) >= queue->size;
}

void virtqueue_wrote(struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t bytes)
{
    unsigned end = chain->readable_count + chain->writable_count;
    for (unsigned i = chain->readable_count; bytes && i < end; i++) {
        uint64_t length = chain->segments[i].iov_len;
        uint64_t part = length < bytes ? length : bytes;
        memory_device_wrote(queue->memory, chain->addresses[i], part);
        bytes -= part;
    }
}

/* The last two steps: `positions` more are shown. */
static void stream_follow(struct virtqueue *queue, unsigned positions)
{
    set_next_order(queue, queue->used_order + positions);
    set_used_order(queue, queue->next_order);
}

void virtqueue_publish(struct virtqueue *queue, const uint32_t *lengths, unsigned count)
{
    if (queue->fault || !count) {
        return;
    }
    if (count > queue->peeked) {
        virtqueue_break(queue, "buffers changed while they were filled");
        return;
    }
    unsigned positions = queue->ahead[count - 1].end;
    queue->layout->show_stream(queue, lengths, count);
    stream_follow(queue, positions);
    queue->peeked = 0;
}

int virtqueue_recover_stream(struct virtqueue *queue)
{
    if (queue->fault) {
        return -EPROTO;
    }
    int positions = queue->layout->recover_stream(queue);
    if (positions < 0) {
        return positions;
    }
    stream_follow(queue, (unsigned)positions);
    return 0;
}

/* ---- Notifications ---- */

bool virtqueue_interrupt_wanted(struct virtqueue *queue)
{
    uint64_t then = queue->signalled;
    bool known = queue->signalled_valid;

    if (queue->fault) {
        return false;
    }
    queue->signalled = queue->used_order;
    queue->signalled_valid = true;
    if (known && then == queue->used_order) {
        return false; /* nothing new */
    }
    /* What is used must be visible before the driver's wish is read: the driver writes its wish
     * first and then looks at what is used. */
    fence_full();
    /* Whether an earlier process told of what it gave back is unknown. */
    return (!known && queue->event_index) || queue->layout->event(queue, then);
}

void virtqueue_kicks_off(struct virtqueue *queue)
{
    if (!queue->fault) {
        queue->layout->kicks(queue, VIRTQUEUE_KICKS_OFF, 0);
    }
}

bool virtqueue_kicks_on(struct virtqueue *queue)
{
    return virtqueue_kicks_on_beyond(queue, 0);
}

bool virtqueue_kicks_on_beyond(struct virtqueue *queue, unsigned waiting)
{
    if (queue->fault) {
        return false;
    }
    unsigned offset = ahead_end(queue, waiting);
    queue->layout->kicks(queue, VIRTQUEUE_KICKS_ON, offset);
    /* Mirror of the driver: it makes buffers available, then looks whether a kick is wanted. */
    fence_full();
    /* A rule broken is something to look at, too: taking will find it. */
    return queue->layout->has(queue, offset) != 0;
}

/* ---- Recovery ---- */

static int log_damaged(struct virtqueue *queue)
{
    return virtqueue_break(queue, "log of requests in flight is damaged");
}

/* Insert by order, oldest first. */
static void heads_insert(const struct virtio_queue_state *shared, uint16_t *heads, unsigned count,
                         uint16_t head)
{
    unsigned at = count;
    for (; at > 0 && shared->inflight[heads[at - 1]].order > shared->inflight[head].order; at--) {
        heads[at] = heads[at - 1];
    }
    heads[at] = head;
}

/* T3 of a request that was being taken. */
static int recover_take(struct virtqueue *queue, const uint16_t *heads, unsigned count)
{
    const struct virtio_inflight *log = queue->shared->inflight;
    uint64_t order = queue->next_order;

    if (!count || log[heads[count - 1]].order < order) {
        return 0;
    }
    if (log[heads[count - 1]].order != order ||
        (count > 1 && log[heads[count - 2]].order >= order)) {
        return log_damaged(queue);
    }
    order += log[heads[count - 1]].positions;
    if (order - queue->used_order > queue->size) {
        return log_damaged(queue);
    }
    set_next_order(queue, order);
    return 0;
}

/* What is missing of C3 to C6; `done` is the head with status DONE, or -1. */
static int recover_complete(struct virtqueue *queue, int done)
{
    int shown = queue->layout->shown(queue);

    if (shown < 0) {
        return shown;
    }
    if (done < 0) {
        return 0;
    }
    const struct virtio_inflight *entry = &queue->shared->inflight[done];
    uint64_t after = entry->used_at + entry->positions;
    if (queue->used_order == entry->used_at) {
        if (!shown) {
            queue->layout->show(queue, entry->id, entry->written);
        }
        set_used_order(queue, after);
    } else if (queue->used_order != after) {
        return log_damaged(queue);
    }
    set_status(queue, (uint16_t)done, VIRTIO_FREE);
    return 0;
}

/* Look at every entry: how many are in flight, and which one is done, or -1. */
static int recover_scan(struct virtqueue *queue, uint16_t *heads, unsigned *found, int *done)
{
    for (uint16_t head = 0; head < queue->size; head++) {
        const struct virtio_inflight *entry = &queue->shared->inflight[head];
        uint32_t status = atomic_load(&entry->status);

        if (status == VIRTIO_FREE) {
            continue;
        }
        if (status > VIRTIO_DONE || (status == VIRTIO_DONE && *done >= 0) || entry->positions < 1 ||
            entry->positions > queue->size) {
            return log_damaged(queue);
        }
        if (status == VIRTIO_DONE) {
            *done = head;
            continue;
        }
        if (queue->layout->adopt(queue, head) < 0) {
            return log_damaged(queue);
        }
        heads_insert(queue->shared, heads, *found, head);
        ++*found;
    }
    return 0;
}

int virtqueue_recover(struct virtqueue *queue, uint16_t heads[VIRTIO_QUEUE_SIZE_MAX],
                      unsigned *count)
{
    unsigned found = 0;
    int done = -1;

    *count = 0;
    if (queue->fault) {
        return -EPROTO;
    }
    int status = recover_scan(queue, heads, &found, &done);
    if (status == 0) {
        status = recover_take(queue, heads, found);
    }
    if (status == 0) {
        status = recover_complete(queue, done);
    }
    if (status == 0) {
        status = queue->layout->adopted(queue);
    }
    if (status == 0) {
        queue->in_flight = (uint16_t)found;
        *count = found;
    }
    return status;
}
