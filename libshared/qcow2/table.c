/* Whole tables of places: big endian in the file, host order in memory. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

int qcow2_table_read(const struct qcow2_io *io, uint64_t offset, uint64_t count, uint64_t **table)
{
    uint64_t *entries = malloc(count ? count * 8 : 8);
    int status = entries ? qcow2_io_read(io, entries, count * 8, offset) : -ENOMEM;

    *table = NULL;
    if (status < 0) {
        free(entries);
        return status;
    }
    for (uint64_t i = 0; i < count; i++) {
        entries[i] = be64toh(entries[i]);
    }
    *table = entries;
    return 0;
}

int qcow2_table_load(const struct qcow2 *image, uint64_t offset, uint64_t count, uint64_t **table,
                     struct error *err)
{
    int status = qcow2_table_read(&image->io, offset, count, table);

    if (status == -ENOMEM) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    return status < 0 ? error_set(err, ERROR_IO, -status, "cannot read '%s': %s", image->name,
                                  strerror(-status))
                      : 0;
}

int qcow2_table_write(struct qcow2 *image, uint64_t offset, uint64_t count, const uint64_t *table)
{
    uint64_t bytes = qcow2_clusters_of(image, count * 8) << image->cluster_bits;
    uint8_t *disk = calloc(1, bytes);

    if (!disk) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < count; i++) {
        qcow2_put64(disk + 8 * i, table[i]);
    }
    int status = qcow2_io_write(&image->io, disk, bytes, offset);
    free(disk);
    return status < 0 ? status : qcow2_io_barrier(&image->io);
}
