#include "libshared/virtio/ring.h"
#include <errno.h>
#include <string.h>

/* Each step of the log's protocol ends here: the compiler may move no store across. Tests define
 * it to let the "process" die at any of them. */
#ifndef VIRTQUEUE_STEP
#define VIRTQUEUE_STEP() atomic_signal_fence(memory_order_seq_cst)
#endif

/* Both areas are arrays of u16 at heart: flags, idx, then the ring, then the other side's event. */
enum area_word { AREA_FLAGS = 0, AREA_INDEX = 1, AREA_RING = 2 };

enum area_flags { AVAILABLE_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

static uint16_t guest_load(const uint16_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void guest_store(uint16_t *word, uint16_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static uint16_t *used_ring(const struct virtqueue *queue, uint16_t index)
{
    return queue->used + AREA_RING + 4u * (index % queue->size);
}

/* Where the driver says which used entry shall interrupt. */
static uint16_t *used_event(const struct virtqueue *queue)
{
    return queue->available + AREA_RING + queue->size;
}

/* Where the device says which available entry shall kick. */
static uint16_t *available_event(const struct virtqueue *queue)
{
    return queue->used + AREA_RING + 4u * queue->size;
}

static size_t available_bytes(uint16_t size)
{
    return 6 + 2u * (size_t)size;
}

static size_t used_bytes(uint16_t size)
{
    return 6 + 8u * (size_t)size;
}

static int queue_break(struct virtqueue *queue, const char *fault)
{
    if (!queue->fault) {
        queue->fault = fault;
    }
    return -EPROTO;
}

void virtqueue_clear(struct virtio_queue_state *shared)
{
    /* live goes first: a process that dies half-way leaves a queue that is not live. */
    atomic_store(&shared->live, 0);
    VIRTQUEUE_STEP();
    for (unsigned i = 0; i < VIRTIO_QUEUE_SIZE_MAX; i++) {
        atomic_store_explicit(&shared->inflight[i].status, VIRTIO_FREE, memory_order_relaxed);
        shared->inflight[i].written = 0;
        shared->inflight[i].order = 0;
    }
    atomic_store(&shared->next_available, 0);
    atomic_store(&shared->next_used, 0);
    shared->next_order = 0;
}

int virtqueue_open(struct virtqueue *queue, struct memory *memory,
                   struct virtio_queue_state *shared, uint64_t features)
{
    uint64_t descriptors = shared->descriptors;
    uint64_t driver_area = shared->driver_area;
    uint64_t device_area = shared->device_area;
    uint16_t size = shared->size;

    memset(queue, 0, sizeof(*queue));
    if (size == 0 || size > VIRTIO_QUEUE_SIZE_MAX || (size & (size - 1))) {
        return -EINVAL;
    }
    if (descriptors % 16 || driver_area % 2 || device_area % 4) {
        return -EINVAL;
    }
    queue->descriptors =
        memory_pointer(memory, descriptors, size * sizeof(struct virtqueue_descriptor));
    queue->available = memory_pointer(memory, driver_area, available_bytes(size));
    queue->used = memory_pointer(memory, device_area, used_bytes(size));
    if (!queue->descriptors || !queue->available || !queue->used) {
        return -EINVAL;
    }
    queue->memory = memory;
    queue->shared = shared;
    queue->size = size;
    queue->device_area = device_area;
    queue->event_index = features & VIRTQUEUE_FEATURE_EVENT_INDEX;
    queue->indirect = features & VIRTQUEUE_FEATURE_INDIRECT;
    queue->next_available = (uint16_t)shared->next_order;
    queue->next_used = atomic_load(&shared->next_used);
    return 0;
}

/* ---- Chains ---- */

/* One copy of a descriptor that the guest may be changing. */
static struct virtqueue_descriptor descriptor_copy(const uint8_t *table, unsigned index)
{
    struct virtqueue_descriptor copy;
    memcpy(&copy, table + index * sizeof(copy), sizeof(copy));
    /* From here on the compiler must use the copy and never look into guest memory again. */
    __asm__ volatile("" : "+m"(copy));
    return copy;
}

static int chain_add(struct virtqueue *queue, struct virtqueue_chain *chain,
                     const struct virtqueue_descriptor *descriptor)
{
    bool writable = descriptor->flags & VIRTQUEUE_WRITE;
    if (!writable && chain->writable_count) {
        return queue_break(queue, "readable buffer after a writable one");
    }
    if (descriptor->length == 0) {
        return 0;
    }
    unsigned index = chain->readable_count + chain->writable_count;
    if (index >= VIRTIO_QUEUE_SIZE_MAX) {
        return queue_break(queue, "too many buffers in a chain");
    }
    void *host = memory_pointer(queue->memory, descriptor->address, descriptor->length);
    if (!host) {
        return queue_break(queue, "buffer outside memory");
    }
    chain->segments[index].iov_base = host;
    chain->segments[index].iov_len = descriptor->length;
    chain->addresses[index] = descriptor->address;
    if (writable) {
        chain->writable_count++;
        chain->writable_bytes += descriptor->length;
    } else {
        chain->readable_count++;
        chain->readable_bytes += descriptor->length;
    }
    /* Section 2.7.5: a chain is no longer than 2^32 bytes; so a used length always fits. */
    if (chain->readable_bytes + chain->writable_bytes > UINT32_MAX) {
        return queue_break(queue, "chain longer than 4 GiB");
    }
    return 0;
}

/* Follow descriptors of one table, at most `budget` of them. With `tail` an indirect descriptor
 * may end the chain: it is copied there and 1 returned. */
static int chain_follow(struct virtqueue *queue, struct virtqueue_chain *chain,
                        const uint8_t *table, unsigned count, unsigned index, unsigned *budget,
                        struct virtqueue_descriptor *tail)
{
    for (;;) {
        if (index >= count) {
            return queue_break(queue, "descriptor index out of range");
        }
        if (*budget == 0) {
            return queue_break(queue, "descriptor chain too long or a loop");
        }
        --*budget;
        struct virtqueue_descriptor descriptor = descriptor_copy(table, index);
        if (descriptor.flags & VIRTQUEUE_INDIRECT) {
            if (!tail || !queue->indirect || (descriptor.flags & VIRTQUEUE_NEXT)) {
                return queue_break(queue, "indirect descriptor where none is allowed");
            }
            *tail = descriptor;
            return 1;
        }
        int status = chain_add(queue, chain, &descriptor);
        if (status < 0 || !(descriptor.flags & VIRTQUEUE_NEXT)) {
            return status;
        }
        index = descriptor.next;
    }
}

static int chain_read(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    struct virtqueue_descriptor tail;
    unsigned budget = queue->size;

    chain->head = head;
    chain->readable_count = chain->writable_count = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    int status = chain_follow(queue, chain, queue->descriptors, queue->size, head, &budget, &tail);
    if (status != 1) {
        return status;
    }
    unsigned count = tail.length / sizeof(struct virtqueue_descriptor);
    if (tail.length == 0 || tail.length % sizeof(struct virtqueue_descriptor) ||
        count > queue->size) {
        return queue_break(queue, "indirect table of an impossible size");
    }
    const uint8_t *table = memory_pointer(queue->memory, tail.address, tail.length);
    if (!table) {
        return queue_break(queue, "indirect table outside memory");
    }
    budget = queue->size - (chain->readable_count + chain->writable_count);
    return chain_follow(queue, chain, table, count, 0, &budget, NULL);
}

void virtqueue_chain_copy(struct virtqueue_chain *to, const struct virtqueue_chain *from)
{
    unsigned count = from->readable_count + from->writable_count;
    memcpy(to, from, offsetof(struct virtqueue_chain, segments));
    memcpy(to->segments, from->segments, count * sizeof(from->segments[0]));
    memcpy(to->addresses, from->addresses, count * sizeof(from->addresses[0]));
}

/* The part of segment `index` from *offset on; moves *offset down to where the segment starts. */
static bool segment_part(const struct iovec *segment, uint64_t *offset, size_t size,
                         uint8_t **bytes, size_t *length)
{
    if (*offset >= segment->iov_len) {
        *offset -= segment->iov_len;
        return false;
    }
    *bytes = (uint8_t *)segment->iov_base + *offset;
    *length = segment->iov_len - *offset < size ? segment->iov_len - *offset : size;
    *offset = 0;
    return true;
}

size_t virtqueue_chain_read(const struct virtqueue_chain *chain, uint64_t offset, void *to,
                            size_t size)
{
    size_t done = 0;
    for (unsigned i = 0; i < chain->readable_count && done < size; i++) {
        uint8_t *bytes;
        size_t length;
        if (segment_part(&chain->segments[i], &offset, size - done, &bytes, &length)) {
            memcpy((uint8_t *)to + done, bytes, length);
            done += length;
        }
    }
    return done;
}

size_t virtqueue_chain_write(const struct virtqueue_chain *chain, uint64_t offset, const void *from,
                             size_t size)
{
    const struct iovec *segments = chain->segments + chain->readable_count;
    size_t done = 0;
    for (unsigned i = 0; i < chain->writable_count && done < size; i++) {
        uint8_t *bytes;
        size_t length;
        if (segment_part(&segments[i], &offset, size - done, &bytes, &length)) {
            memcpy(bytes, (const uint8_t *)from + done, length);
            done += length;
        }
    }
    return done;
}

/* ---- Taking ---- */

/* The head of entry `ahead` of those that wait: 1, 0 when there are not so many, or -EPROTO. */
static int available_head(struct virtqueue *queue, unsigned ahead, uint16_t *head)
{
    if (queue->fault) {
        return -EPROTO;
    }
    uint16_t waiting = guest_load(&queue->available[AREA_INDEX]) - queue->next_available;
    if (waiting > queue->size) {
        return queue_break(queue, "available index ran ahead");
    }
    if (ahead >= waiting) {
        return 0;
    }
    uint16_t index = (uint16_t)(queue->next_available + ahead);
    *head = guest_load(&queue->available[AREA_RING + index % queue->size]);
    if (*head >= queue->size) {
        return queue_break(queue, "head index out of range");
    }
    return 1;
}

unsigned virtqueue_waiting(struct virtqueue *queue)
{
    uint16_t waiting =
        queue->fault ? 0 : guest_load(&queue->available[AREA_INDEX]) - queue->next_available;
    return waiting <= queue->size ? waiting : 0;
}

bool virtqueue_available(struct virtqueue *queue)
{
    return !queue->fault && guest_load(&queue->available[AREA_INDEX]) != queue->next_available;
}

int virtqueue_take(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    uint16_t head;
    int status = available_head(queue, 0, &head);
    if (status <= 0) {
        return status;
    }
    struct virtio_inflight *entry = &queue->shared->inflight[head];
    if (atomic_load_explicit(&entry->status, memory_order_relaxed) != VIRTIO_FREE) {
        return queue_break(queue, "head offered while it is in flight");
    }
    status = chain_read(queue, head, chain);
    if (status < 0) {
        return status;
    }

    uint64_t order = queue->shared->next_order;
    entry->order = order;
    VIRTQUEUE_STEP(); /* T1 */
    atomic_store_explicit(&entry->status, VIRTIO_IN_FLIGHT, memory_order_release);
    VIRTQUEUE_STEP(); /* T2 */
    __atomic_store_n(&queue->shared->next_order, order + 1, __ATOMIC_RELEASE);
    VIRTQUEUE_STEP(); /* T3 */
    queue->next_available = (uint16_t)(order + 1);
    atomic_store_explicit(&queue->shared->next_available, queue->next_available,
                          memory_order_release);
    VIRTQUEUE_STEP(); /* T4 */
    queue->in_flight++;
    return 1;
}

/* ---- Completing ---- */

/* C3 to C6 of a request whose result is in the log. */
static void request_publish(struct virtqueue *queue, uint16_t head)
{
    struct virtio_inflight *entry = &queue->shared->inflight[head];
    uint16_t *element = used_ring(queue, queue->next_used);
    struct virtqueue_used_element value = {.id = head, .length = entry->written};

    memcpy(element, &value, sizeof(value));
    memory_device_wrote(queue->memory, queue->device_area, used_bytes(queue->size));
    VIRTQUEUE_STEP(); /* C3 */
    guest_store(&queue->used[AREA_INDEX], (uint16_t)(queue->next_used + 1));
    VIRTQUEUE_STEP(); /* C4 */
    atomic_store_explicit(&entry->status, VIRTIO_FREE, memory_order_release);
    VIRTQUEUE_STEP(); /* C5 */
    queue->next_used++;
    atomic_store_explicit(&queue->shared->next_used, queue->next_used, memory_order_release);
    VIRTQUEUE_STEP(); /* C6 */
}

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
    VIRTQUEUE_STEP(); /* C1 */
    atomic_store_explicit(&entry->status, VIRTIO_DONE, memory_order_release);
    VIRTQUEUE_STEP(); /* C2 */
    request_publish(queue, chain->head);
}

/* ---- Streams ---- */

int virtqueue_peek(struct virtqueue *queue, unsigned ahead, struct virtqueue_chain *chain)
{
    uint16_t head;
    int status = available_head(queue, ahead, &head);

    if (status <= 0) {
        return status;
    }
    status = chain_read(queue, head, chain);
    return status < 0 ? status : 1;
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

/* S3 and S4: the indexes follow used.idx, which is `used`. */
static void stream_follow(struct virtqueue *queue, uint16_t used)
{
    struct virtio_queue_state *shared = queue->shared;
    uint64_t order = shared->next_order;

    order += (uint16_t)(used - (uint16_t)order);
    __atomic_store_n(&shared->next_order, order, __ATOMIC_RELEASE);
    queue->next_available = (uint16_t)order;
    atomic_store_explicit(&shared->next_available, queue->next_available, memory_order_release);
    VIRTQUEUE_STEP(); /* S3 */
    queue->next_used = used;
    atomic_store_explicit(&shared->next_used, used, memory_order_release);
    VIRTQUEUE_STEP(); /* S4 */
}

void virtqueue_publish(struct virtqueue *queue, const struct virtqueue_used_element *elements,
                       unsigned count)
{
    uint16_t used = (uint16_t)(queue->next_used + count);

    if (queue->fault || !count) {
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        memcpy(used_ring(queue, (uint16_t)(queue->next_used + i)), &elements[i],
               sizeof(elements[i]));
    }
    memory_device_wrote(queue->memory, queue->device_area, used_bytes(queue->size));
    VIRTQUEUE_STEP(); /* S1 */
    guest_store(&queue->used[AREA_INDEX], used);
    VIRTQUEUE_STEP(); /* S2 */
    stream_follow(queue, used);
}

bool virtqueue_interrupt_wanted(struct virtqueue *queue)
{
    uint16_t then = queue->signalled;
    bool known = queue->signalled_valid;

    if (queue->fault) {
        return false;
    }
    queue->signalled = queue->next_used;
    queue->signalled_valid = true;
    /* The used index must be visible before the driver's wish is read: the driver writes its wish
     * first and then looks at the used index. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!queue->event_index) {
        return (!known || then != queue->next_used) &&
               !(guest_load(&queue->available[AREA_FLAGS]) & AVAILABLE_NO_INTERRUPT);
    }
    if (!known) {
        return true;
    }
    /* Section 2.7.7.2: the entry named lies among those published since. */
    uint16_t event = guest_load(used_event(queue));
    return (uint16_t)(queue->next_used - event - 1) < (uint16_t)(queue->next_used - then);
}

void virtqueue_kicks_off(struct virtqueue *queue)
{
    /* With the event index nothing needs to be said: the entry asked for lies behind. */
    if (!queue->fault && !queue->event_index) {
        guest_store(&queue->used[AREA_FLAGS], USED_NO_NOTIFY);
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
    if (queue->event_index) {
        guest_store(available_event(queue), (uint16_t)(queue->next_available + waiting));
    } else {
        guest_store(&queue->used[AREA_FLAGS], 0);
    }
    /* Mirror of the driver: it publishes its index, then looks whether a kick is wanted. */
    atomic_thread_fence(memory_order_seq_cst);
    /* More than can be is a rule broken, which taking will find. */
    uint16_t now = guest_load(&queue->available[AREA_INDEX]) - queue->next_available;
    return now > waiting;
}

/* ---- Recovery ---- */

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

/* T3 and T4 of a request that was being taken. */
static int recover_take(struct virtqueue *queue, const uint16_t *heads, unsigned count)
{
    struct virtio_queue_state *shared = queue->shared;
    uint64_t order = shared->next_order;

    if (count && shared->inflight[heads[count - 1]].order >= order) {
        if (shared->inflight[heads[count - 1]].order != order ||
            (count > 1 && shared->inflight[heads[count - 2]].order >= order)) {
            return queue_break(queue, "log of requests in flight is damaged");
        }
        order++;
        __atomic_store_n(&shared->next_order, order, __ATOMIC_RELEASE);
        VIRTQUEUE_STEP();
    }
    queue->next_available = (uint16_t)order;
    atomic_store_explicit(&shared->next_available, queue->next_available, memory_order_release);
    VIRTQUEUE_STEP();
    return 0;
}

/* What is missing of C3 to C6; `done` is the head with status DONE, or -1. */
static int recover_complete(struct virtqueue *queue, int done)
{
    struct virtio_queue_state *shared = queue->shared;
    uint16_t published = guest_load(&queue->used[AREA_INDEX]) - queue->next_used;

    if (published > 1) {
        return queue_break(queue, "used index changed by the driver");
    }
    if (published == 0) {
        if (done >= 0) {
            request_publish(queue, (uint16_t)done);
        }
        return 0;
    }
    if (done >= 0) {
        atomic_store_explicit(&shared->inflight[done].status, VIRTIO_FREE, memory_order_release);
        VIRTQUEUE_STEP();
    }
    queue->next_used++;
    atomic_store_explicit(&shared->next_used, queue->next_used, memory_order_release);
    VIRTQUEUE_STEP();
    return 0;
}

int virtqueue_recover(struct virtqueue *queue, uint16_t heads[VIRTIO_QUEUE_SIZE_MAX],
                      unsigned *count)
{
    unsigned found = 0;
    int done = -1;

    *count = 0;
    for (uint16_t head = 0; head < queue->size; head++) {
        uint32_t status = atomic_load(&queue->shared->inflight[head].status);
        if (status > VIRTIO_DONE || (status == VIRTIO_DONE && done >= 0)) {
            return queue_break(queue, "log of requests in flight is damaged");
        }
        if (status == VIRTIO_DONE) {
            done = head;
        } else if (status == VIRTIO_IN_FLIGHT) {
            heads_insert(queue->shared, heads, found, head);
            found++;
        }
    }
    int status = recover_take(queue, heads, found);
    if (status == 0) {
        status = recover_complete(queue, done);
    }
    if (status == 0) {
        queue->in_flight = (uint16_t)found;
        *count = found;
    }
    return status;
}

int virtqueue_recover_stream(struct virtqueue *queue)
{
    uint16_t used = guest_load(&queue->used[AREA_INDEX]);
    uint16_t published = used - queue->next_used;

    if (queue->fault) {
        return -EPROTO;
    }
    if (published > queue->size) {
        return queue_break(queue, "used index changed by the driver");
    }
    stream_follow(queue, used);
    return 0;
}

int virtqueue_resume(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    if (queue->fault) {
        return -EPROTO;
    }
    if (head >= queue->size ||
        atomic_load(&queue->shared->inflight[head].status) != VIRTIO_IN_FLIGHT) {
        return queue_break(queue, "log of requests in flight is damaged");
    }
    return chain_read(queue, head, chain);
}
