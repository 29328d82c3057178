/*
 * What runs often, and how it hangs together: the optimised tier's view of the guest.
 *
 * A CPU that is asked for a sample runs the next blocks one by one and notes them in its trace; the
 * thread that ticks merges full traces into a bounded table of blocks and the edges between them.
 * Blocks are known by guest-physical address and mode, as everywhere; what is noted of virtual
 * addresses are the distances between pages. Blocks that become hot are candidates for a region's
 * head; a region that was asked for is a ticket until the answer.
 *
 * Lock order: the engine's watch lock, then the profile's.
 */
#ifndef POLYVISOR_VCPU_ENGINE_REGION_PROFILE_H
#define POLYVISOR_VCPU_ENGINE_REGION_PROFILE_H

#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/region.h"

struct trace_step {
    uint64_t physical, va;
    uint32_t mode;
    uint16_t terminator; /* opcode of the block's last operation */
    bool apart;          /* not where the step before led: an exception or interrupt came between */
    bool head;           /* it has a region */
};

/* One CPU's. The owner fills it until it is full, then the ticking thread empties it. */
struct trace {
    _Atomic bool full;
    bool apart; /* of the next step */
    unsigned count, passed;
    uint64_t retired, optimised; /* when the last sample ended */
    struct mmu_key key;          /* likewise: by which code was reached */
    struct trace_step steps[ENGINE_TRACE_BLOCKS];
};

struct profile_key {
    uint64_t physical;
    uint32_t mode;
};

struct profile_edge {
    uint64_t physical; /* of the next block, in the same mode */
    int32_t delta;     /* from page to page, in pages of virtual addresses */
    uint32_t heat;     /* 0: unused */
};

struct profile_node {
    struct profile_key key;
    uint64_t va;        /* where it was last seen */
    uint64_t hot_ns;    /* when it became hot */
    uint64_t exit_head; /* of the region that was left to here: physical address of its head */
    uint64_t from;      /* the block that mostly led here, in the same mode */
    uint32_t from_heat; /* how much more often than all others */
    uint32_t heat;      /* times seen outside of regions; decays, as the rest up to `exits` */
    uint32_t samples;   /* in how many traces that was */
    uint32_t loops;     /* times reached by a jump back */
    uint32_t exits;     /* times reached from a region */
    uint32_t trace;     /* the last one that it was in */
    uint32_t quiet;     /* no candidate before this tick */
    uint32_t born;      /* the trace that it was first seen in */
    uint8_t refusals, reforms;
    bool used, candidate;
    struct profile_edge edges[ENGINE_PROFILE_EDGES];
};

/* How a block was reached, if it was just now. */
struct profile_path {
    struct cpu *cpu; /* NULL: not known */
    uint64_t va;
    struct mmu_key key; /* by which va led to it */
};

/* A hot block. */
struct candidate {
    struct profile_key key;
    struct profile_path path;
};

/* A region that was asked for. */
struct ticket {
    uint64_t id; /* 0: free */
    struct profile_key key;
    struct profile_path path;
    uint64_t hot_ns;
    uint32_t heat;
    bool replaces; /* the region that its head has */
    int32_t deltas[REGION_PAGES_MAX];
    uint16_t page_count, block_count;
    uint64_t pages[REGION_PAGES_MAX];   /* of RAM */
    uint64_t blocks[REGION_BLOCKS_MAX]; /* physical addresses */
};

/* A block that the cache knows. */
struct fetch {
    enum { FETCH_FREE, FETCH_NEW, FETCH_ASKED } state;
    uint64_t fingerprint, physical;
    uint32_t mode;
    uint32_t stale; /* regions that were not what is there */
    struct profile_path path;
};

/* Reached mostly by jumps back, or at least now and then: more than a jump that happens to lead
 * back to the end of some rare path makes. */
static inline bool profile_is_loop(const struct profile_node *node)
{
    return node->loops > 0 && node->loops >= node->heat / 4;
}

struct profile {
    pthread_mutex_t lock; /* everything but what says otherwise */
    int event;            /* eventfd */
    _Atomic bool resting; /* nobody ticks: tell when a CPU runs */
    uint32_t ticks, idle_ticks, traces;
    bool eager;                 /* whatever was seen is hot; set before threads start */
    struct profile_node *nodes; /* sets of ways */
    struct candidate candidates[ENGINE_CANDIDATES];
    unsigned candidate_count;
    struct ticket tickets[ENGINE_TICKETS];
    uint64_t last_ticket;
    struct fetch fetches[ENGINE_FETCHES];
    unsigned fetch_at; /* the next one to be written */
    _Atomic unsigned new_fetches;
    struct duration_histogram waits; /* from hot to installed */

    /* Watch lock: a set of fingerprints, open addressing, 0 is empty. NULL: none known. */
    uint64_t *known;
    uint64_t known_mask;
    uint64_t looked_ns; /* the telling thread's: when it last compared all blocks with it */
};

/* 0 or a negative errno. */
int profile_create(struct engine *engine);
void profile_destroy(struct engine *engine);
/* Make the event's descriptor readable. */
void profile_signal(struct profile *profile);

/* --- a CPU's own thread --------------------------------------------------------------------- */
/* The CPU leaves IDLE, or looks up from guest code. Cheap. `begins`: it has not run before. */
void profile_awake(struct engine_cpu *self, bool begins);
/* `block` runs next, in a CPU that was asked for a sample (CPU_ATTENTION_PROFILE). */
void trace_note(struct engine_cpu *self, const struct block *block);
/* What runs next is not where the last block led. */
void trace_break(struct engine_cpu *self);
/* The CPU has no more blocks for now. */
void trace_end(struct engine_cpu *self);
/* With the watch lock: a block was decoded from `bytes`; the cache may know it. */
void profile_decoded(struct engine_cpu *self, const struct block *block, uint64_t va,
                     const uint8_t *bytes);

/* --- with both locks ------------------------------------------------------------------------ */
/* `cpu`: whose trace it is. */
void profile_merge(struct engine *engine, struct cpu *cpu, struct trace *trace);

/* --- with the profile's lock ---------------------------------------------------------------- */
struct profile_node *profile_find(const struct profile *profile, struct profile_key key);
/* Whether a region with it has been asked for. */
bool profile_is_awaited(const struct profile *profile, const struct profile_node *node);
/* Consider the block for a region. `path` tells how it was reached, or is NULL. */
void profile_nominate(struct profile *profile, struct profile_node *node,
                      const struct profile_path *path);
struct ticket *profile_ticket(struct profile *profile, uint64_t id);
/* A ticket has been answered; `installed`: its blocks are covered now. */
void profile_answered(struct profile *profile, struct ticket *ticket, bool installed);

/* --- forming: both locks -------------------------------------------------------------------- */
/* The region with this head, along the hot edges. False: it is not worth having. Fills the
 * ticket's pages and blocks. */
bool region_form(const struct engine *engine, const struct profile_node *head,
                 struct region *region, struct ticket *ticket);

#endif
