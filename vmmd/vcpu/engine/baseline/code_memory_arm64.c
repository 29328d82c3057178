/*
 * Publishing code on arm64, whose instruction caches do not follow stores.
 *
 * What this CPU has written is cleaned from its data cache where it was written, and dropped from
 * all instruction caches where it will run (Arm ARM, "Synchronization and coherency issues between
 * data and instruction accesses"). That leaves what other CPUs have fetched already, and what they
 * have read ahead: a jump patched to lead to new code carries no order with it, neither for fetches
 * nor for reads of the data that belongs to the code. Both are settled by the kernel, which has
 * every running thread of this process pass a barrier and fetch anew (membarrier, "sync core").
 */
#if defined(__aarch64__)

#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CTR_CLEAN_UNNEEDED      (UINT64_C(1) << 28) /* IDC */
#define CTR_INVALIDATE_UNNEEDED (UINT64_C(1) << 29) /* DIC */

static uintptr_t line_bytes(uint64_t type, unsigned shift)
{
    return UINT64_C(4) << (type >> shift & 15);
}

void code_memory_refresh(const uint8_t *write, const uint8_t *execute, uint32_t size)
{
    uint64_t type;
    __asm__("mrs %0, ctr_el0" : "=r"(type));
    if (!(type & CTR_CLEAN_UNNEEDED)) {
        uintptr_t line = line_bytes(type, 16);
        for (uintptr_t at = (uintptr_t)write & ~(line - 1); at < (uintptr_t)write + size;
             at += line) {
            __asm__ volatile("dc cvau, %0" : : "r"(at) : "memory");
        }
    }
    __asm__ volatile("dsb ish" : : : "memory");
    if (!(type & CTR_INVALIDATE_UNNEEDED)) {
        uintptr_t line = line_bytes(type, 0);
        for (uintptr_t at = (uintptr_t)execute & ~(line - 1); at < (uintptr_t)execute + size;
             at += line) {
            __asm__ volatile("ic ivau, %0" : : "r"(at) : "memory");
        }
        __asm__ volatile("dsb ish" : : : "memory");
    }
    __asm__ volatile("isb" : : : "memory");
}

void code_memory_publish(const struct code_span *span, uint32_t size)
{
    code_memory_refresh(span->write, span->execute, size);
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

bool code_memory_publish_is_barrier(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == 0;
}

#endif
