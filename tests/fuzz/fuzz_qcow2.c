/*
 * qcow2 images from a hostile hand: a sound image is made, bytes of its tables are changed, then it
 * is opened, read, written, resized, checked and repaired. What nobody changed stays sound and
 * contains what was written.
 */
#include "libshared/qcow2/qcow2.h"
#include "tests/fuzz/fuzz_input.h"
#include <sys/mman.h>

#define DISK_BYTES (UINT64_C(1) << 20)
#define MODEL      (UINT64_C(256) << 10) /* bytes of it that are followed */
#define FILE_MOST  (INT64_C(256) << 20)

static uint8_t model[MODEL], buffer[MODEL];

static int image_make(struct fuzz_input *input)
{
    static const char name[] = "base";
    unsigned shape = fuzz_pick(input, 256);
    struct qcow2_creation creation = {
        .size = DISK_BYTES,
        .version = shape & 1 ? 2 : 3,
        .cluster_bits = 9 + shape / 2 % 8,
        .refcount_order = shape & 1 ? 4 : shape / 16 % 7,
        .refcount_order_given = true,
        .backing = shape & 128 ? name : NULL,
        .backing_format = "raw",
    };
    int fd = memfd_create("image", MFD_CLOEXEC);

    fuzz_require(fd >= 0 && qcow2_create(fd, "fuzz", &creation, NULL) == 0, "an image is made");
    return fd;
}

/* A range of the disk in sectors. */
static void range_take(struct fuzz_input *input, uint64_t size, uint64_t *offset, uint64_t *length)
{
    uint64_t sectors = size / 512;

    *offset = sectors ? fuzz_take(input, 2) % sectors * 512 : 0;
    *length = (fuzz_take(input, 1) % 129 + 1) * 512;
    *length = *length < size - *offset ? *length : size - *offset;
}

/* Whether it is what the model says; only while nothing was changed behind its back. */
static void follow(bool honest, bool good, const char *what)
{
    fuzz_require(!honest || good, what);
}

static void use(struct qcow2 *image, struct fuzz_input *input, bool honest)
{
    uint64_t most = qcow2_size(image) < MODEL ? qcow2_size(image) : MODEL, offset, length;
    unsigned steps = 1 + fuzz_pick(input, 24);

    while (steps-- && input->size) {
        unsigned what = fuzz_pick(input, 8);
        uint8_t value = (uint8_t)fuzz_take(input, 1);
        range_take(input, most, &offset, &length);
        const struct iovec vector = {buffer, length};
        int status;
        if (!length) {
            return;
        }
        if (what < 3) {
            memset(buffer, value, length);
            status = qcow2_write(image, offset, length, &vector, 1, value & 1);
            follow(honest, status == 0, "a write succeeds");
            memset(model + offset, value, length);
        } else if (what == 3) {
            status = qcow2_write_zeroes(image, offset, length, value & 1, false);
            follow(honest, status == 0, "zeroes are written");
            memset(model + offset, 0, length);
        } else if (what == 4) {
            status = qcow2_discard(image, offset, length);
            follow(honest, status == 0 && qcow2_read(image, offset, length, &vector, 1) == 0,
                   "a discard succeeds");
            memcpy(model + offset, buffer, length);
        } else if (what == 5) {
            qcow2_flush(image);
        } else {
            status = qcow2_read(image, offset, length, &vector, 1);
            follow(honest, status == 0 && !memcmp(buffer, model + offset, length),
                   "what was written is read");
        }
    }
}

/* Change a number somewhere in the tables. */
static void poke(int fd, struct fuzz_input *input)
{
    int64_t size = qcow2_file_size(fd);
    unsigned how = fuzz_pick(input, 4);
    uint64_t at = how == 0 ? fuzz_take(input, 1) % 128 : fuzz_take(input, 2) * 8;
    uint64_t value = fuzz_number(input);
    uint8_t bytes[8];

    if (how >= 2) { /* an entry that could be one */
        value = fuzz_take(input, 1) << (9 + fuzz_pick(input, 12)) |
                (uint64_t)fuzz_pick(input, 4) << 62 | fuzz_pick(input, 2);
    }
    if (size > 0 && at + 8 <= (uint64_t)size) {
        qcow2_put64(bytes, value);
        ssize_t ignored = pwrite(fd, bytes, how == 0 ? 4 : 8, (off_t)at);
        (void)ignored;
    }
}

static void inspect(int fd, struct fuzz_input *input, bool honest)
{
    enum qcow2_repair repair = (enum qcow2_repair)fuzz_pick(input, 3);
    struct qcow2_report report;
    struct error err;

    error_clear(&err);
    int status = qcow2_check(fd, "fuzz", repair, &report, &err);
    fuzz_require(status == 0 || (err.code && err.message[0]), "an error says what it is");
    follow(honest, status == 0 && !report.errors && !report.leaks, "a closed image is sound");
}

static void resize(struct qcow2 *image, struct fuzz_input *input, bool honest)
{
    uint64_t size = qcow2_size(image), by = fuzz_take(input, 2) % 2048 * 512;
    struct error err;

    if (size > UINT64_C(1) << 40) {
        return;
    }
    error_clear(&err);
    size = fuzz_pick(input, 2) || by + MODEL > size ? size + by : size - by;
    int status = qcow2_resize(image, size, &err);
    fuzz_require(status == 0 || err.code, "an error says what it is");
    follow(honest, status == 0 || err.code == ERROR_CONFIG, "an image is resized");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct fuzz_input input = {bytes, size};
    struct qcow2 *base = NULL;
    bool honest = true;
    int fd = image_make(&input), raw = memfd_create("base", MFD_CLOEXEC);

    fuzz_require(raw >= 0, "memory");
    memset(buffer, 0xbb, sizeof(buffer));
    fuzz_require(pwrite(raw, buffer, MODEL / 2, 0) == MODEL / 2, "memory");
    memset(model, 0, sizeof(model));
    for (unsigned lives = 0; lives < 6 && input.size; lives++) {
        struct error err;
        error_clear(&err);
        bool read_only = fuzz_pick(&input, 8) == 0 && !honest;
        struct qcow2 *image = qcow2_open(fd, "fuzz", read_only, &err);
        fuzz_require(image || (err.code && err.message[0]), "an error says what it is");
        follow(honest, image != NULL, "a sound image opens");
        if (image) {
            const struct qcow2_backing backing = {.image = base, .fd = raw, .size = MODEL / 2};
            if (qcow2_header(image)->backing[0]) {
                qcow2_set_backing(image, &backing);
                if (lives == 0) {
                    memset(model, 0xbb, MODEL / 2);
                }
            }
            use(image, &input, honest);
            if (fuzz_pick(&input, 4) == 0) {
                resize(image, &input, honest);
                use(image, &input, honest);
            }
            qcow2_close(image);
        }
        inspect(fd, &input, honest);
        for (unsigned pokes = fuzz_pick(&input, 4); pokes; pokes--) {
            poke(fd, &input);
            honest = false;
        }
        if (qcow2_file_size(fd) > FILE_MOST) {
            break;
        }
    }
    close(fd);
    close(raw);
    fuzz_check_descriptors();
    return 0;
}
