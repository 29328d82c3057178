/*
 * Extended attributes: those of users, `user.*`. Others mean something to the host (capabilities,
 * labels, lists of access), so a guest neither sees nor sets them.
 */
#include "devd/fs/nodes.h"

#include <errno.h>
#include <limits.h>
#include <linux/limits.h>
#include <linux/xattr.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

static bool allowed(const char *name)
{
    return strncmp(name, XATTR_USER_PREFIX, XATTR_USER_PREFIX_LEN) == 0 &&
           name[XATTR_USER_PREFIX_LEN] != '\0';
}

/* The node's file by a path: these calls know no O_PATH descriptors. */
struct path {
    struct node_pin pin;
    char text[64];
};

static int path_get(struct fs *fs, const struct fs_message *message, struct path *path)
{
    int result = node_get(fs, message->header.nodeid, &path->pin);

    if (result == 0) {
        snprintf(path->text, sizeof(path->text), "%s/%d", fs->links_path, path->pin.fd);
    }
    return result;
}

/* The name at `offset`: NULL with *status set. */
static const char *name_at(const struct fs_message *message, size_t *offset, int *status)
{
    const char *name = fs_text(message, offset, XATTR_NAME_MAX);

    *status = !name ? -EINVAL : allowed(name) ? 0 : -EOPNOTSUPP;
    return *status < 0 ? NULL : name;
}

int op_setxattr(struct fs *fs, struct fs_message *message)
{
    struct fuse_setxattr_in in = {0};
    size_t offset = FUSE_COMPAT_SETXATTR_IN_SIZE;
    struct path path;
    int result;

    memcpy(&in, message->arguments, FUSE_COMPAT_SETXATTR_IN_SIZE);
    const char *name = name_at(message, &offset, &result);
    if (!name) {
        return result;
    }
    if (in.size > message->argument_bytes - offset || in.size > XATTR_SIZE_MAX) {
        return -E2BIG;
    }
    result = path_get(fs, message, &path);
    if (result < 0) {
        return result;
    }
    if (setxattr(path.text, name, message->arguments + offset, in.size,
                 (int)in.flags & (XATTR_CREATE | XATTR_REPLACE)) < 0) {
        /* Done by an earlier process, which could not say so. */
        bool repeated = message->again && in.flags & XATTR_CREATE && errno == EEXIST;
        result = repeated ? 0 : -errno;
    }
    node_put(fs, &path.pin);
    return result < 0 ? result : fs_reply(message, NULL, 0);
}

/* Answer with `got` bytes, or with how many there are when none were asked for. */
static int answer(struct fs_message *message, const void *bytes, size_t got, uint32_t asked)
{
    const struct fuse_getxattr_out out = {.size = (uint32_t)got};

    if (asked == 0) {
        return fs_reply(message, &out, sizeof(out));
    }
    return got > asked ? -ERANGE : fs_reply(message, bytes, got);
}

int op_getxattr(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_getxattr_in, in, message);
    size_t offset = sizeof(in);
    struct path path;
    int result;
    const char *name = name_at(message, &offset, &result);

    if (!name) {
        return result;
    }
    uint32_t asked = in.size < XATTR_SIZE_MAX ? in.size : XATTR_SIZE_MAX;
    uint8_t *bytes = malloc(asked + 1);
    if (!bytes) {
        return -ENOMEM;
    }
    result = path_get(fs, message, &path);
    if (result == 0) {
        ssize_t got = getxattr(path.text, name, bytes, asked);
        result = got < 0 ? -errno : 0;
        node_put(fs, &path.pin);
        result = result < 0 ? result : answer(message, bytes, (size_t)got, asked);
    }
    free(bytes);
    return result;
}

/* Leave out what the guest does not see. The bytes that are left. */
static size_t filter(char *names, size_t size)
{
    size_t left = 0;

    for (size_t at = 0; at < size;) {
        size_t length = strnlen(names + at, size - at);
        if (at + length < size && allowed(names + at)) {
            memmove(names + left, names + at, length + 1);
            left += length + 1;
        }
        at += length + 1;
    }
    return left;
}

int op_listxattr(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_getxattr_in, in, message);
    struct path path;
    char *names = malloc(XATTR_LIST_MAX);

    if (!names) {
        return -ENOMEM;
    }
    int result = path_get(fs, message, &path);
    if (result == 0) {
        ssize_t got = listxattr(path.text, names, XATTR_LIST_MAX);
        result = got < 0 ? -errno : 0;
        node_put(fs, &path.pin);
        result = result < 0 ? result
                            : answer(message, names, filter(names, (size_t)got),
                                     in.size < XATTR_LIST_MAX ? in.size : XATTR_LIST_MAX);
    }
    free(names);
    return result;
}

int op_removexattr(struct fs *fs, struct fs_message *message)
{
    size_t offset = 0;
    struct path path;
    int result;
    const char *name = name_at(message, &offset, &result);

    if (!name) {
        return result;
    }
    result = path_get(fs, message, &path);
    if (result < 0) {
        return result;
    }
    if (removexattr(path.text, name) < 0) {
        result = message->again && errno == ENODATA ? 0 : -errno;
    }
    node_put(fs, &path.pin);
    return result < 0 ? result : fs_reply(message, NULL, 0);
}
