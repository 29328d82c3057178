/* What vmctl reads of a disk before it boots it: partition table, boot partition, words. All of it
 * may be hostile. */
#include "cli/image/fat.h"
#include "cli/image/image_file.h"
#include "cli/image/machine_image.h"
#include "tests/unit/image_disk.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <stdlib.h>
#include <sys/mman.h>

static struct disk *disk;

/* The disk as a file. */
static int disk_open(const struct disk *from)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert(disk_write(from, fd));
    return fd;
}

static void set_up(void)
{
    disk = malloc(sizeof(*disk));
    ck_assert_ptr_nonnull(disk);
}

static void tear_down(void)
{
    free(disk);
}

struct gathered {
    uint8_t *bytes;
    size_t length;
    size_t limit; /* fail when there are more; 0: never */
};

static int gather(void *context, const uint8_t *bytes, size_t size, struct error *err)
{
    struct gathered *gathered = context;

    gathered->bytes = realloc(gathered->bytes, gathered->length + size);
    ck_assert_ptr_nonnull(gathered->bytes);
    memcpy(gathered->bytes + gathered->length, bytes, size);
    gathered->length += size;
    return gathered->limit && gathered->length > gathered->limit
               ? error_set(err, ERROR_IO, 0, "enough")
               : 0;
}

/* Open the boot partition of the disk as it is now. */
static int open_boot(struct fat *fat, struct error *err)
{
    struct gpt_partition partition;
    int fd = disk_open(disk);
    int status = gpt_find(fd, DISK_BYTES, gpt_type_efi, &partition, err);

    fat->fd = fd;
    return status == 0 ? fat_open(fat, fd, partition.start, partition.size, err) : status;
}

static int read_file(const char *name, struct gathered *gathered)
{
    struct fat fat;
    struct fat_file file;
    struct error err = {0};
    int status = open_boot(&fat, &err);

    status = status == 0 ? fat_find(&fat, name, &file, &err) : status;
    status = status == 0 ? fat_read(&fat, &file, gather, gathered, &err) : status;
    ck_assert_int_eq(status, -(int)err.code);
    close(fat.fd);
    return status;
}

/* ---- Partition table ---- */

START_TEST(test_crc)
{
    ck_assert_uint_eq(gpt_crc(0, (const uint8_t *)"123456789", 9), 0xcbf43926u);
    ck_assert_uint_eq(gpt_crc(gpt_crc(0, (const uint8_t *)"1234", 4), (const uint8_t *)"56789", 5),
                      0xcbf43926u);
}
END_TEST

START_TEST(test_partition)
{
    struct gpt_partition partition;
    struct error err;
    uint8_t other[GPT_GUID_BYTES] = {1};

    disk_make(disk, true);
    int fd = disk_open(disk);
    ck_assert_int_eq(gpt_find(fd, DISK_BYTES, gpt_type_efi, &partition, &err), 0);
    ck_assert_uint_eq(partition.start, DISK_START);
    ck_assert_uint_eq(partition.size, DISK_SIZE);
    ck_assert_int_eq(gpt_find(fd, DISK_BYTES, other, &partition, &err), -ERROR_NOT_FOUND);
    close(fd);
}
END_TEST

/* How a table can be wrong: what is changed, and whether the checksums are made right again. */
static const struct wrong_table {
    unsigned offset;
    uint64_t value;
    unsigned width;
    bool sealed;
    int status;
} wrong_tables[] = {
    {512, 0, 8, false, -ERROR_NOT_FOUND},                   /* no signature */
    {512 + 12, 91, 4, true, -ERROR_DISK},                   /* a header too small */
    {512 + 12, 513, 4, true, -ERROR_DISK},                  /* and too large */
    {512 + 24, 7, 8, false, -ERROR_DISK},                   /* a wrong checksum */
    {512 + 72, UINT64_MAX / 512, 8, true, -ERROR_DISK},     /* entries far behind the end */
    {512 + 72, DISK_BYTES / 512 - 1, 8, true, -ERROR_DISK}, /* entries over the end */
    {512 + 80, 1025, 4, true, -ERROR_DISK},                 /* too many */
    {512 + 80, UINT32_MAX, 4, true, -ERROR_DISK},
    {512 + 84, 127, 4, true, -ERROR_DISK}, /* too small */
    {512 + 84, UINT32_MAX, 4, true, -ERROR_DISK},
    {1024 + 128 + 56, 1, 1, false, -ERROR_DISK},               /* the entries' checksum */
    {1024 + 128 + 32, UINT64_MAX, 8, true, -ERROR_DISK},       /* a start behind the end */
    {1024 + 128 + 40, DISK_BYTES / 512, 8, true, -ERROR_DISK}, /* one sector too long */
    {1024 + 128 + 40, UINT64_MAX, 8, true, -ERROR_DISK},
};

START_TEST(test_wrong_table)
{
    const struct wrong_table *wrong = &wrong_tables[_i];
    struct gpt_partition partition;
    struct error err;
    uint64_t value = htole64(wrong->value);

    disk_make(disk, true);
    memcpy(disk->bytes + wrong->offset, &value, wrong->width);
    if (wrong->sealed) {
        disk_seal(disk);
    }
    int fd = disk_open(disk);
    ck_assert_int_eq(gpt_find(fd, DISK_BYTES, gpt_type_efi, &partition, &err), wrong->status);
    ck_assert_uint_ne(strlen(err.message), 0);
    close(fd);
}
END_TEST

START_TEST(test_no_disk)
{
    struct gpt_partition partition;
    struct error err;
    int fd = memfd_create("disk", MFD_CLOEXEC);

    ck_assert_int_eq(gpt_find(fd, 0, gpt_type_efi, &partition, &err), -ERROR_NOT_FOUND);
    /* Shorter than it was said to be. */
    ck_assert_int_eq(gpt_find(fd, DISK_BYTES, gpt_type_efi, &partition, &err), -ERROR_DISK);
    close(fd);
}
END_TEST

/* ---- Files ---- */

START_TEST(test_files)
{
    static uint8_t bytes[300000];
    struct gathered large = {0}, small = {0}, empty = {0};

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 512);
    }
    disk_make(disk, _i);
    disk_add(disk, "VMLINUX    ", bytes, sizeof(bytes));
    disk_add(disk, "CMDLINE TXT", "quiet\n", 6);
    disk_add(disk, "EMPTY      ", "", 0);
    ck_assert_int_eq(read_file("vmlinux", &large), 0);
    ck_assert_uint_eq(large.length, sizeof(bytes));
    ck_assert_mem_eq(large.bytes, bytes, sizeof(bytes));
    ck_assert_int_eq(read_file("CMDLINE.TXT", &small), 0);
    ck_assert_uint_eq(small.length, 6);
    ck_assert_mem_eq(small.bytes, "quiet\n", 6);
    ck_assert_int_eq(read_file("empty", &empty), 0);
    ck_assert_uint_eq(empty.length, 0);
    ck_assert_int_eq(read_file("NONE", &empty), -ERROR_NOT_FOUND);
    ck_assert_int_eq(read_file("CMDLINE", &empty), -ERROR_NOT_FOUND);
    ck_assert_int_eq(read_file("NAMETOOLONG.TXT", &empty), -ERROR_INTERNAL);
    free(large.bytes);
    free(small.bytes);
    free(empty.bytes);
}
END_TEST

START_TEST(test_entries_that_are_no_files)
{
    struct gathered gathered = {0};

    disk_make(disk, _i);
    disk_add_entry(disk, "\xe5MLINUX    ", 9, 9);         /* removed */
    disk_add_entry(disk, "VMLINUX    ", 9, 9)[11] = 0x0f; /* part of a long name */
    disk_add_entry(disk, "VMLINUX    ", 9, 9)[11] = 0x08; /* the volume's label */
    disk_add_entry(disk, "VMLINUX    ", 9, 9)[11] = 0x10; /* a folder */
    disk_add(disk, "VMLINUX    ", "kernel", 6);
    ck_assert_int_eq(read_file("VMLINUX", &gathered), 0);
    ck_assert_mem_eq(gathered.bytes, "kernel", 6);
    free(gathered.bytes);
}
END_TEST

START_TEST(test_who_takes_may_end_it)
{
    static uint8_t bytes[4 << 9];
    struct gathered gathered = {.limit = 600};

    disk_make(disk, true);
    disk_add(disk, "VMLINUX    ", bytes, sizeof(bytes));
    ck_assert_int_eq(read_file("VMLINUX", &gathered), -ERROR_IO);
    ck_assert_uint_lt(gathered.length, sizeof(bytes));
    free(gathered.bytes);
}
END_TEST

/* Chains that lead nowhere: the file has two clusters, the first is that of a file added first. */
START_TEST(test_wrong_chains)
{
    static uint8_t bytes[1024];
    const uint32_t links[] = {0 /* free */, 1, 0xffff, 0x0ffffff0, 5000000, 0x0fffffff /* early */};
    struct gathered gathered = {0};

    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        disk_make(disk, true);
        disk_add(disk, "VMLINUX    ", bytes, sizeof(bytes));
        disk_link(disk, 3, links[i]);
        ck_assert_int_eq(read_file("VMLINUX", &gathered), -ERROR_DISK);
    }
    /* A circle: a file larger than all there is, and a directory. */
    disk_make(disk, true);
    disk_add_entry(disk, "VMLINUX    ", 9, UINT32_MAX);
    disk_link(disk, 9, 10);
    disk_link(disk, 10, 9);
    gathered.length = 0;
    ck_assert_int_eq(read_file("VMLINUX", &gathered), -ERROR_DISK);
    ck_assert_uint_le(gathered.length, DISK_BYTES + 1024);
    disk_make(disk, true);
    memset(disk_cluster(disk, 2), 'x', 512);
    disk_link(disk, 2, 2);
    ck_assert_int_eq(read_file("VMLINUX", &gathered), -ERROR_DISK);
    free(gathered.bytes);
}
END_TEST

/* What lies behind the entry that ends a directory may be as long as the disk, or nowhere. */
START_TEST(test_nothing_is_read_behind_a_directory)
{
    struct gathered gathered = {0};

    disk_make(disk, true);
    disk_add(disk, "VMLINUX    ", "kernel", 6);
    disk_link(disk, 2, 9);
    disk_link(disk, 9, 5000000);
    ck_assert_int_eq(read_file("VMLINUX", &gathered), 0);
    ck_assert_uint_eq(gathered.length, 6);
    ck_assert_int_eq(read_file("INITRD.IMG", &gathered), -ERROR_NOT_FOUND);
    free(gathered.bytes);
}
END_TEST

/* The boot sector's numbers, each in turn. */
static const struct wrong_boot {
    unsigned offset;
    uint32_t value;
    unsigned width;
} wrong_boots[] = {
    {11, 0, 2},
    {11, 513, 2},
    {11, 8192, 2},
    {13, 0, 1},
    {13, 3, 1},
    {13, 255, 1},
    {16, 0, 1},
    {16, 255, 1},
    {32, 0, 4},
    {32, UINT32_MAX, 4},
    {36, 0, 4},
    {36, UINT32_MAX, 4},
    {14, 65535, 2},
    {44, 0, 4},
    {44, UINT32_MAX, 4},
    {44, 70000, 4},
    {22, 1, 2} /* FAT16 with an impossible root */,
};

START_TEST(test_wrong_boot_sector)
{
    const struct wrong_boot *wrong = &wrong_boots[_i];
    struct gathered gathered = {0};
    uint32_t value = htole32(wrong->value);

    disk_make(disk, true);
    disk_add(disk, "VMLINUX    ", "kernel", 6);
    memcpy(disk_at(disk, wrong->offset), &value, wrong->width);
    int status = read_file("VMLINUX", &gathered);
    ck_assert(status == -ERROR_DISK || status == -ERROR_NOT_FOUND);
    free(gathered.bytes);
}
END_TEST

START_TEST(test_short_image)
{
    struct fat fat;
    struct fat_file file;
    struct gathered gathered = {0};
    struct error err = {0};

    disk_make(disk, true);
    disk_add(disk, "VMLINUX    ", "kernel", 6);
    ck_assert_int_eq(open_boot(&fat, &err), 0);
    ck_assert_int_eq(fat_find(&fat, "VMLINUX", &file, &err), 0);
    ck_assert_int_eq(ftruncate(fat.fd, DISK_START + FAT_RESERVED * 512), 0);
    fat.window_at = UINT64_MAX;
    ck_assert_int_eq(fat_read(&fat, &file, gather, &gathered, &err), -ERROR_DISK);
    close(fat.fd);
}
END_TEST

/* ---- What an image says of itself ---- */

START_TEST(test_properties)
{
    struct image_properties properties;
    char text[3000];

    image_properties_parse("arch=riscv64\nsuite=trixie\nother=x\npackages=a b\npolyvisor=1.2\n"
                           "agent=3\n\nkernel",
                           &properties);
    ck_assert_str_eq(properties.polyvisor, "1.2");
    ck_assert_str_eq(properties.agent, "3");
    ck_assert_str_eq(properties.arch, "riscv64");
    ck_assert_str_eq(properties.suite, "trixie");
    ck_assert_str_eq(properties.packages, "a b");
    ck_assert_str_eq(properties.kernel, "");
    ck_assert_str_eq(properties.distribution, "");
    image_properties_parse("arch=a\033[2Jb\x7f\xff\n", &properties);
    ck_assert_str_eq(properties.arch, "a?[2Jb??");
    memset(text, 'x', sizeof(text));
    memcpy(text, "arch=", 5);
    text[sizeof(text) - 1] = '\0';
    image_properties_parse(text, &properties);
    ck_assert_uint_eq(strlen(properties.arch), sizeof(properties.arch) - 1);
    image_properties_parse("", &properties);
    ck_assert_str_eq(properties.arch, "");
}
END_TEST

/* A disk as a file, which is removed. */
static void write_disk(char path[32])
{
    strcpy(path, "/tmp/test-image-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert(disk_write(disk, fd));
    close(fd);
}

START_TEST(test_image_file)
{
    char path[32], kernel[40], read_back[16] = "";
    struct image_file image;
    struct error err = {0};

    disk_make(disk, true);
    disk_add(disk, "VMLINUX    ", "kernel", 6);
    disk_add(disk, "CMDLINE TXT", "root=x quiet\nmore", 17);
    write_disk(path);
    ck_assert_int_eq(image_file_open(&image, path, &err), -ERROR_DISK); /* no IMAGE.INF */
    unlink(path);
    disk_add(disk, "IMAGE   INF", "arch=riscv64\n", 13);
    write_disk(path);
    ck_assert_int_eq(image_file_open(&image, path, &err), 0);
    ck_assert_str_eq(image.command_line, "root=x quiet");
    ck_assert_str_eq(image.properties.arch, "riscv64");
    ck_assert_uint_eq(image.bytes, DISK_BYTES);
    snprintf(kernel, sizeof(kernel), "%s.kernel", path);
    ck_assert_int_eq(image_file_extract(&image, "NONE", kernel, &err), -ERROR_NOT_FOUND);
    ck_assert_int_eq(image_file_extract(&image, IMAGE_KERNEL, kernel, &err), 0);
    ck_assert_int_eq(image_file_extract(&image, IMAGE_KERNEL, kernel, &err), -ERROR_IO); /* there */
    FILE *file = fopen(kernel, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fread(read_back, 1, sizeof(read_back), file), 6);
    fclose(file);
    ck_assert_str_eq(read_back, "kernel");
    image_file_close(&image);
    unlink(kernel);
    unlink(path);
    ck_assert_int_eq(image_file_open(&image, path, &err), -ERROR_NOT_FOUND);
    ck_assert_int_eq(image_file_open(&image, "/tmp", &err), -ERROR_DISK);
    ck_assert_int_eq(image_file_open(&image, "/dev/null", &err), -ERROR_DISK);
}
END_TEST

/* The command line of the image and that of the user go to the kernel whole, or not at all. */
START_TEST(test_long_command_line)
{
    char path[32], append[MACHINE_IMAGE_APPEND_MAX], words[MACHINE_IMAGE_APPEND_MAX];
    const struct machine_image setting = {.image = path, .persistent = true};
    struct image_properties properties;
    struct error err = {0};

    disk_make(disk, true);
    disk_add(disk, "VMLINUX    ", "kernel", 6);
    disk_add(disk, "CMDLINE TXT", "root=x quiet", 13);
    disk_add(disk, "IMAGE   INF", "arch=riscv64\n", 13);
    write_disk(path);
    for (unsigned over = 0; over < 2; over++) {
        char kernel[] = "/boot/own";
        struct machine_settings machine = {.arch = "riscv64", .kernel = kernel};
        memset(words, 'x', sizeof(words));
        words[sizeof(append) - sizeof("root=x quiet ") + over] = '\0';
        machine.append = words;
        ck_assert_int_eq(machine_image_prepare(&setting, MACHINE_IMAGE_OVERLAY, "/tmp", "m",
                                               &machine, append, &properties, &err),
                         over ? -ERROR_CONFIG : 0);
        if (!over) {
            ck_assert_uint_eq(strlen(machine.append), sizeof(append) - 1);
            ck_assert_str_eq(machine.disks.items[0].path, path);
            free(machine.disks.items[0].path);
            free(machine.disks.items[0].format);
            free(machine.nets.items[0]);
        }
    }
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image_file");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, test_crc);
    tcase_add_test(tcase, test_partition);
    tcase_add_loop_test(tcase, test_wrong_table, 0, sizeof(wrong_tables) / sizeof(wrong_tables[0]));
    tcase_add_test(tcase, test_no_disk);
    tcase_add_loop_test(tcase, test_files, 0, 2);
    tcase_add_loop_test(tcase, test_entries_that_are_no_files, 0, 2);
    tcase_add_test(tcase, test_who_takes_may_end_it);
    tcase_add_test(tcase, test_wrong_chains);
    tcase_add_test(tcase, test_nothing_is_read_behind_a_directory);
    tcase_add_loop_test(tcase, test_wrong_boot_sector, 0,
                        sizeof(wrong_boots) / sizeof(wrong_boots[0]));
    tcase_add_test(tcase, test_short_image);
    tcase_add_test(tcase, test_properties);
    tcase_add_test(tcase, test_image_file);
    tcase_add_test(tcase, test_long_command_line);
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
