#include "cli/disk_image.h"

#include "cli/output.h"
#include "cli/values.h"
#include "libshared/disk/image_lock.h"
#include "libshared/disk/images.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Opening ---- */

static bool wants_qcow2(const struct disk_options *options, const char *path)
{
    return options->format != NULL ? strcmp(options->format, "qcow2") == 0
                                   : disk_is_qcow2_name(path);
}

int disk_open_file(const char *path, bool write, struct error *err)
{
    struct stat status;
    int fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0) {
        return error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_DISK, errno,
                         "cannot open '%.150s': %s", path, strerror(errno));
    }
    if (fstat(fd, &status) < 0 || (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))) {
        close(fd);
        return error_set(err, ERROR_DISK, 0, "'%.150s' is neither a file nor a block device", path);
    }
    return fd;
}

bool disk_has_qcow2_magic(int fd)
{
    char head[8] = {0};

    return pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
           qcow2_is_magic(head, sizeof(head));
}

/* An image's word for what it is laid over is not the user's: see chain.h. */
int disk_open_chain(struct disk_chain *chain, int fd, const char *path,
                    const struct disk_options *options, struct error *err)
{
    char *folder = NULL;

    if (options->backing != NULL && options->backing_folder == NULL) {
        folder = disk_path_from(path, options->backing);
        if (folder == NULL) {
            return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
        }
        char *slash = strrchr(folder, '/');
        slash[slash == folder] = '\0';
    }
    const struct disk_chain_settings settings = {
        .folder = folder != NULL ? folder : options->backing_folder};
    int status = disk_chain_open(chain, fd, path, &settings, err);
    free(folder);
    return status;
}

/* Open and lock. */
static int open_locked(const char *path, bool write, struct error *err)
{
    int fd = disk_open_file(path, write, err);
    int status = fd < 0 ? fd : image_lock(fd, path, !write, err);

    if (status < 0 && fd >= 0) {
        close(fd);
    }
    return status < 0 ? status : fd;
}

/* A raw disk whose beginning says something else is left alone until somebody says that it is raw.
 */
static int check_is_raw(int fd, const char *path, const struct disk_options *options,
                        struct error *err)
{
    if (options->format == NULL && disk_has_qcow2_magic(fd)) {
        error_set(err, ERROR_DISK, 0, "'%.150s' looks like a qcow2 image and has no format", path);
        error_hint(err, "say --format qcow2, or --format raw when a guest wrote that");
        return -ERROR_DISK;
    }
    return 0;
}

/* ---- create ---- */

static int log2_of(uint64_t value)
{
    return value && !(value & (value - 1)) ? __builtin_ctzll(value) : -1;
}

static int check_creation(const struct disk_options *options, bool qcow2, struct error *err)
{
    if (!qcow2 && (options->backing != NULL || options->cluster_bytes != 0)) {
        error_set(err, ERROR_USAGE, 0, "a raw image has neither a backing file nor clusters");
        error_hint(err, "add --format qcow2");
        return -ERROR_USAGE;
    }
    if (options->backing != NULL && options->backing_format == NULL) {
        error_set(err, ERROR_USAGE, 0, "the format of the backing file must be said");
        error_hint(err, "add --backing-format raw or --backing-format qcow2");
        return -ERROR_USAGE;
    }
    if (options->backing == NULL && options->size == 0) {
        error_set(err, ERROR_USAGE, 0, "disk create needs --size");
        error_hint(err, "vmctl disk create FILE --size 20G");
        return -ERROR_USAGE;
    }
    if (options->cluster_bytes != 0 && log2_of(options->cluster_bytes) < 0) {
        return error_set(err, ERROR_USAGE, 0, "the size of a cluster must be a power of two");
    }
    return 0;
}

/* How large what the new image is laid over is. */
static int backing_size(const char *path, const struct disk_options *options, uint64_t *size,
                        struct error *err)
{
    struct qcow2_header header;
    char *name = disk_path_from(path, options->backing);
    int fd = name == NULL ? error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory")
                          : open_locked(name, false, err);
    int status = fd < 0 ? fd : 0;

    if (status == 0 && strcmp(options->backing_format, "qcow2") == 0) {
        status = qcow2_header_read(fd, name, &header, err);
        *size = header.size;
    } else if (status == 0) {
        int64_t bytes = qcow2_file_size(fd);
        *size = bytes > 0 ? (uint64_t)bytes : 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    free(name);
    return status;
}

static int create_raw(int fd, const char *path, uint64_t size, struct error *err)
{
    size = (size + 511) & ~UINT64_C(511);
    if (size > INT64_MAX || ftruncate(fd, (off_t)size) < 0 || fsync(fd) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make '%.150s' so large: %s", path,
                         strerror(errno));
    }
    return 0;
}

static int create_qcow2(int fd, const char *path, const struct disk_options *options, uint64_t size,
                        struct error *err)
{
    const struct qcow2_creation creation = {
        .size = size,
        .cluster_bits = options->cluster_bytes ? (unsigned)log2_of(options->cluster_bytes) : 0,
        .backing = options->backing,
        .backing_format = options->backing != NULL ? options->backing_format : NULL,
    };
    struct disk_chain chain;
    int status = qcow2_create(fd, path, &creation, err);

    if (status == 0 && options->backing != NULL) {
        status = disk_open_chain(&chain, fd, path, options, err); /* does it lead anywhere? */
        if (status == 0) {
            disk_chain_close(&chain);
        }
    }
    return status;
}

static int create_told(const struct invocation *invocation, const char *path, bool qcow2,
                       uint64_t size, struct error *err)
{
    if (invocation->globals->json) {
        return output_json(json_pack("{s:o, s:s, s:I}", "path", output_json_text(path), "format",
                                     qcow2 ? "qcow2" : "raw", "size", (json_int_t)size),
                           err);
    }
    char text[32];
    value_format_size(size, text, sizeof(text));
    output_status(invocation->globals, "%s is a %s disk of %s", path, qcow2 ? "qcow2" : "raw",
                  text);
    return 0;
}

int disk_image_create(const struct invocation *invocation, const char *file, struct error *err)
{
    const struct disk_options *options = invocation->settings;
    bool qcow2 = wants_qcow2(options, file);
    uint64_t size = options->size;
    int status = check_creation(options, qcow2, err);
    char *path = status == 0 ? options_absolute_path("disk", file, err) : NULL;

    if (path == NULL) {
        return status ? status : -ERROR_USAGE;
    }
    if (options->backing != NULL) {
        status = backing_size(path, options, &size, err);
        size = options->size != 0 ? options->size : size;
    }
    int fd = status == 0 ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    if (status == 0 && fd < 0) {
        bool there = errno == EEXIST;
        status = error_set(err, there ? ERROR_EXISTS : ERROR_DISK, errno,
                           "cannot make '%.150s': %s", path, strerror(errno));
        error_hint(err, there ? "choose another name, or remove what is there"
                              : "make it in a folder where you may write");
    }
    if (fd >= 0) {
        status =
            qcow2 ? create_qcow2(fd, path, options, size, err) : create_raw(fd, path, size, err);
        if (status < 0) {
            unlink(path);
        }
        close(fd);
    }
    status = status ? status : create_told(invocation, path, qcow2, size, err);
    free(path);
    return status;
}

/* ---- resize ---- */

static int check_shrink(const char *path, uint64_t old, uint64_t bytes,
                        const struct disk_options *options, struct error *err)
{
    if (bytes >= old || options->shrink) {
        return 0;
    }
    error_set(err, ERROR_CONFIG, 0, "'%.120s' has %llu bytes: what lies beyond %llu would be lost",
              path, (unsigned long long)old, (unsigned long long)bytes);
    error_hint(err, "make the guest's file systems smaller first, then add --shrink");
    return -ERROR_CONFIG;
}

static int resize_raw(int fd, const char *path, uint64_t bytes, const struct disk_options *options,
                      struct error *err)
{
    int64_t old = qcow2_file_size(fd);
    int status = check_is_raw(fd, path, options, err);

    if (status == 0 && bytes % 512 != 0) {
        status = error_set(err, ERROR_CONFIG, 0, "a size must be a multiple of 512 bytes");
    }
    status = status ? status : check_shrink(path, old < 0 ? 0 : (uint64_t)old, bytes, options, err);
    if (status == 0 && (ftruncate(fd, (off_t)bytes) < 0 || fsync(fd) < 0)) {
        status =
            error_set(err, ERROR_IO, errno, "cannot resize '%.150s': %s", path, strerror(errno));
    }
    return status;
}

static int resize_qcow2(int fd, const char *path, uint64_t bytes,
                        const struct disk_options *options, struct error *err)
{
    struct qcow2 *images[DISK_LAYERS_MAX];
    struct disk_chain chain;
    int status = disk_open_chain(&chain, fd, path, options, err);

    if (status < 0) {
        return status;
    }
    status = disk_images_open(&chain, false, images, err);
    if (status == 0) {
        status = check_shrink(path, qcow2_size(images[0]), bytes, options, err);
        status = status ? status : qcow2_resize(images[0], bytes, err);
        disk_images_close(images);
    }
    disk_chain_close(&chain);
    return status;
}

int disk_image_resize(const struct invocation *invocation, const char *file, uint64_t bytes,
                      struct error *err)
{
    const struct disk_options *options = invocation->settings;
    char *path = options_absolute_path("disk", file, err);
    int fd = path == NULL ? -ERROR_USAGE : open_locked(path, true, err);
    int status = fd < 0 ? fd : 0;

    if (status == 0 && wants_qcow2(options, path)) {
        status = resize_qcow2(fd, path, bytes, options, err);
    } else if (status == 0) {
        status = resize_raw(fd, path, bytes, options, err);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (status == 0 && invocation->globals->json) {
        status = output_json(
            json_pack("{s:o, s:I}", "path", output_json_text(path), "bytes", (json_int_t)bytes),
            err);
    } else if (status == 0) {
        char size[32];
        value_format_size(bytes, size, sizeof(size));
        output_status(invocation->globals, "%s is %s large", path, size);
    }
    free(path);
    return status;
}

/* ---- check ---- */

static int check_tell(const struct invocation *invocation, const char *path,
                      const struct qcow2_report *report, struct error *err)
{
    uint64_t errors = report->errors - report->errors_repaired;
    uint64_t leaks =
        report->leaks > report->leaks_repaired ? report->leaks - report->leaks_repaired : 0;
    int status = 0;

    if (invocation->globals->json) {
        status = output_json(
            json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "path", output_json_text(path),
                      "clusters", (json_int_t)report->clusters, "allocated",
                      (json_int_t)report->allocated, "compressed", (json_int_t)report->compressed,
                      "errors", (json_int_t)errors, "leaks", (json_int_t)leaks, "errors_repaired",
                      (json_int_t)report->errors_repaired, "leaks_repaired",
                      (json_int_t)report->leaks_repaired),
            err);
    } else if (!invocation->globals->quiet) {
        printf("%llu clusters in use, %llu of them compressed\n",
               (unsigned long long)report->allocated, (unsigned long long)report->compressed);
        printf("%llu errors, %llu leaked clusters\n", (unsigned long long)errors,
               (unsigned long long)leaks);
        if (report->errors_repaired || report->leaks_repaired) {
            printf("%llu errors and %llu leaked clusters were repaired\n",
                   (unsigned long long)report->errors_repaired,
                   (unsigned long long)report->leaks_repaired);
        }
        status = output_flush(err);
    }
    if (status == 0 && errors != 0) {
        error_set(err, ERROR_DISK, 0, "'%.100s' is damaged: %.120s", path, report->first);
        error_hint(err, "keep a copy, then try --repair all; a disk that is damaged can still be "
                        "read (readonly)");
        status = -ERROR_DISK;
    }
    return status;
}

int disk_image_check(const struct invocation *invocation, const char *file, struct error *err)
{
    const struct disk_options *options = invocation->settings;
    enum qcow2_repair repair = options->repair == NULL               ? QCOW2_REPAIR_NOTHING
                               : strcmp(options->repair, "all") == 0 ? QCOW2_REPAIR_ALL
                                                                     : QCOW2_REPAIR_LEAKS;
    struct qcow2_report report;
    char *path = options_absolute_path("disk", file, err);
    int fd = path == NULL ? -ERROR_USAGE : open_locked(path, repair != QCOW2_REPAIR_NOTHING, err);
    int status = fd < 0 ? fd : 0;

    if (status == 0 && options->format != NULL && strcmp(options->format, "qcow2") != 0) {
        status = error_set(err, ERROR_UNSUPPORTED, 0, "a raw image has nothing to check");
    }
    status = status ? status : qcow2_check(fd, path, repair, &report, err);
    status = status ? status : check_tell(invocation, path, &report, err);
    if (fd >= 0) {
        close(fd);
    }
    free(path);
    return status;
}
