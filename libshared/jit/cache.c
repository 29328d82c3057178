#include "libshared/jit/cache.h"

#include "libshared/base/clock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Files are looked at for others' entries so often at most: there may be many. */
#define LOOK_PAUSE_NS UINT64_C(1000000000)

/* One entry of our identity, as far as we know. */
struct known {
    uint64_t fingerprint;
    struct cache_key key;
    uint64_t used_ns;
};

struct cache {
    char directory_path[CACHE_DIRECTORY_MAX];
    char folder_path[32]; /* "code/<identity>" */
    char *identity;
    int directory;
    uint64_t bytes_max;

    pthread_mutex_t lock;
    struct known *known; /* in order of fingerprints */
    size_t count, room;
    uint64_t bytes, allowance; /* of all entries; what may be added before they are counted again */
    unsigned serial;           /* of files being written */
    uint64_t looked_ns;        /* clock_monotonic_ns: when the files were last looked at */
    struct timespec changed;   /* the folder's time of change then */
};

/* ---- what we know ---- */

static size_t known_lower(const struct cache *cache, uint64_t fingerprint)
{
    size_t low = 0, high = cache->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (cache->known[middle].fingerprint < fingerprint) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The place of an entry, or `count`. */
static size_t known_find(const struct cache *cache, uint64_t fingerprint,
                         const struct cache_key *key)
{
    for (size_t i = known_lower(cache, fingerprint);
         i < cache->count && cache->known[i].fingerprint == fingerprint; i++) {
        if (!memcmp(&cache->known[i].key, key, sizeof(*key))) {
            return i;
        }
    }
    return cache->count;
}

static bool known_grow(struct cache *cache)
{
    if (cache->count < cache->room) {
        return true;
    }
    size_t room = cache->room ? 2 * cache->room : 256;
    struct known *known = realloc(cache->known, room * sizeof(*known));
    if (known) {
        cache->known = known;
        cache->room = room;
    }
    return known != NULL;
}

static void known_add(struct cache *cache, uint64_t fingerprint, const struct cache_key *key,
                      uint64_t used_ns)
{
    size_t at = known_find(cache, fingerprint, key);

    if (at < cache->count) {
        cache->known[at].used_ns = used_ns;
        return;
    }
    if (cache->count >= CACHE_FILES_MAX || !known_grow(cache)) {
        return;
    }
    at = known_lower(cache, fingerprint);
    memmove(&cache->known[at + 1], &cache->known[at], (cache->count - at) * sizeof(*cache->known));
    cache->known[at] = (struct known){fingerprint, *key, used_ns};
    cache->count++;
}

static void known_remove(struct cache *cache, uint64_t fingerprint, const struct cache_key *key)
{
    size_t at = known_find(cache, fingerprint, key);

    if (at < cache->count) {
        cache->count--;
        memmove(&cache->known[at], &cache->known[at + 1],
                (cache->count - at) * sizeof(*cache->known));
    }
}

static int compare_fingerprint(const void *a, const void *b)
{
    const struct known *first = a, *second = b;

    return first->fingerprint < second->fingerprint ? -1 : first->fingerprint > second->fingerprint;
}

static bool note_file(const struct cache_file *file, void *context)
{
    struct cache *cache = context;

    if (file->is_entry && cache->count < CACHE_FILES_MAX && known_grow(cache)) {
        cache->known[cache->count++] = (struct known){file->fingerprint, file->key, file->used_ns};
    }
    return true;
}

static struct timespec folder_changed(const struct cache *cache)
{
    struct stat status;

    return fstatat(cache->directory, cache->folder_path, &status, AT_SYMLINK_NOFOLLOW) < 0
               ? (struct timespec){0}
               : status.st_mtim;
}

void cache_refresh(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    cache->changed = folder_changed(cache);
    if ((uint64_t)cache->changed.tv_sec + 2 > clock_realtime_ns() / 1000000000) {
        cache->changed = (struct timespec){0}; /* more may come under that time */
    }
    cache->looked_ns = clock_monotonic_ns();
    cache->count = 0;
    cache_walk(cache->directory, cache->folder_path + sizeof("code/") - 1, note_file, cache);
    if (cache->count) {
        qsort(cache->known, cache->count, sizeof(*cache->known), compare_fingerprint);
    }
    pthread_mutex_unlock(&cache->lock);
}

/* Count everything, and make room when it is time. What the other writers add meanwhile is not
 * seen, so each may add only a small part of the whole before it counts again. */
static void settle_bytes(struct cache *cache)
{
    struct cache_totals totals;

    cache_evict(cache->directory, cache->bytes_max, &totals);
    pthread_mutex_lock(&cache->lock);
    cache->bytes = totals.bytes;
    cache->allowance = cache->bytes_max / 64;
    pthread_mutex_unlock(&cache->lock);
    if (totals.removed) {
        cache_refresh(cache);
    }
}

/* ---- life ---- */

struct cache *cache_open(const char *directory, uint64_t bytes_max, const char *identity,
                         struct error *err)
{
    struct cache *cache = calloc(1, sizeof(*cache));
    char folder[17];

    if (!cache) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the code cache");
        return NULL;
    }
    pthread_mutex_init(&cache->lock, NULL);
    snprintf(cache->directory_path, sizeof(cache->directory_path), "%s", directory);
    cache->bytes_max = bytes_max;
    cache->identity = strdup(identity);
    cache->directory = cache_open_directory(directory, true, err);
    if (cache->directory < 0 || !cache->identity) {
        cache_close(cache);
        return NULL;
    }
    cache_folder_name(identity, strlen(identity), folder);
    snprintf(cache->folder_path, sizeof(cache->folder_path), "code/%s", folder);
    settle_bytes(cache);
    cache_refresh(cache);
    return cache;
}

void cache_close(struct cache *cache)
{
    if (!cache) {
        return;
    }
    if (cache->directory >= 0) {
        close(cache->directory);
    }
    pthread_mutex_destroy(&cache->lock);
    free(cache->identity);
    free(cache->known);
    free(cache);
}

/* ---- look-ups ---- */

static void entry_path(const struct cache *cache, uint64_t fingerprint, const struct cache_key *key,
                       char path[128])
{
    char name[CACHE_NAME_MAX];

    cache_file_name(fingerprint, key, name);
    snprintf(path, 128, "%s/%s", cache->folder_path, name);
}

static void note_use(struct cache *cache, uint64_t fingerprint, const struct cache_key *key,
                     const char *path)
{
    utimensat(cache->directory, path, NULL, AT_SYMLINK_NOFOLLOW);
    pthread_mutex_lock(&cache->lock);
    known_add(cache, fingerprint, key, clock_realtime_ns());
    pthread_mutex_unlock(&cache->lock);
}

/* The entry of that name; NULL: there is none that is sound. *bytes is to be freed. */
static bool read_entry(struct cache *cache, uint64_t fingerprint, const struct cache_key *key,
                       struct cache_entry *entry, uint8_t **bytes)
{
    char path[128];
    size_t size;

    entry_path(cache, fingerprint, key, path);
    *bytes = cache_read_file(cache->directory, path, &size);
    bool sound = *bytes && !cache_entry_read(entry, *bytes, size) &&
                 entry->fingerprint == fingerprint && !memcmp(&entry->key, key, sizeof(*key)) &&
                 entry->identity_size == strlen(cache->identity) &&
                 !memcmp(entry->identity, cache->identity, entry->identity_size);
    if (sound) {
        note_use(cache, fingerprint, key, path);
        return true;
    }
    /* What is no file of ours goes. One that cannot be read now - for want of descriptors or
     * memory, by the disk's fault - may be sound. */
    if (*bytes || errno == EFBIG || errno == ELOOP) {
        unlinkat(cache->directory, path, 0);
    }
    pthread_mutex_lock(&cache->lock);
    known_remove(cache, fingerprint, key);
    pthread_mutex_unlock(&cache->lock);
    free(*bytes);
    *bytes = NULL;
    return false;
}

/* The blob alone, in the memory that held the entry. */
static uint8_t *keep_blob(const struct cache_entry *entry, uint8_t *bytes, size_t *blob_size)
{
    *blob_size = entry->blob_size;
    memmove(bytes, entry->blob, entry->blob_size);
    return bytes;
}

uint8_t *cache_find(struct cache *cache, const struct cache_subject *subject, size_t *blob_size)
{
    struct cache_entry entry;
    uint8_t *bytes;

    if (!read_entry(cache, subject->fingerprint, &subject->key, &entry, &bytes)) {
        return NULL;
    }
    if (entry.packed_size != subject->packed_size ||
        memcmp(entry.packed, subject->packed, entry.packed_size)) {
        free(bytes); /* two regions of one hash */
        return NULL;
    }
    return keep_blob(&entry, bytes, blob_size);
}

/* Whether other processes may have added some since: then they are known now. */
static bool look_again(struct cache *cache)
{
    struct timespec changed = folder_changed(cache);

    pthread_mutex_lock(&cache->lock);
    bool other =
        changed.tv_sec != cache->changed.tv_sec || changed.tv_nsec != cache->changed.tv_nsec;
    bool due = other && clock_monotonic_ns() - cache->looked_ns >= LOOK_PAUSE_NS;
    pthread_mutex_unlock(&cache->lock);
    if (due) {
        cache_refresh(cache);
    }
    return due;
}

/* The key of the entry that was used last of those not tried. */
static bool pick_key(struct cache *cache, uint64_t fingerprint, const struct cache_shapes *tried,
                     struct cache_key *key)
{
    const struct known *best = NULL;

    pthread_mutex_lock(&cache->lock);
    for (size_t i = known_lower(cache, fingerprint);
         i < cache->count && cache->known[i].fingerprint == fingerprint; i++) {
        const struct known *known = &cache->known[i];
        if ((!best || known->used_ns > best->used_ns) &&
            !cache_shape_among(tried, cache_shape(&known->key))) {
            best = known;
        }
    }
    if (best) {
        *key = best->key;
    }
    pthread_mutex_unlock(&cache->lock);
    return best != NULL;
}

uint8_t *cache_fetch(struct cache *cache, uint64_t fingerprint, const struct cache_shapes *tried,
                     struct region *region, uint64_t *shape, size_t *blob_size)
{
    struct cache_entry entry;
    struct cache_key key;
    uint8_t *bytes;

    while (pick_key(cache, fingerprint, tried, &key) ||
           (look_again(cache) && pick_key(cache, fingerprint, tried, &key))) {
        if (read_entry(cache, fingerprint, &key, &entry, &bytes)) {
            *region = entry.region;
            *shape = cache_shape(&key);
            return keep_blob(&entry, bytes, blob_size);
        }
        /* It is forgotten now: another one has its place. */
    }
    return NULL;
}

/* ---- storing ---- */

static bool write_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            errno = written == 0 ? ENOSPC : errno;
            return false;
        }
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

/* Make the file `to` of `folder`, both below the cache's directory, in one step. */
static bool write_file(struct cache *cache, const char *folder, const char *to,
                       const uint8_t *bytes, size_t size)
{
    char from_path[128], to_path[160];

    pthread_mutex_lock(&cache->lock);
    unsigned serial = ++cache->serial;
    pthread_mutex_unlock(&cache->lock);
    snprintf(from_path, sizeof(from_path), "%s/.%ld-%u", folder, (long)getpid(), serial);
    snprintf(to_path, sizeof(to_path), "%s/%s", folder, to);
    mkdirat(cache->directory, "code", 0700);
    mkdirat(cache->directory, folder, 0700);
    /* Another process space may use the same pid: an old file of that name is nobody's. */
    int fd = openat(cache->directory, from_path,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST) {
            unlinkat(cache->directory, from_path, 0);
            errno = EEXIST;
        }
        return false;
    }
    bool written = write_all(fd, bytes, size);
    int saved = errno;
    if (close(fd) < 0 && written) {
        written = false;
        saved = errno;
    }
    if (written && renameat(cache->directory, from_path, cache->directory, to_path) < 0) {
        written = false;
        saved = errno;
    }
    if (!written) {
        unlinkat(cache->directory, from_path, 0);
    }
    errno = saved;
    return written;
}

bool cache_store(struct cache *cache, const struct cache_subject *subject, const uint8_t *blob,
                 size_t blob_size, struct error *err)
{
    char name[CACHE_NAME_MAX];
    size_t size = 0;
    uint8_t *bytes = cache_entry_write(subject, blob, blob_size, &size);

    if (!bytes || size > cache->bytes_max / 8) {
        free(bytes);
        error_set(err, ERROR_IO, EFBIG, "an entry is too large for the code cache");
        return false;
    }
    cache_file_name(subject->fingerprint, &subject->key, name);
    bool stored = write_file(cache, cache->folder_path, name, bytes, size);
    int cause = errno;
    free(bytes);
    if (!stored) {
        error_set(err, ERROR_IO, cause, "cannot write to the code cache '%.100s': %s",
                  cache->directory_path, strerror(cause));
        return false;
    }
    uint64_t on_disk = (size + 4095) & ~UINT64_C(4095);
    pthread_mutex_lock(&cache->lock);
    known_add(cache, subject->fingerprint, &subject->key, clock_realtime_ns());
    cache->bytes += on_disk;
    bool settle = cache->allowance <= on_disk;
    cache->allowance -= settle ? cache->allowance : on_disk;
    pthread_mutex_unlock(&cache->lock);
    if (settle) {
        settle_bytes(cache);
    }
    return true;
}

/* ---- the catalog ---- */

static int compare_last_use(const void *a, const void *b)
{
    const struct known *first = a, *second = b;

    return first->used_ns > second->used_ns ? -1 : first->used_ns < second->used_ns;
}

size_t cache_catalog(struct cache *cache, size_t max, uint64_t **fingerprints)
{
    size_t count = 0;

    pthread_mutex_lock(&cache->lock);
    struct known *list = malloc((cache->count + 1) * sizeof(*list));
    *fingerprints = malloc((cache->count + 1) * sizeof(**fingerprints));
    if (list && *fingerprints) {
        /* They are in order of fingerprints: of each, keep the last use. */
        for (size_t i = 0; i < cache->count; i++) {
            const struct known *known = &cache->known[i];
            if (count && list[count - 1].fingerprint == known->fingerprint) {
                uint64_t *used = &list[count - 1].used_ns;
                *used = *used > known->used_ns ? *used : known->used_ns;
            } else {
                list[count++] = *known;
            }
        }
        qsort(list, count, sizeof(*list), compare_last_use);
        count = count < max ? count : max;
        for (size_t i = 0; i < count; i++) {
            (*fingerprints)[i] = list[i].fingerprint;
        }
    }
    pthread_mutex_unlock(&cache->lock);
    free(list);
    return count;
}

void cache_usage(struct cache *cache, uint64_t *entries, uint64_t *bytes)
{
    pthread_mutex_lock(&cache->lock);
    *entries = cache->count;
    *bytes = cache->bytes;
    pthread_mutex_unlock(&cache->lock);
}

/* ---- poisoned regions ---- */

static void region_file_name(const struct cache_key *key, char name[CACHE_NAME_MAX])
{
    for (size_t i = 0; i < sizeof(key->bytes); i++) {
        snprintf(name + 2 * i, 3, "%02x", key->bytes[i]);
    }
    strcat(name, ".region");
}

static DIR *open_poisoned(const struct cache *cache)
{
    int fd = openat(cache->directory, "poisoned", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);

    if (!folder && fd >= 0) {
        close(fd);
    }
    return folder;
}

/* Remove the oldest file of the folder if there are too many. */
static bool remove_oldest_poisoned(const struct cache *cache)
{
    char oldest[CACHE_NAME_MAX] = "";
    DIR *folder = open_poisoned(cache);
    struct timespec when = {0};
    unsigned count = 0;

    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat status;
        if (strlen(entry->d_name) >= sizeof(oldest) ||
            fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(status.st_mode)) {
            continue;
        }
        if (!count++ || status.st_mtim.tv_sec < when.tv_sec ||
            (status.st_mtim.tv_sec == when.tv_sec && status.st_mtim.tv_nsec < when.tv_nsec)) {
            memcpy(oldest, entry->d_name, strlen(entry->d_name) + 1);
            when = status.st_mtim;
        }
    }
    bool removed = count > CACHE_POISONED_MAX && unlinkat(dirfd(folder), oldest, 0) == 0;
    if (folder) {
        closedir(folder);
    }
    return removed;
}

/* A guest that knows how to kill the compiler must not fill the disk with what does it. Files that
 * writers left that were killed count as well. */
static void bound_poisoned(const struct cache *cache)
{
    while (remove_oldest_poisoned(cache)) {
    }
}

bool cache_store_poisoned(struct cache *cache, const struct cache_key *key, const uint8_t *packed,
                          size_t size, char *path, size_t path_size)
{
    char name[CACHE_NAME_MAX];

    region_file_name(key, name);
    if (!write_file(cache, "poisoned", name, packed, size)) {
        return false;
    }
    snprintf(path, path_size, "%s/poisoned/%s", cache->directory_path, name);
    bound_poisoned(cache);
    return true;
}

size_t cache_list_poisoned(struct cache *cache, struct cache_key *keys, size_t max)
{
    DIR *folder = open_poisoned(cache);
    size_t count = 0;

    for (struct dirent *entry; folder && count < max && (entry = readdir(folder));) {
        unsigned byte;
        size_t i = 0;
        if (strlen(entry->d_name) != 2 * sizeof(keys->bytes) + sizeof(".region") - 1) {
            continue;
        }
        while (i < 16 && sscanf(entry->d_name + 2 * i, "%2x", &byte) == 1) {
            keys[count].bytes[i++] = (uint8_t)byte;
        }
        count += i == 16 && !strcmp(entry->d_name + 32, ".region");
    }
    if (folder) {
        closedir(folder);
    }
    return count;
}

/* ---- wanted regions ---- */

void cache_store_wanted(struct cache *cache, const struct cache_key *key, const uint8_t *packed,
                        size_t size)
{
    char name[CACHE_NAME_MAX];

    region_file_name(key, name);
    write_file(cache, "wanted", name, packed, size);
}

void cache_forget_wanted(struct cache *cache, const struct cache_key *key)
{
    char name[CACHE_NAME_MAX], path[CACHE_NAME_MAX + 16];

    region_file_name(key, name);
    snprintf(path, sizeof(path), "wanted/%s", name);
    unlinkat(cache->directory, path, 0);
}

void cache_take_wanted(struct cache *cache, size_t max,
                       void (*use)(const struct region *region, void *context), void *context)
{
    int fd = openat(cache->directory, "wanted", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    size_t count = 0;

    if (!folder) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct region region;
        struct error err;
        size_t size;
        if (entry->d_name[0] == '.' && entry->d_name[1] == '\0') {
            continue;
        }
        uint8_t *bytes = count < max ? cache_read_file(dirfd(folder), entry->d_name, &size) : NULL;
        unlinkat(dirfd(folder), entry->d_name, 0);
        if (bytes && region_unpack(&region, bytes, size, &err)) {
            use(&region, context);
            count++;
        }
        free(bytes);
    }
    closedir(folder);
}
