#include "vmmd/vcpu/machine/riscv64/messages.h"
#include "vmmd/vcpu/boot/image.h"

#define SETEIPNUM_LE 0u /* the other registers of a page read as zero and ignore writes (3.5) */

/* What a kernel with the drivers has in its tables. */
#define IMSIC_DRIVER "riscv,imsics"
#define APLIC_DRIVER "riscv,aplic"

static bool kernel_has_drivers(int kernel_fd)
{
    static const char *const drivers[] = {IMSIC_DRIVER, APLIC_DRIVER};
    struct boot_image image;
    struct error ignored = {0}; /* said again when the image is loaded */
    return kernel_fd >= 0 && boot_image_open(&image, kernel_fd, "kernel", &ignored) == 0 &&
           boot_image_mentions(&image, drivers, sizeof(drivers) / sizeof(drivers[0]));
}

int messages_wanted(const struct machine_config *config, bool *wanted, struct error *err)
{
    bool firmware = config->firmware_fd >= 0;
    if (config->irqchip == MACHINE_IRQCHIP_AIA && firmware) {
        int status = error_set(err, ERROR_CONFIG, 0, "firmware cannot have irqchip=aia");
        error_hint(err, "leave out --machine irqchip=aia, or --firmware");
        return status;
    }
    *wanted = config->irqchip == MACHINE_IRQCHIP_AIA ||
              (config->irqchip == MACHINE_IRQCHIP_AUTO && !firmware &&
               kernel_has_drivers(config->kernel_fd));
    return 0;
}

void messages_send(void *opaque, unsigned hart, unsigned identity)
{
    struct riscv64_machine *machine = opaque;
    if (hart < machine->machine.config.cpu_count) {
        struct riscv64_cpu *cpu = machine->harts[hart].cpu;
        if (riscv64_message(cpu, identity)) {
            engine_kick(&cpu->cpu, CPU_ATTENTION_INTERRUPT);
        }
    }
}

void messages_notify(void *controller, uint64_t address, uint32_t data)
{
    uint64_t offset = address - LAYOUT_IMSIC_BASE;
    if (offset < LAYOUT_IMSIC_SIZE && offset % IMSIC_PAGE_SIZE == SETEIPNUM_LE) {
        messages_send(controller, (unsigned)(offset / IMSIC_PAGE_SIZE), data);
    }
}

static bool access_allowed(uint64_t offset, unsigned size)
{
    return size == 4 && offset % 4 == 0;
}

static bool page_read(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    (void)device;
    *value = 0;
    return access_allowed(offset, size);
}

static bool page_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    if (!access_allowed(offset, size)) {
        return false;
    }
    messages_notify(device, LAYOUT_IMSIC_BASE + offset, (uint32_t)value);
    return true;
}

const struct bus_ops messages_bus_ops = {.read = page_read, .write = page_write};
