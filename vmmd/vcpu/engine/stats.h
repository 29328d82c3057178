/*
 * What the engine counts. Nothing here is on a fast path: hits of the inlined TLB test, of links
 * and of the jump cache are not counted at all, only what leaves them.
 *
 * Counters belong to a CPU: its own thread writes them with plain relaxed stores, any thread reads
 * them, a few events late, and adds them up.
 */
#ifndef POLYVISOR_VCPU_ENGINE_STATS_H
#define POLYVISOR_VCPU_ENGINE_STATS_H

#include <stdint.h>

/* Every counter of a CPU, once; also fields of struct engine_stats, summed. */
#define ENGINE_COUNTERS(X)                                                                         \
    X(blocks_decoded)                                                                              \
    X(blocks_lowered) /* decoded again, because the interpreter needed a compiled one's steps */   \
    X(blocks_compiled)                                                                             \
    X(compiled_guest_bytes) /* of compiled blocks: what they covered */                            \
    X(compiled_host_bytes)  /* and became */                                                       \
    X(compile_ns)           /* spent on it */                                                      \
    X(code_memory_full)     /* times that code was dropped because its memory was full */          \
    X(lookups)              /* dispatches that missed both link and jump cache */                  \
    X(tlb_misses)                                                                                  \
    X(tlb_victims)     /* of them: found among the translations replaced last */                   \
    X(slow_device)     /* accesses outside RAM */                                                  \
    X(slow_crossing)   /* accesses that cross a page */                                            \
    X(slow_watched)    /* stores to pages with code or a reservation */                            \
    X(slow_misaligned) /* misaligned ones that the guest's rules refuse: exceptions */             \
    X(exits_attention) /* guest code left because another thread wanted something */               \
    X(exceptions)                                                                                  \
    X(interrupts)                                                                                  \
    X(waits)             /* the guest waited for an interrupt, and the CPU slept */                \
    X(samples)           /* times that the profile asked where the guest is */                     \
    X(samples_optimised) /* and it was in optimised code */

/* And of the optimised tier as a whole. */
#define REGION_COUNTERS(X)                                                                         \
    X(regions)            /* in use */                                                             \
    X(region_bytes)       /* of their code */                                                      \
    X(regions_installed)  /* since the start */                                                    \
    X(region_guest_bytes) /* of these */                                                           \
    X(region_install_ns)  /* processor time for all that came, also what was not right */          \
    X(regions_dropped)                                                                             \
    X(regions_stale)   /* came too late: the guest's code had changed */                           \
    X(regions_refused) /* were not sound, or there was no room, or cannot be compiled */

struct region_counts {
#define X(name) uint64_t name;
    REGION_COUNTERS(X)
#undef X
};

struct cpu_counters {
#define X(name) uint64_t name;
    ENGINE_COUNTERS(X)
#undef X
};

#define engine_count(counter) engine_count_by(counter, 1)
#define engine_count_by(counter, amount)                                                           \
    __atomic_store_n(&(counter), (counter) + (amount), __ATOMIC_RELAXED)

/* How often a duration occurred: four steps a power of two, from 64 ns to 17 s; what is shorter or
 * longer counts as these. Written and read as counters are. */
#define DURATION_STEPS 112u
struct duration_histogram {
    uint64_t counts[DURATION_STEPS];
};

void duration_count(struct duration_histogram *histogram, uint64_t nanoseconds);
/* Add the counts of one to another, which only the caller uses. */
void duration_add(struct duration_histogram *to, const struct duration_histogram *from);
/* The duration, in nanoseconds, that `permille` of all do not exceed (500: the median), to about
 * 10 %; 0 when there are none. */
uint64_t duration_quantile(const struct duration_histogram *histogram, unsigned permille);

struct engine_cpu;
/* On a CPU's own thread: a block was compiled. */
void engine_count_compiled(struct engine_cpu *self, uint64_t nanoseconds, uint32_t guest_bytes,
                           uint32_t host_bytes);

#endif
