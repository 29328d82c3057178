/* Integer workloads: loops, calls, memory, sorting, indirect branches, strings, and a mix. */
#include "bench.h"
#include <stdlib.h>
#include <string.h>

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

uint64_t bench_sieve(void)
{
    enum { LIMIT = 4000000 };
    uint8_t *composite = calloc(LIMIT, 1);
    uint64_t sum = 0;
    for (uint32_t i = 2; i < LIMIT; i++) {
        if (composite[i]) {
            continue;
        }
        sum += i;
        for (uint64_t j = (uint64_t)i * i; j < LIMIT; j += i) {
            composite[j] = 1;
        }
    }
    free(composite);
    return sum;
}

static __attribute__((noinline)) uint32_t fibonacci(uint32_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

uint64_t bench_calls(void)
{
    return fibonacci(31);
}

uint64_t bench_chase(void)
{
    enum { NODES = 1 << 16, STEPS = 3000000 };
    uint32_t *next = malloc(NODES * sizeof(*next));
    uint32_t seed = 1;
    for (uint32_t i = 0; i < NODES; i++) {
        next[i] = i;
    }
    for (uint32_t i = NODES - 1; i > 0; i--) { /* Sattolo: one cycle through all nodes */
        uint32_t j = random_next(&seed) % i, swap = next[i];
        next[i] = next[j];
        next[j] = swap;
    }
    uint32_t at = 0;
    for (int i = 0; i < STEPS; i++) {
        at = next[at];
    }
    free(next);
    return at;
}

static int compare(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

uint64_t bench_quicksort(void)
{
    enum { COUNT = 150000 };
    int32_t *values = malloc(COUNT * sizeof(*values));
    uint32_t seed = 7;
    for (int i = 0; i < COUNT; i++) {
        values[i] = (int32_t)random_next(&seed) - (1 << 23);
    }
    qsort(values, COUNT, sizeof(*values), compare);
    uint64_t hash = 0;
    for (int i = 0; i < COUNT; i += 97) {
        hash = hash_add(hash, (uint32_t)values[i]);
    }
    free(values);
    return hash;
}

uint64_t bench_bytecode(void)
{
    enum { PUSH, ADD, SUB, XOR, DUP, LOOP, END };
    static const uint8_t program[] = {PUSH, 3,    ADD, DUP, PUSH, 5,  XOR,
                                      ADD,  PUSH, 1,   SUB, LOOP, END};
    static const void *const labels[] = {&&push, &&add, &&sub, &&xor, &&dup, &&loop, &&end};
    uint64_t stack[16] = {1}, *top = stack;
    const uint8_t *code = program;
    uint32_t left = 600000;
#define NEXT goto *labels[*code++]
    NEXT;
push:
    *++top = *code++;
    NEXT;
add:
    top[-1] += top[0];
    top--;
    NEXT;
sub:
    top[-1] -= top[0];
    top--;
    NEXT;
    xor : top[-1] ^= top[0];
    top--;
    NEXT;
dup:
    top[1] = top[0] >> 1;
    top++;
    NEXT;
loop:
    if (--left) {
        code = program;
    }
    NEXT;
end:
#undef NEXT
    return stack[0];
}

/* Calls through pointers: some sites always go to one function, some to any of eight. */
struct machine {
    uint64_t value;
    uint32_t seed;
    uint64_t (*always)(struct machine *machine, uint64_t value);
};

typedef uint64_t operation(struct machine *machine, uint64_t value);

#define OPERATION(name, expression)                                                                \
    static __attribute__((noinline)) uint64_t name(struct machine *machine, uint64_t value)        \
    {                                                                                              \
        machine->value ^= value;                                                                   \
        return expression;                                                                         \
    }
OPERATION(operation_add, value + machine->value)
OPERATION(operation_shift, value << 3 | value >> 61)
OPERATION(operation_times, value * 0x9e3779b97f4a7c15u)
OPERATION(operation_less, value - (machine->value >> 5))
OPERATION(operation_mix, value ^ value >> 29)
OPERATION(operation_and, value & ~(machine->value << 7))
OPERATION(operation_or, value | (uint64_t)machine->seed)
OPERATION(operation_not, ~value)

uint64_t bench_dispatch(void)
{
    static operation *const operations[] = {operation_add,  operation_shift, operation_times,
                                            operation_less, operation_mix,   operation_and,
                                            operation_or,   operation_not};
    struct machine machine = {.value = 1, .seed = 3, .always = operation_mix};
    uint64_t value = 1;
    for (int i = 0; i < 900000; i++) {
        operation *volatile *any =
            (operation *volatile *)&operations[random_next(&machine.seed) & 7];
        value = (*any)(&machine, value);
        value = machine.always(&machine, value);
        value = operations[i & 1](&machine, value);
    }
    return value ^ machine.value;
}

uint64_t bench_strings(void)
{
    enum { SIZE = 1 << 16, ROUNDS = 600 };
    char *a = malloc(SIZE + 64), *b = malloc(SIZE + 64);
    uint64_t hash = 0;
    memset(a, 'x', SIZE);
    a[SIZE - 1] = 0;
    for (int i = 0; i < ROUNDS; i++) {
        memcpy(b + (i & 7), a, SIZE);
        a[i] = (char)('a' + i % 26);
        hash = hash_add(hash, strlen(b + (i & 7)));
        hash = hash_add(hash, (uint64_t)(memcmp(a, b + (i & 7), SIZE) != 0));
        const char *found = strchr(a, 'q');
        hash = hash_add(hash, found ? (uint64_t)(found - a) : 0);
    }
    free(a);
    free(b);
    return hash;
}

/* Lists, matrices, a state machine and a CRC over their results. */
struct item {
    struct item *next;
    int16_t key, data;
};

static uint16_t crc16(uint16_t crc, uint32_t value)
{
    for (int bit = 0; bit < 32; bit++, value >>= 1) {
        uint16_t carry = (uint16_t)((crc ^ value) & 1);
        crc = (uint16_t)(crc >> 1);
        if (carry) {
            crc ^= 0xa001;
        }
    }
    return crc;
}

static struct item *list_reverse(struct item *list)
{
    struct item *reversed = NULL;
    while (list) {
        struct item *next = list->next;
        list->next = reversed;
        reversed = list;
        list = next;
    }
    return reversed;
}

static uint32_t list_work(struct item *items, int count, int seek)
{
    struct item *head = NULL;
    for (int i = 0; i < count; i++) {
        items[i].key = (int16_t)(i * 37 % 101);
        items[i].data = (int16_t)i;
        items[i].next = head;
        head = &items[i];
    }
    uint32_t sum = 0;
    for (int i = 0; i < seek; i++) {
        for (struct item *at = head; at; at = at->next) {
            if (at->key == i) {
                sum += (uint16_t)at->data;
                break;
            }
        }
        head = list_reverse(head);
    }
    return sum;
}

static uint32_t matrix_work(int16_t a[24][24], int16_t b[24][24], int seed)
{
    uint32_t sum = 0;
    for (int i = 0; i < 24; i++) {
        for (int j = 0; j < 24; j++) {
            int32_t cell = 0;
            for (int k = 0; k < 24; k++) {
                cell += a[i][k] * b[k][j];
            }
            sum += (uint32_t)cell >> (seed & 3);
            a[i][j] = (int16_t)(a[i][j] + seed);
        }
    }
    return sum;
}

static uint32_t state_work(const char *text)
{
    enum { START, INTEGER, FRACTION, EXPONENT, WORD } state = START;
    uint32_t counts[5] = {0};
    for (; *text; text++) {
        counts[state]++;
        switch (state) {
        case START:
            state = *text >= '0' && *text <= '9' ? INTEGER : *text == ',' ? START : WORD;
            break;
        case INTEGER:
            state = *text == '.'   ? FRACTION
                    : *text == 'e' ? EXPONENT
                    : *text == ',' ? START
                                   : INTEGER;
            break;
        case FRACTION:
            state = *text == 'e' ? EXPONENT : *text == ',' ? START : FRACTION;
            break;
        case EXPONENT:
        case WORD:
            state = *text == ',' ? START : state;
            break;
        }
    }
    return counts[0] ^ counts[1] << 6 ^ counts[2] << 12 ^ counts[3] << 18 ^ counts[4] << 24;
}

uint64_t bench_mix(void)
{
    static struct item items[200];
    static int16_t a[24][24], b[24][24];
    static const char text[] = "5012,1.25,foo,6e10,0.0031e-7,bar99,77,3.14159,-1,x,120000,8.5e2,";
    uint16_t crc = 0xffff;
    for (int i = 0; i < 24 * 24; i++) {
        a[i / 24][i % 24] = (int16_t)(i * 7 % 31);
        b[i / 24][i % 24] = (int16_t)(i * 5 % 29);
    }
    for (int round = 0; round < 1200; round++) {
        crc = crc16(crc, list_work(items, 200, 40));
        crc = crc16(crc, matrix_work(a, b, round));
        for (int i = 0; i < 20; i++) {
            crc = crc16(crc, state_work(text + i));
        }
    }
    return crc;
}
