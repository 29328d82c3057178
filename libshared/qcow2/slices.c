/* A bounded cache of pieces of tables. What is changed is written at once, so anything may be
 * forgotten at any time. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

int qcow2_slices_open(struct qcow2_slices *cache, struct qcow2_io *io, uint32_t bytes,
                      uint32_t count)
{
    cache->io = io;
    cache->bytes = bytes;
    cache->count = count;
    cache->buckets = 2 * count; /* a power of two, like count */
    cache->slices = calloc(count, sizeof(cache->slices[0]));
    cache->heads = calloc(cache->buckets, sizeof(cache->heads[0]));
    return cache->slices && cache->heads ? 0 : -ENOMEM;
}

void qcow2_slices_close(struct qcow2_slices *cache)
{
    for (uint32_t i = 0; cache->slices && i < cache->count; i++) {
        free(cache->slices[i].data);
    }
    free(cache->slices);
    free(cache->heads);
}

static uint32_t *slice_head(struct qcow2_slices *cache, uint64_t offset)
{
    uint64_t hash = offset / cache->bytes * UINT64_C(0x9e3779b97f4a7c15);
    return &cache->heads[(hash >> 32) & (cache->buckets - 1)];
}

static struct qcow2_slice *slice_find(struct qcow2_slices *cache, uint64_t offset)
{
    for (uint32_t at = *slice_head(cache, offset); at; at = cache->slices[at - 1].next) {
        if (cache->slices[at - 1].offset == offset) {
            return &cache->slices[at - 1];
        }
    }
    return NULL;
}

static void slice_forget(struct qcow2_slices *cache, struct qcow2_slice *slice)
{
    uint32_t number = (uint32_t)(slice - cache->slices) + 1;
    uint32_t *at = slice_head(cache, slice->offset);

    while (*at && *at != number) {
        at = &cache->slices[*at - 1].next;
    }
    *at = slice->next;
    slice->offset = 0;
}

/* One that is free, or the first from the hand on that was not used lately. */
static struct qcow2_slice *slice_victim(struct qcow2_slices *cache)
{
    for (;;) {
        struct qcow2_slice *slice = &cache->slices[cache->hand];
        cache->hand = (cache->hand + 1) % cache->count;
        if (!slice->offset || !slice->used) {
            return slice;
        }
        slice->used = false;
    }
}

static int slice_load(struct qcow2_slices *cache, uint64_t offset, struct qcow2_slice **loaded)
{
    struct qcow2_slice *slice = slice_victim(cache);

    if (slice->offset) {
        slice_forget(cache, slice);
    }
    if (!slice->data && !(slice->data = aligned_alloc(cache->bytes, cache->bytes))) {
        return -ENOMEM;
    }
    int status = qcow2_io_read(cache->io, slice->data, cache->bytes, offset);
    if (status < 0) {
        return status;
    }
    uint32_t *head = slice_head(cache, offset);
    slice->offset = offset;
    slice->next = *head;
    *head = (uint32_t)(slice - cache->slices) + 1;
    *loaded = slice;
    return 0;
}

int qcow2_slice_get(struct qcow2_slices *cache, uint64_t offset, bool wait, uint8_t **data)
{
    uint64_t begin = offset & ~(uint64_t)(cache->bytes - 1);
    struct qcow2_slice *slice = slice_find(cache, begin);
    int status = slice ? 0 : -EAGAIN;

    if (!slice && wait) {
        status = slice_load(cache, begin, &slice);
    }
    if (status == 0) {
        slice->used = true;
        *data = slice->data + (offset - begin);
    }
    return status;
}

int qcow2_slice_write(struct qcow2_slices *cache, uint64_t offset, size_t size)
{
    uint64_t begin = offset & ~(uint64_t)(cache->bytes - 1);
    struct qcow2_slice *slice = slice_find(cache, begin);

    if (!slice) {
        return -EIO;
    }
    uint64_t end = offset + size;
    if (cache->io->direct) { /* whole blocks: what is around it is here, too */
        const uint64_t mask = cache->io->alignment.offset - 1;
        offset &= ~mask;
        end = (end + mask) & ~mask;
    }
    int status =
        qcow2_io_write(cache->io, slice->data + (offset - begin), (size_t)(end - offset), offset);
    if (status < 0) {
        slice_forget(cache, slice);
    }
    return status;
}

void qcow2_slices_drop(struct qcow2_slices *cache, uint64_t offset, uint64_t size)
{
    for (uint64_t at = offset & ~(uint64_t)(cache->bytes - 1); at < offset + size;
         at += cache->bytes) {
        struct qcow2_slice *slice = slice_find(cache, at);
        if (slice) {
            slice_forget(cache, slice);
        }
    }
}
