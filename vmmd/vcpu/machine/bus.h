/*
 * The physical address space outside RAM: regions of registers, and interrupt lines.
 *
 * Regions are added while the machine is built, before any CPU runs (PCI BARs move later, under the
 * bus's own lock). Access functions run on the CPU thread that made the access and may be entered
 * by several CPUs at once: each device locks for itself.
 */
#ifndef POLYVISOR_VCPU_MACHINE_BUS_H
#define POLYVISOR_VCPU_MACHINE_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct bus;

struct bus_ops {
    /* offset within the region; size 1, 2, 4 or 8, the whole access inside the region. False:
     * the device refuses (access fault in the guest). */
    bool (*read)(void *device, uint64_t offset, unsigned size, uint64_t *value);
    bool (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
};

struct bus *bus_create(void);
void bus_destroy(struct bus *bus);
/* 0, -EEXIST on overlap, -EINVAL for an impossible range, -ENOMEM. `name` and `ops` must outlive
 * the bus; `device` stays the caller's. */
int bus_add(struct bus *bus, uint64_t base, uint64_t size, const char *name,
            const struct bus_ops *ops, void *device);
/* Who answers where no region of bus_add is (the empty parts of a PCI window read as all ones, they
 * do not fault). Only while the machine is built; such regions never move. 0, -EINVAL or
 * -ENOMEM. */
int bus_add_background(struct bus *bus, uint64_t base, uint64_t size, const char *name,
                       const struct bus_ops *ops, void *device);
/* Remove what was added for `device` at `base`. No access begins there any more; one that has begun
 * goes on, and nobody waits for it here. 0 or -ENOENT. */
int bus_remove(struct bus *bus, uint64_t base, void *device);
/* Wait until no CPU is inside access functions of regions that were removed for `device`: after
 * that it may be freed. Not from an access function, and with no lock that one may want. */
void bus_drain(struct bus *bus, const void *device);
bool bus_read(struct bus *bus, uint64_t address, unsigned size, uint64_t *value);
bool bus_write(struct bus *bus, uint64_t address, unsigned size, uint64_t value);

/* A level-triggered interrupt line into an interrupt controller. Any thread. */
struct irq_line {
    void (*set)(void *controller, unsigned number, bool level);
    void *controller;
    unsigned number;
};
static inline void irq_line_set(const struct irq_line *line, bool level)
{
    if (line->set) {
        line->set(line->controller, line->number, level);
    }
}

#endif
