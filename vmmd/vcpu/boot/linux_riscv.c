#include "vmmd/vcpu/boot/linux_riscv.h"
#include <inttypes.h>
#include <string.h>

struct image_header {
    uint32_t code0, code1;
    uint64_t text_offset;
    uint64_t image_size;
    uint64_t flags; /* bit 0: big-endian */
    uint32_t version;
    uint32_t reserved1;
    uint64_t reserved2;
    char magic[8]; /* "RISCV", deprecated */
    char magic2[4];
    uint32_t pe_offset;
};
_Static_assert(sizeof(struct image_header) == 64, "file layout");

#define FLAG_BIG_ENDIAN 1u
#define VERSION_MAJOR   (0xffffu << 16)

struct coff_header {
    uint8_t signature[4];
    uint16_t machine;
    uint16_t section_count;
    uint32_t timestamp, symbol_table, symbol_count;
    uint16_t optional_header_size;
    uint16_t characteristics;
};
_Static_assert(sizeof(struct coff_header) == 24, "file layout");

struct pe_section {
    char name[8];
    uint32_t virtual_size, virtual_address;
    uint32_t raw_size, raw_offset;
    uint32_t unused[4];
};
_Static_assert(sizeof(struct pe_section) == 40, "file layout");

#define PE_MACHINE_RISCV64 0x5064u
#define PE_SECTIONS_MAX    32u

bool linux_riscv_recognise(const uint8_t *bytes, size_t size)
{
    struct image_header header;
    if (size < sizeof(header)) {
        return false;
    }
    memcpy(&header, bytes, sizeof(header));
    return memcmp(header.magic, "RISCV\0\0\0", 8) == 0 || memcmp(header.magic2, "RSC\x05", 4) == 0;
}

static int truncated(const struct boot_image *image, uint64_t expected, struct error *err)
{
    int status = error_set(err, ERROR_KERNEL, 0,
                           "the %s is truncated: %" PRIu64 " bytes of at least %" PRIu64,
                           image->what, image->size, expected);
    error_hint(err, "copy or download it again");
    return status;
}

/* image_size covers the bss, which is not in the file; only the EFI stub's section table tells how
 * long the file itself must be. */
static int check_sections(const struct boot_image *image, uint32_t pe_offset, struct error *err)
{
    struct coff_header coff;
    if ((uint64_t)pe_offset + sizeof(coff) > image->size) {
        return truncated(image, (uint64_t)pe_offset + sizeof(coff), err);
    }
    int status = boot_image_read(image, pe_offset, &coff, sizeof(coff), err);
    if (status != 0) {
        return status;
    }
    if (memcmp(coff.signature, "PE\0\0", 4) != 0) {
        return 0; /* a field the header leaves undefined without an EFI stub */
    }
    if (coff.machine != PE_MACHINE_RISCV64 || coff.section_count > PE_SECTIONS_MAX) {
        return error_set(err, ERROR_KERNEL, 0, "the %s has a damaged EFI header", image->what);
    }
    uint64_t table = (uint64_t)pe_offset + sizeof(coff) + coff.optional_header_size;
    for (unsigned i = 0; i < coff.section_count; i++) {
        struct pe_section section;
        uint64_t at = table + i * sizeof(section);
        if (at + sizeof(section) > image->size) {
            return truncated(image, at + sizeof(section), err);
        }
        status = boot_image_read(image, at, &section, sizeof(section), err);
        if (status != 0) {
            return status;
        }
        uint64_t end = (uint64_t)section.raw_offset + section.raw_size;
        if (section.raw_size > 0 && end > image->size) {
            return truncated(image, end, err);
        }
    }
    return 0;
}

int linux_riscv_parse(const struct boot_image *image, struct linux_riscv *kernel, struct error *err)
{
    struct image_header header;
    int status = boot_image_read(image, 0, &header, sizeof(header), err);
    if (status != 0) {
        return status;
    }
    if (header.flags & FLAG_BIG_ENDIAN) {
        return error_set(err, ERROR_KERNEL, 0, "the %s is for a big-endian RISC-V", image->what);
    }
    if (header.version & VERSION_MAJOR) {
        return error_set(err, ERROR_KERNEL, 0, "the %s has an unknown Image header version %u.%u",
                         image->what, header.version >> 16, header.version & 0xffff);
    }
    if (header.text_offset % LINUX_RISCV_ALIGN != 0) {
        return error_set(err, ERROR_KERNEL, 0,
                         "the %s asks for an impossible load offset 0x%" PRIx64, image->what,
                         header.text_offset);
    }
    bool pe = (header.code0 & 0xffff) == ('M' | 'Z' << 8);
    status = pe ? check_sections(image, header.pe_offset, err) : 0;
    if (status != 0) {
        return status;
    }
    kernel->text_offset = header.text_offset;
    kernel->memory_size = header.image_size > image->size ? header.image_size : image->size;
    return 0;
}
