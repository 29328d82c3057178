/* Asking for regions: which one is next, and what became of those that were asked for. */
#include "vmmd/vcpu/engine/block_cache.h"
#include "vmmd/vcpu/engine/region/installed.h"
#include "vmmd/vcpu/engine/region/profile.h"
#include "vmmd/vcpu/engine/watch.h"

struct ticket *profile_ticket(struct profile *profile, uint64_t id)
{
    for (unsigned i = 0; id && i < ENGINE_TICKETS; i++) {
        if (profile->tickets[i].id == id) {
            return &profile->tickets[i];
        }
    }
    return NULL;
}

static struct ticket *free_ticket(struct profile *profile)
{
    for (unsigned i = 0; i < ENGINE_TICKETS; i++) {
        if (!profile->tickets[i].id) {
            return &profile->tickets[i];
        }
    }
    return NULL;
}

/* --- choosing ------------------------------------------------------------------------------- */

/* Loops first: code that is only called ends up in the regions of those who call it. */
static uint64_t rank(const struct profile_node *node)
{
    return (uint64_t)node->heat << (profile_is_loop(node) ? 2 : 0);
}

static struct profile_node *take_hottest(struct profile *profile, struct profile_path *path)
{
    struct profile_node *best = NULL;
    unsigned best_at = 0, kept = 0;
    for (unsigned i = 0; i < profile->candidate_count; i++) {
        struct profile_node *node = profile_find(profile, profile->candidates[i].key);
        if (!node || !node->candidate) {
            continue; /* its place was taken */
        }
        if (!best || rank(node) > rank(best)) {
            best = node;
            best_at = kept;
        }
        profile->candidates[kept++] = profile->candidates[i];
    }
    if (best) {
        *path = profile->candidates[best_at].path;
        profile->candidates[best_at] = profile->candidates[--kept];
        best->candidate = false;
    }
    profile->candidate_count = kept;
    return best;
}

static void be_quiet(const struct profile *profile, struct profile_node *node)
{
    unsigned doublings = node->refusals < 8 ? node->refusals++ : 8;
    node->quiet = profile->ticks + (ENGINE_REGION_QUIET_TICKS << doublings);
    node->heat = node->samples = 0;
    node->hot_ns = 0;
}

/* Code that is reached mostly from one region may belong into it: the node to begin with. */
static struct profile_node *left_region(const struct engine *engine,
                                        const struct profile_node *node)
{
    if (node->exits * 2 < node->samples) {
        return NULL;
    }
    struct profile_key key = {node->exit_head, node->key.mode};
    struct profile_node *head = profile_find(engine->profile, key);
    const struct block *block = block_cache_find(engine, key.physical, key.mode, UINT64_MAX);
    bool there = head && block && atomic_load(&block->region);
    return there && head->reforms < ENGINE_REGION_REFORMS ? head : NULL;
}

static bool contains(const struct ticket *ticket, const struct profile_node *node)
{
    for (unsigned i = 0; i < ticket->block_count; i++) {
        if (ticket->blocks[i] == node->key.physical) {
            return true;
        }
    }
    return false;
}

/* The block that mostly leads to this one, if it is hot as well and has no region yet, nor is to
 * have one. */
static struct profile_node *led_from(const struct engine *engine, const struct profile_node *node,
                                     uint32_t least)
{
    struct profile *profile = engine->profile;
    struct profile_key key = {node->from, node->key.mode};
    struct profile_node *from =
        node->from_heat * 2 >= node->heat ? profile_find(profile, key) : NULL;
    if (!from || from->heat < least || (int32_t)(profile->ticks - from->quiet) < 0 ||
        profile_is_awaited(profile, from)) {
        return NULL;
    }
    const struct block *block = block_cache_find(engine, key.physical, key.mode, UINT64_MAX);
    return block && !atomic_load(&block->region) ? from : NULL;
}

/* Where a circle begins that goes back along `way` from [first]: at its lowest address, as loops
 * and functions do; all machines that run this code find the same. */
static struct profile_node *circle_begin(struct profile_node *const *way, unsigned first,
                                         unsigned count)
{
    struct profile_node *lowest = way[first];
    for (unsigned i = first + 1; i < count; i++) {
        lowest = way[i]->va < lowest->va ? way[i] : lowest;
    }
    return lowest;
}

/* The blocks of a path become hot together. A region of its own for each of them would be that of
 * the one before but for a block. So it begins where the path does, at least half as hot; what that
 * region has no room for is hot still, and the next one begins there. */
static struct profile_node *find_beginning(const struct engine *engine, struct profile_node *node)
{
    struct profile_node *way[ENGINE_REGION_WAY], *at = node;
    for (unsigned count = 0; count < ENGINE_REGION_WAY; count++) {
        for (unsigned i = 0; i < count; i++) {
            if (at == way[i]) {
                return circle_begin(way, i, count);
            }
        }
        way[count] = at;
        struct profile_node *from =
            profile_is_loop(at) ? NULL : led_from(engine, at, (node->heat + 1) / 2);
        if (!from) {
            return at;
        }
        at = from;
    }
    return at;
}

/* Form the region for a hot block: with it as the head, or the one that it belongs to. */
static struct profile_node *form(const struct engine *engine, struct profile_node *node,
                                 struct region *region, struct ticket *ticket)
{
    struct profile_node *head = left_region(engine, node);
    if (head && region_form(engine, head, region, ticket) && contains(ticket, node)) {
        head->reforms++;
        head->hot_ns = node->hot_ns;
        return head;
    }
    head = find_beginning(engine, node);
    if (head != node && region_form(engine, head, region, ticket)) {
        head->hot_ns = node->hot_ns;
        return head;
    }
    return region_form(engine, node, region, ticket) ? node : NULL;
}

/* What is awaited is not hot on its own account. */
static void cool(const struct profile *profile, const struct ticket *ticket)
{
    for (unsigned i = 0; i < ticket->block_count; i++) {
        struct profile_key key = {ticket->blocks[i], ticket->key.mode};
        struct profile_node *node = profile_find(profile, key);
        if (node) {
            node->heat = node->samples = node->exits = node->from_heat = 0;
            node->candidate = false;
        }
    }
}

static bool next_region(struct engine *engine, struct region *region, struct ticket *ticket)
{
    struct profile *profile = engine->profile;
    struct profile_node *node;
    struct profile_path path;
    while ((node = take_hottest(profile, &path)) != NULL) {
        const struct block *block =
            block_cache_find(engine, node->key.physical, node->key.mode, UINT64_MAX);
        if (block && atomic_load(&block->region)) {
            continue; /* from the cache, meanwhile */
        }
        uint32_t heat = node->heat;
        struct profile_node *head = form(engine, node, region, ticket);
        if (!head) {
            be_quiet(profile, node);
            continue;
        }
        ticket->id = ++profile->last_ticket;
        ticket->key = head->key;
        ticket->path = path;
        ticket->path.va = head->va;
        block = block_cache_find(engine, head->key.physical, head->key.mode, UINT64_MAX);
        ticket->replaces = block && atomic_load(&block->region);
        ticket->hot_ns = head->hot_ns;
        ticket->heat = heat;
        node->hot_ns = head->hot_ns = 0;
        cool(profile, ticket);
        return true;
    }
    return false;
}

bool engine_next_region(struct engine *engine, struct region *region, uint64_t *ticket,
                        uint32_t *heat)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return false;
    }
    watch_acquire(engine, NULL);
    pthread_mutex_lock(&profile->lock);
    struct ticket *place = free_ticket(profile);
    bool found = place && profile->candidate_count && next_region(engine, region, place);
    if (found) {
        *ticket = place->id;
        *heat = place->heat;
    }
    pthread_mutex_unlock(&profile->lock);
    watch_release(engine);
    return found;
}

/* --- answers -------------------------------------------------------------------------------- */

void profile_answered(struct profile *profile, struct ticket *ticket, bool installed)
{
    cool(profile, ticket);
    struct profile_node *node = profile_find(profile, ticket->key);
    if (node && installed) {
        node->refusals = 0;
    }
    ticket->id = 0;
}

bool engine_region_replaces(struct engine *engine, uint64_t id)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return false;
    }
    pthread_mutex_lock(&profile->lock);
    const struct ticket *ticket = profile_ticket(profile, id);
    bool replaces = ticket && ticket->replaces;
    pthread_mutex_unlock(&profile->lock);
    return replaces;
}

bool engine_region_wanted(struct engine *engine, uint64_t id)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return false;
    }
    watch_acquire(engine, NULL);
    pthread_mutex_lock(&profile->lock);
    const struct ticket *ticket = profile_ticket(profile, id);
    bool wanted = ticket && block_cache_find(engine, ticket->key.physical, ticket->key.mode,
                                             UINT64_MAX) != NULL;
    pthread_mutex_unlock(&profile->lock);
    watch_release(engine);
    return wanted;
}

void engine_region_refused(struct engine *engine, uint64_t id)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return;
    }
    watch_acquire(engine, NULL);
    pthread_mutex_lock(&profile->lock);
    struct ticket *ticket = profile_ticket(profile, id);
    if (ticket) {
        struct profile_node *node = profile_find(profile, ticket->key);
        profile_answered(profile, ticket, false);
        if (node) {
            be_quiet(profile, node);
        }
        engine_count(engine->region_counts.regions_refused);
    }
    pthread_mutex_unlock(&profile->lock);
    watch_release(engine);
}

void engine_regions_forget(struct engine *engine)
{
    struct profile *profile = engine->profile;
    if (!profile) {
        return;
    }
    pthread_mutex_lock(&profile->lock);
    for (unsigned i = 0; i < ENGINE_TICKETS; i++) {
        struct ticket *ticket = &profile->tickets[i];
        struct profile_node *node = ticket->id ? profile_find(profile, ticket->key) : NULL;
        if (node) {
            node->heat += ticket->heat;
            node->hot_ns = ticket->hot_ns;
            profile_nominate(profile, node, &ticket->path);
        }
        ticket->id = 0;
    }
    /* What was asked of the cache is lost as well. */
    for (unsigned i = 0; i < ENGINE_FETCHES; i++) {
        profile->fetches[i].state = FETCH_FREE;
    }
    profile->new_fetches = 0;
    pthread_mutex_unlock(&profile->lock);
}
