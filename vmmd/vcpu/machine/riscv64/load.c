#include "vmmd/vcpu/machine/riscv64/load.h"
#include "vmmd/vcpu/machine/riscv64/boot_plan.h"
#include "vmmd/vcpu/machine/riscv64/fdt.h"
#include "vmmd/vcpu/machine/riscv64/harts.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static int load_tree(struct riscv64_machine *machine, const struct boot_plan *plan,
                     struct error *err)
{
    const struct machine_config *config = &machine->machine.config;
    uint64_t probe;
    bool has_pci = bus_read(machine->machine.bus, machine->machine.pci.ecam_base, 4, &probe);
    struct riscv64_fdt fdt = {
        .cpu_count = config->cpu_count,
        .memory_base = plan->placement.base,
        .memory_size = config->memory_size,
        .append = config->append,
        .initrd_start = plan->initrd.address,
        .initrd_end = plan->initrd.address + plan->initrd.image.size,
        .kernel_start = plan->kernel.address,
        .kernel_end = plan->kernel.address + plan->kernel.memory_size,
        .has_serial = machine->has_serial,
        .has_rtc = machine->has_rtc,
        .has_watchdog = machine->has_watchdog,
        .has_aia = machine->has_aia,
        .pci = has_pci ? &machine->machine.pci : NULL,
    };
    void *buffer = malloc(RISCV64_FDT_CAPACITY);
    if (!buffer) {
        return error_set(err, ERROR_MEMORY, 0, "no memory for the device tree");
    }
    int size = riscv64_fdt_build(&fdt, buffer, err);
    if (size > 0) {
        int status = boot_memory_write(machine->machine.memory, plan->tree_address, buffer,
                                       (uint64_t)size, err);
        size = status != 0 ? status : size;
    }
    free(buffer);
    return size < 0 ? size : 0;
}

/* The reset vector: a0 = hart, a1 = tree, a2 = what fw_dynamic wants to know, jump to firmware. */
struct reset_rom {
    uint32_t code[6];
    uint64_t entry;
    uint64_t tree;
    struct fw_dynamic_info { /* OpenSBI's include/sbi/fw_dynamic.h, version 2 */
        uint64_t magic, version, next_address, next_mode, options, boot_hart;
    } info;
};
_Static_assert(sizeof(struct reset_rom) <= sizeof(((struct riscv64_machine *)0)->rom), "fits");

#define INFO_MAGIC      0x4942534full
#define INFO_VERSION    2u
#define NEXT_SUPERVISOR 1u

/* An instruction with a 12-bit immediate; all of these index from t0, the ROM's address. */
#define IMMEDIATE(opcode, field) ((opcode) | (uint32_t)offsetof(struct reset_rom, field) << 20)

static void write_rom(struct riscv64_machine *machine, const struct boot_plan *plan)
{
    struct reset_rom rom = {
        .code =
            {
                0x00000297u,                   /* auipc t0, 0 */
                IMMEDIATE(0x00028613u, info),  /* addi a2, t0, info */
                IMMEDIATE(0x0002b583u, tree),  /* ld a1, tree(t0) */
                IMMEDIATE(0x0002b283u, entry), /* ld t0, entry(t0) */
                0xf1402573u,                   /* csrr a0, mhartid */
                0x00028067u,                   /* jr t0 */
            },
        .entry = plan->firmware.present ? plan->firmware.entry : plan->kernel.entry,
        .tree = plan->tree_address,
        .info =
            {
                .magic = INFO_MAGIC,
                .version = INFO_VERSION,
                .next_address = plan->kernel.entry,
                .next_mode = NEXT_SUPERVISOR,
            },
    };
    memcpy(machine->rom, &rom, sizeof(rom));
}

static void start(struct riscv64_machine *machine, const struct boot_plan *plan)
{
    write_rom(machine, plan);
    machine->has_firmware = plan->firmware.present;
    guest_clock_set(&machine->clock, 0);
    timers_reset(machine->timers);
    aclint_reset(machine->aclint);
    if (machine->has_aia) {
        aplic_reset(machine->aplic);
    } else {
        plic_reset(machine->plic);
    }
    engine_device_wrote(machine->machine.engine);
    harts_reset(machine);
    if (machine->has_firmware) {
        /* As the reset vector leaves them; it is in ROM for those who look. */
        uint64_t info = LAYOUT_ROM_BASE + offsetof(struct reset_rom, info);
        for (unsigned i = 0; i < machine->machine.config.cpu_count; i++) {
            harts_boot(machine, i, RISCV64_MACHINE, plan->firmware.entry, plan->tree_address, info);
        }
    } else {
        harts_boot(machine, 0, RISCV64_SUPERVISOR, plan->kernel.entry, plan->tree_address, 0);
    }
    atomic_store(&machine->ended, false);
}

int riscv64_load(struct machine *generic, struct error *err)
{
    struct riscv64_machine *machine = (struct riscv64_machine *)generic;
    struct boot_plan plan;
    int status = boot_plan_make(&plan, &generic->config, err);
    if (status == 0) {
        status = boot_plan_load(&plan.firmware, generic->memory, err);
    }
    if (status == 0) {
        status = boot_plan_load(&plan.kernel, generic->memory, err);
    }
    if (status == 0) {
        status = boot_plan_load(&plan.initrd, generic->memory, err);
    }
    if (status == 0) {
        status = load_tree(machine, &plan, err);
    }
    if (status == 0) {
        start(machine, &plan);
    }
    return status;
}
