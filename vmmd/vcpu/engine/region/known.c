/* What the code cache has: recognising the entries of its regions as they are decoded. */
#include "libshared/base/clock.h"
#include "vmmd/vcpu/engine/access.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/watch.h"
#include <stdlib.h>

/* Fingerprints are hashes already. */
static bool holds(const uint64_t *known, uint64_t mask, uint64_t fingerprint)
{
    for (uint64_t i = fingerprint & mask; known[i]; i = (i + 1) & mask) {
        if (known[i] == fingerprint) {
            return true;
        }
    }
    return false;
}

/* At most half full, so that a search ends soon. */
static uint64_t *make_set(const uint64_t *fingerprints, size_t count, uint64_t *mask)
{
    uint64_t size = 64;
    while (size < count * 2) {
        size *= 2;
    }
    uint64_t *known = calloc(size, sizeof(*known));
    for (size_t f = 0; known && f < count; f++) {
        uint64_t i = fingerprints[f] & (size - 1);
        while (known[i] && known[i] != fingerprints[f]) {
            i = (i + 1) & (size - 1);
        }
        known[i] = fingerprints[f];
    }
    *mask = size - 1;
    return known;
}

/* Watch lock. Whether the cache has a region that begins like this block. */
static bool is_known(const struct engine *engine, const struct block *block, const uint8_t *bytes,
                     uint64_t *fingerprint)
{
    const struct profile *profile = engine->profile;
    if (!profile->known || block->straddles) {
        return false;
    }
    uint32_t mode = atomic_load_explicit(&block->mode, memory_order_relaxed);
    *fingerprint = region_fingerprint(engine->isa->name, mode, block->start, bytes, block->length);
    return holds(profile->known, profile->known_mask, *fingerprint);
}

static void want(struct profile *profile, const struct fetch *fetch)
{
    pthread_mutex_lock(&profile->lock);
    profile->new_fetches += profile->fetches[profile->fetch_at].state != FETCH_NEW;
    profile->fetches[profile->fetch_at] = *fetch;
    profile->fetch_at = (profile->fetch_at + 1) % ENGINE_FETCHES;
    pthread_mutex_unlock(&profile->lock);
    profile_signal(profile);
}

void profile_decoded(struct engine_cpu *self, const struct block *block, uint64_t va,
                     const uint8_t *bytes)
{
    uint64_t fingerprint;
    if (self->engine->profile && is_known(self->engine, block, bytes, &fingerprint)) {
        want(self->engine->profile,
             &(struct fetch){
                 .state = FETCH_NEW,
                 .fingerprint = fingerprint,
                 .physical = block->physical,
                 .mode = atomic_load_explicit(&block->mode, memory_order_relaxed),
                 .path = {self->cpu, va, self->execute->key},
             });
    }
}

/* --- what was decoded before the cache was known --------------------------------------------- */

GUEST_ACCESS static void copy_bytes(uint8_t *to, const uint8_t *from, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        to[i] = ((const volatile uint8_t *)from)[i];
    }
}

/* Blocks that have no region; watch lock. */
static void look_at_page(struct engine *engine, const struct code_page *page)
{
    uint8_t bytes[PAGE_BYTES];
    const struct block *block = page->blocks;
    for (; block; block = *block_next_in_page(block, page)) {
        uint64_t fingerprint;
        if (block->straddles || atomic_load(&block->region)) {
            continue;
        }
        copy_bytes(bytes, watch_page_host(engine, page->index) + block->start, block->length);
        if (is_known(engine, block, bytes, &fingerprint)) {
            want(engine->profile, &(struct fetch){.state = FETCH_NEW,
                                                  .fingerprint = fingerprint,
                                                  .physical = block->physical,
                                                  .mode = atomic_load(&block->mode)});
        }
    }
}

static void look_at_all(struct engine *engine)
{
    for (uint64_t first = 0; first < engine->page_count; first += ENGINE_KNOWN_PAGES) {
        watch_acquire(engine, NULL);
        for (uint64_t i = first; i < engine->page_count && i < first + ENGINE_KNOWN_PAGES; i++) {
            if (engine->code_pages[i]) {
                look_at_page(engine, engine->code_pages[i]);
            }
        }
        watch_release(engine);
    }
}

void engine_set_known(struct engine *engine, const uint64_t *fingerprints, size_t count)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return;
    }
    uint64_t mask = 0;
    uint64_t *known = count ? make_set(fingerprints, count, &mask) : NULL;
    watch_acquire(engine, NULL);
    uint64_t *old = profile->known;
    profile->known = known;
    profile->known_mask = mask;
    watch_release(engine);
    free(old);
    uint64_t now = clock_monotonic_ns();
    if (known && (!profile->looked_ns || now - profile->looked_ns >= ENGINE_KNOWN_PAUSE_NS)) {
        profile->looked_ns = now;
        look_at_all(engine);
    }
}

bool engine_next_fetch(struct engine *engine, uint64_t *fingerprint)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return false;
    }
    bool found = false;
    if (atomic_load_explicit(&profile->new_fetches, memory_order_relaxed) == 0) {
        return false;
    }
    pthread_mutex_lock(&profile->lock);
    for (unsigned i = 0; i < ENGINE_FETCHES && !found; i++) {
        struct fetch *fetch = &profile->fetches[(profile->fetch_at + i) % ENGINE_FETCHES];
        if (fetch->state == FETCH_NEW) {
            fetch->state = FETCH_ASKED;
            profile->new_fetches--;
            *fingerprint = fetch->fingerprint;
            found = true;
        }
    }
    pthread_mutex_unlock(&profile->lock);
    return found;
}
