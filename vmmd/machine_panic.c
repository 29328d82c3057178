/* What the guest's kernel says of a panic on a console (devd/panic.h), and what becomes of it. */
#include "libshared/base/clock.h"
#include "vmmd/machine_internal.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A kernel that began to tell of a panic has so long to tell the rest. */
#define PANIC_TELLS_NS (10 * NS_PER_S)

static bool panic_ends_machine(const struct machine *machine)
{
    return !strcmp(machine->config->on_panic, CONFIG_PANIC_STOP) &&
           machine->state == POLYVISOR__MACHINE_STATE__MACHINE_RUNNING;
}

/* End the machine at `when`, unless it is to end earlier. */
static void panic_end_at(struct machine *machine, uint64_t when)
{
    if (panic_ends_machine(machine) && (!machine->panic_ns || when < machine->panic_ns)) {
        machine->panic_ns = when;
        machine_wake(machine);
    }
}

/* A kernel prints the same on all its consoles. */
static bool panic_is_known(const struct machine *machine, const struct console_panics *console,
                           unsigned count, const char *text)
{
    return count <= machine->panic_count && machine->panic_console != console &&
           !strcmp(machine->panic_text, text);
}

static void panic_begun(struct machine_device *device, const struct console_panics *console,
                        unsigned count, const char *text)
{
    struct machine *machine = device->machine;

    if (panic_is_known(machine, console, count, text)) {
        return;
    }
    machine->panic_count += count - console->told;
    machine->panic_console = console;
    snprintf(machine->panic_text, sizeof(machine->panic_text), "%s", text);
    machine_event(machine, "guest-panic", device->child.role, "%s", text);
    machine_save(machine);
    panic_end_at(machine, clock_monotonic_ns() + PANIC_TELLS_NS);
}

void machine_guest_panicked(struct machine_device *device, const char *report)
{
    char *rest;
    unsigned long port = 0, count = strtoul(report, &rest, 10);

    if (*rest == '/') {
        port = count;
        count = strtoul(rest + 1, &rest, 10);
    }
    bool ended = !strncmp(rest, " ended ", 7);
    if (port > PORTS_MAX || count > UINT_MAX || (!ended && strncmp(rest, " begun ", 7))) {
        return;
    }
    struct console_panics *console = &device->panics[port];
    if (count > console->told) { /* else it is told again */
        panic_begun(device, console, (unsigned)count, rest + 7);
        console->told = (unsigned)count;
    }
    if (ended && console->ended < count) {
        console->ended = (unsigned)count;
        panic_end_at(device->machine, clock_monotonic_ns());
    }
}

void machine_panicked_reset(struct machine *machine)
{
    if (machine->panic_ns) {
        panic_end_at(machine, clock_monotonic_ns());
    }
}

bool machine_step_panicked(struct machine *machine)
{
    if (!machine->panic_ns || machine->panic_ns > clock_monotonic_ns()) {
        return false;
    }
    machine_begin_end(machine, MACHINE_GOAL_END, POLYVISOR__MACHINE_STATE__MACHINE_STOPPED,
                      PANIC_END_REASON);
    return true;
}

void machine_forget_panics(struct machine *machine)
{
    machine->panic_count = 0;
    machine->panic_text[0] = '\0';
    machine->panic_console = NULL;
    machine->panic_ns = 0;
}
