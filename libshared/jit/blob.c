#include "libshared/jit/blob.h"

#include <string.h>

_Static_assert(sizeof(struct blob_header) == 24, "layout of the message and of the cache");
_Static_assert(sizeof(struct blob_exit) == 4, "layout of the message and of the cache");

#define PAGE_BYTES 4096u

static const char *check_header(const struct blob_header *header, size_t size,
                                const struct region *region)
{
    if (header->magic != BLOB_MAGIC || header->version != BLOB_VERSION || header->reserved) {
        return "not of this version";
    }
    if (header->code_bytes == 0 || header->code_bytes > BLOB_CODE_MAX ||
        header->code_bytes % BLOB_ALIGN || header->entry >= header->code_bytes) {
        return "the size of its code";
    }
    if (header->exit_count == 0 || header->exit_count > BLOB_EXITS_MAX) {
        return "the number of exits";
    }
    if (header->page_count != region->page_count) {
        return "the number of pages";
    }
    if (size !=
        sizeof(*header) + header->exit_count * sizeof(struct blob_exit) + header->code_bytes) {
        return "its length";
    }
    return NULL;
}

static const char *check_exits(const struct blob *blob, const struct region *region)
{
    for (unsigned i = 0; i < blob->header.exit_count; i++) {
        const struct blob_exit *place = &blob->exits[i];
        if (place->page >= blob->header.page_count || place->offset >= PAGE_BYTES ||
            place->reserved) {
            return "an exit's place";
        }
    }
    if (blob->exits[0].page != 0 || blob->exits[0].offset != region->blocks[0].start) {
        return "the way back to the entry";
    }
    return NULL;
}

bool blob_check(struct blob *blob, const uint8_t *bytes, size_t size, const struct region *region,
                struct error *err)
{
    const char *defect = "its length";

    if (size >= sizeof(blob->header)) {
        memcpy(&blob->header, bytes, sizeof(blob->header));
        defect = check_header(&blob->header, size, region);
    }
    if (!defect) {
        blob->exits = (const struct blob_exit *)(bytes + sizeof(blob->header));
        blob->code = (const uint8_t *)(blob->exits + blob->header.exit_count);
        defect = check_exits(blob, region);
    }
    if (defect) {
        error_set(err, ERROR_PROTOCOL, 0, "a compiled region is not sound: %s", defect);
        return false;
    }
    return true;
}

size_t blob_installed_size(const struct blob *blob)
{
    return blob->header.code_bytes + blob->header.exit_count * sizeof(void *) +
           blob->header.page_count * sizeof(uint64_t);
}
