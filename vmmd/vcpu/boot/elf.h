/*
 * Loading of statically placed ELF64 executables (vmlinux, firmware) into guest memory.
 *
 * Source: System V Application Binary Interface, ELF-64 object file format. Only program headers
 * count; everything in the file is hostile.
 */
#ifndef POLYVISOR_VCPU_BOOT_ELF_H
#define POLYVISOR_VCPU_BOOT_ELF_H

#include "vmmd/vcpu/boot/image.h"

#define BOOT_ELF_SEGMENTS_MAX 16
#define BOOT_ELF_RISCV        243u /* e_machine */

struct boot_elf_segment {
    uint64_t file_offset, file_size;
    uint64_t virtual_address, physical_address;
    uint64_t memory_size; /* at least file_size */
};

struct boot_elf {
    unsigned segment_count;
    struct boot_elf_segment segments[BOOT_ELF_SEGMENTS_MAX];
    uint64_t low, high; /* physical addresses all segments lie between, [low, high) */
    uint64_t entry;     /* physical */
};

/* True when the bytes begin a little-endian ELF64 file for `elf_machine`. */
bool boot_elf_recognise(const uint8_t *bytes, size_t size, uint16_t elf_machine);
/* Read and check the headers of a file that was recognised. An entry point given as a virtual
 * address, as vmlinux has it, is turned into a physical one. ERROR_KERNEL when damaged. */
int boot_elf_parse(const struct boot_image *image, struct boot_elf *elf, struct error *err);
/* Load all segments, `displacement` (modulo 2^64) added to each physical address. */
int boot_elf_load(const struct boot_image *image, const struct boot_elf *elf, uint64_t displacement,
                  struct memory *memory, struct error *err);

#endif
