/* The session: its beginning and end, what the guest forgets, and the file system as a whole. */
#include "devd/fs/nodes.h"

#include <errno.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MINOR_LEAST    31u /* older ones lack messages that are taken for granted here */
#define READAHEAD      FS_WRITE_MAX
#define BACKGROUND     64u
#define PAGE           4096u
#define EXTENDED_INIT  64u /* bytes of FUSE_INIT's arguments that have flags2 */
#define FORGET_PLANNED 1u
#define FORGET_DONE    2u

#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#endif

/* What is taken of what the guest's kernel offers. Not taken, and why: the write-back cache (sizes
 * and times would be the guest's, whatever the host did meanwhile); locks (they are the guest's
 * own: programs of the host do not see them); ACLs (groups and users differ); submounts (none are
 * crossed); DAX (the device has no memory window). */
static uint64_t wanted_flags(const struct fs *fs)
{
    uint64_t flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
                     FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                     FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT |
                     FUSE_AUTO_INVAL_DATA;

    if (fs->setting.cache == SHARE_CACHE_ALWAYS) {
        flags = (flags & ~(uint64_t)FUSE_AUTO_INVAL_DATA) | FUSE_CACHE_SYMLINKS;
    }
    if (fs->setting.cache == SHARE_CACHE_NEVER) {
        flags |= FUSE_DIRECT_IO_ALLOW_MMAP;
    }
    return flags;
}

int op_init(struct fs *fs, struct fs_message *message)
{
    struct fuse_init_in in = {0};
    size_t bytes = message->argument_bytes < sizeof(in) ? message->argument_bytes : sizeof(in);

    memcpy(&in, message->arguments, bytes);
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION};
    if (in.major > FUSE_KERNEL_VERSION) { /* it asks again with ours */
        return fs_reply(message, &out, sizeof(out));
    }
    if (in.major < FUSE_KERNEL_VERSION || in.minor < MINOR_LEAST) {
        return -EPROTO;
    }
    bool extended = in.flags & FUSE_INIT_EXT && message->argument_bytes >= EXTENDED_INIT;
    uint64_t flags = (in.flags | (extended ? (uint64_t)in.flags2 << 32 : 0)) & wanted_flags(fs);
    fs_reset(fs);
    out.max_readahead = in.max_readahead < READAHEAD ? in.max_readahead : READAHEAD;
    out.flags = (uint32_t)flags;
    out.flags2 = (uint32_t)(flags >> 32);
    out.max_background = BACKGROUND;
    out.congestion_threshold = BACKGROUND * 3 / 4;
    out.max_write = FS_WRITE_MAX;
    out.max_pages = FS_WRITE_MAX / PAGE;
    out.time_gran = 1;
    fs->state->flags = out.flags;
    fs->state->flags2 = out.flags2;
    fs->state->session = 1;
    return fs_reply(message, &out, sizeof(out));
}

int op_destroy(struct fs *fs, struct fs_message *message)
{
    fs_reset(fs);
    return fs_reply(message, NULL, 0);
}

/* Less by `count` for one node. When the process dies in between, the message comes again: what is
 * written down says whether this part of it was done. */
static void forget_one(struct fs *fs, const struct fs_message *message, uint32_t position,
                       uint64_t number, uint64_t count)
{
    struct share_forget *log = &fs->state->forget;

    pthread_mutex_lock(&fs->lock);
    bool logged = message->again && log->phase && log->unique == message->header.unique;
    uint32_t index = node_index(fs, number);
    if (logged && position < log->position) {
        index = 0;
    } else if (logged && position == log->position) {
        if (index && log->phase == FORGET_PLANNED && log->node == index) {
            node_set_lookups(fs, index, log->lookups);
        }
        index = 0;
    }
    if (index && index != SHARE_ROOT) {
        uint64_t present = fs->state->nodes[index].lookups;
        log->phase = 0;
        log->unique = message->header.unique;
        log->position = position;
        log->node = index;
        log->lookups = count < present ? present - count : 0;
        log->phase = FORGET_PLANNED;
        node_set_lookups(fs, index, log->lookups);
        log->phase = FORGET_DONE;
    }
    pthread_mutex_unlock(&fs->lock);
}

int op_forget(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_forget_in, in, message);
    forget_one(fs, message, 0, message->header.nodeid, in.nlookup);
    return 0;
}

int op_batch_forget(struct fs *fs, struct fs_message *message)
{
    FS_ARGUMENTS(struct fuse_batch_forget_in, in, message);
    size_t most = (message->argument_bytes - sizeof(in)) / sizeof(struct fuse_forget_one);

    for (uint32_t i = 0; i < in.count && i < most; i++) {
        struct fuse_forget_one one;
        memcpy(&one, message->arguments + sizeof(in) + i * sizeof(one), sizeof(one));
        forget_one(fs, message, i, one.nodeid, one.nlookup);
    }
    return 0;
}

int op_statfs(struct fs *fs, struct fs_message *message)
{
    struct fuse_statfs_out out = {0};
    struct statfs status;

    if (fstatfs(fs->sync, &status) < 0) {
        return -errno;
    }
    out.st = (struct fuse_kstatfs){
        .blocks = status.f_blocks,
        .bfree = status.f_bfree,
        .bavail = status.f_bavail,
        .files = status.f_files,
        .ffree = status.f_ffree,
        .bsize = (uint32_t)status.f_bsize,
        .namelen = SHARE_NAME_MAX,
        .frsize = (uint32_t)status.f_frsize,
    };
    return fs_reply(message, &out, sizeof(out));
}

int op_syncfs(struct fs *fs, struct fs_message *message)
{
    return syncfs(fs->sync) < 0 ? -errno : fs_reply(message, NULL, 0);
}
