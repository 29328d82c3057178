#include "vmmd/storage.h"

#include "libshared/disk/chain.h"
#include "libshared/disk/image_lock.h"
#include "vmmd/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK: opening a pipe or a device must not hold up the event loop. */
#define STORAGE_OPEN_FLAGS (O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

int storage_open_image(const char *what, const char *path, uint64_t *size, struct error *err)
{
    struct stat status;
    int result;
    int fd = open(path, O_RDONLY | STORAGE_OPEN_FLAGS);

    if (fd < 0) {
        return error_set(err, ERROR_KERNEL, errno, "cannot open %s '%s': %s", what, path,
                         strerror(errno));
    }
    if (fstat(fd, &status) < 0) {
        result = error_set(err, ERROR_IO, errno, "cannot look at %s '%s': %s", what, path,
                           strerror(errno));
    } else if (S_ISDIR(status.st_mode)) {
        result = error_set(err, ERROR_KERNEL, EISDIR, "%s '%s' is a directory", what, path);
    } else if (!S_ISREG(status.st_mode)) {
        result = error_set(err, ERROR_KERNEL, 0, "%s '%s' is not a regular file", what, path);
    } else if (status.st_size == 0) {
        result = error_set(err, ERROR_KERNEL, 0, "%s '%s' is empty", what, path);
    } else {
        *size = (uint64_t)status.st_size;
        return fd;
    }
    close(fd);
    return result;
}

/* Which format a file's first bytes announce, for those that are not raw. */
static const char *storage_detect_format(int fd)
{
    static const struct {
        const char *format;
        const char *magic;
        size_t length;
    } signatures[] = {
        {"qcow2", "QFI\xfb", 4},
        {"vmdk", "KDMV", 4},
        {"vhdx", "vhdxfile", 8},
    };
    static _Alignas(4096) char head[4096]; /* so that it can be read directly */

    if (pread(fd, head, sizeof(head), 0) < (ssize_t)sizeof(uint64_t)) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
        if (!memcmp(head, signatures[i].magic, signatures[i].length)) {
            return signatures[i].format;
        }
    }
    return NULL;
}

const char *storage_disk_format(const Polyvisor__DiskConfig *disk)
{
    /* A guest can write any header to its disk; the name of the file is the user's. */
    return disk->format[0] ? disk->format : disk_is_qcow2_name(disk->path) ? "qcow2" : "raw";
}

static int storage_check_format(int fd, const Polyvisor__DiskConfig *disk, struct error *err)
{
    if (disk->format[0] || strcmp(storage_disk_format(disk), "raw")) {
        return 0; /* the user says so: a guest may keep any bytes on its disk */
    }
    const char *detected = storage_detect_format(fd);
    if (detected) {
        bool known = !strcmp(detected, "qcow2");
        error_set(err, ERROR_UNSUPPORTED, 0, "disk '%s' looks like a %s image and has no format",
                  disk->path, detected);
        error_hint(err, "say format=%s%s",
                   known ? "qcow2, or format=raw when the guest wrote that"
                         : "raw if it is raw, or convert it with",
                   known ? "" : " qemu-img convert -O qcow2");
        return -ERROR_UNSUPPORTED;
    }
    return 0;
}

static int storage_check_size(int fd, const struct stat *status, const char *path,
                              struct error *err)
{
    off_t size = S_ISBLK(status->st_mode) ? lseek(fd, 0, SEEK_END) : status->st_size;

    if (size < 0) {
        return error_set(err, ERROR_IO, errno, "cannot find the size of disk '%s': %s", path,
                         strerror(errno));
    }
    if (size == 0) {
        error_set(err, ERROR_DISK, 0, "disk '%s' is empty", path);
        error_hint(err, "give it a size, for example: truncate -s 1G '%s'", path);
        return -ERROR_DISK;
    }
    if (size % STORAGE_SECTOR) {
        error_set(err, ERROR_DISK, 0, "the size of disk '%s' is not a multiple of %d bytes", path,
                  STORAGE_SECTOR);
        error_hint(err, "round it up: truncate -s %%%d '%s'", STORAGE_SECTOR, path);
        return -ERROR_DISK;
    }
    return 0;
}

static int storage_open_error(const Polyvisor__DiskConfig *disk, int cause, struct error *err)
{
    bool write_refused = !disk->read_only && (cause == EACCES || cause == EROFS || cause == EPERM);

    if (cause == EBUSY) {
        error_set(err, ERROR_BUSY, cause, "block device '%s' is in use by the host", disk->path);
        error_hint(err, "is it mounted? findmnt '%s'; or attach it read-only (readonly)",
                   disk->path);
        return -ERROR_BUSY;
    }
    if (cause == EINVAL && disk_is_direct(disk)) {
        error_set(err, ERROR_UNSUPPORTED, cause,
                  "the file system of disk '%s' has no direct access", disk->path);
        error_hint(err, "use cache=writeback");
        return -ERROR_UNSUPPORTED;
    }
    if (cause == EISDIR) {
        return error_set(err, ERROR_DISK, cause, "disk '%s' is a directory", disk->path);
    }
    if (write_refused && access(disk->path, R_OK) == 0) {
        error_set(err, ERROR_DISK, cause, "disk '%s' cannot be written: %s", disk->path,
                  strerror(cause));
        error_hint(err, "make it writable, or attach it read-only (readonly=on)");
        return -ERROR_DISK;
    }
    return error_set(err, ERROR_DISK, cause, "cannot open disk '%s': %s", disk->path,
                     strerror(cause));
}

/* Root may write to a file without write permission; someone took it away for a reason. */
static bool storage_write_protected(const struct stat *status)
{
    return S_ISREG(status->st_mode) && !(status->st_mode & (S_IWUSR | S_IWGRP | S_IWOTH));
}

/* A block device that is mounted, or part of something, can only be opened for writing by others
 * when they do not insist on being alone. */
static int storage_open_flags(const Polyvisor__DiskConfig *disk)
{
    struct stat status;
    int flags = STORAGE_OPEN_FLAGS | (disk->read_only ? O_RDONLY : O_RDWR);

    if (!disk->read_only && stat(disk->path, &status) == 0 && S_ISBLK(status.st_mode)) {
        flags |= O_EXCL;
    }
    return flags;
}

/* Lock the image and open what lies under it. */
static int storage_open_chain(int fd, const Polyvisor__DiskConfig *disk, struct disk_chain *chain,
                              struct error *err)
{
    const struct disk_chain_settings settings = {.folder = disk->backing,
                                                 .backing_format = disk->backing_format};
    int result = image_lock(fd, disk->path, disk->read_only, err);

    if (result || strcmp(storage_disk_format(disk), "qcow2")) {
        return result;
    }
    return disk_chain_open(chain, fd, disk->path, &settings, err);
}

static int storage_check_disk(int fd, const Polyvisor__DiskConfig *disk, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot look at disk '%s': %s", disk->path,
                         strerror(errno));
    }
    if (S_ISDIR(status.st_mode)) {
        return storage_open_error(disk, EISDIR, err);
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return error_set(err, ERROR_DISK, 0, "disk '%s' is neither a file nor a block device",
                         disk->path);
    }
    if (!disk->read_only && storage_write_protected(&status)) {
        return storage_open_error(disk, EACCES, err);
    }
    int result = storage_check_format(fd, disk, err);
    /* Of an image with a format, the size is in its header, and devd's to check. */
    bool raw = !strcmp(storage_disk_format(disk), "raw");
    return result || !raw ? result : storage_check_size(fd, &status, disk->path, err);
}

int storage_open_disk(const Polyvisor__DiskConfig *disk, struct disk_chain *chain,
                      struct error *err)
{
    memset(chain, 0, sizeof(*chain));
    int fd = open(disk->path, storage_open_flags(disk));
    if (fd < 0) {
        return storage_open_error(disk, errno, err);
    }
    int result = storage_check_disk(fd, disk, err);
    result = result ? result : storage_open_chain(fd, disk, chain, err);
    if (result) {
        close(fd);
        return result;
    }
    /* The device process waits for its reads and writes, and ours above were not aligned. */
    int flags = (fcntl(fd, F_GETFL) & ~O_NONBLOCK) | (disk_is_direct(disk) ? O_DIRECT : 0);
    if (fcntl(fd, F_SETFL, flags) < 0) {
        result = storage_open_error(disk, errno, err);
        disk_chain_close(chain);
        close(fd);
        return result;
    }
    return fd;
}
