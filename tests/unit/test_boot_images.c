/* Boot images: every kind of bad kernel, initrd and firmware gets an error that names it, and good
 * ones are placed without overlap. */
#include "tests/unit/suite.h"
#include "vmmd/vcpu/boot/elf.h"
#include "vmmd/vcpu/boot/identify.h"
#include "vmmd/vcpu/boot/image.h"
#include "vmmd/vcpu/machine/riscv64/boot_plan.h"
#include "vmmd/vcpu/machine/riscv64/layout.h"
#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1ull << 20)

/* --- crafting files ------------------------------------------------------------------------- */

static int file_of(const void *bytes, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    return fd;
}

static int file_of_size(const void *head, size_t head_size, off_t size)
{
    int fd = file_of(head, head_size);
    ck_assert_int_eq(ftruncate(fd, size), 0);
    return fd;
}

struct kernel_head {
    uint32_t code0, code1;
    uint64_t text_offset, image_size, flags;
    uint32_t version, reserved1;
    uint64_t reserved2;
    char magic[8], magic2[4];
    uint32_t pe_offset;
    /* A PE header with two sections. */
    char signature[4];
    uint16_t machine, sections;
    uint32_t unused[3];
    uint16_t optional_size, characteristics;
    struct {
        char name[8];
        uint32_t virtual_size, virtual_address, raw_size, raw_offset, unused[4];
    } section[2];
};

#define KERNEL_FILE (3 * MIB)

static struct kernel_head good_kernel(void)
{
    struct kernel_head head = {
        .code0 = 0x6f105a4d,
        .text_offset = 2 * MIB,
        .image_size = 5 * MIB,
        .version = 2,
        .magic = "RISCV",
        .magic2 = {'R', 'S', 'C', 5},
        .pe_offset = 64,
        .signature = "PE",
        .machine = 0x5064,
        .sections = 2,
    };
    head.section[0].raw_offset = 4096;
    head.section[0].raw_size = MIB;
    head.section[1].raw_offset = MIB + 4096;
    head.section[1].raw_size = KERNEL_FILE - MIB - 4096;
    return head;
}

static int kernel_file(const struct kernel_head *head)
{
    return file_of_size(head, sizeof(*head), KERNEL_FILE);
}

struct elf_file {
    Elf64_Ehdr header;
    Elf64_Phdr segment[2];
    uint8_t code[64];
};

static struct elf_file good_elf(uint64_t physical)
{
    struct elf_file elf = {
        .header =
            {
                .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                .e_type = ET_EXEC,
                .e_machine = EM_RISCV,
                .e_entry = 0xffffffff80000010,
                .e_phoff = sizeof(Elf64_Ehdr),
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_phnum = 2,
            },
    };
    for (unsigned i = 0; i < sizeof(elf.code); i++) {
        elf.code[i] = (uint8_t)(i + 1);
    }
    elf.segment[0] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_offset = offsetof(struct elf_file, code),
        .p_vaddr = 0xffffffff80000000,
        .p_paddr = physical,
        .p_filesz = sizeof(elf.code),
        .p_memsz = 0x100,
    };
    elf.segment[1] = (Elf64_Phdr){
        .p_type = PT_LOAD,
        .p_vaddr = 0xffffffff80002000,
        .p_paddr = physical + 0x2000,
        .p_memsz = 0x1000,
    };
    return elf;
}

/* --- making plans --------------------------------------------------------------------------- */

static struct machine_config config_of(int kernel, int initrd, int firmware, uint64_t memory)
{
    return (struct machine_config){
        .cpu_count = 1,
        .memory_size = memory,
        .kernel_fd = kernel,
        .initrd_fd = initrd,
        .firmware_fd = firmware,
        .append = "",
    };
}

static void close_images(const struct machine_config *config)
{
    const int fds[] = {config->kernel_fd, config->initrd_fd, config->firmware_fd};
    for (unsigned i = 0; i < 3; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static struct boot_plan plan_of(int kernel, int initrd, int firmware, uint64_t memory)
{
    struct machine_config config = config_of(kernel, initrd, firmware, memory);
    struct boot_plan plan;
    struct error err = {0};
    int status = boot_plan_make(&plan, &config, &err);
    ck_assert_msg(status == 0, "%s", err.message);
    close_images(&config);
    return plan;
}

/* No plan: the error has this code and its message or hint contains these words. */
static void refused(int kernel, int initrd, int firmware, uint64_t memory, enum error_code code,
                    const char *words)
{
    struct machine_config config = config_of(kernel, initrd, firmware, memory);
    struct boot_plan plan;
    struct error err = {0};
    ck_assert_int_lt(boot_plan_make(&plan, &config, &err), 0);
    ck_assert_msg(err.code == code, "%s: %s", error_code_text(err.code), err.message);
    ck_assert_msg(strstr(err.message, words) || strstr(err.hint, words), "%s (%s)", err.message,
                  err.hint);
    close_images(&config);
}

static void kernel_refused(int kernel, const char *words)
{
    refused(kernel, -1, -1, 128 * MIB, ERROR_KERNEL, words);
}

static void no_overlap(const struct boot_plan *plan)
{
    const struct placement *placement = &plan->placement;
    for (unsigned i = 0; i < placement->count; i++) {
        ck_assert_uint_ge(placement->taken[i].start, placement->base);
        ck_assert_uint_le(placement->taken[i].end, placement->end);
        for (unsigned j = 0; j < i; j++) {
            ck_assert(placement->taken[i].start >= placement->taken[j].end ||
                      placement->taken[j].start >= placement->taken[i].end);
        }
    }
}

/* --- tests ---------------------------------------------------------------------------------- */

START_TEST(descriptors_that_are_no_file_are_refused)
{
    kernel_refused(open("/", O_RDONLY | O_CLOEXEC), "a directory");
    kernel_refused(open("/dev/zero", O_RDONLY | O_CLOEXEC), "special file");
    kernel_refused(file_of("", 0), "empty");
    kernel_refused(12345, "cannot be read");
    kernel_refused(-1, "neither a kernel nor firmware");
    refused(-1, -1, file_of("", 0), 128 * MIB, ERROR_KERNEL, "firmware is empty");
    struct kernel_head head = good_kernel();
    refused(kernel_file(&head), file_of("", 0), -1, 128 * MIB, ERROR_KERNEL, "initrd is empty");
}
END_TEST

START_TEST(foreign_kernels_are_named)
{
    static const struct {
        unsigned offset;
        const char *bytes;
        unsigned length;
        const char *words;
    } cases[] = {
        {0x202, "HdrS", 4, "x86 Linux kernel"},
        {0x38, "ARM\x64", 4, "arm64 Linux kernel"},
        {0x24, "\x18\x28\x6f\x01", 4, "32-bit Arm"},
        {0, "\x1f\x8b\x08", 3, "gzip"},
        {0,
         "\xfd"
         "7zXZ\0",
         6, "xz"},
        {0, "\x28\xb5\x2f\xfd", 4, "zstd"},
        {4, "zimg", 4, "zboot"},
        {0, "\xd0\x0d\xfe\xed", 4, "device tree"},
        {0, "\x27\x05\x19\x56", 4, "uImage"},
        {0, "QFI\xfb", 4, "qcow2"},
        {0, "!<arch>\n", 8, "Debian package"},
        {0, "070701", 6, "cpio"},
        {0, "#!/bin/sh", 9, "script"},
        {0, "random", 6, "neither a riscv64 Linux Image nor an ELF file"},
        {0, "MZ", 2, "EFI or DOS"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t bytes[1024] = {0};
        memcpy(bytes + cases[i].offset, cases[i].bytes, cases[i].length);
        kernel_refused(file_of(bytes, sizeof(bytes)), cases[i].words);
    }
    kernel_refused(file_of("x", 1), "neither");
    kernel_refused(file_of("MZ", 2), "neither");
}
END_TEST

START_TEST(foreign_elf_and_pe_files_are_named)
{
    static const struct {
        uint16_t machine;
        const char *words;
    } elf_cases[] = {{EM_X86_64, "x86-64"},
                     {EM_AARCH64, "arm64"},
                     {EM_386, "32-bit x86"},
                     {EM_S390, "s390x"},
                     {0xfff0, "another processor"}},
      pe_cases[] = {{0x8664, "x86-64"}, {0xaa64, "arm64"}, {0x5064, "not a Linux kernel"}};
    for (size_t i = 0; i < sizeof(elf_cases) / sizeof(elf_cases[0]); i++) {
        struct elf_file elf = good_elf(LAYOUT_RAM_BASE);
        elf.header.e_machine = elf_cases[i].machine;
        kernel_refused(file_of(&elf, sizeof(elf)), elf_cases[i].words);
    }
    struct elf_file elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_ident[EI_CLASS] = ELFCLASS32;
    kernel_refused(file_of(&elf, sizeof(elf)), "32-bit RISC-V");
    for (size_t i = 0; i < sizeof(pe_cases) / sizeof(pe_cases[0]); i++) {
        struct kernel_head head = good_kernel();
        memset(head.magic, 0, sizeof(head.magic));
        memset(head.magic2, 0, sizeof(head.magic2));
        head.machine = pe_cases[i].machine;
        kernel_refused(kernel_file(&head), pe_cases[i].words);
        head.pe_offset = 0xfffffff0; /* far outside */
        kernel_refused(kernel_file(&head), "EFI or DOS");
    }
}
END_TEST

START_TEST(damaged_kernels_are_refused)
{
    struct kernel_head head = good_kernel();
    kernel_refused(file_of_size(&head, sizeof(head), KERNEL_FILE - 1), "truncated");
    kernel_refused(file_of_size(&head, sizeof(head), 100), "truncated");
    kernel_refused(file_of(&head, 64), "truncated");
    head.flags = 1;
    kernel_refused(kernel_file(&head), "big-endian");
    head = good_kernel();
    head.version = 1 << 16;
    kernel_refused(kernel_file(&head), "header version");
    head = good_kernel();
    head.text_offset = 0x201000;
    kernel_refused(kernel_file(&head), "load offset");
    head.text_offset = 0 - 2 * MIB;
    kernel_refused(kernel_file(&head), "load offset");
    head = good_kernel();
    head.machine = 0x8664;
    kernel_refused(kernel_file(&head), "EFI header");
    head = good_kernel();
    head.sections = 0xffff;
    kernel_refused(kernel_file(&head), "EFI header");
    head = good_kernel();
    head.section[1].raw_offset = 0xffffffff;
    head.section[1].raw_size = 0xffffffff;
    kernel_refused(kernel_file(&head), "truncated");
    head = good_kernel();
    head.pe_offset = 0xffffffff;
    kernel_refused(kernel_file(&head), "truncated");
    head = good_kernel();
    head.image_size = UINT64_MAX;
    kernel_refused(kernel_file(&head), "impossible amount of memory");
}
END_TEST

START_TEST(damaged_elf_files_are_refused)
{
    struct elf_file elf = good_elf(LAYOUT_RAM_BASE);
    kernel_refused(file_of(&elf, sizeof(elf.header)), "truncated");
    kernel_refused(file_of(&elf, sizeof(elf) - 1), "truncated");
    elf.header.e_type = ET_REL;
    kernel_refused(file_of(&elf, sizeof(elf)), "not an executable");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_phentsize = 1;
    kernel_refused(file_of(&elf, sizeof(elf)), "program header");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_phnum = 0xffff;
    kernel_refused(file_of(&elf, sizeof(elf)), "program header");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_phoff = UINT64_MAX - 8;
    kernel_refused(file_of(&elf, sizeof(elf)), "");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_phnum = 0;
    kernel_refused(file_of(&elf, sizeof(elf)), "nothing in it");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.segment[0].p_filesz = UINT64_MAX;
    kernel_refused(file_of(&elf, sizeof(elf)), "");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.segment[0].p_memsz = UINT64_MAX;
    kernel_refused(file_of(&elf, sizeof(elf)), "wraps");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.segment[0].p_offset = UINT64_MAX;
    kernel_refused(file_of(&elf, sizeof(elf)), "truncated");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_entry = 0x1234;
    kernel_refused(file_of(&elf, sizeof(elf)), "entry point");
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.segment[1].p_paddr = 0x7000000000000000;
    kernel_refused(file_of(&elf, sizeof(elf)), "impossible amount");
    elf = good_elf(0x7000000000000000);
    kernel_refused(file_of(&elf, sizeof(elf)), "no memory");
}
END_TEST

START_TEST(a_kernel_alone_lies_at_its_text_offset)
{
    struct kernel_head head = good_kernel();
    struct boot_plan plan = plan_of(kernel_file(&head), -1, -1, 128 * MIB);
    ck_assert_uint_eq(plan.kernel.address, LAYOUT_RAM_BASE + 2 * MIB);
    ck_assert_uint_eq(plan.kernel.entry, plan.kernel.address);
    ck_assert_uint_eq(plan.kernel.memory_size, 5 * MIB);
    ck_assert_uint_eq(plan.tree_address % (2 * MIB), 0);
    ck_assert_uint_gt(plan.tree_address, plan.kernel.address + 5 * MIB);
    no_overlap(&plan);
    head.image_size = 0; /* kernels before the field existed */
    plan = plan_of(kernel_file(&head), -1, -1, 128 * MIB);
    ck_assert_uint_eq(plan.kernel.memory_size, KERNEL_FILE);
}
END_TEST

START_TEST(an_initrd_lies_below_the_first_gigabyte)
{
    struct kernel_head head = good_kernel();
    static const uint64_t sizes[] = {64 * MIB, 512 * MIB, 4096 * MIB, 16384 * MIB};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int initrd = file_of_size("x", 1, 20 * MIB + 123);
        struct boot_plan plan = plan_of(kernel_file(&head), initrd, -1, sizes[i]);
        uint64_t end = plan.initrd.address + plan.initrd.image.size;
        ck_assert_uint_eq(plan.initrd.address % 4096, 0);
        ck_assert_uint_le(end, LAYOUT_RAM_BASE + (1ull << 30));
        ck_assert_uint_lt(plan.tree_address, plan.initrd.address);
        ck_assert_uint_eq(plan.tree_address % (2 * MIB), 0);
        no_overlap(&plan);
    }
    int huge = file_of_size("x", 1, 1500 * MIB); /* unless it does not fit there */
    struct boot_plan plan = plan_of(kernel_file(&head), huge, -1, 4096 * MIB);
    no_overlap(&plan);
}
END_TEST

START_TEST(too_little_memory_is_refused_with_the_amount_needed)
{
    struct kernel_head head = good_kernel();
    refused(kernel_file(&head), -1, -1, 2 * MIB, ERROR_MEMORY, "at least");
    refused(kernel_file(&head), -1, -1, 16 * MIB, ERROR_MEMORY, "at least");
    refused(kernel_file(&head), file_of_size("x", 1, 300 * MIB), -1, 256 * MIB, ERROR_MEMORY,
            "initrd");
    refused(kernel_file(&head), file_of_size("x", 1, 250 * MIB), -1, 256 * MIB, ERROR_MEMORY,
            "initrd");
    refused(-1, -1, file_of_size("x", 1, 50 * MIB), 16 * MIB, ERROR_MEMORY, "firmware");

    /* The hint is honest: with that much there is a plan. */
    struct machine_config config =
        config_of(kernel_file(&head), file_of_size("x", 1, 77 * MIB + 5), -1, 16 * MIB);
    struct boot_plan plan;
    struct error err = {0};
    ck_assert_int_lt(boot_plan_make(&plan, &config, &err), 0);
    const char *number = strpbrk(err.hint, "0123456789");
    ck_assert_ptr_nonnull(number);
    config.memory_size = strtoull(number, NULL, 10) * MIB;
    ck_assert_int_eq(boot_plan_make(&plan, &config, &err), 0);
    no_overlap(&plan);
    close_images(&config);
}
END_TEST

START_TEST(firmware_lies_first_and_the_kernel_follows)
{
    struct kernel_head head = good_kernel();
    uint8_t code[4096] = {0x13};
    struct boot_plan plan =
        plan_of(kernel_file(&head), file_of("i", 1), file_of(code, sizeof(code)), 128 * MIB);
    ck_assert_uint_eq(plan.firmware.entry, LAYOUT_RAM_BASE);
    ck_assert_uint_eq(plan.kernel.address, LAYOUT_RAM_BASE + 2 * MIB);
    no_overlap(&plan);
    plan = plan_of(kernel_file(&head), -1, file_of_size(code, sizeof(code), 3 * MIB), 128 * MIB);
    ck_assert_uint_eq(plan.kernel.address, LAYOUT_RAM_BASE + 4 * MIB);
    /* A raw next stage is what it is, unless it is recognised as something that cannot run. */
    plan = plan_of(file_of(code, 100), -1, file_of(code, sizeof(code)), 128 * MIB);
    ck_assert_uint_eq(plan.kernel.entry, LAYOUT_RAM_BASE + 2 * MIB);
    refused(file_of("\x1f\x8b\x08", 3), -1, file_of(code, sizeof(code)), 128 * MIB, ERROR_KERNEL,
            "gzip");
    plan = plan_of(-1, -1, file_of(code, sizeof(code)), 16 * MIB);
    ck_assert(!plan.kernel.present);
    ck_assert_uint_ne(plan.tree_address, 0);
    /* fw_jump copies the tree to 0x82200000: nothing else is put there. */
    plan = plan_of(kernel_file(&head), file_of_size("i", 1, 20 * MIB), file_of(code, sizeof(code)),
                   53 * MIB);
    ck_assert(plan.initrd.address >= 0x82220000 ||
              plan.initrd.address + plan.initrd.image.size <= 0x82200000);
    no_overlap(&plan);
}
END_TEST

START_TEST(firmware_that_is_something_else_is_refused)
{
    struct kernel_head head = good_kernel();
    refused(-1, -1, kernel_file(&head), 128 * MIB, ERROR_KERNEL, "a Linux kernel");
    struct elf_file elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_machine = EM_AARCH64;
    refused(-1, -1, file_of(&elf, sizeof(elf)), 128 * MIB, ERROR_KERNEL, "arm64");
    elf = good_elf(LAYOUT_RAM_BASE); /* a kernel linked to where the firmware lies */
    refused(file_of(&elf, sizeof(elf)), -1, file_of("\x13\0\0\0", 4), 128 * MIB, ERROR_KERNEL,
            "overlap");
}
END_TEST

START_TEST(elf_kernels_are_moved_into_ram)
{
    struct elf_file elf = good_elf(0);
    struct boot_plan plan = plan_of(file_of(&elf, sizeof(elf)), -1, -1, 128 * MIB);
    ck_assert_uint_eq(plan.kernel.address, LAYOUT_RAM_BASE + 2 * MIB);
    ck_assert_uint_eq(plan.kernel.entry, LAYOUT_RAM_BASE + 2 * MIB + 0x10);
    ck_assert_uint_eq(plan.kernel.memory_size, 0x3000);
    elf = good_elf(LAYOUT_RAM_BASE);
    elf.header.e_entry = LAYOUT_RAM_BASE + 0x20; /* already physical */
    plan = plan_of(file_of(&elf, sizeof(elf)), -1, -1, 128 * MIB);
    ck_assert_uint_eq(plan.kernel.address, LAYOUT_RAM_BASE);
    ck_assert_uint_eq(plan.kernel.entry, LAYOUT_RAM_BASE + 0x20);
    no_overlap(&plan);
}
END_TEST

static struct memory make_memory(uint64_t size)
{
    struct memory memory = {0};
    int ram = memory_create_fd("ram", size);
    int codemap = memory_create_fd("codemap", memory_codemap_size(size));
    ck_assert_int_eq(memory_add_region(&memory, ram, LAYOUT_RAM_BASE, size), 0);
    ck_assert_int_eq(memory_attach_codemap(&memory, codemap), 0);
    close(ram);
    close(codemap);
    return memory;
}

START_TEST(elf_segments_arrive_with_zeroed_tails_and_mark_code_overwritten)
{
    struct memory memory = make_memory(16 * MIB);
    struct elf_file elf = good_elf(LAYOUT_RAM_BASE + 0x1000);
    struct boot_image image;
    struct boot_elf parsed;
    int fd = file_of(&elf, sizeof(elf));
    memset(memory.regions[0].host, 0xee, 0x10000);
    atomic_store(memory_page_flags(&memory, LAYOUT_RAM_BASE + 0x1000), MEMORY_PAGE_CODE);
    ck_assert_int_eq(boot_image_open(&image, fd, "kernel", NULL), 0);
    ck_assert_int_eq(boot_elf_parse(&image, &parsed, NULL), 0);
    ck_assert_int_eq(boot_elf_load(&image, &parsed, 0, &memory, NULL), 0);
    const uint8_t *ram = memory.regions[0].host;
    ck_assert_int_eq(memcmp(ram + 0x1000, elf.code, sizeof(elf.code)), 0);
    ck_assert_uint_eq(ram[0xfff], 0xee);
    ck_assert_uint_eq(ram[0x1040], 0);
    ck_assert_uint_eq(ram[0x10ff], 0);
    ck_assert_uint_eq(ram[0x1100], 0xee);
    ck_assert_uint_eq(ram[0x3000], 0);
    ck_assert_uint_eq(ram[0x4000], 0xee);
    ck_assert(atomic_load(memory_page_flags(&memory, LAYOUT_RAM_BASE + 0x1000)) &
              MEMORY_PAGE_DEVICE_WROTE);
    ck_assert_int_eq(boot_elf_load(&image, &parsed, 16 * MIB, &memory, NULL), -ERROR_MEMORY);
    close(fd);
    memory_close(&memory);
}
END_TEST

START_TEST(a_file_that_shrinks_under_the_reader_is_an_error)
{
    struct memory memory = make_memory(16 * MIB);
    struct boot_image image;
    struct error err = {0};
    int fd = file_of_size("x", 1, MIB);
    ck_assert_int_eq(boot_image_open(&image, fd, "initrd", &err), 0);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    ck_assert_int_lt(boot_image_load(&image, 0, MIB, &memory, LAYOUT_RAM_BASE, &err), 0);
    ck_assert_int_eq(err.code, ERROR_KERNEL);
    ck_assert_ptr_nonnull(strstr(err.message, "shorter"));
    close(fd);
    memory_close(&memory);
}
END_TEST

START_TEST(random_heads_crash_nothing)
{
    uint8_t bytes[4096];
    srandom(1);
    for (unsigned round = 0; round < 2000; round++) {
        struct kernel_head head = good_kernel();
        struct elf_file elf = good_elf(LAYOUT_RAM_BASE);
        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, round & 1 ? (void *)&head : (void *)&elf,
               round & 1 ? sizeof(head) : sizeof(elf));
        for (unsigned i = 0; i < 6; i++) {
            bytes[(size_t)random() % 300] = (uint8_t)random();
        }
        struct machine_config config =
            config_of(file_of(bytes, sizeof(bytes)), -1, file_of(bytes, sizeof(bytes)), 64 * MIB);
        struct boot_plan plan;
        struct error err = {0};
        if (boot_plan_make(&plan, &config, &err) == 0) {
            no_overlap(&plan);
        } else {
            ck_assert_int_ne(err.message[0], 0);
        }
        close_images(&config);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("boot images");
    TCase *tests = tcase_create("boot images");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, descriptors_that_are_no_file_are_refused);
    tcase_add_test(tests, foreign_kernels_are_named);
    tcase_add_test(tests, foreign_elf_and_pe_files_are_named);
    tcase_add_test(tests, damaged_kernels_are_refused);
    tcase_add_test(tests, damaged_elf_files_are_refused);
    tcase_add_test(tests, a_kernel_alone_lies_at_its_text_offset);
    tcase_add_test(tests, an_initrd_lies_below_the_first_gigabyte);
    tcase_add_test(tests, too_little_memory_is_refused_with_the_amount_needed);
    tcase_add_test(tests, firmware_lies_first_and_the_kernel_follows);
    tcase_add_test(tests, firmware_that_is_something_else_is_refused);
    tcase_add_test(tests, elf_kernels_are_moved_into_ram);
    tcase_add_test(tests, elf_segments_arrive_with_zeroed_tails_and_mark_code_overwritten);
    tcase_add_test(tests, a_file_that_shrinks_under_the_reader_is_an_error);
    tcase_add_test(tests, random_heads_crash_nothing);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
