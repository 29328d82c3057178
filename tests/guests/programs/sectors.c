/*
 * sectors DEVICE: write numbered blocks to a disk from several threads until /tmp/stop exists.
 *
 * Every 512-byte sector says which block it belongs to and which version of it, so whoever looks at
 * the disk, from either side and at any time, can tell whether a write was lost, came late or came
 * again: the version of a block never goes down, and is never less than the last one that was
 * completed. A block has one writer, which has one write of it under way.
 *
 * At the end all blocks are read back. Printed: "writes N reads N flushes N wrong N", then
 * "versions" and the last version of each block.
 */
#define _GNU_SOURCE /* O_DIRECT */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS       256u
#define BLOCK_SIZE   4096u
#define SECTOR_WORDS 64u
#define THREADS      8u
#define MAGIC        0x524f544345535650ull /* "PVSECTOR" */

struct writer {
    pthread_t thread;
    unsigned number;
    uint64_t random;
    uint64_t writes, reads, flushes, wrong;
};

static int device;
static uint64_t versions[BLOCKS]; /* completed; each belongs to one thread */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint64_t word_of(uint64_t block, uint64_t version, unsigned word)
{
    return (block * 0x9e3779b97f4a7c15ull ^ version) * 0xc2b2ae3d27d4eb4full + word;
}

static void fill(uint64_t *words, uint64_t block, uint64_t version)
{
    for (unsigned i = 0; i < BLOCK_SIZE / 8; i++) {
        unsigned at = i % SECTOR_WORDS;
        words[i] = at == 0   ? MAGIC
                   : at == 1 ? block
                   : at == 2 ? version
                             : word_of(block, version, i);
    }
}

static int write_block(struct writer *writer, uint64_t *words, unsigned block)
{
    fill(words, block, versions[block] + 1);
    ssize_t done = pwrite(device, words, BLOCK_SIZE, (off_t)block * BLOCK_SIZE);
    if (done != BLOCK_SIZE) {
        fprintf(stderr, "write of block %u: %s\n", block, done < 0 ? strerror(errno) : "short");
        return -1;
    }
    versions[block]++;
    writer->writes++;
    return 0;
}

static int read_block(struct writer *writer, uint64_t *words, unsigned block)
{
    static const uint64_t zeroes[BLOCK_SIZE / 8];
    uint64_t expected[BLOCK_SIZE / 8];

    ssize_t done = pread(device, words, BLOCK_SIZE, (off_t)block * BLOCK_SIZE);
    if (done != BLOCK_SIZE) {
        fprintf(stderr, "read of block %u: %s\n", block, done < 0 ? strerror(errno) : "short");
        return -1;
    }
    fill(expected, block, versions[block]);
    if (memcmp(words, versions[block] ? expected : zeroes, BLOCK_SIZE) != 0) {
        fprintf(stderr, "block %u is of version %llu, not %llu\n", block,
                (unsigned long long)words[2], (unsigned long long)versions[block]);
        writer->wrong++;
    }
    writer->reads++;
    return 0;
}

static void *work(void *argument)
{
    struct writer *writer = argument;
    uint64_t *words = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);

    while (words && access("/tmp/stop", F_OK) != 0) {
        uint64_t choice = next_random(&writer->random);
        unsigned block = (unsigned)(choice >> 8) % (BLOCKS / THREADS) * THREADS + writer->number;
        int failed = 0;

        if (choice % 100 < 70) {
            failed = write_block(writer, words, block);
        } else if (choice % 100 < 97) {
            failed = read_block(writer, words, block);
        } else {
            failed = fdatasync(device);
            writer->flushes++;
        }
        if (failed) {
            writer->wrong++;
            break;
        }
    }
    for (unsigned block = writer->number; words && block < BLOCKS; block += THREADS) {
        writer->wrong += read_block(writer, words, block) != 0;
    }
    free(words);
    return NULL;
}

int main(int argc, char **argv)
{
    struct writer writers[THREADS] = {0}, sum = {0};

    device = argc == 2 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
    if (device < 0) {
        perror("sectors");
        return 2;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i].number = i;
        writers[i].random = 88172645463325252ull + i * 977;
        if (pthread_create(&writers[i].thread, NULL, work, &writers[i]) != 0) {
            return 2;
        }
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(writers[i].thread, NULL);
        sum.writes += writers[i].writes;
        sum.reads += writers[i].reads;
        sum.flushes += writers[i].flushes;
        sum.wrong += writers[i].wrong;
    }
    printf("writes %llu reads %llu flushes %llu wrong %llu\nversions",
           (unsigned long long)sum.writes, (unsigned long long)sum.reads,
           (unsigned long long)sum.flushes, (unsigned long long)sum.wrong);
    for (unsigned i = 0; i < BLOCKS; i++) {
        printf(" %llu", (unsigned long long)versions[i]);
    }
    printf("\n");
    return sum.wrong != 0;
}
