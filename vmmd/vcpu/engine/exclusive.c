/*
 * Reservations come in two kinds.
 *
 * VALUE, for loops that the decoder has recognised as constrained: nothing but register work lies
 * between LR and SC, so whether the location was changed and changed back cannot be told from the
 * LR having come later. The SC is a compare-and-swap.
 *
 * WATCHED, for everything else, must fail after any intervening store of another CPU, also one
 * that restores the value (ABA). The LR puts its page under watch: all CPUs lose write permission,
 * so that each store to it takes the slow path, which breaks overlapping reservations (granules of
 * 64 bytes) under the watch lock. The SC looks under the same lock. The page leaves the watch when
 * a number of stores found no reservation in it. A CPU's own stores do not break its reservation:
 * the architectures allow that, and compilers without optimisation rely on it. Device writes are
 * not seen, but change the value, which is compared as well.
 */
#include "vmmd/vcpu/engine/exclusive.h"
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/soft_mmu.h"
#include "vmmd/vcpu/engine/watch.h"

#define GRANULE_MASK (~(uint64_t)63)

/* --- host atomics --------------------------------------------------------------------------- */

#define APPLY_LOOP(type, expression)                                                               \
    do {                                                                                           \
        type old = __atomic_load_n(at, __ATOMIC_RELAXED);                                          \
        while (!__atomic_compare_exchange_n(at, &old, (type)(expression), false, __ATOMIC_SEQ_CST, \
                                            __ATOMIC_SEQ_CST)) {                                   \
        }                                                                                          \
        return old;                                                                                \
    } while (0)

#define APPLY(name, type, stype)                                                                   \
    static uint64_t apply_##name(type *at, unsigned operation, type b)                             \
    {                                                                                              \
        switch (operation) {                                                                       \
        case IR_AMO_SWAP:                                                                          \
            return __atomic_exchange_n(at, b, __ATOMIC_SEQ_CST);                                   \
        case IR_AMO_ADD:                                                                           \
            return __atomic_fetch_add(at, b, __ATOMIC_SEQ_CST);                                    \
        case IR_AMO_AND:                                                                           \
            return __atomic_fetch_and(at, b, __ATOMIC_SEQ_CST);                                    \
        case IR_AMO_OR:                                                                            \
            return __atomic_fetch_or(at, b, __ATOMIC_SEQ_CST);                                     \
        case IR_AMO_XOR:                                                                           \
            return __atomic_fetch_xor(at, b, __ATOMIC_SEQ_CST);                                    \
        case IR_AMO_MINS:                                                                          \
            APPLY_LOOP(type, (stype)old < (stype)b ? old : b);                                     \
        case IR_AMO_MAXS:                                                                          \
            APPLY_LOOP(type, (stype)old > (stype)b ? old : b);                                     \
        case IR_AMO_MINU:                                                                          \
            APPLY_LOOP(type, old < b ? old : b);                                                   \
        default:                                                                                   \
            APPLY_LOOP(type, old > b ? old : b);                                                   \
        }                                                                                          \
    }

APPLY(u8, uint8_t, int8_t)
APPLY(u16, uint16_t, int16_t)
APPLY(u32, uint32_t, int32_t)
APPLY(u64, uint64_t, int64_t)

uint64_t exclusive_apply(uint8_t *host, unsigned operation, unsigned size_log2, uint64_t operand)
{
    switch (size_log2) {
    case 0:
        return apply_u8(host, operation, (uint8_t)operand);
    case 1:
        return apply_u16((uint16_t *)(void *)host, operation, (uint16_t)operand);
    case 2:
        return apply_u32((uint32_t *)(void *)host, operation, (uint32_t)operand);
    default:
        return apply_u64((uint64_t *)(void *)host, operation, operand);
    }
}

#define EXCHANGE(type)                                                                             \
    do {                                                                                           \
        type old = (type)expected;                                                                 \
        __atomic_compare_exchange_n((type *)(void *)host, &old, (type)desired, false,              \
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                           \
        return old;                                                                                \
    } while (0)

uint64_t exclusive_exchange(uint8_t *host, unsigned size_log2, uint64_t expected, uint64_t desired)
{
    switch (size_log2) {
    case 0:
        EXCHANGE(uint8_t);
    case 1:
        EXCHANGE(uint16_t);
    case 2:
        EXCHANGE(uint32_t);
    default:
        EXCHANGE(uint64_t);
    }
}

/* --- finding the target --------------------------------------------------------------------- */

/* Atomics must be aligned: where a guest allows less, its decoder uses a helper. */
static bool aligned(struct engine_cpu *self, uint64_t va, unsigned aux, enum cpu_access access)
{
    if (va & ((1u << (aux & IR_MEM_SIZE)) - 1)) {
        engine_count(self->counters.slow_misaligned);
        self->engine->isa->raise_misaligned(self->cpu, va, access);
        return false;
    }
    return true;
}

/* Where to write; *locked says that the watch lock is held. NULL: an exception is pending. */
static uint8_t *begin_write(struct engine_cpu *self, uint64_t va, unsigned aux, bool *locked)
{
    struct mmu_page page;
    *locked = false;
    self->self_modified = false;
    if (!aligned(self, va, aux, CPU_ACCESS_WRITE) ||
        !mmu_resolve(self, va, CPU_ACCESS_WRITE, &page)) {
        return NULL;
    }
    if (page.host && !page.watched) {
        return page.host;
    }
    uint8_t *host = NULL;
    if (page.host) {
        engine_count(self->counters.slow_watched);
        host = watch_begin_write(self, va, 1u << (aux & IR_MEM_SIZE), &page);
        *locked = host != NULL;
    }
    if (!host && !self->cpu->exception) {
        self->engine->isa->raise_access_fault(self->cpu, va, CPU_ACCESS_WRITE);
    }
    return host;
}

static void end_write(struct engine_cpu *self, bool locked)
{
    if (locked) {
        watch_release(self->engine);
    }
}

bool exclusive_amo(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t operand, uint64_t *old)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    bool locked;
    uint8_t *host = begin_write(self, va, aux, &locked);
    if (!host) {
        return false;
    }
    *old = exclusive_apply(host, aux >> IR_MEM_AMO_SHIFT, aux & IR_MEM_SIZE, operand);
    exclusive_settle();
    end_write(self, locked);
    return true;
}

bool exclusive_compare_swap(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t expected,
                            uint64_t desired, uint64_t *old)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    bool locked;
    uint8_t *host = begin_write(self, va, aux, &locked);
    if (!host) {
        return false;
    }
    *old = exclusive_exchange(host, aux & IR_MEM_SIZE, expected, desired);
    exclusive_settle();
    end_write(self, locked);
    return true;
}

/* --- reservations --------------------------------------------------------------------------- */

/* Watch the page, then load: from here on no store goes unseen. */
static bool reserve_watched(struct engine_cpu *self, uint64_t va, unsigned aux,
                            struct mmu_page *page, uint64_t value[2])
{
    struct engine *engine = self->engine;
    watch_acquire(engine, self);
    /* Waiting may have served a flush, and taking permission from others may do so again, so
     * resolve until the page under watch is the one that is mapped. */
    uint64_t watching = UINT64_MAX;
    for (;;) {
        if (!mmu_resolve(self, va, CPU_ACCESS_READ, page) || !page->host) {
            watch_release(engine);
            return false;
        }
        if (page->index == watching) {
            break;
        }
        watching = page->index;
        watch_page(engine, self, watching, WATCH_RESERVED);
        engine->reserved_stores[watching] = 0;
    }
    guest_read(page->host, aux & IR_MEM_SIZE, value);
    atomic_store(&self->watched, (page->physical & GRANULE_MASK) | 1);
    watch_release(engine);
    return true;
}

bool exclusive_load_reserved(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t *value)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    struct mmu_page page;
    uint64_t loaded[2] = {0};
    self->reservation.kind = RESERVATION_NONE;
    if (!aligned(self, va, aux, CPU_ACCESS_READ) ||
        !mmu_resolve(self, va, CPU_ACCESS_READ, &page)) {
        return false;
    }
    bool watched = !(aux & IR_MEM_CONSTRAINED);
    if (page.host && watched && !reserve_watched(self, va, aux, &page, loaded) && cpu->exception) {
        return false;
    }
    if (!page.host) {
        self->engine->isa->raise_access_fault(cpu, va, CPU_ACCESS_READ);
        return false;
    }
    if (!watched) {
        guest_read(page.host, aux & IR_MEM_SIZE, loaded);
    }
    self->reservation = (struct reservation){
        .kind = watched ? RESERVATION_WATCHED : RESERVATION_VALUE,
        .size = aux & IR_MEM_SIZE,
        .host = page.host,
        .value = loaded[0],
    };
    if (aux & IR_MEM_ACQUIRE) {
        atomic_thread_fence(memory_order_seq_cst);
    }
    *value = loaded[0];
    return true;
}

/* The store of a watched reservation, with the lock held and other CPUs' stores shut out. */
static bool store_watched(struct engine_cpu *self, uint8_t *host, uint64_t value)
{
    const struct reservation *reservation = &self->reservation;
    if (!(atomic_load(&self->watched) & 1) || host != reservation->host) {
        return false;
    }
    return exclusive_exchange(host, reservation->size, reservation->value, value) ==
           reservation->value;
}

/* A write under the lock announces itself and breaks reservations of others before it is known to
 * succeed. A store-conditional that fails must not, or two CPUs could fail each other for ever; so
 * it looks at its own reservation first. */
static bool watched_may_succeed(struct engine_cpu *self)
{
    return (atomic_load(&self->watched) & 1) != 0;
}

static bool conditional_watched(struct engine_cpu *self, uint64_t va, uint64_t value,
                                uint64_t *failed)
{
    struct mmu_page page;
    struct engine *engine = self->engine;
    unsigned size_log2 = self->reservation.size;
    if (!mmu_resolve(self, va, CPU_ACCESS_WRITE, &page)) {
        return false;
    }
    watch_acquire(engine, self);
    if (!mmu_resolve(self, va, CPU_ACCESS_WRITE, &page)) {
        watch_release(engine);
        return false;
    }
    if (page.host == self->reservation.host && watched_may_succeed(self)) {
        watch_before_write(engine, self, page.index, page.physical, 1u << size_log2);
        *failed = !store_watched(self, page.host, value);
    }
    atomic_store(&self->watched, 0);
    watch_release(engine);
    return true;
}

bool exclusive_store_conditional(struct cpu *cpu, uint64_t va, unsigned aux, uint64_t value,
                                 uint64_t *failed)
{
    struct engine_cpu *self = engine_cpu_of(cpu);
    self->self_modified = false;
    if (!aligned(self, va, aux, CPU_ACCESS_WRITE)) {
        return false;
    }
    struct reservation reservation = self->reservation;
    *failed = 1;
    bool resolved = true;
    if (reservation.size != (aux & IR_MEM_SIZE)) {
        self->reservation.kind = RESERVATION_NONE;
        return true;
    }
    if (reservation.kind == RESERVATION_WATCHED) {
        resolved = conditional_watched(self, va, value, failed);
    } else if (reservation.kind == RESERVATION_VALUE) {
        bool locked;
        uint8_t *host = begin_write(self, va, aux, &locked);
        resolved = host != NULL;
        if (host && host == reservation.host) {
            *failed = exclusive_exchange(host, reservation.size, reservation.value, value) !=
                      reservation.value;
        }
        end_write(self, locked);
    }
    self->reservation.kind = RESERVATION_NONE;
    exclusive_settle();
    return resolved;
}

/* Break what the range overlaps, of all CPUs but `except`; *left: some reservation of the page
 * remains. */
static void break_reservations(struct engine *engine, const struct engine_cpu *except,
                               uint64_t physical, uint64_t size, bool *left)
{
    uint64_t first = physical & GRANULE_MASK;
    uint64_t last = (physical + size - 1) & GRANULE_MASK;
    *left = false;
    for (unsigned i = 0; i < engine->cpu_count; i++) {
        struct engine_cpu *other = engine->cpus[i];
        uint64_t watched = other ? atomic_load(&other->watched) : 0;
        uint64_t granule = watched & GRANULE_MASK;
        if (!(watched & 1) || (granule & PAGE_MASK) != (physical & PAGE_MASK)) {
            continue;
        }
        if (other != except && granule >= first && granule <= last) {
            atomic_store(&other->watched, 0);
        } else {
            *left = true;
        }
    }
}

void exclusive_store_seen(struct engine *engine, struct engine_cpu *self, uint64_t index,
                          uint64_t physical, unsigned size)
{
    bool left;
    break_reservations(engine, self, physical, size, &left);
    uint8_t stores = ++engine->reserved_stores[index];
    if (left && stores == UINT8_MAX) {
        /* Most likely forgotten: a failing store-conditional costs less than slow stores for ever.
         */
        break_reservations(engine, NULL, physical & PAGE_MASK, PAGE_BYTES, &left);
    }
    if (!left && stores >= ENGINE_RESERVED_STORES) {
        watch_clear(engine, index, WATCH_RESERVED);
    }
}
