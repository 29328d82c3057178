#include "libshared/jit/region.h"

#include "libshared/ir/ir.h"
#include "libshared/jit/region_message.h"
#include <string.h>
#include <xxhash.h>

#define PAGE_BYTES 4096u

static const char *check_isa(const struct region *region)
{
    size_t length = strnlen(region->isa, sizeof(region->isa));

    if (length == 0 || length == sizeof(region->isa)) {
        return "the name of the instruction set";
    }
    for (size_t i = 0; i < length; i++) {
        char c = region->isa[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) {
            return "the name of the instruction set";
        }
    }
    return NULL;
}

static const char *check_pages(const struct region *region)
{
    if (region->page_count == 0 || region->page_count > REGION_PAGES_MAX) {
        return "the number of pages";
    }
    if (region->page_delta[0] != 0) {
        return "the entry's page";
    }
    for (unsigned i = 1; i < region->page_count; i++) {
        int32_t delta = region->page_delta[i];
        if (delta > REGION_DELTA_MAX || delta < -REGION_DELTA_MAX) {
            return "a page too far from the entry";
        }
        for (unsigned other = 0; other < i; other++) {
            if (region->page_delta[other] == delta) {
                return "a page named twice";
            }
        }
    }
    return NULL;
}

static const char *check_block(const struct region *region, const struct region_block *block)
{
    if (block->page >= region->page_count) {
        return "a block's page";
    }
    if (block->length == 0 || block->start >= PAGE_BYTES ||
        block->length > PAGE_BYTES - block->start) {
        return "a block's place";
    }
    if (block->insns == 0 || block->insns > IR_INSNS_MAX || block->insns > block->length) {
        return "a block's number of instructions";
    }
    if (block->bytes > region->byte_count || block->length > region->byte_count - block->bytes) {
        return "where a block's bytes are";
    }
    return NULL;
}

static const char *check_blocks(const struct region *region)
{
    uint64_t seen[REGION_PAGES_MAX][PAGE_BYTES / 64] = {0};
    unsigned insns = 0;

    if (region->block_count == 0 || region->block_count > REGION_BLOCKS_MAX) {
        return "the number of blocks";
    }
    if (region->byte_count > REGION_BYTES_MAX) {
        return "the number of bytes";
    }
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        const char *defect = check_block(region, block);
        if (defect) {
            return defect;
        }
        uint64_t *word = &seen[block->page][block->start / 64];
        uint64_t bit = UINT64_C(1) << (block->start % 64);
        if (*word & bit) {
            return "a block named twice";
        }
        *word |= bit;
        insns += block->insns;
    }
    if (region->blocks[0].page != 0) {
        return "the entry's page";
    }
    return insns > REGION_INSNS_MAX ? "the number of instructions" : NULL;
}

static const char *check_edges(const struct region *region)
{
    if (region->edge_count > REGION_EDGES_MAX) {
        return "the number of edges";
    }
    for (unsigned i = 0; i < region->edge_count; i++) {
        if (region->edges[i].from >= region->block_count ||
            region->edges[i].to >= region->block_count) {
            return "an edge's block";
        }
    }
    return NULL;
}

const char *region_check(const struct region *region)
{
    static const char *(*const checks[])(const struct region *) = {check_isa, check_pages,
                                                                   check_blocks, check_edges};

    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        const char *defect = checks[i](region);
        if (defect) {
            return defect;
        }
    }
    return NULL;
}

size_t region_pack(const struct region *region, bool with_heat, uint8_t *bytes, size_t size)
{
    struct region_message message;

    region_to_message(region, with_heat, &message);
    if (polyvisor__jit_region__get_packed_size(&message.region) > size) {
        return 0;
    }
    return polyvisor__jit_region__pack(&message.region, bytes);
}

bool region_unpack(struct region *region, const uint8_t *bytes, size_t size, struct error *err)
{
    Polyvisor__JitRegion *message = polyvisor__jit_region__unpack(NULL, size, bytes);

    if (!message) {
        error_set(err, ERROR_PROTOCOL, 0, "a region's message is malformed");
        return false;
    }
    bool sound = region_from_message(region, message, err);
    polyvisor__jit_region__free_unpacked(message, NULL);
    return sound;
}

uint64_t region_fingerprint(const char *isa, uint32_t mode, uint16_t start, const uint8_t *bytes,
                            uint16_t length)
{
    struct {
        char isa[16];
        uint32_t mode;
        uint16_t start, length;
    } place = {.mode = mode, .start = start, .length = length};
    _Static_assert(sizeof(place) == 24, "no padding is hashed");
    size_t name = strnlen(isa, sizeof(place.isa));

    memcpy(place.isa, isa, name);
    return XXH3_64bits_withSeed(bytes, length, XXH3_64bits(&place, sizeof(place)));
}
