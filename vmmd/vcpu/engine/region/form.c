/*
 * Forming a region: from its head along the edges that are taken often, the hottest first, across
 * calls and returns, until nothing hot is left or a limit is met; then along rarer ones that soon
 * come back, so that a loop is in one region with those around it.
 *
 * What is in a region is what the engine has decoded: only live blocks are taken, with the bytes
 * that memory holds while the watch lock keeps them from changing.
 */
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/watch.h"
#include <stdio.h>
#include <string.h>

struct forming {
    const struct engine *engine;
    struct region *region;
    struct ticket *ticket;
    const struct profile_node *nodes[REGION_BLOCKS_MAX];
    uint64_t heat_out[REGION_BLOCKS_MAX];
    unsigned passed[REGION_BLOCKS_MAX]; /* a bit for each edge that is not to be followed again */
    unsigned insns;
    uint32_t hottest; /* edge of a node that is in */
};

/* --- blocks --------------------------------------------------------------------------------- */

static int index_of(const struct forming *forming, uint64_t physical)
{
    for (unsigned i = 0; i < forming->region->block_count; i++) {
        if (forming->ticket->blocks[i] == physical) {
            return (int)i;
        }
    }
    return -1;
}

/* The index of the page, added if it can be. -1: it has no place. */
static int page_at(struct forming *forming, uint64_t page, int64_t delta)
{
    struct region *region = forming->region;
    for (unsigned i = 0; i < region->page_count; i++) {
        bool same = forming->ticket->pages[i] == page;
        if (same || region->page_delta[i] == delta) {
            return same && region->page_delta[i] == delta ? (int)i : -1;
        }
    }
    if (region->page_count == REGION_PAGES_MAX || delta > REGION_DELTA_MAX ||
        delta < -REGION_DELTA_MAX) {
        return -1;
    }
    forming->ticket->pages[region->page_count] = page;
    region->page_delta[region->page_count] = (int32_t)delta;
    return region->page_count++;
}

GUEST_ACCESS static void copy_bytes(uint8_t *to, const uint8_t *from, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        to[i] = ((const volatile uint8_t *)from)[i];
    }
}

static void note_edges(struct forming *forming, unsigned index)
{
    for (unsigned i = 0; i < ENGINE_PROFILE_EDGES; i++) {
        uint32_t heat = forming->nodes[index]->edges[i].heat;
        forming->heat_out[index] += heat;
        forming->hottest = heat > forming->hottest ? heat : forming->hottest;
    }
}

/* Take the block in, `delta` pages from the head's. False: it cannot be. */
static bool add_block(struct forming *forming, const struct profile_node *node, int64_t delta)
{
    struct region *region = forming->region;
    unsigned index = region->block_count;
    const struct block *block =
        block_cache_find(forming->engine, node->key.physical, node->key.mode, UINT64_MAX);
    if (!block || block->straddles || index == REGION_BLOCKS_MAX ||
        region->byte_count + block->length > REGION_BYTES_MAX ||
        forming->insns + block->insn_count > ENGINE_REGION_INSNS) {
        return false;
    }
    int page = page_at(forming, block->page->index, delta);
    if (page < 0) {
        return false;
    }
    region->blocks[index] = (struct region_block){
        .page = (uint8_t)page,
        .start = block->start,
        .length = block->length,
        .insns = block->insn_count,
        .bytes = region->byte_count,
        .heat = node->heat,
    };
    copy_bytes(region->bytes + region->byte_count,
               watch_page_host(forming->engine, block->page->index) + block->start, block->length);
    region->byte_count = (uint16_t)(region->byte_count + block->length);
    region->block_count++;
    forming->insns += block->insn_count;
    forming->ticket->blocks[index] = node->key.physical;
    forming->nodes[index] = node;
    note_edges(forming, index);
    return true;
}

/* --- edges ---------------------------------------------------------------------------------- */

static bool is_worth_it(const struct forming *forming, unsigned from,
                        const struct profile_edge *edge)
{
    uint64_t heat = edge->heat;
    return heat > 0 && heat * ENGINE_REGION_EDGE_SHARE >= forming->heat_out[from] &&
           heat * ENGINE_REGION_HEAT_SHARE >= forming->hottest;
}

/* The hottest edge that leads out and was not tried; marked as tried. */
static const struct profile_edge *next_edge(struct forming *forming, unsigned *from)
{
    const struct profile_edge *best = NULL;
    unsigned best_bit = 0;
    for (unsigned i = 0; i < forming->region->block_count; i++) {
        const struct profile_node *node = forming->nodes[i];
        for (unsigned e = 0; e < ENGINE_PROFILE_EDGES; e++) {
            const struct profile_edge *edge = &node->edges[e];
            if (!(forming->passed[i] >> e & 1) && (!best || edge->heat > best->heat) &&
                is_worth_it(forming, i, edge)) {
                best = edge;
                *from = i;
                best_bit = e;
            }
        }
    }
    if (best) {
        forming->passed[*from] |= 1u << best_bit;
    }
    return best;
}

static void grow_hot(struct forming *forming)
{
    const struct profile *profile = forming->engine->profile;
    const struct profile_edge *edge;
    unsigned from;
    while ((edge = next_edge(forming, &from)) != NULL) {
        struct profile_key key = {edge->physical, forming->region->mode};
        const struct profile_node *to = profile_find(profile, key);
        const struct region_block *block = &forming->region->blocks[from];
        if (to && index_of(forming, edge->physical) < 0) {
            add_block(forming, to, (int64_t)forming->region->page_delta[block->page] + edge->delta);
        }
    }
}

/* --- ways back ------------------------------------------------------------------------------ */

struct path {
    const struct profile_node *nodes[ENGINE_REGION_PATH];
    int64_t deltas[ENGINE_REGION_PATH];
    unsigned count;
};

static bool is_on(const struct path *path, uint64_t physical)
{
    for (unsigned i = 0; i < path->count; i++) {
        if (path->nodes[i]->key.physical == physical) {
            return true;
        }
    }
    return false;
}

/* Where it mostly goes on from the end of the path without going round on it. */
static const struct profile_edge *way_on(const struct path *path)
{
    const struct profile_edge *best = NULL;
    for (unsigned i = 0; i < ENGINE_PROFILE_EDGES; i++) {
        const struct profile_edge *edge = &path->nodes[path->count - 1]->edges[i];
        if (edge->heat > (best ? best->heat : 0) && !is_on(path, edge->physical)) {
            best = edge;
        }
    }
    return best;
}

/* Whether what follows the edge comes back into the region; then *path is the way. */
static bool find_way_back(const struct forming *forming, unsigned from,
                          const struct profile_edge *edge, struct path *path)
{
    int64_t delta = forming->region->page_delta[forming->region->blocks[from].page];
    path->count = 0;
    while (edge && index_of(forming, edge->physical) < 0) {
        struct profile_key key = {edge->physical, forming->region->mode};
        const struct profile_node *node = profile_find(forming->engine->profile, key);
        if (!node || path->count == ENGINE_REGION_PATH) {
            return false;
        }
        delta += edge->delta;
        path->deltas[path->count] = delta;
        path->nodes[path->count++] = node;
        edge = way_on(path);
    }
    return edge != NULL && path->count > 0;
}

/* Take in the ways back from the edges of one block. */
static bool add_ways_back(struct forming *forming, unsigned from)
{
    bool added = false;
    for (unsigned e = 0; e < ENGINE_PROFILE_EDGES; e++) {
        const struct profile_edge *edge = &forming->nodes[from]->edges[e];
        struct path path;
        if (!edge->heat || (uint64_t)edge->heat * ENGINE_REGION_PATH_SHARE < forming->hottest ||
            !find_way_back(forming, from, edge, &path)) {
            continue;
        }
        for (unsigned i = 0; i < path.count && add_block(forming, path.nodes[i], path.deltas[i]);
             i++) {
            added = true;
        }
    }
    return added;
}

static void grow(struct forming *forming)
{
    bool more = true;
    while (more) {
        grow_hot(forming);
        more = false;
        for (unsigned i = 0; i < forming->region->block_count && !more; i++) {
            more = add_ways_back(forming, i);
        }
    }
}

/* The edges between the blocks, also the rare ones; a block is as hot as what leads to it. */
static void add_edges(struct forming *forming)
{
    struct region *region = forming->region;
    uint32_t heat_in[REGION_BLOCKS_MAX] = {0};
    for (unsigned i = 0; i < region->block_count; i++) {
        for (unsigned e = 0; e < ENGINE_PROFILE_EDGES; e++) {
            const struct profile_edge *edge = &forming->nodes[i]->edges[e];
            int to = edge->heat ? index_of(forming, edge->physical) : -1;
            if (to < 0 || region->edge_count == REGION_EDGES_MAX) {
                continue;
            }
            heat_in[to] += edge->heat;
            region->edges[region->edge_count++] =
                (struct region_edge){(uint16_t)i, (uint16_t)to, edge->heat};
        }
    }
    for (unsigned i = 0; i < region->block_count; i++) {
        if (region->blocks[i].heat < heat_in[i]) {
            region->blocks[i].heat = heat_in[i];
        }
    }
}

/* A single block that leads elsewhere is as good in the lower tier. */
static bool is_worth_having(const struct region *region)
{
    return region->block_count >= 3 || region->edge_count >= region->block_count;
}

bool region_form(const struct engine *engine, const struct profile_node *head,
                 struct region *region, struct ticket *ticket)
{
    struct forming forming = {.engine = engine, .region = region, .ticket = ticket};
    memset(region, 0, sizeof(*region));
    snprintf(region->isa, sizeof(region->isa), "%s", engine->isa->name);
    region->mode = head->key.mode;
    if (!add_block(&forming, head, 0)) {
        return false;
    }
    grow(&forming);
    add_edges(&forming);
    ticket->page_count = region->page_count;
    memcpy(ticket->deltas, region->page_delta, sizeof(ticket->deltas));
    ticket->block_count = region->block_count;
    return is_worth_having(region);
}
