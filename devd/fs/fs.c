/* The object, and which operation answers which request. */
#include "devd/fs/fs.h"

#include "devd/fs/fs_internal.h"
#include "devd/fs/handles.h"
#include "devd/fs/intent.h"
#include "devd/fs/nodes.h"
#include "libshared/base/descriptor.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum operation_traits {
    CHANGES = 1,  /* refused where the share is read-only */
    ALONE = 2,    /* while no other runs */
    SLOW = 4,     /* by its nature */
    BEGINNING = 8 /* makes the session */
};

struct operation {
    fs_operation *run;
    uint16_t bytes; /* of its arguments, at least */
    uint16_t traits;
};

#define ARGUMENTS(type) sizeof(struct fuse_##type##_in)

static const struct operation operations[] = {
    [FUSE_LOOKUP] = {op_lookup, 2, 0},
    [FUSE_FORGET] = {op_forget, ARGUMENTS(forget), 0},
    [FUSE_GETATTR] = {op_getattr, ARGUMENTS(getattr), 0},
    [FUSE_SETATTR] = {op_setattr, ARGUMENTS(setattr), CHANGES},
    [FUSE_READLINK] = {op_readlink, 0, 0},
    [FUSE_SYMLINK] = {op_symlink, 4, CHANGES},
    [FUSE_MKNOD] = {op_mknod, ARGUMENTS(mknod) + 2, CHANGES},
    [FUSE_MKDIR] = {op_mkdir, ARGUMENTS(mkdir) + 2, CHANGES},
    [FUSE_UNLINK] = {op_unlink, 2, CHANGES},
    [FUSE_RMDIR] = {op_rmdir, 2, CHANGES},
    [FUSE_RENAME] = {op_rename, ARGUMENTS(rename) + 4, CHANGES},
    [FUSE_RENAME2] = {op_rename2, ARGUMENTS(rename2) + 4, CHANGES},
    [FUSE_LINK] = {op_link, ARGUMENTS(link) + 2, CHANGES},
    [FUSE_OPEN] = {op_open, ARGUMENTS(open), 0},
    [FUSE_READ] = {op_read, ARGUMENTS(read), 0},
    [FUSE_WRITE] = {op_write, ARGUMENTS(write), CHANGES},
    [FUSE_STATFS] = {op_statfs, 0, 0},
    [FUSE_RELEASE] = {op_release, ARGUMENTS(release), 0},
    [FUSE_FSYNC] = {op_fsync, ARGUMENTS(fsync), SLOW},
    [FUSE_SETXATTR] = {op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE + 2, CHANGES},
    [FUSE_GETXATTR] = {op_getxattr, ARGUMENTS(getxattr) + 2, 0},
    [FUSE_LISTXATTR] = {op_listxattr, ARGUMENTS(getxattr), 0},
    [FUSE_REMOVEXATTR] = {op_removexattr, 2, CHANGES},
    [FUSE_INIT] = {op_init, 16, ALONE | BEGINNING},
    [FUSE_OPENDIR] = {op_opendir, ARGUMENTS(open), 0},
    [FUSE_READDIR] = {op_readdir, ARGUMENTS(read), 0},
    [FUSE_RELEASEDIR] = {op_release, ARGUMENTS(release), 0},
    [FUSE_FSYNCDIR] = {op_fsync, ARGUMENTS(fsync), SLOW},
    [FUSE_CREATE] = {op_create, ARGUMENTS(create) + 2, CHANGES},
    [FUSE_DESTROY] = {op_destroy, 0, ALONE},
    [FUSE_BATCH_FORGET] = {op_batch_forget, ARGUMENTS(batch_forget), 0},
    [FUSE_FALLOCATE] = {op_fallocate, ARGUMENTS(fallocate), CHANGES | SLOW},
    [FUSE_READDIRPLUS] = {op_readdirplus, ARGUMENTS(read), 0},
    [FUSE_LSEEK] = {op_lseek, ARGUMENTS(lseek), 0},
    [FUSE_COPY_FILE_RANGE] = {op_copy_file_range, ARGUMENTS(copy_file_range), CHANGES | SLOW},
    [FUSE_SYNCFS] = {op_syncfs, 0, SLOW},
    [FUSE_TMPFILE] = {op_tmpfile, ARGUMENTS(create), CHANGES},
};

static const struct operation *find(uint32_t opcode)
{
    return opcode < sizeof(operations) / sizeof(operations[0]) && operations[opcode].run
               ? &operations[opcode]
               : NULL;
}

bool fs_is_alone(uint32_t opcode)
{
    const struct operation *operation = find(opcode);
    return operation && operation->traits & ALONE;
}

bool fs_is_slow(uint32_t opcode)
{
    const struct operation *operation = find(opcode);
    return operation && operation->traits & SLOW;
}

bool fs_was_begun(const struct fs *fs, const struct fs_message *message)
{
    return intent_of(fs, message) != NULL;
}

size_t fs_argument_bytes(uint32_t opcode, size_t bytes)
{
    return opcode == FUSE_WRITE && bytes > sizeof(struct fuse_write_in)
               ? sizeof(struct fuse_write_in)
               : bytes;
}

void fs_run(struct fs *fs, struct fs_message *message)
{
    const struct operation *operation = find(message->header.opcode);
    int status;

    message->waits = false;
    message->replied = 0;
    message->status = 0;
    if (message->header.opcode == FUSE_INTERRUPT) {
        return; /* nothing waits for long, and there is no answer to this */
    }
    if (!operation) {
        status = -ENOSYS;
    } else if (message->argument_bytes < operation->bytes) {
        status = -EINVAL;
    } else if (!fs->state->session && !(operation->traits & BEGINNING)) {
        status = -EIO;
    } else if (operation->traits & CHANGES && fs->setting.read_only) {
        status = -EROFS;
    } else {
        status = operation->run(fs, message);
    }
    message->status = status;
    if (status < 0 && !message->waits) {
        fs_reply_error(message, status);
    }
}

void fs_reset(struct fs *fs)
{
    pthread_mutex_lock(&fs->lock);
    fs->state->session = 0;
    keep_clear(&fs->keep);
    handles_clear(fs);
    nodes_clear(fs);
    memset(fs->state->intents, 0, sizeof(fs->state->intents));
    memset(&fs->state->forget, 0, sizeof(fs->state->forget));
    pthread_mutex_unlock(&fs->lock);
}

bool fs_tidy(struct fs *fs)
{
    pthread_mutex_lock(&fs->lock);
    bool more = nodes_tidy(fs);
    pthread_mutex_unlock(&fs->lock);
    return more;
}

static int open_places(struct fs *fs, const struct fs_options *options, struct error *err)
{
    struct stat root;

    fs->root = openat(options->root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    fs->sync = openat(options->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fs->root < 0 || fs->sync < 0 || fstat(fs->root, &root) < 0) {
        return error_set(err, errno == EACCES ? ERROR_PERMISSION : ERROR_CONFIG, errno,
                         "cannot open the shared directory '%.100s': %s", fs->setting.path,
                         strerror(errno));
    }
    snprintf(fs->links_path, sizeof(fs->links_path), "%s", options->links);
    fs->links = open(options->links, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fs->links < 0) {
        return error_set(err, ERROR_UNSUPPORTED, errno, "this host has no '%s'", options->links);
    }
    return 0;
}

static int take_over(struct fs *fs, const struct fs_options *options, struct error *err)
{
    struct stat info;
    void *map = MAP_FAILED;

    if (fstat(options->state, &info) == 0 && info.st_size >= (off_t)SHARE_STATE_SIZE) {
        map = mmap(NULL, SHARE_STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, options->state, 0);
    }
    if (map == MAP_FAILED) {
        return error_set(err, ERROR_CONFIG, 0, "got no memory for the state of a share");
    }
    fs->state = map;
    if (fs->state->magic != SHARE_STATE_MAGIC || fs->state->version != SHARE_STATE_VERSION) {
        return error_set(err, ERROR_PROTOCOL, 0, "the state of the share is of another version");
    }
    if (nodes_create(fs, options->cached, options->known) < 0 || handles_create(fs) < 0) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the share's files");
    }
    pthread_mutex_lock(&fs->lock);
    keep_recover(&fs->keep, handle_found, fs);
    nodes_sweep(fs);
    pthread_mutex_unlock(&fs->lock);
    return 0;
}

struct fs *fs_create(struct fs_options *options, struct error *err)
{
    struct fs *fs = calloc(1, sizeof(*fs));

    if (!fs) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for a share");
        return NULL;
    }
    fs->setting = options->setting;
    fs->root = fs->links = fs->sync = -1;
    fs->host_uid = options->host_uid;
    keep_open(&fs->keep, options->keep_in, options->keep_out);
    options->keep_in = options->keep_out = -1;
    pthread_mutex_init(&fs->lock, NULL);
    for (unsigned i = 0; i < FS_TURNS; i++) {
        pthread_mutex_init(&fs->turns[i], NULL);
    }
    int status = open_places(fs, options, err);
    if (status < 0 || take_over(fs, options, err) < 0) {
        fs_destroy(fs);
        return NULL;
    }
    return fs;
}

void fs_destroy(struct fs *fs)
{
    if (!fs) {
        return;
    }
    handles_destroy(fs);
    nodes_destroy(fs);
    keep_close(&fs->keep);
    if (fs->state) {
        munmap(fs->state, SHARE_STATE_SIZE);
    }
    descriptor_close(&fs->root);
    descriptor_close(&fs->links);
    descriptor_close(&fs->sync);
    pthread_mutex_destroy(&fs->lock);
    for (unsigned i = 0; i < FS_TURNS; i++) {
        pthread_mutex_destroy(&fs->turns[i]);
    }
    free(fs);
}
