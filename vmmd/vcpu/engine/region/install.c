/*
 * Putting compiled regions in place. What comes here was made by another process, perhaps long ago:
 * everything but the code itself is checked, and the guest's memory must hold the bytes that it was
 * made of, in pages that are watched before they are compared.
 */
#include "libshared/base/clock.h"
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/baseline/perf_map.h"
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/watch.h"
#include <string.h>
#include <time.h>

/* Where the region lies in this guest. */
struct location {
    struct profile_key head;
    uint64_t va, hot_ns;
    uint64_t pages[REGION_PAGES_MAX]; /* of RAM */
};

/* --- finding its place ---------------------------------------------------------------------- */

static bool page_of(const struct engine *engine, uint64_t physical, uint64_t *index)
{
    const struct memory *memory = engine->memory;
    for (unsigned i = 0; i < memory->region_count; i++) {
        const struct memory_region *region = &memory->regions[i];
        uint64_t offset = physical - region->base;
        if (offset < region->size) {
            *index = region->first_page + (offset >> MEMORY_PAGE_SHIFT);
            return true;
        }
    }
    return false;
}

/* Where the address space of the head's CPU has the page now, most likely: the bytes are compared,
 * and the code checks the mappings each time it is entered. */
static bool guess_page(const struct engine *engine, const struct profile_path *path,
                       uint64_t physical, int32_t delta, uint64_t *index)
{
    uint64_t distance = (uint64_t)(int64_t)delta << MEMORY_PAGE_SHIFT;
    uint64_t page = physical + distance;
    if (delta != 0 && path->cpu && engine->isa->guess_translation &&
        !engine->isa->guess_translation(path->cpu, path->key, path->va + distance, &page)) {
        return false;
    }
    return page_of(engine, page, index);
}

static enum region_install locate_ticket(const struct engine *engine, const struct ticket *ticket,
                                         const struct region *region, struct location *location)
{
    if (region->mode != ticket->key.mode) {
        return REGION_STALE;
    }
    location->head = ticket->key;
    location->va = ticket->path.va;
    location->hot_ns = ticket->hot_ns;
    for (unsigned i = 0; i < region->page_count; i++) {
        unsigned own = 0;
        while (own < ticket->page_count && ticket->deltas[own] != region->page_delta[i]) {
            own++;
        }
        if (own < ticket->page_count) {
            location->pages[i] = ticket->pages[own];
        } else if (!guess_page(engine, &ticket->path, ticket->key.physical, region->page_delta[i],
                               &location->pages[i])) {
            return REGION_ABSENT;
        }
    }
    return REGION_INSTALLED;
}

static enum region_install locate_fetch(const struct engine *engine, const struct fetch *fetch,
                                        const struct region *region, struct location *location)
{
    if (region->mode != fetch->mode) {
        return REGION_STALE;
    }
    location->head = (struct profile_key){fetch->physical, fetch->mode};
    location->va = fetch->path.va;
    location->hot_ns = 0;
    for (unsigned i = 0; i < region->page_count; i++) {
        if (!guess_page(engine, &fetch->path, fetch->physical, region->page_delta[i],
                        &location->pages[i])) {
            return REGION_ABSENT;
        }
    }
    return REGION_INSTALLED;
}

/* Of several blocks that look like that: the one for which the least was tried. */
static struct fetch *find_fetch(struct profile *profile, uint64_t fingerprint)
{
    struct fetch *best = NULL;
    for (unsigned i = 0; i < ENGINE_FETCHES; i++) {
        struct fetch *fetch = &profile->fetches[(profile->fetch_at + i) % ENGINE_FETCHES];
        if (fetch->state == FETCH_ASKED && fetch->fingerprint == fingerprint &&
            (!best || fetch->stale < best->stale)) {
            best = fetch;
        }
    }
    return best;
}

/* The origin of a region: one of the two, or neither. */
struct origin {
    struct ticket *ticket;
    struct fetch *fetch;
    bool other; /* the ticket is for another region with the same head */
};

static struct origin find_origin(struct profile *profile, uint64_t id, uint64_t fingerprint,
                                 bool other)
{
    return (struct origin){.ticket = profile_ticket(profile, id),
                           .fetch = id ? NULL : find_fetch(profile, fingerprint),
                           .other = other};
}

static enum region_install locate(const struct engine *engine, const struct origin *origin,
                                  uint64_t id, const struct region *region,
                                  struct location *location)
{
    if (origin->ticket) {
        return locate_ticket(engine, origin->ticket, region, location);
    }
    if (origin->fetch) {
        return locate_fetch(engine, origin->fetch, region, location);
    }
    return id ? REGION_STALE : REGION_ABSENT;
}

/* The ticket or the fetch ends, unless what it lacks may still come. */
static void settle_origin(struct engine *engine, const struct origin *origin,
                          enum region_install result)
{
    if (origin->ticket && (result == REGION_INSTALLED || !origin->other)) {
        profile_answered(engine->profile, origin->ticket, result == REGION_INSTALLED);
    } else if (origin->fetch && result == REGION_INSTALLED) {
        origin->fetch->state = FETCH_FREE;
    } else if (origin->fetch) {
        origin->fetch->stale += result == REGION_STALE;
    }
}

/* --- comparing ------------------------------------------------------------------------------ */

GUEST_ACCESS static bool same_bytes(const uint8_t *guest, const uint8_t *bytes, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        if (((const volatile uint8_t *)guest)[i] != bytes[i]) {
            return false;
        }
    }
    return true;
}

static bool holds_region(const struct engine *engine, const struct region *region,
                         const struct location *location)
{
    for (unsigned i = 0; i < region->block_count; i++) {
        const struct region_block *block = &region->blocks[i];
        const uint8_t *guest = watch_page_host(engine, location->pages[block->page]);
        if (!same_bytes(guest + block->start, region->bytes + block->bytes, block->length)) {
            return false;
        }
    }
    return true;
}

/* --- putting it there: watch lock ----------------------------------------------------------- */

static void settle(struct engine *engine, const struct location *location, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        block_cache_settle(engine, location->pages[i]);
    }
}

static enum region_install place(struct engine *engine, struct installed_region *installed,
                                 const struct region *region, const struct location *location)
{
    struct code_page *pages[REGION_PAGES_MAX];
    struct block *head =
        block_cache_find(engine, location->head.physical, location->head.mode, UINT64_MAX);
    if (!head || head->straddles || !head->compiled.execute) {
        return REGION_ABSENT;
    }
    if (head->start != region->blocks[0].start || head->length != region->blocks[0].length) {
        return REGION_STALE;
    }
    for (unsigned i = 0; i < region->page_count; i++) {
        pages[i] = block_cache_page(engine, NULL, location->pages[i]);
        if (!pages[i]) {
            settle(engine, location, i);
            return REGION_ABSENT;
        }
    }
    if (!holds_region(engine, region, location)) {
        settle(engine, location, region->page_count);
        return REGION_STALE;
    }
    installed->va = location->va;
    region_publish(engine, installed, head, pages);
    return REGION_INSTALLED;
}

static void note_installed(struct engine *engine, const struct installed_region *installed,
                           const struct region *region, const struct location *location)
{
    engine_count(engine->region_counts.regions_installed);
    engine_count_by(engine->region_counts.region_guest_bytes, region->byte_count);
    if (location->hot_ns) {
        duration_count(&engine->profile->waits, clock_monotonic_ns() - location->hot_ns);
    }
    perf_map_add_region(engine->perf_map, installed->span.execute, installed->code_bytes,
                        location->va);
}

/* --- the whole ------------------------------------------------------------------------------ */

static bool is_sound(const struct engine *engine, const struct region *region, const uint8_t *bytes,
                     size_t size, struct blob *blob, struct error *err)
{
    const char *defect = region_check(region);
    if (!defect && strcmp(region->isa, engine->isa->name) != 0) {
        defect = "the name of the instruction set";
    }
    if (!defect && region->mode == BLOCK_MODE_DEAD) {
        defect = "the mode";
    }
    if (defect) {
        error_set(err, ERROR_PROTOCOL, 0, "a region is not sound: %s", defect);
        return false;
    }
    return blob_check(blob, bytes, size, region, err);
}

/* The ticket's fate when nothing was compared. */
static enum region_install refuse(struct engine *engine, uint64_t id)
{
    if (profile_ticket(engine->profile, id)) {
        engine_region_refused(engine, id);
    } else {
        watch_acquire(engine, NULL);
        engine_count(engine->region_counts.regions_refused);
        watch_release(engine);
    }
    return REGION_REFUSED;
}

/* What others take of the processor is not the installation's. */
static uint64_t thread_ns(void)
{
    struct timespec time = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

static enum region_install install(struct engine *engine, uint64_t id, uint64_t fingerprint,
                                   bool other, struct installed_region *installed,
                                   const struct region *region, uint64_t begin)
{
    struct profile *profile = engine->profile;
    struct location location;
    watch_acquire(engine, NULL);
    pthread_mutex_lock(&profile->lock);
    struct origin origin = find_origin(profile, id, fingerprint, other);
    enum region_install result = locate(engine, &origin, id, region, &location);
    if (result == REGION_INSTALLED) {
        result = place(engine, installed, region, &location);
    }
    settle_origin(engine, &origin, result);
    pthread_mutex_unlock(&profile->lock);
    if (result == REGION_INSTALLED) {
        note_installed(engine, installed, region, &location);
    } else {
        region_free(engine, installed); /* nobody has seen it */
        engine_count_by(engine->region_counts.regions_stale, result == REGION_STALE);
    }
    engine_count_by(engine->region_counts.region_install_ns, thread_ns() - begin);
    watch_release(engine);
    return result;
}

static enum region_install check_and_install(struct engine *engine, uint64_t id,
                                             uint64_t fingerprint, bool other,
                                             const struct region *region, const uint8_t *bytes,
                                             size_t size, struct error *err)
{
    const uint64_t begin = thread_ns();
    struct blob blob;
    if (!engine->profile) {
        error_set(err, ERROR_UNSUPPORTED, 0, "this engine has no optimised tier");
        return REGION_REFUSED;
    }
    struct installed_region *installed = NULL;
    if (is_sound(engine, region, bytes, size, &blob, err)) {
        installed = region_allocate(engine, region, &blob, err);
    }
    return installed ? install(engine, id, fingerprint, other, installed, region, begin)
                     : refuse(engine, other ? 0 : id);
}

enum region_install engine_install_region(struct engine *engine, uint64_t id, uint64_t fingerprint,
                                          const struct region *region, const uint8_t *bytes,
                                          size_t size, struct error *err)
{
    return check_and_install(engine, id, fingerprint, false, region, bytes, size, err);
}

enum region_install engine_install_other_region(struct engine *engine, uint64_t id,
                                                const struct region *region, const uint8_t *bytes,
                                                size_t size, struct error *err)
{
    return check_and_install(engine, id, 0, true, region, bytes, size, err);
}
