/*
 * Guest work to measure: each workload does a fixed amount of work and returns a checksum, which
 * must be the same on every emulator. Static programs of our own, no libraries beyond libc.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

/* X(name, class): class is integer, fp or system; see also SCALING_WORKLOADS */
#define WORKLOADS(X)                                                                               \
    X(sieve, integer)                                                                              \
    X(calls, integer)                                                                              \
    X(chase, integer)                                                                              \
    X(quicksort, integer)                                                                          \
    X(bytecode, integer)                                                                           \
    X(dispatch, integer)                                                                           \
    X(strings, integer)                                                                            \
    X(mix, integer)                                                                                \
    X(matrix, fp)                                                                                  \
    X(nbody, fp)                                                                                   \
    X(mandelbrot, fp)                                                                              \
    X(syscalls, system)                                                                            \
    X(faults, system)                                                                              \
    X(forks, system)                                                                               \
    X(execs, system)                                                                               \
    X(pipes, system)                                                                               \
    X(switches, system)                                                                            \
    X(threads, system)                                                                             \
    X(files, system)

#define X(name, class) uint64_t bench_##name(void);
WORKLOADS(X)
#undef X

/* Work for 1, 2 and 4 threads, of class "scaling" and named after both ("lock-2"). */
#define SCALING_WORKLOADS(X) X(compute) X(lock) X(pipe) X(futex) X(unmap)
#define SCALING_THREADS(X)   X(1) X(2) X(4)
#define SCALING_THREADS_MAX  4u

#define X(name) uint64_t scaling_##name(unsigned threads);
SCALING_WORKLOADS(X)
#undef X

/* Run a command; 0 when it ended well. *checksum: of its standard output. */
int run_command(char **command, uint64_t *checksum);

static inline uint64_t hash_add(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x100000001b3u;
}

#endif
