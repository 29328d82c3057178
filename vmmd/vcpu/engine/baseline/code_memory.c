/*
 * A two-level segregated-fit allocator over granules of 16 bytes. Its books are outside the code:
 * where stretches begin and which are free, in two bits a granule; and a record of each free one,
 * which is in the list of its size class and found by its first and its last granule (so that
 * neighbours join in constant time). There are four granules to a cache line: tables with several
 * bytes for each of them would be as large as what the small granules save.
 */
#include "vmmd/vcpu/engine/baseline/code_memory.h"
#include "vmmd/vcpu/engine/tunables.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIMIT_MIN (UINT64_C(64) << 10)
#define LIMIT_MAX (UINT64_C(1) << 30)

/* Stretches of n granules: classes of their own up to 16, then eight classes a power of two. */
#define CLASS_STEPS_LOG2 3u
#define CLASS_STEPS      (1u << CLASS_STEPS_LOG2)
#define CLASS_POWERS     32u
#define CLASS_COUNT      (CLASS_POWERS * CLASS_STEPS)
/* Free stretches of the request's own class that are tried before a larger class is split. */
#define CLASS_TRIES 8u

/* What is given back to the host at once. */
#define CHUNK_BYTES    (256u << 10)
#define CHUNK_GRANULES (CHUNK_BYTES / CODE_MEMORY_ALIGN)

#define NO_LINK UINT32_MAX

enum { BY_FIRST, BY_LAST, WAYS };

/* Records are named by their index, or NO_LINK. */
struct free_stretch {
    uint32_t first, granules;
    uint32_t next, previous;   /* of its class; `next` of unused records, too */
    uint32_t next_found[WAYS]; /* with the same hash of the first, of the last granule */
};

#define CHAIN_BITS 13u

struct chunk {
    uint32_t used; /* granules in spans */
    bool resident; /* was in a span since it was last given back */
};

struct code_memory {
    uint8_t *write, *execute;
    uint64_t limit; /* bytes of each view */
    uint32_t granules;
    pthread_mutex_t lock; /* everything below */
    /* A bit a granule: a stretch begins here; this is the first or last granule of a free one. */
    uint64_t *begins, *free;
    struct free_stretch *stretches; /* those from record_count on were never used */
    uint32_t record_count, unused;
    uint32_t chains[WAYS][1u << CHAIN_BITS];
    uint32_t heads[CLASS_COUNT];
    uint8_t class_bits[CLASS_POWERS]; /* classes of a power that have stretches */
    uint32_t power_bits;              /* powers that have classes */
    struct chunk *chunks;
    uint32_t chunk_count, idle_chunks; /* idle: resident and without spans */
    _Atomic uint64_t used, refused;    /* stored under the lock */
};

/* --- size classes --------------------------------------------------------------------------- */

/* Steps within a power begin at multiples of a power's eighth; small sizes have power 0 and 1. */
static unsigned class_of(uint32_t granules)
{
    if (granules < 2 * CLASS_STEPS) {
        return granules; /* powers 0 and 1: exact */
    }
    unsigned log2 = 31 - (unsigned)__builtin_clz(granules);
    unsigned step = (granules >> (log2 - CLASS_STEPS_LOG2)) & (CLASS_STEPS - 1);
    return (log2 - CLASS_STEPS_LOG2 + 1) * CLASS_STEPS + step;
}

/* The first class all of whose stretches have that many granules. */
static unsigned class_above(uint32_t granules)
{
    if (granules < 2 * CLASS_STEPS) {
        return granules;
    }
    unsigned log2 = 31 - (unsigned)__builtin_clz(granules);
    uint32_t round = (UINT32_C(1) << (log2 - CLASS_STEPS_LOG2)) - 1;
    return class_of(granules + round);
}

/* The first class from `from` on that has stretches, or CLASS_COUNT. */
static unsigned class_filled(const struct code_memory *memory, unsigned from)
{
    unsigned power = from / CLASS_STEPS;
    if (power >= CLASS_POWERS) {
        return CLASS_COUNT;
    }
    uint32_t steps = memory->class_bits[power] & (UINT32_MAX << from % CLASS_STEPS);
    if (steps == 0) {
        /* Two shifts: one of 32 is undefined. */
        uint32_t powers = memory->power_bits & (UINT32_MAX << power << 1);
        if (powers == 0) {
            return CLASS_COUNT;
        }
        power = (unsigned)__builtin_ctz(powers);
        steps = memory->class_bits[power];
    }
    return power * CLASS_STEPS + (unsigned)__builtin_ctz(steps);
}

/* --- free stretches ------------------------------------------------------------------------- */

static bool bit(const uint64_t *bits, uint32_t granule)
{
    return bits[granule / 64] >> granule % 64 & 1;
}

static void set_bit(uint64_t *bits, uint32_t granule, bool value)
{
    uint64_t mask = UINT64_C(1) << granule % 64;
    bits[granule / 64] = value ? bits[granule / 64] | mask : bits[granule / 64] & ~mask;
}

/* The first beginning behind `first`, but at most `most` granules on. */
static uint32_t size_from(const struct code_memory *memory, uint32_t first, uint32_t most)
{
    uint32_t granules = 1;
    while (granules < most && first + granules < memory->granules &&
           !bit(memory->begins, first + granules)) {
        granules++;
    }
    return granules;
}

static void mark_free(struct code_memory *memory, const struct free_stretch *stretch, bool free)
{
    set_bit(memory->begins, stretch->first, free);
    set_bit(memory->free, stretch->first, free);
    set_bit(memory->free, stretch->first + stretch->granules - 1, free);
}

static uint32_t *chain_of(struct code_memory *memory, unsigned way, uint32_t granule)
{
    return &memory->chains[way][granule * UINT32_C(0x9e3779b1) >> (32 - CHAIN_BITS)];
}

static uint32_t place_of(const struct free_stretch *stretch, unsigned way)
{
    return way == BY_FIRST ? stretch->first : stretch->first + stretch->granules - 1;
}

/* The free stretch whose first, or last, granule that is: there is one. */
static uint32_t find_stretch(struct code_memory *memory, unsigned way, uint32_t granule)
{
    uint32_t index = *chain_of(memory, way, granule);
    while (place_of(&memory->stretches[index], way) != granule) {
        index = memory->stretches[index].next_found[way];
    }
    return index;
}

static void leave_chain(struct code_memory *memory, unsigned way, uint32_t index)
{
    const struct free_stretch *stretch = &memory->stretches[index];
    uint32_t *link = chain_of(memory, way, place_of(stretch, way));
    while (*link != index) {
        link = &memory->stretches[*link].next_found[way];
    }
    *link = stretch->next_found[way];
}

static uint32_t take_record(struct code_memory *memory)
{
    uint32_t index = memory->unused;
    if (index == NO_LINK) {
        return memory->record_count++;
    }
    memory->unused = memory->stretches[index].next;
    return index;
}

static void link_free(struct code_memory *memory, uint32_t first, uint32_t granules)
{
    unsigned class = class_of(granules);
    uint32_t head = memory->heads[class], index = take_record(memory);
    struct free_stretch *stretch = &memory->stretches[index];
    *stretch = (struct free_stretch){
        .first = first, .granules = granules, .next = head, .previous = NO_LINK};
    mark_free(memory, stretch, true);
    for (unsigned way = 0; way < WAYS; way++) {
        uint32_t *chain = chain_of(memory, way, place_of(stretch, way));
        stretch->next_found[way] = *chain;
        *chain = index;
    }
    if (head != NO_LINK) {
        memory->stretches[head].previous = index;
    }
    memory->heads[class] = index;
    memory->class_bits[class / CLASS_STEPS] |= (uint8_t)(1u << class % CLASS_STEPS);
    memory->power_bits |= UINT32_C(1) << class / CLASS_STEPS;
}

/* Granules. */
struct range {
    uint32_t first, end;
};

/* Afterwards the stretch is neither free nor does it begin anywhere. Returns where it was. */
static struct range unlink_free(struct code_memory *memory, uint32_t index)
{
    struct free_stretch *stretch = &memory->stretches[index];
    struct range range = {stretch->first, stretch->first + stretch->granules};
    unsigned class = class_of(stretch->granules);
    mark_free(memory, stretch, false);
    leave_chain(memory, BY_FIRST, index);
    leave_chain(memory, BY_LAST, index);
    if (stretch->next != NO_LINK) {
        memory->stretches[stretch->next].previous = stretch->previous;
    }
    if (stretch->previous != NO_LINK) {
        memory->stretches[stretch->previous].next = stretch->next;
    } else {
        memory->heads[class] = stretch->next;
    }
    if (memory->heads[class] == NO_LINK) {
        uint8_t *steps = &memory->class_bits[class / CLASS_STEPS];
        *steps &= (uint8_t) ~(1u << class % CLASS_STEPS);
        if (*steps == 0) {
            memory->power_bits &= ~(UINT32_C(1) << class / CLASS_STEPS);
        }
    }
    stretch->next = memory->unused;
    memory->unused = index;
    return range;
}

/* A free stretch of at least that many granules, or NO_LINK. */
static uint32_t find_free(const struct code_memory *memory, uint32_t granules)
{
    /* Its own class first: splitting large stretches for small spans is what fragments. */
    uint32_t index = memory->heads[class_of(granules)];
    for (unsigned tries = 0; tries < CLASS_TRIES && index != NO_LINK; tries++) {
        if (memory->stretches[index].granules >= granules) {
            return index;
        }
        index = memory->stretches[index].next;
    }
    unsigned class = class_filled(memory, class_above(granules));
    return class == CLASS_COUNT ? NO_LINK : memory->heads[class];
}

/* Put [first, + granules) back, joined with its free neighbours. */
static void join_free(struct code_memory *memory, uint32_t first, uint32_t granules)
{
    uint32_t end = first + granules;
    set_bit(memory->begins, first, false);
    if (first > 0 && bit(memory->free, first - 1)) {
        first = unlink_free(memory, find_stretch(memory, BY_LAST, first - 1)).first;
    }
    if (end < memory->granules && bit(memory->free, end)) {
        end = unlink_free(memory, find_stretch(memory, BY_FIRST, end)).end;
    }
    link_free(memory, first, end - first);
}

/* --- pages ---------------------------------------------------------------------------------- */

static void chunk_release(struct code_memory *memory, uint32_t index)
{
    uint64_t start = (uint64_t)index * CHUNK_BYTES;
    uint64_t size = memory->limit - start < CHUNK_BYTES ? memory->limit - start : CHUNK_BYTES;
    /* Frees the pages, in both views. A host that cannot keeps them: still bounded. */
    madvise(memory->write + start, size, MADV_REMOVE);
    memory->chunks[index].resident = false;
    memory->idle_chunks--;
}

static void count_used(struct code_memory *memory, int64_t granules)
{
    uint64_t total = atomic_load_explicit(&memory->used, memory_order_relaxed);
    atomic_store_explicit(&memory->used, total + (uint64_t)(granules * CODE_MEMORY_ALIGN),
                          memory_order_relaxed);
}

/* Granules of [first, + granules) that lie in first's chunk. */
static uint32_t in_chunk(uint32_t first, uint32_t granules)
{
    uint32_t here = CHUNK_GRANULES - first % CHUNK_GRANULES;
    return here < granules ? here : granules;
}

static void account_used(struct code_memory *memory, uint32_t first, uint32_t granules)
{
    count_used(memory, granules);
    while (granules > 0) {
        uint32_t here = in_chunk(first, granules);
        struct chunk *chunk = &memory->chunks[first / CHUNK_GRANULES];
        memory->idle_chunks -= chunk->used == 0 && chunk->resident;
        chunk->used += here;
        chunk->resident = true;
        first += here;
        granules -= here;
    }
}

static void account_free(struct code_memory *memory, uint32_t first, uint32_t granules)
{
    count_used(memory, -(int64_t)granules);
    while (granules > 0) {
        uint32_t here = in_chunk(first, granules);
        uint32_t index = first / CHUNK_GRANULES;
        struct chunk *chunk = &memory->chunks[index];
        chunk->used -= here;
        memory->idle_chunks += chunk->used == 0;
        /* A few are kept, or code that comes and goes would pay for pages each time. */
        if (chunk->used == 0 && memory->idle_chunks > ENGINE_CODE_IDLE_CHUNKS) {
            chunk_release(memory, index);
        }
        first += here;
        granules -= here;
    }
}

/* --- creation ------------------------------------------------------------------------------- */

/* Anonymous shared memory and a second mapping of it. A memfd would do as well, but Linux perf
 * takes its mappings for those of a file, and then does not look into the map of our code's names.
 * The execute view comes first: hardened hosts let no mapping become executable later. */
static bool map_views(struct code_memory *memory, struct error *err)
{
    void *execute = mmap(NULL, memory->limit, PROT_READ | PROT_EXEC,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (execute == MAP_FAILED && (errno == EACCES || errno == EPERM)) {
        error_set(err, ERROR_PERMISSION, errno, "the host forbids executable memory: %s",
                  strerror(errno));
        error_hint(err, "allow it to vcpud (with SELinux: execmem), or run with --engine interp");
        return false;
    }
    if (execute == MAP_FAILED) {
        error_set(err, ERROR_MEMORY, errno, "no memory for compiled code: %s", strerror(errno));
        return false;
    }
    memory->execute = execute;
    /* From size 0: the first mapping stays. */
    void *write = mremap(execute, 0, memory->limit, MREMAP_MAYMOVE);
    memory->write = write != MAP_FAILED ? write : NULL;
    if (!memory->write || mprotect(write, memory->limit, PROT_READ | PROT_WRITE) != 0) {
        error_set(err, ERROR_MEMORY, errno, "no addresses for compiled code: %s", strerror(errno));
        return false;
    }
    return true;
}

static uint64_t bits_size(const struct code_memory *memory)
{
    return (memory->granules + UINT64_C(63)) / 64 * sizeof(uint64_t);
}

/* No two free stretches are neighbours. */
static uint64_t stretches_size(const struct code_memory *memory)
{
    return (memory->granules / UINT64_C(2) + 1) * sizeof(struct free_stretch);
}

/* Zeroed, and backed by the host only where it is touched. */
static void *map_table(uint64_t size)
{
    void *table = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return table == MAP_FAILED ? NULL : table;
}

static bool map_tables(struct code_memory *memory)
{
    memory->begins = map_table(bits_size(memory));
    memory->free = map_table(bits_size(memory));
    memory->stretches = map_table(stretches_size(memory));
    memory->chunks = calloc(memory->chunk_count, sizeof(*memory->chunks));
    return memory->begins && memory->free && memory->stretches && memory->chunks;
}

struct code_memory *code_memory_create(uint64_t limit_bytes, struct error *err)
{
    if (limit_bytes < LIMIT_MIN || limit_bytes > LIMIT_MAX) {
        error_set(err, ERROR_CONFIG, 0, "impossible limit of code memory: %llu bytes",
                  (unsigned long long)limit_bytes);
        return NULL;
    }
    struct code_memory *memory = calloc(1, sizeof(*memory));
    if (!memory || pthread_mutex_init(&memory->lock, NULL) != 0) {
        free(memory);
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the code allocator");
        return NULL;
    }
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    memory->limit = (limit_bytes + page - 1) / page * page;
    memory->granules = (uint32_t)(memory->limit / CODE_MEMORY_ALIGN);
    memory->chunk_count = (uint32_t)((memory->limit + CHUNK_BYTES - 1) / CHUNK_BYTES);
    memory->unused = NO_LINK;
    memset(memory->heads, 0xff, sizeof(memory->heads)); /* NO_LINK */
    memset(memory->chains, 0xff, sizeof(memory->chains));

    bool mapped = map_views(memory, err);
    if (mapped && !map_tables(memory)) {
        error_set(err, ERROR_MEMORY, ENOMEM, "no memory for the code allocator");
        mapped = false;
    }
    if (!mapped) {
        code_memory_destroy(memory);
        return NULL;
    }
    link_free(memory, 0, memory->granules);
    return memory;
}

static void unmap(void *address, uint64_t size)
{
    if (address) {
        munmap(address, size);
    }
}

void code_memory_destroy(struct code_memory *memory)
{
    if (!memory) {
        return;
    }
    unmap(memory->write, memory->limit);
    unmap(memory->execute, memory->limit);
    unmap(memory->begins, bits_size(memory));
    unmap(memory->free, bits_size(memory));
    unmap(memory->stretches, stretches_size(memory));
    free(memory->chunks);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

/* --- spans ---------------------------------------------------------------------------------- */

static uint64_t granules_of(uint32_t bytes)
{
    return ((uint64_t)bytes + CODE_MEMORY_ALIGN - 1) / CODE_MEMORY_ALIGN;
}

bool code_memory_allocate_aligned(struct code_memory *memory, uint32_t bytes, uint32_t alignment,
                                  struct code_span *span)
{
    uint32_t step = alignment / CODE_MEMORY_ALIGN; /* granules */
    uint64_t granules = granules_of(bytes);
    if (granules == 0 || granules > memory->granules || step == 0) {
        return false;
    }
    uint32_t count = (uint32_t)granules, first = 0;
    pthread_mutex_lock(&memory->lock);
    uint32_t found =
        count + step - 1 <= memory->granules ? find_free(memory, count + step - 1) : NO_LINK;
    if (found != NO_LINK) {
        struct range range = unlink_free(memory, found);
        first = (range.first + step - 1) & ~(step - 1);
        if (first > range.first) {
            link_free(memory, range.first, first - range.first);
        }
        if (range.end > first + count) {
            link_free(memory, first + count, range.end - first - count);
        }
        set_bit(memory->begins, first, true);
        account_used(memory, first, count);
    }
    pthread_mutex_unlock(&memory->lock);
    if (found == NO_LINK) {
        return false;
    }
    uint64_t offset = (uint64_t)first * CODE_MEMORY_ALIGN;
    *span = (struct code_span){
        .write = memory->write + offset,
        .execute = memory->execute + offset,
        .size = count * CODE_MEMORY_ALIGN,
    };
    return true;
}

bool code_memory_allocate(struct code_memory *memory, uint32_t bytes, struct code_span *span)
{
    return code_memory_allocate_aligned(memory, bytes, CODE_MEMORY_ALIGN, span);
}

/* Whether there is a span of just that many granules. */
static bool is_span(const struct code_memory *memory, uint64_t first, uint64_t granules)
{
    if (granules == 0 || granules > memory->granules || first > memory->granules - granules) {
        return false;
    }
    uint32_t at = (uint32_t)first;
    return bit(memory->begins, at) && !bit(memory->free, at) &&
           size_from(memory, at, (uint32_t)granules + 1) == granules;
}

/* Cut the span at `execute` from `granules` down to `keep`. */
static bool cut(struct code_memory *memory, const uint8_t *execute, uint64_t granules,
                uint64_t keep)
{
    uint64_t offset = (uint64_t)(uintptr_t)execute - (uint64_t)(uintptr_t)memory->execute;
    uint64_t first = offset / CODE_MEMORY_ALIGN;
    pthread_mutex_lock(&memory->lock);
    bool fits = keep <= granules && offset % CODE_MEMORY_ALIGN == 0 && offset < memory->limit &&
                is_span(memory, first, granules);
    if (fits && keep < granules) {
        uint32_t from = (uint32_t)(first + keep), count = (uint32_t)(granules - keep);
        account_free(memory, from, count);
        join_free(memory, from, count);
    }
    if (!fits) {
        atomic_fetch_add_explicit(&memory->refused, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&memory->lock);
    return fits;
}

void code_memory_trim(struct code_memory *memory, struct code_span *span, uint32_t used)
{
    uint64_t keep = granules_of(used);
    if (cut(memory, span->execute, granules_of(span->size), keep)) {
        span->size = (uint32_t)keep * CODE_MEMORY_ALIGN;
    }
}

void code_memory_free(struct code_memory *memory, const uint8_t *execute, uint32_t size)
{
    cut(memory, execute, granules_of(size), 0);
}

#if !defined(__aarch64__)
/* Of the hosts that there are code for: their instruction caches see all stores. */
void code_memory_publish(const struct code_span *span, uint32_t size)
{
    (void)span;
    (void)size;
}
#endif

/* --- questions ------------------------------------------------------------------------------ */

uint64_t code_memory_used(const struct code_memory *memory)
{
    return atomic_load_explicit(&memory->used, memory_order_relaxed);
}

uint64_t code_memory_limit(const struct code_memory *memory)
{
    return memory->limit;
}

uint32_t code_memory_largest(struct code_memory *memory)
{
    pthread_mutex_lock(&memory->lock);
    uint32_t largest = 0;
    if (memory->power_bits != 0) {
        unsigned power = 31 - (unsigned)__builtin_clz(memory->power_bits);
        unsigned step = 31 - (unsigned)__builtin_clz(memory->class_bits[power]);
        /* The least that a stretch of that class can have. */
        largest = power == 0 ? step : (CLASS_STEPS + step) << (power - 1);
    }
    pthread_mutex_unlock(&memory->lock);
    return largest * CODE_MEMORY_ALIGN;
}

uint64_t code_memory_refused(const struct code_memory *memory)
{
    return atomic_load_explicit(&memory->refused, memory_order_relaxed);
}

bool code_memory_contains(const struct code_memory *memory, const void *execute)
{
    return (uintptr_t)execute - (uintptr_t)memory->execute < memory->limit;
}

uint8_t *code_memory_write_view(const struct code_memory *memory, const uint8_t *execute)
{
    return memory->write + (execute - memory->execute);
}
