#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/quiesce.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include "vmmd/vcpu/engine/watch.h"
#include <string.h>

static bool refuse(struct engine_cpu *self, uint64_t va, enum cpu_access access)
{
    self->engine->isa->raise_access_fault(self->cpu, va, access);
    return false;
}

/* Devices may block, so others need not wait for this CPU meanwhile. */
static bool device_load(struct engine_cpu *self, uint64_t va, uint64_t physical, unsigned size_log2,
                        uint64_t *value)
{
    uint64_t size = (uint64_t)1 << size_log2;
    if (size > 8 || physical % size != 0) {
        return refuse(self, va, CPU_ACCESS_READ);
    }
    uint64_t result = 0;
    uint32_t previous = quiesce_enter(self, CPU_STATE_WAITING);
    bool done = self->machine.mmio_read(self->cpu, physical, (unsigned)size, &result);
    quiesce_leave(self, previous);
    *value = size == 8 ? result : result & (((uint64_t)1 << 8 * size) - 1);
    return done || refuse(self, va, CPU_ACCESS_READ);
}

static bool device_store(struct engine_cpu *self, uint64_t va, uint64_t physical,
                         unsigned size_log2, uint64_t value)
{
    uint64_t size = (uint64_t)1 << size_log2;
    if (size > 8 || physical % size != 0) {
        return refuse(self, va, CPU_ACCESS_WRITE);
    }
    uint64_t low = size == 8 ? value : value & (((uint64_t)1 << 8 * size) - 1);
    uint32_t previous = quiesce_enter(self, CPU_STATE_WAITING);
    bool done = self->machine.mmio_write(self->cpu, physical, (unsigned)size, low);
    quiesce_leave(self, previous);
    return done || refuse(self, va, CPU_ACCESS_WRITE);
}

GUEST_ACCESS static void copy_bytes(uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
    }
}

static bool load_crossing(struct engine_cpu *self, uint64_t va, unsigned size, uint64_t value[2])
{
    uint64_t border = (va & PAGE_MASK) + PAGE_BYTES;
    size_t head = border - va;
    uint8_t bytes[16] = {0};
    struct mmu_page page;
    if (!mmu_resolve(self, va, CPU_ACCESS_READ, &page)) {
        return false;
    }
    if (!page.host) {
        return refuse(self, va, CPU_ACCESS_READ);
    }
    copy_bytes(bytes, page.host, head);
    if (!mmu_resolve(self, border, CPU_ACCESS_READ, &page)) {
        return false;
    }
    if (!page.host) {
        return refuse(self, border, CPU_ACCESS_READ);
    }
    copy_bytes(bytes + head, page.host, size - head);
    memcpy(value, bytes, size > 8 ? 16 : 8);
    return true;
}

bool access_load(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t value[2])
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    unsigned size_log2 = aux & IR_MEM_SIZE;
    unsigned size = 1u << size_log2;
    if (aux & IR_MEM_ALIGN && va & (size - 1)) {
        engine_count(self->counters.slow_misaligned);
        self->engine->isa->raise_misaligned(cpu, va, CPU_ACCESS_READ);
        return false;
    }
    if ((va & (PAGE_BYTES - 1)) + size > PAGE_BYTES) {
        engine_count(self->counters.slow_crossing);
        return load_crossing(self, va, size, value);
    }
    struct mmu_page page;
    if (!mmu_resolve(self, va, CPU_ACCESS_READ, &page)) {
        return false;
    }
    if (!page.host) {
        engine_count(self->counters.slow_device);
        return device_load(self, va, page.physical, size_log2, value);
    }
    guest_read(page.host, size_log2, value);
    return true;
}

/* Store `size` bytes that do not leave the page; the page was resolved for writing before. */
static bool store_bytes(struct engine_cpu *self, uint64_t va, const uint8_t *bytes, unsigned size)
{
    struct mmu_page page;
    if (!mmu_resolve(self, va, CPU_ACCESS_WRITE, &page)) {
        return false;
    }
    if (page.host && !page.watched) {
        copy_bytes(page.host, bytes, size);
        return true;
    }
    uint8_t *host = page.host ? watch_begin_write(self, va, size, &page) : NULL;
    if (host) {
        copy_bytes(host, bytes, size);
        watch_release(self->engine);
        return true;
    }
    return !self->cpu->exception && refuse(self, va, CPU_ACCESS_WRITE);
}

static bool store_crossing(struct engine_cpu *self, uint64_t va, unsigned size,
                           const uint64_t value[2])
{
    uint64_t border = (va & PAGE_MASK) + PAGE_BYTES;
    unsigned head = (unsigned)(border - va);
    struct mmu_page page;
    const uint64_t parts[2] = {va, border};
    for (unsigned i = 0; i < 2; i++) {
        if (!mmu_resolve(self, parts[i], CPU_ACCESS_WRITE, &page)) {
            return false;
        }
        if (!page.host) {
            return refuse(self, parts[i], CPU_ACCESS_WRITE);
        }
    }
    uint8_t bytes[16] = {0};
    memcpy(bytes, value, size > 8 ? 16 : 8);
    return store_bytes(self, border, bytes + head, size - head) &&
           store_bytes(self, va, bytes, head);
}

bool access_store(struct cpu *cpu, uint64_t va, unsigned aux, const uint64_t value[2])
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    unsigned size_log2 = aux & IR_MEM_SIZE;
    unsigned size = 1u << size_log2;
    self->self_modified = false;
    if (aux & IR_MEM_ALIGN && va & (size - 1)) {
        engine_count(self->counters.slow_misaligned);
        self->engine->isa->raise_misaligned(cpu, va, CPU_ACCESS_WRITE);
        return false;
    }
    if ((va & (PAGE_BYTES - 1)) + size > PAGE_BYTES) {
        engine_count(self->counters.slow_crossing);
        return store_crossing(self, va, size, value);
    }
    struct mmu_page page;
    if (!mmu_resolve(self, va, CPU_ACCESS_WRITE, &page)) {
        return false;
    }
    if (page.host && !page.watched) {
        guest_write(page.host, size_log2, value);
        return true;
    }
    if (page.host) {
        engine_count(self->counters.slow_watched);
    } else {
        engine_count(self->counters.slow_device);
    }
    uint8_t *host = page.host ? watch_begin_write(self, va, size, &page) : NULL;
    if (host) {
        guest_write(host, size_log2, value);
        watch_release(self->engine);
        return true;
    }
    return !cpu->exception && device_store(self, va, page.physical, size_log2, value[0]);
}
