/*
 * qcow2 images: read, written, checked, made, resized. The format's one implementation, for the
 * device process and for vmctl.
 *
 * An image is opened from a descriptor, which stays the caller's and must outlive it. Nobody else
 * may write to the file meanwhile. All functions but open, close, resize, repair may be called from
 * several threads at once, on ranges that overlap, too. They wait for the file; only those called
 * `_cached` never wait.
 *
 * What is on disk is in order at every instant: whoever ends the process leaves an image in which
 * at most clusters are lost (leaked), and everything that a finished request wrote. A host that
 * loses its power leaves the same of what was flushed: a barrier separates what must not be
 * overtaken. See docs/design/qcow2.md.
 */
#ifndef POLYVISOR_QCOW2_QCOW2_H
#define POLYVISOR_QCOW2_QCOW2_H

#include "libshared/base/error.h"
#include "libshared/qcow2/header.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define QCOW2_SECTOR 512u

struct qcow2;

/* What lies under an image: another one, or a raw file or block device. */
struct qcow2_backing {
    struct qcow2 *image; /* or NULL: */
    int fd;              /* raw, */
    uint64_t size;       /* bytes; beyond it there are zeroes */
};

/* Open and check an image. Read-only: nothing is ever written to it. Otherwise its unknown
 * autoclear bits are cleared, and reference counts that somebody left dirty are repaired; one that
 * is marked as corrupt is refused. `name` is for messages and copied. NULL with *err set. */
struct qcow2 *qcow2_open(int fd, const char *name, bool read_only, struct error *err);
/* Gives back what was reserved. Nothing may be under way. NULL is allowed. */
void qcow2_close(struct qcow2 *image);
/* Lay it over something, which must outlive it. Before the first request; without it, an image
 * that has a backing file reads as zeroes there. */
void qcow2_set_backing(struct qcow2 *image, const struct qcow2_backing *backing);

/* As it was when opened, but for its size and tables. */
const struct qcow2_header *qcow2_header(const struct qcow2 *image);
/* Of the disk: a multiple of QCOW2_SECTOR. */
uint64_t qcow2_size(const struct qcow2 *image);
uint32_t qcow2_cluster_bytes(const struct qcow2 *image);
/* Damage was found: it is not written any more. */
bool qcow2_is_corrupt(const struct qcow2 *image);

/* ---- Where the bytes are ---- */

enum qcow2_kind {
    QCOW2_HOLE, /* in the backing file, or zeroes without one */
    QCOW2_ZEROES,
    QCOW2_DATA,
    QCOW2_PACKED, /* compressed */
};

struct qcow2_extent {
    enum qcow2_kind kind;
    bool writable;   /* data that may be overwritten in place */
    uint64_t length; /* bytes from the place asked for */
    uint64_t host;   /* data: where in the file; compressed: the descriptor */
};

/* While bytes in the file are used (read or written in place), their clusters are not given to
 * anything else: between a map and the release of its use. */
typedef unsigned qcow2_use;

/* Where `offset` is, and up to `length` bytes after it that are of the same kind and contiguous.
 * 0 with *use to be released; or negative errno: -EAGAIN when that would take waiting. For writing
 * (`write`), what may be written in place is checked to be no table. */
int qcow2_map_cached(struct qcow2 *image, uint64_t offset, uint64_t length, bool write,
                     struct qcow2_extent *extent, qcow2_use *use);
void qcow2_release(struct qcow2 *image, qcow2_use use);

/* ---- Requests. Offsets and lengths in bytes, within the size, multiples of QCOW2_SECTOR ---- */

/* `vectors` hold at least `length` bytes. 0 or negative errno. */
int qcow2_read(struct qcow2 *image, uint64_t offset, uint64_t length, const struct iovec *vectors,
               unsigned count);
/* `durable`: it is on stable storage when this returns. */
int qcow2_write(struct qcow2 *image, uint64_t offset, uint64_t length, const struct iovec *vectors,
                unsigned count, bool durable);
/* `unmap`: no space needs to be kept for them. */
int qcow2_write_zeroes(struct qcow2 *image, uint64_t offset, uint64_t length, bool unmap,
                       bool durable);
/* Whole clusters only; what they read as afterwards is zeroes or what it was. */
int qcow2_discard(struct qcow2 *image, uint64_t offset, uint64_t length);
/* What was finished before is on stable storage; clusters that were given up become free. */
int qcow2_flush(struct qcow2 *image);
/* To `size` bytes; what is new reads as zeroes. No request may be under way. 0 or a negative code
 * (UNSUPPORTED, DISK, IO). */
int qcow2_resize(struct qcow2 *image, uint64_t size, struct error *err);

/* ---- Making one ---- */

struct qcow2_creation {
    uint64_t size;           /* bytes, rounded up to sectors */
    unsigned version;        /* 2 or 3; 0: 3 */
    unsigned cluster_bits;   /* 0: 16 */
    unsigned refcount_order; /* version 3; 4 unless refcount_order_given */
    bool refcount_order_given;
    const char *backing;        /* name, as it is to stand there; or NULL */
    const char *backing_format; /* "raw", "qcow2"; with a backing file */
};

/* Make an empty image in the empty file `fd`, durably. 0 or a negative code (CONFIG, IO). */
int qcow2_create(int fd, const char *name, const struct qcow2_creation *creation,
                 struct error *err);

/* ---- Checking ---- */

struct qcow2_report {
    uint64_t clusters;              /* of the file */
    uint64_t allocated, compressed; /* of the disk */
    uint64_t leaks;                 /* clusters that are counted and not used */
    uint64_t errors;                /* everything else that is wrong */
    uint64_t leaks_repaired, errors_repaired;
    uint64_t l1_entries;
    char first[160]; /* the first error in words; "" */
};

enum qcow2_repair { QCOW2_REPAIR_NOTHING, QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL };

/* Count all references of the image in `fd` and compare. With a repair the file is written;
 * ALL also sets counts that are too low, and marks; what is left of errors stays in the report. 0,
 * or a negative code when it could not be examined. */
int qcow2_check(int fd, const char *name, enum qcow2_repair repair, struct qcow2_report *report,
                struct error *err);

/* ---- Internal snapshots: kept, never made ---- */

struct qcow2_snapshot {
    uint64_t l1_offset, disk_size, state_size;
    uint32_t l1_size, seconds;
    char id[64], name[128]; /* cut */
};

/* The image's list and its length. */
const struct qcow2_snapshot *qcow2_snapshots(const struct qcow2 *image, unsigned *count);

#endif
