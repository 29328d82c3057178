/*
 * The integer and floating-point workloads of tests/guests/bench without a kernel: the number of
 * one in a0; its checksum goes to an address where the host listens. What libc's sorting asks of
 * the system is answered here.
 */
#include "tests/guests/bench/bench.h"
#include <stddef.h>

#define ANSWER ((volatile uint64_t *)0x10000000)

static char heap[24 << 20] __attribute__((aligned(4096)));
static char *next;
char thread_data[4096] __attribute__((aligned(64)));
char stack[64 << 10] __attribute__((aligned(64)));

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void free(void *memory);
long __sysconf(int name);
long sysconf(int name);
void run(uint64_t number);

void *malloc(size_t size)
{
    void *memory = next;
    next += (size + 4095) & ~(size_t)4095;
    return memory;
}

void *calloc(size_t count, size_t size)
{
    char *memory = malloc(count * size);
    for (size_t i = 0; i < count * size; i += 8) {
        *(uint64_t *)(memory + i) = 0;
    }
    return memory;
}

void free(void *memory)
{
    (void)memory;
}

long __sysconf(int name)
{
    (void)name;
    return 1 << 16;
}

long sysconf(int name)
{
    return __sysconf(name);
}

void run(uint64_t number)
{
    static uint64_t (*const workloads[])(void) = {
        bench_sieve,   bench_calls, bench_chase,  bench_quicksort, bench_bytecode,  bench_dispatch,
        bench_strings, bench_mix,   bench_matrix, bench_nbody,     bench_mandelbrot};
    next = heap;
    *ANSWER = workloads[number]();
    for (;;) {
    }
}

/* S-mode; a0 is the number. FS = initial. */
__asm__(".section .text.start,\"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        ".option push\n"
        ".option norelax\n"
        "    la gp, __global_pointer$\n"
        ".option pop\n"
        "    la sp, stack\n"
        "    li t0, 65536\n"
        "    add sp, sp, t0\n"
        "    la tp, thread_data\n"
        "    li t0, 0x2000\n"
        "    csrs sstatus, t0\n"
        "    j run\n"
        ".text\n");
