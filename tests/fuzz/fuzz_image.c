/*
 * A disk image as somebody hostile made it, of which vmctl reads partition table, boot partition
 * and words before it boots it. The fuzzer's bytes change a sound one; with right checksums,
 * mostly, so that what lies behind them is reached.
 */
#include "cli/image/fat.h"
#include "cli/image/image_file.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/unit/image_disk.h"

#include <sys/mman.h>

/* The sound ones, in memory and as files; the files are changed, and mended after each input. */
static struct disk sound[2];
static int files[2] = {-1, -1};

#define CHANGES_MAX 64

static uint64_t taken;

static int take(void *context, const uint8_t *bytes, size_t size, struct error *err)
{
    uint64_t *sum = context;

    (void)err;
    taken += size;
    for (size_t i = 0; i < size; i += 511) {
        *sum += bytes[i];
    }
    return 0;
}

static void make_sound(void)
{
    static uint8_t kernel[5000];

    for (unsigned is_32 = 0; is_32 < 2; is_32++) {
        disk_make(&sound[is_32], is_32);
        disk_add(&sound[is_32], "VMLINUX    ", kernel, sizeof(kernel));
        disk_add(&sound[is_32], "INITRD  IMG", kernel, 700);
        disk_add(&sound[is_32], "CMDLINE TXT", "root=x\n", 7);
        disk_add(&sound[is_32], "IMAGE   INF", "arch=riscv64\nsuite=y\n", 21);
        files[is_32] = memfd_create("disk", MFD_CLOEXEC);
        fuzz_require(files[is_32] >= 0 && disk_write(&sound[is_32], files[is_32]), "a file");
    }
}

/* Where changes mean something. */
static uint32_t pick_place(struct fuzz_input *input)
{
    static const uint32_t bases[] = {512,
                                     1024,
                                     1024 + 128,
                                     DISK_START,
                                     DISK_START + FAT_RESERVED * 512,
                                     DISK_START + (FAT_RESERVED + FAT_SECTORS) * 512};
    uint32_t base = bases[fuzz_pick(input, sizeof(bases) / sizeof(bases[0]))];

    return base + (uint32_t)fuzz_take(input, 1) +
           (fuzz_pick(input, 8) == 0 ? 256u * fuzz_pick(input, 64) : 0);
}

/* What the input says, in `disk` and in its file. */
static void change_disk(struct fuzz_input *input, struct disk *disk, int fd)
{
    for (unsigned i = 0; input->size > 0 && i < CHANGES_MAX; i++) {
        uint64_t value = htole64(fuzz_number(input));
        uint32_t place = pick_place(input), size = 1u << fuzz_pick(input, 4);

        memcpy(disk->bytes + place, &value, size);
        fuzz_require(pwrite(fd, &value, size, place) == (ssize_t)size, "a change is written");
    }
}

static void read_one(struct fat *fat, const char *name)
{
    struct fat_file file;
    struct error err = {0};
    uint64_t sum = 0;

    taken = 0;
    int status = fat_find(fat, name, &file, &err);
    if (status == 0) {
        status = fat_read(fat, &file, take, &sum, &err);
        fuzz_require(taken <= file.size, "no more bytes than the file has");
        fuzz_require(status != 0 || taken == file.size, "nor fewer");
    }
    fuzz_require(status == -(int)err.code, "the status is the error's code");
}

static void read_disk(int fd, uint64_t bytes)
{
    struct gpt_partition partition;
    struct error err = {0};
    struct fat fat;
    int status = gpt_find(fd, bytes, gpt_type_efi, &partition, &err);

    if (status == 0) {
        fuzz_require(partition.start < bytes && partition.size <= bytes - partition.start,
                     "a partition lies in its disk");
        status = fat_open(&fat, fd, partition.start, partition.size, &err);
    }
    fuzz_require(status == -(int)err.code, "the status is the error's code");
    if (status == 0) {
        read_one(&fat, IMAGE_KERNEL);
        read_one(&fat, IMAGE_COMMAND_LINE);
        read_one(&fat, IMAGE_PROPERTIES);
    }
}

static void read_words(const uint8_t *bytes, size_t size)
{
    struct image_properties properties;
    char text[600];
    size_t length = size < sizeof(text) - 1 ? size : sizeof(text) - 1;

    memcpy(text, bytes, length);
    text[length] = '\0';
    image_properties_parse(text, &properties);
    for (const char *at = properties.arch; *at != '\0'; at++) {
        fuzz_require(*at >= ' ' && *at <= '~', "words are printable");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct disk disk;
    struct fuzz_input input = {bytes, size};

    if (files[0] < 0) {
        make_sound();
    }
    unsigned how = fuzz_pick(&input, 32), is_32 = how & 1;
    int fd = files[is_32];
    disk = sound[is_32];
    change_disk(&input, &disk, fd);
    if (how & 6) {
        disk_seal(&disk);
        fuzz_require(pwrite(fd, disk.bytes + 512, 512, 512) == 512, "checksums are written");
    }
    uint64_t room = how == 31 ? DISK_START + FAT_RESERVED * 512 + 100 : DISK_BYTES;
    fuzz_require(ftruncate(fd, (off_t)room) == 0, "the end is cut off");
    read_disk(fd, how & 8 ? room : DISK_BYTES);
    read_words(bytes, size);
    fuzz_require(disk_write(&sound[is_32], fd), "the disk is mended");
    fuzz_check_descriptors();
    return 0;
}
