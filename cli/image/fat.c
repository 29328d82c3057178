#include "cli/image/fat.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Section 3.1 to 3.3: the boot sector. */
struct boot_sector {
    uint8_t jump[3];
    char oem[8];
    uint16_t sector_bytes;
    uint8_t cluster_sectors;
    uint16_t reserved_sectors;
    uint8_t tables;
    uint16_t root_entries, sectors_16;
    uint8_t media;
    uint16_t table_sectors_16, track_sectors, heads;
    uint32_t hidden_sectors, sectors_32;
    uint32_t table_sectors_32; /* FAT32 from here on */
    uint16_t flags, version;
    uint32_t root_cluster;
} __attribute__((packed));
_Static_assert(sizeof(struct boot_sector) == 48, "as on disk");

/* Section 6. */
struct directory_entry {
    char name[11];
    uint8_t attributes, case_flags, created_tenths;
    uint16_t created[2], accessed, cluster_high, written[2], cluster_low;
    uint32_t size;
} __attribute__((packed));
_Static_assert(sizeof(struct directory_entry) == 32, "as on disk");
#define ATTRIBUTE_VOLUME 0x08 /* also set in the parts of long names */
#define ATTRIBUTE_FOLDER 0x10
#define NAME_DELETED     '\xe5'

#define FAT16_CLUSTERS_MIN 4085u
#define FAT16_CLUSTERS_MAX 65524u
#define FAT32_CLUSTERS_MAX 0x0ffffff5u
#define CLUSTER_BYTES_MAX  (64u << 10)
#define DIRECTORY_MAX      65536u /* entries of a root directory */
#define PIECE_MAX          (1u << 20)

static int damaged(struct error *err, const char *what)
{
    error_set(err, ERROR_DISK, 0, "the image's boot partition is damaged: %s", what);
    error_hint(err, "a file system check in the guest may mend it: fsck.vfat /boot/efi");
    return -ERROR_DISK;
}

static int read_at(const struct fat *fat, void *bytes, size_t size, uint64_t offset,
                   struct error *err)
{
    ssize_t count = pread(fat->fd, bytes, size, (off_t)(fat->start + offset));

    if (count < 0) {
        return error_set(err, ERROR_IO, errno, "cannot read the image: %s", strerror(errno));
    }
    return (size_t)count == size ? 0 : damaged(err, "the image ends early");
}

static bool power_of_two(uint32_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

/* The geometry, from numbers that are what they are; all sums are of 64 bits. */
static int take_geometry(struct fat *fat, const struct boot_sector *boot, uint64_t size,
                         struct error *err)
{
    uint64_t sector = le16toh(boot->sector_bytes);
    uint64_t sectors =
        le16toh(boot->sectors_16) ? le16toh(boot->sectors_16) : le32toh(boot->sectors_32);
    uint64_t table_sectors = le16toh(boot->table_sectors_16) ? le16toh(boot->table_sectors_16)
                                                             : le32toh(boot->table_sectors_32);
    uint64_t root_sectors = sector ? (le16toh(boot->root_entries) * 32 + sector - 1) / sector : 0;
    uint64_t before = le16toh(boot->reserved_sectors) + boot->tables * table_sectors;

    if (sector < 512 || sector > 4096 || !power_of_two((uint32_t)sector) ||
        !power_of_two(boot->cluster_sectors) || boot->tables == 0 || table_sectors == 0 ||
        boot->cluster_sectors * sector > CLUSTER_BYTES_MAX || sectors > size / sector ||
        before + root_sectors >= sectors) {
        return damaged(err, "it is no FAT file system");
    }
    uint64_t clusters = (sectors - before - root_sectors) / boot->cluster_sectors;
    fat->is_32 = le16toh(boot->table_sectors_16) == 0;
    fat->cluster_bytes = (uint32_t)(boot->cluster_sectors * sector);
    fat->table = le16toh(boot->reserved_sectors) * sector;
    fat->table_bytes = table_sectors * sector;
    fat->root = before * sector;
    fat->root_entries = le16toh(boot->root_entries);
    fat->root_cluster = fat->is_32 ? le32toh(boot->root_cluster) : 0;
    fat->data = (before + root_sectors) * sector;
    if (fat->is_32 ? clusters > FAT32_CLUSTERS_MAX
                   : clusters < FAT16_CLUSTERS_MIN || clusters > FAT16_CLUSTERS_MAX) {
        return damaged(err, "it is neither FAT16 nor FAT32");
    }
    fat->clusters = (uint32_t)clusters;
    return 0;
}

int fat_open(struct fat *fat, int fd, uint64_t start, uint64_t size, struct error *err)
{
    struct boot_sector boot;

    memset(fat, 0, sizeof(*fat));
    fat->fd = fd;
    fat->start = start;
    fat->window_at = UINT64_MAX;
    int status =
        size < 512 ? damaged(err, "it is too small") : read_at(fat, &boot, sizeof(boot), 0, err);
    return status == 0 ? take_geometry(fat, &boot, size, err) : status;
}

/* The cluster behind `cluster`: 0 with *next, which is 0 at the end of a chain. */
static int next_cluster(struct fat *fat, uint32_t cluster, uint32_t *next, struct error *err)
{
    uint32_t width = fat->is_32 ? 4 : 2, value = 0;
    uint64_t at = (uint64_t)cluster * width, window = at & ~(uint64_t)(sizeof(fat->window) - 1);

    if (cluster < 2 || cluster - 2 >= fat->clusters || at + width > fat->table_bytes) {
        return damaged(err, "a file lies outside of it");
    }
    if (fat->window_at != window) {
        uint64_t left = fat->table_bytes - window;
        size_t bytes = left < sizeof(fat->window) ? (size_t)left : sizeof(fat->window);
        int status = read_at(fat, fat->window, bytes, fat->table + window, err);
        fat->window_at = status == 0 ? window : UINT64_MAX;
        if (status != 0) {
            return status;
        }
    }
    memcpy(&value, fat->window + (at - window), width);
    value = le32toh(value) & 0x0fffffffu;
    *next = value >= (fat->is_32 ? 0x0ffffff8u : 0xfff8u) ? 0 : value;
    return 0;
}

/* ---- Following a chain ---- */

/* Clusters that lie together are read together. */
struct run {
    uint32_t first, count;
    uint32_t next; /* behind it, 0: nothing */
};

static int find_run(struct fat *fat, uint32_t cluster, uint32_t most, struct run *run,
                    struct error *err)
{
    *run = (struct run){.first = cluster, .next = cluster};
    do {
        int status = next_cluster(fat, run->first + run->count, &run->next, err);
        if (status != 0) {
            return status;
        }
        run->count++;
    } while (run->count < most && run->next == run->first + run->count);
    return 0;
}

/* Hand out the chain from `cluster` on, `size` bytes of it (UINT64_MAX: to its end). */
static int walk_chain(struct fat *fat, uint32_t cluster, uint64_t size,
                      int (*take)(void *, const uint8_t *, size_t, struct error *), void *context,
                      struct error *err)
{
    uint32_t most = PIECE_MAX / fat->cluster_bytes;
    uint8_t *piece = malloc(PIECE_MAX);
    uint64_t seen = 0;
    int status = piece != NULL ? 0 : error_set(err, ERROR_INTERNAL, ENOMEM, "out of memory");

    while (status == 0 && cluster != 0 && size > 0) {
        struct run run;
        status = find_run(fat, cluster, most, &run, err);
        seen += run.count;
        if (status == 0 && seen > fat->clusters) {
            status = damaged(err, "a file has no end");
        }
        uint64_t bytes = (uint64_t)run.count * fat->cluster_bytes;
        bytes = bytes < size ? bytes : size;
        if (status == 0) {
            status = read_at(fat, piece, (size_t)bytes,
                             fat->data + (uint64_t)(run.first - 2) * fat->cluster_bytes, err);
        }
        if (status == 0) {
            status = take(context, piece, (size_t)bytes, err);
        }
        size -= size == UINT64_MAX ? 0 : bytes;
        cluster = run.next;
    }
    free(piece);
    if (status == 0 && size != UINT64_MAX && size > 0) {
        status = damaged(err, "a file is shorter than it says");
    }
    return status;
}

int fat_read(struct fat *fat, const struct fat_file *file,
             int (*take)(void *context, const uint8_t *bytes, size_t size, struct error *err),
             void *context, struct error *err)
{
    return walk_chain(fat, file->cluster, file->size, take, context, err);
}

/* ---- The root directory ---- */

struct search {
    char name[11];
    struct fat_file file;
    bool found, ended;
    uint32_t entries;
};

/* "CMDLINE.TXT" as it stands in a directory. */
static bool stored_name(const char *name, char stored[11])
{
    size_t at = 0;

    memset(stored, ' ', 11);
    for (; *name != '\0'; name++) {
        if (*name == '.' && at <= 8) {
            at = 8;
        } else if (at >= 11) {
            return false;
        } else {
            stored[at++] = (char)toupper((unsigned char)*name);
        }
    }
    return true;
}

/* 1 when nothing more need be read: the rest of a chain may be as long as the disk. */
static int search_entries(void *context, const uint8_t *bytes, size_t size, struct error *err)
{
    struct search *search = context;

    for (; size >= sizeof(struct directory_entry) && !search->found && !search->ended;
         size -= sizeof(struct directory_entry), bytes += sizeof(struct directory_entry)) {
        struct directory_entry entry;
        memcpy(&entry, bytes, sizeof(entry));
        search->ended = entry.name[0] == '\0';
        if (++search->entries > DIRECTORY_MAX) {
            return damaged(err, "its directory has no end");
        }
        if (entry.name[0] != NAME_DELETED &&
            !(entry.attributes & (ATTRIBUTE_VOLUME | ATTRIBUTE_FOLDER)) &&
            memcmp(entry.name, search->name, sizeof(entry.name)) == 0) {
            search->found = true;
            search->file.size = le32toh(entry.size);
            search->file.cluster =
                (uint32_t)le16toh(entry.cluster_high) << 16 | le16toh(entry.cluster_low);
        }
    }
    return search->found || search->ended;
}

/* FAT16 has it in a place of its own. */
static int search_fixed_root(struct fat *fat, struct search *search, struct error *err)
{
    uint8_t entries[512];
    int status = 0;

    for (uint32_t i = 0; i + 16 <= fat->root_entries && status == 0; i += 16) {
        status = read_at(fat, entries, sizeof(entries), fat->root + (uint64_t)i * 32, err);
        if (status == 0) {
            status = search_entries(search, entries, sizeof(entries), err);
        }
    }
    return status;
}

int fat_find(struct fat *fat, const char *name, struct fat_file *file, struct error *err)
{
    struct search search = {.found = false};

    if (!stored_name(name, search.name)) {
        return error_set(err, ERROR_INTERNAL, 0, "'%.40s' is no short name", name);
    }
    int status = fat->is_32
                     ? walk_chain(fat, fat->root_cluster, UINT64_MAX, search_entries, &search, err)
                     : search_fixed_root(fat, &search, err);
    if (status < 0) {
        return status;
    }
    if (!search.found) {
        return error_set(err, ERROR_NOT_FOUND, 0, "the image's boot partition has no %.40s", name);
    }
    if (!fat->is_32) {
        search.file.cluster &= 0xffff;
    }
    *file = search.file;
    return 0;
}
