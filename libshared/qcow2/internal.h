/*
 * Between the parts of libshared/qcow2. `lock` guards all that is in the struct but what says
 * otherwise; functions that end in _locked are called with it held.
 */
#ifndef POLYVISOR_QCOW2_INTERNAL_H
#define POLYVISOR_QCOW2_INTERNAL_H

#include "libshared/base/direct_io.h"
#include "libshared/base/vectors.h"
#include "libshared/qcow2/format.h"
#include "libshared/qcow2/qcow2.h"
#include <pthread.h>
#include <stdatomic.h>

#define QCOW2_SLICE_BYTES     4096u /* of tables in the caches, or a cluster if that is less */
#define QCOW2_L2_SLICES       1024u
#define QCOW2_REFCOUNT_SLICES 256u
#define QCOW2_UNPACKED        4u /* decompressed clusters kept */

/* Pieces of memory of one request, and of one transfer, which may have something around them. */
#define QCOW2_VECTORS_MAX  1024u
#define QCOW2_TRANSFER_MAX (QCOW2_VECTORS_MAX + 2)

/* ---- io.c: the file ---- */

struct qcow2_io {
    int fd;
    bool direct; /* the descriptor is: what is not aligned goes through a buffer */
    struct direct_alignment alignment;
    pthread_mutex_t around;  /* held while a block is read, changed and written back */
    pthread_mutex_t lock;    /* of what follows */
    pthread_cond_t finished; /* a synchronisation has */
    bool running;
    uint64_t begun, done, failures;
};

int qcow2_io_open(struct qcow2_io *io, int fd);
void qcow2_io_close(struct qcow2_io *io);
/* All of it, waiting. What is beyond the end of the file reads as zeroes. 0 or negative errno.
 * Writes of less than a block of direct access exclude each other, not those of whole blocks: the
 * disk's data are never less, and tables have clusters of their own. */
int qcow2_io_read(const struct qcow2_io *io, void *buffer, size_t size, uint64_t offset);
int qcow2_io_write(struct qcow2_io *io, const void *buffer, size_t size, uint64_t offset);
int qcow2_io_readv(const struct qcow2_io *io, const struct iovec *vectors, unsigned count,
                   uint64_t size, uint64_t offset);
int qcow2_io_writev(struct qcow2_io *io, const struct iovec *vectors, unsigned count, uint64_t size,
                    uint64_t offset);
/* What was written before is on stable storage; threads that wait at the same time share one
 * fdatasync. 0 or negative errno. */
int qcow2_io_barrier(struct qcow2_io *io);

/* ---- slices.c: a bounded cache of pieces of tables, written through ---- */

struct qcow2_slice {
    uint64_t offset; /* in the file; 0: unused */
    uint8_t *data;   /* as on disk */
    uint32_t next;   /* in its chain: index + 1 */
    bool used;       /* lately */
};

struct qcow2_slices {
    struct qcow2_io *io;
    uint32_t bytes, count, hand, buckets;
    struct qcow2_slice *slices;
    uint32_t *heads;
};

int qcow2_slices_open(struct qcow2_slices *cache, struct qcow2_io *io, uint32_t bytes,
                      uint32_t count);
void qcow2_slices_close(struct qcow2_slices *cache);
/* The slice that holds byte `offset`, read when `wait`; *data is valid until the next call. 0 or
 * negative errno, -EAGAIN. */
int qcow2_slice_get(struct qcow2_slices *cache, uint64_t offset, bool wait, uint8_t **data);
/* Bytes of it were changed in memory: write them. On failure it is forgotten. */
int qcow2_slice_write(struct qcow2_slices *cache, uint64_t offset, size_t size);
/* Forget what is cached of these bytes. */
void qcow2_slices_drop(struct qcow2_slices *cache, uint64_t offset, uint64_t size);

/* ---- places.c: which clusters of the file hold tables ---- */

struct qcow2_places {
    uint64_t *slots; /* cluster + 1 */
    size_t capacity, count;
};

void qcow2_places_close(struct qcow2_places *places);
/* 0, -EEXIST when one of them is there already, -ENOMEM. */
int qcow2_places_add(struct qcow2_places *places, uint64_t first, uint64_t count);
void qcow2_places_remove(struct qcow2_places *places, uint64_t first, uint64_t count);
bool qcow2_places_have(const struct qcow2_places *places, uint64_t cluster);

/* ---- The image ---- */

/* Clusters of the file. */
struct qcow2_run {
    uint64_t first, count;
};

struct qcow2_runs {
    struct qcow2_run *items;
    size_t count, capacity;
};

/* A range of the disk whose clusters are being changed; on the stack of who does it. */
struct qcow2_change {
    uint64_t first, last; /* clusters of the disk, both included */
    struct qcow2_change *next;
};

struct qcow2_unpacked {
    uint64_t descriptor; /* 0: unused */
    uint8_t *data;
    uint64_t used;
};

struct qcow2 {
    char name[128];
    struct qcow2_io io; /* has a lock of its own */
    struct qcow2_header header;
    bool read_only;
    atomic_bool corrupt;
    uint32_t cluster_bits, cluster_bytes, l2_bits; /* entries of an L2 table: 1 << l2_bits */
    uint32_t slice_bytes;
    struct qcow2_backing backing; /* constant once set */
    bool has_backing;
    bool can_punch;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a change has ended, or a reservation was made */
    uint64_t *l1;           /* host order */
    uint64_t *reftable;     /* likewise */
    uint32_t l1_size;
    uint64_t reftable_size;  /* entries */
    uint64_t file_clusters;  /* its end, rounded up; of a block device: that of what is used */
    uint64_t bound_clusters; /* nothing can be beyond: that, or the device's end */
    bool is_device;
    struct qcow2_slices l2_cache, refcount_cache;
    struct qcow2_places tables; /* only of images that are written */
    struct qcow2_change *changes;
    /* Counted as used and durably so, not in use yet. `fresh`: never written to. */
    struct qcow2_run reserve;
    bool fresh, reserving;
    uint64_t reserve_next; /* clusters in the next one */
    uint64_t free_hint;    /* no cluster before this is free */
    /* Clusters whose last use may not have ended: those of this epoch and of the one before. */
    struct qcow2_runs freed, parting;
    bool parted; /* a barrier has passed since `parting` was filled */
    uint64_t partings;
    atomic_uint users[2];
    unsigned epoch;

    struct qcow2_snapshot *snapshots;
    unsigned snapshot_count;
    uint64_t snapshot_bytes; /* of the table */

    pthread_mutex_t unpack_lock;  /* of the decompressed clusters */
    struct ZSTD_DCtx_s *expander; /* NULL: none was needed yet */
    struct qcow2_unpacked unpacked[QCOW2_UNPACKED];
    uint64_t unpack_clock;
};

static inline uint64_t qcow2_clusters_of(const struct qcow2 *image, uint64_t bytes)
{
    return (bytes >> image->cluster_bits) + !!(bytes & (image->cluster_bytes - 1));
}

/* Damage: mark the image, refuse writes from now on. Always -EIO. */
int qcow2_damaged_locked(struct qcow2 *image, const char *what, uint64_t offset);
/* What open does before it looks at tables; for checks, which are content with less. */
struct qcow2 *qcow2_new(int fd, const char *name, bool read_only, struct error *err);
void qcow2_delete(struct qcow2 *image);
/* Change a field of the header in the file, and make that durable. */
int qcow2_header_write(struct qcow2 *image, size_t at, const void *bytes, size_t size);
/* The same with the incompatible features, as they are in memory. */
int qcow2_features_write(struct qcow2 *image);

/* ---- table.c: whole tables of places, in host order ---- */

/* `count` entries, to be freed by the caller. 0, or negative errno with *table NULL. */
int qcow2_table_read(const struct qcow2_io *io, uint64_t offset, uint64_t count, uint64_t **table);
/* The same with *err set: 0 or a negative code (INTERNAL, IO). */
int qcow2_table_load(const struct qcow2 *image, uint64_t offset, uint64_t count, uint64_t **table,
                     struct error *err);
/* Durably, with zeroes up to the end of its last cluster. 0 or negative errno. */
int qcow2_table_write(struct qcow2 *image, uint64_t offset, uint64_t count, const uint64_t *table);

/* ---- refcount.c ---- */

int qcow2_refcounts_load(struct qcow2 *image, struct error *err);
/* Put a count in a block in memory; it is 1 << order bits wide. Several in a byte: lowest bits
 * first. */
void qcow2_count_put(uint8_t *block, uint64_t index, unsigned order, uint64_t count);
int qcow2_refcount_get_locked(struct qcow2 *image, uint64_t cluster, uint64_t *count);
/* The end of the file has moved. */
void qcow2_end_locked(struct qcow2 *image, uint64_t clusters);
/* Make sure that this cluster, not beyond the file's end, has a refcount block. Waits. */
int qcow2_refcount_block_locked(struct qcow2 *image, uint64_t cluster);
/* How many counts a block has, and whether that of a cluster is there. */
uint64_t qcow2_refcount_block_entries(const struct qcow2 *image);
bool qcow2_refcount_has_block(const struct qcow2 *image, uint64_t cluster);
/* Make the file reach up to there. 0 or negative errno; -ENOSPC at the end of a device. */
int qcow2_extend_locked(struct qcow2 *image, uint64_t clusters);
/* Set one count; its block is there. */
int qcow2_refcount_set_locked(struct qcow2 *image, uint64_t cluster, uint64_t count);
/* Add 1 or -1 to those of clusters that have a block. */
int qcow2_refcount_add_locked(struct qcow2 *image, uint64_t first, uint64_t count, int delta);
uint64_t qcow2_refcount_most(const struct qcow2 *image);

/* ---- allocate.c ---- */

/* 1 to `wanted` contiguous clusters of the file. Gives up the lock in between. */
int qcow2_allocate_locked(struct qcow2 *image, uint64_t wanted, struct qcow2_run *run, bool *fresh);
/* Exactly `count` at the end of the file, for tables. */
int qcow2_allocate_area_locked(struct qcow2 *image, uint64_t count, uint64_t *first);
/* One reference to each of them less, once nobody uses them any more. Never fails: what cannot be
 * remembered is leaked. */
void qcow2_free_locked(struct qcow2 *image, uint64_t first, uint64_t count);
/* When much waits to be given back: wait and do it. Without a use held. */
void qcow2_free_bound(struct qcow2 *image);
/* Give the reservation back. */
void qcow2_unreserve_locked(struct qcow2 *image);
/* A use of clusters begins. */
qcow2_use qcow2_use_locked(struct qcow2 *image);

/* ---- map.c ---- */

/* Read the L1 table, learn where tables are. */
int qcow2_tables_load(struct qcow2 *image, struct error *err);
int qcow2_map_locked(struct qcow2 *image, uint64_t offset, uint64_t length, bool write, bool wait,
                     struct qcow2_extent *extent);
/* The entry of one cluster of the disk; 0 where there is no L2 table. */
int qcow2_entry_locked(struct qcow2 *image, uint64_t cluster, uint64_t *entry);
/* Make sure that the L2 table of that cluster is there and only this image's. Gives up the lock in
 * between. */
int qcow2_l2_own_locked(struct qcow2 *image, uint64_t cluster);
/* How many clusters from this one on have their entries in the same slice. */
uint64_t qcow2_slice_left(const struct qcow2 *image, uint64_t cluster);
/* What an L2 entry says of its cluster. */
enum qcow2_kind qcow2_entry_kind(const struct qcow2 *image, uint64_t entry);
/* Put `count` entries of one slice of an own table. */
int qcow2_entries_put_locked(struct qcow2 *image, uint64_t cluster, const uint64_t *entries,
                             uint64_t count);
/* Give up what an entry that is no more referred to. */
void qcow2_entry_free_locked(struct qcow2 *image, uint64_t entry);
/* Wait until nobody changes these clusters, then do so ourselves. */
void qcow2_change_begin_locked(struct qcow2 *image, struct qcow2_change *change, uint64_t first,
                               uint64_t last);
void qcow2_change_narrow_locked(struct qcow2 *image, struct qcow2_change *change, uint64_t last);
void qcow2_change_end_locked(struct qcow2 *image, struct qcow2_change *change);

/* ---- write.c, zero.c ---- */

/* Whether nothing but zeroes can be read there. */
int qcow2_reads_as_zeroes(struct qcow2 *image, uint64_t offset, uint64_t length, bool *zeroes);

enum qcow2_emptying {
    QCOW2_EMPTY_ZEROES, /* they read as zeroes, their places are kept */
    QCOW2_EMPTY_UNMAP,  /* they read as zeroes */
    QCOW2_EMPTY_DISCARD,
    QCOW2_EMPTY_FORGET, /* as if they had never been there: beyond the disk's end */
};
/* Whole clusters `first` to `last` of the disk. */
int qcow2_empty(struct qcow2 *image, uint64_t first, uint64_t last, enum qcow2_emptying how);

/* ---- unpack.c ---- */

/* Where a compressed cluster is: file offset and the most bytes it takes. */
void qcow2_packed_place(const struct qcow2 *image, uint64_t descriptor, uint64_t *offset,
                        uint64_t *bytes);
/* Copy `size` bytes from `skip` of the cluster with that descriptor into the vectors. */
int qcow2_unpack(struct qcow2 *image, uint64_t descriptor, uint64_t skip, uint64_t size,
                 const struct iovec *vectors, unsigned count);
void qcow2_unpack_close(struct qcow2 *image);

/* ---- snapshot.c ---- */

int qcow2_snapshots_load(struct qcow2 *image, struct error *err);

#endif
