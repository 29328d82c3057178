#include "vmmd/vcpu/machine/riscv64/boot_plan.h"
#include "vmmd/vcpu/boot/identify.h"
#include "vmmd/vcpu/boot/linux_riscv.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include <inttypes.h>

#define MIB        ((uint64_t)1 << 20)
#define PAGE       4096ull
#define LOW_MEMORY (1ull << 30)  /* initrd and tree stay below, where early kernels map them */
#define JUMP_TREE  0x82200000ull /* where OpenSBI's fw_jump copies the tree */

/* --- looking at the images ------------------------------------------------------------------ */

static uint64_t round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static int open_payload(struct payload *payload, int fd, const char *what, struct error *err)
{
    payload->present = fd >= 0;
    return payload->present ? boot_image_open(&payload->image, fd, what, err) : 0;
}

static int refuse(const struct boot_image *image, const uint8_t *head, size_t size,
                  struct error *err)
{
    const struct boot_identity *identity = boot_identify(head, size);
    if (!identity) {
        int status =
            error_set(err, ERROR_KERNEL, 0,
                      "the %s is neither a riscv64 Linux Image nor an ELF file", image->what);
        error_hint(err, "it may be damaged, or something else entirely");
        return status;
    }
    int status = error_set(err, ERROR_KERNEL, 0, "the %s is %s", image->what, identity->name);
    error_hint(err, "%s",
               identity->hint ? identity->hint
                              : "this machine is riscv64: pass a riscv64 kernel, for example "
                                "vmlinux of Debian's linux-image-riscv64");
    return status;
}

/* An ELF file linked below RAM (vmlinux: at 0 or at its offset) is moved up to `base`. */
static int parse_elf(struct payload *payload, uint64_t base, struct error *err)
{
    int status = boot_elf_parse(&payload->image, &payload->elf, err);
    if (status != 0) {
        return status;
    }
    const struct boot_elf *elf = &payload->elf;
    payload->is_elf = true;
    payload->displacement = elf->low < LAYOUT_RAM_BASE ? base - elf->low : 0;
    payload->address = elf->low + payload->displacement;
    payload->memory_size = elf->high - elf->low;
    payload->entry = elf->entry + payload->displacement;
    return 0;
}

static int parse_firmware(struct payload *firmware, struct error *err)
{
    uint8_t head[BOOT_IDENTIFY_BYTES];
    size_t size = firmware->image.size < sizeof(head) ? firmware->image.size : sizeof(head);
    int status = boot_image_read(&firmware->image, 0, head, size, err);
    if (status != 0) {
        return status;
    }
    if (linux_riscv_recognise(head, size)) {
        status = error_set(err, ERROR_KERNEL, 0, "the firmware is a Linux kernel");
        error_hint(err, "pass it as kernel");
        return status;
    }
    if (boot_elf_recognise(head, size, BOOT_ELF_RISCV)) {
        return parse_elf(firmware, LAYOUT_RAM_BASE, err);
    }
    if (boot_identify(head, size)) {
        return refuse(&firmware->image, head, size, err);
    }
    firmware->address = firmware->entry = LAYOUT_RAM_BASE; /* a raw binary says nothing itself */
    firmware->memory_size = firmware->image.size;
    return 0;
}

/* `base`: where a kernel goes that is free to choose. */
static int parse_kernel(struct payload *kernel, bool has_firmware, uint64_t base, struct error *err)
{
    uint8_t head[BOOT_IDENTIFY_BYTES];
    size_t size = kernel->image.size < sizeof(head) ? kernel->image.size : sizeof(head);
    int status = boot_image_read(&kernel->image, 0, head, size, err);
    if (status != 0) {
        return status;
    }
    if (boot_elf_recognise(head, size, BOOT_ELF_RISCV)) {
        return parse_elf(kernel, base, err);
    }
    if (!linux_riscv_recognise(head, size)) {
        if (!has_firmware || boot_identify(head, size)) {
            return refuse(&kernel->image, head, size, err);
        }
        /* A raw binary for the next stage (U-Boot in supervisor mode): firmware knows. */
        kernel->address = kernel->entry = base;
        kernel->memory_size = kernel->image.size;
        return 0;
    }
    struct linux_riscv header;
    status = linux_riscv_parse(&kernel->image, &header, err);
    if (status != 0) {
        return status;
    }
    if (!has_firmware && header.text_offset > LAYOUT_RAM_MAX) {
        return error_set(err, ERROR_KERNEL, 0, "the kernel asks for an impossible load offset");
    }
    kernel->address = has_firmware ? base : LAYOUT_RAM_BASE + header.text_offset;
    kernel->entry = kernel->address;
    kernel->memory_size = header.memory_size;
    return 0;
}

/* --- finding places ------------------------------------------------------------------------- */

static int too_small(const struct boot_plan *plan, const char *what, uint64_t needed,
                     struct error *err)
{
    uint64_t have = plan->placement.end - plan->placement.base;
    int status = error_set(err, ERROR_MEMORY, 0,
                           "%" PRIu64 " MiB of memory are too small for the %s", have / MIB, what);
    error_hint(err, "give the machine at least %" PRIu64 " MiB", (needed + MIB - 1) / MIB);
    return status;
}

/* RAM that the images, the tree and the kernel's first steps take. */
static uint64_t memory_needed(const struct boot_plan *plan)
{
    uint64_t needed = LINUX_RISCV_ALIGN;
    if (plan->firmware.present) {
        needed =
            round_up(plan->firmware.address - plan->placement.base + plan->firmware.memory_size,
                     LINUX_RISCV_ALIGN);
    }
    if (plan->kernel.present) {
        needed = plan->kernel.address - plan->placement.base + plan->kernel.memory_size;
    }
    if (plan->kernel.present && !plan->kernel.is_elf) {
        /* Debian's kernel of 31 MiB dies before it can say why with less than one and a half times
         * its own size to work with; smaller kernels get by with less. */
        needed += plan->kernel.memory_size + plan->kernel.memory_size / 2;
    }
    if (plan->initrd.present) {
        needed += round_up(plan->initrd.image.size, PAGE);
    }
    return needed + 2 * LINUX_RISCV_ALIGN;
}

/* Sizes come from hostile files, so each is checked against RAM before sums are made of them. */
static int check_sizes(const struct boot_plan *plan, struct error *err)
{
    const struct payload *payloads[] = {&plan->firmware, &plan->kernel};
    for (unsigned i = 0; i < 2; i++) {
        const struct payload *payload = payloads[i];
        if (!payload->present) {
            continue;
        }
        if (payload->memory_size > LAYOUT_RAM_MAX) {
            return error_set(err, ERROR_KERNEL, 0, "the %s asks for an impossible amount of memory",
                             payload->image.what);
        }
        if (payload->address < plan->placement.base || payload->address > LAYOUT_RAM_MAX) {
            return error_set(err, ERROR_KERNEL, 0,
                             "the %s is linked for address 0x%" PRIx64
                             ", where this machine has no memory",
                             payload->image.what, payload->address);
        }
        if (payload->address - plan->placement.base + payload->memory_size >
            plan->placement.end - plan->placement.base) {
            return too_small(plan, payload->image.what, memory_needed(plan), err);
        }
    }
    if (plan->initrd.present &&
        plan->initrd.image.size > plan->placement.end - plan->placement.base) {
        return too_small(plan, "initrd", memory_needed(plan), err);
    }
    return 0;
}

/* Firmware and kernel lie where they want to; JUMP_TREE is kept free if the kernel leaves it. */
static int place_code(struct boot_plan *plan, struct error *err)
{
    struct placement *placement = &plan->placement;
    bool placed = true;
    if (plan->firmware.present) {
        /* Its bss, heap and stacks follow the file: they get the rest of the 2 MiB. */
        placed = placement_take(placement, plan->firmware.address,
                                round_up(plan->firmware.memory_size, LINUX_RISCV_ALIGN));
    }
    if (placed && plan->kernel.present) {
        placed = placement_take(placement, plan->kernel.address, plan->kernel.memory_size);
    }
    if (!placed) {
        return error_set(err, ERROR_KERNEL, 0, "kernel and firmware overlap in memory");
    }
    if (plan->firmware.present) {
        placement_take(placement, JUMP_TREE, BOOT_TREE_ROOM);
    }
    return 0;
}

static int place(struct boot_plan *plan, struct error *err)
{
    struct placement *placement = &plan->placement;
    uint64_t needed = memory_needed(plan), low = placement->base + LOW_MEMORY;
    if (needed > placement->end - placement->base) {
        const char *what = plan->initrd.present ? "kernel with its initrd" : "kernel";
        return too_small(plan, plan->kernel.present ? what : "firmware", needed, err);
    }
    int status = place_code(plan, err);
    if (status != 0) {
        return status;
    }
    if (plan->initrd.present) {
        uint64_t size = plan->initrd.image.size;
        uint64_t address = placement_take_high(placement, size, PAGE, low);
        plan->initrd.address =
            address ? address : placement_take_high(placement, size, PAGE, UINT64_MAX);
        if (!plan->initrd.address) {
            return too_small(plan, "initrd", needed + LINUX_RISCV_ALIGN, err);
        }
    }
    plan->tree_address = placement_take_high(placement, BOOT_TREE_ROOM, LINUX_RISCV_ALIGN, low);
    if (!plan->tree_address) {
        return too_small(plan, "device tree", needed + 2 * LINUX_RISCV_ALIGN, err);
    }
    return 0;
}

int boot_plan_make(struct boot_plan *plan, const struct machine_config *config, struct error *err)
{
    *plan = (struct boot_plan){0};
    plan->placement.base = LAYOUT_RAM_BASE;
    plan->placement.end = LAYOUT_RAM_BASE + config->memory_size;
    if (config->kernel_fd < 0 && config->firmware_fd < 0) {
        return error_set(err, ERROR_KERNEL, 0, "there is neither a kernel nor firmware to start");
    }
    int status = open_payload(&plan->firmware, config->firmware_fd, "firmware", err);
    if (status == 0) {
        status = open_payload(&plan->kernel, config->kernel_fd, "kernel", err);
    }
    if (status == 0) {
        status = open_payload(&plan->initrd, config->initrd_fd, "initrd", err);
    }
    uint64_t kernel_base = LAYOUT_RAM_BASE + LINUX_RISCV_ALIGN;
    if (status == 0 && plan->firmware.present) {
        status = parse_firmware(&plan->firmware, err);
        uint64_t end = plan->firmware.address + plan->firmware.memory_size;
        if (status == 0 && end > LAYOUT_RAM_BASE && end < LAYOUT_RAM_MAX) {
            kernel_base = round_up(end, LINUX_RISCV_ALIGN);
        }
    }
    if (status == 0 && plan->kernel.present) {
        status = parse_kernel(&plan->kernel, plan->firmware.present, kernel_base, err);
    }
    if (status == 0) {
        status = check_sizes(plan, err);
    }
    return status == 0 ? place(plan, err) : status;
}

int boot_plan_load(const struct payload *payload, struct memory *memory, struct error *err)
{
    if (!payload->present) {
        return 0;
    }
    if (payload->is_elf) {
        return boot_elf_load(&payload->image, &payload->elf, payload->displacement, memory, err);
    }
    return boot_image_load(&payload->image, 0, payload->image.size, memory, payload->address, err);
}
