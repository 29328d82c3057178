/* What the files of devd/fs share: the object, and how an operation reads and answers. */
#ifndef POLYVISOR_DEVD_FS_INTERNAL_H
#define POLYVISOR_DEVD_FS_INTERNAL_H

#include "devd/fs/fs.h"
#include "devd/fs/keep.h"
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#define FS_TURNS 16u /* locks for the positions of directories */

struct node_table;
struct handle_table;

struct fs {
    struct share_setting setting;
    struct share_state *state; /* shared with the next process */
    pthread_mutex_t lock;      /* of the tables, of the state, and of `keep` */
    struct node_table *nodes;
    struct handle_table *handles;
    struct keep keep;
    int root;  /* O_PATH */
    int links; /* O_PATH, of the folder of links to descriptors */
    char links_path[32];
    int sync; /* the root, opened */
    uid_t host_uid;
    pthread_mutex_t turns[FS_TURNS];
};

/* ---- Messages (message.c) ---- */

/* The fixed part of the arguments; that they are so long was checked by the table of operations. */
#define FS_ARGUMENTS(type, name, message)                                                          \
    type name;                                                                                     \
    memcpy(&name, (message)->arguments, sizeof(name))

/* The name that begins at byte *offset of the arguments; *offset is then behind it. NULL with the
 * message's status set: there is none, or none that a file can have (`.` and `..` are no names). */
const char *fs_name(struct fs_message *message, size_t *offset);
/* The same for any text of 1 to `limit` bytes: the contents of a symbolic link. */
const char *fs_text(const struct fs_message *message, size_t *offset, size_t limit);
bool fs_name_valid(const char *name, size_t length);

/* Answer. An answer that does not fit becomes -EINVAL. Returns 0. */
int fs_reply(struct fs_message *message, const void *bytes, size_t size);
/* Answer with `bytes` that are already in the segments fs_reply_segments gave. */
int fs_reply_written(struct fs_message *message, size_t bytes);
int fs_reply_error(struct fs_message *message, int status);
/* The segments for at most `limit` bytes behind the answer's header. How many; in `segments` is
 * room for as many as the message has. *bytes: what they hold. */
unsigned fs_reply_segments(const struct fs_message *message, struct iovec *segments, uint64_t limit,
                           uint64_t *bytes);

/* ---- Attributes (attributes.c) ---- */

/* Of an open or O_PATH descriptor; or of a name in a directory, which is not followed. 0 or
 * negative errno. -EXDEV: a mount point. */
int fs_stat(int fd, struct statx *status);
int fs_stat_at(int directory, const char *name, struct statx *status);
struct share_identity fs_identity(const struct statx *status);
bool fs_same(const struct share_identity *one, const struct share_identity *other);
void fs_attributes(const struct fs *fs, const struct statx *status, struct fuse_attr *attributes);
/* How long the guest may go by what it was told of a name and of attributes. */
struct fs_valid {
    uint64_t seconds;
    uint32_t nanoseconds;
};
struct fs_valid fs_valid(const struct fs *fs, const struct statx *status);
/* The flags of open(2) that a guest has a say in. */
#define FS_OPEN_FLAGS (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)
/* The bits of a mode that a guest may set: no set-id bits. */
mode_t fs_mode(mode_t mode);
/* The path of the link that leads to a descriptor, relative to fs->links. */
struct fs_link {
    char path[16];
};
struct fs_link fs_link_to(int fd);
/* Open what an O_PATH descriptor holds. The descriptor or negative errno. */
int fs_reopen(const struct fs *fs, int fd, int flags);
/* An O_PATH descriptor of a name in a directory: not followed, not on another mount. */
int fs_open_name(int directory, const char *name);

/* ---- Operations: 0 when answered, or a negative errno that is the answer ---- */

typedef int fs_operation(struct fs *fs, struct fs_message *message);
fs_operation op_init, op_destroy, op_forget, op_batch_forget, op_statfs, op_syncfs;
fs_operation op_lookup, op_mknod, op_mkdir, op_symlink, op_link, op_create, op_tmpfile;
fs_operation op_unlink, op_rmdir, op_rename, op_rename2;
fs_operation op_getattr, op_setattr, op_readlink;
fs_operation op_open, op_release, op_read, op_write, op_fsync, op_fallocate, op_lseek,
    op_copy_file_range;
fs_operation op_opendir, op_readdir, op_readdirplus;
fs_operation op_setxattr, op_getxattr, op_listxattr, op_removexattr;

/* Tell the guest of a file, which counts as a lookup more. `fd` is its O_PATH descriptor, taken in
 * any case, or -1. 0 or -ENFILE. */
int fs_tell(struct fs *fs, uint64_t parent, const char *name, int fd, const struct statx *status,
            struct fuse_entry_out *entry);

#endif
