/* Compressed clusters: raw deflate streams, or zstd frames. The last few are kept. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

void qcow2_packed_place(const struct qcow2 *image, uint64_t descriptor, uint64_t *offset,
                        uint64_t *bytes)
{
    unsigned shift = 62 - (image->cluster_bits - 8);
    uint64_t sectors =
        ((descriptor >> shift) & ((UINT64_C(1) << (image->cluster_bits - 8)) - 1)) + 1;

    *offset = descriptor & ((UINT64_C(1) << shift) - 1);
    *bytes = sectors * QCOW2_SECTOR - (*offset & (QCOW2_SECTOR - 1));
}

/* What a frame may have the decoder remember, by the logarithm: 8 MiB, which RFC 8878 (3.1.1.1.2)
 * recommends to support, and more than any cluster has. An image could ask for 128 MiB. */
#define ZSTD_WINDOW_BITS 23

static int inflate_cluster(uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    z_stream stream = {
        .next_in = in, .avail_in = (uInt)in_bytes, .next_out = out, .avail_out = (uInt)out_bytes};

    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
        return -ENOMEM;
    }
    int status = inflate(&stream, Z_FINISH);
    /* Behind the stream there may be other bytes; without an end, all of a cluster must be there.
     */
    bool good = (status == Z_STREAM_END || status == Z_BUF_ERROR) && stream.avail_out == 0;
    inflateEnd(&stream);
    return good ? 0 : -EIO;
}

/* Under the lock: one state for all clusters. */
static int expand_cluster(struct qcow2 *image, const uint8_t *in, size_t in_bytes, uint8_t *out,
                          size_t out_bytes)
{
    ZSTD_inBuffer input = {in, in_bytes, 0};
    ZSTD_outBuffer output = {out, out_bytes, 0};

    if (!image->expander) {
        image->expander = ZSTD_createDStream();
    }
    if (!image->expander) {
        return -ENOMEM;
    }
    ZSTD_DCtx_reset(image->expander, ZSTD_reset_session_only);
    bool good = !ZSTD_isError(
        ZSTD_DCtx_setParameter(image->expander, ZSTD_d_windowLogMax, ZSTD_WINDOW_BITS));
    while (good && output.pos < output.size) {
        size_t before = input.pos + output.pos;
        size_t left = ZSTD_decompressStream(image->expander, &output, &input);
        good = !ZSTD_isError(left) && input.pos + output.pos != before;
    }
    return good ? 0 : -EIO;
}

static int unpack_into(struct qcow2 *image, uint64_t descriptor, uint8_t *out)
{
    uint64_t offset, bytes, end;
    int64_t file = qcow2_file_size(image->io.fd);

    qcow2_packed_place(image, descriptor, &offset, &bytes);
    if (file < 0) {
        return (int)file;
    }
    end = (uint64_t)file;
    if (offset >= end) {
        pthread_mutex_lock(&image->lock);
        int status = qcow2_damaged_locked(image, "a compressed cluster is beyond the file", offset);
        pthread_mutex_unlock(&image->lock);
        return status;
    }
    bytes = bytes < end - offset ? bytes : end - offset; /* the last sector may be cut */
    uint8_t *in = malloc(bytes);
    if (!in) {
        return -ENOMEM;
    }
    int status = qcow2_io_read(&image->io, in, bytes, offset);
    if (status == 0) {
        status = image->header.compression == QCOW2_COMPRESSION_ZSTD
                     ? expand_cluster(image, in, bytes, out, image->cluster_bytes)
                     : inflate_cluster(in, bytes, out, image->cluster_bytes);
    }
    free(in);
    return status;
}

/* The place of a decompressed cluster: one that has it, or the one unused for longest. */
static struct qcow2_unpacked *unpacked_choose(struct qcow2 *image, uint64_t descriptor)
{
    struct qcow2_unpacked *oldest = &image->unpacked[0];

    for (unsigned i = 0; i < QCOW2_UNPACKED; i++) {
        struct qcow2_unpacked *unpacked = &image->unpacked[i];
        if (unpacked->descriptor == descriptor) {
            return unpacked;
        }
        oldest = unpacked->used < oldest->used ? unpacked : oldest;
    }
    return oldest;
}

int qcow2_unpack(struct qcow2 *image, uint64_t descriptor, uint64_t skip, uint64_t size,
                 const struct iovec *vectors, unsigned count)
{
    int status = 0;

    pthread_mutex_lock(&image->unpack_lock);
    struct qcow2_unpacked *unpacked = unpacked_choose(image, descriptor);
    if (unpacked->descriptor != descriptor) {
        unpacked->descriptor = 0;
        if (!unpacked->data) {
            unpacked->data = malloc(image->cluster_bytes);
        }
        status = unpacked->data ? unpack_into(image, descriptor, unpacked->data) : -ENOMEM;
        unpacked->descriptor = status == 0 ? descriptor : 0;
    }
    if (status == 0) {
        unpacked->used = ++image->unpack_clock;
        vectors_put(vectors, count, 0, unpacked->data + skip, size);
    }
    pthread_mutex_unlock(&image->unpack_lock);
    return status;
}

void qcow2_unpack_close(struct qcow2 *image)
{
    ZSTD_freeDStream(image->expander);
    for (unsigned i = 0; i < QCOW2_UNPACKED; i++) {
        free(image->unpacked[i].data);
    }
}
