/* Split virtqueues: Virtual I/O Device 1.2, section 2.7. A chain takes one position: its entry of
 * the available ring; the log's entry for it has the number of its head descriptor. */
#include "libshared/virtio/layout.h"
#include <errno.h>
#include <string.h>

/* Both areas are arrays of u16 at heart: flags, idx, then the ring, then the other side's event. */
enum area_word { AREA_FLAGS = 0, AREA_INDEX = 1, AREA_RING = 2 };

enum area_flags { AVAILABLE_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

static uint16_t guest_load(const uint16_t *word)
{
    VIRTQUEUE_LOOK();
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void guest_store(uint16_t *word, uint16_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static uint16_t *used_ring(const struct virtqueue *queue, uint64_t order)
{
    return queue->used + AREA_RING + 4u * ((uint16_t)order & (queue->size - 1u));
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

static int split_attach(struct virtqueue *queue, uint64_t driver_area)
{
    uint16_t size = queue->size;

    if ((size & (size - 1)) || queue->descriptor_area % 16 || driver_area % 2 ||
        queue->device_area % 4) {
        return -EINVAL;
    }
    queue->descriptors = memory_pointer(queue->memory, queue->descriptor_area,
                                        size * sizeof(struct virtqueue_descriptor));
    queue->available = memory_pointer(queue->memory, driver_area, available_bytes(size));
    queue->used = memory_pointer(queue->memory, queue->device_area, used_bytes(size));
    return queue->descriptors && queue->available && queue->used ? 0 : -EINVAL;
}

/* ---- Taking ---- */

static int split_has(struct virtqueue *queue, unsigned offset)
{
    uint16_t waiting =
        (uint16_t)(guest_load(&queue->available[AREA_INDEX]) - (uint16_t)queue->next_order);

    return waiting > queue->size ? -EPROTO : offset < waiting;
}

static unsigned split_extent(struct virtqueue *queue, unsigned offset)
{
    (void)queue;
    (void)offset;
    return 1;
}

/* Follow descriptors of one table, at most `budget` of them. With `tail` an indirect descriptor
 * may end the chain: it is copied there and 1 returned. */
static int chain_follow(struct virtqueue *queue, struct virtqueue_chain *chain,
                        const uint8_t *table, unsigned count, unsigned index, unsigned budget,
                        struct virtqueue_descriptor *tail)
{
    for (; budget; budget--) {
        if (index >= count) {
            return virtqueue_break(queue, "descriptor index out of range");
        }
        struct virtqueue_descriptor descriptor;
        VIRTQUEUE_DESCRIPTOR_COPY(&descriptor, table, index);
        if (descriptor.flags & VIRTQUEUE_INDIRECT) {
            if (!tail || !queue->indirect || (descriptor.flags & VIRTQUEUE_NEXT)) {
                return virtqueue_break(queue, "indirect descriptor where none is allowed");
            }
            *tail = descriptor;
            return 1;
        }
        int status = virtqueue_chain_add(queue, chain, descriptor.address, descriptor.length,
                                         descriptor.flags & VIRTQUEUE_WRITE);
        if (status < 0 || !(descriptor.flags & VIRTQUEUE_NEXT)) {
            return status;
        }
        index = descriptor.next;
    }
    return virtqueue_break(queue, "descriptor chain too long or a loop");
}

static int chain_read(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    struct virtqueue_descriptor tail;

    virtqueue_chain_begin(chain);
    chain->head = chain->id = head;
    chain->positions = 1;
    int status =
        chain_follow(queue, chain, queue->descriptors, queue->size, head, queue->size, &tail);
    if (status != 1) {
        return status;
    }
    unsigned count;
    const uint8_t *table = virtqueue_chain_table(queue, chain, tail.address, tail.length, &count);
    return table ? chain_follow(queue, chain, table, count, 0, count, NULL) : -EPROTO;
}

static int split_read(struct virtqueue *queue, unsigned offset, struct virtqueue_chain *chain)
{
    uint16_t index = (uint16_t)(queue->next_order + offset);
    uint16_t head = guest_load(&queue->available[AREA_RING + (index & (queue->size - 1u))]);

    if (head >= queue->size) {
        return virtqueue_break(queue, "head index out of range");
    }
    return chain_read(queue, head, chain);
}

static int split_enter(struct virtqueue *queue, struct virtqueue_chain *chain)
{
    const struct virtio_inflight *entry = &queue->shared->inflight[chain->head];

    if (atomic_load_explicit(&entry->status, memory_order_relaxed) != VIRTIO_FREE) {
        return virtqueue_break(queue, "head offered while it is in flight");
    }
    return 0;
}

static void split_leave(struct virtqueue *queue, uint16_t head)
{
    (void)queue;
    (void)head;
}

static int split_adopt(struct virtqueue *queue, uint16_t head)
{
    return queue->shared->inflight[head].positions == 1 ? 0 : -EPROTO;
}

static int split_adopted(struct virtqueue *queue)
{
    (void)queue;
    return 0;
}

static int split_resume(struct virtqueue *queue, uint16_t head, struct virtqueue_chain *chain)
{
    return chain_read(queue, head, chain);
}

/* ---- Giving back ---- */

static void element_store(struct virtqueue *queue, uint64_t order, uint16_t id, uint32_t length)
{
    const struct virtqueue_used_element value = {.id = id, .length = length};
    memcpy(used_ring(queue, order), &value, sizeof(value));
}

/* `count` elements are in place: let the driver see them. */
static void index_store(struct virtqueue *queue, unsigned count)
{
    memory_device_wrote(queue->memory, queue->device_area, used_bytes(queue->size));
    VIRTQUEUE_STEP();
    guest_store(&queue->used[AREA_INDEX], (uint16_t)(queue->used_order + count));
    VIRTQUEUE_STEP();
}

static void split_show(struct virtqueue *queue, uint16_t id, uint32_t length)
{
    element_store(queue, queue->used_order, id, length);
    index_store(queue, 1);
}

/* How far the used index is ahead of what the shared state says. */
static uint16_t shown_count(const struct virtqueue *queue)
{
    return (uint16_t)(guest_load(&queue->used[AREA_INDEX]) - (uint16_t)queue->used_order);
}

static int split_shown(struct virtqueue *queue)
{
    uint16_t count = shown_count(queue);
    return count > 1 ? virtqueue_break(queue, "used index changed by the driver") : count;
}

static void split_show_stream(struct virtqueue *queue, const uint32_t *lengths, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        element_store(queue, queue->used_order + i, queue->ahead[i].id, lengths[i]);
    }
    index_store(queue, count);
}

static int split_recover_stream(struct virtqueue *queue)
{
    uint16_t count = shown_count(queue);
    return count > queue->size ? virtqueue_break(queue, "used index changed by the driver") : count;
}

/* ---- Notifications ---- */

static bool split_event(struct virtqueue *queue, uint64_t since)
{
    if (!queue->event_index) {
        return !(guest_load(&queue->available[AREA_FLAGS]) & AVAILABLE_NO_INTERRUPT);
    }
    /* Section 2.7.7.2: the entry named lies among those published since. */
    uint16_t event = guest_load(used_event(queue));
    return (uint16_t)(queue->used_order - event - 1) < (uint16_t)(queue->used_order - since);
}

static void split_kicks(struct virtqueue *queue, enum virtqueue_kicks kicks, unsigned offset)
{
    if (!queue->event_index) {
        guest_store(&queue->used[AREA_FLAGS], kicks == VIRTQUEUE_KICKS_OFF ? USED_NO_NOTIFY : 0);
    } else if (kicks == VIRTQUEUE_KICKS_ON) {
        guest_store(available_event(queue), (uint16_t)(queue->next_order + offset));
    } /* off: nothing needs to be said, the entry asked for lies behind */
}

const struct virtqueue_layout virtqueue_split = {
    .overrun = "available index ran ahead",
    .attach = split_attach,
    .has = split_has,
    .extent = split_extent,
    .read = split_read,
    .enter = split_enter,
    .resume = split_resume,
    .leave = split_leave,
    .adopt = split_adopt,
    .adopted = split_adopted,
    .show = split_show,
    .shown = split_shown,
    .show_stream = split_show_stream,
    .recover_stream = split_recover_stream,
    .event = split_event,
    .kicks = split_kicks,
};
