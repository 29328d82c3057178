/*
 * A disk's contents, whatever they are kept in: what virtio-blk (or another disk) reads and writes.
 *
 * An image is opened from a descriptor and taken requests for until it is closed. Requests are
 * asynchronous, may finish in any order, and several may work on the same bytes, like on any disk.
 * What a format adds (a file today, a format with tables or a network's protocol later) is behind
 * `struct block_operations`, one file each; it sees the same requests.
 *
 * Main thread only, but what an implementation does on threads of its own. Every operation is
 * repeatable: a process that was killed in the middle is followed by one that does it again.
 */
#ifndef POLYVISOR_DEVD_BLOCK_BLOCK_H
#define POLYVISOR_DEVD_BLOCK_BLOCK_H

#include "devd/workers.h"
#include "libshared/base/error.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define BLOCK_SECTOR        512u /* the unit of sizes and positions */
#define BLOCK_DESCRIBED_MAX 64

struct block;

enum block_operation {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,        /* what was finished before is on stable storage afterwards */
    BLOCK_DISCARD,      /* the bytes are not needed any more; what they read as is undefined */
    BLOCK_WRITE_ZEROES, /* they read as zeroes */
    BLOCK_RESIZE,       /* to `length` bytes */
};
#define BLOCK_OPERATIONS (BLOCK_RESIZE + 1)

struct block_request {
    /* The caller's, unchanged until `done` but for the vectors, which are used up. */
    enum block_operation operation;
    bool durable;            /* changes: on stable storage before they are done */
    bool unmap;              /* zeroes need no space */
    uint64_t offset, length; /* bytes; within the size, multiples of BLOCK_SECTOR */
    struct iovec *vectors;   /* of BLOCK_READ and BLOCK_WRITE: `length` bytes */
    unsigned vector_count;
    void (*done)(struct block_request *request); /* once; from block_start, or later */
    int status; /* for done: 0, or negative errno; -EOPNOTSUPP: it has no such operation */
    /* The implementation's, while it works. */
    struct work work;
    struct block *block;
    struct block_request *next;
    uint64_t left_offset; /* what is left to transfer begins here */
};

/* What the bytes of a descriptor are. */
enum block_format { BLOCK_FORMAT_RAW, BLOCK_FORMAT_QCOW2 };
#define BLOCK_BACKINGS_MAX 15

struct block_image {
    int fd;
    enum block_format format;
};

/* How an image is to be used. */
struct block_settings {
    bool read_only;
    bool threads; /* never io_uring */
    enum block_format format;
    /* Of formats with holes: what is seen through them, nearest first. Only read. */
    const struct block_image *backings;
    unsigned backing_count; /* at most BLOCK_BACKINGS_MAX */
    /* Of a network disk (nbd/disk.c), whose descriptor is a channel to vmmd: where it is, how long
     * requests wait for the server, and what was known of it, which is the next process's. */
    const char *nbd; /* libshared/nbd/uri.h; NULL: it is none */
    unsigned timeout_s;
    struct block_kept *kept;
};

/* What a backend keeps for the process after this one. All zeros: nothing yet. */
struct block_kept {
    uint32_t magic;
    uint32_t flags;
    uint64_t size;
    uint32_t physical_bytes, discard_bytes;
};

struct block {
    const struct block_operations *operations;
    /* What it can do. The size changes by BLOCK_RESIZE, or when somebody else changed it. */
    uint64_t size;  /* bytes, a multiple of BLOCK_SECTOR */
    bool read_only; /* also when the descriptor is */
    bool can_discard, can_zero, can_resize;
    uint32_t logical_bytes;              /* what can be transferred without reading around it */
    uint32_t physical_bytes;             /* what can be written without that; a power of two */
    uint32_t discard_bytes;              /* what is given back as a whole */
    char described[BLOCK_DESCRIBED_MAX]; /* for people: "file, io_uring" */
    /* The caller's. */
    void (*settled)(void *context);
    /* It lost what its contents are kept in, or has it again (`well`). NULL: nobody listens. */
    void (*told)(void *context, bool well, const char *text);
    void *context;
    unsigned busy; /* requests not done yet */
};

struct block_operations {
    void (*submit)(struct block *block, struct block_request *request);
    void (*start)(struct block *block);
    /* Look how large it is now: 0 or negative errno. */
    int (*measure)(struct block *block);
    int (*flush)(struct block *block);
    void (*close)(struct block *block);
    /* See block_let_go. NULL: nothing waits for what may never come. */
    void (*let_go)(struct block *block, bool (*is_over)(const struct block_request *request));
};

/* Open the image in `fd`, which stays the caller's and must outlive it; one with O_DIRECT is used
 * past the host's cache. `settled` is called after one or more `done` that did not come from
 * block_start. NULL with *err set (DISK, UNSUPPORTED, INTERNAL). */
struct block *block_open(int fd, const struct block_settings *settings, struct event_base *base,
                         void (*settled)(void *context), void *context, struct error *err);
/* Waits for what has begun; the rest is dropped without a call. */
void block_close(struct block *block);

/* Take a request; it may not begin before block_start. */
void block_submit(struct block *block, struct block_request *request);
/* Take it again after it failed: what is left of it. */
void block_resume(struct block *block, struct block_request *request);
/* Begin all that was submitted. Some of it may be done when it returns. */
void block_start(struct block *block);
/* Notice that the size has changed from outside. 0 or negative errno. */
int block_measure(struct block *block);
/* Make everything durable and wait for it: 0 or negative errno. For the end. */
int block_flush(struct block *block);

/* Nobody waits any more for the requests of which `is_over` says so: those that have not begun and
 * wait for something outside are done now, with -ECANCELED. */
void block_let_go(struct block *block, bool (*is_over)(const struct block_request *request));

/* For implementations: the request is done. */
void block_finish(struct block_request *request, int status);
/* The backend that is a file or a block device: see file.c. */
struct block *block_file_open(int fd, const struct block_settings *settings,
                              struct event_base *base, struct error *err);
/* The one that a server has: see nbd/disk.c. Only programs with libnbd in them have it. */
struct block *block_nbd_open(int fd, const struct block_settings *settings, struct event_base *base,
                             struct error *err);

/* The one that is a qcow2 image and what lies under it: see qcow2/disk.c. */
struct block *block_qcow2_open(int fd, const struct block_settings *settings,
                               struct event_base *base, struct error *err);

#endif
