/*
 * Packed virtqueues: Virtual I/O Device 1.2, section 2.8. A chain takes as many positions as it has
 * descriptors in the ring. Used entries are written over the descriptors in the order of
 * completion, so a request in flight may find its own gone: they are copied to the log when it is
 * taken. Which of the log's entries and slots are free is only known to this process; the next one
 * finds it out by looking at those that are not.
 */
#include "libshared/virtio/layout.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define NO_SLOT UINT16_MAX

/* Of one descriptor, what is written last and at once: by the driver its flags, by the device all
 * three. */
union descriptor_tail {
    uint64_t word;
    struct {
        uint32_t length;
        uint16_t id;
        uint16_t flags;
    };
};
_Static_assert(offsetof(struct virtqueue_packed_descriptor, length) == 8, "one aligned word");
_Static_assert(sizeof(union descriptor_tail) == 8, "one aligned word");

union event_word {
    uint32_t word;
    struct virtqueue_packed_event event;
};

static uint8_t *ring_slot(const struct virtqueue *queue, uint64_t order)
{
    return queue->descriptors + order % queue->size * sizeof(struct virtqueue_packed_descriptor);
}

/* The wrap counter of either side when it is at that position: it begins with 1. */
static bool ring_wrap(const struct virtqueue *queue, uint64_t order)
{
    return !(order / queue->size & 1);
}

static union descriptor_tail tail_load(const struct virtqueue *queue, uint64_t order)
{
    const uint64_t *word = (const uint64_t *)(ring_slot(queue, order) + 8);
    union descriptor_tail tail;

    VIRTQUEUE_LOOK();
    tail.word = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    return tail;
}

static uint64_t address_load(const struct virtqueue *queue, uint64_t order)
{
    VIRTQUEUE_LOOK();
    return __atomic_load_n((const uint64_t *)ring_slot(queue, order), __ATOMIC_RELAXED);
}

static int packed_attach(struct virtqueue *queue, uint64_t driver_area)
{
    struct virtqueue_log *log = &queue->log;

    if (queue->descriptor_area % 16 || driver_area % 4 || queue->device_area % 4) {
        return -EINVAL;
    }
    queue->descriptors = memory_pointer(queue->memory, queue->descriptor_area,
                                        queue->size * sizeof(struct virtqueue_packed_descriptor));
    queue->available =
        memory_pointer(queue->memory, driver_area, sizeof(struct virtqueue_packed_event));
    queue->used =
        memory_pointer(queue->memory, queue->device_area, sizeof(struct virtqueue_packed_event));
    for (uint16_t i = queue->size; i-- > 0;) {
        log->free_entries[log->free_entry_count++] = i;
        log->free_slots[log->free_slot_count++] = i;
    }
    return queue->descriptors && queue->available && queue->used ? 0 : -EINVAL;
}

/* ---- Taking ---- */

static int packed_has(struct virtqueue *queue, unsigned offset)
{
    uint64_t order = queue->next_order + offset;
    uint16_t flags = tail_load(queue, order).flags;
    bool wrap = ring_wrap(queue, order);

    if (!!(flags & VIRTQUEUE_PACKED_AVAILABLE) != wrap ||
        !!(flags & VIRTQUEUE_PACKED_USED) == wrap) {
        return 0;
    }
    return order - queue->used_order < queue->size ? 1 : -EPROTO;
}

/* Positions from that one on that can belong to a chain. */
static unsigned room_from(const struct virtqueue *queue, uint64_t order)
{
    return queue->size - (unsigned)(order - queue->used_order);
}

static unsigned packed_extent(struct virtqueue *queue, unsigned offset)
{
    uint64_t order = queue->next_order + offset;
    unsigned room = room_from(queue, order);

    for (unsigned count = 1; count <= room; count++) {
        if (!(tail_load(queue, order + count - 1).flags & VIRTQUEUE_NEXT)) {
            return count;
        }
    }
    return 0;
}

/* Descriptors in a table have no flag but the one for the direction, and are all used. */
static int table_read(struct virtqueue *queue, uint64_t address, uint32_t length,
                      struct virtqueue_chain *chain)
{
    unsigned count;
    const uint8_t *table = virtqueue_chain_table(queue, chain, address, length, &count);
    int status = table ? 0 : -EPROTO;

    for (unsigned i = 0; status == 0 && i < count; i++) {
        struct virtqueue_packed_descriptor descriptor;
        VIRTQUEUE_DESCRIPTOR_COPY(&descriptor, table, i);
        status = virtqueue_chain_add(queue, chain, descriptor.address, descriptor.length,
                                     descriptor.flags & VIRTQUEUE_WRITE);
    }
    return status;
}

static int packed_read(struct virtqueue *queue, unsigned offset, struct virtqueue_chain *chain)
{
    uint64_t order = queue->next_order + offset;
    unsigned room = room_from(queue, order);
    int status = 0;

    virtqueue_chain_begin(chain);
    for (unsigned count = 1; status == 0; count++, order++) {
        if (count > room) {
            return virtqueue_break(queue, "descriptor chain longer than the ring");
        }
        union descriptor_tail tail = tail_load(queue, order);
        uint64_t address = address_load(queue, order);
        bool more = tail.flags & VIRTQUEUE_NEXT;
        if (tail.flags & VIRTQUEUE_INDIRECT) {
            if (!queue->indirect || more || count > 1) {
                return virtqueue_break(queue, "indirect descriptor where none is allowed");
            }
            status = table_read(queue, address, tail.length, chain);
        } else {
            status = virtqueue_chain_add(queue, chain, address, tail.length,
                                         tail.flags & VIRTQUEUE_WRITE);
        }
        if (!more) {
            chain->id = tail.id;
            chain->positions = (uint16_t)count;
            break;
        }
    }
    return status;
}

/* ---- The log ---- */

/* Copy one descriptor; false when there is no room, which the ring's size rules out. */
static bool log_add(struct virtqueue *queue, uint16_t head, uint64_t address, uint32_t length,
                    uint16_t flags)
{
    struct virtqueue_log *log = &queue->log;

    if (!log->free_slot_count) {
        return false;
    }
    uint16_t slot = log->free_slots[--log->free_slot_count];
    queue->shared->descriptor_log[slot] = (struct virtio_logged_descriptor){
        .address = address, .length = length, .flags = flags, .next = log->entries[head].first};
    log->next_slot[slot] = log->entries[head].first;
    log->entries[head].first = slot;
    log->entries[head].count++;
    return true;
}

static void packed_leave(struct virtqueue *queue, uint16_t head)
{
    struct virtqueue_log *log = &queue->log;

    if (head >= queue->size || !log->entries[head].taken) {
        return;
    }
    uint16_t slot = log->entries[head].first;
    for (unsigned i = 0; i < log->entries[head].count; i++) {
        log->free_slots[log->free_slot_count++] = slot;
        slot = log->next_slot[slot];
    }
    log->entries[head].taken = false;
    log->free_entries[log->free_entry_count++] = head;
}

/* All that a successor needs to read the chain again: where the table is, or the buffers. They are
 * linked from the first to the last, so they are added from the last on. */
static int packed_enter(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    struct virtqueue_log *log = &queue->log;
    unsigned buffers = chain->table_length ? 0 : chain->readable_count + chain->writable_count;
    bool fits = log->free_entry_count > 0;

    if (fits) {
        uint16_t head = chain->head = log->free_entries[--log->free_entry_count];
        log->entries[head].taken = true;
        log->entries[head].first = NO_SLOT;
        log->entries[head].count = 0;
        if (chain->table_length) {
            fits =
                log_add(queue, head, chain->table_address, chain->table_length, VIRTQUEUE_INDIRECT);
        }
        for (unsigned i = buffers; fits && i-- > 0;) {
            fits = log_add(queue, head, chain->addresses[i], (uint32_t)chain->segments[i].iov_len,
                           i >= chain->readable_count ? VIRTQUEUE_WRITE : 0);
        }
        queue->shared->inflight[head].first = log->entries[head].first;
        queue->shared->inflight[head].count = log->entries[head].count;
    }
    return fits ? 0 : virtqueue_break(queue, "more requests than the ring holds");
}

/* The entry's descriptors are in slots that no other entry has. */
static int packed_adopt(struct virtqueue *queue, uint16_t head)
{
    struct virtqueue_log *log = &queue->log;
    uint16_t slot = queue->shared->inflight[head].first;
    uint16_t count = queue->shared->inflight[head].count;

    if (count > queue->size) {
        return -EPROTO;
    }
    log->entries[head].taken = true;
    log->entries[head].first = slot;
    log->entries[head].count = count;
    for (unsigned i = 0; i < count; i++) {
        if (slot >= queue->size) {
            return -EPROTO;
        }
        uint16_t next = queue->shared->descriptor_log[slot].next;
        log->next_slot[slot] = next;
        slot = next;
    }
    return 0;
}

static int packed_adopted(struct virtqueue *queue)
{
    struct virtqueue_log *log = &queue->log;
    bool used[VIRTIO_QUEUE_SIZE_MAX] = {false};

    log->free_entry_count = log->free_slot_count = 0;
    for (uint16_t head = queue->size; head-- > 0;) {
        uint16_t slot = log->entries[head].first;
        if (!log->entries[head].taken) {
            log->free_entries[log->free_entry_count++] = head;
            continue;
        }
        for (unsigned i = 0; i < log->entries[head].count; i++) {
            if (used[slot]) {
                return virtqueue_break(queue, "log of requests in flight is damaged");
            }
            used[slot] = true;
            slot = log->next_slot[slot];
        }
    }
    for (uint16_t slot = queue->size; slot-- > 0;) {
        if (!used[slot]) {
            log->free_slots[log->free_slot_count++] = slot;
        }
    }
    return 0;
}

static int packed_resume(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    const struct virtqueue_log *log = &queue->log;
    uint16_t slot = log->entries[head].first;
    int status = 0;

    virtqueue_chain_begin(chain);
    for (unsigned i = 0; status == 0 && i < log->entries[head].count; i++) {
        const struct virtio_logged_descriptor *from = &queue->shared->descriptor_log[slot];
        if (from->flags & VIRTQUEUE_INDIRECT) {
            status = i ? virtqueue_break(queue, "log of requests in flight is damaged")
                       : table_read(queue, from->address, from->length, chain);
        } else {
            status = virtqueue_chain_add(queue, chain, from->address, from->length,
                                         from->flags & VIRTQUEUE_WRITE);
        }
        slot = log->next_slot[slot];
    }
    return status;
}

/* ---- Giving back ---- */

static void used_store(struct virtqueue *queue, uint64_t order, uint16_t id, uint32_t length)
{
    uint8_t *slot = ring_slot(queue, order);
    uint16_t state = VIRTQUEUE_PACKED_AVAILABLE | VIRTQUEUE_PACKED_USED;
    union descriptor_tail tail = {
        .length = length,
        .id = id,
        .flags = (uint16_t)((ring_wrap(queue, order) ? state : 0) | (length ? VIRTQUEUE_WRITE : 0)),
    };

    __atomic_store_n((uint64_t *)(slot + 8), tail.word, __ATOMIC_RELEASE);
    memory_device_wrote(queue->memory,
                        queue->descriptor_area + (uint64_t)(slot - queue->descriptors),
                        sizeof(struct virtqueue_packed_descriptor));
    VIRTQUEUE_STEP();
}

static void packed_show(struct virtqueue *queue, uint16_t id, uint32_t length)
{
    used_store(queue, queue->used_order, id, length);
}

static int packed_shown(struct virtqueue *queue)
{
    uint16_t flags = tail_load(queue, queue->used_order).flags;
    return !!(flags & VIRTQUEUE_PACKED_USED) == ring_wrap(queue, queue->used_order);
}

/* S3 and S4 of the group that is written down. */
static void group_show(struct virtqueue *queue, unsigned count, unsigned positions)
{
    const struct virtio_inflight *log = queue->shared->inflight;
    uint64_t order = queue->used_order + positions;

    while (count--) {
        order -= log[count].positions;
        used_store(queue, order, log[count].id, log[count].written);
    }
}

static void packed_show_stream(struct virtqueue *queue, const uint32_t *lengths, unsigned count)
{
    struct virtio_queue_state *shared = queue->shared;
    uint16_t start = 0;

    for (unsigned i = 0; i < count; i++) {
        shared->inflight[i].id = queue->ahead[i].id;
        shared->inflight[i].written = lengths[i];
        shared->inflight[i].positions = (uint16_t)(queue->ahead[i].end - start);
        start = queue->ahead[i].end;
    }
    shared->stream_count = count;
    VIRTQUEUE_STEP(); /* S1 */
    __atomic_store_n(&shared->stream_at, queue->used_order, __ATOMIC_RELEASE);
    VIRTQUEUE_STEP(); /* S2 */
    group_show(queue, count, start);
}

static int packed_recover_stream(struct virtqueue *queue)
{
    const struct virtio_queue_state *shared = queue->shared;
    uint32_t count = shared->stream_count;
    unsigned positions = 0;

    if (count == 0 || shared->stream_at != queue->used_order) {
        return 0; /* no group, or one that was finished */
    }
    for (unsigned i = 0; i < count && count <= queue->size; i++) {
        positions += shared->inflight[i].positions;
    }
    if (count > queue->size || positions > queue->size) {
        return virtqueue_break(queue, "log of buffers given back is damaged");
    }
    if (!packed_shown(queue)) {
        group_show(queue, count, positions);
    }
    return (int)positions;
}

/* ---- Notifications ---- */

static bool packed_event(struct virtqueue *queue, uint64_t since)
{
    union event_word wish;

    VIRTQUEUE_LOOK();
    wish.word = __atomic_load_n((const uint32_t *)queue->available, __ATOMIC_ACQUIRE);
    unsigned flags = wish.event.flags & 3;
    if (flags != VIRTQUEUE_EVENT_DESCRIPTOR || !queue->event_index) {
        return flags != VIRTQUEUE_EVENT_DISABLE;
    }
    if (queue->used_order - since >= queue->size) {
        return true; /* every descriptor there is was among them */
    }
    /* The position of that name in this lap or, with the other wrap counter, in the last. */
    uint64_t event = queue->used_order - queue->used_order % queue->size;
    event += wish.event.descriptor & 0x7fff;
    if (!!(wish.event.descriptor & 0x8000) != ring_wrap(queue, queue->used_order)) {
        event -= queue->size;
    }
    return event - since < queue->used_order - since;
}

static void packed_kicks(struct virtqueue *queue, enum virtqueue_kicks kicks, unsigned offset)
{
    uint64_t order = queue->next_order + offset;
    union event_word wish = {.event = {.flags = VIRTQUEUE_EVENT_DISABLE}};

    if (kicks == VIRTQUEUE_KICKS_ON) {
        wish.event.flags = VIRTQUEUE_EVENT_ENABLE;
        if (queue->event_index) {
            wish.event.flags = VIRTQUEUE_EVENT_DESCRIPTOR;
            wish.event.descriptor =
                (uint16_t)(order % queue->size | (ring_wrap(queue, order) ? 0x8000 : 0));
        }
    }
    __atomic_store_n((uint32_t *)queue->used, wish.word, __ATOMIC_RELEASE);
}

const struct virtqueue_layout virtqueue_packed = {
    .overrun = "more descriptors offered than the ring has",
    .attach = packed_attach,
    .has = packed_has,
    .extent = packed_extent,
    .read = packed_read,
    .enter = packed_enter,
    .resume = packed_resume,
    .leave = packed_leave,
    .adopt = packed_adopt,
    .adopted = packed_adopted,
    .show = packed_show,
    .shown = packed_shown,
    .show_stream = packed_show_stream,
    .recover_stream = packed_recover_stream,
    .event = packed_event,
    .kicks = packed_kicks,
};
