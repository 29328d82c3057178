/*
 * The execution engine: runs guest CPUs from cached, decoded blocks.
 *
 * One `struct engine` a machine, shared by its CPUs; one host thread a CPU. The engine owns the
 * block cache and each CPU's soft TLB. It knows no guest ISA beyond `struct isa` and no device:
 * everything outside RAM goes through `struct cpu_host`.
 */
#ifndef POLYVISOR_VCPU_ENGINE_ENGINE_H
#define POLYVISOR_VCPU_ENGINE_ENGINE_H

#include "libshared/base/error.h"
#include "libshared/isa/isa.h"
#include "vmmd/vcpu/engine/stats.h"

struct engine;

/* `memory` and `isa` outlive the engine. NULL with *err set on failure. */
struct engine *engine_create(const struct isa *isa, struct memory *memory, unsigned cpu_count,
                             struct error *err);

/* How blocks are run. A compiler leaves to the interpreter what it does not do; OPTIMISED is
 * BASELINE and whatever regions somebody compiles for it (region.h). */
enum engine_tier { ENGINE_INTERP, ENGINE_BASELINE, ENGINE_OPTIMISED };

/* "interp", "baseline", "optimised". NULL: no such tier. */
const char *engine_tier_name(enum engine_tier tier);
/* False: no tier of that name, or not on this host. */
bool engine_tier_find(const char *name, enum engine_tier *tier);
/* Whether this host can do it (code memory may still be forbidden). */
bool engine_tier_available(enum engine_tier tier);
/* The one that users get who do not choose. */
enum engine_tier engine_tier_best(void);
/* Before any CPU runs, and before the process is confined. A new engine interprets. When the tier
 * cannot be had, the engine goes on to interpret, and the log says why. */
void engine_set_tier(struct engine *engine, enum engine_tier tier);

/* Before any CPU runs: blocks have at most `insns` guest instructions, 1 to ENGINE_BLOCK_INSNS
 * (which is the default). With 1 there is a border after each instruction. */
void engine_set_block_limit(struct engine *engine, unsigned insns);

/* After all CPU threads have left engine_run. Frees the CPUs too. */
void engine_destroy(struct engine *engine);

/* Allocate CPU `index` (reset state), wired to this engine; the engine owns it. `host` gives time,
 * timers, firmware calls and MMIO; its mmu_switch, tlb_flush, fetch_barrier and pause are
 * replaced by the engine's own. NULL without memory. */
struct cpu *engine_add_cpu(struct engine *engine, unsigned index, const struct cpu_host *host,
                           void *host_data);
struct cpu *engine_cpu(struct engine *engine, unsigned index);

/* Name compiled code in `map` (baseline/perf_map.h), which outlives the engine. Before CPUs run. */
struct perf_map;
void engine_set_perf_map(struct engine *engine, struct perf_map *map);

enum engine_exit {
    ENGINE_EXIT_PAUSE, /* CPU_ATTENTION_PAUSE was seen (and is cleared) */
    ENGINE_EXIT_STOP,  /* CPU_ATTENTION_STOP was seen (it stays set) */
    ENGINE_EXIT_STEP,  /* a single block ended, because CPU_ATTENTION_STEP is set (it stays set) */
    ENGINE_EXIT_LEAVE, /* CPU_ATTENTION_LEAVE was seen (and is cleared) */
};

/* Run this CPU on the calling thread until something asks it to leave. Sleeps in the kernel while
 * the guest waits for an interrupt. */
enum engine_exit engine_run(struct cpu *cpu);

/* Any thread: set attention bits and wake the CPU if it sleeps. */
void engine_kick(struct cpu *cpu, uint32_t reasons);

/* A CPU's own thread, outside guest code: it is about to block for long (stopped hart, pause), so
 * others need not wait for it; and back, which does what was asked meanwhile. */
void engine_quiesce_begin(struct cpu *cpu);
void engine_quiesce_end(struct cpu *cpu);

/* A CPU's own thread, outside engine_run: sleep in the kernel until an attention bit is set (or
 * return at once). FLUSH and INTERRUPT are cleared: engine_run looks after what they stand for. */
void engine_sleep(struct cpu *cpu);

/* A CPU's own thread, inside a helper or firmware call: flush on the CPUs in `cpu_mask` (bit =
 * index; may include the caller) and return when all have done it. Arguments as cpu_host.tlb_flush.
 */
void engine_remote_flush(struct cpu *cpu, uint64_t cpu_mask, bool any_root, uint64_t root,
                         uint64_t root_mask, uint64_t va, uint64_t size);
/* Likewise: when it returns, none of them runs code that was overwritten before. The instruction
 * that calls it must be the last of its block. */
void engine_remote_fetch_barrier(struct cpu *cpu, uint64_t cpu_mask);

/* Any thread, before a device's completion is made known to the guest: drop code that a device
 * overwrote (see memory.h). Cheap when nothing was. */
void engine_device_wrote(struct engine *engine);

/* Any thread: drop all code; what is reached again is decoded anew. */
void engine_drop_code(struct engine *engine);

struct engine_stats {
    uint64_t retired; /* guest instructions */
#define X(name) uint64_t name;
    ENGINE_COUNTERS(X) /* stats.h says what they are */
    REGION_COUNTERS(X)
#undef X
    uint64_t retired_optimised;               /* guest instructions in regions; within `retired` */
    uint64_t region_median_ns, region_p99_ns; /* from hot to installed */
    uint64_t slow_accesses;                   /* device, crossing and watched ones */
    uint64_t blocks_dropped;
    uint64_t block_bytes;                       /* memory held by decoded blocks */
    uint64_t compile_median_ns, compile_p99_ns; /* of a block; 0: none was compiled */
    uint64_t code_bytes, code_bytes_max;        /* compiled code, and its bound; 0: no compiler */
};
/* Any thread: a snapshot, summed over CPUs. */
void engine_stats(struct engine *engine, struct engine_stats *stats);

#endif
