#include "devd/panic.h"
#include "devd/order.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The lines of the kernel's panic(): the first one, and one when it has told all and waits for
 * ever, in which the same words follow END_PREFIX. */
#define MARK          "Kernel panic - not syncing: "
#define MARK_LENGTH   (sizeof(MARK) - 1)
#define END_PREFIX    "---[ end "
#define PREFIX_LENGTH (sizeof(END_PREFIX) - 1)

#define WINDOW_SIZE   4096u
#define TELL_AGAIN_US 200000

_Static_assert(MARK_LENGTH + CONSOLE_PANIC_TEXT < WINDOW_SIZE, "a report fits in the window");

struct panic_watch {
    struct console_memory *memory;
    struct console_panic now; /* as in the memory */
    uint64_t examined;        /* at or after now.examined */
    struct event *pause;      /* pending: something was told a moment ago */
    bool news;                /* meanwhile */
    void (*panicked)(void *context);
    void *context;
};

static void ring_copy(const struct console_memory *memory, uint64_t from, uint8_t *to, size_t size)
{
    size_t at = from % CONSOLE_RING;
    size_t part = CONSOLE_RING - at < size ? CONSOLE_RING - at : size;

    memcpy(to, memory->ring + at, part);
    memcpy(to + part, memory->ring, size - part);
}

/* It goes to people's terminals. */
static void text_clean(char text[CONSOLE_PANIC_TEXT])
{
    text[CONSOLE_PANIC_TEXT - 1] = '\0';
    for (char *c = text; *c; c++) {
        *c = *c >= ' ' && *c <= '~' ? *c : '?';
    }
}

static void panic_save(struct panic_watch *watch)
{
    struct console_memory *memory = watch->memory;
    uint32_t other = !(atomic_load_explicit(&memory->panic_selected, memory_order_relaxed) & 1);

    memory->panics[other] = watch->now;
    order_stores();
    atomic_store_explicit(&memory->panic_selected, other, memory_order_release);
    order_stores();
}

static void panic_tell(struct panic_watch *watch)
{
    const struct timeval pause = {.tv_usec = TELL_AGAIN_US};

    watch->news = event_pending(watch->pause, EV_TIMEOUT, NULL);
    if (!watch->news) {
        event_add(watch->pause, &pause);
        watch->panicked(watch->context);
    }
}

static void pause_over(evutil_socket_t fd, short what, void *context)
{
    struct panic_watch *watch = context;

    (void)fd;
    (void)what;
    if (watch->news) {
        panic_tell(watch);
    }
}

/* Whether the words at `position` of the output are those of the last line of a panic. */
static bool is_end(const struct panic_watch *watch, uint64_t position)
{
    uint8_t before[PREFIX_LENGTH];

    if (position < PREFIX_LENGTH) {
        return false;
    }
    ring_copy(watch->memory, position - PREFIX_LENGTH, before, PREFIX_LENGTH);
    return memcmp(before, END_PREFIX, PREFIX_LENGTH) == 0;
}

/* A line with the words at `position`, and `length` bytes after them. */
static void panic_note(struct panic_watch *watch, uint64_t position, const uint8_t *text,
                       size_t length)
{
    struct console_panic *now = &watch->now;

    watch->examined = now->examined = position + MARK_LENGTH;
    if (is_end(watch, position)) {
        if (now->count == 0 || now->ended) {
            return; /* its first line was never seen, or somebody repeats it */
        }
        now->ended = 1;
    } else {
        now->count++;
        now->ended = 0;
        memset(now->text, 0, sizeof(now->text));
        length = length < sizeof(now->text) - 1 ? length : sizeof(now->text) - 1;
        memcpy(now->text, text, length);
        for (size_t i = 0; i < length; i++) {
            now->text[i] = now->text[i] ? now->text[i] : '?';
        }
        text_clean(now->text);
    }
    panic_save(watch);
    watch->news = true;
}

/* Look at one piece of the output. False: nothing more can be said before there is more. */
static bool look_at_window(struct panic_watch *watch, uint64_t written)
{
    uint8_t window[WINDOW_SIZE];
    uint64_t left = written - watch->examined;
    size_t size = left < sizeof(window) ? (size_t)left : sizeof(window);

    ring_copy(watch->memory, watch->examined, window, size);
    const uint8_t *mark = memmem(window, size, MARK, MARK_LENGTH);
    if (!mark) {
        /* The words may have begun at the end. */
        watch->examined += size < MARK_LENGTH ? 0 : size - (MARK_LENGTH - 1);
        return left > size;
    }
    if (mark > window && mark + MARK_LENGTH + CONSOLE_PANIC_TEXT > window + size) {
        watch->examined += (uint64_t)(mark - window); /* let its line begin the window */
        return true;
    }
    const uint8_t *text = mark + MARK_LENGTH;
    size_t most = (size_t)(window + size - text);
    const uint8_t *end = memchr(text, '\n', most);
    if (!end && most < CONSOLE_PANIC_TEXT) {
        return false;
    }
    size_t length = end ? (size_t)(end - text) : most;
    if (end && length && text[length - 1] == '\r') {
        length--;
    }
    panic_note(watch, watch->examined + (uint64_t)(mark - window), text, length);
    return true;
}

void panic_watch_look(struct panic_watch *watch, uint64_t written)
{
    if (written - watch->examined > CONSOLE_RING) {
        watch->examined = written - CONSOLE_RING;
    }
    bool told_before = watch->news;
    watch->news = false;
    while (look_at_window(watch, written)) {
    }
    if (watch->news || told_before) {
        panic_tell(watch);
    }
}

bool panic_watch_report(const struct panic_watch *watch, char report[PANIC_REPORT_MAX])
{
    const struct console_panic *now = &watch->now;

    if (now->count == 0) {
        return false;
    }
    snprintf(report, PANIC_REPORT_MAX, "%u %s %s", now->count, now->ended ? "ended" : "begun",
             now->text);
    return true;
}

struct panic_watch *panic_watch_create(struct event_base *base, struct console_memory *memory,
                                       uint64_t written, void (*panicked)(void *context),
                                       void *context)
{
    struct panic_watch *watch = calloc(1, sizeof(*watch));

    if (!watch) {
        return NULL;
    }
    watch->pause = event_new(base, -1, 0, pause_over, watch);
    if (!watch->pause) {
        free(watch);
        return NULL;
    }
    watch->memory = memory;
    watch->panicked = panicked;
    watch->context = context;
    watch->now = memory->panics[atomic_load(&memory->panic_selected) & 1];
    text_clean(watch->now.text);
    watch->examined = watch->now.examined <= written ? watch->now.examined : written;
    return watch;
}

void panic_watch_destroy(struct panic_watch *watch)
{
    if (watch) {
        event_free(watch->pause);
        free(watch);
    }
}
