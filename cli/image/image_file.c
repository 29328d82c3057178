#include "cli/image/image_file.h"

#include "cli/image/gpt.h"
#include "libshared/qcow2/header.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- What it says of itself ---- */

static const struct property {
    const char *key;
    size_t offset, room;
} properties_known[] = {
#define PROPERTY(name)                                                                             \
    {                                                                                              \
#name, offsetof(struct image_properties, name),                                            \
            sizeof(((struct image_properties *)0)->name)                                           \
    }
    PROPERTY(arch),  PROPERTY(distribution), PROPERTY(suite),     PROPERTY(kernel),
    PROPERTY(built), PROPERTY(packages),     PROPERTY(polyvisor), PROPERTY(agent),
#undef PROPERTY
};

/* As much of a text as there is room for, up to the end of its line, without control characters. */
static void copy_line(char *to, size_t room, const char *from, size_t length)
{
    size_t count = length < room - 1 ? length : room - 1;

    for (size_t i = 0; i < count; i++) {
        to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
    }
    to[count] = '\0';
}

void image_properties_parse(const char *text, struct image_properties *properties)
{
    memset(properties, 0, sizeof(*properties));
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");

        for (size_t i = 0; i < sizeof(properties_known) / sizeof(properties_known[0]); i++) {
            const struct property *property = &properties_known[i];
            size_t key = strlen(property->key);
            if (length > key && text[key] == '=' && memcmp(text, property->key, key) == 0) {
                copy_line((char *)properties + property->offset, property->room, text + key + 1,
                          length - key - 1);
            }
        }
        text += length + (text[length] == '\n');
    }
}

/* ---- Files of the boot partition ---- */

struct text {
    char *bytes;
    size_t length, room;
};

static int take_text(void *context, const uint8_t *bytes, size_t size, struct error *err)
{
    struct text *text = context;
    size_t count = size < text->room - text->length ? size : text->room - text->length;

    (void)err;
    memcpy(text->bytes + text->length, bytes, count);
    text->length += count;
    return 0;
}

/* A file of text, ended by a zero; what has no room is left out. */
static int read_text(struct image_file *image, const char *name, char *bytes, size_t room,
                     struct error *err)
{
    struct text text = {.bytes = bytes, .room = room - 1};
    struct fat_file file;
    int status = fat_find(&image->boot, name, &file, err);

    if (status == 0) {
        file.size = file.size < room ? file.size : (uint32_t)room;
        status = fat_read(&image->boot, &file, take_text, &text, err);
    }
    bytes[text.length] = '\0';
    return status;
}

static int take_file(void *context, const uint8_t *bytes, size_t size, struct error *err)
{
    int fd = *(const int *)context;

    while (size > 0) {
        ssize_t count = write(fd, bytes, size);
        if (count < 0 && errno != EINTR) {
            return error_set(err, ERROR_IO, errno, "cannot write: %s", strerror(errno));
        }
        bytes += count > 0 ? count : 0;
        size -= count > 0 ? (size_t)count : 0;
    }
    return 0;
}

int image_file_extract(struct image_file *image, const char *name, const char *path,
                       struct error *err)
{
    struct fat_file file;
    int status = fat_find(&image->boot, name, &file, err);

    if (status != 0) {
        return status;
    }
    if (file.size > IMAGE_BOOT_FILE_MAX) {
        return error_set(err, ERROR_DISK, 0, "the image's %s is too large", name);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return error_set(err, ERROR_IO, errno, "cannot make '%.200s': %s", path, strerror(errno));
    }
    status = fat_read(&image->boot, &file, take_file, &fd, err);
    close(fd);
    if (status != 0) {
        unlink(path);
    }
    return status;
}

/* ---- Opening it ---- */

static int read_boot_partition(struct image_file *image, const char *path, struct error *err)
{
    char text[IMAGE_TEXT_MAX];
    struct gpt_partition partition;
    int status = gpt_find(image->fd, image->bytes, gpt_type_efi, &partition, err);

    if (status == 0) {
        status = fat_open(&image->boot, image->fd, partition.start, partition.size, err);
    }
    if (status == 0) {
        status = read_text(image, IMAGE_COMMAND_LINE, text, sizeof(text), err);
        copy_line(image->command_line, sizeof(image->command_line), text, strcspn(text, "\n"));
    }
    if (status == 0) {
        status = read_text(image, IMAGE_PROPERTIES, text, sizeof(text), err);
        image_properties_parse(text, &image->properties);
    }
    if (status == -ERROR_NOT_FOUND) {
        error_set(err, ERROR_DISK, 0, "'%.200s' is not an image that 'vmctl image build' makes: %s",
                  path, "it has no boot partition of that kind");
        error_hint(err, "boot other disks with --kernel, --disk path=FILE and --append root=...");
        return -ERROR_DISK;
    }
    return status;
}

static int look(struct image_file *image, const char *path, struct error *err)
{
    struct stat info;
    char magic[4] = "";

    if (fstat(image->fd, &info) < 0) {
        return error_set(err, ERROR_IO, errno, "cannot look at '%.200s': %s", path,
                         strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return error_set(err, ERROR_DISK, 0, "'%.200s' is not a file", path);
    }
    image->bytes = (uint64_t)info.st_size;
    image->used_bytes = (uint64_t)info.st_blocks * 512;
    ssize_t count = pread(image->fd, magic, sizeof(magic), 0);
    if (count > 0 && qcow2_is_magic(magic, (size_t)count)) {
        error_set(err, ERROR_DISK, 0, "'%.200s' is a qcow2 file, and images are raw", path);
        error_hint(err, "convert it: qemu-img convert -O raw FILE NEW");
        return -ERROR_DISK;
    }
    return read_boot_partition(image, path, err);
}

int image_file_open(struct image_file *image, const char *path, struct error *err)
{
    memset(image, 0, sizeof(*image));
    image->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (image->fd < 0) {
        enum error_code code = errno == ENOENT   ? ERROR_NOT_FOUND
                               : errno == EACCES ? ERROR_PERMISSION
                                                 : ERROR_IO;
        return error_set(err, code, errno, "cannot open the image '%.200s': %s", path,
                         strerror(errno));
    }
    int status = look(image, path, err);
    if (status != 0) {
        image_file_close(image);
    }
    return status;
}

void image_file_close(struct image_file *image)
{
    if (image->fd >= 0) {
        close(image->fd);
    }
    image->fd = -1;
}
