/* Regions as the messages of proto/jit.proto carry them. */
#ifndef POLYVISOR_JIT_REGION_MESSAGE_H
#define POLYVISOR_JIT_REGION_MESSAGE_H

#include "libshared/jit/region.h"
#include "proto/jit.pb-c.h"

/* A message and all it points to, besides what stays in the region. */
struct region_message {
    Polyvisor__JitRegion region;
    Polyvisor__JitBlock *block_list[REGION_BLOCKS_MAX];
    Polyvisor__JitEdge *edge_list[REGION_EDGES_MAX];
    Polyvisor__JitBlock blocks[REGION_BLOCKS_MAX];
    Polyvisor__JitEdge edges[REGION_EDGES_MAX];
};

/* Fill `message` from a sound region; it points into the region, which must stay unchanged, and
 * into itself, so it must not be copied. */
void region_to_message(const struct region *region, bool with_heat, struct region_message *message);
/* Copy and check (region_check). False with *err set; NULL is not sound. */
bool region_from_message(struct region *region, const Polyvisor__JitRegion *message,
                         struct error *err);

#endif
