/* What jitd and the code cache say of regions and compiled code, and what vcpud asks of jitd. */
#include "libshared/jit/blob.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static volatile uint8_t sink;

static void touch(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sink = (uint8_t)(sink ^ ((const uint8_t *)bytes)[i]);
    }
}

static void require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fuzz_jit: %s\n", what);
        abort();
    }
}

static void use_region(const struct region *region)
{
    static uint8_t packed[REGION_PACKED_MAX];
    struct region back;

    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        require(block->page < region->page_count && block->start + block->length <= 4096,
                "a block leaves its page");
        touch(region->bytes + block->bytes, block->length);
    }
    for (unsigned i = 0; i < region->edge_count; i++) {
        touch(&region->blocks[region->edges[i].from], 1);
        touch(&region->blocks[region->edges[i].to], 1);
    }
    size_t size = region_pack(region, true, packed, sizeof(packed));
    require(size > 0, "a sound region does not pack");
    require(region_unpack(&back, packed, size, NULL), "a packed region does not unpack");
    require(!memcmp(&back, region, sizeof(back)), "a packed region comes back changed");
}

static void use_blob(const struct blob *blob, const struct region *region)
{
    require(blob->header.entry < blob->header.code_bytes, "the entry is outside");
    touch(blob->code, blob->header.code_bytes);
    for (unsigned i = 0; i < blob->header.exit_count; i++) {
        require(blob->exits[i].page < region->page_count && blob->exits[i].offset < 4096,
                "an exit leads outside");
    }
}

/* The first two bytes say how long the region is; the blob follows. A region that is refused is
 * replaced by a small one, so that blobs are tried in any case; the blob may leave out its magic
 * and version. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct region region;
    struct blob blob;

    if (size < 2) {
        return 0;
    }
    size_t length = (size_t)bytes[0] | (size_t)bytes[1] << 8;
    bytes += 2;
    size -= 2;
    length = length < size ? length : size;
    if (region_unpack(&region, bytes, length, NULL)) {
        use_region(&region);
    } else {
        memset(&region, 0, sizeof(region));
        region.page_count = 2;
        region.block_count = 1;
    }
    size -= length;
    uint8_t *copy = malloc(size + 8);
    require(copy, "no memory");
    memcpy(copy, (const uint32_t[]){BLOB_MAGIC, BLOB_VERSION}, 8);
    memcpy(copy + 8, bytes + length, size);
    if (blob_check(&blob, copy, size + 8, &region, NULL)) {
        use_blob(&blob, &region);
    }
    if (blob_check(&blob, copy + 8, size, &region, NULL)) {
        use_blob(&blob, &region);
    }
    free(copy);
    return 0;
}
