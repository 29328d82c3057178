#include "vmmd/vcpu/boot/image.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_CHUNK (8u << 20)

int boot_image_open(struct boot_image *image, int fd, const char *what, struct error *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return error_set(err, ERROR_KERNEL, errno, "the %s cannot be read", what);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(err, ERROR_KERNEL, 0, "the %s is %s, not a regular file", what,
                         S_ISDIR(status.st_mode) ? "a directory" : "a special file");
    }
    if (status.st_size <= 0) {
        return error_set(err, ERROR_KERNEL, 0, "the %s is empty", what);
    }
    if ((uint64_t)status.st_size > BOOT_IMAGE_MAX) {
        return error_set(err, ERROR_KERNEL, 0, "the %s is impossibly large (%jd bytes)", what,
                         (intmax_t)status.st_size);
    }
    *image = (struct boot_image){.fd = fd, .size = (uint64_t)status.st_size, .what = what};
    return 0;
}

int boot_image_read(const struct boot_image *image, uint64_t offset, void *buffer, size_t size,
                    struct error *err)
{
    if (offset > image->size || size > image->size - offset) {
        return error_set(err, ERROR_KERNEL, 0,
                         "the %s is truncated: %" PRIu64 " bytes, but it refers to byte %" PRIu64,
                         image->what, image->size, offset + size);
    }
    uint8_t *to = buffer;
    while (size > 0) {
        size_t chunk = size < READ_CHUNK ? size : READ_CHUNK;
        ssize_t got = pread(image->fd, to, chunk, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return error_set(err, ERROR_IO, errno, "reading the %s failed: %s", image->what,
                             strerror(errno));
        }
        if (got == 0) {
            return error_set(err, ERROR_KERNEL, 0, "the %s became shorter while it was read",
                             image->what);
        }
        to += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

static void *guest_range(struct memory *memory, uint64_t address, uint64_t size, struct error *err)
{
    void *host = memory_pointer(memory, address, size);
    if (!host) {
        error_set(err, ERROR_MEMORY, 0,
                  "guest memory has no %" PRIu64 " bytes at address 0x%" PRIx64, size, address);
    }
    return host;
}

int boot_image_load(const struct boot_image *image, uint64_t offset, uint64_t size,
                    struct memory *memory, uint64_t address, struct error *err)
{
    void *host = guest_range(memory, address, size, err);
    if (!host) {
        return -ERROR_MEMORY;
    }
    int status = boot_image_read(image, offset, host, size, err);
    memory_device_wrote(memory, address, size);
    return status;
}

int boot_memory_write(struct memory *memory, uint64_t address, const void *bytes, uint64_t size,
                      struct error *err)
{
    void *host = guest_range(memory, address, size, err);
    if (!host) {
        return -ERROR_MEMORY;
    }
    if (bytes) {
        memcpy(host, bytes, size);
    } else {
        memset(host, 0, size);
    }
    memory_device_wrote(memory, address, size);
    return 0;
}
