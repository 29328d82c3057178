/* Open files. */
#include "devd/fs/handles.h"
#include "devd/fs/nodes.h"
#include "libshared/base/vectors.h"

#include <errno.h>
#include <limits.h>
#include <linux/falloc.h>
#include <unistd.h>

#define COPY_MAX   (UINT64_C(64) << 20) /* bytes of one copy: bounded time */
#define PIECES_MAX 256u

/* What the guest may keep of what it has read: all, when the file is as it was when it last opened
 * it; else it is to read it anew. */
static uint32_t open_flags(struct fs *fs, uint32_t node, int fd)
{
    struct statx status;
    bool same = false;

    if (fs->setting.cache == SHARE_CACHE_NEVER) {
        return FOPEN_DIRECT_IO;
    }
    if (fs_stat(fd, &status) == 0) {
        pthread_mutex_lock(&fs->lock);
        same = node_unchanged(fs, node, &status);
        pthread_mutex_unlock(&fs->lock);
    }
    return same || fs->setting.cache == SHARE_CACHE_ALWAYS ? FOPEN_KEEP_CACHE : 0;
}

static int open_checked(struct fs *fs, const struct node_pin *pin, int flags)
{
    struct statx status;
    int result = fs_stat(pin->fd, &status);

    if (result < 0) {
        return result;
    }
    if (!S_ISREG(status.stx_mode)) { /* opening a pipe would block, a device does who knows what */
        return S_ISDIR(status.stx_mode) ? -EISDIR : S_ISLNK(status.stx_mode) ? -ELOOP : -ENXIO;
    }
    return fs_reopen(fs, pin->fd, flags);
}

int op_open(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_open_in, in, message);
    int flags = (int)in.flags & FS_OPEN_FLAGS;
    struct fuse_open_out out = {0};
    struct node_pin pin;

    if (fs->setting.read_only && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC)) {
        return -EROFS;
    }
    int result = node_get(fs, message->header.nodeid, &pin);
    if (result < 0) {
        return result;
    }
    int fd = open_checked(fs, &pin, flags);
    if (fd >= 0) {
        out.open_flags = open_flags(fs, pin.index, fd);
        result =
            handle_open(fs, message, pin.index, fd, flags & ~O_TRUNC, SHARE_HANDLE_FILE, &out.fh);
    }
    node_put(fs, &pin);
    result = fd < 0 ? fd : result;
    return result < 0 ? result : fs_reply(message, &out, sizeof(out));
}

int op_release(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_release_in, in, message);
    handle_close(fs, in.fh);
    return fs_reply(message, NULL, 0);
}

/* ---- Contents ---- */

/* Read without waiting for the disk. -EAGAIN: it takes waiting. */
static ssize_t read_cached(int fd, const struct iovec *pieces, unsigned count, uint64_t bytes,
                           off_t offset)
{
    struct stat status;
    ssize_t got = preadv2(fd, pieces, (int)count, offset, RWF_NOWAIT);

    if (got < 0 && (errno == EOPNOTSUPP || errno == EINVAL)) {
        errno = EAGAIN;
    }
    if (got >= 0 && (uint64_t)got < bytes &&
        (fstat(fd, &status) < 0 || offset + got < status.st_size)) {
        errno = EAGAIN; /* the rest is not in the cache */
        return -1;
    }
    return got;
}

static int read_into(struct fs_message *message, int fd, const struct iovec *pieces, unsigned count,
                     uint64_t bytes, off_t offset)
{
    ssize_t got = message->impatient ? read_cached(fd, pieces, count, bytes, offset)
                                     : preadv(fd, pieces, (int)count, offset);

    if (got < 0 && errno == EAGAIN && message->impatient) {
        message->waits = true;
        return -EAGAIN;
    }
    return got < 0 ? -errno : fs_reply_written(message, (size_t)got);
}

int op_read(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_read_in, in, message);
    struct iovec pieces[PIECES_MAX];
    struct handle_pin handle;
    uint64_t bytes;

    if (in.offset > INT64_MAX || message->reply_count > PIECES_MAX) {
        return -EINVAL;
    }
    uint64_t limit = in.size < FS_WRITE_MAX ? in.size : FS_WRITE_MAX;
    unsigned count = fs_reply_segments(message, pieces, limit, &bytes);
    int result = handle_get(fs, in.fh, message->header.nodeid, SHARE_HANDLE_FILE, &handle);
    if (result < 0) {
        return result;
    }
    result = read_into(message, handle.fd, pieces, count, bytes, (off_t)in.offset);
    handle_put(fs, &handle);
    return result;
}

/* Always where the guest says: it knows where the end of a file is that it appends to. */
int op_write(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_write_in, in, message);
    struct iovec pieces[PIECES_MAX];
    struct handle_pin handle;

    if (in.offset > INT64_MAX || in.size > message->data_bytes || in.size > FS_WRITE_MAX ||
        message->data_count > PIECES_MAX) {
        return -EINVAL;
    }
    unsigned count =
        vectors_cut(message->data, message->data_count, 0, in.size, pieces, PIECES_MAX);
    int result = handle_get(fs, in.fh, message->header.nodeid, SHARE_HANDLE_FILE, &handle);
    if (result < 0) {
        return result;
    }
    ssize_t put = pwritev(handle.fd, pieces, (int)count, (off_t)in.offset);
    result = put < 0 ? -errno : 0;
    handle_put(fs, &handle);
    const struct fuse_write_out out = {.size = (uint32_t)put};
    return result < 0 ? result : fs_reply(message, &out, sizeof(out));
}

int op_fsync(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_fsync_in, in, message);
    bool directory = message->header.opcode == FUSE_FSYNCDIR;
    struct handle_pin handle;
    int result = handle_get(fs, in.fh, message->header.nodeid,
                            directory ? SHARE_HANDLE_DIRECTORY : SHARE_HANDLE_FILE, &handle);

    if (result < 0) {
        return result;
    }
    int status = in.fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(handle.fd) : fsync(handle.fd);
    result = status < 0 ? -errno : 0;
    handle_put(fs, &handle);
    return result < 0 ? result : fs_reply(message, NULL, 0);
}

/* Only what may be done twice: no range is taken out or put in. */
int op_fallocate(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_fallocate_in, in, message);
    const uint32_t modes = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    struct handle_pin handle;

    if (in.mode & ~modes) {
        return -EOPNOTSUPP;
    }
    if (in.offset > INT64_MAX || in.length > INT64_MAX) {
        return -EINVAL;
    }
    int result = handle_get(fs, in.fh, message->header.nodeid, SHARE_HANDLE_FILE, &handle);
    if (result < 0) {
        return result;
    }
    int status = fallocate(handle.fd, (int)in.mode, (off_t)in.offset, (off_t)in.length);
    result = status < 0 ? -errno : 0;
    handle_put(fs, &handle);
    return result < 0 ? result : fs_reply(message, NULL, 0);
}

/* The descriptor's own position is nobody's: everything else says where. */
int op_lseek(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_lseek_in, in, message);
    struct handle_pin handle;

    if ((in.whence != SEEK_DATA && in.whence != SEEK_HOLE) || in.offset > INT64_MAX) {
        return -EINVAL;
    }
    int result = handle_get(fs, in.fh, message->header.nodeid, SHARE_HANDLE_FILE, &handle);
    if (result < 0) {
        return result;
    }
    off_t at = lseek(handle.fd, (off_t)in.offset, (int)in.whence);
    result = at < 0 ? -errno : 0;
    handle_put(fs, &handle);
    const struct fuse_lseek_out out = {.offset = (uint64_t)at};
    return result < 0 ? result : fs_reply(message, &out, sizeof(out));
}

int op_copy_file_range(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_copy_file_range_in, in, message);
    struct handle_pin from, to;

    if (in.off_in > INT64_MAX || in.off_out > INT64_MAX || in.flags) {
        return -EINVAL;
    }
    int result = handle_get(fs, in.fh_in, message->header.nodeid, SHARE_HANDLE_FILE, &from);
    if (result < 0) {
        return result;
    }
    result = handle_get(fs, in.fh_out, in.nodeid_out, SHARE_HANDLE_FILE, &to);
    ssize_t copied = 0;
    if (result == 0) {
        off_t from_at = (off_t)in.off_in, to_at = (off_t)in.off_out;
        copied = copy_file_range(from.fd, &from_at, to.fd, &to_at,
                                 (size_t)(in.len < COPY_MAX ? in.len : COPY_MAX), 0);
        result = copied < 0 ? -errno : 0;
        handle_put(fs, &to);
    }
    handle_put(fs, &from);
    const struct fuse_write_out out = {.size = (uint32_t)copied};
    return result < 0 ? result : fs_reply(message, &out, sizeof(out));
}
