/*
 * The backend that is a qcow2 image, on the same files and threads as raw disks.
 *
 * What is asked of clusters that are there and whose tables are cached is translated on the main
 * thread and goes on to the file's own backend: io_uring, or what else that uses. Everything else
 * (a table to be read, clusters to be allocated, copied, emptied, decompressed) is done by threads,
 * which wait; the library sees to their order. See docs/design/qcow2.md.
 */
#include "devd/block/qcow2/disk.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Allocations wait for barriers, which they share: so many at once. */
#define THREADS 16

static struct qcow2_disk *disk_of(struct block *block)
{
    return (struct qcow2_disk *)block;
}

/* ---- What threads do ---- */

static int perform_resize(struct qcow2 *image, const struct block_request *request)
{
    struct error err;

    error_clear(&err);
    if (qcow2_resize(image, request->length, &err) == 0) {
        return 0;
    }
    log_warning("%s", err.message);
    return err.cause ? -err.cause : -EIO;
}

static int perform(struct qcow2 *image, struct block_request *request)
{
    uint64_t done = request->left_offset - request->offset;

    switch (request->operation) {
    case BLOCK_READ:
        return qcow2_read(image, request->left_offset, request->length - done, request->vectors,
                          request->vector_count);
    case BLOCK_WRITE:
        return qcow2_write(image, request->left_offset, request->length - done, request->vectors,
                           request->vector_count, request->durable);
    case BLOCK_DISCARD:
        return qcow2_discard(image, request->offset, request->length);
    case BLOCK_WRITE_ZEROES:
        return qcow2_write_zeroes(image, request->offset, request->length, request->unmap,
                                  request->durable);
    case BLOCK_RESIZE:
        return perform_resize(image, request);
    case BLOCK_FLUSH:
        break;
    }
    return qcow2_flush(image);
}

static struct block_request *request_of(struct work *work)
{
    return (struct block_request *)((char *)work - offsetof(struct block_request, work));
}

static void work_run(struct work *work)
{
    struct block_request *request = request_of(work);
    request->status = perform(disk_of(request->block)->layers[0].image, request);
}

static void work_done(struct work *work)
{
    struct block_request *request = request_of(work);
    block_finish(request, request->status);
}

void qcow2_to_worker(struct qcow2_disk *disk, struct block_request *request)
{
    request->work.run = work_run;
    request->work.done = work_done;
    workers_submit(disk->workers, &request->work);
}

static void disk_settled(void *context)
{
    struct qcow2_disk *disk = context;
    disk->block.settled(disk->block.context);
}

/* ---- The block interface ---- */

static void disk_submit(struct block *block, struct block_request *request)
{
    struct qcow2_disk *disk = disk_of(block);

    request->next = NULL;
    *disk->last = request;
    disk->last = &request->next;
}

static struct block_request *disk_next(struct qcow2_disk *disk)
{
    struct block_request *request = disk->first;

    if (request) {
        disk->first = request->next;
        if (!disk->first) {
            disk->last = &disk->first;
        }
    }
    return request;
}

static void disk_start(struct block *block)
{
    struct qcow2_disk *disk = disk_of(block);
    struct block_request *request;

    if (disk->starting) {
        return; /* from a request's end: the loop below takes it */
    }
    disk->starting = true;
    do {
        while ((request = disk_next(disk))) {
            if (request->operation > BLOCK_WRITE || !qcow2_transfer_begin(disk, request)) {
                qcow2_to_worker(disk, request);
            }
        }
        for (unsigned i = 0; i < disk->layer_count; i++) {
            block_start(disk->layers[i].file);
        }
    } while (disk->first);
    disk->starting = false;
}

static int disk_measure(struct block *block)
{
    struct qcow2_disk *disk = disk_of(block);

    block->size = disk->layers[0].size = qcow2_size(disk->layers[0].image);
    return 0;
}

static int disk_flush(struct block *block)
{
    return qcow2_flush(disk_of(block)->layers[0].image);
}

static void disk_close(struct block *block)
{
    struct qcow2_disk *disk = disk_of(block);

    /* First whoever may use the images. */
    workers_destroy(disk->workers);
    for (unsigned i = 0; i < disk->layer_count; i++) {
        block_close(disk->layers[i].file);
    }
    qcow2_transfers_free(disk);
    for (unsigned i = 0; i < disk->layer_count; i++) {
        qcow2_close(disk->layers[i].image);
    }
    free(disk);
}

static const struct block_operations qcow2_operations = {
    .submit = disk_submit,
    .start = disk_start,
    .measure = disk_measure,
    .flush = disk_flush,
    .close = disk_close,
};

/* ---- Open ---- */

/* The image, or what is under it: `number` 0 is the image. */
static int layer_open(struct qcow2_disk *disk, const struct block_image *image,
                      const struct block_settings *settings, struct event_base *base,
                      struct error *err)
{
    unsigned number = disk->layer_count++;
    struct qcow2_layer *layer = &disk->layers[number];
    const struct block_settings file = {
        .read_only = number || settings->read_only,
        .threads = settings->threads,
        .format = image->format,
    };
    char name[32];

    snprintf(name, sizeof(name), number ? "backing file %u" : "the disk", number);
    layer->file = block_file_open(image->fd, &file, base, err);
    if (!layer->file) {
        return err->code ? -(int)err->code : -ERROR_DISK;
    }
    layer->file->settled = disk_settled;
    layer->file->context = disk;
    layer->size = layer->file->size;
    if (image->format == BLOCK_FORMAT_QCOW2) {
        layer->image = qcow2_open(image->fd, name, layer->file->read_only, err);
        if (!layer->image) {
            return err->code ? -(int)err->code : -ERROR_DISK;
        }
        layer->size = qcow2_size(layer->image);
    }
    return 0;
}

static int layers_open(struct qcow2_disk *disk, int fd, const struct block_settings *settings,
                       struct event_base *base, struct error *err)
{
    const struct block_image image = {fd, BLOCK_FORMAT_QCOW2};
    int status = layer_open(disk, &image, settings, base, err);

    for (unsigned i = 0; i < settings->backing_count && i < BLOCK_BACKINGS_MAX && status == 0;
         i++) {
        status = layer_open(disk, &settings->backings[i], settings, base, err);
    }
    for (unsigned i = 0; i + 1 < disk->layer_count && status == 0; i++) {
        const struct qcow2_layer *under = &disk->layers[i + 1];
        const struct qcow2_backing backing = {
            .image = under->image,
            .fd = under->image ? -1 : settings->backings[i].fd,
            .size = under->size,
        };
        if (!disk->layers[i].image) {
            return error_set(err, ERROR_CONFIG, 0, "something lies under a raw image");
        }
        qcow2_set_backing(disk->layers[i].image, &backing);
    }
    return status;
}

static void disk_describe(struct qcow2_disk *disk)
{
    struct block *block = &disk->block;
    const struct qcow2_layer *layer = &disk->layers[0];
    unsigned under = disk->layer_count - 1;
    char backings[32] = "";

    if (under) {
        snprintf(backings, sizeof(backings), " over %u file%s", under, under == 1 ? "" : "s");
    }
    block->size = layer->size;
    block->read_only = layer->file->read_only;
    block->can_discard = block->can_zero = block->can_resize = !block->read_only;
    block->logical_bytes = BLOCK_SECTOR;
    block->physical_bytes = layer->file->physical_bytes;
    block->discard_bytes = qcow2_cluster_bytes(layer->image);
    snprintf(block->described, sizeof(block->described), "qcow2%s, %.30s", backings,
             layer->file->described);
}

struct block *block_qcow2_open(int fd, const struct block_settings *settings,
                               struct event_base *base, struct error *err)
{
    struct qcow2_disk *disk = calloc(1, sizeof(*disk));

    if (!disk) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the disk");
        return NULL;
    }
    disk->block.operations = &qcow2_operations;
    disk->last = &disk->first;
    int status = layers_open(disk, fd, settings, base, err);
    if (status == 0) {
        disk->workers = workers_create(base, THREADS, disk_settled, disk);
        if (!disk->workers) {
            status =
                error_set(err, ERROR_INTERNAL, errno, "cannot start threads: %s", strerror(errno));
        }
    }
    if (status < 0) {
        disk_close(&disk->block);
        return NULL;
    }
    disk_describe(disk);
    return &disk->block;
}
