/*
 * Regions as the rest of vcpud sees them: what to ask the optimised tier for, and what to do with
 * its answers. The engine never waits for any of this, and does not know who compiles.
 *
 * How: engine_profile_tick asks CPUs that run guest code for a sample. A CPU answers at its next
 * poll by noting where it is and running the next ENGINE_TRACE_BLOCKS blocks one by one, which
 * tells the path: blocks, edges, targets of indirect jumps. Heat decays. Where it gathers, a region
 * is formed along the hot edges and offered by engine_next_region. Code that is compiled costs no
 * counting; a loop is entered at its head, wherever the sample found it.
 */
#ifndef POLYVISOR_VCPU_ENGINE_REGION_H
#define POLYVISOR_VCPU_ENGINE_REGION_H

#include "libshared/jit/blob.h"
#include "vmmd/vcpu/engine/engine.h"

/* Any one thread, about every millisecond. False: no CPU runs guest code, so no need to come again
 * before engine_profile_wait returns. */
bool engine_profile_tick(struct engine *engine);
/* Before CPUs run: take code for hot as soon as it was seen once, so that tests have regions of
 * almost everything. */
void engine_profile_eager(struct engine *engine);
/* A descriptor that becomes readable when a CPU starts to run after engine_profile_tick said false,
 * or when there is something for engine_next_region or engine_next_fetch. Owned by the engine;
 * engine_profile_seen makes it unreadable. */
int engine_profile_event(struct engine *engine);
void engine_profile_seen(struct engine *engine);

/* The hottest region not yet asked for. False: none. *ticket names it from now on. `heat` orders
 * requests. */
bool engine_next_region(struct engine *engine, struct region *region, uint64_t *ticket,
                        uint32_t *heat);
/* Whether its head has a region that it is meant to replace. */
bool engine_region_replaces(struct engine *engine, uint64_t ticket);
/* Whether the code of an outstanding ticket is still worth having (not dropped meanwhile). */
bool engine_region_wanted(struct engine *engine, uint64_t ticket);
/* The answer was no: do not ask for this again soon. */
void engine_region_refused(struct engine *engine, uint64_t ticket);
/* All outstanding tickets are lost (the compiler process died); they may be offered again. */
void engine_regions_forget(struct engine *engine);

/* Fingerprints of entries for which the cache has code; replaces what was known. Sorted or not. */
void engine_set_known(struct engine *engine, const uint64_t *fingerprints, size_t count);
/* An entry that was just decoded and that the cache knows. False: none. */
bool engine_next_fetch(struct engine *engine, uint64_t *fingerprint);

enum region_install {
    REGION_INSTALLED,
    REGION_STALE,   /* guest memory does not hold these bytes (any more) */
    REGION_ABSENT,  /* the entry, or a page of it, is not known yet: may come later */
    REGION_REFUSED, /* unsound, or no room; *err says why */
};
/* Any thread: check and publish. `ticket` 0: from the cache; then the entry is found by what was
 * fetched under `fingerprint`. */
enum region_install engine_install_region(struct engine *engine, uint64_t ticket,
                                          uint64_t fingerprint, const struct region *region,
                                          const uint8_t *blob, size_t size, struct error *err);
/* Likewise another region than the one that was asked for, but with the same head. Unless it was
 * installed the ticket stays. */
enum region_install engine_install_other_region(struct engine *engine, uint64_t ticket,
                                                const struct region *region, const uint8_t *blob,
                                                size_t size, struct error *err);

#endif
