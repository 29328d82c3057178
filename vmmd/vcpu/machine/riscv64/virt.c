#include "vmmd/vcpu/machine/riscv64/virt.h"
#include "vmmd/vcpu/machine/riscv64/harts.h"
#include "vmmd/vcpu/machine/riscv64/load.h"
#include "vmmd/vcpu/machine/riscv64/messages.h"
#include "vmmd/vcpu/machine/riscv64/sbi.h"
#include "vmmd/vcpu/machine/riscv64/syscon.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void riscv64_machine_end(struct riscv64_machine *machine, enum machine_event event,
                         unsigned guest_code)
{
    const struct machine_config *config = &machine->machine.config;
    if (!atomic_exchange(&machine->ended, true) && config->event) {
        config->event(config->event_context, event, guest_code);
    }
}

/* --- what the CPUs ask of the machine ------------------------------------------------------- */

static uint64_t host_time(struct cpu *cpu)
{
    return guest_clock_ticks(&riscv64_machine_of(cpu)->clock);
}

static void host_timer_changed(struct cpu *cpu, unsigned timer, uint64_t deadline)
{
    if (timer < TIMERS_PER_HART) {
        timers_set(riscv64_machine_of(cpu)->timers, cpu->index * TIMERS_PER_HART + timer, deadline);
    }
}

static bool host_mmio_read(struct cpu *cpu, uint64_t address, unsigned size, uint64_t *value)
{
    return bus_read(riscv64_machine_of(cpu)->machine.bus, address, size, value);
}

static bool host_mmio_write(struct cpu *cpu, uint64_t address, unsigned size, uint64_t value)
{
    struct riscv64_machine *machine = riscv64_machine_of(cpu);
    bool done = bus_write(machine->machine.bus, address, size, value);
    if (atomic_load_explicit(&machine->ended, memory_order_relaxed)) {
        harts_stop(machine, cpu->index); /* a hart that powers off does not go on */
    }
    return done;
}

static const struct cpu_host host = {
    .time = host_time,
    .timer_changed = host_timer_changed,
    .firmware_call = sbi_call,
    .mmio_read = host_mmio_read,
    .mmio_write = host_mmio_write,
};

/* --- reset ROM ------------------------------------------------------------------------------ */

static bool rom_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    const struct riscv64_machine *machine = device;
    *value = 0;
    if (offset + size <= sizeof(machine->rom)) {
        memcpy(value, machine->rom + offset, size);
    }
    return true;
}

static bool rom_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device;
    (void)offset;
    (void)size;
    (void)value;
    return true; /* without effect, as on QEMU */
}

static const struct bus_ops rom_bus_ops = {.read = rom_read, .write = rom_write};

/* --- building ------------------------------------------------------------------------------- */

static int check_config(const struct machine_config *config, const struct memory *memory,
                        struct error *err)
{
    if (config->cpu_count < 1 || config->cpu_count > MACHINE_CPUS_MAX) {
        return error_set(err, ERROR_CONFIG, 0, "%u CPUs are not possible: 1 to %d",
                         config->cpu_count, MACHINE_CPUS_MAX);
    }
    if (config->memory_size < LAYOUT_RAM_MIN || config->memory_size > LAYOUT_RAM_MAX) {
        int status =
            error_set(err, ERROR_MEMORY, 0, "a memory of %" PRIu64 " bytes is not possible",
                      config->memory_size);
        error_hint(err, "a riscv64 machine takes from %llu MiB to %llu GiB", LAYOUT_RAM_MIN >> 20,
                   LAYOUT_RAM_MAX >> 30);
        return status;
    }
    if (config->memory_size % MEMORY_PAGE_SIZE != 0) {
        return error_set(err, ERROR_MEMORY, 0, "the memory size is not a multiple of %u bytes",
                         MEMORY_PAGE_SIZE);
    }
    if (!memory_pointer(memory, LAYOUT_RAM_BASE, config->memory_size)) {
        return error_set(err, ERROR_INTERNAL, 0, "guest memory is not mapped at its address");
    }
    return 0;
}

/* The line of a device: a source of the PLIC or of the APLIC, with the same number. */
static struct irq_line source_line(struct riscv64_machine *machine, unsigned source)
{
    return (struct irq_line){
        .set = machine->has_aia ? aplic_set_source : plic_set_source,
        .controller = machine->has_aia ? (void *)machine->aplic : machine->plic,
        .number = source,
    };
}

static void set_pci_windows(struct riscv64_machine *machine)
{
    struct machine_pci *pci = &machine->machine.pci;
    uint64_t ram_end = LAYOUT_RAM_BASE + machine->machine.config.memory_size;
    pci->ecam_base = LAYOUT_ECAM_BASE;
    pci->ecam_size = LAYOUT_ECAM_SIZE;
    pci->pio_base = LAYOUT_PIO_BASE;
    pci->pio_size = LAYOUT_PIO_SIZE;
    pci->mmio_base = LAYOUT_MMIO_BASE;
    pci->mmio_size = LAYOUT_MMIO_SIZE;
    pci->mmio64_base = (ram_end + LAYOUT_MMIO64_SIZE - 1) / LAYOUT_MMIO64_SIZE * LAYOUT_MMIO64_SIZE;
    pci->mmio64_size = LAYOUT_MMIO64_SIZE;
    for (unsigned i = 0; i < 4; i++) {
        pci->intx[i] = source_line(machine, LAYOUT_IRQ_PCI + i);
    }
    if (machine->has_aia) {
        pci->msi = (struct pci_msi_target){.notify = messages_notify, .controller = machine};
    }
}

static int add_cpus(struct riscv64_machine *machine, struct error *err)
{
    struct machine *generic = &machine->machine;
    const struct isa *isa = generic->config.isa ? generic->config.isa : &isa_riscv64;
    generic->engine = engine_create(isa, generic->memory, generic->config.cpu_count, err);
    if (!generic->engine) {
        return -ERROR_MEMORY;
    }
    for (unsigned i = 0; i < generic->config.cpu_count; i++) {
        struct cpu *cpu = engine_add_cpu(generic->engine, i, &host, machine);
        if (!cpu) {
            return error_set(err, ERROR_MEMORY, 0, "no memory for CPU %u", i);
        }
        machine->harts[i].cpu = (struct riscv64_cpu *)cpu;
        machine->harts[i].state = HART_STOPPED;
    }
    return 0;
}

static struct irq_line hart_line(struct riscv64_machine *machine, unsigned index,
                                 enum riscv64_interrupt interrupt)
{
    return (struct irq_line){
        .set = harts_set_line,
        .controller = machine,
        .number = harts_line(index, interrupt),
    };
}

static bool create_controllers(struct riscv64_machine *machine)
{
    unsigned count = machine->machine.config.cpu_count;
    struct irq_line comparators[MACHINE_CPUS_MAX * TIMERS_PER_HART];
    struct irq_line contexts[MACHINE_CPUS_MAX * 2]; /* machine, then supervisor, of each hart */
    struct aclint_config aclint = {
        .clock = &machine->clock,
        .first_timer = RISCV64_TIMER_MTIMECMP,
        .timer_stride = TIMERS_PER_HART,
        .harts = count,
    };
    for (unsigned i = 0; i < count; i++) {
        unsigned first = i * TIMERS_PER_HART;
        comparators[first + RISCV64_TIMER_STIMECMP] = hart_line(machine, i, RISCV64_IRQ_STIMER);
        comparators[first + RISCV64_TIMER_MTIMECMP] = hart_line(machine, i, RISCV64_IRQ_MTIMER);
        contexts[i * 2] = hart_line(machine, i, RISCV64_IRQ_MEXT);
        contexts[i * 2 + 1] = hart_line(machine, i, RISCV64_IRQ_SEXT);
        aclint.software[i] = hart_line(machine, i, RISCV64_IRQ_MSOFT);
    }
    machine->timers = timers_create(&machine->clock, count * TIMERS_PER_HART, comparators);
    if (machine->has_aia) {
        const struct aplic_output output = {.send = messages_send, .context = machine};
        machine->aplic = aplic_create(LAYOUT_IRQ_SOURCES, &output);
    } else {
        machine->plic = plic_create(LAYOUT_IRQ_SOURCES, count * 2, contexts);
    }
    if (!machine->timers || !(machine->aplic || machine->plic)) {
        return false;
    }
    aclint.timers = machine->timers;
    machine->aclint = aclint_create(&aclint);
    return machine->aclint != NULL;
}

static int add_fixed_devices(struct riscv64_machine *machine)
{
    const struct {
        uint64_t base, size;
        const char *name;
        const struct bus_ops *ops;
        void *device;
    } devices[] = {
        {LAYOUT_ROM_BASE, LAYOUT_ROM_SIZE, "rom", &rom_bus_ops, machine},
        {LAYOUT_SYSCON_BASE, LAYOUT_SYSCON_SIZE, "syscon", &syscon_bus_ops, machine},
        {LAYOUT_ACLINT_BASE, ACLINT_SIZE, "aclint", &aclint_bus_ops, machine->aclint},
        {LAYOUT_PLIC_BASE, PLIC_SIZE, "plic", &plic_bus_ops, machine->plic},
        {LAYOUT_APLIC_BASE, APLIC_SIZE, "aplic", &aplic_bus_ops, machine->aplic},
        {LAYOUT_IMSIC_BASE, LAYOUT_IMSIC_SIZE, "imsic", &messages_bus_ops,
         machine->has_aia ? machine : NULL},
    };
    machine->machine.bus = bus_create();
    if (!machine->machine.bus) {
        return -ENOMEM;
    }
    int status = 0;
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]) && status == 0; i++) {
        if (!devices[i].device) {
            continue; /* this machine has the other controller */
        }
        status = bus_add(machine->machine.bus, devices[i].base, devices[i].size, devices[i].name,
                         devices[i].ops, devices[i].device);
    }
    return status;
}

static void riscv64_destroy(struct machine *generic)
{
    struct riscv64_machine *machine = (struct riscv64_machine *)generic;
    timers_destroy(machine->timers); /* first: its thread drives lines into the CPUs */
    aclint_destroy(machine->aclint);
    aplic_destroy(machine->aplic);
    plic_destroy(machine->plic);
    if (generic->engine) {
        engine_destroy(generic->engine);
    }
    if (generic->bus) {
        bus_destroy(generic->bus);
    }
    pthread_mutex_destroy(&machine->hart_lock);
    free(machine->append);
    free(machine);
}

static struct machine *riscv64_create(const struct machine_config *config, struct memory *memory,
                                      struct error *err)
{
    bool has_aia;
    if (check_config(config, memory, err) != 0 || messages_wanted(config, &has_aia, err) != 0) {
        return NULL;
    }
    struct riscv64_machine *machine = calloc(1, sizeof(*machine));
    if (!machine) {
        error_set(err, ERROR_MEMORY, 0, "no memory for the machine");
        return NULL;
    }
    machine->machine.model = &machine_model_riscv64;
    machine->machine.config = *config;
    machine->machine.memory = memory;
    machine->has_aia = has_aia;
    if (pthread_mutex_init(&machine->hart_lock, NULL) != 0) {
        error_set(err, ERROR_MEMORY, 0, "no memory for the machine");
        free(machine);
        return NULL;
    }
    if (config->clock) {
        machine->clock = *config->clock;
    }
    machine->append = strdup(config->append ? config->append : "");
    machine->machine.config.append = machine->append;
    if (machine->append && add_cpus(machine, err) == 0) {
        if (create_controllers(machine) && add_fixed_devices(machine) == 0) {
            guest_clock_set(&machine->clock, 0);
            set_pci_windows(machine);
            return &machine->machine;
        }
        error_set(err, ERROR_MEMORY, 0, "no memory for the machine's interrupt controllers");
    }
    riscv64_destroy(&machine->machine);
    return NULL;
}

static int riscv64_attach_mmio_device(struct machine *generic, const char *kind,
                                      const struct bus_ops *ops, void *device, struct irq_line *irq)
{
    struct riscv64_machine *machine = (struct riscv64_machine *)generic;
    const struct {
        const char *kind;
        uint64_t base, size;
        unsigned source;
        bool *present;
    } slots[] = {
        {"serial", LAYOUT_SERIAL_BASE, LAYOUT_SERIAL_SIZE, LAYOUT_IRQ_SERIAL, &machine->has_serial},
        {"rtc", LAYOUT_RTC_BASE, LAYOUT_RTC_SIZE, LAYOUT_IRQ_RTC, &machine->has_rtc},
        {"watchdog", LAYOUT_WATCHDOG_BASE, LAYOUT_WATCHDOG_SIZE, LAYOUT_IRQ_WATCHDOG,
         &machine->has_watchdog},
    };
    for (size_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
        if (strcmp(slots[i].kind, kind) != 0) {
            continue;
        }
        int status =
            bus_add(generic->bus, slots[i].base, slots[i].size, slots[i].kind, ops, device);
        if (status == 0) {
            *slots[i].present = true;
            *irq = source_line(machine, slots[i].source);
        }
        return status;
    }
    return -ENOENT;
}

static void riscv64_count(struct machine *generic, struct machine_counts *counts)
{
    struct riscv64_machine *machine = (struct riscv64_machine *)generic;
    for (unsigned i = 0; i < generic->config.cpu_count; i++) {
        counts->messages += atomic_load(&machine->harts[i].cpu->imsic.messages);
    }
}

const struct machine_model machine_model_riscv64 = {
    .arch = "riscv64",
    .ram_base = LAYOUT_RAM_BASE,
    .create = riscv64_create,
    .attach_mmio_device = riscv64_attach_mmio_device,
    .load = riscv64_load,
    .run_cpu = riscv64_run_cpu,
    .count = riscv64_count,
    .destroy = riscv64_destroy,
};
