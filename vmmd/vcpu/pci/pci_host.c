/* The host bridge: PCI Express Base Specification, 7.2.2 (ECAM), and INTx emulation by swizzling.
 */
#include "vmmd/vcpu/pci/pci_host.h"
#include "libshared/base/log.h"
#include <errno.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ECAM_BUS_SIZE      (1u << 20)
#define ECAM_FUNCTION_SIZE 4096u
#define FUNCTIONS_A_SLOT   8u

/* The identity that kernels know for a generic ECAM bridge. */
static const struct pci_identity BRIDGE_IDENTITY = {
    .vendor = 0x1b36,
    .device = 0x0008,
    .class_code = 0x060000,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
};

struct pci_host {
    struct bus *bus;
    const struct machine_pci *windows;
    pthread_mutex_t lock;         /* slots, their configuration spaces and BAR mappings */
    pthread_cond_t nobody_inside; /* the last CPU left a function's window */
    struct pci_function *slots[PCI_SLOT_COUNT];
    struct pci_function bridge;
    pthread_mutex_t interrupt_lock; /* leaf: pins and lines */
    uint32_t asserting[4];          /* bit a slot, for each line */
};

/* --- BARs on the bus ------------------------------------------------------------------------- */

static bool inside(uint64_t base, uint64_t size, uint64_t window_base, uint64_t window_size)
{
    uint64_t offset = base - window_base;
    return offset < window_size && size <= window_size - offset;
}

/* Where the BAR shall be on the bus, or UINT64_MAX for nowhere. */
static uint64_t bar_wanted_base(const struct pci_host *host, const struct pci_function *function,
                                unsigned index)
{
    uint64_t base = pci_function_bar_address(function, index);
    uint64_t size = function->bars[index].size;
    const struct machine_pci *windows = host->windows;
    if (function->left) {
        return UINT64_MAX; /* the place may be another's by now */
    }
    if (base != UINT64_MAX && (inside(base, size, windows->mmio_base, windows->mmio_size) ||
                               inside(base, size, windows->mmio64_base, windows->mmio64_size))) {
        return base;
    }
    return UINT64_MAX;
}

static void bar_unmap(struct pci_host *host, struct pci_function *function, struct pci_bar *bar)
{
    if (bar->mapped) {
        bus_remove(host->bus, bar->mapped_base, function->device);
        bar->mapped = false;
    }
}

static void bar_map(struct pci_host *host, struct pci_function *function, struct pci_bar *bar,
                    uint64_t base)
{
    int result = bus_add(host->bus, base, bar->size, bar->name, bar->ops, function->device);
    bar->mapped = result == 0;
    bar->mapped_base = base;
    if (result != 0) {
        log_debug("pci: %s not mapped at 0x%llx: %s", bar->name, (unsigned long long)base,
                  strerror(-result));
    }
}

/* Bring the bus in line with all BARs: first take away what moved, then add, so that a swap works
 * and a BAR that was in another's way appears once the place is free. */
static void update_mappings(struct pci_host *host)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < PCI_SLOT_COUNT * PCI_BAR_COUNT; i++) {
            struct pci_function *function = host->slots[i / PCI_BAR_COUNT];
            unsigned index = i % PCI_BAR_COUNT;
            if (!function || function->bars[index].size == 0) {
                continue;
            }
            struct pci_bar *bar = &function->bars[index];
            uint64_t wanted = bar_wanted_base(host, function, index);
            if (pass == 0 && bar->mapped && bar->mapped_base != wanted) {
                bar_unmap(host, function, bar);
            } else if (pass == 1 && !bar->mapped && wanted != UINT64_MAX) {
                bar_map(host, function, bar, wanted);
            }
        }
    }
}

/* --- interrupts ------------------------------------------------------------------------------ */

/* Under the interrupt lock: the level that the function puts on its line now. */
static void line_update(struct pci_host *host, struct pci_function *function)
{
    unsigned pin = function->initial[PCI_INTERRUPT_PIN];
    if (pin < 1 || pin > 4) {
        return;
    }
    unsigned line = (function->slot + pin - 1) % 4;
    uint32_t before = host->asserting[line];
    uint32_t bit = UINT32_C(1) << function->slot;
    if (function->intx_asserted && !function->intx_disabled) {
        host->asserting[line] |= bit;
    } else {
        host->asserting[line] &= ~bit;
    }
    if ((before != 0) != (host->asserting[line] != 0)) {
        irq_line_set(&host->windows->intx[line], host->asserting[line] != 0);
    }
}

void pci_host_set_intx(struct pci_function *function, bool level)
{
    struct pci_host *host = function->host;
    pthread_mutex_lock(&host->interrupt_lock);
    function->intx_asserted = level;
    line_update(host, function);
    pthread_mutex_unlock(&host->interrupt_lock);
}

bool pci_host_intx_status(struct pci_function *function)
{
    struct pci_host *host = function->host;
    pthread_mutex_lock(&host->interrupt_lock);
    bool asserted = function->intx_asserted;
    pthread_mutex_unlock(&host->interrupt_lock);
    return asserted;
}

/* After a write to the command register, under the host lock. */
static void intx_disable_update(struct pci_host *host, struct pci_function *function)
{
    uint32_t command = pci_function_get(function, PCI_COMMAND, 2);
    pthread_mutex_lock(&host->interrupt_lock);
    function->intx_disabled = (command & PCI_COMMAND_INTX_DISABLE) != 0;
    line_update(host, function);
    pthread_mutex_unlock(&host->interrupt_lock);
}

/* --- ECAM ------------------------------------------------------------------------------------ */

static uint64_t all_ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (8 * size)) - 1;
}

/* The function at an ECAM offset, or NULL. Under the host's lock. */
static struct pci_function *ecam_function(struct pci_host *host, uint64_t offset)
{
    uint64_t number = offset / ECAM_FUNCTION_SIZE;
    if (offset >= ECAM_BUS_SIZE || number % FUNCTIONS_A_SLOT != 0) {
        return NULL;
    }
    struct pci_function *function = host->slots[number / FUNCTIONS_A_SLOT];
    return function && !function->left ? function : NULL;
}

/* Under the lock: whether the access goes through a window; the CPU is inside it then. */
static bool window_enter(struct pci_function *function, unsigned reg, struct pci_window *window)
{
    if (!function->ops || !function->ops->window ||
        !function->ops->window(function->device, reg, window)) {
        return false;
    }
    function->inside++;
    return true;
}

static void window_leave(struct pci_host *host, struct pci_function *function)
{
    pthread_mutex_lock(&host->lock);
    if (--function->inside == 0) {
        pthread_cond_broadcast(&host->nobody_inside);
    }
    pthread_mutex_unlock(&host->lock);
}

/* These may wait for the device's process, for seconds: so they hold no lock, or all of
 * configuration space would wait with them. */
static uint64_t window_load(const struct pci_function *function, const struct pci_window *window)
{
    uint64_t value = 0;
    if (window->length != 0) {
        function->bars[window->bar].ops->read(function->device, window->offset, window->length,
                                              &value);
    }
    return value;
}

static void window_store(const struct pci_function *function, const struct pci_window *window,
                         unsigned size, uint64_t value)
{
    if (window->length != 0 && window->length <= size) {
        function->bars[window->bar].ops->write(function->device, window->offset, window->length,
                                               value & all_ones(window->length));
    }
}

/* One access of 1, 2 or 4 bytes; others are not defined for configuration space and go nowhere. */
static bool ecam_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    struct pci_host *host = device;
    unsigned reg = (unsigned)(offset % ECAM_FUNCTION_SIZE);
    *value = all_ones(size);
    if (size > 4 || reg % size != 0) {
        return true;
    }
    pthread_mutex_lock(&host->lock);
    struct pci_function *function = ecam_function(host, offset);
    struct pci_window window;
    bool inside = false;
    if (function && reg >= PCI_CONFIG_SIZE) {
        *value = 0; /* no extended capabilities */
    } else if (function && !(inside = window_enter(function, reg, &window))) {
        *value = pci_function_config_read(function, reg, size) & all_ones(size);
    }
    pthread_mutex_unlock(&host->lock);
    if (inside) {
        *value = window_load(function, &window) & all_ones(size);
        window_leave(host, function);
    }
    return true;
}

static bool ecam_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = device;
    unsigned reg = (unsigned)(offset % ECAM_FUNCTION_SIZE);
    if (size > 4 || reg % size != 0 || reg >= PCI_CONFIG_SIZE) {
        return true;
    }
    pthread_mutex_lock(&host->lock);
    struct pci_function *function = ecam_function(host, offset);
    struct pci_window window;
    bool inside = function && window_enter(function, reg, &window);
    if (function && !inside && pci_function_config_write(function, reg, size, (uint32_t)value)) {
        update_mappings(host);
        intx_disable_update(host, function);
    }
    pthread_mutex_unlock(&host->lock);
    if (inside) {
        window_store(function, &window, size, value);
        window_leave(host, function);
    }
    return true;
}

static const struct bus_ops ECAM_OPS = {.read = ecam_read, .write = ecam_write};

/* Where no BAR is, a PCI read ends in a master abort: all ones, and no fault. */
static bool window_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    (void)device;
    (void)offset;
    *value = all_ones(size);
    return true;
}

static bool window_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device;
    (void)offset;
    (void)size;
    (void)value;
    return true;
}

static const struct bus_ops WINDOW_OPS = {.read = window_read, .write = window_write};

/* --- life ------------------------------------------------------------------------------------ */

static int put_on_bus(struct pci_host *host)
{
    const struct machine_pci *windows = host->windows;
    const struct {
        const char *name;
        uint64_t base, size;
    } backgrounds[] = {
        {"pci-mmio", windows->mmio_base, windows->mmio_size},
        {"pci-mmio64", windows->mmio64_base, windows->mmio64_size},
        {"pci-pio", windows->pio_base, windows->pio_size},
    };
    for (unsigned i = 0; i < sizeof(backgrounds) / sizeof(backgrounds[0]); i++) {
        if (backgrounds[i].size != 0) {
            int result = bus_add_background(host->bus, backgrounds[i].base, backgrounds[i].size,
                                            backgrounds[i].name, &WINDOW_OPS, host);
            if (result != 0) {
                return result;
            }
        }
    }
    return bus_add(host->bus, windows->ecam_base, windows->ecam_size, "pci-ecam", &ECAM_OPS, host);
}

struct pci_host *pci_host_create(struct bus *bus, const struct machine_pci *windows,
                                 struct error *err)
{
    if (windows->ecam_size < ECAM_BUS_SIZE) {
        error_set(err, ERROR_UNSUPPORTED, 0, "this machine has no PCI host bridge");
        return NULL;
    }
    struct pci_host *host = calloc(1, sizeof(*host));
    if (!host) {
        error_set(err, ERROR_INTERNAL, ENOMEM, "no memory for the PCI host bridge");
        return NULL;
    }
    host->bus = bus;
    host->windows = windows;
    pthread_mutex_init(&host->lock, NULL);
    pthread_mutex_init(&host->interrupt_lock, NULL);
    pthread_cond_init(&host->nobody_inside, NULL);
    pci_function_init(&host->bridge, &BRIDGE_IDENTITY, 0, NULL, &host->bridge);
    pci_host_add(host, 0, &host->bridge);
    int result = put_on_bus(host);
    if (result != 0) {
        error_set(err, ERROR_INTERNAL, -result, "the PCI windows do not fit on the bus");
        pci_host_destroy(host);
        return NULL;
    }
    return host;
}

void pci_host_destroy(struct pci_host *host)
{
    if (host) {
        pthread_cond_destroy(&host->nobody_inside);
        pthread_mutex_destroy(&host->interrupt_lock);
        pthread_mutex_destroy(&host->lock);
        free(host);
    }
}

int pci_host_add(struct pci_host *host, unsigned slot, struct pci_function *function)
{
    if (slot >= PCI_SLOT_COUNT) {
        return -EINVAL;
    }
    pthread_mutex_lock(&host->lock);
    int result = host->slots[slot] ? -EEXIST : 0;
    if (result == 0) {
        function->host = host;
        function->slot = slot;
        host->slots[slot] = function;
    }
    pthread_mutex_unlock(&host->lock);
    return result;
}

void pci_host_remove(struct pci_function *function)
{
    struct pci_host *host = function->host;
    pthread_mutex_lock(&host->lock);
    for (unsigned i = 0; i < PCI_BAR_COUNT; i++) {
        bar_unmap(host, function, &function->bars[i]);
    }
    host->slots[function->slot] = NULL;
    update_mappings(host); /* one that was in its way may have its place now */
    while (function->inside != 0) {
        pthread_cond_wait(&host->nobody_inside, &host->lock);
    }
    pthread_mutex_unlock(&host->lock);
    bus_drain(host->bus, function->device);
    pci_host_set_intx(function, false);
}

bool pci_host_is_master(struct pci_function *function)
{
    pthread_mutex_lock(&function->host->lock);
    bool master = pci_function_get(function, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
    pthread_mutex_unlock(&function->host->lock);
    return master;
}

bool pci_host_has_left(struct pci_function *function)
{
    pthread_mutex_lock(&function->host->lock);
    bool left = function->left;
    pthread_mutex_unlock(&function->host->lock);
    return left;
}

void pci_host_reset(struct pci_host *host)
{
    pthread_mutex_lock(&host->lock);
    for (unsigned slot = 0; slot < PCI_SLOT_COUNT; slot++) {
        if (host->slots[slot]) {
            pci_function_restore(host->slots[slot]);
        }
    }
    update_mappings(host);
    for (unsigned slot = 0; slot < PCI_SLOT_COUNT; slot++) {
        struct pci_function *function = host->slots[slot];
        if (function) {
            intx_disable_update(host, function);
            if (function->ops && function->ops->reset) {
                function->ops->reset(function->device);
            }
        }
    }
    pthread_mutex_unlock(&host->lock);
}

const struct pci_msi_target *pci_host_msi(const struct pci_host *host)
{
    return host->windows->msi.notify ? &host->windows->msi : NULL;
}
