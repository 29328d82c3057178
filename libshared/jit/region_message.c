#include "libshared/jit/region_message.h"

#include <string.h>

void region_to_message(const struct region *region, bool with_heat, struct region_message *message)
{
    Polyvisor__JitRegion *out = &message->region;

    polyvisor__jit_region__init(out);
    out->isa = (char *)region->isa;
    out->mode = region->mode;
    out->n_page_delta = region->page_count;
    out->page_delta = (int32_t *)region->page_delta;
    out->n_blocks = region->block_count;
    out->blocks = message->block_list;
    out->n_edges = region->edge_count;
    out->edges = message->edge_list;
    out->bytes.len = region->byte_count;
    out->bytes.data = (uint8_t *)region->bytes;
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        Polyvisor__JitBlock *to = message->block_list[i] = &message->blocks[i];
        polyvisor__jit_block__init(to);
        to->page = block->page;
        to->start = block->start;
        to->length = block->length;
        to->insns = block->insns;
        to->bytes = block->bytes;
        to->heat = with_heat ? block->heat : 0;
    }
    for (unsigned i = 0; i < region->edge_count; i++) {
        const struct region_edge *edge = &region->edges[i];
        Polyvisor__JitEdge *to = message->edge_list[i] = &message->edges[i];
        polyvisor__jit_edge__init(to);
        to->from = edge->from;
        to->to = edge->to;
        to->heat = with_heat ? edge->heat : 0;
    }
}

/* Whether all numbers fit the narrower fields; region_check judges the rest. */
static bool fits(const Polyvisor__JitRegion *message)
{
    if (strlen(message->isa) >= sizeof(((struct region *)0)->isa) ||
        message->n_page_delta > REGION_PAGES_MAX || message->n_blocks > REGION_BLOCKS_MAX ||
        message->n_edges > REGION_EDGES_MAX || message->bytes.len > REGION_BYTES_MAX) {
        return false;
    }
    for (size_t i = 0; i < message->n_blocks; i++) {
        const Polyvisor__JitBlock *block = message->blocks[i];
        if (block->page > UINT8_MAX || block->start > UINT16_MAX || block->length > UINT16_MAX ||
            block->insns > UINT16_MAX || block->bytes > UINT16_MAX) {
            return false;
        }
    }
    for (size_t i = 0; i < message->n_edges; i++) {
        if (message->edges[i]->from > UINT16_MAX || message->edges[i]->to > UINT16_MAX) {
            return false;
        }
    }
    return true;
}

bool region_from_message(struct region *region, const Polyvisor__JitRegion *message,
                         struct error *err)
{
    if (!message || !fits(message)) {
        error_set(err, ERROR_PROTOCOL, 0, "a region is %s", message ? "too large" : "missing");
        return false;
    }
    memset(region, 0, sizeof(*region));
    memcpy(region->isa, message->isa, strlen(message->isa));
    region->mode = message->mode;
    region->page_count = (uint16_t)message->n_page_delta;
    region->block_count = (uint16_t)message->n_blocks;
    region->edge_count = (uint16_t)message->n_edges;
    region->byte_count = (uint16_t)message->bytes.len;
    for (size_t i = 0; i < message->n_page_delta; i++) {
        region->page_delta[i] = message->page_delta[i];
    }
    for (size_t i = 0; i < message->n_blocks; i++) {
        const Polyvisor__JitBlock *block = message->blocks[i];
        region->blocks[i] = (struct region_block){
            .page = (uint8_t)block->page,
            .start = (uint16_t)block->start,
            .length = (uint16_t)block->length,
            .insns = (uint16_t)block->insns,
            .bytes = (uint16_t)block->bytes,
            .heat = block->heat,
        };
    }
    for (size_t i = 0; i < message->n_edges; i++) {
        region->edges[i] = (struct region_edge){
            .from = (uint16_t)message->edges[i]->from,
            .to = (uint16_t)message->edges[i]->to,
            .heat = message->edges[i]->heat,
        };
    }
    if (message->bytes.len) {
        memcpy(region->bytes, message->bytes.data, message->bytes.len);
    }
    const char *defect = region_check(region);
    if (defect) {
        error_set(err, ERROR_PROTOCOL, 0, "a region is not sound: %s", defect);
        return false;
    }
    return true;
}
