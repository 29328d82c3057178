/*
 * Between the parts of the backend that is a qcow2 image: disk.c is the block interface and opens
 * the image with all that lies under it; transfer.c does what needs no waiting for tables.
 */
#ifndef POLYVISOR_DEVD_BLOCK_QCOW2_DISK_H
#define POLYVISOR_DEVD_BLOCK_QCOW2_DISK_H

#include "devd/block/block.h"
#include "libshared/qcow2/qcow2.h"

/* The image, or one of those under it. */
struct qcow2_layer {
    struct qcow2 *image; /* NULL: raw */
    struct block *file;  /* its bytes */
    uint64_t size;       /* of the disk */
};

struct qcow2_transfer;

struct qcow2_disk {
    struct block block;
    struct workers *workers;
    struct qcow2_layer layers[1 + BLOCK_BACKINGS_MAX]; /* the image first */
    unsigned layer_count;
    struct block_request *first, **last; /* submitted, not started */
    bool starting;
    struct qcow2_transfer *free, *all; /* transfers; all of them are freed at the end */
};

/* Have a worker do all that is left of it. */
void qcow2_to_worker(struct qcow2_disk *disk, struct block_request *request);
/* Begin a read or write whose places are known without waiting. False: a worker must do it. */
bool qcow2_transfer_begin(struct qcow2_disk *disk, struct block_request *request);
void qcow2_transfers_free(struct qcow2_disk *disk);

#endif
