/*
 * Executable memory for compiled blocks: one bounded piece of shared memory, mapped twice.
 *
 * The write view is writable and never executable, the execute view executable and never writable;
 * no address is ever both, and no descriptor is left by which a third view could be mapped.
 * Pages are taken from the host when they are first touched and given back when a large stretch of
 * them is free again. Every function may be called by any thread: the allocator has a lock of its
 * own, innermost of all. Who may still run freed code is the caller's business (epochs): a span is
 * to be freed only after all CPUs have left it.
 */
#ifndef POLYVISOR_VCPU_ENGINE_BASELINE_CODE_MEMORY_H
#define POLYVISOR_VCPU_ENGINE_BASELINE_CODE_MEMORY_H

#include "libshared/base/error.h"
#include <stdbool.h>
#include <stdint.h>

struct code_memory;

/* Spans begin at, and their sizes are rounded up to, multiples of this. (There are tens of
 * thousands of some 200 bytes: rounding them to cache lines took an eighth of the memory.) */
#define CODE_MEMORY_ALIGN 16u

/* The span of a block begins with a pointer to it; its code comes behind. */
#define CODE_HEADER_BYTES 8u

/* The same bytes at two addresses: where to write code, and where it runs. Code must therefore be
 * position-independent, or computed for `execute`. */
struct code_span {
    uint8_t *write;
    uint8_t *execute;
    uint32_t size; /* usable bytes: a multiple of CODE_MEMORY_ALIGN, at least what was asked for */
};

/* Reserve `limit_bytes` (64 KiB to 1 GiB; rounded up to whole pages) in both views. NULL with *err
 * set: PERMISSION when the host forbids executable memory (the hint says what to change), CONFIG
 * for an impossible limit, MEMORY otherwise. To be called before the process is confined. */
struct code_memory *code_memory_create(uint64_t limit_bytes, struct error *err);
/* NULL is allowed. No thread may run or write its code any more. */
void code_memory_destroy(struct code_memory *memory);

/* Take `bytes` (1 to the limit). False when no free stretch is large enough: then code must be
 * freed first. The contents are undefined (mostly what an earlier block left). */
bool code_memory_allocate(struct code_memory *memory, uint32_t bytes, struct code_span *span);
/* The same at a multiple of `alignment`: a power of two, from CODE_MEMORY_ALIGN to a page. */
bool code_memory_allocate_aligned(struct code_memory *memory, uint32_t bytes, uint32_t alignment,
                                  struct code_span *span);
/* Keep the first `used` bytes (rounded up; 0 frees the span) of a span as it was allocated, and
 * give back the rest. Updates span->size. So a compiler may take the most that a block can need and
 * write in place; it had better ask for few KiB, since large stretches are scarce when memory is
 * nearly full. */
void code_memory_trim(struct code_memory *memory, struct code_span *span, uint32_t used);
/* Give back the span at `execute`; `size` as span->size (or the bytes asked for or trimmed to).
 * What was not allocated so is refused silently but for the counter of code_memory_refused. */
void code_memory_free(struct code_memory *memory, const uint8_t *execute, uint32_t size);

/* Make what was written to [write, + size) of a span fit to be executed, on this thread and, after
 * the caller's release store, on others. Free of charge on x86-64. */
void code_memory_publish(const struct code_span *span, uint32_t size);
/* arm64: whether code_memory_publish is a barrier for all threads as well, so that who comes to the
 * code by a jump that was patched later sees what was written before. Asks the kernel for it: to be
 * called before the process is confined. (x86-64 keeps that order anyway.) */
bool code_memory_publish_is_barrier(void);
/* arm64: let a change of published code reach other CPUs, sooner or later. */
void code_memory_refresh(const uint8_t *write, const uint8_t *execute, uint32_t size);

/* arm64: run nothing that was fetched before: what others have refreshed meanwhile is seen. */
static inline void code_memory_fetch_anew(void)
{
#if defined(__aarch64__)
    __asm__ volatile("isb" : : : "memory");
#endif
}

/* Bytes in spans; the bound; the largest span that an allocation would surely find; frees that did
 * not fit an allocation (a defect of the caller: always 0). */
uint64_t code_memory_used(const struct code_memory *memory);
uint64_t code_memory_limit(const struct code_memory *memory);
uint32_t code_memory_largest(struct code_memory *memory);
uint64_t code_memory_refused(const struct code_memory *memory);

/* Whether an address lies in the execute view; the same byte in the write view. */
bool code_memory_contains(const struct code_memory *memory, const void *execute);
uint8_t *code_memory_write_view(const struct code_memory *memory, const uint8_t *execute);

#endif
