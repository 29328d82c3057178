#include "devd/console_internal.h"
#include "devd/order.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- Whose it is ---- */

/* Go on from what an earlier process left, whatever it left. */
static void memory_take_over(struct console *console)
{
    struct console_memory *memory = console->memory;

    console->now = memory->progress[atomic_load(&memory->selected) & 1];
    if (console->now.since_mark > console->now.written) {
        console->now.since_mark = 0;
    }
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct console_seat *seat = &memory->seats[i];
        console->awaited[i] = seat->id != 0;
        if (console->now.written - seat->cursor > CONSOLE_RING) {
            seat->cursor = console->now.written;
        }
    }
    if (console->now.written - memory->unread > CONSOLE_RING) {
        memory->unread = console->now.written;
    }
    if (memory->intent_seat > NO_SEAT) {
        memory->intent_seat = NO_SEAT;
    }
    if (memory->intent_total < memory->input_total) {
        memory->intent_total = memory->input_total;
    }
}

int console_memory_map(struct console *console, int fd)
{
    struct stat info;

    if (fd < 0 || fstat(fd, &info) < 0 || info.st_size < (off_t)CONSOLE_MEMORY_SIZE) {
        return -EPROTO;
    }
    void *map = mmap(NULL, CONSOLE_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return -errno;
    }
    console->memory = map;
    if (console->memory->magic != CONSOLE_MEMORY_MAGIC ||
        console->memory->version != CONSOLE_MEMORY_VERSION) {
        return -EPROTO;
    }
    memory_take_over(console);
    return 0;
}

void console_memory_unmap(struct console *console)
{
    if (console->memory) {
        munmap(console->memory, CONSOLE_MEMORY_SIZE);
    }
}

/* ---- Output ---- */

static void progress_save(struct console *console)
{
    struct console_memory *memory = console->memory;
    uint32_t other = !(atomic_load_explicit(&memory->selected, memory_order_relaxed) & 1);

    memory->progress[other] = console->now;
    order_stores();
    atomic_store_explicit(&memory->selected, other, memory_order_release);
    order_stores();
}

void console_memory_append(struct console *console, const uint8_t *bytes, size_t count, bool marked)
{
    for (size_t done = 0; done < count;) {
        size_t at = (console->now.written + done) % CONSOLE_RING;
        size_t part = CONSOLE_RING - at;
        part = part < count - done ? part : count - done;
        memcpy(console->memory->ring + at, bytes + done, part);
        done += part;
    }
    console->now.written += count;
    console->now.since_mark += marked ? count : 0;
    progress_save(console);
}

void console_mark(struct console *console)
{
    order_stores();
    if (console->now.since_mark) {
        console->now.since_mark = 0;
        progress_save(console);
    }
}

uint64_t console_since_mark(const struct console *console)
{
    return console->now.since_mark;
}

uint64_t console_position(const struct console *console)
{
    return console->now.written;
}

void console_rewind(struct console *console, uint64_t position)
{
    uint64_t back = console->now.written - position;

    if (back == 0 || back > CONSOLE_HEADROOM) {
        return;
    }
    console->now.written = position;
    console->now.since_mark -= back < console->now.since_mark ? back : console->now.since_mark;
    progress_save(console);
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        if (console->awaited[i] && console->memory->seats[i].cursor > position) {
            console->memory->seats[i].cursor =
                position; /* of a damaged memory: nobody was sent it */
        }
    }
}

/* ---- Input ---- */

uint64_t console_input_position(const struct console *console)
{
    return console->memory->input_total;
}

uint64_t console_input_doubtful(const struct console *console)
{
    return console->memory->intent_total - console->memory->input_total;
}

void console_input_settle(struct console *console, uint64_t position)
{
    struct console_memory *memory = console->memory;

    if (memory->intent_total == memory->input_total) {
        return;
    }
    if (position != memory->intent_total) {
        memory->intent_total = memory->input_total; /* never happened: the client sends it again */
        return;
    }
    if (memory->intent_seat < CONSOLE_CLIENTS_MAX) {
        memory->seats[memory->intent_seat].taken = memory->intent_taken;
    }
    order_stores();
    memory->input_total = memory->intent_total;
    order_stores();
}

void console_input_intend(struct console *console, unsigned seat, size_t count)
{
    struct console_memory *memory = console->memory;

    console_input_settle(console, memory->intent_total);
    memory->intent_seat = seat;
    memory->intent_taken = seat == NO_SEAT ? 0 : memory->seats[seat].taken + count;
    order_stores();
    memory->intent_total = memory->input_total + count;
    order_stores();
}

/* ---- Seats ---- */

uint64_t console_seat_lag(const struct console *console, unsigned seat)
{
    return console->now.written - console->memory->seats[seat].cursor;
}
