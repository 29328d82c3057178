/*
 * The ring library under a hostile driver, which changes what it wrote between any two looks of the
 * device; and under a well-behaved one that drives a split and a packed ring with the same
 * requests: the device must see and do the same in both, also when its process dies at any step.
 */
#include "tests/fuzz/fuzz_input.h"
#include <setjmp.h>

static void look(void);
static void step(void);

#define VIRTQUEUE_LOOK() look()
#define VIRTQUEUE_STEP() step()
#include "libshared/virtio/chain.c"
#include "libshared/virtio/ring.c"
#include "libshared/virtio/ring_packed.c"
#include "libshared/virtio/ring_split.c"

#define RAM_BASE   UINT64_C(0x80000000)
#define RAM_SIZE   0x20000u
#define RINGS_SIZE 0x4000u  /* of each side: descriptors, driver area, device area, tables */
#define BUFFERS    0x10000u /* where requests have theirs */

static uint8_t *ram; /* on the heap: what lies around it is nobody's */
static struct memory memory;
static struct fuzz_input input;
static bool hostile;
static long steps_to_live;
static jmp_buf death;

static void step(void)
{
    if (steps_to_live > 0 && --steps_to_live == 0) {
        longjmp(death, 1);
    }
}

/* ---- What each side has ---- */

#define REQUESTS 8u /* that the model driver has in the ring at most */
#define PARTS    4u

struct request {
    bool offered;
    uint16_t positions; /* of a packed ring */
};

static struct side {
    bool packed;
    uint32_t at; /* of its rings in memory */
    struct virtio_queue_state shared;
    struct virtqueue queue;
    struct virtqueue_chain chains[VIRTIO_QUEUE_SIZE_MAX]; /* taken, by head */
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];                /* in the order taken */
    unsigned count;
    /* The model driver's. */
    struct request requests[REQUESTS];
    uint64_t offered, collected; /* positions */
    unsigned results;
    struct {
        uint16_t id;
        uint32_t length;
    } result[4096];
} sides[2];

static struct virtqueue_chain scratch;

static uint8_t *pointer(uint64_t address)
{
    return ram + (address - RAM_BASE);
}

static uint64_t area(const struct side *side, unsigned index)
{
    return RAM_BASE + side->at + index * 0x1000u;
}

static uint16_t *words(const struct side *side, unsigned index)
{
    return (uint16_t *)pointer(area(side, index));
}

static void side_start(struct side *side, bool packed, uint16_t size)
{
    memset(&side->shared, 0, sizeof(side->shared));
    side->packed = packed;
    side->at = packed ? RINGS_SIZE : 0;
    side->shared.descriptors = area(side, 0);
    side->shared.driver_area = area(side, 1);
    side->shared.device_area = area(side, 2);
    side->shared.size = size;
    side->count = side->results = 0;
    side->offered = side->collected = 0;
    memset(side->requests, 0, sizeof(side->requests));
}

static int side_open(struct side *side, uint64_t features)
{
    features &= ~VIRTQUEUE_FEATURE_PACKED;
    side->count = 0;
    return virtqueue_open(&side->queue, &memory, &side->shared,
                          features | (side->packed ? VIRTQUEUE_FEATURE_PACKED : 0));
}

static void remember(struct side *side, const struct virtqueue_chain *chain)
{
    fuzz_require(chain->head < side->queue.size, "a request's entry is in the log");
    fuzz_require(side->count < side->queue.size, "the ring holds all that was taken");
    virtqueue_chain_copy(&side->chains[chain->head], chain);
    side->heads[side->count++] = chain->head;
}

/* Take over; what is in flight is known again. */
static void side_recover(struct side *side, uint64_t features, bool must)
{
    uint16_t heads[VIRTIO_QUEUE_SIZE_MAX];
    unsigned count = 0;
    int status = side_open(side, features);

    if (status == 0) {
        status = virtqueue_recover(&side->queue, heads, &count);
    }
    for (unsigned i = 0; status == 0 && i < count; i++) {
        status = virtqueue_resume(&side->queue, heads[i], &scratch);
        if (status == 0) {
            remember(side, &scratch);
        }
    }
    fuzz_require(status == 0 || !must, "a process can go on");
}

/* Complete the one at `index` of those that were taken. */
static void side_complete(struct side *side, unsigned index, uint32_t written)
{
    uint16_t head = side->heads[index];

    memmove(&side->heads[index], &side->heads[index + 1],
            (--side->count - index) * sizeof(side->heads[0]));
    virtqueue_complete(&side->queue, &side->chains[head], written);
}

/* ---- A hostile driver ---- */

/* Change something where the rings are. */
static void tamper(struct side *side)
{
    unsigned how = (unsigned)fuzz_take(&input, 1);
    uint16_t *descriptors = words(side, 0), *driver = words(side, 1), *device = words(side, 2);
    unsigned index = fuzz_pick(&input, 64);

    if (how < 64) { /* a word of a descriptor: flags and lengths that mean something */
        static const uint16_t flags[] = {0x0080, 0x8000, 0x0081, 0x8001, 0x0082, 0x8002,
                                         0x0084, 0x8004, 1,      2,      4,      3};
        descriptors[index * 8 + (side->packed ? 7 : 6)] = flags[how % 12];
    } else if (how < 96) { /* an address in memory, a length of tables or data */
        uint64_t address = RAM_BASE + (fuzz_take(&input, 2) * 2u) % RAM_SIZE;
        uint32_t length = (uint32_t)(how & 1 ? fuzz_pick(&input, 256) * 16u : fuzz_number(&input));
        memcpy(&descriptors[index * 8], &address, 8);
        memcpy(&descriptors[index * 8 + 4], &length, 4);
    } else if (how < 128) {
        driver[1] += how & 3; /* split: more is available */
        driver[2 + index] = (uint16_t)fuzz_pick(&input, 64);
    } else if (how < 144) {
        descriptors[index * 8 + 6 + (how & 1)] = (uint16_t)fuzz_pick(&input, 64);
    } else if (how < 160) {
        driver[how & 1] = (uint16_t)fuzz_take(&input, 2);
    } else if (how < 176) {
        device[how & 3] = (uint16_t)fuzz_take(&input, 2);
    } else {
        uint32_t at = (uint32_t)fuzz_take(&input, 2) * 8u % RAM_SIZE;
        uint64_t value = fuzz_number(&input);
        memcpy(ram + at, &value, sizeof(value));
    }
}

/* Between two looks of the device. */
static void look(void)
{
    if (hostile && input.size && fuzz_take(&input, 1) < 48) {
        tamper(&sides[0]);
    }
}

/* Whatever the driver did, a chain is made of memory that is there. */
static void check_chain(const struct virtqueue_chain *chain)
{
    uint64_t bytes[2] = {0, 0};

    fuzz_require(chain->readable_count + chain->writable_count <= VIRTIO_QUEUE_SIZE_MAX,
                 "a chain fits its segments");
    for (unsigned i = 0; i < (unsigned)chain->readable_count + chain->writable_count; i++) {
        uint8_t *from = chain->segments[i].iov_base;
        size_t length = chain->segments[i].iov_len;
        fuzz_require(length > 0 && from >= ram && length <= RAM_SIZE &&
                         from + length <= ram + RAM_SIZE,
                     "a segment lies in memory");
        fuzz_require(from == pointer(chain->addresses[i]), "addresses belong to segments");
        bytes[i >= chain->readable_count] += length;
    }
    fuzz_require(bytes[0] == chain->readable_bytes && bytes[1] == chain->writable_bytes &&
                     bytes[1] <= UINT32_MAX,
                 "sums are right");
}

static void hostile_stream(struct side *side)
{
    uint32_t lengths[VIRTIO_QUEUE_SIZE_MAX] = {0};
    unsigned wanted = fuzz_pick(&input, 5), count = 0;

    while (count < wanted && virtqueue_peek(&side->queue, count, &scratch) == 1) {
        check_chain(&scratch);
        virtqueue_chain_write(&scratch, 0, "frame", 5);
        virtqueue_wrote(&side->queue, &scratch, 5);
        lengths[count++] = 5;
    }
    virtqueue_publish(&side->queue, lengths, count);
}

static void hostile_request(struct side *side)
{
    if (side->count < side->queue.size && virtqueue_take(&side->queue, &scratch) == 1) {
        check_chain(&scratch);
        virtqueue_chain_write(&scratch, 0, "data", 4);
        remember(side, &scratch);
    }
    if (side->count && fuzz_pick(&input, 4) == 0) {
        side_complete(side, fuzz_pick(&input, 256) % side->count, (uint32_t)fuzz_take(&input, 4));
    }
}

static void hostile_notices(struct side *side)
{
    unsigned what = fuzz_pick(&input, 256);

    virtqueue_interrupt_wanted(&side->queue);
    virtqueue_kicks_off(&side->queue);
    virtqueue_kicks_on_beyond(&side->queue, virtqueue_waiting(&side->queue, what));
    virtqueue_exhausted(&side->queue, what);
    virtqueue_available(&side->queue);
}

static void hostile_turn(struct side *side, uint64_t features, bool stream)
{
    unsigned what = fuzz_pick(&input, 16);

    if (what < 6) {
        tamper(side);
    } else if (what < 13) {
        if (stream) {
            hostile_stream(side);
        } else {
            hostile_request(side);
        }
    } else if (what < 14) {
        hostile_notices(side);
    } else if (what < 15) { /* the process is replaced; what it left may be damaged, too */
        if (fuzz_pick(&input, 2)) {
            uint32_t at = (uint32_t)fuzz_take(&input, 2) % (sizeof(side->shared) - 8);
            uint64_t value = fuzz_number(&input);
            at = at < offsetof(struct virtio_queue_state, next_order)
                     ? offsetof(struct virtio_queue_state, next_order)
                     : at;
            memcpy((uint8_t *)&side->shared + at, &value, sizeof(value));
        }
        if (stream && side_open(side, features) == 0) {
            virtqueue_recover_stream(&side->queue);
        } else if (!stream) {
            side_recover(side, features, false);
        }
    } else if (side->queue.fault) {
        virtqueue_clear(&side->shared);
        side_open(side, features);
    } else {
        steps_to_live = 1 + fuzz_pick(&input, 16);
    }
}

/* volatile: set between setjmp and longjmp. */
static void run_hostile(unsigned mode)
{
    static const uint16_t sizes[] = {1, 2, 16, 64, 256, 3, 33, 255};
    struct side *side = &sides[0];
    bool packed = mode & 1, stream = mode & 2;
    uint64_t features = (mode & 4 ? VIRTQUEUE_FEATURE_EVENT_INDEX : 0) |
                        (mode & 8 ? 0 : VIRTQUEUE_FEATURE_INDIRECT);

    side_start(side, packed, sizes[(mode >> 4) % (packed ? 8 : 5)]);
    if (side_open(side, features) < 0) {
        return;
    }
    hostile = true;
    while (input.size) {
        if (setjmp(death)) {
            steps_to_live = 0;
            if (!stream) {
                side_recover(side, features, false);
            } else if (side_open(side, features) == 0) {
                virtqueue_recover_stream(&side->queue);
            }
        }
        hostile_turn(side, features, stream);
    }
    hostile = false;
    steps_to_live = 0;
}

/* ---- The same requests through both layouts ---- */

/* What the driver offers next, for both sides. */
struct plan {
    unsigned id, parts, writable;
    bool table;
};

static void part_set(struct side *side, const struct plan *plan, unsigned part, uint8_t *to,
                     uint16_t next, uint16_t more)
{
    uint64_t address = RAM_BASE + BUFFERS + plan->id * 0x400u + part * 0x100u;
    uint32_t length = 1 + plan->id + part * 7;
    uint16_t flags =
        (uint16_t)((part >= plan->parts - plan->writable ? VIRTQUEUE_WRITE : 0) | more);

    if (side->packed) {
        const struct virtqueue_packed_descriptor descriptor = {address, length, (uint16_t)plan->id,
                                                               flags};
        memcpy(to, &descriptor, sizeof(descriptor));
    } else {
        const struct virtqueue_descriptor descriptor = {address, length, flags, next};
        memcpy(to, &descriptor, sizeof(descriptor));
    }
}

/* Descriptors of a chain, from `to` on or in a table. */
static void model_offer(struct side *side, const struct plan *plan)
{
    uint64_t table = area(side, 3) + plan->id * PARTS * 16;
    unsigned count = plan->table ? 1 : plan->parts;
    struct virtqueue_descriptor indirect = {table, plan->parts * 16, VIRTQUEUE_INDIRECT, 0};

    for (unsigned part = 0; plan->table && part < plan->parts; part++) {
        part_set(side, plan, part, pointer(table + part * 16), (uint16_t)(part + 1),
                 !side->packed && part + 1 < plan->parts ? VIRTQUEUE_NEXT : 0);
    }
    for (unsigned part = 0; part < count; part++) {
        uint16_t more = part + 1 < count ? VIRTQUEUE_NEXT : 0;
        uint64_t slot =
            side->packed ? (side->offered + part) % side->queue.size : plan->id * PARTS + part;
        uint8_t *to = pointer(area(side, 0) + slot * 16);
        if (!plan->table) {
            part_set(side, plan, part, to, (uint16_t)(slot + 1), more);
        } else if (side->packed) {
            const struct virtqueue_packed_descriptor descriptor = {
                table, indirect.length, (uint16_t)plan->id, VIRTQUEUE_INDIRECT};
            memcpy(to, &descriptor, sizeof(descriptor));
        } else {
            memcpy(to, &indirect, sizeof(indirect));
        }
        if (side->packed) {
            struct virtqueue_packed_descriptor *descriptor = (void *)to;
            bool odd = (side->offered + part) / side->queue.size & 1;
            descriptor->flags |= odd ? VIRTQUEUE_PACKED_USED : VIRTQUEUE_PACKED_AVAILABLE;
        }
    }
    side->requests[plan->id] = (struct request){true, (uint16_t)count};
    if (side->packed) {
        side->offered += count;
    } else {
        uint16_t *available = words(side, 1);
        available[2 + side->offered++ % side->queue.size] = (uint16_t)(plan->id * PARTS);
        available[1]++;
    }
}

/* The next used entry: its request, or REQUESTS when there is none. */
static unsigned model_collect_one(struct side *side, uint32_t *length)
{
    unsigned id;

    if (side->packed) {
        const struct virtqueue_packed_descriptor *at =
            (void *)pointer(area(side, 0) + side->collected % side->queue.size * 16);
        unsigned both = VIRTQUEUE_PACKED_AVAILABLE | VIRTQUEUE_PACKED_USED;
        if ((at->flags & both) != (side->collected / side->queue.size & 1 ? 0 : both)) {
            return REQUESTS;
        }
        id = at->id;
        *length = at->length;
    } else {
        const uint16_t *used = words(side, 2);
        struct virtqueue_used_element element;
        if (used[1] == (uint16_t)side->collected) {
            return REQUESTS;
        }
        memcpy(&element, &used[2 + 4 * (side->collected % side->queue.size)], sizeof(element));
        id = element.id / PARTS;
        *length = element.length;
    }
    fuzz_require(id < REQUESTS && side->requests[id].offered, "what is used was offered");
    side->collected += side->packed ? side->requests[id].positions : 1;
    side->requests[id].offered = false;
    return id;
}

static void model_collect(struct side *side)
{
    uint32_t length;
    unsigned id;

    while ((id = model_collect_one(side, &length)) < REQUESTS) {
        if (side->results < sizeof(side->result) / sizeof(side->result[0])) {
            side->result[side->results].id = (uint16_t)id;
            side->result[side->results++].length = length;
        }
    }
}

/* Ask for an interrupt at the next used entry, or for none. */
static void model_wish(struct side *side, bool interrupt, bool event_index)
{
    uint16_t *driver = words(side, 1);

    if (side->packed) {
        uint16_t size = side->queue.size;
        driver[0] = (uint16_t)(side->collected % size | (side->collected / size & 1 ? 0 : 0x8000));
        driver[1] = interrupt ? (event_index ? VIRTQUEUE_EVENT_DESCRIPTOR : VIRTQUEUE_EVENT_ENABLE)
                              : VIRTQUEUE_EVENT_DISABLE;
    } else {
        driver[0] = !interrupt;
        driver[2 + side->queue.size] = (uint16_t)(side->collected - !interrupt);
    }
}

static void check_same_chain(const struct virtqueue_chain *a, const struct virtqueue_chain *b)
{
    unsigned count = (unsigned)a->readable_count + a->writable_count;

    fuzz_require(a->readable_count == b->readable_count && a->writable_count == b->writable_count &&
                     a->readable_bytes == b->readable_bytes &&
                     a->writable_bytes == b->writable_bytes &&
                     memcmp(a->addresses, b->addresses, count * sizeof(a->addresses[0])) == 0,
                 "both layouts say the same");
}

static void check_same(void)
{
    fuzz_require(sides[0].queue.fault == NULL && sides[1].queue.fault == NULL,
                 "a driver that keeps the rules breaks none");
    fuzz_require(sides[0].count == sides[1].count, "as much was taken from both");
    for (unsigned i = 0; i < sides[0].count; i++) {
        check_same_chain(&sides[0].chains[sides[0].heads[i]], &sides[1].chains[sides[1].heads[i]]);
    }
    model_collect(&sides[0]);
    model_collect(&sides[1]);
    fuzz_require(sides[0].results == sides[1].results, "as much was given back to both");
    for (unsigned i = 0; i < sides[0].results; i++) {
        fuzz_require(sides[0].result[i].id == sides[1].result[i].id &&
                         sides[0].result[i].length == sides[1].result[i].length,
                     "the same was given back to both");
    }
}

/* Do `what` on a side; its process may die in it and is replaced. */
static void same_take(struct side *side, uint64_t features, long life)
{
    unsigned before = side->count;

    if (setjmp(death) == 0) {
        steps_to_live = life;
        if (virtqueue_take(&side->queue, &scratch) == 1) {
            steps_to_live = 0;
            remember(side, &scratch);
        }
        steps_to_live = 0;
        return;
    }
    side_recover(side, features, true);
    if (side->count == before && virtqueue_take(&side->queue, &scratch) == 1) {
        remember(side, &scratch);
    }
}

static void same_complete(struct side *side, uint64_t features, unsigned index, uint32_t written,
                          long life)
{
    unsigned before = side->count;

    if (setjmp(death) == 0) {
        steps_to_live = life;
        side_complete(side, index, written);
        steps_to_live = 0;
        return;
    }
    side_recover(side, features, true);
    if (side->count == before) { /* it died before it was said to be done */
        side_complete(side, index, written);
    }
}

static void same_publish(struct side *side, uint64_t features, unsigned wanted, long life)
{
    uint32_t lengths[REQUESTS] = {0};
    unsigned count = 0;
    uint64_t before = side->queue.used_order;

    while (count < wanted && virtqueue_peek(&side->queue, count, &scratch) == 1) {
        check_chain(&scratch);
        lengths[count] = 100 + count + (uint32_t)scratch.readable_bytes;
        count++;
    }
    if (setjmp(death) == 0) {
        steps_to_live = life;
        virtqueue_publish(&side->queue, lengths, count);
        steps_to_live = 0;
        return;
    }
    fuzz_require(side_open(side, features) == 0 && virtqueue_recover_stream(&side->queue) == 0,
                 "a stream can go on");
    if (side->queue.used_order == before) { /* nothing of the group, or all of it */
        for (unsigned i = 0; i < count; i++) {
            fuzz_require(virtqueue_peek(&side->queue, i, &scratch) == 1, "buffers are still there");
        }
        virtqueue_publish(&side->queue, lengths, count);
    }
}

static void same_offer(void)
{
    uint8_t how = (uint8_t)fuzz_take(&input, 1);
    struct plan plan = {.parts = 1 + (how & 3), .table = how & 4};

    plan.writable = (how >> 3) % (plan.parts + 1);
    while (plan.id < REQUESTS && sides[0].requests[plan.id].offered) {
        plan.id++;
    }
    if (plan.id < REQUESTS) {
        model_offer(&sides[0], &plan);
        model_offer(&sides[1], &plan);
    }
}

static void same_interrupt(bool event_index)
{
    bool wish = fuzz_pick(&input, 2), wanted[2];

    /* After a death the first look always interrupts; so one comes before. */
    for (unsigned i = 0; i < 2; i++) {
        model_wish(&sides[i], wish, event_index);
        virtqueue_interrupt_wanted(&sides[i].queue);
    }
    uint32_t written = (uint32_t)fuzz_take(&input, 2);
    unsigned which = sides[0].count ? fuzz_pick(&input, 256) % sides[0].count : 0;
    for (unsigned i = 0; i < 2; i++) {
        if (sides[i].count) {
            side_complete(&sides[i], which, written);
        }
        wanted[i] = virtqueue_interrupt_wanted(&sides[i].queue);
    }
    fuzz_require(wanted[0] == wanted[1], "both interrupt, or none");
}

static void same_kicks(void)
{
    unsigned beyond = fuzz_pick(&input, 8);
    bool more[2];

    for (unsigned i = 0; i < 2; i++) {
        struct virtqueue *queue = &sides[i].queue;
        unsigned waiting = virtqueue_waiting(queue, beyond);
        virtqueue_kicks_off(queue);
        more[i] = virtqueue_kicks_on_beyond(queue, waiting);
    }
    fuzz_require(more[0] == more[1], "as much waits in both");
}

static void run_same(unsigned mode)
{
    bool stream = mode & 1;
    uint64_t features = VIRTQUEUE_FEATURE_INDIRECT | (mode & 2 ? VIRTQUEUE_FEATURE_EVENT_INDEX : 0);

    side_start(&sides[0], false, REQUESTS * PARTS);
    side_start(&sides[1], true, (uint16_t)(REQUESTS * PARTS + (mode >> 2) % 8));
    fuzz_require(side_open(&sides[0], features) == 0 && side_open(&sides[1], features) == 0,
                 "both can be opened");
    while (input.size) {
        unsigned what = fuzz_pick(&input, 8);
        long life[2] = {fuzz_pick(&input, 16), fuzz_pick(&input, 16)};
        if (what < 3) {
            same_offer();
        } else if (what == 3) {
            same_kicks();
        } else if (stream) {
            for (unsigned i = 0; i < 2; i++) {
                same_publish(&sides[i], features, what - 3, life[i]);
            }
        } else if (what < 6) {
            for (unsigned i = 0; i < 2; i++) {
                same_take(&sides[i], features, life[i]);
            }
        } else if (what == 6) {
            same_interrupt(mode & 2);
        } else if (sides[0].count) {
            unsigned which = fuzz_pick(&input, 256) % sides[0].count;
            uint32_t written = (uint32_t)fuzz_take(&input, 2);
            for (unsigned i = 0; i < 2; i++) {
                same_complete(&sides[i], features, which, written, life[i]);
            }
        }
        check_same();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct fuzz_input){bytes, size};
    if (!ram) {
        /* Without a code map: which pages hold code is another matter. */
        fuzz_require(posix_memalign((void **)&ram, 4096, RAM_SIZE) == 0, "there is memory");
        memory.region_count = 1;
        memory.regions[0] = (struct memory_region){.base = RAM_BASE, .size = RAM_SIZE, .host = ram};
    }
    memset(ram, 0, RAM_SIZE);
    steps_to_live = 0;
    unsigned mode = (unsigned)fuzz_take(&input, 1);
    if (mode & 0x80) {
        run_same(mode & 0x7f);
    } else {
        run_hostile(mode);
    }
    return 0;
}
