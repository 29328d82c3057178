/* Names: looking up, making. Removing and renaming are in op_rename.c. */
#include "devd/fs/handles.h"
#include "devd/fs/intent.h"
#include "devd/fs/nodes.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

int fs_tell(struct fs *fs, uint64_t parent, const char *name, int fd, const struct statx *status,
            struct fuse_entry_out *entry)
{
    struct fs_valid valid = fs_valid(fs, status);
    uint64_t number;

    pthread_mutex_lock(&fs->lock);
    int result = node_tell(fs, status, parent, name, fd, &number);
    bool room = nodes_have_room(fs);
    pthread_mutex_unlock(&fs->lock);
    if (result < 0) {
        return result;
    }
    *entry = (struct fuse_entry_out){
        .nodeid = number, .attr_valid = valid.seconds, .attr_valid_nsec = valid.nanoseconds};
    if (room) { /* else the guest shall forget it once it is not used */
        entry->entry_valid = valid.seconds;
        entry->entry_valid_nsec = valid.nanoseconds;
    }
    fs_attributes(fs, status, &entry->attr);
    return 0;
}

/* Look `name` up in a directory and count it as told to the guest. 0 or negative errno. */
static int fs_enter(struct fs *fs, uint64_t parent, int directory, const char *name,
                    struct fuse_entry_out *entry)
{
    struct statx status;
    int fd = fs_open_name(directory, name);

    if (fd < 0) {
        return fd;
    }
    int result = fs_stat(fd, &status);
    if (result < 0) {
        close(fd);
        return result;
    }
    return fs_tell(fs, parent, name, fd, &status, entry);
}

/* A directory that the host removed has nothing in it: the guest is to look for it anew. */
static int absent(int directory)
{
    struct statx status;
    return fs_stat(directory, &status) == 0 && status.stx_nlink == 0 ? -ESTALE : -ENOENT;
}

int op_lookup(struct fs *fs, struct fs_message *message)
{
    struct fuse_entry_out entry;
    struct node_pin parent;
    size_t offset = 0;
    const char *name = fs_name(message, &offset);

    if (!name) {
        return message->status;
    }
    int result = node_get(fs, message->header.nodeid, &parent);
    if (result < 0) {
        return result;
    }
    result = fs_enter(fs, message->header.nodeid, parent.fd, name, &entry);
    if (result == -ENOENT) {
        result = absent(parent.fd);
    }
    if (result == -EXDEV) {
        result = -EACCES; /* a mount point: not ours */
    }
    if (result == -ENOENT && fs->setting.cache == SHARE_CACHE_ALWAYS) {
        entry = (struct fuse_entry_out){.entry_valid = 1}; /* "there is none", for that long */
        result = 0;
    }
    node_put(fs, &parent);
    return result < 0 ? result : fs_reply(message, &entry, sizeof(entry));
}

/* ---- Making ---- */

/* What is to be made. `make` returns 0 or negative errno; `is_made` whether a file that is there is
 * what `make` would have made. */
struct making {
    struct fs *fs;
    struct fs_message *message;
    struct node_pin parent;
    const char *name;
    mode_t mode;
    const char *target;     /* of a symbolic link */
    struct node_pin source; /* of a hard link */
    struct share_identity identity;
    int (*make)(const struct making *making);
    bool (*is_made)(const struct making *making, const struct statx *status);
};

static int make_directory(const struct making *making)
{
    return mkdirat(making->parent.fd, making->name, making->mode) < 0 ? -errno : 0;
}

static int make_node(const struct making *making)
{
    return mknodat(making->parent.fd, making->name, making->mode, 0) < 0 ? -errno : 0;
}

static int make_symlink(const struct making *making)
{
    return symlinkat(making->target, making->parent.fd, making->name) < 0 ? -errno : 0;
}

static int make_link(const struct making *making)
{
    return linkat(making->fs->links, fs_link_to(making->source.fd).path, making->parent.fd,
                  making->name, AT_SYMLINK_FOLLOW) < 0
               ? -errno
               : 0;
}

static bool is_of_type(const struct making *making, const struct statx *status)
{
    return (status->stx_mode & S_IFMT) == (making->mode & S_IFMT);
}

static bool is_symlink(const struct making *making, const struct statx *status)
{
    char target[PATH_MAX];

    if (!S_ISLNK(status->stx_mode)) {
        return false;
    }
    ssize_t length = readlinkat(making->parent.fd, making->name, target, sizeof(target));
    return length >= 0 && (size_t)length == strlen(making->target) &&
           memcmp(target, making->target, (size_t)length) == 0;
}

static bool is_link(const struct making *making, const struct statx *status)
{
    struct share_identity identity = fs_identity(status);
    return fs_same(&identity, &making->identity);
}

/* Make it, unless an earlier process did for the same request. */
static int make_once(struct making *making)
{
    const struct fs_message *message = making->message;
    struct statx status;
    bool again = intent_of(making->fs, message);
    int there = fs_stat_at(making->parent.fd, making->name, &status);

    if (there == -EXDEV || (there == 0 && !again)) {
        return -EEXIST;
    }
    if (there == 0) {
        return making->is_made(making, &status) ? 0 : -EEXIST;
    }
    if (there != -ENOENT) {
        return there;
    }
    intent_begin(making->fs, message, NULL, NULL);
    return making->make(making);
}

static int make(struct making *making)
{
    struct fs *fs = making->fs;
    struct fs_message *message = making->message;
    struct fuse_entry_out entry;

    if (!making->name) {
        return message->status;
    }
    int result = node_get(fs, message->header.nodeid, &making->parent);
    if (result < 0) {
        return result;
    }
    result = make_once(making);
    if (result == 0) {
        result = fs_enter(fs, message->header.nodeid, making->parent.fd, making->name, &entry);
    }
    if (result == -ENOENT) {
        result = absent(making->parent.fd);
    }
    node_put(fs, &making->parent);
    return result < 0 ? result : fs_reply(message, &entry, sizeof(entry));
}

int op_mkdir(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_mkdir_in, in, message);
    size_t offset = sizeof(in);
    struct making making = {.fs = fs,
                            .message = message,
                            .name = fs_name(message, &offset),
                            .mode = fs_mode(in.mode) | S_IFDIR,
                            .make = make_directory,
                            .is_made = is_of_type};
    return make(&making);
}

/* Files, pipes and sockets: the last two are nothing but names here, the guest's kernel does the
 * rest. Never devices. */
int op_mknod(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_mknod_in, in, message);
    size_t offset = sizeof(in);
    struct making making = {.fs = fs,
                            .message = message,
                            .name = fs_name(message, &offset),
                            .mode = fs_mode(in.mode) | (in.mode & S_IFMT),
                            .make = make_node,
                            .is_made = is_of_type};

    if ((in.mode & S_IFMT) == 0) {
        making.mode |= S_IFREG;
    }
    return S_ISREG(making.mode) || S_ISFIFO(making.mode) || S_ISSOCK(making.mode) ? make(&making)
                                                                                  : -EPERM;
}

int op_symlink(struct fs *fs, struct fs_message *message)
{
    size_t offset = 0;
    struct making making = {.fs = fs,
                            .message = message,
                            .name = fs_name(message, &offset),
                            .target = fs_text(message, &offset, PATH_MAX - 1),
                            .mode = S_IFLNK,
                            .make = make_symlink,
                            .is_made = is_symlink};
    return making.name && !making.target ? -EINVAL : make(&making);
}

int op_link(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_link_in, in, message);
    size_t offset = sizeof(in);
    struct making making = {.fs = fs,
                            .message = message,
                            .name = fs_name(message, &offset),
                            .make = make_link,
                            .is_made = is_link};
    int result = node_get(fs, in.oldnodeid, &making.source);

    if (result < 0) {
        return result;
    }
    pthread_mutex_lock(&fs->lock);
    making.identity = fs->state->nodes[making.source.index].identity;
    bool directory = fs->state->nodes[making.source.index].type == S_IFDIR;
    pthread_mutex_unlock(&fs->lock);
    result = directory ? -EPERM : make(&making);
    node_put(fs, &making.source);
    return result;
}

/* ---- Making and opening ---- */

struct creation {
    struct fs *fs;
    struct fs_message *message;
    struct node_pin parent;
    const char *name; /* NULL: a file without one */
    int flags;
    bool exclusive;
    mode_t mode;
};

/* Open a regular file that is there. */
static int open_present(const struct creation *creation)
{
    struct statx status;
    int fd = fs_open_name(creation->parent.fd, creation->name);

    if (fd < 0) {
        return fd;
    }
    int result = fs_stat(fd, &status);
    if (result == 0) {
        result = S_ISREG(status.stx_mode) ? fs_reopen(creation->fs, fd, creation->flags) : -EEXIST;
    }
    close(fd);
    return result;
}

/* The open file or negative errno. */
static int create_once(const struct creation *creation)
{
    struct statx status;
    bool again = intent_of(creation->fs, creation->message);
    int directory = creation->parent.fd;
    int there = fs_stat_at(directory, creation->name, &status);

    if (there == 0 && again && S_ISREG(status.stx_mode) && status.stx_size == 0) {
        /* An earlier process made it and did not say so. Opening it may need what its mode does
         * not grant. */
        unlinkat(directory, creation->name, 0);
        there = -ENOENT;
    }
    if (there == 0 && !creation->exclusive) {
        return open_present(creation);
    }
    if (there == 0 || there == -EXDEV) {
        return -EEXIST;
    }
    if (there != -ENOENT) {
        return there;
    }
    intent_begin(creation->fs, creation->message, NULL, NULL);
    int fd = openat(directory, creation->name,
                    creation->flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY,
                    creation->mode);
    if (fd < 0 && errno == EEXIST && !creation->exclusive) {
        return open_present(creation);
    }
    return fd < 0 ? -errno : fd;
}

static int open_nameless(const struct creation *creation)
{
    int fd =
        openat(creation->parent.fd, ".",
               ((creation->flags & ~O_ACCMODE) | O_RDWR) | O_TMPFILE | O_CLOEXEC, creation->mode);
    return fd < 0 ? -errno : fd;
}

struct created {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
};
_Static_assert(sizeof(struct created) == sizeof(struct fuse_entry_out) + 16, "wire layout");

static uint32_t created_open_flags(const struct fs *fs)
{
    return fs->setting.cache == SHARE_CACHE_NEVER ? FOPEN_DIRECT_IO : FOPEN_KEEP_CACHE;
}

/* `fd` is taken. */
static int answer_creation(const struct creation *creation, int fd)
{
    struct fs *fs = creation->fs;
    struct fs_message *message = creation->message;
    struct created created = {.open = {.open_flags = created_open_flags(fs)}};
    struct node_pin pin;
    struct statx status;
    int path = fs_reopen(fs, fd, O_PATH);
    int result = path < 0 ? path : fs_stat(path, &status);

    if (result == 0) {
        result = fs_tell(fs, message->header.nodeid, creation->name ? creation->name : "", path,
                         &status, &created.entry);
    } else if (path >= 0) {
        close(path);
    }
    result = result < 0 ? result : node_get(fs, created.entry.nodeid, &pin);
    if (result < 0) {
        close(fd);
        return result;
    }
    result = handle_open(fs, message, pin.index, fd, creation->flags & ~O_TRUNC, SHARE_HANDLE_FILE,
                         &created.open.fh);
    if (result == 0 && !creation->name) {
        pthread_mutex_lock(&fs->lock);
        node_keep(fs, pin.index, true);
        pthread_mutex_unlock(&fs->lock);
    }
    node_put(fs, &pin);
    return result < 0 ? result : fs_reply(message, &created, sizeof(created));
}

static int create(struct creation *creation)
{
    struct fs *fs = creation->fs;
    struct fs_message *message = creation->message;
    int result = node_get(fs, message->header.nodeid, &creation->parent);

    if (result < 0) {
        return result;
    }
    int fd = creation->name ? create_once(creation) : open_nameless(creation);
    if (fd == -ENOENT) {
        fd = absent(creation->parent.fd);
    }
    result = fd < 0 ? fd : answer_creation(creation, fd);
    node_put(fs, &creation->parent);
    return result;
}

int op_create(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_create_in, in, message);
    size_t offset = sizeof(in);
    struct creation creation = {.fs = fs,
                                .message = message,
                                .name = fs_name(message, &offset),
                                .flags = (int)in.flags & FS_OPEN_FLAGS,
                                .exclusive = in.flags & O_EXCL,
                                .mode = fs_mode(in.mode)};
    return creation.name ? create(&creation) : message->status;
}

int op_tmpfile(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_create_in, in, message);
    struct creation creation = {.fs = fs,
                                .message = message,
                                .flags = (int)in.flags & FS_OPEN_FLAGS & ~O_TRUNC,
                                .mode = fs_mode(in.mode)};
    return create(&creation);
}
