/*
 * atomics THREADS ROUNDS: parallel work whose result is known, with every kind of atomic: AMOs,
 * compare-and-swap loops, a spin lock, and a lock-free stack whose pop is an unconstrained LR/SC
 * sequence (a load between LR and SC), which a mere value comparison would get wrong (ABA).
 * Prints "atomics ok" or what differed.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct node {
    struct node *next;
    uint64_t pops;
};

enum { NODES = 4, THREADS_MAX = 16 };
static uint64_t rounds = 20000;
static uint64_t counter, swapped, locked_count;
static uint32_t mask_or, small;
static uint8_t bytes[4];
static int lock;
static struct node nodes[NODES], *stack;

#if defined(__riscv)
static struct node *stack_pop(void)
{
    struct node *head, *next;
    long failed;
    __asm__ volatile("0: lr.d.aqrl %0, (%3)\n"
                     "   beqz %0, 1f\n"
                     "   ld %1, 0(%0)\n"
                     "   sc.d.rl %2, %1, (%3)\n"
                     "   bnez %2, 0b\n"
                     "1:\n"
                     : "=&r"(head), "=&r"(next), "=&r"(failed)
                     : "r"(&stack)
                     : "memory");
    return head;
}
#else
#include <stdatomic.h>
static struct node *stack_pop(void)
{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
    }
    struct node *head = stack;
    if (head) {
        stack = head->next;
    }
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    return head;
}
#endif

static void stack_push(struct node *node)
{
    struct node *head = __atomic_load_n(&stack, __ATOMIC_RELAXED);
    do {
        node->next = head;
    } while (!__atomic_compare_exchange_n(&stack, &head, node, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static void *work(void *argument)
{
    uint32_t number = (uint32_t)(uintptr_t)argument;
    for (uint64_t i = 0; i < rounds; i++) {
        __atomic_fetch_add(&counter, 3, __ATOMIC_SEQ_CST);
        __atomic_fetch_or(&mask_or, 1u << (number * 2 + (i & 1)), __ATOMIC_RELAXED);
        __atomic_fetch_add(&small, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&bytes[number & 3], 1, __ATOMIC_RELAXED); /* a byte: LR/SC on its word */
        uint64_t old = __atomic_load_n(&swapped, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&swapped, &old, old + number + 1, 0, __ATOMIC_ACQ_REL,
                                            __ATOMIC_RELAXED)) {
        }
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
        }
        locked_count = locked_count + 1;
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
        if (i % 8 == 0) {
            struct node *node = stack_pop();
            if (node) {
                node->pops++; /* exclusively ours until pushed */
                stack_push(node);
            }
        }
    }
    return NULL;
}

static int check(const char *what, uint64_t got, uint64_t wanted)
{
    if (got == wanted) {
        return 0;
    }
    printf("atomics: %s is %llu, not %llu\n", what, (unsigned long long)got, (unsigned long long)wanted);
    return 1;
}

int main(int count, char **arguments)
{
    uint32_t threads = count > 1 ? (uint32_t)atoi(arguments[1]) : 4;
    rounds = count > 2 ? strtoull(arguments[2], NULL, 0) : rounds;
    pthread_t ids[THREADS_MAX];
    if (threads < 1 || threads > THREADS_MAX) {
        return 2;
    }
    for (int i = 0; i < NODES; i++) {
        stack_push(&nodes[i]);
    }
    for (uint32_t i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)i)) {
            return 2;
        }
    }
    uint64_t expected_swapped = 0, expected_bytes[4] = {0};
    uint32_t expected_mask = 0;
    for (uint32_t i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        expected_swapped += rounds * (i + 1);
        expected_bytes[i & 3] += rounds;
        expected_mask |= 3u << (i * 2);
    }
    int bad = check("counter", counter, 3 * rounds * threads) + check("swapped", swapped, expected_swapped) +
              check("mask", mask_or, expected_mask) + check("small", small, (uint32_t)(rounds * threads)) +
              check("locked", locked_count, rounds * threads);
    for (int i = 0; i < 4; i++) {
        bad += check("byte", bytes[i], (uint8_t)expected_bytes[i]);
    }
    int found = 0;
    for (struct node *node = stack; node && found <= NODES; node = node->next) {
        found++;
    }
    bad += check("stack", (uint64_t)found, NODES);
    puts(bad ? "atomics failed" : "atomics ok");
    return bad != 0;
}
