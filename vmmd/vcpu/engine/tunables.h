/* Every limit and threshold of the engine, in one place. Each is a trade that was measured or may
 * be. */
#ifndef POLYVISOR_VCPU_ENGINE_TUNABLES_H
#define POLYVISOR_VCPU_ENGINE_TUNABLES_H

/* CPUs of one machine: CPU sets are one 64-bit word. */
#define ENGINE_CPUS_MAX 64u

/* Address spaces and privilege modes whose translations a CPU keeps. */
#define ENGINE_CONTEXTS 16u

/* Soft-TLB entries a context (powers of two): it starts small and doubles while more than one
 * fill in ENGINE_TLB_GROW_INSNS instructions replaces something. */
#define ENGINE_TLB_ENTRIES_MIN 256u
#define ENGINE_TLB_ENTRIES_MAX 4096u
#define ENGINE_TLB_GROW_INSNS  128u
/* Flushes in a row that find the table less than an eighth full before it is halved. */
#define ENGINE_TLB_SHRINK_FLUSHES 8u

/* Translations a context keeps of those that others took the place of, and looks at before it
 * walks: a third (7zip) to nine tenths (sqlite) of the misses find theirs. */
#define ENGINE_TLB_VICTIMS 8u

/* Ranges a context keeps to know where it has large leaves, and up to which size two are joined
 * while there is room for both. (A kernel has its image in one and its map of all memory in
 * another; flushing a page of neither is frequent.) */
#define ENGINE_LARGE_RANGES 4u
#define ENGINE_LARGE_JOIN   (UINT64_C(1) << 30)

/* Virtual jump cache entries an execute context, a power of two. */
#define ENGINE_JUMP_ENTRIES 4096u
/* Bits of the filter that tells which pages a jump cache may know, a power of two up to 65536. */
#define ENGINE_JUMP_PAGE_BITS 16384u

/* Buckets of the physical block hash, a power of two. */
#define ENGINE_HASH_BUCKETS 262144u

/* All blocks are dropped when they hold more than this. (A run of gcc in the guest needs 110 MiB.)
 */
#define ENGINE_BLOCK_BYTES_MAX (128u << 20)

/* Bound of the memory for compiled code (code_memory.h), and how many of its chunks of 256 KiB stay
 * with us although no code is in them. All blocks are dropped when half of it is in use: the other
 * half is for dropped code that some CPU may still be in. */
#define ENGINE_CODE_BYTES_MAX   (UINT64_C(192) << 20)
#define ENGINE_CODE_IDLE_CHUNKS 4u

/* Times that a block's accesses, compiled to share a translation, may turn out to lie in two pages
 * before it is compiled again without that. */
#define ENGINE_GROUP_CROSSINGS 16u

/* Steps of compiled blocks that a CPU keeps once the interpreter has needed them, and of how many
 * blocks (a power of two). */
#define ENGINE_LOWERED_STEPS   16384u
#define ENGINE_LOWERED_ENTRIES 2048u

/* Guest instructions a block, at most IR_INSNS_MAX: bounds the delay of interrupts. */
#define ENGINE_BLOCK_INSNS 64u

/* Dropped blocks are given back in batches of this many. */
#define ENGINE_RECLAIM_BLOCKS 256u

/* Flush requests queued for another CPU before they are folded into "everything"; pages that one
 * request may name before it becomes a flush of its address spaces. */
#define ENGINE_FLUSH_REQUESTS 8u
#define ENGINE_FLUSH_PAGES    32u

/* Polls of another CPU's acknowledgement before the waiter sleeps. */
#define ENGINE_WAIT_SPINS 2000u
/* Times that a CPU then offers its processor to the one that is waited for. (Of many threads'
 * flushes on half as many processors one took 4 ms without, a tenth of that with this many; more
 * only helps foreign processes.) */
#define ENGINE_STALL_YIELDS 4u

/* --- the optimised tier's profile (region/profile.h) --- */

/* Blocks that a CPU runs one by one for each sample. */
#define ENGINE_TRACE_BLOCKS 64u
/* Guest instructions between samples, at least: on a host that is busy with other things a tick is
 * little work, and what is hot should not depend on that. */
#define ENGINE_SAMPLE_INSNS UINT64_C(250000)
/* Ticks in a row without a running CPU before nobody needs to tick; and how much a CPU must have
 * run since its last sample to end that: an idle guest wakes often, and does little. */
#define ENGINE_PROFILE_IDLE_TICKS 10u
#define ENGINE_PROFILE_REST_INSNS UINT64_C(4000000)
/* Ticks after which all heat is halved. */
#define ENGINE_PROFILE_DECAY_TICKS 512u

/* Blocks that are remembered, in sets (a power of two) of ways; where each went. */
#define ENGINE_PROFILE_SETS  1024u
#define ENGINE_PROFILE_WAYS  8u
#define ENGINE_PROFILE_EDGES 6u

/* A loop's head is hot when it was seen in so many samples and so many times in all; any other
 * block, likewise. Loops pay soonest: who enters one once stays. What has run for that many
 * milliseconds will run for as many again, most likely, which is what compiling has to pay for; with
 * a third of this a boot has twice as many regions compiled and takes longer for it. */
#define ENGINE_HOT_LOOP_SAMPLES 10u
#define ENGINE_HOT_LOOP_HEAT    64u
#define ENGINE_HOT_SAMPLES      32u
#define ENGINE_HOT_HEAT         64u
/* While nothing is being compiled, every so many ticks the hottest block is taken that was seen in at
 * least so many samples. */
#define ENGINE_WARM_TICKS   32u
#define ENGINE_WARM_SAMPLES 6u
/* ... and for so many traces: what has been around will be. (A boot takes some 1500 samples.) */
#define ENGINE_WARM_AGE 2000u
/* Hot blocks that wait for a region to be formed; regions that are being compiled. */
#define ENGINE_CANDIDATES 64u
#define ENGINE_TICKETS    64u
/* An edge is followed when it is at least this part of what leaves its block, and its target at
 * least that part as hot as the entry. */
#define ENGINE_REGION_EDGE_SHARE 16u
#define ENGINE_REGION_HEAT_SHARE 32u
/* Others are followed when so many blocks on they come back, and they are at least this part of the
 * hottest edge: the way out of a loop that is in another. */
#define ENGINE_REGION_PATH       16u
#define ENGINE_REGION_PATH_SHARE 256u
/* Blocks that are gone back from a hot one to where its path begins. */
#define ENGINE_REGION_WAY 64u
/* Guest instructions of a region, within REGION_INSNS_MAX: compiling takes longer than in
 * proportion to them, and what lies far from the head is seldom reached in one go. */
#define ENGINE_REGION_INSNS 384u
/* Times that a region is formed anew because its exits are hot. */
#define ENGINE_REGION_REFORMS 3u
/* Ticks before what was refused is asked for again; doubled each time. */
#define ENGINE_REGION_QUIET_TICKS 4096u
/* Blocks known to the cache whose code was not asked for, or not installed, yet. */
#define ENGINE_FETCHES 1024u
/* Pages whose blocks are looked at under one hold of the watch lock, when the cache becomes known.
 */
#define ENGINE_KNOWN_PAGES 2048u
/* And how often at most, however often it is told. */
#define ENGINE_KNOWN_PAUSE_NS UINT64_C(1000000000)

/* Turns of a guest's waiting loop (its pause hints) after which a CPU offers its processor to
 * others, when there are more CPUs than processors. */
#define ENGINE_PAUSES 32u

/* Watched stores to a page without reservation before it is released from the watch. */
#define ENGINE_RESERVED_STORES 16u

#endif
