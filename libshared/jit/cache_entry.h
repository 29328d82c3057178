/*
 * One entry of the code cache as bytes: what it was compiled with, the region, the blob.
 *
 *   u32 magic "PVJC", u32 version, u64 fingerprint of the region's head,
 *   u32 identity, region and blob lengths, u32 zero, 16 bytes key, 16 bytes checksum,
 *   then identity, region (packed, without heat) and blob; little-endian.
 *
 * The checksum is over all of it, itself as zeros. Nothing of an entry is believed before it holds,
 * and nothing that is executed depends on a hash alone: a look-up compares identity and region.
 */
#ifndef POLYVISOR_JIT_CACHE_ENTRY_H
#define POLYVISOR_JIT_CACHE_ENTRY_H

#include "libshared/jit/blob.h"
#include <string.h>

#define CACHE_ENTRY_VERSION 1u
#define CACHE_IDENTITY_MAX  8192u
#define CACHE_ENTRY_HEADER  64u
#define CACHE_BLOB_MAX                                                                             \
    (sizeof(struct blob_header) + BLOB_EXITS_MAX * sizeof(struct blob_exit) + BLOB_CODE_MAX)
#define CACHE_ENTRY_MAX                                                                            \
    (CACHE_ENTRY_HEADER + CACHE_IDENTITY_MAX + REGION_PACKED_MAX + CACHE_BLOB_MAX)

/* What decides what comes out of compiling a region. */
struct cache_key {
    uint8_t bytes[16];
};

/* Of those with the same head. */
static inline uint64_t cache_shape(const struct cache_key *key)
{
    uint64_t shape;
    memcpy(&shape, key->bytes, sizeof(shape));
    return shape;
}

/* Shapes that somebody does not want, at most so many. */
#define CACHE_TRIED_MAX 8u
struct cache_shapes {
    const uint64_t *shapes;
    size_t count;
};

static inline bool cache_shape_among(const struct cache_shapes *shapes, uint64_t shape)
{
    for (size_t i = 0; i < shapes->count; i++) {
        if (shapes->shapes[i] == shape) {
            return true;
        }
    }
    return false;
}

/* A region with what names it. */
struct cache_subject {
    const char *identity; /* region_compiler_identity() */
    struct cache_key key;
    uint64_t fingerprint;
    size_t packed_size;
    uint8_t packed[REGION_PACKED_MAX]; /* without heat */
};

/* The fingerprint of a sound region's head (region_fingerprint). */
uint64_t cache_head_fingerprint(const struct region *region);
/* `identity` must outlive the subject. */
void cache_subject_of(const struct region *region, const char *identity,
                      struct cache_subject *subject);

/* The entry's bytes, to be freed, with *size set; NULL without memory or when the identity is
 * empty or too long. */
uint8_t *cache_entry_write(const struct cache_subject *subject, const uint8_t *blob,
                           size_t blob_size, size_t *size);

/* An entry that was read. Points into its bytes. */
struct cache_entry {
    const char *identity; /* not terminated */
    size_t identity_size;
    struct cache_key key;
    uint64_t fingerprint;
    const uint8_t *packed;
    size_t packed_size;
    const uint8_t *blob;
    size_t blob_size;
    struct region region;
};

/* Judge the bytes: form, checksum, and that the region and the blob are sound, and are what key and
 * fingerprint say. NULL, or a constant text that names the first defect. */
const char *cache_entry_read(struct cache_entry *entry, const uint8_t *bytes, size_t size);

#endif
