/* Attributes: reading and setting them; the contents of symbolic links. */
#include "devd/fs/handles.h"
#include "devd/fs/nodes.h"
#include "libshared/base/clock.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

static int answer_attributes(struct fs *fs, struct fs_message *message, const struct statx *status)
{
    struct fs_valid valid = fs_valid(fs, status);
    struct fuse_attr_out out = {.attr_valid = valid.seconds, .attr_valid_nsec = valid.nanoseconds};

    fs_attributes(fs, status, &out.attr);
    return fs_reply(message, &out, sizeof(out));
}

int op_getattr(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_getattr_in, in, message);
    struct node_pin pin;
    struct handle_pin handle;
    struct statx status;
    int result = node_get(fs, message->header.nodeid, &pin);

    if (result == 0) {
        result = fs_stat(pin.fd, &status);
        node_put(fs, &pin);
    } else if (in.getattr_flags & FUSE_GETATTR_FH &&
               handle_get(fs, in.fh, message->header.nodeid, SHARE_HANDLE_FILE, &handle) == 0) {
        result = fs_stat(handle.fd, &status); /* its name is gone, it is open */
        handle_put(fs, &handle);
    }
    return result < 0 ? result : answer_attributes(fs, message, &status);
}

/* A directory of the host's that hands on its group keeps the bit when a driver that gives it, too,
 * changes nothing (chmod -R): to set it is beyond this process, so the rest cannot change with it.
 */
static bool keeps_group_bit(const struct statx *status, mode_t mode)
{
    return S_ISDIR(status->stx_mode) && status->stx_mode & mode & S_ISGID;
}

static int set_mode(struct fs *fs, const struct node_pin *pin, const struct statx *status,
                    mode_t mode)
{
    if (keeps_group_bit(status, mode)) {
        return fs_mode(mode) == fs_mode(status->stx_mode) ? 0 : -EPERM;
    }
    mode = fs_mode(mode);
    pthread_mutex_lock(&fs->lock);
    handles_keep(fs, pin->index, status, mode);
    pthread_mutex_unlock(&fs->lock);
    return fchmodat(fs->links, fs_link_to(pin->fd).path, mode, 0) < 0 ? -errno : 0;
}

static int set_size(struct fs *fs, struct fs_message *message, const struct node_pin *pin,
                    const struct statx *status, const struct fuse_setattr_in *in)
{
    struct handle_pin handle;

    if (!S_ISREG(status->stx_mode)) {
        return S_ISDIR(status->stx_mode) ? -EISDIR : -EINVAL;
    }
    if (in->valid & FATTR_FH) {
        int result = handle_get(fs, in->fh, message->header.nodeid, SHARE_HANDLE_FILE, &handle);
        if (result < 0) {
            return result;
        }
        result = ftruncate(handle.fd, (off_t)in->size) < 0 ? -errno : 0;
        handle_put(fs, &handle);
        return result;
    }
    int fd = fs_reopen(fs, pin->fd, O_WRONLY);
    if (fd < 0) {
        return fd;
    }
    int result = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
    close(fd);
    return result;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds,
                               uint32_t nanoseconds)
{
    struct timespec time = {.tv_nsec = UTIME_OMIT};

    if (valid & now) {
        time.tv_nsec = UTIME_NOW;
    } else if (valid & set) {
        time = (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds};
    }
    return time;
}

static int set_times(struct fs *fs, const struct node_pin *pin, const struct fuse_setattr_in *in)
{
    const struct timespec times[2] = {
        time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
        time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec)};

    if (in->atimensec >= NS_PER_S || in->mtimensec >= NS_PER_S) {
        return -EINVAL; /* the special values are not the guest's to give */
    }
    return utimensat(fs->links, fs_link_to(pin->fd).path, times, 0) < 0 ? -errno : 0;
}

/* Owners: our user's files stay our user's, and the guest goes on seeing them as it did: unpacking
 * an archive as root must not fail for it. Others' files are not ours to give away. */
static int set_owner(const struct fs *fs, const struct statx *status)
{
    return status->stx_uid == fs->host_uid ? 0 : -EPERM;
}

int op_setattr(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_setattr_in, in, message);
    struct node_pin pin;
    struct statx status;
    int result = node_get(fs, message->header.nodeid, &pin);

    if (result < 0) {
        return result;
    }
    result = fs_stat(pin.fd, &status);
    if (result == 0 && in.valid & (FATTR_UID | FATTR_GID)) {
        result = set_owner(fs, &status);
    }
    if (result == 0 && in.valid & FATTR_MODE) {
        result = set_mode(fs, &pin, &status, (mode_t)in.mode);
    }
    if (result == 0 && in.valid & FATTR_SIZE) {
        result = set_size(fs, message, &pin, &status, &in);
    }
    if (result == 0 && in.valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)) {
        result = set_times(fs, &pin, &in);
    }
    result = result < 0 ? result : fs_stat(pin.fd, &status);
    node_put(fs, &pin);
    return result < 0 ? result : answer_attributes(fs, message, &status);
}

/* What a link says is the guest's to follow, in its own tree: nothing here ever does. */
int op_readlink(struct fs *fs, struct fs_message *message)
{
    char target[PATH_MAX];
    struct node_pin pin;
    int result = node_get(fs, message->header.nodeid, &pin);

    if (result < 0) {
        return result;
    }
    ssize_t length = readlinkat(pin.fd, "", target, sizeof(target));
    result = length < 0 ? (errno == ENOENT ? -EINVAL : -errno) : 0;
    node_put(fs, &pin);
    return result < 0 ? result : fs_reply(message, target, (size_t)length);
}
