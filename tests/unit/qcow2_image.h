/* Images for the tests of qcow2: files without names, and a model of what a disk contains. */
#ifndef POLYVISOR_TESTS_UNIT_QCOW2_IMAGE_H
#define POLYVISOR_TESTS_UNIT_QCOW2_IMAGE_H

#include "libshared/base/direct_io.h"
#include "libshared/qcow2/qcow2.h"
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline int image_file(void)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static inline int image_make(const struct qcow2_creation *creation)
{
    struct error err;
    int fd = image_file();

    error_clear(&err);
    ck_assert_msg(qcow2_create(fd, "test", creation, &err) == 0, "%s", err.message);
    return fd;
}

/* In a file of the present folder that is used directly; -1 when its file system has no direct
 * access, or its blocks are larger than the disk's sectors or the image's clusters. */
static inline int image_make_direct(const struct qcow2_creation *creation)
{
    struct direct_alignment alignment;
    struct error err;
    int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    error_clear(&err);
    if (fd < 0) {
        return -1;
    }
    ck_assert_msg(qcow2_create(fd, "test", creation, &err) == 0, "%s", err.message);
    if (fcntl(fd, F_SETFL, O_RDWR | O_DIRECT) == 0) {
        direct_io_alignment(fd, &alignment);
        if (alignment.offset == QCOW2_SECTOR) {
            return fd;
        }
    }
    close(fd);
    return -1;
}

static inline struct qcow2 *image_open(int fd, bool read_only)
{
    struct error err;

    error_clear(&err);
    struct qcow2 *image = qcow2_open(fd, "test", read_only, &err);
    ck_assert_msg(image != NULL, "%s", err.message);
    return image;
}

static inline struct qcow2_report image_check(int fd, enum qcow2_repair repair)
{
    struct qcow2_report report;
    struct error err;

    error_clear(&err);
    ck_assert_msg(qcow2_check(fd, "test", repair, &report, &err) == 0, "%s", err.message);
    return report;
}

/* Nothing is wrong, nothing is lost. */
static inline void image_is_sound(int fd)
{
    struct qcow2_report report = image_check(fd, QCOW2_REPAIR_NOTHING);

    ck_assert_msg(report.errors == 0, "%llu errors: %s", (unsigned long long)report.errors,
                  report.first);
    ck_assert_uint_eq(report.leaks, 0);
}

/* A sequence that is the same in each run. */
static inline uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t value = *state;
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

static inline void fill_random(uint8_t *bytes, size_t size, uint64_t *state)
{
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t value = next_random(state);
        memcpy(bytes + i, &value, 8);
    }
}

static inline int image_write(struct qcow2 *image, uint64_t offset, const void *bytes, size_t size)
{
    const struct iovec vector = {(void *)bytes, size};
    return qcow2_write(image, offset, size, &vector, 1, false);
}

static inline int image_read(struct qcow2 *image, uint64_t offset, void *bytes, size_t size)
{
    const struct iovec vector = {bytes, size};
    return qcow2_read(image, offset, size, &vector, 1);
}

/* The disk contains exactly these bytes. */
static inline void image_contains(struct qcow2 *image, const uint8_t *bytes, size_t size)
{
    uint8_t *found = malloc(size);

    ck_assert_uint_eq(qcow2_size(image), size);
    ck_assert_int_eq(image_read(image, 0, found, size), 0);
    for (size_t i = 0; i < size; i++) {
        if (found[i] != bytes[i]) {
            ck_abort_msg("byte %zu is %#x, not %#x", i, found[i], bytes[i]);
        }
    }
    free(found);
}

#endif
