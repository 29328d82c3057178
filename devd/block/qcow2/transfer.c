/*
 * Reads, and writes in place, of which all tables are cached: their parts go straight to the files
 * that have them, like requests of a raw disk.
 */
#include "devd/block/qcow2/disk.h"
#include "libshared/base/vectors.h"
#include <errno.h>
#include <stdlib.h>

#define PARTS_MAX 16

/* Where a piece of a request is. */
struct place {
    unsigned layer;
    bool zeroes;
    uint64_t offset, length; /* in the layer's file */
    qcow2_use use;
};

struct qcow2_transfer {
    struct qcow2_transfer *next_free, *next; /* in lists of the disk */
    struct qcow2_disk *disk;
    struct block_request *request;
    unsigned left; /* parts that are not done */
    int status;
    unsigned part_count;
    struct part {
        struct block_request request;
        struct qcow2_transfer *transfer;
        qcow2_use use;
        unsigned layer;
        struct iovec *own; /* its vectors, when they are no others' */
    } parts[PARTS_MAX];
};

static struct qcow2_transfer *transfer_take(struct qcow2_disk *disk)
{
    struct qcow2_transfer *transfer = disk->free;

    if (transfer) {
        disk->free = transfer->next_free;
        return transfer;
    }
    transfer = calloc(1, sizeof(*transfer));
    if (transfer) {
        transfer->disk = disk;
        transfer->next = disk->all;
        disk->all = transfer;
    }
    return transfer;
}

void qcow2_transfers_free(struct qcow2_disk *disk)
{
    while (disk->all) {
        struct qcow2_transfer *transfer = disk->all;
        disk->all = transfer->next;
        for (unsigned i = 0; i < transfer->part_count; i++) {
            free(transfer->parts[i].own);
        }
        free(transfer);
    }
}

/* ---- Where it is ---- */

static void place_release(const struct qcow2_disk *disk, const struct place *place)
{
    if (!place->zeroes && disk->layers[place->layer].image) {
        qcow2_release(disk->layers[place->layer].image, place->use);
    }
}

/* The place of the beginning of a range of the disk, in whatever layer has it. */
static int place_find(const struct qcow2_disk *disk, uint64_t offset, uint64_t length, bool write,
                      struct place *place)
{
    for (unsigned i = 0; i < disk->layer_count; i++) {
        const struct qcow2_layer *layer = &disk->layers[i];
        struct qcow2_extent extent;

        if (offset >= layer->size) {
            break;
        }
        length = length < layer->size - offset ? length : layer->size - offset;
        *place = (struct place){.layer = i, .offset = offset, .length = length};
        if (!layer->image) {
            return 0;
        }
        int status = qcow2_map_cached(layer->image, offset, length, write, &extent, &place->use);
        if (status < 0) {
            return status;
        }
        length = extent.length;
        place->length = length;
        place->offset = extent.host;
        if (extent.kind == QCOW2_DATA && (!write || extent.writable)) {
            return 0;
        }
        qcow2_release(layer->image, place->use);
        if (write || extent.kind == QCOW2_PACKED) {
            return -EAGAIN;
        }
        if (extent.kind == QCOW2_ZEROES) {
            break;
        }
    }
    *place = (struct place){.zeroes = true, .length = length};
    return 0;
}

/* All parts of what is left of a request. Their number; 0: not without waiting. */
static unsigned places_find(const struct qcow2_disk *disk, const struct block_request *request,
                            struct place *places)
{
    uint64_t end = request->offset + request->length, at = request->left_offset;
    bool write = request->operation == BLOCK_WRITE;
    unsigned count = 0;

    while (at < end) {
        if (count == PARTS_MAX || place_find(disk, at, end - at, write, &places[count]) < 0) {
            while (count) {
                place_release(disk, &places[--count]);
            }
            return 0;
        }
        at += places[count++].length;
    }
    return count;
}

/* ---- Parts ---- */

static void transfer_end(struct qcow2_transfer *transfer)
{
    struct qcow2_disk *disk = transfer->disk;
    struct block_request *request = transfer->request;
    int status = transfer->status;

    transfer->part_count = 0;
    transfer->next_free = disk->free;
    disk->free = transfer;
    if (status < 0 && request->operation == BLOCK_READ) {
        /* The file may end in the middle of its last cluster, the rest of which is zeroes; with
         * direct access, in the middle of a block. */
        qcow2_to_worker(disk, request);
        return;
    }
    block_finish(request, status);
}

static void part_done(struct block_request *request)
{
    struct part *part = (struct part *)request;
    struct qcow2_transfer *transfer = part->transfer;
    struct qcow2 *image = transfer->disk->layers[part->layer].image;

    if (image) {
        qcow2_release(image, part->use);
    }
    free(part->own);
    part->own = NULL;
    if (request->status < 0) {
        transfer->status = request->status;
    }
    if (--transfer->left == 0) {
        transfer_end(transfer);
    }
}

static bool part_prepare(struct qcow2_transfer *transfer, const struct place *place, uint64_t skip)
{
    struct part *part = &transfer->parts[transfer->part_count];
    const struct block_request *request = transfer->request;
    unsigned count = vectors_cut(request->vectors, request->vector_count, skip, place->length, NULL,
                                 request->vector_count);

    /* The vectors of a part are used up, those of the request may be needed again. */
    struct iovec *own = malloc(count * sizeof(own[0]));
    if (!own) {
        return false;
    }
    vectors_cut(request->vectors, request->vector_count, skip, place->length, own, count);
    *part = (struct part){
        .request = {.operation = request->operation,
                    .durable = request->durable,
                    .offset = place->offset,
                    .length = place->length,
                    .vectors = own,
                    .vector_count = count,
                    .done = part_done},
        .transfer = transfer,
        .use = place->use,
        .layer = place->layer,
        .own = own,
    };
    transfer->part_count++;
    return true;
}

static bool parts_prepare(struct qcow2_transfer *transfer, const struct place *places,
                          unsigned count)
{
    uint64_t skip = 0;

    transfer->part_count = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!places[i].zeroes && !part_prepare(transfer, &places[i], skip)) {
            while (transfer->part_count) {
                free(transfer->parts[--transfer->part_count].own);
            }
            return false;
        }
        skip += places[i].length;
    }
    return true;
}

bool qcow2_transfer_begin(struct qcow2_disk *disk, struct block_request *request)
{
    struct place places[PARTS_MAX];
    unsigned count = places_find(disk, request, places);
    struct qcow2_transfer *transfer = count ? transfer_take(disk) : NULL;
    uint64_t skip = 0;

    if (transfer) {
        transfer->request = request;
        transfer->status = 0;
    }
    if (!transfer || !parts_prepare(transfer, places, count)) {
        for (unsigned i = 0; i < count; i++) {
            place_release(disk, &places[i]);
        }
        if (transfer) {
            transfer->next_free = disk->free;
            disk->free = transfer;
        }
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        if (places[i].zeroes) {
            vectors_clear(request->vectors, request->vector_count, skip, places[i].length);
        }
        skip += places[i].length;
    }
    unsigned parts = transfer->part_count;
    transfer->left = parts;
    for (unsigned i = 0; i < parts; i++) {
        block_submit(disk->layers[transfer->parts[i].layer].file, &transfer->parts[i].request);
    }
    if (!parts) {
        transfer_end(transfer);
    }
    return true;
}
