/*
 * Clusters of the file: taken and given back.
 *
 * A run of clusters is counted as used, and that made durable, before any of them is: so no table
 * ever points to one that the counts call free, and one barrier serves many allocations. What of
 * the run was not used when the process dies is leaked.
 *
 * A cluster that nothing points to any more is given back when that is durable and when everybody
 * who may still be using it has ended: until then it is in one of two lists, that of this epoch and
 * that of the one before.
 */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <unistd.h>

#define RESERVE_FIRST 16u
#define RESERVE_MOST  256u
#define RESERVE_BYTES (UINT64_C(16) << 20)
#define SCAN_MOST     (UINT64_C(1) << 22) /* clusters looked at for a free one, at once */
#define BEYOND_MOST   65536u /* clusters behind the end that are counted all the same */
#define FREED_MANY    1024u
#define FREED_MOST    65536u

/* ---- Taking ---- */

static uint64_t reserve_size(struct qcow2 *image)
{
    uint64_t most = RESERVE_BYTES >> image->cluster_bits;
    most = most < RESERVE_MOST ? most : RESERVE_MOST;
    uint64_t size = image->reserve_next ? image->reserve_next : RESERVE_FIRST;

    image->reserve_next = 2 * size < most ? 2 * size : most;
    return size < most ? size : most;
}

static int cluster_is_free(struct qcow2 *image, uint64_t cluster, bool *is_free)
{
    uint64_t count;
    int status = qcow2_refcount_get_locked(image, cluster, &count);

    *is_free = status == 0 && count == 0;
    return status;
}

/* Free clusters inside the file, where they are counted. run->count 0: none was found. */
static int find_inside(struct qcow2 *image, uint64_t most, struct qcow2_run *run)
{
    uint64_t entries = qcow2_refcount_block_entries(image);
    uint64_t looked = 0, at = image->free_hint;
    int status = 0;

    run->count = 0;
    while (at < image->file_clusters && run->count < most && looked++ < SCAN_MOST) {
        bool is_free;
        if (!qcow2_refcount_has_block(image, at)) {
            if (run->count) {
                break;
            }
            at = (at / entries + 1) * entries;
            continue;
        }
        status = cluster_is_free(image, at, &is_free);
        /* What a table lies in is never free, whatever its count says. */
        if (status < 0 || (run->count && !is_free)) {
            break;
        }
        if (is_free && qcow2_places_have(&image->tables, at)) {
            return qcow2_damaged_locked(image, "a table's cluster is counted as free",
                                        at << image->cluster_bits);
        }
        if (is_free) {
            run->first = run->count ? run->first : at;
            run->count++;
        }
        at++;
    }
    image->free_hint = at;
    return status;
}

/* At the end of the file, at most as many as one block counts. */
static int find_at_end(struct qcow2 *image, uint64_t most, struct qcow2_run *run)
{
    uint64_t entries = qcow2_refcount_block_entries(image);
    unsigned beyond = 0;
    bool is_free = false;
    int status;

    do {
        status = qcow2_refcount_block_locked(image, image->file_clusters);
        run->first = image->file_clusters; /* the block may have gone there */
        if (status == 0 && qcow2_refcount_has_block(image, run->first)) {
            status = cluster_is_free(image, run->first, &is_free);
            if (status == 0 && !is_free) { /* counted without being there */
                status = ++beyond > BEYOND_MOST
                             ? qcow2_damaged_locked(image, "what is not there is counted",
                                                    run->first << image->cluster_bits)
                             : qcow2_extend_locked(image, run->first + 1);
            }
        }
    } while (status == 0 && !is_free);
    run->count = 0;
    while (status == 0 && is_free && run->count < most) {
        run->count++;
        if ((run->first + run->count) % entries == 0 ||
            run->first + run->count >= (image->is_device ? image->bound_clusters : UINT64_MAX)) {
            break;
        }
        status = cluster_is_free(image, run->first + run->count, &is_free);
    }
    return status < 0 ? status : qcow2_extend_locked(image, run->first + run->count);
}

static int reserve_find(struct qcow2 *image, uint64_t most, struct qcow2_run *run, bool *fresh)
{
    int status = find_inside(image, most, run);

    *fresh = false;
    if (status == 0 && !run->count) {
        status = find_at_end(image, most, run);
        *fresh = !image->is_device;
    }
    return status < 0 ? status : qcow2_refcount_add_locked(image, run->first, run->count, 1);
}

/* Wait for a barrier with the lock open, as the only one. */
static int reserve_make(struct qcow2 *image)
{
    struct qcow2_run run;
    bool fresh;

    if (image->reserving) {
        pthread_cond_wait(&image->changed, &image->lock);
        return 0;
    }
    int status = reserve_find(image, reserve_size(image), &run, &fresh);
    if (status < 0) {
        return status;
    }
    image->reserving = true;
    pthread_mutex_unlock(&image->lock);
    status = qcow2_io_barrier(&image->io);
    pthread_mutex_lock(&image->lock);
    image->reserving = false;
    pthread_cond_broadcast(&image->changed);
    if (status == 0) {
        image->reserve = run;
        image->fresh = fresh;
    }
    return status;
}

int qcow2_allocate_locked(struct qcow2 *image, uint64_t wanted, struct qcow2_run *run, bool *fresh)
{
    while (!image->reserve.count) {
        int status = reserve_make(image);
        if (status < 0) {
            return status;
        }
    }
    run->first = image->reserve.first;
    run->count = wanted < image->reserve.count ? wanted : image->reserve.count;
    image->reserve.first += run->count;
    image->reserve.count -= run->count;
    *fresh = image->fresh;
    return 0;
}

int qcow2_allocate_area_locked(struct qcow2 *image, uint64_t count, uint64_t *first)
{
    unsigned beyond = 0;
    bool free_all;
    int status;

    do {
        if (++beyond > BEYOND_MOST) {
            return qcow2_damaged_locked(image, "what is not there is counted",
                                        image->file_clusters << image->cluster_bits);
        }
        *first = image->file_clusters;
        free_all = true;
        for (uint64_t i = 0; i < count && free_all; i++) {
            uint64_t end = image->file_clusters;
            status = qcow2_refcount_block_locked(image, *first + i);
            if (status == 0) {
                status = cluster_is_free(image, *first + i, &free_all);
            }
            if (status < 0) {
                return status;
            }
            if (!free_all) {
                status = qcow2_extend_locked(image, *first + i + 1);
                if (status < 0) {
                    return status;
                }
            }
            free_all = free_all && end == image->file_clusters; /* no block went there */
        }
    } while (!free_all);
    status = qcow2_extend_locked(image, *first + count);
    return status < 0 ? status : qcow2_refcount_add_locked(image, *first, count, 1);
}

/* ---- Giving back ---- */

qcow2_use qcow2_use_locked(struct qcow2 *image)
{
    atomic_fetch_add(&image->users[image->epoch], 1);
    return image->epoch;
}

void qcow2_release(struct qcow2 *image, qcow2_use use)
{
    atomic_fetch_sub(&image->users[use], 1);
}

void qcow2_free_locked(struct qcow2 *image, uint64_t first, uint64_t count)
{
    struct qcow2_runs *freed = &image->freed;
    struct qcow2_run *last = freed->count ? &freed->items[freed->count - 1] : NULL;

    if (last && last->first + last->count == first) {
        last->count += count;
        return;
    }
    if (freed->count == FREED_MOST) {
        return;
    }
    if (freed->count == freed->capacity) {
        size_t capacity = freed->capacity ? 2 * freed->capacity : 64;
        struct qcow2_run *items = realloc(freed->items, capacity * sizeof(items[0]));
        if (!items) {
            return;
        }
        freed->items = items;
        freed->capacity = capacity;
    }
    freed->items[freed->count++] = (struct qcow2_run){first, count};
}

/* Those that nobody counts any more are holes from now on. */
static void punch(struct qcow2 *image, uint64_t first, uint64_t count)
{
    while (count) {
        uint64_t some = 0;
        bool is_free = true;
        while (some < count && cluster_is_free(image, first + some, &is_free) == 0 && is_free) {
            some++;
        }
        if (some && image->can_punch &&
            fallocate(image->io.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(first << image->cluster_bits),
                      (off_t)(some << image->cluster_bits)) < 0) {
            image->can_punch = errno == EINTR; /* what is not given back is free all the same */
        }
        if (some && first < image->free_hint) {
            image->free_hint = first;
        }
        some += some < count;
        first += some;
        count -= some;
    }
}

static void free_settle(struct qcow2 *image)
{
    if (!image->parted || atomic_load(&image->users[image->epoch ^ 1])) {
        return;
    }
    for (size_t i = 0; i < image->parting.count && !atomic_load(&image->corrupt); i++) {
        const struct qcow2_run *run = &image->parting.items[i];
        if (qcow2_refcount_add_locked(image, run->first, run->count, -1) == 0) {
            punch(image, run->first, run->count);
        }
    }
    image->parting.count = 0;
    image->parted = false;
}

/* What was freed up to now waits for a barrier from now on. */
static void free_turn(struct qcow2 *image)
{
    if (!image->parting.count && image->freed.count) {
        struct qcow2_runs empty = image->parting;
        image->parting = image->freed;
        image->freed = empty;
        image->epoch ^= 1;
        image->parted = false;
        image->partings++;
    }
}

int qcow2_flush(struct qcow2 *image)
{
    if (image->read_only) {
        return 0;
    }
    pthread_mutex_lock(&image->lock);
    free_settle(image);
    free_turn(image);
    uint64_t mine = image->partings;
    pthread_mutex_unlock(&image->lock);
    int status = qcow2_io_barrier(&image->io);
    pthread_mutex_lock(&image->lock);
    if (status == 0 && image->partings == mine && image->parting.count) {
        image->parted = true;
    }
    free_settle(image);
    pthread_mutex_unlock(&image->lock);
    return status;
}

void qcow2_free_bound(struct qcow2 *image)
{
    pthread_mutex_lock(&image->lock);
    bool many = image->freed.count > FREED_MANY;
    pthread_mutex_unlock(&image->lock);
    if (many) {
        qcow2_flush(image);
    }
}

void qcow2_unreserve_locked(struct qcow2 *image)
{
    struct qcow2_run run = image->reserve;

    image->reserve.count = 0;
    if (!run.count || qcow2_refcount_add_locked(image, run.first, run.count, -1) < 0) {
        return;
    }
    if (image->fresh && !image->is_device && run.first + run.count == image->file_clusters &&
        ftruncate(image->io.fd, (off_t)(run.first << image->cluster_bits)) == 0) {
        qcow2_end_locked(image, run.first);
    }
    if (run.first < image->free_hint) {
        image->free_hint = run.first;
    }
}
