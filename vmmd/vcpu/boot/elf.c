#include "vmmd/vcpu/boot/elf.h"
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define PROGRAM_HEADERS_MAX 128

bool boot_elf_recognise(const uint8_t *bytes, size_t size, uint16_t elf_machine)
{
    Elf64_Ehdr header;
    if (size < sizeof(header)) {
        return false;
    }
    memcpy(&header, bytes, sizeof(header));
    return memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
           header.e_ident[EI_DATA] == ELFDATA2LSB && header.e_machine == elf_machine;
}

static int damaged(const struct boot_image *image, const char *how, struct error *err)
{
    return error_set(err, ERROR_KERNEL, 0, "the %s is a damaged ELF file: %s", image->what, how);
}

/* Note one PT_LOAD header, checked so that later sums of its fields cannot overflow. */
static int add_segment(const struct boot_image *image, struct boot_elf *elf,
                       const Elf64_Phdr *header, struct error *err)
{
    if (header->p_memsz == 0) {
        return 0;
    }
    if (header->p_filesz > header->p_memsz) {
        return damaged(image, "a segment's file size exceeds its memory size", err);
    }
    if (header->p_paddr + header->p_memsz < header->p_paddr ||
        header->p_vaddr + (header->p_memsz - 1) < header->p_vaddr) {
        return damaged(image, "a segment wraps around the address space", err);
    }
    if (header->p_offset > image->size || header->p_filesz > image->size - header->p_offset) {
        return error_set(err, ERROR_KERNEL, 0,
                         "the %s is truncated: %" PRIu64 " bytes, but a segment needs %" PRIu64
                         " bytes at %" PRIu64,
                         image->what, image->size, (uint64_t)header->p_filesz,
                         (uint64_t)header->p_offset);
    }
    if (elf->segment_count == BOOT_ELF_SEGMENTS_MAX) {
        return damaged(image, "too many segments", err);
    }
    elf->segments[elf->segment_count++] = (struct boot_elf_segment){
        .file_offset = header->p_offset,
        .file_size = header->p_filesz,
        .virtual_address = header->p_vaddr,
        .physical_address = header->p_paddr,
        .memory_size = header->p_memsz,
    };
    uint64_t end = header->p_paddr + header->p_memsz;
    elf->low = header->p_paddr < elf->low ? header->p_paddr : elf->low;
    elf->high = end > elf->high ? end : elf->high;
    return 0;
}

static bool entry_to_physical(struct boot_elf *elf, uint64_t entry)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct boot_elf_segment *segment = &elf->segments[i];
        if (entry - segment->virtual_address < segment->memory_size) {
            elf->entry = segment->physical_address + (entry - segment->virtual_address);
            return true;
        }
    }
    elf->entry = entry;
    return entry >= elf->low && entry < elf->high;
}

int boot_elf_parse(const struct boot_image *image, struct boot_elf *elf, struct error *err)
{
    Elf64_Ehdr header;
    int status = boot_image_read(image, 0, &header, sizeof(header), err);
    if (status != 0) {
        return status;
    }
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
        return damaged(image, "it is not an executable", err);
    }
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > PROGRAM_HEADERS_MAX) {
        return damaged(image, "its program header table makes no sense", err);
    }
    *elf = (struct boot_elf){.low = UINT64_MAX};
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        uint64_t offset = header.e_phoff + i * sizeof(segment);
        if (offset < header.e_phoff) {
            return damaged(image, "its program header table makes no sense", err);
        }
        status = boot_image_read(image, offset, &segment, sizeof(segment), err);
        if (status == 0 && segment.p_type == PT_LOAD) {
            status = add_segment(image, elf, &segment, err);
        }
        if (status != 0) {
            return status;
        }
    }
    if (elf->segment_count == 0) {
        return damaged(image, "nothing in it is to be loaded", err);
    }
    if (!entry_to_physical(elf, header.e_entry)) {
        return damaged(image, "its entry point is outside its segments", err);
    }
    return 0;
}

int boot_elf_load(const struct boot_image *image, const struct boot_elf *elf, uint64_t displacement,
                  struct memory *memory, struct error *err)
{
    for (unsigned i = 0; i < elf->segment_count; i++) {
        const struct boot_elf_segment *segment = &elf->segments[i];
        uint64_t address = segment->physical_address + displacement;
        int status = 0;
        if (segment->file_size > 0) {
            status = boot_image_load(image, segment->file_offset, segment->file_size, memory,
                                     address, err);
        }
        if (status == 0 && segment->memory_size > segment->file_size) {
            status = boot_memory_write(memory, address + segment->file_size, NULL,
                                       segment->memory_size - segment->file_size, err);
        }
        if (status != 0) {
            return status;
        }
    }
    return 0;
}
