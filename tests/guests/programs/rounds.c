/*
 * rounds DEVICE: the same round of work again and again, until /tmp/stop exists: computing, a few
 * direct writes and reads of a disk, a few random numbers. After each one a line on standard
 * output, "round NUMBER NANOSECONDS CHECKSUM": the checksum depends on NUMBER modulo 4 only.
 */
#define _GNU_SOURCE /* O_DIRECT */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define STEPS      1000000u
#define TRANSFERS  8u
#define BLOCK_SIZE 4096u

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t compute(uint64_t state)
{
    for (unsigned i = 0; i < STEPS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        state ^= state >> 29;
    }
    return state;
}

/* Write blocks and read them back; -1 when what comes back is something else. */
static int use_disk(int disk, uint64_t *block, uint64_t value)
{
    for (unsigned i = 0; i < TRANSFERS; i++) {
        for (unsigned word = 0; word < BLOCK_SIZE / 8; word++) {
            block[word] = value + i * 1000u + word;
        }
        if (pwrite(disk, block, BLOCK_SIZE, (off_t)i * BLOCK_SIZE) != BLOCK_SIZE) {
            return -1;
        }
    }
    for (unsigned i = 0; i < TRANSFERS; i++) {
        if (pread(disk, block, BLOCK_SIZE, (off_t)i * BLOCK_SIZE) != BLOCK_SIZE) {
            return -1;
        }
        for (unsigned word = 0; word < BLOCK_SIZE / 8; word++) {
            if (block[word] != value + i * 1000u + word) {
                return -1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    int disk = argc == 2 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
    int source = open("/dev/hwrng", O_RDONLY);
    uint64_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
    char bytes[64];

    if (disk < 0 || source < 0 || !block) {
        perror("rounds");
        return 2;
    }
    for (unsigned number = 0; access("/tmp/stop", F_OK) != 0; number++) {
        uint64_t start = now();
        uint64_t value = compute(number % 4);
        if (use_disk(disk, block, value) < 0 || read(source, bytes, sizeof(bytes)) <= 0) {
            printf("round %u failed\n", number);
            return 1;
        }
        printf("round %u %llu %016llx\n", number, (unsigned long long)(now() - start),
               (unsigned long long)value);
        fflush(stdout);
    }
    return 0;
}
