/* A set of clusters: those that hold tables, which no request may write to. */
#include "libshared/qcow2/internal.h"

#include <errno.h>
#include <stdlib.h>

#define GONE UINT64_MAX /* a slot that was used: a search goes on behind it */

void qcow2_places_close(struct qcow2_places *places)
{
    free(places->slots);
}

static size_t place_slot(const struct qcow2_places *places, uint64_t cluster)
{
    uint64_t hash = cluster * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(hash >> 24) & (places->capacity - 1);
}

bool qcow2_places_have(const struct qcow2_places *places, uint64_t cluster)
{
    if (!places->capacity) {
        return false;
    }
    for (size_t at = place_slot(places, cluster); places->slots[at];
         at = (at + 1) & (places->capacity - 1)) {
        if (places->slots[at] == cluster + 1) {
            return true;
        }
    }
    return false;
}

static void place_put(struct qcow2_places *places, uint64_t cluster)
{
    size_t at = place_slot(places, cluster);

    while (places->slots[at]) {
        at = (at + 1) & (places->capacity - 1);
    }
    places->slots[at] = cluster + 1;
    places->count++;
}

static int places_grow(struct qcow2_places *places)
{
    struct qcow2_places larger = {.capacity = places->capacity ? places->capacity * 2 : 64};

    larger.slots = calloc(larger.capacity, sizeof(larger.slots[0]));
    if (!larger.slots) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < places->capacity; i++) {
        if (places->slots[i] && places->slots[i] != GONE) {
            place_put(&larger, places->slots[i] - 1);
        }
    }
    free(places->slots);
    *places = larger;
    return 0;
}

int qcow2_places_add(struct qcow2_places *places, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (qcow2_places_have(places, first + i)) {
            return -EEXIST;
        }
        /* At most half full, those that are gone included. */
        if (2 * (places->count + 1) > places->capacity && places_grow(places) < 0) {
            return -ENOMEM;
        }
        place_put(places, first + i);
    }
    return 0;
}

void qcow2_places_remove(struct qcow2_places *places, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count && places->capacity; i++) {
        for (size_t at = place_slot(places, first + i); places->slots[at];
             at = (at + 1) & (places->capacity - 1)) {
            if (places->slots[at] == first + i + 1) {
                places->slots[at] = GONE;
                break;
            }
        }
    }
}
