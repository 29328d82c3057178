/*
 * A look at what a console prints: the guest's kernel says there that it panicked, and stock
 * kernels have no other way to tell.
 *
 * It is a report, not a verdict: whoever may write to the console can print the same line. What was
 * found is in the console's memory, changed by one store, so a process that dies reports no line
 * twice and misses none that its successor finds in the ring. Main thread only.
 */
#ifndef POLYVISOR_DEVD_PANIC_H
#define POLYVISOR_DEVD_PANIC_H

#include "libshared/ipc/console.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PANIC_REPORT_MAX (CONSOLE_PANIC_TEXT + 32u)

struct panic_watch;

/* Look at the output in `memory`, of which `written` bytes are there. `panicked` is called from the
 * event loop when there is news, at most a few times a second. NULL: no memory. */
struct panic_watch *panic_watch_create(struct event_base *base, struct console_memory *memory,
                                       uint64_t written, void (*panicked)(void *context),
                                       void *context);
void panic_watch_destroy(struct panic_watch *watch);

/* There is output up to `written`, none of which will be taken back. */
void panic_watch_look(struct panic_watch *watch, uint64_t written);

/* What is known of the last panic: "COUNT begun|ended TEXT", where COUNT is how many there ever
 * were and "ended" says that the kernel has told all and stands still. False: there was none. */
bool panic_watch_report(const struct panic_watch *watch, char report[PANIC_REPORT_MAX]);

#endif
