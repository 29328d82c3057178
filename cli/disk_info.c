/* vmctl disk info: what an image is, and with --chain what it is laid over. */
#include "cli/disk_image.h"

#include "cli/output.h"
#include "cli/values.h"
#include "libshared/disk/chain.h"
#include "libshared/disk/image_lock.h"
#include "libshared/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct disk_info {
    const char *path;
    bool qcow2, in_use;
    uint64_t size, file_bytes, used_bytes;
    struct qcow2_header header;
    char *backing; /* its path, or NULL */
    struct qcow2_snapshot *snapshots;
    unsigned snapshot_count;
};

static void info_release(struct disk_info *info)
{
    free(info->backing);
    free(info->snapshots);
}

static int take_qcow2(struct disk_info *info, int fd, struct error *err)
{
    unsigned count;
    struct qcow2 *image = qcow2_open(fd, info->path, true, err);

    if (image == NULL) {
        return -(int)err->code;
    }
    info->header = *qcow2_header(image);
    info->size = info->header.size;
    const struct qcow2_snapshot *snapshots = qcow2_snapshots(image, &count);
    info->snapshots = calloc(count ? count : 1, sizeof(snapshots[0]));
    if (info->snapshots != NULL && count) {
        memcpy(info->snapshots, snapshots, count * sizeof(snapshots[0]));
        info->snapshot_count = count;
    }
    if (info->header.backing[0]) {
        info->backing = disk_path_from(info->path, info->header.backing);
    }
    qcow2_close(image);
    return 0;
}

static int info_take(struct disk_info *info, const char *path, int fd, bool qcow2,
                     struct error *err)
{
    struct stat status;
    int64_t bytes = qcow2_file_size(fd);

    memset(info, 0, sizeof(*info));
    info->path = path;
    info->qcow2 = qcow2;
    if (bytes < 0 || fstat(fd, &status) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot look at '%.150s': %s", path,
                         strerror(errno));
    }
    info->size = info->file_bytes = (uint64_t)bytes;
    info->used_bytes = (uint64_t)status.st_blocks * 512;
    return qcow2 ? take_qcow2(info, fd, err) : 0;
}

static json_t *snapshots_json(const struct disk_info *info)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < info->snapshot_count; i++) {
        const struct qcow2_snapshot *snapshot = &info->snapshots[i];
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:I, s:I, s:I}", "id", output_json_text(snapshot->id),
                            "name", output_json_text(snapshot->name), "seconds",
                            (json_int_t)snapshot->seconds, "size", (json_int_t)snapshot->disk_size,
                            "state_bytes", (json_int_t)snapshot->state_size));
    }
    return list;
}

static json_t *info_json(const struct disk_info *info)
{
    const struct qcow2_header *header = &info->header;
    json_t *object =
        json_pack("{s:o, s:s, s:I, s:I, s:I, s:b}", "path", output_json_text(info->path), "format",
                  info->qcow2 ? "qcow2" : "raw", "size", (json_int_t)info->size, "file_bytes",
                  (json_int_t)info->file_bytes, "used_bytes", (json_int_t)info->used_bytes,
                  "in_use", info->in_use);

    if (object == NULL || !info->qcow2) {
        return object;
    }
    json_t *more =
        json_pack("{s:i, s:I, s:i, s:s, s:b, s:b, s:b, s:o}", "version", (int)header->version,
                  "cluster_bytes", (json_int_t)1 << header->cluster_bits, "refcount_bits",
                  1 << header->refcount_order, "compression",
                  header->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "deflate", "dirty",
                  !!(header->incompatible & QCOW2_DIRTY), "corrupt",
                  !!(header->incompatible & QCOW2_CORRUPT), "lazy_refcounts",
                  !!(header->compatible & QCOW2_LAZY_REFCOUNTS), "snapshots", snapshots_json(info));
    json_object_update(object, more);
    json_decref(more);
    if (info->backing != NULL) {
        json_object_set_new(object, "backing", output_json_text(header->backing));
        json_object_set_new(object, "backing_path", output_json_text(info->backing));
        json_object_set_new(object, "backing_format", output_json_text(header->backing_format));
    }
    return object;
}

static void print_line(const char *label, const char *value)
{
    printf("%-13s", label);
    output_printable(stdout, value);
    putchar('\n');
}

static void print_size(const char *label, uint64_t bytes)
{
    char size[32], text[64];

    value_format_size(bytes, size, sizeof(size));
    snprintf(text, sizeof(text), "%s (%llu bytes)", size, (unsigned long long)bytes);
    print_line(label, text);
}

static void print_qcow2(const struct disk_info *info)
{
    const struct qcow2_header *header = &info->header;
    char text[256], size[32];

    value_format_size(UINT64_C(1) << header->cluster_bits, size, sizeof(size));
    snprintf(text, sizeof(text), "version %u, clusters of %s, counts of %u bits, %s%s%s%s",
             header->version, size, 1u << header->refcount_order,
             header->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "deflate",
             header->compatible & QCOW2_LAZY_REFCOUNTS ? ", lazy refcounts" : "",
             header->incompatible & QCOW2_DIRTY ? ", was not closed" : "",
             header->incompatible & QCOW2_CORRUPT ? ", marked as damaged" : "");
    print_line("Details:", text);
    if (info->backing != NULL) {
        print_line("Backing:", info->backing);
        print_line("",
                   header->backing_format[0] ? header->backing_format : "(its format is not said)");
    }
    for (unsigned i = 0; i < info->snapshot_count; i++) {
        const struct qcow2_snapshot *snapshot = &info->snapshots[i];
        time_t when = (time_t)snapshot->seconds;
        struct tm local;
        char date[40] = "?";
        if (localtime_r(&when, &local) != NULL) {
            strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &local);
        }
        snprintf(text, sizeof(text), "%s  %s  %s", snapshot->id, snapshot->name, date);
        print_line("Snapshot:", text);
    }
}

static void info_print(const struct disk_info *info)
{
    print_line("Image:", info->path);
    print_line("Format:", info->qcow2 ? "qcow2" : "raw");
    print_size("Size:", info->size);
    print_size("On the host:", info->used_bytes);
    if (info->in_use) {
        print_line("In use:", "yes");
    }
    if (info->qcow2) {
        print_qcow2(info);
    }
}

/* Show one file. */
static int show(const struct invocation *invocation, const char *path, int fd, bool qcow2,
                bool first, json_t *list, struct error *err)
{
    struct disk_info info;
    int status = info_take(&info, path, fd, qcow2, err);

    if (status == 0) {
        info.in_use = first && image_lock(fd, path, true, NULL) == -ERROR_BUSY;
        if (invocation->globals->json) {
            json_array_append_new(list, info_json(&info));
        } else {
            if (!first) {
                putchar('\n');
            }
            info_print(&info);
        }
    }
    info_release(&info);
    return status;
}

static int show_chain(const struct invocation *invocation, const char *path, int fd, json_t *list,
                      struct error *err)
{
    struct disk_chain chain;
    int status = disk_open_chain(&chain, fd, path, invocation->settings, err);

    if (status < 0) {
        return status;
    }
    for (unsigned i = 1; i < chain.count && status == 0; i++) {
        const struct disk_layer *layer = &chain.layers[i];
        status = show(invocation, layer->path, layer->fd, layer->qcow2, false, list, err);
    }
    disk_chain_close(&chain);
    return status;
}

int disk_image_info(const struct invocation *invocation, const char *file, struct error *err)
{
    const struct disk_options *options = invocation->settings;
    char *path = options_absolute_path("disk", file, err);
    int fd = path == NULL ? -ERROR_USAGE : disk_open_file(path, false, err);
    int status = fd < 0 ? fd : 0;
    json_t *list = json_array();

    if (status == 0) {
        /* Only shown: here what the file says of itself is good enough. */
        bool qcow2 = options->format != NULL ? strcmp(options->format, "qcow2") == 0
                                             : disk_has_qcow2_magic(fd) || disk_is_qcow2_name(path);
        status = show(invocation, path, fd, qcow2, true, list, err);
        if (status == 0 && options->chain && qcow2) {
            status = show_chain(invocation, path, fd, list, err);
        }
    }
    if (status == 0 && invocation->globals->json) {
        status = output_json(
            options->chain ? json_incref(list) : json_incref(json_array_get(list, 0)), err);
    } else if (status == 0) {
        status = output_flush(err);
    }
    json_decref(list);
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    return status;
}
