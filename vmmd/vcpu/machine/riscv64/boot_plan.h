/*
 * What is to be loaded and where: made from the images' headers and sizes alone, and checked in
 * full, before a byte of guest memory changes.
 *
 * Without firmware the kernel lies at RAM + its text offset (2 MiB) and starts in supervisor mode.
 * With firmware, that lies at the start of RAM and starts in machine mode, and the kernel follows
 * at the next 2 MiB, where OpenSBI's fw_jump expects it. The initrd lies as high as the first GiB
 * of RAM allows, the device tree below it.
 */
#ifndef POLYVISOR_VCPU_MACHINE_RISCV64_BOOT_PLAN_H
#define POLYVISOR_VCPU_MACHINE_RISCV64_BOOT_PLAN_H

#include "vmmd/vcpu/boot/elf.h"
#include "vmmd/vcpu/boot/image.h"
#include "vmmd/vcpu/machine/machine.h"
#include "vmmd/vcpu/machine/riscv64/placement.h"

#define BOOT_TREE_ROOM (128ull << 10) /* for the device tree, which firmware enlarges in place */

/* An image and where it goes. */
struct payload {
    bool present;
    struct boot_image image;
    bool is_elf;
    struct boot_elf elf;
    uint64_t displacement; /* of ELF segments */
    uint64_t address;      /* first byte in RAM */
    uint64_t memory_size;  /* from there, bss included */
    uint64_t entry;
};

struct boot_plan {
    struct placement placement;
    struct payload firmware, kernel, initrd;
    uint64_t tree_address;
};

/* Make the plan for the images of `config`, whose descriptors must stay open while it is used.
 * ERROR_KERNEL: an image is missing, damaged or not for this machine. ERROR_MEMORY: too little. */
int boot_plan_make(struct boot_plan *plan, const struct machine_config *config, struct error *err);
/* Load one image of the plan; nothing when it is not present. */
int boot_plan_load(const struct payload *payload, struct memory *memory, struct error *err);

#endif
