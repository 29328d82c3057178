#include "vmmd/record.h"

#include "vmmd/validate.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAGIC    0x54535650u /* "PVST" */
#define RECORD_SIZE_MAX (1u << 20)
#define RECORD_NEW_FILE RECORD_FILE ".new"
#define BOOT_ID_MAX     64

struct record_header {
    uint32_t magic;
    uint32_t version;
    uint32_t length;
};
_Static_assert(sizeof(struct record_header) == 12, "file layout");

static void record_boot_id(char id[BOOT_ID_MAX])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, id, BOOT_ID_MAX - 1);

    if (fd >= 0) {
        close(fd);
    }
    id[length > 0 ? length : 0] = '\0';
    id[strcspn(id, "\n")] = '\0';
}

static int record_write_all(int fd, const void *data, size_t size)
{
    const char *next = data;

    while (size > 0) {
        ssize_t written = write(fd, next, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return -errno;
        }
        next += written;
        size -= (size_t)written;
    }
    return 0;
}

int record_write(const char *directory, Polyvisor__MachineRecord *record)
{
    char boot_id[BOOT_ID_MAX];
    int result = 0, file = -1;
    uint8_t *buffer = NULL;

    record_boot_id(boot_id);
    record->version = RECORD_VERSION;
    record->boot_id = boot_id;
    size_t size = polyvisor__machine_record__get_packed_size(record);
    int parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) {
        result = -errno;
        goto out;
    }
    if (size > RECORD_SIZE_MAX) {
        result = -EMSGSIZE;
        goto out;
    }
    buffer = malloc(sizeof(struct record_header) + size);
    if (!buffer) {
        result = -ENOMEM;
        goto out;
    }
    struct record_header header = {
        .magic = htole32(RECORD_MAGIC),
        .version = htole32(RECORD_VERSION),
        .length = htole32((uint32_t)size),
    };
    memcpy(buffer, &header, sizeof(header));
    polyvisor__machine_record__pack(record, buffer + sizeof(header));

    file = openat(parent, RECORD_NEW_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                  0600);
    result = file < 0 ? -errno : record_write_all(file, buffer, sizeof(header) + size);
    if (!result && renameat(parent, RECORD_NEW_FILE, parent, RECORD_FILE) < 0) {
        result = -errno;
    }
out:
    record->boot_id = (char *)protobuf_c_empty_string;
    free(buffer);
    if (file >= 0) {
        close(file);
    }
    if (parent >= 0) {
        close(parent);
    }
    return result;
}

/* The whole file, at most RECORD_SIZE_MAX and the header. NULL with errno set. */
static uint8_t *record_read_file(const char *directory, size_t *size)
{
    char path[512];
    struct stat status;
    uint8_t *buffer = NULL;

    snprintf(path, sizeof(path), "%s/" RECORD_FILE, directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
        status.st_size < (off_t)sizeof(struct record_header) ||
        status.st_size > (off_t)(RECORD_SIZE_MAX + sizeof(struct record_header))) {
        errno = EBADMSG;
        goto out;
    }
    *size = (size_t)status.st_size;
    buffer = malloc(*size);
    if (buffer && read(fd, buffer, *size) != (ssize_t)*size) {
        free(buffer);
        buffer = NULL;
        errno = EBADMSG;
    }
out:;
    int saved = errno;
    close(fd);
    errno = saved;
    return buffer;
}

Polyvisor__MachineRecord *record_read(const char *directory)
{
    struct record_header header;
    Polyvisor__MachineRecord *record = NULL;
    size_t size = 0;
    uint8_t *buffer = record_read_file(directory, &size);

    if (!buffer) {
        return NULL;
    }
    memcpy(&header, buffer, sizeof(header));
    if (le32toh(header.magic) == RECORD_MAGIC && le32toh(header.version) == RECORD_VERSION &&
        le32toh(header.length) == size - sizeof(header)) {
        record =
            polyvisor__machine_record__unpack(NULL, size - sizeof(header), buffer + sizeof(header));
    }
    free(buffer);
    if (record && !record->config) {
        polyvisor__machine_record__free_unpacked(record, NULL);
        record = NULL;
    }
    errno = EBADMSG;
    return record;
}

bool record_is_current(const Polyvisor__MachineRecord *record)
{
    char boot_id[BOOT_ID_MAX];

    record_boot_id(boot_id);
    return boot_id[0] && !strcmp(record->boot_id, boot_id);
}

/* What /proc says of a process, from its third field on, into `line`; NULL when there is none. */
static const char *process_stat(pid_t pid, char *line, size_t size)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    ssize_t length = read(fd, line, size - 1);
    close(fd);
    if (length <= 0) {
        return NULL;
    }
    line[length] = '\0';
    /* The second field is the name, in parentheses, and may hold anything: begin after its end. */
    const char *name_end = strrchr(line, ')');
    return name_end ? name_end + 1 : NULL;
}

uint64_t process_start_time(pid_t pid)
{
    char line[1024];
    unsigned long long start = 0;
    const char *rest = process_stat(pid, line, sizeof(line));

    if (!rest || sscanf(rest,
                        " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                        "%*s %llu",
                        &start) != 1) {
        return 0;
    }
    return start;
}
