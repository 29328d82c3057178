/*
 * What files are, to the host and to the guest.
 *
 * Owners: what belongs to the user whom this process is belongs in the guest to the user of the
 * setting; all else to nobody, whom nobody in the guest is. Set-id bits pass in neither direction:
 * a guest must not make programs for the host that run as their owner, nor the reverse. It sees by
 * which directories the host hands on a group, and cannot make such. Numbers of device nodes do not
 * pass, either.
 */
#include "devd/fs/fs_internal.h"
#include "libshared/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define NOBODY 65534u
#define LONG   3600u /* seconds that the guest may go by anything with cache=always */
/* What one system call of the guest asks twice need not be asked twice, and a name that has just
 * been used is kept by its kernel, contents and all: one that is good for no time is thrown away
 * with its last user. Shorter than anybody takes to change a file here and have it looked at there.
 */
#define BRIEF_NS 10000000u

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

int fs_stat(int fd, struct statx *status)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME,
                 status) < 0
               ? -errno
               : 0;
}

int fs_stat_at(int directory, const char *name, struct statx *status)
{
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS | STATX_BTIME, status) < 0) {
        return -errno;
    }
    return status->stx_attributes & STATX_ATTR_MOUNT_ROOT ? -EXDEV : 0;
}

struct share_identity fs_identity(const struct statx *status)
{
    bool born = status->stx_mask & STATX_BTIME;

    return (struct share_identity){
        .device = (uint64_t)status->stx_dev_major << 32 | status->stx_dev_minor,
        .inode = status->stx_ino,
        .born =
            born ? (uint64_t)status->stx_btime.tv_sec * NS_PER_S + status->stx_btime.tv_nsec : 0,
    };
}

bool fs_same(const struct share_identity *one, const struct share_identity *other)
{
    return one->inode == other->inode && one->device == other->device && one->born == other->born;
}

mode_t fs_mode(mode_t mode)
{
    return mode & 01777;
}

void fs_attributes(const struct fs *fs, const struct statx *status, struct fuse_attr *attributes)
{
    bool own = status->stx_uid == fs->host_uid;
    mode_t handed_on = S_ISDIR(status->stx_mode) ? status->stx_mode & S_ISGID : 0;

    *attributes = (struct fuse_attr){
        .ino = status->stx_ino,
        .size = status->stx_size,
        .blocks = status->stx_blocks,
        .atime = (uint64_t)status->stx_atime.tv_sec,
        .mtime = (uint64_t)status->stx_mtime.tv_sec,
        .ctime = (uint64_t)status->stx_ctime.tv_sec,
        .atimensec = status->stx_atime.tv_nsec,
        .mtimensec = status->stx_mtime.tv_nsec,
        .ctimensec = status->stx_ctime.tv_nsec,
        .mode = (status->stx_mode & S_IFMT) | fs_mode(status->stx_mode) | handed_on,
        .nlink = status->stx_nlink,
        .uid = own ? fs->setting.uid : NOBODY,
        .gid = own ? fs->setting.gid : NOBODY,
        .blksize = status->stx_blksize,
    };
}

/* Names of directories are good for longer: a path has many of them, and hardly anybody puts
 * another directory in the place of one. */
struct fs_valid fs_valid(const struct fs *fs, const struct statx *status)
{
    switch (fs->setting.cache) {
    case SHARE_CACHE_ALWAYS:
        return (struct fs_valid){.seconds = LONG};
    case SHARE_CACHE_AUTO:
        return S_ISDIR(status->stx_mode) ? (struct fs_valid){.seconds = 1}
                                         : (struct fs_valid){.nanoseconds = BRIEF_NS};
    case SHARE_CACHE_NEVER:
        break;
    }
    return (struct fs_valid){0};
}

struct fs_link fs_link_to(int fd)
{
    struct fs_link link;

    snprintf(link.path, sizeof(link.path), "%d", fd);
    return link;
}

int fs_reopen(const struct fs *fs, int fd, int flags)
{
    int result = openat(fs->links, fs_link_to(fd).path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return result < 0 ? -errno : result;
}

/* Not openat2, whose mode a filter cannot see: the process may not call it. A name has no slash and
 * is not "..", so nothing is followed and the way leads down. */
int fs_open_name(int directory, const char *name)
{
    struct statx status;
    int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    int result = fs_stat(fd, &status);
    if (result == 0 && status.stx_attributes & STATX_ATTR_MOUNT_ROOT) {
        result = -EXDEV;
    }
    if (result < 0) {
        close(fd);
        return result;
    }
    return fd;
}
