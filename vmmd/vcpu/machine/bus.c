/*
 * The bus: who answers at a guest-physical address outside RAM.
 *
 * How reads stay cheap while BARs move. The regions stand in an array of pointers sorted by base.
 * A reader takes no lock: it notes the sequence number, finds the region by binary search, pins it
 * (`active`), and looks at the sequence number again. Same number: the region it found is right,
 * and its record stays as it is until the reader lets go, because no record is filled again while
 * it is pinned. Another number: let go and search again. Both sides use sequentially consistent
 * operations for number and pin, so of a reader that pins and a writer that changes at the same
 * moment at least one sees the other.
 *
 * Region records live as long as the bus and are reused, never freed: a reader that was overtaken
 * may still count up and down on one without harm. Writers wait for nobody: an access that began
 * before its region went ends in that region, however long it waits there for a device. Who wants
 * to free what the access functions use waits for them with bus_drain, and holds no lock meanwhile.
 */
#include "vmmd/vcpu/machine/bus.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#define BUS_REGIONS_MAX     256
#define BUS_BACKGROUNDS_MAX 8

struct bus_region {
    _Atomic uint64_t base;   /* writers, under bus->lock */
    _Atomic uint32_t active; /* readers inside the access functions, or about to look */
    /* The rest changes only while the region is in no table and nobody has it pinned. */
    uint64_t size;
    const char *name;
    const struct bus_ops *ops;
    void *device;
    bool used;
};

struct bus {
    _Atomic uint64_t sequence; /* odd while the table changes */
    _Atomic uint32_t count;
    struct bus_region *_Atomic sorted[BUS_REGIONS_MAX];
    struct bus_region backgrounds[BUS_BACKGROUNDS_MAX]; /* fixed before CPUs run */
    unsigned background_count;
    pthread_mutex_t lock; /* writers */
    struct bus_region regions[BUS_REGIONS_MAX];
};

struct bus *bus_create(void)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (bus && pthread_mutex_init(&bus->lock, NULL) != 0) {
        free(bus);
        bus = NULL;
    }
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (bus) {
        pthread_mutex_destroy(&bus->lock);
        free(bus);
    }
}

/* --- writers -------------------------------------------------------------------------------- */

static uint64_t region_base(const struct bus_region *region)
{
    return atomic_load_explicit(&region->base, memory_order_acquire);
}

static bool ranges_overlap(uint64_t base, uint64_t size, uint64_t other_base, uint64_t other_size)
{
    return base - other_base < other_size || other_base - base < size;
}

/* 0 when [base, base + size) is a possible range and meets no region but `except`. */
static int range_check(struct bus *bus, uint64_t base, uint64_t size,
                       const struct bus_region *except)
{
    if (size == 0 || base > UINT64_MAX - size) {
        return -EINVAL;
    }
    uint32_t count = atomic_load(&bus->count);
    for (uint32_t i = 0; i < count; i++) {
        const struct bus_region *region = atomic_load(&bus->sorted[i]);
        if (region != except && ranges_overlap(base, size, region_base(region), region->size)) {
            return -EEXIST;
        }
    }
    return 0;
}

static void table_change_begin(struct bus *bus)
{
    atomic_fetch_add(&bus->sequence, 1);
}

static void table_change_end(struct bus *bus)
{
    atomic_fetch_add(&bus->sequence, 1);
}

/* Within a change: put the region at its place. There is room. */
static void table_insert(struct bus *bus, struct bus_region *region, uint64_t base)
{
    uint32_t count = atomic_load(&bus->count);
    uint32_t place = count;
    while (place > 0) {
        struct bus_region *previous = atomic_load(&bus->sorted[place - 1]);
        if (region_base(previous) < base) {
            break;
        }
        atomic_store(&bus->sorted[place], previous);
        place--;
    }
    atomic_store_explicit(&region->base, base, memory_order_release);
    atomic_store(&bus->sorted[place], region);
    atomic_store(&bus->count, count + 1);
}

static void table_remove(struct bus *bus, const struct bus_region *region)
{
    uint32_t count = atomic_load(&bus->count);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct bus_region *other = atomic_load(&bus->sorted[i]);
        if (other != region) {
            atomic_store(&bus->sorted[kept++], other);
        }
    }
    atomic_store(&bus->count, kept);
}

/* One that is in no table and in which no access is any more. */
static struct bus_region *region_allocate(struct bus *bus)
{
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++) {
        if (!bus->regions[i].used && atomic_load(&bus->regions[i].active) == 0) {
            return &bus->regions[i];
        }
    }
    return NULL;
}

static void region_fill(struct bus_region *region, uint64_t size, const char *name,
                        const struct bus_ops *ops, void *device)
{
    region->size = size;
    region->name = name;
    region->ops = ops;
    region->device = device;
    region->used = true;
}

int bus_add(struct bus *bus, uint64_t base, uint64_t size, const char *name,
            const struct bus_ops *ops, void *device)
{
    pthread_mutex_lock(&bus->lock);
    int result = range_check(bus, base, size, NULL);
    struct bus_region *region = region_allocate(bus);
    if (result == 0 && !region) {
        result = -ENOMEM;
    }
    if (result == 0) {
        region_fill(region, size, name, ops, device);
        table_change_begin(bus);
        table_insert(bus, region, base);
        table_change_end(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    return result;
}

int bus_add_background(struct bus *bus, uint64_t base, uint64_t size, const char *name,
                       const struct bus_ops *ops, void *device)
{
    if (size == 0 || base > UINT64_MAX - size) {
        return -EINVAL;
    }
    if (bus->background_count == BUS_BACKGROUNDS_MAX) {
        return -ENOMEM;
    }
    struct bus_region *region = &bus->backgrounds[bus->background_count++];
    atomic_store(&region->base, base);
    region_fill(region, size, name, ops, device);
    return 0;
}

static struct bus_region *region_of_device(struct bus *bus, uint64_t base, const void *device)
{
    uint32_t count = atomic_load(&bus->count);
    for (uint32_t i = 0; i < count; i++) {
        struct bus_region *region = atomic_load(&bus->sorted[i]);
        if (region_base(region) == base && region->device == device) {
            return region;
        }
    }
    return NULL;
}

int bus_remove(struct bus *bus, uint64_t base, void *device)
{
    pthread_mutex_lock(&bus->lock);
    struct bus_region *region = region_of_device(bus, base, device);
    if (region) {
        table_change_begin(bus);
        table_remove(bus, region);
        table_change_end(bus);
        region->used = false;
    }
    pthread_mutex_unlock(&bus->lock);
    return region ? 0 : -ENOENT;
}

void bus_drain(struct bus *bus, const void *device)
{
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++) {
        struct bus_region *region = &bus->regions[i];
        pthread_mutex_lock(&bus->lock);
        bool removed = !region->used && region->device == device;
        pthread_mutex_unlock(&bus->lock);
        /* Whatever fills the record anew finds it without pins. */
        while (removed && atomic_load(&region->active) != 0) {
            sched_yield();
        }
    }
}

/* --- readers -------------------------------------------------------------------------------- */

/* The region with the highest base not above `address`, or NULL. The table may change meanwhile:
 * the answer counts only if the sequence number did not. */
static struct bus_region *table_search(struct bus *bus, uint64_t address)
{
    uint32_t low = 0;
    uint32_t high = atomic_load_explicit(&bus->count, memory_order_acquire);
    struct bus_region *found = NULL;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct bus_region *region =
            atomic_load_explicit(&bus->sorted[middle], memory_order_acquire);
        if (region_base(region) <= address) {
            found = region;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return found;
}

static void region_release(struct bus_region *region)
{
    atomic_fetch_sub(&region->active, 1);
}

/* True when the whole access lies in the region that starts at `base`. */
static bool region_holds(const struct bus_region *region, uint64_t address, unsigned size)
{
    uint64_t offset = address - region_base(region);
    return offset < region->size && size <= region->size - offset;
}

static struct bus_region *background_pin(struct bus *bus, uint64_t address, unsigned size)
{
    for (unsigned i = 0; i < bus->background_count; i++) {
        struct bus_region *region = &bus->backgrounds[i];
        if (region_holds(region, address, size)) {
            atomic_fetch_add(&region->active, 1);
            return region;
        }
    }
    return NULL;
}

/* Find and pin the region of an access; the caller releases it. NULL: nobody is there. */
static struct bus_region *region_pin(struct bus *bus, uint64_t address, unsigned size)
{
    for (;;) {
        uint64_t sequence = atomic_load(&bus->sequence);
        if (sequence & 1) {
            sched_yield();
            continue;
        }
        struct bus_region *region = table_search(bus, address);
        if (region) {
            atomic_fetch_add(&region->active, 1);
        }
        if (atomic_load(&bus->sequence) == sequence) {
            if (region && region_holds(region, address, size)) {
                return region;
            }
            if (region) {
                region_release(region);
            }
            return background_pin(bus, address, size);
        }
        if (region) {
            region_release(region);
        }
    }
}

bool bus_read(struct bus *bus, uint64_t address, unsigned size, uint64_t *value)
{
    struct bus_region *region = region_pin(bus, address, size);
    if (!region) {
        return false;
    }
    bool done = region->ops->read &&
                region->ops->read(region->device, address - region_base(region), size, value);
    region_release(region);
    return done;
}

bool bus_write(struct bus *bus, uint64_t address, unsigned size, uint64_t value)
{
    struct bus_region *region = region_pin(bus, address, size);
    if (!region) {
        return false;
    }
    bool done = region->ops->write &&
                region->ops->write(region->device, address - region_base(region), size, value);
    region_release(region);
    return done;
}
