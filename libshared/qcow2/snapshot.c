/* The table of internal snapshots. They are kept as they are: what they share with the disk is
 * counted more than once, so writing copies it. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

static int snapshots_refuse(const struct qcow2 *image, struct error *err)
{
    return error_set(err, ERROR_DISK, 0, "qcow2 image '%s' is damaged: its snapshot table",
                     image->name);
}

static void text_take(char *to, size_t room, const uint8_t *from, size_t bytes)
{
    size_t used = bytes < room - 1 ? bytes : room - 1;

    memcpy(to, from, used);
    to[used] = '\0';
}

static int snapshot_take(const struct qcow2 *image, const uint8_t *table, uint64_t bytes,
                         struct qcow2_snapshot *snapshot, uint64_t *used)
{
    struct qcow2_disk_snapshot disk;

    if (bytes < sizeof(disk)) {
        return -EINVAL;
    }
    memcpy(&disk, table, sizeof(disk));
    uint64_t extra = be32toh(disk.extra_bytes), id = be16toh(disk.id_bytes);
    uint64_t name = be16toh(disk.name_bytes), all = sizeof(disk) + extra + id + name;
    if (extra > 1024 || all > bytes) {
        return -EINVAL;
    }
    snapshot->l1_offset = be64toh(disk.l1_offset);
    snapshot->l1_size = be32toh(disk.l1_size);
    snapshot->seconds = be32toh(disk.seconds);
    snapshot->state_size =
        extra >= 8 ? qcow2_get64(table + sizeof(disk)) : be32toh(disk.state_bytes);
    snapshot->disk_size = extra >= 16 ? qcow2_get64(table + sizeof(disk) + 8) : image->header.size;
    text_take(snapshot->id, sizeof(snapshot->id), table + sizeof(disk) + extra, id);
    text_take(snapshot->name, sizeof(snapshot->name), table + sizeof(disk) + extra + id, name);
    if (snapshot->l1_size > QCOW2_L1_BYTES_MAX / 8 ||
        (snapshot->l1_offset & (image->cluster_bytes - 1))) {
        return -EINVAL;
    }
    *used = (all + 7) & ~UINT64_C(7);
    *used = *used < bytes ? *used : bytes;
    return 0;
}

int qcow2_snapshots_load(struct qcow2 *image, struct error *err)
{
    unsigned count = image->header.snapshot_count;
    int64_t file = qcow2_file_size(image->io.fd);
    uint64_t left, at = 0;

    if (!count) {
        return 0;
    }
    if (file < 0 || image->header.snapshots_offset >= (uint64_t)file) {
        return snapshots_refuse(image, err);
    }
    left = (uint64_t)file - image->header.snapshots_offset;
    left = left < QCOW2_SNAPSHOT_TABLE_MAX ? left : QCOW2_SNAPSHOT_TABLE_MAX;
    /* No more than so many entries can take. */
    uint64_t most = (uint64_t)count * (sizeof(struct qcow2_disk_snapshot) + 1024 + 2 * 65536);
    left = left < most ? left : most;
    uint8_t *table = malloc(left);
    image->snapshots = calloc(count, sizeof(image->snapshots[0]));
    if (!table || !image->snapshots) {
        free(table);
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    int status = qcow2_io_read(&image->io, table, left, image->header.snapshots_offset);
    while (status == 0 && image->snapshot_count < count) {
        uint64_t used = 0;
        status = snapshot_take(image, table + at, left - at,
                               &image->snapshots[image->snapshot_count], &used);
        at += used;
        image->snapshot_count += status == 0;
    }
    image->snapshot_bytes = at;
    free(table);
    return status < 0 ? snapshots_refuse(image, err) : 0;
}

const struct qcow2_snapshot *qcow2_snapshots(const struct qcow2 *image, unsigned *count)
{
    *count = image->snapshot_count;
    return image->snapshots;
}
