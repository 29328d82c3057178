/*
 * The files of the code cache, for who keeps it (cache.h) and for `vmctl cache`.
 *
 *   <directory>/lock                              held (flock) while entries are evicted
 *   <directory>/code/<identity>/<head>-<key>      entries (cache_entry.h); all hexadecimal
 *   <directory>/code/<identity>/.<pid>-<number>   one that is being written
 *   <directory>/poisoned/<key>.region             regions that killed the compiler: jitd --replay
 *   <directory>/wanted/<key>.region               regions that wait to be compiled
 *
 * An entry appears by rename, whole or not at all, and is never changed; its modification time is
 * that of its last use. So any number of processes write, read, evict and clear at once, and each
 * may be killed at any time. A file that is being written is garbage once it is some minutes old.
 */
#ifndef POLYVISOR_JIT_CACHE_FILES_H
#define POLYVISOR_JIT_CACHE_FILES_H

#include "libshared/jit/cache_entry.h"
#include <limits.h>

#define CACHE_DIRECTORY_MAX 1024 /* of the cache's directory */
#define CACHE_NAME_MAX      64   /* of an entry's file, with its terminator */
#define CACHE_BYTES_DEFAULT (UINT64_C(256) << 20)
#define CACHE_FILES_MAX     65536u /* entries, whatever their size */

/* $POLYVISOR_CACHE_DIR, $XDG_CACHE_HOME/polyvisor, /var/cache/polyvisor (root), or
 * ~/.cache/polyvisor. */
bool cache_default_directory(char path[CACHE_DIRECTORY_MAX], struct error *err);
/* Open it; when `make`, with missing parents. It must belong to us and be closed to others: what is
 * in it is executed. -1 with *err set (ERROR_NOT_FOUND when it does not exist). */
int cache_open_directory(const char *path, bool make, struct error *err);

struct cache_file {
    const char *folder; /* "code/<identity>" */
    const char *name;
    int folder_fd;
    bool is_entry; /* by its name; otherwise one that is being written */
    uint64_t fingerprint;
    struct cache_key key; /* as the name says */
    uint64_t bytes;       /* on disk */
    uint64_t used_ns;     /* CLOCK_REALTIME */
};
/* Call `visit` for each file below code/, in any order, until it returns false. Files that vanish
 * meanwhile are left out. `only`: one folder's identity hash, or NULL. */
void cache_walk(int directory, const char *only,
                bool (*visit)(const struct cache_file *file, void *context), void *context);

/* The folder of an identity: 16 hexadecimal digits. */
void cache_folder_name(const char *identity, size_t size, char name[17]);
void cache_file_name(uint64_t fingerprint, const struct cache_key *key, char name[CACHE_NAME_MAX]);

/* The bytes of an entry's file, to be freed; NULL with errno set. */
uint8_t *cache_read_file(int folder, const char *name, size_t *size);

/* What is there, before (and not counting what was) removed. */
struct cache_totals {
    uint64_t entries, bytes;
    uint64_t removed, removed_bytes;
};
/* Remove what was not used for longest until at most `bytes_max` and CACHE_FILES_MAX are left, with
 * some room if anything had to go; and what writers left that were killed. Does nothing but count
 * while another process is at it. */
void cache_evict(int directory, uint64_t bytes_max, struct cache_totals *totals);
/* Remove all entries, and what poisoned/ and wanted/ hold. */
void cache_clear(int directory, struct cache_totals *totals);
/* Read every entry; remove those that are damaged or of another version. `tell` (or NULL) hears of
 * each. */
void cache_verify(int directory, struct cache_totals *totals,
                  void (*tell)(const char *folder, const char *name, const char *defect,
                               void *context),
                  void *context);

#endif
