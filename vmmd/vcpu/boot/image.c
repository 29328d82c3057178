#include "vmmd/vcpu/boot/image.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_CHUNK     (8u << 20)
#define SEARCH_CHUNK   (256u << 10) /* fits the processor's cache */
#define SEARCH_OVERLAP 64u          /* no word that is looked for is longer */

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

/* Mark the words that occur in `size` bytes; how many were new. */
static size_t find_words(const uint8_t *bytes, size_t size, const char *const *words, size_t count,
                         uint32_t *found)
{
    size_t new = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(*found >> i & 1) && memmem(bytes, size, words[i], strlen(words[i]) + 1)) {
            *found |= UINT32_C(1) << i;
            new ++;
        }
    }
    return new;
}

bool boot_image_mentions(const struct boot_image *image, const char *const *words, size_t count)
{
    uint8_t *buffer = malloc(SEARCH_CHUNK + SEARCH_OVERLAP);
    uint32_t found = 0;
    size_t missing = count, kept = 0;
    for (uint64_t offset = 0; buffer && missing > 0 && offset < image->size;) {
        uint64_t left = image->size - offset;
        size_t size = left < SEARCH_CHUNK ? (size_t)left : SEARCH_CHUNK;
        if (boot_image_read(image, offset, buffer + kept, size, NULL) != 0) {
            break;
        }
        missing -= find_words(buffer, kept + size, words, count, &found);
        offset += size;
        /* A word may lie across the border. */
        size_t end = kept + size;
        kept = end < SEARCH_OVERLAP ? end : SEARCH_OVERLAP;
        memmove(buffer, buffer + end - kept, kept);
    }
    free(buffer);
    return missing == 0;
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
