#include "devd/limit/line.h"

static void line_add(struct line *line, struct line_entry *entry, uint64_t now_ns)
{
    entry->next = NULL;
    entry->since_ns = line->first ? 0 : now_ns;
    if (line->first) {
        line->last->next = entry;
    } else {
        line->first = entry;
    }
    line->last = entry;
}

static void line_take_first(struct line *line, uint64_t now_ns)
{
    line->first = line->first->next;
    if (line->first) {
        line->first->since_ns = now_ns;
    }
}

bool lines_enter(struct lines *lines, struct line_entry *entry, uint64_t now_ns)
{
    /* Who waits for both directions' buckets must not be overtaken by the other direction. */
    if (!lines->waiting &&
        limiter_wait(lines->limiter, entry->direction, entry->bytes, now_ns, now_ns) == 0) {
        limiter_take(lines->limiter, entry->direction, entry->bytes, now_ns);
        return true;
    }
    line_add(&lines->of[entry->direction][entry->queue], entry, now_ns);
    lines->waiting++;
    return false;
}

/* The first in its turn of that direction, or NULL. */
static struct line *line_next(struct lines *lines, unsigned direction, unsigned *queue)
{
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        *queue = (lines->turn[direction] + i) % VIRTIO_QUEUES_MAX;
        if (lines->of[direction][*queue].first) {
            return &lines->of[direction][*queue];
        }
    }
    return NULL;
}

/* One of a direction begins, or *wait says when. Whether one did. */
static bool direction_step(struct lines *lines, unsigned direction, uint64_t now_ns, uint64_t *wait,
                           bool *common, struct line_entry **entry)
{
    unsigned queue;
    struct line *line = line_next(lines, direction, &queue);

    *wait = LINES_NOTHING_WAITS;
    if (!line) {
        return false;
    }
    *entry = line->first;
    *wait = limiter_wait(lines->limiter, direction, (*entry)->bytes, (*entry)->since_ns, now_ns);
    if (*wait) {
        *common =
            limiter_wait_is_common(lines->limiter, (*entry)->bytes, (*entry)->since_ns, now_ns);
        return false;
    }
    limiter_take(lines->limiter, direction, (*entry)->bytes, now_ns);
    line_take_first(line, now_ns);
    lines->waiting--;
    lines->turn[direction] = (queue + 1) % VIRTIO_QUEUES_MAX;
    return true;
}

uint64_t lines_run(struct lines *lines, uint64_t now_ns, unsigned most,
                   void (*begin)(struct line_entry *entry, void *context), void *context)
{
    while (lines->waiting) {
        unsigned direction = lines->direction;
        struct line_entry *entry = NULL;
        bool common = false;
        uint64_t wait;

        if (!most--) {
            return 0;
        }
        if (direction_step(lines, direction, now_ns, &wait, &common, &entry)) {
            lines->direction = !direction;
            begin(entry, context);
            continue;
        }
        uint64_t soonest = wait;
        if (common) { /* the other direction would take what this one waits for */
            return soonest;
        }
        if (direction_step(lines, !direction, now_ns, &wait, &common, &entry)) {
            begin(entry, context); /* and it stays the first one's turn */
            continue;
        }
        return wait < soonest ? wait : soonest;
    }
    return LINES_NOTHING_WAITS;
}

struct line_entry *lines_leave(struct lines *lines, bool (*is_over)(const struct line_entry *entry),
                               uint64_t now_ns)
{
    struct line_entry *left = NULL, **end = &left;

    for (unsigned direction = 0; direction < LIMIT_BOTH; direction++) {
        for (unsigned queue = 0; queue < VIRTIO_QUEUES_MAX; queue++) {
            struct line *line = &lines->of[direction][queue];
            struct line_entry *entry = line->first, *next;
            line->first = line->last = NULL;
            for (; entry; entry = next) {
                next = entry->next;
                if (is_over(entry)) {
                    entry->next = NULL;
                    *end = entry;
                    end = &entry->next;
                    lines->waiting--;
                } else {
                    line_add(line, entry, entry->since_ns ? entry->since_ns : now_ns);
                }
            }
        }
    }
    return left;
}
