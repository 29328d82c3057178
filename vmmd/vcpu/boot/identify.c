#include "vmmd/vcpu/boot/identify.h"
#include <string.h>

#define HINT_DECOMPRESS "decompress it first and pass the result"
#define HINT_ARCH       NULL /* the caller knows which architecture it wants */

struct pattern {
    uint16_t offset;
    uint8_t length;
    const char *bytes;
    struct boot_identity identity;
};

/* First match wins, so what wraps something else comes first. Offsets and magic numbers: the
 * kernel's boot protocol documents of each architecture, the ELF and PE/COFF specifications (the
 * machine field of an EFI kernel's PE header lies behind a pointer: see below), and magic(5). */
static const struct pattern patterns[] = {
    {0, 2, "\x1f\x8b", {"compressed with gzip", "decompress it: gunzip < kernel > Image"}},
    {0, 6, "\xfd\x37zXZ", {"compressed with xz", "decompress it: xz -dc < kernel > Image"}},
    {0,
     4,
     "\x28\xb5\x2f\xfd",
     {"compressed with zstd", "decompress it: zstd -dc < kernel > Image"}},
    {0, 3, "BZh", {"compressed with bzip2", "decompress it: bzip2 -dc < kernel > Image"}},
    {0, 4, "\x04\x22\x4d\x18", {"compressed with lz4", "decompress it: lz4 -dc < kernel > Image"}},
    {0, 4, "\x02\x21\x4c\x18", {"compressed with lz4", "decompress it: lz4 -dc < kernel > Image"}},
    {0, 9, "\x89LZO\0\r\n\x1a\n", {"compressed with lzo", HINT_DECOMPRESS}},
    {4, 4, "zimg", {"a compressed EFI kernel (zboot)", "pass the kernel's uncompressed Image"}},
    {0x202, 4, "HdrS", {"an x86 Linux kernel (bzImage)", HINT_ARCH}},
    {0x38, 4, "ARMd", {"an arm64 Linux kernel (Image)", HINT_ARCH}},
    {0x24, 4, "\x18\x28\x6f\x01", {"a 32-bit Arm Linux kernel (zImage)", HINT_ARCH}},
    {0, 4, "\x27\x05\x19\x56", {"a U-Boot image (uImage)", "pass the kernel inside it"}},
    {0, 4, "\xd0\x0d\xfe\xed", {"a device tree or FIT image", "pass the kernel inside it"}},
    {0, 4, "QFI\xfb", {"a qcow2 disk image", "pass disks with --disk"}},
    {0, 8, "!<arch>\n", {"an archive or Debian package", "pass the kernel inside it"}},
    {0, 4, "PK\x03\x04", {"a zip archive", "pass the kernel inside it"}},
    {0, 6, "070701", {"a cpio archive", "pass it with --initrd"}},
    {0, 2, "#!", {"a script", ""}},
};

/* Machines of ELF (e_machine) and of PE (COFF machine), by their little-endian number. */
struct machine_name {
    uint16_t number;
    struct boot_identity identity;
};
static const struct machine_name elf_machines[] = {
    {3, {"an ELF file for 32-bit x86", HINT_ARCH}},
    {62, {"an ELF file for x86-64", HINT_ARCH}},
    {183, {"an ELF file for arm64", HINT_ARCH}},
    {40, {"an ELF file for 32-bit Arm", HINT_ARCH}},
    {8, {"an ELF file for MIPS", HINT_ARCH}},
    {20, {"an ELF file for 32-bit PowerPC", HINT_ARCH}},
    {21, {"an ELF file for PowerPC", HINT_ARCH}},
    {22, {"an ELF file for s390x", HINT_ARCH}},
    {258, {"an ELF file for LoongArch", HINT_ARCH}},
};
static const struct machine_name pe_machines[] = {
    {0x014c, {"an EFI or Windows program for 32-bit x86", HINT_ARCH}},
    {0x8664, {"an EFI or Windows program for x86-64", HINT_ARCH}},
    {0xaa64, {"an EFI program for arm64", HINT_ARCH}},
    {0x01c2, {"an EFI program for 32-bit Arm", HINT_ARCH}},
    {0x6264, {"an EFI program for LoongArch", HINT_ARCH}},
    {0x5064, {"an EFI program for riscv64 that is not a Linux kernel", ""}},
};
static const struct boot_identity elf_riscv32 = {"an ELF file for 32-bit RISC-V", HINT_ARCH};
static const struct boot_identity elf_other = {"an ELF file for another processor", HINT_ARCH};
static const struct boot_identity pe_other = {"an EFI or DOS program", HINT_ARCH};

#define ELF_MACHINE_RISCV 243

static uint16_t read16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static const struct boot_identity *machine_find(const struct machine_name *table, size_t count,
                                                uint16_t number,
                                                const struct boot_identity *otherwise)
{
    for (size_t i = 0; i < count; i++) {
        if (table[i].number == number) {
            return &table[i].identity;
        }
    }
    return otherwise;
}

#define MACHINE_FIND(table, number, otherwise)                                                     \
    machine_find(table, sizeof(table) / sizeof((table)[0]), number, otherwise)

static const struct boot_identity *identify_elf(const uint8_t *bytes)
{
    bool big_endian = bytes[5] == 2;
    uint16_t machine = big_endian ? (uint16_t)(bytes[18] << 8 | bytes[19]) : read16(bytes + 18);
    if (machine == ELF_MACHINE_RISCV && bytes[4] == 1) {
        return &elf_riscv32;
    }
    return MACHINE_FIND(elf_machines, machine, &elf_other);
}

static const struct boot_identity *identify_pe(const uint8_t *bytes, size_t size)
{
    size_t header = (size_t)read16(bytes + 0x3c) | (size_t)read16(bytes + 0x3e) << 16;
    if (header > size - 6 || memcmp(bytes + header, "PE\0\0", 4) != 0) {
        return &pe_other;
    }
    return MACHINE_FIND(pe_machines, read16(bytes + header + 4), &pe_other);
}

const struct boot_identity *boot_identify(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        const struct pattern *pattern = &patterns[i];
        if ((size_t)pattern->offset + pattern->length <= size &&
            memcmp(bytes + pattern->offset, pattern->bytes, pattern->length) == 0) {
            return &pattern->identity;
        }
    }
    if (size >= 20 && memcmp(bytes,
                             "\x7f"
                             "ELF",
                             4) == 0) {
        return identify_elf(bytes);
    }
    if (size >= 0x40 && memcmp(bytes, "MZ", 2) == 0) {
        return identify_pe(bytes, size);
    }
    return NULL;
}
