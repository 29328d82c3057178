/*
 * The code cache: compiled regions on disk, shared by all machines and daemons of a user, so that
 * what was hot once is there in the next boot. The files are described in cache_files.h.
 *
 * Whatever goes wrong - damaged, foreign, older entries, a full disk, other processes that evict or
 * clear - is a miss. A `struct cache` is used by any threads.
 */
#ifndef POLYVISOR_JIT_CACHE_H
#define POLYVISOR_JIT_CACHE_H

#include "libshared/jit/cache_files.h"

#define CACHE_POISONED_MAX 256u

struct cache;

/* Use `directory` (made when missing) for code that `identity` compiles (copied). NULL with *err
 * set. */
struct cache *cache_open(const char *directory, uint64_t bytes_max, const char *identity,
                         struct error *err);
void cache_close(struct cache *cache); /* NULL is allowed */

/* The blob for exactly this region; to be freed. NULL: none. */
uint8_t *cache_find(struct cache *cache, const struct cache_subject *subject, size_t *blob_size);
/* The blob of a region whose head looks like that, and the region (without heat) and its shape.
 * There may be several: of those that were not tried, the one used last. NULL: no more of them; the
 * last second's of other processes may be missing. */
uint8_t *cache_fetch(struct cache *cache, uint64_t fingerprint, const struct cache_shapes *tried,
                     struct region *region, uint64_t *shape, size_t *blob_size);
/* Keep it. False with *err set: the cache is as it was. */
bool cache_store(struct cache *cache, const struct cache_subject *subject, const uint8_t *blob,
                 size_t blob_size, struct error *err);

/* Look at the files again: other processes may have added some. */
void cache_refresh(struct cache *cache);
/* Fingerprints of all heads, each once, the one used last first, at most `max`; *fingerprints is to
 * be freed. 0 without memory, too. */
size_t cache_catalog(struct cache *cache, size_t max, uint64_t **fingerprints);
/* Of this identity; bytes of all. */
void cache_usage(struct cache *cache, uint64_t *entries, uint64_t *bytes);

/* Regions that wait to be compiled, packed with their heat: whoever compiles may end before their
 * turn comes, and the next one begins with them. Nothing is told when that fails. */
void cache_store_wanted(struct cache *cache, const struct cache_key *key, const uint8_t *packed,
                        size_t size);
void cache_forget_wanted(struct cache *cache, const struct cache_key *key);
/* Remove all of them; at most `max` are handed to `use`. */
void cache_take_wanted(struct cache *cache, size_t max,
                       void (*use)(const struct region *region, void *context), void *context);

/* Keep a packed region that killed the compiler, for `jitd --replay`: the last CACHE_POISONED_MAX.
 * The path into `path`. */
bool cache_store_poisoned(struct cache *cache, const struct cache_key *key, const uint8_t *packed,
                          size_t size, char *path, size_t path_size);
/* Keys of such regions, at most `max`. */
size_t cache_list_poisoned(struct cache *cache, struct cache_key *keys, size_t max);

#endif
