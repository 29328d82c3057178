/* What the code cache has: recognising the entries of its regions as they are decoded. */
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
}

void profile_decoded(struct engine_cpu *self, const struct block *block, uint64_t va,
                     const uint8_t *bytes)
{
    struct profile *profile = self->engine->profile;
    if (!profile || !profile->known || block->straddles) {
        return;
    }
    uint32_t mode = atomic_load_explicit(&block->mode, memory_order_relaxed);
    uint64_t fingerprint =
        region_fingerprint(self->engine->isa->name, mode, block->start, bytes, block->length);
    if (!holds(profile->known, profile->known_mask, fingerprint)) {
        return;
    }
    pthread_mutex_lock(&profile->lock);
    profile->fetches[profile->fetch_at] = (struct fetch){
        .state = FETCH_NEW,
        .fingerprint = fingerprint,
        .physical = block->physical,
        .va = va,
        .key = self->execute->key,
        .mode = mode,
        .cpu = self->cpu->index,
    };
    profile->fetch_at = (profile->fetch_at + 1) % ENGINE_FETCHES;
    pthread_mutex_unlock(&profile->lock);
    profile_signal(profile);
}

bool engine_next_fetch(struct engine *engine, uint64_t *fingerprint)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return false;
    }
    bool found = false;
    pthread_mutex_lock(&profile->lock);
    for (unsigned i = 0; i < ENGINE_FETCHES && !found; i++) {
        struct fetch *fetch = &profile->fetches[(profile->fetch_at + i) % ENGINE_FETCHES];
        if (fetch->state == FETCH_NEW) {
            fetch->state = FETCH_ASKED;
            *fingerprint = fetch->fingerprint;
            found = true;
        }
    }
    pthread_mutex_unlock(&profile->lock);
    return found;
}
