#include "vmmd/vcpu/machine/riscv64/fdt.h"
#include "libshared/isa/riscv64/riscv64.h"
#include "vmmd/vcpu/irqchip/aclint.h"
#include "vmmd/vcpu/irqchip/aplic.h"
#include "vmmd/vcpu/irqchip/plic.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include "vmmd/vcpu/machine/riscv64/messages.h"
#include <errno.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* References between nodes. */
enum {
    PHANDLE_WIRED = 1, /* the controller that devices' lines lead to: PLIC or APLIC */
    PHANDLE_SYSCON = 2,
    PHANDLE_IMSIC = 3,
    PHANDLE_CPU = 0x10,
    PHANDLE_INTC = 0x20,
};

/* The second cell of an interrupt at the APLIC; the PLIC has one cell only. */
#define LEVEL_HIGH 4u

#define PCI_PINS           4
#define PCI_SLOTS_MAPPED   4 /* the swizzle repeats after four slots */
#define PCI_MAP_CELLS_MAX  7 /* unit address (3), pin, controller, source, kind at an APLIC */
#define PCI_SPACE_IO       0x01000000u
#define PCI_SPACE_MEMORY   0x02000000u
#define PCI_SPACE_MEMORY64 0x03000000u

/* The tree under construction: the first error sticks, and later calls do nothing. */
struct tree {
    void *buffer;
    int status;
};

static void begin(struct tree *tree, const char *name)
{
    if (tree->status == 0) {
        tree->status = fdt_begin_node(tree->buffer, name);
    }
}

static void begin_at(struct tree *tree, const char *name, uint64_t address)
{
    char full[48];
    snprintf(full, sizeof(full), "%s@%jx", name, (uintmax_t)address);
    begin(tree, full);
}

static void end(struct tree *tree)
{
    if (tree->status == 0) {
        tree->status = fdt_end_node(tree->buffer);
    }
}

static void bytes(struct tree *tree, const char *name, const void *value, size_t size)
{
    if (tree->status == 0) {
        tree->status = size > INT32_MAX ? -FDT_ERR_NOSPACE
                                        : fdt_property(tree->buffer, name, value, (int)size);
    }
}

static void flag(struct tree *tree, const char *name)
{
    bytes(tree, name, NULL, 0);
}

static void string(struct tree *tree, const char *name, const char *value)
{
    bytes(tree, name, value, strlen(value) + 1);
}

/* A list of strings, given as one literal with '\0' between them. */
#define STRINGS(tree, name, literal) bytes(tree, name, literal, sizeof(literal))

static void cells(struct tree *tree, const char *name, const uint32_t *values, size_t count)
{
    fdt32_t encoded[128];
    if (count > sizeof(encoded) / sizeof(encoded[0])) {
        tree->status = -FDT_ERR_INTERNAL;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        encoded[i] = cpu_to_fdt32(values[i]);
    }
    bytes(tree, name, encoded, count * sizeof(encoded[0]));
}

#define CELLS(tree, name, ...)                                                                     \
    cells(tree, name, (const uint32_t[]){__VA_ARGS__},                                             \
          sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

#define HIGH(value) (uint32_t)((uint64_t)(value) >> 32)
#define LOW(value)  (uint32_t)(value)

static void number64(struct tree *tree, const char *name, uint64_t value)
{
    CELLS(tree, name, HIGH(value), LOW(value));
}

static void reg(struct tree *tree, uint64_t base, uint64_t size)
{
    CELLS(tree, "reg", HIGH(base), LOW(base), HIGH(size), LOW(size));
}

static void address_cells(struct tree *tree, uint32_t address, uint32_t size)
{
    CELLS(tree, "#address-cells", address);
    CELLS(tree, "#size-cells", size);
}

static int chosen(struct tree *tree, const struct riscv64_fdt *fdt, struct error *err)
{
    struct {
        uint8_t rng[32];
        uint8_t kaslr[8];
    } seed;
    ssize_t got = getrandom(&seed, sizeof(seed), 0);
    if (got != (ssize_t)sizeof(seed)) {
        return error_set(err, ERROR_IO, errno, "the host gives no random numbers");
    }
    begin(tree, "chosen");
    string(tree, "bootargs", fdt->append);
    if (fdt->has_serial) {
        string(tree, "stdout-path", "/soc/serial@10000000");
    }
    if (fdt->initrd_end > fdt->initrd_start) {
        number64(tree, "linux,initrd-start", fdt->initrd_start);
        number64(tree, "linux,initrd-end", fdt->initrd_end);
    }
    if (fdt->kernel_end > fdt->kernel_start) {
        number64(tree, "riscv,kernel-start", fdt->kernel_start);
        number64(tree, "riscv,kernel-end", fdt->kernel_end);
    }
    bytes(tree, "rng-seed", seed.rng, sizeof(seed.rng));
    bytes(tree, "kaslr-seed", seed.kaslr, sizeof(seed.kaslr));
    end(tree);
    explicit_bzero(&seed, sizeof(seed));
    return 0;
}

static void isa_extensions(struct tree *tree, bool has_aia)
{
    char list[1024];
    size_t used = 0;
    for (const char *const *name = riscv64_isa_extensions(has_aia); *name; name++) {
        size_t length = strlen(*name) + 1;
        if (length > sizeof(list) - used) {
            tree->status = -FDT_ERR_INTERNAL;
            return;
        }
        memcpy(list + used, *name, length);
        used += length;
    }
    bytes(tree, "riscv,isa-extensions", list, used);
}

static void cpu(struct tree *tree, unsigned index, bool has_aia)
{
    begin_at(tree, "cpu", index);
    CELLS(tree, "phandle", PHANDLE_CPU + index);
    string(tree, "device_type", "cpu");
    CELLS(tree, "reg", index);
    string(tree, "status", "okay");
    string(tree, "compatible", "riscv");
    string(tree, "riscv,isa", riscv64_isa_string(has_aia));
    string(tree, "riscv,isa-base", "rv64i");
    isa_extensions(tree, has_aia);
    CELLS(tree, "riscv,cbom-block-size", RISCV64_CACHE_BLOCK);
    CELLS(tree, "riscv,cboz-block-size", RISCV64_CACHE_BLOCK);
    string(tree, "mmu-type", "riscv,sv57");
    begin(tree, "interrupt-controller");
    string(tree, "compatible", "riscv,cpu-intc");
    flag(tree, "interrupt-controller");
    CELLS(tree, "#address-cells", 0);
    CELLS(tree, "#interrupt-cells", 1);
    CELLS(tree, "phandle", PHANDLE_INTC + index);
    end(tree);
    end(tree);
}

static void cpus(struct tree *tree, const struct riscv64_fdt *fdt)
{
    begin(tree, "cpus");
    address_cells(tree, 1, 0);
    CELLS(tree, "timebase-frequency", GUEST_CLOCK_HZ);
    for (unsigned i = 0; i < fdt->cpu_count; i++) {
        cpu(tree, i, fdt->has_aia);
    }
    begin(tree, "cpu-map");
    begin(tree, "cluster0");
    for (unsigned i = 0; i < fdt->cpu_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "core%u", i);
        begin(tree, name);
        CELLS(tree, "cpu", PHANDLE_CPU + i);
        end(tree);
    }
    end(tree);
    end(tree);
    end(tree);
}

/* "interrupts-extended" of a controller with two lines into each hart. */
static void hart_lines(struct tree *tree, const struct riscv64_fdt *fdt, uint32_t first,
                       uint32_t second)
{
    uint32_t list[MACHINE_CPUS_MAX * 4];
    for (unsigned i = 0; i < fdt->cpu_count; i++) {
        list[i * 4 + 0] = list[i * 4 + 2] = PHANDLE_INTC + i;
        list[i * 4 + 1] = first;
        list[i * 4 + 3] = second;
    }
    cells(tree, "interrupts-extended", list, fdt->cpu_count * 4);
}

static void plic(struct tree *tree, const struct riscv64_fdt *fdt)
{
    begin_at(tree, "plic", LAYOUT_PLIC_BASE);
    CELLS(tree, "phandle", PHANDLE_WIRED);
    STRINGS(tree, "compatible", "sifive,plic-1.0.0\0riscv,plic0");
    reg(tree, LAYOUT_PLIC_BASE, PLIC_SIZE);
    CELLS(tree, "#address-cells", 0);
    CELLS(tree, "#interrupt-cells", 1);
    flag(tree, "interrupt-controller");
    CELLS(tree, "riscv,ndev", LAYOUT_IRQ_SOURCES);
    hart_lines(tree, fdt, RISCV64_IRQ_MEXT, RISCV64_IRQ_SEXT);
    end(tree);
}

/* Supervisor level only: without firmware of its own the guest has no other. */
static void imsics(struct tree *tree, const struct riscv64_fdt *fdt)
{
    uint32_t list[MACHINE_CPUS_MAX * 2];
    begin_at(tree, "imsics", LAYOUT_IMSIC_BASE);
    CELLS(tree, "phandle", PHANDLE_IMSIC);
    string(tree, "compatible", "riscv,imsics");
    reg(tree, LAYOUT_IMSIC_BASE, fdt->cpu_count * IMSIC_PAGE_SIZE);
    CELLS(tree, "#interrupt-cells", 0);
    CELLS(tree, "#msi-cells", 0);
    flag(tree, "interrupt-controller");
    flag(tree, "msi-controller");
    CELLS(tree, "riscv,num-ids", RISCV64_IMSIC_IDENTITIES);
    for (unsigned i = 0; i < fdt->cpu_count; i++) {
        list[i * 2] = PHANDLE_INTC + i;
        list[i * 2 + 1] = RISCV64_IRQ_SEXT;
    }
    cells(tree, "interrupts-extended", list, fdt->cpu_count * 2);
    end(tree);
}

static void aplic(struct tree *tree)
{
    begin_at(tree, "aplic", LAYOUT_APLIC_BASE);
    CELLS(tree, "phandle", PHANDLE_WIRED);
    string(tree, "compatible", "riscv,aplic");
    reg(tree, LAYOUT_APLIC_BASE, APLIC_SIZE);
    CELLS(tree, "#address-cells", 0);
    CELLS(tree, "#interrupt-cells", 2);
    flag(tree, "interrupt-controller");
    CELLS(tree, "riscv,num-sources", LAYOUT_IRQ_SOURCES);
    CELLS(tree, "msi-parent", PHANDLE_IMSIC);
    end(tree);
}

static void interrupt_controllers(struct tree *tree, const struct riscv64_fdt *fdt)
{
    begin_at(tree, "clint", LAYOUT_ACLINT_BASE);
    STRINGS(tree, "compatible", "sifive,clint0\0riscv,clint0");
    reg(tree, LAYOUT_ACLINT_BASE, ACLINT_SIZE);
    hart_lines(tree, fdt, RISCV64_IRQ_MSOFT, RISCV64_IRQ_MTIMER);
    end(tree);
    if (fdt->has_aia) {
        imsics(tree, fdt);
        aplic(tree);
    } else {
        plic(tree, fdt);
    }
}

static void interrupt(struct tree *tree, const struct riscv64_fdt *fdt, uint32_t source)
{
    if (fdt->has_aia) {
        CELLS(tree, "interrupts", source, LEVEL_HIGH);
    } else {
        CELLS(tree, "interrupts", source);
    }
    CELLS(tree, "interrupt-parent", PHANDLE_WIRED);
}

static void plain_devices(struct tree *tree, const struct riscv64_fdt *fdt)
{
    begin_at(tree, "test", LAYOUT_SYSCON_BASE);
    CELLS(tree, "phandle", PHANDLE_SYSCON);
    STRINGS(tree, "compatible", "sifive,test1\0sifive,test0\0syscon");
    reg(tree, LAYOUT_SYSCON_BASE, LAYOUT_SYSCON_SIZE);
    end(tree);
    if (fdt->has_serial) {
        begin_at(tree, "serial", LAYOUT_SERIAL_BASE);
        string(tree, "compatible", "ns16550a");
        reg(tree, LAYOUT_SERIAL_BASE, LAYOUT_SERIAL_SIZE);
        CELLS(tree, "clock-frequency", LAYOUT_SERIAL_CLOCK_HZ);
        interrupt(tree, fdt, LAYOUT_IRQ_SERIAL);
        end(tree);
    }
    if (fdt->has_rtc) {
        begin_at(tree, "rtc", LAYOUT_RTC_BASE);
        string(tree, "compatible", "google,goldfish-rtc");
        reg(tree, LAYOUT_RTC_BASE, LAYOUT_RTC_SIZE);
        interrupt(tree, fdt, LAYOUT_IRQ_RTC);
        end(tree);
    }
    if (fdt->has_watchdog) {
        begin_at(tree, "watchdog", LAYOUT_WATCHDOG_BASE);
        string(tree, "compatible", "allwinner,sun6i-a31-wdt");
        reg(tree, LAYOUT_WATCHDOG_BASE, LAYOUT_WATCHDOG_SIZE);
        end(tree);
    }
}

/* Pin p (from 0) of slot s arrives at line (s + p) mod 4, as PCI bridges swizzle. */
static void pci_interrupt_map(struct tree *tree, bool has_aia)
{
    uint32_t map[PCI_SLOTS_MAPPED * PCI_PINS * PCI_MAP_CELLS_MAX];
    uint32_t *entry = map;
    for (unsigned slot = 0; slot < PCI_SLOTS_MAPPED; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            *entry++ = slot << 11;
            *entry++ = 0;
            *entry++ = 0;
            *entry++ = pin + 1;
            *entry++ = PHANDLE_WIRED;
            *entry++ = LAYOUT_IRQ_PCI + (slot + pin) % PCI_PINS;
            if (has_aia) {
                *entry++ = LEVEL_HIGH;
            }
        }
    }
    cells(tree, "interrupt-map", map, (size_t)(entry - map));
    CELLS(tree, "interrupt-map-mask", (PCI_SLOTS_MAPPED - 1) << 11, 0, 0, 7);
}

static void pci_host(struct tree *tree, const struct riscv64_fdt *fdt)
{
    const struct machine_pci *pci = fdt->pci;
    begin_at(tree, "pci", pci->ecam_base);
    string(tree, "compatible", "pci-host-ecam-generic");
    string(tree, "device_type", "pci");
    reg(tree, pci->ecam_base, pci->ecam_size);
    address_cells(tree, 3, 2);
    CELLS(tree, "#interrupt-cells", 1);
    CELLS(tree, "linux,pci-domain", 0);
    CELLS(tree, "bus-range", 0, (uint32_t)(pci->ecam_size >> 20) - 1);
    flag(tree, "dma-coherent");
    CELLS(tree, "ranges",                                                    /* */
          PCI_SPACE_IO, 0, 0, HIGH(pci->pio_base), LOW(pci->pio_base),       /* */
          HIGH(pci->pio_size), LOW(pci->pio_size),                           /* */
          PCI_SPACE_MEMORY, HIGH(pci->mmio_base), LOW(pci->mmio_base),       /* */
          HIGH(pci->mmio_base), LOW(pci->mmio_base),                         /* */
          HIGH(pci->mmio_size), LOW(pci->mmio_size),                         /* */
          PCI_SPACE_MEMORY64, HIGH(pci->mmio64_base), LOW(pci->mmio64_base), /* */
          HIGH(pci->mmio64_base), LOW(pci->mmio64_base),                     /* */
          HIGH(pci->mmio64_size), LOW(pci->mmio64_size));
    pci_interrupt_map(tree, fdt->has_aia);
    if (fdt->has_aia) {
        CELLS(tree, "msi-parent", PHANDLE_IMSIC);
    }
    end(tree);
}

static void power_control(struct tree *tree, const char *name, const char *compatible,
                          uint32_t value)
{
    begin(tree, name);
    string(tree, "compatible", compatible);
    CELLS(tree, "regmap", PHANDLE_SYSCON);
    CELLS(tree, "offset", 0);
    CELLS(tree, "value", value);
    end(tree);
}

static void memory_node(struct tree *tree, const struct riscv64_fdt *fdt)
{
    begin_at(tree, "memory", fdt->memory_base);
    string(tree, "device_type", "memory");
    reg(tree, fdt->memory_base, fdt->memory_size);
    end(tree);
}

static void root(struct tree *tree, const struct riscv64_fdt *fdt)
{
    address_cells(tree, 2, 2);
    string(tree, "compatible", "riscv-virtio");
    string(tree, "model", "polyvisor,riscv64");
    if (fdt->has_serial) {
        begin(tree, "aliases");
        string(tree, "serial0", "/soc/serial@10000000");
        end(tree);
    }
    memory_node(tree, fdt);
    cpus(tree, fdt);
    begin(tree, "soc");
    address_cells(tree, 2, 2);
    string(tree, "compatible", "simple-bus");
    flag(tree, "ranges");
    interrupt_controllers(tree, fdt);
    plain_devices(tree, fdt);
    if (fdt->pci) {
        pci_host(tree, fdt);
    }
    end(tree);
    power_control(tree, "poweroff", "syscon-poweroff", 0x5555);
    power_control(tree, "reboot", "syscon-reboot", 0x7777);
}

int riscv64_fdt_build(const struct riscv64_fdt *fdt, void *buffer, struct error *err)
{
    struct tree tree = {.buffer = buffer};
    tree.status = fdt_create(buffer, RISCV64_FDT_CAPACITY);
    if (tree.status == 0) {
        tree.status = fdt_finish_reservemap(buffer);
    }
    begin(&tree, "");
    root(&tree, fdt);
    int status = chosen(&tree, fdt, err);
    if (status != 0) {
        return status;
    }
    end(&tree);
    if (tree.status == 0) {
        tree.status = fdt_finish(buffer);
    }
    if (tree.status == -FDT_ERR_NOSPACE) {
        status = error_set(err, ERROR_CONFIG, 0, "the kernel command line is too long (%zu bytes)",
                           strlen(fdt->append));
        error_hint(err, "Linux uses no more than 1024 bytes of it");
        return status;
    }
    if (tree.status != 0) {
        return error_set(err, ERROR_INTERNAL, 0, "building the device tree failed: %s",
                         fdt_strerror(tree.status));
    }
    return (int)fdt_totalsize(buffer);
}
