/*
 * Guest work to measure: each workload does a fixed amount of work and returns a checksum, which
 * must be the same on every emulator. Static programs of our own, no libraries beyond libc.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

/* X(name, class): class is integer, fp or system */
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

/* Run a command; 0 when it ended well. *checksum: of its standard output. */
int run_command(char **command, uint64_t *checksum);

static inline uint64_t hash_add(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x100000001b3u;
}

#endif
