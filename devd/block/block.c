#include "devd/block/block.h"

/* Not every program has it. */
#pragma weak block_nbd_open

struct block *block_open(int fd, const struct block_settings *settings, struct event_base *base,
                         void (*settled)(void *context), void *context, struct error *err)
{
    struct block *block = NULL;

    if (!settings->nbd) {
        block = settings->format == BLOCK_FORMAT_QCOW2 ? block_qcow2_open(fd, settings, base, err)
                                                       : block_file_open(fd, settings, base, err);
    } else if (block_nbd_open) {
        block = block_nbd_open(fd, settings, base, err);
    } else {
        error_set(err, ERROR_UNSUPPORTED, 0, "this devd has no network disks");
    }
    if (block) {
        block->settled = settled;
        block->context = context;
    }
    return block;
}

void block_close(struct block *block)
{
    if (block) {
        block->operations->close(block);
    }
}

void block_submit(struct block *block, struct block_request *request)
{
    request->left_offset = request->offset;
    block_resume(block, request);
}

void block_resume(struct block *block, struct block_request *request)
{
    request->block = block;
    block->busy++;
    block->operations->submit(block, request);
}

void block_start(struct block *block)
{
    block->operations->start(block);
}

int block_measure(struct block *block)
{
    return block->operations->measure(block);
}

int block_flush(struct block *block)
{
    return block->operations->flush(block);
}

void block_let_go(struct block *block, bool (*is_over)(const struct block_request *request))
{
    if (block->operations->let_go) {
        block->operations->let_go(block, is_over);
    }
}

void block_finish(struct block_request *request, int status)
{
    request->block->busy--;
    request->status = status;
    request->done(request);
}
