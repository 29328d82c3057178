/*
 * Directories' contents. A position is the host file system's own (telldir's), so it means the same
 * to the next process. With READDIRPLUS the guest is told of each file: one call for each, and no
 * descriptor until the file is used.
 */
#include "devd/fs/handles.h"
#include "devd/fs/nodes.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LISTING_MAX (256u * 1024) /* bytes of one answer */
#define CHUNK       16384u        /* bytes asked of the host at once */

struct listing {
    struct fs *fs;
    struct fs_message *message;
    struct handle_pin handle;
    uint8_t *bytes; /* of the answer */
    size_t used, room;
    bool plus;
};

int op_opendir(struct fs *fs, struct fs_message *message)
{
    struct fuse_open_out out = {0};
    struct node_pin pin;
    int result = node_get(fs, message->header.nodeid, &pin);

    if (result < 0) {
        return result;
    }
    int fd = fs_reopen(fs, pin.fd, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        result = handle_open(fs, message, pin.index, fd, O_RDONLY | O_DIRECTORY,
                             SHARE_HANDLE_DIRECTORY, &out.fh);
    }
    node_put(fs, &pin);
    result = fd < 0 ? fd : result;
    return result < 0 ? result : fs_reply(message, &out, sizeof(out));
}

/* Whether the guest would keep what it is told: else it forgets it at once, and asks again. */
static bool is_worth_telling(struct fs *fs)
{
    pthread_mutex_lock(&fs->lock);
    bool room = nodes_have_room(fs);
    pthread_mutex_unlock(&fs->lock);
    return room && fs->setting.cache != SHARE_CACHE_NEVER;
}

/* What the guest is told of a file beside its name; nothing when it cannot be told of. */
static void tell_of(const struct listing *listing, const char *name, struct fuse_entry_out *entry)
{
    struct fs *fs = listing->fs;
    struct statx status;

    memset(entry, 0, sizeof(*entry));
    if (is_worth_telling(fs) && fs_name_valid(name, strlen(name)) &&
        fs_stat_at(listing->handle.fd, name, &status) == 0) {
        fs_tell(fs, listing->message->header.nodeid, name, -1, &status, entry);
    }
}

/* One more file in the answer. False: it is full. */
static bool append(struct listing *listing, const struct dirent64 *from)
{
    size_t length = strlen(from->d_name);
    size_t head = listing->plus ? sizeof(struct fuse_entry_out) : 0;
    size_t size = FUSE_REC_ALIGN(head + FUSE_NAME_OFFSET + length);
    struct fuse_dirent entry = {.ino = from->d_ino,
                                .off = (uint64_t)from->d_off,
                                .namelen = (uint32_t)length,
                                .type = from->d_type};

    if (size > listing->room - listing->used) {
        return false;
    }
    uint8_t *to = listing->bytes + listing->used;
    memset(to, 0, size);
    if (listing->plus) {
        struct fuse_entry_out about;
        tell_of(listing, from->d_name, &about);
        memcpy(to, &about, sizeof(about));
    }
    memcpy(to + head, &entry, FUSE_NAME_OFFSET);
    memcpy(to + head + FUSE_NAME_OFFSET, from->d_name, length);
    listing->used += size;
    return true;
}

/* From the present position on, as much as fits. */
static int fill(struct listing *listing)
{
    _Alignas(struct dirent64) char chunk[CHUNK];
    bool more = true;

    while (more) {
        long got = syscall(SYS_getdents64, listing->handle.fd, chunk, sizeof(chunk));
        if (got < 0) {
            return listing->used ? 0 : -errno;
        }
        more = got > 0;
        for (long at = 0; more && at < got;) {
            /* The kernel's record; the C library's has the same layout. */
            const struct dirent64 *from = (const void *)(chunk + at);
            at += from->d_reclen;
            more = append(listing, from);
            if (!more && !listing->used) {
                return -EINVAL; /* not even one fits: no end */
            }
        }
    }
    return 0;
}

static int list_at(struct listing *listing, uint64_t offset)
{
    pthread_mutex_t *turn = &listing->fs->turns[listing->handle.index % FS_TURNS];
    int result;

    pthread_mutex_lock(turn); /* the position is the descriptor's */
    if (lseek(listing->handle.fd, (off_t)offset, SEEK_SET) < 0) {
        result = -errno;
    } else {
        result = fill(listing);
    }
    pthread_mutex_unlock(turn);
    return result;
}

static int list(struct fs *fs, struct fs_message *message, bool plus)
{
    FS_ARGUMENTS(struct fuse_read_in, in, message);
    struct listing listing = {.fs = fs, .message = message, .plus = plus};
    uint64_t room = message->reply_room > sizeof(struct fuse_out_header)
                        ? message->reply_room - sizeof(struct fuse_out_header)
                        : 0;

    room = room < in.size ? room : in.size;
    listing.room = room < LISTING_MAX ? (size_t)room : LISTING_MAX;
    listing.bytes = malloc(listing.room ? listing.room : 1);
    if (!listing.bytes) {
        return -ENOMEM;
    }
    int result =
        handle_get(fs, in.fh, message->header.nodeid, SHARE_HANDLE_DIRECTORY, &listing.handle);
    if (result == 0) {
        result = list_at(&listing, in.offset);
        handle_put(fs, &listing.handle);
    }
    if (result == 0) {
        result = fs_reply(message, listing.bytes, listing.used);
    }
    free(listing.bytes);
    return result;
}

int op_readdir(struct fs *fs, struct fs_message *message)
{
    return list(fs, message, false);
}

int op_readdirplus(struct fs *fs, struct fs_message *message)
{
    return list(fs, message, true);
}
