/* System workloads: the kernel's work for a program. */
#define _GNU_SOURCE
#include "bench.h"
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

uint64_t bench_syscalls(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 60000; i++) {
        sum += syscall(SYS_getppid) >= 0;
    }
    return sum;
}

uint64_t bench_faults(void)
{
    enum { PAGES = 4096 };
    uint64_t sum = 0;
    for (int round = 0; round < 3; round++) {
        uint8_t *area =
            mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED) {
            return 0;
        }
        madvise(area, PAGES * 4096, MADV_NOHUGEPAGE);
        for (int i = 0; i < PAGES; i++) {
            area[i * 4096] = (uint8_t)i;
            sum += area[i * 4096];
        }
        munmap(area, PAGES * 4096);
    }
    return sum;
}

uint64_t bench_forks(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 60; i++) {
        pid_t child = fork();
        if (child == 0) {
            _exit(i & 63);
        }
        int status = 0;
        waitpid(child, &status, 0);
        sum += (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

uint64_t bench_pipes(void)
{
    int to[2], from[2];
    uint64_t sum = 0;
    if (pipe(to) || pipe(from)) {
        return 0;
    }
    pid_t child = fork();
    if (child == 0) {
        uint32_t value;
        while (read(to[0], &value, sizeof(value)) == sizeof(value) && value) {
            value *= 3;
            if (write(from[1], &value, sizeof(value)) != sizeof(value)) {
                break;
            }
        }
        _exit(0);
    }
    for (uint32_t i = 1; i <= 3000; i++) {
        uint32_t value = i;
        if (write(to[1], &value, sizeof(value)) != sizeof(value) ||
            read(from[0], &value, sizeof(value)) != sizeof(value)) {
            return 0;
        }
        sum += value;
    }
    uint32_t end = 0;
    if (write(to[1], &end, sizeof(end)) != sizeof(end)) {
        return 0;
    }
    waitpid(child, NULL, 0);
    return sum;
}

uint64_t bench_execs(void)
{
    char *const command[] = {"bench", "--nothing", NULL};
    uint64_t sum = 0;
    for (int i = 0; i < 40; i++) {
        pid_t child;
        int status = 0;
        if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, command, environ) != 0) {
            return 0;
        }
        waitpid(child, &status, 0);
        sum += status == 0;
    }
    return sum;
}

/* Two threads of one process that hand a turn to each other. */
struct turns {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned turn, limit;
    uint64_t hash;
};

static void take_turns(struct turns *turns, unsigned parity)
{
    pthread_mutex_lock(&turns->lock);
    while (turns->turn < turns->limit) {
        if ((turns->turn & 1) != parity) {
            pthread_cond_wait(&turns->changed, &turns->lock);
            continue;
        }
        turns->hash = hash_add(turns->hash, turns->turn++ * 2 + parity);
        pthread_cond_signal(&turns->changed);
    }
    pthread_cond_signal(&turns->changed);
    pthread_mutex_unlock(&turns->lock);
}

static void *take_odd_turns(void *turns)
{
    take_turns(turns, 1);
    return NULL;
}

uint64_t bench_switches(void)
{
    struct turns turns = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .limit = 6000};
    pthread_t other;
    if (pthread_create(&other, NULL, take_odd_turns, &turns) != 0) {
        return 0;
    }
    take_turns(&turns, 0);
    pthread_join(other, NULL);
    return turns.hash;
}

/* Threads that come and go, and add to one sum under a lock. */
struct sum {
    pthread_mutex_t lock;
    uint64_t value;
};

static void *add_to_sum(void *argument)
{
    struct sum *sum = argument;
    for (unsigned i = 0; i < 500; i++) {
        pthread_mutex_lock(&sum->lock);
        sum->value += i;
        pthread_mutex_unlock(&sum->lock);
    }
    return NULL;
}

uint64_t bench_threads(void)
{
    enum { ROUNDS = 60, THREADS = 4 };
    struct sum sum = {.lock = PTHREAD_MUTEX_INITIALIZER};
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            if (pthread_create(&threads[i], NULL, add_to_sum, &sum) != 0) {
                return 0;
            }
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
    }
    return sum.value;
}

/* Create, write, look at, read and delete files; the root of the guest is in memory. */
static uint64_t use_file(const char *path, char *block, size_t size, unsigned seed)
{
    struct stat about;
    uint64_t hash = seed;
    int file = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    if (file < 0) {
        return 0;
    }
    memset(block, (int)seed, size);
    for (int i = 0; i < 8; i++) {
        hash = hash_add(hash, (uint64_t)write(file, block, size));
    }
    if (fstat(file, &about) == 0) {
        hash = hash_add(hash, (uint64_t)about.st_size);
    }
    for (off_t at = 0; pread(file, block, size, at) == (ssize_t)size; at += (off_t)size) {
        hash = hash_add(hash, (uint8_t)block[seed % size]);
    }
    close(file);
    return hash;
}

uint64_t bench_files(void)
{
    enum { FILES = 150, BLOCK = 4096 };
    static char block[BLOCK];
    char path[64];
    uint64_t hash = 0;
    mkdir("/tmp", 0777);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(path, sizeof(path), "/tmp/bench-%u", i);
        hash = hash_add(hash, use_file(path, block, sizeof(block), i + 1));
        hash = hash_add(hash, (uint64_t)(rename(path, "/tmp/bench-now") == 0));
    }
    unlink("/tmp/bench-now");
    return hash;
}
