/*
 * Compiled regions in place: what the engine keeps of each, how they are entered and left, and how
 * they are dropped with the code that they were made of.
 *
 * A region hangs on its head, the block at its entry: target.entry of that block leads to the
 * region's code while the region lives, and so do the jumps that are linked to the block. The
 * region's own exits are data (an array of pointers behind its code): they lead to a descriptor
 * here, which leaves for the outer loop, until that has found the block; then to the block.
 *
 * Everything is under the watch lock, but for what is read by running code: target.entry, the exits
 * and block->region.
 */
#ifndef POLYVISOR_VCPU_ENGINE_REGION_INSTALLED_H
#define POLYVISOR_VCPU_ENGINE_REGION_INSTALLED_H

#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/region.h"

struct installed_region;

/* Where an exit leads that is not linked: the seventh argument of its own entry. */
struct region_exit {
    struct code_target target;
    struct installed_region *region;
    struct block *to;                 /* the block that it is linked to, or NULL */
    struct region_exit *next, **link; /* among all exits that are linked to that block */
    uint16_t offset;                  /* of the target, in page `page` of the region */
    uint8_t page;
};

/* Guest bytes of a block of the region. */
struct region_place {
    uint8_t page;
    uint16_t first, last; /* page offsets */
};

struct installed_region {
    struct block *head; /* NULL: dropped */
    struct code_span span;
    uint32_t code_bytes, entry; /* of the span: what the compiler made, and where it begins */
    uint32_t bytes;             /* of this allocation */
    uint64_t va;                /* of the entry, where it was first seen */
    uint16_t page_count, place_count, exit_count;
    struct code_page *pages[REGION_PAGES_MAX];
    struct installed_region *page_next[REGION_PAGES_MAX];
    struct installed_region *next, **link; /* all live regions */
    struct installed_region *retired_next;
    struct region_place *places; /* behind the exits */
    struct region_exit exits[];
};

/* --- with the watch lock held --------------------------------------------------------------- */
/* A new region for a checked blob, not yet published: code in code memory, tables still unset.
 * Needs no lock. NULL without room; *err says of what. */
struct installed_region *region_allocate(struct engine *engine, const struct region *region,
                                         const struct blob *blob, struct error *err);
/* Gives it back when no CPU can be in it. */
void region_free(struct engine *engine, struct installed_region *installed);
/* Publish: `pages` are watched and hold the region's bytes, `head` is its entry's block. Replaces
 * the region that the head may have. */
void region_publish(struct engine *engine, struct installed_region *installed, struct block *head,
                    struct code_page *const pages[]);

/* Take a region out of use; its memory waits for all CPUs to leave it. Pages that nothing else
 * needs are settled, but for `keep`. */
void region_drop(struct engine *engine, struct installed_region *installed,
                 const struct code_page *keep);
/* The block is being dropped: its region too, and no exit leads to it any more. */
void region_block_dropped(struct engine *engine, struct block *block);
/* Drop the regions with code in [first, last] of the page. The page stays. */
void region_invalidate(struct engine *engine, struct code_page *page, unsigned first,
                       unsigned last);
void region_drop_all(struct engine *engine);
/* Granules of the page that regions have code in. */
uint64_t region_granules(const struct code_page *page);
/* Whether one of the region's blocks begins at this guest-physical address. */
bool region_holds(const struct engine *engine, const struct installed_region *installed,
                  uint64_t physical);

/* Let the exit lead to `to` for good, when that is right. */
void region_link(struct region_exit *exit, struct block *to);

/* --- a CPU's own thread --------------------------------------------------------------------- */
/* Run the block's region from its entry. */
void region_run(struct cpu *cpu, struct block *block);
/* What cpu->runtime points to. */
extern const struct region_runtime region_runtime_functions;
/* The entry of exits that are not linked. */
CODE_CALL void region_leave(struct cpu *cpu, const void *unused_step, char *tlb, uint64_t tlb_mask,
                            uint64_t unused_a, uint64_t unused_b, struct code_target *target);

#endif
