/*
 * Watched pages: pages of RAM to which no CPU may write without the slow path, because blocks were
 * decoded from them or a reservation looks for stores. All of it is under the engine's watch lock.
 */
#ifndef POLYVISOR_VCPU_ENGINE_WATCH_H
#define POLYVISOR_VCPU_ENGINE_WATCH_H

#include "vmmd/vcpu/engine/core.h"
#include "vmmd/vcpu/engine/soft_mmu.h"

/* Take and release the lock. `self` is NULL on threads that are no CPU. A CPU may serve flushes
 * while it waits: translations resolved before are to be resolved again. */
void watch_acquire(struct engine *engine, struct engine_cpu *self);
bool watch_try_acquire(struct engine *engine);
void watch_release(struct engine *engine);

/* Set a watch flag; when this returns, no CPU writes to the page but under the lock. */
void watch_page(struct engine *engine, struct engine_cpu *self, uint64_t index, uint8_t flag);
void watch_clear(struct engine *engine, uint64_t index, uint8_t flag);

/* Before [physical, + size) within one watched page is written: drop the blocks that overlap, and
 * break the reservations of other CPUs. */
void watch_before_write(struct engine *engine, struct engine_cpu *self, uint64_t index,
                        uint64_t physical, unsigned size);

/* Resolve `va` for a write of `size` bytes that does not leave its page, with the lock held from
 * here to watch_release and the page prepared. NULL: an exception is pending, or the page turned
 * out not to be RAM (page->host says which); the lock is then free. */
uint8_t *watch_begin_write(struct engine_cpu *self, uint64_t va, unsigned size,
                           struct mmu_page *page);

/* The host address of a page of RAM. */
uint8_t *watch_page_host(const struct engine *engine, uint64_t index);
/* Its guest-physical address. */
uint64_t watch_page_physical(const struct engine *engine, uint64_t index);

#endif
