/*
 * The fuzzer's bytes, read as a small program: what is taken past their end is zero, so every input
 * means something. For all fuzz targets.
 */
#ifndef POLYVISOR_TESTS_FUZZ_FUZZ_INPUT_H
#define POLYVISOR_TESTS_FUZZ_FUZZ_INPUT_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct fuzz_input {
    const uint8_t *bytes;
    size_t size;
};

static inline uint64_t fuzz_take(struct fuzz_input *input, unsigned size)
{
    uint64_t value = 0;
    unsigned have = size < input->size ? size : (unsigned)input->size;
    memcpy(&value, input->bytes, have);
    input->bytes += have;
    input->size -= have;
    return value;
}

/* A number below `count`, which is at most 256. */
static inline unsigned fuzz_pick(struct fuzz_input *input, unsigned count)
{
    return (unsigned)fuzz_take(input, 1) % count;
}

/* At most `most` of the bytes that are left. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *input, size_t most, size_t *size)
{
    const uint8_t *bytes = input->bytes;
    *size = most < input->size ? most : input->size;
    input->bytes += *size;
    input->size -= *size;
    return bytes;
}

/* A number that somebody may have forgotten: small, near a power of two, or any. */
static inline uint64_t fuzz_number(struct fuzz_input *input)
{
    unsigned how = (unsigned)fuzz_take(input, 1);

    if (how < 64) {
        return how;
    }
    if (how < 192) {
        uint64_t power = UINT64_C(1) << (how & 63);
        return how < 128 ? power : power - 1;
    }
    if (how < 224) {
        return (UINT64_C(1) << (how & 31)) + (uint64_t)(int8_t)fuzz_take(input, 1);
    }
    return how < 240   ? fuzz_take(input, 2)
           : how < 248 ? fuzz_take(input, 4)
           : how < 252 ? (uint64_t)(int8_t)fuzz_take(input, 1)
                       : fuzz_take(input, 8);
}

static inline void fuzz_require(bool condition, const char *what)
{
    if (!condition) {
        dprintf(2, "fuzz: %s does not hold\n", what);
        abort();
    }
}

/* At the end of an input: it left no descriptor open that the first one did not. Pipes do not
 * count: the sanitizer talks to its symbolizer over some; nor what was inherited, above a gap. */
static inline void fuzz_check_descriptors(void)
{
    static bool inherited[1024];
    static int first = -1;
    int lowest = dup(0);

    fuzz_require(lowest >= 0, "there is a descriptor");
    close(lowest);
    for (int fd = lowest; first < 0 && fd < 1024; fd++) {
        inherited[fd] = fcntl(fd, F_GETFD) >= 0;
    }
    first = first < 0 ? lowest : first;
    for (int fd = first; fd < lowest && fd < 1024; fd++) {
        if (inherited[fd]) {
            continue;
        }
        char path[32], text[128] = "";
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (readlink(path, text, sizeof(text) - 1) > 0 && strncmp(text, "pipe:", 5) != 0) {
            dprintf(2, "fuzz: %s\n", text);
            fuzz_require(false, "what was opened is closed");
        }
    }
    first = lowest;
}

#endif
