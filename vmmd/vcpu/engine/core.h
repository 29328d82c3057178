/*
 * The engine's own structures, shared by its files and by nobody else.
 *
 * Locks, outermost first: `watch_lock` (engine), `request_lock` (a CPU), `tlb_lock` (a CPU). A CPU
 * that waits for the watch lock counts as quiescent (quiesce.h), so its holder may wait for others.
 */
#ifndef POLYVISOR_VCPU_ENGINE_CORE_H
#define POLYVISOR_VCPU_ENGINE_CORE_H

#include "libshared/isa/isa.h"
#include "vmmd/vcpu/engine/block.h"
#include "vmmd/vcpu/engine/engine.h"
#include "vmmd/vcpu/engine/tunables.h"
#include <pthread.h>

#define PAGE_BYTES 4096u
/* Steps of a block. */
#define ENGINE_STEPS_MAX (IR_OPS_MAX * 2 + 8)
#define PAGE_MASK        (~(uint64_t)(PAGE_BYTES - 1))

struct code_memory;
struct installed_region;
struct perf_map;
struct profile;
struct region_exit;
struct trace;

/* How far from guest code a CPU is; others compare. */
enum cpu_state {
    CPU_STATE_RUNNING, /* may be between a TLB test and the access */
    CPU_STATE_WAITING, /* inside a block, but uses no translation before it has served requests */
    CPU_STATE_ENDING,  /* as WAITING, and the block ends with the current instruction */
    CPU_STATE_IDLE,    /* holds no block at all */
};

/* What other CPUs ask of this one; fields as cpu_host.tlb_flush. */
struct flush_request {
    bool any_root, any_page;
    uint64_t root, root_mask, va, size;
};

/* An aligned range of virtual addresses: those with (va & mask) == base. */
struct large_range {
    uint64_t base, mask;
};

/* Translations whose entries were taken by others: they may be used again instead of a walk. */
struct tlb_victims {
    uint64_t pages[ENGINE_TLB_VICTIMS]; /* virtual addresses, NO_VICTIM: none; looked through */
    struct {
        uint64_t addend;
        bool read, write, execute, global, device; /* as the entry had them */
    } entries[ENGINE_TLB_VICTIMS];
    unsigned next;
    bool used; /* otherwise nothing above is valid */
};
#define NO_VICTIM UINT64_MAX

/* Translations under one mmu_key. Owner thread, but for what `tlb_lock` and tag_write allow. */
struct mmu_context {
    struct mmu_key key;
    struct tlb_entry *table;                      /* replaced under tlb_lock */
    uint64_t entries;                             /* likewise */
    uint64_t used;                                /* entries filled since the last flush */
    uint64_t global_used;                         /* those of them that hold global translations: */
    uint64_t global[ENGINE_TLB_ENTRIES_MAX / 64]; /* a bit an entry */
    struct tlb_victims victims;
    uint64_t fills, window; /* replacing fills, and `retired` when their count began */
    unsigned sparse_flushes;
    struct large_range large[ENGINE_LARGE_RANGES]; /* all large leaves lie in one of them */
    unsigned large_count;
    struct jump_entry *jumps;                        /* NULL until code runs in this context */
    uint64_t jump_pages[ENGINE_JUMP_PAGE_BITS / 64]; /* pages (hashed) it may know */
    uint64_t global_jumps[ENGINE_JUMP_ENTRIES / 64]; /* an entry that leads to a global page */
    bool jumps_used;
    uint64_t last_use;
};

/* One CPU's engine data; cpu->engine points here. */
struct engine_cpu {
    struct cpu *cpu;
    struct engine *engine;
    struct cpu_host host;    /* what the CPU sees */
    struct cpu_host machine; /* what the machine gave */

    struct mmu_context contexts[ENGINE_CONTEXTS];
    struct mmu_context *data, *execute;
    bool tables_stay; /* compiled code holds the table's address: it must not grow now; owner */
    uint64_t context_clock;
    pthread_mutex_t tlb_lock; /* tables may be replaced / are scanned */

    _Atomic uint32_t state; /* owner writes; enum cpu_state */
    unsigned quiesce_depth; /* of engine_quiesce_begin; owner */
    uint32_t quiesce_state; /* to go back to; owner */
    pthread_mutex_t request_lock;
    pthread_cond_t acknowledged; /* served, border or state grew */
    pthread_cond_t wake;         /* for the sleeping CPU itself */
    _Atomic uint32_t waiters, sleeping;
    struct flush_request requests[ENGINE_FLUSH_REQUESTS]; /* request_lock */
    unsigned request_count;                               /* request_lock */
    bool request_all;                                     /* request_lock */
    _Atomic uint64_t requested;                           /* tickets given out; request_lock */
    _Atomic uint64_t served;                              /* all up to this one were served */
    _Atomic uint64_t border; /* likewise, and the CPU left its block since */
    _Atomic bool purge;      /* forget dropped blocks at the next border */

    struct reservation reservation;
    _Atomic uint64_t watched; /* watch lock: granule of a watched reservation | 1, 0 = none */

    bool self_modified;              /* a store of this CPU dropped the block that runs */
    bool lower_tier;                 /* the next block runs without its region (region/runtime.c) */
    struct region_exit *region_exit; /* the exit of a region that was not linked */
    struct trace *trace;             /* of the profile (region/profile.h); NULL: none */
    unsigned pauses;                 /* turns of loops in which the guest waits; owner */
    struct cpu_counters counters;
    struct duration_histogram compile_times;

    /* Decoder's scratch. */
    struct ir_block ir;
    struct xinsn code[ENGINE_STEPS_MAX];
    uint16_t insn_steps[IR_INSNS_MAX + 1]; /* where each guest instruction's code begins */
    uint16_t steps[IR_OPS_MAX + 1];        /* where each operation's code begins */
    struct lowered_cache *lowered;         /* lower.c's */
    struct xinsn rest[ENGINE_STEPS_MAX];   /* remainder of an instruction that hit its own block */
    uint8_t page[PAGE_BYTES], next_page[PAGE_BYTES];
};

/* Bits of engine->watch, a byte a page of RAM. The authoritative copy of the code map: what device
 * processes can write must not decide whether this process is safe. */
enum watch_flags {
    WATCH_CODE = 1,     /* blocks were decoded from here */
    WATCH_RESERVED = 2, /* a reservation looks for stores here */
    WATCH_WRITERS = 4,  /* some TLB may allow writes without the slow path */
};

/* A page with decoded blocks. Watch lock. */
struct code_page {
    uint64_t index;    /* page of RAM */
    uint64_t granules; /* a bit for each 64 bytes that hold code of some block */
    struct block *blocks;
    struct installed_region *regions;
    struct code_page *next, **link; /* all code pages */
};

struct baseline;

/* Dropped code that some CPU may still be in. */
struct dropped_list {
    struct block *blocks;
    struct installed_region *regions;
    unsigned count;
};

struct engine {
    const struct isa *isa;
    struct baseline
        *baseline; /* the compiler; NULL: all is interpreted. Set before threads start */
    struct memory *memory;
    unsigned cpu_count;
    unsigned block_insns; /* guest instructions a block; set before threads start */
    struct engine_cpu *cpus[ENGINE_CPUS_MAX]; /* set before threads start */

    bool crowded;             /* the host has fewer processors for us than we have CPUs */
    _Atomic uint32_t stalled; /* while crowded: threads that sleep until a CPU answers */

    pthread_mutex_t watch_lock;
    _Atomic uint8_t *watch;        /* a byte a page; enum watch_flags */
    uint8_t *reserved_stores;      /* a byte a page; watch lock */
    struct code_page **code_pages; /* by page of RAM; watch lock */
    struct code_page *all_pages;   /* watch lock */
    uint64_t page_count;
    _Atomic uint32_t device_wrote; /* the count last looked at; stored under the watch lock */

    struct block *_Atomic *buckets;
    struct block *dead_block;    /* fills empty jump cache entries */
    struct jump_entry *no_jumps; /* an empty jump cache, for contexts that have none yet */

    _Atomic uint64_t block_bytes, blocks_dropped;
    uint64_t live_code_bytes;    /* compiled code of blocks that are found; watch lock */
    struct dropped_list retired; /* since the last batch; watch lock */
    struct dropped_list batch;   /* waiting for all CPUs to pass a border; watch lock */
    uint64_t batch_tickets[ENGINE_CPUS_MAX];

    struct code_memory *code_memory; /* the compiler's, for statistics */
    struct perf_map *perf_map;       /* likewise; NULL: not wanted */

    struct profile *profile;            /* NULL: no optimised tier. Set before threads start */
    struct installed_region *regions;   /* live ones; watch lock */
    struct region_counts region_counts; /* stored under the watch lock */
};

static inline struct engine_cpu *engine_cpu_of(const struct cpu *cpu)
{
    return cpu->engine;
}

#endif
