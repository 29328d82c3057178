/* Descriptors to buffers, and the bytes in them: the same for every layout. */
#include "libshared/base/vectors.h"
#include "libshared/virtio/layout.h"
#include <errno.h>
#include <string.h>

int virtqueue_break(struct virtqueue *queue, const char *fault)
{
    if (!queue->fault) {
        queue->fault = fault;
    }
    return -EPROTO;
}

void virtqueue_chain_begin(struct virtqueue_chain *chain)
{
    memset(chain, 0, offsetof(struct virtqueue_chain, segments));
}

int virtqueue_chain_add(struct virtqueue *queue, struct virtqueue_chain *chain, uint64_t address,
                        uint32_t length, bool writable)
{
    if (!writable && chain->writable_count) {
        return virtqueue_break(queue, "readable buffer after a writable one");
    }
    if (length == 0) {
        return 0;
    }
    unsigned index = chain->readable_count + chain->writable_count;
    if (index >= VIRTIO_QUEUE_SIZE_MAX) {
        return virtqueue_break(queue, "too many buffers in a chain");
    }
    void *host = memory_pointer(queue->memory, address, length);
    if (!host) {
        return virtqueue_break(queue, "buffer outside memory");
    }
    chain->segments[index].iov_base = host;
    chain->segments[index].iov_len = length;
    chain->addresses[index] = address;
    if (writable) {
        chain->writable_count++;
        chain->writable_bytes += length;
    } else {
        chain->readable_count++;
        chain->readable_bytes += length;
    }
    /* Section 2.7.5: a chain is no longer than 2^32 bytes; so a used length always fits. */
    if (chain->readable_bytes + chain->writable_bytes > UINT32_MAX) {
        return virtqueue_break(queue, "chain longer than 4 GiB");
    }
    return 0;
}

const uint8_t *virtqueue_chain_table(struct virtqueue *queue, struct virtqueue_chain *chain,
                                     uint64_t address, uint32_t length, unsigned *count)
{
    const uint8_t *table = NULL;

    *count = length / VIRTQUEUE_DESCRIPTOR_BYTES;
    /* A driver may use longer tables than its queue has entries, as stock ones do that made
     * their queue smaller; not longer than the largest queue. */
    if (length == 0 || length % VIRTQUEUE_DESCRIPTOR_BYTES || *count > VIRTIO_QUEUE_SIZE_MAX) {
        virtqueue_break(queue, "indirect table of an impossible size");
        return NULL;
    }
    table = memory_pointer(queue->memory, address, length);
    if (!table) {
        virtqueue_break(queue, "indirect table outside memory");
        return NULL;
    }
    chain->table_address = address;
    chain->table_length = length;
    return table;
}

void virtqueue_chain_copy(struct virtqueue_chain *to, const struct virtqueue_chain *from)
{
    unsigned count = from->readable_count + from->writable_count;
    memcpy(to, from, offsetof(struct virtqueue_chain, segments));
    memcpy(to->segments, from->segments, count * sizeof(from->segments[0]));
    memcpy(to->addresses, from->addresses, count * sizeof(from->addresses[0]));
}

size_t virtqueue_chain_read(const struct virtqueue_chain *chain, uint64_t offset, void *to,
                            size_t size)
{
    return vectors_get(chain->segments, chain->readable_count, offset, to, size);
}

size_t virtqueue_chain_write(const struct virtqueue_chain *chain, uint64_t offset, const void *from,
                             size_t size)
{
    return vectors_put(chain->segments + chain->readable_count, chain->writable_count, offset, from,
                       size);
}
