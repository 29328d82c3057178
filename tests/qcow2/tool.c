/*
 * The library of qcow2 images by command line, for tests with qemu-img as the peer: an image and
 * what lies under it, opened as vmmd and devd do.
 *
 *   tool dump IMAGE                    the disk's contents, to standard output
 *   tool fill IMAGE OFFSET LENGTH SEED write bytes made of SEED
 *   tool zero|discard IMAGE OFFSET LENGTH
 *   tool load IMAGE LOG SEED           write for ever, in four threads: blocks of 4 KiB with their
 *                                      numbers and versions, in the first half; what is finished
 *                                      and flushed goes to LOG, 16 bytes each. The second half is
 *                                      written and discarded (to be killed)
 *   tool verify IMAGE LOG              every block has at least the version that LOG has
 */
#include "libshared/disk/images.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK   ((size_t)1 << 20)
#define BLOCK   4096u
#define THREADS 4u

static struct qcow2 *images[DISK_LAYERS_MAX];
static struct disk_chain chain;

static int fail(const char *what, const struct error *err)
{
    fprintf(stderr, "tool: %s: %s [%s]\n", what, err->message, error_code_text(err->code));
    return 1;
}

static struct qcow2 *open_all(const char *path, bool read_only)
{
    const struct disk_chain_settings settings = {.folder = "/"};
    struct error err;
    char *real = realpath(path, NULL);
    int fd = real ? open(real, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC) : -1;

    error_clear(&err);
    if (fd < 0 || disk_chain_open(&chain, fd, real, &settings, &err) < 0 ||
        disk_images_open(&chain, read_only, images, &err) < 0) {
        fail(path, &err);
        exit(1);
    }
    free(real);
    return images[0];
}

static int dump(const char *path)
{
    struct qcow2 *image = open_all(path, true);
    uint64_t size = qcow2_size(image);
    uint8_t *buffer = malloc(CHUNK);

    for (uint64_t at = 0; at < size; at += CHUNK) {
        size_t part = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
        const struct iovec vector = {buffer, part};
        int status = qcow2_read(image, at, part, &vector, 1);
        if (status < 0) {
            fprintf(stderr, "tool: read at %llu: %s\n", (unsigned long long)at, strerror(-status));
            return 1;
        }
        if (fwrite(buffer, 1, part, stdout) != part) {
            return 1;
        }
    }
    free(buffer);
    return 0;
}

static void random_bytes(uint8_t *bytes, size_t size, uint64_t seed)
{
    for (size_t i = 0; i < size; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bytes[i] = (uint8_t)(seed >> 56);
    }
}

static int change(const char *how, const char *path, uint64_t offset, uint64_t length,
                  uint64_t seed)
{
    struct qcow2 *image = open_all(path, false);
    int status;

    if (!strcmp(how, "zero")) {
        status = qcow2_write_zeroes(image, offset, length, seed & 1, false);
    } else if (!strcmp(how, "discard")) {
        status = qcow2_discard(image, offset, length);
    } else {
        uint8_t *bytes = malloc(length);
        const struct iovec vector = {bytes, length};
        random_bytes(bytes, length, seed);
        status = qcow2_write(image, offset, length, &vector, 1, false);
        free(bytes);
    }
    qcow2_close(image);
    if (status < 0) {
        fprintf(stderr, "tool: %s\n", strerror(-status));
    }
    return status < 0;
}

/* ---- Load ---- */

struct record {
    uint64_t block, version;
};

struct loader {
    struct qcow2 *image;
    int log;
    unsigned number;
    uint64_t seed;
};

static void *load_run(void *context)
{
    struct loader *loader = context;
    uint64_t half = qcow2_size(loader->image) / 2 & ~(uint64_t)(CHUNK - 1), blocks = half / BLOCK;
    uint64_t state = loader->seed + loader->number;
    struct record done[64];
    unsigned count = 0;
    uint64_t bytes[BLOCK / 8];

    for (uint64_t version = loader->seed << 32;; version++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t block = (state >> 33) % (blocks / THREADS) * THREADS + loader->number;
        for (unsigned i = 0; i < BLOCK / 8; i += 2) {
            bytes[i] = block;
            bytes[i + 1] = version;
        }
        const struct iovec vector = {bytes, sizeof(bytes)};
        if (qcow2_write(loader->image, block * BLOCK, BLOCK, &vector, 1, false) < 0) {
            return "write";
        }
        done[count++] = (struct record){block, version};
        if ((state >> 20) % 16 == 0 &&
            (qcow2_write(loader->image, half + block * BLOCK, BLOCK, &vector, 1, false) < 0 ||
             qcow2_discard(loader->image, half, half / 2) < 0)) {
            return "discard";
        }
        if (count == sizeof(done) / sizeof(done[0])) {
            if (qcow2_flush(loader->image) < 0 ||
                write(loader->log, done, sizeof(done)) != (ssize_t)sizeof(done)) {
                return "flush";
            }
            count = 0;
        }
    }
}

static int load(const char *path, const char *log, uint64_t seed)
{
    struct loader loaders[THREADS];
    pthread_t threads[THREADS];
    struct qcow2 *image = open_all(path, false);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    void *what = "thread";

    for (unsigned i = 0; i < THREADS; i++) {
        loaders[i] = (struct loader){image, fd, i, seed};
        if (fd < 0 || pthread_create(&threads[i], NULL, load_run, &loaders[i])) {
            return 1;
        }
    }
    pthread_join(threads[0], &what);
    fprintf(stderr, "tool: %s failed\n", (const char *)what);
    return 1;
}

static int verify(const char *path, const char *log)
{
    struct qcow2 *image = open_all(path, true);
    uint64_t half = qcow2_size(image) / 2 & ~(uint64_t)(CHUNK - 1), blocks = half / BLOCK;
    uint64_t wrong = 0, seen = 0, failed = 0;
    uint64_t *least = calloc(blocks, sizeof(least[0])), bytes[BLOCK / 8];
    FILE *file = fopen(log, "r");
    struct record record;

    while (least && file && fread(&record, sizeof(record), 1, file) == 1 && record.block < blocks) {
        uint64_t *version = &least[record.block];
        *version = record.version > *version ? record.version : *version;
    }
    for (uint64_t i = 0; i < blocks; i++) {
        const struct iovec vector = {bytes, sizeof(bytes)};
        if (!least || qcow2_read(image, i * BLOCK, BLOCK, &vector, 1) < 0) {
            failed++;
            break;
        }
        seen += least[i] != 0;
        wrong += least[i] && (bytes[0] != i || bytes[1] < least[i]);
        for (unsigned k = 0; k < BLOCK / 8; k += 2) {
            /* Nothing of another block, flushed or not; below there are zeroes or ones. */
            wrong += bytes[k] != i && bytes[k] != 0 && bytes[k] != UINT64_MAX;
        }
    }
    printf("%llu blocks were flushed, %llu are wrong\n", (unsigned long long)seen,
           (unsigned long long)wrong);
    if (file) {
        fclose(file);
    }
    free(least);
    return wrong != 0 || failed != 0;
}

int main(int argc, char **argv)
{
    const char *how = argc > 2 ? argv[1] : "";

    if (!strcmp(how, "dump")) {
        return dump(argv[2]);
    }
    if (argc > 4 && (!strcmp(how, "fill") || !strcmp(how, "zero") || !strcmp(how, "discard"))) {
        return change(how, argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
                      argc > 5 ? strtoull(argv[5], NULL, 0) : 1);
    }
    if (argc > 4 && !strcmp(how, "load")) {
        return load(argv[2], argv[3], strtoull(argv[4], NULL, 0));
    }
    if (argc > 3 && !strcmp(how, "verify")) {
        return verify(argv[2], argv[3]);
    }
    fprintf(stderr, "usage: see tests/qcow2/tool.c\n");
    return 2;
}
