#include "libshared/jit/cache_entry.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define CACHE_MAGIC UINT32_C(0x434a5650) /* "PVJC" */

struct header {
    uint32_t magic, version;
    uint64_t fingerprint;
    uint32_t identity_bytes, region_bytes, blob_bytes, zero;
    uint8_t key[16], checksum[16];
};
_Static_assert(sizeof(struct header) == CACHE_ENTRY_HEADER, "layout on disk");
_Static_assert(sizeof(XXH128_canonical_t) == sizeof(struct cache_key), "128 bits");

static void hash_bytes(const void *bytes, size_t size, uint8_t out[16])
{
    XXH128_canonical_t canonical;

    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, size));
    memcpy(out, canonical.digest, 16);
}

uint64_t cache_head_fingerprint(const struct region *region)
{
    const struct region_block *head = &region->blocks[0];

    return region_fingerprint(region->isa, region->mode, head->start, region->bytes + head->bytes,
                              head->length);
}

/* Both parts are hashed for themselves first, so that nothing can move from one to the other. */
static void hash_subject(const char *identity, size_t identity_size, const uint8_t *packed,
                         size_t packed_size, struct cache_key *key)
{
    uint8_t parts[32];

    hash_bytes(identity, identity_size, parts);
    hash_bytes(packed, packed_size, parts + 16);
    hash_bytes(parts, sizeof(parts), key->bytes);
}

void cache_subject_of(const struct region *region, const char *identity,
                      struct cache_subject *subject)
{
    subject->identity = identity;
    subject->fingerprint = cache_head_fingerprint(region);
    subject->packed_size = region_pack(region, false, subject->packed, sizeof(subject->packed));
    hash_subject(identity, strlen(identity), subject->packed, subject->packed_size, &subject->key);
}

uint8_t *cache_entry_write(const struct cache_subject *subject, const uint8_t *blob,
                           size_t blob_size, size_t *size)
{
    size_t identity_size = strlen(subject->identity);

    if (identity_size == 0 || identity_size > CACHE_IDENTITY_MAX || blob_size > CACHE_BLOB_MAX) {
        return NULL;
    }
    *size = sizeof(struct header) + identity_size + subject->packed_size + blob_size;
    uint8_t *bytes = malloc(*size);
    if (!bytes) {
        return NULL;
    }
    struct header header = {
        .magic = htole32(CACHE_MAGIC),
        .version = htole32(CACHE_ENTRY_VERSION),
        .fingerprint = htole64(subject->fingerprint),
        .identity_bytes = htole32((uint32_t)identity_size),
        .region_bytes = htole32((uint32_t)subject->packed_size),
        .blob_bytes = htole32((uint32_t)blob_size),
    };
    memcpy(header.key, subject->key.bytes, sizeof(header.key));
    uint8_t *at = bytes + sizeof(header);
    memcpy(bytes, &header, sizeof(header));
    memcpy(at, subject->identity, identity_size);
    memcpy(at + identity_size, subject->packed, subject->packed_size);
    memcpy(at + identity_size + subject->packed_size, blob, blob_size);
    hash_bytes(bytes, *size, header.checksum);
    memcpy(bytes, &header, sizeof(header));
    return bytes;
}

static bool checksum_holds(const struct header *read, const uint8_t *bytes, size_t size)
{
    struct header header = *read;
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;

    if (!state) {
        return false;
    }
    memset(header.checksum, 0, sizeof(header.checksum));
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, &header, sizeof(header));
    XXH3_128bits_update(state, bytes + sizeof(header), size - sizeof(header));
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    return memcmp(canonical.digest, read->checksum, sizeof(read->checksum)) == 0;
}

/* Where the parts are. */
static const char *read_form(struct cache_entry *entry, const struct header *header,
                             const uint8_t *bytes, size_t size)
{
    if (le32toh(header->magic) != CACHE_MAGIC) {
        return "it is no entry";
    }
    if (le32toh(header->version) != CACHE_ENTRY_VERSION) {
        return "it is of another version";
    }
    entry->identity_size = le32toh(header->identity_bytes);
    entry->packed_size = le32toh(header->region_bytes);
    entry->blob_size = le32toh(header->blob_bytes);
    if (header->zero || entry->identity_size == 0 || entry->identity_size > CACHE_IDENTITY_MAX ||
        entry->packed_size > REGION_PACKED_MAX || entry->blob_size > CACHE_BLOB_MAX ||
        size != sizeof(*header) + entry->identity_size + entry->packed_size + entry->blob_size) {
        return "its length is wrong";
    }
    entry->identity = (const char *)bytes + sizeof(*header);
    entry->packed = bytes + sizeof(*header) + entry->identity_size;
    entry->blob = entry->packed + entry->packed_size;
    entry->fingerprint = le64toh(header->fingerprint);
    memcpy(entry->key.bytes, header->key, sizeof(entry->key.bytes));
    return NULL;
}

const char *cache_entry_read(struct cache_entry *entry, const uint8_t *bytes, size_t size)
{
    struct header header;
    struct cache_key key;
    struct blob blob;

    if (size < sizeof(header)) {
        return "it is too short";
    }
    memcpy(&header, bytes, sizeof(header));
    const char *defect = read_form(entry, &header, bytes, size);
    if (defect) {
        return defect;
    }
    if (!checksum_holds(&header, bytes, size)) {
        return "its checksum is wrong";
    }
    hash_subject(entry->identity, entry->identity_size, entry->packed, entry->packed_size, &key);
    if (memcmp(&key, &entry->key, sizeof(key))) {
        return "its key is wrong";
    }
    if (!region_unpack(&entry->region, entry->packed, entry->packed_size, NULL)) {
        return "its region is not sound";
    }
    if (cache_head_fingerprint(&entry->region) != entry->fingerprint) {
        return "its fingerprint is wrong";
    }
    return blob_check(&blob, entry->blob, entry->blob_size, &entry->region, NULL)
               ? NULL
               : "its code is not sound";
}
