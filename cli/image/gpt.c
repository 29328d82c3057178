#include "cli/image/gpt.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* UEFI 2.10, 5.3.2, table 5.5; numbers are little-endian. */
struct gpt_header {
    char signature[8];
    uint32_t revision, header_size, header_crc, reserved;
    uint64_t own_lba, other_lba, first_usable_lba, last_usable_lba;
    uint8_t disk_guid[GPT_GUID_BYTES];
    uint64_t entries_lba;
    uint32_t entry_count, entry_size, entries_crc;
} __attribute__((packed));
_Static_assert(sizeof(struct gpt_header) == 92, "as on disk");

/* 5.3.3, table 5.6: what of an entry is looked at. */
struct gpt_entry {
    uint8_t type[GPT_GUID_BYTES], guid[GPT_GUID_BYTES];
    uint64_t first_lba, last_lba;
};
#define ENTRY_SIZE_MIN 128u
#define ENTRY_SIZE_MAX 4096u

const uint8_t gpt_type_efi[GPT_GUID_BYTES] = {0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11,
                                              0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b};

uint32_t gpt_crc(uint32_t before, const uint8_t *bytes, size_t size)
{
    return (uint32_t)crc32_z(before, bytes, size);
}

static int damaged(struct error *err, const char *what)
{
    error_set(err, ERROR_DISK, 0, "the image's partition table is damaged: %s", what);
    error_hint(err, "was it copied whole? build it again with 'vmctl image build'");
    return -ERROR_DISK;
}

static int read_at(int fd, void *bytes, size_t size, uint64_t offset, struct error *err)
{
    ssize_t count = pread(fd, bytes, size, (off_t)offset);

    if (count < 0) {
        return error_set(err, ERROR_IO, errno, "cannot read the image: %s", strerror(errno));
    }
    return (size_t)count == size ? 0 : damaged(err, "it ends early");
}

static int read_header(int fd, uint64_t bytes, struct gpt_header *header, struct error *err)
{
    uint8_t sector[GPT_SECTOR];

    if (bytes < 2 * GPT_SECTOR) {
        return error_set(err, ERROR_NOT_FOUND, 0, "the image has no partition table");
    }
    int status = read_at(fd, sector, sizeof(sector), GPT_SECTOR, err);
    if (status != 0) {
        return status;
    }
    memcpy(header, sector, sizeof(*header));
    if (memcmp(header->signature, "EFI PART", sizeof(header->signature)) != 0) {
        return error_set(err, ERROR_NOT_FOUND, 0, "the image has no partition table");
    }
    uint32_t size = le32toh(header->header_size), crc = le32toh(header->header_crc);
    if (size < sizeof(*header) || size > sizeof(sector)) {
        return damaged(err, "its header has an impossible size");
    }
    memset(sector + offsetof(struct gpt_header, header_crc), 0, sizeof(header->header_crc));
    if (gpt_crc(0, sector, size) != crc) {
        return damaged(err, "its header has a wrong checksum");
    }
    return 0;
}

/* All entries, as bytes to be freed. */
static int read_entries(int fd, uint64_t bytes, const struct gpt_header *header, uint8_t **entries,
                        struct error *err)
{
    uint32_t count = le32toh(header->entry_count), each = le32toh(header->entry_size);
    uint64_t lba = le64toh(header->entries_lba);

    if (count > GPT_ENTRIES_MAX || each < ENTRY_SIZE_MIN || each > ENTRY_SIZE_MAX ||
        lba > bytes / GPT_SECTOR) {
        return damaged(err, "its entries lie nowhere");
    }
    size_t size = (size_t)count * each;
    uint8_t *buffer = malloc(size + 1);
    if (buffer == NULL) {
        return error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");
    }
    int status = read_at(fd, buffer, size, lba * GPT_SECTOR, err);
    if (status == 0 && gpt_crc(0, buffer, size) != le32toh(header->entries_crc)) {
        status = damaged(err, "its entries have a wrong checksum");
    }
    if (status != 0) {
        free(buffer);
        return status;
    }
    *entries = buffer;
    return 0;
}

int gpt_find(int fd, uint64_t bytes, const uint8_t type[GPT_GUID_BYTES],
             struct gpt_partition *partition, struct error *err)
{
    struct gpt_header header;
    uint8_t *entries = NULL;
    int status = read_header(fd, bytes, &header, err);

    if (status == 0) {
        status = read_entries(fd, bytes, &header, &entries, err);
    }
    if (status != 0) {
        return status;
    }
    status = -ERROR_NOT_FOUND;
    for (uint32_t i = 0; i < le32toh(header.entry_count) && status == -ERROR_NOT_FOUND; i++) {
        struct gpt_entry entry;
        memcpy(&entry, entries + (size_t)i * le32toh(header.entry_size), sizeof(entry));
        uint64_t first = le64toh(entry.first_lba), last = le64toh(entry.last_lba);

        if (memcmp(entry.type, type, GPT_GUID_BYTES) != 0) {
            continue;
        }
        if (first > last || last >= bytes / GPT_SECTOR) {
            status = damaged(err, "a partition lies outside of the image");
        } else {
            partition->start = first * GPT_SECTOR;
            partition->size = (last - first + 1) * GPT_SECTOR;
            status = 0;
        }
    }
    free(entries);
    return status == -ERROR_NOT_FOUND
               ? error_set(err, ERROR_NOT_FOUND, 0, "the image has no such partition")
               : status;
}
