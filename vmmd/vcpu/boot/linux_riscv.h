/*
 * The header of an uncompressed RISC-V Linux kernel ("Image"), with or without the EFI stub's PE
 * header around it.
 *
 * Source: the kernel's Documentation/arch/riscv/boot-image-header.rst; PE Format (Microsoft) for
 * the section table.
 */
#ifndef POLYVISOR_VCPU_BOOT_LINUX_RISCV_H
#define POLYVISOR_VCPU_BOOT_LINUX_RISCV_H

#include "vmmd/vcpu/boot/image.h"

#define LINUX_RISCV_ALIGN (2ull << 20) /* load addresses are multiples of it */

struct linux_riscv {
    uint64_t text_offset; /* from the start of RAM, a multiple of LINUX_RISCV_ALIGN */
    uint64_t memory_size; /* bytes from the load address that belong to the kernel, bss included */
};

bool linux_riscv_recognise(const uint8_t *bytes, size_t size);
/* Check the header of a file that was recognised, and with an EFI stub that no section is cut off.
 * ERROR_KERNEL when damaged, truncated, big-endian or of an unknown header version. */
int linux_riscv_parse(const struct boot_image *image, struct linux_riscv *kernel,
                      struct error *err);

#endif
