/*
 * A fixed amount of work, done by 1, 2 or 4 threads: how well several processors are used. Only
 * sums and the like are checked, because who does what differs from run to run.
 */
#include "bench.h"
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct worker {
    unsigned number, count; /* this one, and all of them */
    uint64_t result;
    void *shared;
    void (*work)(struct worker *worker);
};

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    worker->work(worker);
    return NULL;
}

/* The sum of the results of `count` threads, 0 when one cannot be had. */
static uint64_t run_workers(unsigned count, void (*work)(struct worker *worker), void *shared)
{
    struct worker workers[SCALING_THREADS_MAX];
    pthread_t threads[SCALING_THREADS_MAX];
    uint64_t sum = 0;
    unsigned started = 0;
    for (; started < count; started++) {
        workers[started] =
            (struct worker){.number = started, .count = count, .shared = shared, .work = work};
        if (pthread_create(&threads[started], NULL, worker_main, &workers[started]) != 0) {
            break;
        }
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        sum += workers[i].result;
    }
    return started == count ? sum : 0;
}

/* Nothing shared at all. */
static void compute(struct worker *worker)
{
    enum { STEPS = 240000000 };
    for (uint64_t i = worker->number; i < STEPS; i += worker->count) {
        uint64_t value = i * 0x9e3779b97f4a7c15u;
        value ^= value >> 29;
        worker->result += value * 0xbf58476d1ce4e5b9u >> 40;
    }
}

uint64_t scaling_compute(unsigned threads)
{
    return run_workers(threads, compute, NULL);
}

/* One lock, taken for a short while and left for a short while. */
struct locked {
    pthread_mutex_t lock;
    uint64_t next;
};

static void use_lock(struct worker *worker)
{
    enum { TURNS = 800000 };
    struct locked *locked = worker->shared;
    for (;;) {
        pthread_mutex_lock(&locked->lock);
        uint64_t value = locked->next;
        locked->next += value < TURNS;
        pthread_mutex_unlock(&locked->lock);
        if (value >= TURNS) {
            return;
        }
        for (unsigned i = 0; i < 50; i++) {
            value = hash_add(value, i);
        }
        worker->result += value >> 32;
    }
}

uint64_t scaling_lock(unsigned threads)
{
    struct locked locked = {.lock = PTHREAD_MUTEX_INITIALIZER};
    return run_workers(threads, use_lock, &locked);
}

/* Producers and consumers, a pipe for each pair of them; a lone thread is both. */
enum { PIPE_MESSAGES = 16000, PIPE_BURST = 16 };
struct message {
    uint64_t number, padding[7];
};

static void produce(struct worker *worker, int to, unsigned messages)
{
    struct message message = {0};
    for (unsigned i = 0; i < messages; i++) {
        message.number = i;
        worker->result += write(to, &message, sizeof(message)) == sizeof(message);
    }
}

static void consume(struct worker *worker, int from, unsigned messages)
{
    struct message message;
    for (unsigned i = 0; i < messages; i++) {
        worker->result += read(from, &message, sizeof(message)) == sizeof(message);
    }
}

static void use_pipe(struct worker *worker)
{
    int(*pipes)[2] = worker->shared;
    int *own = pipes[worker->number / 2];
    if (worker->count == 1) {
        for (unsigned i = 0; i < PIPE_MESSAGES; i += PIPE_BURST) {
            produce(worker, own[1], PIPE_BURST);
            consume(worker, own[0], PIPE_BURST);
        }
    } else if (worker->number % 2 == 0) {
        produce(worker, own[1], PIPE_MESSAGES / (worker->count / 2));
    } else {
        consume(worker, own[0], PIPE_MESSAGES / (worker->count / 2));
    }
}

uint64_t scaling_pipe(unsigned threads)
{
    int pipes[SCALING_THREADS_MAX / 2][2];
    for (unsigned i = 0; i < SCALING_THREADS_MAX / 2; i++) {
        if (pipe(pipes[i]) != 0) {
            return 0;
        }
    }
    uint64_t sum = run_workers(threads, use_pipe, pipes);
    for (unsigned i = 0; i < SCALING_THREADS_MAX / 2; i++) {
        close(pipes[i][0]);
        close(pipes[i][1]);
    }
    return sum;
}

/* A token that goes round: each thread sleeps until it has it. */
static long futex(uint32_t *word, int operation, uint32_t value)
{
    return syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* What a thread waits for: the number of the pass that it is to make. */
struct turn {
    uint32_t number, padding[15];
};

static void pass_token(struct worker *worker)
{
    enum { PASSES = 8000 };
    struct turn *turns = worker->shared;
    uint32_t *own = &turns[worker->number].number;
    uint32_t *next = &turns[(worker->number + 1) % worker->count].number;
    for (uint32_t pass = worker->number; pass < PASSES; pass += worker->count) {
        uint32_t now;
        while ((now = __atomic_load_n(own, __ATOMIC_ACQUIRE)) != pass) {
            futex(own, FUTEX_WAIT, now);
        }
        worker->result += pass;
        __atomic_store_n(next, pass + 1, __ATOMIC_RELEASE);
        futex(next, FUTEX_WAKE, 1);
    }
}

uint64_t scaling_futex(unsigned threads)
{
    struct turn turns[SCALING_THREADS_MAX] = {0};
    return run_workers(threads, pass_token, turns);
}

/* Memory that comes and goes in one address space: each time the other processors are told. */
static void map_and_unmap(struct worker *worker)
{
    enum { ROUNDS = 800, BYTES = 16 * 4096 };
    for (unsigned i = worker->number; i < ROUNDS; i += worker->count) {
        uint8_t *memory =
            mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            return;
        }
        for (unsigned at = 0; at < BYTES; at += 4096) {
            memory[at] = (uint8_t)(i + at / 4096);
            worker->result += memory[at];
        }
        munmap(memory, BYTES);
    }
}

uint64_t scaling_unmap(unsigned threads)
{
    return run_workers(threads, map_and_unmap, NULL);
}
