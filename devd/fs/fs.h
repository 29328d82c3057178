/*
 * A shared directory: FUSE requests of a guest (Linux' fuse.h, version 7) answered from a directory
 * of the host. devd/devices/virtio_fs.c brings the requests; nothing here knows of queues.
 *
 * Nothing above the directory can be reached. A request names files by numbers that it was given
 * (nodes.h) and by single names; a name is looked up in the directory that a descriptor holds, with
 * links and mount points refused, and a file once found is used by its descriptor, never by its
 * name again. What is opened are regular files and directories, nothing else.
 *
 * All that the guest relies on is in memory that outlives the process (libshared/share/state.h);
 * keep.h says how descriptors do, intent.h how a request that cannot be done twice is repeated.
 *
 * fs_run may be called on any thread, for several requests at once; all else on the main thread
 * while no request runs.
 */
#ifndef POLYVISOR_DEVD_FS_FS_H
#define POLYVISOR_DEVD_FS_FS_H

#include "libshared/base/error.h"
#include "libshared/share/setting.h"
#include "libshared/share/state.h"
#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define FS_WRITE_MAX     (1u << 20)   /* bytes of one read or write */
#define FS_ARGUMENTS_MAX (96u * 1024) /* of a message, besides the data of a write */

struct fs;

struct fs_options {
    struct share_setting setting;
    int root;              /* the directory, O_PATH or readable; borrowed until fs_create returns */
    const char *links;     /* folder of links to the process's descriptors: /proc/self/fd */
    int state;             /* memory of SHARE_STATE_SIZE bytes; borrowed likewise */
    int keep_in, keep_out; /* the two ends of keep.h; taken. -1: descriptors do not survive */
    unsigned cached;       /* descriptors of files that are kept open at most */
    unsigned known;        /* files above which the guest is to keep none that it does not use */
    uid_t host_uid;        /* whom the process will be when requests come */
};

/* One request, from when it was read to when it is answered. */
struct fs_message {
    struct fuse_in_header header; /* a copy */
    const uint8_t *arguments;     /* a copy of what follows it, at most FS_ARGUMENTS_MAX bytes */
    size_t argument_bytes;
    const struct iovec *data; /* of a write: what follows its arguments, in guest memory */
    unsigned data_count;
    uint64_t data_bytes;
    const struct iovec *reply; /* where the answer goes, in guest memory */
    unsigned reply_count;
    uint64_t reply_room;
    unsigned slot;  /* which intent is its own: below SHARE_QUEUES_MAX * SHARE_SLOTS */
    bool again;     /* an earlier process had taken it, and perhaps done it */
    bool impatient; /* do not wait for the disk: rather answer nothing and set `waits` */
    bool waits;
    int status;     /* 0, or the negative errno that is the answer */
    size_t replied; /* bytes of the answer; 0: it has none */
};

/* NULL with *err set. With a session in the state it goes on with that. */
struct fs *fs_create(struct fs_options *options, struct error *err);
void fs_destroy(struct fs *fs);
/* Do what it asks and write the answer. */
void fs_run(struct fs *fs, struct fs_message *message);
/* The session is over, or the driver was reset: the guest knows no file and has none open. */
void fs_reset(struct fs *fs);

/* Let go of descriptors of files that were not used since the last call: once the host has removed
 * them their room is to be free. Whether to call it again. May be called while requests run. */
bool fs_tidy(struct fs *fs);

/* Whether the request may only run while no other does. */
bool fs_is_alone(uint32_t opcode);
/* Whether it takes long by its nature. */
bool fs_is_slow(uint32_t opcode);
/* Whether an earlier process was about to do it: such requests come first when they are repeated,
 * since the names that others need depend on them. */
bool fs_was_begun(const struct fs *fs, const struct fs_message *message);
/* How many bytes of a message are its arguments, when the rest is data: all but for a write. */
size_t fs_argument_bytes(uint32_t opcode, size_t bytes);

#endif
