#include "cli/image/scratch.h"

#include "libshared/jit/cache_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)place;
    if (kind == FTW_DNR || kind == FTW_D) {
        chmod(path, 0700); /* packages bring folders that not even their owner may change */
    }
    remove(path);
    return 0;
}

/* Folders are made accessible on the way down, and removed on the way up. */
void scratch_remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_PHYS);
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* The lock of a folder, or -1: somebody lives in it, or it is no scratch folder. */
static int lock_folder(const char *folder, int flags)
{
    char path[SCRATCH_PATH_MAX + 16];

    snprintf(path, sizeof(path), "%s/lock", folder);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Younger ones may be between their making and their locking. */
#define SWEEP_AGE_SECONDS 60

/* Remove what commands left that were killed. */
static void sweep(const char *base)
{
    DIR *directory = opendir(base);
    struct stat info;

    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        char folder[SCRATCH_PATH_MAX];
        if (entry->d_name[0] == '.' ||
            snprintf(folder, sizeof(folder), "%s/%s", base, entry->d_name) >= (int)sizeof(folder) ||
            lstat(folder, &info) < 0 || info.st_mtime + SWEEP_AGE_SECONDS > time(NULL)) {
            continue;
        }
        int lock = lock_folder(folder, 0);
        if (lock >= 0) {
            scratch_remove_tree(folder);
            close(lock);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
}

int scratch_open(struct scratch *scratch, struct error *err)
{
    char cache[CACHE_DIRECTORY_MAX], base[CACHE_DIRECTORY_MAX + 16], folder[SCRATCH_PATH_MAX];

    scratch->path[0] = '\0';
    scratch->lock = -1;
    if (!cache_default_directory(cache, err)) {
        return -(int)err->code;
    }
    int fd = cache_open_directory(cache, true, err);
    if (fd < 0) {
        return -(int)err->code;
    }
    close(fd);
    snprintf(base, sizeof(base), "%s/scratch", cache);
    if (mkdir(base, 0700) < 0 && errno != EEXIST) {
        return error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", base, strerror(errno));
    }
    sweep(base);
    snprintf(folder, sizeof(folder), "%s/%d-XXXXXX", base, (int)getpid());
    if (mkdtemp(folder) == NULL) {
        return error_set(err, ERROR_IO, errno, "cannot make a folder in '%.200s': %s", base,
                         strerror(errno));
    }
    memcpy(scratch->path, folder, sizeof(folder));
    scratch->lock = lock_folder(folder, O_CREAT);
    return scratch->lock >= 0 ? 0
                              : error_set(err, ERROR_IO, errno, "cannot lock '%.200s': %s", folder,
                                          strerror(errno));
}

void scratch_close(struct scratch *scratch)
{
    if (scratch->path[0] == '\0') {
        return;
    }
    scratch_remove_tree(scratch->path);
    scratch->path[0] = '\0';
    if (scratch->lock >= 0) {
        close(scratch->lock);
    }
}

/* ---- Copies ---- */

/* One stretch of data. 0 or errno. */
static int copy_stretch(int from, int to, off_t start, off_t end)
{
    off_t in = start, out = start;

    while (in < end) {
        ssize_t count = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0 &&
            (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
            static char bytes[1 << 20];
            size_t most = (size_t)(end - in) < sizeof(bytes) ? (size_t)(end - in) : sizeof(bytes);
            count = pread(from, bytes, most, in);
            if (count > 0 && pwrite(to, bytes, (size_t)count, out) != count) {
                return errno != 0 ? errno : EIO;
            }
            in += count > 0 ? count : 0;
            out = in;
        }
        if (count <= 0) {
            return count < 0 ? errno : EIO;
        }
    }
    return 0;
}

/* 0 or errno. */
static int copy_bytes(int from, int to)
{
    struct stat info;
    int cause = 0;

    if (ioctl(to, FICLONE, from) == 0) {
        return 0;
    }
    if (fstat(from, &info) < 0 || ftruncate(to, info.st_size) < 0) {
        return errno;
    }
    for (off_t at = 0; cause == 0 && at < info.st_size;) {
        off_t start = lseek(from, at, SEEK_DATA);
        if (start < 0 && errno == ENXIO) {
            break; /* a hole up to the end */
        }
        off_t end = start < 0 ? -1 : lseek(from, start, SEEK_HOLE);
        if (start < 0 || end < 0) { /* a file system that knows of no holes */
            start = at;
            end = info.st_size;
        }
        cause = copy_stretch(from, to, start, end);
        at = end;
    }
    return cause;
}

int scratch_copy(const char *from, const char *to, struct error *err)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;

    if (in < 0) {
        return error_set(err, ERROR_IO, errno, "cannot open '%.200s': %s", from, strerror(errno));
    }
    out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int cause = out < 0 ? errno : copy_bytes(in, out);
    if (out >= 0 && close(out) < 0 && cause == 0) {
        cause = errno;
    }
    close(in);
    if (cause == 0) {
        return 0;
    }
    if (out >= 0) {
        unlink(to);
    }
    error_set(err, ERROR_IO, cause, "cannot copy to '%.200s': %s", to, strerror(cause));
    if (cause == ENOSPC) {
        error_hint(err, "remove something there, or choose another folder with "
                        "POLYVISOR_CACHE_DIR");
    }
    return -ERROR_IO;
}
