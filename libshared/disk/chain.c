#include "libshared/disk/chain.h"

#include "libshared/disk/image_lock.h"
#include "libshared/qcow2/header.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* O_NONBLOCK: opening a pipe must not hold anybody up. */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

/* ---- Paths ---- */

/* Take away ".", ".." and empty parts of an absolute path, in place. */
static void path_normalise(char *path)
{
    char *to = path;
    const char *from = path;

    while (*from) {
        while (*from == '/') {
            from++;
        }
        size_t length = strcspn(from, "/");
        if (length == 2 && from[0] == '.' && from[1] == '.') {
            while (to > path && *--to != '/') {
            }
        } else if (length && !(length == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, length);
            to += length;
        }
        from += length;
    }
    if (to == path) {
        *to++ = '/';
    }
    *to = '\0';
}

char *disk_path_from(const char *path, const char *name)
{
    const char *end = strrchr(path, '/');
    size_t folder = name[0] == '/' || !end ? 0 : (size_t)(end - path) + 1;
    char *joined = malloc(folder + strlen(name) + 2);

    if (joined) {
        memcpy(joined, path, folder);
        strcpy(joined + folder, name);
        path_normalise(joined);
    }
    return joined;
}

/* What of `path` is below `folder` (both normalised); NULL when it is not. */
static const char *path_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);

    if (length == 1) {
        return path + 1;
    }
    return !strncmp(path, folder, length) && path[length] == '/' ? path + length + 1 : NULL;
}

/* "nbd://host", "json:{}": something that other programs open. */
static bool names_a_protocol(const char *name)
{
    size_t length = 0;

    while (isalnum((unsigned char)name[length]) ||
           strchr("+-.", name[length] ? name[length] : ' ')) {
        length++;
    }
    return length && name[length] == ':';
}

/* ---- One file ---- */

/* Opening may do something by itself: a watchdog's device begins to count. */
static int open_checked(int place)
{
    struct stat status;
    char path[32];

    if (fstat(place, &status) < 0) {
        return -errno;
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return -ENOTBLK;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
    int fd = open(path, OPEN_FLAGS);
    return fd < 0 ? -errno : fd;
}

static int open_beneath(const char *folder, const char *name)
{
    const struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int directory = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (directory < 0) {
        return -errno;
    }
    int place = (int)syscall(SYS_openat2, directory, name, &how, sizeof(how));
    int result = place < 0 ? -errno : open_checked(place);
    if (place >= 0) {
        close(place);
    }
    close(directory);
    return result;
}

static int refuse_place(const char *path, const char *image, struct error *err)
{
    error_set(err, ERROR_PERMISSION, 0,
              "'%.90s' names the backing file '%.90s', which is not below its folder", image, path);
    error_hint(err, "when you trust it, say where backing files may be: "
                    "--disk path=...,backing=FOLDER; vmctl disk ... --backing-folder FOLDER");
    return -ERROR_PERMISSION;
}

static int open_failed(const char *path, const char *image, int cause, struct error *err)
{
    if (cause == EXDEV || cause == ELOOP) {
        return refuse_place(path, image, err);
    }
    const enum error_code code = cause == ENOSYS ? ERROR_UNSUPPORTED : ERROR_DISK;
    if (cause == ENOTBLK) {
        error_set(err, code, 0, "the backing file '%.150s' is neither a file nor a block device",
                  path);
    } else {
        error_set(err, code, cause, "cannot open '%.90s', the backing file of '%.80s': %s", path,
                  image, strerror(cause));
    }
    error_hint(err, "'vmctl disk info --chain' shows what an image is laid over");
    return -(int)code;
}

/* Below one of the folders. The descriptor or a negative code. */
static int open_allowed(const char *path, const char *const folders[2], const char *image,
                        struct error *err)
{
    int cause = 0;

    for (unsigned i = 0; i < 2; i++) {
        const char *rest = folders[i] ? path_below(path, folders[i]) : NULL;
        int fd = rest && *rest ? open_beneath(folders[i], rest) : -EXDEV;
        if (fd >= 0) {
            return fd;
        }
        cause = cause && cause != EXDEV ? cause : -fd;
    }
    return open_failed(path, image, cause, err);
}

static int check_file(const struct disk_chain *chain, int fd, const char *path, struct error *err)
{
    struct stat status, other;

    if (fstat(fd, &status) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot look at '%.150s': %s", path,
                         strerror(errno));
    }
    for (unsigned i = 0; i < chain->count; i++) {
        if (fstat(chain->layers[i].fd, &other) == 0 && other.st_dev == status.st_dev &&
            other.st_ino == status.st_ino) {
            error_set(err, ERROR_DISK, 0, "the backing files of '%.90s' lead back to '%.90s'",
                      chain->layers[0].path, path);
            error_hint(err,
                       "name what it was laid over: qemu-img rebase -u -b NAME -F FORMAT IMAGE");
            return -ERROR_DISK;
        }
    }
    return image_lock(fd, path, true, err);
}

/* ---- The chain ---- */

static int chain_append(struct disk_chain *chain, int fd, const char *path, bool qcow2,
                        struct error *err)
{
    struct disk_layer *layer = &chain->layers[chain->count];

    layer->path = strdup(path);
    if (!layer->path) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    layer->fd = fd;
    layer->qcow2 = qcow2;
    chain->count++;
    return 0;
}

static int backing_format(const struct qcow2_header *header, const char *image,
                          const struct disk_chain_settings *settings, bool *qcow2,
                          struct error *err)
{
    const char *format = header->backing_format;

    if (!format[0] && settings->backing_format) {
        format = settings->backing_format;
    }
    *qcow2 = !strcmp(format, "qcow2");
    if (*qcow2 || !strcmp(format, "raw")) {
        return 0;
    }
    if (!format[0]) {
        error_set(err, ERROR_DISK, 0, "'%.120s' does not say the format of its backing file",
                  image);
        error_hint(err, "say it: --disk path=...,backing-format=raw|qcow2; or for good: qemu-img "
                        "rebase -u -b NAME -F FORMAT IMAGE");
        return -ERROR_DISK;
    }
    error_set(err, ERROR_UNSUPPORTED, 0, "the backing file of '%.120s' is of the format '%s'",
              image, format);
    error_hint(err, "it can be raw or qcow2: qemu-img convert makes another");
    return -ERROR_UNSUPPORTED;
}

/* Open and append what the last layer names. 1: there is no more. */
static int chain_next(struct disk_chain *chain, const struct disk_chain_settings *settings,
                      const char *const folders[2], struct error *err)
{
    const struct disk_layer *last = &chain->layers[chain->count - 1];
    struct qcow2_header header;
    bool qcow2;

    int status = last->qcow2 ? qcow2_header_read(last->fd, last->path, &header, err) : 1;
    if (status != 0 || !header.backing[0]) {
        return status ? status : 1;
    }
    if (chain->count == DISK_LAYERS_MAX) {
        return error_set(err, ERROR_DISK, 0, "'%.120s' has more than %d backing files",
                         chain->layers[0].path, DISK_LAYERS_MAX - 1);
    }
    if (names_a_protocol(header.backing)) {
        error_set(err, ERROR_UNSUPPORTED, 0, "the backing file of '%.100s' is no file: '%.80s'",
                  last->path, header.backing);
        error_hint(err, "a name with a colon is a file's after './'");
        return -ERROR_UNSUPPORTED;
    }
    status = backing_format(&header, last->path, settings, &qcow2, err);
    char *path = status == 0 ? disk_path_from(last->path, header.backing) : NULL;
    if (status == 0 && !path) {
        status = error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    int fd = status == 0 ? open_allowed(path, folders, last->path, err) : status;
    if (fd >= 0) {
        status = check_file(chain, fd, path, err);
        if (status == 0) {
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
            status = chain_append(chain, fd, path, qcow2, err);
        }
        if (status < 0) {
            close(fd);
        }
    } else {
        status = fd;
    }
    free(path);
    return status;
}

int disk_chain_open(struct disk_chain *chain, int fd, const char *path,
                    const struct disk_chain_settings *settings, struct error *err)
{
    char *own = disk_path_from(path, "."), *other = NULL;

    memset(chain, 0, sizeof(*chain));
    if (settings->folder && settings->folder[0]) {
        other = disk_path_from("/", settings->folder);
    }
    const char *const folders[2] = {own, other};
    int status = !own || (settings->folder && settings->folder[0] && !other)
                     ? error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory")
                     : chain_append(chain, fd, path, true, err);
    while (status == 0) {
        status = chain_next(chain, settings, folders, err);
    }
    free(own);
    free(other);
    if (status < 0) {
        disk_chain_close(chain);
        return status;
    }
    return 0;
}

void disk_chain_close(struct disk_chain *chain)
{
    for (unsigned i = 0; i < chain->count; i++) {
        if (i) {
            close(chain->layers[i].fd);
        }
        free(chain->layers[i].path);
    }
    chain->count = 0;
}

bool disk_is_qcow2_name(const char *path)
{
    const char *end = strrchr(path, '.');
    return end && strcmp(end, ".qcow2") == 0;
}
