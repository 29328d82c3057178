/*
 * A machine model: CPUs, interrupt controllers, memory map, boot. One implementation a guest ISA
 * (machine/<isa>/), chosen by name. Built by vcpud's main thread from the configuration that vmmd
 * sent; CPU threads are started after machine_load.
 */
#ifndef POLYVISOR_VCPU_MACHINE_MACHINE_H
#define POLYVISOR_VCPU_MACHINE_MACHINE_H

#include "libshared/base/error.h"
#include "libshared/mem/memory.h"
#include "vmmd/vcpu/engine/engine.h"
#include "vmmd/vcpu/machine/bus.h"

#define MACHINE_CPUS_MAX 8

struct guest_clock;

/* Interrupt controllers of machines that can have several kinds. AUTO is for the machine to decide,
 * by what the kernel knows. */
enum machine_irqchip { MACHINE_IRQCHIP_AUTO, MACHINE_IRQCHIP_PLIC, MACHINE_IRQCHIP_AIA };

/* Where a message-signalled interrupt goes: a write of `data` to `address` by a device. Any thread.
 */
struct pci_msi_target {
    void (*notify)(void *controller, uint64_t address, uint32_t data);
    void *controller;
};

/* Why the guest ended or wants something of the supervisor. */
enum machine_event {
    MACHINE_POWER_OFF,
    MACHINE_RESET,
    MACHINE_FAILURE /* guest reported failure */
};

/* Boot images are descriptors that vmmd opened and checked for readability; contents are hostile.
 * -1 = none. */
struct machine_config {
    unsigned cpu_count;
    uint64_t memory_size;
    int kernel_fd, initrd_fd, firmware_fd;
    const char *append; /* kernel command line, "" when none */
    enum machine_irqchip irqchip;
    /* Called from any thread, once a power-off or reset is asked for. */
    void (*event)(void *context, enum machine_event event, unsigned guest_code);
    void *event_context;
    /* For tests, which drive time themselves or look over the engine's shoulder; both may be NULL.
     */
    const struct guest_clock *clock; /* its source is taken over (irqchip/guest_clock.h) */
    const struct isa *isa;           /* instead of the architecture's own; outlives the machine */
};

struct machine;
struct machine_counts;

/* Per-ISA operations; `machine` implementations embed `struct machine` first. */
struct machine_model {
    const char *arch; /* "riscv64" */
    uint64_t ram_base;
    /* Build CPUs and fixed devices. NULL with *err on failure. */
    struct machine *(*create)(const struct machine_config *config, struct memory *memory,
                              struct error *err);
    /* Attach the plain serial port / RTC register windows that vcpud forwards to a device process.
     */
    int (*attach_mmio_device)(struct machine *machine, const char *kind /* "serial", "rtc" */,
                              const struct bus_ops *ops, void *device, struct irq_line *irq);
    /* Load images into RAM, build the device tree, set the CPUs' boot state. Also used for reset.
     */
    int (*load)(struct machine *machine, struct error *err);
    /* CPU thread body's inner call: runs `index` until stop or pause, waiting while the guest has
     * the hart stopped. */
    enum engine_exit (*run_cpu)(struct machine *machine, unsigned index);
    /* Any thread. */
    void (*count)(struct machine *machine, struct machine_counts *counts);
    void (*destroy)(struct machine *machine);
};

struct machine {
    const struct machine_model *model;
    struct machine_config config;
    struct memory *memory;
    struct engine *engine;
    struct bus *bus;
    /* PCI host bridge windows and INTx lines (A to D after swizzling), for pci/. */
    struct machine_pci {
        uint64_t ecam_base, ecam_size, mmio_base, mmio_size, mmio64_base, mmio64_size, pio_base,
            pio_size;
        struct irq_line intx[4];
        struct pci_msi_target msi; /* notify NULL: this machine takes no messages */
    } pci;
};

/* What a machine has counted, for statistics. */
struct machine_counts {
    uint64_t messages; /* message-signalled interrupts that arrived, those of CPUs included */
};

/* "auto" (or ""), "plic", "aia". False: no such kind. */
bool machine_irqchip_find(const char *name, enum machine_irqchip *irqchip);

/* The model for an architecture name, or NULL. */
const struct machine_model *machine_model_find(const char *arch);

#endif
